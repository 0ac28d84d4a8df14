//! Swarmseal's own arithmetic, on one backend.

use std::hint::black_box;

use anyhow::{Context, Result};
use swarmseal_core::kernels::{ByteOrder, Comb, Exponent, Power};
use swarmseal_core::{
    DecryptionKey, FixedBase, Group, Kernels, MasterKey, Params, Progress, ReKey, SecretKey, SubscriberId,
    SubscriberTables, TsKey, TsKeys, Word,
};

use crate::problem::{ByWidth, Problem, Random, Width, named_group};

/// Pieces whose keys are derived in one batch: what a tracker answers in one request.
pub const PIECES: usize = 32;
/// Candidates tested, at the least, in one timed search for safe primes. A window is sieved for some 500 of 2,048 bits.
const SEARCHED: u64 = 256;

/// The backends of those names, or all that this CPU runs. Errors: a name that it does not.
pub fn backends(names: &[String]) -> Result<Vec<&'static Kernels>> {
    if names.is_empty() {
        return Ok(swarmseal_accel::each().collect());
    }
    let named = |name: &String| {
        swarmseal_accel::by_name(name).with_context(|| format!("this CPU runs no backend {name:?}"))
    };
    names.iter().map(named).collect()
}

/// One backend, prepared for one [`Problem`]. Its numbers are mont but where they are bytes.
pub struct Ours<'p> {
    problem: &'p Problem,
    kernels: &'static Kernels,
    group: Group,
    factor: Vec<Word>,
    bases: Vec<Vec<Word>>,
    exponents: ByWidth<Exponent>,
    /// As many numbers as a batch has.
    results: Vec<Word>,
}

impl<'p> Ours<'p> {
    /// With the tables of no base yet.
    pub fn new(problem: &'p Problem, kernels: &'static Kernels) -> Self {
        let (_, group) = named_group(problem.bits, kernels).expect("a problem has a group");
        let mont = |bytes: &[u8]| {
            let mut out = vec![0; group.modulus().len()];
            (kernels.mont_mul)(group.modulus(), &words(bytes), group.modulus().r2(), &mut out);
            out
        };
        Ours {
            problem,
            kernels,
            factor: mont(&problem.factor),
            bases: problem.bases.iter().map(|base| mont(base)).collect(),
            exponents: problem.exponents.map(|bytes| exponent(bytes)),
            results: vec![0; problem.bases.len() * group.modulus().len()],
            group,
        }
    }

