//! What a peer or seed asks of a tracker, over HTTP.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use swarmseal_core::{Ticket, TorrentId};

use crate::cli::subscription::Subscription;
use crate::cli::{Exit, Failure};
use crate::peer::{
    Announce, AnnounceEvent, AnnounceReply, BoxFuture, KeyError, OrdinaryClient, Personal, Tracker,
};
use crate::tracker_client::{Client, Error, Service};
use crate::wire::announce;
use crate::wire::api::{self, ApiError, Keys, MAX_PIECES, MAX_WITNESS_PIECES, Passkey, PersonalKeysRequest};
use crate::wire::keyfile::SeedFile;
use crate::wire::metainfo::Metainfo;
use crate::wire::mse::TorrentName;

/// A member's way to its tracker. The tracker gives re-keys to subscribers and encryption keys to seeds alone.
pub(crate) struct TrackerLink {
    client: Client,
    torrent: TorrentId,
    /// Replaced when the tracker has another.
    passkey: Mutex<Passkey>,
    width: usize,
}

impl TrackerLink {
    /// For a subscriber that listens on `listen`.
    pub(crate) fn of_subscriber(subscription: &Subscription, listen: IpAddr) -> Result<Self, Failure> {
        let client = super::client(subscription)?;
        Self::new(&subscription.metainfo, client, listen, subscription.passkey)
    }

    /// For an original seed. Errors: [`Exit::Usage`] for a seed without a passkey.
    pub(crate) fn of_seed(
        metainfo: &Metainfo,
        service: Service,
        seed: &SeedFile,
        listen: IpAddr,
    ) -> Result<Self, Failure> {
        let passkey = seed.passkey.as_deref().and_then(Passkey::from_hex).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                "there is no passkey: expected a seed file that was registered with the tracker",
            )
        })?;
        Self::new(metainfo, super::seed_client(service, seed)?, listen, passkey)
    }

    fn new(metainfo: &Metainfo, client: Client, listen: IpAddr, passkey: Passkey) -> Result<Self, Failure> {
        let client = client.announcing_from(listen).map_err(super::client_failure)?;
        let seal = &metainfo.info.seal;
        let width = seal.params.group().bytes();
        Ok(TrackerLink { client, torrent: seal.torrent_id, passkey: Mutex::new(passkey), width })
    }

    fn personal_request(&self, info_hash: &[u8; 20], epoch: u64, pieces: &[u32]) -> PersonalKeysRequest {
        let (torrent_id, pieces) = (self.torrent, pieces.to_vec());
        PersonalKeysRequest { torrent_id, epoch, info_hash: *info_hash, pieces }
    }

    async fn announce(&self, announce: &Announce) -> Result<AnnounceReply, String> {
        let passkey = *self.passkey.lock().unwrap_or_else(PoisonError::into_inner);
        let request = on_the_wire(announce);
        let reply = match self.client.announce(&passkey, &request).await {
            // It may have been replaced, by this device's owner or the operator: the session knows.
            Err(refused @ Error::AnnounceRefused(_)) => {
                match self.client.passkey(self.torrent, false).await {
                    Ok(current) if current != passkey => {
                        *self.passkey.lock().unwrap_or_else(PoisonError::into_inner) = current;
                        self.client.announce(&current, &request).await
                    }
                    _ => Err(refused),
                }
            }
            reply => reply,
        };
        Ok(from_the_wire(&reply.map_err(|error| error.to_string())?))
    }

    /// Keys for any number of pieces, [`MAX_PIECES`] a call.
    async fn keys<'a, F: Future<Output = Result<Keys, Error>>>(
        &'a self,
        pieces: &'a [u32],
        call: impl Fn(&'a [u32]) -> F,
    ) -> Result<Vec<Vec<u8>>, KeyError> {
        let mut all = Vec::with_capacity(pieces.len());
        for batch in pieces.chunks(MAX_PIECES) {
            let answer = call(batch).await.map_err(refusal)?;
            self.split(&answer.keys, batch.len(), &mut all)?;
        }
        Ok(all)
    }

    /// Adds so many keys, of W bytes each.
    fn split(&self, keys: &[u8], count: usize, all: &mut Vec<Vec<u8>>) -> Result<(), KeyError> {
        if keys.len() != count * self.width {
            return Err(KeyError::Unavailable("the tracker's answer has another number of keys".into()));
        }
        all.extend(keys.chunks_exact(self.width).map(<[u8]>::to_vec));
        Ok(())
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
        authority: None,
        ip: None,
        passkey: None,
    }
}

