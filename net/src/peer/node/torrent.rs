//! One torrent of a node: the task that feeds the state machine and does what it commands.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use swarmseal_core::{Params, SubscriberId, TorrentId, package::PackageSecret};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::dialer::Dialer;
use super::epoch::{Mover, keep_up};
use super::link::{Link, NewConnection};
use super::opening::call;
use super::{Joined, Shared, announce, discovery, hashes, personal, stopping, work};
use crate::peer::buffers::{Buffer, Buffers};
use crate::peer::cipher_hashes::{CipherHashes, PieceCheck};
use crate::peer::clear::ClearPieces;
use crate::peer::file_store::FileStore;
use crate::peer::journal::{Journal, rekey_line, ticket_line};
use crate::peer::plain::PlainSource;
use crate::peer::state::{
    Claim, Command, Config, ConnectionId, Event, Evidence, Have, Now, Seal, Sender, StoreFailure, Swarm,
    Unready,
};
use crate::peer::statements::{Owner, Stated, StatementLog, statements_by_entry};
use crate::peer::store::{Shape, Store, StoreError, StoredPiece};
use crate::peer::tracker::{AnnounceReply, OrdinaryClient, Personal, Tracker};
use crate::wire::identity::SigningKey;
use crate::wire::layout::Layout;
use crate::wire::message::{BLOCK, Decoder, Message};

/// A piece that nobody else need vouch for.
const OURS: Have = Have { epoch: 0, vouched: Some(0) };
const TICK: Duration = Duration::from_millis(250);
/// Events that wait for the task; readers wait in turn.
const QUEUE: usize = 512;
/// Calls under way at a time.
const MAX_CALLS: usize = 16;
/// How long a stop waits for the statements of what came last.
const LAST_STATEMENTS: Duration = Duration::from_secs(3);
/// How long a stop waits for connections and jobs to end.
const LAST_JOBS: Duration = Duration::from_secs(10);
/// How long a stop waits for the disk. What it does not see there is in the system's hands, and every piece is hashed at the
/// next start.
const LAST_SYNC: Duration = Duration::from_secs(60);
/// How often what was stored is made to survive a power cut.
const SYNC: Duration = Duration::from_secs(30);
/// A connection that lasted this long is not held against its address.
const SERVED: Duration = Duration::from_secs(30);

/// Who we are in a sealed torrent.
#[derive(Clone, Debug)]
pub struct Member {
    /// The torrent.
    pub torrent_id: TorrentId,
    /// Its parameters.
    pub params: Arc<Params>,
    /// Our subscriber id, or the original seed's.
    pub id: SubscriberId,
    /// The identity key, or the seed's, that signs tickets and statements.
    pub key: SigningKey,
    /// The epoch in which we were last; 0 for a seed. If our pieces are of a later one, that counts, and so does what the tracker
    /// says.
    pub epoch: u64,
}

/// What we do in a swarm.
pub enum Role {
    /// An original seed: plaintext is packed and encrypted on the way out.
    Seed {
        /// The seed's id and key.
        member: Member,
        /// The plaintext.
        source: Arc<dyn PlainSource>,
        /// What all seeds of the torrent share.
        secret: PackageSecret,
    },
    /// A subscriber: stores ciphertext of its own and passes it on re-encrypted.
    Peer {
        /// The subscriber.
        member: Member,
        /// Its pieces.
        store: Arc<Store>,
    },
    /// Has all of an ordinary torrent.
    PlainSeed {
        /// The content: a payload is a piece.
        source: Arc<dyn PlainSource>,
    },
    /// Fetches an ordinary torrent, or has it.
    PlainPeer {
        /// Its files.
        store: Arc<FileStore>,
    },
}

impl Role {
    pub(super) fn member(&self) -> Option<&Member> {
        match self {
            Role::Seed { member, .. } | Role::Peer { member, .. } => Some(member),
            Role::PlainSeed { .. } | Role::PlainPeer { .. } => None,
        }
    }

    /// Makes what was stored survive a power cut; an error's text.
    fn sync(&self) -> Result<(), String> {
        match self {
            Role::Peer { store, .. } => store.sync().map_err(|error| error.to_string()),
            Role::PlainPeer { store } => store.sync().map_err(|error| error.to_string()),
            Role::Seed { .. } | Role::PlainSeed { .. } => Ok(()),
        }
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Seed { .. } => "Seed",
            Role::Peer { .. } => "Peer",
            Role::PlainSeed { .. } => "PlainSeed",
            Role::PlainPeer { .. } => "PlainPeer",
        })
    }
}

