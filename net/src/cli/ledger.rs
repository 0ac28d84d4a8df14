//! `ledger`: who sent how much to others.

use std::path::PathBuf;

use serde_json::Value;

use super::glue::{self, AdminArgs};
use super::output::bytes;
use super::subscription::read_metainfo;
use super::{DataDir, Failure, Output};
use swarmseal_core::SubscriberId;

/// Arguments of `ledger`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal ledger film.torrent --json")]
pub(super) struct Args {
    /// The .torrent
    torrent: PathBuf,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Lists what a torrent's subscribers sent and got.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = read_metainfo(&args.torrent, true)?;
    let admin = args.admin.client(&data, Some(&metainfo.announce))?;
    let torrent = metainfo.info.seal.torrent_id;
    let (mut after, mut shown) = (None, 0);
    loop {
        let page = admin.ledger(torrent, after).await.map_err(glue::client_failure)?;
        for row in page["subscribers"].as_array().into_iter().flatten() {
            show(row, output);
            shown += 1;
        }
        let mut next = [0; 32];
        match page["next"].as_str().map(|id| hex::decode_to_slice(id, &mut next)) {
            Some(Ok(())) => after = Some(SubscriberId(next)),
            _ => break,
        }
    }
    if shown == 0 {
        output.note("Nobody has subscribed");
    }
    Ok(())
}

fn show(row: &Value, output: Output) {
    let number = |field: &str| row[field].as_u64().unwrap_or(0);
    let ratio =
        row["ratio"].as_f64().map_or_else(|| "no ratio".to_owned(), |ratio| format!("ratio {ratio:.2}"));
    let human = format!(
        "{}: sent {}, got {}, {ratio}",
        row["subscriber"].as_str().unwrap_or("?"),
        bytes(number("sent")),
        bytes(number("got"))
    );
    let mut event = row.clone();
    event["event"] = "balance".into();
    output.result(human, event);
}
