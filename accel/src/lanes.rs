//! The lane kernels: one number a lane, so that no carry ever crosses lanes.
//!
//! A number is L limbs in radix β = 2^BITS, least significant first, each limb a vector with that limb of every lane's
//! number. R = β^L is the radix's own; the seam's R is written 2^B here, B the bits of the modulus. Everything is written once over
//! [`Lanes`] and instantiated per instruction set and size; the [`scalar`] instance runs the same control flow where
//! vectors cannot run, and with other limb widths.
//!
//! # Multiplying columns
//!
//! Products are summed by columns, C columns (a tile) at a time, so that the sums stay in registers and each loaded limb
//! serves C products. A product of two limbs is added to column k, or its halves to the columns k and k + 1: see
//! [`Lanes::mul_add`]. Rows are taken C at a time as well; what is left at a tile's edge is a triangle of fixed shape. So C divides
//! L, and every loop has a length that depends on the size alone.
//!
//! # Bounds
//!
//! [`check`] proves at compile time, for every instance and size, that
//! - a column's sum fits 64 bits: at most 2L products go into one (L in each of two multiplications; where halves are
//!   split, L low and L high halves of each), each at most (β−1)², or β−1 where split, plus a carry below 2^(64−BITS).
//!   Where 2L products would not fit, see [`crowded`], the first multiplication's columns are carried out by themselves, so that L
//!   products and a limb go into one;
//! - R ≥ 2^(B+8), so that sums below 2m or 2p have room.
//!
//! Limbs are always fully carried (below β) between operations; numbers may be up to 2m.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
mod backend;
pub(crate) mod constant;
#[cfg(target_arch = "x86_64")]
pub(crate) mod ifma;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;
#[cfg(test)]
mod small;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub(crate) mod sse2;

pub(crate) use backend::{compiled_products, lane_backend};

use swarmseal_core::kernels::{
    Comb, Power, TwoPower,
    scalar::{Arithmetic, CombShape},
};
use swarmseal_core::{LIMBS, Modulus, Word};

/// Lanes of the widest instance.
pub(crate) const MAX_LANES: usize = 8;
/// 64-bit words of the largest number.
const MAX_WORDS: usize = 4096 / 64;
const WORD_BYTES: usize = Word::BITS as usize / 8;
/// Bits of a window of [`modpow_batch`]. With four a table of 2,048-bit powers is 32 KiB in eight lanes and stays in the L1 cache.
const WINDOW: usize = 4;

/// A vector of 64-bit lanes that can multiply limbs.
///
/// All methods act lane by lane, in time that does not depend on values.
pub(crate) trait Lanes: Copy {
    /// Numbers in a vector.
    const LANES: usize;
    /// Bits of a limb.
    const BITS: u32;
    /// Bits of a lane: 64, but in tests.
    const WORD: u32 = 64;
    /// Whether a product is added as two halves.
    const SPLIT: bool;
    /// A choice per lane.
    type Mask: Copy;
    /// A limb in memory, for all lanes.
    type Limb: Copy + Default;

    /// The value in every lane.
    fn splat(value: u64) -> Self;
    /// A limb to keep in memory; below β.
    fn limb_of(value: u64) -> Self::Limb;
    /// That limb in every lane, fit to be the second factor of [`Lanes::mul_add`] and for nothing else.
    fn broadcast(limb: Self::Limb) -> Self;
    /// Lane i from `values[i]`.
    fn read(values: &[u64; MAX_LANES]) -> Self;
    /// Lane i to `values[i]`; the rest is left.
    fn write(self, values: &mut [u64; MAX_LANES]);
    /// self + b mod 2^64.
    fn add(self, b: Self) -> Self;
    /// self − b mod 2^64.
    fn sub(self, b: Self) -> Self;
    /// self & b.
    fn and(self, b: Self) -> Self;
    /// self | b.
    fn or(self, b: Self) -> Self;
    /// self >> count; count is public and below 64.
    fn shr(self, count: u32) -> Self;
    /// self << count; count is public and below 64.
    fn shl(self, count: u32) -> Self;
    /// Where self = b.
    fn equals(self, b: Self) -> Self::Mask;
    /// `mask ? a : b`.
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self;
    /// Adds a·b for limbs a, b < β. Split: the low BITS bits to `low`, the rest to `high`. Otherwise all of it to `low`.
    fn mul_add(low: &mut Self, high: &mut Self, a: Self, b: Self);
    /// a·b mod β, for the low BITS bits of a and of b.
    fn mul_low(a: Self, b: Self) -> Self;

    /// [`Moduli::mul_here`], compiled out of line for this instruction set.
    fn mont_mul<const L: usize, const C: usize>(
        moduli: &Moduli<Self, L>,
        a: &Limbs<Self, L>,
        b: &Limbs<Self, L>,
        out: &mut Limbs<Self, L>,
    );
    /// [`Moduli::square_here`], compiled out of line for this instruction set.
    fn mont_sqr<const L: usize, const C: usize>(
        moduli: &Moduli<Self, L>,
        a: &Limbs<Self, L>,
        out: &mut Limbs<Self, L>,
    );

