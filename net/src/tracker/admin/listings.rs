//! Lists of grants, accounts, vouchers and revocations, one subscriber with everything about it, and grants that are taken back.
//!
//! A page may be short though another follows: it looks at so many records at most.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use swarmseal_core::{SubscriberId, TorrentId};
use zeroize::Zeroizing;

use super::{Body, Hex32, Shared, Subject, bad, blocking, page_length, run};
use crate::tracker::clock;
use crate::tracker::records::GrantRecord;
use crate::tracker::refusal::Refusal;
use crate::wire::api::{ApiError, Role};
use crate::wire::voucher::VoucherCode;

type Asked<T> = Result<Query<T>, QueryRejection>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::tracker) struct Page {
    torrent_id: Option<Hex32>,
    account: Option<String>,
    after: Option<Hex32>,
    limit: Option<usize>,
}

impl Page {
    fn after(&self) -> Option<[u8; 32]> {
        self.after.map(|id| id.0)
    }

    fn torrent(&self) -> Option<TorrentId> {
        self.torrent_id.map(|id| TorrentId(id.0))
    }
}

fn asked<T>(page: Asked<T>) -> Result<T, Refusal> {
    page.map(|Query(page)| page).map_err(|rejection| bad(rejection.body_text()))
}

fn next(after: Option<[u8; 32]>) -> Option<String> {
    after.map(hex::encode)
}

fn shown(id: &[u8; 32], grant: &GrantRecord) -> Value {
    let holders: Vec<String> = grant.holders.iter().map(|holder| holder.id.to_string()).collect();
    json!({
        "grant": hex::encode(id),
        "torrent_id": grant.torrent_id.to_string(),
        "account": grant.account,
        "devices": grant.devices,
        "holders": holders,
        "plays": grant.policy.plays,
        "not_before": grant.policy.not_before,
        "expires": grant.policy.expires,
        "offline_grace": grant.policy.offline_grace,
        "created": grant.created,
    })
}

/// `GET /admin/grants?torrent_id=&account=&after=&limit=`
pub(in crate::tracker) async fn grants(State(tracker): Shared, page: Asked<Page>) -> Response {
    run(tracker, asked(page), |tracker, page| {
        let (torrent, account, limit) = (page.torrent(), page.account.as_deref(), page_length(page.limit)?);
        // An account of a torrent is looked up; anything else is looked for.
        if let (Some(torrent), Some(account)) = (&torrent, account) {
            let found = tracker.store.grant_of_account(torrent, account)?;
            let list: Vec<Value> = found.iter().map(|(id, grant)| shown(id, grant)).collect();
            return Ok(json!({ "grants": list, "next": null }));
        }
        let (found, after) = tracker.store.grants(page.after(), limit, |grant| {
            torrent.is_none_or(|torrent| grant.torrent_id == torrent)
                && account.is_none_or(|account| grant.account.as_deref() == Some(account))
        })?;
        let list: Vec<Value> = found.iter().map(|(id, grant)| shown(id, grant)).collect();
        Ok(json!({ "grants": list, "next": next(after) }))
    })
    .await
}

