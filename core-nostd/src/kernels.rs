//! The seam between the scheme and the machine: the operations that a backend provides.

mod portable;

use core::fmt;

use crypto_bigint::Word;

pub use crate::bytes::ByteOrder;
pub use crate::exponent::Exponent;
use crate::modulus::Modulus;

/// A backend's operations over limb slices and blocks. Chosen once, stored in a
/// [`Group`](crate::Group), and passed along with it.
///
/// Slices of words are `modulus.len()` long, least significant word first, and "mont" numbers are
/// a·R mod m. Every operation's time depends on the modulus, the lengths and the exponent's width
/// alone. A backend fills what it does better and takes the rest from [`Kernels::portable`]:
/// `Kernels { name: "mine", mont_mul, ..*Kernels::portable() }`.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// The backend's name, as `SWARMSEAL_BACKEND` and the benches know it.
    pub name: &'static str,
    /// `out = a b R^−1 mod m`, canonical. Bounds: a < R, b < m.
    pub mont_mul: fn(m: &Modulus, a: &[Word], b: &[Word], out: &mut [Word]),
    /// Multiplies every block by a constant, in place. `factor` is mont, below m; `blocks` is a whole number of
    /// blocks of W bytes; a block may be any number below R; the result is canonical. PEnc, T and PDec.
    pub mul_blocks: fn(m: &Modulus, factor: &[Word], order: ByteOrder, blocks: &mut [u8]),
    /// `out = base^exponent`, both mont. Bounds: base < m.
    pub modpow: fn(m: &Modulus, base: &[Word], exponent: &Exponent, out: &mut [Word]),
}

impl Kernels {
    /// Plain Rust for any machine, on 32- or 64-bit words: what every other backend must equal.
    pub const fn portable() -> &'static Kernels {
        &portable::KERNELS
    }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernels").field("name", &self.name).finish_non_exhaustive()
    }
}
