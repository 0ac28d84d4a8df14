//! Machines wired together in memory, and one machine against arbitrary peers.

mod urgent;
mod witness;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use swarmseal_core::{KeyCommitment, SubscriberId, TorrentId};

use super::*;
use crate::wire::message::{BLOCK, Block};

const PIECE_LEN: u32 = 2 * BLOCK;
const PIECES: u32 = 24;
/// A seed's piece, and one that a peer has from before.
const OURS: u64 = 0;
const HAD: u64 = 1;
const TORRENT: TorrentId = TorrentId([1; 32]);

/// How a peer of the simulation misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    /// Sends pieces that fail the check.
    Garbage,
    /// Takes requests and sends nothing.
    Stalled,
    /// Its disk is full after one piece.
    FullDisk,
    /// Sends pieces that are well formed and not what was published.
    Polluter,
    /// Does so with one piece in so many.
    Subtle(u32),
    /// Its tickets are refused by the tracker.
    Refused,
    /// Its disk has damaged all that it had stored.
    Rotten,
}

struct Peer {
    swarm: Swarm,
    manner: Manner,
    stored: HashMap<u32, Vec<u8>>,
    parted: Vec<Reason>,
    /// Where bad pieces came from.
    failed: Vec<SocketAddr>,
    /// What the tracker says when it is asked again for witness keys: whether they are the same.
    confirms: Result<bool, KeyError>,
    /// Whether the tracker gives witness keys.
    witness: bool,
    witness_calls: u32,
    /// Calls to the tracker for keys.
    key_calls: u32,
}

/// A swarm in memory: every message arrives at once and in order.
struct Simulation {
    peers: Vec<Peer>,
    queue: VecDeque<(usize, Event)>,
    ends: HashMap<(usize, ConnectionId), (usize, ConnectionId)>,
    next: ConnectionId,
    elapsed: Duration,
}

fn key(number: usize) -> SigningKey {
    SigningKey::from_bytes(&[number as u8 + 1; 32])
}

fn hello(number: usize, seed: bool) -> Hello {
    let key = key(number).public();
    if seed {
        Hello::Seed { key }
    } else {
        Hello::Subscriber { identity: key, keys: KeyCommitment([number as u8; 32]) }
    }
}

fn config(number: usize, seed: bool, sealed: bool) -> Config {
    let key = key(number);
    let hello = hello(number, seed);
    let seal = Seal { torrent_id: TORRENT, hello, id: hello.id(&TORRENT), key, epoch: 1 };
    Config {
        layout: Layout::of_whole(PIECES, PIECE_LEN).unwrap(),
        buffers: Buffers::new(PIECE_LEN),
        peer_id: [number as u8; 20],
        seal: sealed.then_some(seal),
        selection: None,
        have: vec![seed.then_some(OURS); PIECES as usize],
        port: None,
        slots: 4,
        personal_slots: 1,
        names_ahead: true,
        super_seed: false,
        ready_bytes: 64 << 20,
        max_connections: 50,
        seed: number as u64,
    }
}

/// What a piece is in an epoch.
fn ciphertext(piece: u32, epoch: u64) -> u8 {
    (piece % 90) as u8 + 100 * (epoch as u8).saturating_sub(1)
}

/// Where a peer of the simulation is: each has a network of its own.
fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number as u8], 1000))
}

fn now(elapsed: Duration) -> Now {
    Now { elapsed, unix: 1_000_000 + elapsed.as_secs() }
}

impl Simulation {
    fn new(configs: impl IntoIterator<Item = (Config, Manner)>) -> Self {
        let peer = |(config, manner)| Peer {
            swarm: Swarm::new(config, now(Duration::ZERO)),
            manner,
            stored: HashMap::new(),
            parted: Vec::new(),
            failed: Vec::new(),
            confirms: Ok(true),
            witness: true,
            witness_calls: 0,
            key_calls: 0,
        };
        let mut simulation = Simulation {
            peers: configs.into_iter().map(peer).collect(),
            queue: VecDeque::new(),
            ends: HashMap::new(),
            next: 0,
            elapsed: Duration::ZERO,
        };
        for a in 0..simulation.peers.len() {
            for b in 0..a {
                simulation.connect(a, b);
            }
        }
        simulation
    }

