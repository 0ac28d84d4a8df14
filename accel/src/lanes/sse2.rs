//! SSE2: two lanes, radix 2^28, whole products of 32-bit halves. The Pentium 4's way, on i686 and x86_64.

#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use super::{Lanes, MAX_LANES, compiled_products, lane_backend};

lane_backend!("sse2", #[target_feature(enable = "sse2")], 0, {
    1024: Sse2, 40, 4, 4;
    1536: Sse2, 56, 4, 4;
    2048: Sse2, 76, 4, 4;
    3072: Sse2, 112, 4, 4;
    4096: Sse2, 148, 4, 4;
});

/// Two 64-bit lanes of an xmm register. Made and used only below this backend's entry points, which are handed out where
/// the CPU has SSE2.
#[derive(Clone, Copy)]
pub(crate) struct Sse2(__m128i);

impl Lanes for Sse2 {
    const LANES: usize = 2;
    const BITS: u32 = 28;
    const SPLIT: bool = false;
    /// All ones or zero.
    type Mask = __m128i;
    type Limb = u32;

    compiled_products!(#[target_feature(enable = "sse2")]);

    #[inline(always)]
    fn splat(value: u64) -> Self {
        // SAFETY: SSE2 is there, see the type.
        unsafe { Sse2(_mm_set1_epi64x(value as i64)) }
    }

    #[inline(always)]
    fn limb_of(value: u64) -> u32 {
        value as u32
    }

    #[inline(always)]
    fn broadcast(limb: u32) -> Self {
        // SAFETY: SSE2 is there, see the type. A product takes the lower half of each lane alone.
        unsafe { Sse2(_mm_set1_epi32(limb as i32)) }
    }

    #[inline(always)]
    fn read(values: &[u64; MAX_LANES]) -> Self {
        // SAFETY: SSE2 is there, see the type; the array has the 16 bytes that are read, unaligned.
        unsafe { Sse2(_mm_loadu_si128(values.as_ptr().cast())) }
    }

    #[inline(always)]
    fn write(self, values: &mut [u64; MAX_LANES]) {
        // SAFETY: SSE2 is there, see the type; the array has the 16 bytes that are written, unaligned.
        unsafe { _mm_storeu_si128(values.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: SSE2 is there, see the type.
        unsafe { Sse2(_mm_add_epi64(self.0, b.0)) }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        // SAFETY: SSE2 is there, see the type.
        unsafe { Sse2(_mm_sub_epi64(self.0, b.0)) }
    }

    #[inline(always)]
    fn and(self, b: Self) -> Self {
        // SAFETY: SSE2 is there, see the type.
        unsafe { Sse2(_mm_and_si128(self.0, b.0)) }
    }

    #[inline(always)]
    fn or(self, b: Self) -> Self {
        // SAFETY: SSE2 is there, see the type.
        unsafe { Sse2(_mm_or_si128(self.0, b.0)) }
    }

    #[inline(always)]
    fn shr(self, count: u32) -> Self {
        // SAFETY: SSE2 is there, see the type.
        unsafe { Sse2(_mm_srl_epi64(self.0, _mm_cvtsi32_si128(count as i32))) }
    }

    #[inline(always)]
    fn shl(self, count: u32) -> Self {
        // SAFETY: SSE2 is there, see the type.
        unsafe { Sse2(_mm_sll_epi64(self.0, _mm_cvtsi32_si128(count as i32))) }
    }

    #[inline(always)]
    fn equals(self, b: Self) -> __m128i {
        // SAFETY: SSE2 is there, see the type.
        unsafe {
            // There is no 64-bit comparison: both 32-bit halves have to be equal.
            let halves = _mm_cmpeq_epi32(self.0, b.0);
            _mm_and_si128(halves, _mm_shuffle_epi32(halves, 0xb1))
        }
    }

    #[inline(always)]
    fn select(mask: __m128i, a: Self, b: Self) -> Self {
        // SAFETY: SSE2 is there, see the type.
        unsafe { Sse2(_mm_or_si128(_mm_and_si128(mask, a.0), _mm_andnot_si128(mask, b.0))) }
    }

    #[inline(always)]
    fn mul_add(low: &mut Self, _: &mut Self, a: Self, b: Self) {
        // SAFETY: SSE2 is there, see the type.
        unsafe { low.0 = _mm_add_epi64(low.0, _mm_mul_epu32(a.0, b.0)) }
    }

    #[inline(always)]
    fn mul_low(a: Self, b: Self) -> Self {
        // SAFETY: SSE2 is there, see the type.
        unsafe { Sse2(_mm_mul_epu32(a.0, b.0)).limb() }
    }
}
