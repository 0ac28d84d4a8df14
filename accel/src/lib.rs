//! Arithmetic backends for `swarmseal-core`, chosen by what the CPU offers.
//!
//! [`detect`] is what a program calls once; [`each`] lists every backend that this CPU can run, so that tests and benches
//! can force one. A backend can only be obtained from here: safe code cannot come by one that the CPU cannot run.
//!
//! | name | what it needs | how it works |
//! |---|---|---|
//! | `portable` | nothing | the core's own: plain Rust |
//! | `mul` | x86-64 | one number, by columns |
//! | `sse2` | SSE2; 32-bit x86 too | two numbers at once, radix 2^28 |
//! | `adx` | MULX, ADCX and ADOX | one number, two carry chains |
//! | `avx2` | AVX2 | four numbers at once, radix 2^28 |
//! | `ifma` | AVX-512 F and IFMA | eight numbers at once, radix 2^52 |
//! | `umulh` | AArch64 | one number, a row's block in registers |
//! | `neon` | AArch64 | two numbers at once, radix 2^28 |
//! | `umaal` | 32-bit ARM with UMAAL: ARMv6 and later, Cortex-M4 | one number, four rows at once |
//!
//! A backend with lanes has its single operations from the best scalar one of the same machine.
//!
//! This crate alone may be `unsafe`, for assembly and vector instructions. Every block says why it is sound, and every
//! kernel's module says why its numbers fit.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
mod adx;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_pointer_width = "64"))]
mod fixed;
#[allow(clippy::needless_range_loop)] // Rows, columns and limbs go by number, as the formulas have them.
mod lanes;
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_pointer_width = "64"))]
mod limbs;
mod list;
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
mod mul;
#[cfg(umaal)]
mod umaal;
#[cfg(target_arch = "aarch64")]
mod umulh;

use swarmseal_core::Kernels;
use swarmseal_core::kernels::Portable;

pub use list::Candidate;

// The guide for integrators: its Rust runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../../INTEGRATING.md")]
mod guide {}

/// The fastest backend for this CPU.
pub fn detect() -> &'static Kernels {
    each().last().unwrap_or(Kernels::portable())
}

/// Every backend that this CPU can run, the slowest first.
pub fn each() -> impl Iterator<Item = &'static Kernels> {
    candidates().filter_map(|candidate| candidate.kernels())
}

/// The backend of that name, if this CPU can run it.
pub fn by_name(name: &str) -> Option<&'static Kernels> {
    each().find(|kernels| kernels.name == name)
}

/// Every backend of this build's architecture, with what it needs of the CPU.
pub fn candidates() -> impl Iterator<Item = Candidate> {
    list::CANDIDATES.iter().copied()
}

/// The lane kernels on one lane of plain Rust: any CPU and any checker of memory or branches can run them. Slow.
pub fn models() -> impl Iterator<Item = &'static Kernels> {
    [
        #[cfg(target_pointer_width = "64")]
        const {
            &lanes::scalar::halves::kernels::<Portable>()
        },
        const { &lanes::scalar::whole::kernels::<Portable>() },
    ]
    .into_iter()
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

    #[test]
    fn candidates_have_the_names_of_their_kernels() {
        for candidate in candidates() {
            if let Some(kernels) = candidate.kernels() {
                assert_eq!(kernels.name, candidate.name);
            }
        }
    }
}
