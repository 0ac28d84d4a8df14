//! The tracker as its users see it: calls, sessions that renew themselves, announces, and the admin API.
//!
//! Passkeys and tokens stay out of errors and logs.

mod admin;
mod clock;
mod families;
mod ordinary;
mod trust;
mod udp;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use swarmseal_core::{Params, PublicKey, SecretKey, SubscriberId, Ticket, TorrentId};

pub use admin::{AdminClient, Issued, Order, Registered, Terms, Traced};
pub use ordinary::OrdinaryTrackers;
pub use trust::{TrustError, trust};

use self::clock::TrackerClock;
use self::families::Families;
use crate::wire::announce::{self, Announce, AnnounceReply, ReplyError, Scrape, ScrapeReply};
use crate::wire::api::{
    self, Acknowledged, ApiError, Challenge, Clients, ClientsRequest, Device, Devices, DevicesRequest,
    Failure, HashJob, Hashes, HashesRequest, Keys, LicenseFilled, LicenseOrder, LicenseReply, LicenseRequest,
    LicenseWord, NewHashes, OpenSession, Passkey, PasskeyReply, PasskeyRequest, Personal,
    PersonalKeysRequest, PersonalRequest, PlayRecord, ReKeyRequest, RevokeDevice, Role, SeedKeysRequest,
    SessionOpened, Subscribe, Subscribed, Token, WitnessKeys, WitnessRequest, Work, WorkRequest,
};
use crate::wire::bencode;
use crate::wire::identity::{Identity, SigningKey};
use crate::wire::license::MAX_ENVELOPE;
use crate::wire::mse::TorrentName;
use crate::wire::personal::CipherHash;
use crate::wire::voucher::{CheckedCode, VoucherCode};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Without a byte from the tracker: a license of a long torrent takes its time.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of the longest answer with a license.
const MAX_LICENSE_ANSWER: usize = MAX_ENVELOPE + 4096;
/// A connection that is kept: less than the tracker's `idle_seconds`, so that none breaks just as it is used again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// A call that the tracker refuses for too many (429) is made again when it says, so often and within that time in all.
const PATIENCE: Duration = Duration::from_secs(30);
const TRIES: u32 = 5;
/// A session is renewed when so many seconds are left.
const RENEW_BEFORE: u64 = 30;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tracker's URL is none, or not of http or https.
    #[error("bad tracker URL: expected http:// or https:// and a host")]
    BadUrl,
    /// An id is none.
    #[error("bad id: expected hexadecimal digits")]
    BadId,
    /// The tracker cannot be reached, or the connection broke. The message has no URL in it.
    #[error("the tracker cannot be reached: {}", chain(.0))]
    Unreachable(reqwest::Error),
    /// The same of a tracker that speaks UDP.
    #[error("the tracker cannot be reached: {0}")]
    Socket(#[from] std::io::Error),
    /// What came cannot be written down.
    #[error("what the tracker sent cannot be written: {0}")]
    Write(std::io::Error),
    /// The tracker refused.
    #[error("the tracker refused: {reason} ({code})")]
    Refused {
        /// Why, as a stable word.
        code: ApiError,
        /// Why, for people.
        reason: String,
    },
    /// Every place of a grant is taken.
    #[error("the tracker refused: {reason} ({})", ApiError::UsedVoucher)]
    PlacesTaken {
        /// By whom, for people.
        reason: String,
        /// By whom.
        devices: Vec<Device>,
    },
    /// The tracker answered an announce with a failure reason.
    #[error("the tracker refused the announce: {0}")]
    AnnounceRefused(String),
    /// The answer is not what the call gives.
    #[error("bad answer from the tracker: {0}")]
    BadAnswer(String),
    /// The call needs a session, and the client was given no key to open one with.
    #[error("the client has no key to open a session with")]
    NoCredential,
    /// The keys of a subscription do not fit the torrent.
    #[error(transparent)]
    Keys(#[from] swarmseal_core::Error),
}

impl Error {
    /// The code of a refusal.
    pub fn code(&self) -> Option<ApiError> {
        match self {
            Error::Refused { code, .. } => Some(*code),
            Error::PlacesTaken { .. } => Some(ApiError::UsedVoucher),
            _ => None,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::Unreachable(_) | Error::Socket(_) => true,
            Error::Refused { code, .. } => {
                matches!(code, ApiError::Busy | ApiError::Rate | ApiError::Full | ApiError::Internal)
            }
            _ => false,
        }
    }
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        // URLs of announces have the passkey in them.
        Error::Unreachable(error.without_url())
    }
}

