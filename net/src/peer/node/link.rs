//! One connection's two tasks: a reader that decodes, a writer with a bounded queue.

mod batch;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use self::batch::Batch;
use super::Shared;
use super::opening::Stream;
use super::place::Place;
use super::torrent::Input;
use crate::peer::buffers::ReadBuffers;
use crate::peer::state::{ConnectionId, Event};
use crate::peer::tracker::Personal;
use crate::wire::handshake::Handshake;
use crate::wire::message::{Decoder, Message};
use crate::wire::mse::Cipher;

/// Messages that wait for the socket; blocks among them are bounded by the state machine.
const QUEUE: usize = 4096;
/// A write that makes no progress for this long ends the connection.
const STALLED: Duration = Duration::from_secs(60);
/// How long we listen to a peer after our last word, so that it can read that word.
const LINGER: Duration = Duration::from_secs(2);

/// A connection whose handshake is done.
#[derive(Debug)]
pub(crate) struct NewConnection {
    pub(super) stream: Stream,
    pub(super) addr: SocketAddr,
    pub(super) handshake: Handshake,
    pub(super) outgoing: bool,
    pub(super) personal: Option<Personal>,
    pub(super) place: Place,
}

/// A running connection. Dropping it lets the queue drain and then closes.
#[derive(Debug)]
pub(super) struct Link {
    queue: mpsc::Sender<Message>,
    reader: AbortHandle,
    writer: AbortHandle,
    pub(super) addr: SocketAddr,
    pub(super) outgoing: bool,
}

impl Link {
    pub(super) fn start(
        id: ConnectionId,
        new: NewConnection,
        decoder: Decoder,
        shared: Arc<Shared>,
        events: mpsc::Sender<Input>,
    ) -> Self {
        let Stream { tcp, received, ciphers } = new.stream;
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let (read, write) = tcp.into_split();
        let (incoming, outgoing) = ciphers.map(|ciphers| (ciphers.incoming, ciphers.outgoing)).unzip();
        let read = Incoming { stream: read, received, cipher: incoming };
        let write = Outgoing { stream: write, cipher: outgoing };
        let (queue, queued) = mpsc::channel(QUEUE);
        let reader = tokio::spawn(read_messages(id, read, decoder, shared.clone(), events.clone()));
        let reader_abort = reader.abort_handle();
        let writer = tokio::spawn(write_messages(id, write, queued, reader, new.place, shared, events));
        Link {
            queue,
            reader: reader_abort,
            writer: writer.abort_handle(),
            addr: new.addr,
            outgoing: new.outgoing,
        }
    }

    /// Queues a message. Whether there was room.
    pub(super) fn send(&self, message: Message) -> bool {
        self.queue.try_send(message).is_ok()
    }

    /// Closes at once, unheard.
    pub(super) fn cut(self) {
        self.reader.abort();
        self.writer.abort();
    }
}

/// What they send, and what of it has been read.
struct Incoming {
    stream: OwnedReadHalf,
    received: BytesMut,
    cipher: Option<Cipher>,
}

/// What we send.
struct Outgoing {
    stream: OwnedWriteHalf,
    cipher: Option<Cipher>,
}

async fn read_messages(
    id: ConnectionId,
    Incoming { stream, received: mut bytes, mut cipher }: Incoming,
    decoder: Decoder,
    shared: Arc<Shared>,
    events: mpsc::Sender<Input>,
) {
    'reading: loop {
        let mut messages = Vec::new();
        loop {
            match decoder.decode(&mut bytes) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(id, %error, "connection closed");
                    break 'reading;
                }
            }
        }
        if !messages.is_empty() && events.send(Input::Messages { id, messages }).await.is_err() {
            return;
        }
        if bytes.is_empty() {
            shared.reads.put_back(std::mem::take(&mut bytes));
        }
        let start = bytes.len();
        let read = match read_some(&stream, &mut bytes, &shared.reads).await {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(id, %error, "connection lost");
                break;
            }
        };
        if let Some(cipher) = &mut cipher {
            cipher.apply(&mut bytes[start..]);
        }
        shared.download.take(read).await;
    }
    let _ = events.send(Input::Event(Event::Disconnected { id })).await;
}

/// Waits until something comes and appends it to `bytes`; how much. 0: nothing will come any more.
async fn read_some(stream: &OwnedReadHalf, bytes: &mut BytesMut, reads: &ReadBuffers) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        reads.make_room(bytes);
        match stream.try_read_buf(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if bytes.is_empty() {
                    reads.put_back(std::mem::take(bytes));
                }
            }
            read => return read,
        }
    }
}

async fn write_messages(
    id: ConnectionId,
    Outgoing { mut stream, mut cipher }: Outgoing,
    mut queue: mpsc::Receiver<Message>,
    mut reader: JoinHandle<()>,
    _place: Place,
    shared: Arc<Shared>,
    events: mpsc::Sender<Input>,
) {
    let mut batch = Batch::new(cipher.is_some());
    let mut next = queue.recv().await;
    while let Some(message) = next {
        let mut blocks = message.block_bytes();
        batch.push(&message);
        while batch.has_room() {
            let Ok(message) = queue.try_recv() else { break };
            blocks += message.block_bytes();
            batch.push(&message);
        }
        batch.close(cipher.as_mut());
        shared.upload.take(blocks).await;
        let written = timeout(STALLED, stream.write_all_buf(&mut batch)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::debug!(id, "connection lost while writing");
            reader.abort();
            let _ = events.send(Input::Event(Event::Disconnected { id })).await;
            return;
        }
        if blocks > 0 && events.send(Input::Event(Event::Sent { id, bytes: blocks })).await.is_err() {
            break;
        }
        next = queue.recv().await;
    }
    let _ = stream.shutdown().await;
    if timeout(LINGER, &mut reader).await.is_err() {
        reader.abort();
    }
}
