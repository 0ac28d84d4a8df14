//! `cpu`: what the CPU offers, which backend is chosen, and how fast each is here.

use std::hint::black_box;
use std::time::{Duration, Instant};

use getrandom::SysRng;
use rand_core::UnwrapErr;
use serde_json::json;
use swarmseal_core::{
    EncryptionKey, Exponents, Group, Kernels, MasterKey, Params, Profile, PublicKey, ReKey, SecretKey,
    SubscriberId, SubscriberTables, TsKey, TsKeys, encrypt_piece,
};

use super::{Exit, Failure, Output};
use crate::backend;

/// Arguments of `cpu`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal cpu")]
pub(super) struct Args {
    /// Seconds to measure for, in all
    #[arg(long, env = "SWARMSEAL_SECONDS", value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    seconds: f64,
}

fn seconds(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds from 0 to 3600, such as 2.5".to_owned()),
    }
}

/// What one backend does a second, on one thread, at 2,048 bits.
struct Speed {
    /// T, bytes to bytes.
    transform_mb: f64,
    /// Exponentiations with full exponents, in batches of eight.
    powers: f64,
    /// Re-keys from warm tables, in batches.
    rekeys: f64,
}

/// Prints what was found and chosen, and measures.
pub(super) fn run(args: Args, output: Output) -> Result<(), Failure> {
    let chosen = backend::kernels();
    let runs: Vec<&Kernels> = swarmseal_accel::each().collect();
    let budget = Duration::from_secs_f64(args.seconds / (3 * runs.len()) as f64);
    let how = if backend::is_forced() { "forced" } else { "detected" };
    output.result(
        format!("{} {}\n\n{:<10} {:>10} {:>12} {:>12}   2,048 bits, one thread", chosen.name, how, "backend", "T, MB/s", "modexp/s", "re-key/s"),
        json!({ "chosen": chosen.name, "forced": backend::is_forced(), "architecture": std::env::consts::ARCH }),
    );
    for candidate in swarmseal_accel::candidates() {
        let (name, needs) = (candidate.name, candidate.needs);
        match candidate.kernels() {
            Some(kernels) => {
                let speed = measure(kernels, budget)?;
                let mark = if name == chosen.name { "*" } else { "" };
                output.result(
                    format!(
                        "{:<10} {:>10.0} {:>12.0} {:>12.0}   {needs}",
                        format!("{name}{mark}"),
                        speed.transform_mb,
                        speed.powers,
                        speed.rekeys
                    ),
                    json!({
                        "backend": name, "needs": needs, "runs": true, "chosen": name == chosen.name,
                        "transform_mb_per_s": speed.transform_mb, "modexp_per_s": speed.powers,
                        "rekeys_per_s": speed.rekeys,
                    }),
                );
            }
            None => output.result(
                format!("{name:<10} this CPU has not: {needs}"),
                json!({ "backend": name, "needs": needs, "runs": false, "chosen": false }),
            ),
        }
    }
    Ok(())
}

fn measure(kernels: &'static Kernels, budget: Duration) -> Result<Speed, Failure> {
    let failed = |error: swarmseal_core::Error| Failure::new(Exit::Failed, error.to_string());
    let rng = &mut UnwrapErr(SysRng);
    let params = Params::new(Profile::Sealed, Group::ffdhe2048(kernels), Exponents::Short).map_err(failed)?;
    let y: PublicKey = SecretKey::generate(&params, rng).public_key(&params);
    let r: Vec<TsKey> = {
        let keys = TsKeys::derive(&params, &MasterKey::from_bytes([7; 32]), &SubscriberId([7; 32]), 0);
        (0..8).map(|piece| keys.key(piece)).collect()
    };
    let mut words = vec![0; SubscriberTables::words(&params)];
    let tables = SubscriberTables::new(&params, &y, &mut words).map_err(failed)?;
    let rekeys = rate(budget, || {
        ReKey::derive_batch(&params, (&tables, &r), (&tables, &r), |_, key| drop(black_box(key)));
        r.len()
    });
    let key = EncryptionKey::derive_with(&params, &tables, &r[0]);
    let mut piece = vec![0x5a; 64 << 10];
    let mut result = Ok(());
    let transform = rate(budget, || {
        result = encrypt_piece(&params, &key, black_box(&mut piece));
        piece.len()
    });
    result.map_err(failed)?;
    let (group, full) =
        (params.group(), swarmseal_core::kernels::Exponent::from_be(&vec![0xa5; params.group().bytes()]));
    let m = group.modulus();
    let power = swarmseal_core::kernels::Power { modulus: m, base: m.r2(), exponent: &full };
    let mut out = vec![0; 8 * m.len()];
    let powers = rate(budget, || {
        (kernels.modpow_batch)(black_box(&[power; 8]), &mut out);
        8
    });
    Ok(Speed { transform_mb: transform / 1e6, powers, rekeys })
}

/// Units of `work` a second, over about `budget`; one turn first to warm up.
fn rate(budget: Duration, mut work: impl FnMut() -> usize) -> f64 {
    work();
    let begin = Instant::now();
    let mut units = 0;
    loop {
        units += work();
        let spent = begin.elapsed();
        if spent >= budget {
            return units as f64 / spent.as_secs_f64();
        }
    }
}
