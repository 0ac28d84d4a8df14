//! An odd modulus with what Montgomery multiplication needs.

use crypto_bigint::Word;

use crate::Error;
use crate::kernels::{Arithmetic, Portable};
use crate::number::{LIMBS, Number, ZERO, add_assign, bit_length_vartime, less_than, mac, subtract_once};

/// Words of 128 bits: room for the lane kernels' R, which is larger than the words'.
const EXTRA: usize = 128 / Word::BITS as usize;

/// An odd modulus m of `len` words, R = 2^(word bits · len).
#[derive(Clone)]
pub struct Modulus {
    limbs: Number,
    len: usize,
    neg_inv: [Word; LIMBS + EXTRA],
    one: Number,
    r2: Number,
}

impl Modulus {
    /// Any odd modulus > 1 of 64 to 4,096 bits in steps of 64, least significant word first, for kernels by themselves: a
    /// [`Group`](crate::Group) makes its own. Errors: [`Error::BadGroup`].
    pub fn from_words(words: &[Word]) -> Result<Self, Error> {
        let whole = !words.is_empty() && words.len().is_multiple_of(EXTRA / 2) && words.len() <= LIMBS;
        if !whole || words[0] & 1 == 0 || bit_length_vartime(words) < 2 {
            return Err(Error::BadGroup);
        }
        let mut limbs = ZERO;
        limbs[..words.len()].copy_from_slice(words);
        Ok(Self::new(limbs, words.len()))
    }

    /// Prepares an odd `limbs` > 1 whose used length is `len` words. The modulus is public.
    pub(crate) fn new(limbs: Number, len: usize) -> Self {
        assert!((1..=limbs.len()).contains(&len) && limbs[0] & 1 == 1);
        let neg_inv = neg_inverse_words(&limbs[..len]);
        let mut modulus = Modulus { limbs, len, neg_inv, one: ZERO, r2: ZERO };
        // The highest power of two below m, doubled until it is R mod m.
        let below = bit_length_vartime(&limbs) - 1;
        let mut power = ZERO;
        power[below / Word::BITS as usize] = 1 << (below % Word::BITS as usize);
        for _ in below..len * Word::BITS as usize {
            modulus.double(&mut power);
        }
        modulus.one = power;
        // R 2^len; squaring it in Montgomery form doubles the exponent each time, up to R 2^(len · word bits) = R².
        for _ in 0..len {
            modulus.double(&mut power);
        }
        for _ in 0..Word::BITS.trailing_zeros() {
            let root = power;
            Portable::mont_sqr(&modulus, &root[..len], &mut power[..len]);
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
        self.neg_inv[0]
    }

    /// −m^−1 mod R 2^128, least significant word first.
    pub fn neg_inv_words(&self) -> &[Word] {
        &self.neg_inv[..self.len + EXTRA]
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

    /// `2 a mod m` for a < m.
    pub(crate) fn double(&self, a: &mut Number) {
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

/// −m^−1 mod R 2^128, word by word: with each word of the inverse x chosen, m x + 1 is divisible by one word more.
fn neg_inverse_words(m: &[Word]) -> [Word; LIMBS + EXTRA] {
    let low = neg_inverse(m[0]);
    let mut inverse = [0; LIMBS + EXTRA];
    let mut rest: [Word; LIMBS + EXTRA] = [0; LIMBS + EXTRA];
    rest[0] = 1;
    let words = m.len() + EXTRA;
    for i in 0..words {
        inverse[i] = rest[i].wrapping_mul(low);
        let mut carry = 0;
        for (j, sum) in rest[i..words].iter_mut().enumerate() {
            (*sum, carry) = mac(*sum, inverse[i], m.get(j).copied().unwrap_or(0), carry);
        }
    }
    inverse
}
