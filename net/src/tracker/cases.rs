//! Who sent a bad piece first: the calls *accuse*, *questions* and *defend*.
//!
//! The finder of a bad piece shows its ciphertext and the statement by which it came. Its sender is asked from whom it had the
//! piece. It clears itself by an older statement about just the ciphertext that T made the finder's of, and then the one who
//! signed that is asked. Times fall from hand to hand, so that this ends: with a seed, or with somebody who shows nothing in
//! time, or nothing that fits. That one is to blame.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as RequestBody;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use swarmseal_core::{KeyCommitment, PublicKey, SubscriberId, TorrentId};
use tokio::time::timeout;

use super::calls::{Body, Shared, bearer, in_session, respond};
use super::clock;
use super::epochs::master;
use super::judge::{self, Finding, Holder};
use super::metrics::count;
use super::records::{CaseRecord, Outcome, SubscriberRecord};
use super::refusal::Refusal;
use super::sessions::Session;
use super::state::{Torrent, Tracker};
use super::store::{Next, StoreError};
use crate::wire::api::{
    self, Accuse, Accused, ApiError, Defend, Defended, MAX_QUESTIONS, Question, Questions, QuestionsRequest,
};
use crate::wire::metainfo::Metainfo;
use crate::wire::seal::{Entry, Parties, Statement};

/// For an accusation to arrive: few may be under way.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Statements that do not fit, by one suspect about one piece: each costs a T.
const MAX_ATTEMPTS: u32 = 16;
/// Seconds by which the clock of who signs a statement may be off.
const MAX_SKEW: u64 = 600;

/// `POST /accuse`
pub(super) async fn accuse(State(tracker): Shared, headers: HeaderMap, body: RequestBody) -> Response {
    let answer = async {
        let session = tracker.session(bearer(&headers).as_ref())?;
        // Whole pieces are held in memory: strangers get no further than this, and members a few at a time.
        let _place = tracker.accusing.acquire().await.map_err(|_| ApiError::Busy)?;
        let longest = tracker.torrents().iter().map(|torrent| torrent.piece_length).max().unwrap_or(0);
        let limit = api::max_accusation(longest);
        let body = timeout(BODY_TIMEOUT, axum::body::to_bytes(body, limit)).await;
        let body = body.map_err(|_| ApiError::BadRequest)?.map_err(|_| ApiError::TooLarge)?;
        let request: Accuse = api::from_bytes(&body, limit)?;
        drop(body);
        let shared = Arc::clone(&tracker);
        tracker.workers.run_for(session.id, move || open_case(&shared, &session, request)).await?
    };
    respond(&tracker, answer.await)
}

fn open_case(tracker: &Tracker, session: &Session, request: Accuse) -> Result<Accused, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    let own = tracker.subscriber_of(session, &torrent.id)?;
    if tracker.is_barred(&session.id) {
        return Err(ApiError::Barred.into());
    }
    let Accuse { piece, uploader, statement, ciphertext, .. } = request;
    if piece >= torrent.piece_count
        || torrent.is_clear(piece)
        || ciphertext.len() != torrent.piece_length as usize
    {
        return Err(ApiError::BadPiece.into());
    }
    let now = clock::now();
    let stated = check_statement(tracker, &torrent, (uploader, session.id), &statement, piece)?;
    if stated.hash != *blake3::hash(&ciphertext).as_bytes() || statement.time > now + MAX_SKEW {
        return Err(ApiError::BadStatement.into());
    }
    let id = case_id(&torrent.id, (&uploader, &session.id), &stated);
    if let Some(known) = tracker.store.case(&id)? {
        return match known.outcome {
            Outcome::FalseAccusation => Err(ApiError::NotBad.into()),
            Outcome::Open | Outcome::Blamed | Outcome::Lapsed => Ok(Accused { case: id, now }),
        };
    }
    let mut case = CaseRecord {
        torrent_id: torrent.id,
        piece,
        accuser: session.id,
        epoch: statement.epoch,
        cleared: Vec::new(),
        suspect: uploader,
        stated: statement.time,
        attempts: 0,
        opened: now,
        deadline: now + tracker.config.defence_seconds,
        outcome: Outcome::Open,
    };
    let finding = with_holder(tracker, &torrent, &own, statement.epoch, |holder| {
        let hash = piece_hash(tracker, &torrent, piece)?;
        Ok(judge::examine(&torrent.params, (piece, &hash), holder, &ciphertext)?)
    })?;
    case.outcome = match finding {
        Finding::Good => Outcome::FalseAccusation,
        // T makes no such block, and a seed has nobody before it.
        Finding::Improper => Outcome::Blamed,
        Finding::Bad if tracker.store.seed(&uploader)?.is_some() => Outcome::Blamed,
        Finding::Bad => Outcome::Open,
    };
    tracker.store.add_case(&id, &case, &ciphertext)?;
    count(&tracker.counters.accusations, 1);
    announce(tracker, &id, &case)?;
    match case.outcome {
        Outcome::FalseAccusation => Err(ApiError::NotBad.into()),
        Outcome::Open | Outcome::Blamed | Outcome::Lapsed => Ok(Accused { case: id, now }),
    }
}

