//! Where log lines go: standard error, as long as it takes them. A line that cannot be written is dropped and counted, because no
//! program may fail for want of a log.

use std::error::Error;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Log lines of this process that could not be written.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Writes a line to standard error, or drops and counts it.
pub(crate) fn line(line: impl AsRef<str>) {
    let _ = writeln!(Lossy(io::stderr().lock()), "{}", line.as_ref());
}

/// Starts the log of this process, once. `json`: one object a line. Errors: there is a log already.
pub(crate) fn start(
    filter: tracing_subscriber::EnvFilter,
    json: bool,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    // What the layer has to say of its own failures it would print, and panic where it cannot.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_writer(|| Lossy(io::stderr()));
    if json {
        log.json().flatten_event(true).try_init()
    } else {
        log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init()
    }
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

    fn write_fmt(&mut self, line: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.write_all(line.to_string().as_bytes())
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
        writeln!(log, "{}", 5).unwrap();
        assert_eq!(log.write(b"another").unwrap(), 7);
        log.flush().unwrap();
        assert_eq!(dropped() - before, 3);
        let mut kept = Lossy(Vec::new());
        writeln!(kept, "{}", 5).unwrap();
        assert_eq!((kept.0.as_slice(), dropped() - before), (b"5\n".as_slice(), 3));
    }
}
