//! Benchmarks of Swarmseal, under `benches/`: `cargo bench -p swarmseal-bench`. Nothing is published from here.
