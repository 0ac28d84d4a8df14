//! Everybody in the swarm, the tracker, and what drives them.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use swarmseal_core::{KeyCommitment, TorrentId};

use super::network::{Happening, Network, NodeId, Place, StreamId};
use super::{Link, Model, NanosPerByte, Outcome};
use crate::peer::buffers::Buffers;
use crate::peer::node::NodeConfig;
use crate::peer::state::{Command, Config, ConnectionId, Event, Now, Random, Seal, Swarm};
use crate::wire::identity::SigningKey;
use crate::wire::layout::Layout;
use crate::wire::message::{BLOCK, Message};
use crate::wire::seal::Hello;

const TORRENT: TorrentId = TorrentId([5; 32]);
/// As the node has them.
const TICK: Duration = Duration::from_millis(250);
const MAX_CALLS: usize = 16;
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(300);
const LASTING: Duration = Duration::from_secs(600);
const SERVED: Duration = Duration::from_secs(30);
const ANNOUNCE: Duration = Duration::from_secs(1800);
const ALONE: Duration = Duration::from_secs(15);
/// Peers that the tracker names.
const NAMED: usize = 50;
/// Bytes of HTTP, headers and all. An announce and its answer, then a call for keys: a ticket, a session, piece indices;
/// and keys of 2,048 bits. What a call for keys sends is as seen on an HTTPS connection that is kept: a frame of headers with 103
/// bytes, and a body.
const ANNOUNCE_BYTES: u64 = 450;
const NAMED_BYTES: u64 = 200;
const KEYS_ASKED_BYTES: u64 = 400;
const WITNESS_ASKED_BYTES: u64 = 210;
const KEYS_BYTES: u64 = 150;
const INDEX_BYTES: u64 = 6;
const KEY_BYTES: u64 = 260;

type PeerId = usize;

/// What a stream carries.
#[derive(Debug)]
enum Wire {
    Message(Message),
    End,
}

/// A peer in one of its lives: what was meant for an earlier one does not concern it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Being {
    peer: PeerId,
    life: u32,
}

/// What is settled for a peer before anything happens.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Joins,
    Ticks,
    Stays,
    SeedsOn,
    IsAway,
    ComesBack,
}

#[derive(Debug)]
enum Timer {
    Join(PeerId),
    Tick(Being),
    /// It goes now, saying goodbye or not, if it is complete or incomplete as it was when this was settled.
    Leave(Being, bool),
    /// An announce is at the tracker.
    Announcing(Being),
    Announced(Being, Vec<PeerId>),
    /// A call is there.
    Called(Being, PeerId),
    /// It was answered, by this connection.
    Answered(Being, PeerId, Option<ConnectionId>),
    /// The other end has vanished.
    Vanished(ConnectionId, usize),
    /// A question is at the tracker, is dealt with there, and its answer is back.
    Asking(Box<Question>),
    Asked(Box<Question>),
    Told(Box<Question>),
    Event(Being, Box<Event>),
}

/// A call for keys.
#[derive(Debug)]
struct Question {
    by: Being,
    since: Duration,
    pieces: Vec<u32>,
    about: About,
}

/// Which keys.
#[derive(Clone, Copy, Debug)]
enum About {
    /// Re-keys or encryption keys for the peer of a connection.
    Upload(ConnectionId),
    /// Its own witness keys of an epoch.
    Witness(u64),
}

/// Two ends and a stream from each.
struct Connection {
    ends: [Being; 2],
    streams: [StreamId; 2],
    open: [bool; 2],
    since: Duration,
}

/// Somebody whom a peer may call.
struct Candidate {
    next: Duration,
    failures: u32,
    busy: bool,
}

struct Peer {
    node: NodeId,
    original: bool,
    life: u32,
    /// Who it is to others: a newcomer in the same place is somebody else.
    identity: u64,
    swarm: Option<Swarm>,
    have: Vec<Option<u64>>,
    complete: bool,
    candidates: BTreeMap<PeerId, Candidate>,
    calls: usize,
    announced_at: Duration,
    /// When its processor has nothing more to do.
    idle_at: Duration,
}

