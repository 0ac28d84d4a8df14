//! A tracker on the loopback interface, from subscription to license, and everything that it must refuse.

#[path = "tracker/access.rs"]
mod access;
#[path = "tracker/admin.rs"]
mod admin;
#[path = "tracker/devices.rs"]
mod devices;
#[path = "tracker/doors.rs"]
mod doors;
#[path = "tracker/epochs.rs"]
mod epochs;
#[path = "tracker/license_server.rs"]
mod license_server;
#[path = "tracker/offload.rs"]
mod offload;
#[path = "tracker/selection.rs"]
mod selection;
#[path = "tracker/sessions.rs"]
mod sessions;
#[path = "tracker/storage.rs"]
mod storage;
#[path = "tracker/trace.rs"]
mod trace;
#[path = "tracker/vouchers.rs"]
mod vouchers;
#[path = "tracker/witness.rs"]
mod witness;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sha1::{Digest, Sha1};
use swarmseal::tracker::{Config, Error as TrackerError, Reloader, Server};
use swarmseal::tracker_client::{AdminClient, Client, Error, Order, Registered, Service, Terms};
use swarmseal::wire::announce::{Announce, Event, Scrape};
use swarmseal::wire::api::{
    ApiError, Contact, NewHashes, OpenSession, Passkey, PersonalKeysRequest, Role, Subscribe, Subscribed,
    Token,
};
use swarmseal::wire::authority::{Authority, SignedAuthority};
use swarmseal::wire::identity::{Identity, SigningKey, purpose};
use swarmseal::wire::keyfile::TokenFile;
use swarmseal::wire::license::License;
use swarmseal::wire::metainfo::{Info, Metainfo, Seal};
use swarmseal::wire::mse::{TorrentName, hidden_name};
use swarmseal::wire::personal::PersonalTorrent;
use swarmseal::wire::voucher::{CheckedCode, VoucherKey};
use swarmseal_core::{
    DecryptionKey, EncryptionKey, Exponents, Group, Params, Profile, PublicKey, ReKey, SecretKey,
    SubscriberId, Ticket, TorrentId, WitnessExponents, WitnessFactor, WitnessSecret, decrypt_piece,
    encrypt_piece, re_encrypt_piece, witness_hash,
};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const PIECES: u32 = 4;

/// A tracker that runs until it is stopped.
struct Running {
    url: String,
    address: SocketAddr,
    token: TokenFile,
    metrics: Option<SocketAddr>,
    reloader: Reloader,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), TrackerError>>,
}

impl Running {
    async fn start(data: &Path) -> Self {
        Self::start_with(Config::new(data)).await
    }

    async fn start_with(config: Config) -> Self {
        Self::start_exactly(Config { listen: "127.0.0.1:0".parse().unwrap(), ..config }).await
    }

    async fn start_at(data: &Path, listen: SocketAddr) -> Self {
        Self::start_exactly(Config { listen, ..Config::new(data) }).await
    }

    async fn start_exactly(config: Config) -> Self {
        let server = Server::bind(config).await.unwrap();
        let (address, url) = (server.local_addr(), server.url());
        let (reloader, metrics) = (server.reloader(), server.metrics_addr());
        let token = TokenFile::read(&server.admin_token_file()).unwrap();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Running { url, address, token, metrics, reloader, stop, ended }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
    }

    fn client(&self) -> Client {
        Client::new(self.service()).unwrap()
    }

    fn admin(&self) -> AdminClient {
        AdminClient::new(&self.token, false).unwrap()
    }

    /// The tracker as its operator knows it.
    fn service(&self) -> Service {
        Service::fixed(self.url.parse().unwrap(), self.token.tracker_key)
    }

    /// An admin client with that token.
    fn with_token(&self, token: &Token) -> AdminClient {
        AdminClient::new(&TokenFile { token: token.clone(), ..self.token.clone() }, false).unwrap()
    }

    /// An admin client whose token the tracker never issued.
    fn guessing(&self) -> AdminClient {
        self.with_token(&Token::new([0; 32]))
    }

    /// Signed by the publisher of [`metainfo`], newer than all before.
    async fn authority(&self) -> SignedAuthority {
        let keys = self.admin().keys().await.unwrap();
        self.signed(keys.license_key)
    }

    fn signed(&self, license_key: [u8; 32]) -> SignedAuthority {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let serial = soon() - 7200 + NEXT.fetch_add(1, Ordering::Relaxed);
        let (origins, tracker_key) = (vec![self.url.parse().unwrap()], self.token.tracker_key);
        SignedAuthority::sign(Authority { license_key, origins, serial, tracker_key }, &publisher()).unwrap()
    }

    /// Registers a torrent of [`metainfo`], with a seed.
    async fn register(&self, metainfo: &Metainfo, seed_key: &[u8; 32]) -> Result<Registered, Error> {
        let secret = witness_secret(&metainfo.info.seal.torrent_id);
        self.admin().register_torrent(metainfo, seed_key, &secret).await
    }

    /// A connection from an address of loopback: all but 127.0.0.1 are networks of their own.
    async fn connect_from(&self, address: impl Into<IpAddr>) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(address.into(), 0)).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Sends a request as it is; gives the whole answer.
    async fn raw(&self, request: &[u8]) -> String {
        self.raw_from([127, 0, 0, 1], request).await
    }

    /// The same from an address of loopback.
    async fn raw_from(&self, address: impl Into<IpAddr>, request: &[u8]) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = self.connect_from(address).await;
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // A server that refuses early may reset what it has not read; what it said counts.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A published torrent with one seed.
struct Published {
    metainfo: Metainfo,
    seed_key: SigningKey,
    seed_passkey: Passkey,
}

impl Published {
    async fn new(tracker: &Running) -> Self {
        let metainfo = metainfo(tracker.authority().await, Profile::Sealed);
        Self::of(tracker, metainfo).await
    }

    async fn of(tracker: &Running, metainfo: Metainfo) -> Self {
        let seed_key = SigningKey::generate(&mut UnwrapErr(SysRng));
        let registered = tracker.register(&metainfo, &seed_key.public()).await.unwrap();
        assert_eq!(
            registered.seed,
            SubscriberId::of_seed(&metainfo.info.seal.torrent_id, &seed_key.public())
        );
        Published { metainfo, seed_key, seed_passkey: registered.seed_passkey }
    }

