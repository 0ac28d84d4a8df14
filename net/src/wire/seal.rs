//! The extension `ss_seal` of the peer protocol: its part of BEP 10's handshake, and the messages *ticket* and *want*, bencoded.

use serde::{Deserialize, Serialize};
use swarmseal_core::{KeyCommitment, SubscriberId, Ticket, TorrentId};

use super::bencode::{self, optional, optional_bytes};
use super::message::MAX_EXTENDED;

/// The version of the extension that this program speaks.
pub const VERSION: u64 = 1;
/// The number that we give to `ss_seal` in our extended handshake.
pub const OUR_ID: u8 = 1;
/// Pieces that a *want* names at most.
pub const MAX_WANT: usize = 256;

/// Why an extension message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is no such bencode.
    #[error(transparent)]
    Bencode(#[from] bencode::Error),
    /// A newer version of the extension.
    #[error("the peer speaks version {found} of ss_seal; this program speaks {VERSION}")]
    NewerVersion {
        /// The version found.
        found: u64,
    },
    /// A field is absent, or its value or length is not one of the message named.
    #[error("bad {0}")]
    Bad(&'static str),
}

/// BEP 10's handshake, as far as we read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedHandshake {
    /// The number that the sender gave to `ss_seal`, if it speaks it.
    pub seal_id: Option<u8>,
    /// The number that the sender gave to `lt_donthave` (BEP 54), if it listens to that.
    pub dont_have_id: Option<u8>,
    /// The sender's program.
    pub client: String,
    /// Requests that the sender keeps for us at most.
    pub reqq: u32,
    /// The port that the sender listens on.
    pub port: Option<u16>,
    /// Who the sender is in a sealed torrent.
    pub hello: Option<Hello>,
}

/// Who a peer says it is. Anybody can say it: a ticket's signature proves a subscriber, and a seed needs no proof, for what it sends
/// is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// A subscriber.
    Subscriber {
        /// The Ed25519 key that its tickets are signed with.
        identity: [u8; 32],
        /// What fixes its other keys.
        keys: KeyCommitment,
    },
    /// An original seed.
    Seed {
        /// Its Ed25519 key.
        key: [u8; 32],
    },
}

impl Hello {
    /// The id that these keys have in a torrent.
    pub fn id(&self, torrent: &TorrentId) -> SubscriberId {
        match self {
            Hello::Subscriber { identity, keys } => SubscriberId::of(torrent, identity, keys),
            Hello::Seed { key } => SubscriberId::of_seed(torrent, key),
        }
    }

    /// Whether it is an original seed.
    pub fn is_seed(&self) -> bool {
        matches!(self, Hello::Seed { .. })
    }
}

#[derive(Serialize, Deserialize)]
struct RawHandshake {
    #[serde(default)]
    m: RawIds,
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    p: Option<u16>,
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    reqq: Option<u32>,
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    ss_seal: Option<RawHello>,
    #[serde(default, with = "optional_bytes", skip_serializing_if = "Option::is_none")]
    v: Option<Vec<u8>>,
}

#[derive(Default, Serialize, Deserialize)]
struct RawIds {
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    lt_donthave: Option<u8>,
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    ss_seal: Option<u8>,
}

#[derive(Serialize, Deserialize)]
struct RawHello {
    #[serde(default, with = "optional_bytes", skip_serializing_if = "Option::is_none")]
    identity: Option<[u8; 32]>,
    #[serde(default, with = "optional_bytes", skip_serializing_if = "Option::is_none")]
    keys: Option<[u8; 32]>,
    #[serde(default, with = "optional_bytes", skip_serializing_if = "Option::is_none")]
    seed: Option<[u8; 32]>,
    v: u64,
}

impl ExtendedHandshake {
    /// The payload of extended message 0.
    pub fn to_bytes(&self) -> Vec<u8> {
        bencode::to_bytes(&RawHandshake {
            m: RawIds { lt_donthave: self.dont_have_id, ss_seal: self.seal_id },
            p: self.port,
            reqq: Some(self.reqq),
            ss_seal: self.hello.map(|hello| match hello {
                Hello::Subscriber { identity, keys } => {
                    RawHello { identity: Some(identity), keys: Some(keys.0), seed: None, v: VERSION }
                }
                Hello::Seed { key } => RawHello { identity: None, keys: None, seed: Some(key), v: VERSION },
            }),
            v: Some(self.client.clone().into_bytes()),
        })
    }

