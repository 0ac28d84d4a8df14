//! What the player remembers of a license: plays used, the last time seen, the last time the tracker was heard of.
//!
//! Three places hold it together. The *record* is a file beside the license: bencoded, with a keyed BLAKE3 over it whose key is
//! derived from the device's root, so that an edit by hand is noticed. Its counter grows with every change. The *journal* lies in
//! the root of the data directory and has the newest counter of every subscription, under a key of the same kind: an older record
//! that is put back, or none where there was one, is noticed. And both are bound to the machine and directory that they were made in,
//! so that a copy elsewhere is. What is put back all together is noticed by the tracker, which hears of the counter whenever a
//! license is fetched. That is also the way back after a restored backup or a new disk: see [`PolicyState::recover`].
//!
//! Whoever takes the player apart is not stopped by any of it, as nobody is who copies what he sees.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use swarmseal_core::SubscriberId;
use zeroize::Zeroizing;

use super::Error;
use super::play_journal::Journal;
use crate::atomic_file::{self, Access, Existing};
use crate::platform;
use crate::wire::api::PlayRecord;
use crate::wire::bencode;
use crate::wire::identity::Device;
use crate::wire::license::{License, Policy};

/// Version 1 had neither counter nor place.
const VERSION: u64 = 2;
const MAX_FILE: usize = 4096;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    #[serde(default, with = "bencode::optional", skip_serializing_if = "Option::is_none")]
    contact: Option<u64>,
    #[serde(default)]
    counter: u64,
    /// Of the machine and directory; none where neither can be told.
    #[serde(default, with = "bencode::optional_bytes", skip_serializing_if = "Option::is_none")]
    place: Option<[u8; 32]>,
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

/// Where a record of plays and its journal are.
#[derive(Clone, Debug)]
pub struct PlayFiles {
    /// The record, of one subscription.
    pub record: PathBuf,
    /// The journal, of all subscriptions of the device.
    pub journal: PathBuf,
}

/// The record of one subscription's plays, kept in a file.
#[derive(Debug)]
pub struct PolicyState {
    files: PlayFiles,
    subscriber: SubscriberId,
    key: Zeroizing<[u8; 32]>,
    journal_key: Zeroizing<[u8; 32]>,
    place: Option<[u8; 32]>,
    record: Record,
    /// It is not what was written last, here.
    lost: bool,
}

impl PolicyState {
    /// Reads the record; where there never was one, nothing has been played.
    ///
    /// Errors: [`Error::TamperedPolicyState`], [`Error::LostPolicyState`], [`Error::OldPolicyState`],
    /// [`Error::ElsewherePolicyState`], [`Error::NewerPolicyState`], [`Error::Io`].
    pub fn load(files: PlayFiles, device: &Device, subscriber: &SubscriberId) -> Result<Self, Error> {
        let mut state = Self::empty(files, device, subscriber);
        let _turn = state.turn()?;
        state.record = state.stored()?;
        Ok(state)
    }

    /// Reads what can be read of a record that [`PolicyState::load`] refuses because it was changed, lost, put back or copied. It
    /// lets nothing be played until [`PolicyState::renew`], which takes a license that the tracker has issued meanwhile. Errors:
    /// [`Error::NewerPolicyState`], [`Error::Io`].
    pub fn recover(files: PlayFiles, device: &Device, subscriber: &SubscriberId) -> Result<Self, Error> {
        let mut state = Self::empty(files, device, subscriber);
        let _turn = state.turn()?;
        match state.stored() {
            Ok(record) => state.record = record,
            Err(error @ (Error::NewerPolicyState { .. } | Error::Io { .. })) => return Err(error),
            Err(_) => {
                state.lost = true;
                // Its plays count as far as it is ours.
                if let Ok(Some(record)) = state.on_disk() {
                    state.record = record;
                }
            }
        }
        Ok(state)
    }

    fn empty(files: PlayFiles, device: &Device, subscriber: &SubscriberId) -> Self {
        let directory = files.journal.parent().unwrap_or(Path::new(""));
        PolicyState {
            subscriber: *subscriber,
            key: device.derive("swarmseal v1 policy state", &subscriber.0),
            journal_key: device.derive("swarmseal v1 journal of plays", &[]),
            place: platform::place(directory)
                .map(|place| blake3::derive_key("swarmseal v1 place of a record of plays", &place)),
            record: Record { v: VERSION, ..Record::default() },
            lost: false,
            files,
        }
    }

