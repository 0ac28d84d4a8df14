//! 32-bit ARM with UMAAL, which multiplies two words and adds two more: ARMv6 and later, of the Cortex-M those with DSP instructions.
//!
//! UMAAL's result is never too large for its two words: (2^32 − 1)² + 2 (2^32 − 1) = 2^64 − 1. So no flag is needed, and all sums here are
//! chains of it. What it takes is called a digit here, for crypto-bigint's words may have 64 bits: they have on ARMv7 where the compiler shows
//! the target's features, as nightly ones do. In memory, lowest byte first, that is the same. Digits go by blocks of 4.
//!
//! **A sweep** adds x y to t, where x is a block, and y has n digits. A window w of 4 digits goes along t. Each digit of y has a row of 4
//! UMAAL, which adds the products with x to the window, and the digit of t to its lowest; that one then leaves for t, and what is left is the
//! window for the next. **No carry is lost**: with w, x < 2^128, t, y < 2^32,
//! w + t + x y ≤ (2^128 − 1) + (2^32 − 1) + (2^128 − 1)(2^32 − 1) = 2^160 − 1,
//! 5 digits: the one that leaves and the 4 of the window. Within a row, what is carried from one UMAAL to the next is the higher half of its
//! result. x, the window, the digits of y and t and three addresses are in 13 of the 14 registers that there are.
//!
//! **The product** T = a b, n digits each: for every block of b a sweep over a, at rising addresses of T; at its end the window is the next 4
//! digits of T.
//!
//! **The square**: for every block A_J a sweep over the digits of a above it. Then T is doubled and the A_J² are added, which do not overlap.
//! A digit of that is 2 t + s + c ≤ 2 (2^32 − 1) + (2^32 − 1) + 2 < 3 · 2^32 for a carry c ≤ 2, so that the next carry is at most 2 again. The
//! sum is a² < 2^(64 n), so the last carry is zero.
//!
//! **The reduction** takes a block of T at a time. q_i = w_0 (−m^−1) mod 2^32 makes the row q_i × (lowest block of m) clear w_0, so 4 such rows
//! give a block q, kept in that place, and leave a window; the cleared digit is the zero that the next row's carry begins with. Then a sweep
//! goes over the other digits of m with x = q. Its last window is added to T with the carry of the sweep before: t + w + c ≤ 2 (2^128 − 1) + 1,
//! so that the carry is at most 1 again.
//!
//! **One subtraction makes it canonical**: (a b + q m) / R with a < R, b < m and q < R is below 2m (for a square, a² < m² < R m). That is at
//! most a carry of 1 above n digits; the difference to m is chosen by a mask.
//!
//! Addresses and loop counts depend on n alone, and nothing branches on data. UMAAL takes one cycle on a Cortex-M4, whatever it multiplies;
//! multiplications that end early for small numbers are the Cortex-M3's, which has no UMAAL. n is 8, 12, … 128; other lengths go to the
//! portable backend.

use core::arch::asm;
use core::slice;

use swarmseal_core::kernels::{Arithmetic, Portable};
use swarmseal_core::{LIMBS, Modulus, Word};

/// Digits of the largest number.
const DIGITS: usize = LIMBS * size_of::<Word>() / size_of::<u32>();

// A word is one digit or two, the lower first.
const _: () =
    assert!(DIGITS == 128 && align_of::<Word>() >= align_of::<u32>() && cfg!(target_endian = "little"));

/// Digits that are multiplied at a time.
const BLOCK: usize = 4;

/// A block of a number.
type Block = [u32; BLOCK];

/// The backend. Any CPU of the targets that it is compiled for can run it.
pub(crate) struct Umaal;

impl Arithmetic for Umaal {
    const NAME: &'static str = "umaal";

    fn mont_mul(m: &Modulus, a: &[Word], b: &[Word], out: &mut [Word]) {
        let n = digits(m.limbs()).len();
        if !in_blocks(n) {
            return Portable::mont_mul(m, a, b, out);
        }
        let (a, b) = (digits(a), digits(b));
        assert!(a.len() == n && b.len() == n);
        let mut sum = [0; 2 * DIGITS];
        let t = &mut sum[..2 * n];
        let mut carry = 0;
        for (j, block) in blocks(b).enumerate() {
            let t = &mut t[j * BLOCK..][..n + BLOCK];
            let (low, high) = t.split_at_mut(n);
            high.copy_from_slice(&sweep(block, a, low, [0; BLOCK]));
            carry = reduce(m, t, carry);
        }
        subtract_once(&t[n..], carry, m, out);
        wipe(t);
    }

    fn mont_sqr(m: &Modulus, a: &[Word], out: &mut [Word]) {
        let n = digits(m.limbs()).len();
        if !in_blocks(n) {
            return Portable::mont_sqr(m, a, out);
        }
        let a = digits(a);
        assert!(a.len() == n);
        let mut sum = [0; 2 * DIGITS];
        let t = &mut sum[..2 * n];
        for (j, block) in blocks(a).enumerate() {
            let above = &a[(j + 1) * BLOCK..];
            let (low, high) = t[(2 * j + 1) * BLOCK..].split_at_mut(above.len());
            high[..BLOCK].copy_from_slice(&sweep(block, above, low, [0; BLOCK]));
        }
        double_and_add_squares(a, t);
        let mut carry = 0;
        for j in 0..n / BLOCK {
            carry = reduce(m, &mut t[j * BLOCK..][..n + BLOCK], carry);
        }
        subtract_once(&t[n..], carry, m, out);
        wipe(t);
    }
}

