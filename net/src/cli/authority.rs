//! `authority`: which tracker serves a publisher's torrents, as its key signs it.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::glue::{self, AdminArgs};
use super::license_server::public_key;
use super::publisher::PublisherArgs;
use super::subscription::read_metainfo;
use super::{DataDir, Exit, Failure, Output};
use crate::atomic_file::{self, Access, Existing};
use crate::date;
use crate::tracker_client::OwnKeys;
use crate::wire::authority::{Authority, SignedAuthority};
use crate::wire::identity::SigningKey;
use crate::wire::origin::Origin;

/// What to do about an authority.
#[derive(Debug, clap::Subcommand)]
#[command(
    after_help = "Example:\n  swarmseal authority show film.torrent\n  swarmseal authority sign --origin https://new.example --origin https://old.example --output new.authority\n  swarmseal authority serve new.authority"
)]
pub(super) enum Verb {
    /// Show which tracker a .torrent or an authority names
    Show(Show),
    /// Sign a new authority: to move, or to replace the tracker's or the license key
    Sign(Sign),
    /// Have a tracker hand out an authority from now on
    Serve(Serve),
}

/// Arguments of `authority show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal authority show film.torrent")]
pub(super) struct Show {
    /// A .torrent, or an authority
    file: PathBuf,
}

