//! Tickets: a downloader's word that an uploader may ask for re-keys to it.

use core::fmt;

use crate::{Error, SubscriberId, TorrentId};

/// The only version there is.
const VERSION: u8 = 1;

/// What k gives to j: with it, and only with it, the tracker makes re-keys from j to k.
///
/// A replay only yields the same ρ. The signature is Ed25519's, made and checked by the caller.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The torrent.
    pub torrent_id: TorrentId,
    /// j, who may ask: a subscriber or an original seed.
    pub uploader: SubscriberId,
    /// k, who signs.
    pub downloader: SubscriberId,
    /// k's epoch, for which the re-keys are made.
    pub epoch: u64,
    /// When it ends, in seconds since 1970 by the tracker's clock.
    pub expires: u64,
    /// k's signature over [`Ticket::signing_input`].
    pub signature: [u8; 64],
}

impl Ticket {
    /// Bytes of an encoded ticket.
    pub const LEN: usize = Self::SIGNED_LEN + 64;
    /// Bytes that the signature covers.
    pub const SIGNED_LEN: usize = 1 + 3 * 32 + 2 * 8;

    /// What k signs: everything but the signature.
    pub fn signing_input(&self) -> [u8; Self::SIGNED_LEN] {
        let mut out = [0; Self::SIGNED_LEN];
        out[0] = VERSION;
        out[1..33].copy_from_slice(&self.torrent_id.0);
        out[33..65].copy_from_slice(&self.uploader.0);
        out[65..97].copy_from_slice(&self.downloader.0);
        out[97..105].copy_from_slice(&self.epoch.to_be_bytes());
        out[105..113].copy_from_slice(&self.expires.to_be_bytes());
        out
    }

    /// The encoding.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..Self::SIGNED_LEN].copy_from_slice(&self.signing_input());
        out[Self::SIGNED_LEN..].copy_from_slice(&self.signature);
        out
    }

    /// Reads an encoding; the signature is not checked. Errors: [`Error::NewerVersion`], [`Error::BadLength`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        if let Some(&found) = bytes.first()
            && found != VERSION
        {
            return Err(Error::NewerVersion { found });
        }
        if bytes.len() != Self::LEN {
            return Err(Error::BadLength { expected: Self::LEN, found: bytes.len() });
        }
        Ok(Ticket {
            torrent_id: TorrentId(array(&bytes[1..33])),
            uploader: SubscriberId(array(&bytes[33..65])),
            downloader: SubscriberId(array(&bytes[65..97])),
            epoch: u64::from_be_bytes(array(&bytes[97..105])),
            expires: u64::from_be_bytes(array(&bytes[105..113])),
            signature: array(&bytes[113..]),
        })
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("torrent_id", &self.torrent_id)
            .field("uploader", &self.uploader)
            .field("downloader", &self.downloader)
            .field("epoch", &self.epoch)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}
