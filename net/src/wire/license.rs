//! The license: what opens a torrent for one subscriber.
//!
//! The payload is bencoded, signed by the torrent's license key, and the whole is encrypted to the subscriber's device
//! (HPKE, RFC 9180 base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305):
//!
//! ```text
//! "swarmseal license" ‖ version (1 byte) ‖ device key (32) ‖ encapsulated key (32) ‖ AEAD(signature (64) ‖ payload)
//! ```
//!
//! All that precedes the encapsulated key is the AEAD's associated data. A device key is no secret; naming it tells a
//! license for another device from one that was tampered with.

use std::fmt;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use swarmseal_core::{SubscriberId, TorrentId};
use zeroize::Zeroizing;

use super::bencode;
use super::identity::{self, Identity, LicenseKem, SigningKey, purpose};
use super::metainfo::Metainfo;

/// The newest license that is understood.
pub const VERSION: u8 = 1;
/// Bytes of the largest envelope that is opened: a million pieces at 2,048 bits.
pub const MAX_ENVELOPE: usize = 300 << 20;

const MAGIC: &[u8; 17] = b"swarmseal license";
const HEADER: usize = MAGIC.len() + 1 + 32;
const HPKE_INFO: &[u8] = b"swarmseal v1 license envelope";

/// Why a license was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LicenseError {
    /// It was encrypted to another device.
    #[error("the license is not for this device")]
    NotForThisDevice,
    /// It was changed on its way.
    #[error("the license was tampered with: its encryption does not hold")]
    Tampered,
    /// Another key signed it than the one that the publisher has licenses signed with.
    #[error("another key signed the license than the publisher's authority names")]
    OtherSigner,
    /// It opens another torrent.
    #[error("the license is for another torrent")]
    WrongTorrent,
    /// It opens another subscriber's pieces.
    #[error("the license is for another subscriber")]
    WrongSubscriber,
    /// It is newer than this program.
    #[error("the license has version {found}; this program understands up to {VERSION}")]
    NewerVersion {
        /// The version found.
        found: u64,
    },
    /// It is no license.
    #[error("not a license: {0}")]
    Malformed(String),
}

/// What the player enforces. Times are Unix seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// How often the content may be played, of all that were ever bought for this subscription.
    #[serde(default, with = "bencode::optional", skip_serializing_if = "Option::is_none")]
    pub plays: Option<u64>,
    /// Not to be played before.
    #[serde(
        default,
        rename = "not before",
        with = "bencode::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub not_before: Option<u64>,
    /// Not to be played from then on.
    #[serde(default, with = "bencode::optional", skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Seconds that may pass since the license server was last heard of.
    #[serde(
        default,
        rename = "offline grace",
        with = "bencode::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub offline_grace: Option<u64>,
}

/// A license in clear. Its keys are zeroized on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct License {
    /// What the keys open.
    pub torrent_id: TorrentId,
    /// The torrent's info-hash.
    pub info_hash: [u8; 20],
    /// Whose pieces they open.
    pub subscriber: SubscriberId,
    /// The subscription's epoch that the keys belong to.
    pub epoch: u64,
    /// When it was issued, by the tracker's clock. Older trackers did not say.
    pub issued: Option<u64>,
    /// Plays that the tracker knew of when it was issued: the record of plays has no fewer.
    pub played: u64,
    /// What the player enforces.
    pub policy: Policy,
    /// The decryption keys of the sealed pieces, in their order, W big-endian bytes each.
    pub keys: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for License {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("License")
            .field("torrent_id", &self.torrent_id)
            .field("subscriber", &self.subscriber)
            .field("epoch", &self.epoch)
            .field("issued", &self.issued)
            .field("played", &self.played)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Payload {
    epoch: u64,
    #[serde(rename = "info hash", with = "serde_bytes")]
    info_hash: [u8; 20],
    #[serde(default, with = "bencode::optional")]
    issued: Option<u64>,
    #[serde(with = "serde_bytes")]
    keys: Vec<u8>,
    #[serde(default)]
    played: u64,
    policy: Policy,
    #[serde(with = "serde_bytes")]
    subscriber: [u8; 32],
    #[serde(rename = "torrent id", with = "serde_bytes")]
    torrent_id: [u8; 32],
    #[allow(dead_code)] // It must be there; what it says was looked at before.
    v: u64,
}

/// What stands before the keys in a payload, and what stands behind them: an encoder would leave copies of the keys in memory.
#[derive(Serialize)]
struct BeforeKeys {
    epoch: u64,
    #[serde(rename = "info hash", with = "serde_bytes")]
    info_hash: [u8; 20],
    #[serde(with = "bencode::optional", skip_serializing_if = "Option::is_none")]
    issued: Option<u64>,
}

#[derive(Serialize)]
struct BehindKeys<'a> {
    played: u64,
    policy: &'a Policy,
    #[serde(with = "serde_bytes")]
    subscriber: [u8; 32],
    #[serde(rename = "torrent id", with = "serde_bytes")]
    torrent_id: [u8; 32],
    v: u64,
}

