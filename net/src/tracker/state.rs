//! What all requests share.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use swarmseal_core::{Params, Profile, SubscriberId, TorrentId};
use tokio::sync::Semaphore;

use super::hash_work::HashWork;
use super::masters::Masters;
use super::metrics::{Counters, Gauges, Stats};
use super::nonces::Nonces;
use super::personal::Personals;
use super::records::SubscriberRecord;
use super::refusal::Refusal;
use super::rekey::TableCache;
use super::sessions::{Session, Sessions};
use super::store::{Member, Store, StoreError, Totals};
use super::swarm::Swarms;
use super::tickets::CheckedTickets;
use super::workers::Workers;
use super::{Config, Error, calls, clock, secret_files};
use crate::wire::api::{ApiError, Passkey, Role, Token};
use crate::wire::identity::SigningKey;
use crate::wire::metainfo::Metainfo;

/// See [`Tracker::accusing`].
const MAX_ACCUSATIONS: usize = 4;

/// A torrent as calls need it.
pub(super) struct Torrent {
    pub(super) id: TorrentId,
    pub(super) info_hash: [u8; 20],
    pub(super) params: Arc<Params>,
    pub(super) piece_count: u32,
    /// Bytes.
    pub(super) piece_length: u32,
    /// The publisher's public label.
    pub(super) label: String,
    /// The operator's.
    pub(super) name: String,
}

impl Torrent {
    pub(super) fn new(metainfo: &Metainfo, name: String) -> Self {
        Torrent {
            id: metainfo.info.seal.torrent_id,
            info_hash: metainfo.info_hash,
            params: Arc::clone(&metainfo.info.seal.params),
            piece_count: metainfo.info.piece_count,
            piece_length: metainfo.info.piece_length,
            label: metainfo.info.name.clone(),
            name,
        }
    }

    /// Bytes in all.
    pub(super) fn length(&self) -> u64 {
        u64::from(self.piece_count) * u64::from(self.piece_length)
    }

    /// Checks indices of one call. Errors: [`ApiError::BadPiece`].
    pub(super) fn check_pieces(&self, pieces: &[u32]) -> Result<(), ApiError> {
        let counted = (1..=crate::wire::api::MAX_PIECES).contains(&pieces.len());
        if counted && pieces.iter().all(|&piece| piece < self.piece_count) {
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
    pub(super) masters: Masters,
    pub(super) license_key: SigningKey,
    /// Hash of the admin token.
    pub(super) admin: blake3::Hash,
    pub(super) nonces: Nonces,
    pub(super) sessions: Sessions,
    pub(super) swarms: Swarms,
    pub(super) tables: TableCache,
    pub(super) tickets: CheckedTickets,
    pub(super) hash_work: HashWork,
    pub(super) personals: Personals,
    pub(super) counters: Counters,
    /// Calls within sessions, and the admin's.
    pub(super) workers: Workers,
    /// Subscriptions: strangers may not hold up those who are in.
    pub(super) verifiers: Workers,
    /// Accusations in memory at once: each has a whole piece.
    pub(super) accusing: Semaphore,
    torrents: RwLock<HashMap<TorrentId, Arc<Torrent>>>,
    members: RwLock<HashMap<Passkey, Member>>,
    /// Those who lost too many cases.
    barred: RwLock<HashSet<SubscriberId>>,
    started: Instant,
}

/// What the first start made.
pub(super) struct Opened {
    pub(super) tracker: Tracker,
    pub(super) admin_token_is_new: bool,
}

impl Tracker {
    /// Opens or makes everything under the data directory. Blocks.
    pub(super) fn open(config: Config) -> Result<Opened, Error> {
        let directory = config.data.clone();
        let masters = Masters::open(&directory.join("masters"))?;
        let (license_key, _) = secret_files::read_or_create(&directory.join("license.key"))?;
        let (admin, admin_token_is_new) = secret_files::read_or_create(&admin_token(&directory))?;
        let store = Store::open(&directory.join("tracker.redb"))?;
        let mut torrents = HashMap::new();
        for record in store.torrents()? {
            let metainfo = Metainfo::from_bytes(&record.metainfo, crate::backend::kernels())?;
            let torrent = Torrent::new(&metainfo, record.name);
            if torrent.params.profile() == Profile::Paper && !config.insecure_paper_profile {
                return Err(Error::PaperProfile { torrent: torrent.id });
            }
            torrents.insert(torrent.id, Arc::new(torrent));
        }
        let members = store.members()?.into_iter().collect();
        let workers =
            config.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from));
        let tracker = Tracker {
            masters,
            license_key: SigningKey::from_bytes(&license_key),
            admin: blake3::hash(admin.as_slice()),
            nonces: Nonces::new(random()?, config.nonce_seconds),
            sessions: Sessions::default(),
            swarms: Swarms::new(u64::from(config.announce_interval) * 2 + 60),
            tables: TableCache::new(config.table_cache_bytes),
            tickets: CheckedTickets::default(),
            hash_work: HashWork::new(config.cipher_hash_bytes),
            personals: Personals::new(store.personals()?),
            counters: Counters::default(),
            workers: Workers::new(workers, config.max_waiting_calls),
            verifiers: Workers::new(workers.div_ceil(2), config.max_waiting_calls),
            accusing: Semaphore::new(MAX_ACCUSATIONS),
            barred: RwLock::new(store.losers(config.max_lost_cases)?.into_iter().collect()),
            torrents: RwLock::new(torrents),
            members: RwLock::new(members),
            started: Instant::now(),
            store,
            config,
        };
        Ok(Opened { tracker, admin_token_is_new })
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
        if let Ok(torrent) = self.torrent(&member.torrent_id) {
            self.swarms.expel(&torrent.info_hash, &member.id);
        }
    }