    /// Nobody else changes records of this device before the file is dropped.
    fn turn(&self) -> Result<File, Error> {
        let path = self.files.journal.with_extension("lock");
        atomic_file::lock(&path).map_err(|error| Error::Io { path, error })
    }

    /// The record on the disk, if it is the one that was written last, here.
    fn stored(&self) -> Result<Record, Error> {
        let path = || self.files.record.clone();
        let noted = Journal::read(&self.files.journal, &self.journal_key)?;
        let newest = noted.as_ref().and_then(|journal| journal.counter(&self.subscriber));
        let Some(record) = self.on_disk()? else {
            return match newest {
                Some(_) => Err(Error::LostPolicyState { path: path() }),
                None => Ok(Record { v: VERSION, ..Record::default() }),
            };
        };
        // Written before there were journals.
        if record.v == 1 && newest.is_none() {
            return Ok(Record { v: VERSION, ..record });
        }
        let Some(newest) = newest else {
            return Err(Error::LostPolicyState { path: self.files.journal.clone() });
        };
        // The record is written first: a kill in between leaves it ahead.
        if record.counter < newest {
            return Err(Error::OldPolicyState { path: path() });
        }
        if record.place.is_some() && record.place != self.place {
            return Err(Error::ElsewherePolicyState { path: path() });
        }
        Ok(record)
    }

    fn on_disk(&self) -> Result<Option<Record>, Error> {
        let path = &self.files.record;
        match fs::read(path) {
            Ok(bytes) => read(&bytes, &self.key, path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Io { path: path.clone(), error }),
        }
    }

    /// Plays used so far, of all that were ever bought.
    pub fn plays(&self) -> u64 {
        self.record.plays
    }

    /// When the tracker was heard of last, by its own clock.
    pub fn contact(&self) -> Option<u64> {
        self.record.contact
    }

    /// Whether it was recovered, and has to be renewed before anything is played.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether the license is of the time of this record, or before. One that is newer was fetched after it was written: the record
    /// is an older one that was put back, or none. Errors: [`Error::OldPolicyState`].
    pub fn fits(&self, license: &License) -> Result<(), Error> {
        match license.issued {
            Some(issued) if self.record.contact.is_none_or(|contact| contact < issued) => {
                Err(Error::OldPolicyState { path: self.files.record.clone() })
            }
            _ => Ok(()),
        }
    }

    fn check_there(&self) -> Result<(), Error> {
        match self.lost {
            true => Err(Error::LostPolicyState { path: self.files.record.clone() }),
            false => Ok(()),
        }
    }

    /// What the time is where the clock shows `now`: the latest that it or the tracker has shown. So a clock that is behind refuses
    /// nothing that has begun, and one that is set back gives nothing back.
    fn time(&self, now: u64) -> u64 {
        now.max(self.record.seen)
    }

