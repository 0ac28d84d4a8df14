//! crypto-bigint: Montgomery forms of fixed width and its constant-time exponentiation.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Limb, Odd, Uint};

use super::{Rival, candidate_or_prime};
use crate::problem::{ByWidth, Problem, Width};

pub(super) const NAME: &str = "crypto-bigint";

/// The rival for the problem's size.
pub(super) fn rival(problem: &Problem) -> Box<dyn Rival + '_> {
    const fn limbs(bits: u32) -> usize {
        (bits / Limb::BITS) as usize
    }
    match problem.bits {
        512 => Box::new(CryptoBigint::<{ limbs(512) }>::new(problem)),
        768 => Box::new(CryptoBigint::<{ limbs(768) }>::new(problem)),
        1024 => Box::new(CryptoBigint::<{ limbs(1024) }>::new(problem)),
        1536 => Box::new(CryptoBigint::<{ limbs(1536) }>::new(problem)),
        2048 => Box::new(CryptoBigint::<{ limbs(2048) }>::new(problem)),
        3072 => Box::new(CryptoBigint::<{ limbs(3072) }>::new(problem)),
        4096 => Box::new(CryptoBigint::<{ limbs(4096) }>::new(problem)),
        bits => unreachable!("no group has {bits} bits"),
    }
}

struct CryptoBigint<'p, const LIMBS: usize> {
    problem: &'p Problem,
    params: FixedMontyParams<LIMBS>,
    factor: FixedMontyForm<LIMBS>,
    bases: Vec<FixedMontyForm<LIMBS>>,
    exponents: ByWidth<Uint<LIMBS>>,
    result: FixedMontyForm<LIMBS>,
}

impl<'p, const LIMBS: usize> CryptoBigint<'p, LIMBS> {
    fn new(problem: &'p Problem) -> Self {
        let params = monty_params(&problem.modulus);
        let form = |bytes: &[u8]| FixedMontyForm::new(&number(bytes), &params);
        CryptoBigint {
            problem,
            factor: form(&problem.factor),
            bases: problem.bases.iter().map(|base| form(base)).collect(),
            exponents: problem.exponents.map(|exponent| number(exponent)),
            result: FixedMontyForm::one(&params),
            params,
        }
    }

    fn power(&self, index: usize, width: Width) -> FixedMontyForm<LIMBS> {
        let bits = 8 * self.problem.exponents.of(width)[index].len() as u32;
        self.bases[index].pow_amm_bounded_exp(&self.exponents.of(width)[index], bits)
    }
}

impl<const LIMBS: usize> Rival for CryptoBigint<'_, LIMBS> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        "0.7".to_owned()
    }

    fn mul_blocks(&mut self, blocks: &mut [u8]) {
        for block in blocks.chunks_exact_mut(self.problem.width()) {
            // The factor in Montgomery form: one multiplication gives the plain product.
            let plain = FixedMontyForm::from_montgomery(Uint::from_le_slice(block), &self.params);
            block.copy_from_slice((plain * self.factor).as_montgomery().to_le_bytes().as_ref());
        }
    }

    fn mul_chain(&mut self, times: usize) {
        self.result = self.bases[0];
        for _ in 0..times {
            self.result *= self.factor;
        }
    }

    fn pow(&mut self, index: usize, width: Width) {
        self.result = self.power(index, width);
    }

    fn mul_pow(&mut self, width: Width) {
        self.result = self.power(0, width) * self.power(1, width);
    }

    fn result(&mut self) -> Vec<u8> {
        self.result.retrieve().to_le_bytes().as_ref().to_vec()
    }

    fn is_probable_prime(&mut self, candidate: usize) -> bool {
        // Miller–Rabin with base 2 of a number ≡ 3 mod 4: one exponentiation, and nothing in it is secret.
        let params = monty_params::<LIMBS>(candidate_or_prime(self.problem, candidate));
        let half = params.modulus().as_ref().shr_vartime(1);
        let power = FixedMontyForm::new(&Uint::from_u8(2), &params).pow_vartime(&half);
        let one = FixedMontyForm::one(&params);
        power == one || power == -one
    }
}

fn monty_params<const LIMBS: usize>(modulus: &[u8]) -> FixedMontyParams<LIMBS> {
    FixedMontyParams::new_vartime(Odd::new(number(modulus)).expect("moduli and candidates are odd"))
}

/// From at most as many little-endian bytes as fit.
fn number<const LIMBS: usize>(bytes: &[u8]) -> Uint<LIMBS> {
    let mut padded = vec![0; LIMBS * Limb::BYTES];
    padded[..bytes.len()].copy_from_slice(bytes);
    Uint::from_le_slice(&padded)
}
