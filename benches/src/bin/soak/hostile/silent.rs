//! Connections whose handshake never ends: half of them from one address, the others each from another.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use swarmseal::wire::handshake::Handshake;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Kind, Scene, connect};
use crate::random::Random;

/// Connections at a time, with all targets together.
const MOST: usize = 128;
/// Longer than a handshake may take.
const LIFETIME: Duration = Duration::from_secs(15);

/// Runs until it is dropped.
pub(super) async fn run(scene: &Scene, address: SocketAddr, mut random: Random) -> Result<()> {
    let mut open = JoinSet::new();
    let mut every = tokio::time::interval(Duration::from_millis(50));
    loop {
        every.tick().await;
        while open.try_join_next().is_some() {}
        if open.len() == MOST {
            continue;
        }
        let elsewhere = [127, random.between(1, 255), random.below(256), random.between(1, 254)];
        let elsewhere = IpAddr::from(Ipv4Addr::from(elsewhere.map(|byte| byte as u8)));
        let from = if random.below(2) == 0 { address } else { SocketAddr::new(elsewhere, 0) };
        let (target, sent) = (*random.one(&scene.targets), scene.sent.clone());
        // Some begin a handshake.
        let begun = Handshake::new(scene.metainfo.info_hash, [7; 20]).to_bytes();
        let length = random.below(2) as usize * random.below(begun.len() as u64) as usize;
        open.spawn(timeout(LIFETIME, async move {
            if let Ok(mut stream) = connect(from, target).await {
                sent.add(Kind::Silent);
                let _ = stream.write_all(&begun[..length]).await;
                std::future::pending::<()>().await;
            }
        }));
    }
}
