//! Moves stored pieces to the subscription's epoch, by re-keys to ourselves.
//!
//! A piece is read, checked once more by the witness, transformed and written aside, and then its record switches: a kill in between leaves it as it was, and the
//! next start goes on. Until it has moved, a piece is sent to others as it is.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use swarmseal_core::{Error, ReKey, Ticket, WitnessKey, check_witness, re_encrypt_piece};
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroizing;

use super::stopping;
use super::torrent::{Input, Member, Role};
use super::witness;
use super::work::Checks;
use super::workers::Workers;
use crate::peer::published::Expected;
use crate::peer::state::Event;
use crate::peer::store::{NOT_ENCRYPTED, Store, StoreError, StoredPiece};
use crate::peer::tracker::{KeyError, Tracker};
use crate::wire::identity::purpose;

/// Pieces whose re-keys are asked for together.
const TOGETHER: usize = 64;
/// How long our word to ourselves is good.
const TICKET_SECONDS: u64 = 600;
/// Between looks for pieces that came after the others had moved: some were on their way.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(60);
/// How long after a move it is looked often.
const LATE: u32 = 120;
/// After a failure.
const AGAIN: Duration = Duration::from_secs(2);
const LAST_AGAIN: Duration = Duration::from_secs(300);

/// What the move needs.
pub(super) struct Mover {
    pub(super) role: Arc<Role>,
    pub(super) checks: Checks,
    pub(super) tracker: Arc<dyn Tracker>,
    pub(super) work: Arc<Workers>,
    pub(super) inputs: mpsc::WeakSender<Input>,
}

/// Runs until the node stops. `epochs`: the subscription's.
pub(super) async fn keep_up(mover: Mover, mut epochs: watch::Receiver<u64>, stop: watch::Receiver<bool>) {
    let Role::Peer { member, store } = &*mover.role else { return };
    let stop = stopping(stop);
    tokio::pin!(stop);
    let (mut looks, mut failures) = (0, 0_u32);
    let mut past = Past::default();
    loop {
        let epoch = *epochs.borrow_and_update();
        let moved = tokio::select! {
            moved = mover.move_all(member, store, epoch, &mut past) => moved,
            () = &mut stop => return,
        };
        let wait = match moved {
            Ok(0) => {
                looks += 1;
                if looks < LATE { SOON } else { LATER }
            }
            Ok(count) => {
                tracing::info!(count, epoch, "pieces moved to another epoch");
                (looks, failures) = (0, 0);
                let store = store.clone();
                let reclaimed = tokio::task::spawn_blocking(move || store.reclaim()).await;
                if let Ok(Err(error)) = reclaimed {
                    tracing::warn!(%error, "what was moved still takes its room");
                }
                SOON
            }
            Err(error) => {
                tracing::warn!(error, epoch, "pieces cannot move to another epoch yet");
                failures += 1;
                AGAIN.saturating_mul(1 << failures.min(8)).min(LAST_AGAIN)
            }
        };
        tokio::select! {
            changed = epochs.changed() => {
                if changed.is_err() {
                    return;
                }
                (looks, failures) = (0, 0);
            }
            () = tokio::time::sleep(wait) => {}
            () = &mut stop => return,
        }
    }
}

impl Mover {
    /// Moves what is of another epoch; how many pieces that were.
    async fn move_all(
        &self,
        member: &Member,
        store: &Arc<Store>,
        epoch: u64,
        past: &mut Past,
    ) -> Result<u32, String> {
        let mut count = 0;
        loop {
            let mut old = (0..).zip(store.pieces()).filter_map(|(piece, stored)| {
                let from = stored?.epoch;
                (from < epoch && from != NOT_ENCRYPTED && !past.given_up.contains(&(piece, from)))
                    .then_some((piece, from))
            });
            let Some((first, from)) = old.next() else { return Ok(count) };
            let same = old.filter(|(_, other)| *other == from).map(|(piece, _)| piece);
            let pieces: Vec<u32> = std::iter::once(first).chain(same).take(TOGETHER).collect();
            let ticket = word_to_ourselves(member, epoch, self.tracker.now() + TICKET_SECONDS);
            let keys = match self.tracker.rekeys(&ticket.to_bytes(), from, &pieces).await {
                Ok(keys) => keys,
                Err(KeyError::Retired) => {
                    tracing::warn!(
                        count = pieces.len(),
                        epoch = from,
                        "pieces of a retired epoch are fetched again"
                    );
                    past.given_up.extend(pieces.iter().map(|&piece| (piece, from)));
                    self.tell(Event::Retired { pieces }).await;
                    continue;
                }
                Err(error) => return Err(error.to_string()),
            };
            let width = member.params.group().bytes();
            let witness = witness::ask(&*self.tracker, width, epoch, &pieces).await;
            let witness = witness.map_err(|error| error.to_string())?;
            if keys.len() != pieces.len() {
                return Err("the tracker's answer has another number of keys".to_owned());
            }
            for (piece, keys) in pieces.into_iter().zip(keys.into_iter().zip(witness)) {
                count += u32::from(self.move_one(store, (piece, from), epoch, keys, past).await?);
            }
        }
    }

