//! OpenSSL, built from the source that crates.io packages: Montgomery contexts and `BN_mod_exp_mont_consttime`.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

use super::{Rival, candidate_or_prime};
use crate::problem::{ByWidth, Problem, Width};

#[repr(C)]
struct BigNum(c_void);
#[repr(C)]
struct BnCtx(c_void);
#[repr(C)]
struct BnMontCtx(c_void);

// openssl/bn.h and openssl/crypto.h of OpenSSL 4.0.
unsafe extern "C" {
    fn OpenSSL_version(what: c_int) -> *const c_char;
    fn BN_new() -> *mut BigNum;
    fn BN_free(a: *mut BigNum);
    fn BN_copy(to: *mut BigNum, from: *const BigNum) -> *mut BigNum;
    fn BN_lebin2bn(from: *const u8, len: c_int, out: *mut BigNum) -> *mut BigNum;
    fn BN_bn2lebinpad(a: *const BigNum, to: *mut u8, len: c_int) -> c_int;
    fn BN_mod_mul(
        r: *mut BigNum,
        a: *const BigNum,
        b: *const BigNum,
        m: *const BigNum,
        ctx: *mut BnCtx,
    ) -> c_int;
    fn BN_mod_mul_montgomery(
        r: *mut BigNum,
        a: *const BigNum,
        b: *const BigNum,
        mont: *mut BnMontCtx,
        ctx: *mut BnCtx,
    ) -> c_int;
    fn BN_to_montgomery(r: *mut BigNum, a: *const BigNum, mont: *mut BnMontCtx, ctx: *mut BnCtx) -> c_int;
    fn BN_mod_exp_mont_consttime(
        r: *mut BigNum,
        a: *const BigNum,
        p: *const BigNum,
        m: *const BigNum,
        ctx: *mut BnCtx,
        mont: *mut BnMontCtx,
    ) -> c_int;
    fn BN_mod_exp_mont_consttime_x2(
        r1: *mut BigNum,
        a1: *const BigNum,
        p1: *const BigNum,
        m1: *const BigNum,
        mont1: *mut BnMontCtx,
        r2: *mut BigNum,
        a2: *const BigNum,
        p2: *const BigNum,
        m2: *const BigNum,
        mont2: *mut BnMontCtx,
        ctx: *mut BnCtx,
    ) -> c_int;
    fn BN_is_prime_ex(p: *const BigNum, checks: c_int, ctx: *mut BnCtx, progress: *mut c_void) -> c_int;
    fn BN_CTX_new() -> *mut BnCtx;
    fn BN_CTX_free(ctx: *mut BnCtx);
    fn BN_MONT_CTX_new() -> *mut BnMontCtx;
    fn BN_MONT_CTX_free(mont: *mut BnMontCtx);
    fn BN_MONT_CTX_set(mont: *mut BnMontCtx, modulus: *const BigNum, ctx: *mut BnCtx) -> c_int;
}

/// An owned BIGNUM.
struct Number(NonNull<BigNum>);

impl Number {
    fn new() -> Self {
        // SAFETY: takes nothing; the result is owned here and checked.
        Number(NonNull::new(unsafe { BN_new() }).expect("memory for a BIGNUM"))
    }

    fn from_le(bytes: &[u8]) -> Self {
        let number = Number::new();
        number.load(bytes);
        number
    }

    fn as_ptr(&self) -> *mut BigNum {
        self.0.as_ptr()
    }

    fn load(&self, bytes: &[u8]) {
        // SAFETY: reads `len` bytes of the slice into a live BIGNUM that only `self` refers to.
        let loaded = unsafe { BN_lebin2bn(bytes.as_ptr(), bytes.len() as c_int, self.as_ptr()) };
        assert!(!loaded.is_null());
    }

    fn store(&self, bytes: &mut [u8]) {
        // SAFETY: writes exactly `len` bytes of the slice, or fails.
        let stored = unsafe { BN_bn2lebinpad(self.as_ptr(), bytes.as_mut_ptr(), bytes.len() as c_int) };
        assert_eq!(stored, bytes.len() as c_int);
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { BN_free(self.as_ptr()) }
    }
}

/// See the [module](self).
pub(super) struct OpenSsl<'p> {
    problem: &'p Problem,
    ctx: NonNull<BnCtx>,
    mont: NonNull<BnMontCtx>,
    modulus: Number,
    /// In Montgomery form.
    factor: Number,
    one: Number,
    bases: Vec<Number>,
    exponents: ByWidth<Number>,
    candidates: Vec<Number>,
    result: Number,
    second: Number,
}

