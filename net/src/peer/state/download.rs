//! Fetching: which piece from whom, tickets given, blocks taken in, statements checked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use swarmseal_core::{SubscriberId, Ticket};

use super::connection::{Connection, Incoming, Stated};
use super::{Command, ConnectionId, Evidence, Reason, Sender, StoreFailure, Swarm};
use crate::peer::store::NOT_ENCRYPTED;
use crate::wire::dont_have;
use crate::wire::identity::purpose;
use crate::wire::message::{BLOCK, Message};
use crate::wire::seal::{MAX_WANT, SealMessage, Statement};

/// How long a ticket serves, and how long before its end it is renewed.
const TICKET_SECONDS: u64 = 3600;
const TICKET_MARGIN: u64 = 600;
/// Nothing came for this long although we asked: the pieces are given to others.
const SNUB: Duration = Duration::from_secs(30);
/// Requests without an answer at least, however slow the peer.
const MIN_DEPTH: u64 = 32;
/// Requests beyond those, at most, before the rate is known: more than that is no longer in the processor's caches when it
/// comes through loopback.
const MAX_RAMP: u64 = 96;
/// How much time's worth of pieces a peer is told of in advance.
const AHEAD_SECONDS: u64 = 2;
/// A peer is told of more pieces once it has sent this part of those that it was told of.
const WANT_SHARE: usize = 16;
/// Bytes that may wait for the disk before nothing more is asked for.
const MAX_STORING: usize = 64 << 20;
/// Blocks that we took back may still come; more than that was never asked for.
const MAX_UNSOLICITED: usize = 16 << 20;
/// Pieces without a statement that we take from one peer.
const MAX_UNSTATED: usize = 2048;
/// A piece that somebody has been fetching for this long is fetched twice, once nothing else is left.
const END_GAME: Duration = Duration::from_secs(3);
/// For this long after a bad copy a piece waits for another sender than those of bad ones.
const AVOID: Duration = Duration::from_secs(20);
/// Senders of bad copies of one piece that are remembered.
const MAX_AVOIDED: usize = 256;
/// Pieces that are not what was published which we take from one peer.
const MAX_WRONG: u32 = 3;
/// Seconds by which a statement's time may be off.
const MAX_SKEW: u64 = 600;
/// A piece that nobody vouches for, and that nobody else has, is handed on after this long all the same.
const ORPHANED: Duration = Duration::from_secs(60);

/// Bad copies of a piece.
#[derive(Debug, Default)]
pub(super) struct Avoided {
    /// Who sent them, and did not say since that they lost theirs.
    pub(super) senders: HashSet<SubscriberId>,
    /// When the last one was found to be bad.
    last: Duration,
}

/// Whether a peer sent a bad copy of a piece, so that it is not asked for another. It is, once nobody else has the piece.
pub(super) fn avoided(
    avoid: &HashMap<u32, Avoided>,
    connections: &BTreeMap<ConnectionId, Connection>,
    now: Duration,
    connection: &Connection,
    piece: u32,
) -> bool {
    let Some(avoided) = avoid.get(&piece) else { return false };
    let avoids = |other: &Connection| other.subscriber().is_some_and(|id| avoided.senders.contains(&id));
    let waited = now.saturating_sub(avoided.last) > AVOID;
    avoids(connection)
        && !(waited && connections.values().all(|other| !other.have.has(piece) || avoids(other)))
}

