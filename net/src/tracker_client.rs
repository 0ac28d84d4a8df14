//! The tracker as its users see it: calls, sessions that renew themselves, announces, and the admin API.
//!
//! Passkeys and tokens stay out of errors and logs.

mod admin;
mod clock;
mod families;
mod ordinary;
mod service;
mod trust;
mod udp;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use getrandom::SysRng;
use rand_core::{Rng as _, UnwrapErr};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use swarmseal_core::{Params, PublicKey, SecretKey, SubscriberId, Ticket, TorrentId};

pub use admin::{AdminClient, Issued, Order, OwnKeys, Registered, Terms, Traced};
pub use ordinary::OrdinaryTrackers;
pub use service::Service;
pub use trust::{TrustError, trust};

use self::clock::TrackerClock;
use self::families::Families;
use crate::wire::announce::{self, Announce, AnnounceReply, ReplyError, Scrape, ScrapeReply};
use crate::wire::api::{
    self, Acknowledged, ApiError, Clients, ClientsRequest, Contact, Device, Devices, DevicesRequest, Failure,
    HashJob, Hashes, HashesRequest, Identified, Identify, Keys, LicenseFilled, LicenseOrder, LicenseReply,
    LicenseRequest, LicenseWord, NewHashes, OpenSession, Passkey, PasskeyReply, PasskeyRequest, Personal,
    PersonalKeysRequest, PersonalRequest, PlayRecord, ReKeyRequest, RevokeDevice, Role, SeedKeysRequest,
    SessionOpened, SessionToken, Subscribe, Subscribed, WitnessKeys, WitnessRequest, Work, WorkRequest,
};
use crate::wire::bencode;
use crate::wire::identity::{Identity, SigningKey};
use crate::wire::license::MAX_ENVELOPE;
use crate::wire::mse::TorrentName;
use crate::wire::origin::Origin;
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
/// Characters of a refusal's reason that are shown.
const MAX_REASON: usize = 500;
/// A session is renewed when so many seconds are left.
const RENEW_BEFORE: u64 = 30;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL of an ordinary torrent's tracker is none that this program announces to.
    #[error("bad tracker URL: expected http://, https:// or udp:// and a host")]
    BadUrl,
    /// Plain HTTP would go to another machine.
    #[error(
        "{origin}: plain HTTP would send keys in clear to another machine: expected https, or --insecure-http"
    )]
    PlainHttp {
        /// Where to.
        origin: Origin,
    },
    /// Somebody else answers where the tracker is expected.
    #[error(
        "{origin}: it does not show the key of the publisher's tracker: nothing was sent to it; check where the .torrent or token is from"
    )]
    Stranger {
        /// Where.
        origin: Origin,
    },
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
    torrent: TorrentId,
    role: Role,
    key: SigningKey,
}

/// Where the tracker proved its identity.
struct Met {
    origin: Origin,
    /// What was known of it then: a newer authority may name other origins, or the same ones in another order.
    serial: Option<u64>,
}

#[derive(Default)]
struct Shared {
    clock: TrackerClock,
    /// Where calls go to. Locked while the tracker is looked for, so that calls at the same time share what is found.
    met: tokio::sync::Mutex<Option<Met>>,
    /// Locked while a session is opened, so that calls at the same time share it.
    session: tokio::sync::Mutex<Option<SessionOpened>>,
}

/// A tracker. Clones share connections, session and clock.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    families: Families,
    service: Service,
    credential: Option<Credential>,
    patience: Duration,
    shared: Arc<Shared>,
}

