//! Append-only files of JSON lines: signed words worth keeping, and the transcript for audits.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::state::Evidence;
use crate::wire::seal::Parties;

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

/// The line for a signed word.
pub(crate) fn evidence_line(evidence: &Evidence) -> Value {
    match evidence {
        Evidence::Ticket(ticket) => json!({
            "kind": "ticket",
            "uploader": ticket.uploader.to_string(),
            "downloader": ticket.downloader.to_string(),
            "epoch": ticket.epoch,
            "expires": ticket.expires,
            "ticket": hex::encode(ticket.to_bytes()),
        }),
        Evidence::Statement(parties, statement) => with_parties(
            parties,
            json!({
                "kind": "statement",
                "epoch": statement.epoch,
                "entries": statement.entries.iter()
                    .map(|entry| json!({"piece": entry.piece, "blake3": hex::encode(entry.hash)}))
                    .collect::<Vec<_>>(),
                "signature": hex::encode(statement.signature),
            }),
        ),
        Evidence::Receipt(parties, receipt) => with_parties(
            parties,
            json!({
                "kind": "receipt",
                "bytes": receipt.bytes,
                "pieces": receipt.pieces,
                "time": receipt.time,
                "signature": hex::encode(receipt.signature),
            }),
        ),
    }
}

fn with_parties(parties: &Parties, mut line: Value) -> Value {
    line["torrent id"] = parties.torrent_id.to_string().into();
    line["uploader"] = parties.uploader.to_string().into();
    line["downloader"] = parties.downloader.to_string().into();
    line
}

/// The line for a re-key, a public value: two ciphertexts give it too.
pub(crate) fn rekey_line(downloader: &str, epoch: u64, piece: u32, key: &[u8]) -> Value {
    json!({"kind": "rekey", "downloader": downloader, "epoch": epoch, "piece": piece, "key": hex::encode(key)})
}
