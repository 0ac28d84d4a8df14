//! This device and its subscriptions: one root on disk, and what it makes of this device in each torrent.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use swarmseal_core::Profile;

use super::glue::{self, TrustArgs};
use super::{DataDir, Exit, Failure, Output, TorrentDir};
use crate::atomic_file::{self, Access, Existing};
use crate::player::PolicyState;
use crate::tracker_client::{Client, Service};
use crate::wire::api::Passkey;
use crate::wire::identity::{Device, SubscriberKeys};
use crate::wire::keyfile::{self, KeyFile};
use crate::wire::license::{License, LicenseError};
use crate::wire::metainfo::{MAX_FILE, Metainfo};
use crate::wire::seal::Hello;
use crate::wire::subscription::{self, SubscriptionFile};

impl From<keyfile::Error> for Failure {
    fn from(error: keyfile::Error) -> Self {
        let exit = match error {
            keyfile::Error::NewerVersion { .. } => Exit::NewerVersion,
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

/// This device, whose root is made on first use.
pub(super) fn device(data: &DataDir) -> Result<Device, Failure> {
    let path = data.device();
    if !path.exists() && !data.subscribed().is_empty() {
        return Err(Failure::new(
            Exit::Storage,
            format!(
                "{}: it is gone, and the subscriptions beside it need it: expected `swarmseal key import` first",
                path.display()
            ),
        ));
    }
    let make = || Device::generate(&mut UnwrapErr(SysRng)).to_key_file();
    KeyFile::read_or_create(&path, Device::KIND, make)
        .and_then(|file| Device::from_key_file(&file))
        .map_err(at(&path))
}

/// A device's key file.
pub(super) fn read_device(path: &Path) -> Result<Device, Failure> {
    KeyFile::read(path, Device::KIND).and_then(|file| Device::from_key_file(&file)).map_err(at(path))
}

/// What a torrent's directory says of the subscription; none where there is none.
pub(super) fn read_subscription(dir: &TorrentDir) -> Result<Option<SubscriptionFile>, Failure> {
    let path = dir.subscription();
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| Failure::file(&path, &error))?,
    };
    SubscriptionFile::from_bytes(&bytes).map(Some).map_err(|error| {
        let (exit, help) = match error {
            subscription::Error::NewerVersion { .. } => (Exit::NewerVersion, ""),
            _ => (Exit::Tampered, "; delete it, and `swarmseal get` makes it again"),
        };
        Failure::new(exit, format!("{}: {error}{help}", path.display()))
    })
}

/// One torrent on this device: who we are in it.
pub(super) struct Subscription {
    /// The torrent.
    pub metainfo: Arc<Metainfo>,
    /// Its tracker.
    pub service: Service,
    /// Where it is kept.
    pub dir: TorrentDir,
    /// The device.
    pub device: Device,
    /// Its keys in the torrent.
    pub keys: SubscriberKeys,
    /// What it announces with.
    pub passkey: Passkey,
    /// The epoch that the torrent was in when the device subscribed.
    pub epoch: u64,
}

impl Subscription {
    /// What this device has of a torrent; none where it never subscribed.
    pub(super) fn load(
        metainfo: Arc<Metainfo>,
        trust: &TrustArgs,
        data: &DataDir,
    ) -> Result<Option<Self>, Failure> {
        let seal = &metainfo.info.seal;
        let dir = data.torrent(&seal.torrent_id);
        let Some(SubscriptionFile { subscriber, passkey, epoch }) = read_subscription(&dir)? else {
            return Ok(None);
        };
        let device = device(data)?;
        let keys = device.subscriber_keys(&seal.params, &seal.torrent_id);
        if subscriber != keys.id {
            return Err(Failure::new(
                Exit::WrongKey,
                format!(
                    "{}: subscribed with another key than {}: expected that key, or delete the directory",
                    dir.path().display(),
                    data.device().display()
                ),
            ));
        }
        let service = trust.service(&metainfo, data)?;
        Ok(Some(Subscription { metainfo, service, dir, device, keys, passkey, epoch }))
    }

