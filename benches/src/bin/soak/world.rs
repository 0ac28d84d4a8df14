//! What outlives the rounds: the program, a directory, a tracker.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Report;
use crate::process::Process;
use crate::random::Random;

/// No single step takes nearly as long.
pub(crate) const STEP: Duration = Duration::from_secs(60);
/// A process that was told to end does so within a second; the rest is for a machine with other work.
pub(crate) const END: Duration = Duration::from_secs(15);

/// Everything around the rounds.
pub(crate) struct World {
    pub(crate) program: PathBuf,
    dir: PathBuf,
    pub(crate) tracker: Option<Process>,
    tracker_port: u16,
    pub(crate) url: String,
}

impl World {
    /// Starts the tracker.
    pub(crate) async fn start(program: PathBuf, dir: PathBuf) -> Result<Self> {
        let tracker_port = free_port(&mut Random::new(u64::from(std::process::id())))?;
        let url = format!("http://127.0.0.1:{tracker_port}");
        let mut world = World { program, dir, tracker: None, tracker_port, url };
        world.start_tracker()?;
        world.tracker_listens().await?;
        Ok(world)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn start_tracker(&mut self) -> Result<()> {
        let listen = format!("127.0.0.1:{}", self.tracker_port);
        let args = ["tracker", "--listen", &listen, "--announce-interval", "5"];
        self.tracker = Some(Process::start(&self.program, "tracker", &self.path("operator"), &args, None)?);
        Ok(())
    }

    pub(crate) async fn tracker_listens(&mut self) -> Result<()> {
        let tracker = self.tracker.as_mut().context("no tracker")?;
        tracker.until(STEP, |said| said.listening.is_some()).await?;
        Ok(())
    }

    /// The file with the admin token.
    pub(crate) fn token(&self) -> String {
        self.path("operator/tracker/admin.token").display().to_string()
    }

    /// Runs a verb to its end: its exit code, and the last object that it printed, or its failure.
    pub(crate) async fn call(
        &self,
        name: &str,
        data: &Path,
        args: &[&str],
        within: Duration,
    ) -> Result<(i32, Value)> {
        let mut process = Process::start(&self.program, name, data, args, None)?;
        let status = process.ends(within).await.with_context(|| format!("{args:?}"))?;
        let said = process.until(STEP, |said| said.ended).await?;
        Ok((status.code().unwrap_or(-1), said.error.unwrap_or(said.last)))
    }

    /// [`World::call`] of a verb that must do what it is for.
    pub(crate) async fn expect(&self, name: &str, data: &Path, args: &[&str]) -> Result<Value> {
        let (code, last) = self.call(name, data, args, STEP).await?;
        ensure!(code == 0, "{name}: {args:?}: {last}");
        Ok(last)
    }

    /// Stops the tracker.
    pub(crate) async fn end(&mut self, report: &mut Report) -> Result<()> {
        if let Some(tracker) = self.tracker.take() {
            report.peak("tracker", tracker.peak_mib());
            tracker.terminate(END).await?;
        }
        read_log(&self.path("operator"), &[], report)
    }
}

/// A port below those that the system gives to outgoing connections, so that none of them takes it while its owner is down.
pub(crate) fn free_port(random: &mut Random) -> Result<u16> {
    for _ in 0..1000 {
        let port = random.between(20_000, 31_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port")
}

/// What a process wrote to its log: panics, why it hung up, whom it banned. `honest`: subscribers that never lie.
pub(crate) fn read_log(data: &Path, honest: &[String], report: &mut Report) -> Result<()> {
    let path = data.join("log");
    let log = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
    let name = data.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for line in log.lines() {
        let reason = || line.split_once("reason=").map(|(_, reason)| without_numbers(reason));
        if line.contains("panicked at") || line.contains("stack overflow") {
            report.fail(format!("{name}: {line}"));
        } else if line.contains("a stored piece is damaged") {
            report.damage_noticed += 1;
        } else if line.contains("disconnecting") {
            *report.hung_up.entry(reason().unwrap_or_default()).or_default() += 1;
        } else if line.contains(" banned ")
            && let Some(reason) = reason()
            && honest.iter().any(|id| line.contains(id))
        {
            if ["stated another hash", "bad signature"].iter().any(|lie| reason.contains(lie)) {
                report.fail(format!("{name}: an honest peer is taken for a liar: {line}"));
            }
            *report.honest_banned.entry(reason).or_default() += 1;
        }
    }
    Ok(())
}

/// So that reasons with a number in them count as one.
fn without_numbers(reason: &str) -> String {
    let plain: String = reason.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
    let mut plain = plain.trim().to_owned();
    while plain.contains("##") {
        plain = plain.replace("##", "#");
    }
    plain.chars().take(70).collect()
}
