//! BEP 54, `lt_donthave`: a peer has lost a piece that it said it had.

/// The number that we give to `lt_donthave` in our extended handshake.
pub const OUR_ID: u8 = 2;

/// The payload that names this piece.
pub fn to_bytes(piece: u32) -> [u8; 4] {
    piece.to_be_bytes()
}

/// The piece that a payload names; `None` where it has another length than such a payload.
pub fn from_bytes(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(payload.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_four_bytes() {
        assert_eq!(to_bytes(0x0102_0304), [1, 2, 3, 4]);
        assert_eq!(from_bytes(&to_bytes(u32::MAX)), Some(u32::MAX));
        assert!(from_bytes(&[]).is_none() && from_bytes(&[0; 3]).is_none() && from_bytes(&[0; 5]).is_none());
    }
}
