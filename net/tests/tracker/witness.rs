//! The witness: keys by which a subscriber checks what it receives, and the secret that they come from.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use swarmseal::wire::api::MAX_WITNESS_PIECES;
use swarmseal::wire::keyfile::Passphrase;
use swarmseal_core::{WitnessKey, check_witness};
use zeroize::Zeroizing;

use super::*;

/// A subscriber's ciphertext of a piece in an epoch, as the seed sends it.
async fn sealed_piece(
    tracker: &Running,
    published: &Published,
    device: &Device,
    epoch: u64,
    piece: u32,
) -> Vec<u8> {
    let ticket = device.signed(Ticket { epoch, ..device.ticket(published, published.seed_id(), soon()) });
    let keys = published.seed(tracker).seed_keys(published.id(), &ticket, &[piece]).await.unwrap();
    let key = EncryptionKey::from_bytes(published.params(), &keys.keys).unwrap();
    let mut piece = packaged();
    encrypt_piece(published.params(), &key, &mut piece).unwrap();
    piece
}

/// A device's witness keys, one a piece.
async fn witness_keys(
    tracker: &Running,
    published: &Published,
    device: &Device,
    epoch: u64,
    pieces: &[u32],
) -> Vec<Vec<u8>> {
    let answer = device.client(tracker).witness(published.id(), epoch, pieces).await.unwrap();
    assert_eq!(answer.epoch, epoch);
    let width = published.params().group().bytes();
    assert_eq!(answer.keys.len(), pieces.len() * width);
    answer.keys.chunks(width).map(<[u8]>::to_vec).collect()
}

/// Whether a witness key says that the ciphertext of a piece is right.
fn passes(published: &Published, piece: u32, ciphertext: &[u8], key: &[u8]) -> bool {
    let seal = &published.metainfo.info.seal;
    let key = WitnessKey::from_bytes(&seal.params, key).unwrap();
    let expected = seal.witness_hash(piece).unwrap();
    let mut scratch = vec![0; ciphertext.len()];
    check_witness(&seal.params, &key, expected, ciphertext, &mut scratch).is_ok()
}

#[tokio::test]
async fn a_key_checks_its_piece_subscriber_and_epoch_alone() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let (j, _) = Device::subscribed(&tracker, &published).await;
    let (k, _) = Device::subscribed(&tracker, &published).await;
    tracker.admin().begin_epoch(Some(published.id())).await.unwrap();
    let (of_j, of_k, newer) = (
        witness_keys(&tracker, &published, &j, 1, &[3, 0, 1]).await,
        witness_keys(&tracker, &published, &k, 1, &[0]).await,
        witness_keys(&tracker, &published, &j, 2, &[0]).await,
    );
    for (piece, key) in [(3, &of_j[0]), (0, &of_j[1]), (1, &of_j[2])] {
        let right = sealed_piece(&tracker, &published, &j, 1, piece).await;
        assert!(passes(&published, piece, &right, key), "{piece}");
        // As the tracker gives it with its tables kept, too.
        assert_eq!(witness_keys(&tracker, &published, &j, 1, &[piece]).await, std::slice::from_ref(key));
    }
    let right = sealed_piece(&tracker, &published, &j, 1, 0).await;
    for (other, what) in [(&of_k[0], "subscriber"), (&of_j[2], "piece"), (&newer[0], "epoch")] {
        assert!(!passes(&published, 0, &right, other), "another {what}'s");
    }
    let moved = sealed_piece(&tracker, &published, &j, 2, 0).await;
    assert!(passes(&published, 0, &moved, &newer[0]));
    let mut wrong = right.clone();
    wrong[12_345] ^= 1;
    assert!(!passes(&published, 0, &wrong, &of_j[1]));

    let text = reqwest::get(format!("{}/metrics", tracker.url)).await.unwrap().text().await.unwrap();
    for line in ["witness_calls_total 6", "witness_keys_total 8", "call_seconds_count{call=\"witness\"} 6"] {
        assert!(text.contains(&format!("swarmseal_tracker_{line}\n")), "{line}\n{text}");
    }
    tracker.stop().await;
}

