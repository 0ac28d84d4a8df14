//! The paper's Figure 5: what sealing costs a swarm, by the size of a piece.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use swarmseal::peer::simulation::{Churn, Model, Outcome};
use swarmseal_bench::calibration::{Beside, Calibration};
use swarmseal_bench::chart::{Line, Panel, Scale, chart};
use swarmseal_bench::emulator::Lab;
use swarmseal_bench::figure5::{Setting, mean, run_all};
use swarmseal_bench::report::{cells, table};

/// Total throughput of a swarm, plain beside sealed: 4 seeds at 200 KB/s, 120 downloaders, 640 MB, one hour.
///
/// Unless --scale says otherwise, the object, the hour and the minute in which all join are 1/32 of that; rates and
/// latencies are not scaled. The peers' own state machine runs in virtual time on a model of the links; see the benches' README for what is
/// modelled. Each pair of runs has the same links and the same draws, plain and sealed. Throughput counts bytes of
/// content: a sealed piece carries 32 less. The paper gives no rates of its downloaders: --rates and --down-factor are
/// guesses at PlanetLab's.
#[derive(Parser)]
struct Args {
    /// Print JSON: {"rows": [{piece_kib, plain_mb_s, sealed_mb_s, loss_percent, loss_percent_95, …}], "churn": rows, …}.
    #[arg(long)]
    json: bool,
    /// Write a chart of it.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// 20 downloaders, 1/40 of the object and hour, and as many pairs of runs as there is time for: within 40 seconds.
    #[arg(long)]
    quick: bool,
    /// Run real peers in network namespaces instead, and the model beside them (needs root).
    #[arg(long)]
    calibrate: bool,
    /// KiB of a piece, separated by commas: whole blocks of 16 KiB [default: 32,64,128,256,512; 32,256 with --calibrate].
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = piece_kib)]
    pieces: Vec<u32>,
    /// Pairs of runs for each size [default: 12; as many as fit with --quick].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: Option<u32>,
    /// Divides the object and all times, neither rates nor latencies [default: 32; 40 with --quick].
    #[arg(long, value_name = "FACTOR", value_parser = positive)]
    scale: Option<f64>,
    /// Downloaders [default: 120; 20 with --quick, 12 with --calibrate].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=2000))]
    peers: Option<u16>,
    /// KB/s that downloaders send, evenly between these on a logarithmic scale [default: 64:256; 100:400 with --calibrate].
    #[arg(long, value_name = "LOW:HIGH", value_parser = range)]
    rates: Option<(f64, f64)>,
    /// How many times as much they can receive [default: 4].
    #[arg(long, value_name = "FACTOR", value_parser = positive)]
    down_factor: Option<f64>,
    /// Milliseconds from each node to the middle of the network, evenly between these [default: 10:60].
    #[arg(long, value_name = "LOW:HIGH", value_parser = range)]
    latency: Option<(f64, f64)>,
    /// Chance that a packet is lost [default: 0.001].
    #[arg(long, value_name = "CHANCE", value_parser = chance)]
    loss: Option<f64>,
    /// With churn: seconds that a peer stays that is not complete. A mean, as all three; none of them is scaled.
    #[arg(long, value_name = "SECONDS", value_parser = positive, default_value = "240")]
    stays: f64,
    /// With churn: seconds that a complete peer stays.
    #[arg(long, value_name = "SECONDS", value_parser = positive, default_value = "60")]
    seeds_on: f64,
    /// With churn: seconds until a peer comes back, or another takes its place.
    #[arg(long, value_name = "SECONDS", value_parser = positive, default_value = "30")]
    away: f64,
    /// Of everything that is drawn.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// --calibrate: the program [default: beside this one].
    #[arg(long, value_name = "FILE")]
    swarmseal: Option<PathBuf>,
    /// Set by ourselves: we are in a network namespace of our own.
    #[arg(long, hide = true)]
    inside: bool,
}

/// --quick begins no more runs when they would end later than this.
const QUICK: Duration = Duration::from_secs(25);
const PIECES: [u32; 5] = [32, 64, 128, 256, 512];
/// Percent of the plain throughput that may be lost on average, and of requests that may wait for a witness key.
const LOSS_BAR: f64 = 2.0;
const AWAITED_BAR: f64 = 1.0;
/// Percent of the content that sealing may add to what is sent beside it, by KiB of a piece.
const OVERHEAD_BARS: [(u32, f64); 2] = [(32, 1.0), (256, 0.15)];

