//! One lane in plain Rust: the lane kernels' control flow where no vector unit is needed, at any limb width.

use super::{Lanes, MAX_LANES, compiled_products};

/// The scalar instance in the form of the IFMA kernels. Its combs keep a limb a word.
#[cfg(target_pointer_width = "64")]
pub(crate) mod halves {
    use super::Scalar;
    use crate::lanes::lane_backend;

    lane_backend!("lanes-52", , 0, {
        1024: Scalar<52, true>, 20, 5, 10;
        1536: Scalar<52, true>, 30, 5, 10;
        2048: Scalar<52, true>, 40, 5, 10;
        3072: Scalar<52, true>, 60, 5, 10;
        4096: Scalar<52, true>, 80, 5, 10;
    });
}

/// The scalar instance in the form of the AVX2, SSE2 and NEON kernels.
pub(crate) mod whole {
    use super::Scalar;
    use crate::lanes::lane_backend;

    lane_backend!("lanes-28", , 0, {
        1024: Scalar<28, false>, 40, 4, 12;
        1536: Scalar<28, false>, 56, 4, 12;
        2048: Scalar<28, false>, 76, 4, 12;
        3072: Scalar<28, false>, 112, 4, 12;
        4096: Scalar<28, false>, 148, 4, 12;
    });
}

/// A `u64` as a vector of one lane: limbs of `BITS` bits, products whole or `SPLIT` in halves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar<const BITS: u32, const SPLIT: bool>(u64);

impl<const WIDTH: u32, const HALVES: bool> Lanes for Scalar<WIDTH, HALVES> {
    const LANES: usize = 1;
    const BITS: u32 = WIDTH;
    const SPLIT: bool = HALVES;
    /// All ones or zero.
    type Mask = u64;
    type Limb = u64;

    compiled_products!();

    #[inline(always)]
    fn splat(value: u64) -> Self {
        Scalar(value)
    }

    #[inline(always)]
    fn limb_of(value: u64) -> u64 {
        value
    }

    #[inline(always)]
    fn broadcast(limb: u64) -> Self {
        Scalar(limb)
    }

    #[inline(always)]
    fn read(values: &[u64; MAX_LANES]) -> Self {
        Scalar(values[0])
    }

    #[inline(always)]
    fn write(self, values: &mut [u64; MAX_LANES]) {
        values[0] = self.0;
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Scalar(self.0.wrapping_add(b.0))
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Scalar(self.0.wrapping_sub(b.0))
    }

    #[inline(always)]
    fn and(self, b: Self) -> Self {
        Scalar(self.0 & b.0)
    }

    #[inline(always)]
    fn or(self, b: Self) -> Self {
        Scalar(self.0 | b.0)
    }

    #[inline(always)]
    fn shr(self, count: u32) -> Self {
        Scalar(self.0 >> count)
    }

    #[inline(always)]
    fn shl(self, count: u32) -> Self {
        Scalar(self.0 << count)
    }

    #[inline(always)]
    fn equals(self, b: Self) -> u64 {
        let difference = self.0 ^ b.0;
        // The top bit of d | −d is set unless d = 0.
        core::hint::black_box(((difference | difference.wrapping_neg()) >> 63).wrapping_sub(1))
    }

    #[inline(always)]
    fn select(mask: u64, a: Self, b: Self) -> Self {
        Scalar(b.0 ^ (mask & (a.0 ^ b.0)))
    }

    #[inline(always)]
    fn mul_add(low: &mut Self, high: &mut Self, a: Self, b: Self) {
        let limb = (1 << WIDTH) - 1;
        let product = u128::from(a.0 & limb) * u128::from(b.0 & limb);
        if HALVES {
            low.0 += product as u64 & limb;
            high.0 += (product >> WIDTH) as u64;
        } else {
            low.0 += product as u64;
        }
    }

    #[inline(always)]
    fn mul_low(a: Self, b: Self) -> Self {
        Scalar(a.0.wrapping_mul(b.0) & ((1 << WIDTH) - 1))
    }
}
