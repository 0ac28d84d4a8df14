//! AArch64: MUL and UMULH, which leave the flags alone, and ADCS, one carry chain at a time.
//!
//! The rows, sweeps and their order are those of the x86-64 kernel for ADX, `adx.rs`. There are registers enough for a
//! row's block y besides its window: a sweep loads y once. A row x y is added in two chains, its high words with t
//! below them, then its low words; both last carries go to the top word.
//!
//! **Rows lose no carry.** With the window w < 2^512, t < 2^64, x < 2^64 and y < 2^512:
//! w + t + x y ≤ (2^512 − 1) + (2^64 − 1) + (2^64 − 1)(2^512 − 1) = 2^576 − 1,
//! 9 words: the word that leaves and the 8 of the window. Partial sums are no larger.
//!
//! **The product** T = a b, `len` = 8 k words each: for every block of b a sweep of the rows of a, at rising addresses
//! of T; at its end the window is the next 8 words of T.
//!
//! **The square**: for every block y_J the rows below it, x ∈ y_0 … y_(J−1), then the products within the block above
//! its diagonal: row i is y_i (y_(i+1) … y_7), at word 2 i + 1. The sum is below 2^(64 (i + 8)) before it (the window is,
//! at i = 0), and the row is at most (2^64 − 1)(2^(64 (7 − i)) − 1) 2^(64 (2 i + 1)) < 2^(64 (i + 9)) − 2^(64 (i + 8)), so the
//! sum is below 2^(64 (i + 9)) after it: each row adds one word, and after row 6 the 16th is zero. Then T is doubled and
//! the squares of the words are added; the sum is a² < 2^(128 len), so the last carries are zero.
//!
//! **The reduction** takes 8 words of T at a time. q_i = w_0 (−m^−1) mod 2^64 makes the row q_i × (lowest block of m)
//! clear w_0, so 8 such rows clear the 8 words, whose place keeps q; the sweep goes on with x from the other blocks of
//! m and y = q, and its last window is added to T with the carry of the sweep before.
//!
//! **One subtraction makes it canonical**: (a b + q m) / R with a < R, b < m and q < R is below 2m (for a square,
//! a² < m² < R m). That is at most a carry of 1 above `len` words; the difference to m is chosen by a mask.
//!
//! **Many blocks by one factor** (`fixed.rs`) are summed by tiles of 8 columns, in 10 registers that stay where they are. Its rows are
//! added to them in two chains each.
//!
//! Addresses and loop counts depend on `len` alone, and nothing branches on data. `len` is 16, 24, … 64; other
//! lengths go to the portable backend.

use core::arch::asm;
use core::mem::MaybeUninit;

use swarmseal_core::kernels::{Arithmetic, ByteOrder, Portable};
use swarmseal_core::{LIMBS, Modulus, Word};

use crate::fixed::{self, Sum, Tiles};
use crate::limbs::{BLOCK, in_blocks, subtract_once, wipe};

/// The backend. Any AArch64 CPU can run it.
pub(crate) struct Umulh;

impl Arithmetic for Umulh {
    const NAME: &'static str = "umulh";

    fn mont_mul(m: &Modulus, a: &[Word], b: &[Word], out: &mut [Word]) {
        let n = m.len();
        if !in_blocks(n) {
            return Portable::mont_mul(m, a, b, out);
        }
        assert!(a.len() == n && b.len() == n && out.len() == n);
        let mut sum = MaybeUninit::<[Word; 2 * LIMBS]>::uninit();
        let t = sum.as_mut_ptr().cast::<Word>();
        // SAFETY: `t` has room for 2 n ≤ 2 LIMBS words. The first sweep reads n of them, set here, and sets the next 8;
        // each sweep after it starts 8 words higher, so reads what is set and sets 8 more: 2 n in the end.
        // a, b and m have n words, in_blocks(n).
        unsafe {
            t.write_bytes(0, n);
            let mut carry = 0;
            for j in (0..n).step_by(BLOCK) {
                sweep(b.as_ptr().add(j), a.as_ptr(), n / BLOCK, t.add(j));
                carry = reduce(m, t.add(j), carry);
            }
            subtract_once(t.add(n), carry, m.limbs(), out);
            wipe(t, 2 * n);
        }
    }

