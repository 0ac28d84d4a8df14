//! Announce and scrape: BEP 3, compact peers (BEP 23, and BEP 7 for IPv6), private torrents (BEP 27) and scrape (BEP 48).
//!
//! Replies carry keys of our own: `now`, the tracker's clock, by which tickets expire; for subscribers `epoch`, that of their
//! subscription; and `authority`, a newer one than the client says that it has.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::{ByteArray, ByteBuf};

use crate::wire::api::Passkey;
use crate::wire::bencode::{self, optional};

/// Bytes of the longest query that is read.
pub const MAX_QUERY: usize = 8192;
/// Info-hashes in one scrape.
pub const MAX_SCRAPE: usize = 64;
/// Peers in one reply.
pub const MAX_PEERS: usize = 2000;
/// Bytes of the longest reply that is read.
pub const MAX_REPLY: usize = 256 * 1024;

/// Why a query was refused. The text is what a client shows its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Longer than [`MAX_QUERY`].
    #[error("the query is too long")]
    TooLong,
    /// A key that must be there is not.
    #[error("the query has no {0}")]
    Missing(&'static str),
    /// A value is not what its key needs.
    #[error("bad {0} in the query")]
    Bad(&'static str),
}

/// Why a reply could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The tracker's `failure reason`.
    #[error("the tracker refused: {0}")]
    Refused(String),
    /// Not a reply.
    #[error("bad tracker reply: {0}")]
    Malformed(#[from] bencode::Error),
}

/// What happened to the download since the last announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first announce.
    Started,
    /// The last one.
    Stopped,
    /// The last piece arrived.
    Completed,
    /// Not looking for more pieces (BEP 21).
    Paused,
}

impl Event {
    const ALL: [Event; 4] = [Event::Started, Event::Stopped, Event::Completed, Event::Paused];

    /// The word in the query.
    pub const fn name(self) -> &'static str {
        match self {
            Event::Started => "started",
            Event::Stopped => "stopped",
            Event::Completed => "completed",
            Event::Paused => "paused",
        }
    }
}

/// One announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// SHA-1 of the info dictionary.
    pub info_hash: [u8; 20],
    /// The peer's name for itself.
    pub peer_id: [u8; 20],
    /// Where the peer listens.
    pub port: u16,
    /// Bytes sent since `started`.
    pub uploaded: u64,
    /// Bytes received since `started`.
    pub downloaded: u64,
    /// Bytes still missing; 0 for a seed.
    pub left: u64,
    /// What happened, if anything.
    pub event: Option<Event>,
    /// Peers wanted, where the peer says.
    pub numwant: Option<u32>,
    /// Six and eighteen bytes a peer (BEP 23, BEP 7) and not dictionaries.
    pub compact: bool,
    /// Dictionaries may leave out peers' ids.
    pub no_peer_id: bool,
    /// The address that the peer says it has. A tracker need not believe it.
    pub ip: Option<IpAddr>,
    /// `?passkey=`, for clients that keep it out of the path.
    pub passkey: Option<Passkey>,
    /// The serial of the newest authority that the peer knows; none from other clients.
    pub authority: Option<u64>,
}

