//! How much a tracker on one core answers: announces beside aquatic_http, re-keys and witness keys beside the bare kernel.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use getrandom::SysRng;
use rand_core::UnwrapErr;
use serde::{Deserialize, Serialize};
use swarmseal::wire::api::MAX_WITNESS_PIECES;
use swarmseal_bench::load::connection::Connection;
use swarmseal_bench::load::drive::{Asker, Pace, as_fast_as_possible};
use swarmseal_bench::load::members::{Announcer, Downloader, Member, Torrent, Uploader};
use swarmseal_bench::load::server::{Server, Tracker, stay_on};
use swarmseal_bench::process::Process;
use swarmseal_bench::report::{cells, table};
use swarmseal_core::{
    Exponents, Group, MasterKey, Params, Profile, ReKey, SecretKey, SubscriberId, SubscriberTables, TsKey,
    TsKeys,
};

/// Announces, re-keys and witness keys a second of a tracker on one core, from a load tester on another: beside aquatic_http,
/// which gets the same announces, without passkeys, and beside the kernel alone.
///
/// All take turns, and the medians of the turns are shown. Each asker has one connection and asks again when it has its
/// answer. Ours looks up whose passkey it is; aquatic_http takes anybody.
#[derive(Parser)]
struct Args {
    /// Print JSON: {"announces": [{server, keep_alive, rate, cpu_us, …}], "rekeys": [{kind, batch, keys_a_second, …}], …}.
    #[arg(long)]
    json: bool,
    /// A short run: within a minute.
    #[arg(long)]
    quick: bool,
    /// The program aquatic_http (`cargo install aquatic_http`): without it, ours is measured alone.
    #[arg(long, value_name = "FILE")]
    aquatic: Option<PathBuf>,
    /// Turns that each takes [default: 7; 3 with --quick].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    turns: Option<u32>,
    /// Seconds of a turn [default: 4; 1 with --quick].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<f64>,
    /// Torrents that are announced.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    torrents: u16,
    /// Members of each, who all ask at once.
    #[arg(long, value_name = "COUNT", default_value_t = 60, value_parser = clap::value_parser!(u16).range(2..=1000))]
    members: u16,
    /// The core of whoever is measured.
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    core: usize,
    /// The core of this program.
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    own_core: usize,
    /// The program [default: beside this one].
    #[arg(long, value_name = "FILE")]
    swarmseal: Option<PathBuf>,
    /// Set by ourselves: time the kernel for so many seconds.
    #[arg(long, hide = true)]
    kernel: Option<f64>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.1..=600.0).contains(number));
    number.ok_or_else(|| "expected seconds, from 0.1 to 600".to_owned())
}

/// Re-keys in a call: one, and as many as a call takes.
const BATCHES: [usize; 3] = [1, 64, 512];
/// The same of witness keys. Peers ask for a few dozen.
const WITNESS_BATCHES: [usize; 2] = [32, MAX_WITNESS_PIECES];
/// How much of the kernel's rate batched re-keys are to reach.
const BAR: f64 = 0.7;
/// Members that ask for re-keys at once.
const UPLOADERS: usize = 16;

/// A server's announces.
#[derive(Serialize)]
struct Announces {
    server: &'static str,
    keep_alive: bool,
    /// Answers a second: the median of the turns, the least and the most.
    rate: f64,
    least: f64,
    most: f64,
    /// Microseconds of the server's CPU for one.
    cpu_us: f64,
    refused: u64,
}

/// Our tracker's re-keys and witness keys, or the kernel's re-keys. A witness key takes as many powers.
#[derive(Serialize)]
struct ReKeys {
    kind: &'static str,
    /// Keys in a call.
    batch: usize,
    calls_a_second: f64,
    keys_a_second: f64,
    /// Microseconds of CPU for one key.
    cpu_us: f64,
    /// To the kernel's keys a second, and to its CPU for a key.
    to_kernel: f64,
    cpu_to_kernel: f64,
}

#[derive(Serialize)]
struct Report {
    announces: Vec<Announces>,
    rekeys: Vec<ReKeys>,
    /// Whether ours answers at least as many announces as aquatic_http, with keep-alive and without.
    announces_pass: Option<bool>,
    /// Whether full batches reach 70 % of the kernel's rate.
    rekeys_pass: bool,
    seconds: f64,
}

/// One turn: answers a second, and the server's CPU seconds for one.
#[derive(Clone, Copy)]
struct Turn {
    rate: f64,
    cpu: f64,
    refused: u64,
}

