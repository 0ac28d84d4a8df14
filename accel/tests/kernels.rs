//! Every backend that this machine can run, against crypto-bigint: on edges made by hand and on random numbers.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U4096};
use proptest::prelude::*;
use swarmseal_core::kernels::{ByteOrder, Comb, Exponent, Power, TwoPower};
use swarmseal_core::{Group, Kernels, LIMBS, Modulus, Word};

type Number = [Word; LIMBS];

fn everything() -> impl Iterator<Item = &'static Kernels> {
    swarmseal_accel::each().chain(swarmseal_accel::models())
}

/// `.ci/cross` and `.ci/run` hold what this prints against what the CPU says of itself.
#[test]
fn says_which_backends_are_exercised() {
    let ran: Vec<&str> = swarmseal_accel::each().map(|kernels| kernels.name).collect();
    println!("exercised: {}", ran.join(" "));
    for candidate in swarmseal_accel::candidates().filter(|candidate| !ran.contains(&candidate.name)) {
        println!("not tested: {} (needs {})", candidate.name, candidate.needs);
    }
    assert!(everything().count() > ran.len() && ran.contains(&"portable"));
}

/// A group's arithmetic by crypto-bigint.
struct Oracle {
    params: FixedMontyParams<{ U4096::LIMBS }>,
    /// R mod p, for the R of the group's width.
    r: FixedMontyForm<{ U4096::LIMBS }>,
    r_inverse: FixedMontyForm<{ U4096::LIMBS }>,
}

impl Oracle {
    fn new(group: &Group) -> Self {
        let p = number(group.modulus().limbs());
        let params = FixedMontyParams::new_vartime(Odd::new(U4096::from_words(p)).unwrap());
        let two = FixedMontyForm::new(&U4096::from_u8(2), &params);
        let r = two.pow(&U4096::from_u64(group.bits() as u64));
        Oracle { params, r, r_inverse: r.invert().unwrap() }
    }

    fn form(&self, a: &Number) -> FixedMontyForm<{ U4096::LIMBS }> {
        FixedMontyForm::new(&U4096::from_words(*a).rem(self.params.modulus().as_nz_ref()), &self.params)
    }

    /// a b R^−1 mod p.
    fn mont_mul(&self, a: &Number, b: &Number) -> Number {
        (self.form(a) * self.form(b) * self.r_inverse).retrieve().to_words()
    }

    /// a b mod p.
    fn mul(&self, a: &Number, b: &Number) -> Number {
        (self.form(a) * self.form(b)).retrieve().to_words()
    }

    /// The mont form of (base R^−1)^exponent.
    fn mont_pow(&self, base: &Number, exponent: &Number) -> Number {
        let plain = self.form(base) * self.r_inverse;
        (plain.pow(&U4096::from_words(*exponent)) * self.r).retrieve().to_words()
    }
}

fn number(words: &[Word]) -> Number {
    let mut number = [0; LIMBS];
    number[..words.len()].copy_from_slice(words);
    number
}

/// `a` ± a small number, within `len` words.
fn offset(a: &[Word], by: i8) -> Number {
    let a = U4096::from_words(number(a));
    let by_abs = U4096::from_u8(by.unsigned_abs());
    if by < 0 { a.wrapping_sub(&by_abs) } else { a.wrapping_add(&by_abs) }.to_words()
}

/// Numbers below R that random draws miss.
fn edges(group: &Group) -> Vec<Number> {
    let (p, len) = (group.modulus().limbs(), group.modulus().len());
    let mut edges: Vec<Number> = (-2..=2).map(|by| offset(p, by)).collect();
    edges.extend((0..=2).map(|small| offset(&[], small)));
    // All ones in the lowest words, alone and below a clear word: operands that ripple every carry.
    for ones in 1..=len {
        edges.push(number(&vec![Word::MAX; ones]));
        let mut words = vec![Word::MAX; len];
        words[ones - 1] = 0;
        edges.push(number(&words));
    }
    for word in 0..len {
        let mut words = vec![0; len];
        words[word] = 1;
        edges.push(number(&words));
        words[word] = 1 << (Word::BITS - 1);
        edges.push(number(&words));
    }
    edges.push(number(group.modulus().one()));
    edges.push(number(group.modulus().r2()));
    edges
}

