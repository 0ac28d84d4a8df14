//! One peer among strangers who say anything at all, in any order: what is fuzzed, and what a property test draws.
//!
//! A script is a string of bytes, each of which means something, so that whatever a fuzzer changes in it is another story. The peer's
//! own driver is honest: it answers each command once, when the script says so, with success or with a reason. What the peer then
//! does is held against all that it was told.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use swarmseal_core::{KeyCommitment, SubscriberId, Ticket, TorrentId};

use super::{Bits, Command, Config, ConnectionId, Event, Now, REQQ, Seal, StoreFailure, Swarm, Unready};
use crate::peer::buffers::Buffers;
use crate::peer::tracker::{KeyError, Personal};
use crate::wire::dont_have;
use crate::wire::identity::{SigningKey, purpose, verify};
use crate::wire::layout::Layout;
use crate::wire::message::{BLOCK, Block, Decoder, Message};
use crate::wire::seal::{self, ExtendedHandshake, Hello, MAX_WANT, SealMessage};
use crate::wire::selection::{Kind, Selection};

const PIECES: u32 = 24;
const PIECE_LEN: u32 = 2 * BLOCK;
const TORRENT: TorrentId = TorrentId([1; 32]);
/// Strangers with a connection at a time each.
const SLOTS: usize = 4;
/// Tracker time at the start.
const START: u64 = 1_000_000;
/// The stranger that is an original seed.
const SEED_SLOT: usize = 3;
/// What strangers call `ss_seal` and `lt_donthave`.
const THEIR_SEAL: u8 = 2;
const THEIR_DONT_HAVE: u8 = 3;

/// Plays a script to a peer. Panics where the peer does what it must not.
pub fn among_strangers(script: &[u8]) {
    play(script);
}

/// What has become of the peer and the strangers once the script is over.
fn play(script: &[u8]) -> World {
    let mut script = Script(script.iter());
    let mut world = World::new(&mut script);
    while !script.is_over() {
        world.step(&mut script);
    }
    world
}

/// A script in which stranger 0 gives all pieces, and stranger 1 takes one.
pub fn whole_story() -> Vec<u8> {
    let second = 1 << 6;
    // The tracker gives its keys first.
    let mut script = vec![0, 0, 28, 0, 0, 2, 0xf8, 5, 9, 0xff, 0xff, 0xff];
    for _ in 0..PIECES {
        // All that was asked for comes, and is stored.
        script.extend([29, 7, 28, 30]);
    }
    script.extend([second, 0, second | 2, 0xf8, second | 14, 0, second | 6]);
    script.extend([30; 60]);
    script.extend([second | 10, 3, 0, second | 10, 3, 1, 28, 28, second | 27, 30]);
    script
}

struct Script<'a>(slice::Iter<'a, u8>);

impl Script<'_> {
    fn is_over(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    /// 0 after the end.
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or_default()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let count = self.byte();
        (0..count).map_while(|_| self.0.next().copied()).collect()
    }

    /// Inside of the torrent but for one number in twelve.
    fn piece(&mut self) -> u32 {
        u32::from(self.byte()) % (PIECES + 2)
    }

    fn pieces(&mut self) -> Vec<u32> {
        let count = self.byte() % 9;
        (0..count).map(|_| self.piece()).collect()
    }

    fn block(&mut self) -> Block {
        let (piece, shape) = (self.piece(), self.byte());
        let len = if shape & 0x7e == 0 { BLOCK } else { u32::from(shape) * 129 % (BLOCK + 2) };
        Block { piece, begin: u32::from(shape & 1) * BLOCK, len }
    }
}

/// What passed over one connection.
struct Line {
    slot: usize,
    personal: Option<Personal>,
    hello: Option<Hello>,
    have: Bits,
    chokes_us: bool,
    /// What we asked for and neither got nor took back.
    asked: VecDeque<Block>,
    /// The epoch of the last ticket that it was given.
    ticket: u64,
    /// What it asked for and did not take back, as often as it did.
    wants: HashMap<Block, u32>,
    /// What each block that it sent was filled with.
    gave: HashMap<(u32, u32), HashSet<u8>>,
    /// Bytes that it was sent and of which the peer was not told that they are written.
    unwritten: usize,
}