impl Swarm {
    /// Gives the peer a ticket if we may want something from it and it has none that lasts.
    pub(super) fn renew_ticket(&mut self, id: ConnectionId) {
        if self.pieces.complete() {
            return;
        }
        let Some((parties, _)) = self.parties(id, false) else { return };
        let (Some(seal), Some(connection)) = (&self.config.seal, self.connections.get_mut(&id)) else {
            return;
        };
        let download = &mut connection.download;
        let moves = download.epoch != seal.epoch;
        if moves && !download.pieces.is_empty() {
            // Those are of the old one still.
            return;
        }
        if !connection.ready || (!moves && download.ticket_expires > self.now.unix + TICKET_MARGIN) {
            return;
        }
        if moves && download.recalled {
            return self.disconnect(id, Reason::EpochLeft);
        }
        download.epoch = seal.epoch;
        let mut ticket = Ticket {
            torrent_id: parties.torrent_id,
            uploader: parties.uploader,
            downloader: parties.downloader,
            epoch: seal.epoch,
            expires: self.now.unix + TICKET_SECONDS,
            signature: [0; 64],
        };
        ticket.signature = seal.key.sign(purpose::TICKET, &ticket.signing_input());
        download.ticket_expires = ticket.expires;
        self.send_seal(id, &SealMessage::Ticket(Box::new(ticket)));
    }

    pub(super) fn download_all(&mut self) {
        for id in self.ids() {
            self.download_from(id);
        }
    }

