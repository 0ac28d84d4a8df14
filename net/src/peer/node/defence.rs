//! Answers the tracker's questions about bad pieces that we handed on, with the statements by which they came.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use swarmseal_core::SubscriberId;
use tokio::sync::watch;

use super::stopping;
use super::torrent::Role;
use crate::peer::statements::{Owner, read_statements, statements_of};
use crate::peer::store::{Store, StoreError};
use crate::peer::tracker::{Question, Tracker};
use crate::wire::seal::Statement;

/// Between looks: where one failed, and in any case.
const AGAIN: Duration = Duration::from_secs(300);
const LEAST_WAIT: Duration = Duration::from_secs(1);
const MOST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// Statements shown about one piece.
const MAX_SHOWN: usize = 8;

/// Runs until the node stops.
pub(super) async fn answer(
    role: Arc<Role>,
    log: Option<(PathBuf, Owner)>,
    tracker: Arc<dyn Tracker>,
    stop: watch::Receiver<bool>,
) {
    let (Role::Peer { store, .. }, Some((path, owner))) = (&*role, log) else { return };
    let stop = stopping(stop);
    tokio::pin!(stop);
    // Cases in which we have nothing to show: asking the disk again gives nothing else.
    let mut lost = HashSet::new();
    loop {
        let questions = tokio::select! {
            questions = tracker.questions() => questions,
            () = &mut stop => return,
        };
        let wait = match questions {
            Ok((questions, wait)) => {
                for question in questions {
                    if lost.contains(&question.case) {
                        continue;
                    }
                    let found = find(store.clone(), path.clone(), owner, question).await;
                    let shown = tokio::select! {
                        shown = show(&*tracker, question, found) => shown,
                        () = &mut stop => return,
                    };
                    if !shown {
                        lost.insert(question.case);
                    }
                }
                wait
            }
            Err(error) => {
                tracing::debug!(error, "the tracker's questions are not known");
                AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait.clamp(LEAST_WAIT, MOST_WAIT)) => {}
            () = &mut stop => return,
        }
    }
}

/// The statements that may be about the input of what we sent.
async fn find(
    store: Arc<Store>,
    path: PathBuf,
    owner: Owner,
    Question { piece, before, .. }: Question,
) -> Result<Vec<(SubscriberId, Statement)>, String> {
    let job = move || -> Result<_, StoreError> {
        let stated = read_statements(&path, &owner)?;
        Ok(statements_of(&stated, &store.history()?, piece, before))
    };
    let found = tokio::task::spawn_blocking(job).await.map_err(|error| error.to_string())?;
    found.map_err(|error| error.to_string())
}

/// Shows one after the other until one clears us; `false` where none does.
async fn show(
    tracker: &dyn Tracker,
    question: Question,
    found: Result<Vec<(SubscriberId, Statement)>, String>,
) -> bool {
    let piece = question.piece;
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(
                piece,
                error,
                "the statements cannot be read, so that we cannot say who sent a bad piece"
            );
            return true;
        }
    };
    for (uploader, statement) in found.into_iter().take(MAX_SHOWN) {
        match tracker.defend(question.case, uploader, statement).await {
            Ok(true) => {
                tracing::info!(piece, %uploader, "a piece was bad: the tracker knows who sent it to us");
                return true;
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(piece, error, "a statement could not be shown");
                return true;
            }
        }
    }
    tracing::warn!(piece, "a piece that we handed on was bad, and no statement says who sent it to us");
    false
}
