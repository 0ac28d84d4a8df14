//! The tracker: announces, subscriptions, re-keys and licenses over HTTP, with everything that must last in one directory.
//!
//! ```text
//! <data>/tracker.redb   torrents, seeds, subscribers, grants, vouchers
//! <data>/masters/N.key  the master key of epoch N, 0600: leave it out of backups, or encrypt them
//! <data>/license.key    what licenses are signed with, 0600
//! <data>/admin.token    bearer token of the admin API, 0600, made on the first start
//! <data>/lock           held while a tracker runs
//! ```

mod admin;
mod announce;
mod calls;
mod cases;
mod clock;
mod hash_work;
mod http;
mod judge;
mod masters;
mod metrics;
mod nonces;
mod personal;
mod records;
mod refusal;
mod rekey;
mod secret_files;
mod sessions;
mod state;
mod store;
mod swarm;
mod tickets;
mod voucher;
mod workers;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use swarmseal_core::TorrentId;
use tokio::net::TcpListener;

pub use secret_files::SecretFileError;
pub use store::StoreError;

/// Seconds between two looks for what has expired.
const SWEEP: Duration = Duration::from_secs(60);

/// How a tracker runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Directory of everything that lasts; made, 0700, if it is not there.
    pub data: PathBuf,
    /// Where to listen; port 0 takes any.
    #[serde(default = "Config::default_listen")]
    pub listen: SocketAddr,
    /// Register torrents of the profile `paper`, which protects nothing.
    #[serde(default)]
    pub insecure_paper_profile: bool,
    /// Seconds between a peer's announces; a peer that is silent for twice as long and a minute is forgotten.
    #[serde(default = "Config::default_announce_interval")]
    pub announce_interval: u32,
    /// Seconds that a peer waits at least between announces.
    #[serde(default = "Config::default_min_announce_interval")]
    pub min_announce_interval: u32,
    /// Peers in one reply at most.
    #[serde(default = "Config::default_max_peers")]
    pub max_peers: u32,
    /// Seconds that a session lasts.
    #[serde(default = "Config::default_session_seconds")]
    pub session_seconds: u64,
    /// Seconds that a challenge may be answered.
    #[serde(default = "Config::default_nonce_seconds")]
    pub nonce_seconds: u64,
    /// Seconds from now until the latest expiry of a ticket that is accepted.
    #[serde(default = "Config::default_max_ticket_seconds")]
    pub max_ticket_seconds: u64,
    /// Connections at once.
    #[serde(default = "Config::default_max_connections")]
    pub max_connections: usize,
    /// Jobs of arithmetic at once; as many as there are cores if not given.
    #[serde(default)]
    pub workers: Option<usize>,
    /// Calls that may wait for a worker; more are told that the tracker is busy.
    #[serde(default = "Config::default_max_waiting_calls")]
    pub max_waiting_calls: usize,
    /// Bytes of tables that make re-keys fast, some 80 KiB for each active subscriber.
    #[serde(default = "Config::default_table_cache_bytes")]
    pub table_cache_bytes: usize,
    /// A torrent's bytes times its subscribers up to which seeds compute everybody's cipher hashes by themselves; beyond
    /// it, those of whoever asks.
    #[serde(default = "Config::default_cipher_hash_bytes")]
    pub cipher_hash_bytes: u64,
    /// Seconds that the sender of a bad piece has to show from whom it had it; then it is to blame.
    #[serde(default = "Config::default_defence_seconds")]
    pub defence_seconds: u64,
    /// Bad pieces by which a subscriber loses its uploads, and false accusations by which it loses those.
    #[serde(default = "Config::default_max_lost_cases")]
    pub max_lost_cases: usize,
    /// Proxies whose `X-Forwarded-For` is believed.
    #[serde(default)]
    pub trusted_proxies: Vec<IpAddr>,
}

