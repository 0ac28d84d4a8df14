//! What a peer or seed asks of a tracker, over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use swarmseal_core::{Ticket, TorrentId};

use super::{base_url, client_failure};
use crate::cli::subscription::Subscription;
use crate::cli::{Exit, Failure};
use crate::peer::{Announce, AnnounceEvent, AnnounceReply, BoxFuture, KeyError, Tracker};
use crate::tracker_client::{Client, Error};
use crate::wire::announce;
use crate::wire::api::{ApiError, Keys, MAX_PIECES, Passkey};
use crate::wire::keyfile::SeedFile;
use crate::wire::metainfo::Metainfo;

/// A member's way to its tracker. The tracker gives re-keys to subscribers and encryption keys to seeds alone.
pub(crate) struct TrackerLink {
    client: Client,
    torrent: TorrentId,
    passkey: Passkey,
    width: usize,
}

impl TrackerLink {
    /// A subscriber's. Errors: [`Exit::Usage`] where the announce URL is none, or the keys were never registered.
    pub(crate) fn of_subscriber(subscription: &Subscription) -> Result<Self, Failure> {
        let client = super::client(subscription)?;
        Self::new(&subscription.metainfo, client, subscription.keys.passkey.as_deref())
    }

    /// An original seed's. Errors: as [`TrackerLink::of_subscriber`].
    pub(crate) fn of_seed(metainfo: &Metainfo, seed: &SeedFile) -> Result<Self, Failure> {
        let client = Client::new(base_url(&metainfo.announce)?).map_err(client_failure)?;
        let client = client.as_seed(&seed.torrent_id, seed.signing_key.clone());
        Self::new(metainfo, client, seed.passkey.as_deref())
    }

    fn new(metainfo: &Metainfo, client: Client, passkey: Option<&str>) -> Result<Self, Failure> {
        let passkey = passkey.and_then(Passkey::from_hex).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                "there is no passkey: expected keys that were registered with the tracker",
            )
        })?;
        let seal = &metainfo.info.seal;
        let width = seal.params.group().bytes();
        Ok(TrackerLink { client, torrent: seal.torrent_id, passkey, width })
    }

    async fn announce(&self, announce: &Announce) -> Result<AnnounceReply, String> {
        let reply = self.client.announce(&self.passkey, &on_the_wire(announce)).await;
        Ok(from_the_wire(&reply.map_err(|error| error.to_string())?))
    }

    /// Keys for any number of pieces, [`MAX_PIECES`] a call.
    async fn keys<'a, F: Future<Output = Result<Keys, Error>>>(
        &'a self,
        ticket: &[u8],
        pieces: &'a [u32],
        call: impl Fn(Ticket, &'a [u32]) -> F,
    ) -> Result<Vec<Vec<u8>>, KeyError> {
        let ticket =
            Ticket::from_bytes(ticket).map_err(|error| KeyError::TicketRefused(error.to_string()))?;
        let mut all = Vec::with_capacity(pieces.len());
        for batch in pieces.chunks(MAX_PIECES) {
            let answer = call(ticket.clone(), batch).await.map_err(refusal)?;
            let keys = &answer.keys;
            if keys.len() != batch.len() * self.width {
                return Err(KeyError::Unavailable("the tracker's answer has another number of keys".into()));
            }
            all.extend(keys.chunks_exact(self.width).map(<[u8]>::to_vec));
        }
        Ok(all)
    }
}

/// A peer's announce as trackers read it.
pub(super) fn on_the_wire(announce: &Announce) -> announce::Announce {
    announce::Announce {
        info_hash: announce.info_hash,
        peer_id: announce.peer_id,
        port: announce.port,
        uploaded: announce.uploaded,
        downloaded: announce.downloaded,
        left: announce.left,
        event: match announce.event {
            AnnounceEvent::Interval => None,
            AnnounceEvent::Started => Some(announce::Event::Started),
            AnnounceEvent::Completed => Some(announce::Event::Completed),
            AnnounceEvent::Stopped => Some(announce::Event::Stopped),
        },
        numwant: None,
        compact: true,
        no_peer_id: false,
        ip: None,
        passkey: None,
    }
}

/// A tracker's answer as a peer reads it.
pub(super) fn from_the_wire(reply: &announce::AnnounceReply) -> AnnounceReply {
    let peers: Vec<SocketAddr> = reply.peers.iter().map(|peer| peer.address).collect();
    AnnounceReply { interval: Duration::from_secs(reply.interval.into()), peers }
}

/// Whether it is the ticket's holder or we who is refused.
fn refusal(error: Error) -> KeyError {
    match error.code() {
        Some(
            ApiError::BadTicket
            | ApiError::ExpiredTicket
            | ApiError::UnknownSubscriber
            | ApiError::UnknownEpoch
            | ApiError::Revoked,
        ) => KeyError::TicketRefused(error.to_string()),
        _ => KeyError::Unavailable(error.to_string()),
    }
}

impl Tracker for TrackerLink {
    fn announce<'a>(&'a self, announce: &'a Announce) -> BoxFuture<'a, Result<AnnounceReply, String>> {
        Box::pin(self.announce(announce))
    }

    fn rekeys<'a>(
        &'a self,
        ticket: &'a [u8],
        own_epoch: u64,
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        let TrackerLink { client, torrent, .. } = self;
        Box::pin(self.keys(ticket, pieces, move |ticket, pieces| async move {
            client.rekey(*torrent, own_epoch, &ticket, pieces).await
        }))
    }

    fn encryption_keys<'a>(
        &'a self,
        ticket: &'a [u8],
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        let TrackerLink { client, torrent, .. } = self;
        Box::pin(self.keys(ticket, pieces, move |ticket, pieces| async move {
            client.seed_keys(*torrent, &ticket, pieces).await
        }))
    }

    fn now(&self) -> u64 {
        self.client.now()
    }
}
