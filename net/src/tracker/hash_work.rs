//! Whose cipher hashes are still to be computed (paper, section 2.3): those of subscribers that asked for a personal torrent. The
//! tracker holds no content, so seeds do it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use swarmseal_core::{SubscriberId, TorrentId};

/// Seconds that a seed has for a run of pieces before another seed may do it.
const LEASE: u64 = 60;
/// Subscribers of a torrent that may wait. Others ask again: they wait for an answer anyway.
const MAX_WAITING: usize = 4096;

/// The work of all torrents. A restart forgets it, and those who still wait ask again.
#[derive(Default)]
pub(super) struct HashWork(Mutex<HashMap<TorrentId, Queue>>);

/// Subscribers whose hashes are not complete, the next first, and until when a seed is at them.
type Queue = VecDeque<(SubscriberId, u64)>;

impl HashWork {
    fn queues(&self) -> MutexGuard<'_, HashMap<TorrentId, Queue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A subscriber asks for its hashes, which are not complete.
    pub(super) fn wanted(&self, torrent: &TorrentId, subscriber: SubscriberId) {
        let mut queues = self.queues();
        let queue = queues.entry(*torrent).or_default();
        if queue.len() < MAX_WAITING && !queue.iter().any(|(waiting, _)| *waiting == subscriber) {
            queue.push_back((subscriber, 0));
        }
    }

    /// Whose hashes are to be computed next; no other seed is told of it for a while.
    pub(super) fn next(&self, torrent: &TorrentId, now: u64) -> Option<SubscriberId> {
        let mut queues = self.queues();
        let (subscriber, until) = queues.get_mut(torrent)?.iter_mut().find(|(_, until)| *until <= now)?;
        *until = now + LEASE;
        Some(*subscriber)
    }

    /// A run of hashes came, or there is nobody to compute them for: the next run is free, unless there is none.
    pub(super) fn done(&self, torrent: &TorrentId, subscriber: &SubscriberId, complete: bool) {
        let mut queues = self.queues();
        let Some(queue) = queues.get_mut(torrent) else { return };
        if complete {
            queue.retain(|(waiting, _)| waiting != subscriber);
            if queue.is_empty() {
                queues.remove(torrent);
            }
        } else if let Some((_, until)) = queue.iter_mut().find(|(waiting, _)| waiting == subscriber) {
            *until = 0;
        }
    }

    /// Another epoch began: hashes of the one before are of no use.
    pub(super) fn forget(&self, torrent: &TorrentId) {
        self.queues().remove(torrent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TORRENT: TorrentId = TorrentId([1; 32]);

    fn id(n: usize) -> SubscriberId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        SubscriberId(id)
    }

    #[test]
    fn one_seed_at_a_time_works_for_a_subscriber_and_each_has_its_turn() {
        let work = HashWork::default();
        assert_eq!(work.next(&TORRENT, 0), None);
        [1, 2, 1].into_iter().for_each(|n| work.wanted(&TORRENT, id(n)));
        assert_eq!([0, 0, 0].map(|now| work.next(&TORRENT, now)), [Some(id(1)), Some(id(2)), None]);
        // A run came; the other seed was lost.
        work.done(&TORRENT, &id(1), false);
        assert_eq!([1, 1].map(|now| work.next(&TORRENT, now)), [Some(id(1)), None]);
        assert_eq!(work.next(&TORRENT, LEASE), Some(id(2)));
        work.done(&TORRENT, &id(1), true);
        work.done(&TORRENT, &id(2), true);
        assert_eq!(work.next(&TORRENT, u64::MAX / 2), None);
        assert!(work.queues().is_empty());
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let work = HashWork::default();
        (0..MAX_WAITING + 10).for_each(|n| work.wanted(&TORRENT, id(n)));
        assert_eq!(work.queues()[&TORRENT].len(), MAX_WAITING);
    }
}
