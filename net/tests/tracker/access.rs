//! Who gets in, how, and how often: TLS, passkeys that are replaced, limits, clients that are too slow.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::Version;
use swarmseal::tracker::TlsError;
use swarmseal::tracker_client::trust;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

/// No step of these tests takes nearly as long.
const DEADLINE: Duration = Duration::from_secs(60);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("nothing happened")
}

/// An authority, and a directory with a certificate of it for 127.0.0.1.
pub(super) struct Certified {
    directory: tempfile::TempDir,
    authority: String,
}

impl Certified {
    pub(super) fn new() -> Self {
        let certified = Certified { directory: tempfile::tempdir().unwrap(), authority: String::new() };
        certified.renewed()
    }

    /// A certificate of another authority in the same place.
    fn renewed(mut self) -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self.authority = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(self.path("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(self.path("ca.pem"), &self.authority).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn config(&self, data: &Path) -> Config {
        let (tls_certificate, tls_key) = (Some(self.path("cert.pem")), Some(self.path("key.pem")));
        Config { tls_certificate, tls_key, ..Config::new(data) }
    }

    /// A client that trusts this authority alone.
    fn http(&self) -> reqwest::ClientBuilder {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = reqwest::Certificate::from_pem(self.authority.as_bytes()).unwrap();
        reqwest::Client::builder().tls_certs_only([authority])
    }

    /// A connection that offers these protocols.
    async fn connect(&self, tracker: &Running, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        use rustls::pki_types::pem::PemObject;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut roots = rustls::RootCertStore::empty();
        let authority = rustls::pki_types::CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(tracker.address).await.unwrap();
        let name = rustls::pki_types::ServerName::IpAddress(IpAddr::from(Ipv4Addr::LOCALHOST).into());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }
}

/// One number of `/metrics`.
async fn metric(tracker: &Running, name: &str) -> u64 {
    let metrics = tracker.client().metrics().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("swarmseal_tracker_{name} ")));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// Reads until the other side ends it, in order or not.
async fn until_cut(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = in_time(stream.read_to_end(&mut bytes)).await;
    bytes
}

