//! Bodies of the tracker's calls: bencoded dictionaries over `POST`.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /identify` | [`Identify`], as a query | [`Identified`] |
//! | `/subscribe` | [`Subscribe`] | [`Subscribed`] |
//! | `/session` | [`OpenSession`] | [`SessionOpened`] |
//! | `/passkey` | [`PasskeyRequest`] | [`PasskeyReply`]: the current one, or another instead |
//! | `/rekey` | [`ReKeyRequest`] | [`Keys`]: re-keys |
//! | `/witness` | [`WitnessRequest`] | [`WitnessKeys`]: the subscriber's own |
//! | `/license` | [`LicenseRequest`] | [`LicenseReply`] |
//! | `/license` of a license server apart | [`LicenseWord`] | [`LicenseReply`] |
//! | `/license/order` | [`LicenseOrder`] | [`LicenseFilled`] |
//! | `/devices` | [`DevicesRequest`] | [`Devices`]: those that hold the subscriber's grant |
//! | `/devices/revoke` | [`RevokeDevice`] | [`Devices`] that are left |
//! | `/seed/keys` | [`SeedKeysRequest`] | [`Keys`]: encryption keys |
//! | `/seed/work` | [`WorkRequest`] | [`Work`]: cipher hashes to compute |
//! | `/seed/hashes` | [`NewHashes`] | [`Acknowledged`] |
//! | `/hashes` | [`HashesRequest`] | [`Hashes`]: the subscriber's own |
//! | `/personal` | [`PersonalRequest`] | [`Personal`]: whose torrent it is |
//! | `/personal/rekey` | [`PersonalKeysRequest`] | [`Keys`]: re-keys |
//! | `/personal/clients` | [`ClientsRequest`] | [`Clients`]: ordinary clients with personal torrents |
//! | `/personal/pull` | [`PersonalKeysRequest`] | [`Keys`]: re-keys from it |
//! | `/seed/personal` | [`PersonalKeysRequest`] | [`Keys`]: encryption keys |
//!
//! A client sends nothing but [`Identify`] before the answer shows that it reached the publisher's tracker. `/subscribe`, `/session` and a
//! word to a license server carry that [`Contact`] under their signature. All other calls go with `Authorization: Bearer` and the token of
//! a session. A refusal is an HTTP status of 400 or more with a [`Failure`]. Every answer carries `now`, the tracker's clock.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use swarmseal_core::{Proof, PublicKey, SubscriberId, Ticket, TorrentId};

use crate::wire::bencode::{self, optional};
use crate::wire::identity::{self, BadSignature, Identity, SigningKey, is_public_key, purpose};
use crate::wire::origin::Origin;
use crate::wire::voucher::VoucherCode;

/// Pieces that one call may ask keys for.
pub const MAX_PIECES: usize = 512;
/// Pieces that one call may ask witness keys for.
pub const MAX_WITNESS_PIECES: usize = 256;
/// Bytes of the longest body that a client sends.
pub const MAX_BODY: usize = 16 * 1024;
/// Bytes of the longest answer, but for licenses.
pub const MAX_ANSWER: usize = MAX_PIECES * swarmseal_core::MAX_BYTES + 4096;
/// Ordinary clients in one answer.
pub const MAX_CLIENTS: usize = 50;
/// Bytes of the longest name of a device.
pub const MAX_DEVICE_NAME: usize = 64;
/// Characters of the longest reference of an order.
pub const MAX_ORDER: usize = 64;

/// Why a call was refused, as a stable word.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:literal;)+) => {
        /// Why the tracker refused, by a word that does not change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ApiError {
            $($(#[$doc])* $name,)+
            /// A word that this program does not know: the tracker is newer.
            Unknown,
        }

        impl ApiError {
            /// Every code that a tracker sends.
            pub const ALL: &'static [ApiError] = &[$(ApiError::$name),+];

            /// The word.
            pub const fn word(self) -> &'static str {
                match self { $(ApiError::$name => $word,)+ ApiError::Unknown => "unknown" }
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> u16 {
                match self { $(ApiError::$name => $status,)+ ApiError::Unknown => 500 }
            }

            /// The code of that word, or [`ApiError::Unknown`].
            pub fn by_word(word: &str) -> Self {
                match word { $($word => ApiError::$name,)+ _ => ApiError::Unknown }
            }
        }
    };
}