impl Announce {
    /// Reads the part of the URL after `?`. Unknown keys are ignored; of a repeated key the first counts.
    pub fn from_query(query: &str) -> Result<Self, QueryError> {
        // Most requests of a tracker are this one: the query is gone through once, and nothing is allocated unless a short
        // value is percent-encoded without need.
        let query = Query::new(query)?.firsts(&[
            "info_hash",
            "peer_id",
            "port",
            "uploaded",
            "downloaded",
            "left",
            "event",
            "numwant",
            "compact",
            "no_peer_id",
            "ip",
            "passkey",
            "authority",
        ]);
        let [
            info_hash,
            peer_id,
            port,
            uploaded,
            downloaded,
            left,
            event,
            numwant,
            compact,
            no_peer_id,
            ip,
            passkey,
            authority,
        ] = query;
        let event = event
            .map(decoded)
            .and_then(|word| Event::ALL.into_iter().find(|event| event.name().as_bytes() == word.as_ref()));
        let passkey = match passkey.and_then(text) {
            Some(text) => Some(Passkey::from_hex(&text).ok_or(QueryError::Bad("passkey"))?),
            None => None,
        };
        Ok(Announce {
            info_hash: fixed("info_hash", info_hash)?,
            peer_id: fixed("peer_id", peer_id)?,
            port: number("port", port)?.ok_or(QueryError::Missing("port"))?,
            uploaded: number("uploaded", uploaded)?.unwrap_or(0),
            downloaded: number("downloaded", downloaded)?.unwrap_or(0),
            left: number("left", left)?.unwrap_or(u64::MAX),
            event,
            // Clients in the wild send −1 for "as many as you like".
            numwant: numwant.and_then(text).and_then(|text| text.parse().ok()),
            compact: compact.and_then(text).as_deref() != Some("0"),
            no_peer_id: no_peer_id.and_then(text).as_deref() == Some("1"),
            ip: ip.and_then(text).and_then(|text| text.parse().ok()),
            passkey,
            authority: authority.and_then(text).and_then(|text| text.parse().ok()),
        })
    }

    /// The part of the URL after `?`.
    pub fn to_query(&self) -> String {
        let mut out = String::with_capacity(256);
        out.push_str("info_hash=");
        percent_encode(&self.info_hash, &mut out);
        out.push_str("&peer_id=");
        percent_encode(&self.peer_id, &mut out);
        let _ = write!(
            out,
            "&port={}&uploaded={}&downloaded={}&left={}&compact={}",
            self.port,
            self.uploaded,
            self.downloaded,
            self.left,
            u8::from(self.compact)
        );
        if let Some(event) = self.event {
            let _ = write!(out, "&event={}", event.name());
        }
        if let Some(numwant) = self.numwant {
            let _ = write!(out, "&numwant={numwant}");
        }
        if self.no_peer_id {
            out.push_str("&no_peer_id=1");
        }
        if let Some(ip) = self.ip {
            out.push_str("&ip=");
            percent_encode(ip.to_string().as_bytes(), &mut out);
        }
        if let Some(passkey) = &self.passkey {
            let _ = write!(out, "&passkey={}", passkey.to_hex());
        }
        if let Some(serial) = self.authority {
            let _ = write!(out, "&authority={serial}");
        }
        out
    }
}

/// One scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrape {
    /// The torrents asked about; at most [`MAX_SCRAPE`].
    pub info_hashes: Vec<[u8; 20]>,
    /// `?passkey=`, for clients that keep it out of the path.
    pub passkey: Option<Passkey>,
}

impl Scrape {
    /// Reads the part of the URL after `?`.
    pub fn from_query(query: &str) -> Result<Self, QueryError> {
        let query = Query::new(query)?;
        let info_hashes = query
            .all("info_hash")
            .map(|value| fixed("info_hash", Some(value)))
            .collect::<Result<Vec<[u8; 20]>, _>>()?;
        if info_hashes.is_empty() {
            return Err(QueryError::Missing("info_hash"));
        }
        if info_hashes.len() > MAX_SCRAPE {
            return Err(QueryError::TooLong);
        }
        let passkey = match query.all("passkey").next().and_then(text) {
            Some(text) => Some(Passkey::from_hex(&text).ok_or(QueryError::Bad("passkey"))?),
            None => None,
        };
        Ok(Scrape { info_hashes, passkey })
    }

    /// The part of the URL after `?`.
    pub fn to_query(&self) -> String {
        let mut out = String::new();
        for info_hash in &self.info_hashes {
            out.push_str(if out.is_empty() { "info_hash=" } else { "&info_hash=" });
            percent_encode(info_hash, &mut out);
        }
        if let Some(passkey) = &self.passkey {
            let _ = write!(out, "&passkey={}", passkey.to_hex());
        }
        out
    }
}

/// A peer in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its name for itself, in replies of dictionaries.
    pub id: Option<[u8; 20]>,
}

