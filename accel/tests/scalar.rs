//! The scalar kernels against the portable one, on words that ripple carries through rows, blocks and windows.

use swarmseal_core::{Group, Kernels, Word};

/// The scalar kernels that this machine can run.
fn scalar() -> impl Iterator<Item = &'static Kernels> {
    swarmseal_accel::each().filter(|kernels| ["mul", "adx", "umulh"].contains(&kernels.name))
}

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A word from the edges as often as not; runs of one word, as long as a block or longer, are frequent.
    fn number(&mut self, len: usize) -> Vec<Word> {
        let mut words = Vec::new();
        while words.len() < len {
            let word = match self.next() % 8 {
                0 => 0,
                1 => 1,
                2 | 3 => Word::MAX,
                4 => Word::MAX - 1,
                5 => 1 << (Word::BITS - 1),
                _ => self.next() as Word,
            };
            let run = if self.next().is_multiple_of(4) { self.next() as usize % 20 } else { 1 };
            words.extend(std::iter::repeat_n(word, run));
        }
        words.truncate(len);
        words
    }
}

fn below(mut a: Vec<Word>, p: &[Word]) -> Vec<Word> {
    if a.iter().rev().ge(p.iter().rev()) {
        *a.last_mut().unwrap() = 0;
    }
    a
}

fn check(kernels: &Kernels, group: &Group, a: &[Word], b: &[Word]) {
    let m = group.modulus();
    let (mut product, mut expected) = (vec![0; m.len()], vec![0; m.len()]);
    (kernels.mont_mul)(m, a, b, &mut product);
    (Kernels::portable().mont_mul)(m, a, b, &mut expected);
    assert_eq!(product, expected, "{} {} {a:x?} {b:x?}", kernels.name, group.bits());
    (kernels.mont_sqr)(m, b, &mut product);
    (Kernels::portable().mont_mul)(m, b, b, &mut expected);
    assert_eq!(product, expected, "{} {} {b:x?}²", kernels.name, group.bits());
}

#[test]
fn words_that_ripple() {
    for kernels in scalar() {
        for group in Group::names().filter_map(|name| Group::by_name(name, kernels)) {
            let (p, len) = (group.modulus().limbs(), group.modulus().len());
            let mut less_one = p.to_vec();
            less_one[0] -= 1;
            let ones = vec![Word::MAX; len];
            check(kernels, &group, &ones, &less_one);
            check(kernels, &group, p, &less_one);
            check(kernels, &group, &less_one, &less_one);
            check(kernels, &group, &ones, group.modulus().one());
            check(kernels, &group, &ones, &vec![0; len]);
            let mut random = Random(len as u64);
            for _ in 0..3000 {
                let (a, b) = (random.number(len), below(random.number(len), p));
                check(kernels, &group, &a, &b);
            }
        }
    }
}

/// The operations overlap in nothing but their operands: a square of the very slice that is multiplied.
#[test]
fn an_operand_twice() {
    for kernels in scalar() {
        for group in Group::names().filter_map(|name| Group::by_name(name, kernels)) {
            let m = group.modulus();
            let (mut product, mut square) = (vec![0; m.len()], vec![0; m.len()]);
            (kernels.mont_mul)(m, m.r2(), m.r2(), &mut product);
            (kernels.mont_sqr)(m, m.r2(), &mut square);
            assert_eq!(product, square, "{} {}", kernels.name, group.bits());
        }
    }
}
