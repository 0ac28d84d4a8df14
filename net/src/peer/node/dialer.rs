//! Whom to call: addresses from the tracker, each with a back-off of its own.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use super::listen::canonical;
use crate::peer::tracker::Personal;

const MAX_CANDIDATES: usize = 2000;
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(300);
/// A peer that needs nothing of us, nor we of it, is called again after this time.
const LASTING: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Candidate {
    next: Instant,
    failures: u32,
    busy: bool,
    /// An ordinary client: it is called under its own info-hash.
    personal: Option<Personal>,
}

/// The addresses of one torrent's swarm.
#[derive(Debug, Default)]
pub(super) struct Dialer {
    candidates: HashMap<SocketAddr, Candidate>,
}

impl Dialer {
    pub(super) fn add(&mut self, addr: SocketAddr, personal: Option<Personal>) {
        let addr = canonical(addr);
        if self.candidates.len() < MAX_CANDIDATES && addr.port() != 0 {
            let fresh = || Candidate { next: Instant::now(), failures: 0, busy: false, personal };
            let known = self.candidates.entry(addr).or_insert_with(fresh);
            // An ordinary client may have gone on to another torrent.
            if known.personal != personal && !known.busy {
                *known = fresh();
            }
        }
    }

    pub(super) fn known(&self) -> usize {
        self.candidates.len()
    }

    /// Up to `count` addresses whose time has come; they are busy until [`Dialer::ended`].
    pub(super) fn due(
        &mut self,
        count: usize,
        connected: impl Fn(SocketAddr) -> bool,
    ) -> Vec<(SocketAddr, Option<Personal>)> {
        let now = Instant::now();
        let ready = |(addr, candidate): &(&SocketAddr, &mut Candidate)| {
            !candidate.busy && candidate.next <= now && !connected(**addr)
        };
        let due = self.candidates.iter_mut().filter(ready).take(count);
        due.map(|(&addr, candidate)| {
            candidate.busy = true;
            (addr, candidate.personal)
        })
        .collect()
    }

    /// A call failed or a connection ended; `lasting`: calling again soon is of no use; `served`: it had worked well.
    pub(super) fn ended(&mut self, addr: SocketAddr, lasting: bool, served: bool) {
        let Some(candidate) = self.candidates.get_mut(&addr) else { return };
        candidate.busy = false;
        candidate.failures = if served { 0 } else { candidate.failures + 1 };
        let wait = FIRST * (1 << candidate.failures.saturating_sub(1).min(9));
        candidate.next = Instant::now() + if lasting { LASTING } else { wait.min(LAST) };
        if candidate.failures > 12 {
            self.candidates.remove(&addr);
        }
    }

    /// We need something again: whoever was of no use may be now.
    pub(super) fn wake(&mut self) {
        let now = Instant::now();
        self.candidates.values_mut().for_each(|candidate| candidate.next = candidate.next.min(now + FIRST));
    }

    /// Forgets some addresses.
    pub(super) fn forget(&mut self, which: impl Fn(IpAddr) -> bool) {
        self.candidates.retain(|addr, _| !which(addr.ip()));
    }
}

#[cfg(test)]
mod tests {
    use swarmseal_core::SubscriberId;

    use super::*;

    #[test]
    fn failures_are_not_called_again_at_once() {
        let addr: SocketAddr = "192.0.2.1:7".parse().unwrap();
        let mut dialer = Dialer::default();
        dialer.add(addr, None);
        assert!(dialer.due(8, |_| true).is_empty());
        assert_eq!(dialer.due(8, |_| false), [(addr, None)]);
        assert!(dialer.due(8, |_| false).is_empty());
        dialer.ended(addr, false, false);
        assert!(dialer.due(8, |_| false).is_empty());
    }

    #[test]
    fn a_client_with_another_torrent_is_called_for_that() {
        let addr: SocketAddr = "192.0.2.1:7".parse().unwrap();
        let mut dialer = Dialer::default();
        let [first, second] = [1, 2]
            .map(|id| Some(Personal { info_hash: [id; 20], subscriber: SubscriberId([id; 32]), epoch: 1 }));
        dialer.add(addr, first);
        assert_eq!(dialer.due(8, |_| false), [(addr, first)]);
        dialer.add(addr, second);
        assert!(dialer.due(8, |_| false).is_empty(), "it is busy");
        dialer.ended(addr, false, false);
        dialer.add(addr, second);
        assert_eq!(dialer.due(8, |_| false), [(addr, second)]);
    }

    #[test]
    fn a_mapped_address_is_no_second_one() {
        let mut dialer = Dialer::default();
        dialer.add("192.0.2.1:7".parse().unwrap(), None);
        dialer.add("[::ffff:192.0.2.1]:7".parse().unwrap(), None);
        assert_eq!(dialer.known(), 1);
    }
}
