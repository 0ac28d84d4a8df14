//! Memory for pieces, used again: a fresh buffer of many pages costs a fault for each of them.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of idle buffers that are kept.
const MAX_IDLE: usize = 16 << 20;

/// Buffers of one torrent's piece length. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Buffers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    piece_len: usize,
    idle: Mutex<Vec<Vec<u8>>>,
}

/// A piece's bytes; their memory serves again when this is dropped.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    home: Arc<Shared>,
}

impl Buffers {
    /// `piece_len`: bytes of the longest piece.
    pub(crate) fn new(piece_len: u32) -> Self {
        Buffers(Arc::new(Shared { piece_len: piece_len as usize, idle: Mutex::default() }))
    }

    /// A buffer of `len` bytes, at most the piece length, with anything in it that was in a piece of this torrent before.
    pub(crate) fn take(&self, len: u32) -> Buffer {
        let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = idle.unwrap_or_else(|| vec![0; self.0.piece_len]);
        Buffer { len: bytes.len().min(len as usize), bytes, home: self.0.clone() }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut idle = self.home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < (MAX_IDLE / self.home.piece_len.max(1)).max(2) {
            idle.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_serves_again_within_bounds() {
        let buffers = Buffers::new(MAX_IDLE as u32 / 3);
        let mut first = buffers.take(5);
        first.copy_from_slice(b"bytes");
        let at = first.as_ptr();
        drop(first);
        let again = buffers.take(MAX_IDLE as u32);
        assert_eq!((again.as_ptr(), again.len()), (at, MAX_IDLE / 3));
        let many: Vec<Buffer> = (0..9).map(|_| buffers.take(1)).collect();
        drop((again, many));
        assert_eq!(buffers.0.idle.lock().unwrap().len(), 3);
    }
}
