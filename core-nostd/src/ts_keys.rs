//! Tracker-site keys, derived and never stored. Paper §2.1, Definition 2.2(3), TGen.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::exponent::{Exponent, MAX_WIDE};
use crate::kdf::Kdf;
use crate::{MAX_BYTES, Params, PublicKey, TorrentId};

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
    /// TGen. The public key is an input: were it not, subscribing twice would open pieces without a license.
    pub fn derive(
        params: &'a Params,
        master: &MasterKey,
        torrent: &TorrentId,
        y: &PublicKey,
        epoch: u64,
    ) -> Self {
        let mut bytes = [0; MAX_BYTES];
        let bytes = &mut bytes[..params.group().bytes()];
        y.write(bytes);
        let kdf =
            Kdf::new("swarmseal v1 ts key").field(&master.0).field(&torrent.0).field(bytes).number(epoch);
        TsKeys { params, kdf }
    }

    /// r of one piece.
    pub fn key(&self, piece: u32) -> TsKey {
        let kdf = self.kdf.clone().number(u64::from(piece));
        let mut draw = [0; MAX_WIDE];
        let exponent = match self.params.short_ts_bytes() {
            Some(len) => {
                kdf.fill(&mut draw[..len]);
                Exponent::short(&mut draw[..len])
            }
            None => {
                let wide = &mut draw[..self.params.group().bytes() + 16];
                kdf.fill(wide);
                Exponent::uniform(self.params.group(), wide)
            }
        };
        draw.zeroize();
        TsKey(exponent)
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
