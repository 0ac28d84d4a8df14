//! `offload`: how much of a torrent comes from peers, as far as the tracker can tell by the keys that it gave out.

use std::path::PathBuf;

use serde_json::{Value, json};
use swarmseal_core::SubscriberId;

use super::glue::{self, AdminArgs};
use super::output::bytes;
use super::subscription::read_metainfo;
use super::{DataDir, Failure, Output};

/// Arguments of `offload`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "All numbers are estimates: they count the pieces that the tracker gave out keys for. A key may be asked for twice, or not\nbe used, and clear pieces have none.\n\nExample:\n  swarmseal offload film.torrent\n  swarmseal offload film.torrent --subscribers --json"
)]
pub(super) struct Args {
    /// The .torrent
    torrent: PathBuf,
    /// List what came to and from each subscriber instead
    #[arg(long, env = "SWARMSEAL_SUBSCRIBERS")]
    subscribers: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Lists the hours of the last 30 days and their sum, or subscribers.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = read_metainfo(&args.torrent, true)?;
    let admin = args.admin.client(&data)?;
    let torrent = metainfo.info.seal.torrent_id;
    if args.subscribers {
        let mut after = None;
        loop {
            let page = admin.subscribers(torrent, after).await.map_err(glue::client_failure)?;
            page["subscribers"].as_array().into_iter().flatten().for_each(|row| show_subscriber(row, output));
            let mut next = [0; 32];
            match page["next"].as_str().map(|id| hex::decode_to_slice(id, &mut next)) {
                Some(Ok(())) => after = Some(SubscriberId(next)),
                _ => return Ok(()),
            }
        }
    }
    let (mut after, mut all) = (None, Keyed { from_seeds: 0, from_peers: 0 });
    loop {
        let page = admin.offload(torrent, after).await.map_err(glue::client_failure)?;
        for row in page["hours"].as_array().into_iter().flatten() {
            let hour = Keyed::read(row);
            let human = format!("{}: {hour}", glue::date(number(row, "hour")));
            let mut event = row.clone();
            (event["event"], event["offload"]) = ("hour".into(), hour.offload().into());
            output.result(human, event);
            all.from_seeds += hour.from_seeds;
            all.from_peers += hour.from_peers;
        }
        after = page["next"].as_u64();
        if after.is_none() {
            break;
        }
    }
    let event = json!({
        "event": "offload",
        "from_seeds": all.from_seeds,
        "from_peers": all.from_peers,
        "offload": all.offload(),
    });
    output.result(format!("Together, an estimate: {all}"), event);
    Ok(())
}

/// Pieces.
struct Keyed {
    from_seeds: u64,
    from_peers: u64,
}

impl Keyed {
    fn read(row: &Value) -> Self {
        Keyed { from_seeds: number(row, "from_seeds"), from_peers: number(row, "from_peers") }
    }

    /// The part that came from peers; none where nothing came.
    fn offload(&self) -> Option<f64> {
        let all = self.from_seeds.saturating_add(self.from_peers);
        (all > 0).then(|| self.from_peers as f64 / all as f64)
    }
}

impl std::fmt::Display for Keyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pieces from seeds, {} from peers", self.from_seeds, self.from_peers)?;
        match self.offload() {
            Some(offload) => write!(f, " ({:.0} %)", 100.0 * offload),
            None => Ok(()),
        }
    }
}

fn number(row: &Value, field: &str) -> u64 {
    row[field].as_u64().unwrap_or(0)
}

fn show_subscriber(row: &Value, output: Output) {
    let id = row["subscriber"].as_str().unwrap_or("?");
    let [to, from] = ["keyed_to_bytes", "keyed_from_bytes"].map(|field| bytes(number(row, field)));
    let fields = ["subscriber", "keyed_to", "keyed_from", "keyed_to_bytes", "keyed_from_bytes"];
    let mut event = json!({ "event": "subscriber" });
    fields.iter().for_each(|&field| event[field] = row[field].clone());
    output.result(format!("{id}: about {to} came to it, {from} from it"), event);
}
