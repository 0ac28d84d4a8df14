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
    /// One device's subscription to one torrent, or one original seed of it. It fixes the torrent and all of its keys.
    SubscriberId
}

id! {
    /// What a subscriber says of its device key and public key to peers, who need neither: its id is made of this.
    KeyCommitment
}

impl TorrentId {
    /// `publisher`: the Ed25519 public key that every authority over the torrent is signed with. `random`: 32 bytes, fresh for each
    /// publication.
    pub fn of(publisher: &[u8; 32], random: &[u8; 32]) -> Self {
        TorrentId(Kdf::new("swarmseal v1 torrent id").field(publisher).field(random).finish())
    }
}

impl KeyCommitment {
    /// `device`: the X25519 public key that licenses are encrypted to.
    pub fn of(params: &Params, device: &[u8; 32], y: &PublicKey) -> Self {
        let mut bytes = [0; MAX_BYTES];
        let bytes = &mut bytes[..params.group().bytes()];
        y.write(bytes);
        KeyCommitment(Kdf::new("swarmseal v1 subscriber keys").field(device).field(bytes).finish())
    }
}

impl SubscriberId {
    /// The id of a subscriber. `identity`: the Ed25519 public key that it signs with.
    pub fn of(torrent: &TorrentId, identity: &[u8; 32], keys: &KeyCommitment) -> Self {
        let kdf = Kdf::new("swarmseal v1 subscriber id").field(&torrent.0).field(identity);
        SubscriberId(kdf.field(&keys.0).finish())
    }

    /// The id of the original seed that signs with this Ed25519 public key.
    pub fn of_seed(torrent: &TorrentId, ed25519: &[u8; 32]) -> Self {
        SubscriberId(Kdf::new("swarmseal v1 seed id").field(&torrent.0).field(ed25519).finish())
    }
}
