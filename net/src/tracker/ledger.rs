//! The ledger: who sent how much, by the signed words of those who got it.
//!
//! A receipt says how many bytes came in one connection so far. What the one before it said is subtracted, so that it counts once,
//! however often it is shown; receipts of connections before the newest count for nothing. Nothing is credited beyond the pieces for
//! which keys were made between the two, and nobody's receipts are good for more than twice the torrent, for nobody needs more.
//!
//! Changes are gathered in memory and written once a second: a kill loses the last second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};
use swarmseal_core::{SubscriberId, TorrentId};

use super::admin::{Page, bad, page_length, run};
use super::calls::{Body, Shared, in_session};
use super::clock;
use super::metrics::count;
use super::records::{BalanceRecord, PairRecord};
use super::refusal::Refusal;
use super::sessions::Session;
use super::state::{Torrent, Tracker};
use super::store::{Listed, Pair, Store, StoreError};
use crate::wire::api::{ApiError, Credited, MAX_RECEIPTS, Receipts, SignedReceipt};
use crate::wire::seal::{Parties, Receipt};

/// Receipts that are older are refused, and what is between two who were silent for so long is forgotten.
const MAX_AGE: u64 = 7 * 24 * 3600;
/// Seconds by which the clock of who signs a receipt may be off.
const MAX_SKEW: u64 = 600;
/// Pairs that are remembered: about 200 bytes each.
const MAX_PAIRS: u64 = 1 << 20;
/// Pairs looked at in one sweep.
const SWEPT: usize = 20_000;
/// How often a downloader may have got the torrent.
const MOST: u64 = 2;

/// What has changed and is not written yet, over what the store has.
#[derive(Default)]
pub(super) struct Ledger {
    state: Mutex<Gathered>,
    /// Held while something is written: one at a time.
    writing: Mutex<()>,
}

#[derive(Default)]
struct Gathered {
    fresh: Changes,
    /// On its way to the disk.
    leaving: Arc<Changes>,
    /// Where the next sweep goes on.
    swept: Option<Pair>,
}

#[derive(Clone, Default)]
struct Changes {
    balances: HashMap<SubscriberId, BalanceRecord>,
    pairs: HashMap<Pair, PairRecord>,
}

impl Gathered {
    fn balance(&self, store: &Store, id: &SubscriberId) -> Result<BalanceRecord, StoreError> {
        match self.fresh.balances.get(id).or_else(|| self.leaving.balances.get(id)) {
            Some(balance) => Ok(*balance),
            None => store.balance(id),
        }
    }

    /// None where there is no room for another.
    fn pair(&self, store: &Store, pair: &Pair) -> Result<Option<PairRecord>, StoreError> {
        if let Some(record) = self.fresh.pairs.get(pair).or_else(|| self.leaving.pairs.get(pair)) {
            return Ok(Some(*record));
        }
        if let Some(record) = store.pair(pair)? {
            return Ok(Some(record));
        }
        let count = store.pairs()? + (self.fresh.pairs.len() + self.leaving.pairs.len()) as u64;
        Ok((count < MAX_PAIRS).then(PairRecord::default))
    }
}

impl Ledger {
    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keys were made for so many bytes of pieces. To itself: nothing is sent. Blocks.
    pub(super) fn keyed(
        &self,
        store: &Store,
        torrent: &Torrent,
        (uploader, downloader): Pair,
        pieces: usize,
        now: u64,
    ) -> Result<(), StoreError> {
        if uploader == downloader {
            return Ok(());
        }
        let bytes = pieces as u64 * u64::from(torrent.piece_length);
        let mut gathered = self.gathered();
        let mut balance = gathered.balance(store, &downloader)?;
        balance.keyed = balance.keyed.saturating_add(bytes);
        let pair = gathered.pair(store, &(uploader, downloader))?;
        gathered.fresh.balances.insert(downloader, balance);
        if let Some(mut pair) = pair {
            // Who asks again and again is not entitled to more.
            pair.keyed = pair.keyed.saturating_add(bytes).min(MOST * torrent.length());
            pair.touched = now;
            gathered.fresh.pairs.insert((uploader, downloader), pair);
        }
        Ok(())
    }