#[tokio::test]
async fn everything_works_by_tls_and_by_http2() {
    let (directory, certified) = (tempfile::tempdir().unwrap(), Certified::new());
    let tracker = Running::start_with(certified.config(directory.path())).await;
    assert!(tracker.url.starts_with("https://"), "{}", tracker.url);
    // An authority that nobody has heard of is not trusted, and then it is.
    let error = tracker.client().identify().await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    trust(&certified.path("ca.pem")).unwrap();
    let published = Published::new(&tracker).await;
    let (device, subscribed) = Device::subscribed(&tracker, &published).await;
    let client = device.client(&tracker);
    assert_eq!(client.passkey(published.id(), false).await.unwrap(), subscribed.passkey);
    client.announce(&subscribed.passkey, &announce(&published, 1, 0)).await.unwrap();

    for (builder, version) in
        [(certified.http(), Version::HTTP_2), (certified.http().http1_only(), Version::HTTP_11)]
    {
        let answer = builder.build().unwrap().get(format!("{}/health", tracker.url)).send().await.unwrap();
        assert_eq!((answer.version(), answer.status().as_u16()), (version, 200));
    }
    // Plain HTTP is not spoken at this port.
    let plain = tracker.raw(b"GET /health HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert!(!plain.contains("HTTP/1.1"), "{plain}");
    assert!(metric(&tracker, "tls_handshakes_total").await >= 3);
    assert!(metric(&tracker, "tls_handshakes_failed_total").await >= 2);
    tracker.stop().await;
}

#[tokio::test]
async fn a_certificate_is_replaced_and_connections_go_on() {
    let (directory, certified) = (tempfile::tempdir().unwrap(), Certified::new());
    let tracker = Running::start_with(certified.config(directory.path())).await;
    let health = format!("{}/health", tracker.url);
    let old = certified.http().build().unwrap();
    old.get(&health).send().await.unwrap().bytes().await.unwrap();
    let first = certified.authority.clone();

    let certified = certified.renewed();
    let before = old.get(&health).send().await.unwrap();
    assert_eq!(before.status(), 200);
    tracker.reloader.reload().unwrap();
    // The old connection is still in use: its client would not trust a new one.
    let mut stayed = old.get(&health).send().await.unwrap();
    while stayed.chunk().await.unwrap().is_some() {}
    let new = certified.http().build().unwrap();
    assert_eq!(new.get(&health).send().await.unwrap().status(), 200);
    let authority = reqwest::Certificate::from_pem(first.as_bytes()).unwrap();
    let distrustful = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    assert!(distrustful.get(&health).send().await.unwrap_err().is_connect());

    // What cannot be read changes nothing.
    std::fs::write(certified.path("key.pem"), "no key").unwrap();
    assert!(matches!(tracker.reloader.reload(), Err(TlsError::Pem { .. })));
    let newer = certified.http().build().unwrap();
    assert_eq!(newer.get(&health).send().await.unwrap().status(), 200);
    tracker.stop().await;
}

#[tokio::test]
async fn plain_http_stays_on_this_machine_unless_told() {
    let directory = tempfile::tempdir().unwrap();
    let anywhere = Config { listen: "0.0.0.0:0".parse().unwrap(), ..Config::new(directory.path()) };
    let refused = Server::bind(anywhere.clone()).await.err().unwrap();
    assert!(matches!(refused, TrackerError::PlainHttp { .. }));
    assert!(refused.to_string().contains("--insecure-http"), "{refused}");
    let mapped = Config { listen: "[::ffff:127.0.0.1]:0".parse().unwrap(), ..anywhere.clone() };
    drop(Server::bind(mapped).await.unwrap());
    let told = Running::start_exactly(Config { insecure_http: true, ..anywhere.clone() }).await;
    told.stop().await;
    let encrypted = Config { listen: anywhere.listen, ..Certified::new().config(directory.path()) };
    // The directory of its certificate is gone: that is said, too.
    assert!(matches!(Server::bind(encrypted).await.err().unwrap(), TrackerError::Tls(TlsError::Pem { .. })));
    let certified = Certified::new();
    let encrypted = Config { listen: anywhere.listen, ..certified.config(directory.path()) };
    Running::start_exactly(encrypted).await.stop().await;
}

#[tokio::test]
async fn slow_clients_are_cut() {
    let (directory, certified) = (tempfile::tempdir().unwrap(), Certified::new());
    let config = Config {
        idle_seconds: 1,
        body_seconds: 1,
        unread_seconds: 1,
        handshake_seconds: 1,
        ..Config::new(directory.path())
    };
    let tracker = Running::start_with(config).await;
    let open = async || TcpStream::connect(tracker.address).await.unwrap();

    // Headers that do not come to an end.
    let mut stream = open().await;
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: t\r\n").await.unwrap();
    let cut = until_cut(&mut stream).await;
    assert!(!String::from_utf8_lossy(&cut).contains("200 OK"));
    // Nothing after a first request.
    let mut stream = open().await;
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
    let kept = String::from_utf8(until_cut(&mut stream).await).unwrap();
    assert!(kept.starts_with("HTTP/1.1 200") && kept.ends_with("ok\n"), "{kept}");
    // A body that does not come.
    let before = metric(&tracker, "slow_clients_total").await;
    let mut stream = open().await;
    stream.write_all(b"POST /session HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\nd2:").await.unwrap();
    let cut = String::from_utf8(until_cut(&mut stream).await).unwrap();
    assert!(cut.starts_with("HTTP/1.1 408") && cut.contains("connection: close"), "{cut}");
    assert_eq!(metric(&tracker, "slow_clients_total").await, before + 1);
    // Answers that nobody reads: more of them than fit between the two.
    let mut stream = open().await;
    let requests = b"GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n".repeat(2000);
    let _ = in_time(stream.write_all(&requests)).await;
    in_time(async { while metric(&tracker, "slow_clients_total").await < before + 2 {} }).await;
    tracker.stop().await;

    // The same by TLS, and the handshake itself.
    let encrypted = certified.config(directory.path());
    let encrypted = Config { idle_seconds: 1, body_seconds: 1, handshake_seconds: 1, ..encrypted };
    let tracker = Running::start_with(encrypted).await;
    let mut silent = TcpStream::connect(tracker.address).await.unwrap();
    assert_eq!(until_cut(&mut silent).await, b"");
    let mut stream = certified.connect(&tracker, &[b"http/1.1"]).await;
    stream.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
    assert!(!String::from_utf8_lossy(&until_cut(&mut stream).await).contains("200 OK"));
    // HTTP/2 with nothing to say: the preface, and settings of no length.
    let mut stream = certified.connect(&tracker, &[b"h2"]).await;
    let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    stream.write_all(&hello).await.unwrap();
    let said = until_cut(&mut stream).await;
    // A frame's type is its fourth byte; 7 is GOAWAY.
    let mut frames = said.as_slice();
    let mut kinds = Vec::new();
    while let [a, b, c, kind, ..] = *frames {
        kinds.push(kind);
        frames = frames.get(9 + usize::from(a) * 65_536 + usize::from(b) * 256 + usize::from(c)..).unwrap();
    }
    assert!(kinds.contains(&7), "{kinds:?}");
    // And a body by HTTP/2 that does not come.
    let (sender, body) = pending_body();
    let post = certified.http().build().unwrap().post(format!("{}/session", tracker.url)).body(body);
    let answer = in_time(post.send()).await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_2, 408));
    drop(sender);
    tracker.stop().await;
}