    /// Peer 0 is the seed.
    fn sealed(manners: &[Manner]) -> Self {
        Self::new(
            manners.iter().enumerate().map(|(number, &manner)| (config(number, number == 0, true), manner)),
        )
    }

    fn connect(&mut self, a: usize, b: usize) {
        let (id_a, id_b) = (self.next, self.next + 1);
        self.next += 2;
        self.ends.insert((a, id_a), (b, id_b));
        self.ends.insert((b, id_b), (a, id_a));
        for (peer, id, other, outgoing) in [(a, id_a, b, true), (b, id_b, a, false)] {
            let (addr, peer_id) = (address(other), [other as u8; 20]);
            self.queue.push_back((
                peer,
                Event::Connected { id, peer_id, addr, outgoing, extended: true, personal: None },
            ));
        }
    }

    /// Ends the connection between two, if there is one.
    fn part(&mut self, a: usize, b: usize) {
        let ends = self.ends.iter().find(|((one, _), (other, _))| (*one, *other) == (a, b));
        if let Some((&(a, id_a), &(b, id_b))) = ends {
            for (number, id) in [(a, id_a), (b, id_b)] {
                self.ends.remove(&(number, id));
                self.queue.push_back((number, Event::Disconnected { id }));
            }
        }
    }

    fn step(&mut self) {
        while let Some((number, event)) = self.queue.pop_front() {
            self.handle(number, event);
        }
        self.elapsed += Duration::from_millis(250);
        for number in 0..self.peers.len() {
            self.handle(number, Event::Tick);
        }
    }

    fn handle(&mut self, number: usize, event: Event) {
        let mut commands = Vec::new();
        self.peers[number].swarm.handle(now(self.elapsed), event, &mut commands);
        commands.into_iter().for_each(|command| self.execute(number, command));
    }

    fn execute(&mut self, number: usize, command: Command) {
        let manner = self.peers[number].manner;
        match command {
            Command::Send { id, message } => {
                let bytes = message.block_bytes();
                if bytes > 0 {
                    self.queue.push_back((number, Event::Sent { id, bytes }));
                }
                if bytes > 0 && manner == Stalled {
                    return;
                }
                if let Some(&(other, id)) = self.ends.get(&(number, id)) {
                    self.queue.push_back((other, Event::Message { id, message }));
                }
            }
            Command::Disconnect { id, reason } => {
                self.peers[number].parted.push(reason);
                if let Some((other, id)) = self.ends.remove(&(number, id)) {
                    self.ends.remove(&(other, id));
                    self.queue.push_back((other, Event::Disconnected { id }));
                }
            }
            Command::FetchKeys { id, claim, pieces, .. } => {
                self.peers[number].key_calls += 1;
                let downloader = self.peers.iter().find(|peer| peer.id() == Some(claim.downloader().0));
                let keys = if downloader.is_none_or(|peer| peer.manner == Refused) {
                    Err(KeyError::TicketRefused("forged".to_owned()))
                } else {
                    Ok(pieces.iter().map(|_| Bytes::from_static(b"key")).collect())
                };
                self.queue.push_back((number, Event::Keys { id, pieces, keys }));
            }
            Command::Prepare { id, piece, to, .. } if manner == Rotten => {
                self.queue
                    .push_back((number, Event::Prepared { id, piece, to, ready: Err(Unready::Damaged) }));
            }
            Command::Prepare { id, piece, to, epoch, .. } => {
                assert_eq!(epoch, self.peers[number].swarm.pieces.epoch(piece));
                let fill = match manner {
                    Garbage => 0xff,
                    Polluter => 0xfe,
                    Subtle(share) if piece.is_multiple_of(share) => 0xfe,
                    _ => ciphertext(piece, to),
                };
                let data = vec![fill; self.peers[number].swarm.piece_len()];
                self.queue.push_back((number, Event::Prepared { id, piece, to, ready: Ok(data.into()) }));
            }
            Command::Store { id, piece, data, sender, epoch, .. } => {
                let peer = &mut self.peers[number];
                let stored = if data[0] == 0xff {
                    Err(StoreFailure::BadPiece)
                } else if data[0] == 0xfe {
                    Err(StoreFailure::Mismatch)
                } else if manner == FullDisk && !peer.stored.is_empty() {
                    Err(StoreFailure::Disk("no space left".to_owned()))
                } else {
                    assert!(data.iter().all(|&byte| byte == ciphertext(piece, epoch)));
                    Ok(())
                };
                if stored.is_ok() {
                    peer.stored.insert(piece, data.to_vec());
                }
                self.queue.push_back((number, Event::Stored { id, piece, sender, stored }));
            }
            Command::FetchWitness { epoch, pieces } => {
                let peer = &mut self.peers[number];
                peer.witness_calls += 1;
                let away = || Err(KeyError::Unavailable("away".to_owned()));
                let keys = if peer.witness { Ok(()) } else { away() };
                self.queue.push_back((number, Event::Witness { epoch, pieces, keys }));
            }
            Command::ConfirmWitness { epoch, pieces } => {
                let same = self.peers[number].confirms.clone().map(|same| vec![same; pieces.len()]);
                self.queue.push_back((number, Event::Confirmed { epoch, pieces, same }));
            }
            Command::Failed { sender } => self.peers[number].failed.push(sender),
            Command::Discard { piece } => drop(self.peers[number].stored.remove(&piece)),
            Command::Keep(ticket) => assert_eq!(ticket.uploader, self.peers[number].id().unwrap()),
            Command::Completed => assert!(self.peers[number].complete()),
        }
    }

