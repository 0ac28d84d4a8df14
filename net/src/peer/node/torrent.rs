//! One torrent of a node: the task that feeds the state machine and does what it commands.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use swarmseal_core::{Params, SubscriberId, TorrentId, package::PackageSecret};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::dialer::Dialer;
use super::epoch::{Mover, keep_up};
use super::link::{Link, NewConnection};
use super::opening::call;
use super::place::Held;
use super::witness::WitnessKeys;
use super::work::Checks;
use super::{Joined, Shared, announce, discovery, personal, stopping, work};
use crate::peer::buffers::{Buffer, Buffers};
use crate::peer::file_store::FileStore;
use crate::peer::journal::{Journal, rekey_line, ticket_line};
use crate::peer::plain::PlainSource;
use crate::peer::published::Published;
use crate::peer::state::{
    Claim, Command, Config, ConnectionId, Event, Now, Reason, Seal, StoreFailure, Swarm, Unready,
};
use crate::peer::store::{NOT_ENCRYPTED, Shape, Store, StoreError};
use crate::peer::tracker::{AnnounceReply, OrdinaryClient, Personal, Tracker};
use crate::wire::identity::SigningKey;
use crate::wire::layout::Layout;
use crate::wire::message::{BLOCK, Decoder, Message};
use crate::wire::seal::Hello;

