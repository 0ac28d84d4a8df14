//! Cipher hashes (paper, section 2.3): what our own ciphertext of each piece hashes to, as a trusted seed computed it.

use std::sync::{PoisonError, RwLock};

use sha1::{Digest, Sha1};

/// Those that are known so far: from the first piece on.
#[derive(Debug, Default)]
pub(crate) struct CipherHashes(RwLock<Vec<[u8; 20]>>);

impl CipherHashes {
    /// How many are known.
    pub(crate) fn count(&self) -> u32 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u32
    }

    /// Those that follow.
    pub(crate) fn add(&self, hashes: &[[u8; 20]]) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).extend_from_slice(hashes);
    }

    /// Whether a piece is what its hash says; `true` as long as it is not known.
    pub(crate) fn allow(&self, piece: u32, data: &[u8]) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(piece as usize).copied();
        known.is_none_or(|hash| hash == <[u8; 20]>::from(Sha1::digest(data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_allowed() {
        let hashes = CipherHashes::default();
        assert!(hashes.allow(0, b"a"));
        hashes.add(&[Sha1::digest(b"a").into()]);
        assert_eq!(hashes.count(), 1);
        assert!(hashes.allow(0, b"a") && !hashes.allow(0, b"b") && hashes.allow(1, b"b"));
    }
}
