//! Multiplying many blocks by a constant w < p on the scalar kernels: a product of two matrices, blocks by words.
//!
//! As the lane kernels do it (`lanes/constant.rs`), in the radix b = 2^64 and with R = b^n. With the rows Y_i = w b^(i+1) mod p,
//! Σ x_i Y_i ≡ x w b for a block x = Σ x_i b^i < R. It has one word more than p at either end to be rid of: of the lower, a step of
//! Montgomery's does away with it, and the upper goes with a small multiple of p. Two more rows do that, p and b (R − p):
//!
//! ```text
//! r = (Σ x_i Y_i + q₀ p) / b − q₁ p = (Σ x_i Y_i + q₀ p + q₁ b (R − p)) / b − q₁ R
//! ```
//!
//! So n² + 3 n multiplications do where a product and a reduction take 2 n², and half products 3/2 n² (Shoup's trick). The rows are n²
//! words, made once for a call, and secret as w is: they are wiped.
//!
//! **The rows** are made from the highest down. For y = Y_(i+1) < p, the word F that makes y + F p divisible by b gives
//! Y_i = (y + F p) / b < p. So Y_i b = y + F p, and F = F_i = ⌊Y_i b / p⌋: the word that a row loses on the way to the next.
//!
//! **Before q₁** the sum is (Σ x_i Y_i + q₀ p) / b < (n b p + b p) / b = (n + 1) p, with q₀ < b the word that makes its lowest column 0.
//!
//! **The quotient is right or one too small.** By p it is the floor of Σ x_i Y_i / (b p) + q₀ / b, and Y_i / p − F_i / b is in [0, 1/b).
//! So Σ x_i F_i / b² + q₀ / b is below that by less than Σ x_i / b² < n / b. Of x_i F_i / b only the whole part is summed, which takes off
//! less than n / b again. Both together are below 2^−57, so q₁ = ⌊(Σ ⌊x_i F_i / b⌋ + q₀) / b⌋ is the quotient or one less, 0 ≤ r < 2p, and
//! q₁ ≤ n. Nothing of this asks that p be near R.
//!
//! **One bit above R is enough.** The whole sum divided by b is r + q₁ R, and r < 2p < 2R: it has n + 1 words, of which the highest, less
//! q₁, is the bit of r above R. One subtraction makes it canonical.
//!
//! **No carry is lost.** The columns are summed in tiles of C, to which C words of each row belong. A tile sums n + 2 ≤ 66 products below
//! b^(C+1), and the two words that the tile before it left above its own. Those are below b², so the sum is below 67 b^(C+1), which takes
//! C + 2 words, and leaves less than 67 b, two words again. Column n has only what is left, and q₁ times the highest word of R − p. The sum
//! for q₁ is below n b + b.

use swarmseal_core::kernels::{Arithmetic, ByteOrder, load, scalar, store};
use swarmseal_core::{LIMBS, Modulus, Word};

use crate::limbs::{BLOCK, in_blocks, subtract_once, wipe};

/// Fewer blocks than this do not pay for the constant's rows.
const WORTH: usize = 16;

/// Rows besides those of w: of q₀ and q₁.
const ENDS: usize = 2;

/// A tile's sum: the two highest words are above its columns. Narrower tiles leave the rest zero.
pub(crate) type Sum = [Word; BLOCK + 2];

/// Kernels that sum columns.
pub(crate) trait Tiles: Arithmetic {
    /// Columns that are summed at a time, C: a divisor of 8.
    const COLUMNS: usize;

    /// `sum += Σ x_i y_i`, where `y` has a row of C words for each word of `x`, the last row first. C + 2 words of `sum` are enough for
    /// that; `x` has an even number of words, not zero.
    fn add_rows(x: &[Word], y: &[Word], sum: &mut Sum);
}

