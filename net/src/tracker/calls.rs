//! The bencoded calls: subscribe, session, re-key, witness keys, seed keys.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use swarmseal_core::{KeyCommitment, MasterKey, Proof, PublicKey, SubscriberId, Ticket, TorrentId};

use super::clock;
use super::connection::Remote;
use super::epochs::master;
use super::metrics::count;
use super::records::SubscriberRecord;
use super::refusal::{Refusal, bencoded};
use super::rekey::{self, Party, Witness};
use super::sessions::Session;
use super::state::{self, Torrent, Tracker, random};
use crate::wire::api::{
    self, ApiError, Keys, OpenSession, Passkey, PasskeyReply, PasskeyRequest, ReKeyRequest, Role,
    SeedKeysRequest, SessionOpened, SessionToken, Subscribe, Subscribed, WitnessKeys, WitnessRequest,
};
use crate::wire::bencode;
use crate::wire::identity::{self, purpose};

pub(super) type Shared = State<Arc<Tracker>>;
pub(super) type Body = Result<Bytes, BytesRejection>;

/// `POST /subscribe`
pub(super) async fn subscribe(
    State(tracker): Shared,
    Extension(remote): Extension<Remote>,
    body: Body,
) -> Response {
    let answer = async {
        let request: Subscribe = read(body)?;
        let torrent = tracker.torrent(&request.torrent_id)?;
        // Cheap checks come first: a proof costs two exponentiations.
        tracker.nonces.check(clock::now(), &request.contact)?;
        identity::verify(&request.identity, purpose::SUBSCRIBE, &request.signing_input(), &request.signature)
            .map_err(|_| ApiError::BadSignature)?;
        let shared = Arc::clone(&tracker);
        tracker.check(remote.0, move || enrol(&shared, remote, &torrent, &request)).await?
    };
    let answer = answer.await;
    if answer.is_ok() {
        count(&tracker.counters.subscriptions, 1);
    }
    respond(&tracker, answer)
}

/// Checks key and proof, and writes the subscription down.
fn enrol(
    tracker: &Tracker,
    remote: Remote,
    torrent: &Torrent,
    request: &Subscribe,
) -> Result<Subscribed, Refusal> {
    let params = &torrent.params;
    let public = PublicKey::from_bytes(params, &request.y).map_err(|_| ApiError::BadPublicKey)?;
    Proof::from_bytes(params, &request.proof)
        .and_then(|proof| proof.verify(params, &public, &request.statement()))
        .map_err(|_| ApiError::BadProof)?;
    let keys = KeyCommitment::of(params, &request.device, &public);
    let subscriber = SubscriberId::of(&torrent.id, &request.identity, &keys);
    if tracker.store.subscriber(&subscriber)?.is_none() {
        tracker.newcomer(remote.0)?;
    }
    let now = clock::now();
    let fresh = SubscriberRecord {
        torrent_id: torrent.id,
        y: request.y.clone(),
        identity: request.identity,
        device: request.device,
        passkey: Passkey::new(random()?),
        epoch: torrent.epochs.current(),
        created: now,
        revoked: false,
    };
    let record = tracker.store.subscribe(subscriber, fresh)?;
    tracker.add_member(record.passkey, state::member(subscriber, Role::Subscriber, torrent.id));
    // It may have been replaced in between.
    if tracker.store.subscriber(&subscriber)?.is_some_and(|now| now.passkey != record.passkey) {
        tracker.forget_passkey(&record.passkey);
    }
    Ok(Subscribed { passkey: record.passkey, subscriber, epoch: torrent.epochs.current(), now })
}

/// `POST /session`
pub(super) async fn session(
    State(tracker): Shared,
    Extension(remote): Extension<Remote>,
    body: Body,
) -> Response {
    let answer = async {
        let request: OpenSession = read(body)?;
        tracker.nonces.check(clock::now(), &request.contact)?;
        let shared = Arc::clone(&tracker);
        tracker.check(remote.0, move || open_session(&shared, &request)).await?
    };
    let answer = answer.await;
    if answer.is_ok() {
        count(&tracker.counters.sessions_opened, 1);
    }
    respond(&tracker, answer)
}

