//! What goes wrong in a round, and when: planned by chance alone, so that the same seed plans the same.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep_until};

use crate::Report;
use crate::damage::Damage;
use crate::hostile::{Hostile, Kind};
use crate::process::faketime;
use crate::random::Random;
use crate::round::{Round, State, note};
use crate::world::{END, World};

/// The clocks of peers, as `faketime` understands them: right, minutes or days off, fast and slow.
const CLOCKS: [(u64, Option<&str>); 7] = [
    (4, None),
    (1, Some("+5m")),
    (1, Some("-5m")),
    (1, Some("+3d")),
    (1, Some("-3d")),
    (1, Some("+0 x1.5")),
    (1, Some("+0 x0.7")),
];

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    KillPeer,
    EndPeer,
    StopPeer,
    /// For longer than any patience that others have.
    FreezePeer,
    KillSeed,
    StopSeed,
    KillTracker,
    EndTracker,
    Join,
    Leave,
}

const MISHAPS: [(u64, Mishap); 10] = [
    (8, Mishap::KillPeer),
    (3, Mishap::EndPeer),
    (4, Mishap::StopPeer),
    (1, Mishap::FreezePeer),
    (1, Mishap::KillSeed),
    (1, Mishap::StopSeed),
    (1, Mishap::KillTracker),
    (1, Mishap::EndTracker),
    (5, Mishap::Join),
    (2, Mishap::Leave),
];

/// What was put off.
#[derive(Clone, Copy, Debug)]
enum Later {
    StartPeer(usize),
    ContinuePeer(usize),
    StartSeed,
    ContinueSeed,
    StartTracker,
    BeginEpoch,
    RetireEpochs,
    BreakDisk,
    MendDisk,
}

/// The chaos of a round.
pub(crate) struct Chaos {
    random: Random,
    /// For the content of damage and lies, so that the plan does not hang on how far anybody got.
    noise: Random,
    length: Duration,
    most_hostile: usize,
    hostile: Vec<Hostile>,
    joined: u64,
    later: Vec<(Instant, Later)>,
}

impl Chaos {
    /// `most_hostile`: members at a time.
    pub(crate) fn new(most_hostile: usize, length: Duration, mut random: Random) -> Self {
        let noise = random.fork();
        Chaos { random, noise, length, most_hostile, hostile: Vec::new(), joined: 0, later: Vec::new() }
    }

    /// Goes on until its time is over.
    pub(crate) async fn run(
        mut self,
        world: &mut World,
        round: &mut Round,
        report: &mut Report,
    ) -> Result<()> {
        let start = Instant::now();
        let end = start + self.length;
        // In the middle of a round, once.
        self.later = vec![
            (start + self.length / 4, Later::BreakDisk),
            (start + self.length / 3, Later::BeginEpoch),
            (start + self.length / 2, Later::MendDisk),
            (start + self.length * 2 / 3, Later::RetireEpochs),
        ];
        while self.hostile.len() < self.most_hostile {
            self.mishap(Mishap::Join, world, round, report).await?;
        }
        let mut next = start;
        while Instant::now() < end {
            next += Duration::from_millis(self.random.between(200, 1500));
            let mishap = self.random.weighted(&MISHAPS);
            loop {
                self.watch(world, round, report)?;
                let due = self.later.iter().map(|(when, _)| *when).min();
                let wake = due.map_or(next, |due| due.min(next)).min(Instant::now() + Duration::from_secs(1));
                sleep_until(wake).await;
                self.catch_up(world, round, report).await?;
                if Instant::now() >= next {
                    break;
                }
            }
            self.mishap(mishap, world, round, report).await?;
        }
        Ok(())
    }

    /// Nobody ends by himself.
    fn watch(&mut self, world: &mut World, round: &mut Round, report: &mut Report) -> Result<()> {
        for (index, peer) in round.peers.iter_mut().enumerate() {
            let State::Running(process) = &mut peer.state else { continue };
            if !peer.was_complete && process.said().complete {
                peer.was_complete = true;
                report.count("a peer had everything for the first time");
            }
            if let Some(status) = process.ended()? {
                report.fail(format!("{} ended by itself ({status}): {:?}", peer.name, process.said().error));
                peer.state = State::Down;
                self.later.push((Instant::now(), Later::StartPeer(index)));
            }
        }
        if let State::Running(process) = &mut round.seed
            && let Some(status) = process.ended()?
        {
            report.fail(format!("the seed ended by itself ({status}): {:?}", process.said().error));
            round.seed = State::Down;
            self.later.push((Instant::now(), Later::StartSeed));
        }
        if let Some(process) = &mut world.tracker
            && let Some(status) = process.ended()?
        {
            report.fail(format!("the tracker ended by itself ({status}): {:?}", process.said().error));
            world.tracker = None;
            self.later.push((Instant::now(), Later::StartTracker));
        }
        Ok(())
    }

