//! Pieces that somebody waits for: asked for before all others and in their order, of whoever brings them soonest, and of
//! a second peer where the first is late. With none of them, nothing here does anything.

use std::time::Duration;

use super::connection::{Connection, Incoming};
use super::{Command, ConnectionId, Swarm};
use crate::wire::message::{BLOCK, Message};
use crate::wire::seal::SealMessage;

/// A peer that holds an urgent piece already is given another only where that takes no longer than this.
const HORIZON: Duration = Duration::from_secs(3);
/// An urgent piece is asked for twice after this time, where the second peer would be twice as quick.
const LATE: Duration = Duration::from_millis(1500);
/// Requests for other pieces are taken back where the answers would hold up an urgent one for longer; and while anything is
/// urgent, no more is asked of a peer than what it sends in this time. What it has handed to its socket cannot be taken back.
const HELD_UP: Duration = Duration::from_millis(500);
/// But so many blocks it is always asked for.
const LEAST_DEPTH: u32 = 8;

impl Swarm {
    /// From now on these are urgent, the first one most, and no others.
    pub(super) fn prioritize(&mut self, pieces: &[u32]) {
        self.pieces.set_urgent(pieces, self.now.elapsed);
        if self.pieces.urgent().is_empty() {
            return;
        }
        for id in self.ids() {
            self.give_back_unasked(id);
            self.sort_urgent(id);
        }
        self.fetch_urgent_witness();
        let given = self.assign_urgent();
        for &id in &given {
            self.take_back_others(id);
        }
        self.download_all();
    }

    /// Gives every urgent piece that nobody fetches, and every one that is late, to the peer that brings it soonest. Those that
    /// got one.
    pub(super) fn assign_urgent(&mut self) -> Vec<ConnectionId> {
        let mut given = Vec::new();
        for place in 0..self.pieces.urgent().len() {
            let piece = self.pieces.urgent()[place];
            if !self.pieces.is_missing(piece) || !self.can_check(piece) {
                continue;
            }
            let best = match self.pieces.fetched_by(piece) {
                0 => self.soonest(piece, |_| true),
                1 => self.late(piece).and_then(|(holder, left)| {
                    self.soonest(piece, |id| id != holder).filter(|&(_, eta)| 2 * eta < left)
                }),
                _ => None,
            };
            let Some((id, eta)) = best else { continue };
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let holds = connection.download.pieces.iter().any(|held| self.pieces.is_urgent(held.piece));
            if holds && eta > HORIZON {
                continue;
            }
            self.pieces.assign(piece);
            let incoming = Incoming::new(piece, self.config.layout.len_of(piece), self.now.elapsed);
            connection.download.pieces.push_back(incoming);
            let told = connection.hello.is_some();
            self.sort_urgent(id);
            if told {
                self.send_seal(id, &SealMessage::Want(vec![piece]));
            }
            if !given.contains(&id) {
                given.push(id);
            }
        }
        given
    }

    /// How many requests without an answer a peer of that rate gets while something is urgent; `depth` where nothing is.
    pub(super) fn depth_for_urgent(&self, depth: u32, rate: u64) -> u32 {
        if !self.pieces.urgent().iter().any(|&piece| self.pieces.is_missing(piece)) {
            return depth;
        }
        let bytes = rate as f64 * HELD_UP.as_secs_f64();
        depth.min(((bytes / f64::from(BLOCK)) as u32).max(LEAST_DEPTH))
    }

    /// Who of those brings a piece soonest, and in what time.
    fn soonest(&self, piece: u32, among: impl Fn(ConnectionId) -> bool) -> Option<(ConnectionId, Duration)> {
        let usable = |id: ConnectionId, connection: &Connection| {
            let download = &connection.download;
            self.may_ask(connection)
                && !(connection.hello.is_some() && download.epoch != self.epoch())
                && connection.have.has(piece)
                && !download.fetches(piece)
                && !self.avoids(id, piece)
        };
        let others = self.connections.iter().filter(|(id, it)| among(**id) && usable(**id, it));
        let etas = others.map(|(&id, connection)| (id, self.eta(connection), connection.download.snubbed));
        // Who let us down comes last.
        etas.min_by_key(|&(_, eta, snubbed)| (snubbed, eta)).map(|(id, eta, _)| (id, eta))
    }

    /// In what time a peer would bring one urgent piece more, as far as its rate tells.
    fn eta(&self, connection: &Connection) -> Duration {
        let download = &connection.download;
        let urgent = download.pieces.iter().filter(|held| self.pieces.is_urgent(held.piece));
        let before: usize = urgent.map(Incoming::missing_bytes).sum();
        let bytes = before + self.piece_len();
        Duration::from_secs_f64(bytes as f64 / self.rate_of(connection))
    }

    /// Bytes a second; 0 where nothing came yet.
    pub(super) fn known_rate(&self, connection: &Connection) -> u64 {
        match connection.down.per_second() {
            0 => connection.download.first_rate(self.now.elapsed),
            rate => rate,
        }
    }

    /// Bytes a second: one that nothing came from yet is thought to be like the others.
    fn rate_of(&self, connection: &Connection) -> f64 {
        let own = self.known_rate(connection);
        if own > 0 {
            return own as f64;
        }
        let rates = self.connections.values().map(|it| self.known_rate(it)).filter(|&rate| rate > 0);
        let (sum, count) = rates.fold((0, 0), |(sum, count), rate| (sum + rate, count + 1));
        // With nothing known, all are alike.
        sum.checked_div(count).map_or(1e6, |mean| mean as f64)
    }

    /// Who fetches a piece and is late, and how long it still takes at its rate.
    fn late(&self, piece: u32) -> Option<(ConnectionId, Duration)> {
        let held = self.connections.iter().find_map(|(&id, connection)| {
            let held = connection.download.pieces.iter().find(|held| held.piece == piece)?;
            Some((id, connection, held))
        });
        let (id, connection, held) = held?;
        let since = held.since.max(self.pieces.urgent_since(piece));
        if self.now.elapsed.saturating_sub(since) < LATE {
            return None;
        }
        let rate = connection.down.per_second();
        let left = held.missing_bytes() as f64 / rate.max(1) as f64;
        Some((id, Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX)))
    }

    /// Urgent pieces first, in their order.
    fn sort_urgent(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let pieces = &self.pieces;
            let held = connection.download.pieces.make_contiguous();
            held.sort_by_key(|held| pieces.urgency(held.piece));
        }
    }

    /// Urgent pieces that a peer was given and not yet asked for go to whoever is quickest.
    fn give_back_unasked(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let pieces = &mut self.pieces;
        connection.download.pieces.retain(|held| {
            let back = pieces.is_urgent(held.piece) && held.untouched();
            if back {
                pieces.release(held.piece);
            }
            !back
        });
    }

    /// What else a peer was asked for, where the answers to that would hold up what is urgent.
    fn take_back_others(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let others: usize = connection
            .download
            .pieces
            .iter()
            .filter(|held| !self.pieces.is_urgent(held.piece))
            .map(Incoming::asked_bytes)
            .sum();
        if others as f64 / self.rate_of(connection) <= HELD_UP.as_secs_f64() {
            return;
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut cancelled = Vec::new();
        for held in &mut connection.download.pieces {
            if !self.pieces.is_urgent(held.piece) {
                cancelled.extend(held.requested());
                held.forget_requests();
            }
        }
        connection.download.outstanding -= cancelled.len() as u32;
        connection.download.recalled |= !cancelled.is_empty();
        self.out
            .extend(cancelled.into_iter().map(|block| Command::Send { id, message: Message::Cancel(block) }));
    }
}
