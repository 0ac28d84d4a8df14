//! The named groups, against crypto-bigint and their definitions; and SGen.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U4096};
use swarmseal_core::{Error, Group, Kernels};

fn prime(group: &Group) -> Vec<u8> {
    let mut p = vec![0; group.bytes()];
    group.modulus_be(&mut p).unwrap();
    p
}

fn wide(bytes: &[u8]) -> U4096 {
    let mut padded = [0; 512];
    padded[512 - bytes.len()..].copy_from_slice(bytes);
    U4096::from_be_slice(&padded)
}

/// base^exponent mod modulus by crypto-bigint.
fn oracle_pow(base: u64, exponent: &U4096, modulus: &U4096) -> U4096 {
    let params = FixedMontyParams::new_vartime(Odd::new(*modulus).unwrap());
    FixedMontyForm::new(&U4096::from_u64(base), &params).pow(exponent).retrieve()
}

/// Fermat's test to a few bases, which finds any slip of the pen in a constant.
fn is_fermat_prime(n: &U4096) -> bool {
    let minus_one = n.wrapping_sub(&U4096::ONE);
    [2, 3, 5].into_iter().all(|base| oracle_pow(base, &minus_one, n) == U4096::ONE)
}

#[test]
fn named_groups_are_safe_primes_with_a_generator_of_order_q() {
    for name in Group::names() {
        let group = Group::by_name(name, Kernels::portable()).unwrap();
        let p = wide(&prime(&group));
        let q = p.shr_vartime(1);
        assert_eq!(p.bit_width_vartime() as usize, group.bits(), "{name}");
        assert!(is_fermat_prime(&p) && is_fermat_prime(&q), "{name}");
        assert_eq!(oracle_pow(2, &q, &p), U4096::ONE, "{name}: 2 has order q");
    }
}

#[test]
fn named_primes_begin_and_end_in_64_one_bits() {
    for name in Group::names() {
        let p = prime(&Group::by_name(name, Kernels::portable()).unwrap());
        assert_eq!(p[..8], [0xff; 8], "{name}");
        assert_eq!(p[p.len() - 8..], [0xff; 8], "{name}");
    }
}

#[test]
fn a_group_from_parts_equals_the_named_one() {
    let named = Group::prime512(Kernels::portable());
    let parts = Group::from_parts(Kernels::portable(), &prime(&named), &[2]).unwrap();
    assert_eq!(named, parts);
}

#[test]
fn bad_groups_are_refused() {
    let p = prime(&Group::prime512(Kernels::portable()));
    let refused = |p: &[u8], g: &[u8]| Group::from_parts(Kernels::portable(), p, g).err();
    let mut even = p.clone();
    even[63] ^= 1;
    let mut composite = p.clone();
    composite[20] ^= 4;
    let mut short = p.clone();
    short[0] = 0x7f;
    let minus_one: Vec<u8> = even.clone();
    for (p, g) in [
        (&even[..], &[2][..]),
        (&composite, &[2]),
        (&short, &[2]),
        (&p[..63], &[2]),
        (&[], &[2]),
        (&p, &[]),
        (&p, &[0]),
        (&p, &[1]),
        (&p, &minus_one),
        (&p, &p),
        // A generator of all of Z_p^*: −2 is no residue mod p ≡ 7 mod 8.
        (&p, &{
            let mut g = p.clone();
            g[63] -= 2;
            g
        }),
    ] {
        assert_eq!(refused(p, g), Some(Error::BadGroup), "{p:x?} {g:x?}");
    }
}

#[cfg(feature = "generate")]
mod generate {
    use super::*;
    use getrandom::SysRng;
    use getrandom::rand_core::UnwrapErr;

    #[test]
    fn sgen_makes_safe_primes_and_reports_progress() {
        for bits in [64, 128, 256, 512] {
            let mut calls = 0;
            let group = Group::generate(Kernels::portable(), bits, &mut UnwrapErr(SysRng), |_| {
                calls += 1;
                true
            })
            .unwrap();
            assert!(calls > 0);
            assert_eq!(group.bits(), bits);
            let p = wide(&prime(&group));
            assert!(is_fermat_prime(&p) && is_fermat_prime(&p.shr_vartime(1)));
            assert_eq!(prime(&group)[bits / 8 - 1] & 7, 7);
        }
    }

    #[test]
    fn sgen_stops_when_told_and_refuses_odd_sizes() {
        let generate =
            |bits| Group::generate(Kernels::portable(), bits, &mut UnwrapErr(SysRng), |_| false).err();
        assert_eq!(generate(1024), Some(Error::GenerationStopped));
        assert_eq!(generate(0), Some(Error::BadGroup));
        assert_eq!(generate(1000), Some(Error::BadGroup));
        assert_eq!(generate(8192), Some(Error::BadGroup));
    }
}
