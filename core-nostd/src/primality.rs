//! Primality of public numbers.

use crypto_bigint::Word;

use crate::exponent::Exponent;
use crate::fixed_base::BATCH;
use crate::kdf::Kdf;
use crate::kernels::{Kernels, Power, TwoPower};
use crate::modulus::Modulus;
use crate::number::{LIMBS, Number, WORD_BYTES, ZERO, bit_length_vartime, sbb};

const ROUNDS: usize = 64;

/// Miller–Rabin with 64 bases, each drawn by BLAKE3 from the number itself: whoever made the number could not
/// choose it to suit the bases without breaking the hash. A composite passes with probability below 4^−64.
pub(crate) fn is_probable_prime_vartime(kernels: &Kernels, candidate: &Modulus) -> bool {
    pass_base_two_vartime(kernels, &[candidate])[0]
        && (1..ROUNDS).step_by(BATCH).all(|first| {
            let rounds = BATCH.min(ROUNDS - first);
            passes_rounds_vartime(kernels, candidate, first, rounds)
        })
}

/// The round with base 2, the cheapest, for each of at most [`BATCH`] candidates of one length. The entries beyond the
/// candidates are false.
pub(crate) fn pass_base_two_vartime(kernels: &Kernels, candidates: &[&Modulus]) -> [bool; BATCH] {
    let mut passed = [false; BATCH];
    let Some(n) = candidates.first().map(|candidate| candidate.len()) else { return passed };
    let exponents: [(Exponent, usize); BATCH] =
        core::array::from_fn(|i| odd_part(candidates.get(i).unwrap_or(&candidates[0])));
    let powers: [TwoPower<'_>; BATCH] = core::array::from_fn(|i| TwoPower {
        modulus: candidates.get(i).unwrap_or(&candidates[0]),
        exponent: &exponents[i].0,
    });
    let mut words = [0; BATCH * LIMBS];
    let words = &mut words[..candidates.len() * n];
    (kernels.two_pow_batch_vartime)(&powers[..candidates.len()], words);
    for (i, (candidate, power)) in candidates.iter().zip(words.chunks_exact(n)).enumerate() {
        passed[i] = ends_well(kernels, candidate, power, exponents[i].1);
    }
    passed
}

/// At most [`BATCH`] rounds from number `first` on.
fn passes_rounds_vartime(kernels: &Kernels, candidate: &Modulus, first: usize, rounds: usize) -> bool {
    let n = candidate.len();
    let (d, s) = odd_part(candidate);
    let bases: [Number; BATCH] =
        core::array::from_fn(|i| mont(kernels, candidate, &base_of(candidate, (first + i) as u64)));
    let powers: [Power<'_>; BATCH] =
        core::array::from_fn(|i| Power { modulus: candidate, base: &bases[i][..n], exponent: &d });
    let mut words = [0; BATCH * LIMBS];
    let words = &mut words[..rounds * n];
    (kernels.modpow_batch)(&powers[..rounds], words);
    words.chunks_exact(n).all(|power| ends_well(kernels, candidate, power, s))
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
fn ends_well(kernels: &Kernels, m: &Modulus, power: &[Word], s: usize) -> bool {
    let n = m.len();
    let mut x = ZERO;
    x[..n].copy_from_slice(power);
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

/// The base of a round after the first, of the modulus' width.
fn base_of(m: &Modulus, round: u64) -> Number {
    let mut base = ZERO;
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
