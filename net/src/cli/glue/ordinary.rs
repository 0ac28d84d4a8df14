//! An ordinary torrent's trackers, as the node asks them.

use std::time::Duration;

use super::link::{from_the_wire, on_the_wire};
use crate::peer::{Announce, AnnounceReply, BoxFuture, KeyError, Tracker};
use crate::tracker_client::OrdinaryTrackers;

/// How long to wait where there is nobody to announce to.
const IDLE: Duration = Duration::from_secs(3600);

/// Announces, and no keys: nothing is sealed.
pub(crate) struct OrdinaryLink(pub(crate) OrdinaryTrackers);

impl OrdinaryLink {
    async fn announce(&self, announce: &Announce) -> Result<AnnounceReply, String> {
        let reply = self.0.announce(&on_the_wire(announce)).await.map_err(|error| error.to_string())?;
        Ok(reply.map_or(AnnounceReply { interval: IDLE, peers: Vec::new(), epoch: None }, |reply| {
            from_the_wire(&reply)
        }))
    }
}

impl Tracker for OrdinaryLink {
    fn announce<'a>(&'a self, announce: &'a Announce) -> BoxFuture<'a, Result<AnnounceReply, String>> {
        Box::pin(self.announce(announce))
    }

    fn rekeys<'a>(
        &'a self,
        _: &'a [u8],
        _: u64,
        _: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        Box::pin(async { Err(no_keys()) })
    }

    fn encryption_keys<'a>(
        &'a self,
        _: &'a [u8],
        _: &'a [u32],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        Box::pin(async { Err(no_keys()) })
    }

    fn witness_keys<'a>(&'a self, _: u64, _: &'a [u32]) -> BoxFuture<'a, Result<Vec<Vec<u8>>, KeyError>> {
        Box::pin(async { Err(no_keys()) })
    }

    fn now(&self) -> u64 {
        crate::date::now()
    }
}

fn no_keys() -> KeyError {
    KeyError::Unavailable("an ordinary torrent has no keys".to_owned())
}
