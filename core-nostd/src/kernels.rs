//! The seam between the scheme and the machine: the operations that a backend provides.
//!
//! A backend for one number at a time implements [`Arithmetic`] and has everything else from [`Kernels::scalar`]; one
//! that works on several numbers at once fills a [`Kernels`] by hand, from scalar parts where they win.

mod portable;
pub mod scalar;

use core::fmt;

use crypto_bigint::Word;

pub use crate::bytes::{ByteOrder, load, store};
pub use crate::exponent::Exponent;
use crate::modulus::Modulus;
pub use portable::Portable;
pub use scalar::Arithmetic;

/// A backend's operations over limb slices and blocks. Chosen once, stored in a
/// [`Group`](crate::Group), and passed along with it.
///
/// Slices of words are `modulus.len()` long, least significant word first, and "mont" numbers are
/// a·R mod m. Every operation's time depends on the modulus, the lengths and the exponents' widths
/// alone. All panic on slices of other lengths.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// The backend's name, as `SWARMSEAL_BACKEND` and the benches know it.
    pub name: &'static str,
    /// `out = a b R^−1 mod m`, canonical. Bounds: a < R, b < m.
    pub mont_mul: fn(m: &Modulus, a: &[Word], b: &[Word], out: &mut [Word]),
    /// `out = a² R^−1 mod m`, canonical. Bounds: a < m.
    pub mont_sqr: fn(m: &Modulus, a: &[Word], out: &mut [Word]),
    /// Multiplies every block by a constant, in place. `factor` is mont, below m; `blocks` is a whole number of
    /// blocks of W bytes; a block may be any number below R; the result is canonical. PEnc, T and PDec.
    pub mul_blocks: fn(m: &Modulus, factor: &[Word], order: ByteOrder, blocks: &mut [u8]),
    /// `out = base^exponent`, both mont. Bounds: base < m.
    pub modpow: fn(m: &Modulus, base: &[Word], exponent: &Exponent, out: &mut [Word]),
    /// Several powers, one after the other in `out`, all of one length. Faster than as many single ones.
    pub modpow_batch: fn(powers: &[Power<'_>], out: &mut [Word]),
    /// 2^exponent mod m, mont, for several m of one length, one after the other in `out`: a test of public candidates for
    /// primes. The exponents are public: the time depends on them.
    pub two_pow_batch_vartime: fn(powers: &[TwoPower<'_>], out: &mut [Word]),
    /// Words of a table for [`Kernels::comb_fill`]. `bits` is the width of the exponents.
    pub comb_words: fn(m: &Modulus, bits: usize) -> usize,
    /// Fills a table of powers of `base` (mont, below m), in the backend's own layout.
    pub comb_fill: fn(m: &Modulus, base: &[Word], bits: usize, table: &mut [Word]),
    /// Products of powers of fixed bases: for each i, `out[i] = ∏ base_c^(exponent_c[i])` over the combs c, one after
    /// the other in `out`. All combs have tables for `bits` and equally many exponents.
    pub comb_pow: fn(m: &Modulus, bits: usize, combs: &[Comb<'_>], out: &mut [Word]),
}

/// One power of a [`Kernels::modpow_batch`].
#[derive(Clone, Copy)]
pub struct Power<'a> {
    /// m. Its length is that of its neighbours; its value may differ.
    pub modulus: &'a Modulus,
    /// Mont, below m.
    pub base: &'a [Word],
    /// Its width may differ from its neighbours': the widest sets the time.
    pub exponent: &'a Exponent,
}

/// One power of a [`Kernels::two_pow_batch_vartime`].
#[derive(Clone, Copy)]
pub struct TwoPower<'a> {
    /// m > 2. Its length is that of its neighbours; its value may differ.
    pub modulus: &'a Modulus,
    /// Public.
    pub exponent: &'a Exponent,
}

/// One fixed base of a [`Kernels::comb_pow`] with the exponents to raise it to.
#[derive(Clone, Copy)]
pub struct Comb<'a> {
    /// What [`Kernels::comb_fill`] of the same backend, modulus and width made.
    pub table: &'a [Word],
    /// At most as wide as the table.
    pub exponents: &'a [&'a Exponent],
}

impl Kernels {
    /// Plain Rust for any machine, on 32- or 64-bit words: what every other backend must equal.
    pub const fn portable() -> &'static Kernels {
        const { &Kernels::scalar::<Portable>() }
    }

    /// Everything from one number's multiplication and squaring.
    pub const fn scalar<A: Arithmetic>() -> Kernels {
        Kernels {
            name: A::NAME,
            mont_mul: A::mont_mul,
            mont_sqr: A::mont_sqr,
            mul_blocks: A::mul_blocks,
            modpow: scalar::modpow::<A>,
            modpow_batch: scalar::modpow_batch::<A>,
            two_pow_batch_vartime: scalar::two_pow_batch_vartime::<A>,
            comb_words: scalar::comb_words,
            comb_fill: scalar::comb_fill::<A>,
            comb_pow: scalar::comb_pow::<A>,
        }
    }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernels").field("name", &self.name).finish_non_exhaustive()
    }
}