/// What the tracker answers to an announce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceReply {
    /// Seconds until the next announce.
    pub interval: u32,
    /// Seconds that must pass before another.
    pub min_interval: Option<u32>,
    /// Seeds in the swarm.
    pub complete: u32,
    /// Others in the swarm.
    pub incomplete: u32,
    /// Some of them.
    pub peers: Vec<Peer>,
    /// Something for the user to read.
    pub warning: Option<String>,
    /// The tracker's clock, seconds since 1970.
    pub now: Option<u64>,
    /// The epoch of the subscription whose passkey it was.
    pub epoch: Option<u64>,
    /// A newer authority of the torrent's publisher: a statement of [`crate::wire::authority`].
    pub authority: Option<Vec<u8>>,
}

#[derive(Deserialize, Serialize)]
struct RawAnnounceReply {
    #[serde(default, skip_serializing_if = "Option::is_none", with = "bencode::optional_bytes")]
    authority: Option<Vec<u8>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    complete: u32,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    epoch: Option<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    incomplete: u32,
    #[serde(rename = "failure reason", default, skip_serializing_if = "Option::is_none", with = "optional")]
    failure: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    interval: u32,
    #[serde(rename = "min interval", default, skip_serializing_if = "Option::is_none", with = "optional")]
    min_interval: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    now: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    peers: Option<Peers>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    peers6: Option<ByteBuf>,
    #[serde(rename = "warning message", default, skip_serializing_if = "Option::is_none", with = "optional")]
    warning: Option<String>,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl AnnounceReply {
    /// Encodes it, with six and eighteen bytes a peer or, if not `compact`, with dictionaries.
    pub fn to_bytes(&self, compact: bool) -> Vec<u8> {
        if compact {
            return self.to_compact();
        }
        let peers = Peers::Dictionaries(self.peers.iter().map(PeerDictionary::from).collect());
        bencode::to_bytes(&self.raw(peers, None))
    }

    /// Written by hand, in the order of the keys: it is most of what a tracker sends.
    fn to_compact(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160 + 6 * self.peers.len());
        out.push(b'd');
        if let Some(authority) = &self.authority {
            let _ = write!(out, "9:authority{}:", authority.len());
            out.extend_from_slice(authority);
        }
        // What is 0 is left out, and read as 0.
        write_number(&mut out, "8:complete", Some(self.complete.into()).filter(|&count| count > 0));
        write_number(&mut out, "5:epoch", self.epoch);
        write_number(&mut out, "10:incomplete", Some(self.incomplete.into()).filter(|&count| count > 0));
        write_number(&mut out, "8:interval", Some(self.interval.into()).filter(|&seconds| seconds > 0));
        write_number(&mut out, "12:min interval", self.min_interval.map(u64::from));
        write_number(&mut out, "3:now", self.now);
        let v4 = |peer: &&Peer| peer.address.ip().to_canonical().is_ipv4();
        let count = self.peers.iter().filter(v4).count();
        let _ = write!(out, "5:peers{}:", 6 * count);
        self.peers.iter().filter(v4).for_each(|peer| write_compact(peer.address, &mut out));
        if count < self.peers.len() {
            let _ = write!(out, "6:peers6{}:", 18 * (self.peers.len() - count));
            self.peers.iter().filter(|peer| !v4(peer)).for_each(|peer| write_compact(peer.address, &mut out));
        }
        if let Some(warning) = &self.warning {
            let _ = write!(out, "15:warning message{}:{warning}", warning.len());
        }
        out.push(b'e');
        out
    }

    fn raw(&self, peers: Peers, peers6: Option<ByteBuf>) -> RawAnnounceReply {
        RawAnnounceReply {
            authority: self.authority.clone(),
            complete: self.complete,
            epoch: self.epoch,
            incomplete: self.incomplete,
            failure: None,
            interval: self.interval,
            min_interval: self.min_interval,
            now: self.now,
            peers: Some(peers),
            peers6,
            warning: self.warning.clone(),
        }
    }

