//! The UDP tracker protocol: BEP 15, and the path of the tracker's URL by BEP 41. Every packet is one datagram.
//!
//! ```text
//! connect   u64 magic, u32 0, u32 transaction            ▶ u32 0, u32 transaction, u64 connection
//! announce  u64 connection, u32 1, u32 transaction, …    ▶ u32 1, u32 transaction, u32 interval, u32 leechers, u32 seeds, peers
//! either                                                 ▶ u32 3, u32 transaction, text of an error
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::announce::{Announce, AnnounceReply, Event, MAX_PEERS, Peer};

/// Bytes of the longest packet that is read: what UDP can carry.
pub const MAX_PACKET: usize = 65_507;

/// What a connect begins with.
const MAGIC: u64 = 0x0417_2710_1980;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const ERROR: u32 = 3;
/// BEP 41: nothing follows; a byte of padding; a part of the URL with its length.
const END_OF_OPTIONS: u8 = 0;
const NOP: u8 = 1;
const URL_DATA: u8 = 2;
/// Bytes of an announce before its options.
const ANNOUNCE_LEN: usize = 98;
/// Bytes of a URL's path and query that are read or sent.
const MAX_URL_DATA: usize = 2048;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Asks for a connection id, which proves to the tracker that the client is where its packets come from.
    Connect {
        /// Comes back in the answer.
        transaction: u32,
    },
    /// Announces.
    Announce {
        /// What the tracker answered to a connect, a minute ago at most.
        connection: u64,
        /// Comes back in the answer.
        transaction: u32,
        /// What is announced. `compact`, `no_peer_id`, `ip` and `passkey` have no place here and come out as their defaults.
        announce: Announce,
        /// The same while the client runs: it tells the tracker who is who when addresses change.
        key: u32,
        /// Path and query of the tracker's URL; empty for none.
        url_data: Vec<u8>,
    },
}

/// What a tracker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// To a connect.
    Connected {
        /// The request's.
        transaction: u32,
        /// To be named in announces.
        connection: u64,
    },
    /// To an announce.
    Announced {
        /// The request's.
        transaction: u32,
        /// Peers of the address family that the request came by.
        reply: AnnounceReply,
    },
    /// A refusal.
    Refused {
        /// The request's.
        transaction: u32,
        /// Why, for people.
        reason: String,
    },
}

/// A packet that is none of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad packet: expected {0}")]
pub struct PacketError(&'static str);

impl Request {
    /// The packet.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ANNOUNCE_LEN);
        match self {
            Request::Connect { transaction } => {
                out.extend(MAGIC.to_be_bytes());
                out.extend(CONNECT.to_be_bytes());
                out.extend(transaction.to_be_bytes());
            }
            Request::Announce { connection, transaction, announce, key, url_data } => {
                out.extend(connection.to_be_bytes());
                out.extend(ANNOUNCE.to_be_bytes());
                out.extend(transaction.to_be_bytes());
                out.extend(announce.info_hash);
                out.extend(announce.peer_id);
                for number in [announce.downloaded, announce.left, announce.uploaded] {
                    out.extend(number.to_be_bytes());
                }
                out.extend(event_number(announce.event).to_be_bytes());
                // The tracker sees where we are.
                out.extend([0; 4]);
                out.extend(key.to_be_bytes());
                // All ones: as many as it likes.
                out.extend(announce.numwant.unwrap_or(u32::MAX).to_be_bytes());
                out.extend(announce.port.to_be_bytes());
                for part in url_data[..url_data.len().min(MAX_URL_DATA)].chunks(255) {
                    out.extend([URL_DATA, part.len() as u8]);
                    out.extend(part);
                }
            }
        }
        out
    }

    /// Reads a packet, as a tracker does. Errors: it is none of the protocol.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PacketError> {
        let mut reader = Reader(bytes);
        let (connection, action, transaction) = (reader.u64()?, reader.u32()?, reader.u32()?);
        match action {
            CONNECT if connection == MAGIC => Ok(Request::Connect { transaction }),
            ANNOUNCE => {
                let (info_hash, peer_id) = (reader.array()?, reader.array()?);
                let (downloaded, left, uploaded) = (reader.u64()?, reader.u64()?, reader.u64()?);
                let (event, _ip, key) = (reader.u32()?, reader.u32()?, reader.u32()?);
                let (numwant, port) = (reader.u32()?, u16::from_be_bytes(reader.array()?));
                let announce = Announce {
                    info_hash,
                    peer_id,
                    port,
                    uploaded,
                    downloaded,
                    left,
                    event: event_of(event),
                    numwant: (numwant != u32::MAX).then_some(numwant),
                    compact: true,
                    no_peer_id: false,
                    authority: None,
                    ip: None,
                    passkey: None,
                };
                let url_data = url_data(reader)?;
                Ok(Request::Announce { connection, transaction, announce, key, url_data })
            }
            _ => Err(PacketError("a connect or an announce")),
        }
    }
}

