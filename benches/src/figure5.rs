//! The swarm of the paper's Figure 5, plain and sealed, on the model of `swarmseal::peer::simulation`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use swarmseal::peer::simulation::{Churn, Costs, Link, Model, Outcome};

/// Operations of the slowest backend (`portable`, 2,048 bits) and hashes without special instructions: the machine of a
/// volunteer, not this one. T and PEnc take 3.8 ns a byte there, BLAKE3 1.0, SHA-1 2.0.
pub const COSTS: Costs = Costs {
    // The payload's hash, the keystream, H(Y), PEnc.
    seal: 6.8,
    // BLAKE3 of what was stored, T.
    transform: 4.8,
    // The check of every block, T, BLAKE3 of the witness's form and of what is stored.
    check_sealed: 6.1,
    check_plain: 2.0,
    // HTTP, the session, and two signatures.
    call: Duration::from_micros(300),
    key: Duration::from_micros(131),
};

/// 100 Mbit/s.
pub const TRACKER: Link = Link { up: 12.5e6, down: 12.5e6, latency: Duration::from_millis(20) };

/// Who takes part, and under which conditions. Rates are bytes a second.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// Original seeds.
    pub seeds: usize,
    /// What each seed sends.
    pub seed_rate: f64,
    /// Downloaders.
    pub peers: usize,
    /// What downloaders send: between these, evenly on a logarithmic scale.
    pub rates: (f64, f64),
    /// How many times that they can receive.
    pub down_factor: f64,
    /// Milliseconds from a node to the middle of the network: between these.
    pub latency_ms: (f64, f64),
    /// Chance that a packet is lost.
    pub loss: f64,
    /// Bytes that wait for a link before more are dropped.
    pub buffer: u64,
    /// Bytes of the object.
    pub object: u64,
    /// Seconds within which all start.
    pub joining: f64,
    /// Seconds that are looked at.
    pub seconds: f64,
}

impl Setting {
    /// The paper's, as far as it says: 640 MB, an hour, everybody there within a minute. `scale` divides the object and all
    /// times, but neither rates nor latencies: what a piece costs stays as it is.
    pub fn of_the_paper(scale: f64) -> Self {
        Setting {
            seeds: 4,
            seed_rate: 200e3,
            peers: 120,
            rates: (64e3, 256e3),
            down_factor: 4.0,
            latency_ms: (10.0, 60.0),
            loss: 0.001,
            buffer: 96 << 10,
            object: (640e6 / scale) as u64,
            joining: 60.0 / scale,
            seconds: 3600.0 / scale,
        }
    }

    /// The links of the seeds, and of the downloaders.
    pub fn links(&self, seed: u64) -> (Vec<Link>, Vec<Link>) {
        let mut state = seed ^ 0x2008_0005;
        let mut fraction = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let (near, far) = self.latency_ms;
        let mut link = |low: f64, high: f64| {
            let up = low * (high / low).powf(fraction());
            let latency = Duration::from_secs_f64((near + (far - near) * fraction()) / 1e3);
            Link { up, down: up * self.down_factor, latency }
        };
        let seeds = (0..self.seeds).map(|_| link(self.seed_rate, self.seed_rate)).collect();
        (seeds, (0..self.peers).map(|_| link(self.rates.0, self.rates.1)).collect())
    }

    /// One run. `seed`: of the links and of everything else that is drawn.
    pub fn model(&self, piece_len: u32, sealed: bool, churn: Option<Churn>, seed: u64) -> Model {
        let (seeds, peers) = self.links(seed);
        Model {
            sealed,
            piece_len,
            pieces: (self.object / u64::from(piece_len)).max(1) as u32,
            seeds,
            peers,
            tracker: TRACKER,
            joining: Duration::from_secs_f64(self.joining),
            horizon: Duration::from_secs_f64(self.seconds),
            loss: self.loss,
            buffer: self.buffer,
            costs: COSTS,
            away: None,
            churn,
            max_connections: 50,
            names_ahead: true,
            seed,
        }
    }
}

/// Runs all models, on as many threads as there are processors, in whatever order; the outcomes in theirs. `done` is told
/// how many are finished.
pub fn run_all(models: &[Model], done: impl Fn(usize) + Sync) -> Vec<Outcome> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(models.len().max(1));
    let (next, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let outcomes = Mutex::new(vec![Outcome::default(); models.len()]);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((place, model)) = {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    models.get(place).map(|model| (place, model))
                } {
                    let outcome = model.run().unwrap_or_default();
                    outcomes.lock().expect("nobody panics with it")[place] = outcome;
                    done(finished.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    outcomes.into_inner().expect("nobody panics with it")
}

/// Two-sided 95 % points of Student's t for 1, 2, … degrees of freedom.
const STUDENT: [f64; 11] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201];

/// The mean, and half the width of its 95 % confidence interval (nothing where there is one value).
pub fn mean(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let half = values.len().checked_sub(2).map(|extra| {
        let student = STUDENT.get(extra).copied().unwrap_or(1.96);
        student * (squares / (count - 1.0) / count).sqrt()
    });
    (mean, half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_within_their_bounds_and_the_same_again() {
        let setting = Setting::of_the_paper(1.0);
        let (seeds, peers) = setting.links(3);
        assert_eq!((seeds.len(), peers.len()), (4, 120));
        assert!(seeds.iter().all(|link| (link.up - 200e3).abs() < 1e-6));
        for link in &peers {
            assert!((64e3..=256e3).contains(&link.up) && (link.down - 4.0 * link.up).abs() < 1e-6);
            assert!((0.010..=0.060).contains(&link.latency.as_secs_f64()));
        }
        let mean = peers.iter().map(|link| link.up).sum::<f64>() / 120.0;
        // 192 / ln 4.
        assert!((120e3..157e3).contains(&mean), "{mean}");
        assert_eq!(format!("{peers:?}"), format!("{:?}", setting.links(3).1));
        assert_ne!(format!("{peers:?}"), format!("{:?}", setting.links(4).1));
    }

    #[test]
    fn models_run_in_parallel_as_they_do_alone() {
        let small = Setting { seeds: 1, peers: 3, joining: 1.0, ..Setting::of_the_paper(400.0) };
        let small = Setting { seconds: 600.0, ..small };
        let models: Vec<Model> =
            (0..4).map(|seed| small.model(32 << 10, seed % 2 == 0, None, seed)).collect();
        let alone: Vec<Outcome> = models.iter().map(|model| model.run().unwrap()).collect();
        assert_eq!(run_all(&models, |_| {}), alone);
        assert!(alone.iter().all(|outcome| outcome.completed == 3), "{alone:?}");
    }

    #[test]
    fn a_mean_has_its_interval() {
        assert_eq!(mean(&[2.0]), (2.0, None));
        let (mean, half) = mean(&[1.0, 2.0, 3.0]);
        assert!((mean - 2.0).abs() < 1e-12 && (half.unwrap() - 4.303 / 3.0_f64.sqrt()).abs() < 1e-9);
    }
}
