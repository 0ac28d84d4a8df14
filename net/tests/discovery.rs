//! Peers found without a tracker, on loopback: by the DHT, on the local network; and who is never looked for there.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use sha1::{Digest, Sha1};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use swarmseal::peer::{
    Announce, AnnounceReply, BoxFuture, DhtConfig, FileStore, KeyError, LsdConfig, Member, Node, NodeConfig,
    PlainSource, Role, Stats, Torrent, TorrentConfig, Tracker,
};
use swarmseal::wire::identity::SigningKey;
use swarmseal::wire::layout::Layout;
use swarmseal::wire::lsd::Search;
use swarmseal::wire::plain::{PlainMetainfo, PlainTorrent};
use swarmseal::wire::seal::Hello;
use swarmseal_core::package::PackageSecret;
use swarmseal_core::{Exponents, Group, Kernels, Params, Profile, SubscriberId, TorrentId};
use tokio::net::TcpListener;
use tokio::time::timeout;

const PIECE_LEN: u32 = 16 * 1024;
const PIECES: u32 = 5;
const DEADLINE: Duration = Duration::from_secs(60);

/// Knows nobody.
struct NoTracker;

impl Tracker for NoTracker {
    fn announce<'a>(&'a self, _: &'a Announce) -> BoxFuture<'a, Result<AnnounceReply, String>> {
        Box::pin(async {
            Ok(AnnounceReply { interval: Duration::from_secs(3600), peers: Vec::new(), epoch: None })
        })
    }

    fn rekeys<'a>(
        &'a self,
        _: &'a [u8],
        _: u64,
        _: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        Box::pin(async { Err(KeyError::Unavailable(String::new())) })
    }

    fn encryption_keys<'a>(
        &'a self,
        _: &'a [u8],
        _: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        Box::pin(async { Err(KeyError::Unavailable(String::new())) })
    }

    fn witness_keys<'a>(&'a self, _: u64, _: &'a [u32]) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        Box::pin(async { Err(KeyError::Unavailable(String::new())) })
    }

    fn now(&self) -> u64 {
        1_000_000
    }
}

/// Every piece the same.
struct Content;

impl PlainSource for Content {
    fn read_payload(&self, _: u32, payload: &mut [u8]) -> io::Result<()> {
        payload.fill(7);
        Ok(())
    }
}

/// An ordinary torrent, by its name.
fn metainfo(name: &str, private: bool) -> PlainMetainfo {
    let piece: [u8; 20] = Sha1::digest([7; PIECE_LEN as usize]).into();
    let torrent = PlainTorrent {
        name,
        files: None,
        length: u64::from(PIECES * PIECE_LEN),
        piece_len: PIECE_LEN,
        pieces: &[piece; PIECES as usize],
        announce: None,
        private,
    };
    PlainMetainfo::from_bytes(&torrent.to_bytes()).unwrap()
}

fn config(metainfo: &PlainMetainfo, role: Role) -> TorrentConfig {
    let private = metainfo.private;
    TorrentConfig {
        private,
        ..TorrentConfig::new(metainfo.info_hash, metainfo.layout, role, Arc::new(NoTracker))
    }
}

fn seeding(metainfo: &PlainMetainfo) -> TorrentConfig {
    config(metainfo, Role::PlainSeed { source: Arc::new(Content) })
}

fn fetching(metainfo: &PlainMetainfo, dir: &tempfile::TempDir) -> TorrentConfig {
    let store = Arc::new(FileStore::open(dir.path(), metainfo, &|_| {}).unwrap());
    config(metainfo, Role::PlainPeer { store })
}

async fn node(lsd: Option<LsdConfig>, dht: Option<DhtConfig>) -> Node {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Node::bind(NodeConfig { listen, lsd, dht, ..NodeConfig::default() }).await.unwrap()
}

async fn until(torrent: &Torrent, condition: impl FnMut(&Stats) -> bool) -> Stats {
    let mut stats = torrent.stats();
    let reached = timeout(DEADLINE, stats.wait_for(condition)).await;
    reached.expect("in time").expect("the torrent goes on").clone()
}

/// Hears what is said to a group of its own on loopback, and can say something there.
fn local_group() -> (UdpSocket, LsdConfig) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).unwrap();
    let socket = UdpSocket::from(socket);
    let port = socket.local_addr().unwrap().port();
    let group = SocketAddr::new(LsdConfig::GROUP_V4.ip(), port);
    socket.join_multicast_v4(&Ipv4Addr::new(239, 192, 152, 143), &Ipv4Addr::LOCALHOST).unwrap();
    SockRef::from(&socket).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    (socket, LsdConfig { groups: vec![group], interface: Ipv4Addr::LOCALHOST })
}

