//! Every backend on short moduli and few blocks, beside the portable one: quick enough for an interpreter such as Miri, which sees
//! what loads and stores reach. It cannot read assembly: under it the backends that are written in it are left out, and those with lanes
//! have the portable one's single products.

use swarmseal_core::kernels::{ByteOrder, Exponent, Power};
use swarmseal_core::{Kernels, Modulus, Word};

/// Whether a backend's own single products are assembly.
fn interpreted(kernels: &Kernels) -> bool {
    !cfg!(miri) || !["mul", "adx", "umulh", "umaal"].contains(&kernels.name)
}

fn backends() -> impl Iterator<Item = &'static Kernels> {
    swarmseal_accel::each().chain(swarmseal_accel::models()).filter(|kernels| interpreted(kernels))
}

fn numbers(len: usize) -> Vec<Vec<Word>> {
    let of = |word: &dyn Fn(usize) -> Word| (0..len).map(word).collect();
    vec![
        of(&|_| 0),
        of(&|i| Word::from(i == 0)),
        of(&|_| Word::MAX),
        of(&|i| (i as Word + 3).wrapping_mul(0x9e37_79b9)),
    ]
}

#[test]
fn few_blocks_of_every_length() {
    let portable = Kernels::portable();
    for bits in [64, 128, 192, 512, 576, 1024] {
        let len = bits / Word::BITS as usize;
        let mut words = vec![Word::MAX; len];
        words[0] = Word::MAX - 188;
        let m = Modulus::from_words(&words).unwrap();
        let most = if cfg!(miri) && bits > 192 { 9 } else { 17 };
        for blocks in [0, 1, 2, 7, most] {
            for order in [ByteOrder::Little, ByteOrder::Big] {
                let given: Vec<u8> = numbers(len)
                    .iter()
                    .cycle()
                    .take(blocks)
                    .flatten()
                    .flat_map(|word| word.to_le_bytes())
                    .collect();
                let mut expected = given.clone();
                (portable.mul_blocks)(&m, m.r2(), order, &mut expected);
                for kernels in backends() {
                    let mut found = given.clone();
                    (kernels.mul_blocks)(&m, m.r2(), order, &mut found);
                    assert!(found == expected, "{} {bits} {blocks}", kernels.name);
                }
            }
        }
    }
}

#[test]
fn few_powers_of_every_length() {
    let portable = Kernels::portable();
    let exponents = [Exponent::from_be(&[0]), Exponent::from_be(&[0x9d, 0xff])];
    for bits in [64, 192, 512] {
        let len = bits / Word::BITS as usize;
        let mut words = vec![Word::MAX; len];
        words[0] = Word::MAX - 188;
        let m = &Modulus::from_words(&words).unwrap();
        for count in [1, 2, 5] {
            let powers: Vec<Power<'_>> = (0..count)
                .map(|i| Power {
                    modulus: m,
                    base: if i % 2 == 0 { m.one() } else { m.r2() },
                    exponent: &exponents[i % 2],
                })
                .collect();
            let (mut found, mut expected) = (vec![0; count * len], vec![0; count * len]);
            (portable.modpow_batch)(&powers, &mut expected);
            for kernels in backends() {
                (kernels.modpow_batch)(&powers, &mut found);
                assert!(found == expected, "{} {bits} {count}", kernels.name);
            }
        }
    }
}