    /// [`Subscription::load`], or a failure that says what to do.
    pub(super) fn expect(
        metainfo: Arc<Metainfo>,
        trust: &TrustArgs,
        data: &DataDir,
    ) -> Result<Self, Failure> {
        Self::load(metainfo, trust, data)?.ok_or_else(|| {
            Failure::new(
                Exit::NotLicensed,
                "this device has not subscribed to the torrent: run `swarmseal get` or `swarmseal subscribe` first",
            )
        })
    }

    /// Loads the subscription, or subscribes. The keys are on the disk before the tracker hears of them, and always the same: a kill
    /// loses nothing, and a machine with a copy of the root gets the same subscription.
    pub(super) async fn ensure(
        metainfo: Arc<Metainfo>,
        trust: &TrustArgs,
        data: &DataDir,
        output: Output,
    ) -> Result<Self, Failure> {
        let seal = &metainfo.info.seal;
        let dir = data.torrent(&seal.torrent_id);
        dir.create()?;
        atomic_file::write(&dir.metainfo(), &metainfo.to_bytes(), Access::Shared, Existing::Replace)
            .map_err(|error| Failure::file(&dir.metainfo(), &error))?;
        if let Some(subscription) = Self::load(metainfo.clone(), trust, data)? {
            return Ok(subscription);
        }
        let device = device(data)?;
        let keys = device.subscriber_keys(&seal.params, &seal.torrent_id);
        let service = trust.service(&metainfo, data)?;
        let client = Client::new(service.clone()).map_err(glue::client_failure)?;
        let subscribed = client
            .subscribe(&seal.params, seal.torrent_id, (&keys.secret, &keys.public_key), &keys.identity)
            .await
            .map_err(glue::client_failure)?;
        let (passkey, epoch) = (subscribed.passkey, subscribed.epoch);
        let subscription = Subscription { metainfo, service, dir, device, keys, passkey, epoch };
        subscription.store()?;
        output.note(format!("Subscribed as {}", subscription.keys.id));
        Ok(subscription)
    }

    /// The key that the publisher has licenses signed with.
    pub(super) fn license_key(&self) -> [u8; 32] {
        // A subscription's service is a publisher's.
        self.service.authority().map_or([0; 32], |authority| authority.license_key)
    }

    /// Opens a license of this subscription.
    pub(super) fn open_license(&self, envelope: &[u8]) -> Result<License, LicenseError> {
        let SubscriberKeys { identity, id, .. } = &self.keys;
        License::open_for(envelope, identity, &self.metainfo, &self.license_key(), id)
    }

    /// What it says of itself to peers.
    pub(super) fn hello(&self) -> Hello {
        let SubscriberKeys { identity, public_key, .. } = &self.keys;
        let keys = identity.commitment(&self.metainfo.info.seal.params, public_key);
        Hello::Subscriber { identity: identity.public(), keys }
    }

    /// Keeps another passkey, which the tracker gave instead of the old one.
    pub(super) fn keep_passkey(&mut self, passkey: &Passkey) -> Result<(), Failure> {
        self.passkey = *passkey;
        self.store()
    }

    /// Until the file is dropped, no other process of the device tells the tracker what was played: calls that overtook each other
    /// would look like a record that was set back.
    pub(super) async fn turn(&self) -> Result<File, Failure> {
        let path = self.dir.turn();
        let lock = tokio::task::spawn_blocking({
            let path = path.clone();
            move || atomic_file::lock(&path)
        });
        let locked = lock.await.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        locked.map_err(|error| Failure::file(&path, &error))
    }

    /// What was played. Errors: also where that was changed, lost, put back or copied.
    pub(super) fn plays(&self) -> Result<PolicyState, Failure> {
        PolicyState::load(self.dir.play_files(), &self.device, &self.keys.id).map_err(glue::player_failure)
    }

    /// The same, as far as it can be read: for whoever renews it.
    pub(super) fn recovered_plays(&self) -> Result<PolicyState, Failure> {
        PolicyState::recover(self.dir.play_files(), &self.device, &self.keys.id).map_err(glue::player_failure)
    }

    fn store(&self) -> Result<(), Failure> {
        let (subscriber, passkey, epoch) = (self.keys.id, self.passkey, self.epoch);
        let (path, file) = (self.dir.subscription(), SubscriptionFile { subscriber, passkey, epoch });
        atomic_file::write(&path, &file.to_bytes(), Access::Private, Existing::Replace)
            .map_err(|error| Failure::file(&path, &error))
    }
}
