//! Nothing is lost: a swarm of real processes in which peers are killed, stopped, damaged, misled and lied to at random,
//! and every licensed peer must end with the exact files.

mod chaos;
mod content;
mod damage;
mod hostile;
mod process;
mod random;
mod round;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;

use random::Random;
use world::World;

/// A tracker, a seed and peers, as processes of their own, while things go wrong at random.
///
/// In each round something new is published and spread while peers, seed and tracker are killed, told to end, stopped for a
/// while and started again; while what stopped peers have on disk is damaged and their clocks are set wrong (with Debian's
/// `faketime`, if it is there); and while hostile members of the torrent lie in every way that they can. Then the chaos ends,
/// and every licensed peer must open the exact files, after `get --repair` where the player asks for it. `swarmseal` is
/// looked for beside this program.
#[derive(Parser)]
struct Args {
    /// Rounds are begun for so many minutes.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// What chance begins with: the same number plans the same events. Without it, another one each time; it is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Licensed peers; one peer without a license comes on top.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(2..=50))]
    peers: u16,
    /// Hostile members at a time.
    #[arg(long, default_value_t = 4)]
    hostile: usize,
    /// MiB published in each round.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=4096))]
    size: u64,
    /// Seconds of chaos in a round at most.
    #[arg(long, default_value_t = 90)]
    chaos: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Leave logs and stores of every round. Those of a round with a loss are left anyway.
    #[arg(long)]
    keep: bool,
    /// Where to work.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The program.
    #[arg(long, value_name = "FILE")]
    swarmseal: Option<PathBuf>,
}

/// What happened; `--json` prints it.
#[derive(Default, Serialize)]
struct Report {
    seed: u64,
    seconds: f64,
    rounds: u32,
    /// Licensed copies that were compared byte for byte.
    copies: u32,
    /// Bytes of them.
    bytes: u64,
    /// Of each kind.
    events: BTreeMap<String, u64>,
    /// Hostile members that took part, of each kind.
    hostile: BTreeMap<String, u64>,
    /// Pieces that honest peers refused on arrival, or found bad later by a cipher hash.
    refused: u64,
    /// Damaged pieces that peers noticed at their start.
    damage_noticed: u64,
    /// Runs of `get --repair` that the player asked for.
    repairs: u32,
    /// Why honest peers hung up on others, and how often.
    hung_up: BTreeMap<String, u64>,
    /// Why honest peers banned honest ones. To take one for a liar is a failure; these need not be.
    honest_banned: BTreeMap<String, u64>,
    /// The most memory that one process had, by role, in MiB.
    peak_mib: BTreeMap<String, u64>,
    /// What must not happen. Empty: nothing was lost.
    failures: Vec<String>,
}

impl Report {
    fn count(&mut self, event: &str) {
        *self.events.entry(event.to_owned()).or_default() += 1;
    }

    fn peak(&mut self, role: &str, mib: u64) {
        let peak = self.peak_mib.entry(role.to_owned()).or_default();
        *peak = (*peak).max(mib);
    }

    fn fail(&mut self, what: String) {
        eprintln!("LOST: {what}");
        self.failures.push(what);
    }

    fn print(&self) {
        println!(
            "{} rounds in {:.0} s from seed {}: {} licensed copies compared, {} MiB",
            self.rounds,
            self.seconds,
            self.seed,
            self.copies,
            self.bytes >> 20
        );
        for (heading, counts) in [
            ("events", &self.events),
            ("hostile members", &self.hostile),
            ("why honest peers hung up", &self.hung_up),
            ("honest peers banned by honest peers", &self.honest_banned),
            ("peak memory of one process, MiB", &self.peak_mib),
        ] {
            println!("{heading}");
            counts.iter().for_each(|(what, count)| println!("  {what:<58} {count:>7}"));
        }
        println!("pieces refused {}", self.refused);
        println!("damaged pieces noticed at a start {}", self.damage_noticed);
        println!("repairs that the player asked for {}", self.repairs);
        self.failures.iter().for_each(|failure| println!("LOST: {failure}"));
        println!("{}", if self.failures.is_empty() { "Nothing is lost." } else { "NOT all is well." });
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = run(&args) => outcome,
            // Children are killed as they are dropped.
            interrupted = tokio::signal::ctrl_c() => Err(interrupted.err().map_or_else(
                || anyhow::anyhow!("interrupted"), Into::into)),
        }
    });
    runtime.shutdown_background();
    let report = outcome?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        report.print();
    }
    Ok(ExitCode::from(u8::from(!report.failures.is_empty())))
}

async fn run(args: &Args) -> Result<Report> {
    let program = match &args.swarmseal {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("swarmseal"),
    };
    ensure!(program.exists(), "{}: expected the program there, or --swarmseal FILE", program.display());
    let seed = match args.seed {
        Some(seed) => seed,
        None => getrandom::u64().context("no randomness")?,
    };
    eprintln!("seed {seed}");
    let parent = args.data.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix("swarmseal-soak-").tempdir_in(parent)?;
    let mut report = Report { seed, ..Report::default() };
    let mut random = Random::new(seed);
    let started = Instant::now();
    let mut world = World::start(program, dir.path().to_owned()).await?;
    let end = Duration::from_secs_f64(args.minutes * 60.0);
    let mut keep = args.keep;
    while report.rounds == 0 || started.elapsed() < end {
        report.rounds += 1;
        let failures = report.failures.len();
        let left = end.saturating_sub(started.elapsed());
        let plan = round::Plan {
            number: report.rounds,
            peers: args.peers.into(),
            hostile: args.hostile,
            bytes: args.size << 20,
            chaos: Duration::from_secs(args.chaos).min(left.max(Duration::from_secs(20))),
        };
        let name = format!("round-{}", plan.number);
        if let Err(error) = round::run(&mut world, &plan, random.fork(), &mut report).await {
            report.fail(format!("round {}: {error:#}", plan.number));
        }
        let failed = report.failures.len() > failures;
        keep |= failed;
        if !args.keep && !failed {
            std::fs::remove_dir_all(world.path(&name))?;
        }
        eprintln!(
            "round {}: {}, {:.0} s so far",
            plan.number,
            if failed { "NOT well" } else { "exact" },
            started.elapsed().as_secs_f64()
        );
    }
    world.end(&mut report).await?;
    report.seconds = started.elapsed().as_secs_f64();
    if keep {
        eprintln!("everything is left in {}", dir.keep().display());
    }
    Ok(report)
}
