//! Group elements in Montgomery form.

use core::fmt;

use crypto_bigint::Word;
use subtle::Choice;
use zeroize::Zeroize;

use crate::bytes::{ByteOrder, load, store};
use crate::number::{Number, ZERO, is_zero};
use crate::{Error, Group};

/// An element of 1 … p−1 in Montgomery form. Callers that hold a secret one wrap it.
#[derive(Clone, PartialEq, Eq, Zeroize)]
pub(crate) struct Element(pub(crate) Number);

impl Element {
    /// From W big-endian bytes. See [`Element::from_block`].
    pub(crate) fn from_be(group: &Group, bytes: &[u8]) -> Result<Self, Error> {
        Self::from_block(group, ByteOrder::Big, bytes)
    }

    /// From W bytes. Constant-time but for one decision: whether they are refused.
    pub(crate) fn from_block(group: &Group, order: ByteOrder, bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() != group.bytes() {
            return Err(Error::BadLength { expected: group.bytes(), found: bytes.len() });
        }
        let n = group.modulus().len();
        let mut plain = ZERO;
        load(order, bytes, &mut plain[..n]);
        let canonical = Choice::from(group.modulus().exceeds(&plain) as u8) & !is_zero(&plain[..n]);
        let element = group.element(&plain);
        plain.zeroize();
        if canonical.into() { Ok(element) } else { Err(Error::NotAnElement) }
    }

    /// From the words of a canonical number in Montgomery form.
    pub(crate) fn from_words(words: &[Word]) -> Self {
        let mut number = ZERO;
        number[..words.len()].copy_from_slice(words);
        Element(number)
    }

    /// Writes W big-endian bytes.
    pub(crate) fn to_be(&self, group: &Group, out: &mut [u8]) -> Result<(), Error> {
        if out.len() != group.bytes() {
            return Err(Error::BadLength { expected: group.bytes(), found: out.len() });
        }
        let n = group.modulus().len();
        let mut plain = group.plain(self);
        store(ByteOrder::Big, &plain[..n], out);
        plain.zeroize();
        Ok(())
    }

    /// The words in Montgomery form.
    pub(crate) fn words(&self) -> &[Word] {
        &self.0
    }
}

impl fmt::Debug for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Element(..)")
    }
}
