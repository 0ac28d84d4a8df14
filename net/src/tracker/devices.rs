//! The devices that share a grant: its users list them, name them, and revoke one to make room for another. Each is a subscriber of
//! its own; nobody sees the devices of a grant that he does not hold.

use axum::http::HeaderMap;
use axum::response::Response;

use super::calls::{Body, Shared, in_session};
use super::clock;
use super::records::GrantRecord;
use super::refusal::Refusal;
use super::sessions::Session;
use super::state::Tracker;
use super::store::{Limit, devices_of};
use crate::date;
use crate::wire::api::{
    ApiError, Device, Devices, DevicesRequest, MAX_DEVICE_NAME, PlayRecord, RevokeDevice,
};
use swarmseal_core::SubscriberId;

/// Devices that a refusal names.
const MAX_NAMED: usize = 20;

/// `POST /devices`
pub(super) async fn devices(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, list).await
}

fn list(tracker: &Tracker, session: &Session, request: &DevicesRequest) -> Result<Devices, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    tracker.subscriber_of(session, &torrent.id)?;
    if let Some(name) = &request.name {
        if name.is_empty() || name.len() > MAX_DEVICE_NAME || name.chars().any(char::is_control) {
            return Err(Refusal::new(ApiError::BadRequest, "name: expected 1 to 64 bytes of text"));
        }
        tracker.store.name_device(&session.id, name)?;
    }
    if let Some(record) = &request.record {
        note_plays(tracker, &session.id, record, false)?;
    }
    let grant = tracker.store.grant_of(&session.id)?.ok_or(ApiError::NotLicensed)?;
    shown(tracker, &grant)
}

/// `POST /devices/revoke`
pub(super) async fn revoke_device(tracker: Shared, headers: HeaderMap, body: Body) -> Response {
    in_session(tracker, headers, body, revoke).await
}

fn revoke(tracker: &Tracker, session: &Session, request: &RevokeDevice) -> Result<Devices, Refusal> {
    let torrent = tracker.torrent(&request.torrent_id)?;
    tracker.subscriber_of(session, &torrent.id)?;
    let id = tracker.store.held_by(&session.id)?.ok_or(ApiError::NotLicensed)?;
    let limit = Some(changes(tracker));
    let revoked = tracker.store.revoke_device(&id, &request.subscriber, limit, clock::now());
    let revoked = revoked.map_err(|error| {
        let refusal = Refusal::from(error);
        match refusal.code {
            ApiError::TooManyChanges => too_many(tracker, &id),
            _ => refusal,
        }
    })?;
    if let Some((passkey, member)) = revoked {
        tracker.expel(&passkey, member);
    }
    tracing::info!(subscriber = %request.subscriber, by = %session.id, "a device was revoked by its user");
    let grant = tracker.store.grant_by_id(&id)?.ok_or(ApiError::NotLicensed)?;
    shown(tracker, &grant)
}

fn too_many(tracker: &Tracker, grant: &[u8; 32]) -> Refusal {
    let freed = tracker.store.grant_by_id(grant).ok().flatten().map(|grant| grant.freed).unwrap_or_default();
    let (_, next) = changes(tracker).left(&freed, clock::now());
    let until = next.map_or_else(
        || "this tracker leaves it to the publisher".to_owned(),
        |next| format!("wait until {}, or ask the publisher", date::utc(next)),
    );
    Refusal::new(ApiError::TooManyChanges, format!("too many devices were revoked of late: {until}"))
}

fn changes(tracker: &Tracker) -> Limit {
    Limit { times: tracker.config.device_changes, seconds: tracker.config.change_seconds }
}

fn shown(tracker: &Tracker, grant: &GrantRecord) -> Result<Devices, Refusal> {
    let now = clock::now();
    let devices = devices_of(&tracker.store, grant)?;
    let (changes, next) = changes(tracker).left(&grant.freed, now);
    Ok(Devices { changes, devices, next, now, places: grant.devices })
}

/// Takes note of what a device has played. `buys`: it is about to hold another grant, whose plays count from here. Errors:
/// [`ApiError::LostRecord`].
pub(super) fn note_plays(
    tracker: &Tracker,
    id: &SubscriberId,
    record: &PlayRecord,
    buys: bool,
) -> Result<(), Refusal> {
    let resets = Limit { times: tracker.config.record_resets, seconds: tracker.config.change_seconds };
    // Where plays are not limited, nobody gains by losing count of them.
    let limited = !buys && tracker.store.grant_of(id)?.is_some_and(|grant| grant.policy.plays.is_some());
    let now = clock::now();
    let noted = tracker.store.note_plays(id, record, limited.then_some(resets), now);
    noted.map(drop).map_err(|error| {
        let refusal = Refusal::from(error);
        match (refusal.code, tracker.store.device(id)) {
            (ApiError::LostRecord, Ok(device)) => {
                let until = resets.left(&device.resets, now).1;
                let until = until.map(|until| format!(" before {}", date::utc(until))).unwrap_or_default();
                let reason = format!(
                    "this device's record of plays was lost, or set back, too often: no license{until}, unless another is bought \
                     or granted"
                );
                Refusal::new(ApiError::LostRecord, reason)
            }
            _ => refusal,
        }
    })
}

/// All places of a grant are taken: by whom, and what can be done.
pub(super) fn places_taken(tracker: &Tracker, grant: &GrantRecord) -> Refusal {
    let devices = match devices_of(&tracker.store, grant) {
        Ok(devices) => devices,
        Err(error) => return error.into(),
    };
    let mut reason = match grant.devices {
        1 => "the one device that this covers is taken".to_owned(),
        places => format!("all {places} devices that this covers are taken"),
    };
    for (n, device) in devices.iter().take(MAX_NAMED).enumerate() {
        reason += if n == 0 { ": " } else { ", " };
        reason += &describe(device);
    }
    if devices.len() > MAX_NAMED {
        reason += &format!(" and {} more", devices.len() - MAX_NAMED);
    }
    reason += "; on one of them, `swarmseal devices` with --revoke ID frees a place";
    Refusal { devices, ..Refusal::new(ApiError::UsedVoucher, reason) }
}

fn describe(device: &Device) -> String {
    let id = device.subscriber.to_string();
    let name = device.name.as_ref().map(|name| format!("`{name}` ")).unwrap_or_default();
    format!("{name}{}… (since {})", id.get(..8).unwrap_or(&id), date::utc(device.enrolled))
}
