//! The authority: a publisher's signed statement of which tracker serves its torrents. A .torrent carries one outside of `info`, and
//! trackers hand out the newest, so that a publisher can move to another domain or replace keys while swarms run.
//!
//! ```text
//! statement  bencoded {"license key", "origins", "serial", "tracker key"} ‖ Ed25519 signature (purpose `authority`), 64 bytes
//! file       bencoded {"authority": the statement, "publisher key", "v": 1}
//! ```

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::bencode;
use super::identity::{self, SigningKey, purpose};
use super::origin::Origin;

/// The newest version of the file that is understood.
pub const VERSION: u64 = 1;
/// Origins of one authority.
pub const MAX_ORIGINS: usize = 8;
/// Bytes of the longest statement.
pub const MAX_AUTHORITY: usize = 4096;
/// Seconds that a serial may be ahead of the clock: a day.
pub const MAX_AHEAD: u64 = 24 * 3600;

/// Why an authority was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is something else.
    #[error("not an authority: {0}")]
    Bencode(#[from] bencode::Error),
    /// The file is newer than this program.
    #[error("the authority's file has version {found}; this program understands up to {VERSION}")]
    NewerVersion {
        /// The version found.
        found: u64,
    },
    /// The publisher's key did not sign it.
    #[error("the publisher's key did not sign the authority")]
    BadSignature,
    /// One entry has a value that cannot be.
    #[error("bad authority: {what}: expected {expected}")]
    Bad {
        /// The entry.
        what: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Its serial is more than a day ahead of the clock.
    #[error("the authority is dated {serial}, more than a day ahead of the clock ({now}): check the clock")]
    FromTheFuture {
        /// The serial: seconds since 1970.
        serial: u64,
        /// The clock: seconds since 1970.
        now: u64,
    },
}

/// Which tracker serves a publisher's torrents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Ed25519 public key that signs licenses.
    #[serde(rename = "license key", with = "serde_bytes")]
    pub license_key: [u8; 32],
    /// Where the tracker is reached, 1 to [`MAX_ORIGINS`], in the order in which clients try them.
    pub origins: Vec<Origin>,
    /// When it was signed, in seconds since 1970: the newest counts.
    pub serial: u64,
    /// Ed25519 public key of the tracker.
    #[serde(rename = "tracker key", with = "serde_bytes")]
    pub tracker_key: [u8; 32],
}

impl Authority {
    fn check(&self) -> Result<(), Error> {
        for (what, key) in [("license key", &self.license_key), ("tracker key", &self.tracker_key)] {
            if !identity::is_public_key(key) {
                return Err(Error::Bad { what, expected: "an Ed25519 public key" });
            }
        }
        if !(1..=MAX_ORIGINS).contains(&self.origins.len()) {
            return Err(Error::Bad { what: "origins", expected: "1 to 8 of them" });
        }
        Ok(())
    }
}

/// An authority that its publisher's key signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAuthority {
    publisher_key: [u8; 32],
    authority: Authority,
    bytes: Vec<u8>,
}

impl SignedAuthority {
    /// Signs one with the publisher's key. Errors: [`Error::Bad`].
    pub fn sign(authority: Authority, key: &SigningKey) -> Result<Self, Error> {
        authority.check()?;
        let mut bytes = bencode::to_bytes(&authority);
        let signature = key.sign(purpose::AUTHORITY, &bytes);
        bytes.extend_from_slice(&signature);
        Ok(SignedAuthority { publisher_key: key.public(), authority, bytes })
    }

    /// Reads a statement of the publisher with this key. Errors: [`Error::BadSignature`], before anything else of it is believed.
    pub fn from_bytes(bytes: &[u8], publisher_key: &[u8; 32]) -> Result<Self, Error> {
        if bytes.len() > MAX_AUTHORITY {
            return Err(bencode::Error::TooLong { found: bytes.len(), limit: MAX_AUTHORITY }.into());
        }
        let (statement, signature) = bytes.split_last_chunk::<64>().ok_or(Error::BadSignature)?;
        identity::verify(publisher_key, purpose::AUTHORITY, statement, signature)
            .map_err(|_| Error::BadSignature)?;
        let authority: Authority = bencode::from_bytes(statement, MAX_AUTHORITY)?;
        authority.check()?;
        Ok(SignedAuthority { publisher_key: *publisher_key, authority, bytes: bytes.to_vec() })
    }

    /// The statement's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key that signed it.
    pub fn publisher_key(&self) -> &[u8; 32] {
        &self.publisher_key
    }

    /// Whether it takes the place of the one that is kept: the newest counts, and of two with one serial the first. `now`: the clock, in
    /// seconds since 1970. Errors: [`Error::FromTheFuture`].
    pub fn supersedes(&self, kept: Option<&SignedAuthority>, now: u64) -> Result<bool, Error> {
        let serial = self.serial;
        if serial > now.saturating_add(MAX_AHEAD) {
            return Err(Error::FromTheFuture { serial, now });
        }
        Ok(kept.is_none_or(|kept| serial > kept.serial))
    }

    /// The bytes of a file that says whose it is.
    pub fn to_file(&self) -> Vec<u8> {
        bencode::to_bytes(&File { authority: &self.bytes, publisher_key: self.publisher_key, v: VERSION })
    }