/// `GET /admin/accounts?torrent_id=&account=&after=&limit=`: grants that belong to an account.
pub(in crate::tracker) async fn accounts(State(tracker): Shared, page: Asked<Page>) -> Response {
    run(tracker, asked(page), |tracker, page| {
        let (found, after) = tracker.store.grants(page.after(), page_length(page.limit)?, |grant| {
            let named = grant.account.as_deref();
            named.is_some()
                && page.account.as_deref().is_none_or(|account| named == Some(account))
                && page.torrent().is_none_or(|torrent| grant.torrent_id == torrent)
        })?;
        let list: Vec<Value> = found
            .iter()
            .map(|(id, grant)| {
                json!({
                    "account": grant.account,
                    "torrent_id": grant.torrent_id.to_string(),
                    "grant": hex::encode(id),
                    "devices": grant.devices,
                    "used": grant.holders.len(),
                })
            })
            .collect();
        Ok(json!({ "accounts": list, "next": next(after) }))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::tracker) struct VoucherPage {
    torrent_id: Option<Hex32>,
    after: Option<Hex32>,
    limit: Option<usize>,
}

/// `GET /admin/vouchers?torrent_id=&after=&limit=`. Codes are not kept: a voucher is shown by the MAC of its code, and by its order.
pub(in crate::tracker) async fn list_vouchers(State(tracker): Shared, page: Asked<VoucherPage>) -> Response {
    run(tracker, asked(page), |tracker, VoucherPage { torrent_id, after, limit }| {
        let limit = page_length(limit)?;
        let torrent = torrent_id.map(|id| TorrentId(id.0));
        let (found, after) = tracker.store.vouchers(after.map(|id| id.0), limit, torrent)?;
        let list: Vec<Value> = found
            .iter()
            .map(|(mac, voucher, grant)| {
                let mut row = shown(&voucher.grant, grant);
                row["voucher"] = hex::encode(mac).into();
                row["order"] = voucher.order.as_str().into();
                row["line"] = voucher.line.into();
                row["number"] = voucher.number.into();
                row
            })
            .collect();
        Ok(json!({ "vouchers": list, "next": next(after) }))
    })
    .await
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Who {
    Subscribers,
    Seeds,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::tracker) struct RevokedPage {
    of: Option<Who>,
    after: Option<Hex32>,
    limit: Option<usize>,
}

/// `GET /admin/revocations?of=&after=&limit=`
pub(in crate::tracker) async fn revocations(State(tracker): Shared, page: Asked<RevokedPage>) -> Response {
    run(tracker, asked(page), |tracker, RevokedPage { of, after, limit }| {
        let (limit, after) = (page_length(limit)?, after.map(|id| id.0));
        let (found, after) = match of.unwrap_or(Who::Subscribers) {
            Who::Subscribers => tracker.store.revoked_subscribers(after, limit)?,
            Who::Seeds => tracker.store.revoked_seeds(after, limit)?,
        };
        let list: Vec<Value> = found
            .iter()
            .map(|revoked| {
                let role = match revoked.role {
                    Role::Subscriber => "subscriber",
                    Role::Seed => "seed",
                };
                json!({ "id": revoked.id.to_string(), "role": role, "torrent_id": revoked.torrent_id.to_string() })
            })
            .collect();
        Ok(json!({ "revocations": list, "next": next(after) }))
    })
    .await
}

/// `GET /admin/subscribers/{id}`
pub(in crate::tracker) async fn subscriber(State(tracker): Shared, Path(id): Path<String>) -> Response {
    run(tracker, Ok(id), |tracker, id| {
        let mut bytes = [0; 32];
        hex::decode_to_slice(&id, &mut bytes).map_err(|_| bad("id: expected 64 hexadecimal digits"))?;
        let id = SubscriberId(bytes);
        let record = tracker.store.subscriber(&id)?.ok_or(ApiError::UnknownSubscriber)?;
        let held = tracker.store.held_by(&id)?;
        let grant = tracker.store.grant_of(&id)?;
        Ok(json!({
            "subscriber": id.to_string(),
            "torrent_id": record.torrent_id.to_string(),
            "identity": hex::encode(record.identity),
            "device": hex::encode(record.device),
            "epoch": record.epoch,
            "created": record.created,
            "revoked": record.revoked,
            "grant": held.zip(grant).map(|(id, grant)| shown(&id, &grant)),
        }))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::tracker) struct RevokeGrant {
    grant: Option<Hex32>,
    /// A voucher's code: its grant is meant.
    voucher: Option<Typed>,
}

/// A code as people type it; none where it is no code.
struct Typed(Option<VoucherCode>);

impl<'de> Deserialize<'de> for Typed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        Ok(Typed(VoucherCode::parse(&text).ok()))
    }
}

impl Subject for RevokeGrant {
    // A code that nobody has redeemed is worth something.
    fn subject(&self) -> String {
        self.grant
            .map_or("the grant of a voucher".to_owned(), |grant| format!("grant {}", hex::encode(grant.0)))
    }
}

/// `POST /admin/grants/revoke`
pub(in crate::tracker) async fn revoke_grant(State(tracker): Shared, body: Body<RevokeGrant>) -> Response {
    blocking(tracker, body, |tracker, body| {
        let id = match (body.grant, &body.voucher) {
            (Some(grant), None) => grant.0,
            (None, Some(Typed(code))) => {
                let mac = tracker.voucher_key.mac(code.as_ref().ok_or(ApiError::BadVoucher)?);
                tracker.store.grant_of_voucher(&mac)?.ok_or(ApiError::BadVoucher)?
            }
            _ => return Err(bad("expected a grant or a voucher, and one of them")),
        };
        let holders = tracker.store.revoke_grant(&id, clock::now())?;
        tracing::info!(grant = %hex::encode(id), holders, "grant revoked");
        Ok(json!({ "revoked": hex::encode(id), "holders": holders }))
    })
    .await
}
