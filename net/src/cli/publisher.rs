//! The publisher's key: where it lies, and under which passphrase.

use std::path::{Path, PathBuf};

use getrandom::SysRng;
use rand_core::UnwrapErr;

use super::glue::PassphraseSource;
use super::subscription::at;
use super::{DataDir, Exit, Failure, Output};
use crate::atomic_file::Existing;
use crate::wire::keyfile::{KeyFile, Passphrase, PublisherKey, SealedPublisher};

/// [`PassphraseSource::variable`] of the publisher's key.
const PASSPHRASE: &str = "SWARMSEAL_PUBLISHER_PASSPHRASE";

/// Flags of what needs the publisher's key.
#[derive(Debug, clap::Args)]
pub(super) struct PublisherArgs {
    /// The publisher's key file [default: publisher/publisher.key in the data directory, made on first use]
    #[arg(long, env = "SWARMSEAL_PUBLISHER_KEY", value_name = "FILE")]
    publisher_key: Option<PathBuf>,
    /// A file with the passphrase of the publisher's key: one that lies in clear is sealed. SWARMSEAL_PUBLISHER_PASSPHRASE has the
    /// passphrase itself
    #[arg(long, env = "SWARMSEAL_PUBLISHER_PASSPHRASE_FILE", value_name = "FILE")]
    publisher_passphrase_file: Option<PathBuf>,
    /// Ask for the passphrase of the publisher's key on the terminal
    #[arg(long, env = "SWARMSEAL_ASK_PASSPHRASE")]
    ask_passphrase: bool,
}

impl PublisherArgs {
    /// Opens the key. Makes the default key file if it is missing.
    pub(super) fn open(&self, data: &DataDir, output: Output) -> Result<PublisherKey, Failure> {
        let passphrase = PassphraseSource {
            of: "publisher's key",
            variable: PASSPHRASE,
            file: self.publisher_passphrase_file.as_deref(),
            ask: self.ask_passphrase,
        };
        let path = match &self.publisher_key {
            Some(path) => path.clone(),
            None => data.publisher()?.join("publisher.key"),
        };
        if self.publisher_key.is_none() && !path.exists() {
            let key = PublisherKey::generate(&mut UnwrapErr(SysRng));
            write(&path, &key, passphrase.read_new()?.as_ref(), Existing::Keep)?;
            output.note(format!(
                "Made the publisher's key {}: all your torrents depend on it; keep it secret, and keep a copy elsewhere",
                path.display()
            ));
            return Ok(key);
        }
        let file = KeyFile::read_any(&path).map_err(at(&path))?;
        if file.kind() == SealedPublisher::KIND {
            let sealed = SealedPublisher::from_key_file(&file).map_err(at(&path))?;
            let passphrase = passphrase.read()?.ok_or_else(|| {
                Failure::new(
                    Exit::Usage,
                    format!(
                        "{}: the key is under a passphrase: expected --publisher-passphrase-file, {PASSPHRASE} or --ask-passphrase",
                        path.display()
                    ),
                )
            })?;
            return sealed.open(&passphrase).ok_or_else(|| {
                Failure::new(Exit::WrongKey, format!("{}: the passphrase does not open it", path.display()))
            });
        }
        let key = PublisherKey::from_key_file(&file).map_err(at(&path))?;
        if let Some(passphrase) = passphrase.read_new()? {
            write(&path, &key, Some(&passphrase), Existing::Replace)?;
            output.note(format!("{}: the publisher's key was sealed", path.display()));
        }
        Ok(key)
    }
}

fn write(
    path: &Path,
    key: &PublisherKey,
    passphrase: Option<&Passphrase>,
    existing: Existing,
) -> Result<(), Failure> {
    let seal = |passphrase| {
        SealedPublisher::seal(key, passphrase, &mut UnwrapErr(SysRng)).ok_or_else(|| {
            Failure::new(Exit::Failed, format!("{}: there is not enough memory to seal it", path.display()))
        })
    };
    let file = match passphrase {
        Some(passphrase) => seal(passphrase)?.to_key_file(),
        None => key.to_key_file(),
    };
    file.write(path, existing).map_err(at(path))
}
