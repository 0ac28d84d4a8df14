//! Who may connect: so many connections in all, and so many with one network.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    _share: Option<Share>,
    torrent: Held,
}

/// How many places a torrent has.
pub(super) type Held = Arc<AtomicUsize>;

/// One of a network's places.
#[derive(Debug)]
struct Share {
    network: Network,
    taken: Arc<Mutex<HashMap<Network, usize>>>,
}

impl Places {
    /// `all` connections, `of_one` of one network; 0: any number.
    pub(super) fn new(all: usize, of_one: usize) -> Self {
        let all = if all == 0 { Semaphore::MAX_PERMITS } else { all.min(Semaphore::MAX_PERMITS) };
        Places { all: Arc::new(Semaphore::new(all)), of_one, taken: Arc::default() }
    }

    /// A place for a connection with that address. Errors: all are taken, or all of its network. This machine may have them all: that is
    /// where tests and other programs of the same user are.
    pub(super) fn take(&self, address: IpAddr, torrent: &Held) -> io::Result<Place> {
        let share = self.share(address)?;
        let permit = self.all.clone().try_acquire_owned();
        let permit = permit.map_err(|_| io::Error::other("too many connections"))?;
        Ok(Place::new(permit, share, torrent))
    }

    /// The same, and waits while all are taken; `crowded` is called when that is so. Errors: all of its network are taken.
    pub(super) async fn wait(
        &self,
        address: IpAddr,
        torrent: &Held,
        crowded: impl FnOnce(),
    ) -> io::Result<Place> {
        let share = self.share(address)?;
        let permit = match self.all.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                crowded();
                self.all.clone().acquire_owned().await.map_err(io::Error::other)?
            }
        };
        Ok(Place::new(permit, share, torrent))
    }

    fn share(&self, address: IpAddr) -> io::Result<Option<Share>> {
        let network = Network::of(address);
        if self.of_one == 0 || network.is_this_machine() {
            return Ok(None);
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(network).or_default();
        if *count >= self.of_one {
            return Err(io::Error::other("too many connections with this address"));
        }
        *count += 1;
        Ok(Some(Share { network, taken: self.taken.clone() }))
    }
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, share: Option<Share>, torrent: &Held) -> Self {
        torrent.fetch_add(1, Ordering::Relaxed);
        Place { _permit: permit, _share: share, torrent: torrent.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.torrent.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Places, text: &str) -> io::Result<Place> {
        places.take(text.parse().unwrap(), &Arc::default())
    }

    #[test]
    fn one_address_takes_its_share_and_gives_it_back() {
        let places = Places::new(5, 2);
        let first = take(&places, "192.0.2.1").unwrap();
        let _second = take(&places, "::ffff:192.0.2.1").unwrap();
        assert!(take(&places, "192.0.2.1").is_err());
        let _other = take(&places, "192.0.2.2").unwrap();
        drop(first);
        let _third = take(&places, "192.0.2.1").unwrap();
        let _local: Vec<_> = (0..2).map(|_| take(&places, "127.0.0.1").unwrap()).collect();
        assert!(take(&places, "127.0.0.1").is_err(), "five in all");
        // Who found none has left nothing behind.
        assert!(take(&places, "192.0.2.3").is_err());
        assert_eq!(places.taken.lock().unwrap().len(), 2);
    }

    #[test]
    fn an_ipv6_network_has_one_share_and_this_machine_all() {
        let places = Places::new(9, 1);
        let _held = take(&places, "2001:db8::1").unwrap();
        assert!(take(&places, "2001:db8::2:3:4:5").is_err());
        assert!(take(&places, "2001:db8:0:1::1").is_ok());
        let _many = (take(&places, "::1").unwrap(), take(&places, "::1").unwrap());
        let _other = (take(&places, "127.0.0.2").unwrap(), take(&places, "127.0.0.3").unwrap());
        assert!(take(&places, "127.0.0.2").is_err());
    }

    #[test]
    fn no_bound_is_none() {
        let places = Places::new(0, 0);
        let held: Vec<_> = (0..200).map(|_| take(&places, "192.0.2.1").unwrap()).collect();
        assert_eq!(held.len(), 200);
    }

    #[tokio::test]
    async fn who_waits_has_the_next_place() {
        let (places, torrent) = (Places::new(1, 1), Held::default());
        let held = places.take([192, 0, 2, 1].into(), &torrent).unwrap();
        assert_eq!(torrent.load(Ordering::Relaxed), 1);
        let mut held = Some(held);
        // Somebody else makes room as soon as it is asked for.
        let place = places.wait([192, 0, 2, 2].into(), &torrent, || drop(held.take())).await.unwrap();
        assert!(take(&places, "192.0.2.3").is_err());
        drop(place);
        assert_eq!(torrent.load(Ordering::Relaxed), 0);
    }
}
