//! What is built from one number's multiplication: blocks, powers and combs.
//!
//! Every loop here runs over lengths and widths; secrets steer nothing but masks.

use crypto_bigint::Word;
use zeroize::Zeroize;

use super::{ByteOrder, Comb, Exponent, Power, TwoPower, load, store};
use crate::modulus::Modulus;
use crate::number::{LIMBS, Number, WORD_BYTES, ZERO, read_entry};

/// Montgomery arithmetic on one number at a time.
pub trait Arithmetic {
    /// The backend's name.
    const NAME: &'static str;

    /// See [`Kernels::mont_mul`](super::Kernels::mont_mul).
    fn mont_mul(m: &Modulus, a: &[Word], b: &[Word], out: &mut [Word]);

    /// See [`Kernels::mont_sqr`](super::Kernels::mont_sqr).
    fn mont_sqr(m: &Modulus, a: &[Word], out: &mut [Word]);

    /// See [`Kernels::mul_blocks`](super::Kernels::mul_blocks).
    fn mul_blocks(m: &Modulus, factor: &[Word], order: ByteOrder, blocks: &mut [u8]) {
        mul_blocks::<Self>(m, factor, order, blocks);
    }
}

/// See [`Kernels::mul_blocks`](super::Kernels::mul_blocks). A block below R times a mont factor below m is the canonical product
/// itself.
pub fn mul_blocks<A: Arithmetic + ?Sized>(m: &Modulus, factor: &[Word], order: ByteOrder, blocks: &mut [u8]) {
    let n = m.len();
    let mut block = ZERO;
    let mut product = ZERO;
    for bytes in blocks.chunks_exact_mut(n * WORD_BYTES) {
        load(order, bytes, &mut block[..n]);
        A::mont_mul(m, &block[..n], factor, &mut product[..n]);
        store(order, &product[..n], bytes);
    }
    block.zeroize();
    product.zeroize();
}

/// A number that is multiplied again and again, and the room for its next value.
struct Accumulator {
    rooms: [Number; 2],
    /// Which room has the value: the parity of the operations done.
    at: usize,
}

impl Accumulator {
    fn one(m: &Modulus) -> Self {
        let mut value = ZERO;
        value[..m.len()].copy_from_slice(m.one());
        Accumulator { rooms: [value, ZERO], at: 0 }
    }

    fn value(&mut self) -> &mut Number {
        &mut self.rooms[self.at]
    }

    /// The value, and the room for the next, whose turn it is.
    fn step(&mut self, n: usize) -> (&[Word], &mut [Word]) {
        let [first, second] = &mut self.rooms;
        let (value, next) = if self.at == 0 { (first, second) } else { (second, first) };
        self.at ^= 1;
        (&value[..n], &mut next[..n])
    }

    fn square<A: Arithmetic>(&mut self, m: &Modulus) {
        let (value, next) = self.step(m.len());
        A::mont_sqr(m, value, next);
    }

    fn multiply<A: Arithmetic>(&mut self, m: &Modulus, factor: &[Word]) {
        let (value, next) = self.step(m.len());
        A::mont_mul(m, value, factor, next);
    }
}

impl Drop for Accumulator {
    fn drop(&mut self) {
        self.rooms.zeroize();
    }
}

/// Bits of a window of [`modpow`].
pub const WINDOW: usize = 5;

/// See [`Kernels::modpow`](super::Kernels::modpow). Fixed windows of five bits; each entry is read by a scan of the
/// whole table. Time depends on `len` and the exponent's width.
pub fn modpow<A: Arithmetic>(m: &Modulus, base: &[Word], exponent: &Exponent, out: &mut [Word]) {
    let n = m.len();
    let mut table = [0; LIMBS << WINDOW];
    let table = &mut table[..n << WINDOW];
    table[..n].copy_from_slice(m.one());
    table[n..2 * n].copy_from_slice(&base[..n]);
    for i in 2..1 << WINDOW {
        let (done, rest) = table.split_at_mut(i * n);
        if i % 2 == 0 {
            A::mont_sqr(m, &done[i / 2 * n..][..n], &mut rest[..n]);
        } else {
            A::mont_mul(m, &done[(i - 1) * n..], base, &mut rest[..n]);
        }
    }
    let mut acc = Accumulator::one(m);
    let mut factor = ZERO;
    let digits = exponent.bits().div_ceil(WINDOW);
    for digit in (0..digits).rev() {
        read_entry(table, exponent.digit(digit, WINDOW), &mut factor[..n]);
        if digit + 1 == digits {
            *acc.value() = factor;
            continue;
        }
        for _ in 0..WINDOW {
            acc.square::<A>(m);
        }
        acc.multiply::<A>(m, &factor[..n]);
    }
    out.copy_from_slice(&acc.value()[..n]);
    factor.zeroize();
    table.zeroize();
}