fn open_session(tracker: &Tracker, request: &OpenSession) -> Result<SessionOpened, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    let known = match request.role {
        Role::Subscriber => {
            let record = tracker.store.subscriber(&request.id)?;
            record.map(|record| (record.torrent_id, record.identity, record.revoked))
        }
        Role::Seed => {
            tracker.store.seed(&request.id)?.map(|record| (record.torrent_id, record.key, record.revoked))
        }
    };
    let (of, key, revoked) = known.ok_or(ApiError::UnknownSubscriber)?;
    if of != torrent.id {
        return Err(ApiError::WrongTorrent.into());
    }
    identity::verify(&key, request.role.purpose(), &request.signing_input(), &request.signature)
        .map_err(|_| ApiError::BadSignature)?;
    if revoked {
        return Err(ApiError::Revoked.into());
    }
    let now = clock::now();
    let expires = now + tracker.config.session_seconds;
    let token = tracker.sessions.open(&Session { id: request.id, role: request.role, expires });
    let authority = tracker.authorities.newest(&torrent.publisher_key);
    let authority = authority.map(|authority| authority.as_bytes().to_vec());
    Ok(SessionOpened { authority, token, expires, now })
}

/// `POST /passkey`: the passkey of the session's subscriber or seed, or another instead of it.
pub(super) async fn passkey(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, current_passkey).await
}

fn current_passkey(
    tracker: &Tracker,
    session: &Session,
    request: &PasskeyRequest,
) -> Result<PasskeyReply, Refusal> {
    tracker.member_of(session, &request.torrent_id)?;
    let passkey = if request.rotate != 0 {
        tracker.rotate_passkey(&session.id)?
    } else {
        let (id, store) = (&session.id, &tracker.store);
        match session.role {
            Role::Subscriber => store.subscriber(id)?.ok_or(ApiError::UnknownSubscriber)?.passkey,
            Role::Seed => store.seed(id)?.ok_or(ApiError::UnknownSubscriber)?.passkey,
        }
    };
    Ok(PasskeyReply { passkey, now: clock::now() })
}

/// `POST /rekey`
pub(super) async fn rekey(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    let is_short = |tracker: &Tracker, session: &Session, request: &ReKeyRequest| {
        let warm = |id| tracker.tables.has(id);
        request.pieces.len() <= FEW_PIECES && warm(&session.id) && warm(&request.ticket.downloader)
    };
    in_session_or_at_once(tracker, headers, body, is_short, make_rekeys).await
}

/// Re-keys that take less than a millisecond: to hand them to another thread and wait for it costs as much as making one.
const FEW_PIECES: usize = 8;

fn make_rekeys(tracker: &Tracker, session: &Session, request: &ReKeyRequest) -> Result<Keys, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    let own = tracker.subscriber_of(session, &torrent.id)?;
    torrent.check_pieces(&request.pieces)?;
    let downloader = check_ticket(tracker, &request.ticket, &torrent.id, &session.id)?;
    let own_master = master(tracker, &torrent, request.epoch)?;
    let master = master_of_ticket(tracker, &torrent, &request.ticket)?;
    spend(tracker, session, &request.ticket, &request.pieces)?;
    let params = &torrent.params;
    let own_tables = tracker.tables.tables(params, &session.id, &own.y)?;
    let tables = tracker.tables.tables(params, &request.ticket.downloader, &downloader.y)?;
    let from = Party { tables: &own_tables, master: &own_master, epoch: request.epoch };
    let to = Party { tables: &tables, master: &master, epoch: request.ticket.epoch };
    let keys = rekey::rekeys(params, &from, &to, &request.pieces)?;
    tracker.keyed(&torrent, (Role::Subscriber, session.id), request.ticket.downloader, &request.pieces);
    count(&tracker.counters.rekey_calls, 1);
    count(&tracker.counters.rekeys, request.pieces.len() as u64);
    Ok(Keys { keys, now: clock::now() })
}