    /// Reads a reply of either form. Errors: [`ReplyError`]; peers of port 0, and those beyond [`MAX_PEERS`], are left out.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReplyError> {
        let raw: RawAnnounceReply = bencode::from_bytes(bytes, MAX_REPLY)?;
        if let Some(reason) = raw.failure {
            return Err(ReplyError::Refused(reason));
        }
        let mut peers: Vec<Peer> = match raw.peers {
            Some(Peers::Compact(v4)) => read_compact_v4(&v4)?,
            Some(Peers::Dictionaries(list)) => list.iter().filter_map(PeerDictionary::peer).collect(),
            None => Vec::new(),
        };
        if let Some(v6) = raw.peers6 {
            peers.extend(read_compact_v6(&v6)?);
        }
        peers.retain(|peer| peer.address.port() != 0);
        peers.truncate(MAX_PEERS);
        Ok(AnnounceReply {
            interval: raw.interval,
            min_interval: raw.min_interval,
            complete: raw.complete,
            incomplete: raw.incomplete,
            peers,
            warning: raw.warning,
            now: raw.now,
            epoch: raw.epoch,
            authority: raw.authority,
        })
    }
}

/// What the tracker says of one torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ScrapeEntry {
    /// Seeds.
    pub complete: u32,
    /// Downloads that were finished, ever.
    pub downloaded: u32,
    /// Others.
    pub incomplete: u32,
}

/// What the tracker answers to a scrape; torrents that it does not know are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrapeReply {
    /// By info-hash.
    pub files: BTreeMap<[u8; 20], ScrapeEntry>,
    /// The tracker's clock, seconds since 1970.
    pub now: Option<u64>,
}

#[derive(Deserialize, Serialize)]
struct RawScrapeReply {
    #[serde(rename = "failure reason", default, skip_serializing_if = "Option::is_none", with = "optional")]
    failure: Option<String>,
    #[serde(default)]
    files: BTreeMap<ByteArray<20>, ScrapeEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    now: Option<u64>,
}

impl ScrapeReply {
    /// Encodes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let files = self.files.iter().map(|(hash, entry)| (ByteArray::new(*hash), *entry)).collect();
        bencode::to_bytes(&RawScrapeReply { failure: None, files, now: self.now })
    }

    /// Reads it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReplyError> {
        let raw: RawScrapeReply = bencode::from_bytes(bytes, MAX_REPLY)?;
        if let Some(reason) = raw.failure {
            return Err(ReplyError::Refused(reason));
        }
        let files = raw.files.into_iter().map(|(hash, entry)| (hash.into_array(), entry)).collect();
        Ok(ScrapeReply { files, now: raw.now })
    }
}

/// The reply of a tracker that refuses: a bencoded `failure reason`, sent with HTTP 200.
pub fn failure(reason: &str) -> Vec<u8> {
    format!("d14:failure reason{}:{reason}e", reason.len()).into_bytes()
}

/// `peers` in either form.
enum Peers {
    Compact(Vec<u8>),
    Dictionaries(Vec<PeerDictionary>),
}

#[derive(Deserialize, Serialize)]
struct PeerDictionary {
    ip: String,
    #[serde(rename = "peer id", default, skip_serializing_if = "Option::is_none", with = "optional")]
    id: Option<ByteArray<20>>,
    port: u16,
}

impl From<&Peer> for PeerDictionary {
    fn from(peer: &Peer) -> Self {
        PeerDictionary {
            ip: peer.address.ip().to_string(),
            id: peer.id.map(ByteArray::new),
            port: peer.address.port(),
        }
    }
}

impl PeerDictionary {
    /// A peer, unless it is named by a host name: those are not looked up.
    fn peer(&self) -> Option<Peer> {
        let ip: IpAddr = self.ip.parse().ok()?;
        let id = self.id.map(ByteArray::into_array);
        Some(Peer { address: SocketAddr::new(ip.to_canonical(), self.port), id })
    }
}