/// `POST /questions`
pub(super) async fn questions(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, find_questions).await
}

fn find_questions(
    tracker: &Tracker,
    session: &Session,
    request: &QuestionsRequest,
) -> Result<Questions, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    tracker.subscriber_of(session, &torrent.id)?;
    let open = tracker.store.questions(&session.id, MAX_QUESTIONS)?;
    let questions = open.into_iter().map(|(case, record)| {
        let CaseRecord { piece, stated, deadline, .. } = record;
        Question { case, piece, before: stated, deadline }
    });
    let interval = tracker.config.announce_interval;
    Ok(Questions { questions: questions.collect(), interval, now: clock::now() })
}

/// `POST /defend`
pub(super) async fn defend(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, hear).await
}

fn hear(tracker: &Tracker, session: &Session, request: &Defend) -> Result<Defended, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    let own = tracker.subscriber_of(session, &torrent.id)?;
    let now = clock::now();
    let case = tracker.store.case(&request.case)?.filter(|case| {
        let asked = case.outcome == Outcome::Open && case.suspect == session.id && case.deadline > now;
        asked && case.torrent_id == torrent.id
    });
    let case = case.ok_or(ApiError::UnknownCase)?;
    if case.attempts >= MAX_ATTEMPTS {
        return Err(ApiError::Rate.into());
    }
    let Defend { uploader, statement, .. } = request;
    let stated = check_statement(tracker, &torrent, (*uploader, session.id), statement, case.piece)?;
    // Never the same or a later time: nobody can be asked twice.
    if statement.time >= case.stated {
        return Err(ApiError::BadStatement.into());
    }
    // What can no longer be computed is nobody's fault. Whoever retires an epoch is told so (SECURITY).
    let retired = |epoch| torrent.epochs.check(epoch) == Err(ApiError::RetiredEpoch);
    if retired(statement.epoch) || retired(case.epoch) {
        let lapsed =
            Next { suspect: *uploader, stated: statement.time, deadline: now, outcome: Outcome::Lapsed };
        let case = tracker.store.go_on(&request.case, &session.id, Some(lapsed))?;
        announce(tracker, &request.case, &case)?;
        return Ok(Defended { cleared: 1, now });
    }
    let ciphertext = tracker.store.evidence(&request.case)?.ok_or(ApiError::UnknownCase)?;
    let accuser = tracker.store.subscriber(&case.accuser)?.ok_or(ApiError::UnknownCase)?;
    let input = with_holder(tracker, &torrent, &accuser, case.epoch, |accuser| {
        with_holder(tracker, &torrent, &own, statement.epoch, |sender| {
            Ok(judge::input_hash(&torrent.params, case.piece, (accuser, &ciphertext), sender)?)
        })
    })?;
    let fits = input == stated.hash;
    let next = if fits {
        let first = tracker.store.seed(uploader)?.is_some();
        Some(Next {
            suspect: *uploader,
            stated: statement.time,
            deadline: now + tracker.config.defence_seconds,
            outcome: if first { Outcome::Blamed } else { Outcome::Open },
        })
    } else {
        None
    };
    let case = tracker.store.go_on(&request.case, &session.id, next)?;
    if fits {
        announce(tracker, &request.case, &case)?;
    }
    Ok(Defended { cleared: fits.into(), now })
}

