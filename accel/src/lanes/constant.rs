//! Multiplying many blocks by a constant w < p: a product of two matrices, blocks by digits and digits by limbs.
//!
//! With the rows Y_i = w β^(i+1) mod p, for every digit i of a block x = Σ x_i β^i, the sum Σ x_i Y_i is x w β mod p, and a digit and a few
//! bits longer than p. A step of Montgomery's takes off the digit, at the lower end, and a small multiple of p the bits, at the upper.
//! That is two rows more:
//!
//! ```text
//! r = (Σ x_i Y_i + q₀ p) / β − q₁ p = (Σ x_i Y_i + q₀ p + q₁ β (R − p)) / β mod R
//! ```
//!
//! So D digits and L limbs take D L + 2 L products and a few, where a product and a reduction take 2 L², and half products 3/2 L² (Shoup's
//! trick). The rows are L² limbs, made once for a piece and as secret as w.
//!
//! # Bounds
//!
//! D digits hold a block: D = ⌈B / BITS⌉. 2 D is below β.
//!
//! - **q₀** is the digit that makes the lowest column 0 mod β: Σ x_i Y_i,0 · (−p^−1) mod β.
//! - **Before q₁** the sum is below (D β p + β p) / β = (D + 1) p.
//! - **q₁** is the quotient of that or one less. Let F_i = ⌊Y_i β / p⌋, the digit that a row loses on the way to the next. The quotient is
//!   the floor of Σ x_i Y_i / (β p) + q₀ / β, and Σ x_i F_i / β² + q₀ / β is below that by less than Σ x_i / β² < D / β. Where products
//!   are split, ⌊x_i F_i / β⌋ is summed instead, which takes off less than D / β again. Both together are below 1.
//! - **r** is thus in 0 … 2p − 1, below R, and known from the sum mod R: what the columns carry beyond R is dropped. One subtraction in
//!   the lanes where r ≥ p is left.
//! - **Columns** add up D + 2 products or twice as many halves, see [`check`].

use swarmseal_core::kernels::{Arithmetic, ByteOrder};
use swarmseal_core::{LIMBS, Modulus, Word};

use super::{
    Carry, Lanes, Limbs, MAX_LANES, MAX_WORDS, WORD_BYTES, Words, bits_of, fits, join, split, wipe, word64,
    zeros,
};

/// Fails to compile where a column, or the sum that gives q₁, could overflow, or q₁ and q₀ could be wrong.
pub(crate) const fn check<V: Lanes, const L: usize, const C: usize>(modulus_bits: usize) {
    let digits = modulus_bits.div_ceil(V::BITS as usize);
    assert!(C > 0 && digits <= L && sums_fit::<V>(digits));
    // 2^e below is a number below R.
    assert!((digits + 1) * V::BITS as usize - modulus_bits < 128 && modulus_bits >= 128);
}

/// Whether columns fit a lane, and q₁ is right or one too small, for so many digits.
const fn sums_fit<V: Lanes>(digits: usize) -> bool {
    let limb = (1_u128 << V::BITS) - 1;
    let products = digits as u128 + 2;
    let column = if V::SPLIT { 2 * products * limb } else { products * limb * limb };
    2 * digits as u128 <= limb && fits::<V>(column + limb)
}

/// A constant w < p to multiply by: see the module.
struct Constant<V: Lanes, const L: usize> {
    /// Y_i, of which there are `digits`.
    rows: [[V::Limb; L]; L],
    /// F_i.
    quotients: [V::Limb; L],
    /// p, the row of q₀.
    modulus: [V::Limb; L],
    /// β (R − p), the row of q₁, without its highest limb...
    complement: [V::Limb; L],
    /// ...which is this.
    complement_top: V::Limb,
    digits: usize,
    /// p again, for the last subtraction.
    p: [u64; L],
    /// −p^−1 mod β.
    neg_inv: u64,
}

impl<V: Lanes, const L: usize> Constant<V, L> {
    const LIMB: u64 = (1 << V::BITS) - 1;

    /// Nothing yet. They are large: what is made is made in its place.
    #[inline(always)]
    fn new() -> Self {
        let zero = V::Limb::default();
        Constant {
            rows: [[zero; L]; L],
            quotients: [zero; L],
            modulus: [zero; L],
            complement: [zero; L],
            complement_top: zero,
            digits: 0,
            p: [0; L],
            neg_inv: 0,
        }
    }

