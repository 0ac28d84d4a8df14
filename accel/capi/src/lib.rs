//! The C ABI over `swarmseal-core` and `swarmseal-accel`, for a peer, a player or a tracker that is not written in Rust.
//!
//! `include/swarmseal.h` is what C programs see; `README.md` beside this folder is their guide. Nothing here allocates: whoever calls
//! lends every buffer, and functions say how large they must be. No panic leaves: one becomes [`ss_status::SS_INTERNAL`], which would be a
//! defect of ours. Numbers are W big-endian bytes, as everywhere in Swarmseal; W is [`ss_element_size`].
//!
//! Buffers of one call must not overlap. Pointers may be null where the length beside them is 0.
// What C calls has C's names.
#![allow(non_camel_case_types)]
#![deny(unsafe_op_in_unsafe_fn)]

mod border;

use std::ffi::{c_char, c_int, c_void};

use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    DecryptionKey, DerivedSecret, DeviceRoot, EncryptionKey, Error, Exponents, Group, Kernels, KeyCommitment,
    MasterKey, OpenedKey, Params, Profile, PublicKey, ReKey, SecretKey, SubscriberId, Ticket, TorrentId,
    TsKey, TsKeys, WitnessExponent, WitnessExponents, WitnessFactor, WitnessKey, WitnessSecret,
};

use crate::border::{array, catch, input, output, put, text};

/// Bytes of ids, of Ed25519 and X25519 keys, of witness hashes, and of each secret that is no number: device root, package secret,
/// master key and witness secret.
pub const SS_ID_SIZE: usize = 32;
/// Bytes of an Ed25519 signature.
pub const SS_SIGNATURE_SIZE: usize = 64;
/// Bytes of the largest group's elements: a buffer that holds any key.
pub const SS_MAX_ELEMENT_SIZE: usize = 512;
/// Bytes of a ticket that its signature covers.
pub const SS_TICKET_SIGNED_SIZE: usize = 113;
/// Bytes of a ticket.
pub const SS_TICKET_SIZE: usize = 177;

const _: () = assert!(
    SS_MAX_ELEMENT_SIZE == swarmseal_core::MAX_BYTES
        && SS_TICKET_SIGNED_SIZE == Ticket::SIGNED_LEN
        && SS_TICKET_SIZE == Ticket::LEN
);

/// What a function answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ss_status {
    /// It was done.
    SS_OK = 0,
    /// A pointer is null.
    SS_NULL = 1,
    /// A buffer has the wrong length; for a piece: it is no whole number of blocks.
    SS_BAD_LENGTH = 2,
    /// The memory for parameters is too small or not aligned.
    SS_BAD_MEMORY = 3,
    /// A profile, group, kind of exponents or backend of that name is not known, or this CPU cannot run it.
    SS_UNKNOWN_NAME = 4,
    /// Profile and group do not go together.
    SS_BAD_GROUP = 5,
    /// A key is no element of the group.
    SS_BAD_KEY = 6,
    /// A public key is not 2 <= y <= p-2 with Jacobi symbol +1.
    SS_BAD_PUBLIC_KEY = 7,
    /// A secret key is no exponent of the profile.
    SS_BAD_SECRET_KEY = 8,
    /// A block of a received piece is 0 or not below p: whoever sent it is not to be trusted.
    SS_BAD_BLOCK = 9,
    /// A ticket has a newer version.
    SS_NEWER_VERSION = 10,
    /// A received piece is not what was published, or its witness key is for another piece, subscriber or epoch.
    SS_WITNESS_MISMATCH = 11,
    /// A defect of this library.
    SS_INTERNAL = 12,
}

use ss_status::*;
/// [`ss_status`], where Rust speaks of it.
pub type Status = ss_status;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::BadLength { .. } => SS_BAD_LENGTH,
            Error::NotAnElement => SS_BAD_KEY,
            Error::BadPublicKey => SS_BAD_PUBLIC_KEY,
            Error::BadSecretKey => SS_BAD_SECRET_KEY,
            Error::BadGroup | Error::GroupNotSealed => SS_BAD_GROUP,
            Error::BadBlock { .. } => SS_BAD_BLOCK,
            Error::WitnessMismatch => SS_WITNESS_MISMATCH,
            Error::NewerVersion { .. } => SS_NEWER_VERSION,
            _ => SS_INTERNAL,
        }
    }
}