/// `POST /witness`: what the session's subscriber checks received pieces with.
pub(super) async fn witness(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    let is_short = |tracker: &Tracker, session: &Session, request: &WitnessRequest| {
        request.pieces.len() <= FEW_PIECES && tracker.tables.has(&session.id)
    };
    in_session_or_at_once(tracker, headers, body, is_short, make_witness_keys).await
}

fn make_witness_keys(
    tracker: &Tracker,
    session: &Session,
    request: &WitnessRequest,
) -> Result<WitnessKeys, Refusal> {
    let WitnessRequest { torrent_id, epoch, pieces } = request;
    let torrent = tracker.torrent(torrent_id)?;
    let own = tracker.subscriber_of(session, &torrent.id)?;
    if pieces.len() > api::MAX_WITNESS_PIECES {
        return Err(Refusal::new(
            ApiError::BadPiece,
            "expected 1 to 256 pieces, each a sealed one of the torrent",
        ));
    }
    torrent.check_pieces(pieces)?;
    let master = master(tracker, &torrent, *epoch)?;
    let spent = tracker.witness_budgets.spend((session.id, session.id), *epoch, pieces, clock::now());
    spent.map_err(|wait| Refusal::wait(ApiError::Rate, wait))?;
    let params = &torrent.params;
    let tables = tracker.tables.tables(params, &session.id, &own.y)?;
    let witness = Witness { tables: &tracker.witness_tables, secret: &torrent.witness, torrent: &torrent.id };
    let party = Party { tables: &tables, master: &master, epoch: *epoch };
    let keys = rekey::witness_keys(params, &witness, &party, pieces)?;
    count(&tracker.counters.witness_calls, 1);
    count(&tracker.counters.witness_keys, pieces.len() as u64);
    Ok(WitnessKeys { epoch: *epoch, keys, now: clock::now() })
}

/// `POST /seed/keys`: the only call that gives encryption keys out.
pub(super) async fn seed_keys(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, make_seed_keys).await
}

fn make_seed_keys(tracker: &Tracker, session: &Session, request: &SeedKeysRequest) -> Result<Keys, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    seed_of(tracker, session, &torrent.id)?;
    torrent.check_pieces(&request.pieces)?;
    let downloader = check_ticket(tracker, &request.ticket, &torrent.id, &session.id)?;
    let master = master_of_ticket(tracker, &torrent, &request.ticket)?;
    spend(tracker, session, &request.ticket, &request.pieces)?;
    let params = &torrent.params;
    let tables = tracker.tables.tables(params, &request.ticket.downloader, &downloader.y)?;
    let to = Party { tables: &tables, master: &master, epoch: request.ticket.epoch };
    let keys = rekey::encryption_keys(params, &to, &request.pieces)?;
    tracker.keyed(&torrent, (Role::Seed, session.id), request.ticket.downloader, &request.pieces);
    count(&tracker.counters.encryption_keys, request.pieces.len() as u64);
    Ok(Keys { keys, now: clock::now() })
}

/// Takes keys from what an uploader may have for the ticket's downloader. Errors: [`ApiError::Rate`].
fn spend(tracker: &Tracker, session: &Session, ticket: &Ticket, pieces: &[u32]) -> Result<(), Refusal> {
    let spent = tracker.budgets.spend((session.id, ticket.downloader), ticket.epoch, pieces, clock::now());
    spent.map_err(|wait| Refusal::wait(ApiError::Rate, wait))
}

/// Refuses whoever is no seed of the torrent. Blocks. Errors: [`ApiError::WrongRole`], [`ApiError::WrongTorrent`],
/// [`ApiError::Revoked`].
pub(super) fn seed_of(tracker: &Tracker, session: &Session, torrent: &TorrentId) -> Result<(), Refusal> {
    if session.role != Role::Seed {
        return Err(ApiError::WrongRole.into());
    }
    let seed = tracker.store.seed(&session.id)?.ok_or(ApiError::UnknownSubscriber)?;
    if seed.torrent_id != *torrent {
        return Err(ApiError::WrongTorrent.into());
    }
    if seed.revoked {
        return Err(ApiError::Revoked.into());
    }
    Ok(())
}

