//! Each operation of each backend: `cargo bench -p swarmseal-bench --bench operations -- 2048/ifma`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use swarmseal_bench::ours::{Ours, PIECES};
use swarmseal_bench::problem::{BATCH, Problem, Width};

const BITS: [usize; 5] = [1024, 1536, 2048, 3072, 4096];

fn every_backend(c: &mut Criterion) {
    for bits in BITS {
        let problem = Problem::new(bits).expect("a group of that size");
        for kernels in swarmseal_accel::each() {
            operations(c, &problem, &mut Ours::new(&problem, kernels));
        }
    }
}

fn operations(c: &mut Criterion, problem: &Problem, ours: &mut Ours<'_>) {
    let mut c = c.benchmark_group(format!("{}/{}", problem.bits, ours.name()));
    c.sample_size(20).measurement_time(Duration::from_secs(1));
    c.bench_function("mont_mul", |b| b.iter(|| ours.mul_chain(black_box(1))));
    c.bench_function("mont_sqr", |b| b.iter(|| ours.square()));
    for (name, width) in [("short", Width::Short), ("full", Width::Full)] {
        c.throughput(Throughput::Elements(1));
        c.bench_function(format!("modpow {name}"), |b| b.iter(|| ours.pow(0, width)));
        c.throughput(Throughput::Elements(BATCH as u64));
        c.bench_function(format!("modpow {name}, batch of {BATCH}"), |b| b.iter(|| ours.pow_batch(width)));
        let Some(keys) = ours.keys(width) else { continue };
        c.throughput(Throughput::Elements(PIECES as u64));
        c.bench_function(format!("re-key {name}, batch of {PIECES}"), |b| b.iter(|| keys.rekeys()));
        c.bench_function(format!("license entry {name}, batch of {PIECES}"), |b| {
            b.iter(|| keys.license_entries());
        });
    }
    let mut blocks = problem.blocks.clone();
    c.throughput(Throughput::Bytes(blocks.len() as u64));
    c.bench_function("mul_blocks", |b| b.iter(|| ours.mul_blocks(black_box(&mut blocks))));
}

criterion_group!(benches, every_backend);
criterion_main!(benches);
