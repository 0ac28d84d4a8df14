//! How many calls a second one subscriber may make, and one network that has no session; how many connections and subscriptions a network
//! may make.
//! Memory is bounded: beyond so many callers at once, new ones share one allowance.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
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
    subscriptions: Option<Limit<Network>>,
    connections: Option<Limit<Network>>,
}

impl Limits {
    /// Those of a configuration; a rate of 0 is no limit.
    pub(super) fn new(config: &Config) -> Self {
        Limits {
            calls: Limit::per_second(config.calls_per_second, config.calls_burst, MAX_CALLERS),
            addresses: Limit::per_second(
                config.address_calls_per_second,
                config.address_calls_burst,
                MAX_CALLERS,
            ),
            announces: Limit::per_second(config.announces_per_second, config.announces_burst, MAX_CALLERS),
            connections: Limit::per_second(
                config.address_connections_per_second,
                config.address_connections_burst,
                MAX_CALLERS,
            ),
            subscriptions: Limit::per_day(config.address_subscriptions_per_day, MAX_CALLERS),
        }
    }

    /// Counts a call of a subscriber in its session. Errors: seconds to wait.
    pub(super) fn call(&self, id: &SubscriberId) -> Result<(), u32> {
        self.calls.as_ref().map_or(Ok(()), |limit| limit.check(id))
    }

    /// Counts a call without a session. This machine may make any number. Errors: seconds to wait.
    pub(super) fn address(&self, address: IpAddr) -> Result<(), u32> {
        of_network(self.addresses.as_ref(), address)
    }

    /// Counts a connection. This machine may open any number. Errors: seconds to wait.
    pub(super) fn connection(&self, address: IpAddr) -> Result<(), u32> {
        of_network(self.connections.as_ref(), address)
    }

    /// Counts a new subscription. This machine may make any number. Errors: seconds to wait.
    pub(super) fn subscription(&self, address: IpAddr) -> Result<(), u32> {
        of_network(self.subscriptions.as_ref(), address)
    }

    /// Counts an announce or scrape. Errors: seconds to wait.
    pub(super) fn announce(&self, id: &SubscriberId) -> Result<(), u32> {
        self.announces.as_ref().map_or(Ok(()), |limit| limit.check(id))
    }

    /// Forgets those who have been silent for long enough.
    pub(super) fn sweep(&self) {
        self.calls.iter().chain(&self.announces).for_each(|limit| limit.each.retain_recent());
        self.networks().for_each(|limit| limit.each.retain_recent());
    }

    /// Callers that are remembered.
    pub(super) fn len(&self) -> usize {
        let subscribers: usize = self.calls.iter().chain(&self.announces).map(|limit| limit.each.len()).sum();
        let networks: usize = self.networks().map(|limit| limit.each.len()).sum();
        subscribers + networks
    }

    fn networks(&self) -> impl Iterator<Item = &Limit<Network>> {
        self.addresses.iter().chain(&self.subscriptions).chain(&self.connections)
    }
}

fn of_network(limit: Option<&Limit<Network>>, address: IpAddr) -> Result<(), u32> {
    let network = Network::of(address);
    match limit {
        Some(limit) if !network.is_this_machine() => limit.check(&network),
        _ => Ok(()),
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
    fn per_second(count: u32, burst: u32, room: usize) -> Option<Self> {
        let quota = Quota::per_second(NonZeroU32::new(count)?).allow_burst(NonZeroU32::new(burst)?);
        Some(Limit::new(quota, room))
    }

    /// All of a day's may come at once.
    fn per_day(count: u32, room: usize) -> Option<Self> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let all = NonZeroU32::new(count)?;
        Some(Limit::new(Quota::with_period(DAY / count)?.allow_burst(all), room))
    }

    fn new(quota: Quota, room: usize) -> Self {
        Limit {
            each: RateLimiter::hashmap_with_clock(quota, MonotonicClock),
            rest: RateLimiter::direct_with_clock(quota, MonotonicClock),
            room,
            started: std::time::Instant::now(),
            made_room: AtomicU64::new(0),
        }
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
        let calls = Limit::per_second(1, 3, 10);
        let limits =
            Limits { calls, addresses: None, announces: None, subscriptions: None, connections: None };
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
        let limit = Limit::<u32>::per_second(1, 2, 5).unwrap();
        let refused = (0..1000).filter(|key| limit.check(key).is_err()).count();
        assert!(limit.each.len() <= 5, "{}", limit.each.len());
        assert!(refused >= 900, "{refused}");
        // Those that are known keep their own.
        assert!(Limit::<u32>::per_second(0, 2, 5).is_none());
    }

    #[test]
    fn a_network_subscribes_so_often_a_day_and_this_machine_any_number_of_times() {
        let subscriptions = Limit::per_day(3, 10);
        let limits =
            Limits { calls: None, addresses: None, announces: None, subscriptions, connections: None };
        let subscribe = |text: &str| limits.subscription(text.parse().unwrap());
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8::3"] {
            assert_eq!(subscribe(address), Ok(()));
        }
        let wait = subscribe("2001:db8::4").unwrap_err();
        assert!((28_000..=28_800).contains(&wait), "{wait}");
        assert_eq!(subscribe("192.0.2.1"), Ok(()));
        assert!((0..9).all(|_| subscribe("127.0.0.1").is_ok() && subscribe("::1").is_ok()));
        assert!((0..9).any(|_| subscribe("127.0.0.2").is_err()));
    }
}
