//! One seed and one leech over loopback: ours with an ordinary torrent, ours sealed, and other clients, in turns.

use std::fs;
use std::hint::black_box;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use sha1::{Digest, Sha1};
use swarmseal::wire::plain::PlainTorrent;
use swarmseal_bench::problem::Random;
use swarmseal_bench::process::{DEADLINE, Process};
use swarmseal_bench::programs::{Programs, Published, World, noise, port_of, size};
use swarmseal_bench::report::{cells, table};
use swarmseal_bench::timing::median;
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    EncryptionKey, Exponents, FixedBase, Group, MasterKey, Params, Profile, ReKey, SecretKey, SubscriberId,
    SubscriberTables, TorrentId, TsKey, TsKeys, WitnessExponent, WitnessExponents, WitnessKey, WitnessSecret,
    WitnessTable, check_piece, encrypt_piece, re_encrypt_piece,
};

/// Fetches a file again and again from one seed, by each client in turn, and says how fast.
///
/// Plain torrents cost SHA-1 at the leech. Sealed ones cost packaging and PEnc at the seed; the check of every block, T and two
/// passes of BLAKE3 at the leech; and two keys a piece at the tracker. A warm seed has its packaged pieces on disk
/// (`seed --package-cache`), which spares it the packaging; a cold one makes each as it is asked for, and keeps none.
/// `swarmseal` is looked for beside this program: build it with --release as well. Other clients run if they are found: rqbit on
/// the path, libtorrent in --python (its package on PyPI).
#[derive(Parser)]
struct Args {
    /// Bytes to move, with K, M or G.
    #[arg(long, default_value = "640M", value_parser = size)]
    size: u64,
    /// How often each client fetches it.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// 64 MiB, twice.
    #[arg(long)]
    quick: bool,
    /// Print JSON: {"contestants": [{name, mb_s, cpu_seconds, seconds}], sealed, kernels}.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    programs: Programs,
    /// rqbit.
    #[arg(long, value_name = "FILE", default_value = "rqbit")]
    rqbit: PathBuf,
    /// A Python that may have libtorrent.
    #[arg(long, value_name = "FILE", default_value = "python3")]
    python: PathBuf,
}

const PIECE: u32 = 256 << 10;
/// How many times what the kernels alone add a warm seed's transfer may add, in CPU seconds, on these backends.
const BAR: f64 = 1.25;
const JUDGED: [&str; 2] = ["ifma", "adx"];
/// Keys that are made in one batch.
const KEYS: u32 = 32;
/// How often each kernel is timed.
const TURNS: u32 = 200;
const PLAIN: &str = "ours, plain";
const COLD: &str = "ours, sealed, cold seed";
const WARM: &str = "ours, sealed, warm seed";
/// Fetches everything to a directory: seconds, and CPU seconds of the leech if they are seen.
type Fetch = Box<dyn Fn(&Path) -> Result<(f64, Option<f64>)>>;

/// One client: a seed that runs, and how to fetch from it.
struct Contestant {
    name: &'static str,
    seed: Process,
    /// A sealed torrent's own tracker.
    published: Option<Published>,
    fetch: Fetch,
    /// Where a leech leaves what it fetched, below its directory; none where it is sealed.
    output: Option<&'static str>,
    rounds: Vec<Round>,
}

/// One transfer.
#[derive(Clone, Copy, Serialize)]
struct Round {
    seconds: f64,
    /// Of seed, leech and tracker, where all can be seen.
    cpu_seconds: Option<f64>,
}

#[derive(Serialize)]
struct Figure {
    name: &'static str,
    /// The median.
    mb_s: f64,
    cpu_seconds: Option<f64>,
    seconds: Vec<f64>,
}

#[derive(Serialize)]
struct Report {
    bytes: u64,
    piece: u32,
    backend: &'static str,
    contestants: Vec<Figure>,
    missing: Vec<&'static str>,
    /// Of our plain rate to the best other client's; 1.0 is the bar.
    plain_to_best_rival: Option<f64>,
    sealed: Vec<Overhead>,
    kernels: Kernels,
}