    /// Whether a subscriber lost too many cases: it may fetch, but neither send nor accuse.
    pub(super) fn is_barred(&self, id: &SubscriberId) -> bool {
        self.barred.read().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// A case ended against a subscriber or seed. A seed is the publisher's: only its log says so. Blocks.
    pub(super) fn lost_a_case(&self, id: &SubscriberId, torrent: &TorrentId) -> Result<(), StoreError> {
        if self.store.seed(id)?.is_some() {
            tracing::error!(seed = %id, %torrent, "an original seed sent a bad piece");
            return Ok(());
        }
        if self.store.lost_cases(id)? >= self.config.max_lost_cases {
            self.barred.write().unwrap_or_else(PoisonError::into_inner).insert(*id);
            if let Ok(torrent) = self.torrent(torrent) {
                self.swarms.expel(&torrent.info_hash, id);
            }
            tracing::warn!(subscriber = %id, %torrent, "barred: it lost too many cases of bad pieces");
        }
        Ok(())
    }

    /// What a subscriber lost is forgotten; how many cases that were. Blocks.
    pub(super) fn pardon(&self, id: &SubscriberId) -> Result<usize, StoreError> {
        let count = self.store.pardon(id)?;
        self.barred.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        Ok(count)
    }

    /// The session of a token. Errors: [`ApiError::NoSession`].
    pub(super) fn session(&self, token: Option<&Token>) -> Result<Session, ApiError> {
        self.sessions.find(token.ok_or(ApiError::NoSession)?, clock::now())
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
        let record = self.store.subscriber(&session.id)?.ok_or(ApiError::UnknownSubscriber)?;
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

    /// Everything that is measured. Blocks.
    pub(super) fn stats(&self) -> Stats {
        let totals = self.store.totals().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot count records");
            Totals::default()
        });
        let now = clock::now();
        let gauges = Gauges {
            peers: self.swarms.sweep(now) as u64,
            sessions: self.sessions.len() as u64,
            table_bytes: self.tables.bytes() as u64,
            uptime: self.started.elapsed().as_secs(),
        };
        Stats { counts: self.counters.read(), gauges, totals }
    }

    /// Forgets sessions and peers that have expired.
    pub(super) fn sweep(&self) {
        let now = clock::now();
        self.sessions.sweep(now);
        self.swarms.sweep(now);
    }
}

/// Where the admin token is.
pub(super) fn admin_token(data: &Path) -> std::path::PathBuf {
    data.join("admin.token")
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
