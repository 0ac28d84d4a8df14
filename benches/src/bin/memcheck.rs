//! Every function over secrets, with the secrets marked undefined: memcheck then reports whatever branches on one or uses
//! one as an address (Langley, "ctgrind", 2010). `.ci/memcheck` runs it under valgrind.
//!
//! Secret are s, r, device roots, master keys, witness secrets, package secrets, plaintext, and all that is made of them; p, g, public
//! keys, tables of powers of them and lengths are public. Which functions of the core these are says [`secrets::SECRET`], and one that
//! was not run is a failure. A public key's own validation, and whatever ends in `_vartime`, take public input only and are not run on secrets
//! here. Tickets hold no secret.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::hint::black_box;
use std::process::ExitCode;

use clap::Parser;
use crabgrind::memcheck::{MemState, mark_memory, vbits};
use crabgrind::valgrind::count_errors;
use rand_core::{TryCryptoRng, TryRng};
use swarmseal_accel::bench::planted;
use swarmseal_bench::problem::Random;
use swarmseal_bench::{secrets, valgrind};
use swarmseal_core::kernels::{
    self, Arithmetic, ByteOrder, Comb, Exponent, Portable, Power,
    scalar::{self, CombShape},
};
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    DecryptionKey, DeviceRoot, EncryptionKey, Exponents, FixedBase, Group, MasterKey, OpenedKey, Params,
    Profile, Proof, ReKey, SecretKey, SubscriberId, SubscriberTables, TorrentId, TsKey, TsKeys,
    WitnessExponent, WitnessExponents, WitnessFactor, WitnessKey, WitnessSecret, WitnessTable, Word,
    check_witness, check_witness_in_place, decrypt_piece, decrypt_piece_with, encrypt_piece,
    have_one_multiplier, re_encrypt_piece, witness_hash,
};

/// Seven lanes of eight, and one more than fills a vector.
const COUNTS: [u32; 2] = [7, 9];
/// Enough for every kernel to prepare its factor, and one more than fills vectors.
const BLOCKS: usize = 33;
const TORRENT: TorrentId = TorrentId([7; 32]);
const WHOLE: &str = "whole blocks";
/// Short exponents and the package; and what there is besides: full exponents, in both places, and big-endian blocks.
const USES: [(Profile, Exponents); 2] =
    [(Profile::Sealed, Exponents::Short), (Profile::Paper, Exponents::Full)];

/// Runs all functions over secrets with the secrets marked undefined. Needs `valgrind --error-limit=no`.
#[derive(Parser)]
struct Args {
    /// Only run functions that leak on purpose, to see that they are reported.
    #[arg(long)]
    plant: bool,
    /// Only this backend. Can be repeated.
    #[arg(long)]
    backend: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !valgrind::is_running() {
        eprintln!("run this under valgrind: .ci/memcheck does");
        return ExitCode::FAILURE;
    }
    let mut report = Report::default();
    if args.plant {
        planted_leaks(&mut report);
        return report.exit();
    }
    let backends = swarmseal_accel::candidates().filter_map(|candidate| valgrind::backend(candidate.name));
    for kernels in backends.chain(swarmseal_accel::models()) {
        if !args.backend.is_empty() && !args.backend.iter().any(|name| name == kernels.name) {
            continue;
        }
        for (profile, exponents) in USES {
            report.context = format!("{}, {profile}, {exponents} exponents", kernels.name);
            let params =
                Params::new(profile, Group::ffdhe2048(kernels), exponents).expect("an RFC 7919 group");
            operations(&mut report, &params);
            functions(&mut report, &params);
            report.all_have_run();
        }
    }
    report.exit()
}

#[derive(Default)]
struct Report {
    failed: bool,
    context: String,
    ran: BTreeSet<&'static str>,
}

impl Report {
    /// Runs a function of [`secrets::SECRET`], in which memcheck must report exactly `decisions` uses of a secret: those that
    /// its documentation admits.
    fn run<T>(&mut self, function: &'static str, decisions: usize, work: impl FnOnce() -> T) -> T {
        let before = count_errors();
        let result = work();
        let found = count_errors() - before;
        let verdict = if found == decisions { "ok" } else { "LEAKS" };
        println!("{verdict:6}{}: {function}: {found} uses of a secret, {decisions} documented", self.context);
        self.failed |= found != decisions;
        self.ran.insert(function);
        result
    }

