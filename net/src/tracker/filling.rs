//! Stores as large as a bench wants them: subscriptions without proofs, calls and a transaction each.

use std::path::Path;

use swarmseal_core::{SubscriberId, TorrentId};

use super::masters::Masters;
use super::records::SubscriberRecord;
use super::store::Store;
use super::{Error, MASTERS, STORE, clock, keep_lock};
use crate::wire::api::Passkey;

/// Subscriptions in one transaction.
const AT_ONCE: usize = 20_000;

/// A subscriber as the tracker keeps it. Nothing of it is checked.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// A name that no other has.
    pub id: SubscriberId,
    /// A torrent that is registered.
    pub torrent_id: TorrentId,
    /// The public key, W bytes.
    pub y: Vec<u8>,
    /// Ed25519 public key.
    pub identity: [u8; 32],
    /// X25519 public key.
    pub device: [u8; 32],
    /// A passkey that no other has.
    pub passkey: Passkey,
}

/// Adds subscribers of the newest epoch to the store of a tracker that does not run and whose master keys lie in clear; `data` is
/// [`Config::data`](super::Config::data). Blocks. Errors: [`Error::InUse`], and those of the store.
pub fn fill(data: &Path, subscriptions: impl IntoIterator<Item = Subscription>) -> Result<(), Error> {
    let _lock = keep_lock(data)?;
    let epoch = Masters::open(&data.join(MASTERS), None)?.newest();
    let store = Store::open(&data.join(STORE), false)?;
    let created = clock::now();
    let mut records = subscriptions.into_iter().map(|one| {
        let Subscription { id, torrent_id, y, identity, device, passkey } = one;
        let record =
            SubscriberRecord { torrent_id, y, identity, device, passkey, epoch, created, revoked: false };
        (id, record)
    });
    loop {
        let some: Vec<_> = records.by_ref().take(AT_ONCE).collect();
        if some.is_empty() {
            return Ok(());
        }
        store.add_subscribers(&some)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let one = |n: u8| Subscription {
            id: SubscriberId([n; 32]),
            torrent_id: TorrentId([1; 32]),
            y: vec![n; 256],
            identity: [n; 32],
            device: [n; 32],
            passkey: Passkey::new([n; 16]),
        };
        fill(directory.path(), (0..50).map(one)).unwrap();
        let store = Store::open(&directory.path().join(STORE), false).unwrap();
        assert_eq!(store.totals().unwrap().subscribers, 50);
        assert_eq!(store.members().unwrap().len(), 50);
        assert_eq!(store.subscriber(&SubscriberId([7; 32])).unwrap().unwrap().y, [7; 256]);
        let page = store.subscribers_of(&TorrentId([1; 32]), None, 100).unwrap();
        assert_eq!(page.len(), 50);
    }
}
