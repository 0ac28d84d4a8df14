//! A member as the tracker sees it: subscribed, announced, with a key to sign with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use swarmseal::peer::{self, AnnounceEvent, AnnounceReply, BoxFuture, KeyError, Tracker};
use swarmseal::tracker_client::{Client, Service};
use swarmseal::wire::announce::{Announce, Event};
use swarmseal::wire::api::Passkey;
use swarmseal::wire::handshake;
use swarmseal::wire::identity::{Identity, SigningKey};
use swarmseal::wire::layout::Layout;
use swarmseal::wire::metainfo::Metainfo;
use swarmseal::wire::seal::Hello;
use swarmseal_core::{Params, SecretKey, SubscriberId, Ticket, TorrentId};

use crate::random::Random;

/// Who somebody says it is.
#[derive(Clone, Copy)]
pub(super) struct Face {
    pub(super) peer_id: [u8; 20],
    pub(super) hello: Hello,
}

/// Who it is.
pub(super) struct Member {
    pub(super) torrent_id: TorrentId,
    pub(super) params: Arc<Params>,
    pub(super) info_hash: [u8; 20],
    pub(super) layout: Layout,
    pub(super) id: SubscriberId,
    pub(super) key: SigningKey,
    pub(super) epoch: u64,
    pub(super) face: Face,
    pub(super) address: SocketAddr,
    client: Client,
    passkey: Option<Passkey>,
}

impl Member {
    /// Makes keys, and subscribes with them if that is wanted.
    pub(super) async fn join(
        metainfo: &Metainfo,
        address: SocketAddr,
        subscribed: bool,
        random: &mut Random,
    ) -> Result<Self> {
        let (seal, rng) = (&metainfo.info.seal, &mut UnwrapErr(SysRng));
        let (torrent_id, params) = (seal.torrent_id, seal.params.clone());
        let secret = SecretKey::generate(&params, rng);
        let y = secret.public_key(&params);
        let identity = Identity::generate(rng);
        let id = identity.subscriber(&params, &torrent_id, &y);
        let hello = Hello::Subscriber { identity: identity.public(), keys: identity.commitment(&params, &y) };
        let key = identity.signing_key().clone();
        let authority = metainfo.authority.clone().context("no authority")?;
        let service = Service::of_publisher(authority, |_| ());
        let mut client = Client::new(service)?.announcing_from(address.ip())?;
        let (mut passkey, mut epoch) = (None, 1);
        if subscribed {
            let answer = client.subscribe(&params, torrent_id, (&secret, &y), &identity).await?;
            (passkey, epoch) = (Some(answer.passkey), answer.epoch);
            client = client.as_subscriber(&torrent_id, answer.subscriber, key.clone());
        }
        let mut name = [0; 12];
        random.fill(&mut name);
        Ok(Member {
            torrent_id,
            params,
            info_hash: metainfo.info_hash,
            layout: metainfo.info.layout(),
            id,
            key,
            epoch,
            face: Face { peer_id: handshake::peer_id(name), hello },
            address,
            client,
            passkey,
        })
    }

    /// Says that it has everything.
    pub(super) async fn announce(&self) -> Result<()> {
        let passkey = self.passkey.as_ref().context("not subscribed")?;
        let said = Announce {
            info_hash: self.info_hash,
            peer_id: self.face.peer_id,
            port: self.address.port(),
            uploaded: 0,
            downloaded: 0,
            left: 0,
            event: None,
            numwant: None,
            compact: true,
            no_peer_id: false,
            authority: None,
            ip: None,
            passkey: None,
        };
        self.client.announce(passkey, &said).await?;
        Ok(())
    }

    /// The tracker's time.
    pub(super) fn now(&self) -> u64 {
        self.client.now()
    }
}

/// What a node of its own would ask of the tracker.
impl Tracker for Member {
    fn announce<'a>(&'a self, said: &'a peer::Announce) -> BoxFuture<'a, Result<AnnounceReply, String>> {
        Box::pin(async move {
            let passkey = self.passkey.as_ref().ok_or("not subscribed")?;
            let said = Announce {
                info_hash: said.info_hash,
                peer_id: said.peer_id,
                port: said.port,
                uploaded: said.uploaded,
                downloaded: said.downloaded,
                left: said.left,
                event: match said.event {
                    AnnounceEvent::Interval => None,
                    AnnounceEvent::Started => Some(Event::Started),
                    AnnounceEvent::Completed => Some(Event::Completed),
                    AnnounceEvent::Stopped => Some(Event::Stopped),
                },
                numwant: None,
                compact: true,
                no_peer_id: false,
                authority: None,
                ip: None,
                passkey: None,
            };
            let reply = self.client.announce(passkey, &said).await.map_err(|error| error.to_string())?;
            let peers: Vec<SocketAddr> = reply.peers.iter().map(|peer| peer.address).collect();
            Ok(AnnounceReply {
                interval: Duration::from_secs(reply.interval.into()),
                peers,
                epoch: reply.epoch,
            })
        })
    }

    fn rekeys<'a>(
        &'a self,
        ticket: &'a [u8],
        own_epoch: u64,
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        Box::pin(async move {
            let unavailable = |error: &dyn std::fmt::Display| KeyError::Unavailable(error.to_string());
            let ticket = Ticket::from_bytes(ticket).map_err(|error| unavailable(&error))?;
            let answer = self.client.rekey(self.torrent_id, own_epoch, &ticket, pieces).await;
            let answer = answer.map_err(|error| unavailable(&error))?;
            Ok(answer.keys.chunks(self.params.group().bytes()).map(<[u8]>::to_vec).collect())
        })
    }

    fn encryption_keys<'a>(
        &'a self,
        _: &'a [u8],
        _: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        Box::pin(async { Err(KeyError::Unavailable("only original seeds have them".to_owned())) })
    }

    fn witness_keys<'a>(
        &'a self,
        epoch: u64,
        pieces: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        Box::pin(async move {
            let answer = self.client.witness(self.torrent_id, epoch, pieces).await;
            let answer = answer.map_err(|error| KeyError::Unavailable(error.to_string()))?;
            Ok(answer.keys.chunks(self.params.group().bytes()).map(<[u8]>::to_vec).collect())
        })
    }

    fn now(&self) -> u64 {
        Member::now(self)
    }
}
