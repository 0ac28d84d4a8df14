//! Names of torrents and subscribers.

use core::fmt;

use crate::kdf::Kdf;
use crate::{MAX_BYTES, Params, PublicKey};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

id! {
    /// Names a torrent in every derivation, ticket and license: a KDF of its publisher's key and of 32 random bytes in the metainfo.
    TorrentId
}
id! {
    /// Fixes a subscriber's device key and public key. Peers need neither key: they make the subscriber's id from this.
    KeyCommitment
}
id! {
    /// Names a device's subscription to a torrent, or an original seed of it. It fixes the torrent and the subscriber's keys.
    SubscriberId
}

impl TorrentId {
    /// `publisher`: the Ed25519 public key that signs who serves the torrent. `random`: 32 bytes, fresh for each publication.
    pub fn of(publisher: &[u8; 32], random: &[u8; 32]) -> Self {
        TorrentId(Kdf::new("swarmseal v1 torrent id").field(publisher).field(random).finish())
    }
}

impl KeyCommitment {
    /// `device`: the X25519 public key that a subscriber's decryption keys are encrypted to.
    pub fn of(params: &Params, device: &[u8; 32], y: &PublicKey) -> Self {
        let mut bytes = [0; MAX_BYTES];
        let bytes = &mut bytes[..params.group().bytes()];
        y.write(bytes);
        KeyCommitment(Kdf::new("swarmseal v1 subscriber keys").field(device).field(bytes).finish())
    }
}

impl SubscriberId {
    /// `identity`: the Ed25519 public key that the subscriber signs with.
    pub fn of(torrent: &TorrentId, identity: &[u8; 32], keys: &KeyCommitment) -> Self {
        let kdf = Kdf::new("swarmseal v1 subscriber id").field(&torrent.0).field(identity);
        SubscriberId(kdf.field(&keys.0).finish())
    }

    /// `ed25519`: the public key that the original seed signs with.
    pub fn of_seed(torrent: &TorrentId, ed25519: &[u8; 32]) -> Self {
        SubscriberId(Kdf::new("swarmseal v1 seed id").field(&torrent.0).field(ed25519).finish())
    }
}
