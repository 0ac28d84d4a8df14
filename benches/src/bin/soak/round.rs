//! One round: something is published and spread, things go wrong, they stop going wrong, every copy is opened.

use std::fs::{self, OpenOptions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use swarmseal::wire::metainfo::Metainfo;

use crate::hostile::{Hostile, Kind, Scene, Sent};
use crate::process::Process;
use crate::random::Random;
use crate::world::{END, STEP, World, free_address, read_log};
use crate::{Report, content};

/// How long the peers have, in peace, to get what is missing.
const SETTLE: Duration = Duration::from_secs(240);
/// MiB that a peer, seed or tracker may have resident: the bound of what is made ready for others is 128 MiB, and of what
/// waits for the disk 64 MiB.
const MEMORY: u64 = 400;
/// Bytes a second that the seed sends: peers must get most of it from each other, and there is time for chaos.
const UPLOAD: u64 = 1500 << 10;
/// Bytes a second that a peer receives.
pub(crate) const DOWNLOAD: u64 = 700 << 10;
/// Places at which a bad disk changes the content, and the exit code of a program that cannot reach the tracker.
const BAD_PLACES: usize = 16;
const NO_TRACKER: i32 = 3;

/// What a round is to be.
pub(crate) struct Plan {
    /// Of its directory.
    pub(crate) name: String,
    pub(crate) licensed: usize,
    pub(crate) unlicensed: usize,
    pub(crate) bytes: u64,
    /// One of these is chosen.
    pub(crate) piece_lengths: &'static [&'static str],
}

/// A process that comes and goes.
#[derive(Debug)]
pub(crate) enum State {
    Running(Process),
    /// SIGSTOP.
    Stopped(Process),
    Down,
}

impl State {
    /// Lets a stopped process run on.
    pub(crate) async fn resume(&mut self) -> Result<()> {
        match std::mem::replace(self, State::Down) {
            State::Stopped(process) => {
                process.signal("CONT").await?;
                *self = State::Running(process);
            }
            other => *self = other,
        }
        Ok(())
    }
}

/// An honest peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) data: PathBuf,
    pub(crate) address: SocketAddr,
    licensed: bool,
    /// How its clock is wrong.
    pub(crate) clock: Option<&'static str>,
    pub(crate) state: State,
    /// Whether it had everything at some time.
    pub(crate) was_complete: bool,
}

/// What a round consists of.
pub(crate) struct Round {
    dir: PathBuf,
    torrent: String,
    seed_file: String,
    voucher: String,
    pub(crate) seed: State,
    pub(crate) peers: Vec<Peer>,
    pub(crate) scene: Scene,
    /// What a bad disk changed of the film, and where.
    changed: Vec<(u64, Vec<u8>)>,
    /// The newest epoch, as far as somebody began one.
    epoch: u64,
}