codes! {
    /// The body is not what the call takes.
    BadRequest = "bad-request", 400;
    /// The body is too long.
    TooLarge = "too-large", 413;
    /// No torrent of this id is registered.
    UnknownTorrent = "unknown-torrent", 404;
    /// No subscriber or seed of this id is registered.
    UnknownSubscriber = "unknown-subscriber", 404;
    /// The nonce is not one of this tracker's, was given for something else, or has expired.
    BadNonce = "bad-nonce", 403;
    /// A signature does not verify.
    BadSignature = "bad-signature", 403;
    /// The public key is not a proper element of the torrent's group.
    BadPublicKey = "bad-public-key", 403;
    /// The proof of possession does not verify.
    BadProof = "bad-proof", 403;
    /// There is no such session, or it has expired: open another.
    NoSession = "no-session", 401;
    /// The call is for a seed and this is a subscriber's session, or the other way round.
    WrongRole = "wrong-role", 403;
    /// The session belongs to another torrent.
    WrongTorrent = "wrong-torrent", 403;
    /// The ticket is malformed, forged, or somebody else's.
    BadTicket = "bad-ticket", 403;
    /// The ticket has expired, or expires later than the tracker accepts.
    ExpiredTicket = "expired-ticket", 403;
    /// The tracker has no master key for an epoch.
    UnknownEpoch = "unknown-epoch", 403;
    /// The epoch of the pieces is served no more.
    RetiredEpoch = "retired-epoch", 410;
    /// A piece index is not below the number of pieces, or there are none or too many.
    BadPiece = "bad-piece", 400;
    /// Nothing is granted to this subscriber.
    NotLicensed = "not-licensed", 403;
    /// What was granted has expired.
    ExpiredLicense = "expired-license", 403;
    /// There is no such voucher for this torrent.
    BadVoucher = "bad-voucher", 403;
    /// The voucher was redeemed by as many devices as it covers.
    UsedVoucher = "used-voucher", 403;
    /// The order and line were issued with other terms.
    OtherTerms = "other-terms", 409;
    /// Devices of the grant were revoked too often of late: wait.
    TooManyChanges = "too-many-changes", 403;
    /// The record of plays was lost, or set back, too often of late.
    LostRecord = "lost-record", 403;
    /// There is no grant of this id.
    UnknownGrant = "unknown-grant", 404;
    /// There is no admin token of this id.
    UnknownToken = "unknown-token", 404;
    /// There is no personal torrent of this info-hash, or its subscriber is not there.
    UnknownPersonal = "unknown-personal", 404;
    /// The hashes do not follow those that there are.
    BadHashes = "bad-hashes", 409;
    /// The subscriber or seed, or the downloader of the ticket, was revoked.
    Revoked = "revoked", 403;
    /// Too many calls: wait.
    Rate = "rate", 429;
    /// The tracker has too much to do: try again.
    Busy = "busy", 503;
    /// The tracker's disk is full: nothing new can be written down.
    Full = "full", 507;
    /// The tracker failed. Its log says why.
    Internal = "internal", 500;
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The body of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// An [`ApiError::word`].
    pub code: String,
    /// What went wrong, for people.
    #[serde(rename = "failure reason")]
    pub reason: String,
    /// The tracker's clock.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub now: Option<u64>,
    /// Those that hold all the places of a grant, where that is why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
}

/// 128 random bits that authorise announce and scrape, and nothing else. `Debug` does not show them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Passkey([u8; 16]);

impl Passkey {
    /// From its bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Passkey(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// 32 hexadecimal digits, as in a URL.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// From exactly 32 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Passkey(bytes))
    }
}

impl fmt::Debug for Passkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passkey(..)")
    }
}

/// 256 random bits that let their holder use the admin API. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// From its bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Token(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 hexadecimal digits, as after `Bearer`.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// From exactly 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Token(bytes))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The ids of the core as byte strings.
pub(crate) mod id {
    use serde::{Deserializer, Serializer};
    use swarmseal_core::{SubscriberId, TorrentId};

    /// What is 32 bytes.
    pub(crate) trait Id: Copy {
        fn from_bytes(bytes: [u8; 32]) -> Self;
        fn bytes(&self) -> &[u8; 32];
    }

    impl Id for TorrentId {
        fn from_bytes(bytes: [u8; 32]) -> Self {
            TorrentId(bytes)
        }

        fn bytes(&self) -> &[u8; 32] {
            &self.0
        }
    }

    impl Id for SubscriberId {
        fn from_bytes(bytes: [u8; 32]) -> Self {
            SubscriberId(bytes)
        }

        fn bytes(&self) -> &[u8; 32] {
            &self.0
        }
    }

    pub(crate) fn serialize<T: Id, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(id.bytes(), serializer)
    }

    pub(crate) fn deserialize<'de, T: Id, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        serde_bytes::deserialize(deserializer).map(T::from_bytes)
    }
}

/// Bytes of a session's token.
pub const SESSION_TOKEN: usize = 56;

/// A session's token, made by the tracker and of no meaning to others. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken([u8; SESSION_TOKEN]);

impl SessionToken {
    /// From its bytes.
    pub const fn new(bytes: [u8; SESSION_TOKEN]) -> Self {
        SessionToken(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; SESSION_TOKEN] {
        &self.0
    }

    /// 75 characters of base64url (RFC 4648 §5), as after `Bearer`.
    pub fn to_text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    /// From exactly such a text.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut bytes = [0; SESSION_TOKEN];
        // The decoder wants room for whole groups; the text's length settles how many bytes it has.
        let decoded = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (decoded == SESSION_TOKEN).then_some(SessionToken(bytes))
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(..)")
    }
}

/// Fields behind each other, each preceded by its length as 64-bit big-endian: no two lists of fields give the same bytes.
fn fields(fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(fields.iter().map(|field| field.len() + 8).sum());
    for field in fields {
        out.extend_from_slice(&(field.len() as u64).to_be_bytes());
        out.extend_from_slice(field);
    }
    out
}

/// Asks a tracker or license server to prove its identity: `GET /identify?nonce=…&origin=…&publisher=…`. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identify {
    /// Drawn by the client.
    pub nonce: [u8; 32],
    /// Where the client believes that it calls.
    pub origin: Origin,
    /// The publisher whose newest authority the client wants to see.
    pub publisher_key: Option<[u8; 32]>,
}

impl Identify {
    /// The part of the URL after `?`.
    pub fn to_query(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("nonce", &hex::encode(self.nonce)).append_pair("origin", self.origin.as_str());
        if let Some(key) = &self.publisher_key {
            query.append_pair("publisher", &hex::encode(key));
        }
        query.finish()
    }

