//! A license server apart: what it can do, and what it cannot.

use swarmseal::tracker::license_server;
use swarmseal::wire::api::{LicenseFilled, LicenseOrder, LicenseServer, LicenseWord};

use super::*;

/// A license server that runs until it is stopped.
struct Licenser {
    for_tracker: LicenseServer,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Licenser {
    async fn start(identity: &Identity, tracker: &str, tracker_key: [u8; 32]) -> Self {
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::new("") };
        let tracker = Client::new(tracker).unwrap();
        let server =
            license_server::Server::bind(config, identity.clone(), tracker, tracker_key).await.unwrap();
        let for_tracker = server.for_tracker(None);
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Licenser { for_tracker, stop, ended }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap();
    }
}

/// A tracker with a license server, which has met it once before.
async fn both(data: &Path, identity: &Identity) -> (Running, Licenser) {
    let server = Server::bind(Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::new(data) }).await;
    let server = server.unwrap();
    let (listen, url, key) = (server.local_addr(), server.url(), server.license_key());
    server.run(async {}).await.unwrap();
    let licenser = Licenser::start(identity, &url, key).await;
    let license_server = Some(licenser.for_tracker.clone());
    (Running::start_exactly(Config { listen, license_server, ..Config::new(data) }).await, licenser)
}

fn fresh() -> Identity {
    Identity::generate(&mut UnwrapErr(SysRng))
}

impl Device {
    async fn word(&self, tracker: &Running, published: &Published, server: [u8; 32]) -> LicenseWord {
        let word = LicenseWord {
            torrent_id: published.id(),
            subscriber: self.id,
            server,
            nonce: tracker.client().challenge().await.unwrap().nonce,
            epoch: None,
            voucher: None,
            signature: [0; 64],
        };
        word.signed(self.identity.signing_key())
    }
}

#[tokio::test]
async fn it_signs_what_the_tracker_grants() {
    let directory = tempfile::tempdir().unwrap();
    // A torrent from before there was a license server stays the tracker's.
    let tracker = Running::start(directory.path()).await;
    let before = Published::new(&tracker).await;
    let (owner, _) = Device::subscribed(&tracker, &before).await;
    tracker.admin().create_grant(before.id(), owner.id, Terms::default()).await.unwrap();
    tracker.stop().await;

    let identity = fresh();
    let (tracker, licenser) = both(directory.path(), &identity).await;
    let published = Published::new(&tracker).await;
    assert_eq!(published.metainfo.info.seal.license_key, identity.public());
    let (first, _) = Device::subscribed(&tracker, &published).await;
    let (second, _) = Device::subscribed(&tracker, &published).await;
    let voucher = tracker.admin().create_voucher(published.seal(), Terms::default()).await.unwrap();
    let license =
        async |device: &Device, voucher| device.client(&tracker).license(published.id(), voucher).await;

    assert_eq!(code(license(&first, None).await), ApiError::NotLicensed);
    let unissued = published.unissued();
    assert_eq!(code(license(&first, Some(&unissued)).await), ApiError::BadVoucher);
    let envelope = license(&first, Some(&voucher)).await.unwrap();
    let opened = License::open_for(&envelope, &first.identity, &published.metainfo, &first.id).unwrap();
    assert_eq!(opened.keys.len(), PIECES as usize * 256);
    // The time of its issue and the plays told of are the tracker's, whoever signs.
    assert!(opened.issued.unwrap().abs_diff(soon() - 3600) < 60);
    let record = swarmseal::wire::api::PlayRecord { counter: 1, lost: 0, plays: 3 };
    let envelope_2 =
        first.client(&tracker).license_with(published.id(), None, None, Some(record)).await.unwrap();
    let opened = License::open_for(&envelope_2, &first.identity, &published.metainfo, &first.id).unwrap();
    assert_eq!(opened.played, 3);
    // Neither the server nor another device opens it, and the tracker did not sign it.
    assert!(License::open(&envelope, &identity, &identity.public()).is_err());
    assert!(License::open(&envelope, &second.identity, &identity.public()).is_err());
    let tracker_key = before.metainfo.info.seal.license_key;
    assert!(License::open(&envelope, &first.identity, &tracker_key).is_err());
    let taken = license(&second, Some(&voucher)).await;
    assert!(matches!(&taken, Err(Error::PlacesTaken { devices, .. }) if devices[0].subscriber == first.id));
    license(&first, None).await.unwrap();

    let envelope = owner.client(&tracker).license(before.id(), None).await.unwrap();
    License::open_for(&envelope, &owner.identity, &before.metainfo, &owner.id).unwrap();

    // Without the server nobody is licensed; without the tracker, neither.
    licenser.stop().await;
    assert!(license(&first, None).await.unwrap_err().is_temporary());
    tracker.stop().await;
}

