//! `devices`: those that share a grant, what they are called, and how one makes room for another.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use swarmseal_core::SubscriberId;

use super::glue;
use super::subscription::{Subscription, read_metainfo};
use super::{DataDir, Exit, Failure, Output};
use crate::wire::api::Devices;

/// Digits of an id that name a device.
const MIN_DIGITS: usize = 8;

/// Arguments of `devices`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal devices film.torrent\n  swarmseal devices film.torrent --name laptop\n  swarmseal devices film.torrent --revoke 5be1a04c\n\n\
                  A device that is revoked gets no further license or key. What its license allows, it may do until the license expires \
                  or its offline time is over."
)]
pub(super) struct Args {
    /// The .torrent
    torrent: PathBuf,
    /// Revoke this device and free its place: its id, or the first 8 digits of it or more
    #[arg(long, env = "SWARMSEAL_REVOKE", value_name = "ID")]
    revoke: Option<String>,
    /// What this device is called from now on
    #[arg(long, env = "SWARMSEAL_DEVICE_NAME", value_name = "LABEL", conflicts_with = "revoke")]
    name: Option<String>,
    /// Accept a torrent of the profile `paper`, which protects nothing
    #[arg(long, env = "SWARMSEAL_INSECURE_PAPER_PROFILE")]
    insecure_paper_profile: bool,
    #[command(flatten)]
    trust: glue::TrustArgs,
}

/// Lists the devices, once one is named or revoked.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = Arc::new(read_metainfo(&args.torrent, args.insecure_paper_profile)?);
    let torrent = metainfo.info.seal.torrent_id;
    let subscription = Subscription::expect(metainfo, &args.trust, &data)?;
    let client = glue::client(&subscription)?;
    let turn = subscription.turn().await?;
    // A record that was lost is for the license to renew.
    let mut plays = subscription.recovered_plays()?;
    let record = if plays.is_lost() { None } else { Some(plays.report().map_err(glue::player_failure)?) };
    let devices =
        client.devices(torrent, args.name.as_deref(), record).await.map_err(glue::client_failure)?;
    drop(turn);
    let Some(wanted) = &args.revoke else {
        show(&devices, &subscription.keys.id, output);
        return Ok(());
    };
    let revoked = find(&devices, wanted)?;
    let left = client.revoke_device(torrent, revoked).await.map_err(glue::client_failure)?;
    output.result(format!("Revoked {revoked}"), json!({ "event": "revoked", "id": revoked.to_string() }));
    show(&left, &subscription.keys.id, output);
    Ok(())
}

/// The device whose id begins so.
fn find(devices: &Devices, digits: &str) -> Result<SubscriberId, Failure> {
    let wanted = digits.to_ascii_lowercase();
    if wanted.len() < MIN_DIGITS {
        return Err(Failure::new(
            Exit::Usage,
            format!("{digits}: expected at least 8 digits of a device's id"),
        ));
    }
    let mut found =
        devices.devices.iter().filter(|device| device.subscriber.to_string().starts_with(&wanted));
    match (found.next(), found.next()) {
        (Some(device), None) => Ok(device.subscriber),
        (None, _) => Err(Failure::new(
            Exit::Usage,
            format!("{digits}: none of the devices is this one; `swarmseal devices` lists them"),
        )),
        (Some(_), Some(_)) => Err(Failure::new(
            Exit::Usage,
            format!("{digits}: several devices begin so: expected more digits"),
        )),
    }
}

fn show(devices: &Devices, own: &SubscriberId, output: Output) {
    for device in &devices.devices {
        let this = device.subscriber == *own;
        let name = device.name.as_deref().unwrap_or("(no name)");
        let since = glue::date(device.enrolled);
        let mark = if this { ", this device" } else { "" };
        let human =
            format!("{} {name}, since {since}, {} plays told of{mark}", device.subscriber, device.plays);
        let mut json = glue::device_json(device);
        json["event"] = "device".into();
        json["this"] = this.into();
        output.result(human, json);
    }
    let used = devices.devices.len();
    let changes = match devices.next {
        Some(next) => format!("none may be revoked before {}", glue::date(next)),
        None => format!("{} may be revoked for now", devices.changes),
    };
    output.result(
        format!("{used} of {} places are taken; {changes}", devices.places),
        json!({
            "event": "places", "places": devices.places, "used": used, "changes": devices.changes, "next": devices.next,
        }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::api::Device;

    #[test]
    fn a_device_is_named_by_enough_of_its_id() {
        let device =
            |id: [u8; 32]| Device { enrolled: 1, name: None, plays: 0, subscriber: SubscriberId(id) };
        let mut like_the_first = [0xab; 32];
        like_the_first[31] = 0;
        let devices = vec![device([0xab; 32]), device(like_the_first), device([0xcd; 32])];
        let devices = Devices { changes: 1, devices, next: None, now: 2, places: 3 };
        let found = |digits: &str| find(&devices, digits).map_err(|failure| failure.exit);
        assert_eq!(found("CDcdcdcd"), Ok(SubscriberId([0xcd; 32])));
        assert_eq!(found(&"ab".repeat(32)), Ok(SubscriberId([0xab; 32])));
        for wrong in ["cdcdcd", "abababab", "efefefef", "cdcdcdcx", ""] {
            assert_eq!(found(wrong), Err(Exit::Usage), "{wrong}");
        }
    }
}
