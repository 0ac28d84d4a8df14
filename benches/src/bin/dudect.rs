//! Whether the time of each operation tells a fixed secret from random ones, on every backend.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use rand_core::Rng;
use swarmseal_bench::ours::{backends, exponent, words};
use swarmseal_bench::problem::{BATCH, Problem, Random, Width, named_group};
use swarmseal_bench::report::{cells, table};
use swarmseal_bench::welch::largest_t;
use swarmseal_core::kernels::{ByteOrder, Comb, Exponent, Power};
use swarmseal_core::{Group, Kernels, Modulus, Word};

/// Beyond this the classes differ for certain; dudect's own bound. From 4.5 on one should look again, for longer.
const BOUND: f64 = 10.0;
/// Inputs of each class. The fixed class has as many copies, so that caches meet both alike.
const INPUTS: usize = 32;
/// Enough for every kernel to prepare its factor.
const BLOCKS: usize = 32;

/// Times every operation on a fixed secret and on random ones, and prints Welch's t of the two.
///
/// |t| above 10 fails: time depends on the secret. Between 4.5 and 10, run it for longer on a quiet machine.
#[derive(Parser)]
struct Args {
    /// Seconds for each operation of each backend.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Bits of the modulus.
    #[arg(long, default_value_t = 2048)]
    bits: usize,
    /// Only this backend. Can be repeated.
    #[arg(long)]
    backend: Vec<String>,
    /// Only compare two strings with an early return, which must be found to leak.
    #[arg(long)]
    plant: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let budget = Duration::try_from_secs_f64(args.seconds).context("--seconds")?;
    let problem = Problem::new(args.bits).with_context(|| format!("no group has {} bits", args.bits))?;
    let mut rows = vec![cells(["backend", "operation", "secret", "samples", "|t|", ""])];
    let mut leaks = false;
    let mut note = |backend: &str, (operation, secret): (&str, &str), samples: Vec<(bool, f64)>| {
        let t = largest_t(&samples).abs();
        let word = match t {
            t if t > BOUND => "LEAKS",
            t if t > 4.5 => "look again",
            _ => "ok",
        };
        leaks |= t > BOUND;
        let count = samples.len().to_string();
        rows.push(cells([backend, operation, secret, &count, &format!("{t:.2}"), word]));
    };
    if args.plant {
        note("none", ("early return", "bytes"), planted(budget));
    } else {
        for kernels in backends(&args.backend)? {
            operations(&problem, kernels, budget, &mut note);
        }
    }
    print!("{}", table(&rows));
    Ok(if leaks { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Times `work` on inputs of one class or the other, drawn at random.
fn sample<T>(
    budget: Duration,
    fixed: &T,
    mut random: impl FnMut() -> T,
    mut work: impl FnMut(&T),
) -> Vec<(bool, f64)>
where
    T: Clone,
{
    let classes: [Vec<T>; 2] =
        [(0..INPUTS).map(|_| fixed.clone()).collect(), (0..INPUTS).map(|_| random()).collect()];
    let mut input = fixed.clone();
    let mut read = [fixed.clone(), fixed.clone()];
    let mut draw = Random::new(9);
    let mut samples = Vec::new();
    let start = Instant::now();
    // The first few warm caches and are thrown away.
    for warm in 0.. {
        let bits = draw.next_u64();
        let class = bits & 1 == 1;
        // At one address, and after the same reads: what lies where, and what it drives out of the caches, can tell more of the time
        // than the operand. Both classes are read, one after the other, in an order that is drawn too.
        let swapped = (bits >> 1) as usize & 1;
        for (place, read) in read.iter_mut().enumerate() {
            read.clone_from(&classes[place ^ swapped][(bits >> 2) as usize % INPUTS]);
        }
        input.clone_from(&read[usize::from(class) ^ swapped]);
        let begin = Instant::now();
        work(black_box(&input));
        let time = begin.elapsed();
        if warm >= INPUTS {
            samples.push((class, time.as_nanos() as f64));
        }
        if start.elapsed() >= budget {
            break;
        }
    }
    samples
}

fn operations(
    problem: &Problem,
    kernels: &'static Kernels,
    budget: Duration,
    note: &mut impl FnMut(&str, (&str, &str), Vec<(bool, f64)>),
) {
    let (_, group) = named_group(problem.bits, kernels).expect("a problem has a group");
    let (m, width) = (group.modulus(), problem.width());
    let mut random = Random::new(11);
    // Below p, whose top bit is set.
    let mut number = || {
        let mut bytes = random.bytes(width);
        bytes[width - 1] &= 0x7f;
        words(&bytes)
    };
    let (b, mut out) = (words(&problem.factor), vec![0; m.len()]);
    // 1 has the fewest bits, as a number and as an exponent.
    let mut one = vec![0; m.len()];
    one[0] = 1;
    let mut note = |what, samples| note(kernels.name, what, samples);

    let samples = sample(budget, &one, &mut number, |a| (kernels.mont_mul)(m, a, &b, &mut out));
    note(("mont_mul", "factor"), samples);
    let samples = sample(budget, &one, &mut number, |a| (kernels.mont_sqr)(m, a, &mut out));
    note(("mont_sqr", "number"), samples);

    let mut random = Random::new(12);
    let mut blocks = vec![0; BLOCKS * width];
    let samples = sample(
        budget,
        &vec![0; BLOCKS * width],
        || random.bytes(BLOCKS * width),
        |secret| {
            blocks.copy_from_slice(secret);
            (kernels.mul_blocks)(m, &b, ByteOrder::Little, &mut blocks);
        },
    );
    note(("mul_blocks", "blocks"), samples);
    let plain = problem.blocks[..BLOCKS * width].to_vec();
    let samples = sample(budget, &one, &mut number, |factor| {
        blocks.copy_from_slice(&plain);
        (kernels.mul_blocks)(m, factor, ByteOrder::Little, &mut blocks);
    });
    note(("mul_blocks", "factor"), samples);

    let bits = 8 * problem.exponents.of(Width::Short)[0].len();
    let mut random = Random::new(13);
    let mut batch = || -> Vec<Exponent> { (0..BATCH).map(|_| exponent(&random.bytes(bits / 8))).collect() };
    let mut least = vec![0; bits / 8];
    least[0] = 1;
    let fixed: Vec<Exponent> = (0..BATCH).map(|_| exponent(&least)).collect();
    let base = words(&problem.bases[0]);
    let samples = sample(budget, &fixed, &mut batch, |e| (kernels.modpow)(m, &base, &e[0], &mut out));
    note(("modpow", "exponent"), samples);
    let e = exponent(&problem.exponents.of(Width::Short)[0]);
    let samples = sample(budget, &one, &mut number, |base| (kernels.modpow)(m, base, &e, &mut out));
    note(("modpow", "base"), samples);
    let bases: Vec<Vec<Word>> = problem.bases.iter().map(|base| words(base)).collect();
    let mut outs = vec![0; BATCH * m.len()];
    let samples = sample(budget, &fixed, &mut batch, |exponents| {
        (kernels.modpow_batch)(&powers(m, &bases, exponents), &mut outs);
    });
    note(("modpow_batch", "exponents"), samples);
    let tables = [0, 1].map(|index| comb_table(&group, kernels, &bases[index], bits));
    let samples = sample(budget, &fixed, &mut batch, |exponents| {
        let exponents: Vec<&Exponent> = exponents.iter().collect();
        let combs = tables.each_ref().map(|table| Comb { table, exponents: &exponents });
        (kernels.comb_pow)(m, bits, &combs, &mut outs);
    });
    note(("comb_pow", "exponents"), samples);
}

fn powers<'a>(modulus: &'a Modulus, bases: &'a [Vec<Word>], exponents: &'a [Exponent]) -> Vec<Power<'a>> {
    bases.iter().zip(exponents).map(|(base, exponent)| Power { modulus, base, exponent }).collect()
}

fn comb_table(group: &Group, kernels: &Kernels, base: &[Word], bits: usize) -> Vec<Word> {
    let mut table = vec![0; (kernels.comb_words)(group.modulus(), bits)];
    (kernels.comb_fill)(group.modulus(), base, bits, &mut table);
    table
}

/// A comparison that stops at the first difference.
fn planted(budget: Duration) -> Vec<(bool, f64)> {
    let mut random = Random::new(14);
    let secret = random.bytes(1 << 12);
    sample(
        budget,
        &secret.clone(),
        || random.bytes(1 << 12),
        |guess| {
            black_box(guess.iter().zip(&secret).position(|(a, b)| a != b));
        },
    )
}
