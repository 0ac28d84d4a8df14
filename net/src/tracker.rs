//! The tracker: announces, subscriptions, re-keys and licenses over HTTP, with everything that must last in one directory.
//!
//! ```text
//! <data>/tracker.redb      torrents, seeds, subscribers, grants, vouchers, licenses, revocations, epochs, counters, audit log
//! <data>/masters/N.key     the master key of epoch N, 0600: in no backup
//! <data>/witnesses/ID.key  the witness secret of torrent ID, 0600: in no backup
//! <data>/tracker.key       what shows clients that they reached this tracker, 0600
//! <data>/license.key       what licenses are signed with, 0600
//! <data>/voucher.key       the key of voucher codes and their MACs, 0600: in no backup
//! <data>/admin.token       bearer token of the admin API, 0600, made on the first start
//! <data>/lock              held while a tracker runs
//! ```

mod admin;
mod announce;
mod authorities;
mod backup;
mod budgets;
mod calls;
mod clock;
mod config;
mod connection;
mod devices;
mod epochs;
#[cfg(feature = "simulation")]
pub mod filling;
mod hash_work;
mod http;
mod identify;
pub mod license_server;
mod licenses;
mod limits;
mod masters;
mod metrics;
mod nonces;
mod offload;
mod personal;
mod places;
mod proxies;
mod records;
mod refusal;
mod rekey;
mod secret_files;
mod sessions;
mod shared_answer;
mod state;
mod store;
mod swarm;
mod tickets;
mod tls;
mod voucher;
mod witnesses;
mod workers;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use axum::response::Response;
use swarmseal_core::TorrentId;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

pub use backup::{Restored, restore};
pub use config::{Config, ConfigError, Kind, OwnKey, ProxyHeader, Setting};
pub use secret_files::SecretFileError;
pub use store::StoreError;
pub use tls::TlsError;

use crate::wire::origin::{BadOrigin, Origin};

/// Seconds between two looks for what has expired, and between two writings of counters.
const SWEEP: Duration = Duration::from_secs(60);

/// Names in the data directory.
const STORE: &str = "tracker.redb";
const MASTERS: &str = "masters";
const WITNESSES: &str = "witnesses";
const TRACKER_KEY: &str = "tracker.key";
const LICENSE_KEY: &str = "license.key";
const VOUCHER_KEY: &str = "voucher.key";
const ADMIN_TOKEN: &str = "admin.token";

/// Why a tracker does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tracker is running on this data.
    #[error("{data}: another tracker is running on this data")]
    InUse {
        /// The directory.
        data: PathBuf,
    },
    /// A file or directory cannot be used.
    #[error("{path}: {source}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Plain HTTP was to be spoken to other machines.
    #[error(
        "{address}: plain HTTP would send keys and tokens in clear to other machines: expected --tls-certificate and \
         --tls-key, a loopback address, or --insecure-http (insecure_http = true)"
    )]
    PlainHttp {
        /// The address.
        address: SocketAddr,
    },
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A key or token cannot be used.
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is a store where a backup was to become one.
    #[error("{path}: there is a store already: expected a data directory without one")]
    StoreExists {
        /// The store.
        path: PathBuf,
    },
    /// A key file is gone.
    #[error("{path}: it is missing, and the store was made with it: put it there from where you keep it")]
    MissingKey {
        /// The file.
        path: PathBuf,
    },
    /// A key file has another key.
    #[error("the key file of `{name}` has another key than the one that the store was made with")]
    OtherKey {
        /// Which key.
        name: String,
    },
    /// A registered .torrent cannot be read any more.
    #[error("a registered torrent: {0}")]
    Metainfo(#[from] crate::wire::metainfo::Error),
    /// A torrent of the profile `paper` is registered, and the tracker was started without permission for it.
    #[error(
        "torrent {torrent} has the profile `paper`, which protects nothing: expected insecure_paper_profile = true"
    )]
    PaperProfile {
        /// The torrent.
        torrent: TorrentId,
    },
    /// The address that it listens on is no origin.
    #[error(transparent)]
    Origin(#[from] BadOrigin),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// A thread of the tracker ended badly.
    #[error("the tracker failed while it started")]
    Start,
}