/// A torrent to join.
pub struct TorrentConfig {
    /// SHA-1 of the metainfo's raw info.
    pub info_hash: [u8; 20],
    /// How it is cut. Sealed: whole pieces of whole blocks of 16 KiB and of W bytes.
    pub layout: Layout,
    /// What we do.
    pub role: Role,
    /// Its tracker.
    pub tracker: Arc<dyn Tracker>,
    /// Peers known beforehand.
    pub peers: Vec<SocketAddr>,
    /// Whether peers come from the tracker alone (BEP 27). Those of a sealed torrent always do.
    pub private: bool,
    /// A seed's choice: let each piece leave about once (BEP 16).
    pub super_seed: bool,
    /// Repair: all who sent a bad copy of a piece; it is fetched from somebody else if there is anybody.
    pub avoid: Vec<(u32, SubscriberId)>,
    /// A subscriber's: who can tell whether a piece is good as it comes, where no cipher hash does. It is asked once a bad piece was
    /// found.
    pub check: Option<Arc<dyn PieceCheck>>,
    /// It is asked from the first piece on.
    pub suspicious: bool,
    /// A subscriber's: where statements are kept.
    pub statements: Option<PathBuf>,
    /// Where every ticket and re-key seen is recorded for audits, as JSON lines.
    pub transcript: Option<PathBuf>,
    /// Of a sealed torrent: the pieces that are not encrypted, if there are any.
    pub clear: Option<Arc<ClearPieces>>,
}

impl TorrentConfig {
    /// Nothing out of the ordinary.
    pub fn new(info_hash: [u8; 20], layout: Layout, role: Role, tracker: Arc<dyn Tracker>) -> Self {
        TorrentConfig {
            info_hash,
            layout,
            role,
            tracker,
            peers: Vec::new(),
            private: true,
            super_seed: false,
            avoid: Vec::new(),
            check: None,
            suspicious: false,
            statements: None,
            transcript: None,
            clear: None,
        }
    }
}

impl fmt::Debug for TorrentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TorrentConfig")
            .field("info_hash", &hex::encode(self.info_hash))
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Why a torrent cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// It was joined before.
    #[error("the torrent is already there")]
    Duplicate,
    /// The pieces have an impossible shape.
    #[error(
        "{} bytes in pieces of {}: expected whole pieces, of whole 16 KiB blocks and whole cipher blocks",
        layout.length(), layout.piece_len()
    )]
    BadShape {
        /// How the torrent is cut.
        layout: Layout,
    },
    /// The store was opened for another torrent.
    #[error("the store belongs to another torrent")]
    ForeignStore,
    /// The store, or the statements beside it, cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A transcript cannot be written.
    #[error("{path}: {source}")]
    Journal {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// How a torrent is getting on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Pieces that we have.
    pub pieces: u32,
    /// Pieces that there are.
    pub total: u32,
    /// Bytes that are missing.
    pub left: u64,
    /// Bytes received from original seeds.
    pub from_seeds: u64,
    /// Bytes received from peers.
    pub from_peers: u64,
    /// Bytes of blocks sent.
    pub uploaded: u64,
    /// Whole pieces sent.
    pub uploaded_pieces: u64,
    /// Pieces received that were refused.
    pub rejected: u64,
    /// Bytes per second received.
    pub down_rate: u64,
    /// Bytes per second sent.
    pub up_rate: u64,
    /// Peers connected.
    pub connections: usize,
    /// Peers that we serve.
    pub unchoked: usize,
    /// Addresses known.
    pub known_peers: usize,
    /// Whether every piece is stored.
    pub complete: bool,
    /// Whether every stored piece is what a cipher hash says.
    pub hashed: bool,
    /// The epoch of our subscription; 0 for a seed and in a plain torrent.
    pub epoch: u64,
    /// Pieces that are of another epoch, and move.
    pub moving: u32,
    /// Why downloading has stopped for good, such as a full disk. What is stored stays, and is still served.
    pub failure: Option<String>,
    /// Why the last announce failed.
    pub announce_error: Option<String>,
}

/// A torrent that was joined.
#[derive(Clone, Debug)]
pub struct Torrent {
    stats: watch::Receiver<Stats>,
    stored: watch::Receiver<u64>,
    inputs: mpsc::WeakSender<Input>,
}

impl Torrent {
    /// Progress; changes several times a second while something moves.
    pub fn stats(&self) -> watch::Receiver<Stats> {
        self.stats.clone()
    }