    /// Moves one piece; whether it was still there to be moved. `keys`: the re-key to ourselves, and the witness key of the new epoch.
    async fn move_one(
        &self,
        store: &Arc<Store>,
        (piece, from): (u32, u64),
        epoch: u64,
        keys: (Vec<u8>, Zeroizing<Vec<u8>>),
        past: &mut Past,
    ) -> Result<bool, String> {
        let (role, checks, store) = (self.role.clone(), self.checks.clone(), store.clone());
        let job = move || transform(&role, &checks, &store, (piece, from), epoch, (&keys.0, &keys.1));
        let (report, moved) = oneshot::channel();
        self.work.run(job, move |moved| drop(report.send(moved)));
        let moved = moved.await.ok().flatten();
        match moved.ok_or_else(|| "the piece could not be transformed".to_owned())? {
            Ok(Outcome::Moved) => {
                self.tell(Event::Moved { piece, epoch }).await;
                Ok(true)
            }
            Ok(Outcome::Gone) => Ok(false),
            // It was right when it came: the keys are asked for again before the piece is given up.
            Ok(Outcome::Mismatch) if past.doubted.insert((piece, from)) => {
                Err(format!("the keys of piece {piece} do not fit what is stored"))
            }
            Ok(Outcome::Mismatch | Outcome::Damaged) => {
                self.tell(Event::FoundBad { piece }).await;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn tell(&self, event: Event) {
        if let Some(inputs) = self.inputs.upgrade() {
            let _ = inputs.send(Input::Event(event)).await;
        }
    }
}

/// What entitles us to re-keys from ourselves to ourselves.
fn word_to_ourselves(member: &Member, epoch: u64, expires: u64) -> Ticket {
    let Member { torrent_id, id, .. } = *member;
    let mut ticket = Ticket { torrent_id, uploader: id, downloader: id, epoch, expires, signature: [0; 64] };
    ticket.signature = member.key.sign(purpose::TICKET, &ticket.signing_input());
    ticket
}

/// Pieces, with their epochs, that did not move.
#[derive(Default)]
struct Past {
    /// Of retired epochs.
    given_up: HashSet<(u32, u64)>,
    /// Those that did not fit their keys once.
    doubted: HashSet<(u32, u64)>,
}

enum Outcome {
    Moved,
    /// It was discarded, or has come again.
    Gone,
    /// It is not what was stored.
    Damaged,
    /// By its keys it is not what was published.
    Mismatch,
}

fn transform(
    role: &Role,
    checks: &Checks,
    store: &Store,
    (piece, from): (u32, u64),
    epoch: u64,
    (rekey, witness): (&[u8], &[u8]),
) -> Result<Outcome, String> {
    let Some(member) = role.member() else { return Ok(Outcome::Gone) };
    let len = store.shape().piece_len;
    let mut data = checks.buffers.take(len);
    let before = match store.read_stored(piece, &mut data) {
        Ok(before) if before.epoch == from => before,
        Ok(_) | Err(StoreError::Missing(_)) => return Ok(Outcome::Gone),
        Err(StoreError::Damaged(_)) => return Ok(Outcome::Damaged),
        Err(error) => return Err(error.to_string()),
    };
    let text = |error: Error| error.to_string();
    let (params, published) = (&member.params, checks.published.as_ref());
    let Some(Expected::Witness(hash)) = published.and_then(|published| published.expected(piece)) else {
        return Ok(Outcome::Gone);
    };
    let rekey = ReKey::from_bytes(params, rekey).map_err(text)?;
    let key = WitnessKey::from_bytes(params, witness).map_err(text)?.before(params, &rekey);
    match check_witness(params, &key, hash, &data, &mut checks.buffers.take(len)) {
        Ok(()) => {}
        Err(Error::WitnessMismatch) => return Ok(Outcome::Mismatch),
        Err(error) => return Err(text(error)),
    }
    re_encrypt_piece(params, &rekey, &mut data).map_err(text)?;
    let moved = StoredPiece { epoch, hash: *blake3::hash(&data).as_bytes() };
    let replaced = store.replace(piece, &before, &data, moved).map_err(|error| error.to_string())?;
    Ok(if replaced { Outcome::Moved } else { Outcome::Gone })
}
