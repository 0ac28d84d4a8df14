//! Nodes over real sockets, with a tracker in memory that holds the master key.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sha1::{Digest, Sha1};
use swarmseal::peer::{
    Announce, AnnounceEvent, AnnounceReply, BoxFuture, Expected, FileStore, KeyError, Member, Node,
    NodeConfig, Obfuscation, PlainSource, Published, Role, Shape, Stats, Store, Torrent, TorrentConfig,
    Tracker,
};
use swarmseal::wire::handshake::{self, Handshake};
use swarmseal::wire::identity::{Identity, SigningKey, purpose, verify};
use swarmseal::wire::layout::Layout;
use swarmseal::wire::mse::{self, Initiator};
use swarmseal::wire::plain::{PlainMetainfo, PlainTorrent};
use swarmseal::wire::seal::Hello;
use swarmseal::wire::selection::Selection;
use swarmseal_core::{
    DecryptionKey, EncryptionKey, Exponents, Group, Kernels, KeyCommitment, MasterKey, Params, Profile,
    PublicKey, ReKey, SecretKey, SubscriberId, Ticket, TorrentId, TsKeys, WitnessExponents, WitnessFactor,
    WitnessKey, WitnessSecret, decrypt_piece, package, witness_hash,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

const PIECE_LEN: u32 = 32 * 1024;
const PIECES: u32 = 12;
const INFO_HASH: [u8; 20] = [7; 20];
const TORRENT: TorrentId = TorrentId([9; 32]);
const DEADLINE: Duration = Duration::from_secs(60);

fn params() -> Arc<Params> {
    let group = Group::ffdhe2048(Kernels::portable());
    Arc::new(Params::new(Profile::Sealed, group, Exponents::Short).unwrap())
}

/// The tracker: knows public and identity keys, derives every key, checks tickets.
struct FakeTracker {
    params: Arc<Params>,
    master: MasterKey,
    witness: WitnessSecret,
    subscribers: Mutex<HashMap<SubscriberId, (PublicKey, [u8; 32])>>,
    swarm: Mutex<HashSet<SocketAddr>>,
    completed: Mutex<u32>,
    /// What it says that everybody's epoch is.
    epoch: Mutex<Option<u64>>,
    /// Every piece that a key was asked for.
    keyed: Mutex<Vec<u32>>,
}

impl FakeTracker {
    fn new() -> Arc<Self> {
        Arc::new(FakeTracker {
            params: params(),
            master: MasterKey::from_bytes([3; 32]),
            witness: WitnessSecret::from_bytes([4; 32]),
            subscribers: Mutex::default(),
            swarm: Mutex::default(),
            completed: Mutex::default(),
            epoch: Mutex::default(),
            keyed: Mutex::default(),
        })
    }

    fn check(
        &self,
        ticket: &[u8],
        uploader: SubscriberId,
    ) -> Result<(SubscriberId, PublicKey, u64), KeyError> {
        let refused = |why: &str| KeyError::TicketRefused(why.to_owned());
        let ticket = Ticket::from_bytes(ticket).map_err(|error| refused(&error.to_string()))?;
        let (y, identity) = self
            .subscribers
            .lock()
            .unwrap()
            .get(&ticket.downloader)
            .cloned()
            .ok_or_else(|| refused("unknown subscriber"))?;
        verify(&identity, purpose::TICKET, &ticket.signing_input(), &ticket.signature)
            .map_err(|_| refused("forged"))?;
        if ticket.uploader != uploader || ticket.torrent_id != TORRENT {
            return Err(refused("another's"));
        }
        Ok((ticket.downloader, y, ticket.epoch))
    }

    fn bytes(&self, write: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut out = vec![0; self.params.group().bytes()];
        write(&mut out);
        out
    }
}

/// One node's view of the tracker.
struct Session {
    tracker: Arc<FakeTracker>,
    us: SubscriberId,
    address: IpAddr,
}

impl Tracker for Session {
    fn announce<'a>(&'a self, announce: &'a Announce) -> BoxFuture<'a, Result<AnnounceReply, String>> {
        let us = SocketAddr::new(self.address, announce.port);
        let mut swarm = self.tracker.swarm.lock().unwrap();
        match announce.event {
            AnnounceEvent::Stopped => swarm.remove(&us),
            _ => swarm.insert(us),
        };
        if announce.event == AnnounceEvent::Completed {
            *self.tracker.completed.lock().unwrap() += 1;
        }
        let peers = swarm.iter().copied().filter(|&addr| addr != us).collect();
        let epoch = *self.tracker.epoch.lock().unwrap();
        Box::pin(async move { Ok(AnnounceReply { interval: Duration::from_secs(1), peers, epoch }) })
    }

    fn rekeys<'a>(
        &'a self,
        ticket: &'a [u8],
        own_epoch: u64,
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        Box::pin(async move {
            let FakeTracker { params, master, .. } = &*self.tracker;
            self.tracker.keyed.lock().unwrap().extend_from_slice(pieces);
            let (down_id, down, epoch) = self.tracker.check(ticket, self.us)?;
            let up = self.tracker.subscribers.lock().unwrap()[&self.us].0.clone();
            let up_keys = TsKeys::derive(params, master, &self.us, own_epoch);
            let down_keys = TsKeys::derive(params, master, &down_id, epoch);
            let rekey = |&piece: &u32| {
                let key = ReKey::derive(params, (&up, &up_keys.key(piece)), (&down, &down_keys.key(piece)));
                self.tracker.bytes(|out| key.to_bytes(params, out).unwrap())
            };
            Ok(pieces.iter().map(rekey).collect())
        })
    }

    fn encryption_keys<'a>(
        &'a self,
        ticket: &'a [u8],
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        Box::pin(async move {
            let FakeTracker { params, master, .. } = &*self.tracker;
            self.tracker.keyed.lock().unwrap().extend_from_slice(pieces);
            let (id, y, epoch) = self.tracker.check(ticket, self.us)?;
            let keys = TsKeys::derive(params, master, &id, epoch);
            let key = |&piece: &u32| {
                let key = EncryptionKey::derive(params, &y, &keys.key(piece));
                self.tracker.bytes(|out| key.to_bytes(params, out).unwrap())
            };
            Ok(pieces.iter().map(key).collect())
        })
    }

    fn witness_keys<'a>(
        &'a self,
        epoch: u64,
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        let FakeTracker { params, master, witness, .. } = &*self.tracker;
        let y = self.tracker.subscribers.lock().unwrap()[&self.us].0.clone();
        let (w, r) = (
            WitnessExponents::derive(params, witness, &TORRENT),
            TsKeys::derive(params, master, &self.us, epoch),
        );
        let key = |&piece: &u32| {
            let key = WitnessKey::derive(params, &w.exponent(piece), (&y, &r.key(piece)));
            self.tracker.bytes(|out| key.to_bytes(params, out).unwrap())
        };
        let keys = pieces.iter().map(key).collect();
        Box::pin(async move { Ok(keys) })
    }

    fn now(&self) -> u64 {
        1_000_000
    }
}

