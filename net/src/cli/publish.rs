//! `publish`: the .torrent, the seed file, and their registration with a tracker.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use getrandom::SysRng;
use rand_core::UnwrapErr;
use serde_json::json;
use swarmseal_core::{Exponents, Group, Params, Profile};

use super::glue::{self, AdminArgs};
use super::output::bytes;
use super::publisher::PublisherArgs;
use super::subscription::at;
use super::{DataDir, Exit, Failure, Output, authority};
use crate::atomic_file::{self, Access, Existing};
use crate::publish::protect::{self, FileRange, Protect};
use crate::publish::{Options, publish};
use crate::wire::origin::Origin;
use crate::wire::selection::Runs;

/// Arguments of `publish`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal publish film.mp4 --tracker http://127.0.0.1:7000\n  swarmseal publish film.mp4 --tracker http://127.0.0.1:7000 --protect media"
)]
pub(super) struct Args {
    /// A file, or a directory with all below it
    source: PathBuf,
    /// The public label, which strangers will see [default: the source's name]
    #[arg(long, env = "SWARMSEAL_NAME")]
    name: Option<String>,
    /// Where to write the .torrent [default: LABEL.torrent]
    #[arg(long, short, env = "SWARMSEAL_OUTPUT", value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where to write the seed file, a secret [default: LABEL.seed]
    #[arg(long, env = "SWARMSEAL_SEED_FILE", value_name = "FILE")]
    seed_file: Option<PathBuf>,
    /// Overwrite both
    #[arg(long, env = "SWARMSEAL_FORCE")]
    force: bool,
    /// Bytes of a piece, a multiple of 16 KiB and of the group's element size [default: by the content's size]
    #[arg(long, env = "SWARMSEAL_PIECE_LENGTH", value_name = "SIZE", value_parser = super::size)]
    piece_length: Option<u64>,
    /// What is protected: all; media (of MP4 with H.264, all but the inner bytes of dependent pictures); ranges=FROM-TO[,PATH:FROM-TO]
    /// of every file or of one, with K, M or G; or fraction=0.1 of every file. The rest is the same at every peer, and anyone can
    /// read it
    #[arg(long, env = "SWARMSEAL_PROTECT", value_name = "WHAT", default_value = "all", value_parser = protect)]
    protect: Protect,
    /// How plaintext becomes blocks: sealed, or paper
    #[arg(long, env = "SWARMSEAL_PROFILE", default_value = "sealed", value_parser = profile)]
    profile: Profile,
    /// The group: ffdhe2048, ffdhe3072 or ffdhe4096; under `paper` also prime512, modp768, modp1024, modp1536
    #[arg(long, env = "SWARMSEAL_GROUP", default_value = "ffdhe2048")]
    group: String,
    /// How the tracker's exponents are drawn: short, or full
    #[arg(long, env = "SWARMSEAL_EXPONENTS", default_value = "short", value_parser = exponents)]
    exponents: Exponents,
    /// Allow the profile `paper`, which protects nothing: for reproducing the paper and its attacks
    #[arg(long, env = "SWARMSEAL_INSECURE_PAPER_PROFILE")]
    insecure_paper_profile: bool,
    /// Where the tracker is reached, for your first torrent; may be given several times [default: as the admin token says]
    #[arg(long = "origin", env = "SWARMSEAL_ORIGINS", value_name = "ORIGIN", value_delimiter = ',')]
    origins: Vec<Origin>,
    #[command(flatten)]
    publisher: PublisherArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Publishes.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let params = params(&args)?;
    let (token, admin) = (args.admin.token(&data)?, args.admin.client(&data)?);
    let keys = admin.keys().await.map_err(glue::client_failure)?;
    let key = args.publisher.open(&data, output)?;
    let publisher_key = key.public();
    let served = admin.authority(&publisher_key).await.map_err(glue::client_failure)?;
    let newest = glue::kept_authority(&data, &publisher_key)?
        .into_iter()
        .chain(served)
        .max_by_key(|authority| authority.serial);
    let authority =
        authority::of_new_torrent(keys, args.origins.clone(), &token.origin, newest, key.signing_key())?;
    glue::keep_authority(&data.authority(&publisher_key), &authority)?;
    let piece_length = args
        .piece_length
        .map(u32::try_from)
        .transpose()
        .map_err(|_| Failure::new(Exit::Usage, "--piece-length: expected at most 32M"))?;
    let plan = {
        let (source, what) = (args.source.clone(), args.protect.clone());
        tokio::task::spawn_blocking(move || protect::plan(&source, &what))
            .await
            .map_err(|error| Failure::new(Exit::Failed, format!("the choice of bytes stopped: {error}")))?
            .map_err(glue::publish_failure)?
    };
    for (path, why) in &plan.whole {
        output.note(format!("{path} is protected whole: {why}"));
    }
    let total = plan.runs.as_ref().map_or(0, Runs::total);
    let clear = plan.runs.as_ref().map_or(0, Runs::clear);
    let options = Options {
        source: args.source.clone(),
        name: args.name.clone(),
        authority: Some(authority),
        publisher_key,
        params,
        piece_length,
        runs: plan.runs,
    };
    let bar = output.bar(0, "{bar:40} {pos}/{len} pieces packaged, {eta} left");
    let drawn = bar.clone();
    let furthest = AtomicU64::new(0);
    let (metainfo, mut seed, witness) = tokio::task::spawn_blocking(move || {
        publish(&options, &mut UnwrapErr(SysRng), &|progress| {
            drawn.set_length(progress.total.into());
            drawn.set_position(
                furthest.fetch_max(progress.done.into(), Ordering::Relaxed).max(progress.done.into()),
            );
        })
    })
    .await
    .map_err(|error| Failure::new(Exit::Failed, format!("packaging stopped: {error}")))?
    .map_err(glue::publish_failure)?;
    bar.finish_and_clear();