    /// Reads such a file.
    pub fn from_file(bytes: &[u8]) -> Result<Self, Error> {
        if let Some(found) = bencode::dict_number(bytes, b"v")?.filter(|&found| found > VERSION) {
            return Err(Error::NewerVersion { found });
        }
        let file: File<'_> = bencode::from_bytes(bytes, MAX_FILE)?;
        Self::from_bytes(file.authority, &file.publisher_key)
    }
}

/// Bytes of the longest file.
pub const MAX_FILE: usize = MAX_AUTHORITY + 256;

#[derive(Serialize, Deserialize)]
struct File<'a> {
    #[serde(with = "serde_bytes")]
    authority: &'a [u8],
    #[serde(rename = "publisher key", with = "serde_bytes")]
    publisher_key: [u8; 32],
    v: u64,
}

impl Deref for SignedAuthority {
    type Target = Authority;

    fn deref(&self) -> &Authority {
        &self.authority
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn authority(serial: u64) -> Authority {
        Authority {
            license_key: key(1).public(),
            origins: vec![
                "https://tracker.example".parse().unwrap(),
                "http://127.0.0.1:7000".parse().unwrap(),
            ],
            serial,
            tracker_key: key(2).public(),
        }
    }

    #[test]
    fn only_the_publisher_s_key_makes_one() {
        let signed = SignedAuthority::sign(authority(5), &key(3)).unwrap();
        let read = SignedAuthority::from_bytes(signed.as_bytes(), &key(3).public());
        assert_eq!(read.as_ref(), Ok(&signed));
        assert_eq!(*read.unwrap(), authority(5));
        let other = SignedAuthority::from_bytes(signed.as_bytes(), &key(4).public());
        assert_eq!(other, Err(Error::BadSignature));
        for at in 0..signed.as_bytes().len() {
            let mut forged = signed.as_bytes().to_vec();
            forged[at] ^= 1;
            let read = SignedAuthority::from_bytes(&forged, &key(3).public());
            assert_eq!(read, Err(Error::BadSignature), "byte {at}");
        }
        // A signature of the same key for something else.
        let statement = bencode::to_bytes(&authority(5));
        let signature = key(3).sign(purpose::SESSION, &statement);
        let bytes = [&statement[..], &signature].concat();
        assert_eq!(SignedAuthority::from_bytes(&bytes, &key(3).public()), Err(Error::BadSignature));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |change: fn(&mut Authority)| {
            let mut changed = authority(5);
            change(&mut changed);
            SignedAuthority::sign(changed, &key(3)).unwrap_err()
        };
        assert!(matches!(refused(|a| a.license_key = [0; 32]), Error::Bad { what: "license key", .. }));
        assert!(matches!(refused(|a| a.tracker_key = [0; 32]), Error::Bad { what: "tracker key", .. }));
        assert!(matches!(refused(|a| a.origins.clear()), Error::Bad { what: "origins", .. }));
        let many = |a: &mut Authority| a.origins = vec![a.origins[0].clone(); MAX_ORIGINS + 1];
        assert!(matches!(refused(many), Error::Bad { what: "origins", .. }));
        // Signed as well, by a program that checks less.
        for statement in [
            &b"d11:license key32:00000000000000000000000000000000e"[..],
            b"de",
            b"",
            b"d7:originsl9:not a urlee",
        ] {
            let bytes = [statement, &key(3).sign(purpose::AUTHORITY, statement)].concat();
            assert!(SignedAuthority::from_bytes(&bytes, &key(3).public()).is_err());
        }
        let long = vec![b'd'; MAX_AUTHORITY + 1];
        assert!(matches!(SignedAuthority::from_bytes(&long, &key(3).public()), Err(Error::Bencode(_))));
    }

    #[test]
    fn the_newest_counts_and_of_equals_the_first() {
        let sign = |serial| SignedAuthority::sign(authority(serial), &key(3)).unwrap();
        let kept = sign(1000);
        assert_eq!(sign(1000).supersedes(None, 1000), Ok(true));
        assert_eq!(sign(999).supersedes(Some(&kept), 1000), Ok(false));
        assert_eq!(sign(1000).supersedes(Some(&kept), 1000), Ok(false));
        assert_eq!(sign(1001).supersedes(Some(&kept), 1000), Ok(true));
        assert_eq!(sign(1000 + MAX_AHEAD).supersedes(Some(&kept), 1000), Ok(true));
        let serial = 1001 + MAX_AHEAD;
        let future = sign(serial).supersedes(Some(&kept), 1000);
        assert_eq!(future, Err(Error::FromTheFuture { serial, now: 1000 }));
    }

    #[test]
    fn files_round_trip_and_newer_ones_are_refused() {
        let signed = SignedAuthority::sign(authority(5), &key(3)).unwrap();
        assert_eq!(SignedAuthority::from_file(&signed.to_file()), Ok(signed.clone()));
        assert_eq!(SignedAuthority::from_file(b"d1:vi2ee"), Err(Error::NewerVersion { found: 2 }));
        for bad in [&b"de"[..], b"", &[0; MAX_FILE + 1], signed.as_bytes()] {
            assert!(matches!(SignedAuthority::from_file(bad), Err(Error::Bencode(_))));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(SignedAuthority::from_bytes(&bytes, &key(3).public()).is_err());
            let _ = SignedAuthority::from_file(&bytes);
        }
    }
}
