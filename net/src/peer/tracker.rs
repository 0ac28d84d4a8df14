//! What a peer asks of a tracker. The program implements it over HTTP, tests over a master key of their own.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use swarmseal_core::SubscriberId;

use crate::wire::mse::TorrentName;

/// A future that a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a moment is worth an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnounceEvent {
    /// Nothing but time has passed.
    Interval,
    /// The first one.
    Started,
    /// The last piece has come.
    Completed,
    /// The last one.
    Stopped,
}

/// What an announce says.
#[derive(Clone, Copy, Debug)]
pub struct Announce {
    /// Which torrent.
    pub info_hash: [u8; 20],
    /// Who we are.
    pub peer_id: [u8; 20],
    /// The port that we listen on.
    pub port: u16,
    /// Bytes of pieces sent since the start.
    pub uploaded: u64,
    /// Bytes of pieces received since the start.
    pub downloaded: u64,
    /// Bytes still missing.
    pub left: u64,
    /// Why now.
    pub event: AnnounceEvent,
}

/// What comes back.
#[derive(Clone, Debug)]
pub struct AnnounceReply {
    /// Time to wait until the next announce.
    pub interval: Duration,
    /// Who else is there.
    pub peers: Vec<SocketAddr>,
    /// The epoch of our subscription, where the tracker says.
    pub epoch: Option<u64>,
}

/// Why there are no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The ticket is not the downloader's word: no honest mistake, and its connection ends.
    #[error("the ticket is not the downloader's word")]
    BadTicket,
    /// The ticket is refused: the downloader's fault, and its connection ends.
    #[error("the tracker refuses the ticket: {0}")]
    TicketRefused(String),
    /// The epoch of our own pieces is served no more: they are of no use to others.
    #[error("the tracker has retired the epoch of our pieces")]
    Retired,
    /// We are refused, or the tracker cannot be reached: asked again later.
    #[error("no keys from the tracker: {0}")]
    Unavailable(String),
}

/// Whose personal torrent an info-hash is: what a client that nobody modified names in its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Personal {
    /// The info-hash.
    pub info_hash: [u8; 20],
    /// The subscriber.
    pub subscriber: SubscriberId,
    /// The epoch of its keys.
    pub epoch: u64,
}

/// A client that nobody modified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrdinaryClient {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What it fetches, or has.
    pub personal: Personal,
    /// It has everything: we can transform what it has.
    pub complete: bool,
}

/// The tracker that a torrent names, with our session and passkey.
pub trait Tracker: Send + Sync + 'static {
    /// Announces. Errors are shown to the user: no passkey in them.
    fn announce<'a>(&'a self, announce: &'a Announce) -> BoxFuture<'a, Result<AnnounceReply, String>>;

    /// Re-keys from our ciphertext of `own_epoch` to the ticket's downloader: W bytes big-endian for each piece, in order.
    fn rekeys<'a>(
        &'a self,
        ticket: &'a [u8],
        own_epoch: u64,
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>>;

    /// Encryption keys for the ticket's downloader: what an original seed asks for. Shapes as [`Tracker::rekeys`].
    fn encryption_keys<'a>(
        &'a self,
        ticket: &'a [u8],
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>>;

    /// Our witness keys of these pieces in `epoch`: W bytes big-endian for each piece, in order.
    fn witness_keys<'a>(
        &'a self,
        epoch: u64,
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>>;

    /// Whose personal torrent it is, if anybody's.
    fn personal(&self, name: TorrentName) -> BoxFuture<'_, Result<Option<Personal>, KeyError>> {
        let _ = name;
        Box::pin(async { Ok(None) })
    }

    /// Keys to the subscriber of a personal torrent, from our ciphertext of `own_epoch` or, for an original seed, from
    /// plaintext. Shapes as [`Tracker::rekeys`].
    fn personal_keys<'a>(
        &'a self,
        info_hash: &'a [u8; 20],
        own_epoch: u64,
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        let _ = (info_hash, own_epoch, pieces);
        Box::pin(async { Err(KeyError::TicketRefused("there are no personal torrents here".to_owned())) })
    }

    /// Ordinary clients with personal torrents, and how long what was said holds.
    fn personal_clients(&self) -> BoxFuture<'_, Result<(Vec<OrdinaryClient>, Duration), String>> {
        Box::pin(async { Ok((Vec::new(), Duration::MAX)) })
    }

    /// Re-keys from the ciphertext of a personal torrent's subscriber to ours of `own_epoch`. Shapes as
    /// [`Tracker::rekeys`].
    fn pull_keys<'a>(
        &'a self,
        info_hash: &'a [u8; 20],
        own_epoch: u64,
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        let _ = (info_hash, own_epoch, pieces);
        Box::pin(async { Err(KeyError::Unavailable("there are no personal torrents here".to_owned())) })
    }

    /// The tracker's time as well as we know it, in seconds since 1970.
    fn now(&self) -> u64;
}