/// Bytes that tell piece and offset.
struct Pattern;

impl PlainSource for Pattern {
    fn read_payload(&self, index: u32, payload: &mut [u8]) -> io::Result<()> {
        for (offset, byte) in payload.iter_mut().enumerate() {
            *byte = (index as usize * 31 + offset * 7 + offset / 251) as u8;
        }
        Ok(())
    }
}

fn pattern(index: u32, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    Pattern.read_payload(index, &mut out).unwrap();
    out
}

fn package_secret() -> package::PackageSecret {
    package::PackageSecret::from_bytes([5; 32])
}

/// What a torrent of [`Pattern`] says of its pieces.
fn published(tracker: &FakeTracker, selection: Option<Arc<Selection>>) -> Arc<Published> {
    let params = &*tracker.params;
    let w = WitnessExponents::derive(params, &tracker.witness, &TORRENT);
    let expected = |piece: u32| {
        if selection.as_ref().is_some_and(|selection| selection.is_clear(piece)) {
            return Expected::Clear(Sha1::digest(pattern(piece, PIECE_LEN as usize)).into());
        }
        let mut data = pattern(piece, params.payload_bytes(PIECE_LEN as usize));
        data.resize(PIECE_LEN as usize, 0);
        package::pack(params, &package_secret(), &TORRENT, piece, &mut data).unwrap();
        let factor = WitnessFactor::derive(params, &w.exponent(piece));
        Expected::Witness(witness_hash(params, &factor, &mut data).unwrap())
    };
    let pieces = (0..PIECES).map(expected).collect();
    Published::new(selection.clone(), pieces)
}

fn config(role: Role, tracker: &Arc<FakeTracker>, us: SubscriberId, node: &Node) -> TorrentConfig {
    let layout = Layout::of_whole(PIECES, PIECE_LEN).unwrap();
    let session = Session { tracker: tracker.clone(), us, address: node.local_addr().ip() };
    TorrentConfig::new(INFO_HASH, layout, role, Arc::new(session))
}

/// An address of loopback that nobody else in these tests has, with any port.
fn own_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let first = Ipv4Addr::new(127, 2, 0, 0).to_bits();
    SocketAddr::from((Ipv4Addr::from_bits(first + NEXT.fetch_add(1, Ordering::Relaxed)), 0))
}

fn local() -> NodeConfig {
    NodeConfig { listen: own_address(), ..NodeConfig::default() }
}

async fn seed(tracker: &Arc<FakeTracker>, limit: Option<u64>) -> (Node, Torrent) {
    seed_as(tracker, SigningKey::generate(&mut UnwrapErr(SysRng)), limit).await
}

async fn seed_as(tracker: &Arc<FakeTracker>, key: SigningKey, limit: Option<u64>) -> (Node, Torrent) {
    let id = SubscriberId::of_seed(&TORRENT, &key.public());
    let hello = Hello::Seed { key: key.public() };
    let member = Member { torrent_id: TORRENT, params: tracker.params.clone(), hello, id, key, epoch: 0 };
    let secret = package_secret();
    let node = Node::bind(NodeConfig { upload_limit: limit, ..local() }).await.unwrap();
    let role = Role::Seed { member, source: Arc::new(Pattern), secret };
    let torrent = node.add_torrent(config(role, tracker, id, &node)).unwrap();
    (node, torrent)
}

/// A subscriber with a directory.
struct Subscriber {
    member: Member,
    secret: SecretKey,
    dir: tempfile::TempDir,
}

impl Subscriber {
    fn new(tracker: &FakeTracker) -> Self {
        let rng = &mut UnwrapErr(SysRng);
        let params = tracker.params.clone();
        let secret = SecretKey::generate(&params, rng);
        let y = secret.public_key(&params);
        let identity = Identity::generate(rng);
        let key = identity.signing_key().clone();
        let id = identity.subscriber(&params, &TORRENT, &y);
        tracker.subscribers.lock().unwrap().insert(id, (y.clone(), key.public()));
        let hello = Hello::Subscriber { identity: key.public(), keys: identity.commitment(&params, &y) };
        let member = Member { torrent_id: TORRENT, params, hello, id, key, epoch: 1 };
        Subscriber { member, secret, dir: tempfile::tempdir().unwrap() }
    }

