//! The extension `ss_seal` of the peer protocol: its part of BEP 10's handshake, and the messages *ticket*, *want*
//! and *statement*, bencoded.

use serde::{Deserialize, Serialize};
use swarmseal_core::{Profile, SubscriberId, Ticket, TorrentId};

use super::bencode::{self, optional, optional_bytes};
use super::identity::{BadSignature, SigningKey, purpose, verify};
use super::message::MAX_EXTENDED;

/// The version of the extension that this program speaks.
pub const VERSION: u64 = 1;
/// The number that we give to `ss_seal` in our extended handshake.
pub const OUR_ID: u8 = 1;
/// Pieces that a *want* names at most.
pub const MAX_WANT: usize = 256;
/// Entries that a *statement* has at most.
pub const MAX_ENTRIES: usize = 256;
/// Bytes of the longest [`Statement::to_bytes`].
pub const MAX_STATEMENT: usize = 8 + 8 + 64 + MAX_ENTRIES * ENTRY_LEN;

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

/// Who a peer says it is. Its signatures prove it, not this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Subscriber id, or an original seed's.
    pub id: SubscriberId,
    /// The Ed25519 key that its tickets and statements are signed with.
    pub identity: [u8; 32],
    /// Its epoch.
    pub epoch: u64,
    /// The torrent's profile.
    pub profile: Profile,
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
    epoch: u64,
    #[serde(with = "serde_bytes")]
    id: [u8; 32],
    #[serde(with = "serde_bytes")]
    identity: [u8; 32],
    profile: String,
    v: u64,
}

impl ExtendedHandshake {
    /// The payload of extended message 0.
    pub fn to_bytes(&self) -> Vec<u8> {
        bencode::to_bytes(&RawHandshake {
            m: RawIds { lt_donthave: self.dont_have_id, ss_seal: self.seal_id },
            p: self.port,
            reqq: Some(self.reqq),
            ss_seal: self.hello.map(|hello| RawHello {
                epoch: hello.epoch,
                id: hello.id.0,
                identity: hello.identity,
                profile: hello.profile.name().to_owned(),
                v: VERSION,
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
        let profile = Profile::by_name(&raw.profile).ok_or(SealError::Bad("profile"))?;
        Ok(Hello { id: SubscriberId(raw.id), identity: raw.identity, epoch: raw.epoch, profile })
    }
}

/// A message of `ss_seal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealMessage {
    /// The sender's word that the receiver may ask the tracker for re-keys to it.
    Ticket(Box<Ticket>),
    /// What the sender will request next, in that order.
    Want(Vec<u32>),
    /// What the sender sent.
    Statement(Box<Statement>),
}

/// The uploader's signed word on which ciphertexts it sent: what blame follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The receiver's epoch, for which the pieces were made.
    pub epoch: u64,
    /// When, in seconds since 1970 by the tracker's clock; later than the statements by which the uploader had these pieces
    /// itself, so that blame cannot go in circles.
    pub time: u64,
    /// Pieces and the BLAKE3 of each as sent.
    pub entries: Vec<Entry>,
    /// The uploader's signature.
    pub signature: [u8; 64],
}

/// One piece of a [`Statement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Index of the piece.
    pub piece: u32,
    /// BLAKE3 of the ciphertext sent.
    pub hash: [u8; 32],
}

/// Whose transfer a statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parties {
    /// The torrent.
    pub torrent_id: TorrentId,
    /// j, who sends pieces.
    pub uploader: SubscriberId,
    /// k, who gets them.
    pub downloader: SubscriberId,
}

impl Parties {
    fn signing_input(&self) -> Vec<u8> {
        [self.torrent_id.0, self.uploader.0, self.downloader.0].concat()
    }
}

const ENTRY_LEN: usize = 4 + 32;

impl Statement {
    /// The uploader signs.
    pub fn sign(key: &SigningKey, parties: &Parties, epoch: u64, time: u64, entries: Vec<Entry>) -> Self {
        let signature = key.sign(purpose::STATEMENT, &Self::signing_input(parties, epoch, time, &entries));
        Statement { epoch, time, entries, signature }
    }

    /// Checks it against the uploader's identity key.
    pub fn verify(&self, identity: &[u8; 32], parties: &Parties) -> Result<(), BadSignature> {
        let input = Self::signing_input(parties, self.epoch, self.time, &self.entries);
        verify(identity, purpose::STATEMENT, &input, &self.signature)
    }

    /// epoch (8) ‖ time (8) ‖ signature (64) ‖ entries, each index (4) and BLAKE3 (32).
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = [self.epoch.to_be_bytes(), self.time.to_be_bytes()].concat();
        [&numbers[..], &self.signature, &entries_to_bytes(&self.entries)].concat()
    }

    /// Reads [`Statement::to_bytes`]; `None` for a torn or too long one. No signature is checked here.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&epoch, bytes) = bytes.split_first_chunk()?;
        let (&time, bytes) = bytes.split_first_chunk()?;
        let (&signature, bytes) = bytes.split_first_chunk()?;
        let (epoch, time) = (u64::from_be_bytes(epoch), u64::from_be_bytes(time));
        Some(Statement { epoch, time, entries: entries_from_bytes(bytes)?, signature })
    }

    /// What it says of a piece.
    pub fn entry(&self, piece: u32) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.piece == piece)
    }

    fn signing_input(parties: &Parties, epoch: u64, time: u64, entries: &[Entry]) -> Vec<u8> {
        let mut input = parties.signing_input();
        input.extend_from_slice(&epoch.to_be_bytes());
        input.extend_from_slice(&time.to_be_bytes());
        input.extend_from_slice(&entries_to_bytes(entries));
        input
    }
}

