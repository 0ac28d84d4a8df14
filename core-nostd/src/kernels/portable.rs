//! The portable backend: plain Rust over machine words.

use crypto_bigint::Word;
use zeroize::Zeroize;

use super::Arithmetic;
use crate::modulus::Modulus;
use crate::number::{LIMBS, adc, mac, subtract_once};

/// Plain Rust over machine words of 32 or 64 bits.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

impl Arithmetic for Portable {
    const NAME: &'static str = "portable";

    /// Finely integrated operand scanning (Koç, Acar, Kaliski, "Analyzing and comparing Montgomery multiplication
    /// algorithms", 1996).
    ///
    /// Bounds: a < R, b < m; the sum before the last step is below (R m + R m) / R = 2m, so one subtraction makes it
    /// canonical. Time depends on `len` alone.
    fn mont_mul(m: &Modulus, a: &[Word], b: &[Word], out: &mut [Word]) {
        let n = m.len();
        let (p, a, b) = (m.limbs(), &a[..n], &b[..n]);
        let mut sum = [0 as Word; LIMBS];
        let t = &mut sum[..n];
        let mut top = 0;
        for &a_i in a {
            // t = (t + a_i b + q m) / 2^w, where q clears the lowest word.
            let (low, mut carry_ab) = mac(t[0], a_i, b[0], 0);
            let q = low.wrapping_mul(m.neg_inv());
            let (_, mut carry_qm) = mac(low, q, p[0], 0);
            for j in 1..n {
                let word;
                (word, carry_ab) = mac(t[j], a_i, b[j], carry_ab);
                (t[j - 1], carry_qm) = mac(word, q, p[j], carry_qm);
            }
            let (word, carry) = adc(top, carry_ab, 0);
            let (word, carry_2) = adc(word, carry_qm, 0);
            t[n - 1] = word;
            top = carry + carry_2;
        }
        subtract_once(t, top, p);
        out.copy_from_slice(t);
        sum.zeroize();
    }

    /// The square's products above the diagonal once, doubled, then Montgomery's reduction row by row: three quarters
    /// of the products of [`Portable::mont_mul`].
    ///
    /// Bounds: a² < m² < R m, and q m < R m, so the reduced sum is below 2m; the doubled half square is at most a², so
    /// the doubling's last carry is zero.
    fn mont_sqr(m: &Modulus, a: &[Word], out: &mut [Word]) {
        let n = m.len();
        let (p, a) = (m.limbs(), &a[..n]);
        let mut sum = [0 as Word; 2 * LIMBS];
        let t = &mut sum[..2 * n];
        for i in 0..n {
            let mut carry = 0;
            for j in i + 1..n {
                (t[i + j], carry) = mac(t[i + j], a[i], a[j], carry);
            }
            t[i + n] = carry;
        }
        let (mut doubled, mut carry) = (0, 0);
        for (i, &a_i) in a.iter().enumerate() {
            let (low, high) = mac(0, a_i, a_i, 0);
            for (word, square) in t[2 * i..][..2].iter_mut().zip([low, high]) {
                let twice = (*word << 1) | doubled;
                doubled = *word >> (Word::BITS - 1);
                (*word, carry) = adc(twice, square, carry);
            }
        }
        let mut top = 0;
        for i in 0..n {
            let q = t[i].wrapping_mul(m.neg_inv());
            let (_, mut carry) = mac(t[i], q, p[0], 0);
            for j in 1..n {
                (t[i + j], carry) = mac(t[i + j], q, p[j], carry);
            }
            (t[i + n], top) = adc(t[i + n], carry, top);
        }
        let high = &mut t[n..];
        subtract_once(high, top, p);
        out.copy_from_slice(high);
        sum.zeroize();
    }
}
