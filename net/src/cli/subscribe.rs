//! `subscribe`: registers this device for a torrent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::subscription::{Subscription, read_metainfo};
use super::{DataDir, Exit, Failure, Output, glue};
use crate::atomic_file::{self, Access, Existing};
use crate::wire::personal::PersonalTorrent;

/// Between two looks at how far the hashes are.
const POLL: Duration = Duration::from_secs(1);

/// Arguments of `subscribe`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal subscribe film.torrent\n  swarmseal subscribe film.torrent --personal  (for another BitTorrent client)"
)]
pub(super) struct Args {
    /// The .torrent
    torrent: PathBuf,
    /// Also write a .torrent for other BitTorrent clients: what they fetch with it, `play --pieces` opens
    #[arg(long, env = "SWARMSEAL_PERSONAL")]
    personal: bool,
    /// Where --personal writes it [default: beside the .torrent, with .personal before .torrent]
    #[arg(long, short, env = "SWARMSEAL_OUTPUT", value_name = "FILE", requires = "personal")]
    output: Option<PathBuf>,
    /// Accept a torrent of the profile `paper`, which protects nothing
    #[arg(long, env = "SWARMSEAL_INSECURE_PAPER_PROFILE")]
    insecure_paper_profile: bool,
    #[command(flatten)]
    trust: glue::TrustArgs,
}

/// Subscribes, or says that this has been done.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = Arc::new(read_metainfo(&args.torrent, args.insecure_paper_profile)?);
    let subscription = Subscription::ensure(metainfo, &args.trust, &data, output).await?;
    let id = subscription.keys.id.to_string();
    output.result(&id, json!({ "event": "subscribed", "subscriber": id }));
    if args.personal {
        let path = args.output.unwrap_or_else(|| args.torrent.with_extension("personal.torrent"));
        tokio::select! {
            done = write_personal(&subscription, &path, output) => done?,
            () = glue::told_to_stop() => {
                return Err(Failure::new(Exit::Failed, "stopped: seeds go on with the hashes, and so can this command"));
            }
        }
        let shown = path.display().to_string();
        output.result(&shown, json!({ "event": "personal", "path": shown }));
    }
    Ok(())
}

/// Arguments of `passkey`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal passkey film.torrent  (personal .torrents have to be written again)"
)]
pub(super) struct PasskeyArgs {
    /// The .torrent
    torrent: PathBuf,
    /// Accept a torrent of the profile `paper`, which protects nothing
    #[arg(long, env = "SWARMSEAL_INSECURE_PAPER_PROFILE")]
    insecure_paper_profile: bool,
    #[command(flatten)]
    trust: glue::TrustArgs,
}

/// Has the tracker replace this device's passkey, and keeps the new one.
pub(super) async fn passkey(args: PasskeyArgs, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = Arc::new(read_metainfo(&args.torrent, args.insecure_paper_profile)?);
    let mut subscription = Subscription::expect(metainfo, &args.trust, &data)?;
    let torrent = subscription.metainfo.info.seal.torrent_id;
    let fresh = glue::client(&subscription)?.passkey(torrent, true).await.map_err(glue::client_failure)?;
    subscription.keep_passkey(&fresh)?;
    let id = subscription.keys.id.to_string();
    output.result(
        format!("{id} has a new passkey; personal .torrents of before announce no longer"),
        json!({ "event": "passkey-replaced", "subscriber": id }),
    );
    Ok(())
}

/// Waits until seeds have computed the subscriber's cipher hashes, and writes the personal torrent.
async fn write_personal(subscription: &Subscription, path: &Path, output: Output) -> Result<(), Failure> {
    let info = &subscription.metainfo.info;
    let (torrent, count) = (info.seal.torrent_id, info.piece_count);
    let client = glue::client(subscription)?;
    let bar = output.bar(count.into(), "{bar:40} {pos}/{len} pieces hashed by seeds, {eta} left");
    let (mut hashes, mut of) = (Vec::with_capacity(count as usize), None);
    loop {
        let (epoch, new) =
            client.hashes(torrent, count, hashes.len() as u32, true).await.map_err(glue::client_failure)?;
        // Another epoch began meanwhile, with hashes of its own.
        if of.replace(epoch).is_some_and(|before| before != epoch) && !hashes.is_empty() {
            hashes.clear();
            continue;
        }
        hashes.extend(new);
        bar.set_position(hashes.len() as u64);
        if hashes.len() == count as usize {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    bar.finish_and_clear();
    let passkey = subscription.passkey.to_hex();
    let authority = subscription.service.authority();
    let origin = authority.as_ref().and_then(|authority| authority.origins.first());
    let origin = origin.ok_or_else(|| Failure::new(Exit::Failed, "no tracker is known"))?;
    let announce = format!("{origin}/{passkey}/announce");
    let personal = PersonalTorrent { label: &info.name, piece_length: info.piece_length, hashes: &hashes };
    atomic_file::write(path, &personal.to_bytes(&announce), Access::Private, Existing::Replace)
        .map_err(|error| Failure::file(path, &error))
}
