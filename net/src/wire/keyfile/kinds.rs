//! What the key files of devices, publishers, seeds and license servers hold.

use std::fmt;
use std::path::{Path, PathBuf};

use rand_core::CryptoRng;
use swarmseal_core::package::PackageSecret;
use swarmseal_core::{SubscriberId, TorrentId};

use super::{Error, KeyFile};
use crate::wire::api::Token;
use crate::wire::content::Manifest;
use crate::wire::identity::{Device, Identity, SigningKey};
use crate::wire::origin::Origin;

fn bad(name: &str, expected: &str) -> Error {
    Error::BadValue { name: name.into(), expected: expected.into() }
}

impl Device {
    /// The kind of a device's key file, which is also its recovery file.
    pub const KIND: &'static str = "device";

    /// The key file.
    pub fn to_key_file(&self) -> KeyFile {
        KeyFile::new(Self::KIND).with_bytes("root", self.as_bytes())
    }

    /// Reads a key file of this kind.
    pub fn from_key_file(file: &KeyFile) -> Result<Self, Error> {
        file.expect_kind(Self::KIND)?;
        Ok(Device::from_bytes(&*file.array("root")?))
    }
}

impl Identity {
    /// The kind of a license server's key file.
    pub const KIND: &'static str = "identity";

    /// The key file.
    pub fn to_key_file(&self) -> KeyFile {
        KeyFile::new(Self::KIND)
            .with_bytes("signing", &*self.signing_key().to_bytes())
            .with_bytes("device", &*self.device_secret())
    }

    /// Reads a key file of this kind.
    pub fn from_key_file(file: &KeyFile) -> Result<Self, Error> {
        file.expect_kind(Self::KIND)?;
        Ok(Identity::from_secrets(&*file.array("signing")?, &*file.array("device")?))
    }
}

/// A publisher's Ed25519 key, which the ids of its torrents are made of. Zeroized on drop.
#[derive(Clone, Debug)]
pub struct PublisherKey(SigningKey);

impl PublisherKey {
    /// The kind of its key file, where it lies in clear; see [`super::SealedPublisher`].
    pub const KIND: &'static str = "publisher";

    /// A fresh key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        PublisherKey(SigningKey::generate(rng))
    }

    /// From RFC 8032's private key.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        PublisherKey(SigningKey::from_bytes(bytes))
    }

    /// The public key.
    pub fn public(&self) -> [u8; 32] {
        self.0.public()
    }

    /// What it signs with.
    pub fn signing_key(&self) -> &SigningKey {
        &self.0
    }

    /// The key file.
    pub fn to_key_file(&self) -> KeyFile {
        KeyFile::new(Self::KIND).with_bytes("signing", &*self.0.to_bytes())
    }

    /// Reads a key file of this kind.
    pub fn from_key_file(file: &KeyFile) -> Result<Self, Error> {
        file.expect_kind(Self::KIND)?;
        Ok(PublisherKey::from_bytes(&*file.array("signing")?))
    }
}

/// An admin token, and whom it is for: a token is sent to that tracker and to nobody else. `Debug` does not show the token.
#[derive(Clone, Debug)]
pub struct TokenFile {
    /// Where the tracker is reached.
    pub origin: Origin,
    /// The tracker's Ed25519 public key.
    pub tracker_key: [u8; 32],
    /// The token.
    pub token: Token,
}

impl TokenFile {
    /// The kind of its key file.
    pub const KIND: &'static str = "admin token";

    /// Reads the file at a path.
    pub fn read(path: &Path) -> Result<Self, Error> {
        KeyFile::read(path, Self::KIND).and_then(|file| Self::from_key_file(&file))
    }

    /// The key file.
    pub fn to_key_file(&self) -> KeyFile {
        KeyFile::new(Self::KIND)
            .with_text("origin", self.origin.as_str())
            .with_bytes("tracker key", &self.tracker_key)
            .with_bytes("token", self.token.as_bytes())
    }

    /// Reads a key file of this kind.
    pub fn from_key_file(file: &KeyFile) -> Result<Self, Error> {
        file.expect_kind(Self::KIND)?;
        let origin = file.optional_text("origin").and_then(|text| text.parse().ok());
        Ok(TokenFile {
            origin: origin.ok_or_else(|| bad("origin", "such as https://tracker.example"))?,
            tracker_key: *file.array("tracker key")?,
            token: Token::new(*file.array("token")?),
        })
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
    use super::*;
    use crate::wire::content::{FileEntry, FileList};
    use crate::wire::selection::Runs;

    fn reread(file: KeyFile) -> KeyFile {
        KeyFile::parse(file.to_text().as_bytes()).unwrap()
    }

    #[test]
    fn devices_publishers_and_identities_come_back_whole() {
        let device = Device::from_bytes(&[7; 32]);
        let file = reread(device.to_key_file());
        assert_eq!(Device::from_key_file(&file).unwrap().as_bytes(), device.as_bytes());
        assert!(matches!(Identity::from_key_file(&file), Err(Error::WrongKind { .. })));
        let identity = Identity::from_secrets(&[1; 32], &[2; 32]);
        let read = Identity::from_key_file(&reread(identity.to_key_file())).unwrap();
        assert_eq!((read.public(), read.device_public()), (identity.public(), identity.device_public()));
        let publisher = PublisherKey::from_bytes(&[3; 32]);
        let read = PublisherKey::from_key_file(&reread(publisher.to_key_file())).unwrap();
        assert_eq!(read.public(), publisher.public());
        let short = KeyFile::new(Device::KIND).with_bytes("root", &[7; 31]);
        assert!(matches!(Device::from_key_file(&short), Err(Error::BadValue { name, .. }) if name == "root"));
    }

    #[test]
    fn a_token_s_file_says_whom_the_token_is_for() {
        let origin = "https://tracker.example".parse().unwrap();
        let file = TokenFile { origin, tracker_key: [1; 32], token: Token::new([2; 32]) };
        let read = TokenFile::from_key_file(&reread(file.to_key_file())).unwrap();
        assert_eq!((&read.origin, read.tracker_key, &read.token), (&file.origin, [1; 32], &file.token));
        let nowhere = KeyFile::new(TokenFile::KIND).with_bytes("tracker key", &[1; 32]);
        let refused = TokenFile::from_key_file(&nowhere.with_bytes("token", &[2; 32]));
        assert!(matches!(refused, Err(Error::BadValue { name, .. }) if name == "origin"));
        assert!(!format!("{file:?}").contains("02"));
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
        assert_eq!((&read.content, &read.metainfo), (&seed.content, &None));
        let wrong = SeedFile { passkey: Some("a/../b".into()), ..read };
        let refused = SeedFile::from_key_file(&reread(wrong.to_key_file()));
        assert!(matches!(refused, Err(Error::BadValue { name, .. }) if name == "passkey"));
    }
}
