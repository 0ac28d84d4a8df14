//! A swarm in virtual time: the peers' own state machine, many times over, on a model of the links between them.
//!
//! Real: every decision of every peer (`state`), the messages with their encoded sizes, tickets with
//! their signatures. Modelled: the links and TCP (`network`), the tracker's answers (a queue at one core), the time
//! that hashing and transforming take. Left out: the pieces' bytes (they are all zeros, and nothing is checked), disks,
//! obfuscation, ordinary clients.
//!
//! A run depends on nothing but its [`Model`]: the same one always ends the same way.

mod network;
mod world;

use std::ops::Range;
use std::time::Duration;

pub use super::state::strangers::{among_strangers, whole_story};

/// How a peer is connected.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Bytes a second that it sends at most, packets' headers included.
    pub up: f64,
    /// Bytes a second that it receives at most.
    pub down: f64,
    /// Time from the peer to the middle of the network: a round trip takes twice the sum of both ends'.
    pub latency: Duration,
}

/// What a peer's processor needs.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// To make a sealed piece ready at an original seed (packaging, PEnc), for each byte.
    pub seal: NanosPerByte,
    /// To make a sealed piece ready at a peer (T, and BLAKE3 of what is stored), for each byte.
    pub transform: NanosPerByte,
    /// To check a sealed piece that came (blocks, T, BLAKE3 twice), for each byte.
    pub check_sealed: NanosPerByte,
    /// To check a plain piece that came (SHA-1), for each byte.
    pub check_plain: NanosPerByte,
    /// The tracker's, for each call for keys.
    pub call: Duration,
    /// The tracker's, for each key.
    pub key: Duration,
}

/// Nanoseconds a byte.
pub type NanosPerByte = f64;

/// How peers come and go. Times are means of an exponential distribution.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// How long a peer stays that is not complete. Half of them say goodbye; the others just vanish.
    pub stays: Duration,
    /// How long a complete peer stays.
    pub seeds_on: Duration,
    /// How long its place is empty. Half of those who were not complete come back with what they had; all others are
    /// replaced by somebody with nothing.
    pub away: Duration,
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Model {
    /// Whether the torrent is sealed.
    pub sealed: bool,
    /// Bytes of a piece: whole blocks of 16 KiB.
    pub piece_len: u32,
    /// How many there are.
    pub pieces: u32,
    /// Who has everything from the start.
    pub seeds: Vec<Link>,
    /// Who has nothing.
    pub peers: Vec<Link>,
    /// The tracker's.
    pub tracker: Link,
    /// Everybody starts at some moment within this time, the seeds at once.
    pub joining: Duration,
    /// The end at the latest. Without churn, it ends when all have everything.
    pub horizon: Duration,
    /// Chance that a packet is lost.
    pub loss: f64,
    /// Bytes that wait for a link before more are dropped.
    pub buffer: u64,
    /// Processors.
    pub costs: Costs,
    /// When the tracker answers no calls for keys.
    pub away: Option<Range<Duration>>,
    /// Whether peers come and go.
    pub churn: Option<Churn>,
    /// Connections of a peer at most.
    pub max_connections: usize,
    /// Whether downloaders say what they will ask for next, as ours do.
    pub names_ahead: bool,
    /// Of everything that is drawn.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// Pieces that all downloaders stored.
    pub stored: u64,
    /// Downloaders that got everything.
    pub completed: u64,
    /// Downloaders that went away before they had everything.
    pub left: u64,
    /// Bytes of blocks that the original seeds sent.
    pub sent_by_seeds: u64,
    /// Calls for keys, and keys.
    pub key_calls: u64,
    /// Keys.
    pub keys: u64,
    /// Time that all calls for keys took together, from the question to the answer.
    pub key_time: Duration,
    /// Sealed pieces that were begun to be asked for.
    pub asked: u64,
    /// Those of them whose keys were at the uploader by then.
    pub keyed: u64,
    /// Calls for witness keys.
    pub witness_calls: u64,
    /// Witness keys.
    pub witness_keys: u64,
    /// Pieces that downloaders began to ask for.
    pub requested: u64,
    /// Those of them that waited for a witness key.
    pub awaited_key: u64,
    /// Bytes that all peers sent to each other and to the tracker beside the content in blocks, announces left out.
    pub overhead: u64,
}

impl Model {
    /// Bytes of content in a piece.
    pub fn payload(&self) -> u64 {
        // SCHEME.md: a sealed piece carries the masked key of its package.
        u64::from(self.piece_len) - if self.sealed { 32 } else { 0 }
    }

    /// Runs it. `None` where there are no pieces, or they are not of whole blocks.
    pub fn run(&self) -> Option<Outcome> {
        world::World::new(self).map(world::World::run)
    }
}