/// What a statement says of a piece, if it is the uploader's word to the downloader. Errors: [`ApiError::BadStatement`].
fn check_statement(
    tracker: &Tracker,
    torrent: &Torrent,
    (uploader, downloader): (SubscriberId, SubscriberId),
    statement: &Statement,
    piece: u32,
) -> Result<Entry, Refusal> {
    let subscriber = tracker.store.subscriber(&uploader)?;
    let known = match subscriber.map(|record| (record.torrent_id, record.identity)) {
        Some(known) => Some(known),
        None => tracker.store.seed(&uploader)?.map(|record| (record.torrent_id, record.key)),
    };
    let known = known.filter(|(torrent_id, _)| *torrent_id == torrent.id);
    let (_, identity) = known.ok_or(ApiError::BadStatement)?;
    let parties = Parties { torrent_id: torrent.id, uploader, downloader };
    statement.verify(&identity, &parties).map_err(|_| ApiError::BadStatement)?;
    Ok(*statement.entry(piece).ok_or(ApiError::BadStatement)?)
}

/// Runs `job` with a subscriber in an epoch. Errors: [`ApiError::UnknownEpoch`], and the job's.
fn with_holder<T>(
    tracker: &Tracker,
    torrent: &Torrent,
    record: &SubscriberRecord,
    epoch: u64,
    job: impl FnOnce(&Holder<'_>) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let public = PublicKey::from_bytes(&torrent.params, &record.y)?;
    let keys = KeyCommitment::of(&torrent.params, &record.device, &public);
    let id = SubscriberId::of(&torrent.id, &record.identity, &keys);
    job(&Holder { id, public: &public, master: &*master(tracker, torrent, epoch)?, epoch })
}

/// SHA-1 of a packaged piece. Cases are rare: the .torrent is read for each.
fn piece_hash(tracker: &Tracker, torrent: &Torrent, piece: u32) -> Result<[u8; 20], Refusal> {
    let record = tracker.store.torrent(&torrent.id)?.ok_or(ApiError::UnknownTorrent)?;
    let metainfo = Metainfo::from_bytes(&record.metainfo, crate::backend::kernels()).map_err(|error| {
        tracing::error!(%error, "a registered torrent cannot be read");
        ApiError::Internal
    })?;
    Ok(*metainfo.info.pieces.get(piece as usize).ok_or(ApiError::BadPiece)?)
}

/// The same accusation again is the same case.
fn case_id(
    torrent: &TorrentId,
    (uploader, accuser): (&SubscriberId, &SubscriberId),
    stated: &Entry,
) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("swarmseal v1 case");
    hasher.update(&torrent.0).update(&uploader.0).update(&accuser.0);
    hasher.update(&stated.piece.to_be_bytes()).update(&stated.hash);
    *hasher.finalize().as_bytes()
}

/// What follows from how a case stands.
fn announce(tracker: &Tracker, id: &[u8; 32], case: &CaseRecord) -> Result<(), StoreError> {
    let CaseRecord { torrent_id, piece, accuser, suspect, outcome, .. } = case;
    tracing::info!(case = %hex::encode(id), torrent = %torrent_id, piece, %accuser, %suspect, ?outcome, "a bad piece");
    match outcome {
        Outcome::Open | Outcome::Lapsed => Ok(()),
        Outcome::Blamed => {
            count(&tracker.counters.blamed, 1);
            tracker.lost_a_case(suspect, torrent_id)
        }
        Outcome::FalseAccusation => {
            count(&tracker.counters.false_accusations, 1);
            tracker.lost_a_case(accuser, torrent_id)
        }
    }
}

/// Ends the cases whose suspects had their time. Blocks.
pub(super) fn end_overdue_now(tracker: &Tracker) -> Result<(), StoreError> {
    let ended = tracker.store.end_overdue(clock::now())?;
    ended.iter().try_for_each(|(id, case)| announce(tracker, id, case))
}

/// [`end_overdue_now`], off the async threads.
pub(super) async fn end_overdue(tracker: &Arc<Tracker>) {
    let shared = Arc::clone(tracker);
    if let Ok(Err(error)) = tracker.workers.run(move || end_overdue_now(&shared)).await {
        tracing::error!(%error, "cases cannot be ended");
    }
}
