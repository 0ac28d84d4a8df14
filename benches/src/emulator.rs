//! A network between namespaces: what `tc netem` does, in user space, for kernels without it.
//!
//! Each node is a network namespace of its own, with the system's own TCP. Its only way out is a VXLAN device (RFC 7348),
//! whose UDP datagrams end at this program. It reads the Ethernet frame inside, lets it wait for the sender's uplink, for
//! the latency and for the receiver's downlink, drops it by chance or where a queue is full, and hands it on.
//!
//! ```text
//! namespace n:  over 10.78.0.n ─VXLAN─ under 10.77.n.2 ══veth══ 10.77.n.1, here
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use swarmseal::peer::simulation::Link;

use crate::process::Process;

/// VXLAN's port, and the header before the frame.
const PORT: u16 = 4789;
const VXLAN: usize = 8;
const ETHERNET: usize = 14;
/// What VXLAN adds to a packet of 1,500 bytes fits.
const MTU: &str = "1600";
/// Longer than any frame that the devices send.
const FRAME: usize = 2048;

/// What every link has in common.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Chance that a packet is lost.
    pub loss: f64,
    /// Bytes that wait for a link before more are dropped.
    pub buffer: u64,
}

/// A link in one direction.
#[derive(Debug)]
struct Pipe {
    per_second: f64,
    free_at: Instant,
}

impl Pipe {
    fn new(per_second: f64, now: Instant) -> Self {
        Pipe { per_second, free_at: now }
    }

    /// When `bytes` are through; `None` where the queue is full.
    fn take(&mut self, now: Instant, bytes: usize, buffer: u64) -> Option<Instant> {
        let backlog = self.free_at.saturating_duration_since(now).as_secs_f64() * self.per_second;
        (backlog <= buffer as f64).then(|| {
            let takes = Duration::from_secs_f64(bytes as f64 / self.per_second);
            self.free_at = self.free_at.max(now) + takes;
            self.free_at
        })
    }
}

/// Where a datagram goes: the node that holds the IP address inside. Frames are numbered from 1.
fn destination(datagram: &[u8]) -> Option<usize> {
    let frame = datagram.get(VXLAN..)?;
    let address = match *frame.get(ETHERNET - 2..ETHERNET)? {
        // IPv4's destination; ARP's target.
        [0x08, 0x00] => frame.get(ETHERNET + 16..ETHERNET + 20)?,
        [0x08, 0x06] => frame.get(ETHERNET + 24..ETHERNET + 28)?,
        _ => return None,
    };
    match *address {
        [10, 78, 0, node] => Some(node.into()),
        _ => None,
    }
}

/// Fills in the TCP checksum of an IPv4 packet: the sender's system leaves that to the hardware, which there is none of.
fn complete_checksum(datagram: &mut [u8]) {
    let Some([0x08, 0x00]) = datagram.get(VXLAN + ETHERNET - 2..VXLAN + ETHERNET) else { return };
    let ip = &mut datagram[VXLAN + ETHERNET..];
    let Some(&[first, _, high, low]) = ip.first_chunk() else { return };
    let (header, total) = (usize::from(first & 15) * 4, usize::from(u16::from_be_bytes([high, low])));
    if ip.get(9) != Some(&6) || header < 20 || total < header + 20 || ip.len() < total {
        return;
    }
    let (head, segment) = ip[..total].split_at_mut(header);
    segment[16..18].fill(0);
    let words = |bytes: &[u8]| -> u32 {
        bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
            .sum()
    };
    // RFC 9293, 3.1: both addresses, the protocol, the length, the segment.
    let mut sum = words(&head[12..20]) + 6 + segment.len() as u32 + words(segment);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    segment[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// A frame on its way.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    order: u64,
    /// Whether it still has to pass the receiver's link.
    outside: bool,
    to: usize,
    datagram: Vec<u8>,
}

/// Everything on its way, and the links.
struct State {
    conditions: Conditions,
    links: Vec<Link>,
    up: Vec<Pipe>,
    down: Vec<Pipe>,
    queue: BinaryHeap<Reverse<Due>>,
    order: u64,
    random: u64,
}

impl State {
    fn new(links: &[Link], conditions: Conditions, now: Instant) -> Self {
        State {
            conditions,
            links: links.to_vec(),
            up: links.iter().map(|link| Pipe::new(link.up, now)).collect(),
            down: links.iter().map(|link| Pipe::new(link.down, now)).collect(),
            queue: BinaryHeap::new(),
            order: 0,
            random: 0x2008,
        }
    }

    /// In 0 … 1.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn push(&mut self, at: Instant, outside: bool, to: usize, datagram: Vec<u8>) {
        self.order += 1;
        self.queue.push(Reverse(Due { at, order: self.order, outside, to, datagram }));
    }

    /// Takes a datagram from node `from`.
    fn enter(&mut self, from: usize, datagram: &[u8], now: Instant) {
        let Some(to) = destination(datagram).filter(|to| (1..=self.links.len()).contains(to)) else { return };
        if !(1..=self.links.len()).contains(&from) {
            return;
        }
        let bytes = datagram.len() - VXLAN;
        let Some(left) = self.up[from - 1].take(now, bytes, self.conditions.buffer) else { return };
        if self.fraction() < self.conditions.loss {
            return;
        }
        let there = left + self.links[from - 1].latency + self.links[to - 1].latency;
        let mut datagram = datagram.to_vec();
        complete_checksum(&mut datagram);
        self.push(there, true, to, datagram);
    }

    /// The next frame that is through, and when the next event is due.
    fn leave(&mut self, now: Instant) -> (Option<(usize, Vec<u8>)>, Option<Instant>) {
        loop {
            match self.queue.peek() {
                Some(Reverse(next)) if next.at <= now => {}
                next => return (None, next.map(|Reverse(next)| next.at)),
            }
            let Some(Reverse(Due { at, outside, to, datagram, .. })) = self.queue.pop() else {
                return (None, None);
            };
            if !outside {
                return (Some((to, datagram)), None);
            }
            let bytes = datagram.len() - VXLAN;
            // As of when it was due: being late must not slow the link down.
            if let Some(through) = self.down[to - 1].take(at, bytes, self.conditions.buffer) {
                self.push(through, false, to, datagram);
            }
        }
    }
}

