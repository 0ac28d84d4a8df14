//! Epochs: a new one beside the old, both served, and the old one retired.

use swarmseal::tracker_client::AdminClient;
use swarmseal::wire::keyfile::Passphrase;
use zeroize::Zeroizing;

use super::*;

/// The epochs of the only torrent: the oldest and the current one, and keys that nobody needs.
async fn epochs(admin: &AdminClient) -> (u64, u64, Vec<String>) {
    let answer = admin.epochs().await.unwrap();
    let torrent = &answer["torrents"][0];
    let unused = answer["unused_keys"].as_array().unwrap();
    let unused = unused.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    (torrent["oldest"].as_u64().unwrap(), torrent["current"].as_u64().unwrap(), unused)
}

impl Device {
    fn ticket_of(&self, published: &Published, uploader: SubscriberId, epoch: u64) -> Ticket {
        self.signed(Ticket { epoch, ..self.ticket(published, uploader, soon()) })
    }
}

#[tokio::test]
async fn both_epochs_are_served_until_the_old_one_is_retired() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let (id, params) = (published.id(), published.params());
    let (j, first) = Device::subscribed(&tracker, &published).await;
    tracker.admin().create_grant(id, j.id, Terms::default()).await.unwrap();
    assert_eq!((first.epoch, epochs(&tracker.admin()).await), (1, (1, 1, vec![])));

    tracker.admin().begin_epoch(Some(id)).await.unwrap();
    assert_eq!(epochs(&tracker.admin()).await, (1, 2, vec![]));
    let (k, second) = Device::subscribed(&tracker, &published).await;
    assert_eq!((second.epoch, j.subscribe(&tracker, &published).await.unwrap().epoch), (2, 2));
    let told = tracker.client().announce(&first.passkey, &announce(&published, 1, 5)).await.unwrap();
    assert_eq!(told.epoch, Some(2));
    let seed = tracker.client().announce(&published.seed_passkey, &announce(&published, 2, 0)).await.unwrap();
    assert_eq!(seed.epoch, None);

    // j has piece 0 of epoch 1, moves it, and it opens with either license; k gets it of epoch 2 from either.
    let (j_client, seed) = (j.client(&tracker), published.seed(&tracker));
    let of_seed = |epoch| j.ticket_of(&published, published.seed_id(), epoch);
    let rho = async |epoch: u64, ticket: &Ticket| j_client.rekey(id, epoch, ticket, &[0]).await;
    let encrypted = async |epoch: u64| {
        let key = seed.seed_keys(id, &of_seed(epoch), &[0]).await.unwrap();
        let mut piece = packaged();
        encrypt_piece(params, &EncryptionKey::from_bytes(params, &key.keys).unwrap(), &mut piece).unwrap();
        piece
    };
    let transformed = |piece: &[u8], key: &[u8]| {
        let mut piece = piece.to_vec();
        re_encrypt_piece(params, &ReKey::from_bytes(params, key).unwrap(), &mut piece).unwrap();
        piece
    };
    let opens = async |device: &Device, epoch: Option<u64>, piece: &[u8]| {
        let envelope = device.client(&tracker).license_for(id, epoch, None).await.unwrap();
        let license = License::open(&envelope, &device.identity, &published.license_key()).unwrap();
        assert_eq!(license.epoch, epoch.unwrap_or(2));
        let key = DecryptionKey::from_bytes(params, &license.keys[..params.group().bytes()]).unwrap();
        let mut piece = piece.to_vec();
        decrypt_piece(params, &device.secret, &key, &mut piece).unwrap();
        piece == packaged()
    };
    let old = encrypted(1).await;
    let moved = transformed(&old, &rho(1, &j.ticket_of(&published, j.id, 2)).await.unwrap().keys);
    assert_eq!(moved, encrypted(2).await);
    assert!(opens(&j, Some(1), &old).await && opens(&j, None, &moved).await);
    assert!(!opens(&j, Some(1), &moved).await && !opens(&j, Some(2), &old).await);
    tracker.admin().create_grant(id, k.id, Terms::default()).await.unwrap();
    for (epoch, piece) in [(1, &old), (2, &moved)] {
        let key = rho(epoch, &k.ticket_of(&published, j.id, 2)).await.unwrap();
        assert!(opens(&k, None, &transformed(piece, &key.keys)).await, "from epoch {epoch}");
    }
    // Nobody moves what is not his, nor to an epoch that is yet to come.
    assert_eq!(code(rho(1, &k.ticket_of(&published, k.id, 2)).await), ApiError::BadTicket);
    assert_eq!(code(rho(1, &j.ticket_of(&published, j.id, 3)).await), ApiError::UnknownEpoch);
    assert_eq!(code(rho(3, &k.ticket_of(&published, j.id, 2)).await), ApiError::UnknownEpoch);

    // Retired: nothing of it is served, and its key may be deleted.
    let early = tracker.admin().retire_epochs(None, 3).await;
    assert_eq!(code(early), ApiError::UnknownEpoch);
    tracker.admin().retire_epochs(None, 2).await.unwrap();
    assert_eq!(epochs(&tracker.admin()).await, (2, 2, vec!["masters/1.key".to_owned()]));
    // It does not come back.
    tracker.admin().retire_epochs(None, 1).await.unwrap();
    let refused = async |tracker: &Running| {
        let (j_client, seed) = (j.client(tracker), published.seed(tracker));
        for ticket in [k.ticket_of(&published, j.id, 2), j.ticket_of(&published, j.id, 2)] {
            assert_eq!(code(j_client.rekey(id, 1, &ticket, &[0]).await), ApiError::RetiredEpoch);
        }
        let old = k.ticket_of(&published, j.id, 1);
        assert_eq!(code(j_client.rekey(id, 2, &old, &[0]).await), ApiError::UnknownEpoch);
        assert_eq!(code(seed.seed_keys(id, &of_seed(1), &[0]).await), ApiError::UnknownEpoch);
        assert_eq!(code(j_client.license_for(id, Some(1), None).await), ApiError::RetiredEpoch);
        j_client.license(id, None).await.unwrap();
    };
    refused(&tracker).await;
    tracker.stop().await;
    std::fs::remove_file(directory.path().join("masters/1.key")).unwrap();
    let tracker = Running::start(directory.path()).await;
    assert_eq!(epochs(&tracker.admin()).await, (2, 2, vec![]));
    refused(&tracker).await;
    tracker.stop().await;
}

