//! Subscribers as the devices of whoever holds a grant: names, plays, and places that are freed.

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use swarmseal_core::SubscriberId;

use super::{
    Bytes32, ChangeError, GRANTS, HELD, Member, Store, StoreError, decode, encode, read_grant,
    revoke_subscriber,
};
use crate::tracker::records::{DeviceRecord, GrantRecord, MAX_GONE};
use crate::wire::api::{ApiError, Device, Passkey, PlayRecord};

/// Subscriber → what is known of it as a device.
pub(super) const DEVICES: TableDefinition<'_, Bytes32, &[u8]> = TableDefinition::new("devices");

pub(super) fn make_tables(write: &WriteTransaction) -> Result<(), StoreError> {
    write.open_table(DEVICES)?;
    Ok(())
}

/// How often something may happen in how many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tracker) struct Limit {
    pub(in crate::tracker) times: u32,
    pub(in crate::tracker) seconds: u64,
}

impl Limit {
    /// Of these times, those that still count.
    fn counted(self, times: &[u64], now: u64) -> Vec<u64> {
        times.iter().copied().filter(|&time| now < time.saturating_add(self.seconds)).collect()
    }

    /// How often it may happen still, and from when on once more where that is never for now.
    pub(in crate::tracker) fn left(self, times: &[u64], now: u64) -> (u32, Option<u64>) {
        let counted = self.counted(times, now);
        let left = self.times.saturating_sub(u32::try_from(counted.len()).unwrap_or(u32::MAX));
        // As many must be forgotten as there are too many, and one.
        let oldest = (counted.len() + 1).checked_sub(self.times as usize).and_then(|n| n.checked_sub(1));
        let next = oldest.and_then(|n| counted.get(n)).map(|time| time.saturating_add(self.seconds));
        (left, next.filter(|_| left == 0))
    }
}

/// Changes what is known of a device.
pub(super) fn change(
    write: &WriteTransaction,
    subscriber: &SubscriberId,
    change: impl FnOnce(&mut DeviceRecord),
) -> Result<DeviceRecord, StoreError> {
    let mut devices = write.open_table(DEVICES)?;
    let known = devices.get(subscriber.0)?.map(|bytes| decode("devices", bytes.value())).transpose()?;
    let mut record: DeviceRecord = known.unwrap_or_default();
    change(&mut record);
    devices.insert(subscriber.0, encode(&record).as_slice())?;
    Ok(record)
}

/// The devices that hold a grant, as they are shown.
pub(in crate::tracker) fn devices_of(store: &Store, grant: &GrantRecord) -> Result<Vec<Device>, StoreError> {
    let device = |id: &SubscriberId| {
        let DeviceRecord { name, enrolled, plays, .. } = store.device(id)?;
        Ok(Device { enrolled, name, plays, subscriber: *id })
    };
    grant.holders.iter().map(|holder| device(&holder.id)).collect()
}

impl Store {
    /// What is known of a subscriber as a device.
    pub(in crate::tracker) fn device(&self, id: &SubscriberId) -> Result<DeviceRecord, StoreError> {
        Ok(self.read(DEVICES, &id.0)?.unwrap_or_default())
    }

    /// A grant.
    pub(in crate::tracker) fn grant_by_id(&self, id: &Bytes32) -> Result<Option<GrantRecord>, StoreError> {
        self.read(GRANTS, id)
    }

    /// Calls a device by another name.
    pub(in crate::tracker) fn name_device(&self, id: &SubscriberId, name: &str) -> Result<(), StoreError> {
        let write = self.begin()?;
        change(&write, id, |device| device.name = Some(name.to_owned()))?;
        write.commit()
    }

