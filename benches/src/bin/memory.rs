//! What one peer with many connections needs: a process that holds nothing else, and as many peers as it may have connections,
//! all in one other process, at full speed over loopback.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use sha1::{Digest, Sha1};
use swarmseal::peer::{
    Announce, AnnounceReply, BoxFuture, Expected, FileStore, KeyError, Member, Node, NodeConfig, PlainSource,
    Published, Role, Shape, Store, Torrent, TorrentConfig, Tracker,
};
use swarmseal::wire::identity::SigningKey;
use swarmseal::wire::layout::Layout;
use swarmseal::wire::plain::{PlainMetainfo, PlainTorrent};
use swarmseal::wire::seal::Hello;
use swarmseal_bench::process::Process;
use swarmseal_bench::report::{cells, table};
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    EncryptionKey, Exponents, Group, KeyCommitment, Params, Profile, TorrentId, encrypt_piece,
};

/// Measures the most memory that one peer ever has resident, as the seed and as the leech of as many peers as it may have
/// connections.
///
/// The peer runs in a process of its own, with the library's own settings; the others share one process. Everybody has all the
/// CPU that there is, nothing is limited. A seed serves five at a time, and all of them in the rows that say so. Keys are any:
/// memory does not depend on them. The content is made up as it is read, so that no file of a seed is in these figures.
#[derive(Clone, Parser)]
struct Args {
    /// Peers that it is connected to.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Seconds of each run, unless everything is there earlier.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Content, MiB.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..=8192))]
    size: u32,
    /// A second of each run, 64 MiB.
    #[arg(long)]
    quick: bool,
    /// Print JSON: {"connections", "rows": [{torrent, piece_kib, peer, connected, mb_s, idle_mib, peak_mib}]}.
    #[arg(long)]
    json: bool,
    /// What this process is to be: for its own use.
    #[arg(long, hide = true)]
    subject: Option<Peer>,
    #[arg(long, hide = true, default_value_t = 256)]
    piece_kib: u32,
    #[arg(long, hide = true)]
    sealed: bool,
}

/// What the peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    Seed,
    /// Serves all at a time.
    GenerousSeed,
    Leech,
}

impl Peer {
    fn words(self) -> &'static str {
        match self {
            Peer::Seed => "seed",
            Peer::GenerousSeed => "seed that serves all",
            Peer::Leech => "leech",
        }
    }
}

#[derive(Serialize)]
struct Report {
    connections: u32,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    torrent: &'static str,
    piece_kib: u32,
    peer: &'static str,
    /// The most connections at a time.
    connected: usize,
    /// Mean rate of all of them together.
    mb_s: f64,
    /// Resident before the first connection, and at most.
    idle_mib: u64,
    peak_mib: u64,
}

const INFO_HASH: [u8; 20] = [7; 20];
const TORRENT: TorrentId = TorrentId([9; 32]);
/// How often the others are asked how far they are.
const LOOK: Duration = Duration::from_millis(100);

/// Bytes that are the same in every piece but for its number.
struct MadeUp(Vec<u8>);

impl MadeUp {
    fn new(piece_len: u32) -> Self {
        MadeUp((0..piece_len).map(|i| (i * 7 + i / 251) as u8).collect())
    }
}

impl PlainSource for MadeUp {
    fn read_payload(&self, index: u32, payload: &mut [u8]) -> io::Result<()> {
        payload.copy_from_slice(&self.0[..payload.len()]);
        payload[..4].copy_from_slice(&index.to_be_bytes());
        Ok(())
    }
}

/// Knows nobody and gives the same key for everything.
struct AnyKey(Vec<u8>);

impl AnyKey {
    fn keys(&self, pieces: &[u32]) -> BoxFuture<'_, Result<Vec<Vec<u8>>, KeyError>> {
        let keys = vec![self.0.clone(); pieces.len()];
        Box::pin(async move { Ok(keys) })
    }
}

impl Tracker for AnyKey {
    fn announce<'a>(&'a self, _: &'a Announce) -> BoxFuture<'a, Result<AnnounceReply, String>> {
        Box::pin(async {
            Ok(AnnounceReply { interval: Duration::from_secs(3600), peers: Vec::new(), epoch: None })
        })
    }

    fn rekeys<'a>(
        &'a self,
        _: &'a [u8],
        _: u64,
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        self.keys(pieces)
    }

    fn encryption_keys<'a>(
        &'a self,
        _: &'a [u8],
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        self.keys(pieces)
    }

    fn witness_keys<'a>(
        &'a self,
        _: u64,
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        self.keys(pieces)
    }

    fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

