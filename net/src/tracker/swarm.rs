//! Who is in which swarm, in memory: sharded by the first byte of the info-hash, forgotten when a peer stops announcing.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use swarmseal_core::SubscriberId;

use super::metrics::SWARM_SIZES;
use crate::wire::announce::{Event, Peer, ScrapeEntry};
use crate::wire::api::Role;
use crate::wire::network::Network;

const SHARDS: usize = 64;
/// Entries of one subscriber in one swarm: two address families, and a restart under a new peer id.
const MAX_OF_SUBSCRIBER: usize = 4;
/// Entries of one seed id: a seed file may serve on several machines.
const MAX_OF_SEED: usize = 64;

/// An announce by a member of the torrent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Who, by the passkey.
    pub(super) member: SubscriberId,
    /// Subscriber or seed.
    pub(super) role: Role,
    /// The peer's name for itself.
    pub(super) peer_id: [u8; 20],
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Nothing is missing.
    pub(super) complete: bool,
    /// What happened.
    pub(super) event: Option<Event>,
    /// Peers wanted at most.
    pub(super) wanted: usize,
}

/// The answer: counts and some peers, never the asking one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) complete: u32,
    pub(super) incomplete: u32,
    pub(super) peers: Vec<Peer>,
}

/// All swarms, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) peers: u64,
    pub(super) complete: u64,
    /// Those with a peer in them.
    pub(super) swarms: u64,
    pub(super) largest: u64,
    /// Those with at most so many peers, by [`SWARM_SIZES`], and all.
    pub(super) by_size: [u64; SWARM_SIZES.len() + 1],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    member: SubscriberId,
    peer_id: [u8; 20],
    v6: bool,
}

struct Entry {
    key: Key,
    address: SocketAddr,
    complete: bool,
    seen: u64,
}

impl Entry {
    /// What it counts against; `None` for this machine.
    fn network(&self) -> Option<Network> {
        Some(Network::of(self.address.ip())).filter(|network| !network.is_this_machine())
    }
}

#[derive(Default)]
struct Swarm {
    entries: Vec<Entry>,
    /// No entry was seen before this time.
    oldest: u64,
    /// Where each key's entry is.
    places: HashMap<Key, usize>,
    /// How many entries each member has.
    of_member: HashMap<SubscriberId, usize>,
    /// How many each network has; this machine's are not counted.
    of_network: HashMap<Network, usize>,
    seeds: usize,
    downloaded: u32,
}

/// All swarms.
pub(super) struct Swarms {
    shards: Vec<Mutex<HashMap<[u8; 20], Swarm>>>,
    lifetime: u64,
    /// Entries of one network in one swarm at most; 0: any number.
    most_of_network: usize,
    /// Of [`Swarms::chance`].
    draws: AtomicU64,
}

impl Swarms {
    /// `lifetime`: seconds after which a silent peer is forgotten. `most_of_network`: entries of one network in one swarm at most;
    /// 0: any number.
    pub(super) fn new(lifetime: u64, most_of_network: usize) -> Self {
        let draws = AtomicU64::new(RandomState::new().hash_one(lifetime));
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Swarms { shards, lifetime, most_of_network, draws }
    }

