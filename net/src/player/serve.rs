//! A server on this machine alone, from which a browser, mpv or VLC reads plaintext while it is opened, at any place.
//!
//! ```text
//! http://127.0.0.1:PORT/TOKEN/          the list of files
//! http://127.0.0.1:PORT/TOKEN/N/NAME    file N (from 0); ranges as in RFC 9110
//! ```
//!
//! Whoever knows the token, 256 random bits, can read everything as long as the server runs; nobody else can. It listens on
//! loopback only, asks for the host that it was called by (a name that an attacker points at 127.0.0.1 is another one), gives no
//! page of another origin a byte, and lets no document of the content run anything.
//!
//! Pieces are opened on blocking threads, a few ahead of the reader, and only whole proven pieces are cut up. A reader that goes
//! away or seeks takes its work with it. What fails in the middle ends the connection, so that the reader sees that it got less
//! than was announced.

mod flow;
mod page;
mod request;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::flow::{Flow, Opened};
use self::request::{Part, Route};
use super::{Content, Error, PieceReader, Session};

/// Connections at a time: a browser opens six.
const MAX_CONNECTIONS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// A request's head must be whole within this time, and a connection without requests ends after it.
const IDLE: Duration = Duration::from_secs(60);
/// Bits of the token: twice what is enough.
const TOKEN_BYTES: usize = 32;

/// What a piece's way to the reader needs besides being read: it may still have to be fetched.
pub trait Supply: PieceReader + Send + Sync + 'static {
    /// These pieces are read next, in this order, and no others. Does not block.
    fn want(&self, pieces: &[u32]);

    /// Done once a piece is stored. Errors: a sentence that says why it is not, after a bounded time.
    fn available(&self, index: u32) -> BoxFuture<'_, Result<(), String>>;

    /// A stored piece does not open to what was published: it is to be fetched again. Done once that is under way.
    /// Errors: a sentence that says why it is not.
    fn refetch(&self, index: u32) -> BoxFuture<'_, Result<(), String>>;
}

/// A boxed future.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others on the network could read what is licensed to this device.
    #[error("{0} is not an address of this machine alone: expected one such as 127.0.0.1:0 or [::1]:0")]
    NotLoopback(SocketAddr),
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system has no randomness.
    #[error("no random token can be made: {0}")]
    Random(io::Error),
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    address: SocketAddr,
    token: String,
    content: Content,
    opened: Arc<Opened>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Whether a server may listen there. Errors: [`ServeError::NotLoopback`].
pub fn check_address(address: SocketAddr) -> Result<(), ServeError> {
    if address.ip().is_loopback() { Ok(()) } else { Err(ServeError::NotLoopback(address)) }
}

