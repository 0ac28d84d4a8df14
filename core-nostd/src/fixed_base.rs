//! Exponentiation of one base by many exponents, with tables that the caller lends.

use core::array::from_fn;
use core::fmt;

use crypto_bigint::Word;
use zeroize::Zeroize;

use crate::element::Element;
use crate::exponent::ExponentList;
use crate::kernels::Comb;
use crate::number::LIMBS;
use crate::{Error, Group, Params};

/// Powers that one call of a kernel computes: what the widest backend has lanes for.
pub(crate) const BATCH: usize = 8;

/// A filled table of powers of one base, in the layout of the group's backend: it is worth keeping in memory, not on
/// disk.
#[derive(Clone)]
pub struct FixedBase<'t> {
    table: &'t [Word],
    bits: usize,
}

impl<'t> FixedBase<'t> {
    /// Words of a table for tracker-site keys of these parameters.
    pub fn words(params: &Params) -> usize {
        let group = params.group();
        (group.kernels().comb_words)(group.modulus(), exponent_bits(params))
    }

    /// Fills a table. Errors: [`Error::BadLength`], in words, where the buffer is not [`FixedBase::words`] long.
    pub(crate) fn new(params: &Params, base: &Element, words: &'t mut [Word]) -> Result<Self, Error> {
        check_len(params, words.len())?;
        let group = params.group();
        let bits = exponent_bits(params);
        (group.kernels().comb_fill)(group.modulus(), &base.words()[..group.modulus().len()], bits, words);
        Ok(FixedBase { table: words, bits })
    }

    /// A table that was filled earlier. Errors: [`Error::BadLength`], in words.
    pub(crate) fn from_words(params: &Params, words: &'t [Word]) -> Result<Self, Error> {
        check_len(params, words.len())?;
        Ok(FixedBase { table: words, bits: exponent_bits(params) })
    }

    /// `each(i, ∏ base_t^(keys_t[i]))` over the terms t, for every i. Time depends on the widths and counts alone.
    pub(crate) fn pow_batch<const TERMS: usize>(
        group: &Group,
        terms: [(&FixedBase<'_>, &dyn ExponentList); TERMS],
        mut each: impl FnMut(usize, Element),
    ) {
        let n = group.modulus().len();
        let (bits, count) = (terms[0].0.bits, terms[0].1.count());
        assert!(terms.iter().all(|(base, keys)| base.bits == bits && keys.count() == count));
        let mut words = [0; BATCH * LIMBS];
        for start in (0..count).step_by(BATCH) {
            let len = BATCH.min(count - start);
            let exponents =
                terms.map(|(_, keys)| from_fn::<_, BATCH, _>(|i| keys.at(start + i.min(len - 1))));
            let combs: [_; TERMS] =
                from_fn(|t| Comb { table: terms[t].0.table, exponents: &exponents[t][..len] });
            let words = &mut words[..len * n];
            (group.kernels().comb_pow)(group.modulus(), bits, &combs, words);
            for (i, words) in words.chunks_exact(n).enumerate() {
                each(start + i, Element::from_words(words));
            }
        }
        words.zeroize();
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
