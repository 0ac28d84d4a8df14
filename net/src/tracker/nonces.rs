//! Challenges: nonces that cost the tracker nothing until somebody has signed one.
//!
//! A nonce is its time (8 bytes), 8 random bytes and a MAC of both under a key of this process. Nothing is remembered of the
//! nonces given out, so a stranger cannot fill the memory; remembered are, until they expire, those that were used.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use subtle::ConstantTimeEq;

use crate::wire::api::ApiError;

/// Used nonces remembered at most.
const MAX_USED: usize = 1 << 18;

/// Makes nonces and takes each back once.
pub(super) struct Nonces {
    key: [u8; 32],
    lifetime: u64,
    used: Mutex<BTreeSet<[u8; 16]>>,
}

impl Nonces {
    /// `lifetime` in seconds.
    pub(super) fn new(key: [u8; 32], lifetime: u64) -> Self {
        Nonces { key, lifetime, used: Mutex::new(BTreeSet::new()) }
    }

    /// A nonce with these random bytes.
    pub(super) fn make(&self, now: u64, random: [u8; 8]) -> [u8; 32] {
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&now.to_be_bytes());
        nonce[8..16].copy_from_slice(&random);
        let mac = self.mac(&nonce);
        nonce[16..].copy_from_slice(&mac);
        nonce
    }

    /// Checks that the nonce is ours and has not expired. Errors: [`ApiError::BadNonce`].
    pub(super) fn check(&self, now: u64, nonce: &[u8; 32]) -> Result<(), ApiError> {
        let genuine: bool = self.mac(nonce).ct_eq(&nonce[16..]).into();
        if genuine && now.saturating_sub(time(nonce)) <= self.lifetime {
            Ok(())
        } else {
            Err(ApiError::BadNonce)
        }
    }

    /// Uses up a nonce that was checked, once its signature has verified. Errors: [`ApiError::BadNonce`] the second time,
    /// [`ApiError::Busy`] where too many were used lately.
    pub(super) fn use_up(&self, now: u64, nonce: &[u8; 32]) -> Result<(), ApiError> {
        let mut head = [0; 16];
        head.copy_from_slice(&nonce[..16]);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        // Times lead in the order, so what has expired comes first. A clock set back only keeps nonces longer.
        while used.first().is_some_and(|first| now.saturating_sub(time(first)) > self.lifetime) {
            used.pop_first();
        }
        if used.contains(&head) {
            return Err(ApiError::BadNonce);
        }
        if used.len() >= MAX_USED {
            return Err(ApiError::Busy);
        }
        used.insert(head);
        Ok(())
    }

    fn mac(&self, nonce: &[u8; 32]) -> [u8; 16] {
        let mut mac = [0; 16];
        blake3::Hasher::new_keyed(&self.key).update(&nonce[..16]).finalize_xof().fill(&mut mac);
        mac
    }
}

fn time(head: &[u8]) -> u64 {
    head.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_serves_once_and_not_for_long() {
        let nonces = Nonces::new([1; 32], 60);
        let nonce = nonces.make(1000, [2; 8]);
        assert_eq!(nonces.check(1060, &nonce), Ok(()));
        assert_eq!(nonces.check(1061, &nonce), Err(ApiError::BadNonce));
        assert_eq!(nonces.use_up(1000, &nonce), Ok(()));
        assert_eq!(nonces.use_up(1001, &nonce), Err(ApiError::BadNonce));
        assert_eq!(nonces.use_up(1001, &nonces.make(1001, [2; 8])), Ok(()));
    }

    #[test]
    fn a_forged_nonce_is_refused() {
        let nonces = Nonces::new([1; 32], 60);
        let nonce = nonces.make(1000, [2; 8]);
        for at in 0..32 {
            let mut forged = nonce;
            forged[at] ^= 1;
            assert_eq!(nonces.check(1000, &forged), Err(ApiError::BadNonce), "byte {at}");
        }
        assert_eq!(Nonces::new([9; 32], 60).check(1000, &nonce), Err(ApiError::BadNonce));
    }

    #[test]
    fn expired_nonces_are_forgotten() {
        let nonces = Nonces::new([1; 32], 60);
        for i in 0..100u64 {
            nonces.use_up(1000, &nonces.make(1000, i.to_be_bytes())).unwrap();
        }
        nonces.use_up(2000, &nonces.make(2000, [0; 8])).unwrap();
        assert_eq!(nonces.used.lock().unwrap().len(), 1);
    }
}
