//! How fast bytes flow over one connection.

use std::time::Duration;

/// A smoothed rate: each update counts for a third.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    pending: u64,
    per_second: f64,
}

impl Rate {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.pending += bytes as u64;
    }

    /// To be called about once a second.
    pub(crate) fn update(&mut self, since: Duration) {
        let seconds = since.as_secs_f64().max(0.001);
        let current = self.pending as f64 / seconds;
        let weight = if current > self.per_second { 0.6 } else { 0.3 };
        self.per_second += weight * (current - self.per_second);
        self.pending = 0;
    }

    pub(crate) fn per_second(&self) -> u64 {
        self.per_second as u64
    }
}