struct World {
    swarm: Swarm,
    layout: Layout,
    decoder: Decoder,
    selection: Option<Arc<Selection>>,
    sealed: bool,
    us: SubscriberId,
    key: SigningKey,
    epoch: u64,
    elapsed: Duration,
    lines: BTreeMap<ConnectionId, Line>,
    current: [ConnectionId; SLOTS],
    next: ConnectionId,
    jobs: VecDeque<Command>,
    /// Witness keys that it was given, by epoch and piece, of pieces that are not here.
    witness: HashSet<(u64, u32)>,
}

fn key(slot: usize) -> SigningKey {
    SigningKey::from_bytes(&[slot as u8 + 10; 32])
}

fn hello_of(slot: usize) -> Hello {
    let key = key(slot).public();
    if slot == SEED_SLOT {
        Hello::Seed { key }
    } else {
        Hello::Subscriber { identity: key, keys: KeyCommitment([slot as u8 + 10; 32]) }
    }
}

fn subscriber(slot: usize) -> SubscriberId {
    hello_of(slot).id(&TORRENT)
}

fn address(slot: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, slot as u8], 1))
}

impl World {
    fn new(script: &mut Script<'_>) -> Self {
        let (shape, seed) = (script.byte(), script.byte());
        let (sealed, complete, half) = (shape & 1 == 0, shape & 2 != 0, shape & 4 != 0);
        let selection = (sealed && shape & 8 != 0).then(|| {
            let kind = |piece: u32| if piece % 3 == 1 { Kind::Clear } else { Kind::Sealed };
            let kinds: Vec<Kind> = (0..PIECES).map(kind).collect();
            Arc::new(Selection::new(&kinds).expect("some of both"))
        });
        let layout = if sealed {
            Layout::of_whole(PIECES, PIECE_LEN)
        } else {
            Layout::new(u64::from(PIECES * PIECE_LEN - BLOCK - 5), PIECE_LEN)
        }
        .expect("not empty");
        let key = SigningKey::from_bytes(&[1; 32]);
        let original = sealed && complete && shape & 32 != 0;
        let hello = if original {
            Hello::Seed { key: key.public() }
        } else {
            Hello::Subscriber { identity: key.public(), keys: KeyCommitment([1; 32]) }
        };
        let us = hello.id(&TORRENT);
        let epoch = if original { 0 } else { 1 };
        let clear = |piece: u32| selection.as_ref().is_some_and(|selection| selection.is_clear(piece));
        let have = |piece: u32| {
            let there = complete || half && piece.is_multiple_of(2);
            there.then_some(if clear(piece) { 0 } else { epoch })
        };
        let seal = Seal { torrent_id: TORRENT, hello, id: us, key: key.clone(), epoch };
        let config = Config {
            layout,
            buffers: Buffers::new(PIECE_LEN),
            peer_id: [1; 20],
            seal: sealed.then_some(seal),
            selection: selection.clone(),
            have: (0..PIECES).map(have).collect(),
            port: Some(6881),
            slots: 2,
            personal_slots: 1,
            names_ahead: true,
            super_seed: complete && shape & 16 != 0,
            ready_bytes: 4 * PIECE_LEN as usize,
            max_connections: SLOTS,
            seed: u64::from(seed),
        };
        let now = Now { elapsed: Duration::ZERO, unix: START };
        let mut commands = Vec::new();
        let mut swarm = Swarm::new(config, now);
        swarm.handle(now, Event::Tick, &mut commands);
        let mut world = World {
            swarm,
            layout,
            decoder: Decoder::new(layout),
            selection,
            sealed,
            us,
            key,
            epoch,
            elapsed: Duration::ZERO,
            lines: BTreeMap::new(),
            current: [0; SLOTS],
            next: 1,
            jobs: VecDeque::new(),
            witness: HashSet::new(),
        };
        commands.into_iter().for_each(|command| world.command(command));
        world
    }

    fn now(&self) -> Now {
        Now { elapsed: self.elapsed, unix: START + self.elapsed.as_secs() }
    }

