//! What must outlive the process, in redb. Every change is one transaction, on the disk before it is acknowledged.
//!
//! Calls block: they belong on `spawn_blocking`.

mod admin;
mod backup;
#[cfg(feature = "simulation")]
mod bulk;
mod database;
mod devices;
mod epochs;
mod listings;
mod offload;
mod passkeys;
mod schema;
mod vouchers;

pub(super) use backup::examine;
pub(super) use devices::{Limit, devices_of};
pub(super) use epochs::mark;
pub(super) use vouchers::NewVoucher;

use std::io;
use std::path::{Path, PathBuf};

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, TableHandle, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use swarmseal_core::{SubscriberId, TorrentId};

use self::database::Database;
use self::schema::SCHEMA;
use self::vouchers::VOUCHERS;
use super::records::{
    EpochsRecord, GrantRecord, Holder, LicenseRecord, PersonalRecord, SeedRecord, SubscriberRecord,
    TorrentRecord, VoucherRecord,
};
use crate::wire::api::{ApiError, Passkey, Role};
use crate::wire::authority::SignedAuthority;
use crate::wire::bencode;

const MAX_RECORD: usize = 64 << 20;

type Bytes32 = [u8; 32];

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const TORRENTS: TableDefinition<'_, Bytes32, &[u8]> = TableDefinition::new("torrents");
const SEEDS: TableDefinition<'_, Bytes32, &[u8]> = TableDefinition::new("seeds");
const SUBSCRIBERS: TableDefinition<'_, Bytes32, &[u8]> = TableDefinition::new("subscribers");
/// torrent id ‖ subscriber or seed id, for lists.
const MEMBERS_OF: TableDefinition<'_, [u8; 64], bool> = TableDefinition::new("members of torrents");
const GRANTS: TableDefinition<'_, Bytes32, &[u8]> = TableDefinition::new("grants");
/// Subscriber → the grant that it holds.
const HELD: TableDefinition<'_, Bytes32, Bytes32> = TableDefinition::new("held grants");
/// Hash of torrent id and account → its grant.
const ACCOUNTS: TableDefinition<'_, Bytes32, Bytes32> = TableDefinition::new("accounts");
/// (subscriber, epoch, first piece) → cipher hashes of a run of pieces, 20 bytes each. Runs follow each other without gaps.
const HASHES: TableDefinition<'_, (Bytes32, u64, u32), &[u8]> = TableDefinition::new("cipher hashes");
/// Info-hash of a personal torrent → whose it is.
const PERSONAL: TableDefinition<'_, [u8; 20], &[u8]> = TableDefinition::new("personal torrents");
/// (subscriber, epoch) → what licenses it got.
const LICENSES: TableDefinition<'_, (Bytes32, u64), &[u8]> = TableDefinition::new("licenses");
/// Publisher key → its newest authority.
const AUTHORITIES: TableDefinition<'_, Bytes32, &[u8]> = TableDefinition::new("authorities");
/// Subscriber or seed → when it was revoked.
const REVOCATIONS: TableDefinition<'_, Bytes32, u64> = TableDefinition::new("revocations");

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("{path}: another tracker is running on this data")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else wrote to it, or the disk lost some of it.
    #[error("{path}: the store cannot be read: {reason}: put a backup in its place (`swarmseal restore`)")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk is full.
    #[error("no space is left for the tracker's store: free some; nothing that was acknowledged is lost")]
    Full,
    /// A file beside it cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A later program wrote it.
    #[error("{path}: the store has schema {found}, newer than this program understands ({SCHEMA})")]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema found.
        found: u64,
    },
    /// A record cannot be read.
    #[error("a record in `{table}` is damaged: {source}")]
    Damaged {
        /// Where it is.
        table: String,
        /// What is wrong with it.
        source: bencode::Error,
    },
    /// The database or the disk failed.
    #[error("store: {0}")]
    Database(Box<redb::Error>),
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChangeError {
    /// The request cannot be met.
    #[error("{0}")]
    Refused(ApiError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ApiError> for ChangeError {
    fn from(code: ApiError) -> Self {
        ChangeError::Refused(code)
    }
}

fn store_error(error: redb::Error) -> StoreError {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    match error {
        redb::Error::Io(source) if matches!(source.kind(), StorageFull | QuotaExceeded) => StoreError::Full,
        other => StoreError::Database(Box::new(other)),
    }
}

macro_rules! from_database_errors {
    ($($error:ty),+) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                store_error(error.into())
            }
        }

        impl From<$error> for ChangeError {
            fn from(error: $error) -> Self {
                ChangeError::Store(error.into())
            }
        })+
    };
}
from_database_errors!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);

/// A subscriber or a seed, as an announce needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: SubscriberId,
    pub(super) role: Role,
    pub(super) torrent_id: TorrentId,
    pub(super) revoked: bool,
}

