//! What can be wrong with a value that comes from outside.

use core::fmt;

/// Why a value was refused. No variant carries a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A buffer or encoding has the wrong number of bytes.
    BadLength {
        /// Bytes that were expected (for a piece: the block size it must be a multiple of).
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// A number is not a canonical element: it must be in 1 … p−1.
    NotAnElement,
    /// A public key is not 2 ≤ y ≤ p−2 with Jacobi symbol +1.
    BadPublicKey,
    /// A secret key is not an exponent of the torrent's profile.
    BadSecretKey,
    /// A proof of possession does not verify.
    BadProof,
    /// A modulus is not a safe prime of 64 … 4,096 bits in steps of 64 with its top bit set, or the generator's order is not q.
    BadGroup,
    /// The profile `sealed` takes the groups ffdhe2048, ffdhe3072 and ffdhe4096 only.
    GroupNotSealed,
    /// A received block is zero or not below p.
    BadBlock {
        /// Index of the first such block in its piece.
        block: usize,
    },
    /// A received piece is not what was published, or its witness key is for another piece, subscriber or epoch.
    WitnessMismatch,
    /// A ticket's version is newer than this crate.
    NewerVersion {
        /// The version found.
        found: u8,
    },
    /// The system's random generator failed or the search for a prime was called off.
    GenerationStopped,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::BadLength { expected, found } => {
                write!(f, "wrong length: expected {expected} bytes (or a multiple, for a piece), found {found}")
            }
            Error::NotAnElement => f.write_str("not a group element: expected a number in 1 … p-1"),
            Error::BadPublicKey => {
                f.write_str("bad public key: expected 2 ≤ y ≤ p-2 with Jacobi symbol +1")
            }
            Error::BadSecretKey => f.write_str("bad secret key: not an exponent of this torrent's profile"),
            Error::BadProof => f.write_str("the proof of possession does not verify"),
            Error::BadGroup => f.write_str(
                "bad group: expected a safe prime of 64 to 4096 bits, in steps of 64, and a generator of order (p-1)/2",
            ),
            Error::GroupNotSealed => {
                f.write_str("the profile `sealed` takes ffdhe2048, ffdhe3072 or ffdhe4096")
            }
            Error::BadBlock { block } => {
                write!(f, "block {block} of the piece is zero or not below the modulus")
            }
            Error::WitnessMismatch => f.write_str(
                "the piece is not what was published, or its witness key is for another piece, subscriber or epoch",
            ),
            Error::NewerVersion { found } => {
                write!(f, "version {found} is newer than this program understands (1)")
            }
            Error::GenerationStopped => f.write_str("the search for a prime was stopped"),
        }
    }
}

impl core::error::Error for Error {}