    /// Whether a piece goes from hand to hand with a key.
    fn is_sealed(&self, piece: u32) -> bool {
        self.sealed && !self.selection.as_ref().is_some_and(|selection| selection.is_clear(piece))
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let choice = script.byte();
        let slot = usize::from(choice >> 6);
        let id = self.current[slot];
        match choice & 31 {
            0 => self.connect(slot, script.byte()),
            1 => self.hang_up(id),
            2 => self.say(id, hello(slot, script.byte())),
            3 => {
                let (id_of, payload) = (script.byte() % 4, script.bytes());
                self.say(id, Message::Extended { id: id_of, payload: payload.into() });
            }
            4 => self.say(id, Message::Choke),
            5 => self.say(id, Message::Unchoke),
            6 => self.say(id, Message::Interested),
            7 => self.say(id, Message::NotInterested),
            8 => {
                let piece = script.piece();
                self.say(id, Message::Have(piece));
            }
            9 => {
                let bits = [script.byte(), script.byte(), script.byte()];
                self.say(id, Message::Bitfield(bits.to_vec().into()));
            }
            10 => self.say(id, Message::Request(script.block())),
            11 => self.say(id, Message::Cancel(script.block())),
            12 => {
                let Block { piece, begin, len } = script.block();
                let data = vec![script.byte(); len as usize].into();
                self.say(id, Message::Piece { piece, begin, data });
            }
            13 => self.answer_request(id, script.byte()),
            14 => self.give_ticket(slot, script.byte()),
            15 => {
                let pieces = script.pieces();
                self.say_seal(id, &SealMessage::Want(pieces));
            }
            18 => {
                let (which, how) = (script.byte(), script.byte());
                self.do_job(usize::from(which), how);
            }
            19 => self.pass(Duration::from_millis(250 * u64::from(script.byte()))),
            21 if self.sealed => {
                self.epoch += 1;
                self.event(Event::Epoch { epoch: self.epoch });
            }
            21 => self.event(Event::Crowded),
            22 => {
                let piece = script.piece();
                if self.swarm.have().has(piece) && self.is_sealed(piece) {
                    self.event(Event::Moved { piece, epoch: self.epoch });
                }
            }
            23 => {
                let mut pieces = script.pieces();
                pieces.retain(|&piece| self.swarm.have().has(piece) && self.is_sealed(piece));
                self.event(Event::Retired { pieces });
            }
            24 => {
                let piece = script.piece();
                self.event(Event::FoundBad { piece });
            }
            25 => {
                let pieces = script.pieces();
                self.event(Event::Urgent { pieces });
            }
            27 => {
                let Some(line) = self.lines.get_mut(&id) else { return };
                let bytes = std::mem::take(&mut line.unwritten);
                self.event(Event::Sent { id, bytes });
            }
            28 => (0..self.jobs.len()).for_each(|_| self.do_job(0, 0)),
            29 => {
                let (fill, asked) = (script.byte(), self.lines.get(&id).map_or(0, |line| line.asked.len()));
                (0..asked).for_each(|_| self.answer_request(id, fill));
            }
            _ => self.pass(Duration::from_millis(250)),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.elapsed += time;
        self.event(Event::Tick);
    }

    fn connect(&mut self, slot: usize, manner: u8) {
        self.hang_up(self.current[slot]);
        let id = self.next;
        self.next += 1;
        self.current[slot] = id;
        let personal = (self.sealed && manner & 4 != 0).then_some(Personal {
            info_hash: [slot as u8; 20],
            subscriber: subscriber(slot),
            epoch: 1 + u64::from(manner >> 7),
        });
        // Now and then it is somebody else's, or our own.
        let peer_id = [if manner & 0x78 == 0x78 { 1 } else { 100 + slot as u8 }; 20];
        let line = Line {
            slot,
            personal,
            hello: None,
            have: Bits::new(PIECES),
            chokes_us: true,
            asked: VecDeque::new(),
            ticket: 0,
            wants: HashMap::new(),
            gave: HashMap::new(),
            unwritten: 0,
        };
        self.lines.insert(id, line);
        let addr = address(slot);
        let (outgoing, extended) = (manner & 1 != 0, manner & 2 == 0);
        self.event(Event::Connected { id, peer_id, addr, outgoing, extended, personal });
    }

    fn hang_up(&mut self, id: ConnectionId) {
        if self.lines.remove(&id).is_some() {
            self.event(Event::Disconnected { id });
        }
    }

    /// A stranger says something, as the decoder has it.
    fn say(&mut self, id: ConnectionId, message: Message) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        let Ok(Some(message)) = self.decoder.decode(&mut bytes) else { return self.hang_up(id) };
        match &message {
            Message::Choke => {
                line.chokes_us = true;
                line.asked.clear();
            }
            Message::Unchoke => line.chokes_us = false,
            Message::Have(piece) => {
                line.have.insert(*piece);
            }
            Message::Bitfield(bits) => {
                for piece in Bits::from_bytes(bits).iter() {
                    line.have.insert(piece);
                }
            }
            Message::Request(block) => *line.wants.entry(*block).or_default() += 1,
            Message::Cancel(block) => {
                if let Some(count) = line.wants.get_mut(block) {
                    *count = count.saturating_sub(1);
                }
            }
            Message::Piece { piece, begin, data } => {
                if let Some(&fill) = data.first() {
                    line.gave.entry((*piece, *begin)).or_default().insert(fill);
                }
                line.asked.retain(|block| (block.piece, block.begin) != (*piece, *begin));
            }
            Message::Extended { id: dont_have::OUR_ID, payload } => {
                if let Some(piece) = dont_have::from_bytes(payload) {
                    line.have.remove(piece);
                }
            }
            Message::Extended { id: 0, payload } if line.hello.is_none() => {
                line.hello =
                    ExtendedHandshake::from_bytes(payload).ok().and_then(|handshake| handshake.hello);
            }
            _ => {}
        }
        self.event(Event::Message { id, message });
    }

