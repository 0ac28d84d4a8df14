//! The paper's Table 1, row by row: its figure, a current Botan's on this machine, and ours.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use serde::Serialize;
use swarmseal_bench::chart::{Line, Panel, Scale, chart};
use swarmseal_bench::ours::{Ours, PIECES, backends};
use swarmseal_bench::problem::{BATCH, Problem, Width};
use swarmseal_bench::report::{cells, table, time};
use swarmseal_bench::rivals;
use swarmseal_bench::timing::{Contender, interleave};

const FUNCTIONS: [&str; 5] = ["SGen", "PEnc", "PDec", "Tracker", "T"];
/// n, and seconds of each function: Pentium 4 3.4 GHz, Botan 1.6.1. PEnc, PDec and T over 256 KiB, Tracker one re-key.
const PAPER: [(usize, [f64; 5]); 5] = [
    (512, [0.029, 5.526, 8.862, 0.0516, 0.029]),
    (768, [0.047, 7.993, 10.931, 0.105, 0.037]),
    (1024, [0.081, 10.657, 12.350, 0.251, 0.043]),
    (1536, [0.195, 16.995, 17.473, 0.371, 0.055]),
    (2048, [0.381, 22.985, 21.763, 0.442, 0.062]),
];

/// Prints Table 1 of the paper beside this machine's figures, in seconds.
///
/// "Its way" is an exponentiation with a short exponent for every block (PEnc, PDec), and two full ones for a re-key
/// (Tracker). Ours is one exponentiation a piece and then the cost of T, and re-keys from tables. SGen: ours are safe
/// primes, at the cost of a candidate times how many it takes on average; the paper's were too quick for that.
#[derive(Parser)]
struct Args {
    /// Print JSON: a list of {bits, function, paper, botan, its_way, ours, ratio_paper, ratio_botan}.
    #[arg(long)]
    json: bool,
    /// Write a chart of it.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// This backend, not the fastest.
    #[arg(long)]
    backend: Option<String>,
    /// Seconds for each size.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
}

/// One cell of the paper's table. Seconds.
#[derive(Serialize)]
struct Figure {
    bits: usize,
    function: &'static str,
    paper: f64,
    /// Botan on this machine, the paper's way.
    botan: Option<f64>,
    /// Our arithmetic, the paper's way.
    its_way: Option<f64>,
    ours: f64,
    ratio_paper: f64,
    ratio_botan: Option<f64>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let budget = Duration::try_from_secs_f64(args.seconds).context("--seconds")?;
    let mut figures = Vec::new();
    let name = args.backend.clone().unwrap_or_else(|| swarmseal_accel::detect().name.to_owned());
    let [kernels] = backends(&[name])?[..] else { unreachable!("one name, one backend") };
    for (bits, paper) in PAPER {
        let problem = Problem::new(bits).context("the paper's sizes have groups")?;
        let (ours, its_way) = measure_ours(&problem, Ours::new(&problem, kernels), budget);
        let botan = measure_botan(&problem, budget);
        for (i, function) in FUNCTIONS.into_iter().enumerate() {
            let botan = botan.and_then(|botan| botan[i]);
            figures.push(Figure {
                bits,
                function,
                paper: paper[i],
                botan,
                its_way: its_way[i],
                ours: ours[i],
                ratio_paper: paper[i] / ours[i],
                ratio_botan: botan.map(|botan| botan / ours[i]),
            });
        }
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, svg(&figures, kernels.name)).with_context(|| path.display().to_string())?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print!("{}", text(&figures, kernels.name));
    }
    Ok(())
}

/// Ours, and our arithmetic the paper's way, in the order of [`FUNCTIONS`].
fn measure_ours(problem: &Problem, ours: Ours<'_>, budget: Duration) -> ([f64; 5], [Option<f64>; 5]) {
    let share = problem.share_of_a_piece();
    let mut blocks = problem.blocks.clone();
    // The tracker's exponents are short where the group has such.
    let keys = ours.keys(Width::Short).or_else(|| ours.keys(Width::Full)).expect("every group has full ones");
    let ours = std::cell::RefCell::new(ours);
    let (pow, batch, pow_full) = (
        || {
            ours.borrow_mut().pow(0, Width::Short);
            1.0
        },
        || {
            ours.borrow_mut().pow_batch(Width::Short);
            BATCH as f64
        },
        || {
            ours.borrow_mut().pow_batch(Width::Full);
            BATCH as f64
        },
    );
    let t = || {
        ours.borrow().mul_blocks(&mut blocks);
        share
    };
    let rekey = || {
        keys.rekeys();
        PIECES as f64
    };
    let candidate = || ours.borrow().search().sieved as f64;
    let mut contenders = [
        Contender::new(pow),
        Contender::new(batch),
        Contender::new(pow_full),
        Contender::new(t),
        Contender::new(rekey),
        Contender::new(candidate),
    ];
    let seconds: Vec<f64> = interleave(&mut contenders, budget).into_iter().map(|ns| ns / 1e9).collect();
    let [pow, batch, pow_full, t, rekey, candidate] = seconds[..] else { unreachable!("six of them") };
    let key_and_t = pow + t;
    let each_block = batch * blocks_of_a_piece(problem) + t;
    let sgen = candidate * candidates_to_a_safe_prime(problem.bits);
    (
        [sgen, key_and_t, key_and_t, rekey, t],
        [None, Some(each_block), Some(each_block), Some(2.0 * pow_full), Some(t)],
    )
}

