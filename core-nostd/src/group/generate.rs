//! SGen: fresh safe primes. Paper §2.1, Definition 2.2(1).

use alloc::vec;
use alloc::vec::Vec;

use crypto_bigint::Word;
use rand_core::CryptoRng;

use super::{Group, half};
use crate::fixed_base::BATCH;
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

/// Candidates looked at before a fresh start point is drawn.
const WINDOW: usize = 1 << 17;

/// Sieving by primes up to here costs less than the tests that it saves, for primes of that many bits.
const fn sieve_bound(bits: usize) -> usize {
    match bits {
        0..=512 => 1 << 13,
        513..=1024 => 1 << 17,
        _ => 1 << 20,
    }
}

impl Group {
    /// SGen(1^n): a random safe prime p = 2q + 1 ≡ 7 mod 8 of `bits` bits with its top bit set, and the generator 2,
    /// which then has order q. (The paper's g generates all of Z_p^*, which leaks a residue symbol of K; ours does not.)
    ///
    /// Candidates with a small factor of p or q are sieved out, the others' q tested in batches with base 2, then p's, and
    /// what passes both as [`Group::from_parts`] does. `progress` is called for every batch and stops the search by returning
    /// false. Errors: [`Error::BadGroup`] for a size outside 64 … 4,096 in steps of 64, [`Error::GenerationStopped`].
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
        let primes = odd_primes(sieve_bound(bits));
        let mut count = Progress { sieved: 0, tested: 0 };
        loop {
            let start = start_point(rng, len);
            let window = sieve(&start[..len], &primes);
            let mut looked_at = 0;
            let mut survivors =
                window.iter().enumerate().filter_map(|(offset, &out)| (!out).then_some(offset));
            loop {
                let mut batch: [Option<Number>; BATCH] = [None; BATCH];
                let mut taken = 0_u64;
                for (slot, offset) in batch.iter_mut().zip(&mut survivors) {
                    *slot = candidate(&start, len, offset);
                    looked_at = offset + 1;
                    taken += 1;
                }
                if taken < BATCH as u64 {
                    looked_at = WINDOW;
                }
                let so_far =
                    Progress { sieved: count.sieved + looked_at as u64, tested: count.tested + taken };
                if !progress(so_far) {
                    return Err(Error::GenerationStopped);
                }
                count.tested += taken;
                if let Some(group) = Self::first_of(kernels, batch.iter().flatten(), len) {
                    return Ok(group);
                }
                if taken < BATCH as u64 {
                    break;
                }
            }
            count.sieved += WINDOW as u64;
        }
    }

    /// The group of the first of at most [`BATCH`] candidates that is a safe prime.
    fn first_of<'c>(
        kernels: &'static Kernels,
        candidates: impl Iterator<Item = &'c Number>,
        len: usize,
    ) -> Option<Self> {
        let moduli: Vec<(&Number, Modulus)> =
            candidates.map(|p| (p, Modulus::new(half(p, len), len))).collect();
        let orders: Vec<&Modulus> = moduli.iter().map(|(_, q)| q).collect();
        let passed = primality::pass_base_two_vartime(kernels, &orders);
        moduli.iter().zip(passed).filter(|(_, passed)| *passed).find_map(|((p, _), _)| {
            let modulus = Modulus::new(**p, len);
            if !primality::pass_base_two_vartime(kernels, &[&modulus])[0] {
                return None;
            }
            let mut two = ZERO;
            two[0] = 2;
            let group = Self::assemble(kernels, None, **p, len, two)?;
            let prime = primality::is_probable_prime_vartime(kernels, &group.q)
                && primality::is_probable_prime_vartime(kernels, &group.p);
            prime.then_some(group)
        })
    }
}