fn piece_kib(text: &str) -> Result<u32, String> {
    let kib = text.parse::<u32>().ok().filter(|kib| (16..=16 << 10).contains(kib) && kib.is_multiple_of(16));
    kib.ok_or_else(|| "expected KiB, a multiple of 16 up to 16384".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

fn chance(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..0.5).contains(number));
    number.ok_or_else(|| "expected a number from 0 to 0.5, such as 0.001".to_owned())
}

fn range(text: &str) -> Result<(f64, f64), String> {
    let ends = text.split_once(':').and_then(|(low, high)| Some((positive(low).ok()?, positive(high).ok()?)));
    ends.filter(|(low, high)| low <= high).ok_or_else(|| "expected LOW:HIGH, such as 64:256".to_owned())
}

/// One size of a piece.
#[derive(Clone, Debug, Serialize)]
struct Row {
    piece_kib: u32,
    /// Megabytes (10^6) of content a second, all downloaders together: a mean over the runs.
    plain_mb_s: f64,
    sealed_mb_s: f64,
    /// Of the plain: the mean of the pairs.
    loss_percent: f64,
    /// Half of its 95 % confidence interval.
    loss_percent_95: Option<f64>,
    /// Milliseconds from the question for keys to their answer.
    keys_ms: f64,
    keys_per_call: f64,
    witness_keys_per_call: f64,
    /// Bytes that peers sent to each other and to the tracker beside the content's blocks, for 100 of the content: plain and sealed.
    plain_overhead_percent: f64,
    overhead_percent: f64,
    /// Pieces that waited for a witness key before they could be asked for, of 100.
    awaited_key_percent: f64,
    /// Downloaders that left before they were complete: a mean of all runs.
    left: f64,
}

impl Row {
    /// What is judged: a figure, its bar, and what it is.
    fn bars(&self) -> Vec<(f64, f64, &'static str)> {
        let overhead = OVERHEAD_BARS.iter().find(|(kib, _)| *kib == self.piece_kib);
        let added = self.overhead_percent - self.plain_overhead_percent;
        let overhead = overhead.map(|&(_, bar)| (added, bar, "bytes beside the content that sealing adds"));
        let loss = (self.loss_percent, LOSS_BAR, "mean loss");
        let awaited = (self.awaited_key_percent, AWAITED_BAR, "requests that waited for a witness key");
        [loss, awaited].into_iter().chain(overhead).collect()
    }
}

#[derive(Serialize)]
struct Report<'a> {
    setting: &'a Setting,
    scale: f64,
    runs: u32,
    rows: Vec<Row>,
    churn: Vec<Row>,
    /// Whether every row of `rows` keeps within its bars.
    pass: bool,
    seconds: f64,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if args.calibrate {
        return calibrate(&args).map(|()| ExitCode::SUCCESS);
    }
    let start = Instant::now();
    let scale = args.scale.unwrap_or(if args.quick { 40.0 } else { 32.0 });
    let most = args.runs.unwrap_or(if args.quick { 8 } else { 12 });
    let setting = setting(&args, Setting::of_the_paper(scale), if args.quick { 20 } else { 120 });
    let pieces = if args.pieces.is_empty() { PIECES.to_vec() } else { args.pieces.clone() };
    let (stays, seeds_on, away) = (args.stays, args.seeds_on, args.away);
    let churn = Churn { stays: seconds(stays), seeds_on: seconds(seeds_on), away: seconds(away) };

    // For each size, without churn and then with it: plain and sealed, again and again.
    let mut pairs: Vec<Vec<(Model, Outcome)>> = vec![Vec::new(); 2 * pieces.len()];
    let mut runs = 0;
    while runs < most && (runs == 0 || !args.quick || start.elapsed() * (runs + 1) / runs < QUICK) {
        let seed = args.seed.wrapping_add(runs.into());
        let sizes =
            [None, Some(churn)].into_iter().flat_map(|churn| pieces.iter().map(move |kib| (kib, churn)));
        let models: Vec<Model> = sizes
            .flat_map(|(kib, churn)| {
                [false, true].map(|sealed| setting.model(kib << 10, sealed, churn, seed))
            })
            .collect();
        runs += 1;
        let outcomes = run_all(&models, |done| {
            let (all, seconds) = (models.len(), start.elapsed().as_secs_f64());
            eprintln!("pair {runs} of at most {most}: {done} of {all} runs, {seconds:.0} s");
        });
        let both: Vec<(Model, Outcome)> = models.into_iter().zip(outcomes).collect();
        pairs.iter_mut().zip(both.chunks(2)).for_each(|(all, pair)| all.extend_from_slice(pair));
    }
    let mut rows: Vec<Row> = pairs.iter().map(|pairs| row(pairs)).collect();
    let churn = rows.split_off(pieces.len());
    let pass = rows.iter().flat_map(Row::bars).all(|(figure, bar, _)| figure <= bar);
    let seconds = start.elapsed().as_secs_f64();
    let report = Report { setting: &setting, scale, runs, rows, churn, pass, seconds };
    if let Some(path) = &args.svg {
        std::fs::write(path, svg(&report)).with_context(|| path.display().to_string())?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(ExitCode::SUCCESS)
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.min(1e9))
}

