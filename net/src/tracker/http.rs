//! Routes, and connections that are bounded in number, header size and time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tower_service::Service;

use super::announce::Remote;
use super::state::Tracker;
use super::{admin, announce, calls, cases, personal};
use crate::wire::api;

/// Seconds for a request's headers, and for the next request on a connection that is kept alive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// For a request's body and its answer: a license of a million pieces takes minutes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);
/// For answers under way when the server stops.
const GRACE: Duration = Duration::from_secs(10);
const MAX_HEADER_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Every route.
pub(super) fn router(tracker: Arc<Tracker>) -> Router {
    let calls = Router::new()
        .route("/challenge", post(calls::challenge))
        .route("/subscribe", post(calls::subscribe))
        .route("/session", post(calls::session))
        .route("/rekey", post(calls::rekey))
        .route("/license", post(calls::license))
        .route("/seed/keys", post(calls::seed_keys))
        .route("/seed/work", post(personal::work))
        .route("/seed/hashes", post(personal::new_hashes))
        .route("/seed/personal", post(personal::seed_personal))
        .route("/hashes", post(personal::hashes))
        .route("/personal", post(personal::personal))
        .route("/personal/clients", post(personal::clients))
        .route("/personal/pull", post(personal::pull))
        .route("/personal/rekey", post(personal::personal_rekey))
        .route("/questions", post(cases::questions))
        .route("/defend", post(cases::defend))
        .layer(DefaultBodyLimit::max(api::MAX_BODY));
    // Its body is a piece; how long one is, it finds out for itself.
    let accusations = Router::new().route("/accuse", post(cases::accuse)).layer(DefaultBodyLimit::disable());
    let admin = Router::new()
        .route("/admin/torrents", get(admin::torrents).post(admin::register))
        .route("/admin/license-key", get(admin::license_key))
        .route("/admin/vouchers", post(admin::vouchers))
        .route("/admin/grants", post(admin::grant))
        .route("/admin/revoke", post(admin::revoke))
        .route("/admin/subscribers", get(admin::subscribers))
        .route("/admin/cases", get(admin::cases))
        .route("/admin/pardon", post(admin::pardon))
        .route("/admin/stats", get(admin::stats))
        .layer(DefaultBodyLimit::max(admin::MAX_BODY))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&tracker), admin::authorise));
    Router::new()
        .route("/{passkey}/announce", get(announce::announce_at))
        .route("/announce/{passkey}", get(announce::announce_at))
        .route("/announce", get(announce::announce))
        .route("/{passkey}/scrape", get(announce::scrape_at))
        .route("/scrape/{passkey}", get(announce::scrape_at))
        .route("/scrape", get(announce::scrape))
        .route("/admin/openapi.json", get(admin::openapi))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .merge(calls)
        .merge(accusations)
        .merge(admin)
        .with_state(tracker)
}

/// Ready when a record can be read.
async fn ready(State(tracker): State<Arc<Tracker>>) -> Response {
    let shared = Arc::clone(&tracker);
    match tracker.workers.run(move || shared.store.totals().is_ok()).await {
        Ok(true) => "ready\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}

async fn metrics(State(tracker): State<Arc<Tracker>>) -> Response {
    let shared = Arc::clone(&tracker);
    match tracker.workers.run(move || shared.stats().to_prometheus()).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Serves until `shutdown` is done; then takes no more requests and lets those under way come to an end.
pub(super) async fn serve(
    listener: TcpListener,
    tracker: Arc<Tracker>,
    router: Router,
    max_connections: usize,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(max_connections));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, remote, place)) => {
                let tracker = Arc::clone(&tracker);
                connections.spawn(connection(
                    stream,
                    remote,
                    place,
                    tracker,
                    router.clone(),
                    stopped.clone(),
                ));
            }
            Err(error) => {
                // Out of file descriptors, most likely: those that there are will end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let ended = tokio::time::timeout(GRACE, async { while connections.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tracing::warn!("stopped with requests under way");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, remote) = listener.accept().await?;
    Ok((stream, remote, place))
}

async fn connection(
    stream: TcpStream,
    remote: SocketAddr,
    place: OwnedSemaphorePermit,
    tracker: Arc<Tracker>,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let _place = place;
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let announced = announce::at_once(&tracker, remote, &request);
        let mut router = router.clone();
        async move {
            if let Some(answer) = announced {
                return Ok(answer);
            }
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Remote(remote));
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, router.call(request));
            answer.await.unwrap_or_else(|_| Ok(StatusCode::REQUEST_TIMEOUT.into_response()))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The message names neither path nor headers.
        tracing::debug!(%error, "a connection ended early");
    }
}
