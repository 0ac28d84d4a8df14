//! `subscribe`: registers this device for a torrent.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::subscription::{Subscription, read_metainfo};
use super::{DataDir, Failure, Output};

/// Arguments of `subscribe`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal subscribe film.torrent")]
pub(super) struct Args {
    /// The .torrent
    torrent: PathBuf,
    /// Accept a torrent of the profile `paper`, which protects nothing
    #[arg(long, env = "SWARMSEAL_INSECURE_PAPER_PROFILE")]
    insecure_paper_profile: bool,
}

/// Subscribes, or says that this has been done.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = Arc::new(read_metainfo(&args.torrent, args.insecure_paper_profile)?);
    let subscription = Subscription::ensure(metainfo, &data, output).await?;
    let id = subscription.id.to_string();
    output.result(&id, json!({ "event": "subscribed", "subscriber": id }));
    Ok(())
}
