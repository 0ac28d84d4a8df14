//! Tickets whose signatures were checked: an uploader shows the same one with every call until it expires, and to check a
//! signature costs as much as half of a re-key.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use swarmseal_core::Ticket;

use crate::wire::identity::{self, BadSignature, purpose};

/// Tickets remembered, about: as many more may be on their way out. 64 bytes each.
const MAX_REMEMBERED: usize = 1 << 16;

/// Remembers good signatures, and nothing else: whether a ticket is in time, and whose it is, its reader finds out each time.
#[derive(Default)]
pub(super) struct CheckedTickets(Mutex<Remembered>);

/// Two generations: the older is forgotten when the younger is full, and whoever is asked for again is in the younger.
#[derive(Default)]
struct Remembered {
    younger: HashSet<[u8; 32]>,
    older: HashSet<[u8; 32]>,
}

impl CheckedTickets {
    /// Whether the ticket is signed by this identity key. Errors: [`BadSignature`].
    pub(super) fn check(&self, identity: &[u8; 32], ticket: &Ticket) -> Result<(), BadSignature> {
        let signed = ticket.signing_input();
        // The key is among what is hashed: another key of the same subscriber would be asked anew.
        let mut hasher = blake3::Hasher::new_derive_key("swarmseal v1 checked ticket");
        hasher.update(identity).update(&signed).update(&ticket.signature);
        let name = *hasher.finalize().as_bytes();
        if self.remembered().knows(&name) {
            return Ok(());
        }
        identity::verify(identity, purpose::TICKET, &signed, &ticket.signature)?;
        self.remembered().keep(name, MAX_REMEMBERED);
        Ok(())
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn knows(&mut self, name: &[u8; 32]) -> bool {
        if self.younger.contains(name) {
            return true;
        }
        let known = self.older.remove(name);
        if known {
            self.younger.insert(*name);
        }
        known
    }

    fn keep(&mut self, name: [u8; 32], most: usize) {
        if self.younger.len() >= most {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(name);
    }
}

#[cfg(test)]
mod tests {
    use swarmseal_core::{SubscriberId, TorrentId};

    use super::*;
    use crate::wire::identity::SigningKey;

    fn ticket(key: &SigningKey) -> Ticket {
        let ticket = Ticket {
            torrent_id: TorrentId([1; 32]),
            uploader: SubscriberId([2; 32]),
            downloader: SubscriberId([3; 32]),
            epoch: 1,
            expires: 100,
            signature: [0; 64],
        };
        Ticket { signature: key.sign(purpose::TICKET, &ticket.signing_input()), ..ticket }
    }

    #[test]
    fn what_was_checked_vouches_for_nothing_else() {
        let tickets = CheckedTickets::default();
        let (key, other) = (SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[8; 32]));
        let good = ticket(&key);
        for _ in 0..2 {
            tickets.check(&key.public(), &good).unwrap();
            tickets.check(&other.public(), &good).unwrap_err();
            tickets.check(&key.public(), &Ticket { expires: 101, ..good.clone() }).unwrap_err();
            let uploader = SubscriberId([9; 32]);
            tickets.check(&key.public(), &Ticket { uploader, ..good.clone() }).unwrap_err();
            let mut signature = good.signature;
            signature[5] ^= 1;
            tickets.check(&key.public(), &Ticket { signature, ..good.clone() }).unwrap_err();
        }
        assert_eq!(tickets.remembered().younger.len(), 1);
    }

    #[test]
    fn what_is_asked_for_again_stays() {
        let mut remembered = Remembered::default();
        for round in 0..20 {
            remembered.keep([round; 32], 2);
            assert!(round == 0 || remembered.knows(&[0; 32]), "{round}");
            assert!(remembered.younger.len() <= 3 && remembered.older.len() <= 3);
        }
        assert!(!remembered.knows(&[1; 32]));
    }
}
