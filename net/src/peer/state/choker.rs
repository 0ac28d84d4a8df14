//! Whom to serve: tit for tat. The best peers get the regular slots every ten seconds, and one more is drawn every thirty.

use std::time::Duration;

use super::connection::Connection;
use super::{ConnectionId, Swarm};
use crate::wire::message::Message;

const INTERVAL: Duration = Duration::from_secs(10);
/// The optimistic slot moves on every third time.
const OPTIMISTIC_ROUNDS: u64 = 3;
/// Who came since the optimistic slot moved last is likelier to get it: it has nothing yet to give back.
const NEWCOMER: Duration = Duration::from_secs(30);
const NEWCOMER_WEIGHT: u64 = 3;

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
            .filter(|(_, connection)| connection.personal.is_none() && self.servable(connection))
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
            None => self.draw_optimistic(rest.into_iter().map(|(_, id)| id).collect()),
        };
        serve.extend(drawn);
        serve.extend(self.draw_personal(keep));
        for id in self.ids() {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.optimistic = drawn == Some(id);
            }
            if serve.contains(&id) { self.unchoke(id) } else { self.choke(id) }
        }
    }

    /// Whom to serve although others gave us more; not the same twice in a row where there is a choice.
    fn draw_optimistic(&mut self, mut rest: Vec<ConnectionId>) -> Option<ConnectionId> {
        if rest.len() > 1 {
            rest.retain(|id| !self.connections[id].optimistic);
        }
        let weight = |id: &ConnectionId| {
            let newcomer = self.now.elapsed.saturating_sub(self.connections[id].since) < NEWCOMER;
            if newcomer { NEWCOMER_WEIGHT } else { 1 }
        };
        let weights: Vec<u64> = rest.iter().map(weight).collect();
        let mut place = self.random.below(weights.iter().sum::<u64>().max(1));
        let drawn = weights.into_iter().position(|weight| {
            let found = place < weight;
            place = place.saturating_sub(weight);
            found
        });
        drawn.map(|drawn| rest[drawn])
    }

    /// Which ordinary clients are served: the same as before or, from time to time, others. They have slots of their own,
    /// so that they neither starve nor crowd out those who give back.
    fn draw_personal(&mut self, keep: bool) -> Vec<ConnectionId> {
        let servable = |(_, connection): &(&ConnectionId, &Connection)| {
            connection.personal.is_some() && self.servable(connection)
        };
        let all = self.connections.iter().filter(servable);
        let (mut drawn, mut rest): (Vec<_>, Vec<_>) =
            all.map(|(&id, _)| id).partition(|id| keep && !self.connections[id].choking_it);
        while drawn.len() < self.config.personal_slots && !rest.is_empty() {
            let place = self.random.below(rest.len() as u64) as usize;
            drawn.push(rest.swap_remove(place));
        }
        drawn.truncate(self.config.personal_slots);
        drawn
    }

    /// A free slot waits for nobody.
    pub(super) fn fill_slots(&mut self) {
        // One slot more is the optimistic one.
        let mut free = [self.config.slots + 1, self.config.personal_slots];
        for connection in self.connections.values().filter(|connection| connection.is_served()) {
            let class = &mut free[usize::from(connection.personal.is_some())];
            *class = class.saturating_sub(1);
        }
        for id in self.ids() {
            let connection = &self.connections[&id];
            let class = &mut free[usize::from(connection.personal.is_some())];
            if *class > 0 && connection.choking_it && self.servable(connection) {
                *class -= 1;
                self.unchoke(id);
            }
        }
    }

    /// A peer that kept its slot while it wanted nothing comes back to find it taken.
    pub(super) fn choke_if_too_many(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let personal = connection.personal.is_some();
        let limit = if personal { self.config.personal_slots } else { self.config.slots + 1 };
        let same = |other: &&Connection| other.is_served() && other.personal.is_some() == personal;
        if self.connections.values().filter(same).count() > limit {
            self.choke(id);
        }
    }

    /// Whether a slot would be of use to the peer: it wants something, and nothing is sent without a ticket.
    fn servable(&self, connection: &Connection) -> bool {
        connection.ready
            && connection.it_is_interested
            && (!self.sealed() || connection.claim().is_some())
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
