//! This device and its subscriptions: the keys on disk, and the torrent that they belong to.

use std::path::Path;
use std::sync::Arc;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use swarmseal_core::{Profile, PublicKey, SecretKey, SubscriberId};

use super::{DataDir, Exit, Failure, Output, TorrentDir, glue};
use crate::atomic_file::{self, Access, Existing};
use crate::player::PolicyState;
use crate::tracker_client::Client;
use crate::wire::api::Passkey;
use crate::wire::identity::Identity;
use crate::wire::keyfile::{self, KeyFile, SubscriberKeys};
use crate::wire::metainfo::{MAX_FILE, Metainfo};
use crate::wire::seal::Hello;

impl From<keyfile::Error> for Failure {
    fn from(error: keyfile::Error) -> Self {
        let exit = match error {
            keyfile::Error::NewerVersion { .. } => Exit::NewerVersion,
            keyfile::Error::WrongTorrent => Exit::WrongTorrent,
            keyfile::Error::WrongKind { .. } => Exit::WrongKey,
            keyfile::Error::Io(_) | keyfile::Error::Exists => Exit::Storage,
            _ => Exit::Tampered,
        };
        Failure::new(exit, error.to_string())
    }
}

/// Prefixes a key file's failure with its path.
pub(super) fn at(path: &Path) -> impl Fn(keyfile::Error) -> Failure {
    move |error| {
        let failure = Failure::from(error);
        Failure::new(failure.exit, format!("{}: {}", path.display(), failure.message))
    }
}

/// Reads a .torrent. A torrent of the profile `paper` is refused unless `insecure` says that it is wanted.
pub(super) fn read_metainfo(path: &Path, insecure: bool) -> Result<Metainfo, Failure> {
    parse_metainfo(path, &read_torrent(path)?, insecure)
}

/// The bytes of a .torrent, sealed or not.
pub(super) fn read_torrent(path: &Path) -> Result<Vec<u8>, Failure> {
    let len = path.metadata().map_err(|error| Failure::file(path, &error))?.len();
    if len > MAX_FILE as u64 {
        return Err(Failure::new(Exit::Failed, format!("{}: too long for a .torrent", path.display())));
    }
    std::fs::read(path).map_err(|error| Failure::file(path, &error))
}

/// [`read_metainfo`] of bytes that were read before.
pub(super) fn parse_metainfo(path: &Path, bytes: &[u8], insecure: bool) -> Result<Metainfo, Failure> {
    let metainfo = Metainfo::from_bytes(bytes, crate::backend::kernels()).map_err(|error| {
        let exit = match error {
            crate::wire::metainfo::Error::NewerVersion { .. } => Exit::NewerVersion,
            _ => Exit::Failed,
        };
        Failure::new(exit, format!("{}: {error}", path.display()))
    })?;
    if metainfo.info.seal.params.profile() == Profile::Paper && !insecure {
        return Err(Failure::new(
            Exit::Usage,
            "this torrent has the profile `paper`, which protects nothing: expected --insecure-paper-profile",
        ));
    }
    Ok(metainfo)
}

/// The device's identity, made on first use.
pub(super) fn identity(data: &DataDir) -> Result<Identity, Failure> {
    let path = data.identity();
    if !path.exists() {
        let fresh = Identity::generate(&mut UnwrapErr(SysRng));
        match fresh.to_key_file().write(&path, Existing::Keep) {
            // Another process of this device may have been first.
            Ok(()) | Err(keyfile::Error::Exists) => {}
            Err(error) => return Err(at(&path)(error)),
        }
    }
    KeyFile::read(&path, Identity::KIND).and_then(|file| Identity::from_key_file(&file)).map_err(at(&path))
}

/// One torrent on this device: who we are in it.
pub(super) struct Subscription {
    /// The torrent.
    pub metainfo: Arc<Metainfo>,
    /// Where it is kept.
    pub dir: TorrentDir,
    /// The device.
    pub identity: Identity,
    /// The subscriber's keys.
    pub keys: SubscriberKeys,
    /// y.
    pub public_key: PublicKey,
    /// The subscriber's id.
    pub id: SubscriberId,
}