    /// How many pieces were stored since the start, those fetched again among them; changes with each.
    pub fn stored(&self) -> watch::Receiver<u64> {
        self.stored.clone()
    }

    /// Fetches these pieces before all others, in this order, of whoever brings them soonest. Takes the place of what was
    /// said before; an empty list leaves everything to the swarm's own order.
    pub async fn prioritize(&self, pieces: Vec<u32>) {
        if let Some(inputs) = self.inputs.upgrade() {
            let _ = inputs.send(Input::Event(Event::Urgent { pieces })).await;
        }
    }

    /// A subscriber's: a stored piece does not open to what was published. It is discarded and fetched again, from others
    /// than all who ever sent it if there is anybody. `hash`: BLAKE3 of the bad ciphertext ([`StoredPiece::hash`]); nothing
    /// happens where another copy has taken its place. Returns once the piece counts as missing.
    pub async fn refetch(&self, piece: u32, hash: [u8; 32]) {
        if let Some(inputs) = self.inputs.upgrade() {
            let (taken, done) = oneshot::channel();
            let _ = inputs.send(Input::Refetch { piece, hash, taken }).await;
            drop(inputs);
            let _ = done.await;
        }
    }

    /// Tells of peers found otherwise than through the tracker.
    pub async fn add_peers(&self, peers: Vec<SocketAddr>) {
        if let Some(inputs) = self.inputs.upgrade() {
            let _ = inputs.send(Input::Found(peers)).await;
        }
    }
}

/// What reaches the task.
#[derive(Debug)]
pub(crate) enum Input {
    Connection(Box<NewConnection>),
    CallFailed(SocketAddr),
    Messages {
        id: ConnectionId,
        messages: Vec<Message>,
    },
    Event(Event),
    Announced(Result<AnnounceReply, String>),
    /// Peers found otherwise.
    Found(Vec<SocketAddr>),
    /// A stored piece is bad.
    Refetch {
        piece: u32,
        hash: [u8; 32],
        /// Told once that is done.
        taken: oneshot::Sender<()>,
    },
    /// The same, with all who ever sent it.
    SentBy {
        piece: u32,
        hash: [u8; 32],
        senders: Vec<SubscriberId>,
        taken: oneshot::Sender<()>,
    },
    /// Those of the tracker's choice.
    OrdinaryClients(Vec<OrdinaryClient>),
    /// Lines for the transcript.
    Transcript(Vec<serde_json::Value>),
}

/// Starts the task.
pub(super) fn start(
    config: TorrentConfig,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
) -> Result<(Torrent, JoinHandle<()>), AddError> {
    let (statements, stated) = open_statements(&config)?.unzip();
    let swarm_config = swarm_config(&config, &shared, stated.as_deref())?;
    drop(stated);
    let transcript = config.transcript.as_deref().map(open_journal).transpose()?;
    let (inputs, receiver) = mpsc::channel(QUEUE);
    {
        let mut torrents = shared.torrents();
        if torrents.contains_key(&config.info_hash) {
            return Err(AddError::Duplicate);
        }
        let tracker = config.role.member().map(|_| config.tracker.clone());
        torrents.insert(config.info_hash, Joined { inputs: inputs.clone(), tracker });
    }
    let mut dialer = Dialer::default();
    config.peers.iter().for_each(|&peer| dialer.add(peer, None));
    let started = Instant::now();
    let now = Now { elapsed: Duration::ZERO, unix: config.tracker.now() };
    let total = config.layout.piece_count();
    let buffers = swarm_config.buffers.clone();
    let epoch = swarm_config.seal.as_ref().map_or(0, |seal| seal.epoch);
    let swarm = Swarm::new(swarm_config, now);
    let first = Stats {
        pieces: swarm.have().count(),
        total,
        left: left(&swarm, config.layout),
        complete: swarm.have().count() == total,
        epoch,
        moving: swarm.moving(),
        ..Stats::default()
    };
    let (stats, watched) = watch::channel(first);
    let (stored, stored_watched) = watch::channel(0);
    if !config.private && config.role.member().is_none() {
        let (shared, inputs) = (shared.clone(), inputs.downgrade());
        tokio::spawn(discovery::find_peers(config.info_hash, shared, watched.clone(), inputs, stop.clone()));
    }
    let task = Task {
        decoder: Decoder::new(config.layout),
        info_hash: config.info_hash,
        layout: config.layout,
        buffers,
        role: Arc::new(config.role),
        clear: config.clear,
        hashes: Arc::new(CipherHashes::new(config.check, config.suspicious)),
        epoch: watch::Sender::new(epoch),
        tracker: config.tracker,
        shared,
        swarm,
        dialer,
        links: HashMap::new(),
        next_id: 0,
        calls: 0,
        started,
        synced: started,
        stats,
        stored,
        announce_error: None,
        statements,
        transcript,
        inputs: inputs.clone(),
        commands: Vec::new(),
    };
    let torrent = Torrent { stats: watched, stored: stored_watched, inputs: inputs.downgrade() };
    drop(inputs);
    let handle = tokio::spawn(task.run(receiver, stop));
    Ok((torrent, handle))
}

