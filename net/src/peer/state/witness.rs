//! Witness keys, asked for ahead of need: a sealed piece is requested only when the key that it will be checked with is here. And
//! failed checks: whose fault each is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::bits::Bits;
use super::random::Random;
use super::{Command, Connection, ConnectionId, Reason, Swarm};
use crate::peer::tracker::KeyError;
use crate::wire::api::MAX_WITNESS_PIECES;
use crate::wire::network::Network;

/// Of what a peer has, keys are kept for what comes from it in this time, so that a tracker that is away for a while costs no rate.
const AHEAD: Duration = Duration::from_secs(30);
/// Such keys of one peer: at least, and at most.
const LEAST_AHEAD: u32 = 16;
const MOST_AHEAD: u32 = 4096;
/// More are asked for once fewer than this part of them is left, and then a call's worth at least.
const LOW: u32 = 4;
const WORTH_A_CALL: usize = 32;
/// Between calls for fewer keys than that.
const SMALL_CALLS: Duration = Duration::from_secs(1);
/// Keys in hand, of pieces that are not being fetched, up to which a small call is filled up.
const MOST_SPARE: u32 = 256;
/// Calls under way at a time.
const MAX_CALLS: usize = 4;
const MAX_RETRY: Duration = Duration::from_secs(30);
/// Failed checks whose keys are being confirmed, and keys that are known to be right.
const MAX_SUSPICIONS: usize = 4096;
const MAX_CONFIRMED: usize = 65_536;
/// A piece that failed from so many networks is fetched again after a pause that doubles with each.
const MANY_NETWORKS: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// After a bad copy, a piece waits so long for another sender.
const AVOID: Duration = Duration::from_secs(20);
/// Networks that sent bad copies of one piece which are remembered.
const MAX_AVOIDED: usize = 256;

/// The keys that the driver has, of the subscription's epoch, and what is asked.
#[derive(Debug)]
pub(super) struct Witness {
    keys: Bits,
    asked: Bits,
    calls: usize,
    failures: u32,
    retry_at: Duration,
    /// When the next call for few keys may be made.
    small_at: Duration,
    /// Failed checks, by epoch and piece, whose keys are to be asked for again.
    suspicions: BTreeMap<(u64, u32), Vec<(ConnectionId, SocketAddr)>>,
    /// Those of them that the tracker is being asked about.
    confirming: BTreeSet<(u64, u32)>,
    /// Keys that were asked for twice: who fails by one of them is at fault.
    confirmed: HashSet<(u64, u32)>,
}

/// Bad copies of a piece.
#[derive(Debug, Default)]
pub(super) struct Avoided {
    networks: HashSet<Network>,
    /// When the last one was found.
    last: Duration,
}

impl Avoided {
    /// From when on the piece is fetched again at all.
    fn resumes(&self) -> Duration {
        match self.networks.len().checked_sub(MANY_NETWORKS) {
            None => Duration::ZERO,
            Some(more) => self.last + FIRST_PAUSE.saturating_mul(1 << more.min(10)).min(LONGEST_PAUSE),
        }
    }
}

/// Pieces of which bad copies came.
pub(super) type AvoidedPieces = HashMap<u32, Avoided>;

impl Witness {
    pub(super) fn new(pieces: u32) -> Self {
        Witness {
            keys: Bits::new(pieces),
            asked: Bits::new(pieces),
            calls: 0,
            failures: 0,
            retry_at: Duration::ZERO,
            small_at: Duration::ZERO,
            suspicions: BTreeMap::new(),
            confirming: BTreeSet::new(),
            confirmed: HashSet::new(),
        }
    }

    /// Keys of another epoch are needed from now on.
    fn begin(&mut self, pieces: u32) {
        (self.keys, self.asked) = (Bits::new(pieces), Bits::new(pieces));
        self.retry_at = Duration::ZERO;
    }

    fn is_suspect(&self, epoch: u64, piece: u32) -> bool {
        self.suspicions.contains_key(&(epoch, piece))
    }
}

impl Swarm {
    /// Whether a piece may be requested: whether it can be checked, and is not left alone for a while.
    pub(super) fn can_check(&self, piece: u32) -> bool {
        let keyed = !self.is_sealed(piece) || self.witness.keys.has(piece);
        keyed && !self.is_paused(piece)
    }

    /// Whether a missing piece is left alone: too many bad copies came, or it is being found out whose fault one was.
    fn is_paused(&self, piece: u32) -> bool {
        let paused = |avoided: &Avoided| self.now.elapsed < avoided.resumes();
        self.avoid.get(&piece).is_some_and(paused) || self.witness.is_suspect(self.epoch(), piece)
    }

    /// Whether it is a sealed piece whose key is neither here nor asked for, and would be of use.
    fn lacks_key(&self, piece: u32) -> bool {
        let Witness { keys, asked, .. } = &self.witness;
        !keys.has(piece)
            && !asked.has(piece)
            && self.is_sealed(piece)
            && self.pieces.is_missing(piece)
            && !self.is_paused(piece)
    }

