//! Where a player's pieces come from: the store, into which a running `get` fetches what is read next or, where none runs, a
//! node of the player's own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cli::channel::{Channel, Notices, call};
use crate::cli::glue::{self, NodeArgs};
use crate::cli::subscription::Subscription;
use crate::cli::{Exit, Failure, Output, get};
use crate::peer::{Node, StoreError, StoreReader};
use crate::player::PieceReader;
use crate::player::serve::{BoxFuture, Supply};
use crate::wire::channel::{MAX_PIECES, Notice, Request};

/// Between two tries to reach somebody who fetches.
const RETRY: Duration = Duration::from_millis(500);
/// A piece that does not come while others do is waited for this many times as long.
const OTHERS_COME: u32 = 4;

/// Pieces that nobody fetches: what is missing stays missing.
pub(super) struct Still<R>(pub(super) R);

impl<R: PieceReader> PieceReader for Still<R> {
    fn read_piece(&self, index: u32, piece: &mut [u8]) -> io::Result<Option<u64>> {
        self.0.read_piece(index, piece)
    }
}

impl<R: PieceReader + Send + 'static> Supply for Still<R> {
    fn want(&self, _: &[u32]) {}

    /// What is not there is found missing when it is read.
    fn available(&self, _: u32) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn refetch(&self, _: u32) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(Err("nobody fetches into this file".to_owned())))
    }
}

/// How the fetching goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// Changes with each piece that is stored.
    stored: u64,
    /// Why nothing comes, if that is known.
    trouble: Option<String>,
}

/// A subscription's store, while somebody fetches into it.
pub(super) struct Fetched {
    reader: Arc<StoreReader>,
    wanted: watch::Sender<Vec<u32>>,
    bad: mpsc::Sender<(u32, [u8; 32])>,
    progress: watch::Receiver<Progress>,
    patience: Duration,
    output: Output,
}

/// The task that looks after the fetching. Dropped, it ends without a last word to peers.
pub(super) struct Fetching {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Fetching {
    /// Ends it in order, within a second.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        let _ = self.task.await;
    }
}

impl Fetched {
    /// Reads beside whoever fetches. Nothing is fetched before something is missing. `patience`: how long a piece is waited for
    /// while none comes.
    pub(super) fn start(
        subscription: Arc<Subscription>,
        node: NodeArgs,
        patience: Duration,
        output: Output,
    ) -> Result<(Arc<Self>, Fetching), Failure> {
        let reader = Arc::new(glue::open_store(&subscription)?);
        let wanted = watch::Sender::new(Vec::new());
        let (bad, bad_asked) = mpsc::channel(16);
        let (progress, progress_seen) = watch::channel(Progress::default());
        let (stop, stopped) = watch::channel(false);
        let fetcher = Fetcher {
            subscription,
            reader: reader.clone(),
            node,
            wanted: wanted.subscribe(),
            bad: bad_asked,
            progress,
            stopped,
        };
        let task = tokio::spawn(fetcher.run());
        let fetching = Fetching { stop, task };
        let progress = progress_seen;
        let fetched = Fetched { reader, wanted, bad, progress, patience, output };
        Ok((Arc::new(fetched), fetching))
    }

    /// Waits until the store is as `right` finds it, as long as there is hope.
    async fn until(
        &self,
        right: impl Fn(&StoreReader) -> Result<bool, StoreError> + Clone + Send + 'static,
    ) -> Result<(), String> {
        let mut progress = self.progress.clone();
        let begun = Instant::now();
        let (mut deadline, last) = (begun + self.patience, begun + OTHERS_COME * self.patience);
        let mut stored = progress.borrow_and_update().stored;
        loop {
            let (reader, right) = (self.reader.clone(), right.clone());
            // On a thread where that may take its time.
            let look = move || reader.refresh().and_then(|()| right(&reader));
            let looked = tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())?;
            if looked.map_err(|error| error.to_string())? {
                return Ok(());
            }
            tokio::select! {
                changed = progress.changed() => {
                    if changed.is_err() {
                        return Err("the player stops".to_owned());
                    }
                    let now = progress.borrow_and_update().stored;
                    if now != stored {
                        (stored, deadline) = (now, (Instant::now() + self.patience).min(last));
                    }
                }
                () = sleep_until(deadline) => {
                    let trouble = progress.borrow().trouble.clone();
                    let why = trouble.unwrap_or_else(|| "no peer sends it".to_owned());
                    return Err(format!("{why} (waited {} s)", begun.elapsed().as_secs()));
                }
            }
        }
    }
}

