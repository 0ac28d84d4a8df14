//! What each way of checking received pieces costs (paper, section 2.3), and whom.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use serde::Serialize;
use sha1::{Digest, Sha1};
use swarmseal_bench::ours::{PIECES, backends};
use swarmseal_bench::problem::Random;
use swarmseal_bench::programs::{noise, size};
use swarmseal_bench::report::{cells, table};
use swarmseal_bench::timing::{Contender, interleave};
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    DecryptionKey, EncryptionKey, Exponents, FixedBase, Group, Kernels, KeyCommitment, MasterKey, OpenedKey,
    Params, Profile, SecretKey, SubscriberId, SubscriberTables, TorrentId, TsKey, TsKeys, WitnessExponent,
    WitnessExponents, WitnessFactor, WitnessKey, WitnessSecret, WitnessTable, check_witness,
    decrypt_piece_with, encrypt_piece, witness_hash,
};

/// Times three ways to check a sealed piece that came, by the library's functions on one core, in turns.
///
/// The witness: anybody checks by T and BLAKE3. By license: who may open a piece opens it, and compares SHA-1 with the .torrent's
/// `pieces`. Hashes for each subscriber: a seed encrypts everything for it and tells the SHA-1 of each piece. Keys are made 32 at a
/// time from warm tables of 2,048 bits.
#[derive(Parser)]
struct Args {
    /// Bytes of a piece, with K or M: whole blocks of 256.
    #[arg(long, default_value = "256K", value_parser = size)]
    piece: u64,
    /// Seconds for each backend.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// A second for each backend.
    #[arg(long)]
    quick: bool,
    /// Only this backend. Can be repeated.
    #[arg(long)]
    backend: Vec<String>,
    /// Print JSON: {piece, rows: [{backend, way, peer, seed, tracker, publish, torrent_bytes, tracker_bytes}], rates}.
    #[arg(long)]
    json: bool,
}

/// One way on one backend. Seconds are of one core, for a GiB; a seed's and the tracker's for each subscriber.
#[derive(Serialize)]
struct Row {
    backend: &'static str,
    way: &'static str,
    peer: f64,
    seed: f64,
    tracker: f64,
    /// Packaging, hashing and whatever this way adds, once.
    publish: f64,
    /// Bytes in the .torrent for a GiB, and from the tracker for a GiB and a subscriber.
    torrent_bytes: u64,
    tracker_bytes: u64,
}

/// How fast the witness is on one core of a backend.
#[derive(Serialize)]
struct Rate {
    backend: &'static str,
    /// Megabytes (10^6) checked a second.
    check_mb_s: f64,
    /// Witness keys made a second.
    keys_a_second: f64,
}

#[derive(Serialize)]
struct Report {
    piece: u64,
    rows: Vec<Row>,
    rates: Vec<Rate>,
}

const GIB: f64 = (1_u64 << 30) as f64;
const TORRENT: TorrentId = TorrentId([7; 32]);
/// Bytes of a SHA-1 and of a BLAKE3 hash.
const HASHES: [u64; 2] = [20, 32];

fn core(error: swarmseal_core::Error) -> anyhow::Error {
    anyhow!("{error}")
}

/// Nanoseconds: of the first six for a piece, of the others for a key.
#[derive(Clone, Copy)]
struct Times {
    package: f64,
    sha1: f64,
    encrypt: f64,
    open: f64,
    check: f64,
    witness_hash: f64,
    witness_factor: f64,
    witness_key: f64,
    encryption_key: f64,
    decryption_key: f64,
    opened_key: f64,
}

/// A subscriber of a torrent, and a piece of it in every form.
struct Subject {
    params: Params,
    secret: SecretKey,
    package_secret: PackageSecret,
    r: Vec<TsKey>,
    w: Vec<WitnessExponent>,
    package: Vec<u8>,
    ciphertext: Vec<u8>,
    sha1: [u8; 20],
    witness: [u8; 32],
}

