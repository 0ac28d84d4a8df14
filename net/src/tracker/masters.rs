//! Master keys, one for each epoch, each in a file of its own so that a backup can leave them out: one line of hexadecimal or,
//! under a passphrase, what [`crate::wire::keyfile`] describes.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use swarmseal_core::MasterKey;
use zeroize::Zeroizing;

use super::secret_files::{self, Secret, SecretFileError};
use super::store::mark;
use crate::atomic_file::Existing;
use crate::wire::keyfile::{Passphrase, SealedMaster};

/// The epoch that a new tracker begins with.
const FIRST_EPOCH: u64 = 1;

/// The master keys that this tracker has.
pub(super) struct Masters {
    directory: PathBuf,
    passphrase: Option<Passphrase>,
    keys: BTreeMap<u64, Arc<MasterKey>>,
}

impl Masters {
    /// Reads the `<epoch>.key` files of a directory. With a passphrase, those that lie there in clear are sealed. Errors:
    /// [`SecretFileError::Sealed`] where one is under a passphrase and there is none, [`SecretFileError::OtherPassphrase`].
    pub(super) fn open(directory: &Path, passphrase: Option<Passphrase>) -> Result<Self, SecretFileError> {
        secret_files::create_directory(directory)?;
        let mut masters = Masters { directory: directory.to_owned(), passphrase, keys: BTreeMap::new() };
        for epoch in masters.on_disk()? {
            let path = Self::path(directory, epoch);
            let found = read(&path, epoch, masters.passphrase.as_ref())?;
            let gone = || SecretFileError::Io { path: path.clone(), source: ErrorKind::NotFound.into() };
            let (secret, sealed) = found.ok_or_else(gone)?;
            if !sealed && masters.passphrase.is_some() {
                masters.write(epoch, &secret, Existing::Replace)?;
                tracing::warn!(key = %path.display(), "the master key was sealed");
            }
            masters.keys.insert(epoch, Arc::new(MasterKey::from_bytes(*secret)));
        }
        Ok(masters)
    }

    /// The epochs whose keys lie in a directory, whether they can be opened or not.
    pub(super) fn epochs_in(directory: &Path) -> Result<Vec<u64>, SecretFileError> {
        let failed = |source| SecretFileError::Io { path: directory.to_owned(), source };
        let mut epochs = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            epochs.extend(name.to_str().and_then(|name| name.strip_suffix(".key")?.parse::<u64>().ok()));
        }
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// The epochs whose keys lie in the directory now.
    pub(super) fn on_disk(&self) -> Result<Vec<u64>, SecretFileError> {
        Self::epochs_in(&self.directory)
    }

    /// Makes the key of the first epoch, where there is none of any.
    pub(super) fn begin(&mut self) -> Result<(), SecretFileError> {
        if self.keys.is_empty() { self.add(FIRST_EPOCH) } else { Ok(()) }
    }

    /// Makes the key of an epoch, unless it is there. It is on the disk when this returns.
    pub(super) fn add(&mut self, epoch: u64) -> Result<(), SecretFileError> {
        if self.keys.contains_key(&epoch) {
            return Ok(());
        }
        let mut secret = Zeroizing::new([0; 32]);
        let path = Self::path(&self.directory, epoch);
        getrandom::fill(secret.as_mut_slice())
            .map_err(|error| SecretFileError::Io { path, source: std::io::Error::other(error) })?;
        self.write(epoch, &secret, Existing::Keep)?;
        self.keys.insert(epoch, Arc::new(MasterKey::from_bytes(*secret)));
        Ok(())
    }

    fn write(&self, epoch: u64, secret: &[u8; 32], existing: Existing) -> Result<(), SecretFileError> {
        let path = Self::path(&self.directory, epoch);
        let Some(passphrase) = &self.passphrase else { return secret_files::write(&path, secret, existing) };
        let sealed = SealedMaster::seal(epoch, secret, passphrase, &mut UnwrapErr(SysRng));
        secret_files::write_sealed(&path, sealed.as_ref().map(SealedMaster::to_key_file), existing)
    }

    /// Forgets the key of an epoch that nobody needs. Its file stays: it is the operator's.
    pub(super) fn forget(&mut self, epoch: u64) {
        self.keys.remove(&epoch);
    }

    /// The newest epoch: that of new torrents.
    pub(super) fn newest(&self) -> u64 {
        self.keys.last_key_value().map_or(FIRST_EPOCH, |(&epoch, _)| epoch)
    }

    /// All epochs that there are keys of.
    pub(super) fn epochs(&self) -> Vec<u64> {
        self.keys.keys().copied().collect()
    }