    /// Runs until the peers named are complete; the simulated time that it took.
    fn run(&mut self, until: &[usize]) -> Duration {
        while !until.iter().all(|&number| self.peers[number].complete()) {
            assert!(self.elapsed < Duration::from_secs(600), "the swarm does not complete");
            self.step();
        }
        self.elapsed
    }
}

impl Peer {
    fn complete(&self) -> bool {
        self.swarm.have().count() == self.swarm.piece_count()
    }

    fn id(&self) -> Option<SubscriberId> {
        self.swarm.config.seal.as_ref().map(|seal| seal.id)
    }
}

use Manner::{FullDisk, Garbage, Honest, Polluter, Refused, Rotten, Stalled, Subtle};

#[test]
fn another_epoch_begins_in_the_middle_of_everything() {
    let mut mixed = 0;
    for cut in (0..1500).step_by(37) {
        let mut simulation = Simulation::sealed(&[Honest; 4]);
        for _ in 0..cut {
            if let Some((number, event)) = simulation.queue.pop_front() {
                simulation.handle(number, event);
            }
        }
        // Each hears of it when it happens to announce.
        for number in 1..4 {
            simulation.handle(number, Event::Epoch { epoch: 2 });
            for _ in 0..20 {
                if let Some((number, event)) = simulation.queue.pop_front() {
                    simulation.handle(number, event);
                }
            }
        }
        for _ in 0..200 {
            simulation.step();
        }
        for peer in &simulation.peers[1..] {
            assert!(peer.complete(), "cut at {cut}: {} pieces", peer.swarm.have().count());
            let failed = !peer.failed.is_empty() || peer.parted.contains(&Reason::BadPiece);
            assert!(!failed && peer.swarm.totals().rejected == 0, "cut at {cut}: {:?}", peer.parted);
            mixed += u32::from(peer.swarm.moving() > 0 && peer.swarm.moving() < PIECES);
            assert_eq!(peer.swarm.epoch(), 2);
        }
        // What has moved is sent on as what it is.
        for number in 1..4 {
            for piece in 0..PIECES {
                simulation.handle(number, Event::Moved { piece, epoch: 2 });
            }
            assert_eq!(simulation.peers[number].swarm.moving(), 0);
        }
    }
    assert!(mixed > 10, "{mixed}");
}

#[test]
fn what_was_made_for_another_epoch_is_not_sent() {
    let mut machine = Simulation::sealed(&[Honest, Honest]);
    // The seed has pieces ready for the peer when that goes to another epoch with a wish of its own.
    while !machine.peers[0].swarm.connections.values().any(|connection| !connection.upload.pieces.is_empty())
    {
        let (number, event) = machine.queue.pop_front().unwrap();
        machine.handle(number, event);
    }
    machine.handle(1, Event::Epoch { epoch: 2 });
    (0..50).for_each(|_| machine.step());
    assert!(machine.peers[1].complete());
    let late = Event::Prepared { id: 1, piece: 3, to: 1, ready: Ok(Bytes::from_static(b"old")) };
    machine.handle(0, late);
}

