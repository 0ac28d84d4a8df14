//! Primality of public numbers.

use crypto_bigint::Word;

use crate::exponent::Exponent;
use crate::fixed_base::BATCH;
use crate::kdf::Kdf;
use crate::kernels::{Kernels, Power};
use crate::modulus::Modulus;
use crate::number::{LIMBS, Number, WORD_BYTES, ZERO, bit_length_vartime, sbb};

const ROUNDS: usize = 64;

/// Miller–Rabin with 64 bases, each drawn by BLAKE3 from the number itself: whoever made the number could not
/// choose it to suit the bases without breaking the hash. A composite passes with probability below 4^−64.
pub(crate) fn is_probable_prime_vartime(kernels: &Kernels, candidate: &Modulus) -> bool {
    let batch = [candidate; BATCH];
    (0..ROUNDS)
        .step_by(BATCH)
        .all(|first| passes_rounds_vartime(kernels, &batch, first, 1).into_iter().all(|passed| passed))
}

/// One round of Miller–Rabin for each of at most [`BATCH`] candidates of one length: candidate i with the base number
/// `first + i step`. The entries beyond the candidates are false.
pub(crate) fn passes_rounds_vartime(
    kernels: &Kernels,
    candidates: &[&Modulus],
    first: usize,
    step: usize,
) -> [bool; BATCH] {
    let Some(n) = candidates.first().map(|candidate| candidate.len()) else { return [false; BATCH] };
    let mut bases = [ZERO; BATCH];
    let exponents: [(Exponent, usize); BATCH] = core::array::from_fn(|i| match candidates.get(i) {
        Some(candidate) => {
            bases[i] = mont(kernels, candidate, &base_of(candidate, (first + i * step) as u64));
            odd_part(candidate)
        }
        None => (Exponent::from_be(&[]), 0),
    });
    let powers: [Power<'_>; BATCH] = core::array::from_fn(|i| Power {
        modulus: candidates.get(i).unwrap_or(&candidates[0]),
        base: &bases[i][..n],
        exponent: &exponents[i].0,
    });
    let mut words = [0; BATCH * LIMBS];
    let words = &mut words[..candidates.len() * n];
    (kernels.modpow_batch)(&powers[..candidates.len()], words);
    let mut passed = [false; BATCH];
    for (i, (candidate, power)) in candidates.iter().zip(words.chunks_exact(n)).enumerate() {
        let mut x = ZERO;
        x[..n].copy_from_slice(power);
        passed[i] = ends_well(kernels, candidate, x, exponents[i].1);
    }
    passed
}

/// (d, s) of m − 1 = 2^s d.
fn odd_part(m: &Modulus) -> (Exponent, usize) {
    let n = m.len();
    // The low limb of m is odd, so m − 1 only clears bit 0.
    let mut even = ZERO;
    even[..n].copy_from_slice(m.limbs());
    even[0] &= !1;
    let s = trailing_zeros(&even[..n]);
    let bits = bit_length_vartime(&even[..n]) - s;
    (Exponent::from_limbs(shift_right(&even, s), bits), s)
}

/// Whether x = a^d is 1, or is −1 after fewer than s squarings.
fn ends_well(kernels: &Kernels, m: &Modulus, mut x: Number, s: usize) -> bool {
    let n = m.len();
    let minus_one = negative_one(m);
    if x[..n] == *m.one() || x == minus_one {
        return true;
    }
    for _ in 1..s {
        let root = x;
        (kernels.mont_sqr)(m, &root[..n], &mut x[..n]);
        if x == minus_one {
            return true;
        }
    }
    false
}

/// m − 1 in Montgomery form: m − (R mod m).
fn negative_one(m: &Modulus) -> Number {
    let mut out = ZERO;
    let mut borrow = 0;
    for (o, (&p, &r)) in out.iter_mut().zip(m.limbs().iter().zip(m.one())) {
        (*o, borrow) = sbb(p, r, borrow);
    }
    out
}

fn mont(kernels: &Kernels, m: &Modulus, a: &Number) -> Number {
    let mut out = ZERO;
    (kernels.mont_mul)(m, &a[..m.len()], m.r2(), &mut out[..m.len()]);
    out
}

/// A base of the modulus' width; the first is 2, which is the cheapest to understand in a trace.
fn base_of(m: &Modulus, round: u64) -> Number {
    let mut base = ZERO;
    if round == 0 {
        base[0] = 2;
        return base;
    }
    let mut kdf = Kdf::new("swarmseal v1 miller rabin base").number(round);
    for limb in m.limbs() {
        kdf = kdf.field(&limb.to_le_bytes());
    }
    let mut reader = kdf.reader();
    for limb in &mut base[..m.len()] {
        let mut bytes = [0; WORD_BYTES];
        reader.fill(&mut bytes);
        *limb = Word::from_le_bytes(bytes);
    }
    base
}

fn trailing_zeros(a: &[Word]) -> usize {
    a.iter().position(|&w| w != 0).map_or(0, |i| i * Word::BITS as usize + a[i].trailing_zeros() as usize)
}

fn shift_right(a: &Number, bits: usize) -> Number {
    let (words, bits) = (bits / Word::BITS as usize, (bits % Word::BITS as usize) as u32);
    let mut out = ZERO;
    for i in 0..a.len() - words {
        let above = a.get(i + words + 1).copied().unwrap_or(0);
        out[i] =
            if bits == 0 { a[i + words] } else { (a[i + words] >> bits) | (above << (Word::BITS - bits)) };
    }
    out
}
