//! What the key files of devices, subscribers and seeds hold.

use std::fmt;
use std::path::{Path, PathBuf};

use swarmseal_core::package::PackageSecret;
use swarmseal_core::{MAX_BYTES, Params, SecretKey, SubscriberId, TorrentId};
use zeroize::Zeroizing;

use super::{Error, KeyFile};
use crate::wire::content::Manifest;
use crate::wire::identity::{Identity, SigningKey};
use crate::wire::metainfo::Seal;

fn bad(name: &str, expected: &str) -> Error {
    Error::BadValue { name: name.into(), expected: expected.into() }
}

impl Identity {
    /// The kind of an identity's key file.
    pub const KIND: &'static str = "identity";

    /// The key file.
    pub fn to_key_file(&self) -> KeyFile {
        self.add_to(KeyFile::new(Self::KIND))
    }

    /// Reads a key file of this kind.
    pub fn from_key_file(file: &KeyFile) -> Result<Self, Error> {
        file.expect_kind(Self::KIND)?;
        Self::take_from(file)
    }

    fn add_to(&self, file: KeyFile) -> KeyFile {
        file.with_bytes("signing", &*self.signing_key().to_bytes())
            .with_bytes("device", &*self.device_secret())
    }

    fn take_from(file: &KeyFile) -> Result<Self, Error> {
        Ok(Identity::from_secrets(&*file.array("signing")?, &*file.array("device")?))
    }
}

/// What a subscriber keeps of one subscription. Losing it loses the purchase.
#[derive(Clone)]
pub struct SubscriberKeys {
    /// The torrent.
    pub torrent_id: TorrentId,
    /// s.
    pub secret: SecretKey,
    /// What the tracker gave at subscription: authorises announce and scrape, nothing else.
    pub passkey: Option<String>,
    /// The epoch of the subscription, from the tracker; 1 until then.
    pub epoch: u64,
}

impl fmt::Debug for SubscriberKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriberKeys").field("torrent_id", &self.torrent_id).finish_non_exhaustive()
    }
}

impl SubscriberKeys {
    /// The kind of its key file.
    pub const KIND: &'static str = "subscriber";

    /// Who this is to the tracker and to peers.
    pub fn subscriber(&self, params: &Params, identity: &Identity) -> SubscriberId {
        identity.subscriber(params, &self.torrent_id, &self.secret.public_key(params))
    }

    /// The key file.
    pub fn to_key_file(&self, params: &Params) -> KeyFile {
        self.add_to(KeyFile::new(Self::KIND), params)
    }

    /// Reads a key file of this kind for a torrent. Errors: [`Error::WrongTorrent`] where it is another's.
    pub fn from_key_file(file: &KeyFile, seal: &Seal) -> Result<Self, Error> {
        file.expect_kind(Self::KIND)?;
        Self::take_from(file, seal)
    }

    fn add_to(&self, file: KeyFile, params: &Params) -> KeyFile {
        let mut secret = Zeroizing::new([0; MAX_BYTES]);
        let secret = &mut secret[..params.group().bytes()];
        self.secret.to_bytes(params, secret).expect("W bytes");
        let file = file
            .with_bytes("torrent", &self.torrent_id.0)
            .with_bytes("secret", secret)
            .with_text("epoch", &self.epoch.to_string());
        match &self.passkey {
            Some(passkey) => file.with_text("passkey", passkey),
            None => file,
        }
    }

    fn take_from(file: &KeyFile, seal: &Seal) -> Result<Self, Error> {
        if *file.array("torrent")? != seal.torrent_id.0 {
            return Err(Error::WrongTorrent);
        }
        let secret = SecretKey::from_bytes(&seal.params, &file.bytes("secret")?)
            .map_err(|_| bad("secret", "a secret key of this torrent's profile and group"))?;
        let passkey = file.optional_text("passkey").map(checked_passkey).transpose()?;
        let epoch = file.text("epoch")?.parse().map_err(|_| bad("epoch", "a number"))?;
        Ok(SubscriberKeys { torrent_id: seal.torrent_id, secret, passkey, epoch })
    }
}

/// A passkey stands in URLs: nothing but letters and digits.
fn checked_passkey(text: &str) -> Result<String, Error> {
    if text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        Ok(text.into())
    } else {
        Err(bad("passkey", "up to 64 letters and digits"))
    }
}

