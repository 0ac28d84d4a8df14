//! What all requests share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use axum::http::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use swarmseal_core::{Params, Profile, SubscriberId, TorrentId, WitnessSecret};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::admin::Tokens;
use super::authorities::Authorities;
use super::budgets::Budgets;
use super::connection::Front;
use super::epochs::Epochs;
use super::hash_work::HashWork;
use super::limits::Limits;
use super::masters::Masters;
use super::metrics::{CallTimes, Counters, Counts, Gauges, Stats, count};
use super::nonces::Nonces;
use super::offload::Offload;
use super::personal::Personals;
use super::places::Bounds;
use super::records::{EpochsRecord, SubscriberRecord};
use super::refusal::Refusal;
use super::rekey::{TableCache, WitnessTables};
use super::secret_files::{Secret, SecretFileError};
use super::sessions::{Session, Sessions};
use super::shared_answer::SharedAnswer;
use super::store::{Member, Store, Totals, mark};
use super::swarm::Swarms;
use super::tickets::CheckedTickets;
use super::witnesses::Witnesses;
use super::workers::Workers;
use super::{
    ADMIN_TOKEN, Config, Error, LICENSE_KEY, MASTERS, OwnKey, STORE, TRACKER_KEY, VOUCHER_KEY, WITNESSES,
    admin, announce, backup, calls, clock, connection, licenses, secret_files, voucher,
};
use crate::atomic_file::Existing;
use crate::platform;
use crate::wire::api::{ApiError, Passkey, Role, SessionToken, Token};
use crate::wire::authority::SignedAuthority;
use crate::wire::identity::SigningKey;
use crate::wire::keyfile::TokenFile;
use crate::wire::metainfo::Metainfo;
use crate::wire::network::Network;
use crate::wire::origin::Origin;
use crate::wire::selection::Selection;
use crate::wire::voucher::{VoucherCode, VoucherKey};

/// A torrent as calls need it.
pub(super) struct Torrent {
    pub(super) id: TorrentId,
    pub(super) info_hash: [u8; 20],
    pub(super) params: Arc<Params>,
    /// Ed25519 public key of its publisher, which signs who serves it.
    pub(super) publisher_key: [u8; 32],
    pub(super) piece_count: u32,
    /// Which pieces have keys; `None`: all.
    pub(super) selection: Option<Arc<Selection>>,
    /// Bytes.
    pub(super) piece_length: u32,
    /// The publisher's public label.
    pub(super) label: String,
    /// The operator's.
    pub(super) name: String,
    pub(super) epochs: Epochs,
    /// What its witness keys come from.
    pub(super) witness: WitnessSecret,
}

impl Torrent {
    pub(super) fn new(
        metainfo: &Metainfo,
        name: String,
        epochs: EpochsRecord,
        witness: WitnessSecret,
    ) -> Self {
        Torrent {
            id: metainfo.info.seal.torrent_id,
            info_hash: metainfo.info_hash,
            params: Arc::clone(&metainfo.info.seal.params),
            publisher_key: metainfo.info.seal.publisher_key,
            piece_count: metainfo.info.piece_count,
            selection: metainfo.info.seal.selection.clone(),
            piece_length: metainfo.info.piece_length,
            label: metainfo.info.name.clone(),
            name,
            epochs: Epochs::new(epochs),
            witness,
        }
    }

    /// Whether a piece is clear: nobody needs a key of it.
    pub(super) fn is_clear(&self, piece: u32) -> bool {
        self.selection.as_ref().is_some_and(|selection| selection.is_clear(piece))
    }

    /// The pieces that have keys, in order.
    pub(super) fn sealed_pieces(&self) -> Vec<u32> {
        (0..self.piece_count).filter(|&piece| !self.is_clear(piece)).collect()
    }

    /// Checks indices of one call: each is that of a sealed piece. Errors: [`ApiError::BadPiece`].
    pub(super) fn check_pieces(&self, pieces: &[u32]) -> Result<(), ApiError> {
        let counted = (1..=crate::wire::api::MAX_PIECES).contains(&pieces.len());
        if counted && pieces.iter().all(|&piece| piece < self.piece_count && !self.is_clear(piece)) {
            Ok(())
        } else {
            Err(ApiError::BadPiece)
        }
    }
}

