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
    /// algorithms", 1996), two rows at once.
    ///
    /// Bounds: a < R, b < m; the sum before the last step is below (R m + R m) / R = 2m, so one subtraction makes it
    /// canonical. Time depends on `len` alone.
    fn mont_mul(m: &Modulus, a: &[Word], b: &[Word], out: &mut [Word]) {
        let n = m.len();
        let mut sum = [0 as Word; LIMBS];
        let t = &mut sum[..n];
        let (a, b) = (&a[..n], &b[..n]);
        let mut top = 0;
        let (first, pairs) = a.split_at(n % 2);
        for &a_i in first {
            top = row(m, a_i, b, t, top);
        }
        for pair in pairs.chunks_exact(2) {
            top = two_rows(m, [pair[0], pair[1]], b, t, top);
        }
        let p = m.limbs();
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
        for i in (0..n - n % 2).step_by(2) {
            two_rows_above(&mut t[2 * i + 1..i + n + 2], &a[i..]);
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
        for i in (0..n - n % 2).step_by(2) {
            top = reduce_two(m, &mut t[i..i + n + 2], top);
        }
        if n % 2 == 1 {
            let i = n - 1;
            let q = t[i].wrapping_mul(m.neg_inv());
            let mut carry = 0;
            for (t, &p) in t[i..i + n].iter_mut().zip(p) {
                (*t, carry) = mac(*t, q, p, carry);
            }
            (t[i + n], top) = adc(t[i + n], carry, top);
        }
        let high = &mut t[n..];
        subtract_once(high, top, p);
        out.copy_from_slice(high);
        sum.zeroize();
    }
}

/// `t = (t + top R + x b + q m) / w`, w being the word's radix and q what clears the lowest word. The new top.
#[inline(always)]
fn row(m: &Modulus, x: Word, b: &[Word], t: &mut [Word], top: Word) -> Word {
    let n = m.len();
    let (p, b, t) = (&m.limbs()[..n], &b[..n], &mut t[..n]);
    let (low, mut carry_xb) = mac(t[0], x, b[0], 0);
    let q = low.wrapping_mul(m.neg_inv());
    let (_, mut carry_qm) = mac(low, q, p[0], 0);
    for j in 1..n {
        let word;
        (word, carry_xb) = mac(t[j], x, b[j], carry_xb);
        (t[j - 1], carry_qm) = mac(word, q, p[j], carry_qm);
    }
    let (word, carry) = adc(top, carry_xb, 0);
    let (word, carry_2) = adc(word, carry_qm, 0);
    t[n - 1] = word;
    carry + carry_2
}

/// Two turns of [`row`] at once, on four carry chains: each word of `t` is read and written once.
#[inline(always)]
fn two_rows(m: &Modulus, x: [Word; 2], b: &[Word], t: &mut [Word], top: Word) -> Word {
    let n = m.len();
    let (p, b, t) = (&m.limbs()[..n], &b[..n], &mut t[..n]);
    let (low, mut xb_0) = mac(t[0], x[0], b[0], 0);
    let q_0 = low.wrapping_mul(m.neg_inv());
    let (_, mut qm_0) = mac(low, q_0, p[0], 0);
    let word;
    (word, xb_0) = mac(t[1], x[0], b[1], xb_0);
    let (word, mut xb_1) = mac(word, x[1], b[0], 0);
    let (word, carry) = mac(word, q_0, p[1], qm_0);
    qm_0 = carry;
    let q_1 = word.wrapping_mul(m.neg_inv());
    let (_, mut qm_1) = mac(word, q_1, p[0], 0);
    for j in 2..n {
        let mut word = t[j];
        (word, xb_0) = mac(word, x[0], b[j], xb_0);
        (word, xb_1) = mac(word, x[1], b[j - 1], xb_1);
        (word, qm_0) = mac(word, q_0, p[j], qm_0);
        (t[j - 2], qm_1) = mac(word, q_1, p[j - 1], qm_1);
    }
    // Column n: the top, what the first rows carry, and the last products of the second ones.
    let (word, carry) = adc(top, xb_0, 0);
    let (word, carry_2) = adc(word, qm_0, 0);
    let (word, xb_1) = mac(word, x[1], b[n - 1], xb_1);
    (t[n - 2], qm_1) = mac(word, q_1, p[n - 1], qm_1);
    // Column n + 1.
    let (word, carry) = adc(xb_1, qm_1, carry + carry_2);
    t[n - 1] = word;
    carry
}

/// `t += a_0 (a_1 + a_2 w + …) + a_1 (a_2 + …) w²`, w being the word's radix: two rows of a square above the diagonal, on
/// two carry chains. The last two words of `t`, or more if `a` is short, are zero before.
#[inline(always)]
fn two_rows_above(t: &mut [Word], a: &[Word]) {
    let n = a.len();
    let t = &mut t[..n + 1];
    let (mut carry_0, mut carry_1) = (0, 0);
    (t[0], carry_0) = mac(t[0], a[0], a[1], carry_0);
    if n == 2 {
        t[1] = carry_0;
        return;
    }
    (t[1], carry_0) = mac(t[1], a[0], a[2], carry_0);
    for j in 3..n {
        let word;
        (word, carry_0) = mac(t[j - 1], a[0], a[j], carry_0);
        (t[j - 1], carry_1) = mac(word, a[1], a[j - 1], carry_1);
    }
    (t[n - 1], t[n]) = mac(carry_0, a[1], a[n - 1], carry_1);
}

/// Adds the multiple of m to `t` + `top` w^n that clears its two lowest words, on two carry chains. `t` has `len` + 2
/// words; the carry out of it.
#[inline(always)]
fn reduce_two(m: &Modulus, t: &mut [Word], top: Word) -> Word {
    let (p, n) = (m.limbs(), m.len());
    let t = &mut t[..n + 2];
    let q_0 = t[0].wrapping_mul(m.neg_inv());
    let (_, carry_0) = mac(t[0], q_0, p[0], 0);
    let (word, mut carry_0) = mac(t[1], q_0, p[1], carry_0);
    let q_1 = word.wrapping_mul(m.neg_inv());
    let (_, mut carry_1) = mac(word, q_1, p[0], 0);
    for j in 2..n {
        let word;
        (word, carry_0) = mac(t[j], q_0, p[j], carry_0);
        (t[j], carry_1) = mac(word, q_1, p[j - 1], carry_1);
    }
    let (word, carry) = adc(t[n], carry_0, top);
    (t[n], carry_1) = mac(word, q_1, p[n - 1], carry_1);
    let top;
    (t[n + 1], top) = adc(t[n + 1], carry_1, carry);
    top
}
