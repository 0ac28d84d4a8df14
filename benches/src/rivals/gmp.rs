//! GMP, built from the source that crates.io packages: `mpz_powm_sec`, and plain multiplication and division, which is what
//! `mpz` offers for one product.

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;

use gmp_mpfr_sys::gmp;

use super::{Rival, candidate_or_prime};
use crate::problem::{ByWidth, Problem, Width};

/// An owned mpz_t.
struct Number(gmp::mpz_t);

impl Number {
    fn new() -> Self {
        let mut number = MaybeUninit::uninit();
        // SAFETY: mpz_init initialises all of what it is given.
        Number(unsafe {
            gmp::mpz_init(number.as_mut_ptr());
            number.assume_init()
        })
    }

    fn from_le(bytes: &[u8]) -> Self {
        let mut number = Number::new();
        number.load(bytes);
        number
    }

    fn load(&mut self, bytes: &[u8]) {
        let (words, []) = bytes.as_chunks::<8>() else { panic!("numbers of whole words") };
        // SAFETY: reads that many items of 8 bytes from the slice, little-endian and the least significant first.
        unsafe { gmp::mpz_import(&mut self.0, words.len(), -1, 8, -1, 0, words.as_ptr().cast()) }
    }

    /// Panics where the number is longer than the slice.
    fn store(&self, bytes: &mut [u8]) {
        // SAFETY: reads a live number.
        let bits = unsafe { gmp::mpz_sizeinbase(&self.0, 2) };
        assert!(bits <= 8 * bytes.len() && bytes.len().is_multiple_of(8));
        let mut count = 0;
        // SAFETY: writes ⌈bits/64⌉ items of 8 bytes, which fit.
        unsafe { gmp::mpz_export(bytes.as_mut_ptr().cast(), &mut count, -1, 8, -1, 0, &self.0) };
        bytes[8 * count..].fill(0);
    }

    /// self = self · factor mod m.
    fn mul_mod(&mut self, factor: &Number, modulus: &Number) {
        // SAFETY: live numbers; a result may be an operand; the modulus is not 0.
        unsafe {
            gmp::mpz_mul(&mut self.0, &self.0, &factor.0);
            gmp::mpz_tdiv_r(&mut self.0, &self.0, &modulus.0);
        }
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        // SAFETY: initialised, cleared once.
        unsafe { gmp::mpz_clear(&mut self.0) }
    }
}

/// See the [module](self).
pub(super) struct Gmp<'p> {
    problem: &'p Problem,
    modulus: Number,
    factor: Number,
    bases: Vec<Number>,
    exponents: ByWidth<Number>,
    candidates: Vec<Number>,
    result: Number,
    second: Number,
}

impl<'p> Gmp<'p> {
    pub(super) fn new(problem: &'p Problem) -> Self {
        let numbers = |all: &[Vec<u8>]| all.iter().map(|bytes| Number::from_le(bytes)).collect();
        let mut candidates: Vec<Number> = numbers(&problem.candidates);
        candidates.push(Number::from_le(candidate_or_prime(problem, problem.candidates.len())));
        Gmp {
            problem,
            modulus: Number::from_le(&problem.modulus),
            factor: Number::from_le(&problem.factor),
            bases: numbers(&problem.bases),
            exponents: problem.exponents.map(|bytes| Number::from_le(bytes)),
            candidates,
            result: Number::new(),
            second: Number::new(),
        }
    }
}

/// base_i ^ exponent_i, for fields of a [`Gmp`] that are borrowed apart.
macro_rules! power {
    ($this:ident, $index:expr, $width:expr, $out:ident) => {{
        // SAFETY: live numbers; the exponent is positive and the modulus odd, as mpz_powm_sec asks.
        unsafe {
            gmp::mpz_powm_sec(
                &mut $this.$out.0,
                &$this.bases[$index].0,
                &$this.exponents.of($width)[$index].0,
                &$this.modulus.0,
            );
        }
    }};
}

impl Rival for Gmp<'_> {
    fn name(&self) -> &'static str {
        "gmp"
    }

    fn version(&self) -> String {
        // SAFETY: a static string that ends in 0, set before main.
        let version = unsafe { CStr::from_ptr(gmp::version) };
        version.to_string_lossy().into_owned()
    }

    fn mul_blocks(&mut self, blocks: &mut [u8]) {
        for block in blocks.chunks_exact_mut(self.problem.width()) {
            self.result.load(block);
            self.result.mul_mod(&self.factor, &self.modulus);
            self.result.store(block);
        }
    }

    fn mul_chain(&mut self, times: usize) {
        // SAFETY: live numbers.
        unsafe { gmp::mpz_set(&mut self.result.0, &self.bases[0].0) };
        for _ in 0..times {
            self.result.mul_mod(&self.factor, &self.modulus);
        }
    }

    fn pow(&mut self, index: usize, width: Width) {
        power!(self, index, width, result);
    }

    fn mul_pow(&mut self, width: Width) {
        power!(self, 0, width, result);
        power!(self, 1, width, second);
        self.result.mul_mod(&self.second, &self.modulus);
    }

    fn result(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.problem.width()];
        self.result.store(&mut bytes);
        bytes
    }

    fn is_probable_prime(&mut self, candidate: usize) -> bool {
        let reps: c_int = 1;
        // SAFETY: a live number.
        unsafe { gmp::mpz_probab_prime_p(&self.candidates[candidate].0, reps) != 0 }
    }
}

/// Montgomery arithmetic for one odd modulus, by nothing but GMP's products, remainders and powers: what every backend must equal.
/// Numbers are little-endian bytes, as long as the modulus.
pub struct Oracle {
    width: usize,
    modulus: Number,
    r: Number,
    r_inverse: Number,
}

impl Oracle {
    /// For an odd modulus > 1 of whole 64-bit words.
    pub fn new(modulus: &[u8]) -> Self {
        let mut r = vec![0; modulus.len() + 8];
        r[modulus.len()] = 1;
        let width = modulus.len();
        let (modulus, r, mut r_inverse) = (Number::from_le(modulus), Number::from_le(&r), Number::new());
        // SAFETY: live numbers; the modulus is not 0. It is odd, so R has an inverse.
        let inverted = unsafe { gmp::mpz_invert(&mut r_inverse.0, &r.0, &modulus.0) };
        assert_ne!(inverted, 0, "the modulus is odd");
        Oracle { width, modulus, r, r_inverse }
    }

    /// a b R^−1 mod m.
    pub fn product(&self, a: &[u8], b: &[u8]) -> Vec<u8> {
        let mut product = Number::from_le(a);
        product.mul_mod(&Number::from_le(b), &self.modulus);
        self.finish(product, &self.r_inverse)
    }

    /// base^exponent, both the base and the result in Montgomery form. The exponent has whole 64-bit words.
    pub fn power(&self, base: &[u8], exponent: &[u8]) -> Vec<u8> {
        let mut plain = Number::from_le(base);
        plain.mul_mod(&self.r_inverse, &self.modulus);
        let exponent = Number::from_le(exponent);
        let mut power = Number::new();
        // SAFETY: live numbers; the exponent is not negative and the modulus not 0.
        unsafe { gmp::mpz_powm(&mut power.0, &plain.0, &exponent.0, &self.modulus.0) };
        self.finish(power, &self.r)
    }

    fn finish(&self, mut number: Number, factor: &Number) -> Vec<u8> {
        number.mul_mod(factor, &self.modulus);
        let mut bytes = vec![0; self.width];
        number.store(&mut bytes);
        bytes
    }
}
