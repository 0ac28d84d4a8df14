//! `license`: fetches a license, redeeming a voucher if one is given.

use std::path::PathBuf;
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
    let client = glue::client(subscription)?;
    let torrent = subscription.metainfo.info.seal.torrent_id;
    let envelope = client.license(torrent, voucher).await.map_err(glue::client_failure)?;
    let license =
        License::open_for(&envelope, &subscription.identity, &subscription.metainfo, &subscription.id)
            .map_err(glue::license_failure)?;
    let path = subscription.dir.license();
    atomic_file::write(&path, &envelope, Access::Private, Existing::Replace)
        .map_err(|error| Failure::file(&path, &error))?;
    Ok(license)
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
