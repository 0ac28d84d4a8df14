//! The keys that name a device: an Ed25519 key that signs, and an X25519 key that licenses are encrypted to.

use std::fmt;

use ed25519_dalek::{Signer, VerifyingKey};
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, Serializable};
use rand_core::CryptoRng;
use swarmseal_core::{KeyCommitment, Params, PublicKey, SubscriberId, TorrentId};
use zeroize::{Zeroize, Zeroizing};

/// What a signature is for. Each is a domain of its own: a signature made for one never verifies for another.
pub mod purpose {
    /// A downloader's ticket, over `Ticket::signing_input`.
    pub const TICKET: &str = "ticket";
    /// A subscription.
    pub const SUBSCRIBE: &str = "subscribe";
    /// A subscriber's session with the tracker.
    pub const SESSION: &str = "session";
    /// An original seed's session with the tracker.
    pub const SEED_SESSION: &str = "seed session";
    /// An uploader's statement of what it sent.
    pub const STATEMENT: &str = "statement";
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

/// An Ed25519 key: a device's, an original seed's or a license server's. Zeroized on drop.
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

/// A device: the same for all its torrents. Zeroized on drop.
#[derive(Clone)]
pub struct Identity {
    signing: SigningKey,
    device: DeviceSecret,
    device_public: [u8; 32],
}

impl Identity {
    /// A fresh device.
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

    /// What this device says of its other keys to peers; `y`: its public key for a torrent.
    pub fn commitment(&self, params: &Params, y: &PublicKey) -> KeyCommitment {
        KeyCommitment::of(params, &self.device_public, y)
    }

    /// Who this device is in a torrent; `y`: its public key for it.
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

    /// A secret of this device for one use: BLAKE3 `derive_key` under `context` over both secret keys and `field`.
    pub(crate) fn derive(&self, context: &'static str, field: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        let (signing, device) = (self.signing.to_bytes(), self.device_secret());
        for part in [signing.as_slice(), device.as_slice(), field] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Zeroizing::new(*hasher.finalize().as_bytes())
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
    use super::*;
    use getrandom::SysRng;
    use rand_core::UnwrapErr;

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
    }

    #[test]
    fn weak_and_malformed_public_keys_are_told_apart() {
        assert!(is_public_key(&SigningKey::from_bytes(&[7; 32]).public()));
        let mut one = [0; 32];
        one[0] = 1;
        assert!(!is_public_key(&one));
    }
}