    /// `factor`: w 2^B mod p, canonical.
    #[inline(always)]
    fn set<A: Arithmetic>(&mut self, m: &Modulus, factor: &[Word]) {
        let n = m.len();
        let digits = bits_of(m).div_ceil(V::BITS as usize);
        self.set_modulus(limbs_of::<V, L>(m.limbs()), word64(m.neg_inv_words(), 0) & Self::LIMB, digits);
        // The row after the last, w β^(D+1) = (w 2^B) 2^(2B) 2^e / 2^(2B).
        let (mut lifted, mut row, mut power) = ([0; LIMBS], [0; LIMBS], [0; LIMBS]);
        let exponent = (self.digits + 1) * V::BITS as usize - bits_of(m);
        power[exponent / Word::BITS as usize] = 1 << (exponent % Word::BITS as usize);
        A::mont_mul(m, factor, m.r2(), &mut lifted[..n]);
        A::mont_mul(m, &lifted[..n], &power[..n], &mut row[..n]);
        let mut limbs = limbs_of::<V, L>(&row[..n]);
        self.set_rows(&mut limbs);
        for secret in [&mut lifted, &mut row] {
            secret.fill(0);
            core::hint::black_box(secret);
        }
    }

    /// p, −p^−1 mod β, and the digits of a block.
    #[inline(always)]
    fn set_modulus(&mut self, p: [u64; L], neg_inv: u64, digits: usize) {
        (self.p, self.neg_inv, self.digits) = (p, neg_inv, digits);
        for k in 0..L {
            self.modulus[k] = V::limb_of(self.p[k]);
        }
        // R − p: complement every limb and add one, whose carry stops at the lowest limb as p is odd.
        for k in 0..L {
            let limb = V::limb_of((Self::LIMB - self.p[k]) | u64::from(k == 0));
            match self.complement.get_mut(k + 1) {
                Some(complement) => *complement = limb,
                None => self.complement_top = limb,
            }
        }
    }

    /// All rows. `limbs`: the row after the last, w β^(D+1) mod p; they are wiped.
    #[inline(always)]
    fn set_rows(&mut self, limbs: &mut [u64; L]) {
        for i in (0..self.digits).rev() {
            let digit = limbs[0].wrapping_mul(self.neg_inv) & Self::LIMB;
            self.lower(limbs, digit);
            self.quotients[i] = V::limb_of(digit);
            for k in 0..L {
                self.rows[i][k] = V::limb_of(limbs[k]);
            }
        }
        limbs.fill(0);
        core::hint::black_box(limbs);
    }

    /// `y = (y + digit p) / β`, for y < p and the digit that makes the sum 0 mod β: below p again, so y = y' β − digit p for
    /// the result y', and the digit is ⌊y' β / p⌋.
    #[inline(always)]
    fn lower(&self, y: &mut [u64; L], digit: u64) {
        let (mut high, mut carry) = (0, 0);
        for k in 0..L {
            let product = u128::from(digit) * u128::from(self.p[k]);
            let sum = y[k] + (product as u64 & Self::LIMB) + high + carry;
            high = (product >> V::BITS) as u64;
            carry = sum >> V::BITS;
            if k > 0 {
                y[k - 1] = sum & Self::LIMB;
            }
        }
        y[L - 1] = high + carry;
    }

    /// The work's product = x w mod p, canonical, in tiles of C columns and a last one of `REST`.
    #[inline(always)]
    fn mul<const C: usize, const REST: usize>(&self, work: &mut Work<V, L>) {
        let mut ends = Ends { columns: Carry::new(), borrow: V::splat(0), digits: zeros() };
        // The first tile's lowest column gives q₀, and the quotients' sum q₁.
        let (mut low, mut high): ([V; C], [V; C]) = (zeros(), zeros());
        let (mut fractions, mut quotient) = (V::splat(0), V::splat(0));
        for i in 0..self.digits {
            let x = work.x[i];
            let row: &[V::Limb; C] = self.rows[i].first_chunk().expect("C columns");
            V::mul_add(&mut fractions, &mut quotient, x, V::broadcast(self.quotients[i]));
            for c in 0..C {
                V::mul_add(&mut low[c], &mut high[c], x, V::broadcast(row[c]));
            }
        }
        let lowest = V::mul_low(low[0].limb(), V::splat(self.neg_inv));
        quotient = if V::SPLIT {
            quotient.add(lowest).carry()
        } else {
            fractions.add(lowest.shl(V::BITS)).carry().carry()
        };
        ends.digits = [lowest, quotient];
        self.finish(work, &mut ends, (&mut low, &mut high), 0);
        let whole = L / C * C;
        for k in (C..whole).step_by(C) {
            self.tile::<C>(work, &mut ends, k);
        }
        if REST > 0 {
            self.tile::<REST>(work, &mut ends, whole);
        }
        // The last column of the sum, beyond the rows' limbs.
        let (mut low, mut high) = (V::splat(0), V::splat(0));
        V::mul_add(&mut low, &mut high, quotient, V::broadcast(self.complement_top));
        self.close(work, &mut ends, (low, high), L);
        let keep = ends.borrow.equals(V::splat(1));
        for k in 0..L {
            work.product[k] = V::select(keep, work.product[k], work.less[k]);
        }
    }

