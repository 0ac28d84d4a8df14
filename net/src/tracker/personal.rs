//! Cipher hashes, and the personal torrents that are made of them: the calls, and what keeps the keys for such torrents from
//! being harvested where no client can sign a ticket.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError, RwLock};

use axum::http::HeaderMap;
use axum::response::Response;
use swarmseal_core::{SubscriberId, TorrentId};

use super::budgets::{Budgets, Pair};
use super::calls::{Body, Shared, in_session, seed_of};
use super::clock;
use super::epochs::master;
use super::metrics::count;
use super::records::{PersonalRecord, SubscriberRecord};
use super::refusal::Refusal;
use super::rekey::{self, Party};
use super::sessions::Session;
use super::state::{Torrent, Tracker, random};
use crate::wire::api::{
    Acknowledged, ApiError, Clients, ClientsRequest, HashJob, Hashes, HashesRequest, Keys, MAX_CLIENTS,
    MAX_PIECES, NewHashes, OrdinaryClient, Personal, PersonalKeysRequest, PersonalRequest, Role, Work,
    WorkRequest,
};
use crate::wire::mse;
use crate::wire::personal::PersonalTorrent;

/// Times a day that a seed or peer may have the key of one piece for one subscriber, whose client asks by nobody's word.
const TIMES: u8 = 4;

/// Personal torrents of one torrent that are remembered to have clients.
const MAX_RECENT: usize = 1000;
/// Clients that one answer names to be served.
const MAX_LEECHES: usize = 5;
/// Seconds until somebody asks for clients again, at most: where there are some, and where there are none.
const SOME_CLIENTS: u32 = 30;
const NO_CLIENTS: u32 = 300;

/// Whose personal torrents there are.
pub(super) struct Personals {
    known: RwLock<Known>,
    budgets: Budgets,
    /// Personal torrents that clients announced, the last one last.
    recent: Mutex<HashMap<TorrentId, VecDeque<[u8; 20]>>>,
}

#[derive(Default)]
struct Known {
    by_info_hash: HashMap<[u8; 20], PersonalRecord>,
    /// Info-hashes by their hidden names.
    hidden: HashMap<[u8; 20], [u8; 20]>,
}

impl Known {
    fn add(&mut self, info_hash: [u8; 20], record: PersonalRecord) {
        self.hidden.insert(mse::hidden_name(&info_hash), info_hash);
        self.by_info_hash.insert(info_hash, record);
    }
}

impl Personals {
    /// Those that the store has.
    pub(super) fn new(records: Vec<([u8; 20], PersonalRecord)>) -> Self {
        let mut known = Known::default();
        for (info_hash, record) in records {
            known.add(info_hash, record);
        }
        Personals { known: RwLock::new(known), budgets: Budgets::new(TIMES), recent: Mutex::default() }
    }

    /// Whose it is.
    pub(super) fn find(&self, info_hash: &[u8; 20]) -> Option<PersonalRecord> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_info_hash.get(info_hash).copied()
    }

    /// The personal torrents of a subscriber, of all epochs.
    pub(super) fn of(&self, subscriber: &SubscriberId) -> Vec<[u8; 20]> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let own = known.by_info_hash.iter().filter(|(_, record)| record.subscriber == *subscriber);
        own.map(|(&info_hash, _)| info_hash).collect()
    }

    /// The info-hash that has this hidden name.
    fn reveal(&self, hidden: &[u8; 20]) -> Option<[u8; 20]> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).hidden.get(hidden).copied()
    }

    /// A client announced its personal torrent.
    pub(super) fn seen(&self, torrent: TorrentId, info_hash: [u8; 20]) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = recent.entry(torrent).or_default();
        recent.retain(|known| *known != info_hash);
        if recent.len() >= MAX_RECENT {
            recent.pop_front();
        }
        recent.push_back(info_hash);
    }

    /// Takes keys from what one may have of another. Errors: [`ApiError::Rate`].
    fn spend(&self, pair: Pair, epoch: u64, pieces: &[u32], now: u64) -> Result<(), Refusal> {
        let spent = self.budgets.spend(pair, epoch, pieces, now);
        spent.map_err(|wait| Refusal::wait(ApiError::Rate, wait))
    }

    /// Forgets those of a torrent's epochs before `oldest`; their info-hashes.
    pub(super) fn forget(&self, torrent: &TorrentId, oldest: u64) -> Vec<[u8; 20]> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let old = known
            .by_info_hash
            .iter()
            .filter(|(_, record)| record.torrent_id == *torrent && record.epoch < oldest);
        let old: Vec<[u8; 20]> = old.map(|(&info_hash, _)| info_hash).collect();
        for info_hash in &old {
            known.by_info_hash.remove(info_hash);
            known.hidden.remove(&mse::hidden_name(info_hash));
        }
        drop(known);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recent) = recent.get_mut(torrent) {
            recent.retain(|info_hash| !old.contains(info_hash));
        }
        old
    }

    fn recent(&self, torrent: &TorrentId) -> Vec<[u8; 20]> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.get(torrent).map_or_else(Vec::new, |recent| recent.iter().rev().copied().collect())
    }

    fn add(&self, info_hash: [u8; 20], record: PersonalRecord) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).add(info_hash, record);
    }
}