/// The parameters of a torrent: profile, group, exponents, and the backend that does the arithmetic. Immutable: any number of threads
/// may use one.
pub struct ss_params(Params);

/// What a status means, in English.
#[unsafe(no_mangle)]
pub extern "C" fn ss_status_text(status: c_int) -> *const c_char {
    let text = match status {
        0 => c"done",
        1 => c"a pointer is null",
        2 => c"a buffer has the wrong length",
        3 => c"the memory for parameters is too small or not aligned",
        4 => c"no profile, group, kind of exponents or backend of that name, or this CPU cannot run it",
        5 => c"the profile and the group do not go together",
        6 => c"a key is no element of the group",
        7 => c"bad public key: expected 2 <= y <= p-2 with Jacobi symbol +1",
        8 => c"bad secret key: not an exponent of this profile",
        9 => c"a block of the piece is zero or not below the modulus",
        10 => c"a newer version than this library understands",
        11 => c"the piece is not what was published, or its witness key is for another piece, subscriber or epoch",
        12 => c"a defect of the library",
        _ => c"no status of this library",
    };
    text.as_ptr()
}

/// This library's version, such as 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn ss_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Bytes that ss_params_init needs.
#[unsafe(no_mangle)]
pub extern "C" fn ss_params_size() -> usize {
    size_of::<ss_params>()
}

/// What their address must be a multiple of.
#[unsafe(no_mangle)]
pub extern "C" fn ss_params_align() -> usize {
    align_of::<ss_params>()
}

/// Makes the parameters of a torrent in memory that the caller lends for as long as it uses them. Nothing need be undone.
///
/// `profile`, `group` and `exponents` are what `info.swarmseal` names; null: sealed, ffdhe2048, short. `backend` is one of
/// ss_backend_name; null: the fastest. Answers SS_BAD_MEMORY, SS_UNKNOWN_NAME, SS_BAD_GROUP, SS_NULL.
///
/// # Safety
/// `memory` has `length` bytes that nobody else uses meanwhile; the names are null or end with a zero byte; `params` takes a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_params_init(
    memory: *mut c_void,
    length: usize,
    profile: *const c_char,
    group: *const c_char,
    exponents: *const c_char,
    backend: *const c_char,
    params: *mut *const ss_params,
) -> ss_status {
    catch(|| {
        let place = memory.cast::<ss_params>();
        if place.is_null() || params.is_null() {
            return Err(SS_NULL);
        }
        if length < ss_params_size() || !place.is_aligned() {
            return Err(SS_BAD_MEMORY);
        }
        // SAFETY: the caller's names are null or end with a zero byte.
        let [profile, group, exponents, backend] =
            unsafe { [text(profile)?, text(group)?, text(exponents)?, text(backend)?] };
        let kernels = match backend {
            Some(name) => swarmseal_accel::by_name(name).ok_or(SS_UNKNOWN_NAME)?,
            None => swarmseal_accel::detect(),
        };
        let profile = named(profile, "sealed", Profile::by_name)?;
        let group = named(group, "ffdhe2048", |name| Group::by_name(name, kernels))?;
        let exponents = named(exponents, "short", Exponents::by_name)?;
        let made = ss_params(Params::new(profile, group, exponents)?);
        // SAFETY: not null, aligned, and as large as was asked for; `Params` has nothing to drop, so what lay there before is lost
        // without harm, and so is this when its owner takes the memory back.
        unsafe { place.write(made) };
        // SAFETY: the caller's pointer takes one.
        unsafe { params.write(place) };
        Ok(())
    })
}

const _: () = assert!(!std::mem::needs_drop::<Params>());

fn named<T>(name: Option<&str>, default: &str, find: impl Fn(&str) -> Option<T>) -> Result<T, Status> {
    find(name.unwrap_or(default)).ok_or(SS_UNKNOWN_NAME)
}