    /// A number to choose peers by, another each time (SplitMix64). It need not be one that nobody can foresee, and asking
    /// the system for one would be a good part of an announce.
    pub(super) fn chance(&self) -> u64 {
        let mut draw = self.draws.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        draw = (draw ^ (draw >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        draw = (draw ^ (draw >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        draw ^ (draw >> 31)
    }

    /// Takes note of a peer and finds others. `random` chooses among them.
    pub(super) fn announce(&self, info_hash: &[u8; 20], arrival: &Arrival, now: u64, random: u64) -> Found {
        let mut shard = self.shard(info_hash);
        let swarm = shard.entry(*info_hash).or_default();
        swarm.drop_silent(now, self.lifetime);
        let key = Key { member: arrival.member, peer_id: arrival.peer_id, v6: arrival.address.is_ipv6() };
        if arrival.event == Some(Event::Stopped) {
            if let Some(&place) = swarm.places.get(&key) {
                swarm.remove(place);
            }
            return Found { peers: Vec::new(), ..swarm.counts() };
        }
        if arrival.event == Some(Event::Completed) {
            swarm.downloaded = swarm.downloaded.saturating_add(1);
        }
        swarm.insert(
            Entry { key, address: arrival.address, complete: arrival.complete, seen: now },
            arrival.role,
            self.most_of_network,
        );
        Found { peers: swarm.choose(&key, arrival, random), ..swarm.counts() }
    }

    /// Peers of a swarm for somebody who is not in it, and its counts.
    pub(super) fn visit(&self, info_hash: &[u8; 20], arrival: &Arrival, now: u64, random: u64) -> Found {
        let mut shard = self.shard(info_hash);
        let Some(swarm) = shard.get_mut(info_hash) else { return Found::default() };
        swarm.drop_silent(now, self.lifetime);
        let nobody = Key { member: arrival.member, peer_id: [0; 20], v6: false };
        Found { peers: swarm.choose(&nobody, arrival, random), ..swarm.counts() }
    }

    /// Whether a member is in a swarm.
    pub(super) fn has(&self, info_hash: &[u8; 20], member: &SubscriberId, now: u64) -> bool {
        let mut shard = self.shard(info_hash);
        shard.get_mut(info_hash).is_some_and(|swarm| {
            swarm.drop_silent(now, self.lifetime);
            swarm.of_member.contains_key(member)
        })
    }

    /// Where a member's peers listen, and whether they have everything.
    pub(super) fn of_member(
        &self,
        info_hash: &[u8; 20],
        member: &SubscriberId,
        now: u64,
    ) -> Vec<(SocketAddr, bool)> {
        let mut shard = self.shard(info_hash);
        let Some(swarm) = shard.get_mut(info_hash) else { return Vec::new() };
        swarm.drop_silent(now, self.lifetime);
        let own = swarm.entries.iter().filter(|entry| entry.key.member == *member);
        own.map(|entry| (entry.address, entry.complete)).collect()
    }

    /// Counts of one swarm.
    pub(super) fn scrape(&self, info_hash: &[u8; 20], now: u64) -> ScrapeEntry {
        let mut shard = self.shard(info_hash);
        let Some(swarm) = shard.get_mut(info_hash) else { return ScrapeEntry::default() };
        swarm.drop_silent(now, self.lifetime);
        let Found { complete, incomplete, .. } = swarm.counts();
        ScrapeEntry { complete, incomplete, downloaded: swarm.downloaded }
    }

    /// Takes a member out of a swarm: it was revoked.
    pub(super) fn expel(&self, info_hash: &[u8; 20], member: &SubscriberId) {
        if let Some(swarm) = self.shard(info_hash).get_mut(info_hash) {
            swarm.remove_where(|entry| entry.key.member == *member);
        }
    }

    /// Forgets the silent ones everywhere; gives the number of peers that stay.
    pub(super) fn sweep(&self, now: u64) -> usize {
        let mut peers = 0;
        for shard in &self.shards {
            for swarm in shard.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
                swarm.drop_silent(now, self.lifetime);
                peers += swarm.entries.len();
            }
        }
        peers
    }

    /// How many there are, of what size; the silent are forgotten first.
    pub(super) fn census(&self, now: u64) -> Census {
        let mut census = Census::default();
        for shard in &self.shards {
            for swarm in shard.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
                swarm.drop_silent(now, self.lifetime);
                let peers = swarm.entries.len() as u64;
                census.peers += peers;
                census.complete += swarm.seeds as u64;
                census.swarms += u64::from(peers > 0);
                census.largest = census.largest.max(peers);
                let bounds = SWARM_SIZES.iter().copied().chain([u64::MAX]);
                for (count, bound) in census.by_size.iter_mut().zip(bounds) {
                    *count += u64::from(peers <= bound);
                }
            }
        }
        census
    }

    fn shard(&self, info_hash: &[u8; 20]) -> MutexGuard<'_, HashMap<[u8; 20], Swarm>> {
        self.shards[usize::from(info_hash[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Swarm {
    fn counts(&self) -> Found {
        let all = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let complete = u32::try_from(self.seeds).unwrap_or(u32::MAX);
        Found { complete, incomplete: all - complete, peers: Vec::new() }
    }

    fn insert(&mut self, entry: Entry, role: Role, most_of_network: usize) {
        let network = entry.network();
        let moved = self.places.get(&entry.key).is_none_or(|&place| self.entries[place].network() != network);
        let of_it = network.and_then(|network| self.of_network.get(&network)).copied();
        if moved && most_of_network > 0 && of_it.is_some_and(|count| count >= most_of_network) {
            self.remove_oldest(|old| old.network() == network);
        }
        if let Some(&place) = self.places.get(&entry.key) {
            if moved {
                self.leave(self.entries[place].network());
                self.join(network);
            }
            self.seeds = self.seeds + usize::from(entry.complete) - usize::from(self.entries[place].complete);
            self.entries[place] = entry;
            return;
        }
        let limit = match role {
            Role::Subscriber => MAX_OF_SUBSCRIBER,
            Role::Seed => MAX_OF_SEED,
        };
        let member = entry.key.member;
        if self.of_member.get(&member).is_some_and(|&count| count >= limit) {
            self.remove_oldest(|old| old.key.member == member);
        }
        self.join(network);
        self.oldest = if self.entries.is_empty() { entry.seen } else { self.oldest.min(entry.seen) };
        self.seeds += usize::from(entry.complete);
        *self.of_member.entry(member).or_default() += 1;
        self.places.insert(entry.key, self.entries.len());
        self.entries.push(entry);
    }

    fn join(&mut self, network: Option<Network>) {
        network.into_iter().for_each(|network| *self.of_network.entry(network).or_default() += 1);
    }

    fn leave(&mut self, network: Option<Network>) {
        let Some(network) = network else { return };
        if let Some(count) = self.of_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.of_network.remove(&network);
            }
        }
    }

    fn remove_oldest(&mut self, of: impl Fn(&Entry) -> bool) {
        let among = self.entries.iter().enumerate().filter(|(_, entry)| of(entry));
        if let Some((oldest, _)) = among.min_by_key(|(_, entry)| entry.seen) {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, place: usize) {
        let entry = self.entries.swap_remove(place);
        self.leave(entry.network());
        self.places.remove(&entry.key);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.key, place);
        }
        self.seeds -= usize::from(entry.complete);
        if let Some(count) = self.of_member.get_mut(&entry.key.member) {
            *count -= 1;
            if *count == 0 {
                self.of_member.remove(&entry.key.member);
            }
        }
    }

    fn remove_where(&mut self, unwanted: impl Fn(&Entry) -> bool) {
        for place in (0..self.entries.len()).rev() {
            if unwanted(&self.entries[place]) {
                self.remove(place);
            }
        }
    }

    /// Looks through the entries only if one can have gone silent: at most once for each second of the clock.
    fn drop_silent(&mut self, now: u64, lifetime: u64) {
        if now.saturating_sub(self.oldest) > lifetime {
            self.remove_where(|entry| now.saturating_sub(entry.seen) > lifetime);
            self.oldest = self.entries.iter().map(|entry| entry.seen).min().unwrap_or(now);
        }
    }

    /// A run of entries from a random place on. A seed has no use for seeds, and nobody for itself.
    fn choose(&self, own: &Key, arrival: &Arrival, random: u64) -> Vec<Peer> {
        let count = self.entries.len();
        let start = (random % count.max(1) as u64) as usize;
        self.entries[start..]
            .iter()
            .chain(&self.entries[..start])
            .filter(|entry| {
                let same_peer = entry.key.member == own.member && entry.key.peer_id == own.peer_id;
                !same_peer && entry.address != arrival.address && !(arrival.complete && entry.complete)
            })
            .take(arrival.wanted)
            .map(|entry| Peer { address: entry.address, id: Some(entry.key.peer_id) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: [u8; 20] = [7; 20];
    const NOBODY: [u16; 0] = [];

    fn arrival(member: u8, port: u16) -> Arrival {
        Arrival {
            member: SubscriberId([member; 32]),
            role: Role::Subscriber,
            peer_id: [member; 20],
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            complete: false,
            event: None,
            wanted: 50,
        }
    }

    fn ports(found: &Found) -> Vec<u16> {
        let mut ports: Vec<u16> = found.peers.iter().map(|peer| peer.address.port()).collect();
        ports.sort_unstable();
        ports
    }

    #[test]
    fn peers_find_each_other_and_not_themselves() {
        let swarms = Swarms::new(100, 0);
        assert_eq!(ports(&swarms.announce(&HASH, &arrival(1, 10), 0, 0)), NOBODY);
        assert_eq!(ports(&swarms.announce(&HASH, &arrival(2, 20), 0, 1)), [10]);
        assert_eq!(ports(&swarms.announce(&HASH, &arrival(1, 10), 0, 2)), [20]);
        let found = swarms.announce(&HASH, &arrival(3, 30), 0, 3);
        assert_eq!((ports(&found), found.complete, found.incomplete), (vec![10, 20], 0, 3));
        // Restarted under a new peer id at the same address: still itself.
        let again = Arrival { peer_id: [9; 20], ..arrival(1, 10) };
        assert_eq!(ports(&swarms.announce(&HASH, &again, 0, 4)), [20, 30]);
        assert_eq!(ports(&swarms.announce(&[8; 20], &arrival(4, 40), 0, 5)), NOBODY);
    }

    #[test]
    fn everybody_is_chosen_in_the_end() {
        let swarms = Swarms::new(100, 0);
        for member in 1..=40 {
            swarms.announce(&HASH, &arrival(member, u16::from(member)), 0, 0);
        }
        let mut seen = [0; 40];
        for _ in 0..2000 {
            let one = Arrival { wanted: 1, ..arrival(200, 200) };
            for port in ports(&swarms.visit(&HASH, &one, 0, swarms.chance())) {
                seen[usize::from(port) - 1] += 1;
            }
        }
        assert!(seen.iter().all(|&count| (15..100).contains(&count)), "{seen:?}");
    }

    #[test]
    fn silent_and_stopped_peers_are_forgotten() {
        let swarms = Swarms::new(100, 0);
        swarms.announce(&HASH, &arrival(1, 10), 0, 0);
        swarms.announce(&HASH, &arrival(2, 20), 60, 0);
        assert_eq!(ports(&swarms.announce(&HASH, &arrival(3, 30), 101, 0)), [20]);
        swarms.announce(&HASH, &Arrival { event: Some(Event::Stopped), ..arrival(2, 20) }, 102, 0);
        assert_eq!(ports(&swarms.announce(&HASH, &arrival(3, 30), 103, 0)), NOBODY);
        assert_eq!(swarms.sweep(1000), 0);
    }

    #[test]
    fn seeds_are_counted_and_not_told_of_each_other() {
        let swarms = Swarms::new(100, 0);
        let seed = |member, port| Arrival { complete: true, role: Role::Seed, ..arrival(member, port) };
        swarms.announce(&HASH, &seed(1, 10), 0, 0);
        assert_eq!(ports(&swarms.announce(&HASH, &seed(2, 20), 0, 0)), NOBODY);
        assert_eq!(ports(&swarms.announce(&HASH, &arrival(3, 30), 0, 0)), [10, 20]);
        let done = Arrival { complete: true, event: Some(Event::Completed), ..arrival(3, 30) };
        swarms.announce(&HASH, &done, 0, 0);
        assert_eq!(swarms.scrape(&HASH, 0), ScrapeEntry { complete: 3, downloaded: 1, incomplete: 0 });
        assert_eq!(swarms.scrape(&[1; 20], 0), ScrapeEntry::default());
    }

    #[test]
    fn the_census_counts_swarms_by_size() {
        let swarms = Swarms::new(100, 0);
        for member in 0..12 {
            let complete = member < 2;
            swarms.announce(&HASH, &Arrival { complete, ..arrival(member, 10 + u16::from(member)) }, 0, 0);
        }
        swarms.announce(&[8; 20], &arrival(1, 10), 0, 0);
        let by_size = [0, 1, 1, 2, 2, 2, 2];
        assert_eq!(swarms.census(0), Census { peers: 13, complete: 2, swarms: 2, largest: 12, by_size });
        assert_eq!(swarms.census(1000).peers, 0);
    }

    #[test]
    fn one_member_cannot_fill_a_swarm() {
        let swarms = Swarms::new(100, 0);
        for i in 0..50 {
            let many = Arrival { peer_id: [i; 20], ..arrival(1, 100 + u16::from(i)) };
            swarms.announce(&HASH, &many, u64::from(i), 0);
        }
        assert_eq!(ports(&swarms.announce(&HASH, &arrival(2, 20), 50, 0)), [146, 147, 148, 149]);
        swarms.expel(&HASH, &SubscriberId([1; 32]));
        assert_eq!(ports(&swarms.announce(&HASH, &arrival(2, 20), 50, 0)), NOBODY);
    }

    #[test]
    fn one_network_cannot_fill_a_swarm() {
        let swarms = Swarms::new(100, 3);
        let of = |member: u8, host: u8| Arrival {
            address: SocketAddr::from(([192, 0, 2, host], 100 + u16::from(member))),
            ..arrival(member, 0)
        };
        swarms.announce(&HASH, &of(100, 2), 0, 0);
        for member in 0..50 {
            swarms.announce(&HASH, &of(member, 1), u64::from(member), 0);
            // What is there already displaces nobody.
            swarms.announce(&HASH, &of(member, 1), u64::from(member), 0);
        }
        let visitor = arrival(200, 1);
        assert_eq!(ports(&swarms.visit(&HASH, &visitor, 50, 0)), [147, 148, 149, 200]);
        // A peer that moves there displaces the oldest, and leaves room where it was.
        swarms.announce(&HASH, &of(100, 1), 51, 0);
        assert_eq!(ports(&swarms.visit(&HASH, &visitor, 51, 0)), [148, 149, 200]);
        // This machine's may be any number, and so may all where there is no bound.
        for member in 0..9 {
            swarms.announce(&HASH, &arrival(member, 10 + u16::from(member)), 52, 0);
        }
        assert_eq!(swarms.scrape(&HASH, 52).incomplete, 12);
    }

    proptest! {
        #[test]
        fn counts_stay_true(steps in prop::collection::vec((0u8..6, 0u8..4, any::<bool>(), 0u8..4, 0u64..40), 1..80)) {
            let swarms = Swarms::new(100, 5);
            let mut now = 0;
            for (member, peer_id, complete, event, pause) in steps {
                now += pause;
                let event = [None, Some(Event::Started), Some(Event::Stopped), Some(Event::Completed)][usize::from(event)];
                let port = 100 * u16::from(member) + u16::from(peer_id) + 1;
                let address = SocketAddr::from(([127, 0, 0, 1 + peer_id / 2 + u8::from(complete)], port));
                let arrival = Arrival { peer_id: [peer_id; 20], complete, event, address, ..arrival(member, port) };
                let found = swarms.announce(&HASH, &arrival, now, now);
                prop_assert!(found.peers.iter().all(|peer| peer.address != arrival.address));
                let shard = swarms.shard(&HASH);
                let swarm = &shard[&HASH];
                prop_assert_eq!(swarm.seeds, swarm.entries.iter().filter(|entry| entry.complete).count());
                prop_assert_eq!(swarm.places.len(), swarm.entries.len());
                prop_assert!(swarm.entries.iter().enumerate().all(|(i, entry)| swarm.places[&entry.key] == i));
                let counted = swarm.entries.iter().filter(|entry| entry.network().is_some()).count();
                prop_assert_eq!(swarm.of_network.values().sum::<usize>(), counted);
                prop_assert!(swarm.of_network.values().all(|&count| (1..=5).contains(&count)));
                prop_assert_eq!(swarm.of_member.values().sum::<usize>(), swarm.entries.len());
            }
        }
    }
}
