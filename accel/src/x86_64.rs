//! What this x86-64 CPU can run.

use core::arch::x86_64::{__cpuid, __cpuid_count};

use swarmseal_core::Kernels;

use crate::adx::Adx;

static ADX: Kernels = Kernels::scalar::<Adx>();

/// The scalar backends that this CPU can run, the slowest first.
pub(crate) fn each() -> impl Iterator<Item = &'static Kernels> {
    has_bmi2_and_adx().then_some(&ADX).into_iter()
}

/// BMI2 and ADX use the general registers alone, so the operating system need not know them.
fn has_bmi2_and_adx() -> bool {
    const BITS: u32 = 1 << 8 | 1 << 19;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx & BITS == BITS
}
