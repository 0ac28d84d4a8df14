//! What the tracker counts of the keys that it gives out: from seeds, from peers, to and from each subscriber.

use serde_json::{Value, json};
use swarmseal::wire::api::PersonalKeysRequest;

use super::*;

/// What the hours of a torrent come to: from seeds and from peers. A test may run over the end of an hour.
async fn hours(tracker: &Running, torrent: TorrentId) -> (u64, u64) {
    let page = tracker.admin().offload(torrent, None).await.unwrap();
    assert!((&page["piece_length"], &page["next"]) == (&16384.into(), &Value::Null), "{page}");
    let hours = page["hours"].as_array().unwrap();
    assert!(
        hours.len() <= 2 && hours.iter().all(|hour| hour["hour"].as_u64().unwrap() % 3600 == 0),
        "{page}"
    );
    let sum = |field: &str| hours.iter().map(|hour| hour[field].as_u64().unwrap()).sum();
    (sum("from_seeds"), sum("from_peers"))
}

/// Pieces keyed to and from a subscriber.
async fn keyed(tracker: &Running, torrent: TorrentId, id: SubscriberId) -> (u64, u64) {
    let page = tracker.admin().subscribers(torrent, None).await.unwrap();
    let row = page["subscribers"].as_array().unwrap().iter().find(|row| row["subscriber"] == id.to_string());
    let number = |field: &str| row.unwrap()[field].as_u64().unwrap();
    for [pieces, bytes] in [["keyed_to", "keyed_to_bytes"], ["keyed_from", "keyed_from_bytes"]] {
        assert_eq!(number(bytes), 16384 * number(pieces));
    }
    (number("keyed_to"), number("keyed_from"))
}

#[tokio::test]
async fn keys_count_for_who_sends_and_who_receives_and_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let (published, other) = (Published::new(&tracker).await, Published::new(&tracker).await);
    let torrent = published.id();
    let (j, _) = Device::subscribed(&tracker, &published).await;
    let (k, subscribed) = Device::subscribed(&tracker, &published).await;
    let seed = published.seed(&tracker);
    assert_eq!((hours(&tracker, torrent).await, keyed(&tracker, torrent, k.id).await), ((0, 0), (0, 0)));

    let from_seed = j.ticket(&published, published.seed_id(), soon());
    seed.seed_keys(torrent, &from_seed, &[0, 1, 2, 3]).await.unwrap();
    let from_j = k.ticket(&published, j.id, soon());
    j.client(&tracker).rekey(torrent, 1, &from_j, &[2, 0]).await.unwrap();
    assert_eq!(hours(&tracker, torrent).await, (4, 2));
    assert_eq!(keyed(&tracker, torrent, j.id).await, (4, 2));
    assert_eq!(keyed(&tracker, torrent, k.id).await, (2, 0));
    // What somebody moves from one of its own epochs to the next goes over no wire, and what is refused neither.
    let own = j.ticket(&published, j.id, soon());
    j.client(&tracker).rekey(torrent, 1, &own, &[0]).await.unwrap();
    assert_eq!(code(j.client(&tracker).rekey(torrent, 1, &from_j, &[PIECES]).await), ApiError::BadPiece);
    // Nor are keys for hashes.
    let (_, hashes) = hashes_of(&k, &tracker, &published).await;
    assert_eq!(hours(&tracker, torrent).await, (4, 2));

    // An ordinary client is its subscriber.
    let info_hash = PersonalTorrent { label: "a film", piece_length: 16384, hashes: &hashes }.info_hash();
    let client = Announce { info_hash, ..announce(&published, 8, 0) };
    tracker.client().announce(&subscribed.passkey, &client).await.unwrap();
    let request = PersonalKeysRequest { torrent_id: torrent, epoch: 1, info_hash, pieces: vec![1] };
    seed.personal_keys(&request).await.unwrap();
    j.client(&tracker).personal_keys(&request).await.unwrap();
    j.client(&tracker).pull_keys(&request).await.unwrap();
    assert_eq!(hours(&tracker, torrent).await, (5, 4));
    assert_eq!(keyed(&tracker, torrent, j.id).await, (5, 3));
    assert_eq!(keyed(&tracker, torrent, k.id).await, (4, 1));
    assert_eq!(hours(&tracker, other.id()).await, (0, 0));
    let metrics = tracker.client().metrics().await.unwrap();
    for line in ["keyed_from_seeds_total 5", "keyed_from_peers_total 4"] {
        assert!(metrics.contains(&format!("\nswarmseal_tracker_{line}\n")), "{metrics}");
    }
    tracker.stop().await;

    let tracker = Running::start(directory.path()).await;
    assert_eq!(hours(&tracker, torrent).await, (5, 4));
    assert_eq!(keyed(&tracker, torrent, k.id).await, (4, 1));
    published.seed(&tracker).seed_keys(torrent, &from_seed, &[3]).await.unwrap();
    assert_eq!(hours(&tracker, torrent).await, (6, 4));
    assert_eq!(keyed(&tracker, torrent, j.id).await, (6, 3));
    assert_eq!(tracker.admin().offload(torrent, Some(soon())).await.unwrap()["hours"], json!([]));
    let page = tracker.admin().read(&format!("offload?torrent_id={torrent}&limit=1")).await.unwrap();
    assert_eq!((page["hours"].as_array().unwrap().len(), &page["next"]), (1, &page["hours"][0]["hour"]));
    for bad in ["limit=0", "limit=1001", "after=-1", "more=1"] {
        let refused = tracker.admin().read(&format!("offload?torrent_id={torrent}&{bad}")).await;
        assert_eq!(code(refused), ApiError::BadRequest, "{bad}");
    }
    let nowhere = tracker.admin().offload(TorrentId([7; 32]), None).await;
    assert_eq!(code(nowhere), ApiError::UnknownTorrent);
    tracker.stop().await;
}
