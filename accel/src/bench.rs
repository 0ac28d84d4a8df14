//! For the benches alone: what the machine can do at most, and kernels by themselves.

use swarmseal_core::{Modulus, Word};

/// `count` (or a few more) `vpmadd52` of eight lanes with nothing to wait for: how fast the CPU's ports can go. Returns a
/// number that depends on every one of them; none where the CPU has no AVX-512 IFMA.
pub fn ifma_port_limit(count: usize) -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    if crate::by_name("ifma").is_some() {
        // SAFETY: this backend is there, for which the CPU and the operating system have both features.
        return Some(unsafe { ifma_multiply_adds(count) });
    }
    let _ = count;
    None
}

/// The `ifma` backend's arithmetic of products by a constant, without loading, storing or transposing, over `groups` groups
/// of eight blocks. None where there is no such kernel.
pub fn ifma_arithmetic(m: &Modulus, factor: &[Word], groups: usize) -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    if crate::by_name("ifma").is_some() {
        // SAFETY: this backend is there, for which the CPU and the operating system have both features.
        return unsafe { crate::lanes::ifma::multiply_alone::<crate::mul::Mul>(m, factor, groups) };
    }
    let _ = (m, factor, groups);
    None
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512ifma")]
fn ifma_multiply_adds(count: usize) -> u64 {
    use core::arch::x86_64::*;
    use core::hint::black_box;

    /// Chains that do not wait for one another: more than latency (4) times ports (2) of any CPU yet, and few enough for
    /// all to stay in registers.
    const CHAINS: usize = 16;

    let (a, b) = (_mm512_set1_epi64(black_box(0x000f_edcb_a987_6543)), _mm512_set1_epi64(black_box(3)));
    // The compiler must not see that the chains are equal, or it would make one of them.
    let mut sums = black_box([_mm512_setzero_si512(); CHAINS]);
    for _ in 0..count.div_ceil(CHAINS) {
        for sum in &mut sums {
            *sum = _mm512_madd52lo_epu64(*sum, a, b);
        }
    }
    let sum = sums.into_iter().fold(_mm512_setzero_si512(), |all, sum| _mm512_add_epi64(all, sum));
    _mm512_reduce_add_epi64(sum) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_does_all_of_its_work() {
        let Some(sum) = ifma_port_limit(160) else { return };
        // The low 52 bits of each product, over eight lanes of 160 multiply-adds.
        let low = (0x000f_edcb_a987_6543 * 3) & ((1 << 52) - 1);
        assert_eq!(sum, low * 8 * 160);
    }
}
