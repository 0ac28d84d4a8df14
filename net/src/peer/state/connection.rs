//! What is known of one connection.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use swarmseal_core::{SubscriberId, Ticket};

use super::Claim;
use super::bits::Bits;
use super::rate::Rate;
use crate::peer::buffers::{Buffer, Buffers};
use crate::peer::tracker::Personal;
use crate::wire::message::{BLOCK, Block};
use crate::wire::seal::Hello;

/// One connection, after BEP 3's handshake.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) addr: SocketAddr,
    /// Where it can be called, if known.
    pub(crate) listens_on: Option<SocketAddr>,
    pub(crate) peer_id: [u8; 20],
    pub(crate) outgoing: bool,
    pub(crate) since: Duration,
    /// Whether all handshakes are done, so that pieces may move.
    pub(crate) ready: bool,
    /// An ordinary client with a personal torrent: it is served, and speaks no `ss_seal`.
    pub(crate) personal: Option<Personal>,
    /// Who the peer says it is, and the id that follows; always there once a sealed connection is ready, but for
    /// [`Connection::personal`].
    pub(crate) hello: Option<(Hello, SubscriberId)>,
    /// The number the peer gave to `ss_seal`.
    pub(crate) seal_id: u8,
    /// The number the peer gave to `lt_donthave`, if it listens to that.
    pub(crate) dont_have_id: Option<u8>,
    /// How often it has lost a piece.
    pub(crate) losses: u32,
    /// Whether the peer says that it is an original seed.
    pub(crate) original: bool,
    pub(crate) reqq: u32,
    pub(crate) have: Bits,
    /// Pieces that it has and we do not.
    pub(crate) useful: u32,
    pub(crate) choking_it: bool,
    pub(crate) choked_by_it: bool,
    pub(crate) interested_in_it: bool,
    pub(crate) it_is_interested: bool,
    pub(crate) optimistic: bool,
    pub(crate) last_received: Duration,
    pub(crate) last_sent: Duration,
    /// When bytes of a block that was asked for moved last, either way, or the connection began.
    pub(crate) last_use: Duration,
    pub(crate) down: Rate,
    pub(crate) up: Rate,
    pub(crate) download: Download,
    pub(crate) upload: Upload,
    pub(crate) revealed: Revealed,
}

impl Connection {
    /// What entitles us to its keys, if anything yet.
    pub(crate) fn claim(&self) -> Option<Claim> {
        match (&self.personal, &self.upload.ticket) {
            (Some(personal), _) => Some(Claim::Personal(*personal)),
            (None, Some(ticket)) => Some(Claim::Ticket(Box::new(ticket.clone()))),
            (None, None) => None,
        }
    }

    /// Whether it takes up a slot.
    pub(crate) fn is_served(&self) -> bool {
        !self.choking_it && self.it_is_interested
    }
}

/// What we fetch from a peer.
#[derive(Debug, Default)]
pub(crate) struct Download {
    /// Pieces assigned to this connection, in the order of request.
    pub(crate) pieces: VecDeque<Incoming>,
    /// Requests without an answer.
    pub(crate) outstanding: u32,
    /// As long as the rate still grows: requests more than the rate calls for, one for each block that comes. They double in
    /// each round trip, so that the rate is found although nobody knows the round trip.
    pub(crate) ramp: Option<u32>,
    pub(crate) probe: Probe,
    /// When the first block came.
    pub(crate) first_data: Option<Duration>,
    pub(crate) last_data: Duration,
    pub(crate) snubbed: bool,
    /// When the ticket that we gave ends (tracker time); 0 without one.
    pub(crate) ticket_expires: u64,
    /// The epoch of that ticket, and of what the peer sends.
    pub(crate) epoch: u64,
    /// Whether blocks of that epoch may come that we no longer wait for.
    pub(crate) recalled: bool,
    /// Whether nothing could be asked for because the keys to check it with are not here.
    pub(crate) awaits_key: bool,
    pub(crate) bytes: u64,
    /// Bytes of blocks that were not asked for, since the last one that was.
    pub(crate) unsolicited: usize,
}

impl Download {
    /// Bytes per second since the first block, for the first second, in which nothing was averaged yet. A guess from little
    /// time is too low, never too high.
    pub(crate) fn first_rate(&self, now: Duration) -> u64 {
        const LEAST: Duration = Duration::from_millis(100);
        let Some(since) = self.first_data else { return 0 };
        (self.bytes as f64 / now.saturating_sub(since).max(LEAST).as_secs_f64()) as u64
    }