    /// `words[i]` gets the little-endian 64-bit word i of each of LANES blocks of 8 · `words.len()` bytes.
    #[inline(always)]
    fn load_blocks(blocks: &[u8], words: &mut [Self]) {
        let width = words.len() * 8;
        for (i, word) in words.iter_mut().enumerate() {
            let mut lanes = [0; MAX_LANES];
            for (lane, block) in lanes.iter_mut().zip(blocks.chunks_exact(width)).take(Self::LANES) {
                *lane = u64::from_le_bytes(*block[i * 8..].first_chunk().expect("a block holds its words"));
            }
            *word = Self::read(&lanes);
        }
    }

    /// The inverse of [`Lanes::load_blocks`].
    #[inline(always)]
    fn store_blocks(words: &[Self], blocks: &mut [u8]) {
        let width = words.len() * 8;
        for (i, word) in words.iter().enumerate() {
            let mut lanes = [0; MAX_LANES];
            word.write(&mut lanes);
            for (lane, block) in lanes.iter().zip(blocks.chunks_exact_mut(width)).take(Self::LANES) {
                block[i * 8..][..8].copy_from_slice(&lane.to_le_bytes());
            }
        }
    }

    /// `entries[index]` in each lane, reading all entries: 32 or 64.
    #[inline(always)]
    fn pick(entries: &[Word], index: Self) -> Self {
        let mut picked = Self::splat(0);
        for (i, &entry) in entries.iter().enumerate() {
            picked = Self::select(index.equals(Self::splat(i as u64)), Self::splat(widen(entry)), picked);
        }
        picked
    }

    /// self mod β.
    #[inline(always)]
    fn limb(self) -> Self {
        self.and(Self::splat((1 << Self::BITS) - 1))
    }

    /// What self carries into the next column.
    #[inline(always)]
    fn carry(self) -> Self {
        self.shr(Self::BITS)
    }
}

/// A number in each lane.
pub(crate) type Limbs<V, const L: usize> = [V; L];

/// Fails to compile where a column could overflow or R is too small for a modulus of that many bits.
pub(crate) const fn check<V: Lanes, const L: usize, const C: usize>(modulus_bits: usize) {
    assert!(L.is_multiple_of(C) && C > 2 && V::LANES <= MAX_LANES && V::BITS <= Word::BITS);
    assert!(L * V::BITS as usize >= modulus_bits + 8 && L * V::BITS as usize <= modulus_bits + 128);
    assert!(V::BITS.is_multiple_of(4) && L.div_ceil(GROUP) * (V::BITS as usize / 4) <= MAX_WORDS + GROUP);
    assert!(columns_fit::<V, L>());
}

/// Whether the sum of every column of a product and its reduction, and what is carried to it, fits a lane.
const fn columns_fit<V: Lanes, const L: usize>() -> bool {
    let limb = (1_u128 << V::BITS) - 1;
    let sum = if crowded::<V, L>() { L as u128 * limb * limb + limb } else { two_products::<V, L>() };
    fits::<V>(sum)
}

/// Whether such a sum and a carry fit a lane.
const fn fits<V: Lanes>(sum: u128) -> bool {
    sum + (1 << (V::WORD - V::BITS)) < 1 << V::WORD
}

/// The largest sum of a column of two multiplications: low and high halves of 2L products, or 2L whole ones.
const fn two_products<V: Lanes, const L: usize>() -> u128 {
    let (limb, terms) = ((1_u128 << V::BITS) - 1, 2 * L as u128);
    if V::SPLIT { 2 * terms * limb } else { terms * limb * limb }
}

/// Whether a column has no room for the products of two multiplications.
const fn crowded<V: Lanes, const L: usize>() -> bool {
    !fits::<V>(two_products::<V, L>())
}

#[inline(always)]
fn zeros<V: Lanes, const N: usize>() -> [V; N] {
    [V::splat(0); N]
}

/// Overwrites secrets.
#[inline(always)]
fn wipe<V: Lanes>(values: &mut [V]) {
    values.fill(V::splat(0));
    core::hint::black_box(values);
}

#[inline(always)]
#[allow(clippy::unnecessary_cast)]
fn widen(word: Word) -> u64 {
    word as u64
}

/// Word i, of 64 bits, of a number in machine words; 0 beyond.
#[inline(always)]
fn word64(words: &[Word], i: usize) -> u64 {
    let per = 64 / Word::BITS as usize;
    (0..per).fold(0, |sum, part| {
        sum | words.get(i * per + part).map_or(0, |&word| widen(word) << (part as u32 * Word::BITS % 64))
    })
}

// ---- Columns ----

/// Adds the products of C rows to C columns: `a[s] · window[C−1+c−s]` to column c.
#[inline(always)]
fn square_block<V: Lanes, const C: usize>(low: &mut [V; C], high: &mut [V; C], a: &[V; C], window: &[V]) {
    let window = &window[..2 * C - 1];
    for s in 0..C {
        for c in 0..C {
            V::mul_add(&mut low[c], &mut high[c], a[s], window[C - 1 + c - s]);
        }
    }
}

/// Rows `from..to` (multiples of C) of the tile of columns `k..k+C`, where all of them meet all the columns.
#[inline(always)]
fn rows<V: Lanes, const L: usize, const C: usize>(
    low: &mut [V; C],
    high: &mut [V; C],
    a: &Limbs<V, L>,
    b: &Limbs<V, L>,
    k: usize,
    from: usize,
    to: usize,
) {
    let mut i = from;
    while i < to {
        let rows = a[i..].first_chunk().expect("C rows");
        square_block(low, high, rows, &b[k + 1 - i - C..]);
        i += C;
    }
}