    /// Credits a receipt that was checked; how many bytes. Blocks.
    fn credit(
        &self,
        store: &Store,
        torrent: &Torrent,
        (uploader, downloader): Pair,
        receipt: &Receipt,
        now: u64,
    ) -> Result<u64, StoreError> {
        let mut gathered = self.gathered();
        let Some(mut pair) = gathered.pair(store, &(uploader, downloader))? else { return Ok(0) };
        let fresh = match receipt.since.cmp(&pair.since) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => receipt.bytes.saturating_sub(pair.bytes),
            std::cmp::Ordering::Greater => receipt.bytes,
        };
        if fresh == 0 {
            return Ok(0);
        }
        let mut to = gathered.balance(store, &downloader)?;
        let keyed = pair.keyed.saturating_sub(pair.credited);
        let needed = (MOST * torrent.length()).saturating_sub(to.got);
        let credited = fresh.min(keyed).min(needed);
        (pair.since, pair.bytes, pair.touched) = (receipt.since, receipt.bytes, now);
        pair.credited += credited;
        to.got += credited;
        gathered.fresh.balances.insert(downloader, to);
        let mut from = gathered.balance(store, &uploader)?;
        from.sent = from.sent.saturating_add(credited);
        gathered.fresh.balances.insert(uploader, from);
        gathered.fresh.pairs.insert((uploader, downloader), pair);
        Ok(credited)
    }

    /// What a subscriber or seed sent and got. Blocks.
    pub(super) fn balance(&self, store: &Store, id: &SubscriberId) -> Result<BalanceRecord, StoreError> {
        self.gathered().balance(store, id)
    }

    /// Writes what has changed. What cannot be written is tried again with the next. Blocks.
    pub(super) fn write(&self, store: &Store) -> Result<(), StoreError> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let leaving = {
            let mut gathered = self.gathered();
            if gathered.fresh.balances.is_empty() && gathered.fresh.pairs.is_empty() {
                return Ok(());
            }
            gathered.leaving = Arc::new(std::mem::take(&mut gathered.fresh));
            gathered.leaving.clone()
        };
        let written = store.put_ledger(leaving.balances.iter(), leaving.pairs.iter());
        let mut gathered = self.gathered();
        gathered.leaving = Arc::default();
        if written.is_err() {
            // What came meanwhile was made of it.
            let Changes { balances, pairs } = &*leaving;
            for (id, balance) in balances {
                gathered.fresh.balances.entry(*id).or_insert(*balance);
            }
            for (pair, record) in pairs {
                gathered.fresh.pairs.entry(*pair).or_insert(*record);
            }
        }
        written
    }

    /// Forgets some of those who have been silent for long. Blocks.
    pub(super) fn sweep(&self, store: &Store, now: u64) -> Result<(), StoreError> {
        let after = self.gathered().swept;
        let last = store.forget_pairs(after, SWEPT, now.saturating_sub(MAX_AGE + MAX_SKEW))?;
        self.gathered().swept = last;
        Ok(())
    }
}

/// `POST /receipts`
pub(super) async fn receipts(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, take).await
}

fn take(tracker: &Tracker, session: &Session, request: &Receipts) -> Result<Credited, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    tracker.member_of(session, &torrent.id)?;
    if !(1..=MAX_RECEIPTS).contains(&request.receipts.len()) {
        return Err(ApiError::BadReceipt.into());
    }
    let now = clock::now();
    // All are looked at before any counts.
    for receipt in &request.receipts {
        check(tracker, session, &torrent.id, receipt, now)?;
    }
    let mut credited = 0;
    for SignedReceipt { downloader, receipt } in &request.receipts {
        let pair = (session.id, *downloader);
        credited += tracker.ledger.credit(&tracker.store, &torrent, pair, receipt, now)?;
    }
    count(&tracker.counters.credited_bytes, credited);
    let BalanceRecord { sent, got, .. } = tracker.ledger.balance(&tracker.store, &session.id)?;
    Ok(Credited { credited, got, now, sent })
}

/// Errors: [`ApiError::BadReceipt`].
fn check(
    tracker: &Tracker,
    session: &Session,
    torrent: &TorrentId,
    SignedReceipt { downloader, receipt }: &SignedReceipt,
    now: u64,
) -> Result<(), Refusal> {
    let timely = receipt.since <= receipt.time
        && receipt.time <= now.saturating_add(MAX_SKEW)
        && receipt.time >= now.saturating_sub(MAX_AGE);
    // Nobody sends to himself.
    if !timely || *downloader == session.id {
        return Err(ApiError::BadReceipt.into());
    }
    let signer = tracker.store.subscriber(downloader)?.filter(|signer| signer.torrent_id == *torrent);
    let signer = signer.ok_or(ApiError::BadReceipt)?;
    let parties = Parties { torrent_id: *torrent, uploader: session.id, downloader: *downloader };
    Ok(receipt.verify(&signer.identity, &parties).map_err(|_| ApiError::BadReceipt)?)
}

/// `GET /admin/ledger?torrent_id=&after=&limit=`
pub(super) async fn list(
    State(tracker): State<Arc<Tracker>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Response {
    let page = page.map(|Query(page)| page).map_err(|rejection| bad(rejection.body_text()));
    run(tracker, page, |tracker, page| {
        let torrent = tracker.torrent(&TorrentId(page.torrent_id.0))?;
        let limit = page_length(page.limit)?;
        let after = page.after.map(|id| SubscriberId(id.0));
        let found = tracker.store.subscribers_of(&torrent.id, after, limit)?;
        let next = (found.len() == limit).then(|| found.last().map(|listed| listed.id.to_string())).flatten();
        let mut list: Vec<Value> = Vec::with_capacity(found.len());
        for Listed { id, .. } in found {
            let BalanceRecord { got, keyed, sent } = tracker.ledger.balance(&tracker.store, &id)?;
            let ratio = (got > 0).then(|| sent as f64 / got as f64);
            list.push(json!({
                "subscriber": id.to_string(),
                "sent": sent,
                "got": got,
                "keyed": keyed,
                "ratio": ratio,
            }));
        }
        Ok(json!({ "subscribers": list, "next": next }))
    })
    .await
}