impl From<bencode::Error> for Error {
    fn from(error: bencode::Error) -> Self {
        Error::BadAnswer(error.to_string())
    }
}

/// An error with its causes; the innermost says what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Who opens sessions.
#[derive(Clone)]
struct Credential {
    id: SubscriberId,
    role: Role,
    key: SigningKey,
}

#[derive(Default)]
struct Shared {
    clock: TrackerClock,
    /// Locked while a session is opened, so that calls at the same time share it.
    session: tokio::sync::Mutex<Option<SessionOpened>>,
}

/// A tracker. Clones share connections, session and clock.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    families: Families,
    base: Url,
    credential: Option<Credential>,
    patience: Duration,
    shared: Arc<Shared>,
}

impl Client {
    /// A tracker at its base URL, such as `http://127.0.0.1:7000`; a path that ends in `/announce` is cut off there. Errors:
    /// [`Error::BadUrl`], [`Error::Unreachable`] where no HTTP client can be made.
    pub fn new(base: impl AsRef<str>) -> Result<Self, Error> {
        Ok(Client {
            http: http_client().build()?,
            families: Families::new(http_client, Ipv6Addr::UNSPECIFIED.into())?,
            base: base_url(base.as_ref())?,
            credential: None,
            patience: PATIENCE,
            shared: Arc::default(),
        })
    }

    /// The same client, which waits no longer than that in all where the tracker says that there were too many calls: half a minute
    /// if not told otherwise. Zero: it is told at once.
    pub fn with_patience(&self, patience: Duration) -> Self {
        Client { patience, ..self.clone() }
    }

    /// The same client, whose announces leave from the address that is listened on, so that the tracker tells others of that one.
    /// An unspecified address: they leave as the system chooses. Errors: [`Error::Unreachable`], as [`Client::new`].
    pub fn announcing_from(&self, listen: IpAddr) -> Result<Self, Error> {
        Ok(Client { families: Families::new(http_client, listen)?, ..self.clone() })
    }

    /// The client of a subscriber, which can open sessions.
    pub fn as_subscriber(&self, id: SubscriberId, key: SigningKey) -> Self {
        self.with(Credential { id, role: Role::Subscriber, key })
    }

    /// The client of an original seed, which can open sessions. `key` is the seed signing key.
    pub fn as_seed(&self, torrent: &TorrentId, key: SigningKey) -> Self {
        self.with(Credential { id: SubscriberId::of_seed(torrent, &key.public()), role: Role::Seed, key })
    }

    fn with(&self, credential: Credential) -> Self {
        Client { credential: Some(credential), shared: Arc::default(), ..self.clone() }
    }

    /// The tracker's time as estimated from its answers, in seconds since 1970; the system's before the first answer.
    pub fn now(&self) -> u64 {
        self.shared.clock.now()
    }

    /// A nonce to sign.
    pub async fn challenge(&self) -> Result<Challenge, Error> {
        let challenge: Challenge = self.call("challenge", None, Vec::new(), api::MAX_ANSWER).await?;
        self.shared.clock.heard(challenge.now);
        Ok(challenge)
    }

    /// Registers a public key with a proof of possession. The same keys again give the same subscription.
    pub async fn subscribe(
        &self,
        params: &Params,
        torrent: TorrentId,
        keys: (&SecretKey, &PublicKey),
        identity: &Identity,
    ) -> Result<Subscribed, Error> {
        let nonce = self.challenge().await?.nonce;
        let request = Subscribe::new(params, torrent, keys, identity, nonce, &mut UnwrapErr(SysRng))?;
        self.send_subscribe(&request).await
    }

