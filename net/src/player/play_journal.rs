//! The newest counters of a device's records of plays, in one file in the root of its data directory: bencoded, with a keyed BLAKE3
//! over it, as each record has. See [`super::policy_state`].

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use swarmseal_core::SubscriberId;

use super::Error;
use crate::atomic_file::{self, Access, Existing};
use crate::wire::bencode;

const VERSION: u64 = 1;
/// Some 180,000 subscriptions.
const MAX_FILE: usize = 16 << 20;

#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(with = "serde_bytes")]
    counters: Vec<u8>,
    #[serde(with = "serde_bytes")]
    mac: [u8; 32],
    v: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    counter: u64,
    #[serde(with = "serde_bytes")]
    subscriber: [u8; 32],
}

/// The counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Journal(BTreeMap<[u8; 32], u64>);

impl Journal {
    /// Reads it; none where there is no file. Errors: [`Error::TamperedPolicyState`], [`Error::NewerPolicyState`],
    /// [`Error::Io`].
    pub(super) fn read(path: &Path, key: &[u8; 32]) -> Result<Option<Self>, Error> {
        match fs::read(path) {
            Ok(bytes) => Self::from_bytes(&bytes, key, path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Io { path: path.into(), error }),
        }
    }

    fn from_bytes(bytes: &[u8], key: &[u8; 32], path: &Path) -> Result<Self, Error> {
        let tampered = || Error::TamperedPolicyState { path: path.into() };
        match bencode::dict_number(bytes, b"v") {
            Ok(Some(VERSION)) => {}
            Ok(Some(found)) if found > VERSION => return Err(Error::NewerPolicyState { found }),
            _ => return Err(tampered()),
        }
        let Sealed { counters, mac, .. } = bencode::from_bytes(bytes, MAX_FILE).map_err(|_| tampered())?;
        // blake3::Hash compares in constant time.
        if blake3::keyed_hash(key, &counters) != blake3::Hash::from_bytes(mac) {
            return Err(tampered());
        }
        let entries: Vec<Entry> = bencode::from_bytes(&counters, MAX_FILE).map_err(|_| tampered())?;
        Ok(Journal(entries.into_iter().map(|entry| (entry.subscriber, entry.counter)).collect()))
    }

    /// Writes it. Errors: [`Error::Io`].
    pub(super) fn write(&self, path: &Path, key: &[u8; 32]) -> Result<(), Error> {
        let entries: Vec<Entry> =
            self.0.iter().map(|(&subscriber, &counter)| Entry { counter, subscriber }).collect();
        let counters = bencode::to_bytes(&entries);
        let mac = *blake3::keyed_hash(key, &counters).as_bytes();
        let file = bencode::to_bytes(&Sealed { counters, mac, v: VERSION });
        atomic_file::write(path, &file, Access::Private, Existing::Replace)
            .map_err(|error| Error::Io { path: path.into(), error })
    }

    /// The newest counter of a subscription, if it has a record.
    pub(super) fn counter(&self, subscriber: &SubscriberId) -> Option<u64> {
        self.0.get(&subscriber.0).copied()
    }

    /// Takes note of one.
    pub(super) fn note(&mut self, subscriber: &SubscriberId, counter: u64) {
        self.0.insert(subscriber.0, counter);
    }
}

/// How many subscriptions a journal's file knows of, under the key that it was made with. Errors:
/// [`Error::TamperedPolicyState`], [`Error::NewerPolicyState`].
pub fn records_in_journal(bytes: &[u8], key: &[u8; 32]) -> Result<usize, Error> {
    Journal::from_bytes(bytes, key, Path::new("")).map(|journal| journal.0.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_read_under_its_key_alone_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        assert_eq!(Journal::read(&path, &[1; 32]).unwrap(), None);
        let mut journal = Journal::default();
        journal.note(&SubscriberId([1; 32]), 4);
        journal.note(&SubscriberId([2; 32]), u64::MAX);
        journal.write(&path, &[1; 32]).unwrap();
        let again = Journal::read(&path, &[1; 32]).unwrap().unwrap();
        assert_eq!(
            (again.counter(&SubscriberId([2; 32])), again.counter(&SubscriberId([3; 32]))),
            (Some(u64::MAX), None)
        );
        assert_eq!(again, journal);
        assert!(matches!(Journal::read(&path, &[2; 32]), Err(Error::TamperedPolicyState { .. })));
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 3;
        assert_eq!(&bytes[at - 4..], b"1:vi1ee");
        bytes[at] = b'2';
        fs::write(&path, bytes).unwrap();
        assert!(matches!(Journal::read(&path, &[1; 32]), Err(Error::NewerPolicyState { found: 2 })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Journal::from_bytes(&bytes, &[0; 32], Path::new("x")).is_err());
        }
    }
}