/// See [`Kernels::mul_blocks`](swarmseal_core::Kernels::mul_blocks).
pub(crate) fn mul_blocks<A: Tiles>(m: &Modulus, factor: &[Word], order: ByteOrder, blocks: &mut [u8]) {
    let n = m.len();
    let width = n * size_of::<Word>();
    if !in_blocks(n) || blocks.len() < WORTH * width {
        return scalar::mul_blocks::<A>(m, factor, order, blocks);
    }
    assert!(blocks.len().is_multiple_of(width));
    let mut fixed = Fixed::new();
    fixed.set::<A>(m, factor);
    let mut work = Work::new();
    for bytes in blocks.chunks_exact_mut(width) {
        load(order, bytes, &mut work.x[..n]);
        fixed.mul::<A>(m, &mut work);
        store(order, &work.product[..n], bytes);
    }
    fixed.wipe(n);
    work.wipe();
}

/// A constant w and what goes with it: see the module.
struct Fixed {
    /// All rows, Y_i, then p and b (R − p), as [`Fixed::place`] has them.
    rows: [Word; LIMBS * (LIMBS + ENDS)],
    /// F_i.
    quotients: [Word; LIMBS],
    /// The highest word of R − p, which the rows have no place for.
    top: Word,
}

impl Fixed {
    /// Nothing yet. The rows are large: they are made in their place.
    fn new() -> Self {
        Fixed { rows: [0; LIMBS * (LIMBS + ENDS)], quotients: [0; LIMBS], top: 0 }
    }

    /// `factor`: w R mod p, canonical.
    fn set<A: Tiles>(&mut self, m: &Modulus, factor: &[Word]) {
        let n = m.len();
        // The row after the last, w b^(n+1) = (w R) R² b / R².
        let (mut b, mut lifted, mut row) = ([0; LIMBS], [0; LIMBS], [0; LIMBS]);
        b[1] = 1;
        A::mont_mul(m, factor, m.r2(), &mut lifted[..n]);
        A::mont_mul(m, &b[..n], &lifted[..n], &mut row[..n]);
        for i in (0..n).rev() {
            self.quotients[i] = lower(m, &mut row[..n]);
            self.place::<A>(i, &row[..n]);
        }
        self.place::<A>(n, m.limbs());
        let (mut shifted, mut carry) = ([0; LIMBS + 1], true);
        for (out, &word) in shifted[1..].iter_mut().zip(m.limbs()) {
            (*out, carry) = (!word).overflowing_add(Word::from(carry));
        }
        self.place::<A>(n + 1, &shifted[..n]);
        self.top = shifted[n];
        for secret in [&mut lifted, &mut row] {
            // SAFETY: LIMBS words, a multiple of 8.
            unsafe { wipe(secret.as_mut_ptr(), LIMBS) };
        }
    }

    /// Puts row `i` in its place: tile by tile, and in a tile from the last row to the first.
    fn place<A: Tiles>(&mut self, i: usize, row: &[Word]) {
        let rows = row.len() + ENDS;
        let tiles = self.rows.chunks_exact_mut(rows * A::COLUMNS);
        for (tile, words) in tiles.zip(row.chunks_exact(A::COLUMNS)) {
            tile[(rows - 1 - i) * A::COLUMNS..][..A::COLUMNS].copy_from_slice(words);
        }
    }

    /// The work's product = x w mod p, canonical.
    fn mul<A: Tiles>(&self, m: &Modulus, work: &mut Work) {
        let n = m.len();
        let rows = n + ENDS;
        let Work { x, sum, columns, product } = work;
        let high =
            x[..n].iter().zip(&self.quotients).map(|(&x, &f)| (u128::from(x) * u128::from(f)) >> Word::BITS);
        let high: u128 = high.sum();
        *sum = [0; BLOCK + 2];
        let tiles = self.rows.chunks_exact(rows * A::COLUMNS).zip(columns[..n].chunks_exact_mut(A::COLUMNS));
        for (k, (tile, columns)) in tiles.enumerate() {
            if k == 0 {
                let (ends, tile) = tile.split_at(ENDS * A::COLUMNS);
                A::add_rows(&x[..n], tile, sum);
                x[n] = sum[0].wrapping_mul(m.neg_inv());
                x[n + 1] = ((high + u128::from(x[n])) >> Word::BITS) as Word;
                A::add_rows(&x[n..rows], ends, sum);
            } else {
                A::add_rows(&x[..rows], tile, sum);
            }
            columns.copy_from_slice(&sum[..A::COLUMNS]);
            let [low, high] = [sum[A::COLUMNS], sum[A::COLUMNS + 1]];
            *sum = [0; BLOCK + 2];
            (sum[0], sum[1]) = (low, high);
        }
        let left = u128::from(sum[0]) | (u128::from(sum[1]) << Word::BITS);
        let left = left + u128::from(x[n + 1]) * u128::from(self.top);
        columns[n] = left as Word;
        let above = ((left >> Word::BITS) as Word).wrapping_sub(x[n + 1]);
        // SAFETY: `columns` has more than n + 1 words; n is a multiple of 8.
        unsafe { subtract_once(columns[1..].as_ptr(), above, m.limbs(), &mut product[..n]) };
    }

