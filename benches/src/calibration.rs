//! Real peers in network namespaces, beside the model with the same links.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sha1::{Digest, Sha1};
use swarmseal::peer::simulation::Link;
use swarmseal::wire::plain::PlainTorrent;

use crate::emulator::{Conditions, Lab};
use crate::figure5::{Setting, TRACKER, mean, run_all};
use crate::process::Process;

/// Port of every peer; each has an address of its own.
const PORT: u16 = 6881;
const TRACKER_PORT: u16 = 6969;
/// The tracker's node; the seeds' and the peers' follow.
const TRACKER_NODE: usize = 1;
/// Runs of the model that its figure is the mean of.
const MODEL_RUNS: u64 = 8;

/// Seconds until the last peer has everything, and until the middle one has.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Beside {
    /// KiB of a piece.
    pub piece_kib: u32,
    /// Plain or sealed.
    pub sealed: bool,
    /// Of the real peers.
    pub real_seconds: f64,
    /// Bytes of content a second, all real peers together, over that time.
    pub real_mb_s: f64,
    /// The model's, a mean.
    pub model_seconds: f64,
    /// The model's, over its time.
    pub model_mb_s: f64,
    /// Of the throughputs: model to real.
    pub ratio: f64,
}

/// Everything of one run.
pub struct Calibration<'a> {
    /// `swarmseal`.
    pub program: &'a Path,
    /// Who takes part.
    pub setting: &'a Setting,
    /// Of links and draws.
    pub seed: u64,
}

impl Calibration<'_> {
    /// Real peers and the model, plain and sealed, for each piece length. To be called in a network namespace of our own.
    /// Errors: no namespaces, or a peer that does not get everything.
    pub fn run(&self, piece_kib: &[u32]) -> Result<Vec<Beside>> {
        let (seeds, peers) = self.setting.links(self.seed);
        let links: Vec<Link> = [&[TRACKER][..], &seeds, &peers].concat();
        let conditions = Conditions { loss: self.setting.loss, buffer: self.setting.buffer };
        let lab = Lab::new(&links, conditions)?;
        let mut rows = Vec::new();
        for &piece_kib in piece_kib {
            for sealed in [false, true] {
                eprintln!("{} real peers, pieces of {piece_kib} KiB, sealed: {sealed}", self.setting.peers);
                let dir = tempfile::tempdir()?;
                let run = Run { lab: &lab, dir: dir.path(), calibration: self, piece_len: piece_kib << 10 };
                let seconds = if sealed { run.sealed()? } else { run.plain()? };
                rows.push(self.beside(piece_kib, sealed, seconds));
            }
        }
        Ok(rows)
    }

    fn beside(&self, piece_kib: u32, sealed: bool, real_seconds: f64) -> Beside {
        // The same links in all runs.
        let models: Vec<_> = (0..MODEL_RUNS)
            .map(|run| {
                let model = self.setting.model(piece_kib << 10, sealed, None, self.seed);
                swarmseal::peer::simulation::Model { seed: run, ..model }
            })
            .collect();
        let outcomes = run_all(&models, |_| {});
        let seconds: Vec<f64> = outcomes.iter().map(|outcome| outcome.elapsed.as_secs_f64()).collect();
        let model_seconds = mean(&seconds).0;
        let all = (self.content() * self.setting.peers) as f64 / 1e6;
        let (real_mb_s, model_mb_s) = (all / real_seconds, all / model_seconds);
        let ratio = model_mb_s / real_mb_s;
        Beside { piece_kib, sealed, real_seconds, real_mb_s, model_seconds, model_mb_s, ratio }
    }

    /// Bytes of the file.
    fn content(&self) -> usize {
        self.setting.object as usize
    }
}

/// One swarm.
struct Run<'a> {
    lab: &'a Lab,
    dir: &'a Path,
    calibration: &'a Calibration<'a>,
    piece_len: u32,
}

