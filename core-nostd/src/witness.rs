//! The witness: a subscriber that does not exist, whose ciphertext of every piece has a published hash. Who is given the key from
//! its own ciphertext to the witness's can check a piece by T and that hash, without being able to open it.

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
    /// From 32 bytes of a good random generator.
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
    /// The exponents are of the same kind as the torrent's tracker-site keys.
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

piece_key! {
    /// V_i = g^{w_i}: what the publisher multiplies a packaged piece by. It opens the witness's form of the piece.
    WitnessFactor
}
piece_key! {
    /// u_ik = V_i / K_ik: turns subscriber k's ciphertext of piece i into the witness's. To a licensee of k it tells V_i; to
    /// anybody else it is one more uniform element.
    WitnessKey
}

/// Powers of g, which make factors and keys several times cheaper: one table serves a whole group.
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

    /// The key of the ciphertext that `rekey` was applied to, from that of what it made: u_j = ρ_{j→k} u_k. A stored piece is so
    /// checked before its next epoch's form takes its place.
    pub fn before(&self, params: &Params, rekey: &ReKey) -> Self {
        WitnessKey(params.group().mul(&self.0, &rekey.0))
    }
}

/// Turns a packaged piece into the witness's form, in place; the hash of it that is published. `piece`: whole blocks of W bytes.
///
/// Errors: [`Error::BadLength`].
pub fn witness_hash(params: &Params, factor: &WitnessFactor, piece: &mut [u8]) -> Result<[u8; 32], Error> {
    multiply(params, &factor.0, piece)?;
    Ok(*blake3::hash(piece).as_bytes())
}

/// Whether a received ciphertext piece is, in every byte, what was published. `piece`: the subscriber's ciphertext, whole blocks
/// of W bytes; `key`: the witness key of just this piece, subscriber and epoch; `expected`: the published hash. `scratch`: as long
/// as the piece; what it holds afterwards is of no use.
///
/// Every block must be below p and, under `sealed`, not zero: only then is T injective, so that no other ciphertext gives the same
/// hash. The time depends on the piece, which is public.
///
/// Errors: [`Error::BadBlock`], [`Error::WitnessMismatch`] where the piece or the key is another, [`Error::BadLength`].
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
    check_piece(params, piece)?;
    scratch.copy_from_slice(piece);
    matches(params, key, expected, scratch)
}

/// [`check_witness`] without a second buffer: the piece is overwritten. Errors: as there; the piece is lost all the same.
pub fn check_witness_in_place(
    params: &Params,
    key: &WitnessKey,
    expected: &[u8; 32],
    piece: &mut [u8],
) -> Result<(), Error> {
    check_piece(params, piece)?;
    matches(params, key, expected, piece)
}

fn matches(params: &Params, key: &WitnessKey, expected: &[u8; 32], piece: &mut [u8]) -> Result<(), Error> {
    multiply(params, &key.0, piece)?;
    if blake3::hash(piece) == *expected { Ok(()) } else { Err(Error::WitnessMismatch) }
}