    /// The key of an epoch.
    pub(super) fn key(&self, epoch: u64) -> Option<Arc<MasterKey>> {
        self.keys.get(&epoch).cloned()
    }

    /// The key of an epoch, also of one that was forgotten but still lies in the directory. Blocks.
    pub(super) fn find(&self, epoch: u64) -> Option<Arc<MasterKey>> {
        self.key(epoch).or_else(|| {
            let path = Self::path(&self.directory, epoch);
            let (secret, _) = read(&path, epoch, self.passphrase.as_ref()).ok()??;
            Some(Arc::new(MasterKey::from_bytes(*secret)))
        })
    }

    /// The file of an epoch's key.
    pub(super) fn path(directory: &Path, epoch: u64) -> PathBuf {
        directory.join(format!("{epoch}.key"))
    }

    /// What the store calls the mark of an epoch's key.
    pub(super) fn mark_name(epoch: u64) -> String {
        format!("master {epoch}")
    }

    /// The marks of all keys.
    pub(super) fn marks(&self) -> Vec<(String, [u8; 32])> {
        self.keys.iter().map(|(&epoch, key)| (Self::mark_name(epoch), mark(key.as_bytes()))).collect()
    }
}

/// The key in a file, and whether it was under the passphrase.
fn read(
    path: &Path,
    epoch: u64,
    passphrase: Option<&Passphrase>,
) -> Result<Option<(Secret, bool)>, SecretFileError> {
    secret_files::read_sealed(path, SealedMaster::KIND, passphrase, |file, passphrase| {
        let sealed = SealedMaster::from_key_file(file)?;
        // Under another name it is another epoch's.
        Ok((sealed.epoch == epoch).then(|| sealed.open(passphrase)).flatten())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_with_their_epochs() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = Masters::open(directory.path(), None).unwrap();
        assert!(first.epochs().is_empty());
        first.begin().unwrap();
        assert_eq!(first.newest(), 1);
        let key = *first.key(1).unwrap().as_bytes();
        assert!(first.key(2).is_none());

        std::fs::write(directory.path().join("3.key"), format!("{}\n", "07".repeat(32))).unwrap();
        let mut second = Masters::open(directory.path(), None).unwrap();
        second.begin().unwrap();
        assert_eq!((second.newest(), second.epochs()), (3, vec![1, 3]));
        assert_eq!(second.key(1).unwrap().as_bytes(), &key);
        assert_eq!(second.key(3).unwrap().as_bytes(), &[7; 32]);
        assert!(second.key(2).is_none());
        second.add(4).unwrap();
        second.forget(1);
        assert!(second.key(1).is_none() && second.find(2).is_none());
        assert_eq!(second.find(1).unwrap().as_bytes(), &key);
        assert_eq!((second.epochs(), second.on_disk().unwrap()), (vec![3, 4], vec![1, 3, 4]));
    }

    #[test]
    fn a_passphrase_seals_what_lay_there_in_clear() {
        let passphrase = |text: &str| Passphrase::new(Zeroizing::new(text.to_owned()));
        let directory = tempfile::tempdir().unwrap();
        let mut clear = Masters::open(directory.path(), None).unwrap();
        clear.begin().unwrap();
        let key = *clear.key(1).unwrap().as_bytes();
        let mut sealed = Masters::open(directory.path(), passphrase("a b c")).unwrap();
        sealed.add(2).unwrap();
        for epoch in 1..=2 {
            let text = std::fs::read_to_string(Masters::path(directory.path(), epoch)).unwrap();
            assert!(!text.contains(&hex::encode(sealed.key(epoch).unwrap().as_bytes())), "{text}");
        }
        let again = Masters::open(directory.path(), passphrase("a b c\n")).unwrap();
        assert_eq!(again.key(1).unwrap().as_bytes(), &key);
        assert_eq!(again.key(2).unwrap().as_bytes(), sealed.key(2).unwrap().as_bytes());
        let refused = |passphrase| Masters::open(directory.path(), passphrase).err().unwrap();
        assert!(matches!(refused(None), SecretFileError::Sealed { .. }));
        assert!(matches!(refused(passphrase("a b d")), SecretFileError::OtherPassphrase { .. }));
        // A sealed key under another name is not taken for that epoch's.
        std::fs::rename(Masters::path(directory.path(), 2), Masters::path(directory.path(), 5)).unwrap();
        assert!(matches!(refused(passphrase("a b c")), SecretFileError::OtherPassphrase { .. }));
    }
}
