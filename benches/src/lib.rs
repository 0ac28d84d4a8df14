//! Benchmarks of Swarmseal: `cargo bench -p swarmseal-bench`, and the programs under `src/bin/`. Nothing is published from
//! here.
//!
//! The programs share this library: a [`problem::Problem`] is what everybody is given, [`ours::Ours`] solves it with one
//! backend, each of [`rivals`] with another library, and [`timing`] runs them in turns. [`load`] asks a tracker.

pub mod bars;
pub mod calibration;
pub mod chart;
pub mod emulator;
pub mod figure5;
pub mod load;
pub mod ours;
pub mod problem;
pub mod process;
pub mod programs;
pub mod report;
pub mod rivals;
pub mod secrets;
pub mod timing;
pub mod valgrind;
pub mod welch;