/// The whole.
pub(super) struct World<'m> {
    model: &'m Model,
    layout: Layout,
    net: Network<Wire, Timer>,
    tracker: NodeId,
    tracker_idle_at: Duration,
    peers: Vec<Peer>,
    connections: Vec<Connection>,
    /// Which connection a stream belongs to, and which end writes to it.
    streams: HashMap<StreamId, (ConnectionId, usize)>,
    random: Random,
    buffers: Buffers,
    /// Any piece.
    zeros: Bytes,
    key: Bytes,
    next_identity: u64,
    commands: Vec<Command>,
    outcome: Outcome,
    /// Somebody who reads while it comes.
    #[cfg(test)]
    pub(super) reader: Option<Reader>,
}

/// Plays from a piece on: the next ones are urgent, a few at a time, unless `asks` is false.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(super) struct Reader {
    pub(super) peer: PeerId,
    pub(super) from: u32,
    pub(super) asks: bool,
    /// What is stored, and since when.
    pub(super) stored: BTreeMap<u32, Duration>,
}

#[cfg(test)]
impl Reader {
    const WINDOW: usize = 4;

    fn wants(&self, pieces: u32) -> Vec<u32> {
        (self.from..pieces).filter(|piece| !self.stored.contains_key(piece)).take(Self::WINDOW).collect()
    }

    /// When the first so many pieces were there.
    pub(super) fn has_read(&self, pieces: u32) -> Option<Duration> {
        let times = (self.from..self.from + pieces).map(|piece| self.stored.get(&piece).copied());
        times.collect::<Option<Vec<Duration>>>()?.into_iter().max()
    }
}

fn address(peer: PeerId) -> SocketAddr {
    let [.., a, b] = (peer as u32).to_be_bytes();
    SocketAddr::from(([10, 0, a, b], 6881))
}

/// Bytes of [`Message::encode`].
fn encoded_len(message: &Message) -> usize {
    match message {
        Message::KeepAlive => 4,
        Message::Choke | Message::Unchoke | Message::Interested | Message::NotInterested => 5,
        Message::Have(_) => 9,
        Message::Bitfield(bits) => 5 + bits.len(),
        Message::Request(_) | Message::Cancel(_) => 17,
        Message::Piece { data, .. } => 13 + data.len(),
        Message::Extended { payload, .. } => 6 + payload.len(),
    }
}

impl<'m> World<'m> {
    /// `None` where the pieces have an impossible shape.
    pub(super) fn new(model: &'m Model) -> Option<Self> {
        let layout = Layout::of_whole(model.pieces, model.piece_len)?;
        if !model.piece_len.is_multiple_of(BLOCK) {
            return None;
        }
        let mut net = Network::new(model.loss, model.buffer, model.seed ^ 0x6e65_7477_6f72_6b73);
        let place = |link: &Link| Place { up: link.up, down: link.down, latency: link.latency };
        let tracker = net.node(place(&model.tracker));
        let ours = Some(0);
        let seeds = model.seeds.iter().map(|link| (link, true));
        let everybody = seeds.chain(model.peers.iter().map(|link| (link, false)));
        let peers: Vec<Peer> = everybody
            .zip(0..)
            .map(|((link, original), identity)| Peer {
                node: net.node(place(link)),
                original,
                life: 0,
                identity,
                swarm: None,
                have: vec![ours.filter(|_| original); model.pieces as usize],
                complete: original,
                candidates: BTreeMap::new(),
                calls: 0,
                announced_at: Duration::ZERO,
                idle_at: Duration::ZERO,
            })
            .collect();
        Some(World {
            model,
            layout,
            net,
            tracker,
            tracker_idle_at: Duration::ZERO,
            next_identity: peers.len() as u64,
            peers,
            connections: Vec::new(),
            streams: HashMap::new(),
            random: Random::new(model.seed),
            buffers: Buffers::new(model.piece_len),
            zeros: vec![0; model.piece_len as usize].into(),
            key: vec![0; 256].into(),
            commands: Vec::new(),
            outcome: Outcome::default(),
            #[cfg(test)]
            reader: None,
        })
    }

    pub(super) fn run(mut self) -> Outcome {
        self.run_to_the_end()
    }

