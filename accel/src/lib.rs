//! Arithmetic backends for `swarmseal-core`, chosen by what the CPU offers.
//!
//! [`detect`] is what a program calls once; [`each`] lists every backend that this CPU can run, so that tests and benches
//! can force one. A backend can only be obtained from here: safe code cannot come by one that the CPU cannot run.
//!
//! | name | what it needs | |
//! |---|---|---|
//! | `portable` | nothing | the core's own: plain Rust |
//! | `ifma` | AVX-512 F and IFMA | eight numbers at once, radix 2^52 |
#![no_std]

mod lanes;

use swarmseal_core::Kernels;

#[cfg(target_arch = "x86_64")]
cpufeatures::new!(has_ifma, "avx512f", "avx512ifma");

/// The fastest backend for this CPU.
pub fn detect() -> &'static Kernels {
    each().last().unwrap_or(Kernels::portable())
}

/// Every backend that this CPU can run, the slowest first.
pub fn each() -> impl Iterator<Item = &'static Kernels> {
    core::iter::once(Kernels::portable()).chain(has_ifma::get().then_some(&lanes::ifma::KERNELS))
}

/// The backend of that name, if this CPU can run it.
pub fn by_name(name: &str) -> Option<&'static Kernels> {
    each().find(|kernels| kernels.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detected_backend_is_among_those_that_run() {
        assert!(each().any(|kernels| kernels.name == detect().name));
        assert_eq!(by_name("portable").unwrap().name, "portable");
        assert!(by_name("none such").is_none());
    }
}
