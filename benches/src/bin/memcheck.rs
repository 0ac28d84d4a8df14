//! Every function over secrets, with the secrets marked undefined: memcheck then reports whatever branches on one or uses
//! one as an address (Langley, "ctgrind", 2010). `.ci/memcheck` runs it under valgrind.
//!
//! Secret are s, r, master keys, package secrets, plaintext, and all that is made of them; p, g, public keys, tables of
//! powers of them and lengths are public. A public key's own validation, and whatever ends in `_vartime`, take public
//! input only and are not run on secrets here. Tickets hold no secret.

use std::convert::Infallible;
use std::hint::black_box;
use std::process::ExitCode;

use clap::Parser;
use crabgrind::memcheck::{MemState, mark_memory, vbits};
use crabgrind::valgrind::count_errors;
use rand_core::{TryCryptoRng, TryRng};
use swarmseal_bench::problem::Random;
use swarmseal_bench::valgrind;
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    DecryptionKey, EncryptionKey, Exponents, FixedBase, Group, Kernels, MasterKey, OpenedKey, Params,
    Profile, Proof, PublicKey, ReKey, SecretKey, SubscriberTables, TorrentId, TsKey, TsKeys, decrypt_piece,
    decrypt_piece_with, encrypt_piece, re_encrypt_piece,
};

/// Seven lanes of eight, and one more than fills a vector.
const COUNTS: [u32; 2] = [7, 9];
/// Enough for every kernel to prepare its factor, and one more than fills vectors.
const BLOCKS: usize = 33;
const TORRENT: TorrentId = TorrentId([7; 32]);
const WHOLE: &str = "whole blocks";

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
    let mut report = Report { failed: false };
    if args.plant {
        planted(&mut report);
        return report.exit();
    }
    let backends = swarmseal_accel::candidates().filter_map(|candidate| valgrind::backend(candidate.name));
    for kernels in backends.chain(swarmseal_accel::models()) {
        if !args.backend.is_empty() && !args.backend.iter().any(|name| name == kernels.name) {
            continue;
        }
        for exponents in [Exponents::Short, Exponents::Full] {
            functions(&mut report, kernels, exponents);
        }
    }
    report.exit()
}

struct Report {
    failed: bool,
}

impl Report {
    /// Runs `work`, in which memcheck must report exactly `decisions` uses of a secret: those that the function's
    /// documentation admits.
    fn run<T>(&mut self, name: &str, decisions: usize, work: impl FnOnce() -> T) -> T {
        let before = count_errors();
        let result = work();
        let found = count_errors() - before;
        let verdict = if found == decisions { "ok" } else { "LEAKS" };
        println!("{verdict:6}{name}: {found} uses of a secret, {decisions} documented");
        self.failed |= found != decisions;
        result
    }

