//! AVX-512 IFMA: eight lanes, radix 2^52, products in halves.

use core::arch::x86_64::*;

use swarmseal_core::Word;

use super::{Lanes, MAX_LANES, compiled_products, lane_backend};

lane_backend!("ifma", #[target_feature(enable = "avx512f,avx512ifma")], 1, {
    1024: Ifma, 20, 5, 10;
    1536: Ifma, 30, 5, 10;
    2048: Ifma, 40, 5, 10;
    3072: Ifma, 60, 5, 10;
    4096: Ifma, 80, 5, 10;
});

/// The arithmetic of `mul_blocks` alone, over `groups` groups of eight blocks, at the size of `m`.
///
/// # Safety
/// AVX-512 F and IFMA.
#[cfg(feature = "bench")]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(crate) unsafe fn multiply_alone<A: swarmseal_core::kernels::Arithmetic>(
    m: &swarmseal_core::Modulus,
    factor: &[Word],
    groups: usize,
) -> Option<u64> {
    match m.len() * Word::BITS as usize {
        1024 => Some(super::constant::multiply_alone::<Ifma, A, 20, 10, 0>(m, factor, groups)),
        1536 => Some(super::constant::multiply_alone::<Ifma, A, 30, 10, 0>(m, factor, groups)),
        2048 => Some(super::constant::multiply_alone::<Ifma, A, 40, 10, 0>(m, factor, groups)),
        3072 => Some(super::constant::multiply_alone::<Ifma, A, 60, 10, 0>(m, factor, groups)),
        4096 => Some(super::constant::multiply_alone::<Ifma, A, 80, 10, 0>(m, factor, groups)),
        _ => None,
    }
}

/// Eight 64-bit lanes of a zmm register. Made and used only below this backend's entry points, which are handed out where
/// the CPU and the operating system have AVX-512 F and IFMA.
#[derive(Clone, Copy)]
pub(crate) struct Ifma(__m512i);

impl Lanes for Ifma {
    const LANES: usize = 8;
    const BITS: u32 = 52;
    const SPLIT: bool = true;
    /// All ones or zero, not a mask register: a merging masked load waits long for what it merges into.
    type Mask = __m512i;
    type Limb = u64;

    compiled_products!(#[target_feature(enable = "avx512f,avx512ifma")]);

    #[inline(always)]
    fn splat(value: u64) -> Self {
        // SAFETY: AVX-512 F is there, see the type.
        unsafe { Ifma(_mm512_set1_epi64(value as i64)) }
    }

    #[inline(always)]
    fn limb_of(value: u64) -> u64 {
        value
    }

    #[inline(always)]
    fn broadcast(limb: u64) -> Self {
        Self::splat(limb)
    }

    #[inline(always)]
    fn read(values: &[u64; MAX_LANES]) -> Self {
        // SAFETY: AVX-512 F is there, see the type; the array has the 64 bytes that are read, unaligned.
        unsafe { Ifma(_mm512_loadu_si512(values.as_ptr().cast())) }
    }

    #[inline(always)]
    fn write(self, values: &mut [u64; MAX_LANES]) {
        // SAFETY: AVX-512 F is there, see the type; the array has the 64 bytes that are written, unaligned.
        unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: AVX-512 F is there, see the type.
        unsafe { Ifma(_mm512_add_epi64(self.0, b.0)) }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        // SAFETY: AVX-512 F is there, see the type.
        unsafe { Ifma(_mm512_sub_epi64(self.0, b.0)) }
    }

    #[inline(always)]
    fn and(self, b: Self) -> Self {
        // SAFETY: AVX-512 F is there, see the type.
        unsafe { Ifma(_mm512_and_si512(self.0, b.0)) }
    }

    #[inline(always)]
    fn or(self, b: Self) -> Self {
        // SAFETY: AVX-512 F is there, see the type.
        unsafe { Ifma(_mm512_or_si512(self.0, b.0)) }
    }

    #[inline(always)]
    fn shr(self, count: u32) -> Self {
        // SAFETY: AVX-512 F is there, see the type.
        unsafe { Ifma(_mm512_srl_epi64(self.0, _mm_cvtsi32_si128(count as i32))) }
    }

    #[inline(always)]
    fn shl(self, count: u32) -> Self {
        // SAFETY: AVX-512 F is there, see the type.
        unsafe { Ifma(_mm512_sll_epi64(self.0, _mm_cvtsi32_si128(count as i32))) }
    }

    #[inline(always)]
    fn equals(self, b: Self) -> __m512i {
        // SAFETY: AVX-512 F is there, see the type.
        unsafe { _mm512_maskz_set1_epi64(_mm512_cmpeq_epi64_mask(self.0, b.0), -1) }
    }

    #[inline(always)]
    fn select(mask: __m512i, a: Self, b: Self) -> Self {
        // SAFETY: AVX-512 F is there, see the type. 0xca is the truth table of `mask ? a : b`.
        unsafe { Ifma(_mm512_ternarylogic_epi64(mask, a.0, b.0, 0xca)) }
    }

    #[inline(always)]
    fn mul_add(low: &mut Self, high: &mut Self, a: Self, b: Self) {
        // SAFETY: AVX-512 IFMA is there, see the type.
        unsafe {
            low.0 = _mm512_madd52lo_epu64(low.0, a.0, b.0);
            high.0 = _mm512_madd52hi_epu64(high.0, a.0, b.0);
        }
    }

    #[inline(always)]
    fn mul_low(a: Self, b: Self) -> Self {
        // SAFETY: AVX-512 IFMA is there, see the type.
        unsafe { Ifma(_mm512_madd52lo_epu64(_mm512_setzero_si512(), a.0, b.0)) }
    }

    #[inline(always)]
    fn load_blocks(blocks: &[u8], words: &mut [Self]) {
        let width = words.len() * 8;
        let blocks = &blocks[..8 * width];
        let mut tiles = words.chunks_exact_mut(8);
        for (i, tile) in (&mut tiles).enumerate() {
            let mut rows = [Self::splat(0); 8];
            for (lane, row) in rows.iter_mut().enumerate() {
                let bytes: &[u8; 64] =
                    blocks[lane * width + 64 * i..].first_chunk().expect("eight words of a block");
                // SAFETY: AVX-512 F is there, see the type; the array has the 64 bytes that are read, unaligned.
                row.0 = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
            }
            tile.copy_from_slice(&transpose(rows));
        }
        debug_assert!(tiles.into_remainder().is_empty());
    }

    #[inline(always)]
    fn store_blocks(words: &[Self], blocks: &mut [u8]) {
        let width = words.len() * 8;
        let blocks = &mut blocks[..8 * width];
        for (i, tile) in words.chunks_exact(8).enumerate() {
            let rows = transpose(*tile.first_chunk().expect("a tile of eight"));
            for (lane, row) in rows.iter().enumerate() {
                let bytes: &mut [u8; 64] =
                    blocks[lane * width + 64 * i..].first_chunk_mut().expect("eight words of a block");
                // SAFETY: AVX-512 F is there, see the type; the array has the 64 bytes that are written, unaligned.
                unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), row.0) };
            }
        }
    }

    #[inline(always)]
    fn pick(entries: &[Word], index: Self) -> Self {
        // Bit five chooses between two choices among 32.
        let low = pick_of_32(entries, index);
        if entries.len() == 32 {
            return low;
        }
        let high = pick_of_32(&entries[32..], index);
        // SAFETY: AVX-512 F is there, see the type.
        unsafe {
            let upper = _mm512_test_epi64_mask(index.0, _mm512_set1_epi64(32));
            Ifma(_mm512_mask_blend_epi64(upper, low.0, high.0))
        }
    }
}