#[test]
fn pieces_of_a_retired_epoch_are_fetched_again_and_stay_on_the_disk_until_then() {
    let mut seed = config(0, true, true);
    seed.have = vec![Some(OURS); PIECES as usize];
    let mut peer = config(1, false, true);
    peer.have = vec![Some(HAD); PIECES as usize];
    let mut simulation = Simulation::new([(seed, Honest), (peer, Honest)]);
    simulation.step();
    simulation.handle(1, Event::Epoch { epoch: 2 });
    assert_eq!(simulation.peers[1].swarm.moving(), PIECES);
    simulation.handle(1, Event::Retired { pieces: vec![3, 5] });
    assert_eq!(simulation.peers[1].swarm.have().count(), PIECES - 2);
    // Both were complete, and parted.
    simulation.connect(0, 1);
    (0..50).for_each(|_| simulation.step());
    assert_eq!(simulation.peers[1].stored.keys().copied().collect::<HashSet<_>>(), HashSet::from([3, 5]));
    assert_eq!(simulation.peers[1].swarm.moving(), PIECES - 2);
}

#[test]
fn a_sealed_swarm_completes() {
    let mut simulation = Simulation::sealed(&[Honest; 5]);
    simulation.run(&[1, 2, 3, 4]);
    for _ in 0..20 {
        simulation.step();
    }
    for peer in &simulation.peers[1..] {
        let totals = peer.swarm.totals();
        assert!(totals.from_seeds + totals.from_peers >= u64::from(PIECES * PIECE_LEN));
        assert!(peer.parted.iter().all(|reason| *reason == Reason::Useless), "{:?}", peer.parted);
        assert!(peer.failed.is_empty() && peer.witness_calls == 1, "one call has them all");
    }
    assert_eq!(simulation.peers[0].witness_calls, 0);
    assert!(simulation.peers.iter().all(|peer| peer.swarm.connections() == 0));
}

#[test]
fn a_plain_swarm_completes() {
    let configs = (0..4).map(|number| (config(number, number == 0, false), Honest));
    let mut simulation = Simulation::new(configs);
    simulation.run(&[1, 2, 3]);
    assert!(simulation.peers.iter().all(|peer| peer.witness_calls == 0));
}

#[test]
fn a_super_seed_sends_each_piece_about_once() {
    let configs = (0..5).map(|number| {
        let seed = number == 0;
        (Config { super_seed: seed, ..config(number, seed, true) }, Honest)
    });
    let mut simulation = Simulation::new(configs);
    simulation.run(&[1, 2, 3, 4]);
    let sent = simulation.peers[0].swarm.totals().sent_pieces;
    assert!(simulation.elapsed < Duration::from_secs(9), "{:?}", simulation.elapsed);
    assert!((u64::from(PIECES)..=u64::from(PIECES) * 5 / 4).contains(&sent), "{sent}");
}

#[test]
fn a_super_seed_serves_a_single_peer_whole() {
    let seed = Config { super_seed: true, ..config(0, true, true) };
    Simulation::new([(seed, Honest), (config(1, false, true), Honest)]).run(&[1]);
}

#[test]
fn a_fast_peer_s_keys_are_asked_for_many_at_a_time_from_the_first_second_on() {
    const LONG: u32 = 16 * BLOCK;
    const MANY: u32 = 250;
    let long = |number, seed: bool| Config {
        layout: Layout::of_whole(MANY, LONG).unwrap(),
        buffers: Buffers::new(LONG),
        have: vec![seed.then_some(OURS); MANY as usize],
        ..config(number, seed, true)
    };
    let mut simulation = Simulation::new([(long(0, true), Honest), (long(1, false), Honest)]);
    simulation.step();
    assert_eq!(simulation.peers[1].swarm.have().count(), MANY);
    // Towards the end, nobody has many pieces left to name.
    let calls = simulation.peers[0].key_calls;
    assert!(calls < MANY / 2, "{calls} calls for {MANY} keys");
}