impl Run<'_> {
    fn seeds(&self) -> std::ops::Range<usize> {
        TRACKER_NODE + 1..TRACKER_NODE + 1 + self.calibration.setting.seeds
    }

    fn peers(&self) -> std::ops::Range<usize> {
        let first = self.seeds().end;
        first..first + self.calibration.setting.peers
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// One of our programs at a node, with data of its own.
    fn at(&self, node: usize, args: &[&str]) -> Command {
        let mut command = self.lab.at(node, self.calibration.program);
        // The lab's hosts are not this one.
        command.env("SWARMSEAL_INSECURE_HTTP", "true");
        command.arg("--json").arg("--data").arg(self.path(&format!("data{node}"))).args(args);
        command
    }

    /// Runs one to its end.
    fn expect(&self, node: usize, args: &[&str]) -> Result<()> {
        let output = self.at(node, args).output()?;
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn content(&self) -> Result<Vec<u8>> {
        let content: Vec<u8> =
            (0..self.calibration.content()).map(|i| (i.wrapping_mul(i) % 251) as u8).collect();
        fs::write(self.path("content"), &content)?;
        Ok(content)
    }

    /// Starts all peers and waits for all: seconds.
    fn fetch(&self, peer: impl Fn(usize) -> Command) -> Result<f64> {
        let start = Instant::now();
        let running: Vec<Process> =
            self.peers().map(|node| Process::start(&mut peer(node))).collect::<Result<_>>()?;
        let mut last = start;
        for process in &running {
            last = last.max(process.until_at("\"complete\"")?.0);
        }
        Ok((last - start).as_secs_f64())
    }

    fn plain(&self) -> Result<f64> {
        let content = self.content()?;
        let pieces: Vec<[u8; 20]> =
            content.chunks(self.piece_len as usize).map(|piece| Sha1::digest(piece).into()).collect();
        let torrent = PlainTorrent {
            name: "content",
            files: None,
            length: content.len() as u64,
            piece_len: self.piece_len,
            pieces: &pieces,
            announce: None,
            private: true,
        };
        let file = self.text("plain.torrent");
        fs::write(&file, torrent.to_bytes())?;
        let address = |node: usize| format!("{}:{PORT}", Lab::address(node));
        let get = |node: usize, output: &str| {
            self.at(node, &["get", &file, "--output", output, "--listen", &address(node)])
        };
        let mut seeding = Vec::new();
        for node in self.seeds() {
            let output = self.path(&format!("seed{node}"));
            fs::create_dir(&output)?;
            fs::copy(self.path("content"), output.join("content"))?;
            let seed = Process::start(&mut get(node, &output.display().to_string()))?;
            seed.until("\"complete\"")?;
            seeding.push(seed);
        }
        let all: Vec<usize> = self.seeds().chain(self.peers()).collect();
        self.fetch(|node| {
            let mut command = get(node, &self.text(&format!("peer{node}")));
            all.iter().filter(|&&other| other != node).for_each(|&other| {
                command.args(["--peer", &address(other)]);
            });
            command
        })
    }

    fn sealed(&self) -> Result<f64> {
        self.content()?;
        let listen = format!("{}:{TRACKER_PORT}", Lab::address(TRACKER_NODE));
        let tracker =
            Process::start(&mut self.at(TRACKER_NODE, &["tracker", "--insecure-http", "--listen", &listen]))?;
        let url = tracker.until("\"listening\"")?;
        let url: serde_json::Value = serde_json::from_str(&url)?;
        let url = url["url"].as_str().context("no URL in the event")?;
        let (content, torrent, seed_file) =
            (self.text("content"), self.text("sealed.torrent"), self.text("sealed.seed"));
        let token = self.text(&format!("data{TRACKER_NODE}/tracker/admin.token"));
        let publish = ["publish", &content, "--tracker", url, "--admin-token-file", &token];
        let length = self.piece_len.to_string();
        let files = ["--output", &torrent, "--seed-file", &seed_file, "--piece-length", &length];
        self.expect(TRACKER_NODE, &[&publish[..], &files].concat())?;
        let address = |node: usize| format!("{}:{PORT}", Lab::address(node));
        let mut seeding = Vec::new();
        for node in self.seeds() {
            let args = ["seed", &seed_file, "--listen", &address(node)];
            let seed = Process::start(&mut self.at(node, &args))?;
            seed.until("\"listening\"")?;
            seeding.push(seed);
        }
        for node in self.peers() {
            self.expect(node, &["subscribe", &torrent])?;
        }
        self.fetch(|node| self.at(node, &["get", &torrent, "--listen", &address(node)]))
    }
}
