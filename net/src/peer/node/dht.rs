//! The mainline DHT (BEP 5, over IPv4): tells it where we are, and asks it who else is there.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use mainline::async_dht::AsyncDht;
use mainline::{Dht, Id};
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::time::sleep;

use super::Shared;
use super::torrent::{Input, Stats};

/// Nodes forget who does not announce again within half an hour.
const INTERVAL: Duration = Duration::from_secs(900);
/// While we have nobody, we ask this often.
const ALONE: Duration = Duration::from_secs(60);

/// How to take part in the DHT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhtConfig {
    /// Nodes that are asked first, `host:port`.
    pub bootstrap: Vec<String>,
    /// The address that packets come from.
    pub bind: Ipv4Addr,
}

impl Default for DhtConfig {
    /// The nodes that everybody asks first, and any address.
    fn default() -> Self {
        let bootstrap = mainline::DEFAULT_BOOTSTRAP_NODES.map(str::to_owned).to_vec();
        DhtConfig { bootstrap, bind: Ipv4Addr::UNSPECIFIED }
    }
}

/// The node's part in the DHT, once it has one.
#[derive(Debug, Default)]
pub(super) struct DhtNode(OnceCell<AsyncDht>);

impl DhtNode {
    async fn get(&self, config: &DhtConfig) -> io::Result<&AsyncDht> {
        let start = || async {
            let config = config.clone();
            // Names are looked up, which takes its time.
            let started = tokio::task::spawn_blocking(move || start(&config)).await;
            started.map_err(io::Error::other)?
        };
        self.0.get_or_try_init(start).await
    }
}

/// Takes any port but that of our connections: a client that tries uTP there must be refused, or it waits for an answer.
fn start(config: &DhtConfig) -> io::Result<AsyncDht> {
    let node = Dht::builder().bootstrap(&config.bootstrap).bind_address(config.bind).port(0).build()?;
    Ok(node.as_async())
}

/// Announces and asks, again and again.
pub(super) async fn find_peers(
    config: &DhtConfig,
    info_hash: [u8; 20],
    shared: &Shared,
    stats: watch::Receiver<Stats>,
    inputs: mpsc::WeakSender<Input>,
) {
    let dht = match shared.dht.get(config).await {
        Ok(dht) => dht,
        Err(error) => return tracing::info!(%error, "there is no DHT"),
    };
    let id = Id::from(info_hash);
    loop {
        let mut found = dht.get_peers(id);
        while let Some(peers) = poll_fn(|cx| Pin::new(&mut found).poll_next(cx)).await {
            let peers = peers.into_iter().map(SocketAddr::V4).collect();
            let Some(inputs) = inputs.upgrade() else { return };
            if inputs.send(Input::Found(peers)).await.is_err() {
                return;
            }
        }
        if let Err(error) = dht.announce_peer(id, Some(shared.port())).await {
            tracing::debug!(%error, "the DHT was not told");
        }
        let alone = || {
            let now = stats.borrow();
            now.connections == 0 && !now.complete
        };
        sleep(ALONE).await;
        let mut waited = ALONE;
        while waited < INTERVAL && !alone() {
            sleep(ALONE).await;
            waited += ALONE;
        }
    }
}