    /// Reads the part of the URL after `?`; nothing where a value is missing or malformed. Unknown keys are ignored.
    pub fn from_query(query: &str) -> Option<Self> {
        let bytes = |text: &str| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes)
        };
        let (mut nonce, mut origin, mut publisher_key) = (None, None, None);
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "nonce" => nonce = Some(bytes(&value)?),
                "origin" => origin = Some(value.parse().ok()?),
                "publisher" => publisher_key = Some(bytes(&value)?),
                _ => {}
            }
        }
        Some(Identify { nonce: nonce?, origin: origin?, publisher_key })
    }
}

/// A tracker's or license server's proof of its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identified {
    /// The publisher's newest authority, if the tracker knows one: a statement of [`crate::wire::authority`].
    #[serde(default, skip_serializing_if = "Option::is_none", with = "bencode::optional_bytes")]
    pub authority: Option<Vec<u8>>,
    /// The key that signed.
    #[serde(with = "serde_bytes")]
    pub key: [u8; 32],
    /// Drawn by the tracker for this nonce and origin of the client: subscriptions and openings of sessions may name it for a minute.
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 32],
    /// The tracker's clock.
    pub now: u64,
    /// Purpose `identify`, over [`Identified::signing_input`]. Missing where the tracker is not to be reached at that origin.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "bencode::optional_bytes")]
    pub signature: Option<[u8; 64]>,
}

impl Identified {
    /// What is signed: both nonces and the origin.
    pub fn signing_input(request: &Identify, nonce: &[u8; 32]) -> Vec<u8> {
        fields(&[&request.nonce, nonce, request.origin.as_str().as_bytes()])
    }

    /// Answers with that key.
    pub fn sign(request: &Identify, key: &SigningKey, nonce: [u8; 32], now: u64) -> Self {
        let signature = key.sign(purpose::IDENTIFY, &Self::signing_input(request, &nonce));
        Identified { authority: None, key: key.public(), nonce, now, signature: Some(signature) }
    }

    /// What a signed answer to that request under that key gives. Errors: [`BadSignature`], also where there is no signature.
    pub fn check(&self, request: &Identify, key: &[u8; 32]) -> Result<Contact, BadSignature> {
        let signature = self.signature.as_ref().filter(|_| self.key == *key).ok_or(BadSignature)?;
        identity::verify(key, purpose::IDENTIFY, &Self::signing_input(request, &self.nonce), signature)?;
        Ok(Contact {
            client_nonce: request.nonce,
            nonce: self.nonce,
            origin: request.origin.clone(),
            tracker_key: *key,
        })
    }
}

/// A meeting of a client and a tracker that has proved its identity. Later signatures of the client cover it, so that a relay can use them
/// neither elsewhere nor later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The client's nonce.
    #[serde(rename = "client nonce", with = "serde_bytes")]
    pub client_nonce: [u8; 32],
    /// The tracker's.
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 32],
    /// Where they met.
    pub origin: Origin,
    /// The tracker's key.
    #[serde(rename = "tracker key", with = "serde_bytes")]
    pub tracker_key: [u8; 32],
}

impl Contact {
    /// What a client signs: its own fields in that order, then those of the contact, each preceded by its length.
    fn signing_input(&self, own: &[&[u8]]) -> Vec<u8> {
        let origin = self.origin.as_str().as_bytes();
        fields(&[own, &[&self.tracker_key, origin, &self.client_nonce, &self.nonce]].concat())
    }
}

/// Registers a public key with the identity and device keys that go with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
    /// The public key, W bytes.
    #[serde(with = "serde_bytes")]
    pub y: Vec<u8>,
    /// The proof of possession over [`Subscribe::statement`], 32 + W bytes.
    #[serde(with = "serde_bytes")]
    pub proof: Vec<u8>,
    /// Ed25519 public key.
    #[serde(with = "serde_bytes")]
    pub identity: [u8; 32],
    /// X25519 public key.
    #[serde(with = "serde_bytes")]
    pub device: [u8; 32],
    /// The meeting with the tracker.
    pub contact: Contact,
    /// By the identity key, purpose `subscribe`, over [`Subscribe::signing_input`].
    #[serde(with = "serde_bytes")]
    pub signature: [u8; 64],
}

impl Subscribe {
    /// What the proof of possession covers beside p, g and y.
    pub fn statement(&self) -> [&[u8]; 5] {
        [&self.torrent_id.0, &self.y, &self.identity, &self.device, &self.contact.nonce]
    }

    /// What the identity key signs: every other field, each preceded by its length as 64-bit big-endian.
    pub fn signing_input(&self) -> Vec<u8> {
        self.contact.signing_input(&[&self.torrent_id.0, &self.y, &self.proof, &self.identity, &self.device])
    }

    /// Proves and signs a subscription.
    pub fn new(
        params: &swarmseal_core::Params,
        torrent_id: TorrentId,
        (secret, public): (&swarmseal_core::SecretKey, &PublicKey),
        identity: &Identity,
        contact: Contact,
        rng: &mut impl rand_core::CryptoRng,
    ) -> Result<Self, swarmseal_core::Error> {
        let mut y = vec![0; params.group().bytes()];
        public.to_bytes(params, &mut y)?;
        let mut subscribe = Subscribe {
            torrent_id,
            y,
            proof: vec![0; Proof::encoded_len(params)],
            identity: identity.public(),
            device: identity.device_public(),
            contact,
            signature: [0; 64],
        };
        let proof = Proof::prove(params, secret, public, &subscribe.statement(), rng);
        proof.to_bytes(params, &mut subscribe.proof)?;
        subscribe.signature = identity.sign(purpose::SUBSCRIBE, &subscribe.signing_input());
        Ok(subscribe)
    }
}

