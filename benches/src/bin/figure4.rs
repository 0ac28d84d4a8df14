//! The paper's Figure 4: how long the tracker takes for one download request, by the size of a piece.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use serde::Serialize;
use swarmseal_bench::chart::{Line, Panel, Scale, chart};
use swarmseal_bench::figure5::Setting;
use swarmseal_bench::load::drive::{Latencies, at_rate};
use swarmseal_bench::load::members::{Announcer, Member, Peer, Torrent};
use swarmseal_bench::load::server::{Tracker, stay_on};
use swarmseal_bench::report::{cells, table};

/// Response time of the tracker to one download request: 120 downloaders, 640 MB, one tracker on one core with 1 GB.
///
/// What is timed is a request as a peer sees it: a POST to /rekey for one key or to /witness for 32 (sealed), or an announce
/// (plain), each over the asker's own connection, at random moments set beforehand, and from that moment on. The swarm's rate is
/// that of Figure 5's setting with every uplink full: 4 seeds and 120 downloaders send 17.4 MB a second. Each piece takes a
/// re-key of its own, as in the paper, and a 32nd of a call for witness keys. Real peers ask for several re-keys at once.
#[derive(Parser)]
struct Args {
    /// Print JSON: {"rows": [{piece_kib, load_factor, sealed, mean_ms, p50_ms, p99_ms, p999_ms, …}], …}.
    #[arg(long)]
    json: bool,
    /// Write a chart of it.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// As many seconds for each row as there is time for: within 40 seconds.
    #[arg(long)]
    quick: bool,
    /// Seconds for each row.
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0, value_parser = seconds)]
    seconds: f64,
    /// KiB of a piece, separated by commas: whole blocks of 16 KiB.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "32,64,128,256,512",
          value_parser = clap::value_parser!(u32).range(16..=16384))]
    pieces: Vec<u32>,
    /// Times the swarm's rate, separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,10,100",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    factors: Vec<u32>,
    /// The core that the tracker has for itself.
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    core: usize,
    /// The core of this program.
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    own_core: usize,
    /// The program [default: beside this one].
    #[arg(long, value_name = "FILE")]
    swarmseal: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.1..=3600.0).contains(number));
    number.ok_or_else(|| "expected seconds, from 0.1 to 3600".to_owned())
}

/// Within which 99 of 100 requests are to be answered, at ten times the swarm's rate and 32 KiB; the paper's mean at 32 KB.
const BAR_MS: f64 = 16.0;
/// Witness keys in a call.
const WITNESS_KEYS: usize = 32;
/// Bytes that the tracker may have.
const MEMORY: u64 = 1 << 30;
/// --quick ends its last row about then.
const QUICK: Duration = Duration::from_secs(33);
/// Steps of the search for the largest swarm.
const STEPS: u32 = 6;

/// One kind of request at one rate.
#[derive(Clone, Debug, Serialize)]
struct Row {
    piece_kib: u32,
    load_factor: f64,
    sealed: bool,
    mean_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    /// Requests a second.
    rate: f64,
    requests: usize,
    /// That the tracker refused, and that could not be sent before the end: with either, it does not hold this rate.
    refused: u64,
    unsent: u64,
    /// Microseconds of the tracker's CPU for one request.
    cpu_us: f64,
}

impl Row {
    fn holds(&self) -> bool {
        self.p99_ms < BAR_MS && self.refused == 0
    }
}