/// The name of the backend that does the arithmetic of these parameters; null for null.
///
/// # Safety
/// `params` is null or of ss_params_init.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_params_backend(params: *const ss_params) -> *const c_char {
    // SAFETY: the caller's promise.
    let Some(params) = (unsafe { params.as_ref() }) else { return std::ptr::null() };
    backend_name(params.0.group().kernels())
}

/// The name of backend `index` of those that this CPU can run, the slowest first; null where there are no more.
#[unsafe(no_mangle)]
pub extern "C" fn ss_backend_name(index: usize) -> *const c_char {
    swarmseal_accel::each().nth(index).map_or(std::ptr::null(), backend_name)
}

/// C wants a zero byte behind a name.
fn backend_name(kernels: &Kernels) -> *const c_char {
    const NAMES: [&std::ffi::CStr; 9] =
        [c"portable", c"mul", c"sse2", c"adx", c"avx2", c"ifma", c"umulh", c"neon", c"umaal"];
    let found = NAMES.iter().find(|name| name.to_bytes() == kernels.name.as_bytes());
    found.map_or(std::ptr::null(), |name| name.as_ptr())
}

/// W: bytes of a group element, and of a block of a piece; 0 for null.
///
/// # Safety
/// `params` is null or of ss_params_init.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_element_size(params: *const ss_params) -> usize {
    // SAFETY: the caller's promise.
    unsafe { params.as_ref() }.map_or(0, |params| params.0.group().bytes())
}

/// Bytes of plaintext in a piece of `piece_length` bytes; 0 for null.
///
/// # Safety
/// `params` is null or of ss_params_init.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_payload_size(params: *const ss_params, piece_length: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { params.as_ref() }.map_or(0, |params| params.0.payload_bytes(piece_length))
}

/// A torrent's id: SS_ID_SIZE bytes. `publisher_key` is the publisher's Ed25519 public key, `random` the 32 random bytes of
/// `info.swarmseal`. Answers SS_NULL.
///
/// # Safety
/// Each buffer has SS_ID_SIZE bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_torrent_id(
    publisher_key: *const u8,
    random: *const u8,
    torrent_id: *mut u8,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (publisher, random, out) =
            unsafe { (array(publisher_key)?, array(random)?, output(torrent_id, SS_ID_SIZE)?) };
        out.copy_from_slice(&TorrentId::of(&publisher, &random).0);
        Ok(())
    })
}

/// Makes a subscriber's secret key s for one torrent from the device's root: W bytes. The root is 32 bytes of a good generator, one
/// for all torrents. Answers SS_BAD_LENGTH, SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; `root` and `torrent_id` have SS_ID_SIZE bytes, `secret` the length beside it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_device_secret_key(
    params: *const ss_params,
    root: *const u8,
    torrent_id: *const u8,
    secret: *mut u8,
    secret_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, root, torrent, out) = unsafe {
            (
                borrow(params)?,
                DeviceRoot::from_bytes(array(root)?),
                TorrentId(array(torrent_id)?),
                output(secret, secret_length)?,
            )
        };
        Ok(root.secret_key(params, &torrent).to_bytes(params, out)?)
    })
}

/// Makes the private key of a subscriber's Ed25519 identity key for one torrent from the device's root: SS_ID_SIZE bytes. Answers
/// SS_NULL.
///
/// # Safety
/// Each buffer has SS_ID_SIZE bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_device_identity_key(
    root: *const u8,
    torrent_id: *const u8,
    private_key: *mut u8,
) -> ss_status {
    // SAFETY: the caller's promises.
    unsafe { of_root(root, torrent_id, private_key, |root, torrent| root.identity_key(&TorrentId(*torrent))) }
}

/// Makes the private key of a subscriber's X25519 device key for one torrent from the device's root: SS_ID_SIZE bytes. Answers
/// SS_NULL.
///
/// # Safety
/// Each buffer has SS_ID_SIZE bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_device_encryption_key(
    root: *const u8,
    torrent_id: *const u8,
    private_key: *mut u8,
) -> ss_status {
    // SAFETY: the caller's promises.
    unsafe { of_root(root, torrent_id, private_key, |root, torrent| root.device_key(&TorrentId(*torrent))) }
}

