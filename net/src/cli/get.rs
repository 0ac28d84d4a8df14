//! `get`: fetches a torrent, and uploads what has been fetched.

mod ordinary;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::channel::Channel;
use super::glue::{self, TrackerLink};
use super::output::bytes;
use super::subscription::{Subscription, parse_metainfo, read_torrent};
use super::{DataDir, Failure, Output, license};
use crate::peer::{Member, Node, NodeConfig, Role, Stats, TorrentConfig};

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal get film.torrent --exit\n  swarmseal get film.torrent --ask-voucher\n  swarmseal get debian.torrent --output DIR  (an ordinary torrent)\n  swarmseal get film.torrent --obfuscation require"
)]
pub(super) struct Args {
    /// The .torrent
    torrent: PathBuf,
    /// End when everything is there, instead of seeding on
    #[arg(long, env = "SWARMSEAL_EXIT")]
    exit: bool,
    #[command(flatten)]
    voucher: glue::VoucherSource,
    #[command(flatten)]
    node: glue::NodeArgs,
    #[command(flatten)]
    discovery: glue::DiscoveryArgs,
    /// An ordinary torrent's: where its files go, or are [default: the current directory]
    #[arg(long, short, env = "SWARMSEAL_OUTPUT", value_name = "DIR")]
    output: Option<PathBuf>,
    /// An ordinary torrent's: a peer known beforehand. Can be repeated
    #[arg(long = "peer", env = "SWARMSEAL_PEERS", value_name = "ADDRESS", value_delimiter = ',')]
    peers: Vec<SocketAddr>,
    /// Append every ticket and re-key that passes to this file, a JSON object a line: for audits
    #[arg(long, env = "SWARMSEAL_TRANSCRIPT", value_name = "FILE")]
    transcript: Option<PathBuf>,
    /// Accept a torrent of the profile `paper`, which protects nothing
    #[arg(long, env = "SWARMSEAL_INSECURE_PAPER_PROFILE")]
    insecure_paper_profile: bool,
    #[command(flatten)]
    trust: glue::TrustArgs,
}

/// Fetches, and seeds on unless told to exit.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let bytes = read_torrent(&args.torrent)?;
    if let Some(torrent) = ordinary::parse(&args.torrent, &bytes)? {
        return ordinary::run(args, &torrent, output).await;
    }
    for (given, flag) in [
        (args.output.is_some(), "--output"),
        (!args.peers.is_empty(), "--peer"),
        (args.discovery.names_nodes(), "--dht-bootstrap"),
    ] {
        if given {
            return Err(Failure::new(
                super::Exit::Usage,
                format!(
                    "{flag} goes with ordinary torrents: expected a sealed one without it; `play` has an --output"
                ),
            ));
        }
    }
    let metainfo = Arc::new(parse_metainfo(&args.torrent, &bytes, args.insecure_paper_profile)?);
    let voucher = args.voucher.read(&metainfo.info.seal)?;
    let subscription = Arc::new(Subscription::ensure(metainfo.clone(), &args.trust, &data, output).await?);
    if voucher.is_some() {
        license::fetch(&subscription, voucher.as_ref()).await?;
    }
    let store = glue::open_own_store(&subscription).await?;
    let (node, told) = bind(&args).await?;
    let address = node.local_addr();
    let stored = store.count();
    let config = TorrentConfig {
        transcript: args.transcript.clone(),
        ..torrent_config(&subscription, store, address.ip())?
    };
    let handle = node.add_torrent(config).map_err(glue::add_failure)?;
    output.note(format!("Listening on {address} as subscriber {}", subscription.keys.id));
    if output.is_json() {
        output.result(
            "",
            json!({
                "event": "listening", "address": address.to_string(), "port": address.port(),
                "subscriber": subscription.keys.id.to_string(), "pieces": stored,
            }),
        );
    }
    // Where players of this device say what they read next.
    let _channel = Channel::open(&subscription.dir, handle.clone()).await?;
    let keeping = tokio::spawn(keep_licensed(subscription.clone(), handle.stats(), output));
    let outcome = until_told(&args, (node, told), handle.stats(), output).await;
    keeping.abort();
    outcome
}

/// A subscription's torrent, fetched into its own store by a node that listens on `listen`.
pub(super) fn torrent_config(
    subscription: &Subscription,
    store: Arc<crate::peer::Store>,
    listen: IpAddr,
) -> Result<TorrentConfig, Failure> {
    let seal = &subscription.metainfo.info.seal;
    let member = Member {
        torrent_id: seal.torrent_id,
        params: seal.params.clone(),
        hello: subscription.hello(),
        id: subscription.keys.id,
        key: subscription.keys.identity.signing_key().clone(),
        epoch: subscription.epoch,
    };
    let tracker = Arc::new(TrackerLink::of_subscriber(subscription, listen)?);
    Ok(glue::torrent_config(&subscription.metainfo, Role::Peer { member, store }, tracker))
}

