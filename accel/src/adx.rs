//! x86-64 with BMI2 and ADX: MULX, which leaves the flags alone, and ADCX and ADOX, two carry chains at once.
//!
//! Everything but products by a constant is made of *rows*. A row multiplies one word x by a block y of 8 words and adds
//! the product to a window of 8 accumulator words, which lives in registers, and to one word t of memory; the lowest
//! word of the sum is final and replaces t, and the window moves up by one word.
//!
//! **Rows lose no carry.** With the window w < 2^512, t < 2^64, x < 2^64 and y < 2^512:
//! w + t + x y ≤ (2^512 − 1) + (2^64 − 1) + (2^64 − 1)(2^512 − 1) = 2^576 − 1,
//! 9 words: the word that leaves and the 8 of the window. The two chains end in the top word, which therefore takes
//! both last carries.
//!
//! **The product** T = a b, `len` = 8 k words each: for every block of b a *sweep* of the rows of a, at rising
//! addresses of T; at its end the window is the next 8 words of T.
//!
//! **The square**: for every block y_J the rows below it, x ∈ y_0 … y_(J−1), then the products within the block above
//! its diagonal: row i is y_i (y_(i+1) … y_7), at word 2 i + 1. The sum is below 2^(64 (i + 8)) before it (the window is,
//! at i = 0), and the row is at most (2^64 − 1)(2^(64 (7 − i)) − 1) 2^(64 (2 i + 1)) < 2^(64 (i + 9)) − 2^(64 (i + 8)), so the
//! sum is below 2^(64 (i + 9)) after it: each row adds one word, and after row 6 the 16th is zero. Then T is doubled and
//! the squares of the words are added, on the two chains; the sum is a² < 2^(128 len), so the last carries are zero.
//!
//! **The reduction** takes 8 words of T at a time. q_i = w_0 (−m^−1) mod 2^64 makes the row q_i × (lowest block of m)
//! clear w_0, so 8 such rows clear the 8 words, whose place keeps q; the sweep goes on with x from the other blocks of
//! m and y = q, and its last window is added to T with the carry of the sweep before. Product and reduction alternate,
//! block by block: a block of q needs T up to that block alone.
//!
//! **One subtraction makes it canonical**: (a b + q m) / R with a < R, b < m and q < R is below 2m (for a square,
//! a² < m² < R m). That is at most a carry of 1 above `len` words; the difference to m is chosen by a mask.
//!
//! **Many blocks by one factor** (`fixed.rs`) are summed by tiles of 8 columns, in 10 registers that stay where they are. Its rows are
//! added to them on the two chains.
//!
//! Addresses and loop counts depend on `len` alone, and nothing branches on data. `len` is 16, 24, … 64; other
//! lengths go to the portable backend.

use core::arch::asm;
use core::mem::MaybeUninit;

use swarmseal_core::kernels::{Arithmetic, ByteOrder, Portable};
use swarmseal_core::{LIMBS, Modulus, Word};

use crate::fixed::{self, Sum, Tiles};
use crate::limbs::{BLOCK, in_blocks, subtract_once, wipe};

/// The backend. Its functions must only run on a CPU that has BMI2 and ADX.
pub(crate) struct Adx;