    /// Whether the policy lets it be played at `now`; counts nothing. Errors: as [`super::Player::begin_play`].
    pub fn check(&self, policy: &Policy, now: u64) -> Result<(), Error> {
        self.check_there()?;
        let now = self.time(now);
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
            let since = self.record.contact.map(|contact| contact.saturating_add(grace));
            return Err(Error::OfflineTooLong { grace, since });
        }
        Ok(())
    }

    /// Whether little is left of the offline time: less than a quarter.
    pub fn is_renewal_due(&self, policy: &Policy, now: u64) -> bool {
        let offline = self.time(now).saturating_sub(self.record.contact.unwrap_or(0));
        policy.offline_grace.is_some_and(|grace| offline > grace - grace / 4)
    }

    /// What the tracker is to be told before it issues a license or lists devices. It is written down first, so that no two calls
    /// tell the same. Errors: [`Error::Io`].
    pub fn report(&mut self) -> Result<PlayRecord, Error> {
        if !self.lost {
            let _turn = self.turn()?;
            self.record = self.stored()?;
            self.save(self.record.clone())?;
        }
        let Record { counter, plays, .. } = self.record;
        Ok(PlayRecord { counter, lost: self.lost.into(), plays })
    }

    /// Takes note of a license that was just fetched, and of the time and plays that the tracker signed in it; `now`: where it says no
    /// time. This sets right what a clock that ran ahead, or a lost record, left behind. Errors: [`Error::Io`].
    pub fn renew(&mut self, license: &License, now: u64) -> Result<(), Error> {
        let issued = license.issued.unwrap_or(now);
        let plays = self.record.plays.max(license.played);
        self.contacted(issued, plays)
    }

    fn contacted(&mut self, at: u64, plays: u64) -> Result<(), Error> {
        let _turn = self.turn()?;
        let before = if self.lost { Record { v: VERSION, ..self.record.clone() } } else { self.stored()? };
        let plays = plays.max(before.plays);
        // A license from before, shown again, is no news.
        let fresh = before.contact.is_none_or(|contact| contact <= at);
        let record = match fresh {
            true => Record { contact: Some(at), seen: at, plays, ..before },
            false => Record { plays, ..before },
        };
        self.save(record)?;
        self.lost = false;
        Ok(())
    }

    /// [`PolicyState::check`], then counts a play and writes it down; what the time is.
    pub(super) fn begin_play(&mut self, license: &License, now: u64) -> Result<u64, Error> {
        self.check_there()?;
        let _turn = self.turn()?;
        // Another process may have played meanwhile.
        let stored = self.stored()?;
        self.record = Record { plays: stored.plays.max(license.played), ..stored };
        self.fits(license)?;
        self.check(&license.policy, now)?;
        let (record, time) = (&self.record, self.time(now));
        self.save(Record { plays: record.plays.saturating_add(1), seen: time, ..record.clone() })?;
        Ok(time)
    }

    /// The next record: the file, and then the journal, lest a kill in between look like an older file. The caller has the turn.
    fn save(&mut self, record: Record) -> Result<(), Error> {
        let journal = match Journal::read(&self.files.journal, &self.journal_key) {
            // What it had of others is gone: their next look at it says so, and their next license helps.
            Err(Error::TamperedPolicyState { .. }) if self.lost => None,
            read => read?,
        };
        let mut journal = journal.unwrap_or_default();
        // Above every record that there was: none of them can come back.
        let newest = journal.counter(&self.subscriber).unwrap_or(0).max(record.counter);
        let record = Record { counter: newest.saturating_add(1), place: self.place, ..record };
        let bytes = bencode::to_bytes(&record);
        let mac = *blake3::keyed_hash(&self.key, &bytes).as_bytes();
        let file = bencode::to_bytes(&Sealed { mac, record: bytes, v: VERSION });
        atomic_file::write(&self.files.record, &file, Access::Private, Existing::Replace)
            .map_err(|error| Error::Io { path: self.files.record.clone(), error })?;
        journal.note(&self.subscriber, record.counter);
        journal.write(&self.files.journal, &self.journal_key)?;
        self.record = record;
        Ok(())
    }
}

/// The plays that a record's file says, under the key that it was made with. Errors: [`Error::TamperedPolicyState`],
/// [`Error::NewerPolicyState`].
pub fn plays_in_record(bytes: &[u8], key: &[u8; 32]) -> Result<u64, Error> {
    read(bytes, key, Path::new("")).map(|record| record.plays)
}

