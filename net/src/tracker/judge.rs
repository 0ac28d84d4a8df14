//! Whether a piece is bad, and what its sender must have got if it only handed it on. The tracker can tell without the
//! content: it knows every key, and what each piece hashes to.

use sha1::{Digest, Sha1};
use swarmseal_core::{
    Error, MasterKey, OpenedKey, Params, PublicKey, ReKey, SubscriberId, TsKey, TsKeys, check_piece,
    decrypt_piece_with, re_encrypt_piece,
};

/// A subscriber in one epoch.
pub(super) struct Holder<'a> {
    pub(super) id: SubscriberId,
    pub(super) public: &'a PublicKey,
    pub(super) master: &'a MasterKey,
    pub(super) epoch: u64,
}

impl Holder<'_> {
    fn ts_key(&self, params: &Params, piece: u32) -> TsKey {
        TsKeys::derive(params, self.master, &self.id, self.epoch).key(piece)
    }
}

/// What a ciphertext piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It opens to what the .torrent says.
    Good,
    /// It does not.
    Bad,
    /// Some block is no element of the group. T makes none such, so that its sender made it so.
    Improper,
}

/// Looks at a holder's ciphertext of a piece; `hash`: SHA-1 of the packaged piece. Errors: a length that is no number of
/// blocks.
pub(super) fn examine(
    params: &Params,
    (piece, hash): (u32, &[u8; 20]),
    holder: &Holder<'_>,
    ciphertext: &[u8],
) -> Result<Finding, Error> {
    match check_piece(params, ciphertext) {
        Err(Error::BadBlock { .. }) => return Ok(Finding::Improper),
        checked => checked?,
    }
    let mut opened = zeroize::Zeroizing::new(ciphertext.to_vec());
    let key = OpenedKey::derive(params, holder.public, &holder.ts_key(params, piece));
    decrypt_piece_with(params, &key, &mut opened)?;
    let good = <[u8; 20]>::from(Sha1::digest(&opened)) == *hash;
    Ok(if good { Finding::Good } else { Finding::Bad })
}

/// BLAKE3 of what `sender` must have held if it made the holder's ciphertext of it by T.
pub(super) fn input_hash(
    params: &Params,
    piece: u32,
    (holder, ciphertext): (&Holder<'_>, &[u8]),
    sender: &Holder<'_>,
) -> Result<[u8; 32], Error> {
    let (r_k, r_j) = (holder.ts_key(params, piece), sender.ts_key(params, piece));
    let back = ReKey::derive(params, (holder.public, &r_k), (sender.public, &r_j));
    let mut input = ciphertext.to_vec();
    re_encrypt_piece(params, &back, &mut input)?;
    Ok(*blake3::hash(&input).as_bytes())
}

#[cfg(test)]
mod tests {
    use getrandom::SysRng;
    use rand_core::UnwrapErr;
    use swarmseal_core::{EncryptionKey, Exponents, Group, Profile, SecretKey, encrypt_piece};

    use super::*;

    #[test]
    fn bad_pieces_are_told_and_followed_back() {
        let group = Group::ffdhe2048(crate::backend::kernels());
        let params = Params::new(Profile::Sealed, group, Exponents::Short).unwrap();
        let public = || SecretKey::generate(&params, &mut UnwrapErr(SysRng)).public_key(&params);
        let (y_j, y_k) = (public(), public());
        let (first, second) = (MasterKey::from_bytes([1; 32]), MasterKey::from_bytes([2; 32]));
        let j = Holder { id: SubscriberId([1; 32]), public: &y_j, master: &first, epoch: 1 };
        let k = Holder { id: SubscriberId([2; 32]), public: &y_k, master: &second, epoch: 2 };
        let packaged: Vec<u8> = (0..1024).map(|i| (i % 100) as u8 + 1).collect();
        let hash = Sha1::digest(&packaged).into();
        let [r_j, r_k] = [&j, &k].map(|holder| holder.ts_key(&params, 3));

        let mut held = packaged.clone();
        encrypt_piece(&params, &EncryptionKey::derive(&params, &y_j, &r_j), &mut held).unwrap();
        let sent = |held: &[u8]| {
            let mut sent = held.to_vec();
            let rho = ReKey::derive(&params, (&y_j, &r_j), (&y_k, &r_k));
            re_encrypt_piece(&params, &rho, &mut sent).unwrap();
            sent
        };
        let look = |bytes: &[u8]| examine(&params, (3, &hash), &k, bytes).unwrap();
        assert_eq!(look(&sent(&held)), Finding::Good);
        assert_eq!(look(&held), Finding::Bad);
        assert_eq!(look(&[0xFF; 1024]), Finding::Improper);
        assert!(examine(&params, (3, &hash), &k, &[1; 7]).is_err());
        // Whatever j had, it is found again from what k got.
        held[700] ^= 1;
        let bad = sent(&held);
        assert_eq!(look(&bad), Finding::Bad);
        let found = input_hash(&params, 3, (&k, &bad), &j).unwrap();
        assert_eq!(found, *blake3::hash(&held).as_bytes());
    }
}
