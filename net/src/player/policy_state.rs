//! What the player remembers of a license: plays used, the last time seen, the last time the server was heard of.
//!
//! A bencoded file with a keyed BLAKE3 over it. The key is derived from the device's keys, so that an edit by hand is
//! noticed; whoever takes the player apart, or deletes the file, is not stopped by it, as nobody is who copies what he sees.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use swarmseal_core::SubscriberId;
use zeroize::Zeroizing;

use super::Error;
use crate::atomic_file::{self, Access, Existing};
use crate::wire::bencode;
use crate::wire::identity::Identity;
use crate::wire::license::Policy;

const VERSION: u64 = 1;
/// Clocks are corrected; that much backwards is no attempt to gain time.
const CLOCK_TOLERANCE: u64 = 300;
const MAX_FILE: usize = 4096;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    #[serde(default, with = "bencode::optional", skip_serializing_if = "Option::is_none")]
    contact: Option<u64>,
    plays: u64,
    seen: u64,
    v: u64,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(with = "serde_bytes")]
    mac: [u8; 32],
    #[serde(with = "serde_bytes")]
    record: Vec<u8>,
    v: u64,
}

/// The record of one subscription's plays, kept in a file.
#[derive(Debug)]
pub struct PolicyState {
    path: PathBuf,
    key: Zeroizing<[u8; 32]>,
    record: Record,
}

impl PolicyState {
    /// Reads the record; where there is no file, nothing has been played.
    ///
    /// Errors: [`Error::TamperedPolicyState`], [`Error::NewerPolicyState`], [`Error::Io`].
    pub fn load(path: &Path, identity: &Identity, subscriber: &SubscriberId) -> Result<Self, Error> {
        let key = identity.derive("swarmseal v1 policy state", &subscriber.0);
        let record = match fs::read(path) {
            Ok(bytes) => read(&bytes, &key, path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Record { v: VERSION, ..Record::default() }
            }
            Err(error) => return Err(Error::Io { path: path.into(), error }),
        };
        Ok(PolicyState { path: path.into(), key, record })
    }

    /// Plays used so far.
    pub fn plays(&self) -> u64 {
        self.record.plays
    }

    /// Whether the policy lets it be played at `now`; counts nothing. Errors: as [`super::Player::begin_play`].
    pub fn check(&self, policy: &Policy, now: u64) -> Result<(), Error> {
        if now.saturating_add(CLOCK_TOLERANCE) < self.record.seen {
            return Err(Error::ClockSetBack { seconds: self.record.seen - now });
        }
        // A clock that was corrected a little does not give time back.
        let now = now.max(self.record.seen);
        if let Some(until) = policy.not_before.filter(|&until| now < until) {
            return Err(Error::NotYet { until });
        }
        if let Some(since) = policy.expires.filter(|&since| now >= since) {
            return Err(Error::Expired { since });
        }
        if let Some(allowed) = policy.plays.filter(|&allowed| self.record.plays >= allowed) {
            return Err(Error::NoPlaysLeft { allowed });
        }
        let offline = now.saturating_sub(self.record.contact.unwrap_or(0));
        if let Some(grace) = policy.offline_grace.filter(|&grace| offline > grace) {
            return Err(Error::OfflineTooLong { grace });
        }
        Ok(())
    }

    /// Remembers that the license server was heard of, at its time `now`. Errors: [`Error::Io`].
    ///
    /// Its time is trusted over the local clock: where that ran ahead once, this sets the record right.
    pub fn record_contact(&mut self, now: u64) -> Result<(), Error> {
        self.save(Record { contact: Some(now), seen: now, ..self.record.clone() })
    }

    /// [`PolicyState::check`], then counts a play and writes it down.
    pub(super) fn begin_play(&mut self, policy: &Policy, now: u64) -> Result<(), Error> {
        self.check(policy, now)?;
        let record = &self.record;
        self.save(Record {
            plays: record.plays.saturating_add(1),
            seen: record.seen.max(now),
            ..record.clone()
        })
    }

    fn save(&mut self, record: Record) -> Result<(), Error> {
        let bytes = bencode::to_bytes(&record);
        let mac = *blake3::keyed_hash(&self.key, &bytes).as_bytes();
        let file = bencode::to_bytes(&Sealed { mac, record: bytes, v: VERSION });
        atomic_file::write(&self.path, &file, Access::Private, Existing::Replace)
            .map_err(|error| Error::Io { path: self.path.clone(), error })?;
        self.record = record;
        Ok(())
    }
}

