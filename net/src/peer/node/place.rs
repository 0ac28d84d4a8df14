//! Who may connect: so many connections in all, and so many from one address.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of a node.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    of_one: usize,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    address: Option<IpAddr>,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Places {
    /// `all` connections, `of_one` of one address.
    pub(super) fn new(all: usize, of_one: usize) -> Self {
        Places { all: Arc::new(Semaphore::new(all)), of_one, taken: Arc::default() }
    }

    /// A place for a connection with that address. The machine itself may have them all: that is where tests and other
    /// programs of the same user are.
    pub(super) fn take(&self, address: IpAddr) -> io::Result<Place> {
        let permit = self.all.clone().try_acquire_owned();
        let permit = permit.map_err(|_| io::Error::other("too many connections"))?;
        let address = Some(household(address)).filter(|address| !address.is_loopback());
        if let Some(address) = address {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let count = taken.entry(address).or_default();
            if *count >= self.of_one {
                return Err(io::Error::other("too many connections with this address"));
            }
            *count += 1;
        }
        Ok(Place { _permit: permit, address, taken: self.taken.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&address);
            }
        }
    }
}

/// What one household has: an IPv4 address, or the 2^64 addresses of an IPv6 network.
pub(super) fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)))
        }
        other => other,
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
    fn an_ipv6_network_is_one_household() {
        let places = Places::new(9, 1);
        let _held = places.take(ip("2001:db8::1")).unwrap();
        assert!(places.take(ip("2001:db8::2:3:4:5")).is_err());
        assert!(places.take(ip("2001:db8:0:1::1")).is_ok());
        let _many = (places.take(ip("::1")).unwrap(), places.take(ip("::1")).unwrap());
    }
}