/// A tracker's answer as a peer reads it.
pub(super) fn from_the_wire(reply: &announce::AnnounceReply) -> AnnounceReply {
    let peers: Vec<SocketAddr> = reply.peers.iter().map(|peer| peer.address).collect();
    AnnounceReply { interval: Duration::from_secs(reply.interval.into()), peers, epoch: reply.epoch }
}

fn parse(ticket: &[u8]) -> Result<Ticket, KeyError> {
    Ticket::from_bytes(ticket).map_err(|error| KeyError::TicketRefused(error.to_string()))
}

/// Whether it is the ticket's holder or we who is refused.
fn refusal(error: Error) -> KeyError {
    match error.code() {
        Some(ApiError::BadTicket) => KeyError::BadTicket,
        Some(
            ApiError::ExpiredTicket
            | ApiError::UnknownSubscriber
            | ApiError::UnknownEpoch
            | ApiError::UnknownPersonal
            | ApiError::Revoked,
        ) => KeyError::TicketRefused(error.to_string()),
        Some(ApiError::RetiredEpoch) => KeyError::Retired,
        _ => KeyError::Unavailable(error.to_string()),
    }
}

/// There is no ticket that could be refused: what is not retired is asked for again later.
fn witness_refusal(error: Error) -> KeyError {
    match error.code() {
        Some(ApiError::RetiredEpoch) => KeyError::Retired,
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
        Box::pin(async move {
            let ticket = &parse(ticket)?;
            self.keys(pieces, |pieces| client.rekey(*torrent, own_epoch, ticket, pieces)).await
        })
    }

    fn encryption_keys<'a>(
        &'a self,
        ticket: &'a [u8],
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        let TrackerLink { client, torrent, .. } = self;
        Box::pin(async move {
            let ticket = &parse(ticket)?;
            self.keys(pieces, |pieces| client.seed_keys(*torrent, ticket, pieces)).await
        })
    }

    fn witness_keys<'a>(
        &'a self,
        epoch: u64,
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        Box::pin(async move {
            let mut all = Vec::with_capacity(pieces.len());
            for batch in pieces.chunks(MAX_WITNESS_PIECES) {
                let answer =
                    self.client.witness(self.torrent, epoch, batch).await.map_err(witness_refusal)?;
                self.split(&answer.keys, batch.len(), &mut all)?;
            }
            Ok(all)
        })
    }

    fn personal(&self, name: TorrentName) -> BoxFuture<'_, Result<Option<Personal>, KeyError>> {
        Box::pin(async move {
            match self.client.personal(self.torrent, name).await {
                Ok(api::Personal { info_hash, subscriber, epoch, .. }) => {
                    Ok(Some(Personal { info_hash, subscriber, epoch }))
                }
                Err(error) if error.code() == Some(ApiError::UnknownPersonal) => Ok(None),
                Err(error) => Err(refusal(error)),
            }
        })
    }

    fn personal_keys<'a>(
        &'a self,
        info_hash: &'a [u8; 20],
        own_epoch: u64,
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        Box::pin(self.keys(pieces, move |pieces| async move {
            self.client.personal_keys(&self.personal_request(info_hash, own_epoch, pieces)).await
        }))
    }

    fn personal_clients(&self) -> BoxFuture<'_, Result<(Vec<OrdinaryClient>, Duration), String>> {
        Box::pin(async move {
            let answer = self.client.personal_clients(self.torrent).await;
            let answer = answer.map_err(|error| error.to_string())?;
            let known = answer.clients.into_iter().filter_map(|client| {
                let api::OrdinaryClient { info_hash, subscriber, epoch, complete, address } = client;
                let personal = Personal { info_hash, subscriber, epoch };
                Some(OrdinaryClient { addr: address.parse().ok()?, personal, complete: complete != 0 })
            });
            Ok((known.collect(), Duration::from_secs(answer.interval.into())))
        })
    }

    fn pull_keys<'a>(
        &'a self,
        info_hash: &'a [u8; 20],
        own_epoch: u64,
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        Box::pin(self.keys(pieces, move |pieces| async move {
            self.client.pull_keys(&self.personal_request(info_hash, own_epoch, pieces)).await
        }))
    }

    fn now(&self) -> u64 {
        self.client.now()
    }
}