    fn id(&self) -> TorrentId {
        self.metainfo.info.seal.torrent_id
    }

    fn seal(&self) -> &Seal {
        &self.metainfo.info.seal
    }

    /// A code of its publisher that no tracker issued.
    fn unissued(&self) -> CheckedCode {
        VoucherKey::from_bytes(&[1; 32]).code("1", 0, 0, &self.seal().publisher_key)
    }

    fn params(&self) -> &Params {
        &self.metainfo.info.seal.params
    }

    fn seed_id(&self) -> SubscriberId {
        SubscriberId::of_seed(&self.id(), &self.seed_key.public())
    }

    fn license_key(&self) -> [u8; 32] {
        self.metainfo.authority.as_ref().unwrap().license_key
    }

    fn seed(&self, tracker: &Running) -> Client {
        tracker.client().as_seed(&self.id(), self.seed_key.clone())
    }
}

/// Whose torrents all are.
fn publisher() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

fn metainfo(authority: SignedAuthority, profile: Profile) -> Metainfo {
    let kernels = swarmseal_accel::detect();
    let (group, piece_length) = match profile {
        Profile::Sealed => (Group::ffdhe2048(kernels), 16384),
        Profile::Paper => (Group::prime512(kernels), 16384),
    };
    let mut random = [0; 32];
    getrandom::fill(&mut random).unwrap();
    let params = Arc::new(Params::new(profile, group, Exponents::Short).unwrap());
    let seal = Seal::new(publisher().public(), random, Arc::clone(&params));
    let secret = witness_secret(&seal.torrent_id);
    let exponents = WitnessExponents::derive(&params, &secret, &seal.torrent_id);
    let hash = |piece| {
        let factor = WitnessFactor::derive(&params, &exponents.exponent(piece));
        witness_hash(&params, &factor, &mut packaged()).unwrap()
    };
    let info = Info {
        name: "a film".to_owned(),
        piece_length,
        piece_count: PIECES,
        pieces: vec![Sha1::digest(packaged()).into(); PIECES as usize],
        private: true,
        seal: Seal { witness: (0..PIECES).map(hash).collect(), ..seal },
    };
    Metainfo::new(Some(authority), info).unwrap()
}

/// The witness secret of a torrent of [`metainfo`].
fn witness_secret(torrent: &TorrentId) -> WitnessSecret {
    WitnessSecret::from_bytes(blake3::derive_key("a witness secret of a test", &torrent.0))
}

/// What every piece is, packaged.
fn packaged() -> Vec<u8> {
    (0..16384).map(|i| (i % 100) as u8 + 1).collect()
}

/// A device with its keys for one torrent.
struct Device {
    torrent: TorrentId,
    identity: Identity,
    secret: SecretKey,
    public: PublicKey,
    id: SubscriberId,
}

impl Device {
    fn new(published: &Published) -> Self {
        let params = published.params();
        let secret = SecretKey::generate(params, &mut UnwrapErr(SysRng));
        let public = secret.public_key(params);
        let identity = Identity::generate(&mut UnwrapErr(SysRng));
        let id = identity.subscriber(params, &published.id(), &public);
        Device { torrent: published.id(), identity, secret, public, id }
    }

    async fn subscribed(tracker: &Running, published: &Published) -> (Self, Subscribed) {
        let device = Self::new(published);
        let subscribed = device.subscribe(tracker, published).await.unwrap();
        assert_eq!(subscribed.subscriber, device.id);
        (device, subscribed)
    }

    async fn subscribe(&self, tracker: &Running, published: &Published) -> Result<Subscribed, Error> {
        let keys = (&self.secret, &self.public);
        tracker.client().subscribe(published.params(), published.id(), keys, &self.identity).await
    }

    /// A subscription made by hand, to be spoilt.
    async fn request(&self, tracker: &Running, published: &Published) -> Subscribe {
        let contact = tracker.client().identify().await.unwrap();
        let keys = (&self.secret, &self.public);
        Subscribe::new(
            published.params(),
            published.id(),
            keys,
            &self.identity,
            contact,
            &mut UnwrapErr(SysRng),
        )
        .unwrap()
    }

    fn client(&self, tracker: &Running) -> Client {
        tracker.client().as_subscriber(&self.torrent, self.id, self.identity.signing_key().clone())
    }

    fn ticket(&self, published: &Published, uploader: SubscriberId, expires: u64) -> Ticket {
        let ticket = Ticket {
            torrent_id: published.id(),
            uploader,
            downloader: self.id,
            epoch: 1,
            expires,
            signature: [0; 64],
        };
        self.signed(ticket)
    }

    fn signed(&self, ticket: Ticket) -> Ticket {
        let signature = self.identity.sign(purpose::TICKET, &ticket.signing_input());
        Ticket { signature, ..ticket }
    }
}

fn soon() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 3600
}

fn code<T>(result: Result<T, Error>) -> ApiError {
    match result {
        Ok(_) => panic!("the tracker did not refuse"),
        Err(error) => error.code().unwrap_or_else(|| panic!("{error}")),
    }
}

fn announce(published: &Published, peer: u8, left: u64) -> Announce {
    Announce {
        info_hash: published.metainfo.info_hash,
        peer_id: [peer; 20],
        port: 1000 + u16::from(peer),
        uploaded: 0,
        downloaded: 0,
        left,
        event: Some(Event::Started),
        numwant: None,
        compact: true,
        no_peer_id: false,
        authority: None,
        ip: None,
        passkey: None,
    }
}

