//! Limbs of four bits: the lane kernels on numbers that are small enough to try them all.
//!
//! A lane has [`Lanes::WORD`] bits here, the fewest for which [`columns_fit`](super::columns_fit) says that nothing is lost, and every
//! sum that does not fit them panics. So these tests try the proof of the bounds as well as the results.

extern crate std;

use std::vec::Vec;

use super::{Lanes, Limbs, MAX_LANES, Moduli, canonical, columns_fit, compiled_products, crowded};

/// Bits of a limb.
const BITS: u32 = 4;
/// β.
pub(crate) const BETA: u64 = 1 << BITS;

/// A lane of `WORD` bits: products whole or `HALVES`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Small<const WORD: u32, const HALVES: bool>(u64);

impl<const WIDTH: u32, const HALVES: bool> Small<WIDTH, HALVES> {
    const MASK: u64 = (1 << WIDTH) - 1;

    /// A sum, or a product, that must fit.
    #[inline(always)]
    fn checked(value: u64) -> Self {
        assert!(value <= Self::MASK, "{value} does not fit {WIDTH} bits");
        Small(value)
    }

    #[inline(always)]
    fn is_limb(self) -> bool {
        self.0 < BETA
    }
}

impl<const WIDTH: u32, const HALVES: bool> Lanes for Small<WIDTH, HALVES> {
    const LANES: usize = 1;
    const BITS: u32 = BITS;
    const WORD: u32 = WIDTH;
    const SPLIT: bool = HALVES;
    type Mask = bool;
    type Limb = u64;

    compiled_products!();

    #[inline(always)]
    fn splat(value: u64) -> Self {
        Self::checked(value)
    }

    #[inline(always)]
    fn limb_of(value: u64) -> u64 {
        assert!(value < BETA);
        value
    }

    #[inline(always)]
    fn broadcast(limb: u64) -> Self {
        Small(limb)
    }

    #[inline(always)]
    fn read(values: &[u64; MAX_LANES]) -> Self {
        Self::checked(values[0])
    }

    #[inline(always)]
    fn write(self, values: &mut [u64; MAX_LANES]) {
        values[0] = self.0;
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Self::checked(self.0 + b.0)
    }

    /// Below zero on purpose where a number is compared with the modulus.
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Small(self.0.wrapping_sub(b.0) & Self::MASK)
    }

    #[inline(always)]
    fn and(self, b: Self) -> Self {
        Small(self.0 & b.0)
    }

    #[inline(always)]
    fn or(self, b: Self) -> Self {
        Small(self.0 | b.0)
    }

    #[inline(always)]
    fn shr(self, count: u32) -> Self {
        assert!(count < WIDTH);
        Small(self.0 >> count)
    }

    #[inline(always)]
    fn shl(self, count: u32) -> Self {
        Self::checked(self.0 << count)
    }

    #[inline(always)]
    fn equals(self, b: Self) -> bool {
        self.0 == b.0
    }

    #[inline(always)]
    fn select(mask: bool, a: Self, b: Self) -> Self {
        if mask { a } else { b }
    }

    #[inline(always)]
    fn mul_add(low: &mut Self, high: &mut Self, a: Self, b: Self) {
        assert!(a.is_limb() && b.is_limb());
        let product = a.0 * b.0;
        if HALVES {
            *low = low.add(Small(product % BETA));
            *high = high.add(Small(product / BETA));
        } else {
            *low = low.add(Small(product));
        }
    }

    #[inline(always)]
    fn mul_low(a: Self, b: Self) -> Self {
        assert!(a.is_limb() && b.is_limb());
        Small(a.0 * b.0 % BETA)
    }
}

/// A number's limbs.
pub(crate) fn limbs<const L: usize>(number: u64) -> [u64; L] {
    assert!(number < BETA.pow(L as u32));
    core::array::from_fn(|i| (number >> (BITS * i as u32)) % BETA)
}

