//! Tells the tracker where we are and brings back who else is there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::torrent::{Input, Stats};
use super::{Shared, stopping};
use crate::peer::tracker::{Announce, AnnounceEvent, Tracker};

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);
/// While we have nobody, we ask this often.
const ALONE: Duration = Duration::from_secs(15);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(300);
const LAST_WORD: Duration = Duration::from_secs(3);

/// Runs until the node stops.
pub(super) async fn announce(
    info_hash: [u8; 20],
    tracker: Arc<dyn Tracker>,
    shared: Arc<Shared>,
    mut stats: watch::Receiver<Stats>,
    inputs: mpsc::Sender<Input>,
    stop: watch::Receiver<bool>,
) {
    let stop = stopping(stop);
    tokio::pin!(stop);
    let mut was_complete = stats.borrow().complete;
    let mut event = AnnounceEvent::Started;
    let mut retry = FIRST_RETRY;
    'announcing: loop {
        let said = message(info_hash, &shared, &stats.borrow().clone(), event);
        let reply = tokio::select! {
            reply = tracker.announce(&said) => reply,
            () = &mut stop => break,
        };
        let wait = match &reply {
            Ok(reply) => {
                (event, retry) = (AnnounceEvent::Interval, FIRST_RETRY);
                reply.interval.clamp(SHORTEST, LONGEST)
            }
            Err(error) => {
                tracing::warn!(error, "the announce failed");
                retry = (retry * 2).min(LAST_RETRY);
                retry / 2
            }
        };
        if inputs.send(Input::Announced(reply)).await.is_err() {
            break;
        }
        let sleep = tokio::time::sleep(wait);
        let alone = tokio::time::sleep(wait.min(ALONE));
        tokio::pin!(sleep, alone);
        let mut waited = false;
        loop {
            tokio::select! {
                () = &mut stop => break 'announcing,
                () = &mut sleep => break,
                () = &mut alone, if !waited => {
                    waited = true;
                    let now = stats.borrow();
                    if now.connections == 0 && !now.complete {
                        break;
                    }
                }
                changed = stats.changed() => {
                    if changed.is_err() {
                        break 'announcing;
                    }
                    if stats.borrow_and_update().complete && !was_complete {
                        (was_complete, event) = (true, AnnounceEvent::Completed);
                        break;
                    }
                }
            }
        }
    }
    drop(inputs);
    if event != AnnounceEvent::Started {
        let said = message(info_hash, &shared, &stats.borrow().clone(), AnnounceEvent::Stopped);
        let _ = timeout(shared.within(LAST_WORD), tracker.announce(&said)).await;
    }
}

fn message(info_hash: [u8; 20], shared: &Shared, stats: &Stats, event: AnnounceEvent) -> Announce {
    Announce {
        info_hash,
        peer_id: shared.peer_id,
        port: shared.port(),
        uploaded: stats.uploaded,
        downloaded: stats.from_seeds + stats.from_peers,
        left: stats.left,
        event,
    }
}