    /// Whether a peer could be asked for a piece now if only its key were here.
    pub(super) fn awaits_key(&self, id: ConnectionId, piece: u32) -> bool {
        self.is_sealed(piece)
            && !self.witness.keys.has(piece)
            && !self.is_paused(piece)
            && !self.avoids(id, piece)
    }

    /// How many more keys of what a peer has should be here; none while enough are left.
    fn lacking(&self, connection: &Connection) -> usize {
        let soon = self.known_rate(connection) as f64 * AHEAD.as_secs_f64() / self.piece_len() as f64;
        let wanted = (soon as u32).clamp(LEAST_AHEAD, MOST_AHEAD);
        let Witness { keys, asked, .. } = &self.witness;
        let fetching = self.pieces.fetching();
        let here =
            connection.have.count_common(keys, fetching) + connection.have.count_common(asked, fetching);
        if here < wanted.div_ceil(LOW) { (wanted - here) as usize } else { 0 }
    }

    /// Asks for keys where few of what a peer has are left.
    pub(super) fn fetch_witness(&mut self) {
        let waits = self.now.elapsed < self.witness.retry_at || self.witness.calls >= MAX_CALLS;
        let known = self.witness.keys.count() + self.witness.asked.count();
        if !self.sealed() || self.failure.is_some() || waits || known >= self.pieces.missing() {
            return;
        }
        // Before anybody is there, only where one call has all: a crowd that joins would keep the tracker busy with more.
        if self.pieces.count() as usize <= MAX_WITNESS_PIECES {
            let all = (0..self.pieces.count()).filter(|&piece| self.lacks_key(piece)).collect();
            return self.ask_for_keys(all);
        }
        let mut pieces = Vec::new();
        for id in self.ids() {
            let connection = &self.connections[&id];
            let count = if connection.useful > 0 { self.lacking(connection) } else { 0 };
            if count > 0 {
                pieces.extend(self.rarest_without_key(count, id));
                pieces.sort_unstable();
                pieces.dedup();
            }
        }
        let small = pieces.len() < WORTH_A_CALL;
        if pieces.is_empty() || small && self.now.elapsed < self.witness.small_at {
            return;
        }
        self.witness.small_at = self.now.elapsed + SMALL_CALLS;
        let spare = known.saturating_sub(self.pieces.fetching().count());
        if small && spare < MOST_SPARE {
            let more = WORTH_A_CALL - pieces.len();
            let fullest = self.connections.iter().max_by_key(|(_, connection)| connection.useful);
            if let Some((&id, _)) = fullest {
                pieces.extend(self.rarest_without_key(more, id));
            }
        }
        self.ask_for_keys(pieces);
    }

    /// Pieces of a peer whose keys are not here, up to `count`, urgent ones first and then the rarest.
    fn rarest_without_key(&mut self, count: usize, id: ConnectionId) -> Vec<u32> {
        let mut random = Random::new(self.random.next());
        let Some(connection) = self.connections.get(&id) else { return Vec::new() };
        let lacking = connection.have.iter().filter(|&piece| self.lacks_key(piece));
        let mut lacking: Vec<_> = lacking
            .map(|piece| {
                let order = (self.pieces.urgency(piece), self.pieces.availability(piece));
                (order, random.next(), piece)
            })
            .collect();
        let count = count.min(lacking.len());
        if count < lacking.len() {
            lacking.select_nth_unstable(count);
        }
        lacking[..count].iter().map(|(.., piece)| *piece).collect()
    }

    /// A peer has pieces, of which none can be requested for want of a key.
    pub(super) fn fetch_witness_for(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        // Only where nothing else is under way does a request wait for it.
        let idle = connection.download.pieces.is_empty();
        connection.download.awaits_key |= idle;
        if !idle {
            return;
        }
        let connection = &self.connections[&id];
        if connection.have.count_common(&self.witness.asked, self.pieces.fetching()) == 0 {
            let pieces = self.rarest_without_key(WORTH_A_CALL, id);
            self.ask_for_keys(pieces);
        }
    }

    /// Asks at once for the keys of urgent pieces.
    pub(super) fn fetch_urgent_witness(&mut self) {
        let urgent = self.pieces.urgent().iter().copied();
        let lacking = urgent.filter(|&piece| self.lacks_key(piece)).collect();
        self.ask_for_keys(lacking);
    }

    fn ask_for_keys(&mut self, mut pieces: Vec<u32>) {
        if self.now.elapsed < self.witness.retry_at {
            return;
        }
        pieces.sort_unstable();
        pieces.dedup();
        for pieces in pieces.chunks(MAX_WITNESS_PIECES) {
            if self.witness.calls >= MAX_CALLS {
                return;
            }
            self.witness.calls += 1;
            for &piece in pieces {
                self.witness.asked.insert(piece);
            }
            self.out.push(Command::FetchWitness { epoch: self.epoch(), pieces: pieces.to_vec() });
        }
    }