/// The number, whose limbs are below β.
pub(crate) fn number<V: Lanes, const L: usize>(limbs: &Limbs<V, L>) -> u64 {
    let mut lanes = [0; MAX_LANES];
    limbs.iter().rev().fold(0, |number, limb| {
        limb.write(&mut lanes);
        assert!(lanes[0] < BETA, "a limb is not carried out");
        number * BETA + lanes[0]
    })
}

/// −m^−1 mod β.
pub(crate) fn neg_inverse(m: u64) -> u64 {
    (0..BETA).find(|x| (x * m + 1).is_multiple_of(BETA)).unwrap()
}

fn vector<V: Lanes, const L: usize>(number: u64) -> Limbs<V, L> {
    limbs(number).map(V::splat)
}

impl<V: Lanes, const L: usize> Moduli<V, L> {
    /// Of a number, by the definition. `unit`: whether to make use of m ≡ −1 mod β.
    fn small(m: u64, unit: bool) -> Self {
        Moduli {
            m: vector(m),
            neg_inv: V::splat(neg_inverse(m)),
            multiple: vector(m + u64::from(unit)),
            unit,
        }
    }
}

/// Both forms of the reduction that m has.
fn moduli<V: Lanes, const L: usize>(m: u64) -> impl Iterator<Item = Moduli<V, L>> {
    let forms: &[bool] = if m % BETA == BETA - 1 { &[false, true] } else { &[false] };
    forms.iter().map(move |&unit| Moduli::small(m, unit))
}

/// Products, squares and canonical numbers mod m, for m ≤ R/4 and all a, b of those below 2m that are given.
fn products<V: Lanes, const L: usize, const C: usize>(m: u64, operands: &[u64]) {
    const { assert!(columns_fit::<V, L>() && L.is_multiple_of(C)) };
    let r = BETA.pow(L as u32);
    assert!(m % 2 == 1 && 4 * m <= r && operands.iter().all(|&a| a < 2 * m));
    let vectors: Vec<Limbs<V, L>> = operands.iter().map(|&a| vector(a)).collect();
    let mut out = vector(0);
    for moduli in moduli::<V, L>(m) {
        for (&a, a_vector) in operands.iter().zip(&vectors) {
            let mut reduced = *a_vector;
            canonical(&mut reduced, &moduli.m);
            assert_eq!(number(&reduced), a % m, "{a} mod {m}");
            square::<V, L, C>(&moduli, m, a);
            for (&b, b_vector) in operands.iter().zip(&vectors) {
                moduli.mul_here::<C>(a_vector, b_vector, &mut out);
                let product = number(&out);
                assert!(product < 2 * m && (product * r) % m == (a * b) % m, "{a} by {b} mod {m}: {product}");
            }
        }
    }
}

/// The square of a, where (a² + (R − 1) m) / R is below 2m.
fn square<V: Lanes, const L: usize, const C: usize>(moduli: &Moduli<V, L>, m: u64, a: u64) {
    let r = BETA.pow(L as u32);
    let mut out = vector(0);
    moduli.square_here::<C>(&vector(a), &mut out);
    let product = number(&out);
    assert!(product < 2 * m && (product * r) % m == (a * a) % m, "{a} squared mod {m}: {product}");
}

/// Every odd modulus, and every pair of numbers below 2m.
fn all_products<V: Lanes, const L: usize, const C: usize>(moduli: impl Iterator<Item = u64>) {
    for m in moduli.filter(|m| m % 2 == 1) {
        let operands: Vec<u64> = (0..2 * m).collect();
        products::<V, L, C>(m, &operands);
    }
}

#[test]
fn two_limbs_are_right_for_all_numbers() {
    const { assert!(!crowded::<Small<10, false>, 2>() && crowded::<Small<9, false>, 2>()) };
    let all = || 3..=BETA.pow(2) / 4;
    all_products::<Small<10, false>, 2, 1>(all());
    all_products::<Small<10, false>, 2, 2>(all());
    all_products::<Small<9, false>, 2, 1>(all());
    all_products::<Small<9, false>, 2, 2>(all());
    all_products::<Small<8, true>, 2, 1>(all());
    all_products::<Small<8, true>, 2, 2>(all());
}