fn groups(kernels: &'static Kernels) -> impl Iterator<Item = Group> {
    Group::names().filter_map(move |name| Group::by_name(name, kernels))
}

fn check_product(kernels: &Kernels, group: &Group, oracle: &Oracle, a: &Number, b: &Number) {
    let (m, len) = (group.modulus(), group.modulus().len());
    let mut product = [0; LIMBS];
    (kernels.mont_mul)(m, &a[..len], &b[..len], &mut product[..len]);
    assert_eq!(product, oracle.mont_mul(a, b), "{} {} {a:x?} {b:x?}", kernels.name, group.bits());
}

fn check_square(kernels: &Kernels, group: &Group, oracle: &Oracle, a: &Number) {
    let (m, len) = (group.modulus(), group.modulus().len());
    let mut square = [0; LIMBS];
    (kernels.mont_sqr)(m, &a[..len], &mut square[..len]);
    assert_eq!(square, oracle.mont_mul(a, a), "{} {} {a:x?}", kernels.name, group.bits());
}

/// Every power by itself, all in one batch, and each base's comb with every exponent.
fn check_powers(kernels: &Kernels, group: &Group, oracle: &Oracle, bases: &[Number], exponents: &[&[u8]]) {
    let (m, len) = (group.modulus(), group.modulus().len());
    let wide = |bytes: &[u8]| {
        let mut wide = [0; 512];
        wide[512 - bytes.len()..].copy_from_slice(bytes);
        U4096::from_be_slice(&wide).to_words()
    };
    let numbers: Vec<Exponent> = exponents.iter().map(|bytes| Exponent::from_be(bytes)).collect();
    let mut powers = Vec::new();
    let mut expected = Vec::new();
    for base in bases {
        for (bytes, exponent) in exponents.iter().zip(&numbers) {
            let power = oracle.mont_pow(base, &wide(bytes));
            let mut single = [0; LIMBS];
            (kernels.modpow)(m, &base[..len], exponent, &mut single[..len]);
            assert_eq!(single, power, "{} {} {base:x?}^{bytes:x?}", kernels.name, group.bits());
            powers.push(Power { modulus: m, base: &base[..len], exponent });
            expected.extend_from_slice(&power[..len]);
        }
    }
    // Batches of every remainder modulo the number of lanes.
    for count in [powers.len(), 0, 1, 2, 5, 7].into_iter().filter(|&count| count <= powers.len()) {
        let mut batch = vec![0; count * len];
        (kernels.modpow_batch)(&powers[..count], &mut batch);
        assert_eq!(batch, expected[..count * len], "{} {} batch of {count}", kernels.name, group.bits());
    }
    let bits = numbers.iter().map(Exponent::bits).max().unwrap();
    let refs: Vec<&Exponent> = numbers.iter().collect();
    let tables: Vec<Vec<Word>> = bases
        .iter()
        .map(|base| {
            let mut table = vec![0; (kernels.comb_words)(m, bits)];
            (kernels.comb_fill)(m, &base[..len], bits, &mut table);
            table
        })
        .collect();
    for (i, first) in tables.iter().enumerate() {
        let mut out = vec![0; refs.len() * len];
        (kernels.comb_pow)(m, bits, &[Comb { table: first, exponents: &refs }], &mut out);
        assert_eq!(out, expected[i * refs.len() * len..][..out.len()], "{} {}", kernels.name, group.bits());
        // Two terms: the second base with the exponents in reverse.
        let second = (i + 1) % tables.len();
        let reversed: Vec<&Exponent> = refs.iter().rev().copied().collect();
        let combs =
            [Comb { table: first, exponents: &refs }, Comb { table: &tables[second], exponents: &reversed }];
        (kernels.comb_pow)(m, bits, &combs, &mut out);
        // As few as leave lanes empty: the same, of one term and of two.
        for count in 1..refs.len() {
            let few = combs.map(|comb| Comb { exponents: &comb.exponents[..count], ..comb });
            let mut part = vec![0; count * len];
            (kernels.comb_pow)(m, bits, &few, &mut part);
            assert_eq!(part, out[..count * len], "{} {} {count} of two terms", kernels.name, group.bits());
            (kernels.comb_pow)(m, bits, &few[..1], &mut part);
            let alone = &expected[i * refs.len() * len..][..count * len];
            assert_eq!(part, alone, "{} {} {count} of one term", kernels.name, group.bits());
        }
        for (k, product) in out.chunks_exact(len).enumerate() {
            let power = |base: usize, k: usize| number(&expected[(base * refs.len() + k) * len..][..len]);
            let expected = oracle.mont_mul(&power(i, k), &power(second, refs.len() - 1 - k));
            assert_eq!(product, &expected[..len], "{} {} two terms", kernels.name, group.bits());
        }
    }
}

