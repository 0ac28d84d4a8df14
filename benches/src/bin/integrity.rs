//! What each way of checking received pieces costs (paper, section 2.3), and whom.

use std::fs;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use serde::Serialize;
use swarmseal::wire::integrity::Integrity;
use swarmseal_bench::process::Process;
use swarmseal_bench::programs::{Programs, Published, World, noise, size};
use swarmseal_bench::report::{cells, table};
use swarmseal_bench::timing::median;

/// Fetches a file from one seed until every piece is known to be good, with each way of checking in turn.
///
/// The seed has its packaged pieces on disk. Cipher hashes are computed before the transfer begins, and counted apart: that work is
/// the seed's, once for each subscriber. `swarmseal` is looked for beside this program: build it with --release as well.
#[derive(Parser)]
struct Args {
    /// Bytes to move, with K, M or G.
    #[arg(long, default_value = "256M", value_parser = size)]
    size: u64,
    /// How often each way is taken.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// 32 MiB, once.
    #[arg(long)]
    quick: bool,
    /// Print JSON: {bytes, rows: [{mode, seconds, leech_cpu, seed_cpu, tracker_cpu, hash_seconds, hash_cpu}]}.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    programs: Programs,
}

/// One way of checking.
struct Way {
    mode: Integrity,
    published: Published,
    seed: Process,
    rounds: Vec<Round>,
}

/// Seconds; those of CPU where it says so.
#[derive(Clone, Copy, Default, Serialize)]
struct Round {
    /// From the first request until every piece is known to be good.
    seconds: f64,
    leech_cpu: f64,
    seed_cpu: f64,
    tracker_cpu: f64,
    /// Until all cipher hashes are with the tracker.
    hash_seconds: f64,
    /// The seed's, for them.
    hash_cpu: f64,
}

#[derive(Serialize)]
struct Row {
    mode: &'static str,
    #[serde(flatten)]
    medians: Round,
}

#[derive(Serialize)]
struct Report {
    bytes: u64,
    rows: Vec<Row>,
}

impl Way {
    fn new(world: &World, mode: Integrity) -> Result<Self> {
        let published = world.publish(mode.name(), &["--integrity", mode.name()])?;
        let rate = if mode == Integrity::CipherHashes { "100G" } else { "0" };
        let seed = published.seed(world, true, &["--cipher-hashes", rate])?;
        Ok(Way { mode, published, seed, rounds: Vec::new() })
    }

    /// A subscriber who has never been there fetches everything.
    fn round(&mut self, world: &World) -> Result<()> {
        let leech = world.path("leech");
        let Published { torrent, token, tracker, .. } = &self.published;
        let voucher = ["voucher", torrent, "--admin-token-file", token];
        let code = world.run("publisher", &voucher)?["code"].as_str().unwrap_or_default().to_owned();
        let mut round = Round::default();
        if self.mode == Integrity::CipherHashes {
            let (start, before) = (Instant::now(), self.seed.cpu());
            let personal = world.path("personal.torrent");
            world.run(&leech, &["subscribe", torrent, "--personal", "--output", &personal])?;
            (round.hash_seconds, round.hash_cpu) = (start.elapsed().as_secs_f64(), self.seed.cpu() - before);
            fs::remove_file(personal)?;
        }
        let (start, seed, tracker_before) = (Instant::now(), self.seed.cpu(), tracker.cpu());
        let get = ["get", torrent, "--voucher", &code, "--listen", "127.0.0.1:0"];
        let peer = Process::start(&mut world.ours(&leech, &get))?;
        peer.until("\"complete\"")?;
        round.seconds = start.elapsed().as_secs_f64();
        round.leech_cpu = peer.cpu();
        round.seed_cpu = self.seed.cpu() - seed;
        round.tracker_cpu = tracker.cpu() - tracker_before;
        drop(peer);
        fs::remove_dir_all(leech)?;
        self.rounds.push(round);
        Ok(())
    }

    fn row(&self) -> Row {
        let of = |figure: fn(&Round) -> f64| median(self.rounds.iter().map(figure).collect());
        let medians = Round {
            seconds: of(|round| round.seconds),
            leech_cpu: of(|round| round.leech_cpu),
            seed_cpu: of(|round| round.seed_cpu),
            tracker_cpu: of(|round| round.tracker_cpu),
            hash_seconds: of(|round| round.hash_seconds),
            hash_cpu: of(|round| round.hash_cpu),
        };
        Row { mode: self.mode.name(), medians }
    }
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.size, args.rounds) = (32 << 20, 1);
    }
    let dir = tempfile::tempdir()?;
    let world = args.programs.world(dir.path())?;
    fs::write(world.path("content"), noise(args.size))?;
    let modes = [Integrity::AfterDownload, Integrity::EarlyLicense, Integrity::CipherHashes];
    let mut ways = modes.into_iter().map(|mode| Way::new(&world, mode)).collect::<Result<Vec<_>>>()?;
    for round in 0..args.rounds {
        for way in &mut ways {
            eprintln!("round {} of {}: {}", round + 1, args.rounds, way.mode.name());
            way.round(&world)?;
        }
    }
    let report = Report { bytes: args.size, rows: ways.iter().map(Way::row).collect() };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn print(report: &Report) {
    println!("{} MiB in pieces of 256 KiB; medians, in seconds", report.bytes >> 20);
    let head = ["mode", "until checked", "leech CPU", "seed CPU", "tracker CPU", "hashes", "hash CPU (seed)"];
    let mut rows = vec![cells(head)];
    for row in &report.rows {
        let Round { seconds, leech_cpu, seed_cpu, tracker_cpu, hash_seconds, hash_cpu } = row.medians;
        let figures = [seconds, leech_cpu, seed_cpu, tracker_cpu, hash_seconds, hash_cpu];
        let figures = figures.map(|figure| format!("{figure:.2}"));
        rows.push(std::iter::once(row.mode.to_owned()).chain(figures).collect());
    }
    print!("{}", table(&rows));
}
