//! Sessions: bearer tokens that say whose they are, under a MAC. The tracker keeps none, so no number of them fills its memory, a restart
//! ends none, and replicas that share the tracker's key accept each other's. Every call looks whether the member was revoked since.
//!
//! ```text
//! token = id (32) ‖ 2·expiry + (1 for a seed), 64-bit big-endian ‖ MAC (16)
//! ```
//!
//! The id fixes the torrent. The MAC's key comes from the secret of the tracker's key.

use subtle::ConstantTimeEq;
use swarmseal_core::SubscriberId;

use crate::wire::api::{ApiError, Role, SESSION_TOKEN, SessionToken};
use crate::wire::identity::SigningKey;

/// Whose session it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// Subscriber or seed.
    pub(super) id: SubscriberId,
    /// Which of the two.
    pub(super) role: Role,
    /// When it ends, in seconds since 1970.
    pub(super) expires: u64,
}

/// Makes tokens and tells its own.
pub(super) struct Sessions {
    key: [u8; 32],
}

impl Sessions {
    /// Of the tracker with this key.
    pub(super) fn new(key: &SigningKey) -> Self {
        Sessions { key: blake3::derive_key("swarmseal v1 session token", key.to_bytes().as_slice()) }
    }

    /// The token of a session.
    pub(super) fn open(&self, session: &Session) -> SessionToken {
        let mut token = [0; SESSION_TOKEN];
        token[..32].copy_from_slice(&session.id.0);
        let end = session.expires << 1 | u64::from(session.role == Role::Seed);
        token[32..40].copy_from_slice(&end.to_be_bytes());
        let mac = self.mac(&token);
        token[40..].copy_from_slice(&mac);
        SessionToken::new(token)
    }

    /// The session of a token. Errors: [`ApiError::NoSession`].
    pub(super) fn find(&self, token: &SessionToken, now: u64) -> Result<Session, ApiError> {
        let bytes = token.as_bytes();
        let genuine: bool = self.mac(bytes).ct_eq(&bytes[40..]).into();
        let (mut id, mut end) = ([0; 32], [0; 8]);
        id.copy_from_slice(&bytes[..32]);
        end.copy_from_slice(&bytes[32..40]);
        let end = u64::from_be_bytes(end);
        let role = if end & 1 == 1 { Role::Seed } else { Role::Subscriber };
        let session = Session { id: SubscriberId(id), role, expires: end >> 1 };
        if genuine && now < session.expires { Ok(session) } else { Err(ApiError::NoSession) }
    }

    fn mac(&self, token: &[u8; SESSION_TOKEN]) -> [u8; 16] {
        let mut mac = [0; 16];
        blake3::Hasher::new_keyed(&self.key).update(&token[..40]).finalize_xof().fill(&mut mac);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(seed: u8) -> Sessions {
        Sessions::new(&SigningKey::from_bytes(&[seed; 32]))
    }

    #[test]
    fn a_token_says_whose_it_is_until_it_ends() {
        let sessions = sessions(1);
        for role in [Role::Subscriber, Role::Seed] {
            let session = Session { id: SubscriberId([7; 32]), role, expires: 100 };
            let token = sessions.open(&session);
            assert_eq!(sessions.find(&token, 99), Ok(session));
            assert_eq!(sessions.find(&token, 100), Err(ApiError::NoSession));
            // After a restart.
            assert_eq!(self::sessions(1).find(&token, 99), Ok(session));
            assert_eq!(self::sessions(2).find(&token, 99), Err(ApiError::NoSession));
        }
    }

    #[test]
    fn a_changed_token_is_nobody_s() {
        let sessions = sessions(1);
        let session = Session { id: SubscriberId([7; 32]), role: Role::Subscriber, expires: 100 };
        let good = sessions.open(&session);
        for at in 0..SESSION_TOKEN {
            let mut bytes = *good.as_bytes();
            bytes[at] ^= 1;
            assert_eq!(sessions.find(&SessionToken::new(bytes), 50), Err(ApiError::NoSession), "byte {at}");
        }
    }
}