    /// Whether anything of a piece came, or was asked for.
    pub(crate) fn fetches(&self, piece: u32) -> bool {
        self.pieces.iter().any(|incoming| incoming.piece == piece)
    }
}

/// Measures how long a request takes at the least, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    /// The block, when it was asked for, and the least that any took.
    open: Option<(u32, u32, Duration)>,
    least: Option<Duration>,
}

impl Probe {
    /// Before anything is known.
    const UNKNOWN: Duration = Duration::from_millis(250);
    /// For what a peer does between two blocks.
    const SLACK: Duration = Duration::from_millis(2);

    pub(crate) fn asked(&mut self, block: Block, now: Duration) {
        // One whose answer is lost, to a choke say, is given up.
        if self.open.is_none_or(|(.., since)| now.saturating_sub(since) > Duration::from_secs(10)) {
            self.open = Some((block.piece, block.begin, now));
        }
    }

    pub(crate) fn came(&mut self, piece: u32, begin: u32, now: Duration) {
        if let Some((.., since)) = self.open.take_if(|open| (open.0, open.1) == (piece, begin)) {
            let took = now.saturating_sub(since);
            self.least = Some(self.least.map_or(took, |least| least.min(took)));
        }
    }

    /// How much time's worth of requests keeps the line busy: the least is without queues, so that some of it may be queued.
    pub(crate) fn turn(&self) -> Duration {
        4 * self.least.unwrap_or(Self::UNKNOWN) + Self::SLACK
    }
}

/// A piece on its way to us.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) piece: u32,
    pub(crate) since: Duration,
    len: u32,
    /// None until the first block comes.
    data: Option<Buffer>,
    blocks: Vec<BlockState>,
    /// No block before this one is [`BlockState::Missing`].
    next: usize,
    received: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockState {
    Missing,
    Requested,
    Received,
}

impl Incoming {
    pub(crate) fn new(piece: u32, len: u32, since: Duration) -> Self {
        let blocks = vec![BlockState::Missing; len.div_ceil(BLOCK) as usize];
        Incoming { piece, since, len, data: None, blocks, next: 0, received: 0 }
    }

    /// The next block to ask for.
    pub(crate) fn request(&mut self) -> Option<Block> {
        while self.blocks.get(self.next).is_some_and(|&state| state != BlockState::Missing) {
            self.next += 1;
        }
        *self.blocks.get_mut(self.next)? = BlockState::Requested;
        Some(self.block(self.next))
    }

    fn block(&self, index: usize) -> Block {
        let begin = index as u32 * BLOCK;
        Block { piece: self.piece, begin, len: BLOCK.min(self.len - begin) }
    }

    /// Takes a block in. Whether it had been asked for.
    pub(crate) fn receive(&mut self, begin: u32, data: &[u8], buffers: &Buffers) -> bool {
        let index = (begin / BLOCK) as usize;
        if self.blocks.get(index) != Some(&BlockState::Requested)
            || self.block(index) != (Block { piece: self.piece, begin, len: data.len() as u32 })
        {
            return false;
        }
        let all = self.data.get_or_insert_with(|| buffers.take(self.len));
        all[begin as usize..][..data.len()].copy_from_slice(data);
        self.blocks[index] = BlockState::Received;
        self.received += 1;
        true
    }

    /// The peer forgot our requests. Whether anything had come before.
    pub(crate) fn forget_requests(&mut self) -> bool {
        for state in &mut self.blocks {
            if *state == BlockState::Requested {
                *state = BlockState::Missing;
            }
        }
        self.next = 0;
        self.received > 0
    }

    /// Whether nothing of it came or was asked for.
    pub(crate) fn untouched(&self) -> bool {
        self.blocks.iter().all(|&state| state == BlockState::Missing)
    }

    /// Bytes that have not come.
    pub(crate) fn missing_bytes(&self) -> usize {
        (self.len as usize).saturating_sub(self.received * BLOCK as usize)
    }

    /// Bytes that were asked for and have not come.
    pub(crate) fn asked_bytes(&self) -> usize {
        self.requested().map(|block| block.len as usize).sum()
    }

