//! Voucher codes on the command line: their sources, and the check that they pass before anything is sent.

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::{Exit, Failure};
use crate::wire::metainfo::Seal;
use crate::wire::voucher::{CheckedCode, Error, VoucherCode};

const HEADING: &str = "Voucher";
/// Bytes of the longest line that is read for a code.
const MAX_LINE: u64 = 256;

/// Flags of verbs that take a voucher's code. `--ask-voucher` goes before `--voucher-file`, and that goes before `--voucher`.
#[derive(Debug, clap::Args)]
pub(crate) struct VoucherSource {
    /// Its code; other users of this machine can read it in the process list
    #[arg(long, env = "SWARMSEAL_VOUCHER", value_name = "CODE", hide_env_values = true, value_parser = typed, help_heading = HEADING)]
    voucher: Option<Typed>,
    /// A file whose first line is its code; - is standard input
    #[arg(long, env = "SWARMSEAL_VOUCHER_FILE", value_name = "FILE", help_heading = HEADING)]
    voucher_file: Option<PathBuf>,
    /// Ask for its code on the terminal
    #[arg(long, env = "SWARMSEAL_ASK_VOUCHER", help_heading = HEADING)]
    ask_voucher: bool,
}

/// The text given for a code. Clap's errors show a value that its parser refuses, so this parser takes any text.
#[derive(Clone)]
struct Typed(Zeroizing<String>);

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Typed(..)")
    }
}

fn typed(text: &str) -> Result<Typed, Infallible> {
    Ok(Typed(Zeroizing::new(text.to_owned())))
}

impl VoucherSource {
    /// Whether a voucher is given.
    pub(crate) fn is_given(&self) -> bool {
        self.ask_voucher || self.voucher_file.is_some() || self.voucher.is_some()
    }

    /// The code, checked against the seller of a torrent. Errors: [`Exit::NotLicensed`] for a typo and for another seller's code,
    /// [`Exit::Storage`] for a file that cannot be read.
    pub(crate) fn read(&self, seal: &Seal) -> Result<Option<CheckedCode>, Failure> {
        let code = self.read_any()?;
        code.map(|code| code.checked(&seal.publisher_key)).transpose().map_err(refused)
    }

    /// The code of any seller. Errors: as [`VoucherSource::read`].
    pub(crate) fn read_any(&self) -> Result<Option<VoucherCode>, Failure> {
        let text = match (self.ask_voucher, &self.voucher_file, &self.voucher) {
            (true, ..) => prompt()?,
            (false, Some(path), _) if path == Path::new("-") => first_line(io::stdin().lock(), path)?,
            (false, Some(path), _) => {
                let file = File::open(path).map_err(|error| Failure::file(path, &error))?;
                first_line(BufReader::new(file), path)?
            }
            (false, None, Some(Typed(text))) => text.clone(),
            (false, None, None) => return Ok(None),
        };
        VoucherCode::parse(&text).map(Some).map_err(refused)
    }
}

fn prompt() -> Result<Zeroizing<String>, Failure> {
    let failed = |error| Failure::new(Exit::Failed, format!("no voucher code from the terminal: {error}"));
    rpassword::prompt_password("Voucher code: ").map(Zeroizing::new).map_err(failed)
}

fn first_line(from: impl BufRead, path: &Path) -> Result<Zeroizing<String>, Failure> {
    // With room for all: growing would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE as usize));
    from.take(MAX_LINE).read_until(b'\n', &mut line).map_err(|error| Failure::file(path, &error))?;
    Ok(Zeroizing::new(String::from_utf8_lossy(&line).into_owned()))
}

/// A code that was refused before anything was sent.
fn refused(error: Error) -> Failure {
    let reason = match error {
        Error::Length { .. } | Error::Character { .. } => "no-voucher-code",
        Error::OtherSeller { .. } => "other-seller",
    };
    Failure::new(Exit::NotLicensed, error.to_string()).with(json!({ "reason": reason }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::wire::voucher::VoucherKey;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        voucher: VoucherSource,
    }

    fn source(args: &[&str]) -> VoucherSource {
        Line::try_parse_from([&["x"], args].concat()).unwrap().voucher
    }

    #[test]
    fn a_file_goes_before_the_argument_and_its_first_line_counts() {
        let codes = [0, 1].map(|number| VoucherKey::from_bytes(&[1; 32]).code("1", 0, number, &[2; 32]));
        let texts = codes.each_ref().map(|code| code.to_text());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("code");
        let named = path.to_str().unwrap();
        let read = |source: &VoucherSource| source.read_any().map_err(|failure| failure.exit);

        assert!(!source(&[]).is_given() && read(&source(&[])) == Ok(None));
        let argument = source(&["--voucher", &texts[0]]);
        assert_eq!(read(&argument), Ok(Some((*codes[0]).clone())));
        let both = source(&["--voucher", &texts[0], "--voucher-file", named]);
        assert_eq!(read(&both), Err(Exit::Storage));
        std::fs::write(&path, format!("  {}\r\nnothing of this\n", texts[1].to_lowercase())).unwrap();
        assert_eq!(read(&both), Ok(Some((*codes[1]).clone())));
        // A file of anything is read as far as a code may go.
        for bytes in [vec![], vec![b'0'; 100_000], vec![0xFF; 24]] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read(&both), Err(Exit::NotLicensed));
        }
        assert!(source(&["--ask-voucher"]).is_given());
    }

    #[test]
    fn a_code_is_in_no_error_and_not_in_debug() {
        let code = VoucherKey::from_bytes(&[1; 32]).code("1", 0, 0, &[2; 32]);
        let text = code.to_text();
        for typed in [&text[..], &text[1..], &format!("{}U", &text[..28])] {
            let source = source(&["--voucher", typed]);
            let refused = source.read_any().and_then(|code| code.unwrap().checked(&[3; 32]).map_err(refused));
            let shown = format!("{source:?} {:?}", refused.unwrap_err());
            assert!(!shown.contains(&text[5..9]) && !shown.contains(&text[10..14]), "{shown}");
        }
    }
}
