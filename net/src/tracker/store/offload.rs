//! How many pieces keys were given out for.

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use swarmseal_core::{SubscriberId, TorrentId};

use super::{Bytes32, Store, StoreError, decode, encode};
use crate::tracker::offload::Pending;
use crate::tracker::records::{KeyedRecord, OffloadRecord};

/// (torrent, beginning of an hour) → what was keyed in it.
pub(super) const HOURS: TableDefinition<'_, (Bytes32, u64), &[u8]> = TableDefinition::new("keyed by hour");
/// Subscriber → what was keyed to it and from it.
pub(super) const KEYED: TableDefinition<'_, Bytes32, &[u8]> = TableDefinition::new("keyed by subscriber");

pub(super) fn make_tables(write: &WriteTransaction) -> Result<(), StoreError> {
    write.open_table(HOURS)?;
    write.open_table(KEYED)?;
    Ok(())
}

impl Store {
    /// Adds counts to those that there are, all in one transaction.
    pub(in crate::tracker) fn add_counts(&self, counts: &Pending) -> Result<(), StoreError> {
        let write = self.begin()?;
        {
            let mut table = write.open_table(HOURS)?;
            for (&(torrent, hour), counts) in &counts.hours {
                let key = (torrent.0, hour);
                let known =
                    table.get(key)?.map(|bytes| decode("keyed by hour", bytes.value())).transpose()?;
                let mut sum: OffloadRecord = known.unwrap_or_default();
                sum.add(counts);
                table.insert(key, encode(&sum).as_slice())?;
            }
            let mut table = write.open_table(KEYED)?;
            for (id, counts) in &counts.keyed {
                let known = table.get(id.0)?;
                let known = known.map(|bytes| decode("keyed by subscriber", bytes.value())).transpose()?;
                let mut sum: KeyedRecord = known.unwrap_or_default();
                sum.add(counts);
                table.insert(id.0, encode(&sum).as_slice())?;
            }
        }
        write.commit()
    }

