//! Our backends beside the libraries that a user could pick instead, in one process and in turns.

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use swarmseal_accel::bench;
use swarmseal_bench::bars::{self, Verdict};
use swarmseal_bench::ours::{Ours, PIECES, backends};
use swarmseal_bench::problem::{BATCH, Problem, Width, named_group};
use swarmseal_bench::report::{Op, Row, cells, table, time};
use swarmseal_bench::rivals::{self, Rival};
use swarmseal_bench::timing::{Contender, interleave};
use swarmseal_core::Kernels;

/// Multiplications in a row that make one sample of `modmul`.
const CHAIN: usize = 256;

/// Times Swarmseal's operations beside those of other libraries.
///
/// Without the feature `rivals` the only other library is crypto-bigint.
#[derive(Parser)]
struct Args {
    /// Print JSON: a list of {op, bits, backend, ns, rival, rival_ns, ratio, reference}.
    #[arg(long)]
    json: bool,
    /// Bits of the modulus: 512, 768, 1024, 1536, 2048, 3072 or 4096. Can be repeated.
    #[arg(long, default_values_t = [2048, 3072, 4096])]
    bits: Vec<usize>,
    /// Only this backend. Can be repeated.
    #[arg(long)]
    backend: Vec<String>,
    /// Only this operation. Can be repeated.
    #[arg(long)]
    op: Vec<Op>,
    /// Seconds for each operation at each size, shared by all who take part.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let ops = if args.op.is_empty() { Op::value_variants() } else { &args.op };
    let budget = Duration::try_from_secs_f64(args.seconds).context("--seconds")?;
    let backends = backends(&args.backend)?;
    let watched = stderr().is_terminal();
    let mut rows = Vec::new();
    let mut versions = Vec::new();
    for &bits in &args.bits {
        let problem = Problem::new(bits).with_context(|| format!("no group has {bits} bits"))?;
        let mut ours: Vec<Ours<'_>> = backends.iter().map(|kernels| Ours::new(&problem, kernels)).collect();
        let mut rivals = rivals::all(&problem);
        versions = rivals.iter().map(|rival| format!("{} {}", rival.name(), rival.version())).collect();
        for &op in ops {
            if watched {
                eprint!("\r{bits:4} {op:20}");
            }
            check(&problem, &mut ours, &mut rivals, op)?;
            rows.extend(time_op(&problem, &mut ours, &mut rivals, op, budget));
        }
    }
    if watched {
        eprint!("\r{:25}\r", "");
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        println!("beside {}\n", versions.join(", "));
        print(&rows, ops);
    }
    Ok(())
}

/// That everybody computes the same.
fn check(problem: &Problem, ours: &mut [Ours<'_>], rivals: &mut [Box<dyn Rival + '_>], op: Op) -> Result<()> {
    for rival in rivals {
        for ours in ours.iter_mut() {
            ensure!(
                agree(problem, ours, rival.as_mut(), op),
                "{op} at {} bits: {} and {} differ",
                problem.bits,
                rival.name(),
                ours.name()
            );
        }
    }
    Ok(())
}

fn agree(problem: &Problem, ours: &mut Ours<'_>, rival: &mut dyn Rival, op: Op) -> bool {
    let width = op.width().unwrap_or(Width::Full);
    match op {
        Op::T256k => {
            let (mut theirs, mut here) = (problem.blocks.clone(), problem.blocks.clone());
            rival.mul_blocks(&mut theirs);
            ours.mul_blocks(&mut here);
            return theirs == here;
        }
        Op::Modmul => {
            rival.mul_chain(CHAIN);
            ours.mul_chain(CHAIN);
        }
        Op::Rekey | Op::RekeyFull => {
            rival.mul_pow(width);
            ours.mul_pow(width);
        }
        Op::ModpowFull | Op::ModpowShort | Op::LicenseEntry => {
            rival.pow(0, width);
            ours.pow(0, width);
        }
        Op::ModpowFullBatch8 | Op::ModpowShortBatch8 => {
            ours.pow_batch(width);
            return (0..BATCH).all(|index| {
                rival.pow(index, width);
                rival.result() == ours.result(index)
            });
        }
        Op::Sgen => {
            let composites = problem.candidates.len();
            return (0..composites).all(|index| !rival.is_probable_prime(index))
                && rival.is_probable_prime(composites);
        }
    }
    rival.result() == ours.result(0)
}

