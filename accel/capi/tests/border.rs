//! Nothing is allocated, and no pointer or length that is wrong does harm.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::{null, null_mut};

use swarmseal_c::ss_status::*;
use swarmseal_c::*;

/// Counts what this thread asks for.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all that is asked for is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as above; the place is the system's.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PIECE: usize = 1024;
const WIDTH: usize = 256;

/// Memory for parameters, as a C program has it.
struct Memory(Vec<u64>);

impl Memory {
    fn new() -> Self {
        assert!(align_of::<u64>() >= ss_params_align());
        Memory(vec![0; ss_params_size().div_ceil(8)])
    }

    fn params(&mut self) -> *const ss_params {
        let mut params = null();
        let (place, length) = (self.0.as_mut_ptr().cast(), self.0.len() * 8);
        // SAFETY: a vector of that length; no name is given.
        let made = unsafe { ss_params_init(place, length, null(), null(), null(), null(), &mut params) };
        assert_eq!(made, SS_OK);
        params
    }
}

#[test]
fn a_piece_goes_all_the_way_and_nothing_is_allocated() {
    let mut memory = Memory::new();
    let params = memory.params();
    let (master, publisher, random, omega) =
        ([1; SS_ID_SIZE], [2; SS_ID_SIZE], [3; SS_ID_SIZE], [4; SS_ID_SIZE]);
    let (package, mut torrent, mut hash) = ([5; SS_ID_SIZE], [0; SS_ID_SIZE], [0; SS_ID_SIZE]);
    let mut keys = [[0; WIDTH]; 10];
    let [s_j, s_k, y_j, y_k, encryption, rekey, entry, opened, witness, before] = &mut keys;
    let mut ids = [[0; SS_ID_SIZE]; 2];
    let [id_j, id_k] = &mut ids;
    let mut secrets = [[0; SS_ID_SIZE]; 3];
    let mut piece: Vec<u8> = (0..PIECE).map(|i| i as u8).collect();
    let mut scratch = vec![0; PIECE];
    let content = piece.clone();
    let mut payload = 0;
    COUNT.with(|count| count.set(0));
    // SAFETY: every buffer has the length that is said beside it.
    unsafe {
        assert_eq!(ss_torrent_id(publisher.as_ptr(), random.as_ptr(), torrent.as_mut_ptr()), SS_OK);
        let t = torrent.as_ptr();
        for (root, s, y, id) in [(6, &mut *s_j, &mut *y_j, &mut *id_j), (7, &mut *s_k, &mut *y_k, &mut *id_k)]
        {
            let root = [root; SS_ID_SIZE];
            assert_eq!(ss_device_secret_key(params, root.as_ptr(), t, s.as_mut_ptr(), WIDTH), SS_OK);
            let [identity, device, seat] = &mut secrets;
            assert_eq!(ss_device_identity_key(root.as_ptr(), t, identity.as_mut_ptr()), SS_OK);
            assert_eq!(ss_device_encryption_key(root.as_ptr(), t, device.as_mut_ptr()), SS_OK);
            assert_eq!(ss_device_seat_key(root.as_ptr(), publisher.as_ptr(), seat.as_mut_ptr()), SS_OK);
            assert_eq!(ss_public_key(params, s.as_ptr(), WIDTH, y.as_mut_ptr(), WIDTH), SS_OK);
            assert_eq!(ss_public_key_check(params, y.as_ptr(), WIDTH), SS_OK);
            // Their public keys are another library's; the scheme takes any 32 bytes.
            let mut commitment = [0; SS_ID_SIZE];
            let out = commitment.as_mut_ptr();
            assert_eq!(ss_key_commitment(params, device.as_ptr(), y.as_ptr(), WIDTH, out), SS_OK);
            assert_eq!(ss_subscriber_id(t, identity.as_ptr(), out, id.as_mut_ptr()), SS_OK);
        }
        let place = piece.as_mut_ptr();
        assert_eq!(ss_package(params, package.as_ptr(), t, 7, place, PIECE), SS_OK);
        scratch.copy_from_slice(&piece);
        let (other, out) = (scratch.as_mut_ptr(), hash.as_mut_ptr());
        assert_eq!(ss_witness_hash(params, omega.as_ptr(), t, 7, other, PIECE, out), SS_OK);

        let party = |id: &[u8; SS_ID_SIZE], y: &[u8; WIDTH]| ss_party {
            master_key: master.as_ptr(),
            subscriber_id: id.as_ptr(),
            public_key: y.as_ptr(),
            epoch: 1,
        };
        let (j, k) = (party(id_j, y_j), party(id_k, y_k));
        assert_eq!(ss_encryption_key(params, &j, 7, encryption.as_mut_ptr(), WIDTH), SS_OK);
        assert_eq!(ss_encrypt_piece(params, encryption.as_ptr(), WIDTH, place, PIECE), SS_OK);
        assert_eq!(ss_rekey(params, &j, &k, 7, rekey.as_mut_ptr(), WIDTH), SS_OK);
        assert_eq!(ss_check_piece(params, place, PIECE, null_mut()), SS_OK);

        // The key of the downloader's ciphertext, and through the re-key that of the uploader's.
        let (u, h) = (witness.as_mut_ptr(), hash.as_ptr());
        assert_eq!(ss_witness_key(params, omega.as_ptr(), t, &k, 7, u, WIDTH), SS_OK);
        let out = before.as_mut_ptr();
        assert_eq!(ss_witness_key_before(params, u, WIDTH, rekey.as_ptr(), WIDTH, out, WIDTH), SS_OK);
        let check = |key: &[u8; WIDTH], piece: *const u8, scratch: *mut u8| {
            ss_check_witness(params, key.as_ptr(), WIDTH, h, piece, PIECE, scratch, PIECE)
        };
        assert_eq!(check(before, place, other), SS_OK);
        assert_eq!(check(witness, place, other), SS_WITNESS_MISMATCH);
        assert_eq!(ss_re_encrypt_piece(params, rekey.as_ptr(), WIDTH, place, PIECE), SS_OK);
        assert_eq!(check(witness, place, other), SS_OK);
        other.copy_from(place, PIECE);
        assert_eq!(ss_check_witness_in_place(params, u, WIDTH, h, other, PIECE), SS_OK);

        assert_eq!(
            ss_decryption_key(params, master.as_ptr(), id_k.as_ptr(), 1, 7, entry.as_mut_ptr(), WIDTH),
            SS_OK
        );
        let out = opened.as_mut_ptr();
        assert_eq!(ss_open_key(params, s_k.as_ptr(), WIDTH, entry.as_ptr(), WIDTH, out, WIDTH), SS_OK);
        assert_eq!(ss_decrypt_piece(params, opened.as_ptr(), WIDTH, place, PIECE), SS_OK);
        assert_eq!(ss_unpackage(params, place, PIECE, &mut payload), SS_OK);
    }
    assert_eq!(COUNT.with(Cell::get), 0, "something was allocated");
    assert_eq!((payload, &piece[..payload]), (PIECE - 32, &content[..PIECE - 32]));
    assert!(secrets.iter().all(|secret| *secret != [0; SS_ID_SIZE]));
}

