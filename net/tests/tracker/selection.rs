//! Torrents some of whose pieces are clear: there is no key of those.

use std::sync::Arc;

use swarmseal::tracker_client::Terms;
use swarmseal::wire::api::{ApiError, NewHashes, PersonalKeysRequest};
use swarmseal::wire::license::License;
use swarmseal::wire::metainfo::Metainfo;
use swarmseal::wire::selection::Selection;
use swarmseal_core::{DecryptionKey, EncryptionKey, Profile, decrypt_piece, encrypt_piece};

use super::{Device, PIECES, Published, Running, code, metainfo, soon};

/// The clear ones.
const CLEAR: [u32; 2] = [1, 3];

async fn partly_clear(tracker: &Running) -> Published {
    let full = metainfo(tracker.authority().await, Profile::Sealed);
    let mut info = full.info;
    let bits: u8 = (0..PIECES).filter(|piece| !CLEAR.contains(piece)).map(|piece| 0x80 >> piece).sum();
    info.seal.selection = Some(Arc::new(Selection::from_bytes(&[bits], PIECES).unwrap()));
    info.seal.witness = (0..PIECES)
        .zip(&*info.seal.witness)
        .filter(|(piece, _)| !CLEAR.contains(piece))
        .map(|(_, &h)| h)
        .collect();
    Published::of(tracker, Metainfo::new(full.authority, info).unwrap()).await
}

#[tokio::test]
async fn no_call_gives_a_key_of_a_clear_piece() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = partly_clear(&tracker).await;
    let torrent = published.id();
    let (j, _) = Device::subscribed(&tracker, &published).await;
    let (k, _) = Device::subscribed(&tracker, &published).await;
    let (seed, j_client) = (published.seed(&tracker), j.client(&tracker));
    let (to_seed, to_j) =
        (k.ticket(&published, published.seed_id(), soon()), k.ticket(&published, j.id, soon()));
    for pieces in [&[1][..], &[0, 3], &[2, 1, 0]] {
        assert_eq!(code(seed.seed_keys(torrent, &to_seed, pieces).await), ApiError::BadPiece);
        assert_eq!(code(j_client.rekey(torrent, 1, &to_j, pieces).await), ApiError::BadPiece);
        assert_eq!(code(j_client.witness(torrent, 1, pieces).await), ApiError::BadPiece);
        let request = PersonalKeysRequest {
            torrent_id: torrent,
            epoch: 1,
            info_hash: [1; 20],
            pieces: pieces.to_vec(),
        };
        assert_eq!(code(j_client.personal_keys(&request).await), ApiError::BadPiece);
        assert_eq!(code(j_client.pull_keys(&request).await), ApiError::BadPiece);
        assert_eq!(code(seed.personal_keys(&request).await), ApiError::BadPiece);
    }
    assert!(seed.seed_keys(torrent, &to_seed, &[0, 2]).await.is_ok());
    assert!(j_client.rekey(torrent, 1, &to_j, &[2]).await.is_ok());
}

#[tokio::test]
async fn a_license_has_the_keys_of_sealed_pieces_and_hashes_come_without_keys_of_clear_ones() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = partly_clear(&tracker).await;
    let (params, torrent) = (published.params(), published.id());
    let width = params.group().bytes();
    let (k, _) = Device::subscribed(&tracker, &published).await;
    let voucher = tracker.admin().create_voucher(published.seal(), Terms::default()).await.unwrap();
    let envelope = k.client(&tracker).license(torrent, Some(&voucher)).await.unwrap();
    let license =
        License::open_for(&envelope, &k.identity, &published.metainfo, &published.license_key(), &k.id)
            .unwrap();
    let sealed: Vec<u32> = (0..PIECES).filter(|piece| !CLEAR.contains(piece)).collect();
    assert_eq!(license.keys.len(), sealed.len() * width);

    // A seed gets zeros in the place of keys that nobody needs.
    let seed = published.seed(&tracker);
    k.client(&tracker).hashes(torrent, PIECES, 0, true).await.unwrap();
    let job = seed.work(torrent).await.unwrap().unwrap();
    assert_eq!((job.subscriber, job.first, job.keys.len()), (k.id, 0, PIECES as usize * width));
    for piece in 0..PIECES {
        let key = &job.keys[piece as usize * width..][..width];
        assert_eq!(key.iter().all(|&byte| byte == 0), CLEAR.contains(&piece), "piece {piece}");
    }
    // The keys of the others are those that the license undoes.
    for (place, &piece) in sealed.iter().enumerate() {
        let plain: Vec<u8> = (0..width).map(|at| (at % 100) as u8 + 1).collect();
        let mut block = plain.clone();
        let key = &job.keys[piece as usize * width..][..width];
        encrypt_piece(params, &EncryptionKey::from_bytes(params, key).unwrap(), &mut block).unwrap();
        assert_ne!(block, plain);
        let key = DecryptionKey::from_bytes(params, &license.keys[place * width..][..width]).unwrap();
        decrypt_piece(params, &k.secret, &key, &mut block).unwrap();
        assert_eq!(block, plain);
    }
    let hashes = (0..PIECES as u8).flat_map(|piece| [piece; 20]).collect();
    let hashes = NewHashes { torrent_id: torrent, subscriber: k.id, epoch: 1, first: 0, hashes };
    seed.add_hashes(&hashes).await.unwrap();
    assert!(seed.work(torrent).await.unwrap().is_none());
    let (_, all) = k.client(&tracker).hashes(torrent, PIECES, 0, false).await.unwrap();
    assert_eq!(all.len(), PIECES as usize);
}
