//! Peers found without a tracker, of public ordinary torrents alone: by the DHT, and on the local network.
//!
//! Nothing is opened or sent before the first such torrent is joined.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::torrent::{Input, Stats};
use super::{Shared, dht, stopping};

/// Runs until the node stops.
pub(super) async fn find_peers(
    info_hash: [u8; 20],
    shared: Arc<Shared>,
    stats: watch::Receiver<Stats>,
    inputs: mpsc::WeakSender<Input>,
    stop: watch::Receiver<bool>,
) {
    if let Some(config) = &shared.config.lsd {
        let cookie = hex::encode(&shared.peer_id[12..]);
        shared.lsd.join(config, cookie, info_hash, &shared, inputs.clone(), stop.clone());
    }
    if let Some(config) = &shared.config.dht {
        tokio::select! {
            () = dht::find_peers(config, info_hash, &shared, stats, inputs) => {}
            () = stopping(stop) => {}
        }
    }
}