/// A subscriber in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: SubscriberId,
    pub(super) record: SubscriberRecord,
    /// Whether it holds a grant.
    pub(super) licensed: bool,
    /// Licenses given out, of all epochs.
    pub(super) issued: u64,
    /// When it was revoked, where that is known.
    pub(super) revoked: Option<u64>,
}

/// How many of each there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Totals {
    pub(super) torrents: u64,
    pub(super) seeds: u64,
    pub(super) subscribers: u64,
    pub(super) grants: u64,
    pub(super) vouchers: u64,
    pub(super) licensed: u64,
}

/// The store.
pub(super) struct Store {
    database: Database,
}

impl Store {
    /// Opens it, or makes an empty one. `check`: every page is read, and its checksum compared.
    pub(super) fn open(path: &Path, check: bool) -> Result<Self, StoreError> {
        schema::open(path, check).map(|database| Store { database })
    }

    /// Registers a torrent, or another seed of one. A seed that is there already stays as it is and is returned, and so do
    /// the torrent's epochs: one that is new begins with `epoch`.
    pub(super) fn register(
        &self,
        torrent: &TorrentRecord,
        epoch: u64,
        seed_id: SubscriberId,
        seed: SeedRecord,
    ) -> Result<(SeedRecord, EpochsRecord), StoreError> {
        let write = self.begin()?;
        let kept = {
            let mut all = write.open_table(epochs::EPOCHS)?;
            let known =
                all.get(seed.torrent_id.0)?.map(|bytes| decode("epochs", bytes.value())).transpose()?;
            let epochs = match known {
                Some(known) => known,
                None => {
                    let fresh = EpochsRecord { oldest: epoch, current: epoch, started: 0 };
                    all.insert(seed.torrent_id.0, encode(&fresh).as_slice())?;
                    fresh
                }
            };
            let mut torrents = write.open_table(TORRENTS)?;
            torrents.insert(seed.torrent_id.0, encode(torrent).as_slice())?;
            let mut seeds = write.open_table(SEEDS)?;
            let known = seeds.get(seed_id.0)?.map(|bytes| decode("seeds", bytes.value())).transpose()?;
            let seed = match known {
                Some(known) => known,
                None => {
                    seeds.insert(seed_id.0, encode(&seed).as_slice())?;
                    write.open_table(MEMBERS_OF)?.insert(member_key(&seed.torrent_id, &seed_id), true)?;
                    seed
                }
            };
            (seed, epochs)
        };
        write.commit()?;
        Ok(kept)
    }

    /// All torrents, and their epochs.
    pub(super) fn torrents(&self) -> Result<Vec<(TorrentRecord, EpochsRecord)>, StoreError> {
        let read = self.database.begin_read()?;
        let (table, epochs) = (read.open_table(TORRENTS)?, read.open_table(epochs::EPOCHS)?);
        let rows = table.iter()?.map(|row| {
            let (id, bytes) = row?;
            let record = decode("torrents", bytes.value())?;
            // Written together with the torrent.
            let epochs = epochs.get(id.value())?.ok_or_else(|| {
                StoreError::Database(Box::new(redb::Error::Corrupted("a torrent without epochs".to_owned())))
            })?;
            Ok((record, decode("epochs", epochs.value())?))
        });
        rows.collect()
    }

