//! Places of connections: so many in all, of strangers, and of one network. Members are those on whose connection a session's token, a
//! passkey or an admin token was seen; all others are strangers, and a share of the places is never theirs. When the places run out, an
//! idle connection of the network that has most gives way to the newcomer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::Config;
use crate::wire::network::Network;

/// Descriptors for all that is no accepted connection: store, log, listeners, calls to other servers, and connections that have lost
/// their place and are about to be closed.
const OTHER_DESCRIPTORS: usize = 64 + CLOSING;
/// Connections that may be about to be closed.
pub(super) const CLOSING: usize = 64;
/// Places where the system has any number of descriptors and the configuration sets no bound.
const MOST: usize = 1 << 20;

/// How many places there are; 0: any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// In all, never 0.
    pub(super) in_all: usize,
    /// Of strangers, never 0.
    pub(super) of_strangers: usize,
    /// Of one network.
    pub(super) of_each: usize,
    /// TLS handshakes of one network that have not ended.
    pub(super) handshakes_of_each: usize,
}

impl Bounds {
    /// Those of a configuration, fitted to the descriptors that this process may have.
    pub(super) fn new(config: &Config, descriptors: Option<usize>) -> Self {
        let there = descriptors.map_or(MOST, |all| all.saturating_sub(OTHER_DESCRIPTORS).clamp(1, MOST));
        let in_all = match config.max_connections {
            0 => there,
            wanted => wanted.min(there),
        };
        let kept = in_all * usize::from(config.reserved_percent) / 100;
        Bounds {
            in_all,
            of_strangers: (in_all - kept).max(1),
            of_each: config.max_connections_per_address,
            handshakes_of_each: config.max_handshakes_per_address,
        }
    }
}

/// The places of a server.
#[derive(Debug)]
pub(super) struct Places {
    bounds: Bounds,
    chance: RandomState,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    taken: usize,
    strangers: usize,
    networks: HashMap<Network, OfNetwork>,
}

/// The connections of one network. A trusted proxy's count for nothing: it speaks for others.
#[derive(Debug, Default)]
struct OfNetwork {
    held: Vec<Held>,
    strangers: usize,
    handshakes: usize,
}

#[derive(Debug)]
struct Held {
    id: u64,
    whose: Whose,
    handshakes: bool,
    calls: Arc<AtomicUsize>,
    /// What is dropped with an entry tells its place.
    _lost: oneshot::Sender<Infallible>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Stranger,
    Member,
    Proxy,
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) holder: Holder,
    lost: oneshot::Receiver<Infallible>,
}

/// What a connection says of itself to the table.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    of: Arc<Places>,
    network: Network,
    id: u64,
    is_member: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

