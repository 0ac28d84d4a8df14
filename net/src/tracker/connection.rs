//! Connections: bounded in number, in the time that they may take, and ended in order when the tracker stops. Every request is counted
//! at this door: it is a member's, or it counts against its network.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use super::metrics::{Counters, count};
use super::places::{self, Bounds, Holder, Place, Places, Working};
use super::tls::Tls;
use super::{Config, proxies};
use crate::platform;

const MAX_HEADER_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// Calls at once on one connection of HTTP/2.
const MAX_STREAMS: u32 = 64;
/// Bytes of a request's body for which its sender gets another second.
const SLOWEST: u64 = 16 * 1024;

/// How long a stranger waits for the answer that it has asked too often.
const REFUSED_AFTER: Duration = Duration::from_secs(1);
/// Connections that are accepted before others get their turn.
const ACCEPTED_AT_ONCE: u32 = 8;

/// Whom a request is from, as far as the connection or a trusted proxy can tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote(pub(super) std::net::IpAddr);

/// A server as its connections see it.
pub(super) trait Front: Send + Sync + 'static {
    /// What bounds connections.
    fn config(&self) -> &Config;
    /// Where they are counted.
    fn counters(&self) -> &Counters;
    /// How many there are.
    fn open_connections(&self) -> &AtomicU64;
    /// Whether the server was told to stop.
    fn stopping(&self) -> &AtomicBool;
    /// Counts a connection that is no trusted proxy's; whether it may stay.
    fn connects(&self, remote: std::net::IpAddr) -> bool;
    /// Whether a request has a session's token, a member's passkey or an admin token, as far as its head tells.
    fn knows(&self, _request: &Request<Incoming>) -> bool {
        false
    }
    /// Counts a request that no member made, from that address. The answer, where there were too many.
    fn stranger(&self, remote: std::net::IpAddr, path: &str) -> Option<Response>;
    /// The answer to a request that needs neither the router nor its body, if it is one.
    fn at_once(&self, _remote: std::net::IpAddr, _request: &Request<Incoming>) -> Option<Response> {
        None
    }
}

/// What [`Front`] asks of a server that has it in fields of those names.
macro_rules! front_of_fields {
    () => {
        fn config(&self) -> &$crate::tracker::Config {
            &self.config
        }

        fn counters(&self) -> &$crate::tracker::metrics::Counters {
            &self.counters
        }

        fn open_connections(&self) -> &std::sync::atomic::AtomicU64 {
            &self.open_connections
        }

        fn stopping(&self) -> &std::sync::atomic::AtomicBool {
            &self.stopping
        }
    };
}
pub(super) use front_of_fields;