    let info = &metainfo.info;
    let shown = match &info.seal.selection {
        Some(selection) => format!(
            "\n  protected  {} of {}, in {} pieces; the other {} pieces are clear: the same at every peer, and anyone can read them",
            bytes(total - clear),
            bytes(total),
            selection.sealed_count(),
            selection.clear_count(),
        ),
        None if args.protect != Protect::All => {
            "\n  protected  all of it: less than a piece would be clear".to_owned()
        }
        None => String::new(),
    };
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    let torrent = args.output.unwrap_or_else(|| format!("{}.torrent", info.name).into());
    let seed_file = args.seed_file.unwrap_or_else(|| format!("{}.seed", info.name).into());
    for path in [&torrent, &seed_file] {
        if path.exists() && !args.force {
            return Err(Failure::new(
                Exit::Storage,
                format!("{}: already there; --force overwrites it", path.display()),
            ));
        }
    }
    let registered = admin
        .register_torrent(&metainfo, &seed.signing_key.public(), &witness)
        .await
        .map_err(glue::client_failure)?;
    drop(witness);
    seed.passkey = Some(registered.seed_passkey.to_hex());
    seed.content = Some(absolute(&args.source)?);
    seed.metainfo = Some(absolute(&torrent)?);
    atomic_file::write(&torrent, &metainfo.to_bytes(), Access::Shared, existing)
        .map_err(|error| Failure::file(&torrent, &error))?;
    seed.to_key_file().write(&seed_file, existing).map_err(at(&seed_file))?;
    output.result(
        format!(
            "Published {:?}: {} pieces of {}\n  torrent    {}\n  seed file  {} (keep it secret){shown}",
            info.name,
            info.piece_count,
            bytes(info.piece_length.into()),
            torrent.display(),
            seed_file.display(),
        ),
        json!({
            "event": "published",
            "name": info.name,
            "torrent_id": info.seal.torrent_id.to_string(),
            "publisher_key": hex::encode(info.seal.publisher_key),
            "info_hash": hex::encode(metainfo.info_hash),
            "pieces": info.piece_count,
            "sealed_pieces": info.sealed_count(),
            "clear_bytes": if info.seal.selection.is_some() { clear } else { 0 },
            "protected_whole": plan.whole.iter().map(|(path, _)| path).collect::<Vec<_>>(),
            "piece_length": info.piece_length,
            "torrent": torrent,
            "seed_file": seed_file,
        }),
    );
    Ok(())
}