    /// Blocks asked for that have not come.
    pub(crate) fn requested(&self) -> impl Iterator<Item = Block> + '_ {
        (0..self.blocks.len())
            .filter(|&index| self.blocks[index] == BlockState::Requested)
            .map(move |index| self.block(index))
    }

    pub(crate) fn whole(&self) -> bool {
        self.received == self.blocks.len()
    }

    /// What came, if anything did.
    pub(crate) fn into_data(self) -> Option<Buffer> {
        self.data
    }
}

/// Keys kept for one peer that has no use for them now.
const MAX_SPARE: usize = 512;

/// The key of a piece, from our epoch to the peer's.
#[derive(Debug)]
pub(crate) struct SpareKey {
    pub(crate) key: Bytes,
    pub(crate) epoch: u64,
    pub(crate) to: u64,
}

/// What we send to a peer.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    pub(crate) ticket: Option<Ticket>,
    /// That of the last ticket, which may have ended: what is sent is of it.
    pub(crate) epoch: Option<u64>,
    /// Pieces that are being made ready or sent, in the order in which the peer wants them.
    pub(crate) pieces: VecDeque<Outgoing>,
    /// Pieces that it named, after those.
    pub(crate) wanted: VecDeque<u32>,
    pub(crate) requests: Requests,
    /// Keys of pieces that it no longer waits for: it may want them again.
    pub(crate) spare: HashMap<u32, SpareKey>,
    /// Bytes of blocks handed to the connection and not yet written.
    pub(crate) in_flight: usize,
    /// The call for keys that is under way: from which epoch of ours to which of the peer's.
    pub(crate) fetching: Option<(u64, u64)>,
    /// Whether a piece jumped the queue and has no key: the call for keys does not wait until there are more.
    pub(crate) hurry: bool,
    pub(crate) failures: u32,
    pub(crate) retry_at: Duration,
    pub(crate) last_request: Duration,
    pub(crate) bytes: u64,
}

impl Upload {
    /// Forgets the pieces on their way, and keeps their keys.
    pub(crate) fn spare_keys(&mut self) {
        for Outgoing { piece, stage } in std::mem::take(&mut self.pieces) {
            if let Stage::Keyed { key: Some(key), epoch, to } = stage
                && self.spare.len() < MAX_SPARE
            {
                self.spare.insert(piece, SpareKey { key, epoch, to });
            }
        }
    }

    /// Whether a piece is being made ready, or is.
    pub(crate) fn makes(&self, piece: u32) -> bool {
        self.pieces.iter().any(|outgoing| outgoing.piece == piece && outgoing.stage.heavy())
    }

    /// A piece that is asked for before others that were only named goes before them: a player waits for it, perhaps. Where
    /// there is no room for it, one that was made ready, and that nobody asks for any more, makes room: `queued` pieces at
    /// most are in the queue, and only with `room` is one more made ready.
    pub(crate) fn jump(&mut self, piece: u32, fresh: Stage, queued: usize, room: bool) {
        if self.makes(piece) {
            return;
        }
        let place = self.pieces.iter().position(|outgoing| outgoing.piece == piece);
        let stuck = match place {
            Some(place) => !room && matches!(self.pieces[place].stage, Stage::Keyed { .. }),
            None => self.pieces.len() >= queued,
        };
        if stuck {
            let spare = |outgoing: &Outgoing| {
                matches!(outgoing.stage, Stage::Ready { .. }) && !self.requests.has(outgoing.piece)
            };
            if let Some(spare) = self.pieces.iter().rposition(spare) {
                self.pieces.remove(spare);
            }
        }
        let place = self.pieces.iter().position(|outgoing| outgoing.piece == piece);
        let before = self.pieces.iter().take(place.unwrap_or(usize::MAX));
        let passed = |outgoing: &Outgoing| !outgoing.stage.heavy() && !self.requests.has(outgoing.piece);
        let ahead = before.enumerate().find(|(_, outgoing)| passed(outgoing)).map(|(ahead, _)| ahead);
        let Some(ahead) = ahead else { return };
        let outgoing = place.and_then(|place| self.pieces.remove(place));
        let outgoing = outgoing.unwrap_or(Outgoing { piece, stage: fresh });
        self.hurry |= matches!(outgoing.stage, Stage::Waiting);
        self.pieces.insert(ahead, outgoing);
    }

    /// No more of a piece is sent.
    pub(crate) fn withdraw(&mut self, piece: u32) {
        self.requests.forget(piece);
        self.wanted.retain(|&wanted| wanted != piece);
        self.pieces.retain(|outgoing| outgoing.piece != piece);
    }
}