    /// The newest authority of each publisher.
    pub(super) fn authorities(&self) -> Result<Vec<SignedAuthority>, StoreError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(AUTHORITIES)?;
        let rows = table.iter()?.map(|row| {
            let (publisher, bytes) = row?;
            SignedAuthority::from_bytes(bytes.value(), &publisher.value()).map_err(|error| {
                StoreError::Database(Box::new(redb::Error::Corrupted(format!("an authority: {error}"))))
            })
        });
        rows.collect()
    }

    /// Keeps an authority if it is newer than the one that is kept; whether it is.
    pub(super) fn keep_authority(&self, authority: &SignedAuthority, now: u64) -> Result<bool, ChangeError> {
        let write = self.begin()?;
        let publisher = authority.publisher_key();
        {
            let mut table = write.open_table(AUTHORITIES)?;
            let kept = table.get(publisher)?;
            let kept = kept.and_then(|bytes| SignedAuthority::from_bytes(bytes.value(), publisher).ok());
            if !authority.supersedes(kept.as_ref(), now).map_err(|_| ApiError::BadRequest)? {
                return Ok(false);
            }
            table.insert(publisher, authority.as_bytes())?;
        }
        write.commit()?;
        Ok(true)
    }

    /// All passkeys and whose they are.
    pub(super) fn members(&self) -> Result<Vec<(Passkey, Member)>, StoreError> {
        let read = self.database.begin_read()?;
        let mut members = Vec::new();
        for row in read.open_table(SEEDS)?.iter()? {
            let (id, bytes) = row?;
            let SeedRecord { torrent_id, passkey, revoked, .. } = decode("seeds", bytes.value())?;
            let id = SubscriberId(id.value());
            members.push((passkey, Member { id, role: Role::Seed, torrent_id, revoked }));
        }
        for row in read.open_table(SUBSCRIBERS)?.iter()? {
            let (id, bytes) = row?;
            let SubscriberRecord { torrent_id, passkey, revoked, .. } = decode("subscribers", bytes.value())?;
            let id = SubscriberId(id.value());
            members.push((passkey, Member { id, role: Role::Subscriber, torrent_id, revoked }));
        }
        Ok(members)
    }

    /// A seed.
    pub(super) fn seed(&self, id: &SubscriberId) -> Result<Option<SeedRecord>, StoreError> {
        self.read(SEEDS, &id.0)
    }

    /// A subscriber.
    pub(super) fn subscriber(&self, id: &SubscriberId) -> Result<Option<SubscriberRecord>, StoreError> {
        self.read(SUBSCRIBERS, &id.0)
    }

    /// Adds a subscriber. The same keys again, which the id fixes, give the subscription that there is.
    pub(super) fn subscribe(
        &self,
        id: SubscriberId,
        record: SubscriberRecord,
    ) -> Result<SubscriberRecord, ChangeError> {
        let write = self.begin()?;
        {
            let mut table = write.open_table(SUBSCRIBERS)?;
            let known: Option<SubscriberRecord> =
                table.get(id.0)?.map(|bytes| decode("subscribers", bytes.value())).transpose()?;
            if let Some(known) = known {
                return if known.revoked { Err(ApiError::Revoked.into()) } else { Ok(known) };
            }
            table.insert(id.0, encode(&record).as_slice())?;
            write.open_table(MEMBERS_OF)?.insert(member_key(&record.torrent_id, &id), false)?;
        }
        write.commit()?;
        Ok(record)
    }

    /// Revokes a subscriber or a seed; gives its passkey and who it is. A second time changes nothing. Errors:
    /// [`ApiError::UnknownSubscriber`].
    pub(super) fn revoke(&self, id: &SubscriberId, now: u64) -> Result<(Passkey, Member), ChangeError> {
        let write = self.begin()?;
        let revoked = {
            if let Some(revoked) = revoke_subscriber(&write, id, now)? {
                revoked
            } else {
                note_revocation(&write, id, now)?;
                let mut seeds = write.open_table(SEEDS)?;
                let known: Option<SeedRecord> =
                    seeds.get(id.0)?.map(|bytes| decode("seeds", bytes.value())).transpose()?;
                let mut record = known.ok_or(ApiError::UnknownSubscriber)?;
                record.revoked = true;
                seeds.insert(id.0, encode(&record).as_slice())?;
                let torrent_id = record.torrent_id;
                (record.passkey, Member { id: *id, role: Role::Seed, torrent_id, revoked: true })
            }
        };
        write.commit()?;
        Ok(revoked)
    }

    /// Names a subscriber in a new grant, or in the one that its account has for the torrent; gives the grant's id.
    /// Errors: [`ApiError::UnknownSubscriber`], [`ApiError::WrongTorrent`], [`ApiError::Revoked`],
    /// [`ApiError::UsedVoucher`] where the account's devices are all taken.
    pub(super) fn grant(
        &self,
        new_id: Bytes32,
        subscriber: &SubscriberId,
        grant: GrantRecord,
    ) -> Result<Bytes32, ChangeError> {
        let write = self.begin()?;
        let id = {
            let record: SubscriberRecord = write
                .open_table(SUBSCRIBERS)?
                .get(subscriber.0)?
                .map(|bytes| decode("subscribers", bytes.value()))
                .transpose()?
                .ok_or(ApiError::UnknownSubscriber)?;
            if record.revoked {
                return Err(ApiError::Revoked.into());
            }
            if record.torrent_id != grant.torrent_id {
                return Err(ApiError::WrongTorrent.into());
            }
            let mut accounts = write.open_table(ACCOUNTS)?;
            let account = grant.account.as_ref().map(|name| account_key(&grant.torrent_id, name));
            let known = match &account {
                Some(account) => accounts.get(account)?.map(|id| id.value()),
                None => None,
            };
            let id = known.unwrap_or(new_id);
            let held = match known {
                Some(id) => GrantRecord {
                    policy: grant.policy,
                    devices: grant.devices,
                    ..read_grant(&write, &id)?.ok_or(ApiError::Internal)?
                },
                None => grant,
            };
            if let Some(account) = account {
                accounts.insert(account, id)?;
            }
            let now = held.created;
            hold(&write, &id, held, subscriber, now)?;
            // Granted anew: what was played before is not of it, and what was lost is forgiven.
            devices::change(&write, subscriber, |device| {
                (device.before, device.counter) = (device.plays, 0);
                device.resets.clear();
            })?;
            id
        };
        write.commit()?;
        Ok(id)
    }

    /// The grant that a subscriber holds.
    pub(super) fn grant_of(&self, subscriber: &SubscriberId) -> Result<Option<GrantRecord>, StoreError> {
        let read = self.database.begin_read()?;
        let Some(id) = read.open_table(HELD)?.get(subscriber.0)?.map(|id| id.value()) else {
            return Ok(None);
        };
        let bytes = read.open_table(GRANTS)?.get(id)?;
        bytes.map(|bytes| decode("grants", bytes.value())).transpose()
    }

    /// Redeems a voucher, by the MAC of its code, for a subscriber, which then holds its grant; a second time changes nothing. Errors:
    /// [`ApiError::BadVoucher`], [`ApiError::UsedVoucher`], [`ApiError::ExpiredLicense`], [`ApiError::Revoked`].
    pub(super) fn redeem(
        &self,
        voucher: &Bytes32,
        torrent: &TorrentId,
        subscriber: &SubscriberId,
        now: u64,
    ) -> Result<GrantRecord, ChangeError> {
        let write = self.begin()?;
        let held = {
            let revoked = write
                .open_table(SUBSCRIBERS)?
                .get(subscriber.0)?
                .map(|bytes| decode::<SubscriberRecord>("subscribers", bytes.value()))
                .transpose()?
                .is_none_or(|record| record.revoked);
            if revoked {
                return Err(ApiError::Revoked.into());
            }
            let known: Option<VoucherRecord> = write
                .open_table(VOUCHERS)?
                .get(voucher)?
                .map(|bytes| decode("vouchers", bytes.value()))
                .transpose()?;
            let id = known.ok_or(ApiError::BadVoucher)?.grant;
            let grant = read_grant(&write, &id)?.ok_or(ApiError::BadVoucher)?;
            grant.check(torrent, now)?;
            hold(&write, &id, grant, subscriber, now)?
        };
        write.commit()?;
        Ok(held)
    }

    /// Whether a voucher would give a subscriber what it never held. Errors: those of the store.
    pub(super) fn is_new(
        &self,
        voucher: &Bytes32,
        torrent: &TorrentId,
        subscriber: &SubscriberId,
        now: u64,
    ) -> Result<bool, StoreError> {
        let Some(id) = self.grant_of_voucher(voucher)? else { return Ok(false) };
        Ok(self.grant_by_id(&id)?.is_some_and(|grant| {
            grant.check(torrent, now).is_ok()
                && grant.has_place()
                && grant.holders.iter().chain(&grant.gone).all(|holder| holder.id != *subscriber)
        }))
    }

    /// Notes that a subscriber is given a license of an epoch; what it was given of that epoch.
    pub(super) fn note_license(
        &self,
        subscriber: &SubscriberId,
        epoch: u64,
        now: u64,
    ) -> Result<LicenseRecord, StoreError> {
        let write = self.begin()?;
        let record = {
            let mut licenses = write.open_table(LICENSES)?;
            let known = licenses.get((subscriber.0, epoch))?;
            let known: Option<LicenseRecord> =
                known.map(|bytes| decode("licenses", bytes.value())).transpose()?;
            let LicenseRecord { first, count, .. } =
                known.unwrap_or(LicenseRecord { first: now, last: now, count: 0 });
            let record = LicenseRecord { first, last: now, count: count + 1 };
            licenses.insert((subscriber.0, epoch), encode(&record).as_slice())?;
            record
        };
        write.commit()?;
        Ok(record)
    }

    /// Calls `look` with pages of a torrent's subscribers after an id, `limit` in each, until it says that it is enough; from where on
    /// there are more.
    pub(super) fn each_page_of<E: From<StoreError>>(
        &self,
        torrent: &TorrentId,
        mut after: Option<SubscriberId>,
        limit: usize,
        mut look: impl FnMut(Vec<Listed>) -> Result<bool, E>,
    ) -> Result<Option<SubscriberId>, E> {
        loop {
            let page = self.subscribers_of(torrent, after, limit)?;
            let (full, last) = (page.len() == limit, page.last().map(|listed| listed.id));
            let enough = look(page)?;
            if !full {
                return Ok(None);
            }
            if enough {
                return Ok(last);
            }
            after = last;
        }
    }

    /// Subscribers of a torrent after an id, at most `limit`.
    pub(super) fn subscribers_of(
        &self,
        torrent: &TorrentId,
        after: Option<SubscriberId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let read = self.database.begin_read()?;
        let index = read.open_table(MEMBERS_OF)?;
        let subscribers = read.open_table(SUBSCRIBERS)?;
        let (held, revocations) = (read.open_table(HELD)?, read.open_table(REVOCATIONS)?);
        let licenses = read.open_table(LICENSES)?;
        let mut found = Vec::new();
        for row in index.range::<[u8; 64]>(member_range(torrent, after))? {
            let (key, is_seed) = row?;
            if is_seed.value() {
                continue;
            }
            if found.len() == limit {
                break;
            }
            let mut id = [0; 32];
            id.copy_from_slice(&key.value()[32..]);
            if let Some(bytes) = subscribers.get(id)? {
                let record = decode("subscribers", bytes.value())?;
                let mut issued = 0;
                for row in licenses.range((id, 0)..=(id, u64::MAX))? {
                    let license: LicenseRecord = decode("licenses", row?.1.value())?;
                    issued += license.count;
                }
                found.push(Listed {
                    id: SubscriberId(id),
                    record,
                    licensed: held.get(id)?.is_some(),
                    issued,
                    revoked: revocations.get(id)?.map(|time| time.value()),
                });
            }
        }
        Ok(found)
    }

    /// Adds cipher hashes from piece `first` on; the last run comes with the personal torrent that they make. Errors:
    /// [`ApiError::BadHashes`] where `first` is not the next one.
    pub(super) fn add_hashes(
        &self,
        (subscriber, epoch): (&SubscriberId, u64),
        first: u32,
        hashes: &[u8],
        personal: Option<(&[u8; 20], PersonalRecord)>,
    ) -> Result<(), ChangeError> {
        let write = self.begin()?;
        {
            let mut table = write.open_table(HASHES)?;
            let last = table.range(runs_of(subscriber, epoch))?.next_back().transpose()?;
            let next = last.map_or(0, |(key, run)| key.value().2 + count_of(run.value()));
            if next != first {
                return Err(ApiError::BadHashes.into());
            }
            table.insert((subscriber.0, epoch, first), hashes)?;
            if let Some((info_hash, record)) = personal {
                write.open_table(PERSONAL)?.insert(info_hash, encode(&record).as_slice())?;
            }
        }
        write.commit()?;
        Ok(())
    }

    /// A subscriber's cipher hashes from piece `first` on, as far as they are there, 20 bytes each.
    pub(super) fn hashes(
        &self,
        (subscriber, epoch): (&SubscriberId, u64),
        first: u32,
    ) -> Result<Vec<u8>, StoreError> {
        let read = self.database.begin_read()?;
        let mut hashes = Vec::new();
        for row in read.open_table(HASHES)?.range(runs_of(subscriber, epoch))? {
            let (key, run) = row?;
            let skip = first.saturating_sub(key.value().2).min(count_of(run.value())) as usize;
            hashes.extend_from_slice(&run.value()[20 * skip..]);
        }
        Ok(hashes)
    }

    /// How many of a subscriber's cipher hashes are there.
    pub(super) fn hash_count(&self, (subscriber, epoch): (&SubscriberId, u64)) -> Result<u32, StoreError> {
        let read = self.database.begin_read()?;
        let last = read.open_table(HASHES)?.range(runs_of(subscriber, epoch))?.next_back().transpose()?;
        Ok(last.map_or(0, |(key, run)| key.value().2 + count_of(run.value())))
    }

    /// Deletes the cipher hashes of epochs before `oldest` of some of a torrent's members, those behind `after`; the last one of them,
    /// or none at the end of all.
    pub(super) fn forget_hashes(
        &self,
        torrent: &TorrentId,
        oldest: u64,
        after: Option<SubscriberId>,
    ) -> Result<Option<SubscriberId>, StoreError> {
        /// Members of one transaction.
        const TOGETHER: usize = 500;
        let write = self.begin()?;
        let mut members = Vec::new();
        {
            for row in
                write.open_table(MEMBERS_OF)?.range::<[u8; 64]>(member_range(torrent, after))?.take(TOGETHER)
            {
                let mut id = [0; 32];
                id.copy_from_slice(&row?.0.value()[32..]);
                members.push(SubscriberId(id));
            }
            let mut hashes = write.open_table(HASHES)?;
            for member in &members {
                hashes.retain_in((member.0, 0, 0)..(member.0, oldest, 0), |_, _| false)?;
            }
        }
        write.commit()?;
        Ok(members.last().copied().filter(|_| members.len() == TOGETHER))
    }

    /// Deletes personal torrents.
    pub(super) fn forget_personals(&self, info_hashes: &[[u8; 20]]) -> Result<(), StoreError> {
        if info_hashes.is_empty() {
            return Ok(());
        }
        let write = self.begin()?;
        {
            let mut personals = write.open_table(PERSONAL)?;
            for info_hash in info_hashes {
                personals.remove(info_hash)?;
            }
        }
        write.commit()
    }

    /// All personal torrents.
    pub(super) fn personals(&self) -> Result<Vec<([u8; 20], PersonalRecord)>, StoreError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(PERSONAL)?;
        table
            .iter()?
            .map(|row| {
                let (info_hash, bytes) = row?;
                Ok((info_hash.value(), decode("personal torrents", bytes.value())?))
            })
            .collect()
    }

    /// How many of each there are.
    pub(super) fn totals(&self) -> Result<Totals, StoreError> {
        let read = self.database.begin_read()?;
        Ok(Totals {
            torrents: read.open_table(TORRENTS)?.len()?,
            seeds: read.open_table(SEEDS)?.len()?,
            subscribers: read.open_table(SUBSCRIBERS)?.len()?,
            grants: read.open_table(GRANTS)?.len()?,
            vouchers: read.open_table(VOUCHERS)?.len()?,
            licensed: read.open_table(HELD)?.len()?,
        })
    }

    fn begin(&self) -> Result<database::Writing<'_>, StoreError> {
        self.database.begin_write()
    }

    fn read<T: DeserializeOwned>(
        &self,
        definition: TableDefinition<'_, Bytes32, &'static [u8]>,
        key: &Bytes32,
    ) -> Result<Option<T>, StoreError> {
        let read = self.database.begin_read()?;
        let bytes = read.open_table(definition)?.get(key)?;
        bytes.map(|bytes| decode(definition.name(), bytes.value())).transpose()
    }
}

