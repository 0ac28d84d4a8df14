//! Which epochs each torrent has, and the marks by which a wrong key file is noticed.

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use swarmseal_core::TorrentId;

use super::{Bytes32, ChangeError, Store, StoreError, decode, encode};
use crate::tracker::records::EpochsRecord;
use crate::wire::api::ApiError;

pub(super) const EPOCHS: TableDefinition<'_, Bytes32, &[u8]> = TableDefinition::new("epochs");
/// What a key file is for → what [`mark`] makes of its secret.
pub(super) const MARKS: TableDefinition<'_, &str, Bytes32> = TableDefinition::new("key marks");

pub(super) fn make_tables(write: &WriteTransaction) -> Result<(), StoreError> {
    write.open_table(EPOCHS)?;
    write.open_table(MARKS)?;
    Ok(())
}

/// Tells one secret from another, and nothing else about it.
pub(in crate::tracker) fn mark(secret: &[u8; 32]) -> Bytes32 {
    blake3::derive_key("swarmseal v1 mark of a key file", secret)
}

impl Store {
    /// A torrent's epochs.
    #[cfg(test)]
    pub(super) fn epochs(&self, torrent: &TorrentId) -> Result<Option<EpochsRecord>, StoreError> {
        self.read(EPOCHS, &torrent.0)
    }

    /// Every torrent's epochs.
    pub(in crate::tracker) fn all_epochs(&self) -> Result<Vec<(TorrentId, EpochsRecord)>, StoreError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(EPOCHS)?;
        let rows = table.iter()?.map(|row| {
            let (id, bytes) = row?;
            Ok((TorrentId(id.value()), decode("epochs", bytes.value())?))
        });
        rows.collect()
    }

    /// Changes the epochs of some torrents, all of them or none. Errors: [`ApiError::UnknownTorrent`], and those of `change`.
    pub(in crate::tracker) fn change_epochs(
        &self,
        torrents: &[TorrentId],
        mut change: impl FnMut(EpochsRecord) -> Result<EpochsRecord, ApiError>,
    ) -> Result<Vec<EpochsRecord>, ChangeError> {
        let write = self.database.begin_write()?;
        let mut changed = Vec::with_capacity(torrents.len());
        {
            let mut table = write.open_table(EPOCHS)?;
            for torrent in torrents {
                let known = table.get(torrent.0)?.map(|bytes| decode("epochs", bytes.value())).transpose()?;
                let record = change(known.ok_or(ApiError::UnknownTorrent)?)?;
                table.insert(torrent.0, encode(&record).as_slice())?;
                changed.push(record);
            }
        }
        write.commit()?;
        Ok(changed)
    }

    /// Notes the marks of key files that are not noted yet. Those that are noted and differ: somebody put another key there.
    pub(in crate::tracker) fn check_marks(
        &self,
        marks: &[(String, Bytes32)],
    ) -> Result<Vec<String>, StoreError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(MARKS)?;
        let (mut fresh, mut other) = (Vec::new(), Vec::new());
        for (name, mark) in marks {
            match table.get(name.as_str())?.map(|known| known.value()) {
                Some(known) if known == *mark => {}
                Some(_) => other.push(name.clone()),
                None => fresh.push((name, mark)),
            }
        }
        if !fresh.is_empty() && other.is_empty() {
            let write = self.database.begin_write()?;
            {
                let mut table = write.open_table(MARKS)?;
                for (name, mark) in fresh {
                    table.insert(name.as_str(), mark)?;
                }
            }
            write.commit()?;
        }
        Ok(other)
    }

    /// Forgets the mark of a key file that another is to replace.
    pub(in crate::tracker) fn forget_mark(&self, name: &str) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        write.open_table(MARKS)?.remove(name)?;
        write.commit()
    }

    /// Whether the mark of such a key file is noted.
    pub(in crate::tracker) fn has_mark(&self, name: &str) -> Result<bool, StoreError> {
        let read = self.database.begin_read()?;
        Ok(read.open_table(MARKS)?.get(name)?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{TORRENT, refusal, registered};
    use super::*;

    #[test]
    fn epochs_change_together_or_not_at_all() {
        let (_directory, store) = registered();
        let next = |epochs: EpochsRecord| Ok(EpochsRecord { current: epochs.current + 1, ..epochs });
        let changed = store.change_epochs(&[TORRENT], next).unwrap();
        assert_eq!((changed[0].oldest, changed[0].current), (1, 2));
        let unknown = store.change_epochs(&[TORRENT, TorrentId([9; 32])], next);
        assert_eq!(refusal(unknown), ApiError::UnknownTorrent);
        assert_eq!(store.epochs(&TORRENT).unwrap(), Some(changed[0]));
        assert_eq!(store.all_epochs().unwrap(), [(TORRENT, changed[0])]);
    }

    #[test]
    fn another_key_under_the_same_name_is_noticed() {
        let (_directory, store) = registered();
        let marks =
            |byte: u8| [("master 1".to_owned(), mark(&[byte; 32])), ("license".to_owned(), mark(&[3; 32]))];
        assert!(!store.has_mark("license").unwrap());
        assert!(store.check_marks(&marks(1)).unwrap().is_empty());
        assert!(store.has_mark("license").unwrap());
        assert_eq!(store.check_marks(&marks(2)).unwrap(), ["master 1"]);
        assert!(store.check_marks(&marks(1)).unwrap().is_empty());
    }
}