    async fn join(&self, tracker: &Arc<FakeTracker>) -> (Node, Torrent) {
        let store = Arc::new(open(self.dir.path(), TORRENT));
        let role = Role::Peer { member: self.member.clone(), store };
        let node = Node::bind(local()).await.unwrap();
        let mut config = config(role, tracker, self.member.id, &node);
        config.published = Some(published(tracker, None));
        config.transcript = Some(self.dir.path().join("transcript"));
        let torrent = node.add_torrent(config).unwrap();
        (node, torrent)
    }

    /// Every stored piece, after checking that it opens to the plaintext.
    fn opened(&self, tracker: &FakeTracker) -> Vec<Vec<u8>> {
        let params = &*tracker.params;
        let store = open(self.dir.path(), TORRENT);
        let keys = TsKeys::derive(params, &tracker.master, &self.member.id, 1);
        let piece = |piece: u32| {
            let mut stored = vec![0; PIECE_LEN as usize];
            store.read(piece, &mut stored).unwrap();
            let mut data = stored.clone();
            let key = DecryptionKey::derive(params, &keys.key(piece));
            decrypt_piece(params, &self.secret, &key, &mut data).unwrap();
            let len = package::unpack(params, &mut data).unwrap();
            assert!(data[..len] == pattern(piece, len), "piece {piece}");
            stored
        };
        (0..PIECES).map(piece).collect()
    }
}

fn open(dir: &Path, torrent_id: TorrentId) -> Store {
    Store::open(dir, Shape { torrent_id, piece_len: PIECE_LEN, piece_count: PIECES }).unwrap()
}