/// A tracker that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    metrics: Option<(TcpListener, SocketAddr)>,
    tracker: Arc<state::Tracker>,
    tls: Option<Arc<tls::Tls>>,
    admin_token_is_new: bool,
    /// Held until the end.
    _lock: File,
}

impl Server {
    /// Opens the data directory, making keys, token and store on the first start, and listens. Connections wait until
    /// [`Server::run`].
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let (address, metrics_address) = (config.listen, config.metrics_listen);
        let (opened, tls, lock) = tokio::task::spawn_blocking(move || {
            let tls = open_tls(&config)?;
            let lock = keep_lock(&config.data)?;
            state::Tracker::open(config).map(|opened| (opened, tls, lock))
        })
        .await
        .map_err(|_| Error::Start)??;
        let (listener, address) = listen(address).await?;
        tracing::info!(%address, encrypted = tls.is_some(), "listening");
        let metrics = match metrics_address {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let state::Opened { tracker, admin_token_is_new } = opened;
        let origin = match &tracker.config.origin {
            Some(origin) => origin.clone(),
            None => reached_at(tls.is_some(), address)?,
        };
        tracker.listens(origin)?;
        Ok(Server {
            listener,
            address,
            metrics,
            tracker: Arc::new(tracker),
            tls,
            admin_token_is_new,
            _lock: lock,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where `/metrics` is answered, if that is an address of its own.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(_, address)| *address)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        url(self.tls.is_some(), self.address)
    }

    /// What reads the certificate again while the tracker runs.
    pub fn reloader(&self) -> Reloader {
        Reloader { tls: self.tls.clone(), front: Arc::clone(&self.tracker) as _ }
    }

    /// The file with the bearer token of the admin API.
    pub fn admin_token_file(&self) -> PathBuf {
        state::admin_token(&self.tracker.config.data)
    }

    /// Whether this start made the token.
    pub fn admin_token_is_new(&self) -> bool {
        self.admin_token_is_new
    }

    /// The public key by which clients and license servers know it.
    pub fn tracker_key(&self) -> [u8; 32] {
        self.tracker.tracker_key.public()
    }

    /// Serves until `shutdown` is done, then lets requests under way come to an end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let router = http::router(Arc::clone(&self.tracker));
        let (stop, stopped) = watch::channel(());
        let sweeper = tokio::spawn({
            let (tracker, mut stopped) = (Arc::clone(&self.tracker), stopped.clone());
            async move {
                let mut ticks = tokio::time::interval(SWEEP);
                while is_time(&mut ticks, &mut stopped).await {
                    tracker.sweep();
                    offload::write(&tracker, false).await;
                }
            }
        });
        let front: Arc<dyn connection::Front> = Arc::clone(&self.tracker) as _;
        let metrics = self.metrics.map(|(listener, _)| {
            let (router, front) =
                (http::metrics_router(Arc::clone(&self.tracker)), metrics_front(&self.tracker));
            let mut stopped = stopped;
            let stopped = async move { drop(stopped.changed().await) };
            tokio::spawn(connection::serve(listener, router, front, None, stopped))
        });
        connection::serve(self.listener, router, front, self.tls, shutdown).await;
        drop(stop);
        let rest = async {
            // What it has begun has a hold on the store.
            let _ = sweeper.await;
            if let Some(metrics) = metrics {
                let _ = metrics.await;
            }
            self.tracker.finish().await;
        };
        // Every change is on the disk or not made: a job that is left is no loss.
        let grace = Duration::from_secs(self.tracker.config.shutdown_seconds);
        if tokio::time::timeout(grace, rest).await.is_err() {
            tracing::warn!("stopped with jobs under way");
        }
        offload::write(&self.tracker, true).await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// What answers where `metrics_listen` says: few connections, and none that are kept for members.
fn metrics_front(tracker: &Arc<state::Tracker>) -> Arc<dyn connection::Front> {
    struct Metrics {
        tracker: Arc<state::Tracker>,
        config: Config,
        stopping: AtomicBool,
    }

    impl connection::Front for Metrics {
        fn config(&self) -> &Config {
            &self.config
        }

        fn counters(&self) -> &metrics::Counters {
            &self.tracker.counters
        }

        fn open_connections(&self) -> &AtomicU64 {
            &self.tracker.open_connections
        }

        fn stopping(&self) -> &AtomicBool {
            &self.stopping
        }

        fn connects(&self, remote: IpAddr) -> bool {
            connection::Front::connects(&*self.tracker, remote)
        }

        fn stranger(&self, remote: IpAddr, path: &str) -> Option<Response> {
            connection::Front::stranger(&*self.tracker, remote, path)
        }
    }

    let of_tracker = tracker.config.clone();
    let config = Config { max_connections: 64, reserved_percent: 0, drain_seconds: 0, ..of_tracker };
    Arc::new(Metrics { tracker: Arc::clone(tracker), config, stopping: AtomicBool::new(false) })
}

/// The certificate and its key, if the configuration has them. Blocks on files. Errors: [`Error::PlainHttp`] where it has none and
/// would need them.
fn open_tls(config: &Config) -> Result<Option<Arc<tls::Tls>>, Error> {
    match (&config.tls_certificate, &config.tls_key) {
        (Some(certificate), Some(key)) => Ok(Some(Arc::new(tls::Tls::open(certificate, key)?))),
        _ if config.insecure_http || config.listen.ip().to_canonical().is_loopback() => Ok(None),
        _ => Err(Error::PlainHttp { address: config.listen }),
    }
}

/// A listener and where it listens.
async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = bind(address).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// The origin of an address that is listened on; on this machine if it is unspecified.
fn reached_at(encrypted: bool, address: SocketAddr) -> Result<Origin, BadOrigin> {
    let mut address = address;
    if address.ip().is_unspecified() {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        address.set_ip(if address.is_ipv4() { v4 } else { IpAddr::V6(Ipv6Addr::LOCALHOST) });
    }
    url(encrypted, address).parse()
}

/// A listener with room for a crowd that connects at once.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    /// Connections that wait to be accepted; the system may have a lower bound.
    const BACKLOG: u32 = 4096;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    crate::platform::reuse_address(&socket)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn url(encrypted: bool, address: SocketAddr) -> String {
    let scheme = if encrypted { "https" } else { "http" };
    format!("{scheme}://{address}")
}

/// Reads the certificate again while the tracker runs.
#[derive(Clone)]
pub struct Reloader {
    tls: Option<Arc<tls::Tls>>,
    front: Arc<dyn connection::Front>,
}

impl Reloader {
    /// For connections from now on; those that there are go on. Without TLS, nothing. Errors: what was in use stays in
    /// use. Blocks on files.
    pub fn reload(&self) -> Result<(), TlsError> {
        if let Some(tls) = &self.tls {
            tls.reload()?;
            metrics::count(&self.front.counters().tls_reloads, 1);
            tracing::info!("the certificate was read again");
        }
        Ok(())
    }
}

/// Waits for the next tick; whether there is one before the server stops.
async fn is_time(ticks: &mut tokio::time::Interval, stopped: &mut watch::Receiver<()>) -> bool {
    tokio::select! {
        _ = ticks.tick() => true,
        _ = stopped.changed() => false,
    }
}

/// The lock of the data directory. Errors: [`Error::InUse`] where another process has it.
fn keep_lock(data: &Path) -> Result<File, Error> {
    secret_files::create_directory(data)?;
    let path = data.join("lock");
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(|source| Error::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { data: data.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::Io { path, source }),
    }
}
