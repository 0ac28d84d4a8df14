//! `license`: fetches a license, redeeming a voucher if one is given.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::glue;
use super::subscription::{Subscription, read_metainfo};
use super::{DataDir, Failure, Output};
use crate::atomic_file::{self, Access, Existing};
use crate::wire::license::{License, Policy};

/// Arguments of `license`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal license film.torrent --voucher 7Q2M-…")]
pub(super) struct Args {
    /// The .torrent
    torrent: PathBuf,
    /// The code of a voucher to redeem
    #[arg(long, env = "SWARMSEAL_VOUCHER", value_name = "CODE", hide_env_values = true)]
    voucher: Option<String>,
    /// Accept a torrent of the profile `paper`, which protects nothing
    #[arg(long, env = "SWARMSEAL_INSECURE_PAPER_PROFILE")]
    insecure_paper_profile: bool,
}

/// Subscribes if need be, fetches the license, checks it and stores it.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = Arc::new(read_metainfo(&args.torrent, args.insecure_paper_profile)?);
    let subscription = Subscription::ensure(metainfo, &data, output).await?;
    let license = fetch(&subscription, args.voucher.as_deref()).await?;
    output.result(
        format!("Licensed: {}", describe(&license.policy)),
        json!({
            "event": "licensed",
            "subscriber": license.subscriber.to_string(),
            "epoch": license.epoch,
            "plays": license.policy.plays,
            "not_before": license.policy.not_before,
            "expires": license.policy.expires,
        }),
    );
    Ok(())
}

/// Fetches the license of a subscription and stores it, once it has been opened on this device.
pub(super) async fn fetch(subscription: &Subscription, voucher: Option<&str>) -> Result<License, Failure> {
    fetch_for(subscription, None, voucher).await
}

/// The same, for pieces of that epoch. The newest is the one whose policy counts; those of older epochs are kept beside it.
pub(super) async fn fetch_for(
    subscription: &Subscription,
    epoch: Option<u64>,
    voucher: Option<&str>,
) -> Result<License, Failure> {
    let client = glue::client(subscription)?;
    let torrent = subscription.metainfo.info.seal.torrent_id;
    let envelope = client.license_for(torrent, epoch, voucher).await.map_err(glue::client_failure)?;
    let open = |envelope: &[u8]| {
        License::open_for(envelope, &subscription.identity, &subscription.metainfo, &subscription.id)
    };
    let license = open(&envelope).map_err(glue::license_failure)?;
    let store = |path: &Path, envelope: &[u8]| {
        atomic_file::write(path, envelope, Access::Private, Existing::Replace)
            .map_err(|error| Failure::file(path, &error))
    };
    let (dir, path) = (&subscription.dir, subscription.dir.license());
    // One that cannot be opened is of no use to anybody.
    let known = std::fs::read(&path).ok();
    let known = known.and_then(|envelope| Some((open(&envelope).ok()?.epoch, envelope)));
    match known {
        Some((newer, _)) if newer > license.epoch => store(&dir.license_of(license.epoch), &envelope)?,
        Some((older, before)) if older < license.epoch => {
            store(&dir.license_of(older), &before)?;
            store(&path, &envelope)?;
        }
        _ => store(&path, &envelope)?,
    }
    Ok(license)
}

/// Fetches licenses for stored pieces of these epochs, as far as there are none. What cannot be had is noted: those that there are
/// may do. Whether the tracker was heard of.
pub(super) async fn fetch_missing(
    subscription: &Subscription,
    epochs: impl IntoIterator<Item = u64>,
    output: Output,
) -> bool {
    let Subscription { identity, metainfo, id, dir, .. } = subscription;
    // One that was tampered with, or is another's, is to be seen, and not to be replaced.
    let envelope = std::fs::read(dir.license()).unwrap_or_default();
    let Ok(newest) = License::open_for(&envelope, identity, metainfo, id) else { return false };
    let known: BTreeSet<u64> = dir.other_licenses().into_iter().chain([newest.epoch]).collect();
    let mut heard = false;
    for epoch in epochs.into_iter().filter(|epoch| !known.contains(epoch)) {
        match fetch_for(subscription, Some(epoch), None).await {
            Ok(_) => heard = true,
            Err(failure) => {
                output.note(format!("There is no license for pieces of epoch {epoch}: {}", failure.message));
            }
        }
    }
    heard
}

/// A policy in words.
pub(super) fn describe(policy: &Policy) -> String {
    let mut words = vec![match policy.plays {
        Some(1) => "one play".to_string(),
        Some(plays) => format!("{plays} plays"),
        None => "any number of plays".to_string(),
    }];
    if let Some(time) = policy.not_before {
        words.push(format!("not before {}", glue::date(time)));
    }
    if let Some(time) = policy.expires {
        words.push(format!("until {}", glue::date(time)));
    }
    words.join(", ")
}