impl Serialize for Peers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Peers::Compact(bytes) => serializer.serialize_bytes(bytes),
            Peers::Dictionaries(list) => list.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Peers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Peers;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("compact peers or a list of dictionaries")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Peers, E> {
                Ok(Peers::Compact(bytes.to_vec()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Peers, A::Error> {
                let mut peers = Vec::new();
                while let Some(peer) = list.next_element()? {
                    peers.push(peer);
                }
                Ok(Peers::Dictionaries(peers))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Six bytes, or eighteen.
fn write_compact(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

/// A key with its length, and a number; nothing where there is none.
fn write_number(out: &mut Vec<u8>, key: &str, number: Option<u64>) {
    if let Some(number) = number {
        let _ = write!(out, "{key}i{number}e");
    }
}

fn read_compact_v4(bytes: &[u8]) -> Result<Vec<Peer>, bencode::Error> {
    let (chunks, rest) = bytes.as_chunks::<6>();
    if !rest.is_empty() {
        return Err(bencode::Error::Shape("`peers` is not six bytes a peer".to_owned()));
    }
    let peer = |&[a, b, c, d, high, low]: &[u8; 6]| {
        peer_at(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), u16::from_be_bytes([high, low]))
    };
    Ok(chunks.iter().map(peer).collect())
}

fn read_compact_v6(bytes: &[u8]) -> Result<Vec<Peer>, bencode::Error> {
    let (chunks, rest) = bytes.as_chunks::<18>();
    if !rest.is_empty() {
        return Err(bencode::Error::Shape("`peers6` is not eighteen bytes a peer".to_owned()));
    }
    let peer = |chunk: &[u8; 18]| {
        let mut ip = [0; 16];
        ip.copy_from_slice(&chunk[..16]);
        peer_at(IpAddr::V6(Ipv6Addr::from(ip)), u16::from_be_bytes([chunk[16], chunk[17]]))
    };
    Ok(chunks.iter().map(peer).collect())
}

fn peer_at(ip: IpAddr, port: u16) -> Peer {
    Peer { address: SocketAddr::new(ip.to_canonical(), port), id: None }
}

/// The pairs of a query, still percent-encoded.
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn new(query: &'a str) -> Result<Self, QueryError> {
        if query.len() > MAX_QUERY { Err(QueryError::TooLong) } else { Ok(Query(query)) }
    }

    /// The first value of each key.
    fn firsts<const N: usize>(&self, keys: &[&str; N]) -> [Option<&'a str>; N] {
        let mut firsts = [None; N];
        for (name, value) in self.0.split('&').filter_map(|pair| pair.split_once('=')) {
            if let Some(at) = keys.iter().position(|key| *key == name) {
                firsts[at].get_or_insert(value);
            }
        }
        firsts
    }

    fn all(&self, key: &'static str) -> impl Iterator<Item = &'a str> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(move |(name, _)| *name == key).map(|(_, value)| value)
    }
}

/// A value's bytes.
fn decoded(value: &str) -> Cow<'_, [u8]> {
    if value.contains('%') { percent_decode(value).into() } else { value.as_bytes().into() }
}

fn text(value: &str) -> Option<Cow<'_, str>> {
    if value.contains('%') {
        String::from_utf8(percent_decode(value)).ok().map(Cow::from)
    } else {
        Some(value.into())
    }
}

fn fixed(key: &'static str, value: Option<&str>) -> Result<[u8; 20], QueryError> {
    let mut bytes = [0; 20];
    let mut filled = 0;
    for byte in percent_decoded(value.ok_or(QueryError::Missing(key))?) {
        *bytes.get_mut(filled).ok_or(QueryError::Bad(key))? = byte;
        filled += 1;
    }
    if filled == bytes.len() { Ok(bytes) } else { Err(QueryError::Bad(key)) }
}

fn number<T: std::str::FromStr>(key: &'static str, value: Option<&str>) -> Result<Option<T>, QueryError> {
    let Some(value) = value else { return Ok(None) };
    let bytes = decoded(value);
    let text = str::from_utf8(&bytes).map_err(|_| QueryError::Bad(key))?;
    text.parse().map(Some).map_err(|_| QueryError::Bad(key))
}

/// Appends bytes as RFC 3986 writes them: unreserved characters plain, everything else as %XX.
pub fn percent_encode(bytes: &[u8], out: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// The bytes of a percent-encoded value. A `%` that no two hexadecimal digits follow stands for itself; `+` is a plus, as
/// binary values need it.
pub fn percent_decode(text: &str) -> Vec<u8> {
    percent_decoded(text).collect()
}

fn percent_decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        if let (b'%', &[high, low, ref after @ ..]) = (first, after)
            && let (Some(high), Some(low)) = (hex_digit(high), hex_digit(low))
        {
            rest = after;
            return Some((high << 4) | low);
        }
        rest = after;
        Some(first)
    })
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
    }

    fn event() -> impl Strategy<Value = Option<Event>> {
        prop::option::of(prop::sample::select(Event::ALL.to_vec()))
    }

    prop_compose! {
        fn announce()(
            info_hash: [u8; 20],
            peer_id: [u8; 20],
            port: u16,
            counts: (u64, u64, u64),
            event in event(),
            numwant: Option<u32>,
            compact: bool,
            no_peer_id: bool,
            ip: Option<IpAddr>,
            passkey: Option<[u8; 16]>,
            authority: Option<u64>,
        ) -> Announce {
            let (uploaded, downloaded, left) = counts;
            let passkey = passkey.map(Passkey::new);
            Announce {
                info_hash, peer_id, port, uploaded, downloaded, left, event, numwant, compact, no_peer_id, ip, passkey, authority,
            }
        }
    }

    proptest! {
        #[test]
        fn an_announce_survives_its_query(announce in announce()) {
            prop_assert_eq!(Announce::from_query(&announce.to_query()).unwrap(), announce);
        }

        #[test]
        fn a_scrape_survives_its_query(
            info_hashes in prop::collection::vec(any::<[u8; 20]>(), 1..=MAX_SCRAPE),
            passkey: Option<[u8; 16]>,
        ) {
            let scrape = Scrape { info_hashes, passkey: passkey.map(Passkey::new) };
            prop_assert_eq!(Scrape::from_query(&scrape.to_query()).unwrap(), scrape);
        }

        #[test]
        fn no_query_panics(query: String) {
            let _ = Announce::from_query(&query);
            let _ = Scrape::from_query(&query);
        }

        #[test]
        fn no_reply_panics(bytes: Vec<u8>) {
            let _ = AnnounceReply::from_bytes(&bytes);
            let _ = ScrapeReply::from_bytes(&bytes);
        }

        #[test]
        fn any_bytes_survive_percent_encoding(bytes: Vec<u8>) {
            let mut text = String::new();
            percent_encode(&bytes, &mut text);
            prop_assert_eq!(percent_decode(&text), bytes);
        }

        #[test]
        fn a_compact_reply_keeps_its_addresses(
            addresses in prop::collection::vec(address(), 0..60),
            interval: u32,
            min_interval: Option<u32>,
            counts: (u32, u32),
            now: Option<u64>,
            epoch: Option<u64>,
        ) {
            let mut peers: Vec<Peer> = addresses.into_iter().map(|address| Peer { address, id: None }).collect();
            peers.sort_by_key(|peer| peer.address.is_ipv6());
            let (complete, incomplete) = counts;
            let reply = AnnounceReply { interval, min_interval, complete, incomplete, peers, warning: None, now, epoch, authority: epoch.map(|_| vec![0xE9; 3]) };
            prop_assert_eq!(AnnounceReply::from_bytes(&reply.to_bytes(true)).unwrap(), reply);
        }

        #[test]
        fn a_compact_reply_is_the_bencoding_of_its_entries(
            addresses in prop::collection::vec(address(), 0..60),
            numbers: (u32, u32, u32),
            min_interval: Option<u32>,
            now: Option<u64>,
            warning: Option<String>,
            epoch: Option<u64>,
        ) {
            let peers: Vec<Peer> = addresses.into_iter().map(|address| Peer { address, id: None }).collect();
            let (complete, incomplete, interval) = numbers;
            let reply = AnnounceReply { interval, min_interval, complete, incomplete, peers, warning, now, epoch, authority: None };
            let (mut v4, mut v6) = (Vec::new(), Vec::new());
            for peer in &reply.peers {
                write_compact(peer.address, if peer.address.is_ipv4() { &mut v4 } else { &mut v6 });
            }
            let v6 = (!v6.is_empty()).then(|| ByteBuf::from(v6));
            prop_assert_eq!(reply.to_bytes(true), bencode::to_bytes(&reply.raw(Peers::Compact(v4), v6)));
        }

        #[test]
        fn a_reply_of_dictionaries_keeps_ids(
            peers in prop::collection::vec((address(), any::<Option<[u8; 20]>>()), 0..20),
            now: u64,
        ) {
            let peers = peers.into_iter().map(|(address, id)| Peer { address, id }).collect();
            let warning = Some("slow down".to_owned());
            let reply = AnnounceReply { peers, warning, now: Some(now), ..Default::default() };
            prop_assert_eq!(AnnounceReply::from_bytes(&reply.to_bytes(false)).unwrap(), reply);
        }

        #[test]
        fn a_scrape_reply_survives(files: BTreeMap<[u8; 20], (u32, u32, u32)>, now: Option<u64>) {
            let files = files
                .into_iter()
                .map(|(hash, (complete, downloaded, incomplete))| (hash, ScrapeEntry { complete, downloaded, incomplete }))
                .collect();
            let reply = ScrapeReply { files, now };
            prop_assert_eq!(ScrapeReply::from_bytes(&reply.to_bytes()).unwrap(), reply);
        }
    }

    #[test]
    fn a_stock_client_s_query_is_read() {
        let query = "info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A&peer_id=-TR4000-abcdefghijkl&port=51413\
                     &uploaded=0&downloaded=0&left=1024&numwant=-1&key=5b1c&compact=1&supportcrypto=1&event=started";
        let announce = Announce::from_query(query).unwrap();
        assert_eq!(hex::encode(announce.info_hash), "123456789abcdef123456789abcdef123456789a");
        assert_eq!(&announce.peer_id, b"-TR4000-abcdefghijkl");
        assert_eq!((announce.port, announce.left, announce.numwant), (51413, 1024, None));
        assert_eq!(announce.event, Some(Event::Started));
    }

    #[test]
    fn a_query_without_what_it_needs_names_it() {
        assert_eq!(Announce::from_query("peer_id=a"), Err(QueryError::Missing("info_hash")));
        assert_eq!(Announce::from_query("info_hash=abc"), Err(QueryError::Bad("info_hash")));
        let twenty = "a".repeat(20);
        assert_eq!(Announce::from_query(&format!("info_hash={twenty}a")), Err(QueryError::Bad("info_hash")));
        let query = format!("info_hash={twenty}&peer_id={twenty}&port=70000");
        assert_eq!(Announce::from_query(&query), Err(QueryError::Bad("port")));
        assert_eq!(Scrape::from_query(""), Err(QueryError::Missing("info_hash")));
        let many = vec![format!("info_hash={twenty}"); MAX_SCRAPE + 1].join("&");
        assert_eq!(Scrape::from_query(&many), Err(QueryError::TooLong));
    }

    #[test]
    fn a_failure_is_an_error_of_the_reader() {
        let refused = AnnounceReply::from_bytes(&failure("go away")).unwrap_err();
        assert!(matches!(refused, ReplyError::Refused(reason) if reason == "go away"));
        let refused = ScrapeReply::from_bytes(&failure("no")).unwrap_err();
        assert!(matches!(refused, ReplyError::Refused(reason) if reason == "no"));
    }

    #[test]
    fn ragged_compact_peers_are_refused() {
        assert!(AnnounceReply::from_bytes(b"d8:intervali9e5:peers7:abcdefge").is_err());
        assert!(AnnounceReply::from_bytes(b"d8:intervali9e6:peers65:abcdee").is_err());
    }
}
