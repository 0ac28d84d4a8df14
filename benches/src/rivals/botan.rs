//! Botan 2 from the system: the library that the paper used, years later. Powers and primality through its C interface,
//! products through `botan.cpp`.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

use super::{Rival, candidate_or_prime};
use crate::problem::{ByWidth, Problem, Width};

type BotanMp = *mut c_void;
type BotanRng = *mut c_void;

// botan/ffi.h of Botan 2.19.
unsafe extern "C" {
    fn botan_version_string() -> *const c_char;
    fn botan_rng_init(rng: *mut BotanRng, kind: *const c_char) -> c_int;
    fn botan_rng_destroy(rng: BotanRng) -> c_int;
    fn botan_mp_init(mp: *mut BotanMp) -> c_int;
    fn botan_mp_destroy(mp: BotanMp) -> c_int;
    fn botan_mp_num_bytes(mp: BotanMp, bytes: *mut usize) -> c_int;
    fn botan_mp_from_bin(mp: BotanMp, from: *const u8, len: usize) -> c_int;
    fn botan_mp_to_bin(mp: BotanMp, to: *mut u8) -> c_int;
    fn botan_mp_powmod(out: BotanMp, base: BotanMp, exponent: BotanMp, modulus: BotanMp) -> c_int;
    fn botan_mp_is_prime(mp: BotanMp, rng: BotanRng, probability: usize) -> c_int;
}

// botan.cpp, beside this file.
unsafe extern "C" {
    fn products_new(modulus: *const u8, len: usize) -> *mut c_void;
    fn products_free(products: *mut c_void);
    fn products_set_factor(products: *mut c_void, factor: *const u8, len: usize);
    fn products_load(products: *mut c_void, number: *const u8, len: usize);
    fn products_multiply(products: *mut c_void);
    fn products_store(products: *const c_void, number: *mut u8, len: usize);
}

/// Products modulo one number, by a factor that can be changed. Little-endian bytes, reversed on the way.
struct Products(NonNull<c_void>);

impl Products {
    fn new(modulus: &[u8]) -> Self {
        let modulus = reversed(modulus);
        // SAFETY: reads `len` bytes of the slice; the result is owned here.
        let products = unsafe { products_new(modulus.as_ptr(), modulus.len()) };
        Products(NonNull::new(products).expect("new does not return null"))
    }

    fn set_factor(&mut self, factor: &[u8]) {
        let factor = reversed(factor);
        // SAFETY: a live object of this owner; reads `len` bytes of the slice.
        unsafe { products_set_factor(self.0.as_ptr(), factor.as_ptr(), factor.len()) }
    }

    /// Reverses the bytes in place.
    fn load(&mut self, bytes: &mut [u8]) {
        bytes.reverse();
        // SAFETY: a live object of this owner; reads `len` bytes of the slice.
        unsafe { products_load(self.0.as_ptr(), bytes.as_ptr(), bytes.len()) }
    }

    fn multiply(&mut self) {
        // SAFETY: a live object of this owner.
        unsafe { products_multiply(self.0.as_ptr()) }
    }

    fn store(&self, bytes: &mut [u8]) {
        // SAFETY: a live object; writes exactly `len` bytes of the slice.
        unsafe { products_store(self.0.as_ptr(), bytes.as_mut_ptr(), bytes.len()) }
        bytes.reverse();
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { products_free(self.0.as_ptr()) }
    }
}

fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

/// An owned botan_mp_t.
struct Number(BotanMp);

impl Number {
    fn new() -> Self {
        let mut mp = ptr::null_mut();
        // SAFETY: writes one handle.
        ok(unsafe { botan_mp_init(&mut mp) });
        Number(mp)
    }

    fn from_le(bytes: &[u8]) -> Self {
        let (number, bytes) = (Number::new(), reversed(bytes));
        // SAFETY: reads `len` bytes of the slice into a live number.
        ok(unsafe { botan_mp_from_bin(number.0, bytes.as_ptr(), bytes.len()) });
        number
    }