    /// The driver has keys, or has none.
    pub(super) fn witness_keys(&mut self, epoch: u64, pieces: &[u32], keys: &Result<(), KeyError>) {
        self.witness.calls = self.witness.calls.saturating_sub(1);
        if epoch == self.epoch() {
            for &piece in pieces.iter().filter(|&&piece| piece < self.pieces.count()) {
                self.witness.asked.remove(piece);
                if keys.is_ok() && self.pieces.is_missing(piece) {
                    self.witness.keys.insert(piece);
                }
            }
        }
        match keys {
            Ok(()) => self.witness.failures = 0,
            Err(_) => self.back_off(),
        }
        self.fetch_witness();
        self.download_all();
    }

    fn back_off(&mut self) {
        let witness = &mut self.witness;
        let wait = Duration::from_secs(1 << witness.failures.min(5)).min(MAX_RETRY);
        witness.retry_at = self.now.elapsed + wait;
        witness.failures += 1;
    }

    /// Keys of the subscription's new epoch are needed.
    pub(super) fn begin_witness(&mut self) {
        let pieces = self.pieces.count();
        self.witness.begin(pieces);
        self.fetch_witness();
    }

    /// A piece is here, so that its key has served.
    pub(super) fn witness_served(&mut self, piece: u32) {
        self.witness.keys.remove(piece);
        self.avoid.remove(&piece);
    }

    /// A piece failed its check. Where the key was not asked for twice, the tracker decides whose fault it is.
    pub(super) fn mismatch(&mut self, id: ConnectionId, piece: u32, epoch: u64, sender: SocketAddr) {
        self.totals.rejected += 1;
        if self.witness.confirmed.contains(&(epoch, piece)) {
            return self.convict(id, piece, sender);
        }
        let witness = &mut self.witness;
        if witness.suspicions.len() < MAX_SUSPICIONS || witness.is_suspect(epoch, piece) {
            witness.suspicions.entry((epoch, piece)).or_default().push((id, sender));
        }
        self.confirm();
        self.download_all();
    }

    /// Asks again for the keys of failed checks, one call at a time.
    pub(super) fn confirm(&mut self) {
        let witness = &mut self.witness;
        if !witness.confirming.is_empty() || self.now.elapsed < witness.retry_at {
            return;
        }
        let Some((&(epoch, _), _)) = witness.suspicions.first_key_value() else { return };
        let of_epoch =
            witness.suspicions.keys().filter(|(other, _)| *other == epoch).take(MAX_WITNESS_PIECES);
        witness.confirming = of_epoch.copied().collect();
        let pieces = witness.confirming.iter().map(|(_, piece)| *piece).collect();
        self.out.push(Command::ConfirmWitness { epoch, pieces });
    }

    /// Whether each key that was asked for again is the one that a piece was checked with.
    pub(super) fn confirmed(&mut self, epoch: u64, pieces: &[u32], same: Result<Vec<bool>, KeyError>) {
        self.witness.confirming.clear();
        let same = match same {
            // The epoch ended meanwhile: nobody is at fault.
            Err(KeyError::Retired) => vec![false; pieces.len()],
            Err(_) => return self.back_off(),
            Ok(same) => same,
        };
        for (&piece, same) in pieces.iter().zip(same) {
            if self.witness.confirmed.len() >= MAX_CONFIRMED {
                self.witness.confirmed.clear();
            }
            self.witness.confirmed.insert((epoch, piece));
            for (id, sender) in self.witness.suspicions.remove(&(epoch, piece)).unwrap_or_default() {
                if same {
                    self.convict(id, piece, sender);
                }
            }
        }
        self.confirm();
        self.download_all();
    }

    /// Somebody sent a bad piece: its connection ends, its network answers for it, and the piece comes from another.
    pub(super) fn convict(&mut self, id: ConnectionId, piece: u32, sender: SocketAddr) {
        self.avoid(piece, sender);
        self.out.push(Command::Failed { sender });
        self.disconnect(id, Reason::BadPiece);
        self.download_all();
    }

    /// A copy of the piece that came from there was of no use.
    pub(super) fn avoid(&mut self, piece: u32, sender: SocketAddr) {
        let avoided = self.avoid.entry(piece).or_default();
        avoided.last = self.now.elapsed;
        if avoided.networks.len() < MAX_AVOIDED {
            avoided.networks.insert(Network::of(sender.ip()));
        }
    }

    /// Whether a peer's network sent a bad copy of a piece, so that it is not asked for another. It is, once nobody else has the piece.
    pub(super) fn avoids(&self, id: ConnectionId, piece: u32) -> bool {
        let Some(avoided) = self.avoid.get(&piece) else { return false };
        let from = |connection: &Connection| {
            let network = Network::of(connection.addr.ip());
            // This machine's programs are not told apart by it.
            !network.is_this_machine() && avoided.networks.contains(&network)
        };
        let Some(connection) = self.connections.get(&id) else { return false };
        let waited = self.now.elapsed.saturating_sub(avoided.last) > AVOID;
        let all = || self.connections.values().all(|other| !other.have.has(piece) || from(other));
        from(connection) && !(waited && all())
    }
}
