//! What the scalar kernels share: lengths, the last subtraction, and the wiping of scratch memory.

use core::arch::asm;

use swarmseal_core::{LIMBS, Word};

// The assembly takes words of 64 bits, whatever crypto-bigint has been configured to.
const _: () = assert!(Word::BITS == 64);

/// Words that the kernels take at a time.
pub(crate) const BLOCK: usize = 8;

/// Whether the kernels work on numbers of that many words: 16, 24, … 64.
pub(crate) const fn in_blocks(len: usize) -> bool {
    len.is_multiple_of(BLOCK) && len >= 2 * BLOCK && len <= LIMBS
}

/// `out = carry‖sum`, less `m` if that is at least `m`. Constant-time.
///
/// Bounds: `carry‖sum` < 2m.
///
/// # Safety
/// As many initialized words at `sum`, which does not overlap `out`, as `m` and `out` have; a multiple of 8, not zero.
#[inline(always)]
pub(crate) unsafe fn subtract_once(sum: *const Word, carry: Word, m: &[Word], out: &mut [Word]) {
    let borrow: Word;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the loop's turns, one per 8 words, read `sum` and `m` and write `out`, all of that length. All registers
    // are declared. LEA and JRCXZ leave the carry.
    unsafe {
        macro_rules! word {
            ($i:literal) => {
                concat!(
                    "mov rax, qword ptr [rsi + 8*",
                    $i,
                    "]\n",
                    "sbb rax, qword ptr [rdx + 8*",
                    $i,
                    "]\n",
                    "mov qword ptr [rdi + 8*",
                    $i,
                    "], rax\n",
                )
            };
        }
        asm!(
            "xor eax, eax",
            "2:",
            word!("0"), word!("1"), word!("2"), word!("3"), word!("4"), word!("5"), word!("6"), word!("7"),
            "lea rsi, [rsi + 64]",
            "lea rdx, [rdx + 64]",
            "lea rdi, [rdi + 64]",
            "lea rcx, [rcx - 1]",
            "jrcxz 3f",
            "jmp 2b",
            "3:",
            // All ones if the difference is negative: a borrow that the carry word does not cover.
            "sbb {carry}, 0",
            "sbb rax, rax",
            out("rax") borrow,
            carry = inout(reg) carry => _,
            inout("rcx") out.len() / BLOCK => _,
            inout("rsi") sum => _,
            inout("rdx") m.as_ptr() => _,
            inout("rdi") out.as_mut_ptr() => _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the loop's turns, one per 8 words, read `sum` and `m` and write `out`, all of that length. All registers
    // are declared. SUB and CBNZ leave the carry, which is set where there is no borrow.
    unsafe {
        macro_rules! words {
            () => {
                "ldp {s0}, {s1}, [{sum}], #16
                 ldp {m0}, {m1}, [{m}], #16
                 sbcs {s0}, {s0}, {m0}
                 sbcs {s1}, {s1}, {m1}
                 stp {s0}, {s1}, [{out}], #16"
            };
        }
        asm!(
            "cmp xzr, xzr",
            "2:",
            words!(),
            words!(),
            words!(),
            words!(),
            "sub {turns}, {turns}, #1",
            "cbnz {turns}, 2b",
            // All ones if the difference is negative: a borrow that the carry word does not cover.
            "sbcs {carry}, {carry}, xzr",
            "sbc {borrow}, xzr, xzr",
            borrow = lateout(reg) borrow,
            carry = inout(reg) carry => _,
            turns = inout(reg) out.len() / BLOCK => _,
            sum = inout(reg) sum => _,
            m = inout(reg) m.as_ptr() => _,
            out = inout(reg) out.as_mut_ptr() => _,
            s0 = out(reg) _,
            s1 = out(reg) _,
            m0 = out(reg) _,
            m1 = out(reg) _,
            options(nostack),
        );
    }
    // From an asm block, so the compiler cannot know that the mask has two values only.
    let keep = borrow;
    for (i, word) in out.iter_mut().enumerate() {
        // SAFETY: `sum` has as many words as `out`.
        let kept = unsafe { *sum.add(i) };
        *word ^= keep & (*word ^ kept);
    }
}

/// Zeroes `n` words, a multiple of 8, in a way that the compiler does not take out.
///
/// # Safety
/// `n` writable words at `t`; `n` a multiple of 8, not zero.
#[inline(always)]
pub(crate) unsafe fn wipe(t: *mut Word, n: usize) {
    // SAFETY: the caller grants the words. The empty asm may read them, so the zeroes must be there.
    unsafe {
        t.write_bytes(0, n);
        asm!("/* {} */", in(reg) t, options(nostack, preserves_flags));
    }
}