#[tokio::test]
async fn an_order_needs_the_server_and_the_subscriber_s_fresh_word() {
    let directory = tempfile::tempdir().unwrap();
    let identity = fresh();
    let (tracker, licenser) = both(directory.path(), &identity).await;
    let published = Published::new(&tracker).await;
    let (owner, _) = Device::subscribed(&tracker, &published).await;
    let (other, _) = Device::subscribed(&tracker, &published).await;
    tracker.admin().create_grant(published.id(), owner.id, Terms::default()).await.unwrap();
    let client = tracker.client();
    let server = identity.public();
    let order = async |word: LicenseWord, signer: &Identity| {
        client.order_license(&LicenseOrder::new(word, signer.signing_key())).await
    };
    let word = async || owner.word(&tracker, &published, server).await;

    // Another server, by its own name and by this one's; the subscriber itself.
    let stranger = fresh();
    let elsewhere = owner.word(&tracker, &published, stranger.public()).await;
    assert_eq!(code(order(elsewhere.clone(), &stranger).await), ApiError::WrongRole);
    assert_eq!(code(order(word().await, &stranger).await), ApiError::BadSignature);
    assert_eq!(code(order(word().await, &owner.identity).await), ApiError::BadSignature);
    // This server, on a word given to another, made up, altered, of somebody without a grant, without a nonce of the tracker's.
    assert_eq!(code(order(elsewhere, &identity).await), ApiError::WrongRole);
    let made_up = word().await.signed(identity.signing_key());
    assert_eq!(code(order(made_up, &identity).await), ApiError::BadSignature);
    let altered = LicenseWord { voucher: Some((*published.unissued()).clone()), ..word().await };
    assert_eq!(code(order(altered, &identity).await), ApiError::BadSignature);
    let ungranted = other.word(&tracker, &published, server).await;
    assert_eq!(code(order(ungranted.clone(), &identity).await), ApiError::NotLicensed);
    let borrowed = LicenseWord { subscriber: owner.id, ..ungranted }.signed(other.identity.signing_key());
    assert_eq!(code(order(borrowed, &identity).await), ApiError::BadSignature);
    let old = LicenseWord { nonce: [7; 32], ..word().await }.signed(owner.identity.signing_key());
    assert_eq!(code(order(old, &identity).await), ApiError::BadNonce);

    // What comes is for the server's own device, and comes once.
    let good = word().await;
    let filled: LicenseFilled = order(good.clone(), &identity).await.unwrap();
    assert_eq!(filled.device, owner.identity.device_public());
    assert!(License::open(&filled.license, &owner.identity, &server).is_err());
    assert_eq!(code(order(good, &identity).await), ApiError::BadNonce);

    tracker.admin().revoke(owner.id).await.unwrap();
    assert_eq!(code(order(word().await, &identity).await), ApiError::Revoked);
    licenser.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn a_false_tracker_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let identity = fresh();
    let (tracker, licenser) = both(directory.path(), &identity).await;
    let published = Published::new(&tracker).await;
    let (owner, _) = Device::subscribed(&tracker, &published).await;
    tracker.admin().create_grant(published.id(), owner.id, Terms::default()).await.unwrap();
    owner.client(&tracker).license(published.id(), None).await.unwrap();
    licenser.stop().await;

    // A server that was told of another tracker's key takes nothing from this one.
    let misled = Licenser::start(&identity, &tracker.url, fresh().public()).await;
    let word = owner.word(&tracker, &published, identity.public()).await;
    let client = Client::new(&misled.for_tracker.url).unwrap();
    assert_eq!(code(client.ask_license(&word).await), ApiError::Internal);
    // Nor does a server answer a word that was given to another.
    let elsewhere = owner.word(&tracker, &published, fresh().public()).await;
    assert_eq!(code(client.ask_license(&elsewhere).await), ApiError::WrongRole);
    misled.stop().await;
    tracker.stop().await;
}
