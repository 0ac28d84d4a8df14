//! Tracker-site keys, derived and never stored. Paper §2.1, Definition 2.2(3), TGen.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::exponent::{Exponent, ExponentList};
use crate::kdf::Kdf;
use crate::{Params, SubscriberId};

/// The tracker's master key of one epoch. Zeroized on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// From 32 bytes of a good random generator.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        MasterKey(bytes)
    }

    /// The 32 bytes, to be kept in a file of their own.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// r_{i,j} for every piece i of one subscriber j in one epoch.
pub struct TsKeys<'a> {
    params: &'a Params,
    kdf: Kdf,
}

impl<'a> TsKeys<'a> {
    /// TGen. `subscriber` must be [`SubscriberId::of`] the very y that the keys are used with. It stands for the torrent and for y: if r
    /// did not depend on y, a device that subscribed twice would open pieces without a license.
    pub fn derive(params: &'a Params, master: &MasterKey, subscriber: &SubscriberId, epoch: u64) -> Self {
        let kdf = Kdf::new("swarmseal v1 ts key").field(&master.0).field(&subscriber.0).number(epoch);
        TsKeys { params, kdf }
    }

    /// r of one piece.
    pub fn key(&self, piece: u32) -> TsKey {
        let kdf = self.kdf.clone().number(u64::from(piece));
        TsKey(Exponent::from_kdf(self.params.group(), self.params.short_ts_bytes(), kdf))
    }
}

impl fmt::Debug for TsKeys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TsKeys(..)")
    }
}

/// r, the tracker's secret exponent of one piece of one subscriber. Zeroized on drop.
#[derive(Clone, Debug, Zeroize, ZeroizeOnDrop)]
pub struct TsKey(pub(crate) Exponent);

impl ExponentList for &[TsKey] {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, index: usize) -> &Exponent {
        &self[index].0
    }
}
