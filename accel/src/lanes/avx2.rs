//! AVX2: four lanes, radix 2^28, whole products of 32-bit halves.

use core::arch::x86_64::*;

use super::{Lanes, MAX_LANES, compiled_products, lane_backend};

lane_backend!("avx2", #[target_feature(enable = "avx2")], 1, {
    1024: Avx2, 40, 4, 12;
    1536: Avx2, 56, 4, 12;
    2048: Avx2, 76, 4, 12;
    3072: Avx2, 112, 4, 12;
    4096: Avx2, 148, 4, 12;
});

/// Four 64-bit lanes of a ymm register. Made and used only below this backend's entry points, which are handed out where
/// the CPU and the operating system have AVX2.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256i);

impl Lanes for Avx2 {
    const LANES: usize = 4;
    const BITS: u32 = 28;
    const SPLIT: bool = false;
    /// All ones or zero.
    type Mask = __m256i;
    type Limb = u32;

    compiled_products!(#[target_feature(enable = "avx2")]);

    #[inline(always)]
    fn splat(value: u64) -> Self {
        // SAFETY: AVX2 is there, see the type.
        unsafe { Avx2(_mm256_set1_epi64x(value as i64)) }
    }

    #[inline(always)]
    fn limb_of(value: u64) -> u32 {
        value as u32
    }

    #[inline(always)]
    fn broadcast(limb: u32) -> Self {
        // SAFETY: AVX2 is there, see the type. A product takes the lower half of each lane alone.
        unsafe { Avx2(_mm256_set1_epi32(limb as i32)) }
    }

    #[inline(always)]
    fn read(values: &[u64; MAX_LANES]) -> Self {
        // SAFETY: AVX2 is there, see the type; the array has the 32 bytes that are read, unaligned.
        unsafe { Avx2(_mm256_loadu_si256(values.as_ptr().cast())) }
    }

    #[inline(always)]
    fn write(self, values: &mut [u64; MAX_LANES]) {
        // SAFETY: AVX2 is there, see the type; the array has the 32 bytes that are written, unaligned.
        unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: AVX2 is there, see the type.
        unsafe { Avx2(_mm256_add_epi64(self.0, b.0)) }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        // SAFETY: AVX2 is there, see the type.
        unsafe { Avx2(_mm256_sub_epi64(self.0, b.0)) }
    }

    #[inline(always)]
    fn and(self, b: Self) -> Self {
        // SAFETY: AVX2 is there, see the type.
        unsafe { Avx2(_mm256_and_si256(self.0, b.0)) }
    }

    #[inline(always)]
    fn or(self, b: Self) -> Self {
        // SAFETY: AVX2 is there, see the type.
        unsafe { Avx2(_mm256_or_si256(self.0, b.0)) }
    }

    #[inline(always)]
    fn shr(self, count: u32) -> Self {
        // SAFETY: AVX2 is there, see the type.
        unsafe { Avx2(_mm256_srl_epi64(self.0, _mm_cvtsi32_si128(count as i32))) }
    }

    #[inline(always)]
    fn shl(self, count: u32) -> Self {
        // SAFETY: AVX2 is there, see the type.
        unsafe { Avx2(_mm256_sll_epi64(self.0, _mm_cvtsi32_si128(count as i32))) }
    }

    #[inline(always)]
    fn equals(self, b: Self) -> __m256i {
        // SAFETY: AVX2 is there, see the type.
        unsafe { _mm256_cmpeq_epi64(self.0, b.0) }
    }

    #[inline(always)]
    fn select(mask: __m256i, a: Self, b: Self) -> Self {
        // SAFETY: AVX2 is there, see the type.
        unsafe { Avx2(_mm256_blendv_epi8(b.0, a.0, mask)) }
    }

    #[inline(always)]
    fn mul_add(low: &mut Self, _: &mut Self, a: Self, b: Self) {
        // SAFETY: AVX2 is there, see the type.
        unsafe { low.0 = _mm256_add_epi64(low.0, _mm256_mul_epu32(a.0, b.0)) }
    }

    #[inline(always)]
    fn mul_low(a: Self, b: Self) -> Self {
        // SAFETY: AVX2 is there, see the type.
        unsafe { Avx2(_mm256_mul_epu32(a.0, b.0)).limb() }
    }

    #[inline(always)]
    fn load_blocks(blocks: &[u8], words: &mut [Self]) {
        let width = words.len() * 8;
        let blocks = &blocks[..4 * width];
        for (i, tile) in words.chunks_exact_mut(4).enumerate() {
            let mut rows = [Self::splat(0); 4];
            for (lane, row) in rows.iter_mut().enumerate() {
                let bytes: &[u8; 32] =
                    blocks[lane * width + 32 * i..].first_chunk().expect("four words of a block");
                // SAFETY: AVX2 is there, see the type; the array has the 32 bytes that are read, unaligned.
                row.0 = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
            }
            tile.copy_from_slice(&transpose(rows));
        }
    }

    #[inline(always)]
    fn store_blocks(words: &[Self], blocks: &mut [u8]) {
        let width = words.len() * 8;
        let blocks = &mut blocks[..4 * width];
        for (i, tile) in words.chunks_exact(4).enumerate() {
            let rows = transpose(*tile.first_chunk().expect("a tile of four"));
            for (lane, row) in rows.iter().enumerate() {
                let bytes: &mut [u8; 32] =
                    blocks[lane * width + 32 * i..].first_chunk_mut().expect("four words of a block");
                // SAFETY: AVX2 is there, see the type; the array has the 32 bytes that are written, unaligned.
                unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), row.0) };
            }
        }
    }
}

/// The transpose of four rows of four words.
#[inline(always)]
fn transpose(r: [Avx2; 4]) -> [Avx2; 4] {
    // SAFETY: AVX2 is there, see the type.
    unsafe {
        // Words of neighbouring rows side by side, in pairs within 128 bits; then the halves of two of those.
        let (a0, a1) = (_mm256_unpacklo_epi64(r[0].0, r[1].0), _mm256_unpackhi_epi64(r[0].0, r[1].0));
        let (a2, a3) = (_mm256_unpacklo_epi64(r[2].0, r[3].0), _mm256_unpackhi_epi64(r[2].0, r[3].0));
        [
            Avx2(_mm256_permute2x128_si256(a0, a2, 0x20)),
            Avx2(_mm256_permute2x128_si256(a1, a3, 0x20)),
            Avx2(_mm256_permute2x128_si256(a0, a2, 0x31)),
            Avx2(_mm256_permute2x128_si256(a1, a3, 0x31)),
        ]
    }
}
