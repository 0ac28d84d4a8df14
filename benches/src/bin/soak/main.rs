//! Nothing is lost: a swarm of real processes in which peers are killed, stopped, damaged, misled and lied to at random,
//! and every peer must end with the exact files.

mod chaos;
mod content;
mod damage;
mod hostile;
mod liars;
mod process;
mod random;
mod round;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use serde::Serialize;

use chaos::Chaos;
use random::Random;
use round::{Plan, Round};
use world::World;

/// A tracker, a seed and peers, as processes of their own, while things go wrong at random.
///
/// In each round something new is published and spread while peers, seed and tracker are killed, told to end, stopped for a
/// while and started again; while what stopped peers have on disk is damaged and their clocks are set wrong (with Debian's
/// `faketime`, if it is there); while the seed's content changes for some time, an epoch begins and the one before is retired; and
/// while as many hostile members as there are peers lie in every way that they can. Then the chaos ends, and every peer must
/// open the exact files at the first attempt. `swarmseal` is looked for beside this program.
#[derive(Parser)]
struct Args {
    /// What goes wrong.
    #[arg(long, value_enum, default_value_t = Scenario::Chaos)]
    scenario: Scenario,
    /// Chaos: rounds are begun for so many minutes.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// What chance begins with: the same number plans the same events. Without it, another one each time; it is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Liars: rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Licensed peers [default: 6; 4 among liars].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=50))]
    peers: Option<u16>,
    /// Peers without a license [default: 1; 20 among liars].
    #[arg(long, value_parser = clap::value_parser!(u16).range(0..=50))]
    unlicensed: Option<u16>,
    /// Chaos: hostile members at a time [default: as many as there are peers].
    #[arg(long)]
    hostile: Option<usize>,
    /// MiB published in each round.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=4096))]
    size: u64,
    /// Chaos: seconds of it in a round at most.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Everything.
    Chaos,
    /// Two liars that collude and one below one in a hundred: nobody stores a bad piece, and everybody is complete in at most 1.5
    /// times the time that it takes without them.
    Liars,
}

/// What happened; `--json` prints it.
#[derive(Default, Serialize)]
struct Report {
    seed: u64,
    seconds: f64,
    rounds: u32,
    /// Copies that were compared byte for byte. Peers without a license got one before.
    copies: u32,
    /// Bytes of them.
    bytes: u64,
    /// Of each kind.
    events: BTreeMap<String, u64>,
    /// Hostile members that took part, of each kind.
    hostile: BTreeMap<String, u64>,
    /// Pieces that honest peers refused on arrival.
    refused: u64,
    /// Damaged pieces that peers noticed at their start.
    damage_noticed: u64,
    /// Why honest peers ended connections or refused them, and how often.
    ended: BTreeMap<String, u64>,
    /// How often an honest peer deals with an address no more, for what came from there. Those of honest peers are failures.
    shut_out: u64,
    /// Of the rounds with liars, and how many times as long all of them together took with liars as without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    liars: Vec<liars::Times>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
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
            "{} rounds in {:.0} s from seed {}: {} copies compared, {} MiB",
            self.rounds,
            self.seconds,
            self.seed,
            self.copies,
            self.bytes >> 20
        );
        for (heading, counts) in [
            ("events", &self.events),
            ("hostile members", &self.hostile),
            ("why honest peers ended connections", &self.ended),
            ("peak memory of one process, MiB", &self.peak_mib),
        ] {
            println!("{heading}");
            counts.iter().for_each(|(what, count)| println!("  {what:<58} {count:>7}"));
        }
        println!("pieces refused {}", self.refused);
        println!("addresses that peers dealt with no more {}", self.shut_out);
        println!("damaged pieces noticed at a start {}", self.damage_noticed);
        if let Some(ratio) = self.ratio {
            println!("with liars to without: {ratio:.2} times the time");
        }
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
    let started = Instant::now();
    let mut world = World::start(program, dir.path().to_owned()).await?;
    let random = Random::new(seed);
    match args.scenario {
        Scenario::Chaos => chaos(args, &mut world, random, &mut report).await?,
        Scenario::Liars => {
            let plan = |name| plan(args, name, &["64K"]);
            if let Err(error) =
                liars::run(&mut world, (args.rounds, args.keep), plan, random, &mut report).await
            {
                report.fail(format!("{error:#}"));
            }
        }
    }
    world.end(&mut report).await?;
    report.seconds = started.elapsed().as_secs_f64();
    if args.keep || !report.failures.is_empty() {
        eprintln!("everything is left in {}", dir.keep().display());
    }
    Ok(report)
}

fn plan(args: &Args, name: String, piece_lengths: &'static [&'static str]) -> Plan {
    let (licensed, unlicensed) = match args.scenario {
        Scenario::Chaos => (6, 1),
        Scenario::Liars => (4, 20),
    };
    Plan {
        name,
        licensed: args.peers.unwrap_or(licensed).into(),
        unlicensed: args.unlicensed.unwrap_or(unlicensed).into(),
        bytes: args.size << 20,
        piece_lengths,
    }
}

/// Round after round, until the time is over.
async fn chaos(args: &Args, world: &mut World, mut random: Random, report: &mut Report) -> Result<()> {
    let started = Instant::now();
    let end = Duration::from_secs_f64(args.minutes * 60.0);
    while report.rounds == 0 || started.elapsed() < end {
        report.rounds += 1;
        let failures = report.failures.len();
        let left = end.saturating_sub(started.elapsed()).max(Duration::from_secs(20));
        let plan = plan(args, format!("round-{}", report.rounds), &["64K", "128K", "256K"]);
        let length = Duration::from_secs(args.chaos).min(left);
        if let Err(error) = one_round(args, &plan, length, world, random.fork(), report).await {
            report.fail(format!("{}: {error:#}", plan.name));
        }
        let failed = report.failures.len() > failures;
        if !args.keep && !failed {
            std::fs::remove_dir_all(world.path(&plan.name))?;
        }
        let (word, seconds) = (if failed { "NOT well" } else { "exact" }, started.elapsed().as_secs_f64());
        eprintln!("{}: {word}, {seconds:.0} s so far", plan.name);
    }
    Ok(())
}

/// Chaos, peace, and a look at every copy. An error is a loss, as is what it adds to the report's failures.
async fn one_round(
    args: &Args,
    plan: &Plan,
    length: Duration,
    world: &mut World,
    mut random: Random,
    report: &mut Report,
) -> Result<()> {
    let mut round = Round::prepare(world, plan, &mut random).await.context("before any chaos")?;
    eprintln!("{}: {} licensed peers, {} others", plan.name, plan.licensed, plan.unlicensed);
    round.start(world)?;
    let hostile = args.hostile.unwrap_or(plan.licensed + plan.unlicensed);
    Chaos::new(hostile, length, random.fork()).run(world, &mut round, report).await?;
    round.count_sent(report);
    round.settle(world, report).await?;
    round.verify(world, report).await;
    round.end(report).await
}
