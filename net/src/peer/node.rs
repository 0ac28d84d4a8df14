//! A node: one listener, many torrents, and the limits that they share.

mod announce;
mod dht;
mod dialer;
mod discovery;
mod epoch;
mod handshakes;
mod link;
mod listen;
mod lsd;
mod mapping;
mod opening;
mod personal;
mod place;
mod reputation;
mod torrent;
mod witness;
mod work;
mod workers;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use self::dht::DhtConfig;
pub use self::lsd::LsdConfig;
pub use self::mapping::PortMappingConfig;
pub use self::opening::Obfuscation;
pub use self::torrent::{AddError, Member, Role, Stats, Torrent, TorrentConfig};

use self::dht::DhtNode;
use self::handshakes::{Handshakes, Slot};
use self::listen::{canonical, listen};
use self::lsd::Lsd;
use self::opening::welcome;
use self::personal::Personals;
use self::place::{Held, Places};
use self::reputation::{Reputation, Tolerance};
use self::torrent::Input;
use self::workers::Workers;
use super::buffers::ReadBuffers;
use super::rate_limit::RateLimit;
use super::state::Event;
use super::tracker::Tracker;
use crate::wire::handshake;

/// A handshake that we begin must be whole within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Settings of a node. A bound of 0 is none. Bounds for each address are for each IPv4 address or IPv6 network of 64 bits, and leave
/// out 127.0.0.1 and ::1.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where to listen; port 0 takes a free one. `[::]` takes IPv4 as well, and is `0.0.0.0` on a system without IPv6.
    pub listen: SocketAddr,
    /// Connections of all torrents together. A node that has them all parts from the one that has been least use when another comes.
    pub max_connections: usize,
    /// Connections with each address.
    pub max_per_address: usize,
    /// Incoming connections whose handshake has not ended; they do not count among the others. When another comes, one of the addresses
    /// that have most loses one.
    pub max_handshakes: usize,
    /// Those of each address.
    pub max_handshakes_per_address: usize,
    /// How long an incoming connection's handshake may take.
    pub handshake_time: Duration,
    /// Bad pieces, bad signatures and bad tickets after which an address is not dealt with for the rest of the run.
    pub bad_pieces: u32,
    /// An address whose bad pieces are no more than so many in a hundred is dealt with, however many they are.
    pub bad_percent: u32,
    /// Bytes per second sent, all connections together.
    pub upload_limit: Option<u64>,
    /// Bytes per second received, all connections together.
    pub download_limit: Option<u64>,
    /// Peers of a torrent served at a time, besides one chosen at random.
    pub slots: usize,
    /// Ordinary clients with personal torrents that are served at a time, per torrent.
    pub personal_slots: usize,
    /// Bytes of pieces made ready for peers, per torrent.
    pub ready_bytes: usize,
    /// Pieces transformed, checked, read or written at a time; 0: one for each CPU.
    pub workers: usize,
    /// Whether connections are obfuscated.
    pub obfuscation: Obfuscation,
    /// Public torrents' peers are looked for on the local network, too.
    pub lsd: Option<LsdConfig>,
    /// Public torrents' peers are looked for in the DHT, too.
    pub dht: Option<DhtConfig>,
    /// A gateway is asked to pass calls on to us.
    pub port_mapping: Option<PortMappingConfig>,
}

impl Default for NodeConfig {
    fn default() -> Self {
        NodeConfig {
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            max_connections: 50,
            max_per_address: 8,
            max_handshakes: 32,
            max_handshakes_per_address: 4,
            handshake_time: HANDSHAKE,
            bad_pieces: 3,
            bad_percent: 1,
            upload_limit: None,
            download_limit: None,
            slots: 4,
            personal_slots: 1,
            ready_bytes: 128 << 20,
            workers: 0,
            obfuscation: Obfuscation::default(),
            lsd: None,
            dht: None,
            port_mapping: None,
        }
    }
}

/// The longest step of an end in a hurry; there are three.
const HURRY: Duration = Duration::from_millis(250);

/// What all torrents of a node share.
#[derive(Debug)]
pub(crate) struct Shared {
    config: NodeConfig,
    peer_id: [u8; 20],
    /// The gateway's, where it passes calls on to us.
    port: AtomicU16,
    upload: RateLimit,
    download: RateLimit,
    places: Places,
    handshakes: Arc<Handshakes>,
    reputation: Mutex<Reputation>,
    /// How many addresses are not dealt with any more.
    refused: AtomicUsize,
    work: Arc<Workers>,
    reads: ReadBuffers,
    torrents: Mutex<HashMap<[u8; 20], Joined>>,
    personals: Personals,
    lsd: Lsd,
    dht: DhtNode,
    hurry: AtomicBool,
}

/// A torrent that was joined.
#[derive(Clone)]
struct Joined {
    inputs: mpsc::Sender<Input>,
    places: Held,
    /// A sealed one's, which knows of personal torrents.
    tracker: Option<Arc<dyn Tracker>>,
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joined").field("sealed", &self.tracker.is_some()).finish_non_exhaustive()
    }
}

