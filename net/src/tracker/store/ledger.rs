//! Who has sent how much to whom, as the receivers say.

use redb::{TableDefinition, WriteTransaction};
use swarmseal_core::SubscriberId;

use super::{Bytes32, Store, StoreError, decode, encode};
use crate::tracker::records::{BalanceRecord, PairRecord};

/// Subscriber or seed → what it sent and got.
pub(super) const BALANCES: TableDefinition<'_, Bytes32, &[u8]> = TableDefinition::new("ledger");
/// uploader ‖ downloader → what was keyed and credited between them.
pub(super) const PAIRS: TableDefinition<'_, [u8; 64], &[u8]> = TableDefinition::new("ledger of pairs");

/// Who sends, and who gets.
pub(in crate::tracker) type Pair = (SubscriberId, SubscriberId);

pub(super) fn make_tables(write: &WriteTransaction) -> Result<(), StoreError> {
    write.open_table(BALANCES)?;
    write.open_table(PAIRS)?;
    Ok(())
}

impl Store {
    /// What a subscriber or seed sent and got.
    pub(in crate::tracker) fn balance(&self, id: &SubscriberId) -> Result<BalanceRecord, StoreError> {
        Ok(self.read(BALANCES, &id.0)?.unwrap_or_default())
    }

    /// What there is between two, if anything.
    pub(in crate::tracker) fn pair(&self, pair: &Pair) -> Result<Option<PairRecord>, StoreError> {
        let read = self.database.begin_read()?;
        let bytes = read.open_table(PAIRS)?.get(key(pair))?;
        bytes.map(|bytes| decode("ledger of pairs", bytes.value())).transpose()
    }

    /// How many pairs there are.
    pub(in crate::tracker) fn pairs(&self) -> Result<u64, StoreError> {
        use redb::ReadableTableMetadata;
        Ok(self.database.begin_read()?.open_table(PAIRS)?.len()?)
    }

    /// Writes what has changed, all of it at once.
    pub(in crate::tracker) fn put_ledger<'a>(
        &self,
        balances: impl Iterator<Item = (&'a SubscriberId, &'a BalanceRecord)>,
        pairs: impl Iterator<Item = (&'a Pair, &'a PairRecord)>,
    ) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(BALANCES)?;
            for (id, balance) in balances {
                table.insert(id.0, encode(balance).as_slice())?;
            }
            let mut table = write.open_table(PAIRS)?;
            for (pair, record) in pairs {
                table.insert(key(pair), encode(record).as_slice())?;
            }
        }
        write.commit()
    }

    /// Looks at `count` pairs behind `after` and forgets those in which nothing happened since `before`. The last one looked at;
    /// none at the end of all.
    pub(in crate::tracker) fn forget_pairs(
        &self,
        after: Option<Pair>,
        count: usize,
        before: u64,
    ) -> Result<Option<Pair>, StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let (mut old, mut last, mut seen) = (Vec::new(), None, 0);
        {
            let read = self.database.begin_read()?;
            let table = read.open_table(PAIRS)?;
            let first = after.map_or(Unbounded, |pair| Excluded(key(&pair)));
            for row in table.range::<[u8; 64]>((first, Unbounded))?.take(count) {
                let (pair, bytes) = row?;
                let record: PairRecord = decode("ledger of pairs", bytes.value())?;
                (last, seen) = (Some(pair.value()), seen + 1);
                if record.touched < before {
                    old.push(pair.value());
                }
            }
        }
        if !old.is_empty() {
            let write = self.database.begin_write()?;
            {
                let mut table = write.open_table(PAIRS)?;
                for pair in old {
                    table.remove(pair)?;
                }
            }
            write.commit()?;
        }
        Ok(last.filter(|_| seen == count).map(|key| pair_of(&key)))
    }
}

fn key((uploader, downloader): &Pair) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(&uploader.0);
    key[32..].copy_from_slice(&downloader.0);
    key
}

fn pair_of(key: &[u8; 64]) -> Pair {
    let (mut uploader, mut downloader) = ([0; 32], [0; 32]);
    uploader.copy_from_slice(&key[..32]);
    downloader.copy_from_slice(&key[32..]);
    (SubscriberId(uploader), SubscriberId(downloader))
}
