//! Ordinary clients that ask for a personal torrent: the tracker says whose it is and of which of our torrents.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::torrent::Input;
use super::{Joined, Shared, stopping};
use crate::peer::tracker::{Personal, Tracker};
use crate::wire::mse::TorrentName;

/// How long an answer holds.
const KNOWN: Duration = Duration::from_secs(600);
const UNKNOWN: Duration = Duration::from_secs(30);
/// Info-hashes that are remembered.
const MAX_KNOWN: usize = 4096;
/// Trackers asked at a time: strangers may name any number of info-hashes.
const MAX_LOOKUPS: usize = 4;

/// Between questions for ordinary clients: where one failed, and in any case.
const CLIENTS_AGAIN: Duration = Duration::from_secs(60);
const LEAST_WAIT: Duration = Duration::from_secs(1);
const MOST_WAIT: Duration = Duration::from_secs(3600);

/// What trackers have said.
#[derive(Debug)]
pub(super) struct Personals {
    known: Mutex<HashMap<TorrentName, Answer>>,
    lookups: Semaphore,
}

/// What all trackers together said of a name, and until when it holds.
type Answer = (Option<Found>, Instant);

/// Whose torrent it is, and the info-hash of the sealed one.
#[derive(Clone, Copy, Debug)]
struct Found {
    personal: Personal,
    sealed: [u8; 20],
}

impl Default for Personals {
    fn default() -> Self {
        Personals { known: Mutex::default(), lookups: Semaphore::new(MAX_LOOKUPS) }
    }
}

/// The torrent that serves a personal one, if there is any.
pub(super) async fn find(shared: &Shared, name: TorrentName) -> Option<(Joined, Personal)> {
    let found = match shared.personals.recall(&name) {
        Some(answer) => answer?,
        None => ask(shared, name).await?,
    };
    let joined = shared.torrents().get(&found.sealed).cloned()?;
    Some((joined, found.personal))
}

/// Asks the trackers of all sealed torrents. What could not be asked is asked again next time.
async fn ask(shared: &Shared, name: TorrentName) -> Option<Found> {
    let _permit = shared.personals.lookups.acquire().await.ok()?;
    let trackers: Vec<_> = {
        let torrents = shared.torrents();
        let sealed = torrents.iter().filter_map(|(sealed, joined)| Some((*sealed, joined.tracker.clone()?)));
        sealed.collect()
    };
    let mut all_answered = true;
    for (sealed, tracker) in trackers {
        match tracker.personal(name).await {
            Ok(Some(personal)) => {
                let found = Found { personal, sealed };
                shared.personals.remember(name, Some(found));
                return Some(found);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "whose torrent a client asks for is not known");
                all_answered = false;
            }
        }
    }
    if all_answered {
        shared.personals.remember(name, None);
    }
    None
}

/// Asks for ordinary clients again and again, until the node stops: they need not find us, and some cannot.
pub(super) async fn find_clients(
    tracker: Arc<dyn Tracker>,
    inputs: mpsc::WeakSender<Input>,
    stop: watch::Receiver<bool>,
) {
    let stop = stopping(stop);
    tokio::pin!(stop);
    loop {
        let answer = tokio::select! {
            answer = tracker.personal_clients() => answer,
            () = &mut stop => return,
        };
        let wait = match answer {
            Ok((clients, wait)) => {
                let Some(inputs) = inputs.upgrade() else { return };
                let _ = inputs.send(Input::OrdinaryClients(clients)).await;
                wait
            }
            Err(error) => {
                tracing::debug!(error, "no ordinary clients are known");
                CLIENTS_AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait.clamp(LEAST_WAIT, MOST_WAIT)) => {}
            () = &mut stop => return,
        }
    }
}

impl Personals {
    fn recall(&self, name: &TorrentName) -> Option<Option<Found>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).filter(|(_, until)| *until > Instant::now()).map(|(found, _)| *found)
    }

    fn remember(&self, name: TorrentName, found: Option<Found>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if known.len() >= MAX_KNOWN {
            known.retain(|_, (_, until)| *until > now);
        }
        if known.len() < MAX_KNOWN {
            known.insert(name, (found, now + if found.is_some() { KNOWN } else { UNKNOWN }));
        }
    }
}
