//! Witness keys ahead of need, and who answers for a piece that fails.

use super::*;

fn whole(number: usize) -> Config {
    Config { have: vec![Some(HAD); PIECES as usize], ..config(number, false, true) }
}

/// A seed, a peer that has everything and behaves so, and one that has nothing.
fn among(manner: Manner) -> Simulation {
    Simulation::new([(config(0, true, true), Honest), (whole(1), manner), (config(2, false, true), Honest)])
}

#[test]
fn nothing_is_requested_that_cannot_be_checked() {
    let mut simulation = Simulation::sealed(&[Honest, Honest]);
    simulation.peers[1].witness = false;
    (0..40).for_each(|_| simulation.step());
    assert_eq!(simulation.peers[1].swarm.totals().requested, 0);
    let calls = simulation.peers[1].witness_calls;
    assert!((2..8).contains(&calls), "{calls} calls in ten seconds");
    simulation.peers[1].witness = true;
    simulation.run(&[1]);
}

#[test]
fn no_request_waits_for_a_key_where_one_call_has_them_all() {
    let mut simulation = Simulation::sealed(&[Honest; 4]);
    simulation.run(&[1, 2, 3]);
    for peer in &simulation.peers[1..] {
        let totals = peer.swarm.totals();
        assert_eq!((totals.requested, totals.awaited_key), (u64::from(PIECES), 0));
    }
}

#[test]
fn keys_of_many_pieces_come_in_batches_ahead_of_need() {
    const MANY: u32 = 2000;
    let long = |number, seed: bool| Config {
        layout: Layout::of_whole(MANY, PIECE_LEN).unwrap(),
        have: vec![seed.then_some(OURS); MANY as usize],
        ..config(number, seed, true)
    };
    let mut simulation = Simulation::new([(long(0, true), Honest), (long(1, false), Honest)]);
    simulation.run(&[1]);
    let (totals, calls) = (simulation.peers[1].swarm.totals(), simulation.peers[1].witness_calls);
    assert_eq!(totals.requested, u64::from(MANY));
    assert!(calls <= MANY / 32, "{calls} calls");
}

#[test]
fn garbage_ends_the_connection_and_counts_against_the_address() {
    let mut simulation = among(Garbage);
    simulation.run(&[2]);
    let peer = &simulation.peers[2];
    assert!(peer.parted.contains(&Reason::BadPiece) && peer.swarm.totals().rejected > 0);
    assert!(!peer.failed.is_empty() && peer.failed.iter().all(|sender| *sender == address(1)));
}

#[test]
fn a_failed_check_counts_once_the_key_is_confirmed() {
    let mut simulation = among(Polluter);
    simulation.run(&[2]);
    let peer = &simulation.peers[2];
    assert!(peer.parted.contains(&Reason::BadPiece));
    assert!(!peer.failed.is_empty() && peer.failed.iter().all(|sender| *sender == address(1)));
}

#[test]
fn where_the_tracker_gave_another_key_before_or_the_epoch_has_retired_no_address_is_at_fault() {
    for confirms in [Ok(false), Err(KeyError::Retired)] {
        let mut simulation = among(Subtle(PIECES));
        simulation.peers[2].confirms = confirms;
        // One copy of one piece fails, once.
        while simulation.peers[2].swarm.totals().rejected == 0 && !simulation.peers[2].complete() {
            simulation.step();
        }
        simulation.peers[1].manner = Honest;
        simulation.run(&[2]);
        let peer = &simulation.peers[2];
        assert!(peer.failed.is_empty() && !peer.parted.contains(&Reason::BadPiece), "{:?}", peer.parted);
    }
}

#[test]
fn while_the_tracker_is_away_a_failed_piece_waits_and_the_others_come() {
    let mut simulation = among(Subtle(PIECES));
    simulation.peers[2].confirms = Err(KeyError::Unavailable("away".to_owned()));
    // The seed comes later.
    simulation.part(0, 2);
    (0..80).for_each(|_| simulation.step());
    let peer = &simulation.peers[2];
    assert_eq!(peer.swarm.have().count(), PIECES - 1);
    assert_eq!((peer.swarm.totals().rejected, peer.failed.len()), (1, 0));
    simulation.peers[2].confirms = Ok(true);
    simulation.connect(0, 2);
    simulation.run(&[2]);
    assert_eq!(simulation.peers[2].failed, [address(1)]);
}

