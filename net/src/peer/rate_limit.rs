//! Limits on bytes per second for all connections of a node together.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// A token bucket that holds a fifth of a second's worth.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: Option<f64>,
    /// When the bytes taken so far will have been paid for.
    paid_at: Mutex<Instant>,
}

impl RateLimit {
    const BURST: Duration = Duration::from_millis(200);

    /// `None`: no limit.
    pub(crate) fn new(per_second: Option<u64>) -> Self {
        let per_second = per_second.map(|rate| rate.max(1) as f64);
        RateLimit { per_second, paid_at: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` may pass. They are taken at once, so that callers queue up fairly.
    pub(crate) async fn take(&self, bytes: usize) {
        if let Some(until) = self.reserve(Instant::now(), bytes) {
            tokio::time::sleep_until(until).await;
        }
    }

    fn reserve(&self, now: Instant, bytes: usize) -> Option<Instant> {
        let per_second = self.per_second?;
        let mut paid_at = self.paid_at.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let earliest = now.checked_sub(Self::BURST).unwrap_or(now);
        *paid_at = (*paid_at).max(earliest) + Duration::from_secs_f64(bytes as f64 / per_second);
        Some(*paid_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_over_time() {
        let limit = RateLimit::new(Some(1_000_000));
        let start = Instant::now();
        let end = (0..100).filter_map(|_| limit.reserve(start, 50_000)).last().unwrap();
        let seconds = (end - start).as_secs_f64();
        assert!((4.7..5.1).contains(&seconds), "{seconds}");
        assert_eq!(RateLimit::new(None).reserve(start, 1), None);
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let limit = RateLimit::new(Some(1_000_000));
        let later = Instant::now() + Duration::from_secs(60);
        assert!(limit.reserve(later, 1_000_000).unwrap() >= later + Duration::from_millis(799));
    }
}