/// Everybody's figure for one operation, each of ours beside each of theirs. None where the group has no such exponents.
fn time_op(
    problem: &Problem,
    ours: &mut [Ours<'_>],
    rivals: &mut [Box<dyn Rival + '_>],
    op: Op,
    budget: Duration,
) -> Vec<Row> {
    let backends: Vec<&str> = ours.iter().map(Ours::name).collect();
    let names: Vec<&str> = rivals.iter().map(|rival| rival.name()).collect();
    let pairs: Vec<usize> = (0..rivals.len()).filter(|&i| has_pairs(rivals[i].as_mut(), op)).collect();
    // One rival is two contenders where it has powers in pairs.
    let rivals: Vec<_> = rivals.iter_mut().map(RefCell::new).collect();

    let mut contenders = Vec::new();
    for ours in ours.iter_mut() {
        let Some(contender) = our_contender(problem, ours, op) else { return Vec::new() };
        contenders.push(contender);
    }
    contenders.extend(rivals.iter().map(|rival| {
        let mut work = rival_work(problem, op);
        Contender::new(move || work(rival.borrow_mut().as_mut()))
    }));
    contenders.extend(pairs.iter().map(|&i| {
        let rival = &rivals[i];
        Contender::new(move || pow_in_pairs(rival.borrow_mut().as_mut(), op))
    }));
    let limit_at = contenders.len();
    if op == Op::T256k && backends.contains(&"ifma") {
        contenders.extend(port_limit(problem));
        contenders.extend(arithmetic_alone(problem));
    }
    let medians = interleave(&mut contenders, budget);

    let (ours_ns, theirs_ns) = medians.split_at(backends.len());
    let others = names.iter().map(|name| ((*name).to_owned(), false));
    let others: Vec<(String, bool)> =
        others.chain(pairs.iter().map(|&i| (format!("{} x2", names[i]), true))).collect();
    let mut rows = Vec::new();
    for (backend, &ns) in backends.iter().zip(ours_ns) {
        rows.extend(others.iter().zip(theirs_ns).map(|((rival, reference), &rival_ns)| {
            Row::new((op, problem.bits), (backend, ns), (rival, rival_ns), *reference)
        }));
    }
    if let [limit_ns, arithmetic @ ..] = &medians[limit_at..] {
        let whole = backends.iter().zip(ours_ns).filter(|(backend, _)| **backend == "ifma");
        let alone = arithmetic.iter().map(|ns| (&bars::IFMA_ARITHMETIC, ns));
        rows.extend(whole.chain(alone).map(|(backend, &ns)| {
            Row::new((op, problem.bits), (backend, ns), (bars::PORT_LIMIT, *limit_ns), true)
        }));
    }
    rows
}

/// Groups of eight blocks in a piece, the last one perhaps not full.
fn groups_of_eight(problem: &Problem) -> usize {
    (problem.blocks.len() / problem.width()).div_ceil(8)
}

/// As many `vpmadd52` as a constant's products need at the least, 2 L (L + 2) + L for eight blocks of L limbs, with nothing
/// to wait for.
fn port_limit(problem: &Problem) -> Option<Contender<'static>> {
    let limbs = problem.bits.div_ceil(52);
    let count = (2 * limbs * (limbs + 2) + limbs) * groups_of_eight(problem);
    let share = problem.share_of_a_piece();
    bench::ifma_port_limit(1)?;
    Some(Contender::new(move || {
        black_box(bench::ifma_port_limit(count));
        share
    }))
}

/// The arithmetic of ifma's products by a constant over as many blocks as a piece has, where there is an entry for it.
fn arithmetic_alone<'a>(problem: &'a Problem) -> Option<Contender<'a>> {
    let (_, group) = named_group(problem.bits, Kernels::portable())?;
    let groups = groups_of_eight(problem);
    let share = problem.share_of_a_piece();
    let work = move |groups| bench::ifma_arithmetic(group.modulus(), group.modulus().one(), groups);
    work(1)?;
    Some(Contender::new(move || {
        black_box(work(groups));
        share
    }))
}

fn has_pairs(rival: &mut dyn Rival, op: Op) -> bool {
    match op {
        Op::ModpowFullBatch8 => rival.pow_pair(0, Width::Full),
        Op::ModpowShortBatch8 => rival.pow_pair(0, Width::Short),
        _ => false,
    }
}

fn pow_in_pairs(rival: &mut dyn Rival, op: Op) -> f64 {
    let width = op.width().expect("pairs of powers have exponents");
    for index in (0..BATCH).step_by(2) {
        rival.pow_pair(index, width);
    }
    BATCH as f64
}

