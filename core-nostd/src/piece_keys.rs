//! What multiplies the blocks of one piece: encryption, re-encryption and decryption keys.

use core::fmt;

use crypto_bigint::Word;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::element::Element;
use crate::fixed_base::FixedBase;
use crate::{Error, Params, PublicKey, SecretKey, TsKey};

macro_rules! piece_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name(pub(crate) Element);

        impl $name {
            /// Writes W big-endian bytes. Errors: [`Error::BadLength`].
            pub fn to_bytes(&self, params: &Params, out: &mut [u8]) -> Result<(), Error> {
                self.0.to_be(params.group(), out)
            }

            /// From W big-endian bytes. Errors: [`Error::BadLength`], [`Error::NotAnElement`].
            pub fn from_bytes(params: &Params, bytes: &[u8]) -> Result<Self, Error> {
                Element::from_be(params.group(), bytes).map($name)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

piece_key! {
    /// K_ij = y_j^{r_ij}: opens piece i of subscriber j. Known to the tracker and, for its uploads, to the original
    /// seed. Paper Definition 2.2(4).
    EncryptionKey
}
piece_key! {
    /// ρ = K_ik / K_ij: turns j's piece i into k's. Not a secret of its own: two ciphertexts give it. Paper Definition 2.2(6).
    ReKey
}
piece_key! {
    /// g^{−r_ik}: what the license carries; only s_k makes K_ik^{−1} of it. The inverse of the paper's g^r, so that the
    /// player never divides. Paper Algorithm 3.
    DecryptionKey
}

impl EncryptionKey {
    /// K = y^r.
    pub fn derive(params: &Params, y: &PublicKey, r: &TsKey) -> Self {
        EncryptionKey(params.group().pow(y.element(), &r.0))
    }

    /// [`EncryptionKey::derive`] from the subscriber's tables.
    pub fn derive_with(params: &Params, tables: &SubscriberTables<'_>, r: &TsKey) -> Self {
        EncryptionKey(tables.y.pow(params.group(), &r.0))
    }
}

impl ReKey {
    /// ρ = y_k^{r_k} (y_j^{−1})^{r_j}, for the uploader j and the downloader k: no secret is inverted.
    pub fn derive(params: &Params, uploader: (&PublicKey, &TsKey), downloader: (&PublicKey, &TsKey)) -> Self {
        let group = params.group();
        let mut up = group.pow(uploader.0.inverse(), &uploader.1.0);
        let mut down = group.pow(downloader.0.element(), &downloader.1.0);
        let rekey = ReKey(group.mul(&up, &down));
        up.zeroize();
        down.zeroize();
        rekey
    }

    /// [`ReKey::derive`] from both subscribers' tables.
    pub fn derive_with(
        params: &Params,
        uploader: (&SubscriberTables<'_>, &TsKey),
        downloader: (&SubscriberTables<'_>, &TsKey),
    ) -> Self {
        let group = params.group();
        let mut up = uploader.0.inverse.pow(group, &uploader.1.0);
        let mut down = downloader.0.y.pow(group, &downloader.1.0);
        let rekey = ReKey(group.mul(&up, &down));
        up.zeroize();
        down.zeroize();
        rekey
    }
}

impl DecryptionKey {
    /// (g^{−1})^r.
    pub fn derive(params: &Params, r: &TsKey) -> Self {
        DecryptionKey(params.group().pow(params.group().generator_inverse(), &r.0))
    }

    /// The table that [`DecryptionKey::derive_with`] uses for every piece of every subscriber: powers of g^{−1}, in
    /// [`FixedBase::words`] words that the caller lends.
    pub fn table<'t>(params: &Params, words: &'t mut [Word]) -> Result<FixedBase<'t>, Error> {
        FixedBase::new(params, params.group().generator_inverse(), words)
    }

    /// [`DecryptionKey::derive`] from the table of g^{−1}.
    pub fn derive_with(params: &Params, table: &FixedBase<'_>, r: &TsKey) -> Self {
        DecryptionKey(table.pow(params.group(), &r.0))
    }

    /// K^{−1} = (g^{−r})^s.
    pub(crate) fn open(&self, params: &Params, s: &SecretKey) -> Element {
        params.group().pow(&self.0, s.exponent())
    }
}

/// Powers of y and of y^{−1} of one subscriber, which make a re-key several times cheaper.
#[derive(Clone, Debug)]
pub struct SubscriberTables<'t> {
    y: FixedBase<'t>,
    inverse: FixedBase<'t>,
}

impl<'t> SubscriberTables<'t> {
    /// Words to lend to [`SubscriberTables::new`].
    pub fn words(params: &Params) -> usize {
        2 * FixedBase::words(params)
    }

    /// Fills the tables. Errors: [`Error::BadLength`] (in words) where `words` is too short.
    pub fn new(params: &Params, y: &PublicKey, words: &'t mut [Word]) -> Result<Self, Error> {
        let half = words.len() / 2;
        let (first, second) = words.split_at_mut(half);
        Ok(SubscriberTables {
            y: FixedBase::new(params, y.element(), first)?,
            inverse: FixedBase::new(params, y.inverse(), second)?,
        })
    }

    /// Tables that [`SubscriberTables::new`] filled earlier. Errors: [`Error::BadLength`] (in words).
    pub fn from_words(params: &Params, words: &'t [Word]) -> Result<Self, Error> {
        let (first, second) = words.split_at(words.len() / 2);
        Ok(SubscriberTables {
            y: FixedBase::from_words(params, first)?,
            inverse: FixedBase::from_words(params, second)?,
        })
    }
}
