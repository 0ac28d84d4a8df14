//! Vouchers, by MACs of their codes, and the orders that they were issued for. No code is in the store.

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::{Bytes32, ChangeError, GRANTS, Store, StoreError, decode, encode};
use crate::tracker::records::{GrantRecord, OrderRecord, VoucherRecord};
use crate::wire::api::ApiError;

/// MAC of the voucher's code → the voucher.
pub(super) const VOUCHERS: TableDefinition<'_, Bytes32, &[u8]> = TableDefinition::new("vouchers");
/// (order, line) → its terms, and how many vouchers were issued.
pub(super) const ORDERS: TableDefinition<'_, (&str, u32), &[u8]> = TableDefinition::new("orders");

pub(super) fn make_tables(write: &WriteTransaction) -> Result<(), StoreError> {
    write.open_table(VOUCHERS)?;
    write.open_table(ORDERS)?;
    Ok(())
}

/// A voucher to be issued.
#[derive(Clone, Copy, Debug)]
pub(in crate::tracker) struct NewVoucher {
    /// MAC of its code.
    pub(in crate::tracker) mac: Bytes32,
    /// The id of its grant, if there is none yet.
    pub(in crate::tracker) grant: Bytes32,
}

impl Store {
    /// How many vouchers were issued for a line of an order.
    pub(in crate::tracker) fn ordered(&self, order: &str, line: u32) -> Result<u32, StoreError> {
        let read = self.database.begin_read()?;
        let bytes = read.open_table(ORDERS)?.get((order, line))?;
        let record: Option<OrderRecord> = bytes.map(|bytes| decode("orders", bytes.value())).transpose()?;
        Ok(record.map_or(0, |record| record.count))
    }

    /// Issues vouchers for a line of an order, by their numbers from 0; each is for a copy of `grant`. Those that were issued before stay
    /// as they are. Errors: [`ApiError::OtherTerms`] where they were issued with other terms, or for another torrent.
    pub(in crate::tracker) fn issue_vouchers(
        &self,
        order: &str,
        line: u32,
        vouchers: &[NewVoucher],
        grant: &GrantRecord,
    ) -> Result<(), ChangeError> {
        let count = u32::try_from(vouchers.len()).unwrap_or(u32::MAX);
        let (torrent_id, devices, policy) = (grant.torrent_id, grant.devices, grant.policy.clone());
        let wanted = OrderRecord { torrent_id, devices, policy, count };
        let write = self.begin()?;
        {
            let mut orders = write.open_table(ORDERS)?;
            let known =
                orders.get((order, line))?.map(|bytes| decode("orders", bytes.value())).transpose()?;
            let issued = known.as_ref().map_or(0, |known: &OrderRecord| known.count);
            if known.is_some_and(|known| OrderRecord { count, ..known } != wanted) {
                return Err(ApiError::OtherTerms.into());
            }
            if issued >= count {
                return Ok(());
            }
            let mut grants = write.open_table(GRANTS)?;
            let mut table = write.open_table(VOUCHERS)?;
            for (number, voucher) in (0..).zip(vouchers).skip(issued as usize) {
                let record = VoucherRecord { grant: voucher.grant, order: order.to_owned(), line, number };
                grants.insert(voucher.grant, encode(grant).as_slice())?;
                table.insert(voucher.mac, encode(&record).as_slice())?;
            }
            orders.insert((order, line), encode(&wanted).as_slice())?;
        }
        write.commit()?;
        Ok(())
    }

    /// The grant that a voucher stands for, by the MAC of its code.
    pub(in crate::tracker) fn grant_of_voucher(&self, mac: &Bytes32) -> Result<Option<Bytes32>, StoreError> {
        let record: Option<VoucherRecord> = self.read(VOUCHERS, mac)?;
        Ok(record.map(|record| record.grant))
    }
}

#[cfg(test)]
mod tests {
    use swarmseal_core::TorrentId;

    use super::super::tests::{TORRENT, grant, refusal, store, subscriber, vouchers};
    use super::*;

    fn listed(store: &Store) -> Vec<(u8, u32, u8)> {
        let (found, _) = store.vouchers(None, 100, None).unwrap();
        let row = |(mac, voucher, _): (Bytes32, VoucherRecord, GrantRecord)| {
            (mac[0], voucher.number, voucher.grant[0])
        };
        found.into_iter().map(row).collect()
    }

    #[test]
    fn a_line_is_issued_once_and_grows() {
        let (_directory, store) = store();
        let issue = |line, numbers, grant: &GrantRecord| {
            store.issue_vouchers("1001", line, &vouchers(10 * line as u8, numbers), grant)
        };
        issue(1, 2, &grant(2)).unwrap();
        let first = listed(&store);
        assert_eq!(first.len(), 2);
        // Later, with other grant ids drawn.
        let later = GrantRecord { created: 99, ..grant(2) };
        let mut again = vouchers(10, 3);
        again.iter_mut().for_each(|voucher| voucher.grant[0] += 100);
        for _ in 0..2 {
            store.issue_vouchers("1001", 1, &again, &later).unwrap();
            store.issue_vouchers("1001", 1, &again[..1], &later).unwrap();
        }
        assert_eq!(store.ordered("1001", 1).unwrap(), 3);
        let all = listed(&store);
        assert_eq!((&all[..2], all[2].1, all.len()), (&first[..], 2, 3));
        assert!(all[2].2 > 100, "{all:?}");
        assert_eq!(store.totals().unwrap().grants, 3);

        let mut other_policy = grant(2);
        other_policy.policy.plays = None;
        let elsewhere = GrantRecord { torrent_id: TorrentId([2; 32]), ..grant(2) };
        for other in [grant(1), other_policy, elsewhere] {
            for numbers in [1, 4] {
                assert_eq!(refusal(issue(1, numbers, &other)), ApiError::OtherTerms);
            }
        }
        assert_eq!(listed(&store), all);
        // Another line, or order, has terms of its own.
        issue(2, 1, &grant(1)).unwrap();
        store.issue_vouchers("1002", 1, &vouchers(30, 1), &grant(1)).unwrap();
        assert_eq!((store.ordered("1002", 1).unwrap(), store.ordered("1002", 2).unwrap()), (1, 0));
        assert_eq!(listed(&store).len(), 5);
        // Each stands for a grant of its own.
        let (id, record) = subscriber(1);
        store.subscribe(id, record).unwrap();
        assert_eq!(store.redeem(&again[2].mac, &TORRENT, &id, 0).unwrap().created, later.created);
        assert_eq!(store.held_by(&id).unwrap(), store.grant_of_voucher(&again[2].mac).unwrap());
    }
}
