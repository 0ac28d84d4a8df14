//! What every piece costs, on every backend that this CPU runs: the group operation, keys, the package, the witness; and proofs.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use swarmseal_bench::ours::PIECES;
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    DecryptionKey, EncryptionKey, Exponents, FixedBase, Group, Kernels, KeyCommitment, MasterKey, Params,
    Profile, Proof, PublicKey, ReKey, SecretKey, SubscriberId, SubscriberTables, TorrentId, TsKey, TsKeys,
    WitnessExponent, WitnessExponents, WitnessFactor, WitnessKey, WitnessSecret, WitnessTable, check_witness,
    decrypt_piece, encrypt_piece, re_encrypt_piece, witness_hash,
};

/// Bytes of a piece, where W divides it; else the whole blocks that fit.
const PIECE: usize = 256 << 10;
const TORRENT: TorrentId = TorrentId([7; 32]);
const OMEGA: [u8; 32] = [9; 32];
const STATEMENT: &[&[u8]] = &[b"statement"];

/// A subscriber with its tracker-site keys of the first [`PIECES`] pieces.
struct Subscriber {
    secret: SecretKey,
    public: PublicKey,
    keys: Vec<TsKey>,
}

impl Subscriber {
    fn new(params: &Params, master: &MasterKey) -> Self {
        let secret = SecretKey::generate(params, &mut UnwrapErr(SysRng));
        let public = secret.public_key(params);
        let id = SubscriberId::of(&TORRENT, &[1; 32], &KeyCommitment::of(params, &[2; 32], &public));
        let keys = TsKeys::derive(params, master, &id, 1);
        Subscriber { secret, public, keys: (0..PIECES as u32).map(|piece| keys.key(piece)).collect() }
    }

    /// r of piece 0.
    fn r(&self) -> &TsKey {
        &self.keys[0]
    }

    fn tables<'t>(&self, params: &Params, words: &'t mut [swarmseal_core::Word]) -> SubscriberTables<'t> {
        SubscriberTables::new(params, &self.public, words).expect("enough words")
    }
}

fn every_backend(c: &mut Criterion) {
    for kernels in swarmseal_accel::each() {
        for group in [Group::ffdhe2048(kernels), Group::ffdhe3072(kernels)] {
            let params = Params::new(Profile::Sealed, group, Exponents::Short).expect("an RFC 7919 group");
            let master = MasterKey::from_bytes([4; 32]);
            let (j, k) = (Subscriber::new(&params, &master), Subscriber::new(&params, &master));
            pieces(&mut named(c, "piece", kernels, &params), &params, &j, &k);
            keys(&mut named(c, "key", kernels, &params), &params, &j, &k);
            proofs(&mut named(c, "proof", kernels, &params), &params, &j);
        }
    }
}

fn named<'c>(
    c: &'c mut Criterion,
    what: &str,
    kernels: &Kernels,
    params: &Params,
) -> BenchmarkGroup<'c, WallTime> {
    c.benchmark_group(format!("{what}/{}/{}", params.group().bits(), kernels.name))
}

fn pieces(c: &mut BenchmarkGroup<'_, WallTime>, params: &Params, j: &Subscriber, k: &Subscriber) {
    let width = params.group().bytes();
    let mut piece: Vec<u8> = (0..PIECE / width * width).map(|i| i as u8).collect();
    let encryption = EncryptionKey::derive(params, &j.public, j.r());
    let rekey = ReKey::derive(params, (&j.public, j.r()), (&k.public, k.r()));
    let decryption = DecryptionKey::derive(params, k.r());
    let secret = PackageSecret::from_bytes([8; 32]);
    let whole = "whole blocks";

    c.throughput(Throughput::Bytes(piece.len() as u64)).sample_size(20);
    c.bench_function("pack", |b| {
        b.iter(|| package::pack(params, &secret, &TORRENT, 0, black_box(&mut piece)).expect(whole));
    });
    // In place, over and over: the time depends on no block's value, and blocks stay below p.
    c.bench_function("encrypt", |b| {
        b.iter(|| encrypt_piece(params, &encryption, black_box(&mut piece)).expect(whole));
    });
    c.bench_function("re-encrypt", |b| {
        b.iter(|| re_encrypt_piece(params, &rekey, black_box(&mut piece)).expect(whole));
    });
    c.bench_function("decrypt", |b| {
        b.iter(|| decrypt_piece(params, &k.secret, &decryption, black_box(&mut piece)).expect(whole));
    });
    c.bench_function("unpack", |b| {
        b.iter(|| package::unpack(params, black_box(&mut piece)).expect(whole));
    });

    let w = WitnessExponents::derive(params, &WitnessSecret::from_bytes(OMEGA), &TORRENT).exponent(0);
    let factor = WitnessFactor::derive(params, &w);
    package::pack(params, &secret, &TORRENT, 0, &mut piece).expect(whole);
    let published = witness_hash(params, &factor, &mut piece.clone()).expect(whole);
    encrypt_piece(params, &encryption, &mut piece).expect(whole);
    let key = WitnessKey::derive(params, &w, (&j.public, j.r()));
    let mut scratch = piece.clone();
    c.bench_function("witness check", |b| {
        b.iter(|| {
            check_witness(params, &key, &published, black_box(&piece), &mut scratch).expect("it is honest");
        });
    });
    c.bench_function("witness hash", |b| {
        b.iter(|| witness_hash(params, &factor, black_box(&mut piece)).expect(whole));
    });
}

