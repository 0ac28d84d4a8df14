//! Slots of incoming connections whose handshake has not ended, apart from the places of peers: silent connections take none of those, and
//! lose their slots to others when the slots run out.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::peer::state::Random;
use crate::wire::network::Network;

/// The slots of a node.
#[derive(Debug)]
pub(super) struct Handshakes {
    in_all: usize,
    of_each: usize,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    random: Random,
    next: u64,
    /// What is dropped with an entry tells its slot.
    under_way: BTreeMap<u64, (Network, oneshot::Sender<Infallible>)>,
}

/// One handshake's slot, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    id: u64,
    held: oneshot::Receiver<Infallible>,
    of: Arc<Handshakes>,
}

impl Handshakes {
    /// `in_all` handshakes, `of_each` of one network; 0: any number. `seed`: what chance begins with.
    pub(super) fn new(in_all: usize, of_each: usize, seed: u64) -> Arc<Self> {
        let table = Table { random: Random::new(seed), next: 0, under_way: BTreeMap::new() };
        Arc::new(Handshakes { in_all, of_each, table: Mutex::new(table) })
    }

    /// A slot for a connection from `address`. Where there is none, another handshake loses its own, at random: one of the same
    /// network where that has as many as it may, else one of the networks that have most. This machine may have all slots.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Slot {
        let network = Network::of(address);
        let (sender, held) = oneshot::channel();
        let mut table = self.table();
        if self.of_each > 0 && !network.is_this_machine() && table.count(network) >= self.of_each {
            table.drop_one(|of| of == network);
        } else if self.in_all > 0 && table.under_way.len() >= self.in_all {
            let counts = table.counts();
            let most = counts.values().copied().max();
            table.drop_one(|of| counts.get(&of).copied() == most);
        }
        let id = table.next;
        table.next += 1;
        table.under_way.insert(id, (network, sender));
        drop(table);
        Slot { id, held, of: self.clone() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn count(&self, network: Network) -> usize {
        self.under_way.values().filter(|(of, _)| *of == network).count()
    }

    fn counts(&self) -> HashMap<Network, usize> {
        let mut counts = HashMap::new();
        self.under_way.values().for_each(|(of, _)| *counts.entry(*of).or_default() += 1);
        counts
    }

    fn drop_one(&mut self, among: impl Fn(Network) -> bool) {
        let ids: Vec<u64> =
            self.under_way.iter().filter(|(_, (of, _))| among(*of)).map(|(&id, _)| id).collect();
        if !ids.is_empty() {
            let chosen = self.random.below(ids.len() as u64) as usize;
            self.under_way.remove(&ids[chosen]);
        }
    }
}

impl Slot {
    /// Done once another handshake has the slot.
    pub(super) async fn lost(&mut self) {
        let _ = (&mut self.held).await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.of.table().under_way.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn is_lost(slot: &mut Slot) -> bool {
        slot.held.try_recv() == Err(TryRecvError::Closed)
    }

    fn network(number: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, number).into()
    }

    fn enter(slots: &Arc<Handshakes>, networks: &[u8]) -> Vec<Slot> {
        networks.iter().map(|&number| slots.enter(network(number))).collect()
    }

    /// Which of these slots are lost.
    fn lost(slots: &mut [Slot]) -> Vec<usize> {
        (0..slots.len()).filter(|&slot| is_lost(&mut slots[slot])).collect()
    }

    #[test]
    fn a_network_displaces_its_own() {
        let slots = Handshakes::new(32, 2, 1);
        let mut held = enter(&slots, &[1, 1, 2, 1, 1, 1]);
        let lost = lost(&mut held);
        assert_eq!(lost.len(), 3);
        assert!(!lost.contains(&2) && !lost.contains(&5), "the other's, or the newest: {lost:?}");
        // Those of this machine are bounded in all alone.
        let mut local: Vec<_> = (0..9).map(|_| slots.enter(Ipv4Addr::LOCALHOST.into())).collect();
        assert!(!local.iter_mut().any(is_lost));
    }

    #[test]
    fn when_all_slots_are_taken_one_of_the_networks_with_most_is_lost_at_random() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let slots = Handshakes::new(8, 4, seed);
            // Three of network 3 and three of network 5.
            let mut held = enter(&slots, &[1, 3, 3, 5, 2, 5, 3, 5]);
            let newcomer = &mut slots.enter(network(9));
            let lost = lost(&mut held);
            assert!(!is_lost(newcomer) && lost.len() == 1, "{lost:?}");
            seen.extend(lost);
        }
        assert_eq!(seen, [1, 2, 3, 5, 6, 7].into());
        // Where each has one, anybody's is.
        let slots = Handshakes::new(3, 4, 7);
        let mut held = enter(&slots, &[1, 2, 3, 4]);
        assert_eq!(lost(&mut held[..3]).len(), 1);
        // This machine is no exception.
        let slots = Handshakes::new(3, 4, 7);
        let mut local: Vec<_> = (0..3).map(|_| slots.enter(Ipv4Addr::LOCALHOST.into())).collect();
        let _other = slots.enter(network(1));
        assert_eq!(lost(&mut local).len(), 1);
    }

    #[test]
    fn what_ends_gives_its_slot_back_and_no_bound_is_none() {
        let slots = Handshakes::new(1, 1, 1);
        drop(slots.enter(network(1)));
        let mut held = enter(&slots, &[1]);
        assert!(lost(&mut held).is_empty());
        drop(enter(&slots, &[2]));
        assert_eq!(slots.table().under_way.len(), 0);
        let slots = Handshakes::new(0, 0, 1);
        assert!(lost(&mut enter(&slots, &[1; 200])).is_empty());
    }
}
