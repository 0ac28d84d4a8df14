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

/// Bytes that are always the same.
unsafe extern "C" fn fixed(context: *mut c_void, out: *mut u8, length: usize) -> c_int {
    // SAFETY: the library lends so many bytes; the context is a byte, or null.
    unsafe {
        let Some(&byte) = context.cast::<u8>().as_ref() else { return 1 };
        out.write_bytes(byte, length);
    }
    0
}

#[test]
fn a_piece_goes_all_the_way_and_nothing_is_allocated() {
    let mut memory = Memory::new();
    let params = memory.params();
    let (master, torrent) = ([1; SS_ID_SIZE], [2; SS_ID_SIZE]);
    let mut keys = [[0; WIDTH]; 8];
    let [s_j, s_k, y_j, y_k, encryption, rekey, entry, opened] = &mut keys;
    let mut piece: Vec<u8> = (0..PIECE).map(|i| i as u8).collect();
    let content = piece.clone();
    let mut payload = 0;
    COUNT.with(|count| count.set(0));
    // SAFETY: every buffer has the length that is said beside it.
    unsafe {
        for (seed, (s, y)) in [(3_u8, (&mut *s_j, &mut *y_j)), (4, (&mut *s_k, &mut *y_k))] {
            let context = (&raw const seed).cast_mut().cast();
            assert_eq!(ss_secret_key_generate(params, Some(fixed), context, s.as_mut_ptr(), WIDTH), SS_OK);
            assert_eq!(ss_public_key(params, s.as_ptr(), WIDTH, y.as_mut_ptr(), WIDTH), SS_OK);
            assert_eq!(ss_public_key_check(params, y.as_ptr(), WIDTH), SS_OK);
        }
        let (place, secret) = (piece.as_mut_ptr(), [5; SS_ID_SIZE]);
        assert_eq!(ss_package(params, secret.as_ptr(), torrent.as_ptr(), 7, place, PIECE), SS_OK);
        let of = |y: &[u8; WIDTH]| (master.as_ptr(), torrent.as_ptr(), y.as_ptr());
        let (m, t, y) = of(y_j);
        let out = encryption.as_mut_ptr();
        assert_eq!(ss_encryption_key(params, m, t, y, WIDTH, 1, 7, out, WIDTH), SS_OK);
        assert_eq!(ss_encrypt_piece(params, encryption.as_ptr(), WIDTH, place, PIECE), SS_OK);
        let party = |y: &[u8; WIDTH]| ss_party { master_key: m, public_key: y.as_ptr(), epoch: 1 };
        assert_eq!(ss_rekey(params, t, &party(y_j), &party(y_k), 7, rekey.as_mut_ptr(), WIDTH), SS_OK);
        assert_eq!(ss_check_piece(params, place, PIECE, null_mut()), SS_OK);
        assert_eq!(ss_re_encrypt_piece(params, rekey.as_ptr(), WIDTH, place, PIECE), SS_OK);
        let (m, t, y) = of(y_k);
        let out = entry.as_mut_ptr();
        assert_eq!(ss_decryption_key(params, m, t, y, WIDTH, 1, 7, out, WIDTH), SS_OK);
        let out = opened.as_mut_ptr();
        assert_eq!(ss_open_key(params, s_k.as_ptr(), WIDTH, entry.as_ptr(), WIDTH, out, WIDTH), SS_OK);
        assert_eq!(ss_decrypt_piece(params, opened.as_ptr(), WIDTH, place, PIECE), SS_OK);
        assert_eq!(ss_unpackage(params, place, PIECE, &mut payload), SS_OK);
    }
    assert_eq!(COUNT.with(Cell::get), 0, "something was allocated");
    assert_eq!((payload, &piece[..payload]), (PIECE - 32, &content[..PIECE - 32]));
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
        assert_eq!(ss_subscriber_id(params, null(), key.as_ptr(), WIDTH, out.as_mut_ptr()), SS_NULL);
        assert_eq!(ss_rekey(params, key.as_ptr(), null(), null(), 0, out.as_mut_ptr(), WIDTH), SS_NULL);
        let secret = out.as_mut_ptr();
        assert_eq!(ss_secret_key_generate(params, None, null_mut(), secret, WIDTH), SS_NULL);
        assert_eq!(ss_secret_key_generate(params, Some(fixed), null_mut(), secret, WIDTH), SS_NO_RANDOM);
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