/// Makes a subscriber a holder of a grant, within its devices. A grant that it held before keeps its place for it.
fn hold(
    write: &WriteTransaction,
    id: &Bytes32,
    mut grant: GrantRecord,
    subscriber: &SubscriberId,
    now: u64,
) -> Result<GrantRecord, ChangeError> {
    let is_it = |holder: &Holder| holder.id == *subscriber;
    let holder = match grant.holders.iter().copied().find(is_it) {
        Some(holder) => holder,
        None if !grant.has_place() => return Err(ApiError::UsedVoucher.into()),
        None => {
            let gone = grant.gone.iter().position(is_it).map(|place| grant.gone.remove(place));
            let holder = gone.unwrap_or(Holder { id: *subscriber, used: 0 });
            grant.holders.push(holder);
            holder
        }
    };
    write.open_table(GRANTS)?.insert(id, encode(&grant).as_slice())?;
    let before = write.open_table(HELD)?.insert(subscriber.0, id)?.map(|id| id.value());
    if before != Some(*id) {
        let mut used = 0;
        // What was used of it before stays used.
        devices::change(write, subscriber, |device| {
            used = device.plays.saturating_sub(device.before);
            (device.enrolled, device.before) = (now, device.plays.saturating_sub(holder.used));
        })?;
        if let Some(before) = before {
            leave(write, &before, subscriber, used)?;
        }
    }
    Ok(grant)
}

