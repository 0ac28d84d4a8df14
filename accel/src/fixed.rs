//! Multiplying many blocks by a constant on the scalar kernels: half products instead of whole ones.
//!
//! For a constant w < p, its *inverse* w' = ⌊w R 2^64 / p⌋ of n + 1 words gives the quotient q = ⌊x w' / (R 2^64)⌋ of x w by p, from
//! the upper half of a product, and r = x w − q p is known to one bit above R, so that two lower halves will do: 3/2 n²
//! multiplications instead of 2 n² (Shoup's trick, as in NTL; Harvey, "Faster arithmetic for number-theoretic transforms", 2014).
//!
//! **The quotient is right or one too small.** x w / p − x w' / (R 2^64) < x / (R 2^64) < 2^−64. What [`Halves::quotient`] leaves out of
//! x w' is below 2 n R, 2^−57 of q's lowest bit. So q is ⌊x w / p⌋ or one less, and 0 ≤ r < 2p.
//!
//! **One bit above R is enough.** r < 2p < 2R. Only r mod R is summed, as x w + q (R − p), and the lowest bit of the word above:
//! x w − q p = x w + q (R − p) − q R, so that is the sum's bit, less the lowest of q.

use swarmseal_core::kernels::{Arithmetic, ByteOrder, load, scalar, store};
use swarmseal_core::{LIMBS, Modulus, Word};

use crate::limbs::{BLOCK, in_blocks, subtract_once, wipe};

/// Fewer blocks than this do not pay for the constant's inverse.
const WORTH: usize = 32;

/// Scratch for half a product: a block more than a number at either end.
pub(crate) type Room = [Word; LIMBS + 2 * BLOCK];

/// Half products.
pub(crate) trait Halves: Arithmetic {
    /// `room[8..8 + n] = ⌊x w' / 2^(64 (n + 1))⌋`, of which up to 2 n 2^(64 n) may be left out of x w'. `x` has n words, in_blocks(n), and
    /// `inverse`, which is w', one more.
    fn quotient(x: &[Word], inverse: &[Word], room: &mut Room);

    /// `room[..n] = x w + q c mod 2^(64 n)`, of n words each. The lowest bit of the result is that of the sum's next word.
    fn remainder(x: &[Word], w: &[Word], q: &[Word], c: &[Word], room: &mut Room) -> Word;
}

/// Kernels that go by sweeps.
pub(crate) trait Sweep: Arithmetic {
    /// `t[..n] += x y` for y of 8 words, where `t[n..n + 8]` is set to the words above.
    ///
    /// # Safety
    /// What the backend needs. Readable: 8 words at `y`, `n` at `x`; `n` initialized and `n + 8` writable words at `t`, which
    /// overlaps neither; `n` a multiple of 8, not zero.
    unsafe fn sweep(y: *const Word, x: *const Word, n: usize, t: *mut Word);
}

/// A sweep for every block of the constant, as long as the half product is there.
impl<A: Sweep> Halves for A {
    /// The sweeps have all products of x_i and w'_(j+1) with i + j ≥ n − 1, and of those with i + j = n − 2 all but one a block, whose
    /// high words are added. What is left out: their low words, and less than n products a column below: less than
    /// n 2^128 2^(64 (n − 2)) (1 + 2^−63) + n 2^64 2^(64 (n − 1)) ≤ 2 n 2^(64 n), where w' counts from 2^0.
    fn quotient(x: &[Word], inverse: &[Word], room: &mut Room) {
        let n = x.len();
        assert!(in_blocks(n) && inverse.len() == n + 1);
        // The word at 2^(64 (n − 7)) of x w' comes first: i + j = n − 8.
        room[..BLOCK].fill(0);
        for j in (0..n).step_by(BLOCK) {
            let rows = j + BLOCK;
            // SAFETY: reads w'[j + 1..j + 9] and x[n − rows..n], reads `rows` words of `room`, which are set, and sets the
            // next 8: n + 8 in the end. in_blocks(n). `A` is there where its backend is.
            unsafe {
                A::sweep(inverse.as_ptr().add(j + 1), x.as_ptr().add(n - rows), rows, room.as_mut_ptr());
            }
        }
        let missing = x.iter().rev().zip(inverse).step_by(BLOCK);
        let high = missing.map(|(&x, &w)| (u128::from(x) * u128::from(w)) >> 64);
        let mut carry = ((high.sum::<u128>() + u128::from(room[BLOCK - 1])) >> 64) as Word;
        for word in &mut room[BLOCK..][..n] {
            let overflow;
            (*word, overflow) = word.overflowing_add(carry);
            carry = Word::from(overflow);
        }
    }

