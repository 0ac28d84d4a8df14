//! The package: what stands between plaintext and the group operation.
//!
//! Under `sealed` it is an all-or-nothing transform with zero slack, so that a piece opens only to whoever knows every
//! byte of it, and its blocks say nothing about each other. Under `paper` it is the paper's own encoding, which lattice
//! reduction breaks.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::kdf::Kdf;
use crate::kernels::ByteOrder;
use crate::params::PACKAGE_OVERHEAD;
use crate::piece::whole_blocks;
use crate::{Error, Group, Params, Profile, TorrentId};

/// What all seeds of a torrent share, so that they make the same packages. Zeroized on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PackageSecret([u8; 32]);

impl PackageSecret {
    /// From 32 bytes of a good random generator.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        PackageSecret(bytes)
    }

    /// The 32 bytes, to be kept in the seed file.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PackageSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PackageSecret(..)")
    }
}

/// Packages a piece in place: from the payload in its first [`Params::payload_bytes`] to whole blocks below p.
///
/// `piece`: the torrent's piece length, a multiple of W; what lies beyond the payload is overwritten. Errors:
/// [`Error::BadLength`].
pub fn pack(
    params: &Params,
    secret: &PackageSecret,
    torrent: &TorrentId,
    index: u32,
    piece: &mut [u8],
) -> Result<(), Error> {
    whole_blocks(params, piece)?;
    match params.profile() {
        Profile::Sealed => seal(params.group(), secret, torrent, index, piece).map(drop),
        Profile::Paper => {
            spread(params.group().bytes(), piece);
            Ok(())
        }
    }
}

/// Opens a packaged piece in place; its payload is then in the first `Ok(n)` bytes. Authenticates nothing.
///
/// Errors: [`Error::BadLength`].
pub fn unpack(params: &Params, piece: &mut [u8]) -> Result<usize, Error> {
    whole_blocks(params, piece)?;
    match params.profile() {
        Profile::Sealed => open(piece)?,
        Profile::Paper => gather(params.group().bytes(), piece),
    }
    Ok(params.payload_bytes(piece.len()))
}

/// The `sealed` package over any group: X = Y ‖ Z with every little-endian block in 1 … p−1; the number of retries.
///
/// [`pack`] is what a torrent uses; this one takes toy groups too, whose primes make retries common. The number of
/// retries is the one thing that its time tells, and it depends on a fresh key each time.
pub fn seal(
    group: &Group,
    secret: &PackageSecret,
    torrent: &TorrentId,
    index: u32,
    piece: &mut [u8],
) -> Result<u64, Error> {
    let body = body_len(piece)?;
    let mut content = Kdf::new("swarmseal v1 package content").field(&piece[..body]).finish();
    for ctr in 0.. {
        let mut kappa = Kdf::new("swarmseal v1 package key")
            .field(&secret.0)
            .field(&torrent.0)
            .number(u64::from(index))
            .field(&content)
            .number(ctr)
            .finish();
        let (y, z) = piece.split_at_mut(body);
        xor_keystream(&kappa, y);
        z.copy_from_slice(&mask(y));
        xor(z, &kappa);
        if group.all_blocks_proper(ByteOrder::Little, piece) {
            kappa.zeroize();
            content.zeroize();
            return Ok(ctr);
        }
        xor_keystream(&kappa, &mut piece[..body]);
        kappa.zeroize();
    }
    unreachable!("2^64 retries")
}

/// Undoes [`seal`]: M in all but the last 32 bytes. Errors: [`Error::BadLength`].
pub fn open(piece: &mut [u8]) -> Result<(), Error> {
    let body = body_len(piece)?;
    let (y, z) = piece.split_at_mut(body);
    let mut kappa = mask(y);
    xor(&mut kappa, z);
    xor_keystream(&kappa, y);
    z.zeroize();
    kappa.zeroize();
    Ok(())
}

fn body_len(piece: &[u8]) -> Result<usize, Error> {
    piece
        .len()
        .checked_sub(PACKAGE_OVERHEAD)
        .ok_or(Error::BadLength { expected: PACKAGE_OVERHEAD, found: piece.len() })
}

/// H(Y).
fn mask(y: &[u8]) -> [u8; 32] {
    Kdf::new("swarmseal v1 package mask").field(y).finish()
}

/// y ⊕= G(κ).
fn xor_keystream(kappa: &[u8; 32], y: &mut [u8]) {
    let mut reader = Kdf::new("swarmseal v1 package keystream").field(kappa).reader();
    let mut stream = [0; 4096];
    for chunk in y.chunks_mut(stream.len()) {
        let stream = &mut stream[..chunk.len()];
        reader.fill(stream);
        xor(chunk, stream);
    }
    stream.zeroize();
}

fn xor(a: &mut [u8], b: &[u8]) {
    for (x, y) in a.iter_mut().zip(b) {
        *x ^= y;
    }
}

/// `paper`: moves each W−1 payload bytes behind one zero byte, from the last block to the first.
fn spread(block: usize, piece: &mut [u8]) {
    for i in (0..piece.len() / block).rev() {
        let from = i * (block - 1);
        piece.copy_within(from..from + block - 1, i * block + 1);
        piece[i * block] = 0;
    }
}

/// Undoes [`spread`].
fn gather(block: usize, piece: &mut [u8]) {
    for i in 0..piece.len() / block {
        piece.copy_within(i * block + 1..(i + 1) * block, i * (block - 1));
    }
}
