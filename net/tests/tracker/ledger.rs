//! The ledger: what receipts are credited for, and what does not count however it is tried.

use serde_json::Value;
use swarmseal::wire::api::{MAX_RECEIPTS, Receipts, SignedReceipt};
use swarmseal::wire::seal::{Parties, Receipt};

use super::*;

/// Bytes of a piece.
const PIECE: u64 = 16384;

struct Swarm {
    tracker: Running,
    published: Published,
    _directory: tempfile::TempDir,
}

impl Swarm {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tracker = Running::start(directory.path()).await;
        let published = Published::new(&tracker).await;
        Swarm { tracker, published, _directory: directory }
    }

    async fn device(&self) -> Device {
        Device::subscribed(&self.tracker, &self.published).await.0
    }

    /// Lets j get re-keys to k for so many pieces.
    async fn key(&self, j: &Device, k: &Device, pieces: u32) {
        let ticket = k.ticket(&self.published, j.id, soon());
        let pieces: Vec<u32> = (0..pieces).collect();
        j.client(&self.tracker).rekey(self.published.id(), 1, &ticket, &pieces).await.unwrap();
    }

    /// What k says that it got from an uploader.
    fn receipt(&self, k: &Device, uploader: SubscriberId, bytes: u64, since: u64) -> SignedReceipt {
        let parties = Parties { torrent_id: self.published.id(), uploader, downloader: k.id };
        let times = (since, since + 5);
        let receipt = Receipt::sign(k.identity.signing_key(), &parties, (bytes, bytes / PIECE), times);
        SignedReceipt { downloader: k.id, receipt }
    }

    async fn hand_in(&self, j: &Device, receipts: &[SignedReceipt]) -> Result<u64, Error> {
        let receipts = Receipts { torrent_id: self.published.id(), receipts: receipts.to_vec() };
        j.client(&self.tracker).receipts(&receipts).await.map(|answer| answer.credited)
    }

    async fn row(&self, device: &Device) -> Value {
        let page = self.tracker.admin().ledger(self.published.id(), None).await.unwrap();
        let id = device.id.to_string();
        let rows = page["subscribers"].as_array().unwrap();
        rows.iter().find(|row| row["subscriber"] == id.as_str()).unwrap().clone()
    }

    async fn balance(&self, device: &Device) -> (u64, u64) {
        let row = self.row(device).await;
        (row["sent"].as_u64().unwrap(), row["got"].as_u64().unwrap())
    }
}

fn now() -> u64 {
    soon() - 3600
}

#[tokio::test]
async fn what_was_received_is_credited_and_outlives_a_restart() {
    let swarm = Swarm::new().await;
    let (j, k) = (swarm.device().await, swarm.device().await);
    assert_eq!(swarm.row(&j).await["ratio"], Value::Null);
    // The seed gives j the torrent, and j gives k three pieces of it.
    let ticket = j.ticket(&swarm.published, swarm.published.seed_id(), soon());
    let seed = swarm.published.seed(&swarm.tracker);
    seed.seed_keys(swarm.published.id(), &ticket, &[0, 1, 2, 3]).await.unwrap();
    let from_seed = swarm.receipt(&j, swarm.published.seed_id(), 4 * PIECE, now());
    let body = Receipts { torrent_id: swarm.published.id(), receipts: vec![from_seed] };
    assert_eq!(seed.receipts(&body).await.unwrap().credited, 4 * PIECE);
    swarm.key(&j, &k, 3).await;
    let receipts = [PIECE, 3 * PIECE].map(|bytes| swarm.receipt(&k, j.id, bytes, now()));
    assert_eq!(swarm.hand_in(&j, &receipts[..1]).await.unwrap(), PIECE);
    assert_eq!(swarm.hand_in(&j, &receipts).await.unwrap(), 2 * PIECE);
    let row = swarm.row(&j).await;
    assert_eq!((row["sent"].as_u64(), row["got"].as_u64()), (Some(3 * PIECE), Some(4 * PIECE)));
    assert_eq!(row["ratio"].as_f64(), Some(0.75));
    assert_eq!(swarm.row(&k).await["keyed"].as_u64(), Some(3 * PIECE));

    let Swarm { tracker, published, _directory } = swarm;
    tracker.stop().await;
    let swarm = Swarm { tracker: Running::start(_directory.path()).await, published, _directory };
    assert_eq!(swarm.row(&j).await, row);
    // Nor does it count again after it.
    assert_eq!(swarm.hand_in(&j, &receipts).await.unwrap(), 0);
    assert_eq!(swarm.balance(&j).await, (3 * PIECE, 4 * PIECE));
    swarm.tracker.stop().await;
}

