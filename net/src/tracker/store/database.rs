//! The database file: opened, and opened anew once the disk has failed it.
//!
//! After a failed write redb refuses every further one until the file is closed and opened again. Operators free space on full
//! disks, so this is done by itself, with the next change.
//!
//! redb's quick repair is left off: after a kill a store of a million subscribers (1.1 GB) is read through in 7 s, and each change
//! would cost 14 ms instead of 4. After an orderly stop nothing is read.

use std::fs::OpenOptions;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use redb::backends::FileBackend;
use redb::{Durability, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::StoreError;
use crate::platform;

/// Bytes of the file that are kept in memory: what a re-key reads are two records, and the system caches the file as well. redb's own
/// default is a gigabyte.
const CACHE: usize = 64 << 20;

/// Opens the file, or makes it.
type Opener = Box<dyn Fn() -> Result<redb::Database, redb::DatabaseError> + Send + Sync>;

/// The database.
pub(super) struct Database {
    /// None after an opening anew that failed.
    open: RwLock<Option<redb::Database>>,
    opener: Opener,
    path: PathBuf,
}

impl Database {
    /// Opens it, or makes an empty one. `check`: every page is read and its checksum compared, which takes a second for some
    /// hundred megabytes.
    pub(super) fn open(path: &Path, check: bool) -> Result<Self, StoreError> {
        let file = path.to_owned();
        let opener = move || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            // There are passkeys in it.
            platform::private(&mut options);
            let file = options.open(&file).map_err(redb::StorageError::from)?;
            redb::Builder::new()
                .set_cache_size(CACHE)
                .set_check_integrity_on_open(check)
                .create_with_backend(FileBackend::new(file)?)
        };
        Self::open_with(path, Box::new(opener))
    }

    /// The same, with the database that `opener` gives.
    pub(super) fn open_with(path: &Path, opener: Opener) -> Result<Self, StoreError> {
        let database = Database { open: RwLock::new(None), opener, path: path.to_owned() };
        database.reopen()?;
        Ok(database)
    }

    /// A view of everything as it was committed last; it does not change.
    pub(super) fn begin_read(&self) -> Result<Reading<'_>, StoreError> {
        let database = self.guard()?;
        let transaction = database.as_ref().ok_or_else(closed)?.begin_read()?;
        Ok(Reading { transaction, _database: database })
    }

    /// The one change under way; others wait. What is acknowledged survives a kill and a power cut.
    pub(super) fn begin_write(&self) -> Result<Writing<'_>, StoreError> {
        match self.try_begin_write() {
            Err(StoreError::Database(error)) if matches!(*error, redb::Error::PreviousIo) => {
                tracing::warn!(store = %self.path.display(), "opening the store anew: the disk failed it before");
                self.reopen()?;
                self.try_begin_write()
            }
            begun => begun,
        }
    }

    fn try_begin_write(&self) -> Result<Writing<'_>, StoreError> {
        let database = self.guard()?;
        let mut transaction = database.as_ref().ok_or_else(closed)?.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        Ok(Writing { transaction, _database: database })
    }

    /// What is open; where an opening anew failed before, it is tried again.
    fn guard(&self) -> Result<RwLockReadGuard<'_, Option<redb::Database>>, StoreError> {
        let database = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if database.is_some() {
            return Ok(database);
        }
        drop(database);
        self.reopen()?;
        Ok(self.open.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for all transactions, closes the file and opens it.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        // Two may have come here for the same failure.
        if open.as_ref().is_some_and(|database| !failed(database)) {
            return Ok(());
        }
        drop(open.take());
        // redb trusts its file, and may panic over one that somebody else wrote to.
        let opened = catch_unwind(AssertUnwindSafe(&self.opener));
        let opened = opened.map_err(|_| StoreError::Unreadable {
            path: self.path.clone(),
            reason: "its pages do not hang together".to_owned(),
        })?;
        *open = Some(opened.map_err(|error| unopened(&self.path, error))?);
        Ok(())
    }
}

/// Whether redb refuses to write for an error that it had.
fn failed(database: &redb::Database) -> bool {
    let begun = database.try_begin_write();
    matches!(begun, Err(redb::TransactionError::Storage(redb::StorageError::PreviousIo)))
}