/// The tracker.
pub(super) struct Tracker {
    pub(super) config: Config,
    pub(super) store: Store,
    masters: RwLock<Masters>,
    pub(super) witnesses: Witnesses,
    pub(super) tracker_key: SigningKey,
    pub(super) license_key: SigningKey,
    pub(super) authorities: Authorities,
    pub(super) voucher_key: VoucherKey,
    pub(super) tokens: Tokens,
    /// The first admin token.
    admin: Secret,
    pub(super) nonces: Nonces,
    pub(super) sessions: Sessions,
    pub(super) swarms: Swarms,
    pub(super) tables: TableCache,
    pub(super) witness_tables: WitnessTables,
    pub(super) tickets: CheckedTickets,
    pub(super) hash_work: HashWork,
    pub(super) personals: Personals,
    /// What uploaders may have on their downloaders' word.
    pub(super) budgets: Budgets,
    /// Witness keys that subscribers may have.
    pub(super) witness_budgets: Budgets,
    /// How many pieces keys were given out for.
    pub(super) offload: Offload,
    pub(super) counters: Counters,
    pub(super) times: CallTimes,
    pub(super) limits: Limits,
    pub(super) open_connections: AtomicU64,
    /// It was told to stop.
    pub(super) stopping: AtomicBool,
    /// Calls within sessions, and the admin's.
    pub(super) workers: Workers<SubscriberId>,
    /// Subscriptions and openings of sessions: strangers may not hold up those who are in, nor one network another.
    verifiers: Workers<Network>,
    /// What `/metrics` says.
    pub(super) metrics: SharedAnswer<String>,
    /// What `/ready` says.
    pub(super) readiness: SharedAnswer<bool>,
    /// One backup at a time: each takes as much room as the store.
    pub(super) backing_up: Arc<Semaphore>,
    torrents: RwLock<HashMap<TorrentId, Arc<Torrent>>>,
    members: RwLock<HashMap<Passkey, Member>>,
    started: Instant,
}

/// Calls of one subscriber or seed that may wait or run at once.
const MAX_CALLS_OF_ONE: u32 = 8;

/// What the first start made.
pub(super) struct Opened {
    pub(super) tracker: Tracker,
    pub(super) admin_token_is_new: bool,
}