/// One of the first 32 entries in each lane by the index's low five bits: two permutations choose among 16 each, and bit four
/// between them.
#[inline(always)]
fn pick_of_32(entries: &[Word], index: Ifma) -> Ifma {
    let (a, b, c, d) = (eight(entries), eight(&entries[8..]), eight(&entries[16..]), eight(&entries[24..]));
    // SAFETY: AVX-512 F is there, see the type.
    unsafe {
        let low = _mm512_permutex2var_epi64(a.0, index.0, b.0);
        let high = _mm512_permutex2var_epi64(c.0, index.0, d.0);
        let upper = _mm512_test_epi64_mask(index.0, _mm512_set1_epi64(16));
        Ifma(_mm512_mask_blend_epi64(upper, low, high))
    }
}

/// The first eight of a table's entries.
#[inline(always)]
fn eight(entries: &[Word]) -> Ifma {
    Ifma::read(entries.first_chunk().expect("tables have 32 or 64 entries"))
}

/// The transpose of eight rows of eight words.
#[inline(always)]
fn transpose(r: [Ifma; 8]) -> [Ifma; 8] {
    // SAFETY: AVX-512 F is there, see the type.
    unsafe {
        // Words of neighbouring rows side by side, in pairs within 128 bits...
        let (a0, a1) = (_mm512_unpacklo_epi64(r[0].0, r[1].0), _mm512_unpackhi_epi64(r[0].0, r[1].0));
        let (a2, a3) = (_mm512_unpacklo_epi64(r[2].0, r[3].0), _mm512_unpackhi_epi64(r[2].0, r[3].0));
        let (a4, a5) = (_mm512_unpacklo_epi64(r[4].0, r[5].0), _mm512_unpackhi_epi64(r[4].0, r[5].0));
        let (a6, a7) = (_mm512_unpacklo_epi64(r[6].0, r[7].0), _mm512_unpackhi_epi64(r[6].0, r[7].0));
        // ...then 128-bit parts 0 and 2 or 1 and 3 of two of those, twice.
        let (b0, b1) = (_mm512_shuffle_i64x2(a0, a2, 0x88), _mm512_shuffle_i64x2(a1, a3, 0x88));
        let (b2, b3) = (_mm512_shuffle_i64x2(a0, a2, 0xdd), _mm512_shuffle_i64x2(a1, a3, 0xdd));
        let (b4, b5) = (_mm512_shuffle_i64x2(a4, a6, 0x88), _mm512_shuffle_i64x2(a5, a7, 0x88));
        let (b6, b7) = (_mm512_shuffle_i64x2(a4, a6, 0xdd), _mm512_shuffle_i64x2(a5, a7, 0xdd));
        [
            Ifma(_mm512_shuffle_i64x2(b0, b4, 0x88)),
            Ifma(_mm512_shuffle_i64x2(b1, b5, 0x88)),
            Ifma(_mm512_shuffle_i64x2(b2, b6, 0x88)),
            Ifma(_mm512_shuffle_i64x2(b3, b7, 0x88)),
            Ifma(_mm512_shuffle_i64x2(b0, b4, 0xdd)),
            Ifma(_mm512_shuffle_i64x2(b1, b5, 0xdd)),
            Ifma(_mm512_shuffle_i64x2(b2, b6, 0xdd)),
            Ifma(_mm512_shuffle_i64x2(b3, b7, 0xdd)),
        ]
    }
}
