//! One round: something is published and spread, things go wrong, they stop going wrong, every licensed copy is opened.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use swarmseal::wire::metainfo::Metainfo;

use crate::chaos::Chaos;
use crate::hostile::{Scene, Sent};
use crate::process::Process;
use crate::random::Random;
use crate::world::{END, STEP, World, free_address, read_log};
use crate::{Report, content};

/// How long the peers have, in peace, to get what is missing.
const SETTLE: Duration = Duration::from_secs(240);
/// How often a licensed peer may have to fetch bad pieces again.
const REPAIRS: u32 = 25;
/// MiB that a peer, seed or tracker may have resident: the bound of what is made ready for others is 128 MiB, and of what
/// waits for the disk 64 MiB.
const MEMORY: u64 = 400;

/// What a round is to be.
pub(crate) struct Plan {
    pub(crate) number: u32,
    pub(crate) peers: usize,
    pub(crate) hostile: usize,
    pub(crate) bytes: u64,
    pub(crate) chaos: Duration,
}

/// A process that comes and goes.
#[derive(Debug)]
pub(crate) enum State {
    Running(Process),
    /// SIGSTOP.
    Stopped(Process),
    Down,
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
    seed_address: SocketAddr,
    pub(crate) seed: State,
    pub(crate) peers: Vec<Peer>,
    pub(crate) scene: Scene,
}

/// Runs it. An error is a loss, as is what it adds to the report's failures.
pub(crate) async fn run(
    world: &mut World,
    plan: &Plan,
    mut random: Random,
    report: &mut Report,
) -> Result<()> {
    let mut round = Round::prepare(world, plan, &mut random).await.context("before any chaos")?;
    eprintln!("round {}: {} licensed peers", plan.number, plan.peers);
    round.start_seed(world)?;
    (0..round.peers.len()).try_for_each(|peer| round.start_peer(world, peer))?;
    Chaos::new(plan, random.fork()).run(world, &mut round, report).await?;
    for (kind, pieces) in round.scene.sent.take() {
        *report.hostile.entry(format!("{kind}: pieces sent")).or_default() += pieces;
    }
    round.settle(world, report).await?;
    let opened = round.verify(world, report).await;
    round.end(report).await?;
    opened
}