/// `POST /seed/work`
pub(super) async fn work(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, find_work).await
}

fn find_work(tracker: &Tracker, session: &Session, request: &WorkRequest) -> Result<Work, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    seed_of(tracker, session, &torrent.id)?;
    loop {
        let now = clock::now();
        let Some(subscriber) = tracker.hash_work.next(&torrent.id, now) else {
            return Ok(Work { job: None, now });
        };
        let record = tracker.store.subscriber(&subscriber)?.filter(|record| !record.revoked);
        let Some(record) = record else {
            tracker.hash_work.done(&torrent.id, &subscriber, true);
            continue;
        };
        let epoch = torrent.epochs.current();
        let first = tracker.store.hash_count((&subscriber, epoch))?;
        let last = torrent.piece_count.min(first + MAX_PIECES as u32);
        if first == last {
            tracker.hash_work.done(&torrent.id, &subscriber, true);
            continue;
        }
        let params = &torrent.params;
        let tables = tracker.tables.tables(params, &subscriber, &record.y)?;
        let master = master(tracker, &torrent, epoch)?;
        let to = Party { tables: &tables, master: &master, epoch };
        // The hash of a clear piece is known without a key, in whose place are zeros.
        let pieces: Vec<u32> = (first..last).filter(|&piece| !torrent.is_clear(piece)).collect();
        let made = rekey::encryption_keys(params, &to, &pieces)?;
        let width = params.group().bytes();
        let mut keys = vec![0; (last - first) as usize * width];
        for (&piece, key) in pieces.iter().zip(made.chunks_exact(width)) {
            keys[(piece - first) as usize * width..][..width].copy_from_slice(key);
        }
        count(&tracker.counters.encryption_keys, pieces.len() as u64);
        return Ok(Work { job: Some(HashJob { subscriber, epoch, first, keys }), now });
    }
}

/// `POST /seed/hashes`
pub(super) async fn new_hashes(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, keep_hashes).await
}

fn keep_hashes(tracker: &Tracker, session: &Session, request: &NewHashes) -> Result<Acknowledged, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    seed_of(tracker, session, &torrent.id)?;
    let record = tracker.store.subscriber(&request.subscriber)?.ok_or(ApiError::UnknownSubscriber)?;
    if record.torrent_id != torrent.id || torrent.epochs.current() != request.epoch {
        return Err(ApiError::BadHashes.into());
    }
    let (hashes, rest) = request.hashes.as_chunks::<20>();
    let end = request.first.checked_add(hashes.len() as u32).filter(|&end| end <= torrent.piece_count);
    let end = end.filter(|_| !hashes.is_empty() && rest.is_empty()).ok_or(ApiError::BadHashes)?;
    let whose = (&request.subscriber, request.epoch);
    let complete = end == torrent.piece_count;
    let personal = if complete {
        let before = tracker.store.hashes(whose, 0)?;
        if before.len() != 20 * request.first as usize {
            return Err(ApiError::BadHashes.into());
        }
        let all = [before.as_chunks::<20>().0, hashes].concat();
        let own = PersonalTorrent { label: &torrent.label, piece_length: torrent.piece_length, hashes: &all };
        let record =
            PersonalRecord { torrent_id: torrent.id, subscriber: request.subscriber, epoch: request.epoch };
        Some((own.info_hash(), record))
    } else {
        None
    };
    let added = personal.as_ref().map(|(info_hash, record)| (info_hash, *record));
    tracker.store.add_hashes(whose, request.first, &request.hashes, added)?;
    if let Some((info_hash, record)) = personal {
        tracker.personals.add(info_hash, record);
    }
    tracker.hash_work.done(&torrent.id, &request.subscriber, complete);
    count(&tracker.counters.cipher_hashes, hashes.len() as u64);
    Ok(Acknowledged { now: clock::now() })
}

