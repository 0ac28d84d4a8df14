//! Programs that run beside a benchmark, and what they print.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// No step takes nearly as long.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// A process that is killed at the end.
pub struct Process {
    child: Child,
    lines: Option<mpsc::Receiver<(Instant, String)>>,
    /// Held open: some peers end with it.
    _stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts it. Errors: it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send((Instant::now(), line)))
        });
        let stdin = child.stdin.take();
        Ok(Process { child, lines: Some(lines), _stdin: stdin })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line with that in it. Errors: it ends, or says nothing of the kind within [`DEADLINE`].
    pub fn until(&self, mark: &str) -> Result<String> {
        self.until_at(mark).map(|(_, line)| line)
    }

    /// The same, and when the line came.
    pub fn until_at(&self, mark: &str) -> Result<(Instant, String)> {
        let lines = self.lines.as_ref().context("no lines")?;
        let start = Instant::now();
        loop {
            let line = lines.recv_timeout(DEADLINE.saturating_sub(start.elapsed()));
            let (at, line) = line.with_context(|| format!("a process said no {mark:?}"))?;
            if line.contains(mark) {
                return Ok((at, line));
            }
        }
    }

    /// Waits until it ends well. Errors: it fails, or goes on beyond [`DEADLINE`].
    pub fn ends(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "a client failed: {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("a client did not end")
    }

    /// Seconds of CPU that it has used, while it runs.
    pub fn cpu(&self) -> f64 {
        cpu_of(self.child.id())
    }

    /// The most memory that it ever had resident, in MiB, while it runs. Errors: the system does not say.
    pub fn peak_mib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib.div_ceil(1024))
    }
}

/// Seconds of CPU that a process has used, while it runs.
pub fn cpu_of(process: u32) -> f64 {
    // utime and stime.
    seconds(process, [14, 15])
}

/// Seconds of CPU of all our children that have ended and were waited for.
pub fn cpu_of_children() -> f64 {
    // cutime and cstime.
    seconds(std::process::id(), [16, 17])
}

/// Those two fields of /proc/PID/stat together, counted from 1; in hundredths of a second on Linux.
fn seconds(process: u32, fields: [usize; 2]) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second, in parentheses, may have anything in it.
    let rest: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |field: usize| rest.get(field - 3).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    fields.map(ticks).iter().sum::<f64>() / 100.0
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
