//! An odd modulus with what Montgomery multiplication needs.

use crypto_bigint::Word;

use crate::number::{Number, ZERO, add_assign, less_than, subtract_once};

/// An odd modulus m of `len` words, R = 2^(word bits · len).
#[derive(Clone)]
pub struct Modulus {
    limbs: Number,
    len: usize,
    neg_inv: Word,
    one: Number,
    r2: Number,
}

impl Modulus {
    /// Prepares an odd `limbs` > 1 whose used length is `len` words. The modulus is public.
    pub(crate) fn new(limbs: Number, len: usize) -> Self {
        assert!((1..=limbs.len()).contains(&len) && limbs[0] & 1 == 1);
        let mut modulus = Modulus { limbs, len, neg_inv: neg_inverse(limbs[0]), one: ZERO, r2: ZERO };
        // 1 doubled once per bit of R gives R mod m, and once more per bit R² mod m.
        let bits = len * Word::BITS as usize;
        let mut power = ZERO;
        power[0] = 1;
        for _ in 0..bits {
            modulus.double(&mut power);
        }
        modulus.one = power;
        for _ in 0..bits {
            modulus.double(&mut power);
        }
        modulus.r2 = power;
        modulus
    }

    /// The modulus, `len` words, least significant first.
    pub fn limbs(&self) -> &[Word] {
        &self.limbs[..self.len]
    }

    /// Number of words.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// −m^−1 mod 2^(word bits).
    pub fn neg_inv(&self) -> Word {
        self.neg_inv
    }

    /// R mod m: the Montgomery form of 1.
    pub fn one(&self) -> &[Word] {
        &self.one[..self.len]
    }

    /// R² mod m: multiplying by it enters Montgomery form.
    pub fn r2(&self) -> &[Word] {
        &self.r2[..self.len]
    }

    /// Whether `a` (of `len` words) is below the modulus. Constant-time: 1 or 0.
    pub(crate) fn exceeds(&self, a: &[Word]) -> Word {
        less_than(&a[..self.len], self.limbs())
    }

    /// `a + b mod m` for a, b < m.
    pub(crate) fn add(&self, a: &mut Number, b: &Number) {
        let carry = add_assign(&mut a[..self.len], &b[..self.len]);
        subtract_once(&mut a[..self.len], carry, self.limbs());
    }

    fn double(&self, a: &mut Number) {
        let copy = *a;
        self.add(a, &copy);
    }
}

/// −m^−1 mod 2^(word bits) for odd m, by Newton's iteration: m is its own inverse mod 8, and each
/// step doubles the number of right bits (Dumas, "On Newton–Raphson iteration for multiplicative
/// inverses modulo prime powers", 2012).
const fn neg_inverse(m: Word) -> Word {
    let mut inverse = m;
    let mut bits = 3;
    while bits < Word::BITS {
        inverse = inverse.wrapping_mul((2 as Word).wrapping_sub(m.wrapping_mul(inverse)));
        bits *= 2;
    }
    inverse.wrapping_neg()
}
