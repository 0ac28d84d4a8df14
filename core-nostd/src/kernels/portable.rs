//! The portable backend: plain Rust over machine words.

use crypto_bigint::Word;
use zeroize::Zeroize;

use super::{ByteOrder, Exponent, Kernels};
use crate::bytes::{load, store};
use crate::modulus::Modulus;
use crate::number::{LIMBS, WORD_BYTES, ZERO, adc, mac, read_entry, subtract_once};

pub(super) static KERNELS: Kernels = Kernels { name: "portable", mont_mul, mul_blocks, modpow };

/// `out = a b R^−1 mod m`: finely integrated operand scanning (Koç, Acar, Kaliski, "Analyzing and
/// comparing Montgomery multiplication algorithms", 1996).
///
/// Operands: `len` words each. Bounds: a < R, b < m; the sum before the last step is below
/// (R m + R m) / R = 2m, so one subtraction makes it canonical. Time depends on `len` alone.
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
    out[..n].copy_from_slice(t);
    sum.zeroize();
}

/// See [`Kernels::mul_blocks`]. A block below R times a mont factor below m is the canonical product itself.
fn mul_blocks(m: &Modulus, factor: &[Word], order: ByteOrder, blocks: &mut [u8]) {
    let n = m.len();
    let mut block = ZERO;
    let mut product = ZERO;
    for bytes in blocks.chunks_exact_mut(n * WORD_BYTES) {
        load(order, bytes, &mut block[..n]);
        mont_mul(m, &block, factor, &mut product[..n]);
        store(order, &product[..n], bytes);
    }
    block.zeroize();
    product.zeroize();
}

const WINDOW: usize = 4;

/// See [`Kernels::modpow`]. Fixed windows of four bits; each entry is read by a scan of the whole table.
///
/// Time depends on `len` and the exponent's width.
fn modpow(m: &Modulus, base: &[Word], exponent: &Exponent, out: &mut [Word]) {
    let n = m.len();
    let mut table = [ZERO; 1 << WINDOW];
    table[0][..n].copy_from_slice(m.one());
    for i in 1..table.len() {
        let (done, rest) = table.split_at_mut(i);
        mont_mul(m, &done[i - 1], base, &mut rest[0]);
    }
    let mut acc = table[0];
    let mut factor = ZERO;
    let mut square = ZERO;
    for digit in (0..exponent.bits().div_ceil(WINDOW)).rev() {
        for _ in 0..WINDOW {
            mont_mul(m, &acc, &acc, &mut square);
            core::mem::swap(&mut acc, &mut square);
        }
        read_entry(table.iter().map(|entry| &entry[..n]), exponent.digit(digit, WINDOW), &mut factor[..n]);
        mont_mul(m, &acc, &factor, &mut square);
        core::mem::swap(&mut acc, &mut square);
    }
    out[..n].copy_from_slice(&acc[..n]);
    acc.zeroize();
    square.zeroize();
    factor.zeroize();
    table.zeroize();
}
