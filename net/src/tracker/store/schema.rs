//! Versions of the store. An older one is copied beside itself and then brought up to date, in one transaction.
//!
//! | schema | what it added |
//! |---|---|
//! | 1 | everything up to cases |
//! | 2 | licenses issued, times of revocations, epochs of torrents, marks of keys, admin tokens, the audit log |
//! | 3 | devices: names, plays, when they were enrolled |

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use redb::{ReadableTable, TableHandle, WriteTransaction};
use swarmseal_core::TorrentId;

use super::database::Database;
use super::{
    ACCOUNTS, GRANTS, HASHES, HELD, LICENSES, MEMBERS_OF, META, PERSONAL, REVOCATIONS, SEEDS, SUBSCRIBERS,
    StoreError, TORRENTS, VOUCHERS, admin, cases, decode, devices, encode, epochs, member_range,
};
use crate::atomic_file::{Access, Existing, PendingFile};
use crate::tracker::records::{EpochsRecord, SubscriberRecord};

/// The schema that this program writes, and the newest that it reads.
pub(super) const SCHEMA: u64 = 3;

/// What meta has the schema under.
pub(super) const KEY: &str = "schema";

/// Opens the store in a file, or makes an empty one; one of an older schema is brought up to date after a copy of it has been
/// made. `first_epoch`: of torrents in an older store that have no subscriber.
pub(super) fn open(path: &Path, check: bool, first_epoch: u64) -> Result<Database, StoreError> {
    let database = Database::open(path, check)?;
    match found(&database)? {
        None => {
            let write = database.begin_write()?;
            make_tables_1(&write)?;
            make_tables_2(&write)?;
            devices::make_tables(&write)?;
            write.open_table(META)?.insert(KEY, SCHEMA)?;
            write.commit()?;
            Ok(database)
        }
        Some(SCHEMA) => Ok(database),
        Some(found) if found > SCHEMA => Err(StoreError::Newer { path: path.to_owned(), found }),
        Some(found) => {
            // Closed, so that the copy is of a file that nobody writes to: the directory's lock is ours.
            drop(database);
            let copy = copy_beside(path, found)?;
            let database = Database::open(path, check)?;
            migrate(&database, found, first_epoch)?;
            tracing::warn!(from = found, to = SCHEMA, copy = %copy.display(), "the store was brought up to date");
            Ok(database)
        }
    }
}

/// The schema of what is there; none in an empty file.
pub(super) fn found(database: &Database) -> Result<Option<u64>, StoreError> {
    let read = database.begin_read()?;
    if !read.list_tables()?.any(|table| table.name() == META.name()) {
        return Ok(None);
    }
    Ok(read.open_table(META)?.get(KEY)?.map(|schema| schema.value()))
}

/// Where the copy of an older store is.
fn copy_path(path: &Path, schema: u64) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".schema-{schema}"));
    path.with_file_name(name)
}

fn copy_beside(path: &Path, schema: u64) -> Result<PathBuf, StoreError> {
    let copy = copy_path(path, schema);
    let failed = |source: io::Error| StoreError::Io { path: copy.clone(), source };
    let mut from = File::open(path).map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
    let mut to = PendingFile::create(&copy, Access::Private).map_err(failed)?;
    io::copy(&mut from, &mut to).map_err(failed)?;
    to.commit(Existing::Replace).map_err(failed)?;
    Ok(copy)
}

/// The tables of schema 1.
fn make_tables_1(write: &WriteTransaction) -> Result<(), StoreError> {
    for table in [TORRENTS, SEEDS, SUBSCRIBERS, GRANTS] {
        write.open_table(table)?;
    }
    for table in [HELD, VOUCHERS, ACCOUNTS] {
        write.open_table(table)?;
    }
    write.open_table(MEMBERS_OF)?;
    write.open_table(HASHES)?;
    write.open_table(PERSONAL)?;
    cases::make_tables(write)
}

/// Those that schema 2 added.
fn make_tables_2(write: &WriteTransaction) -> Result<(), StoreError> {
    write.open_table(LICENSES)?;
    write.open_table(REVOCATIONS)?;
    epochs::make_tables(write)?;
    admin::make_tables(write)
}

fn migrate(database: &Database, from: u64, first_epoch: u64) -> Result<(), StoreError> {
    let write = database.begin_write()?;
    if from < 2 {
        make_tables_2(&write)?;
        let torrents = write.open_table(TORRENTS)?;
        let members = write.open_table(MEMBERS_OF)?;
        let subscribers = write.open_table(SUBSCRIBERS)?;
        let mut all = write.open_table(epochs::EPOCHS)?;
        for row in torrents.iter()? {
            let torrent = TorrentId(row?.0.value());
            let mut epochs: Option<EpochsRecord> = None;
            for row in members.range::<[u8; 64]>(member_range(&torrent, None))? {
                let mut id = [0; 32];
                id.copy_from_slice(&row?.0.value()[32..]);
                // Seeds are members too, and have no epoch.
                let Some(bytes) = subscribers.get(id)? else { continue };
                let SubscriberRecord { epoch, .. } = decode("subscribers", bytes.value())?;
                let known = epochs.unwrap_or(EpochsRecord { oldest: epoch, current: epoch, started: 0 });
                let (oldest, current) = (known.oldest.min(epoch), known.current.max(epoch));
                epochs = Some(EpochsRecord { oldest, current, ..known });
            }
            let none = EpochsRecord { oldest: first_epoch, current: first_epoch, started: 0 };
            all.insert(torrent.0, encode(&epochs.unwrap_or(none)).as_slice())?;
        }
    }
    if from < 3 {
        devices::make_tables(&write)?;
    }
    write.open_table(META)?.insert(KEY, SCHEMA)?;
    write.commit()
}

