//! What a verb prints: lines for people, JSON objects for programs, a bar on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::{Exit, Failure};
use crate::log;

/// Whether standard output is the content's.
static GIVEN_AWAY: AtomicBool = AtomicBool::new(false);
/// Why the first result that was lost could not be written.
static LOST: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Where a verb's words go. Results go to standard output; progress and warnings to standard error. A result that cannot be written
/// does not end the verb: [`Output::check`] says so at its end. A warning that cannot be written is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// With `json`, every result is one JSON object a line on standard output, and nothing else is printed there.
    pub fn new(json: bool) -> Self {
        Output { json }
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A result: `human` for people, `json` for programs.
    pub fn result(&self, human: impl AsRef<str>, json: Value) {
        if self.json {
            self.text(&format!("{json}\n"));
        } else {
            self.text(&format!("{}\n", human.as_ref()));
        }
    }

    /// Text on standard output as it is, whether JSON was asked for or not.
    pub fn text(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            LOST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    /// Errors: [`Exit::Storage`] where a result could not be written.
    pub fn check(&self) -> Result<(), Failure> {
        match LOST.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(error) => Err(Failure::new(
                Exit::Storage,
                format!(
                    "standard output: {error}: a result is lost; expected a file or a reader that takes it"
                ),
            )),
        }
    }

    /// A line about how things go, for people alone.
    pub fn note(&self, line: impl AsRef<str>) {
        if !self.json {
            log::line(line);
        }
    }

    /// From now on standard output carries content, and not a word of ours.
    pub fn give_stdout_away(&self) {
        GIVEN_AWAY.store(true, Ordering::Relaxed);
    }

    /// A failure: a sentence on standard error, and with `--json` an object on standard output, unless that carries content.
    pub fn failure(&self, failure: &Failure) {
        if self.json && !GIVEN_AWAY.load(Ordering::Relaxed) {
            let mut json = serde_json::json!({
                "error": failure.message, "kind": failure.exit.word(), "exit": failure.exit as u8,
            });
            if let (Value::Object(all), Value::Object(details)) = (&mut json, &failure.details) {
                for (name, value) in details {
                    all.entry(name).or_insert_with(|| value.clone());
                }
            }
            let _ = writeln!(std::io::stdout().lock(), "{json}");
        }
        log::line(format!("swarmseal: {}", failure.message));
    }

    /// Whether a live line can be drawn.
    pub fn is_terminal(&self) -> bool {
        !self.json && std::io::stderr().is_terminal()
    }

    /// A bar of `total` steps on a terminal, silent elsewhere.
    pub fn bar(&self, total: u64, template: &'static str) -> ProgressBar {
        let target =
            if self.is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar
    }
}

/// Bytes as people read them: `12.3 MiB`.
pub(super) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}