#[tokio::test]
async fn from_subscription_to_an_opened_piece() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let params = published.params();
    let width = params.group().bytes();
    let (j, _) = Device::subscribed(&tracker, &published).await;
    let (k, subscribed) = Device::subscribed(&tracker, &published).await;
    assert_eq!(subscribed.epoch, 1);

    // The seed gives j its pieces, j gives them to k, and k's license opens them.
    let indices = [2, 0];
    let from_seed = published
        .seed(&tracker)
        .seed_keys(published.id(), &j.ticket(&published, published.seed_id(), soon()), &indices)
        .await
        .unwrap();
    let from_j = j
        .client(&tracker)
        .rekey(published.id(), 1, &k.ticket(&published, j.id, soon()), &indices)
        .await
        .unwrap();
    let voucher =
        tracker.admin().create_voucher(published.seal(), Terms { plays: Some(5), ..Terms::default() }).await;
    let voucher = voucher.unwrap();
    let k_client = k.client(&tracker);
    let envelope = k_client.license(published.id(), Some(&voucher)).await.unwrap();
    let license_key = &published.license_key();
    let license = License::open(&envelope, &k.identity, license_key).unwrap();
    assert_eq!((license.subscriber, license.epoch, license.policy.plays), (k.id, 1, Some(5)));
    assert_eq!(license.info_hash, published.metainfo.info_hash);
    assert_eq!(license.keys.len(), PIECES as usize * width);
    for (at, index) in indices.into_iter().enumerate() {
        let plain: Vec<u8> = (0..3 * width).map(|i| (i % 120) as u8 + 1).collect();
        let mut piece = plain.clone();
        let part = |keys: &[u8], at: usize| keys[at * width..(at + 1) * width].to_vec();
        let k_ij = EncryptionKey::from_bytes(params, &part(&from_seed.keys, at)).unwrap();
        encrypt_piece(params, &k_ij, &mut piece).unwrap();
        re_encrypt_piece(params, &ReKey::from_bytes(params, &part(&from_j.keys, at)).unwrap(), &mut piece)
            .unwrap();
        assert_ne!(piece, plain);
        let key = DecryptionKey::from_bytes(params, &part(&license.keys, index as usize)).unwrap();
        decrypt_piece(params, &k.secret, &key, &mut piece).unwrap();
        assert_eq!(piece, plain);
    }

    // The license can be had again, with the voucher or without.
    for voucher in [None, Some(&voucher)] {
        let again = k_client.license(published.id(), voucher).await.unwrap();
        let again = License::open(&again, &k.identity, license_key).unwrap();
        assert!(again.issued >= license.issued);
        assert_eq!(License { issued: license.issued, ..again }, license);
    }
    let stats = tracker.admin().stats().await.unwrap();
    for (name, value) in
        [("rekeys", 2), ("encryption_keys", 2), ("licenses", 3), ("subscribers", 2), ("licensed", 1)]
    {
        assert_eq!(stats[name], value, "{name}");
    }
    let metrics = tracker.client().metrics().await.unwrap();
    assert!(metrics.contains("\nswarmseal_tracker_rekeys_total 2\n"), "{metrics}");
    tracker.stop().await;
}

#[tokio::test]
async fn subscriptions_that_do_not_hold_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let device = Device::new(&published);
    let client = tracker.client();
    let resigned = |mut request: Subscribe| {
        request.signature = device.identity.sign(purpose::SUBSCRIBE, &request.signing_input());
        request
    };

    let mut bad_proof = device.request(&tracker, &published).await;
    bad_proof.proof[40] ^= 1;
    assert_eq!(code(client.send_subscribe(&resigned(bad_proof)).await), ApiError::BadProof);

    // A proof by another key: knowing g^s is not knowing s.
    let mut stolen = device.request(&tracker, &published).await;
    Device::new(&published).public.to_bytes(published.params(), &mut stolen.y).unwrap();
    assert_eq!(code(client.send_subscribe(&resigned(stolen)).await), ApiError::BadProof);

    for y in [0u8, 1] {
        let mut trivial = device.request(&tracker, &published).await;
        trivial.y.fill(0);
        *trivial.y.last_mut().unwrap() = y;
        assert_eq!(code(client.send_subscribe(&resigned(trivial)).await), ApiError::BadPublicKey);
    }

    let mut changed_device = device.request(&tracker, &published).await;
    changed_device.device = [9; 32];
    assert_eq!(code(client.send_subscribe(&changed_device).await), ApiError::BadSignature);
    let mut changed_device = device.request(&tracker, &published).await;
    changed_device.device = [9; 32];
    // Signed anew, it is the proof that covers the device key.
    assert_eq!(code(client.send_subscribe(&resigned(changed_device)).await), ApiError::BadProof);

    let mut made_up = device.request(&tracker, &published).await;
    made_up.contact.nonce[31] ^= 1;
    assert_eq!(code(client.send_subscribe(&resigned(made_up)).await), ApiError::BadNonce);

    let mut elsewhere = device.request(&tracker, &published).await;
    elsewhere.torrent_id = TorrentId([3; 32]);
    assert_eq!(code(client.send_subscribe(&resigned(elsewhere)).await), ApiError::UnknownTorrent);

    // Nothing of all that subscribed anybody. A request may be repeated, and the same keys may subscribe again.
    assert_eq!(tracker.admin().stats().await.unwrap()["subscribers"], 0);
    let good = device.request(&tracker, &published).await;
    let first = client.send_subscribe(&good).await.unwrap();
    assert_eq!(client.send_subscribe(&good).await.unwrap().passkey, first.passkey);
    let second = device.subscribe(&tracker, &published).await.unwrap();
    assert_eq!((second.passkey, second.subscriber), (first.passkey, first.subscriber));

    // The same y under another identity is another subscriber.
    let identity = Identity::generate(&mut UnwrapErr(SysRng));
    let id = identity.subscriber(published.params(), &published.id(), &device.public);
    let (secret, public) = (device.secret.clone(), device.public.clone());
    let other = Device { torrent: published.id(), identity, secret, public, id }
        .subscribe(&tracker, &published)
        .await
        .unwrap();
    assert_eq!(other.subscriber, id);
    assert!(id != device.id && other.passkey != first.passkey);
    tracker.stop().await;
}

