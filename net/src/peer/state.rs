//! One torrent's swarm as one peer sees it: a state machine with no sockets, no clock and no randomness of its own.
//!
//! Events go in with the time at which they happened; commands come out. The driver ([`super::node`]) moves bytes and does
//! the slow work that commands ask for; tests wire several machines together in memory.
//!
//! ```text
//! connected ──extended handshake (sealed)──▶ ready ──ticket, bitfield──▶ interest, choking
//! download:  FetchWitness ▶ assign piece ▶ want ▶ requests ▶ blocks ▶ Store (checked by the witness) ▶ Stored ▶ have
//! upload:    want or request ▶ FetchKeys ▶ Keys ▶ Prepare ▶ Prepared ▶ blocks
//! ```

pub(crate) mod bits;
mod choker;
mod connection;
mod download;
mod pieces;
mod random;
mod rate;
#[cfg(any(test, feature = "simulation"))]
pub(crate) mod strangers;
mod super_seed;
#[cfg(test)]
mod tests;
mod upload;
mod urgent;
mod witness;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use swarmseal_core::{SubscriberId, Ticket, TorrentId};

use self::bits::Bits;
use self::connection::{Connection, Download, Revealed, Upload};
use self::pieces::Pieces;
pub(crate) use self::random::Random;
use self::rate::Rate;
use self::witness::{AvoidedPieces, Witness};
use super::buffers::{Buffer, Buffers};
use super::store::NOT_ENCRYPTED;
use super::tracker::{KeyError, OrdinaryClient, Personal};
use crate::wire::dont_have;
use crate::wire::identity::SigningKey;
use crate::wire::layout::Layout;
use crate::wire::message::Message;
use crate::wire::seal::{self, ExtendedHandshake, Hello, SealMessage};
use crate::wire::selection::Selection;

/// Names a connection; never used twice.
pub(crate) type ConnectionId = u64;

/// Requests that we keep for a peer.
const REQQ: u32 = 512;
const EXTENDED_DEADLINE: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(90);
const SILENCE: Duration = Duration::from_secs(180);
/// An interest in nothing, on both sides, keeps a slot this long once all are taken.
const USELESS: Duration = Duration::from_secs(120);
/// Ticks that are farther apart than this tell that we did not run.
const ASLEEP: Duration = Duration::from_secs(5);
/// Two calls between the same peers within this time are one mistake.
const SIMULTANEOUS: Duration = Duration::from_secs(10);
/// How often a peer may lose each of its pieces, on average.
const MAX_LOSSES: u32 = 8;

/// The time of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Since any fixed moment; never goes back.
    pub(crate) elapsed: Duration,
    /// Tracker time, in seconds since 1970.
    pub(crate) unix: u64,
}

/// What a sealed torrent adds.
#[derive(Clone, Debug)]
pub(crate) struct Seal {
    pub(crate) torrent_id: TorrentId,
    pub(crate) hello: Hello,
    /// The id that follows from it.
    pub(crate) id: SubscriberId,
    /// Signs tickets.
    pub(crate) key: SigningKey,
    pub(crate) epoch: u64,
}

/// What a swarm starts from.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) layout: Layout,
    pub(crate) buffers: Buffers,
    pub(crate) peer_id: [u8; 20],
    /// `None`: a plain torrent.
    pub(crate) seal: Option<Seal>,
    /// Of a sealed torrent some of whose pieces are clear.
    pub(crate) selection: Option<Arc<Selection>>,
    /// The epoch that each piece is stored under, of those that are there.
    pub(crate) have: Vec<Option<u64>>,
    pub(crate) port: Option<u16>,
    /// Peers served at a time, besides one chosen at random.
    pub(crate) slots: usize,
    /// Ordinary clients with personal torrents served at a time, beside those: they give nothing back.
    pub(crate) personal_slots: usize,
    /// Whether uploaders are told what will be asked for next, so that they have keys ahead of need. Else, to see what that is worth.
    pub(crate) names_ahead: bool,
    pub(crate) super_seed: bool,
    /// Bytes of pieces made ready for peers at most (each peer served may always have one).
    pub(crate) ready_bytes: usize,
    pub(crate) max_connections: usize,
    pub(crate) seed: u64,
}

impl Config {
    fn is_sealed(&self, piece: u32) -> bool {
        self.seal.is_some() && !self.selection.as_ref().is_some_and(|selection| selection.is_clear(piece))
    }
}