#[tokio::test]
async fn each_torrent_has_epochs_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let (one, other) = (Published::new(&tracker).await, Published::new(&tracker).await);
    let current = async |published: &Published| {
        let answer = tracker.admin().epochs().await.unwrap();
        let id = published.id().to_string();
        let all = answer["torrents"].as_array().unwrap();
        all.iter().find(|torrent| torrent["torrent_id"] == id.as_str()).unwrap()["current"].as_u64().unwrap()
    };
    tracker.admin().begin_epoch(Some(one.id())).await.unwrap();
    assert_eq!((current(&one).await, current(&other).await), (2, 1));
    // Both go to one that neither had.
    tracker.admin().begin_epoch(None).await.unwrap();
    assert_eq!((current(&one).await, current(&other).await), (3, 3));
    // A new torrent begins with the newest key, and the same torrent again stays where it is.
    let third = Published::new(&tracker).await;
    assert_eq!(current(&third).await, 3);
    tracker.admin().begin_epoch(Some(third.id())).await.unwrap();
    tracker.register(&third.metainfo, &third.seed_key.public()).await.unwrap();
    assert_eq!(current(&third).await, 4);
    // Epoch 1 is still served: no key is without use.
    assert_eq!(tracker.admin().epochs().await.unwrap()["unused_keys"], serde_json::json!([]));
    let unknown = tracker.admin().begin_epoch(Some(TorrentId([9; 32]))).await;
    assert_eq!(code(unknown), ApiError::UnknownTorrent);
    tracker.stop().await;
}

#[tokio::test]
async fn a_passphrase_guards_the_keys_of_all_epochs() {
    let directory = tempfile::tempdir().unwrap();
    let passphrase = |text: &str| Passphrase::new(Zeroizing::new(text.to_owned()));
    let config = |text: &str| Config {
        master_passphrase: passphrase(text),
        listen: "127.0.0.1:0".parse().unwrap(),
        ..Config::new(directory.path())
    };
    // Begun in clear.
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let (j, _) = Device::subscribed(&tracker, &published).await;
    let (k, _) = Device::subscribed(&tracker, &published).await;
    let rekey = async |tracker: &Running| {
        j.client(tracker)
            .rekey(published.id(), 1, &k.ticket(&published, j.id, soon()), &[1])
            .await
            .unwrap()
            .keys
            .clone()
    };
    let before = rekey(&tracker).await;
    tracker.stop().await;
    let tracker = Running::start_with(config("correct horse")).await;
    tracker.admin().begin_epoch(None).await.unwrap();
    assert_eq!(rekey(&tracker).await, before);
    tracker.stop().await;
    for name in ["1.key", "2.key"] {
        let text = std::fs::read_to_string(directory.path().join("masters").join(name)).unwrap();
        assert!(text.starts_with("swarmseal key file v1: sealed master"), "{text}");
    }
    for (config, expected) in
        [(config(""), "under a passphrase"), (config("wrong horse"), "the passphrase does not open it")]
    {
        let refused = Server::bind(config).await.err().unwrap().to_string();
        assert!(refused.contains("1.key") && refused.contains(expected), "{refused}");
        assert!(!refused.contains("horse"), "{refused}");
    }
    let tracker = Running::start_with(config("correct horse")).await;
    assert_eq!(rekey(&tracker).await, before);
    tracker.stop().await;
}

#[tokio::test]
async fn cipher_hashes_and_personal_torrents_of_retired_epochs_are_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let torrent = published.id();
    let (device, _) = Device::subscribed(&tracker, &published).await;
    let mut info_hashes = Vec::new();
    for epoch in 1..=2 {
        if epoch == 2 {
            tracker.admin().begin_epoch(Some(torrent)).await.unwrap();
        }
        let (of, hashes) = hashes_of(&device, &tracker, &published).await;
        assert_eq!((of, hashes.len()), (epoch, PIECES as usize));
        info_hashes
            .push(PersonalTorrent { label: "a film", piece_length: 16384, hashes: &hashes }.info_hash());
    }
    // hashes_of says the same of every epoch, so that both are one torrent: the later one's.
    assert_eq!(info_hashes[0], info_hashes[1]);
    let whose = async |tracker: &Running| {
        let traced = tracker.admin().trace_personal(torrent, &info_hashes[0]).await.unwrap();
        traced.matches.first().map(|row| row["epoch"].as_u64())
    };
    assert_eq!(whose(&tracker).await, Some(Some(2)));
    tracker.admin().retire_epochs(Some(torrent), 2).await.unwrap();
    assert_eq!(whose(&tracker).await, Some(Some(2)));
    tracker.admin().begin_epoch(Some(torrent)).await.unwrap();
    tracker.admin().retire_epochs(Some(torrent), 3).await.unwrap();
    assert_eq!(whose(&tracker).await, None);
    assert_eq!(device.client(&tracker).hashes(torrent, PIECES, 0, false).await.unwrap(), (3, vec![]));
    tracker.stop().await;
    let tracker = Running::start(directory.path()).await;
    assert_eq!(whose(&tracker).await, None);
    tracker.stop().await;
}
