//! Arithmetic backends for `swarmseal-core`, chosen by what the CPU offers.
//!
//! [`detect`] is what a program calls once; [`each`] lists every backend that this CPU can run, so that tests and benches
//! can force one. A backend can only be obtained from here: safe code cannot come by one that the CPU cannot run.
//!
//! This crate alone may be `unsafe`, for assembly and vector instructions. Every block says why it is sound, and every
//! kernel's module says why its numbers fit.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
mod adx;
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_pointer_width = "64"))]
mod limbs;
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
mod x86_64;

use swarmseal_core::Kernels;

/// The fastest backend for this CPU.
pub fn detect() -> &'static Kernels {
    Kernels::portable()
}

/// Every backend that this CPU can run, the slowest first.
pub fn each() -> impl Iterator<Item = &'static Kernels> {
    let backends = core::iter::once(Kernels::portable());
    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
    let backends = backends.chain(x86_64::each());
    backends
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
        assert!(each().any(|kernels| core::ptr::eq(kernels, detect())));
        assert!(core::ptr::eq(by_name("portable").unwrap(), Kernels::portable()));
        assert!(by_name("none such").is_none());
    }
}
