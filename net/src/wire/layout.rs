//! How a torrent's bytes are cut into pieces (BEP 3): all of one length, but that the last may be shorter.

use std::ops::Range;

/// A torrent's length and that of its pieces. There is at least one byte, and at most 2^32 − 1 pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    length: u64,
    piece_len: u32,
}

impl Layout {
    /// `length` bytes in pieces of `piece_len`. None where there is nothing to cut, or more pieces than can be numbered.
    pub fn new(length: u64, piece_len: u32) -> Option<Self> {
        let numbered = piece_len > 0 && length.div_ceil(u64::from(piece_len)) <= u64::from(u32::MAX);
        (numbered && length > 0).then_some(Layout { length, piece_len })
    }

    /// `count` whole pieces: what every sealed torrent has. None as [`Layout::new`].
    pub fn of_whole(count: u32, piece_len: u32) -> Option<Self> {
        Self::new(u64::from(count) * u64::from(piece_len), piece_len)
    }

    /// Bytes in all.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// How many pieces there are.
    pub fn piece_count(&self) -> u32 {
        self.length.div_ceil(u64::from(self.piece_len)) as u32
    }

    /// Bytes of every piece but, perhaps, the last.
    pub fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// Bytes of one piece; 0 beyond the last.
    pub fn len_of(&self, piece: u32) -> u32 {
        let range = self.range(piece);
        (range.end - range.start) as u32
    }

    /// Where a piece's bytes are in the torrent.
    pub fn range(&self, piece: u32) -> Range<u64> {
        let start = (u64::from(piece) * u64::from(self.piece_len)).min(self.length);
        start..(start + u64::from(self.piece_len)).min(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_piece_may_be_short() {
        let layout = Layout::new(100, 40).unwrap();
        assert_eq!(layout.piece_count(), 3);
        assert_eq!([0, 1, 2, 3].map(|piece| layout.len_of(piece)), [40, 40, 20, 0]);
        assert_eq!(layout.range(2), 80..100);
        assert_eq!(Layout::of_whole(3, 40).unwrap().len_of(2), 40);
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        assert_eq!(Layout::new(0, 40), None);
        assert_eq!(Layout::new(40, 0), None);
        assert_eq!(Layout::of_whole(0, 40), None);
        assert_eq!(Layout::new(1 << 32, 1), None);
        assert_eq!(Layout::new((1 << 32) - 1, 1).unwrap().piece_count(), u32::MAX);
        assert_eq!(Layout::new(u64::MAX, u32::MAX).map(|layout| layout.len_of(u32::MAX)), None);
    }
}
