//! Keys under a passphrase: Argon2id (RFC 9106) makes the key of XChaCha20-Poly1305 of it.
//!
//! ```text
//! swarmseal key file v1: sealed master
//! epoch: 2
//! memory: 65536      KiB
//! passes: 3
//! lanes: 4
//! salt: …            16 bytes
//! nonce: …           24 bytes
//! sealed: …          the key's 32 bytes and the tag's 16
//! check: …
//! ```
//!
//! Instead of the epoch, a `sealed witness` has the torrent's id, `torrent`, a `sealed publisher` its Ed25519 public key, `public`, and a
//! `sealed voucher key` nothing. Associated data: `swarmseal v1 ` and the kind, then the epoch (8 bytes, big-endian), the torrent's id or
//! the public key.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use swarmseal_core::TorrentId;
use zeroize::Zeroizing;

use super::{Error, KeyFile, PublisherKey};

/// What is written: 64 MiB, three passes, as RFC 9106 recommends where memory is short.
const MEMORY: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// What is read at most: a file that somebody else wrote must not take all memory, or forever.
const MAX_MEMORY: u32 = 1 << 20;
const MAX_PASSES: u32 = 64;
const MAX_LANES: u32 = 16;
/// Keys of one passphrase that are remembered.
const MAX_KEYS: usize = 16;

/// A secret that people can remember. `Debug` does not show it.
///
/// Its copies share the keys that Argon2 made of it, and what is sealed with one of them takes the salt of the first: a tracker has a
/// file for each torrent, and Argon2 takes a good part of a second.
#[derive(Clone)]
pub struct Passphrase(Arc<Shared>);

/// What Argon2 makes of one.
type Key = Zeroizing<[u8; 32]>;

struct Shared {
    text: Zeroizing<String>,
    /// On the heap one by one: a list that grows leaves copies behind.
    keys: Mutex<Vec<(Derivation, Arc<Key>)>>,
}

/// How a key is made of a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Derivation {
    memory: u32,
    passes: u32,
    lanes: u32,
    salt: [u8; 16],
}

impl Passphrase {
    /// From a text; a line end behind it does not count. None where nothing is left.
    pub fn new(text: Zeroizing<String>) -> Option<Self> {
        let line = text.trim_end_matches(['\r', '\n']);
        let shared = || Shared { text: Zeroizing::new(line.to_owned()), keys: Mutex::default() };
        (!line.is_empty()).then(|| Passphrase(Arc::new(shared())))
    }

    /// None where there is no memory for it.
    fn cipher(&self, derivation: Derivation) -> Option<XChaCha20Poly1305> {
        let mut keys = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let known = keys.iter().find(|(of, _)| *of == derivation).map(|(_, key)| Arc::clone(key));
        let key = match known {
            Some(key) => key,
            None => {
                let Derivation { memory, passes, lanes, salt } = derivation;
                let params = Params::new(memory, passes, lanes, Some(32)).ok()?;
                let mut key = Zeroizing::new([0; 32]);
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(self.0.text.as_bytes(), &salt, key.as_mut_slice())
                    .ok()?;
                let key = Arc::new(key);
                if keys.len() == MAX_KEYS {
                    keys.remove(0);
                }
                keys.push((derivation, Arc::clone(&key)));
                key
            }
        };
        Some(XChaCha20Poly1305::new((&**key).into()))
    }

    /// How what is new is sealed.
    fn derivation(&self, rng: &mut impl CryptoRng) -> Derivation {
        let ours = |of: &Derivation| (of.memory, of.passes, of.lanes) == (MEMORY, PASSES, LANES);
        let keys = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|(of, _)| *of).find(ours).unwrap_or_else(|| {
            let mut salt = [0; 16];
            rng.fill_bytes(&mut salt);
            Derivation { memory: MEMORY, passes: PASSES, lanes: LANES, salt }
        })
    }
}

/// In time that does not depend on where they differ.
impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        self.0.text.as_bytes().ct_eq(other.0.text.as_bytes()).into()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// 32 secret bytes under a passphrase, bound to what else their file says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sealed {
    derivation: Derivation,
    nonce: [u8; 24],
    sealed: [u8; 48],
}