    fn say_seal(&mut self, id: ConnectionId, message: &SealMessage) {
        self.say(id, Message::Extended { id: seal::OUR_ID, payload: message.to_bytes().into() });
    }

    /// What we asked for first.
    fn answer_request(&mut self, id: ConnectionId, fill: u8) {
        let asked = self.lines.get_mut(&id).and_then(|line| line.asked.pop_front());
        if let Some(Block { piece, begin, len }) = asked {
            self.say(id, Message::Piece { piece, begin, data: vec![fill; len as usize].into() });
        }
    }

    fn give_ticket(&mut self, slot: usize, manner: u8) {
        let lies = |bit: u8| manner & bit != 0;
        let mut ticket = Ticket {
            torrent_id: TORRENT,
            uploader: if lies(1) { subscriber(0) } else { self.us },
            downloader: if lies(2) { subscriber(1) } else { subscriber(slot) },
            epoch: 1 + u64::from(manner >> 6),
            expires: if lies(4) { self.now().unix + u64::from(manner) } else { u64::MAX },
            signature: [0; 64],
        };
        let signer = if lies(8) { key(slot + 1) } else { key(slot) };
        ticket.signature = signer.sign(purpose::TICKET, &ticket.signing_input());
        self.say_seal(self.current[slot], &SealMessage::Ticket(Box::new(ticket)));
    }