/// What sealing costs.
#[derive(Serialize)]
struct Overhead {
    name: &'static str,
    /// Of our sealed rate to our plain.
    rate_to_plain: f64,
    /// Of the plain transfer's CPU seconds to the sealed one's: the same ratio, where all cores are busy.
    cpu_to_plain: Option<f64>,
    /// CPU seconds that sealing adds.
    added_cpu_seconds: Option<f64>,
    /// What of the kernels this transfer pays for and plain does not, less the SHA-1 that plain pays for.
    kernel_seconds: f64,
    /// The one to the other.
    added_to_kernels: Option<f64>,
    /// Whether a warm seed keeps within the bar; nothing where it is not judged.
    pass: Option<bool>,
}

/// Seconds of one core over the same bytes, a piece at a time: the fastest of several turns.
#[derive(Clone, Copy, Serialize)]
struct Kernels {
    penc: f64,
    t: f64,
    /// Three passes of BLAKE3 and the range check.
    package: f64,
    /// One pass; the leech pays two, of the witness's form and of what it stores.
    blake3: f64,
    /// The leech's check that blocks are proper.
    check: f64,
    /// The tracker's: an encryption key and a witness key a piece, from warm tables.
    keys: f64,
    sha1: f64,
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Starts one of our leeches and waits for the last piece: seconds, and its CPU seconds.
fn fetch_ours(mut command: Command) -> Result<(f64, Option<f64>)> {
    let start = Instant::now();
    let leech = Process::start(&mut command)?;
    leech.until("\"complete\"")?;
    Ok((start.elapsed().as_secs_f64(), Some(leech.cpu())))
}

fn plain(world: &Rc<World>, torrent: &str) -> Result<Contestant> {
    let args = ["get", torrent, "--output", &world.path(""), "--listen", "127.0.0.1:0"];
    let seed = Process::start(&mut world.ours("plain-seed", &args))?;
    let port = port_of(&seed.until("\"listening\"")?)?;
    seed.until("\"complete\"")?;
    let (leeches, torrent) = (world.clone(), torrent.to_owned());
    let fetch = move |to: &Path| {
        let mut command = leeches.program();
        command
            .arg("--json")
            .arg("--data")
            .arg(to.join("data"))
            .args(["get", &torrent])
            .arg("--output")
            .arg(to);
        command.args(["--listen", "127.0.0.1:0", "--peer", &format!("127.0.0.1:{port}")]);
        fetch_ours(command)
    };
    Ok(Contestant::new(PLAIN, seed, Box::new(fetch), Some("content")))
}

/// A sealed torrent with a tracker of its own.
fn sealed(world: &Rc<World>, name: &'static str, warm: bool) -> Result<Contestant> {
    let published = world.publish(if warm { "warm" } else { "cold" }, &[])?;
    let seed = published.seed(world, warm, &[])?;
    let (leeches, torrent) = (world.clone(), published.torrent.clone());
    let fetch = move |to: &Path| {
        fetch_ours(leeches.ours(to.join("data"), &["get", &torrent, "--listen", "127.0.0.1:0"]))
    };
    let contestant = Contestant::new(name, seed, Box::new(fetch), None);
    Ok(Contestant { published: Some(published), ..contestant })
}

fn rqbit(world: &World, program: &Path, torrent: &str) -> Result<Contestant> {
    let port = free_port()?;
    let base = |program: &Path, port: u16, to: &str| {
        let mut command = Command::new(program);
        command.args(["--disable-dht", "--disable-upnp-port-forward", "--disable-lsd"]);
        command.args(["--listen-ip", "127.0.0.1", "--listen-port", &port.to_string()]);
        command.args(["--http-api-listen-addr", "127.0.0.1:0"]);
        command.env("RUST_LOG", "info").args(["download", "--overwrite", "--output-folder", to]);
        command
    };
    let seed = Process::start(base(program, port, &world.path("")).arg(torrent))?;
    let start = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(start.elapsed() < DEADLINE, "rqbit does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    // It listens before it has hashed what is there.
    std::thread::sleep(Duration::from_secs(5));
    let (program, torrent) = (program.to_owned(), torrent.to_owned());
    let fetch = move |to: &Path| {
        let mut command = base(&program, free_port()?, &to.display().to_string());
        command.args(["--exit-on-finish", "--initial-peers", &format!("127.0.0.1:{port}"), &torrent]);
        let start = Instant::now();
        Process::start(&mut command)?.ends()?;
        Ok((start.elapsed().as_secs_f64(), None))
    };
    Ok(Contestant::new("rqbit", seed, Box::new(fetch), Some("content")))
}

fn libtorrent(world: &World, python: &Path, torrent: &str) -> Result<Contestant> {
    let port = free_port()?;
    let peer = |python: &Path, to: &str, port: u16| {
        let mut command = Command::new(python);
        command.args(["-c", include_str!("../swarm/libtorrent_peer.py")]);
        command.args([torrent, to, &port.to_string()]);
        command
    };
    let seed = Process::start(&mut peer(python, &world.path(""), port))?;
    seed.until("complete")?;
    let (python, torrent) = (python.to_owned(), torrent.to_owned());
    let fetch = move |to: &Path| {
        let mut command = Command::new(&python);
        command.args(["-c", include_str!("../swarm/libtorrent_peer.py"), &torrent]).arg(to);
        command.args([&free_port()?.to_string(), &format!("127.0.0.1:{port}")]);
        let start = Instant::now();
        let leech = Process::start(&mut command)?;
        leech.until("complete")?;
        let taken = (start.elapsed().as_secs_f64(), Some(leech.cpu()));
        leech.until("flushed")?;
        Ok(taken)
    };
    Ok(Contestant::new("libtorrent", seed, Box::new(fetch), Some("content")))
}

impl Contestant {
    fn new(name: &'static str, seed: Process, fetch: Fetch, output: Option<&'static str>) -> Self {
        Contestant { name, seed, published: None, fetch, output, rounds: Vec::new() }
    }

    /// Seconds of CPU of those that outlive a transfer.
    fn cpu(&self) -> f64 {
        self.seed.cpu() + self.published.as_ref().map_or(0.0, |published| published.tracker.cpu())
    }

    fn round(&mut self, dir: &Path, content: &[u8]) -> Result<()> {
        let before = self.cpu();
        fs::create_dir_all(dir)?;
        let (seconds, cpu) = (self.fetch)(dir).with_context(|| self.name.to_owned())?;
        let cpu_seconds = cpu.map(|cpu| cpu + self.cpu() - before);
        self.rounds.push(Round { seconds, cpu_seconds });
        if let Some(output) = self.output {
            ensure!(fs::read(dir.join(output))? == content, "{} fetched something else", self.name);
        }
        fs::remove_dir_all(dir)?;
        Ok(())
    }

    fn figure(&self, bytes: u64) -> Figure {
        let cpu: Option<Vec<f64>> = self.rounds.iter().map(|round| round.cpu_seconds).collect();
        let seconds: Vec<f64> = self.rounds.iter().map(|round| round.seconds).collect();
        let mb_s = bytes as f64 / 1e6 / median(seconds.clone());
        Figure { name: self.name, mb_s, cpu_seconds: cpu.map(median), seconds }
    }
}

/// Times the kernels, in turns.
fn time_kernels(kernels: &'static swarmseal_core::Kernels, bytes: u64) -> Result<Kernels> {
    let error = |error: swarmseal_core::Error| anyhow::anyhow!("{error}");
    let params = Params::new(Profile::Sealed, Group::ffdhe2048(kernels), Exponents::Short).map_err(error)?;
    let mut key = vec![0; 256];
    key[100..].fill(3);
    let rekey = ReKey::from_bytes(&params, &key).map_err(error)?;
    let y = SecretKey::generate(&params, &mut Random::new(0)).public_key(&params);
    let key = EncryptionKey::from_bytes(&params, &key).map_err(error)?;
    let (secret, torrent) = (PackageSecret::from_bytes([8; 32]), TorrentId([7; 32]));
    let (omega, master) = (WitnessSecret::from_bytes([6; 32]), MasterKey::from_bytes([5; 32]));
    let mut words = (vec![0; SubscriberTables::words(&params)], vec![0; FixedBase::words(&params)]);
    let tables = SubscriberTables::new(&params, &y, &mut words.0).map_err(error)?;
    let table = WitnessTable::new(&params, &mut words.1).map_err(error)?;
    let mut piece = noise(PIECE.into());
    let mut best = [f64::INFINITY; 7];
    for _ in 0..TURNS {
        let mut at = 0;
        let mut timed = |work: &mut dyn FnMut(&mut [u8]) -> Result<(), swarmseal_core::Error>| {
            let start = Instant::now();
            let result = work(black_box(&mut piece));
            best[at] = best[at].min(start.elapsed().as_secs_f64());
            at += 1;
            result.map_err(error)
        };
        timed(&mut |piece| package::pack(&params, &secret, &torrent, 0, piece))?;
        timed(&mut |piece| encrypt_piece(&params, &key, piece))?;
        timed(&mut |piece| re_encrypt_piece(&params, &rekey, piece))?;
        timed(&mut |piece| {
            black_box(blake3::hash(piece));
            Ok(())
        })?;
        timed(&mut |piece| check_piece(&params, piece))?;
        timed(&mut |piece| {
            black_box(Sha1::digest(&*piece));
            Ok(())
        })?;
        timed(&mut |_| {
            let r_of = TsKeys::derive(&params, &master, &SubscriberId([4; 32]), 1);
            let w_of = WitnessExponents::derive(&params, &omega, &torrent);
            let r: Vec<TsKey> = (0..KEYS).map(|piece| r_of.key(piece)).collect();
            let w: Vec<WitnessExponent> = (0..KEYS).map(|piece| w_of.exponent(piece)).collect();
            EncryptionKey::derive_batch(&params, &tables, &r, |_, key| drop(black_box(key)));
            WitnessKey::derive_batch(&params, (&table, &w), (&tables, &r), |_, key| drop(black_box(key)));
            Ok(())
        })?;
    }
    let pieces = bytes as f64 / f64::from(PIECE);
    let [package, penc, t, blake3, check, sha1, keys] = best.map(|seconds| seconds * pieces);
    Ok(Kernels { penc, t, package, blake3, check, sha1, keys: keys / f64::from(KEYS) })
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.size, args.rounds) = (64 << 20, 2);
    }
    let kernels = match &args.programs.backend {
        Some(name) => swarmseal_accel::each().find(|kernels| kernels.name == name),
        None => Some(swarmseal_accel::detect()),
    };
    let kernels =
        kernels.context("--backend: expected one that this CPU runs, as `swarmseal cpu` lists them")?;
    let dir = tempfile::tempdir()?;
    let world = Rc::new(args.programs.world(dir.path())?);
    let content = noise(args.size);
    fs::write(world.path("content"), &content)?;
    let torrent = write_torrent(&world, &content)?;

