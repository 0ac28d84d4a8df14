//! Nodes over real sockets, with a tracker in memory that holds the master key.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sha1::{Digest, Sha1};
use swarmseal::peer::{
    Announce, AnnounceEvent, AnnounceReply, BoxFuture, ClearPieces, FileStore, KeyError, Member, Node,
    NodeConfig, Obfuscation, Owner, PlainSource, Role, Shape, Stats, Store, Torrent, TorrentConfig, Tracker,
    read_statements, statements_by_entry,
};
use swarmseal::wire::handshake::{self, Handshake};
use swarmseal::wire::identity::{Identity, SigningKey, purpose, verify};
use swarmseal::wire::layout::Layout;
use swarmseal::wire::metainfo::{Info, Metainfo, Seal};
use swarmseal::wire::mse::{self, Initiator};
use swarmseal::wire::plain::{PlainMetainfo, PlainTorrent};
use swarmseal::wire::selection::Selection;
use swarmseal_core::{
    DecryptionKey, EncryptionKey, Exponents, Group, Kernels, MasterKey, Params, Profile, PublicKey, ReKey,
    SecretKey, SubscriberId, Ticket, TorrentId, TsKeys, decrypt_piece, package,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
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
}

impl Tracker for Session {
    fn announce<'a>(&'a self, announce: &'a Announce) -> BoxFuture<'a, Result<AnnounceReply, String>> {
        let us = SocketAddr::from(([127, 0, 0, 1], announce.port));
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

fn config(role: Role, tracker: &Arc<FakeTracker>, us: SubscriberId) -> TorrentConfig {
    let layout = Layout::of_whole(PIECES, PIECE_LEN).unwrap();
    TorrentConfig::new(INFO_HASH, layout, role, Arc::new(Session { tracker: tracker.clone(), us }))
}

fn local() -> NodeConfig {
    NodeConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..NodeConfig::default() }
}

async fn seed(tracker: &Arc<FakeTracker>, limit: Option<u64>) -> (Node, Torrent) {
    let key = SigningKey::generate(&mut UnwrapErr(SysRng));
    let id = SubscriberId::of_seed(&TORRENT, &key.public());
    let member = Member { torrent_id: TORRENT, params: tracker.params.clone(), id, key, epoch: 0 };
    let secret = package::PackageSecret::from_bytes([5; 32]);
    let node = Node::bind(NodeConfig { upload_limit: limit, ..local() }).await.unwrap();
    let role = Role::Seed { member, source: Arc::new(Pattern), secret };
    let torrent = node.add_torrent(config(role, tracker, id)).unwrap();
    (node, torrent)
}

/// A subscriber with a directory.
struct Subscriber {
    member: Member,
    secret: SecretKey,
    y: PublicKey,
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
        let member = Member { torrent_id: TORRENT, params, id, key, epoch: 1 };
        Subscriber { member, secret, y, dir: tempfile::tempdir().unwrap() }
    }

