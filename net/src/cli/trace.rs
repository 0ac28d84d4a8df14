//! `trace`: whose copy a ciphertext piece, a license or a personal torrent is.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use swarmseal_core::{EncryptionKey, Params, encrypt_piece, have_one_multiplier};
use zeroize::Zeroizing;

use super::glue::{self, AdminArgs};
use super::subscription::{at, read_metainfo, read_torrent};
use super::{DataDir, Exit, Failure, Output};
use crate::platform::read_at;
use crate::publish::Packager;
use crate::tracker_client::Traced;
use crate::wire::keyfile::{KeyFile, SeedFile};
use crate::wire::license::{self, MAX_ENVELOPE};
use crate::wire::metainfo::Metainfo;
use crate::wire::plain::PlainMetainfo;

/// Pairs of blocks by which a piece is looked for among all.
const PAIRS: usize = 8;

/// Arguments of `trace`.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true),
    after_help = "Example:\n  swarmseal trace film.torrent --ciphertext pieces.bin --seed-file film.seed --index 7\n  swarmseal trace film.torrent --license license\n\n\
                  What it traces is ciphertext as it was stored or sent: each is one subscriber's. It needs the content, from which it takes the key of \
                  the piece; the tracker is sent that key and says whose it is. Plaintext names nobody: it is the same for all who open it. Nor does \
                  the form that pieces are checked in, the witness's, nor one \
                  leaked block of each opened piece, by which anybody opens the torrent. A ciphertext that somebody turned into another's with a re-key \
                  names the one whom it was made for last. And what a subscriber holds, others may have got from him in the swarm: it was made for him, \
                  which is no proof that he gave it away."
)]
pub(super) struct Args {
    /// The .torrent, not a personal one
    torrent: PathBuf,
    /// A file with a piece of ciphertext, or with many, such as a peer's pieces.bin
    #[arg(long, env = "SWARMSEAL_CIPHERTEXT", value_name = "FILE", group = "what", requires = "seed_file")]
    ciphertext: Option<PathBuf>,
    /// A license
    #[arg(long, env = "SWARMSEAL_LICENSE", value_name = "FILE", group = "what")]
    license: Option<PathBuf>,
    /// A .torrent that `subscribe --personal` wrote
    #[arg(long, env = "SWARMSEAL_PERSONAL_TORRENT", value_name = "FILE", group = "what")]
    personal: Option<PathBuf>,
    /// The seed file that `publish` wrote, to package the content with
    #[arg(long, env = "SWARMSEAL_SEED_FILE", value_name = "FILE")]
    seed_file: Option<PathBuf>,
    /// Where the content lies now, if it has moved
    #[arg(long, env = "SWARMSEAL_CONTENT", value_name = "PATH")]
    content: Option<PathBuf>,
    /// Which piece it is [default: it is found by the content]
    #[arg(long, env = "SWARMSEAL_INDEX", value_name = "NUMBER")]
    index: Option<u32>,
    /// Where it begins in the file, in bytes [default: at its place if the file is longer than one piece and --index is given, else 0]
    #[arg(long, env = "SWARMSEAL_OFFSET", value_name = "BYTES")]
    offset: Option<u64>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Names the subscriber.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = read_metainfo(&args.torrent, true)?;
    let admin = args.admin.client(&data)?;
    let torrent = metainfo.info.seal.torrent_id;
    let (found, about) = if let (Some(path), Some(seed)) = (&args.ciphertext, &args.seed_file) {
        let piece = read_piece(path, &args, &metainfo)?;
        let packager = packager(seed, &args, &metainfo)?;
        let observed = tokio::task::spawn_blocking({
            let (index, metainfo) = (args.index, metainfo.clone());
            move || observe(&packager, &metainfo, index, &piece, output)
        });
        let observed =
            observed.await.map_err(|error| Failure::new(Exit::Failed, format!("stopped: {error}")))??;
        let Observed { index, key, changed, blocks } = observed;
        if changed > 0 {
            output.note(format!("{changed} of the {blocks} blocks of piece {index} were changed"));
        }
        let found = admin.trace_key(torrent, index, &key).await.map_err(glue::client_failure)?;
        (found, json!({ "piece": index, "blocks": blocks, "changed_blocks": changed }))
    } else if let Some(path) = &args.license {
        let device =
            license::device_of(&read_file(path, MAX_ENVELOPE as u64)?).map_err(glue::license_failure)?;
        let found = admin.trace_device(torrent, &device).await.map_err(glue::client_failure)?;
        (found, json!({ "device": hex::encode(device) }))
    } else if let Some(path) = &args.personal {
        let personal = PlainMetainfo::from_bytes(&read_torrent(path)?)
            .map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", path.display())))?;
        let found = admin.trace_personal(torrent, &personal.info_hash).await.map_err(glue::client_failure)?;
        (found, json!({ "info_hash": hex::encode(personal.info_hash) }))
    } else {
        return Err(Failure::new(
            Exit::Usage,
            "expected --ciphertext and --seed-file, --license or --personal",
        ));
    };
    show(&found, &about, output)
}