/// Rows k..k+C of the tile of columns k..k+C: those columns at or right of the diagonal.
#[inline(always)]
fn low_triangle<V: Lanes, const C: usize>(low: &mut [V; C], high: &mut [V; C], a: &[V], b: &[V]) {
    let (a, b) = (&a[..C], &b[..C]);
    for s in 0..C {
        for c in s..C {
            V::mul_add(&mut low[c], &mut high[c], a[s], b[c - s]);
        }
    }
}

/// The tile's first C rows in the upper half of a product: row s meets the columns below s + `DIAGONAL`. `b` ends with
/// the highest limb.
#[inline(always)]
fn high_triangle<V: Lanes, const C: usize, const DIAGONAL: usize>(
    low: &mut [V; C],
    high: &mut [V; C],
    a: &[V],
    b: &[V],
) {
    let (a, b) = (&a[..C], &b[b.len() - C..]);
    for s in 0..C {
        for c in 0..s + DIAGONAL {
            V::mul_add(&mut low[c], &mut high[c], a[s], b[C + c - s - DIAGONAL]);
        }
    }
}

/// A tile of a square where the diagonal cuts it: the rows C·I+s of the columns C·2I + `SHIFT` + c. Adds the products
/// above the diagonal, doubles all that the tile has so far, and adds the squares.
///
/// `a` begins at C·I and ends with the number or where the tile's last product does. What is above: s < shift + c − s.
#[inline(always)]
fn diagonal<V: Lanes, const C: usize, const SHIFT: usize>(low: &mut [V; C], high: &mut [V; C], a: &[V]) {
    // Two fixed shapes each, so that everything unrolls.
    if a.len() == C {
        diagonal_of::<V, C, SHIFT>(low, high, &a[..C]);
    } else {
        diagonal_of::<V, C, SHIFT>(low, high, &a[..2 * C]);
    }
}

#[inline(always)]
fn diagonal_of<V: Lanes, const C: usize, const SHIFT: usize>(low: &mut [V; C], high: &mut [V; C], a: &[V]) {
    for s in 0..C {
        for c in 0..C {
            if 2 * s < SHIFT + c && SHIFT + c - s < a.len() {
                V::mul_add(&mut low[c], &mut high[c], a[s], a[SHIFT + c - s]);
            }
        }
    }
    for c in 0..C {
        low[c] = low[c].add(low[c]);
        high[c] = high[c].add(high[c]);
    }
    for s in 0..C {
        for c in 0..C {
            if 2 * s == SHIFT + c {
                V::mul_add(&mut low[c], &mut high[c], a[s], a[s]);
            }
        }
    }
}

/// Carries from column to column.
struct Carry<V> {
    /// What the columns so far leave for the next, apart from...
    carry: V,
    /// ...the last column's high halves.
    high: V,
}

impl<V: Lanes> Carry<V> {
    #[inline(always)]
    fn new() -> Self {
        Carry { carry: V::splat(0), high: V::splat(0) }
    }

    /// The column's whole sum.
    #[inline(always)]
    fn sum(&self, low: V) -> V {
        low.add(self.high).add(self.carry)
    }

    /// Closes a column, whose whole sum is given: its limb.
    #[inline(always)]
    fn close(&mut self, sum: V, high: V) -> V {
        self.carry = sum.carry();
        self.high = high;
        sum.limb()
    }
}

/// Carries out a tile of the first of two multiplications where both do not fit: each column keeps a limb. `high` is zero, as nothing
/// is split.
#[inline(always)]
fn make_room<V: Lanes, const L: usize, const C: usize>(carry: &mut Carry<V>, low: &mut [V; C]) {
    if const { crowded::<V, L>() } {
        for column in low {
            *column = carry.close(carry.sum(*column), V::splat(0));
        }
    }
}

/// a − m in the lanes where a ≥ m. Bounds: a < 2m before, a < m after.
#[inline(always)]
fn canonical<V: Lanes, const L: usize>(a: &mut Limbs<V, L>, m: &Limbs<V, L>) {
    let mut less: Limbs<V, L> = zeros();
    let mut borrow = V::splat(0);
    for i in 0..L {
        let difference = a[i].sub(m[i]).sub(borrow);
        borrow = difference.shr(V::WORD - 1);
        less[i] = difference.limb();
    }
    let keep = borrow.equals(V::splat(1));
    for i in 0..L {
        a[i] = V::select(keep, a[i], less[i]);
    }
    wipe(&mut less);
}

// ---- Almost-Montgomery multiplication ----

/// m in the lanes, and what its multiples are made of.
///
/// Where m ≡ −1 mod β in every lane, as for RFC 7919's primes, a column's digit q is the column itself, and T + q m is
/// (T − q) + q (m + 1): the column is cleared without a product, and the other products are those with m + 1.
pub(crate) struct Moduli<V, const L: usize> {
    m: Limbs<V, L>,
    /// −m^−1 mod β.
    neg_inv: V,
    /// m, or m + 1 where m ≡ −1 mod β in every lane.
    multiple: Limbs<V, L>,
    unit: bool,
}

impl<V: Lanes, const L: usize> Moduli<V, L> {
    #[inline(always)]
    fn splat(m: &Modulus) -> Self {
        Self::gather(1, |_| m)
    }