impl Tracker {
    /// Opens or makes everything under the data directory. Blocks.
    pub(super) fn open(config: Config) -> Result<Opened, Error> {
        let directory = config.data.clone();
        backup::clear(&directory);
        let passphrase = || config.master_passphrase.clone();
        let mut masters = Masters::open(&directory.join(MASTERS), passphrase())?;
        let witnesses = Witnesses::open(&directory.join(WITNESSES), passphrase())?;
        let store = Store::open(&directory.join(STORE), config.check_store)?;
        for (key, name) in [(OwnKey::Tracker, TRACKER_KEY), (OwnKey::License, LICENSE_KEY)] {
            if config.new_keys.contains(&key) {
                secret_files::retire(&directory.join(name), clock::now())?;
                store.forget_mark(name)?;
            }
        }
        // Keys are made on the first start alone: others would not fit what the store has.
        if let Some(path) = backup::missing_keys(&store, &masters.epochs(), &directory)?.into_iter().next() {
            return Err(Error::MissingKey { path });
        }
        masters.begin()?;
        let (tracker_key, _) = secret_files::read_or_create(&directory.join(TRACKER_KEY))?;
        let (license_key, _) = secret_files::read_or_create(&directory.join(LICENSE_KEY))?;
        let voucher_key = voucher::open_key(&directory.join(VOUCHER_KEY), passphrase().as_ref())?;
        let own = [
            (TRACKER_KEY, &*tracker_key),
            (LICENSE_KEY, &*license_key),
            (VOUCHER_KEY, voucher_key.as_bytes()),
        ];
        let marks = masters.marks().into_iter().chain(own.map(|(name, key)| (name.to_owned(), mark(key))));
        if let Some(other) = store.check_marks(&marks.collect::<Vec<_>>())?.into_iter().next() {
            return Err(Error::OtherKey { name: other });
        }
        let (admin, admin_token_is_new) = match read_admin_token(&directory)? {
            Some(admin) => (admin, false),
            None => (Zeroizing::new(random()?), true),
        };
        let tracker_key = SigningKey::from_bytes(&tracker_key);
        let (mut torrents, mut marks) = (HashMap::new(), Vec::new());
        for (record, epochs) in store.torrents()? {
            let metainfo = Metainfo::from_bytes(&record.metainfo, crate::backend::kernels())?;
            let id = metainfo.info.seal.torrent_id;
            let missing = || Error::MissingKey { path: Witnesses::path(&directory.join(WITNESSES), &id) };
            let witness = witnesses.find(&id)?.ok_or_else(missing)?;
            marks.push((Witnesses::mark_name(&id), mark(witness.as_bytes())));
            let torrent = Torrent::new(&metainfo, record.name, epochs, witness);
            if torrent.params.profile() == Profile::Paper && !config.insecure_paper_profile {
                return Err(Error::PaperProfile { torrent: torrent.id });
            }
            torrents.insert(torrent.id, Arc::new(torrent));
        }
        if let Some(other) = store.check_marks(&marks)?.into_iter().next() {
            return Err(Error::OtherKey { name: other });
        }
        let members = store.members()?.into_iter().collect();
        let workers =
            config.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from));
        let tracker = Tracker {
            masters: RwLock::new(masters),
            witnesses,
            license_key: SigningKey::from_bytes(&license_key),
            authorities: Authorities::open(&store, tracker_key.public())?,
            voucher_key,
            tokens: Tokens::new(&admin, store.tokens()?),
            admin,
            nonces: Nonces::new(&tracker_key, config.nonce_seconds),
            sessions: Sessions::new(&tracker_key),
            tracker_key,
            swarms: Swarms::new(
                u64::from(config.announce_interval) * 2 + 60,
                config.max_announces_per_address,
            ),
            tables: TableCache::new(config.table_cache_bytes),
            witness_tables: WitnessTables::default(),
            tickets: CheckedTickets::default(),
            hash_work: HashWork::default(),
            personals: Personals::new(store.personals()?),
            budgets: Budgets::new(config.keys_per_day),
            witness_budgets: Budgets::new(config.keys_per_day),
            offload: Offload::default(),
            counters: Counters::default(),
            times: CallTimes::default(),
            limits: Limits::new(&config),
            open_connections: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            workers: Workers::new(workers, config.max_waiting_calls, MAX_CALLS_OF_ONE),
            verifiers: Workers::new(
                workers.div_ceil(2),
                config.max_waiting_calls,
                config.max_checks_per_address,
            ),
            metrics: SharedAnswer::default(),
            readiness: SharedAnswer::default(),
            backing_up: Arc::new(Semaphore::new(1)),
            torrents: RwLock::new(torrents),
            members: RwLock::new(members),
            started: Instant::now(),
            store,
            config,
        };
        Ok(Opened { tracker, admin_token_is_new })
    }

    /// Says where the tracker is reached, and writes that beside the admin token. Blocks on a file.
    pub(super) fn listens(&self, origin: Origin) -> Result<(), Error> {
        let path = admin_token(&self.config.data);
        let token = Token::new(*self.admin);
        let file = TokenFile { origin: origin.clone(), tracker_key: self.tracker_key.public(), token };
        let written = file.to_key_file().write(&path, Existing::Replace);
        written.map_err(|source| SecretFileError::KeyFile { path, source })?;
        self.authorities.listens(origin);
        Ok(())
    }

    /// The newest authority of a torrent's publisher. Errors: [`ApiError::Internal`]: each registration brings one.
    pub(super) fn authority(&self, torrent: &Torrent) -> Result<Arc<SignedAuthority>, ApiError> {
        self.authorities.newest(&torrent.publisher_key).ok_or(ApiError::Internal)
    }

    /// The master keys.
    pub(super) fn masters(&self) -> RwLockReadGuard<'_, Masters> {
        self.masters.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The master keys, to be changed.
    pub(super) fn masters_mut(&self) -> RwLockWriteGuard<'_, Masters> {
        self.masters.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A torrent. Errors: [`ApiError::UnknownTorrent`].
    pub(super) fn torrent(&self, id: &TorrentId) -> Result<Arc<Torrent>, ApiError> {
        let torrents = self.torrents.read().unwrap_or_else(PoisonError::into_inner);
        torrents.get(id).cloned().ok_or(ApiError::UnknownTorrent)
    }

    /// All torrents, by id.
    pub(super) fn torrents(&self) -> Vec<Arc<Torrent>> {
        let torrents = self.torrents.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = torrents.values().cloned().collect();
        all.sort_by_key(|torrent| torrent.id);
        all
    }

    /// Makes a torrent known, once it is in the store.
    pub(super) fn add_torrent(&self, torrent: Torrent) {
        let mut torrents = self.torrents.write().unwrap_or_else(PoisonError::into_inner);
        torrents.insert(torrent.id, Arc::new(torrent));
    }

    /// Whose passkey it is.
    pub(super) fn member(&self, passkey: &Passkey) -> Option<Member> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).get(passkey).copied()
    }

    /// Makes a member known, once it is in the store. One that is known stays as it is: it may have been revoked since.
    pub(super) fn add_member(&self, passkey: Passkey, member: Member) {
        self.members.write().unwrap_or_else(PoisonError::into_inner).entry(passkey).or_insert(member);
    }

    /// Refuses the announces of a revoked member from now on, once that is in the store.
    pub(super) fn expel(&self, passkey: &Passkey, member: Member) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        members.insert(*passkey, member);
        drop(members);
        self.strike(&member);
    }

    /// Strikes a member from its swarm and from those of its personal torrents: no peer is told of it, and no key is made for it on the
    /// word of its announces, until it announces again.
    pub(super) fn strike(&self, member: &Member) {
        if let Ok(torrent) = self.torrent(&member.torrent_id) {
            self.swarms.expel(&torrent.info_hash, &member.id);
        }
        for info_hash in self.personals.of(&member.id) {
            self.swarms.expel(&info_hash, &member.id);
        }
    }

    /// The MAC of a code that is to be redeemed for a torrent. Errors: [`ApiError::BadVoucher`] where the code's check characters do not fit
    /// the torrent's publisher.
    pub(super) fn voucher_mac(&self, torrent: &Torrent, code: &VoucherCode) -> Result<[u8; 32], ApiError> {
        let checked = code.clone().checked(&torrent.publisher_key).map_err(|_| ApiError::BadVoucher)?;
        Ok(self.voucher_key.mac(&checked))
    }

    /// The session of a token, of which this is one call. Errors: [`ApiError::NoSession`], [`ApiError::Rate`].
    pub(super) fn session(&self, token: Option<&SessionToken>) -> Result<Session, Refusal> {
        let session = self.sessions.find(token.ok_or(ApiError::NoSession)?, clock::now())?;
        if session.role == Role::Subscriber {
            self.limits.call(&session.id).map_err(|wait| self.too_many(wait))?;
        }
        Ok(session)
    }

    /// Whether a request has a session's token, a member's passkey or an admin token, as far as its head tells.
    pub(super) fn knows<B>(&self, request: &Request<B>) -> bool {
        if let Some(token) = calls::bearer(request.headers()) {
            let now = clock::now();
            let session = SessionToken::from_text(token);
            return session.is_some_and(|token| self.sessions.find(&token, now).is_ok())
                || Token::from_hex(token).is_some_and(|token| self.tokens.knows(&token, now));
        }
        let member = announce::passkey(request.uri()).and_then(|passkey| self.member(&passkey));
        member.is_some_and(|member| !member.revoked)
    }

    /// Does a stranger's job, of which one network may have so many at once. Errors: those of [`Workers::run_for`].
    pub(super) async fn check<T: Send + 'static>(
        &self,
        address: IpAddr,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let network = Network::of(address);
        if network.is_this_machine() {
            self.verifiers.run(job).await
        } else {
            self.verifiers.run_for(network, job).await
        }
    }

    /// Lets all jobs come to an end.
    pub(super) async fn finish(&self) {
        self.workers.finish().await;
        self.verifiers.finish().await;
    }

    /// Counts a new subscription of a network. Errors: [`ApiError::Rate`]; [`ApiError::Full`] where there are too many of all.
    pub(super) fn newcomer(&self, address: IpAddr) -> Result<(), Refusal> {
        let most = self.config.max_subscribers;
        if most > 0 && self.members.read().unwrap_or_else(PoisonError::into_inner).len() >= most {
            let reason = format!("this tracker takes {most} subscriptions, and has them");
            return Err(Refusal::new(ApiError::Full, reason));
        }
        self.limits.subscription(address).map_err(|wait| self.too_many(wait))
    }

    /// Counts a call that belongs to no session. Errors: [`ApiError::Rate`].
    pub(super) fn stranger(&self, address: IpAddr) -> Result<(), Refusal> {
        self.limits.address(address).map_err(|wait| self.too_many(wait))
    }

    fn too_many(&self, wait: u32) -> Refusal {
        count(&self.counters.rate_limited, 1);
        Refusal::wait(ApiError::Rate, wait)
    }

    /// Gives a subscriber or seed another passkey; the old one serves no longer. Blocks.
    pub(super) fn rotate_passkey(&self, id: &SubscriberId) -> Result<Passkey, Refusal> {
        let fresh = Passkey::new(random()?);
        let (old, member) = self.store.rotate_passkey(id, fresh)?;
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        members.remove(&old);
        members.insert(fresh, member);
        drop(members);
        // Peers that announced with the old passkey are no longer listed; the owner is back with its next announce.
        self.strike(&member);
        count(&self.counters.passkeys_rotated, 1);
        tracing::info!(member = %id, "passkey changed");
        Ok(fresh)
    }

    /// Forgets a passkey that was replaced while it was being made known.
    pub(super) fn forget_passkey(&self, passkey: &Passkey) {
        self.members.write().unwrap_or_else(PoisonError::into_inner).remove(passkey);
    }

    /// The subscriber of a session that is of this torrent. Blocks. Errors: [`ApiError::WrongRole`],
    /// [`ApiError::WrongTorrent`], [`ApiError::Revoked`].
    pub(super) fn subscriber_of(
        &self,
        session: &Session,
        torrent: &TorrentId,
    ) -> Result<SubscriberRecord, super::store::ChangeError> {
        if session.role != Role::Subscriber {
            return Err(ApiError::WrongRole.into());
        }
        self.subscriber_in(&session.id, torrent)
    }

    /// The subscriber of this id that is of this torrent. Blocks. Errors: [`ApiError::UnknownSubscriber`],
    /// [`ApiError::WrongTorrent`], [`ApiError::Revoked`].
    pub(super) fn subscriber_in(
        &self,
        id: &SubscriberId,
        torrent: &TorrentId,
    ) -> Result<SubscriberRecord, super::store::ChangeError> {
        let record = self.store.subscriber(id)?.ok_or(ApiError::UnknownSubscriber)?;
        if record.torrent_id != *torrent {
            return Err(ApiError::WrongTorrent.into());
        }
        if record.revoked {
            return Err(ApiError::Revoked.into());
        }
        Ok(record)
    }

    /// Refuses a session whose subscriber or seed is not of this torrent. Blocks. Errors: those of
    /// [`Tracker::subscriber_of`].
    pub(super) fn member_of(&self, session: &Session, torrent: &TorrentId) -> Result<(), Refusal> {
        match session.role {
            Role::Subscriber => self.subscriber_of(session, torrent).map(drop).map_err(Refusal::from),
            Role::Seed => calls::seed_of(self, session, torrent),
        }
    }

    /// Takes note that an uploader was given keys of pieces for a downloader.
    pub(super) fn keyed(
        &self,
        torrent: &Torrent,
        uploader: (Role, SubscriberId),
        downloader: SubscriberId,
        pieces: &[u32],
    ) {
        self.offload.keyed(&self.counters, torrent.id, uploader, downloader, pieces.len());
    }

    /// Everything that is measured. Blocks.
    pub(super) fn stats(&self) -> Stats {
        let looked = Instant::now();
        let totals = self.store.totals().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot count records");
            Totals::default()
        });
        let store_read_micros = looked.elapsed().as_micros() as u64;
        let swarms = self.swarms.census(clock::now());
        let (jobs, verifications) = (self.workers.load(), self.verifiers.load());
        let gauges = Gauges {
            peers: swarms.peers,
            peers_complete: swarms.complete,
            swarms: swarms.swarms,
            largest_swarm: swarms.largest,
            table_bytes: self.tables.bytes() as u64,
            table_bytes_limit: self.config.table_cache_bytes as u64,
            jobs_running: jobs.0,
            jobs_waiting: jobs.1,
            verifications_running: verifications.0,
            verifications_waiting: verifications.1,
            limited_callers: self.limits.len() as u64,
            open_connections: self.open_connections.load(Ordering::Relaxed),
            max_open_connections: Bounds::new(&self.config, platform::descriptors()).in_all as u64,
            store_bytes: std::fs::metadata(store_file(&self.config.data)).map_or(0, |file| file.len()),
            store_read_micros,
            serving: u64::from(!self.stopping.load(Ordering::Relaxed)),
            uptime_seconds: self.started.elapsed().as_secs(),
        };
        let counts = Counts { log_lines_dropped: crate::log::dropped(), ..self.counters.read() };
        Stats { counts, gauges, totals, swarm_sizes: swarms.by_size }
    }

    /// Forgets peers that have expired, and callers that were silent.
    pub(super) fn sweep(&self) {
        let now = clock::now();
        self.swarms.sweep(now);
        self.limits.sweep();
    }
}

