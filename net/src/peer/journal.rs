//! The transcript for audits: an append-only file of JSON lines.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};
use swarmseal_core::Ticket;

/// One such file.
#[derive(Debug)]
pub(crate) struct Journal(BufWriter<File>);

impl Journal {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Journal(BufWriter::new(OpenOptions::new().append(true).create(true).open(path)?)))
    }

    /// A line that cannot be written is lost with a warning: it does not stop the transfer.
    pub(crate) fn write(&mut self, line: &Value) {
        if let Err(error) = writeln!(self.0, "{line}") {
            tracing::warn!(%error, "a journal line is lost");
        }
    }

    pub(crate) fn flush(&mut self) {
        if let Err(error) = self.0.flush() {
            tracing::warn!(%error, "journal lines are lost");
        }
    }
}

/// The line for a ticket.
pub(crate) fn ticket_line(ticket: &Ticket) -> Value {
    json!({
        "kind": "ticket",
        "uploader": ticket.uploader.to_string(),
        "downloader": ticket.downloader.to_string(),
        "epoch": ticket.epoch,
        "expires": ticket.expires,
        "ticket": hex::encode(ticket.to_bytes()),
    })
}

/// The line for a re-key, a public value: two ciphertexts give it too.
pub(crate) fn rekey_line(downloader: &str, epoch: u64, piece: u32, key: &[u8]) -> Value {
    json!({"kind": "rekey", "downloader": downloader, "epoch": epoch, "piece": piece, "key": hex::encode(key)})
}
