//! Hands the receipts for what we sent to the tracker, which credits us for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use swarmseal_core::SubscriberId;
use tokio::sync::watch;

use super::stopping;
use crate::peer::statements::SignedWord;
use crate::peer::tracker::{ReceiptError, Tracker};
use crate::wire::seal::Receipt;

/// Between two calls. What comes meanwhile of one connection is one receipt.
const INTERVAL: Duration = Duration::from_secs(30);
const LAST_INTERVAL: Duration = Duration::from_secs(600);
/// Receipts that wait; the oldest is dropped for another.
const MAX_WAITING: usize = 4096;
/// Receipts in one call.
const TOGETHER: usize = 64;
/// The tracker takes none that is older.
const MAX_AGE: u64 = 7 * 24 * 3600;

/// The last receipt of each connection, by who signed it and when the connection opened.
type Waiting = BTreeMap<(SubscriberId, u64), Receipt>;

/// Those that the tracker has not heard of.
#[derive(Debug, Default)]
pub(super) struct Receipts(Mutex<Waiting>);

impl Receipts {
    /// Those of a log: the tracker may have heard of some, and credits nothing twice.
    pub(super) fn of(words: &[SignedWord], now: u64) -> Self {
        let receipts = Receipts::default();
        for word in words {
            if let SignedWord::Receipt { downloader, receipt } = word
                && receipt.time.saturating_add(MAX_AGE) > now
            {
                receipts.add(*downloader, receipt.clone());
            }
        }
        receipts
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another one. It says what those before it in its connection said, and more.
    pub(super) fn add(&self, downloader: SubscriberId, receipt: Receipt) {
        let mut waiting = self.waiting();
        let place = waiting.entry((downloader, receipt.since)).or_insert_with(|| receipt.clone());
        if place.bytes < receipt.bytes {
            *place = receipt;
        }
        if waiting.len() > MAX_WAITING
            && let Some(oldest) = waiting.iter().min_by_key(|(_, receipt)| receipt.time).map(|(key, _)| *key)
        {
            waiting.remove(&oldest);
        }
    }

    /// Hands in what waits. What the tracker does not take now stays, unless it never will.
    pub(super) async fn hand_in(&self, tracker: &dyn Tracker) -> Result<(), String> {
        let mut together = TOGETHER;
        loop {
            let now = tracker.now();
            let batch: Vec<(SubscriberId, Receipt)> = {
                let mut waiting = self.waiting();
                waiting.retain(|_, receipt| receipt.time.saturating_add(MAX_AGE) > now);
                // The older connection of two first: the tracker looks at none before its newest.
                waiting.iter().take(together).map(|((id, _), receipt)| (*id, receipt.clone())).collect()
            };
            if batch.is_empty() {
                return Ok(());
            }
            match tracker.receipts(&batch).await {
                Ok(credited) => {
                    tracing::debug!(receipts = batch.len(), credited, "receipts were handed in");
                }
                // One of them: the others are not to be lost for it.
                Err(ReceiptError::Never(_)) if batch.len() > 1 => {
                    together = 1;
                    continue;
                }
                Err(ReceiptError::Never(error)) => {
                    tracing::warn!(downloader = %batch[0].0, error, "the tracker does not take a receipt");
                }
                Err(ReceiptError::Now(error)) => return Err(error),
            }
            let mut waiting = self.waiting();
            for (id, receipt) in batch {
                // A later one may have come meanwhile.
                if waiting.get(&(id, receipt.since)) == Some(&receipt) {
                    waiting.remove(&(id, receipt.since));
                }
            }
        }
    }
}

/// Hands in what has come, now and then, until the node stops.
pub(super) async fn hand_in(receipts: Arc<Receipts>, tracker: Arc<dyn Tracker>, stop: watch::Receiver<bool>) {
    let stop = stopping(stop);
    tokio::pin!(stop);
    let mut wait = INTERVAL;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = &mut stop => return,
        }
        let handed = tokio::select! {
            handed = receipts.hand_in(&*tracker) => handed,
            () = &mut stop => return,
        };
        wait = match handed {
            Ok(()) => INTERVAL,
            Err(error) => {
                tracing::debug!(error, "receipts have to wait");
                (wait * 2).min(LAST_INTERVAL)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::tracker::{Announce, AnnounceReply, BoxFuture, KeyError, ReceiptError as Refused};

    fn receipt(since: u64, bytes: u64) -> Receipt {
        Receipt { since, bytes, pieces: 1, time: 1_000_000 + bytes, signature: [1; 64] }
    }

    /// Takes receipts, or not.
    #[derive(Default)]
    struct Taker {
        taken: Mutex<Vec<(SubscriberId, Receipt)>>,
        refuses: Mutex<Option<Refused>>,
        /// The connection whose receipt is not what the tracker takes.
        forged: Mutex<Option<u64>>,
    }

    impl Tracker for Taker {
        fn announce<'a>(&'a self, _: &'a Announce) -> BoxFuture<'a, Result<AnnounceReply, String>> {
            Box::pin(async { Err("not asked".to_owned()) })
        }

        fn rekeys<'a>(
            &'a self,
            _: &'a [u8],
            _: u64,
            _: &'a [u32],
        ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
            Box::pin(async { Err(KeyError::Retired) })
        }

        fn encryption_keys<'a>(
            &'a self,
            _: &'a [u8],
            _: &'a [u32],
        ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
            Box::pin(async { Err(KeyError::Retired) })
        }

        fn receipts<'a>(
            &'a self,
            receipts: &'a [(SubscriberId, Receipt)],
        ) -> BoxFuture<'a, Result<u64, Refused>> {
            Box::pin(async move {
                if let Some(refused) = self.refuses.lock().unwrap().take() {
                    return Err(refused);
                }
                let forged = *self.forged.lock().unwrap();
                if receipts.iter().any(|(_, receipt)| Some(receipt.since) == forged) {
                    return Err(Refused::Never("forged".to_owned()));
                }
                self.taken.lock().unwrap().extend_from_slice(receipts);
                Ok(1)
            })
        }

        fn now(&self) -> u64 {
            1_000_000
        }
    }

    #[tokio::test]
    async fn the_last_receipt_of_each_connection_is_handed_in_once() {
        let (a, b) = (SubscriberId([1; 32]), SubscriberId([2; 32]));
        let word = |downloader, receipt| SignedWord::Receipt { downloader, receipt };
        let old = Receipt { time: 1_000_000 - MAX_AGE, ..receipt(1, 9) };
        let words = [word(a, receipt(5, 10)), word(a, receipt(5, 30)), word(a, receipt(5, 20)), word(b, old)];
        let receipts = Receipts::of(&words, 1_000_000);
        receipts.add(a, receipt(8, 7));
        receipts.add(b, receipt(6, 1));
        let taker = Taker::default();
        *taker.refuses.lock().unwrap() = Some(Refused::Now("away".to_owned()));
        assert!(receipts.hand_in(&taker).await.is_err());
        receipts.hand_in(&taker).await.unwrap();
        let taken = taker.taken.lock().unwrap().clone();
        assert_eq!(taken, [(a, receipt(5, 30)), (a, receipt(8, 7)), (b, receipt(6, 1))]);
        // One that the tracker will never take does not keep others from it.
        *taker.forged.lock().unwrap() = Some(9);
        receipts.add(b, receipt(9, 2));
        receipts.add(b, receipt(10, 3));
        receipts.hand_in(&taker).await.unwrap();
        assert_eq!(taker.taken.lock().unwrap()[3..], [(b, receipt(10, 3))]);
        assert!(receipts.waiting().is_empty());
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let receipts = Receipts::default();
        for n in 0..MAX_WAITING as u64 + 10 {
            receipts.add(SubscriberId([1; 32]), receipt(n, n));
        }
        let waiting = receipts.waiting();
        assert_eq!((waiting.len(), waiting.keys().next().unwrap().1), (MAX_WAITING, 10));
    }
}
