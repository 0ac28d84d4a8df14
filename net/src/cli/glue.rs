//! Where the libraries meet: a peer's tracker over HTTP, failures with exit codes, values of flags.

mod failure;
mod link;
mod node;
mod ordinary;
mod passphrase;
mod reach;
mod trust;
mod values;
mod voucher;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::subscription::{Subscription, at};
use super::{DataDir, Exit, Failure, TorrentDir};
use crate::peer::{
    PlainSource, Published, Role, Shape, Store, StoreError, StoreReader, TorrentConfig, Tracker,
};
use crate::platform::{self, read_at};
use crate::player::{PieceReader, Player};
use crate::publish::Packager;
use crate::tracker_client::{AdminClient, Client, Service};
use crate::wire::api::Device;
use crate::wire::keyfile::{self, SeedFile, TokenFile};
use crate::wire::metainfo::Metainfo;
use crate::wire::origin::Origin;

pub(super) use crate::date::utc as date;
pub(super) use failure::{
    add_failure, client_failure, license_failure, listen_failure, node_failure, player_failure,
    publish_failure, serving_failure, store_failure, tracker_failure,
};
pub(super) use link::TrackerLink;
pub(super) use node::{BoundArgs, NodeArgs};
pub(super) use ordinary::OrdinaryLink;
pub(super) use passphrase::PassphraseSource;
pub(super) use reach::{DiscoveryArgs, MappingArgs};
pub(super) use trust::{TrustArgs, keep_authority, kept_authority, open_authority};
pub(super) use values::{duration, obfuscation, size, size_or_none, span, time};
pub(super) use voucher::VoucherSource;

/// Flags of everything that talks to a tracker's admin API.
#[derive(Debug, clap::Args)]
pub(super) struct AdminArgs {
    /// The tracker that the admin token is for: another one than its file names is refused
    #[arg(long, env = "SWARMSEAL_TRACKER", value_name = "ORIGIN")]
    tracker: Option<Origin>,
    /// The file with the tracker's admin token [default: that of a tracker on the same data directory]
    #[arg(long, env = "SWARMSEAL_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Speak plain HTTP to a tracker on another machine: the network then sees the token
    #[arg(long, env = "SWARMSEAL_INSECURE_HTTP")]
    insecure_http: bool,
}

impl AdminArgs {
    /// The admin token, and whom it is for.
    pub(super) fn token(&self, data: &DataDir) -> Result<TokenFile, Failure> {
        let path = match &self.admin_token_file {
            Some(path) => path.clone(),
            None => data.path().join("tracker").join("admin.token"),
        };
        let token = TokenFile::read(&path).map_err(|error| match error {
            keyfile::Error::Io(error) => Failure::new(
                Exit::Storage,
                format!(
                    "{}: {error}: expected the tracker's admin token, or --admin-token-file",
                    path.display()
                ),
            ),
            error => at(&path)(error),
        })?;
        match &self.tracker {
            Some(tracker) if *tracker != token.origin => Err(Failure::new(
                Exit::Usage,
                format!("--tracker {tracker}: the token in {} is for {}", path.display(), token.origin),
            )),
            _ => Ok(token),
        }
    }

    /// A client with the admin token.
    pub(super) fn client(&self, data: &DataDir) -> Result<AdminClient, Failure> {
        AdminClient::new(&self.token(data)?, self.insecure_http).map_err(client_failure)
    }
}

/// A client in a subscriber's name.
pub(super) fn client(subscription: &Subscription) -> Result<Client, Failure> {
    let (keys, torrent) = (&subscription.keys, &subscription.metainfo.info.seal.torrent_id);
    let client = Client::new(subscription.service.clone()).map_err(client_failure)?;
    Ok(client.as_subscriber(torrent, keys.id, keys.identity.signing_key().clone()))
}

/// A client in an original seed's name.
pub(super) fn seed_client(service: Service, seed: &SeedFile) -> Result<Client, Failure> {
    let client = Client::new(service).map_err(client_failure)?;
    Ok(client.as_seed(&seed.torrent_id, seed.signing_key.clone()))
}

/// A device as `--json` shows it.
pub(super) fn device_json(device: &Device) -> Value {
    json!({
        "subscriber": device.subscriber.to_string(),
        "name": device.name,
        "enrolled": device.enrolled,
        "plays": device.plays,
    })
}

/// The shape that a torrent's store has.
pub(super) fn shape(metainfo: &Metainfo) -> Shape {
    Shape {
        torrent_id: metainfo.info.seal.torrent_id,
        piece_len: metainfo.info.piece_length,
        piece_count: metainfo.info.piece_count,
    }
}

