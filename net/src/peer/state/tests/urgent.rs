//! Urgent pieces: first, in order, from the quickest, twice where they are late. Without any, nothing is different.

use super::super::connection::{Outgoing, Stage};
use super::*;

/// A machine that has nothing yet, among peers that have everything.
struct Reader {
    swarm: Swarm,
    elapsed: Duration,
    out: Vec<Command>,
}

impl Reader {
    fn new(seed: u64) -> Self {
        let config = Config { seed, ..config(0, false, false) };
        let config = Config { have: vec![None; PIECES as usize], ..config };
        Reader { swarm: Swarm::new(config, now(Duration::ZERO)), elapsed: Duration::ZERO, out: Vec::new() }
    }

    fn event(&mut self, event: Event) {
        self.swarm.handle(now(self.elapsed), event, &mut self.out);
    }

    fn connect(&mut self, id: ConnectionId) {
        let addr = SocketAddr::from(([192, 0, 2, id as u8], 7));
        let peer_id = [100 + id as u8; 20];
        self.event(Event::Connected { id, peer_id, addr, outgoing: true, extended: false, personal: None });
        self.event(Event::Message { id, message: Message::Bitfield(vec![0xff; 3].into()) });
        self.event(Event::Message { id, message: Message::Unchoke });
    }

    fn urgent(&mut self, pieces: &[u32]) {
        self.event(Event::Urgent { pieces: pieces.to_vec() });
    }

    /// The pieces that peers were asked for since the last look, in order, without those that were taken back.
    fn asked(&mut self) -> Vec<(ConnectionId, u32)> {
        let mut asked = Vec::new();
        for command in self.out.drain(..) {
            match command {
                Command::Send { id, message: Message::Request(block) } => asked.push((id, block)),
                Command::Send { id, message: Message::Cancel(block) } => {
                    asked.retain(|&it| it != (id, block))
                }
                _ => {}
            }
        }
        let mut pieces: Vec<(ConnectionId, u32)> =
            asked.into_iter().map(|(id, block)| (id, block.piece)).collect();
        pieces.dedup();
        pieces
    }

    fn bring(&mut self, id: ConnectionId, piece: u32) {
        for begin in (0..PIECE_LEN).step_by(BLOCK as usize) {
            let data = vec![1; BLOCK as usize].into();
            self.event(Event::Message { id, message: Message::Piece { piece, begin, data } });
        }
    }

    /// A second in which each peer brings so many pieces' worth of bytes, of which none was asked for: rates are known then.
    fn rates(&mut self, of: &[(ConnectionId, u32)]) {
        for &(id, pieces) in of {
            if let Some(connection) = self.swarm.connections.get_mut(&id) {
                connection.down.add((pieces * PIECE_LEN) as usize);
            }
        }
        self.elapsed += Duration::from_secs(1);
        self.event(Event::Tick);
    }
}

#[test]
fn urgent_pieces_are_asked_for_first_and_in_order() {
    for seed in 0..20 {
        let mut reader = Reader::new(seed);
        reader.urgent(&[17, 3, 20]);
        reader.connect(1);
        let asked: Vec<u32> = reader.asked().into_iter().map(|(_, piece)| piece).collect();
        assert_eq!(asked[..3], [17, 3, 20], "{asked:?}");
        assert!(asked.len() > 3, "the others come behind them");
    }
}

#[test]
fn a_seek_takes_back_what_would_hold_it_up_and_asks_at_once() {
    let mut reader = Reader::new(1);
    reader.connect(1);
    // A slow one: what it was asked for takes longer than half a second.
    reader.rates(&[(1, 1)]);
    let before: Vec<u32> = reader.asked().into_iter().map(|(_, piece)| piece).collect();
    assert!(before.len() > 1, "{before:?}");
    let far = (0..PIECES).find(|piece| !before.contains(piece)).unwrap();
    reader.urgent(&[far]);
    let cancels =
        reader.out.iter().filter(|it| matches!(it, Command::Send { message: Message::Cancel(_), .. }));
    assert_eq!(cancels.count(), before.len() * (PIECE_LEN / BLOCK) as usize);
    let request =
        reader.out.iter().position(|it| matches!(it, Command::Send { message: Message::Request(_), .. }));
    assert!(matches!(
        reader.out[request.unwrap()],
        Command::Send { message: Message::Request(block), .. } if block.piece == far
    ));
    // A peer that is quick is not disturbed.
    let mut reader = Reader::new(1);
    reader.connect(1);
    reader.rates(&[(1, 3000)]);
    reader.out.clear();
    let held: Vec<u32> = reader.swarm.connections[&1].download.pieces.iter().map(|held| held.piece).collect();
    let far = (0..PIECES).find(|piece| !held.contains(piece)).unwrap_or(held[held.len() - 1]);
    reader.urgent(&[far]);
    assert!(!reader.out.iter().any(|it| matches!(it, Command::Send { message: Message::Cancel(_), .. })));
    assert_eq!(reader.swarm.connections[&1].download.pieces[0].piece, far);
}