/// Makes the private key of the device's Ed25519 seat key for one publisher from the device's root: SS_ID_SIZE bytes.
/// `publisher_key` is the publisher's Ed25519 public key. Answers SS_NULL.
///
/// # Safety
/// Each buffer has SS_ID_SIZE bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_device_seat_key(
    root: *const u8,
    publisher_key: *const u8,
    private_key: *mut u8,
) -> ss_status {
    // SAFETY: the caller's promises.
    unsafe { of_root(root, publisher_key, private_key, DeviceRoot::seat_key) }
}

/// A secret that a device root gives for a torrent or a publisher.
///
/// # Safety
/// Each pointer is null or has SS_ID_SIZE bytes.
unsafe fn of_root(
    root: *const u8,
    of: *const u8,
    private_key: *mut u8,
    derive: impl FnOnce(&DeviceRoot, &[u8; SS_ID_SIZE]) -> DerivedSecret,
) -> Status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (root, of, out) =
            unsafe { (DeviceRoot::from_bytes(array(root)?), array(of)?, output(private_key, SS_ID_SIZE)?) };
        out.copy_from_slice(derive(&root, &of).as_bytes());
        Ok(())
    })
}

/// y = g^s: W bytes. Answers SS_BAD_SECRET_KEY, SS_BAD_LENGTH, SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; the buffers have the lengths beside them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_public_key(
    params: *const ss_params,
    secret: *const u8,
    secret_length: usize,
    public_key: *mut u8,
    public_key_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, secret, out) = unsafe {
            (borrow(params)?, input(secret, secret_length)?, output(public_key, public_key_length)?)
        };
        Ok(SecretKey::from_bytes(params, secret)?.public_key(params).to_bytes(params, out)?)
    })
}

/// Whether a public key may be used: SS_OK, SS_BAD_PUBLIC_KEY, SS_BAD_LENGTH, SS_NULL. In variable time: the key is public.
///
/// # Safety
/// `params` is of ss_params_init; the buffer has the length beside it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_public_key_check(
    params: *const ss_params,
    public_key: *const u8,
    public_key_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, key) = unsafe { (borrow(params)?, input(public_key, public_key_length)?) };
        PublicKey::from_bytes(params, key)?;
        Ok(())
    })
}

/// What a subscriber says of its keys to peers, who make its id of it: SS_ID_SIZE bytes. `device_key` is its X25519 public key. Answers
/// SS_BAD_PUBLIC_KEY, SS_BAD_LENGTH, SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; `device_key` and `commitment` have SS_ID_SIZE bytes, the public key the length beside it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_key_commitment(
    params: *const ss_params,
    device_key: *const u8,
    public_key: *const u8,
    public_key_length: usize,
    commitment: *mut u8,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, device, key, out) = unsafe {
            (
                borrow(params)?,
                array(device_key)?,
                input(public_key, public_key_length)?,
                output(commitment, SS_ID_SIZE)?,
            )
        };
        let key = PublicKey::from_bytes(params, key)?;
        out.copy_from_slice(&KeyCommitment::of(params, &device, &key).0);
        Ok(())
    })
}

/// A subscriber's id: SS_ID_SIZE bytes. `identity_key` is its Ed25519 public key, `commitment` is of ss_key_commitment. Answers SS_NULL.
///
/// # Safety
/// Each buffer has SS_ID_SIZE bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_subscriber_id(
    torrent_id: *const u8,
    identity_key: *const u8,
    commitment: *const u8,
    subscriber_id: *mut u8,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (torrent, identity, commitment, out) = unsafe {
            (
                TorrentId(array(torrent_id)?),
                array(identity_key)?,
                KeyCommitment(array(commitment)?),
                output(subscriber_id, SS_ID_SIZE)?,
            )
        };
        out.copy_from_slice(&SubscriberId::of(&torrent, &identity, &commitment).0);
        Ok(())
    })
}