const TICK: Duration = Duration::from_millis(250);
/// Events that wait for the task; readers wait in turn.
const QUEUE: usize = 512;
/// Calls under way at a time.
const MAX_CALLS: usize = 16;
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
    /// Who we say that we are.
    pub hello: Hello,
    /// The id that follows.
    pub id: SubscriberId,
    /// The identity key, which signs tickets; or the seed's.
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
    /// Where every ticket and re-key seen is recorded for audits, as JSON lines.
    pub transcript: Option<PathBuf>,
    /// Of a sealed torrent: what each piece is checked by.
    pub published: Option<Arc<Published>>,
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
            transcript: None,
            published: None,
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
    /// The store cannot be read.
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

    /// A subscriber's: a stored piece does not open to what was published. It is discarded and fetched again. `hash`: BLAKE3 of the bad
    /// ciphertext ([`StoredPiece::hash`](crate::peer::StoredPiece::hash)); nothing happens where another copy has taken its place. Returns once the piece
    /// counts as missing.
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
    let swarm_config = swarm_config(&config, &shared)?;
    let transcript = config.transcript.as_deref().map(open_journal).transpose()?;
    let (inputs, receiver) = mpsc::channel(QUEUE);
    let places = Held::default();
    {
        let mut torrents = shared.torrents();
        if torrents.contains_key(&config.info_hash) {
            return Err(AddError::Duplicate);
        }
        let tracker = config.role.member().map(|_| config.tracker.clone());
        torrents.insert(config.info_hash, Joined { inputs: inputs.clone(), places: places.clone(), tracker });
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
        buffers: buffers.clone(),
        role: Arc::new(config.role),
        checks: Checks { published: config.published, keys: Arc::new(WitnessKeys::default()), buffers },
        epoch: watch::Sender::new(epoch),
        tracker: config.tracker,
        shared,
        places,
        swarm,
        dialer,
        refused: 0,
        links: HashMap::new(),
        next_id: 0,
        calls: 0,
        started,
        synced: started,
        stats,
        stored,
        announce_error: None,
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

fn swarm_config(config: &TorrentConfig, shared: &Shared) -> Result<Config, AddError> {
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
            let held = |stored: Option<crate::peer::StoredPiece>| stored.map(|stored| stored.epoch);
            store.pieces().into_iter().map(held).collect()
        }
        Role::PlainPeer { store } => {
            if store.layout() != layout {
                return Err(AddError::ForeignStore);
            }
            store.pieces().into_iter().map(|have| have.then_some(NOT_ENCRYPTED)).collect()
        }
        Role::Seed { .. } | Role::PlainSeed { .. } => {
            vec![Some(NOT_ENCRYPTED); layout.piece_count() as usize]
        }
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
            hello: member.hello,
            id: member.id,
            key: member.key.clone(),
            epoch: have.iter().flatten().copied().fold(member.epoch, u64::max),
        }),
        selection: config.published.as_ref().and_then(|published| published.selection().cloned()),
        have,
        port: Some(shared.port()),
        slots: shared.config.slots,
        personal_slots: shared.config.personal_slots,
        names_ahead: true,
        super_seed: config.super_seed && matches!(role, Role::Seed { .. } | Role::PlainSeed { .. }),
        ready_bytes: shared.config.ready_bytes,
        max_connections: match shared.config.max_connections {
            0 => usize::MAX,
            most => most,
        },
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
    sender: SocketAddr,
    stored: Option<Result<(), StoreFailure>>,
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
    checks: Checks,
    /// The subscription's.
    epoch: watch::Sender<u64>,
    tracker: Arc<dyn Tracker>,
    shared: Arc<Shared>,
    places: Held,
    swarm: Swarm,
    dialer: Dialer,
    /// Of [`Shared::refused`], those that were parted from.
    refused: usize,
    links: HashMap<ConnectionId, (Link, Instant)>,
    next_id: ConnectionId,
    calls: usize,
    started: Instant,
    synced: Instant,
    stats: watch::Sender<Stats>,
    stored: watch::Sender<u64>,
    announce_error: Option<String>,
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
        let mover = Mover {
            role: self.role.clone(),
            checks: self.checks.clone(),
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
            self.part_from_refused();
        }
        self.shared.torrents().remove(&self.info_hash);
        self.finish(receiver).await;
        let _ = announcing.await;
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
                    Event::Stored { sender, stored: Ok(()), .. } => {
                        self.shared.reputation().good(sender.ip());
                    }
                    _ => {}
                }
                let stored = matches!(event, Event::Stored { stored: Ok(_), .. });
                self.event(event);
                if stored {
                    self.stored.send_modify(|count| *count += 1);
                }
            }
            Input::Refetch { piece, hash, taken } => {
                if let Role::Peer { store, .. } = &*self.role
                    && store.piece(piece).is_some_and(|stored| stored.hash == hash)
                {
                    self.event(Event::FoundBad { piece });
                    self.publish_stats();
                }
                let _ = taken.send(());
            }
            Input::Announced(Ok(reply)) => {
                self.announce_error = None;
                self.in_epoch(reply.epoch);
                self.add_peers(reply.peers);
            }
            Input::Found(peers) => {
                self.add_peers(peers);
            }
            Input::OrdinaryClients(clients) => {
                let swarm = &self.swarm;
                let wanted = |client: &OrdinaryClient| {
                    swarm.has_use_for(client) && !self.shared.refuses(client.addr.ip())
                };
                for client in clients.into_iter().filter(wanted) {
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
            self.checks.keys.begin(known, epoch);
            self.epoch.send_replace(epoch);
            self.event(Event::Epoch { epoch });
            self.publish_stats();
        }
    }

    fn event(&mut self, event: Event) {
        let now = self.now();
        self.swarm.handle(now, event, &mut self.commands);
        self.execute();
    }

    fn connect(&mut self, new: NewConnection) {
        self.calls -= usize::from(new.outgoing);
        if self.shared.refuses(new.addr.ip()) {
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

    /// Those of addresses that have gone too far, in this torrent or another.
    fn part_from_refused(&mut self) {
        let refused = self.shared.refused.load(Ordering::Relaxed);
        if refused == self.refused {
            return;
        }
        self.refused = refused;
        let shared = self.shared.clone();
        self.dialer.forget(|address| shared.refuses(address));
        let links = self.links.iter().filter(|(_, (link, _))| shared.refuses(link.addr.ip()));
        for id in links.map(|(&id, _)| id).collect::<Vec<_>>() {
            if let Some((link, _)) = self.links.remove(&id) {
                link.cut();
                self.event(Event::Disconnected { id });
            }
        }
    }

    fn add_peers(&mut self, peers: Vec<SocketAddr>) {
        for peer in peers.into_iter().filter(|peer| !self.shared.refuses(peer.ip())) {
            self.dialer.add(peer, None);
        }
        self.call_peers();
    }

    fn call_peers(&mut self) {
        if !self.swarm.wants_peers() || self.calls >= MAX_CALLS {
            return;
        }
        let swarm = &self.swarm;
        for (addr, personal) in self.dialer.due(MAX_CALLS - self.calls, |addr| swarm.is_connected_to(addr)) {
            self.calls += 1;
            let (shared, inputs, info_hash) = (self.shared.clone(), self.inputs.clone(), self.info_hash);
            let places = self.places.clone();
            tokio::spawn(async move {
                let input = match call(addr, info_hash, personal, &places, &shared).await {
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
                    if let Some((link, since)) = self.links.remove(&id) {
                        tracing::debug!(id, addr = %link.addr, %reason, "disconnecting");
                        if link.outgoing {
                            self.dialer.ended(link.addr, reason.lasting(), since.elapsed() > SERVED);
                        }
                        // It has nothing to say that is worth hearing, or somebody waits for its place.
                        if matches!(reason, Reason::BadTicket | Reason::BadPiece | Reason::LeastUse) {
                            link.cut();
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
                Command::FetchWitness { epoch, pieces } => self.fetch_witness(epoch, pieces),
                Command::ConfirmWitness { epoch, pieces } => self.confirm_witness(epoch, pieces),
                Command::Failed { sender } => self.shared.hold_against(sender.ip()),
                Command::Keep(ticket) => {
                    self.transcript.iter_mut().for_each(|transcript| transcript.write(&ticket_line(&ticket)));
                }
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
        self.checks.published.as_ref().is_some_and(|published| published.is_clear(piece))
    }

    fn fetch_witness(&self, epoch: u64, pieces: Vec<u32>) {
        self.ask_tracker(|tracker, keys, width| async move {
            let keys = keys.fetch(&*tracker, width, epoch, &pieces).await;
            if let Err(error) = &keys {
                tracing::debug!(%error, epoch, "no witness keys");
            }
            Event::Witness { epoch, pieces, keys }
        });
    }

    fn confirm_witness(&self, epoch: u64, pieces: Vec<u32>) {
        self.ask_tracker(|tracker, keys, width| async move {
            let same = keys.fetch_again(&*tracker, width, epoch, &pieces).await;
            Event::Confirmed { epoch, pieces, same }
        });
    }

    /// Runs a question about witness keys, and reports its answer.
    fn ask_tracker<F>(&self, question: impl FnOnce(Arc<dyn Tracker>, Arc<WitnessKeys>, usize) -> F)
    where
        F: Future<Output = Event> + Send + 'static,
    {
        let width = self.role.member().map_or(0, |member| member.params.group().bytes());
        let answer = question(self.tracker.clone(), self.checks.keys.clone(), width);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let _ = inputs.send(Input::Event(answer.await)).await;
        });
    }

    fn store(&self, id: ConnectionId, piece: u32, data: Buffer, sender: SocketAddr, epoch: u64) {
        let (role, checks) = (self.role.clone(), self.checks.clone());
        self.blocking(
            move || work::store(&role, &checks, piece, &data, epoch),
            move |stored| stored_event(id, piece, sender, stored),
        );
    }

    /// Turns an ordinary client's ciphertext into ours, and stores it.
    fn pull(
        &self,
        id: ConnectionId,
        piece: u32,
        data: Buffer,
        (sender, epoch): (SocketAddr, u64),
        personal: Personal,
    ) {
        let (role, checks, tracker) = (self.role.clone(), self.checks.clone(), self.tracker.clone());
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
            let job = move || work::pull(&role, &checks, piece, data, &key, epoch);
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
