//! `get` of an ordinary torrent: nothing is sealed, and its files lie where the user wants them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::{Args, bind, until_told};
use crate::cli::glue::{self, OrdinaryLink};
use crate::cli::{Exit, Failure, Output};
use crate::peer::{FileStore, Role, TorrentConfig};
use crate::tracker_client::OrdinaryTrackers;
use crate::wire::bencode;
use crate::wire::plain::PlainMetainfo;

/// The torrent in a file's bytes, if it is an ordinary one. What is no torrent at all is left to who reads sealed ones.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Option<PlainMetainfo>, Failure> {
    let sealed = bencode::dict_entry(bytes, b"info")
        .and_then(|info| info.map_or(Ok(None), |info| bencode::dict_entry(info, b"swarmseal")));
    if !matches!(sealed, Ok(None)) {
        return Ok(None);
    }
    let torrent = PlainMetainfo::from_bytes(bytes);
    torrent.map(Some).map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", path.display())))
}

/// Checks what is there, fetches the rest, and seeds on unless told to exit.
pub(super) async fn run(args: Args, torrent: &PlainMetainfo, output: Output) -> Result<(), Failure> {
    for (given, flag) in [(args.voucher.is_given(), "--voucher"), (args.transcript.is_some(), "--transcript")]
    {
        if given {
            return Err(Failure::new(
                Exit::Usage,
                format!("{flag}: expected a sealed torrent, this one is ordinary"),
            ));
        }
    }
    let searches =
        args.discovery.lsd(args.node.listen).is_some() || args.discovery.dht(args.node.listen).is_some();
    let found_otherwise = searches && !torrent.private;
    if torrent.trackers.is_empty() && args.peers.is_empty() && !found_otherwise {
        output.note("The torrent names no tracker: only peers that call, or --peer ADDRESS, will be found");
    }
    let directory = args.output.clone().unwrap_or_else(|| PathBuf::from("."));
    let bar = output.bar(torrent.layout.piece_count().into(), "{bar:40} {pos}/{len} pieces checked");
    let store = {
        let (directory, torrent, bar) = (directory.clone(), torrent.clone(), bar.clone());
        let open = move || FileStore::open(&directory, &torrent, &|done| bar.set_position(done.into()));
        tokio::task::spawn_blocking(open)
            .await
            .map_err(|error| Failure::new(Exit::Failed, format!("the check stopped: {error}")))?
            .map_err(glue::store_failure)?
    };
    bar.finish_and_clear();
    let there = store.pieces().iter().filter(|&&there| there).count();
    let (node, told) = bind(&args).await?;
    let address = node.local_addr();
    output.note(format!(
        "Listening on {address}; {there} of {} pieces are in {}",
        torrent.layout.piece_count(),
        directory.display()
    ));
    if output.is_json() {
        output.result(
            "",
            json!({
                "event": "listening", "address": address.to_string(), "port": address.port(), "pieces": there,
            }),
        );
    }
    let trackers = OrdinaryTrackers::new(&torrent.trackers, address.ip()).map_err(glue::client_failure)?;
    let (role, tracker) = (Role::PlainPeer { store: Arc::new(store) }, Arc::new(OrdinaryLink(trackers)));
    let config = TorrentConfig {
        peers: args.peers.clone(),
        private: torrent.private,
        ..TorrentConfig::new(torrent.info_hash, torrent.layout, role, tracker)
    };
    let handle = node.add_torrent(config).map_err(glue::add_failure)?;
    until_told(&args, (node, told), handle.stats(), output).await
}
