//! Epochs of torrents: a new one begun while its swarm runs, old ones served until they are retired.
//!
//! A new epoch has a master key of its own. Subscriptions are in it at once: what is subscribed, keyed, licensed or hashed from
//! then on is of it. Peers hear of it at their next announce, and turn their pieces into those of the new epoch by re-keys to
//! themselves; meanwhile they send what they have of either.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use swarmseal_core::{MasterKey, TorrentId};

use super::admin::{Body, Hex32, Subject, blocking, run};
use super::records::EpochsRecord;
use super::refusal::Refusal;
use super::state::{Torrent, Tracker};
use super::{MASTERS, clock};
use crate::wire::api::ApiError;

/// A torrent's epochs, in memory.
pub(super) struct Epochs {
    oldest: AtomicU64,
    current: AtomicU64,
    started: AtomicU64,
}

impl Epochs {
    pub(super) fn new(record: EpochsRecord) -> Self {
        let EpochsRecord { oldest, current, started } = record;
        Epochs { oldest: oldest.into(), current: current.into(), started: started.into() }
    }

    /// That of every subscription.
    pub(super) fn current(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// Errors: [`ApiError::RetiredEpoch`], and [`ApiError::UnknownEpoch`] for one that is yet to come.
    pub(super) fn check(&self, epoch: u64) -> Result<(), ApiError> {
        if epoch > self.current() {
            Err(ApiError::UnknownEpoch)
        } else if epoch < self.oldest.load(Ordering::Acquire) {
            Err(ApiError::RetiredEpoch)
        } else {
            Ok(())
        }
    }

    /// What the store has now.
    fn set(&self, record: EpochsRecord) {
        self.started.store(record.started, Ordering::Release);
        self.oldest.store(record.oldest, Ordering::Release);
        self.current.store(record.current, Ordering::Release);
    }

    fn record(&self) -> EpochsRecord {
        let load = |number: &AtomicU64| number.load(Ordering::Acquire);
        EpochsRecord {
            oldest: load(&self.oldest),
            current: load(&self.current),
            started: load(&self.started),
        }
    }
}

/// The master key of an epoch that a torrent has. Errors: as [`Epochs::check`].
pub(super) fn master(tracker: &Tracker, torrent: &Torrent, epoch: u64) -> Result<Arc<MasterKey>, ApiError> {
    torrent.epochs.check(epoch)?;
    tracker.masters().key(epoch).ok_or(ApiError::UnknownEpoch)
}

/// Begins the next epoch of these torrents. Blocks.
fn begin(tracker: &Tracker, torrents: &[Arc<Torrent>]) -> Result<u64, Refusal> {
    // One at a time: each looks at what is the newest.
    let mut masters = tracker.masters_mut();
    let newest = torrents.iter().map(|torrent| torrent.epochs.current()).max().unwrap_or(0);
    let next = masters.newest().max(newest.saturating_add(1));
    // On the disk before anything is of it.
    masters.add(next).map_err(|error| {
        tracing::error!(%error, "a master key cannot be made");
        ApiError::Internal
    })?;
    tracker.store.check_marks(&masters.marks())?;
    let ids: Vec<TorrentId> = torrents.iter().map(|torrent| torrent.id).collect();
    let now = clock::now();
    let changed = tracker
        .store
        .change_epochs(&ids, |epochs| Ok(EpochsRecord { current: next, started: now, ..epochs }))?;
    drop(masters);
    set(tracker, &ids, changed);
    ids.iter().for_each(|id| tracker.hash_work.forget(id));
    Ok(next)
}

/// Makes known what the store has. The torrents are looked up anew: they may have been registered again meanwhile.
fn set(tracker: &Tracker, ids: &[TorrentId], records: Vec<EpochsRecord>) {
    for (id, record) in ids.iter().zip(records) {
        if let Ok(torrent) = tracker.torrent(id) {
            torrent.epochs.set(record);
        }
    }
}

/// Serves no epoch of these torrents any more that is before `oldest`. Blocks.
fn retire(tracker: &Tracker, torrents: &[Arc<Torrent>], oldest: u64) -> Result<(), Refusal> {
    let ids: Vec<TorrentId> = torrents.iter().map(|torrent| torrent.id).collect();
    let changed = tracker.store.change_epochs(&ids, |epochs| {
        if oldest > epochs.current {
            return Err(ApiError::UnknownEpoch);
        }
        Ok(EpochsRecord { oldest: oldest.max(epochs.oldest), ..epochs })
    })?;
    set(tracker, &ids, changed);
    ids.iter().try_for_each(|id| forget(tracker, id))?;
    let mut masters = tracker.masters_mut();
    unused(tracker, masters.epochs()).into_iter().for_each(|epoch| masters.forget(epoch));
    Ok(())
}

/// Deletes what nobody is served any more: cipher hashes and personal torrents of a torrent's epochs before its oldest. What a kill
/// leaves is deleted with the next. Blocks.
fn forget(tracker: &Tracker, id: &TorrentId) -> Result<(), Refusal> {
    let oldest = tracker.torrent(id)?.epochs.record().oldest;
    let personals = tracker.personals.forget(id, oldest);
    tracker.store.forget_personals(&personals)?;
    let mut after = None;
    loop {
        after = tracker.store.forget_hashes(id, oldest, after)?;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Of these epochs, those before every torrent's oldest.
fn unused(tracker: &Tracker, epochs: Vec<u64>) -> Vec<u64> {
    let oldest = tracker.torrents().iter().map(|torrent| torrent.epochs.record().oldest).min();
    let oldest = oldest.unwrap_or(0);
    epochs.into_iter().filter(|&epoch| epoch < oldest).collect()
}

fn describe(tracker: &Tracker, torrents: &[Arc<Torrent>]) -> Result<Value, Refusal> {
    let list: Vec<Value> = torrents
        .iter()
        .map(|torrent| {
            let EpochsRecord { oldest, current, started } = torrent.epochs.record();
            json!({
                "torrent_id": torrent.id.to_string(),
                "name": torrent.name,
                "oldest": oldest,
                "current": current,
                "started": started,
            })
        })
        .collect();
    let there = tracker.masters().on_disk().map_err(|error| {
        tracing::error!(%error, "the master keys cannot be listed");
        ApiError::Internal
    })?;
    let unused: Vec<String> =
        unused(tracker, there).into_iter().map(|epoch| format!("{MASTERS}/{epoch}.key")).collect();
    Ok(json!({ "torrents": list, "unused_keys": unused }))
}

/// One torrent, or all. Errors: [`ApiError::UnknownTorrent`].
fn chosen(tracker: &Tracker, torrent: Option<Hex32>) -> Result<Vec<Arc<Torrent>>, ApiError> {
    match torrent {
        Some(id) => Ok(vec![tracker.torrent(&TorrentId(id.0))?]),
        None => Ok(tracker.torrents()),
    }
}

/// `GET /admin/epochs`
pub(super) async fn list(State(tracker): State<Arc<Tracker>>) -> Response {
    run(tracker, Ok(()), |tracker, ()| describe(tracker, &tracker.torrents())).await
}

fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Hex32>, D::Error> {
    Hex32::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotate {
    /// All torrents, if it is not there. Null is none of these: who means one and has lost it does not mean all.
    #[serde(default, deserialize_with = "given")]
    torrent_id: Option<Hex32>,
}

impl Subject for Rotate {
    fn subject(&self) -> String {
        self.torrent_id.map_or_else(|| "all torrents".to_owned(), |id| hex::encode(id.0))
    }
}

/// `POST /admin/epochs`
pub(super) async fn rotate(State(tracker): State<Arc<Tracker>>, body: Body<Rotate>) -> Response {
    blocking(tracker, body, |tracker, body| {
        let torrents = chosen(tracker, body.torrent_id)?;
        let epoch = begin(tracker, &torrents)?;
        tracing::info!(epoch, torrents = torrents.len(), "a new epoch");
        describe(tracker, &torrents)
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retire {
    /// All torrents, if it is not there. Null is none of these: who means one and has lost it does not mean all.
    #[serde(default, deserialize_with = "given")]
    torrent_id: Option<Hex32>,
    /// The oldest epoch that is still served.
    oldest: u64,
}

impl Subject for Retire {
    fn subject(&self) -> String {
        let torrents = self.torrent_id.map_or_else(|| "all torrents".to_owned(), |id| hex::encode(id.0));
        format!("{torrents} before epoch {}", self.oldest)
    }
}

/// `POST /admin/retire`
pub(super) async fn retire_epochs(State(tracker): State<Arc<Tracker>>, body: Body<Retire>) -> Response {
    blocking(tracker, body, |tracker, body| {
        let torrents = chosen(tracker, body.torrent_id)?;
        retire(tracker, &torrents, body.oldest)?;
        tracing::info!(oldest = body.oldest, torrents = torrents.len(), "older epochs are retired");
        describe(tracker, &torrents)
    })
    .await
}
