//! The audit log: which admin changed what, when, and how that ended. An entry is on the disk before the change is
//! acknowledged. No secret stands in it.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Shared, bad, page_length, run};
use crate::tracker::state::Tracker;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::tracker) struct AuditRecord {
    pub(in crate::tracker) time: u64,
    /// The token's id.
    pub(in crate::tracker) token: String,
    /// Its name.
    pub(in crate::tracker) who: String,
    pub(in crate::tracker) role: String,
    /// From where.
    pub(in crate::tracker) address: String,
    /// Method and route.
    pub(in crate::tracker) action: String,
    /// What it was about: ids, never codes, tokens or passkeys.
    pub(in crate::tracker) subject: String,
    /// HTTP status, and the word of a refusal.
    pub(in crate::tracker) outcome: String,
}

/// Writes an entry down, and into the program's log. Errors: it is not written; the log says why.
pub(super) async fn record(tracker: &Arc<Tracker>, entry: AuditRecord) -> Result<(), ()> {
    let AuditRecord { token, who, role, address, action, subject, outcome, .. } = &entry;
    tracing::info!(target: "swarmseal::audit", token, who, role, address, action, subject, outcome, "admin call");
    let shared = Arc::clone(tracker);
    // Not through the queue: a full one must not lose an entry.
    let written =
        tokio::task::spawn_blocking(move || shared.store.audit(&entry, shared.config.audit_entries));
    match written.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            tracing::error!(%error, "the audit log cannot be written");
            Err(())
        }
        Err(error) => {
            tracing::error!(%error, "writing the audit log failed");
            Err(())
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::tracker) struct Page {
    before: Option<u64>,
    limit: Option<usize>,
}

/// `GET /admin/audit?before=&limit=`
pub(in crate::tracker) async fn list(
    State(tracker): Shared,
    page: Result<Query<Page>, QueryRejection>,
) -> Response {
    let page = page.map(|Query(page)| page).map_err(|rejection| bad(rejection.body_text()));
    run(tracker, page, |tracker, page| {
        let limit = page_length(page.limit)?;
        if page.before.is_some_and(|before| i64::try_from(before).is_err()) {
            return Err(bad("before: expected the number of an entry"));
        }
        let found = tracker.store.audit_page(page.before, limit)?;
        let next = (found.len() == limit).then(|| found.last().map(|(number, _)| *number)).flatten();
        let entries: Vec<Value> = found
            .into_iter()
            .map(|(number, entry)| {
                let AuditRecord { time, token, who, role, address, action, subject, outcome } = entry;
                json!({
                    "number": number,
                    "time": time,
                    "token": token,
                    "who": who,
                    "role": role,
                    "address": address,
                    "action": action,
                    "subject": subject,
                    "outcome": outcome,
                })
            })
            .collect();
        Ok(json!({ "entries": entries, "next": next }))
    })
    .await
}