    /// Sends a subscription that was made elsewhere.
    pub async fn send_subscribe(&self, request: &Subscribe) -> Result<Subscribed, Error> {
        let body = bencode::to_bytes(request);
        let subscribed: Subscribed = self.call("subscribe", None, body, api::MAX_ANSWER).await?;
        self.shared.clock.heard(subscribed.now);
        Ok(subscribed)
    }

    /// Opens a session, whether or not there is one. Other calls do so when they need to.
    pub async fn session(&self) -> Result<(), Error> {
        let mut session = self.shared.session.lock().await;
        *session = Some(self.open_session().await?);
        Ok(())
    }

    /// The passkey of the client's subscriber or seed; with `rotate` another instead of it, which ends the old one.
    pub async fn passkey(&self, torrent: TorrentId, rotate: bool) -> Result<Passkey, Error> {
        let request = PasskeyRequest { torrent_id: torrent, rotate: rotate.into() };
        let reply: PasskeyReply = self.call_in_session("passkey", &request, api::MAX_ANSWER).await?;
        self.shared.clock.heard(reply.now);
        Ok(reply.passkey)
    }

    /// Re-keys from the client's subscriber, whose pieces are of `epoch`, to the one who signed the ticket: W bytes for
    /// each of at most [`api::MAX_PIECES`] pieces.
    pub async fn rekey(
        &self,
        torrent: TorrentId,
        epoch: u64,
        ticket: &Ticket,
        pieces: &[u32],
    ) -> Result<Keys, Error> {
        let request =
            ReKeyRequest { torrent_id: torrent, epoch, ticket: ticket.clone(), pieces: pieces.to_vec() };
        let keys: Keys = self.call_in_session("rekey", &request, api::MAX_ANSWER).await?;
        self.shared.clock.heard(keys.now);
        Ok(keys)
    }

    /// The witness keys of the client's own subscriber in `epoch`: W bytes for each of at most [`api::MAX_WITNESS_PIECES`] sealed
    /// pieces.
    pub async fn witness(
        &self,
        torrent: TorrentId,
        epoch: u64,
        pieces: &[u32],
    ) -> Result<WitnessKeys, Error> {
        let request = WitnessRequest { torrent_id: torrent, epoch, pieces: pieces.to_vec() };
        let keys: WitnessKeys = self.call_in_session("witness", &request, api::MAX_ANSWER).await?;
        self.shared.clock.heard(keys.now);
        if keys.epoch != epoch {
            return Err(Error::BadAnswer("witness keys of another epoch".to_owned()));
        }
        Ok(keys)
    }

    /// Encryption keys of the one who signed the ticket, for an original seed: W bytes for each of at most
    /// [`api::MAX_PIECES`] pieces.
    pub async fn seed_keys(
        &self,
        torrent: TorrentId,
        ticket: &Ticket,
        pieces: &[u32],
    ) -> Result<Keys, Error> {
        let request =
            SeedKeysRequest { torrent_id: torrent, ticket: ticket.clone(), pieces: pieces.to_vec() };
        let keys: Keys = self.call_in_session("seed/keys", &request, api::MAX_ANSWER).await?;
        self.shared.clock.heard(keys.now);
        Ok(keys)
    }

    /// Cipher hashes to compute, for an original seed.
    pub async fn work(&self, torrent: TorrentId) -> Result<Option<HashJob>, Error> {
        let work: Work =
            self.call_in_session("seed/work", &WorkRequest { torrent_id: torrent }, api::MAX_ANSWER).await?;
        self.shared.clock.heard(work.now);
        Ok(work.job)
    }

