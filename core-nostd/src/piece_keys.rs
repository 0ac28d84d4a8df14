//! What multiplies the blocks of one piece: encryption, re-encryption and decryption keys.

use core::array::from_fn;
use core::{fmt, slice};

use crypto_bigint::Word;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::element::Element;
use crate::fixed_base::{BATCH, FixedBase};
use crate::{Error, Params, PublicKey, SecretKey, TsKey};

/// A group element by which the blocks of one piece are multiplied.
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

pub(crate) use piece_key;

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
    /// K_ij^{−1}: what PDec multiplies by. Opens one piece, as the encryption key does.
    OpenedKey
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
        let mut key = EncryptionKey(params.group().one());
        Self::derive_batch(params, tables, slice::from_ref(r), |_, derived| key = derived);
        key
    }

    /// The keys of several pieces at once, which costs less a piece: `each` gets them with their index in `keys`.
    pub fn derive_batch(
        params: &Params,
        tables: &SubscriberTables<'_>,
        keys: &[TsKey],
        mut each: impl FnMut(usize, EncryptionKey),
    ) {
        FixedBase::pow_batch(params.group(), [(&tables.y, &keys)], |i, key| each(i, EncryptionKey(key)));
    }
}

impl OpenedKey {
    /// (y^{−1})^r: what a tracker makes of r, as a player makes it of s by [`DecryptionKey::open`]. No secret is inverted.
    pub fn derive(params: &Params, y: &PublicKey, r: &TsKey) -> Self {
        OpenedKey(params.group().pow(y.inverse(), &r.0))
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
        let mut rekey = ReKey(params.group().one());
        let (up, down) =
            ((uploader.0, slice::from_ref(uploader.1)), (downloader.0, slice::from_ref(downloader.1)));
        Self::derive_batch(params, up, down, |_, derived| rekey = derived);
        rekey
    }

    /// The re-keys of several pieces at once, which costs less a piece: `each` gets them with their index in the keys.
    ///
    /// Panics unless there are as many keys of the uploader as of the downloader.
    pub fn derive_batch(
        params: &Params,
        uploader: (&SubscriberTables<'_>, &[TsKey]),
        downloader: (&SubscriberTables<'_>, &[TsKey]),
        mut each: impl FnMut(usize, ReKey),
    ) {
        FixedBase::pow_batch(
            params.group(),
            [(&uploader.0.inverse, &uploader.1), (&downloader.0.y, &downloader.1)],
            |i, rekey| each(i, ReKey(rekey)),
        );
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
        let mut key = DecryptionKey(params.group().one());
        Self::derive_batch(params, table, slice::from_ref(r), |_, derived| key = derived);
        key
    }

    /// The keys of several pieces at once, which costs less a piece: `each` gets them with their index in `keys`.
    pub fn derive_batch(
        params: &Params,
        table: &FixedBase<'_>,
        keys: &[TsKey],
        mut each: impl FnMut(usize, DecryptionKey),
    ) {
        FixedBase::pow_batch(params.group(), [(table, &keys)], |i, key| each(i, DecryptionKey(key)));
    }

    /// K^{−1} = (g^{−r})^s.
    pub fn open(&self, params: &Params, s: &SecretKey) -> OpenedKey {
        OpenedKey(params.group().pow(&self.0, s.exponent()))
    }

    /// [`DecryptionKey::open`] of several keys at once, which costs less a key: `each` gets them with their index.
    pub fn open_batch(params: &Params, s: &SecretKey, keys: &[Self], mut each: impl FnMut(usize, OpenedKey)) {
        let group = params.group();
        for (batch, keys) in keys.chunks(BATCH).enumerate() {
            let powers: [_; BATCH] = from_fn(|i| (&keys[i.min(keys.len() - 1)].0, s.exponent()));
            group.pow_batch(&powers[..keys.len()], |i, power| each(batch * BATCH + i, OpenedKey(power)));
        }
    }
}

/// Powers of y and of y^{−1} of one subscriber, which make a re-key several times cheaper.
#[derive(Clone, Debug)]
pub struct SubscriberTables<'t> {
    y: FixedBase<'t>,
    pub(crate) inverse: FixedBase<'t>,
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