    /// Columns k..k+N.
    #[inline(always)]
    fn tile<const N: usize>(&self, work: &mut Work<V, L>, ends: &mut Ends<V>, k: usize) {
        let (mut low, mut high): ([V; N], [V; N]) = (zeros(), zeros());
        for i in 0..self.digits {
            let x = work.x[i];
            let row: &[V::Limb; N] = self.rows[i][k..].first_chunk().expect("N columns");
            for c in 0..N {
                V::mul_add(&mut low[c], &mut high[c], x, V::broadcast(row[c]));
            }
        }
        self.finish(work, ends, (&mut low, &mut high), k);
    }

    /// Adds the last two rows and carries the columns out.
    #[inline(always)]
    fn finish<const N: usize>(
        &self,
        work: &mut Work<V, L>,
        ends: &mut Ends<V>,
        (low, high): (&mut [V; N], &mut [V; N]),
        k: usize,
    ) {
        let [lowest, quotient] = ends.digits;
        let modulus: &[V::Limb; N] = self.modulus[k..].first_chunk().expect("N columns");
        let complement: &[V::Limb; N] = self.complement[k..].first_chunk().expect("N columns");
        for c in 0..N {
            V::mul_add(&mut low[c], &mut high[c], lowest, V::broadcast(modulus[c]));
            V::mul_add(&mut low[c], &mut high[c], quotient, V::broadcast(complement[c]));
            self.close(work, ends, (low[c], high[c]), k + c);
        }
    }

    /// Closes a column: the limb below it of r, and of r − p, to choose from in the end. The lowest column leaves nothing but its
    /// carry.
    #[inline(always)]
    fn close(&self, work: &mut Work<V, L>, ends: &mut Ends<V>, (low, high): (V, V), column: usize) {
        let sum = ends.columns.sum(low);
        let limb = ends.columns.close(sum, high);
        let Some(k) = column.checked_sub(1) else { return };
        let difference = limb.sub(V::splat(self.p[k])).sub(ends.borrow);
        ends.borrow = difference.shr(V::WORD - 1);
        work.product[k] = limb;
        work.less[k] = difference.limb();
    }

    #[inline(always)]
    fn wipe(&mut self) {
        for row in self.rows.iter_mut().chain([&mut self.quotients]) {
            row.fill(V::Limb::default());
        }
        core::hint::black_box(&mut self.rows);
        core::hint::black_box(&mut self.quotients);
    }
}

/// What goes from column to column.
struct Ends<V> {
    columns: Carry<V>,
    /// Of r − p.
    borrow: V,
    /// q₀ and q₁.
    digits: [V; 2],
}

/// What is under way for a group of blocks. Kept from group to group, and secret.
struct Work<V, const L: usize> {
    words: Words<V>,
    x: Limbs<V, L>,
    product: Limbs<V, L>,
    /// The product less p.
    less: Limbs<V, L>,
}

impl<V: Lanes, const L: usize> Work<V, L> {
    #[inline(always)]
    fn new() -> Self {
        Work { words: zeros(), x: zeros(), product: zeros(), less: zeros() }
    }

    #[inline(always)]
    fn wipe(&mut self) {
        wipe(&mut self.words);
        wipe(&mut self.x);
        wipe(&mut self.product);
        wipe(&mut self.less);
    }
}

/// A number's limbs, one after the other.
#[inline(always)]
fn limbs_of<V: Lanes, const L: usize>(number: &[Word]) -> [u64; L] {
    let mut limbs = [0; L];
    for (k, limb) in limbs.iter_mut().enumerate() {
        let (word, shift) = (k * V::BITS as usize / 64, (k as u32 * V::BITS) % 64);
        *limb = word64(number, word) >> shift;
        if shift + V::BITS > 64 {
            *limb |= word64(number, word + 1) << (64 - shift);
        }
        *limb &= (1 << V::BITS) - 1;
    }
    limbs
}

