//! Whom to serve: tit for tat. The best peers get the regular slots every ten seconds, and one more is drawn every thirty.

use std::time::Duration;

use super::connection::Connection;
use super::{ConnectionId, Swarm};
use crate::wire::message::Message;

const INTERVAL: Duration = Duration::from_secs(10);
/// The optimistic slot moves on every third time.
const OPTIMISTIC_ROUNDS: u64 = 3;

impl Swarm {
    pub(super) fn rechoke_if_due(&mut self) {
        if self.now.elapsed.saturating_sub(self.choked_at) >= INTERVAL {
            self.choked_at = self.now.elapsed;
            self.rechoke();
        }
    }

    /// A seed serves those that it serves fastest; a downloader serves those that serve it fastest.
    fn rechoke(&mut self) {
        let complete = self.pieces.complete();
        let speed = |connection: &Connection| {
            if complete { connection.up.per_second() } else { connection.down.per_second() }
        };
        let mut candidates: Vec<(u64, ConnectionId)> = self
            .connections
            .iter()
            .filter(|(_, connection)| self.servable(connection))
            .map(|(&id, connection)| (speed(connection), id))
            .collect();
        candidates.sort_by_key(|&(speed, id)| (std::cmp::Reverse(speed), id));
        let rest = candidates.split_off(candidates.len().min(self.config.slots));
        let mut serve: Vec<ConnectionId> = candidates.into_iter().map(|(_, id)| id).collect();

        let current = rest.iter().map(|&(_, id)| id).find(|id| self.connections[id].optimistic);
        let keep = !self.rechokes.is_multiple_of(OPTIMISTIC_ROUNDS);
        self.rechokes += 1;
        let drawn = match current.filter(|_| keep) {
            Some(current) => Some(current),
            None if rest.is_empty() => None,
            None => Some(rest[self.random.below(rest.len() as u64) as usize].1),
        };
        serve.extend(drawn);
        for id in self.ids() {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.optimistic = drawn == Some(id);
            }
            if serve.contains(&id) { self.unchoke(id) } else { self.choke(id) }
        }
    }

    /// A free slot waits for nobody.
    pub(super) fn fill_slots(&mut self) {
        let mut served = self.unchoked();
        for id in self.ids() {
            if served > self.config.slots {
                return;
            }
            let connection = &self.connections[&id];
            if connection.choking_it && self.servable(connection) {
                self.unchoke(id);
                served += 1;
            }
        }
    }

    /// A peer that kept its slot while it wanted nothing comes back to find it taken.
    pub(super) fn choke_if_too_many(&mut self, id: ConnectionId) {
        if self.unchoked() > self.config.slots + 1 {
            self.choke(id);
        }
    }

    /// Whether a slot would be of use to the peer: it wants something, and nothing is sent without a ticket.
    fn servable(&self, connection: &Connection) -> bool {
        connection.ready
            && connection.it_is_interested
            && (!self.sealed() || connection.upload.ticket.is_some())
            && self.pieces.have().count() > 0
    }

    fn unchoke(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.choking_it {
            connection.choking_it = false;
            connection.upload.last_request = self.now.elapsed;
            self.send(id, Message::Unchoke);
        }
    }

    pub(super) fn choke(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !connection.choking_it {
            connection.choking_it = true;
            self.stop_uploading(id);
            self.send(id, Message::Choke);
        }
    }
}