/// What happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// BEP 3's handshake is done.
    Connected {
        id: ConnectionId,
        peer_id: [u8; 20],
        addr: SocketAddr,
        outgoing: bool,
        extended: bool,
        /// An ordinary client that fetches its subscriber's ciphertext as an ordinary torrent.
        personal: Option<Personal>,
    },
    Disconnected {
        id: ConnectionId,
    },
    Message {
        id: ConnectionId,
        message: Message,
    },
    /// Blocks of that many bytes were written.
    Sent {
        id: ConnectionId,
        bytes: usize,
    },
    Keys {
        id: ConnectionId,
        pieces: Vec<u32>,
        keys: Result<Vec<Bytes>, KeyError>,
    },
    /// A piece is ready for a peer.
    Prepared {
        id: ConnectionId,
        piece: u32,
        /// The epoch that it was made for.
        to: u64,
        ready: Result<Bytes, Unready>,
    },
    /// A piece was checked and stored.
    Stored {
        id: ConnectionId,
        piece: u32,
        /// The address of the peer that sent all of it, which may have left.
        sender: SocketAddr,
        stored: Result<(), StoreFailure>,
    },
    /// The driver has our witness keys of these pieces, or could not get them.
    Witness {
        epoch: u64,
        pieces: Vec<u32>,
        keys: Result<(), KeyError>,
    },
    /// The tracker was asked again for witness keys: whether each is the same as before. The driver keeps the new one.
    Confirmed {
        epoch: u64,
        pieces: Vec<u32>,
        same: Result<Vec<bool>, KeyError>,
    },
    /// Our subscription is in another epoch now: what comes is to be of that one.
    Epoch {
        epoch: u64,
    },
    /// A stored piece is of another epoch now.
    Moved {
        piece: u32,
        epoch: u64,
    },
    /// Stored pieces whose epoch is retired: nobody can use them any more, but whoever has their license.
    Retired {
        pieces: Vec<u32>,
    },
    /// A stored piece does not open to what was published.
    FoundBad {
        piece: u32,
    },
    /// Somebody waits for these pieces, in this order, and for no others.
    Urgent {
        pieces: Vec<u32>,
    },
    /// All connections are taken and another waits.
    Crowded,
    Tick,
}

/// Why a piece is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unready {
    /// It is not what was stored: the disk's fault, and ours if we handed it on.
    Damaged,
    /// It is of another epoch than the key.
    Moved,
    /// It cannot be read or transformed.
    Failed,
}