fn turn(server: &Server, run: impl FnOnce() -> Result<Pace>) -> Result<Turn> {
    let before = server.cpu();
    let pace = run()?;
    let cpu = (server.cpu() - before) / pace.answered.max(1) as f64;
    Ok(Turn { rate: pace.rate(), cpu, refused: pace.refused })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(seconds) = args.kernel {
        println!("{}", serde_json::to_string(&kernel(seconds)?)?);
        return Ok(ExitCode::SUCCESS);
    }
    let start = Instant::now();
    stay_on(&args.own_core.to_string())?;
    let program = match &args.swarmseal {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("swarmseal"),
    };
    let turns = args.turns.unwrap_or(if args.quick { 3 } else { 7 });
    let duration = Duration::from_secs_f64(args.seconds.unwrap_or(if args.quick { 1.0 } else { 4.0 }));
    let core = args.core.to_string();
    let tracker = Tracker::start(&program, &core, None)?;
    let torrents = (0..args.torrents)
        .map(|_| {
            let torrent = Torrent::register(&tracker, 32 << 10, 1 << 14)?;
            let members = torrent.join(&tracker, args.members.into())?;
            Ok((torrent, members))
        })
        .collect::<Result<Vec<(Torrent, Vec<Member>)>>>()?;
    let announces = announces(&args, &tracker, &torrents, turns, duration)?;
    let rekeys = rekeys(&core, tracker, torrents, turns, duration)?;
    let of = |server, keep_alive| {
        announces.iter().find(|row| row.server == server && row.keep_alive == keep_alive).map(|row| row.rate)
    };
    let passes = |keep_alive| Some(of(OURS, keep_alive)? >= of(AQUATIC, keep_alive)?);
    let batched = rekeys.iter().filter(|row| row.kind == WARM && row.batch == BATCHES[2]);
    let report = Report {
        announces_pass: passes(true).zip(passes(false)).map(|(kept, anew)| kept && anew),
        rekeys_pass: batched.map(|row| row.to_kernel).fold(0.0, f64::max) >= BAR,
        announces,
        rekeys,
        seconds: start.elapsed().as_secs_f64(),
    };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(ExitCode::SUCCESS)
}

const OURS: &str = "swarmseal";
const AQUATIC: &str = "aquatic_http";
const KERNEL: &str = "kernel";
const WARM: &str = "warm";
const WITNESS: &str = "witness keys, warm";
const COLD: &str = "cold";

fn announces(
    args: &Args,
    tracker: &Tracker,
    torrents: &[(Torrent, Vec<Member>)],
    turns: u32,
    duration: Duration,
) -> Result<Vec<Announces>> {
    let directory = tempfile::tempdir()?;
    let core = args.core.to_string();
    let mut rows: Vec<(&'static str, bool, Vec<Turn>)> = Vec::new();
    for _ in 0..turns {
        for keep_alive in [true, false] {
            let everybody = || {
                torrents.iter().flat_map(|(torrent, members)| members.iter().map(move |one| (torrent, one)))
            };
            let mut ours: Vec<Announcer> = everybody()
                .enumerate()
                .map(|(i, (torrent, member))| Announcer::new(torrent, &member.passkey, i as u32, keep_alive))
                .collect();
            let done = turn(&tracker.server, || {
                as_fast_as_possible(tracker.server.address, &mut ours, duration, keep_alive)
            })?;
            keep(&mut rows, OURS, keep_alive, done);
            if let Some(program) = &args.aquatic {
                // It keeps connections or closes them, as it is told at its start; two of them at once did not answer.
                let rival = aquatic(program, &core, directory.path(), keep_alive)?;
                let mut theirs: Vec<Announcer> = everybody()
                    .enumerate()
                    .map(|(i, (torrent, _))| Announcer::without_passkey(torrent, i as u32, keep_alive))
                    .collect();
                as_fast_as_possible(rival.address, &mut theirs, Duration::from_millis(200), keep_alive)?;
                let done =
                    turn(&rival, || as_fast_as_possible(rival.address, &mut theirs, duration, keep_alive))?;
                keep(&mut rows, AQUATIC, keep_alive, done);
            }
        }
    }
    Ok(rows
        .into_iter()
        .map(|(server, keep_alive, turns)| {
            let rates: Vec<f64> = turns.iter().map(|turn| turn.rate).collect();
            Announces {
                server,
                keep_alive,
                least: rates.iter().copied().fold(f64::INFINITY, f64::min),
                most: rates.iter().copied().fold(0.0, f64::max),
                rate: median(rates),
                cpu_us: 1e6 * median(turns.iter().map(|turn| turn.cpu).collect()),
                refused: turns.iter().map(|turn| turn.refused).sum(),
            }
        })
        .collect())
}

fn keep(rows: &mut Vec<(&'static str, bool, Vec<Turn>)>, server: &'static str, keep_alive: bool, turn: Turn) {
    match rows.iter_mut().find(|row| (row.0, row.1) == (server, keep_alive)) {
        Some(row) => row.2.push(turn),
        None => rows.push((server, keep_alive, vec![turn])),
    }
}

/// Starts aquatic_http with one socket worker and one swarm worker, its own defaults, on a free port.
fn aquatic(program: &Path, core: &str, directory: &Path, keep_alive: bool) -> Result<Server> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let file = directory.join(format!("aquatic-{port}.toml"));
    std::fs::write(
        &file,
        format!(
            "[network]\nuse_ipv4 = true\nuse_ipv6 = false\naddress_ipv4 = \"127.0.0.1:{port}\"\nenable_tls = false\n\
             keep_alive = {keep_alive}\nruns_behind_reverse_proxy = false\n"
        ),
    )?;
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program).arg("-c").arg(&file).stderr(Stdio::null());
    let process = Process::start(&mut command)?;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let start = Instant::now();
    while Connection::open(address).is_err() {
        ensure!(start.elapsed() < Duration::from_secs(30), "{}: it does not answer", program.display());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(Server::new(process, address))
}

/// A call for keys to one member after the other, each but once.
struct Once<'m> {
    uploader: Uploader<'m>,
    downloaders: std::ops::Range<usize>,
}

