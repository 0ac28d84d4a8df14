//! Announces over UDP (BEP 15), by IPv4 and IPv6.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{Instant, timeout};

use super::Error;
use super::families::both;
use crate::wire::announce::{Announce, AnnounceReply};
use crate::wire::network::source_address;
use crate::wire::udp_tracker::{MAX_PACKET, Request, Response};

/// The first answer is waited for so long, and twice as long after each packet that is sent again.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(15);
/// How often a packet is sent again.
const RETRANSMISSIONS: u32 = 8;
/// How long a connection id serves.
const CONNECTION: Duration = Duration::from_secs(60);

/// What announces over UDP have in common: connection ids that still serve.
#[derive(Debug)]
pub(super) struct UdpTrackers {
    key: u32,
    /// Where peers reach us.
    listen: IpAddr,
    first_wait: Duration,
    connections: Mutex<HashMap<SocketAddr, (u64, Instant)>>,
}

impl UdpTrackers {
    /// Errors: the system has no randomness.
    pub(super) fn new(listen: IpAddr, first_wait: Duration) -> Result<Self, Error> {
        Ok(UdpTrackers { key: random()?, listen, first_wait, connections: Mutex::default() })
    }

    /// Announces to a tracker with a URL `udp://host:port/path`. Errors: no answer to any packet, a refusal, a bad answer.
    pub(super) async fn announce(&self, url: &Url, request: &Announce) -> Result<AnnounceReply, Error> {
        let (Some(host), Some(port)) = (url.host_str(), url.port()) else { return Err(Error::BadUrl) };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
        if addresses.iter().any(|address| self.own(address.ip()).is_some()) {
            addresses.retain(|address| self.own(address.ip()).is_some());
        }
        let of = |ipv6: bool| addresses.iter().copied().find(|address| address.is_ipv6() == ipv6);
        match (of(false), of(true)) {
            (Some(v4), Some(v6)) => both(self.ask(v4, url, request), self.ask(v6, url, request)).await,
            (Some(address), None) | (None, Some(address)) => self.ask(address, url, request).await,
            (None, None) => Err(io::Error::from(io::ErrorKind::NotFound).into()),
        }
    }