#[derive(Serialize)]
struct Report {
    rows: Vec<Row>,
    /// What the paper says of its own, on a Celeron with 2.4 GHz: a mean, below so many ms.
    paper: Paper,
    /// The largest swarm that was held with a p99 below 16 ms.
    largest: Largest,
    /// Whether the p99 at ten times the swarm's rate and 32 KiB, sealed, is below 16 ms.
    pass: Option<bool>,
    /// Bytes that the tracker had resident at most.
    tracker_resident: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct Paper {
    piece_kib: u32,
    mean_ms_below: f64,
    samples: u32,
}

#[derive(Serialize)]
struct Largest {
    load_factor: f64,
    requests_a_second: f64,
    /// Downloaders at the smallest piece, and at 512 KiB.
    downloaders: u64,
    downloaders_at_512_kib: u64,
    /// What was tried, in that order.
    tried: Vec<Row>,
}

/// What all rows share.
struct World {
    tracker: Tracker,
    torrent: Torrent,
    members: Vec<Member>,
    /// Bytes that the swarm moves in a second.
    swarm: f64,
}

impl World {
    fn row(&self, piece_kib: u32, load_factor: f64, sealed: bool, seconds: f64) -> Result<Row> {
        let pieces = load_factor * self.swarm / f64::from(piece_kib << 10);
        // Plain, each piece takes an announce, as in the paper.
        let rate = if sealed { pieces * (1.0 + 1.0 / WITNESS_KEYS as f64) } else { pieces };
        let (address, duration) = (self.tracker.server.address, Duration::from_secs_f64(seconds));
        let before = self.tracker.server.cpu();
        let latencies: Latencies = if sealed {
            let peer = |own| Peer::new(&self.torrent, &self.members, own, WITNESS_KEYS);
            at_rate(address, (0..self.members.len()).map(peer).collect(), rate, duration)?
        } else {
            let announcer = |(own, member): (usize, &Member)| {
                Announcer::new(&self.torrent, &member.passkey, own as u32, true)
            };
            at_rate(address, self.members.iter().enumerate().map(announcer).collect(), rate, duration)?
        };
        let answered = (latencies.count() as u64 - latencies.unsent).max(1);
        Ok(Row {
            piece_kib,
            load_factor,
            sealed,
            mean_ms: latencies.mean_ms(),
            p50_ms: latencies.quantile_ms(0.5),
            p99_ms: latencies.quantile_ms(0.99),
            p999_ms: latencies.quantile_ms(0.999),
            rate,
            requests: latencies.count(),
            refused: latencies.refused,
            unsent: latencies.unsent,
            cpu_us: (self.tracker.server.cpu() - before) * 1e6 / answered as f64,
        })
    }

