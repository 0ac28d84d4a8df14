//! Master keys, one for each epoch, each in a file of its own so that a backup can leave them out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use swarmseal_core::MasterKey;

use super::secret_files::{self, SecretFileError};
use super::store::mark;

/// The epoch that a new tracker begins with.
const FIRST_EPOCH: u64 = 1;

/// The master keys that this tracker has.
pub(super) struct Masters {
    directory: PathBuf,
    keys: BTreeMap<u64, MasterKey>,
}

impl Masters {
    /// Reads the `<epoch>.key` files of a directory.
    pub(super) fn open(directory: &Path) -> Result<Self, SecretFileError> {
        secret_files::create_directory(directory)?;
        let failed = |source| SecretFileError::Io { path: directory.to_owned(), source };
        let mut keys = BTreeMap::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let epoch =
                path.file_name().and_then(|name| name.to_str()?.strip_suffix(".key")?.parse::<u64>().ok());
            let Some(epoch) = epoch else { continue };
            if let Some(secret) = secret_files::read(&path)? {
                keys.insert(epoch, MasterKey::from_bytes(*secret));
            }
        }
        Ok(Masters { directory: directory.to_owned(), keys })
    }

    /// Makes the key of the first epoch, where there is none of any.
    pub(super) fn begin(&mut self) -> Result<(), SecretFileError> {
        if self.keys.is_empty() {
            let path = Self::path(&self.directory, FIRST_EPOCH);
            let (secret, _) = secret_files::read_or_create(&path)?;
            self.keys.insert(FIRST_EPOCH, MasterKey::from_bytes(*secret));
        }
        Ok(())
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
    pub(super) fn key(&self, epoch: u64) -> Option<&MasterKey> {
        self.keys.get(&epoch)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_with_their_epochs() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = Masters::open(directory.path()).unwrap();
        assert!(first.epochs().is_empty());
        first.begin().unwrap();
        assert_eq!(first.newest(), 1);
        let key = *first.key(1).unwrap().as_bytes();
        assert!(first.key(2).is_none());

        std::fs::write(directory.path().join("3.key"), format!("{}\n", "07".repeat(32))).unwrap();
        let mut second = Masters::open(directory.path()).unwrap();
        second.begin().unwrap();
        assert_eq!((second.newest(), second.epochs()), (3, vec![1, 3]));
        assert_eq!(second.key(1).unwrap().as_bytes(), &key);
        assert_eq!(second.key(3).unwrap().as_bytes(), &[7; 32]);
        assert!(second.key(2).is_none());
    }
}