    /// A modulus for each lane; the lanes from `count` on repeat the first.
    #[inline(always)]
    fn gather<'m>(count: usize, modulus: impl Fn(usize) -> &'m Modulus) -> Self {
        let beta_less_1 = (1 << V::BITS) - 1;
        let m: Limbs<V, L> = gather_numbers(count, |i| modulus(i).limbs());
        let neg_inv = read_lanes::<V>(count, |i| word64(modulus(i).neg_inv_words(), 0)).limb();
        let unit = (0..count).all(|i| word64(modulus(i).limbs(), 0) & beta_less_1 == beta_less_1);
        let mut multiple = m;
        if unit {
            let mut carry = V::splat(1);
            for limb in &mut multiple {
                let sum = limb.add(carry);
                carry = sum.carry();
                *limb = sum.limb();
            }
        }
        Moduli { m, neg_inv, multiple, unit }
    }

    /// Ends the lower half's tile of columns k..k+C of a Montgomery product: adds q m, where q clears the columns.
    #[inline(always)]
    fn reduce_tile<const C: usize>(
        &self,
        q: &mut Limbs<V, L>,
        carry: &mut Carry<V>,
        (low, high): (&mut [V; C], &mut [V; C]),
        k: usize,
    ) {
        rows(low, high, q, &self.multiple, k, 0, k);
        if self.unit {
            for c in 0..C {
                low[c] = carry.sum(low[c]);
                let digit = carry.close(low[c], high[c]);
                for d in c + 1..C {
                    V::mul_add(&mut low[d], &mut high[d], digit, self.multiple[d - c]);
                }
                q[k + c] = digit;
            }
        } else {
            for c in 0..C {
                low[c] = carry.sum(low[c]);
                let digit = V::mul_low(low[c].limb(), self.neg_inv);
                for d in c..C {
                    V::mul_add(&mut low[d], &mut high[d], digit, self.multiple[d - c]);
                }
                q[k + c] = digit;
                carry.close(low[c], high[c]);
            }
        }
    }

    /// Ends the upper half's tile of columns L+k..L+k+C: adds q m and carries out the result's limbs k..k+C. They take
    /// the place of q's, of which this tile and those after it need the limbs above k alone.
    #[inline(always)]
    fn finish_tile<const C: usize>(
        &self,
        out: &mut Limbs<V, L>,
        carry: &mut Carry<V>,
        (low, high): (&mut [V; C], &mut [V; C]),
        k: usize,
    ) {
        high_triangle::<V, C, 0>(low, high, &out[k..], &self.multiple);
        rows(low, high, out, &self.multiple, L + k, k + C, L);
        for c in 0..C {
            out[k + c] = carry.close(carry.sum(low[c]), high[c]);
        }
    }

    /// `out = a b R^−1 mod m`: see [`Moduli::mul_here`].
    #[inline(always)]
    fn mul<const C: usize>(&self, a: &Limbs<V, L>, b: &Limbs<V, L>, out: &mut Limbs<V, L>) {
        V::mont_mul::<L, C>(self, a, b, out);
    }

    /// `out = a² R^−1 mod m`: see [`Moduli::square_here`].
    #[inline(always)]
    fn square<const C: usize>(&self, a: &Limbs<V, L>, out: &mut Limbs<V, L>) {
        V::mont_sqr::<L, C>(self, a, out);
    }

    /// `out = a b R^−1 mod m`, below 2m. Bounds: a, b < 2m, so the sum is below (4m² + R m) / R ≤ 2m as R ≥ 4m.
    ///
    /// Walter, "Montgomery exponentiation needs no final subtractions", 1999.
    #[inline(always)]
    fn mul_here<const C: usize>(&self, a: &Limbs<V, L>, b: &Limbs<V, L>, out: &mut Limbs<V, L>) {
        // `out` keeps q until the upper half replaces it from below, where it is no longer needed.
        let (mut carry, mut product) = (Carry::new(), Carry::new());
        for k in (0..L).step_by(C) {
            let (mut low, mut high) = (zeros(), zeros());
            rows(&mut low, &mut high, a, b, k, 0, k);
            low_triangle::<V, C>(&mut low, &mut high, &a[k..], b);
            make_room::<V, L, C>(&mut product, &mut low);
            self.reduce_tile::<C>(out, &mut carry, (&mut low, &mut high), k);
        }
        for k in (0..L).step_by(C) {
            let (mut low, mut high) = (zeros(), zeros());
            high_triangle::<V, C, 0>(&mut low, &mut high, &a[k..], b);
            rows(&mut low, &mut high, a, b, L + k, k + C, L);
            make_room::<V, L, C>(&mut product, &mut low);
            self.finish_tile::<C>(out, &mut carry, (&mut low, &mut high), k);
        }
    }

    /// `out = a² R^−1 mod m`: [`Moduli::mul_here`] with the products off the diagonal taken once and doubled.
    #[inline(always)]
    fn square_here<const C: usize>(&self, a: &Limbs<V, L>, out: &mut Limbs<V, L>) {
        let (mut carry, mut product) = (Carry::new(), Carry::new());
        for k in (0..L).step_by(C) {
            let (mut low, mut high) = (zeros(), zeros());
            let middle = k / C / 2 * C;
            rows(&mut low, &mut high, a, a, k, 0, middle);
            if (k / C).is_multiple_of(2) {
                diagonal::<V, C, 0>(&mut low, &mut high, &a[middle..][..C]);
            } else {
                diagonal::<V, C, C>(&mut low, &mut high, &a[middle..][..2 * C]);
            }
            make_room::<V, L, C>(&mut product, &mut low);
            self.reduce_tile::<C>(out, &mut carry, (&mut low, &mut high), k);
        }
        for k in (0..L).step_by(C) {
            let (mut low, mut high) = (zeros(), zeros());
            let tile = (L + k) / C;
            let middle = tile / 2 * C;
            if middle > k {
                high_triangle::<V, C, 0>(&mut low, &mut high, &a[k..], a);
                rows(&mut low, &mut high, a, a, L + k, k + C, middle);
            }
            if tile.is_multiple_of(2) {
                diagonal::<V, C, 0>(&mut low, &mut high, &a[middle..][..C]);
            } else {
                // Two chunks, but for the last tile: there the number ends.
                diagonal::<V, C, C>(&mut low, &mut high, &a[middle..L.min(middle + 2 * C)]);
            }
            make_room::<V, L, C>(&mut product, &mut low);
            self.finish_tile::<C>(out, &mut carry, (&mut low, &mut high), k);
        }
    }
}