/// Where the store is.
fn store_file(data: &Path) -> std::path::PathBuf {
    data.join("tracker.redb")
}

impl Front for Tracker {
    connection::front_of_fields!();

    fn connects(&self, remote: IpAddr) -> bool {
        self.limits.connection(remote).is_ok()
    }

    fn knows(&self, request: &Request<Incoming>) -> bool {
        Tracker::knows(self, request)
    }

    fn stranger(&self, remote: IpAddr, path: &str) -> Option<Response> {
        // A license server has neither token nor passkey: its orders are counted if they are not signed.
        if path == licenses::ORDER {
            return None;
        }
        let refusal = Tracker::stranger(self, remote).err()?;
        Some(if path.starts_with("/admin/") { admin::refuse(refusal) } else { refusal.into_response() })
    }

    fn at_once(&self, remote: IpAddr, request: &Request<Incoming>) -> Option<Response> {
        announce::at_once(self, remote, request)
    }
}

/// Where the admin token is.
pub(super) fn admin_token(data: &Path) -> std::path::PathBuf {
    data.join(ADMIN_TOKEN)
}

/// The first admin token, if there is one.
fn read_admin_token(data: &Path) -> Result<Option<Secret>, SecretFileError> {
    let path = admin_token(data);
    if !path.exists() {
        return Ok(None);
    }
    TokenFile::read(&path)
        .map(|file| Some(Zeroizing::new(*file.token.as_bytes())))
        .map_err(|source| SecretFileError::KeyFile { path, source })
}

/// Random bytes of the system. Errors: [`Error::Random`].
pub(super) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}

/// A subscriber as a member of its torrent.
pub(super) fn member(id: SubscriberId, role: Role, torrent_id: TorrentId) -> Member {
    Member { id, role, torrent_id, revoked: false }
}
