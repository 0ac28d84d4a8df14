//! `play`: opens what has been fetched.

mod serve;
mod supply;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tokio::runtime::Handle;

use super::output::bytes;
use super::subscription::{Subscription, read_metainfo};
use super::{DataDir, Exit, Failure, Output, glue, license};
use crate::atomic_file::Existing;
use crate::date::now;
use crate::player::{BadPiece, Content, Error, Fault, Licenses, PieceReader, Player, PolicyState, Session};
use crate::wire::license::License;

/// Arguments of `play`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal play film.torrent --output ./opened\n  swarmseal play film.torrent --ask-voucher --output ./opened\n  swarmseal play film.torrent -o - | mpv -\n  swarmseal play album.torrent -o - | tar x\n  swarmseal play film.torrent --open\n  swarmseal play film.torrent --player mpv"
)]
pub(super) struct Args {
    /// The .torrent
    torrent: PathBuf,
    /// A directory to extract to, or - for standard output: a single file as it is, several as a tar stream
    #[arg(long, short, env = "SWARMSEAL_OUTPUT", value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Of several files, write this one to standard output: its path, or its number from 0
    #[arg(long, env = "SWARMSEAL_FILE", value_name = "PATH", conflicts_with = "tar")]
    file: Option<String>,
    /// Write a tar stream to standard output, though it be of one file
    #[arg(long, env = "SWARMSEAL_TAR")]
    tar: bool,
    /// Open this file, which another client fetched with the torrent that `subscribe --personal` wrote
    #[arg(long, env = "SWARMSEAL_PIECES", value_name = "FILE")]
    pieces: Option<PathBuf>,
    /// Overwrite files that are there
    #[arg(long, env = "SWARMSEAL_FORCE")]
    force: bool,
    /// Stop at a corrupt piece, where else it is fetched again from another peer
    #[arg(long, env = "SWARMSEAL_NO_FETCH", conflicts_with_all = ["serve", "open", "player"])]
    no_fetch: bool,
    /// Accept a torrent of the profile `paper`, which protects nothing
    #[arg(long, env = "SWARMSEAL_INSECURE_PAPER_PROFILE")]
    insecure_paper_profile: bool,
    #[command(flatten)]
    trust: glue::TrustArgs,
    #[command(flatten)]
    serve: serve::ServeArgs,
    #[command(flatten)]
    voucher: glue::VoucherSource,
    #[command(flatten, next_help_heading = "Fetching by itself (where no `get` runs)")]
    node: glue::NodeArgs,
}

impl Args {
    fn to_stdout(&self) -> bool {
        self.output == Path::new("-")
    }
}

/// Gets the license if there is none, checks it, and opens.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    if (args.tar || args.file.is_some()) && !args.to_stdout() {
        return Err(Failure::new(
            Exit::Usage,
            "--tar and --file are about standard output: expected --output -",
        ));
    }
    if args.to_stdout() {
        output.give_stdout_away();
    }
    let metainfo = Arc::new(read_metainfo(&args.torrent, args.insecure_paper_profile)?);
    let voucher = args.voucher.read(&metainfo.info.seal)?;
    let subscription = Arc::new(Subscription::expect(metainfo, &args.trust, &data)?);
    if !subscription.dir.license().exists() || voucher.is_some() {
        license::fetch(&subscription, voucher.as_ref()).await?;
    } else {
        license::renew_if_due(&subscription, output).await?;
    }
    if let Some(address) = args.serve.address() {
        return serve::run(args, address, subscription, output).await;
    }
    let fetches = args.pieces.is_none() && !args.no_fetch;
    let start =
        || supply::Fetched::start(subscription.clone(), args.node.clone(), args.serve.patience(), output);
    let (fetched, fetching) = fetches.then(start).transpose()?.unzip();
    let mended = fetched.map(supply::Mended::new);
    let opened = {
        let subscription = Arc::clone(&subscription);
        tokio::task::spawn_blocking(move || open(&args, mended, &subscription, output))
            .await
            .map_err(|error| Failure::new(Exit::Failed, format!("the player stopped: {error}")))
    };
    if let Some(fetching) = fetching {
        fetching.stop().await;
    }
    if opened?? {
        license::tell_plays(&subscription).await;
    }
    Ok(())
}

/// The player, once its license lets it play now. Nothing is counted yet.
fn admit(subscription: &Arc<Subscription>) -> Result<(Arc<Player>, PolicyState), Failure> {
    let player = load_player(subscription)?;
    let state = subscription.plays()?;
    player.check(&state, now()).map_err(glue::player_failure)?;
    Ok((player, state))
}

/// What goes to standard output.
#[derive(Clone, Copy)]
enum Piped {
    /// One file, by its number.
    File(usize),
    /// All of them.
    Tar,
}

impl Piped {
    fn new(args: &Args, content: &Content) -> Result<Self, Error> {
        match &args.file {
            Some(name) => content.find(name).map(Piped::File),
            None if args.tar => Ok(Piped::Tar),
            None => Ok(content.single_file().map_or(Piped::Tar, Piped::File)),
        }
    }
}

