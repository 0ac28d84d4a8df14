//! Counters of the pieces that keys were given out for: from seeds and from peers, by torrent and hour (their ratio is the
//! *offload*), and to and from each subscriber.
//!
//! They are estimates. A key may be asked for twice, or never be used, and clear pieces have none. A subscriber's keys from one
//! of its own epochs to the next do not count, nor do those for cipher hashes: nothing is sent by them.
//!
//! Counts are gathered in memory and written once a minute: a kill loses the last minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use swarmseal_core::{SubscriberId, TorrentId};

use super::admin::{Hex32, bad, page_length, run};
use super::metrics::{Counters, count};
use super::records::{KeyedRecord, OffloadRecord};
use super::state::Tracker;
use super::store::{Store, StoreError};
use super::{calls::Shared, clock};
use crate::wire::api::Role;

/// Seconds that an hour's counts are kept, and a subscriber's after their last change.
const KEPT: u64 = 30 * 24 * HOUR;
const HOUR: u64 = 3600;
/// Counts of each kind that wait to be written, some 100 bytes each. Others are lost until there is room.
const MAX_PENDING: usize = 1 << 18;
/// Subscribers looked at in one sweep.
const SWEPT: usize = 20_000;

/// What was counted and is not written yet, on top of what the store has.
#[derive(Default)]
pub(super) struct Offload {
    pending: Mutex<Pending>,
    /// Held while pending counts are on their way to the store, and by readers: they miss nothing and see nothing twice.
    writing: Mutex<()>,
    /// Where the next sweep goes on.
    swept: Mutex<Option<SubscriberId>>,
}

/// Counts by torrent and beginning of the hour, and by subscriber.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) hours: HashMap<(TorrentId, u64), OffloadRecord>,
    pub(super) keyed: HashMap<SubscriberId, KeyedRecord>,
}

impl Pending {
    fn hour(&mut self, torrent: TorrentId, hour: u64) -> Option<&mut OffloadRecord> {
        let room = self.hours.len() < MAX_PENDING;
        let known = self.hours.contains_key(&(torrent, hour));
        (room || known).then(|| self.hours.entry((torrent, hour)).or_default())
    }

    fn subscriber(&mut self, id: SubscriberId) -> Option<&mut KeyedRecord> {
        let room = self.keyed.len() < MAX_PENDING;
        let known = self.keyed.contains_key(&id);
        (room || known).then(|| self.keyed.entry(id).or_default())
    }
}

impl Offload {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An uploader was given keys of so many pieces of a torrent for a downloader.
    pub(super) fn keyed(
        &self,
        counters: &Counters,
        torrent: TorrentId,
        (role, uploader): (Role, SubscriberId),
        downloader: SubscriberId,
        pieces: usize,
    ) {
        if uploader == downloader {
            return;
        }
        let (pieces, now) = (pieces as u64, clock::now());
        let mut pending = self.pending();
        if let Some(hour) = pending.hour(torrent, now - now % HOUR) {
            match role {
                Role::Seed => hour.from_seeds += pieces,
                Role::Subscriber => hour.from_peers += pieces,
            }
        }
        if let Some(to) = pending.subscriber(downloader) {
            (to.to, to.changed) = (to.to + pieces, now);
        }
        if role == Role::Subscriber
            && let Some(from) = pending.subscriber(uploader)
        {
            (from.from, from.changed) = (from.from + pieces, now);
        }
        drop(pending);
        let counter = match role {
            Role::Seed => &counters.keyed_from_seeds,
            Role::Subscriber => &counters.keyed_from_peers,
        };
        count(counter, pieces);
    }

    /// Adds what was counted to what the store has. What cannot be written is tried again with the next. Blocks.
    pub(super) fn write(&self, store: &Store) -> Result<(), StoreError> {
        let _alone = self.alone();
        let leaving = std::mem::take(&mut *self.pending());
        if leaving.hours.is_empty() && leaving.keyed.is_empty() {
            return Ok(());
        }
        let written = store.add_counts(&leaving);
        if written.is_err() {
            let mut pending = self.pending();
            for ((torrent, hour), counts) in leaving.hours {
                pending.hour(torrent, hour).into_iter().for_each(|known| known.add(&counts));
            }
            for (id, counts) in leaving.keyed {
                pending.subscriber(id).into_iter().for_each(|known| known.add(&counts));
            }
        }
        written
    }

