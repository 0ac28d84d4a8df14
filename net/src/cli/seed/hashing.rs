//! A seed's background work: cipher hashes of subscribers, as the tracker asks for them. What was handed in is kept there, so
//! a seed that stops loses a run of pieces at most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use swarmseal_core::TorrentId;

use crate::publish::Packager;
use crate::tracker_client::{Client, Error};
use crate::wire::api::NewHashes;

/// Until the tracker is asked again, where there was nothing to do.
const IDLE: Duration = Duration::from_secs(5);
/// Where the tracker or the disk failed.
const FAILED: Duration = Duration::from_secs(60);

/// Computes cipher hashes for ever, at most `rate` bytes of pieces a second.
pub(super) async fn run(client: Client, torrent: TorrentId, packager: Arc<Packager>, rate: u64) {
    loop {
        let pause = match run_once(&client, torrent, &packager, rate).await {
            Ok(true) => Duration::ZERO,
            Ok(false) => IDLE,
            Err(error) => {
                tracing::warn!(error, "cipher hashes have to wait");
                FAILED
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Whether there was anything to do.
async fn run_once(
    client: &Client,
    torrent: TorrentId,
    packager: &Arc<Packager>,
    rate: u64,
) -> Result<bool, String> {
    let text = |error: Error| error.to_string();
    let Some(job) = client.work(torrent).await.map_err(text)? else { return Ok(false) };
    let (subscriber, epoch, first) = (job.subscriber, job.epoch, job.first);
    let packager = packager.clone();
    let hashed = tokio::task::spawn_blocking(move || {
        let mut pace = Pace::new(rate);
        packager.cipher_hashes(job.first, &job.keys, |bytes| pace.wait(bytes))
    });
    let hashes = hashed.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let hashes = NewHashes { torrent_id: torrent, subscriber, epoch, first, hashes: hashes.concat() };
    client.add_hashes(&hashes).await.map_err(text)?;
    Ok(true)
}

/// Spreads work over time.
struct Pace {
    rate: u64,
    started: Instant,
    bytes: u64,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Pace { rate, started: Instant::now(), bytes: 0 }
    }

    /// Waits until what was done before is paid for.
    fn wait(&mut self, bytes: usize) {
        let due = Duration::from_secs_f64(self.bytes as f64 / self.rate as f64);
        self.bytes += bytes as u64;
        std::thread::sleep(due.saturating_sub(self.started.elapsed()));
    }
}