#[test]
fn what_the_disk_damaged_is_not_sent_and_fetched_again() {
    let rotten = Config { have: vec![Some(HAD); PIECES as usize], ..config(1, false, true) };
    let mut simulation = Simulation::new([
        (config(0, true, true), Honest),
        (rotten, Rotten),
        (config(2, false, true), Honest),
    ]);
    simulation.run(&[2]);
    let rejected = simulation.peers[1].swarm.totals().rejected;
    assert!(rejected > 0);
    assert_eq!(simulation.peers[1].swarm.totals().sent, 0);
    simulation.peers[1].manner = Honest;
    // It is taken for complete by those who saw it so.
    for other in [0, 2] {
        simulation.part(1, other);
        simulation.connect(1, other);
    }
    simulation.run(&[1, 2]);
    assert_eq!(simulation.peers[1].stored.len() as u64, rejected);
}

#[test]
fn a_machine_that_slept_blames_no_other_for_its_own_silence() {
    let mut lone = Lone::new();
    lone.connect(1);
    lone.send(1, 0, 1);
    lone.elapsed += Duration::from_secs(120);
    lone.event(Event::Tick);
    assert!(!lone.swarm.connections[&1].download.snubbed);
    lone.wait(32);
    assert!(lone.swarm.connections[&1].download.snubbed);
}

#[test]
fn a_stalled_peer_does_not_hold_pieces_back() {
    let stalled = Config { have: vec![Some(HAD); PIECES as usize], ..config(1, false, true) };
    let mut simulation = Simulation::new([
        (config(0, true, true), Honest),
        (stalled, Stalled),
        (config(2, false, true), Honest),
    ]);
    assert!(simulation.run(&[2]) < Duration::from_secs(60));
}

#[test]
fn a_full_disk_stops_downloading_and_loses_nothing() {
    let mut simulation = Simulation::sealed(&[Honest, FullDisk, Honest]);
    simulation.run(&[2]);
    let full = &simulation.peers[1];
    assert_eq!(full.swarm.failure(), Some("no space left"));
    assert_eq!(full.swarm.have().count(), 1);
    assert_eq!(full.stored.len(), 1);
}

#[test]
fn a_refused_ticket_ends_the_connection() {
    let mut simulation = Simulation::sealed(&[Honest, Refused, Honest]);
    simulation.run(&[2]);
    assert!(simulation.peers[0].parted.contains(&Reason::TicketRefused("forged".to_owned())));
    assert_eq!(simulation.peers[1].swarm.have().count(), 0);
}

#[test]
fn tickets_are_renewed_before_they_end() {
    // Neither has anything, so they stay connected and incomplete.
    let mut simulation =
        Simulation::new([(config(0, false, true), Honest), (config(1, false, true), Honest)]);
    let ticket = |simulation: &Simulation| {
        let connections = &simulation.peers[0].swarm.connections;
        connections
            .values()
            .next()
            .and_then(|connection| connection.upload.ticket.clone())
            .map(|it| it.expires)
    };
    simulation.step();
    assert_eq!(ticket(&simulation), Some(1_003_600));
    for _ in 0..60 {
        simulation.elapsed += Duration::from_secs(60);
        simulation.step();
    }
    assert_eq!(simulation.peers[0].swarm.connections(), 1);
    assert!(ticket(&simulation) > Some(1_005_000));
}

#[test]
fn at_most_the_slots_and_one_are_served() {
    let mut simulation = Simulation::sealed(&[Honest; 12]);
    for _ in 0..200 {
        simulation.step();
        assert!(simulation.peers.iter().all(|peer| peer.swarm.unchoked() <= 5));
    }
    assert!(simulation.peers.iter().all(Peer::complete));
}

/// A complete peer with connections of ordinary clients that want personal torrents; what it says to each.
fn serve_ordinary_clients(count: u64) -> Vec<Command> {
    let mut swarm = Swarm::new(config(0, true, true), now(Duration::ZERO));
    let mut commands = Vec::new();
    for id in 0..count {
        let personal = Some(Personal {
            info_hash: [id as u8; 20],
            subscriber: SubscriberId([40 + id as u8; 32]),
            epoch: 1,
        });
        let addr = SocketAddr::from(([127, 0, 0, 1], 2000 + id as u16));
        let peer_id = [100 + id as u8; 20];
        let connected =
            Event::Connected { id, peer_id, addr, outgoing: false, extended: id % 2 == 0, personal };
        let interested = Event::Message { id, message: Message::Interested };
        let request = Block { piece: 1, begin: 0, len: PIECE_LEN.min(BLOCK) };
        let request = Event::Message { id, message: Message::Request(request) };
        for event in [connected, interested, request] {
            swarm.handle(now(Duration::ZERO), event, &mut commands);
        }
    }
    commands
}