impl Sealed {
    /// Seals a key. None where there is no memory for it.
    fn seal(
        key: &[u8; 32],
        associated: &[u8],
        passphrase: &Passphrase,
        rng: &mut impl CryptoRng,
    ) -> Option<Self> {
        let derivation = passphrase.derivation(rng);
        let mut nonce = [0; 24];
        rng.fill_bytes(&mut nonce);
        let payload = Payload { msg: key, aad: associated };
        let sealed = passphrase.cipher(derivation)?.encrypt(&XNonce::from(nonce), payload).ok()?;
        Some(Sealed { derivation, nonce, sealed: sealed.try_into().ok()? })
    }

    /// The key. None where the passphrase is another, or the file was changed.
    fn open(&self, associated: &[u8], passphrase: &Passphrase) -> Option<Zeroizing<[u8; 32]>> {
        let payload = Payload { msg: &self.sealed, aad: associated };
        let cipher = passphrase.cipher(self.derivation)?;
        let opened = Zeroizing::new(cipher.decrypt(&XNonce::from(self.nonce), payload).ok()?);
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(opened.get(..32)?);
        Some(key)
    }

    fn add_to(&self, file: KeyFile) -> KeyFile {
        let Derivation { memory, passes, lanes, salt } = &self.derivation;
        file.with_text("memory", &memory.to_string())
            .with_text("passes", &passes.to_string())
            .with_text("lanes", &lanes.to_string())
            .with_bytes("salt", salt)
            .with_bytes("nonce", &self.nonce)
            .with_bytes("sealed", &self.sealed)
    }

    fn take_from(file: &KeyFile) -> Result<Self, Error> {
        let number = |name: &str, least: u32, most: u32| {
            let number: Option<u32> = file.text(name)?.parse().ok();
            let expected = || Error::BadValue { name: name.into(), expected: format!("{least} to {most}") };
            number.filter(|number| (least..=most).contains(number)).ok_or_else(expected)
        };
        let lanes = number("lanes", 1, MAX_LANES)?;
        Ok(Sealed {
            derivation: Derivation {
                // Argon2 takes eight blocks a lane at least.
                memory: number("memory", 8 * lanes, MAX_MEMORY)?,
                passes: number("passes", 1, MAX_PASSES)?,
                lanes,
                salt: *file.array("salt")?,
            },
            nonce: *file.array("nonce")?,
            sealed: *file.array("sealed")?,
        })
    }
}

/// A master key's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedMaster {
    /// The epoch of the key.
    pub epoch: u64,
    key: Sealed,
}

impl SealedMaster {
    /// The kind of its key file.
    pub const KIND: &'static str = "sealed master";

    /// Seals a key. None where there is no memory for it.
    pub fn seal(
        epoch: u64,
        key: &[u8; 32],
        passphrase: &Passphrase,
        rng: &mut impl CryptoRng,
    ) -> Option<Self> {
        Some(SealedMaster { epoch, key: Sealed::seal(key, &Self::associated(epoch), passphrase, rng)? })
    }

    /// The key. None where the passphrase is another, or the file was changed. May take 64 MiB and a moment.
    pub fn open(&self, passphrase: &Passphrase) -> Option<Zeroizing<[u8; 32]>> {
        self.key.open(&Self::associated(self.epoch), passphrase)
    }

    fn associated(epoch: u64) -> Vec<u8> {
        [&b"swarmseal v1 sealed master"[..], &epoch.to_be_bytes()].concat()
    }

    /// The key file.
    pub fn to_key_file(&self) -> KeyFile {
        self.key.add_to(KeyFile::new(Self::KIND).with_text("epoch", &self.epoch.to_string()))
    }

    /// Reads a key file of this kind; nothing is computed yet.
    pub fn from_key_file(file: &KeyFile) -> Result<Self, Error> {
        file.expect_kind(Self::KIND)?;
        let epoch = file.text("epoch")?.parse();
        Ok(SealedMaster {
            epoch: epoch
                .map_err(|_| Error::BadValue { name: "epoch".into(), expected: "a number".into() })?,
            key: Sealed::take_from(file)?,
        })
    }
}

/// The file of a torrent's witness secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedWitness {
    /// The torrent.
    pub torrent: TorrentId,
    secret: Sealed,
}

impl SealedWitness {
    /// The kind of its key file.
    pub const KIND: &'static str = "sealed witness";

    /// Seals a witness secret. None where there is no memory for it.
    pub fn seal(
        torrent: TorrentId,
        secret: &[u8; 32],
        passphrase: &Passphrase,
        rng: &mut impl CryptoRng,
    ) -> Option<Self> {
        let secret = Sealed::seal(secret, &Self::associated(&torrent), passphrase, rng)?;
        Some(SealedWitness { torrent, secret })
    }

