//! Whose cipher hashes are still to be computed (paper, section 2.3): the tracker holds no content, so seeds do it.
//!
//! Everybody's are, while a torrent's bytes times its subscribers stay within a bound, unless the publisher chose otherwise
//! ([`Integrity`]); beyond it, those of whoever asks.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use swarmseal_core::{SubscriberId, TorrentId};

use super::state::Torrent;
use super::store::{Listed, Store, StoreError};
use crate::wire::integrity::Integrity;

/// Seconds that a seed has for a run of pieces before another seed may do it.
const LEASE: u64 = 60;
/// Subscribers of a torrent looked up at a time.
const PAGE: usize = 1000;

/// The work of all torrents.
pub(super) struct HashWork {
    /// Bytes times subscribers.
    bound: u64,
    queues: Mutex<HashMap<TorrentId, Queue>>,
}

#[derive(Default)]
struct Queue {
    /// Incomplete ones, the next first.
    waiting: VecDeque<SubscriberId>,
    wanted: HashSet<SubscriberId>,
    subscribers: u64,
    /// Until when somebody is at it.
    leases: HashMap<SubscriberId, u64>,
}

impl HashWork {
    /// `bound`: bytes of a torrent times its subscribers.
    pub(super) fn new(bound: u64) -> Self {
        HashWork { bound, queues: Mutex::default() }
    }

    /// A subscriber is new.
    pub(super) fn joined(&self, torrent: &TorrentId, subscriber: SubscriberId) {
        if let Some(queue) = self.queues().get_mut(torrent)
            && !queue.waiting.contains(&subscriber)
        {
            queue.subscribers += 1;
            queue.waiting.push_back(subscriber);
        }
    }

    /// A subscriber asks for its hashes, which are not complete. Blocks.
    pub(super) fn wanted(
        &self,
        store: &Store,
        torrent: &Torrent,
        subscriber: SubscriberId,
    ) -> Result<(), StoreError> {
        self.with(store, torrent, |queue| {
            if queue.wanted.insert(subscriber) {
                queue.waiting.retain(|waiting| *waiting != subscriber);
                queue.waiting.push_front(subscriber);
            }
        })
    }

    /// Whose hashes are to be computed next; nobody else is told of it for a while. Blocks.
    pub(super) fn next(
        &self,
        store: &Store,
        torrent: &Torrent,
        now: u64,
    ) -> Result<Option<SubscriberId>, StoreError> {
        let bound = self.bound;
        self.with(store, torrent, |queue| {
            let everybody = match torrent.integrity {
                Integrity::CipherHashes => true,
                Integrity::Auto => torrent.length().saturating_mul(queue.subscribers) <= bound,
                Integrity::AfterDownload | Integrity::EarlyLicense => false,
            };
            let free = |subscriber: &&SubscriberId| {
                (everybody || queue.wanted.contains(*subscriber))
                    && queue.leases.get(*subscriber).is_none_or(|&until| until <= now)
            };
            let next = queue.waiting.iter().find(free).copied();
            queue.leases.extend(next.map(|next| (next, now + LEASE)));
            next
        })
    }

    /// A run of hashes came, or there is nobody to compute them for: the next run is free, unless there is none.
    pub(super) fn done(&self, torrent: &TorrentId, subscriber: &SubscriberId, complete: bool) {
        if let Some(queue) = self.queues().get_mut(torrent) {
            queue.leases.remove(subscriber);
            if complete {
                queue.waiting.retain(|waiting| waiting != subscriber);
                queue.wanted.remove(subscriber);
            }
        }
    }

    /// Another epoch began: everybody's are to be computed anew.
    pub(super) fn forget(&self, torrent: &TorrentId) {
        self.queues().remove(torrent);
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<TorrentId, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The torrent's queue, made from the store when it is first needed.
    fn with<T>(
        &self,
        store: &Store,
        torrent: &Torrent,
        act: impl FnOnce(&mut Queue) -> T,
    ) -> Result<T, StoreError> {
        let mut queues = self.queues();
        let queue = match queues.entry(torrent.id) {
            Entry::Occupied(queue) => queue.into_mut(),
            Entry::Vacant(place) => place.insert(Queue::load(store, torrent)?),
        };
        Ok(act(queue))
    }
}

impl Queue {
    fn load(store: &Store, torrent: &Torrent) -> Result<Self, StoreError> {
        let mut queue = Queue::default();
        store.each_page_of(&torrent.id, None, PAGE, |page| {
            for Listed { id, .. } in page.iter().filter(|listed| !listed.record.revoked) {
                queue.subscribers += 1;
                if store.hash_count((id, torrent.epochs.current()))? < torrent.piece_count {
                    queue.waiting.push_back(*id);
                }
            }
            Ok::<_, StoreError>(false)
        })?;
        Ok(queue)
    }
}