    /// That every function of the table has run by now, and no other.
    fn all_have_run(&mut self) {
        let table: BTreeSet<_> = secrets::SECRET.iter().copied().collect();
        let ran = std::mem::take(&mut self.ran);
        for function in table.symmetric_difference(&ran) {
            let verdict = if ran.contains(function) { "not in the table" } else { "not run" };
            println!("FAIL  {}: {function}: {verdict}", self.context);
            self.failed = true;
        }
    }

    fn exit(&self) -> ExitCode {
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Leaks that must be found: a branch on a secret bit, and a secret index. The others are for `.ci/disassembly` to find, which reads
/// this program and looks for all of them here.
fn planted_leaks(report: &mut Report) {
    let mut table = [0; 256];
    Random::new(1).try_fill_bytes(&mut table).unwrap_or_else(|never| match never {});
    let bytes = secret([0x5a, 0xa5]);
    let words = secret_words(&[1, 2, 3, 4]);
    report.run("planted branch", 0, || planted::branch(&words, &mut [0; 4]));
    report.run("planted early return", 0, || black_box(planted::early_return(&words)));
    report.run("planted index", 0, || black_box(planted::index(&bytes, &table)));
    planted::keep();
}

/// The seam's operations and what they are built from.
fn operations(report: &mut Report, params: &Params) {
    let (m, kernels) = (params.group().modulus(), params.group().kernels());
    let n = m.len();
    let [a, b] = [m.one(), m.r2()].map(secret_words);
    let mut out = vec![0; n];
    report.run("kernels::Kernels::mont_mul", 0, || (kernels.mont_mul)(m, &a, &b, &mut out));
    report.run("kernels::Kernels::mont_sqr", 0, || (kernels.mont_sqr)(m, &a, &mut out));
    report.run("kernels::scalar::Arithmetic::mont_mul", 0, || Portable::mont_mul(m, &a, &b, &mut out));
    report.run("kernels::scalar::Arithmetic::mont_sqr", 0, || Portable::mont_sqr(m, &a, &mut out));

    let mut bytes = Random::new(4).bytes(BLOCKS * params.group().bytes());
    mark(&mut bytes);
    for order in [ByteOrder::Big, ByteOrder::Little] {
        report.run("bytes::load", 0, || kernels::load(order, &bytes[..params.group().bytes()], &mut out));
        report.run("bytes::store", 0, || kernels::store(order, &out, &mut bytes[..params.group().bytes()]));
        report.run("kernels::Kernels::mul_blocks", 0, || (kernels.mul_blocks)(m, &b, order, &mut bytes));
        report.run("kernels::scalar::Arithmetic::mul_blocks", 0, || {
            Portable::mul_blocks(m, &b, order, &mut bytes);
        });
        report.run("kernels::scalar::mul_blocks", 0, || {
            scalar::mul_blocks::<Portable>(m, &b, order, &mut bytes);
        });
    }

    let exponent = report.run("exponent::Exponent::from_be", 0, || Exponent::from_be(&secret([0xa5; 32])));
    report.run("exponent::Exponent::limbs", 0, || black_box(exponent.limbs()));
    report.run("exponent::Exponent::digit", 0, || black_box(exponent.digit(50, 5)));
    report.run("exponent::Exponent::bit", 0, || black_box(exponent.bit(200)));
    let shape = CombShape::new(exponent.bits());
    report.run("kernels::scalar::CombShape::digit", 0, || black_box(shape.digit(&exponent, 1, 2)));

    report.run("kernels::Kernels::modpow", 0, || (kernels.modpow)(m, &b, &exponent, &mut out));
    report.run("kernels::scalar::modpow", 0, || scalar::modpow::<Portable>(m, &b, &exponent, &mut out));
    let powers = [Power { modulus: m, base: &b, exponent: &exponent }; COUNTS[0] as usize];
    let mut out = vec![0; powers.len() * n];
    report.run("kernels::Kernels::modpow_batch", 0, || (kernels.modpow_batch)(&powers, &mut out));
    report.run("kernels::scalar::modpow_batch", 0, || {
        scalar::modpow_batch::<Portable>(&powers[..1], &mut out[..n]);
    });

    let exponents = [&exponent; COUNTS[0] as usize];
    let mut table = vec![0; (kernels.comb_words)(m, exponent.bits())];
    (kernels.comb_fill)(m, m.r2(), exponent.bits(), &mut table);
    report.run("kernels::Kernels::comb_pow", 0, || {
        let combs = [Comb { table: &table, exponents: &exponents }];
        (kernels.comb_pow)(m, exponent.bits(), &combs, &mut out);
    });
    let mut table = vec![0; scalar::comb_words(m, exponent.bits())];
    scalar::comb_fill::<Portable>(m, m.r2(), exponent.bits(), &mut table);
    report.run("kernels::scalar::comb_pow", 0, || {
        let combs = [Comb { table: &table, exponents: &exponents[..1] }];
        scalar::comb_pow::<Portable>(m, exponent.bits(), &combs, &mut out[..n]);
    });
}

/// The scheme's functions.
fn functions(report: &mut Report, params: &Params) {
    let sealed = params.profile() == Profile::Sealed;
    let [y_j, y_k] =
        [1, 2].map(|seed| SecretKey::generate(params, &mut Random::new(seed)).public_key(params));
    let (mut words_j, mut words_k, mut words_g, mut words_w) = (
        vec![0; SubscriberTables::words(params)],
        vec![0; SubscriberTables::words(params)],
        vec![0; FixedBase::words(params)],
        vec![0; FixedBase::words(params)],
    );
    let enough = "as many words as asked for";
    let tables_j = SubscriberTables::new(params, &y_j, &mut words_j).expect(enough);
    let tables_k = SubscriberTables::new(params, &y_k, &mut words_k).expect(enough);
    let table_g = DecryptionKey::table(params, &mut words_g).expect(enough);
    let table_w = WitnessTable::new(params, &mut words_w).expect(enough);

    let root = report.run("device::DeviceRoot::from_bytes", 0, || DeviceRoot::from_bytes(secret([6; 32])));
    report.run("device::DeviceRoot::as_bytes", 0, || assert!(is_secret(root.as_bytes())));
    report.run("device::DeviceRoot::secret_key", 0, || drop(black_box(root.secret_key(params, &TORRENT))));
    let derived = [
        report.run("device::DeviceRoot::identity_key", 0, || root.identity_key(&TORRENT)),
        report.run("device::DeviceRoot::device_key", 0, || root.device_key(&TORRENT)),
        report.run("device::DeviceRoot::seat_key", 0, || root.seat_key(&[7; 32])),
    ];
    report.run("device::DerivedSecret::as_bytes", 0, || {
        assert!(derived.iter().all(|secret| is_secret(secret.as_bytes())));
    });

    let s = report.run("keys::SecretKey::generate", 0, || SecretKey::generate(params, &mut SecretRandom));
    report.run("keys::SecretKey::public_key", 0, || black_box(s.public_key(params)));
    let master = report.run("ts_keys::MasterKey::from_bytes", 0, || MasterKey::from_bytes(secret([4; 32])));
    report.run("ts_keys::MasterKey::as_bytes", 0, || assert!(is_secret(master.as_bytes())));
    let [r_j, r_k] = [1, 2].map(|id| {
        let keys = report.run("ts_keys::TsKeys::derive", 0, || {
            TsKeys::derive(params, &master, &SubscriberId([id; 32]), 1)
        });
        report.run("ts_keys::TsKeys::key", 0, || {
            (0..COUNTS[1]).map(|piece| keys.key(piece)).collect::<Vec<TsKey>>()
        })
    });

    let key =
        report.run("piece_keys::EncryptionKey::derive", 0, || EncryptionKey::derive(params, &y_j, &r_j[0]));
    let rekey = report
        .run("piece_keys::ReKey::derive", 0, || ReKey::derive(params, (&y_j, &r_j[0]), (&y_k, &r_k[0])));
    report.run("piece_keys::OpenedKey::derive", 0, || {
        drop(black_box(OpenedKey::derive(params, &y_j, &r_j[0])));
    });
    let entry = report.run("piece_keys::DecryptionKey::derive", 0, || DecryptionKey::derive(params, &r_j[0]));
    report.run("piece_keys::EncryptionKey::derive_with", 0, || {
        drop(black_box(EncryptionKey::derive_with(params, &tables_j, &r_j[0])));
    });
    report.run("piece_keys::ReKey::derive_with", 0, || {
        drop(black_box(ReKey::derive_with(params, (&tables_j, &r_j[0]), (&tables_k, &r_k[0]))));
    });
    report.run("piece_keys::DecryptionKey::derive_with", 0, || {
        drop(black_box(DecryptionKey::derive_with(params, &table_g, &r_j[0])));
    });
    for count in COUNTS.map(|count| count as usize) {
        let (r_j, r_k) = (&r_j[..count], &r_k[..count]);
        report.run("piece_keys::EncryptionKey::derive_batch", 0, || {
            EncryptionKey::derive_batch(params, &tables_j, r_j, |_, key| drop(black_box(key)));
        });
        report.run("piece_keys::ReKey::derive_batch", 0, || {
            ReKey::derive_batch(params, (&tables_j, r_j), (&tables_k, r_k), |_, key| drop(black_box(key)));
        });
        report.run("piece_keys::DecryptionKey::derive_batch", 0, || {
            DecryptionKey::derive_batch(params, &table_g, r_j, |_, key| drop(black_box(key)));
        });
    }

    let omega =
        report.run("witness::WitnessSecret::from_bytes", 0, || WitnessSecret::from_bytes(secret([5; 32])));
    report.run("witness::WitnessSecret::as_bytes", 0, || assert!(is_secret(omega.as_bytes())));
    let exponents = report
        .run("witness::WitnessExponents::derive", 0, || WitnessExponents::derive(params, &omega, &TORRENT));
    let w = report.run("witness::WitnessExponents::exponent", 0, || {
        (0..COUNTS[1]).map(|piece| exponents.exponent(piece)).collect::<Vec<WitnessExponent>>()
    });
    let factor = report.run("witness::WitnessFactor::derive", 0, || WitnessFactor::derive(params, &w[0]));
    let witness_key =
        report.run("witness::WitnessKey::derive", 0, || WitnessKey::derive(params, &w[0], (&y_j, &r_j[0])));
    report.run("witness::WitnessKey::derive_with", 0, || {
        drop(black_box(WitnessKey::derive_with(params, (&table_w, &w[0]), (&tables_j, &r_j[0]))));
    });
    for count in COUNTS.map(|count| count as usize) {
        let (w, r_j) = (&w[..count], &r_j[..count]);
        report.run("witness::WitnessFactor::derive_batch", 0, || {
            WitnessFactor::derive_batch(params, &table_w, w, |_, factor| drop(black_box(factor)));
        });
        report.run("witness::WitnessKey::derive_batch", 0, || {
            WitnessKey::derive_batch(params, (&table_w, w), (&tables_j, r_j), |_, key| drop(black_box(key)));
        });
    }
    report.run("witness::WitnessKey::before", 0, || drop(black_box(witness_key.before(params, &rekey))));

    let opened = report.run("piece_keys::DecryptionKey::open", 0, || entry.open(params, &s));
    report.run("piece_keys::DecryptionKey::open_batch", 0, || {
        let entries = vec![entry.clone(); COUNTS[0] as usize];
        DecryptionKey::open_batch(params, &s, &entries, |_, key| drop(black_box(key)));
    });
    report.run("observed::EncryptionKey::derive_each", 0, || {
        let parties: Vec<_> = r_j.iter().map(|r| (&y_j, r.clone())).collect();
        EncryptionKey::derive_each(params, &parties, |_, key| drop(black_box(key)));
    });

    // Reading has one decision: whether to refuse.
    let width = params.group().bytes();
    let mut out = vec![0; width];
    report.run("witness::WitnessFactor::to_bytes", 0, || factor.to_bytes(params, &mut out).expect(WHOLE));
    assert!(is_secret(&out[width - 1..]));
    macro_rules! written_and_read {
        ($($name:literal $value:expr, $type:ident;)*) => {$(
            report.run(concat!($name, "::to_bytes"), 0, || $value.to_bytes(params, &mut out).expect(WHOLE));
            assert!(is_secret(&out[width - 1..]));
            // All of it: memcheck knows of a bit that has just been set that it is.
            mark(&mut out);
            report.run(concat!($name, "::from_bytes"), 1, || {
                drop(black_box($type::from_bytes(params, &out).expect("what was written")));
            });
        )*};
    }
    written_and_read! {
        "piece_keys::EncryptionKey" key, EncryptionKey;
        "piece_keys::ReKey" rekey, ReKey;
        "piece_keys::OpenedKey" opened, OpenedKey;
        "piece_keys::DecryptionKey" entry, DecryptionKey;
        "witness::WitnessKey" witness_key, WitnessKey;
    }
    written_and_read! {
        "keys::SecretKey" s, SecretKey;
    }

    let mut piece = Random::new(3).bytes(BLOCKS * params.group().bytes());
    mark(&mut piece);
    let package_secret =
        report.run("package::PackageSecret::from_bytes", 0, || PackageSecret::from_bytes(secret([8; 32])));
    report.run("package::PackageSecret::as_bytes", 0, || assert!(is_secret(package_secret.as_bytes())));
    // Whether it must try again is the one decision, and says nothing of the plaintext: a fresh key decides it.
    report.run("package::pack", usize::from(sealed), || {
        package::pack(params, &package_secret, &TORRENT, 0, &mut piece).expect(WHOLE);
    });
    let mut other = piece.clone();
    mark(&mut other);
    report.run("package::seal", 1, || {
        package::seal(params.group(), &package_secret, &TORRENT, 0, &mut other).expect(WHOLE)
    });
    report.run("package::open", 0, || package::open(&mut other).expect(WHOLE));
    assert!(is_secret(&other[..1]));

    let packaged = piece.clone();
    mark(&mut piece);
    let mut published = report
        .run("witness::witness_hash", 0, || witness_hash(params, &factor, &mut piece.clone()).expect(WHOLE));
    assert!(is_secret(&published));
    reveal(&mut published);
    report.run("piece::encrypt_piece", 0, || encrypt_piece(params, &key, &mut piece).expect(WHOLE));
    // Ciphertext is public, and each packaged block may be refused. An element without an inverse would be as well.
    let mut ciphertext = piece.clone();
    reveal(&mut ciphertext);
    let [packaged, ciphertext] =
        [&packaged, &ciphertext].map(|piece| [&piece[..width], &piece[width..][..width]]);
    report.run("observed::EncryptionKey::observe", 2, || {
        drop(black_box(EncryptionKey::observe(params, packaged[0], ciphertext[0]).expect(WHOLE)));
    });
    report.run("observed::have_one_multiplier", 2, || {
        black_box(have_one_multiplier(params, packaged, ciphertext).expect(WHOLE))
    });
    // The answer is public, and the one thing that the key decides.
    let (mut checked, mut scratch) = (piece.clone(), vec![0; piece.len()]);
    reveal(&mut checked);
    report.run("witness::check_witness", 1, || {
        check_witness(params, &witness_key, &published, &checked, &mut scratch).expect("what was published")
    });
    report.run("witness::check_witness_in_place", 1, || {
        check_witness_in_place(params, &witness_key, &published, &mut checked).expect("what was published")
    });
    mark(&mut piece);
    report.run("piece::re_encrypt_piece", 0, || re_encrypt_piece(params, &rekey, &mut piece).expect(WHOLE));
    mark(&mut piece);
    report.run("piece::decrypt_piece", 0, || decrypt_piece(params, &s, &entry, &mut piece).expect(WHOLE));
    report.run("piece::decrypt_piece_with", 0, || {
        decrypt_piece_with(params, &opened, &mut piece).expect(WHOLE);
    });
    let payload = report.run("package::unpack", 0, || package::unpack(params, &mut piece).expect(WHOLE));
    assert!(is_secret(&piece[..payload]));

    report.run("proof::Proof::prove", 0, || {
        black_box(Proof::prove(params, &s, &y_j, &[b"statement"], &mut SecretRandom))
    });
    report.run("proof::Proof::prove_with_nonce", 0, || {
        let mut wide = vec![9; width + 16];
        mark(&mut wide);
        black_box(Proof::prove_with_nonce(params, &s, &y_j, &[b"statement"], &wide))
    });
}

/// The bytes, undefined from here on.
fn secret<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    mark(&mut bytes);
    bytes
}

fn mark(bytes: &mut [u8]) {
    mark_memory(bytes.as_ptr().cast(), bytes.len(), MemState::Undefined).expect("valgrind is there");
    // For the compiler these are other bytes now: it must read them where they were marked.
    black_box(bytes);
}

/// What was made of secrets and is public all the same.
fn reveal(bytes: &mut [u8]) {
    mark_memory(bytes.as_ptr().cast(), bytes.len(), MemState::Defined).expect("valgrind is there");
    black_box(bytes);
}

/// The words, undefined from here on.
fn secret_words(words: &[Word]) -> Vec<Word> {
    let mut words = words.to_vec();
    mark_memory(words.as_ptr().cast(), size_of_val(&*words), MemState::Undefined).expect("valgrind is there");
    black_box(&mut words);
    words
}

/// That memcheck still takes every byte for a secret: had the mark been lost on the way, nothing would be reported.
fn is_secret(bytes: &[u8]) -> bool {
    let mut undefined = vec![0; bytes.len()];
    vbits(bytes.as_ptr().cast(), &mut undefined).expect("memory that can be read");
    undefined.iter().all(|&bits| bits == 0xff)
}

/// Random bytes that are undefined.
struct SecretRandom;

impl TryRng for SecretRandom {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|word| word as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        Random::new(5).try_fill_bytes(out)?;
        mark(out);
        Ok(())
    }
}

impl TryCryptoRng for SecretRandom {}