    /// Doubles the swarm until it is not held, then halves the step.
    fn largest(&self, piece_kib: u32, seconds: f64) -> Result<Largest> {
        let (mut held, mut lost, mut tried) = (0.0, None, Vec::new());
        for _ in 0..STEPS {
            let next = lost.map_or(if held == 0.0 { 10.0 } else { 2.0 * held }, |lost| (held + lost) / 2.0);
            let row = self.row(piece_kib, next, true, seconds)?;
            if row.holds() {
                held = next;
            } else {
                lost = Some(next);
            }
            tried.push(row);
        }
        let downloaders = held * self.members.len() as f64;
        Ok(Largest {
            load_factor: held,
            requests_a_second: tried.iter().filter(|row| row.holds()).map(|row| row.rate).fold(0.0, f64::max),
            downloaders: downloaders as u64,
            downloaders_at_512_kib: (downloaders * 512.0 / f64::from(piece_kib)) as u64,
            tried,
        })
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let start = Instant::now();
    stay_on(&args.own_core.to_string())?;
    let program = match &args.swarmseal {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("swarmseal"),
    };
    let setting = Setting::of_the_paper(1.0);
    let smallest = args.pieces.iter().copied().min().context("no size of a piece")?;
    let tracker = Tracker::start(&program, &args.core.to_string(), Some(MEMORY))?;
    // Of its size depends only how many keys there are.
    let torrent =
        Torrent::register(&tracker, smallest << 10, (setting.object / u64::from(smallest << 10)) as u32)?;
    let members = torrent.join(&tracker, setting.peers)?;
    let world = World { tracker, torrent, members, swarm: uplinks(&setting) };
    // Everybody's tables are made, and the program is in memory, before anything is timed.
    world.row(smallest, 1.0, true, 0.5)?;

    let kinds = 2 * args.pieces.len() * args.factors.len();
    let each = if args.quick {
        QUICK.saturating_sub(start.elapsed()).as_secs_f64().max(3.0) / (kinds + STEPS as usize) as f64
    } else {
        args.seconds
    };
    let mut rows = Vec::new();
    for &piece_kib in &args.pieces {
        for &factor in &args.factors {
            for sealed in [false, true] {
                rows.push(world.row(piece_kib, factor.into(), sealed, each)?);
                let row = &rows[rows.len() - 1];
                eprintln!("{} of {kinds}: {}", rows.len(), line(row).join(" "));
            }
        }
    }
    let largest = world.largest(smallest, each)?;
    let judged = rows.iter().find(|row| row.sealed && row.piece_kib == 32 && row.load_factor == 10.0);
    let report = Report {
        pass: judged.map(Row::holds),
        paper: Paper { piece_kib: 32, mean_ms_below: BAR_MS, samples: 25_000 },
        largest,
        tracker_resident: world.tracker.server.resident().0,
        seconds: start.elapsed().as_secs_f64(),
        rows,
    };
    if let Some(path) = &args.svg {
        std::fs::write(path, svg(&report, &args.factors)).with_context(|| path.display().to_string())?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes a second that a swarm sends when every uplink is full; those of downloaders are even on a logarithmic scale.
fn uplinks(setting: &Setting) -> f64 {
    let (low, high) = setting.rates;
    let mean = if high > low { (high - low) / (high / low).ln() } else { low };
    setting.seeds as f64 * setting.seed_rate + setting.peers as f64 * mean
}

const HEAD: [&str; 10] = [
    "piece, KiB",
    "load",
    "torrent",
    "requests/s",
    "mean, ms",
    "p50, ms",
    "p99, ms",
    "p99.9, ms",
    "CPU, µs",
    "the paper's mean",
];

fn line(row: &Row) -> Vec<String> {
    let paper = if row.piece_kib == 32 && row.sealed && row.load_factor == 1.0 { "below 16 ms" } else { "" };
    let unsent = if row.unsent > 0 { ", not held" } else { "" };
    cells([
        &row.piece_kib.to_string(),
        &format!("{}", row.load_factor),
        if row.sealed { "sealed" } else { "plain" },
        &format!("{:.0}{unsent}", row.rate),
        &format!("{:.2}", row.mean_ms),
        &format!("{:.2}", row.p50_ms),
        &format!("{:.2}", row.p99_ms),
        &format!("{:.2}", row.p999_ms),
        &format!("{:.0}", row.cpu_us),
        paper,
    ])
}

fn print(report: &Report) {
    let mut lines = vec![cells(HEAD)];
    lines.extend(report.rows.iter().map(line));
    print!("{}", table(&lines));
    let Largest { load_factor, requests_a_second, downloaders, downloaders_at_512_kib, .. } = report.largest;
    println!(
        "largest swarm with a p99 below {BAR_MS} ms: {load_factor} times the paper's, {requests_a_second:.0} requests/s: \
         {downloaders} downloaders, or {downloaders_at_512_kib} with pieces of 512 KiB"
    );
    println!("the tracker had {} MiB resident at most", report.tracker_resident >> 20);
    let word = report.pass.map_or("not tested", |pass| if pass { "pass" } else { "miss" });
    println!("p99 below {BAR_MS} ms at ten times the swarm's rate and 32 KiB: {word}");
}

fn svg(report: &Report, factors: &[u32]) -> String {
    let panel = |factor: u32| {
        let line = |name: &str, sealed: bool, value: fn(&Row) -> f64| {
            let of_it =
                report.rows.iter().filter(|row| row.load_factor == f64::from(factor) && row.sealed == sealed);
            Line {
                name: name.to_owned(),
                points: of_it.map(|row| (row.piece_kib.into(), value(row))).collect(),
            }
        };
        let title = match factor {
            1 => "the swarm's rate",
            10 => "ten times",
            100 => "a hundred times",
            _ => "another rate",
        };
        let lines = vec![
            line("plain, mean", false, |row| row.mean_ms),
            line("sealed, mean", true, |row| row.mean_ms),
            line("plain, p99", false, |row| row.p99_ms),
            line("sealed, p99", true, |row| row.p99_ms),
        ];
        Panel { title, lines }
    };
    let panels: Vec<Panel> = factors.iter().map(|&factor| panel(factor)).collect();
    chart("Figure 4: ms for one request, by KiB of a piece", &panels, Scale::Logarithmic)
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
    fn the_swarm_s_rate_is_that_of_its_uplinks() {
        let swarm = uplinks(&Setting::of_the_paper(1.0));
        // 4 · 200 KB/s and 120 · 192 / ln 4 KB/s.
        assert!((swarm - 17.42e6).abs() < 0.01e6, "{swarm}");
        assert!((swarm / 32768.0 - 531.6).abs() < 0.5);
    }
}
