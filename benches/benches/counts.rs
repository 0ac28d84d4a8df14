//! Instructions of each kernel, counted by callgrind: `.ci/counts` compares them with `benches/counts.json`.
//!
//! A count depends neither on the machine's load nor on its clock, so that a few per cent can be told.

#![allow(missing_docs)] // iai-callgrind's macros make modules.

use std::hint::black_box;

use iai_callgrind::{library_benchmark, library_benchmark_group, main};
use swarmseal_bench::ours::{exponent, words};
use swarmseal_bench::problem::{Problem, Width, named_group};
use swarmseal_bench::valgrind;
use swarmseal_core::kernels::{ByteOrder, Exponent};
use swarmseal_core::{Group, Kernels, Word};

const BITS: usize = 2048;
/// Enough for every kernel to prepare its factor.
const BLOCKS: usize = 32;

/// A backend with its operands. Any number below p is as good as another in Montgomery form.
struct Ready {
    kernels: &'static Kernels,
    group: Group,
    a: Vec<Word>,
    b: Vec<Word>,
    exponent: Exponent,
    blocks: Vec<u8>,
    out: Vec<Word>,
}

/// None where this build has no such backend.
fn ready(backend: &str) -> Option<Box<Ready>> {
    let problem = Problem::new(BITS)?;
    let kernels = valgrind::backend(backend)?;
    let (_, group) = named_group(BITS, kernels)?;
    Some(Box::new(Ready {
        kernels,
        a: words(&problem.bases[0]),
        b: words(&problem.factor),
        exponent: exponent(&problem.exponents.of(Width::Short)[0]),
        blocks: problem.blocks[..BLOCKS * problem.width()].to_vec(),
        out: vec![0; group.modulus().len()],
        group,
    }))
}

/// A benchmark of `$work`, on each backend. What it is given is handed back, to be dropped uncounted.
macro_rules! count {
    ($name:ident, |$ready:ident| $work:expr) => {
        #[library_benchmark(setup = ready)]
        #[bench::portable("portable")]
        #[bench::adx("adx")]
        fn $name(ready: Option<Box<Ready>>) -> Option<Box<Ready>> {
            let mut ready = black_box(ready)?;
            let $ready = &mut *ready;
            $work;
            Some(ready)
        }
    };
}

count!(mont_mul, |r| (r.kernels.mont_mul)(r.group.modulus(), &r.a, &r.b, &mut r.out));
count!(mont_sqr, |r| (r.kernels.mont_sqr)(r.group.modulus(), &r.a, &mut r.out));
count!(mul_blocks, |r| (r.kernels.mul_blocks)(r.group.modulus(), &r.b, ByteOrder::Little, &mut r.blocks));
count!(modpow_short, |r| (r.kernels.modpow)(r.group.modulus(), &r.a, &r.exponent, &mut r.out));

library_benchmark_group!(name = kernels; benchmarks = mont_mul, mont_sqr, mul_blocks, modpow_short);
main!(library_benchmark_groups = kernels);
