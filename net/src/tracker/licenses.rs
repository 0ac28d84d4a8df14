//! Licenses: this tracker's own, and what a license server apart needs for its.
//!
//! A license server holds neither r nor a master key. It orders the decryption keys of one license at a time, on the fresh word of
//! a subscriber that a grant names, and gets them encrypted to itself: what it does not order, it never sees.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use getrandom::SysRng;
use rand_core::UnwrapErr;
use swarmseal_core::SubscriberId;

use super::calls::{Body, Shared, in_session, read, respond};
use super::connection::Remote;
use super::epochs::master;
use super::metrics::count;
use super::refusal::Refusal;
use super::sessions::Session;
use super::state::{Torrent, Tracker};
use super::{clock, devices, rekey};
use crate::date;
use crate::wire::api::{ApiError, LicenseFilled, LicenseOrder, LicenseReply, LicenseRequest, LicenseServer};
use crate::wire::identity::{self, SigningKey, purpose};
use crate::wire::license::{License, Policy};

/// `POST /license`
pub(super) async fn license(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, make_license).await
}

fn make_license(
    tracker: &Tracker,
    session: &Session,
    request: &LicenseRequest,
) -> Result<LicenseReply, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    let subscriber = tracker.subscriber_of(session, &torrent.id)?;
    let voucher = request.voucher.as_ref().map(|code| tracker.voucher_mac(&torrent, code)).transpose()?;
    // Before anything is redeemed: what was played is of the grant before.
    if let Some(record) = &request.record {
        let now = clock::now();
        let buys = voucher.map(|voucher| tracker.store.is_new(&voucher, &torrent.id, &session.id, now));
        devices::note_plays(tracker, &session.id, record, buys.transpose()?.unwrap_or(false))?;
    }
    // Here also where another server signs: a code that lifts a limit is used up by that.
    if let Some(voucher) = voucher {
        redeem(tracker, &torrent, &session.id, &voucher)?;
    }
    if tracker.authority(&torrent)?.license_key != tracker.license_key.public() {
        let server = license_server(tracker, &torrent)?.clone();
        return Ok(LicenseReply { license: Vec::new(), now: clock::now(), server: Some(server) });
    }
    let epoch = request.epoch.unwrap_or_else(|| torrent.epochs.current());
    let license = granted(tracker, &torrent, session.id, epoch)?;
    let license = seal(&license, &tracker.license_key, &subscriber.device)?;
    // Noted before it leaves.
    tracker.store.note_license(&session.id, epoch, clock::now())?;
    count(&tracker.counters.licenses, 1);
    Ok(LicenseReply { license, now: clock::now(), server: None })
}

/// Where license servers order.
pub(super) const ORDER: &str = "/license/order";

/// `POST /license/order`: at this door a license server is known by its signature, and all others count against their network.
pub(super) async fn order(
    State(tracker): Shared,
    Extension(remote): Extension<Remote>,
    body: Body,
) -> Response {
    let answer = async {
        let signed = read(body).and_then(|order: LicenseOrder| {
            tracker.nonces.check(clock::now(), &order.word.contact)?;
            check_server(&tracker, &order)?;
            Ok(order)
        });
        let order = match signed {
            Ok(order) => order,
            Err(refusal) => return Err(tracker.stranger(remote.0).err().unwrap_or(refusal)),
        };
        let shared = Arc::clone(&tracker);
        tracker.workers.run(move || fill(&shared, &order)).await?
    };
    respond(&tracker, answer.await)
}

/// Refuses an order that the torrent's license server has not signed. Errors: [`ApiError::UnknownTorrent`],
/// [`ApiError::WrongTorrent`], [`ApiError::WrongRole`], [`ApiError::BadSignature`].
fn check_server(tracker: &Tracker, order: &LicenseOrder) -> Result<(), Refusal> {
    let word = &order.word;
    let torrent = tracker.torrent(&word.torrent_id)?;
    let server = license_server(tracker, &torrent)?;
    if word.server != server.identity {
        return Err(ApiError::WrongRole.into());
    }
    let signed = LicenseOrder::signing_input(word);
    identity::verify(&server.identity, purpose::LICENSE_ORDER, &signed, &order.signature)
        .map_err(|_| ApiError::BadSignature.into())
}

