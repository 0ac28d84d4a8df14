//! Passkeys that are replaced.

use redb::ReadableTable;
use swarmseal_core::SubscriberId;

use super::{ChangeError, Member, SEEDS, SUBSCRIBERS, Store, decode, encode};
use crate::tracker::records::{SeedRecord, SubscriberRecord};
use crate::wire::api::{ApiError, Passkey, Role};

impl Store {
    /// Gives a subscriber or a seed another passkey; gives the old one, and who it is. Errors:
    /// [`ApiError::UnknownSubscriber`], [`ApiError::Revoked`].
    pub(in crate::tracker) fn rotate_passkey(
        &self,
        id: &SubscriberId,
        fresh: Passkey,
    ) -> Result<(Passkey, Member), ChangeError> {
        let write = self.begin()?;
        let rotated = {
            let mut subscribers = write.open_table(SUBSCRIBERS)?;
            let known: Option<SubscriberRecord> =
                subscribers.get(id.0)?.map(|bytes| decode("subscribers", bytes.value())).transpose()?;
            if let Some(mut record) = known {
                if record.revoked {
                    return Err(ApiError::Revoked.into());
                }
                let old = std::mem::replace(&mut record.passkey, fresh);
                subscribers.insert(id.0, encode(&record).as_slice())?;
                let torrent_id = record.torrent_id;
                (old, Member { id: *id, role: Role::Subscriber, torrent_id, revoked: false })
            } else {
                let mut seeds = write.open_table(SEEDS)?;
                let known: Option<SeedRecord> =
                    seeds.get(id.0)?.map(|bytes| decode("seeds", bytes.value())).transpose()?;
                let mut record = known.ok_or(ApiError::UnknownSubscriber)?;
                if record.revoked {
                    return Err(ApiError::Revoked.into());
                }
                let old = std::mem::replace(&mut record.passkey, fresh);
                seeds.insert(id.0, encode(&record).as_slice())?;
                (old, Member { id: *id, role: Role::Seed, torrent_id: record.torrent_id, revoked: false })
            }
        };
        write.commit()?;
        Ok(rotated)
    }
}
