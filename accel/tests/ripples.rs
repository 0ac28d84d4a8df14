//! The kernels against the portable one, on words that ripple carries through rows, blocks and windows, and on products whose quotient
//! is hard to tell.

use swarmseal_core::kernels::{ByteOrder, Exponent};
use swarmseal_core::{Group, Kernels, Modulus, Word};

/// The scalar kernels that this machine can run.
fn scalar() -> impl Iterator<Item = &'static Kernels> {
    swarmseal_accel::each().filter(|kernels| ["mul", "adx", "umulh", "umaal"].contains(&kernels.name))
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

/// Blocks enough for the kernels to prepare the factor, against portable.
fn check_blocks(kernels: &Kernels, m: &Modulus, factor: &[Word], blocks: &[Vec<Word>]) {
    let mut bytes: Vec<u8> = blocks.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
    let mut expected = bytes.clone();
    (kernels.mul_blocks)(m, factor, ByteOrder::Little, &mut bytes);
    (Kernels::portable().mul_blocks)(m, factor, ByteOrder::Little, &mut expected);
    assert!(bytes == expected, "{} {factor:x?} of {m:x?}", kernels.name, m = m.limbs());
}

#[test]
fn blocks_that_ripple() {
    for kernels in swarmseal_accel::each().chain(swarmseal_accel::models()) {
        for len in [1024, 1536, 2048, 3072, 4096].map(|bits| bits / Word::BITS as usize) {
            let mut random = Random(len as u64);
            for round in 0..20 {
                let mut words = random.number(len);
                // As large as can be, as small as can be, and what comes.
                match round % 4 {
                    0 => *words.last_mut().unwrap() |= Word::MAX << 1,
                    1 => words[1..].fill(0),
                    _ => {}
                }
                words[0] |= 3;
                let m = Modulus::from_words(&words).unwrap();
                let mut factor = vec![0; len]; // a number mod m
                (Kernels::portable().mont_mul)(&m, &random.number(len), m.one(), &mut factor);
                let mut blocks: Vec<_> = (0..90).map(|_| random.number(len)).collect();
                blocks.extend([vec![0; len], vec![Word::MAX; len], words.clone()]);
                check_blocks(kernels, &m, &factor, &blocks);
            }
        }
    }
}

/// A quotient by an approximate inverse is one too small only where the remainder is tiny beside p: 0, 1, 2, up to some 2^−56 p.
#[test]
fn products_just_above_a_multiple_of_p() {
    for kernels in swarmseal_accel::each().chain(swarmseal_accel::models()) {
        for group in Group::names().filter_map(|name| Group::by_name(name, kernels)) {
            let (m, len) = (group.modulus(), group.modulus().len());
            let mut random = Random(len as u64);
            let factor = below(random.number(len), m.limbs());
            // By Fermat.
            let mut exponent: Vec<u8> = m.limbs().iter().rev().flat_map(|word| word.to_be_bytes()).collect();
            *exponent.last_mut().unwrap() -= 2;
            let mut inverse = vec![0; len];
            (kernels.modpow)(m, &factor, &Exponent::from_be(&exponent), &mut inverse);
            let block = |remainder: &[Word]| {
                let mut block = vec![0; len];
                (kernels.mont_mul)(m, remainder, &inverse, &mut block);
                block
            };
            let bit = |i: usize| {
                let mut power = vec![0; len];
                power[i / Word::BITS as usize] = 1 << (i % Word::BITS as usize);
                power
            };
            let mut blocks: Vec<_> = (0..group.bits() - 1).map(|i| block(&bit(i))).collect();
            blocks.extend([block(&vec![0; len]), m.limbs().to_vec()]);
            check_blocks(kernels, m, &factor, &blocks);
            // x = p, which leaves 0 for any factor, and x just above it.
            let mut above = m.limbs().to_vec();
            above[0] = above[0].wrapping_add(1);
            check_blocks(kernels, m, m.one(), &vec![vec![m.limbs().to_vec(), above]; 40].concat());
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