    /// Hands in cipher hashes, 1 to [`api::MAX_PIECES`] of them.
    pub async fn add_hashes(&self, hashes: &NewHashes) -> Result<(), Error> {
        let done: Acknowledged = self.call_in_session("seed/hashes", hashes, api::MAX_ANSWER).await?;
        self.shared.clock.heard(done.now);
        Ok(())
    }

    /// The subscriber's cipher hashes of the torrent's `pieces` pieces, from piece `first` on and as far as they are there.
    /// `wanted`: they are to be computed, though nobody may have begun.
    pub async fn hashes(
        &self,
        torrent: TorrentId,
        pieces: u32,
        first: u32,
        wanted: bool,
    ) -> Result<(u64, Vec<CipherHash>), Error> {
        let request = HashesRequest { torrent_id: torrent, first, wanted: wanted.into() };
        let reply: Hashes = self.call_in_session("hashes", &request, api::max_hashes_answer(pieces)).await?;
        self.shared.clock.heard(reply.now);
        let (hashes, rest) = reply.hashes.as_chunks::<20>();
        if !rest.is_empty() || u64::from(first) + hashes.len() as u64 > u64::from(pieces) {
            return Err(Error::BadAnswer("another number of hashes".to_owned()));
        }
        Ok((reply.epoch, hashes.to_vec()))
    }

    /// Whose personal torrent has this name.
    pub async fn personal(&self, torrent: TorrentId, name: TorrentName) -> Result<Personal, Error> {
        let (&name, hidden) = name.parts();
        let request = PersonalRequest { torrent_id: torrent, name, hidden: hidden.into() };
        let reply: Personal = self.call_in_session("personal", &request, api::MAX_ANSWER).await?;
        self.shared.clock.heard(reply.now);
        Ok(reply)
    }

    /// Keys to the subscriber of a personal torrent, W bytes for each of at most [`api::MAX_PIECES`] pieces: re-keys for a
    /// subscriber, encryption keys for a seed.
    pub async fn personal_keys(&self, request: &PersonalKeysRequest) -> Result<Keys, Error> {
        let call = match self.credential.as_ref().ok_or(Error::NoCredential)?.role {
            Role::Subscriber => "personal/rekey",
            Role::Seed => "seed/personal",
        };
        let keys: Keys = self.call_in_session(call, request, api::MAX_ANSWER).await?;
        self.shared.clock.heard(keys.now);
        Ok(keys)
    }

    /// Ordinary clients with personal torrents: some that want pieces, and those that have everything, for a subscriber that
    /// can transform what they have.
    pub async fn personal_clients(&self, torrent: TorrentId) -> Result<Clients, Error> {
        let request = ClientsRequest { torrent_id: torrent };
        let reply: Clients = self.call_in_session("personal/clients", &request, api::MAX_ANSWER).await?;
        self.shared.clock.heard(reply.now);
        Ok(reply)
    }

    /// Re-keys from the ciphertext of a personal torrent's subscriber to the client's own, of `request.epoch`: W bytes for
    /// each of at most [`api::MAX_PIECES`] pieces.
    pub async fn pull_keys(&self, request: &PersonalKeysRequest) -> Result<Keys, Error> {
        let keys: Keys = self.call_in_session("personal/pull", request, api::MAX_ANSWER).await?;
        self.shared.clock.heard(keys.now);
        Ok(keys)
    }

    /// The envelope of the subscriber's license, from the tracker or the license server that it names; a voucher is redeemed
    /// first, if one is given.
    pub async fn license(&self, torrent: TorrentId, voucher: Option<&CheckedCode>) -> Result<Vec<u8>, Error> {
        self.license_for(torrent, None, voucher).await
    }

    /// The same, for pieces of that epoch, if one is given. Errors: [`ApiError::RetiredEpoch`] where it is served no more.
    pub async fn license_for(
        &self,
        torrent: TorrentId,
        epoch: Option<u64>,
        voucher: Option<&CheckedCode>,
    ) -> Result<Vec<u8>, Error> {
        self.license_with(torrent, epoch, voucher, None).await
    }

