//! `voucher` and `grant`: what a publisher sells, and to whom.

use std::path::PathBuf;

use serde_json::json;

use super::glue::{self, AdminArgs};
use super::subscription::read_metainfo;
use super::{DataDir, Exit, Failure, Output};
use crate::tracker_client::{Issued, Order, Terms};
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
#[command(
    after_help = "Example:\n  swarmseal voucher film.torrent --plays 5 --expires 30d\n  swarmseal voucher film.torrent --order A-1001 --count 3 --plays 5\n\n\
                  The same order, line and number always give the same code, so that an order can be repeated when its answer was lost. Its \
                  terms must be the same: give --expires as seconds since 1970 then, and not from now."
)]
pub(super) struct VoucherArgs {
    /// The .torrent
    torrent: PathBuf,
    /// Devices that may redeem it
    #[arg(long, env = "SWARMSEAL_DEVICES", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    devices: u64,
    /// The shop's own reference, up to 64 characters [default: a random one]
    #[arg(long, env = "SWARMSEAL_ORDER", value_name = "REF")]
    order: Option<String>,
    /// The line of the order, for vouchers of other terms or torrents
    #[arg(long, env = "SWARMSEAL_LINE", value_name = "N", default_value_t = 0)]
    line: u32,
    /// How many vouchers: up to 1,000
    #[arg(long, env = "SWARMSEAL_COUNT", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
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

/// Issues vouchers and prints their codes, one a line.
pub(super) async fn voucher(args: VoucherArgs, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = read_metainfo(&args.torrent, true)?;
    let admin = args.admin.client(&data)?;
    let seal = &metainfo.info.seal;
    let order = Order { reference: args.order.as_deref(), line: args.line, count: args.count };
    let issued = admin.create_vouchers(seal, &order, args.terms.terms(args.devices)).await;
    let Issued { order, codes } = issued.map_err(glue::client_failure)?;
    for (number, code) in codes.iter().enumerate() {
        let text = code.to_text();
        output.result(
            text.as_str(),
            json!({
                "event": "voucher",
                "code": text.as_str(),
                "order": order,
                "line": args.line,
                "number": number,
                "torrent_id": seal.torrent_id.to_string(),
            }),
        );
    }
    if args.order.is_none() {
        output.note(format!("Order {order}"));
    }
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