impl Round {
    pub(crate) async fn prepare(world: &World, plan: &Plan, random: &mut Random) -> Result<Self> {
        let dir = world.path(&plan.name);
        let path = |name: &str| dir.join(name).display().to_string();
        content::write(&dir.join("content"), plan.bytes, random)?;
        let (source, torrent, seed_file) = (path("content"), path("film.torrent"), path("film.seed"));
        let publisher = dir.join("publisher");
        let piece_length = *random.one(plan.piece_lengths);
        let publish = ["publish", &source, "--output", &torrent, "--seed-file", &seed_file];
        let args = [&publish[..], &["--piece-length", piece_length]].concat();
        world.administer("publish", &publisher, &args).await?;
        let all = plan.licensed + plan.unlicensed;
        let args = ["voucher", &torrent, "--devices", &all.to_string()];
        let voucher = world.administer("voucher", &publisher, &args).await?;
        let voucher = voucher["code"].as_str().context("no code")?.to_owned();
        let mut peers = Vec::new();
        for number in 0..all {
            let licensed = number < plan.licensed;
            let name = format!("{}-{}", if licensed { "licensed" } else { "unlicensed" }, number + 1);
            let data = dir.join(&name);
            let license = ["license", &torrent, "--voucher", &voucher];
            let args = if licensed { &license[..] } else { &["subscribe", &torrent] };
            world.expect(&name, &data, args).await?;
            let (address, clock) = (free_address(random)?, None);
            peers.push(Peer {
                name,
                data,
                address,
                licensed,
                clock,
                state: State::Down,
                was_complete: false,
            });
        }
        let seed = free_address(random)?;
        let metainfo = Metainfo::from_bytes(&fs::read(&torrent)?, swarmseal_accel::detect())?;
        let scene = Scene {
            metainfo: Arc::new(metainfo),
            seed,
            targets: peers.iter().map(|peer| peer.address).chain([seed]).collect(),
            sent: Sent::default(),
        };
        let (changed, epoch) = (Vec::new(), 1);
        Ok(Round { dir, torrent, seed_file, voucher, seed: State::Down, peers, scene, changed, epoch })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Starts the seed and all peers.
    pub(crate) fn start(&mut self, world: &World) -> Result<()> {
        self.start_seed(world)?;
        (0..self.peers.len()).try_for_each(|peer| self.start_peer(world, peer))
    }

    pub(crate) fn start_seed(&mut self, world: &World) -> Result<()> {
        let (listen, limit) = (self.scene.seed.to_string(), UPLOAD.to_string());
        let args = ["seed", &self.seed_file, "--listen", &listen, "--upload-limit", &limit];
        let data = self.path("seed");
        self.seed = State::Running(Process::start(&world.program, "seed", &data, &args, None)?);
        Ok(())
    }

    pub(crate) fn start_peer(&mut self, world: &World, peer: usize) -> Result<()> {
        let peer = &mut self.peers[peer];
        let (listen, limit) = (peer.address.to_string(), DOWNLOAD.to_string());
        let args = ["get", &self.torrent, "--listen", &listen, "--download-limit", &limit];
        peer.state =
            State::Running(Process::start(&world.program, &peer.name, &peer.data, &args, peer.clock)?);
        Ok(())
    }

    /// A hostile member joins.
    pub(crate) fn join(&self, number: u64, kind: Kind, random: &mut Random) -> Result<Hostile> {
        let data = self.path(&format!("hostile-{number}"));
        Ok(Hostile::join(number, kind, self.scene.clone(), free_address(random)?, data, random.fork()))
    }

    /// Counts what the hostile members sent.
    pub(crate) fn count_sent(&self, report: &mut Report) {
        for (what, count) in self.scene.sent.take() {
            *report.hostile.entry(what).or_default() += count;
        }
    }

    /// The seed's disk goes bad: what it reads at some places is something else.
    pub(crate) fn break_disk(&mut self, random: &mut Random) -> Result<()> {
        let film = OpenOptions::new().read(true).write(true).open(self.path("content/film.bin"))?;
        let length = film.metadata()?.len();
        for _ in 0..BAD_PLACES {
            let at = random.below(length);
            let mut bytes = vec![0; random.between(1, length / 32 + 1).min(length - at) as usize];
            film.read_exact_at(&mut bytes, at)?;
            self.changed.push((at, bytes.clone()));
            random.fill(&mut bytes);
            film.write_all_at(&bytes, at)?;
        }
        Ok(())
    }

    /// The disk is as it was.
    pub(crate) fn mend_disk(&mut self) -> Result<()> {
        let film = OpenOptions::new().write(true).open(self.path("content/film.bin"))?;
        // Places may overlap: the last change is undone first.
        while let Some((at, bytes)) = self.changed.pop() {
            film.write_all_at(&bytes, at)?;
        }
        Ok(())
    }

    /// Begins another epoch, or retires all before the newest; false where the tracker is down.
    pub(crate) async fn change_epoch(&mut self, world: &World, retire: bool) -> Result<bool> {
        if world.tracker.as_ref().is_none_or(|tracker| tracker.said().listening.is_none()) {
            return Ok(false);
        }
        let epoch = self.epoch.to_string();
        let retiring = ["--retire-before", &epoch];
        let args = [&["epochs", &self.torrent][..], if retire { &retiring } else { &["--begin"] }].concat();
        let args = [&args[..], &world.admin()].concat();
        let (code, last) = world.call("epochs", &self.path("publisher"), &args, STEP).await?;
        if code == NO_TRACKER {
            return Ok(false);
        }
        ensure!(code == 0, "{args:?}: {last}");
        self.epoch = last["current"].as_u64().context("no current epoch")?;
        Ok(true)
    }

    /// Ends the chaos: mends the seed's disk, restarts every peer, and waits until all are complete. A peer has to be restarted, as it
    /// refuses the address of a seed whose disk was bad for the rest of its run.
    pub(crate) async fn settle(&mut self, world: &mut World, report: &mut Report) -> Result<()> {
        self.mend_disk()?;
        if world.tracker.is_none() {
            world.start_tracker()?;
        }
        world.tracker_listens().await?;
        self.seed.resume().await?;
        if matches!(self.seed, State::Down) {
            self.start_seed(world)?;
        }
        for peer in 0..self.peers.len() {
            self.peers[peer].state.resume().await?;
            if let Err(error) = self.stop(peer, report).await {
                report.fail(format!("{error:#}"));
            }
            self.start_peer(world, peer)?;
        }
        let took = self.all_complete(SETTLE, report).await;
        eprintln!("all complete {:.0} s after the chaos", took.as_secs_f64());
        Ok(())
    }

    /// Waits until every peer that runs has everything, which is a failure where it takes longer; how long it took.
    pub(crate) async fn all_complete(&mut self, within: Duration, report: &mut Report) -> Duration {
        let start = Instant::now();
        for peer in &mut self.peers {
            if let State::Running(process) = &mut peer.state {
                let left = within.saturating_sub(start.elapsed()).max(Duration::from_secs(1));
                if let Err(error) = process.until(left, |said| said.complete).await {
                    report.fail(format!("{} does not get everything: {error:#}", self.dir.display()));
                }
            }
        }
        start.elapsed()
    }

    /// Opens every copy, while its peer goes on, and compares it byte for byte. Peers that have no license get one for it.
    pub(crate) async fn verify(&mut self, world: &World, report: &mut Report) {
        for peer in &self.peers {
            match self.open(world, peer).await {
                Ok(bytes) => {
                    report.copies += 1;
                    report.bytes += bytes;
                }
                Err(error) => report.fail(format!("{}: {error:#}", self.dir.display())),
            }
        }
    }

    /// What was stored was checked as it came: the first look at it finds nothing wrong.
    async fn open(&self, world: &World, peer: &Peer) -> Result<u64> {
        let opened = peer.data.join("opened");
        let to = opened.display().to_string();
        let play = ["play", &self.torrent, "--output", &to, "--no-fetch"];
        let voucher: &[&str] = if peer.licensed { &[] } else { &["--voucher", &self.voucher] };
        world.expect(&peer.name, &peer.data, &[&play[..], voucher].concat()).await?;
        let bytes = content::compare(&self.path("content"), &opened)?;
        fs::remove_dir_all(&opened)?;
        Ok(bytes)
    }

    /// Ends a peer's process politely.
    async fn stop(&mut self, peer: usize, report: &mut Report) -> Result<()> {
        let peer = &mut self.peers[peer];
        if let State::Running(process) = std::mem::replace(&mut peer.state, State::Down) {
            note(&process, "peer", report);
            process.terminate(END).await?;
        }
        Ok(())
    }

    pub(crate) async fn end(mut self, report: &mut Report) -> Result<()> {
        for peer in 0..self.peers.len() {
            self.stop(peer, report).await?;
        }
        if let State::Running(process) = std::mem::replace(&mut self.seed, State::Down) {
            note(&process, "seed", report);
            process.terminate(END).await?;
        }
        // The seed's disk was bad for a while.
        let honest: Vec<IpAddr> = self.peers.iter().map(|peer| peer.address.ip()).collect();
        for peer in &self.peers {
            read_log(&peer.data, &honest, report)?;
        }
        read_log(&self.path("seed"), &honest, report)
    }
}

/// What a process is remembered by, before it ends.
pub(crate) fn note(process: &Process, role: &str, report: &mut Report) {
    let peak = process.peak_mib();
    if peak > MEMORY {
        report.fail(format!("{} has had {peak} MiB resident: expected at most {MEMORY}", process.name));
    }
    report.peak(role, peak);
    report.refused += process.said().refused;
}
