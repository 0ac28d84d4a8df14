//! Announces by each address family, so that a tracker tells IPv4 and IPv6 peers of us (BEP 7), or from the one address that is listened
//! on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::time::timeout;

use super::Error;
use crate::wire::announce::AnnounceReply;
use crate::wire::network::source_address;

/// How long the second answer is waited for once the first is there.
const GRACE: Duration = Duration::from_secs(3);

/// A client for each family, and one for the address that is listened on.
#[derive(Clone, Debug)]
pub(super) struct Families {
    v4: reqwest::Client,
    v6: reqwest::Client,
    own: Option<(IpAddr, reqwest::Client)>,
}

impl Families {
    /// Clients of the same make, for a program that listens on `listen`. Errors: they cannot be made.
    pub(super) fn new(builder: impl Fn() -> reqwest::ClientBuilder, listen: IpAddr) -> Result<Self, Error> {
        // A client bound to the unspecified address of a family connects within that family alone.
        let of = |address: IpAddr| builder().local_address(address).build();
        let (v4, v6) = (of(Ipv4Addr::UNSPECIFIED.into())?, of(Ipv6Addr::UNSPECIFIED.into())?);
        let own =
            source_address(listen, listen).map(|own| of(own).map(|client| (own, client))).transpose()?;
        Ok(Families { v4, v6, own })
    }

    /// Announces to the tracker of that URL: from the address that is listened on where it can be reached from there, else by both
    /// families. Errors: where both fail, IPv4's unless the host has only IPv6.
    pub(super) async fn announce<F>(
        &self,
        url: &reqwest::Url,
        ask: impl Fn(reqwest::Client) -> F,
    ) -> Result<AnnounceReply, Error>
    where
        F: Future<Output = Result<AnnounceReply, Error>>,
    {
        let host = literal(url);
        let reached = |(listen, _): &&(IpAddr, reqwest::Client)| match host {
            Some(host) => source_address(*listen, host).is_some(),
            // Other names are taken for other machines'.
            None => !listen.is_loopback() || url.host_str() == Some("localhost"),
        };
        match (self.own.as_ref().filter(reached), host) {
            (Some((_, own)), Some(_)) => ask(own.clone()).await,
            // The name may have no address of that family.
            (Some((listen, own)), None) => match ask(own.clone()).await {
                Err(error @ Error::Unreachable(_)) => {
                    let other = if listen.is_ipv4() { &self.v6 } else { &self.v4 };
                    ask(other.clone()).await.map_err(|_| error)
                }
                answer => answer,
            },
            (None, Some(IpAddr::V4(_))) => ask(self.v4.clone()).await,
            (None, Some(IpAddr::V6(_))) => ask(self.v6.clone()).await,
            (None, None) => both(ask(self.v4.clone()), ask(self.v6.clone())).await,
        }
    }
}

/// The host of a URL, where it is an address.
fn literal(url: &reqwest::Url) -> Option<IpAddr> {
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
