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
    /// 32 random bytes in the metainfo that name a torrent in every derivation, ticket and license.
    TorrentId
}
id! {
    /// One device's subscription to one torrent, or one original seed of it.
    SubscriberId
}

impl SubscriberId {
    /// The id of the subscriber with public key `y`.
    pub fn of(params: &Params, torrent: &TorrentId, y: &PublicKey) -> Self {
        let mut bytes = [0; MAX_BYTES];
        let bytes = &mut bytes[..params.group().bytes()];
        y.write(bytes);
        SubscriberId(Kdf::new("swarmseal v1 subscriber id").field(&torrent.0).field(bytes).finish())
    }

    /// The id of the original seed that signs with this Ed25519 public key.
    pub fn of_seed(torrent: &TorrentId, ed25519: &[u8; 32]) -> Self {
        SubscriberId(Kdf::new("swarmseal v1 seed id").field(&torrent.0).field(ed25519).finish())
    }
}