impl Subject {
    fn new(kernels: &'static Kernels, piece: u64) -> Result<Self> {
        let params =
            Params::new(Profile::Sealed, Group::ffdhe2048(kernels), Exponents::Short).map_err(core)?;
        let secret = SecretKey::generate(&params, &mut Random::new(1));
        let y = secret.public_key(&params);
        let id = SubscriberId::of(&TORRENT, &[1; 32], &KeyCommitment::of(&params, &[2; 32], &y));
        let r = TsKeys::derive(&params, &MasterKey::from_bytes([3; 32]), &id, 1);
        let w = WitnessExponents::derive(&params, &WitnessSecret::from_bytes([4; 32]), &TORRENT);
        let numbers = || 0..PIECES as u32;
        let (r, w): (Vec<_>, Vec<_>) = (
            numbers().map(|piece| r.key(piece)).collect(),
            numbers().map(|piece| w.exponent(piece)).collect(),
        );
        let package_secret = PackageSecret::from_bytes([5; 32]);
        let mut package = noise(piece);
        package::pack(&params, &package_secret, &TORRENT, 0, &mut package).map_err(core)?;
        let mut ciphertext = package.clone();
        encrypt_piece(&params, &EncryptionKey::derive(&params, &y, &r[0]), &mut ciphertext).map_err(core)?;
        let factor = WitnessFactor::derive(&params, &w[0]);
        let witness = witness_hash(&params, &factor, &mut package.clone()).map_err(core)?;
        let sha1 = Sha1::digest(&package).into();
        Ok(Subject { params, secret, package_secret, r, w, package, ciphertext, sha1, witness })
    }

    fn time(&self, budget: Duration) -> Result<Times> {
        let Subject { params, secret, r, w, .. } = self;
        let y = secret.public_key(params);
        let (mut words, mut words_w, mut words_g) = (
            vec![0; SubscriberTables::words(params)],
            vec![0; FixedBase::words(params)],
            vec![0; FixedBase::words(params)],
        );
        let tables = SubscriberTables::new(params, &y, &mut words).map_err(core)?;
        let table = WitnessTable::new(params, &mut words_w).map_err(core)?;
        let table_g = DecryptionKey::table(params, &mut words_g).map_err(core)?;
        let encryption = EncryptionKey::derive(params, &y, &r[0]);
        let opened = OpenedKey::derive(params, &y, &r[0]);
        let witness_key = WitnessKey::derive(params, &w[0], (&y, &r[0]));
        let factor = WitnessFactor::derive(params, &w[0]);
        let entries: Vec<DecryptionKey> = r.iter().map(|r| DecryptionKey::derive(params, r)).collect();

        let mut pieces: [Vec<u8>; 5] = std::array::from_fn(|_| self.package.clone());
        let [packed, encrypted, hashed, checked, plain] = &mut pieces;
        let whole = "a piece of whole blocks";
        let of_keys = PIECES as f64;
        let mut contenders = [
            Contender::new(|| {
                package::pack(params, &self.package_secret, &TORRENT, 0, packed).expect(whole);
                1.0
            }),
            Contender::new(|| {
                black_box(Sha1::digest(&self.ciphertext));
                1.0
            }),
            Contender::new(|| {
                encrypt_piece(params, &encryption, encrypted).expect(whole);
                1.0
            }),
            Contender::new(|| {
                plain.copy_from_slice(&self.ciphertext);
                decrypt_piece_with(params, &opened, plain).expect(whole);
                assert!(*Sha1::digest(&*plain) == self.sha1, "it opens to what was published");
                1.0
            }),
            Contender::new(|| {
                let right = check_witness(params, &witness_key, &self.witness, &self.ciphertext, checked);
                right.expect("it is what was published");
                1.0
            }),
            Contender::new(|| {
                black_box(witness_hash(params, &factor, hashed).expect(whole));
                1.0
            }),
            Contender::new(|| {
                WitnessFactor::derive_batch(params, &table, w, |_, factor| drop(black_box(factor)));
                of_keys
            }),
            Contender::new(|| {
                WitnessKey::derive_batch(params, (&table, w), (&tables, r), |_, key| drop(black_box(key)));
                of_keys
            }),
            Contender::new(|| {
                EncryptionKey::derive_batch(params, &tables, r, |_, key| drop(black_box(key)));
                of_keys
            }),
            Contender::new(|| {
                DecryptionKey::derive_batch(params, &table_g, r, |_, key| drop(black_box(key)));
                of_keys
            }),
            Contender::new(|| {
                DecryptionKey::open_batch(params, secret, &entries, |_, key| drop(black_box(key)));
                of_keys
            }),
        ];
        let medians = interleave(&mut contenders, budget);
        let times: [f64; 11] = medians.try_into().map_err(|_| anyhow!("a figure for each"))?;
        let [package, sha1, encrypt, open, check, witness_hash, rest @ ..] = times;
        let [witness_factor, witness_key, encryption_key, decryption_key, opened_key] = rest;
        Ok(Times {
            package,
            sha1,
            encrypt,
            open,
            check,
            witness_hash,
            witness_factor,
            witness_key,
            encryption_key,
            decryption_key,
            opened_key,
        })
    }
}

