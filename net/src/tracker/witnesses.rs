//! Witness secrets, one for each torrent, each in a file of its own beside the master keys: in no backup, one line of hexadecimal or,
//! under the passphrase of the master keys, what [`crate::wire::keyfile`] describes.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use getrandom::SysRng;
use rand_core::UnwrapErr;
use subtle::ConstantTimeEq;
use swarmseal_core::{TorrentId, WitnessSecret};

use super::secret_files::{self, SecretFileError};
use crate::atomic_file::Existing;
use crate::wire::keyfile::{Passphrase, SealedWitness};

/// The directory of the witness secrets.
pub(super) struct Witnesses {
    directory: PathBuf,
    passphrase: Option<Passphrase>,
    writing: Mutex<()>,
}

impl Witnesses {
    /// Makes the directory, if it is not there.
    pub(super) fn open(directory: &Path, passphrase: Option<Passphrase>) -> Result<Self, SecretFileError> {
        secret_files::create_directory(directory)?;
        Ok(Witnesses { directory: directory.to_owned(), passphrase, writing: Mutex::default() })
    }

    /// The secret of a torrent, if its file is there. With a passphrase, one that lies there in clear is sealed. Blocks. Errors:
    /// [`SecretFileError::Sealed`] where it is under a passphrase and there is none, [`SecretFileError::OtherPassphrase`].
    pub(super) fn find(&self, torrent: &TorrentId) -> Result<Option<WitnessSecret>, SecretFileError> {
        let path = Self::path(&self.directory, torrent);
        let passphrase = self.passphrase.as_ref();
        let found = secret_files::read_sealed(&path, SealedWitness::KIND, passphrase, |file, passphrase| {
            let sealed = SealedWitness::from_key_file(file)?;
            // Under another name it is another torrent's.
            Ok((sealed.torrent == *torrent).then(|| sealed.open(passphrase)).flatten())
        })?;
        let Some((secret, sealed)) = found else { return Ok(None) };
        let secret = WitnessSecret::from_bytes(*secret);
        if !sealed && passphrase.is_some() {
            self.write(torrent, &secret, Existing::Replace)?;
            tracing::warn!(secret = %path.display(), "the witness secret was sealed");
        }
        Ok(Some(secret))
    }

    /// Keeps the secret of a torrent; whether it is the one that is kept now. It is on the disk when this returns, and is never replaced by
    /// another. Blocks.
    pub(super) fn keep(&self, torrent: &TorrentId, secret: &WitnessSecret) -> Result<bool, SecretFileError> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.find(torrent)? {
            return Ok(known.as_bytes().ct_eq(secret.as_bytes()).into());
        }
        self.write(torrent, secret, Existing::Keep)?;
        Ok(true)
    }

    fn write(
        &self,
        torrent: &TorrentId,
        secret: &WitnessSecret,
        existing: Existing,
    ) -> Result<(), SecretFileError> {
        let (path, secret) = (Self::path(&self.directory, torrent), secret.as_bytes());
        let Some(passphrase) = &self.passphrase else { return secret_files::write(&path, secret, existing) };
        let sealed = SealedWitness::seal(*torrent, secret, passphrase, &mut UnwrapErr(SysRng));
        secret_files::write_sealed(&path, sealed.as_ref().map(SealedWitness::to_key_file), existing)
    }

    /// The file of a torrent's secret.
    pub(super) fn path(directory: &Path, torrent: &TorrentId) -> PathBuf {
        directory.join(format!("{torrent}.key"))
    }

    /// What the store calls the mark of a torrent's secret.
    pub(super) fn mark_name(torrent: &TorrentId) -> String {
        format!("witness {torrent}")
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    const TORRENT: TorrentId = TorrentId([4; 32]);

    fn secret(byte: u8) -> WitnessSecret {
        WitnessSecret::from_bytes([byte; 32])
    }

    fn found(witnesses: &Witnesses, torrent: TorrentId) -> Option<[u8; 32]> {
        witnesses.find(&torrent).unwrap().map(|secret| *secret.as_bytes())
    }

    #[test]
    fn a_secret_is_kept_once_and_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let witnesses = Witnesses::open(directory.path(), None).unwrap();
        assert_eq!(found(&witnesses, TORRENT), None);
        assert!(witnesses.keep(&TORRENT, &secret(1)).unwrap());
        assert!(witnesses.keep(&TORRENT, &secret(1)).unwrap());
        assert!(!witnesses.keep(&TORRENT, &secret(2)).unwrap());
        assert_eq!(found(&witnesses, TORRENT), Some([1; 32]));
        assert_eq!(found(&witnesses, TorrentId([5; 32])), None);
    }

    #[test]
    fn a_passphrase_seals_what_lay_there_in_clear() {
        let directory = tempfile::tempdir().unwrap();
        let open = |text: &str| {
            Witnesses::open(directory.path(), Passphrase::new(Zeroizing::new(text.to_owned()))).unwrap()
        };
        let other = TorrentId([5; 32]);
        assert!(open("").keep(&TORRENT, &secret(1)).unwrap());
        let sealed = open("a b c");
        assert!(sealed.keep(&other, &secret(2)).unwrap());
        assert_eq!((found(&sealed, TORRENT), found(&sealed, other)), (Some([1; 32]), Some([2; 32])));
        for (torrent, byte) in [(TORRENT, 1), (other, 2)] {
            let text = std::fs::read_to_string(Witnesses::path(directory.path(), &torrent)).unwrap();
            assert!(text.starts_with("swarmseal key file v1: sealed witness\n"), "{text}");
            assert!(!text.contains(&hex::encode([byte; 32])), "{text}");
        }
        assert_eq!(found(&open("a b c\n"), TORRENT), Some([1; 32]));
        assert!(matches!(open("").find(&TORRENT), Err(SecretFileError::Sealed { .. })));
        assert!(matches!(open("a b d").find(&TORRENT), Err(SecretFileError::OtherPassphrase { .. })));
        // A sealed secret under another name is not taken for that torrent's.
        let moved = Witnesses::path(directory.path(), &TorrentId([6; 32]));
        std::fs::rename(Witnesses::path(directory.path(), &other), &moved).unwrap();
        let refused = open("a b c").find(&TorrentId([6; 32]));
        assert!(matches!(refused, Err(SecretFileError::OtherPassphrase { .. })));
    }
}
