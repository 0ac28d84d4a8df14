//! What the admin API lists. A page looks at so many records at most, however few of them it is about.

use std::ops::Bound::{Excluded, Unbounded};

use redb::{ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use swarmseal_core::{SubscriberId, TorrentId};

use super::{
    Bytes32, ChangeError, GRANTS, HELD, SEEDS, SUBSCRIBERS, Store, StoreError, VOUCHERS, account_key, decode,
    encode,
};
use crate::tracker::records::{GrantRecord, SeedRecord, SubscriberRecord, VoucherRecord};
use crate::wire::api::{ApiError, Role};

/// Records that one page looks at.
const MAX_LOOKED_AT: usize = 10_000;

/// A page, and after what the next one begins if there may be one.
pub(in crate::tracker) type Page<T> = (Vec<T>, Option<Bytes32>);

/// Somebody who was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tracker) struct Revoked {
    pub(in crate::tracker) id: SubscriberId,
    pub(in crate::tracker) role: Role,
    pub(in crate::tracker) torrent_id: TorrentId,
}

impl Store {
    /// Grants, by their ids.
    pub(in crate::tracker) fn grants(
        &self,
        after: Option<Bytes32>,
        limit: usize,
        wanted: impl Fn(&GrantRecord) -> bool,
    ) -> Result<Page<(Bytes32, GrantRecord)>, StoreError> {
        self.page(GRANTS, after, limit, |id, grant: GrantRecord| wanted(&grant).then_some((id, grant)))
    }

    /// The grant that an account has for a torrent.
    pub(in crate::tracker) fn grant_of_account(
        &self,
        torrent: &TorrentId,
        account: &str,
    ) -> Result<Option<(Bytes32, GrantRecord)>, StoreError> {
        let read = self.database.begin_read()?;
        let Some(id) =
            read.open_table(super::ACCOUNTS)?.get(account_key(torrent, account))?.map(|id| id.value())
        else {
            return Ok(None);
        };
        let bytes = read.open_table(GRANTS)?.get(id)?;
        bytes.map(|bytes| decode("grants", bytes.value()).map(|grant| (id, grant))).transpose()
    }

    /// Vouchers with their grants, by the MACs of their codes, of one torrent or all.
    pub(in crate::tracker) fn vouchers(
        &self,
        after: Option<Bytes32>,
        limit: usize,
        torrent: Option<TorrentId>,
    ) -> Result<Page<(Bytes32, VoucherRecord, GrantRecord)>, StoreError> {
        let read = self.database.begin_read()?;
        let (vouchers, grants) = (read.open_table(VOUCHERS)?, read.open_table(GRANTS)?);
        let mut found = Vec::new();
        let mut last = None;
        let from = after.map_or(Unbounded, Excluded);
        for (looked_at, row) in vouchers.range::<Bytes32>((from, Unbounded))?.enumerate() {
            if found.len() == limit || looked_at == MAX_LOOKED_AT {
                return Ok((found, last));
            }
            let (mac, voucher) = row?;
            last = Some(mac.value());
            let voucher: VoucherRecord = decode("vouchers", voucher.value())?;
            let Some(bytes) = grants.get(voucher.grant)? else { continue };
            let grant: GrantRecord = decode("grants", bytes.value())?;
            if torrent.is_none_or(|torrent| grant.torrent_id == torrent) {
                found.push((mac.value(), voucher, grant));
            }
        }
        Ok((found, None))
    }

    /// Subscribers that were revoked, by their ids.
    pub(in crate::tracker) fn revoked_subscribers(
        &self,
        after: Option<Bytes32>,
        limit: usize,
    ) -> Result<Page<Revoked>, StoreError> {
        self.page(SUBSCRIBERS, after, limit, |id, record: SubscriberRecord| {
            let (id, role, torrent_id) = (SubscriberId(id), Role::Subscriber, record.torrent_id);
            record.revoked.then_some(Revoked { id, role, torrent_id })
        })
    }

    /// Seeds that were revoked, by their ids.
    pub(in crate::tracker) fn revoked_seeds(
        &self,
        after: Option<Bytes32>,
        limit: usize,
    ) -> Result<Page<Revoked>, StoreError> {
        self.page(SEEDS, after, limit, |id, record: SeedRecord| {
            let (id, role, torrent_id) = (SubscriberId(id), Role::Seed, record.torrent_id);
            record.revoked.then_some(Revoked { id, role, torrent_id })
        })
    }

    /// Lets a grant expire now: nobody gets a license of it any more. How many hold it. Errors:
    /// [`ApiError::UnknownGrant`].
    pub(in crate::tracker) fn revoke_grant(&self, id: &Bytes32, now: u64) -> Result<usize, ChangeError> {
        let write = self.begin()?;
        let holders = {
            let mut grants = write.open_table(GRANTS)?;
            let known: Option<GrantRecord> =
                grants.get(id)?.map(|bytes| decode("grants", bytes.value())).transpose()?;
            let mut grant = known.ok_or(ApiError::UnknownGrant)?;
            grant.policy.expires = Some(grant.policy.expires.map_or(now, |expires| expires.min(now)));
            grants.insert(id, encode(&grant).as_slice())?;
            grant.holders.len()
        };
        write.commit()?;
        Ok(holders)
    }

    /// The id of the grant that a subscriber holds.
    pub(in crate::tracker) fn held_by(
        &self,
        subscriber: &SubscriberId,
    ) -> Result<Option<Bytes32>, StoreError> {
        let read = self.database.begin_read()?;
        Ok(read.open_table(HELD)?.get(subscriber.0)?.map(|id| id.value()))
    }

    fn page<R: DeserializeOwned, T>(
        &self,
        definition: TableDefinition<'_, Bytes32, &'static [u8]>,
        after: Option<Bytes32>,
        limit: usize,
        wanted: impl Fn(Bytes32, R) -> Option<T>,
    ) -> Result<Page<T>, StoreError> {
        use redb::TableHandle;
        let read = self.database.begin_read()?;
        let table = read.open_table(definition)?;
        let mut found = Vec::new();
        let mut last = None;
        let from = after.map_or(Unbounded, Excluded);
        for (looked_at, row) in table.range::<Bytes32>((from, Unbounded))?.enumerate() {
            if found.len() == limit || looked_at == MAX_LOOKED_AT {
                return Ok((found, last));
            }
            let (id, bytes) = row?;
            last = Some(id.value());
            found.extend(wanted(id.value(), decode(definition.name(), bytes.value())?));
        }
        Ok((found, None))
    }
}
