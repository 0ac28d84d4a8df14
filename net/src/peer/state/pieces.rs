//! Which pieces we have, which are on their way, how rare each is: the picker.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::bits::Bits;
use super::random::Random;

/// Pieces drawn before all are looked through.
const TRIES: usize = 32;
/// Urgent pieces at most.
const MAX_URGENT: usize = 256;

/// The table of pieces.
#[derive(Debug)]
pub(crate) struct Pieces {
    have: Bits,
    /// Under which epoch each piece that we have is stored.
    epochs: Vec<u64>,
    /// How many pieces that we have are of each epoch.
    of_epochs: BTreeMap<u64, u32>,
    /// How many connections are fetching it.
    assigned: Vec<u8>,
    /// Those that any is fetching.
    fetching: Bits,
    /// Whole, and on its way to the store.
    storing: Bits,
    /// How many connected peers have it.
    availability: Vec<u32>,
    urgent: Urgent,
}

/// Pieces that somebody waits for.
#[derive(Debug, Default)]
struct Urgent {
    /// The most urgent first.
    order: Vec<u32>,
    /// The place of each in `order`, and since when it is urgent.
    places: HashMap<u32, (usize, Duration)>,
}

impl Pieces {
    /// `have`: the epoch that each piece is stored under, of those that are there.
    pub(crate) fn new(have: &[Option<u64>]) -> Self {
        let count = have.len() as u32;
        let mut pieces = Pieces {
            have: Bits::new(count),
            epochs: vec![0; have.len()],
            of_epochs: BTreeMap::new(),
            assigned: vec![0; have.len()],
            fetching: Bits::new(count),
            storing: Bits::new(count),
            availability: vec![0; have.len()],
            urgent: Urgent::default(),
        };
        for (epoch, piece) in have.iter().zip(0..) {
            if let Some(epoch) = *epoch {
                pieces.stored(piece, epoch);
            }
        }
        pieces
    }

    pub(crate) fn count(&self) -> u32 {
        self.epochs.len() as u32
    }

    pub(crate) fn have(&self) -> &Bits {
        &self.have
    }

    pub(crate) fn missing(&self) -> u32 {
        self.count() - self.have.count()
    }

    pub(crate) fn complete(&self) -> bool {
        self.missing() == 0
    }

    pub(crate) fn epoch(&self, piece: u32) -> u64 {
        self.epochs[piece as usize]
    }

    pub(crate) fn availability(&self, piece: u32) -> u32 {
        self.availability[piece as usize]
    }

    pub(crate) fn seen(&mut self, piece: u32) {
        self.availability[piece as usize] += 1;
    }

    pub(crate) fn unseen(&mut self, piece: u32) {
        self.availability[piece as usize] -= 1;
    }

    pub(crate) fn gone(&mut self, pieces: &Bits) {
        pieces.iter().for_each(|piece| self.unseen(piece));
    }

    pub(crate) fn assign(&mut self, piece: u32) {
        self.assigned[piece as usize] += 1;
        self.fetching.insert(piece);
    }

    pub(crate) fn release(&mut self, piece: u32) {
        self.assigned[piece as usize] -= 1;
        if self.assigned[piece as usize] == 0 {
            self.fetching.remove(piece);
        }
    }

    /// The pieces that some connection is fetching.
    pub(crate) fn fetching(&self) -> &Bits {
        &self.fetching
    }

    pub(crate) fn storing(&self, piece: u32) -> bool {
        self.storing.has(piece)
    }

    pub(crate) fn set_storing(&mut self, piece: u32, storing: bool) {
        if storing {
            self.storing.insert(piece);
        } else {
            self.storing.remove(piece);
        }
    }

    pub(crate) fn stored(&mut self, piece: u32, epoch: u64) {
        self.uncount(piece);
        self.have.insert(piece);
        self.epochs[piece as usize] = epoch;
        *self.of_epochs.entry(epoch).or_default() += 1;
    }

    /// How many pieces that we have are of that epoch.
    pub(crate) fn of_epoch(&self, epoch: u64) -> u32 {
        self.of_epochs.get(&epoch).copied().unwrap_or(0)
    }

    fn uncount(&mut self, piece: u32) {
        if self.have.has(piece)
            && let Some(count) = self.of_epochs.get_mut(&self.epochs[piece as usize])
        {
            *count -= 1;
        }
    }

    /// A piece that we have is stored under another epoch.
    pub(crate) fn moved(&mut self, piece: u32, epoch: u64) {
        if self.have.has(piece) {
            self.stored(piece, epoch);
        }
    }

    pub(crate) fn discard(&mut self, piece: u32) {
        self.uncount(piece);
        self.have.remove(piece);
    }

    /// From now on these are urgent, in this order; some may be there. What is no piece is passed over.
    pub(crate) fn set_urgent(&mut self, pieces: &[u32], now: Duration) {
        let before = std::mem::take(&mut self.urgent);
        for &piece in pieces {
            let known = piece < self.count() && !self.urgent.places.contains_key(&piece);
            if known && self.urgent.order.len() < MAX_URGENT {
                let since = before.places.get(&piece).map_or(now, |(_, since)| *since);
                self.urgent.places.insert(piece, (self.urgent.order.len(), since));
                self.urgent.order.push(piece);
            }
        }
    }