#[test]
fn ordinary_clients_are_served_from_slots_of_their_own() {
    let commands = serve_ordinary_clients(5);
    let sent = |wanted: &dyn Fn(&Message) -> bool| {
        let sent = commands.iter().filter(|command| match command {
            Command::Send { message, .. } => wanted(message),
            _ => false,
        });
        sent.count()
    };
    assert_eq!(sent(&|message| matches!(message, Message::Bitfield(_))), 5);
    assert_eq!(sent(&|message| *message == Message::Unchoke), 1);
    assert_eq!(sent(&|message| *message == Message::Interested), 0);
    let claims: Vec<_> = commands
        .iter()
        .filter_map(|command| match command {
            Command::FetchKeys { id, claim, pieces, .. } => Some((*id, claim.downloader(), pieces.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(claims, [(0, (SubscriberId([40; 32]), 1), vec![1])]);
    assert!(!commands.iter().any(|command| matches!(command, Command::Disconnect { .. })));
}

/// A machine of a plain torrent that lacks one piece, driven by hand.
struct Lone {
    swarm: Swarm,
    elapsed: Duration,
    out: Vec<Command>,
}

const LACKED: u32 = 7;

impl Lone {
    fn new() -> Self {
        let have = (0..PIECES).map(|piece| (piece != LACKED).then_some(OURS)).collect();
        let config = Config { have, ..config(0, false, false) };
        Lone { swarm: Swarm::new(config, now(Duration::ZERO)), elapsed: Duration::ZERO, out: Vec::new() }
    }

    fn event(&mut self, event: Event) {
        self.swarm.handle(now(self.elapsed), event, &mut self.out);
    }

    fn message(&mut self, id: ConnectionId, message: Message) {
        self.event(Event::Message { id, message });
    }

    /// A peer that has everything and lets us ask.
    fn connect(&mut self, id: ConnectionId) {
        let addr = SocketAddr::from(([192, 0, 2, id as u8], 7));
        let peer_id = [100 + id as u8; 20];
        self.event(Event::Connected { id, peer_id, addr, outgoing: true, extended: false, personal: None });
        self.message(id, Message::Bitfield(vec![0xff; 3].into()));
        self.message(id, Message::Unchoke);
    }

    fn wait(&mut self, seconds: u64) {
        // A long time without a tick is one in which the machine slept.
        for _ in 0..seconds {
            self.elapsed += Duration::from_secs(1);
            self.event(Event::Tick);
        }
    }

    fn send(&mut self, id: ConnectionId, block: u32, fill: u8) {
        let data = vec![fill; BLOCK as usize].into();
        self.message(id, Message::Piece { piece: LACKED, begin: block * BLOCK, data });
    }

    /// The blocks that a peer was asked for since the last look, and those taken back.
    fn asked(&mut self, of: ConnectionId) -> (Vec<u32>, Vec<u32>) {
        let (mut requests, mut cancels) = (Vec::new(), Vec::new());
        self.out.retain(|command| match command {
            Command::Send { id, message: Message::Request(block) } if *id == of => {
                requests.push(block.begin / BLOCK);
                false
            }
            Command::Send { id, message: Message::Cancel(block) } if *id == of => {
                cancels.push(block.begin / BLOCK);
                false
            }
            _ => true,
        });
        (requests, cancels)
    }

    /// The piece that goes to the disk: what it is filled with, and its sender.
    fn stored(&mut self) -> (Vec<u8>, ConnectionId, SocketAddr) {
        let place = self.out.iter().position(|command| matches!(command, Command::Store { .. }));
        match self.out.remove(place.expect("a piece to store")) {
            Command::Store { id, data, sender, .. } => {
                let mut fills: Vec<u8> = data.iter().copied().collect();
                fills.dedup();
                (fills, id, sender)
            }
            _ => unreachable!(),
        }
    }

    fn report(&mut self, id: ConnectionId, sender: SocketAddr, stored: Result<(), StoreFailure>) {
        self.event(Event::Stored { id, piece: LACKED, sender, stored });
    }

    fn parted(&mut self) -> Vec<(ConnectionId, Reason)> {
        let parted = self.out.extract_if(.., |command| matches!(command, Command::Disconnect { .. }));
        parted
            .filter_map(|command| match command {
                Command::Disconnect { id, reason } => Some((id, reason)),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn of_two_contributors_the_liar_answers_for_its_piece_in_the_end_game_too() {
    let mut lone = Lone::new();
    lone.connect(1);
    assert_eq!(lone.asked(1), (vec![0, 1], vec![]));
    lone.connect(2);
    assert_eq!(lone.asked(2), (vec![], vec![]), "one of them will do");
    lone.send(1, 0, 1);
    lone.wait(4);
    assert_eq!(lone.asked(2), (vec![0, 1], vec![]), "the end game");
    // The second sends all of it, and nothing of the first's goes in; of which the rest is taken back.
    lone.send(2, 0, 2);
    lone.send(2, 1, 2);
    assert_eq!(lone.asked(1), (vec![], vec![1]));
    let (fills, id, sender) = lone.stored();
    assert_eq!((fills, id, sender), (vec![2], 2, "192.0.2.2:7".parse().unwrap()));
    // What comes all the same is left out.
    lone.send(1, 1, 1);
    lone.report(id, sender, Err(StoreFailure::BadPiece));
    assert_eq!(lone.parted(), [(2, Reason::BadPiece)]);
    // The first begins anew: its block of before is not there any more.
    assert_eq!(lone.asked(1), (vec![0, 1], vec![]));
    let failed =
        |it: &Command| matches!(it, Command::Failed { sender } if sender.ip().to_string() == "192.0.2.2");
    assert_eq!(lone.out.iter().filter(|it| failed(it)).count(), 1);
    lone.send(1, 0, 1);
    lone.send(1, 1, 1);
    let (fills, id, sender) = lone.stored();
    assert_eq!((fills, id), (vec![1], 1));
    lone.report(id, sender, Ok(()));
    assert!(lone.swarm.pieces.complete());
}

#[test]
fn a_full_peer_parts_from_the_connection_that_has_been_least_use() {
    let mut lone = Lone::new();
    let second = Duration::from_secs(1);
    for id in 1..=3 {
        lone.connect(id);
        lone.elapsed += second;
    }
    // What was asked for counts, and nothing else that a peer may say or send.
    lone.send(1, 0, 1);
    lone.elapsed += second;
    lone.send(2, 0, 1);
    lone.message(2, Message::KeepAlive);
    let mut parted = Vec::new();
    for _ in 0..4 {
        lone.event(Event::Crowded);
        parted.extend(lone.parted());
    }
    assert_eq!(parted, [2, 3, 1].map(|id| (id, Reason::LeastUse)));
}

#[test]
fn the_same_peer_id_at_another_address_is_another_peer() {
    let mut lone = Lone::new();
    let mut connect = |id: u64, host: u8, outgoing| {
        let (addr, peer_id) = (SocketAddr::from(([192, 0, 2, host], 1000 + id as u16)), [7; 20]);
        lone.event(Event::Connected { id, peer_id, addr, outgoing, extended: false, personal: None });
        lone.parted()
    };
    assert_eq!(connect(1, 1, true), []);
    assert_eq!(connect(2, 2, false), [], "whichever of them borrowed it");
    assert_eq!(connect(3, 2, false), [(3, Reason::Duplicate)]);
    // Two that connect to each other at once keep one; ours is the smaller id.
    assert_eq!(connect(4, 2, true), [(2, Reason::Duplicate)]);
    assert_eq!(connect(5, 1, false), [(5, Reason::Duplicate)]);
}

#[test]
fn what_one_peer_began_no_other_finishes() {
    // A choke, a snub, a lost connection.
    let ends: [fn(&mut Lone); 3] = [
        |lone| {
            lone.message(1, Message::Choke);
            lone.wait(31);
        },
        |lone| lone.wait(31),
        |lone| lone.event(Event::Disconnected { id: 1 }),
    ];
    for end in ends {
        let mut lone = Lone::new();
        lone.connect(1);
        lone.connect(2);
        lone.send(1, 0, 1);
        end(&mut lone);
        assert_eq!(lone.asked(2).0, [0, 1]);
        lone.send(2, 1, 2);
        lone.send(1, 1, 1);
        lone.send(2, 0, 2);
        let (fills, id, _) = lone.stored();
        assert_eq!((fills, id), (vec![2], 2));
    }
}

#[test]
fn a_sender_that_leaves_before_its_piece_is_checked_answers_for_it_as_well() {
    let mut lone = Lone::new();
    lone.connect(1);
    lone.send(1, 0, 1);
    lone.send(1, 1, 1);
    let (_, id, sender) = lone.stored();
    lone.event(Event::Disconnected { id });
    lone.report(id, sender, Err(StoreFailure::BadPiece));
    assert!(lone.out.iter().any(|it| matches!(it, Command::Failed { sender: failed } if *failed == sender)));
    assert_eq!(sender, "192.0.2.1:7".parse().unwrap());
}

#[test]
fn a_snubbed_peer_that_delivers_gets_another_chance() {
    let mut swarm = Lone { swarm: Swarm::new(config(0, false, false), now(Duration::ZERO)), ..Lone::new() };
    swarm.connect(1);
    let under_way = |lone: &Lone| {
        let download = &lone.swarm.connections[&1].download;
        (download.snubbed, download.pieces.len(), download.pieces.front().map(|incoming| incoming.piece))
    };
    let (snubbed, before, _) = under_way(&swarm);
    assert!(!snubbed && before > 2, "{before}");
    swarm.wait(31);
    swarm.wait(1);
    let (snubbed, count, piece) = under_way(&swarm);
    assert!(snubbed && count == 1);
    let data = vec![1; BLOCK as usize].into();
    swarm.message(1, Message::Piece { piece: piece.unwrap(), begin: 0, data });
    let (snubbed, after, _) = under_way(&swarm);
    assert!(!snubbed && after > 2, "{after}");
}

#[test]
fn newcomers_are_likelier_to_be_served_and_nobody_waits_for_ever() {
    let mut swarm = Swarm::new(Config { slots: 1, ..config(0, true, false) }, now(Duration::ZERO));
    let mut out = Vec::new();
    let join = |swarm: &mut Swarm, id: u64, elapsed: u64, out: &mut Vec<Command>| {
        let addr = SocketAddr::from(([192, 0, 2, 1], 1000 + id as u16));
        let mut peer_id = [1; 20];
        peer_id[..8].copy_from_slice(&id.to_le_bytes());
        let connected =
            Event::Connected { id, peer_id, addr, outgoing: false, extended: false, personal: None };
        for event in [connected, Event::Message { id, message: Message::Interested }] {
            swarm.handle(now(Duration::from_secs(elapsed)), event, out);
        }
    };
    (0..9).for_each(|id| join(&mut swarm, id, 0, &mut out));
    let (mut drawn, mut newcomers, mut last) = (HashSet::new(), 0, None);
    // In each round somebody comes for the one that came three rounds before.
    for round in 1..=300_u64 {
        let newest = 9 + round;
        join(&mut swarm, newest, 30 * round - 1, &mut out);
        if round > 1 {
            swarm.handle(
                now(Duration::from_secs(30 * round - 1)),
                Event::Disconnected { id: newest - 1 },
                &mut out,
            );
        }
        for tick in 0..3 {
            // Nobody falls silent.
            let at = now(Duration::from_secs(30 * round + 10 * tick));
            for id in swarm.ids() {
                swarm.handle(at, Event::Message { id, message: Message::KeepAlive }, &mut out);
            }
            swarm.handle(at, Event::Tick, &mut out);
        }
        let optimistic: Vec<u64> =
            swarm.ids().into_iter().filter(|id| swarm.connections[id].optimistic).collect();
        assert_eq!(optimistic.len(), 1);
        assert_ne!(Some(optimistic[0]), last, "the slot moves on");
        last = Some(optimistic[0]);
        newcomers += u64::from(optimistic[0] == newest);
        drawn.extend(optimistic);
    }
    // One of about nine that wait, with three times the chance of the others: 3 in 11, not 1 in 9.
    assert!((60..110).contains(&newcomers), "{newcomers}");
    assert!((1..9).all(|id| drawn.contains(&id)), "{drawn:?}");
}