/// start + 8 · offset, unless it is longer than `len` words.
fn candidate(start: &Number, len: usize, offset: usize) -> Option<Number> {
    let mut p = *start;
    let mut carry = (offset as u128) << 3;
    for limb in &mut p[..len] {
        carry += u128::from(*limb);
        *limb = carry as Word;
        carry >>= Word::BITS;
    }
    (carry == 0).then_some(p)
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

/// Which of p = start + 8 · offset, for the offsets of a window, have a factor among the primes, or have it in q = (p−1)/2:
/// q ≡ 0 exactly where p ≡ 1. The numbers become public; no secret is here.
fn sieve(start: &[Word], primes: &[u32]) -> Vec<bool> {
    let mut out = vec![false; WINDOW];
    for primes in primes.chunks(ABREAST) {
        for (&prime, residue) in primes.iter().zip(residues(start, primes)) {
            let prime = u64::from(prime);
            let half = prime.div_ceil(2);
            let eighth = half * half % prime * half % prime;
            // start + 8 o ≡ 0 where o ≡ −start/8, and ≡ 1 where o ≡ (1 − start)/8.
            for wanted in [prime - residue, prime + 1 - residue] {
                let first = wanted % prime * eighth % prime;
                for hit in out.iter_mut().skip(first as usize).step_by(prime as usize) {
                    *hit = true;
                }
            }
        }
    }
    out
}

/// Primes that a number is divided by at once: each division waits for itself alone.
const ABREAST: usize = 8;

/// A number mod each of at most [`ABREAST`] primes below 2^20.
fn residues(words: &[Word], primes: &[u32]) -> [u64; ABREAST] {
    let primes: [u64; ABREAST] = core::array::from_fn(|i| u64::from(primes[i.min(primes.len() - 1)]));
    let inverses = primes.map(|prime| u64::MAX / prime);
    let mut residues = [0; ABREAST];
    let parts = Word::BITS / 32;
    for word in words.iter().rev() {
        for part in (0..parts).rev() {
            #[allow(clippy::useless_conversion)] // Words of 32 bits.
            let half = u64::from((word >> (32 * part)) & 0xffff_ffff);
            for i in 0..ABREAST {
                // Barrett: x < 2^52, so the quotient by ⌊(2^64−1)/p⌋ is the right one or one too small.
                let x = (residues[i] << 32) | half;
                let quotient = ((u128::from(x) * u128::from(inverses[i])) >> 64) as u64;
                let rest = x - quotient * primes[i];
                residues[i] = if rest >= primes[i] { rest - primes[i] } else { rest };
            }
        }
    }
    residues
}

/// The odd primes below `bound`.
fn odd_primes(bound: usize) -> Vec<u32> {
    let mut composite = vec![false; bound];
    let mut primes = Vec::new();
    for i in (3..bound).step_by(2) {
        if !composite[i] {
            primes.push(i as u32);
            composite.iter_mut().skip(i * i).step_by(2 * i).for_each(|multiple| *multiple = true);
        }
    }
    primes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number mod a small one, a bit at a time.
    fn remainder(words: &[Word], divisor: u64) -> u64 {
        let bits = words.iter().rev().flat_map(|word| (0..Word::BITS).rev().map(move |i| word >> i & 1));
        bits.fold(0, |rest, bit| (2 * rest + u64::from(bit == 1)) % divisor)
    }

    #[test]
    fn the_sieve_is_trial_division() {
        let all = odd_primes(1 << 20);
        assert_eq!(all.len(), 82_024, "π(2^20) less one");
        // The smallest, the largest, and a last chunk that is not full.
        let primes = [&all[..45], &all[all.len() - 30..]].concat();
        let pattern = |i: usize| (i as Word).wrapping_mul(0x9e37_79b9) ^ (i as Word) << (Word::BITS - 9);
        let numbers: [Vec<Word>; 4] = [
            vec![Word::MAX; 2048 / Word::BITS as usize],
            vec![7; 1024 / Word::BITS as usize],
            (1..=512 / Word::BITS as usize).map(|i| pattern(i) | 7).collect(),
            vec![Word::MAX - 8; 64 / Word::BITS as usize],
        ];
        for start in numbers {
            let mut expected = vec![false; WINDOW];
            for &prime in &primes {
                let prime = u64::from(prime);
                let first = remainder(&start, prime);
                for (offset, out) in expected.iter_mut().enumerate() {
                    *out |= (first + 8 * offset as u64) % prime < 2;
                }
            }
            assert!(sieve(&start, &primes) == expected, "{start:x?}");
        }
    }

    #[test]
    fn candidates_end_with_their_length() {
        let mut start = ZERO;
        start[0] = Word::MAX;
        assert_eq!(candidate(&start, 1, 0).map(|p| p[0]), Some(Word::MAX));
        assert_eq!(candidate(&start, 1, 1), None);
        assert_eq!(candidate(&start, 2, 1).map(|p| (p[0], p[1])), Some((7, 1)));
    }
}