    fn mont_sqr(m: &Modulus, a: &[Word], out: &mut [Word]) {
        let n = m.len();
        if !in_blocks(n) {
            return Portable::mont_sqr(m, a, out);
        }
        assert!(a.len() == n && out.len() == n);
        let mut sum = MaybeUninit::<[Word; 2 * LIMBS]>::uninit();
        let t = sum.as_mut_ptr().cast::<Word>();
        // SAFETY: `t` has room for 2 n ≤ 2 LIMBS words. The calls for block j set the words up to 2 j + 16 (exclusive),
        // and read j ≤ i < 2 j of them, which the calls before have set. a and m have n words, in_blocks(n).
        unsafe {
            for j in (0..n).step_by(BLOCK) {
                half_square(a.as_ptr().add(j), a.as_ptr(), j / BLOCK, t.add(j));
            }
            double_and_add_squares(a, t);
            let mut carry = 0;
            for j in (0..n).step_by(BLOCK) {
                carry = reduce(m, t.add(j), carry);
            }
            subtract_once(t.add(n), carry, m.limbs(), out);
            wipe(t, 2 * n);
        }
    }

    fn mul_blocks(m: &Modulus, factor: &[Word], order: ByteOrder, blocks: &mut [u8]) {
        fixed::mul_blocks::<Self>(m, factor, order, blocks);
    }
}

impl Tiles for Umulh {
    const COLUMNS: usize = BLOCK;

    fn add_rows(x: &[Word], y: &[Word], sum: &mut Sum) {
        assert!(!x.is_empty() && y.len() == BLOCK * x.len());
        // SAFETY: at least one word at `x`, and as many rows of 8 at `y`.
        unsafe { add_rows(x, y, sum) }
    }
}

// Registers: the window x0…x7, y x8…x15, temporaries x16, x17, x20…x24, x x25, the address of the next x x26, the
// address of t x27, the count of blocks x28, −m^−1 x30.

/// Chains of a row, after `$first` has the sum of the lowest window word and t: the products of x25 and y, to the window
/// `$w0`…`$w7`, whose lowest word leaves by `$leave`; then the window is `$w1`…`$w7`, `$w0`.
macro_rules! chains {
    (
        [$($first:literal)*] [$($leave:literal)*]
        $w0:literal $w1:literal $w2:literal $w3:literal $w4:literal $w5:literal $w6:literal $w7:literal
    ) => {
        concat!(
            "umulh x16, x8, x25\n",
            "umulh x17, x9, x25\n",
            "umulh x20, x10, x25\n",
            "umulh x21, x11, x25\n",
            $($first,)*
            "umulh x22, x12, x25\n",
            "adcs ", $w1, ", ", $w1, ", x16\n",
            "umulh x23, x13, x25\n",
            "adcs ", $w2, ", ", $w2, ", x17\n",
            "umulh x24, x14, x25\n",
            "adcs ", $w3, ", ", $w3, ", x20\n",
            "mul x16, x8, x25\n",
            "adcs ", $w4, ", ", $w4, ", x21\n",
            "umulh x21, x15, x25\n",
            "adcs ", $w5, ", ", $w5, ", x22\n",
            "mul x17, x9, x25\n",
            "adcs ", $w6, ", ", $w6, ", x23\n",
            "mul x20, x10, x25\n",
            "adcs ", $w7, ", ", $w7, ", x24\n",
            "mul x22, x11, x25\n",
            "adc x21, x21, xzr\n",
            "mul x23, x12, x25\n",
            "adds ", $w0, ", ", $w0, ", x16\n",
            "mul x24, x13, x25\n",
            $($leave,)*
            "adcs ", $w1, ", ", $w1, ", x17\n",
            "mul x16, x14, x25\n",
            "adcs ", $w2, ", ", $w2, ", x20\n",
            "mul x17, x15, x25\n",
            "adcs ", $w3, ", ", $w3, ", x22\n",
            "adcs ", $w4, ", ", $w4, ", x23\n",
            "adcs ", $w5, ", ", $w5, ", x24\n",
            "adcs ", $w6, ", ", $w6, ", x16\n",
            "adcs ", $w7, ", ", $w7, ", x17\n",
            "adc ", $w0, ", x21, xzr\n",
        )
    };
}

