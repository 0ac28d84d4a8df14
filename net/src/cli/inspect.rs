//! `inspect`: what is in a file, without a secret of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use swarmseal_core::check_piece;

use super::glue::TrustArgs;
use super::output::bytes;
use super::subscription::{Subscription, read_metainfo};
use super::{DataDir, Exit, Failure, Output, glue, license};
use crate::wire::keyfile::{KeyFile, PublisherKey, SealedPublisher};
use crate::wire::metainfo::{self, Metainfo};

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal inspect film.torrent\n  swarmseal inspect film.torrent --piece 17"
)]
pub(super) struct Args {
    /// A .torrent, a license, or a key file
    file: PathBuf,
    /// Show a stored piece of this .torrent
    #[arg(long, env = "SWARMSEAL_PIECE", value_name = "INDEX")]
    piece: Option<u32>,
    /// Show this device's license of this .torrent
    #[arg(long, env = "SWARMSEAL_LICENSE", conflicts_with = "piece")]
    license: bool,
}

/// Shows it.
pub(super) fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let shown = if let Some(index) = args.piece {
        stored_piece(&args.file, index, &data)?
    } else if args.license {
        own_license(&args.file, &data)?
    } else {
        file(&args.file)?
    };
    let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let human: Vec<String> =
        shown.iter().map(|(name, value)| format!("{name:<width$}  {}", plain(value))).collect();
    let json: serde_json::Map<String, Value> =
        shown.into_iter().map(|(name, value)| (name.replace(' ', "_"), value)).collect();
    output.result(human.join("\n"), Value::Object(json));
    Ok(())
}

type Shown = Vec<(String, Value)>;

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn row(name: &str, value: impl Into<Value>) -> (String, Value) {
    (name.into(), value.into())
}

/// A file of whatever kind it says it is.
fn file(path: &Path) -> Result<Shown, Failure> {
    let head = {
        use std::io::Read;
        let mut head = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(64).read_to_end(&mut head))
            .map_err(|error| Failure::file(path, &error))?;
        head
    };
    if head.starts_with(b"swarmseal key file") {
        return key_file(path);
    }
    if head.starts_with(b"swarmseal license") {
        return envelope(path);
    }
    if head.starts_with(b"d") {
        return Ok(torrent(&read_metainfo(path, true)?));
    }
    Err(Failure::new(
        Exit::Failed,
        format!("{}: expected a .torrent, a license or a key file", path.display()),
    ))
}

fn torrent(metainfo: &Metainfo) -> Shown {
    let info = &metainfo.info;
    let params = &info.seal.params;
    let group = match params.group().name() {
        Some(name) => name.to_string(),
        None => format!("{} bits, in full", params.group().bits()),
    };
    let mut shown = vec![
        row("kind", "torrent"),
        row("name", info.name.as_str()),
        row("info hash", hex::encode(metainfo.info_hash)),
        row("torrent id", info.seal.torrent_id.to_string()),
        row("version", metainfo::VERSION),
        row("profile", params.profile().name()),
        row("group", group),
        row("exponents", params.exponents().name()),
        row("pieces", info.piece_count),
        row("piece length", info.piece_length),
        row("length", bytes(info.length())),
        row("sealed pieces", info.sealed_count()),
        row("clear pieces", info.piece_count - info.sealed_count()),
        row("publisher key", hex::encode(info.seal.publisher_key)),
    ];
    match &metainfo.authority {
        Some(authority) => shown.extend(super::authority::rows(authority)),
        None => shown.push(row("authority", "none: the .torrent does not say which tracker serves it")),
    }
    shown
}

/// The kind of a key file and whose it is; no secret.
fn key_file(path: &Path) -> Result<Shown, Failure> {
    let bytes = zeroize::Zeroizing::new(std::fs::read(path).map_err(|error| Failure::file(path, &error))?);
    let file = KeyFile::parse(&bytes).map_err(super::subscription::at(path))?;
    let mut shown = vec![row("kind", format!("key file: {}", file.kind()))];
    if let Ok(torrent) = file.text("torrent") {
        shown.push(row("torrent id", torrent));
    }
    let public = match file.kind() {
        PublisherKey::KIND => PublisherKey::from_key_file(&file).map(|key| key.public()).ok(),
        SealedPublisher::KIND => SealedPublisher::from_key_file(&file).map(|sealed| sealed.public).ok(),
        _ => None,
    };
    shown.extend(public.map(|public| row("publisher key", hex::encode(public))));
    shown.push(row("secrets", "not shown"));
    Ok(shown)
}

/// What an envelope says without the key that opens it.
fn envelope(path: &Path) -> Result<Shown, Failure> {
    let len = path.metadata().map_err(|error| Failure::file(path, &error))?.len();
    Ok(vec![
        row("kind", "license, encrypted to its device"),
        row("bytes", len),
        row("contents", "swarmseal inspect FILE.torrent --license shows them on that device"),
    ])
}

fn own_license(torrent: &Path, data: &DataDir) -> Result<Shown, Failure> {
    let subscription =
        Subscription::expect(Arc::new(read_metainfo(torrent, true)?), &TrustArgs::default(), data)?;
    let path = subscription.dir.license();
    let envelope = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::new(Exit::NotLicensed, "this device has no license of the torrent"));
        }
        read => read.map_err(|error| Failure::file(&path, &error))?,
    };
    let license = subscription.open_license(&envelope).map_err(glue::license_failure)?;
    Ok(vec![
        row("kind", "license"),
        row("torrent id", license.torrent_id.to_string()),
        row("subscriber", license.subscriber.to_string()),
        row("epoch", license.epoch),
        row("issued", license.issued.map(glue::date)),
        row("plays told of", license.played),
        row("policy", license::describe(&license.policy, license.played)),
        row("decryption keys", subscription.metainfo.info.sealed_count()),
    ])
}

fn stored_piece(torrent: &Path, index: u32, data: &DataDir) -> Result<Shown, Failure> {
    let metainfo = Arc::new(read_metainfo(torrent, true)?);
    let count = metainfo.info.piece_count;
    if index >= count {
        return Err(Failure::new(Exit::Usage, format!("--piece {index}: expected 0 to {}", count - 1)));
    }
    let subscription = Subscription::expect(metainfo.clone(), &TrustArgs::default(), data)?;
    let store = glue::open_store(&subscription)?;
    let mut piece = vec![0; metainfo.info.piece_length as usize];
    let Some(record) = store.piece(index) else {
        return Err(Failure::new(Exit::MissingPiece, format!("piece {index} is not stored")));
    };
    store.read(index, &mut piece).map_err(glue::store_failure)?;
    let blocks = match check_piece(&metainfo.info.seal.params, &piece) {
        _ if metainfo.info.seal.is_clear(index) => "clear: not encrypted".to_string(),
        Ok(()) => "all in range".to_string(),
        Err(error) => error.to_string(),
    };
    Ok(vec![
        row("kind", "stored piece"),
        row("piece", index),
        row("epoch", record.epoch),
        row("blake3", hex::encode(record.hash)),
        row("blake3 holds", blake3::hash(&piece).as_bytes() == &record.hash),
        row("blocks", blocks),
    ])
}