/// See [`Kernels::mul_blocks`](swarmseal_core::Kernels::mul_blocks).
#[inline(always)]
pub(crate) fn mul_blocks<V: Lanes, A: Arithmetic, const L: usize, const C: usize, const REST: usize>(
    m: &Modulus,
    factor: &[Word],
    order: ByteOrder,
    blocks: &mut [u8],
) {
    let width = m.len() * WORD_BYTES;
    assert!(blocks.len().is_multiple_of(width));
    let mut constant = Constant::<V, L>::new();
    constant.set::<A>(m, factor);
    let mut work = Work::new();
    let mut padded = [0; MAX_LANES * MAX_WORDS * 8];
    let padded = &mut padded[..V::LANES * width];
    for group in blocks.chunks_mut(V::LANES * width) {
        // One call for whole groups and the rest, so that the kernel is compiled in once.
        let whole = group.len() == padded.len();
        if !whole {
            padded[..group.len()].copy_from_slice(group);
        }
        let room = if whole { &mut *group } else { &mut *padded };
        mul_group::<V, L, C, REST>(&constant, &mut work, order, width, room);
        if !whole {
            group.copy_from_slice(&padded[..group.len()]);
        }
    }
    padded.fill(0);
    core::hint::black_box(padded);
    constant.wipe();
    work.wipe();
}

/// What [`mul_blocks`] does between loading and storing, `groups` times over the same blocks: for the benches.
#[cfg(all(feature = "bench", target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn multiply_alone<V: Lanes, A: Arithmetic, const L: usize, const C: usize, const REST: usize>(
    m: &Modulus,
    factor: &[Word],
    groups: usize,
) -> u64 {
    let mut constant = Constant::<V, L>::new();
    constant.set::<A>(m, factor);
    let mut work = Work::new();
    work.x = super::splat_number(m.r2());
    for _ in 0..groups {
        constant.mul::<C, REST>(core::hint::black_box(&mut work));
    }
    let mut lanes = [0; MAX_LANES];
    work.product[0].write(&mut lanes);
    lanes[0]
}

/// Multiplies a block a lane.
#[inline(always)]
fn mul_group<V: Lanes, const L: usize, const C: usize, const REST: usize>(
    constant: &Constant<V, L>,
    work: &mut Work<V, L>,
    order: ByteOrder,
    width: usize,
    group: &mut [u8],
) {
    if order == ByteOrder::Big {
        group.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
    V::load_blocks(group, &mut work.words[..width / 8]);
    split(&work.words, &mut work.x);
    constant.mul::<C, REST>(work);
    join(&work.product, &mut work.words, width / 8);
    V::store_blocks(&work.words[..width / 8], group);
    if order == ByteOrder::Big {
        group.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::super::small::{BETA, Small, limbs, neg_inverse, number};
    use super::*;

    /// Every block times every w below p: what came before the subtraction of p is counted by its quotient by p, 0 or 1.
    fn every_product<V: Lanes, const L: usize, const C: usize, const REST: usize>(
        p: u64,
        digits: usize,
        beyond: &mut [bool; 2],
    ) {
        const { assert!(sums_fit::<V>(L) && L % C == REST) };
        let r = BETA.pow(L as u32);
        assert!(p % 2 == 1 && 2 * p <= r && p <= BETA.pow(digits as u32) && digits <= L);
        let mut constant = Constant::<V, L>::new();
        constant.set_modulus(limbs(p), neg_inverse(p), digits);
        let mut work = Work::<V, L>::new();
        for w in 0..p {
            constant.set_rows(&mut limbs(w * BETA.pow(digits as u32 + 1) % p));
            for x in 0..BETA.pow(digits as u32) {
                work.x = limbs::<L>(x).map(V::splat);
                constant.mul::<C, REST>(&mut work);
                let product = number(&work.product);
                assert_eq!(product, x * w % p, "{x} by {w} mod {p}");
                // Where r was below p, r − p wrapped.
                beyond[usize::from(number(&work.less) == product)] = true;
            }
        }
    }

    /// Every odd modulus that two limbs have room for, every w and every block of two digits; at three limbs every modulus of two digits
    /// and the sixteen largest, with every w and every block.
    #[test]
    fn products_by_a_constant_are_right_for_all_small_numbers() {
        let mut beyond = [false; 2];
        for p in (3..BETA.pow(2) / 2).step_by(2) {
            every_product::<Small<10, false>, 2, 2, 0>(p, 2, &mut beyond);
            every_product::<Small<8, true>, 2, 1, 0>(p, 2, &mut beyond);
        }
        for p in (3..BETA.pow(2)).step_by(2) {
            every_product::<Small<11, false>, 3, 3, 0>(p, 2, &mut beyond);
            every_product::<Small<8, true>, 3, 2, 1>(p, 2, &mut beyond);
        }
        for p in (BETA.pow(3) / 2 - 32..BETA.pow(3) / 2).filter(|p| p % 2 == 1) {
            every_product::<Small<11, false>, 3, 2, 1>(p, 3, &mut beyond);
            every_product::<Small<8, true>, 3, 3, 0>(p, 3, &mut beyond);
        }
        assert_eq!(beyond, [true; 2], "r was never below p, or always");
    }
}