/// A torrent to join, with nothing out of the ordinary.
pub(super) fn torrent_config(metainfo: &Metainfo, role: Role, tracker: Arc<dyn Tracker>) -> TorrentConfig {
    let published = Some(Published::of(metainfo));
    TorrentConfig {
        published,
        ..TorrentConfig::new(metainfo.info_hash, metainfo.info.layout(), role, tracker)
    }
}

/// A seed's plaintext, as the node asks for it.
impl PlainSource for Packager {
    fn read_payload(&self, index: u32, payload: &mut [u8]) -> std::io::Result<()> {
        Packager::read_payload(self, index, payload).map_err(std::io::Error::other)
    }

    fn read_packaged(&self, index: u32, piece: &mut [u8]) -> std::io::Result<bool> {
        Packager::read_packaged(self, index, piece).map(|()| true).map_err(std::io::Error::other)
    }
}

/// A subscription's store for reading, though another process may fetch into it.
pub(super) fn open_store(subscription: &Subscription) -> Result<StoreReader, Failure> {
    StoreReader::open(subscription.dir.path(), &shape(&subscription.metainfo)).map_err(store_failure)
}

/// A subscription's store for fetching; every stored piece is hashed first.
pub(super) async fn open_own_store(subscription: &Subscription) -> Result<Arc<Store>, Failure> {
    let (dir, shape) = (subscription.dir.path().to_owned(), shape(&subscription.metainfo));
    tokio::task::spawn_blocking(move || Store::open(&dir, shape).map(Arc::new))
        .await
        .map_err(|error| Failure::new(Exit::Failed, format!("the store stopped: {error}")))?
        .map_err(store_failure)
}

/// Pieces one after the other in a file: what an ordinary client fetched by a personal torrent.
#[derive(Debug)]
pub(super) struct PieceFile {
    file: File,
    epoch: u64,
}

impl PieceFile {
    /// Opens it. Nothing in it says which epoch it is of: the license that opens a piece of it tells. `dir`: of the subscription.
    pub(super) fn open(path: &Path, player: &Player, dir: &TorrentDir) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| Failure::file(path, &error))?;
        let mut pieces = PieceFile { file, epoch: player.epoch() };
        let count = player.metainfo().info.piece_count;
        let mut some = vec![0; player.metainfo().info.piece_length as usize];
        let mut sealed = (0..count).filter(|&index| !player.metainfo().info.seal.is_clear(index));
        let first = sealed.find(|&index| matches!(pieces.read_piece(index, &mut some), Ok(Some(_))));
        if let Some(first) = first {
            for epoch in [player.epoch()].into_iter().chain(dir.other_licenses()) {
                pieces.epoch = epoch;
                if player.opens(&pieces, first) {
                    return Ok(pieces);
                }
            }
        }
        pieces.epoch = player.epoch();
        Ok(pieces)
    }
}

impl PieceReader for PieceFile {
    fn read_piece(&self, index: u32, piece: &mut [u8]) -> std::io::Result<Option<u64>> {
        match read_at(&self.file, piece, u64::from(index) * piece.len() as u64) {
            // A client that has not come so far.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            read => read.map(|()| Some(self.epoch)),
        }
    }
}

/// Both stores know their pieces and read them alike. A damaged one is handed out: the player sees that it is.
macro_rules! reads_pieces {
    ($($store:ty),+) => {$(
        impl PieceReader for $store {
            fn read_piece(&self, index: u32, piece: &mut [u8]) -> std::io::Result<Option<u64>> {
                match self.read_stored(index, piece) {
                    Ok(stored) => Ok(Some(stored.epoch)),
                    Err(StoreError::Missing(_)) => Ok(None),
                    Err(StoreError::Damaged(_)) => Ok(self.piece(index).map(|stored| stored.epoch)),
                    Err(error) => Err(std::io::Error::other(error)),
                }
            }
        }
    )+};
}
reads_pieces!(Store, StoreReader);

/// With this variable set, a program ends as soon as its standard input does: a child that is not to outlive its parent,
/// even one that was killed.
pub(crate) const UNTIL_EOF: &str = "SWARMSEAL_UNTIL_EOF";

/// Done when the user or the system says that it is time: Ctrl-C, SIGTERM, or see [`UNTIL_EOF`]. From this call on neither ends the
/// program by itself.
pub(crate) fn told_to_stop() -> impl Future<Output = ()> {
    let (interrupted, terminated) = (platform::interrupted(), platform::terminated());
    async {
        tokio::select! {
            () = interrupted => {}
            () = terminated => {}
            () = end_of_input() => {}
        }
    }
}

async fn end_of_input() {
    if std::env::var_os(UNTIL_EOF).is_none() {
        return std::future::pending().await;
    }
    let (sender, ended) = tokio::sync::oneshot::channel();
    // A thread of its own: the runtime would wait for one of its threads that still reads.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = sender.send(());
    });
    let _ = ended.await;
}