/// A torrent that anybody here may join.
struct Swarm {
    layout: Layout,
    /// None where it is plain.
    params: Option<Arc<Params>>,
    metainfo: Option<PlainMetainfo>,
    /// What leeches check sealed pieces by.
    published: Option<Arc<Published>>,
    content: Arc<MadeUp>,
}

impl Swarm {
    /// `leech`: somebody here is to check pieces.
    fn new(args: &Args, leech: bool) -> Result<Self> {
        let piece_len = args.piece_kib << 10;
        let layout = Layout::of_whole((args.size << 10) / args.piece_kib, piece_len).context("no layout")?;
        let content = Arc::new(MadeUp::new(piece_len));
        let group = Group::ffdhe2048(swarmseal_accel::detect());
        let params = Params::new(Profile::Sealed, group, Exponents::Short);
        let params = args.sealed.then(|| params.map_err(|error| anyhow::anyhow!("{error}"))).transpose()?;
        let metainfo =
            (leech && !args.sealed).then(|| metainfo(layout, &content)).transpose().context("metainfo")?;
        let check_by = params.as_ref().filter(|_| leech);
        let published = check_by.map(|params| published(layout, params, &content)).transpose()?;
        Ok(Swarm { layout, params: params.map(Arc::new), metainfo, published, content })
    }

    fn seed(&self, number: u32) -> Role {
        let (source, secret) = (self.content.clone(), package_secret());
        match self.member(number, 0) {
            Some(member) => Role::Seed { member, source, secret },
            None => Role::PlainSeed { source },
        }
    }

    fn leech(&self, number: u32, dir: &Path) -> Result<Role> {
        Ok(match (self.member(number, 1), &self.metainfo) {
            (Some(member), _) => {
                let (piece_len, piece_count) = (self.layout.piece_len(), self.layout.piece_count());
                let store = Store::open(dir, Shape { torrent_id: TORRENT, piece_len, piece_count })?;
                Role::Peer { member, store: Arc::new(store) }
            }
            (None, Some(metainfo)) => {
                Role::PlainPeer { store: Arc::new(FileStore::open(dir, metainfo, &|_| {})?) }
            }
            (None, None) => anyhow::bail!("a leech without hashes"),
        })
    }