/// Writes a ticket, by which an uploader may ask for re-keys to the downloader, and what its signature covers: SS_TICKET_SIGNED_SIZE
/// bytes. Sign those with the downloader's Ed25519 key as the peer protocol says, and hand the signature in at the second call.
///
/// `signature` may be null: then `ticket` is left alone, and may be null as well. Answers SS_NULL.
///
/// # Safety
/// The ids have SS_ID_SIZE bytes, `signature` SS_SIGNATURE_SIZE, `signed_part` SS_TICKET_SIGNED_SIZE, `ticket` SS_TICKET_SIZE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_ticket(
    torrent_id: *const u8,
    uploader: *const u8,
    downloader: *const u8,
    epoch: u64,
    expires: u64,
    signature: *const u8,
    signed_part: *mut u8,
    ticket: *mut u8,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (torrent_id, uploader, downloader) =
            unsafe { (array(torrent_id)?, array(uploader)?, array(downloader)?) };
        let signed = signature.is_null();
        // SAFETY: the caller's promise.
        let signature = if signed { [0; 64] } else { unsafe { array(signature)? } };
        let made = Ticket {
            torrent_id: TorrentId(torrent_id),
            uploader: SubscriberId(uploader),
            downloader: SubscriberId(downloader),
            epoch,
            expires,
            signature,
        };
        // SAFETY: the caller's promise.
        unsafe { output(signed_part, SS_TICKET_SIGNED_SIZE)? }.copy_from_slice(&made.signing_input());
        if !signed {
            // SAFETY: the caller's promise.
            unsafe { output(ticket, SS_TICKET_SIZE)? }.copy_from_slice(&made.to_bytes());
        }
        Ok(())
    })
}

/// Whether every block of a received piece is in 1 ... p-1: SS_OK, or SS_BAD_BLOCK with the block's number in `bad_block`, which may
/// be null; SS_BAD_LENGTH, SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; the piece has the length beside it; `bad_block` takes a number or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_check_piece(
    params: *const ss_params,
    piece: *const u8,
    piece_length: usize,
    bad_block: *mut usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, piece) = unsafe { (borrow(params)?, input(piece, piece_length)?) };
        let checked = swarmseal_core::check_piece(params, piece);
        if let (Err(Error::BadBlock { block }), false) = (checked, bad_block.is_null()) {
            // SAFETY: not null, and the caller's promise.
            unsafe { bad_block.write(block) };
        }
        Ok(checked?)
    })
}

/// Checks that a received piece is what was published, in every byte: that each block is in 1 ... p-1, T with the witness key of W bytes
/// in `scratch`, and BLAKE3. `expected` is the piece's hash in `info.swarmseal`; `scratch` is as long as the piece and afterwards of no
/// use. Answers SS_BAD_BLOCK, SS_WITNESS_MISMATCH, SS_BAD_KEY, SS_BAD_LENGTH, SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; `expected` has SS_ID_SIZE bytes, the others the lengths beside them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_check_witness(
    params: *const ss_params,
    witness_key: *const u8,
    witness_key_length: usize,
    expected: *const u8,
    piece: *const u8,
    piece_length: usize,
    scratch: *mut u8,
    scratch_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, key, expected, piece, scratch) = unsafe {
            (
                borrow(params)?,
                input(witness_key, witness_key_length)?,
                array(expected)?,
                input(piece, piece_length)?,
                output(scratch, scratch_length)?,
            )
        };
        let key = WitnessKey::from_bytes(params, key)?;
        Ok(swarmseal_core::check_witness(params, &key, &expected, piece, scratch)?)
    })
}

/// ss_check_witness without a second buffer: the piece is overwritten, and afterwards of no use.
///
/// # Safety
/// As of ss_check_witness.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_check_witness_in_place(
    params: *const ss_params,
    witness_key: *const u8,
    witness_key_length: usize,
    expected: *const u8,
    piece: *mut u8,
    piece_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, key, expected, piece) = unsafe {
            (
                borrow(params)?,
                input(witness_key, witness_key_length)?,
                array(expected)?,
                output(piece, piece_length)?,
            )
        };
        let key = WitnessKey::from_bytes(params, key)?;
        Ok(swarmseal_core::check_witness_in_place(params, &key, &expected, piece)?)
    })
}