/// A row: x from `[x26]`, y in its registers, t at `[x27]`. Both addresses go up.
macro_rules! row {
    ($w0:literal $($w:literal)+) => {
        concat!(
            "ldr x25, [x26], #8\n",
            "ldr x24, [x27]\n",
            chains!(["adds " $w0 ", " $w0 ", x24\n"] ["str " $w0 ", [x27], #8\n"] $w0 $($w)+),
        )
    };
}

/// A row that clears its lowest word: x = `$w0` × x30, kept at `[x27]`. The address goes up.
macro_rules! clearing_row {
    ($w0:literal $($w:literal)+) => {
        concat!(
            "mul x25, ", $w0, ", x30\n",
            "str x25, [x27], #8\n",
            chains!(["cmn xzr, xzr\n"] [] $w0 $($w)+),
        )
    };
}

/// Eight rows, after which every register has its first part again.
macro_rules! eight {
    ($row:ident) => {
        concat!(
            $row!("x0" "x1" "x2" "x3" "x4" "x5" "x6" "x7"),
            $row!("x1" "x2" "x3" "x4" "x5" "x6" "x7" "x0"),
            $row!("x2" "x3" "x4" "x5" "x6" "x7" "x0" "x1"),
            $row!("x3" "x4" "x5" "x6" "x7" "x0" "x1" "x2"),
            $row!("x4" "x5" "x6" "x7" "x0" "x1" "x2" "x3"),
            $row!("x5" "x6" "x7" "x0" "x1" "x2" "x3" "x4"),
            $row!("x6" "x7" "x0" "x1" "x2" "x3" "x4" "x5"),
            $row!("x7" "x0" "x1" "x2" "x3" "x4" "x5" "x6"),
        )
    };
}

/// y from `[$from]`.
macro_rules! load_y {
    ($from:literal) => {
        concat!(
            "ldp x8, x9, [",
            $from,
            "]\n",
            "ldp x10, x11, [",
            $from,
            ", #16]\n",
            "ldp x12, x13, [",
            $from,
            ", #32]\n",
            "ldp x14, x15, [",
            $from,
            ", #48]\n",
        )
    };
}

/// The window to zero.
macro_rules! clear_window {
    () => {
        "mov x0, xzr
         mov x1, xzr
         mov x2, xzr
         mov x3, xzr
         mov x4, xzr
         mov x5, xzr
         mov x6, xzr
         mov x7, xzr"
    };
}

/// `t[..n] += x y` for n = 8 `blocks`, where `t[n..n + 8]` is set to the words above.
///
/// # Safety
/// Readable: 8 words at `y`, n at `x`; n initialized and n + 8 writable words at `t`, which overlaps neither;
/// `blocks` not zero.
unsafe fn sweep(y: *const Word, x: *const Word, blocks: usize, t: *mut Word) {
    // SAFETY: the loop's turns read y[..8] and x[..n], read and write t[..n], and the end writes t[n..n + 8]: what the
    // caller grants. All registers are declared.
    unsafe {
        asm!(
            load_y!("x30"),
            clear_window!(),
            "2:",
            eight!(row),
            "sub x28, x28, #1",
            "cbnz x28, 2b",
            "stp x0, x1, [x27]",
            "stp x2, x3, [x27, #16]",
            "stp x4, x5, [x27, #32]",
            "stp x6, x7, [x27, #48]",
            out("x0") _, out("x1") _, out("x2") _, out("x3") _,
            out("x4") _, out("x5") _, out("x6") _, out("x7") _,
            out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _,
            out("x16") _, out("x17") _, out("x20") _, out("x21") _,
            out("x22") _, out("x23") _, out("x24") _, out("x25") _,
            inout("x26") x => _,
            inout("x27") t => _,
            inout("x28") blocks => _,
            inout("x30") y => _,
            options(nostack),
        );
    }
}

