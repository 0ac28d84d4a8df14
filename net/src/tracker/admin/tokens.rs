//! Admin tokens and their roles. The first token is in a file; the others are issued here, and only their hashes are kept.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use axum::extract::{Extension, Path, State};
use axum::http::Method;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Body, Object, Shared, Subject, bad, blocking, run};
use crate::tracker::clock;
use crate::tracker::refusal::Refusal;
use crate::tracker::state::random;
use crate::wire::api::{ApiError, Token};
use crate::wire::bencode::optional;

/// Tokens at most.
const MAX_TOKENS: usize = 1000;
const MAX_NAME: usize = 64;

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::tracker) enum AdminRole {
    /// Read everything.
    Auditor,
    /// Read all but tokens and the audit log; register torrents, sell, and revoke.
    Publisher,
    /// Everything.
    Admin,
}

/// What a publisher may change. What is not named here is for admins alone.
const OF_PUBLISHERS: [&str; 9] = [
    "/admin/authority",
    "/admin/torrents",
    "/admin/vouchers",
    "/admin/grants",
    "/admin/grants/revoke",
    "/admin/grants/devices/revoke",
    "/admin/revoke",
    "/admin/passkey",
    "/admin/trace",
];
/// What a publisher may not read.
const NOT_OF_PUBLISHERS: [&str; 2] = ["/admin/tokens", "/admin/audit"];

impl AdminRole {
    /// Whether a call may be made. `route`: with its placeholders.
    pub(super) fn may(self, method: &Method, route: &str) -> bool {
        let reads = [Method::GET, Method::HEAD].contains(method);
        match self {
            AdminRole::Admin => true,
            AdminRole::Auditor => reads,
            AdminRole::Publisher if reads => !NOT_OF_PUBLISHERS.contains(&route),
            AdminRole::Publisher => method == Method::POST && OF_PUBLISHERS.contains(&route),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            AdminRole::Auditor => "auditor",
            AdminRole::Publisher => "publisher",
            AdminRole::Admin => "admin",
        }
    }
}

/// A token as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::tracker) struct TokenRecord {
    /// 8 random bytes in hexadecimal, which name it in lists.
    pub(in crate::tracker) id: String,
    /// Whose it is.
    pub(in crate::tracker) name: String,
    pub(in crate::tracker) role: AdminRole,
    pub(in crate::tracker) created: u64,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub(in crate::tracker) expires: Option<u64>,
}

/// Who makes a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::tracker) struct Caller {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) role: AdminRole,
}

/// All tokens, by their hashes.
pub(in crate::tracker) struct Tokens {
    /// Hash of the token in the file.
    first: blake3::Hash,
    issued: RwLock<HashMap<[u8; 32], TokenRecord>>,
}

impl Tokens {
    /// `first`: the token in the file. `issued`: by their hashes.
    pub(in crate::tracker) fn new(first: &[u8; 32], issued: Vec<([u8; 32], TokenRecord)>) -> Self {
        Tokens { first: blake3::hash(first), issued: RwLock::new(issued.into_iter().collect()) }
    }

    /// Whether a token is one of these, and has not expired.
    pub(in crate::tracker) fn knows(&self, token: &Token, now: u64) -> bool {
        self.find(token, now).is_some()
    }

    /// Whose token it is.
    pub(super) fn find(&self, token: &Token, now: u64) -> Option<Caller> {
        let hash = blake3::hash(token.as_bytes());
        // blake3::Hash compares in constant time, and a look-up by hash tells nothing about tokens.
        if hash == self.first {
            let name = "admin.token".to_owned();
            return Some(Caller { id: name.clone(), name, role: AdminRole::Admin });
        }
        let issued = self.issued.read().unwrap_or_else(PoisonError::into_inner);
        let TokenRecord { id, name, role, expires, .. } = issued.get(hash.as_bytes())?.clone();
        expires.is_none_or(|expires| now < expires).then_some(Caller { id, name, role })
    }
}

