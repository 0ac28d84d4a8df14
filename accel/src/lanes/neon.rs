//! NEON: two lanes, radix 2^28, whole products of 32-bit halves.
//!
//! Not chosen by itself: AArch64 cores multiply 64-bit words about as fast as NEON multiplies two pairs of 28-bit limbs, of which
//! there are five times as many. It is here to be measured where that is in doubt.

use core::arch::aarch64::*;

use super::{Lanes, MAX_LANES, compiled_products, lane_backend};

lane_backend!("neon", #[target_feature(enable = "neon")], 1, {
    1024: Neon, 40, 4, 12;
    1536: Neon, 56, 4, 12;
    2048: Neon, 76, 4, 12;
    3072: Neon, 112, 4, 12;
    4096: Neon, 148, 4, 12;
});

/// Two 64-bit lanes of a vector register. NEON is part of every AArch64 target that this crate is built for.
#[derive(Clone, Copy)]
pub(crate) struct Neon(uint64x2_t);

impl Lanes for Neon {
    const LANES: usize = 2;
    const BITS: u32 = 28;
    const SPLIT: bool = false;
    /// All ones or zero.
    type Mask = uint64x2_t;
    type Limb = u32;

    compiled_products!(#[target_feature(enable = "neon")]);

    #[inline(always)]
    fn splat(value: u64) -> Self {
        // SAFETY: NEON is there, see the type.
        unsafe { Neon(vdupq_n_u64(value)) }
    }

    #[inline(always)]
    fn limb_of(value: u64) -> u32 {
        value as u32
    }

    #[inline(always)]
    fn broadcast(limb: u32) -> Self {
        // SAFETY: NEON is there, see the type. A product takes the lower half of each lane alone.
        unsafe { Neon(vreinterpretq_u64_u32(vdupq_n_u32(limb))) }
    }

    #[inline(always)]
    fn read(values: &[u64; MAX_LANES]) -> Self {
        // SAFETY: NEON is there, see the type; the array has the 16 bytes that are read, unaligned.
        unsafe { Neon(vld1q_u64(values.as_ptr())) }
    }

    #[inline(always)]
    fn write(self, values: &mut [u64; MAX_LANES]) {
        // SAFETY: NEON is there, see the type; the array has the 16 bytes that are written, unaligned.
        unsafe { vst1q_u64(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: NEON is there, see the type.
        unsafe { Neon(vaddq_u64(self.0, b.0)) }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        // SAFETY: NEON is there, see the type.
        unsafe { Neon(vsubq_u64(self.0, b.0)) }
    }

    #[inline(always)]
    fn and(self, b: Self) -> Self {
        // SAFETY: NEON is there, see the type.
        unsafe { Neon(vandq_u64(self.0, b.0)) }
    }

    #[inline(always)]
    fn or(self, b: Self) -> Self {
        // SAFETY: NEON is there, see the type.
        unsafe { Neon(vorrq_u64(self.0, b.0)) }
    }

    #[inline(always)]
    fn shr(self, count: u32) -> Self {
        // SAFETY: NEON is there, see the type.
        unsafe { Neon(vshlq_u64(self.0, vdupq_n_s64(-i64::from(count)))) }
    }

    #[inline(always)]
    fn shl(self, count: u32) -> Self {
        // SAFETY: NEON is there, see the type.
        unsafe { Neon(vshlq_u64(self.0, vdupq_n_s64(i64::from(count)))) }
    }

    #[inline(always)]
    fn equals(self, b: Self) -> uint64x2_t {
        // SAFETY: NEON is there, see the type.
        unsafe { vceqq_u64(self.0, b.0) }
    }

    #[inline(always)]
    fn select(mask: uint64x2_t, a: Self, b: Self) -> Self {
        // SAFETY: NEON is there, see the type.
        unsafe { Neon(vbslq_u64(mask, a.0, b.0)) }
    }

    #[inline(always)]
    fn mul_add(low: &mut Self, _: &mut Self, a: Self, b: Self) {
        // SAFETY: NEON is there, see the type.
        unsafe { low.0 = vmlal_u32(low.0, vmovn_u64(a.0), vmovn_u64(b.0)) }
    }

    #[inline(always)]
    fn mul_low(a: Self, b: Self) -> Self {
        // SAFETY: NEON is there, see the type.
        unsafe { Neon(vmull_u32(vmovn_u64(a.0), vmovn_u64(b.0))).limb() }
    }
}