#[tokio::test]
async fn keys_are_the_subscriber_s_own_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { keys_per_day: 2, ..Config::new(directory.path()) };
    let tracker = Running::start_with(config).await;
    let (published, other) = (Published::new(&tracker).await, Published::new(&tracker).await);
    let torrent = published.id();
    let (j, _) = Device::subscribed(&tracker, &published).await;
    let (k, _) = Device::subscribed(&tracker, &published).await;
    let client = j.client(&tracker);
    let refused = async |epoch, pieces: &[u32]| code(client.witness(torrent, epoch, pieces).await);
    assert_eq!(refused(1, &[]).await, ApiError::BadPiece);
    assert_eq!(refused(1, &[0, PIECES]).await, ApiError::BadPiece);
    assert_eq!(refused(1, &[0; MAX_WITNESS_PIECES + 1]).await, ApiError::BadPiece);
    assert_eq!(refused(2, &[0]).await, ApiError::UnknownEpoch);
    assert_eq!(code(client.witness(other.id(), 1, &[0]).await), ApiError::WrongTorrent);
    assert_eq!(code(client.witness(TorrentId([9; 32]), 1, &[0]).await), ApiError::UnknownTorrent);
    assert_eq!(code(published.seed(&tracker).witness(torrent, 1, &[0]).await), ApiError::WrongRole);
    let client_of_none = tracker.client().witness(torrent, 1, &[0]).await;
    assert!(client_of_none.is_err());

    // Twice each; what was refused was not counted, and re-keys have budgets of their own, as have others and other epochs.
    client.witness(torrent, 1, &[0, 1]).await.unwrap();
    client.witness(torrent, 1, &[1, 0]).await.unwrap();
    assert_eq!(refused(1, &[2, 0]).await, ApiError::Rate);
    client.witness(torrent, 1, &[2, 2]).await.unwrap();
    let to_itself = j.ticket(&published, j.id, soon());
    client.rekey(torrent, 1, &to_itself, &[0, 0]).await.unwrap();
    assert_eq!(code(client.rekey(torrent, 1, &to_itself, &[0]).await), ApiError::Rate);
    k.client(&tracker).witness(torrent, 1, &[0]).await.unwrap();
    tracker.admin().begin_epoch(Some(torrent)).await.unwrap();
    client.witness(torrent, 2, &[0]).await.unwrap();
    assert_eq!(refused(1, &[0]).await, ApiError::Rate);

    tracker.admin().retire_epochs(Some(torrent), 2).await.unwrap();
    assert_eq!(refused(1, &[3]).await, ApiError::RetiredEpoch);
    tracker.admin().revoke(j.id).await.unwrap();
    assert_eq!(refused(2, &[3]).await, ApiError::Revoked);
    k.client(&tracker).witness(torrent, 2, &[3]).await.unwrap();
    tracker.stop().await;
}

#[tokio::test]
async fn a_call_takes_as_many_pieces_as_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start_with(Config { keys_per_day: 0, ..Config::new(directory.path()) }).await;
    let published = Published::new(&tracker).await;
    let (device, _) = Device::subscribed(&tracker, &published).await;
    let pieces: Vec<u32> = (0..MAX_WITNESS_PIECES as u32).map(|at| at % PIECES).collect();
    let keys = witness_keys(&tracker, &published, &device, 1, &pieces).await;
    for (at, key) in keys.iter().enumerate() {
        assert_eq!(key, &keys[at % PIECES as usize], "{at}");
    }
    tracker.stop().await;
}

fn secret_file(directory: &Path, published: &Published) -> PathBuf {
    directory.join("witnesses").join(format!("{}.key", published.id()))
}

