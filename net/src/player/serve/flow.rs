//! Plaintext on its way to a reader: pieces fetched, opened a few ahead, and handed on as it takes them.

use std::collections::VecDeque;
use std::num::NonZero;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::Supply;
use crate::date;
use crate::player::{Error, Plaintext, Session};

/// Bytes ahead of a reader that are fetched before others, four pieces at least.
const WINDOW: usize = 8 << 20;
/// Bytes of opened pieces that are kept for who reads them in small parts, four pieces at least.
const KEPT: usize = 8 << 20;
/// Pieces opened ahead of each reader.
const AHEAD: usize = 2;
/// How often a piece is opened that turns out to be missing or bad, and is fetched again.
const TRIES: u32 = 4;

/// The pieces of one play, opened as they are asked for.
pub(super) struct Opened {
    session: Session,
    supply: Arc<dyn Supply>,
    /// The last ones. Whoever asks for one that is being opened waits for it.
    kept: Mutex<VecDeque<(u32, Slot)>>,
    most: usize,
    window: usize,
    cores: Arc<Semaphore>,
    wishes: Mutex<Wishes>,
    end: End,
}

type Slot = Arc<OnceCell<Arc<Plaintext>>>;

impl Opened {
    pub(super) fn new(session: Session, supply: Arc<dyn Supply>) -> Arc<Self> {
        let piece_length = session.player().metainfo().info.piece_length as usize;
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Arc::new(Opened {
            kept: Mutex::default(),
            most: (KEPT / piece_length).max(4),
            window: (WINDOW / piece_length).max(4),
            cores: Arc::new(Semaphore::new(cores)),
            wishes: Mutex::default(),
            end: End::new(session.player().policy().expires, session.begun()),
            session,
            supply,
        })
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    async fn piece(self: &Arc<Self>, index: u32) -> Result<Arc<Plaintext>, Error> {
        let slot = self.slot(index);
        slot.get_or_try_init(|| self.open(index)).await.cloned()
    }

    fn slot(&self, index: u32) -> Slot {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(at, _)| *at == index);
        let slot = place.and_then(|place| kept.remove(place)).map_or_else(Slot::default, |(_, slot)| slot);
        kept.push_back((index, slot.clone()));
        if kept.len() > self.most {
            kept.pop_front();
        }
        slot
    }

    async fn open(self: &Arc<Self>, index: u32) -> Result<Arc<Plaintext>, Error> {
        let mut tries = 0;
        loop {
            let waited = self.supply.available(index).await;
            waited.map_err(|why| Error::NotFetched { index, why })?;
            let error = match self.open_stored(index).await {
                Ok(piece) => return Ok(Arc::new(piece)),
                Err(error) => error,
            };
            tries += 1;
            match &error {
                _ if tries == TRIES => return Err(error),
                Error::CorruptPiece { .. } => {
                    if let Err(why) = self.supply.refetch(index).await {
                        tracing::warn!(piece = index, %why, "a corrupt piece is not fetched again");
                        return Err(error);
                    }
                }
                // It was discarded since.
                Error::MissingPiece { .. } => {}
                _ => return Err(error),
            }
        }
    }

    async fn open_stored(self: &Arc<Self>, index: u32) -> Result<Plaintext, Error> {
        let stopped = |error: String| Error::PieceIo { index, error: std::io::Error::other(error) };
        let core = self.cores.clone().acquire_owned().await.map_err(|error| stopped(error.to_string()))?;
        let this = self.clone();
        let open = move || {
            let _core = core;
            this.session.player().open_piece(&*this.supply, index)
        };
        tokio::task::spawn_blocking(open).await.map_err(|error| stopped(error.to_string()))?
    }

    /// The next pieces that a range of the stream lies in.
    fn upcoming(&self, mut range: Range<u64>) -> Vec<u32> {
        let mut pieces = Vec::with_capacity(self.window);
        while pieces.len() < self.window && !range.is_empty() {
            let (index, part) = self.session.first_run(&range);
            range.start += part.len().max(1) as u64;
            // Runs of sealed and clear bytes take turns.
            if !pieces.contains(&index) {
                pieces.push(index);
            }
        }
        pieces
    }

    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What readers will ask for next.
#[derive(Default)]
struct Wishes {
    next: u64,
    /// The newest last.
    readers: Vec<(u64, Vec<u32>)>,
    /// Those of the reader that went last: a player comes back where it left off.
    left: Vec<u32>,
}

impl Wishes {
    /// In turns, the newest reader first: it is where the user is.
    fn merged(&self) -> Vec<u32> {
        let lists: Vec<&[u32]> = self.readers.iter().rev().map(|(_, pieces)| &pieces[..]).collect();
        let longest = lists.iter().map(|list| list.len()).max().unwrap_or(0);
        let mut merged = Vec::new();
        let turns = (0..longest).flat_map(|turn| lists.iter().filter_map(move |list| list.get(turn)));
        for &piece in turns.chain(&self.left) {
            if !merged.contains(&piece) {
                merged.push(piece);
            }
        }
        merged
    }
}

/// One reader's wishes; they end with it.
struct Wish {
    opened: Arc<Opened>,
    number: u64,
}

impl Wish {
    fn new(opened: Arc<Opened>) -> Self {
        let number = {
            let mut wishes = opened.wishes();
            wishes.next += 1;
            let number = wishes.next;
            wishes.readers.push((number, Vec::new()));
            number
        };
        Wish { opened, number }
    }

