//! Subscribers' key pairs. Paper §2.1, Definition 2.2(2), PGen.

use core::fmt;

use rand_core::CryptoRng;
use subtle::Choice;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::bytes::{ByteOrder, store};
use crate::element::Element;
use crate::exponent::{Exponent, MAX_WIDE};
use crate::{Error, MAX_BYTES, Params};

/// s, a subscriber's secret exponent for one torrent. It never leaves the device. Zeroized on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey {
    exponent: Exponent,
}

impl SecretKey {
    /// PGen: a fresh s, short with its top bit set under `sealed`, uniform in 1 … q−1 under `paper`.
    pub fn generate(params: &Params, rng: &mut impl CryptoRng) -> Self {
        let mut draw = [0; MAX_WIDE];
        let exponent = match params.short_secret_bytes() {
            Some(len) => {
                rng.fill_bytes(&mut draw[..len]);
                Exponent::short(&mut draw[..len])
            }
            None => {
                let wide = &mut draw[..params.group().bytes() + 16];
                rng.fill_bytes(wide);
                Exponent::uniform(params.group(), wide)
            }
        };
        draw.zeroize();
        SecretKey { exponent }
    }

    pub(crate) fn from_exponent(exponent: Exponent) -> Self {
        SecretKey { exponent }
    }

    /// From the W big-endian bytes of [`SecretKey::to_bytes`]. Errors: [`Error::BadLength`], [`Error::BadSecretKey`]
    /// where it is not an exponent of this profile: below 2^(short bits) with the top bit set, or in 1 … q−1.
    pub fn from_bytes(params: &Params, bytes: &[u8]) -> Result<Self, Error> {
        let group = params.group();
        if bytes.len() != group.bytes() {
            return Err(Error::BadLength { expected: group.bytes(), found: bytes.len() });
        }
        let exponent = match params.short_secret_bytes() {
            Some(len) => {
                let (zeros, short) = bytes.split_at(bytes.len() - len);
                // One decision, so that the time of a refusal does not say which of the two it was.
                let wrong = zeros.iter().fold(!short[0] & 0x80, |wrong, &byte| wrong | byte);
                if wrong != 0 {
                    return Err(Error::BadSecretKey);
                }
                Exponent::from_be(short)
            }
            None => {
                let whole = Exponent::from_be(bytes);
                let below = Choice::from(group.order().exceeds(whole.limbs()) as u8);
                if (!below | crate::number::is_zero(whole.limbs())).into() {
                    return Err(Error::BadSecretKey);
                }
                let mut limbs = crate::number::ZERO;
                limbs.copy_from_slice(whole.limbs());
                Exponent::from_limbs(limbs, group.bits() - 1)
            }
        };
        Ok(SecretKey { exponent })
    }

    /// Writes s as W big-endian bytes. Errors: [`Error::BadLength`].
    pub fn to_bytes(&self, params: &Params, out: &mut [u8]) -> Result<(), Error> {
        if out.len() != params.group().bytes() {
            return Err(Error::BadLength { expected: params.group().bytes(), found: out.len() });
        }
        self.exponent.to_be(out);
        Ok(())
    }

    /// y = g^s. Its inverse is made as (g^−1)^s: to invert y would be as right, but in variable time.
    pub fn public_key(&self, params: &Params) -> PublicKey {
        let group = params.group();
        let powers = [group.generator(), group.generator_inverse()].map(|base| (base, &self.exponent));
        let [mut y, mut inverse] = [group.one(), group.one()];
        group.pow_batch(&powers, |i, power| *if i == 0 { &mut y } else { &mut inverse } = power);
        PublicKey::assemble(params, y, inverse)
    }

    pub(crate) fn exponent(&self) -> &Exponent {
        &self.exponent
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// y = g^s of one subscriber, with y^−1 beside it. Public, and valid by construction.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    y: Element,
    inverse: Element,
    encoded: [u8; MAX_BYTES],
}

impl PublicKey {
    /// From W big-endian bytes. Errors: [`Error::BadLength`], and [`Error::BadPublicKey`] unless 2 ≤ y ≤ p−2 with Jacobi
    /// symbol +1 (a key of 1 or p−1 would be answered with ± plaintext; ANALYSIS of the scheme, §1).
    pub fn from_bytes(params: &Params, bytes: &[u8]) -> Result<Self, Error> {
        let y = Self::check(params, bytes)?;
        Self::new(params, y).ok_or(Error::BadPublicKey)
    }

