//! `seed`: serves published torrents from their plaintext. No ciphertext touches its disk; packaged pieces do where it is asked to
//! keep them.

mod hashing;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use swarmseal_core::TorrentId;
use tokio::task::JoinSet;

use super::glue::{self, TrackerLink};
use super::subscription::{at, read_metainfo};
use super::{DataDir, Exit, Failure, Output};
use crate::peer::{Member, Node, NodeConfig, Obfuscation, Role, TorrentConfig};
use crate::publish::{PackageCache, Packager};
use crate::tracker_client::Client;
use crate::wire::keyfile::{KeyFile, SeedFile};
use crate::wire::seal::Hello;

/// Arguments of `seed`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal seed film.seed\n  swarmseal seed film.seed --obfuscation require\n  swarmseal seed film.seed --package-cache ./packages"
)]
pub(super) struct Args {
    /// Seed files, as `publish` wrote them
    #[arg(required = true)]
    seed_files: Vec<PathBuf>,
    /// Where the content lies now, if it has moved; for one seed file only
    #[arg(long, env = "SWARMSEAL_CONTENT", value_name = "PATH")]
    content: Option<PathBuf>,
    /// Where the .torrent lies now, if it has moved; for one seed file only
    #[arg(long, env = "SWARMSEAL_TORRENT", value_name = "FILE")]
    torrent: Option<PathBuf>,
    /// Address to listen on; port 0 takes any, and [::] takes IPv4 as well
    #[arg(long, env = "SWARMSEAL_LISTEN", value_name = "ADDRESS", default_value = "[::]:6881")]
    listen: SocketAddr,
    /// Bytes a second to send at most, with K, M or G [default: no limit]
    #[arg(long, env = "SWARMSEAL_UPLOAD_LIMIT", value_name = "RATE", value_parser = super::size)]
    upload_limit: Option<u64>,
    #[command(flatten)]
    bounds: glue::BoundArgs,
    /// Hide BitTorrent from filters: off, allow (also obfuscated, where a peer wants it) or require (nothing else). No security
    #[arg(long, env = "SWARMSEAL_OBFUSCATION", value_name = "MODE", default_value = "allow", value_parser = glue::obfuscation)]
    obfuscation: Obfuscation,
    #[command(flatten)]
    mapping: glue::MappingArgs,
    /// Hand each piece out once, and again only when nobody has it any more (BEP 16)
    #[arg(long, env = "SWARMSEAL_SUPER_SEED")]
    super_seed: bool,
    /// Bytes of pieces a second, with K, M or G, that are hashed in the background for subscribers who want a .torrent for
    /// other clients; 0: none
    #[arg(long, env = "SWARMSEAL_CIPHER_HASHES", value_name = "RATE", value_parser = super::size_or_none, default_value = "64M")]
    cipher_hashes: u64,
    /// Keep packaged pieces in this directory, so that each is made once. They take as much room as the content, and open
    /// without a key: guard them as you guard the content [default: none are kept]
    #[arg(long, env = "SWARMSEAL_PACKAGE_CACHE", value_name = "DIR")]
    package_cache: Option<PathBuf>,
    /// Bytes of packaged pieces to keep at most, with K, M, G or T, of all torrents together
    #[arg(long, env = "SWARMSEAL_PACKAGE_CACHE_SIZE", value_name = "SIZE", value_parser = super::size, default_value = "64G")]
    package_cache_size: u64,
    #[command(flatten)]
    trust: glue::TrustArgs,
}