    /// The secret. None where the passphrase is another, or the file was changed. May take 64 MiB and a moment.
    pub fn open(&self, passphrase: &Passphrase) -> Option<Zeroizing<[u8; 32]>> {
        self.secret.open(&Self::associated(&self.torrent), passphrase)
    }

    fn associated(torrent: &TorrentId) -> Vec<u8> {
        [&b"swarmseal v1 sealed witness"[..], &torrent.0].concat()
    }

    /// The key file.
    pub fn to_key_file(&self) -> KeyFile {
        self.secret.add_to(KeyFile::new(Self::KIND).with_bytes("torrent", &self.torrent.0))
    }

    /// Reads a key file of this kind; nothing is computed yet.
    pub fn from_key_file(file: &KeyFile) -> Result<Self, Error> {
        file.expect_kind(Self::KIND)?;
        Ok(SealedWitness { torrent: TorrentId(*file.array("torrent")?), secret: Sealed::take_from(file)? })
    }
}

/// The file of a publisher's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPublisher {
    /// The public key.
    pub public: [u8; 32],
    key: Sealed,
}

impl SealedPublisher {
    /// The kind of its key file.
    pub const KIND: &'static str = "sealed publisher";

    /// Seals a key. None where there is no memory for it.
    pub fn seal(key: &PublisherKey, passphrase: &Passphrase, rng: &mut impl CryptoRng) -> Option<Self> {
        let public = key.public();
        let sealed =
            Sealed::seal(&key.signing_key().to_bytes(), &Self::associated(&public), passphrase, rng)?;
        Some(SealedPublisher { public, key: sealed })
    }

    /// The key. None where the passphrase is another, or the file was changed. May take 64 MiB and a moment.
    pub fn open(&self, passphrase: &Passphrase) -> Option<PublisherKey> {
        let opened = self.key.open(&Self::associated(&self.public), passphrase)?;
        Some(PublisherKey::from_bytes(&opened)).filter(|key| key.public() == self.public)
    }

    fn associated(public: &[u8; 32]) -> Vec<u8> {
        [&b"swarmseal v1 sealed publisher"[..], public].concat()
    }

    /// The key file.
    pub fn to_key_file(&self) -> KeyFile {
        self.key.add_to(KeyFile::new(Self::KIND).with_bytes("public", &self.public))
    }

    /// Reads a key file of this kind; nothing is computed yet.
    pub fn from_key_file(file: &KeyFile) -> Result<Self, Error> {
        file.expect_kind(Self::KIND)?;
        Ok(SealedPublisher { public: *file.array("public")?, key: Sealed::take_from(file)? })
    }
}

/// The file of a tracker's voucher key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedVoucherKey(Sealed);

impl SealedVoucherKey {
    /// The kind of its key file.
    pub const KIND: &'static str = "sealed voucher key";

    const ASSOCIATED: &'static [u8] = b"swarmseal v1 sealed voucher key";

    /// Seals a voucher key. None where there is no memory for it.
    pub fn seal(key: &[u8; 32], passphrase: &Passphrase, rng: &mut impl CryptoRng) -> Option<Self> {
        Sealed::seal(key, Self::ASSOCIATED, passphrase, rng).map(SealedVoucherKey)
    }

    /// The key. None where the passphrase is another, or the file was changed. May take 64 MiB and a moment.
    pub fn open(&self, passphrase: &Passphrase) -> Option<Zeroizing<[u8; 32]>> {
        self.0.open(Self::ASSOCIATED, passphrase)
    }

    /// The key file.
    pub fn to_key_file(&self) -> KeyFile {
        self.0.add_to(KeyFile::new(Self::KIND))
    }

    /// Reads a key file of this kind; nothing is computed yet.
    pub fn from_key_file(file: &KeyFile) -> Result<Self, Error> {
        file.expect_kind(Self::KIND)?;
        Sealed::take_from(file).map(SealedVoucherKey)
    }
}

