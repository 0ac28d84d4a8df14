//! The trackers of an ordinary torrent: announces over HTTP (BEP 3) and UDP (BEP 15), in tiers of equals (BEP 12), by IPv4 and
//! IPv6 (BEP 7).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::families::Families;
use super::udp::{FIRST_WAIT, UdpTrackers};
use super::{CONNECT_TIMEOUT, Error, USER_AGENT, announce_error, read};
use crate::wire::announce::{self, Announce, AnnounceReply};

const READ_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 3;

/// Trackers, those that answered last first in their tiers.
#[derive(Debug)]
pub struct OrdinaryTrackers {
    clients: Clients,
    tiers: Mutex<Vec<Vec<Url>>>,
    /// How long one tracker is waited for until the next is asked as well.
    patience: Duration,
}

#[derive(Clone, Debug)]
struct Clients {
    http: Families,
    udp: Arc<UdpTrackers>,
}

impl OrdinaryTrackers {
    /// Those of `tiers` that speak HTTP or UDP. Announces leave from `listen` as those of [`Client::announcing_from`] do. Errors: the
    /// HTTP client cannot be made, or the system has no randomness.
    ///
    /// [`Client::announcing_from`]: super::Client::announcing_from
    pub fn new(tiers: &[Vec<String>], listen: IpAddr) -> Result<Self, Error> {
        Self::with(tiers, listen, http_client, FIRST_WAIT)
    }

    fn with(
        tiers: &[Vec<String>],
        listen: IpAddr,
        builder: impl Fn() -> reqwest::ClientBuilder,
        first_wait: Duration,
    ) -> Result<Self, Error> {
        let udp = Arc::new(UdpTrackers::new(listen, first_wait)?);
        let clients = Clients { http: Families::new(builder, listen)?, udp };
        let url = |text: &String| {
            Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https" | "udp"))
        };
        let tiers = tiers.iter().map(|tier| tier.iter().filter_map(url).collect::<Vec<_>>());
        let tiers = Mutex::new(tiers.filter(|tier| !tier.is_empty()).collect());
        Ok(OrdinaryTrackers { clients, tiers, patience: first_wait })
    }

    /// Announces to the first that answers. A silent tracker holds nobody up: while it is asked again and again, the next is
    /// asked too. None: there is no tracker to ask. Errors: the last one's, where all fail.
    pub async fn announce(&self, request: &Announce) -> Result<Option<AnnounceReply>, Error> {
        let tiers = self.tiers.lock().await.clone();
        let tiers = tiers.into_iter().enumerate();
        let mut next = tiers.flat_map(|(tier, urls)| urls.into_iter().map(move |url| (tier, url))).peekable();
        // Dropped with all that is under way.
        let mut asked = JoinSet::new();
        let mut last = None;
        loop {
            match next.next() {
                Some((tier, url)) => {
                    let (clients, request) = (self.clients.clone(), request.clone());
                    asked.spawn(async move { (tier, clients.ask(url.clone(), &request).await, url) });
                }
                None if asked.is_empty() => return last.map_or(Ok(None), Err),
                None => {}
            }
            tokio::select! {
                Some(answer) = asked.join_next() => match answer {
                    Ok((tier, Ok(reply), url)) => {
                        self.prefer(tier, &url).await;
                        return Ok(Some(reply));
                    }
                    Ok((_, Err(error), _)) => last = Some(error),
                    Err(error) => tracing::warn!(%error, "an announce stopped"),
                },
                () = sleep(self.patience), if next.peek().is_some() => {}
                else => {}
            }
        }
    }

    /// It answered: it is asked first in its tier from now on.
    async fn prefer(&self, tier: usize, url: &Url) {
        if let Some(tier) = self.tiers.lock().await.get_mut(tier)
            && let Some(place) = tier.iter().position(|other| other == url)
        {
            tier[..=place].rotate_right(1);
        }
    }
}

impl Clients {
    async fn ask(&self, mut url: Url, request: &Announce) -> Result<AnnounceReply, Error> {
        if url.scheme() == "udp" {
            return self.udp.announce(&url, request).await;
        }
        // Some have a key of their own in the query. Ours is encoded already, and binary: it must not be encoded again.
        let query = match url.query().filter(|query| !query.is_empty()) {
            Some(query) => format!("{query}&{}", request.to_query()),
            None => request.to_query(),
        };
        url.set_query(Some(&query));
        let ask = |http: reqwest::Client| fetch(http, url.clone());
        self.http.announce(&url, ask).await
    }
}

fn http_client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS))
        .tls_backend_preconfigured(super::trust::tls())
}