/// Bytes that are missing.
fn left(swarm: &Swarm, layout: Layout) -> u64 {
    let have = swarm.have();
    let missing = u64::from(layout.piece_count() - have.count()) * u64::from(layout.piece_len());
    let last = layout.piece_count() - 1;
    let short = u64::from(layout.piece_len() - layout.len_of(last));
    if have.has(last) { missing } else { missing - short }
}

fn open_journal(path: &std::path::Path) -> Result<Journal, AddError> {
    Journal::open(path).map_err(|source| AddError::Journal { path: path.to_owned(), source })
}

/// The log, and what is in it.
fn open_statements(config: &TorrentConfig) -> Result<Option<(StatementLog, Vec<Stated>)>, AddError> {
    match (&config.role, &config.statements) {
        (Role::Peer { member, store }, Some(path)) => {
            let owner = Owner { torrent_id: member.torrent_id, subscriber: member.id };
            Ok(Some(StatementLog::open_and_read(path, owner, &store.history()?)?))
        }
        _ => Ok(None),
    }
}

/// What a store has, with the time of the statement that vouches for each piece; without statements, everything is vouched for.
fn have(store: &Store, statements: Option<&[Stated]>) -> Vec<Option<Have>> {
    let statements = statements.map(statements_by_entry);
    // Statements are about pieces as they came, before they moved.
    let vouched = |piece: u32, stored: &StoredPiece| match &statements {
        Some(found) => {
            let origin = store.origin(piece).unwrap_or(*stored);
            found.get(&(piece, origin.hash, origin.sender?)).map(|statement| statement.time)
        }
        None => Some(0),
    };
    let pieces = (0..).zip(store.pieces());
    pieces
        .map(|(piece, stored)| {
            stored.map(|stored| Have { epoch: stored.epoch, vouched: vouched(piece, &stored) })
        })
        .collect()
}

fn swarm_config(
    config: &TorrentConfig,
    shared: &Shared,
    statements: Option<&[Stated]>,
) -> Result<Config, AddError> {
    let TorrentConfig { layout, ref role, .. } = *config;
    let member = role.member();
    if let Some(member) = member {
        let (piece_len, block) = (layout.piece_len(), member.params.group().bytes());
        let whole =
            layout.length().is_multiple_of(piece_len.into()) && (piece_len as usize).is_multiple_of(block);
        // Small test pieces are one short block.
        if !whole || !(piece_len.is_multiple_of(BLOCK) || piece_len < BLOCK) {
            return Err(AddError::BadShape { layout });
        }
    }
    let have = match role {
        Role::Peer { member, store } => {
            let (piece_len, piece_count) = (layout.piece_len(), layout.piece_count());
            if store.shape() != (Shape { torrent_id: member.torrent_id, piece_len, piece_count }) {
                return Err(AddError::ForeignStore);
            }
            have(store, statements)
        }
        Role::PlainPeer { store } => {
            if store.layout() != layout {
                return Err(AddError::ForeignStore);
            }
            store.pieces().into_iter().map(|have| have.then_some(OURS)).collect()
        }
        Role::Seed { .. } | Role::PlainSeed { .. } => vec![Some(OURS); layout.piece_count() as usize],
    };
    let mut seed = [0; 8];
    // A fixed seed does no harm: nothing secret hangs on it.
    let _ = getrandom::fill(&mut seed);
    Ok(Config {
        layout,
        buffers: Buffers::new(layout.piece_len()),
        peer_id: shared.peer_id,
        seal: member.map(|member| Seal {
            torrent_id: member.torrent_id,
            profile: member.params.profile(),
            id: member.id,
            key: member.key.clone(),
            epoch: have.iter().flatten().map(|have| have.epoch).fold(member.epoch, u64::max),
        }),
        selection: config.clear.as_ref().map(|clear| clear.selection().clone()),
        have,
        port: Some(shared.port()),
        slots: shared.config.slots,
        personal_slots: shared.config.personal_slots,
        names_ahead: true,
        super_seed: config.super_seed && matches!(role, Role::Seed { .. } | Role::PlainSeed { .. }),
        ready_bytes: shared.config.ready_bytes,
        max_connections: shared.config.max_connections,
        avoid: config.avoid.clone(),
        seed: u64::from_le_bytes(seed),
    })
}

