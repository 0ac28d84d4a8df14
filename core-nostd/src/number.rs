//! Fixed-capacity little-endian multi-word numbers, and the few carry chains that everything needs.
//!
//! A number is `[Word; LIMBS]` with its used length beside it (in the [`Modulus`](crate::Modulus)),
//! so that one binary serves every group without a heap.

use crypto_bigint::{WideWord, Word};
use subtle::{Choice, ConstantTimeEq};

/// Words of the largest modulus, 4,096 bits.
pub const LIMBS: usize = 4096 / Word::BITS as usize;

/// A number of at most 4,096 bits, least significant word first.
pub(crate) type Number = [Word; LIMBS];

/// The number zero.
pub(crate) const ZERO: Number = [0; LIMBS];

/// Bytes in a word.
pub(crate) const WORD_BYTES: usize = Word::BITS as usize / 8;

/// `a + b c + carry`, as (low, high). Cannot overflow: (w−1)² + 2(w−1) = w² − 1.
#[inline(always)]
pub(crate) const fn mac(a: Word, b: Word, c: Word, carry: Word) -> (Word, Word) {
    let wide = (a as WideWord) + (b as WideWord) * (c as WideWord) + (carry as WideWord);
    (wide as Word, (wide >> Word::BITS) as Word)
}

/// `a + b + carry`, as (sum, carry).
#[inline(always)]
pub(crate) const fn adc(a: Word, b: Word, carry: Word) -> (Word, Word) {
    let wide = (a as WideWord) + (b as WideWord) + (carry as WideWord);
    (wide as Word, (wide >> Word::BITS) as Word)
}

/// `a − b − borrow`, as (difference, borrow in {0, 1}).
#[inline(always)]
pub(crate) const fn sbb(a: Word, b: Word, borrow: Word) -> (Word, Word) {
    let wide = (a as WideWord).wrapping_sub((b as WideWord) + (borrow as WideWord));
    (wide as Word, ((wide >> Word::BITS) as Word) & 1)
}

/// All ones for a true choice, zero for a false one.
#[inline(always)]
pub(crate) fn mask(choice: Choice) -> Word {
    Word::from(choice.unwrap_u8()).wrapping_neg()
}

/// `if_set` where `mask` is all ones, `if_clear` where it is zero.
#[inline(always)]
pub(crate) const fn select(mask: Word, if_set: Word, if_clear: Word) -> Word {
    if_clear ^ (mask & (if_set ^ if_clear))
}

/// `a += b`; the carry out.
pub(crate) fn add_assign(a: &mut [Word], b: &[Word]) -> Word {
    let mut carry = 0;
    for (x, &y) in a.iter_mut().zip(b) {
        (*x, carry) = adc(*x, y, carry);
    }
    carry
}

/// The borrow of `a − b`: 1 if a < b. Constant-time.
pub(crate) fn less_than(a: &[Word], b: &[Word]) -> Word {
    let mut borrow = 0;
    for (&x, &y) in a.iter().zip(b) {
        (_, borrow) = sbb(x, y, borrow);
    }
    borrow
}

/// Subtracts `m` from `carry‖a` once if that is at least `m`. Constant-time.
///
/// Bounds: `carry‖a` < 2m before, `a` < m after.
pub(crate) fn subtract_once(a: &mut [Word], carry: Word, m: &[Word]) {
    // The difference is negative exactly if there is a borrow that the carry word does not cover.
    let borrow = less_than(a, m);
    let (_, negative) = sbb(carry, 0, borrow);
    let keep = core::hint::black_box(negative.wrapping_neg());
    let mut borrow = 0;
    for (x, &y) in a.iter_mut().zip(m) {
        (*x, borrow) = sbb(*x, y & !keep, borrow);
    }
}

/// Whether every word is zero. Constant-time.
pub(crate) fn is_zero(a: &[Word]) -> Choice {
    a.iter().fold(0, |acc, &x| acc | x).ct_eq(&0)
}

/// Most entries of a table that [`read_entry`] reads.
const ENTRIES: usize = 64;

/// `out` = entry `index` of a table, entries of `out.len()` words one after the other, reading all of it. Time depends on
/// the table's size alone.
pub(crate) fn read_entry(table: &[Word], index: Word, out: &mut [Word]) {
    /// Words that stay in registers while the entries go by.
    const PART: usize = 8;
    let n = out.len();
    let mut masks = [0; ENTRIES];
    let masks = &mut masks[..table.len() / n];
    let index = core::hint::black_box(index);
    for (i, wanted) in masks.iter_mut().enumerate() {
        // The top bit of d | −d is set unless d = 0.
        let difference = i as Word ^ index;
        *wanted = ((difference | difference.wrapping_neg()) >> (Word::BITS - 1)).wrapping_sub(1);
    }
    let mut parts = out.chunks_exact_mut(PART);
    for (part, out) in (&mut parts).enumerate() {
        let mut picked = [0; PART];
        for (entry, &wanted) in table.chunks_exact(n).zip(&*masks) {
            for (picked, &word) in picked.iter_mut().zip(&entry[part * PART..][..PART]) {
                *picked |= word & wanted;
            }
        }
        out.copy_from_slice(&picked);
    }
    let rest = parts.into_remainder();
    let from = n - rest.len();
    for (i, out) in rest.iter_mut().enumerate() {
        let words = table.chunks_exact(n).zip(&*masks);
        *out = words.fold(0, |picked, (entry, &wanted)| picked | (entry[from + i] & wanted));
    }
}

/// Number of bits in use. Public numbers only: the time depends on the value.
pub(crate) fn bit_length_vartime(a: &[Word]) -> usize {
    a.iter()
        .rposition(|&w| w != 0)
        .map_or(0, |i| (i + 1) * Word::BITS as usize - a[i].leading_zeros() as usize)
}