#[tokio::test]
async fn sessions_need_the_right_key_and_a_fresh_nonce() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let (device, _) = Device::subscribed(&tracker, &published).await;

    let other_key = SigningKey::generate(&mut UnwrapErr(SysRng));
    let impostor = tracker.client().as_subscriber(&published.id(), device.id, other_key.clone());
    assert_eq!(code(impostor.session().await), ApiError::BadSignature);
    let unknown = tracker.client().as_subscriber(&published.id(), SubscriberId([1; 32]), other_key.clone());
    assert_eq!(code(unknown.session().await), ApiError::UnknownSubscriber);
    let no_seed = tracker.client().as_seed(&published.id(), other_key);
    assert_eq!(code(no_seed.session().await), ApiError::UnknownSubscriber);

    // By hand: what is signed may be repeated for a minute, and nobody else can change a word of it.
    let contact = tracker.client().identify().await.unwrap();
    let open = |contact: &Contact| {
        let key = device.identity.signing_key();
        OpenSession::new(key, Role::Subscriber, device.id, published.id(), contact.clone())
    };
    let encode = |request: &OpenSession| swarmseal::wire::bencode::to_bytes(request);
    let body = encode(&open(&contact));
    let post = |body: &[u8]| {
        let head = format!(
            "POST /session HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    for _ in 0..2 {
        let answer = tracker.raw(&post(&body)).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("5:token75:"), "{answer}");
    }
    let elsewhere = Contact { origin: "https://elsewhere.example".parse().unwrap(), ..contact.clone() };
    let other_tracker = Contact { tracker_key: [9; 32], ..contact.clone() };
    let other_nonce = Contact { nonce: [9; 32], ..contact.clone() };
    for contact in [&elsewhere, &other_tracker, &other_nonce] {
        let refused = tracker.raw(&post(&encode(&open(contact)))).await;
        assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("9:bad-nonce"), "{refused}");
    }
    // Signed for somebody in between, and handed on.
    let relayed = OpenSession { contact: contact.clone(), ..open(&elsewhere) };
    assert!(tracker.raw(&post(&encode(&relayed))).await.contains("13:bad-signature"));
    let elsewhere = Published::new(&tracker).await;
    let other_torrent = OpenSession { torrent_id: elsewhere.id(), ..open(&contact) };
    assert!(tracker.raw(&post(&encode(&other_torrent))).await.contains("13:wrong-torrent"));

    // A signature for one role does not open the other's session.
    let key = &published.seed_key;
    let request = OpenSession {
        role: Role::Seed,
        ..OpenSession::new(key, Role::Subscriber, published.seed_id(), published.id(), contact)
    };
    let crossed = tracker.raw(&post(&encode(&request))).await;
    assert!(crossed.contains("13:bad-signature"), "{crossed}");

    // No session, no key.
    let call = b"POST /rekey HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: 2\r\n\r\nde";
    let refused = tracker.raw(call).await;
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("10:no-session"), "{refused}");
    tracker.stop().await;
}

#[tokio::test]
async fn rekeys_are_made_on_the_downloader_s_word_only() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let elsewhere = Published::new(&tracker).await;
    let (j, _) = Device::subscribed(&tracker, &published).await;
    let (k, _) = Device::subscribed(&tracker, &published).await;
    let (foreign, _) = Device::subscribed(&tracker, &elsewhere).await;
    let client = j.client(&tracker);
    let id = published.id();
    let good = k.ticket(&published, j.id, soon());
    let rekey = async |ticket: &Ticket| code(client.rekey(id, 1, ticket, &[0]).await);

    let mut forged = good.clone();
    forged.signature[5] ^= 1;
    assert_eq!(rekey(&forged).await, ApiError::BadTicket);
    assert_eq!(rekey(&j.signed(good.clone())).await, ApiError::BadTicket);
    assert_eq!(rekey(&Ticket { expires: good.expires + 1, ..good.clone() }).await, ApiError::BadTicket);
    assert_eq!(rekey(&k.ticket(&published, k.id, soon())).await, ApiError::BadTicket);
    assert_eq!(
        rekey(&k.signed(Ticket { torrent_id: elsewhere.id(), ..good.clone() })).await,
        ApiError::BadTicket
    );
    assert_eq!(rekey(&foreign.ticket(&published, j.id, soon())).await, ApiError::BadTicket);
    assert_eq!(rekey(&Device::new(&published).ticket(&published, j.id, soon())).await, ApiError::BadTicket);
    assert_eq!(rekey(&k.ticket(&published, j.id, soon() - 7200)).await, ApiError::ExpiredTicket);
    assert_eq!(rekey(&k.ticket(&published, j.id, soon() + 24 * 3600)).await, ApiError::ExpiredTicket);
    assert_eq!(rekey(&k.signed(Ticket { epoch: 2, ..good.clone() })).await, ApiError::UnknownEpoch);
    assert_eq!(code(client.rekey(id, 2, &good, &[0]).await), ApiError::UnknownEpoch);

    assert_eq!(code(client.rekey(id, 1, &good, &[]).await), ApiError::BadPiece);
    assert_eq!(code(client.rekey(id, 1, &good, &[0, PIECES]).await), ApiError::BadPiece);
    assert_eq!(code(client.rekey(id, 1, &good, &[0; 513]).await), ApiError::BadPiece);
    assert_eq!(code(client.rekey(elsewhere.id(), 1, &good, &[0]).await), ApiError::WrongTorrent);
    assert_eq!(code(client.rekey(TorrentId([1; 32]), 1, &good, &[0]).await), ApiError::UnknownTorrent);

    // Roles: a subscriber gets no encryption key, a seed no re-key and no license.
    assert_eq!(code(client.seed_keys(id, &good, &[0]).await), ApiError::WrongRole);
    let seed = published.seed(&tracker);
    let to_seed = k.ticket(&published, published.seed_id(), soon());
    assert_eq!(code(seed.rekey(id, 1, &to_seed, &[0]).await), ApiError::WrongRole);
    assert_eq!(code(seed.license(id, None).await), ApiError::WrongRole);
    assert_eq!(code(seed.seed_keys(id, &good, &[0]).await), ApiError::BadTicket);
    let foreign_seed = elsewhere.seed(&tracker);
    let to_foreign = k.ticket(&published, elsewhere.seed_id(), soon());
    assert_eq!(code(foreign_seed.seed_keys(id, &to_foreign, &[0]).await), ApiError::WrongTorrent);

    assert_eq!(tracker.admin().stats().await.unwrap()["rekeys"], 0);
    assert_eq!(tracker.admin().stats().await.unwrap()["encryption_keys"], 0);
    assert_eq!(client.rekey(id, 1, &good, &[0; 16]).await.unwrap().keys.len(), 16 * 256);

    // A key is had so often a day, whatever ticket asks for it; those of other pieces and for others are not touched.
    assert_eq!(rekey(&good).await, ApiError::Rate);
    assert_eq!(rekey(&k.ticket(&published, j.id, soon() - 60)).await, ApiError::Rate);
    assert_eq!(code(client.rekey(id, 1, &good, &[1, 0]).await), ApiError::Rate);
    assert_eq!(tracker.admin().stats().await.unwrap()["rekeys"], 16);
    client.rekey(id, 1, &good, &[1]).await.unwrap();
    let (l, _) = Device::subscribed(&tracker, &published).await;
    client.rekey(id, 1, &l.ticket(&published, j.id, soon()), &[0]).await.unwrap();
    l.client(&tracker).rekey(id, 1, &k.ticket(&published, l.id, soon()), &[0]).await.unwrap();
    seed.seed_keys(id, &to_seed, &[0; 16]).await.unwrap();
    assert_eq!(code(seed.seed_keys(id, &to_seed, &[0]).await), ApiError::Rate);
    tracker.stop().await;
}