impl Server {
    /// Listens on `address`, whose port may be 0 for any. Nothing is served before [`Server::run`]. To be called inside a tokio
    /// runtime. `session`: a play that was counted; what its license says of its end still holds.
    ///
    /// Errors: [`ServeError`].
    pub async fn bind(
        address: SocketAddr,
        session: Session,
        content: Content,
        supply: Arc<dyn Supply>,
    ) -> Result<Self, ServeError> {
        check_address(address)?;
        let listen = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let mut token = [0; TOKEN_BYTES];
        getrandom::fill(&mut token).map_err(|error| ServeError::Random(io::Error::other(error)))?;
        let opened = Opened::new(session, supply);
        let shared = Arc::new(Shared { address, token: hex::encode(token), content, opened });
        Ok(Server { listener, shared })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// The list of files. Whoever has it can read them.
    pub fn url(&self) -> String {
        format!("http://{}/{}/", self.shared.address, self.shared.token)
    }

    /// Where file `index` is. Errors: [`Error::NoSuchFile`].
    pub fn file_url(&self, index: usize) -> Result<String, Error> {
        let files = self.shared.content.files();
        let file = files.get(index).ok_or(Error::NoSuchFile { index, count: files.len() })?;
        Ok(self.url() + &page::link(index, file))
    }

    /// Serves until `stop` is done, and then ends every connection at once.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Server { listener, shared } = self;
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let Ok(place) = places.clone().try_acquire_owned() else { continue };
                    let shared = shared.clone();
                    connections.spawn(async move {
                        let _place = place;
                        connection(stream, shared).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(shared.answer(&request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(MAX_HEADER_BYTES.max(8192))
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a reader's connection ended early");
    }
}

impl Shared {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let (method, headers) = (request.method(), request.headers());
        let host = headers.get(header::HOST);
        // An absolute URI would name a host of its own.
        if request.uri().authority().is_some() || !request::is_host(host, self.address) {
            return refused(StatusCode::MISDIRECTED_REQUEST, "no such host");
        }
        let route = request::route(request.uri().path(), &self.token);
        if route.is_some() && method != Method::GET && method != Method::HEAD {
            let mut answer = refused(StatusCode::METHOD_NOT_ALLOWED, "expected GET or HEAD");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let mut answer = match route {
            Some(Route::Index) => {
                let name = &self.opened.session().player().metainfo().info.name;
                let page = page::index(name, self.content.files());
                text(StatusCode::OK, "text/html; charset=utf-8", page, page::POLICY)
            }
            Some(Route::Style) => {
                text(StatusCode::OK, "text/css; charset=utf-8", page::STYLE.into(), "sandbox")
            }
            Some(Route::File(index)) => match self.content.span(index) {
                Ok(_) => self.file(index, method, headers).await,
                Err(_) => refused(StatusCode::NOT_FOUND, "no such file"),
            },
            None => refused(StatusCode::NOT_FOUND, "no such page"),
        };
        if method == Method::HEAD {
            *answer.body_mut() = Body::empty();
        }
        answer
    }

    async fn file(&self, index: usize, method: &Method, headers: &HeaderMap) -> Response<Body> {
        let (Ok(span), Some(file)) = (self.content.span(index), self.content.files().get(index)) else {
            return refused(StatusCode::NOT_FOUND, "no such file");
        };
        let (size, tag) = (file.size, self.tag(index));
        // RFC 9110, 14.2: a range is about GET alone.
        let part = if method == Method::GET { request::part(headers, &tag, size) } else { Part::Whole };
        let range = match part {
            Part::Whole => 0..size,
            Part::Of(ref range) => range.clone(),
            Part::Unsatisfiable => {
                let mut answer = refused(StatusCode::RANGE_NOT_SATISFIABLE, "the file is shorter");
                set(answer.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
                return answer;
            }
        };
        let length = range.end - range.start;
        let body = if method == Method::HEAD || length == 0 {
            Body::empty()
        } else {
            let stream = span.start + range.start..span.start + range.end;
            match Flow::begin(self.opened.clone(), stream).await {
                Ok(flow) => Body::new(flow),
                Err(error) => return failed(&error),
            }
        };
        let mut answer = Response::new(body);
        let headers = answer.headers_mut();
        guard(headers, "sandbox");
        headers.insert(header::CONTENT_TYPE, page::content_type(&file.mime));
        headers.insert(header::CONTENT_LENGTH, length.into());
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        set(headers, header::ETAG, &tag);
        if let Part::Of(range) = part {
            let (first, last) = (range.start, range.end - 1);
            set(headers, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{size}"));
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        answer
    }

    /// What a file is never changes.
    fn tag(&self, index: usize) -> String {
        let seal = &self.opened.session().player().metainfo().info.seal;
        format!("\"{}-{index}\"", seal.torrent_id)
    }
}

/// What every answer says: nothing of it is kept, guessed at, given to another origin or told to whoever is linked to.
fn guard(headers: &mut HeaderMap, policy: &'static str) {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// A header of our own making.
fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn text(status: StatusCode, kind: &'static str, body: String, policy: &'static str) -> Response<Body> {
    let length = body.len();
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    guard(headers, policy);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, length.into());
    answer
}

fn refused(status: StatusCode, why: &str) -> Response<Body> {
    text(status, "text/plain; charset=utf-8", format!("{why}\n"), "sandbox")
}

/// What is not there yet may come; what the license forbids does not.
fn failed(error: &Error) -> Response<Body> {
    tracing::warn!(%error, "a read failed");
    let status = match error {
        Error::NotFetched { .. } | Error::MissingPiece { .. } | Error::WrongEpoch { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Error::Expired { .. } => StatusCode::FORBIDDEN,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut why = String::new();
    let _ = write!(why, "{error}");
    refused(status, &why)
}
