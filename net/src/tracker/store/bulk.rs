//! Many subscribers at once: one transaction for thousands, where a subscription has one of its own.

use swarmseal_core::SubscriberId;

use super::{MEMBERS_OF, SUBSCRIBERS, Store, StoreError, encode, member_key};
use crate::tracker::records::SubscriberRecord;

impl Store {
    /// Adds subscribers, or writes over those that are there.
    pub(in crate::tracker) fn add_subscribers(
        &self,
        subscribers: &[(SubscriberId, SubscriberRecord)],
    ) -> Result<(), StoreError> {
        let write = self.begin()?;
        {
            let (mut records, mut members) = (write.open_table(SUBSCRIBERS)?, write.open_table(MEMBERS_OF)?);
            for (id, record) in subscribers {
                records.insert(id.0, encode(record).as_slice())?;
                members.insert(member_key(&record.torrent_id, id), false)?;
            }
        }
        write.commit()?;
        Ok(())
    }
}
