//! Between a player and the program that fetches into the same directory: see [`crate::wire::channel`].

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Exit, Failure, TorrentDir};
use crate::atomic_file::{self, Access, Existing};
use crate::peer::Torrent;
use crate::wire::channel::{Endpoint, MAX_FILE, MAX_LINE, MAX_PIECES, Notice, Request, Token};

/// Players at a time.
const MAX_PLAYERS: usize = 8;
/// The token must come within this time.
const HELLO: Duration = Duration::from_secs(5);

/// The end of who fetches. Dropped, it listens no more.
#[derive(Debug)]
pub(super) struct Channel {
    path: PathBuf,
    text: String,
    listening: JoinHandle<()>,
}

impl Channel {
    /// Listens on loopback and says where in the torrent's directory, whose store the caller has for itself.
    pub(super) async fn open(dir: &TorrentDir, torrent: Torrent) -> Result<Self, Failure> {
        let failed =
            |error: io::Error| Failure::new(Exit::Failed, format!("no channel for players: {error}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let mut token = [0; 32];
        getrandom::fill(&mut token).map_err(|error| failed(io::Error::other(error)))?;
        let endpoint = Endpoint { address: listener.local_addr().map_err(failed)?, token: Token(token) };
        let path = dir.channel();
        let text = endpoint.to_text();
        atomic_file::write(&path, text.as_bytes(), Access::Private, Existing::Replace)
            .map_err(|error| Failure::file(&path, &error))?;
        let listening = tokio::spawn(listen(listener, endpoint.token, torrent));
        Ok(Channel { path, text, listening })
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.listening.abort();
        // A player that finds the file would look for somebody who is not there. It may be the next one's by now.
        if std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.text) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What all players wait for, by their connections.
type Wishes = Arc<Mutex<BTreeMap<u64, Vec<u32>>>>;

async fn listen(listener: TcpListener, token: Token, torrent: Torrent) {
    let (places, wishes) = (Arc::new(Semaphore::new(MAX_PLAYERS)), Wishes::default());
    // Ends with this one.
    let mut players = tokio::task::JoinSet::new();
    for number in 0.. {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (torrent, wishes) = (torrent.clone(), wishes.clone());
        while players.try_join_next().is_some() {}
        players.spawn(async move {
            let _place = place;
            if let Err(error) = serve(stream, &token, number, &torrent, &wishes).await {
                tracing::debug!(%error, "a player's channel ended");
            }
            torrent.prioritize(change(&wishes, number, None)).await;
        });
    }
}

/// Changes what one player waits for; what all wait for then, the newest first.
fn change(wishes: &Wishes, number: u64, pieces: Option<Vec<u32>>) -> Vec<u32> {
    let mut wishes = wishes.lock().unwrap_or_else(PoisonError::into_inner);
    wishes.remove(&number);
    wishes.extend(pieces.map(|pieces| (number, pieces)));
    wishes.values().rev().flatten().copied().take(MAX_PIECES).collect()
}

async fn serve(
    stream: TcpStream,
    token: &Token,
    number: u64,
    torrent: &Torrent,
    wishes: &Wishes,
) -> io::Result<()> {
    let (mut lines, mut out) = split(stream);
    let hello = timeout(HELLO, line(&mut lines)).await??;
    match hello.as_deref().map(Request::from_line) {
        Some(Ok(Request::Hello { token: given })) if given.is(token) => {}
        Some(Err(error)) => return Err(io::Error::other(error)),
        _ => return Err(io::ErrorKind::PermissionDenied.into()),
    }
    // Lines come whole through the queue, so that waiting for something else loses none.
    let (sender, mut requests) = mpsc::channel(4);
    let reading = async move {
        while let Some(line) = line(&mut lines).await? {
            let request = Request::from_line(&line).map_err(io::Error::other)?;
            if sender.send(request).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let mut stored = torrent.stored();
    let answering = async {
        loop {
            let count = *stored.borrow_and_update();
            out.write_all(Notice::Stored(count).to_line().as_bytes()).await?;
            loop {
                tokio::select! {
                    changed = stored.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return Ok(()),
                    },
                    request = requests.recv() => match request {
                        Some(Request::Urgent(pieces)) => {
                            torrent.prioritize(change(wishes, number, Some(pieces))).await;
                        }
                        Some(Request::Refetch { piece, hash }) => torrent.refetch(piece, hash).await,
                        Some(Request::Hello { .. }) | None => return Ok(()),
                    },
                }
            }
        }
    };
    tokio::select! {
        read = reading => read,
        answered = answering => answered,
    }
}

fn split(stream: TcpStream) -> (BufReader<OwnedReadHalf>, OwnedWriteHalf) {
    let _ = stream.set_nodelay(true);
    let (read, write) = stream.into_split();
    (BufReader::new(read), write)
}

/// The next line without its end; `None` where there is no more. Errors: also a line that is too long.
async fn line(lines: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let read = lines.fill_buf().await?;
        if read.is_empty() {
            return Ok(None);
        }
        let end = read.iter().position(|&byte| byte == b'\n');
        let part = &read[..end.unwrap_or(read.len())];
        if line.len() + part.len() > MAX_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        line.extend_from_slice(part);
        let taken = part.len() + usize::from(end.is_some());
        lines.consume(taken);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

/// The player's end: calls who fetches, and gives both directions, to be used at once; `None` where nobody fetches. Errors: of whom there
/// is, and does not answer.
pub(super) async fn call(path: &Path) -> io::Result<Option<(Notices, OwnedWriteHalf)>> {
    let text = match std::fs::metadata(path) {
        Ok(file) if file.len() > MAX_FILE as u64 => return Err(io::ErrorKind::InvalidData.into()),
        Ok(_) => std::fs::read_to_string(path),
        Err(error) => Err(error),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let endpoint = Endpoint::from_text(&text).map_err(io::Error::other)?;
    let stream = match timeout(HELLO, TcpStream::connect(endpoint.address)).await? {
        Ok(stream) => stream,
        // It was killed, and could not take the file away.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(error),
    };
    let (lines, mut out) = split(stream);
    let mut notices = Notices(lines);
    out.write_all(Request::Hello { token: endpoint.token }.to_line().as_bytes()).await?;
    // Somebody else may have the port now: it does not know what to answer, and hangs up.
    Ok(timeout(HELLO, notices.next()).await?.map(|_| (notices, out)))
}

/// What is heard.
pub(super) struct Notices(BufReader<OwnedReadHalf>);

impl Notices {
    /// The next notice; `None` at the end, or where it is none. To be polled to its end: half a line would be lost.
    pub(super) async fn next(&mut self) -> Option<Notice> {
        let line = line(&mut self.0).await.ok()??;
        Notice::from_line(&line).ok()
    }
}
