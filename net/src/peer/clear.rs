//! The pieces of a sealed torrent that are not encrypted: the same at every peer, and checked by the .torrent as they arrive.

use std::fmt;
use std::sync::Arc;

use sha1::{Digest, Sha1};

use crate::wire::metainfo::Metainfo;
use crate::wire::selection::Selection;

/// Which they are, and what they hash to.
pub struct ClearPieces {
    selection: Arc<Selection>,
    /// Of all pieces.
    hashes: Vec<[u8; 20]>,
}

impl fmt::Debug for ClearPieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClearPieces").field("selection", &self.selection).finish_non_exhaustive()
    }
}

impl ClearPieces {
    /// Those of a torrent, if it has any.
    pub fn of(metainfo: &Metainfo) -> Option<Arc<Self>> {
        let selection = metainfo.info.seal.selection.clone()?;
        Some(Arc::new(ClearPieces { selection, hashes: metainfo.info.pieces.clone() }))
    }

    /// Which pieces they are.
    pub fn selection(&self) -> &Arc<Selection> {
        &self.selection
    }

    /// Whether a piece is one of them.
    pub fn has(&self, piece: u32) -> bool {
        self.selection.is_clear(piece)
    }

    /// Whether these are a piece's bytes.
    pub(super) fn is_right(&self, piece: u32, data: &[u8]) -> bool {
        self.hashes.get(piece as usize) == Some(&Sha1::digest(data).into())
    }
}