fn closed() -> StoreError {
    StoreError::Database(Box::new(redb::Error::DatabaseClosed))
}

fn unopened(path: &Path, error: redb::DatabaseError) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path },
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(reason)) => {
            StoreError::Unreadable { path, reason }
        }
        redb::DatabaseError::Storage(redb::StorageError::Io(source)) => match source.kind() {
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                StoreError::Unreadable { path, reason: source.to_string() }
            }
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full,
            _ => StoreError::Io { path, source },
        },
        other => other.into(),
    }
}

/// A view of the database.
pub(super) struct Reading<'a> {
    // Ends before the database may be closed.
    transaction: ReadTransaction,
    _database: RwLockReadGuard<'a, Option<redb::Database>>,
}

impl Deref for Reading<'_> {
    type Target = ReadTransaction;

    fn deref(&self) -> &ReadTransaction {
        &self.transaction
    }
}

/// A change; nothing happened unless it is committed.
pub(super) struct Writing<'a> {
    transaction: WriteTransaction,
    _database: RwLockReadGuard<'a, Option<redb::Database>>,
}

impl Writing<'_> {
    /// On the disk when this returns.
    pub(super) fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit()?)
    }
}

impl Deref for Writing<'_> {
    type Target = WriteTransaction;

    fn deref(&self) -> &WriteTransaction {
        &self.transaction
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use redb::StorageBackend;
    use redb::backends::FileBackend;

    use super::super::tests::subscriber;
    use super::super::{ChangeError, Store, schema};
    use super::*;

    /// A file on a disk that is full at times.
    #[derive(Debug)]
    struct Disk {
        file: FileBackend,
        full: Arc<AtomicBool>,
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.file.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.file.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            if self.full.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.file.write(offset, data)
        }

        fn close(&self) -> io::Result<()> {
            self.file.close()
        }
    }

    #[test]
    fn a_full_disk_is_named_and_the_store_goes_on_once_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tracker.redb");
        drop(schema::open(&path, false).unwrap());
        let full = Arc::new(AtomicBool::new(false));
        let opener = {
            let (path, full) = (path.clone(), full.clone());
            move || {
                let file = OpenOptions::new().read(true).write(true).open(&path)?;
                let disk = Disk { file: FileBackend::new(file)?, full: full.clone() };
                redb::Builder::new().create_with_backend(disk)
            }
        };
        let store = Store { database: Database::open_with(&path, Box::new(opener)).unwrap() };
        let (first, record) = subscriber(1);
        store.subscribe(first, record).unwrap();

        full.store(true, Ordering::Relaxed);
        let (second, record) = subscriber(2);
        for _ in 0..3 {
            let refused = store.subscribe(second, record.clone());
            assert!(matches!(refused, Err(ChangeError::Store(StoreError::Full))), "{refused:?}");
        }
        full.store(false, Ordering::Relaxed);
        store.subscribe(second, record.clone()).unwrap();
        assert!(store.subscriber(&first).unwrap().is_some());
        drop(store);
        let store = Store::open(&path, true).unwrap();
        assert_eq!(store.members().unwrap().len(), 2);
        assert_eq!(store.subscribe(second, record.clone()).unwrap(), record);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tracker.redb");
        let store = Store::open(&path, false).unwrap();
        for n in 1..=200 {
            let (id, record) = subscriber(n);
            store.subscribe(id, record).unwrap();
        }
        drop(store);
        let whole = std::fs::read(&path).unwrap();
        let opened = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Store::open(&path, true).map(drop)
        };
        let mut refused = 0;
        for at in (0..whole.len()).step_by(whole.len() / 40) {
            let mut damaged = whole.clone();
            damaged[at..(at + 64).min(whole.len())].fill(0x5A);
            match opened(&damaged) {
                Err(StoreError::Unreadable { path: named, .. }) if named == path => refused += 1,
                // A page that is not in use.
                Ok(()) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(refused > 3, "{refused}");
        assert!(matches!(opened(&whole[..whole.len() / 2]), Err(StoreError::Unreadable { .. })));
        assert!(matches!(
            opened(b"something else, and long enough to be a file of its own kind"),
            Err(StoreError::Unreadable { .. })
        ));
        opened(&whole).unwrap();
    }
}
