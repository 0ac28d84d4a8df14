//! `key`: a recovery file of this device, or the same as words on paper, and the way back from either.

use std::fmt::Write;
use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;

use serde_json::json;
use zeroize::Zeroizing;

use super::subscription::{at, read_device, read_subscription};
use super::{DataDir, Exit, Failure, Output, TorrentDir, glue};
use crate::atomic_file::Existing;
use crate::peer::Store;
use crate::wire::identity::Device;
use crate::wire::keyfile::words::{self, Words};
use crate::wire::metainfo::Metainfo;

/// `key export` and `key import`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLE)]
pub(super) enum Verb {
    /// Write the recovery file, or print it as words: losing the key loses what was bought
    #[command(after_help = EXAMPLE)]
    Export(ExportArgs),
    /// Make this device what a recovery file or words say: it opens what was bought before
    #[command(after_help = EXAMPLE)]
    Import(ImportArgs),
}

const EXAMPLE: &str = "Example:
  swarmseal key export recovery.key
  swarmseal key export --words
  swarmseal key import recovery.key --data ./laptop";

/// Arguments of `key export`.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// Where to write the recovery file
    #[arg(required_unless_present = "words")]
    file: Option<PathBuf>,
    /// Print 24 words to write down on paper
    #[arg(long, env = "SWARMSEAL_WORDS", conflicts_with = "file")]
    words: bool,
    /// Overwrite a file that is there
    #[arg(long, env = "SWARMSEAL_FORCE")]
    force: bool,
}

/// Arguments of `key import`.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// The recovery file
    #[arg(required_unless_present = "words")]
    file: Option<PathBuf>,
    /// Read 24 words from the terminal or standard input
    #[arg(long, env = "SWARMSEAL_WORDS", conflicts_with = "file")]
    words: bool,
    /// Replace another key, and delete what was fetched and bought with it
    #[arg(long, env = "SWARMSEAL_FORCE")]
    force: bool,
}

/// Exports or imports.
pub(super) fn run(verb: Verb, data: DataDir, output: Output) -> Result<(), Failure> {
    match verb {
        Verb::Export(args) => export(args, data, output),
        Verb::Import(args) => import(args, data, output),
    }
}

fn export(args: ExportArgs, data: DataDir, output: Output) -> Result<(), Failure> {
    let path = data.device();
    if !path.exists() {
        return Err(Failure::new(
            Exit::Storage,
            format!("{}: this device has no key yet: `swarmseal get` makes it", path.display()),
        ));
    }
    let device = read_device(&path)?;
    let Some(file) = args.file else {
        let words = Words::of(device.as_bytes());
        let mut lines = Zeroizing::new(String::with_capacity(words::COUNT * 16));
        let mut line = Zeroizing::new(String::with_capacity(words::COUNT * 9));
        for (at, word) in words.iter().enumerate() {
            let gap = if at % 6 == 5 { '\n' } else { ' ' };
            write!(lines, "{:>2} {word:<8}{gap}", at + 1).expect("a string takes all");
            line.push_str(if at == 0 { "" } else { " " });
            line.push_str(word);
        }
        output.result(lines.trim_end(), json!({ "event": "exported", "words": *line }));
        return Ok(());
    };
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    device.to_key_file().write(&file, existing).map_err(at(&file))?;
    output.result(
        format!(
            "Wrote {}: it opens all that this device bought; keep it secret, and keep it",
            file.display()
        ),
        json!({ "event": "exported", "file": file }),
    );
    Ok(())
}

