//! What tells whether a piece is what it should be, as it comes (paper, section 2.3): cipher hashes, which is to say what our own
//! ciphertext of each piece hashes to, as a trusted seed computed it; or a license.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use sha1::{Digest, Sha1};

/// Somebody who can open pieces. Called where blocking is allowed.
pub trait PieceCheck: Send + Sync {
    /// Whether a whole piece, encrypted for us in `epoch`, opens to what was published; `None` where that cannot be told, for want of
    /// a license. `hash`: BLAKE3 of the ciphertext.
    fn check(&self, piece: u32, epoch: u64, ciphertext: &[u8], hash: &[u8; 32]) -> Option<bool>;
}

/// The hashes of one epoch that are known so far, from the first piece on, and who else can tell.
#[derive(Default)]
pub(crate) struct CipherHashes {
    known: RwLock<Known>,
    check: Option<Arc<dyn PieceCheck>>,
    /// Whether it is asked.
    suspicious: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    epoch: u64,
    hashes: Vec<[u8; 20]>,
}

impl CipherHashes {
    /// None is known yet. `check`: asked about pieces whose hash is not known, where `suspicious` or once
    /// [`CipherHashes::suspect`] is called.
    pub(crate) fn new(check: Option<Arc<dyn PieceCheck>>, suspicious: bool) -> Self {
        CipherHashes { known: RwLock::default(), check, suspicious: suspicious.into() }
    }

    /// Bad pieces are about: from now on each is checked.
    pub(crate) fn suspect(&self) {
        self.suspicious.store(true, Ordering::Relaxed);
    }

    /// From now on those of this epoch count.
    pub(crate) fn begin(&self, epoch: u64) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.epoch != epoch {
            *known = Known { epoch, hashes: Vec::new() };
        }
    }

    /// How many are known.
    pub(crate) fn count(&self) -> u32 {
        self.known.read().unwrap_or_else(PoisonError::into_inner).hashes.len() as u32
    }

    /// Those that follow.
    pub(crate) fn add(&self, hashes: &[[u8; 20]]) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).hashes.extend_from_slice(hashes);
    }

    /// Whether a piece is what it should be; `true` where nobody can tell. `blake3`: of the piece. Blocks for as long as a hash and PDec
    /// take.
    pub(crate) fn allow(&self, epoch: u64, piece: u32, data: &[u8], blake3: &[u8; 32]) -> bool {
        match self.hash(epoch, piece) {
            Some(hash) => hash == <[u8; 20]>::from(Sha1::digest(data)),
            None => {
                let check = self.check.as_ref().filter(|_| self.suspicious.load(Ordering::Relaxed));
                check.and_then(|check| check.check(piece, epoch, data, blake3)).unwrap_or(true)
            }
        }
    }

    fn hash(&self, epoch: u64, piece: u32) -> Option<[u8; 20]> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.hashes.get(piece as usize).copied().filter(|_| known.epoch == epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(hashes: &CipherHashes, epoch: u64, piece: u32, data: &[u8]) -> bool {
        hashes.allow(epoch, piece, data, blake3::hash(data).as_bytes())
    }

    #[test]
    fn what_is_not_known_is_allowed() {
        let hashes = CipherHashes::default();
        hashes.begin(3);
        assert!(allow(&hashes, 3, 0, b"a"));
        hashes.add(&[Sha1::digest(b"a").into()]);
        assert_eq!(hashes.count(), 1);
        assert!(allow(&hashes, 3, 0, b"a") && !allow(&hashes, 3, 0, b"b") && allow(&hashes, 3, 1, b"b"));
        assert!(allow(&hashes, 4, 0, b"b"));
        hashes.begin(3);
        assert_eq!(hashes.count(), 1);
        hashes.begin(4);
        assert!(hashes.count() == 0 && allow(&hashes, 4, 0, b"b"));
    }

    /// Knows that everything of epoch 1 is `good`.
    struct Good;

    impl PieceCheck for Good {
        fn check(&self, _: u32, epoch: u64, ciphertext: &[u8], _: &[u8; 32]) -> Option<bool> {
            (epoch == 1).then_some(ciphertext == b"good")
        }
    }

    #[test]
    fn a_license_tells_where_no_hash_does() {
        let hashes = CipherHashes::new(Some(Arc::new(Good)), false);
        hashes.begin(1);
        assert!(allow(&hashes, 1, 0, b"bad"), "nobody has reason to look");
        hashes.suspect();
        assert!(
            allow(&hashes, 1, 0, b"good") && !allow(&hashes, 1, 0, b"bad") && allow(&hashes, 2, 0, b"bad")
        );
        hashes.add(&[Sha1::digest(b"bad").into()]);
        assert!(allow(&hashes, 1, 0, b"bad") && !allow(&hashes, 1, 1, b"bad"));
    }
}