impl Client {
    /// A client of that tracker or license server. Errors: [`Error::Unreachable`] where no HTTP client can be made.
    pub fn new(service: Service) -> Result<Self, Error> {
        Ok(Client {
            http: http_client().build()?,
            families: Families::new(http_client, Ipv6Addr::UNSPECIFIED.into())?,
            service,
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
    pub fn as_subscriber(&self, torrent: &TorrentId, id: SubscriberId, key: SigningKey) -> Self {
        self.with(Credential { id, torrent: *torrent, role: Role::Subscriber, key })
    }

    /// The client of an original seed, which can open sessions. `key` is the seed signing key.
    pub fn as_seed(&self, torrent: &TorrentId, key: SigningKey) -> Self {
        let id = SubscriberId::of_seed(torrent, &key.public());
        self.with(Credential { id, torrent: *torrent, role: Role::Seed, key })
    }

    fn with(&self, credential: Credential) -> Self {
        Client { credential: Some(credential), shared: Arc::default(), ..self.clone() }
    }

    /// The tracker or license server that it calls.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// The tracker's time as estimated from its answers, in seconds since 1970; the system's before the first answer.
    pub fn now(&self) -> u64 {
        self.shared.clock.now()
    }

    /// Has the tracker prove its identity, and returns the contact that signatures may refer to for a minute. Nothing secret is sent. Errors:
    /// [`Error::Stranger`] where somebody else answers at every origin, [`Error::PlainHttp`], [`Error::Unreachable`].
    pub async fn identify(&self) -> Result<Contact, Error> {
        let mut met = self.shared.met.lock().await;
        self.find(&mut met, None).await
    }

    /// Looks for the tracker at its origins: the one where it was met first, and `last` last.
    async fn find(&self, met: &mut Option<Met>, last: Option<&Origin>) -> Result<Contact, Error> {
        /// How often one search may learn of a newer authority: a second one comes along where replicas differ.
        const MOVES: usize = 4;
        let mut failure = None;
        for _ in 0..MOVES {
            let (mut origins, key) = self.service.reached();
            let serial = self.service.serial();
            let before = met.as_ref().filter(|met| met.serial == serial).map(|met| &met.origin);
            origins.sort_by_key(|origin| (Some(origin) == last, Some(origin) != before));
            let mut moved = false;
            for origin in origins {
                match self.identify_at(&origin, &key).await {
                    Ok(Some(contact)) => {
                        *met = Some(Met { origin, serial });
                        return Ok(contact);
                    }
                    Ok(None) => {
                        moved = true;
                        break;
                    }
                    Err(error) => failure = Some(error),
                }
            }
            if !moved {
                break;
            }
        }
        *met = None;
        Err(failure.unwrap_or_else(|| Error::BadAnswer("one newer authority after another".to_owned())))
    }

    /// Has the one at that origin show that it has that key; nothing where it shows a newer authority instead.
    async fn identify_at(&self, origin: &Origin, key: &[u8; 32]) -> Result<Option<Contact>, Error> {
        self.service.check(origin)?;
        let mut nonce = [0; 32];
        UnwrapErr(SysRng).fill_bytes(&mut nonce);
        let publisher_key = self.service.authority().map(|authority| *authority.publisher_key());
        let request = Identify { nonce, origin: origin.clone(), publisher_key };
        let mut url = origin.join("identify");
        url.set_query(Some(&request.to_query()));
        let answer = send_patiently(self.http.get(url), self.patience).await?;
        let stranger = || Error::Stranger { origin: origin.clone() };
        let status = answer.status();
        let bytes = read(answer, api::MAX_ANSWER).await?;
        if !status.is_success() {
            // The sender has not proved its identity: its clock counts for nothing.
            let failure: Option<Failure> = api::from_bytes(&bytes, api::MAX_ANSWER).ok();
            return Err(match failure {
                Some(failure) => refused(&failure),
                // A proxy whose tracker is away.
                None if status.is_server_error() => bad_status(status),
                None => stranger(),
            });
        }
        let answer: Identified = api::from_bytes(&bytes, api::MAX_ANSWER).map_err(|_| stranger())?;
        if answer.authority.as_ref().is_some_and(|authority| self.service.offer(authority)) {
            return Ok(None);
        }
        let contact = answer.check(&request, key).map_err(|_| stranger())?;
        self.shared.clock.heard(answer.now);
        Ok(Some(contact))
    }

    /// An origin at which the tracker has proved its identity in this run.
    async fn origin(&self) -> Result<Origin, Error> {
        let mut met = self.shared.met.lock().await;
        if let Some(Met { origin, serial }) = &*met
            && *serial == self.service.serial()
        {
            return Ok(origin.clone());
        }
        self.find(&mut met, None).await.map(|contact| contact.origin)
    }

    /// Calls the tracker where it was met, and at another of its origins if it cannot be reached there. Every call of a tracker is safe to
    /// repeat.
    async fn there<T, F: Future<Output = Result<T, Error>>>(
        &self,
        ask: impl Fn(Origin) -> F,
    ) -> Result<T, Error> {
        let origin = self.origin().await?;
        match ask(origin.clone()).await {
            Err(error @ Error::Unreachable(_)) if self.service.reached().0.len() > 1 => {
                let elsewhere = {
                    let mut met = self.shared.met.lock().await;
                    // Another call may have found it meanwhile.
                    match &*met {
                        Some(met) if met.origin != origin => met.origin.clone(),
                        _ => match self.find(&mut met, Some(&origin)).await {
                            Ok(contact) => contact.origin,
                            Err(_) => return Err(error),
                        },
                    }
                };
                ask(elsewhere).await
            }
            answer => answer,
        }
    }

    /// Registers a public key with a proof of possession. The same keys again give the same subscription.
    pub async fn subscribe(
        &self,
        params: &Params,
        torrent: TorrentId,
        keys: (&SecretKey, &PublicKey),
        identity: &Identity,
    ) -> Result<Subscribed, Error> {
        let contact = self.identify().await?;
        let request = Subscribe::new(params, torrent, keys, identity, contact, &mut UnwrapErr(SysRng))?;
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
        // The publisher has named it, or nothing goes there.
        let named = self.service.authority().is_none_or(|authority| authority.license_key == server.identity);
        if !named {
            return Err(Error::Stranger { origin: server.origin });
        }
        let Credential { id, key, .. } = self.credential.as_ref().ok_or(Error::NoCredential)?;
        let contact = self.identify().await?;
        let word = LicenseWord {
            torrent_id: torrent,
            subscriber: *id,
            server: server.identity,
            contact,
            epoch,
            voucher,
            signature: [0; 64],
        };
        // With a clock of its own: a license server's time is not the tracker's.
        let service = self.service.beside(server.origin, server.identity);
        let server = Client { service, shared: Arc::default(), ..self.clone() };
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
        let authority = self.service.authority().map(|authority| authority.serial);
        let query = &Announce { authority, ..request.clone() }.to_query();
        let reply = self
            .there(|origin| async move {
                let ask = |http: reqwest::Client| {
                    let origin = origin.clone();
                    async move {
                        let bytes = self.query(&http, &origin, passkey, "announce", query).await?;
                        AnnounceReply::from_bytes(&bytes).map_err(announce_error)
                    }
                };
                self.families.announce(&origin.join(""), ask).await
            })
            .await?;
        if let Some(now) = reply.now {
            self.shared.clock.heard(now);
        }
        if let Some(authority) = &reply.authority {
            self.service.offer(authority);
        }
        Ok(reply)
    }

    /// Scrapes under a passkey.
    pub async fn scrape(&self, passkey: &Passkey, request: &Scrape) -> Result<ScrapeReply, Error> {
        let query = &request.to_query();
        let bytes = self
            .there(|origin| async move { self.query(&self.http, &origin, passkey, "scrape", query).await })
            .await?;
        let reply = ScrapeReply::from_bytes(&bytes).map_err(announce_error)?;
        if let Some(now) = reply.now {
            self.shared.clock.heard(now);
        }
        Ok(reply)
    }

    /// The tracker's counters and totals, in the text form of Prometheus.
    pub async fn metrics(&self) -> Result<String, Error> {
        let answer = self.http.get(self.origin().await?.join("metrics")).send().await?;
        if !answer.status().is_success() {
            return Err(bad_status(answer.status()));
        }
        String::from_utf8(read(answer, api::MAX_ANSWER).await?)
            .map_err(|_| Error::BadAnswer("metrics that are no text".to_owned()))
    }

    async fn query(
        &self,
        http: &reqwest::Client,
        origin: &Origin,
        passkey: &Passkey,
        call: &str,
        query: &str,
    ) -> Result<Vec<u8>, Error> {
        let mut url = origin.join(&format!("{}/{call}", passkey.to_hex()));
        // The query is encoded already, and binary: it must not be encoded again.
        url.set_query(Some(query));
        let answer = http.get(url).send().await?;
        if !answer.status().is_success() {
            return Err(bad_status(answer.status()));
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
            // The session has ended, or the tracker has another key: once more in another.
            Err(error) if error.code() == Some(ApiError::NoSession) => {
                let token = self.token(Some(&token)).await?;
                self.call(call, Some(&token), body, limit).await
            }
            answer => answer,
        }
    }

    /// The token of a session, another than `refused`.
    async fn token(&self, refused: Option<&SessionToken>) -> Result<SessionToken, Error> {
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
        let Credential { id, torrent, role, key } = self.credential.as_ref().ok_or(Error::NoCredential)?;
        let contact = self.identify().await?;
        let body = bencode::to_bytes(&OpenSession::new(key, *role, *id, *torrent, contact));
        let session: SessionOpened = self.call("session", None, body, api::MAX_ANSWER).await?;
        self.shared.clock.heard(session.now);
        if let Some(authority) = &session.authority {
            self.service.offer(authority);
        }
        Ok(session)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        call: &str,
        token: Option<&SessionToken>,
        body: Vec<u8>,
        limit: usize,
    ) -> Result<T, Error> {
        let body = &body;
        self.there(|origin| async move { self.call_at(&origin, call, token, body.clone(), limit).await })
            .await
    }

    async fn call_at<T: DeserializeOwned>(
        &self,
        origin: &Origin,
        call: &str,
        token: Option<&SessionToken>,
        body: Vec<u8>,
        limit: usize,
    ) -> Result<T, Error> {
        let mut request = self.http.request(Method::POST, origin.join(call)).body(body);
        if let Some(token) = token {
            request = request.bearer_auth(token.to_text());
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
        f.debug_struct("Client").field("service", &self.service).finish_non_exhaustive()
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
            refused(&failure)
        }
        None => bad_status(status),
    }
}

fn bad_status(status: StatusCode) -> Error {
    Error::BadAnswer(format!("HTTP status {}", status.as_u16()))
}

fn refused(failure: &Failure) -> Error {
    // It may come from anybody, and is shown on a terminal.
    let shown = failure.reason.chars().filter(|c| !c.is_control());
    let reason: String = shown.take(MAX_REASON).collect();
    match ApiError::by_word(&failure.code) {
        ApiError::UsedVoucher if !failure.devices.is_empty() => {
            Error::PlacesTaken { reason, devices: failure.devices.clone() }
        }
        code => Error::Refused { code, reason },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unreachable_tracker_s_error_has_no_passkey() {
        // A port that was free a moment ago: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let origin = format!("http://127.0.0.1:{port}").parse().unwrap();
        let client = Client::new(Service::fixed(origin, [7; 32])).unwrap();
        let scrape = Scrape { info_hashes: vec![[1; 20]], passkey: None };
        let error = client.scrape(&Passkey::new([0xAB; 16]), &scrape).await.unwrap_err();
        assert!(error.is_temporary());
        assert!(!format!("{error} {error:?}").contains("abab"), "{error:?}");
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn a_call_in_a_session_needs_a_key() {
        let service = Service::fixed("http://127.0.0.1:1".parse().unwrap(), [7; 32]);
        let client = Client::new(service).unwrap();
        assert!(matches!(client.license(TorrentId([0; 32]), None).await, Err(Error::NoCredential)));
    }
}