/// Why a piece was not stored.
#[derive(Clone, Debug)]
pub(crate) enum StoreFailure {
    /// It is not what an honest peer sends, whatever the key.
    BadPiece,
    /// By its witness key it is not what was published: the piece is bad, or the key.
    Mismatch,
    /// There is no key to check or to transform it with.
    NoKey,
    /// The disk's fault.
    Disk(String),
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Command {
    Send {
        id: ConnectionId,
        message: Message,
    },
    Disconnect {
        id: ConnectionId,
        reason: Reason,
    },
    /// Ask the tracker for keys for the downloader; `epoch` is that of our own ciphertext.
    FetchKeys {
        id: ConnectionId,
        claim: Claim,
        epoch: u64,
        pieces: Vec<u32>,
    },
    /// Read a piece and transform it; no key in a plain torrent or of a clear piece. The key is from our ciphertext of `epoch` to the peer's of
    /// `to`.
    Prepare {
        id: ConnectionId,
        piece: u32,
        key: Option<Bytes>,
        epoch: u64,
        to: u64,
    },
    /// Check a piece and store it.
    Store {
        id: ConnectionId,
        piece: u32,
        data: Buffer,
        sender: SocketAddr,
        epoch: u64,
        /// An ordinary client's ciphertext, to be transformed first.
        from: Option<Personal>,
    },
    /// Forget a stored piece.
    Discard {
        piece: u32,
    },
    /// Ask the tracker for our witness keys of these pieces.
    FetchWitness {
        epoch: u64,
        pieces: Vec<u32>,
    },
    /// Ask for them again: pieces failed by them.
    ConfirmWitness {
        epoch: u64,
        pieces: Vec<u32>,
    },
    /// A bad piece, or a forged ticket, came from that address.
    Failed {
        sender: SocketAddr,
    },
    /// A ticket was taken.
    Keep(Box<Ticket>),
    /// The last piece is stored.
    Completed,
}

/// What entitles us to a downloader's keys.
#[derive(Clone, Debug)]
pub(crate) enum Claim {
    /// Its word.
    Ticket(Box<Ticket>),
    /// Its personal torrent, which it announced.
    Personal(Personal),
}

impl Claim {
    /// Whose keys, and of which epoch.
    pub(crate) fn downloader(&self) -> (SubscriberId, u64) {
        match self {
            Claim::Ticket(ticket) => (ticket.downloader, ticket.epoch),
            Claim::Personal(personal) => (personal.subscriber, personal.epoch),
        }
    }
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("it is ourselves")]
    Ourselves,
    #[error("there is a connection to it already")]
    Duplicate,
    #[error("it does not speak ss_seal")]
    NotSealed,
    #[error("bad extension message: {0}")]
    Extension(#[from] seal::SealError),
    #[error("bad ticket")]
    BadTicket,
    #[error("its ticket has expired")]
    ExpiredTicket,
    #[error("the tracker refuses its ticket: {0}")]
    TicketRefused(String),
    #[error("there is no key to check what it sends")]
    NoKey,
    #[error("it sent a bad piece")]
    BadPiece,
    #[error("it broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("nothing came from it for too long")]
    Silence,
    /// It may come back at once.
    #[error("what it still sends may be of an epoch that we left")]
    EpochLeft,
    #[error("neither side needs anything from the other")]
    Useless,
    /// It may come back at once.
    #[error("it has been least use, and another waits for its place")]
    LeastUse,
}

impl Reason {
    /// Whether another try soon would end the same way.
    pub(crate) fn lasting(&self) -> bool {
        matches!(self, Reason::Ourselves | Reason::NotSealed | Reason::BadTicket | Reason::Useless)
    }
}

/// How far things are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) from_seeds: u64,
    pub(crate) from_peers: u64,
    pub(crate) sent: u64,
    pub(crate) sent_pieces: u64,
    pub(crate) rejected: u64,
    /// Sealed pieces that peers began to ask for, and those of them whose keys were there by then.
    pub(crate) asked: u64,
    pub(crate) keyed: u64,
    /// Pieces that we began to ask for, and those of them that waited for a witness key.
    pub(crate) requested: u64,
    pub(crate) awaited_key: u64,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Swarm {
    config: Config,
    now: Now,
    random: Random,
    pieces: Pieces,
    connections: BTreeMap<ConnectionId, Connection>,
    avoid: AvoidedPieces,
    witness: Witness,
    totals: Totals,
    /// Bytes handed to the store and not yet stored.
    storing_bytes: usize,
    /// The epochs of pieces that are being stored.
    storing_epochs: HashMap<u32, u64>,
    /// Why downloading has stopped.
    failure: Option<String>,
    rates_at: Duration,
    choked_at: Duration,
    rechokes: u64,
    /// Super-seeding: how often each piece was revealed.
    revealed: Vec<u32>,
    out: Vec<Command>,
}

impl Swarm {
    pub(crate) fn new(config: Config, now: Now) -> Self {
        let pieces = Pieces::new(&config.have);
        let mut swarm = Swarm {
            random: Random::new(config.seed),
            avoid: HashMap::new(),
            witness: Witness::new(pieces.count()),
            revealed: if config.super_seed { vec![0; config.have.len()] } else { Vec::new() },
            pieces,
            now,
            connections: BTreeMap::new(),
            totals: Totals::default(),
            storing_bytes: 0,
            storing_epochs: HashMap::new(),
            failure: None,
            rates_at: now.elapsed,
            choked_at: now.elapsed,
            rechokes: 0,
            out: Vec::new(),
            config,
        };
        swarm.fetch_witness();
        swarm
    }