/// From a worker: it waits while the task is behind.
fn report(inputs: &mpsc::Sender<Input>, event: Event) {
    let _ = inputs.blocking_send(Input::Event(event));
}

/// `stored`: nothing where the job panicked.
fn stored_event(
    id: ConnectionId,
    piece: u32,
    sender: Sender,
    stored: Option<Result<[u8; 32], StoreFailure>>,
) -> Event {
    let failed = || Err(StoreFailure::Disk("the piece could not be checked".to_owned()));
    Event::Stored { id, piece, sender, stored: stored.unwrap_or_else(failed) }
}

async fn sync(role: Arc<Role>) {
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || role.sync()).await {
        tracing::warn!(%error, "pieces may not have reached the disk");
    }
}

struct Task {
    decoder: Decoder,
    info_hash: [u8; 20],
    layout: Layout,
    buffers: Buffers,
    role: Arc<Role>,
    clear: Option<Arc<ClearPieces>>,
    /// What our pieces hash to, as far as the tracker knows.
    hashes: Arc<CipherHashes>,
    /// The subscription's.
    epoch: watch::Sender<u64>,
    tracker: Arc<dyn Tracker>,
    shared: Arc<Shared>,
    swarm: Swarm,
    dialer: Dialer,
    links: HashMap<ConnectionId, (Link, Instant)>,
    next_id: ConnectionId,
    calls: usize,
    started: Instant,
    synced: Instant,
    stats: watch::Sender<Stats>,
    stored: watch::Sender<u64>,
    announce_error: Option<String>,
    statements: Option<StatementLog>,
    transcript: Option<Journal>,
    inputs: mpsc::Sender<Input>,
    commands: Vec<Command>,
}

