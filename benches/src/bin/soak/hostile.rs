//! Hostile members: subscribed as everybody is, and up to no good. They speak the wire by themselves, but for those who lie about
//! what they store: these are honest peers whose stores are changed behind their backs.

mod liar;
mod member;
mod session;
mod silent;

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
    /// Sends group elements that are wrong.
    WrongElements,
    /// The same, under the original seed's name.
    Borrower,
    /// Promises everything and sends nothing.
    Stall,
    /// Sends some blocks of each piece and not the last.
    HalfStall,
    /// Forges tickets.
    Forger,
    /// Sends messages that are none.
    Malformed,
    /// Sends as many small messages as it can.
    Flood,
    /// Asks for everything, hangs up in the middle, and comes again.
    HitAndRun,
    /// The same, without a subscription.
    Stranger,
    /// Opens connections, from everywhere, and ends no handshake.
    Silent,
    /// Passes on most of what it fetched times a random factor.
    Polluter,
    /// Lies about a quarter of the pieces, as all others of its kind do.
    Colluder,
    /// Lies about less than a hundredth of the pieces.
    RareLiar,
}

impl Kind {
    /// With their weights.
    pub(crate) const ALL: [(u64, Kind); 14] = [
        (1, Kind::Garbage),
        (1, Kind::WrongElements),
        (2, Kind::Borrower),
        (1, Kind::Stall),
        (1, Kind::HalfStall),
        (1, Kind::Forger),
        (1, Kind::Malformed),
        (1, Kind::Flood),
        (1, Kind::HitAndRun),
        (1, Kind::Stranger),
        (1, Kind::Silent),
        (3, Kind::Polluter),
        (2, Kind::Colluder),
        (1, Kind::RareLiar),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Garbage => "garbage blocks",
            Kind::WrongElements => "wrong group elements",
            Kind::Borrower => "wrong group elements in the seed's name",
            Kind::Stall => "stalls",
            Kind::HalfStall => "stalls in the middle",
            Kind::Forger => "forged tickets",
            Kind::Malformed => "malformed messages",
            Kind::Flood => "floods",
            Kind::HitAndRun => "hits and runs",
            Kind::Stranger => "hits and runs, not subscribed",
            Kind::Silent => "silent connections",
            Kind::Polluter => "pieces times a factor",
            Kind::Colluder => "colluding liars",
            Kind::RareLiar => "liars below one in a hundred",
        }
    }

    /// What [`Sent`] counts of it.
    pub(crate) fn sends(self) -> &'static str {
        match self {
            Kind::Silent => "connections",
            Kind::Polluter | Kind::Colluder | Kind::RareLiar => "pieces changed",
            _ => "pieces sent",
        }
    }

    /// How many join together.
    pub(crate) fn together(self) -> usize {
        if self == Kind::Colluder { 2 } else { 1 }
    }
}

/// What hostile members sent or changed, by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent(Arc<Mutex<BTreeMap<String, u64>>>);

impl Sent {
    fn add(&self, kind: Kind) {
        let what = format!("{}: {}", kind.name(), kind.sends());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    pub(crate) fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where hostile members work.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) metainfo: Arc<Metainfo>,
    pub(crate) seed: SocketAddr,
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
                Kind::Polluter | Kind::Colluder | Kind::RareLiar => {
                    liar::run(kind, scene, address, data, random).await
                }
                Kind::Silent => silent::run(&scene, address, random).await,
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

/// Connects to everybody again and again, and accepts connections, until it is dropped.
async fn run(kind: Kind, scene: Scene, address: SocketAddr, mut random: Random) -> Result<()> {
    let subscribed = kind != Kind::Stranger;
    let member = Arc::new(Member::join(&scene.metainfo, address, subscribed, &mut random).await?);
    let mut face = member.face;
    let listener = TcpListener::bind(address).await?;
    let mut sessions = JoinSet::new();
    let mut every = tokio::time::interval(Duration::from_secs(2));
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = every.tick() => {
                // A tracker that is down is tried again.
                let _ = member.announce().await;
                if kind == Kind::Borrower {
                    let asked = async { session::face_of(&member, connect(address, scene.seed).await?).await };
                    if let Ok(Ok(seed)) = timeout(Duration::from_secs(2), asked).await {
                        face = seed;
                    }
                }
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
            let lifetime = Duration::from_secs(seconds(kind));
            sessions.spawn(timeout(lifetime, session::run(member, (kind, face), stream, random, sent)));
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
fn seconds(kind: Kind) -> u64 {
    match kind {
        Kind::Flood | Kind::HitAndRun | Kind::Stranger => 10,
        _ => 45,
    }
}
