//! A license server apart from the tracker: it signs the licenses of its torrents, and knows neither an r nor a master key.
//!
//! ```text
//! subscriber ── word: "I want a license", signed over the tracker's fresh nonce ──▶ license server
//!                        license server ── order: the word, signed ──▶ tracker
//!                        license server ◀── one license's keys, encrypted to it, signed by the tracker ── tracker
//! subscriber ◀── the license, signed by the server and encrypted to the device ── license server
//! ```
//!
//! The tracker takes an order from the one server that it was told of, on a word that the subscriber has just given to that very
//! server, once, and only where a grant or voucher covers it. The server takes an answer under the one tracker key that it was told of.
//! So either knows the other, whatever carries the calls; TLS keeps vouchers, and who asks for what, from the network.
//!
//! It keeps nothing but its key: any number of servers may share one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, http::StatusCode};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::calls::{Body, read};
use super::connection::{self, Front};
use super::identify::{asked, proof};
use super::limits::Limits;
use super::metrics::{Counters, count};
use super::nonces::Nonces;
use super::refusal::{Refusal, bencoded};
use super::shared_answer::SharedAnswer;
use super::tls::Tls;
use super::{Config, Error, SWEEP};
use crate::tracker_client::{self, Client};
use crate::wire::api::{
    self, ApiError, LicenseFilled, LicenseOrder, LicenseReply, LicenseServer, LicenseWord,
};
use crate::wire::bencode;
use crate::wire::identity::{self, Identity, purpose};
use crate::wire::license::License;
use crate::wire::origin::Origin;

/// Licenses in the making at once: each has all its keys in memory.
const MAX_AT_ONCE: usize = 32;

/// A license server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    licenser: Arc<Licenser>,
}

/// Makes licenses.
struct Licenser {
    config: Config,
    identity: Identity,
    tracker: Client,
    tracker_key: [u8; 32],
    /// Where subscribers find it.
    origin: Origin,
    nonces: Nonces,
    at_once: Semaphore,
    limits: Limits,
    /// What `/ready` says.
    readiness: SharedAnswer<bool>,
    counters: Counters,
    open_connections: AtomicU64,
    stopping: AtomicBool,
}

impl Front for Licenser {
    connection::front_of_fields!();

    fn connects(&self, remote: IpAddr) -> bool {
        self.limits.connection(remote).is_ok()
    }

    fn stranger(&self, remote: IpAddr, _: &str) -> Option<Response> {
        self.limits.address(remote).err().map(|wait| Refusal::wait(ApiError::Rate, wait).into_response())
    }
}

impl Server {
    /// Listens; connections wait until [`Server::run`]. Of `config`, what concerns connections counts. `identity`: the server's own;
    /// `origin`: where subscribers find it, if that is not the address that it listens on; `tracker_key`: see
    /// [`super::Server::tracker_key`]. Reads the certificate, so it blocks for a moment. Errors: those of a tracker that cannot listen.
    pub async fn bind(
        config: Config,
        identity: Identity,
        tracker: Client,
        tracker_key: [u8; 32],
        origin: Option<Origin>,
    ) -> Result<Self, Error> {
        let tls = super::open_tls(&config)?;
        // It has no members.
        let config = Config { reserved_percent: 0, ..config };
        let (listener, address) = super::listen(config.listen).await?;
        let origin = match origin {
            Some(origin) => origin,
            None => super::reached_at(tls.is_some(), address)?,
        };
        let licenser = Arc::new(Licenser {
            nonces: Nonces::new(identity.signing_key(), config.nonce_seconds),
            origin,
            limits: Limits::new(&config),
            config,
            identity,
            tracker,
            tracker_key,
            at_once: Semaphore::new(MAX_AT_ONCE),
            readiness: SharedAnswer::default(),
            counters: Counters::default(),
            open_connections: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        });
        Ok(Server { listener, address, tls, licenser })
    }

    /// Its URL on this machine.
    pub fn url(&self) -> String {
        super::url(self.tls.is_some(), self.address)
    }

    /// What its tracker has to know.
    pub fn for_tracker(&self) -> LicenseServer {
        LicenseServer {
            origin: self.licenser.origin.clone(),
            identity: self.licenser.identity.public(),
            device: self.licenser.identity.device_public(),
        }
    }

    /// What reads the certificate again while the server runs.
    pub fn reloader(&self) -> super::Reloader {
        super::Reloader { tls: self.tls.clone(), front: Arc::clone(&self.licenser) as _ }
    }