    /// The urgent pieces, in order; some may have come.
    pub(crate) fn urgent(&self) -> &[u32] {
        &self.urgent.order
    }

    pub(crate) fn is_urgent(&self, piece: u32) -> bool {
        self.urgent.places.contains_key(&piece)
    }

    /// The place of a piece among the urgent ones; those that are not come behind them all.
    pub(crate) fn urgency(&self, piece: u32) -> usize {
        self.urgent.places.get(&piece).map_or(usize::MAX, |(place, _)| *place)
    }

    pub(crate) fn urgent_since(&self, piece: u32) -> Duration {
        self.urgent.places.get(&piece).map_or(Duration::ZERO, |(_, since)| *since)
    }

    /// Whether it is neither here nor whole and on its way to the store.
    pub(crate) fn is_missing(&self, piece: u32) -> bool {
        !self.have.has(piece) && !self.storing.has(piece)
    }

    /// How many connections are fetching it.
    pub(crate) fn fetched_by(&self, piece: u32) -> u8 {
        self.assigned(piece)
    }

    /// A piece that nobody is fetching and that a peer with the pieces `theirs` has, the rarest first, ties at random;
    /// while we have none yet, any at random, so that we soon have something to give.
    pub(crate) fn pick(
        &self,
        theirs: &Bits,
        random: &mut Random,
        allowed: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let any = self.have.count() == 0;
        let rarity = |piece: u32| if any { 0 } else { self.availability[piece as usize] };
        let eligible = |piece: u32| self.wanted(theirs, piece) && self.assigned(piece) == 0 && allowed(piece);
        // What one peer has, nobody has less often. While there is much to choose from, a few tries find such a piece, and any
        // of them is as likely as any other; to look through all for each piece would take time with the square of their number.
        let tries = (0..TRIES).map(|_| random.below(self.count().into()) as u32);
        let found = tries.filter(|&piece| eligible(piece)).find(|&piece| rarity(piece) <= 1);
        found.or_else(|| self.best(random, rarity, eligible))
    }

    /// A piece that one other connection is fetching: the end game.
    pub(crate) fn pick_again(
        &self,
        theirs: &Bits,
        random: &mut Random,
        allowed: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        self.best(
            random,
            |_| 0,
            |piece| self.wanted(theirs, piece) && self.assigned(piece) == 1 && allowed(piece),
        )
    }

    fn assigned(&self, piece: u32) -> u8 {
        self.assigned[piece as usize]
    }

    fn wanted(&self, theirs: &Bits, piece: u32) -> bool {
        theirs.has(piece) && !self.have.has(piece) && !self.storing.has(piece)
    }

    fn best(
        &self,
        random: &mut Random,
        rarity: impl Fn(u32) -> u32,
        eligible: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let (mut best, mut ties) = (None, 0);
        for piece in (0..self.count()).filter(|&piece| eligible(piece)) {
            match best.map(|(rarest, _)| rarity(piece).cmp(&rarest)) {
                Some(std::cmp::Ordering::Greater) => {}
                Some(std::cmp::Ordering::Equal) => {
                    ties += 1;
                    if random.below(ties) == 0 {
                        best = Some((rarity(piece), piece));
                    }
                }
                _ => {
                    best = Some((rarity(piece), piece));
                    ties = 1;
                }
            }
        }
        best.map(|(_, piece)| piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(count: u32) -> Bits {
        let mut bits = Bits::new(count);
        for piece in 0..count {
            bits.insert(piece);
        }
        bits
    }

    #[test]
    fn the_rarest_piece_comes_first() {
        let mut pieces = Pieces::new(&[Some(1), None, None, None]);
        pieces.seen(1);
        pieces.seen(1);
        pieces.seen(2);
        pieces.seen(3);
        pieces.seen(3);
        assert_eq!(pieces.pick(&all(4), &mut Random::new(1), |_| true), Some(2));
        pieces.assign(2);
        assert_ne!(pieces.pick(&all(4), &mut Random::new(1), |_| true), Some(2));
        assert_eq!(pieces.pick_again(&all(4), &mut Random::new(1), |_| true), Some(2));
        assert_eq!(pieces.pick(&Bits::new(4), &mut Random::new(1), |_| true), None);
    }

    #[test]
    fn the_last_of_many_pieces_is_found() {
        let mut pieces = Pieces::new(&vec![None; 5000]);
        (0..5000).filter(|&piece| piece != 4321).for_each(|piece| pieces.stored(piece, 1));
        pieces.seen(4321);
        assert_eq!(pieces.pick(&all(5000), &mut Random::new(3), |_| true), Some(4321));
        assert_eq!(pieces.pick(&all(5000), &mut Random::new(3), |piece| piece != 4321), None);
    }

    #[test]
    fn the_first_piece_is_random() {
        let mut pieces = Pieces::new(&[None; 8]);
        (0..7).for_each(|piece| pieces.seen(piece));
        let mut random = Random::new(7);
        let picks: std::collections::BTreeSet<_> =
            (0..100).filter_map(|_| pieces.pick(&all(8), &mut random, |_| true)).collect();
        assert!(picks.len() > 4, "{picks:?}");
    }
}