/// `sum += Σ x_i y_i`, where `y` has a row of 8 words for each word of `x`, the last row first. A product's highest word is below
/// 2^64 − 1, so it takes the last carry of the low words without one of its own.
///
/// # Safety
/// `x` not empty, and 8 times as many words at `y`.
unsafe fn add_rows(x: &[Word], y: &[Word], sum: &mut Sum) {
    let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9] = sum;
    // SAFETY: the loop's turns, one per word of `x`, read it, at rising addresses, and a row of `y` of 8 words, from the last one
    // down to the first: what the caller grants. The sum is in registers. All registers are declared.
    unsafe {
        asm!(
            "2:",
            "ldr x25, [x26], #8",
            "ldp x8, x9, [x27, #-64]!",
            "ldp x10, x11, [x27, #16]",
            "ldp x12, x13, [x27, #32]",
            "ldp x14, x15, [x27, #48]",
            "mul x16, x8, x25",
            "mul x17, x9, x25",
            "mul x20, x10, x25",
            "mul x21, x11, x25",
            "adds x0, x0, x16",
            "mul x22, x12, x25",
            "adcs x1, x1, x17",
            "mul x23, x13, x25",
            "adcs x2, x2, x20",
            "mul x16, x14, x25",
            "adcs x3, x3, x21",
            "mul x17, x15, x25",
            "adcs x4, x4, x22",
            "umulh x20, x8, x25",
            "adcs x5, x5, x23",
            "umulh x21, x9, x25",
            "adcs x6, x6, x16",
            "umulh x22, x10, x25",
            "adcs x7, x7, x17",
            "umulh x23, x15, x25",
            "umulh x16, x11, x25",
            "adc x23, x23, xzr",
            "umulh x17, x12, x25",
            "adds x1, x1, x20",
            "umulh x20, x13, x25",
            "adcs x2, x2, x21",
            "umulh x21, x14, x25",
            "adcs x3, x3, x22",
            "adcs x4, x4, x16",
            "adcs x5, x5, x17",
            "adcs x6, x6, x20",
            "adcs x7, x7, x21",
            "adcs x30, x30, x23",
            "adc x24, x24, xzr",
            "sub x28, x28, #1",
            "cbnz x28, 2b",
            inout("x0") *s0, inout("x1") *s1, inout("x2") *s2, inout("x3") *s3,
            inout("x4") *s4, inout("x5") *s5, inout("x6") *s6, inout("x7") *s7,
            inout("x30") *s8, inout("x24") *s9,
            out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _,
            out("x16") _, out("x17") _, out("x20") _, out("x21") _,
            out("x22") _, out("x23") _, out("x25") _,
            inout("x26") x.as_ptr() => _,
            inout("x27") y.as_ptr_range().end => _,
            inout("x28") x.len() => _,
            options(nostack, readonly),
        );
    }
}