fn show(found: &Traced, about: &Value, output: Output) -> Result<(), Failure> {
    if !found.missing.is_empty() {
        output.note(format!("The tracker has no master keys of the epochs {:?} any more", found.missing));
    }
    let Traced { tried, seconds, .. } = found;
    if found.witness {
        let why =
            "witness form: names nobody: whoever has the piece and a license of the torrent can make it";
        let mut json = about.clone();
        json["witness"] = true.into();
        return Err(Failure::new(Exit::Failed, why).with(json));
    }
    if found.matches.is_empty() {
        let failure = Failure::new(
            Exit::Failed,
            format!(
                "it is of no subscriber: {tried} tried in {seconds:.1} s, of the epochs {:?}",
                found.epochs
            ),
        );
        return Err(failure.with(json!({ "tried": tried, "epochs": found.epochs, "missing": found.missing })));
    }
    for who in &found.matches {
        let text = |name: &str| who[name].as_str();
        let mut words = vec![text("subscriber").unwrap_or("?").to_owned()];
        words.extend(text("account").map(|account| format!("account {account}")));
        words.extend(text("name").map(|name| format!("device {name}")));
        words.extend(who["epoch"].as_u64().map(|epoch| format!("epoch {epoch}")));
        if who["revoked"] == true {
            words.push("revoked".to_owned());
        }
        let mut json = json!({ "event": "traced", "tried": tried, "seconds": seconds });
        for part in [who, about] {
            for (name, value) in part.as_object().into_iter().flatten() {
                json[name] = value.clone();
            }
        }
        output.result(words.join(", "), json);
    }
    Ok(())
}

fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let length = path.metadata().map_err(|error| Failure::file(path, &error))?.len();
    if length > most {
        return Err(Failure::new(Exit::Failed, format!("{}: longer than {most} bytes", path.display())));
    }
    std::fs::read(path).map_err(|error| Failure::file(path, &error))
}

/// One piece out of a file.
fn read_piece(path: &Path, args: &Args, metainfo: &Metainfo) -> Result<Vec<u8>, Failure> {
    let (length, count) = (metainfo.info.piece_length, metainfo.info.piece_count);
    if let Some(index) = args.index.filter(|&index| index >= count) {
        return Err(Failure::new(Exit::Usage, format!("--index {index}: expected 0 to {}", count - 1)));
    }
    let failed = |error| Failure::file(path, &error);
    let file = File::open(path).map_err(failed)?;
    let whole = file.metadata().map_err(failed)?.len();
    let place = args.index.filter(|_| whole > u64::from(length)).unwrap_or(0);
    let offset = args.offset.unwrap_or(u64::from(place) * u64::from(length));
    let mut piece = vec![0; length as usize];
    read_at(&file, &mut piece, offset).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => Failure::new(
            Exit::Usage,
            format!("{}: expected {length} bytes from byte {offset} on; it has {whole}", path.display()),
        ),
        _ => failed(error),
    })?;
    Ok(piece)
}

