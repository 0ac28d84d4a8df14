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
//! A `sealed publisher` has its Ed25519 public key, `public`, instead of the epoch. Associated data: `swarmseal v1 sealed master` and the
//! epoch (8 bytes, big-endian), or `swarmseal v1 sealed publisher` and the public key.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
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

/// A secret that people can remember. `Debug` does not show it.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// From a text; a line end behind it does not count. None where nothing is left.
    pub fn new(text: Zeroizing<String>) -> Option<Self> {
        let line = text.trim_end_matches(['\r', '\n']);
        (!line.is_empty()).then(|| Passphrase(Zeroizing::new(line.to_owned())))
    }
}

/// In time that does not depend on where they differ.
impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
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
    memory: u32,
    passes: u32,
    lanes: u32,
    salt: [u8; 16],
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
        let (mut salt, mut nonce) = ([0; 16], [0; 24]);
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut nonce);
        let (memory, passes, lanes) = (MEMORY, PASSES, LANES);
        let mut sealed = Sealed { memory, passes, lanes, salt, nonce, sealed: [0; 48] };
        let payload = Payload { msg: key, aad: associated };
        let bytes = sealed.cipher(passphrase)?.encrypt(&XNonce::from(nonce), payload).ok()?;
        sealed.sealed = bytes.try_into().ok()?;
        Some(sealed)
    }

    /// The key. None where the passphrase is another, or the file was changed.
    fn open(&self, associated: &[u8], passphrase: &Passphrase) -> Option<Zeroizing<[u8; 32]>> {
        let payload = Payload { msg: &self.sealed, aad: associated };
        let opened = self.cipher(passphrase)?.decrypt(&XNonce::from(self.nonce), payload).ok()?;
        let opened = Zeroizing::new(opened);
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(opened.get(..32)?);
        Some(key)
    }

    fn cipher(&self, passphrase: &Passphrase) -> Option<XChaCha20Poly1305> {
        let params = Params::new(self.memory, self.passes, self.lanes, Some(32)).ok()?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.0.as_bytes(), &self.salt, key.as_mut_slice())
            .ok()?;
        Some(XChaCha20Poly1305::new((&*key).into()))
    }

    fn add_to(&self, file: KeyFile) -> KeyFile {
        file.with_text("memory", &self.memory.to_string())
            .with_text("passes", &self.passes.to_string())
            .with_text("lanes", &self.lanes.to_string())
            .with_bytes("salt", &self.salt)
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
            // Argon2 takes eight blocks a lane at least.
            memory: number("memory", 8 * lanes, MAX_MEMORY)?,
            passes: number("passes", 1, MAX_PASSES)?,
            lanes,
            salt: *file.array("salt")?,
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

    /// The key. None where the passphrase is another, or the file was changed. Takes 64 MiB and a moment.
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

    /// The key. None where the passphrase is another, or the file was changed. Takes 64 MiB and a moment.
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
