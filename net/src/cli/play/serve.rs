//! `play --serve`: a local server for a browser, mpv or VLC.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Args;
use super::supply::{Fetched, Fetching, Still};
use crate::cli::output::bytes;
use crate::cli::subscription::Subscription;
use crate::cli::{Exit, Failure, Output, glue, license};
use crate::date::now;
use crate::player::serve::{ServeError, Server, Supply, check_address};
use crate::player::{Content, Error, Player};

/// Pieces that the list of files is looked for in before its length is known.
const FIRST: u32 = 4;

/// Flags of `play --serve`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Serving")]
pub(super) struct ServeArgs {
    /// Serve the content on this machine for a browser, mpv or VLC: prints a URL, which is all that it takes to read it. Pieces
    /// that are missing are fetched in the order in which they are read [default: --serve=127.0.0.1:0]
    #[arg(long, env = "SWARMSEAL_SERVE", value_name = "ADDRESS", num_args = 0..=1, require_equals = true,
          default_missing_value = "127.0.0.1:0", value_parser = address, conflicts_with_all = ["output", "tar", "file"])]
    serve: Option<SocketAddr>,
    /// Serve, and open the list of files in the browser
    #[arg(long, env = "SWARMSEAL_OPEN", conflicts_with_all = ["output", "tar", "file", "player"])]
    open: bool,
    /// Serve, and start this program with the URLs of all media files
    #[arg(long, env = "SWARMSEAL_PLAYER", value_name = "PROGRAM", conflicts_with_all = ["output", "tar", "file"])]
    player: Option<PathBuf>,
    /// How long a reader waits for a piece while none comes
    #[arg(long, env = "SWARMSEAL_PATIENCE", value_name = "DURATION", default_value = "60s", value_parser = glue::duration)]
    patience: u64,
}

impl ServeArgs {
    /// How long a piece is waited for while none comes.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }

    /// Where to serve, if it is wanted.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        self.serve.or((self.open || self.player.is_some()).then_some(any))
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let address =
        text.parse().map_err(|_| format!("{text:?}: expected an address, such as 127.0.0.1:8080"))?;
    check_address(address).map_err(|error| error.to_string())?;
    Ok(address)
}

/// Serves until told to stop.
pub(super) async fn run(
    args: Args,
    address: SocketAddr,
    subscription: Arc<Subscription>,
    output: Output,
) -> Result<(), Failure> {
    let told = glue::told_to_stop();
    tokio::pin!(told);
    let (player, mut state) = super::admit(&subscription)?;
    let (supply, fetching): (Arc<dyn Supply>, Option<Fetching>) = match &args.pieces {
        Some(path) => {
            let (path, player, dir) = (path.clone(), player.clone(), subscription.dir.clone());
            let opened =
                tokio::task::spawn_blocking(move || glue::PieceFile::open(&path, &player, &dir)).await;
            let file = opened.map_err(|error| Failure::new(Exit::Failed, error.to_string()))??;
            (Arc::new(Still(file)), None)
        }
        None => {
            let patience = args.serve.patience();
            let (fetched, fetching) = Fetched::start(subscription.clone(), args.node, patience, output)?;
            (fetched, Some(fetching))
        }
    };
    let served = async {
        let content = tokio::select! {
            content = content(&player, &supply) => content.map_err(glue::player_failure)?,
            () = &mut told => return Ok(()),
        };
        let session = player.begin_play(&mut state, now()).map_err(glue::player_failure)?;
        let listed = content.clone();
        let server = Server::bind(address, session, content, supply.clone()).await.map_err(serve_failure)?;
        announce(&server, &listed, output)?;
        start_reader(&args.serve, &server, &listed, output);
        let telling = async {
            if player.policy().plays.is_some() {
                license::tell_plays(&subscription).await;
            }
        };
        tokio::join!(server.run(told), telling);
        output.note("Stopped");
        Ok(())
    };
    let outcome = served.await;
    if let Some(fetching) = fetching {
        fetching.stop().await;
    }
    outcome
}