#[test]
fn the_quickest_brings_them() {
    let mut reader = Reader::new(1);
    for id in 1..4 {
        reader.connect(id);
    }
    let held: HashSet<u32> = reader.asked().into_iter().map(|(_, piece)| piece).collect();
    reader.rates(&[(1, 2), (2, 200), (3, 2)]);
    reader.out.clear();
    let free: Vec<u32> = (0..PIECES).filter(|piece| !held.contains(piece)).take(3).collect();
    let free = if free.is_empty() { vec![23, 22, 21] } else { free };
    reader.urgent(&free);
    for piece in free.iter().filter(|piece| !held.contains(piece)) {
        let of = |id| reader.swarm.connections[&id].download.fetches(*piece);
        assert!(of(2) && !of(1) && !of(3), "{piece}");
    }
}

#[test]
fn a_late_one_is_asked_of_a_second_peer_and_of_no_third() {
    let mut reader = Reader::new(1);
    reader.urgent(&[9]);
    reader.connect(1);
    assert_eq!(reader.asked()[0], (1, 9));
    reader.connect(2);
    reader.connect(3);
    reader.asked();
    let fetched_by = |reader: &Reader| {
        let connections = reader.swarm.connections.iter();
        connections.filter(|(_, it)| it.download.fetches(9)).map(|(&id, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(fetched_by(&reader), [1]);
    // Number 1 brings nothing.
    reader.rates(&[(2, 50), (3, 10)]);
    assert_eq!(fetched_by(&reader), [1], "it is not late yet");
    reader.rates(&[(2, 50), (3, 10)]);
    assert_eq!(fetched_by(&reader), [1, 2]);
    reader.rates(&[(2, 50), (3, 10)]);
    assert_eq!(fetched_by(&reader), [1, 2]);
    reader.bring(2, 9);
    assert_eq!(fetched_by(&reader), [0; 0], "the first is told that it came");
}

#[test]
fn what_is_no_piece_is_passed_over() {
    let mut reader = Reader::new(1);
    reader.urgent(&[PIECES, u32::MAX, 4, 4, 5]);
    assert_eq!(reader.swarm.pieces.urgent(), [4, 5]);
    reader.urgent(&(0..5000).collect::<Vec<_>>());
    assert_eq!(reader.swarm.pieces.urgent().len(), PIECES as usize);
    reader.urgent(&[]);
    assert_eq!(reader.swarm.pieces.urgent(), [0; 0]);
}

#[test]
fn without_urgent_pieces_nothing_is_different() {
    let run = |urgent: bool| {
        let mut simulation = Simulation::sealed(&[Honest; 4]);
        let mut sent = Vec::new();
        while !simulation.peers[1..].iter().all(Peer::complete) {
            if urgent {
                (1..4).for_each(|number| simulation.handle(number, Event::Urgent { pieces: Vec::new() }));
            }
            simulation.step();
            sent.push(simulation.peers.iter().map(|peer| peer.swarm.totals().sent).collect::<Vec<_>>());
        }
        sent
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_swarm_in_which_everybody_waits_for_something_completes() {
    let mut simulation = Simulation::sealed(&[Honest; 5]);
    for round in 0.. {
        if simulation.peers[1..].iter().all(Peer::complete) {
            break;
        }
        assert!(round < 500, "the swarm does not complete");
        for number in 1..5 {
            let first = (round * 7 + number as u32 * 5) % PIECES;
            let pieces = (first..PIECES).take(4).collect();
            simulation.handle(number, Event::Urgent { pieces });
        }
        simulation.step();
    }
    assert!(simulation.peers.iter().all(|peer| peer.failed.is_empty()));
}

#[test]
fn a_piece_that_a_player_finds_bad_is_fetched_again() {
    let whole = |number| Config { have: vec![Some(HAD); PIECES as usize], ..config(number, false, true) };
    let senders = (0..3).map(|number| (whole(number), Honest));
    let mut simulation = Simulation::new(senders.chain([(config(3, false, true), Honest)]));
    simulation.run(&[3]);
    simulation.handle(3, Event::FoundBad { piece: 5 });
    assert!(!simulation.peers[3].stored.contains_key(&5), "it is discarded");
    // Complete peers parted.
    (0..3).for_each(|number| simulation.connect(number, 3));
    for _ in 0..40 {
        simulation.step();
    }
    assert!(simulation.peers[3].complete());
    // What is not there is not discarded.
    let rejected = simulation.peers[3].swarm.totals().rejected;
    simulation.peers[3].swarm.pieces.discard(7);
    simulation.handle(3, Event::FoundBad { piece: 7 });
    assert_eq!(simulation.peers[3].swarm.totals().rejected, rejected);
}

#[test]
fn a_peer_that_loses_a_piece_says_so_and_is_told_of_again_once_it_has_come() {
    let whole = |number| Config { have: vec![Some(HAD); PIECES as usize], ..config(number, false, true) };
    // Peer 1 stays, and wants nothing more.
    let mut simulation =
        Simulation::new([(whole(0), Honest), (config(1, false, true), FullDisk), (whole(2), Honest)]);
    while simulation.peers[1].swarm.failure().is_none() {
        simulation.step();
        assert!(simulation.elapsed < Duration::from_secs(60));
    }
    let known = |simulation: &Simulation| {
        let swarm = &simulation.peers[1].swarm;
        let about = swarm.connections.values().find(|it| it.addr == address(0));
        about.map(|it| (it.have.has(5), it.useful, swarm.pieces.availability(5)))
    };
    let lacked = u32::from(!simulation.peers[1].swarm.have().has(5));
    let (there, useful, availability) = known(&simulation).unwrap();
    assert!(there);
    simulation.handle(0, Event::FoundBad { piece: 5 });
    simulation.step();
    assert_eq!(known(&simulation), Some((false, useful - lacked, availability - 1)));
    // Complete peers parted.
    simulation.connect(0, 2);
    while !simulation.peers[0].complete() {
        simulation.step();
        assert!(simulation.elapsed < Duration::from_secs(120));
    }
    simulation.step();
    assert_eq!(known(&simulation), Some((true, useful, availability)));
}

#[test]
fn a_peer_that_loses_pieces_forever_is_left() {
    let mut lone = Lone::new();
    lone.connect(1);
    let lose = |piece: u32| Message::Extended { id: 2, payload: piece.to_be_bytes().to_vec().into() };
    for _ in 0..8 * PIECES {
        lone.message(1, lose(3));
        // What is not there is not lost.
        lone.message(1, lose(3));
        lone.message(1, Message::Have(3));
    }
    assert!(lone.swarm.connections.contains_key(&1));
    lone.message(1, lose(3));
    assert!(!lone.swarm.connections.contains_key(&1));
    assert_eq!(lone.swarm.pieces.availability(3), 0, "nobody has it");
    // Nor is a piece beyond the last, or half a number.
    for payload in [PIECES.to_be_bytes().to_vec(), vec![0; 3]] {
        lone.connect(2);
        lone.message(2, Message::Extended { id: 2, payload: payload.into() });
        assert!(!lone.swarm.connections.contains_key(&2));
    }
}

#[test]
fn a_piece_that_is_asked_for_out_of_turn_is_made_ready_first() {
    let stage = || Stage::Waiting;
    let mut upload = Upload::default();
    upload.pieces.extend((0..40).map(|piece| Outgoing { piece, stage: stage() }));
    upload.pieces[0].stage = Stage::Preparing { to: 1 };
    let request = |upload: &mut Upload, piece| {
        upload.requests.push(Block { piece, begin: 0, len: BLOCK });
        upload.jump(piece, stage(), 64, true);
    };
    let order = |upload: &Upload| upload.pieces.iter().map(|it| it.piece).take(5).collect::<Vec<_>>();
    // In turn: nothing moves.
    (0..3).for_each(|piece| request(&mut upload, piece));
    assert_eq!((order(&upload), upload.hurry), (vec![0, 1, 2, 3, 4], false));
    // Wanted, then asked for early; and never wanted.
    request(&mut upload, 30);
    request(&mut upload, 99);
    assert_eq!((order(&upload), upload.hurry), (vec![0, 1, 2, 30, 99], true));
    assert_eq!(upload.pieces.len(), 41);
}

#[test]
fn what_was_made_ready_and_taken_back_makes_room() {
    let ready = || Stage::Ready { data: Bytes::from_static(b"piece"), sent: 0 };
    let mut upload = Upload::default();
    upload.pieces.extend((0..8).map(|piece| Outgoing { piece, stage: ready() }));
    upload.requests.push(Block { piece: 6, begin: 0, len: BLOCK });
    for piece in [100, 101] {
        upload.requests.push(Block { piece, begin: 0, len: BLOCK });
        upload.jump(piece, Stage::Waiting, 8, false);
        upload.pieces.push_back(Outgoing { piece, stage: Stage::Preparing { to: 1 } });
    }
    // Number 6 is asked for.
    let order: Vec<u32> = upload.pieces.iter().map(|it| it.piece).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 6, 100, 101]);
}

#[test]
fn a_seek_while_everything_else_is_made_ready_is_answered() {
    let wide = |number, seed| Config { ready_bytes: 3 * PIECE_LEN as usize, ..config(number, seed, true) };
    let mut simulation = Simulation::new([(wide(0, true), Honest), (wide(1, false), Honest)]);
    // The seed's disk is slow: whatever it may make ready at a time is under way.
    let mut held = Vec::new();
    let mut run = |simulation: &mut Simulation, hold: bool| {
        while let Some((number, event)) = simulation.queue.pop_front() {
            match event {
                Event::Prepared { .. } if hold => held.push((number, event)),
                event => simulation.handle(number, event),
            }
        }
        let released = if hold { 0 } else { held.len() };
        simulation.queue.extend(held.drain(..released));
    };
    run(&mut simulation, true);
    let making = |simulation: &Simulation| {
        let upload = &simulation.peers[0].swarm.connections.values().next().unwrap().upload;
        upload.pieces.iter().filter(|it| it.stage.heavy()).map(|it| it.piece).collect::<Vec<_>>()
    };
    let under_way = making(&simulation);
    assert_eq!(under_way.len(), 3);
    let far = (0..PIECES).find(|piece| !under_way.contains(piece)).unwrap();
    // What was asked for is taken back.
    let id = *simulation.peers[1].swarm.connections.keys().next().unwrap();
    simulation.peers[1].swarm.release_pieces(id, true);
    simulation.handle(1, Event::Urgent { pieces: vec![far] });
    run(&mut simulation, true);
    assert_eq!(making(&simulation), under_way);
    for _ in 0..8 {
        run(&mut simulation, false);
    }
    assert!(simulation.peers[1].swarm.have().has(far));
}

#[test]
fn many_seeks_leave_no_uploader_stuck() {
    let count = 400;
    let wide = |number, seed: bool| Config {
        layout: Layout::of_whole(count, PIECE_LEN).unwrap(),
        have: vec![seed.then_some(OURS); count as usize],
        ..config(number, seed, true)
    };
    let mut simulation = Simulation::new([(wide(0, true), Honest), (wide(1, false), Honest)]);
    for seek in 0..150 {
        let at = (seek * 61) % count;
        simulation.handle(1, Event::Urgent { pieces: vec![at] });
        // Requests are taken back while their pieces are made ready.
        for _ in 0..9 {
            if let Some((number, event)) = simulation.queue.pop_front() {
                simulation.handle(number, event);
            }
        }
    }
    let last = (0..count).find(|&piece| !simulation.peers[1].swarm.have().has(piece)).unwrap();
    simulation.handle(1, Event::Urgent { pieces: vec![last] });
    for _ in 0..12 {
        simulation.step();
    }
    assert!(simulation.peers[1].swarm.have().has(last));
}