    /// Assigns pieces to the peer and asks for blocks, as many as its rate deserves.
    pub(super) fn download_from(&mut self, id: ConnectionId) {
        let (layout, block) = (self.config.layout, u64::from(BLOCK));
        for other in self.assign_urgent() {
            if other != id {
                self.download_from(other);
            }
        }
        let Some(connection) = self.connections.get(&id) else { return };
        if !self.may_ask(connection) {
            return;
        }
        let download = &connection.download;
        let (rate, snubbed) = (connection.down.per_second(), download.snubbed);
        let ramp = u64::from(download.ramp.unwrap_or(0)).min(MAX_RAMP);
        let under_way = rate as f64 * download.probe.turn().as_secs_f64() / block as f64;
        let depth = (under_way as u64).max(MIN_DEPTH + ramp).min(u64::from(connection.reqq)) as u32;
        let rate = if rate == 0 { download.first_rate(self.now.elapsed) } else { rate };
        let depth = self.depth_for_urgent(depth, rate);
        let blocks_ahead = u64::from(depth).max(AHEAD_SECONDS * rate / block);
        let fair_share = u64::from(self.pieces.missing() / 4).max(2);
        let ahead =
            if snubbed { 1 } else { (blocks_ahead * block).div_ceil(u64::from(layout.piece_len())) + 1 };
        let ahead = ahead.min(fair_share).min(MAX_WANT as u64) as usize;

        // A fast peer is told of many at once: each message that names a few costs it a call to the tracker.
        let room = ahead.saturating_sub(download.pieces.len());
        let ahead = if room > ahead / WANT_SHARE { ahead } else { 0 };

        let mut wanted = Vec::new();
        // What is assigned now would be of an epoch that we leave: first comes what is under way, then another ticket.
        let leaving = connection.hello.is_some() && connection.download.epoch != self.epoch();
        while !leaving
            && self.connections.get(&id).is_some_and(|connection| connection.download.pieces.len() < ahead)
        {
            let Some(piece) = self.pick_for(id) else { break };
            self.pieces.assign(piece);
            let incoming = Incoming::new(piece, layout.len_of(piece), self.now.elapsed);
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.download.stated.remove(&piece);
                connection.download.pieces.push_back(incoming);
            }
            wanted.push(piece);
        }
        let told = self.connections.get(&id).is_some_and(|connection| connection.hello.is_some());
        // Clear ones among them: the other makes as many ready as it has room for, and in this order.
        if told && self.config.names_ahead && !wanted.is_empty() {
            self.send_seal(id, &SealMessage::Want(wanted));
        }
        self.request_blocks(id, depth);
    }

    /// Whether a peer may be asked for something now.
    pub(super) fn may_ask(&self, connection: &Connection) -> bool {
        !connection.choked_by_it
            && connection.interested_in_it
            && self.storing_bytes <= MAX_STORING
            && connection.download.unstated.len() < MAX_UNSTATED
    }

    fn request_blocks(&mut self, id: ConnectionId, depth: u32) {
        let now = self.now.elapsed;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let download = &mut connection.download;
        let idle = download.outstanding == 0;
        'full: for incoming in &mut download.pieces {
            loop {
                if download.outstanding >= depth {
                    break 'full;
                }
                let Some(block) = incoming.request() else { break };
                download.outstanding += 1;
                download.probe.asked(block, now);
                connection.last_sent = now;
                self.out.push(Command::Send { id, message: Message::Request(block) });
            }
        }
        if idle {
            // The clock that tells a snub starts with the first request.
            download.last_data = now;
        }
    }

    fn pick_for(&mut self, id: ConnectionId) -> Option<u32> {
        let connection = self.connections.get(&id)?;
        let allowed =
            |piece: u32| !avoided(&self.avoid, &self.connections, self.now.elapsed, connection, piece);
        if let Some(piece) = self.pieces.pick(&connection.have, &mut self.random, allowed) {
            return Some(piece);
        }
        let late = |piece: u32| {
            self.connections.iter().any(|(&other, connection)| {
                other != id
                    && connection.download.pieces.iter().any(|incoming| {
                        incoming.piece == piece && self.now.elapsed.saturating_sub(incoming.since) > END_GAME
                    })
            })
        };
        // One piece at a time in the end game, and none from a peer that let us down.
        if connection.download.snubbed || !connection.download.pieces.is_empty() {
            return None;
        }
        self.pieces.pick_again(&connection.have, &mut self.random, |piece| allowed(piece) && late(piece))
    }

    /// A block came.
    pub(super) fn block(
        &mut self,
        id: ConnectionId,
        piece: u32,
        begin: u32,
        data: &[u8],
    ) -> Result<(), Reason> {
        let now = self.now.elapsed;
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let download = &mut connection.download;
        connection.down.add(data.len());
        let place = download.pieces.iter().position(|incoming| incoming.piece == piece);
        let Some(place) =
            place.filter(|&place| download.pieces[place].receive(begin, data, &self.config.buffers))
        else {
            download.unsolicited += data.len();
            return if download.unsolicited > MAX_UNSOLICITED {
                Err(Reason::Protocol("blocks that nobody asked for"))
            } else {
                Ok(())
            };
        };
        download.outstanding -= 1;
        download.probe.came(piece, begin, now);
        download.ramp = download.ramp.map(|ramp| ramp.saturating_add(1));
        download.first_data.get_or_insert(now);
        download.unsolicited = 0;
        download.last_data = now;
        download.snubbed = false;
        download.bytes += data.len() as u64;
        let received =
            if connection.original { &mut self.totals.from_seeds } else { &mut self.totals.from_peers };
        *received += data.len() as u64;
        if download.pieces[place].whole()
            && let Some(incoming) = download.pieces.remove(place)
        {
            let (id_of, peer_id, addr) = (connection.subscriber(), connection.peer_id, connection.addr);
            let sender = Sender { id: id_of, peer_id, addr, original: connection.original };
            self.received(id, incoming, sender);
            self.renew_ticket(id);
        }
        self.download_from(id);
        Ok(())
    }

    fn received(&mut self, id: ConnectionId, incoming: Incoming, sender: Sender) {
        let piece = incoming.piece;
        self.pieces.release(piece);
        if self.pieces.storing(piece) || self.pieces.have().has(piece) {
            return;
        }
        let Some(data) = incoming.into_data() else { return };
        self.pieces.set_storing(piece, true);
        self.storing_bytes += self.piece_len();
        let connection = self.connections.get(&id);
        let clear = self.sealed() && !self.is_sealed(piece);
        let from = connection.and_then(|connection| connection.personal).filter(|_| !clear);
        // An ordinary client's is made ours when it has come.
        let sent = connection.filter(|_| from.is_none()).map(|connection| connection.download.epoch);
        let epoch = if clear { NOT_ENCRYPTED } else { sent.unwrap_or_else(|| self.epoch()) };
        self.storing_epochs.insert(piece, epoch);
        self.out.push(Command::Store { id, piece, data, sender, epoch, from });
        self.cancel_elsewhere(piece);
    }

    /// The end game is over for this piece.
    fn cancel_elsewhere(&mut self, piece: u32) {
        for id in self.ids() {
            self.take_back(id, piece);
        }
    }

    /// The peer is not asked for this piece any more. Whether it was.
    pub(super) fn take_back(&mut self, id: ConnectionId, piece: u32) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let download = &mut connection.download;
        let place = download.pieces.iter().position(|incoming| incoming.piece == piece);
        let Some(incoming) = place.and_then(|place| download.pieces.remove(place)) else { return false };
        self.pieces.release(piece);
        for block in incoming.requested() {
            download.outstanding -= 1;
            download.recalled |= self.config.is_sealed(piece);
            self.out.push(Command::Send { id, message: Message::Cancel(block) });
        }
        true
    }

    pub(super) fn stored(
        &mut self,
        id: ConnectionId,
        piece: u32,
        sender: Sender,
        stored: Result<[u8; 32], StoreFailure>,
    ) {
        self.pieces.set_storing(piece, false);
        self.storing_bytes = self.storing_bytes.saturating_sub(self.piece_len());
        let epoch = self.storing_epochs.remove(&piece).unwrap_or_else(|| self.epoch());
        match stored {
            Ok(hash) => self.have_piece(id, piece, epoch, hash),
            Err(StoreFailure::BadPiece) => {
                self.totals.rejected += 1;
                // Though it may have left meanwhile.
                self.ban(sender.id, sender.peer_id);
                self.disconnect(id, Reason::BadPiece);
                self.download_all();
            }
            Err(StoreFailure::WrongHash) => self.wrong_hash(id, piece, sender.id),
            Err(StoreFailure::NoKey) => self.no_key(id, piece, sender.id),
            Err(StoreFailure::Disk(error)) => self.stop_downloading(error),
        }
    }

    /// The piece is fetched from somebody else if there is anybody. Nobody is banned for it: who sent it may have no cipher hashes, or
    /// none yet, and been deceived itself. Where we have them it is left after a few such pieces, and elsewhere once most of what it has is
    /// of no use.
    fn wrong_hash(&mut self, id: ConnectionId, piece: u32, sender: Option<SubscriberId>) {
        self.totals.rejected += 1;
        self.avoid(piece, sender);
        if let Some(connection) = self.connections.get_mut(&id) {
            let download = &mut connection.download;
            download.wrong += 1;
            let (many, most) =
                (download.wrong >= MAX_WRONG, u64::from(download.wrong) > download.piece_count);
            if many && (most || self.hashed) {
                self.disconnect(id, Reason::WrongPieces);
            }
        }
        self.download_all();
    }

    /// An ordinary client has left, or the tracker cannot be reached: the piece is fetched from somebody else.
    fn no_key(&mut self, id: ConnectionId, piece: u32, sender: Option<SubscriberId>) {
        self.avoid(piece, sender);
        self.disconnect(id, Reason::NoKey);
        self.download_all();
    }

    /// Somebody sent a bad copy of a piece.
    pub(super) fn avoid(&mut self, piece: u32, sender: Option<SubscriberId>) {
        let avoided = self.avoid.entry(piece).or_default();
        avoided.last = self.now.elapsed;
        if avoided.senders.len() < MAX_AVOIDED {
            avoided.senders.extend(sender);
        }
    }

    /// A stored piece is bad, though nothing that came with it said so: it is fetched again, from others than those who sent it if there
    /// is anybody.
    pub(super) fn found_bad(&mut self, piece: u32, senders: &[SubscriberId]) {
        if self.pieces.have().has(piece) {
            self.totals.rejected += 1;
            senders.iter().for_each(|&sender| self.avoid(piece, Some(sender)));
            self.lose_piece(piece);
            self.download_all();
        }
    }

    fn have_piece(&mut self, id: ConnectionId, piece: u32, epoch: u64, hash: [u8; 32]) {
        self.pieces.stored(piece, epoch);
        self.avoid.remove(&piece);
        let now = self.now.elapsed;
        // An ordinary client's piece was stored because its hash is known, and so was a clear one.
        let sealed = self.is_sealed(piece);
        let mut vouched = (!sealed || self.hashed).then_some(0);
        let mut lied = false;
        match self.connections.get_mut(&id) {
            Some(connection) => {
                connection.download.piece_count += u64::from(sealed || self.config.seal.is_none());
                if connection.hello.is_some() && sealed {
                    match connection.download.stated.remove(&piece) {
                        Some(stated) if stated.hash != hash || stated.epoch != epoch => lied = true,
                        Some(stated) => vouched = Some(stated.time),
                        None => connection.download.await_statement(piece, (epoch, hash), now),
                    }
                }
            }
            None if vouched.is_none() => drop(self.orphans.insert(piece, now)),
            None => {}
        }
        let complete = self.pieces.complete();
        for other in self.ids() {
            let Some(connection) = self.connections.get_mut(&other) else { continue };
            connection.useful -= u32::from(connection.have.has(piece));
            self.update_interest(other);
        }
        if lied {
            return self.false_statement(id, piece);
        }
        if let Some(time) = vouched {
            self.vouch(piece, time);
        }
        if complete {
            self.out.push(Command::Completed);
            self.ids().into_iter().for_each(|other| self.part_if_useless(other));
        } else {
            self.download_all_idle();
        }
        self.fill_slots();
    }

    /// The piece may be handed on.
    fn vouch(&mut self, piece: u32, time: u64) {
        self.orphans.remove(&piece);
        self.pieces.vouch(piece, time);
        self.ids().into_iter().for_each(|id| self.send(id, Message::Have(piece)));
    }

    /// Every stored piece is what its cipher hash says.
    pub(super) fn vouch_for_hashed(&mut self) {
        let unvouched = |piece: &u32| !self.pieces.vouched().has(*piece);
        let pieces: Vec<u32> = self.pieces.have().iter().filter(unvouched).collect();
        pieces.into_iter().for_each(|piece| self.vouch(piece, 0));
    }

    /// Pieces whose senders left before they stated them are fetched from somebody else, if there is anybody: if they are bad,
    /// whoever hands them on is to blame.
    pub(super) fn tend_orphans(&mut self) {
        let mut lost = false;
        let orphans: Vec<(u32, Duration)> =
            self.orphans.iter().map(|(&piece, &since)| (piece, since)).collect();
        for (piece, since) in orphans {
            if !self.pieces.have().has(piece) {
                self.orphans.remove(&piece);
            } else if self.pieces.availability(piece) > 0 && self.failure.is_none() {
                self.lose_piece(piece);
                lost = true;
            } else if self.now.elapsed.saturating_sub(since) > ORPHANED {
                self.vouch(piece, 0);
            }
        }
        if lost {
            self.download_all();
        }
    }

    /// Peers that had to wait for the disk, or for a piece to be free.
    pub(super) fn download_all_idle(&mut self) {
        for id in self.ids() {
            if self.connections.get(&id).is_some_and(|connection| connection.download.outstanding == 0) {
                self.download_from(id);
            }
        }
    }

    fn false_statement(&mut self, id: ConnectionId, piece: u32) {
        self.totals.rejected += 1;
        self.lose_piece(piece);
        self.disconnect(id, Reason::FalseStatement);
        self.download_all();
    }

    /// Pieces that cannot be handed on any more are fetched again. Until then they stay on the disk: a license may open them.
    pub(super) fn retired(&mut self, pieces: &[u32]) {
        for &piece in pieces {
            if self.pieces.have().has(piece) && self.pieces.epoch(piece) != self.epoch() {
                self.miss_piece(piece);
            }
        }
        self.ids().into_iter().for_each(|id| self.renew_ticket(id));
        self.download_all();
    }

    pub(super) fn lose_piece(&mut self, piece: u32) {
        self.out.push(Command::Discard { piece });
        self.miss_piece(piece);
    }

    fn miss_piece(&mut self, piece: u32) {
        self.take_back_word(piece);
        self.pieces.discard(piece);
        self.orphans.remove(&piece);
        for id in self.ids() {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.useful += u32::from(connection.have.has(piece));
                self.update_interest(id);
            }
        }
    }

    /// Whoever was told that we have a piece is told that we lost it, and need not ask in vain. What was sent of it is stated first: a
    /// statement that comes later is about another copy.
    fn take_back_word(&mut self, piece: u32) {
        for id in self.ids() {
            let told = self.may_send(id, piece);
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.upload.withdraw(piece, self.now.elapsed);
            let dont_have_id = connection.dont_have_id.filter(|_| told);
            self.state_uploads(id);
            if let Some(dont_have_id) = dont_have_id {
                let payload = Bytes::copy_from_slice(&dont_have::to_bytes(piece));
                self.send(id, Message::Extended { id: dont_have_id, payload });
            }
        }
    }

    fn stop_downloading(&mut self, error: String) {
        self.failure.get_or_insert(error);
        for id in self.ids() {
            self.release_pieces(id, true);
            self.update_interest(id);
        }
    }

    /// The peer chokes us: it forgot our requests. Pieces of which something came stay with it.
    pub(super) fn choked(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let download = &mut connection.download;
        download.outstanding = 0;
        download.pieces.retain_mut(|incoming| {
            let keep = incoming.forget_requests();
            if !keep {
                self.pieces.release(incoming.piece);
            }
            keep
        });
        self.download_all_idle();
    }

    /// Takes all pieces back from a connection; with `cancel`, tells the peer.
    pub(super) fn release_pieces(&mut self, id: ConnectionId, cancel: bool) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.download.outstanding = 0;
        for incoming in std::mem::take(&mut connection.download.pieces) {
            self.pieces.release(incoming.piece);
            for block in incoming.requested().filter(|_| cancel) {
                connection.download.recalled |= self.config.is_sealed(incoming.piece);
                self.out.push(Command::Send { id, message: Message::Cancel(block) });
            }
        }
    }

    pub(super) fn check_snubbed(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let download = &mut connection.download;
        let silent = self.now.elapsed.saturating_sub(download.last_data) > SNUB;
        if silent && !download.pieces.is_empty() {
            download.snubbed = true;
            download.ramp = None;
            download.last_data = self.now.elapsed;
            self.release_pieces(id, true);
            // The others first.
            for other in self.ids().into_iter().filter(|&other| other != id) {
                self.download_from(other);
            }
        }
    }

    pub(super) fn statement(&mut self, id: ConnectionId, statement: Box<Statement>) -> Result<(), Reason> {
        let Some((parties, hello)) = self.parties(id, false) else { return Ok(()) };
        statement.verify(&hello.identity, &parties).map_err(|_| Reason::BadSignature)?;
        let skew = statement.time.abs_diff(self.now.unix);
        if skew > MAX_SKEW {
            return Err(Reason::WrongTime(skew));
        }
        let (mut false_piece, mut vouched, mut about) = (None, Vec::new(), false);
        for entry in &statement.entries {
            let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
            let download = &mut connection.download;
            match download.unstated.remove(&entry.piece) {
                Some(unstated) if unstated.hash != entry.hash || unstated.epoch != statement.epoch => {
                    false_piece = Some(entry.piece);
                    break;
                }
                Some(_) => vouched.push(entry.piece),
                // Nothing is to be stated of a clear piece.
                None if !self.config.is_sealed(entry.piece) => {}
                None if self.pieces.storing(entry.piece) || download.fetches(entry.piece) => {
                    let (epoch, time) = (statement.epoch, statement.time);
                    download.stated.insert(entry.piece, Stated { epoch, hash: entry.hash, time });
                    about = true;
                }
                // Not taken: an end-game copy.
                None => {}
            }
        }
        let time = statement.time;
        // What is about nothing that came is not worth its place on the disk.
        if about || !vouched.is_empty() {
            self.out.push(Command::Keep(Evidence::Statement(parties, statement)));
        }
        vouched.retain(|&piece| self.pieces.have().has(piece));
        vouched.into_iter().for_each(|piece| self.vouch(piece, time));
        match false_piece {
            Some(piece) => self.false_statement(id, piece),
            None => self.part_if_useless(id),
        }
        Ok(())
    }
}