/// Arguments of `authority sign`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal authority sign --origin https://new.example --origin https://old.example --output new.authority\n\n\
                  The keys are asked of the tracker unless both are given. Name the old origin behind the new one as long as you hold it: \
                  clients that were away find the way from there."
)]
pub(super) struct Sign {
    /// Where the tracker is reached, in the order in which clients try; may be given several times
    #[arg(
        long = "origin",
        env = "SWARMSEAL_ORIGINS",
        value_name = "ORIGIN",
        required = true,
        value_delimiter = ','
    )]
    origins: Vec<Origin>,
    /// The tracker's public key, which it prints at its start [default: asked of the tracker]
    #[arg(long, env = "SWARMSEAL_TRACKER_KEY", value_name = "KEY", value_parser = public_key, requires = "license_key")]
    tracker_key: Option<[u8; 32]>,
    /// The public key that signs licenses [default: asked of the tracker]
    #[arg(long, env = "SWARMSEAL_LICENSE_KEY", value_name = "KEY", value_parser = public_key, requires = "tracker_key")]
    license_key: Option<[u8; 32]>,
    /// Where to write it, for `authority serve` and --authority
    #[arg(long, short, env = "SWARMSEAL_OUTPUT", value_name = "FILE")]
    output: PathBuf,
    /// Overwrite a file that is there
    #[arg(long, env = "SWARMSEAL_FORCE")]
    force: bool,
    #[command(flatten)]
    publisher: PublisherArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Arguments of `authority serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal authority serve new.authority --admin-token-file shop.token")]
pub(super) struct Serve {
    /// The authority, as `authority sign` wrote it
    file: PathBuf,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Shows, signs or serves.
pub(super) async fn run(verb: Verb, data: DataDir, output: Output) -> Result<(), Failure> {
    match verb {
        Verb::Show(args) => show(&args.file, output),
        Verb::Sign(args) => sign(args, &data, output).await,
        Verb::Serve(args) => serve(args, &data, output).await,
    }
}

fn show(path: &Path, output: Output) -> Result<(), Failure> {
    let mut head = [0; 11];
    let torrent = std::fs::File::open(path)
        .and_then(|mut file| file.read(&mut head))
        .map(|read| read < head.len() || head != *b"d9:authorit")
        .map_err(|error| Failure::file(path, &error))?;
    let authority = if torrent {
        let authority = read_metainfo(path, true)?.authority;
        authority
            .ok_or_else(|| Failure::new(Exit::Failed, "the .torrent does not say which tracker serves it"))?
    } else {
        glue::open_authority(path)?
    };
    print(&authority, "authority", output);
    Ok(())
}

async fn sign(args: Sign, data: &DataDir, output: Output) -> Result<(), Failure> {
    let keys = match (args.tracker_key, args.license_key) {
        (Some(tracker_key), Some(license_key)) => OwnKeys { tracker_key, license_key },
        _ => args.admin.client(data)?.keys().await.map_err(glue::client_failure)?,
    };
    let key = args.publisher.open(data, output)?;
    let kept = glue::kept_authority(data, &key.public())?;
    let signed = signed(keys, args.origins, kept.as_ref(), key.signing_key())?;
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    atomic_file::write(&args.output, &signed.to_file(), Access::Shared, existing)
        .map_err(|error| Failure::file(&args.output, &error))?;
    glue::keep_authority(&data.authority(&key.public()), &signed)?;
    print(&signed, "authority-signed", output);
    Ok(())
}

async fn serve(args: Serve, data: &DataDir, output: Output) -> Result<(), Failure> {
    let authority = glue::open_authority(&args.file)?;
    let admin = args.admin.client(data)?;
    let newest = admin.put_authority(&authority).await.map_err(glue::client_failure)?;
    if newest != authority {
        return Err(Failure::new(
            Exit::Failed,
            format!(
                "the tracker serves a newer authority, of {}: sign another one",
                glue::date(newest.serial)
            ),
        ));
    }
    let keys = admin.keys().await.map_err(glue::client_failure)?;
    if newest.tracker_key != keys.tracker_key {
        output.note("It names another tracker: clients that come here learn of it and go there");
    } else if newest.license_key != keys.license_key {
        output.note("It names another license key than this tracker's: check its --license-server");
    }
    print(&newest, "authority-served", output);
    Ok(())
}

/// Signs an authority that is newer than the one before it.
fn signed(
    keys: OwnKeys,
    origins: Vec<Origin>,
    before: Option<&SignedAuthority>,
    key: &SigningKey,
) -> Result<SignedAuthority, Failure> {
    let OwnKeys { tracker_key, license_key } = keys;
    let serial = before.map_or(0, |before| before.serial.saturating_add(1)).max(date::now());
    SignedAuthority::sign(Authority { license_key, origins, serial, tracker_key }, key)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}

/// The authority for a new torrent: the publisher's newest, or its first one. Errors: the newest names somebody else, so that a new one
/// would move all torrents of this publisher.
pub(super) fn of_new_torrent(
    keys: OwnKeys,
    origins: Vec<Origin>,
    reached: &Origin,
    newest: Option<SignedAuthority>,
    key: &SigningKey,
) -> Result<SignedAuthority, Failure> {
    let Some(newest) = newest else {
        let origins = if origins.is_empty() { vec![reached.clone()] } else { origins };
        return signed(keys, origins, None, key);
    };
    let what = if newest.tracker_key != keys.tracker_key {
        "another tracker"
    } else if newest.license_key != keys.license_key {
        "another license key"
    } else if !origins.is_empty() && origins != newest.origins {
        "other origins"
    } else {
        return Ok(newest);
    };
    let origins: Vec<&str> = newest.origins.iter().map(Origin::as_str).collect();
    Err(Failure::new(
        Exit::Usage,
        format!(
            "your torrents are served by {what} ({}): publish with another --publisher-key, or move them all with `swarmseal authority sign`",
            origins.join(", ")
        ),
    ))
}

fn print(authority: &SignedAuthority, event: &str, output: Output) {
    let shown = rows(authority);
    let human: Vec<String> = shown
        .iter()
        .map(|(name, value)| {
            format!("{name:<13}  {}", value.as_str().map_or(value.to_string(), str::to_owned))
        })
        .collect();
    output.result(
        human.join("\n"),
        json!({
            "event": event,
            "publisher_key": hex::encode(authority.publisher_key()),
            "tracker_key": hex::encode(authority.tracker_key),
            "license_key": hex::encode(authority.license_key),
            "origins": authority.origins,
            "serial": authority.serial,
        }),
    );
}

/// What an authority says, as `inspect` shows it.
pub(super) fn rows(authority: &SignedAuthority) -> Vec<(String, Value)> {
    let origins: Vec<&str> = authority.origins.iter().map(Origin::as_str).collect();
    [
        ("publisher key", hex::encode(authority.publisher_key())),
        ("origins", origins.join(", ")),
        ("tracker key", hex::encode(authority.tracker_key)),
        ("license key", hex::encode(authority.license_key)),
        ("signed", glue::date(authority.serial)),
    ]
    .map(|(name, value)| (name.to_owned(), value.into()))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_s_torrents_stay_where_they_are_unless_it_says_otherwise() {
        let key = |seed| SigningKey::from_bytes(&[seed; 32]);
        let origin = |text: &str| text.parse::<Origin>().unwrap();
        let keys = |tracker, license| OwnKeys {
            tracker_key: key(tracker).public(),
            license_key: key(license).public(),
        };
        let reached = origin("http://127.0.0.1:7000");
        let of = |keys, origins: &[Origin], newest: Option<&SignedAuthority>| {
            of_new_torrent(keys, origins.to_vec(), &reached, newest.cloned(), &key(1))
        };
        let first = of(keys(2, 3), &[], None).unwrap();
        assert_eq!(first.origins, std::slice::from_ref(&reached));
        assert_eq!(of(keys(2, 3), &[], Some(&first)).unwrap(), first);
        let named = of(keys(2, 3), &[origin("https://t.example")], None).unwrap();
        assert_eq!(of(keys(2, 3), &[], Some(&named)).unwrap(), named);
        for (keys, origins) in
            [(keys(4, 3), vec![]), (keys(2, 4), vec![]), (keys(2, 3), vec![origin("https://u.example")])]
        {
            let refused = of(keys, &origins, Some(&named)).unwrap_err();
            assert!(refused.message.contains("https://t.example"), "{}", refused.message);
        }
        // A second one in the same second is newer all the same.
        let again = signed(keys(2, 3), vec![reached.clone()], Some(&named), &key(1)).unwrap();
        assert_eq!(again.serial.max(named.serial + 1), again.serial);
    }
}