/// Revokes a subscriber; its passkey and who it is, if there is one.
fn revoke_subscriber(
    write: &WriteTransaction,
    id: &SubscriberId,
    now: u64,
) -> Result<Option<(Passkey, Member)>, StoreError> {
    let mut subscribers = write.open_table(SUBSCRIBERS)?;
    let known: Option<SubscriberRecord> =
        subscribers.get(id.0)?.map(|bytes| decode("subscribers", bytes.value())).transpose()?;
    let Some(mut record) = known else { return Ok(None) };
    record.revoked = true;
    subscribers.insert(id.0, encode(&record).as_slice())?;
    note_revocation(write, id, now)?;
    let torrent_id = record.torrent_id;
    Ok(Some((record.passkey, Member { id: *id, role: Role::Subscriber, torrent_id, revoked: true })))
}

/// Notes when a subscriber or seed was revoked first.
fn note_revocation(write: &WriteTransaction, id: &SubscriberId, now: u64) -> Result<(), StoreError> {
    let mut revocations = write.open_table(REVOCATIONS)?;
    if revocations.get(id.0)?.is_none() {
        revocations.insert(id.0, now)?;
    }
    Ok(())
}

/// A subscriber goes on to another grant, and has used so many plays of this one.
fn leave(
    write: &WriteTransaction,
    id: &Bytes32,
    subscriber: &SubscriberId,
    used: u64,
) -> Result<(), StoreError> {
    let Some(mut grant) = read_grant(write, id)? else { return Ok(()) };
    if let Some(holder) = grant.holders.iter_mut().find(|holder| holder.id == *subscriber) {
        holder.used = used;
        write.open_table(GRANTS)?.insert(id, encode(&grant).as_slice())?;
    }
    Ok(())
}