/// `GET /admin/tokens`
pub(in crate::tracker) async fn list(State(tracker): Shared) -> Response {
    run(tracker, Ok(()), |tracker, ()| {
        let issued = tracker.tokens.issued.read().unwrap_or_else(PoisonError::into_inner);
        let mut records: Vec<TokenRecord> = issued.values().cloned().collect();
        drop(issued);
        records.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        let tokens: Vec<Value> = records
            .iter()
            .map(|TokenRecord { id, name, role, created, expires }| {
                json!({ "id": id, "name": name, "role": role.name(), "created": created, "expires": expires })
            })
            .collect();
        Ok(json!({ "tokens": tokens }))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::tracker) struct NewToken {
    name: String,
    role: AdminRole,
    expires: Option<u64>,
}

impl Subject for NewToken {
    fn subject(&self) -> String {
        format!("token for {} as {}", printable(&self.name), self.role.name())
    }
}

/// `POST /admin/tokens`
pub(in crate::tracker) async fn create(State(tracker): Shared, body: Body<NewToken>) -> Response {
    blocking(tracker, body, |tracker, body| {
        let NewToken { name, role, expires } = body;
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(bad("name: expected 1 to 64 bytes of text"));
        }
        let now = clock::now();
        if expires.is_some_and(|expires| expires <= now || i64::try_from(expires).is_err()) {
            return Err(bad("expires: expected a time to come, in seconds since 1970"));
        }
        let token = Token::new(random()?);
        let record = TokenRecord { id: hex::encode(random::<8>()?), name, role, created: now, expires };
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        // Held across the write, so that the map and the store are of one mind; admins are few.
        let mut issued = tracker.tokens.issued.write().unwrap_or_else(PoisonError::into_inner);
        if issued.len() >= MAX_TOKENS {
            return Err(bad("there are 1000 tokens: revoke some first"));
        }
        tracker.store.add_token(&hash, &record)?;
        let id = record.id.clone();
        issued.insert(hash, record);
        Ok(json!({ "id": id, "token": token.to_hex() }))
    })
    .await
}

/// The token's id in the path.
pub(in crate::tracker) struct TokenId(String);

impl Subject for TokenId {
    fn subject(&self) -> String {
        format!("token {}", printable(&self.0))
    }
}

/// `DELETE /admin/tokens/{id}`
pub(in crate::tracker) async fn revoke(State(tracker): Shared, Path(id): Path<String>) -> Response {
    blocking(tracker, Ok(axum::Json(Object(TokenId(id)))), |tracker, TokenId(id)| {
        let mut issued = tracker.tokens.issued.write().unwrap_or_else(PoisonError::into_inner);
        let hash = issued.iter().find(|(_, record)| record.id == id).map(|(hash, _)| *hash);
        let hash =
            hash.ok_or_else(|| Refusal::new(ApiError::UnknownToken, "there is no token of this id"))?;
        tracker.store.remove_token(&hash)?;
        issued.remove(&hash);
        Ok(json!({ "revoked": id }))
    })
    .await
}

/// `GET /admin/whoami`
pub(in crate::tracker) async fn whoami(
    State(tracker): Shared,
    Extension(caller): Extension<Caller>,
) -> Response {
    run(tracker, Ok(caller), |_, Caller { id, name, role }| {
        Ok(json!({ "id": id, "name": name, "role": role.name() }))
    })
    .await
}

/// Text from outside as it may stand in a log: short, and on one line.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_may_do_what_they_are_for() {
        use AdminRole::{Admin, Auditor, Publisher};
        for (method, route, may) in [
            (Method::GET, "/admin/torrents", [true, true, true]),
            (Method::GET, "/admin/audit", [true, false, true]),
            (Method::GET, "/admin/tokens", [true, false, true]),
            (Method::POST, "/admin/vouchers", [false, true, true]),
            (Method::POST, "/admin/revoke", [false, true, true]),
            (Method::POST, "/admin/tokens", [false, false, true]),
            (Method::DELETE, "/admin/tokens/{id}", [false, false, true]),
            // What comes later is for admins until somebody decides.
            (Method::POST, "/admin/epochs", [false, false, true]),
        ] {
            let found = [Auditor, Publisher, Admin].map(|role| role.may(&method, route));
            assert_eq!(found, may, "{method} {route}");
        }
    }

    #[test]
    fn a_token_is_found_by_itself_until_it_expires() {
        let record = |expires| TokenRecord {
            id: "1".to_owned(),
            name: "ann".to_owned(),
            role: AdminRole::Auditor,
            created: 0,
            expires,
        };
        let hash = |byte: u8| *blake3::hash(&[byte; 32]).as_bytes();
        let tokens = Tokens::new(&[1; 32], vec![(hash(2), record(None)), (hash(3), record(Some(10)))]);
        let role = |byte: u8, now| tokens.find(&Token::new([byte; 32]), now).map(|caller| caller.role);
        assert_eq!(role(1, 0), Some(AdminRole::Admin));
        assert_eq!(role(2, 100), Some(AdminRole::Auditor));
        assert_eq!((role(3, 9), role(3, 10)), (Some(AdminRole::Auditor), None));
        assert_eq!(role(4, 0), None);
    }
}