/// Entries one after another: index of the piece (4) ‖ BLAKE3 (32).
fn entries_to_bytes(entries: &[Entry]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.piece.to_be_bytes().into_iter().chain(entry.hash)).collect()
}

/// Reads [`entries_to_bytes`]; `None` for a torn or too long list.
fn entries_from_bytes(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (entries, rest) = bytes.as_chunks::<ENTRY_LEN>();
    (rest.is_empty() && entries.len() <= MAX_ENTRIES)
        .then(|| entries.iter().map(|bytes| entry(bytes)).collect())
}

#[derive(Default, Serialize, Deserialize)]
struct Raw {
    #[serde(default, with = "optional_bytes", skip_serializing_if = "Option::is_none")]
    entries: Option<Vec<u8>>,
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(default, with = "optional_bytes", skip_serializing_if = "Option::is_none")]
    pieces: Option<Vec<u8>>,
    #[serde(default, with = "optional_bytes", skip_serializing_if = "Option::is_none")]
    signature: Option<[u8; 64]>,
    t: String,
    #[serde(default, with = "optional_bytes", skip_serializing_if = "Option::is_none")]
    ticket: Option<Vec<u8>>,
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    time: Option<u64>,
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
            SealMessage::Statement(statement) => Raw {
                t: "statement".into(),
                epoch: Some(statement.epoch),
                time: Some(statement.time),
                entries: Some(entries_to_bytes(&statement.entries)),
                signature: Some(statement.signature),
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
            "statement" => {
                let Raw {
                    epoch: Some(epoch),
                    time: Some(time),
                    entries: Some(entries),
                    signature: Some(signature),
                    ..
                } = raw
                else {
                    return Err(SealError::Bad("statement"));
                };
                let entries = entries_from_bytes(&entries).ok_or(SealError::Bad("statement"))?;
                SealMessage::Statement(Box::new(Statement { epoch, time, entries, signature }))
            }
            _ => return Ok(None),
        }))
    }
}

fn big_endian(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

fn entry(bytes: &[u8]) -> Entry {
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[4..]);
    Entry { piece: big_endian(&bytes[..4]), hash }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARTIES: Parties = Parties {
        torrent_id: TorrentId([1; 32]),
        uploader: SubscriberId([2; 32]),
        downloader: SubscriberId([3; 32]),
    };

    fn message() -> impl Strategy<Value = SealMessage> {
        let entry = (any::<u32>(), any::<[u8; 32]>()).prop_map(|(piece, hash)| Entry { piece, hash });
        let key = SigningKey::from_bytes(&[9; 32]);
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
            (any::<[u64; 2]>(), prop::collection::vec(entry, 0..=MAX_ENTRIES)).prop_map(
                move |([epoch, time], entries)| {
                    SealMessage::Statement(Box::new(Statement::sign(&key, &PARTIES, epoch, time, entries)))
                }
            ),
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
    fn newer_versions_and_other_profiles_are_named() {
        let id = "i".repeat(32);
        let hello = |profile: &str, v: u64| {
            let text = format!(
                "d7:ss_seald5:epochi1e2:id32:{id}8:identity32:{id}7:profile{}:{profile}1:vi{v}eee",
                profile.len()
            );
            ExtendedHandshake::from_bytes(text.as_bytes())
        };
        assert!(hello("sealed", 1).is_ok());
        assert_eq!(hello("sealed", 2), Err(SealError::NewerVersion { found: 2 }));
        assert_eq!(hello("melted", 1), Err(SealError::Bad("profile")));
    }

    #[test]
    fn a_signature_holds_for_its_parties_only() {
        let key = SigningKey::from_bytes(&[9; 32]);
        let other = Parties { downloader: SubscriberId([4; 32]), ..PARTIES };
        let statement = Statement::sign(&key, &PARTIES, 1, 7, vec![Entry { piece: 1, hash: [0; 32] }]);
        assert!(statement.verify(&key.public(), &PARTIES).is_ok());
        assert!(statement.verify(&key.public(), &other).is_err());
        assert!(Statement { epoch: 2, ..statement.clone() }.verify(&key.public(), &PARTIES).is_err());
        assert!(Statement { time: 8, ..statement }.verify(&key.public(), &PARTIES).is_err());
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
        fn handshakes_round_trip(seal_id in 1u8.., dont_have_id in prop::option::of(1u8..), reqq: u32, port in prop::option::of(1u16..), id: [u8; 32], epoch: u64) {
            let hello = Hello { id: SubscriberId(id), identity: id, epoch, profile: Profile::Sealed };
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