fn read_grant(write: &WriteTransaction, id: &Bytes32) -> Result<Option<GrantRecord>, StoreError> {
    let table = write.open_table(GRANTS)?;
    let bytes = table.get(id)?;
    bytes.map(|bytes| decode("grants", bytes.value())).transpose()
}

fn member_key(torrent: &TorrentId, member: &SubscriberId) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(&torrent.0);
    key[32..].copy_from_slice(&member.0);
    key
}

/// The keys of a torrent's members, or of those after one of them.
fn member_range(
    torrent: &TorrentId,
    after: Option<SubscriberId>,
) -> (std::ops::Bound<[u8; 64]>, std::ops::Bound<[u8; 64]>) {
    use std::ops::Bound::{Excluded, Included};
    let first = match after {
        Some(id) => Excluded(member_key(torrent, &id)),
        None => Included(member_key(torrent, &SubscriberId([0; 32]))),
    };
    (first, Included(member_key(torrent, &SubscriberId([0xFF; 32]))))
}

fn account_key(torrent: &TorrentId, account: &str) -> Bytes32 {
    let mut hasher = blake3::Hasher::new_derive_key("swarmseal v1 account of a torrent");
    hasher.update(&torrent.0).update(account.as_bytes());
    *hasher.finalize().as_bytes()
}

fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    bencode::to_bytes(record)
}

fn decode<T: DeserializeOwned>(table: &str, bytes: &[u8]) -> Result<T, StoreError> {
    bencode::from_bytes(bytes, MAX_RECORD)
        .map_err(|source| StoreError::Damaged { table: table.to_owned(), source })
}

/// The keys of a subscriber's runs of cipher hashes.
fn runs_of(subscriber: &SubscriberId, epoch: u64) -> std::ops::RangeInclusive<(Bytes32, u64, u32)> {
    (subscriber.0, epoch, 0)..=(subscriber.0, epoch, u32::MAX)
}

/// How many hashes a run has.
fn count_of(run: &[u8]) -> u32 {
    (run.len() / 20) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::license::Policy;

    pub(super) const TORRENT: TorrentId = TorrentId([1; 32]);

    pub(super) fn subscriber(n: u8) -> (SubscriberId, SubscriberRecord) {
        let record = SubscriberRecord {
            torrent_id: TORRENT,
            y: vec![n; 8],
            identity: [n; 32],
            device: [n; 32],
            passkey: Passkey::new([n; 16]),
            epoch: 1,
            created: 5,
            revoked: false,
        };
        (SubscriberId([n; 32]), record)
    }

    pub(super) fn grant(devices: u32) -> GrantRecord {
        GrantRecord {
            torrent_id: TORRENT,
            account: None,
            devices,
            holders: Vec::new(),
            policy: Policy { plays: Some(3), expires: Some(100), ..Policy::default() },
            created: 5,
            freed: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// So many vouchers, with MACs and grants of their own.
    pub(super) fn vouchers(first: u8, count: u8) -> Vec<NewVoucher> {
        (first..first + count).map(|n| NewVoucher { mac: [n; 32], grant: [n + 1; 32] }).collect()
    }

    pub(super) fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("tracker.redb"), false).unwrap();
        (directory, store)
    }

    /// With [`TORRENT`] and a seed of it.
    pub(super) fn registered() -> (tempfile::TempDir, Store) {
        let (directory, store) = store();
        let torrent = TorrentRecord { metainfo: vec![1, 2, 3], name: "a film".to_owned() };
        let passkey = Passkey::new([99; 16]);
        let seed = SeedRecord { torrent_id: TORRENT, key: [9; 32], passkey, revoked: false };
        let (kept, epochs) = store.register(&torrent, 1, SubscriberId([99; 32]), seed.clone()).unwrap();
        assert_eq!((kept, epochs.oldest, epochs.current), (seed, 1, 1));
        (directory, store)
    }

    pub(super) fn refusal<T: std::fmt::Debug>(result: Result<T, ChangeError>) -> ApiError {
        match result.unwrap_err() {
            ChangeError::Refused(code) => code,
            ChangeError::Store(error) => panic!("{error}"),
        }
    }

    #[test]
    fn subscribing_again_changes_nothing() {
        let (_directory, store) = store();
        let (id, record) = subscriber(1);
        assert_eq!(store.subscribe(id, record.clone()).unwrap(), record);
        let again = SubscriberRecord { passkey: Passkey::new([9; 16]), ..record.clone() };
        assert_eq!(store.subscribe(id, again).unwrap(), record);
        store.revoke(&id, 9).unwrap();
        assert_eq!(refusal(store.subscribe(id, record)), ApiError::Revoked);
    }

    #[test]
    fn a_voucher_covers_its_devices_and_no_more() {
        let (_directory, store) = store();
        for n in 1..=3 {
            let (id, record) = subscriber(n);
            store.subscribe(id, record).unwrap();
        }
        let id = |n: u8| SubscriberId([n; 32]);
        store.issue_vouchers("1", 0, &vouchers(7, 1), &grant(2)).unwrap();
        assert_eq!(refusal(store.redeem(&[6; 32], &TORRENT, &id(1), 0)), ApiError::BadVoucher);
        assert_eq!(refusal(store.redeem(&[7; 32], &TorrentId([2; 32]), &id(1), 0)), ApiError::BadVoucher);
        assert_eq!(refusal(store.redeem(&[7; 32], &TORRENT, &id(1), 100)), ApiError::ExpiredLicense);
        assert_eq!(store.redeem(&[7; 32], &TORRENT, &id(1), 0).unwrap().holders.len(), 1);
        assert_eq!(store.redeem(&[7; 32], &TORRENT, &id(1), 0).unwrap().holders.len(), 1);
        assert_eq!(store.redeem(&[7; 32], &TORRENT, &id(2), 0).unwrap().holders.len(), 2);
        assert_eq!(refusal(store.redeem(&[7; 32], &TORRENT, &id(3), 0)), ApiError::UsedVoucher);
        assert_eq!(store.grant_of(&id(2)).unwrap().unwrap().policy.plays, Some(3));
        assert_eq!(store.grant_of(&id(3)).unwrap(), None);
        store.revoke(&id(1), 9).unwrap();
        assert_eq!(refusal(store.redeem(&[7; 32], &TORRENT, &id(1), 0)), ApiError::Revoked);
    }

    #[test]
    fn an_account_s_grant_is_shared_by_its_devices() {
        let (_directory, store) = store();
        for n in 1..=3 {
            let (id, record) = subscriber(n);
            store.subscribe(id, record).unwrap();
        }
        let account = |devices| GrantRecord { account: Some("anna".to_owned()), ..grant(devices) };
        let first = store.grant([1; 32], &SubscriberId([1; 32]), account(2)).unwrap();
        assert_eq!(store.grant([2; 32], &SubscriberId([2; 32]), account(2)).unwrap(), first);
        let third = store.grant([3; 32], &SubscriberId([3; 32]), account(2));
        assert_eq!(refusal(third), ApiError::UsedVoucher);
        assert_eq!(store.grant([3; 32], &SubscriberId([3; 32]), account(3)).unwrap(), first);
        let unknown = store.grant([4; 32], &SubscriberId([4; 32]), grant(1));
        assert_eq!(refusal(unknown), ApiError::UnknownSubscriber);
        assert_eq!(store.totals().unwrap().licensed, 3);
    }

    #[test]
    fn hashes_follow_each_other() {
        let (_directory, store) = store();
        let whose = (&SubscriberId([1; 32]), 2);
        let runs = [[7; 40].as_slice(), &[8; 20]];
        assert_eq!(refusal(store.add_hashes(whose, 1, runs[0], None)), ApiError::BadHashes);
        store.add_hashes(whose, 0, runs[0], None).unwrap();
        assert_eq!(refusal(store.add_hashes(whose, 0, runs[0], None)), ApiError::BadHashes);
        assert_eq!(store.hash_count(whose).unwrap(), 2);
        let record = PersonalRecord { torrent_id: TORRENT, subscriber: *whose.0, epoch: 2 };
        store.add_hashes(whose, 2, runs[1], Some((&[3; 20], record))).unwrap();
        assert_eq!(store.hashes(whose, 0).unwrap(), runs.concat());
        assert_eq!(store.hashes(whose, 1).unwrap(), [[7; 20], [8; 20]].concat());
        assert!(store.hashes(whose, 3).unwrap().is_empty());
        assert!(store.hashes((whose.0, 1), 0).unwrap().is_empty());
        assert_eq!(store.personals().unwrap(), [([3; 20], record)]);
    }

    #[test]
    fn hashes_of_old_epochs_are_deleted_and_no_others() {
        let (_directory, store) = store();
        let other = TorrentId([2; 32]);
        for n in 1..=3 {
            let (id, record) = subscriber(n);
            let torrent_id = if n == 3 { other } else { TORRENT };
            store.subscribe(id, SubscriberRecord { torrent_id, ..record }).unwrap();
            for epoch in 1..=3 {
                store.add_hashes((&id, epoch), 0, &[n; 40], None).unwrap();
                store.add_hashes((&id, epoch), 2, &[n; 20], None).unwrap();
            }
        }
        assert_eq!(store.forget_hashes(&TORRENT, 3, None).unwrap(), None);
        let counts =
            |n: u8| [1, 2, 3].map(|epoch| store.hash_count((&SubscriberId([n; 32]), epoch)).unwrap());
        assert_eq!((counts(1), counts(2), counts(3)), ([0, 0, 3], [0, 0, 3], [3, 3, 3]));
        store.forget_hashes(&other, 2, Some(SubscriberId([3; 32]))).unwrap();
        assert_eq!(counts(3), [3, 3, 3]);
        store.forget_hashes(&other, 2, None).unwrap();
        assert_eq!(counts(3), [0, 3, 3]);
    }

    #[test]
    fn lists_page_through_a_torrent_s_subscribers() {
        let (_directory, store) = store();
        for n in 1..=5 {
            let (id, record) = subscriber(n);
            store.subscribe(id, record).unwrap();
        }
        let ids = |after, limit| -> Vec<u8> {
            let page = store.subscribers_of(&TORRENT, after, limit).unwrap();
            page.into_iter().map(|listed| listed.id.0[0]).collect()
        };
        assert_eq!(ids(None, 2), [1, 2]);
        assert_eq!(ids(Some(SubscriberId([2; 32])), 10), [3, 4, 5]);
        assert!(store.subscribers_of(&TorrentId([2; 32]), None, 10).unwrap().is_empty());
    }
}