impl Outcome {
    /// Bytes of content a second that all downloaders got together.
    pub fn throughput(&self, model: &Model) -> f64 {
        (self.stored * model.payload()) as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(up: f64) -> Link {
        Link { up, down: 4.0 * up, latency: Duration::from_millis(20) }
    }

    fn model(sealed: bool) -> Model {
        Model {
            sealed,
            piece_len: 32 << 10,
            pieces: 64,
            seeds: vec![link(200e3); 2],
            peers: vec![link(200e3); 6],
            tracker: link(10e6),
            joining: Duration::from_secs(5),
            horizon: Duration::from_secs(600),
            loss: 0.001,
            buffer: 96 << 10,
            costs: Costs {
                seal: 8.0,
                transform: 5.0,
                check_sealed: 1.0,
                check_plain: 2.0,
                call: Duration::from_micros(100),
                key: Duration::from_micros(100),
            },
            away: None,
            churn: None,
            max_connections: 50,
            names_ahead: true,
            seed: 1,
        }
    }

    #[test]
    fn a_plain_and_a_sealed_swarm_complete() {
        for sealed in [false, true] {
            let model = model(sealed);
            let outcome = model.run().unwrap();
            assert_eq!((outcome.stored, outcome.completed), (6 * 64, 6), "{outcome:?}");
            assert!(outcome.elapsed < Duration::from_secs(60), "{outcome:?}");
            // Every piece has left a seed, and the links bound the whole.
            assert!(outcome.sent_by_seeds >= 64 * (32 << 10));
            assert!(outcome.throughput(&model) < 8.0 * 200e3);
            assert_eq!(outcome.keys > 0, sealed);
            assert_eq!(outcome.key_calls > 0, sealed);
        }
    }

    #[test]
    fn a_run_can_be_repeated() {
        let model = Model { pieces: 24, ..model(true) };
        assert_eq!(model.run(), model.run());
        let other = Model { seed: 2, ..model.clone() };
        assert_ne!(model.run(), other.run());
    }

    #[test]
    fn a_slow_tracker_costs_throughput() {
        let costs = Costs { key: Duration::from_millis(300), ..model(true).costs };
        let (quick, slow) = (model(true), Model { costs, ..model(true) });
        let [quick, slow] = [quick, slow].map(|model| model.run().unwrap());
        assert!(slow.elapsed > 2 * quick.elapsed, "{slow:?} {quick:?}");
        assert!(slow.key_time / slow.key_calls as u32 > Duration::from_millis(300));
    }

    #[test]
    fn witness_keys_hold_up_nothing_and_sealing_sends_little_beside_the_content() {
        for (piece_len, pieces, most) in [(32 << 10, 1024, 0.010), (256 << 10, 128, 0.003)] {
            let model = Model { piece_len, pieces, peers: vec![link(200e3); 12], ..model(true) };
            let [sealed, plain] =
                [true, false].map(|sealed| Model { sealed, ..model.clone() }.run().unwrap());
            assert_eq!((sealed.completed, plain.completed), (12, 12), "{sealed:?} {plain:?}");
            let beside = |of: &Outcome| of.overhead as f64 / (of.stored * u64::from(piece_len)) as f64;
            let added = beside(&sealed) - beside(&plain);
            assert!(added <= most, "{added} at {piece_len}: {sealed:?} {plain:?}");
            let waited = sealed.awaited_key as f64 / sealed.requested as f64;
            assert!(waited <= 0.01, "{waited} at {piece_len}: {sealed:?}");
        }
    }

    #[test]
    fn a_tracker_that_is_away_for_20_seconds_costs_a_download_no_rate() {
        let seconds = Duration::from_secs;
        let model = Model { pieces: 2048, seeds: vec![link(200e3)], peers: vec![link(200e3)], ..model(true) };
        let away = Model { away: Some(seconds(20)..seconds(40)), ..model.clone() };
        let [with, without] = [&away, &model].map(|model| model.run().unwrap());
        assert!(without.elapsed > seconds(60), "{without:?}");
        assert!(with.elapsed < without.elapsed + seconds(2), "{:?} {:?}", with.elapsed, without.elapsed);
    }

    #[test]
    fn peers_come_and_go() {
        let churn = Churn {
            stays: Duration::from_secs(10),
            seeds_on: Duration::from_secs(5),
            away: Duration::from_secs(2),
        };
        for sealed in [false, true] {
            let model = Model { churn: Some(churn), horizon: Duration::from_secs(90), ..model(sealed) };
            let outcome = model.run().unwrap();
            assert_eq!(outcome.elapsed, model.horizon);
            assert!(outcome.left > 5 && outcome.completed > 5, "{outcome:?}");
        }
    }

    #[test]
    fn what_somebody_waits_for_comes_first() {
        for sealed in [false, true] {
            let model = Model { pieces: 256, ..model(sealed) };
            let read = |asks: bool| {
                let mut world = world::World::new(&model).unwrap();
                let (peer, from) = (model.seeds.len(), 150);
                world.reader = Some(world::Reader { peer, from, asks, ..world::Reader::default() });
                let outcome = world.run_to_the_end();
                assert_eq!(outcome.completed, 6, "{outcome:?}");
                (world.reader.unwrap(), outcome)
            };
            let (patient, without) = read(false);
            assert_eq!(Some(without), model.run());
            let (reader, with) = read(true);
            let (patient, reads) = (patient.has_read(8).unwrap(), reader.has_read(8).unwrap());
            assert!(3 * reads < patient, "sealed {sealed}: {reads:?} {patient:?}");
            // One after the other, but for what is on its way already.
            let first = reader.has_read(1).unwrap();
            let before = reader.stored.values().filter(|&&time| time < first).count();
            assert!(before <= 16, "sealed {sealed}: {before} came before the first");
            // The others lose little by it.
            assert!(with.elapsed < without.elapsed * 5 / 4, "{with:?} {without:?}");
        }
    }

    #[test]
    fn impossible_shapes_are_refused() {
        assert_eq!(Model { pieces: 0, ..model(true) }.run(), None);
        assert_eq!(Model { piece_len: 1000, ..model(true) }.run(), None);
    }
}
