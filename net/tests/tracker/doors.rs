//! Floods of every kind from some networks, and calls of others in the meantime: nobody who is honest is kept out.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// No step of these tests takes nearly as long.
const DEADLINE: Duration = Duration::from_secs(60);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("nothing happened")
}

/// A network that floods, one that is honest, and so many others.
const FLOODER: [u8; 4] = [127, 0, 0, 66];
const HONEST: [u8; 4] = [127, 0, 0, 7];

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n").into_bytes()
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Asks on a connection that stays; the status.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<u16> {
    stream.write_all(request).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await?;
    Ok(head[9..12].parse().unwrap())
}

/// Whether the other side has closed it, without waiting.
fn is_closed(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0; 256]), Ok(0)) || stream.take_error().is_ok_and(|error| error.is_some())
}

/// An order that no license server has signed, after a fresh meeting.
async fn forged_order(tracker: &Running, published: &Published) -> Vec<u8> {
    use swarmseal::wire::api::{LicenseOrder, LicenseWord};
    let contact = tracker.client().identify().await.unwrap();
    let key = SigningKey::from_bytes(&[9; 32]);
    let word = LicenseWord {
        torrent_id: published.id(),
        subscriber: published.seed_id(),
        server: key.public(),
        contact,
        epoch: None,
        voucher: None,
        signature: [0; 64],
    };
    swarmseal::wire::bencode::to_bytes(&LicenseOrder::new(word.signed(&key), &key))
}

/// Attack 9: each route that asks for no session, flooded.
#[tokio::test(flavor = "multi_thread")]
async fn floods_of_a_route_count_against_their_network_and_take_no_worker() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        workers: Some(1),
        max_waiting_calls: 1,
        address_calls_burst: 50,
        address_calls_per_second: 1,
        ..Config::new(directory.path())
    };
    let tracker = Running::start_with(config).await;
    let published = Published::new(&tracker).await;
    let (device, subscribed) = Device::subscribed(&tracker, &published).await;
    let client = device.client(&tracker).with_patience(Duration::ZERO);
    client.passkey(published.id(), false).await.unwrap();
    let order = forged_order(&tracker, &published).await;
    for (network, request) in [
        get("/metrics"),
        get("/ready"),
        get("/health"),
        get("/nothing"),
        get("/admin/openapi.json"),
        get("/admin/stats"),
        get(&format!("/{}/announce", "0".repeat(64))),
        get("/scrape"),
        get(&format!("/identify?nonce={}&origin=http://t", "00".repeat(32))),
        post("/subscribe", b"d"),
        post("/session", b"d"),
        post("/witness", b"d"),
        post("/license", b"d"),
        post("/license/order", &order),
    ]
    .into_iter()
    .enumerate()
    {
        let mut flooders = Vec::new();
        for _ in 0..4 {
            flooders.push(tracker.connect_from([127, 0, 1, network as u8]).await);
        }
        let floods = flooders.into_iter().map(|mut stream| {
            let request = request.clone();
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                while !statuses.contains(&429) && statuses.len() < 100 {
                    statuses.push(in_time(ask(&mut stream, &request)).await.unwrap());
                }
                statuses
            })
        });
        let floods: Vec<_> = floods.collect();
        // A session's, a passkey's, and a stranger's of another network: none is told that there is too much to do.
        for _ in 0..20 {
            client.passkey(published.id(), false).await.unwrap();
            client.announce(&subscribed.passkey, &announce(&published, 1, 0)).await.unwrap();
        }
        let other = [127, 0, 2, network as u8];
        assert!(in_time(tracker.raw_from(other, &closing(&get("/ready")))).await.starts_with("HTTP/1.1 200"));
        let mut statuses = Vec::new();
        for flood in floods {
            statuses.extend(in_time(flood).await.unwrap());
        }
        let what = String::from_utf8_lossy(&request).lines().next().unwrap().to_owned();
        assert!(statuses.contains(&429), "{what}: nothing was refused");
        assert!(!statuses.contains(&503), "{what}: {statuses:?}");
    }
    tracker.stop().await;
}

fn closing(request: &[u8]) -> Vec<u8> {
    String::from_utf8(request.to_vec())
        .unwrap()
        .replacen("host: t", "host: t\r\nconnection: close", 1)
        .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_network_s_subscriptions_are_bounded_and_another_s_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { address_subscriptions_per_day: 2, ..Config::new(directory.path()) };
    let tracker = Running::start_with(config).await;
    let published = Published::new(&tracker).await;
    let subscribe = async |network: [u8; 4], device: &Device| {
        let request = device.request(&tracker, &published).await;
        let request = post("/subscribe", &swarmseal::wire::bencode::to_bytes(&request));
        in_time(ask(&mut tracker.connect_from(network).await, &request)).await.unwrap()
    };
    let devices: Vec<Device> = (0..4).map(|_| Device::new(&published)).collect();
    assert_eq!(subscribe(FLOODER, &devices[0]).await, 200);
    assert_eq!(subscribe(FLOODER, &devices[1]).await, 200);
    assert_eq!(subscribe(FLOODER, &devices[2]).await, 429);
    // One that is subscribed already is no new one.
    assert_eq!(subscribe(FLOODER, &devices[0]).await, 200);
    assert_eq!(subscribe(HONEST, &devices[2]).await, 200);
    for device in &devices {
        device.subscribe(&tracker, &published).await.unwrap();
    }
    tracker.stop().await;

    // As many as there are: the seed has a passkey, too.
    let config = Config { max_subscribers: 5, ..Config::new(directory.path()) };
    let tracker = Running::start_with(config).await;
    devices[0].subscribe(&tracker, &published).await.unwrap();
    assert_eq!(code(Device::new(&published).subscribe(&tracker, &published).await), ApiError::Full);
    tracker.stop().await;
}

