//! What goes out in one write: messages encoded one after another, the bytes of blocks where they are.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use crate::wire::message::Message;
use crate::wire::mse::Cipher;

/// Bytes after which a batch takes no further message.
const FULL: usize = 64 << 10;

/// The batch. A cipher changes every byte, so that blocks are copied where there is one.
#[derive(Debug)]
pub(super) struct Batch {
    /// Closed parts, in order.
    parts: VecDeque<Bytes>,
    /// What is encoded after them.
    open: BytesMut,
    /// Bytes of all of it.
    len: usize,
    copies: bool,
}

impl Batch {
    pub(super) fn new(copies: bool) -> Self {
        Batch { parts: VecDeque::new(), open: BytesMut::with_capacity(2 * FULL), len: 0, copies }
    }

    pub(super) fn has_room(&self) -> bool {
        self.len < FULL
    }

    pub(super) fn push(&mut self, message: &Message) {
        let before = self.open.len();
        if self.copies {
            message.encode(&mut self.open);
            self.len += self.open.len() - before;
            return;
        }
        let block = message.encode_head(&mut self.open);
        self.len += self.open.len() - before;
        if let Some(block) = block {
            self.len += block.len();
            self.parts.push_back(self.open.split().freeze());
            self.parts.push_back(block.clone());
        }
    }

    /// Nothing more is pushed before all of it is written.
    pub(super) fn close(&mut self, cipher: Option<&mut Cipher>) {
        if let Some(cipher) = cipher {
            cipher.apply(&mut self.open);
        }
        if !self.open.is_empty() {
            self.parts.push_back(self.open.split().freeze());
        }
    }
}

/// Of the closed parts.
impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        slices.iter_mut().zip(&self.parts).map(|(slice, part)| *slice = IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        self.len -= count;
        while let Some(part) = self.parts.front_mut() {
            if count < part.len() {
                part.advance(count);
                return;
            }
            count -= part.len();
            self.parts.pop_front();
        }
        assert_eq!(count, 0, "no more than there is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::Block;

    fn messages() -> Vec<Message> {
        let block =
            |fill: u8, len: usize| Message::Piece { piece: 3, begin: 0, data: vec![fill; len].into() };
        let request = Message::Request(Block { piece: 1, begin: 2, len: 3 });
        vec![Message::Unchoke, block(1, 300), block(2, 7), request.clone(), block(3, 300), request]
    }

    /// All of it, taken as the socket takes it: so many bytes at a time.
    fn written(batch: &mut Batch, portion: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while batch.has_remaining() {
            let mut slices = [IoSlice::new(&[]); 3];
            let filled = batch.chunks_vectored(&mut slices);
            let all: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
            assert!(all.starts_with(batch.chunk()) && !batch.chunk().is_empty());
            let taken = portion.min(all.len());
            out.extend_from_slice(&all[..taken]);
            batch.advance(taken);
        }
        out
    }

    #[test]
    fn it_is_what_encoding_gives_however_the_socket_takes_it() {
        let mut expected = BytesMut::new();
        messages().iter().for_each(|message| message.encode(&mut expected));
        for copies in [false, true] {
            let mut batch = Batch::new(copies);
            for portion in [1, 5, 13, 300, 313, 1 << 20] {
                messages().iter().for_each(|message| batch.push(message));
                batch.close(None);
                assert_eq!(batch.remaining(), expected.len());
                assert_eq!(written(&mut batch, portion), expected);
            }
        }
    }

    #[test]
    fn a_block_is_not_copied_and_a_full_batch_says_so() {
        let data = Bytes::from(vec![5; 16384]);
        let mut batch = Batch::new(false);
        for _ in 0..4 {
            assert!(batch.has_room());
            batch.push(&Message::Piece { piece: 0, begin: 0, data: data.clone() });
        }
        assert!(!batch.has_room());
        assert!(batch.parts.iter().any(|part| part.as_ptr() == data.as_ptr()));
    }
}