/// None where the group has no such exponents.
fn our_contender<'a>(problem: &Problem, ours: &'a mut Ours<'_>, op: Op) -> Option<Contender<'a>> {
    let width = op.width().unwrap_or(Width::Full);
    Some(match op {
        Op::T256k => {
            let mut blocks = problem.blocks.clone();
            let share = problem.share_of_a_piece();
            Contender::new(move || {
                ours.mul_blocks(&mut blocks);
                share
            })
        }
        Op::Modmul => Contender::new(|| {
            ours.mul_chain(CHAIN);
            CHAIN as f64
        }),
        Op::ModpowFull | Op::ModpowShort => Contender::new(move || {
            ours.pow(0, width);
            1.0
        }),
        Op::ModpowFullBatch8 | Op::ModpowShortBatch8 => Contender::new(move || {
            ours.pow_batch(width);
            BATCH as f64
        }),
        Op::Rekey | Op::RekeyFull => {
            let keys = ours.keys(width)?;
            Contender::new(move || {
                keys.rekeys();
                PIECES as f64
            })
        }
        Op::LicenseEntry => {
            let keys = ours.keys(width)?;
            Contender::new(move || {
                keys.license_entries();
                PIECES as f64
            })
        }
        Op::Sgen => Contender::new(|| ours.search().tested as f64),
    })
}

/// Has a rival work and returns the units that were done.
type RivalWork = Box<dyn FnMut(&mut dyn Rival) -> f64>;

/// What a rival does for an operation.
fn rival_work(problem: &Problem, op: Op) -> RivalWork {
    let width = op.width().unwrap_or(Width::Full);
    match op {
        Op::T256k => {
            let mut blocks = problem.blocks.clone();
            let share = problem.share_of_a_piece();
            Box::new(move |rival| {
                rival.mul_blocks(&mut blocks);
                share
            })
        }
        Op::Modmul => Box::new(|rival| {
            rival.mul_chain(CHAIN);
            CHAIN as f64
        }),
        Op::ModpowFull | Op::ModpowShort | Op::LicenseEntry => Box::new(move |rival| {
            rival.pow(0, width);
            1.0
        }),
        Op::ModpowFullBatch8 | Op::ModpowShortBatch8 => Box::new(move |rival| {
            rival.pow_batch(width);
            BATCH as f64
        }),
        Op::Rekey | Op::RekeyFull => Box::new(move |rival| {
            rival.mul_pow(width);
            1.0
        }),
        Op::Sgen => {
            let mut candidates = (0..problem.candidates.len()).cycle();
            Box::new(move |rival| {
                rival.is_probable_prime(candidates.next().expect("it goes round"));
                1.0
            })
        }
    }
}

fn print(rows: &[Row], ops: &[Op]) {
    let mut lines = vec![cells(["op", "bits", "backend", "time", "rival", "its time", "ratio", ""])];
    lines.extend(rows.iter().map(|row| {
        let best = bars::best(rows, row.op, row.bits, &row.backend);
        let note = match best {
            _ if row.reference => "reference",
            Some(best) if best.rival == row.rival => "best rival",
            _ => "",
        };
        cells([
            &row.op.to_string(),
            &row.bits.to_string(),
            &row.backend,
            &time(row.ns),
            &row.rival,
            &time(row.rival_ns),
            &format!("{:.2}", row.ratio),
            note,
        ])
    }));
    println!("{}", table(&lines));
    if rows.iter().any(|row| row.bits == bars::BITS) {
        print_verdicts("The bars, against the best rival:", &bars::bars(rows, ops));
    }
    let limits = bars::port_limits(rows);
    if !limits.is_empty() {
        println!("ifma beside a loop of as many vpmadd52 that wait for nothing:");
        for (what, times, most) in limits {
            let word = if times <= most { "pass" } else { "miss" };
            println!("{what}: {times:.2} times its time, at most {most:.2}: {word}");
        }
        println!();
    }
    print_verdicts("Larger sizes keep 0.8 of the ratio at 2048 bits:", &bars::larger_sizes(rows));
}

fn print_verdicts(title: &str, verdicts: &[Verdict]) {
    if verdicts.is_empty() {
        return;
    }
    println!("{title}");
    let mut lines = vec![cells(["op", "bits", "backend", "ratio", "rival", "least", ""])];
    lines.extend(verdicts.iter().map(|verdict| {
        let (ratio, rival) = match &verdict.reached {
            Some((ratio, rival)) => (format!("{ratio:.2}"), rival.as_str()),
            None => (String::new(), ""),
        };
        cells([
            &verdict.op.to_string(),
            &verdict.bits.to_string(),
            &verdict.backend,
            &ratio,
            rival,
            &format!("{:.2}", verdict.least),
            verdict.word(),
        ])
    }));
    println!("{}", table(&lines));
}
