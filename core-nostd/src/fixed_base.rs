//! Exponentiation of one base by many exponents: Lim and Lee, "More flexible exponentiation with precomputation", 1994.

use core::fmt;

use crypto_bigint::Word;
use zeroize::Zeroize;

use crate::element::Element;
use crate::exponent::Exponent;
use crate::number::{ZERO, read_entry};
use crate::{Error, Group, Params};

/// Rows that a digit gathers a bit from.
const H: usize = 5;
/// Tables, each of 2^H entries.
const V: usize = 4;

/// A filled table of powers of one base.
///
/// The exponent's bits are written in H rows of a = ⌈bits/H⌉ and each row in V blocks of b = ⌈a/V⌉. Entry d of table v is
/// ∏ base^{2^(h a + v b)} over the bits h of d; digit 0 selects the stored 1. One exponentiation is b−1 squarings and V b
/// multiplications: 12 and 52 for 256 bits. Each entry is read by a scan of its whole table.
#[derive(Clone)]
pub struct FixedBase<'t> {
    /// V tables of 2^H entries of `len` words.
    table: &'t [Word],
    bits: usize,
}

impl<'t> FixedBase<'t> {
    /// Words of a table for tracker-site keys of these parameters.
    pub fn words(params: &Params) -> usize {
        V * (1 << H) * params.group().modulus().len()
    }

    /// Fills a table. Errors: [`Error::BadLength`], in words, where the buffer is not [`FixedBase::words`] long.
    pub(crate) fn new(params: &Params, base: &Element, words: &'t mut [Word]) -> Result<Self, Error> {
        check_len(params, words.len())?;
        let group = params.group();
        let n = group.modulus().len();
        let bits = exponent_bits(params);
        let (a, b) = shape(bits);
        for table in words.chunks_exact_mut((1 << H) * n) {
            table[..n].copy_from_slice(group.modulus().one());
        }
        let mut power = base.clone();
        let mut exponent = 0;
        for h in 0..H {
            for (v, table) in words.chunks_exact_mut((1 << H) * n).enumerate() {
                // base^{2^(h a + v b)}; the positions rise, but for a last block that would begin beyond its row.
                let wanted = h * a + v * b;
                for _ in exponent..wanted {
                    power = group.mul(&power, &power);
                }
                exponent = wanted.max(exponent);
                let (done, rest) = table.split_at_mut(n << h);
                for (entry, low) in rest.chunks_exact_mut(n).zip(done.chunks_exact(n)) {
                    (group.kernels().mont_mul)(group.modulus(), low, &power.words()[..n], entry);
                }
            }
        }
        Ok(FixedBase { table: words, bits })
    }

    /// A table that was filled earlier. Errors: [`Error::BadLength`], in words.
    pub(crate) fn from_words(params: &Params, words: &'t [Word]) -> Result<Self, Error> {
        check_len(params, words.len())?;
        Ok(FixedBase { table: words, bits: exponent_bits(params) })
    }

    /// base^exponent. Time depends on the widths alone.
    pub(crate) fn pow(&self, group: &Group, exponent: &Exponent) -> Element {
        assert!(exponent.bits() <= self.bits);
        let m = group.modulus();
        let n = m.len();
        let mont_mul = group.kernels().mont_mul;
        let (a, b) = shape(self.bits);
        let mut acc = ZERO;
        acc[..n].copy_from_slice(m.one());
        let mut factor = ZERO;
        let mut product = ZERO;
        for column in (0..b).rev() {
            if column + 1 != b {
                mont_mul(m, &acc[..n], &acc[..n], &mut product[..n]);
                core::mem::swap(&mut acc, &mut product);
            }
            for (v, table) in self.table.chunks_exact((1 << H) * n).enumerate() {
                let position = v * b + column;
                // Beyond a row's end its bits belong to the next row: they are masked off, by public positions.
                let digit = if position < a {
                    (0..H).fold(0, |digit, h| digit | (exponent.bit(h * a + position) << h))
                } else {
                    0
                };
                read_entry(table.chunks_exact(n), digit, &mut factor[..n]);
                mont_mul(m, &acc[..n], &factor[..n], &mut product[..n]);
                core::mem::swap(&mut acc, &mut product);
            }
        }
        factor.zeroize();
        product.zeroize();
        Element(acc)
    }
}

impl fmt::Debug for FixedBase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FixedBase({} bits)", self.bits)
    }
}

fn check_len(params: &Params, found: usize) -> Result<(), Error> {
    let expected = FixedBase::words(params);
    if found == expected { Ok(()) } else { Err(Error::BadLength { expected, found }) }
}

fn exponent_bits(params: &Params) -> usize {
    params.short_ts_bytes().map_or(params.group().bits() - 1, |bytes| bytes * 8)
}

/// (a, b): bits in a row, and in a block of it.
const fn shape(bits: usize) -> (usize, usize) {
    let a = bits.div_ceil(H);
    (a, a.div_ceil(V))
}