/// Opens it all; whether the plays are limited.
fn open(
    args: &Args,
    mended: Option<supply::Mended>,
    subscription: &Arc<Subscription>,
    output: Output,
) -> Result<bool, Failure> {
    let (player, mut state) = admit(subscription)?;
    let pieces: Box<dyn PieceReader> = match (&args.pieces, mended) {
        (Some(path), _) => Box::new(glue::PieceFile::open(path, &player, &subscription.dir)?),
        (None, Some(mended)) => Box::new(mended),
        (None, None) => Box::new(glue::open_store(subscription)?),
    };
    let pieces = &*pieces;
    // A play is counted before a byte is released: one that would run into a bad piece is not begun.
    if player.policy().plays.is_some() {
        let bad = verify(&player, pieces, output);
        if let Some(first) = bad.first() {
            return Err(glue::player_failure(error_of(first)));
        }
    }
    // Nor one that could not be written.
    let content = player.content(pieces).map_err(glue::player_failure)?;
    if args.to_stdout() {
        Piped::new(args, &content).map_err(glue::player_failure)?;
    } else if !args.force {
        content.check_vacant(&args.output).map_err(glue::player_failure)?;
    }
    let session = player.begin_play(&mut state, now()).map_err(glue::player_failure)?;
    let released = match release(args, &session, &content, pieces, output) {
        // Whoever reads has seen enough, as `head` does: that is no failure.
        Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            return Ok(player.policy().plays.is_some());
        }
        released => released,
    };
    let (files, length) = released.map_err(glue::player_failure)?;
    let left = player.policy().plays.map(|plays| plays.saturating_sub(state.plays()));
    let human = match left {
        Some(left) => format!("Opened {files} files, {}; {left} plays left", bytes(length)),
        None => format!("Opened {files} files, {}", bytes(length)),
    };
    if args.to_stdout() {
        // Standard output is the content's.
        output.note(human);
    } else {
        output
            .result(human, json!({ "event": "played", "files": files, "bytes": length, "plays_left": left }));
    }
    Ok(left.is_some())
}

/// Hands the plaintext out; how many files and bytes.
fn release(
    args: &Args,
    session: &Session,
    content: &Content,
    pieces: &dyn PieceReader,
    output: Output,
) -> Result<(usize, u64), Error> {
    let length = content.files().iter().map(|file| file.size).sum();
    if args.to_stdout() {
        let mut out = std::io::stdout().lock();
        match Piped::new(args, content)? {
            Piped::Tar => session.write_tar(pieces, content, &mut out)?,
            Piped::File(index) => {
                session.write_file(pieces, content, index, &mut out)?;
                return Ok((1, content.files().get(index).map_or(0, |file| file.size)));
            }
        }
    } else {
        let existing = if args.force { Existing::Replace } else { Existing::Keep };
        let bar = output.bar(length, "{bar:40} {bytes} of {total_bytes} opened, {eta} left");
        session.extract(pieces, content, &args.output, existing, &mut |done, _| bar.set_position(done))?;
        bar.finish_and_clear();
    }
    Ok((content.files().len(), length))
}

/// The player of a subscription with its stored license. Within a runtime.
fn load_player(subscription: &Arc<Subscription>) -> Result<Arc<Player>, Failure> {
    let path = subscription.dir.license();
    let envelope = std::fs::read(&path).map_err(|error| Failure::file(&path, &error))?;
    let metainfo = subscription.metainfo.as_ref().clone();
    let others = Others { subscription: Arc::clone(subscription), runtime: Handle::current() };
    let license_key = &subscription.license_key();
    Player::following(metainfo, &subscription.keys, license_key, &envelope, Box::new(others))
        .map_err(glue::player_failure)
}

/// The subscription's licenses of other epochs: those that are stored, and those that the tracker issues.
struct Others {
    subscription: Arc<Subscription>,
    runtime: Handle,
}

impl Licenses for Others {
    fn license(&self, epoch: u64) -> Result<License, String> {
        let fetched = license::of_epoch(&self.subscription, epoch);
        self.runtime.block_on(fetched).map_err(|failure| failure.message)
    }
}

/// Opens every stored piece; those that are bad.
fn verify(player: &Player, pieces: &dyn PieceReader, output: Output) -> Vec<BadPiece> {
    let all: Vec<u32> = (0..player.metainfo().info.piece_count).collect();
    let bar = output.bar(all.len() as u64, "{bar:40} {pos}/{len} pieces checked, {eta} left");
    let bad = player.verify(pieces, &all, &mut |progress| bar.set_position(progress.done.into()));
    bar.finish_and_clear();
    bad
}

fn error_of(bad: &BadPiece) -> Error {
    let index = bad.index;
    match bad.fault {
        Fault::Missing => Error::MissingPiece { index },
        Fault::Corrupt | Fault::OtherEpoch | Fault::Unreadable => Error::CorruptPiece { index },
    }
}