impl Response {
    /// The request's transaction.
    pub fn transaction(&self) -> u32 {
        match self {
            Response::Connected { transaction, .. }
            | Response::Announced { transaction, .. }
            | Response::Refused { transaction, .. } => *transaction,
        }
    }

    /// The packet. `ipv6`: the request came by IPv6; peers of the other family are left out.
    pub fn to_bytes(&self, ipv6: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut head = |action: u32| {
            out.extend(action.to_be_bytes());
            out.extend(self.transaction().to_be_bytes());
        };
        match self {
            Response::Connected { connection, .. } => {
                head(CONNECT);
                out.extend(connection.to_be_bytes());
            }
            Response::Announced { reply, .. } => {
                head(ANNOUNCE);
                for number in [reply.interval, reply.incomplete, reply.complete] {
                    out.extend(number.to_be_bytes());
                }
                for peer in &reply.peers {
                    match peer.address.ip().to_canonical() {
                        IpAddr::V4(ip) if !ipv6 => out.extend(ip.octets()),
                        IpAddr::V6(ip) if ipv6 => out.extend(ip.octets()),
                        _ => continue,
                    }
                    out.extend(peer.address.port().to_be_bytes());
                }
            }
            Response::Refused { reason, .. } => {
                head(ERROR);
                out.extend(reason.as_bytes());
            }
        }
        out
    }

    /// Reads a packet that came by IPv6 or IPv4. Peers of port 0, a part of a peer at the end, and peers beyond
    /// [`MAX_PEERS`] are left out. Errors: it is none of the protocol.
    pub fn from_bytes(bytes: &[u8], ipv6: bool) -> Result<Self, PacketError> {
        let mut reader = Reader(bytes);
        let (action, transaction) = (reader.u32()?, reader.u32()?);
        match action {
            CONNECT => Ok(Response::Connected { transaction, connection: reader.u64()? }),
            ANNOUNCE => {
                let (interval, incomplete, complete) = (reader.u32()?, reader.u32()?, reader.u32()?);
                let peers = peers(reader, ipv6);
                let reply =
                    AnnounceReply { interval, complete, incomplete, peers, ..AnnounceReply::default() };
                Ok(Response::Announced { transaction, reply })
            }
            ERROR => {
                let reason = String::from_utf8_lossy(reader.0).into_owned();
                Ok(Response::Refused { transaction, reason })
            }
            _ => Err(PacketError("an answer to a connect or an announce")),
        }
    }
}

fn event_number(event: Option<Event>) -> u32 {
    match event {
        // There is no number for a pause.
        None | Some(Event::Paused) => 0,
        Some(Event::Completed) => 1,
        Some(Event::Started) => 2,
        Some(Event::Stopped) => 3,
    }
}

fn event_of(number: u32) -> Option<Event> {
    [None, Some(Event::Completed), Some(Event::Started), Some(Event::Stopped)]
        .get(number as usize)
        .copied()
        .flatten()
}

fn url_data(mut reader: Reader<'_>) -> Result<Vec<u8>, PacketError> {
    let mut url_data = Vec::new();
    while let Ok([option]) = reader.array() {
        match option {
            END_OF_OPTIONS => break,
            NOP => {}
            _ => {
                let [len] = reader.array()?;
                let part = reader.take(usize::from(len))?;
                if option == URL_DATA && url_data.len() + part.len() <= MAX_URL_DATA {
                    url_data.extend(part);
                }
            }
        }
    }
    Ok(url_data)
}