/// Fills an order that its license server has signed.
fn fill(tracker: &Tracker, order: &LicenseOrder) -> Result<LicenseFilled, Refusal> {
    let word = &order.word;
    let torrent = tracker.torrent(&word.torrent_id)?;
    let server = license_server(tracker, &torrent)?;
    let subscriber = tracker.subscriber_in(&word.subscriber, &torrent.id)?;
    identity::verify(&subscriber.identity, purpose::LICENSE_WORD, &word.signing_input(), &word.signature)
        .map_err(|_| ApiError::BadSignature)?;
    let now = clock::now();
    let epoch = word.epoch.unwrap_or_else(|| torrent.epochs.current());
    if let Some(code) = &word.voucher {
        redeem(tracker, &torrent, &word.subscriber, &tracker.voucher_mac(&torrent, code)?)?;
    }
    let license = granted(tracker, &torrent, word.subscriber, epoch)?;
    let license = seal(&license, &tracker.tracker_key, &server.device)?;
    tracker.store.note_license(&word.subscriber, epoch, now)?;
    count(&tracker.counters.licenses, 1);
    let signed = LicenseFilled::signing_input(&word.contact.nonce, &subscriber.device, &license);
    let signature = tracker.tracker_key.sign(purpose::LICENSE_FILLED, &signed);
    Ok(LicenseFilled { license, device: subscriber.device, signature, now })
}

/// Who signs a torrent's licenses, where this tracker does not. Errors: [`ApiError::WrongTorrent`] where that is nobody it
/// knows.
fn license_server<'t>(tracker: &'t Tracker, torrent: &Torrent) -> Result<&'t LicenseServer, Refusal> {
    let server = tracker.config.license_server.as_ref();
    let license_key = tracker.authority(torrent)?.license_key;
    server.filter(|server| server.identity == license_key).ok_or_else(|| {
        Refusal::new(
            ApiError::WrongTorrent,
            "another license server, unknown here, signs this torrent's licenses",
        )
    })
}

/// Redeems a voucher, by the MAC of its code. Blocks. Errors: those of [`super::store::Store::redeem`], and who has the places where
/// all are taken.
fn redeem(
    tracker: &Tracker,
    torrent: &Torrent,
    id: &SubscriberId,
    voucher: &[u8; 32],
) -> Result<(), Refusal> {
    let redeemed = tracker.store.redeem(voucher, &torrent.id, id, clock::now());
    redeemed.map(drop).map_err(|error| {
        let grant = || tracker.store.grant_by_id(&tracker.store.grant_of_voucher(voucher).ok()??).ok()?;
        match (Refusal::from(error), grant()) {
            (refusal, Some(grant)) if refusal.code == ApiError::UsedVoucher => {
                devices::places_taken(tracker, &grant)
            }
            (refusal, _) => refusal,
        }
    })
}

/// The license of an epoch that was granted to a subscriber. Blocks. Errors: [`ApiError::NotLicensed`],
/// [`ApiError::ExpiredLicense`].
fn granted(tracker: &Tracker, torrent: &Torrent, id: SubscriberId, epoch: u64) -> Result<License, Refusal> {
    let now = clock::now();
    let grant = tracker.store.grant_of(&id)?.ok_or(ApiError::NotLicensed)?;
    if let Some(expires) = grant.policy.expires.filter(|&expires| expires <= now) {
        let reason = format!("what was granted expired on {}: it has to be bought anew", date::utc(expires));
        return Err(Refusal::new(ApiError::ExpiredLicense, reason));
    }
    let device = tracker.store.device(&id)?;
    // The device counts on through all that was ever bought for it.
    let plays = grant.policy.plays.map(|plays| plays.saturating_add(device.before));
    let keys = rekey::decryption_keys(
        &torrent.params,
        &*master(tracker, torrent, epoch)?,
        epoch,
        &id,
        &torrent.sealed_pieces(),
    )?;
    Ok(License {
        torrent_id: torrent.id,
        info_hash: torrent.info_hash,
        subscriber: id,
        epoch,
        issued: Some(now),
        played: device.plays,
        policy: Policy { plays, ..grant.policy },
        keys,
    })
}

/// An envelope that one of the tracker's keys signs, for a device or a license server.
fn seal(license: &License, key: &SigningKey, device: &[u8; 32]) -> Result<Vec<u8>, Refusal> {
    license
        .seal(key, device, &mut UnwrapErr(SysRng))
        .map_err(|error| Refusal::new(ApiError::BadRequest, error.to_string()))
}