impl Round {
    async fn prepare(world: &World, plan: &Plan, random: &mut Random) -> Result<Self> {
        let dir = world.path(&format!("round-{}", plan.number));
        let path = |name: &str| dir.join(name).display().to_string();
        content::write(&dir.join("content"), plan.bytes, random)?;
        let (source, torrent, seed_file) = (path("content"), path("film.torrent"), path("film.seed"));
        let (publisher, token, url) = (dir.join("publisher"), world.token(), world.url.clone());
        let piece_length = *random.one(&["64K", "128K", "256K"]);
        let admin = ["--tracker", &url, "--admin-token-file", &token];
        let publish = ["publish", &source, "--output", &torrent, "--seed-file", &seed_file];
        let args = [&publish[..], &["--piece-length", piece_length], &admin].concat();
        world.expect("publish", &publisher, &args).await?;
        let devices = plan.peers.to_string();
        let args = [&["voucher", &torrent, "--devices", &devices][..], &admin].concat();
        let voucher = world.expect("voucher", &publisher, &args).await?;
        let code = voucher["code"].as_str().context("no code")?;
        let mut peers = Vec::new();
        for number in 0..=plan.peers {
            let licensed = number < plan.peers;
            let name = if licensed { format!("peer-{}", number + 1) } else { "unlicensed".to_owned() };
            let data = dir.join(&name);
            let license = ["license", &torrent, "--voucher", code];
            let args = if licensed { &license[..] } else { &["subscribe", &torrent] };
            world.expect(&name, &data, args).await?;
            let (address, clock) = (free_address(random)?, None);
            let (state, was_complete) = (State::Down, false);
            peers.push(Peer { name, data, address, licensed, clock, state, was_complete });
        }
        let seed_address = free_address(random)?;
        let bytes = fs::read(&torrent)?;
        let metainfo = Metainfo::from_bytes(&bytes, swarmseal_accel::detect())?;
        let scene = Scene {
            metainfo: Arc::new(metainfo),
            targets: peers.iter().map(|peer| peer.address).chain([seed_address]).collect(),
            sent: Sent::default(),
        };
        Ok(Round { dir, torrent, seed_file, seed_address, seed: State::Down, peers, scene })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// It is slow enough that peers must get most of it from each other, and that there is time for chaos.
    pub(crate) fn start_seed(&mut self, world: &World) -> Result<()> {
        let listen = self.seed_address.to_string();
        let seed = ["seed", &self.seed_file, "--listen", &listen, "--upload-limit", "1500K"];
        let data = self.path("seed");
        self.seed = State::Running(Process::start(&world.program, "seed", &data, &seed, None)?);
        Ok(())
    }

    pub(crate) fn start_peer(&mut self, world: &World, peer: usize) -> Result<()> {
        let torrent = self.torrent.clone();
        let peer = &mut self.peers[peer];
        let listen = peer.address.to_string();
        let args = ["get", &torrent, "--listen", &listen, "--download-limit", "700K"];
        peer.state =
            State::Running(Process::start(&world.program, &peer.name, &peer.data, &args, peer.clock)?);
        Ok(())
    }

    /// Everybody goes on in peace and gets what is missing.
    async fn settle(&mut self, world: &mut World, report: &mut Report) -> Result<()> {
        if world.tracker.is_none() {
            world.start_tracker()?;
        }
        world.tracker_listens().await?;
        match std::mem::replace(&mut self.seed, State::Down) {
            State::Down => self.start_seed(world)?,
            State::Stopped(process) => {
                process.signal("CONT").await?;
                self.seed = State::Running(process);
            }
            running => self.seed = running,
        }
        for peer in 0..self.peers.len() {
            match std::mem::replace(&mut self.peers[peer].state, State::Down) {
                State::Down => self.start_peer(world, peer)?,
                State::Stopped(process) => {
                    process.signal("CONT").await?;
                    self.peers[peer].state = State::Running(process);
                }
                running => self.peers[peer].state = running,
            }
        }
        let start = Instant::now();
        for peer in &mut self.peers {
            if let State::Running(process) = &mut peer.state {
                let left = SETTLE.saturating_sub(start.elapsed()).max(Duration::from_secs(1));
                if let Err(error) = process.until(left, |said| said.complete).await {
                    report.fail(format!("{} does not get everything: {error:#}", self.dir.display()));
                }
            }
        }
        eprintln!("all complete {:.0} s after the chaos", start.elapsed().as_secs_f64());
        Ok(())
    }

    /// Opens every licensed copy, and again after a repair of any.
    async fn verify(&mut self, world: &World, report: &mut Report) -> Result<()> {
        for peer in 0..self.peers.len() {
            if self.peers[peer].licensed {
                self.open(world, peer, report).await?;
            }
        }
        // They have gone on meanwhile: a piece whose sender has vanished is fetched again, from a peer that was not repaired yet
        // perhaps. Now that everybody is, all of it is looked at as it stays.
        for peer in 0..self.peers.len() {
            self.stop(peer, report).await?;
            if self.peers[peer].licensed {
                self.open(world, peer, report).await?;
                let bytes = content::compare(&self.path("content"), &self.peers[peer].data.join("opened"))?;
                report.copies += 1;
                report.bytes += bytes;
            }
            let _ = fs::remove_dir_all(self.peers[peer].data.join("opened"));
        }
        Ok(())
    }

    /// Plays, and repairs until the player is content; a peer that had to be repaired goes on as it was before.
    async fn open(&mut self, world: &World, peer: usize, report: &mut Report) -> Result<()> {
        let (name, data) = (self.peers[peer].name.clone(), self.peers[peer].data.clone());
        let (opened, torrent) = (data.join("opened"), self.torrent.clone());
        let to = opened.display().to_string();
        let was_running = matches!(self.peers[peer].state, State::Running(_));
        for _ in 0..REPAIRS {
            let play = ["play", &torrent, "--output", &to, "--force"];
            let (code, last) = world.call(&name, &data, &play, STEP).await?;
            if code == 0 {
                if was_running && matches!(self.peers[peer].state, State::Down) {
                    self.start_peer(world, peer)?;
                }
                return content::compare(&self.path("content"), &opened).map(|_| ());
            }
            // Corrupt, or missing.
            ensure!(code == 10 || code == 11, "{name}: play: {last}");
            self.stop(peer, report).await?;
            report.repairs += 1;
            let listen = self.peers[peer].address.to_string();
            let get = ["get", &torrent, "--listen", &listen, "--repair", "--exit"];
            let (code, last) = world.call(&name, &data, &get, 2 * STEP).await?;
            ensure!(code == 0, "{name}: get --repair: {last}");
        }
        anyhow::bail!("{name}: still corrupt after {REPAIRS} repairs")
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

    async fn end(mut self, report: &mut Report) -> Result<()> {
        for peer in 0..self.peers.len() {
            self.stop(peer, report).await?;
        }
        if let State::Running(process) = std::mem::replace(&mut self.seed, State::Down) {
            note(&process, "seed", report);
            process.terminate(END).await?;
        }
        let honest = self.peers.iter().map(|peer| peer.address).chain([self.seed_address]);
        let honest: Vec<IpAddr> = honest.map(|address| address.ip()).collect();
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