#[test]
fn wrong_pointers_and_lengths_are_told() {
    let mut memory = Memory::new();
    let params = memory.params();
    let (mut out, key) = ([0; WIDTH], [1; WIDTH]);
    let mut piece = [1; PIECE];
    // SAFETY: what is not null has at least the length that is said beside it.
    unsafe {
        assert_eq!(ss_public_key(null(), key.as_ptr(), WIDTH, out.as_mut_ptr(), WIDTH), SS_NULL);
        assert_eq!(ss_public_key(params, null(), WIDTH, out.as_mut_ptr(), WIDTH), SS_NULL);
        assert_eq!(ss_public_key(params, null(), 0, out.as_mut_ptr(), WIDTH), SS_BAD_LENGTH);
        assert_eq!(ss_public_key(params, key.as_ptr(), WIDTH, null_mut(), WIDTH), SS_NULL);
        assert_eq!(ss_public_key(params, key.as_ptr(), WIDTH, out.as_mut_ptr(), WIDTH), SS_BAD_SECRET_KEY);
        assert_eq!(ss_public_key_check(params, key.as_ptr(), usize::MAX), SS_BAD_LENGTH);
        let (place, length) = (piece.as_mut_ptr(), PIECE - 1);
        assert_eq!(ss_encrypt_piece(params, key.as_ptr(), WIDTH, place, length), SS_BAD_LENGTH);
        assert_eq!(ss_encrypt_piece(params, key.as_ptr(), WIDTH, null_mut(), PIECE), SS_NULL);
        assert_eq!(ss_unpackage(params, place, PIECE, null_mut()), SS_NULL);
        let (id, result) = (key.as_ptr(), out.as_mut_ptr());
        assert_eq!(ss_torrent_id(null(), id, result), SS_NULL);
        assert_eq!(ss_key_commitment(params, id, key.as_ptr(), WIDTH - 1, result), SS_BAD_LENGTH);
        assert_eq!(ss_key_commitment(params, null(), key.as_ptr(), WIDTH, result), SS_NULL);
        let mut one = [0; WIDTH];
        one[WIDTH - 1] = 1;
        assert_eq!(ss_key_commitment(params, id, one.as_ptr(), WIDTH, result), SS_BAD_PUBLIC_KEY);
        assert_eq!(ss_subscriber_id(id, id, null(), result), SS_NULL);
        assert_eq!(ss_device_secret_key(params, id, null(), result, WIDTH), SS_NULL);
        assert_eq!(ss_device_secret_key(params, id, id, result, WIDTH - 1), SS_BAD_LENGTH);
        assert_eq!(ss_device_seat_key(null(), id, result), SS_NULL);
        assert_eq!(ss_rekey(params, null(), null(), 0, result, WIDTH), SS_NULL);
        let party = ss_party { master_key: id, subscriber_id: id, public_key: one.as_ptr(), epoch: 0 };
        assert_eq!(ss_encryption_key(params, &party, 0, result, WIDTH), SS_BAD_PUBLIC_KEY);
        assert_eq!(ss_encryption_key(params, null(), 0, result, WIDTH), SS_NULL);
        let none = ss_party { subscriber_id: null(), ..party };
        assert_eq!(ss_witness_key(params, id, id, &none, 0, result, WIDTH), SS_NULL);
        assert_eq!(ss_witness_key(params, null(), id, &party, 0, result, WIDTH), SS_NULL);
        let mut scratch = [0; PIECE];
        let (u, other) = (key.as_ptr(), scratch.as_mut_ptr());
        assert_eq!(ss_check_witness(params, u, WIDTH, id, place, PIECE, other, PIECE - 1), SS_BAD_LENGTH);
        assert_eq!(ss_check_witness(params, u, WIDTH, id, place, PIECE, null_mut(), PIECE), SS_NULL);
        assert_eq!(ss_check_witness(params, u, WIDTH, null(), place, PIECE, other, PIECE), SS_NULL);
        assert_eq!(ss_check_witness(params, u, WIDTH - 1, id, place, PIECE, other, PIECE), SS_BAD_LENGTH);
        assert_eq!(ss_check_witness(params, u, WIDTH, id, place, PIECE, other, PIECE), SS_WITNESS_MISMATCH);
        other.write_bytes(0, PIECE);
        assert_eq!(ss_check_witness_in_place(params, u, WIDTH, id, other, PIECE), SS_BAD_BLOCK);
        assert_eq!(ss_check_witness_in_place(params, u, WIDTH, id, other, PIECE - 1), SS_BAD_LENGTH);
        assert_eq!(ss_witness_hash(params, id, id, 0, other, PIECE - 1, result), SS_BAD_LENGTH);
        assert_eq!(ss_witness_hash(params, id, id, 0, other, PIECE, null_mut()), SS_NULL);
        assert_eq!(ss_witness_key_before(params, u, WIDTH, null(), WIDTH, result, WIDTH), SS_NULL);
        assert_eq!((ss_element_size(null()), ss_payload_size(null(), 1)), (0, 0));
        assert!(ss_params_backend(null()).is_null());

        let mut small = [0_u64; 1];
        let (place, mut made) = (small.as_mut_ptr().cast::<c_void>(), null());
        let none = null();
        assert_eq!(ss_params_init(place, 8, none, none, none, none, &mut made), SS_BAD_MEMORY);
        assert_eq!(ss_params_init(null_mut(), 1 << 20, none, none, none, none, &mut made), SS_NULL);
        let (odd, length) = (memory.0.as_mut_ptr().byte_add(1).cast(), ss_params_size());
        assert_eq!(ss_params_init(odd, length, none, none, none, none, &mut made), SS_BAD_MEMORY);
        let (place, modp, paper) = (memory.0.as_mut_ptr().cast(), c"modp1024".as_ptr(), c"paper".as_ptr());
        assert_eq!(ss_params_init(place, length, none, modp, none, none, &mut made), SS_BAD_GROUP);
        assert_eq!(ss_params_init(place, length, paper, modp, none, none, &mut made), SS_OK);
        assert_eq!(ss_element_size(made), 128);
    }
}

#[test]
fn every_backend_and_status_has_a_name() {
    // SAFETY: what is not null ends with a zero byte, and lives for ever.
    let text = |text: *const std::ffi::c_char| unsafe { CStr::from_ptr(text) }.to_str().unwrap();
    let names = (0..).map(|index| ss_backend_name(index)).take_while(|name| !name.is_null());
    let expected: Vec<&str> = swarmseal_accel::each().map(|kernels| kernels.name).collect();
    assert_eq!(names.map(text).collect::<Vec<_>>(), expected);
    let texts: Vec<&str> = (0..=SS_INTERNAL as c_int).map(|status| text(ss_status_text(status))).collect();
    let distinct: std::collections::HashSet<_> = texts.iter().collect();
    assert_eq!(distinct.len(), texts.len());
    assert_eq!(text(ss_status_text(99)), text(ss_status_text(-1)));
    assert_eq!(text(ss_version()), env!("CARGO_PKG_VERSION"));
}
