//! Every backend, and the one-lane models of the lane kernels, against GMP: random numbers mixed with edges, for as long as asked.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rand_core::Rng;
use swarmseal_bench::ours::words;
use swarmseal_bench::problem::Random;
use swarmseal_bench::rivals::gmp::Oracle;
use swarmseal_core::kernels::{ByteOrder, Comb, Exponent, Power, TwoPower};
use swarmseal_core::{Group, Kernels, Modulus, Word};

const SIZES: [usize; 7] = [512, 768, 1024, 1536, 2048, 3072, 4096];

/// Compares every backend with GMP, and prints how often; stops at the first difference with exit code 1.
#[derive(Parser)]
struct Args {
    /// Seconds in all.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the random numbers begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One modulus, and numbers to try on it. All little-endian bytes.
struct Trial {
    bits: usize,
    modulus: Modulus,
    oracle: Oracle,
    random: Random,
}

impl Trial {
    /// A number of W bytes in which long runs and edges are as likely as anything.
    fn number(random: &mut Random, bits: usize) -> Vec<u8> {
        let mut bytes = vec![0; bits / 8];
        match random.next_u32() % 4 {
            0 => random.fill_bytes(&mut bytes),
            1 => bytes.chunks_exact_mut(8).for_each(|word| {
                word.fill(if random.next_u32().is_multiple_of(2) { 0xff } else { 0 });
            }),
            2 => {
                // One run of ones.
                let (a, b) = (random.next_u32() as usize % bits, random.next_u32() as usize % bits);
                (a.min(b)..a.max(b)).for_each(|bit| bytes[bit / 8] |= 1 << (bit % 8));
            }
            _ => {
                // Words of few values, so that sums carry far or not at all.
                for word in bytes.chunks_exact_mut(8) {
                    let value = match random.next_u32() % 5 {
                        0 => 0,
                        1 => 1,
                        2 => u64::MAX,
                        3 => 1 << 63,
                        _ => random.next_u64(),
                    };
                    word.copy_from_slice(&value.to_le_bytes());
                }
            }
        }
        bytes
    }

    fn new(bits: usize, mut random: Random) -> Self {
        let named: Vec<Group> = Group::names()
            .filter_map(|name| Group::by_name(name, Kernels::portable()))
            .filter(|group| group.bits() == bits)
            .collect();
        let modulus = if random.next_u32().is_multiple_of(3) && !named.is_empty() {
            named[0].modulus().clone()
        } else {
            let mut bytes = Self::number(&mut random, bits);
            bytes[0] |= 1;
            bytes[bits / 8 - 1] |= 0x80;
            Modulus::from_words(&words(&bytes)).expect("odd, and of that length")
        };
        let oracle = Oracle::new(&bytes_of(modulus.limbs()));
        Trial { bits, modulus, oracle, random }
    }

    fn any(&mut self) -> Vec<u8> {
        Self::number(&mut self.random, self.bits)
    }

    /// Below m: any number's product with 1 in Montgomery form, or an edge.
    fn below(&mut self) -> Vec<u8> {
        let one = bytes_of(self.modulus.one());
        let m = bytes_of(self.modulus.limbs());
        match self.random.next_u32() % 8 {
            0 => vec![0; m.len()],
            1 => {
                let mut less = m;
                less[0] -= 1; // m is odd
                less
            }
            2 => one,
            _ => {
                let any = self.any();
                self.oracle.product(&any, &one)
            }
        }
    }

    fn exponent(&mut self, bytes: usize) -> Vec<u8> {
        let number = Self::number(&mut self.random, (bytes * 8).next_multiple_of(64));
        number[..bytes.next_multiple_of(8)].to_vec()
    }

    /// Runs every operation of a backend; how many results were compared.
    fn run(&mut self, kernels: &Kernels) -> Result<u64, String> {
        let (m, n) = (self.modulus.clone(), self.modulus.len());
        let mut compared = 0;
        let mut check = |op: &str, found: &[Word], expected: &[u8], operands: &[&[u8]]| {
            compared += 1;
            if bytes_of(found) == expected {
                return Ok(());
            }
            let operands: Vec<String> = operands.iter().map(|operand| hex(operand)).collect();
            Err(format!("{} {op}, m {}\n{}", kernels.name, hex(&bytes_of(m.limbs())), operands.join("\n")))
        };
        let mut out = vec![0; n];
        let (any, a, b) = (self.any(), self.below(), self.below());
        (kernels.mont_mul)(&m, &words(&any), &words(&b), &mut out);
        check("mont_mul", &out, &self.oracle.product(&any, &b), &[&any, &b])?;
        (kernels.mont_sqr)(&m, &words(&a), &mut out);
        check("mont_sqr", &out, &self.oracle.product(&a, &a), &[&a])?;

        let count = 1 + self.random.next_u32() as usize % 40;
        let blocks: Vec<Vec<u8>> = (0..count).map(|_| self.any()).collect();
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let mut buffer: Vec<u8> = blocks.iter().flat_map(|block| ordered(block, order)).collect();
            (kernels.mul_blocks)(&m, &words(&b), order, &mut buffer);
            for (block, product) in blocks.iter().zip(buffer.chunks_exact(self.bits / 8)) {
                let product = words(&ordered(product, order));
                check("mul_blocks", &product, &self.oracle.product(block, &b), &[block, &b])?;
            }
        }

