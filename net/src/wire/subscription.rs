//! What a device keeps of a subscription besides its keys, which come from the device's root: a bencoded dictionary of what the tracker
//! answered. The tracker says it again to whoever subscribes with the same keys.

use serde::{Deserialize, Serialize};
use swarmseal_core::SubscriberId;

use super::api::Passkey;
use super::bencode;

/// The newest version that is understood.
pub const VERSION: u64 = 1;
/// Bytes of the longest file that is read.
pub const MAX_FILE: usize = 4096;

/// Why a file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is something else.
    #[error("not a subscription's file: {0}")]
    Bencode(#[from] bencode::Error),
    /// It is newer than this program.
    #[error("the subscription's file has version {found}; this program understands up to {VERSION}")]
    NewerVersion {
        /// The version found.
        found: u64,
    },
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionFile {
    /// Whose it is.
    pub subscriber: SubscriberId,
    /// Authorises announce and scrape.
    pub passkey: Passkey,
    /// The epoch that the torrent was in.
    pub epoch: u64,
}

#[derive(Serialize, Deserialize)]
struct Encoded {
    epoch: u64,
    #[serde(with = "serde_bytes")]
    passkey: [u8; 16],
    #[serde(with = "serde_bytes")]
    subscriber: [u8; 32],
    v: u64,
}

impl SubscriptionFile {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let SubscriptionFile { subscriber, passkey, epoch } = self;
        let (passkey, subscriber) = (*passkey.as_bytes(), subscriber.0);
        bencode::to_bytes(&Encoded { epoch: *epoch, passkey, subscriber, v: VERSION })
    }

    /// Reads a file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        // A newer file may change everything else.
        if let Some(found) = bencode::dict_number(bytes, b"v")?.filter(|&found| found > VERSION) {
            return Err(Error::NewerVersion { found });
        }
        let Encoded { epoch, passkey, subscriber, .. } = bencode::from_bytes(bytes, MAX_FILE)?;
        Ok(SubscriptionFile { subscriber: SubscriberId(subscriber), passkey: Passkey::new(passkey), epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_round_trip_and_newer_ones_are_refused() {
        let file =
            SubscriptionFile { subscriber: SubscriberId([1; 32]), passkey: Passkey::new([2; 16]), epoch: 3 };
        let bytes = file.to_bytes();
        assert_eq!(SubscriptionFile::from_bytes(&bytes), Ok(file));
        let newer = SubscriptionFile::from_bytes(b"d1:vi2ee");
        assert_eq!(newer, Err(Error::NewerVersion { found: 2 }));
        for bad in [&bytes[..bytes.len() - 1], b"d1:vi1ee", b"", &[0; MAX_FILE + 1]] {
            assert!(matches!(SubscriptionFile::from_bytes(bad), Err(Error::Bencode(_))));
        }
    }
}
