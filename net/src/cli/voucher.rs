//! `voucher` and `grant`: what a publisher sells, and to whom.

use std::path::PathBuf;

use serde_json::json;

use super::glue::{self, AdminArgs};
use super::subscription::read_metainfo;
use super::{DataDir, Exit, Failure, Output};
use crate::tracker_client::Terms;
use swarmseal_core::SubscriberId;

/// What a license allows.
#[derive(Debug, clap::Args)]
pub(super) struct TermsArgs {
    /// How often it may be played [default: no limit]
    #[arg(long, env = "SWARMSEAL_PLAYS", value_name = "COUNT")]
    plays: Option<u64>,
    /// Not to be played before: seconds since 1970, or from now with a unit, such as 2d
    #[arg(long, env = "SWARMSEAL_NOT_BEFORE", value_name = "TIME", value_parser = glue::time)]
    not_before: Option<u64>,
    /// Not to be played after: seconds since 1970, or from now with a unit, such as 30d
    #[arg(long, env = "SWARMSEAL_EXPIRES", value_name = "TIME", value_parser = glue::time)]
    expires: Option<u64>,
    /// How long the player may do without the tracker: seconds, or with a unit
    #[arg(long, env = "SWARMSEAL_OFFLINE_GRACE", value_name = "DURATION", value_parser = glue::duration)]
    offline_grace: Option<u64>,
}

impl TermsArgs {
    fn terms(&self, devices: u64) -> Terms {
        Terms {
            plays: self.plays,
            not_before: self.not_before,
            expires: self.expires,
            offline_grace: self.offline_grace,
            devices,
        }
    }
}

/// Arguments of `voucher`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal voucher film.torrent --plays 5 --expires 30d")]
pub(super) struct VoucherArgs {
    /// The .torrent
    torrent: PathBuf,
    /// Devices that may redeem it
    #[arg(long, env = "SWARMSEAL_DEVICES", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    devices: u64,
    #[command(flatten)]
    terms: TermsArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Arguments of `grant`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal grant film.torrent 5be1…e0 --expires 30d")]
pub(super) struct GrantArgs {
    /// The .torrent
    torrent: PathBuf,
    /// The subscriber's id, as `subscribe` prints it
    subscriber: String,
    #[command(flatten)]
    terms: TermsArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Issues a voucher and prints its code.
pub(super) async fn voucher(args: VoucherArgs, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = read_metainfo(&args.torrent, true)?;
    let admin = args.admin.client(&data)?;
    let id = metainfo.info.seal.torrent_id;
    let code =
        admin.create_voucher(id, args.terms.terms(args.devices)).await.map_err(glue::client_failure)?;
    output.result(&code, json!({ "event": "voucher", "code": code, "torrent_id": id.to_string() }));
    Ok(())
}

/// Grants a license to one subscriber.
pub(super) async fn grant(args: GrantArgs, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = read_metainfo(&args.torrent, true)?;
    let mut id = [0; 32];
    hex::decode_to_slice(&args.subscriber, &mut id).map_err(|_| {
        Failure::new(
            Exit::Usage,
            "the subscriber's id: expected 64 hexadecimal digits, as `subscribe` prints them",
        )
    })?;
    let subscriber = SubscriberId(id);
    let admin = args.admin.client(&data)?;
    let torrent = metainfo.info.seal.torrent_id;
    admin.create_grant(torrent, subscriber, args.terms.terms(1)).await.map_err(glue::client_failure)?;
    output.result(
        format!("Granted to {subscriber}"),
        json!({ "event": "granted", "subscriber": subscriber.to_string(), "torrent_id": torrent.to_string() }),
    );
    Ok(())
}
