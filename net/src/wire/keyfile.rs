//! Key files: one text form for everything secret that is kept in a file of its own.
//!
//! ```text
//! swarmseal key file v1: device
//! # Keep this secret, and keep a copy.
//! root: 1f0e…
//! check: 5d0a6b1fa2c37e90
//! ```
//!
//! The first line gives the version and the kind. Then come `name: value` lines in any order; binary values are in
//! hexadecimal. Empty lines and lines that begin with `#` are skipped. The last line is a checksum of the rest: the first
//! 8 bytes, in hexadecimal, of BLAKE3 in its `derive_key` mode with the context `swarmseal v1 key file check` over the
//! kind and then each name and value in their order in the file, every one of them preceded by its length as 64-bit
//! little-endian. It is there for typing errors, not for attackers. Files are created with mode 0600, appear whole, and
//! are never overwritten unless that is asked for.

mod kinds;
mod sealed;
pub mod words;

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use crate::atomic_file::{self, Access, Existing};

pub use kinds::{PublisherKey, SeedFile, TokenFile};
pub use sealed::{Passphrase, SealedMaster, SealedPublisher, SealedVoucherKey, SealedWitness};

/// The newest version of the text form that is understood.
pub const VERSION: u64 = 1;
/// Bytes of the longest key file that is read: a seed file lists all its files.
pub const MAX_FILE: usize = 64 << 20;

const TITLE: &str = "swarmseal key file v";

/// Why a key file was refused, or could not be read or written. No variant carries a value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It begins otherwise.
    #[error("not a Swarmseal key file")]
    NotAKeyFile,
    /// It is newer than this program.
    #[error("the key file has version {found}; this program understands up to {VERSION}")]
    NewerVersion {
        /// The version found.
        found: u64,
    },
    /// It holds something else.
    #[error("the key file holds another kind of key: expected \"{expected}\", found \"{found}\"")]
    WrongKind {
        /// What was looked for.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// A line is not `name: value`.
    #[error("line {line} of the key file is not \"name: value\"")]
    BadLine {
        /// Counted from 1.
        line: usize,
    },
    /// A name stands there twice.
    #[error("the key file says {name:?} twice")]
    Repeated {
        /// The name.
        name: String,
    },
    /// An entry is missing.
    #[error("the key file lacks {name:?}")]
    Missing {
        /// The name looked for.
        name: String,
    },
    /// An entry's value cannot be.
    #[error("the key file's {name:?} is not {expected}")]
    BadValue {
        /// The entry.
        name: String,
        /// What it should be.
        expected: String,
    },
    /// The checksum does not match: something was mistyped or cut off.
    #[error("the key file's checksum does not match: it was changed or cut short")]
    Checksum,
    /// A file of that name is there already.
    #[error("a file is already there; it is not overwritten unless forced")]
    Exists,
    /// The file could not be read or written.
    #[error("the key file could not be read or written: {0}")]
    Io(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists,
            _ => Error::Io(error),
        }
    }
}

/// The entries of a key file. Values are zeroized on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile {
    kind: String,
    entries: Vec<(String, Zeroizing<String>)>,
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Text that may stand as a kind, a name or a value: it survives being written and read.
fn is_plain(text: &str) -> bool {
    !text.contains(char::is_control) && text.trim() == text && !text.is_empty()
}

impl KeyFile {
    /// An empty file of a kind such as `device`.
    ///
    /// Panics where a kind, a name or a value is empty, has control characters or begins or ends with a space, and
    /// where a name holds a colon, begins with `#`, is `check` or is given twice.
    pub fn new(kind: &str) -> Self {
        assert!(is_plain(kind), "a kind is plain text");
        KeyFile { kind: kind.into(), entries: Vec::new() }
    }

    /// Adds a value as text. Panics as [`KeyFile::new`].
    pub fn with_text(mut self, name: &str, value: &str) -> Self {
        assert!(is_plain(name) && is_plain(value), "names and values are plain text");
        assert!(
            !name.contains(':') && !name.starts_with('#') && name != "check",
            "the name can be read back"
        );
        assert!(!self.entries.iter().any(|(other, _)| other == name), "a name is given once");
        self.entries.push((name.into(), Zeroizing::new(value.into())));
        self
    }

    /// Adds a value as hexadecimal; it must not be empty. Panics as [`KeyFile::new`].
    pub fn with_bytes(self, name: &str, value: &[u8]) -> Self {
        let text = Zeroizing::new(hex::encode(value));
        self.with_text(name, &text)
    }

