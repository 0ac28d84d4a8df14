//! The Swarmseal scheme: paid content through BitTorrent, encrypted for each peer alone.
//!
//! This crate is the arithmetic and the six functions of "Towards digital rights protection in
//! BitTorrent-like P2P systems" (Zhang, Liu, Chen, Zhang, Sandhu, 2008), Definition 2.2, together
//! with what it takes to use them safely: validated public keys, proofs of possession, derived
//! tracker-site keys, an all-or-nothing package around each piece, and a check of each received piece. `SCHEME.md` beside this file's
//! folder says every byte.
//!
//! | paper | here |
//! |---|---|
//! | SGen | `Group::generate` (feature `generate`), or a named group such as [`Group::ffdhe2048`] |
//! | PGen | [`SecretKey::generate`] |
//! | TGen | [`TsKeys::derive`] |
//! | PEnc | [`encrypt_piece`] |
//! | PDec | [`decrypt_piece`] |
//! | T | [`re_encrypt_piece`] |
//!
//! By [`check_witness`] a peer checks each piece that it carries, without being able to open it. [`DeviceRoot`] gives the keys of all
//! of a device's subscriptions.
//!
//! ```
//! use swarmseal_core::{Error, Exponents, Group, Kernels, Params, Profile, ReKey, check_piece, re_encrypt_piece};
//!
//! // An uploader's part, once a torrent and once a piece. The re-key is the tracker's, W big-endian bytes.
//! fn hand_on(params: &Params, rekey: &[u8], piece: &mut [u8]) -> Result<(), Error> {
//!     re_encrypt_piece(params, &ReKey::from_bytes(params, rekey)?, piece)
//! }
//!
//! let params = Params::new(Profile::Sealed, Group::ffdhe2048(Kernels::portable()), Exponents::Short)?;
//! let (rekey, mut piece) = ([0x5a; 256], vec![0x17; 64 * 256]);
//! hand_on(&params, &rekey, &mut piece)?;
//! check_piece(&params, &piece)?;
//! assert_eq!(hand_on(&params, &rekey[1..], &mut piece), Err(Error::BadLength { expected: 256, found: 255 }));
//! # Ok::<(), Error>(())
//! ```
//!
//! There is no heap (but in `Group::generate`) and no `unsafe`; the crate knows no CPU. A [`Group`] carries the [`Kernels`]
//! that do its arithmetic, [`Kernels::portable`] or what `swarmseal-accel` detects.
//!
//! Every function over a secret key, a tracker-site key, an encryption or decryption key, a package
//! or its plaintext takes time that depends on lengths alone. What may vary with its input is said
//! to be `_vartime`.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "generate")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod bytes;
mod device;
mod element;
mod error;
mod exponent;
mod fixed_base;
mod group;
mod ids;
mod kdf;
pub mod kernels;
mod keys;
mod modulus;
mod number;
mod observed;
pub mod package;
mod params;
mod piece;
mod piece_keys;
mod primality;
mod proof;
mod ticket;
mod ts_keys;
mod witness;

pub use crypto_bigint::Word;
pub use device::{DerivedSecret, DeviceRoot};
pub use error::Error;
pub use fixed_base::FixedBase;
pub use group::Group;
#[cfg(feature = "generate")]
pub use group::generate::Progress;
pub use ids::{KeyCommitment, SubscriberId, TorrentId};
pub use kernels::Kernels;
pub use keys::{PublicKey, SecretKey};
pub use modulus::Modulus;
pub use number::LIMBS;
pub use observed::have_one_multiplier;
pub use params::{Exponents, Params, Profile};
pub use piece::{check_piece, decrypt_piece, decrypt_piece_with, encrypt_piece, re_encrypt_piece};
pub use piece_keys::{DecryptionKey, EncryptionKey, OpenedKey, ReKey, SubscriberTables};
pub use proof::Proof;
pub use ticket::Ticket;
pub use ts_keys::{MasterKey, TsKey, TsKeys};
pub use witness::{
    WitnessExponent, WitnessExponents, WitnessFactor, WitnessKey, WitnessSecret, WitnessTable, check_witness,
    check_witness_in_place, witness_hash,
};

/// Bytes of an element of the largest group.
pub const MAX_BYTES: usize = 512;