impl Arithmetic for Adx {
    const NAME: &'static str = "adx";

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
                sweep(b.as_ptr().add(j), a.as_ptr(), n, t.add(j));
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
        // SAFETY: `t` has room for 2 n ≤ 2 LIMBS words. The call for block j sets the words up to 2 j + 16 (exclusive),
        // and reads j ≤ i < 2 j of them, which the calls before have set. a and m have n words, in_blocks(n).
        unsafe {
            for j in (0..n).step_by(BLOCK) {
                half_square(a.as_ptr().add(j), a.as_ptr(), t.add(j));
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

impl Tiles for Adx {
    const COLUMNS: usize = BLOCK;

    fn add_rows(x: &[Word], y: &[Word], sum: &mut Sum) {
        assert!(x.len().is_multiple_of(2) && !x.is_empty() && y.len() == BLOCK * x.len());
        // SAFETY: an even number of words at `x`, not zero, and as many rows at `y`, asserted. See the type.
        unsafe { add_rows(x, y, sum) }
    }
}

/// `lo:hi = rdx × [rsi + 8 j]`, onto the two chains.
macro_rules! mac {
    ($j:literal, $acc:literal, $next:literal) => {
        concat!(
            "mulx rbx, rax, qword ptr [rsi + 8*",
            $j,
            "]\n",
            "adcx ",
            $acc,
            ", rax\n",
            "adox ",
            $next,
            ", rbx\n",
        )
    };
}

/// Products 1 to 7 of a row, after product 0 has left `$a0` free for the new top word, with both last carries.
macro_rules! row_tail {
    ($a0:literal, $a1:literal, $a2:literal, $a3:literal, $a4:literal, $a5:literal, $a6:literal, $a7:literal) => {
        concat!(
            mac!("1", $a1, $a2),
            mac!("2", $a2, $a3),
            mac!("3", $a3, $a4),
            mac!("4", $a4, $a5),
            mac!("5", $a5, $a6),
            mac!("6", $a6, $a7),
            "mulx ",
            $a0,
            ", rax, qword ptr [rsi + 56]\n",
            "adcx ",
            $a7,
            ", rax\n",
            "adox ",
            $a0,
            ", rbp\n",
            "adcx ",
            $a0,
            ", rbp\n",
        )
    };
}

/// A row: x = `[rdi + 8 i]`, y at `rsi`, t at `[rcx + 8 i]`, the window `$a0`…`$a7`, then `$a1`…`$a7`, `$a0`.
macro_rules! row {
    ($i:literal, $a0:literal, $a1:literal, $($a:literal),+) => {
        concat!(
            "mov rdx, qword ptr [rdi + 8*", $i, "]\n",
            "xor ebp, ebp\n", // zero, and both carries clear
            "adox ", $a0, ", qword ptr [rcx + 8*", $i, "]\n",
            "mulx rbx, rax, qword ptr [rsi]\n",
            "adcx ", $a0, ", rax\n",
            "mov qword ptr [rcx + 8*", $i, "], ", $a0, "\n",
            "adox ", $a1, ", rbx\n",
            row_tail!($a0, $a1, $($a),+),
        )
    };
}

/// A row that clears its lowest word: x = `$a0` × `rdi`, kept at `[rcx + 8 i]`.
macro_rules! clearing_row {
    ($i:literal, $a0:literal, $a1:literal, $($a:literal),+) => {
        concat!(
            "mov rdx, rdi\n",
            "imul rdx, ", $a0, "\n",
            "xor ebp, ebp\n",
            "mulx rbx, rax, qword ptr [rsi]\n",
            "mov qword ptr [rcx + 8*", $i, "], rdx\n",
            "adcx ", $a0, ", rax\n",
            "adox ", $a1, ", rbx\n",
            row_tail!($a0, $a1, $($a),+),
        )
    };
}

/// Eight rows, after which every register has its first part again.
macro_rules! eight {
    ($row:ident) => {
        concat!(
            $row!("0", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
            $row!("1", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "r8"),
            $row!("2", "r10", "r11", "r12", "r13", "r14", "r15", "r8", "r9"),
            $row!("3", "r11", "r12", "r13", "r14", "r15", "r8", "r9", "r10"),
            $row!("4", "r12", "r13", "r14", "r15", "r8", "r9", "r10", "r11"),
            $row!("5", "r13", "r14", "r15", "r8", "r9", "r10", "r11", "r12"),
            $row!("6", "r14", "r15", "r8", "r9", "r10", "r11", "r12", "r13"),
            $row!("7", "r15", "r8", "r9", "r10", "r11", "r12", "r13", "r14"),
        )
    };
}

/// The window to zero.
macro_rules! clear_window {
    () => {
        "xor r8d, r8d
         xor r9d, r9d
         xor r10d, r10d
         xor r11d, r11d
         xor r12d, r12d
         xor r13d, r13d
         xor r14d, r14d
         xor r15d, r15d"
    };
}

/// The window to `rcx`.
macro_rules! store_window {
    () => {
        "mov qword ptr [rcx], r8
         mov qword ptr [rcx + 8], r9
         mov qword ptr [rcx + 16], r10
         mov qword ptr [rcx + 24], r11
         mov qword ptr [rcx + 32], r12
         mov qword ptr [rcx + 40], r13
         mov qword ptr [rcx + 48], r14
         mov qword ptr [rcx + 56], r15"
    };
}

/// `t[..n] += x y`, where `t[n..n + 8]` is set to the words above.
///
/// # Safety
/// BMI2 and ADX. Readable: 8 words at `y`, `n` at `x`; `n` initialized and `n + 8` writable words at `t`, which
/// overlaps neither; `n` a multiple of 8, not zero.
unsafe fn sweep(y: *const Word, x: *const Word, n: usize, t: *mut Word) {
    // SAFETY: the loop's n/8 turns read y[..8] and x[..n], read and write t[..n], and the end writes t[n..n + 8]:
    // what the caller grants. rbx and rbp are restored, the stack is balanced, the other registers are declared.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "push rax",
            clear_window!(),
            "2:",
            eight!(row),
            "add rdi, 64",
            "add rcx, 64",
            "cmp rdi, qword ptr [rsp]",
            "jne 2b",
            store_window!(),
            "pop rax",
            "pop rbp",
            "pop rbx",
            inout("rax") x.add(n) => _,
            inout("rcx") t => _,
            out("rdx") _,
            in("rsi") y,
            inout("rdi") x => _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
}

/// `lo:hi = rdx × [rsi + k − j]`, onto the two chains.
macro_rules! tile_mac {
    ($k:literal, $j:literal, $acc:literal, $next:literal) => {
        concat!(
            "mulx rbx, rax, qword ptr [rsi + ",
            $k,
            " - ",
            $j,
            "]\n",
            "adcx ",
            $acc,
            ", rax\n",
            "adox ",
            $next,
            ", rbx\n",
        )
    };
}

/// A row of a tile: x = `[rdi + i]`, y at `rsi` − `j`, to the sum r8…r15, rbp, rcx; zero at `[rsp + 8]`. Both carries are clear before
/// it and after it: a product's highest word is below 2^64 − 1, so it takes the last carry of the chain of low words without one of its
/// own, and the sum's highest word takes that of the other. MOV would make a zero as well and leave the flags alone, but then Zen 4 takes
/// 6 per cent longer for the whole.
macro_rules! tile_row {
    ($i:literal, $j:literal) => {
        concat!(
            "mov rdx, qword ptr [rdi + ",
            $i,
            "]\n",
            tile_mac!("0", $j, "r8", "r9"),
            tile_mac!("8", $j, "r9", "r10"),
            tile_mac!("16", $j, "r10", "r11"),
            tile_mac!("24", $j, "r11", "r12"),
            tile_mac!("32", $j, "r12", "r13"),
            tile_mac!("40", $j, "r13", "r14"),
            tile_mac!("48", $j, "r14", "r15"),
            "mulx rbx, rax, qword ptr [rsi + 56 - ",
            $j,
            "]\n",
            "adcx r15, rax\n",
            "mulx rdx, rax, qword ptr [rsp + 8]\n",
            "adcx rbx, rax\n",
            "adox rbp, rbx\n",
            "adox rcx, rax\n",
        )
    };
}

/// `sum += Σ x_i y_i`, where `y` has a row of 8 words for each word of `x`, the last row first.
///
/// # Safety
/// BMI2 and ADX. An even number of words at `x`, not zero, and 8 times as many at `y`.
unsafe fn add_rows(x: &[Word], y: &[Word], sum: &mut Sum) {
    // SAFETY: the loop's turns, one per 2 words of `x`, read them, at rising addresses, and 2 rows of `y` of 8 words each, from
    // the last one down to the first: what the caller grants. `sum` has the 10 words that are read and written. What is pushed is
    // read from the stack's top, where nothing else is put until it is popped. rbx and rbp are restored, the stack is balanced,
    // the other registers are declared.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "push rdx",
            "push 0",
            "push rax",
            "mov r8, qword ptr [rdx]",
            "mov r9, qword ptr [rdx + 8]",
            "mov r10, qword ptr [rdx + 16]",
            "mov r11, qword ptr [rdx + 24]",
            "mov r12, qword ptr [rdx + 32]",
            "mov r13, qword ptr [rdx + 40]",
            "mov r14, qword ptr [rdx + 48]",
            "mov r15, qword ptr [rdx + 56]",
            "mov rbp, qword ptr [rdx + 64]",
            "mov rcx, qword ptr [rdx + 72]",
            "2:",
            "xor eax, eax", // both carries clear
            tile_row!("0", "64"),
            tile_row!("8", "128"),
            "lea rdi, [rdi + 16]",
            "lea rsi, [rsi - 128]",
            "cmp rdi, qword ptr [rsp]",
            "jne 2b",
            "pop rax",
            "pop rdx", // the zero
            "pop rdx",
            "mov qword ptr [rdx], r8",
            "mov qword ptr [rdx + 8], r9",
            "mov qword ptr [rdx + 16], r10",
            "mov qword ptr [rdx + 24], r11",
            "mov qword ptr [rdx + 32], r12",
            "mov qword ptr [rdx + 40], r13",
            "mov qword ptr [rdx + 48], r14",
            "mov qword ptr [rdx + 56], r15",
            "mov qword ptr [rdx + 64], rbp",
            "mov qword ptr [rdx + 72], rcx",
            "pop rbp",
            "pop rbx",
            inout("rax") x.as_ptr_range().end => _,
            out("rcx") _,
            inout("rdx") sum.as_mut_ptr() => _,
            inout("rsi") y.as_ptr_range().end => _,
            inout("rdi") x.as_ptr() => _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
}

/// Adds the multiple of `m` to `t[..n + 8] + carry 2^(64 n)` that clears `t[..8]`, whose place keeps the factor.
/// The carry out.
///
/// # Safety
/// BMI2 and ADX. `n + 8` initialized, writable words at `t` for the `n` words of `m`; `n` a multiple of 8, at least 16.
unsafe fn reduce(m: &Modulus, t: *mut Word, carry: Word) -> Word {
    let mut carry = carry;
    let (p, end) = (m.limbs().as_ptr(), m.limbs().as_ptr_range().end);
    // SAFETY: the clearing rows read p[..8] and t[..8] and write t[..8]. The loop's n/8 − 1 turns read p[8..n] and
    // t[..8], and read and write t[8..n]; the end reads and writes t[n..n + 8]: what the caller grants. rbx and rbp are
    // restored, the stack is balanced, the other registers are declared.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "push rdx",
            "push rax",
            "push rsi",
            "mov r8, qword ptr [rcx]",
            "mov r9, qword ptr [rcx + 8]",
            "mov r10, qword ptr [rcx + 16]",
            "mov r11, qword ptr [rcx + 24]",
            "mov r12, qword ptr [rcx + 32]",
            "mov r13, qword ptr [rcx + 40]",
            "mov r14, qword ptr [rcx + 48]",
            "mov r15, qword ptr [rcx + 56]",
            eight!(clearing_row),
            "pop rdi",
            "add rdi, 64",
            "mov rsi, rcx", // y = q
            "add rcx, 64",
            "2:",
            eight!(row),
            "add rdi, 64",
            "add rcx, 64",
            "cmp rdi, qword ptr [rsp]",
            "jne 2b",
            "pop rax",
            "pop rdx",
            "add rdx, -1", // the carry in
            "adc r8, qword ptr [rcx]",
            "adc r9, qword ptr [rcx + 8]",
            "adc r10, qword ptr [rcx + 16]",
            "adc r11, qword ptr [rcx + 24]",
            "adc r12, qword ptr [rcx + 32]",
            "adc r13, qword ptr [rcx + 40]",
            "adc r14, qword ptr [rcx + 48]",
            "adc r15, qword ptr [rcx + 56]",
            "mov edx, 0",
            "adc edx, 0",
            store_window!(),
            "pop rbp",
            "pop rbx",
            inout("rax") end => _,
            inout("rcx") t => _,
            inout("rdx") carry,
            inout("rsi") p => _,
            inout("rdi") m.neg_inv() => _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
    carry
}

/// Of the rows of the square those of block `y` = a[j..j + 8], `t` being T + j words: all products with words below
/// the block, and those within it above the diagonal.
///
/// # Safety
/// BMI2 and ADX. Readable: j + 8 words at `a`, and `y` = `a` + j, j a multiple of 8. Writable: j + 16 words at `t`,
/// which overlaps neither, and of which j are initialized.
unsafe fn half_square(y: *const Word, a: *const Word, t: *mut Word) {
    // SAFETY: the loop's j/8 turns read y[..8] and a[..j] and read and write t[..j]; what follows reads y[..8] and
    // writes t[j..j + 16]: what the caller grants. rbx and rbp are restored, the stack is balanced, the other
    // registers are declared.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            clear_window!(),
            "cmp rdi, rsi",
            "je 3f",
            "2:",
            eight!(row),
            "add rdi, 64",
            "add rcx, 64",
            "cmp rdi, rsi",
            "jne 2b",
            "3:",
            // The window is at word 0 of t. Word i of the sum is in r8 + (i mod 8); row i begins at word 2 i + 1.
            "mov rdx, qword ptr [rsi]",
            "mov qword ptr [rcx], r8",
            "xor ebp, ebp",
            mac!("1", "r9", "r10"),
            "mov qword ptr [rcx + 8], r9",
            mac!("2", "r10", "r11"),
            "mov qword ptr [rcx + 16], r10",
            mac!("3", "r11", "r12"),
            mac!("4", "r12", "r13"),
            mac!("5", "r13", "r14"),
            mac!("6", "r14", "r15"),
            "mulx r8, rax, qword ptr [rsi + 56]",
            "adcx r15, rax",
            "adox r8, rbp",
            "adcx r8, rbp",
            "mov rdx, qword ptr [rsi + 8]",
            "xor ebp, ebp",
            mac!("2", "r11", "r12"),
            "mov qword ptr [rcx + 24], r11",
            mac!("3", "r12", "r13"),
            "mov qword ptr [rcx + 32], r12",
            mac!("4", "r13", "r14"),
            mac!("5", "r14", "r15"),
            mac!("6", "r15", "r8"),
            "mulx r9, rax, qword ptr [rsi + 56]",
            "adcx r8, rax",
            "adox r9, rbp",
            "adcx r9, rbp",
            "mov rdx, qword ptr [rsi + 16]",
            "xor ebp, ebp",
            mac!("3", "r13", "r14"),
            "mov qword ptr [rcx + 40], r13",
            mac!("4", "r14", "r15"),
            "mov qword ptr [rcx + 48], r14",
            mac!("5", "r15", "r8"),
            mac!("6", "r8", "r9"),
            "mulx r10, rax, qword ptr [rsi + 56]",
            "adcx r9, rax",
            "adox r10, rbp",
            "adcx r10, rbp",
            "mov rdx, qword ptr [rsi + 24]",
            "xor ebp, ebp",
            mac!("4", "r15", "r8"),
            "mov qword ptr [rcx + 56], r15",
            mac!("5", "r8", "r9"),
            "mov qword ptr [rcx + 64], r8",
            mac!("6", "r9", "r10"),
            "mulx r11, rax, qword ptr [rsi + 56]",
            "adcx r10, rax",
            "adox r11, rbp",
            "adcx r11, rbp",
            "mov rdx, qword ptr [rsi + 32]",
            "xor ebp, ebp",
            mac!("5", "r9", "r10"),
            "mov qword ptr [rcx + 72], r9",
            mac!("6", "r10", "r11"),
            "mov qword ptr [rcx + 80], r10",
            "mulx r12, rax, qword ptr [rsi + 56]",
            "adcx r11, rax",
            "adox r12, rbp",
            "adcx r12, rbp",
            "mov rdx, qword ptr [rsi + 40]",
            "xor ebp, ebp",
            mac!("6", "r11", "r12"),
            "mov qword ptr [rcx + 88], r11",
            "mulx r13, rax, qword ptr [rsi + 56]",
            "adcx r12, rax",
            "mov qword ptr [rcx + 96], r12",
            "adox r13, rbp",
            "adcx r13, rbp",
            "mov rdx, qword ptr [rsi + 48]",
            "mulx r14, rax, qword ptr [rsi + 56]",
            "add r13, rax",
            "adc r14, rbp",
            "mov qword ptr [rcx + 104], r13",
            "mov qword ptr [rcx + 112], r14",
            "mov qword ptr [rcx + 120], rbp",
            "pop rbp",
            "pop rbx",
            out("rax") _,
            inout("rcx") t => _,
            out("rdx") _,
            in("rsi") y,
            inout("rdi") a => _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
}

/// `2 [rdi + 16 i] + [rsi + 8 i]²`, on the two chains.
macro_rules! double_and_square {
    ($i:literal) => {
        concat!(
            "mov rdx, qword ptr [rsi + 8*",
            $i,
            "]\n",
            "mov r8, qword ptr [rdi + 16*",
            $i,
            "]\n",
            "mov r9, qword ptr [rdi + 16*",
            $i,
            " + 8]\n",
            "mulx rdx, rax, rdx\n",
            "adcx r8, r8\n",
            "adox r8, rax\n",
            "mov qword ptr [rdi + 16*",
            $i,
            "], r8\n",
            "adcx r9, r9\n",
            "adox r9, rdx\n",
            "mov qword ptr [rdi + 16*",
            $i,
            " + 8], r9\n",
        )
    };
}

/// `t = 2 t + Σ a_i² 2^(128 i)`.
///
/// # Safety
/// BMI2 and ADX. Twice as many initialized, writable words at `t` as in `a`; `a.len()` a multiple of 8, not zero.
unsafe fn double_and_add_squares(a: &[Word], t: *mut Word) {
    // SAFETY: the loop's turns, one per 8 words of `a`, read them, and read and write 16 words of `t`. All registers are
    // declared. The loop's control leaves the flags, which hold both carries.
    unsafe {
        asm!(
            "xor eax, eax",
            "2:",
            double_and_square!("0"),
            double_and_square!("1"),
            double_and_square!("2"),
            double_and_square!("3"),
            double_and_square!("4"),
            double_and_square!("5"),
            double_and_square!("6"),
            double_and_square!("7"),
            "lea rsi, [rsi + 64]",
            "lea rdi, [rdi + 128]",
            "lea rcx, [rcx - 1]",
            "jrcxz 3f",
            "jmp 2b",
            "3:",
            inout("rcx") a.len() / BLOCK => _,
            inout("rsi") a.as_ptr() => _,
            inout("rdi") t => _,
            out("rax") _, out("rdx") _, out("r8") _, out("r9") _,
            options(nostack),
        );
    }
}
