//! What each network has sent, good and bad. Addresses alone have a reputation: a subscriber id or a BEP 3 peer id can be borrowed.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::wire::network::Network;

/// Networks that are remembered.
const MAX_NETWORKS: usize = 4096;

/// How much an address may do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tolerance {
    /// So many bad pieces are too many; 0: no number is.
    pub(super) bad_pieces: u32,
    /// If they are more than so many in a hundred; 0: however many good ones there are.
    pub(super) bad_percent: u32,
}

/// The reputations of a run.
#[derive(Debug)]
pub(super) struct Reputation {
    tolerance: Tolerance,
    networks: HashMap<Network, Record>,
    room: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    refused: bool,
    bad: u64,
    good: u64,
}

impl Reputation {
    pub(super) fn new(tolerance: Tolerance) -> Self {
        Reputation { tolerance, networks: HashMap::new(), room: MAX_NETWORKS }
    }

    /// A good piece came from `address`.
    pub(super) fn good(&mut self, address: IpAddr) {
        let network = Network::of(address);
        if let Some(record) = self.record(network, |least| least.bad == 0) {
            record.good += 1;
        }
    }

    /// A bad piece came from `address`, or something that is as bad. Whether that was one too many: from now on, and for the rest of
    /// the run, the address is not dealt with.
    pub(super) fn bad(&mut self, address: IpAddr) -> bool {
        let (network, tolerance) = (Network::of(address), self.tolerance);
        let Some(record) = self.record(network, |least| !least.refused) else { return false };
        record.bad += 1;
        let many = tolerance.bad_pieces > 0 && record.bad >= u64::from(tolerance.bad_pieces);
        let most = 100 * record.bad > u64::from(tolerance.bad_percent.min(100)) * (record.good + record.bad);
        let newly = many && most && !record.refused && !network.is_this_machine();
        record.refused |= newly;
        newly
    }

    /// Whether `address` is not dealt with.
    pub(super) fn refuses(&self, address: IpAddr) -> bool {
        self.networks.get(&Network::of(address)).is_some_and(|record| record.refused)
    }

    /// The record of a network. Where there is no room for another, that of who matters least is forgotten, if it `may` be.
    fn record(&mut self, network: Network, may: impl Fn(&Record) -> bool) -> Option<&mut Record> {
        if self.networks.len() >= self.room && !self.networks.contains_key(&network) {
            let least =
                self.networks.iter().min_by_key(|(_, record)| (record.refused, record.bad, record.good));
            let (&least, _) = least.filter(|(_, record)| may(record))?;
            self.networks.remove(&least);
        }
        Some(self.networks.entry(network).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const TOLERANCE: Tolerance = Tolerance { bad_pieces: 3, bad_percent: 1 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn three_bad_pieces_are_too_many_and_hold_for_the_network_alone() {
        let mut reputation = Reputation::new(TOLERANCE);
        assert_eq!([(); 3].map(|()| reputation.bad(ip("192.0.2.1"))), [false, false, true]);
        assert!(reputation.refuses(ip("192.0.2.1")) && reputation.refuses(ip("::ffff:192.0.2.1")));
        assert!(!reputation.refuses(ip("192.0.2.2")));
        // Told once, and good ones that were under way change nothing.
        assert!(!reputation.bad(ip("192.0.2.1")));
        (0..1000).for_each(|_| reputation.good(ip("192.0.2.1")));
        assert!(reputation.refuses(ip("192.0.2.1")));
        // A network of 64 bits has more addresses than anybody can refuse.
        let hosts = (1..=3).map(|host| ip(&format!("2001:db8::{host}")));
        assert_eq!(hosts.map(|host| reputation.bad(host)).filter(|&last| last).count(), 1);
        assert!(reputation.refuses(ip("2001:db8::99")) && !reputation.refuses(ip("2001:db8:0:1::1")));
        // 127.0.0.1 is this machine, and all others of 127/8 are hosts.
        let local =
            [(); 9].map(|()| (reputation.bad(Ipv4Addr::LOCALHOST.into()), reputation.bad(ip("127.0.0.2"))));
        assert_eq!(local.iter().filter(|(this, other)| *this || *other).count(), 1);
        assert!(!reputation.refuses(Ipv4Addr::LOCALHOST.into()) && reputation.refuses(ip("127.0.0.2")));
    }

    #[test]
    fn one_in_a_hundred_is_an_accident() {
        let mut reputation = Reputation::new(TOLERANCE);
        let host = ip("192.0.2.1");
        (0..396).for_each(|_| reputation.good(host));
        assert_eq!([(); 5].map(|()| reputation.bad(host)), [false, false, false, false, true]);
    }

    #[test]
    fn each_bound_can_be_switched_off() {
        let host = ip("192.0.2.1");
        let mut never = Reputation::new(Tolerance { bad_pieces: 0, ..TOLERANCE });
        assert!(!(0..1000).any(|_| never.bad(host)));
        let mut whatever = Reputation::new(Tolerance { bad_percent: 0, ..TOLERANCE });
        (0..10_000).for_each(|_| whatever.good(host));
        assert_eq!([(); 3].map(|()| whatever.bad(host)), [false, false, true]);
    }

    #[test]
    fn so_many_are_remembered_and_the_refused_longest() {
        let mut reputation = Reputation { room: 8, ..Reputation::new(TOLERANCE) };
        let host = |number: u32| IpAddr::from(Ipv6Addr::from_bits(u128::from(number) << 64));
        let refused = |reputation: &Reputation| (0..99).filter(|&it| reputation.refuses(host(it))).count();
        (0..3).for_each(|_| _ = reputation.bad(host(90)));
        // More than there is room for send good pieces, and then more than that a bad one.
        (0..20).for_each(|number| reputation.good(host(number)));
        (20..40).for_each(|number| _ = reputation.bad(host(number)));
        assert_eq!((refused(&reputation), reputation.networks.len()), (1, 8));
        // Good pieces take the place of nobody who sent a bad one.
        reputation.good(host(50));
        assert!(!reputation.networks.contains_key(&Network::of(host(50))));
        // Full of those that are refused, it forgets none of them.
        (60..90).for_each(|number| (0..3).for_each(|_| _ = reputation.bad(host(number))));
        assert_eq!((refused(&reputation), reputation.networks.len()), (8, 8));
        assert!(reputation.refuses(host(90)));
    }
}