/// Asks for the passkey of the session's subscriber or seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasskeyRequest {
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
    /// 1 for another passkey instead of the current one, which then serves no longer.
    pub rotate: u8,
}

/// The passkey that serves from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasskeyReply {
    /// For announce and scrape.
    #[serde(with = "passkey")]
    pub passkey: Passkey,
    /// The tracker's clock.
    pub now: u64,
}

/// What a subscription gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// For announce and scrape.
    #[serde(with = "passkey")]
    pub passkey: Passkey,
    /// BLAKE3 of torrent id and y.
    #[serde(with = "id")]
    pub subscriber: SubscriberId,
    /// The epoch of the subscription's keys.
    pub epoch: u64,
    /// The tracker's clock.
    pub now: u64,
}

mod passkey {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Passkey;

    pub(super) fn serialize<S: Serializer>(passkey: &Passkey, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&passkey.to_hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Passkey, D::Error> {
        let text = String::deserialize(deserializer)?;
        Passkey::from_hex(&text)
            .ok_or_else(|| serde::de::Error::custom("a passkey has 32 hexadecimal digits"))
    }
}

/// Who opens a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A subscriber, by its identity key.
    Subscriber,
    /// An original seed, by its seed signing key.
    Seed,
}

impl Role {
    /// The purpose of the signature that opens the session.
    pub const fn purpose(self) -> &'static str {
        match self {
            Role::Subscriber => purpose::SESSION,
            Role::Seed => purpose::SEED_SESSION,
        }
    }
}

/// Opens a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Subscriber or seed id.
    #[serde(with = "id")]
    pub id: SubscriberId,
    /// Which of the two.
    pub role: Role,
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
    /// The meeting with the tracker.
    pub contact: Contact,
    /// Of the role's purpose, over [`OpenSession::signing_input`].
    #[serde(with = "serde_bytes")]
    pub signature: [u8; 64],
}

impl OpenSession {
    /// What is signed: id, torrent and contact, each field preceded by its length as 64-bit big-endian.
    pub fn signing_input(&self) -> Vec<u8> {
        self.contact.signing_input(&[&self.id.0, &self.torrent_id.0])
    }

    /// Signs one.
    pub fn new(
        key: &SigningKey,
        role: Role,
        id: SubscriberId,
        torrent_id: TorrentId,
        contact: Contact,
    ) -> Self {
        let mut open = OpenSession { id, role, torrent_id, contact, signature: [0; 64] };
        open.signature = key.sign(role.purpose(), &open.signing_input());
        open
    }
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpened {
    /// The newest authority of the torrent's publisher: a statement of [`crate::wire::authority`].
    #[serde(default, skip_serializing_if = "Option::is_none", with = "bencode::optional_bytes")]
    pub authority: Option<Vec<u8>>,
    /// For `Authorization: Bearer`.
    #[serde(with = "token")]
    pub token: SessionToken,
    /// When it ends, by the tracker's clock.
    pub expires: u64,
    /// The tracker's clock.
    pub now: u64,
}

mod token {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::SessionToken;

    pub(super) fn serialize<S: Serializer>(token: &SessionToken, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&token.to_text())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SessionToken, D::Error> {
        let text = String::deserialize(deserializer)?;
        SessionToken::from_text(&text)
            .ok_or_else(|| serde::de::Error::custom("a session's token has 75 characters of base64url"))
    }
}

/// Asks for re-keys from the session's subscriber to the one who signed the ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReKeyRequest {
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
    /// The uploader's epoch: that of its stored pieces.
    pub epoch: u64,
    /// The downloader's word.
    #[serde(with = "ticket")]
    pub ticket: Ticket,
    /// 1 … [`MAX_PIECES`] indices.
    pub pieces: Vec<u32>,
}

/// Asks for the witness keys of the session's subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessRequest {
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
    /// The epoch of the ciphertext that is to be checked.
    pub epoch: u64,
    /// 1 … [`MAX_WITNESS_PIECES`] indices of sealed pieces.
    pub pieces: Vec<u32>,
}

/// Asks, as a seed, for the encryption keys of the one who signed the ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedKeysRequest {
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
    /// The downloader's word.
    #[serde(with = "ticket")]
    pub ticket: Ticket,
    /// 1 … [`MAX_PIECES`] indices.
    pub pieces: Vec<u32>,
}

mod ticket {
    use serde::{Deserializer, Serializer};
    use serde_bytes::ByteBuf;
    use swarmseal_core::Ticket;

    pub(super) fn serialize<S: Serializer>(ticket: &Ticket, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&ticket.to_bytes())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ticket, D::Error> {
        let bytes: ByteBuf = serde::Deserialize::deserialize(deserializer)?;
        Ticket::from_bytes(&bytes).map_err(serde::de::Error::custom)
    }
}

/// W bytes for each piece, in the order asked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Re-keys, or encryption keys for a seed.
    #[serde(with = "serde_bytes")]
    pub keys: Vec<u8>,
    /// The tracker's clock.
    pub now: u64,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} bytes)", self.keys.len())
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.keys);
    }
}

/// W bytes for each piece, in the order asked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessKeys {
    /// The epoch that they are of.
    pub epoch: u64,
    /// u for each piece.
    #[serde(with = "serde_bytes")]
    pub keys: Vec<u8>,
    /// The tracker's clock.
    pub now: u64,
}