/// Namespaces with links between them, as long as it lives.
pub struct Lab {
    /// A process in each namespace: it ends with us, and the namespace with it.
    holders: Vec<Process>,
}

impl Lab {
    /// Whether this process may make namespaces. Errors: what is missing.
    pub fn allowed() -> Result<()> {
        let output = Command::new("unshare").args(["--net", "true"]).stdin(Stdio::null()).output();
        let output = output.context("unshare (util-linux) is needed to make network namespaces")?;
        ensure!(
            output.status.success(),
            "network namespaces need root: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        for program in ["ip", "nsenter"] {
            let found = Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
            ensure!(found.is_ok(), "{program} is needed (iproute2, util-linux)");
        }
        Ok(())
    }

    /// One namespace for each link, numbered from 1. To be called in a network namespace of our own: devices and addresses
    /// are made in it. Errors: devices cannot be made.
    pub fn new(links: &[Link], conditions: Conditions) -> Result<Self> {
        ensure!(links.len() <= 250, "{} nodes: expected at most 250", links.len());
        run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?);
        let mut holders = Vec::new();
        for node in 1..=links.len() {
            let holder =
                Process::start(Command::new("unshare").args(["--net", "sh", "-c", "echo here; cat"]))?;
            holder.until("here")?;
            let (pid, device) = (holder.id().to_string(), format!("node{node}"));
            let (here, there) = (format!("10.77.{node}.1"), format!("10.77.{node}.2/30"));
            let peer = ["peer", "name", "under", "mtu", MTU, "netns", &pid];
            ip(&[&["link", "add", &device, "mtu", MTU, "type", "veth"][..], &peer].concat())?;
            ip(&["address", "add", &format!("{here}/30"), "dev", &device])?;
            ip(&["link", "set", &device, "up"])?;
            let inside = |args: &[&str]| run(enter(holder.id(), "ip").args(args));
            inside(&["link", "set", "lo", "up"])?;
            inside(&["address", "add", &there, "dev", "under"])?;
            inside(&["link", "set", "under", "up"])?;
            // Single packets, as on a wire.
            let plain =
                ["link", "add", "over", "mtu", "1500", "gso_max_segs", "1", "type", "vxlan", "id", "7"];
            inside(&[&plain[..], &["remote", &here, "dstport", &PORT.to_string()]].concat())?;
            inside(&["address", "add", &format!("{}/24", Self::address(node)), "dev", "over"])?;
            inside(&["link", "set", "over", "up"])?;
            holders.push(holder);
        }
        let state = State::new(links, conditions, Instant::now());
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let (reader, writer) = (socket.clone(), socket);
        let entering = shared.clone();
        std::thread::spawn(move || take_in(&reader, &entering));
        std::thread::spawn(move || hand_on(&writer, &shared));
        Ok(Lab { holders })
    }

    /// A node's address.
    pub fn address(node: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, 0, node as u8)
    }

    /// A command that will run at a node.
    pub fn at(&self, node: usize, program: &std::path::Path) -> Command {
        enter(self.holders[node - 1].id(), program)
    }
}

fn enter(pid: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{pid}/ns/net")).arg("--").arg(program);
    command
}