impl Shared {
    /// The port that others can call us at.
    fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    fn set_port(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    /// How long one step of the end may take.
    fn within(&self, polite: Duration) -> Duration {
        if self.hurry.load(Ordering::Relaxed) { polite.min(HURRY) } else { polite }
    }

    fn torrents(&self) -> MutexGuard<'_, HashMap<[u8; 20], Joined>> {
        self.torrents.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn reputation(&self) -> MutexGuard<'_, Reputation> {
        self.reputation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an address is not dealt with.
    fn refuses(&self, address: IpAddr) -> bool {
        self.refused.load(Ordering::Relaxed) > 0 && self.reputation().refuses(address)
    }

    /// A bad piece came from that address, or something that is as bad.
    fn hold_against(&self, address: IpAddr) {
        if self.reputation().bad(address) {
            tracing::debug!(%address, "not dealt with for the rest of the run");
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All places are taken and a connection waits for one: the torrent with most parts from the one that has been least use.
    fn make_room(&self) {
        let torrents = self.torrents();
        if let Some(most) = torrents.values().max_by_key(|joined| joined.places.load(Ordering::Relaxed)) {
            // One whose queue is full has better things to do.
            let _ = most.inputs.try_send(Input::Event(Event::Crowded));
        }
    }
}

/// A running node. Dropping it without [`Node::shutdown`] stops it without a last word to the tracker.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Node {
    /// Starts to listen. To be called inside a tokio runtime. Errors: the address cannot be had.
    pub async fn bind(config: NodeConfig) -> io::Result<Node> {
        let listener = listen(config.listen)?;
        let addr = listener.local_addr()?;
        let (mut random, mut seed) = ([0; 12], [0; 8]);
        getrandom::fill(&mut random).and_then(|()| getrandom::fill(&mut seed)).map_err(io::Error::other)?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = if config.workers == 0 { cpus } else { config.workers };
        let shared = Arc::new(Shared {
            peer_id: handshake::peer_id(random),
            port: AtomicU16::new(addr.port()),
            upload: RateLimit::new(config.upload_limit),
            download: RateLimit::new(config.download_limit),
            places: Places::new(config.max_connections, config.max_per_address),
            handshakes: Handshakes::new(
                config.max_handshakes,
                config.max_handshakes_per_address,
                u64::from_le_bytes(seed),
            ),
            reputation: Mutex::new(Reputation::new(Tolerance {
                bad_pieces: config.bad_pieces,
                bad_percent: config.bad_percent,
            })),
            refused: AtomicUsize::new(0),
            work: Workers::new(workers),
            reads: ReadBuffers::default(),
            torrents: Mutex::default(),
            personals: Personals::default(),
            lsd: Lsd::default(),
            dht: DhtNode::default(),
            hurry: AtomicBool::new(false),
            config,
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = vec![tokio::spawn(accept(listener, shared.clone(), stopped.clone()))];
        let mapping = shared.config.port_mapping;
        tasks
            .extend(mapping.map(|config| tokio::spawn(mapping::keep(config, addr, shared.clone(), stopped))));
        Ok(Node { shared, addr, stop, tasks: Mutex::new(tasks) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port that others can call it at: its own, or that of a gateway that passes calls on.
    pub fn public_port(&self) -> u16 {
        self.shared.port()
    }

    /// Joins a torrent's swarm. To be called inside a tokio runtime.
    pub fn add_torrent(&self, config: TorrentConfig) -> Result<Torrent, AddError> {
        let (torrent, task) = torrent::start(config, self.shared.clone(), self.stop.subscribe())?;
        self.tasks().push(task);
        Ok(torrent)
    }

    /// [`Node::shutdown`] within a second: what others would still have to say is not waited for.
    pub async fn shutdown_now(self) {
        self.shared.hurry.store(true, Ordering::Relaxed);
        self.shutdown().await;
    }

    /// Says good-bye to trackers and peers and waits until everything is on disk.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks());
        for task in tasks {
            let _ = task.await;
        }
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Resolves when the node stops or is dropped.
async fn stopping(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: watch::Receiver<bool>) {
    let stop = stopping(stop);
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return,
        };
        match accepted {
            Ok((stream, addr)) => {
                let addr = canonical(addr);
                if shared.refuses(addr.ip()) {
                    continue;
                }
                tokio::spawn(shake_hands(stream, addr, shared.handshakes.enter(addr.ip()), shared.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: give the others time to end.
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn shake_hands(stream: TcpStream, addr: SocketAddr, mut slot: Slot, shared: Arc<Shared>) {
    let time = shared.config.handshake_time;
    let limit =
        async { if time.is_zero() { std::future::pending().await } else { tokio::time::sleep(time).await } };
    let ended = tokio::select! {
        ended = welcome(stream, addr, &shared) => ended,
        () = limit => Err(io::ErrorKind::TimedOut.into()),
        () = slot.lost() => Err(io::Error::other("another handshake took its slot")),
    };
    if let Err(error) = ended {
        tracing::debug!(%addr, %error, "incoming connection refused");
    }
}
