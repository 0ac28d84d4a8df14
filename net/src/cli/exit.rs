//! Exit codes and the failure that carries one.

use std::fmt;

use serde_json::Value;

/// What the program's exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Anything without a code of its own.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The tracker cannot be reached, or refused for another reason than those below.
    Tracker = 3,
    /// There is no license, and no grant or voucher to get one with.
    NotLicensed = 4,
    /// The license or key file belongs to another device or subscriber.
    WrongKey = 5,
    /// The license is expired, or not valid yet.
    Expired = 6,
    /// Every play that the license allows is used up.
    NoPlaysLeft = 7,
    /// The license, or the record of its use, has been changed.
    Tampered = 8,
    /// The license or store belongs to another torrent.
    WrongTorrent = 9,
    /// A stored piece does not open to what was published.
    CorruptPiece = 10,
    /// A piece has not been fetched yet.
    MissingPiece = 11,
    /// A file cannot be read or written, or the disk is full.
    Storage = 12,
    /// Another process uses the same data.
    InUse = 13,
    /// A file or answer was written by a newer version.
    NewerVersion = 14,
    /// The subscription has been revoked.
    Revoked = 15,
    /// A check of the demo failed.
    DemoFailed = 20,
}

impl Exit {
    /// Every code, for `--help`.
    pub const ALL: [(Exit, &'static str); 16] = [
        (Exit::Failed, "failed for a reason without a code of its own"),
        (Exit::Usage, "the command line is wrong"),
        (Exit::Tracker, "the tracker cannot be reached, or refused"),
        (Exit::NotLicensed, "no license, and nothing to get one with"),
        (Exit::WrongKey, "license or key of another device or subscriber"),
        (Exit::Expired, "license expired, or not valid yet"),
        (Exit::NoPlaysLeft, "no plays left"),
        (Exit::Tampered, "license, or the record of its use, tampered with"),
        (Exit::WrongTorrent, "license or store of another torrent"),
        (Exit::CorruptPiece, "corrupt piece: `play` without --no-fetch has it fetched again"),
        (Exit::MissingPiece, "piece not fetched yet: run `get` first"),
        (Exit::Storage, "file cannot be read or written, or the disk is full"),
        (Exit::InUse, "another process uses the same data"),
        (Exit::NewerVersion, "written by a newer version of the program"),
        (Exit::Revoked, "the subscription has been revoked"),
        (Exit::DemoFailed, "a check of the demo failed"),
    ];

    /// The word for it in `--json`.
    pub const fn word(self) -> &'static str {
        match self {
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::Tracker => "tracker",
            Exit::NotLicensed => "not-licensed",
            Exit::WrongKey => "wrong-key",
            Exit::Expired => "expired",
            Exit::NoPlaysLeft => "no-plays-left",
            Exit::Tampered => "tampered",
            Exit::WrongTorrent => "wrong-torrent",
            Exit::CorruptPiece => "corrupt-piece",
            Exit::MissingPiece => "missing-piece",
            Exit::Storage => "storage",
            Exit::InUse => "in-use",
            Exit::NewerVersion => "newer-version",
            Exit::Revoked => "revoked",
            Exit::DemoFailed => "demo-failed",
        }
    }
}

/// Why a verb ended badly: what to tell, and how to exit.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// One sentence: what was wrong, what was expected.
    pub message: String,
    /// The same in fields of its own, for programs: an object, or null.
    pub details: Value,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure { exit, message: message.into(), details: Value::Null }
    }

    /// With fields for programs; `details` is an object.
    pub fn with(self, details: Value) -> Self {
        Failure { details, ..self }
    }

    /// A file that cannot be read or written.
    pub fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Failure::new(Exit::Storage, format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
