//! `GET /identify`: a tracker or license server proves its identity before a client sends anything else.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;

use super::calls::respond;
use super::clock;
use super::nonces::Nonces;
use super::refusal::Refusal;
use super::state::{Tracker, random};
use crate::wire::api::{ApiError, Identified, Identify};
use crate::wire::identity::SigningKey;

/// Bytes of the longest query.
const MAX_QUERY: usize = 2048;

/// What a query asks. Errors: [`ApiError::BadRequest`].
pub(super) fn asked(query: Option<&str>) -> Result<Identify, Refusal> {
    let query = query.filter(|query| query.len() <= MAX_QUERY);
    query.and_then(Identify::from_query).ok_or_else(|| {
        Refusal::new(
            ApiError::BadRequest,
            "expected nonce=, 64 hexadecimal digits, and origin=, such as https://tracker.example",
        )
    })
}

/// `GET /identify`
pub(super) async fn identify(State(tracker): State<Arc<Tracker>>, RawQuery(query): RawQuery) -> Response {
    let answer = asked(query.as_deref()).and_then(|request| answer(&tracker, &request));
    respond(&tracker, answer)
}

/// Signed where the tracker is to be reached at that origin. The publisher's newest authority is there in any case: a client that comes
/// to an origin which was given up, or with the key before this one, learns from it where to go.
fn answer(tracker: &Tracker, request: &Identify) -> Result<Identified, Refusal> {
    let may_sign = tracker.authorities.may_answer_at(&request.origin);
    let authority = request.publisher_key.and_then(|key| tracker.authorities.newest(&key));
    let authority = authority.map(|authority| authority.as_bytes().to_vec());
    Ok(Identified { authority, ..proof(request, &tracker.tracker_key, &tracker.nonces, may_sign)? })
}

/// The answer without an authority. `may_sign`: the server is to be reached at that origin.
pub(super) fn proof(
    request: &Identify,
    key: &SigningKey,
    nonces: &Nonces,
    may_sign: bool,
) -> Result<Identified, Refusal> {
    let now = clock::now();
    let nonce = nonces.make(now, random()?, &request.nonce, &request.origin);
    let mut answer = Identified::sign(request, key, nonce, now);
    if !may_sign {
        answer.signature = None;
    }
    Ok(answer)
}
