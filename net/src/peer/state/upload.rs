//! Serving: tickets taken, keys asked for, pieces made ready ahead of the requests, blocks sent.

use std::time::Duration;

use bytes::Bytes;
use swarmseal_core::Ticket;

use super::connection::{Outgoing, SpareKey, Stage};
use super::{Command, Config, ConnectionId, REQQ, Reason, Swarm, Unready};
use crate::peer::store::NOT_ENCRYPTED;
use crate::peer::tracker::KeyError;
use crate::wire::identity::{purpose, verify};
use crate::wire::message::{Block, Message};
use crate::wire::seal::{Hello, MAX_WANT};

/// Requests beyond what we announced that a peer may have in flight all the same.
const REQUEST_SLACK: usize = 64;
/// Bytes of blocks that wait for one connection's socket.
const SEND_WINDOW: usize = 1 << 20;
/// Pieces of one peer that are anywhere between wanted and sent: as many as go out while the tracker may be away, between these, and
/// the lesser number where that would be very many.
const MAX_PIECES: usize = 64;
const MOST_PIECES: usize = 256;
const VERY_MANY: usize = 1024;
/// The tracker is asked for more keys for a peer once those that are here last for less than this time, for so many and as long as
/// they do not last longer than the second time, and always for the greater number. Where that time would be very many pieces, only for
/// the greater number, as long as as many keys are left.
const KEYS_SOON: Duration = Duration::from_secs(5);
const KEYS_SOME: usize = 8;
const KEYS_AHEAD: Duration = Duration::from_secs(25);
const KEYS_AT_ONCE: usize = 32;
/// Bytes of pieces made ready for one peer, two pieces at least.
const READY_PER_PEER: usize = 4 << 20;
/// A piece that was made ready and is not asked for is dropped after this time.
const IDLE: Duration = Duration::from_secs(60);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// How many pieces go out while the tracker may be away.
fn pieces_ahead(rate: u64, piece_len: u32) -> usize {
    (rate * KEYS_AHEAD.as_secs() / u64::from(piece_len)) as usize
}

fn most_pieces(rate: u64, piece_len: u32) -> usize {
    let ahead = pieces_ahead(rate, piece_len);
    if ahead > VERY_MANY { MAX_PIECES } else { ahead.clamp(MAX_PIECES, MOST_PIECES) }
}

impl Config {
    /// Of a piece that is to be sent: a sealed one waits for its key, another needs none.
    fn first_stage(&self, piece: u32) -> Stage {
        if self.is_sealed(piece) {
            Stage::Waiting
        } else {
            Stage::Keyed { key: None, epoch: NOT_ENCRYPTED, to: NOT_ENCRYPTED }
        }
    }
}

impl Swarm {
    pub(super) fn ticket(&mut self, id: ConnectionId, ticket: Ticket) -> Result<(), Reason> {
        let (Some(seal), Some(connection)) = (&self.config.seal, self.connections.get(&id)) else {
            return Ok(());
        };
        let Some((hello, downloader)) = connection.hello else { return Ok(()) };
        // A seed has nothing to fetch.
        let Hello::Subscriber { identity, .. } = hello else { return Err(Reason::BadTicket) };
        let ours = ticket.torrent_id == seal.torrent_id
            && ticket.uploader == seal.id
            && ticket.downloader == downloader;
        let signed = verify(&identity, purpose::TICKET, &ticket.signing_input(), &ticket.signature);
        if !ours || signed.is_err() {
            return Err(Reason::BadTicket);
        }
        if ticket.expires <= self.now.unix {
            return Err(Reason::ExpiredTicket);
        }
        self.out.push(Command::Keep(Box::new(ticket.clone())));
        if let Some(connection) = self.connections.get_mut(&id) {
            let upload = &mut connection.upload;
            // What was made for another epoch it would take for this one's.
            if upload.epoch.is_some_and(|epoch| epoch != ticket.epoch) {
                upload.pieces.clear();
                upload.spare.clear();
            }
            upload.epoch = Some(ticket.epoch);
            upload.ticket = Some(ticket);
        }
        self.fill_slots();
        self.upload_to(id);
        Ok(())
    }