impl Subscription {
    /// What this device has of a torrent; none where it never subscribed.
    pub(super) fn load(metainfo: Arc<Metainfo>, data: &DataDir) -> Result<Option<Self>, Failure> {
        let dir = data.torrent(&metainfo.info.seal.torrent_id);
        let path = dir.subscriber();
        if !path.exists() {
            return Ok(None);
        }
        let keys = KeyFile::read(&path, SubscriberKeys::KIND)
            .and_then(|file| SubscriberKeys::from_key_file(&file, &metainfo.info.seal))
            .map_err(at(&path))?;
        Self::assemble(metainfo, dir, identity(data)?, keys).map(Some)
    }

    /// [`Subscription::load`], or a failure that says what to do.
    pub(super) fn expect(metainfo: Arc<Metainfo>, data: &DataDir) -> Result<Self, Failure> {
        Self::load(metainfo, data)?.ok_or_else(|| {
            Failure::new(
                Exit::NotLicensed,
                "this device has not subscribed to the torrent: run `swarmseal get` or `swarmseal subscribe` first",
            )
        })
    }

    /// Loads the keys or makes them, and registers them with the tracker if that has not been done.
    ///
    /// The keys are on the disk before the tracker hears of them, so a kill loses nothing.
    pub(super) async fn ensure(
        metainfo: Arc<Metainfo>,
        data: &DataDir,
        output: Output,
    ) -> Result<Self, Failure> {
        let dir = data.torrent(&metainfo.info.seal.torrent_id);
        dir.create()?;
        atomic_file::write(&dir.metainfo(), &metainfo.to_bytes(), Access::Shared, Existing::Replace)
            .map_err(|error| Failure::file(&dir.metainfo(), &error))?;
        let mut subscription = match Self::load(metainfo.clone(), data)? {
            Some(subscription) => subscription,
            None => {
                let secret = SecretKey::generate(&metainfo.info.seal.params, &mut UnwrapErr(SysRng));
                let torrent_id = metainfo.info.seal.torrent_id;
                let keys = SubscriberKeys { torrent_id, secret, passkey: None, epoch: 1 };
                let subscription = Self::assemble(metainfo.clone(), dir, identity(data)?, keys)?;
                subscription.store(Existing::Keep)?;
                subscription
            }
        };
        if subscription.keys.passkey.is_none() {
            let params = &metainfo.info.seal.params;
            let client = Client::new(glue::base_url(&metainfo.announce)?).map_err(glue::client_failure)?;
            let subscribed = client
                .subscribe(
                    params,
                    metainfo.info.seal.torrent_id,
                    (&subscription.keys.secret, &subscription.public_key),
                    &subscription.identity,
                )
                .await
                .map_err(glue::client_failure)?;
            subscription.keys.passkey = Some(subscribed.passkey.to_hex());
            subscription.keys.epoch = subscribed.epoch;
            subscription.store(Existing::Replace)?;
            output.note(format!("Subscribed as {}", subscription.id));
        }
        Ok(subscription)
    }

    /// What it says of itself to peers.
    pub(super) fn hello(&self) -> Hello {
        let keys = self.identity.commitment(&self.metainfo.info.seal.params, &self.public_key);
        Hello::Subscriber { identity: self.identity.public(), keys }
    }

    /// Keeps another passkey, which the tracker gave instead of the old one.
    pub(super) fn keep_passkey(&mut self, passkey: &Passkey) -> Result<(), Failure> {
        self.keys.passkey = Some(passkey.to_hex());
        self.store(Existing::Replace)
    }

    /// What was played. Errors: also where that was changed, lost, put back or copied.
    pub(super) fn plays(&self) -> Result<PolicyState, Failure> {
        PolicyState::load(self.dir.play_files(), &self.identity, &self.id).map_err(glue::player_failure)
    }

    /// The same, as far as it can be read: for whoever renews it.
    pub(super) fn recovered_plays(&self) -> Result<PolicyState, Failure> {
        PolicyState::recover(self.dir.play_files(), &self.identity, &self.id).map_err(glue::player_failure)
    }

    fn assemble(
        metainfo: Arc<Metainfo>,
        dir: TorrentDir,
        identity: Identity,
        keys: SubscriberKeys,
    ) -> Result<Self, Failure> {
        let public_key = keys.secret.public_key(&metainfo.info.seal.params);
        let id = keys.subscriber(&metainfo.info.seal.params, &identity);
        Ok(Subscription { metainfo, dir, identity, keys, public_key, id })
    }

    fn store(&self, existing: Existing) -> Result<(), Failure> {
        let path = self.dir.subscriber();
        let file = self.keys.to_key_file(&self.metainfo.info.seal.params);
        file.write(&path, existing).map_err(at(&path))
    }
}