// ---- Powers ----

impl<V: Lanes, const L: usize> Moduli<V, L> {
    /// a 2^B, below m, as a R, below 2m. `r2` is 2^2B mod m.
    #[inline(always)]
    fn enter<const C: usize>(&self, a: &Limbs<V, L>, r2: &Limbs<V, L>, bits: usize) -> Limbs<V, L> {
        // (a 2^B)(2^2B) / R = a 2^3B / R; times R³ / 2^3B, a small power of two, over R.
        let mut shift: Limbs<V, L> = zeros();
        let exponent = 3 * (L * V::BITS as usize - bits);
        shift[exponent / V::BITS as usize] = V::splat(1 << (exponent % V::BITS as usize));
        let (mut lifted, mut out): (Limbs<V, L>, Limbs<V, L>) = (zeros(), zeros());
        self.mul::<C>(a, r2, &mut lifted);
        self.mul::<C>(&lifted, &shift, &mut out);
        wipe(&mut lifted);
        out
    }

    /// a R, below 2m, as a 2^B, canonical. `one` is 2^B mod m.
    #[inline(always)]
    fn leave<const C: usize>(&self, a: &Limbs<V, L>, one: &Limbs<V, L>, out: &mut Limbs<V, L>) {
        self.mul::<C>(a, one, out);
        canonical(out, &self.m);
    }
}

