//! The host's files, read by semihosting: what a player would have from its license, its storage and the network.

use core::ffi::CStr;
use core::fmt;

use semihosting::experimental::env::Args;
use semihosting::fs;
use semihosting::io::{self, Read};

/// Bytes of all arguments together.
pub(crate) const ARGUMENTS: usize = 1024;

/// Why a file was of no use.
pub(crate) enum Error {
    /// An argument is missing, or is no path.
    Argument(&'static str),
    /// The host says no.
    Host(&'static str, io::Error),
    /// It ends early.
    Short(&'static str),
    /// It is longer than the pieces ask for.
    Long(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Argument(name) => write!(f, "{name}: expected a value"),
            Error::Host(name, error) => write!(f, "{name}: {error}"),
            Error::Short(name) => write!(f, "{name}: expected more bytes"),
            Error::Long(name) => write!(f, "{name}: expected no more bytes"),
        }
    }
}

/// A file, read from its start to its end.
pub(crate) struct File {
    name: &'static str,
    file: fs::File,
}

impl File {
    /// The file that the next argument names.
    pub(crate) fn open(name: &'static str, args: &Args<ARGUMENTS>) -> Result<Self, Error> {
        let argument = argument(name, args)?;
        let mut path = [0; 256];
        let room = path.get_mut(..argument.len()).ok_or(Error::Argument(name))?;
        room.copy_from_slice(argument.as_bytes());
        let path = CStr::from_bytes_until_nul(&path).map_err(|_| Error::Argument(name))?;
        let file = fs::File::open(path).map_err(|error| Error::Host(name, error))?;
        Ok(File { name, file })
    }

    /// Fills `out`, or finds that the file has ended.
    pub(crate) fn read_or_end(&mut self, out: &mut [u8]) -> Result<bool, Error> {
        let mut done = 0;
        while done < out.len() {
            match self.file.read(&mut out[done..]).map_err(|error| Error::Host(self.name, error))? {
                0 if done == 0 => return Ok(false),
                0 => return Err(Error::Short(self.name)),
                read => done += read,
            }
        }
        Ok(true)
    }

    /// Fills `out`.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> Result<(), Error> {
        if self.read_or_end(out)? { Ok(()) } else { Err(Error::Short(self.name)) }
    }

    /// Whether the file goes on with these bytes. It is read on in any case.
    pub(crate) fn has(&mut self, expected: &[u8]) -> Result<bool, Error> {
        let mut part = [0; 256];
        let mut equal = true;
        for expected in expected.chunks(part.len()) {
            let part = &mut part[..expected.len()];
            self.read(part)?;
            equal &= part == expected;
        }
        Ok(equal)
    }

    /// Refuses a file with bytes that nobody asked for.
    pub(crate) fn end(mut self) -> Result<(), Error> {
        if self.read_or_end(&mut [0])? { Err(Error::Long(self.name)) } else { Ok(()) }
    }
}

/// The next argument.
pub(crate) fn argument<'a>(name: &'static str, mut args: &'a Args<ARGUMENTS>) -> Result<&'a str, Error> {
    args.next().and_then(Result::ok).ok_or(Error::Argument(name))
}
