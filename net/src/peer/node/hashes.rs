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

/// Runs until the node stops. `epochs`: the subscription's.
pub(super) async fn fetch(
    role: Arc<Role>,
    hashes: Arc<CipherHashes>,
    tracker: Arc<dyn Tracker>,
    inputs: mpsc::WeakSender<Input>,
    mut epochs: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
) {
    let Role::Peer { store, .. } = &*role else { return };
    let stop = stopping(stop);
    tokio::pin!(stop);
    loop {
        let epoch = *epochs.borrow_and_update();
        hashes.begin(epoch);
        let all = fetch_all(store, &hashes, &*tracker, &inputs, epoch);
        let known = tokio::select! {
            known = all => known,
            changed = epochs.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = &mut stop => return,
        };
        let Some(inputs) = inputs.upgrade().filter(|_| known) else { return };
        let _ = inputs.send(Input::Event(Event::AllHashed { epoch })).await;
        drop(inputs);
        tokio::select! {
            changed = epochs.changed() => if changed.is_err() {
                return;
            },
            () = &mut stop => return,
        }
    }
}

/// Until every hash of an epoch is known; `false` where nobody waits for them any more.
async fn fetch_all(
    store: &Arc<Store>,
    hashes: &Arc<CipherHashes>,
    tracker: &dyn Tracker,
    inputs: &mpsc::WeakSender<Input>,
    epoch: u64,
) -> bool {
    let count = store.shape().piece_count;
    let mut wait = FIRST;
    while hashes.count() < count {
        let first = hashes.count();
        wait = (wait * 2).min(LAST);
        match tracker.cipher_hashes(first).await {
            Ok((of, new)) if of == epoch && !new.is_empty() => {
                wait = FIRST;
                hashes.add(&new);
                let last = hashes.count().min(count);
                let (store, hashes) = (store.clone(), hashes.clone());
                let bad = tokio::task::spawn_blocking(move || find_bad(&store, &hashes, epoch, first..last));
                for event in bad.await.unwrap_or_default() {
                    let Some(inputs) = inputs.upgrade() else { return false };
                    let _ = inputs.send(Input::Event(event)).await;
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(error, "no cipher hashes yet"),
        }
        if hashes.count() < count {
            tokio::time::sleep(wait).await;
        }
    }
    true
}

fn find_bad(store: &Store, hashes: &CipherHashes, epoch: u64, pieces: std::ops::Range<u32>) -> Vec<Event> {
    let mut data = vec![0; store.shape().piece_len as usize];
    let stored = pieces.filter_map(|piece| Some((piece, store.piece(piece).filter(|it| it.epoch == epoch)?)));
    let bad = stored.filter(|&(piece, _)| {
        // It may move meanwhile: whoever moves it looks at it then.
        let read = store.read_stored(piece, &mut data);
        read.is_ok_and(|read| !hashes.allow(read.epoch, piece, &data, &read.hash))
    });
    bad.map(|(piece, stored)| Event::FoundBad { piece, senders: stored.sender.into_iter().collect() })
        .collect()
}
