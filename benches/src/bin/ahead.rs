//! What it is worth to ask for keys ahead of need (the paper, section 3.1): how often a key is there when its piece is asked for, and
//! what the swarm loses where it is not.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use serde::Serialize;
use swarmseal::peer::simulation::{Model, Outcome};
use swarmseal_bench::figure5::{Setting, mean, run_all};
use swarmseal_bench::report::{cells, table};

/// Sealed swarms of Figure 5, in which downloaders say what they will ask for next, beside the same ones in which they do not.
///
/// The peers' own state machine, on the model of the links and of the tracker. Both runs of a pair have the same links and draws.
#[derive(Parser)]
struct Args {
    /// Print JSON: {"rows": [{piece_kib, ahead, mb_s, gain_percent, gain_percent_95, hit_percent, keys_per_call, keys_ms}], …}.
    #[arg(long)]
    json: bool,
    /// 20 downloaders, 1/40 of the object and hour, one pair of runs.
    #[arg(long)]
    quick: bool,
    /// KiB of a piece, separated by commas: whole blocks of 16 KiB.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = [32, 256], value_parser = clap::value_parser!(u32).range(16..=16384))]
    pieces: Vec<u32>,
    /// Pairs of runs for each size.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Of everything that is drawn.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

/// A size of a piece, with or without words ahead.
#[derive(Serialize)]
struct Row {
    piece_kib: u32,
    ahead: bool,
    /// Megabytes (10^6) of content a second, all downloaders together.
    mb_s: f64,
    /// Over the same swarms without: the mean of the pairs, and half of its 95 % interval. None of those themselves.
    gain_percent: Option<f64>,
    gain_percent_95: Option<f64>,
    /// Of the sealed pieces that were asked for, those whose key was there.
    hit_percent: f64,
    keys_per_call: f64,
    /// From the question for keys to their answer.
    keys_ms: f64,
}

#[derive(Serialize)]
struct Report<'a> {
    setting: &'a Setting,
    runs: u32,
    rows: Vec<Row>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let (scale, peers, runs) = if args.quick { (40.0, 20, 1) } else { (32.0, 120, args.runs) };
    let setting = Setting { peers, ..Setting::of_the_paper(scale) };
    anyhow::ensure!(
        args.pieces.iter().all(|kib| kib.is_multiple_of(16)),
        "--pieces: expected multiples of 16"
    );
    let model = |kib: u32, names_ahead: bool, run: u32| Model {
        names_ahead,
        ..setting.model(kib << 10, true, None, args.seed.wrapping_add(run.into()))
    };
    let models: Vec<Model> = args
        .pieces
        .iter()
        .flat_map(|&kib| (0..runs).flat_map(move |run| [(kib, false, run), (kib, true, run)]))
        .map(|(kib, ahead, run)| model(kib, ahead, run))
        .collect();
    let outcomes = run_all(&models, |done| eprintln!("{done} of {} runs", models.len()));
    let both: Vec<(&Model, Outcome)> = models.iter().zip(outcomes).collect();
    let rows = both.chunks(2 * runs as usize).flat_map(|runs| [row(runs, false), row(runs, true)]).collect();
    let report = Report { setting: &setting, runs, rows };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{}", text(&report.rows));
    }
    Ok(ExitCode::SUCCESS)
}

/// Of pairs, those without words ahead before those with them.
fn row(runs: &[(&Model, Outcome)], ahead: bool) -> Row {
    let rates: Vec<f64> = runs.iter().map(|(model, outcome)| outcome.throughput(model) / 1e6).collect();
    let gains: Vec<f64> = rates.chunks(2).map(|pair| 100.0 * (pair[1] / pair[0] - 1.0)).collect();
    let (gain, half) = mean(&gains);
    let mine: Vec<&(&Model, Outcome)> = runs.iter().skip(usize::from(ahead)).step_by(2).collect();
    let total = |of: fn(&Outcome) -> f64| mine.iter().map(|(_, outcome)| of(outcome)).sum::<f64>();
    let calls = total(|outcome| outcome.key_calls as f64).max(1.0);
    Row {
        piece_kib: mine[0].0.piece_len >> 10,
        ahead,
        mb_s: rates.iter().skip(usize::from(ahead)).step_by(2).sum::<f64>() / mine.len() as f64,
        gain_percent: ahead.then_some(gain),
        gain_percent_95: half.filter(|_| ahead),
        hit_percent: 100.0 * total(|outcome| outcome.keyed as f64)
            / total(|outcome| outcome.asked as f64).max(1.0),
        keys_per_call: total(|outcome| outcome.keys as f64) / calls,
        keys_ms: 1e3 * total(|outcome| outcome.key_time.as_secs_f64()) / calls,
    }
}

fn text(rows: &[Row]) -> String {
    let number = |number: Option<f64>| number.map_or(String::new(), |number| format!("{number:.1}"));
    let mut lines = vec![cells([
        "piece, KiB",
        "ahead",
        "MB/s",
        "gain, %",
        "± (95 %)",
        "key was there, %",
        "keys a call",
        "keys, ms",
    ])];
    lines.extend(rows.iter().map(|row| {
        cells([
            &row.piece_kib.to_string(),
            if row.ahead { "yes" } else { "no" },
            &format!("{:.3}", row.mb_s),
            &number(row.gain_percent),
            &number(row.gain_percent_95),
            &format!("{:.1}", row.hit_percent),
            &format!("{:.1}", row.keys_per_call),
            &format!("{:.0}", row.keys_ms),
        ])
    }));
    table(&lines)
}