/// The downloader, if the ticket is its word to this uploader about this torrent, and in time. Errors:
/// [`ApiError::BadTicket`], [`ApiError::ExpiredTicket`], [`ApiError::Revoked`].
fn check_ticket(
    tracker: &Tracker,
    ticket: &Ticket,
    torrent: &TorrentId,
    uploader: &SubscriberId,
) -> Result<SubscriberRecord, Refusal> {
    if ticket.torrent_id != *torrent || ticket.uploader != *uploader {
        return Err(ApiError::BadTicket.into());
    }
    let downloader = tracker.store.subscriber(&ticket.downloader)?.ok_or(ApiError::BadTicket)?;
    if downloader.torrent_id != *torrent {
        return Err(ApiError::BadTicket.into());
    }
    tracker.tickets.check(&downloader.identity, ticket).map_err(|_| ApiError::BadTicket)?;
    let now = clock::now();
    if ticket.expires <= now || ticket.expires > now.saturating_add(tracker.config.max_ticket_seconds) {
        return Err(ApiError::ExpiredTicket.into());
    }
    if downloader.revoked {
        return Err(Refusal::new(ApiError::Revoked, "the downloader's subscription was revoked"));
    }
    Ok(downloader)
}

/// Errors: [`ApiError::UnknownEpoch`], also where the ticket's epoch is retired: its signer has to sign another.
fn master_of_ticket(
    tracker: &Tracker,
    torrent: &Torrent,
    ticket: &Ticket,
) -> Result<Arc<MasterKey>, ApiError> {
    master(tracker, torrent, ticket.epoch).map_err(|_| ApiError::UnknownEpoch)
}

/// Answers a call within a session, off the async threads.
pub(super) async fn in_session<R: DeserializeOwned + Send + 'static, A: Serialize + Send + 'static>(
    tracker: Shared,
    headers: HeaderMap,
    body: Body,
    job: fn(&Tracker, &Session, &R) -> Result<A, Refusal>,
) -> Response {
    in_session_or_at_once(tracker, headers, body, |_, _, _| false, job).await
}

/// [`in_session`], but what `is_short` is done on the thread that read it.
async fn in_session_or_at_once<R: DeserializeOwned + Send + 'static, A: Serialize + Send + 'static>(
    State(tracker): Shared,
    headers: HeaderMap,
    body: Body,
    is_short: impl Fn(&Tracker, &Session, &R) -> bool,
    job: fn(&Tracker, &Session, &R) -> Result<A, Refusal>,
) -> Response {
    let answer = async {
        let session = tracker.session(bearer(&headers).and_then(SessionToken::from_text).as_ref())?;
        let request: R = read(body)?;
        if is_short(&tracker, &session, &request) {
            return job(&tracker, &session, &request);
        }
        let shared = Arc::clone(&tracker);
        tracker.workers.run_for(session.id, move || job(&shared, &session, &request)).await?
    };
    respond(&tracker, answer.await)
}

/// What follows `Bearer` in a request's head.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ")
}

pub(super) fn read<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let body = body.map_err(|rejection| {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge,
            _ => ApiError::BadRequest,
        };
        Refusal::from(code)
    })?;
    Ok(api::from_bytes(&body, api::MAX_BODY)?)
}

pub(super) fn respond<T: Serialize>(tracker: &Tracker, answer: Result<T, Refusal>) -> Response {
    match answer {
        Ok(answer) => bencoded(bencode::to_bytes(&answer)),
        Err(refusal) => {
            count(&tracker.counters.calls_refused, 1);
            tracing::debug!(code = refusal.code.word(), "refused a call");
            refusal.into_response()
        }
    }
}