    /// Takes note of what a device says that it has played. The tracker's count never falls. A record that is older than the one
    /// told of last was lost or set back; that may happen so often where `limit` says so. Errors: [`ApiError::LostRecord`].
    pub(in crate::tracker) fn note_plays(
        &self,
        id: &SubscriberId,
        told: &PlayRecord,
        limit: Option<Limit>,
        now: u64,
    ) -> Result<DeviceRecord, ChangeError> {
        let write = self.begin()?;
        let known = change(&write, id, |_| ())?;
        let reset = told.lost != 0 || known.counter != 0 && told.counter <= known.counter;
        let mut resets = known.resets.clone();
        if let Some(limit) = limit.filter(|_| reset) {
            resets = limit.counted(&resets, now);
            if limit.left(&resets, now).0 == 0 {
                return Err(ApiError::LostRecord.into());
            }
            resets.push(now);
        }
        let record = change(&write, id, |device| {
            device.counter = told.counter;
            device.plays = device.plays.max(told.plays);
            device.resets = resets;
        })?;
        write.commit()?;
        Ok(record)
    }

    /// Frees the place of a device that has one of a grant, and revokes it, unless it holds another grant by now: that one's users
    /// alone revoke it. With `limit` as one of the grant's users, who may not do so too often. The passkey of who was revoked and
    /// who it is. Errors: [`ApiError::UnknownGrant`], [`ApiError::UnknownSubscriber`] where it
    /// does not hold the grant, [`ApiError::TooManyChanges`].
    pub(in crate::tracker) fn revoke_device(
        &self,
        grant_id: &Bytes32,
        subscriber: &SubscriberId,
        limit: Option<Limit>,
        now: u64,
    ) -> Result<Option<(Passkey, Member)>, ChangeError> {
        let write = self.begin()?;
        let revoked = {
            let mut grant = read_grant(&write, grant_id)?.ok_or(ApiError::UnknownGrant)?;
            let place = grant.holders.iter().position(|holder| holder.id == *subscriber);
            let holder = grant.holders.remove(place.ok_or(ApiError::UnknownSubscriber)?);
            let mut held = write.open_table(HELD)?;
            let elsewhere = held.get(subscriber.0)?.is_some_and(|id| id.value() != *grant_id);
            if elsewhere {
                if grant.gone.len() == MAX_GONE {
                    grant.gone.remove(0);
                }
                grant.gone.push(holder);
            }
            if let Some(limit) = limit {
                grant.freed = limit.counted(&grant.freed, now);
                if limit.left(&grant.freed, now).0 == 0 {
                    return Err(ApiError::TooManyChanges.into());
                }
                grant.freed.push(now);
            }
            write.open_table(GRANTS)?.insert(grant_id, encode(&grant).as_slice())?;
            if elsewhere {
                None
            } else {
                held.remove(subscriber.0)?;
                Some(revoke_subscriber(&write, subscriber, now)?.ok_or(ApiError::UnknownSubscriber)?)
            }
        };
        write.commit()?;
        Ok(revoked)
    }
}

#[cfg(test)]
mod tests {
    use super::super::NewVoucher;
    use super::super::tests::{TORRENT, refusal, store, subscriber};
    use super::*;
    use crate::wire::license::Policy;

    const LIMIT: Limit = Limit { times: 2, seconds: 100 };

    #[test]
    fn a_limit_counts_what_is_not_too_old() {
        assert_eq!(LIMIT.left(&[], 50), (2, None));
        assert_eq!(LIMIT.left(&[10], 50), (1, None));
        assert_eq!(LIMIT.left(&[10, 20], 50), (0, Some(110)));
        assert_eq!(LIMIT.left(&[10, 20, 30], 50), (0, Some(120)));
        assert_eq!(LIMIT.left(&[10, 20], 110), (1, None));
        assert_eq!(Limit { times: 0, ..LIMIT }.left(&[], 50), (0, None));
        assert_eq!(Limit { times: 0, ..LIMIT }.left(&[10], 50), (0, None));
    }