    /// Reads a payload. Strangers' keys are ignored; `client` is cut to 64 printable characters.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        let raw: RawHandshake = bencode::from_bytes(bytes, MAX_EXTENDED)?;
        let hello = raw.ss_seal.map(Hello::from_raw).transpose()?;
        let client = String::from_utf8_lossy(raw.v.as_deref().unwrap_or_default())
            .chars()
            .filter(|c| !c.is_control())
            .take(64)
            .collect();
        // 0 switches an extension off.
        let on = |id: Option<u8>| id.filter(|&id| id != 0);
        Ok(ExtendedHandshake {
            seal_id: on(raw.m.ss_seal),
            dont_have_id: on(raw.m.lt_donthave),
            client,
            reqq: raw.reqq.unwrap_or(250),
            port: raw.p.filter(|&port| port != 0),
            hello,
        })
    }
}

impl Hello {
    fn from_raw(raw: RawHello) -> Result<Self, SealError> {
        if raw.v > VERSION {
            return Err(SealError::NewerVersion { found: raw.v });
        }
        match raw {
            RawHello { identity: Some(identity), keys: Some(keys), seed: None, .. } => {
                Ok(Hello::Subscriber { identity, keys: KeyCommitment(keys) })
            }
            RawHello { identity: None, keys: None, seed: Some(key), .. } => Ok(Hello::Seed { key }),
            _ => Err(SealError::Bad("ss_seal: expected identity and keys, or seed")),
        }
    }
}

/// A message of `ss_seal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealMessage {
    /// The sender's word that the receiver may ask the tracker for re-keys to it.
    Ticket(Box<Ticket>),
    /// What the sender will request next, in that order.
    Want(Vec<u32>),
}

#[derive(Default, Serialize, Deserialize)]
struct Raw {
    #[serde(default, with = "optional_bytes", skip_serializing_if = "Option::is_none")]
    pieces: Option<Vec<u8>>,
    t: String,
    #[serde(default, with = "optional_bytes", skip_serializing_if = "Option::is_none")]
    ticket: Option<Vec<u8>>,
}

impl SealMessage {
    /// The payload of an extended message, after its id.
    pub fn to_bytes(&self) -> Vec<u8> {
        let raw = match self {
            SealMessage::Ticket(ticket) => {
                Raw { t: "ticket".into(), ticket: Some(ticket.to_bytes().to_vec()), ..Raw::default() }
            }
            SealMessage::Want(pieces) => Raw {
                t: "want".into(),
                pieces: Some(pieces.iter().flat_map(|piece| piece.to_be_bytes()).collect()),
                ..Raw::default()
            },
        };
        bencode::to_bytes(&raw)
    }

    /// Reads a payload. No signature is checked here. `Ok(None)`: a kind that this version does not know, to be ignored.
    pub fn from_bytes(bytes: &[u8]) -> Result<Option<Self>, SealError> {
        let raw: Raw = bencode::from_bytes(bytes, MAX_EXTENDED)?;
        Ok(Some(match raw.t.as_str() {
            "ticket" => {
                let bytes = raw.ticket.ok_or(SealError::Bad("ticket"))?;
                SealMessage::Ticket(Box::new(
                    Ticket::from_bytes(&bytes).map_err(|_| SealError::Bad("ticket"))?,
                ))
            }
            "want" => {
                let bytes = raw.pieces.ok_or(SealError::Bad("want"))?;
                if bytes.len() > 4 * MAX_WANT || bytes.len() % 4 != 0 {
                    return Err(SealError::Bad("want"));
                }
                SealMessage::Want(bytes.chunks_exact(4).map(big_endian).collect())
            }
            _ => return Ok(None),
        }))
    }
}

