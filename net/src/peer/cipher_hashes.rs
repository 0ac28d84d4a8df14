//! Cipher hashes (paper, section 2.3): what our own ciphertext of each piece hashes to, as a trusted seed computed it.

use std::sync::{PoisonError, RwLock};

use sha1::{Digest, Sha1};

/// Those of one epoch that are known so far: from the first piece on.
#[derive(Debug, Default)]
pub(crate) struct CipherHashes(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    epoch: u64,
    hashes: Vec<[u8; 20]>,
}

impl CipherHashes {
    /// From now on those of this epoch count.
    pub(crate) fn begin(&self, epoch: u64) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.epoch != epoch {
            *known = Known { epoch, hashes: Vec::new() };
        }
    }

    /// How many are known.
    pub(crate) fn count(&self) -> u32 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).hashes.len() as u32
    }

    /// Those that follow.
    pub(crate) fn add(&self, hashes: &[[u8; 20]]) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).hashes.extend_from_slice(hashes);
    }

    /// Whether a piece is what its hash says; `true` as long as it is not known.
    pub(crate) fn allow(&self, epoch: u64, piece: u32, data: &[u8]) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = known.hashes.get(piece as usize).copied().filter(|_| known.epoch == epoch);
        known.is_none_or(|hash| hash == <[u8; 20]>::from(Sha1::digest(data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_allowed() {
        let hashes = CipherHashes::default();
        hashes.begin(3);
        assert!(hashes.allow(3, 0, b"a"));
        hashes.add(&[Sha1::digest(b"a").into()]);
        assert_eq!(hashes.count(), 1);
        assert!(hashes.allow(3, 0, b"a") && !hashes.allow(3, 0, b"b") && hashes.allow(3, 1, b"b"));
        assert!(hashes.allow(4, 0, b"b"));
        hashes.begin(3);
        assert_eq!(hashes.count(), 1);
        hashes.begin(4);
        assert!(hashes.count() == 0 && hashes.allow(4, 0, b"b"));
    }
}