    pub(super) fn run_to_the_end(&mut self) -> Outcome {
        for peer in 0..self.peers.len() {
            let wait = if self.peers[peer].original { Duration::ZERO } else { self.model.joining };
            let wait = wait.mul_f64(self.fate(Being { peer, life: 0 }, Fate::Joins));
            self.net.after(wait, Timer::Join(peer));
        }
        let all = self.model.peers.len() as u64;
        while let Some(happening) = self.net.next() {
            if self.net.now() > self.model.horizon {
                break;
            }
            self.happening(happening);
            if self.model.churn.is_none() && self.outcome.completed == all {
                break;
            }
        }
        self.outcome.elapsed = self.net.now().min(self.model.horizon);
        for peer in 0..self.peers.len() {
            self.take_account(peer);
        }
        self.outcome
    }

    /// The reader's next wishes, after a start or when a piece has come.
    #[cfg(test)]
    fn read_on(&mut self, being: Being, stored: Option<u32>) {
        let (now, pieces) = (self.net.now(), self.model.pieces);
        let Some(reader) = self.reader.as_mut().filter(|reader| reader.peer == being.peer) else { return };
        reader.stored.extend(stored.map(|piece| (piece, now)));
        if reader.asks {
            let pieces = reader.wants(pieces);
            self.event(being, Event::Urgent { pieces });
        }
    }