/// A licensed device gets the license of each new epoch, so that what moves to it can be played without the tracker.
async fn keep_licensed(
    subscription: Arc<Subscription>,
    mut stats: tokio::sync::watch::Receiver<Stats>,
    output: Output,
) {
    let mut known = None;
    loop {
        let epoch = stats.borrow_and_update().epoch;
        if known != Some(epoch) && subscription.dir.license().exists() {
            if let Err(failure) = license::of_epoch(&subscription, epoch).await {
                output.note(format!("There is no license for pieces of epoch {epoch}: {}", failure.message));
            }
            known = Some(epoch);
        }
        if stats.changed().await.is_err() {
            return;
        }
    }
}

/// A node that says where it listens, and when it is to stop: whoever reads the one may already ask for the other.
async fn bind(args: &Args) -> Result<(Node, impl Future<Output = ()>), Failure> {
    let told = glue::told_to_stop();
    let listen = args.node.listen;
    let bound = Node::bind(NodeConfig {
        lsd: args.discovery.lsd(listen),
        dht: args.discovery.dht(listen),
        ..args.node.config()
    })
    .await
    .map_err(|error| glue::listen_failure(listen, &error))?;
    Ok((bound, told))
}

/// Waits for the last piece and, unless it is to exit then, until it is told to stop.
async fn until_told(
    args: &Args,
    (node, told): (Node, impl Future<Output = ()>),
    mut stats: tokio::sync::watch::Receiver<Stats>,
    output: Output,
) -> Result<(), Failure> {
    tokio::pin!(told);
    let outcome = tokio::select! {
        outcome = follow(&mut stats, output) => outcome,
        () = &mut told => {
            node.shutdown_now().await;
            output.note("Stopped; everything fetched so far is kept");
            return Ok(());
        }
    };
    let last = outcome?;
    let human = if args.exit { "Complete" } else { "Complete; seeding, Ctrl-C stops" };
    output.result(human, json_of("complete", &last));
    if !args.exit {
        tokio::select! {
            failed = failure_of(&mut stats) => return Err(failed),
            () = &mut told => {}
        }
        node.shutdown_now().await;
    } else {
        node.shutdown().await;
    }
    Ok(())
}

/// Shows how it goes until the last piece is there: a line on a terminal, lines now and then elsewhere.
async fn follow(stats: &mut tokio::sync::watch::Receiver<Stats>, output: Output) -> Result<Stats, Failure> {
    let bar = output.bar(0, "{bar:40} {pos}/{len} pieces {msg}");
    let mut ticker = tokio::time::interval(if output.is_terminal() {
        Duration::from_millis(250)
    } else {
        Duration::from_secs(5)
    });
    ticker.tick().await;
    loop {
        let now = stats.borrow_and_update().clone();
        if let Some(error) = &now.failure {
            return Err(glue::node_failure(error));
        }
        if now.complete && now.moving == 0 {
            bar.finish_and_clear();
            return Ok(now);
        }
        tokio::select! {
            changed = stats.changed() => if changed.is_err() {
                return Err(Failure::new(super::Exit::Failed, "the peer ended before the torrent was complete"));
            },
            _ = ticker.tick() => show(&now, &bar, output),
        }
    }
}

fn show(now: &Stats, bar: &ProgressBar, output: Output) {
    let line =
        format!("{}/s down, {}/s up, {} peers", bytes(now.down_rate), bytes(now.up_rate), now.connections);
    if output.is_terminal() {
        bar.set_length(now.total.into());
        bar.set_position(now.pieces.into());
        bar.set_message(line);
    } else if output.is_json() {
        output.result("", json_of("progress", now));
    } else {
        output.note(format!("{}/{} pieces, {line}", now.pieces, now.total));
    }
}

async fn failure_of(stats: &mut tokio::sync::watch::Receiver<Stats>) -> Failure {
    loop {
        if let Some(error) = &stats.borrow_and_update().failure {
            return glue::node_failure(error);
        }
        if stats.changed().await.is_err() {
            return Failure::new(super::Exit::Failed, "the peer ended");
        }
    }
}

fn json_of(event: &str, now: &Stats) -> Value {
    json!({
        "event": event,
        "pieces": now.pieces,
        "total": now.total,
        "epoch": now.epoch,
        "pieces_moving": now.moving,
        "peers": now.connections,
        "bytes_from_seeds": now.from_seeds,
        "bytes_from_peers": now.from_peers,
        "bytes_sent": now.uploaded,
        "pieces_refused": now.rejected,
        "download_rate": now.down_rate,
        "upload_rate": now.up_rate,
    })
}