async fn fetch(http: reqwest::Client, url: Url) -> Result<AnnounceReply, Error> {
    let answer = http.get(url).send().await?;
    if !answer.status().is_success() {
        return Err(Error::BadAnswer(format!("HTTP status {}", answer.status().as_u16())));
    }
    AnnounceReply::from_bytes(&read(answer, announce::MAX_REPLY).await?).map_err(announce_error)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

    /// A tracker that answers every announce; its port.
    async fn tracker() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let len = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..len]).into_owned();
                // Both queries, whole: %01 is not encoded again.
                let body = if request.starts_with("GET /a?key=7&info_hash=%01%01") {
                    "d8:intervali60e5:peers6:\x7f\0\0\x01\x1a\x0ae"
                } else {
                    "d14:failure reason3:huhe"
                };
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    fn request() -> Announce {
        Announce {
            info_hash: [1; 20],
            peer_id: [2; 20],
            port: 7,
            uploaded: 0,
            downloaded: 0,
            left: 1,
            event: None,
            numwant: None,
            compact: true,
            no_peer_id: false,
            authority: None,
            ip: None,
            passkey: None,
        }
    }

    /// A tracker of both families that tells everybody where it saw them; its port.
    async fn mirror() -> u16 {
        let listener = TcpListener::bind("[::]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, from)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
                let peer = announce::Peer { address: from, id: None };
                let reply = AnnounceReply { interval: 60, peers: vec![peer], ..AnnounceReply::default() };
                let body = reply.to_bytes(true);
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
            }
        });
        port
    }

    /// Where a tracker at these addresses sees one that listens on `listen`; it is asked by a name.
    async fn seen(listen: IpAddr, name: &str, addresses: &[&str]) -> Vec<String> {
        let url = format!("http://{name}:{}/a", mirror().await);
        let addresses: Vec<_> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let builder = || http_client().no_proxy().resolve_to_addrs(name, &addresses);
        let trackers = OrdinaryTrackers::with(&[vec![url]], listen, builder, FIRST_WAIT).unwrap();
        let reply = trackers.announce(&request()).await.unwrap().unwrap();
        let mut seen: Vec<_> =
            reply.peers.iter().map(|peer| peer.address.ip().to_canonical().to_string()).collect();
        seen.sort();
        seen
    }

    #[tokio::test]
    async fn a_tracker_of_both_families_hears_both_and_tells_of_both() {
        assert_eq!(seen(ANY, "tracker.test", &["127.0.0.1:0", "[::1]:0"]).await, ["127.0.0.1", "::1"]);
    }

    #[tokio::test]
    async fn announces_leave_from_the_address_that_is_listened_on() {
        let own = IpAddr::from([127, 0, 0, 7]);
        assert_eq!(seen(own, "localhost", &["127.0.0.1:0", "[::1]:0"]).await, ["127.0.0.7"]);
        // A tracker of the other family, and one that is taken for another machine's, are asked all the same.
        assert_eq!(seen(own, "localhost", &["[::1]:0"]).await, ["::1"]);
        assert_eq!(seen(own, "tracker.test", &["127.0.0.1:0"]).await, ["127.0.0.1"]);
        let url = format!("http://127.0.0.1:{}/a", mirror().await);
        let trackers = OrdinaryTrackers::new(&[vec![url]], own).unwrap();
        assert_eq!(trackers.announce(&request()).await.unwrap().unwrap().peers[0].address.ip(), own);
    }

    #[tokio::test]
    async fn the_next_is_asked_where_one_fails_and_stays_first() {
        let port = tracker().await;
        let good = format!("http://127.0.0.1:{port}/a?key=7");
        let bad = format!("http://127.0.0.1:{port}/other");
        let trackers =
            OrdinaryTrackers::new(&[vec!["wss://127.0.0.1:1".into()], vec![bad.clone(), good.clone()]], ANY)
                .unwrap();
        let reply = trackers.announce(&request()).await.unwrap().unwrap();
        assert_eq!(reply.peers[0].address, "127.0.0.1:6666".parse().unwrap());
        let order: Vec<String> = trackers.tiers.lock().await[0].iter().map(Url::to_string).collect();
        assert_eq!(order, [good, bad.clone()]);
        let only_bad = OrdinaryTrackers::new(&[vec![bad]], ANY).unwrap();
        assert!(matches!(only_bad.announce(&request()).await, Err(Error::AnnounceRefused(_))));
        assert!(OrdinaryTrackers::new(&[], ANY).unwrap().announce(&request()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_silent_tracker_holds_nobody_up() {
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let silent = format!("udp://{}/announce", silent.local_addr().unwrap());
        let good = format!("http://127.0.0.1:{}/a?key=7", tracker().await);
        let tiers = [vec![silent], vec![good]];
        let trackers = OrdinaryTrackers::with(&tiers, ANY, http_client, Duration::from_millis(20)).unwrap();
        // The silent one alone would take 511 times the patience, and fail.
        assert_eq!(trackers.announce(&request()).await.unwrap().unwrap().peers.len(), 1);
    }
}
