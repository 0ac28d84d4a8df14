//! The witness: a subscriber that does not exist, whose ciphertext of every piece has a published hash.
//!
//! A subscriber asks the tracker for the key that turns its own ciphertext of a piece into the witness's. With that key and the
//! published hash it checks the piece by T, and cannot open it.

use core::{fmt, slice};

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::element::Element;
use crate::exponent::{Exponent, ExponentList};
use crate::fixed_base::FixedBase;
use crate::kdf::Kdf;
use crate::piece::multiply;
use crate::piece_keys::piece_key;
use crate::{Error, Params, PublicKey, ReKey, SubscriberTables, TorrentId, TsKey, Word, check_piece};

/// ω, from which the witness's exponents of one publication come. The publisher draws it and the tracker keeps it; no epoch
/// replaces it. Zeroized on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct WitnessSecret([u8; 32]);

impl WitnessSecret {
    /// From 32 bytes of a good random generator, drawn for this publication.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        WitnessSecret(bytes)
    }

    /// The 32 bytes, to be kept as a master key is.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for WitnessSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WitnessSecret(..)")
    }
}

/// w_i for every piece i of a torrent.
pub struct WitnessExponents<'a> {
    params: &'a Params,
    kdf: Kdf,
}

impl<'a> WitnessExponents<'a> {
    /// Exponents of the same kind as the torrent's tracker-site keys.
    pub fn derive(params: &'a Params, secret: &WitnessSecret, torrent: &TorrentId) -> Self {
        WitnessExponents { params, kdf: Kdf::new("swarmseal v1 witness").field(&secret.0).field(&torrent.0) }
    }

    /// w of one piece.
    pub fn exponent(&self, piece: u32) -> WitnessExponent {
        let kdf = self.kdf.clone().number(u64::from(piece));
        WitnessExponent(Exponent::from_kdf(self.params.group(), self.params.short_ts_bytes(), kdf))
    }
}

impl fmt::Debug for WitnessExponents<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WitnessExponents(..)")
    }
}

/// w, the witness's secret exponent of one piece. Zeroized on drop.
#[derive(Clone, Debug, Zeroize, ZeroizeOnDrop)]
pub struct WitnessExponent(Exponent);

impl ExponentList for &[WitnessExponent] {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, index: usize) -> &Exponent {
        &self[index].0
    }
}

/// Powers of g, which make factors and keys several times cheaper. One table serves all torrents of a group and a kind of exponents.
#[derive(Clone, Debug)]
pub struct WitnessTable<'t>(FixedBase<'t>);

impl<'t> WitnessTable<'t> {
    /// Fills the table, in [`FixedBase::words`] words that the caller lends. Errors: [`Error::BadLength`], in words.
    pub fn new(params: &Params, words: &'t mut [Word]) -> Result<Self, Error> {
        FixedBase::new(params, params.group().generator(), words).map(WitnessTable)
    }

    /// A table that [`WitnessTable::new`] filled earlier. Errors: [`Error::BadLength`], in words.
    pub fn from_words(params: &Params, words: &'t [Word]) -> Result<Self, Error> {
        FixedBase::from_words(params, words).map(WitnessTable)
    }
}

/// V_i = g^{w_i}: the publisher multiplies a packaged piece by it, and it opens the witness's form of the piece. Zeroized on drop.
///
/// It cannot be read from bytes: [`witness_hash`] does not check blocks, and must not be used on a received piece.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct WitnessFactor(Element);

impl WitnessFactor {
    /// V = g^w.
    pub fn derive(params: &Params, w: &WitnessExponent) -> Self {
        WitnessFactor(params.group().pow(params.group().generator(), &w.0))
    }

    /// The factors of several pieces at once, which costs less a piece: `each` gets them with their index in `exponents`.
    pub fn derive_batch(
        params: &Params,
        table: &WitnessTable<'_>,
        exponents: &[WitnessExponent],
        mut each: impl FnMut(usize, WitnessFactor),
    ) {
        FixedBase::pow_batch(params.group(), [(&table.0, &exponents)], |i, v| each(i, WitnessFactor(v)));
    }

    /// Writes W big-endian bytes. Errors: [`Error::BadLength`].
    pub fn to_bytes(&self, params: &Params, out: &mut [u8]) -> Result<(), Error> {
        self.0.to_be(params.group(), out)
    }
}

impl fmt::Debug for WitnessFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WitnessFactor(..)")
    }
}