#[tokio::test]
async fn licenses_go_to_those_who_hold_a_grant() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let elsewhere = Published::new(&tracker).await;
    let id = published.id();
    let admin = tracker.admin();
    let (first, _) = Device::subscribed(&tracker, &published).await;
    let (second, _) = Device::subscribed(&tracker, &published).await;
    let (third, _) = Device::subscribed(&tracker, &published).await;
    let license = async |device: &Device, voucher: Option<&CheckedCode>| {
        device.client(&tracker).license(id, voucher).await
    };

    assert_eq!(code(license(&first, None).await), ApiError::NotLicensed);
    assert_eq!(code(license(&first, Some(&published.unissued())).await), ApiError::BadVoucher);
    let foreign = admin.create_voucher(elsewhere.seal(), Terms::default()).await.unwrap();
    assert_eq!(code(license(&first, Some(&foreign)).await), ApiError::BadVoucher);

    let voucher = admin.create_voucher(published.seal(), Terms::default()).await.unwrap();
    // Both at once: one gets it.
    let (one, other) = tokio::join!(license(&first, Some(&voucher)), license(&second, Some(&voucher)));
    assert_eq!(one.is_ok() as u8 + other.is_ok() as u8, 1);
    let loser = if one.is_ok() { (other, &second) } else { (one, &first) };
    assert_eq!(code(loser.0), ApiError::UsedVoucher);
    assert_eq!(code(license(&third, Some(&voucher)).await), ApiError::UsedVoucher);
    assert_eq!(code(license(loser.1, None).await), ApiError::NotLicensed);

    // A grant names a subscriber; its license opens for nobody else.
    admin.create_grant(id, third.id, Terms { offline_grace: Some(60), ..Terms::default() }).await.unwrap();
    let envelope = license(&third, None).await.unwrap();
    let key = &published.license_key();
    assert_eq!(License::open(&envelope, &third.identity, key).unwrap().policy.offline_grace, Some(60));
    assert!(License::open(&envelope, &first.identity, key).is_err());
    assert_eq!(
        code(admin.create_grant(id, SubscriberId([1; 32]), Terms::default()).await),
        ApiError::UnknownSubscriber
    );
    assert_eq!(
        code(admin.create_grant(elsewhere.id(), third.id, Terms::default()).await),
        ApiError::WrongTorrent
    );
    let past = Terms { expires: Some(1), ..Terms::default() };
    assert_eq!(code(admin.create_voucher(published.seal(), past).await), ApiError::BadRequest);
    tracker.stop().await;
}

#[tokio::test]
async fn the_revoked_get_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let id = published.id();
    let (j, _) = Device::subscribed(&tracker, &published).await;
    let (k, subscribed) = Device::subscribed(&tracker, &published).await;
    let (j_client, k_client) = (j.client(&tracker), k.client(&tracker));
    tracker.admin().create_grant(id, k.id, Terms::default()).await.unwrap();
    let to_k = k.ticket(&published, j.id, soon());
    let to_j = j.ticket(&published, k.id, soon());
    j_client.rekey(id, 1, &to_k, &[0]).await.unwrap();
    k_client.rekey(id, 1, &to_j, &[0]).await.unwrap();
    k_client.license(id, None).await.unwrap();
    tracker.client().announce(&subscribed.passkey, &announce(&published, 1, 5)).await.unwrap();

    tracker.admin().revoke(k.id).await.unwrap();
    assert_eq!(code(j_client.rekey(id, 1, &to_k, &[0]).await), ApiError::Revoked);
    assert_eq!(code(k_client.rekey(id, 1, &to_j, &[0]).await), ApiError::Revoked);
    assert_eq!(code(k_client.license(id, None).await), ApiError::Revoked);
    assert_eq!(code(k_client.session().await), ApiError::Revoked);
    assert_eq!(code(k.subscribe(&tracker, &published).await), ApiError::Revoked);
    let seed_to_k = k.ticket(&published, published.seed_id(), soon());
    assert_eq!(code(published.seed(&tracker).seed_keys(id, &seed_to_k, &[0]).await), ApiError::Revoked);
    let refused = tracker.client().announce(&subscribed.passkey, &announce(&published, 1, 5)).await;
    assert!(matches!(refused, Err(Error::AnnounceRefused(reason)) if reason.contains("revoked")));

    // A seed can be revoked as well.
    tracker.admin().revoke(published.seed_id()).await.unwrap();
    let seed_to_j = j.ticket(&published, published.seed_id(), soon());
    assert_eq!(code(published.seed(&tracker).seed_keys(id, &seed_to_j, &[0]).await), ApiError::Revoked);
    assert_eq!(code(tracker.admin().revoke(SubscriberId([1; 32])).await), ApiError::UnknownSubscriber);
    tracker.stop().await;
}