    /// Forgets what is older than 30 days; of subscribers, some in each sweep. Blocks.
    pub(super) fn sweep(&self, store: &Store, torrents: &[TorrentId]) -> Result<(), StoreError> {
        let oldest = clock::now().saturating_sub(KEPT);
        store.forget_hours(torrents, oldest)?;
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        *swept = store.forget_keyed(*swept, SWEPT, oldest)?;
        Ok(())
    }

    /// Hours of a torrent after one, at most `limit`, the oldest first. Blocks.
    fn hours(
        &self,
        store: &Store,
        torrent: TorrentId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, OffloadRecord)>, StoreError> {
        let _alone = self.alone();
        let mut hours = store.hours(&torrent, after, limit)?;
        let pending = self.pending();
        let pending = pending.hours.iter().filter(|((of, hour), _)| *of == torrent && Some(*hour) > after);
        for (&(_, hour), counts) in pending {
            match hours.binary_search_by_key(&hour, |(hour, _)| *hour) {
                Ok(place) => hours[place].1.add(counts),
                Err(place) => hours.insert(place, (hour, *counts)),
            }
        }
        hours.truncate(limit);
        Ok(hours)
    }

    /// What was keyed to and from each of these subscribers. Blocks.
    pub(super) fn of_subscribers(
        &self,
        store: &Store,
        ids: &[SubscriberId],
    ) -> Result<Vec<KeyedRecord>, StoreError> {
        let _alone = self.alone();
        let mut keyed = store.keyed(ids)?;
        let pending = self.pending();
        for (id, known) in ids.iter().zip(&mut keyed) {
            pending.keyed.get(id).into_iter().for_each(|counts| known.add(counts));
        }
        Ok(keyed)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HoursPage {
    torrent_id: Hex32,
    after: Option<u64>,
    limit: Option<usize>,
}

/// `GET /admin/offload?torrent_id=&after=&limit=`
pub(super) async fn list(State(tracker): Shared, page: Result<Query<HoursPage>, QueryRejection>) -> Response {
    let page = page.map(|Query(page)| page).map_err(|rejection| bad(rejection.body_text()));
    run(tracker, page, |tracker, page| {
        let torrent = tracker.torrent(&TorrentId(page.torrent_id.0))?;
        let limit = page_length(page.limit)?;
        let found = tracker.offload.hours(&tracker.store, torrent.id, page.after, limit)?;
        let next = (found.len() == limit).then(|| found.last().map(|(hour, _)| *hour)).flatten();
        let hours: Vec<Value> = found
            .into_iter()
            .map(|(hour, OffloadRecord { from_seeds, from_peers })| {
                json!({ "hour": hour, "from_seeds": from_seeds, "from_peers": from_peers })
            })
            .collect();
        Ok(json!({ "hours": hours, "piece_length": torrent.piece_length, "next": next }))
    })
    .await
}

/// [`Offload::write`] and, where it is not the last time, [`Offload::sweep`], off the async threads and beside the workers, for
/// which it must not wait.
pub(super) async fn write(tracker: &Arc<Tracker>, last: bool) {
    let shared = Arc::clone(tracker);
    let written = tokio::task::spawn_blocking(move || {
        shared.offload.write(&shared.store)?;
        if !last {
            let torrents: Vec<TorrentId> = shared.torrents().iter().map(|torrent| torrent.id).collect();
            shared.offload.sweep(&shared.store, &torrents)?;
        }
        Ok::<(), StoreError>(())
    });
    if let Ok(Err(error)) = written.await {
        tracing::error!(%error, "the counters cannot be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TORRENT: TorrentId = TorrentId([1; 32]);

    fn id(n: u32) -> SubscriberId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        SubscriberId(id)
    }

    #[test]
    fn nobody_fills_the_memory_with_counts() {
        let (offload, counters) = (Offload::default(), Counters::default());
        for n in 1..=MAX_PENDING as u32 + 5 {
            offload.keyed(&counters, TORRENT, (Role::Seed, id(0)), id(n), 2);
        }
        // Those that are there go on to count.
        offload.keyed(&counters, TORRENT, (Role::Subscriber, id(1)), id(2), 3);
        let pending = offload.pending();
        assert_eq!((pending.keyed.len(), pending.keyed.contains_key(&id(0))), (MAX_PENDING, false));
        assert_eq!((pending.keyed[&id(1)].from, pending.keyed[&id(2)].to), (3, 5));
        let peers: u64 = pending.hours.values().map(|hour| hour.from_peers).sum();
        let seeds: u64 = pending.hours.values().map(|hour| hour.from_seeds).sum();
        assert_eq!((seeds, peers), (2 * (MAX_PENDING as u64 + 5), 3));
    }
}