async fn until(torrent: &Torrent, done: impl FnMut(&Stats) -> bool) -> Stats {
    let mut stats = torrent.stats();
    let reached = timeout(DEADLINE, stats.wait_for(done)).await.map(|reached| reached.unwrap().clone());
    reached.unwrap_or_else(|_| panic!("not in time: {:?}", torrent.stats().borrow()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_and_three_peers() {
    let tracker = FakeTracker::new();
    let (seed, _) = seed(&tracker, None).await;
    let subscribers: Vec<_> = (0..3).map(|_| Subscriber::new(&tracker)).collect();
    let mut nodes = Vec::new();
    for subscriber in &subscribers {
        nodes.push(subscriber.join(&tracker).await);
    }
    for (_, torrent) in &nodes {
        let stats = until(torrent, |stats| stats.complete).await;
        assert_eq!(stats.pieces, PIECES);
        assert!(stats.from_seeds + stats.from_peers >= u64::from(PIECES * PIECE_LEN), "{stats:?}");
        assert_eq!(stats.rejected, 0);
    }
    for (node, _) in nodes {
        node.shutdown().await;
    }
    seed.shutdown().await;
    assert!(tracker.swarm.lock().unwrap().is_empty());
    let stored: Vec<_> = subscribers.iter().map(|subscriber| subscriber.opened(&tracker)).collect();
    for piece in 0..PIECES as usize {
        let distinct: HashSet<_> = stored.iter().map(|pieces| &pieces[piece]).collect();
        assert_eq!(distinct.len(), subscribers.len(), "two peers store the same bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_stopped_goes_on_where_it_was() {
    let tracker = FakeTracker::new();
    let (seed, _) = seed(&tracker, Some(150_000)).await;
    let subscriber = Subscriber::new(&tracker);
    let (node, torrent) = subscriber.join(&tracker).await;
    let before = until(&torrent, |stats| stats.pieces >= 2).await;
    assert!(!before.complete);
    // Torn away: no shutdown, and a torn record.
    drop((node, torrent));
    let index = subscriber.dir.path().join("pieces.idx");
    let mut reopened = None;
    let freed = async {
        while reopened.is_none() {
            let shape = Shape { torrent_id: TORRENT, piece_len: PIECE_LEN, piece_count: PIECES };
            reopened = Store::open(subscriber.dir.path(), shape).ok();
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, freed).await.expect("the dropped node lets go of its store");
    let kept = reopened.map(|store| store.count()).unwrap();
    assert!(kept >= before.pieces);
    let whole = std::fs::read(&index).unwrap();
    std::fs::write(&index, [&whole[..], &whole[whole.len() - 40..]].concat()).unwrap();

    let (node, torrent) = subscriber.join(&tracker).await;
    assert!(torrent.stats().borrow().pieces >= kept);
    let after = until(&torrent, |stats| stats.complete).await;
    assert!(after.from_seeds <= u64::from((PIECES - kept) * PIECE_LEN), "{after:?}");
    node.shutdown().await;
    seed.shutdown().await;
    subscriber.opened(&tracker);
}

/// An ordinary torrent, its seed, and a place for who fetches it.
struct Plain {
    seed: Node,
    metainfo: PlainMetainfo,
    content: Vec<u8>,
    dir: tempfile::TempDir,
}

impl Plain {
    /// The last piece is short, and its last block too.
    async fn new(seed: NodeConfig) -> Self {
        let us = SubscriberId([0; 32]);
        let seed = Node::bind(seed).await.unwrap();
        let layout = Layout::new(u64::from(PIECES * PIECE_LEN) - 20_001, PIECE_LEN).unwrap();
        let role = Role::PlainSeed { source: Arc::new(Pattern) };
        let seeding = TorrentConfig { layout, ..config(role, &FakeTracker::new(), us, &seed) };
        seed.add_torrent(seeding).unwrap();
        let content: Vec<Vec<u8>> =
            (0..PIECES).map(|piece| pattern(piece, layout.len_of(piece) as usize)).collect();
        let hashes: Vec<[u8; 20]> = content.iter().map(|piece| Sha1::digest(piece).into()).collect();
        let plain = PlainTorrent {
            name: "film",
            files: None,
            length: layout.length(),
            piece_len: PIECE_LEN,
            pieces: &hashes,
            announce: None,
            private: false,
        };
        let metainfo = PlainMetainfo::from_bytes(&plain.to_bytes()).unwrap();
        Plain { seed, metainfo, content: content.concat(), dir: tempfile::tempdir().unwrap() }
    }

    /// Begins to fetch it from these peers.
    fn fetch(&self, node: &Node, peers: Vec<SocketAddr>) -> Torrent {
        let store = Arc::new(FileStore::open(self.dir.path(), &self.metainfo, &|_| {}).unwrap());
        let role = Role::PlainPeer { store };
        let config = config(role, &FakeTracker::new(), SubscriberId([0; 32]), node);
        node.add_torrent(TorrentConfig { layout: self.metainfo.layout, peers, ..config }).unwrap()
    }

    /// Waits until all of it is there, and ends.
    async fn end(self, node: Node, torrent: Torrent) -> Stats {
        let last = until(&torrent, |stats| stats.complete).await;
        assert_eq!(last.left, 0);
        node.shutdown().await;
        self.seed.shutdown().await;
        assert_eq!(std::fs::read(self.dir.path().join("film")).unwrap(), self.content);
        last
    }
}

/// A seed and a peer of an ordinary torrent; the peer reaches the seed at an address that is told of the seed's.
async fn fetch_plain(seed: NodeConfig, peer: NodeConfig, reach: impl AsyncFnOnce(SocketAddr) -> SocketAddr) {
    let plain = Plain::new(seed).await;
    let node = Node::bind(peer).await.unwrap();
    let torrent = plain.fetch(&node, vec![reach(plain.seed.local_addr()).await]);
    let length = plain.metainfo.layout.length();
    let last = plain.end(node, torrent).await;
    assert_eq!(last.from_peers + last.from_seeds, length);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_torrent_moves_too() {
    fetch_plain(local(), local(), async |seed| seed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_leave_from_the_address_that_is_listened_on() {
    let listener = TcpListener::bind(own_address()).await.unwrap();
    let node = Node::bind(local()).await.unwrap();
    let role = Role::PlainSeed { source: Arc::new(Pattern) };
    let peers = vec![listener.local_addr().unwrap()];
    let seeding = config(role, &FakeTracker::new(), SubscriberId([0; 32]), &node);
    let _seeding = node.add_torrent(TorrentConfig { peers, ..seeding }).unwrap();
    let (_stream, from) = timeout(DEADLINE, listener.accept()).await.expect("it connects").unwrap();
    assert_eq!(from.ip(), node.local_addr().ip());
    node.shutdown_now().await;
}

fn at(listen: &str) -> NodeConfig {
    NodeConfig { listen: listen.parse().unwrap(), ..NodeConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_will_do_and_one_listener_serves_both_families() {
    fetch_plain(at("[::1]:0"), at("[::1]:0"), async |seed| seed).await;
    let reached_by = async |address: IpAddr| {
        fetch_plain(at("[::]:0"), local(), async |seed| {
            assert!(seed.is_ipv6(), "a socket of both families");
            SocketAddr::new(address, seed.port())
        })
        .await;
    };
    reached_by(Ipv4Addr::LOCALHOST.into()).await;
    reached_by(Ipv6Addr::LOCALHOST.into()).await;
    // As a socket of both families shows IPv4.
    reached_by(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()).await;
}

fn obfuscated(obfuscation: Obfuscation) -> NodeConfig {
    NodeConfig { obfuscation, ..local() }
}

/// A relay to `to` that notes what passes either way: of each connection, of each direction.
async fn tap(to: SocketAddr, noted: Arc<Mutex<Vec<Vec<u8>>>>) -> SocketAddr {
    async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, noted: Arc<Mutex<Vec<Vec<u8>>>>) {
        let (mut passed, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            passed.extend(&buffer[..read]);
            if to.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
        noted.lock().unwrap().push(passed);
    }
    let listener = TcpListener::bind(own_address()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = TcpStream::connect(to).await.unwrap().into_split();
            tokio::spawn(pass(near_read, far_write, noted.clone()));
            tokio::spawn(pass(far_read, near_write, noted.clone()));
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn obfuscation_shows_neither_protocol_nor_content() {
    use Obfuscation::{Allow, Off, Require};
    // The seed's setting, the peer's, whether the protocol's name passes, and whether content does.
    let cases = [
        (Require, Require, false, false),
        (Allow, Require, false, false),
        // It is called in plain first.
        (Require, Allow, true, false),
        (Allow, Allow, true, true),
        (Allow, Off, true, true),
        (Off, Allow, true, true),
    ];
    for (seed, peer, name, content) in cases {
        let noted = Arc::default();
        fetch_plain(obfuscated(seed), obfuscated(peer), async |seed| tap(seed, Arc::clone(&noted)).await)
            .await;
        let connections = if (seed, peer) == (Require, Allow) { 2 } else { 1 };
        let all_ended = async {
            while noted.lock().unwrap().len() < 2 * connections {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, all_ended).await.expect("the connections end");
        let noted = noted.lock().unwrap();
        let passed =
            |bytes: &[u8]| noted.iter().any(|noted| noted.windows(bytes.len()).any(|at| at == bytes));
        assert_eq!(passed(b"BitTorrent protocol"), name, "{seed:?} {peer:?}");
        assert_eq!(passed(&pattern(3, 64)), content, "{seed:?} {peer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_obfuscation_rules_out_is_refused_without_a_word() {
    let hello = Handshake::new(INFO_HASH, handshake::peer_id([1; 12])).to_bytes();
    let mut obfuscated_hello = Vec::new();
    let mut initiator = Initiator::new(&[1; mse::ENTROPY], INFO_HASH, mse::RC4, hello);
    initiator.advance(&mut Default::default(), &mut obfuscated_hello).unwrap();
    for (obfuscation, bytes) in [(Obfuscation::Require, &hello[..]), (Obfuscation::Off, &obfuscated_hello)] {
        let node = Node::bind(obfuscated(obfuscation)).await.unwrap();
        let role = Role::PlainSeed { source: Arc::new(Pattern) };
        let _seeding =
            node.add_torrent(config(role, &FakeTracker::new(), SubscriberId([0; 32]), &node)).unwrap();
        assert_eq!(attack(node.local_addr(), bytes).await, b"");
        node.shutdown().await;
    }
}

/// A caller that leaves the choice gets a stream in plain after an obfuscated handshake, unless the node is to obfuscate everything.
#[tokio::test(flavor = "multi_thread")]
async fn the_cheapest_method_in_common_is_selected() {
    use Obfuscation::{Allow, Require};
    for (obfuscation, provide, enciphered) in [
        (Allow, mse::PLAINTEXT, Some(false)),
        (Allow, mse::PLAINTEXT | mse::RC4, Some(false)),
        (Allow, mse::RC4, Some(true)),
        (Require, mse::PLAINTEXT | mse::RC4, Some(true)),
        (Require, mse::PLAINTEXT, None),
    ] {
        let node = Node::bind(obfuscated(obfuscation)).await.unwrap();
        let role = Role::PlainSeed { source: Arc::new(Pattern) };
        let _seeding =
            node.add_torrent(config(role, &FakeTracker::new(), SubscriberId([0; 32]), &node)).unwrap();
        let hello = Handshake::new(INFO_HASH, handshake::peer_id([1; 12]));
        let mut initiator = Initiator::new(&[1; mse::ENTROPY], INFO_HASH, provide, hello.to_bytes());
        let mut stream = TcpStream::connect(node.local_addr()).await.unwrap();
        let (mut input, mut output) = (bytes::BytesMut::new(), Vec::new());
        let agreed = loop {
            if let Some(agreed) = initiator.advance(&mut input, &mut output).unwrap() {
                break Some(agreed);
            }
            stream.write_all(&output).await.unwrap();
            output.clear();
            if timeout(DEADLINE, stream.read_buf(&mut input)).await.unwrap().unwrap_or(0) == 0 {
                break None;
            }
        };
        let agreed = agreed.map(|agreed| agreed.ciphers);
        assert_eq!(agreed.as_ref().map(Option::is_some), enciphered, "{obfuscation:?} {provide}");
        if let Some(ciphers) = agreed {
            let start = input.len();
            while input.len() < handshake::LEN {
                assert!(stream.read_buf(&mut input).await.unwrap() > 0);
            }
            if let Some(mut ciphers) = ciphers {
                ciphers.incoming.apply(&mut input[start..]);
            }
            assert_eq!(
                Handshake::from_bytes(input[..handshake::LEN].try_into().unwrap()).unwrap().info_hash,
                INFO_HASH
            );
        }
        node.shutdown().await;
    }
}

/// Plays a hostile peer: sends `bytes` after connecting and waits to be cut off; what it was told until then.
async fn attack(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut sink = Vec::new();
    let cut = timeout(DEADLINE, stream.read_to_end(&mut sink)).await;
    assert!(cut.is_ok(), "the node keeps a hostile connection");
    sink
}

/// A connection from an address of loopback.
async fn connect_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(from).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_keep_nobody_out() {
    // Of one address, and of more addresses than there are slots. None of them ends by itself.
    for addresses in [1, 50] {
        let patient = NodeConfig { handshake_time: Duration::ZERO, ..local() };
        let mut silent = Vec::new();
        fetch_plain(patient, local(), async |seed| {
            let addresses: Vec<_> = (0..addresses).map(|_| own_address()).collect();
            for from in addresses.iter().cycle().take(200) {
                silent.push(connect_from(*from, seed).await);
            }
            seed
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_silent_connections_from_32_networks_keeps_nobody_out() {
    let patient = NodeConfig { handshake_time: Duration::ZERO, ..local() };
    let mut flood = tokio::task::JoinSet::new();
    fetch_plain(patient, local(), async |seed| {
        // Each network has two connections, and opens the next when it has lost both: the slots are taken again and again.
        for _ in 0..32 {
            let from = own_address();
            flood.spawn(async move {
                loop {
                    for mut silent in [connect_from(from, seed).await, connect_from(from, seed).await] {
                        let _ = silent.read(&mut [0]).await;
                    }
                }
            });
        }
        seed
    })
    .await;
    assert_eq!(flood.len(), 32);
    flood.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_takes_a_newcomer_and_parts_from_who_has_been_least_use() {
    let mut idle = Vec::new();
    fetch_plain(NodeConfig { max_connections: 2, ..local() }, local(), async |seed| {
        for number in 0..2 {
            let mut stream = connect_from(own_address(), seed).await;
            let hello = Handshake::new(INFO_HASH, [number; 20]).to_bytes();
            stream.write_all(&hello).await.unwrap();
            stream.read_exact(&mut [0; handshake::LEN]).await.unwrap();
            idle.push(stream);
        }
        seed
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_peers_are_cut_off_and_stall_nobody() {
    let tracker = FakeTracker::new();
    let (seed, seeding) = seed(&tracker, None).await;
    let addr = seed.local_addr();
    let hello = Handshake::new(INFO_HASH, handshake::peer_id([1; 12])).to_bytes();
    let foreign = Handshake::new([8; 20], handshake::peer_id([1; 12])).to_bytes();
    let oversize = [&hello[..], &[0xff, 0xff, 0xff, 0xff, 7]].concat();
    let outside = [&hello[..], &[0, 0, 0, 5, 4, 0xff, 0, 0, 0]].concat();
    let unsealed = [&hello[..], b"\0\0\0\x0a\x14\0d1:md1:ee"].concat();
    // The last one trickles: half a handshake and silence.
    let attacks: [&[u8]; 6] = [&[0xaa; 4096], &foreign, &oversize, &outside, &unsealed, &hello[..30]];
    let attacking = async {
        for bytes in attacks {
            attack(addr, bytes).await;
        }
    };
    let subscriber = Subscriber::new(&tracker);
    let (node, torrent) = subscriber.join(&tracker).await;
    let (stats, ()) = tokio::join!(until(&torrent, |stats| stats.complete), attacking);
    assert_eq!(stats.pieces, PIECES);
    until(&seeding, |stats| stats.connections == 0).await;
    node.shutdown().await;
    seed.shutdown().await;
    subscriber.opened(&tracker);
}

/// A seed that says on each connection that it is somebody, offers everything, and sends blocks of that byte. All bytes 0xff are no
/// group element.
async fn garbage_seed(listener: TcpListener, mut who: impl FnMut() -> ([u8; 20], Hello), fill: u8) {
    use swarmseal::wire::message::Message;
    use swarmseal::wire::seal::{ExtendedHandshake, OUR_ID};
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let (name, hello) = who();
        tokio::spawn(async move {
            let extended = ExtendedHandshake {
                seal_id: Some(OUR_ID),
                dont_have_id: None,
                client: "garbage".to_owned(),
                reqq: 500,
                port: None,
                hello: Some(hello),
            };
            let mut out = bytes::BytesMut::from(&Handshake::new(INFO_HASH, name).to_bytes()[..]);
            Message::Extended { id: 0, payload: extended.to_bytes().into() }.encode(&mut out);
            Message::Bitfield(vec![0xff, 0xf0].into()).encode(&mut out);
            Message::Unchoke.encode(&mut out);
            let mut theirs = [0; handshake::LEN];
            stream.read_exact(&mut theirs).await?;
            stream.write_all(&out).await?;
            answer_requests(stream, fill).await
        });
    }
}

/// Sends blocks of that byte until the other hangs up.
async fn answer_requests(mut stream: TcpStream, fill: u8) -> io::Result<()> {
    use swarmseal::wire::message::{Decoder, Message};
    let decoder = Decoder::new(Layout::of_whole(PIECES, PIECE_LEN).unwrap());
    let mut pending = bytes::BytesMut::new();
    while stream.read_buf(&mut pending).await? > 0 {
        while let Ok(Some(message)) = decoder.decode(&mut pending) {
            if let Message::Request(block) = message {
                let data = vec![fill; block.len as usize].into();
                let mut out = bytes::BytesMut::new();
                Message::Piece { piece: block.piece, begin: block.begin, data }.encode(&mut out);
                stream.write_all(&out).await?;
            }
        }
    }
    Ok(())
}

/// Offers all of an ordinary torrent, sends zeros, and counts the connections.
async fn plain_liar(listener: TcpListener, connections: Arc<Mutex<u32>>) {
    use swarmseal::wire::message::Message;
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        *connections.lock().unwrap() += 1;
        tokio::spawn(async move {
            let hello = Handshake { reserved: [0; 8], info_hash: INFO_HASH, peer_id: [3; 20] };
            let mut out = bytes::BytesMut::from(&hello.to_bytes()[..]);
            Message::Bitfield(vec![0xff, 0xf0].into()).encode(&mut out);
            Message::Unchoke.encode(&mut out);
            let mut theirs = [0; handshake::LEN];
            stream.read_exact(&mut theirs).await?;
            stream.write_all(&out).await?;
            answer_requests(stream, 0).await
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_three_bad_pieces_an_address_is_not_dealt_with() {
    let (listener, connections) = (TcpListener::bind(own_address()).await.unwrap(), Arc::default());
    let liar = listener.local_addr().unwrap();
    let lying = tokio::spawn(plain_liar(listener, Arc::clone(&connections)));
    let plain = Plain::new(local()).await;
    let node = Node::bind(local()).await.unwrap();
    // The liar is all there is at first. It is forgotten with its address.
    let torrent = plain.fetch(&node, vec![liar]);
    let stats = until(&torrent, |stats| stats.rejected > 0 && stats.known_peers == 0).await;
    assert!(stats.rejected >= 3 && stats.connections == 0, "{stats:?}");
    let before = *connections.lock().unwrap();
    assert!((1..=3).contains(&before), "{before}");
    // Nor may it, from whatever port, connect to us.
    let mut again = connect_from(SocketAddr::new(liar.ip(), 0), node.local_addr()).await;
    let told = again.read(&mut [0; 1]).await;
    assert!(matches!(told, Ok(0) | Err(_)), "{told:?}");
    torrent.add_peers(vec![SocketAddr::new(liar.ip(), 7), liar, plain.seed.local_addr()]).await;
    let last = plain.end(node, torrent).await;
    assert_eq!((*connections.lock().unwrap(), last.known_peers), (before, 1));
    lying.abort();
}

/// What a peer calls itself is for anybody to copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_borrowed_peer_id_keeps_nobody_out() {
    let plain = Plain::new(local()).await;
    let hello = |peer_id| Handshake::new(INFO_HASH, peer_id).to_bytes();
    // Asked for its name, the seed gives it.
    let mut asking = connect_from(own_address(), plain.seed.local_addr()).await;
    asking.write_all(&hello([9; 20])).await.unwrap();
    let mut of_seed = [0; handshake::LEN];
    asking.read_exact(&mut of_seed).await.unwrap();
    let name = Handshake::from_bytes(of_seed[..].try_into().unwrap()).unwrap().peer_id;
    let node = Node::bind(local()).await.unwrap();
    let torrent = plain.fetch(&node, vec![]);
    let mut borrower = connect_from(own_address(), node.local_addr()).await;
    borrower.write_all(&hello(name)).await.unwrap();
    until(&torrent, |stats| stats.connections == 1).await;
    torrent.add_peers(vec![plain.seed.local_addr()]).await;
    plain.end(node, torrent).await;
}

/// What a node says its BEP 3 peer id is.
async fn peer_id(node: &Node) -> [u8; 20] {
    let mut stream = connect_from(own_address(), node.local_addr()).await;
    stream.write_all(&Handshake::new(INFO_HASH, [0; 20]).to_bytes()).await.unwrap();
    let mut theirs = [0; handshake::LEN];
    stream.read_exact(&mut theirs).await.unwrap();
    Handshake::from_bytes(&theirs).unwrap().peer_id
}

/// What is no group element, and what is one and not what was published, under a name of one's own and under those of the real
/// seed: nothing of it is stored, and the real seed serves all the same.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_and_fetched_elsewhere_whatever_name_it_comes_under() {
    for (borrowed, fill) in [(false, 0xff), (false, 1), (true, 0xff), (true, 1)] {
        let tracker = FakeTracker::new();
        let key = SigningKey::generate(&mut UnwrapErr(SysRng));
        let (seed, _) = seed_as(&tracker, key.clone(), None).await;
        let (name, hello) = if borrowed {
            (peer_id(&seed).await, Hello::Seed { key: key.public() })
        } else {
            (handshake::peer_id([2; 12]), Hello::Seed { key: [8; 32] })
        };
        // The hostile seed is all that the subscriber's tracker knows at first.
        let theirs = FakeTracker::new();
        let listener = TcpListener::bind(own_address()).await.unwrap();
        theirs.swarm.lock().unwrap().insert(listener.local_addr().unwrap());
        let garbage = tokio::spawn(garbage_seed(listener, move || (name, hello), fill));
        let subscriber = Subscriber::new(&theirs);
        let subscribers = theirs.subscribers.lock().unwrap().clone();
        tracker.subscribers.lock().unwrap().extend(subscribers);
        let (node, torrent) = subscriber.join(&theirs).await;
        let stats = until(&torrent, |stats| stats.rejected > 0).await;
        assert_eq!(stats.pieces, 0);
        torrent.add_peers(vec![seed.local_addr()]).await;
        let stats = until(&torrent, |stats| stats.complete).await;
        assert!(stats.from_seeds >= u64::from(PIECES * PIECE_LEN));
        node.shutdown().await;
        seed.shutdown().await;
        garbage.abort();
        subscriber.opened(&tracker);
    }
}

/// Subscriptions cost nothing. Each connection is about another one, and names itself anew: the address is shut out after three bad
/// pieces, and what comes from another is checked as before.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_subscriptions_at_one_address_are_one_address_and_switch_no_check_off() {
    let tracker = FakeTracker::new();
    let (seed, _) = seed(&tracker, None).await;
    let connections = Arc::new(Mutex::new(0_u8));
    let theirs = FakeTracker::new();
    let (mut listeners, own, other) = (Vec::new(), own_address(), own_address());
    for from in [vec![own; 60], vec![other]].concat() {
        listeners.push(TcpListener::bind(SocketAddr::new(from.ip(), 0)).await.unwrap());
    }
    let addrs: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    theirs.swarm.lock().unwrap().extend(&addrs[..60]);
    let garbage: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let connections = Arc::clone(&connections);
            let somebody = move || {
                let mut number = connections.lock().unwrap();
                *number = number.saturating_add(1);
                let identity = SigningKey::from_bytes(&[*number; 32]).public();
                let hello = Hello::Subscriber { identity, keys: KeyCommitment([*number; 32]) };
                (handshake::peer_id([*number; 12]), hello)
            };
            tokio::spawn(garbage_seed(listener, somebody, 0xff))
        })
        .collect();
    let subscriber = Subscriber::new(&theirs);
    tracker.subscribers.lock().unwrap().extend(theirs.subscribers.lock().unwrap().clone());
    let (node, torrent) = subscriber.join(&theirs).await;
    until(&torrent, |stats| stats.rejected > 0 && stats.known_peers == 0).await;
    let mut again = connect_from(SocketAddr::new(own.ip(), 0), node.local_addr()).await;
    let told = again.read(&mut [0; 1]).await;
    assert!(matches!(told, Ok(0) | Err(_)), "{told:?}");
    let before = torrent.stats().borrow().rejected;
    torrent.add_peers(vec![addrs[60]]).await;
    let stats = until(&torrent, |stats| stats.rejected > before).await;
    assert_eq!(stats.pieces, 0);
    torrent.add_peers(vec![seed.local_addr()]).await;
    until(&torrent, |stats| stats.complete).await;
    node.shutdown().await;
    seed.shutdown().await;
    garbage.iter().for_each(tokio::task::JoinHandle::abort);
    subscriber.opened(&tracker);
}

/// Of the twelve pieces, these are clear.
const CLEAR: [u32; 7] = [1, 2, 4, 5, 7, 10, 11];

/// Those, as a torrent says it.
fn selection() -> Arc<Selection> {
    let mut bits = [0xff, 0xf0];
    CLEAR.iter().for_each(|piece| bits[*piece as usize / 8] ^= 0x80 >> (piece % 8));
    Arc::new(Selection::from_bytes(&bits, PIECES).unwrap())
}

async fn mixed_seed(
    tracker: &Arc<FakeTracker>,
    source: impl PlainSource,
    limit: Option<u64>,
) -> (Node, Torrent) {
    let key = SigningKey::generate(&mut UnwrapErr(SysRng));
    let id = SubscriberId::of_seed(&TORRENT, &key.public());
    let hello = Hello::Seed { key: key.public() };
    let member = Member { torrent_id: TORRENT, params: tracker.params.clone(), hello, id, key, epoch: 0 };
    let secret = package_secret();
    let node = Node::bind(NodeConfig { upload_limit: limit, ..local() }).await.unwrap();
    let role = Role::Seed { member, source: Arc::new(source), secret };
    let published = Some(published(tracker, Some(selection())));
    let torrent = node.add_torrent(TorrentConfig { published, ..config(role, tracker, id, &node) }).unwrap();
    (node, torrent)
}

impl Subscriber {
    async fn join_mixed(&self, tracker: &Arc<FakeTracker>) -> (Node, Torrent) {
        let store = Arc::new(open(self.dir.path(), TORRENT));
        let role = Role::Peer { member: self.member.clone(), store };
        let node = Node::bind(local()).await.unwrap();
        let published = Some(published(tracker, Some(selection())));
        let config = TorrentConfig { published, ..config(role, tracker, self.member.id, &node) };
        let torrent = node.add_torrent(config).unwrap();
        (node, torrent)
    }

    /// Every stored piece, after checking that it is the plaintext, or opens to it with the keys of that epoch.
    fn opened_mixed(&self, tracker: &FakeTracker, epoch: u64) -> Vec<Vec<u8>> {
        let params = &*tracker.params;
        let store = open(self.dir.path(), TORRENT);
        let keys = TsKeys::derive(params, &tracker.master, &self.member.id, epoch);
        let piece = |piece: u32| {
            let mut stored = vec![0; PIECE_LEN as usize];
            let found = store.read_stored(piece, &mut stored).unwrap();
            let mut data = stored.clone();
            if CLEAR.contains(&piece) {
                assert_eq!(found.epoch, 0);
                assert!(data == pattern(piece, PIECE_LEN as usize), "piece {piece}");
                return stored;
            }
            assert_eq!(found.epoch, epoch);
            let key = DecryptionKey::derive(params, &keys.key(piece));
            decrypt_piece(params, &self.secret, &key, &mut data).unwrap();
            let len = package::unpack(params, &mut data).unwrap();
            assert!(data[..len] == pattern(piece, len), "piece {piece}");
            stored
        };
        (0..PIECES).map(piece).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clear_pieces_go_from_hand_to_hand_without_a_key_and_stay_while_an_epoch_ends() {
    let tracker = FakeTracker::new();
    let (seed, _) = mixed_seed(&tracker, Pattern, Some(150_000)).await;
    let (alice, bob) = (Subscriber::new(&tracker), Subscriber::new(&tracker));
    let (alice_node, alice_torrent) = alice.join_mixed(&tracker).await;
    until(&alice_torrent, |stats| stats.pieces >= 4).await;
    *tracker.epoch.lock().unwrap() = Some(2);
    let done = |stats: &Stats| stats.complete && stats.epoch == 2 && stats.moving == 0;
    let stats = until(&alice_torrent, done).await;
    assert_eq!(stats.rejected, 0);
    seed.shutdown().await;
    // Of Alice alone; everything she hands on she has from the seed.
    let (bob_node, bob_torrent) = bob.join_mixed(&tracker).await;
    let stats = until(&bob_torrent, done).await;
    assert_eq!((stats.rejected, stats.from_seeds), (0, 0));
    bob_node.shutdown().await;
    alice_node.shutdown().await;

    let (of_alice, of_bob) = (alice.opened_mixed(&tracker, 2), bob.opened_mixed(&tracker, 2));
    for piece in 0..PIECES {
        let equal = of_alice[piece as usize] == of_bob[piece as usize];
        assert_eq!(equal, CLEAR.contains(&piece), "piece {piece}");
    }
    let keyed = tracker.keyed.lock().unwrap().clone();
    assert!(keyed.len() >= 10 && keyed.iter().all(|piece| !CLEAR.contains(piece)), "{keyed:?}");
}

/// Like [`Pattern`], but for one clear piece.
struct Lies;

impl PlainSource for Lies {
    fn read_payload(&self, index: u32, payload: &mut [u8]) -> io::Result<()> {
        Pattern.read_payload(index, payload)?;
        payload[9] ^= u8::from(index == CLEAR[3]);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_clear_piece_is_refused_as_it_comes_and_fetched_elsewhere() {
    let tracker = FakeTracker::new();
    let (liar, _) = mixed_seed(&tracker, Lies, None).await;
    let subscriber = Subscriber::new(&tracker);
    let (node, torrent) = subscriber.join_mixed(&tracker).await;
    until(&torrent, |stats| stats.rejected == 1).await;
    let (honest, _) = mixed_seed(&tracker, Pattern, None).await;
    let stats = until(&torrent, |stats| stats.complete).await;
    assert_eq!(stats.rejected, 1, "who sent it is not asked for it again");
    node.shutdown().await;
    liar.shutdown().await;
    honest.shutdown().await;
    subscriber.opened_mixed(&tracker, 1);
}