impl License {
    /// Signs the license and encrypts it to a device. Errors: [`LicenseError::Malformed`] where `device` is no usable
    /// X25519 key.
    pub fn seal(
        &self,
        license_key: &SigningKey,
        device: &[u8; 32],
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, LicenseError> {
        let unusable = |_| LicenseError::Malformed("the device key is no X25519 key".into());
        let encoded = self.payload();
        let signature = license_key.sign(purpose::LICENSE, &encoded);
        let plaintext = Zeroizing::new([&signature[..], &encoded].concat());

        let recipient = <LicenseKem as Kem>::PublicKey::from_bytes(device).map_err(unusable)?;
        let mut envelope = [&MAGIC[..], &[VERSION], device].concat();
        let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<
            ChaCha20Poly1305,
            HkdfSha256,
            LicenseKem,
        >(
            &OpModeS::Base, &recipient, HPKE_INFO, &plaintext, &envelope, rng
        )
        .map_err(unusable)?;
        envelope.extend_from_slice(&encapsulated.to_bytes());
        envelope.extend_from_slice(&ciphertext);
        Ok(envelope)
    }

    /// The bencoded dictionary, in one buffer that need not grow.
    fn payload(&self) -> Zeroizing<Vec<u8>> {
        let before = bencode::to_bytes(&BeforeKeys {
            epoch: self.epoch,
            info_hash: self.info_hash,
            issued: self.issued,
        });
        let behind = bencode::to_bytes(&BehindKeys {
            played: self.played,
            policy: &self.policy,
            subscriber: self.subscriber.0,
            torrent_id: self.torrent_id.0,
            v: VERSION.into(),
        });
        let head = format!("4:keys{}:", self.keys.len());
        // The first without its end, the second without its beginning.
        let parts = [&before[..before.len() - 1], head.as_bytes(), &self.keys, &behind[1..]];
        Zeroizing::new(parts.concat())
    }

    /// Opens an envelope with this device's key and checks the signature under a license key.
    pub fn open(
        envelope: &[u8],
        identity: &Identity,
        license_key: &[u8; 32],
    ) -> Result<License, LicenseError> {
        let plaintext = decrypt(envelope, identity)?;
        check_signature(&plaintext, license_key)?;
        parse(&plaintext)
    }

    /// [`License::open`] for one torrent and subscriber, with as many keys as it has sealed pieces. A license of another
    /// torrent is called that even where another key signed it. `license_key`: what the publisher's authority names.
    pub fn open_for(
        envelope: &[u8],
        identity: &Identity,
        metainfo: &Metainfo,
        license_key: &[u8; 32],
        subscriber: &SubscriberId,
    ) -> Result<License, LicenseError> {
        let plaintext = decrypt(envelope, identity)?;
        let license = parse(&plaintext)?;
        let seal = &metainfo.info.seal;
        if license.torrent_id != seal.torrent_id {
            return Err(LicenseError::WrongTorrent);
        }
        check_signature(&plaintext, license_key)?;
        if license.info_hash != metainfo.info_hash {
            return Err(LicenseError::WrongTorrent);
        }
        if license.subscriber != *subscriber {
            return Err(LicenseError::WrongSubscriber);
        }
        if license.keys.len() != metainfo.info.sealed_count() as usize * seal.params.group().bytes() {
            return Err(LicenseError::Malformed("it has not one key for each piece".into()));
        }
        Ok(license)
    }
}

/// The device key that a license names in clear. Nothing of it is proven. Errors: [`LicenseError::Malformed`],
/// [`LicenseError::NewerVersion`].
pub fn device_of(envelope: &[u8]) -> Result<[u8; 32], LicenseError> {
    let (header, _) = split(envelope)?;
    let device = header.last_chunk().copied();
    device.ok_or_else(|| LicenseError::Malformed("it is cut short".into()))
}

/// The header, which ends with the device key, and what follows.
fn split(envelope: &[u8]) -> Result<(&[u8], &[u8]), LicenseError> {
    let malformed = |what: &str| LicenseError::Malformed(what.into());
    if envelope.len() > MAX_ENVELOPE {
        return Err(malformed("it is too long"));
    }
    let version = *envelope
        .strip_prefix(MAGIC)
        .and_then(<[u8]>::first)
        .ok_or_else(|| malformed("it does not begin as one"))?;
    if version > VERSION {
        return Err(LicenseError::NewerVersion { found: version.into() });
    }
    envelope.split_at_checked(HEADER).ok_or_else(|| malformed("it is cut short"))
}

/// The signature and payload, once the AEAD holds.
fn decrypt(envelope: &[u8], identity: &Identity) -> Result<Zeroizing<Vec<u8>>, LicenseError> {
    let malformed = |what: &str| LicenseError::Malformed(what.into());
    let (header, rest) = split(envelope)?;
    let (encapsulated, ciphertext) = rest.split_at_checked(32).ok_or_else(|| malformed("it is cut short"))?;
    if header[MAGIC.len() + 1..] != identity.device_public() {
        return Err(LicenseError::NotForThisDevice);
    }
    let encapsulated = <LicenseKem as Kem>::EncappedKey::from_bytes(encapsulated)
        .map_err(|_| malformed("its encapsulated key is none"))?;
    hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, LicenseKem>(
        &OpModeR::Base,
        identity.device_key(),
        &encapsulated,
        HPKE_INFO,
        ciphertext,
        header,
    )
    .map(Zeroizing::new)
    .map_err(|_| LicenseError::Tampered)
}

fn check_signature(plaintext: &[u8], license_key: &[u8; 32]) -> Result<(), LicenseError> {
    let (signature, payload) = plaintext.split_first_chunk::<64>().ok_or(LicenseError::Tampered)?;
    identity::verify(license_key, purpose::LICENSE, payload, signature).map_err(|_| LicenseError::OtherSigner)
}

fn parse(plaintext: &[u8]) -> Result<License, LicenseError> {
    let malformed = |error: bencode::Error| LicenseError::Malformed(error.to_string());
    let (_, payload) = plaintext.split_first_chunk::<64>().ok_or(LicenseError::Tampered)?;
    let v = bencode::dict_number(payload, b"v").map_err(malformed)?.unwrap_or(0);
    if v > VERSION.into() {
        return Err(LicenseError::NewerVersion { found: v });
    }
    let payload: Payload = bencode::from_bytes(payload, MAX_ENVELOPE).map_err(malformed)?;
    Ok(License {
        torrent_id: TorrentId(payload.torrent_id),
        info_hash: payload.info_hash,
        subscriber: SubscriberId(payload.subscriber),
        epoch: payload.epoch,
        issued: payload.issued,
        played: payload.played,
        policy: payload.policy,
        keys: Zeroizing::new(payload.keys),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use getrandom::SysRng;
    use proptest::prelude::*;
    use rand_core::UnwrapErr;

    fn sample() -> License {
        License {
            torrent_id: TorrentId([1; 32]),
            info_hash: [2; 20],
            subscriber: SubscriberId([3; 32]),
            epoch: 4,
            issued: Some(1_800_000_000),
            played: 2,
            policy: Policy { plays: Some(5), expires: Some(u64::MAX), ..Policy::default() },
            keys: Zeroizing::new(vec![6; 512]),
        }
    }

    fn device(seed: u8) -> Identity {
        Identity::from_secrets(&[seed; 32], &[seed + 1; 32])
    }

    fn sealed(signer: &SigningKey) -> Vec<u8> {
        sample().seal(signer, &device(1).device_public(), &mut UnwrapErr(SysRng)).unwrap()
    }

    #[test]
    fn it_opens_on_its_device() {
        let signer = SigningKey::from_bytes(&[9; 32]);
        let envelope = sealed(&signer);
        assert_eq!(License::open(&envelope, &device(1), &signer.public()).unwrap(), sample());
        assert_eq!(device_of(&envelope), Ok(device(1).device_public()));
        assert!(matches!(device_of(&envelope[..HEADER - 1]), Err(LicenseError::Malformed(_))));
        assert_ne!(envelope, sealed(&signer));
    }

    #[test]
    fn refusals_are_told_apart() {
        let signer = SigningKey::from_bytes(&[9; 32]);
        let envelope = sealed(&signer);
        let open = |envelope: &[u8], device: &Identity, signer: &SigningKey| {
            License::open(envelope, device, &signer.public()).unwrap_err()
        };
        assert_eq!(open(&envelope, &device(5), &signer), LicenseError::NotForThisDevice);
        assert_eq!(open(&envelope, &device(1), &SigningKey::from_bytes(&[8; 32])), LicenseError::OtherSigner);
        let mut newer = envelope.clone();
        newer[MAGIC.len()] = 2;
        assert_eq!(open(&newer, &device(1), &signer), LicenseError::NewerVersion { found: 2 });
        let mut flipped = envelope.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(open(&flipped, &device(1), &signer), LicenseError::Tampered);
        for cut in [0, 10, MAGIC.len(), HEADER, HEADER + 31] {
            assert!(
                matches!(open(&envelope[..cut], &device(1), &signer), LicenseError::Malformed(_)),
                "{cut}"
            );
        }
        assert_eq!(open(&envelope[..HEADER + 40], &device(1), &signer), LicenseError::Tampered);
    }

    #[test]
    fn debug_shows_no_keys() {
        assert!(!format!("{:?}", sample()).contains("6, 6"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(tail in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..300) {
            let signer = SigningKey::from_bytes(&[9; 32]);
            prop_assert!(License::open(&tail, &device(1), &signer.public()).is_err());
            let mut envelope = sealed(&signer);
            let at = at % envelope.len();
            envelope.truncate(at);
            envelope.extend_from_slice(&tail);
            prop_assert!(License::open(&envelope, &device(1), &signer.public()).is_err());
        }
    }
}
