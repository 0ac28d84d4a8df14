//! Small numbers, held against the machine's own 128-bit arithmetic: quick enough for an interpreter such as Miri, which sees what a
//! processor hides.

use swarmseal_core::kernels::{ByteOrder, Comb, Exponent, Power, TwoPower};
use swarmseal_core::{Kernels, Modulus, Word};

/// Odd numbers of 64 bits, the first and the last of each size among them.
const MODULI: [u64; 7] =
    [3, 5, 0xffff_fffb, 0x1_0000_000f, 0x8000_0000_0000_0001, 0xffff_ffff_ffff_ffc5, u64::MAX];

fn words(number: u64) -> Vec<Word> {
    number
        .to_le_bytes()
        .chunks(size_of::<Word>())
        .map(|bytes| Word::from_le_bytes(bytes.try_into().unwrap()))
        .collect()
}

fn number(words: &[Word]) -> u64 {
    let mut bytes = words.iter().flat_map(|word| word.to_le_bytes());
    u64::from_le_bytes(std::array::from_fn(|_| bytes.next().unwrap_or_default()))
}

fn mul(a: u64, b: u64, m: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(m)) as u64
}

fn pow(base: u64, exponent: u64, m: u64) -> u64 {
    (0..64).rev().fold(1 % m, |power, bit| {
        let square = mul(power, power, m);
        if exponent >> bit & 1 == 1 { mul(square, base, m) } else { square }
    })
}

/// a R mod m, where R is 2^64.
fn mont(a: u64, m: u64) -> u64 {
    ((u128::from(a) << 64) % u128::from(m)) as u64
}

#[test]
fn small_products_and_powers_are_the_machine_s() {
    let kernels = Kernels::portable();
    for m in MODULI {
        let modulus = Modulus::from_words(&words(m)).unwrap();
        assert_eq!((number(modulus.limbs()), number(modulus.one())), (m, mont(1, m)));
        let edges = [0, 1, 2, m / 2, m - 2, m - 1];
        let mut out = words(0);
        for a in edges {
            (kernels.mont_sqr)(&modulus, &words(a), &mut out);
            assert_eq!(mont(number(&out), m), mul(a, a, m), "{a}² mod {m}");
            // The first may be anything below R.
            for (a, b) in edges.map(|b| (a, b)).into_iter().chain([(u64::MAX, a), (m, a)]) {
                (kernels.mont_mul)(&modulus, &words(a), &words(b), &mut out);
                assert!(number(&out) < m);
                assert_eq!(mont(number(&out), m), mul(a % m, b, m), "{a} {b} mod {m}");
            }
            let mut blocks: Vec<u8> = [u64::MAX, a].iter().flat_map(|block| block.to_be_bytes()).collect();
            (kernels.mul_blocks)(&modulus, &words(mont(m - 1, m)), ByteOrder::Big, &mut blocks);
            let expected = [u64::MAX, a].map(|block| mul(block % m, m - 1, m));
            assert_eq!(blocks, expected.map(u64::to_be_bytes).concat());
        }
    }
}

#[test]
fn small_batches_and_combs_are_the_machine_s() {
    let kernels = Kernels::portable();
    let exponents = [0_u16, 1, 0x8001, 0xffff];
    let parsed = exponents.map(|exponent| Exponent::from_be(&exponent.to_be_bytes()));
    for m in MODULI {
        let modulus = &Modulus::from_words(&words(m)).unwrap();
        let base = words(mont(m - 2, m));
        let expected: Vec<u64> =
            exponents.iter().map(|&exponent| mont(pow(m - 2, exponent.into(), m), m)).collect();
        let numbers = |out: &[Word]| out.chunks(words(0).len()).map(number).collect::<Vec<u64>>();
        let mut out = words(0).repeat(exponents.len());

        let powers: Vec<Power<'_>> =
            parsed.iter().map(|exponent| Power { modulus, base: &base, exponent }).collect();
        (kernels.modpow_batch)(&powers, &mut out);
        assert_eq!(numbers(&out), expected, "{m}");

        let mut table = vec![0; (kernels.comb_words)(modulus, 16)];
        (kernels.comb_fill)(modulus, &base, 16, &mut table);
        let all: Vec<&Exponent> = parsed.iter().collect();
        (kernels.comb_pow)(modulus, 16, &[Comb { table: &table, exponents: &all }], &mut out);
        assert_eq!(numbers(&out), expected, "{m}");

        let powers: Vec<TwoPower<'_>> =
            parsed.iter().map(|exponent| TwoPower { modulus, exponent }).collect();
        (kernels.two_pow_batch_vartime)(&powers, &mut out);
        let expected: Vec<u64> =
            exponents.iter().map(|&exponent| mont(pow(2 % m, exponent.into(), m), m)).collect();
        assert_eq!(numbers(&out), expected, "{m}");
    }
}