    /// The driver has done something, or could not.
    fn do_job(&mut self, which: usize, how: u8) {
        let place = which % self.jobs.len().max(1);
        let event = match self.jobs.remove(place) {
            Some(Command::FetchKeys { id, pieces, .. }) => {
                let keys = match how & 3 {
                    0 | 1 => Ok(pieces.iter().map(|_| Bytes::from_static(b"key")).collect()),
                    2 => Err(KeyError::Unavailable(String::new())),
                    _ if how & 4 == 0 => Err(KeyError::Retired),
                    _ => Err(KeyError::TicketRefused(String::new())),
                };
                Event::Keys { id, pieces, keys }
            }
            Some(Command::Prepare { id, piece, to, .. }) => {
                let ready = match how & 3 {
                    0 | 1 => {
                        let data = vec![self.ciphertext(id, piece); self.layout.len_of(piece) as usize];
                        Ok(data.into())
                    }
                    2 => Err(Unready::Damaged),
                    _ if how & 4 == 0 => Err(Unready::Moved),
                    _ => Err(Unready::Failed),
                };
                Event::Prepared { id, piece, to, ready }
            }
            Some(Command::FetchWitness { epoch, pieces }) => {
                let keys = match how & 3 {
                    0 | 1 => Ok(()),
                    2 => Err(KeyError::Unavailable(String::new())),
                    _ => Err(KeyError::Retired),
                };
                if keys.is_ok() {
                    self.witness.extend(pieces.iter().map(|&piece| (epoch, piece)));
                }
                Event::Witness { epoch, pieces, keys }
            }
            Some(Command::ConfirmWitness { epoch, pieces }) => {
                let same = match how & 3 {
                    0 | 1 => Ok(vec![how & 3 == 0; pieces.len()]),
                    2 => Err(KeyError::Unavailable(String::new())),
                    _ => Err(KeyError::Retired),
                };
                Event::Confirmed { epoch, pieces, same }
            }
            Some(Command::Store { id, piece, sender, .. }) => {
                let stored = match how & 7 {
                    0..=3 => {
                        self.witness.retain(|(_, of)| *of != piece);
                        Ok(())
                    }
                    // Nothing but the witness can tell a mismatch.
                    5 if self.is_sealed(piece) => Err(StoreFailure::Mismatch),
                    4 | 5 => Err(StoreFailure::BadPiece),
                    6 => Err(StoreFailure::NoKey),
                    _ => Err(StoreFailure::Disk("no space left".to_owned())),
                };
                Event::Stored { id, piece, sender, stored }
            }
            _ => return,
        };
        self.event(event);
    }

    /// What a piece looks like when it is made ready for somebody: a sealed one is no other's.
    fn ciphertext(&self, id: ConnectionId, piece: u32) -> u8 {
        if self.is_sealed(piece) { (id % 199) as u8 } else { 200 + piece as u8 }
    }