    /// Hours of a torrent after one, at most `limit`, the oldest first.
    pub(in crate::tracker) fn hours(
        &self,
        torrent: &TorrentId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, OffloadRecord)>, StoreError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(HOURS)?;
        let first = after.map_or(0, |hour| hour.saturating_add(1));
        let rows = table.range((torrent.0, first)..=(torrent.0, u64::MAX))?.take(limit);
        rows.map(|row| {
            let (key, bytes) = row?;
            Ok((key.value().1, decode("keyed by hour", bytes.value())?))
        })
        .collect()
    }

    /// What was keyed to and from each of these subscribers.
    pub(in crate::tracker) fn keyed(&self, ids: &[SubscriberId]) -> Result<Vec<KeyedRecord>, StoreError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(KEYED)?;
        let of = |id: &SubscriberId| match table.get(id.0)? {
            Some(bytes) => decode("keyed by subscriber", bytes.value()),
            None => Ok(KeyedRecord::default()),
        };
        ids.iter().map(of).collect()
    }

    /// Forgets the hours of these torrents that began before a time.
    pub(in crate::tracker) fn forget_hours(
        &self,
        torrents: &[TorrentId],
        before: u64,
    ) -> Result<(), StoreError> {
        let of = |torrent: &TorrentId| (torrent.0, 0)..(torrent.0, before);
        let mut old = torrents.to_vec();
        {
            // Mostly there is nothing to do, and nothing to write.
            let read = self.database.begin_read()?;
            let table = read.open_table(HOURS)?;
            let mut found = Vec::new();
            for torrent in old.drain(..) {
                if table.range(of(&torrent))?.next().transpose()?.is_some() {
                    found.push(torrent);
                }
            }
            old = found;
        }
        if old.is_empty() {
            return Ok(());
        }
        let write = self.begin()?;
        {
            let mut table = write.open_table(HOURS)?;
            for torrent in &old {
                table.retain_in(of(torrent), |_, _| false)?;
            }
        }
        write.commit()
    }

    /// Looks at `count` subscribers behind `after` and forgets the counts that last changed before a time. The last subscriber
    /// looked at; none at the end of all.
    pub(in crate::tracker) fn forget_keyed(
        &self,
        after: Option<SubscriberId>,
        count: usize,
        before: u64,
    ) -> Result<Option<SubscriberId>, StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let (mut old, mut last, mut seen) = (Vec::new(), None, 0);
        {
            let read = self.database.begin_read()?;
            let table = read.open_table(KEYED)?;
            let first = after.map_or(Unbounded, |id| Excluded(id.0));
            for row in table.range::<Bytes32>((first, Unbounded))?.take(count) {
                let (id, bytes) = row?;
                let record: KeyedRecord = decode("keyed by subscriber", bytes.value())?;
                (last, seen) = (Some(SubscriberId(id.value())), seen + 1);
                if record.changed < before {
                    old.push(id.value());
                }
            }
        }
        if !old.is_empty() {
            let write = self.begin()?;
            {
                let mut table = write.open_table(KEYED)?;
                for id in old {
                    table.remove(id)?;
                }
            }
            write.commit()?;
        }
        Ok(last.filter(|_| seen == count))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{TORRENT, store};
    use super::*;

    const OTHER: TorrentId = TorrentId([2; 32]);

    fn id(n: u8) -> SubscriberId {
        SubscriberId([n; 32])
    }

    fn counts(hours: &[(TorrentId, u64)], keyed: &[(u8, u64)]) -> Pending {
        let hour = |&key: &(TorrentId, u64)| (key, OffloadRecord { from_seeds: 1, from_peers: 3 });
        let subscriber = |&(n, changed): &(u8, u64)| (id(n), KeyedRecord { changed, from: 5, to: 7 });
        Pending { hours: hours.iter().map(hour).collect(), keyed: keyed.iter().map(subscriber).collect() }
    }

    #[test]
    fn counts_add_up() {
        let (_directory, store) = store();
        store.add_counts(&counts(&[(TORRENT, 3600), (TORRENT, 7200), (OTHER, 7200)], &[(1, 8000)])).unwrap();
        store.add_counts(&counts(&[(TORRENT, 7200), (TORRENT, 10_800)], &[(1, 7000), (2, 9000)])).unwrap();
        let hours = |after, limit| -> Vec<(u64, u64, u64)> {
            let hours = store.hours(&TORRENT, after, limit).unwrap();
            hours.into_iter().map(|(hour, counts)| (hour, counts.from_seeds, counts.from_peers)).collect()
        };
        assert_eq!(hours(None, 10), [(3600, 1, 3), (7200, 2, 6), (10_800, 1, 3)]);
        assert_eq!(hours(None, 2), [(3600, 1, 3), (7200, 2, 6)]);
        assert_eq!(hours(Some(7200), 2), [(10_800, 1, 3)]);
        assert_eq!(hours(Some(u64::MAX), 2), []);
        let keyed = store.keyed(&[id(2), id(3), id(1)]).unwrap();
        let first = KeyedRecord { changed: 8000, from: 10, to: 14 };
        assert_eq!(keyed, [KeyedRecord { changed: 9000, from: 5, to: 7 }, KeyedRecord::default(), first]);
    }

    #[test]
    fn what_is_old_is_forgotten_and_nothing_else() {
        let (_directory, store) = store();
        let subscribers: Vec<(u8, u64)> = (1..=5).map(|n| (n, 1000 * u64::from(n))).collect();
        store.add_counts(&counts(&[(TORRENT, 3600), (TORRENT, 7200), (OTHER, 3600)], &subscribers)).unwrap();
        store.forget_hours(&[TORRENT], 7200).unwrap();
        let hours = |torrent| store.hours(&torrent, None, 10).unwrap().len();
        assert_eq!((hours(TORRENT), hours(OTHER)), (1, 1));
        // Some at a time.
        assert_eq!(store.forget_keyed(None, 2, 3000).unwrap(), Some(id(2)));
        assert_eq!(store.forget_keyed(Some(id(2)), 3, 6000).unwrap(), Some(id(5)));
        assert_eq!(store.forget_keyed(Some(id(5)), 3, 6000).unwrap(), None);
        store.add_counts(&counts(&[], &[(3, 10_000)])).unwrap();
        let all: Vec<SubscriberId> = (1..=5).map(id).collect();
        let left = store.keyed(&all).unwrap().iter().map(|counts| counts.to).collect::<Vec<_>>();
        assert_eq!(left, [0, 0, 7, 0, 0]);
    }
}
