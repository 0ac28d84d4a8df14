//! The devices that share a grant, for the publisher.

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use swarmseal_core::SubscriberId;

use super::{Body, Hex32, Shared, Subject, bad, blocking, run};
use crate::tracker::clock;
use crate::tracker::refusal::Refusal;
use crate::tracker::state::Tracker;
use crate::tracker::store::devices_of;
use crate::wire::api::ApiError;

fn shown(tracker: &Tracker, id: &[u8; 32]) -> Result<Value, Refusal> {
    let grant = tracker.store.grant_by_id(id)?.ok_or(ApiError::UnknownGrant)?;
    let devices: Vec<Value> = devices_of(&tracker.store, &grant)?
        .iter()
        .map(|device| {
            json!({
                "subscriber": device.subscriber.to_string(),
                "name": device.name,
                "enrolled": device.enrolled,
                "plays": device.plays,
            })
        })
        .collect();
    Ok(json!({ "grant": hex::encode(id), "places": grant.devices, "devices": devices, "freed": grant.freed }))
}

/// `GET /admin/grants/{id}/devices`
pub(in crate::tracker) async fn list(State(tracker): Shared, Path(id): Path<String>) -> Response {
    run(tracker, Ok(id), |tracker, id| {
        let mut bytes = [0; 32];
        hex::decode_to_slice(&id, &mut bytes).map_err(|_| bad("id: expected 64 hexadecimal digits"))?;
        shown(tracker, &bytes)
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::tracker) struct RevokeDevice {
    grant: Hex32,
    subscriber: Hex32,
}

impl Subject for RevokeDevice {
    fn subject(&self) -> String {
        format!("subscriber {} of grant {}", hex::encode(self.subscriber.0), hex::encode(self.grant.0))
    }
}

/// `POST /admin/grants/devices/revoke`: does not count among what the grant's users may revoke.
pub(in crate::tracker) async fn revoke(State(tracker): Shared, body: Body<RevokeDevice>) -> Response {
    blocking(tracker, body, |tracker, body| {
        let id = SubscriberId(body.subscriber.0);
        if let Some((passkey, member)) =
            tracker.store.revoke_device(&body.grant.0, &id, None, clock::now())?
        {
            tracker.expel(&passkey, member);
        }
        tracing::info!(subscriber = %id, "a device was revoked");
        shown(tracker, &body.grant.0)
    })
    .await
}
