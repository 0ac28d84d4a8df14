//! `license-server`: signs licenses apart from the tracker.

use std::net::SocketAddr;
use std::path::PathBuf;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use serde_json::json;

use super::subscription::at;
use super::tracker::reload;
use super::{DataDir, Failure, Output, glue};
use crate::platform::Hangups;
use crate::tracker::{Config, license_server::Server};
use crate::tracker_client::{Client, Service};
use crate::wire::identity::Identity;
use crate::wire::keyfile::KeyFile;
use crate::wire::origin::Origin;

/// Arguments of `license-server`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal license-server --tracker https://tracker.example --tracker-key 5f0c… --origin https://licenses.example"
)]
pub(super) struct Args {
    /// Where the tracker is reached
    #[arg(long, env = "SWARMSEAL_TRACKER", value_name = "ORIGIN")]
    tracker: Origin,
    /// The tracker's public key: it prints it when it starts
    #[arg(long, env = "SWARMSEAL_TRACKER_KEY", value_name = "KEY", value_parser = public_key)]
    tracker_key: [u8; 32],
    /// Where subscribers find this server [default: the address that it listens on]
    #[arg(long, env = "SWARMSEAL_LICENSE_SERVER_ORIGIN", value_name = "ORIGIN")]
    origin: Option<Origin>,
    /// Where to listen; port 0 takes any
    #[arg(long, env = "SWARMSEAL_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7001")]
    listen: SocketAddr,
    /// PEM file with the certificate and those that lead from it to its root; SIGHUP reads it and its key again
    #[arg(long, env = "SWARMSEAL_LICENSE_SERVER_TLS_CERTIFICATE", value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key
    #[arg(long, env = "SWARMSEAL_LICENSE_SERVER_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Speak plain HTTP with other machines: vouchers then cross the network in clear
    #[arg(long, env = "SWARMSEAL_INSECURE_HTTP")]
    insecure_http: bool,
    /// A reverse proxy whose X-Forwarded-For is believed; may be given several times
    #[arg(long, env = "SWARMSEAL_TRUSTED_PROXY", value_name = "IP", value_delimiter = ',')]
    trusted_proxy: Vec<std::net::IpAddr>,
}

pub(super) fn public_key(text: &str) -> Result<[u8; 32], String> {
    let mut key = [0; 32];
    hex::decode_to_slice(text, &mut key).map_err(|_| "expected 64 hexadecimal digits")?;
    if crate::wire::identity::is_public_key(&key) { Ok(key) } else { Err("not a public key".to_owned()) }
}

/// Runs until it is told to stop.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let directory = data.license_server()?;
    let path = directory.path().join("identity.key");
    let make = || Identity::generate(&mut UnwrapErr(SysRng)).to_key_file();
    let identity = KeyFile::read_or_create(&path, Identity::KIND, make)
        .and_then(|file| Identity::from_key_file(&file))
        .map_err(at(&path))?;
    let service = Service::fixed(args.tracker, args.tracker_key).allow_insecure_http(args.insecure_http);
    let tracker = Client::new(service).map_err(glue::client_failure)?;
    let config = Config {
        listen: args.listen,
        tls_certificate: args.tls_certificate,
        tls_key: args.tls_key,
        insecure_http: args.insecure_http,
        trusted_proxies: args.trusted_proxy,
        ..Config::new(directory.path())
    };
    let told = glue::told_to_stop();
    let hangups = Hangups::new();
    let bound = Server::bind(config, identity, tracker, args.tracker_key, args.origin).await;
    let server = bound.map_err(glue::tracker_failure)?;
    let url = server.url();
    let for_tracker = String::from(server.for_tracker());
    output.result(
        format!("License server at {url}\nFor its tracker: --license-server '{for_tracker}'"),
        json!({ "event": "listening", "url": url, "license_server": for_tracker }),
    );
    let reloading = tokio::spawn(reload(server.reloader(), hangups));
    server.run(told).await;
    reloading.abort();
    Ok(())
}
