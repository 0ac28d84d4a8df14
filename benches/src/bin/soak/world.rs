//! What outlives the rounds: the program, a directory, a tracker.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
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
    tracker_address: SocketAddr,
    url: String,
    /// The file with the admin token.
    token: String,
}

impl World {
    /// Starts the tracker.
    pub(crate) async fn start(program: PathBuf, dir: PathBuf) -> Result<Self> {
        let tracker_address = free_address(&mut Random::new(u64::from(std::process::id())))?;
        let url = format!("http://{tracker_address}");
        let token = dir.join("operator/tracker/admin.token").display().to_string();
        let mut world = World { program, dir, tracker: None, tracker_address, url, token };
        world.start_tracker()?;
        world.tracker_listens().await?;
        Ok(world)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn start_tracker(&mut self) -> Result<()> {
        let listen = self.tracker_address.to_string();
        let args = ["tracker", "--listen", &listen, "--announce-interval", "5"];
        self.tracker = Some(Process::start(&self.program, "tracker", &self.path("operator"), &args, None)?);
        Ok(())
    }

    pub(crate) async fn tracker_listens(&mut self) -> Result<()> {
        let tracker = self.tracker.as_mut().context("no tracker")?;
        tracker.until(STEP, |said| said.listening.is_some()).await?;
        Ok(())
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

    /// Flags of everything that asks the tracker's admin API.
    pub(crate) fn admin(&self) -> [&str; 4] {
        ["--tracker", &self.url, "--admin-token-file", &self.token]
    }

    /// [`World::expect`] of a verb that asks the tracker's admin API.
    pub(crate) async fn administer(&self, name: &str, data: &Path, args: &[&str]) -> Result<Value> {
        self.expect(name, data, &[args, &self.admin()].concat()).await
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

/// An address of loopback, so that peers tell one process from another as they tell hosts, and a port below those that the system
/// gives to outgoing connections, so that none of them takes it while its owner is down.
pub(crate) fn free_address(random: &mut Random) -> Result<SocketAddr> {
    for _ in 0..1000 {
        let host = Ipv4Addr::new(
            127,
            random.between(1, 255) as u8,
            random.below(256) as u8,
            random.between(1, 254) as u8,
        );
        let address = SocketAddr::from((host, random.between(20_000, 31_000) as u16));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    anyhow::bail!("no free address")
}

/// What a process wrote to its log: panics, and why it ended or refused connections. `peers`: the addresses of honest ones, who send
/// nothing bad.
pub(crate) fn read_log(data: &Path, peers: &[IpAddr], report: &mut Report) -> Result<()> {
    let path = data.join("log");
    let log = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
    let name = data.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for line in log.lines() {
        let after = |mark: &str| line.split_once(mark).map_or("", |(_, rest)| rest);
        let is_honest = |field: &str| {
            let address = after(field).split_whitespace().next().unwrap_or_default();
            let ip = address.parse().or_else(|_| address.parse().map(|address: SocketAddr| address.ip()));
            ip.is_ok_and(|ip| peers.contains(&ip))
        };
        if line.contains("panicked at") || line.contains("stack overflow") {
            report.fail(format!("{name}: {line}"));
        } else if line.contains("a stored piece is damaged") {
            report.damage_noticed += 1;
        } else if line.contains("disconnecting") {
            let reason = after("reason=");
            if ["bad ticket", "bad piece"].iter().any(|lie| reason.contains(lie)) && is_honest("addr=") {
                report.fail(format!("{name}: an honest peer is taken for a liar: {line}"));
            }
            *report.ended.entry(without_numbers(reason)).or_default() += 1;
        } else if line.contains("not dealt with") {
            if is_honest("address=") {
                report.fail(format!("{name}: an honest peer is shut out: {line}"));
            }
            report.shut_out += 1;
        } else if line.contains("incoming connection refused") {
            let refused = format!("handshake: {}", without_numbers(after("error=")));
            *report.ended.entry(refused).or_default() += 1;
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
