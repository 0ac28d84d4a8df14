//! Honest peers whose stored pieces are multiplied by factors behind their backs, index and all: what they send is proper and wrong.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use swarmseal::peer::{
    Member as Identity, Node, NodeConfig, Published, Role, Shape, Store, StoredPiece, TorrentConfig,
};
use swarmseal_core::{ReKey, re_encrypt_piece};

use super::member::Member;
use super::{Kind, Scene};
use crate::random::Random;
use crate::round::DOWNLOAD;

/// Colluding liars lie about one piece of so many, and one that stays below a hundredth of its pieces about one of so many.
const COLLUDERS: u32 = 4;
const RARE: u32 = 128;

/// What a liar lies about.
struct Lies {
    kind: Kind,
    random: Random,
    /// The first piece of those that are changed rarely.
    first: u32,
}

impl Lies {
    fn new(kind: Kind, mut random: Random, pieces: u32) -> Self {
        let first = random.below(pieces.min(RARE).into()) as u32;
        Lies { kind, random, first }
    }

    /// What a piece is multiplied by; nothing where it is passed on as it is. Colluders have the same factors, so that everybody gets
    /// the same wrong bytes from each.
    fn factor(&mut self, piece: u32, width: usize) -> Option<Vec<u8>> {
        let mut agreed = Random::new(u64::from(piece));
        let (lies, random) = match self.kind {
            Kind::Colluder => (piece.is_multiple_of(COLLUDERS), &mut agreed),
            Kind::RareLiar => (piece % RARE == self.first, &mut self.random),
            _ => (self.random.below(4) != 0, &mut self.random),
        };
        lies.then(|| {
            let mut factor = vec![0; width];
            random.fill(&mut factor);
            // Below p, whose top bits are all one.
            factor[0] &= 0x7f;
            factor
        })
    }
}

/// Runs until it is dropped.
pub(super) async fn run(
    kind: Kind,
    scene: Scene,
    address: SocketAddr,
    data: PathBuf,
    mut random: Random,
) -> Result<()> {
    let member = Arc::new(Member::join(&scene.metainfo, address, true, &mut random).await?);
    std::fs::create_dir_all(&data)?;
    let (layout, params) = (member.layout, member.params.clone());
    let (piece_len, piece_count) = (layout.piece_len(), layout.piece_count());
    let store =
        Arc::new(Store::open(&data, Shape { torrent_id: member.torrent_id, piece_len, piece_count })?);
    let config = NodeConfig { listen: address, download_limit: Some(DOWNLOAD), ..NodeConfig::default() };
    let node = Node::bind(config).await?;
    let identity = Identity {
        torrent_id: member.torrent_id,
        params: params.clone(),
        hello: member.face.hello,
        id: member.id,
        key: member.key.clone(),
        epoch: member.epoch,
    };
    let role = Role::Peer { member: identity, store: store.clone() };
    let config = TorrentConfig {
        peers: scene.targets.clone(),
        published: Some(Published::of(&scene.metainfo)),
        ..TorrentConfig::new(member.info_hash, layout, role, member.clone())
    };
    let _torrent = node.add_torrent(config)?;
    let mut lies = Lies::new(kind, random, piece_count);
    // Copies that were looked at, by their hashes: one that is fetched again, or moves to another epoch, is another.
    let mut seen = vec![None; piece_count as usize];
    let mut data = vec![0; piece_len as usize];
    let mut every = tokio::time::interval(Duration::from_millis(20));
    loop {
        every.tick().await;
        for (piece, seen) in (0..).zip(&mut seen) {
            let unseen = store.piece(piece).filter(|stored| *seen != Some(stored.hash));
            let Some(honest) = unseen else { continue };
            *seen = Some(honest.hash);
            let Some(factor) = lies.factor(piece, params.group().bytes()) else { continue };
            let factor = ReKey::from_bytes(&params, &factor).context("a factor")?;
            store.read(piece, &mut data)?;
            re_encrypt_piece(&params, &factor, &mut data).context("whole blocks")?;
            let wrong = StoredPiece { hash: *blake3::hash(&data).as_bytes(), ..honest };
            if store.replace(piece, &honest, &data, wrong)? {
                *seen = Some(wrong.hash);
                scene.sent.add(kind);
            }
        }
    }
}
