//! Cipher hashes (paper, section 2.3): what a subscriber's ciphertext of each piece hashes to. Whoever has the plaintext and
//! the subscriber's encryption keys can tell.

use sha1::{Digest, Sha1};
use swarmseal_core::{EncryptionKey, encrypt_piece};
use zeroize::Zeroizing;

use super::{Error, Packager};
use crate::wire::personal::CipherHash;

impl Packager {
    /// SHA-1 of a subscriber's ciphertext of piece `first` and those that follow; of clear pieces, that of the .torrent. `keys`: its
    /// encryption keys of those pieces, W bytes each, of which those of clear ones are not looked at. `wait` is told the bytes of each piece before it is begun, to keep to a rate.
    ///
    /// Blocks. Errors: [`Error::Core`] where a key is none, and those of [`Packager::read_packaged`].
    pub fn cipher_hashes(
        &self,
        first: u32,
        keys: &[u8],
        mut wait: impl FnMut(usize),
    ) -> Result<Vec<CipherHash>, Error> {
        let mut piece = Zeroizing::new(vec![0; self.piece_length as usize]);
        let keys = keys.chunks_exact(self.params.group().bytes());
        let mut hashes = Vec::with_capacity(keys.len());
        for (index, key) in (first..).zip(keys) {
            if self.is_clear(index) {
                hashes.push(*self.hashes.get(index as usize).ok_or(Error::NoSuchPiece { index })?);
                continue;
            }
            wait(piece.len());
            self.read_packaged(index, &mut piece)?;
            encrypt_piece(&self.params, &EncryptionKey::from_bytes(&self.params, key)?, &mut piece)?;
            hashes.push(Sha1::digest(&*piece).into());
        }
        Ok(hashes)
    }
}