    /// The same, and tells the tracker what this device has played. Errors: also [`ApiError::LostRecord`].
    pub async fn license_with(
        &self,
        torrent: TorrentId,
        epoch: Option<u64>,
        voucher: Option<&CheckedCode>,
        record: Option<PlayRecord>,
    ) -> Result<Vec<u8>, Error> {
        let voucher = voucher.map(|voucher| VoucherCode::clone(voucher));
        let request = LicenseRequest { torrent_id: torrent, epoch, voucher: voucher.clone(), record };
        let reply: LicenseReply = self.call_in_session("license", &request, MAX_LICENSE_ANSWER).await?;
        self.shared.clock.heard(reply.now);
        let Some(server) = reply.server else { return Ok(reply.license) };
        let Credential { id, key, .. } = self.credential.as_ref().ok_or(Error::NoCredential)?;
        let nonce = self.challenge().await?.nonce;
        let word = LicenseWord {
            torrent_id: torrent,
            subscriber: *id,
            server: server.identity,
            nonce,
            epoch,
            voucher,
            signature: [0; 64],
        };
        // With a clock of its own: a license server's time is not the tracker's.
        let server = Client { base: base_url(&server.url)?, shared: Arc::default(), ..self.clone() };
        server.ask_license(&word.signed(key)).await
    }

    /// The devices that hold the same grant as the client's subscriber, which tells its name and what it has played if it likes.
    /// Errors: [`ApiError::NotLicensed`] where it holds none.
    pub async fn devices(
        &self,
        torrent: TorrentId,
        name: Option<&str>,
        record: Option<PlayRecord>,
    ) -> Result<Devices, Error> {
        let request = DevicesRequest { torrent_id: torrent, name: name.map(str::to_owned), record };
        let reply: Devices = self.call_in_session("devices", &request, api::MAX_ANSWER).await?;
        self.shared.clock.heard(reply.now);
        Ok(reply)
    }

    /// Revokes one of them; those that are left. Errors: [`ApiError::UnknownSubscriber`], [`ApiError::TooManyChanges`].
    pub async fn revoke_device(
        &self,
        torrent: TorrentId,
        subscriber: SubscriberId,
    ) -> Result<Devices, Error> {
        let request = RevokeDevice { torrent_id: torrent, subscriber };
        let reply: Devices = self.call_in_session("devices/revoke", &request, api::MAX_ANSWER).await?;
        self.shared.clock.heard(reply.now);
        Ok(reply)
    }

    /// The envelope of a license, from a license server apart at this client's URL.
    pub async fn ask_license(&self, word: &LicenseWord) -> Result<Vec<u8>, Error> {
        let reply: LicenseReply =
            self.call("license", None, bencode::to_bytes(word), MAX_LICENSE_ANSWER).await?;
        Ok(reply.license)
    }

    /// What a license needs, for the license server whose order it is.
    pub async fn order_license(&self, order: &LicenseOrder) -> Result<LicenseFilled, Error> {
        let filled: LicenseFilled =
            self.call("license/order", None, bencode::to_bytes(order), MAX_LICENSE_ANSWER).await?;
        self.shared.clock.heard(filled.now);
        Ok(filled)
    }

    /// Announces under a passkey: from [`Client::announcing_from`], or by each address family that the tracker has.
    pub async fn announce(&self, passkey: &Passkey, request: &Announce) -> Result<AnnounceReply, Error> {
        let query = &request.to_query();
        let ask = |http: reqwest::Client| async move {
            let bytes = self.query(&http, passkey, "announce", query).await?;
            AnnounceReply::from_bytes(&bytes).map_err(announce_error)
        };
        let reply = self.families.announce(&self.base, ask).await?;
        if let Some(now) = reply.now {
            self.shared.clock.heard(now);
        }
        Ok(reply)
    }

