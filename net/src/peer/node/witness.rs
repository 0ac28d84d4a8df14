//! Our witness keys as the tracker gave them, until the pieces that they check are here.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use swarmseal_core::{Params, WitnessKey};
use zeroize::Zeroizing;

use crate::peer::tracker::{KeyError, Tracker};

/// Keys in memory at most, of 256 to 512 bytes each.
const MAX_KEYS: usize = 65_536;

/// Keys by epoch and piece, each as W big-endian bytes.
type Known = HashMap<(u64, u32), Zeroizing<Vec<u8>>>;

/// What is checked with, shared by all who check.
#[derive(Default)]
pub(super) struct WitnessKeys {
    known: Mutex<Known>,
}

impl WitnessKeys {
    /// Asks the tracker for keys, and keeps them.
    pub(super) async fn fetch(
        &self,
        tracker: &dyn Tracker,
        width: usize,
        epoch: u64,
        pieces: &[u32],
    ) -> Result<(), KeyError> {
        let keys = ask(tracker, width, epoch, pieces).await?;
        let mut known = self.known();
        for (&piece, key) in pieces.iter().zip(keys) {
            keep(&mut known, (epoch, piece), key);
        }
        Ok(())
    }

    /// Asks again for keys by which pieces failed: whether each is the same as before. The new ones are kept.
    pub(super) async fn fetch_again(
        &self,
        tracker: &dyn Tracker,
        width: usize,
        epoch: u64,
        pieces: &[u32],
    ) -> Result<Vec<bool>, KeyError> {
        let keys = ask(tracker, width, epoch, pieces).await?;
        let mut known = self.known();
        let same = pieces.iter().zip(keys).map(|(&piece, key)| {
            let same = known.get(&(epoch, piece)).is_some_and(|before| *before == key);
            keep(&mut known, (epoch, piece), key);
            same
        });
        Ok(same.collect())
    }

    /// The key that checks a piece in an epoch, if it is here and one.
    pub(super) fn get(&self, params: &Params, epoch: u64, piece: u32) -> Option<WitnessKey> {
        let known = self.known();
        WitnessKey::from_bytes(params, known.get(&(epoch, piece))?).ok()
    }

    /// A piece is stored: its key has served.
    pub(super) fn served(&self, epoch: u64, piece: u32) {
        self.known().remove(&(epoch, piece));
    }

    /// Another epoch begins: of those before it, only the last one's pieces may still be on their way.
    pub(super) fn begin(&self, before: u64, epoch: u64) {
        self.known().retain(|(of, _), _| *of == before || *of == epoch);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep(known: &mut Known, of: (u64, u32), key: Zeroizing<Vec<u8>>) {
    if known.len() < MAX_KEYS || known.contains_key(&of) {
        known.insert(of, key);
    }
}

/// Our keys of these pieces, of `width` bytes each.
pub(super) async fn ask(
    tracker: &dyn Tracker,
    width: usize,
    epoch: u64,
    pieces: &[u32],
) -> Result<Vec<Zeroizing<Vec<u8>>>, KeyError> {
    let keys: Vec<_> = tracker.witness_keys(epoch, pieces).await?.into_iter().map(Zeroizing::new).collect();
    if keys.len() != pieces.len() || keys.iter().any(|key| key.len() != width) {
        return Err(KeyError::Unavailable("the tracker's answer has the wrong length".to_owned()));
    }
    Ok(keys)
}
