//! Witness keys, asked for ahead of need: a sealed piece is requested only when the key that it will be checked with is here. And
//! failed checks: whose fault each is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::bits::Bits;
use super::{Command, Connection, ConnectionId, Reason, Swarm};
use crate::peer::tracker::KeyError;
use crate::wire::api::MAX_PIECES;
use crate::wire::network::Network;

/// Keys are kept for what comes in this time, so that a tracker that is away for a while costs no rate.
const AHEAD: Duration = Duration::from_secs(30);
/// Keys in hand beyond those of pieces that are being fetched: at least, and at most.
const LEAST_AHEAD: usize = 256;
const MOST_AHEAD: usize = 16_384;
/// A call is worth its cost from so many keys on, unless somebody waits for them.
const WORTH_A_CALL: usize = 32;
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
        self.is_sealed(piece)
            && self.pieces.is_missing(piece)
            && !keys.has(piece)
            && !asked.has(piece)
            && !self.is_paused(piece)
    }

    /// Whether a peer could be asked for a piece now if only its key were here.
    pub(super) fn awaits_key(&self, id: ConnectionId, piece: u32) -> bool {
        self.is_sealed(piece)
            && !self.witness.keys.has(piece)
            && !self.is_paused(piece)
            && !self.avoids(id, piece)
    }

    /// Asks for keys where fewer than needed soon are here.
    pub(super) fn fetch_witness(&mut self) {
        if !self.sealed() || self.pieces.complete() || self.failure.is_some() {
            return;
        }
        let assigned: usize = self.connections.values().map(|it| it.download.pieces.len()).sum();
        let Witness { keys, asked, .. } = &self.witness;
        let known = (keys.count() + asked.count()) as usize;
        if known >= self.pieces.missing() as usize {
            return;
        }
        let here = known.saturating_sub(assigned);
        let rate = self.connections.values().map(|it| self.known_rate(it)).sum::<u64>() as f64;
        let soon = (rate * AHEAD.as_secs_f64() / self.piece_len() as f64) as usize;
        let lacking = soon.clamp(LEAST_AHEAD, MOST_AHEAD).saturating_sub(here);
        if lacking < WORTH_A_CALL && here >= WORTH_A_CALL {
            return;
        }
        // What everybody can have comes in few calls; before anybody is there, only where one call has it all.
        let all_at_once = self.pieces.count() as usize <= MAX_PIECES;
        self.ask_for_keys(lacking, |swarm, piece| all_at_once || swarm.pieces.availability(piece) > 0);
    }

    /// A peer is idle that has pieces which cannot be checked yet.
    pub(super) fn fetch_witness_for(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.download.awaits_key = true;
        let have = connection.have.clone();
        if have.iter().any(|piece| self.witness.asked.has(piece)) {
            return;
        }
        self.ask_for_keys(WORTH_A_CALL, |_, piece| have.has(piece));
    }

    /// Asks at once for the keys of urgent pieces.
    pub(super) fn fetch_urgent_witness(&mut self) {
        if self.pieces.urgent().iter().any(|&piece| self.lacks_key(piece)) {
            self.ask_for_keys(MAX_PIECES, |swarm, piece| swarm.pieces.is_urgent(piece));
        }
    }

    /// Asks for up to `count` keys, of urgent pieces first and then of the rarest.
    fn ask_for_keys(&mut self, count: usize, wanted: impl Fn(&Self, u32) -> bool) {
        if self.now.elapsed < self.witness.retry_at || count == 0 {
            return;
        }
        let mut lacking: Vec<(usize, u32, u64, u32)> = Vec::new();
        for piece in 0..self.pieces.count() {
            if self.lacks_key(piece) && wanted(self, piece) {
                let order = (self.pieces.urgency(piece), self.pieces.availability(piece), self.random.next());
                lacking.push((order.0, order.1, order.2, piece));
            }
        }
        let count = count.min(lacking.len());
        if count < lacking.len() {
            lacking.select_nth_unstable(count);
        }
        let mut pieces: Vec<u32> = lacking[..count].iter().map(|(.., piece)| *piece).collect();
        pieces.sort_unstable();
        for pieces in pieces.chunks(MAX_PIECES) {
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
        let of_epoch = witness.suspicions.keys().filter(|(other, _)| *other == epoch).take(MAX_PIECES);
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