    /// Takes an event in; the commands that follow are appended to `out`.
    pub(crate) fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Command>) {
        self.now = Now { elapsed: now.elapsed.max(self.now.elapsed), unix: now.unix };
        match event {
            Event::Connected { id, peer_id, addr, outgoing, extended, personal } => {
                self.connected(id, peer_id, (addr, outgoing), extended, personal);
            }
            Event::Disconnected { id } => self.forget(id),
            Event::Message { id, message } => {
                if let Err(reason) = self.message(id, message) {
                    self.part(id, reason);
                }
            }
            Event::Sent { id, bytes } => self.sent(id, bytes),
            Event::Keys { id, pieces, keys } => self.keys(id, &pieces, keys),
            Event::Prepared { id, piece, to, ready } => self.prepared(id, piece, to, ready),
            Event::Stored { id, piece, sender, stored } => self.stored(id, piece, sender, stored),
            Event::Witness { epoch, pieces, keys } => self.witness_keys(epoch, &pieces, &keys),
            Event::Confirmed { epoch, pieces, same } => self.confirmed(epoch, &pieces, same),
            Event::Epoch { epoch } => self.new_epoch(epoch),
            Event::Moved { piece, epoch } => self.pieces.moved(piece, epoch),
            Event::Retired { pieces } => self.retired(&pieces),
            Event::FoundBad { piece } => self.found_bad(piece),
            Event::Urgent { pieces } => self.prioritize(&pieces),
            Event::Crowded => self.part_from_least_used(),
            Event::Tick => self.tick(),
        }
        out.append(&mut self.out);
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    pub(crate) fn have(&self) -> &Bits {
        self.pieces.have()
    }

    /// What a restart would find.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn holdings(&self) -> Vec<Option<u64>> {
        let held = |piece: u32| self.pieces.have().has(piece).then(|| self.pieces.epoch(piece));
        (0..self.pieces.count()).map(held).collect()
    }