impl Asker for Once<'_> {
    fn next(&mut self, request: &mut Vec<u8>) {
        let downloader = self.downloaders.next().unwrap_or(self.downloaders.end);
        self.uploader.ask(downloader, request);
    }

    fn is_answer(&self, body: &[u8]) -> bool {
        self.uploader.is_answer(body)
    }
}

fn rekeys(
    core: &str,
    tracker: Tracker,
    torrents: Vec<(Torrent, Vec<Member>)>,
    turns: u32,
    duration: Duration,
) -> Result<Vec<ReKeys>> {
    let mut tracker = tracker;
    let mut kernels = Vec::new();
    let mut warm: [Vec<Turn>; 3] = Default::default();
    let mut witness: [Vec<Turn>; 2] = Default::default();
    let mut cold = Vec::new();
    for _ in 0..turns {
        kernels.push(kernel_on(core, duration.as_secs_f64() / 2.0)?);
        // Started anew, it has no tables. Half of the members have keys made to the other half, each of them but once.
        tracker = tracker.restart()?;
        let mut connection = Connection::open(tracker.server.address)?;
        let mut calls = Pace { answered: 0, refused: 0, seconds: 0.0 };
        let before = tracker.server.cpu();
        for (torrent, members) in &torrents {
            let half = members.len() / 2;
            let mut request = Vec::new();
            let start = Instant::now();
            for own in 0..half {
                let mut one = Once {
                    uploader: Uploader::new(torrent, members, own, 1),
                    downloaders: half + own..members.len(),
                };
                one.next(&mut request);
                let answer = connection.ask(&request)?;
                ensure!(answer.status == 200 && one.is_answer(answer.body), "a call for a key was refused");
                calls.answered += 1;
            }
            calls.seconds += start.elapsed().as_secs_f64();
        }
        let cpu = (tracker.server.cpu() - before) / calls.answered.max(1) as f64;
        cold.push(Turn { rate: calls.rate(), cpu, refused: 0 });

        let (torrent, members) = &torrents[0];
        for (batch, warm) in BATCHES.into_iter().zip(&mut warm) {
            let uploader = |own| Uploader::new(torrent, members, own, batch);
            let mut uploaders: Vec<Uploader<'_>> = (0..UPLOADERS.min(members.len())).map(uploader).collect();
            let address = tracker.server.address;
            // Once for the tables and the tickets.
            as_fast_as_possible(address, &mut uploaders, Duration::from_millis(200), true)?;
            warm.push(turn(&tracker.server, || {
                as_fast_as_possible(address, &mut uploaders, duration, true)
            })?);
        }
        for (batch, witness) in WITNESS_BATCHES.into_iter().zip(&mut witness) {
            let downloader = |own| Downloader::new(torrent, members, own, batch);
            let mut downloaders: Vec<Downloader<'_>> =
                (0..UPLOADERS.min(members.len())).map(downloader).collect();
            let address = tracker.server.address;
            as_fast_as_possible(address, &mut downloaders, Duration::from_millis(200), true)?;
            witness.push(turn(&tracker.server, || {
                as_fast_as_possible(address, &mut downloaders, duration, true)
            })?);
        }
    }
    let kernel_rate = median(kernels.iter().map(|kernel| kernel.keys as f64 / kernel.seconds).collect());
    let kernel_cpu = median(kernels.iter().map(|kernel| kernel.cpu / kernel.keys as f64).collect());
    let row = |kind, batch: usize, turns: &[Turn]| {
        let calls = median(turns.iter().map(|turn| turn.rate).collect());
        let cpu = median(turns.iter().map(|turn| turn.cpu).collect()) / batch as f64;
        let keys = calls * batch as f64;
        ReKeys {
            kind,
            batch,
            calls_a_second: calls,
            keys_a_second: keys,
            cpu_us: 1e6 * cpu,
            to_kernel: keys / kernel_rate,
            cpu_to_kernel: kernel_cpu / cpu,
        }
    };
    let mut rows = vec![ReKeys {
        kind: KERNEL,
        batch: KERNEL_BATCH,
        calls_a_second: kernel_rate / KERNEL_BATCH as f64,
        keys_a_second: kernel_rate,
        cpu_us: 1e6 * kernel_cpu,
        to_kernel: 1.0,
        cpu_to_kernel: 1.0,
    }];
    rows.extend(BATCHES.into_iter().zip(&warm).map(|(batch, turns)| row(WARM, batch, turns)));
    rows.push(row(COLD, 1, &cold));
    let witness = WITNESS_BATCHES.into_iter().zip(&witness);
    rows.extend(witness.map(|(batch, turns)| row(WITNESS, batch, turns)));
    Ok(rows)
}