#[cfg(test)]
mod tests {
    use getrandom::SysRng;
    use rand_core::UnwrapErr;

    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
    }

    #[test]
    fn only_its_passphrase_opens_a_key_and_only_as_its_epoch() {
        let sealed =
            SealedMaster::seal(2, &[7; 32], &passphrase("horse battery"), &mut UnwrapErr(SysRng)).unwrap();
        let file = KeyFile::parse(sealed.to_key_file().to_text().as_bytes()).unwrap();
        let read = SealedMaster::from_key_file(&file).unwrap();
        assert_eq!(read, sealed);
        assert_eq!(*read.open(&passphrase("horse battery\n")).unwrap(), [7; 32]);
        assert!(read.open(&passphrase("horse batterz")).is_none());
        assert!(SealedMaster { epoch: 3, ..read.clone() }.open(&passphrase("horse battery")).is_none());
        let mut changed = read;
        changed.key.sealed[3] ^= 1;
        assert!(changed.open(&passphrase("horse battery")).is_none());
        assert!(Passphrase::new(Zeroizing::new("\n".to_owned())).is_none());
        assert!(!format!("{:?}", passphrase("horse")).contains("horse"));
    }

    #[test]
    fn a_witness_secret_opens_as_its_torrent_s_alone() {
        let (rng, ours) = (&mut UnwrapErr(SysRng), passphrase("horse battery"));
        let sealed = SealedWitness::seal(TorrentId([4; 32]), &[7; 32], &ours, rng).unwrap();
        let file = KeyFile::parse(sealed.to_key_file().to_text().as_bytes()).unwrap();
        let read = SealedWitness::from_key_file(&file).unwrap();
        assert_eq!(read, sealed);
        assert_eq!(*read.open(&ours).unwrap(), [7; 32]);
        assert!(read.open(&passphrase("horse batterz")).is_none());
        assert!(SealedWitness { torrent: TorrentId([5; 32]), ..read }.open(&ours).is_none());
        assert!(matches!(SealedMaster::from_key_file(&file), Err(Error::WrongKind { .. })));

        // What is sealed by one program has one salt, and nonces of its own; another program draws another salt.
        let master = SealedMaster::seal(1, &[7; 32], &ours, rng).unwrap();
        assert_eq!(master.key.derivation, sealed.secret.derivation);
        assert_ne!(master.key.nonce, sealed.secret.nonce);
        let elsewhere = SealedMaster::seal(1, &[7; 32], &passphrase("horse battery"), rng).unwrap();
        assert_ne!(elsewhere.key.derivation.salt, sealed.secret.derivation.salt);
        // Others' files do not make ours weaker, and no number of them fills the memory.
        let other = passphrase("other");
        for salt in 0..2 * MAX_KEYS as u8 {
            let weak = Derivation { memory: 8, passes: 1, lanes: 1, salt: [salt; 16] };
            assert!(other.cipher(weak).is_some());
        }
        assert_eq!(other.0.keys.lock().unwrap().len(), MAX_KEYS);
        assert_eq!(other.derivation(rng).memory, MEMORY);
    }

    #[test]
    fn only_its_passphrase_opens_a_publishers_key_and_only_as_its_own() {
        let key = PublisherKey::from_bytes(&[7; 32]);
        let sealed = SealedPublisher::seal(&key, &passphrase("horse"), &mut UnwrapErr(SysRng)).unwrap();
        let text = sealed.to_key_file().to_text();
        assert!(!text.contains(&hex::encode([7; 32])));
        let file = KeyFile::parse(text.as_bytes()).unwrap();
        let read = SealedPublisher::from_key_file(&file).unwrap();
        assert_eq!((&read, read.public), (&sealed, key.public()));
        assert_eq!(read.open(&passphrase("horse")).unwrap().public(), key.public());
        assert!(read.open(&passphrase("hors")).is_none());
        let public = PublisherKey::from_bytes(&[8; 32]).public();
        assert!(SealedPublisher { public, ..read }.open(&passphrase("horse")).is_none());
        assert!(matches!(SealedMaster::from_key_file(&file), Err(Error::WrongKind { .. })));
    }

    #[test]
    fn a_file_cannot_ask_for_all_memory() {
        let file = |memory: &str, lanes: &str| {
            KeyFile::new(SealedMaster::KIND)
                .with_text("epoch", "1")
                .with_text("memory", memory)
                .with_text("passes", "1")
                .with_text("lanes", lanes)
                .with_bytes("salt", &[1; 16])
                .with_bytes("nonce", &[1; 24])
                .with_bytes("sealed", &[1; 48])
        };
        assert!(SealedMaster::from_key_file(&file("64", "1")).is_ok());
        for (memory, lanes) in
            [("4294967295", "1"), ("7", "1"), ("64", "17"), ("15", "2"), ("-1", "1"), ("64", "0")]
        {
            let refused = SealedMaster::from_key_file(&file(memory, lanes));
            assert!(matches!(refused, Err(Error::BadValue { .. })), "{memory} {lanes}");
        }
    }
}
