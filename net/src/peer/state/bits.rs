//! A set of pieces, in the wire's order: the first piece is the top bit of the first byte.

use crate::wire::message::bitfield_len;

/// A set of piece indices below a fixed count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bits {
    bytes: Vec<u8>,
    ones: u32,
}

impl Bits {
    pub(crate) fn new(count: u32) -> Self {
        Bits { bytes: vec![0; bitfield_len(count)], ones: 0 }
    }

    /// `bytes` has the length that the count asks for, and no spare bits: the decoder saw to it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Bits { bytes: bytes.to_vec(), ones: bytes.iter().map(|byte| byte.count_ones()).sum() }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn has(&self, piece: u32) -> bool {
        self.bytes.get(piece as usize / 8).is_some_and(|byte| byte & mask(piece) != 0)
    }

    /// Whether it was absent.
    pub(crate) fn insert(&mut self, piece: u32) -> bool {
        let fresh = !self.has(piece);
        if let (true, Some(byte)) = (fresh, self.bytes.get_mut(piece as usize / 8)) {
            *byte |= mask(piece);
            self.ones += 1;
        }
        fresh
    }

    /// Whether it was present.
    pub(crate) fn remove(&mut self, piece: u32) -> bool {
        let present = self.has(piece);
        if present {
            self.bytes[piece as usize / 8] &= !mask(piece);
            self.ones -= 1;
        }
        present
    }

    pub(crate) fn count(&self) -> u32 {
        self.ones
    }

    /// How many pieces are in this set and in `other`, and not in `without`. All three are of one torrent.
    pub(crate) fn count_common(&self, other: &Bits, without: &Bits) -> u32 {
        let bytes = self.bytes.iter().zip(&other.bytes).zip(&without.bytes);
        bytes.map(|((a, b), c)| (a & b & !c).count_ones()).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.bytes.len() as u32 * 8).filter(|&piece| self.has(piece))
    }
}

fn mask(piece: u32) -> u8 {
    0x80 >> (piece % 8)
}