/// What the flags change.
fn setting(args: &Args, base: Setting, peers: u16) -> Setting {
    Setting {
        peers: args.peers.unwrap_or(peers).into(),
        rates: args.rates.map_or(base.rates, |(low, high)| (low * 1e3, high * 1e3)),
        down_factor: args.down_factor.unwrap_or(base.down_factor),
        latency_ms: args.latency.unwrap_or(base.latency_ms),
        loss: args.loss.unwrap_or(base.loss),
        ..base
    }
}

/// Pairs of runs, plain before sealed.
fn row(runs: &[(Model, Outcome)]) -> Row {
    let rates: Vec<f64> = runs.iter().map(|(model, outcome)| outcome.throughput(model) / 1e6).collect();
    let pick = |first: usize| rates.iter().skip(first).step_by(2).copied().collect::<Vec<f64>>();
    let losses: Vec<f64> = rates.chunks(2).map(|pair| 100.0 * (1.0 - pair[1] / pair[0])).collect();
    let (loss_percent, loss_percent_95) = mean(&losses);
    let total = |of: fn(&Outcome) -> f64| runs.iter().map(|(_, outcome)| of(outcome)).sum::<f64>();
    let calls = total(|outcome| outcome.key_calls as f64).max(1.0);
    let witness_calls = total(|outcome| outcome.witness_calls as f64).max(1.0);
    let overhead = |sealed: bool| {
        let of_it = || runs.iter().filter(|(model, _)| model.sealed == sealed);
        let content = |(model, outcome): &(Model, Outcome)| outcome.stored * u64::from(model.piece_len);
        let sent: u64 = of_it().map(|(_, outcome)| outcome.overhead).sum();
        100.0 * sent as f64 / of_it().map(content).sum::<u64>().max(1) as f64
    };
    // Nothing waits for a key in a plain torrent.
    let requested: u64 =
        runs.iter().filter(|(model, _)| model.sealed).map(|(_, outcome)| outcome.requested).sum();
    Row {
        piece_kib: runs[0].0.piece_len >> 10,
        plain_mb_s: mean(&pick(0)).0,
        sealed_mb_s: mean(&pick(1)).0,
        loss_percent,
        loss_percent_95,
        keys_ms: 1e3 * total(|outcome| outcome.key_time.as_secs_f64()) / calls,
        keys_per_call: total(|outcome| outcome.keys as f64) / calls,
        witness_keys_per_call: total(|outcome| outcome.witness_keys as f64) / witness_calls,
        plain_overhead_percent: overhead(false),
        overhead_percent: overhead(true),
        awaited_key_percent: 100.0 * total(|outcome| outcome.awaited_key as f64) / requested.max(1) as f64,
        left: total(|outcome| outcome.left as f64) / runs.len() as f64,
    }
}