/// See [`Kernels::modpow_batch`](super::Kernels::modpow_batch): one after the other.
pub fn modpow_batch<A: Arithmetic>(powers: &[Power<'_>], out: &mut [Word]) {
    let Some(first) = powers.first() else { return assert!(out.is_empty()) };
    let n = first.modulus.len();
    assert_eq!(out.len(), powers.len() * n);
    for (power, out) in powers.iter().zip(out.chunks_exact_mut(n)) {
        modpow::<A>(power.modulus, power.base, power.exponent, out);
    }
}

/// See [`Kernels::two_pow_batch_vartime`](super::Kernels::two_pow_batch_vartime): a squaring a bit, and a doubling where it is set.
pub fn two_pow_batch_vartime<A: Arithmetic>(powers: &[TwoPower<'_>], out: &mut [Word]) {
    let Some(first) = powers.first() else { return assert!(out.is_empty()) };
    let n = first.modulus.len();
    assert_eq!(out.len(), powers.len() * n);
    for (power, out) in powers.iter().zip(out.chunks_exact_mut(n)) {
        let m = power.modulus;
        let mut acc = Accumulator::one(m);
        for bit in (0..power.exponent.bits()).rev() {
            acc.square::<A>(m);
            if power.exponent.bit(bit) == 1 {
                m.double(acc.value());
            }
        }
        out.copy_from_slice(&acc.value()[..n]);
    }
}

/// The shape of a comb: Lim and Lee, "More flexible exponentiation with precomputation", 1994.
///
/// The exponent's bits are written in H rows of a = ⌈bits/H⌉ and each row in V blocks of b = ⌈a/V⌉. Entry d of table v is
/// ∏ base^{2^(h a + v b)} over the bits h of d; digit 0 selects the stored 1. One exponentiation is b−1 squarings and V b
/// multiplications: 12 and 52 for 256 bits. Each entry is read by a scan of its whole table, so H = 6 pays for long
/// exponents alone: 85 and 344 for 2,047 bits, instead of 102 and 412.
#[derive(Clone, Copy, Debug)]
pub struct CombShape {
    /// H: rows that a digit gathers a bit from.
    pub rows: usize,
    /// a: bits of a row.
    pub row: usize,
    /// b: bits of a block of a row.
    pub block: usize,
}

impl CombShape {
    /// Tables.
    pub const V: usize = 4;
    /// Entries of the largest table.
    pub const MAX_ENTRIES: usize = 64;

    /// For exponents of that many bits.
    pub const fn new(bits: usize) -> Self {
        let rows = if bits <= 512 { 5 } else { 6 };
        let row = bits.div_ceil(rows);
        CombShape { rows, row, block: row.div_ceil(Self::V) }
    }

    /// Entries of a table, 32 or 64.
    pub const fn entries(&self) -> usize {
        1 << self.rows
    }

    /// The entry of table `v` that the exponent asks for at `column`, which counts the bits of a block.
    ///
    /// Beyond a row's end its bits belong to the next row: they are masked off, by public positions.
    pub fn digit(&self, exponent: &Exponent, v: usize, column: usize) -> Word {
        let position = v * self.block + column;
        if position >= self.row {
            return 0;
        }
        (0..self.rows).fold(0, |digit, h| digit | (exponent.bit(h * self.row + position) << h))
    }
}

/// See [`Kernels::comb_words`](super::Kernels::comb_words): V tables of 2^H entries of `len` words.
pub fn comb_words(m: &Modulus, bits: usize) -> usize {
    CombShape::V * CombShape::new(bits).entries() * m.len()
}

/// See [`Kernels::comb_fill`](super::Kernels::comb_fill). Entry d of table v at `(v 2^H + d) len`.
pub fn comb_fill<A: Arithmetic>(m: &Modulus, base: &[Word], bits: usize, table: &mut [Word]) {
    let n = m.len();
    assert_eq!(table.len(), comb_words(m, bits));
    let shape = CombShape::new(bits);
    for table in table.chunks_exact_mut(n << shape.rows) {
        table[..n].copy_from_slice(m.one());
    }
    let mut power = Accumulator::one(m);
    power.value()[..n].copy_from_slice(base);
    let mut exponent = 0;
    for h in 0..shape.rows {
        for (v, table) in table.chunks_exact_mut(n << shape.rows).enumerate() {
            // base^{2^(h a + v b)}. A block that begins beyond its row is never read from: it gets any power.
            if v * shape.block < shape.row {
                let wanted = h * shape.row + v * shape.block;
                for _ in exponent..wanted {
                    power.square::<A>(m);
                }
                exponent = wanted;
            }
            let (done, rest) = table.split_at_mut(n << h);
            for (entry, low) in rest.chunks_exact_mut(n).zip(done.chunks_exact(n)) {
                A::mont_mul(m, low, &power.value()[..n], entry);
            }
        }
    }
}

/// See [`Kernels::comb_pow`](super::Kernels::comb_pow). The combs of an item share its squarings.
pub fn comb_pow<A: Arithmetic>(m: &Modulus, bits: usize, combs: &[Comb<'_>], out: &mut [Word]) {
    let n = m.len();
    let shape = CombShape::new(bits);
    let items = out.len() / n;
    assert!(out.len() == items * n && combs.iter().all(|comb| comb.exponents.len() == items));
    assert!(combs.iter().all(|comb| comb.table.len() == comb_words(m, bits)));
    assert!(combs.iter().flat_map(|comb| comb.exponents).all(|exponent| exponent.bits() <= bits));
    let mut factor = ZERO;
    for (i, out) in out.chunks_exact_mut(n).enumerate() {
        let mut acc = Accumulator::one(m);
        for column in (0..shape.block).rev() {
            if column + 1 != shape.block {
                acc.square::<A>(m);
            }
            for comb in combs {
                for (v, table) in comb.table.chunks_exact(n << shape.rows).enumerate() {
                    let digit = shape.digit(comb.exponents[i], v, column);
                    read_entry(table, digit, &mut factor[..n]);
                    acc.multiply::<A>(m, &factor[..n]);
                }
            }
        }
        out.copy_from_slice(&acc.value()[..n]);
    }
    factor.zeroize();
}