        // Full exponents now and then: they take long.
        let bytes = if self.random.next_u32().is_multiple_of(16) { self.bits / 8 } else { 32 };
        let count = 1 + self.random.next_u32() as usize % 9;
        let bases: Vec<Vec<u8>> = (0..count).map(|_| self.below()).collect();
        let raw: Vec<Vec<u8>> = (0..count).map(|_| self.exponent(bytes)).collect();
        let exponents: Vec<Exponent> = raw.iter().map(|bytes| Exponent::from_be(&reversed(bytes))).collect();
        let base_words: Vec<Vec<Word>> = bases.iter().map(|base| words(base)).collect();
        let powers: Vec<Power<'_>> = (0..count)
            .map(|i| Power { modulus: &m, base: &base_words[i], exponent: &exponents[i] })
            .collect();
        let mut batch = vec![0; count * n];
        (kernels.modpow)(&m, &base_words[0], &exponents[0], &mut out);
        check("modpow", &out, &self.oracle.power(&bases[0], &raw[0]), &[&bases[0], &raw[0]])?;
        (kernels.modpow_batch)(&powers, &mut batch);
        for (i, power) in batch.chunks_exact(n).enumerate() {
            check("modpow_batch", power, &self.oracle.power(&bases[i], &raw[i]), &[&bases[i], &raw[i]])?;
        }
        let two: Vec<TwoPower<'_>> =
            exponents.iter().map(|exponent| TwoPower { modulus: &m, exponent }).collect();
        let mut plain_two = vec![0; self.bits / 8];
        plain_two[0] = 2;
        let mont_two = self.oracle.product(&plain_two, &bytes_of(m.r2()));
        (kernels.two_pow_batch_vartime)(&two, &mut batch);
        for (i, power) in batch.chunks_exact(n).enumerate() {
            check("two_pow", power, &self.oracle.power(&mont_two, &raw[i]), &[&raw[i]])?;
        }

        let width = exponents.iter().map(Exponent::bits).max().unwrap_or(0);
        let mut tables = [(); 2].map(|()| vec![0; (kernels.comb_words)(&m, width)]);
        let (first, second) = (&bases[0], &bases[count - 1]);
        (kernels.comb_fill)(&m, &words(first), width, &mut tables[0]);
        (kernels.comb_fill)(&m, &words(second), width, &mut tables[1]);
        let forward: Vec<&Exponent> = exponents.iter().collect();
        let backward: Vec<&Exponent> = exponents.iter().rev().collect();
        let combs = [
            Comb { table: &tables[0], exponents: &forward },
            Comb { table: &tables[1], exponents: &backward },
        ];
        (kernels.comb_pow)(&m, width, &combs[..1], &mut batch);
        for (i, power) in batch.chunks_exact(n).enumerate() {
            check("comb_pow", power, &self.oracle.power(first, &raw[i]), &[first, &raw[i]])?;
        }
        (kernels.comb_pow)(&m, width, &combs, &mut batch);
        for (i, power) in batch.chunks_exact(n).enumerate() {
            let factors = (self.oracle.power(first, &raw[i]), self.oracle.power(second, &raw[count - 1 - i]));
            let expected = self.oracle.product(&factors.0, &factors.1);
            check("comb_pow of two", power, &expected, &[first, second, &raw[i], &raw[count - 1 - i]])?;
        }
        Ok(compared)
    }
}

fn bytes_of(words: &[Word]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

fn ordered(block: &[u8], order: ByteOrder) -> Vec<u8> {
    if order == ByteOrder::Big { reversed(block) } else { block.to_vec() }
}

fn hex(little_endian: &[u8]) -> String {
    little_endian.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}

fn main() -> ExitCode {
    let args = Args::parse();
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let everything: Vec<&Kernels> = swarmseal_accel::each().chain(swarmseal_accel::models()).collect();
    let mut compared: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in args.seed.. {
        if Instant::now() >= end {
            break;
        }
        let bits = SIZES[seed as usize % SIZES.len()];
        for kernels in &everything {
            // The same trial for every backend.
            match Trial::new(bits, Random::new(seed)).run(kernels) {
                Ok(count) => *compared.entry(kernels.name).or_default() += count,
                Err(difference) => {
                    eprintln!("seed {seed}, {bits} bits: {difference}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    for (name, count) in compared {
        println!("{name:<10} {count:>9} results equal GMP's");
    }
    ExitCode::SUCCESS
}
