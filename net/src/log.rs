//! Where log lines go: standard error, as long as it takes them. A thread of its own writes them. A line that cannot be written, or for
//! which there is no room because a reader stalls, is dropped and counted: no program fails, or waits, for want of a log.

use std::error::Error;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Lines that wait for a reader.
const WAITING: usize = 16_384;

static DROPPED: AtomicU64 = AtomicU64::new(0);
/// Hands lines to the thread that writes them, once there is one.
static LINES: OnceLock<NonBlocking> = OnceLock::new();

/// The log of this process: when it is dropped, lines that wait are written, for a second at most.
pub(crate) struct Log {
    _writer: WorkerGuard,
}

/// Log lines of this process that could not be written.
pub(crate) fn dropped() -> u64 {
    let without_room = LINES.get().map_or(0, |lines| lines.error_counter().dropped_lines() as u64);
    DROPPED.load(Ordering::Relaxed) + without_room
}

/// Writes a line to standard error, or drops and counts it.
pub(crate) fn line(line: impl AsRef<str>) {
    let line = format!("{}\n", line.as_ref());
    let _ = match LINES.get() {
        Some(lines) => lines.clone().write_all(line.as_bytes()),
        None => Lossy(io::stderr().lock()).write_all(line.as_bytes()),
    };
}

/// Starts the log of this process, once. `json`: one object a line. Errors: there is a log already.
pub(crate) fn start(
    filter: tracing_subscriber::EnvFilter,
    json: bool,
) -> Result<Log, Box<dyn Error + Send + Sync>> {
    let (lines, writer) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING).finish(Lossy(io::stderr()));
    let lines = LINES.get_or_init(|| lines);
    // What the layer has to say of its own failures it would print, and panic where it cannot.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_writer(|| lines.clone());
    if json {
        log.json().flatten_event(true).try_init()?;
    } else {
        log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init()?;
    }
    Ok(Log { _writer: writer })
}

/// A writer that never fails: it counts the writes that did.
struct Lossy<W>(W);

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        if self.0.write_all(line).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk without room.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_no_error() {
        let before = dropped();
        let mut log = Lossy(Full);
        log.write_all(b"a line\n").unwrap();
        log.write_all(b"5\n").unwrap();
        assert_eq!(log.write(b"another").unwrap(), 7);
        log.flush().unwrap();
        assert_eq!(dropped() - before, 3);
        let mut kept = Lossy(Vec::new());
        kept.write_all(b"5\n").unwrap();
        assert_eq!((kept.0.as_slice(), dropped() - before), (b"5\n".as_slice(), 3));
    }
}