fn keys(c: &mut BenchmarkGroup<'_, WallTime>, params: &Params, j: &Subscriber, k: &Subscriber) {
    let (mut words_j, mut words_k) =
        (vec![0; SubscriberTables::words(params)], vec![0; SubscriberTables::words(params)]);
    let mut words_g = vec![0; FixedBase::words(params)];
    c.sample_size(20);
    c.bench_function("tables of a subscriber", |b| {
        b.iter(|| {
            j.tables(params, black_box(&mut words_j));
        });
    });
    let (tables_j, tables_k) = (j.tables(params, &mut words_j), k.tables(params, &mut words_k));
    let table_g = DecryptionKey::table(params, &mut words_g).expect("enough words");

    c.bench_function("encryption", |b| {
        b.iter(|| EncryptionKey::derive(params, black_box(&j.public), j.r()));
    });
    c.bench_function("encryption, tables", |b| {
        b.iter(|| EncryptionKey::derive_with(params, black_box(&tables_j), j.r()));
    });
    c.bench_function("re-key", |b| {
        b.iter(|| ReKey::derive(params, black_box((&j.public, j.r())), (&k.public, k.r())));
    });
    c.bench_function("re-key, tables", |b| {
        b.iter(|| ReKey::derive_with(params, black_box((&tables_j, j.r())), (&tables_k, k.r())));
    });
    c.bench_function("decryption, table", |b| {
        b.iter(|| DecryptionKey::derive_with(params, black_box(&table_g), k.r()));
    });

    let mut words_w = vec![0; FixedBase::words(params)];
    let table_w = WitnessTable::new(params, &mut words_w).expect("enough words");
    let exponents = WitnessExponents::derive(params, &WitnessSecret::from_bytes(OMEGA), &TORRENT);
    let w: Vec<WitnessExponent> = (0..PIECES as u32).map(|piece| exponents.exponent(piece)).collect();
    c.throughput(Throughput::Elements(1));
    c.bench_function("witness", |b| {
        b.iter(|| WitnessKey::derive(params, &w[0], black_box((&k.public, k.r()))));
    });
    c.bench_function("witness, tables", |b| {
        b.iter(|| WitnessKey::derive_with(params, (&table_w, &w[0]), black_box((&tables_k, k.r()))));
    });
    c.throughput(Throughput::Elements(PIECES as u64));
    c.bench_function(format!("witness, tables, batch of {PIECES}"), |b| {
        b.iter(|| {
            WitnessKey::derive_batch(params, (&table_w, &w), black_box((&tables_k, &k.keys)), |_, key| {
                black_box(key);
            });
        });
    });
}

fn proofs(c: &mut BenchmarkGroup<'_, WallTime>, params: &Params, j: &Subscriber) {
    let mut rng = UnwrapErr(SysRng);
    let proof = Proof::prove(params, &j.secret, &j.public, STATEMENT, &mut rng);
    c.sample_size(20);
    c.bench_function("prove", |b| {
        b.iter(|| Proof::prove(params, &j.secret, &j.public, black_box(STATEMENT), &mut rng));
    });
    c.bench_function("verify", |b| {
        b.iter(|| black_box(&proof).verify(params, &j.public, STATEMENT).expect("it is valid"));
    });
}

criterion_group!(benches, every_backend);
criterion_main!(benches);