    /// The sweeps have all products of x_i and w_j with i + j < n, and of those with i + j = n all but one a block.
    fn remainder(x: &[Word], w: &[Word], q: &[Word], c: &[Word], room: &mut Room) -> Word {
        let n = x.len();
        assert!(in_blocks(n) && w.len() == n && q.len() == n && c.len() == n);
        room[..n].fill(0);
        let mut above = 0;
        for (a, b) in [(x, w), (q, c)] {
            for j in (0..n).step_by(BLOCK) {
                // SAFETY: reads b[j..j + 8] and a[..n − j], reads room[j..n], which is set, and sets the next 8. in_blocks(n).
                // `A` is there where its backend is.
                unsafe { A::sweep(b.as_ptr().add(j), a.as_ptr(), n - j, room.as_mut_ptr().add(j)) };
                above ^= room[n];
                if j > 0 {
                    above ^= a[n - j] & b[j];
                }
            }
        }
        above
    }
}

/// See [`Kernels::mul_blocks`](swarmseal_core::Kernels::mul_blocks).
pub(crate) fn mul_blocks<A: Halves>(m: &Modulus, factor: &[Word], order: ByteOrder, blocks: &mut [u8]) {
    let n = m.len();
    let width = n * size_of::<Word>();
    if !in_blocks(n) || blocks.len() < WORTH * width {
        return scalar::mul_blocks::<A>(m, factor, order, blocks);
    }
    assert!(blocks.len().is_multiple_of(width));
    let mut fixed = Fixed::new::<A>(m, factor);
    let (mut quotient, mut sum) = ([0; LIMBS + 2 * BLOCK], [0; LIMBS + 2 * BLOCK]);
    let (mut block, mut product) = ([0; LIMBS], [0; LIMBS]);
    for bytes in blocks.chunks_exact_mut(width) {
        load(order, bytes, &mut block[..n]);
        A::quotient(&block[..n], &fixed.inverse[..=n], &mut quotient);
        let q = &quotient[BLOCK..][..n];
        let above = A::remainder(&block[..n], &fixed.factor[..n], q, &fixed.complement[..n], &mut sum);
        // SAFETY: `sum` has n words, a multiple of 8.
        unsafe { subtract_once(sum.as_ptr(), (above ^ q[0]) & 1, m.limbs(), &mut product[..n]) };
        store(order, &product[..n], bytes);
    }
    fixed.wipe();
    for room in [&mut quotient[..], &mut sum, &mut block, &mut product] {
        // SAFETY: a slice, of a multiple of 8 words.
        unsafe { wipe(room.as_mut_ptr(), room.len()) };
    }
}

/// A constant w and what goes with it.
struct Fixed {
    factor: [Word; LIMBS],
    /// w', of n + 1 words.
    inverse: [Word; LIMBS + BLOCK],
    /// R − p.
    complement: [Word; LIMBS],
}

impl Fixed {
    /// `factor`: w R mod p.
    fn new<A: Arithmetic>(m: &Modulus, factor: &[Word]) -> Self {
        let n = m.len();
        let mut fixed = Fixed { factor: [0; LIMBS], inverse: [0; LIMBS + BLOCK], complement: [0; LIMBS] };
        let mut power = [0; LIMBS];
        power[0] = 1;
        A::mont_mul(m, &power[..n], factor, &mut fixed.factor[..n]);
        // w R 2^64 = w' p + u, so w' = u (−p^−1) mod R 2^64.
        (power[0], power[1]) = (0, 1);
        let (mut lifted, mut u) = ([0; LIMBS], [0; LIMBS]);
        A::mont_mul(m, &power[..n], m.r2(), &mut lifted[..n]);
        A::mont_mul(m, factor, &lifted[..n], &mut u[..n]);
        for (i, &u) in u[..n].iter().enumerate() {
            let mut carry = 0;
            for (sum, &inverse) in fixed.inverse[i..=n].iter_mut().zip(m.neg_inv_words()) {
                let wide = u128::from(*sum) + u128::from(u) * u128::from(inverse) + carry;
                *sum = wide as Word;
                carry = wide >> 64;
            }
        }
        let mut carry = true;
        for (out, &word) in fixed.complement.iter_mut().zip(m.limbs()) {
            (*out, carry) = (!word).overflowing_add(Word::from(carry));
        }
        // SAFETY: LIMBS words, a multiple of 8.
        unsafe { wipe(u.as_mut_ptr(), LIMBS) };
        fixed
    }

    fn wipe(&mut self) {
        for secret in [&mut self.factor[..], &mut self.inverse] {
            // SAFETY: a slice, of a multiple of 8 words.
            unsafe { wipe(secret.as_mut_ptr(), secret.len()) };
        }
    }
}
