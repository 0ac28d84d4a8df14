//! Interleaved timing: every contender runs in turn, round after round, so that a change of the machine's clock or load
//! meets them all alike.

use std::time::{Duration, Instant};

/// A sample repeats its work until it should take this long.
const SAMPLE: Duration = Duration::from_millis(2);
/// However slow the work is.
const LEAST_ROUNDS: usize = 5;

/// Somebody whose work is timed.
pub struct Contender<'a> {
    work: Box<dyn FnMut() -> f64 + 'a>,
}

impl<'a> Contender<'a> {
    /// `work` returns how many units it did: what the time is divided by.
    pub fn new(work: impl FnMut() -> f64 + 'a) -> Self {
        Contender { work: Box::new(work) }
    }

    /// Nanoseconds a unit, over `times` repetitions.
    fn sample(&mut self, times: u32) -> f64 {
        let start = Instant::now();
        let units: f64 = (0..times).map(|_| (self.work)()).sum();
        start.elapsed().as_nanos() as f64 / units
    }

    /// How often to repeat the work in a sample. Runs it twice, the first time to warm caches and tables.
    fn repetitions(&mut self) -> u32 {
        (self.work)();
        let start = Instant::now();
        (self.work)();
        let once = start.elapsed().as_nanos().max(1);
        (SAMPLE.as_nanos() / once).clamp(1, 100_000) as u32
    }
}

/// Each contender's median nanoseconds a unit, from rounds that go on until `budget` is spent.
pub fn interleave(contenders: &mut [Contender<'_>], budget: Duration) -> Vec<f64> {
    let repetitions: Vec<u32> = contenders.iter_mut().map(Contender::repetitions).collect();
    let mut samples = vec![Vec::new(); contenders.len()];
    let start = Instant::now();
    for round in 0.. {
        if round >= LEAST_ROUNDS && start.elapsed() >= budget {
            break;
        }
        for ((contender, &times), samples) in contenders.iter_mut().zip(&repetitions).zip(&mut samples) {
            samples.push(contender.sample(times));
        }
    }
    samples.into_iter().map(median).collect()
}

/// The middle value, or the mean of the two middle ones. Panics without samples.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    if samples.len() % 2 == 1 { samples[middle] } else { (samples[middle - 1] + samples[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 100.0, 1.0]), 3.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 100.0]), 3.0);
        assert_eq!(median(vec![7.0]), 7.0);
    }

    #[test]
    fn contenders_run_in_turns_at_least_so_many_rounds() {
        let order = Cell::new(Vec::new());
        let note = |who: u8| {
            let mut seen = order.take();
            seen.push(who);
            order.set(seen);
            std::thread::sleep(SAMPLE); // so that one repetition is a sample
            1.0
        };
        let mut contenders = [Contender::new(|| note(1)), Contender::new(|| note(2))];
        let medians = interleave(&mut contenders, Duration::ZERO);
        drop(contenders);
        assert!(medians.iter().all(|&ns| ns >= SAMPLE.as_nanos() as f64));
        let order = order.take();
        let (warming, rounds) = order.split_at(4);
        assert_eq!(warming, [1, 1, 2, 2]);
        assert_eq!(rounds, [1, 2].repeat(LEAST_ROUNDS));
    }

    #[test]
    fn the_time_is_divided_by_the_units_done() {
        let slow = |units| {
            Contender::new(move || {
                std::thread::sleep(SAMPLE);
                units
            })
        };
        let medians = interleave(&mut [slow(1.0), slow(1000.0)], Duration::ZERO);
        assert!(medians[0] > 100.0 * medians[1], "{medians:?}");
    }
}
