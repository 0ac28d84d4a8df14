//! How fast the player opens pieces, to memory and through its local server, and how soon a seek is answered.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use getrandom::SysRng;
use rand_core::UnwrapErr;
use serde::Serialize;
use serde_json::Value;
use sha1::{Digest, Sha1};
use swarmseal::peer::{Shape, Store, StoreReader, StoredPiece};
use swarmseal::player::serve::{BoxFuture, Server, Supply};
use swarmseal::player::{PieceReader, PlayFiles, Player, PolicyState};
use swarmseal::wire::content::{FileEntry, FileList, Manifest};
use swarmseal::wire::identity::{Device, SigningKey};
use swarmseal::wire::license::{License, Policy};
use swarmseal::wire::metainfo::{Info, Metainfo, Seal};
use swarmseal_bench::process::{Process, cpu_of};
use swarmseal_bench::programs::noise;
use swarmseal_bench::report::{cells, table};
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    DecryptionKey, EncryptionKey, Exponents, Group, Kernels, MasterKey, Params, Profile, TsKeys,
    encrypt_piece,
};

/// Opens pieces of 2,048 bits on one core with every backend: read from the store, PDec, SHA-1, unpacked; to memory, and through
/// the local server with one range. Then asks that server for 64 KiB at random places, all pieces being there.
///
/// Bytes a second are of the clock; bytes a CPU second are what a core would do that has nothing else to do. Both count the
/// server alone: who reads runs on another core, if there is one. The core is chosen with taskset.
#[derive(Parser)]
struct Args {
    /// Print JSON: {"bytes", "rates": [{backend, piece, to, mb_s, mb_cpu_s}], "seeks": [{backend, piece, first, all}], "pass"}.
    #[arg(long)]
    json: bool,
    /// A quarter of everything.
    #[arg(long)]
    quick: bool,
    /// MiB of content.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..=4096))]
    size: u32,
    /// Seeks of each kind.
    #[arg(long, value_name = "COUNT", default_value_t = 400, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    seeks: u32,
    /// Only this backend; see `swarmseal cpu`.
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// The core of the player.
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    core: usize,
    /// What the program starts itself with, on one core: a directory, a backend and a piece length.
    #[arg(long, hide = true, num_args = 3)]
    child: Option<Vec<String>>,
}

const PIECES: [u32; 2] = [256 << 10, 1 << 20];
const SEEK: u64 = 64 << 10;
/// Least MB a CPU second of opening to memory.
const BARS: [(&str, f64); 2] = [("ifma", 500.0), ("adx", 100.0)];
/// Of the 95th percentile, to the last byte.
const SEEK_BAR_MS: f64 = 50.0;

#[derive(Serialize)]
struct Rate {
    backend: String,
    piece: u32,
    /// `memory` or `http`.
    to: &'static str,
    mb_s: f64,
    mb_cpu_s: f64,
}

/// Milliseconds at the 50th, 95th and 99th percentile.
#[derive(Serialize)]
struct Percentiles {
    p50: f64,
    p95: f64,
    p99: f64,
}

#[derive(Serialize)]
struct Seeks {
    backend: String,
    piece: u32,
    /// To the first byte of the content.
    first: Percentiles,
    /// To the last.
    all: Percentiles,
}

#[derive(Serialize)]
struct Bar {
    what: String,
    needed: f64,
    found: f64,
    pass: bool,
}

