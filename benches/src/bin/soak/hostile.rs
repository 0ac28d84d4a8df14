//! Hostile members: subscribed as everybody is, and up to no good. They speak the wire by themselves, but for the polluter,
//! which is an honest peer whose store is changed behind its back.

mod member;
mod polluter;
mod session;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use swarmseal::wire::metainfo::Metainfo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::random::Random;
use member::Member;

/// What a hostile member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sends blocks that are no group elements.
    Garbage,
    /// Sends group elements that are wrong, and states them honestly.
    WrongElements,
    /// Sends group elements, and states another hash than theirs.
    FalseHash,
    /// Sends group elements, and never states anything.
    Mute,
    /// Promises everything and sends nothing.
    Stall,
    /// Sends some blocks of each piece and not the last.
    HalfStall,
    /// Forges tickets and statements.
    Forger,
    /// Dates its statements hours from now.
    WrongTime,
    /// Sends messages that are none.
    Malformed,
    /// Sends as many small messages as it can.
    Flood,
    /// Asks for everything, hangs up in the middle, and comes again.
    HitAndRun,
    /// The same, without a subscription.
    Stranger,
    /// Passes on what it fetched, times a random factor.
    Polluter,
}

impl Kind {
    /// With their weights.
    pub(crate) const ALL: [(u64, Kind); 13] = [
        (1, Kind::Garbage),
        (1, Kind::WrongElements),
        (1, Kind::FalseHash),
        (1, Kind::Mute),
        (1, Kind::Stall),
        (1, Kind::HalfStall),
        (1, Kind::Forger),
        (1, Kind::WrongTime),
        (1, Kind::Malformed),
        (1, Kind::Flood),
        (1, Kind::HitAndRun),
        (1, Kind::Stranger),
        (3, Kind::Polluter),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Garbage => "garbage blocks",
            Kind::WrongElements => "wrong group elements",
            Kind::FalseHash => "false hashes",
            Kind::Mute => "no statements",
            Kind::Stall => "stalls",
            Kind::HalfStall => "stalls in the middle",
            Kind::Forger => "forged signatures",
            Kind::WrongTime => "wrong dates",
            Kind::Malformed => "malformed messages",
            Kind::Flood => "floods",
            Kind::HitAndRun => "hits and runs",
            Kind::Stranger => "hits and runs, not subscribed",
            Kind::Polluter => "pieces times a factor",
        }
    }
}

/// Pieces that hostile members sent, by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Sent {
    fn add(&self, kind: Kind) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kind.name()).or_default() += 1;
    }

    pub(crate) fn take(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where hostile members work.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) metainfo: Arc<Metainfo>,
    /// Honest peers and the seed.
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) sent: Sent,
}

/// A hostile member. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Hostile {
    pub(crate) number: u64,
    task: JoinHandle<()>,
}

impl Hostile {
    /// Joins. `data`: for what it stores.
    pub(crate) fn join(
        number: u64,
        kind: Kind,
        scene: Scene,
        address: SocketAddr,
        data: PathBuf,
        random: Random,
    ) -> Self {
        let task = tokio::spawn(async move {
            let outcome = match kind {
                Kind::Polluter => polluter::run(scene, address, data, random).await,
                _ => run(kind, scene, address, random).await,
            };
            if let Err(error) = outcome {
                // The tracker is down as it would subscribe, most likely: there are others.
                eprintln!("a hostile member ({}) gave up: {error:#}", kind.name());
            }
        });
        Hostile { number, task }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Calls everybody again and again, and takes calls, until it is dropped.
async fn run(kind: Kind, scene: Scene, address: SocketAddr, mut random: Random) -> Result<()> {
    let subscribed = kind != Kind::Stranger;
    let member = Arc::new(Member::join(&scene.metainfo, address, subscribed, &mut random).await?);
    let listener = TcpListener::bind(address).await?;
    let mut sessions = JoinSet::new();
    let mut every = tokio::time::interval(Duration::from_secs(2));
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = every.tick() => {
                // A tracker that is down is tried again.
                let _ = member.announce().await;
                let target = *random.one(&scene.targets);
                match timeout(Duration::from_secs(2), connect(address, target)).await {
                    Ok(Ok(stream)) => stream,
                    _ => continue,
                }
            }
        };
        while sessions.try_join_next().is_some() {}
        if sessions.len() < 16 {
            let (member, sent, random) = (member.clone(), scene.sent.clone(), random.fork());
            let lifetime = Duration::from_secs(random_seconds(kind));
            sessions.spawn(timeout(lifetime, session::run(member, kind, stream, random, sent)));
        }
    }
}

/// Connects from the address that is listened on, as honest peers do.
async fn connect(from: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from.ip(), 0).into())?;
    socket.connect(to).await
}

/// How long one connection is kept up.
fn random_seconds(kind: Kind) -> u64 {
    match kind {
        Kind::Flood | Kind::HitAndRun | Kind::Stranger => 10,
        _ => 45,
    }
}