/// A body that has no end while the sender lives.
fn pending_body() -> (oneshot::Sender<()>, reqwest::Body) {
    struct Pending(oneshot::Receiver<()>);
    impl http_body::Body for Pending {
        type Data = bytes::Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
            std::pin::Pin::new(&mut self.0).poll(context).map(|_| None)
        }
    }
    let (sender, receiver) = oneshot::channel();
    (sender, reqwest::Body::wrap(Pending(receiver)))
}

#[tokio::test]
async fn each_subscriber_and_each_address_has_an_allowance() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        calls_per_second: 1,
        calls_burst: 3,
        announces_per_second: 1,
        announces_burst: 2,
        ..Config::new(directory.path())
    };
    let tracker = Running::start_with(config).await;
    let published = Published::new(&tracker).await;
    let (one, subscribed) = Device::subscribed(&tracker, &published).await;
    let (other, _) = Device::subscribed(&tracker, &published).await;
    let (one, other) = (one.client(&tracker), other.client(&tracker));
    let mut refused = None;
    let hasty = one.with_patience(Duration::ZERO);
    for _ in 0..100 {
        if let Err(error) = hasty.passkey(published.id(), false).await {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused.unwrap().code(), Some(ApiError::Rate));
    // Who waits as long as he is told, and no longer, is answered: a second after the other.
    let begun = std::time::Instant::now();
    for _ in 0..3 {
        in_time(one.passkey(published.id(), false)).await.unwrap();
    }
    assert!((1..20).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(code(hasty.passkey(published.id(), false).await), ApiError::Rate);
    // Another has its own, and a seed is not limited.
    other.passkey(published.id(), false).await.unwrap();
    let seed = published.seed(&tracker);
    for _ in 0..10 {
        seed.passkey(published.id(), false).await.unwrap();
    }
    let mut refused = None;
    for _ in 0..100 {
        if let Err(error) = one.announce(&subscribed.passkey, &announce(&published, 1, 0)).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(Error::AnnounceRefused(ref reason)) if reason.contains("too many")));
    assert!(metric(&tracker, "rate_limited_total").await >= 2);
    tracker.stop().await;

    let config =
        Config { address_calls_per_second: 1, address_calls_burst: 2, ..Config::new(directory.path()) };
    let tracker = Running::start_with(config).await;
    let mut answers = Vec::new();
    while !answers.last().is_some_and(|answer: &String| answer.contains(" 429 ")) && answers.len() < 20 {
        let request = request_to_identify();
        answers.push(tracker.raw_from([127, 0, 0, 2], request.as_bytes()).await);
    }
    assert!(answers[0].starts_with("HTTP/1.1 200"), "{}", answers[0]);
    let refused = answers.iter().find(|answer| answer.starts_with("HTTP/1.1 429")).unwrap();
    assert!(refused.contains("retry-after: 1\r\n") && refused.contains("4:code4:rate"), "{refused}");
    // Who guesses at admin tokens is one of those.
    let guess = format!(
        "GET /admin/stats HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        "00".repeat(32)
    );
    let mut guesses = Vec::new();
    while !guesses.last().is_some_and(|answer: &String| answer.contains(" 429 ")) && guesses.len() < 20 {
        guesses.push(tracker.raw_from([127, 0, 0, 3], guess.as_bytes()).await);
    }
    assert!(guesses[0].starts_with("HTTP/1.1 401"), "{}", guesses[0]);
    assert!(guesses.iter().any(|answer| answer.contains("\"code\":\"rate\"")), "{guesses:?}");
    // Another address has its own allowance, and this machine is not counted.
    assert!(tracker.raw_from([127, 0, 0, 4], guess.as_bytes()).await.starts_with("HTTP/1.1 401"));
    for _ in 0..20 {
        assert!(tracker.raw(request_to_identify().as_bytes()).await.starts_with("HTTP/1.1 200"));
    }
    assert!(tracker.admin().stats().await.is_ok());
    tracker.stop().await;
}