impl Config {
    /// The defaults, on this data directory.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Config {
            data: data.into(),
            listen: Self::default_listen(),
            insecure_paper_profile: false,
            announce_interval: Self::default_announce_interval(),
            min_announce_interval: Self::default_min_announce_interval(),
            max_peers: Self::default_max_peers(),
            session_seconds: Self::default_session_seconds(),
            nonce_seconds: Self::default_nonce_seconds(),
            max_ticket_seconds: Self::default_max_ticket_seconds(),
            max_connections: Self::default_max_connections(),
            workers: None,
            max_waiting_calls: Self::default_max_waiting_calls(),
            table_cache_bytes: Self::default_table_cache_bytes(),
            cipher_hash_bytes: Self::default_cipher_hash_bytes(),
            defence_seconds: Self::default_defence_seconds(),
            max_lost_cases: Self::default_max_lost_cases(),
            trusted_proxies: Vec::new(),
        }
    }

    fn default_listen() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 7000))
    }

    const fn default_announce_interval() -> u32 {
        1800
    }

    const fn default_min_announce_interval() -> u32 {
        60
    }

    const fn default_max_peers() -> u32 {
        200
    }

    const fn default_session_seconds() -> u64 {
        3600
    }

    const fn default_nonce_seconds() -> u64 {
        60
    }

    const fn default_max_ticket_seconds() -> u64 {
        24 * 3600
    }

    const fn default_max_connections() -> usize {
        4096
    }

    const fn default_max_waiting_calls() -> usize {
        256
    }

    /// Some hours of one core.
    const fn default_cipher_hash_bytes() -> u64 {
        4 << 40
    }

    /// A week: a peer need not run every day.
    const fn default_defence_seconds() -> u64 {
        7 * 24 * 3600
    }

    const fn default_max_lost_cases() -> usize {
        3
    }

    const fn default_table_cache_bytes() -> usize {
        256 << 20
    }
}

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
    /// A key or token cannot be used.
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    tracker: Arc<state::Tracker>,
    admin_token_is_new: bool,
    /// Held until the end.
    _lock: File,
}

impl Server {
    /// Opens the data directory, making keys, token and store on the first start, and listens. Connections wait until
    /// [`Server::run`].
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let address = config.listen;
        let (opened, lock) = tokio::task::spawn_blocking(move || {
            let lock = lock(&config)?;
            state::Tracker::open(config).map(|opened| (opened, lock))
        })
        .await
        .map_err(|_| Error::Start)??;
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, "listening");
        let state::Opened { tracker, admin_token_is_new } = opened;
        Ok(Server { listener, address, tracker: Arc::new(tracker), admin_token_is_new, _lock: lock })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The file with the bearer token of the admin API.
    pub fn admin_token_file(&self) -> PathBuf {
        state::admin_token(&self.tracker.config.data)
    }

    /// Whether this start made the token.
    pub fn admin_token_is_new(&self) -> bool {
        self.admin_token_is_new
    }

    /// The public key that checks this tracker's licenses: what a publisher puts into the .torrent.
    pub fn license_key(&self) -> [u8; 32] {
        self.tracker.license_key.public()
    }

    /// Serves until `shutdown` is done, then lets requests under way come to an end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let router = http::router(Arc::clone(&self.tracker));
        let sweeper = tokio::spawn({
            let tracker = Arc::clone(&self.tracker);
            async move {
                let mut ticks = tokio::time::interval(SWEEP);
                loop {
                    ticks.tick().await;
                    tracker.sweep();
                    cases::end_overdue(&tracker).await;
                }
            }
        });
        let tracker = Arc::clone(&self.tracker);
        http::serve(self.listener, tracker, router, self.tracker.config.max_connections, shutdown).await;
        sweeper.abort();
        self.tracker.workers.finish().await;
        self.tracker.verifiers.finish().await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// The lock of the data directory. Errors: [`Error::InUse`] where another process has it.
fn lock(config: &Config) -> Result<File, Error> {
    secret_files::create_directory(&config.data)?;
    let path = config.data.join("lock");
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(|source| Error::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { data: config.data.clone() }),
        Err(TryLockError::Error(source)) => Err(Error::Io { path, source }),
    }
}