/// Serves until `shutdown` is done, and then as long as the configuration says that it drains; then takes no more requests
/// and lets those under way come to an end.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    front: Arc<dyn Front>,
    tls: Option<Arc<Tls>>,
    shutdown: impl Future<Output = ()>,
) {
    let bounds = Bounds::new(front.config(), platform::descriptors());
    if bounds.in_all < front.config().max_connections {
        tracing::warn!(
            max_connections = front.config().max_connections,
            fitted = bounds.in_all,
            "the system gives too few file descriptors for max_connections"
        );
    }
    // Those that have lost their place may still have their descriptor.
    let descriptors = Arc::new(Semaphore::new(bounds.in_all + places::CLOSING));
    let places = Places::new(bounds);
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let told = async {
        shutdown.await;
        front.stopping().store(true, Ordering::Relaxed);
        tracing::info!(drain_seconds = front.config().drain_seconds, "told to stop");
        sleep(Duration::from_secs(front.config().drain_seconds)).await;
    };
    tokio::pin!(told);
    let mut accepted_at_once = 0;
    loop {
        let accepted = tokio::select! {
            () = &mut told => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &descriptors) => accepted,
        };
        match accepted {
            Ok((stream, remote, descriptor)) => {
                count(&front.counters().connections, 1);
                let is_proxy = front.config().trusted_proxies.contains(&remote.ip().to_canonical());
                accepted_at_once = (accepted_at_once + 1) % ACCEPTED_AT_ONCE;
                if accepted_at_once == 0 {
                    tokio::task::yield_now().await;
                }
                let may_stay = is_proxy || front.connects(remote.ip());
                let place = may_stay.then(|| places.enter(remote.ip(), is_proxy, tls.is_some())).flatten();
                let Some((place, displaced)) = place else {
                    count(&front.counters().connections_refused, 1);
                    continue;
                };
                count(&front.counters().connections_displaced, displaced.into());
                let holder = place.holder.clone();
                let call =
                    Call { router: router.clone(), front: Arc::clone(&front), remote, holder, http2: None };
                let held = (place, descriptor);
                connections.spawn(hold(held, connection(stream, tls.clone(), call, stopped.clone())));
            }
            Err(error) => {
                // Out of file descriptors, most likely: those that there are will end.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let grace = Duration::from_secs(front.config().shutdown_seconds);
    if timeout(grace, async { while connections.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(connections = connections.len(), "stopped with requests under way");
    }
}

async fn accept(
    listener: &TcpListener,
    descriptors: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let descriptor = Arc::clone(descriptors).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, remote) = listener.accept().await?;
    Ok((stream, remote, descriptor))
}

/// A connection for as long as it has its place.
async fn hold(held: (Place, OwnedSemaphorePermit), connection: impl Future<Output = ()>) {
    let (mut place, _descriptor) = held;
    tokio::select! {
        () = connection => {}
        () = place.lost() => {}
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    call: Call,
    mut stopped: watch::Receiver<bool>,
) {
    let _open = Open::new(&call.front);
    let _ = stream.set_nodelay(true);
    let front = Arc::clone(&call.front);
    let stream = Unread::new(stream, Duration::from_secs(front.config().unread_seconds));
    let Some(tls) = tls else { return http1(stream, call, stopped).await };
    let handshake = TlsAcceptor::from(tls.current()).accept(stream);
    let patience = Duration::from_secs(front.config().handshake_seconds);
    let shaken = tokio::select! {
        shaken = timeout(patience, handshake) => shaken,
        () = stop(&mut stopped) => return,
    };
    match shaken {
        Ok(Ok(stream)) => {
            count(&front.counters().tls_handshakes, 1);
            call.holder.has_shaken_hands();
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                http2(stream, call, stopped).await;
            } else {
                http1(stream, call, stopped).await;
            }
        }
        Ok(Err(error)) => {
            count(&front.counters().tls_handshakes_failed, 1);
            tracing::debug!(%error, "a TLS handshake failed");
        }
        Err(_) => {
            count(&front.counters().tls_handshakes_failed, 1);
            count(&front.counters().slow_clients, 1);
        }
    }
}

async fn stop(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stopped| *stopped).await);
}

async fn http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    call: Call,
    mut stopped: watch::Receiver<bool>,
) {
    let front = Arc::clone(&call.front);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(front.config().idle_seconds))
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), call);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    note_end(&*front, ended);
}

async fn http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut call: Call,
    mut stopped: watch::Receiver<bool>,
) {
    let front = Arc::clone(&call.front);
    let activity = Arc::new(Activity::new());
    call.http2 = Some(Arc::clone(&activity));
    let idle = Duration::from_secs(front.config().idle_seconds);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        // A peer that is gone without a word does not answer.
        .keep_alive_interval(idle.max(Duration::from_secs(10)))
        .keep_alive_timeout(idle)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .serve_connection(TokioIo::new(stream), call);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = activity.is_idle_for(idle) => {
            connection.as_mut().graceful_shutdown();
            timeout(idle, connection).await.unwrap_or(Ok(()))
        }
        () = activity.is_stuck_for(Duration::from_secs(front.config().request_seconds)) => {
            count(&front.counters().slow_clients, 1);
            return;
        }
    };
    note_end(&*front, ended);
}

fn note_end(front: &dyn Front, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        let unread = std::error::Error::source(&error)
            .and_then(|cause| cause.downcast_ref::<io::Error>())
            .is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut);
        if error.is_timeout() || unread {
            count(&front.counters().slow_clients, 1);
        }
        // The message names neither path nor headers.
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A connection as the metrics count it.
struct Open(Arc<dyn Front>);

impl Open {
    fn new(front: &Arc<dyn Front>) -> Self {
        front.open_connections().fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(front))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open_connections().fetch_sub(1, Ordering::Relaxed);
    }
}

/// What answers the requests of one connection.
struct Call {
    router: Router,
    front: Arc<dyn Front>,
    remote: SocketAddr,
    holder: Holder,
    http2: Option<Arc<Activity>>,
}

