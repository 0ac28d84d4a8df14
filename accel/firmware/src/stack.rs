//! How much of the stack something uses: it is painted, and afterwards one looks how far the paint is gone.
//!
//! `cortex-m-rt` paints all of it before `main`.

use core::arch::asm;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::register::msp;
use cortex_m_rt::STACK_PAINT_VALUE;

unsafe extern "C" {
    // Of cortex-m-rt's linker script: the stack's lowest address, and the one above its highest.
    static _stack_end: u32;
    static _stack_start: u32;
}

/// Bytes below the stack pointer that are not painted: an exception's frame with the FPU's registers has 104.
const MARGIN: u32 = 256;

/// The lowest address that was found to be written to, by whatever.
static LOWEST: AtomicU32 = AtomicU32::new(u32::MAX);

/// Bytes that the whole program has used, from the start; none where it went down to the stack's end, and perhaps beyond.
pub(crate) fn deepest() -> Option<u32> {
    look();
    let lowest = LOWEST.load(Ordering::Relaxed);
    (lowest > ptr::addr_of!(_stack_end) as u32).then(|| ptr::addr_of!(_stack_start) as u32 - lowest)
}

/// The bytes of stack that something uses ([`MARGIN`] at least), from the caller's frame down, and what it returns.
#[inline(always)]
pub(crate) fn measure<T>(operation: impl FnOnce() -> T) -> (T, u32) {
    look();
    let top = msp::read();
    let (result, lowest) = below(operation);
    (result, top - lowest)
}

/// In a frame of its own, which counts, as it has those of the calls that the compiler puts into it. The lowest address.
#[inline(never)]
fn below<T>(operation: impl FnOnce() -> T) -> (T, u32) {
    paint();
    let result = operation();
    (result, look())
}

/// The lowest address that was written to since the stack was last painted.
fn look() -> u32 {
    let (mut at, start) = (ptr::addr_of!(_stack_end), ptr::addr_of!(_stack_start));
    // SAFETY: aligned words between two symbols of the linker script, which belong to the stack alone; whatever stands there is a number.
    // The reads are volatile, so that the compiler need not know of them.
    while at < start && unsafe { at.read_volatile() } == STACK_PAINT_VALUE {
        at = at.wrapping_add(1);
    }
    LOWEST.store(LOWEST.load(Ordering::Relaxed).min(at as u32), Ordering::Relaxed);
    at as u32
}

/// Paints what is free.
#[inline(never)]
fn paint() {
    let pointer = msp::read();
    // SAFETY: writes whole words from the stack's end up to `MARGIN` bytes below the stack pointer. No frame is there, and an exception
    // takes what it puts below the pointer away again. All registers are declared, as are memory and flags.
    unsafe {
        asm!(
            "2:",
            "cmp {at}, {to}",
            "bhs 3f",
            "str {paint}, [{at}], #4",
            "b 2b",
            "3:",
            at = inout(reg) ptr::addr_of!(_stack_end) => _,
            to = in(reg) pointer - MARGIN,
            paint = in(reg) STACK_PAINT_VALUE,
            options(nostack),
        );
    }
}