/// A peer's requests in the order in which it made them, those of one piece together: some hundred requests are a few
/// dozen pieces.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pieces: VecDeque<(u32, VecDeque<Block>)>,
    count: usize,
}

impl Requests {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn has(&self, piece: u32) -> bool {
        self.pieces().any(|requested| requested == piece)
    }

    pub(crate) fn clear(&mut self) {
        *self = Requests::default();
    }

    pub(crate) fn push(&mut self, block: Block) {
        self.count += 1;
        // The last piece is the likeliest.
        match self.pieces.iter_mut().rev().find(|(piece, _)| *piece == block.piece) {
            Some((_, blocks)) => blocks.push_back(block),
            None => self.pieces.push_back((block.piece, VecDeque::from([block]))),
        }
    }

    /// The pieces that are asked for.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = u32> + '_ {
        self.pieces.iter().map(|(piece, _)| *piece)
    }

    /// Takes the next request for a piece.
    pub(crate) fn pop(&mut self, piece: u32) -> Option<Block> {
        let place = self.pieces.iter().position(|(requested, _)| *requested == piece)?;
        let blocks = &mut self.pieces[place].1;
        let block = blocks.pop_front()?;
        if blocks.is_empty() {
            self.pieces.remove(place);
        }
        self.count -= 1;
        Some(block)
    }

    /// Forgets every request that is equal to `block`.
    pub(crate) fn cancel(&mut self, block: Block) {
        self.retain(block.piece, |request| *request != block);
    }

    /// Forgets the requests for a piece.
    pub(crate) fn forget(&mut self, piece: u32) {
        self.retain(piece, |_| false);
    }

    fn retain(&mut self, piece: u32, keep: impl Fn(&Block) -> bool) {
        let Some(place) = self.pieces.iter().position(|(requested, _)| *requested == piece) else { return };
        let blocks = &mut self.pieces[place].1;
        let before = blocks.len();
        blocks.retain(keep);
        self.count -= before - blocks.len();
        if blocks.is_empty() {
            self.pieces.remove(place);
        }
    }
}

/// A piece on its way to a peer.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) piece: u32,
    pub(crate) stage: Stage,
}

/// How far it is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// No key yet.
    Waiting,
    /// The tracker was asked.
    Asked,
    /// The key is here; `None` in a plain torrent or of a clear piece, which need none. It is from our epoch to the peer's.
    Keyed { key: Option<Bytes>, epoch: u64, to: u64 },
    /// It is being read and transformed, for this epoch of the peer's.
    Preparing { to: u64 },
    /// Ready to send.
    Ready {
        /// The receiver's ciphertext.
        data: Bytes,
        /// Bytes sent of it.
        sent: usize,
    },
}

impl Stage {
    /// Whether nothing of the tracker's is waited for.
    pub(crate) fn has_key(&self) -> bool {
        !matches!(self, Stage::Waiting | Stage::Asked)
    }

    /// Whether it holds, or soon will hold, a whole piece in memory.
    pub(crate) fn heavy(&self) -> bool {
        matches!(self, Stage::Preparing { .. } | Stage::Ready { .. })
    }
}

/// Super-seeding: what this peer has been told that we have.
#[derive(Debug, Default)]
pub(crate) struct Revealed {
    pub(crate) all: Option<Bits>,
    /// Of those, the pieces that have not come back from it yet.
    pub(crate) open: Vec<u32>,
    pub(crate) last_have: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(piece: u32, index: u32) -> Block {
        Block { piece, begin: index * BLOCK, len: BLOCK }
    }

    #[test]
    fn requests_keep_their_order_and_count() {
        let mut requests = Requests::default();
        for (piece, index) in [(3, 0), (3, 1), (5, 0), (3, 2), (7, 0)] {
            requests.push(block(piece, index));
        }
        assert_eq!((requests.len(), requests.pieces().collect::<Vec<_>>()), (5, vec![3, 5, 7]));
        requests.cancel(block(3, 1));
        requests.cancel(block(9, 0));
        assert_eq!(requests.pop(3), Some(block(3, 0)));
        assert_eq!(requests.pop(5), Some(block(5, 0)));
        assert_eq!((requests.pop(5), requests.len()), (None, 2));
        requests.forget(3);
        assert_eq!((requests.len(), requests.pieces().collect::<Vec<_>>()), (1, vec![7]));
        requests.clear();
        assert!(requests.is_empty() && requests.pieces().next().is_none());
    }
}