    /// Scrapes under a passkey.
    pub async fn scrape(&self, passkey: &Passkey, request: &Scrape) -> Result<ScrapeReply, Error> {
        let bytes = self.query(&self.http, passkey, "scrape", &request.to_query()).await?;
        let reply = ScrapeReply::from_bytes(&bytes).map_err(announce_error)?;
        if let Some(now) = reply.now {
            self.shared.clock.heard(now);
        }
        Ok(reply)
    }

    /// The tracker's counters and totals, in the text form of Prometheus.
    pub async fn metrics(&self) -> Result<String, Error> {
        let answer = self.http.get(join(&self.base, "metrics")?).send().await?;
        if !answer.status().is_success() {
            return Err(Error::BadAnswer(format!("HTTP status {}", answer.status().as_u16())));
        }
        String::from_utf8(read(answer, api::MAX_ANSWER).await?)
            .map_err(|_| Error::BadAnswer("metrics that are no text".to_owned()))
    }

    async fn query(
        &self,
        http: &reqwest::Client,
        passkey: &Passkey,
        call: &str,
        query: &str,
    ) -> Result<Vec<u8>, Error> {
        let mut url = join(&self.base, &format!("{}/{call}", passkey.to_hex()))?;
        // The query is encoded already, and binary: it must not be encoded again.
        url.set_query(Some(query));
        let answer = http.get(url).send().await?;
        if !answer.status().is_success() {
            return Err(Error::BadAnswer(format!("HTTP status {}", answer.status().as_u16())));
        }
        read(answer, announce::MAX_REPLY).await
    }

    async fn call_in_session<T: DeserializeOwned>(
        &self,
        call: &str,
        request: &impl Serialize,
        limit: usize,
    ) -> Result<T, Error> {
        let body = bencode::to_bytes(request);
        let token = self.token(None).await?;
        match self.call(call, Some(&token), body.clone(), limit).await {
            // The tracker started anew, or ended the session: once more in another.
            Err(error) if error.code() == Some(ApiError::NoSession) => {
                let token = self.token(Some(&token)).await?;
                self.call(call, Some(&token), body, limit).await
            }
            answer => answer,
        }
    }

    /// The token of a session, another than `refused`.
    async fn token(&self, refused: Option<&Token>) -> Result<Token, Error> {
        let mut session = self.shared.session.lock().await;
        if let Some(open) = &*session
            && refused != Some(&open.token)
            && self.now().saturating_add(RENEW_BEFORE) < open.expires
        {
            return Ok(open.token.clone());
        }
        let open = self.open_session().await?;
        let token = open.token.clone();
        *session = Some(open);
        Ok(token)
    }