    /// [`PublicKey::from_bytes`] of several encodings of W bytes each, one after the other, with one inversion for
    /// every 16 of them. `each` gets every key, or the error of that encoding, with its index.
    ///
    /// Errors: [`Error::BadLength`] where `bytes` is not a whole number of encodings.
    pub fn from_bytes_batch(
        params: &Params,
        bytes: &[u8],
        each: impl FnMut(usize, Result<Self, Error>),
    ) -> Result<(), Error> {
        Self::batch(params, bytes, Self::check, each)
    }

    /// [`PublicKey::from_bytes_batch`] of keys that were checked before, as those in a tracker's own store: their Jacobi symbols,
    /// which take most of the time, are not looked at again. A key of anybody else must not come in this way: what is made for one
    /// that is none may tell plaintext.
    pub fn from_checked_bytes_batch(
        params: &Params,
        bytes: &[u8],
        each: impl FnMut(usize, Result<Self, Error>),
    ) -> Result<(), Error> {
        Self::batch(params, bytes, Self::proper, each)
    }

    fn batch(
        params: &Params,
        bytes: &[u8],
        check: impl Fn(&Params, &[u8]) -> Result<Element, Error>,
        mut each: impl FnMut(usize, Result<Self, Error>),
    ) -> Result<(), Error> {
        const KEYS: usize = 16;
        let group = params.group();
        let width = group.bytes();
        if !bytes.len().is_multiple_of(width) {
            return Err(Error::BadLength { expected: width, found: bytes.len() });
        }
        for (batch, bytes) in bytes.chunks(KEYS * width).enumerate() {
            let count = bytes.len() / width;
            let mut checked: [Result<Element, Error>; KEYS] = core::array::from_fn(|_| Ok(group.one()));
            for (key, encoding) in checked.iter_mut().zip(bytes.chunks_exact(width)) {
                *key = check(params, encoding);
            }
            // A refused key leaves a 1 in its place, so that its neighbours' inverses are right.
            let mut inverses: [Element; KEYS] =
                core::array::from_fn(|i| checked[i].as_ref().map_or_else(|_| group.one(), Element::clone));
            let mut products: [Element; KEYS] = core::array::from_fn(|_| group.one());
            let inverted = group.invert_batch_vartime(&mut inverses[..count], &mut products[..count]);
            for (i, (key, inverse)) in checked.into_iter().zip(inverses).take(count).enumerate() {
                let key = key.and_then(|y| {
                    let inverse = inverted.then_some(inverse).ok_or(Error::BadPublicKey)?;
                    Ok(Self::assemble(params, y, inverse))
                });
                each(batch * KEYS + i, key);
            }
        }
        Ok(())
    }

    fn check(params: &Params, bytes: &[u8]) -> Result<Element, Error> {
        let y = Self::proper(params, bytes)?;
        if params.group().is_in_subgroup_vartime(&y) { Ok(y) } else { Err(Error::BadPublicKey) }
    }

    /// 2 ≤ y ≤ p−2.
    fn proper(params: &Params, bytes: &[u8]) -> Result<Element, Error> {
        let group = params.group();
        if bytes.len() != group.bytes() {
            return Err(Error::BadLength { expected: group.bytes(), found: bytes.len() });
        }
        let number = crate::bytes::number_from_be(bytes);
        if !group.is_proper_vartime(&number) {
            return Err(Error::BadPublicKey);
        }
        Ok(group.element(&number))
    }

    fn new(params: &Params, y: Element) -> Option<Self> {
        let inverse = params.group().inverse_vartime(&y)?;
        Some(Self::assemble(params, y, inverse))
    }

    fn assemble(params: &Params, y: Element, inverse: Element) -> Self {
        let group = params.group();
        let mut encoded = [0; MAX_BYTES];
        let plain = group.plain(&y);
        store(ByteOrder::Big, &plain[..group.modulus().len()], &mut encoded[..group.bytes()]);
        PublicKey { y, inverse, encoded }
    }

    /// Writes y as W big-endian bytes. Errors: [`Error::BadLength`].
    pub fn to_bytes(&self, params: &Params, out: &mut [u8]) -> Result<(), Error> {
        if out.len() != params.group().bytes() {
            return Err(Error::BadLength { expected: params.group().bytes(), found: out.len() });
        }
        self.write(out);
        Ok(())
    }

    /// Copies the encoding into exactly W bytes.
    pub(crate) fn write(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.encoded[..out.len()]);
    }

    pub(crate) fn element(&self) -> &Element {
        &self.y
    }

    pub(crate) fn inverse(&self) -> &Element {
        &self.inverse
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.encoded;
        write!(f, "PublicKey({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}
