//! Master keys, one for each epoch, each in a file of its own so that a backup can leave them out.

use std::collections::BTreeMap;
use std::path::Path;

use swarmseal_core::MasterKey;

use super::secret_files::{self, SecretFileError};

/// The epoch that a new tracker begins with.
const FIRST_EPOCH: u64 = 1;

/// The master keys that this tracker has.
pub(super) struct Masters {
    keys: BTreeMap<u64, MasterKey>,
    current: u64,
}

impl Masters {
    /// Reads `<epoch>.key` files from a directory; an empty one gets a key for the first epoch. An epoch is retired by
    /// taking its file away.
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
        if keys.is_empty() {
            let (secret, _) = secret_files::read_or_create(&directory.join(format!("{FIRST_EPOCH}.key")))?;
            keys.insert(FIRST_EPOCH, MasterKey::from_bytes(*secret));
        }
        let current = keys.last_key_value().map_or(FIRST_EPOCH, |(&epoch, _)| epoch);
        Ok(Masters { keys, current })
    }

    /// The epoch of new subscriptions: the newest.
    pub(super) fn current(&self) -> u64 {
        self.current
    }

    /// The key of an epoch.
    pub(super) fn key(&self, epoch: u64) -> Option<&MasterKey> {
        self.keys.get(&epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_with_their_epochs() {
        let directory = tempfile::tempdir().unwrap();
        let first = Masters::open(directory.path()).unwrap();
        assert_eq!(first.current(), 1);
        let key = *first.key(1).unwrap().as_bytes();
        assert!(first.key(2).is_none());

        std::fs::write(directory.path().join("3.key"), format!("{}\n", "07".repeat(32))).unwrap();
        let second = Masters::open(directory.path()).unwrap();
        assert_eq!(second.current(), 3);
        assert_eq!(second.key(1).unwrap().as_bytes(), &key);
        assert_eq!(second.key(3).unwrap().as_bytes(), &[7; 32]);
        assert!(second.key(2).is_none());
    }
}