#[tokio::test]
async fn the_secret_is_kept_apart_and_never_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let (device, _) = Device::subscribed(&tracker, &published).await;
    let (path, seed_key) = (secret_file(directory.path(), &published), published.seed_key.public());
    let secret = *witness_secret(&published.id()).as_bytes();
    let kept = || {
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", hex::encode(secret)));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    };
    kept();
    let before = witness_keys(&tracker, &published, &device, 1, &[0, 1]).await;
    let other = WitnessSecret::from_bytes([8; 32]);
    let admin = tracker.admin();
    tracker.register(&published.metainfo, &seed_key).await.unwrap();
    let refused = admin.register_torrent(&published.metainfo, &seed_key, &other).await.unwrap_err();
    assert!(refused.to_string().contains("another witness secret"), "{refused}");
    assert_eq!(code::<()>(Err(refused)), ApiError::BadRequest);
    kept();
    // Also where its file is gone; the right one is put back.
    std::fs::remove_file(&path).unwrap();
    assert!(admin.register_torrent(&published.metainfo, &seed_key, &other).await.is_err());
    assert!(!path.exists());
    tracker.register(&published.metainfo, &seed_key).await.unwrap();
    kept();
    assert_eq!(witness_keys(&tracker, &published, &device, 1, &[0, 1]).await, before);
    let audit = admin.audit(None, 100).await.unwrap().to_string();
    for secret in [secret, *other.as_bytes()] {
        assert!(!audit.contains(&hex::encode(secret)), "{audit}");
    }
    tracker.stop().await;
    let store = std::fs::read(directory.path().join("tracker.redb")).unwrap();
    let hex = hex::encode(secret);
    assert!(!store.windows(32).any(|window| window == secret));
    assert!(!store.windows(64).any(|window| window == hex.as_bytes()));

    let tracker = Running::start(directory.path()).await;
    assert_eq!(witness_keys(&tracker, &published, &device, 1, &[0, 1]).await, before);
    tracker.stop().await;
    let start = async || {
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::new(directory.path()) };
        Server::bind(config).await.err().expect("it must not start")
    };
    std::fs::write(&path, format!("{}\n", hex::encode([8; 32]))).unwrap();
    let error = start().await;
    let name = format!("witness {}", published.id());
    assert!(matches!(&error, TrackerError::OtherKey { name: found } if *found == name), "{error}");
    std::fs::remove_file(&path).unwrap();
    let error = start().await;
    assert!(matches!(&error, TrackerError::MissingKey { path: missing } if *missing == path), "{error}");
}

#[tokio::test]
async fn a_secret_whose_torrent_was_not_written_down_serves_the_next_registration() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let metainfo = metainfo(tracker.authority().await, Profile::Sealed);
    tracker.stop().await;
    // As a tracker leaves it that is killed in between.
    let torrent = metainfo.info.seal.torrent_id;
    let path = directory.path().join("witnesses").join(format!("{torrent}.key"));
    std::fs::write(&path, format!("{}\n", hex::encode(witness_secret(&torrent).as_bytes()))).unwrap();
    let tracker = Running::start(directory.path()).await;
    let seed_key = SigningKey::generate(&mut UnwrapErr(SysRng)).public();
    let other = WitnessSecret::from_bytes([8; 32]);
    assert!(tracker.admin().register_torrent(&metainfo, &seed_key, &other).await.is_err());
    tracker.register(&metainfo, &seed_key).await.unwrap();
    tracker.stop().await;
    Running::start(directory.path()).await.stop().await;
}

#[tokio::test]
async fn the_passphrase_of_the_master_keys_seals_witness_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let config = |text: &str| Config {
        master_passphrase: Passphrase::new(Zeroizing::new(text.to_owned())),
        listen: "127.0.0.1:0".parse().unwrap(),
        ..Config::new(directory.path())
    };
    // Begun in clear.
    let tracker = Running::start(directory.path()).await;
    let first = Published::new(&tracker).await;
    let (device, _) = Device::subscribed(&tracker, &first).await;
    let before = witness_keys(&tracker, &first, &device, 1, &[0, 1]).await;
    tracker.stop().await;
    let tracker = Running::start_with(config("correct horse")).await;
    let second = Published::new(&tracker).await;
    for published in [&first, &second] {
        let path = secret_file(directory.path(), published);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("swarmseal key file v1: sealed witness"), "{text}");
        assert!(!text.contains(&hex::encode(witness_secret(&published.id()).as_bytes())), "{text}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    tracker.register(&second.metainfo, &second.seed_key.public()).await.unwrap();
    let other = WitnessSecret::from_bytes([8; 32]);
    let seed_key = second.seed_key.public();
    assert!(tracker.admin().register_torrent(&second.metainfo, &seed_key, &other).await.is_err());
    tracker.stop().await;
    let tracker = Running::start_with(config("correct horse")).await;
    assert_eq!(witness_keys(&tracker, &first, &device, 1, &[0, 1]).await, before);
    tracker.stop().await;
}