    /// The backend's name.
    pub fn name(&self) -> &'static str {
        self.kernels.name
    }

    /// PEnc, T or PDec: every block by the factor, in place.
    pub fn mul_blocks(&self, blocks: &mut [u8]) {
        (self.kernels.mul_blocks)(self.group.modulus(), &self.factor, ByteOrder::Little, blocks);
    }

    /// base_0 · factor^times.
    pub fn mul_chain(&mut self, times: usize) {
        let m = self.group.modulus();
        let mut from = self.bases[0].clone();
        let (to, _) = self.results.split_at_mut(m.len());
        for _ in 0..times {
            (self.kernels.mont_mul)(m, &from, &self.factor, to);
            from.copy_from_slice(to);
        }
    }

    /// base_0², in Montgomery form.
    pub fn square(&mut self) {
        let m = self.group.modulus();
        (self.kernels.mont_sqr)(m, &self.bases[0], &mut self.results[..m.len()]);
    }

    /// base_i ^ exponent_i.
    pub fn pow(&mut self, index: usize, width: Width) {
        let m = self.group.modulus();
        let exponents = self.exponents.of(width);
        (self.kernels.modpow)(m, &self.bases[index], &exponents[index], &mut self.results[..m.len()]);
    }

    /// base_i ^ exponent_i for every i.
    pub fn pow_batch(&mut self, width: Width) {
        let modulus = self.group.modulus();
        let exponents = self.exponents.of(width);
        let power = |(base, exponent)| Power { modulus, base, exponent };
        let powers: Vec<Power<'_>> = self.bases.iter().map(Vec::as_slice).zip(exponents).map(power).collect();
        (self.kernels.modpow_batch)(&powers, &mut self.results);
    }

    /// base_0 ^ exponent_0 · base_1 ^ exponent_1 from tables, as a re-key is made.
    pub fn mul_pow(&mut self, width: Width) {
        let m = self.group.modulus();
        let bits = self.exponents.of(width)[0].bits();
        let tables = [0, 1].map(|index| {
            let mut table = vec![0; (self.kernels.comb_words)(m, bits)];
            (self.kernels.comb_fill)(m, &self.bases[index], bits, &mut table);
            table
        });
        let exponents = [0, 1].map(|index| [&self.exponents.of(width)[index]]);
        let combs = [0, 1].map(|t| Comb { table: &tables[t], exponents: &exponents[t] });
        let mut out = vec![0; m.len()];
        (self.kernels.comb_pow)(m, bits, &combs, &mut out);
        self.results[..m.len()].copy_from_slice(&out);
    }

    /// Result `index` of the last operation, as [`Problem`] writes numbers.
    pub fn result(&self, index: usize) -> Vec<u8> {
        let m = self.group.modulus();
        let mut one = vec![0; m.len()];
        one[0] = 1;
        let mut plain = vec![0; m.len()];
        (self.kernels.mont_mul)(m, &self.results[index * m.len()..][..m.len()], &one, &mut plain);
        plain.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The keys of two subscribers, where the group has exponents of that width.
    pub fn keys(&self, width: Width) -> Option<Keys> {
        Some(Keys::new(self.problem.params(self.kernels, width)?))
    }

    /// Searches for safe primes from the same start points in every run, and says how far it came.
    pub fn search(&self) -> Progress {
        let search = |seed| {
            let mut reached = Progress { sieved: 0, tested: 0 };
            let mut random = Random::new(seed);
            let found = Group::generate(self.kernels, self.problem.bits, &mut random, |so_far| {
                reached = so_far;
                so_far.tested < SEARCHED
            });
            // A search that ended early by finding a prime would be too short a sample.
            found.is_err().then_some(reached)
        };
        (0..).find_map(search).expect("most searches go on")
    }
}

/// What a tracker has for two subscribers: tables, and the tracker-site keys of [`PIECES`] pieces.
pub struct Keys {
    params: Params,
    keys: [Vec<TsKey>; 2],
    tables: [SubscriberTables<'static>; 2],
    table_of_g: FixedBase<'static>,
}

impl Keys {
    fn new(params: Params) -> Self {
        let mut random = Random::new(0);
        let master = MasterKey::from_bytes([4; 32]);
        let public = [(); 2].map(|()| SecretKey::generate(&params, &mut random).public_key(&params));
        let keys = [1, 2].map(|id| {
            let keys = TsKeys::derive(&params, &master, &SubscriberId([id; 32]), 1);
            (0..PIECES as u32).map(|piece| keys.key(piece)).collect()
        });
        // Tables borrow their words. These live as long as the program, which times them to its end.
        let leak = |words| vec![0; words].leak();
        let enough = "as many words as asked for";
        let tables = public.each_ref().map(|y| {
            SubscriberTables::new(&params, y, leak(SubscriberTables::words(&params))).expect(enough)
        });
        let table_of_g = DecryptionKey::table(&params, leak(FixedBase::words(&params))).expect(enough);
        Keys { params, keys, tables, table_of_g }
    }

    /// The re-keys of all pieces, with tables warm.
    pub fn rekeys(&self) {
        let [uploader, downloader] = [0, 1].map(|i| (&self.tables[i], self.keys[i].as_slice()));
        ReKey::derive_batch(&self.params, uploader, downloader, |_, rekey| {
            black_box(rekey);
        });
    }

    /// The license entries of all pieces of one subscriber.
    pub fn license_entries(&self) {
        DecryptionKey::derive_batch(&self.params, &self.table_of_g, &self.keys[0], |_, entry| {
            black_box(entry);
        });
    }
}

/// From whole words of little-endian bytes.
pub fn words(bytes: &[u8]) -> Vec<Word> {
    let (words, []) = bytes.as_chunks::<{ size_of::<Word>() }>() else { panic!("whole words") };
    words.iter().map(|&word| Word::from_le_bytes(word)).collect()
}

/// From little-endian bytes; the width is that of the bytes.
pub fn exponent(bytes: &[u8]) -> Exponent {
    let mut bytes = bytes.to_vec();
    bytes.reverse();
    Exponent::from_be(&bytes)
}
