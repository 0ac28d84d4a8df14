//! Who may connect: so many connections in all, and so many with one network.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::wire::network::Network;

/// The places of a node.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    of_one: usize,
    taken: Arc<Mutex<HashMap<Network, usize>>>,
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    /// `None`: it does not count.
    network: Option<Network>,
    taken: Arc<Mutex<HashMap<Network, usize>>>,
}

impl Places {
    /// `all` connections, `of_one` of one network.
    pub(super) fn new(all: usize, of_one: usize) -> Self {
        Places { all: Arc::new(Semaphore::new(all)), of_one, taken: Arc::default() }
    }

    /// A place for a connection with that address. The machine itself may have them all: that is where tests and other
    /// programs of the same user are.
    pub(super) fn take(&self, address: IpAddr) -> io::Result<Place> {
        let permit = self.all.clone().try_acquire_owned();
        let permit = permit.map_err(|_| io::Error::other("too many connections"))?;
        let network = Some(Network::of(address)).filter(|network| !network.is_this_machine());
        if let Some(network) = network {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let count = taken.entry(network).or_default();
            if *count >= self.of_one {
                return Err(io::Error::other("too many connections with this address"));
            }
            *count += 1;
        }
        Ok(Place { _permit: permit, network, taken: self.taken.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(network) = self.network else { return };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_takes_its_share_and_gives_it_back() {
        let places = Places::new(5, 2);
        let first = places.take(ip("192.0.2.1")).unwrap();
        let _second = places.take(ip("::ffff:192.0.2.1")).unwrap();
        assert!(places.take(ip("192.0.2.1")).is_err());
        let _other = places.take(ip("192.0.2.2")).unwrap();
        drop(first);
        let _third = places.take(ip("192.0.2.1")).unwrap();
        let _local: Vec<_> = (0..2).map(|_| places.take(ip("127.0.0.1")).unwrap()).collect();
        assert!(places.take(ip("127.0.0.1")).is_err(), "five in all");
    }

    #[test]
    fn an_ipv6_network_has_one_share_and_this_machine_all() {
        let places = Places::new(9, 1);
        let _held = places.take(ip("2001:db8::1")).unwrap();
        assert!(places.take(ip("2001:db8::2:3:4:5")).is_err());
        assert!(places.take(ip("2001:db8:0:1::1")).is_ok());
        let _many = (places.take(ip("::1")).unwrap(), places.take(ip("::1")).unwrap());
        let _other = (places.take(ip("127.0.0.2")).unwrap(), places.take(ip("127.0.0.3")).unwrap());
        assert!(places.take(ip("127.0.0.2")).is_err());
    }
}
