//! What each way of telling a good piece from a bad one costs (paper, section 2.3), and whom: as library calls.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use getrandom::SysRng;
use rand_core::UnwrapErr;
use serde::Serialize;
use sha1::{Digest, Sha1};
use swarmseal_bench::ours::backends;
use swarmseal_bench::report::{cells, table};
use swarmseal_bench::timing::{Contender, interleave};
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    DecryptionKey, EncryptionKey, Exponents, FixedBase, Group, Kernels, MasterKey, Params, Profile,
    SecretKey, SubscriberTables, TorrentId, TsKey, TsKeys, decrypt_piece, encrypt_piece,
};

const TORRENT: TorrentId = TorrentId([7; 32]);
const GIB: f64 = (1 << 30) as f64;
/// Keys of one call to the tracker.
const TOGETHER: usize = 64;

/// Times the ways of checking a piece on one core: by the license as it opens, and by a hash of the subscriber's own ciphertext.
#[derive(Parser)]
struct Args {
    /// KiB of a piece.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=16384))]
    piece: u32,
    /// Seconds for each backend.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// As short as it gets.
    #[arg(long)]
    quick: bool,
    /// A backend of this CPU; can be repeated [default: the fastest].
    #[arg(long = "backend", value_name = "NAME")]
    backends: Vec<String>,
    /// Print JSON: [{backend, way, peer, seed, tracker, bytes}], of 1 GiB.
    #[arg(long)]
    json: bool,
}

/// One way of checking 1 GiB of pieces for one subscriber. Seconds of one core, but for bytes.
#[derive(Serialize)]
struct Row {
    backend: &'static str,
    way: &'static str,
    /// The peer's.
    peer: f64,
    /// The original seed's.
    seed: f64,
    /// The tracker's.
    tracker: f64,
    /// From the tracker to the peer.
    bytes: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let chosen =
        if args.backends.is_empty() { vec![swarmseal_accel::detect()] } else { backends(&args.backends)? };
    let budget = if args.quick { Duration::ZERO } else { Duration::from_secs_f64(args.seconds) };
    let mut rows = Vec::new();
    for kernels in chosen {
        rows.extend(time(kernels, (args.piece as usize) << 10, budget)?);
    }
    if args.json {
        println!("{}", serde_json::to_string(&rows)?);
    } else {
        print(&rows, args.piece);
    }
    Ok(())
}

fn time(kernels: &'static Kernels, length: usize, budget: Duration) -> Result<[Row; 2]> {
    let params = Params::new(Profile::Sealed, Group::ffdhe2048(kernels), Exponents::Short)?;
    let width = params.group().bytes();
    ensure!(
        length.is_multiple_of(width),
        "a piece of {length} bytes is no number of blocks of {width} bytes"
    );
    let secret = SecretKey::generate(&params, &mut UnwrapErr(SysRng));
    let public = secret.public_key(&params);
    let r = TsKeys::derive(&params, &MasterKey::from_bytes([4; 32]), &TORRENT, &public, 1);
    let keys: Vec<TsKey> = (0..TOGETHER as u32).map(|piece| r.key(piece)).collect();
    let mut words = vec![0; SubscriberTables::words(&params)];
    let tables = SubscriberTables::new(&params, &public, &mut words)?;
    let mut words = vec![0; FixedBase::words(&params)];
    let inverse = DecryptionKey::table(&params, &mut words)?;

    let mut packaged = vec![0; length];
    package::pack(&params, &PackageSecret::from_bytes([5; 32]), &TORRENT, 0, &mut packaged)?;
    let published: [u8; 20] = Sha1::digest(&packaged).into();
    let encryption = EncryptionKey::derive(&params, &public, &keys[0]);
    let mut ciphertext = packaged.clone();
    encrypt_piece(&params, &encryption, &mut ciphertext)?;
    let own: [u8; 20] = Sha1::digest(&ciphertext).into();
    let decryption = DecryptionKey::derive(&params, &keys[0]);
    let opens = |piece: &mut [u8]| {
        decrypt_piece(&params, &secret, &decryption, piece).is_ok_and(|()| *Sha1::digest(piece) == published)
    };
    ensure!(opens(&mut ciphertext.clone()) && !opens(&mut packaged.clone()), "the license tells nothing");

    let mut scratch = vec![0; length];
    let mut sent = vec![0; length];
    let mut contenders = [
        // The license: the peer opens what came.
        Contender::new(|| {
            scratch.copy_from_slice(&ciphertext);
            f64::from(u8::from(black_box(opens(&mut scratch))))
        }),
        Contender::new(|| {
            DecryptionKey::derive_batch(&params, &inverse, &keys, |_, key| drop(black_box(key)));
            TOGETHER as f64
        }),
        // Hashes of the subscriber's ciphertext: the seed makes and hashes it, and the peer hashes what came.
        Contender::new(|| {
            black_box(*Sha1::digest(&ciphertext) == own);
            1.0
        }),
        Contender::new(|| {
            sent.copy_from_slice(&packaged);
            let sent = encrypt_piece(&params, &encryption, &mut sent).map(|()| Sha1::digest(&sent));
            f64::from(u8::from(black_box(sent).is_ok()))
        }),
        Contender::new(|| {
            EncryptionKey::derive_batch(&params, &tables, &keys, |_, key| drop(black_box(key)));
            TOGETHER as f64
        }),
    ];
    let pieces = GIB / length as f64;
    let seconds: Vec<f64> = interleave(&mut contenders, budget).iter().map(|ns| ns * pieces / 1e9).collect();
    let row = |way, peer, seed, tracker, bytes: usize| Row {
        backend: kernels.name,
        way,
        peer,
        seed,
        tracker,
        bytes: (pieces * bytes as f64) as u64,
    };
    Ok([
        row("SHA-1 by the license", seconds[0], 0.0, seconds[1], width),
        row("hashes per subscriber", seconds[2], seconds[3], seconds[4], 20),
    ])
}

fn print(rows: &[Row], piece: u32) {
    println!("1 GiB in pieces of {piece} KiB, ffdhe2048; seconds of one core");
    let mut lines = vec![cells(["backend", "way", "peer", "seed", "tracker", "from the tracker"])];
    for row in rows {
        let figures = [row.peer, row.seed, row.tracker].map(|seconds| format!("{seconds:.2}"));
        let bytes = format!("{:.2} MB", row.bytes as f64 / 1e6);
        let names = [row.backend, row.way].map(str::to_owned);
        lines.push(names.into_iter().chain(figures).chain([bytes]).collect());
    }
    print!("{}", table(&lines));
}