    /// In 0 … 1: the same for one life of one peer, whatever else happens, so that a plain and a sealed swarm of the same seed
    /// lose the same peers at the same times.
    fn fate(&self, being: Being, fate: Fate) -> f64 {
        let number = (being.peer as u64) << 32 | u64::from(being.life) << 8 | fate as u64;
        let mut random = Random::new(self.model.seed ^ Random::new(number).next());
        (random.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponentially distributed.
    fn about(&self, mean: Duration, being: Being, fate: Fate) -> Duration {
        mean.mul_f64(-(1.0 - self.fate(being, fate)).ln())
    }

    fn happening(&mut self, happening: Happening<Wire, Timer>) {
        match happening {
            Happening::Message(stream, wire) => {
                let Some(&(id, side)) = self.streams.get(&stream) else { return };
                let other = 1 - side;
                let connection = &self.connections[id as usize];
                match wire {
                    Wire::Message(message) if connection.open[other] => {
                        self.event(connection.ends[other], Event::Message { id, message });
                    }
                    Wire::Message(_) => {}
                    Wire::End => self.ended(id, other),
                }
            }
            Happening::Taken(stream, bytes) => {
                let Some(&(id, side)) = self.streams.get(&stream) else { return };
                let connection = &self.connections[id as usize];
                if connection.open[side] {
                    self.event(connection.ends[side], Event::Sent { id, bytes });
                }
            }
            Happening::Timer(timer) => self.timer(timer),
        }
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Join(peer) => self.join(peer),
            Timer::Tick(being) => self.tick(being),
            Timer::Leave(being, complete) if self.peers[being.peer].complete == complete => self.leave(being),
            Timer::Leave(..) => {}
            Timer::Announcing(being) => {
                let named = self.name_peers(being.peer);
                let bytes = NAMED_BYTES + 6 * named.len() as u64;
                let node = self.peers[being.peer].node;
                self.net.datagram(self.tracker, node, bytes, Timer::Announced(being, named));
            }
            Timer::Announced(being, named) => {
                if self.lives(being) {
                    let now = self.net.now();
                    let fresh = || Candidate { next: now, failures: 0, busy: false };
                    for peer in named {
                        self.peers[being.peer].candidates.entry(peer).or_insert_with(fresh);
                    }
                    self.call_peers(being);
                }
            }
            Timer::Called(by, peer) => self.called(by, peer),
            Timer::Answered(by, peer, id) => self.answered(by, peer, id),
            Timer::Vanished(id, side) => self.ended(id, side),
            // The caller tries again.
            Timer::Asking(question) if self.tracker_is_away() => {
                self.net.after(FIRST_RETRY, Timer::Asking(question));
            }
            Timer::Asking(question) => {
                let costs = &self.model.costs;
                let work = costs.call + costs.key * question.pieces.len() as u32;
                self.tracker_idle_at = self.tracker_idle_at.max(self.net.now()) + work;
                self.net.after(self.tracker_idle_at - self.net.now(), Timer::Asked(question));
            }
            Timer::Asked(question) => {
                let bytes = KEYS_BYTES + KEY_BYTES * question.pieces.len() as u64;
                let node = self.peers[question.by.peer].node;
                self.net.datagram(self.tracker, node, bytes, Timer::Told(question));
            }
            Timer::Told(question) => {
                let Question { by, since, pieces, about } = *question;
                match about {
                    About::Upload(id) => {
                        self.outcome.key_calls += 1;
                        self.outcome.keys += pieces.len() as u64;
                        self.outcome.key_time += self.net.now() - since;
                        let keys = Ok(vec![self.key.clone(); pieces.len()]);
                        self.event(by, Event::Keys { id, pieces, keys });
                    }
                    About::Witness(epoch) => {
                        self.outcome.witness_calls += 1;
                        self.outcome.witness_keys += pieces.len() as u64;
                        self.event(by, Event::Witness { epoch, pieces, keys: Ok(()) });
                    }
                }
            }
            Timer::Event(being, event) => self.event(being, *event),
        }
    }

    fn tracker_is_away(&self) -> bool {
        self.model.away.as_ref().is_some_and(|away| away.contains(&self.net.now()))
    }

    fn lives(&self, being: Being) -> bool {
        let peer = &self.peers[being.peer];
        peer.life == being.life && peer.swarm.is_some()
    }

    /// A peer starts.
    fn join(&mut self, number: PeerId) {
        let now = self.now();
        let seed = self.random.next();
        let (model, peer) = (self.model, &mut self.peers[number]);
        let mut secret = [7; 32];
        secret[..8].copy_from_slice(&peer.identity.to_be_bytes());
        let key = SigningKey::from_bytes(&secret);
        let hello = match peer.original {
            true => Hello::Seed { key: key.public() },
            false => Hello::Subscriber { identity: key.public(), keys: KeyCommitment(secret) },
        };
        let epoch = if peer.original { 0 } else { 1 };
        let seal = Seal { torrent_id: TORRENT, hello, id: hello.id(&TORRENT), key, epoch };
        let defaults = NodeConfig::default();
        let mut peer_id = [0; 20];
        peer_id[..8].copy_from_slice(&peer.identity.to_be_bytes());
        let config = Config {
            layout: self.layout,
            buffers: self.buffers.clone(),
            peer_id,
            seal: model.sealed.then_some(seal),
            selection: None,
            have: peer.have.clone(),
            port: Some(address(number).port()),
            slots: defaults.slots,
            personal_slots: defaults.personal_slots,
            names_ahead: model.names_ahead,
            super_seed: false,
            ready_bytes: defaults.ready_bytes,
            max_connections: model.max_connections,
            seed,
        };
        peer.swarm = Some(Swarm::new(config, now));
        peer.life += 1;
        peer.candidates.clear();
        peer.calls = 0;
        peer.idle_at = now.elapsed;
        let being = Being { peer: number, life: peer.life };
        self.announce(being);
        #[cfg(test)]
        self.read_on(being, None);
        let phase = TICK.mul_f64(self.fate(being, Fate::Ticks));
        self.net.after(phase, Timer::Tick(being));
        if let Some(churn) = self.model.churn.filter(|_| !self.peers[number].original) {
            let stay = self.about(churn.stays, being, Fate::Stays);
            self.net.after(stay, Timer::Leave(being, false));
        }
    }

    fn now(&self) -> Now {
        let elapsed = self.net.now();
        Now { elapsed, unix: 1_700_000_000 + elapsed.as_secs() }
    }

    fn announce(&mut self, being: Being) {
        let peer = &mut self.peers[being.peer];
        peer.announced_at = self.net.now();
        self.net.datagram(peer.node, self.tracker, ANNOUNCE_BYTES, Timer::Announcing(being));
    }

    /// Some of those who are there; none that has everything for a peer that has everything.
    fn name_peers(&mut self, by: PeerId) -> Vec<PeerId> {
        let complete = self.peers[by].complete;
        let there =
            self.peers.iter().enumerate().filter(|(number, peer)| {
                *number != by && peer.swarm.is_some() && !(complete && peer.complete)
            });
        let mut all: Vec<PeerId> = there.map(|(number, _)| number).collect();
        for place in 0..all.len().min(NAMED) {
            let other = place + self.random.below((all.len() - place) as u64) as usize;
            all.swap(place, other);
        }
        all.truncate(NAMED);
        all
    }

    fn tick(&mut self, being: Being) {
        if !self.lives(being) {
            return;
        }
        self.event(being, Event::Tick);
        self.call_peers(being);
        let peer = &self.peers[being.peer];
        let since = self.net.now() - peer.announced_at;
        let alone = peer.swarm.as_ref().is_some_and(|swarm| swarm.connections() == 0) && !peer.complete;
        if since > ANNOUNCE || alone && since > ALONE {
            self.announce(being);
        }
        self.net.after(TICK, Timer::Tick(being));
    }

    fn call_peers(&mut self, being: Being) {
        let now = self.net.now();
        while self.peers[being.peer].calls < MAX_CALLS {
            let peer = &self.peers[being.peer];
            let Some(swarm) = peer.swarm.as_ref().filter(|swarm| swarm.wants_peers()) else { return };
            let due = peer.candidates.iter().filter(|(number, candidate)| {
                !candidate.busy && candidate.next <= now && !swarm.is_connected_to(address(**number))
            });
            let due: Vec<PeerId> = due.map(|(&number, _)| number).collect();
            if due.is_empty() {
                return;
            }
            let called = due[self.random.below(due.len() as u64) as usize];
            let peer = &mut self.peers[being.peer];
            peer.calls += 1;
            peer.candidates.entry(called).and_modify(|candidate| candidate.busy = true);
            // SYN, SYN-ACK, and a handshake: it is there after one and a half round trips.
            let latency = self.net.latency(peer.node, self.peers[called].node);
            self.net.after(3 * latency, Timer::Called(being, called));
        }
    }

    fn called(&mut self, by: Being, number: PeerId) {
        let peer = &self.peers[number];
        let being = Being { peer: number, life: peer.life };
        let room = peer.swarm.as_ref().is_some_and(Swarm::wants_peers);
        let latency = self.net.latency(self.peers[by.peer].node, peer.node);
        if !room || !self.lives(by) {
            return self.net.after(latency, Timer::Answered(by, number, None));
        }
        let id = self.connections.len() as ConnectionId;
        let nodes = [self.peers[by.peer].node, peer.node];
        let streams = [self.net.open(nodes[0], nodes[1]), self.net.open(nodes[1], nodes[0])];
        for (side, stream) in streams.into_iter().enumerate() {
            self.streams.insert(stream, (id, side));
        }
        let since = self.net.now();
        self.connections.push(Connection { ends: [by, being], streams, open: [false, true], since });
        self.net.after(latency, Timer::Answered(by, number, Some(id)));
        self.connected(being, id, by.peer, false);
    }

    fn answered(&mut self, by: Being, number: PeerId, id: Option<ConnectionId>) {
        if self.lives(by) {
            self.peers[by.peer].calls -= 1;
        }
        match id {
            Some(id) if self.lives(by) => {
                self.connections[id as usize].open[0] = true;
                self.connected(by, id, number, true);
            }
            Some(id) => self.vanish(id, 0),
            None => self.free(by, number, false, false),
        }
    }

    fn connected(&mut self, being: Being, id: ConnectionId, other: PeerId, outgoing: bool) {
        let mut peer_id = [0; 20];
        peer_id[..8].copy_from_slice(&self.peers[other].identity.to_be_bytes());
        let mut addr = address(other);
        if !outgoing {
            addr.set_port(50_000);
        }
        self.event(being, Event::Connected { id, peer_id, addr, outgoing, extended: true, personal: None });
    }

    /// A call failed or a connection ended.
    fn free(&mut self, being: Being, other: PeerId, lasting: bool, served: bool) {
        let now = self.net.now();
        if self.lives(being)
            && let Some(candidate) = self.peers[being.peer].candidates.get_mut(&other)
        {
            candidate.busy = false;
            candidate.failures = if served { 0 } else { candidate.failures + 1 };
            let wait = FIRST_RETRY * (1 << candidate.failures.saturating_sub(1).min(9));
            candidate.next = now + if lasting { LASTING } else { wait.min(LAST_RETRY) };
        }
    }

    /// One end has parted from a connection.
    fn close(&mut self, id: ConnectionId, side: usize, lasting: bool) {
        let connection = &mut self.connections[id as usize];
        connection.open[side] = false;
        let served = self.net.now().saturating_sub(connection.since) > SERVED;
        let ends = connection.ends;
        if side == 0 {
            self.free(ends[0], ends[1].peer, lasting, served);
        }
        let connection = &self.connections[id as usize];
        if connection.open == [false; 2] {
            for stream in connection.streams {
                self.net.close(stream);
                self.streams.remove(&stream);
            }
        }
    }

    /// The other end has parted.
    fn ended(&mut self, id: ConnectionId, side: usize) {
        let connection = &self.connections[id as usize];
        if connection.open[side] {
            let being = connection.ends[side];
            self.close(id, side, false);
            self.event(being, Event::Disconnected { id });
        }
    }

    /// One end is gone without a word.
    fn vanish(&mut self, id: ConnectionId, side: usize) {
        self.close(id, side, false);
        let [a, b] = self.connections[id as usize].ends.map(|being| self.peers[being.peer].node);
        self.net.after(self.net.latency(a, b), Timer::Vanished(id, 1 - side));
    }

    fn leave(&mut self, being: Being) {
        if !self.lives(being) {
            return;
        }
        self.gone(being);
    }

    fn gone(&mut self, being: Being) {
        let number = being.peer;
        self.take_account(number);
        let comes_back = self.fate(being, Fate::ComesBack) < 0.5;
        let peer = &mut self.peers[number];
        let swarm = peer.swarm.take();
        let returns = !peer.complete && comes_back;
        self.outcome.left += u64::from(!peer.complete);
        match swarm.filter(|_| returns) {
            Some(swarm) => peer.have = swarm.holdings(),
            None => {
                peer.have = vec![None; self.model.pieces as usize];
                peer.complete = false;
                peer.identity = self.next_identity;
                self.next_identity += 1;
            }
        }
        let ends = self.connections.iter().enumerate().flat_map(|(id, connection)| {
            let mine = move |side: &usize| connection.open[*side] && connection.ends[*side] == being;
            (0..2).filter(mine).map(move |side| (id as ConnectionId, side))
        });
        for (id, side) in ends.collect::<Vec<_>>() {
            self.vanish(id, side);
        }
        if let Some(churn) = self.model.churn {
            let away = self.about(churn.away, being, Fate::IsAway);
            self.net.after(away, Timer::Join(number));
        }
    }

    /// What a peer that ends has sent.
    fn take_account(&mut self, number: PeerId) {
        let peer = &self.peers[number];
        let totals = peer.swarm.as_ref().map(Swarm::totals).unwrap_or_default();
        self.outcome.sent_by_seeds += if peer.original { totals.sent } else { 0 };
        self.outcome.asked += totals.asked;
        self.outcome.keyed += totals.keyed;
        self.outcome.requested += totals.requested;
        self.outcome.awaited_key += totals.awaited_key;
    }

    fn event(&mut self, being: Being, event: Event) {
        if !self.lives(being) {
            return;
        }
        #[cfg(test)]
        let stored = match &event {
            Event::Stored { piece, stored: Ok(_), .. } => Some(*piece),
            _ => None,
        };
        let mut commands = std::mem::take(&mut self.commands);
        let now = self.now();
        if let Some(swarm) = &mut self.peers[being.peer].swarm {
            swarm.handle(now, event, &mut commands);
        }
        for command in commands.drain(..) {
            self.execute(being, command);
        }
        self.commands = commands;
        #[cfg(test)]
        if stored.is_some() {
            self.read_on(being, stored);
        }
    }

    fn execute(&mut self, being: Being, command: Command) {
        let costs = &self.model.costs;
        match command {
            Command::Send { id, message } => {
                let connection = &self.connections[id as usize];
                let stream = connection.streams[self.side(id, being)];
                let (bytes, payload) = (encoded_len(&message), message.block_bytes());
                self.outcome.overhead += (bytes - payload) as u64;
                self.net.write(stream, Wire::Message(message), bytes, payload);
            }
            Command::Disconnect { id, reason } => {
                let side = self.side(id, being);
                let stream = self.connections[id as usize].streams[side];
                self.net.write(stream, Wire::End, 0, 0);
                self.close(id, side, reason.lasting());
            }
            Command::FetchKeys { id, pieces, .. } => {
                let bytes = KEYS_ASKED_BYTES + INDEX_BYTES * pieces.len() as u64;
                self.ask(being, bytes, About::Upload(id), pieces);
            }
            Command::FetchWitness { epoch, pieces } => {
                let bytes = WITNESS_ASKED_BYTES + INDEX_BYTES * pieces.len() as u64;
                self.ask(being, bytes, About::Witness(epoch), pieces);
            }
            // Nothing is bad here.
            Command::ConfirmWitness { .. } | Command::Failed { .. } => {}
            Command::Prepare { id, piece, to, .. } => {
                let cost = match (self.model.sealed, self.peers[being.peer].original) {
                    (false, _) => 0.0,
                    (true, true) => costs.seal,
                    (true, false) => costs.transform,
                };
                let ready = Ok(self.zeros.clone());
                self.work(being, cost, Event::Prepared { id, piece, to, ready });
            }
            Command::Store { id, piece, sender, .. } => {
                let cost = if self.model.sealed { costs.check_sealed } else { costs.check_plain };
                self.outcome.stored += 1;
                self.work(being, cost, Event::Stored { id, piece, sender, stored: Ok(()) });
            }
            Command::Discard { .. } => self.outcome.stored -= 1,
            Command::Keep(_) => {}
            Command::Completed => self.completed(being),
        }
    }

    /// Asks the tracker for keys.
    fn ask(&mut self, being: Being, bytes: u64, about: About, pieces: Vec<u32>) {
        self.outcome.overhead += bytes;
        let question = Box::new(Question { by: being, since: self.net.now(), pieces, about });
        let node = self.peers[being.peer].node;
        self.net.datagram(node, self.tracker, bytes, Timer::Asking(question));
    }

    /// Which end of a connection a peer is.
    fn side(&self, id: ConnectionId, being: Being) -> usize {
        usize::from(self.connections[id as usize].ends[0] != being)
    }

    /// A peer's processor does one thing after the other.
    fn work(&mut self, being: Being, cost: NanosPerByte, event: Event) {
        let takes = Duration::from_secs_f64(cost * f64::from(self.model.piece_len) / 1e9);
        let now = self.net.now();
        let idle_at = &mut self.peers[being.peer].idle_at;
        *idle_at = (*idle_at).max(now) + takes;
        self.net.after(*idle_at - now, Timer::Event(being, Box::new(event)));
    }

    fn completed(&mut self, being: Being) {
        // A complete peer that had to discard a piece is complete once more.
        if std::mem::replace(&mut self.peers[being.peer].complete, true) {
            return;
        }
        self.outcome.completed += 1;
        self.announce(being);
        if let Some(churn) = self.model.churn {
            let stay = self.about(churn.seeds_on, being, Fate::SeedsOn);
            self.net.after(stay, Timer::Leave(being, true));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::message::Block;

    #[test]
    fn lengths_are_those_of_the_encoding() {
        let (block, data) = (Block { piece: 1, begin: 0, len: 5 }, Bytes::from_static(b"bytes"));
        let messages = [
            Message::KeepAlive,
            Message::Choke,
            Message::Unchoke,
            Message::Interested,
            Message::NotInterested,
            Message::Have(3),
            Message::Bitfield(data.clone()),
            Message::Request(block),
            Message::Piece { piece: 1, begin: 0, data: data.clone() },
            Message::Cancel(block),
            Message::Extended { id: 1, payload: data },
        ];
        for message in messages {
            let mut bytes = BytesMut::new();
            message.encode(&mut bytes);
            assert_eq!(bytes.len(), encoded_len(&message), "{message:?}");
        }
    }
}