    /// A grant for two devices, held by the first two of four subscribers.
    fn shared() -> (tempfile::TempDir, Store) {
        let (directory, store) = store();
        for n in 1..=4 {
            let (id, record) = subscriber(n);
            store.subscribe(id, record).unwrap();
        }
        let grant = GrantRecord {
            torrent_id: TORRENT,
            account: None,
            devices: 2,
            holders: Vec::new(),
            policy: Policy { plays: Some(3), ..Policy::default() },
            created: 5,
            freed: Vec::new(),
            gone: Vec::new(),
        };
        store.issue_vouchers("1", 0, &[voucher(7, 8), voucher(6, 9)], &grant).unwrap();
        for n in 1..=2 {
            store.redeem(&[7; 32], &TORRENT, &id(n), 40 + u64::from(n)).unwrap();
        }
        (directory, store)
    }

    fn voucher(mac: u8, grant: u8) -> NewVoucher {
        NewVoucher { mac: [mac; 32], grant: [grant; 32] }
    }

    fn id(n: u8) -> SubscriberId {
        SubscriberId([n; 32])
    }

    #[test]
    fn a_place_is_freed_and_taken_and_not_too_often() {
        let (_directory, store) = shared();
        store.name_device(&id(2), "laptop").unwrap();
        let grant = store.grant_of(&id(1)).unwrap().unwrap();
        let shown = |grant: &GrantRecord| -> Vec<(u8, Option<String>, u64)> {
            let devices = devices_of(&store, grant).unwrap().into_iter();
            devices.map(|device| (device.subscriber.0[0], device.name, device.enrolled)).collect()
        };
        assert_eq!(shown(&grant), [(1, None, 41), (2, Some("laptop".to_owned()), 42)]);
        assert_eq!(refusal(store.redeem(&[7; 32], &TORRENT, &id(3), 50)), ApiError::UsedVoucher);
        let revoke = |n, now| store.revoke_device(&[8; 32], &id(n), Some(LIMIT), now);
        let (passkey, member) = revoke(2, 60).unwrap().unwrap();
        assert_eq!((passkey, member.id, member.revoked), (Passkey::new([2; 16]), id(2), true));
        assert_eq!(refusal(revoke(2, 61)), ApiError::UnknownSubscriber);
        assert_eq!(store.grant_of(&id(2)).unwrap(), None);
        // It is out for good; its place is another's.
        assert_eq!(refusal(store.redeem(&[7; 32], &TORRENT, &id(2), 62)), ApiError::Revoked);
        store.redeem(&[7; 32], &TORRENT, &id(3), 62).unwrap();
        revoke(3, 63).unwrap();
        store.redeem(&[7; 32], &TORRENT, &id(4), 64).unwrap();
        assert_eq!(refusal(revoke(4, 65)), ApiError::TooManyChanges);
        assert!(!store.subscriber(&id(4)).unwrap().unwrap().revoked);
        // The publisher may, and time helps.
        store.revoke_device(&[8; 32], &id(1), None, 66).unwrap();
        revoke(4, 160).unwrap();
        assert_eq!(store.grant_by_id(&[8; 32]).unwrap().unwrap().freed, [63, 160]);
        assert_eq!(refusal(store.revoke_device(&[1; 32], &id(1), None, 9)), ApiError::UnknownGrant);
    }

    #[test]
    fn plays_are_kept_and_a_record_that_was_set_back_is_noticed() {
        let (_directory, store) = shared();
        let told = |counter, plays| PlayRecord { counter, lost: 0, plays };
        let note = |told: PlayRecord, now| store.note_plays(&id(1), &told, Some(LIMIT), now);
        assert_eq!(note(told(1, 0), 50).unwrap().plays, 0);
        assert_eq!(note(told(4, 2), 51).unwrap().plays, 2);
        // An older record, all of it lost, and one that the device itself calls lost.
        let known = note(told(4, 1), 52).unwrap();
        assert_eq!((known.plays, known.resets), (2, vec![52]));
        assert_eq!(note(told(1, 0), 53).unwrap().plays, 2);
        assert_eq!(refusal(note(told(1, 0), 54)), ApiError::LostRecord);
        assert_eq!(refusal(note(PlayRecord { lost: 1, ..told(9, 3) }, 54)), ApiError::LostRecord);
        assert_eq!(store.device(&id(1)).unwrap().counter, 1);
        note(told(2, 3), 55).unwrap();
        // Where nothing is limited it does not matter; nor does it after a while.
        store.note_plays(&id(1), &told(1, 0), None, 56).unwrap();
        let known = note(PlayRecord { lost: 1, ..told(2, 0) }, 152).unwrap();
        assert_eq!((known.plays, known.resets), (3, vec![53, 152]));
    }