    async fn open_session(&self) -> Result<SessionOpened, Error> {
        let Credential { id, role, key } = self.credential.as_ref().ok_or(Error::NoCredential)?;
        let nonce = self.challenge().await?.nonce;
        let body = bencode::to_bytes(&OpenSession::new(key, *role, *id, nonce));
        let session: SessionOpened = self.call("session", None, body, api::MAX_ANSWER).await?;
        self.shared.clock.heard(session.now);
        Ok(session)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        call: &str,
        token: Option<&Token>,
        body: Vec<u8>,
        limit: usize,
    ) -> Result<T, Error> {
        let mut request = self.http.request(Method::POST, join(&self.base, call)?).body(body);
        if let Some(token) = token {
            request = request.bearer_auth(token.to_hex());
        }
        let answer = send_patiently(request, self.patience).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(api::from_bytes(&read(answer, limit).await?, limit)?);
        }
        let bytes = read(answer, api::MAX_ANSWER).await?;
        Err(refusal(status, api::from_bytes(&bytes, api::MAX_ANSWER).ok(), &self.shared.clock))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

/// Sends a request, and again where there were too many of them and it makes sense to wait.
async fn send_patiently(
    mut request: reqwest::RequestBuilder,
    mut patience: Duration,
) -> reqwest::Result<reqwest::Response> {
    for _ in 1..TRIES {
        let again = request.try_clone();
        let answer = request.send().await?;
        let wait = wait_of(&answer).filter(|&wait| wait <= patience);
        let (Some(wait), Some(again)) = (wait, again) else { return Ok(answer) };
        tokio::time::sleep(wait).await;
        patience -= wait;
        request = again;
    }
    request.send().await
}

/// How long a refusal for too many calls asks to wait.
fn wait_of(answer: &reqwest::Response) -> Option<Duration> {
    let seconds: u64 = answer.headers().get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    (answer.status() == StatusCode::TOO_MANY_REQUESTS).then(|| Duration::from_secs(seconds.max(1)))
}

fn refusal(status: StatusCode, failure: Option<Failure>, clock: &TrackerClock) -> Error {
    match failure {
        Some(failure) => {
            if let Some(now) = failure.now {
                clock.heard(now);
            }
            match ApiError::by_word(&failure.code) {
                ApiError::UsedVoucher if !failure.devices.is_empty() => {
                    Error::PlacesTaken { reason: failure.reason, devices: failure.devices }
                }
                code => Error::Refused { code, reason: failure.reason },
            }
        }
        None => Error::BadAnswer(format!("HTTP status {}", status.as_u16())),
    }
}

fn announce_error(error: ReplyError) -> Error {
    match error {
        ReplyError::Refused(reason) => Error::AnnounceRefused(reason),
        ReplyError::Malformed(error) => error.into(),
    }
}

/// Reads an answer of at most `limit` bytes.
async fn read(mut answer: reqwest::Response, limit: usize) -> Result<Vec<u8>, Error> {
    let too_long = || Error::BadAnswer(format!("more than {limit} bytes"));
    if answer.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if bytes.len() + chunk.len() > limit {
            return Err(too_long());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What every HTTP client calls itself.
const USER_AGENT: &str = concat!("swarmseal/", env!("CARGO_PKG_VERSION"));

fn http_client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .tls_backend_preconfigured(trust::tls())
}

/// The URL that calls are appended to.
fn base_url(text: &str) -> Result<Url, Error> {
    let mut url = Url::parse(text).map_err(|_| Error::BadUrl)?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(Error::BadUrl);
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/announce").unwrap_or(path).to_owned();
    url.set_path(&format!("{}/", path.trim_end_matches('/')));
    Ok(url)
}

fn join(base: &Url, call: &str) -> Result<Url, Error> {
    base.join(call).map_err(|_| Error::BadUrl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_what_precedes_announce() {
        for (text, base) in [
            ("http://127.0.0.1:7000", "http://127.0.0.1:7000/"),
            ("http://127.0.0.1:7000/announce", "http://127.0.0.1:7000/"),
            ("https://example.org/a/b/announce?x=1#y", "https://example.org/a/b/"),
            ("https://example.org/a/", "https://example.org/a/"),
        ] {
            assert_eq!(base_url(text).unwrap().as_str(), base);
        }
        for text in ["", "udp://example.org", "example.org", "file:///tmp"] {
            assert!(matches!(base_url(text), Err(Error::BadUrl)), "{text}");
        }
    }

    #[test]
    fn a_base_with_a_path_keeps_it() {
        let base = base_url("http://example.org/tracker/announce").unwrap();
        assert_eq!(join(&base, "seed/keys").unwrap().as_str(), "http://example.org/tracker/seed/keys");
    }

    #[tokio::test]
    async fn an_unreachable_tracker_s_error_has_no_passkey() {
        // A port that was free a moment ago: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = Client::new(format!("http://127.0.0.1:{port}")).unwrap();
        let scrape = Scrape { info_hashes: vec![[1; 20]], passkey: None };
        let error = client.scrape(&Passkey::new([0xAB; 16]), &scrape).await.unwrap_err();
        assert!(error.is_temporary());
        assert!(!format!("{error} {error:?}").contains("abab"), "{error:?}");
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn a_call_in_a_session_needs_a_key() {
        let client = Client::new("http://127.0.0.1:1").unwrap();
        assert!(matches!(client.license(TorrentId([0; 32]), None).await, Err(Error::NoCredential)));
    }
}