/// A node of the DHT that hears and says nothing.
fn silent_dht() -> (UdpSocket, DhtConfig) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let bootstrap = vec![socket.local_addr().unwrap().to_string()];
    (socket, DhtConfig { bootstrap, bind: Ipv4Addr::LOCALHOST })
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_on_the_local_network_find_each_other() {
    let (_, lsd) = local_group();
    let metainfo = metainfo("film", false);
    let dir = tempfile::tempdir().unwrap();
    let first = node(Some(lsd.clone()), None).await;
    let fetching = first.add_torrent(fetching(&metainfo, &dir)).unwrap();
    // The one that came first hears of the second.
    let second = node(Some(lsd), None).await;
    let _seeding = second.add_torrent(seeding(&metainfo)).unwrap();
    until(&fetching, |stats| stats.complete).await;
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_find_each_other_in_the_dht() {
    let testnet = tokio::task::spawn_blocking(|| mainline::Testnet::new(4).unwrap()).await.unwrap();
    let dht = DhtConfig { bootstrap: testnet.bootstrap.clone(), bind: Ipv4Addr::LOCALHOST };
    let metainfo = metainfo("film", false);
    let seed = node(None, Some(dht.clone())).await;
    let _seeding = seed.add_torrent(seeding(&metainfo)).unwrap();
    // A peer asks when it comes, and a minute later: the seed is to be known by then.
    let known = {
        let (any, info_hash) = (testnet.nodes[0].clone().as_async(), metainfo.info_hash.into());
        async move {
            use std::pin::Pin;
            loop {
                let mut found = any.get_peers(info_hash);
                let next =
                    std::future::poll_fn(|cx| futures_core::Stream::poll_next(Pin::new(&mut found), cx));
                if let Some(peers) = next.await {
                    return peers;
                }
            }
        }
    };
    let known = timeout(DEADLINE, known).await.expect("the DHT hears of the seed");
    assert!(known.iter().any(|peer| SocketAddr::V4(*peer).port() == seed.local_addr().port()), "{known:?}");
    let dir = tempfile::tempdir().unwrap();
    let peer = node(None, Some(dht)).await;
    let fetching = peer.add_torrent(fetching(&metainfo, &dir)).unwrap();
    until(&fetching, |stats| stats.complete).await;
    peer.shutdown().await;
    seed.shutdown().await;
}

/// What a socket was sent so far.
fn heard(socket: &UdpSocket) -> Vec<Vec<u8>> {
    socket.set_nonblocking(true).unwrap();
    let mut packet = [0; 2048];
    let heard = std::iter::from_fn(|| socket.recv(&mut packet).ok().map(|len| packet[..len].to_vec()));
    let heard = heard.collect();
    socket.set_nonblocking(false).unwrap();
    heard
}

/// An original seed of a sealed torrent, and its info-hash. Whoever calls it public is not listened to.
fn sealed() -> ([u8; 20], TorrentConfig) {
    let group = Group::ffdhe2048(Kernels::portable());
    let params = Arc::new(Params::new(Profile::Sealed, group, Exponents::Short).unwrap());
    let (torrent_id, key) = (TorrentId([9; 32]), SigningKey::from_bytes(&[8; 32]));
    let id = SubscriberId::of_seed(&torrent_id, &key.public());
    let hello = Hello::Seed { key: key.public() };
    let member = Member { torrent_id, params, hello, id, key, epoch: 0 };
    let secret = PackageSecret::from_bytes([5; 32]);
    let role = Role::Seed { member, source: Arc::new(Content), secret };
    let layout = Layout::of_whole(PIECES, PIECE_LEN).unwrap();
    let config = TorrentConfig::new([0x5e; 20], layout, role, Arc::new(NoTracker));
    ([0x5e; 20], TorrentConfig { private: false, ..config })
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_private_and_sealed_torrents() {
    let (lan, lsd) = local_group();
    let (router, dht) = silent_dht();
    let (private, public) = (metainfo("private", true), metainfo("public", false));
    let (sealed, sealed_config) = sealed();
    let seed = node(None, None).await;
    let _seeding = seed.add_torrent(seeding(&private)).unwrap();

    let node = node(Some(lsd.clone()), Some(dht)).await;
    let _sealed = node.add_torrent(sealed_config).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let known = TorrentConfig { peers: vec![seed.local_addr()], ..fetching(&private, &dir) };
    let private_torrent = node.add_torrent(known).unwrap();
    until(&private_torrent, |stats| stats.complete).await;
    assert_eq!((heard(&lan), heard(&router)), (vec![], vec![]));

    // The control: with a public torrent both hear something, of that torrent alone.
    let other = tempfile::tempdir().unwrap();
    let public_torrent = node.add_torrent(fetching(&public, &other)).unwrap();
    let packet = |socket: &UdpSocket| {
        let mut packet = [0; 2048];
        let len = socket.recv(&mut packet).expect("a packet in time");
        packet[..len].to_vec()
    };
    let search = Search::from_bytes(&packet(&lan)).unwrap();
    assert_eq!(search.info_hashes, [public.info_hash]);
    assert_eq!(search.port, node.local_addr().port());
    packet(&router);

    // What the local network says of private and sealed torrents is not taken either.
    let group = lsd.groups[0];
    let listeners = [sealed, private.info_hash, public.info_hash]
        .map(|info_hash| (info_hash, std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()));
    let before = private_torrent.stats().borrow().known_peers;
    for (info_hash, listener) in &listeners {
        let port = listener.local_addr().unwrap().port();
        let search = Search { port, info_hashes: vec![*info_hash], cookie: None };
        lan.send_to(&search.to_bytes(group), group).unwrap();
    }
    let [(_, of_sealed), (_, of_private), (_, of_public)] = listeners;
    of_public.set_nonblocking(true).unwrap();
    let called = TcpListener::from_std(of_public).unwrap();
    timeout(DEADLINE, called.accept()).await.expect("it calls who has the public torrent").unwrap();
    for listener in [of_sealed, of_private] {
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
    assert_eq!(private_torrent.stats().borrow().known_peers, before);
    until(&public_torrent, |stats| stats.known_peers > 0).await;

    // To the end neither hears of the others.
    node.shutdown().await;
    seed.shutdown().await;
    let ours = |packet: &Vec<u8>| Search::from_bytes(packet).is_some_and(|search| search.cookie.is_none());
    let said: Vec<_> = heard(&lan).into_iter().chain(heard(&router)).filter(|packet| !ours(packet)).collect();
    for hidden in [sealed, private.info_hash] {
        let hex = hex::encode(hidden);
        for packet in &said {
            let has = |bytes: &[u8]| packet.windows(bytes.len()).any(|at| at == bytes);
            assert!(!has(&hidden) && !has(hex.as_bytes()));
        }
    }
}
