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

#[allow(clippy::needless_range_loop)] // Rows, columns and limbs go by number, as the formulas have them.
mod lanes;

use swarmseal_core::Kernels;
use swarmseal_core::kernels::Portable;

// Each asks the CPU once, and the operating system about its registers (XCR0), and remembers the answer.
#[cfg(target_arch = "x86_64")]
cpufeatures::new!(has_ifma, "avx512f", "avx512ifma");
#[cfg(target_arch = "x86_64")]
cpufeatures::new!(has_avx2, "avx2");
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
cpufeatures::new!(has_sse2, "sse2");

/// The fastest backend for this CPU.
pub fn detect() -> &'static Kernels {
    each().last().unwrap_or(Kernels::portable())
}

/// Every backend that this CPU can run, the slowest first.
pub fn each() -> impl Iterator<Item = &'static Kernels> {
    let always = core::iter::once(Kernels::portable());
    #[cfg(target_arch = "x86")]
    let always = always.chain(has_sse2::get().then_some(const { &lanes::sse2::kernels::<Portable>() }));
    #[cfg(target_arch = "x86_64")]
    let always = always
        .chain(has_sse2::get().then_some(const { &lanes::sse2::kernels::<Portable>() }))
        .chain(has_avx2::get().then_some(const { &lanes::avx2::kernels::<Portable>() }))
        .chain(has_ifma::get().then_some(const { &lanes::ifma::kernels::<Portable>() }));
    #[cfg(target_arch = "aarch64")]
    let always = always.chain([const { &lanes::neon::kernels::<Portable>() }]);
    always
}

/// The lane kernels on one lane of plain Rust: any CPU and any checker of memory or branches can run them. Slow.
pub fn models() -> impl Iterator<Item = &'static Kernels> {
    [
        const { &lanes::scalar::halves::kernels::<Portable>() },
        const { &lanes::scalar::whole::kernels::<Portable>() },
    ]
    .into_iter()
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
