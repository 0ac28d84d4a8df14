//! For the benches alone: what the machine can do at most, kernels by themselves, and leaks to be found.

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

/// Leaks on purpose, one for each thing that memcheck and the lint of the disassembly look for.
///
/// Every slice holds secrets.
pub mod planted {
    use core::hint::black_box;

    use swarmseal_core::{Modulus, Word, kernels::Exponent};

    /// Has all of these in the program that calls it: the lint reads what is compiled, and runs nothing.
    pub fn keep() {
        black_box(branch as fn(&[Word], &mut [Word]));
        black_box(early_return as fn(&[Word]) -> usize);
        black_box(division as fn(&[Word], &mut [Word]) -> Word);
        black_box(index as fn(&[u8], &[u8; 256]) -> u8);
        black_box(spilled as fn(&[Word; 2], &[u8; 256]) -> u8);
        #[cfg(target_arch = "x86_64")]
        black_box(gather as unsafe fn(&[i32; 8], &[i32; 256]) -> i32);
        black_box(length as fn(&Modulus) -> usize);
        black_box(width as fn(&Exponent) -> usize);
        black_box(none as fn(&Modulus, &Exponent, &mut [Word]));
    }

    /// A branch on a secret bit, in a loop as kernels have it.
    #[inline(never)]
    pub fn branch(secrets: &[Word], out: &mut [Word]) {
        for (&secret, out) in secrets.iter().zip(out) {
            if secret & 1 == 1 {
                *out = black_box(secret);
            }
        }
    }

    /// A loop that ends where a secret says.
    #[inline(never)]
    pub fn early_return(secrets: &[Word]) -> usize {
        secrets.iter().take_while(|&&secret| black_box(secret) != 0).count()
    }

    /// A division of a secret.
    #[inline(never)]
    pub fn division(secrets: &[Word], by: &mut [Word]) -> Word {
        secrets.iter().zip(by).fold(0, |sum, (&secret, by)| sum ^ (secret / (*by | 1)))
    }

    /// An entry of a table, by a secret index.
    #[inline(never)]
    pub fn index(secrets: &[u8], table: &[u8; 256]) -> u8 {
        secrets.iter().fold(0, |sum, &secret| sum ^ table[usize::from(secret)])
    }

    /// A secret that lies on the stack for a while, and then is an index.
    #[inline(never)]
    pub fn spilled(secrets: &[Word; 2], table: &[u8; 256]) -> u8 {
        let kept = black_box(secrets[0]) & 0xff;
        black_box(secrets);
        table[kept as usize]
    }

    /// Several entries of a table at once.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    #[inline(never)]
    pub fn gather(secrets: &[i32; 8], table: &[i32; 256]) -> i32 {
        use core::arch::x86_64::*;
        // SAFETY: a vector is as long as eight numbers, and an index is cut to what the table has.
        unsafe {
            let wide = _mm256_loadu_si256(secrets.as_ptr().cast());
            let indices = _mm256_and_si256(wide, _mm256_set1_epi32(255));
            _mm256_extract_epi32::<0>(_mm256_i32gather_epi32::<4>(table.as_ptr(), indices))
        }
    }

    /// Where the lint finds a modulus's length, which is public...
    #[inline(never)]
    pub fn length(m: &Modulus) -> usize {
        m.len()
    }

    /// ...and an exponent's width.
    #[inline(never)]
    pub fn width(exponent: &Exponent) -> usize {
        exponent.bits()
    }

    /// No leak: loops over a public length and a public width, on secrets.
    #[inline(never)]
    pub fn none(m: &Modulus, exponent: &Exponent, out: &mut [Word]) {
        for out in &mut out[..m.len()] {
            for bit in 0..exponent.bits() {
                *out ^= black_box(exponent.bit(bit));
            }
        }
    }
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