    pub(super) fn want(&mut self, id: ConnectionId, pieces: Vec<u32>) -> Result<(), Reason> {
        let count = self.pieces.count();
        if pieces.iter().any(|&piece| piece >= count) {
            return Err(Reason::Protocol("a want outside of the torrent"));
        }
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        if connection.choking_it {
            return Ok(());
        }
        connection.upload.last_request = self.now.elapsed;
        for piece in pieces {
            if connection.upload.wanted.len() < 2 * MAX_WANT {
                connection.upload.wanted.push_back(piece);
            }
        }
        self.upload_to(id);
        Ok(())
    }

    pub(super) fn requested(&mut self, id: ConnectionId, block: Block) -> Result<(), Reason> {
        let (may, sealed) = (self.may_send(id, block.piece), self.config.is_sealed(block.piece));
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let upload = &mut connection.upload;
        // A request may have crossed our choke.
        if connection.choking_it || !may {
            return Ok(());
        }
        if upload.requests.len() >= REQQ as usize + REQUEST_SLACK {
            return Err(Reason::Protocol("more requests than we announced"));
        }
        upload.last_request = self.now.elapsed;
        if sealed && !upload.requests.has(block.piece) {
            let keyed = |outgoing: &Outgoing| outgoing.piece == block.piece && outgoing.stage.has_key();
            self.totals.asked += 1;
            self.totals.keyed += u64::from(upload.pieces.iter().any(keyed));
        }
        upload.requests.push(block);
        let most = most_pieces(connection.up.per_second(), self.config.layout.piece_len());
        upload.jump(block.piece, self.config.first_stage(block.piece), most, true);
        // Where the socket is full and the piece is under way, nothing follows from one request more.
        let under_way = upload.pieces.iter().any(|outgoing| outgoing.piece == block.piece);
        if !under_way || upload.in_flight < SEND_WINDOW {
            self.upload_to(id);
        }
        Ok(())
    }

    /// Whether a peer may have this piece from us: we may hand it on and, super-seeding, told it so.
    pub(super) fn may_send(&self, id: ConnectionId, piece: u32) -> bool {
        let revealed = self.connections.get(&id).map(|connection| &connection.revealed.all);
        match revealed {
            Some(Some(revealed)) => revealed.has(piece),
            Some(None) => self.pieces.have().has(piece),
            None => false,
        }
    }

    /// Moves everything on the way to one peer as far as it goes.
    pub(super) fn upload_to(&mut self, id: ConnectionId) {
        if !self.connections.get(&id).is_some_and(|connection| connection.ready && !connection.choking_it) {
            return;
        }
        self.hurry_first(id);
        self.queue_pieces(id);
        self.fetch_keys(id);
        self.prepare_pieces(id);
        self.send_blocks(id);
    }

    /// The piece that is asked for first is not held up by what was made ready for requests that were taken back.
    fn hurry_first(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let Some(first) = connection.upload.requests.pieces().next() else { return };
        if connection.upload.makes(first) {
            return;
        }
        let room = self.room(id) > 0;
        if let Some(connection) = self.connections.get_mut(&id) {
            let upload = &mut connection.upload;
            let most = most_pieces(connection.up.per_second(), self.config.layout.piece_len());
            upload.jump(first, self.config.first_stage(first), most, room);
            // Though it stands at the end of the queue, behind nothing but what was made ready.
            upload.hurry |=
                upload.pieces.iter().any(|it| it.piece == first && matches!(it.stage, Stage::Waiting));
        }
    }

    /// How many pieces more may be made ready for a peer.
    fn room(&self, id: ConnectionId) -> usize {
        let piece_len = self.piece_len();
        let heavy = |connection: &super::Connection| {
            connection.upload.pieces.iter().filter(|outgoing| outgoing.stage.heavy()).count()
        };
        let everywhere: usize = self.connections.values().map(heavy).sum();
        let here = self.connections.get(&id).map_or(0, heavy);
        let left = (self.config.ready_bytes / piece_len).saturating_sub(everywhere);
        // A peer that is served may always have one.
        let first = usize::from(here == 0);
        left.min((READY_PER_PEER / piece_len).max(2).saturating_sub(here)).max(first)
    }