impl fmt::Debug for WitnessKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitnessKeys({} bytes, epoch {})", self.keys.len(), self.epoch)
    }
}

impl Drop for WitnessKeys {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.keys);
    }
}

/// Asks, as a seed, for cipher hashes to compute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkRequest {
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
}

/// What there is to compute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Nothing, if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub job: Option<HashJob>,
    /// The tracker's clock.
    pub now: u64,
}

/// A run of one subscriber's pieces to hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashJob {
    /// The subscriber.
    #[serde(with = "id")]
    pub subscriber: SubscriberId,
    /// The epoch of its keys.
    pub epoch: u64,
    /// The first piece.
    pub first: u32,
    /// Encryption keys of that piece and those that follow, W bytes each; zeros in the places of clear ones.
    #[serde(with = "serde_bytes")]
    pub keys: Vec<u8>,
}

impl fmt::Debug for HashJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashJob({}, epoch {}, from piece {})", self.subscriber, self.epoch, self.first)
    }
}

impl Drop for HashJob {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.keys);
    }
}

/// Cipher hashes that a seed has computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewHashes {
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
    /// The subscriber.
    #[serde(with = "id")]
    pub subscriber: SubscriberId,
    /// The epoch of its keys.
    pub epoch: u64,
    /// The first piece.
    pub first: u32,
    /// SHA-1 of the subscriber's ciphertext of that piece and those that follow, 20 bytes each.
    #[serde(with = "serde_bytes")]
    pub hashes: Vec<u8>,
}

/// Done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// The tracker's clock.
    pub now: u64,
}

/// Asks for the cipher hashes of the session's subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashesRequest {
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
    /// Those of this piece and of those that follow.
    pub first: u32,
    /// 1: they are wanted, though nobody may have begun with them.
    pub wanted: u8,
}

/// Cipher hashes, as far as they are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// The epoch that they are for.
    pub epoch: u64,
    /// SHA-1 of the ciphertext of the pieces from the one asked for on, 20 bytes each.
    #[serde(with = "serde_bytes")]
    pub hashes: Vec<u8>,
    /// The tracker's clock.
    pub now: u64,
}

/// Asks whose personal torrent it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonalRequest {
    /// The torrent of which the session's peer is.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
    /// What a client named in its handshake: an info-hash, or its [`hidden_name`](crate::wire::mse::hidden_name).
    #[serde(with = "serde_bytes")]
    pub name: [u8; 20],
    /// 1: the name is hidden.
    pub hidden: u8,
}

/// Whose personal torrent it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Personal {
    /// The info-hash.
    #[serde(rename = "info hash", with = "serde_bytes")]
    pub info_hash: [u8; 20],
    /// The subscriber.
    #[serde(with = "id")]
    pub subscriber: SubscriberId,
    /// The epoch of its keys.
    pub epoch: u64,
    /// The tracker's clock.
    pub now: u64,
}

/// Asks for keys to the subscriber whose personal torrent it is: a client that nobody modified signs no tickets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonalKeysRequest {
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
    /// The uploader's epoch: that of its stored pieces; 0 for a seed.
    pub epoch: u64,
    /// The personal torrent.
    #[serde(rename = "info hash", with = "serde_bytes")]
    pub info_hash: [u8; 20],
    /// 1 … [`MAX_PIECES`] indices.
    pub pieces: Vec<u32>,
}

/// Asks for ordinary clients with personal torrents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientsRequest {
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
}

/// Ordinary clients with personal torrents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clients {
    /// At most [`MAX_CLIENTS`].
    pub clients: Vec<OrdinaryClient>,
    /// Seconds until the next question makes sense.
    pub interval: u32,
    /// The tracker's clock.
    pub now: u64,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrdinaryClient {
    /// Where it listens.
    pub address: String,
    /// 1: it has everything.
    pub complete: u8,
    /// The epoch of its ciphertext.
    pub epoch: u64,
    /// Its personal torrent.
    #[serde(rename = "info hash", with = "serde_bytes")]
    pub info_hash: [u8; 20],
    /// Whose it is.
    #[serde(with = "id")]
    pub subscriber: SubscriberId,
}

/// Asks for the license of the session's subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseRequest {
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
    /// The epoch of the pieces that it is to open; the subscription's, if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub epoch: Option<u64>,
    /// A voucher to redeem.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub voucher: Option<VoucherCode>,
    /// What the device has played so far.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub record: Option<PlayRecord>,
}

/// A device's record of plays, as it tells the tracker of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlayRecord {
    /// Grows with every change of the record, this telling included: one that does not is an older record put back.
    pub counter: u64,
    /// 1 where the device noticed itself that its record was lost, changed, or made elsewhere.
    pub lost: u8,
    /// Plays so far, of all grants.
    pub plays: u64,
}

/// Asks for the devices that hold the same grant as the session's subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicesRequest {
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
    /// What this device is called from now on: at most [`MAX_DEVICE_NAME`] bytes, no control characters.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub name: Option<String>,
    /// What it has played so far.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub record: Option<PlayRecord>,
}

/// Revokes a device that holds the same grant as the session's subscriber, and frees its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeDevice {
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
    /// The device, by its subscriber in this torrent.
    #[serde(with = "id")]
    pub subscriber: SubscriberId,
}

