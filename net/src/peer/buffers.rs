//! Memory for pieces, used again: a fresh buffer of many pages costs a fault for each of them.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;

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

/// Bytes that one read brings at most.
const READ: usize = 128 << 10;
/// What may be left of the read before: a message that is not whole.
const LEFT: usize = 32 << 10;
/// Idle buffers of all connections together.
const MAX_READS: usize = 32;

/// Memory that sockets are read into. Messages are handed on as they lie there, so that a buffer serves again when the last of
/// its messages is done with, wherever that happens. A connection that brings nothing holds none.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffers(Mutex<Vec<BytesMut>>);

impl ReadBuffers {
    /// Makes room for a read behind what is left in `bytes`, in this buffer or in another.
    pub(crate) fn make_room(&self, bytes: &mut BytesMut) {
        if bytes.try_reclaim(READ) {
            return;
        }
        let mut fresh = {
            let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // The one that came back last is likeliest to be in the processor's caches.
            let free = idle.iter_mut().rposition(|buffer| buffer.try_reclaim(READ + LEFT));
            free.map(|at| idle.remove(at))
        }
        .unwrap_or_else(|| BytesMut::with_capacity(READ + LEFT));
        fresh.extend_from_slice(bytes);
        fresh.reserve(READ);
        self.put_back(std::mem::replace(bytes, fresh));
    }

    /// Takes a buffer back, all of whose messages were handed on; what is in it is forgotten.
    pub(crate) fn put_back(&self, mut bytes: BytesMut) {
        bytes.clear();
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.capacity() > 0 && idle.len() < MAX_READS {
            idle.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_buffer_serves_again_once_its_messages_are_done_with() {
        let reads = ReadBuffers::default();
        let mut bytes = BytesMut::new();
        reads.make_room(&mut bytes);
        bytes.extend_from_slice(&[7; READ]);
        let start = bytes.as_ptr();
        let message = bytes.split_to(READ - 10).freeze();
        reads.make_room(&mut bytes);
        // What was left has moved on, for the message is not done with.
        assert_eq!((&bytes[..], message.len()), (&[7; 10][..], READ - 10));
        assert!(bytes.capacity() - bytes.len() >= READ);
        assert_ne!(bytes.as_ptr(), start);
        drop(message);
        let mut other = BytesMut::new();
        reads.make_room(&mut other);
        assert_eq!(other.as_ptr(), start);
        assert!(reads.0.lock().unwrap().is_empty());
        (0..2 * MAX_READS).for_each(|_| reads.put_back(BytesMut::with_capacity(READ)));
        assert_eq!(reads.0.lock().unwrap().len(), MAX_READS);
    }

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
