//! BLAKE3 key derivation with length-prefixed fields.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A KDF in progress: `derive_key` mode, every field preceded by its length as 64-bit little-endian. Zeroized on drop, for what it
/// has taken in can be gone on with.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Kdf(blake3::Hasher);

impl Kdf {
    /// `context` is `swarmseal v1 <purpose>`, a constant of the program.
    pub(crate) fn new(context: &'static str) -> Self {
        Kdf(blake3::Hasher::new_derive_key(context))
    }

    /// Takes a field of bytes.
    pub(crate) fn field(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Takes a number, as a field of 8 bytes.
    pub(crate) fn number(self, number: u64) -> Self {
        self.field(&number.to_le_bytes())
    }

    /// 32 bytes.
    pub(crate) fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    /// The extendable output.
    pub(crate) fn reader(self) -> blake3::OutputReader {
        self.0.finalize_xof()
    }

    /// Fills `out` from the extendable output.
    pub(crate) fn fill(self, out: &mut [u8]) {
        self.reader().fill(out);
    }
}