fn packager(path: &Path, args: &Args, metainfo: &Metainfo) -> Result<Packager, Failure> {
    let seed = KeyFile::read(path, SeedFile::KIND)
        .and_then(|file| SeedFile::from_key_file(&file))
        .map_err(at(path))?;
    let content = args.content.clone().or_else(|| seed.content.clone()).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{}: it names no content: expected --content PATH", path.display()))
    })?;
    Packager::open(&content, &seed, metainfo).map_err(glue::publish_failure)
}

/// What the content says of a piece of ciphertext.
struct Observed {
    index: u32,
    key: Zeroizing<Vec<u8>>,
    /// Blocks that are not what the key makes of the packaged piece's.
    changed: usize,
    blocks: usize,
}

/// Finds the piece that a ciphertext is of, and its key. Blocks.
fn observe(
    packager: &Packager,
    metainfo: &Metainfo,
    index: Option<u32>,
    ciphertext: &[u8],
    output: Output,
) -> Result<Observed, Failure> {
    let params = &metainfo.info.seal.params;
    let indices = index.map_or(0..metainfo.info.piece_count, |index| index..index + 1);
    // Where there is one piece only, all of it is looked at.
    let pairs = if index.is_some() { usize::MAX } else { PAIRS };
    let bar = output.bar(indices.len() as u64, "{bar:40} {pos}/{len} pieces compared, {eta} left");
    let mut packaged = Zeroizing::new(vec![0; metainfo.info.piece_length as usize]);
    for index in indices {
        packager.read_checked(index, metainfo, &mut packaged).map_err(glue::publish_failure)?;
        let key = multiplier(params, &packaged, ciphertext, pairs);
        bar.inc(1);
        if let Some(key) = key {
            bar.finish_and_clear();
            return compared(params, index, &key, &packaged, ciphertext);
        }
    }
    bar.finish_and_clear();
    let which = index.map_or("of any piece of this torrent".to_owned(), |index| format!("of piece {index}"));
    Err(Failure::new(
        Exit::Failed,
        format!("this is no subscriber's ciphertext {which}: it is of another, or most of it was changed"),
    ))
}

/// What multiplied the blocks of a packaged piece to those of a ciphertext, if two neighbours among the first pairs agree.
fn multiplier(params: &Params, packaged: &[u8], ciphertext: &[u8], pairs: usize) -> Option<EncryptionKey> {
    let width = params.group().bytes();
    let (packaged, ciphertext) = (packaged.chunks_exact(2 * width), ciphertext.chunks_exact(2 * width));
    packaged.zip(ciphertext).take(pairs).find_map(|(m, c)| {
        let (m, c) = (m.split_at(width), c.split_at(width));
        // A block that is no element was changed.
        match have_one_multiplier(params, [m.0, m.1], [c.0, c.1]) {
            Ok(true) => EncryptionKey::observe(params, m.0, c.0).ok(),
            _ => None,
        }
    })
}

fn compared(
    params: &Params,
    index: u32,
    key: &EncryptionKey,
    packaged: &[u8],
    ciphertext: &[u8],
) -> Result<Observed, Failure> {
    let wrong = |error: swarmseal_core::Error| Failure::new(Exit::Failed, error.to_string());
    let width = params.group().bytes();
    let mut expected = packaged.to_vec();
    encrypt_piece(params, key, &mut expected).map_err(wrong)?;
    let blocks = expected.chunks_exact(width).zip(ciphertext.chunks_exact(width));
    let changed = blocks.filter(|(expected, found)| expected != found).count();
    let mut encoded = Zeroizing::new(vec![0; width]);
    key.to_bytes(params, &mut encoded).map_err(wrong)?;
    Ok(Observed { index, key: encoded, changed, blocks: ciphertext.len() / width })
}