impl<'p> OpenSsl<'p> {
    pub(super) fn new(problem: &'p Problem) -> Self {
        let numbers = |all: &[Vec<u8>]| all.iter().map(|bytes| Number::from_le(bytes)).collect();
        let mut candidates: Vec<Number> = numbers(&problem.candidates);
        candidates.push(Number::from_le(candidate_or_prime(problem, problem.candidates.len())));
        // SAFETY: both take nothing; the results are owned here and checked.
        let (ctx, mont) = unsafe { (BN_CTX_new(), BN_MONT_CTX_new()) };
        let this = OpenSsl {
            problem,
            ctx: NonNull::new(ctx).expect("memory for a BN_CTX"),
            mont: NonNull::new(mont).expect("memory for a BN_MONT_CTX"),
            modulus: Number::from_le(&problem.modulus),
            factor: Number::from_le(&problem.factor),
            one: Number::from_le(&[1]),
            bases: numbers(&problem.bases),
            exponents: problem.exponents.map(|bytes| Number::from_le(bytes)),
            candidates,
            result: Number::new(),
            second: Number::new(),
        };
        // SAFETY: live objects of this one owner; the modulus is odd.
        ok(unsafe { BN_MONT_CTX_set(mont, this.modulus.as_ptr(), ctx) });
        this.enter(&this.factor);
        this
    }

    /// Into Montgomery form, in place.
    fn enter(&self, number: &Number) {
        // SAFETY: live objects; the result may be the operand (bn.h).
        ok(unsafe {
            BN_to_montgomery(number.as_ptr(), number.as_ptr(), self.mont.as_ptr(), self.ctx.as_ptr())
        });
    }

    /// a · b / R, into `out`, which may be one of them.
    fn mont_mul(&self, a: &Number, b: &Number, out: &Number) {
        // SAFETY: live objects below the modulus; the result may be an operand (bn.h).
        ok(unsafe {
            BN_mod_mul_montgomery(out.as_ptr(), a.as_ptr(), b.as_ptr(), self.mont.as_ptr(), self.ctx.as_ptr())
        });
    }

    fn power(&self, index: usize, width: Width, out: &Number) {
        // SAFETY: live objects; the Montgomery context is that of the modulus, and `out` is none of the operands.
        ok(unsafe {
            BN_mod_exp_mont_consttime(
                out.as_ptr(),
                self.bases[index].as_ptr(),
                self.exponents.of(width)[index].as_ptr(),
                self.modulus.as_ptr(),
                self.ctx.as_ptr(),
                self.mont.as_ptr(),
            )
        });
    }
}

impl Rival for OpenSsl<'_> {
    fn name(&self) -> &'static str {
        "openssl"
    }

    fn version(&self) -> String {
        // SAFETY: returns a static string that ends in 0; 6 is OPENSSL_VERSION_STRING.
        let version = unsafe { CStr::from_ptr(OpenSSL_version(6)) };
        version.to_string_lossy().into_owned()
    }

    fn mul_blocks(&mut self, blocks: &mut [u8]) {
        for block in blocks.chunks_exact_mut(self.problem.width()) {
            self.result.load(block);
            // The factor is in Montgomery form, so the product is not.
            self.mont_mul(&self.result, &self.factor, &self.result);
            self.result.store(block);
        }
    }

    fn mul_chain(&mut self, times: usize) {
        // SAFETY: live, distinct objects.
        assert!(!unsafe { BN_copy(self.result.as_ptr(), self.bases[0].as_ptr()) }.is_null());
        self.enter(&self.result);
        for _ in 0..times {
            self.mont_mul(&self.result, &self.factor, &self.result);
        }
        self.mont_mul(&self.result, &self.one, &self.result);
    }

    fn pow(&mut self, index: usize, width: Width) {
        self.power(index, width, &self.result);
    }

    fn mul_pow(&mut self, width: Width) {
        self.power(0, width, &self.result);
        self.power(1, width, &self.second);
        // SAFETY: live objects; the result may be an operand (bn.h).
        ok(unsafe {
            BN_mod_mul(
                self.result.as_ptr(),
                self.result.as_ptr(),
                self.second.as_ptr(),
                self.modulus.as_ptr(),
                self.ctx.as_ptr(),
            )
        });
    }

    fn result(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.problem.width()];
        self.result.store(&mut bytes);
        bytes
    }

    fn is_probable_prime(&mut self, candidate: usize) -> bool {
        // No trial division: candidates are sieved. A composite is out after the first round.
        // SAFETY: live objects; without a callback.
        match unsafe {
            BN_is_prime_ex(self.candidates[candidate].as_ptr(), 1, self.ctx.as_ptr(), ptr::null_mut())
        } {
            0 => false,
            1 => true,
            error => panic!("BN_is_prime_ex: {error}"),
        }
    }

    fn pow_pair(&mut self, index: usize, width: Width) -> bool {
        let exponents = self.exponents.of(width);
        // SAFETY: live objects; the Montgomery context is that of the modulus, the results are none of the operands.
        ok(unsafe {
            BN_mod_exp_mont_consttime_x2(
                self.result.as_ptr(),
                self.bases[index].as_ptr(),
                exponents[index].as_ptr(),
                self.modulus.as_ptr(),
                self.mont.as_ptr(),
                self.second.as_ptr(),
                self.bases[index + 1].as_ptr(),
                exponents[index + 1].as_ptr(),
                self.modulus.as_ptr(),
                self.mont.as_ptr(),
                self.ctx.as_ptr(),
            )
        });
        true
    }
}

impl Drop for OpenSsl<'_> {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe {
            BN_MONT_CTX_free(self.mont.as_ptr());
            BN_CTX_free(self.ctx.as_ptr());
        }
    }
}

fn ok(code: c_int) {
    assert_eq!(code, 1, "OpenSSL refused");
}
