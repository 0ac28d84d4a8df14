//! `license`: fetches a license, redeeming a voucher if one is given.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::glue;
use super::subscription::{Subscription, read_metainfo};
use super::{DataDir, Exit, Failure, Output};
use crate::atomic_file::{self, Access, Existing};
use crate::wire::license::{License, LicenseError, Policy};
use crate::wire::voucher::CheckedCode;

/// Arguments of `license`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal license film.torrent --ask-voucher\n  swarmseal license film.torrent --voucher-file code.txt"
)]
pub(super) struct Args {
    /// The .torrent
    torrent: PathBuf,
    #[command(flatten)]
    voucher: glue::VoucherSource,
    /// Accept a torrent of the profile `paper`, which protects nothing
    #[arg(long, env = "SWARMSEAL_INSECURE_PAPER_PROFILE")]
    insecure_paper_profile: bool,
    #[command(flatten)]
    trust: glue::TrustArgs,
}

/// Subscribes if need be, fetches the license, checks it and stores it.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = Arc::new(read_metainfo(&args.torrent, args.insecure_paper_profile)?);
    let voucher = args.voucher.read(&metainfo.info.seal)?;
    let subscription = Subscription::ensure(metainfo, &args.trust, &data, output).await?;
    let license = fetch(&subscription, voucher.as_ref()).await?;
    let played = subscription.plays()?.plays();
    output.result(
        format!("Licensed: {}", describe(&license.policy, played)),
        json!({
            "event": "licensed",
            "subscriber": license.subscriber.to_string(),
            "epoch": license.epoch,
            "plays": license.policy.plays,
            "plays_left": license.policy.plays.map(|plays| plays.saturating_sub(played)),
            "offline_grace": license.policy.offline_grace,
            "not_before": license.policy.not_before,
            "expires": license.policy.expires,
        }),
    );
    Ok(())
}

/// Fetches the license of a subscription and stores it, once it has been opened on this device.
pub(super) async fn fetch(
    subscription: &Subscription,
    voucher: Option<&CheckedCode>,
) -> Result<License, Failure> {
    let _turn = subscription.turn().await?;
    fetch_for(subscription, None, voucher).await
}

/// The license of an epoch, fetched where it is not stored.
pub(super) async fn of_epoch(subscription: &Subscription, epoch: u64) -> Result<License, Failure> {
    if let Some(license) = stored(subscription, epoch)? {
        return Ok(license);
    }
    let _turn = subscription.turn().await?;
    // Another process of the device may have fetched it meanwhile.
    match stored(subscription, epoch)? {
        Some(license) => Ok(license),
        None => fetch_for(subscription, Some(epoch), None).await,
    }
}

/// The stored license of an epoch. Errors: the newest license is gone, was tampered with or is another's: that is to be seen, and not
/// to be replaced.
fn stored(subscription: &Subscription, epoch: u64) -> Result<Option<License>, Failure> {
    let (dir, path) = (&subscription.dir, subscription.dir.license());
    let newest = std::fs::read(&path).map_err(|error| Failure::file(&path, &error))?;
    let newest = subscription.open_license(&newest).map_err(glue::license_failure)?;
    if newest.epoch == epoch {
        return Ok(Some(newest));
    }
    // One that is damaged opens nothing, and keeps nobody from playing.
    let other = std::fs::read(dir.license_of(epoch)).ok();
    Ok(other.and_then(|envelope| subscription.open_license(&envelope).ok()))
}

/// Fetches the license of an epoch, or else of the newest, which is the one whose policy counts; those of older epochs are kept
/// beside it. The caller has the turn.
async fn fetch_for(
    subscription: &Subscription,
    epoch: Option<u64>,
    voucher: Option<&CheckedCode>,
) -> Result<License, Failure> {
    let client = glue::client(subscription)?;
    let torrent = subscription.metainfo.info.seal.torrent_id;
    let mut plays = subscription.recovered_plays()?;
    let record = plays.report().map_err(glue::player_failure)?;
    let envelope =
        client.license_with(torrent, epoch, voucher, Some(record)).await.map_err(glue::client_failure)?;
    let license = subscription.open_license(&envelope).map_err(glue::license_failure)?;
    // Before the license is stored: one that is newer than the record of plays looks as if that had been put back.
    plays.renew(&license, client.now()).map_err(glue::player_failure)?;
    let store = |path: &Path, envelope: &[u8]| {
        atomic_file::write(path, envelope, Access::Private, Existing::Replace)
            .map_err(|error| Failure::file(path, &error))
    };
    let (dir, path) = (&subscription.dir, subscription.dir.license());
    // One that cannot be opened is of no use to anybody.
    let known = std::fs::read(&path).ok();
    let known = known.and_then(|envelope| Some((subscription.open_license(&envelope).ok()?.epoch, envelope)));
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

/// Fetches the license anew where its policy would be refused as it is, or little is left of its offline time. Where that cannot be
/// done, what there is has to do: this is noted. Errors: the subscription was revoked.
pub(super) async fn renew_if_due(subscription: &Subscription, output: Output) -> Result<(), Failure> {
    // Whatever else is wrong with the license is said when it is used.
    let stored = std::fs::read(subscription.dir.license()).unwrap_or_default();
    match subscription.open_license(&stored) {
        // The publisher has another key by now.
        Err(LicenseError::OtherSigner) => {}
        Err(_) => return Ok(()),
        Ok(license) => {
            let (policy, now) = (&license.policy, crate::date::now());
            // A record that was changed, lost or copied is not set right in silence.
            let Ok(plays) = subscription.plays() else { return Ok(()) };
            let refused = plays.fits(&license).is_ok() && plays.check(policy, now).is_err();
            if !refused && !plays.is_renewal_due(policy, now) {
                return Ok(());
            }
        }
    }
    match fetch(subscription, None).await {
        Err(failure) if failure.exit == Exit::Revoked => Err(failure),
        Err(failure) => {
            output.note(format!("The license could not be renewed: {}", failure.message));
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// Tells the tracker what was played, if it can be reached at once: a record that gets lost then costs nothing.
pub(super) async fn tell_plays(subscription: &Subscription) {
    /// Nobody waits longer for that.
    const PATIENCE: Duration = Duration::from_secs(5);
    let told = async {
        let _turn = subscription.turn().await?;
        let record = subscription.plays()?.report().map_err(glue::player_failure)?;
        let client = glue::client(subscription)?;
        let torrent = subscription.metainfo.info.seal.torrent_id;
        client.devices(torrent, None, Some(record)).await.map_err(glue::client_failure)
    };
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(_)) => {}
        Ok(Err(failure)) => tracing::info!(reason = %failure, "the tracker was not told of the play"),
        Err(_) => tracing::info!("the tracker was not told of the play in time"),
    }
}

/// A policy in words, after so many plays.
pub(super) fn describe(policy: &Policy, played: u64) -> String {
    let mut words = vec![match policy.plays.map(|plays| plays.saturating_sub(played)) {
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
    if let Some(seconds) = policy.offline_grace {
        words.push(format!("up to {} without the tracker", glue::span(seconds)));
    }
    words.join(", ")
}
