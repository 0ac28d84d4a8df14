//! `key`: moving a subscription to another device, or keeping a copy of it.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::subscription::{Subscription, at, read_metainfo};
use super::{DataDir, Exit, Failure, Output};
use crate::atomic_file::Existing;
use crate::wire::identity::Identity;
use crate::wire::keyfile::{ExportedKeys, KeyFile};

/// `key export` and `key import`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  swarmseal key export film.torrent film.key")]
pub(super) enum Verb {
    /// Write the keys that a torrent's license and pieces belong to; losing them loses the purchase
    #[command(after_help = "Example:\n  swarmseal key export film.torrent film.key")]
    Export(Args),
    /// Take keys that were exported
    #[command(after_help = "Example:\n  swarmseal key import film.torrent film.key")]
    Import(Args),
}

/// Arguments of both.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The .torrent
    torrent: PathBuf,
    /// The key file
    file: PathBuf,
    /// Overwrite what is there
    #[arg(long, env = "SWARMSEAL_FORCE")]
    force: bool,
    /// Accept a torrent of the profile `paper`
    #[arg(long, env = "SWARMSEAL_INSECURE_PAPER_PROFILE")]
    insecure_paper_profile: bool,
}

/// Exports or imports.
pub(super) fn run(verb: Verb, data: DataDir, output: Output) -> Result<(), Failure> {
    match verb {
        Verb::Export(args) => export(args, data, output),
        Verb::Import(args) => import(args, data, output),
    }
}

fn export(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = Arc::new(read_metainfo(&args.torrent, args.insecure_paper_profile)?);
    let Subscription { identity, keys: subscriber, id, .. } = Subscription::expect(metainfo.clone(), &data)?;
    let file = ExportedKeys { identity, subscriber }.to_key_file(&metainfo.info.seal.params);
    file.write(&args.file, existing(args.force)).map_err(at(&args.file))?;
    output.result(
        format!("Wrote {}: keep it secret, and keep it", args.file.display()),
        json!({ "event": "exported", "file": args.file, "subscriber": id.to_string() }),
    );
    Ok(())
}

fn import(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = Arc::new(read_metainfo(&args.torrent, args.insecure_paper_profile)?);
    let params = &metainfo.info.seal.params;
    let exported = KeyFile::read(&args.file, ExportedKeys::KIND)
        .and_then(|file| ExportedKeys::from_key_file(&file, &metainfo.info.seal))
        .map_err(at(&args.file))?;
    let dir = data.torrent(&metainfo.info.seal.torrent_id);
    dir.create()?;
    let identity = data.identity();
    let same = identity.exists()
        && KeyFile::read(&identity, Identity::KIND)
            .and_then(|file| Identity::from_key_file(&file))
            .map_err(at(&identity))?
            .public()
            == exported.identity.public();
    if !same {
        if identity.exists() && !args.force {
            return Err(Failure::new(
                Exit::Storage,
                format!(
                    "{}: this device has an identity of its own, which its other licenses need; expected a fresh --data directory, or --force to replace it",
                    identity.display()
                ),
            ));
        }
        exported.identity.to_key_file().write(&identity, existing(args.force)).map_err(at(&identity))?;
    }
    let path = dir.subscriber();
    let file = exported.subscriber.to_key_file(params);
    file.write(&path, existing(args.force)).map_err(at(&path))?;
    let id = exported.subscriber.subscriber(params, &exported.identity);
    output.result(
        format!("Imported the subscription {id}"),
        json!({ "event": "imported", "subscriber": id.to_string() }),
    );
    Ok(())
}

fn existing(force: bool) -> Existing {
    if force { Existing::Replace } else { Existing::Keep }
}