/// Every odd modulus below R/16 and the four largest, and every pair of numbers below 2m.
#[test]
fn three_limbs_are_right_for_all_numbers_of_many_moduli() {
    const { assert!(!crowded::<Small<11, false>, 3>() && crowded::<Small<10, false>, 3>()) };
    let r = BETA.pow(3);
    let many = || (3..r / 16).chain(r / 4 - 8..r / 4);
    all_products::<Small<11, false>, 3, 1>(many());
    all_products::<Small<11, false>, 3, 3>(many());
    all_products::<Small<10, false>, 3, 1>(many());
    all_products::<Small<10, false>, 3, 3>(many());
    all_products::<Small<8, true>, 3, 1>(many());
    all_products::<Small<8, true>, 3, 3>(many());
}

/// Every odd modulus, and all numbers below 2m against those at the edges of limbs and of the range.
#[test]
fn three_limbs_are_right_for_all_moduli() {
    let r = BETA.pow(3);
    for m in (3..=r / 4).filter(|m| m % 2 == 1) {
        let mut operands: Vec<u64> = (0..2 * m)
            .filter(|a| limbs::<3>(*a).iter().all(|limb| [0, 1, 7, 8, 15].contains(limb)))
            .collect();
        operands.extend([m - 1, m, m + 1, 2 * m - 2, 2 * m - 1]);
        products::<Small<11, false>, 3, 3>(m, &operands);
        products::<Small<10, false>, 3, 3>(m, &operands);
        products::<Small<8, true>, 3, 3>(m, &operands);
    }
}

/// Several tiles of several columns, as the kernels have them: numbers and moduli whose limbs are at the edges.
#[test]
fn tiles_are_right_at_the_edges_of_limbs() {
    const { assert!(!crowded::<Small<12, false>, 6>() && crowded::<Small<11, false>, 6>()) };
    let edges = |len: u32, edges: &[u64]| -> Vec<u64> {
        (0..len).fold(std::vec![0], |numbers, _| {
            numbers.iter().flat_map(|number| edges.iter().map(move |edge| number * BETA + edge)).collect()
        })
    };
    for m in edges(4, &[0, 1, 15]).into_iter().filter(|m| m % 2 == 1 && 4 * m <= BETA.pow(4) && *m > 1) {
        let operands: Vec<u64> = edges(4, &[0, 1, 8, 15]).into_iter().filter(|&a| a < 2 * m).collect();
        products::<Small<11, false>, 4, 2>(m, &operands);
        products::<Small<10, false>, 4, 2>(m, &operands);
        products::<Small<9, true>, 4, 2>(m, &operands);
    }
    for m in [BETA.pow(6) / 4 - 1, BETA.pow(6) / 8 + 1, BETA.pow(5) - 1, BETA.pow(5) / 2 + 1] {
        let operands: Vec<u64> = edges(6, &[0, 1, 15]).into_iter().filter(|&a| a < 2 * m).collect();
        products::<Small<12, false>, 6, 3>(m, &operands);
        products::<Small<11, false>, 6, 3>(m, &operands);
        products::<Small<9, true>, 6, 3>(m, &operands);
    }
}

/// What `two_pow_batch_vartime` squares: numbers up to 16 m, where R ≥ 2^8 m.
#[test]
fn squares_of_sixteenfold_numbers_are_right() {
    for m in (3..=BETA).filter(|m| m % 2 == 1) {
        for a in 0..16 * m {
            for moduli in moduli::<Small<11, false>, 3>(m) {
                square::<_, 3, 3>(&moduli, m, a);
            }
            for moduli in moduli::<Small<8, true>, 3>(m) {
                square::<_, 3, 1>(&moduli, m, a);
            }
        }
    }
}