#[test]
fn what_failed_by_a_confirmed_key_counts_at_once() {
    let mut simulation = Simulation::new(
        [(config(0, true, true), Honest), (config(1, false, true), Honest)]
            .into_iter()
            .chain((2..5).map(|number| (whole(number), Polluter))),
    );
    // Three polluters first, then the seed: each is found out for itself.
    simulation.part(0, 1);
    (0..400).for_each(|_| simulation.step());
    let failed: HashSet<SocketAddr> = simulation.peers[1].failed.iter().copied().collect();
    assert_eq!(failed, HashSet::from([address(2), address(3), address(4)]));
    assert_eq!(simulation.peers[1].swarm.have().count(), 0);
    simulation.connect(0, 1);
    simulation.run(&[1]);
}

#[test]
fn a_piece_that_failed_from_four_networks_is_left_alone_for_a_while() {
    let mut simulation = Simulation::new(
        [(config(0, false, true), Honest)]
            .into_iter()
            .chain((1..6).map(|number| (whole(number), Subtle(PIECES)))),
    );
    let failed = |simulation: &Simulation| simulation.peers[0].failed.len();
    while failed(&simulation) < 4 {
        assert!(simulation.elapsed < Duration::from_secs(300), "{}", failed(&simulation));
        simulation.step();
    }
    let at = simulation.elapsed;
    while failed(&simulation) < 5 {
        assert!(simulation.elapsed < Duration::from_secs(600));
        simulation.step();
    }
    assert!(simulation.elapsed - at > Duration::from_secs(14), "{:?}", simulation.elapsed - at);
    assert_eq!(simulation.peers[0].swarm.have().count(), PIECES - 1);
}

#[test]
fn a_borrowed_name_shuts_out_nobody() {
    // Number 1 says that it is the seed, with its BEP 3 peer id as well, and sends garbage.
    let impostor = {
        let mut config = whole(1);
        config.peer_id = [0; 20];
        if let Some(seal) = &mut config.seal {
            (seal.hello, seal.id) = (hello(0, true), hello(0, true).id(&TORRENT));
        }
        config
    };
    let mut simulation = Simulation::new([
        (config(0, true, true), Honest),
        (impostor, Garbage),
        (config(2, false, true), Honest),
    ]);
    simulation.run(&[2]);
    let peer = &simulation.peers[2];
    assert!(peer.failed.iter().all(|sender| *sender == address(1)));
    assert_eq!(peer.parted.iter().filter(|reason| **reason == Reason::BadPiece).count(), 1);
}

#[test]
fn who_leaves_before_its_fault_is_confirmed_answers_for_it_all_the_same() {
    let mut simulation = among(Polluter);
    simulation.peers[2].confirms = Err(KeyError::Unavailable("away".to_owned()));
    while simulation.peers[2].swarm.totals().rejected == 0 {
        assert!(simulation.elapsed < Duration::from_secs(60));
        simulation.step();
    }
    simulation.part(1, 2);
    simulation.step();
    assert!(simulation.peers[2].failed.is_empty());
    simulation.peers[2].confirms = Ok(true);
    simulation.run(&[2]);
    let failed = &simulation.peers[2].failed;
    assert!(!failed.is_empty() && failed.iter().all(|sender| *sender == address(1)), "{failed:?}");
}

#[test]
fn a_forged_ticket_ends_the_connection_and_an_expired_one_is_an_honest_mistake() {
    for (forged, expected) in [(true, Reason::BadTicket), (false, Reason::ExpiredTicket)] {
        // Neither has anything, so that they stay connected.
        let mut simulation =
            Simulation::new([(config(0, false, true), Honest), (config(1, false, true), Honest)]);
        simulation.step();
        let (&id, connection) = simulation.peers[0].swarm.connections.iter().next().unwrap();
        let mut ticket = connection.upload.ticket.clone().unwrap();
        ticket.expires = if forged { ticket.expires + 1 } else { 1 };
        if !forged {
            ticket.signature = key(1).sign(crate::wire::identity::purpose::TICKET, &ticket.signing_input());
        }
        let payload = SealMessage::Ticket(Box::new(ticket)).to_bytes().into();
        let message = Message::Extended { id: seal::OUR_ID, payload };
        simulation.handle(0, Event::Message { id, message });
        let seed = &simulation.peers[0];
        assert_eq!(seed.parted.last(), Some(&expected));
        assert_eq!(seed.failed, if forged { vec![address(1)] } else { vec![] });
    }
}

#[test]
fn half_of_the_peers_send_garbage_and_everybody_completes() {
    let honest = (0..6).map(|number| (config(number, number == 0, true), Honest));
    let liars = (6..12).map(|number| (whole(number), if number % 2 == 0 { Garbage } else { Polluter }));
    let mut simulation = Simulation::new(honest.chain(liars));
    simulation.run(&[1, 2, 3, 4, 5]);
    for peer in &simulation.peers[1..6] {
        assert!(peer.failed.iter().all(|sender| (6..12).any(|liar| *sender == address(liar))));
    }
}
