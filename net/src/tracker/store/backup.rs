//! A copy of the store as it was at one moment, made while it is in use, and what becomes a store again.

use std::path::Path;

use redb::{Key, ReadableTable, TableDefinition, Value};

use super::database::{Database, Reading};
use super::{META, Store, StoreError, admin, devices, epochs, offload, schema, vouchers};

/// What meta has the time of a backup under.
const MADE: &str = "backup made";

/// Bytes of records that are in memory before they go to the disk.
const PORTION: usize = 64 << 20;

impl Store {
    /// Writes everything as it is now to a new file; changes go on meanwhile, and are not in it. Gives the number of records.
    pub(in crate::tracker) fn back_up(&self, path: &Path, now: u64) -> Result<u64, StoreError> {
        let read = self.database.begin_read()?;
        let copy = Database::open(path, false)?;
        let mut copied = 0;
        macro_rules! copy_all {
            ($($table:expr),+ $(,)?) => {
                $(copied += copy_table(&read, &copy, $table)?;)+
            };
        }
        // The test counts what there is: none may be forgotten.
        copy_all!(
            META,
            super::TORRENTS,
            super::AUTHORITIES,
            super::SEEDS,
            super::SUBSCRIBERS,
            super::MEMBERS_OF,
            super::GRANTS,
            super::HELD,
            super::ACCOUNTS,
            super::HASHES,
            super::PERSONAL,
            super::LICENSES,
            super::REVOCATIONS,
            devices::DEVICES,
            epochs::EPOCHS,
            epochs::MARKS,
            offload::HOURS,
            offload::KEYED,
            admin::TOKENS,
            admin::AUDIT,
            vouchers::VOUCHERS,
            vouchers::ORDERS,
        );
        let write = copy.begin_write()?;
        write.open_table(META)?.insert(MADE, now)?;
        write.commit()?;
        Ok(copied)
    }

    /// Forgets that it was a backup.
    pub(in crate::tracker) fn is_restored(&self) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        write.open_table(META)?.remove(MADE)?;
        write.commit()
    }
}

fn copy_table<K: Key + 'static, V: Value + 'static>(
    read: &Reading<'_>,
    copy: &Database,
    definition: TableDefinition<'_, K, V>,
) -> Result<u64, StoreError> {
    let from = read.open_table(definition)?;
    let mut rows = from.iter()?;
    let mut copied = 0;
    loop {
        let write = copy.begin_write()?;
        let (mut bytes, mut more) = (0, false);
        {
            let mut to = write.open_table(definition)?;
            for row in rows.by_ref() {
                let (key, value) = row?;
                bytes += V::as_bytes(&value.value()).as_ref().len();
                to.insert(key.value(), value.value())?;
                copied += 1;
                if bytes >= PORTION {
                    more = true;
                    break;
                }
            }
        }
        write.commit()?;
        if !more {
            return Ok(copied);
        }
    }
}

/// When a file was made by [`Store::back_up`]; none where it is no backup, but a store of its own. Every page of it is read and
/// checked.
pub(in crate::tracker) fn examine(path: &Path) -> Result<Option<u64>, StoreError> {
    // A missing file is not to be made.
    std::fs::File::open(path).map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
    let database = Database::open(path, true)?;
    match schema::found(&database)? {
        None => {
            Err(StoreError::Unreadable { path: path.to_owned(), reason: "it is no tracker's store".into() })
        }
        Some(found) if found > schema::SCHEMA => Err(StoreError::Newer { path: path.to_owned(), found }),
        Some(_) => Ok(database.begin_read()?.open_table(META)?.get(MADE)?.map(|made| made.value())),
    }
}

/// How many records of a table there are, and its name: for the test that no table is forgotten.
#[cfg(test)]
fn lengths(database: &Database) -> Vec<(String, u64)> {
    use redb::{ReadableTableMetadata, TableHandle};
    let read = database.begin_read().unwrap();
    let names = read.list_tables().unwrap();
    let mut all: Vec<_> = names
        .map(|table| {
            let length = read.open_untyped_table(table.clone()).unwrap().len().unwrap();
            (table.name().to_owned(), length)
        })
        .collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use swarmseal_core::SubscriberId;

    use super::super::tests::{TORRENT, registered, subscriber};
    use super::*;

    #[test]
    fn a_backup_has_every_table_as_it_was() {
        let (directory, store) = registered();
        for n in 1..=40 {
            let (id, record) = subscriber(n);
            store.subscribe(id, record).unwrap();
            store.note_license(&id, 1, u64::from(n)).unwrap();
        }
        store.revoke(&SubscriberId([2; 32]), 7).unwrap();
        let before = lengths(&store.database);
        let path = directory.path().join("backup");
        let records = store.back_up(&path, 99).unwrap();
        // What comes later is not in it.
        let (id, record) = subscriber(200);
        store.subscribe(id, record).unwrap();

        assert_eq!(examine(&path).unwrap(), Some(99));
        let copy = Store::open(&path, true).unwrap();
        let mut expected = before;
        expected.iter_mut().find(|(name, _)| name == "meta").unwrap().1 += 1;
        assert_eq!(lengths(&copy.database), expected);
        assert_eq!(records + 1, expected.iter().map(|(_, length)| length).sum::<u64>());
        assert_eq!(copy.subscriber(&id).unwrap(), None);
        assert_eq!(copy.subscribers_of(&TORRENT, None, 100).unwrap().len(), 40);
        assert_eq!(copy.members().unwrap().len(), 41);
    }

    #[test]
    fn what_is_no_backup_is_told() {
        let (directory, store) = registered();
        drop(store);
        assert_eq!(examine(&directory.path().join("tracker.redb")).unwrap(), None);
        let path = directory.path().join("no");
        assert!(matches!(examine(&path), Err(StoreError::Io { .. })));
        assert!(!path.exists());
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        assert!(matches!(examine(&path), Err(StoreError::Unreadable { .. })));
        std::fs::write(&path, []).unwrap();
        assert!(matches!(examine(&path), Err(StoreError::Unreadable { .. })));
    }
}