impl Task {
    async fn run(mut self, mut receiver: mpsc::Receiver<Input>, stop: watch::Receiver<bool>) {
        let announcing = tokio::spawn(announce::announce(
            self.info_hash,
            self.tracker.clone(),
            self.shared.clone(),
            self.stats.subscribe(),
            self.inputs.clone(),
            stop.clone(),
        ));
        tokio::spawn(hashes::fetch(
            self.role.clone(),
            self.hashes.clone(),
            self.tracker.clone(),
            self.inputs.downgrade(),
            self.epoch.subscribe(),
            stop.clone(),
        ));
        let mover = Mover {
            role: self.role.clone(),
            hashes: self.hashes.clone(),
            tracker: self.tracker.clone(),
            work: self.shared.work.clone(),
            inputs: self.inputs.downgrade(),
        };
        tokio::spawn(keep_up(mover, self.epoch.subscribe(), stop.clone()));
        tokio::spawn(personal::find_clients(self.tracker.clone(), self.inputs.downgrade(), stop.clone()));
        let stop = stopping(stop);
        tokio::pin!(stop);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                input = receiver.recv() => {
                    let Some(input) = input else { break };
                    self.input(input);
                }
                _ = tick.tick() => {
                    self.event(Event::Tick);
                    self.call_peers();
                    self.publish_stats();
                    self.sync_if_due();
                    self.transcript.iter_mut().for_each(Journal::flush);
                }
                () = &mut stop => break,
            }
        }
        self.shared.torrents().remove(&self.info_hash);
        let _ = timeout(self.shared.within(LAST_STATEMENTS), self.leave(&mut receiver)).await;
        self.finish(receiver).await;
        let _ = announcing.await;
    }

    /// Exchanges the last signed words: uploaders give theirs within seconds.
    async fn leave(&mut self, receiver: &mut mpsc::Receiver<Input>) {
        self.event(Event::Leaving);
        while !self.swarm.settled() {
            let Some(input) = receiver.recv().await else { return };
            self.input(input);
        }
    }

    /// Lets connections and jobs under way end, and everything reach the disk.
    async fn finish(self, mut receiver: mpsc::Receiver<Input>) {
        let Task { role, shared, links, inputs, transcript, stats, .. } = self;
        drop((links, inputs, stats));
        let _ = timeout(shared.within(LAST_JOBS), async { while receiver.recv().await.is_some() {} }).await;
        transcript.into_iter().for_each(|mut journal| journal.flush());
        let _ = timeout(shared.within(LAST_SYNC), sync(role)).await;
    }

    fn sync_if_due(&mut self) {
        if self.synced.elapsed() > SYNC {
            self.synced = Instant::now();
            tokio::spawn(sync(self.role.clone()));
            self.shorten_statements();
        }
    }

    /// Rare, and some megabytes: the log has doubled.
    fn shorten_statements(&mut self) {
        let Role::Peer { store, .. } = &*self.role else { return };
        if let Some(log) = self.statements.as_mut().filter(|log| log.is_large()) {
            let shorter =
                store.history().and_then(|stored| StatementLog::open(log.path(), log.owner(), &stored));
            match shorter {
                Ok(shorter) => *log = shorter,
                Err(error) => tracing::warn!(%error, "the log of statements grows on"),
            }
        }
    }

    fn now(&self) -> Now {
        Now { elapsed: self.started.elapsed(), unix: self.tracker.now() }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Connection(new) => self.connect(*new),
            Input::CallFailed(addr) => {
                self.calls -= 1;
                self.dialer.ended(addr, false, false);
            }
            Input::Messages { id, messages } => {
                let now = self.now();
                for message in messages {
                    self.swarm.handle(now, Event::Message { id, message }, &mut self.commands);
                }
                self.execute();
            }
            Input::Event(event) => {
                match &event {
                    Event::Disconnected { id } => self.link_ended(*id, false),
                    // Though it may have left meanwhile.
                    Event::Stored { sender, stored: Err(StoreFailure::BadPiece), .. } => {
                        self.dialer.ban(sender.addr);
                    }
                    _ => {}
                }
                let stored = matches!(event, Event::Stored { stored: Ok(_), .. });
                self.event(event);
                if stored {
                    self.stored.send_modify(|count| *count += 1);
                }
            }
            Input::Refetch { piece, hash, taken } => self.find_senders(piece, hash, taken),
            Input::SentBy { piece, hash, senders, taken } => {
                if let Role::Peer { store, .. } = &*self.role
                    && store.piece(piece).is_some_and(|stored| stored.hash == hash)
                {
                    self.event(Event::FoundBad { piece, senders });
                    self.publish_stats();
                }
                let _ = taken.send(());
            }
            Input::Announced(Ok(reply)) => {
                self.announce_error = None;
                self.in_epoch(reply.epoch);
                reply.peers.into_iter().for_each(|peer| self.dialer.add(peer, None));
                self.call_peers();
            }
            Input::Found(peers) => {
                peers.into_iter().for_each(|peer| self.dialer.add(peer, None));
                self.call_peers();
            }
            Input::OrdinaryClients(clients) => {
                let swarm = &self.swarm;
                for client in clients.into_iter().filter(|client| swarm.has_use_for(client)) {
                    self.dialer.add(client.addr, Some(client.personal));
                }
                self.call_peers();
            }
            Input::Announced(Err(error)) => self.announce_error = Some(error),
            Input::Transcript(lines) => {
                if let Some(transcript) = &mut self.transcript {
                    lines.iter().for_each(|line| transcript.write(line));
                }
            }
        }
    }

    /// What the tracker says of our epoch. It never goes back.
    fn in_epoch(&mut self, epoch: Option<u64>) {
        let known = *self.epoch.borrow();
        let Some(epoch) = epoch.filter(|&epoch| epoch > known) else { return };
        if matches!(&*self.role, Role::Peer { .. }) {
            tracing::info!(from = known, to = epoch, "another epoch");
            self.epoch.send_replace(epoch);
            self.event(Event::Epoch { epoch });
            self.publish_stats();
        }
    }

    fn event(&mut self, event: Event) {
        if matches!(event, Event::FoundBad { .. }) {
            self.hashes.suspect();
        }
        let now = self.now();
        self.swarm.handle(now, event, &mut self.commands);
        self.execute();
    }

    fn connect(&mut self, new: NewConnection) {
        self.calls -= usize::from(new.outgoing);
        if self.dialer.is_banned(new.addr) {
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        let connected = Event::Connected {
            id,
            peer_id: new.handshake.peer_id,
            addr: new.addr,
            outgoing: new.outgoing,
            extended: new.handshake.extended(),
            personal: new.personal,
        };
        let link = Link::start(id, new, self.decoder, self.shared.clone(), self.inputs.clone());
        self.links.insert(id, (link, Instant::now()));
        self.event(connected);
    }

    fn link_ended(&mut self, id: ConnectionId, lasting: bool) {
        if let Some((link, since)) = self.links.remove(&id)
            && link.outgoing
        {
            self.dialer.ended(link.addr, lasting, since.elapsed() > SERVED);
        }
    }

    fn call_peers(&mut self) {
        if !self.swarm.wants_peers() || self.calls >= MAX_CALLS {
            return;
        }
        let swarm = &self.swarm;
        for (addr, personal) in self.dialer.due(MAX_CALLS - self.calls, |addr| swarm.is_connected_to(addr)) {
            self.calls += 1;
            let (shared, inputs, info_hash) = (self.shared.clone(), self.inputs.clone(), self.info_hash);
            tokio::spawn(async move {
                let input = match call(addr, info_hash, personal, &shared).await {
                    Ok(new) => Input::Connection(Box::new(new)),
                    Err(error) => {
                        tracing::debug!(%addr, %error, "call failed");
                        Input::CallFailed(addr)
                    }
                };
                let _ = inputs.send(input).await;
            });
        }
    }

    fn execute(&mut self) {
        let mut overflowed = Vec::new();
        let mut commands = std::mem::take(&mut self.commands);
        for command in commands.drain(..) {
            match command {
                Command::Send { id, message } => {
                    if self.links.get(&id).is_some_and(|(link, _)| !link.send(message)) {
                        overflowed.push(id);
                    }
                }
                Command::Disconnect { id, reason } => {
                    tracing::debug!(id, %reason, "disconnecting");
                    if let Some((link, since)) = self.links.remove(&id) {
                        if reason.bans() {
                            self.dialer.ban(link.addr);
                            link.cut();
                        } else if link.outgoing {
                            self.dialer.ended(link.addr, reason.lasting(), since.elapsed() > SERVED);
                        }
                    }
                }
                Command::FetchKeys { id, claim, epoch, pieces } => self.fetch_keys(id, claim, epoch, pieces),
                Command::Prepare { id, piece, key, epoch, to } => self.prepare(id, piece, key, (epoch, to)),
                Command::Store { id, piece, data, sender, epoch, from } => match from {
                    None => self.store(id, piece, data, sender, epoch),
                    Some(personal) => self.pull(id, piece, data, (sender, epoch), personal),
                },
                Command::Discard { piece } => self.discard(piece),
                Command::Keep(evidence) => self.keep(evidence),
                Command::Completed => self.publish_stats(),
            }
        }
        self.commands = commands;
        for id in overflowed {
            tracing::debug!(id, "a peer reads too slowly");
            if let Some((link, _)) = self.links.remove(&id) {
                link.cut();
                self.event(Event::Disconnected { id });
            }
        }
    }

    fn fetch_keys(&self, id: ConnectionId, claim: Claim, epoch: u64, pieces: Vec<u32>) {
        let (role, tracker, inputs) = (self.role.clone(), self.tracker.clone(), self.inputs.clone());
        // Encryption keys open content: only re-keys are public.
        let record = self.transcript.is_some() && matches!(*role, Role::Peer { .. });
        tokio::spawn(async move {
            let keys = work::fetch_keys(&role, &*tracker, &claim, epoch, &pieces).await;
            if let (true, Ok(keys)) = (record, &keys) {
                let (downloader, epoch) = claim.downloader();
                let downloader = downloader.to_string();
                let lines = pieces.iter().zip(keys);
                let lines = lines.map(|(&piece, key)| rekey_line(&downloader, epoch, piece, key)).collect();
                let _ = inputs.send(Input::Transcript(lines)).await;
            }
            let _ = inputs.send(Input::Event(Event::Keys { id, pieces, keys })).await;
        });
    }

    fn prepare(&self, id: ConnectionId, piece: u32, key: Option<bytes::Bytes>, (epoch, to): (u64, u64)) {
        let (role, buffers, len) = (self.role.clone(), self.buffers.clone(), self.layout.len_of(piece));
        let clear = self.is_clear(piece);
        self.blocking(
            move || {
                let data = buffers.take(len);
                let prepared = if clear {
                    work::prepare_clear(&role, piece, data)
                } else {
                    work::prepare(&role, piece, data, key.as_ref(), epoch)
                };
                prepared.map_err(|error| {
                    let unready = error.unready();
                    if unready != Unready::Moved {
                        tracing::warn!(piece, %error, "a piece cannot be sent");
                    }
                    unready
                })
            },
            move |ready| Event::Prepared { id, piece, to, ready: ready.unwrap_or(Err(Unready::Failed)) },
        );
    }

    fn is_clear(&self, piece: u32) -> bool {
        self.clear.as_ref().is_some_and(|clear| clear.has(piece))
    }

    fn store(&self, id: ConnectionId, piece: u32, data: Buffer, sender: Sender, epoch: u64) {
        let (role, hashes) = (self.role.clone(), self.hashes.clone());
        let clear = self.clear.clone().filter(|clear| clear.has(piece));
        self.blocking(
            move || match clear {
                Some(clear) => work::store_clear(&role, &clear, piece, &data, sender),
                None => work::store(&role, &hashes, piece, &data, sender, epoch),
            },
            move |stored| stored_event(id, piece, sender, stored),
        );
    }

    /// Turns an ordinary client's ciphertext into ours, and stores it.
    fn pull(
        &self,
        id: ConnectionId,
        piece: u32,
        data: Buffer,
        (sender, epoch): (Sender, u64),
        personal: Personal,
    ) {
        let (role, hashes, tracker) = (self.role.clone(), self.hashes.clone(), self.tracker.clone());
        let (workers, inputs) = (self.shared.work.clone(), self.inputs.clone());
        tokio::spawn(async move {
            let key = match work::pull_key(&*tracker, piece, epoch, &personal).await {
                Ok(key) => key,
                Err(failure) => {
                    let failed = Event::Stored { id, piece, sender, stored: Err(failure) };
                    let _ = inputs.send(Input::Event(failed)).await;
                    return;
                }
            };
            let job = move || work::pull(&role, &hashes, piece, data, &key, (sender, epoch));
            workers.run(job, move |stored| report(&inputs, stored_event(id, piece, sender, stored)));
        });
    }

    /// Runs `job` where blocking is allowed, few at a time, and reports its result; `None` where it panicked.
    fn blocking<T: 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
        event: impl FnOnce(Option<T>) -> Event + Send + 'static,
    ) {
        let inputs = self.inputs.clone();
        self.shared.work.run(job, move |result| report(&inputs, event(result)));
    }

    /// Rare and small: one record is appended.
    fn discard(&mut self, piece: u32) {
        self.dialer.wake();
        if let Role::Peer { store, .. } = &*self.role
            && let Err(error) = store.discard(piece)
        {
            tracing::warn!(piece, %error, "a bad piece could not be discarded");
        }
    }

    /// Who ever sent a piece stands in the index alone.
    fn find_senders(&self, piece: u32, hash: [u8; 32], taken: oneshot::Sender<()>) {
        let (role, inputs) = (self.role.clone(), self.inputs.clone());
        self.shared.work.run(
            move || match &*role {
                Role::Peer { store, .. } => {
                    let senders = store.senders_of(&BTreeSet::from([piece])).unwrap_or_default();
                    senders.into_iter().map(|(_, sender)| sender).collect()
                }
                _ => Vec::new(),
            },
            move |senders| {
                let senders = senders.unwrap_or_default();
                let _ = inputs.blocking_send(Input::SentBy { piece, hash, senders, taken });
            },
        );
    }

    /// On the disk before anything follows from it.
    fn keep(&mut self, evidence: Evidence) {
        match evidence {
            Evidence::Ticket(ticket) => {
                self.transcript.iter_mut().for_each(|transcript| transcript.write(&ticket_line(&ticket)));
            }
            Evidence::Statement(parties, statement) => {
                if let Some(statements) = &mut self.statements
                    && let Err(error) = statements.add(parties.uploader, &statement)
                {
                    tracing::warn!(%error, "a statement is lost");
                }
            }
        }
    }

    fn publish_stats(&self) {
        let totals = self.swarm.totals();
        let (down_rate, up_rate) = self.swarm.rates();
        let (pieces, total) = (self.swarm.have().count(), self.swarm.piece_count());
        let stats = Stats {
            pieces,
            total,
            left: left(&self.swarm, self.layout),
            from_seeds: totals.from_seeds,
            from_peers: totals.from_peers,
            uploaded: totals.sent,
            uploaded_pieces: totals.sent_pieces,
            rejected: totals.rejected,
            down_rate,
            up_rate,
            connections: self.swarm.connections(),
            unchoked: self.swarm.unchoked(),
            known_peers: self.dialer.known(),
            complete: pieces == total,
            hashed: self.swarm.hashed(),
            epoch: *self.epoch.borrow(),
            moving: self.swarm.moving(),
            failure: self.swarm.failure().map(str::to_owned),
            announce_error: self.announce_error.clone(),
        };
        self.stats.send_if_modified(|current| {
            let changed = *current != stats;
            *current = stats;
            changed
        });
    }
}
