//! x86-64 without BMI2 or ADX: MUL, which overwrites the flags, so the sums go by columns.
//!
//! Column k of x y is Σ x_i y_(k−i): one number upwards and the other downwards, into three words. Product and reduction
//! share the columns (finely integrated product scanning; Koç, Acar, Kaliski, "Analyzing and comparing Montgomery
//! multiplication algorithms", 1996): in column k < n = `len`, q_k = (lowest word) (−m^−1) mod 2^64 makes that word
//! zero; from column n on, the lowest word is one of the result.
//!
//! **Three words suffice.** A column sums at most 2 n ≤ 128 products below 2^128 and what the last column left above its
//! lowest word. If that is below 2^128, the sum is below 2^136, and leaves less than 2^72. A square's column takes at
//! most n/2 products twice, one square and n products of q m: no more.
//!
//! **One subtraction makes it canonical**: (a b + q m) / R with a < R, b < m and q < R is below 2m (for a square,
//! a² < m² < R m); after the last column but one, what is left is the highest word and the carry above it.
//!
//! **Many blocks by one factor** (`fixed.rs`) go by columns as well: n + 2 ≤ 66 products each.
//!
//! Addresses and loop counts depend on `len` alone, and nothing branches on data. `len` is 16, 24, … 64; other
//! lengths go to the portable backend.

use core::arch::asm;

use swarmseal_core::kernels::{Arithmetic, ByteOrder, Portable};
use swarmseal_core::{LIMBS, Modulus, Word};

use crate::fixed::{self, Tiles};
use crate::limbs::{in_blocks, subtract_once, wipe};

/// The backend. Any x86-64 CPU can run it.
pub(crate) struct Mul;

impl Arithmetic for Mul {
    const NAME: &'static str = "mul";

    fn mont_mul(m: &Modulus, a: &[Word], b: &[Word], out: &mut [Word]) {
        let n = m.len();
        if !in_blocks(n) {
            return Portable::mont_mul(m, a, b, out);
        }
        assert!(a.len() == n && b.len() == n);
        reduce(m, out, Product { a, b });
    }

    fn mont_sqr(m: &Modulus, a: &[Word], out: &mut [Word]) {
        let n = m.len();
        if !in_blocks(n) {
            return Portable::mont_sqr(m, a, out);
        }
        assert!(a.len() == n);
        reduce(m, out, Square { a });
    }

    fn mul_blocks(m: &Modulus, factor: &[Word], order: ByteOrder, blocks: &mut [u8]) {
        fixed::mul_blocks::<Self>(m, factor, order, blocks);
    }
}

impl Tiles for Mul {
    const COLUMNS: usize = 1;

    #[inline(always)]
    fn add_rows(x: &[Word], y: &[Word], sum: &mut fixed::Sum) {
        assert!(x.len() == y.len());
        let mut column = Column::default();
        column.add_dot(x, y, x.len());
        let mut total = Sum([sum[0], sum[1], sum[2]]);
        total.add(column.total());
        sum[..3].copy_from_slice(&total.0);
    }
}

/// A number that is summed by columns.
trait Columns {
    /// The sum of the products of words i and j, i + 1 and j − 1, … `count` pairs in all.
    fn column(&self, i: usize, j: usize, count: usize) -> Column;
}

/// a b.
struct Product<'a> {
    a: &'a [Word],
    b: &'a [Word],
}

impl Columns for Product<'_> {
    #[inline(always)]
    fn column(&self, i: usize, j: usize, count: usize) -> Column {
        let mut column = Column::default();
        column.add_dot(&self.a[i..], &self.b[..=j], count);
        column
    }
}

/// a².
struct Square<'a> {
    a: &'a [Word],
}

impl Columns for Square<'_> {
    #[inline(always)]
    fn column(&self, i: usize, j: usize, count: usize) -> Column {
        let mut half = Column::default();
        half.add_dot(&self.a[i..], &self.a[..=j], count / 2);
        let half = half.total();
        let mut column = Column { c: half, d: half };
        if count % 2 == 1 {
            let middle = self.a[(i + j) / 2];
            column.c.add_product(middle, middle);
        }
        column
    }
}

/// `out` = the number, reduced.
#[inline(always)]
fn reduce(m: &Modulus, out: &mut [Word], number: impl Columns) {
    let n = m.len();
    let p = m.limbs();
    assert!(out.len() == n);
    let mut factor = [0; LIMBS];
    let mut high = [0; LIMBS];
    let q = &mut factor[..n];
    let mut sum = Sum::default();
    // Each column is summed by itself, so that it need not wait for the factor of the one before.
    for k in 0..n {
        let mut column = number.column(0, k, k + 1);
        column.add_dot(q, &p[..=k], k);
        sum.add(column.total());
        q[k] = sum.0[0].wrapping_mul(m.neg_inv());
        sum.add_product(q[k], p[0]);
        sum.shift();
    }
    for k in 1..n {
        let mut column = number.column(k, n - 1, n - k);
        column.add_dot(&q[k..], p, n - k);
        sum.add(column.total());
        high[k - 1] = sum.shift();
    }
    high[n - 1] = sum.shift();
    // SAFETY: `high` and `factor` have LIMBS words; n, the length of `p` and `out`, is a multiple of 8 up to LIMBS.
    unsafe {
        subtract_once(high.as_ptr(), sum.0[0], p, out);
        wipe(high.as_mut_ptr(), n);
        wipe(factor.as_mut_ptr(), n);
    }
}