fn read(bytes: &[u8], key: &[u8; 32], path: &Path) -> Result<Record, Error> {
    let tampered = || Error::TamperedPolicyState { path: path.into() };
    if bytes.len() > MAX_FILE {
        return Err(tampered());
    }
    match bencode::dict_number(bytes, b"v") {
        Ok(Some(VERSION)) => {}
        Ok(Some(found)) if found > VERSION => return Err(Error::NewerPolicyState { found }),
        _ => return Err(tampered()),
    }
    let sealed: Sealed = bencode::from_bytes(bytes, MAX_FILE).map_err(|_| tampered())?;
    // blake3::Hash compares in constant time.
    if blake3::keyed_hash(key, &sealed.record) != blake3::Hash::from_bytes(sealed.mac) {
        return Err(tampered());
    }
    bencode::from_bytes(&sealed.record, MAX_FILE).map_err(|_| tampered())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    fn load(path: &Path, device: u8) -> Result<PolicyState, Error> {
        let identity = Identity::from_secrets(&[device; 32], &[device; 32]);
        PolicyState::load(path, &identity, &SubscriberId([5; 32]))
    }

    #[test]
    fn each_clause_is_enforced() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = load(&dir.path().join("plays"), 1).unwrap();
        let policy = Policy::default;
        assert!(state.check(&policy(), NOW).is_ok());
        let not_before = Policy { not_before: Some(NOW + 1), ..policy() };
        assert!(matches!(state.check(&not_before, NOW), Err(Error::NotYet { until }) if until == NOW + 1));
        assert!(state.check(&not_before, NOW + 1).is_ok());
        let expires = Policy { expires: Some(NOW), ..policy() };
        assert!(matches!(state.check(&expires, NOW), Err(Error::Expired { since: NOW })));
        assert!(state.check(&expires, NOW - 1).is_ok());
        let grace = Policy { offline_grace: Some(60), ..policy() };
        assert!(matches!(state.check(&grace, NOW), Err(Error::OfflineTooLong { grace: 60 })));
        state.record_contact(NOW).unwrap();
        assert!(state.check(&grace, NOW + 60).is_ok());
        assert!(matches!(state.check(&grace, NOW + 61), Err(Error::OfflineTooLong { .. })));
    }

    #[test]
    fn plays_are_counted_across_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plays");
        let policy = Policy { plays: Some(2), ..Policy::default() };
        for used in 0..2 {
            let mut state = load(&path, 1).unwrap();
            assert_eq!(state.plays(), used);
            state.begin_play(&policy, NOW).unwrap();
        }
        let refused = load(&path, 1).unwrap().begin_play(&policy, NOW);
        assert!(matches!(refused, Err(Error::NoPlaysLeft { allowed: 2 })));
        assert_eq!(load(&path, 1).unwrap().plays(), 2);
    }

    #[test]
    fn a_clock_set_back_is_noticed_and_the_server_sets_it_right() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = load(&dir.path().join("plays"), 1).unwrap();
        let policy = Policy { expires: Some(NOW + 10), ..Policy::default() };
        state.begin_play(&policy, NOW).unwrap();
        assert!(matches!(state.check(&policy, NOW - 1000), Err(Error::ClockSetBack { seconds: 1000 })));
        state.begin_play(&policy, NOW - 200).unwrap();
        state.record_contact(NOW - 1000).unwrap();
        assert!(state.check(&policy, NOW - 1000).is_ok());
        // Going back a little does not bring an expired license back.
        state.begin_play(&Policy::default(), NOW + 20).unwrap();
        assert!(matches!(state.check(&policy, NOW - 100), Err(Error::Expired { .. })));
    }

    #[test]
    fn edits_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plays");
        load(&path, 1).unwrap().begin_play(&Policy::default(), NOW).unwrap();
        assert!(matches!(load(&path, 2), Err(Error::TamperedPolicyState { .. })));
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let at =
            bytes.windows(10).position(|window| window == b"5:playsi1e").unwrap_or_else(|| panic!("{text}"));
        let mut edited = bytes.clone();
        edited[at + 8] = b'0';
        fs::write(&path, edited).unwrap();
        assert!(matches!(load(&path, 1), Err(Error::TamperedPolicyState { .. })));
        let mut newer = bytes.clone();
        let len = newer.len();
        assert_eq!(&newer[len - 7..], b"1:vi1ee");
        newer[len - 3] = b'2';
        fs::write(&path, newer).unwrap();
        assert!(matches!(load(&path, 1), Err(Error::NewerPolicyState { found: 2 })));
        fs::write(&path, b"").unwrap();
        assert!(matches!(load(&path, 1), Err(Error::TamperedPolicyState { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&bytes, &[0; 32], Path::new("x")).is_err());
        }
    }
}