/// `POST /hashes`
pub(super) async fn hashes(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, own_hashes).await
}

fn own_hashes(tracker: &Tracker, session: &Session, request: &HashesRequest) -> Result<Hashes, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    tracker.subscriber_of(session, &torrent.id)?;
    let epoch = torrent.epochs.current();
    let hashes = tracker.store.hashes((&session.id, epoch), request.first)?;
    let there = u64::from(request.first) + hashes.len() as u64 / 20;
    if request.wanted != 0 && there < u64::from(torrent.piece_count) {
        tracker.hash_work.wanted(&torrent.id, session.id);
    }
    Ok(Hashes { epoch, hashes, now: clock::now() })
}

/// `POST /personal`
pub(super) async fn personal(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, who_is_it).await
}

fn who_is_it(tracker: &Tracker, session: &Session, request: &PersonalRequest) -> Result<Personal, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    tracker.member_of(session, &torrent.id)?;
    let info_hash = match request.hidden {
        0 => request.name,
        _ => tracker.personals.reveal(&request.name).ok_or(ApiError::UnknownPersonal)?,
    };
    let (record, _) = downloader(tracker, &torrent, &info_hash)?;
    let (subscriber, epoch) = (record.subscriber, record.epoch);
    Ok(Personal { info_hash, subscriber, epoch, now: clock::now() })
}

/// The subscriber of a personal torrent, who announced it under its passkey a while ago at most: that is its word. Errors:
/// [`ApiError::UnknownPersonal`], [`ApiError::Revoked`].
fn downloader(
    tracker: &Tracker,
    torrent: &Torrent,
    info_hash: &[u8; 20],
) -> Result<(PersonalRecord, SubscriberRecord), Refusal> {
    let record = tracker.personals.find(info_hash).filter(|record| record.torrent_id == torrent.id);
    let record = record.ok_or(ApiError::UnknownPersonal)?;
    let subscriber = tracker.store.subscriber(&record.subscriber)?.ok_or(ApiError::UnknownPersonal)?;
    if subscriber.revoked {
        return Err(Refusal::new(ApiError::Revoked, "the downloader's subscription was revoked"));
    }
    // An epoch that came later has hashes, and a torrent, of its own. This one goes on until its epoch is retired.
    let there = tracker.swarms.has(info_hash, &record.subscriber, clock::now());
    if torrent.epochs.check(record.epoch).is_err() || !there {
        return Err(ApiError::UnknownPersonal.into());
    }
    Ok((record, subscriber))
}

/// `POST /personal/rekey`
pub(super) async fn personal_rekey(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, make_rekeys).await
}

fn make_rekeys(tracker: &Tracker, session: &Session, request: &PersonalKeysRequest) -> Result<Keys, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    let own = tracker.subscriber_of(session, &torrent.id)?;
    torrent.check_pieces(&request.pieces)?;
    let (personal, downloader) = downloader(tracker, &torrent, &request.info_hash)?;
    let own_master = master(tracker, &torrent, request.epoch)?;
    let master = master(tracker, &torrent, personal.epoch)?;
    let pair = (session.id, personal.subscriber);
    tracker.personals.spend(pair, personal.epoch, &request.pieces, clock::now())?;
    let params = &torrent.params;
    let own_tables = tracker.tables.tables(params, &session.id, &own.y)?;
    let tables = tracker.tables.tables(params, &personal.subscriber, &downloader.y)?;
    let from = Party { tables: &own_tables, master: &own_master, epoch: request.epoch };
    let to = Party { tables: &tables, master: &master, epoch: personal.epoch };
    let keys = rekey::rekeys(params, &from, &to, &request.pieces)?;
    tracker.keyed(&torrent, (Role::Subscriber, session.id), personal.subscriber, &request.pieces);
    count(&tracker.counters.rekeys, request.pieces.len() as u64);
    Ok(Keys { keys, now: clock::now() })
}

/// `POST /personal/clients`
pub(super) async fn clients(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, find_clients).await
}

