//! What the metainfo of a sealed torrent says of its pieces: which are sealed, and by what each is checked as it arrives.

use std::fmt;
use std::sync::Arc;

use sha1::{Digest, Sha1};

use crate::wire::metainfo::Metainfo;
use crate::wire::selection::Selection;

/// What was published of every piece.
pub struct Published {
    /// `None`: all are sealed.
    selection: Option<Arc<Selection>>,
    pieces: Vec<Expected>,
}

/// What one piece is checked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// BLAKE3 of the witness's form of a sealed piece.
    Witness([u8; 32]),
    /// SHA-1 of a clear piece.
    Clear([u8; 20]),
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").field("selection", &self.selection).finish_non_exhaustive()
    }
}

impl Published {
    /// What a metainfo says.
    pub fn of(metainfo: &Metainfo) -> Arc<Self> {
        let info = &metainfo.info;
        let expected = |(piece, sha1): (u32, &[u8; 20])| match info.seal.witness_hash(piece) {
            Some(hash) => Expected::Witness(*hash),
            None => Expected::Clear(*sha1),
        };
        let pieces = (0..).zip(&info.pieces).map(expected).collect();
        Self::new(info.seal.selection.clone(), pieces)
    }

    /// `pieces`: what each is checked by. Which are clear is what `selection` says.
    pub fn new(selection: Option<Arc<Selection>>, pieces: Vec<Expected>) -> Arc<Self> {
        Arc::new(Published { selection, pieces })
    }

    /// Which pieces are sealed; `None`: all.
    pub(super) fn selection(&self) -> Option<&Arc<Selection>> {
        self.selection.as_ref()
    }

    /// What a piece is checked by; `None` beyond the last.
    pub(super) fn expected(&self, piece: u32) -> Option<&Expected> {
        self.pieces.get(piece as usize)
    }

    /// Whether a piece is clear: the same bytes at every peer, with no key.
    pub(super) fn is_clear(&self, piece: u32) -> bool {
        matches!(self.expected(piece), Some(Expected::Clear(_)))
    }
}

impl Expected {
    /// Whether these are the bytes of a clear piece.
    pub(super) fn is_clear_piece(&self, data: &[u8]) -> bool {
        matches!(self, Expected::Clear(hash) if *hash == <[u8; 20]>::from(Sha1::digest(data)))
    }
}