piece_key! {
    /// u_ik = V_i / K_ik: turns subscriber k's ciphertext of piece i into the witness's. To a licensee of k it gives V_i away; to
    /// everybody else it is one more uniform element.
    WitnessKey
}

impl WitnessKey {
    /// u = g^w (y^{−1})^r: no secret is inverted.
    pub fn derive(params: &Params, w: &WitnessExponent, subscriber: (&PublicKey, &TsKey)) -> Self {
        let group = params.group();
        let mut v = group.pow(group.generator(), &w.0);
        let mut inverse = group.pow(subscriber.0.inverse(), &subscriber.1.0);
        let key = WitnessKey(group.mul(&v, &inverse));
        v.zeroize();
        inverse.zeroize();
        key
    }

    /// [`WitnessKey::derive`] from tables.
    pub fn derive_with(
        params: &Params,
        witness: (&WitnessTable<'_>, &WitnessExponent),
        subscriber: (&SubscriberTables<'_>, &TsKey),
    ) -> Self {
        let mut key = WitnessKey(params.group().one());
        let witness = (witness.0, slice::from_ref(witness.1));
        Self::derive_batch(params, witness, (subscriber.0, slice::from_ref(subscriber.1)), |_, u| key = u);
        key
    }

    /// The keys of several pieces at once, which costs less a piece: `each` gets them with their index.
    ///
    /// Panics unless there are as many exponents as tracker-site keys.
    pub fn derive_batch(
        params: &Params,
        witness: (&WitnessTable<'_>, &[WitnessExponent]),
        subscriber: (&SubscriberTables<'_>, &[TsKey]),
        mut each: impl FnMut(usize, WitnessKey),
    ) {
        FixedBase::pow_batch(
            params.group(),
            [(&witness.0.0, &witness.1), (&subscriber.0.inverse, &subscriber.1)],
            |i, u| each(i, WitnessKey(u)),
        );
    }

    /// u_j = ρ_{j→k} u_k: this is the key of what `rekey` makes, the result that of what `rekey` is applied to.
    ///
    /// So a stored piece is checked with the key of its next epoch, before the next epoch's ciphertext takes its place.
    pub fn before(&self, params: &Params, rekey: &ReKey) -> Self {
        WitnessKey(params.group().mul(&self.0, &rekey.0))
    }
}

/// Turns a packaged piece into the witness's form, in place, and hashes that: what the publisher puts into the .torrent. `piece`:
/// whole blocks of W bytes.
///
/// Errors: [`Error::BadLength`].
pub fn witness_hash(params: &Params, factor: &WitnessFactor, piece: &mut [u8]) -> Result<[u8; 32], Error> {
    multiply(params, &factor.0, piece)?;
    Ok(*blake3::hash(piece).as_bytes())
}

/// Checks that a received ciphertext piece is what was published, in every byte. `piece`: the subscriber's ciphertext, whole blocks of
/// W bytes; `key`: the witness key of this piece, subscriber and epoch; `expected`: the published hash. `scratch` is as long as the
/// piece; its content afterwards is of no use.
///
/// Every block must be below p and, under `sealed`, not zero: only then is T injective, so that no other ciphertext has the same hash.
/// The time depends on the piece and on the answer, which are public, and not on the key.
///
/// Errors: [`Error::BadBlock`]; [`Error::WitnessMismatch`] where the piece differs, or the key is for another piece, subscriber or
/// epoch; [`Error::BadLength`].
pub fn check_witness(
    params: &Params,
    key: &WitnessKey,
    expected: &[u8; 32],
    piece: &[u8],
    scratch: &mut [u8],
) -> Result<(), Error> {
    if scratch.len() != piece.len() {
        return Err(Error::BadLength { expected: piece.len(), found: scratch.len() });
    }
    scratch.copy_from_slice(piece);
    check_witness_in_place(params, key, expected, scratch)
}

/// [`check_witness`] without a second buffer: `piece` is overwritten, and its content afterwards is of no use. Errors: as there.
pub fn check_witness_in_place(
    params: &Params,
    key: &WitnessKey,
    expected: &[u8; 32],
    piece: &mut [u8],
) -> Result<(), Error> {
    check_piece(params, piece)?;
    multiply(params, &key.0, piece)?;
    if blake3::hash(piece) == *expected { Ok(()) } else { Err(Error::WitnessMismatch) }
}
