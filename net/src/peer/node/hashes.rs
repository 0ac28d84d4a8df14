//! Brings cipher hashes from the tracker, and looks at what was stored before they were there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::stopping;
use super::torrent::{Input, Role};
use crate::peer::cipher_hashes::CipherHashes;
use crate::peer::state::Event;
use crate::peer::store::Store;
use crate::peer::tracker::Tracker;

const FIRST: Duration = Duration::from_secs(5);
const LAST: Duration = Duration::from_secs(600);

/// Runs until every hash is known or the node stops.
pub(super) async fn fetch(
    role: Arc<Role>,
    hashes: Arc<CipherHashes>,
    tracker: Arc<dyn Tracker>,
    inputs: mpsc::WeakSender<Input>,
    stop: watch::Receiver<bool>,
) {
    let Role::Peer { member, store } = &*role else { return };
    let count = store.shape().piece_count;
    let stop = stopping(stop);
    tokio::pin!(stop);
    let mut wait = FIRST;
    while hashes.count() < count {
        let first = hashes.count();
        let answer = tokio::select! {
            answer = tracker.cipher_hashes(first) => answer,
            () = &mut stop => return,
        };
        wait = (wait * 2).min(LAST);
        match answer {
            Ok((epoch, new)) if epoch == member.epoch && !new.is_empty() => {
                wait = FIRST;
                hashes.add(&new);
                let last = hashes.count().min(count);
                let (store, hashes) = (store.clone(), hashes.clone());
                let bad = tokio::task::spawn_blocking(move || find_bad(&store, &hashes, epoch, first..last));
                for event in bad.await.unwrap_or_default() {
                    let Some(inputs) = inputs.upgrade() else { return };
                    let _ = inputs.send(Input::Event(event)).await;
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(error, "no cipher hashes yet"),
        }
        let wait = if hashes.count() < count { wait } else { Duration::ZERO };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = &mut stop => return,
        }
    }
    let Some(known) = inputs.upgrade() else { return };
    let _ = known.send(Input::Event(Event::AllHashed)).await;
}

fn find_bad(store: &Store, hashes: &CipherHashes, epoch: u64, pieces: std::ops::Range<u32>) -> Vec<Event> {
    let mut data = vec![0; store.shape().piece_len as usize];
    let stored = pieces.filter_map(|piece| Some((piece, store.piece(piece).filter(|it| it.epoch == epoch)?)));
    let bad =
        stored.filter(|&(piece, _)| store.read(piece, &mut data).is_ok() && !hashes.allow(piece, &data));
    bad.map(|(piece, stored)| Event::FoundBad { piece, sender: stored.sender }).collect()
}