/// The devices that hold a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// How many may still be revoked by their users for now.
    pub changes: u32,
    /// Those that hold it, the first first.
    pub devices: Vec<Device>,
    /// When one more may be revoked, where none may now.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub next: Option<u64>,
    /// The tracker's clock.
    pub now: u64,
    /// How many may hold it.
    pub places: u32,
}

/// A device that holds a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Since when.
    pub enrolled: u64,
    /// What its user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub name: Option<String>,
    /// Plays that it told of.
    pub plays: u64,
    /// Its subscriber in this torrent.
    #[serde(with = "id")]
    pub subscriber: SubscriberId,
}

/// A license server apart. As a string: its origin, `#`, its Ed25519 public key, `.` and its X25519 public key, both in
/// hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LicenseServer {
    /// Where subscribers find it.
    pub origin: Origin,
    /// The license key of its torrents.
    pub identity: [u8; 32],
    /// What a license needs is encrypted to this.
    pub device: [u8; 32],
}

impl TryFrom<String> for LicenseServer {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const EXPECTED: &str = "expected the line that `swarmseal license-server` prints: URL#KEY.KEY, with keys of 64 hexadecimal digits";
        let (origin, keys) = text.split_once('#').ok_or(EXPECTED)?;
        let (signing, sealing) = keys.split_once('.').ok_or(EXPECTED)?;
        let (mut identity, mut device) = ([0; 32], [0; 32]);
        hex::decode_to_slice(signing, &mut identity).map_err(|_| EXPECTED)?;
        hex::decode_to_slice(sealing, &mut device).map_err(|_| EXPECTED)?;
        let origin = origin.parse().map_err(|_| EXPECTED)?;
        if !is_public_key(&identity) {
            return Err(EXPECTED);
        }
        Ok(LicenseServer { origin, identity, device })
    }
}

impl From<LicenseServer> for String {
    fn from(server: LicenseServer) -> Self {
        format!("{}#{}.{}", server.origin, hex::encode(server.identity), hex::encode(server.device))
    }
}

/// A license, or where it is to be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseReply {
    /// Signed, and encrypted to the device. Empty where another server issues it.
    #[serde(with = "serde_bytes")]
    pub license: Vec<u8>,
    /// The tracker's clock.
    pub now: u64,
    /// Who signs this torrent's licenses, if it is not this tracker.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub server: Option<LicenseServer>,
}

/// A subscriber's word to a license server apart that it wants a license. The tracker takes it from that server alone, and once:
/// so a server gets no keys for those who did not ask it, and none a second time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseWord {
    /// The torrent.
    #[serde(rename = "torrent id", with = "id")]
    pub torrent_id: TorrentId,
    /// Who wants the license.
    #[serde(with = "id")]
    pub subscriber: SubscriberId,
    /// The license server's Ed25519 public key: the torrent's license key.
    #[serde(with = "serde_bytes")]
    pub server: [u8; 32],
    /// The meeting with the tracker.
    pub contact: Contact,
    /// The epoch of the pieces; the subscription's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub epoch: Option<u64>,
    /// A voucher to redeem.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub voucher: Option<VoucherCode>,
    /// By the identity key, purpose `license word`, over [`LicenseWord::signing_input`].
    #[serde(with = "serde_bytes")]
    pub signature: [u8; 64],
}

impl LicenseWord {
    /// Signs a word. `signature` is replaced.
    pub fn signed(mut self, key: &SigningKey) -> Self {
        self.signature = key.sign(purpose::LICENSE_WORD, &self.signing_input());
        self
    }

    /// What the identity key signs: torrent, subscriber, server, the epoch as 64-bit big-endian and the voucher's characters (nothing
    /// where there is none), and the contact, each field preceded by its length as 64-bit big-endian.
    pub fn signing_input(&self) -> Vec<u8> {
        let epoch = self.epoch.map(u64::to_be_bytes);
        let epoch = epoch.as_ref().map_or(&[][..], |bytes| bytes);
        let voucher = self.voucher.as_ref().map_or("", VoucherCode::as_str).as_bytes();
        self.contact.signing_input(&[&self.torrent_id.0, &self.subscriber.0, &self.server, epoch, voucher])
    }
}

/// A license server's order for what a license needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseOrder {
    /// On whose word.
    pub word: LicenseWord,
    /// By the server's key, purpose `license order`, over the word's signing input and its signature.
    #[serde(with = "serde_bytes")]
    pub signature: [u8; 64],
}

impl LicenseOrder {
    /// Signs an order.
    pub fn new(word: LicenseWord, key: &SigningKey) -> Self {
        let signature = key.sign(purpose::LICENSE_ORDER, &Self::signing_input(&word));
        LicenseOrder { word, signature }
    }

    /// What the server's key signs.
    pub fn signing_input(word: &LicenseWord) -> Vec<u8> {
        let mut out = word.signature.to_vec();
        out.extend_from_slice(&word.signing_input());
        out
    }
}

/// What a license needs, for the license server that ordered it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseFilled {
    /// A license envelope, signed by the tracker's key and encrypted to the server's X25519 key.
    #[serde(with = "serde_bytes")]
    pub license: Vec<u8>,
    /// The X25519 key of the subscriber's device.
    #[serde(with = "serde_bytes")]
    pub device: [u8; 32],
    /// By the tracker's key, purpose `license filled`, over [`LicenseFilled::signing_input`].
    #[serde(with = "serde_bytes")]
    pub signature: [u8; 64],
    /// The tracker's clock.
    pub now: u64,
}

