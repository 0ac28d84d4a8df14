//! The keys of a device. All of them come from one secret root: in each torrent an Ed25519 key that signs, an X25519 key that licenses
//! are encrypted to, and the key pair of the scheme. Keys of two torrents cannot be told to be of one device.

use std::fmt;

use ed25519_dalek::{Signer, VerifyingKey};
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, Serializable};
use rand_core::CryptoRng;
use swarmseal_core::{DeviceRoot, KeyCommitment, Params, PublicKey, SecretKey, SubscriberId, TorrentId};
use zeroize::{Zeroize, Zeroizing};

/// What a signature is for. Each is a domain of its own: a signature made for one never verifies for another.
pub mod purpose {
    /// A downloader's ticket, over `Ticket::signing_input`.
    pub const TICKET: &str = "ticket";
    /// A publisher's statement of which tracker serves its torrents.
    pub const AUTHORITY: &str = "authority";
    /// A tracker's or license server's proof of its identity.
    pub const IDENTIFY: &str = "identify";
    /// A subscription.
    pub const SUBSCRIBE: &str = "subscribe";
    /// A subscriber's session with the tracker.
    pub const SESSION: &str = "session";
    /// An original seed's session with the tracker.
    pub const SEED_SESSION: &str = "seed session";
    /// A license.
    pub const LICENSE: &str = "license";
    /// A subscriber's word to a license server that it wants a license.
    pub const LICENSE_WORD: &str = "license word";
    /// A license server's order for what a license needs.
    pub const LICENSE_ORDER: &str = "license order";
    /// What a tracker fills such an order with.
    pub const LICENSE_FILLED: &str = "license filled";
}

/// A signature does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

/// What Ed25519 signs: `le64(length) ‖ "swarmseal v1 <purpose>" ‖ message`.
/// A license's message is secret.
fn signed_bytes(purpose: &str, message: &[u8]) -> Zeroizing<Vec<u8>> {
    const PREFIX: &str = "swarmseal v1 ";
    let length = (PREFIX.len() + purpose.len()) as u64;
    Zeroizing::new([&length.to_le_bytes(), PREFIX.as_bytes(), purpose.as_bytes(), message].concat())
}

/// Checks a signature made by [`SigningKey::sign`] with the same purpose. Weak public keys never verify.
pub fn verify(
    public: &[u8; 32],
    purpose: &str,
    message: &[u8],
    signature: &[u8; 64],
) -> Result<(), BadSignature> {
    let key = VerifyingKey::from_bytes(public).map_err(|_| BadSignature)?;
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    key.verify_strict(&signed_bytes(purpose, message), &signature).map_err(|_| BadSignature)
}

/// Whether this is an Ed25519 public key that can verify anything.
pub fn is_public_key(bytes: &[u8; 32]) -> bool {
    VerifyingKey::from_bytes(bytes).is_ok_and(|key| !key.is_weak())
}

