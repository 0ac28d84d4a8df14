//! Sessions that the tracker does not keep, and passkeys that end at once.

use super::*;

#[tokio::test]
async fn any_number_of_sessions_keeps_nobody_out_and_a_restart_ends_none() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let (device, subscribed) = Device::subscribed(&tracker, &published).await;
    let (other, _) = Device::subscribed(&tracker, &published).await;
    // A patient flood: what it signs for one meeting may be sent again and again.
    let flood = device.client(&tracker);
    for _ in 0..300 {
        flood.session().await.unwrap();
    }
    let client = other.client(&tracker);
    client.passkey(published.id(), false).await.unwrap();
    let address = tracker.address;
    tracker.stop().await;
    let tracker = Running::start_at(directory.path(), address).await;
    // The same sessions: none is opened in this run.
    assert_eq!(flood.passkey(published.id(), false).await.unwrap(), subscribed.passkey);
    client.passkey(published.id(), false).await.unwrap();
    assert_eq!(tracker.admin().stats().await.unwrap()["sessions_opened"], 0);
    // What was revoked is, whatever token it has.
    tracker.admin().revoke(device.id).await.unwrap();
    assert_eq!(code(flood.passkey(published.id(), false).await), ApiError::Revoked);
    let ticket = other.ticket(&published, device.id, soon());
    assert_eq!(code(flood.rekey(published.id(), 1, &ticket, &[0]).await), ApiError::Revoked);
    assert_eq!(code(flood.witness(published.id(), 1, &[0]).await), ApiError::Revoked);
    tracker.stop().await;
}

#[tokio::test]
async fn a_replaced_passkey_ends_the_personal_torrent_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let torrent = published.id();
    let (owner, subscribed) = Device::subscribed(&tracker, &published).await;
    let (peer, _) = Device::subscribed(&tracker, &published).await;
    let (_, hashes) = hashes_of(&owner, &tracker, &published).await;
    let info_hash = PersonalTorrent { label: "a film", piece_length: 16384, hashes: &hashes }.info_hash();
    let thief = Announce { info_hash, ..announce(&published, 8, 1000) };
    let request = PersonalKeysRequest { torrent_id: torrent, epoch: 1, info_hash, pieces: vec![0] };
    let (serves, seed) = (peer.client(&tracker), published.seed(&tracker));
    let announced = async |passkey| tracker.client().announce(&passkey, &thief).await;

    let mut passkey = subscribed.passkey;
    for by_the_owner in [true, false] {
        announced(passkey).await.unwrap();
        serves.personal_keys(&request).await.unwrap();
        assert_eq!(serves.personal_clients(torrent).await.unwrap().clients.len(), 1);
        let fresh = match by_the_owner {
            true => owner.client(&tracker).passkey(torrent, true).await.unwrap(),
            false => {
                tracker.admin().rotate_passkey(owner.id).await.unwrap();
                owner.client(&tracker).passkey(torrent, false).await.unwrap()
            }
        };
        // The stolen one gets no key more, of peers, seeds or for clients that are called, and announces no more.
        assert_eq!(code(serves.personal_keys(&request).await), ApiError::UnknownPersonal);
        assert_eq!(code(seed.personal_keys(&request).await), ApiError::UnknownPersonal);
        let name = TorrentName::InfoHash(info_hash);
        assert_eq!(code(serves.personal(torrent, name).await), ApiError::UnknownPersonal);
        assert!(serves.personal_clients(torrent).await.unwrap().clients.is_empty());
        assert!(matches!(announced(passkey).await, Err(Error::AnnounceRefused(_))));
        assert_eq!(code(serves.personal_keys(&request).await), ApiError::UnknownPersonal);
        passkey = fresh;
    }
    // Its owner's client goes on with the new one, until the subscription is revoked.
    announced(passkey).await.unwrap();
    serves.personal_keys(&request).await.unwrap();
    tracker.admin().revoke(owner.id).await.unwrap();
    assert_eq!(code(serves.personal_keys(&request).await), ApiError::Revoked);
    assert!(serves.personal_clients(torrent).await.unwrap().clients.is_empty());
    assert!(matches!(announced(passkey).await, Err(Error::AnnounceRefused(_))));
    tracker.stop().await;
}