fn request_to_identify() -> String {
    let nonce = "00".repeat(32);
    format!("GET /identify?nonce={nonce}&origin=http://t HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn passkeys_are_replaced_by_their_owner_and_by_the_admin() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let (device, subscribed) = Device::subscribed(&tracker, &published).await;
    let (client, first) = (device.client(&tracker), subscribed.passkey);
    let asked = announce(&published, 1, 0);
    client.announce(&first, &asked).await.unwrap();

    let second = client.passkey(published.id(), true).await.unwrap();
    assert_ne!(second, first);
    let stolen = tracker.client().announce(&first, &asked).await;
    assert!(matches!(stolen, Err(Error::AnnounceRefused(_))), "{stolen:?}");
    client.announce(&second, &asked).await.unwrap();
    assert_eq!(device.subscribe(&tracker, &published).await.unwrap().passkey, second);

    tracker.admin().rotate_passkey(device.id).await.unwrap();
    assert!(client.announce(&second, &asked).await.is_err());
    let third = client.passkey(published.id(), false).await.unwrap();
    client.announce(&third, &asked).await.unwrap();
    // A seed's, likewise.
    tracker.admin().rotate_passkey(published.seed_id()).await.unwrap();
    assert!(client.announce(&published.seed_passkey, &asked).await.is_err());
    let of_seed = published.seed(&tracker).passkey(published.id(), false).await.unwrap();
    client.announce(&of_seed, &asked).await.unwrap();

    // Another torrent's session does not have it, nor does anybody without a session.
    let elsewhere = Published::new(&tracker).await;
    assert_eq!(code(client.passkey(elsewhere.id(), true).await), ApiError::WrongTorrent);
    assert_eq!(
        code(tracker.admin().rotate_passkey(SubscriberId([9; 32])).await),
        ApiError::UnknownSubscriber
    );
    tracker.stop().await;

    let tracker = Running::start(directory.path()).await;
    let client = device.client(&tracker);
    assert!(client.announce(&first, &asked).await.is_err());
    assert!(client.announce(&second, &asked).await.is_err());
    client.announce(&third, &asked).await.unwrap();
    tracker.admin().revoke(device.id).await.unwrap();
    assert!(client.announce(&third, &asked).await.is_err());
    assert_eq!(code(client.passkey(published.id(), true).await), ApiError::Revoked);
    assert_eq!(code(tracker.admin().rotate_passkey(device.id).await), ApiError::Revoked);
    tracker.stop().await;
}

#[tokio::test]
async fn the_tracker_is_ready_until_it_is_told_to_stop_and_drains() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { drain_seconds: 2, ..Config::new(directory.path()) };
    let tracker = Running::start_with(config).await;
    let ready = async |address: SocketAddr| {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.get(9..12).map(str::to_owned)
    };
    assert_eq!(ready(tracker.address).await.as_deref(), Some("200"));
    let (address, client) = (tracker.address, tracker.client());
    tracker.stop.send(()).unwrap();
    in_time(async { while ready(address).await.as_deref() == Some("200") {} }).await;
    // It says no, and still serves.
    assert_eq!(ready(address).await.as_deref(), Some("503"));
    client.identify().await.unwrap();
    in_time(tracker.ended).await.unwrap().unwrap();
    assert_eq!(ready(address).await, None);
}

#[tokio::test]
async fn stopping_takes_bounded_time_though_a_client_does_not_end() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { shutdown_seconds: 1, body_seconds: 3600, ..Config::new(directory.path()) };
    let tracker = Running::start_with(config).await;
    let mut stream = TcpStream::connect(tracker.address).await.unwrap();
    let head = b"POST /session HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 100\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    in_time(tracker.stop()).await;
}