#[tokio::test]
async fn announces_are_for_members() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let elsewhere = Published::new(&tracker).await;
    let client = tracker.client();
    let (_, j) = Device::subscribed(&tracker, &published).await;
    let (_, k) = Device::subscribed(&tracker, &published).await;
    let refused = async |passkey: &Passkey, request: &Announce| match client.announce(passkey, request).await
    {
        Err(Error::AnnounceRefused(reason)) => reason,
        other => panic!("{other:?}"),
    };

    assert_eq!(refused(&Passkey::new([1; 16]), &announce(&published, 1, 5)).await, "unknown passkey");
    let wrong = refused(&j.passkey, &announce(&elsewhere, 1, 5)).await;
    assert_eq!(wrong, "this passkey is for another torrent");

    let seed = client.announce(&published.seed_passkey, &announce(&published, 1, 0)).await.unwrap();
    assert!(seed.peers.is_empty() && seed.now.is_some());
    let first = client.announce(&j.passkey, &announce(&published, 2, 5)).await.unwrap();
    let ports = |peers: &[swarmseal::wire::announce::Peer]| {
        let mut ports: Vec<u16> = peers.iter().map(|peer| peer.address.port()).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!((ports(&first.peers), first.complete, first.incomplete), (vec![1001], 1, 1));
    let dictionaries = Announce { compact: false, ..announce(&published, 3, 5) };
    let second = client.announce(&k.passkey, &dictionaries).await.unwrap();
    assert_eq!(ports(&second.peers), [1001, 1002]);
    assert!(second.peers.iter().all(|peer| peer.id.is_some()));
    assert_eq!(
        ports(&client.announce(&j.passkey, &announce(&published, 2, 5)).await.unwrap().peers),
        [1001, 1003]
    );

    let scrape = Scrape {
        info_hashes: vec![published.metainfo.info_hash, elsewhere.metainfo.info_hash],
        passkey: None,
    };
    let files = client.scrape(&j.passkey, &scrape).await.unwrap().files;
    assert_eq!(files.len(), 1);
    assert_eq!(files[&published.metainfo.info_hash].incomplete, 2);

    // The other places of a passkey, and a query without one.
    let query = announce(&published, 4, 5).to_query();
    let get =
        |path: String| format!("GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").into_bytes();
    for path in [
        format!("/announce/{}?{query}", j.passkey.to_hex()),
        format!("/announce?{query}&passkey={}", j.passkey.to_hex()),
    ] {
        let answer = tracker.raw(&get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("8:interval"), "{answer}");
    }
    let answer = tracker.raw(&get(format!("/announce?{query}"))).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("d14:failure reason15:unknown passkeye"),
        "{answer}"
    );
    tracker.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_outlives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let id = published.id();
    let (j, subscribed) = Device::subscribed(&tracker, &published).await;
    let (k, _) = Device::subscribed(&tracker, &published).await;
    let (revoked, _) = Device::subscribed(&tracker, &published).await;
    let voucher = tracker.admin().create_voucher(published.seal(), Terms::default()).await.unwrap();
    let unused = tracker.admin().create_voucher(published.seal(), Terms::default()).await.unwrap();
    j.client(&tracker).license(id, Some(&voucher)).await.unwrap();
    tracker.admin().revoke(revoked.id).await.unwrap();
    let to_k = k.ticket(&published, j.id, soon());
    let client = j.client(&tracker);
    let before = client.rekey(id, 1, &to_k, &[1]).await.unwrap();

    // What a kill would leave: the files as they are under a running tracker.
    let killed = tempfile::tempdir().unwrap();
    copy(directory.path(), killed.path());
    tracker.stop().await;

    for data in [directory.path(), killed.path()] {
        let tracker = Running::start(data).await;
        let client = j.client(&tracker);
        assert_eq!(client.rekey(id, 1, &to_k, &[1]).await.unwrap().keys, before.keys);
        client.license(id, None).await.unwrap();
        assert_eq!(code(k.client(&tracker).license(id, Some(&voucher)).await), ApiError::UsedVoucher);
        k.client(&tracker).license(id, Some(&unused)).await.unwrap();
        assert_eq!(code(revoked.client(&tracker).session().await), ApiError::Revoked);
        tracker.client().announce(&subscribed.passkey, &announce(&published, 1, 5)).await.unwrap();
        tracker.client().announce(&published.seed_passkey, &announce(&published, 2, 0)).await.unwrap();
        let again = j.subscribe(&tracker, &published).await.unwrap();
        assert_eq!(again.passkey, subscribed.passkey);
        tracker.stop().await;
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_session_is_renewed_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let (device, _) = Device::subscribed(&tracker, &published).await;
    let client = device.client(&tracker);
    client.session().await.unwrap();
    let address = tracker.address;
    tracker.stop().await;
    let tracker = Running::start_at(directory.path(), address).await;
    // The token is of a session that nobody remembers; the client opens another and asks again.
    assert_eq!(code(client.license(published.id(), None).await), ApiError::NotLicensed);
    tracker.stop().await;
}

#[tokio::test]
async fn one_data_directory_has_one_tracker() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::new(directory.path()) };
    let second = Server::bind(config.clone()).await.err().unwrap();
    assert!(matches!(second, TrackerError::InUse { .. }), "{second}");
    assert!(second.to_string().contains("another tracker is running"), "{second}");
    tracker.stop().await;
    let third = Server::bind(config).await.unwrap();
    assert!(!third.admin_token_is_new());
}

#[tokio::test]
async fn the_paper_profile_needs_permission() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let metainfo = metainfo(tracker.authority().await, Profile::Paper);
    let seed_key = SigningKey::generate(&mut UnwrapErr(SysRng)).public();
    let refused = tracker.register(&metainfo, &seed_key).await.unwrap_err();
    assert!(refused.to_string().contains("insecure_paper_profile"), "{refused}");
    tracker.stop().await;

    let insecure = Config { insecure_paper_profile: true, ..Config::new(directory.path()) };
    let tracker = Running::start_with(insecure).await;
    tracker.register(&metainfo, &seed_key).await.unwrap();
    tracker.stop().await;
    let refused = Server::bind(Config::new(directory.path())).await.err().unwrap();
    assert!(matches!(refused, TrackerError::PaperProfile { .. }), "{refused}");
}

#[tokio::test]
async fn a_torrent_is_registered_for_this_tracker_and_once() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let admin = tracker.admin();
    let published = Published::new(&tracker).await;
    let again = tracker.register(&published.metainfo, &published.seed_key.public()).await.unwrap();
    assert_eq!(again.seed_passkey, published.seed_passkey);
    let other_seed = SigningKey::generate(&mut UnwrapErr(SysRng));
    let other = tracker.register(&published.metainfo, &other_seed.public()).await.unwrap();
    assert_ne!(other.seed_passkey, published.seed_passkey);

    let foreign = metainfo(tracker.signed(SigningKey::from_bytes(&[5; 32]).public()), Profile::Sealed);
    assert_eq!(code(tracker.register(&foreign, &other_seed.public()).await), ApiError::BadRequest);
    let info = Info { name: "another".to_owned(), ..published.metainfo.info.clone() };
    let renamed = Metainfo::new(published.metainfo.authority.clone(), info).unwrap();
    assert_eq!(code(tracker.register(&renamed, &other_seed.public()).await), ApiError::BadRequest);

    let list = admin.torrents().await.unwrap();
    assert_eq!(list["torrents"].as_array().unwrap().len(), 1);
    assert_eq!(list["torrents"][0]["torrent_id"], published.id().to_string());
    let (device, _) = Device::subscribed(&tracker, &published).await;
    let subscribers = admin.subscribers(published.id(), None).await.unwrap();
    assert_eq!(subscribers["subscribers"][0]["subscriber"], device.id.to_string());
    assert_eq!(subscribers["subscribers"].as_array().unwrap().len(), 1);
    tracker.stop().await;
}