impl hyper::service::Service<Request<Incoming>> for Call {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut router = self.router.clone();
        let config = &self.front.config();
        let remote =
            proxies::client(&config.trusted_proxies, config.proxy_header, self.remote, request.headers());
        let is_member = self.front.knows(&request);
        if is_member {
            self.holder.is_member();
        } else if let Some(refused) = self.front.stranger(remote, request.uri().path()) {
            // Who asks too often waits for the answer, idle, so that a flood costs little.
            return Box::pin(async move {
                sleep(REFUSED_AFTER).await;
                Ok(refused)
            });
        }
        // What goes on in a connection of HTTP/2 is counted below.
        if self.http2.is_none()
            && request.body().is_end_stream()
            && let Some(answer) = self.front.at_once(remote, &request)
        {
            return Box::pin(std::future::ready(Ok(answer)));
        }
        let patience = Duration::from_secs(config.request_seconds);
        let busy = self.http2.as_ref().map(Busy::new);
        // One that trickles its body in is idle, until it is there.
        let works = Arc::new(OnceLock::new());
        let (mut request, slow) = if request.body().is_end_stream() {
            works.get_or_init(|| self.holder.works());
            (request.map(|_| Body::empty()), None)
        } else {
            let slow = Arc::new(AtomicBool::new(false));
            let allowed = Duration::from_secs(config.body_seconds);
            let whole = (self.holder.clone(), Arc::clone(&works));
            let timed =
                |body| Body::new(Timed::new(body, allowed, Arc::clone(&slow), whole, self.http2.clone()));
            (request.map(timed), Some(slow))
        };
        request.extensions_mut().insert(Remote(remote));
        let front = Arc::clone(&self.front);
        Box::pin(async move {
            let answer = timeout(patience, router.call(request)).await;
            let mut answer = match answer {
                Ok(Ok(answer)) => answer,
                Ok(Err(never)) => match never {},
                Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
            };
            if slow.is_some_and(|slow| slow.load(Ordering::Relaxed)) {
                count(&front.counters().slow_clients, 1);
                answer = StatusCode::REQUEST_TIMEOUT.into_response();
                if busy.is_none() {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
            }
            drop(works);
            if !is_member && answer.status() == StatusCode::TOO_MANY_REQUESTS {
                sleep(REFUSED_AFTER).await;
            }
            Ok(match busy {
                Some(busy) => answer.map(|body| Body::new(Counted { body, _busy: busy })),
                None => answer,
            })
        })
    }
}

/// A request's body that has to come at a decent pace.
struct Timed {
    body: Incoming,
    allowed: Duration,
    started: Instant,
    received: u64,
    /// Made when there is something to wait for: most bodies come along with their headers.
    alarm: Option<Pin<Box<Sleep>>>,
    slow: Arc<AtomicBool>,
    /// Who works on the request once the body is whole.
    whole: Whole,
    activity: Option<Arc<Activity>>,
}

type Whole = (Holder, Arc<OnceLock<Working>>);

impl Timed {
    fn new(
        body: Incoming,
        allowed: Duration,
        slow: Arc<AtomicBool>,
        whole: Whole,
        activity: Option<Arc<Activity>>,
    ) -> Self {
        Timed { body, allowed, started: Instant::now(), received: 0, alarm: None, slow, whole, activity }
    }

    fn deadline(&self) -> Instant {
        self.started + self.allowed + Duration::from_secs(self.received / SLOWEST)
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.activity.iter().for_each(|activity| activity.touch());
            }
            if frame.is_none() || self.body.is_end_stream() {
                self.whole.1.get_or_init(|| self.whole.0.works());
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = self.deadline();
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        ready!(alarm.as_mut().poll(context));
        self.slow.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err("the body came too slowly".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose reader has to read on: one that takes nothing for so long is cut.
struct Unread<S> {
    stream: S,
    patience: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncWrite + Unpin> Unread<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Unread { stream, patience, alarm: None }
    }

    fn waited<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.alarm = None;
            return written;
        }
        let patience = self.patience;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(alarm.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unread<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unread<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.waited(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.waited(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.waited(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What goes on in a connection of HTTP/2, where a pause is no sign: many calls share it.
struct Activity {
    calls: AtomicUsize,
    since: Instant,
    /// Milliseconds after `since` at which something last happened.
    last: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Activity { calls: AtomicUsize::new(0), since: Instant::now(), last: AtomicU64::new(0) }
    }

    fn touch(&self) {
        self.last.store(self.since.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Done when there has been no call for so long.
    async fn is_idle_for(&self, time: Duration) {
        self.quiet_for(time, |calls| calls == 0).await;
    }

    /// Done when calls are under way, and nothing has happened for so long.
    async fn is_stuck_for(&self, time: Duration) {
        self.quiet_for(time, |calls| calls > 0).await;
    }

    async fn quiet_for(&self, time: Duration, counts: impl Fn(usize) -> bool) {
        loop {
            let due = self.since + Duration::from_millis(self.last.load(Ordering::Relaxed)) + time;
            if Instant::now() < due {
                sleep_until(due).await;
            } else if counts(self.calls.load(Ordering::Relaxed)) {
                return;
            } else {
                // The other kind of quiet: it ends with a touch.
                sleep(time).await;
            }
        }
    }
}

/// A call under way.
struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.touch();
        activity.calls.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body, under way until it is sent.
struct Counted {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self._busy.0.touch();
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