fn big_endian(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = SealMessage> {
        prop_oneof![
            (any::<[u8; 32]>(), any::<u64>(), any::<u64>()).prop_map(|(id, epoch, expires)| {
                SealMessage::Ticket(Box::new(Ticket {
                    torrent_id: TorrentId(id),
                    uploader: SubscriberId(id),
                    downloader: SubscriberId(id),
                    epoch,
                    expires,
                    signature: [5; 64],
                }))
            }),
            prop::collection::vec(any::<u32>(), 0..=MAX_WANT).prop_map(SealMessage::Want),
        ]
    }

    #[test]
    fn strangers_handshakes_are_read() {
        let bytes =
            b"d1:md11:lt_donthavei7e11:ut_metadatai3e6:ut_pexi1ee4:reqqi500e1:v15:\xce\xbcTorrent 1.2.3e";
        let read = ExtendedHandshake::from_bytes(bytes).unwrap();
        assert_eq!((read.seal_id, read.dont_have_id, read.reqq, read.hello), (None, Some(7), 500, None));
        assert!(read.client.starts_with("µ") || read.client.starts_with("μ"));
    }

    #[test]
    fn a_hello_names_a_subscriber_or_a_seed() {
        let id = "i".repeat(32);
        let hello = |fields: &[&str], v: u64| {
            let fields: String =
                fields.iter().map(|field| format!("{}:{field}32:{id}", field.len())).collect();
            ExtendedHandshake::from_bytes(format!("d7:ss_seald{fields}1:vi{v}eee").as_bytes())
        };
        let read = |fields: &[&str]| hello(fields, 1).map(|read| read.hello);
        let identity = [b'i'; 32];
        let subscriber = Hello::Subscriber { identity, keys: KeyCommitment(identity) };
        assert_eq!(read(&["identity", "keys"]), Ok(Some(subscriber)));
        assert_eq!(read(&["seed"]), Ok(Some(Hello::Seed { key: identity })));
        for fields in [&[][..], &["identity"], &["keys"], &["identity", "keys", "seed"], &["keys", "seed"]] {
            assert!(matches!(read(fields), Err(SealError::Bad(_))), "{fields:?}");
        }
        assert_eq!(hello(&["seed"], 2), Err(SealError::NewerVersion { found: 2 }));
        let torrent = TorrentId([1; 32]);
        assert_ne!(subscriber.id(&torrent), Hello::Seed { key: identity }.id(&torrent));
        assert_ne!(subscriber.id(&torrent), subscriber.id(&TorrentId([2; 32])));
    }

    #[test]
    fn unknown_kinds_are_ignored_and_long_lists_refused() {
        assert_eq!(SealMessage::from_bytes(b"d1:t5:helloe"), Ok(None));
        let long = SealMessage::Want(vec![0; MAX_WANT + 1]).to_bytes();
        assert_eq!(SealMessage::from_bytes(&long), Err(SealError::Bad("want")));
        assert_eq!(SealMessage::from_bytes(b"d1:t6:tickete"), Err(SealError::Bad("ticket")));
    }

    proptest! {
        #[test]
        fn messages_round_trip(message in message()) {
            let bytes = message.to_bytes();
            prop_assert!(bytes.len() <= MAX_EXTENDED);
            prop_assert_eq!(SealMessage::from_bytes(&bytes), Ok(Some(message)));
        }

        #[test]
        fn handshakes_round_trip(seal_id in 1u8.., dont_have_id in prop::option::of(1u8..), reqq: u32, port in prop::option::of(1u16..), id: [u8; 32], seed: bool) {
            let hello = if seed { Hello::Seed { key: id } } else { Hello::Subscriber { identity: id, keys: KeyCommitment([3; 32]) } };
            let sent =
                ExtendedHandshake { seal_id: Some(seal_id), dont_have_id, client: "x 1".into(), reqq, port, hello: Some(hello) };
            prop_assert_eq!(ExtendedHandshake::from_bytes(&sent.to_bytes()), Ok(sent));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = SealMessage::from_bytes(&bytes);
            let _ = ExtendedHandshake::from_bytes(&bytes);
        }

        #[test]
        fn damaged_messages_are_read_or_refused(message in message(), at: prop::sample::Index, byte: u8) {
            let mut bytes = message.to_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = SealMessage::from_bytes(&bytes);
        }
    }
}