    /// Does what was put off until now.
    async fn catch_up(&mut self, world: &mut World, round: &mut Round, report: &mut Report) -> Result<()> {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(when, _)| *when <= now);
        self.later = later;
        let due: Vec<(Instant, Later)> = due;
        for (_, what) in due {
            match what {
                Later::StartPeer(peer) => round.start_peer(world, peer)?,
                Later::StartSeed => round.start_seed(world)?,
                Later::StartTracker => world.start_tracker()?,
                Later::ContinuePeer(peer) => round.peers[peer].state.resume().await?,
                Later::ContinueSeed => round.seed.resume().await?,
                Later::BreakDisk => round.break_disk(&mut self.noise)?,
                Later::MendDisk => round.mend_disk()?,
                Later::BeginEpoch | Later::RetireEpochs => {
                    let retire = matches!(what, Later::RetireEpochs);
                    if !round.change_epoch(world, retire).await? {
                        // The tracker is down.
                        self.put_off(500, 1500, what);
                        continue;
                    }
                }
            }
            report.count(match what {
                Later::StartPeer(_) | Later::StartSeed | Later::StartTracker => "started again",
                Later::ContinuePeer(_) | Later::ContinueSeed => "continued",
                Later::BeginEpoch => "an epoch began",
                Later::RetireEpochs => "the epochs before it were retired",
                Later::BreakDisk => "the seed's content was changed",
                Later::MendDisk => "the seed's content was as before",
            });
        }
        Ok(())
    }

    fn put_off(&mut self, from: u64, to: u64, what: Later) {
        let when = Instant::now() + Duration::from_millis(self.random.between(from, to));
        self.later.push((when, what));
    }

    async fn mishap(
        &mut self,
        mishap: Mishap,
        world: &mut World,
        round: &mut Round,
        report: &mut Report,
    ) -> Result<()> {
        match mishap {
            Mishap::KillPeer | Mishap::EndPeer | Mishap::StopPeer | Mishap::FreezePeer => {
                self.peer(mishap, round, report).await?;
            }
            Mishap::KillSeed => match std::mem::replace(&mut round.seed, State::Down) {
                State::Running(process) => {
                    note(&process, "seed", report);
                    process.kill().await?;
                    report.count("seed killed");
                    self.put_off(0, 4000, Later::StartSeed);
                }
                other => round.seed = other,
            },
            Mishap::StopSeed => match std::mem::replace(&mut round.seed, State::Down) {
                State::Running(process) => {
                    process.signal("STOP").await?;
                    round.seed = State::Stopped(process);
                    report.count("seed stopped for a while");
                    self.put_off(500, 10_000, Later::ContinueSeed);
                }
                other => round.seed = other,
            },
            Mishap::KillTracker | Mishap::EndTracker => {
                if let Some(process) = world.tracker.take() {
                    report.peak("tracker", process.peak_mib());
                    if matches!(mishap, Mishap::KillTracker) {
                        process.kill().await?;
                        report.count("tracker killed");
                    } else {
                        if let Err(error) = process.terminate(END).await {
                            report.fail(error.to_string());
                        }
                        report.count("tracker told to end");
                    }
                    self.put_off(0, 5000, Later::StartTracker);
                }
            }
            Mishap::Join => {
                let kind = self.random.weighted(&Kind::ALL);
                let room = self.most_hostile.saturating_sub(self.hostile.len());
                for _ in 0..kind.together().min(room) {
                    self.joined += 1;
                    self.hostile.push(round.join(self.joined, kind, &mut self.noise)?);
                    *report.hostile.entry(format!("{}: members", kind.name())).or_default() += 1;
                }
            }
            Mishap::Leave => {
                let oldest = self.hostile.iter().map(|hostile| hostile.number).min();
                self.hostile.retain(|hostile| Some(hostile.number) != oldest);
            }
        }
        Ok(())
    }

    async fn peer(&mut self, mishap: Mishap, round: &mut Round, report: &mut Report) -> Result<()> {
        // Everything is drawn whether or not it is needed: the plan does not hang on who is running.
        let index = self.random.below(round.peers.len() as u64) as usize;
        let damage = (self.random.below(2) == 0).then(|| self.random.weighted(&Damage::ALL));
        let clock = self.random.weighted(&CLOCKS);
        let mut noise = self.noise.fork();
        let peer = &mut round.peers[index];
        let process = match std::mem::replace(&mut peer.state, State::Down) {
            State::Running(process) => process,
            other => {
                peer.state = other;
                return Ok(());
            }
        };
        match mishap {
            Mishap::StopPeer | Mishap::FreezePeer => {
                process.signal("STOP").await?;
                peer.state = State::Stopped(process);
                if matches!(mishap, Mishap::StopPeer) {
                    report.count("peer stopped for a while");
                    self.put_off(300, 8000, Later::ContinuePeer(index));
                } else {
                    report.count("peer stopped for more than half a minute");
                    self.put_off(35_000, 45_000, Later::ContinuePeer(index));
                }
                return Ok(());
            }
            Mishap::EndPeer => {
                note(&process, "peer", report);
                if let Err(error) = process.terminate(END).await {
                    report.fail(error.to_string());
                }
                report.count("peer told to end");
            }
            _ => {
                note(&process, "peer", report);
                process.kill().await?;
                report.count("peer killed");
            }
        }
        if let Some(damage) = damage
            && damage.apply(&peer.data, &mut noise)?
        {
            report.count(damage.name());
        }
        peer.clock = clock.filter(|_| faketime().is_some());
        if let Some(clock) = peer.clock {
            report.count(&format!("clock set wrong: {clock}"));
        }
        self.put_off(0, 4000, Later::StartPeer(index));
        Ok(())
    }
}
