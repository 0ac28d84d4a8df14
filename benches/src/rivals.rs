//! The libraries that a user could pick instead, each behind the same trait.

mod crypto_bigint;

#[cfg(feature = "rivals")]
mod botan;
#[cfg(feature = "rivals")]
pub mod gmp;
#[cfg(feature = "rivals")]
mod openssl;

use crate::problem::{BATCH, Problem, Width};

/// One library, prepared for one [`Problem`]: what can be computed ahead for a modulus, a factor or a base is.
///
/// Operations work in constant time where the library offers that, and leave their number for [`Rival::result`].
pub trait Rival {
    /// The library's name.
    fn name(&self) -> &'static str;

    /// The library's version.
    fn version(&self) -> String;

    /// Multiplies every block by the factor, in place: bytes to canonical bytes.
    fn mul_blocks(&mut self, blocks: &mut [u8]);

    /// base_0 · factor^times, by so many multiplications in the form that the library prefers.
    fn mul_chain(&mut self, times: usize);

    /// base_i ^ exponent_i.
    fn pow(&mut self, index: usize, width: Width);

    /// base_0 ^ exponent_0 · base_1 ^ exponent_1: a re-key.
    fn mul_pow(&mut self, width: Width);

    /// The last result, as [`Problem`] writes numbers.
    fn result(&mut self) -> Vec<u8>;

    /// One round of a probabilistic test of a candidate, or of p where there is no candidate of that index.
    fn is_probable_prime(&mut self, candidate: usize) -> bool;

    /// base_i ^ exponent_i and base_{i+1} ^ exponent_{i+1} at once, where the library can; the first is the result. False
    /// where it cannot.
    fn pow_pair(&mut self, index: usize, width: Width) -> bool {
        let _ = (index, width);
        false
    }

    /// [`BATCH`] exponentiations, one after another.
    fn pow_batch(&mut self, width: Width) {
        for index in 0..BATCH {
            self.pow(index, width);
        }
    }
}

/// Every library that this build has, ready for a problem.
pub fn all(problem: &Problem) -> Vec<Box<dyn Rival + '_>> {
    vec![
        crypto_bigint::rival(problem),
        #[cfg(feature = "rivals")]
        Box::new(openssl::OpenSsl::new(problem)),
        #[cfg(feature = "rivals")]
        Box::new(gmp::Gmp::new(problem)),
        #[cfg(feature = "rivals")]
        Box::new(botan::Botan::new(problem)),
    ]
}

/// Name of the rival that is always there, against which the portable backend is judged.
pub const CRYPTO_BIGINT: &str = crypto_bigint::NAME;

/// The candidate of that index, or p.
fn candidate_or_prime(problem: &Problem, index: usize) -> &[u8] {
    problem.candidates.get(index).unwrap_or(&problem.modulus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rivals_tell_primes_from_candidates() {
        let problem = Problem::new(1024).unwrap();
        for mut rival in all(&problem) {
            for index in 0..problem.candidates.len() {
                assert!(!rival.is_probable_prime(index), "{}: candidate {index} is composite", rival.name());
            }
            assert!(rival.is_probable_prime(problem.candidates.len()), "{}: p is prime", rival.name());
        }
    }

    #[test]
    fn a_pair_is_two_powers() {
        let problem = Problem::new(2048).unwrap();
        for mut rival in all(&problem) {
            if rival.pow_pair(2, Width::Short) {
                let first = rival.result();
                rival.pow(2, Width::Short);
                assert_eq!(rival.result(), first, "{}", rival.name());
            }
        }
    }
}