    pub(crate) fn piece_count(&self) -> u32 {
        self.pieces.count()
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Connections that we serve.
    pub(crate) fn unchoked(&self) -> usize {
        self.connections.values().filter(|connection| connection.is_served()).count()
    }

    /// Bytes per second, down and up.
    pub(crate) fn rates(&self) -> (u64, u64) {
        self.connections.values().fold((0, 0), |(down, up), connection| {
            (down + connection.down.per_second(), up + connection.up.per_second())
        })
    }

    /// Whether more connections would help.
    pub(crate) fn wants_peers(&self) -> bool {
        self.connections.len() < self.config.max_connections
    }

    /// Whether an ordinary client is worth a call: it wants pieces that we have and is not here yet, or has some that we can
    /// check and want.
    pub(crate) fn has_use_for(&self, client: &OrdinaryClient) -> bool {
        let same = |connection: &Connection| {
            connection.personal == Some(client.personal) && connection.addr.ip() == client.addr.ip()
        };
        let useful = match client.complete {
            true => !self.pieces.complete(),
            false => self.pieces.have().count() > 0,
        };
        useful && !self.connections.values().any(same)
    }

    /// Whether a peer that listens on this address is connected, whoever called.
    pub(crate) fn is_connected_to(&self, addr: SocketAddr) -> bool {
        self.connections.values().any(|connection| connection.listens_on == Some(addr))
    }

    fn sealed(&self) -> bool {
        self.config.seal.is_some()
    }

    /// Whether a piece goes from hand to hand with a key: none does in a plain torrent, nor a clear one.
    fn is_sealed(&self, piece: u32) -> bool {
        self.config.is_sealed(piece)
    }

    /// Bytes of all pieces but the last.
    fn piece_len(&self) -> usize {
        self.config.layout.piece_len() as usize
    }

    fn send(&mut self, id: ConnectionId, message: Message) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.last_sent = self.now.elapsed;
            self.out.push(Command::Send { id, message });
        }
    }

    fn send_seal(&mut self, id: ConnectionId, message: &SealMessage) {
        if let Some(connection) = self.connections.get(&id) {
            let extension = connection.seal_id;
            self.send(id, Message::Extended { id: extension, payload: message.to_bytes().into() });
        }
    }

    fn connected(
        &mut self,
        id: ConnectionId,
        peer_id: [u8; 20],
        (addr, outgoing): (SocketAddr, bool),
        extended: bool,
        personal: Option<Personal>,
    ) {
        let speaks_seal = self.sealed() && personal.is_none();
        let refusal = if peer_id == self.config.peer_id {
            Some(Reason::Ourselves)
        } else if speaks_seal && !extended {
            Some(Reason::NotSealed)
        } else {
            self.settle_duplicate(peer_id, addr, outgoing)
        };
        if let Some(reason) = refusal {
            self.out.push(Command::Disconnect { id, reason });
            return;
        }
        let now = self.now.elapsed;
        let count = self.pieces.count();
        let connection = Connection {
            addr,
            listens_on: outgoing.then_some(addr),
            peer_id,
            outgoing,
            since: now,
            ready: !speaks_seal,
            personal,
            hello: None,
            seal_id: 0,
            dont_have_id: None,
            losses: 0,
            original: false,
            reqq: REQQ,
            have: Bits::new(count),
            useful: 0,
            choking_it: true,
            choked_by_it: true,
            interested_in_it: false,
            it_is_interested: false,
            optimistic: false,
            last_received: now,
            last_sent: now,
            last_use: now,
            down: Rate::default(),
            up: Rate::default(),
            download: Download { ramp: Some(0), last_data: now, epoch: self.epoch(), ..Download::default() },
            upload: Upload { last_request: now, ..Upload::default() },
            revealed: Revealed {
                // A client that hands nothing on would never be told of more.
                all: (self.config.super_seed && personal.is_none()).then(|| Bits::new(count)),
                open: Vec::new(),
                last_have: now,
            },
        };
        self.connections.insert(id, connection);
        if extended {
            let handshake = ExtendedHandshake {
                seal_id: speaks_seal.then_some(seal::OUR_ID),
                dont_have_id: Some(dont_have::OUR_ID),
                client: concat!("Swarmseal ", env!("CARGO_PKG_VERSION")).to_owned(),
                reqq: REQQ,
                port: self.config.port,
                hello: self.config.seal.as_ref().filter(|_| speaks_seal).map(|seal| seal.hello),
            };
            self.send(id, Message::Extended { id: 0, payload: handshake.to_bytes().into() });
        }
        if (!self.config.super_seed || personal.is_some()) && self.pieces.have().count() > 0 {
            let bits = Bytes::copy_from_slice(self.pieces.have().as_bytes());
            self.send(id, Message::Bitfield(bits));
        }
        if !speaks_seal {
            self.became_ready(id);
        }
    }

    /// Two peers that connect to each other at once keep the connection of the one with the smaller peer id; otherwise the older stays.
    /// The same peer id at another IP address is another peer: an id can be borrowed.
    fn settle_duplicate(&mut self, peer_id: [u8; 20], addr: SocketAddr, outgoing: bool) -> Option<Reason> {
        let same =
            |connection: &Connection| (connection.peer_id, connection.addr.ip()) == (peer_id, addr.ip());
        let (&old, connection) = self.connections.iter().find(|(_, connection)| same(connection))?;
        let keep_outgoing = self.config.peer_id < peer_id;
        let young = self.now.elapsed.saturating_sub(connection.since) < SIMULTANEOUS;
        if young && connection.outgoing != outgoing && outgoing == keep_outgoing {
            self.disconnect(old, Reason::Duplicate);
            None
        } else {
            Some(Reason::Duplicate)
        }
    }

    fn disconnect(&mut self, id: ConnectionId, reason: Reason) {
        if !self.connections.contains_key(&id) {
            return;
        }
        self.forget(id);
        self.out.push(Command::Disconnect { id, reason });
    }

    /// Ends a connection whose peer broke the rules; a forged ticket counts against where it came from.
    fn part(&mut self, id: ConnectionId, reason: Reason) {
        if let Some(connection) = self.connections.get(&id).filter(|_| reason == Reason::BadTicket) {
            self.out.push(Command::Failed { sender: connection.addr });
        }
        self.disconnect(id, reason);
    }

    fn forget(&mut self, id: ConnectionId) {
        self.release_pieces(id, false);
        if let Some(connection) = self.connections.remove(&id) {
            self.pieces.gone(&connection.have);
            self.fill_slots();
            self.download_all();
        }
    }

    fn message(&mut self, id: ConnectionId, message: Message) -> Result<(), Reason> {
        let (now, sealed) = (self.now.elapsed, self.sealed());
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        connection.last_received = now;
        match message {
            Message::KeepAlive => {}
            Message::Extended { id: 0, payload } => return self.extended_handshake(id, &payload),
            Message::Extended { id: seal::OUR_ID, payload } if sealed && connection.personal.is_none() => {
                if let Some(message) = SealMessage::from_bytes(&payload)? {
                    return self.seal_message(id, message);
                }
            }
            Message::Extended { id: dont_have::OUR_ID, payload } => {
                let piece = dont_have::from_bytes(&payload).filter(|&piece| piece < self.pieces.count());
                return self.has_lost(id, piece.ok_or(Reason::Protocol("a bad lt_donthave"))?);
            }
            Message::Extended { .. } => {}
            // BEP 3 has it first and once. aria2 says `have` before it; nothing is lost by listening.
            Message::Bitfield(bits) => self.has(id, Bits::from_bytes(&bits).iter()),
            Message::Have(piece) => {
                self.has(id, std::iter::once(piece));
                self.came_back(id, piece);
            }
            Message::Choke => {
                connection.choked_by_it = true;
                self.choked(id);
            }
            Message::Unchoke => {
                connection.choked_by_it = false;
                connection.download.last_data = now;
                self.download_from(id);
            }
            Message::Interested => {
                connection.it_is_interested = true;
                self.reveal(id);
                self.choke_if_too_many(id);
                self.fill_slots();
            }
            Message::NotInterested => {
                // It keeps its slot until somebody needs it: a choke would cross the requests of a peer that is
                // interested again a moment later.
                connection.it_is_interested = false;
                self.fill_slots();
            }
            Message::Request(block) => return self.requested(id, block),
            Message::Cancel(block) => connection.upload.requests.cancel(block),
            Message::Piece { piece, begin, data } => return self.block(id, piece, begin, &data),
        }
        Ok(())
    }

    fn extended_handshake(&mut self, id: ConnectionId, payload: &[u8]) -> Result<(), Reason> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let handshake = match ExtendedHandshake::from_bytes(payload) {
            Ok(handshake) => handshake,
            // A stranger's odd handshake does no harm where we need nothing of it.
            Err(_) if self.config.seal.is_none() || connection.personal.is_some() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        connection.reqq = handshake.reqq.clamp(1, REQQ);
        connection.dont_have_id = handshake.dont_have_id;
        let listens_on = handshake.port.map(|port| {
            let mut addr = connection.addr;
            addr.set_port(port);
            addr
        });
        connection.listens_on = connection.listens_on.or(listens_on);
        let Some(seal) = self.config.seal.as_ref().filter(|_| connection.personal.is_none()) else {
            return Ok(());
        };
        let (Some(seal_id), Some(hello)) = (handshake.seal_id, handshake.hello) else {
            return Err(Reason::NotSealed);
        };
        let their_id = hello.id(&seal.torrent_id);
        if their_id == seal.id {
            return Err(Reason::Ourselves);
        }
        if connection.ready {
            return if connection.hello == Some((hello, their_id)) {
                Ok(())
            } else {
                Err(Reason::Protocol("a second extended handshake"))
            };
        }
        connection.hello = Some((hello, their_id));
        connection.seal_id = seal_id;
        connection.original = hello.is_seed();
        connection.ready = true;
        self.became_ready(id);
        Ok(())
    }

    fn became_ready(&mut self, id: ConnectionId) {
        self.renew_ticket(id);
        self.update_interest(id);
        self.reveal(id);
        self.fill_slots();
    }

    fn seal_message(&mut self, id: ConnectionId, message: SealMessage) -> Result<(), Reason> {
        if !self.connections.get(&id).is_some_and(|connection| connection.ready) {
            return Err(Reason::Protocol("an ss_seal message before the handshake"));
        }
        match message {
            SealMessage::Ticket(ticket) => self.ticket(id, *ticket),
            SealMessage::Want(pieces) => self.want(id, pieces),
        }
    }

    /// The peer has these pieces too.
    fn has(&mut self, id: ConnectionId, theirs: impl Iterator<Item = u32>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let count = self.pieces.count();
        for piece in theirs.filter(|&piece| piece < count) {
            if connection.have.insert(piece) {
                self.pieces.seen(piece);
                connection.useful += u32::from(!self.pieces.have().has(piece));
            }
        }
        self.update_interest(id);
        self.download_from(id);
        self.part_if_useless(id);
    }

    /// The peer had this piece and has it no more.
    fn has_lost(&mut self, id: ConnectionId, piece: u32) -> Result<(), Reason> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        if !connection.have.remove(piece) {
            return Ok(());
        }
        connection.useful -= u32::from(!self.pieces.have().has(piece));
        self.pieces.unseen(piece);
        connection.losses += 1;
        if connection.losses > self.pieces.count().saturating_mul(MAX_LOSSES) {
            return Err(Reason::Protocol("it loses and gets pieces again and again"));
        }
        let was_asked_for = self.take_back(id, piece);
        self.update_interest(id);
        if was_asked_for {
            self.download_all_idle();
        }
        Ok(())
    }

    /// Least use is to have moved no bytes, either way, for the longest.
    fn part_from_least_used(&mut self) {
        let least = self.connections.iter().min_by_key(|(_, connection)| connection.last_use);
        if let Some((&id, _)) = least {
            self.disconnect(id, Reason::LeastUse);
        }
    }

    /// Two complete peers have nothing to say to each other.
    fn part_if_useless(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let all = self.pieces.count();
        if self.pieces.complete() && connection.have.count() == all {
            self.disconnect(id, Reason::Useless);
        }
    }

    fn update_interest(&mut self, id: ConnectionId) {
        let stopped = self.failure.is_some();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let interested = connection.ready && connection.useful > 0 && !stopped;
        if interested != connection.interested_in_it {
            connection.interested_in_it = interested;
            self.send(id, if interested { Message::Interested } else { Message::NotInterested });
        }
    }

    /// Pieces that are of another epoch than the subscription. Clear ones are of none.
    pub(crate) fn moving(&self) -> u32 {
        let clear = match &self.config.selection {
            Some(_) if self.epoch() != NOT_ENCRYPTED => self.pieces.of_epoch(NOT_ENCRYPTED),
            _ => 0,
        };
        self.pieces.have().count() - self.pieces.of_epoch(self.epoch()) - clear
    }

    fn epoch(&self) -> u64 {
        self.config.seal.as_ref().map_or(0, |seal| seal.epoch)
    }

    /// Peers that send to us get tickets for it, each when nothing that it is sending would be taken for another's.
    fn new_epoch(&mut self, epoch: u64) {
        let Some(seal) = self.config.seal.as_mut().filter(|seal| seal.epoch < epoch) else { return };
        seal.epoch = epoch;
        self.begin_witness();
        for id in self.ids() {
            self.renew_ticket(id);
            self.update_interest(id);
            self.download_from(id);
        }
    }

    fn ids(&self) -> Vec<ConnectionId> {
        self.connections.keys().copied().collect()
    }

    fn tick(&mut self) {
        let now = self.now.elapsed;
        let since = now.saturating_sub(self.rates_at);
        // We were stopped, or the machine slept: what came meanwhile is still to be read.
        if since > ASLEEP {
            self.connections.values_mut().for_each(|connection| connection.download.last_data = now);
        }
        if since >= Duration::from_secs(1) {
            self.rates_at = now;
            for connection in self.connections.values_mut() {
                let before = connection.down.per_second();
                connection.down.update(since);
                if before > 0 && connection.down.per_second() < before + before / 8 {
                    connection.download.ramp = None;
                }
                connection.up.update(since);
            }
        }
        let full = self.connections.len() >= self.config.max_connections;
        for id in self.ids() {
            match self.overdue(id, full) {
                Some(reason) => self.disconnect(id, reason),
                None => self.tend(id),
            }
        }
        self.fetch_witness();
        self.confirm();
        self.rechoke_if_due();
    }

    fn overdue(&self, id: ConnectionId, full: bool) -> Option<Reason> {
        let now = self.now.elapsed;
        let connection = self.connections.get(&id)?;
        if !connection.ready && now.saturating_sub(connection.since) > EXTENDED_DEADLINE {
            return Some(Reason::Protocol("no extended handshake in time"));
        }
        if now.saturating_sub(connection.last_received) > SILENCE {
            return Some(Reason::Silence);
        }
        let idle = !connection.interested_in_it && !connection.it_is_interested;
        (full && idle && now.saturating_sub(connection.since) > USELESS).then_some(Reason::Useless)
    }

    fn tend(&mut self, id: ConnectionId) {
        let now = self.now.elapsed;
        if self
            .connections
            .get(&id)
            .is_some_and(|connection| now.saturating_sub(connection.last_sent) > KEEP_ALIVE)
        {
            self.send(id, Message::KeepAlive);
        }
        self.renew_ticket(id);
        self.check_snubbed(id);
        self.download_from(id);
        self.drop_idle_uploads(id);
        self.upload_to(id);
        self.reveal(id);
        self.part_if_useless(id);
    }
}
