//! Each publisher's newest authority, and the origins at which this tracker may prove its identity.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::store::{Store, StoreError};
use crate::wire::authority::SignedAuthority;
use crate::wire::origin::Origin;

/// The newest authority of each publisher of a registered torrent.
pub(super) struct Authorities {
    tracker_key: [u8; 32],
    newest: RwLock<Newest>,
    /// Where the operator says that the tracker is reached; known once it listens.
    own: OnceLock<Origin>,
}

#[derive(Default)]
struct Newest {
    by_publisher: HashMap<[u8; 32], Arc<SignedAuthority>>,
    /// Origins of those that name this tracker.
    origins: HashSet<Origin>,
}

impl Authorities {
    /// What the store has, for the tracker with this key. Blocks.
    pub(super) fn open(store: &Store, tracker_key: [u8; 32]) -> Result<Self, StoreError> {
        let authorities = Authorities { tracker_key, newest: RwLock::default(), own: OnceLock::new() };
        store.authorities()?.into_iter().for_each(|authority| authorities.put(authority));
        Ok(authorities)
    }

    /// Says where the operator has the tracker reached. Once.
    pub(super) fn listens(&self, origin: Origin) {
        let _ = self.own.set(origin);
    }

    /// Where the operator has it reached.
    pub(super) fn own(&self) -> Option<&Origin> {
        self.own.get()
    }

    /// The newest of a publisher.
    pub(super) fn newest(&self, publisher: &[u8; 32]) -> Option<Arc<SignedAuthority>> {
        let newest = self.newest.read().unwrap_or_else(PoisonError::into_inner);
        newest.by_publisher.get(publisher).cloned()
    }

    /// Whether the tracker may prove its identity there: a publisher's newest authority names that origin and this tracker, or the operator
    /// does. At an origin that was given up, a relay gets no proof.
    pub(super) fn may_answer_at(&self, origin: &Origin) -> bool {
        let newest = self.newest.read().unwrap_or_else(PoisonError::into_inner);
        self.own.get() == Some(origin) || newest.origins.contains(origin)
    }

    /// Makes one known, once it is in the store: the newest of its publisher counts.
    pub(super) fn put(&self, authority: SignedAuthority) {
        let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
        let Newest { by_publisher, origins } = &mut *newest;
        let kept =
            by_publisher.entry(*authority.publisher_key()).or_insert_with(|| Arc::new(authority.clone()));
        if authority.serial > kept.serial {
            *kept = Arc::new(authority);
        }
        let own = by_publisher.values().filter(|authority| authority.tracker_key == self.tracker_key);
        *origins = own.flat_map(|authority| authority.origins.iter().cloned()).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::authority::Authority;
    use crate::wire::identity::SigningKey;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn signed(publisher: u8, serial: u64, tracker: u8, origin: &str) -> SignedAuthority {
        let authority = Authority {
            license_key: key(9).public(),
            origins: vec![origin.parse().unwrap()],
            serial,
            tracker_key: key(tracker).public(),
        };
        SignedAuthority::sign(authority, &key(publisher)).unwrap()
    }

    #[test]
    fn the_tracker_answers_at_the_newest_origins_that_name_it_and_at_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("tracker.redb"), false).unwrap();
        let authorities = Authorities::open(&store, key(1).public()).unwrap();
        let may = |origin: &str| authorities.may_answer_at(&origin.parse().unwrap());
        authorities.listens("http://127.0.0.1:7000".parse().unwrap());
        assert!(may("http://127.0.0.1:7000") && !may("https://a.example"));
        authorities.put(signed(2, 10, 1, "https://a.example"));
        authorities.put(signed(3, 10, 1, "https://b.example"));
        authorities.put(signed(4, 10, 5, "https://c.example"));
        assert!(may("https://a.example") && may("https://b.example") && !may("https://c.example"));
        // Moved: the old origin may be somebody else's by now.
        authorities.put(signed(2, 11, 1, "https://d.example"));
        assert!(may("https://d.example") && !may("https://a.example"));
        // An older one comes late, and another with the same serial.
        authorities.put(signed(2, 10, 1, "https://a.example"));
        authorities.put(signed(2, 11, 1, "https://e.example"));
        assert!(may("https://d.example") && !may("https://a.example") && !may("https://e.example"));
        // Given to another tracker.
        authorities.put(signed(3, 12, 5, "https://b.example"));
        assert!(!may("https://b.example"));
        assert_eq!(authorities.newest(&key(3).public()).unwrap().serial, 12);
    }
}