/// Pieces in one call of the kernel.
const KERNEL_BATCH: usize = 64;

/// What the kernel did.
#[derive(Serialize, Deserialize)]
struct Kernel {
    keys: u64,
    seconds: f64,
    /// Seconds.
    cpu: f64,
}

/// The kernel for so many seconds, in a process of its own on that core.
fn kernel_on(core: &str, seconds: f64) -> Result<Kernel> {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(std::env::current_exe()?).arg("--kernel").arg(seconds.to_string());
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the kernel's process failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Re-keys from warm tables and tracker-site keys that are there, and nothing else.
fn kernel(seconds: f64) -> Result<Kernel> {
    let group = Group::ffdhe2048(swarmseal_accel::detect());
    let params = Params::new(Profile::Sealed, group, Exponents::Short).context("parameters")?;
    let master = MasterKey::from_bytes([2; 32]);
    let mut words = [(); 2].map(|()| vec![0; SubscriberTables::words(&params)]);
    let [first, second] = &mut words;
    let party = |id: u8, words| -> Result<(SubscriberTables<'_>, Vec<TsKey>)> {
        let public = SecretKey::generate(&params, &mut UnwrapErr(SysRng)).public_key(&params);
        let keys = TsKeys::derive(&params, &master, &SubscriberId([id; 32]), 1);
        let tables = SubscriberTables::new(&params, &public, words).context("tables")?;
        Ok((tables, (0..KERNEL_BATCH as u32).map(|piece| keys.key(piece)).collect()))
    };
    let ((j, r_j), (k, r_k)) = (party(1, first)?, party(2, second)?);
    let (start, before) = (Instant::now(), own_cpu());
    let mut keys = 0;
    while start.elapsed().as_secs_f64() < seconds {
        ReKey::derive_batch(&params, (&j, &r_j), (&k, &r_k), |_, key| {
            std::hint::black_box(&key);
            keys += 1;
        });
    }
    Ok(Kernel { keys, seconds: start.elapsed().as_secs_f64(), cpu: own_cpu() - before })
}

/// Seconds of CPU that this process's first thread has used.
fn own_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn print(report: &Report) {
    let mut lines =
        vec![cells(["announces", "keep-alive", "a second", "least", "most", "CPU, µs", "refused"])];
    lines.extend(report.announces.iter().map(|row| {
        cells([
            row.server,
            if row.keep_alive { "yes" } else { "no" },
            &format!("{:.0}", row.rate),
            &format!("{:.0}", row.least),
            &format!("{:.0}", row.most),
            &format!("{:.1}", row.cpu_us),
            &row.refused.to_string(),
        ])
    }));
    println!("{}", table(&lines));
    let head = ["re-keys", "keys a call", "calls/s", "keys/s", "CPU, µs a key", "to the kernel's", "by CPU"];
    let mut lines = vec![cells(head)];
    lines.extend(report.rekeys.iter().map(|row| {
        cells([
            row.kind,
            &row.batch.to_string(),
            &format!("{:.0}", row.calls_a_second),
            &format!("{:.0}", row.keys_a_second),
            &format!("{:.1}", row.cpu_us),
            &format!("{:.2}", row.to_kernel),
            &format!("{:.2}", row.cpu_to_kernel),
        ])
    }));
    println!("{}", table(&lines));
    let word = |pass: Option<bool>| pass.map_or("not tested", |pass| if pass { "pass" } else { "miss" });
    println!("at least as many announces as {AQUATIC}: {}", word(report.announces_pass));
    println!(
        "batched re-keys at {:.0} % of the kernel's rate: {}",
        100.0 * BAR,
        word(Some(report.rekeys_pass))
    );
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_kernel_makes_keys() {
        let kernel = kernel(0.1).unwrap();
        assert!(kernel.keys >= KERNEL_BATCH as u64 && kernel.seconds >= 0.1 && kernel.cpu > 0.0);
    }
}
