//! How many calls a second one subscriber may make, and one network that has no session; how many connections a network may have.
//! Memory is bounded: beyond so many callers at once, new ones share one allowance.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use swarmseal_core::SubscriberId;

use super::Config;
use crate::wire::network::Network;

/// Callers that are told apart, by each limit: some 100 bytes each.
const MAX_CALLERS: usize = 100_000;

/// Every limit.
pub(super) struct Limits {
    calls: Option<Limit<SubscriberId>>,
    addresses: Option<Limit<Network>>,
    announces: Option<Limit<SubscriberId>>,
}

impl Limits {
    /// Those of a configuration; a rate of 0 is no limit.
    pub(super) fn new(config: &Config) -> Self {
        Limits {
            calls: Limit::new(config.calls_per_second, config.calls_burst, MAX_CALLERS),
            addresses: Limit::new(config.address_calls_per_second, config.address_calls_burst, MAX_CALLERS),
            announces: Limit::new(config.announces_per_second, config.announces_burst, MAX_CALLERS),
        }
    }

    /// Counts a call of a subscriber in its session. Errors: seconds to wait.
    pub(super) fn call(&self, id: &SubscriberId) -> Result<(), u32> {
        self.calls.as_ref().map_or(Ok(()), |limit| limit.check(id))
    }

    /// Counts a call without a session. Errors: seconds to wait.
    pub(super) fn address(&self, address: IpAddr) -> Result<(), u32> {
        self.addresses.as_ref().map_or(Ok(()), |limit| limit.check(&Network::of(address)))
    }

    /// Counts an announce or scrape. Errors: seconds to wait.
    pub(super) fn announce(&self, id: &SubscriberId) -> Result<(), u32> {
        self.announces.as_ref().map_or(Ok(()), |limit| limit.check(id))
    }

    /// Forgets those who have been silent for long enough.
    pub(super) fn sweep(&self) {
        self.calls.iter().chain(&self.announces).for_each(|limit| limit.each.retain_recent());
        self.addresses.iter().for_each(|limit| limit.each.retain_recent());
    }

    /// Callers that are remembered.
    pub(super) fn len(&self) -> usize {
        let subscribers: usize = self.calls.iter().chain(&self.announces).map(|limit| limit.each.len()).sum();
        subscribers + self.addresses.as_ref().map_or(0, |limit| limit.each.len())
    }
}

/// How many connections each network has.
#[derive(Default)]
pub(super) struct Connections(Mutex<HashMap<Network, usize>>);

impl Connections {
    /// Counts one more of a network; none where it has `most` already. 0: any number.
    pub(super) fn open(self: &Arc<Self>, network: Network, most: usize) -> Option<Connected> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if most > 0 && *count >= most {
            return None;
        }
        *count += 1;
        Some(Connected { of: Arc::clone(self), network })
    }
}

/// A connection that counts for its network.
pub(super) struct Connected {
    of: Arc<Connections>,
    network: Network,
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut counts = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

struct Limit<K: Hash + Eq + Clone> {
    each: RateLimiter<K, HashMapStateStore<K>, MonotonicClock>,
    /// The allowance of those for whom there is no room.
    rest: RateLimiter<governor::state::NotKeyed, governor::state::InMemoryState, MonotonicClock>,
    room: usize,
    started: std::time::Instant,
    /// Second in which room was last made.
    made_room: AtomicU64,
}

impl<K: Hash + Eq + Clone> Limit<K> {
    fn new(per_second: u32, burst: u32, room: usize) -> Option<Self> {
        let quota = Quota::per_second(NonZeroU32::new(per_second)?).allow_burst(NonZeroU32::new(burst)?);
        Some(Limit {
            each: RateLimiter::hashmap_with_clock(quota, MonotonicClock),
            rest: RateLimiter::direct_with_clock(quota, MonotonicClock),
            room,
            started: std::time::Instant::now(),
            made_room: AtomicU64::new(0),
        })
    }

    fn check(&self, key: &K) -> Result<(), u32> {
        let checked = if self.each.len() < self.room || self.has_made_room() {
            self.each.check_key(key)
        } else {
            self.rest.check()
        };
        checked.map_err(|wait| seconds(wait.wait_time_from(MonotonicClock.now())))
    }

    /// Forgets the silent, once a second at most: it looks at all.
    fn has_made_room(&self) -> bool {
        let now = self.started.elapsed().as_secs() + 1;
        if self.made_room.swap(now, Ordering::Relaxed) != now {
            self.each.retain_recent();
        }
        self.each.len() < self.room
    }
}

/// Whole seconds, at least 1, as `Retry-After` has them.
fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_allowance_and_is_told_how_long_to_wait() {
        // One call in an hour, so that no slow machine sees a second one.
        let limits = Limits { calls: Limit::new(1, 3, 10), addresses: None, announces: None };
        let (one, other) = (SubscriberId([1; 32]), SubscriberId([2; 32]));
        let mut given = 0;
        let wait = loop {
            match limits.call(&one) {
                Ok(()) => given += 1,
                Err(wait) => break wait,
            }
        };
        assert!(given >= 3 && wait == 1, "{given} {wait}");
        assert_eq!(limits.call(&other), Ok(()));
        // What is not limited is not remembered.
        assert_eq!(limits.address(IpAddr::from([1, 2, 3, 4])), Ok(()));
        assert_eq!(limits.len(), 2);
    }

    #[test]
    fn callers_beyond_the_bound_share_and_memory_stays() {
        let limit = Limit::<u32>::new(1, 2, 5).unwrap();
        let refused = (0..1000).filter(|key| limit.check(key).is_err()).count();
        assert!(limit.each.len() <= 5, "{}", limit.each.len());
        assert!(refused >= 900, "{refused}");
        // Those that are known keep their own.
        assert!(Limit::<u32>::new(0, 2, 5).is_none());
    }

    #[test]
    fn a_network_has_so_many_connections_and_no_more() {
        let connections = Arc::new(Connections::default());
        let network = |text: &str| Network::of(text.parse().unwrap());
        let open = |text: &str| connections.open(network(text), 2);
        let (first, _second) = (open("2001:db8::1").unwrap(), open("2001:db8::2").unwrap());
        assert!(open("2001:db8::3").is_none());
        let _other = open("192.0.2.1").unwrap();
        drop(first);
        assert!(open("2001:db8::3").is_some());
        assert!((0..9).all(|_| connections.open(network("192.0.2.2"), 0).is_some()));
        // Those that are gone are forgotten.
        assert_eq!(connections.0.lock().unwrap().len(), 2);
    }
}