    let (cold, warm) = (sealed(&world, COLD, false)?, sealed(&world, WARM, true)?);
    let mut contestants = vec![plain(&world, &torrent)?, cold, warm];
    let mut missing = Vec::new();
    let runs = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    match runs(Command::new(&args.rqbit).arg("--version")) {
        true => contestants.push(rqbit(&world, &args.rqbit, &torrent)?),
        false => missing.push("rqbit"),
    }
    match runs(Command::new(&args.python).args(["-c", "import libtorrent"])) {
        true => contestants.push(libtorrent(&world, &args.python, &torrent)?),
        false => missing.push("libtorrent"),
    }
    for round in 0..args.rounds {
        for contestant in &mut contestants {
            eprintln!("round {} of {}: {}", round + 1, args.rounds, contestant.name);
            contestant.round(&world.dir.join("leech"), &content)?;
        }
    }
    let figures: Vec<Figure> = contestants.iter().map(|contestant| contestant.figure(args.size)).collect();
    let report = report(args.size, kernels, figures, missing)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn write_torrent(world: &World, content: &[u8]) -> Result<String> {
    let pieces: Vec<[u8; 20]> =
        content.chunks(PIECE as usize).map(|piece| Sha1::digest(piece).into()).collect();
    let torrent = PlainTorrent {
        name: "content",
        files: None,
        length: content.len() as u64,
        piece_len: PIECE,
        pieces: &pieces,
        announce: None,
        private: true,
    };
    let path = world.path("plain.torrent");
    fs::write(&path, torrent.to_bytes())?;
    Ok(path)
}

fn report(
    bytes: u64,
    kernels: &'static swarmseal_core::Kernels,
    figures: Vec<Figure>,
    missing: Vec<&'static str>,
) -> Result<Report> {
    let find =
        |name: &str| figures.iter().find(|figure| figure.name == name).context("a contestant is missing");
    let (plain, timed) = (find(PLAIN)?, time_kernels(kernels, bytes)?);
    let overhead = |name: &'static str| {
        let sealed = find(name)?;
        let both = plain.cpu_seconds.zip(sealed.cpu_seconds);
        let added = both.map(|(plain, sealed)| sealed - plain);
        let Kernels { penc, t, package, blake3, check, keys, sha1 } = timed;
        let package = if name == COLD { package } else { 0.0 };
        let kernel_seconds = package + penc + t + 2.0 * blake3 + check + keys - sha1;
        let added_to_kernels = added.map(|added| added / kernel_seconds);
        let is_judged = name == WARM && JUDGED.contains(&kernels.name);
        Ok(Overhead {
            name,
            rate_to_plain: sealed.mb_s / plain.mb_s,
            cpu_to_plain: both.map(|(plain, sealed)| plain / sealed),
            added_cpu_seconds: added,
            kernel_seconds,
            added_to_kernels,
            pass: added_to_kernels.filter(|_| is_judged).map(|ratio| ratio <= BAR),
        })
    };
    let sealed = [COLD, WARM].map(overhead).into_iter().collect::<Result<_>>()?;
    let rivals = figures.iter().filter(|figure| ![PLAIN, COLD, WARM].contains(&figure.name));
    let best = rivals.map(|figure| figure.mb_s).max_by(f64::total_cmp);
    Ok(Report {
        bytes,
        piece: PIECE,
        backend: kernels.name,
        missing,
        plain_to_best_rival: best.map(|best| plain.mb_s / best),
        sealed,
        kernels: timed,
        contestants: figures,
    })
}

