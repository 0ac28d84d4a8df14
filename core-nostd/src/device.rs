//! The secret of an installation, from which the keys of all its subscriptions come.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::exponent::Exponent;
use crate::kdf::Kdf;
use crate::{MAX_BYTES, Params, SecretKey, TorrentId};

/// 32 secret bytes of an installation. With a copy of them, another machine opens everything that this one bought. Zeroized on drop.
///
/// The keys of one torrent say nothing about those of another, so that others cannot tell that both are of one device.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DeviceRoot([u8; 32]);

/// A secret derived from a [`DeviceRoot`]. Zeroized on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DerivedSecret([u8; 32]);

impl DeviceRoot {
    /// From 32 bytes of a good random generator.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        DeviceRoot(bytes)
    }

    /// The 32 bytes, to be kept in a file of their own.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// s for one torrent. Profile, p and g are inputs: a forged metainfo with the same torrent id and a weaker group gets another s.
    pub fn secret_key(&self, params: &Params, torrent: &TorrentId) -> SecretKey {
        let group = params.group();
        let (mut p, mut g) = ([0; MAX_BYTES], [0; MAX_BYTES]);
        let (p, g) = (&mut p[..group.bytes()], &mut g[..group.bytes()]);
        group.modulus_be(p).and_then(|()| group.generator_be(g)).expect("both have W bytes");
        let kdf = self.kdf("swarmseal v1 device secret", &torrent.0);
        let kdf = kdf.field(params.profile().name().as_bytes()).field(p).field(g);
        SecretKey::from_exponent(Exponent::from_kdf(group, params.short_secret_bytes(), kdf))
    }

    /// The private key (RFC 8032) of the Ed25519 identity key for one torrent.
    pub fn identity_key(&self, torrent: &TorrentId) -> DerivedSecret {
        DerivedSecret(self.kdf("swarmseal v1 device identity", &torrent.0).finish())
    }

    /// The private key (RFC 7748, before it is clamped) of the X25519 device key for one torrent.
    pub fn device_key(&self, torrent: &TorrentId) -> DerivedSecret {
        DerivedSecret(self.kdf("swarmseal v1 device encryption", &torrent.0).finish())
    }

    /// The private key (RFC 8032) of the Ed25519 seat key for one publisher. `publisher`: its Ed25519 public key.
    pub fn seat_key(&self, publisher: &[u8; 32]) -> DerivedSecret {
        DerivedSecret(self.kdf("swarmseal v1 device seat", publisher).finish())
    }

    fn kdf(&self, context: &'static str, field: &[u8; 32]) -> Kdf {
        Kdf::new(context).field(&self.0).field(field)
    }
}

impl DerivedSecret {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for DeviceRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceRoot(..)")
    }
}

impl fmt::Debug for DerivedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedSecret(..)")
    }
}