/// Adds the multiple of `m` to `t[..n + 8] + carry 2^(64 n)` that clears `t[..8]`, whose place keeps the factor.
/// The carry out.
///
/// # Safety
/// `n + 8` initialized, writable words at `t` for the `n` words of `m`; `n` a multiple of 8, at least 16.
unsafe fn reduce(m: &Modulus, t: *mut Word, carry: Word) -> Word {
    let n = m.len();
    let mut window: [Word; BLOCK] = [0; BLOCK];
    let [w0, w1, w2, w3, w4, w5, w6, w7] = &mut window;
    // SAFETY: the clearing rows read m[..8] and t[..8] and write t[..8]. The loop's n/8 − 1 turns read m[8..n] and t[..8],
    // and read and write t[8..n]: what the caller grants. All registers are declared.
    unsafe {
        asm!(
            load_y!("x26"),
            "add x26, x26, #64",
            "ldp x0, x1, [x27]",
            "ldp x2, x3, [x27, #16]",
            "ldp x4, x5, [x27, #32]",
            "ldp x6, x7, [x27, #48]",
            eight!(clearing_row),
            "sub x30, x27, #64",
            load_y!("x30"), // y = q
            "2:",
            eight!(row),
            "sub x28, x28, #1",
            "cbnz x28, 2b",
            out("x0") *w0, out("x1") *w1, out("x2") *w2, out("x3") *w3,
            out("x4") *w4, out("x5") *w5, out("x6") *w6, out("x7") *w7,
            out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _,
            out("x16") _, out("x17") _, out("x20") _, out("x21") _,
            out("x22") _, out("x23") _, out("x24") _, out("x25") _,
            inout("x26") m.limbs().as_ptr() => _,
            inout("x27") t => _,
            inout("x28") n / BLOCK - 1 => _,
            inout("x30") m.neg_inv() => _,
            options(nostack),
        );
    }
    let mut carry = carry;
    for (i, w) in window.into_iter().enumerate() {
        // SAFETY: the caller grants t[n..n + 8].
        let word = unsafe { &mut *t.add(n + i) };
        let wide = u128::from(*word) + u128::from(w) + u128::from(carry);
        (*word, carry) = (wide as Word, (wide >> Word::BITS) as Word);
    }
    carry
}

/// A row of the products above a block's diagonal: `$x` × each `$y`, low words to `$lo` and high words to `$hi`, by way
/// of `$k`. The last `$hi` is `$top`, a word that the row begins.
macro_rules! triangle_row {
    ($x:literal $top:literal $($y:literal $lo:literal $hi:literal $k:literal,)+) => {
        concat!(
            $("mul ", $k, ", ", $x, ", ", $y, "\n",)+
            "cmn xzr, xzr\n", // the carry clear
            $("adcs ", $lo, ", ", $lo, ", ", $k, "\n",)+
            $("umulh ", $k, ", ", $x, ", ", $y, "\n",)+
            "adc ", $top, ", xzr, xzr\n",
            "cmn xzr, xzr\n",
            $("adcs ", $hi, ", ", $hi, ", ", $k, "\n",)+
        )
    };
}

