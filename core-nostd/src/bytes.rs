//! Words from and to bytes, in either byte order.

use crypto_bigint::Word;

use crate::number::{Number, WORD_BYTES, ZERO};

/// Byte order of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Most significant byte first: profile `paper`, and every group element outside a piece.
    Big,
    /// Least significant byte first: profile `sealed`.
    Little,
}

/// Reads `bytes` (a whole number of words) into the low words of `out`.
#[inline]
pub fn load(order: ByteOrder, bytes: &[u8], out: &mut [Word]) {
    match order {
        ByteOrder::Little => {
            for (word, chunk) in out.iter_mut().zip(bytes.chunks_exact(WORD_BYTES)) {
                *word = Word::from_le_bytes(word_array(chunk));
            }
        }
        ByteOrder::Big => {
            for (word, chunk) in out.iter_mut().zip(bytes.rchunks_exact(WORD_BYTES)) {
                *word = Word::from_be_bytes(word_array(chunk));
            }
        }
    }
}

/// Writes the low words of `words` over `bytes` (a whole number of words).
#[inline]
pub fn store(order: ByteOrder, words: &[Word], bytes: &mut [u8]) {
    match order {
        ByteOrder::Little => {
            for (word, chunk) in words.iter().zip(bytes.chunks_exact_mut(WORD_BYTES)) {
                chunk.copy_from_slice(&word.to_le_bytes());
            }
        }
        ByteOrder::Big => {
            for (word, chunk) in words.iter().zip(bytes.rchunks_exact_mut(WORD_BYTES)) {
                chunk.copy_from_slice(&word.to_be_bytes());
            }
        }
    }
}

/// A number from at most 512 big-endian bytes of any length.
pub(crate) fn number_from_be(bytes: &[u8]) -> Number {
    let mut number = ZERO;
    for (i, &byte) in bytes.iter().rev().enumerate() {
        number[i / WORD_BYTES] |= Word::from(byte) << (8 * (i % WORD_BYTES));
    }
    number
}

fn word_array(chunk: &[u8]) -> [u8; WORD_BYTES] {
    let mut array = [0; WORD_BYTES];
    array.copy_from_slice(chunk);
    array
}
