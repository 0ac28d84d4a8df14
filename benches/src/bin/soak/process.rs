//! One process of the program: started, signalled, listened to, measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Debian's, if it is installed.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// The library that sets a process's clock wrong.
pub(crate) fn faketime() -> Option<&'static Path> {
    FAKETIME.iter().map(Path::new).find(|path| path.exists())
}

/// What a process has said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// The event `listening`.
    pub(crate) listening: Option<Value>,
    /// The event `complete`, or one that ends a verb.
    pub(crate) last: Value,
    pub(crate) complete: bool,
    /// Of the newest progress.
    pub(crate) refused: u64,
    /// Its failure, if it failed.
    pub(crate) error: Option<Value>,
    /// Its standard output has ended.
    pub(crate) ended: bool,
}

/// A process. Dropping it kills it (SIGKILL).
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    said: watch::Receiver<Said>,
    /// Held open: the process ends with it.
    _stdin: Option<ChildStdin>,
    started: Instant,
    pub(crate) name: String,
}

impl Process {
    /// Starts `swarmseal --json --data DATA ARGS…`; its standard error is appended to `DATA/log`. `clock`: how its clock is
    /// set wrong, as `faketime` understands it.
    pub(crate) fn start(
        program: &Path,
        name: &str,
        data: &Path,
        args: &[&str],
        clock: Option<&str>,
    ) -> Result<Self> {
        fs::create_dir_all(data)?;
        let log = fs::File::options().append(true).create(true).open(data.join("log"))?;
        let mut command = Command::new(program);
        command.arg("--json").arg("--data").arg(data).args(args);
        // Standard input is a pipe from us: the child ends with us, however we end.
        command.env("SWARMSEAL_UNTIL_EOF", "1").env("SWARMSEAL_LOG", "swarmseal=debug").env("NO_COLOR", "1");
        if let (Some(clock), Some(library)) = (clock, faketime()) {
            // What is set wrong in life is the clock that tells the time, not the one that measures it.
            command.env("LD_PRELOAD", library).env("FAKETIME", clock);
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let (sender, said) = watch::channel(Said::default());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(object) = serde_json::from_str::<Value>(&line) {
                    sender.send_modify(|said| said.hear(object));
                }
            }
            sender.send_modify(|said| said.ended = true);
        });
        let stdin = child.stdin.take();
        Ok(Process { child, said, _stdin: stdin, started: Instant::now(), name: name.to_owned() })
    }

    pub(crate) fn said(&self) -> Said {
        self.said.borrow().clone()
    }

    /// Waits until that is true of what it says; fails when it fails or ends before.
    pub(crate) async fn until(&mut self, within: Duration, done: impl Fn(&Said) -> bool) -> Result<Said> {
        let reached = timeout(within, self.said.wait_for(|said| done(said) || said.ended)).await.is_ok();
        let said = self.said();
        ensure!(reached, "{}: not within {} s: {said:?}", self.name, within.as_secs());
        ensure!(done(&said), "{} ended: {:?}", self.name, said.error);
        Ok(said)
    }

    /// Sends a signal, by the name that kill(1) gives it.
    pub(crate) async fn signal(&self, signal: &str) -> Result<()> {
        let Some(id) = self.child.id() else { return Ok(()) };
        let status = Command::new("kill").arg(format!("-{signal}")).arg(id.to_string()).status().await?;
        ensure!(status.success(), "{}: kill -{signal}: {status}", self.name);
        Ok(())
    }

    /// kill -9; returns once it is gone.
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// SIGTERM. Errors: it does not end in time, or ends badly. Before it listens it may end as the system sees fit.
    pub(crate) async fn terminate(mut self, within: Duration) -> Result<()> {
        let starting = self.said().listening.is_none() || self.started.elapsed() < Duration::from_secs(1);
        self.signal("TERM").await?;
        let status = self.ends(within).await?;
        let early = starting && status.code().is_none();
        ensure!(status.success() || early, "{}: ended badly: {status}: {:?}", self.name, self.said().error);
        Ok(())
    }

    /// Waits for its end.
    pub(crate) async fn ends(&mut self, within: Duration) -> Result<ExitStatus> {
        match timeout(within, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{}: it did not end within {} s", self.name, within.as_secs()),
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The most memory that it ever had resident, in MiB, while it runs.
    pub(crate) fn peak_mib(&self) -> u64 {
        let Some(id) = self.child.id() else { return 0 };
        let status = fs::read_to_string(PathBuf::from(format!("/proc/{id}/status"))).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or_default() >> 10
    }
}

impl Said {
    fn hear(&mut self, object: Value) {
        if object.get("error").is_some() {
            self.error = Some(object);
            return;
        }
        self.refused = object["pieces_refused"].as_u64().unwrap_or(self.refused);
        match object["event"].as_str() {
            Some("listening") => self.listening = Some(object),
            Some("progress") => {}
            Some("complete") => (self.complete, self.last) = (true, object),
            _ => self.last = object,
        }
    }
}