/// Serves until it is told to stop.
pub(super) async fn run(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    if args.seed_files.len() > 1 && (args.content.is_some() || args.torrent.is_some()) {
        return Err(Failure::new(Exit::Usage, "--content and --torrent: expected one seed file beside them"));
    }
    let told = glue::told_to_stop();
    let node = Node::bind(NodeConfig {
        listen: args.listen,
        obfuscation: args.obfuscation,
        port_mapping: args.mapping.port_mapping(args.listen),
        upload_limit: args.upload_limit,
        ..args.bounds.config()
    })
    .await
    .map_err(|error| glue::listen_failure(args.listen, &error))?;
    let mut torrents = Vec::new();
    let mut hashing = JoinSet::new();
    let mut room = args.package_cache_size;
    let stop = Arc::new(AtomicBool::new(false));
    for path in &args.seed_files {
        let added = add(&node, path, (&args, &data), &mut room)?;
        output.note(format!("Seeding {} from {}", added.name, path.display()));
        torrents.push(added.torrent_id.to_string());
        if args.package_cache.is_some() {
            tokio::task::spawn_blocking(fill_cache(&added, stop.clone(), output));
        }
        if args.cipher_hashes > 0 {
            hashing.spawn(hashing::run(added.client, added.torrent_id, added.packager, args.cipher_hashes));
        }
    }
    let address = node.local_addr();
    output.result(
        format!("Listening on {address}; Ctrl-C stops"),
        json!({ "event": "listening", "address": address.to_string(), "port": address.port(), "torrents": torrents }),
    );
    told.await;
    stop.store(true, Ordering::Relaxed);
    hashing.shutdown().await;
    node.shutdown_now().await;
    Ok(())
}

/// What makes the packaged pieces that are to be kept, and says so at the end.
fn fill_cache(added: &Added, stop: Arc<AtomicBool>, output: Output) -> impl FnOnce() + Send + 'static {
    let (packager, name, torrent) = (added.packager.clone(), added.name.clone(), added.torrent_id);
    move || {
        let kept = packager.fill_cache(&stop);
        if !stop.load(Ordering::Relaxed) {
            let human = format!("{kept} packaged pieces of {name} are kept");
            output.result(
                human,
                json!({ "event": "packaged", "torrent": torrent.to_string(), "pieces": kept }),
            );
        }
    }
}

/// A torrent that is being seeded.
struct Added {
    torrent_id: TorrentId,
    name: String,
    packager: Arc<Packager>,
    client: Client,
}

/// Adds one torrent. `room`: for packaged pieces, less what this one takes.
fn add(node: &Node, path: &Path, (args, data): (&Args, &DataDir), room: &mut u64) -> Result<Added, Failure> {
    let seed = KeyFile::read(path, SeedFile::KIND)
        .and_then(|file| SeedFile::from_key_file(&file))
        .map_err(at(path))?;
    let missing = |what: &str, flag: &str| {
        Failure::new(Exit::Usage, format!("{}: it names no {what}: expected {flag}", path.display()))
    };
    let torrent = args
        .torrent
        .clone()
        .or_else(|| seed.metainfo.clone())
        .ok_or_else(|| missing(".torrent", "--torrent FILE"))?;
    let content = args
        .content
        .clone()
        .or_else(|| seed.content.clone())
        .ok_or_else(|| missing("content", "--content PATH"))?;
    // Whoever holds the seed file has decided on the profile when publishing.
    let metainfo = Arc::new(read_metainfo(&torrent, true)?);
    let mut packager = Packager::open(&content, &seed, &metainfo).map_err(glue::publish_failure)?;
    if let Some(directory) = &args.package_cache {
        let cache = PackageCache::open(directory, &metainfo, *room)
            .map_err(|error| glue::publish_failure(error.into()))?;
        *room -= u64::from(cache.room()) * u64::from(metainfo.info.piece_length);
        packager = packager.with_cache(cache);
    }
    let packager = Arc::new(packager);
    let seal = &metainfo.info.seal;
    let member = Member {
        hello: Hello::Seed { key: seed.signing_key.public() },
        torrent_id: seal.torrent_id,
        params: seal.params.clone(),
        id: seed.seed(),
        key: seed.signing_key.clone(),
        epoch: 0,
    };
    let secret = seed.package_secret.clone();
    let role = Role::Seed { member, source: packager.clone(), secret };
    let service = args.trust.service(&metainfo, data)?;
    let link = TrackerLink::of_seed(&metainfo, service.clone(), &seed, node.local_addr().ip())?;
    let config = TorrentConfig {
        super_seed: args.super_seed,
        ..glue::torrent_config(&metainfo, role, Arc::new(link))
    };
    node.add_torrent(config).map_err(glue::add_failure)?;
    let client = glue::seed_client(service, &seed)?;
    Ok(Added { torrent_id: seal.torrent_id, name: metainfo.info.name.clone(), packager, client })
}
