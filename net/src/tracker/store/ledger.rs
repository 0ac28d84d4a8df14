//! Who has sent how much to whom, as the receivers say.

use redb::{TableDefinition, WriteTransaction};

use super::{Bytes32, StoreError};

/// Subscriber or seed → what it sent and got.
pub(super) const BALANCES: TableDefinition<'_, Bytes32, &[u8]> = TableDefinition::new("ledger");
/// uploader ‖ downloader → what was credited between them.
pub(super) const PAIRS: TableDefinition<'_, [u8; 64], &[u8]> = TableDefinition::new("ledger of pairs");

pub(super) fn make_tables(write: &WriteTransaction) -> Result<(), StoreError> {
    write.open_table(BALANCES)?;
    write.open_table(PAIRS)?;
    Ok(())
}