fn check_block(kernels: &Kernels, group: &Group, oracle: &Oracle, factor: &Number, block: &Number) {
    let (m, len) = (group.modulus(), group.modulus().len());
    // Three blocks, so that the neighbours of the one that matters are seen to be left in place.
    let mut bytes: Vec<u8> = Vec::new();
    for words in [offset(&[], 1), *block, offset(m.limbs(), -1)] {
        bytes.extend(words[..len].iter().flat_map(|word| word.to_le_bytes()));
    }
    let width = group.bytes();
    let expected: Vec<u8> = bytes
        .chunks_exact(width)
        .flat_map(|chunk| {
            let mut wide = [0; 512];
            wide[..width].copy_from_slice(chunk);
            // factor is mont: its number is factor R^−1.
            let product = oracle.mont_mul(factor, &U4096::from_le_slice(&wide).to_words());
            product[..len].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()
        })
        .collect();
    let mut little = bytes.clone();
    (kernels.mul_blocks)(m, &factor[..len], ByteOrder::Little, &mut little);
    assert_eq!(little, expected, "{} {} {block:x?}", kernels.name, group.bits());
    let reversed = |bytes: &[u8]| -> Vec<u8> {
        bytes.chunks_exact(width).flat_map(|block| block.iter().rev().copied()).collect()
    };
    let mut big = reversed(&bytes);
    (kernels.mul_blocks)(m, &factor[..len], ByteOrder::Big, &mut big);
    assert_eq!(big, reversed(&expected), "{} {} big-endian", kernels.name, group.bits());
}

#[test]
fn products_of_edges() {
    for kernels in everything() {
        for group in groups(kernels) {
            let oracle = Oracle::new(&group);
            let edges = edges(&group);
            let p = U4096::from_words(number(group.modulus().limbs()));
            let below_p = |edge: &&Number| U4096::from_words(**edge) < p;
            // a < R, b < p. Every edge meets some others; all pairs would take minutes.
            for (i, a) in edges.iter().enumerate() {
                for b in edges.iter().filter(below_p).skip(i % 7).step_by(7) {
                    check_product(kernels, &group, &oracle, a, b);
                }
                if below_p(&a) {
                    check_square(kernels, &group, &oracle, a);
                }
            }
            let factors =
                [offset(group.modulus().limbs(), -1), number(group.modulus().one()), offset(&[], 1)];
            for (i, block) in edges.iter().enumerate() {
                check_block(kernels, &group, &oracle, &factors[i % factors.len()], block);
            }
        }
    }
}