impl PieceReader for Fetched {
    fn read_piece(&self, index: u32, piece: &mut [u8]) -> io::Result<Option<u64>> {
        self.reader.read_piece(index, piece)
    }
}

/// The store as a player reads it that writes files: a piece that was never stored stays missing, and one that is corrupt, or was
/// discarded as such, is fetched again.
pub(super) struct Mended {
    fetched: Arc<Fetched>,
    runtime: Handle,
}

impl Mended {
    /// Within a runtime, whose threads then look after the fetching.
    pub(super) fn new(fetched: Arc<Fetched>) -> Self {
        Mended { fetched, runtime: Handle::current() }
    }
}

impl PieceReader for Mended {
    fn read_piece(&self, index: u32, piece: &mut [u8]) -> io::Result<Option<u64>> {
        let found = self.fetched.read_piece(index, piece)?;
        // The fetching process discards damaged pieces when it opens the store: perhaps before they are read here.
        let discarded = || self.fetched.reader.records(index).is_ok_and(|records| records > 0);
        if found.is_none() && discarded() && self.runtime.block_on(self.fetched.available(index)).is_ok() {
            return self.fetched.read_piece(index, piece);
        }
        Ok(found)
    }

    fn replaced(&self, index: u32) -> bool {
        match self.runtime.block_on(self.fetched.refetch(index)) {
            Ok(()) => true,
            Err(why) => {
                tracing::warn!(piece = index, %why, "a corrupt piece is not fetched again");
                false
            }
        }
    }
}

impl Supply for Fetched {
    fn want(&self, pieces: &[u32]) {
        let pieces = &pieces[..pieces.len().min(MAX_PIECES)];
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted != pieces;
            *wanted = pieces.to_vec();
            changed
        });
    }

    fn available(&self, index: u32) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            if self.reader.piece(index).is_some() {
                return Ok(());
            }
            // It may be wanted by nobody yet.
            self.wanted.send_if_modified(|wanted| {
                let fresh = !wanted.contains(&index);
                if fresh {
                    wanted.insert(0, index);
                    wanted.truncate(MAX_PIECES);
                }
                fresh
            });
            self.until(move |store| Ok(store.piece(index).is_some())).await
        })
    }

    fn refetch(&self, index: u32) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let Some(stored) = self.reader.piece(index) else { return Ok(()) };
            let before = self.reader.records(index).map_err(|error| error.to_string())?;
            self.output.note(format!("Piece {index} is corrupt: it is fetched again"));
            self.bad.send((index, stored.hash)).await.map_err(|_| "the player stops".to_owned())?;
            let replaced =
                move |store: &StoreReader| Ok(store.piece(index).is_some() && store.records(index)? > before);
            self.until(replaced).await
        })
    }
}

/// Sees to it that somebody fetches, from when something is missing.
struct Fetcher {
    subscription: Arc<Subscription>,
    reader: Arc<StoreReader>,
    node: NodeArgs,
    wanted: watch::Receiver<Vec<u32>>,
    bad: mpsc::Receiver<(u32, [u8; 32])>,
    progress: watch::Sender<Progress>,
    stopped: watch::Receiver<bool>,
}

/// Why a way of fetching came to its end.
enum Ended {
    /// The player stops.
    Stopped,
    /// There may be another way.
    Lost(String),
}

async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|&stop| stop).await);
}

impl Fetcher {
    async fn run(mut self) {
        let mut asked = None;
        loop {
            if asked.is_none() {
                match self.needed().await {
                    Some(first) => asked = first,
                    None => return,
                }
            }
            let ended = match call(&self.subscription.dir.channel()).await {
                Ok(Some(getter)) => self.ask(getter, &mut asked).await,
                Ok(None) => self.fetch(&mut asked).await,
                Err(error) => Ended::Lost(format!("who fetches does not answer: {error}")),
            };
            match ended {
                Ended::Stopped => return,
                Ended::Lost(why) => self.trouble(Some(why)),
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                () = told(&mut self.stopped) => return,
            }
        }
    }

    /// Waits until something is missing or bad: until then, nobody need fetch. The bad piece, if it is one; `None` at the end.
    async fn needed(&mut self) -> Option<Option<(u32, [u8; 32])>> {
        loop {
            let missing =
                self.wanted.borrow_and_update().iter().any(|&piece| self.reader.piece(piece).is_none());
            if missing {
                return Some(None);
            }
            tokio::select! {
                changed = self.wanted.changed() => changed.ok()?,
                bad = self.bad.recv() => return bad.map(Some),
                () = told(&mut self.stopped) => return None,
            }
        }
    }

