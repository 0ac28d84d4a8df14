//! Whose copy something is: ciphertext of this epoch and the last, of who was revoked, and of nobody; licenses, personal torrents.

use super::*;

/// The key of a device's piece in an epoch, as the publisher works it out from ciphertext and content.
async fn observed(tracker: &Running, published: &Published, device: &Device, epoch: u64) -> Vec<u8> {
    let ticket = Ticket { epoch, ..device.ticket(published, published.seed_id(), soon()) };
    let seed = published.seed(tracker);
    let keys = seed.seed_keys(published.id(), &device.signed(ticket), &[2]).await.unwrap().keys.clone();
    let (params, width) = (published.params(), published.params().group().bytes());
    let (plain, mut piece) = (packaged(), packaged());
    encrypt_piece(params, &EncryptionKey::from_bytes(params, &keys).unwrap(), &mut piece).unwrap();
    let found = EncryptionKey::observe(params, &plain[..width], &piece[..width]).unwrap();
    let mut encoded = vec![0; width];
    found.to_bytes(params, &mut encoded).unwrap();
    assert_eq!(encoded, keys);
    encoded
}

#[tokio::test]
async fn a_key_names_its_subscriber_and_epoch_and_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let (torrent, admin) = (published.id(), tracker.admin());
    let mut devices = Vec::new();
    for _ in 0..11 {
        devices.push(Device::subscribed(&tracker, &published).await.0);
    }
    let name = |traced: &swarmseal::tracker_client::Traced| {
        let text = |row: &serde_json::Value| row["subscriber"].as_str().unwrap().to_owned();
        traced.matches.iter().map(|row| (text(row), row["epoch"].as_u64())).collect::<Vec<_>>()
    };
    for n in [0, 7, 10] {
        let key = observed(&tracker, &published, &devices[n], 1).await;
        let traced = admin.trace_key(torrent, 2, &key).await.unwrap();
        assert_eq!(name(&traced), [(devices[n].id.to_string(), Some(1))]);
        assert!(!traced.witness);
        assert_eq!((traced.tried, &traced.epochs[..]), (11, &[1][..]));
        // It is the key of this piece, and of no other.
        assert_eq!(admin.trace_key(torrent, 1, &key).await.unwrap().matches.len(), 0);
    }

    // The last epoch's, of one who is revoked and has a name.
    let old = observed(&tracker, &published, &devices[4], 1).await;
    let voucher = admin.create_voucher(published.seal(), Terms::default()).await.unwrap();
    let client = devices[4].client(&tracker);
    let license = client.license(torrent, Some(&voucher)).await.unwrap();
    client.devices(torrent, Some("laptop"), None).await.unwrap();
    admin.begin_epoch(Some(torrent)).await.unwrap();
    let new = observed(&tracker, &published, &devices[4], 2).await;
    assert_ne!(old, new);
    admin.revoke(devices[4].id).await.unwrap();
    for (key, epoch) in [(&old, 1), (&new, 2)] {
        let traced = admin.trace_key(torrent, 2, key).await.unwrap();
        assert_eq!(name(&traced), [(devices[4].id.to_string(), Some(epoch))]);
        let row = &traced.matches[0];
        assert_eq!((&row["name"], &row["revoked"]), (&"laptop".into(), &true.into()));
        assert_eq!(traced.epochs, [1, 2]);
    }
    // Also once the epoch is retired, as long as its master key is there.
    admin.retire_epochs(Some(torrent), 2).await.unwrap();
    assert_eq!(
        name(&admin.trace_key(torrent, 2, &old).await.unwrap()),
        [(devices[4].id.to_string(), Some(1))]
    );
    std::fs::remove_file(directory.path().join("masters/1.key")).unwrap();
    let traced = admin.trace_key(torrent, 2, &old).await.unwrap();
    assert_eq!((traced.matches.len(), &traced.epochs[..], &traced.missing[..]), (0, &[2][..], &[1][..]));

    let device = swarmseal::wire::license::device_of(&license).unwrap();
    let traced = admin.trace_device(torrent, &device).await.unwrap();
    assert_eq!(name(&traced), [(devices[4].id.to_string(), None)]);
    assert!(admin.trace_device(torrent, &[9; 32]).await.unwrap().matches.is_empty());

    // X·V of a piece, in which peers check what they receive: nobody's, and of no other piece.
    let (params, width) = (published.params(), published.params().group().bytes());
    let exponents = WitnessExponents::derive(params, &witness_secret(&torrent), &torrent);
    let mut piece = packaged();
    witness_hash(params, &WitnessFactor::derive(params, &exponents.exponent(2)), &mut piece).unwrap();
    let mut factor = vec![0; width];
    let found = EncryptionKey::observe(params, &packaged()[..width], &piece[..width]).unwrap();
    found.to_bytes(params, &mut factor).unwrap();
    let traced = admin.trace_key(torrent, 2, &factor).await.unwrap();
    assert_eq!((traced.witness, traced.matches.len(), traced.tried), (true, 0, 0));
    let traced = admin.trace_key(torrent, 1, &factor).await.unwrap();
    assert_eq!((traced.witness, traced.matches.len()), (false, 0));

    // What is no key, no piece, no torrent.
    for (piece, key) in [(2, &[0; 256][..]), (2, &[0xFF; 256]), (2, &old[1..]), (PIECES, &new), (2, &[])] {
        let refused = code(admin.trace_key(torrent, piece, key).await);
        let expected = if piece == PIECES { ApiError::BadPiece } else { ApiError::BadRequest };
        assert_eq!(refused, expected, "{piece} {}", key.len());
    }
    assert_eq!(code(admin.trace_key(TorrentId([3; 32]), 2, &new).await), ApiError::UnknownTorrent);
    // It is audited, without the key.
    let audit = admin.audit(None, 100).await.unwrap().to_string();
    assert!(audit.contains(&format!("piece 2 of torrent {torrent}")), "{audit}");
    assert!(!audit.contains(&hex::encode(&new)[..32]));
    tracker.stop().await;
}