    /// Requested pieces first, then wanted ones.
    fn queue_pieces(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let upload = &connection.upload;
        let most = most_pieces(connection.up.per_second(), self.config.layout.piece_len());
        if upload.pieces.len() >= most || upload.wanted.is_empty() && upload.requests.is_empty() {
            return;
        }
        let mut queued: Vec<u32> = upload.pieces.iter().map(|outgoing| outgoing.piece).collect();
        let known = queued.len();
        let mut taken = 0;
        for piece in upload.requests.pieces() {
            if queued.len() < most && !queued.contains(&piece) {
                queued.push(piece);
            }
        }
        for &piece in &upload.wanted {
            if queued.len() >= most {
                break;
            }
            taken += 1;
            if !queued.contains(&piece) && self.may_send(id, piece) {
                queued.push(piece);
            }
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.upload.wanted.drain(..taken);
        for &piece in &queued[known..] {
            let spare = connection.upload.spare.remove(&piece);
            let usable = |key: &SpareKey| key.epoch == self.pieces.epoch(piece);
            let stage = match spare.filter(usable) {
                Some(SpareKey { key, epoch, to }) => Stage::Keyed { key: Some(key), epoch, to },
                None => self.config.first_stage(piece),
            };
            connection.upload.pieces.push_back(Outgoing { piece, stage });
        }
    }

    fn fetch_keys(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let upload = &mut connection.upload;
        if upload.fetching.is_some() || now.elapsed < upload.retry_at {
            return;
        }
        if upload.ticket.as_ref().is_some_and(|ticket| ticket.expires <= now.unix) {
            upload.ticket = None;
        }
        let Some(claim) = connection.claim() else { return };
        let upload = &mut connection.upload;
        let keyless =
            upload.pieces.iter().filter(|outgoing| matches!(outgoing.stage, Stage::Waiting)).count();
        let sealed = upload.pieces.iter().filter(|outgoing| self.config.is_sealed(outgoing.piece)).count();
        let (rate, piece_len) = (connection.up.per_second(), self.config.layout.piece_len());
        let lasts = (sealed - keyless) as f64 * f64::from(piece_len) / rate.max(1) as f64;
        let some = KEYS_SOME.min(sealed.div_ceil(2));
        let enough = sealed - keyless >= KEYS_AT_ONCE && pieces_ahead(rate, piece_len) > VERY_MANY;
        let few = keyless >= some && lasts < KEYS_AHEAD.as_secs_f64() || lasts < KEYS_SOON.as_secs_f64();
        let due = keyless >= KEYS_AT_ONCE || few && !enough;
        if !upload.hurry && !due {
            return;
        }
        let mut waiting =
            upload.pieces.iter_mut().filter(|outgoing| matches!(outgoing.stage, Stage::Waiting)).peekable();
        let Some(epoch) = waiting.peek().map(|outgoing| self.pieces.epoch(outgoing.piece)) else { return };
        let pieces = waiting
            .filter(|outgoing| self.pieces.epoch(outgoing.piece) == epoch)
            .map(|outgoing| {
                outgoing.stage = Stage::Asked;
                outgoing.piece
            })
            .collect();
        upload.hurry = false;
        upload.fetching = Some((epoch, claim.downloader().1));
        self.out.push(Command::FetchKeys { id, claim, epoch, pieces });
    }

    pub(super) fn keys(&mut self, id: ConnectionId, pieces: &[u32], keys: Result<Vec<Bytes>, KeyError>) {
        let now = self.now.elapsed;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let upload = &mut connection.upload;
        let Some((epoch, to)) = upload.fetching.take() else { return };
        let asked = |outgoing: &&mut Outgoing| matches!(outgoing.stage, Stage::Asked);
        match keys {
            Ok(keys) => {
                upload.failures = 0;
                for outgoing in upload.pieces.iter_mut().filter(asked) {
                    let place = pieces.iter().position(|&piece| piece == outgoing.piece);
                    outgoing.stage = match place.and_then(|place| keys.get(place)) {
                        Some(key) => Stage::Keyed { key: Some(key.clone()), epoch, to },
                        None => Stage::Waiting,
                    };
                }
            }
            Err(KeyError::BadTicket) => return self.disconnect(id, Reason::BadTicket),
            Err(KeyError::TicketRefused(why)) => return self.disconnect(id, Reason::TicketRefused(why)),
            // Our pieces move meanwhile, or are given up.
            Err(KeyError::Unavailable(_) | KeyError::Retired) => {
                for outgoing in upload.pieces.iter_mut().filter(asked) {
                    outgoing.stage = Stage::Waiting;
                }
                upload.retry_at = now + Duration::from_secs(1 << upload.failures.min(5)).min(MAX_RETRY);
                upload.failures += 1;
            }
        }
        self.upload_to(id);
    }

    fn prepare_pieces(&mut self, id: ConnectionId) {
        let mut room = self.room(id);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        for outgoing in &mut connection.upload.pieces {
            if room == 0 {
                break;
            }
            if let Stage::Keyed { key, epoch, to } = &mut outgoing.stage {
                let (key, epoch, to) = (key.take(), *epoch, *to);
                outgoing.stage = Stage::Preparing { to };
                room -= 1;
                self.out.push(Command::Prepare { id, piece: outgoing.piece, key, epoch, to });
            }
        }
    }

    pub(super) fn prepared(
        &mut self,
        id: ConnectionId,
        piece: u32,
        made_for: u64,
        ready: Result<Bytes, Unready>,
    ) {
        if ready == Err(Unready::Damaged) {
            self.found_bad(piece);
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let upload = &mut connection.upload;
        let awaited = |stage: &Stage| matches!(stage, Stage::Preparing { to } if *to == made_for);
        let place =
            upload.pieces.iter().position(|outgoing| outgoing.piece == piece && awaited(&outgoing.stage));
        // Nobody waits for it where the peer was choked meanwhile, or is in another epoch.
        let Some(place) = place else { return };
        match ready {
            Ok(data) => upload.pieces[place].stage = Stage::Ready { data, sent: 0 },
            // There is another key for it, where it has one.
            Err(Unready::Moved) => upload.pieces[place].stage = self.config.first_stage(piece),
            Err(Unready::Damaged | Unready::Failed) => {
                upload.pieces.remove(place);
                upload.requests.forget(piece);
            }
        }
        self.upload_to(id);
    }

    fn send_blocks(&mut self, id: ConnectionId) {
        let mut finished = false;
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let upload = &mut connection.upload;
            if upload.in_flight >= SEND_WINDOW {
                break;
            }
            let ready = |piece: u32| {
                upload.pieces.iter().position(|outgoing| {
                    outgoing.piece == piece && matches!(outgoing.stage, Stage::Ready { .. })
                })
            };
            let next = upload.requests.pieces().find_map(|piece| Some((piece, ready(piece)?)));
            let Some((piece, place)) = next else { break };
            let Some(block) = upload.requests.pop(piece) else { break };
            let Stage::Ready { data, sent } = &mut upload.pieces[place].stage else { break };
            let range = block.begin as usize..(block.begin + block.len) as usize;
            let message = Message::Piece { piece: block.piece, begin: block.begin, data: data.slice(range) };
            let bytes = block.len as usize;
            *sent += bytes;
            if *sent >= data.len() {
                upload.pieces.remove(place);
                upload.wanted.retain(|&piece| piece != block.piece);
                self.totals.sent_pieces += 1;
                finished = true;
            }
            upload.in_flight += bytes;
            upload.bytes += bytes as u64;
            connection.up.add(bytes);
            self.totals.sent += bytes as u64;
            self.send(id, message);
        }
        if finished {
            // There is room for the next one.
            self.queue_pieces(id);
            self.fetch_keys(id);
            self.prepare_pieces(id);
        }
    }

    pub(super) fn sent(&mut self, id: ConnectionId, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.last_use = self.now.elapsed;
            connection.upload.in_flight = connection.upload.in_flight.saturating_sub(bytes);
            self.upload_to(id);
        }
    }

    /// Forgets everything on its way to a peer that we stop serving.
    pub(super) fn stop_uploading(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.upload.requests.clear();
            connection.upload.wanted.clear();
            connection.upload.spare_keys();
        }
    }

    pub(super) fn drop_idle_uploads(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let upload = &mut connection.upload;
        if upload.requests.is_empty() && self.now.elapsed.saturating_sub(upload.last_request) > IDLE {
            upload.spare_keys();
        }
    }
}