    /// To little-endian bytes. Panics where the number is longer than the slice.
    fn store(&self, bytes: &mut [u8]) {
        let mut len = 0;
        // SAFETY: reads a live number, writes one length.
        ok(unsafe { botan_mp_num_bytes(self.0, &mut len) });
        let (zeros, number) = bytes.split_at_mut(bytes.len() - len);
        zeros.fill(0);
        // SAFETY: writes `len` bytes, which is what `number` has.
        ok(unsafe { botan_mp_to_bin(self.0, number.as_mut_ptr()) });
        bytes.reverse();
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        ok(unsafe { botan_mp_destroy(self.0) });
    }
}

/// See the [module](self).
pub(super) struct Botan<'p> {
    problem: &'p Problem,
    rng: BotanRng,
    modulus: Number,
    products: Products,
    bases: Vec<Number>,
    exponents: ByWidth<Number>,
    candidates: Vec<Number>,
    power: Number,
    result: Vec<u8>,
}

impl<'p> Botan<'p> {
    pub(super) fn new(problem: &'p Problem) -> Self {
        let numbers = |all: &[Vec<u8>]| all.iter().map(|bytes| Number::from_le(bytes)).collect();
        let mut candidates: Vec<Number> = numbers(&problem.candidates);
        candidates.push(Number::from_le(candidate_or_prime(problem, problem.candidates.len())));
        let mut rng = ptr::null_mut();
        // SAFETY: writes one handle; the name ends in 0.
        ok(unsafe { botan_rng_init(&mut rng, c"user".as_ptr()) });
        Botan {
            problem,
            rng,
            modulus: Number::from_le(&problem.modulus),
            products: Products::new(&problem.modulus),
            bases: numbers(&problem.bases),
            exponents: problem.exponents.map(|bytes| Number::from_le(bytes)),
            candidates,
            power: Number::new(),
            result: vec![0; problem.width()],
        }
    }

    fn power(&mut self, index: usize, width: Width) {
        let exponent = &self.exponents.of(width)[index];
        // SAFETY: live numbers; the result is none of the operands.
        ok(unsafe { botan_mp_powmod(self.power.0, self.bases[index].0, exponent.0, self.modulus.0) });
        self.power.store(&mut self.result);
    }
}

impl Rival for Botan<'_> {
    fn name(&self) -> &'static str {
        "botan"
    }

    fn version(&self) -> String {
        // SAFETY: returns a static string that ends in 0, such as "Botan 2.19.3 (release, …)".
        let version = unsafe { CStr::from_ptr(botan_version_string()) }.to_string_lossy();
        version.split(' ').nth(1).unwrap_or(&version).to_owned()
    }

    fn mul_blocks(&mut self, blocks: &mut [u8]) {
        self.products.set_factor(&self.problem.factor);
        for block in blocks.chunks_exact_mut(self.problem.width()) {
            self.products.load(block);
            self.products.multiply();
            self.products.store(block);
        }
    }

    fn mul_chain(&mut self, times: usize) {
        self.products.set_factor(&self.problem.factor);
        self.products.load(&mut self.problem.bases[0].clone());
        for _ in 0..times {
            self.products.multiply();
        }
        self.products.store(&mut self.result);
    }

    fn pow(&mut self, index: usize, width: Width) {
        self.power(index, width);
    }

    fn mul_pow(&mut self, width: Width) {
        self.power(0, width);
        self.products.set_factor(&self.result);
        self.power(1, width);
        self.products.load(&mut self.result);
        self.products.multiply();
        self.products.store(&mut self.result);
    }

    fn result(&mut self) -> Vec<u8> {
        self.result.clone()
    }

    fn is_probable_prime(&mut self, candidate: usize) -> bool {
        // SAFETY: live handles. A chance of error of 1/4 is one round, after which a composite is out in any case.
        match unsafe { botan_mp_is_prime(self.candidates[candidate].0, self.rng, 2) } {
            0 => false,
            1 => true,
            error => panic!("botan_mp_is_prime: {error}"),
        }
    }
}

impl Drop for Botan<'_> {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        ok(unsafe { botan_rng_destroy(self.rng) });
    }
}

fn ok(code: c_int) {
    assert_eq!(code, 0, "Botan refused");
}