#[derive(Serialize)]
struct Report {
    bytes: u64,
    /// The machine's load when it began.
    load: String,
    rates: Vec<Rate>,
    seeks: Vec<Seeks>,
    bars: Vec<Bar>,
    pass: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some([directory, backend, piece]) = args.child.as_deref() {
        return child(Path::new(directory), backend, piece.parse()?).map(|()| ExitCode::SUCCESS);
    }
    let part = if args.quick { 4 } else { 1 };
    let (size, seeks) = (u64::from(args.size / part).max(8) << 20, (args.seeks / part).max(20));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned();
    let mut names: Vec<&str> = swarmseal_accel::each().map(|kernels| kernels.name).collect();
    names.retain(|name| args.backend.as_deref().is_none_or(|wanted| wanted == *name));
    ensure!(!names.is_empty(), "expected a backend that this CPU runs");
    let (mut rates, mut all_seeks) = (Vec::new(), Vec::new());
    for piece in PIECES {
        let directory = tempfile::tempdir()?;
        Content::make(directory.path(), piece, size)?;
        for &name in &names {
            let served = Served::start(directory.path(), name, piece, args.core)?;
            rates.extend(served.rates(name, piece)?);
            all_seeks.push(served.seeks(name, piece, seeks)?);
            eprintln!("{name}, pieces of {} KiB: done", piece >> 10);
        }
    }
    let mut bars = Vec::new();
    for (backend, needed) in BARS {
        for rate in rates.iter().filter(|rate| rate.backend == backend && rate.to == "memory") {
            let what = format!("{backend}, pieces of {} KiB, MB a CPU second", rate.piece >> 10);
            bars.push(Bar { what, needed, found: rate.mb_cpu_s, pass: rate.mb_cpu_s >= needed });
        }
    }
    for seeks in all_seeks.iter().filter(|seeks| BARS.iter().any(|(name, _)| *name == seeks.backend)) {
        let what =
            format!("{}, pieces of {} KiB, 95th percentile of a seek, ms", seeks.backend, seeks.piece >> 10);
        bars.push(Bar {
            what,
            needed: SEEK_BAR_MS,
            found: seeks.all.p95,
            pass: seeks.all.p95 <= SEEK_BAR_MS,
        });
    }
    let pass = bars.iter().all(|bar| bar.pass);
    let report = Report { bytes: size, load, rates, seeks: all_seeks, bars, pass };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(if pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &Report) {
    println!("{} MiB, load {}", report.bytes >> 20, report.load);
    let mut rows = vec![cells(["backend", "piece", "to", "MB/s", "MB/CPU s"])];
    for Rate { backend, piece, to, mb_s, mb_cpu_s } in &report.rates {
        rows.push(vec![
            backend.clone(),
            format!("{} KiB", piece >> 10),
            (*to).to_owned(),
            format!("{mb_s:.0}"),
            format!("{mb_cpu_s:.0}"),
        ]);
    }
    println!("{}", table(&rows));
    let mut rows = vec![cells(["backend", "piece", "seek", "p50 ms", "p95 ms", "p99 ms"])];
    for seeks in &report.seeks {
        for (of, Percentiles { p50, p95, p99 }) in [("first byte", &seeks.first), ("64 KiB", &seeks.all)] {
            let piece = format!("{} KiB", seeks.piece >> 10);
            let numbers = [p50, p95, p99].map(|ms| format!("{ms:.2}"));
            rows.push([vec![seeks.backend.clone(), piece, of.to_owned()], numbers.to_vec()].concat());
        }
    }
    println!("{}", table(&rows));
    for Bar { what, needed, found, pass } in &report.bars {
        println!("{} {what}: {found:.1}, bar {needed:.0}", if *pass { "ok  " } else { "FAIL" });
    }
}

/// One subscriber's torrent in a directory.
struct Content;

const EPOCH: u64 = 1;

fn params(kernels: &'static Kernels) -> Result<Arc<Params>> {
    let params = Params::new(Profile::Sealed, Group::ffdhe2048(kernels), Exponents::Short);
    Ok(Arc::new(params.map_err(|error| anyhow::anyhow!("{error}"))?))
}

fn license_key() -> SigningKey {
    SigningKey::from_bytes(&[77; 32])
}

fn device() -> Device {
    Device::from_bytes(&[1; 32])
}

impl Content {
    /// Publishes `size` bytes of noise, encrypts them for a subscriber, and writes store, license and keys.
    fn make(directory: &Path, piece_length: u32, size: u64) -> Result<()> {
        let kernels = swarmseal_accel::detect();
        let params = params(kernels)?;
        let package = PackageSecret::from_bytes([3; 32]);
        let (publisher, license_key) = (SigningKey::from_bytes(&[76; 32]), license_key());
        let seal = Seal::new(publisher.public(), [5; 32], params.clone());
        let torrent_id = seal.torrent_id;
        let keys = device().subscriber_keys(&params, &torrent_id);
        let ts_keys = TsKeys::derive(&params, &MasterKey::from_bytes([8; 32]), &keys.id, EPOCH);
        let entry = FileEntry { mime: "video/mp4".into(), path: vec!["film.mp4".into()], size };
        let header = Manifest::new(FileList::new(vec![entry])?, None)?.header();
        let payload = piece_length as usize - 32;
        let piece_count = (header.len() as u64 + size).div_ceil(payload as u64) as u32;
        let content = noise(u64::from(piece_count) * payload as u64);
        let shape = Shape { torrent_id, piece_len: piece_length, piece_count };
        let store = Store::open(directory, shape)?;
        let (width, mut pieces) = (params.group().bytes(), Vec::new());
        let mut decryption_keys = vec![0; width * piece_count as usize];
        for (index, key) in (0..).zip(decryption_keys.chunks_mut(width)) {
            let mut piece = content[index as usize * payload..][..payload].to_vec();
            piece.resize(piece_length as usize, 0);
            if index == 0 {
                piece[..header.len()].copy_from_slice(&header);
            }
            let core = |error: swarmseal_core::Error| anyhow::anyhow!("{error}");
            package::pack(&params, &package, &torrent_id, index, &mut piece).map_err(core)?;
            pieces.push(<[u8; 20]>::from(Sha1::digest(&piece)));
            let r = ts_keys.key(index);
            encrypt_piece(&params, &EncryptionKey::derive(&params, &keys.public_key, &r), &mut piece)
                .map_err(core)?;
            DecryptionKey::derive(&params, &r).to_bytes(&params, key).map_err(core)?;
            let hash = *blake3::hash(&piece).as_bytes();
            store.put(index, &piece, StoredPiece { epoch: EPOCH, hash })?;
        }
        store.sync()?;
        let seal = Seal { witness: vec![[0; 32]; piece_count as usize].into(), ..seal };
        let info = Info { name: "bench".into(), piece_length, piece_count, pieces, private: true, seal };
        let metainfo = Metainfo::new(None, info)?;
        fs::write(directory.join("meta.torrent"), metainfo.to_bytes())?;
        let license = License {
            torrent_id,
            info_hash: metainfo.info_hash,
            subscriber: keys.id,
            epoch: EPOCH,
            policy: Policy::default(),
            issued: None,
            played: 0,
            keys: decryption_keys.into(),
        };
        let device = keys.identity.device_public();
        let envelope = license.seal(&license_key, &device, &mut UnwrapErr(SysRng))?;
        fs::write(directory.join("license"), envelope)?;
        Ok(())
    }
}

struct Complete(StoreReader);

impl PieceReader for Complete {
    fn read_piece(&self, index: u32, piece: &mut [u8]) -> std::io::Result<Option<u64>> {
        self.0.read_piece(index, piece)
    }
}

impl Supply for Complete {
    fn want(&self, _: &[u32]) {}