fn peers(mut reader: Reader<'_>, ipv6: bool) -> Vec<Peer> {
    let mut peers = Vec::new();
    let mut next = || -> Result<Peer, PacketError> {
        let ip = if ipv6 {
            IpAddr::from(Ipv6Addr::from(reader.array::<16>()?)).to_canonical()
        } else {
            Ipv4Addr::from(reader.array::<4>()?).into()
        };
        let port = u16::from_be_bytes(reader.array()?);
        Ok(Peer { address: SocketAddr::new(ip, port), id: None })
    };
    while let Ok(peer) = next() {
        if peers.len() == MAX_PEERS {
            break;
        }
        if peer.address.port() != 0 {
            peers.push(peer);
        }
    }
    peers
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], PacketError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(PacketError("more bytes"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PacketError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, PacketError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, PacketError> {
        self.array().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn announce() -> Announce {
        Announce {
            info_hash: [1; 20],
            peer_id: [2; 20],
            port: 6881,
            uploaded: 3,
            downloaded: 1,
            left: 2,
            event: Some(Event::Started),
            numwant: None,
            compact: true,
            no_peer_id: false,
            authority: None,
            ip: None,
            passkey: None,
        }
    }

    #[test]
    fn packets_are_those_of_bep_15() {
        let connect = Request::Connect { transaction: 7 };
        assert_eq!(hex::encode(connect.to_bytes()), "00000417271019800000000000000007");
        let request = Request::Announce {
            connection: 9,
            transaction: 8,
            announce: announce(),
            key: 5,
            url_data: Vec::new(),
        };
        let expected = [
            "0000000000000009",
            "00000001",
            "00000008",
            &"01".repeat(20),
            &"02".repeat(20),
            "0000000000000001",
            "0000000000000002",
            "0000000000000003",
            "00000002",
            "00000000",
            "00000005",
            "ffffffff",
            "1ae1",
        ];
        assert_eq!(hex::encode(request.to_bytes()), expected.concat());
        let answer =
            hex::decode("00000001000000080000003c00000001000000027f0000011ae17f000002000000").unwrap();
        let Ok(Response::Announced { transaction: 8, reply }) = Response::from_bytes(&answer, false) else {
            panic!("an answer to an announce");
        };
        assert_eq!((reply.interval, reply.incomplete, reply.complete), (60, 1, 2));
        let addresses: Vec<_> = reply.peers.iter().map(|peer| peer.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:6881"]);
        let refused = Response::from_bytes(b"\0\0\0\x03\0\0\0\x08no such torrent", true).unwrap();
        assert_eq!(refused, Response::Refused { transaction: 8, reason: "no such torrent".to_owned() });
    }

    #[test]
    fn a_long_path_goes_in_parts() {
        let url_data = [b'/'; 600].to_vec();
        let request =
            Request::Announce { connection: 9, transaction: 8, announce: announce(), key: 5, url_data };
        let bytes = request.to_bytes();
        assert_eq!(bytes.len(), ANNOUNCE_LEN + 600 + 3 * 2);
        assert_eq!(Request::from_bytes(&bytes), Ok(request));
        // A part that is cut off.
        assert!(Request::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn peers_are_of_the_family_that_was_asked_by() {
        let peers = ["127.0.0.1:1", "[2001:db8::1]:2"]
            .map(|text| Peer { address: text.parse().unwrap(), id: None })
            .to_vec();
        let reply = AnnounceReply { interval: 1, peers: peers.clone(), ..AnnounceReply::default() };
        let response = Response::Announced { transaction: 1, reply };
        for (ipv6, peer) in [(false, peers[0]), (true, peers[1])] {
            let bytes = response.to_bytes(ipv6);
            let Ok(Response::Announced { reply, .. }) = Response::from_bytes(&bytes, ipv6) else { panic!() };
            assert_eq!(reply.peers, [peer]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), ipv6: bool) {
            let _ = Request::from_bytes(&bytes);
            let _ = Response::from_bytes(&bytes, ipv6);
        }
    }
}