/// A subscription and the device that it belongs to, in one file: enough to play on another machine.
#[derive(Clone, Debug)]
pub struct ExportedKeys {
    /// The device: licenses are encrypted to it.
    pub identity: Identity,
    /// The subscription.
    pub subscriber: SubscriberKeys,
}

impl ExportedKeys {
    /// The kind of its key file.
    pub const KIND: &'static str = "exported subscriber";

    /// The key file.
    pub fn to_key_file(&self, params: &Params) -> KeyFile {
        self.subscriber.add_to(self.identity.add_to(KeyFile::new(Self::KIND)), params)
    }

    /// Reads a key file of this kind for a torrent. Errors: [`Error::WrongTorrent`] where it is another's.
    pub fn from_key_file(file: &KeyFile, seal: &Seal) -> Result<Self, Error> {
        file.expect_kind(Self::KIND)?;
        Ok(ExportedKeys {
            identity: Identity::take_from(file)?,
            subscriber: SubscriberKeys::take_from(file, seal)?,
        })
    }
}

/// A path in hexadecimal, if it is there.
fn path(file: &KeyFile, name: &str) -> Result<Option<PathBuf>, Error> {
    match file.optional_text(name) {
        None => Ok(None),
        Some(_) => match std::str::from_utf8(&file.bytes(name)?) {
            Ok(path) => Ok(Some(PathBuf::from(path))),
            Err(_) => Err(bad(name, "a path in UTF-8")),
        },
    }
}

/// What every original seed of a torrent has: it packages the plaintext as the publisher did and opens sessions with the
/// tracker. Any number of seeds may use one.
#[derive(Clone)]
pub struct SeedFile {
    /// The torrent.
    pub torrent_id: TorrentId,
    /// What all seeds must share to make the same packages.
    pub package_secret: PackageSecret,
    /// Signs the seed's sessions and statements.
    pub signing_key: SigningKey,
    /// What the tracker gave at registration: authorises announce and scrape, nothing else.
    pub passkey: Option<String>,
    /// The files, and which of their bytes are sealed, as the plaintext stream says.
    pub manifest: Manifest,
    /// Where the content lay when it was published: what `seed` looks for first.
    pub content: Option<PathBuf>,
    /// Where the .torrent was written.
    pub metainfo: Option<PathBuf>,
}

impl fmt::Debug for SeedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeedFile").field("torrent_id", &self.torrent_id).finish_non_exhaustive()
    }
}

impl SeedFile {
    /// The kind of its key file.
    pub const KIND: &'static str = "seed";

    /// Who this is to the tracker and to peers.
    pub fn seed(&self) -> SubscriberId {
        SubscriberId::of_seed(&self.torrent_id, &self.signing_key.public())
    }

    /// The key file.
    pub fn to_key_file(&self) -> KeyFile {
        let file = KeyFile::new(Self::KIND)
            .with_bytes("torrent", &self.torrent_id.0)
            .with_bytes("package", self.package_secret.as_bytes())
            .with_bytes("signing", &*self.signing_key.to_bytes())
            .with_bytes("files", &self.manifest.to_bytes());
        let file = match &self.passkey {
            Some(passkey) => file.with_text("passkey", passkey),
            None => file,
        };
        [("content", &self.content), ("metainfo", &self.metainfo)].into_iter().fold(
            file,
            |file, (name, path)| {
                match path.as_deref().and_then(Path::to_str) {
                    // In hexadecimal, for a path may hold what a line of text cannot.
                    Some(path) if !path.is_empty() => file.with_bytes(name, path.as_bytes()),
                    _ => file,
                }
            },
        )
    }

