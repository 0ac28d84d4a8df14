//! Passphrases of key files: from the terminal, a file or the environment.

use std::path::Path;

use zeroize::Zeroizing;

use crate::cli::{Exit, Failure};
use crate::wire::keyfile::Passphrase;

/// Where a passphrase comes from.
pub(crate) struct PassphraseSource<'a> {
    /// What is under it, for people.
    pub(crate) of: &'static str,
    /// The environment variable with the passphrase itself. A flag would show it in the list of processes.
    pub(crate) variable: &'static str,
    /// A file that has it, which goes before the variable.
    pub(crate) file: Option<&'a Path>,
    /// Ask on the terminal, which goes before both.
    pub(crate) ask: bool,
}

impl PassphraseSource<'_> {
    /// The passphrase, if there is to be one.
    pub(crate) fn read(&self) -> Result<Option<Passphrase>, Failure> {
        let (text, from) = match (self.file, self.ask) {
            (_, true) => (self.prompt("")?, "the terminal".to_owned()),
            (Some(path), false) => {
                let text = std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?;
                (Zeroizing::new(text), path.display().to_string())
            }
            (None, false) => match std::env::var(self.variable) {
                Ok(text) => (Zeroizing::new(text), self.variable.to_owned()),
                Err(_) => return Ok(None),
            },
        };
        let empty = || Failure::new(Exit::Usage, format!("{from}: expected a passphrase"));
        Passphrase::new(text).ok_or_else(empty).map(Some)
    }

    /// The same for a key that is about to be sealed: what is typed is asked for twice.
    pub(crate) fn read_new(&self) -> Result<Option<Passphrase>, Failure> {
        let passphrase = self.read()?;
        if self.ask && passphrase != Passphrase::new(self.prompt(" again")?) {
            return Err(Failure::new(Exit::Usage, "the passphrases differ: nothing was sealed"));
        }
        Ok(passphrase)
    }

    fn prompt(&self, again: &str) -> Result<Zeroizing<String>, Failure> {
        let asked = rpassword::prompt_password(format!("Passphrase of the {}{again}: ", self.of));
        let failed = |error| Failure::new(Exit::Failed, format!("no passphrase from the terminal: {error}"));
        asked.map(Zeroizing::new).map_err(failed)
    }
}