fn find_clients(tracker: &Tracker, session: &Session, request: &ClientsRequest) -> Result<Clients, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    tracker.member_of(session, &torrent.id)?;
    let now = clock::now();
    let (mut clients, mut leeches) = (Vec::new(), Vec::new());
    for info_hash in tracker.personals.recent(&torrent.id) {
        let Some(record) = tracker.personals.find(&info_hash) else { continue };
        if record.subscriber == session.id {
            continue;
        }
        for (address, complete) in tracker.swarms.of_member(&info_hash, &record.subscriber, now) {
            let class = if complete { &mut clients } else { &mut leeches };
            class.push(OrdinaryClient {
                address: address.to_string(),
                complete: complete.into(),
                epoch: record.epoch,
                info_hash,
                subscriber: record.subscriber,
            });
        }
    }
    let wait = if clients.is_empty() && leeches.is_empty() { NO_CLIENTS } else { SOME_CLIENTS };
    // Who asks next is told of others, so that they share the calls.
    let chance = u64::from_le_bytes(random()?);
    let turn = (chance % leeches.len().max(1) as u64) as usize;
    leeches.rotate_left(turn);
    leeches.truncate(MAX_LEECHES);
    clients.truncate(MAX_CLIENTS - leeches.len());
    clients.extend(leeches);
    Ok(Clients { clients, interval: tracker.config.announce_interval.min(wait), now })
}

/// `POST /personal/pull`
pub(super) async fn pull(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, make_pull_keys).await
}

/// Re-keys from an ordinary client's ciphertext to the one who asks. Its client hands that ciphertext to whoever names the
/// info-hash, and two ciphertexts give their re-key (SECURITY).
fn make_pull_keys(
    tracker: &Tracker,
    session: &Session,
    request: &PersonalKeysRequest,
) -> Result<Keys, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    let own = tracker.subscriber_of(session, &torrent.id)?;
    torrent.check_pieces(&request.pieces)?;
    let (personal, uploader) = downloader(tracker, &torrent, &request.info_hash)?;
    let now = clock::now();
    let mut clients = tracker.swarms.of_member(&request.info_hash, &personal.subscriber, now).into_iter();
    if !clients.any(|(_, complete)| complete) {
        return Err(ApiError::UnknownPersonal.into());
    }
    let from_master = master(tracker, &torrent, personal.epoch)?;
    let to_master = master(tracker, &torrent, request.epoch)?;
    tracker.personals.spend((personal.subscriber, session.id), request.epoch, &request.pieces, now)?;
    let params = &torrent.params;
    let from_tables = tracker.tables.tables(params, &personal.subscriber, &uploader.y)?;
    let to_tables = tracker.tables.tables(params, &session.id, &own.y)?;
    let from = Party { tables: &from_tables, master: &from_master, epoch: personal.epoch };
    let to = Party { tables: &to_tables, master: &to_master, epoch: request.epoch };
    let keys = rekey::rekeys(params, &from, &to, &request.pieces)?;
    tracker.keyed(&torrent, (Role::Subscriber, personal.subscriber), session.id, &request.pieces);
    count(&tracker.counters.rekeys, request.pieces.len() as u64);
    Ok(Keys { keys, now })
}

/// `POST /seed/personal`
pub(super) async fn seed_personal(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, make_seed_keys).await
}

fn make_seed_keys(
    tracker: &Tracker,
    session: &Session,
    request: &PersonalKeysRequest,
) -> Result<Keys, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    seed_of(tracker, session, &torrent.id)?;
    torrent.check_pieces(&request.pieces)?;
    let (personal, downloader) = downloader(tracker, &torrent, &request.info_hash)?;
    let master = master(tracker, &torrent, personal.epoch)?;
    let pair = (session.id, personal.subscriber);
    tracker.personals.spend(pair, personal.epoch, &request.pieces, clock::now())?;
    let params = &torrent.params;
    let tables = tracker.tables.tables(params, &personal.subscriber, &downloader.y)?;
    let to = Party { tables: &tables, master: &master, epoch: personal.epoch };
    let keys = rekey::encryption_keys(params, &to, &request.pieces)?;
    tracker.keyed(&torrent, (Role::Seed, session.id), personal.subscriber, &request.pieces);
    count(&tracker.counters.encryption_keys, request.pieces.len() as u64);
    Ok(Keys { keys, now: clock::now() })
}
