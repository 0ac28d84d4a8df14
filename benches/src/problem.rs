//! The numbers that ours and the rivals work on.

use std::convert::Infallible;

use rand_core::{Rng, TryCryptoRng, TryRng};
use swarmseal_core::{Exponents, Group, Kernels, Params, Profile};

/// Bytes of a piece.
pub const PIECE: usize = 256 << 10;
/// Independent bases and exponents of a batch.
pub const BATCH: usize = 8;
/// Candidates that a primality test is timed over.
const CANDIDATES: usize = 16;
/// Primes below this are sieved out of candidates, as `Group::generate` does.
const SIEVED_BELOW: u16 = 1 << 13;

/// Width of an exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// As RFC 7919 allows: 256, 320 or 384 bits; 256 in the groups that it does not name.
    Short,
    /// As wide as the modulus.
    Full,
}

/// Exponents of both widths, in whatever form their user has them.
pub struct ByWidth<T> {
    full: Vec<T>,
    short: Vec<T>,
}

impl<T> ByWidth<T> {
    /// Those of one width.
    pub fn of(&self, width: Width) -> &[T] {
        match width {
            Width::Full => &self.full,
            Width::Short => &self.short,
        }
    }

    /// Each in another form.
    pub fn map<U>(&self, form: impl Fn(&T) -> U) -> ByWidth<U> {
        let all = |exponents: &[T]| exponents.iter().map(&form).collect();
        ByWidth { full: all(&self.full), short: all(&self.short) }
    }
}

/// What one size is timed with. All numbers are little-endian bytes, W long but for short exponents; below p, and with the
/// exponents' top bits set, so that nobody's work is shorter than it looks. They are the same in every run.
pub struct Problem {
    /// n.
    pub bits: usize,
    /// Name of the group whose modulus it is.
    pub group: &'static str,
    /// p.
    pub modulus: Vec<u8>,
    /// What blocks are multiplied by.
    pub factor: Vec<u8>,
    /// As many blocks as fit in a piece.
    pub blocks: Vec<u8>,
    /// [`BATCH`] bases.
    pub bases: Vec<Vec<u8>>,
    /// [`BATCH`] exponents of each width.
    pub exponents: ByWidth<Vec<u8>>,
    /// Composites p such that no small prime divides p or (p−1)/2: what a search for safe primes tests.
    pub candidates: Vec<Vec<u8>>,
}

impl Problem {
    /// The problem of `bits`, if there is a group of that size.
    pub fn new(bits: usize) -> Option<Self> {
        let (name, group) = named_group(bits, Kernels::portable())?;
        let width = group.bytes();
        let mut random = Random::new(bits as u64);
        let mut modulus = vec![0; width];
        group.modulus_be(&mut modulus).expect("W bytes");
        modulus.reverse();
        // p's top bit is set: whatever has it clear is below p.
        let mut number = || {
            let mut bytes = random.bytes(width);
            bytes[width - 1] &= 0x7f;
            bytes
        };
        let factor = number();
        let blocks = (0..PIECE / width).flat_map(|_| number()).collect();
        let bases = (0..BATCH).map(|_| number()).collect();
        let mut exponents = |bytes| {
            let exponent = |_| {
                let mut exponent = random.bytes(bytes);
                exponent[bytes - 1] |= 0x80;
                exponent
            };
            (0..BATCH).map(exponent).collect()
        };
        let exponents = ByWidth { full: exponents(width), short: exponents(short_bytes(bits)) };
        let candidates = candidates(&mut random, width);
        Some(Problem { bits, group: name, modulus, factor, blocks, bases, exponents, candidates })
    }

    /// W.
    pub fn width(&self) -> usize {
        self.modulus.len()
    }

    /// The share of a piece that [`Problem::blocks`] is: 1 where W divides it.
    pub fn share_of_a_piece(&self) -> f64 {
        self.blocks.len() as f64 / PIECE as f64
    }