fn params(args: &Args) -> Result<Arc<Params>, Failure> {
    if args.profile == Profile::Paper && !args.insecure_paper_profile {
        return Err(Failure::new(
            Exit::Usage,
            "the profile `paper` protects nothing: expected --insecure-paper-profile beside it",
        ));
    }
    let group = Group::by_name(&args.group, crate::backend::kernels()).ok_or_else(|| {
        let names: Vec<_> = Group::names().collect();
        Failure::new(Exit::Usage, format!("--group {}: expected one of {}", args.group, names.join(", ")))
    })?;
    Params::new(args.profile, group, args.exponents)
        .map(Arc::new)
        .map_err(|error| Failure::new(Exit::Usage, format!("--group {}: {error}", args.group)))
}

/// What `--protect` says.
fn protect(text: &str) -> Result<Protect, String> {
    if let Some(part) = text.strip_prefix("fraction=") {
        let part: f64 = part.parse().map_err(|_| "expected a number, such as fraction=0.1")?;
        if !(part > 0.0 && part <= 1.0) {
            return Err("expected a fraction above 0 and at most 1".into());
        }
        return Ok(Protect::Fraction(((part * 1e6).round() as u32).max(1)));
    }
    if let Some(ranges) = text.strip_prefix("ranges=") {
        return ranges.split(',').map(file_range).collect::<Result<_, _>>().map(Protect::Ranges);
    }
    match text {
        "all" => Ok(Protect::All),
        "media" => Ok(Protect::Media),
        _ => Err("expected all, media, ranges=FROM-TO or fraction=PART".into()),
    }
}

/// `FROM-TO` of every file, or `PATH:FROM-TO`; nothing behind the dash is the file's end.
fn file_range(text: &str) -> Result<FileRange, String> {
    let (path, range) = match text.rsplit_once(':') {
        Some((path, range)) => (Some(path.to_owned()), range),
        None => (None, text),
    };
    let (from, to) = range.split_once('-').ok_or("expected FROM-TO, such as 0-64K")?;
    let from = if from == "0" { 0 } else { super::size(from)? };
    let to = if to.is_empty() { None } else { Some(super::size(to)?) };
    if to.is_some_and(|to| to <= from) {
        return Err(format!("{range}: expected an end behind the beginning"));
    }
    Ok(FileRange { path, from, to })
}

fn profile(name: &str) -> Result<Profile, String> {
    Profile::by_name(name).ok_or_else(|| "expected `sealed` or `paper`".into())
}

fn exponents(name: &str) -> Result<Exponents, String> {
    Exponents::by_name(name).ok_or_else(|| "expected `short` or `full`".into())
}

fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::file(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_protected_is_said_in_words() {
        let range = |path: Option<&str>, from, to| FileRange { path: path.map(str::to_owned), from, to };
        assert_eq!(protect("all"), Ok(Protect::All));
        assert_eq!(protect("media"), Ok(Protect::Media));
        assert_eq!(protect("fraction=0.1"), Ok(Protect::Fraction(100_000)));
        assert_eq!(protect("fraction=1"), Ok(Protect::Fraction(1_000_000)));
        assert_eq!(
            protect("ranges=0-64K,a/b:c.mp4:1M-"),
            Ok(Protect::Ranges(vec![range(None, 0, Some(65_536)), range(Some("a/b:c.mp4"), 1 << 20, None)]))
        );
        for bad in [
            "",
            "none",
            "fraction=",
            "fraction=0",
            "fraction=-1",
            "fraction=1.1",
            "fraction=nan",
            "ranges=",
            "ranges=5",
            "ranges=5-5",
            "ranges=x-y",
            "ranges=1-2,",
        ] {
            assert!(protect(bad).is_err(), "{bad}");
        }
    }
}