fn import(args: ImportArgs, data: DataDir, output: Output) -> Result<(), Failure> {
    let device = match &args.file {
        Some(file) => read_device(file)?,
        None => Device::from_bytes(&*read_words(output)?),
    };
    let path = data.device();
    let known = path.exists().then(|| read_device(&path));
    let same = matches!(&known, Some(Ok(known)) if known.as_bytes() == device.as_bytes());
    let mut lost = Vec::new();
    if let Some(known) = known.filter(|_| !same) {
        lost = not_of(&device, &data);
        if !args.force {
            // One that is damaged is named first.
            known?;
            return Err(Failure::new(
                Exit::Storage,
                format!(
                    "{}: this device has another key. --force replaces it, after which nobody opens {}: write the other key \
                     down first (`swarmseal key export --words`), or import into a fresh --data directory",
                    path.display(),
                    described(&lost),
                ),
            ));
        }
        forget(&lost, &data)?;
        output.note(format!("Deleted what only the other key opens: {}", described(&lost)));
    }
    if !same {
        device.to_key_file().write(&path, Existing::Replace).map_err(at(&path))?;
    }
    output.result(
        "Imported: `swarmseal get` fetches what was bought, and `swarmseal play` opens it",
        json!({ "event": "imported", "same": same, "lost": lost.iter().map(|(_, name)| name).collect::<Vec<_>>() }),
    );
    Ok(())
}

/// Subscriptions in the data directory that are not of this device, and what the torrents are called.
fn not_of(device: &Device, data: &DataDir) -> Vec<(TorrentDir, String)> {
    let mut others = Vec::new();
    for dir in data.subscribed() {
        let file = read_subscription(&dir).ok().flatten();
        let metainfo = std::fs::read(dir.metainfo()).unwrap_or_default();
        let metainfo = Metainfo::from_bytes(&metainfo, crate::backend::kernels()).ok();
        let own = metainfo.as_ref().map(|metainfo| {
            let seal = &metainfo.info.seal;
            device.subscriber_keys(&seal.params, &seal.torrent_id).id
        });
        if own.is_none() || own != file.map(|file| file.subscriber) {
            let directory = || dir.path().display().to_string();
            let name = metainfo.map_or_else(directory, |metainfo| metainfo.info.name);
            others.push((dir, name));
        }
    }
    others
}

/// Torrents in words.
fn described(torrents: &[(TorrentDir, String)]) -> String {
    /// More would hide what is said about them.
    const NAMED: usize = 10;
    let names: Vec<&str> = torrents.iter().take(NAMED).map(|(_, name)| name.as_str()).collect();
    match torrents.len() {
        0 => "what was bought with it".to_owned(),
        count if count > NAMED => format!("{} and {} more", names.join(", "), count - NAMED),
        _ => names.join(", "),
    }
}

/// Deletes what only another key opens. Errors: another process fetches into one of them, and nothing is deleted.
fn forget(torrents: &[(TorrentDir, String)], data: &DataDir) -> Result<(), Failure> {
    let closed = torrents.iter().map(|(dir, _)| Store::keep_closed(dir.path()));
    let _closed = closed.collect::<Result<Vec<_>, _>>().map_err(glue::store_failure)?;
    for (dir, _) in torrents {
        std::fs::remove_dir_all(dir.path()).map_err(|error| Failure::file(dir.path(), &error))?;
    }
    if torrents.is_empty() {
        return Ok(());
    }
    match std::fs::remove_file(data.journal()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::file(&data.journal(), &error))
        }
        _ => Ok(()),
    }
}

/// 24 words and their secret: line by line from a terminal, where a line with a wrong word is asked for again.
fn read_words(output: Output) -> Result<Zeroizing<[u8; 32]>, Failure> {
    /// Bytes of a line, or of all of standard input.
    const MOST: usize = 4096;
    let refused = |error: words::Error| Failure::new(Exit::Usage, error.to_string());
    let failed = |error| Failure::new(Exit::Failed, format!("no words from standard input: {error}"));
    let mut words = Words::default();
    let mut text = Zeroizing::new(String::with_capacity(MOST));
    let input = std::io::stdin();
    if !input.is_terminal() {
        input.lock().take(MOST as u64).read_to_string(&mut text).map_err(failed)?;
        words.add(&text).map_err(refused)?;
    }
    while input.is_terminal() && words.count() < words::COUNT {
        output.note(format!("Words from number {} on:", words.count() + 1));
        text.clear();
        if input.lock().take(MOST as u64).read_line(&mut text).map_err(failed)? == 0 {
            break;
        }
        if let Err(error) = words.add(&text) {
            output.note(format!("{error}; this line does not count"));
        }
    }
    words.secret().map_err(refused)
}