/// The witness key of what a re-key is applied to, from that of what it makes: W bytes. So a stored piece is checked with the witness key
/// of its next epoch. Answers SS_BAD_KEY, SS_BAD_LENGTH, SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; the buffers have the lengths beside them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_witness_key_before(
    params: *const ss_params,
    witness_key: *const u8,
    witness_key_length: usize,
    rekey: *const u8,
    rekey_length: usize,
    before: *mut u8,
    before_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, key, rekey, out) = unsafe {
            (
                borrow(params)?,
                input(witness_key, witness_key_length)?,
                input(rekey, rekey_length)?,
                output(before, before_length)?,
            )
        };
        let rekey = ReKey::from_bytes(params, rekey)?;
        Ok(WitnessKey::from_bytes(params, key)?.before(params, &rekey).to_bytes(params, out)?)
    })
}

/// T: turns an uploader's piece into the downloader's, in place, with the re-key of W bytes. Answers SS_BAD_KEY, SS_BAD_LENGTH,
/// SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; the buffers have the lengths beside them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_re_encrypt_piece(
    params: *const ss_params,
    rekey: *const u8,
    rekey_length: usize,
    piece: *mut u8,
    piece_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, key, piece) =
            unsafe { (borrow(params)?, input(rekey, rekey_length)?, output(piece, piece_length)?) };
        Ok(swarmseal_core::re_encrypt_piece(params, &ReKey::from_bytes(params, key)?, piece)?)
    })
}

/// Opens a license's key of one piece with the subscriber's secret key: K^-1, W bytes, for ss_decrypt_piece. It opens that piece for
/// anybody: wipe it. Answers SS_BAD_SECRET_KEY, SS_BAD_KEY, SS_BAD_LENGTH, SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; the buffers have the lengths beside them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_open_key(
    params: *const ss_params,
    secret: *const u8,
    secret_length: usize,
    decryption_key: *const u8,
    decryption_key_length: usize,
    opened_key: *mut u8,
    opened_key_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, secret, key, out) = unsafe {
            (
                borrow(params)?,
                input(secret, secret_length)?,
                input(decryption_key, decryption_key_length)?,
                output(opened_key, opened_key_length)?,
            )
        };
        let secret = SecretKey::from_bytes(params, secret)?;
        Ok(DecryptionKey::from_bytes(params, key)?.open(params, &secret).to_bytes(params, out)?)
    })
}

/// PDec: opens a piece in place, to its package, with the key of ss_open_key. Check its SHA-1 against the .torrent before
/// ss_unpackage: only then is it what was published. Answers SS_BAD_KEY, SS_BAD_LENGTH, SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; the buffers have the lengths beside them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_decrypt_piece(
    params: *const ss_params,
    opened_key: *const u8,
    opened_key_length: usize,
    piece: *mut u8,
    piece_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, key, piece) =
            unsafe { (borrow(params)?, input(opened_key, opened_key_length)?, output(piece, piece_length)?) };
        Ok(swarmseal_core::decrypt_piece_with(params, &OpenedKey::from_bytes(params, key)?, piece)?)
    })
}

/// Opens a package in place: its payload is then in the first `payload_length` bytes. Authenticates nothing. Answers SS_BAD_LENGTH,
/// SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; the piece has the length beside it; `payload_length` takes a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_unpackage(
    params: *const ss_params,
    piece: *mut u8,
    piece_length: usize,
    payload_length: *mut usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, piece) = unsafe { (borrow(params)?, output(piece, piece_length)?) };
        let length = package::unpack(params, piece)?;
        // SAFETY: the caller's promise.
        unsafe { put(payload_length, length) }
    })
}