    fn exit(&self) -> ExitCode {
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Leaks that must be found: a branch on a secret bit, and a secret index.
fn planted(report: &mut Report) {
    let [first, second] = secret([0x5a, 0xa5]);
    let mut table = [0; 256];
    Random::new(1).try_fill_bytes(&mut table).unwrap_or_else(|never| match never {});
    report.run("planted branch", 0, || {
        if black_box(first) & 1 == 1 {
            black_box(&mut table)[0] ^= 1;
        }
    });
    report.run("planted index", 0, || black_box(black_box(&table)[usize::from(black_box(second))]));
}

fn functions(report: &mut Report, kernels: &'static Kernels, exponents: Exponents) {
    let params =
        Params::new(Profile::Sealed, Group::ffdhe2048(kernels), exponents).expect("an RFC 7919 group");
    let name = |what: &str| format!("{}, {exponents} exponents: {what}", kernels.name);

    let [y_j, y_k] =
        [1, 2].map(|seed| SecretKey::generate(&params, &mut Random::new(seed)).public_key(&params));
    let (mut words_j, mut words_k, mut words_g) = (
        vec![0; SubscriberTables::words(&params)],
        vec![0; SubscriberTables::words(&params)],
        vec![0; FixedBase::words(&params)],
    );
    let enough = "as many words as asked for";
    let tables_j = SubscriberTables::new(&params, &y_j, &mut words_j).expect(enough);
    let tables_k = SubscriberTables::new(&params, &y_k, &mut words_k).expect(enough);
    let table_g = DecryptionKey::table(&params, &mut words_g).expect(enough);

    let s = report.run(&name("SecretKey::generate"), 0, || SecretKey::generate(&params, &mut SecretRandom));
    let [r_j, r_k] = [&y_j, &y_k].map(|y| {
        report.run(&name("TsKeys::derive, key"), 0, || {
            let master = MasterKey::from_bytes(secret([4; 32]));
            let keys = TsKeys::derive(&params, &master, &TORRENT, y, 1);
            (0..COUNTS[1]).map(|piece| keys.key(piece)).collect::<Vec<TsKey>>()
        })
    });

    let key = report.run(&name("EncryptionKey::derive"), 0, || EncryptionKey::derive(&params, &y_j, &r_j[0]));
    let rekey =
        report.run(&name("ReKey::derive"), 0, || ReKey::derive(&params, (&y_j, &r_j[0]), (&y_k, &r_k[0])));
    report.run(&name("OpenedKey::derive"), 0, || drop(black_box(OpenedKey::derive(&params, &y_j, &r_j[0]))));
    let entry = report.run(&name("DecryptionKey::derive"), 0, || DecryptionKey::derive(&params, &r_j[0]));
    for count in COUNTS.map(|count| count as usize) {
        let (r_j, r_k) = (&r_j[..count], &r_k[..count]);
        report.run(&name("EncryptionKey::derive_batch"), 0, || {
            EncryptionKey::derive_batch(&params, &tables_j, r_j, |_, key| drop(black_box(key)));
        });
        report.run(&name("ReKey::derive_batch"), 0, || {
            ReKey::derive_batch(&params, (&tables_j, r_j), (&tables_k, r_k), |_, key| drop(black_box(key)));
        });
        report.run(&name("DecryptionKey::derive_batch"), 0, || {
            DecryptionKey::derive_batch(&params, &table_g, r_j, |_, key| drop(black_box(key)));
        });
    }
    let opened = report.run(&name("DecryptionKey::open"), 0, || entry.open(&params, &s));
    report.run(&name("DecryptionKey::open_batch"), 0, || {
        let entries = vec![entry.clone(); COUNTS[0] as usize];
        DecryptionKey::open_batch(&params, &s, &entries, |_, key| drop(black_box(key)));
    });
    report.run(&name("EncryptionKey::derive_each"), 0, || {
        let parties: Vec<_> = r_j.iter().map(|r| (&y_j, r.clone())).collect();
        EncryptionKey::derive_each(&params, &parties, |_, key| drop(black_box(key)));
    });
    report.run(&name("writing keys"), 0, || {
        let mut out = vec![0; params.group().bytes()];
        key.to_bytes(&params, &mut out).expect(WHOLE);
        assert!(is_secret(&out));
        rekey.to_bytes(&params, &mut out).expect(WHOLE);
        assert!(is_secret(&out));
        opened.to_bytes(&params, &mut out).expect(WHOLE);
        assert!(is_secret(&out));
        s.to_bytes(&params, &mut out).expect(WHOLE);
    });

    let mut piece = Random::new(3).bytes(BLOCKS * params.group().bytes());
    mark(&mut piece);
    // Whether it must try again is the one decision, and says nothing of the plaintext: a fresh key decides it.
    report.run(&name("pack"), 1, || {
        let package_secret = PackageSecret::from_bytes(secret([8; 32]));
        package::pack(&params, &package_secret, &TORRENT, 0, &mut piece).expect(WHOLE);
    });
    mark(&mut piece);
    report.run(&name("encrypt_piece"), 0, || encrypt_piece(&params, &key, &mut piece).expect(WHOLE));
    mark(&mut piece);
    report.run(&name("re_encrypt_piece"), 0, || re_encrypt_piece(&params, &rekey, &mut piece).expect(WHOLE));
    mark(&mut piece);
    report.run(&name("decrypt_piece"), 0, || decrypt_piece(&params, &s, &entry, &mut piece).expect(WHOLE));
    report.run(&name("decrypt_piece_with"), 0, || {
        decrypt_piece_with(&params, &opened, &mut piece).expect(WHOLE);
    });
    let payload = report.run(&name("unpack"), 0, || package::unpack(&params, &mut piece).expect(WHOLE));
    assert!(is_secret(&piece[..payload]));

    report.run(&name("Proof::prove"), 0, || prove(&params, &s, &y_j));
}

fn prove(params: &Params, s: &SecretKey, y: &PublicKey) -> Proof {
    Proof::prove(params, s, y, &[b"statement"], &mut SecretRandom)
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
