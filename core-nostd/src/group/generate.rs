//! SGen: fresh safe primes. Paper §2.1, Definition 2.2(1).

use crypto_bigint::{WideWord, Word};
use rand_core::CryptoRng;

use super::Group;
use crate::kernels::Kernels;
use crate::modulus::Modulus;
use crate::number::{LIMBS, Number, ZERO};
use crate::{Error, primality};

/// What [`Group::generate`] tells its callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Candidates looked at, most of which the sieve threw away.
    pub sieved: u64,
    /// Candidates that went through a Miller–Rabin round.
    pub tested: u64,
}

/// Odd primes below 2^13, which are sieved out of q and p = 2q + 1 before anything is raised to a power.
const SMALL_PRIMES: [u16; 1027] = small_primes();
/// Candidates looked at before a fresh start point is drawn.
const WINDOW: u64 = 1 << 16;

impl Group {
    /// SGen(1^n): a random safe prime p = 2q + 1 ≡ 7 mod 8 of `bits` bits with its top bit set, and the generator 2,
    /// which then has order q. (The paper's g generates all of Z_p^*, which leaks a residue symbol of K; ours does not.)
    ///
    /// `progress` is called now and then and stops the search by returning false. Errors: [`Error::BadGroup`] for a
    /// size outside 64 … 4,096 in steps of 64, [`Error::GenerationStopped`].
    pub fn generate(
        kernels: &'static Kernels,
        bits: usize,
        rng: &mut impl CryptoRng,
        mut progress: impl FnMut(Progress) -> bool,
    ) -> Result<Self, Error> {
        if !bits.is_multiple_of(64) || !(64..=4096).contains(&bits) {
            return Err(Error::BadGroup);
        }
        let len = bits / Word::BITS as usize;
        let mut count = Progress { sieved: 0, tested: 0 };
        loop {
            let start = start_point(rng, len);
            let sieve = Sieve::new(&start[..len]);
            for offset in 0..WINDOW {
                if count.sieved.is_multiple_of(1024) && !progress(count) {
                    return Err(Error::GenerationStopped);
                }
                count.sieved += 1;
                if sieve.passes(offset) {
                    count.tested += 1;
                    if let Some(group) = Self::try_candidate(kernels, &start, len, offset) {
                        return Ok(group);
                    }
                }
            }
        }
    }

    /// The group of p = start + 8 · offset, if p is a safe prime of the right length.
    fn try_candidate(kernels: &'static Kernels, start: &Number, len: usize, offset: u64) -> Option<Self> {
        let mut p = *start;
        let mut carry = u128::from(offset) << 3;
        for limb in &mut p[..len] {
            carry += u128::from(*limb);
            *limb = carry as Word;
            carry >>= Word::BITS;
        }
        if carry != 0 {
            return None;
        }
        let modulus = Modulus::new(p, len);
        if !primality::passes_round_vartime(kernels, &modulus, 0) {
            return None;
        }
        let mut two = ZERO;
        two[0] = 2;
        let group = Self::assemble(kernels, None, p, len, two)?;
        let prime = primality::is_probable_prime_vartime(kernels, &group.q)
            && primality::is_probable_prime_vartime(kernels, &group.p);
        prime.then_some(group)
    }
}

/// A random number ≡ 7 mod 8 of exactly `len` words.
fn start_point(rng: &mut impl CryptoRng, len: usize) -> Number {
    let mut start = [0; LIMBS];
    for limb in &mut start[..len] {
        let mut bytes = [0; size_of::<Word>()];
        rng.fill_bytes(&mut bytes);
        *limb = Word::from_le_bytes(bytes);
    }
    start[0] |= 7;
    start[len - 1] |= 1 << (Word::BITS - 1);
    start
}

/// The start point modulo each small prime. The numbers become public; no secret is here.
struct Sieve([u16; SMALL_PRIMES.len()]);

impl Sieve {
    fn new(start: &[Word]) -> Self {
        Sieve(SMALL_PRIMES.map(|small| residue(start, small)))
    }

    /// Whether no small prime divides p = start + 8 · offset or q = (p−1)/2: q ≡ 0 exactly where p ≡ 1.
    fn passes(&self, offset: u64) -> bool {
        SMALL_PRIMES
            .iter()
            .zip(&self.0)
            .all(|(&small, &residue)| (u64::from(residue) + 8 * offset) % u64::from(small) > 1)
    }
}

fn residue(words: &[Word], small: u16) -> u16 {
    let small = WideWord::from(small);
    words.iter().rev().fold(0, |acc, &word| ((acc << Word::BITS) | WideWord::from(word)) % small) as u16
}

const fn small_primes() -> [u16; 1027] {
    let mut primes = [0; 1027];
    let (mut found, mut candidate) = (0, 3);
    while found < primes.len() {
        let mut i = 0;
        while i < found && candidate % primes[i] != 0 {
            i += 1;
        }
        if i == found {
            primes[found] = candidate;
            found += 1;
        }
        candidate += 2;
    }
    primes
}