    fn event(&mut self, event: Event) {
        let mut commands = Vec::new();
        self.swarm.handle(self.now(), event, &mut commands);
        for command in commands {
            self.command(command);
        }
        self.check_bounds();
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Send { id, message } => self.hear(id, message),
            Command::Disconnect { id, .. } => {
                assert!(self.lines.remove(&id).is_some(), "it leaves a connection that is not there");
            }
            Command::FetchKeys { id, ref claim, ref pieces, .. } => {
                let line = &self.lines[&id];
                let whose = line
                    .personal
                    .map(|personal| personal.subscriber)
                    .or(line.hello.map(|it| it.id(&TORRENT)));
                assert_eq!(Some(claim.downloader().0), whose, "keys for somebody else");
                if let super::Claim::Ticket(ticket) = claim {
                    let Some(Hello::Subscriber { identity, .. }) = line.hello else {
                        panic!("no subscriber gave this ticket");
                    };
                    verify(&identity, purpose::TICKET, &ticket.signing_input(), &ticket.signature)
                        .expect("its own");
                    assert_eq!((ticket.uploader, ticket.torrent_id), (self.us, TORRENT));
                    assert!(ticket.expires > self.now().unix);
                }
                assert!(!pieces.is_empty() && pieces.iter().all(|&piece| self.is_sealed(piece)));
                self.jobs.push_back(command);
            }
            Command::Prepare { id, piece, ref key, .. } => {
                assert!(self.lines.contains_key(&id) && piece < PIECES);
                assert_eq!(key.is_some(), self.is_sealed(piece));
                self.jobs.push_back(command);
            }
            Command::Store { id, piece, ref data, sender, .. } => {
                let line = &self.lines[&id];
                assert_eq!((sender, data.len()), (address(line.slot), self.layout.len_of(piece) as usize));
                assert!(!self.swarm.have().has(piece), "stored a second time");
                let stored =
                    |job: &Command| matches!(job, Command::Store { piece: other, .. } if *other == piece);
                assert!(!self.jobs.iter().any(stored), "stored twice at once");
                for (index, block) in data.chunks(BLOCK as usize).enumerate() {
                    let gave = line.gave.get(&(piece, index as u32 * BLOCK)).expect("it sent that block");
                    assert!(gave.contains(&block[0]) && block.iter().all(|byte| *byte == block[0]));
                }
                self.jobs.push_back(command);
            }
            Command::Discard { piece } => assert!(piece < PIECES && !self.swarm.have().has(piece)),
            Command::FetchWitness { ref pieces, .. } | Command::ConfirmWitness { ref pieces, .. } => {
                assert!(!pieces.is_empty() && pieces.iter().all(|&piece| self.is_sealed(piece)));
                self.jobs.push_back(command);
            }
            Command::Failed { sender } => assert!((0..SLOTS).any(|slot| sender == address(slot))),
            Command::Keep(ticket) => self.check_ticket(&ticket),
            Command::Completed => assert!(self.swarm.have().count() == PIECES),
        }
    }

    /// A stranger is told something.
    fn hear(&mut self, id: ConnectionId, message: Message) {
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        assert_eq!(self.decoder.decode(&mut bytes).as_ref(), Ok(&Some(message.clone())), "it can be read");
        match message {
            Message::Piece { piece, begin, data } => {
                let fill = self.ciphertext(id, piece);
                let line = self.lines.get_mut(&id).expect("a connection");
                let block = Block { piece, begin, len: data.len() as u32 };
                let count =
                    line.wants.get_mut(&block).filter(|count| **count > 0).expect("what it asked for");
                *count -= 1;
                assert!(data.iter().all(|&byte| byte == fill), "a piece made for somebody else");
                line.unwritten += data.len();
            }
            Message::Choke => self.lines.get_mut(&id).expect("a connection").wants.clear(),
            Message::Request(block) => {
                let sealed = self.is_sealed(block.piece);
                let line = self.lines.get_mut(&id).expect("a connection");
                assert!(!line.chokes_us && line.have.has(block.piece), "it can have no answer");
                let checks = |(epoch, piece): &(u64, u32)| {
                    *piece == block.piece && (line.personal.is_some() || *epoch == line.ticket)
                };
                assert!(!sealed || self.witness.iter().any(checks), "it could not be checked");
                assert!(!line.asked.contains(&block), "asked for twice");
                line.asked.push_back(block);
                assert!(line.asked.len() <= REQQ as usize);
                assert!(!self.swarm.have().has(block.piece), "asked for what is there");
            }
            Message::Cancel(block) => {
                let line = self.lines.get_mut(&id).expect("a connection");
                line.asked.retain(|asked| *asked != block);
            }
            Message::Have(piece) => assert!(self.swarm.have().has(piece)),
            Message::Bitfield(bits) => {
                assert!(Bits::from_bytes(&bits).iter().all(|piece| self.swarm.have().has(piece)));
            }
            Message::Extended { id: 0, .. } => assert!(self.lines.contains_key(&id)),
            Message::Extended { id: THEIR_DONT_HAVE, payload } => {
                let piece = dont_have::from_bytes(&payload).expect("it can be read");
                assert!(piece < PIECES && !self.swarm.have().has(piece), "it has not lost it");
                // No answer follows to what was asked before.
                let line = self.lines.get_mut(&id).expect("a connection");
                line.wants.retain(|block, _| block.piece != piece);
            }
            Message::Extended { id: named, payload } => {
                assert_eq!(named, THEIR_SEAL);
                let said =
                    SealMessage::from_bytes(&payload).expect("it can be read").expect("a kind of ours");
                self.hear_seal(id, said);
            }
            _ => assert!(self.lines.contains_key(&id)),
        }
    }

    fn hear_seal(&mut self, id: ConnectionId, message: SealMessage) {
        let (ours, us, epoch) = (self.key.public(), self.us, self.epoch);
        let line = self.lines.get_mut(&id).expect("a connection");
        let they = line.hello.expect("it speaks ss_seal").id(&TORRENT);
        match message {
            SealMessage::Ticket(ticket) => {
                verify(&ours, purpose::TICKET, &ticket.signing_input(), &ticket.signature).expect("our own");
                assert_eq!((ticket.uploader, ticket.downloader, ticket.epoch), (they, us, epoch));
                line.ticket = ticket.epoch;
            }
            SealMessage::Want(pieces) => {
                assert!(pieces.len() <= MAX_WANT && pieces.iter().all(|&piece| line.have.has(piece)));
            }
        }
    }

    /// A ticket that is kept was signed by the subscriber that it names.
    fn check_ticket(&self, ticket: &Ticket) {
        let slot = (0..SLOTS).find(|&slot| subscriber(slot) == ticket.downloader);
        let identity = key(slot.expect("one of the strangers")).public();
        verify(&identity, purpose::TICKET, &ticket.signing_input(), &ticket.signature).expect("its own");
    }

    /// Whatever they do, they cost no more than this.
    fn check_bounds(&self) {
        let swarm = &self.swarm;
        assert!(swarm.connections() <= SLOTS && swarm.connections() <= self.lines.len());
        assert!(self.jobs.len() <= 2 * SLOTS * (PIECES as usize + 66));
        let regular = swarm.connections.values().filter(|it| it.personal.is_none() && it.is_served()).count();
        assert!(regular <= swarm.config.slots + 1, "{regular} are served");
        for (id, connection) in &swarm.connections {
            let slot = self.lines[id].slot;
            assert_eq!(connection.addr, address(slot));
            let (upload, download) = (&connection.upload, &connection.download);
            assert!(upload.requests.len() <= 600 && upload.wanted.len() <= 2 * MAX_WANT);
            assert!(upload.pieces.len() <= 65 && upload.in_flight <= (1 << 20) + BLOCK as usize);
            assert_eq!(upload.in_flight, self.lines[id].unwritten);
            assert!(download.pieces.len() <= PIECES as usize && download.outstanding <= REQQ);
        }
    }
}

