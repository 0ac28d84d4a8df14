//! An honest peer whose pieces are multiplied by random factors behind its back: what it sends is proper, stated truthfully,
//! and wrong.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use swarmseal::peer::{Member as Identity, Node, NodeConfig, Role, Shape, Store, TorrentConfig};
use swarmseal_core::{ReKey, re_encrypt_piece};

use super::member::Member;
use super::{Kind, Scene};
use crate::random::Random;

/// Runs until it is dropped.
pub(super) async fn run(scene: Scene, address: SocketAddr, data: PathBuf, mut random: Random) -> Result<()> {
    let member = Arc::new(Member::join(&scene.metainfo, address, true, &mut random).await?);
    std::fs::create_dir_all(&data)?;
    let layout = member.layout;
    let (piece_len, piece_count) = (layout.piece_len(), layout.piece_count());
    let store =
        Arc::new(Store::open(&data, Shape { torrent_id: member.torrent_id, piece_len, piece_count })?);
    let node = Node::bind(NodeConfig { listen: address, ..NodeConfig::default() }).await?;
    let identity = Identity {
        torrent_id: member.torrent_id,
        params: member.params.clone(),
        id: member.id,
        key: member.key.clone(),
        epoch: member.epoch,
    };
    let role = Role::Peer { member: identity, store: store.clone() };
    let config = TorrentConfig {
        peers: scene.targets.clone(),
        statements: Some(data.join("statements.log")),
        ..TorrentConfig::new(member.info_hash, layout, role, member.clone())
    };
    let _torrent = node.add_torrent(config)?;
    let mut file = OpenOptions::new().write(true).open(data.join("pieces.bin"))?;
    let mut seen = vec![false; piece_count as usize];
    let mut piece_bytes = vec![0; piece_len as usize];
    let mut every = tokio::time::interval(Duration::from_millis(20));
    loop {
        every.tick().await;
        for piece in 0..piece_count {
            if seen[piece as usize] || store.piece(piece).is_none() {
                continue;
            }
            seen[piece as usize] = true;
            // Now and then it passes something on as it is: nobody who has looked twice would trust the rest.
            if random.below(4) == 0 {
                continue;
            }
            let mut factor = vec![0; member.params.group().bytes()];
            random.fill(&mut factor);
            // Below p, whose top bits are all one.
            factor[0] &= 0x7f;
            let factor = ReKey::from_bytes(&member.params, &factor)?;
            store.read(piece, &mut piece_bytes)?;
            re_encrypt_piece(&member.params, &factor, &mut piece_bytes)?;
            file.seek(SeekFrom::Start(u64::from(piece) * u64::from(piece_len)))?;
            file.write_all(&piece_bytes)?;
            scene.sent.add(Kind::Polluter);
        }
    }
}
