//! Primality of public numbers.

use crypto_bigint::Word;

use crate::exponent::Exponent;
use crate::kdf::Kdf;
use crate::kernels::Kernels;
use crate::modulus::Modulus;
use crate::number::{Number, WORD_BYTES, ZERO, bit_length_vartime, sbb};

const ROUNDS: u64 = 64;

/// Miller–Rabin with 64 bases, each drawn by BLAKE3 from the number itself: whoever made the number could not
/// choose it to suit the bases without breaking the hash. A composite passes with probability below 4^−64.
pub(crate) fn is_probable_prime_vartime(kernels: &Kernels, candidate: &Modulus) -> bool {
    (0..ROUNDS).all(|round| passes_round_vartime(kernels, candidate, round))
}

/// One round of Miller–Rabin with the base of that number.
pub(crate) fn passes_round_vartime(kernels: &Kernels, candidate: &Modulus, round: u64) -> bool {
    let n = candidate.len();
    let minus_one = negative_one(candidate);
    // m − 1 = 2^s d; the low limb of m is odd, so m − 1 only clears bit 0.
    let mut even = ZERO;
    even[..n].copy_from_slice(candidate.limbs());
    even[0] &= !1;
    let s = trailing_zeros(&even[..n]);
    let bits = bit_length_vartime(&even[..n]) - s;
    let d = Exponent::from_limbs(shift_right(&even, s), bits);
    let base = base_of(candidate, round);
    let mut x = ZERO;
    (kernels.modpow)(candidate, &mont(kernels, candidate, &base)[..n], &d, &mut x[..n]);
    if x[..n] == *candidate.one() || x == minus_one {
        return true;
    }
    for _ in 1..s {
        let square = x;
        (kernels.mont_mul)(candidate, &square[..n], &square[..n], &mut x[..n]);
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
