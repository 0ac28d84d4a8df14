//! What the store keeps, each as one bencoded value.

use serde::{Deserialize, Serialize};
use swarmseal_core::{SubscriberId, TorrentId};

use crate::wire::api::{ApiError, Passkey, id};
use crate::wire::bencode::optional;
use crate::wire::license::Policy;

/// A registered torrent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TorrentRecord {
    /// The whole .torrent.
    #[serde(with = "serde_bytes")]
    pub(super) metainfo: Vec<u8>,
    /// The operator's label.
    pub(super) name: String,
}

/// An original seed of a torrent: a signing key that any number of machines may hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeedRecord {
    #[serde(with = "id")]
    pub(super) torrent_id: TorrentId,
    /// Ed25519 public key.
    #[serde(with = "serde_bytes")]
    pub(super) key: [u8; 32],
    #[serde(with = "passkey")]
    pub(super) passkey: Passkey,
    pub(super) revoked: bool,
}

/// One device's subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SubscriberRecord {
    #[serde(with = "id")]
    pub(super) torrent_id: TorrentId,
    /// The public key, W bytes, checked when it came.
    #[serde(with = "serde_bytes")]
    pub(super) y: Vec<u8>,
    /// Ed25519 public key.
    #[serde(with = "serde_bytes")]
    pub(super) identity: [u8; 32],
    /// X25519 public key.
    #[serde(with = "serde_bytes")]
    pub(super) device: [u8; 32],
    #[serde(with = "passkey")]
    pub(super) passkey: Passkey,
    pub(super) epoch: u64,
    pub(super) created: u64,
    pub(super) revoked: bool,
}

/// Whose personal torrent an info-hash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PersonalRecord {
    #[serde(with = "id")]
    pub(super) torrent_id: TorrentId,
    #[serde(with = "id")]
    pub(super) subscriber: SubscriberId,
    pub(super) epoch: u64,
}

/// Devices without a place that a grant remembers.
pub(super) const MAX_GONE: usize = 64;

/// The right to a license, of as many devices as it covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GrantRecord {
    #[serde(with = "id")]
    pub(super) torrent_id: TorrentId,
    /// Whose it is, where the publisher says.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub(super) account: Option<String>,
    /// Devices covered.
    pub(super) devices: u32,
    /// Subscribers that hold it, at most `devices`.
    pub(super) holders: Vec<Holder>,
    pub(super) policy: Policy,
    pub(super) created: u64,
    /// When its users revoked devices of it, as far as that still counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) freed: Vec<u64>,
    /// Those of its devices that went on to another grant before their places were freed: what they used of it stays used. At most
    /// [`MAX_GONE`], the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) gone: Vec<Holder>,
}

impl GrantRecord {
    /// Refuses what does not open a torrent now. Errors: [`ApiError::BadVoucher`], [`ApiError::ExpiredLicense`].
    pub(super) fn check(&self, torrent: &TorrentId, now: u64) -> Result<(), ApiError> {
        if self.torrent_id != *torrent {
            return Err(ApiError::BadVoucher);
        }
        match self.policy.expires {
            Some(expires) if expires <= now => Err(ApiError::ExpiredLicense),
            _ => Ok(()),
        }
    }

    /// Whether another device may have a place.
    pub(super) fn has_place(&self) -> bool {
        self.holders.len() < self.devices as usize
    }
}

/// A voucher that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VoucherRecord {
    /// The id of its grant.
    #[serde(with = "serde_bytes")]
    pub(super) grant: [u8; 32],
    /// The shop's reference.
    pub(super) order: String,
    pub(super) line: u32,
    /// From 0, within the line.
    pub(super) number: u32,
}

/// A line of an order: vouchers of the same terms, which its first call fixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OrderRecord {
    #[serde(with = "id")]
    pub(super) torrent_id: TorrentId,
    /// Devices that each covers.
    pub(super) devices: u32,
    pub(super) policy: Policy,
    /// Vouchers issued: those of the numbers below.
    pub(super) count: u32,
}

/// What is known of a subscriber as a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeviceRecord {
    /// What its user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub(super) name: Option<String>,
    /// Since when it holds its grant.
    pub(super) enrolled: u64,
    /// Plays that it told of, of all grants.
    pub(super) plays: u64,
    /// Those of them that were of other grants than the one that it holds.
    pub(super) before: u64,
    /// The counter of its record of plays when it last called; 0 if it never told.
    pub(super) counter: u64,
    /// When its record was lost or set back, as far as that still counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) resets: Vec<u64>,
}

/// The epochs of a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EpochsRecord {
    /// The oldest that is served: those before it are retired.
    pub(super) oldest: u64,
    /// That of every subscription. Peers move to it.
    pub(super) current: u64,
    /// When it began; 0 where that was with the torrent.
    pub(super) started: u64,
}

/// Licenses that a subscriber was given, of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LicenseRecord {
    /// When the first was.
    pub(super) first: u64,
    /// When the last was.
    pub(super) last: u64,
    pub(super) count: u64,
}

/// Pieces of a torrent that keys were given out for in an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OffloadRecord {
    /// From seeds to subscribers.
    pub(super) from_seeds: u64,
    /// From subscribers to others.
    pub(super) from_peers: u64,
}

impl OffloadRecord {
    pub(super) fn add(&mut self, other: &OffloadRecord) {
        self.from_seeds = self.from_seeds.saturating_add(other.from_seeds);
        self.from_peers = self.from_peers.saturating_add(other.from_peers);
    }
}

/// Pieces that keys to and from a subscriber were given out for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyedRecord {
    /// When that was last.
    pub(super) changed: u64,
    /// It sends.
    pub(super) from: u64,
    /// It receives.
    pub(super) to: u64,
}

impl KeyedRecord {
    pub(super) fn add(&mut self, other: &KeyedRecord) {
        self.changed = self.changed.max(other.changed);
        self.from = self.from.saturating_add(other.from);
        self.to = self.to.saturating_add(other.to);
    }
}

/// A subscriber that holds a grant, or did before it bought another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    #[serde(with = "id")]
    pub(super) id: SubscriberId,
    /// Plays of this grant, as they were known when it went on to another.
    #[serde(default)]
    pub(super) used: u64,
}

mod passkey {
    use serde::{Deserializer, Serializer};

    use crate::wire::api::Passkey;

    pub(super) fn serialize<S: Serializer>(passkey: &Passkey, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(passkey.as_bytes(), serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Passkey, D::Error> {
        serde_bytes::deserialize(deserializer).map(Passkey::new)
    }
}