    /// Of numbers of n words.
    fn wipe(&mut self, n: usize) {
        for secret in [&mut self.rows[..n * (n + ENDS)], &mut self.quotients] {
            // SAFETY: a slice, of a multiple of 8 words.
            unsafe { wipe(secret.as_mut_ptr(), secret.len()) };
        }
    }
}

/// `y = (y + F p) / b` for y < p, and F: see the module.
fn lower(m: &Modulus, y: &mut [Word]) -> Word {
    let f = y[0].wrapping_mul(m.neg_inv());
    let mut carry = 0;
    for k in 0..y.len() {
        let wide = u128::from(y[k]) + u128::from(f) * u128::from(m.limbs()[k]) + carry;
        carry = wide >> Word::BITS;
        if k > 0 {
            y[k - 1] = wide as Word;
        }
    }
    y[y.len() - 1] = carry as Word;
    f
}

/// What is under way for a block. Kept from block to block, and secret.
struct Work {
    /// The block, q₀ and q₁.
    x: [Word; LIMBS + BLOCK],
    /// Of the tile.
    sum: Sum,
    /// The whole sum, without its highest word.
    columns: [Word; LIMBS + BLOCK],
    product: [Word; LIMBS],
}

impl Work {
    fn new() -> Self {
        Work { x: [0; LIMBS + BLOCK], sum: [0; BLOCK + 2], columns: [0; LIMBS + BLOCK], product: [0; LIMBS] }
    }