/// Of the rows of the square those of block `y` = a[j..j + 8] for j = 8 `below`, `t` being T + j words: all products with
/// words below the block, and those within it above the diagonal.
///
/// # Safety
/// Readable: j + 8 words at `a`, and `y` = `a` + j. Writable: j + 16 words at `t`, which overlaps neither, and of which
/// j are initialized.
unsafe fn half_square(y: *const Word, a: *const Word, below: usize, t: *mut Word) {
    // SAFETY: the loop's turns read y[..8] and a[..j] and read and write t[..j]; what follows writes t[j..j + 16]: what the
    // caller grants. All registers are declared.
    unsafe {
        asm!(
            load_y!("x30"),
            clear_window!(),
            "cbz x28, 3f",
            "2:",
            eight!(row),
            "sub x28, x28, #1",
            "cbnz x28, 2b",
            "3:",
            // The window is at word 0 of t. Word i of the sum is in x(i mod 8); row i begins at word 2 i + 1, and begins
            // word i + 8, in the register of word i.
            "str x0, [x27]",
            triangle_row!("x8" "x0" "x9" "x1" "x2" "x16", "x10" "x2" "x3" "x17", "x11" "x3" "x4" "x20",
                "x12" "x4" "x5" "x21", "x13" "x5" "x6" "x22", "x14" "x6" "x7" "x23", "x15" "x7" "x0" "x24",),
            "stp x1, x2, [x27, #8]",
            triangle_row!("x9" "x1" "x10" "x3" "x4" "x16", "x11" "x4" "x5" "x17", "x12" "x5" "x6" "x20",
                "x13" "x6" "x7" "x21", "x14" "x7" "x0" "x22", "x15" "x0" "x1" "x23",),
            "stp x3, x4, [x27, #24]",
            triangle_row!("x10" "x2" "x11" "x5" "x6" "x16", "x12" "x6" "x7" "x17", "x13" "x7" "x0" "x20",
                "x14" "x0" "x1" "x21", "x15" "x1" "x2" "x22",),
            "stp x5, x6, [x27, #40]",
            triangle_row!("x11" "x3" "x12" "x7" "x0" "x16", "x13" "x0" "x1" "x17", "x14" "x1" "x2" "x20",
                "x15" "x2" "x3" "x21",),
            "stp x7, x0, [x27, #56]",
            triangle_row!("x12" "x4" "x13" "x1" "x2" "x16", "x14" "x2" "x3" "x17", "x15" "x3" "x4" "x20",),
            "stp x1, x2, [x27, #72]",
            triangle_row!("x13" "x5" "x14" "x3" "x4" "x16", "x15" "x4" "x5" "x17",),
            "stp x3, x4, [x27, #88]",
            triangle_row!("x14" "x6" "x15" "x5" "x6" "x16",),
            "stp x5, x6, [x27, #104]",
            "str xzr, [x27, #120]",
            out("x0") _, out("x1") _, out("x2") _, out("x3") _,
            out("x4") _, out("x5") _, out("x6") _, out("x7") _,
            out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _,
            out("x16") _, out("x17") _, out("x20") _, out("x21") _,
            out("x22") _, out("x23") _, out("x24") _, out("x25") _,
            inout("x26") a => _,
            inout("x27") t => _,
            inout("x28") below => _,
            inout("x30") y => _,
            options(nostack),
        );
    }
}

/// `t = 2 t + Σ a_i² 2^(128 i)`.
///
/// # Safety
/// Twice as many initialized, writable words at `t` as in `a`; `a.len()` even, not zero.
unsafe fn double_and_add_squares(a: &[Word], t: *mut Word) {
    // SAFETY: the loop's turns, one per 2 words of `a`, read them, and read and write 4 words of `t`. All registers are
    // declared. The loop's control leaves the flags, which hold the carry of the squares; the bit that doubling moves to
    // the next word comes from `last`.
    unsafe {
        asm!(
            "cmn xzr, xzr",
            "2:",
            "ldp {a0}, {a1}, [{a}], #16",
            "ldp {t0}, {t1}, [{t}]",
            "ldp {t2}, {t3}, [{t}, #16]",
            "extr {d0}, {t0}, {last}, #63",
            "extr {t0}, {t1}, {t0}, #63",
            "extr {t1}, {t2}, {t1}, #63",
            "extr {t2}, {t3}, {t2}, #63",
            "mov {last}, {t3}",
            "mul {low}, {a0}, {a0}",
            "umulh {a0}, {a0}, {a0}",
            "adcs {d0}, {d0}, {low}",
            "mul {low}, {a1}, {a1}",
            "adcs {t0}, {t0}, {a0}",
            "umulh {a1}, {a1}, {a1}",
            "adcs {t1}, {t1}, {low}",
            "stp {d0}, {t0}, [{t}], #16",
            "adcs {t2}, {t2}, {a1}",
            "stp {t1}, {t2}, [{t}], #16",
            "sub {count}, {count}, #1",
            "cbnz {count}, 2b",
            a = inout(reg) a.as_ptr() => _,
            t = inout(reg) t => _,
            count = inout(reg) a.len() / 2 => _,
            last = inout(reg) 0u64 => _,
            a0 = out(reg) _,
            a1 = out(reg) _,
            t0 = out(reg) _,
            t1 = out(reg) _,
            t2 = out(reg) _,
            t3 = out(reg) _,
            d0 = out(reg) _,
            low = out(reg) _,
            options(nostack),
        );
    }
}