fn print(report: &Report<'_>) {
    let Setting { seeds, peers, seed_rate, rates, object, .. } = report.setting;
    println!(
        "{seeds} seeds at {:.0} KB/s, {peers} downloaders that send {:.0} to {:.0} KB/s, {:.0} MB; 1/{} of the paper's \
         object and hour, {} pairs of runs",
        seed_rate / 1e3,
        rates.0 / 1e3,
        rates.1 / 1e3,
        *object as f64 / 1e6,
        report.scale,
        report.runs
    );
    println!("{}", text(&report.rows));
    println!("with churn:\n{}", text(&report.churn));
    for row in &report.rows {
        for (figure, bar, what) in row.bars() {
            let word = if figure <= bar { "pass" } else { "miss" };
            println!("{} KiB: {what}: {figure:.2} %, at most {bar} %: {word}", row.piece_kib);
        }
    }
}

fn text(rows: &[Row]) -> String {
    let mut lines = vec![cells([
        "piece, KiB",
        "plain, MB/s",
        "sealed, MB/s",
        "loss, %",
        "± (95 %)",
        "keys, ms",
        "a call",
        "witness keys a call",
        "beside the content, %: plain",
        "sealed",
        "waited for a key, %",
    ])];
    lines.extend(rows.iter().map(|row| {
        cells([
            &row.piece_kib.to_string(),
            &format!("{:.3}", row.plain_mb_s),
            &format!("{:.3}", row.sealed_mb_s),
            &format!("{:.2}", row.loss_percent),
            &row.loss_percent_95.map_or(String::new(), |half| format!("{half:.2}")),
            &format!("{:.0}", row.keys_ms),
            &format!("{:.1}", row.keys_per_call),
            &format!("{:.1}", row.witness_keys_per_call),
            &format!("{:.2}", row.plain_overhead_percent),
            &format!("{:.2}", row.overhead_percent),
            &format!("{:.2}", row.awaited_key_percent),
        ])
    }));
    table(&lines)
}

fn svg(report: &Report<'_>) -> String {
    let panel = |title: &'static str, rows: &[Row]| {
        let line = |name: &str, rate: fn(&Row) -> f64| Line {
            name: name.to_owned(),
            points: rows.iter().map(|row| (f64::from(row.piece_kib), rate(row))).collect(),
        };
        let lines = vec![line("plain", |row| row.plain_mb_s), line("sealed", |row| row.sealed_mb_s)];
        Panel { title, lines }
    };
    let panels = [panel("everybody stays", &report.rows), panel("with churn", &report.churn)];
    chart("Figure 5: MB/s of the swarm by KiB of a piece", &panels, Scale::FromZero)
}

fn calibrate(args: &Args) -> Result<()> {
    let program = match &args.swarmseal {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("swarmseal"),
    };
    ensure!(program.exists(), "{}: expected the program there, or --swarmseal FILE", program.display());
    if !args.inside {
        Lab::allowed()?;
        let status = Command::new("unshare")
            .arg("--net")
            .arg(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .arg("--inside")
            .status()?;
        ensure!(status.success(), "the run in a namespace failed");
        return Ok(());
    }
    let base = Setting {
        rates: (100e3, 400e3),
        object: if args.quick { 4 << 20 } else { 16 << 20 },
        joining: 1.0,
        seconds: 3600.0,
        ..Setting::of_the_paper(1.0)
    };
    let setting = setting(args, base, 12);
    let pieces = if args.pieces.is_empty() { vec![32, 256] } else { args.pieces.clone() };
    let rows = Calibration { program: &program, setting: &setting, seed: args.seed }.run(&pieces)?;
    if args.json {
        println!("{}", serde_json::json!({ "setting": setting, "calibration": rows }));
    } else {
        print!("{}", beside(&rows));
    }
    Ok(())
}

fn beside(rows: &[Beside]) -> String {
    let head = ["piece, KiB", "torrent", "real, s", "model, s", "real, MB/s", "model, MB/s", "model / real"];
    let mut lines = vec![cells(head)];
    lines.extend(rows.iter().map(|row| {
        cells([
            &row.piece_kib.to_string(),
            if row.sealed { "sealed" } else { "plain" },
            &format!("{:.1}", row.real_seconds),
            &format!("{:.1}", row.model_seconds),
            &format!("{:.3}", row.real_mb_s),
            &format!("{:.3}", row.model_mb_s),
            &format!("{:.3}", row.ratio),
        ])
    }));
    table(&lines)
}