#[cfg(test)]
mod tests {
    use swarmseal_core::SubscriberId;

    use super::super::tests::{TORRENT, refusal, subscriber};
    use super::super::{Store, member_key};
    use super::*;
    use crate::tracker::records::TorrentRecord;
    use crate::wire::api::ApiError;

    /// What the program wrote that had schema 1.
    fn schema_1(path: &Path, epochs: &[u64]) {
        let database = Database::open(path, false).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(META).unwrap().insert(KEY, 1).unwrap();
        make_tables_1(&write).unwrap();
        let record = TorrentRecord { metainfo: vec![1, 2], name: "a film".to_owned() };
        for torrent in [TORRENT, TorrentId([2; 32])] {
            write.open_table(TORRENTS).unwrap().insert(torrent.0, encode(&record).as_slice()).unwrap();
        }
        for (n, &epoch) in (1..).zip(epochs) {
            let (id, record) = subscriber(n);
            let record = SubscriberRecord { epoch, ..record };
            write.open_table(SUBSCRIBERS).unwrap().insert(id.0, encode(&record).as_slice()).unwrap();
            write.open_table(MEMBERS_OF).unwrap().insert(member_key(&TORRENT, &id), false).unwrap();
        }
        write.commit().unwrap();
    }

    #[test]
    fn a_store_of_schema_1_is_copied_and_brought_up_to_date() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tracker.redb");
        schema_1(&path, &[3, 1, 2]);
        let store = Store::open(&path, false, 3).unwrap();
        let (id, record) = subscriber(2);
        assert_eq!(store.subscriber(&id).unwrap(), Some(record));
        let epochs = |id: &TorrentId| store.epochs(id).unwrap().map(|epochs| (epochs.oldest, epochs.current));
        assert_eq!(epochs(&TORRENT), Some((1, 3)));
        assert_eq!(epochs(&TorrentId([2; 32])), Some((3, 3)));
        store.revoke(&id, 77).unwrap();
        assert_eq!(store.subscribers_of(&TORRENT, None, 5).unwrap()[1].revoked, Some(77));
        drop(store);
        // The copy is what there was, and a second start finds nothing to do.
        let copy = copy_path(&path, 1);
        let old = Database::open(&copy, true).unwrap();
        assert_eq!(found(&old).unwrap(), Some(1));
        assert!(old.begin_read().unwrap().open_table(REVOCATIONS).is_err());
        drop(old);
        std::fs::remove_file(&copy).unwrap();
        let store = Store::open(&path, true, 9).unwrap();
        assert_eq!(found(&store.database).unwrap(), Some(SCHEMA));
        assert!(!copy.exists());
        assert_eq!(store.totals().unwrap().subscribers, 3);
        let unknown = SubscriberId([9; 32]);
        assert_eq!(refusal(store.revoke(&unknown, 1)), ApiError::UnknownSubscriber);
    }

    #[test]
    fn a_store_of_schema_2_is_copied_and_gets_devices() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tracker.redb");
        let store = Store::open(&path, false, 1).unwrap();
        let (id, record) = subscriber(1);
        store.subscribe(id, record).unwrap();
        let write = store.database.begin_write().unwrap();
        write.open_table(META).unwrap().insert(KEY, 2).unwrap();
        assert!(write.delete_table(devices::DEVICES).unwrap());
        write.commit().unwrap();
        drop(store);
        let store = Store::open(&path, false, 1).unwrap();
        assert_eq!(found(&store.database).unwrap(), Some(SCHEMA));
        assert_eq!(store.device(&id).unwrap().plays, 0);
        store.name_device(&id, "laptop").unwrap();
        assert!(copy_path(&path, 2).exists());
    }

    #[test]
    fn a_newer_store_is_refused_by_its_number_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tracker.redb");
        let store = Store::open(&path, false, 1).unwrap();
        let write = store.database.begin_write().unwrap();
        write.open_table(META).unwrap().insert(KEY, SCHEMA + 1).unwrap();
        write.commit().unwrap();
        drop(store);
        for _ in 0..2 {
            let opened = Store::open(&path, false, 1);
            assert!(matches!(opened, Err(StoreError::Newer { found, .. }) if found == SCHEMA + 1));
        }
    }
}