    /// Serves until `shutdown` is done, then lets requests under way come to an end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let router = Router::new()
            .route("/license", post(license))
            .route("/identify", get(identify))
            .layer(DefaultBodyLimit::max(api::MAX_BODY))
            .route("/health", get(|| async { "ok\n" }))
            .route("/ready", get(ready))
            .with_state(Arc::clone(&self.licenser));
        let sweeper = tokio::spawn({
            let licenser = Arc::clone(&self.licenser);
            async move {
                let mut ticks = tokio::time::interval(SWEEP);
                loop {
                    ticks.tick().await;
                    licenser.limits.sweep();
                }
            }
        });
        connection::serve(self.listener, router, self.licenser, self.tls, shutdown).await;
        sweeper.abort();
        tracing::info!("stopped");
    }
}

/// Ready while the tracker answers.
async fn ready(State(licenser): State<Arc<Licenser>>) -> Response {
    /// Seconds for the tracker's answer.
    const PATIENCE: Duration = Duration::from_secs(5);
    let shared = Arc::clone(&licenser);
    let ask = async move {
        let answer = tokio::time::timeout(PATIENCE, shared.tracker.identify()).await;
        Some(matches!(answer, Ok(Ok(_))))
    };
    let answers = licenser.readiness.get(ask).await == Some(true);
    let stopping = licenser.stopping.load(std::sync::atomic::Ordering::Relaxed);
    match answers {
        true if !stopping => "ready\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}

/// `GET /identify`
async fn identify(State(licenser): State<Arc<Licenser>>, RawQuery(query): RawQuery) -> Response {
    let answer = || {
        let request = asked(query.as_deref())?;
        let may_sign = request.origin == licenser.origin;
        proof(&request, licenser.identity.signing_key(), &licenser.nonces, may_sign)
    };
    match answer() {
        Ok(answer) => bencoded(bencode::to_bytes(&answer)),
        Err(refusal) => refusal.into_response(),
    }
}

/// `POST /license`
async fn license(State(licenser): State<Arc<Licenser>>, body: Body) -> Response {
    let answer = async {
        let word: LicenseWord = read(body)?;
        if word.server != licenser.identity.public() {
            return Err(ApiError::WrongRole.into());
        }
        let _place = licenser.at_once.try_acquire().map_err(|_| ApiError::Busy)?;
        let order = LicenseOrder::new(word, licenser.identity.signing_key());
        let filled = licenser.tracker.order_license(&order).await.map_err(refused)?;
        let shared = Arc::clone(&licenser);
        let made = tokio::task::spawn_blocking(move || shared.make(&order.word, &filled));
        made.await.map_err(|_| ApiError::Internal)?
    };
    match answer.await {
        Ok(reply) => {
            count(&licenser.counters.licenses, 1);
            bencoded(bencode::to_bytes(&reply))
        }
        Err(refusal) => {
            count(&licenser.counters.calls_refused, 1);
            tracing::debug!(code = refusal.code.word(), "refused a license");
            refusal.into_response()
        }
    }
}

/// What the subscriber is told of a tracker that fills no order.
fn refused(error: tracker_client::Error) -> Refusal {
    match error {
        tracker_client::Error::Refused { code, reason } => Refusal::new(code, reason),
        tracker_client::Error::PlacesTaken { reason, devices } => {
            Refusal { devices, ..Refusal::new(ApiError::UsedVoucher, reason) }
        }
        error if error.is_temporary() => {
            tracing::warn!(%error, "no order can be made");
            ApiError::Busy.into()
        }
        error => {
            tracing::error!(%error, "no order can be made");
            ApiError::Internal.into()
        }
    }
}

impl Licenser {
    /// The subscriber's license from what the tracker filled the order with. Errors: [`ApiError::Internal`] where that is not the
    /// tracker's answer to this word.
    fn make(&self, word: &LicenseWord, filled: &LicenseFilled) -> Result<LicenseReply, Refusal> {
        let wrong = |what: &str| {
            tracing::error!(what, "the tracker's answer does not hold");
            ApiError::Internal
        };
        let signed = LicenseFilled::signing_input(&word.contact.nonce, &filled.device, &filled.license);
        identity::verify(&self.tracker_key, purpose::LICENSE_FILLED, &signed, &filled.signature)
            .map_err(|_| wrong("its signature"))?;
        let license = License::open(&filled.license, &self.identity, &self.tracker_key)
            .map_err(|error| wrong(&error.to_string()))?;
        if license.torrent_id != word.torrent_id || license.subscriber != word.subscriber {
            return Err(wrong("another's license").into());
        }
        let envelope = license
            .seal(self.identity.signing_key(), &filled.device, &mut UnwrapErr(SysRng))
            .map_err(|error| wrong(&error.to_string()))?;
        tracing::info!(subscriber = %license.subscriber, torrent = %license.torrent_id, epoch = license.epoch, "licensed");
        Ok(LicenseReply { license: envelope, now: filled.now, server: None })
    }
}