    /// What the file holds.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// A value as text, if it is there.
    pub fn optional_text(&self, name: &str) -> Option<&str> {
        self.entries.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// A value as text. Errors: [`Error::Missing`].
    pub fn text(&self, name: &str) -> Result<&str, Error> {
        self.optional_text(name).ok_or_else(|| Error::Missing { name: name.into() })
    }

    /// A value in hexadecimal. Errors: [`Error::Missing`], [`Error::BadValue`].
    pub fn bytes(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let text = self.text(name)?;
        // Reserved whole, so that growing leaves no copies of secrets behind.
        let mut bytes = Zeroizing::new(vec![0; text.len() / 2]);
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| Error::BadValue { name: name.into(), expected: "hexadecimal".into() })?;
        Ok(bytes)
    }

    /// A value of N bytes in hexadecimal. Errors: [`Error::Missing`], [`Error::BadValue`].
    pub fn array<const N: usize>(&self, name: &str) -> Result<Zeroizing<[u8; N]>, Error> {
        let bytes = self.bytes(name)?;
        let mut array = Zeroizing::new([0; N]);
        if bytes.len() != N {
            let expected = format!("{N} bytes in hexadecimal");
            return Err(Error::BadValue { name: name.into(), expected });
        }
        array.copy_from_slice(&bytes);
        Ok(array)
    }

    /// Refuses a file of another kind. Errors: [`Error::WrongKind`].
    pub fn expect_kind(&self, kind: &str) -> Result<(), Error> {
        if self.kind == kind {
            return Ok(());
        }
        Err(Error::WrongKind { expected: kind.into(), found: self.kind.clone() })
    }

    /// The file's text.
    pub fn to_text(&self) -> Zeroizing<String> {
        let len: usize = self.entries.iter().map(|(name, value)| name.len() + value.len() + 3).sum();
        // Reserved whole, so that growing leaves no copies of secrets behind.
        let mut text = Zeroizing::new(String::with_capacity(len + self.kind.len() + 160));
        text.push_str(&format!("{TITLE}{VERSION}: {}\n# Keep this secret, and keep a copy.\n", self.kind));
        for (name, value) in &self.entries {
            text.push_str(name);
            text.push_str(": ");
            text.push_str(value);
            text.push('\n');
        }
        text.push_str(&format!("check: {}\n", self.check()));
        text
    }