    fn available(&self, _: u32) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn refetch(&self, _: u32) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(Err("it is complete".to_owned())))
    }
}

/// Opens everything to memory, says how long it took, and serves until its standard input ends.
fn child(directory: &Path, backend: &str, piece_length: u32) -> Result<()> {
    let kernels =
        swarmseal_accel::each().find(|kernels| kernels.name == backend).context("no such backend")?;
    let metainfo = Metainfo::from_bytes(&fs::read(directory.join("meta.torrent"))?, kernels)?;
    let (device, torrent_id) = (device(), metainfo.info.seal.torrent_id);
    let keys = device.subscriber_keys(&metainfo.info.seal.params, &torrent_id);
    let shape = Shape { torrent_id, piece_len: piece_length, piece_count: metainfo.info.piece_count };
    let player =
        Player::new(metainfo, &keys, &license_key().public(), &fs::read(directory.join("license"))?)?;
    let record = directory.join(format!("plays-{backend}"));
    let journal = record.with_extension("journal");
    let mut state = PolicyState::load(PlayFiles { record, journal }, &device, &keys.id)?;
    let session = player.begin_play(&mut state, 1_800_000_000)?;
    let pieces = Complete(StoreReader::open(directory, &shape)?);
    let content = session.content(&pieces)?;
    let whole = content.span(0)?;
    let all = || {
        let mut bytes = 0;
        session.read(&pieces, whole.clone(), &mut |part| {
            bytes += std::hint::black_box(part).len() as u64;
            Ok(())
        })?;
        Ok::<_, anyhow::Error>(bytes)
    };
    // The disk's part is not what is timed, nor the license's keys.
    all()?;
    let this = std::process::id();
    let (begun, before) = (Instant::now(), cpu_of(this));
    let mut bytes = 0;
    // Until the clock of CPU time has counted enough.
    while begun.elapsed() < Duration::from_secs(2) {
        bytes += all()?;
    }
    let line = serde_json::json!({
        "event": "opened", "bytes": bytes, "seconds": begun.elapsed().as_secs_f64(), "cpu": cpu_of(this) - before,
    });
    println!("{line}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let any = ([127, 0, 0, 1], 0).into();
        let server = Server::bind(any, session, content, Arc::new(pieces)).await?;
        println!("{}", serde_json::json!({ "event": "serving", "url": server.file_url(0)? }));
        server.run(std::future::pending()).await;
        Ok(())
    })
}

