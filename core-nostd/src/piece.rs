//! The three functions over whole pieces. Paper §2.1, Definition 2.2(4) to (6).

use crate::element::Element;
use crate::{DecryptionKey, EncryptionKey, Error, OpenedKey, Params, Profile, ReKey, SecretKey};

/// PEnc: turns a packaged piece into one subscriber's ciphertext, in place.
///
/// `piece`: whole blocks of W bytes, each any W-byte number; the result is canonical, and zero stays zero.
/// Errors: [`Error::BadLength`] where it is not a whole number of blocks.
pub fn encrypt_piece(params: &Params, key: &EncryptionKey, piece: &mut [u8]) -> Result<(), Error> {
    multiply(params, &key.0, piece)
}

/// T: turns the uploader's ciphertext into the downloader's, in place. Shapes and errors as [`encrypt_piece`].
pub fn re_encrypt_piece(params: &Params, key: &ReKey, piece: &mut [u8]) -> Result<(), Error> {
    multiply(params, &key.0, piece)
}

/// PDec: turns a subscriber's ciphertext into the packaged piece, in place. Shapes and errors as [`encrypt_piece`].
///
/// Nothing is authenticated here: check the piece's SHA-1 before a byte of it is released.
pub fn decrypt_piece(
    params: &Params,
    secret: &SecretKey,
    key: &DecryptionKey,
    piece: &mut [u8],
) -> Result<(), Error> {
    decrypt_piece_with(params, &key.open(params, secret), piece)
}

/// [`decrypt_piece`] with a key that was opened before, by itself or in a batch.
pub fn decrypt_piece_with(params: &Params, key: &OpenedKey, piece: &mut [u8]) -> Result<(), Error> {
    multiply(params, &key.0, piece)
}

/// Refuses a ciphertext piece that no honest peer sends: a block not below p or, under `sealed`, zero. Public data.
///
/// Errors: [`Error::BadBlock`] with the first such block, [`Error::BadLength`].
pub fn check_piece(params: &Params, piece: &[u8]) -> Result<(), Error> {
    whole_blocks(params, piece)?;
    let nonzero = params.profile() == Profile::Sealed;
    match params.group().first_bad_block_vartime(params.byte_order(), nonzero, piece) {
        Some(block) => Err(Error::BadBlock { block }),
        None => Ok(()),
    }
}

pub(crate) fn multiply(params: &Params, factor: &Element, piece: &mut [u8]) -> Result<(), Error> {
    whole_blocks(params, piece)?;
    let group = params.group();
    let n = group.modulus().len();
    (group.kernels().mul_blocks)(group.modulus(), &factor.words()[..n], params.byte_order(), piece);
    Ok(())
}

pub(crate) fn whole_blocks(params: &Params, piece: &[u8]) -> Result<(), Error> {
    let block = params.group().bytes();
    if piece.len().is_multiple_of(block) {
        Ok(())
    } else {
        Err(Error::BadLength { expected: block, found: piece.len() })
    }
}