    #[test]
    fn what_is_bought_anew_counts_from_what_was_played() {
        let (_directory, store) = shared();
        let told = PlayRecord { counter: 1, lost: 0, plays: 3 };
        store.note_plays(&id(1), &told, None, 50).unwrap();
        store.redeem(&[7; 32], &TORRENT, &id(1), 51).unwrap();
        assert_eq!((store.device(&id(1)).unwrap().before, store.device(&id(1)).unwrap().enrolled), (0, 41));
        store.redeem(&[6; 32], &TORRENT, &id(1), 52).unwrap();
        assert_eq!((store.device(&id(1)).unwrap().before, store.device(&id(1)).unwrap().enrolled), (3, 52));
    }

    #[test]
    fn vouchers_redeemed_in_turns_give_no_play_twice() {
        let (_directory, store) = shared();
        // Of 3 plays each, whichever is redeemed.
        let mut played = 0;
        for turn in 0..40_u64 {
            let voucher = if turn % 3 == 0 { 6 } else { 7 };
            let told = PlayRecord { counter: turn + 1, lost: 0, plays: played };
            store.note_plays(&id(1), &told, None, 50 + turn).unwrap();
            store.redeem(&[voucher; 32], &TORRENT, &id(1), 50 + turn).unwrap();
            played += u64::from(played < 3 + store.device(&id(1)).unwrap().before);
        }
        assert_eq!(played, 6);
        // The other device that shares one of them has its own.
        assert_eq!(store.device(&id(2)).unwrap().before, 0);
    }

    #[test]
    fn an_older_grant_frees_the_place_and_leaves_what_was_bought_later() {
        let (_directory, store) = shared();
        let told = PlayRecord { counter: 1, lost: 0, plays: 2 };
        store.note_plays(&id(2), &told, None, 50).unwrap();
        store.redeem(&[6; 32], &TORRENT, &id(2), 51).unwrap();
        assert_eq!(store.revoke_device(&[8; 32], &id(2), Some(LIMIT), 52).unwrap(), None);
        assert_eq!(store.held_by(&id(2)).unwrap(), Some([9; 32]));
        assert!(!store.subscriber(&id(2)).unwrap().unwrap().revoked);
        // Its place is free, and what it used of the grant stays used.
        assert!(!store.is_new(&[7; 32], &TORRENT, &id(2), 53).unwrap());
        store.redeem(&[7; 32], &TORRENT, &id(2), 53).unwrap();
        assert_eq!(store.device(&id(2)).unwrap().before, 0);
        assert_eq!(store.grant_by_id(&[8; 32]).unwrap().unwrap().gone, []);
        // What it holds, the grant's users revoke.
        assert!(store.revoke_device(&[8; 32], &id(2), Some(LIMIT), 54).unwrap().is_some());
    }

    #[test]
    fn a_code_is_news_once_to_whom_it_gives_something() {
        let (_directory, store) = shared();
        let is_new = |voucher, torrent, n| store.is_new(&[voucher; 32], &torrent, &id(n), 50).unwrap();
        assert!(is_new(6, TORRENT, 1));
        store.redeem(&[6; 32], &TORRENT, &id(1), 51).unwrap();
        // Its own, one without a place left, one that is none, and one for another torrent.
        assert!(!is_new(6, TORRENT, 1) && !is_new(7, TORRENT, 1));
        assert!(!is_new(7, TORRENT, 3) && !is_new(5, TORRENT, 1));
        assert!(!is_new(6, swarmseal_core::TorrentId([9; 32]), 2));
    }
}