impl LicenseFilled {
    /// What the tracker's key signs: the order's nonce, the device and BLAKE3 of the license.
    pub fn signing_input(nonce: &[u8; 32], device: &[u8; 32], license: &[u8]) -> Vec<u8> {
        [&nonce[..], device, blake3::hash(license).as_bytes()].concat()
    }
}

/// Bytes of the longest answer to `/hashes` for `pieces` pieces.
pub fn max_hashes_answer(pieces: u32) -> usize {
    (pieces as usize).saturating_mul(20).saturating_add(4096)
}

/// Reads a body or answer of at most `max_len` bytes.
pub fn from_bytes<T: serde::de::DeserializeOwned>(bytes: &[u8], max_len: usize) -> Result<T, bencode::Error> {
    bencode::from_bytes(bytes, max_len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::voucher::VoucherKey;

    fn round_trip<T>(value: T) -> Result<(), TestCaseError>
    where
        T: Serialize + serde::de::DeserializeOwned + PartialEq + fmt::Debug,
    {
        let bytes = bencode::to_bytes(&value);
        prop_assert_eq!(from_bytes::<T>(&bytes, bytes.len()).unwrap(), value);
        Ok(())
    }

    fn contact(nonce: [u8; 32]) -> Contact {
        let origin = "https://tracker.example".parse().unwrap();
        Contact { client_nonce: nonce, nonce: [3; 32], origin, tracker_key: [4; 32] }
    }

    #[test]
    fn an_answer_holds_for_its_nonce_origin_and_key() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let request =
            Identify { nonce: [2; 32], origin: "https://t.example".parse().unwrap(), publisher_key: None };
        let answer = Identified::sign(&request, &key, [3; 32], 5);
        let contact = answer.check(&request, &key.public()).unwrap();
        assert_eq!(
            (contact.nonce, contact.client_nonce, contact.tracker_key),
            ([3; 32], [2; 32], key.public())
        );
        let elsewhere = Identify { origin: "https://u.example".parse().unwrap(), ..request.clone() };
        let later = Identify { nonce: [9; 32], ..request.clone() };
        let other = SigningKey::from_bytes(&[6; 32]);
        assert_eq!(answer.check(&elsewhere, &key.public()), Err(BadSignature));
        assert_eq!(answer.check(&later, &key.public()), Err(BadSignature));
        assert_eq!(answer.check(&request, &other.public()), Err(BadSignature));
        let replayed = Identified { nonce: [4; 32], ..answer.clone() };
        assert_eq!(replayed.check(&request, &key.public()), Err(BadSignature));
        let unsigned = Identified { signature: None, ..answer };
        assert_eq!(unsigned.check(&request, &key.public()), Err(BadSignature));
    }

    #[test]
    fn a_malformed_query_is_nothing() {
        let nonce = "00".repeat(32);
        for query in [
            String::new(),
            format!("nonce={nonce}"),
            format!("origin=https://t&nonce={}", "00".repeat(31)),
            format!("nonce={nonce}&origin=ftp://t"),
            format!("nonce={nonce}&origin=https://t&publisher=0"),
        ] {
            assert_eq!(Identify::from_query(&query), None, "{query}");
        }
        assert!(Identify::from_query(&format!("more=1&nonce={nonce}&origin=https://t")).is_some());
        assert!(SessionToken::from_text("").is_none() && SessionToken::from_text(&"A".repeat(76)).is_none());
        assert!(SessionToken::from_text(&"A".repeat(75)).is_some());
    }

    prop_compose! {
        fn ticket()(ids: [[u8; 32]; 3], epoch: u64, expires: u64, signature: [u8; 64]) -> Ticket {
            Ticket {
                torrent_id: TorrentId(ids[0]),
                uploader: SubscriberId(ids[1]),
                downloader: SubscriberId(ids[2]),
                epoch,
                expires,
                signature,
            }
        }
    }

    proptest! {
        #[test]
        fn identity_and_session(nonce: [u8; 32], id: [u8; 32], signature: [u8; 64], seed: bool, times: (u64, u64)) {
            let role = if seed { Role::Seed } else { Role::Subscriber };
            let authority = seed.then(|| signature.to_vec());
            let (key, signature_or_none) = (nonce, seed.then_some(signature));
            round_trip(Identified { authority: authority.clone(), key, nonce, now: times.0, signature: signature_or_none })?;
            let (id, torrent_id, contact) = (SubscriberId(id), TorrentId(nonce), contact(nonce));
            round_trip(OpenSession { id, role, torrent_id, contact, signature })?;
            let mut token = [7; SESSION_TOKEN];
            token[..32].copy_from_slice(&nonce);
            round_trip(SessionOpened { authority, token: SessionToken::new(token), expires: times.1, now: times.0 })?;
            let identify = Identify { nonce, origin: "http://[::1]:7000".parse().unwrap(), publisher_key: seed.then_some(nonce) };
            prop_assert_eq!(Identify::from_query(&identify.to_query()), Some(identify));
        }

        #[test]
        fn subscription(
            keys: [[u8; 32]; 4],
            y: Vec<u8>,
            proof: Vec<u8>,
            signature: [u8; 64],
            passkey: [u8; 16],
            epoch: u64,
            now: u64,
        ) {
            let [torrent_id, identity, device, nonce] = keys;
            let torrent_id = TorrentId(torrent_id);
            round_trip(Subscribe { torrent_id, y, proof, identity, device, contact: contact(nonce), signature })?;
            let (passkey, subscriber) = (Passkey::new(passkey), SubscriberId(identity));
            round_trip(Subscribed { passkey, subscriber, epoch, now })?;
            round_trip(PasskeyRequest { torrent_id, rotate: epoch as u8 })?;
            round_trip(PasskeyReply { passkey, now })?;
        }

        #[test]
        fn key_requests(
            torrent: [u8; 32],
            ticket in ticket(),
            pieces in prop::collection::vec(any::<u32>(), 0..600),
            keys: Vec<u8>,
            name: Option<String>,
            epoch: u64,
        ) {
            let code = || (*VoucherKey::from_bytes(&torrent).code("1", 0, 0, &torrent)).clone();
            let voucher = name.as_ref().map(|_| code());
            let torrent_id = TorrentId(torrent);
            round_trip(ReKeyRequest { torrent_id, epoch, ticket: ticket.clone(), pieces: pieces.clone() })?;
            round_trip(WitnessRequest { torrent_id, epoch, pieces: pieces.clone() })?;
            round_trip(WitnessKeys { epoch, keys: keys.clone(), now: epoch })?;
            round_trip(SeedKeysRequest { torrent_id, ticket, pieces })?;
            round_trip(Keys { keys: keys.clone(), now: epoch })?;
            round_trip(LicenseRequest { torrent_id, epoch: None, voucher: None, record: None })?;
            let record = Some(PlayRecord { counter: epoch, lost: 1, plays: epoch / 2 });
            round_trip(LicenseRequest { torrent_id, epoch: Some(epoch), voucher: voucher.clone(), record })?;
            round_trip(DevicesRequest { torrent_id, name: name.clone(), record })?;
            let subscriber = SubscriberId(torrent);
            round_trip(RevokeDevice { torrent_id, subscriber })?;
            let device = Device { enrolled: epoch, name: name.clone(), plays: 3, subscriber };
            let devices = vec![device; 2];
            let (code, reason) = ("used-voucher".to_owned(), "taken".to_owned());
            round_trip(Failure { code, reason, now: Some(epoch), devices: devices.clone() })?;
            round_trip(Devices { changes: 2, devices, next: record.map(|record| record.plays), now: epoch, places: 2 })?;
            let server = LicenseServer { origin: "https://l".parse().unwrap(), identity: SigningKey::from_bytes(&torrent).public(), device: torrent };
            prop_assert_eq!(LicenseServer::try_from(String::from(server.clone())).unwrap(), server.clone());
            let server = voucher.as_ref().map(|_| server);
            round_trip(LicenseReply { license: keys.clone(), now: epoch, server })?;
            let word = LicenseWord {
                torrent_id,
                subscriber: SubscriberId(torrent),
                server: torrent,
                contact: contact(torrent),
                epoch: voucher.as_ref().map(|_| epoch),
                voucher,
                signature: [7; 64],
            };
            round_trip(LicenseOrder { word: word.clone(), signature: [8; 64] })?;
            round_trip(word)?;
            round_trip(LicenseFilled { license: keys, device: torrent, signature: [9; 64], now: epoch })?;
        }

        #[test]
        fn no_body_panics(bytes: Vec<u8>) {
            let _ = from_bytes::<Subscribe>(&bytes, 4096);
            let _ = from_bytes::<ReKeyRequest>(&bytes, 4096);
            let _ = from_bytes::<Failure>(&bytes, 4096);
        }

        #[test]
        fn no_two_subscriptions_sign_the_same(y: Vec<u8>, proof: Vec<u8>, split in 0usize..64) {
            let subscribe = |y: Vec<u8>, proof: Vec<u8>| Subscribe {
                torrent_id: TorrentId([1; 32]),
                y,
                proof,
                identity: [2; 32],
                device: [3; 32],
                contact: contact([4; 32]),
                signature: [0; 64],
            };
            let joined = [y.clone(), proof.clone()].concat();
            let (a, b) = joined.split_at(split.min(joined.len()));
            let same = a == y;
            let signed = subscribe(y, proof).signing_input();
            prop_assert_eq!(subscribe(a.to_vec(), b.to_vec()).signing_input() == signed, same);
        }
    }

    #[test]
    fn codes_survive_their_words() {
        for &code in ApiError::ALL {
            assert_eq!(ApiError::by_word(code.word()), code);
            assert!(code.status() >= 400);
        }
        assert_eq!(ApiError::by_word("made up"), ApiError::Unknown);
    }

    #[test]
    fn secrets_stay_out_of_debug() {
        let shown = format!(
            "{:?} {:?} {:?}",
            Passkey::new([0xA7; 16]),
            Token::new([0xA7; 32]),
            SessionToken::new([0xA7; SESSION_TOKEN])
        );
        assert!(!shown.to_lowercase().contains("a7") && !shown.contains("167"), "{shown}");
        assert!(!format!("{:?}", Keys { keys: vec![171; 4], now: 0 }).contains("171"));
        assert!(!format!("{:?}", WitnessKeys { epoch: 1, keys: vec![171; 4], now: 0 }).contains("171"));
    }

    #[test]
    fn the_longest_request_fits() {
        let ticket = Ticket {
            torrent_id: TorrentId([0; 32]),
            uploader: SubscriberId([0; 32]),
            downloader: SubscriberId([0; 32]),
            epoch: u64::MAX,
            expires: u64::MAX,
            signature: [0; 64],
        };
        let pieces = vec![u32::MAX; MAX_PIECES];
        let request = ReKeyRequest { torrent_id: TorrentId([0; 32]), epoch: u64::MAX, ticket, pieces };
        assert!(bencode::to_bytes(&request).len() <= MAX_BODY);
    }
}
