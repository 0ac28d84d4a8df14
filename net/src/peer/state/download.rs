//! Fetching: which piece from whom, tickets given, blocks taken in.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use swarmseal_core::Ticket;

use super::connection::{Connection, Incoming};
use super::random::Random;
use super::{Command, ConnectionId, Reason, StoreFailure, Swarm};
use crate::peer::store::NOT_ENCRYPTED;
use crate::wire::dont_have;
use crate::wire::identity::purpose;
use crate::wire::message::{BLOCK, Message};
use crate::wire::seal::{MAX_WANT, SealMessage};

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
const AHEAD_SECONDS: u64 = 30;
/// A peer is told of more pieces once it has sent this part of those that it was told of.
const WANT_SHARE: usize = 16;
/// Bytes that may wait for the disk before nothing more is asked for.
const MAX_STORING: usize = 64 << 20;
/// Blocks that we took back may still come; more than that was never asked for.
const MAX_UNSOLICITED: usize = 16 << 20;
/// A piece that somebody has been fetching for this long is fetched twice, once nothing else is left.
const END_GAME: Duration = Duration::from_secs(3);

impl Swarm {
    /// Gives the peer a ticket if we may want something from it and it has none that lasts.
    pub(super) fn renew_ticket(&mut self, id: ConnectionId) {
        if self.pieces.complete() {
            return;
        }
        let (Some(seal), Some(connection)) = (&self.config.seal, self.connections.get_mut(&id)) else {
            return;
        };
        let Some((_, uploader)) = connection.hello else { return };
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
            torrent_id: seal.torrent_id,
            uploader,
            downloader: seal.id,
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
            self.totals.requested += 1;
            let incoming = Incoming::new(piece, layout.len_of(piece), self.now.elapsed);
            if let Some(connection) = self.connections.get_mut(&id) {
                self.totals.awaited_key += u64::from(std::mem::take(&mut connection.download.awaits_key));
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
        !connection.choked_by_it && connection.interested_in_it && self.storing_bytes <= MAX_STORING
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
        let mut random = Random::new(self.random.next());
        let allowed = |piece: u32| !self.avoids(id, piece) && self.can_check(piece);
        if let Some(piece) = self.pieces.pick(&connection.have, &mut random, allowed) {
            return Some(piece);
        }
        if self.pieces.pick(&connection.have, &mut random, |piece| self.awaits_key(id, piece)).is_some() {
            self.fetch_witness_for(id);
            return None;
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
        self.pieces.pick_again(&connection.have, &mut random, |piece| allowed(piece) && late(piece))
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
        connection.last_use = now;
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
            let sender = connection.addr;
            self.received(id, incoming, sender);
            self.renew_ticket(id);
        }
        self.download_from(id);
        Ok(())
    }

    fn received(&mut self, id: ConnectionId, incoming: Incoming, sender: SocketAddr) {
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
        sender: SocketAddr,
        stored: Result<(), StoreFailure>,
    ) {
        self.pieces.set_storing(piece, false);
        self.storing_bytes = self.storing_bytes.saturating_sub(self.piece_len());
        let epoch = self.storing_epochs.remove(&piece).unwrap_or_else(|| self.epoch());
        match stored {
            Ok(()) => self.have_piece(piece, epoch),
            Err(StoreFailure::BadPiece) => {
                self.totals.rejected += 1;
                self.convict(id, piece, sender);
            }
            Err(StoreFailure::Mismatch) => self.mismatch(id, piece, epoch, sender),
            Err(StoreFailure::NoKey) => self.no_key(id, piece, sender),
            Err(StoreFailure::Disk(error)) => self.stop_downloading(error),
        }
    }

    /// An ordinary client has left, or the tracker cannot be reached: the piece is fetched from somebody else.
    fn no_key(&mut self, id: ConnectionId, piece: u32, sender: SocketAddr) {
        self.avoid(piece, sender);
        self.disconnect(id, Reason::NoKey);
        self.download_all();
    }

    /// A stored piece turned out bad, to a player or on the disk: it is fetched again.
    pub(super) fn found_bad(&mut self, piece: u32) {
        if self.pieces.have().has(piece) {
            self.totals.rejected += 1;
            self.lose_piece(piece);
            self.fetch_witness();
            self.download_all();
        }
    }

    fn have_piece(&mut self, piece: u32, epoch: u64) {
        self.pieces.stored(piece, epoch);
        self.witness_served(piece);
        for other in self.ids() {
            let Some(connection) = self.connections.get_mut(&other) else { continue };
            connection.useful -= u32::from(connection.have.has(piece));
            self.update_interest(other);
            self.send(other, Message::Have(piece));
        }
        if self.pieces.complete() {
            self.out.push(Command::Completed);
            self.ids().into_iter().for_each(|other| self.part_if_useless(other));
        } else {
            self.download_all_idle();
        }
        self.fill_slots();
    }

    /// Peers that had to wait for the disk, or for a piece to be free.
    pub(super) fn download_all_idle(&mut self) {
        for id in self.ids() {
            if self.connections.get(&id).is_some_and(|connection| connection.download.outstanding == 0) {
                self.download_from(id);
            }
        }
    }

    /// Pieces that cannot be handed on any more are fetched again. Until then they stay on the disk: a license may open them.
    pub(super) fn retired(&mut self, pieces: &[u32]) {
        for &piece in pieces {
            if self.pieces.have().has(piece) && self.pieces.epoch(piece) != self.epoch() {
                self.miss_piece(piece);
            }
        }
        self.download_all();
    }

    pub(super) fn lose_piece(&mut self, piece: u32) {
        self.out.push(Command::Discard { piece });
        self.miss_piece(piece);
    }

    fn miss_piece(&mut self, piece: u32) {
        self.take_back_word(piece);
        self.pieces.discard(piece);
        for id in self.ids() {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.useful += u32::from(connection.have.has(piece));
                // A complete peer has given none.
                self.renew_ticket(id);
                self.update_interest(id);
            }
        }
    }

    /// Peers that were told that we have a piece are told that we lost it, and need not ask in vain.
    fn take_back_word(&mut self, piece: u32) {
        for id in self.ids() {
            let told = self.may_send(id, piece);
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.upload.withdraw(piece);
            if let Some(dont_have_id) = connection.dont_have_id.filter(|_| told) {
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
}
