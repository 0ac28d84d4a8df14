//! The same of a peer: silent connections from many networks, and how long an honest peer's handshake takes meanwhile.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};
use swarmseal::wire::handshake::{self, Handshake};
use swarmseal::wire::metainfo::Metainfo;
use swarmseal_bench::process::Process;
use swarmseal_bench::programs::{World, noise, port_of};

use super::{Caller, Row, row_of};

/// Networks of the flood, each with so many connections at a time.
const NETWORKS: u8 = 32;
const EACH: usize = 4;
/// Between two honest handshakes.
const PAUSE: Duration = Duration::from_millis(25);
/// An attempt that has no answer by then is made again: the slots give way at random.
const PATIENCE: Duration = Duration::from_secs(1);

/// Handshakes of an honest peer with a seed, without a flood and with one.
pub(super) fn rows(program: PathBuf, duration: Duration) -> Result<Vec<Row>> {
    let dir = tempfile::tempdir()?;
    let world = World { dir: dir.path().to_owned(), program, backend: None };
    std::fs::write(world.path("content"), noise(1 << 20))?;
    let published = world.publish("sealed", &[])?;
    let args = ["seed", &published.seed_file, "--listen", "127.0.0.1:0"];
    let seed = Process::start(&mut world.ours("sealed/seed", &args))?;
    let port = u16::try_from(port_of(&seed.until("\"listening\"")?)?).context("a port")?;
    let seed_address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let torrent = std::fs::read(&published.torrent)?;
    let info_hash = Metainfo::from_bytes(&torrent, swarmseal_accel::detect())?.info_hash;
    [("a peer: none", 0), ("a peer: silent connections from 32 networks", NETWORKS)]
        .into_iter()
        .map(|(name, networks)| run(name, networks, seed_address, info_hash, duration))
        .collect()
}

fn run(
    name: &'static str,
    networks: u8,
    seed: SocketAddr,
    info_hash: [u8; 20],
    duration: Duration,
) -> Result<Row> {
    let (stop, sent, begun) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
    let caller = std::thread::scope(|scope| {
        for number in 0..networks {
            let (stop, sent) = (&stop, &sent);
            scope.spawn(move || flood(Ipv4Addr::new(127, 0, 10, 1 + number), seed, stop, sent));
        }
        let caller = scope.spawn(move || greet(seed, info_hash, duration)).join();
        stop.store(true, Ordering::Relaxed);
        caller
    });
    let caller = caller.ok().context("the honest peer failed")?;
    row_of(name, vec![caller], sent.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64())
}

fn connect(from: Ipv4Addr, to: SocketAddr, patience: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&to.into(), patience)?;
    socket.set_read_timeout(Some(patience))?;
    Ok(socket)
}

/// Keeps connections that say nothing, and opens another for each that it loses.
fn flood(from: Ipv4Addr, seed: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) {
    let mut silent: Vec<Socket> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        silent.retain_mut(|socket| {
            let alive = socket.set_nonblocking(true).is_ok()
                && matches!(socket.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            alive && socket.set_nonblocking(false).is_ok()
        });
        match silent.len() < EACH {
            true => {
                if let Ok(socket) = connect(from, seed, PATIENCE) {
                    sent.fetch_add(1, Ordering::Relaxed);
                    silent.push(socket);
                }
            }
            false => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Handshakes at moments that are set beforehand, each from a network of its own, until the answer is there.
fn greet(seed: SocketAddr, info_hash: [u8; 20], duration: Duration) -> Caller {
    let hello = Handshake::new(info_hash, handshake::peer_id(*b"honest-peer-")).to_bytes();
    let mut caller = Caller::default();
    let (begun, mut due, mut number) = (Instant::now(), Duration::ZERO, 0_u32);
    while due < duration {
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        number += 1;
        let [_, _, high, low] = number.to_be_bytes();
        let from = Ipv4Addr::new(127, 1, high, low.max(1));
        let greeted = |mut socket: Socket| {
            socket.write_all(&hello)?;
            socket.read_exact(&mut [0; handshake::LEN])
        };
        // Whose slot gave way comes again at once.
        while connect(from, seed, PATIENCE).and_then(greeted).is_err() {}
        caller.latencies.push((begun.elapsed() - due).as_secs_f64() * 1e3);
        due += PAUSE;
    }
    caller
}