/// An Ed25519 key: a device's, a publisher's, an original seed's or a license server's. Zeroized on drop.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// A fresh key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut_slice());
        Self::from_bytes(&seed)
    }

    /// From the 32 bytes of [`SigningKey::to_bytes`]: RFC 8032's private key.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        SigningKey(ed25519_dalek::SigningKey::from_bytes(bytes))
    }

    /// RFC 8032's private key.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a message for one purpose (see [`purpose`]).
    pub fn sign(&self, purpose: &'static str, message: &[u8]) -> [u8; 64] {
        self.0.sign(&signed_bytes(purpose, message)).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

pub(super) type LicenseKem = X25519HkdfSha256;
pub(super) type DeviceSecret = <LicenseKem as Kem>::PrivateKey;

/// An installation, by its root. A copy of it opens everything that this device bought. Zeroized on drop.
#[derive(Clone, Debug)]
pub struct Device(DeviceRoot);

impl Device {
    /// A fresh device.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut root = Zeroizing::new([0; 32]);
        rng.fill_bytes(root.as_mut_slice());
        Self::from_bytes(&root)
    }

    /// From the 32 bytes of [`Device::as_bytes`].
    pub fn from_bytes(root: &[u8; 32]) -> Self {
        Device(DeviceRoot::from_bytes(*root))
    }

    /// The root.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Who this device is in a torrent. `torrent`: its id, [`TorrentId::of`] what its metainfo says.
    pub fn identity(&self, torrent: &TorrentId) -> Identity {
        let (signing, device) = (self.0.identity_key(torrent), self.0.device_key(torrent));
        Identity::from_secrets(signing.as_bytes(), device.as_bytes())
    }

    /// All keys of this device in a torrent. Costs a power modulo p.
    pub fn subscriber_keys(&self, params: &Params, torrent: &TorrentId) -> SubscriberKeys {
        let (identity, secret) = (self.identity(torrent), self.0.secret_key(params, torrent));
        let public_key = secret.public_key(params);
        let id = identity.subscriber(params, torrent, &public_key);
        SubscriberKeys { identity, secret, public_key, id }
    }

    /// The key that names this device to one publisher and to nobody else. `publisher`: its Ed25519 public key.
    pub fn seat_key(&self, publisher: &[u8; 32]) -> SigningKey {
        SigningKey::from_bytes(self.0.seat_key(publisher).as_bytes())
    }

    /// A secret of this device for one use: BLAKE3 `derive_key` under `context` over the root and `field`.
    pub(crate) fn derive(&self, context: &'static str, field: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        for part in [self.as_bytes(), field] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Zeroizing::new(*hasher.finalize().as_bytes())
    }
}

/// Who a device is in one torrent. The secret ones are zeroized on drop.
#[derive(Clone, Debug)]
pub struct SubscriberKeys {
    /// Signs, and opens licenses.
    pub identity: Identity,
    /// s.
    pub secret: SecretKey,
    /// y.
    pub public_key: PublicKey,
    /// Names the subscriber, and fixes the three keys.
    pub id: SubscriberId,
}

/// Who a device is in a torrent, or who a license server is: a key that signs, and one that is encrypted to. Zeroized on drop.
#[derive(Clone)]
pub struct Identity {
    signing: SigningKey,
    device: DeviceSecret,
    device_public: [u8; 32],
}

