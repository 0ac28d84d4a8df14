//! What a piece of ciphertext tells whoever has the packaged piece: which piece it is, and the key that it was multiplied by. So a
//! publisher finds out whose copy it is.

use zeroize::Zeroize;

use crate::element::Element;
use crate::fixed_base::BATCH;
use crate::{EncryptionKey, Error, Params, PublicKey, TsKey};

impl EncryptionKey {
    /// K = c · m^−1 of one block: what makes of the packaged block m the block c. Each is W bytes as they stand in a piece.
    /// Constant-time but for what it refuses.
    ///
    /// Errors: [`Error::BadLength`]; [`Error::NotAnElement`] where either is 0 or not below p.
    pub fn observe(params: &Params, packaged: &[u8], ciphertext: &[u8]) -> Result<Self, Error> {
        let group = params.group();
        let (mut m, c) = (block(params, packaged)?, block(params, ciphertext)?);
        let inverse = group.inverse(&m);
        m.zeroize();
        let mut inverse = inverse.ok_or(Error::NotAnElement)?;
        let key = EncryptionKey(group.mul(&c, &inverse));
        inverse.zeroize();
        Ok(key)
    }

    /// y_j^{r_j} for several subscribers at once, which costs a backend with lanes hardly more than one: `each` gets the keys with
    /// their index in `parties`.
    pub fn derive_each(
        params: &Params,
        parties: &[(&PublicKey, TsKey)],
        mut each: impl FnMut(usize, EncryptionKey),
    ) {
        let group = params.group();
        for (batch, parties) in parties.chunks(BATCH).enumerate() {
            let powers: [_; BATCH] = core::array::from_fn(|i| {
                let (y, r) = &parties[i.min(parties.len() - 1)];
                (y.element(), &r.0)
            });
            group.pow_batch(&powers[..parties.len()], |i, key| each(batch * BATCH + i, EncryptionKey(key)));
        }
    }
}

/// Whether two blocks of a ciphertext are the packaged ones times the same number: c_1 m_2 = c_2 m_1. That needs no key, and tells
/// which packaged piece a ciphertext is of: for another the chance is one in p. Constant-time but for what it refuses.
///
/// Errors: [`Error::BadLength`] where a block is not W bytes; [`Error::NotAnElement`] where one is 0 or not below p.
pub fn have_one_multiplier(
    params: &Params,
    packaged: [&[u8]; 2],
    ciphertext: [&[u8]; 2],
) -> Result<bool, Error> {
    let group = params.group();
    let [mut m_1, mut m_2] = [block(params, packaged[0])?, block(params, packaged[1])?];
    let [c_1, c_2] = [block(params, ciphertext[0])?, block(params, ciphertext[1])?];
    let (mut left, mut right) = (group.mul(&c_1, &m_2), group.mul(&c_2, &m_1));
    let equal = left.words().iter().zip(right.words()).fold(0, |differ, (l, r)| differ | (l ^ r)) == 0;
    for element in [&mut m_1, &mut m_2, &mut left, &mut right] {
        element.zeroize();
    }
    Ok(equal)
}

/// A block as it stands in a piece.
fn block(params: &Params, bytes: &[u8]) -> Result<Element, Error> {
    Element::from_block(params.group(), params.byte_order(), bytes)
}
