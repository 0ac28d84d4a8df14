//! Super-seeding (BEP 16): an original seed tells each peer of a few pieces at a time, and of a piece that somebody else
//! already holds only when nothing else moves, so that each piece leaves the seed about once.

use std::time::Duration;

use super::{ConnectionId, Swarm};
use crate::wire::message::Message;

/// Pieces that a peer is told of before it has fetched them.
const OPEN: usize = 4;
/// A peer that could get no piece from anybody for this long gets one from us.
const STUCK: Duration = Duration::from_secs(10);

impl Swarm {
    /// Tells a peer of pieces that it may fetch from us.
    pub(super) fn reveal(&mut self, id: ConnectionId) {
        while let Some(piece) = self.next_revelation(id) {
            let now = self.now.elapsed;
            let Some(connection) = self.connections.get_mut(&id) else { return };
            if let Some(all) = &mut connection.revealed.all {
                all.insert(piece);
            }
            connection.revealed.open.push(piece);
            connection.revealed.last_have = now;
            self.revealed[piece as usize] += 1;
            self.send(id, Message::Have(piece));
        }
    }

    fn next_revelation(&mut self, id: ConnectionId) -> Option<u32> {
        let connection = self.connections.get(&id)?;
        let told = connection.revealed.all.as_ref()?;
        if !connection.ready || connection.revealed.open.len() >= OPEN {
            return None;
        }
        let stuck = self.now.elapsed.saturating_sub(connection.revealed.last_have) > STUCK;
        let open =
            |piece: &u32| self.pieces.have().has(*piece) && !told.has(*piece) && !connection.have.has(*piece);
        let key = |piece: u32| (self.revealed[piece as usize], self.pieces.availability(piece));
        let lowest = (0..self.pieces.count()).filter(open).map(key).min()?;
        // Told to somebody, and held or about to be held by somebody: the peers pass it on themselves.
        let pending = |piece: u32| {
            self.connections.values().any(|connection| connection.revealed.open.contains(&piece))
        };
        let mut best: Vec<u32> =
            (0..self.pieces.count()).filter(open).filter(|&piece| key(piece) == lowest).collect();
        if lowest.0 > 0 && !stuck {
            best.retain(|&piece| self.pieces.availability(piece) == 0 && !pending(piece));
        }
        if best.is_empty() {
            return None;
        }
        let drawn = self.random.below(best.len() as u64);
        Some(best[drawn as usize])
    }

    /// A peer says that it has a piece.
    pub(super) fn came_back(&mut self, id: ConnectionId, piece: u32) {
        if !self.config.super_seed {
            return;
        }
        let now = self.now.elapsed;
        for connection in self.connections.values_mut() {
            connection.revealed.open.retain(|&open| open != piece || !connection.have.has(piece));
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.revealed.last_have = now;
        }
        self.reveal(id);
    }
}