    fn member(&self, number: u32, epoch: u64) -> Option<Member> {
        let mut bytes = [1; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let key = SigningKey::from_bytes(&bytes);
        let hello = match epoch {
            0 => Hello::Seed { key: key.public() },
            _ => Hello::Subscriber { identity: key.public(), keys: KeyCommitment(bytes) },
        };
        let (params, id) = (self.params.clone()?, hello.id(&TORRENT));
        Some(Member { torrent_id: TORRENT, params, hello, id, key, epoch })
    }

    fn join(&self, node: &Node, role: Role, peers: Vec<SocketAddr>) -> Result<Torrent> {
        let key = self.params.as_ref().map_or_else(Vec::new, |params| any_key(params));
        let config = TorrentConfig::new(INFO_HASH, self.layout, role, Arc::new(AnyKey(key)));
        Ok(node.add_torrent(TorrentConfig { peers, published: self.published.clone(), ..config })?)
    }
}

fn package_secret() -> PackageSecret {
    PackageSecret::from_bytes([5; 32])
}

/// The one key that everybody has.
fn any_key(params: &Params) -> Vec<u8> {
    let mut key = vec![0; params.group().bytes()];
    key.iter_mut().skip(100).for_each(|byte| *byte = 3);
    key
}

/// Encrypted with the key, and turned into the witness's form with the same one.
fn published(layout: Layout, params: &Params, content: &MadeUp) -> Result<Arc<Published>> {
    let core = |error: swarmseal_core::Error| anyhow::anyhow!("{error}");
    let key = EncryptionKey::from_bytes(params, &any_key(params)).map_err(core)?;
    let mut piece = vec![0; layout.piece_len() as usize];
    let mut expected = |index| {
        let payload = params.payload_bytes(piece.len());
        content.read_payload(index, &mut piece[..payload])?;
        package::pack(params, &package_secret(), &TORRENT, index, &mut piece).map_err(core)?;
        (0..2).try_for_each(|_| encrypt_piece(params, &key, &mut piece)).map_err(core)?;
        Ok(Expected::Witness(*blake3::hash(&piece).as_bytes()))
    };
    let pieces = (0..layout.piece_count()).map(&mut expected).collect::<Result<_>>()?;
    Ok(Published::new(None, pieces))
}

fn metainfo(layout: Layout, content: &MadeUp) -> Result<PlainMetainfo> {
    let mut piece = vec![0; layout.piece_len() as usize];
    let mut hash = |index| {
        content.read_payload(index, &mut piece)?;
        Ok(Sha1::digest(&piece).into())
    };
    let pieces: Vec<[u8; 20]> = (0..layout.piece_count()).map(&mut hash).collect::<io::Result<_>>()?;
    let torrent = PlainTorrent {
        name: "content",
        files: None,
        length: layout.length(),
        piece_len: layout.piece_len(),
        pieces: &pieces,
        announce: None,
        private: true,
    };
    Ok(PlainMetainfo::from_bytes(&torrent.to_bytes())?)
}

fn local() -> NodeConfig {
    NodeConfig { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ..NodeConfig::default() }
}

/// The peer that is measured: says its port, and ends with its input.
async fn subject(args: &Args, peer: Peer) -> Result<()> {
    let swarm = Swarm::new(args, peer == Peer::Leech)?;
    let connections = args.connections as usize;
    let slots = if peer == Peer::GenerousSeed { connections } else { NodeConfig::default().slots };
    let node = Node::bind(NodeConfig { max_connections: connections, slots, ..local() }).await?;
    let dir = tempfile::tempdir()?;
    let role = if peer == Peer::Leech { swarm.leech(0, dir.path())? } else { swarm.seed(0) };
    let _torrent = swarm.join(&node, role, Vec::new())?;
    println!("port {}", node.local_addr().port());
    tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await??;
    node.shutdown_now().await;
    Ok(())
}

/// One run: the peer as a process, all others here.
async fn run(args: &Args, peer: Peer) -> Result<Row> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--subject", peer.to_possible_value().context("it has a name")?.get_name()]);
    for (flag, value) in
        [("--connections", args.connections), ("--size", args.size), ("--piece-kib", args.piece_kib)]
    {
        command.args([flag, &value.to_string()]);
    }
    command.args(args.sealed.then_some("--sealed"));
    let process = Process::start(&mut command)?;
    let line = process.until("port ")?;
    let port: u16 = line.trim_start_matches("port ").parse()?;
    let idle_mib = process.peak_mib()?;
    let swarm = Swarm::new(args, peer != Peer::Leech)?;
    let dir = tempfile::tempdir()?;
    let (mut nodes, mut torrents) = (Vec::new(), Vec::new());
    for number in 1..=args.connections {
        let node = Node::bind(local()).await?;
        let role = match peer {
            Peer::Leech => swarm.seed(number),
            _ => swarm.leech(number, &dir.path().join(number.to_string()))?,
        };
        torrents.push(swarm.join(&node, role, vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))])?);
        nodes.push(node);
    }
    let (start, mut look) = (Instant::now(), tokio::time::interval(LOOK));
    let (mut connected, mut moved, mut took) = (0, 0, 0.0);
    let all = swarm.layout.length() * u64::from(if peer == Peer::Leech { 1 } else { args.connections });
    while start.elapsed().as_secs_f64() < args.seconds && moved < all {
        look.tick().await;
        let stats: Vec<_> = torrents.iter().map(|torrent| torrent.stats().borrow().clone()).collect();
        connected = connected.max(stats.iter().map(|stats| stats.connections).sum());
        moved = stats.iter().map(|stats| stats.uploaded + stats.from_seeds + stats.from_peers).sum();
        took = start.elapsed().as_secs_f64();
    }
    let peak_mib = process.peak_mib()?;
    drop(process);
    for node in nodes {
        node.shutdown_now().await;
    }
    ensure!(moved > 0, "nothing moved");
    Ok(Row {
        torrent: if args.sealed { "sealed" } else { "plain" },
        piece_kib: args.piece_kib,
        peer: peer.words(),
        connected,
        mb_s: moved as f64 / took / 1e6,
        idle_mib,
        peak_mib,
    })
}

async fn run_all(args: &Args) -> Result<Report> {
    let mut rows = Vec::new();
    for piece_kib in [256, 1024] {
        for sealed in [false, true] {
            for peer in [Peer::Seed, Peer::GenerousSeed, Peer::Leech] {
                rows.push(run(&Args { piece_kib, sealed, ..args.clone() }, peer).await?);
            }
        }
    }
    Ok(Report { connections: args.connections, rows })
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.seconds, args.size) = (1.0, 64);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(peer) = args.subject {
        return runtime.block_on(subject(&args, peer));
    }
    let report = runtime.block_on(run_all(&args))?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    println!("a peer with {} connections, over loopback", report.connections);
    let mut rows =
        vec![cells(["torrent", "piece, KiB", "peer", "connected", "MB/s", "idle, MiB", "peak, MiB"])];
    rows.extend(report.rows.iter().map(|row| {
        let numbers =
            [row.connected as u64, row.mb_s as u64, row.idle_mib, row.peak_mib].map(|n| n.to_string());
        let words = [row.torrent.to_owned(), row.piece_kib.to_string(), row.peer.to_owned()];
        [&words[..], &numbers].concat()
    }));
    print!("{}", table(&rows));
    Ok(())
}