/// Three words, least significant first.
#[derive(Clone, Copy, Default)]
struct Sum([Word; 3]);

/// Products of a column, in two sums: their carry chains run side by side.
#[derive(Default)]
struct Column {
    c: Sum,
    d: Sum,
}

/// `$c += [x + 8 i] × [y − 8 i]`, for c or d.
macro_rules! product {
    ($i:literal $c:literal) => {
        concat!(
            "mov rax, qword ptr [{x} + 8*",
            $i,
            "]\n",
            "mul qword ptr [{y} - 8*",
            $i,
            "]\n",
            "add {",
            $c,
            "0}, rax\n",
            "adc {",
            $c,
            "1}, rdx\n",
            "adc {",
            $c,
            "2}, 0\n",
        )
    };
}

impl Column {
    /// `+= Σ x[i] y[last − i]` over i < count.
    #[inline(always)]
    fn add_dot(&mut self, x: &[Word], y: &[Word], count: usize) {
        assert!(count <= x.len() && count <= y.len());
        let (mut x, mut y) = (x.as_ptr(), y.as_ptr_range().end.wrapping_sub(1));
        let (Sum([c0, c1, c2]), Sum([d0, d1, d2])) = (&mut self.c, &mut self.d);
        macro_rules! products {
            ($($i:literal $c:literal)*) => {
                // SAFETY: reads words that `x` upwards and `y` downwards have left: `count` in all. MUL's registers
                // are declared.
                unsafe {
                    asm!(
                        $(product!($i $c),)*
                        c0 = inout(reg) *c0,
                        c1 = inout(reg) *c1,
                        c2 = inout(reg) *c2,
                        d0 = inout(reg) *d0,
                        d1 = inout(reg) *d1,
                        d2 = inout(reg) *d2,
                        x = in(reg) x,
                        y = in(reg) y,
                        out("rax") _,
                        out("rdx") _,
                        options(nostack, readonly, pure),
                    )
                }
            };
        }
        for _ in 0..count / 8 {
            products!("0" "c" "1" "d" "2" "c" "3" "d" "4" "c" "5" "d" "6" "c" "7" "d");
            (x, y) = (x.wrapping_add(8), y.wrapping_sub(8));
        }
        match count % 8 {
            // SAFETY: one word of each is left.
            1 => self.c.add_product(unsafe { *x }, unsafe { *y }),
            2 => products!("0" "c" "1" "d"),
            3 => products!("0" "c" "1" "d" "2" "c"),
            4 => products!("0" "c" "1" "d" "2" "c" "3" "d"),
            5 => products!("0" "c" "1" "d" "2" "c" "3" "d" "4" "c"),
            6 => products!("0" "c" "1" "d" "2" "c" "3" "d" "4" "c" "5" "d"),
            7 => products!("0" "c" "1" "d" "2" "c" "3" "d" "4" "c" "5" "d" "6" "c"),
            _ => {}
        }
    }

    /// c + d.
    #[inline(always)]
    fn total(self) -> Sum {
        let mut total = self.c;
        total.add(self.d);
        total
    }
}

impl Sum {
    /// `+= b`.
    #[inline(always)]
    fn add(&mut self, b: Sum) {
        let Sum([b0, b1, b2]) = b;
        let [c0, c1, c2] = &mut self.0;
        // SAFETY: registers alone.
        unsafe {
            asm!(
                "add {c0}, {b0}",
                "adc {c1}, {b1}",
                "adc {c2}, {b2}",
                b0 = in(reg) b0,
                b1 = in(reg) b1,
                b2 = in(reg) b2,
                c0 = inout(reg) *c0,
                c1 = inout(reg) *c1,
                c2 = inout(reg) *c2,
                options(nostack, nomem, pure),
            );
        }
    }

    /// `+= x y`.
    #[inline(always)]
    fn add_product(&mut self, x: Word, y: Word) {
        let [c0, c1, c2] = &mut self.0;
        // SAFETY: registers alone, all declared.
        unsafe {
            asm!(
                "mul {y}",
                "add {c0}, rax",
                "adc {c1}, rdx",
                "adc {c2}, 0",
                y = in(reg) y,
                c0 = inout(reg) *c0,
                c1 = inout(reg) *c1,
                c2 = inout(reg) *c2,
                inout("rax") x => _,
                out("rdx") _,
                options(nostack, nomem, pure),
            );
        }
    }

    /// The lowest word, which leaves.
    #[inline(always)]
    fn shift(&mut self) -> Word {
        let [low, c1, c2] = self.0;
        self.0 = [c1, c2, 0];
        low
    }
}