/// A call that is being worked on: its connection keeps its place.
#[derive(Debug)]
pub(super) struct Working(Arc<AtomicUsize>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Places {
    /// All of them free.
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Places { bounds, chance: RandomState::new(), table: Mutex::default() })
    }

    /// A place for a connection from `address`, and whether another connection lost its own for it; `None` where the network has as many
    /// as it may, or nobody is idle. `is_proxy`: a trusted proxy. `is_encrypted`: a TLS handshake comes first.
    pub(super) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        is_proxy: bool,
        is_encrypted: bool,
    ) -> Option<(Place, bool)> {
        let network = Network::of(address);
        let is_bounded = !is_proxy && !network.is_this_machine();
        let whose = if is_proxy { Whose::Proxy } else { Whose::Stranger };
        let bounds = &self.bounds;
        let mut table = self.table();
        let of_it = table.networks.get(&network);
        let (held, handshakes) = of_it.map_or((0, 0), |of_it| (of_it.held.len(), of_it.handshakes));
        if is_bounded && bounds.of_each > 0 && held >= bounds.of_each {
            return None;
        }
        let chance = self.chance.hash_one(table.next);
        let mut displaced = false;
        if is_encrypted
            && is_bounded
            && bounds.handshakes_of_each > 0
            && handshakes >= bounds.handshakes_of_each
        {
            displaced = table.drop_one_of(network, chance, |held| held.handshakes);
        } else if whose == Whose::Stranger && table.strangers >= bounds.of_strangers {
            displaced = table.drop_idle(chance, |of_it| of_it.strangers, &[Whose::Stranger]);
            if !displaced {
                return None;
            }
        } else if table.taken >= bounds.in_all {
            let count =
                |of_it: &OfNetwork| of_it.held.iter().filter(|held| held.whose != Whose::Proxy).count();
            displaced = table.drop_idle(chance, count, &[Whose::Stranger, Whose::Member]);
            if !displaced {
                return None;
            }
        }
        let (sender, lost) = oneshot::channel();
        let calls = Arc::new(AtomicUsize::new(0));
        let id = table.next;
        table.next += 1;
        table.insert(
            network,
            Held { id, whose, handshakes: is_encrypted, calls: Arc::clone(&calls), _lost: sender },
        );
        drop(table);
        let is_member = Arc::new(AtomicBool::new(is_proxy));
        let holder = Holder { of: Arc::clone(self), network, id, is_member, calls };
        Some((Place { holder, lost }, displaced))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, network: Network, held: Held) {
        let of_it = self.networks.entry(network).or_default();
        self.taken += 1;
        let strangers = usize::from(held.whose == Whose::Stranger);
        self.strangers += strangers;
        of_it.strangers += strangers;
        of_it.handshakes += usize::from(held.handshakes);
        of_it.held.push(held);
    }

    fn remove(&mut self, network: Network, at: usize) {
        let Some(of_it) = self.networks.get_mut(&network) else { return };
        let held = of_it.held.swap_remove(at);
        self.taken -= 1;
        let strangers = usize::from(held.whose == Whose::Stranger);
        self.strangers -= strangers;
        of_it.strangers -= strangers;
        of_it.handshakes -= usize::from(held.handshakes);
        if of_it.held.is_empty() {
            self.networks.remove(&network);
        }
    }

    /// Drops an idle connection, at random, of a network for which `count` is highest; of another where those have none. Of several kinds
    /// the first goes first.
    fn drop_idle(&mut self, chance: u64, count: impl Fn(&OfNetwork) -> usize, kinds: &[Whose]) -> bool {
        let may =
            |whose: Whose| move |held: &Held| held.whose == whose && held.calls.load(Ordering::Relaxed) == 0;
        let most = self.networks.values().map(&count).max().unwrap_or(0);
        let (mut largest, mut others) = (Vec::new(), Vec::new());
        for (&network, of_it) in &self.networks {
            if count(of_it) == most { &mut largest } else { &mut others }.push(network);
        }
        let first = (chance % largest.len().max(1) as u64) as usize;
        largest.rotate_left(first);
        for networks in [largest, others] {
            for &whose in kinds {
                let has_one = |network: &&Network| self.networks[*network].held.iter().any(may(whose));
                if let Some(&network) = networks.iter().find(has_one) {
                    return self.drop_one_of(network, chance, may(whose));
                }
            }
        }
        false
    }

    /// Drops a connection of a network that `may` go, at random.
    fn drop_one_of(&mut self, network: Network, chance: u64, may: impl Fn(&Held) -> bool) -> bool {
        let held = self.networks.get(&network).map_or(&[][..], |of_it| &of_it.held);
        let start = (chance.rotate_left(32) % held.len().max(1) as u64) as usize;
        let turn = (start..held.len()).chain(0..start);
        let Some(at) = turn.into_iter().find(|&at| may(&held[at])) else { return false };
        self.remove(network, at);
        true
    }

    /// Where a connection stands in its network's list, as long as it has its place.
    fn position(&self, holder: &Holder) -> Option<usize> {
        self.networks.get(&holder.network)?.held.iter().position(|held| held.id == holder.id)
    }

    fn change(&mut self, holder: &Holder, change: impl Fn(&mut Held)) {
        let Some(at) = self.position(holder) else { return };
        let Some(of_it) = self.networks.get_mut(&holder.network) else { return };
        let held = &mut of_it.held[at];
        let (was_stranger, shook) = (held.whose == Whose::Stranger, held.handshakes);
        change(held);
        let strangers = usize::from(was_stranger && held.whose != Whose::Stranger);
        of_it.handshakes -= usize::from(shook && !held.handshakes);
        of_it.strangers -= strangers;
        self.strangers -= strangers;
    }
}

