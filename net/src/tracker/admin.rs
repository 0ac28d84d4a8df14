//! The admin API: JSON, behind bearer tokens with roles. `openapi.json` beside this file describes it. Whatever changes
//! something has its entry in the audit log.

mod audit;
mod devices;
mod listings;
mod tokens;
mod trace;

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Extension, MatchedPath, Query, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use swarmseal_core::{Profile, SubscriberId, TorrentId, WitnessSecret};
use zeroize::Zeroizing;

use super::clock;
use super::connection::Remote;
use super::metrics::count;
use super::records::{GrantRecord, SeedRecord, TorrentRecord};
use super::refusal::Refusal;
use super::state::{self, Torrent, Tracker, random};
use super::store::{Listed, NewVoucher, mark};
use super::witnesses::Witnesses;
use crate::wire::api::{ApiError, MAX_ORDER, Passkey, Role, Token};
use crate::wire::authority::SignedAuthority;
use crate::wire::identity::is_public_key;
use crate::wire::license::Policy;
use crate::wire::metainfo::{MAX_FILE, Metainfo};
use crate::wire::origin::Origin;

pub(super) use audit::{AuditRecord, list as audit};
pub(super) use devices::{list as devices, revoke as revoke_device};
pub(super) use listings::{accounts, grants, list_vouchers, revocations, revoke_grant, subscriber};
pub(super) use tokens::{
    TokenRecord, Tokens, create as create_token, list as tokens, revoke as revoke_token, whoami,
};
pub(super) use trace::trace;

/// Bytes of the longest body: a .torrent in hexadecimal.
pub(super) const MAX_BODY: usize = 2 * MAX_FILE + 4096;
/// Vouchers of one call.
const MAX_VOUCHERS: u32 = 1000;
/// Devices of one grant.
const MAX_DEVICES: u32 = 1000;
/// Subscribers in one answer.
pub(super) const MAX_PAGE: usize = 1000;
const MAX_NAME: usize = 255;

type Shared = State<Arc<Tracker>>;
pub(super) type Body<T> = Result<Json<Object<T>>, JsonRejection>;

/// What a JSON object says. An array of a record's fields, in their order, passes for the record elsewhere: `[]` would be one whose
/// fields may all be left out.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Object)
    }
}

/// What an answer was about, for the audit log.
#[derive(Clone, Debug)]
struct About(String);

/// The word of a refusal, for the audit log.
#[derive(Clone, Copy, Debug)]
struct Refused(&'static str);

/// A body that names what it is about: ids, and no secret.
pub(super) trait Subject {
    /// May take as long as a job does.
    fn subject(&self) -> String;
}

/// Lets a request pass whose token may make it, and keeps the audit log.
pub(super) async fn authorise(
    State(tracker): Shared,
    Extension(remote): Extension<Remote>,
    route: MatchedPath,
    mut request: Request,
    next: Next,
) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| Token::from_hex(value.to_str().ok()?.strip_prefix("Bearer ")?));
    let now = clock::now();
    let Some(caller) = given.and_then(|token| tracker.tokens.find(&token, now)) else {
        count(&tracker.counters.admin_refused, 1);
        let mut answer =
            refuse(Refusal::new(ApiError::NoSession, "expected an admin token as a bearer token"));
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return answer;
    };
    let (method, route) = (request.method().clone(), route.as_str().to_owned());
    let may = caller.role.may(&method, &route);
    let entry = AuditRecord {
        time: now,
        token: caller.id.clone(),
        who: caller.name.clone(),
        role: caller.role.name().to_owned(),
        address: remote.0.to_string(),
        action: format!("{method} {route}"),
        subject: String::new(),
        outcome: String::new(),
    };
    request.extensions_mut().insert(caller);
    // In a task of its own: a client that goes away does not keep a change from its entry.
    let done = tokio::spawn(async move {
        let mut answer = if may {
            next.run(request).await
        } else {
            refuse(Refusal::new(ApiError::WrongRole, "this token's role may not make this call"))
        };
        if may && [Method::GET, Method::HEAD].contains(&method) {
            return answer;
        }
        let subject =
            answer.extensions_mut().remove::<About>().map(|About(subject)| subject).unwrap_or_default();
        let refused = answer.extensions_mut().remove::<Refused>();
        let status = answer.status().as_u16();
        let outcome = refused.map_or(status.to_string(), |Refused(word)| format!("{status} {word}"));
        match audit::record(&tracker, AuditRecord { subject, outcome, ..entry }).await {
            Ok(()) => answer,
            Err(()) => refuse(ApiError::Internal.into()),
        }
    });
    done.await.unwrap_or_else(|error| {
        tracing::error!(%error, "an admin call failed");
        refuse(ApiError::Internal.into())
    })
}