#[test]
fn a_buffer_of_any_number_of_blocks() {
    for kernels in everything() {
        let group = Group::ffdhe2048(kernels);
        let (m, width) = (group.modulus(), group.bytes());
        let whole: Vec<u8> = (0..37 * width).map(|i| (i * i % 251) as u8).collect();
        let mut at_once = whole.clone();
        (kernels.mul_blocks)(m, m.r2(), ByteOrder::Little, &mut at_once);
        for blocks in 0..37 {
            let mut part = whole[..blocks * width].to_vec();
            (kernels.mul_blocks)(m, m.r2(), ByteOrder::Little, &mut part);
            assert_eq!(part, at_once[..blocks * width], "{} {blocks}", kernels.name);
        }
    }
}

#[test]
fn powers_of_edges() {
    for kernels in everything() {
        for group in groups(kernels).filter(|group| group.bits() <= 2048) {
            let oracle = Oracle::new(&group);
            let m = group.modulus();
            let bases = [offset(&[], 0), offset(&[], 1), number(m.one()), offset(m.limbs(), -1)];
            let full = vec![0xfe; group.bytes()];
            let exponents: [&[u8]; 7] = [&[0], &[1], &[0x80, 0], &[0xff; 3], &[0xff; 32], &[0x80; 48], &full];
            check_powers(kernels, &group, &oracle, &bases, &exponents);
        }
    }
}

/// Odd moduli unlike the named primes, whose lowest and highest 64 bits are all ones.
fn odd_moduli(len: usize) -> Vec<Modulus> {
    let top = 1 << (Word::BITS - 1);
    let of = |word: &dyn Fn(usize) -> Word| {
        let mut words: Vec<Word> = (0..len).map(word).collect();
        words[0] |= 1;
        words[len - 1] |= top;
        Modulus::from_words(&words).unwrap()
    };
    vec![
        of(&|_| Word::MAX),
        of(&|_| 0),
        of(&|i| if i == 0 { Word::MAX } else { 0 }),
        of(&|i| if i == 0 { Word::MAX - 1 } else { Word::MAX }),
        of(&|i| (i as Word + 5).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as Word).rotate_left(i as u32)),
        of(&|i| {
            (i as Word + 77).wrapping_mul(0xd134_2543_de82_ef95_u64 as Word).rotate_left(3 * i as u32) << 20
        }),
    ]
}

#[test]
fn any_odd_modulus_gives_what_portable_gives() {
    let portable = Kernels::portable();
    for kernels in everything() {
        for bits in [512, 768, 1024, 1536, 2048, 3072, 4096] {
            let len = bits / Word::BITS as usize;
            let moduli = odd_moduli(len);
            for m in &moduli {
                let mut numbers = vec![
                    vec![0; len],
                    offset(m.limbs(), -1)[..len].to_vec(),
                    m.one().to_vec(),
                    m.r2().to_vec(),
                ];
                for seed in 0..4 {
                    let mut x = vec![0; len];
                    (portable.mont_mul)(m, &numbers[numbers.len() - 1], &numbers[1 + seed], &mut x);
                    numbers.push(x);
                }
                let (mut found, mut expected) = (vec![0; len], vec![0; len]);
                for a in &numbers {
                    (kernels.mont_sqr)(m, a, &mut found);
                    (portable.mont_mul)(m, a, a, &mut expected);
                    assert_eq!(found, expected, "{} {bits} {a:x?}", kernels.name);
                    for b in &numbers {
                        (kernels.mont_mul)(m, a, b, &mut found);
                        (portable.mont_mul)(m, a, b, &mut expected);
                        assert_eq!(found, expected, "{} {bits} {a:x?} {b:x?}", kernels.name);
                    }
                    let mut blocks: Vec<u8> =
                        numbers.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
                    blocks.extend(vec![0xff; bits / 8]);
                    let mut truth = blocks.clone();
                    (kernels.mul_blocks)(m, a, ByteOrder::Little, &mut blocks);
                    (portable.mul_blocks)(m, a, ByteOrder::Little, &mut truth);
                    assert_eq!(blocks, truth, "{} {bits} {a:x?}", kernels.name);
                }
                let exponents = [Exponent::from_be(&[0xff, 0xfe]), Exponent::from_be(&[0x35; 9])];
                let mut table = vec![0; (kernels.comb_words)(m, 72)];
                (kernels.comb_fill)(m, &numbers[4], 72, &mut table);
                let refs: Vec<&Exponent> = exponents.iter().collect();
                let mut comb = vec![0; 2 * len];
                (kernels.comb_pow)(m, 72, &[Comb { table: &table, exponents: &refs }], &mut comb);
                for (exponent, power) in exponents.iter().zip(comb.chunks_exact(len)) {
                    (portable.modpow)(m, &numbers[4], exponent, &mut expected);
                    assert_eq!(power, expected, "{} {bits} {m:x?}", kernels.name, m = m.limbs());
                }
            }
            // All of them at once: lanes with moduli of their own.
            let exponent = Exponent::from_be(&[0x9d; 12]);
            let powers: Vec<Power<'_>> = moduli
                .iter()
                .map(|modulus| Power { modulus, base: modulus.one(), exponent: &exponent })
                .collect();
            let two: Vec<TwoPower<'_>> =
                moduli.iter().map(|modulus| TwoPower { modulus, exponent: &exponent }).collect();
            let (mut found, mut expected) = (vec![0; len * powers.len()], vec![0; len * powers.len()]);
            (kernels.modpow_batch)(&powers, &mut found);
            (portable.modpow_batch)(&powers, &mut expected);
            assert_eq!(found, expected, "{} {bits}", kernels.name);
            (kernels.two_pow_batch_vartime)(&two, &mut found);
            (portable.two_pow_batch_vartime)(&two, &mut expected);
            assert_eq!(found, expected, "{} {bits} powers of two", kernels.name);
        }
    }
}