/// Whether the kernels work on numbers of that many digits.
const fn in_blocks(n: usize) -> bool {
    n.is_multiple_of(BLOCK) && n >= 2 * BLOCK && n <= DIGITS
}

/// The digits of a number, least significant first.
fn digits(words: &[Word]) -> &[u32] {
    // SAFETY: the same bytes, which any digit may have; a word's alignment is enough for a digit, as is asserted above.
    unsafe { slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words) / size_of::<u32>()) }
}

/// As [`digits`], to be written.
fn digits_mut(words: &mut [Word]) -> &mut [u32] {
    // SAFETY: as in `digits`; any bytes are a word.
    unsafe { slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words) / size_of::<u32>()) }
}

/// The blocks of a number.
fn blocks(a: &[u32]) -> impl Iterator<Item = &Block> {
    a.as_chunks().0.iter()
}

/// Multiplies x by the digit in lr, and adds to `$d0`…`$d3`, each with what `$carry` carries to it.
macro_rules! products {
    ($carry:literal $d0:literal $d1:literal $d2:literal $d3:literal) => {
        concat!(
            "umaal ",
            $d0,
            ", ",
            $carry,
            ", r4, lr\n",
            "umaal ",
            $d1,
            ", ",
            $carry,
            ", r5, lr\n",
            "umaal ",
            $d2,
            ", ",
            $carry,
            ", r6, lr\n",
            "umaal ",
            $d3,
            ", ",
            $carry,
            ", r7, lr\n",
        )
    };
}

/// A row: y from `[r1, #$at]`, t at `[r3, #$at]`, with `$back` an exclamation mark where the addresses go up by that. The window is `$w0`…`$w3`
/// before, and `$w1`…`$w3`, `$w0` after: what was in `$w0` leaves with t, and it carries from one product to the next. The loads stand side by
/// side, for the second of two takes a Cortex-M4 one cycle instead of two.
macro_rules! row {
    ($at:literal $back:literal $w0:literal $w1:literal $w2:literal $w3:literal) => {
        concat!(
            "ldr r12, [r3, #",
            $at,
            "]\n",
            "ldr lr, [r1, #",
            $at,
            "]",
            $back,
            "\n",
            products!($w0 "r12" $w1 $w2 $w3),
            "str r12, [r3, #",
            $at,
            "]",
            $back,
            "\n",
        )
    };
}

/// Turns of four rows, after which every register has its first part again, from y at r1 up to r2, with t at r3. All three addresses are one
/// digit behind in them, so that the last row of a turn takes them on; at the end r3 is one behind what is above the last.
macro_rules! turns {
    () => {
        concat!(
            "sub r1, r1, #4\n",
            "sub r2, r2, #4\n",
            "sub r3, r3, #4\n",
            "2:\n",
            row!("4" "" "r8" "r9" "r10" "r11"),
            row!("8" "" "r9" "r10" "r11" "r8"),
            row!("12" "" "r10" "r11" "r8" "r9"),
            row!("16" "!" "r11" "r8" "r9" "r10"),
            "cmp r1, r2\n",
            "bne 2b\n",
        )
    };
}

/// `t += x y + window`, but for the digits above `t`, which are returned. `y` and `t` have equally many digits, whole blocks.
#[inline(always)]
fn sweep(x: &Block, y: &[u32], t: &mut [u32], mut window: Block) -> Block {
    assert!(y.len() == t.len() && y.len().is_multiple_of(BLOCK));
    let ends = y.as_ptr_range();
    // SAFETY: reads the block x, reads and writes the window, and the turns, one per block of `y`, read it, and read and write `t`, which has as
    // many. Each turn ends with the window in the registers that it began with. r4…r11, r12 and lr are kept on the stack, of 40 bytes, where
    // r12 is at 32, and restored; the other registers and the flags are declared.
    unsafe {
        asm!(
            "push {{r4, r5, r6, r7, r8, r9, r10, r11, r12, lr}}",
            "ldm r0, {{r4, r5, r6, r7}}",
            "ldm r12, {{r8, r9, r10, r11}}",
            "cmp r1, r2",
            "beq 3f",
            turns!(),
            "ldr r12, [sp, #32]",
            "3:",
            "stm r12, {{r8, r9, r10, r11}}",
            "pop {{r4, r5, r6, r7, r8, r9, r10, r11, r12, lr}}",
            in("r0") x,
            inout("r1") ends.start => _,
            inout("r2") ends.end => _,
            inout("r3") t.as_mut_ptr() => _,
            in("r12") &mut window,
        );
    }
    window
}