#[tokio::test]
async fn requests_are_bounded_and_the_admin_api_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let stranger = tracker.guessing();
    assert_eq!(code(stranger.stats().await), ApiError::NoSession);
    assert_eq!(code(stranger.keys().await), ApiError::NoSession);

    let long = vec![b'0'; 20_000];
    let head = format!(
        "POST /subscribe HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        long.len()
    );
    let answer = tracker.raw(&[head.as_bytes(), &long].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("9:too-large"), "{answer}");
    let answer = tracker
        .raw(b"POST /subscribe HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: 2\r\n\r\nle")
        .await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("11:bad-request"), "{answer}");
    let header = format!("GET /health HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "a".repeat(40_000));
    let answer = tracker.raw(header.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");

    for (path, status) in [
        ("/health", 200),
        ("/ready", 200),
        ("/admin/openapi.json", 200),
        ("/admin/stats", 401),
        ("/nothing", 404),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
        let answer = tracker.raw(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    tracker.stop().await;
}

#[tokio::test]
async fn a_stopping_tracker_answers_what_is_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let device = Device::new(&published);
    let request = device.request(&tracker, &published).await;
    let body = swarmseal::wire::bencode::to_bytes(&request);
    // The server has the headers and waits for the body when it is told to stop.
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(tracker.address).await.unwrap();
    let head = format!(
        "POST /subscribe HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    tracker.stop.send(()).unwrap();
    stream.write_all(&body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    tracker.ended.await.unwrap().unwrap();
}

/// Names the subscriber and the piece.
fn cipher_hash(subscriber: &SubscriberId, piece: u8) -> [u8; 20] {
    let mut hash = [piece; 20];
    hash[1..].copy_from_slice(&subscriber.0[..19]);
    hash
}

/// Computes what the tracker asks for, until it asks for nothing.
/// A device's hashes, which a seed has computed because it asks for them.
async fn hashes_of(device: &Device, tracker: &Running, published: &Published) -> (u64, Vec<[u8; 20]>) {
    let (torrent, seed, client) = (published.id(), published.seed(tracker), device.client(tracker));
    client.hashes(torrent, PIECES, 0, true).await.unwrap();
    while let Some(job) = seed.work(torrent).await.unwrap() {
        let count = (job.keys.len() / 256) as u8;
        let hashes = (0..count).flat_map(|at| cipher_hash(&job.subscriber, job.first as u8 + at)).collect();
        let (subscriber, epoch, first) = (job.subscriber, job.epoch, job.first);
        let hashes = NewHashes { torrent_id: torrent, subscriber, epoch, first, hashes };
        seed.add_hashes(&hashes).await.unwrap();
    }
    client.hashes(torrent, PIECES, 0, true).await.unwrap()
}

#[tokio::test]
async fn cipher_hashes_make_a_personal_torrent_that_outlives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let torrent = published.id();
    let (j, _) = Device::subscribed(&tracker, &published).await;
    let (k, subscribed) = Device::subscribed(&tracker, &published).await;
    assert_eq!(k.client(&tracker).hashes(torrent, PIECES, 0, false).await.unwrap(), (1, vec![]));
    assert!(
        published.seed(&tracker).work(torrent).await.unwrap().is_none(),
        "nobody asked for a personal torrent"
    );
    let (epoch, hashes) = hashes_of(&k, &tracker, &published).await;
    assert_eq!(j.client(&tracker).hashes(torrent, PIECES, 0, false).await.unwrap(), (1, vec![]));
    let expected: Vec<_> = (0..PIECES as u8).map(|piece| cipher_hash(&k.id, piece)).collect();
    assert_eq!((epoch, &hashes), (1, &expected));
    assert_eq!(k.client(&tracker).hashes(torrent, PIECES, 3, false).await.unwrap().1, expected[3..]);
    let personal = PersonalTorrent { label: "a film", piece_length: 16384, hashes: &hashes };
    let info_hash = personal.info_hash();
    tracker.stop().await;

    let tracker = Running::start(directory.path()).await;
    assert!(published.seed(&tracker).work(torrent).await.unwrap().is_none(), "it was done before");
    let j_client = j.client(&tracker);
    let name = TorrentName::InfoHash(info_hash);
    let request = PersonalKeysRequest { torrent_id: torrent, epoch: 1, info_hash, pieces: vec![0, 1] };
    // Nobody has announced it: nobody is there to be served.
    assert_eq!(code(j_client.personal(torrent, name).await), ApiError::UnknownPersonal);
    assert_eq!(code(j_client.personal_keys(&request).await), ApiError::UnknownPersonal);
    let here = announce(&published, 7, 0);
    tracker.client().announce(&published.seed_passkey, &here).await.unwrap();
    let client = Announce { info_hash, ..announce(&published, 8, 1000) };
    // Not with somebody else's passkey.
    assert!(tracker.client().announce(&published.seed_passkey, &client).await.is_err());
    let found = tracker.client().announce(&subscribed.passkey, &client).await.unwrap();
    // It is told of the sealed torrent's peers, who are not told of it.
    assert_eq!(found.peers.iter().map(|peer| peer.address.port()).collect::<Vec<_>>(), [1007]);
    let again = tracker.client().announce(&published.seed_passkey, &here).await.unwrap();
    assert!(again.peers.is_empty() && again.complete == 1 && again.incomplete == 0);

    // An obfuscated call names it hidden.
    for name in [name, TorrentName::Hidden(hidden_name(&info_hash))] {
        let found = j_client.personal(torrent, name).await.unwrap();
        assert_eq!((found.subscriber, found.info_hash), (k.id, info_hash));
    }
    let hidden_wrongly = TorrentName::Hidden(info_hash);
    assert_eq!(code(j_client.personal(torrent, hidden_wrongly).await), ApiError::UnknownPersonal);
    let keys = j_client.personal_keys(&request).await.unwrap();
    let by_ticket = j_client.rekey(torrent, 1, &k.ticket(&published, j.id, soon()), &[0, 1]).await.unwrap();
    assert!(keys.keys == by_ticket.keys, "they are k's re-keys");
    let from_seed = published.seed(&tracker).personal_keys(&request).await.unwrap();
    assert_ne!(from_seed.keys, keys.keys);

    // Another epoch has hashes, and a personal torrent, of its own. The client goes on with the old one until that is retired.
    tracker.admin().begin_epoch(None).await.unwrap();
    assert_eq!(k.client(&tracker).hashes(torrent, PIECES, 0, true).await.unwrap(), (2, vec![]));
    assert_eq!(published.seed(&tracker).work(torrent).await.unwrap().map(|job| job.epoch), Some(2));
    assert!(j_client.personal_keys(&request).await.unwrap().keys == keys.keys);
    let moved = PersonalKeysRequest { epoch: 2, ..request.clone() };
    assert!(j_client.personal_keys(&moved).await.unwrap().keys != keys.keys);
    tracker.admin().retire_epochs(None, 2).await.unwrap();
    assert_eq!(code(j_client.personal_keys(&moved).await), ApiError::UnknownPersonal);
    tracker.stop().await;
}

#[tokio::test]
async fn personal_torrents_are_no_way_to_harvest_keys() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let (published, other) = (Published::new(&tracker).await, Published::new(&tracker).await);
    let torrent = published.id();
    let (j, _) = Device::subscribed(&tracker, &published).await;
    let (k, subscribed) = Device::subscribed(&tracker, &published).await;
    let (stranger, _) = Device::subscribed(&tracker, &other).await;
    let (_, hashes) = hashes_of(&k, &tracker, &published).await;
    let info_hash = PersonalTorrent { label: "a film", piece_length: 16384, hashes: &hashes }.info_hash();
    let client = Announce { info_hash, ..announce(&published, 8, 1000) };
    tracker.client().announce(&subscribed.passkey, &client).await.unwrap();

    // Work, and with it encryption keys, are for the torrent's own seeds.
    assert_eq!(code(j.client(&tracker).work(torrent).await), ApiError::WrongRole);
    assert_eq!(code(other.seed(&tracker).work(torrent).await), ApiError::WrongTorrent);
    let forged = NewHashes { torrent_id: torrent, subscriber: k.id, epoch: 1, first: 0, hashes: vec![0; 20] };
    assert_eq!(code(j.client(&tracker).add_hashes(&forged).await), ApiError::WrongRole);
    assert_eq!(code(published.seed(&tracker).add_hashes(&forged).await), ApiError::BadHashes);
    for hashes in [vec![], vec![0; 19], vec![0; 20 * (PIECES as usize + 1)]] {
        let odd = NewHashes { hashes, ..forged.clone() };
        assert_eq!(code(published.seed(&tracker).add_hashes(&odd).await), ApiError::BadHashes);
    }
    // Somebody else's hashes cannot be asked for, nor its keys by members of other torrents.
    assert_eq!(
        code(stranger.client(&tracker).hashes(torrent, PIECES, 0, true).await),
        ApiError::WrongTorrent
    );
    let request = PersonalKeysRequest { torrent_id: torrent, epoch: 1, info_hash, pieces: vec![0] };
    assert_eq!(code(stranger.client(&tracker).personal_keys(&request).await), ApiError::WrongTorrent);
    assert_eq!(
        code(stranger.client(&tracker).personal(torrent, TorrentName::InfoHash(info_hash)).await),
        ApiError::WrongTorrent
    );
    let elsewhere = PersonalKeysRequest { torrent_id: other.id(), ..request.clone() };
    assert_eq!(code(stranger.client(&tracker).personal_keys(&elsewhere).await), ApiError::UnknownPersonal);
    let far = PersonalKeysRequest { pieces: vec![PIECES], ..request.clone() };
    assert_eq!(code(j.client(&tracker).personal_keys(&far).await), ApiError::BadPiece);
    // A key is given a few times, for a client that comes back; then no more.
    for _ in 0..4 {
        j.client(&tracker).personal_keys(&request).await.unwrap();
    }
    assert_eq!(code(j.client(&tracker).personal_keys(&request).await), ApiError::Rate);
    // From it: only once its client has everything, and as often.
    assert_eq!(code(j.client(&tracker).pull_keys(&request).await), ApiError::UnknownPersonal);
    let only = async |client: Client| {
        let clients = client.personal_clients(torrent).await.unwrap().clients;
        assert_eq!((clients.len(), clients[0].subscriber, clients[0].info_hash), (1, k.id, info_hash));
        clients[0].complete
    };
    assert_eq!(only(j.client(&tracker)).await, 0);
    assert_eq!(only(published.seed(&tracker)).await, 0, "a seed calls clients as well");
    assert!(k.client(&tracker).personal_clients(torrent).await.unwrap().clients.is_empty(), "its own");
    let complete = Announce { left: 0, event: Some(Event::Completed), ..client };
    tracker.client().announce(&subscribed.passkey, &complete).await.unwrap();
    assert_eq!(only(j.client(&tracker)).await, 1);
    assert_eq!(code(stranger.client(&tracker).personal_clients(torrent).await), ApiError::WrongTorrent);
    assert_eq!(code(stranger.client(&tracker).pull_keys(&request).await), ApiError::WrongTorrent);
    let back = k.client(&tracker).rekey(torrent, 1, &j.ticket(&published, k.id, soon()), &[0]).await.unwrap();
    for _ in 0..4 {
        assert!(j.client(&tracker).pull_keys(&request).await.unwrap().keys == back.keys);
    }
    assert_eq!(code(j.client(&tracker).pull_keys(&request).await), ApiError::Rate);
    // Nor for one who was revoked or has left.
    let gone = Announce { event: Some(Event::Stopped), ..client };
    tracker.client().announce(&subscribed.passkey, &gone).await.unwrap();
    assert_eq!(code(j.client(&tracker).personal_keys(&request).await), ApiError::UnknownPersonal);
    tracker.client().announce(&subscribed.passkey, &client).await.unwrap();
    tracker.admin().revoke(k.id).await.unwrap();
    assert_eq!(code(published.seed(&tracker).personal_keys(&request).await), ApiError::Revoked);
    tracker.stop().await;
}