    async fn join(&self, tracker: &Arc<FakeTracker>) -> (Node, Torrent) {
        let store = Arc::new(open(self.dir.path(), TORRENT));
        let role = Role::Peer { member: self.member.clone(), store };
        let node = Node::bind(local()).await.unwrap();
        let mut config = config(role, tracker, self.member.id);
        config.statements = Some(self.dir.path().join("statements"));
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
    for subscriber in &subscribers {
        let owner = Owner { torrent_id: TORRENT, subscriber: subscriber.member.id };
        let statements = read_statements(&subscriber.dir.path().join("statements"), &owner).unwrap();
        let statements = statements_by_entry(&statements);
        let stored = open(subscriber.dir.path(), TORRENT);
        for piece in 0..PIECES {
            let stored = stored.piece(piece).unwrap();
            assert!(statements.contains_key(&(piece, stored.hash, stored.sender.unwrap())), "piece {piece}");
        }
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

/// A seed and a peer of an ordinary torrent; the peer reaches the seed at an address that is told of the seed's.
async fn fetch_plain(seed: NodeConfig, peer: NodeConfig, reach: impl AsyncFnOnce(SocketAddr) -> SocketAddr) {
    let us = SubscriberId([0; 32]);
    let seed = Node::bind(seed).await.unwrap();
    // The last piece is short, and its last block too.
    let layout = Layout::new(u64::from(PIECES * PIECE_LEN) - 20_001, PIECE_LEN).unwrap();
    let role = Role::PlainSeed { source: Arc::new(Pattern) };
    let seeding = TorrentConfig { layout, ..config(role, &FakeTracker::new(), us) };
    let _seeding = seed.add_torrent(seeding).unwrap();
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
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FileStore::open(dir.path(), &metainfo, &|_| {}).unwrap());
    let node = Node::bind(peer).await.unwrap();
    let role = Role::PlainPeer { store };
    let peers = vec![reach(seed.local_addr()).await];
    let fetching = TorrentConfig { layout, peers, ..config(role, &FakeTracker::new(), us) };
    let torrent = node.add_torrent(fetching).unwrap();
    let last = until(&torrent, |stats| stats.complete).await;
    assert_eq!((last.left, last.from_peers + last.from_seeds), (0, layout.length()));
    assert_eq!(std::fs::read(dir.path().join("film")).unwrap(), content.concat());
    node.shutdown().await;
    seed.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_torrent_moves_too() {
    fetch_plain(local(), local(), async |seed| seed).await;
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
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
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
        let _seeding = node.add_torrent(config(role, &FakeTracker::new(), SubscriberId([0; 32]))).unwrap();
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
        let _seeding = node.add_torrent(config(role, &FakeTracker::new(), SubscriberId([0; 32]))).unwrap();
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

/// A seed that offers everything and sends blocks that no group element has: all bytes 0xff.
async fn garbage_seed(listener: TcpListener) {
    use swarmseal::wire::message::Message;
    use swarmseal::wire::seal::{ExtendedHandshake, Hello, OUR_ID};
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        tokio::spawn(async move {
            let key = SigningKey::from_bytes(&[8; 32]);
            let hello = Hello {
                id: SubscriberId([0xbb; 32]),
                identity: key.public(),
                epoch: 1,
                profile: Profile::Sealed,
            };
            let extended = ExtendedHandshake {
                seal_id: Some(OUR_ID),
                dont_have_id: None,
                client: "garbage".to_owned(),
                reqq: 500,
                port: None,
                hello: Some(hello),
            };
            let mut out =
                bytes::BytesMut::from(&Handshake::new(INFO_HASH, handshake::peer_id([2; 12])).to_bytes()[..]);
            Message::Extended { id: 0, payload: extended.to_bytes().into() }.encode(&mut out);
            Message::Bitfield(vec![0xff, 0xf0].into()).encode(&mut out);
            Message::Unchoke.encode(&mut out);
            let mut theirs = [0; handshake::LEN];
            stream.read_exact(&mut theirs).await?;
            stream.write_all(&out).await?;
            answer_requests(stream, 0xff).await
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

/// Offers all of an ordinary torrent, sends zeros, and counts the calls.
async fn plain_liar(listener: TcpListener, calls: Arc<Mutex<u32>>) {
    use swarmseal::wire::message::Message;
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        *calls.lock().unwrap() += 1;
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
async fn who_lies_is_not_called_again_and_who_does_not_goes_on() {
    let us = SubscriberId([0; 32]);
    let (listener, calls) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::default());
    let liar = listener.local_addr().unwrap();
    let lying = tokio::spawn(plain_liar(listener, Arc::clone(&calls)));
    let seed = Node::bind(local()).await.unwrap();
    let role = Role::PlainSeed { source: Arc::new(Pattern) };
    let _seeding = seed.add_torrent(config(role, &FakeTracker::new(), us)).unwrap();
    let content: Vec<_> = (0..PIECES).map(|piece| pattern(piece, PIECE_LEN as usize)).collect();
    let hashes: Vec<[u8; 20]> = content.iter().map(|piece| Sha1::digest(piece).into()).collect();
    let plain = PlainTorrent {
        name: "film",
        files: None,
        length: u64::from(PIECES * PIECE_LEN),
        piece_len: PIECE_LEN,
        pieces: &hashes,
        announce: None,
        private: false,
    };
    let metainfo = PlainMetainfo::from_bytes(&plain.to_bytes()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FileStore::open(dir.path(), &metainfo, &|_| {}).unwrap());
    let node = Node::bind(local()).await.unwrap();
    let fetching =
        TorrentConfig { peers: vec![liar], ..config(Role::PlainPeer { store }, &FakeTracker::new(), us) };
    let torrent = node.add_torrent(fetching).unwrap();
    // The liar is all there is at first.
    until(&torrent, |stats| stats.rejected > 0 && stats.connections == 0).await;
    torrent.add_peers(vec![liar, seed.local_addr()]).await;
    let last = until(&torrent, |stats| stats.complete).await;
    assert_eq!((*calls.lock().unwrap(), last.known_peers), (1, 1));
    assert_eq!(std::fs::read(dir.path().join("film")).unwrap(), content.concat());
    node.shutdown().await;
    seed.shutdown().await;
    lying.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_are_no_group_elements_are_refused_and_fetched_elsewhere() {
    let tracker = FakeTracker::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    tracker.swarm.lock().unwrap().insert(listener.local_addr().unwrap());
    let garbage = tokio::spawn(garbage_seed(listener));
    let subscriber = Subscriber::new(&tracker);
    let (node, torrent) = subscriber.join(&tracker).await;
    // The hostile seed is all there is at first.
    until(&torrent, |stats| stats.rejected > 0).await;
    let (seed, _) = seed(&tracker, None).await;
    let stats = until(&torrent, |stats| stats.complete).await;
    assert!(stats.rejected >= 1);
    node.shutdown().await;
    seed.shutdown().await;
    garbage.abort();
    subscriber.opened(&tracker);
}

/// Of the twelve pieces, these are clear.
const CLEAR: [u32; 7] = [1, 2, 4, 5, 7, 10, 11];

/// A torrent of [`Pattern`] with the pieces of [`CLEAR`] clear.
fn clear_pieces(tracker: &FakeTracker) -> Arc<ClearPieces> {
    let mut bits = [0xff, 0xf0];
    CLEAR.iter().for_each(|piece| bits[*piece as usize / 8] ^= 0x80 >> (piece % 8));
    let key = SigningKey::from_bytes(&[1; 32]).public();
    let info = Info {
        name: "A film".into(),
        piece_length: PIECE_LEN,
        piece_count: PIECES,
        pieces: (0..PIECES).map(|piece| Sha1::digest(pattern(piece, PIECE_LEN as usize)).into()).collect(),
        private: true,
        seal: Seal {
            selection: Some(Arc::new(Selection::from_bytes(&bits, PIECES).unwrap())),
            ..Seal::new(key, [9; 32], tracker.params.clone(), key)
        },
    };
    ClearPieces::of(&Metainfo::new("http://tracker.example/announce".into(), info).unwrap()).unwrap()
}

async fn mixed_seed(
    tracker: &Arc<FakeTracker>,
    source: impl PlainSource,
    limit: Option<u64>,
) -> (Node, Torrent) {
    let key = SigningKey::generate(&mut UnwrapErr(SysRng));
    let id = SubscriberId::of_seed(&TORRENT, &key.public());
    let member = Member { torrent_id: TORRENT, params: tracker.params.clone(), id, key, epoch: 0 };
    let secret = package::PackageSecret::from_bytes([5; 32]);
    let node = Node::bind(NodeConfig { upload_limit: limit, ..local() }).await.unwrap();
    let role = Role::Seed { member, source: Arc::new(source), secret };
    let clear = Some(clear_pieces(tracker));
    let torrent = node.add_torrent(TorrentConfig { clear, ..config(role, tracker, id) }).unwrap();
    (node, torrent)
}

impl Subscriber {
    async fn join_mixed(&self, tracker: &Arc<FakeTracker>) -> (Node, Torrent) {
        let store = Arc::new(open(self.dir.path(), TORRENT));
        let role = Role::Peer { member: self.member.clone(), store };
        let node = Node::bind(local()).await.unwrap();
        let statements = Some(self.dir.path().join("statements"));
        let clear = Some(clear_pieces(tracker));
        let config = TorrentConfig { statements, clear, ..config(role, tracker, self.member.id) };
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

    // Statements are about sealed pieces alone.
    let statements = |of: &Subscriber| {
        let owner = Owner { torrent_id: TORRENT, subscriber: of.member.id };
        read_statements(&of.dir.path().join("statements"), &owner).unwrap()
    };
    let mut stated = HashSet::new();
    for (uploader, statement) in statements(&bob).iter().chain(&statements(&alice)) {
        assert!(statement.entries.iter().all(|entry| !CLEAR.contains(&entry.piece)));
        if *uploader == alice.member.id {
            stated.extend(statement.entries.iter().map(|entry| entry.piece));
        }
    }
    assert_eq!(stated, (0..PIECES).filter(|piece| !CLEAR.contains(piece)).collect());
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
async fn a_bad_clear_piece_is_refused_as_it_comes_and_its_sender_banned() {
    let tracker = FakeTracker::new();
    let (liar, lying) = mixed_seed(&tracker, Lies, None).await;
    let subscriber = Subscriber::new(&tracker);
    let (node, torrent) = subscriber.join_mixed(&tracker).await;
    until(&torrent, |stats| stats.rejected == 1 && stats.connections == 0).await;
    let sent = until(&lying, |stats| stats.connections == 0).await.uploaded;
    let (honest, _) = mixed_seed(&tracker, Pattern, None).await;
    let stats = until(&torrent, |stats| stats.complete).await;
    assert_eq!(stats.rejected, 1);
    // It may call; nothing is asked of it any more.
    assert_eq!(lying.stats().borrow().uploaded, sent);
    node.shutdown().await;
    liar.shutdown().await;
    honest.shutdown().await;
    subscriber.opened_mixed(&tracker, 1);
}
