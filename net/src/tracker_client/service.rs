//! The tracker or license server that a client calls: its origins, and the key that proves its identity there.

use std::sync::{Arc, PoisonError, RwLock};

use super::Error;
use crate::date;
use crate::wire::authority::SignedAuthority;
use crate::wire::origin::Origin;

/// Keeps a newer authority for the next run.
type Keep = Box<dyn Fn(&SignedAuthority) + Send + Sync>;

/// A tracker or license server. Clones share what they learn.
#[derive(Clone)]
pub struct Service {
    known: Arc<Known>,
    insecure_http: bool,
}

enum Known {
    /// One that the operator named.
    Fixed { origin: Origin, key: [u8; 32] },
    /// The tracker of a publisher, wherever its newest authority says.
    Of { newest: RwLock<Arc<SignedAuthority>>, keep: Keep },
}

impl Service {
    /// The one at that origin with that Ed25519 key.
    pub fn fixed(origin: Origin, key: [u8; 32]) -> Self {
        Service { known: Arc::new(Known::Fixed { origin, key }), insecure_http: false }
    }

    /// The tracker of a publisher. `keep` is called with each newer authority that comes, and may block for a moment.
    pub fn of_publisher(
        authority: SignedAuthority,
        keep: impl Fn(&SignedAuthority) + Send + Sync + 'static,
    ) -> Self {
        let known = Known::Of { newest: RwLock::new(Arc::new(authority)), keep: Box::new(keep) };
        Service { known: Arc::new(known), insecure_http: false }
    }

    /// The same service, to which plain HTTP may be spoken on other machines as well.
    pub fn allow_insecure_http(self, allowed: bool) -> Self {
        Service { insecure_http: allowed, ..self }
    }

    /// Another service under the same rule for plain HTTP.
    pub(super) fn beside(&self, origin: Origin, key: [u8; 32]) -> Self {
        Service::fixed(origin, key).allow_insecure_http(self.insecure_http)
    }

    /// The newest authority of the publisher, where it is one's tracker.
    pub fn authority(&self) -> Option<Arc<SignedAuthority>> {
        match &*self.known {
            Known::Fixed { .. } => None,
            Known::Of { newest, .. } => Some(newest.read().unwrap_or_else(PoisonError::into_inner).clone()),
        }
    }

    /// Where it is reached, in the order in which to try, and its key.
    pub(super) fn reached(&self) -> (Vec<Origin>, [u8; 32]) {
        match (&*self.known, self.authority()) {
            (_, Some(authority)) => (authority.origins.clone(), authority.tracker_key),
            (Known::Fixed { origin, key }, None) => (vec![origin.clone()], *key),
            (Known::Of { .. }, None) => (Vec::new(), [0; 32]),
        }
    }

    /// The serial of the newest authority, where it is a publisher's tracker.
    pub(super) fn serial(&self) -> Option<u64> {
        self.authority().map(|authority| authority.serial)
    }

    /// Takes an authority that came from wherever; whether it is newer than the one that was known. One that the publisher did not sign,
    /// or that is from the future, changes nothing.
    pub fn offer(&self, bytes: &[u8]) -> bool {
        let Known::Of { newest, keep } = &*self.known else { return false };
        let mut newest = newest.write().unwrap_or_else(PoisonError::into_inner);
        // Most often it is the one that is known.
        if newest.as_bytes() == bytes {
            return false;
        }
        let offered = SignedAuthority::from_bytes(bytes, newest.publisher_key());
        match offered.and_then(|offered| Ok((offered.supersedes(Some(&newest), date::now())?, offered))) {
            Ok((true, offered)) => {
                tracing::info!(serial = offered.serial, origins = ?offered.origins, "another authority");
                keep(&offered);
                *newest = Arc::new(offered);
                true
            }
            Ok((false, _)) => false,
            Err(error) => {
                tracing::debug!(%error, "an authority is not taken");
                false
            }
        }
    }

    /// Whether something secret may be sent there. Errors: [`Error::PlainHttp`].
    pub(super) fn check(&self, origin: &Origin) -> Result<(), Error> {
        if self.insecure_http || origin.is_encrypted() || origin.is_loopback() {
            Ok(())
        } else {
            Err(Error::PlainHttp { origin: origin.clone() })
        }
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("origins", &self.reached().0).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::wire::authority::{Authority, MAX_AHEAD};
    use crate::wire::identity::SigningKey;

    fn signed(publisher: u8, serial: u64, origin: &str) -> SignedAuthority {
        let key = |seed| SigningKey::from_bytes(&[seed; 32]);
        let authority = Authority {
            license_key: key(8).public(),
            origins: vec![origin.parse().unwrap()],
            serial,
            tracker_key: key(9).public(),
        };
        SignedAuthority::sign(authority, &key(publisher)).unwrap()
    }

    #[test]
    fn the_newest_authority_of_the_publisher_is_taken_and_kept() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let service = Service::of_publisher(signed(1, 10, "https://a.example"), {
            let kept = kept.clone();
            move |authority| kept.lock().unwrap().push(authority.serial)
        });
        let now = date::now();
        for (offered, taken) in [
            (signed(1, 10, "https://b.example"), false),
            (signed(1, 9, "https://b.example"), false),
            (signed(2, 11, "https://b.example"), false),
            (signed(1, now + MAX_AHEAD + 60, "https://b.example"), false),
            (signed(1, 11, "https://c.example"), true),
            (signed(1, 11, "https://b.example"), false),
        ] {
            assert_eq!(service.offer(offered.as_bytes()), taken, "{:?}", *offered);
        }
        assert!(!service.offer(b"nonsense"));
        assert_eq!(*kept.lock().unwrap(), [11]);
        assert_eq!(service.reached().0[0].as_str(), "https://c.example");
        assert_eq!(service.serial(), Some(11));
    }

    #[test]
    fn plain_http_is_for_this_machine_or_allowed() {
        let there: Origin = "http://192.0.2.1:7000".parse().unwrap();
        let service = Service::fixed(there.clone(), [1; 32]);
        assert!(matches!(service.check(&there), Err(Error::PlainHttp { .. })));
        assert!(service.check(&"http://127.0.0.1:7000".parse().unwrap()).is_ok());
        assert!(service.check(&"https://192.0.2.1".parse().unwrap()).is_ok());
        let allowed = service.allow_insecure_http(true);
        assert!(
            allowed.check(&there).is_ok() && allowed.beside(there.clone(), [2; 32]).check(&there).is_ok()
        );
        assert!(!allowed.offer(signed(1, 1, "https://a.example").as_bytes()));
    }
}