/// What the three ways come to; `width`: bytes of a key.
fn rows(backend: &'static str, times: &Times, piece: u64, width: u64) -> [Row; 3] {
    let pieces = GIB / piece as f64;
    let seconds = |nanoseconds: f64| nanoseconds * pieces / 1e9;
    let bytes = |of_a_piece: u64| of_a_piece * (1 << 30) / piece;
    let Times { package, sha1, encrypt, open, check, .. } = *times;
    let publish = package + sha1;
    let [of_sha1, of_blake3] = HASHES;
    [
        Row {
            backend,
            way: "witness",
            peer: seconds(check),
            seed: 0.0,
            tracker: seconds(times.witness_key),
            publish: seconds(publish + times.witness_factor + times.witness_hash),
            torrent_bytes: bytes(of_blake3),
            tracker_bytes: bytes(width),
        },
        Row {
            backend,
            way: "SHA-1 by license",
            peer: seconds(times.opened_key + open),
            seed: 0.0,
            tracker: seconds(times.decryption_key),
            publish: seconds(publish),
            torrent_bytes: bytes(of_sha1),
            tracker_bytes: bytes(width),
        },
        Row {
            backend,
            way: "hashes for each subscriber",
            peer: seconds(sha1),
            seed: seconds(encrypt + sha1),
            tracker: seconds(times.encryption_key),
            publish: seconds(publish),
            torrent_bytes: 0,
            // The seed's keys, and the hashes.
            tracker_bytes: bytes(width + of_sha1),
        },
    ]
}

fn main() -> Result<()> {
    let args = Args::parse();
    let seconds = if args.quick { 1.0 } else { args.seconds };
    let budget = Duration::try_from_secs_f64(seconds).context("--seconds")?;
    let (mut all, mut rates) = (Vec::new(), Vec::new());
    for kernels in backends(&args.backend)? {
        let subject = Subject::new(kernels, args.piece)?;
        let width = subject.params.group().bytes() as u64;
        ensure!(args.piece.is_multiple_of(width), "--piece: expected whole blocks of {width} bytes");
        let times = subject.time(budget)?;
        all.extend(rows(kernels.name, &times, args.piece, width));
        rates.push(Rate {
            backend: kernels.name,
            check_mb_s: 1e3 * args.piece as f64 / times.check,
            keys_a_second: 1e9 / times.witness_key,
        });
    }
    let report = Report { piece: args.piece, rows: all, rates };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn print(report: &Report) {
    println!("{} KiB a piece, 2,048 bits; seconds of one core and bytes, for a GiB", report.piece >> 10);
    let head =
        ["backend", "way", "peer", "seed", "tracker", "publish", "in the .torrent", "from the tracker"];
    let mut lines = vec![cells(head)];
    lines.extend(report.rows.iter().map(|row| {
        let seconds = [row.peer, row.seed, row.tracker, row.publish].map(|seconds| format!("{seconds:.3}"));
        let bytes = [row.torrent_bytes, row.tracker_bytes].map(|bytes| bytes.to_string());
        [&cells([row.backend, row.way])[..], &seconds, &bytes].concat()
    }));
    println!("{}", table(&lines));
    let mut lines = vec![cells(["backend", "witness, MB/s", "witness keys/s"])];
    lines.extend(report.rates.iter().map(|rate| {
        let figures = [rate.check_mb_s, rate.keys_a_second].map(|figure| format!("{figure:.0}"));
        [&cells([rate.backend])[..], &figures].concat()
    }));
    print!("{}", table(&lines));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_wrong_piece_passes_neither_check() {
        let mut subject = Subject::new(Kernels::portable(), 1024).unwrap();
        subject.ciphertext[300] ^= 1;
        let y = subject.secret.public_key(&subject.params);
        let key = WitnessKey::derive(&subject.params, &subject.w[0], (&y, &subject.r[0]));
        let (piece, scratch) = (&subject.ciphertext, &mut vec![0; 1024]);
        assert!(check_witness(&subject.params, &key, &subject.witness, piece, scratch).is_err());
        let opened = OpenedKey::derive(&subject.params, &y, &subject.r[0]);
        decrypt_piece_with(&subject.params, &opened, &mut subject.ciphertext).unwrap();
        assert_ne!(*Sha1::digest(&subject.ciphertext), subject.sha1);
    }

    #[test]
    fn a_gib_has_its_bytes() {
        let subject = Subject::new(Kernels::portable(), 1024).unwrap();
        let times = subject.time(Duration::ZERO).unwrap();
        let [witness, license, hashes] = rows("portable", &times, 256 << 10, 256);
        assert_eq!((witness.torrent_bytes, witness.tracker_bytes), (4096 * 32, 4096 * 256));
        assert_eq!((license.torrent_bytes, hashes.tracker_bytes), (4096 * 20, 4096 * 276));
        assert!(witness.peer > 0.0 && witness.publish > license.publish && hashes.seed > hashes.peer);
    }
}
