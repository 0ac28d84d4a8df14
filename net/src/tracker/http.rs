//! Routes; what is measured and logged of each call.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Router, middleware};

use super::metrics::Call;
use super::state::Tracker;
use super::{admin, announce, backup, calls, devices, epochs, identify, licenses, offload, personal};
use crate::wire::api;

/// What `metrics_listen` answers.
pub(super) fn metrics_router(tracker: Arc<Tracker>) -> Router {
    Router::new().merge(watch()).route("/metrics", get(metrics)).with_state(tracker)
}

/// What tells whether the program is well.
fn watch() -> Router<Arc<Tracker>> {
    Router::new().route("/health", get(|| async { "ok\n" })).route("/ready", get(ready))
}

/// Every route.
pub(super) fn router(tracker: Arc<Tracker>) -> Router {
    let calls = Router::new()
        .route("/identify", get(identify::identify))
        .route("/subscribe", post(calls::subscribe))
        .route("/session", post(calls::session))
        .route("/passkey", post(calls::passkey))
        .route("/rekey", post(calls::rekey))
        .route("/witness", post(calls::witness))
        .route("/license", post(licenses::license))
        .route(licenses::ORDER, post(licenses::order))
        .route("/devices", post(devices::devices))
        .route("/devices/revoke", post(devices::revoke_device))
        .route("/seed/keys", post(calls::seed_keys))
        .route("/seed/work", post(personal::work))
        .route("/seed/hashes", post(personal::new_hashes))
        .route("/seed/personal", post(personal::seed_personal))
        .route("/hashes", post(personal::hashes))
        .route("/personal", post(personal::personal))
        .route("/personal/clients", post(personal::clients))
        .route("/personal/pull", post(personal::pull))
        .route("/personal/rekey", post(personal::personal_rekey))
        .layer(DefaultBodyLimit::max(api::MAX_BODY));
    let admin = Router::new()
        .route("/admin/torrents", get(admin::torrents).post(admin::register))
        .route("/admin/keys", get(admin::keys))
        .route("/admin/authority", get(admin::authority).post(admin::put_authority))
        .route("/admin/vouchers", get(admin::list_vouchers).post(admin::vouchers))
        .route("/admin/grants", get(admin::grants).post(admin::grant))
        .route("/admin/grants/revoke", post(admin::revoke_grant))
        .route("/admin/grants/{id}/devices", get(admin::devices))
        .route("/admin/grants/devices/revoke", post(admin::revoke_device))
        .route("/admin/accounts", get(admin::accounts))
        .route("/admin/trace", post(admin::trace))
        .route("/admin/revocations", get(admin::revocations))
        .route("/admin/revoke", post(admin::revoke))
        .route("/admin/passkey", post(admin::passkey))
        .route("/admin/subscribers", get(admin::subscribers))
        .route("/admin/subscribers/{id}", get(admin::subscriber))
        .route("/admin/backup", post(backup::back_up))
        .route("/admin/epochs", get(epochs::list).post(epochs::rotate))
        .route("/admin/offload", get(offload::list))
        .route("/admin/retire", post(epochs::retire_epochs))
        .route("/admin/stats", get(admin::stats))
        .route("/admin/tokens", get(admin::tokens).post(admin::create_token))
        .route("/admin/tokens/{id}", delete(admin::revoke_token))
        .route("/admin/whoami", get(admin::whoami))
        .route("/admin/audit", get(admin::audit))
        .layer(DefaultBodyLimit::max(admin::MAX_BODY))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&tracker), admin::authorise));
    // All but announces and scrapes, which see to it themselves: they are many.
    let measured = Router::new().merge(calls).merge(admin).route("/admin/openapi.json", get(admin::openapi));
    let measured = match tracker.config.metrics_listen {
        Some(_) => measured,
        None => measured.route("/metrics", get(metrics)),
    };
    let measured = measured.route_layer(middleware::from_fn_with_state(Arc::clone(&tracker), measure));
    Router::new()
        .route("/{passkey}/announce", get(announce::announce_at))
        .route("/announce/{passkey}", get(announce::announce_at))
        .route("/announce", get(announce::announce))
        .route("/{passkey}/scrape", get(announce::scrape_at))
        .route("/scrape/{passkey}", get(announce::scrape_at))
        .route("/scrape", get(announce::scrape))
        .merge(watch())
        .merge(measured)
        .with_state(tracker)
}

/// Measures a call.
async fn measure(
    State(tracker): State<Arc<Tracker>>,
    route: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let answer = next.run(request).await;
    observe(&tracker, Call::of_route(route.as_str()), started, answer.status());
    answer
}

/// Takes note of an answer. The log has the call's name and not its path, which may be a secret.
pub(super) fn observe(tracker: &Tracker, call: Call, started: Instant, status: StatusCode) {
    let took = started.elapsed();
    tracker.times.observe(call, took, status.as_u16());
    tracing::debug!(
        target: "swarmseal::access",
        call = call.name(),
        status = status.as_u16(),
        micros = took.as_micros() as u64,
        "answered"
    );
}

/// Ready when a record can be read, and until the tracker is told to stop.
async fn ready(State(tracker): State<Arc<Tracker>>) -> Response {
    if tracker.stopping.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    let shared = Arc::clone(&tracker);
    let look = move || shared.store.totals().is_ok();
    match tracker.readiness.get(async { tokio::task::spawn_blocking(look).await.ok() }).await {
        Some(true) => "ready\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}

async fn metrics(State(tracker): State<Arc<Tracker>>) -> Response {
    let shared = Arc::clone(&tracker);
    let read = move || shared.stats().to_prometheus(&shared.times);
    match tracker.metrics.get(async { tokio::task::spawn_blocking(read).await.ok() }).await {
        Some(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
