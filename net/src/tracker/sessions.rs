//! Sessions: bearer tokens in memory. A restart forgets them, and clients open new ones.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use swarmseal_core::SubscriberId;

use crate::wire::api::{ApiError, Role, Token};

/// Sessions at most.
const MAX_SESSIONS: usize = 1 << 20;
/// Sessions of one subscriber; another pushes the oldest out. Seeds share an id among machines.
const MAX_OF_ONE: usize = 8;

/// Whose session it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// Subscriber or seed.
    pub(super) id: SubscriberId,
    /// Which of the two.
    pub(super) role: Role,
    /// When it ends.
    pub(super) expires: u64,
}

/// The open sessions.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Open>);

#[derive(Default)]
struct Open {
    /// By the hash of the token, so that look-ups tell nothing about tokens.
    by_token: HashMap<[u8; 32], Session>,
    by_id: HashMap<SubscriberId, Vec<[u8; 32]>>,
}

impl Sessions {
    /// Opens one. Errors: [`ApiError::Busy`] where there are too many.
    pub(super) fn open(&self, token: &Token, session: Session, now: u64) -> Result<(), ApiError> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.by_token.len() >= MAX_SESSIONS {
            open.drop_expired(now);
        }
        if open.by_token.len() >= MAX_SESSIONS {
            return Err(ApiError::Busy);
        }
        let key = hash(token);
        let mut tokens = open.by_id.remove(&session.id).unwrap_or_default();
        if tokens.len() >= MAX_OF_ONE {
            let oldest = tokens.remove(0);
            open.by_token.remove(&oldest);
        }
        tokens.push(key);
        open.by_id.insert(session.id, tokens);
        open.by_token.insert(key, session);
        Ok(())
    }

    /// The session of a token. Errors: [`ApiError::NoSession`].
    pub(super) fn find(&self, token: &Token, now: u64) -> Result<Session, ApiError> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = open.by_token.get(&hash(token)).copied().ok_or(ApiError::NoSession)?;
        if now < session.expires { Ok(session) } else { Err(ApiError::NoSession) }
    }

    /// Ends those that have expired.
    pub(super) fn sweep(&self, now: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drop_expired(now);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).by_token.len()
    }
}

impl Open {
    fn drop_expired(&mut self, now: u64) {
        self.by_token.retain(|_, session| now < session.expires);
        let by_token = &self.by_token;
        self.by_id.retain(|_, tokens| {
            tokens.retain(|token| by_token.contains_key(token));
            !tokens.is_empty()
        });
    }
}

fn hash(token: &Token) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: u8, expires: u64) -> Session {
        Session { id: SubscriberId([id; 32]), role: Role::Subscriber, expires }
    }

    #[test]
    fn a_session_ends() {
        let sessions = Sessions::default();
        let token = Token::new([1; 32]);
        sessions.open(&token, session(1, 100), 0).unwrap();
        assert_eq!(sessions.find(&token, 99), Ok(session(1, 100)));
        assert_eq!(sessions.find(&token, 100), Err(ApiError::NoSession));
        assert_eq!(sessions.find(&Token::new([2; 32]), 0), Err(ApiError::NoSession));
        sessions.sweep(100);
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn one_subscriber_cannot_take_all_sessions() {
        let sessions = Sessions::default();
        for i in 0..20 {
            sessions.open(&Token::new([i; 32]), session(1, 100), 0).unwrap();
        }
        assert_eq!(sessions.len(), MAX_OF_ONE);
        assert_eq!(sessions.find(&Token::new([0; 32]), 0), Err(ApiError::NoSession));
        assert!(sessions.find(&Token::new([19; 32]), 0).is_ok());
    }
}