    fn wipe(&mut self) {
        for secret in [&mut self.x[..], &mut self.columns, &mut self.product] {
            // SAFETY: a slice, of a multiple of 8 words.
            unsafe { wipe(secret.as_mut_ptr(), secret.len()) };
        }
        // SAFETY: 8 words, and the 8 that end with the last.
        unsafe {
            wipe(self.sum.as_mut_ptr(), BLOCK);
            wipe(self.sum[2..].as_mut_ptr(), BLOCK);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
    use crypto_bigint::{NonZero, Odd, U4096};
    use swarmseal_core::{Group, Kernels};

    use super::*;

    /// Words of the numbers here: products, and the sum before it is divided by p, fit twice as many.
    const N: usize = LIMBS / 2;

    /// What a backend has met.
    #[derive(Default)]
    struct Seen {
        quotient_too_small: bool,
        beyond_r: bool,
        quotient_zero: bool,
        /// The largest quotient.
        largest: Word,
    }

    fn wide(words: &[Word]) -> U4096 {
        let mut wide = [0; LIMBS];
        wide[..words.len()].copy_from_slice(words);
        U4096::from_words(wide)
    }

    /// Row `i` of those that are made.
    fn row<A: Tiles>(fixed: &Fixed, i: usize) -> U4096 {
        let tiles = fixed.rows.chunks_exact((N + ENDS) * A::COLUMNS).take(N / A::COLUMNS);
        let words: Vec<Word> =
            tiles.flat_map(|tile| &tile[(N + ENDS - 1 - i) * A::COLUMNS..][..A::COLUMNS]).copied().collect();
        wide(&words)
    }

    /// Every row and every block's quotient, remainder and product by long division.
    fn check<A: Tiles>(m: &Modulus, w: &U4096, blocks: &[U4096], seen: &mut Seen) {
        let p = NonZero::new(wide(m.limbs())).unwrap();
        let r = U4096::ONE.shl_vartime(Word::BITS * N as u32);
        let mut fixed = Fixed::new();
        fixed.set::<A>(m, &w.wrapping_mul(&r).rem_vartime(&p).to_words()[..N]);
        let mut y = *w;
        for i in 0..=N {
            let (quotient, next) = y.shl_vartime(Word::BITS).div_rem_vartime(&p);
            if i > 0 {
                assert_eq!(row::<A>(&fixed, i - 1), y, "{} row {i}", A::NAME);
                assert_eq!(U4096::from_u64(fixed.quotients[i - 1]), quotient, "{} row {i}", A::NAME);
            }
            y = next;
        }
        let mut work = Work::new();
        for x in blocks {
            work.x[..N].copy_from_slice(&x.to_words()[..N]);
            fixed.mul::<A>(m, &mut work);
            let product = x.wrapping_mul(w).rem_vartime(&p);
            assert_eq!(wide(&work.product[..N]), product, "{} {x} by {w} mod {p}", A::NAME);
            let rows = (0..N).map(|i| row::<A>(&fixed, i)).chain([*p]);
            let sum = rows
                .zip(&work.x)
                .fold(U4096::ZERO, |sum, (row, &x)| sum.wrapping_add(&row.wrapping_mul(&U4096::from_u64(x))));
            assert_eq!(sum.to_words()[0], 0, "{} lowest column", A::NAME);
            let sum = sum.shr_vartime(Word::BITS);
            let exact = sum.div_rem_vartime(&p).0.to_words()[0];
            let quotient = work.x[N + 1];
            assert!(quotient == exact || quotient + 1 == exact, "{} {quotient} {exact}", A::NAME);
            seen.quotient_too_small |= quotient != exact;
            seen.beyond_r |= sum.wrapping_sub(&p.wrapping_mul(&U4096::from_u64(quotient))) >= r;
            seen.quotient_zero |= quotient == 0;
            seen.largest = seen.largest.max(quotient);
        }
    }

    fn check_backend<A: Tiles>() {
        let top = 1 << (Word::BITS - 1);
        let group = Group::ffdhe2048(Kernels::portable());
        let mut half = [0; N];
        half[..N / 2].fill(Word::MAX);
        let mut least = [0; N];
        (least[0], least[N - 1]) = (1, top);
        let mut three = [0; N];
        three[0] = 3;
        let of = |words: &[Word]| Modulus::from_words(words).unwrap();
        let mut seen = Seen::default();
        for m in [of(group.modulus().limbs()), of(&[Word::MAX; N]), of(&half), of(&least), of(&three)] {
            let p = wide(m.limbs());
            let params = FixedMontyParams::new_vartime(Odd::new(p).unwrap());
            for w in [U4096::ONE, p.wrapping_sub(&U4096::ONE), wide(m.one()), wide(m.r2())] {
                let all_ones = wide(&[Word::MAX; N]);
                let mut blocks =
                    vec![U4096::ZERO, U4096::ONE, p, all_ones, all_ones.wrapping_sub(&U4096::ONE)];
                // Blocks whose products are these.
                let residues = (54..70).map(|below| U4096::ONE.shl_vartime(Word::BITS * N as u32 - below));
                let form = |number: &U4096| {
                    FixedMontyForm::new(&number.rem_vartime(&NonZero::new(p).unwrap()), &params)
                };
                let inverse: Option<FixedMontyForm<LIMBS>> = form(&w).invert().into();
                if let Some(inverse) = inverse {
                    let residues = residues.chain([U4096::ONE, p.wrapping_sub(&U4096::ONE)]);
                    blocks.extend(residues.map(|t| (form(&t) * inverse).retrieve()));
                }
                check::<A>(&m, &w, &blocks, &mut seen);
            }
        }
        assert!(seen.quotient_too_small && seen.beyond_r && seen.quotient_zero, "{}", A::NAME);
        assert!((N as Word - 1..=N as Word).contains(&seen.largest), "{} {}", A::NAME, seen.largest);
    }

    #[test]
    fn rows_quotients_and_remainders_are_those_of_long_division() {
        #[cfg(target_arch = "x86_64")]
        {
            check_backend::<crate::mul::Mul>();
            if crate::by_name(crate::adx::Adx::NAME).is_some() {
                check_backend::<crate::adx::Adx>();
            }
        }
        #[cfg(target_arch = "aarch64")]
        check_backend::<crate::umulh::Umulh>();
    }
}
