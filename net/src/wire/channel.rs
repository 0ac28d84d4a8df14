//! What a player and the program that fetches into the same directory say to each other, on one machine.
//!
//! Who fetches listens on loopback and writes where into a file that its user alone can read (0600):
//!
//! ```text
//! swarmseal-channel 1
//! 127.0.0.1:43211
//! 64 hex digits: the token of this run
//! ```
//!
//! The player connects and says JSON, one value a line: first `hello` with the token, then what it reads next, and which stored
//! pieces are bad. It is told how many pieces were stored, each time that this changes. Neither side believes more than that:
//! what the player reads, it reads from the store and checks.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// The version that is written, and the newest that is read.
pub const VERSION: u64 = 1;
/// Bytes of the longest line.
pub const MAX_LINE: usize = 8 << 10;
/// Bytes of the longest file.
pub const MAX_FILE: usize = 512;
/// Pieces of one wish.
pub const MAX_PIECES: usize = 256;

const TITLE: &str = "swarmseal-channel";

/// Why a file or a line is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is of a newer program.
    #[error("the channel has version {found}; this program understands up to {VERSION}")]
    NewerVersion {
        /// The version found.
        found: u64,
    },
    /// It is none.
    #[error("not a channel's {0}")]
    Malformed(&'static str),
}

/// The secret of one run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token(pub [u8; 32]);

impl Token {
    /// Whether these are the same, in a time that does not depend on where they differ.
    pub fn is(&self, other: &Token) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Where to connect, and with which token: the file's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// On loopback.
    pub address: SocketAddr,
    /// What to say first.
    pub token: Token,
}

impl Endpoint {
    /// Reads the file. Errors: [`Error`]; an address that others could listen at is refused as well.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        const FILE: Error = Error::Malformed("file");
        let mut lines = text.lines();
        let version = lines.next().and_then(|line| line.strip_prefix(TITLE)?.strip_prefix(' '));
        match version.and_then(|version| version.parse().ok()).ok_or(FILE)? {
            VERSION => {}
            found if found > VERSION => return Err(Error::NewerVersion { found }),
            _ => return Err(FILE),
        }
        let address: SocketAddr = lines.next().and_then(|line| line.parse().ok()).ok_or(FILE)?;
        let mut token = [0; 32];
        hex::decode_to_slice(lines.next().ok_or(FILE)?, &mut token).map_err(|_| FILE)?;
        if !address.ip().is_loopback() || lines.next().is_some() {
            return Err(FILE);
        }
        Ok(Endpoint { address, token: Token(token) })
    }

    /// The file's contents.
    pub fn to_text(&self) -> String {
        format!("{TITLE} {VERSION}\n{}\n{}\n", self.address, hex::encode(self.token.0))
    }
}

/// What a player says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The first line.
    Hello {
        /// The token in the file.
        token: Token,
    },
    /// These pieces are read next, in this order; the last such line counts.
    Urgent(Vec<u32>),
    /// A stored piece does not open to what was published.
    Refetch {
        /// Which.
        piece: u32,
        /// BLAKE3 of the ciphertext that is bad.
        hash: [u8; 32],
    },
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Notice {
    /// So many pieces were stored in this run.
    Stored(u64),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Hello { v: u64, token: String },
    Urgent(Vec<u32>),
    Refetch { piece: u32, hash: String },
}

impl Request {
    /// Reads a line. Errors: [`Error`]; more than [`MAX_PIECES`] in one wish are refused.
    pub fn from_line(line: &[u8]) -> Result<Self, Error> {
        const LINE: Error = Error::Malformed("line");
        if line.len() > MAX_LINE {
            return Err(LINE);
        }
        let number = |hex: &str| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(hex, &mut bytes).map(|()| bytes).map_err(|_| LINE)
        };
        match serde_json::from_slice(line).map_err(|_| LINE)? {
            Line::Hello { v, .. } if v > VERSION => Err(Error::NewerVersion { found: v }),
            Line::Hello { v: VERSION, token } => Ok(Request::Hello { token: Token(number(&token)?) }),
            Line::Hello { .. } => Err(LINE),
            Line::Urgent(pieces) if pieces.len() > MAX_PIECES => Err(LINE),
            Line::Urgent(pieces) => Ok(Request::Urgent(pieces)),
            Line::Refetch { piece, hash } => Ok(Request::Refetch { piece, hash: number(&hash)? }),
        }
    }

    /// The line, with its end.
    pub fn to_line(&self) -> String {
        let line = match self {
            Request::Hello { token } => Line::Hello { v: VERSION, token: hex::encode(token.0) },
            Request::Urgent(pieces) => Line::Urgent(pieces.clone()),
            Request::Refetch { piece, hash } => Line::Refetch { piece: *piece, hash: hex::encode(hash) },
        };
        end(&line)
    }
}

