//! `tracker`: announces, re-keys and licenses.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;
use zeroize::Zeroizing;

use super::glue;
use super::{DataDir, Exit, Failure, Output};
use crate::tracker::{Config, Server};
use crate::wire::keyfile::Passphrase;

/// Arguments of `tracker`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal tracker --listen 127.0.0.1:7000")]
pub(super) struct Args {
    /// Address to listen on; port 0 takes any
    #[arg(long, env = "SWARMSEAL_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7000")]
    listen: SocketAddr,
    /// Accept torrents of the profile `paper`, which protects nothing
    #[arg(long, env = "SWARMSEAL_INSECURE_PAPER_PROFILE")]
    insecure_paper_profile: bool,
    /// A reverse proxy whose X-Forwarded-For is believed; may be given several times
    #[arg(long, env = "SWARMSEAL_TRUSTED_PROXY", value_name = "IP", value_delimiter = ',')]
    trusted_proxy: Vec<std::net::IpAddr>,
    /// Seconds between a peer's announces
    #[arg(long, env = "SWARMSEAL_ANNOUNCE_INTERVAL", value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    announce_interval: u32,
    /// How long the sender of a bad piece may take to show from whom it had it: seconds, or with a unit
    #[arg(long, env = "SWARMSEAL_DEFENCE_TIME", value_name = "DURATION", value_parser = glue::duration, default_value = "7d")]
    defence_time: u64,
    /// Bad pieces by which a subscriber may send no more, and false accusations by which it may neither
    #[arg(long, env = "SWARMSEAL_MAX_LOST_CASES", value_name = "COUNT", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..))]
    max_lost_cases: u32,
    /// Read the whole store at the start and compare its checksums, as is done after a crash anyway
    #[arg(long, env = "SWARMSEAL_CHECK_STORE")]
    check_store: bool,
    /// A file with the passphrase that master keys are sealed with; those that lie in clear are sealed. Or put the passphrase
    /// itself into SWARMSEAL_MASTER_PASSPHRASE
    #[arg(long, env = "SWARMSEAL_MASTER_PASSPHRASE_FILE", value_name = "FILE")]
    master_passphrase_file: Option<PathBuf>,
    /// Ask for that passphrase on the terminal
    #[arg(long, env = "SWARMSEAL_ASK_PASSPHRASE", conflicts_with = "master_passphrase_file")]
    ask_passphrase: bool,
}

/// The variable that has the passphrase itself. It is no flag: whoever lists processes sees those.
const PASSPHRASE: &str = "SWARMSEAL_MASTER_PASSPHRASE";

/// The passphrase of the master keys, if they are to have one.
fn passphrase(args: &Args) -> Result<Option<Passphrase>, Failure> {
    let (text, from) = match (&args.master_passphrase_file, args.ask_passphrase) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?;
            (text, path.display().to_string())
        }
        (None, true) => {
            let asked = rpassword::prompt_password("Passphrase of the master keys: ");
            let failed =
                |error| Failure::new(Exit::Failed, format!("no passphrase from the terminal: {error}"));
            (asked.map_err(failed)?, "the terminal".to_owned())
        }
        (None, false) => match std::env::var(PASSPHRASE) {
            Ok(text) => (text, PASSPHRASE.to_owned()),
            Err(_) => return Ok(None),
        },
    };
    let passphrase = Passphrase::new(Zeroizing::new(text));
    let empty = || Failure::new(Exit::Usage, format!("{from}: expected a passphrase"));
    passphrase.ok_or_else(empty).map(Some)
}

/// Runs until it is told to stop.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let directory = data.tracker()?;
    let master_passphrase = passphrase(&args)?;
    let config = Config {
        listen: args.listen,
        insecure_paper_profile: args.insecure_paper_profile,
        announce_interval: args.announce_interval,
        trusted_proxies: args.trusted_proxy,
        defence_seconds: args.defence_time,
        max_lost_cases: args.max_lost_cases as usize,
        check_store: args.check_store,
        master_passphrase,
        ..Config::new(directory)
    };
    let told = glue::told_to_stop();
    let server = Server::bind(config).await.map_err(glue::tracker_failure)?;
    let url = format!("http://{}", server.local_addr());
    let token = server.admin_token_file();
    output.result(
        format!("Tracker at {url}\nAdmin token in {}", token.display()),
        json!({ "event": "listening", "url": url, "admin_token_file": token }),
    );
    server.run(told).await.map_err(glue::tracker_failure)
}
