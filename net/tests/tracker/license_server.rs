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
    async fn start(identity: &Identity, tracker: Service, tracker_key: [u8; 32]) -> Self {
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::new("") };
        let tracker = Client::new(tracker).unwrap();
        let server = license_server::Server::bind(config, identity.clone(), tracker, tracker_key, None);
        let server = server.await.unwrap();
        let for_tracker = server.for_tracker();
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
    let (listen, url, key) = (server.local_addr(), server.url(), server.tracker_key());
    server.run(async {}).await.unwrap();
    let licenser = Licenser::start(identity, Service::fixed(url.parse().unwrap(), key), key).await;
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
            contact: tracker.client().identify().await.unwrap(),
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
    // From before there was a license server.
    let tracker = Running::start(directory.path()).await;
    let tracker_key = tracker.admin().keys().await.unwrap().license_key;
    let before = Published::new(&tracker).await;
    let (owner, _) = Device::subscribed(&tracker, &before).await;
    tracker.admin().create_grant(before.id(), owner.id, Terms::default()).await.unwrap();
    tracker.stop().await;

    let identity = fresh();
    let (tracker, licenser) = both(directory.path(), &identity).await;
    let published = Published::new(&tracker).await;
    assert_eq!(published.license_key(), identity.public());
    let (first, _) = Device::subscribed(&tracker, &published).await;
    let (second, _) = Device::subscribed(&tracker, &published).await;
    let voucher = tracker.admin().create_voucher(published.seal(), Terms::default()).await.unwrap();
    let license =
        async |device: &Device, voucher| device.client(&tracker).license(published.id(), voucher).await;

    assert_eq!(code(license(&first, None).await), ApiError::NotLicensed);
    let unissued = published.unissued();
    assert_eq!(code(license(&first, Some(&unissued)).await), ApiError::BadVoucher);
    let envelope = license(&first, Some(&voucher)).await.unwrap();
    let opened =
        License::open_for(&envelope, &first.identity, &published.metainfo, &identity.public(), &first.id)
            .unwrap();
    assert_eq!(opened.keys.len(), PIECES as usize * 256);
    // The time of its issue and the plays told of are the tracker's, whoever signs.
    assert!(opened.issued.unwrap().abs_diff(soon() - 3600) < 60);
    let record = swarmseal::wire::api::PlayRecord { counter: 1, lost: 0, plays: 3 };
    let envelope_2 =
        first.client(&tracker).license_with(published.id(), None, None, Some(record)).await.unwrap();
    let opened =
        License::open_for(&envelope_2, &first.identity, &published.metainfo, &identity.public(), &first.id)
            .unwrap();
    assert_eq!(opened.played, 3);
    // Neither the server nor another device opens it, and the tracker did not sign it.
    assert!(License::open(&envelope, &identity, &identity.public()).is_err());
    assert!(License::open(&envelope, &second.identity, &identity.public()).is_err());
    assert!(License::open(&envelope, &first.identity, &tracker_key).is_err());
    let taken = license(&second, Some(&voucher)).await;
    assert!(matches!(&taken, Err(Error::PlacesTaken { devices, .. }) if devices[0].subscriber == first.id));
    license(&first, None).await.unwrap();

    // The publisher's newest authority is for all of its torrents.
    let envelope = owner.client(&tracker).license(before.id(), None).await.unwrap();
    let server = &identity.public();
    License::open_for(&envelope, &owner.identity, &before.metainfo, server, &owner.id).unwrap();

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
    let mut old = word().await;
    old.contact.nonce = [7; 32];
    let old = old.signed(owner.identity.signing_key());
    assert_eq!(code(order(old, &identity).await), ApiError::BadNonce);

    // What comes is for the server's own device. To repeat the order gives it nothing that it has not.
    let good = word().await;
    let filled: LicenseFilled = order(good.clone(), &identity).await.unwrap();
    assert_eq!(filled.device, owner.identity.device_public());
    assert!(License::open(&filled.license, &owner.identity, &server).is_err());
    assert_eq!(order(good, &identity).await.unwrap().device, filled.device);

    tracker.admin().revoke(owner.id).await.unwrap();
    assert_eq!(code(order(word().await, &identity).await), ApiError::Revoked);
    licenser.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn a_false_license_server_hears_no_code() {
    let directory = tempfile::tempdir().unwrap();
    let identity = fresh();
    let (tracker, licenser) = both(directory.path(), &identity).await;
    let published = Published::new(&tracker).await;
    let (device, _) = Device::subscribed(&tracker, &published).await;
    let voucher =
        tracker.admin().create_voucher(&published.metainfo.info.seal, Terms::default()).await.unwrap();
    let (address, origin) = (tracker.address, licenser.for_tracker.origin.clone());
    licenser.stop().await;
    tracker.stop().await;
    // Where it was, somebody else listens, who says nothing of use.
    let listener =
        tokio::net::TcpListener::bind(origin.as_str().strip_prefix("http://").unwrap()).await.unwrap();
    let heard = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = vec![0; 4096];
        let mut length = stream.read(&mut all).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nde").await.unwrap();
        while let Ok(more @ 1..) = stream.read(&mut all[length..]).await {
            length += more;
        }
        String::from_utf8_lossy(&all[..length]).into_owned()
    });
    let server = LicenseServer { origin, identity: identity.public(), device: identity.device_public() };
    let config = Config { listen: address, license_server: Some(server), ..Config::new(directory.path()) };
    let tracker = Running::start_exactly(config).await;
    let client = device.client(&tracker);
    let refused = client.license(published.id(), Some(&voucher)).await.unwrap_err();
    assert!(matches!(refused, Error::Stranger { .. }), "{refused}");
    drop(client);
    let heard = heard.await.unwrap();
    assert!(heard.starts_with("GET /identify?") && heard.matches(" HTTP/1.1").count() == 1, "{heard}");
    assert!(!heard.contains(voucher.as_str()), "{heard}");
    // Nor does one that the publisher did not name: the tracker alone cannot send codes anywhere.
    let service = Service::of_publisher(tracker.signed(fresh().public()), |_| ());
    let client = Client::new(service).unwrap().as_subscriber(
        &published.id(),
        device.id,
        device.identity.signing_key().clone(),
    );
    let refused = client.license(published.id(), Some(&voucher)).await.unwrap_err();
    assert!(matches!(refused, Error::Stranger { .. }), "{refused}");
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

    // A server that was told of another tracker's key says nothing to this one, and takes nothing from it.
    let wrong = fresh().public();
    let deaf = Service::fixed(tracker.url.parse().unwrap(), wrong);
    let mut misled = Licenser::start(&identity, deaf, wrong).await;
    let word = owner.word(&tracker, &published, identity.public()).await;
    let client_of = |licenser: &Licenser| {
        let LicenseServer { origin, identity, .. } = licenser.for_tracker.clone();
        Client::new(Service::fixed(origin, identity)).unwrap()
    };
    assert_eq!(code(client_of(&misled).ask_license(&word).await), ApiError::Internal);
    misled.stop().await;
    misled = Licenser::start(&identity, tracker.service(), wrong).await;
    let client = client_of(&misled);
    assert_eq!(code(client.ask_license(&word).await), ApiError::Internal);
    // Nor does a server answer a word that was given to another.
    let elsewhere = owner.word(&tracker, &published, fresh().public()).await;
    assert_eq!(code(client.ask_license(&elsewhere).await), ApiError::WrongRole);
    misled.stop().await;
    tracker.stop().await;
}