    fn trouble(&self, why: Option<String>) {
        self.progress.send_if_modified(|progress| {
            let changed = progress.trouble != why;
            progress.trouble = why;
            changed
        });
    }

    /// What is still to be fetched of what is read next.
    fn missing(&mut self) -> Vec<u32> {
        let wanted = self.wanted.borrow_and_update();
        wanted.iter().copied().filter(|&piece| self.reader.piece(piece).is_none()).collect()
    }

    /// Somebody else fetches.
    async fn ask(
        &mut self,
        (mut notices, mut out): (Notices, OwnedWriteHalf),
        bad: &mut Option<(u32, [u8; 32])>,
    ) -> Ended {
        const LOST: &str = "`swarmseal get` has ended";
        let (sender, mut heard) = mpsc::channel(4);
        let reading = tokio::spawn(async move {
            while let Some(notice) = notices.next().await {
                if sender.send(notice).await.is_err() {
                    break;
                }
            }
        });
        self.trouble(None);
        // What was stored before we came is news as well.
        self.progress.send_modify(|progress| progress.stored += 1);
        let mut says = vec![Request::Urgent(self.missing())];
        says.extend(bad.take().map(|(piece, hash)| Request::Refetch { piece, hash }));
        let ended = loop {
            for request in says.drain(..) {
                if out.write_all(request.to_line().as_bytes()).await.is_err() {
                    reading.abort();
                    return Ended::Lost(LOST.to_owned());
                }
            }
            tokio::select! {
                notice = heard.recv() => match notice {
                    Some(Notice::Stored(_)) => self.progress.send_modify(|progress| progress.stored += 1),
                    None => break Ended::Lost(LOST.to_owned()),
                },
                changed = self.wanted.changed() => match changed {
                    Ok(()) => says.push(Request::Urgent(self.missing())),
                    Err(_) => break Ended::Stopped,
                },
                asked = self.bad.recv() => match asked {
                    Some((piece, hash)) => says.push(Request::Refetch { piece, hash }),
                    None => break Ended::Stopped,
                },
                () = told(&mut self.stopped) => break Ended::Stopped,
            }
        };
        reading.abort();
        ended
    }

    /// Nobody fetches: it is done here, and the rest comes as well.
    async fn fetch(&mut self, bad: &mut Option<(u32, [u8; 32])>) -> Ended {
        let store = match glue::open_own_store(&self.subscription).await {
            Ok(store) => store,
            Err(failure) if failure.exit == Exit::InUse => {
                return Ended::Lost("another process fetches, and does not listen to players".to_owned());
            }
            Err(failure) => return Ended::Lost(failure.message),
        };
        let node = match Node::bind(self.node.config()).await {
            Ok(node) => node,
            Err(error) => return Ended::Lost(glue::listen_failure(self.node.listen, &error).message),
        };
        let config = match get::torrent_config(&self.subscription, store, node.local_addr().ip()) {
            Ok(config) => config,
            Err(failure) => return Ended::Lost(failure.message),
        };
        let torrent = match node.add_torrent(config) {
            Ok(torrent) => torrent,
            Err(error) => return Ended::Lost(error.to_string()),
        };
        // Further players of this device are heard as `get` would hear them.
        let _channel = Channel::open(&self.subscription.dir, torrent.clone()).await;
        self.trouble(None);
        torrent.prioritize(self.missing()).await;
        if let Some((piece, hash)) = bad.take() {
            torrent.refetch(piece, hash).await;
        }
        let (mut stored, mut stats) = (torrent.stored(), torrent.stats());
        let ended = loop {
            tokio::select! {
                changed = stored.changed() => match changed {
                    Ok(()) => self.progress.send_modify(|progress| progress.stored += 1),
                    Err(_) => break Ended::Lost("the peer ended".to_owned()),
                },
                changed = stats.changed() => if changed.is_ok() {
                    let stats = stats.borrow_and_update().clone();
                    let lonely = (stats.connections == 0).then_some(stats.announce_error).flatten();
                    self.trouble(stats.failure.or(lonely));
                },
                changed = self.wanted.changed() => match changed {
                    Ok(()) => torrent.prioritize(self.missing()).await,
                    Err(_) => break Ended::Stopped,
                },
                asked = self.bad.recv() => match asked {
                    Some((piece, hash)) => torrent.refetch(piece, hash).await,
                    None => break Ended::Stopped,
                },
                () = told(&mut self.stopped) => break Ended::Stopped,
            }
        };
        node.shutdown_now().await;
        ended
    }
}