/// An original seed's package: the payload in the first ss_payload_size bytes becomes the packaged piece, in place. Answers
/// SS_BAD_LENGTH, SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; `package_secret` and `torrent_id` have SS_ID_SIZE bytes, the piece the length beside it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_package(
    params: *const ss_params,
    package_secret: *const u8,
    torrent_id: *const u8,
    index: u32,
    piece: *mut u8,
    piece_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, secret, torrent, piece) = unsafe {
            (
                borrow(params)?,
                PackageSecret::from_bytes(array(package_secret)?),
                TorrentId(array(torrent_id)?),
                output(piece, piece_length)?,
            )
        };
        package::pack(params, &secret, &torrent, index, piece)?;
        Ok(())
    })
}

/// PEnc: encrypts a packaged piece in place for one subscriber, with the encryption key of W bytes. Answers SS_BAD_KEY,
/// SS_BAD_LENGTH, SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; the buffers have the lengths beside them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_encrypt_piece(
    params: *const ss_params,
    encryption_key: *const u8,
    encryption_key_length: usize,
    piece: *mut u8,
    piece_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, key, piece) = unsafe {
            (borrow(params)?, input(encryption_key, encryption_key_length)?, output(piece, piece_length)?)
        };
        Ok(swarmseal_core::encrypt_piece(params, &EncryptionKey::from_bytes(params, key)?, piece)?)
    })
}

/// TGen for one piece.
///
/// # Safety
/// The pointers are null or have SS_ID_SIZE bytes.
unsafe fn ts_key(
    params: &Params,
    master_key: *const u8,
    subscriber_id: *const u8,
    (epoch, index): (u64, u32),
) -> Result<TsKey, Status> {
    // SAFETY: the caller's promises.
    let (master, id) =
        unsafe { (MasterKey::from_bytes(array(master_key)?), SubscriberId(array(subscriber_id)?)) };
    Ok(TsKeys::derive(params, &master, &id, epoch).key(index))
}

/// A license's key of one piece of one subscriber in one epoch: W bytes. Answers SS_BAD_LENGTH, SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; `master_key` and `subscriber_id` have SS_ID_SIZE bytes, the key the length beside it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_decryption_key(
    params: *const ss_params,
    master_key: *const u8,
    subscriber_id: *const u8,
    epoch: u64,
    index: u32,
    decryption_key: *mut u8,
    decryption_key_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, out) = unsafe { (borrow(params)?, output(decryption_key, decryption_key_length)?) };
        // SAFETY: the caller's promises.
        let r = unsafe { ts_key(params, master_key, subscriber_id, (epoch, index))? };
        Ok(DecryptionKey::derive(params, &r).to_bytes(params, out)?)
    })
}

/// A subscriber in an epoch, as the tracker knows it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ss_party {
    /// The epoch's master key: SS_ID_SIZE bytes.
    pub master_key: *const u8,
    /// SS_ID_SIZE bytes, made of this very public key.
    pub subscriber_id: *const u8,
    /// y: W bytes.
    pub public_key: *const u8,
    /// The epoch that the piece is encrypted for.
    pub epoch: u64,
}

/// A party's checked public key, and its r of one piece.
///
/// # Safety
/// `party` is null, or what it points to is as it says.
unsafe fn keys(params: &Params, party: *const ss_party, index: u32) -> Result<(PublicKey, TsKey), Status> {
    // SAFETY: the caller's promise.
    let party = unsafe { party.as_ref() }.ok_or(SS_NULL)?;
    // SAFETY: the caller's promise.
    let y = unsafe { input(party.public_key, params.group().bytes())? };
    // SAFETY: the caller's promise.
    let r = unsafe { ts_key(params, party.master_key, party.subscriber_id, (party.epoch, index))? };
    Ok((PublicKey::from_bytes(params, y)?, r))
}

/// A tracker's encryption key of one piece of one subscriber: W bytes, for an original seed. Answers SS_BAD_PUBLIC_KEY, SS_BAD_LENGTH,
/// SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; what the party points to is as it says; `encryption_key` has the length beside it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_encryption_key(
    params: *const ss_params,
    subscriber: *const ss_party,
    index: u32,
    encryption_key: *mut u8,
    encryption_key_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, out) = unsafe { (borrow(params)?, output(encryption_key, encryption_key_length)?) };
        // SAFETY: the caller's promise.
        let (y, r) = unsafe { keys(params, subscriber, index)? };
        Ok(EncryptionKey::derive(params, &y, &r).to_bytes(params, out)?)
    })
}