    async fn ask(&self, tracker: SocketAddr, url: &Url, request: &Announce) -> Result<AnnounceReply, Error> {
        let any = match tracker {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((self.own(tracker.ip()).unwrap_or(any), 0)).await?;
        // What others send does not reach it.
        socket.connect(tracker).await?;
        let (connecting, announcing): (u32, u32) = (random()?, random()?);
        let mut connected = false;
        let mut sent = 0;
        while sent <= RETRANSMISSIONS {
            let wait = self.first_wait * (1 << sent);
            let request = match self.connection(tracker) {
                None => Request::Connect { transaction: connecting },
                Some(connection) => Request::Announce {
                    connection,
                    transaction: announcing,
                    announce: request.clone(),
                    key: self.key,
                    url_data: url_data(url),
                },
            };
            match exchange(&socket, &request, tracker.is_ipv6(), wait).await? {
                None => sent += 1,
                Some(Response::Connected { connection, .. }) => {
                    connected = true;
                    self.connections().insert(tracker, (connection, Instant::now()));
                }
                Some(Response::Announced { reply, .. }) => return Ok(reply),
                // It may have started anew since it gave the connection id.
                Some(Response::Refused { .. })
                    if !connected && self.connections().remove(&tracker).is_some() => {}
                Some(Response::Refused { reason, .. }) => return Err(Error::AnnounceRefused(reason)),
            }
        }
        Err(io::Error::from(io::ErrorKind::TimedOut).into())
    }

    fn own(&self, tracker: IpAddr) -> Option<IpAddr> {
        source_address(self.listen, tracker)
    }

    /// The connection id that still serves.
    fn connection(&self, tracker: SocketAddr) -> Option<u64> {
        let mut connections = self.connections();
        connections.retain(|_, (_, since)| since.elapsed() < CONNECTION);
        connections.get(&tracker).map(|&(connection, _)| connection)
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<SocketAddr, (u64, Instant)>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends a packet; what answers it, if anything does in time.
async fn exchange(
    socket: &UdpSocket,
    request: &Request,
    ipv6: bool,
    wait: Duration,
) -> io::Result<Option<Response>> {
    socket.send(&request.to_bytes()).await?;
    let answer = async {
        let mut packet = vec![0; MAX_PACKET];
        loop {
            let len = socket.recv(&mut packet).await?;
            match Response::from_bytes(&packet[..len], ipv6) {
                Ok(response) if answers(&response, request) => return Ok(response),
                // A late answer to an earlier request, or none of the protocol.
                _ => {}
            }
        }
    };
    timeout(wait, answer).await.map_or(Ok(None), |answer| answer.map(Some))
}

fn answers(response: &Response, request: &Request) -> bool {
    let (transaction, fits) = match request {
        Request::Connect { transaction } => (transaction, !matches!(response, Response::Announced { .. })),
        Request::Announce { transaction, .. } => {
            (transaction, !matches!(response, Response::Connected { .. }))
        }
    };
    fits && response.transaction() == *transaction
}

/// BEP 41: some trackers have a key in the path or query.
fn url_data(url: &Url) -> Vec<u8> {
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{query}", url.path()).into_bytes()
}

fn random() -> Result<u32, Error> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::wire::announce::{Event, Peer};

    /// A tracker that loses packets; what it answered to.
    struct Tracker {
        url: Url,
        heard: Arc<Mutex<Vec<Request>>>,
    }

    impl Tracker {
        /// `lost`: whether the packet of that number is lost on its way. Connection ids below 1,000 are unknown to it.
        async fn start(at: &str, lost: impl Fn(usize) -> bool + Send + 'static) -> Self {
            let socket = UdpSocket::bind(at).await.unwrap();
            let url = format!("udp://{}/announce?key=7", socket.local_addr().unwrap()).parse().unwrap();
            let heard = Arc::new(Mutex::new(Vec::new()));
            let noted = heard.clone();
            tokio::spawn(async move {
                let mut packet = vec![0; MAX_PACKET];
                for number in 0.. {
                    let (len, from) = socket.recv_from(&mut packet).await.unwrap();
                    if lost(number) {
                        continue;
                    }
                    let request = Request::from_bytes(&packet[..len]).unwrap();
                    let response = match &request {
                        Request::Connect { transaction } => {
                            Response::Connected { transaction: *transaction, connection: 1000 }
                        }
                        Request::Announce { connection: ..1000, transaction, .. } => Response::Refused {
                            transaction: *transaction,
                            reason: "unknown connection".to_owned(),
                        },
                        Request::Announce { transaction, announce, .. } if announce.left == 0 => {
                            Response::Refused { transaction: *transaction, reason: "go away".to_owned() }
                        }
                        Request::Announce { transaction, .. } => {
                            let peers = vec![Peer { address: from, id: None }];
                            let reply = AnnounceReply { interval: 60, peers, ..AnnounceReply::default() };
                            Response::Announced { transaction: *transaction, reply }
                        }
                    };
                    noted.lock().unwrap().push(request);
                    // Noise, and an answer to somebody else, come first.
                    let other = Response::Connected { transaction: 0, connection: 1 };
                    for bytes in [b"noise".to_vec(), other.to_bytes(false), response.to_bytes(from.is_ipv6())]
                    {
                        socket.send_to(&bytes, from).await.unwrap();
                    }
                }
            });
            Tracker { url, heard }
        }

        /// How many connects and how many announces it answered.
        fn answered(&self) -> (usize, usize) {
            let heard = self.heard.lock().unwrap();
            let connects = heard.iter().filter(|request| matches!(request, Request::Connect { .. })).count();
            (connects, heard.len() - connects)
        }
    }

    fn request(left: u64) -> Announce {
        Announce {
            info_hash: [1; 20],
            peer_id: [2; 20],
            port: 7,
            uploaded: 0,
            downloaded: 0,
            left,
            event: Some(Event::Started),
            numwant: None,
            compact: true,
            no_peer_id: false,
            authority: None,
            ip: None,
            passkey: None,
        }
    }

    fn client() -> UdpTrackers {
        UdpTrackers::new(Ipv6Addr::UNSPECIFIED.into(), Duration::from_millis(50)).unwrap()
    }

    #[tokio::test]
    async fn lost_packets_are_sent_again_and_a_connection_serves_for_a_minute() {
        // Of the first exchange the connect is lost once, the announce twice.
        let tracker = Tracker::start("127.0.0.1:0", |number| [0, 2, 3].contains(&number)).await;
        let client = client();
        let reply = client.announce(&tracker.url, &request(1)).await.unwrap();
        assert_eq!((reply.interval, reply.peers.len()), (60, 1));
        client.announce(&tracker.url, &request(1)).await.unwrap();
        assert_eq!(tracker.answered(), (1, 2));
        let heard = tracker.heard.lock().unwrap().clone();
        let Some(Request::Announce { announce, url_data, .. }) = heard.last() else { panic!("{heard:?}") };
        assert_eq!((announce, &url_data[..]), (&request(1), &b"/announce?key=7"[..]));
        // Of an hour ago: another is asked for.
        let old = Instant::now().checked_sub(CONNECTION);
        client.connections().values_mut().for_each(|(_, since)| *since = old.unwrap());
        client.announce(&tracker.url, &request(1)).await.unwrap();
        assert_eq!(tracker.answered(), (2, 3));
    }

    #[tokio::test]
    async fn a_tracker_that_forgot_us_is_asked_for_another_connection() {
        let tracker = Tracker::start("127.0.0.1:0", |_| false).await;
        let client = client();
        client.announce(&tracker.url, &request(1)).await.unwrap();
        client.connections().values_mut().for_each(|(connection, _)| *connection = 999);
        client.announce(&tracker.url, &request(1)).await.unwrap();
        assert_eq!(tracker.answered(), (2, 3));
        let refused = client.announce(&tracker.url, &request(0)).await.unwrap_err();
        assert!(matches!(refused, Error::AnnounceRefused(reason) if reason == "go away"));
    }

    #[tokio::test]
    async fn ipv6_trackers_tell_of_ipv6_peers() {
        let tracker = Tracker::start("[::1]:0", |_| false).await;
        let reply = client().announce(&tracker.url, &request(1)).await.unwrap();
        assert_eq!(reply.peers[0].address.ip(), Ipv6Addr::LOCALHOST);
    }

    #[tokio::test]
    async fn announces_leave_from_the_address_that_is_listened_on() {
        let tracker = Tracker::start("127.0.0.1:0", |_| false).await;
        let own = IpAddr::from([127, 0, 0, 7]);
        let trackers = UdpTrackers::new(own, Duration::from_millis(50)).unwrap();
        let reply = trackers.announce(&tracker.url, &request(1)).await.unwrap();
        assert_eq!(reply.peers[0].address.ip(), own);
        // One that has no address of that family is asked all the same.
        let tracker = Tracker::start("[::1]:0", |_| false).await;
        let reply = trackers.announce(&tracker.url, &request(1)).await.unwrap();
        assert_eq!(reply.peers[0].address.ip(), Ipv6Addr::LOCALHOST);
    }

    #[tokio::test]
    async fn a_silent_tracker_is_given_up_after_the_whole_schedule() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let url = format!("udp://{}", socket.local_addr().unwrap()).parse().unwrap();
        let first_wait = Duration::from_millis(1);
        let trackers = UdpTrackers::new(Ipv6Addr::UNSPECIFIED.into(), first_wait).unwrap();
        let begun = Instant::now();
        let error = trackers.announce(&url, &request(1)).await.unwrap_err();
        assert!(error.is_temporary() && error.to_string().contains("timed out"), "{error}");
        // 1 + 2 + 4 + … + 256.
        assert!(begun.elapsed() >= first_wait * 511);
        let mut packets = 0;
        while socket.try_recv(&mut [0; 200]).is_ok() {
            packets += 1;
        }
        assert_eq!(packets, 9);
    }
}