/// A stranger says who it is.
fn hello(slot: usize, manner: u8) -> Message {
    let lies = |bit: u8| manner & 7 == bit;
    let hello = match manner & 7 {
        1 => Hello::Subscriber {
            identity: SigningKey::from_bytes(&[1; 32]).public(),
            keys: KeyCommitment([1; 32]),
        },
        2 => Hello::Seed { key: key(slot).public() },
        3 => hello_of(SEED_SLOT),
        _ => hello_of(slot),
    };
    let handshake = ExtendedHandshake {
        seal_id: (!lies(4)).then_some(THEIR_SEAL),
        dont_have_id: (!lies(7)).then_some(THEIR_DONT_HAVE),
        client: "a stranger".to_owned(),
        reqq: u32::from(manner >> 3),
        port: lies(5).then_some(6882),
        hello: (!lies(6)).then_some(hello),
    };
    Message::Extended { id: 0, payload: handshake.to_bytes().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strangers_do_no_harm(script in prop::collection::vec(any::<u8>(), 0..1500)) {
            among_strangers(&script);
        }
    }

    /// Without this, the scripts above might never get beyond a refusal.
    #[test]
    fn a_script_can_tell_of_a_whole_download_and_of_an_upload() {
        let world = play(&whole_story());
        assert_eq!(world.swarm.have().count(), PIECES);
        assert!(world.swarm.totals().from_peers > 0 && world.swarm.totals().sent > 0);
    }

    /// A peer that was complete and loses a piece gives a ticket before it asks for the piece.
    #[test]
    fn a_complete_peer_that_loses_a_piece_asks_with_a_ticket() {
        let world = play(&[2, 0, 0, 0, 2, 0xf8, 5, 9, 0xff, 0xff, 0, 24, 5, 28]);
        let line = &world.lines[&1];
        assert!(line.ticket == world.epoch && line.asked.iter().all(|block| block.piece == 5));
        assert_eq!(line.asked.len(), 2);
    }

    /// The last of the script is a request that passes pieces which were only named. A peer once handed on its own ciphertext then.
    #[test]
    fn a_request_that_passes_others_is_answered_with_the_peers_own_ciphertext() {
        let mut script = vec![2, 0, 0, 0, 2, 0xf8, 14, 0, 6];
        script.extend([30; 60]);
        script.extend([15, 8, 2, 3, 4, 5, 6, 7, 8, 9]);
        script.extend([10, 21, 0, 10, 21, 1, 28, 28, 28, 27]);
        let world = play(&script);
        assert_eq!(world.swarm.totals().sent_pieces, 1);
    }
}