/// None without the feature `rivals`.
fn measure_botan(problem: &Problem, budget: Duration) -> Option<[Option<f64>; 5]> {
    let botan = rivals::all(problem).into_iter().find(|rival| rival.name() == "botan")?;
    let botan = std::cell::RefCell::new(botan);
    let mut blocks = problem.blocks.clone();
    let share = problem.share_of_a_piece();
    let mut contenders = [
        Contender::new(|| {
            botan.borrow_mut().pow(0, Width::Short);
            1.0
        }),
        Contender::new(|| {
            botan.borrow_mut().mul_pow(Width::Full);
            1.0
        }),
        Contender::new(|| {
            botan.borrow_mut().mul_blocks(&mut blocks);
            share
        }),
    ];
    let seconds: Vec<f64> = interleave(&mut contenders, budget / 4).into_iter().map(|ns| ns / 1e9).collect();
    let [pow, rekey, t] = seconds[..] else { unreachable!("three of them") };
    let each_block = pow * blocks_of_a_piece(problem) + t;
    Some([None, Some(each_block), Some(each_block), Some(rekey), Some(t)])
}

/// 256 KiB in blocks of W bytes: not a whole number where W does not divide it.
fn blocks_of_a_piece(problem: &Problem) -> f64 {
    (problem.blocks.len() / problem.width()) as f64 / problem.share_of_a_piece()
}

/// How many numbers ≡ 7 mod 8 of so many bits there are to one safe prime: ln²(2^n) / 4C, where C = 0.66016… is the twin
/// prime constant (Hardy and Littlewood's conjecture for q and 2q + 1, of which half have q ≡ 3 mod 4).
fn candidates_to_a_safe_prime(bits: usize) -> f64 {
    const TWIN_PRIMES: f64 = 0.660_161_815_846_869_6;
    (bits as f64 * std::f64::consts::LN_2).powi(2) / (4.0 * TWIN_PRIMES)
}

fn text(figures: &[Figure], backend: &str) -> String {
    let seconds = |s: f64| time(s * 1e9);
    let optional = |s: Option<f64>| s.map_or(String::new(), seconds);
    let ours = format!("ours, {backend}");
    let mut rows = vec![cells([
        "function",
        "n",
        "paper",
        "Botan",
        "its way, ours",
        &ours,
        "paper / ours",
        "Botan / ours",
    ])];
    for function in FUNCTIONS {
        rows.extend(figures.iter().filter(|figure| figure.function == function).map(|figure| {
            cells([
                function,
                &figure.bits.to_string(),
                &seconds(figure.paper),
                &optional(figure.botan),
                &optional(figure.its_way),
                &seconds(figure.ours),
                &format!("{:.1}", figure.ratio_paper),
                &figure.ratio_botan.map_or(String::new(), |ratio| format!("{ratio:.1}")),
            ])
        }));
    }
    table(&rows)
}

fn svg(figures: &[Figure], backend: &str) -> String {
    let panel = |function: &'static str| {
        let line = |name: String, seconds: fn(&Figure) -> Option<f64>| {
            let of = figures.iter().filter(|figure| figure.function == function);
            Line { name, points: of.filter_map(|f| Some((f.bits as f64, seconds(f)?))).collect() }
        };
        let lines = vec![
            line("the paper, Pentium 4, Botan 1.6".to_owned(), |f| Some(f.paper)),
            line("Botan here, its way".to_owned(), |f| f.botan),
            line("our arithmetic, its way".to_owned(), |f| f.its_way),
            line(format!("ours, {backend}"), |f| Some(f.ours)),
        ];
        Panel { title: function, lines }
    };
    chart("Table 1: seconds by bits of the modulus", &FUNCTIONS.map(panel), Scale::Logarithmic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_primes_are_as_rare_as_known() {
        let is_prime = |n: u32| n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
        let numbers = (1_u32 << 19..1 << 20).filter(|n| n % 8 == 7);
        let (mut all, mut safe) = (0.0, 0.0);
        for n in numbers {
            all += 1.0;
            safe += if is_prime(n) && is_prime(n / 2) { 1.0 } else { 0.0 };
        }
        let expected = candidates_to_a_safe_prime(20);
        assert!((all / safe / expected - 1.0).abs() < 0.25, "{} beside {expected}", all / safe);
    }
}
