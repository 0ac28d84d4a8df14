//! `tracker`: announces, re-keys and licenses.

use std::net::SocketAddr;

use serde_json::json;

use super::glue;
use super::{DataDir, Failure, Output};
use crate::tracker::{Config, Server};

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
}

/// Runs until it is told to stop.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let directory = data.tracker()?;
    let config = Config {
        listen: args.listen,
        insecure_paper_profile: args.insecure_paper_profile,
        announce_interval: args.announce_interval,
        trusted_proxies: args.trusted_proxy,
        defence_seconds: args.defence_time,
        max_lost_cases: args.max_lost_cases as usize,
        check_store: args.check_store,
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