fn print(report: &Report) {
    println!(
        "{} MiB in pieces of {} KiB, one seed and one leech on loopback, backend {}",
        report.bytes >> 20,
        report.piece >> 10,
        report.backend
    );
    let seconds = |cpu: Option<f64>| cpu.map_or_else(|| "?".to_owned(), |cpu| format!("{cpu:.2}"));
    let mut rows = vec![cells(["client", "MB/s", "CPU seconds of all"])];
    for figure in &report.contestants {
        rows.push(cells([figure.name, &format!("{:.0}", figure.mb_s), &seconds(figure.cpu_seconds)]));
    }
    print!("{}", table(&rows));
    for name in &report.missing {
        println!("{name}: not installed");
    }
    if let Some(ratio) = report.plain_to_best_rival {
        println!("plain to the best other client: {ratio:.2} (bar 1.0)");
    }
    for overhead in &report.sealed {
        println!(
            "{}: {:.2} of plain's rate, {} by CPU seconds; adds {} s of CPU, {} times the kernels' {:.2} s{}",
            overhead.name,
            overhead.rate_to_plain,
            seconds(overhead.cpu_to_plain),
            seconds(overhead.added_cpu_seconds),
            seconds(overhead.added_to_kernels),
            overhead.kernel_seconds,
            match overhead.pass {
                Some(true) => format!(" (at most {BAR}: pass)"),
                Some(false) => format!(" (at most {BAR}: miss)"),
                None => String::new(),
            }
        );
    }
    let Kernels { penc, t, package, blake3, check, keys, sha1 } = report.kernels;
    println!(
        "kernels on one core: PEnc {penc:.2} s, T {t:.2} s, package {package:.2} s, BLAKE3 {blake3:.2} s a pass, check \
         {check:.3} s, keys {keys:.2} s, SHA-1 {sha1:.2} s"
    );
    println!(
        "plain pays SHA-1 at the leech; sealed pays PEnc at the seed, and the package where it is cold;"
    );
    println!("the check, T and two passes of BLAKE3 at the leech; the keys at the tracker");
}