    fn set(&self, pieces: Vec<u32>) {
        self.change(|wishes| {
            if let Some((_, of)) = wishes.readers.iter_mut().find(|(number, _)| *number == self.number) {
                *of = pieces;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Wishes)) {
        let mut wishes = self.opened.wishes();
        let before = wishes.merged();
        change(&mut wishes);
        let after = wishes.merged();
        if before != after {
            self.opened.supply.want(&after);
        }
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.change(|wishes| {
            if let Some(place) = wishes.readers.iter().position(|(number, _)| *number == self.number) {
                wishes.left = wishes.readers.remove(place).1;
            }
        });
    }
}

/// The license's end, which comes although the clock is behind, or set back meanwhile.
struct End {
    expires: Option<u64>,
    begun: (Instant, u64),
}

impl End {
    fn new(expires: Option<u64>, begun: u64) -> Self {
        End { expires, begun: (Instant::now(), begun) }
    }

    fn check(&self) -> Result<(), Error> {
        let now = date::now().max(self.begun.1.saturating_add(self.begun.0.elapsed().as_secs()));
        match self.expires.filter(|&since| now >= since) {
            Some(since) => Err(Error::Expired { since }),
            None => Ok(()),
        }
    }
}

/// A task that ends with whoever waits for it.
struct Job<T>(JoinHandle<T>);

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A response's body.
pub(super) struct Flow {
    first: Option<Bytes>,
    rest: mpsc::Receiver<Result<Bytes, Error>>,
    /// Bytes to come.
    left: u64,
    _pump: Job<()>,
}

impl Flow {
    /// A range of the stream, once its first bytes are there. Errors: those of the first piece.
    pub(super) async fn begin(opened: Arc<Opened>, range: Range<u64>) -> Result<Self, Error> {
        let left = range.end - range.start;
        let (sender, mut rest) = mpsc::channel(1);
        let pump = Job(tokio::spawn(pump(opened, range, sender)));
        let first = match rest.recv().await {
            Some(first) => first?,
            None => Bytes::new(),
        };
        Ok(Flow { first: Some(first), rest, left, _pump: pump })
    }
}

/// Sends a range piece by piece, as the reader takes it, and an error as the last.
async fn pump(opened: Arc<Opened>, range: Range<u64>, sender: mpsc::Sender<Result<Bytes, Error>>) {
    let wish = Wish::new(opened.clone());
    let (mut read, mut next) = (range.start, range.start);
    let mut ahead = VecDeque::with_capacity(AHEAD + 1);
    loop {
        wish.set(opened.upcoming(read..range.end));
        while ahead.len() <= AHEAD && next < range.end {
            let (index, part) = opened.session.first_run(&(next..range.end));
            next += part.len() as u64;
            let opened = opened.clone();
            ahead.push_back((part, Job(tokio::spawn(async move { opened.piece(index).await }))));
        }
        let Some((part, mut job)) = ahead.pop_front() else { return };
        let piece = match (&mut job.0).await {
            Ok(piece) => piece,
            // Somebody stops the runtime.
            Err(_) => return,
        };
        let part = piece.and_then(|piece| {
            opened.end.check()?;
            read += part.len() as u64;
            Ok(Bytes::from_owner(PiecePart { piece, part }))
        });
        let failed = part.is_err();
        if sender.send(part).await.is_err() || failed {
            return;
        }
    }
}

/// Some bytes of an opened piece, which is wiped once nobody needs any of it.
struct PiecePart {
    piece: Arc<Plaintext>,
    part: Range<usize>,
}

impl AsRef<[u8]> for PiecePart {
    fn as_ref(&self) -> &[u8] {
        self.piece.get(self.part.clone()).unwrap_or_default()
    }
}

impl Body for Flow {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let next = match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => self.rest.poll_recv(context),
        };
        next.map(|next| {
            let next = next?;
            match &next {
                Ok(bytes) => self.left = self.left.saturating_sub(bytes.len() as u64),
                Err(error) => tracing::warn!(%error, "a read ended early"),
            }
            Some(next.map(Frame::data))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_reader_comes_first_and_nobody_is_forgotten() {
        let mut wishes = Wishes { readers: vec![(1, vec![0, 1, 2]), (2, vec![9, 1])], ..Wishes::default() };
        assert_eq!(wishes.merged(), [9, 0, 1, 2]);
        wishes.left = vec![4, 9];
        assert_eq!(wishes.merged(), [9, 0, 1, 2, 4]);
    }

    #[test]
    fn a_clock_set_back_does_not_put_the_end_off() {
        let now = date::now();
        assert!(End::new(None, now).check().is_ok());
        assert!(End::new(Some(now + 100), now).check().is_ok());
        assert!(matches!(End::new(Some(now), now).check(), Err(Error::Expired { since }) if since == now));
        // It, or the tracker's, showed a later time when this began.
        assert!(End::new(Some(now + 100), now + 100).check().is_err());
    }
}