/// See [`Kernels::modpow_batch`](swarmseal_core::Kernels::modpow_batch). Fixed windows of four bits; an entry is read by a scan of
/// the whole table.
#[inline(always)]
pub(crate) fn modpow_batch<V: Lanes, const L: usize, const C: usize>(powers: &[Power<'_>], out: &mut [Word]) {
    let Some(first) = powers.first() else { return assert!(out.is_empty()) };
    let n = first.modulus.len();
    assert!(out.len() == powers.len() * n && powers.iter().all(|power| power.modulus.len() == n));
    let bits = bits_of(first.modulus);
    for (powers, out) in powers.chunks(V::LANES).zip(out.chunks_mut(V::LANES * n)) {
        let count = powers.len();
        let moduli = Moduli::<V, L>::gather(count, |i| powers[i].modulus);
        let one = gather_numbers(count, |i| powers[i].modulus.one());
        let r2 = gather_numbers(count, |i| powers[i].modulus.r2());
        let mut table = Table([zeros(); MAX_WORDS / PART]);
        table.set(&moduli, 0, &moduli.enter::<C>(&one, &r2, bits), bits / 64);
        let base = moduli.enter::<C>(&gather_numbers(count, |i| powers[i].base), &r2, bits);
        table.set(&moduli, 1, &base, bits / 64);
        let (mut rooms, mut factor) = ((base, zeros()), zeros());
        // Swapped by reference: the numbers are long.
        let (mut acc, mut next) = (&mut rooms.0, &mut rooms.1);
        for i in 2..1 << WINDOW {
            moduli.mul::<C>(acc, &base, next);
            core::mem::swap(&mut acc, &mut next);
            table.set(&moduli, i, acc, bits / 64);
        }
        let widest = powers.iter().map(|power| power.exponent.bits()).max().unwrap_or(0);
        let digits = widest.div_ceil(WINDOW);
        for digit in (0..digits).rev() {
            let index = read_lanes(count, |i| widen(powers[i].exponent.digit(digit, WINDOW)));
            table.choose(index, bits / 64, &mut factor);
            if digit + 1 == digits {
                *acc = factor;
                continue;
            }
            for _ in 0..WINDOW {
                moduli.square::<C>(acc, next);
                core::mem::swap(&mut acc, &mut next);
            }
            moduli.mul::<C>(acc, &factor, next);
            core::mem::swap(&mut acc, &mut next);
        }
        if digits == 0 {
            *acc = moduli.enter::<C>(&one, &r2, bits);
        }
        moduli.leave::<C>(acc, &one, next);
        scatter(next, n, out);
        table.wipe();
        wipe(&mut rooms.0);
        wipe(&mut rooms.1);
        wipe(&mut factor);
    }
}

/// Words of an entry of a [`Table`] that are chosen at a time. Every size has a multiple of them.
const PART: usize = 8;

/// See [`Kernels::two_pow_batch_vartime`](swarmseal_core::Kernels::two_pow_batch_vartime). Two bits of the exponents at a time:
/// two squarings and a factor of 1, 2, 4 or 8, without a reduction of its own.
///
/// Bounds: a number below 2m times 8 is below 16m, and its square's sum (256m² + R m) / R is at most 2m, as R ≥ 2^8 m.
#[inline(always)]
pub(crate) fn two_pow_batch_vartime<V: Lanes, const L: usize, const C: usize>(
    powers: &[TwoPower<'_>],
    out: &mut [Word],
) {
    let Some(first) = powers.first() else { return assert!(out.is_empty()) };
    let n = first.modulus.len();
    assert!(out.len() == powers.len() * n && powers.iter().all(|power| power.modulus.len() == n));
    let bits = bits_of(first.modulus);
    for (powers, out) in powers.chunks(V::LANES).zip(out.chunks_mut(V::LANES * n)) {
        let count = powers.len();
        let moduli = Moduli::<V, L>::gather(count, |i| powers[i].modulus);
        let one = gather_numbers(count, |i| powers[i].modulus.one());
        let r2 = gather_numbers(count, |i| powers[i].modulus.r2());
        let mut acc = moduli.enter::<C>(&one, &r2, bits);
        let mut next = zeros();
        let widest = powers.iter().map(|power| power.exponent.bits()).max().unwrap_or(0);
        for digit in (0..widest.div_ceil(2)).rev() {
            moduli.square::<C>(&acc, &mut next);
            moduli.square::<C>(&next, &mut acc);
            let factor = read_lanes::<V>(count, |i| 1 << powers[i].exponent.digit(digit, 2));
            let mut carry = Carry::new();
            for limb in &mut acc {
                let (mut low, mut high) = (V::splat(0), V::splat(0));
                V::mul_add(&mut low, &mut high, *limb, factor);
                *limb = carry.close(carry.sum(low), high);
            }
        }
        // Up to 16m: a product with 2^B mod m brings it below 2m as well.
        moduli.leave::<C>(&acc, &one, &mut next);
        scatter(&next, n, out);
    }
}

/// Powers for each lane, as 64-bit words: a quarter to two thirds less memory to scan than limbs. The first words of every
/// entry, then the next words of every entry, so that a scan goes through memory in order.
struct Table<V>([[V; PART << WINDOW]; MAX_WORDS / PART]);

impl<V: Lanes> Table<V> {
    /// Stores an entry below 2m.
    #[inline(always)]
    fn set<const L: usize>(
        &mut self,
        moduli: &Moduli<V, L>,
        entry: usize,
        value: &Limbs<V, L>,
        words: usize,
    ) {
        let mut value = *value;
        canonical(&mut value, &moduli.m);
        let mut packed: Words<V> = zeros();
        join(&value, &mut packed, words);
        for (part, words) in self.0.iter_mut().zip(packed[..words].chunks_exact(PART)) {
            part[entry * PART..][..PART].copy_from_slice(words);
        }
    }

    /// Entry `index` of each lane, reading all entries. The words that are chosen stay in registers meanwhile.
    #[inline(always)]
    fn choose<const L: usize>(&self, index: V, words: usize, out: &mut Limbs<V, L>) {
        let mut packed: Words<V> = zeros();
        for (part, out) in self.0.iter().zip(packed[..words].chunks_exact_mut(PART)) {
            let mut picked: [V; PART] = zeros();
            for (i, words) in part.chunks_exact(PART).enumerate() {
                let mask = index.equals(V::splat(i as u64));
                for c in 0..PART {
                    picked[c] = V::select(mask, words[c], picked[c]);
                }
            }
            out.copy_from_slice(&picked);
        }
        split(&packed, out);
    }

    #[inline(always)]
    fn wipe(&mut self) {
        self.0.iter_mut().for_each(|part| wipe(part));
    }
}

// ---- Combs ----

/// See [`Kernels::comb_words`](swarmseal_core::Kernels::comb_words): a limb a word.
pub(crate) const fn comb_words<const L: usize>(bits: usize) -> usize {
    CombShape::V * L * CombShape::new(bits).entries()
}

/// See [`Kernels::comb_fill`](swarmseal_core::Kernels::comb_fill). Limb l of entry d of table v, in Montgomery form to R and below 2m,
/// at (v L + l) 2^H + d: all candidates for one limb are side by side.
#[inline(always)]
pub(crate) fn comb_fill<V: Lanes, A: Arithmetic, const L: usize, const C: usize>(
    m: &Modulus,
    base: &[Word],
    bits: usize,
    table: &mut [Word],
) {
    let n = m.len();
    assert_eq!(table.len(), comb_words::<L>(bits));
    let each = CombShape::new(bits).entries();
    let mut entries = [0; CombShape::V * CombShape::MAX_ENTRIES * LIMBS];
    let entries = &mut entries[..CombShape::V * each * n];
    swarmseal_core::kernels::scalar::comb_fill::<A>(m, base, bits, entries);
    let moduli = Moduli::<V, L>::splat(m);
    let r2 = splat_number(m.r2());
    for from in (0..CombShape::V * each).step_by(V::LANES) {
        let plain = gather_numbers(V::LANES, |i| &entries[(from + i) * n..][..n]);
        let entered = moduli.enter::<C>(&plain, &r2, bits_of(m));
        for (l, limb) in entered.iter().enumerate() {
            let mut lanes = [0; MAX_LANES];
            limb.write(&mut lanes);
            for (i, &lane) in lanes[..V::LANES].iter().enumerate() {
                let (v, d) = ((from + i) / each, (from + i) % each);
                table[(v * L + l) * each + d] = lane as Word;
            }
        }
    }
}

/// See [`Kernels::comb_pow`](swarmseal_core::Kernels::comb_pow).
#[inline(always)]
pub(crate) fn comb_pow<V: Lanes, const L: usize, const C: usize>(
    m: &Modulus,
    bits: usize,
    combs: &[Comb<'_>],
    out: &mut [Word],
) {
    let n = m.len();
    let shape = CombShape::new(bits);
    let items = out.len() / n;
    assert!(out.len() == items * n && combs.iter().all(|comb| comb.exponents.len() == items));
    assert!(combs.iter().all(|comb| comb.table.len() == comb_words::<L>(bits)));
    assert!(combs.iter().flat_map(|comb| comb.exponents).all(|exponent| exponent.bits() <= bits));
    let moduli = Moduli::<V, L>::splat(m);
    let one = splat_number(m.one());
    let start = moduli.enter::<C>(&one, &splat_number(m.r2()), bits_of(m));
    let (mut rooms, mut factor) = ((zeros(), zeros()), zeros());
    for from in (0..items).step_by(V::LANES) {
        let count = V::LANES.min(items - from);
        let spread = Spread::new::<V>(combs.len());
        if spread.is_worth_it(count) {
            for from in (from..from + count).step_by(spread.at_once) {
                let count = spread.at_once.min(items - from);
                let out = &mut out[from * n..][..count * n];
                rooms.0 = start;
                spread.pow::<V, L, C>(
                    &moduli,
                    (&shape, &one),
                    combs,
                    (from, count),
                    (&mut rooms, &mut factor),
                    out,
                );
            }
            continue;
        }
        rooms.0 = start;
        // Swapped by reference: the numbers are long.
        let (mut acc, mut next) = (&mut rooms.0, &mut rooms.1);
        for column in (0..shape.block).rev() {
            if column + 1 != shape.block {
                moduli.square::<C>(acc, next);
                core::mem::swap(&mut acc, &mut next);
            }
            for comb in combs {
                for v in 0..CombShape::V {
                    let index =
                        read_lanes(count, |i| widen(shape.digit(comb.exponents[from + i], v, column)));
                    let table = &comb.table[v * L * shape.entries()..][..L * shape.entries()];
                    for (l, entries) in table.chunks_exact(shape.entries()).enumerate() {
                        factor[l] = V::pick(entries, index);
                    }
                    moduli.mul::<C>(acc, &factor, next);
                    core::mem::swap(&mut acc, &mut next);
                }
            }
        }
        moduli.leave::<C>(acc, &one, next);
        scatter(next, n, &mut out[from * n..][..count * n]);
    }
    wipe(&mut rooms.0);
    wipe(&mut rooms.1);
    wipe(&mut factor);
}

/// How the tables of a few items share the lanes that these would leave empty: each lane has some tables of one item, and
/// the lanes of an item are multiplied in the end. One item of two combs, in eight lanes, is thus a squaring and a product a
/// column instead of a squaring and eight products; but every lane's table is looked through by itself.
struct Spread {
    /// Lanes of one item: a power of two. 1 where the tables are no power of two, and then it is never worth it.
    side: usize,
    /// Tables of one lane.
    rounds: usize,
    /// Items in a vector.
    at_once: usize,
}

impl Spread {
    #[inline(always)]
    fn new<V: Lanes>(combs: usize) -> Self {
        let tables = combs * CombShape::V;
        let side = if tables.is_power_of_two() { tables.min(V::LANES) } else { 1 };
        Spread { side, rounds: tables / side, at_once: V::LANES / side }
    }

    /// Whether so many items, at most one a lane, cost less than a vector of them: a product with a factor from tables of
    /// each lane's own costs about as much as two from tables that the lanes share.
    #[inline(always)]
    fn is_worth_it(&self, items: usize) -> bool {
        items.div_ceil(self.at_once) * (1 + 2 * self.rounds) <= 1 + self.side * self.rounds
    }

    /// [`comb_pow`] of at most `at_once` items from `from` on. `rooms.0.0`: 1 in every lane. Items are public, and so is
    /// which lane has which table.
    #[inline(always)]
    fn pow<V: Lanes, const L: usize, const C: usize>(
        &self,
        moduli: &Moduli<V, L>,
        (shape, one): (&CombShape, &Limbs<V, L>),
        combs: &[Comb<'_>],
        (from, count): (usize, usize),
        (rooms, factor): (&mut (Limbs<V, L>, Limbs<V, L>), &mut Limbs<V, L>),
        out: &mut [Word],
    ) {
        let numbers = read_lanes::<V>(V::LANES, |lane| lane as u64);
        let (mut acc, mut next) = (&mut rooms.0, &mut rooms.1);
        for column in (0..shape.block).rev() {
            if column + 1 != shape.block {
                moduli.square::<C>(acc, next);
                core::mem::swap(&mut acc, &mut next);
            }
            for round in 0..self.rounds {
                for lane in 0..V::LANES {
                    // Lanes beyond the last item repeat it.
                    let item = from + (lane / self.side).min(count - 1);
                    let table = round * self.side + lane % self.side;
                    let (comb, v) = (&combs[table / CombShape::V], table % CombShape::V);
                    let index = V::splat(widen(shape.digit(comb.exponents[item], v, column)));
                    let here = numbers.equals(V::splat(lane as u64));
                    let entries = &comb.table[v * L * shape.entries()..][..L * shape.entries()];
                    for (l, entries) in entries.chunks_exact(shape.entries()).enumerate() {
                        factor[l] = V::select(here, V::pick(entries, index), factor[l]);
                    }
                }
                moduli.mul::<C>(acc, factor, next);
                core::mem::swap(&mut acc, &mut next);
            }
        }
        let mut apart = self.side / 2;
        while apart > 0 {
            move_lanes(acc, |lane| lane ^ apart, factor);
            moduli.mul::<C>(acc, factor, next);
            core::mem::swap(&mut acc, &mut next);
            apart /= 2;
        }
        move_lanes(acc, |lane| (lane * self.side) % V::LANES, factor);
        moduli.leave::<C>(factor, one, next);
        scatter(next, out.len() / count, out);
    }
}

/// Lane i of `out` is lane `source(i)` of the numbers.
#[inline(always)]
fn move_lanes<V: Lanes, const L: usize>(
    numbers: &Limbs<V, L>,
    source: impl Fn(usize) -> usize,
    out: &mut Limbs<V, L>,
) {
    for (limb, out) in numbers.iter().zip(out) {
        let mut lanes = [0; MAX_LANES];
        limb.write(&mut lanes);
        *out = read_lanes(V::LANES, |i| lanes[source(i)]);
    }
}

// ---- Words and limbs ----

fn bits_of(m: &Modulus) -> usize {
    m.len() * Word::BITS as usize
}

/// A number as 64-bit words; those beyond the number are zero.
type Words<V> = [V; MAX_WORDS + GROUP];

/// Limbs that fill BITS / 4 words exactly: between such groups the pattern of shifts repeats, and within one all shifts are constants,
/// as the loops unroll.
const GROUP: usize = 16;

/// Cuts words into limbs.
#[inline(always)]
fn split<V: Lanes, const L: usize>(words: &Words<V>, limbs: &mut Limbs<V, L>) {
    let width = V::BITS as usize / 4;
    for group in 0..L.div_ceil(GROUP) {
        let words = &words[group * width..][..width];
        for k in 0..GROUP {
            let Some(limb) = limbs.get_mut(group * GROUP + k) else { break };
            let (word, shift) = (k * V::BITS as usize / 64, (k as u32 * V::BITS) % 64);
            *limb = words[word].shr(shift);
            if shift + V::BITS > 64 {
                *limb = limb.or(words[word + 1].shl(64 - shift));
            }
            *limb = limb.limb();
        }
    }
}

/// The inverse of [`split`], for a number that fits the first n words.
#[inline(always)]
fn join<V: Lanes, const L: usize>(limbs: &Limbs<V, L>, words: &mut Words<V>, n: usize) {
    let width = V::BITS as usize / 4;
    for group in 0..n.div_ceil(width) {
        let limb = |k| limbs.get(group * GROUP + k).copied().unwrap_or(V::splat(0));
        let words = &mut words[group * width..][..width];
        for (i, word) in words.iter_mut().enumerate() {
            let (mut k, shift) = (i * 64 / V::BITS as usize, (i * 64) as u32 % V::BITS);
            *word = limb(k).shr(shift);
            let mut filled = V::BITS - shift;
            while filled < 64 {
                k += 1;
                *word = word.or(limb(k).shl(filled));
                filled += V::BITS;
            }
        }
    }
}

/// A value per lane; the lanes from `count` on repeat the first.
#[inline(always)]
fn read_lanes<V: Lanes>(count: usize, value: impl Fn(usize) -> u64) -> V {
    let mut lanes = [0; MAX_LANES];
    for (i, lane) in lanes[..V::LANES].iter_mut().enumerate() {
        *lane = value(if i < count { i } else { 0 });
    }
    V::read(&lanes)
}

/// One number in all lanes. What is beyond R is cut off.
#[inline(always)]
fn splat_number<V: Lanes, const L: usize>(number: &[Word]) -> Limbs<V, L> {
    gather_numbers(1, |_| number)
}

/// A number per lane; the lanes from `count` on repeat the first.
#[inline(always)]
fn gather_numbers<'n, V: Lanes, const L: usize>(
    count: usize,
    number: impl Fn(usize) -> &'n [Word],
) -> Limbs<V, L> {
    let mut words: Words<V> = zeros();
    for (i, word) in words.iter_mut().enumerate() {
        *word = read_lanes(count, |lane| word64(number(lane), i));
    }
    let mut limbs = zeros();
    split(&words, &mut limbs);
    wipe(&mut words);
    limbs
}

/// Writes the numbers of the first lanes, of n words each, one after the other until `out` is full.
#[inline(always)]
fn scatter<V: Lanes, const L: usize>(limbs: &Limbs<V, L>, n: usize, out: &mut [Word]) {
    let per = 64 / Word::BITS as usize;
    let mut words: Words<V> = zeros();
    join(limbs, &mut words, n / per);
    for (i, word) in words[..n / per].iter().enumerate() {
        let mut lanes = [0; MAX_LANES];
        word.write(&mut lanes);
        for (lane, out) in lanes.iter().zip(out.chunks_exact_mut(n)) {
            for part in 0..per {
                out[i * per + part] = (lane >> (part as u32 * Word::BITS % 64)) as Word;
            }
        }
    }
    wipe(&mut words);
}