/// Moduli that leave their highest words clear.
fn short_moduli(len: usize) -> Vec<Modulus> {
    let of = |words: &[Word]| Modulus::from_words(&number(words)[..len]).unwrap();
    let mut above_half = vec![0; len / 2 + 1];
    (above_half[0], above_half[len / 2]) = (1, 1);
    let mut one_bit_less = vec![Word::MAX; len];
    one_bit_less[len - 1] >>= 1;
    vec![of(&[3]), of(&[Word::MAX, 1]), of(&vec![Word::MAX; len / 2]), of(&above_half), of(&one_bit_less)]
}

#[test]
fn blocks_by_constants_where_quotients_are_closest() {
    let portable = Kernels::portable();
    for bits in [1024, 1536, 2048, 3072, 4096] {
        let len = bits / Word::BITS as usize;
        let all_ones = number(&vec![Word::MAX; len]);
        for m in odd_moduli(len).iter().chain(&short_moduli(len)) {
            let p = U4096::from_words(number(m.limbs()));
            // By w = −1, p − t becomes t. The quotients taken with words, or with limbs of 52 and 28 bits, are one too small where t / p is
            // below some thirty units in the last place, which then is one of these.
            let powers = [66, 64, 62, 61, 60, 59, 58, 56, 54, 52, 50, 48, 46, 30, 28, 26, 24, 22]
                .map(|below| bits - below);
            let residues =
                (0..3).map(U4096::from_u64).chain(powers.map(|power| U4096::ONE.shl_vartime(power as u32)));
            let mut blocks: Vec<Number> =
                residues.map(|t| p.wrapping_sub(&t).to_words()).map(|x| number(&x[..len])).collect();
            blocks.extend([
                offset(&[], 0),
                offset(&[], 1),
                offset(&p.to_words(), 1),
                offset(&p.to_words(), 2),
            ]);
            blocks.extend([all_ones, offset(&all_ones, -1)]);
            for i in 0..len {
                let mut hole = all_ones;
                hole[i] = 0;
                blocks.push(hole);
            }
            let blocks: Vec<u8> =
                blocks.iter().flat_map(|x| x[..len].iter().flat_map(|word| word.to_le_bytes())).collect();
            let minus_one = p.wrapping_sub(&U4096::from_words(number(m.one()))).to_words();
            for factor in [minus_one, number(m.one()), number(m.r2()), offset(m.limbs(), -1), offset(&[], 1)]
            {
                let mut expected = blocks.clone();
                (portable.mul_blocks)(m, &factor[..len], ByteOrder::Little, &mut expected);
                for kernels in everything() {
                    let mut found = blocks.clone();
                    (kernels.mul_blocks)(m, &factor[..len], ByteOrder::Little, &mut found);
                    assert!(found == expected, "{} {bits} {:x?} by {factor:x?}", kernels.name, m.limbs());
                }
            }
        }
    }
}