    /// A group's parameters for exponents of a width, where it has them.
    pub fn params(&self, kernels: &'static Kernels, width: Width) -> Option<Params> {
        let group = Group::by_name(self.group, kernels)?;
        match width {
            Width::Short => Params::new(Profile::Sealed, group, Exponents::Short).ok(),
            Width::Full => Params::new(Profile::Sealed, group.clone(), Exponents::Full)
                .or_else(|_| Params::new(Profile::Paper, group, Exponents::Full))
                .ok(),
        }
    }
}

/// The named group of that size.
pub fn named_group(bits: usize, kernels: &'static Kernels) -> Option<(&'static str, Group)> {
    Group::names()
        .filter_map(|name| Some((name, Group::by_name(name, kernels)?)))
        .find(|(_, group)| group.bits() == bits)
}

/// RFC 7919's short exponents, as the scheme rounds them up.
fn short_bytes(bits: usize) -> usize {
    match bits {
        3072 => 40,
        4096 => 48,
        _ => 32,
    }
}

fn candidates(random: &mut Random, width: usize) -> Vec<Vec<u8>> {
    let primes = small_primes();
    let mut start = random.bytes(width);
    start[0] |= 7;
    start[width - 1] |= 0x80;
    // Room for the offsets to come, so that no carry leaves the lowest 16 bytes.
    start[15] &= 0x7f;
    let low = u128::from_le_bytes(start[..16].try_into().expect("16 bytes"));
    let residues: Vec<u32> = primes.iter().map(|&small| residue(&start, small)).collect();
    let passes = |offset: &u32| primes.iter().zip(&residues).all(|(small, r)| (r + 8 * offset) % small > 1);
    let candidate = |offset| {
        let mut candidate = start.clone();
        candidate[..16].copy_from_slice(&(low + 8 * u128::from(offset)).to_le_bytes());
        candidate
    };
    (0..).filter(passes).map(candidate).take(CANDIDATES).collect()
}

fn residue(number: &[u8], small: u32) -> u32 {
    number.iter().rev().fold(0, |acc, &byte| ((acc << 8) | u32::from(byte)) % small)
}

fn small_primes() -> Vec<u32> {
    let mut primes: Vec<u32> = Vec::new();
    for n in (3..u32::from(SIEVED_BELOW)).step_by(2) {
        if primes.iter().take_while(|&&p| p * p <= n).all(|p| n % p != 0) {
            primes.push(n);
        }
    }
    primes
}

/// SplitMix64: the same numbers in every run. Nothing here is secret.
pub struct Random(u64);

impl Random {
    /// A stream of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill_bytes(&mut bytes);
        bytes
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|word| word as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(z ^ (z >> 31))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for chunk in out.chunks_mut(8) {
            let word = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Random {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_wide_as_they_should_be() {
        for bits in [512, 768, 1024, 1536, 2048, 3072, 4096] {
            let problem = Problem::new(bits).unwrap();
            let width = problem.width();
            assert_eq!(width * 8, bits);
            assert_eq!(problem.blocks.len(), PIECE / width * width);
            assert!(problem.exponents.full.iter().all(|e| e.len() == width && e[width - 1] >= 0x80));
            assert!(problem.bases.iter().all(|base| base.len() == width && base[width - 1] < 0x80));
            assert_eq!(problem.candidates.len(), CANDIDATES);
        }
        assert!(Problem::new(1000).is_none());
    }

    #[test]
    fn short_exponents_are_those_of_the_scheme() {
        for (bits, bytes) in [(2048, 32), (3072, 40), (4096, 48)] {
            assert_eq!(Problem::new(bits).unwrap().exponents.short[0].len(), bytes);
        }
    }

    #[test]
    fn small_primes_are_those_of_the_sieve() {
        let primes = small_primes();
        assert_eq!(primes.len(), 1027);
        assert_eq!(primes[..4], [3, 5, 7, 11]);
        for candidate in Problem::new(512).unwrap().candidates {
            assert!(primes.iter().all(|&small| residue(&candidate, small) > 1));
            assert_eq!(candidate[0] & 7, 7);
        }
    }
}