impl Notice {
    /// Reads a line. Errors: [`Error::Malformed`].
    pub fn from_line(line: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(line).map_err(|_| Error::Malformed("notice"))
    }

    /// The line, with its end.
    pub fn to_line(&self) -> String {
        end(self)
    }
}

fn end(line: &impl Serialize) -> String {
    // Strings and numbers alone always go into JSON.
    serde_json::to_string(line).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files_and_lines_round_trip_and_are_what_they_say() {
        let endpoint = Endpoint { address: "127.0.0.1:4000".parse().unwrap(), token: Token([7; 32]) };
        assert_eq!(Endpoint::from_text(&endpoint.to_text()), Ok(endpoint));
        assert_eq!(format!("{endpoint:?}"), "Endpoint { address: 127.0.0.1:4000, token: Token(..) }");
        let line = Request::Refetch { piece: 7, hash: [0xab; 32] }.to_line();
        assert_eq!(line, format!("{{\"refetch\":{{\"piece\":7,\"hash\":\"{}\"}}}}\n", "ab".repeat(32)));
        assert_eq!(Request::Urgent(vec![3, 4]).to_line(), "{\"urgent\":[3,4]}\n");
        assert_eq!(Notice::Stored(5).to_line(), "{\"stored\":5}\n");
        let hello = Request::Hello { token: endpoint.token };
        for request in
            [hello, Request::Urgent(vec![0; MAX_PIECES]), Request::Refetch { piece: 1, hash: [2; 32] }]
        {
            let line = request.to_line();
            assert!(line.len() <= MAX_LINE);
            assert_eq!(Request::from_line(line.trim_end().as_bytes()), Ok(request));
        }
        assert_eq!(Notice::from_line(b"{\"stored\":5}"), Ok(Notice::Stored(5)));
    }

    #[test]
    fn foreign_newer_and_boundless_ones_are_refused() {
        let token = "00".repeat(32);
        for text in [
            String::new(),
            "swarmseal-channel".to_owned(),
            format!("swarmseal-channel 0\n127.0.0.1:1\n{token}\n"),
            format!("swarmseal-channel 1\n192.0.2.1:1\n{token}\n"),
            format!("swarmseal-channel 1\n127.0.0.1:1\n{token}00\n"),
            format!("swarmseal-channel 1\n127.0.0.1:1\n{token}\nmore\n"),
        ] {
            assert_eq!(Endpoint::from_text(&text), Err(Error::Malformed("file")), "{text}");
        }
        let newer = format!("swarmseal-channel 2\nanything\n{token}\n");
        assert_eq!(Endpoint::from_text(&newer), Err(Error::NewerVersion { found: 2 }));
        let hello = format!("{{\"hello\":{{\"v\":2,\"token\":\"{token}\"}}}}");
        assert_eq!(Request::from_line(hello.as_bytes()), Err(Error::NewerVersion { found: 2 }));
        let many = Request::Urgent(vec![0; MAX_PIECES + 1]).to_line();
        for line in [
            "",
            "{}",
            "{\"urgent\":[-1]}",
            "{\"refetch\":{\"piece\":1,\"hash\":\"00\"}}",
            "{\"other\":1}",
            &many,
        ] {
            assert_eq!(Request::from_line(line.as_bytes()), Err(Error::Malformed("line")), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
            let _ = (Request::from_line(&bytes), Notice::from_line(&bytes), Endpoint::from_text(&text));
        }
    }
}
