//! How often an uploader may have the key of one piece for one downloader in one epoch, or a subscriber its own witness key: enough for
//! restarts and lost answers, and no more. The same key comes each time, so this bounds the work that anybody can make the tracker do, not what can be learnt.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use swarmseal_core::SubscriberId;

/// Seconds from the first key of a pair until its budget is fresh.
const SECONDS: u64 = 24 * 3600;
/// Keys that are remembered, of all pairs together: some 30 bytes each. The pairs that began first are forgotten first.
const MAX_REMEMBERED: usize = 4 << 20;

/// Who sends, and who gets; twice the same where a subscriber gets its own witness key.
pub(super) type Pair = (SubscriberId, SubscriberId);

/// What every pair has had.
pub(super) struct Budgets {
    /// Times that one key is given.
    times: u8,
    max_remembered: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    pairs: HashMap<Pair, Budget>,
    /// The pairs by the time at which they began.
    order: VecDeque<(u64, Pair)>,
    remembered: usize,
}

struct Budget {
    since: u64,
    /// Times given, by epoch and piece.
    given: HashMap<(u64, u32), u8>,
}

impl Budgets {
    /// Every key is given so many times a day; 0: any number of times.
    pub(super) fn new(times: u8) -> Self {
        Budgets { times, max_remembered: MAX_REMEMBERED, kept: Mutex::default() }
    }

    /// Takes the keys of these pieces from what an uploader may have for a downloader. Errors: where
    /// that is not enough, the seconds until it is fresh; nothing is taken then.
    pub(super) fn spend(&self, pair: Pair, epoch: u64, pieces: &[u32], now: u64) -> Result<(), u32> {
        if self.times == 0 {
            return Ok(());
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget(now, self.max_remembered);
        let budget = kept.pairs.get(&pair);
        let mut given = HashMap::with_capacity(pieces.len());
        for piece in pieces {
            let key = (epoch, *piece);
            let had = || budget.and_then(|budget| budget.given.get(&key)).copied().unwrap_or(0);
            let count: &mut u8 = given.entry(key).or_insert_with(had);
            *count = count.saturating_add(1);
        }
        if given.values().any(|&count| count > self.times) {
            let since = budget.map_or(now, |budget| budget.since);
            let wait = since.saturating_add(SECONDS + 1).saturating_sub(now);
            return Err(u32::try_from(wait).unwrap_or(u32::MAX));
        }
        if budget.is_none() {
            kept.order.push_back((now, pair));
        }
        let budget = kept.pairs.entry(pair).or_insert_with(|| Budget { since: now, given: HashMap::new() });
        let before = budget.given.len();
        budget.given.extend(given);
        let added = budget.given.len() - before;
        kept.remembered += added;
        Ok(())
    }
}

impl Kept {
    /// Forgets pairs whose day is over, and the oldest where there are too many keys.
    fn forget(&mut self, now: u64, max_remembered: usize) {
        while let Some(&(since, pair)) = self.order.front() {
            // A clock set back ends nothing early.
            if now.saturating_sub(since) <= SECONDS && self.remembered <= max_remembered {
                break;
            }
            self.order.pop_front();
            if let Some(budget) = self.pairs.remove(&pair) {
                debug_assert_eq!(budget.since, since);
                self.remembered -= budget.given.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(n: u8) -> Pair {
        (SubscriberId([n; 32]), SubscriberId([9; 32]))
    }

    #[test]
    fn a_key_is_given_a_few_times_a_day() {
        let budgets = Budgets::new(4);
        for _ in 0..4 {
            assert_eq!(budgets.spend(pair(1), 1, &[3, 4], 10), Ok(()));
        }
        assert_eq!(budgets.spend(pair(1), 1, &[5, 3], 20), Err(SECONDS as u32 - 9));
        // What was refused was not counted, and others have budgets of their own, as has every epoch.
        assert_eq!(budgets.spend(pair(1), 1, &[5; 4], 10), Ok(()));
        assert!(budgets.spend(pair(1), 1, &[5], 10).is_err());
        assert_eq!(budgets.spend(pair(2), 1, &[3], 10), Ok(()));
        assert_eq!(budgets.spend(pair(1), 2, &[3], 10), Ok(()));
        assert!(budgets.spend(pair(1), 1, &[3], 10).is_err(), "another epoch in between");
        assert!(budgets.spend(pair(1), 2, &[3; 4], 10).is_err());
        assert!(budgets.spend(pair(1), 2, &[3; 4], 10 + SECONDS).is_err());
        assert_eq!(budgets.spend(pair(1), 2, &[3; 4], 11 + SECONDS), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_pair_goes_first() {
        let budgets = Budgets { max_remembered: 10, ..Budgets::new(1) };
        for n in 0..4 {
            let pieces: Vec<u32> = (0..4).collect();
            assert_eq!(budgets.spend(pair(n), 1, &pieces, 10), Ok(()));
        }
        // Twelve keys are too many: the next call forgets the first pair's.
        assert!(budgets.spend(pair(3), 1, &[0], 10).is_err());
        assert_eq!(budgets.kept.lock().unwrap().remembered, 12 - 4 + 4 - 4);
        assert_eq!(budgets.spend(pair(0), 1, &[0], 10), Ok(()));
    }
}