/// A row that clears its lowest digit: x = `$w0` × r0, kept at `[r3, #$at]`. The window is `$w0`…`$w3` before, and `$w1`…`$w3`, `$carry` after,
/// and `$w0` is zero. `$carry` is zero before.
macro_rules! clearing_row {
    ($at:literal $carry:literal $w0:literal $w1:literal $w2:literal $w3:literal) => {
        concat!(
            "mul lr, ",
            $w0,
            ", r0\n",
            "str lr, [r3, #",
            $at,
            "]\n",
            products!($carry $w0 $w1 $w2 $w3),
        )
    };
}

/// Adds the multiple of `m` to `t + carry 2^(32 n)` that clears its lowest block, whose place keeps the factor. `t` has n + 4 digits, and the
/// carry is 0 or 1, as is the one out.
#[inline(always)]
fn reduce(m: &Modulus, t: &mut [u32], mut carry: u32) -> u32 {
    let p = digits(m.limbs());
    assert!(in_blocks(p.len()) && t.len() == p.len() + BLOCK);
    let ends = p.as_ptr_range();
    // SAFETY: reads the lowest block of p and of t, and writes the latter; then the turns, one per other block of p, of which there is one at
    // least, read it, and read and write as much of t; in the end the block of t above that is read and written: n + 4 digits. r4…r11, r12 and
    // lr are kept on the stack and restored; the other registers and the flags are declared.
    unsafe {
        asm!(
            "push {{r4, r5, r6, r7, r8, r9, r10, r11, r12, lr}}",
            "ldm r1!, {{r4, r5, r6, r7}}",
            "ldm r3, {{r9, r10, r11, r12}}",
            "mov r8, #0",
            clearing_row!("0" "r8" "r9" "r10" "r11" "r12"),
            clearing_row!("4" "r9" "r10" "r11" "r12" "r8"),
            clearing_row!("8" "r10" "r11" "r12" "r8" "r9"),
            clearing_row!("12" "r11" "r12" "r8" "r9" "r10"),
            // x = q, and the window is in its registers.
            "ldm r3!, {{r4, r5, r6, r7}}",
            turns!(),
            "add r3, r3, #4",
            "ldm r3, {{r4, r5, r6, r7}}",
            "ldr r12, [sp, #32]",
            "lsrs r12, r12, #1", // to the flag
            "adcs r4, r4, r8",
            "adcs r5, r5, r9",
            "adcs r6, r6, r10",
            "adcs r7, r7, r11",
            "stm r3, {{r4, r5, r6, r7}}",
            "mov r0, #0",
            "adc r0, r0, #0",
            "pop {{r4, r5, r6, r7, r8, r9, r10, r11, r12, lr}}",
            inout("r0") m.neg_inv() as u32 => carry,
            inout("r1") ends.start => _,
            inout("r2") ends.end => _,
            inout("r3") t.as_mut_ptr() => _,
            in("r12") carry,
        );
    }
    carry
}

/// `t = 2 t + Σ A_J² 2^(256 J)` for the blocks A_J of `a`. `t` has twice the digits of `a`.
#[inline(always)]
fn double_and_add_squares(a: &[u32], t: &mut [u32]) {
    let mut carry = 0;
    for (block, t) in blocks(a).zip(t.as_chunks_mut::<{ 2 * BLOCK }>().0) {
        let mut low = [0; BLOCK];
        let high = sweep(block, block, &mut low, [0; BLOCK]);
        for (digit, square) in t.iter_mut().zip(low.into_iter().chain(high)) {
            let wide = 2 * u64::from(*digit) + u64::from(square) + carry;
            (*digit, carry) = (wide as u32, wide >> 32);
        }
    }
}

/// `out = carry‖sum`, less m if that is at least m. Constant-time.
///
/// Bounds: `carry‖sum` < 2m.
#[inline(always)]
fn subtract_once(sum: &[u32], carry: u32, m: &Modulus, out: &mut [Word]) {
    let (m, out) = (digits(m.limbs()), digits_mut(out));
    assert!(out.len() == sum.len() && m.len() == sum.len());
    let mut borrow = 0;
    for ((out, &sum), &m) in out.iter_mut().zip(sum).zip(m) {
        let wide = i64::from(sum) - i64::from(m) + borrow;
        (*out, borrow) = (wide as u32, wide >> 32);
    }
    // All ones if the difference is negative: a borrow that the carry does not cover.
    let mut keep = ((i64::from(carry) + borrow) >> 32) as u32;
    // SAFETY: no instruction. The compiler cannot know that the mask has two values only.
    unsafe { asm!("/* {} */", inout(reg) keep, options(nomem, nostack, preserves_flags)) };
    for (digit, &kept) in out.iter_mut().zip(sum) {
        *digit ^= keep & (*digit ^ kept);
    }
}

/// Zeroes digits in a way that the compiler does not take out.
#[inline(always)]
fn wipe(t: &mut [u32]) {
    t.fill(0);
    // SAFETY: no instruction. It may read the digits, for all that the compiler knows, so the zeroes must be there.
    unsafe { asm!("/* {} */", in(reg) t.as_ptr(), options(nostack, preserves_flags)) };
}