/// A tracker's re-key of one piece, from the uploader's ciphertext to the downloader's: W bytes. Answers SS_BAD_PUBLIC_KEY,
/// SS_BAD_LENGTH, SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; what the parties point to is as they say; `rekey` has the length beside it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_rekey(
    params: *const ss_params,
    uploader: *const ss_party,
    downloader: *const ss_party,
    index: u32,
    rekey: *mut u8,
    rekey_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, out) = unsafe { (borrow(params)?, output(rekey, rekey_length)?) };
        // SAFETY: the caller's promises.
        let ((from, from_r), (to, to_r)) =
            unsafe { (keys(params, uploader, index)?, keys(params, downloader, index)?) };
        Ok(ReKey::derive(params, (&from, &from_r), (&to, &to_r)).to_bytes(params, out)?)
    })
}

/// w of one piece.
///
/// # Safety
/// The pointers are null or have SS_ID_SIZE bytes.
unsafe fn witness(
    params: &Params,
    witness_secret: *const u8,
    torrent_id: *const u8,
    index: u32,
) -> Result<WitnessExponent, Status> {
    // SAFETY: the caller's promises.
    let (secret, torrent) =
        unsafe { (WitnessSecret::from_bytes(array(witness_secret)?), TorrentId(array(torrent_id)?)) };
    Ok(WitnessExponents::derive(params, &secret, &torrent).exponent(index))
}

/// A tracker's witness key of one piece of one subscriber, for ss_check_witness: W bytes. Answers SS_BAD_PUBLIC_KEY, SS_BAD_LENGTH,
/// SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; `witness_secret` and `torrent_id` have SS_ID_SIZE bytes; what the party points to is as it says;
/// `witness_key` has the length beside it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_witness_key(
    params: *const ss_params,
    witness_secret: *const u8,
    torrent_id: *const u8,
    subscriber: *const ss_party,
    index: u32,
    witness_key: *mut u8,
    witness_key_length: usize,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, out) = unsafe { (borrow(params)?, output(witness_key, witness_key_length)?) };
        // SAFETY: the caller's promises.
        let (w, (y, r)) = unsafe {
            (witness(params, witness_secret, torrent_id, index)?, keys(params, subscriber, index)?)
        };
        Ok(WitnessKey::derive(params, &w, (&y, &r)).to_bytes(params, out)?)
    })
}

/// A publisher's witness hash of a packaged piece, for `info.swarmseal`: SS_ID_SIZE bytes. The piece is overwritten, and afterwards of
/// no use. `witness_secret` is 32 bytes of a good generator, drawn for this publication. Answers SS_BAD_LENGTH, SS_NULL.
///
/// # Safety
/// `params` is of ss_params_init; `witness_secret`, `torrent_id` and `hash` have SS_ID_SIZE bytes, the piece the length beside it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ss_witness_hash(
    params: *const ss_params,
    witness_secret: *const u8,
    torrent_id: *const u8,
    index: u32,
    piece: *mut u8,
    piece_length: usize,
    hash: *mut u8,
) -> ss_status {
    catch(|| {
        // SAFETY: the caller's promises.
        let (params, piece, out) =
            unsafe { (borrow(params)?, output(piece, piece_length)?, output(hash, SS_ID_SIZE)?) };
        // SAFETY: the caller's promises.
        let w = unsafe { witness(params, witness_secret, torrent_id, index)? };
        let factor = WitnessFactor::derive(params, &w);
        out.copy_from_slice(&swarmseal_core::witness_hash(params, &factor, piece)?);
        Ok(())
    })
}

/// # Safety
/// `params` is null or of [`ss_params_init`], and lives as long as is needed.
unsafe fn borrow<'a>(params: *const ss_params) -> Result<&'a Params, Status> {
    // SAFETY: the caller's promise.
    unsafe { params.as_ref() }.map(|params| &params.0).ok_or(SS_NULL)
}