impl Place {
    /// Done once another connection has the place.
    pub(super) async fn lost(&mut self) {
        let _ = (&mut self.lost).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.holder.of.table();
        if let Some(at) = table.position(&self.holder) {
            table.remove(self.holder.network, at);
        }
    }
}

impl Holder {
    /// The TLS handshake has ended.
    pub(super) fn has_shaken_hands(&self) {
        self.of.table().change(self, |held| held.handshakes = false);
    }

    /// The connection is a member's from now on.
    pub(super) fn is_member(&self) {
        if !self.is_member.swap(true, Ordering::Relaxed) {
            self.of.table().change(self, |held| held.whose = Whose::Member);
        }
    }

    /// A call is there whole: the connection keeps its place until the answer is made.
    pub(super) fn works(&self) -> Working {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Working(Arc::clone(&self.calls))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    const BOUNDS: Bounds = Bounds { in_all: 8, of_strangers: 6, of_each: 4, handshakes_of_each: 2 };

    fn is_lost(place: &mut Place) -> bool {
        place.lost.try_recv() == Err(TryRecvError::Closed)
    }

    fn enter(places: &Arc<Places>, network: u8) -> Option<Place> {
        places.enter(IpAddr::from([192, 0, 2, network]), false, false).map(|(place, _)| place)
    }

    fn lost(held: &mut [Place]) -> Vec<usize> {
        (0..held.len()).filter(|&at| is_lost(&mut held[at])).collect()
    }

    /// What the counts should be.
    fn assert_counts(places: &Places) {
        let table = places.table();
        let all = || table.networks.values().flat_map(|of_it| &of_it.held);
        assert_eq!(table.taken, all().count());
        assert_eq!(table.strangers, all().filter(|held| held.whose == Whose::Stranger).count());
        for of_it in table.networks.values() {
            assert_eq!(of_it.handshakes, of_it.held.iter().filter(|held| held.handshakes).count());
            assert_eq!(
                of_it.strangers,
                of_it.held.iter().filter(|held| held.whose == Whose::Stranger).count()
            );
        }
    }

    #[test]
    fn the_network_that_has_most_gives_way_and_has_so_many_and_no_more() {
        for _ in 0..50 {
            let places = Places::new(BOUNDS);
            let mut held: Vec<Place> =
                [1, 1, 1, 2, 3, 4].map(|network| enter(&places, network).unwrap()).into();
            let newcomer = enter(&places, 5).unwrap();
            let lost = lost(&mut held);
            assert!(lost.len() == 1 && lost[0] < 3, "{lost:?}");
            assert_counts(&places);
            drop((held, newcomer));
            assert!(places.table().networks.is_empty());
        }
        let places = Places::new(BOUNDS);
        let held: Vec<Place> = (0..4).map(|_| enter(&places, 1).unwrap()).collect();
        assert!(enter(&places, 1).is_none());
        drop(held);
        assert!(enter(&places, 1).is_some());
        assert_counts(&places);
    }

    #[test]
    fn strangers_leave_a_share_to_members() {
        let places = Places::new(BOUNDS);
        let mut members: Vec<Place> = [1, 2].map(|network| enter(&places, network).unwrap()).into();
        members.iter().for_each(|place| place.holder.is_member());
        members[0].holder.is_member();
        let mut strangers: Vec<Place> = (3..9).map(|network| enter(&places, network).unwrap()).collect();
        assert_eq!(lost(&mut strangers).len(), 0);
        for network in 10..40 {
            strangers.push(enter(&places, network).unwrap());
        }
        assert_eq!(lost(&mut members).len(), 0);
        assert_eq!(lost(&mut strangers).len(), 30);
        assert_counts(&places);
        // With all places taken, members of a network that has most give way, too.
        let mut crowd: Vec<Place> = Vec::new();
        for _ in 0..4 {
            crowd.push(enter(&places, 50).unwrap());
            crowd.last().unwrap().holder.is_member();
        }
        assert!(places.table().taken <= 8);
        assert!(enter(&places, 60).is_some());
        assert!(lost(&mut members).is_empty() && !lost(&mut crowd).is_empty());
        assert_counts(&places);
    }

    #[test]
    fn who_is_being_answered_keeps_its_place() {
        let places = Places::new(BOUNDS);
        let mut held: Vec<Place> = (1..7).map(|network| enter(&places, network).unwrap()).collect();
        let mut working: Vec<Working> = held.iter().map(|place| place.holder.works()).collect();
        assert!(enter(&places, 9).is_none());
        working.remove(3);
        assert!(enter(&places, 9).is_some());
        assert_eq!(lost(&mut held), [3]);
        assert_counts(&places);
    }

    #[test]
    fn handshakes_of_a_network_displace_each_other() {
        let places = Places::new(Bounds { of_each: 0, ..BOUNDS });
        let enter = |last| places.enter(IpAddr::from([192, 0, 2, last]), false, true).unwrap().0;
        let mut held = vec![enter(1), enter(1), enter(2)];
        held[0].holder.has_shaken_hands();
        held.push(enter(1));
        assert!(lost(&mut held).is_empty());
        held.push(enter(1));
        let lost = lost(&mut held);
        assert!(lost == [1] || lost == [3], "{lost:?}");
        assert_counts(&places);
    }

    #[test]
    fn this_machine_and_proxies_are_bounded_in_all_alone() {
        let places = Places::new(BOUNDS);
        let local =
            |is_proxy| places.enter(IpAddr::from([127, 0, 0, 1]), is_proxy, true).map(|(place, _)| place);
        let mut strangers: Vec<Place> = (0..6).map(|_| local(false).unwrap()).collect();
        assert!(lost(&mut strangers).is_empty());
        let mut proxies: Vec<Place> = (0..8).map(|_| local(true).unwrap()).collect();
        assert!(lost(&mut proxies).is_empty());
        assert_eq!(lost(&mut strangers).len(), 6);
        // Nobody is left that may go.
        assert!(local(true).is_none() && local(false).is_none());
        assert_counts(&places);
    }

    #[test]
    fn bounds_fit_the_descriptors_and_0_is_none() {
        let config = |max_connections, reserved_percent| Config {
            max_connections,
            reserved_percent,
            ..Config::new("")
        };
        let fitted = |config: Config, descriptors| {
            let bounds = Bounds::new(&config, descriptors);
            (bounds.in_all, bounds.of_strangers)
        };
        assert_eq!(fitted(config(4096, 25), Some(1024)), (896, 672));
        assert_eq!(fitted(config(100, 25), Some(1024)), (100, 75));
        assert_eq!(fitted(config(0, 0), Some(1024)), (896, 896));
        assert_eq!(fitted(config(0, 50), None), (MOST, MOST / 2));
        assert_eq!(fitted(config(4096, 100), Some(10)), (1, 1));
        let places =
            Places::new(Bounds { of_each: 0, in_all: 1000, of_strangers: 1000, handshakes_of_each: 0 });
        let held: Vec<_> =
            (0..900).map(|_| places.enter(IpAddr::from([192, 0, 2, 1]), false, true).unwrap()).collect();
        assert!(held.iter().all(|(_, displaced)| !displaced));
    }
}