/// The list of files, whose pieces come first.
async fn content(player: &Arc<Player>, supply: &Arc<dyn Supply>) -> Result<Content, Error> {
    let count = player.metainfo().info.piece_count;
    supply.want(&(0..FIRST.min(count)).collect::<Vec<_>>());
    let mut last = None;
    loop {
        let (of, pieces) = (player.clone(), supply.clone());
        let read = tokio::task::spawn_blocking(move || of.content(&*pieces)).await;
        let error = match read {
            Ok(Ok(content)) => return Ok(content),
            Ok(Err(error)) => error,
            Err(error) => return Err(Error::Output(std::io::Error::other(error))),
        };
        let (index, waited) = match error {
            // One that was waited for is missing still: it is in no store.
            Error::MissingPiece { index } if last == Some(index) => return Err(error),
            Error::MissingPiece { index } => {
                last = Some(index);
                supply.want(&(index..index.saturating_add(FIRST).min(count)).collect::<Vec<_>>());
                (index, supply.available(index).await)
            }
            Error::CorruptPiece { index } => (index, supply.refetch(index).await),
            error => return Err(error),
        };
        waited.map_err(|why| Error::NotFetched { index, why })?;
    }
}

fn announce(server: &Server, content: &Content, output: Output) -> Result<(), Failure> {
    let mut files = Vec::new();
    let mut human = format!("Serving at {}\n", server.url());
    for (index, file) in content.files().iter().enumerate() {
        let url = server.file_url(index).map_err(glue::player_failure)?;
        human += &format!("  {} ({})\n", file.display_path(), bytes(file.size));
        files.push(json!({ "path": file.path, "bytes": file.size, "mime": file.mime, "url": url }));
    }
    human += "Whoever has this address can read it. Ctrl-C ends it";
    output.result(human, json!({ "event": "serving", "url": server.url(), "files": files }));
    Ok(())
}

/// A reader that does not start is no reason to stop serving.
fn start_reader(args: &ServeArgs, server: &Server, content: &Content, output: Output) {
    let started = match &args.player {
        Some(program) => start_player(program, server, content),
        None if args.open => {
            open::that_detached(server.url()).map_err(|error| format!("no browser starts: {error}"))
        }
        None => return,
    };
    if let Err(why) = started {
        tracing::warn!("{why}");
        output.note(format!("{why}; the address above still serves"));
    }
}

fn start_player(program: &Path, server: &Server, content: &Content) -> Result<(), String> {
    let is_media = |mime: &str| mime.starts_with("video/") || mime.starts_with("audio/");
    let media = content.files().iter().enumerate().filter(|(_, file)| is_media(&file.mime));
    let mut numbers: Vec<usize> = media.map(|(index, _)| index).collect();
    if numbers.is_empty() {
        numbers.extend(0..content.files().len());
    }
    let urls = numbers.into_iter().filter_map(|index| server.file_url(index).ok());
    let mut child = tokio::process::Command::new(program)
        .args(urls)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("{}: it does not start: {error}", program.display()))?;
    tokio::spawn(async move { child.wait().await });
    Ok(())
}

fn serve_failure(error: ServeError) -> Failure {
    match error {
        ServeError::NotLoopback(_) => Failure::new(Exit::Usage, error.to_string()),
        ServeError::Listen { address, source } => glue::serving_failure(address, &source),
        ServeError::Random(_) => Failure::new(Exit::Failed, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_never_served() {
        assert_eq!(address("127.0.0.1:0"), Ok(SocketAddr::from(([127, 0, 0, 1], 0))));
        assert!(address("[::1]:8080").is_ok() && address("127.9.9.9:1").is_ok());
        for text in ["0.0.0.0:0", "[::]:80", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
            assert!(address(text).unwrap_err().contains("this machine alone"), "{text}");
        }
        for text in ["", "localhost", "127.0.0.1", ":80"] {
            assert!(address(text).unwrap_err().contains("expected an address"), "{text}");
        }
    }
}
