//! What a license says of fetched pieces: as they come where the publisher wants that, and otherwise when all are there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::super::subscription::Subscription;
use super::super::{Exit, Failure, Output, glue, license, play};
use crate::peer::{PieceCheck, Store, Torrent};
use crate::player::{BadPiece, Fault, Player};
use crate::wire::integrity::Integrity;

/// How often a piece is fetched again before its torrent counts as bad wherever it comes from.
const ROUNDS: u32 = 5;

/// The license of a subscription, once there is one, and what it was good for.
pub(super) struct Licensed {
    subscription: Arc<Subscription>,
    output: Output,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    player: Option<Arc<Player>>,
    /// Pieces that opened to what was published, and the BLAKE3 of their ciphertext.
    good: HashMap<u32, [u8; 32]>,
    /// How many copies of a piece were refused as they came, since a good one.
    refused: HashMap<u32, u32>,
}

impl Licensed {
    /// Opens the license if there is one. Where pieces are to be checked by it as they come, it is fetched first; one that cannot be
    /// had yet is noted, and the check waits for it.
    pub(super) async fn of(subscription: Arc<Subscription>, output: Output) -> Result<Arc<Self>, Failure> {
        let early = subscription.metainfo.info.seal.integrity == Integrity::EarlyLicense;
        if early
            && !subscription.dir.license().exists()
            && let Err(failure) = license::fetch(&subscription, None).await
        {
            output.note(format!(
                "Pieces are not checked as they come, for want of a license: {}",
                failure.message
            ));
        }
        let licensed = Arc::new(Licensed { subscription, output, known: Mutex::default() });
        licensed.renew()?;
        Ok(licensed)
    }

    /// Whether the publisher wants pieces to be checked as they come, and not only once there is reason to.
    pub(super) fn checks_early(&self) -> bool {
        self.subscription.metainfo.info.seal.integrity == Integrity::EarlyLicense
    }

    /// Reads the licenses again: one has come.
    pub(super) fn renew(&self) -> Result<(), Failure> {
        if self.subscription.dir.license().exists() {
            let player = play::load_player(&self.subscription)?;
            self.known().player = Some(player);
        }
        Ok(())
    }

    /// Opens every piece that was not seen to be good before; those that do not open. `None` where there is no license.
    pub(super) fn faults(&self, store: &Store, output: Output) -> Option<Vec<BadPiece>> {
        let (player, good) = {
            let known = self.known();
            (known.player.clone()?, known.good.clone())
        };
        let stored = store.pieces();
        let hash =
            |piece: u32| stored.get(piece as usize).and_then(|stored| stored.map(|stored| stored.hash));
        let seen = |&piece: &u32| hash(piece).is_some_and(|hash| good.get(&piece) == Some(&hash));
        let unseen: Vec<u32> = (0..store.shape().piece_count).filter(|piece| !seen(piece)).collect();
        let faults = play::verify_these(&player, store, &unseen, output);
        let bad: BTreeSet<u32> = faults.iter().map(|bad| bad.index).collect();
        // What came anew meanwhile has another hash, and is looked at next time.
        let opened = unseen.into_iter().filter(|piece| !bad.contains(piece));
        self.known().good.extend(opened.filter_map(|piece| Some((piece, hash(piece)?))));
        Some(faults)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PieceCheck for Licensed {
    fn check(&self, piece: u32, epoch: u64, ciphertext: &[u8], hash: &[u8; 32]) -> Option<bool> {
        let player = self.known().player.clone()?;
        let good = player.check_piece(piece, epoch, ciphertext)?;
        let copies = {
            let mut known = self.known();
            if good {
                known.good.insert(piece, *hash);
                known.refused.remove(&piece);
                return Some(true);
            }
            let copies = known.refused.entry(piece).or_default();
            *copies = copies.saturating_add(1);
            *copies
        };
        // It is asked for until somebody has a good one. Whoever waits is told what for.
        self.output.note(format!("Piece {piece} is bad, {copies} copies of it so far: fetching it again"));
        if self.output.is_json() {
            self.output.result("", json!({ "event": "bad_piece", "piece": piece, "copies": copies }));
        }
        Some(false)
    }
}

/// Looks at a torrent of which every piece is there.
pub(super) struct Completion {
    licensed: Arc<Licensed>,
    store: Arc<Store>,
    torrent: Torrent,
    rounds: BTreeMap<u32, u32>,
}

impl Completion {
    /// Nothing was looked at yet.
    pub(super) fn new(licensed: Arc<Licensed>, store: Arc<Store>, torrent: Torrent) -> Self {
        Completion { licensed, store, torrent, rounds: BTreeMap::new() }
    }

    /// Checks with the license, if there is one, what no cipher hash has checked; has bad pieces fetched again from
    /// others. Whether all is good, as far as can be told. Errors: a piece stays bad.
    pub(super) async fn check(&mut self, output: Output) -> Result<bool, Failure> {
        if self.torrent.stats().borrow().hashed {
            return Ok(true);
        }
        let (licensed, store) = (self.licensed.clone(), self.store.clone());
        let found = tokio::task::spawn_blocking(move || licensed.faults(&store, output)).await;
        let found =
            found.map_err(|error| Failure::new(Exit::Failed, format!("the check stopped: {error}")))?;
        // Of what has no license yet, nothing can be said; nor of what has gone meanwhile.
        let is_bad = |bad: &BadPiece| matches!(bad.fault, Fault::Corrupt | Fault::Unreadable);
        let bad: BTreeSet<u32> = found.into_iter().flatten().filter(is_bad).map(|bad| bad.index).collect();
        if bad.is_empty() {
            return Ok(true);
        }
        for &piece in &bad {
            let rounds = self.rounds.entry(piece).or_default();
            *rounds += 1;
            if *rounds > ROUNDS {
                return Err(glue::player_failure(crate::player::Error::CorruptPiece { index: piece }));
            }
            output.note(format!("Piece {piece} is bad: fetching it again"));
            if output.is_json() {
                output.result("", json!({ "event": "bad_piece", "piece": piece }));
            }
        }
        for piece in bad {
            if let Some(stored) = self.store.piece(piece) {
                self.torrent.refetch(piece, stored.hash).await;
            }
        }
        Ok(false)
    }
}
