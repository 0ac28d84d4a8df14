//! Exponents: secret numbers whose width is public.

use core::fmt;

use crypto_bigint::Word;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::bytes::number_from_be;
use crate::kdf::Kdf;
use crate::number::{Number, WORD_BYTES, is_zero, mask, select};
use crate::{Group, MAX_BYTES};

/// A secret exponent of a public width. Zeroized on drop; its `Debug` shows the width alone.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Exponent {
    limbs: Number,
    bits: usize,
}

impl Exponent {
    /// From at most 512 big-endian bytes; the width is that of the bytes. Panics beyond 512.
    pub fn from_be(bytes: &[u8]) -> Self {
        Exponent { limbs: number_from_be(bytes), bits: bytes.len() * 8 }
    }

    /// From bytes with the top bit set, as RFC 7919's short exponents.
    pub(crate) fn short(bytes: &mut [u8]) -> Self {
        bytes[0] |= 0x80;
        Self::from_be(bytes)
    }

    /// Uniform in 1 … q−1 from W+16 uniform big-endian bytes, by reduction mod q. Constant-time.
    ///
    /// The distance from uniform is below 2^−127; 0, of probability 1/q, becomes 1.
    pub(crate) fn uniform(group: &Group, wide: &[u8]) -> Self {
        let mut limbs = group.reduce_mod_order(wide);
        let zero = mask(is_zero(&limbs[..group.order().len()]));
        limbs[0] = select(zero, 1, limbs[0]);
        Exponent { limbs, bits: group.bits() - 1 }
    }

    /// From a KDF's output: short, of so many bytes with the top bit set, or uniform in 1 … q−1.
    pub(crate) fn from_kdf(group: &Group, short: Option<usize>, kdf: Kdf) -> Self {
        let mut draw = [0; MAX_WIDE];
        let exponent = match short {
            Some(len) => {
                kdf.fill(&mut draw[..len]);
                Self::short(&mut draw[..len])
            }
            None => {
                let wide = &mut draw[..group.bytes() + 16];
                kdf.fill(wide);
                Self::uniform(group, wide)
            }
        };
        draw.zeroize();
        exponent
    }

    pub(crate) fn from_limbs(limbs: Number, bits: usize) -> Self {
        Exponent { limbs, bits }
    }

    /// Width in bits: public.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// The words, least significant first. Secret.
    pub fn limbs(&self) -> &[Word] {
        &self.limbs
    }

    /// Digit `index` in radix 2^`width`, 0 beyond the words. Bounds: 1 ≤ width < word bits.
    pub fn digit(&self, index: usize, width: usize) -> Word {
        let (word, shift) = (index * width / Word::BITS as usize, index * width % Word::BITS as usize);
        let limb = |i: usize| self.limbs.get(i).copied().unwrap_or(0);
        let above = (limb(word + 1) << 1) << (Word::BITS as usize - 1 - shift);
        ((limb(word) >> shift) | above) & ((1 << width) - 1)
    }

    /// Bit `index`, 0 beyond the width.
    pub fn bit(&self, index: usize) -> Word {
        self.limbs
            .get(index / Word::BITS as usize)
            .map_or(0, |word| (word >> (index % Word::BITS as usize)) & 1)
    }

    /// W big-endian bytes.
    pub(crate) fn to_be(&self, out: &mut [u8]) {
        for (i, byte) in out.iter_mut().rev().enumerate() {
            *byte = (self.limbs[i / WORD_BYTES] >> (8 * (i % WORD_BYTES))) as u8;
        }
    }
}

impl fmt::Debug for Exponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exponent({} bits, secret)", self.bits)
    }
}

/// Exponents in a row, one for each piece of a batch.
pub(crate) trait ExponentList {
    /// How many there are.
    fn count(&self) -> usize;

    /// One of them. Panics beyond the last.
    fn at(&self, index: usize) -> &Exponent;
}

/// Bytes of a wide draw for the largest group: W + 16.
pub(crate) const MAX_WIDE: usize = MAX_BYTES + 16;