#[tokio::test]
async fn replaying_receipts_gains_nothing() {
    let swarm = Swarm::new().await;
    let (j, k) = (swarm.device().await, swarm.device().await);
    swarm.key(&j, &k, 4).await;
    swarm.key(&j, &k, 4).await;
    let first = swarm.receipt(&k, j.id, 2 * PIECE, now() - 100);
    let second = swarm.receipt(&k, j.id, PIECE, now() - 50);
    assert_eq!(swarm.hand_in(&j, std::slice::from_ref(&first)).await.unwrap(), 2 * PIECE);
    // The same again, many times in one call, and beside the next connection's.
    assert_eq!(swarm.hand_in(&j, &vec![first.clone(); MAX_RECEIPTS]).await.unwrap(), 0);
    let both = [second.clone(), first.clone(), second.clone(), first.clone()];
    assert_eq!(swarm.hand_in(&j, &both).await.unwrap(), PIECE);
    // One of a connection before the newest, even one that says more.
    let late = swarm.receipt(&k, j.id, 4 * PIECE, now() - 100);
    assert_eq!(swarm.hand_in(&j, &[late, first]).await.unwrap(), 0);
    assert_eq!(swarm.balance(&j).await, (3 * PIECE, 0));
    assert_eq!(swarm.balance(&k).await, (0, 3 * PIECE));
    swarm.tracker.stop().await;
}

#[tokio::test]
async fn inflating_alone_gains_nothing() {
    let swarm = Swarm::new().await;
    let (j, k) = (swarm.device().await, swarm.device().await);
    swarm.key(&j, &k, 2).await;
    let good = swarm.receipt(&k, j.id, PIECE, now());
    let refused = async |receipt: SignedReceipt| {
        // A good one beside it does not count either: all or nothing.
        let refused = swarm.hand_in(&j, &[good.clone(), receipt]).await;
        assert_eq!(code(refused), ApiError::BadReceipt);
    };
    // More bytes under the same signature, another's word, one's own, and what was said to somebody else.
    let changed = Receipt { bytes: 9 * PIECE, ..good.receipt.clone() };
    refused(SignedReceipt { receipt: changed, ..good.clone() }).await;
    let changed = Receipt { since: good.receipt.since + 1, ..good.receipt.clone() };
    refused(SignedReceipt { receipt: changed, ..good.clone() }).await;
    refused(SignedReceipt { downloader: j.id, ..good.clone() }).await;
    refused(swarm.receipt(&j, j.id, PIECE, now())).await;
    let third = swarm.device().await;
    refused(swarm.receipt(&k, third.id, PIECE, now())).await;
    refused(SignedReceipt { downloader: SubscriberId([7; 32]), ..good.clone() }).await;
    // Of the future, and so old that nobody remembers whether it was credited.
    refused(swarm.receipt(&k, j.id, PIECE, now() + 3600)).await;
    refused(swarm.receipt(&k, j.id, PIECE, now() - 8 * 24 * 3600)).await;
    assert_eq!(code(swarm.hand_in(&j, &[]).await), ApiError::BadReceipt);
    assert_eq!(swarm.balance(&j).await, (0, 0));

    // A second subscription of one's own signs what it likes: without keys to it, nothing; with keys, what they are for.
    let own = swarm.device().await;
    let claim = |bytes, since| swarm.receipt(&own, j.id, bytes, since);
    assert_eq!(swarm.hand_in(&j, &[claim(1 << 40, now() - 90)]).await.unwrap(), 0);
    swarm.key(&j, &own, 2).await;
    assert_eq!(swarm.hand_in(&j, &[claim(1 << 41, now() - 80)]).await.unwrap(), 2 * PIECE);
    assert_eq!(swarm.hand_in(&j, &[claim(1 << 41, now() - 70)]).await.unwrap(), 0);
    // Asking for the same keys over and over ends at twice the torrent, and so does everybody together.
    for _ in 0..6 {
        swarm.key(&j, &own, PIECES).await;
        swarm.key(&third, &own, PIECES).await;
    }
    let whole = u64::from(PIECES) * PIECE;
    assert_eq!(swarm.hand_in(&j, &[claim(1 << 41, now() - 60)]).await.unwrap(), 2 * whole - 2 * PIECE);
    assert_eq!(swarm.hand_in(&third, &[swarm.receipt(&own, third.id, 1 << 41, now())]).await.unwrap(), 0);
    assert_eq!(swarm.balance(&own).await, (0, 2 * whole));
    // A peer that moves its own pieces sends nobody anything.
    swarm.key(&k, &k, PIECES).await;
    assert_eq!(swarm.row(&k).await["keyed"].as_u64(), Some(2 * PIECE));
    swarm.tracker.stop().await;
}