/// `GET /admin/openapi.json`
pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

/// 32 bytes in hexadecimal.
#[derive(Clone, Copy)]
pub(super) struct Hex32(pub(super) [u8; 32]);

impl<'de> Deserialize<'de> for Hex32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| serde::de::Error::custom("expected 64 hexadecimal digits"))?;
        Ok(Hex32(bytes))
    }
}

/// A secret of 32 bytes in hexadecimal. Zeroized on drop.
pub(super) struct Secret32(Zeroizing<[u8; 32]>);

impl<'de> Deserialize<'de> for Secret32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.as_bytes(), bytes.as_mut_slice())
            .map_err(|_| serde::de::Error::custom("expected 64 hexadecimal digits"))?;
        Ok(Secret32(bytes))
    }
}

/// `GET /admin/keys`: what an authority for this tracker names.
pub(super) async fn keys(State(tracker): Shared) -> Response {
    let server = tracker.config.license_server.as_ref();
    let license_key = server.map_or_else(|| tracker.license_key.public(), |server| server.identity);
    Json(json!({
        "tracker_key": hex::encode(tracker.tracker_key.public()),
        "license_key": hex::encode(license_key),
        "origin": tracker.authorities.own().map(Origin::as_str),
    }))
    .into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfPublisher {
    publisher_key: Hex32,
}

/// `GET /admin/authority`: a publisher's newest.
pub(super) async fn authority(
    State(tracker): Shared,
    query: Result<Query<OfPublisher>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(OfPublisher { publisher_key })) => {
            let newest = tracker.authorities.newest(&publisher_key.0);
            Json(json!({ "authority": newest.map(|newest| hex::encode(newest.as_bytes())) })).into_response()
        }
        Err(rejection) => refuse(bad(rejection.body_text())),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PutAuthority {
    publisher_key: Hex32,
    /// The statement, in hexadecimal.
    authority: String,
}

impl Subject for PutAuthority {
    fn subject(&self) -> String {
        format!("authority of publisher {}", hex::encode(self.publisher_key.0))
    }
}

/// `POST /admin/authority`
pub(super) async fn put_authority(State(tracker): Shared, body: Body<PutAuthority>) -> Response {
    blocking(tracker, body, |tracker, body| {
        let bytes =
            hex::decode(&body.authority).map_err(|_| bad("authority: expected hexadecimal digits"))?;
        let authority = SignedAuthority::from_bytes(&bytes, &body.publisher_key.0)
            .map_err(|error| bad(error.to_string()))?;
        // Also what bounds the table.
        if !tracker.torrents().iter().any(|torrent| torrent.publisher_key == body.publisher_key.0) {
            return Err(bad("publisher_key: no torrent of this publisher is registered"));
        }
        let newest = keep_authority(tracker, authority)?;
        let names_us = newest.tracker_key == tracker.tracker_key.public();
        Ok(json!({ "authority": hex::encode(newest.as_bytes()), "names_this_tracker": names_us }))
    })
    .await
}

/// Keeps an authority if it is the newest of its publisher, and gives the newest. Errors: [`ApiError::BadRequest`] where it is from the
/// future.
fn keep_authority(tracker: &Tracker, authority: SignedAuthority) -> Result<Arc<SignedAuthority>, Refusal> {
    let (publisher, now) = (*authority.publisher_key(), clock::now());
    let kept = tracker.authorities.newest(&publisher);
    authority.supersedes(kept.as_deref(), now).map_err(|error| bad(error.to_string()))?;
    if tracker.store.keep_authority(&authority, now)? {
        tracing::info!(publisher = hex::encode(publisher), serial = authority.serial, "another authority");
        tracker.authorities.put(authority);
    }
    Ok(tracker.authorities.newest(&publisher).ok_or(ApiError::Internal)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Register {
    /// The .torrent, in hexadecimal.
    metainfo: String,
    /// Ed25519 public key of its seeds.
    seed_key: Hex32,
    /// The witness secret that it was published with.
    witness: Secret32,
    /// The operator's label.
    #[serde(default)]
    name: String,
}

impl Subject for Register {
    fn subject(&self) -> String {
        let metainfo = hex::decode(&self.metainfo).ok();
        let metainfo =
            metainfo.and_then(|bytes| Metainfo::from_bytes(&bytes, crate::backend::kernels()).ok());
        let torrent =
            metainfo.map_or("no torrent".to_owned(), |read| format!("torrent {}", read.info.seal.torrent_id));
        format!("{torrent}, seed key {}", hex::encode(self.seed_key.0))
    }
}

/// `POST /admin/torrents`
pub(super) async fn register(State(tracker): Shared, body: Body<Register>) -> Response {
    blocking(tracker, body, |tracker, body| {
        let bytes = hex::decode(&body.metainfo).map_err(|_| bad("metainfo: expected hexadecimal digits"))?;
        let metainfo = Metainfo::from_bytes(&bytes, crate::backend::kernels())
            .map_err(|error| bad(error.to_string()))?;
        let seal = &metainfo.info.seal;
        let authority = metainfo.authority.clone();
        let authority = authority.ok_or_else(|| bad("the .torrent does not say which tracker serves it"))?;
        if authority.tracker_key != tracker.tracker_key.public() {
            return Err(bad("the .torrent's authority names another tracker's key"));
        }
        let server = tracker.config.license_server.as_ref().map(|server| server.identity);
        if authority.license_key != tracker.license_key.public() && Some(authority.license_key) != server {
            return Err(bad("the .torrent's authority names another license key than this tracker's or its license server's"));
        }
        if seal.params.profile() == Profile::Paper && !tracker.config.insecure_paper_profile {
            return Err(bad("the profile `paper` protects nothing: expected insecure_paper_profile = true"));
        }
        if !is_public_key(&body.seed_key.0) {
            return Err(bad("seed_key: expected an Ed25519 public key"));
        }
        if body.name.len() > MAX_NAME {
            return Err(bad("name: expected at most 255 bytes"));
        }
        if let Ok(known) = tracker.torrent(&seal.torrent_id)
            && known.info_hash != metainfo.info_hash
        {
            return Err(bad("the torrent id is registered with another info-hash"));
        }
        let (torrent_id, key) = (seal.torrent_id, body.seed_key.0);
        keep_authority(tracker, authority)?;
        let witness = WitnessSecret::from_bytes(*body.witness.0);
        keep_witness(tracker, &torrent_id, &witness)?;
        let seed_id = SubscriberId::of_seed(&torrent_id, &key);
        let fresh = SeedRecord { torrent_id, key, passkey: Passkey::new(random()?), revoked: false };
        let record = TorrentRecord { metainfo: bytes, name: body.name.clone() };
        let newest = tracker.masters().newest();
        let (seed, epochs) = tracker.store.register(&record, newest, seed_id, fresh)?;
        let torrent = Torrent::new(&metainfo, body.name, epochs, witness);
        if seed.revoked {
            return Err(ApiError::Revoked.into());
        }
        let answer = json!({
            "torrent_id": torrent_id.to_string(),
            "info_hash": hex::encode(torrent.info_hash),
            "pieces": torrent.piece_count,
            "seed": seed_id.to_string(),
            "seed_passkey": seed.passkey.to_hex(),
        });
        tracker.add_torrent(torrent);
        tracker.add_member(seed.passkey, state::member(seed_id, Role::Seed, torrent_id));
        tracing::info!(torrent = %torrent_id, "registered");
        Ok(answer)
    })
    .await
}

/// Keeps the witness secret of a torrent: it is on the disk before the torrent is in the store. Errors: [`ApiError::BadRequest`] where
/// another is kept.
fn keep_witness(tracker: &Tracker, torrent: &TorrentId, witness: &WitnessSecret) -> Result<(), Refusal> {
    let failed = |error| {
        tracing::error!(%error, "a witness secret cannot be kept");
        Refusal::from(ApiError::Internal)
    };
    let known = tracker.witnesses.find(torrent).map_err(failed)?;
    // The mark tells another secret where the file is gone. It is made where no file contradicts it.
    let mark = (Witnesses::mark_name(torrent), mark(witness.as_bytes()));
    let same = known.is_none_or(|known| known.as_bytes().ct_eq(witness.as_bytes()).into())
        && tracker.store.check_marks(&[mark])?.is_empty()
        && tracker.witnesses.keep(torrent, witness).map_err(failed)?;
    if same { Ok(()) } else { Err(bad("witness: the torrent id is registered with another witness secret")) }
}

/// `GET /admin/torrents`
pub(super) async fn torrents(State(tracker): Shared) -> Response {
    let now = clock::now();
    let list: Vec<Value> = tracker
        .torrents()
        .iter()
        .map(|torrent| {
            let swarm = tracker.swarms.scrape(&torrent.info_hash, now);
            json!({
                "torrent_id": torrent.id.to_string(),
                "info_hash": hex::encode(torrent.info_hash),
                "label": torrent.label,
                "name": torrent.name,
                "profile": torrent.params.profile().name(),
                "pieces": torrent.piece_count,
                "complete": swarm.complete,
                "incomplete": swarm.incomplete,
                "downloaded": swarm.downloaded,
            })
        })
        .collect();
    Json(json!({ "torrents": list })).into_response()
}

/// What a license allows.
#[derive(Deserialize)]
struct Terms {
    plays: Option<u64>,
    not_before: Option<u64>,
    expires: Option<u64>,
    offline_grace: Option<u64>,
    devices: Option<u32>,
}

impl Terms {
    /// A grant of these terms; it may have expired already.
    fn grant(self, torrent_id: TorrentId, account: Option<String>) -> Result<GrantRecord, Refusal> {
        if self.expires.zip(self.not_before).is_some_and(|(expires, not_before)| expires <= not_before) {
            return Err(bad("not_before: expected a time before expires"));
        }
        let devices = self.devices.unwrap_or(1);
        if !(1..=MAX_DEVICES).contains(&devices) {
            return Err(bad("devices: expected 1 to 1000"));
        }
        if account.as_ref().is_some_and(|account| account.is_empty() || account.len() > MAX_NAME) {
            return Err(bad("account: expected 1 to 255 bytes"));
        }
        let Terms { plays, not_before, expires, offline_grace, .. } = self;
        // What is written as bencode and JSON stays within 63 bits.
        if [plays, not_before, expires, offline_grace]
            .into_iter()
            .flatten()
            .any(|n| i64::try_from(n).is_err())
        {
            return Err(bad("a number is too large"));
        }
        let policy = Policy { plays, not_before, expires, offline_grace };
        Ok(GrantRecord {
            torrent_id,
            account,
            devices,
            holders: Vec::new(),
            policy,
            created: clock::now(),
            freed: Vec::new(),
            gone: Vec::new(),
        })
    }
}

/// Refuses new grants that have expired already.
fn check_expiry(grant: &GrantRecord) -> Result<(), Refusal> {
    match grant.policy.expires {
        Some(expires) if expires <= grant.created => {
            Err(bad("expires: expected a time to come, in seconds since 1970"))
        }
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
pub(super) struct Vouchers {
    torrent_id: Hex32,
    /// The shop's reference; a random one if it is not there.
    order: Option<String>,
    line: Option<u32>,
    count: Option<u32>,
    #[serde(flatten)]
    terms: Terms,
}

impl Subject for Vouchers {
    fn subject(&self) -> String {
        let order = self.order.as_deref().map(|order| format!(" of order {}", tokens::printable(order)));
        format!(
            "{} vouchers of line {}{} for torrent {}",
            self.count.unwrap_or(1),
            self.line.unwrap_or(0),
            order.unwrap_or_default(),
            hex::encode(self.torrent_id.0)
        )
    }
}

/// Whether a text may name an order: 1 to 64 printable ASCII characters.
fn names_an_order(text: &str) -> bool {
    (1..=MAX_ORDER).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// `POST /admin/vouchers`
pub(super) async fn vouchers(State(tracker): Shared, body: Body<Vouchers>) -> Response {
    blocking(tracker, body, |tracker, body| {
        let torrent = tracker.torrent(&TorrentId(body.torrent_id.0))?;
        let count = body.count.unwrap_or(1);
        if !(1..=MAX_VOUCHERS).contains(&count) {
            return Err(bad("count: expected 1 to 1000"));
        }
        let (order, line) = (body.order, body.line.unwrap_or(0));
        let order = order.map_or_else(|| random::<16>().map(hex::encode), Ok)?;
        if !names_an_order(&order) {
            return Err(bad("order: expected 1 to 64 printable ASCII characters"));
        }
        let grant = body.terms.grant(torrent.id, None)?;
        // Vouchers that were issued in time are given again after their expiry.
        if tracker.store.ordered(&order, line)? < count {
            check_expiry(&grant)?;
        }
        let (mut codes, mut vouchers) = (Vec::new(), Vec::new());
        for number in 0..count {
            let code = tracker.voucher_key.code(&order, line, number, &torrent.publisher_key);
            vouchers.push(NewVoucher { mac: tracker.voucher_key.mac(&code), grant: random()? });
            codes.push(code.to_text());
        }
        tracker.store.issue_vouchers(&order, line, &vouchers, &grant)?;
        let codes: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
        Ok(json!({ "order": order, "line": line, "vouchers": codes }))
    })
    .await
}

#[derive(Deserialize)]
pub(super) struct Grant {
    torrent_id: Hex32,
    subscriber: Hex32,
    account: Option<String>,
    #[serde(flatten)]
    terms: Terms,
}

impl Subject for Grant {
    fn subject(&self) -> String {
        let account = self.account.as_deref().map(|name| format!(" of account {}", tokens::printable(name)));
        let (subscriber, torrent) = (hex::encode(self.subscriber.0), hex::encode(self.torrent_id.0));
        format!("subscriber {subscriber}{} for torrent {torrent}", account.unwrap_or_default())
    }
}

/// `POST /admin/grants`
pub(super) async fn grant(State(tracker): Shared, body: Body<Grant>) -> Response {
    blocking(tracker, body, |tracker, body| {
        let torrent = tracker.torrent(&TorrentId(body.torrent_id.0))?;
        let grant = body.terms.grant(torrent.id, body.account)?;
        check_expiry(&grant)?;
        let id = tracker.store.grant(random()?, &SubscriberId(body.subscriber.0), grant)?;
        Ok(json!({ "grant": hex::encode(id) }))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revoke {
    /// Subscriber or seed id.
    subscriber: Hex32,
}

impl Subject for Revoke {
    fn subject(&self) -> String {
        hex::encode(self.subscriber.0)
    }
}

/// `POST /admin/revoke`
pub(super) async fn revoke(State(tracker): Shared, body: Body<Revoke>) -> Response {
    blocking(tracker, body, |tracker, body| {
        let id = SubscriberId(body.subscriber.0);
        let (passkey, member) = tracker.store.revoke(&id, clock::now())?;
        tracker.expel(&passkey, member);
        tracing::info!(subscriber = %id, "revoked");
        Ok(json!({ "revoked": id.to_string() }))
    })
    .await
}

/// `POST /admin/passkey`
pub(super) async fn passkey(State(tracker): Shared, body: Body<Revoke>) -> Response {
    blocking(tracker, body, |tracker, body| {
        let id = SubscriberId(body.subscriber.0);
        // Its owner asks for the new one in a session.
        tracker.rotate_passkey(&id)?;
        Ok(json!({ "rotated": id.to_string() }))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    pub(super) torrent_id: Hex32,
    pub(super) after: Option<Hex32>,
    pub(super) limit: Option<usize>,
}

/// `GET /admin/subscribers?torrent_id=&after=&limit=`
pub(super) async fn subscribers(
    State(tracker): Shared,
    page: Result<Query<Page>, QueryRejection>,
) -> Response {
    let page = page.map(|Query(page)| page).map_err(|rejection| bad(rejection.body_text()));
    run(tracker, page, |tracker, page| {
        let torrent = tracker.torrent(&TorrentId(page.torrent_id.0))?;
        let limit = page_length(page.limit)?;
        let after = page.after.map(|id| SubscriberId(id.0));
        let found = tracker.store.subscribers_of(&torrent.id, after, limit)?;
        let next = (found.len() == limit).then(|| found.last().map(|listed| listed.id.to_string())).flatten();
        let ids: Vec<SubscriberId> = found.iter().map(|listed| listed.id).collect();
        let keyed = tracker.offload.of_subscribers(&tracker.store, &ids)?;
        let list: Vec<Value> = found
            .into_iter()
            .zip(keyed)
            .map(|(Listed { id, record, licensed, issued, revoked }, keyed)| {
                json!({
                    "subscriber": id.to_string(),
                    "identity": hex::encode(record.identity),
                    "epoch": torrent.epochs.current(),
                    "created": record.created,
                    "revoked": record.revoked,
                    "revoked_at": revoked,
                    "licensed": licensed,
                    "licenses": issued,
                    "keyed_to": keyed.to,
                    "keyed_from": keyed.from,
                    "keyed_to_bytes": keyed.to.saturating_mul(torrent.piece_length.into()),
                    "keyed_from_bytes": keyed.from.saturating_mul(torrent.piece_length.into()),
                })
            })
            .collect();
        Ok(json!({ "subscribers": list, "next": next }))
    })
    .await
}

/// `GET /admin/stats`
pub(super) async fn stats(State(tracker): Shared) -> Response {
    run(tracker, Ok(()), |tracker, ()| Ok(tracker.stats())).await
}

pub(super) fn bad(reason: impl Into<String>) -> Refusal {
    Refusal::new(ApiError::BadRequest, reason)
}

/// Records of one page: 100, or as many as were asked for.
pub(super) fn page_length(asked: Option<usize>) -> Result<usize, Refusal> {
    let limit = asked.unwrap_or(100);
    if (1..=MAX_PAGE).contains(&limit) { Ok(limit) } else { Err(bad("limit: expected 1 to 1000")) }
}

pub(super) async fn blocking<T: Subject + Send + 'static>(
    tracker: Arc<Tracker>,
    body: Body<T>,
    job: impl FnOnce(&Tracker, T) -> Result<Value, Refusal> + Send + 'static,
) -> Response {
    let body = body.map(|Json(Object(body))| body).map_err(|rejection| {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge,
            _ => ApiError::BadRequest,
        };
        Refusal::new(code, rejection.body_text())
    });
    let subject = Arc::new(OnceLock::new());
    let told = Arc::clone(&subject);
    let mut answer = run(tracker, body, move |tracker, body| {
        let _ = told.set(body.subject());
        job(tracker, body)
    })
    .await;
    answer.extensions_mut().insert(About(subject.get().cloned().unwrap_or_default()));
    answer
}

pub(super) async fn run<T: Send + 'static, A: Serialize + Send + 'static>(
    tracker: Arc<Tracker>,
    input: Result<T, Refusal>,
    job: impl FnOnce(&Tracker, T) -> Result<A, Refusal> + Send + 'static,
) -> Response {
    let answer = match input {
        Ok(input) => {
            let shared = Arc::clone(&tracker);
            let done = tracker.workers.run(move || job(&shared, input)).await;
            done.map_err(Refusal::from).and_then(|answer| answer)
        }
        Err(refusal) => Err(refusal),
    };
    match answer {
        Ok(answer) => ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response(),
        Err(refusal) => refuse(refusal),
    }
}

/// A refusal as the admin API says it.
pub(super) fn refuse(refusal: Refusal) -> Response {
    let body = Json(json!({ "code": refusal.code.word(), "error": refusal.reason }));
    let mut answer = Refusal::answer(refusal.code, refusal.retry_after, body);
    answer.extensions_mut().insert(Refused(refusal.code.word()));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_covers_every_route() {
        let document: Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        let mut routes: Vec<String> = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            routes.extend(methods.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
        }
        routes.sort();
        assert_eq!(
            routes,
            [
                "delete /admin/tokens/{id}",
                "get /admin/accounts",
                "get /admin/audit",
                "get /admin/authority",
                "get /admin/epochs",
                "get /admin/grants",
                "get /admin/grants/{id}/devices",
                "get /admin/keys",
                "get /admin/offload",
                "get /admin/revocations",
                "get /admin/stats",
                "get /admin/subscribers",
                "get /admin/subscribers/{id}",
                "get /admin/tokens",
                "get /admin/torrents",
                "get /admin/vouchers",
                "get /admin/whoami",
                "post /admin/authority",
                "post /admin/backup",
                "post /admin/epochs",
                "post /admin/grants",
                "post /admin/grants/devices/revoke",
                "post /admin/grants/revoke",
                "post /admin/passkey",
                "post /admin/retire",
                "post /admin/revoke",
                "post /admin/tokens",
                "post /admin/torrents",
                "post /admin/trace",
                "post /admin/vouchers",
            ]
        );
    }
}
