//! The version of the store: a new store gets it, and a store of a newer program is refused.

use std::path::Path;

use redb::{TableHandle, WriteTransaction};

use super::database::Database;
use super::{
    ACCOUNTS, AUTHORITIES, GRANTS, HASHES, HELD, LICENSES, MEMBERS_OF, META, PERSONAL, REVOCATIONS, SEEDS,
    SUBSCRIBERS, StoreError, TORRENTS, admin, devices, epochs, offload, vouchers,
};

/// The schema that this program writes, and the newest that it reads.
pub(super) const SCHEMA: u64 = 1;

/// What meta has the schema under.
const KEY: &str = "schema";

/// Opens the store in a file, or makes an empty one. Errors: [`StoreError::Newer`], and those of [`Database::open`].
pub(super) fn open(path: &Path, check: bool) -> Result<Database, StoreError> {
    let database = Database::open(path, check)?;
    match found(&database)? {
        None => {
            let write = database.begin_write()?;
            make_tables(&write)?;
            write.open_table(META)?.insert(KEY, SCHEMA)?;
            write.commit()?;
            Ok(database)
        }
        Some(found) if found > SCHEMA => Err(StoreError::Newer { path: path.to_owned(), found }),
        Some(_) => Ok(database),
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

fn make_tables(write: &WriteTransaction) -> Result<(), StoreError> {
    for table in [TORRENTS, SEEDS, SUBSCRIBERS, GRANTS, AUTHORITIES] {
        write.open_table(table)?;
    }
    for table in [HELD, ACCOUNTS] {
        write.open_table(table)?;
    }
    write.open_table(MEMBERS_OF)?;
    write.open_table(HASHES)?;
    write.open_table(PERSONAL)?;
    write.open_table(LICENSES)?;
    write.open_table(REVOCATIONS)?;
    epochs::make_tables(write)?;
    admin::make_tables(write)?;
    offload::make_tables(write)?;
    vouchers::make_tables(write)?;
    devices::make_tables(write)
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    #[test]
    fn a_newer_store_is_refused_by_its_number_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tracker.redb");
        let store = Store::open(&path, false).unwrap();
        assert_eq!(found(&store.database).unwrap(), Some(SCHEMA));
        let write = store.database.begin_write().unwrap();
        write.open_table(META).unwrap().insert(KEY, SCHEMA + 1).unwrap();
        write.commit().unwrap();
        drop(store);
        for _ in 0..2 {
            let opened = Store::open(&path, false);
            assert!(matches!(opened, Err(StoreError::Newer { found, .. }) if found == SCHEMA + 1));
        }
    }
}