    /// Reads a key file of this kind.
    pub fn from_key_file(file: &KeyFile) -> Result<Self, Error> {
        file.expect_kind(Self::KIND)?;
        Ok(SeedFile {
            torrent_id: TorrentId(*file.array("torrent")?),
            package_secret: PackageSecret::from_bytes(*file.array("package")?),
            signing_key: SigningKey::from_bytes(&*file.array("signing")?),
            passkey: file.optional_text("passkey").map(checked_passkey).transpose()?,
            manifest: Manifest::from_bytes(&file.bytes("files")?).map_err(|error| {
                bad("files", &format!("a list of files that this program reads: {error}"))
            })?,
            content: path(file, "content")?,
            metainfo: path(file, "metainfo")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use getrandom::SysRng;
    use rand_core::UnwrapErr;
    use swarmseal_core::{Exponents, Group, Kernels, Profile};

    use super::*;
    use crate::wire::content::{FileEntry, FileList};
    use crate::wire::selection::Runs;

    fn seal(torrent: u8) -> Seal {
        let group = Group::ffdhe2048(Kernels::portable());
        let params = Params::new(Profile::Sealed, group, Exponents::Short).unwrap();
        Seal::new(TorrentId([torrent; 32]), Arc::new(params), [0; 32])
    }

    fn reread(file: KeyFile) -> KeyFile {
        KeyFile::parse(file.to_text().as_bytes()).unwrap()
    }

    #[test]
    fn exported_keys_come_back_whole() {
        let rng = &mut UnwrapErr(SysRng);
        let seal = seal(1);
        let subscriber = SubscriberKeys {
            torrent_id: seal.torrent_id,
            secret: SecretKey::generate(&seal.params, rng),
            passkey: Some("0123456789abcdef".into()),
            epoch: 3,
        };
        let identity = Identity::generate(rng);
        let exported = ExportedKeys { identity: identity.clone(), subscriber: subscriber.clone() };
        let file = reread(exported.to_key_file(&seal.params));
        let read = ExportedKeys::from_key_file(&file, &seal).unwrap();
        assert_eq!(read.identity.device_public(), identity.device_public());
        assert_eq!(read.identity.public(), identity.public());
        assert_eq!(
            read.subscriber.subscriber(&seal.params, &identity),
            subscriber.subscriber(&seal.params, &identity)
        );
        assert_eq!(read.subscriber.passkey, subscriber.passkey);
        assert_eq!(read.subscriber.epoch, 3);
        assert!(matches!(ExportedKeys::from_key_file(&file, &self::seal(2)), Err(Error::WrongTorrent)));
        assert!(matches!(SubscriberKeys::from_key_file(&file, &seal), Err(Error::WrongKind { .. })));

        let file = reread(subscriber.to_key_file(&seal.params));
        let read = SubscriberKeys::from_key_file(&file, &seal).unwrap();
        assert_eq!(read.subscriber(&seal.params, &identity), subscriber.subscriber(&seal.params, &identity));
        let file = reread(identity.to_key_file());
        assert_eq!(Identity::from_key_file(&file).unwrap().public(), identity.public());
    }

    #[test]
    fn values_of_the_wrong_shape_are_refused() {
        let seal = seal(1);
        let file = |secret: &[u8], passkey: &str| {
            KeyFile::new(SubscriberKeys::KIND)
                .with_bytes("torrent", &seal.torrent_id.0)
                .with_bytes("secret", secret)
                .with_text("passkey", passkey)
                .with_text("epoch", "1")
        };
        let refused = |file: KeyFile| match SubscriberKeys::from_key_file(&file, &seal) {
            Err(Error::BadValue { name, .. }) => name,
            other => panic!("{other:?}"),
        };
        let mut secret = [0; 256];
        assert_eq!(refused(file(&secret, "x")), "secret");
        assert_eq!(refused(file(&[1; 32], "x")), "secret");
        secret[224..].fill(0xff);
        assert_eq!(refused(file(&secret, "a/../b")), "passkey");
        assert!(SubscriberKeys::from_key_file(&file(&secret, "x"), &seal).is_ok());
    }

    #[test]
    fn seed_files_come_back_whole() {
        let entry =
            FileEntry { path: vec!["a b".into(), "ü.mp4".into()], size: 5, mime: "video/mp4".into() };
        let seed = SeedFile {
            torrent_id: TorrentId([4; 32]),
            package_secret: PackageSecret::from_bytes([5; 32]),
            signing_key: SigningKey::from_bytes(&[6; 32]),
            passkey: None,
            manifest: Manifest::new(
                FileList::new(vec![entry]).unwrap(),
                Some(Runs::new(vec![1, 3, 1]).unwrap()),
            )
            .unwrap(),
            content: Some("/films/a b\nc".into()),
            metainfo: None,
        };
        let read = SeedFile::from_key_file(&reread(seed.to_key_file())).unwrap();
        assert_eq!(read.seed(), seed.seed());
        assert_eq!(read.package_secret.as_bytes(), seed.package_secret.as_bytes());
        assert_eq!(read.manifest, seed.manifest);
        assert_eq!(read.passkey, None);
        assert_eq!((read.content, read.metainfo), (seed.content, None));
    }
}
