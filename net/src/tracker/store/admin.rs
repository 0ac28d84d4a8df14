//! Admin tokens and the audit log.

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::{Bytes32, Store, StoreError, decode, encode};
use crate::tracker::admin::{AuditRecord, TokenRecord};

/// Hash of a token → what it may do.
pub(super) const TOKENS: TableDefinition<'_, Bytes32, &[u8]> = TableDefinition::new("admin tokens");
/// Entries by their numbers, which only grow.
pub(super) const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit log");

pub(super) fn make_tables(write: &WriteTransaction) -> Result<(), StoreError> {
    write.open_table(TOKENS)?;
    write.open_table(AUDIT)?;
    Ok(())
}

impl Store {
    /// All admin tokens, by their hashes.
    pub(in crate::tracker) fn tokens(&self) -> Result<Vec<(Bytes32, TokenRecord)>, StoreError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(TOKENS)?;
        table
            .iter()?
            .map(|row| {
                let (hash, bytes) = row?;
                Ok((hash.value(), decode("admin tokens", bytes.value())?))
            })
            .collect()
    }

    /// Adds an admin token.
    pub(in crate::tracker) fn add_token(
        &self,
        hash: &Bytes32,
        token: &TokenRecord,
    ) -> Result<(), StoreError> {
        let write = self.begin()?;
        write.open_table(TOKENS)?.insert(hash, encode(token).as_slice())?;
        write.commit()?;
        Ok(())
    }

    /// Takes an admin token away.
    pub(in crate::tracker) fn remove_token(&self, hash: &Bytes32) -> Result<(), StoreError> {
        let write = self.begin()?;
        write.open_table(TOKENS)?.remove(hash)?;
        write.commit()?;
        Ok(())
    }

    /// Appends to the audit log, of which the newest `keep` entries stay.
    pub(in crate::tracker) fn audit(&self, entry: &AuditRecord, keep: u64) -> Result<(), StoreError> {
        let write = self.begin()?;
        {
            let mut table = write.open_table(AUDIT)?;
            let number = table.last()?.map_or(1, |(last, _)| last.value() + 1);
            table.insert(number, encode(entry).as_slice())?;
            while table.len()? > keep {
                table.pop_first()?;
            }
        }
        write.commit()?;
        Ok(())
    }

    /// The newest entries before that number, newest first.
    pub(in crate::tracker) fn audit_page(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, AuditRecord)>, StoreError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(AUDIT)?;
        table
            .range(..before.unwrap_or(u64::MAX))?
            .rev()
            .take(limit)
            .map(|row| {
                let (number, bytes) = row?;
                Ok((number.value(), decode("audit log", bytes.value())?))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(time: u64) -> AuditRecord {
        let text = String::new();
        AuditRecord {
            time,
            token: text.clone(),
            who: text.clone(),
            role: text.clone(),
            address: text.clone(),
            action: text.clone(),
            subject: text.clone(),
            outcome: text,
        }
    }

    #[test]
    fn the_audit_log_is_paged_and_bounded_and_its_numbers_grow() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("a.redb"), false).unwrap();
        for time in 1..=7 {
            store.audit(&entry(time), 5).unwrap();
        }
        let numbers = |before, limit| {
            let page = store.audit_page(before, limit).unwrap();
            page.into_iter().map(|(number, entry)| (number, entry.time)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(None, 2), [(7, 7), (6, 6)]);
        assert_eq!(numbers(Some(6), 10), [(5, 5), (4, 4), (3, 3)]);
        assert_eq!(numbers(Some(3), 10), []);
    }
}
