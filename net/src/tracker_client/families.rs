//! Announces by each address family, so that a tracker tells IPv4 and IPv6 peers of us (BEP 7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::time::timeout;

use super::Error;
use crate::wire::announce::AnnounceReply;

/// How long the second answer is waited for once the first is there.
const GRACE: Duration = Duration::from_secs(3);

/// A client for each family.
#[derive(Clone, Debug)]
pub(super) struct Families {
    v4: reqwest::Client,
    v6: reqwest::Client,
}

impl Families {
    /// Two clients of the same make. Errors: they cannot be made.
    pub(super) fn new(builder: impl Fn() -> reqwest::ClientBuilder) -> Result<Self, Error> {
        // A client bound to the unspecified address of a family connects within that family alone.
        let of = |address: IpAddr| builder().local_address(address).build();
        let (v4, v6) = (of(Ipv4Addr::UNSPECIFIED.into())?, of(Ipv6Addr::UNSPECIFIED.into())?);
        Ok(Families { v4, v6 })
    }

    /// Announces by both. Errors: where both fail, IPv4's unless the host has only IPv6.
    pub(super) async fn announce<F>(
        &self,
        host: Option<IpAddr>,
        ask: impl Fn(reqwest::Client) -> F,
    ) -> Result<AnnounceReply, Error>
    where
        F: Future<Output = Result<AnnounceReply, Error>>,
    {
        match host {
            Some(IpAddr::V4(_)) => ask(self.v4.clone()).await,
            Some(IpAddr::V6(_)) => ask(self.v6.clone()).await,
            None => both(ask(self.v4.clone()), ask(self.v6.clone())).await,
        }
    }
}

/// The host of a URL, where it is an address.
pub(super) fn literal(url: &reqwest::Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// What either gives, together. Errors: the first's, where both fail.
pub(super) async fn both(
    v4: impl Future<Output = Result<AnnounceReply, Error>>,
    v6: impl Future<Output = Result<AnnounceReply, Error>>,
) -> Result<AnnounceReply, Error> {
    tokio::pin!(v4, v6);
    let (first, second) = tokio::select! {
        first = &mut v4 => match first {
            Ok(first) => (first, timeout(GRACE, v6).await.ok()),
            // A host that is known in one family only fails in the other at once.
            Err(error) => return v6.await.map_err(|_| error),
        },
        first = &mut v6 => match first {
            Ok(first) => (first, timeout(GRACE, v4).await.ok()),
            Err(_) => return v4.await,
        },
    };
    Ok(match second {
        Some(Ok(second)) => merge(first, second),
        _ => first,
    })
}

fn merge(mut first: AnnounceReply, second: AnnounceReply) -> AnnounceReply {
    let fresh = |peer: &_| !first.peers.contains(peer);
    let peers: Vec<_> = second.peers.into_iter().filter(fresh).collect();
    first.peers.extend(peers);
    first.interval = first.interval.max(second.interval);
    first.complete = first.complete.max(second.complete);
    first.incomplete = first.incomplete.max(second.incomplete);
    first.epoch = first.epoch.max(second.epoch);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(interval: u32) -> Result<AnnounceReply, Error> {
        Ok(AnnounceReply { interval, ..AnnounceReply::default() })
    }

    fn failed(why: &str) -> Result<AnnounceReply, Error> {
        Err(Error::BadAnswer(why.to_owned()))
    }

    #[tokio::test]
    async fn one_answer_will_do() {
        assert_eq!(both(async { failed("4") }, async { reply(6) }).await.unwrap().interval, 6);
        assert_eq!(both(async { reply(4) }, async { failed("6") }).await.unwrap().interval, 4);
        assert_eq!(both(async { reply(4) }, async { reply(6) }).await.unwrap().interval, 6);
        let neither = both(async { failed("4") }, async { failed("6") }).await.unwrap_err();
        assert!(neither.to_string().ends_with(": 4"), "{neither}");
    }

    #[test]
    fn hosts_that_are_addresses_have_one_family() {
        let literal = |text: &str| literal(&text.parse().unwrap());
        assert_eq!(literal("http://127.0.0.1:1/a"), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(literal("http://[::1]:1/a"), Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(literal("http://tracker.test/a"), None);
    }
}
