//! The 68 bytes that open a connection between peers. BEP 3, with the extension bit of BEP 10.

/// Bytes of a handshake.
pub const LEN: usize = 68;

/// What a handshake begins with: a length, and the protocol's name.
pub const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";
/// Which of the eight reserved bytes, and which bit of it, says "extension protocol" (BEP 10).
const EXTENSION: (usize, u8) = (5, 0x10);

/// A handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Feature bits.
    pub reserved: [u8; 8],
    /// Which torrent.
    pub info_hash: [u8; 20],
    /// Who speaks: random but for its prefix.
    pub peer_id: [u8; 20],
}

/// The bytes are no BitTorrent handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no BitTorrent handshake: expected the protocol's name in the first 20 bytes")]
pub struct NotBitTorrent;

impl Handshake {
    /// Ours: it offers the extension protocol.
    pub fn new(info_hash: [u8; 20], peer_id: [u8; 20]) -> Self {
        let mut reserved = [0; 8];
        reserved[EXTENSION.0] = EXTENSION.1;
        Handshake { reserved, info_hash, peer_id }
    }

    /// Whether the sender speaks the extension protocol.
    pub fn extended(&self) -> bool {
        self.reserved[EXTENSION.0] & EXTENSION.1 != 0
    }

    /// The encoding.
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..20].copy_from_slice(PROTOCOL);
        out[20..28].copy_from_slice(&self.reserved);
        out[28..48].copy_from_slice(&self.info_hash);
        out[48..].copy_from_slice(&self.peer_id);
        out
    }

    /// Reads an encoding.
    pub fn from_bytes(bytes: &[u8; LEN]) -> Result<Self, NotBitTorrent> {
        if !bytes.starts_with(PROTOCOL) {
            return Err(NotBitTorrent);
        }
        let mut handshake = Handshake { reserved: [0; 8], info_hash: [0; 20], peer_id: [0; 20] };
        handshake.reserved.copy_from_slice(&bytes[20..28]);
        handshake.info_hash.copy_from_slice(&bytes[28..48]);
        handshake.peer_id.copy_from_slice(&bytes[48..]);
        Ok(handshake)
    }
}

/// A peer id in BEP 20's style; its two letters are assigned to nobody there.
pub fn peer_id(random: [u8; 12]) -> [u8; 20] {
    let mut id = *b"-SW0100-............";
    id[8..].copy_from_slice(&random);
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ours_offers_extensions() {
        let ours = Handshake::new([1; 20], peer_id([2; 12]));
        assert!(ours.extended());
        assert_eq!(&ours.to_bytes()[..20], b"\x13BitTorrent protocol");
        assert_eq!(&ours.to_bytes()[48..56], b"-SW0100-");
    }

    proptest! {
        #[test]
        fn round_trips(reserved: [u8; 8], info_hash: [u8; 20], peer_id: [u8; 20]) {
            let handshake = Handshake { reserved, info_hash, peer_id };
            prop_assert_eq!(Handshake::from_bytes(&handshake.to_bytes()), Ok(handshake));
        }

        #[test]
        fn anything_else_is_refused(bytes in prop::array::uniform32(any::<u8>())) {
            let mut all = [0; LEN];
            all[..32].copy_from_slice(&bytes);
            prop_assume!(!all.starts_with(PROTOCOL));
            prop_assert_eq!(Handshake::from_bytes(&all), Err(NotBitTorrent));
        }
    }
}