    /// Reads a file's text. Errors: all but [`Error::Exists`] and [`Error::Io`].
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(text).map_err(|_| Error::NotAKeyFile)?;
        let mut lines = text.lines().enumerate();
        let title = lines.next().and_then(|(_, line)| line.strip_prefix(TITLE)).ok_or(Error::NotAKeyFile)?;
        let (version, kind) = title.split_once(": ").unwrap_or((title, ""));
        match version.parse::<u64>() {
            Ok(VERSION) if is_plain(kind.trim_end()) => {}
            Ok(found) if found > VERSION => return Err(Error::NewerVersion { found }),
            _ => return Err(Error::NotAKeyFile),
        }
        let mut file = KeyFile { kind: kind.trim_end().into(), entries: Vec::new() };
        let mut check = None;
        for (index, line) in lines {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad_line = Error::BadLine { line: index + 1 };
            let Some((name, value)) = line.split_once(':') else { return Err(bad_line) };
            let (name, value) = (name.trim(), value.trim());
            if !is_plain(name) || !is_plain(value) || check.is_some() {
                return Err(bad_line);
            }
            if name == "check" {
                check = Some(value);
            } else if file.optional_text(name).is_some() {
                return Err(Error::Repeated { name: name.into() });
            } else if file.entries.len() == 64 {
                return Err(bad_line);
            } else {
                file.entries.push((name.into(), Zeroizing::new(value.into())));
            }
        }
        match check {
            Some(check) if check.eq_ignore_ascii_case(&file.check()) => Ok(file),
            _ => Err(Error::Checksum),
        }
    }

    /// Reads a file of one kind.
    pub fn read(path: &Path, kind: &str) -> Result<Self, Error> {
        let file = Self::read_any(path)?;
        file.expect_kind(kind)?;
        Ok(file)
    }

    /// Reads a file of any kind.
    pub fn read_any(path: &Path) -> Result<Self, Error> {
        let mut bytes = Zeroizing::new(Vec::new());
        let file = std::fs::File::open(path)?;
        bytes.reserve_exact(file.metadata()?.len().min(MAX_FILE as u64) as usize + 1);
        file.take(MAX_FILE as u64).read_to_end(&mut bytes)?;
        Self::parse(&bytes)
    }

    /// Reads a file of one kind, which `make` makes where there is none.
    pub fn read_or_create(path: &Path, kind: &str, make: impl FnOnce() -> Self) -> Result<Self, Error> {
        if !path.exists() {
            match make().write(path, Existing::Keep) {
                // Another process may have been first.
                Ok(()) | Err(Error::Exists) => {}
                Err(error) => return Err(error),
            }
        }
        Self::read(path, kind)
    }

    /// Writes the file with mode 0600, whole or not at all. Errors: [`Error::Exists`] where one is there and is to be
    /// kept, [`Error::Io`].
    pub fn write(&self, path: &Path, existing: Existing) -> Result<(), Error> {
        Ok(atomic_file::write(path, self.to_text().as_bytes(), Access::Private, existing)?)
    }

    fn check(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("swarmseal v1 key file check");
        let entries = self.entries.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        for text in std::iter::once(self.kind.as_str()).chain(entries) {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hex::encode(&hasher.finalize().as_bytes()[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> KeyFile {
        KeyFile::new("sample").with_bytes("secret", &[0xab; 32]).with_text("tracker", "http://t:1/x")
    }

    #[test]
    fn files_round_trip() {
        let text = sample().to_text();
        let read = KeyFile::parse(text.as_bytes()).unwrap();
        assert!(read == sample());
        assert_eq!(*read.array::<32>("secret").unwrap(), [0xab; 32]);
        assert_eq!(read.text("tracker").unwrap(), "http://t:1/x");
        // Comments, blank lines and an editor's carriage returns change nothing.
        let edited = text.replace('\n', "\r\n\r\n# a note\r\n");
        assert!(KeyFile::parse(edited.as_bytes()).unwrap() == sample());
    }

    #[test]
    fn mistakes_are_named() {
        let text = sample().to_text();
        let parse = |text: String| KeyFile::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(parse(text.replace("abab", "abac")), Error::Checksum));
        assert!(matches!(parse(text.replace("tracker", "trucker")), Error::Checksum));
        assert!(matches!(parse(text.replace("check:", "chuck:")), Error::Checksum));
        assert!(matches!(parse(text.replace("v1:", "v2:")), Error::NewerVersion { found: 2 }));
        assert!(matches!(parse(text.replace("v1:", "v0:")), Error::NotAKeyFile));
        assert!(matches!(
            parse(text.replace("tracker: ", "tracker ")),
            Error::BadLine { line: 4 } | Error::Checksum
        ));
        assert!(matches!(parse(text.replace("tracker: http", "secret: http")), Error::Repeated { .. }));
        assert!(matches!(parse(format!("{}x: y\n", *text)), Error::BadLine { line: 6 }));
        assert!(matches!(parse(String::new()), Error::NotAKeyFile));
        let file = sample();
        assert!(matches!(file.expect_kind("identity"), Err(Error::WrongKind { .. })));
        assert!(matches!(file.array::<31>("secret"), Err(Error::BadValue { .. })));
        assert!(matches!(file.bytes("tracker"), Err(Error::BadValue { .. })));
        assert!(matches!(file.text("nothing"), Err(Error::Missing { .. })));
        assert!(!format!("{file:?}").contains("abab"));
    }

    #[test]
    fn files_are_kept_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sample.key");
        sample().write(&path, Existing::Keep).unwrap();
        assert!(matches!(sample().write(&path, Existing::Keep), Err(Error::Exists)));
        sample().with_text("more", "x").write(&path, Existing::Replace).unwrap();
        assert_eq!(KeyFile::read(&path, "sample").unwrap().text("more").unwrap(), "x");
        assert!(matches!(KeyFile::read(&path, "other"), Err(Error::WrongKind { .. })));
        let kept = KeyFile::read_or_create(&path, "sample", sample).unwrap();
        assert!(kept.text("more").is_ok());
        let made = KeyFile::read_or_create(&dir.path().join("fresh.key"), "sample", sample).unwrap();
        assert!(made == sample());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = KeyFile::parse(&bytes);
            let titled = [b"swarmseal key file v1: x\n", &bytes[..]].concat();
            let _ = KeyFile::parse(&titled);
        }

        #[test]
        fn any_values_round_trip(
            values in prop::collection::btree_map("[a-z]{1,4}( [a-z]{2})?", "[!-~]( ?[!-~é]){0,20}", 0..6)
        ) {
            let file = values.iter().fold(KeyFile::new("x y"), |file, (name, value)| file.with_text(name, value));
            prop_assert!(KeyFile::parse(file.to_text().as_bytes()).unwrap() == file);
        }
    }
}
