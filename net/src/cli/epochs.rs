//! `epochs`: begins a new epoch of a torrent while its swarm runs, and retires old ones.

use std::path::PathBuf;

use serde_json::Value;

use super::glue::{self, AdminArgs};
use super::subscription::read_metainfo;
use super::{DataDir, Failure, Output};

/// Arguments of `epochs`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal epochs film.torrent --begin\n  swarmseal epochs film.torrent --retire-before 2\n  swarmseal epochs --tracker http://127.0.0.1:7000"
)]
pub(super) struct Args {
    /// Only this torrent's [default: all]
    torrent: Option<PathBuf>,
    /// Begin the next epoch, with a master key of its own. Peers move to it by themselves, and nothing is interrupted
    #[arg(long, env = "SWARMSEAL_BEGIN", conflicts_with = "retire_before")]
    begin: bool,
    /// Serve no epoch any more that is before this one. Peers that have not moved by then fetch their pieces again
    #[arg(long, env = "SWARMSEAL_RETIRE_BEFORE", value_name = "EPOCH")]
    retire_before: Option<u64>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Lists epochs, begins one, or retires some.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = args.torrent.as_deref().map(|path| read_metainfo(path, true)).transpose()?;
    let admin = args.admin.client(&data)?;
    let only = metainfo.map(|metainfo| metainfo.info.seal.torrent_id);
    let answer = match (args.begin, args.retire_before) {
        (true, _) => admin.begin_epoch(only).await,
        (false, Some(oldest)) => admin.retire_epochs(only, oldest).await,
        (false, None) => admin.epochs().await,
    };
    let answer = answer.map_err(glue::client_failure)?;
    let only = only.map(|torrent| torrent.to_string());
    for torrent in answer["torrents"].as_array().into_iter().flatten() {
        if only.as_deref().is_none_or(|only| torrent["torrent_id"] == only) {
            show(torrent, output);
        }
    }
    let unused: Vec<&str> =
        answer["unused_keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !unused.is_empty() {
        let names = unused.join(", ");
        output.note(format!("No torrent needs these any more, and they may be deleted: {names}"));
    }
    Ok(())
}

fn show(torrent: &Value, output: Output) {
    let number = |field: &str| torrent[field].as_u64().unwrap_or(0);
    let (oldest, current, started) = (number("oldest"), number("current"), number("started"));
    let since = if started == 0 { String::new() } else { format!(" since {}", glue::date(started)) };
    let before = if oldest == current { String::new() } else { format!(", {oldest} and later are served") };
    let id = torrent["torrent_id"].as_str().unwrap_or("?");
    let mut event = torrent.clone();
    event["event"] = "epochs".into();
    output.result(format!("{id}: epoch {current}{since}{before}"), event);
}
