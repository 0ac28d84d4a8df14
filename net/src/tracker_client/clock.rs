//! The tracker's time, estimated: the last time heard from it, and what has passed since by a clock that is never set.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// An estimate that lags by no more than an answer takes to arrive, and a second.
#[derive(Default)]
pub(super) struct TrackerClock(Mutex<Option<(u64, Instant)>>);

impl TrackerClock {
    /// The tracker said this just now. Answers may overtake each other: an estimate that is ahead stays, unless the
    /// tracker's clock was set back by more than that can explain.
    pub(super) fn heard(&self, now: u64) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let estimate = last.map(|(heard, at)| heard.saturating_add(at.elapsed().as_secs()));
        if estimate.is_none_or(|estimate| now > estimate || estimate - now > 60) {
            *last = Some((now, Instant::now()));
        }
    }

    /// The estimate; the system's time where nothing was heard yet.
    pub(super) fn now(&self) -> u64 {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((heard, at)) => heard.saturating_add(at.elapsed().as_secs()),
            None => crate::date::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_tracker() {
        let clock = TrackerClock::default();
        assert!(clock.now() > 1_700_000_000);
        clock.heard(1000);
        assert!((1000..1010).contains(&clock.now()));
        clock.heard(995);
        assert!(clock.now() >= 1000);
        clock.heard(5000);
        assert!((5000..5010).contains(&clock.now()));
        clock.heard(10);
        assert!((10..20).contains(&clock.now()));
    }
}