/// Attack 9b, with places for few: idle connections, uploads that trickle, headers that trickle.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_and_trickling_uploads_keep_nobody_out() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { max_connections: 40, reserved_percent: 25, ..Config::new(directory.path()) };
    let tracker = Running::start_with(config).await;
    let published = Published::new(&tracker).await;
    let (_, subscribed) = Device::subscribed(&tracker, &published).await;
    let hash: String = published.metainfo.info_hash.iter().map(|byte| format!("%{byte:02x}")).collect();
    let announce = get(&format!(
        "/{}/announce?info_hash={hash}&peer_id=-XX0000-123456789012&port=7&uploaded=0&downloaded=0&left=0",
        subscribed.passkey.to_hex()
    ));
    let mut member = tracker.connect_from(HONEST).await;
    assert_eq!(in_time(ask(&mut member, &announce)).await.unwrap(), 200);

    let upload = post("/session", &[b'd'; 1000]);
    for (number, begun) in
        [&b""[..], b"GET /health HTTP/1.1\r\nhost:", &upload[..200]].into_iter().enumerate()
    {
        let mut flood = Vec::new();
        for host in 0..200 {
            // Of this machine, of one network, and of a hundred.
            let from = match host % 4 {
                0 => [127, 0, 0, 1],
                1 => FLOODER,
                _ => [127, 0, 3, host],
            };
            let mut stream = tracker.connect_from(from).await;
            stream.write_all(begun).await.unwrap();
            flood.push(stream);
        }
        for network in 0..40 {
            let mut stranger = tracker.connect_from([127, 0, 4 + number as u8, network]).await;
            let status = in_time(ask(&mut stranger, &get("/ready"))).await.unwrap();
            assert_eq!(status, 200, "a stranger was kept out");
        }
        // The member's connection has kept its place.
        assert_eq!(in_time(ask(&mut member, &announce)).await.unwrap(), 200);
        in_time(async {
            while flood.iter().filter(|stream| !is_closed(stream)).count() > 30 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    tracker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_network_has_so_many_connections() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { max_connections_per_address: 5, ..Config::new(directory.path()) };
    let tracker = Running::start_with(config).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(tracker.connect_from(FLOODER).await);
    }
    for stream in &mut held {
        assert_eq!(in_time(ask(stream, &get("/health"))).await.unwrap(), 200);
    }
    // The sixth is closed.
    let mut sixth = tracker.connect_from(FLOODER).await;
    assert!(in_time(ask(&mut sixth, &get("/health"))).await.is_err());
    assert_eq!(in_time(ask(&mut tracker.connect_from(HONEST).await, &get("/health"))).await.unwrap(), 200);
    let mut local = Vec::new();
    for _ in 0..20 {
        local.push(tracker.connect_from([127, 0, 0, 1]).await);
    }
    for stream in local.iter_mut().chain(&mut held) {
        assert_eq!(in_time(ask(stream, &get("/health"))).await.unwrap(), 200);
    }
    tracker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_network_opens_so_many_connections_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        address_connections_per_second: 1,
        address_connections_burst: 5,
        ..Config::new(directory.path())
    };
    let tracker = Running::start_with(config).await;
    let mut answered = 0;
    for _ in 0..100 {
        answered +=
            u32::from(in_time(ask(&mut tracker.connect_from(FLOODER).await, &get("/health"))).await.is_ok());
    }
    assert!((5..100).contains(&answered), "{answered}");
    assert_eq!(in_time(ask(&mut tracker.connect_from(HONEST).await, &get("/health"))).await.unwrap(), 200);
    tracker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_handshakes_of_one_network_displace_each_other() {
    let (directory, certified) = (tempfile::tempdir().unwrap(), access::Certified::new());
    let config = Config {
        max_handshakes_per_address: 2,
        handshake_seconds: 3600,
        ..certified.config(directory.path())
    };
    let tracker = Running::start_with(config).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tracker.connect_from(FLOODER).await);
    }
    let of_other = tracker.connect_from(HONEST).await;
    in_time(async {
        while silent.iter().filter(|stream| !is_closed(stream)).count() > 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!is_closed(&of_other));
    tracker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_a_listener_of_their_own_if_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let metrics_listen = Some("127.0.0.1:0".parse().unwrap());
    let tracker = Running::start_with(Config { metrics_listen, ..Config::new(directory.path()) }).await;
    let of_metrics = tracker.metrics.unwrap();
    let status = async |address: SocketAddr, path: &str| {
        in_time(ask(&mut TcpStream::connect(address).await.unwrap(), &get(path))).await.unwrap()
    };
    for (path, there, here) in
        [("/metrics", 404, 200), ("/health", 200, 200), ("/ready", 200, 200), ("/identify", 400, 404)]
    {
        assert_eq!(status(tracker.address, path).await, there, "{path}");
        assert_eq!(status(of_metrics, path).await, here, "{path}");
    }
    let mut stays = TcpStream::connect(of_metrics).await.unwrap();
    assert_eq!(in_time(ask(&mut stays, &get("/metrics"))).await.unwrap(), 200);
    in_time(tracker.stop()).await;
    assert!(TcpStream::connect(of_metrics).await.is_err());
}
