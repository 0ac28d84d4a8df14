//! The tracker's process, and what it uses.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarmseal::wire::keyfile::TokenFile;
use tempfile::TempDir;

use crate::process::Process;

/// What is measured beside a load tester: ours or a rival.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    process: Process,
}

/// Our tracker, with a data directory that outlives its process.
pub struct Tracker {
    program: PathBuf,
    cores: String,
    memory: Option<u64>,
    data: TempDir,
    /// While it runs.
    pub server: Server,
    /// For the admin API.
    pub token: TokenFile,
}

impl Tracker {
    /// Starts the program on these cores (as `taskset` takes them), with at most so many bytes of data in memory.
    pub fn start(program: &Path, cores: &str, memory: Option<u64>) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let (server, token) = run(program, cores, memory, data.path())?;
        Ok(Tracker { program: program.to_owned(), cores: cores.to_owned(), memory, data, server, token })
    }

    /// Starts it anew on the same data: whatever it kept in memory is gone, sessions too.
    pub fn restart(self) -> Result<Self> {
        self.restart_after(|_| Ok(()))
    }

    /// The same, after something was done to its data while it did not run: the argument is its directory.
    pub fn restart_after(self, change: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let Tracker { program, cores, memory, data, server, .. } = self;
        drop(server);
        change(&data.path().join("tracker"))?;
        let (server, token) = run(&program, &cores, memory, data.path())?;
        Ok(Tracker { program, cores, memory, data, server, token })
    }

    /// Bytes of its store.
    pub fn stored(&self) -> Result<u64> {
        Ok(fs::metadata(self.data.path().join("tracker/tracker.redb"))?.len())
    }

    /// The base of its URLs.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }
}

fn run(program: &Path, cores: &str, memory: Option<u64>, data: &Path) -> Result<(Server, TokenFile)> {
    ensure!(program.exists(), "{}: expected the program there, or --swarmseal FILE", program.display());
    let mut command = Command::new("taskset");
    command.args(["-c", cores]);
    if let Some(memory) = memory {
        command.arg("prlimit").arg(format!("--data={memory}"));
    }
    // Nobody may be forgotten while it is measured.
    command.arg(program).arg("--json").arg("--data").arg(data);
    command.args(["tracker", "--listen", "127.0.0.1:0", "--announce-interval", "3600"]);
    // A load tester is a few subscribers that ask for the same keys again and again.
    for limit in ["--keys-per-day", "--calls-per-second"] {
        command.args([limit, "0"]);
    }
    let process = Process::start(&mut command)?;
    let said: Value = serde_json::from_str(&process.until("\"listening\"")?)?;
    let address = said["url"].as_str().and_then(|url| url.strip_prefix("http://")?.parse().ok());
    let address = address.context("the tracker said no address")?;
    let file = said["admin_token_file"].as_str().context("the tracker said no token file")?;
    let token = TokenFile::read(file.as_ref()).with_context(|| file.to_owned())?;
    Ok((Server { address, process }, token))
}

impl Server {
    /// A process that answers at that address soon.
    pub fn new(process: Process, address: SocketAddr) -> Self {
        Server { address, process }
    }

    /// Seconds of CPU that it has used.
    pub fn cpu(&self) -> f64 {
        self.process.cpu()
    }

    /// Bytes that it had resident at most, and has.
    pub fn resident(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
            kib.unwrap_or(0) << 10
        };
        (field("VmHWM:"), field("VmRSS:"))
    }
}

/// Keeps this process, and the threads that it starts from now on, on these cores.
pub fn stay_on(cores: &str) -> Result<()> {
    let id = std::process::id().to_string();
    let done = Command::new("taskset").args(["-cp", cores, &id]).output().context("taskset")?;
    ensure!(done.status.success(), "taskset: {}", String::from_utf8_lossy(&done.stderr).trim());
    // Threads that sleep until a moment otherwise wake up to 50 µs late.
    let _ = fs::write("/proc/self/timerslack_ns", "1");
    Ok(())
}
