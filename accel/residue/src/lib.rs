//! An allocator that looks at each block of memory that is given back, for bytes that should not be in it any more.
//!
//! A test makes it the program's own (`#[global_allocator]`), names secrets with [`residues`], and lets work be done: what is dropped
//! meanwhile without being overwritten is found and counted, copies that a growing buffer leaves behind among it. It sees the heap
//! alone. What moves leaves copies on the stack, about which Rust promises nothing; a program overwrites its stack soon, and no check
//! is made of it. With `SWARMSEAL_RESIDUE=1` every finding is printed with the calls that led to it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::arch::asm;
use std::backtrace::Backtrace;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of a secret that are looked for.
pub const NEEDLE: usize = 16;
const NEEDLES: usize = 4;

/// The system's allocator, with eyes.
#[derive(Debug)]
pub struct Watch;

static LOOKING: AtomicBool = AtomicBool::new(false);
static FOUND: AtomicUsize = AtomicUsize::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static TELLING: AtomicBool = AtomicBool::new(false);
static SOUGHT: [[AtomicU64; 2]; NEEDLES] = [const { [const { AtomicU64::new(0) }; 2] }; NEEDLES];
/// The numbers above are of one search.
static SEARCH: Mutex<()> = Mutex::new(());

/// How many blocks `work`, on whatever threads, gave back to the system with the first [`NEEDLE`] bytes of one of `secrets` in them.
/// At most four secrets; the callers wait for one another. Panics where a secret is shorter, or all one byte.
pub fn residues(secrets: &[&[u8]], work: impl FnOnce()) -> usize {
    let _one = SEARCH.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(secrets.len() <= NEEDLES, "so many are not looked for");
    for (secret, sought) in secrets.iter().zip(&SOUGHT) {
        let bytes = secret.first_chunk::<NEEDLE>().expect("long enough to be nothing else");
        assert!(bytes.iter().any(|byte| *byte != bytes[0]), "such bytes may be anywhere");
        for (half, sought) in bytes.as_chunks::<8>().0.iter().zip(sought) {
            sought.store(u64::from_ne_bytes(*half), Ordering::Relaxed);
        }
    }
    COUNT.store(secrets.len(), Ordering::Relaxed);
    FOUND.store(0, Ordering::Relaxed);
    TELLING.store(std::env::var_os("SWARMSEAL_RESIDUE").is_some(), Ordering::Relaxed);
    LOOKING.store(true, Ordering::SeqCst);
    work();
    LOOKING.store(false, Ordering::SeqCst);
    FOUND.load(Ordering::SeqCst)
}

fn look(block: &[u8]) {
    let halves = |bytes: &[u8; NEEDLE]| {
        let [low, high] = [0, 8].map(|at| {
            let mut half = [0; 8];
            half.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(half)
        });
        (low, high)
    };
    let sought = &SOUGHT[..COUNT.load(Ordering::Relaxed)];
    let matches = |window: &[u8]| {
        let Some((low, high)) = window.first_chunk().map(halves) else { return false };
        sought.iter().any(|[a, b]| a.load(Ordering::Relaxed) == low && b.load(Ordering::Relaxed) == high)
    };
    if block.windows(NEEDLE).any(matches) {
        FOUND.fetch_add(1, Ordering::SeqCst);
        if TELLING.load(Ordering::Relaxed) && LOOKING.swap(false, Ordering::SeqCst) {
            eprintln!("{} bytes were given back:\n{}", block.len(), Backtrace::force_capture());
            LOOKING.store(true, Ordering::SeqCst);
        }
    }
}

// SAFETY: every call goes to the system's allocator as it is, which keeps the trait's promises; what is done besides reads a block
// that the caller is giving back and cannot panic (windows and first_chunk check lengths). Only to tell of a finding does it allocate,
// when nothing is looked at.
unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise for the layout is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if LOOKING.load(Ordering::Relaxed) {
            // Bytes that were never written are none that Rust lets us read. The assembler may have written them all, as far as the
            // compiler knows: it is told nothing to the contrary.
            // SAFETY: an empty text touches no register and no memory.
            unsafe { asm!("/* {} */", in(reg) block, options(nostack, preserves_flags)) };
            // SAFETY: the caller gives back a whole block of this layout, and nobody else has it any more.
            look(unsafe { slice::from_raw_parts(block, layout.size()) });
        }
        // SAFETY: the caller's promises for the block and its layout are the system's, whose block it is.
        unsafe { System.dealloc(block, layout) }
    }

    // `realloc` is the trait's own: a new block, a copy, and the old one given back through `dealloc`, where it is looked at.
}

/// The first [`NEEDLE`] bytes in a value's own memory that look random: a secret that lies in it, where it holds one. Not what it
/// points to.
pub fn needle_in<T>(value: &T) -> Option<[u8; NEEDLE]> {
    let start = std::ptr::from_ref(value).cast::<u8>();
    // SAFETY: as in `dealloc`: an empty text touches nothing, and padding may have been written for all that the compiler knows.
    unsafe { asm!("/* {} */", in(reg) start, options(nostack, preserves_flags)) };
    // SAFETY: the value's own bytes, borrowed as long as the slice lives, which ends in this function.
    let bytes = unsafe { slice::from_raw_parts(start, size_of::<T>()) };
    let random = |window: &&[u8; NEEDLE]| {
        let different = (0..NEEDLE).filter(|&i| !window[..i].contains(&window[i])).count();
        different > 11
    };
    bytes.as_chunks().0.iter().find(random).copied()
}