/// A player in a process of its own.
struct Served {
    process: Process,
    opened: Value,
    address: String,
    path: String,
}

impl Served {
    fn start(directory: &Path, backend: &str, piece: u32, core: usize) -> Result<Self> {
        let this: PathBuf = std::env::current_exe()?;
        let mut command = Command::new("taskset");
        command.arg("-c").arg(core.to_string()).arg(this).arg("--child").arg(directory);
        let process = Process::start(command.arg(backend).arg(piece.to_string()))?;
        let opened = serde_json::from_str(&process.until("opened")?)?;
        let serving: Value = serde_json::from_str(&process.until("serving")?)?;
        let url = serving["url"].as_str().and_then(|url| url.strip_prefix("http://")).context("a URL")?;
        let (address, path) = url.split_once('/').context("a path")?;
        let (address, path) = (address.to_owned(), format!("/{path}"));
        Ok(Served { process, opened, address, path })
    }

    fn rates(&self, backend: &str, piece: u32) -> Result<[Rate; 2]> {
        let number = |name: &str| self.opened[name].as_f64().context("a number");
        let rate = |to, bytes: f64, seconds: f64, cpu: f64| Rate {
            backend: backend.to_owned(),
            piece,
            to,
            mb_s: bytes / 1e6 / seconds,
            mb_cpu_s: bytes / 1e6 / cpu,
        };
        let memory = rate("memory", number("bytes")?, number("seconds")?, number("cpu")?);
        let (begun, before) = (Instant::now(), self.process.cpu());
        let mut bytes = 0;
        while begun.elapsed() < Duration::from_secs(2) {
            bytes += self.get("bytes=0-", &mut vec![0; 1 << 20])?.2;
        }
        let http = rate("http", bytes as f64, begun.elapsed().as_secs_f64(), self.process.cpu() - before);
        Ok([memory, http])
    }

    /// Asks for a range: the time to the first byte of content, to the last, and how many came.
    fn get(&self, range: &str, buffer: &mut [u8]) -> Result<(Duration, Duration, u64)> {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        let Served { address, path, .. } = self;
        stream.write_all(
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nRange: {range}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )?;
        let mut head = Vec::new();
        let (mut first, mut bytes) = (None, 0);
        loop {
            let read = stream.read(buffer)?;
            if read == 0 {
                break;
            }
            if first.is_some() {
                bytes += read as u64;
                continue;
            }
            head.extend_from_slice(&buffer[..read]);
            if let Some(end) = head.windows(4).position(|end| end == b"\r\n\r\n") {
                ensure!(head.starts_with(b"HTTP/1.1 206 "), "{}", String::from_utf8_lossy(&head[..end]));
                bytes = (head.len() - end - 4) as u64;
                first = (bytes > 0).then(|| begun.elapsed());
            }
        }
        Ok((first.unwrap_or_else(|| begun.elapsed()), begun.elapsed(), bytes))
    }

    fn seeks(&self, backend: &str, piece: u32, count: u32) -> Result<Seeks> {
        let (_, _, size) = self.get("bytes=0-", &mut vec![0; 1 << 20])?;
        let (mut first, mut all) = (Vec::new(), Vec::new());
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..count {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = random % (size - SEEK);
            let (to_first, to_last, bytes) =
                self.get(&format!("bytes={at}-{}", at + SEEK - 1), &mut vec![0; SEEK as usize])?;
            ensure!(bytes == SEEK, "{bytes} bytes came");
            first.push(to_first.as_secs_f64() * 1e3);
            all.push(to_last.as_secs_f64() * 1e3);
        }
        Ok(Seeks { backend: backend.to_owned(), piece, first: percentiles(first), all: percentiles(all) })
    }
}

fn percentiles(mut of: Vec<f64>) -> Percentiles {
    of.sort_by(f64::total_cmp);
    let at = |part: usize| of[(of.len() * part / 100).min(of.len() - 1)];
    Percentiles { p50: at(50), p95: at(95), p99: at(99) }
}