fn read(bytes: &[u8], key: &[u8; 32], path: &Path) -> Result<Record, Error> {
    let tampered = || Error::TamperedPolicyState { path: path.into() };
    if bytes.len() > MAX_FILE {
        return Err(tampered());
    }
    match bencode::dict_number(bytes, b"v") {
        Ok(Some(1..=VERSION)) => {}
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
    use swarmseal_core::TorrentId;

    const NOW: u64 = 1_800_000_000;

    fn files(dir: &Path) -> PlayFiles {
        PlayFiles { record: dir.join("plays"), journal: dir.join("plays.journal") }
    }

    fn device(number: u8) -> Device {
        Device::from_bytes(&[number; 32])
    }

    fn load(dir: &Path, number: u8) -> Result<PolicyState, Error> {
        PolicyState::load(files(dir), &device(number), &SubscriberId([5; 32]))
    }

    fn recover(dir: &Path) -> PolicyState {
        PolicyState::recover(files(dir), &device(1), &SubscriberId([5; 32])).unwrap()
    }

    fn license(policy: Policy) -> License {
        License {
            torrent_id: TorrentId([1; 32]),
            info_hash: [2; 20],
            subscriber: SubscriberId([5; 32]),
            epoch: 1,
            issued: None,
            played: 0,
            policy,
            keys: Zeroizing::default(),
        }
    }

    fn issued(at: u64, played: u64) -> License {
        License { issued: Some(at), played, ..license(Policy { plays: Some(9), ..Policy::default() }) }
    }

    fn play(state: &mut PolicyState, policy: &Policy, now: u64) -> Result<u64, Error> {
        state.begin_play(&license(policy.clone()), now)
    }

    #[test]
    fn each_clause_is_enforced() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = load(dir.path(), 1).unwrap();
        let policy = Policy::default;
        assert!(state.check(&policy(), NOW).is_ok());
        let not_before = Policy { not_before: Some(NOW + 1), ..policy() };
        assert!(matches!(state.check(&not_before, NOW), Err(Error::NotYet { until }) if until == NOW + 1));
        assert!(state.check(&not_before, NOW + 1).is_ok());
        let expires = Policy { expires: Some(NOW), ..policy() };
        assert!(matches!(state.check(&expires, NOW), Err(Error::Expired { since: NOW })));
        assert!(state.check(&expires, NOW - 1).is_ok());
        let grace = Policy { offline_grace: Some(60), ..policy() };
        let never = state.check(&grace, NOW);
        assert!(matches!(never, Err(Error::OfflineTooLong { grace: 60, since: None })));
        state.renew(&issued(NOW, 0), 0).unwrap();
        assert!(state.check(&grace, NOW + 60).is_ok());
        let over = state.check(&grace, NOW + 61);
        assert!(matches!(over, Err(Error::OfflineTooLong { since: Some(since), .. }) if since == NOW + 60));
        assert_eq!([45, 46].map(|passed| state.is_renewal_due(&grace, NOW + passed)), [false, true]);
        assert!(!state.is_renewal_due(&policy(), NOW + 1000));
    }

    #[test]
    fn plays_are_counted_across_runs() {
        let dir = tempfile::tempdir().unwrap();
        let policy = Policy { plays: Some(2), ..Policy::default() };
        for used in 0..2 {
            let mut state = load(dir.path(), 1).unwrap();
            assert_eq!(state.plays(), used);
            play(&mut state, &policy, NOW).unwrap();
        }
        let refused = play(&mut load(dir.path(), 1).unwrap(), &policy, NOW);
        assert!(matches!(refused, Err(Error::NoPlaysLeft { allowed: 2 })));
        assert_eq!(load(dir.path(), 1).unwrap().plays(), 2);
    }

    #[test]
    fn two_players_at_once_count_both_plays() {
        let dir = tempfile::tempdir().unwrap();
        let policy = Policy { plays: Some(2), ..Policy::default() };
        let (mut one, mut other) = (load(dir.path(), 1).unwrap(), load(dir.path(), 1).unwrap());
        play(&mut one, &policy, NOW).unwrap();
        play(&mut other, &policy, NOW).unwrap();
        assert!(matches!(play(&mut one, &policy, NOW), Err(Error::NoPlaysLeft { .. })));
    }

    #[test]
    fn a_clock_that_is_behind_refuses_nothing_that_has_begun() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = load(dir.path(), 1).unwrap();
        // The tracker's clock is an hour ahead, and right.
        state.renew(&issued(NOW, 0), 0).unwrap();
        assert_eq!(play(&mut state, &Policy::default(), NOW - 3600).unwrap(), NOW);
        let dates = |from, to| Policy { not_before: Some(from), expires: Some(to), ..Policy::default() };
        assert_eq!(play(&mut state, &dates(NOW - 10, NOW + 10), NOW - 3600).unwrap(), NOW);
        let early = state.check(&dates(NOW + 10, NOW + 20), NOW - 3600);
        assert!(matches!(early, Err(Error::NotYet { until }) if until == NOW + 10));
    }

    #[test]
    fn a_clock_set_back_gives_nothing_back_and_the_tracker_sets_right_one_that_ran_ahead() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = load(dir.path(), 1).unwrap();
        let policy = Policy { expires: Some(NOW + 10), ..Policy::default() };
        play(&mut state, &policy, NOW).unwrap();
        assert_eq!(play(&mut state, &policy, NOW - 200_000).unwrap(), NOW);
        play(&mut state, &Policy::default(), NOW + 20).unwrap();
        assert!(matches!(state.check(&policy, NOW), Err(Error::Expired { .. })));
        state.renew(&issued(NOW - 1000, 0), 0).unwrap();
        assert!(state.check(&policy, NOW - 1000).is_ok());
        play(&mut state, &Policy::default(), NOW + 20).unwrap();
        assert!(matches!(state.check(&policy, NOW - 100), Err(Error::Expired { .. })));
        // Nor does a license from before, shown again.
        state.renew(&issued(NOW - 2000, 0), 0).unwrap();
        assert!(matches!(state.check(&policy, NOW - 100), Err(Error::Expired { .. })));
        assert_eq!(state.contact(), Some(NOW - 1000));
    }

    #[test]
    fn edits_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = files(dir.path()).record;
        play(&mut load(dir.path(), 1).unwrap(), &Policy::default(), NOW).unwrap();
        assert!(matches!(load(dir.path(), 2), Err(Error::TamperedPolicyState { .. })));
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let at =
            bytes.windows(10).position(|window| window == b"5:playsi1e").unwrap_or_else(|| panic!("{text}"));
        let mut edited = bytes.clone();
        edited[at + 8] = b'0';
        fs::write(&path, edited).unwrap();
        assert!(matches!(load(dir.path(), 1), Err(Error::TamperedPolicyState { .. })));
        let mut newer = bytes.clone();
        let len = newer.len();
        assert_eq!(&newer[len - 7..], b"1:vi2ee");
        newer[len - 3] = b'3';
        fs::write(&path, newer).unwrap();
        assert!(matches!(load(dir.path(), 1), Err(Error::NewerPolicyState { found: 3 })));
        fs::write(&path, b"").unwrap();
        assert!(matches!(load(dir.path(), 1), Err(Error::TamperedPolicyState { .. })));
        // The journal is no easier.
        fs::write(&path, bytes).unwrap();
        let path = files(dir.path()).journal;
        let mut journal = fs::read(&path).unwrap();
        journal[20] ^= 1;
        fs::write(&path, journal).unwrap();
        assert!(
            matches!(load(dir.path(), 1), Err(Error::TamperedPolicyState { path: named }) if named == path)
        );
    }

    #[test]
    fn an_older_record_put_back_and_one_taken_away_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let PlayFiles { record, journal } = files(dir.path());
        let mut state = load(dir.path(), 1).unwrap();
        play(&mut state, &Policy::default(), NOW).unwrap();
        let (before, journal_before) = (fs::read(&record).unwrap(), fs::read(&journal).unwrap());
        play(&mut state, &Policy::default(), NOW).unwrap();
        let after = fs::read(&record).unwrap();
        fs::write(&record, &before).unwrap();
        assert!(matches!(load(dir.path(), 1), Err(Error::OldPolicyState { .. })));
        // The one who has it open notices, too.
        let refused = play(&mut state, &Policy::default(), NOW);
        assert!(matches!(refused, Err(Error::OldPolicyState { .. })));
        fs::remove_file(&record).unwrap();
        assert!(matches!(load(dir.path(), 1), Err(Error::LostPolicyState { path }) if path == record));
        fs::write(&record, &after).unwrap();
        assert_eq!(load(dir.path(), 1).unwrap().plays(), 2);
        // A journal that is behind is what a kill leaves; none at all is not.
        fs::write(&journal, &journal_before).unwrap();
        assert_eq!(load(dir.path(), 1).unwrap().plays(), 2);
        fs::remove_file(&journal).unwrap();
        assert!(matches!(load(dir.path(), 1), Err(Error::LostPolicyState { path }) if path == journal));
    }

    #[test]
    fn what_is_put_back_all_together_does_not_fit_the_license() {
        let dir = tempfile::tempdir().unwrap();
        let PlayFiles { record, journal } = files(dir.path());
        let mut state = load(dir.path(), 1).unwrap();
        state.renew(&issued(NOW, 0), 0).unwrap();
        let before = (fs::read(&record).unwrap(), fs::read(&journal).unwrap());
        state.begin_play(&issued(NOW, 0), NOW).unwrap();
        state.renew(&issued(NOW + 50, 1), 0).unwrap();
        fs::write(&record, before.0).unwrap();
        fs::write(&journal, before.1).unwrap();
        let mut state = load(dir.path(), 1).unwrap();
        let refused = state.begin_play(&issued(NOW + 50, 1), NOW + 60);
        assert!(matches!(refused, Err(Error::OldPolicyState { .. })));
        fs::remove_file(&record).unwrap();
        fs::remove_file(&journal).unwrap();
        let mut state = load(dir.path(), 1).unwrap();
        assert!(state.begin_play(&issued(NOW + 50, 1), NOW + 60).is_err());
        // The tracker's count is as good as the record's.
        state.renew(&issued(NOW + 70, 8), 0).unwrap();
        state.begin_play(&issued(NOW + 70, 8), NOW + 70).unwrap();
        let refused = state.begin_play(&issued(NOW + 70, 8), NOW + 70);
        assert!(matches!(refused, Err(Error::NoPlaysLeft { allowed: 9 })));
    }

    #[test]
    fn what_the_tracker_is_told_grows_with_every_call() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = load(dir.path(), 1).unwrap();
        let first = state.report().unwrap();
        assert_eq!(first, PlayRecord { counter: 1, lost: 0, plays: 0 });
        play(&mut state, &Policy::default(), NOW).unwrap();
        let second = load(dir.path(), 1).unwrap().report().unwrap();
        assert_eq!(second, PlayRecord { counter: 3, lost: 0, plays: 1 });
    }

    #[test]
    fn a_lost_record_is_recovered_by_a_license() {
        let dir = tempfile::tempdir().unwrap();
        let PlayFiles { record, journal } = files(dir.path());
        let mut state = load(dir.path(), 1).unwrap();
        for _ in 0..3 {
            play(&mut state, &Policy::default(), NOW).unwrap();
        }
        for damage in [
            &(|| fs::remove_file(&record).unwrap()) as &dyn Fn(),
            &|| fs::write(&record, b"d1:vi2ee").unwrap(),
            &|| fs::write(&journal, b"d1:vi1ee").unwrap(),
            &|| fs::remove_file(&journal).unwrap(),
        ] {
            damage();
            assert!(load(dir.path(), 1).is_err());
            let mut state = recover(dir.path());
            assert!(state.is_lost());
            assert!(matches!(state.check(&Policy::default(), NOW), Err(Error::LostPolicyState { .. })));
            assert!(play(&mut state, &Policy::default(), NOW).is_err());
            assert_eq!(state.report().unwrap().lost, 1);
            state.renew(&issued(NOW, 3), 0).unwrap();
            let mut state = load(dir.path(), 1).unwrap();
            assert_eq!((state.plays(), state.report().unwrap().lost), (3, 0));
        }
        assert!(!recover(dir.path()).is_lost());
    }

    #[cfg(unix)]
    #[test]
    fn a_copy_in_another_directory_is_noticed_until_it_is_renewed() {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        play(&mut load(dir.path(), 1).unwrap(), &Policy::default(), NOW).unwrap();
        let (from, to) = (files(dir.path()), files(copy.path()));
        fs::copy(from.record, to.record).unwrap();
        fs::copy(from.journal, to.journal).unwrap();
        assert!(matches!(load(copy.path(), 1), Err(Error::ElsewherePolicyState { .. })));
        let mut state = recover(copy.path());
        assert_eq!(state.report().unwrap(), PlayRecord { counter: 1, lost: 1, plays: 1 });
        state.renew(&issued(NOW, 0), 0).unwrap();
        assert_eq!(load(copy.path(), 1).unwrap().plays(), 1);
        assert!(load(dir.path(), 1).is_ok());
    }

    #[test]
    fn a_record_of_version_1_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let key = device(1).derive("swarmseal v1 policy state", &[5; 32]);
        let record = b"d7:contacti1799999990e5:playsi2e4:seeni1800000000e1:vi1ee".to_vec();
        let mac = *blake3::keyed_hash(&key, &record).as_bytes();
        let file = bencode::to_bytes(&Sealed { mac, record, v: 1 });
        fs::write(files(dir.path()).record, &file).unwrap();
        let mut state = load(dir.path(), 1).unwrap();
        assert_eq!((state.plays(), state.contact()), (2, Some(1_799_999_990)));
        play(&mut state, &Policy::default(), NOW).unwrap();
        assert_eq!(load(dir.path(), 1).unwrap().plays(), 3);
        // From now on the journal knows better.
        fs::write(files(dir.path()).record, &file).unwrap();
        assert!(matches!(load(dir.path(), 1), Err(Error::OldPolicyState { .. })));
    }

    #[test]
    fn files_are_private_and_debug_shows_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = load(dir.path(), 1).unwrap();
        play(&mut state, &Policy::default(), NOW).unwrap();
        #[cfg(unix)]
        for entry in fs::read_dir(dir.path()).unwrap() {
            use std::os::unix::fs::PermissionsExt;
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
        let shown = format!("{state:?}");
        for key in [&state.key, &state.journal_key] {
            assert!(!shown.contains(&format!("{:?}", &key[..])) && !shown.contains(&hex::encode(&key[..])));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&bytes, &[0; 32], Path::new("x")).is_err());
        }
    }
}
