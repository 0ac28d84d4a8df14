//! The demo's processes: this same program, each with its own directory, speaking JSON lines on standard output.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::cli::glue::UNTIL_EOF;
use crate::cli::{Exit, Failure};

/// A running verb. Dropping it kills the process.
pub(super) struct Running {
    name: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts `swarmseal --json --data DIR ARGS…`; its standard error goes to `DIR/log`.
    pub(super) fn start(name: &str, data: &Path, args: &[&str]) -> Result<Self, Failure> {
        std::fs::create_dir_all(data).map_err(|error| Failure::file(data, &error))?;
        let log = data.join("log");
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(&log)
            .map_err(|error| Failure::file(&log, &error))?;
        let program = std::env::current_exe()
            .map_err(|error| Failure::new(Exit::Failed, format!("own path: {error}")))?;
        let mut child = Command::new(program)
            .arg("--json")
            .arg("--data")
            .arg(data)
            .args(args)
            // The pipe closes when this process ends, however it ends.
            .env(UNTIL_EOF, "1")
            .env("SWARMSEAL_BACKEND", crate::backend::kernels().name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot start {name}: {error}")))?;
        let stdout = child.stdout.take().ok_or_else(|| Failure::new(Exit::Failed, "no pipe to the child"))?;
        Ok(Running { name: name.into(), child, lines: BufReader::new(stdout).lines() })
    }

    /// The next object that is the answer to `event`, or the child's own error.
    pub(super) async fn event(&mut self, event: &str, within: Duration) -> Result<Value, Failure> {
        tokio::time::timeout(within, self.find(event)).await.unwrap_or_else(|_| {
            Err(Failure::new(
                Exit::DemoFailed,
                format!("{}: no `{event}` within {} s", self.name, within.as_secs()),
            ))
        })
    }

    async fn find(&mut self, event: &str) -> Result<Value, Failure> {
        while let Ok(Some(line)) = self.lines.next_line().await {
            let Ok(object) = serde_json::from_str::<Value>(&line) else { continue };
            if object["event"] == event {
                return Ok(object);
            }
            if let Some(error) = object["error"].as_str() {
                return Err(Failure::new(Exit::DemoFailed, format!("{}: {error}", self.name)));
            }
        }
        let status = self.child.wait().await.map(|s| s.to_string()).unwrap_or_default();
        Err(Failure::new(Exit::DemoFailed, format!("{} ended ({status}) without `{event}`", self.name)))
    }

    /// Kills the process and waits for its end.
    pub(super) async fn stop(mut self) {
        let _ = self.child.kill().await;
    }
}

/// Runs a verb to its end; the object of that `event`.
pub(super) async fn call(
    name: &str,
    data: &Path,
    args: &[&str],
    event: &str,
    within: Duration,
) -> Result<Value, Failure> {
    Running::start(name, data, args)?.event(event, within).await
}
