//! Nonces of `/identify`, of which nothing is remembered: a stranger cannot fill the memory, and replicas that share the tracker's key
//! accept each other's. What a nonce authorises is safe to repeat.
//!
//! A nonce is its time (8 bytes), 8 random bytes and a MAC of both, of the client's nonce and of the origin. The MAC's key comes from the
//! secret of the tracker's key.

use subtle::ConstantTimeEq;

use crate::wire::api::{ApiError, Contact};
use crate::wire::identity::SigningKey;
use crate::wire::origin::Origin;

/// Makes nonces and tells its own.
pub(super) struct Nonces {
    key: [u8; 32],
    tracker_key: [u8; 32],
    lifetime: u64,
}

impl Nonces {
    /// Of the tracker with this key. `lifetime` in seconds.
    pub(super) fn new(key: &SigningKey, lifetime: u64) -> Self {
        let tracker_key = key.public();
        let key = blake3::derive_key("swarmseal v1 tracker nonce", key.to_bytes().as_slice());
        Nonces { key, tracker_key, lifetime }
    }

    /// A nonce with these random bytes, for a client's nonce and an origin.
    pub(super) fn make(&self, now: u64, random: [u8; 8], client: &[u8; 32], origin: &Origin) -> [u8; 32] {
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&now.to_be_bytes());
        nonce[8..16].copy_from_slice(&random);
        let mac = self.mac(&nonce, client, origin);
        nonce[16..].copy_from_slice(&mac);
        nonce
    }

    /// Checks that a contact is with this tracker, and not too long ago. Errors: [`ApiError::BadNonce`].
    pub(super) fn check(&self, now: u64, contact: &Contact) -> Result<(), ApiError> {
        let Contact { client_nonce, nonce, origin, tracker_key } = contact;
        let genuine: bool = self.mac(nonce, client_nonce, origin).ct_eq(&nonce[16..]).into();
        let made = nonce.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        if genuine && *tracker_key == self.tracker_key && now.saturating_sub(made) <= self.lifetime {
            Ok(())
        } else {
            Err(ApiError::BadNonce)
        }
    }

    fn mac(&self, nonce: &[u8; 32], client: &[u8; 32], origin: &Origin) -> [u8; 16] {
        let mut mac = [0; 16];
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        // The origin is the one part whose length varies, and stands last.
        hasher.update(&nonce[..16]).update(client).update(origin.as_str().as_bytes());
        hasher.finalize_xof().fill(&mut mac);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonces(seed: u8) -> Nonces {
        Nonces::new(&SigningKey::from_bytes(&[seed; 32]), 60)
    }

    fn contact(nonces: &Nonces) -> Contact {
        let origin: Origin = "https://tracker.example".parse().unwrap();
        let nonce = nonces.make(1000, [2; 8], &[3; 32], &origin);
        Contact { client_nonce: [3; 32], nonce, origin, tracker_key: nonces.tracker_key }
    }

    #[test]
    fn a_nonce_serves_for_a_minute_and_may_be_repeated() {
        let nonces = nonces(1);
        let contact = contact(&nonces);
        for now in [999, 1000, 1000, 1060] {
            assert_eq!(nonces.check(now, &contact), Ok(()));
        }
        assert_eq!(nonces.check(1061, &contact), Err(ApiError::BadNonce));
        // Another process with the same key.
        assert_eq!(self::nonces(1).check(1000, &contact), Ok(()));
    }

    #[test]
    fn a_nonce_is_for_one_client_origin_and_tracker() {
        let nonces = nonces(1);
        let good = contact(&nonces);
        let origin = "https://elsewhere.example".parse().unwrap();
        let mut forged: Vec<Contact> = vec![
            Contact { origin, ..good.clone() },
            Contact { client_nonce: [4; 32], ..good.clone() },
            Contact { tracker_key: [5; 32], ..good.clone() },
            contact(&self::nonces(2)),
        ];
        forged.extend((0..32).map(|at| {
            let mut nonce = good.nonce;
            nonce[at] ^= 1;
            Contact { nonce, ..good.clone() }
        }));
        for contact in forged {
            assert_eq!(nonces.check(1000, &contact), Err(ApiError::BadNonce), "{contact:?}");
        }
    }
}