impl Identity {
    /// A fresh one.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let signing = SigningKey::generate(rng);
        let mut device = Zeroizing::new([0; 32]);
        rng.fill_bytes(device.as_mut_slice());
        Self::from_secrets(&signing.to_bytes(), &device)
    }

    /// From the 32 secret bytes of each key; the X25519 key is clamped.
    pub fn from_secrets(signing: &[u8; 32], device: &[u8; 32]) -> Self {
        let device = DeviceSecret::from_bytes(device).expect("32 bytes are an X25519 key");
        let device_public = LicenseKem::sk_to_pk(&device).to_bytes().into();
        Identity { signing: SigningKey::from_bytes(signing), device, device_public }
    }

    /// The Ed25519 public key: the identity key.
    pub fn public(&self) -> [u8; 32] {
        self.signing.public()
    }

    /// The X25519 public key: the device key.
    pub fn device_public(&self) -> [u8; 32] {
        self.device_public
    }

    /// What this device says to peers of the keys that they do not need; `y`: its public key in the torrent.
    pub fn commitment(&self, params: &Params, y: &PublicKey) -> KeyCommitment {
        KeyCommitment::of(params, &self.device_public, y)
    }

    /// The id of the subscriber with these keys; `y`: its public key in the torrent.
    pub fn subscriber(&self, params: &Params, torrent: &TorrentId, y: &PublicKey) -> SubscriberId {
        SubscriberId::of(torrent, &self.public(), &self.commitment(params, y))
    }

    /// Signs a message for one purpose (see [`purpose`]).
    pub fn sign(&self, purpose: &'static str, message: &[u8]) -> [u8; 64] {
        self.signing.sign(purpose, message)
    }

    /// The Ed25519 secret key, for a key file.
    pub fn signing_key(&self) -> &SigningKey {
        &self.signing
    }

    /// The X25519 secret key's 32 bytes, for a key file.
    pub fn device_secret(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = self.device.to_bytes();
        let mut out = Zeroizing::new([0; 32]);
        out.copy_from_slice(&bytes);
        bytes.zeroize();
        out
    }

    pub(super) fn device_key(&self) -> &DeviceSecret {
        &self.device
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("public", &hex::encode(self.public())).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use getrandom::SysRng;
    use rand_core::UnwrapErr;
    use swarmseal_core::{Exponents, Group, Kernels, Profile};

    #[test]
    fn signatures_hold_for_their_purpose_and_message_only() {
        let identity = Identity::generate(&mut UnwrapErr(SysRng));
        let signature = identity.sign(purpose::TICKET, b"message");
        let public = identity.public();
        assert_eq!(verify(&public, purpose::TICKET, b"message", &signature), Ok(()));
        assert_eq!(verify(&public, purpose::SESSION, b"message", &signature), Err(BadSignature));
        assert_eq!(verify(&public, purpose::TICKET, b"massage", &signature), Err(BadSignature));
        assert_eq!(verify(&[0; 32], purpose::TICKET, b"message", &signature), Err(BadSignature));
        // The purpose is length-prefixed: it cannot borrow from the message.
        assert_eq!(verify(&public, "ticketm", b"essage", &signature), Err(BadSignature));
    }

    #[test]
    fn secrets_round_trip_and_stay_out_of_debug() {
        let identity = Identity::generate(&mut UnwrapErr(SysRng));
        let (signing, device) = (identity.signing_key().to_bytes(), identity.device_secret());
        let again = Identity::from_secrets(&signing, &device);
        assert_eq!((again.public(), again.device_public()), (identity.public(), identity.device_public()));
        let shown = format!("{identity:?} {:?}", identity.signing_key());
        assert!(!shown.contains(&hex::encode(*signing)) && !shown.contains(&hex::encode(*device)));
        assert_eq!(format!("{:?}", Device::from_bytes(&[7; 32])), "Device(DeviceRoot(..))");
    }

    #[test]
    fn a_device_has_other_keys_in_each_torrent_and_for_each_publisher() {
        let group = Group::ffdhe2048(Kernels::portable());
        let params = Params::new(Profile::Sealed, group, Exponents::Short).unwrap();
        let random = [3; 32];
        let [ours, theirs] = [1, 2].map(|seed| SigningKey::from_bytes(&[seed; 32]).public());
        // Two publications of one publisher, and one of another with the same random bytes.
        let torrents = [(&ours, &random), (&ours, &[4; 32]), (&theirs, &random)]
            .map(|(key, random)| TorrentId::of(key, random));
        let [device, other] = [5, 6].map(|seed| Device::from_bytes(&[seed; 32]));
        let mut seen = HashSet::new();
        for device in [&device, &other] {
            for torrent in &torrents {
                let keys = device.subscriber_keys(&params, torrent);
                let again = device.subscriber_keys(&params, torrent);
                assert_eq!((again.id, &again.public_key), (keys.id, &keys.public_key));
                let mut y = vec![0; 256];
                keys.public_key.to_bytes(&params, &mut y).unwrap();
                let commitment = keys.identity.commitment(&params, &keys.public_key);
                // All that peers and trackers see of it.
                let shown = [keys.identity.public(), keys.identity.device_public(), commitment.0, keys.id.0]
                    .map(Vec::from);
                for bytes in shown.into_iter().chain([y]) {
                    assert!(seen.insert(bytes), "two torrents show the same");
                }
            }
            for publisher in [&ours, &theirs] {
                let key = device.seat_key(publisher).public();
                assert_eq!(key, device.seat_key(publisher).public());
                assert!(seen.insert(key.into()), "two publishers see the same seat key");
            }
        }
    }

    #[test]
    fn weak_and_malformed_public_keys_are_told_apart() {
        assert!(is_public_key(&SigningKey::from_bytes(&[7; 32]).public()));
        let mut one = [0; 32];
        one[0] = 1;
        assert!(!is_public_key(&one));
    }
}