fn ip(args: &[&str]) -> Result<()> {
    run(Command::new("ip").args(args))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn take_in(socket: &UdpSocket, shared: &(Mutex<State>, Condvar)) {
    let mut bytes = [0; FRAME];
    loop {
        let Ok((len, SocketAddr::V4(from))) = socket.recv_from(&mut bytes) else { continue };
        let [.., node, _] = from.ip().octets();
        let mut state = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.enter(node.into(), &bytes[..len], Instant::now());
        drop(state);
        shared.1.notify_one();
    }
}

fn hand_on(socket: &UdpSocket, shared: &(Mutex<State>, Condvar)) {
    let mut state = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let (ready, next) = state.leave(Instant::now());
        state = match (ready, next) {
            (Some((node, datagram)), _) => {
                drop(state);
                // A namespace that has just gone takes nothing.
                let _ = socket.send_to(&datagram, (Ipv4Addr::new(10, 77, node as u8, 2), PORT));
                shared.0.lock().unwrap_or_else(PoisonError::into_inner)
            }
            (None, Some(at)) => {
                let wait = at.saturating_duration_since(Instant::now());
                shared.1.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
            }
            (None, None) => shared.1.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { up: 1e6, down: 0.5e6, latency: Duration::from_millis(10) };

    /// An IPv4 packet of `bytes`, headers of Ethernet and all, to a node.
    fn packet(to: u8, bytes: usize) -> Vec<u8> {
        let mut datagram = vec![0; VXLAN + bytes];
        datagram[VXLAN + 12..VXLAN + 14].copy_from_slice(&[0x08, 0x00]);
        datagram[VXLAN + ETHERNET + 16..VXLAN + ETHERNET + 20].copy_from_slice(&[10, 78, 0, to]);
        datagram
    }

    /// Every frame that gets through, and after how long.
    fn through(state: &mut State, start: Instant) -> Vec<(usize, Duration)> {
        let (mut now, mut out) = (start, Vec::new());
        loop {
            match state.leave(now) {
                (Some((to, _)), _) => out.push((to, now - start)),
                (None, Some(next)) => now = next,
                (None, None) => return out,
            }
        }
    }

    #[test]
    fn a_packet_pays_for_both_links_and_the_latency() {
        let start = Instant::now();
        let mut state = State::new(&[LINK; 3], Conditions { loss: 0.0, buffer: 10_000 }, start);
        state.enter(1, &packet(3, 1000), start);
        state.enter(1, &packet(2, 1000), start);
        let out = through(&mut state, start);
        assert_eq!(out.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [3, 2]);
        // 1 ms up, 20 ms, 2 ms down; and the second waits for the first to go up.
        let expected = [0.023, 0.024];
        for ((_, after), expected) in out.iter().zip(expected) {
            assert!((after.as_secs_f64() - expected).abs() < 1e-6, "{after:?}");
        }
    }

    #[test]
    fn a_full_queue_drops_and_chance_does() {
        let start = Instant::now();
        let mut state = State::new(&[LINK; 2], Conditions { loss: 0.0, buffer: 10_000 }, start);
        (0..100).for_each(|_| state.enter(1, &packet(2, 1000), start));
        // Eleven are on their way up; the link down takes half as much.
        assert_eq!(through(&mut state, start).len(), 11);
        let mut state = State::new(&[LINK; 2], Conditions { loss: 0.25, buffer: u64::MAX }, start);
        (0..4000).for_each(|_| state.enter(1, &packet(2, 100), start));
        let kept = through(&mut state, start).len();
        assert!((2800..3200).contains(&kept), "{kept}");
    }

    #[test]
    fn checksums_are_completed() {
        // A SYN from 10.78.0.1:1000 to 10.78.0.2:6881, sequence number 1, window 64,240.
        let mut datagram = packet(2, ETHERNET + 40);
        let ip = VXLAN + ETHERNET;
        datagram[ip..ip + 4].copy_from_slice(&[0x45, 0, 0, 40]);
        datagram[ip + 9] = 6;
        datagram[ip + 12..ip + 16].copy_from_slice(&[10, 78, 0, 1]);
        let segment = [3, 232, 26, 225, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 250, 240, 0xab, 0xcd, 0, 0];
        datagram[ip + 20..].copy_from_slice(&segment);
        complete_checksum(&mut datagram);
        // 0x0a4e + 1 + 0x0a4e + 2 + 6 + 20 + 0x03e8 + 0x1ae1 + 1 + 0x5002 + 0xfaf0 = 0x17e75.
        assert_eq!(datagram[ip + 36..ip + 38], (!0x7e76_u16).to_be_bytes());
        // What is none of TCP, or cut short, stays.
        let mut other = packet(2, ETHERNET + 30);
        let before = other.clone();
        complete_checksum(&mut other);
        assert_eq!(other, before);
    }

    #[test]
    fn destinations_are_read_and_strangers_dropped() {
        assert_eq!(destination(&packet(7, 100)), Some(7));
        let mut arp = packet(9, 100);
        arp[VXLAN + 13] = 0x06;
        arp[VXLAN + ETHERNET + 24..VXLAN + ETHERNET + 28].copy_from_slice(&[10, 78, 0, 8]);
        assert_eq!(destination(&arp), Some(8));
        let mut other = packet(7, 100);
        other[VXLAN + 12] = 0x86;
        assert_eq!((destination(&other), destination(&[0; 20]), destination(&[])), (None, None, None));
        let start = Instant::now();
        let mut state = State::new(&[LINK; 2], Conditions { loss: 0.0, buffer: 10_000 }, start);
        state.enter(1, &packet(200, 100), start);
        state.enter(77, &packet(1, 100), start);
        assert!(through(&mut state, start).is_empty());
    }
}