#[test]
fn powers_of_two() {
    for kernels in everything() {
        for group in groups(kernels) {
            let len = group.modulus().len();
            let two = {
                let mut two = number(group.modulus().one());
                let one = two;
                (kernels.mont_mul)(
                    group.modulus(),
                    &offset(&[], 2)[..len],
                    group.modulus().r2(),
                    &mut two[..len],
                );
                assert_ne!(two, one);
                two
            };
            let bytes: [&[u8]; 9] =
                [&[], &[0], &[1], &[2], &[0xff], &[0x80, 0], &[0xff; 9], &[0xa7; 40], &[0xfe; 63]];
            let exponents = bytes.map(Exponent::from_be);
            for count in [0, 1, 5, 9] {
                let powers: Vec<TwoPower<'_>> = exponents[..count]
                    .iter()
                    .map(|exponent| TwoPower { modulus: group.modulus(), exponent })
                    .collect();
                let mut batch = vec![0; count * len];
                (kernels.two_pow_batch_vartime)(&powers, &mut batch);
                for (power, found) in powers.iter().zip(batch.chunks_exact(len)) {
                    let mut expected = [0; LIMBS];
                    (Kernels::portable().modpow)(
                        power.modulus,
                        &two[..len],
                        power.exponent,
                        &mut expected[..len],
                    );
                    assert_eq!(
                        found,
                        &expected[..len],
                        "{} {} {:?}",
                        kernels.name,
                        group.bits(),
                        power.exponent
                    );
                }
            }
        }
    }
}

#[test]
fn moduli_of_one_length_share_a_batch() {
    for kernels in everything() {
        for group in groups(kernels) {
            let len = group.modulus().len();
            let exponent = Exponent::from_be(&[0xa5; 9]);
            let base = offset(&[], 3);
            let moduli = [group.modulus(), group.order(), group.modulus()];
            let powers = moduli.map(|modulus| Power { modulus, base: &base[..len], exponent: &exponent });
            let mut batch = vec![0; powers.len() * len];
            (kernels.modpow_batch)(&powers, &mut batch);
            for (power, batched) in powers.iter().zip(batch.chunks_exact(len)) {
                let mut expected = [0; LIMBS];
                (Kernels::portable().modpow)(power.modulus, power.base, &exponent, &mut expected[..len]);
                assert_eq!(batched, &expected[..len], "{} {}", kernels.name, group.bits());
            }
        }
    }
}

/// Six cases meet every backend and group; `PROPTEST_CASES` asks for more.
fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(6);
    ProptestConfig::with_cases(cases)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn random_products_and_powers(
        a in prop::collection::vec(any::<u8>(), 512),
        b in prop::collection::vec(any::<u8>(), 512),
        exponent in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        for kernels in everything() {
            for group in groups(kernels) {
                let oracle = Oracle::new(&group);
                let cut = |bytes: &[u8]| {
                    let mut wide = [0; 512];
                    wide[..group.bytes()].copy_from_slice(&bytes[..group.bytes()]);
                    U4096::from_le_slice(&wide).to_words()
                };
                let (a, b) = (cut(&a), oracle.mul(&cut(&b), &offset(&[], 1)));
                check_product(kernels, &group, &oracle, &a, &b);
                check_square(kernels, &group, &oracle, &b);
                check_block(kernels, &group, &oracle, &b, &a);
                if group.bits() <= 1024 {
                    check_powers(kernels, &group, &oracle, &[b], &[&exponent, &exponent[1..]]);
                }
            }
        }
    }
}
