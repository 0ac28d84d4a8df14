//! Files of 32 secret bytes, as one line of hexadecimal, 0600, written once and synced before they count.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::atomic_file::{self, Access, Existing};
use crate::platform::make_private_dir;
use crate::wire::keyfile::{self, KeyFile, Passphrase};

/// What such a file holds.
pub(super) type Secret = Zeroizing<[u8; 32]>;

/// Why a secret file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is under a passphrase, and none was given.
    #[error(
        "{path}: the key is under a passphrase: expected --master-passphrase-file, SWARMSEAL_MASTER_PASSPHRASE or \
         --ask-passphrase"
    )]
    Sealed {
        /// The file.
        path: PathBuf,
    },
    /// It is under another passphrase, or belongs under another name.
    #[error("{path}: the passphrase does not open it")]
    OtherPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// There is no memory to seal it.
    #[error("{path}: there is not enough memory to seal it")]
    NoMemory {
        /// The file.
        path: PathBuf,
    },
    /// It is a key file, and damaged or newer than this program.
    #[error("{path}: {source}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: keyfile::Error,
    },
    /// It is not one line of 64 hexadecimal digits.
    #[error("{path}: expected one line of 64 hexadecimal digits")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// A directory that only its owner enters.
pub(super) fn create_directory(path: &Path) -> Result<(), SecretFileError> {
    make_private_dir(path).map_err(|source| SecretFileError::Io { path: path.to_owned(), source })
}

/// The secret in the file; where there is no file, a fresh one. Also whether it is fresh.
pub(super) fn read_or_create(path: &Path) -> Result<(Secret, bool), SecretFileError> {
    match read(path)? {
        Some(secret) => Ok((secret, false)),
        None => Ok((create(path)?, true)),
    }
}

/// Puts a secret that another is to replace aside, under a name with the time in it.
pub(super) fn retire(path: &Path, now: u64) -> Result<(), SecretFileError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".until-{now}"));
    match std::fs::rename(path, aside) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(SecretFileError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// The secret in the file, if the file is there.
pub(super) fn read(path: &Path) -> Result<Option<Secret>, SecretFileError> {
    let failed = |source| SecretFileError::Io { path: path.to_owned(), source };
    // With room for all: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(512));
    match File::open(path) {
        Ok(file) => file.take(256).read_to_string(&mut text).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_end(), secret.as_mut_slice())
        .map_err(|_| SecretFileError::Malformed { path: path.to_owned() })?;
    Ok(Some(secret))
}

/// A secret that may be under a passphrase, and whether it is; none where there is no file. `kind`: of the key file that it is in then;
/// `open` gives nothing where the passphrase is another, or the file is another's.
pub(super) fn read_sealed(
    path: &Path,
    kind: &str,
    passphrase: Option<&Passphrase>,
    open: impl FnOnce(&KeyFile, &Passphrase) -> Result<Option<Secret>, keyfile::Error>,
) -> Result<Option<(Secret, bool)>, SecretFileError> {
    let key_file = |source| SecretFileError::KeyFile { path: path.to_owned(), source };
    let file = match KeyFile::read(path, kind) {
        Ok(file) => file,
        // One line of hexadecimal.
        Err(keyfile::Error::NotAKeyFile) => return Ok(read(path)?.map(|secret| (secret, false))),
        Err(keyfile::Error::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(key_file(error)),
    };
    let passphrase = passphrase.ok_or_else(|| SecretFileError::Sealed { path: path.to_owned() })?;
    let opened = open(&file, passphrase).map_err(key_file)?;
    let opened = opened.ok_or_else(|| SecretFileError::OtherPassphrase { path: path.to_owned() })?;
    Ok(Some((opened, true)))
}

/// Writes a secret that was sealed; it is on the disk under its name before this returns. `sealed`: none where there was no memory.
pub(super) fn write_sealed(
    path: &Path,
    sealed: Option<KeyFile>,
    existing: Existing,
) -> Result<(), SecretFileError> {
    let sealed = sealed.ok_or_else(|| SecretFileError::NoMemory { path: path.to_owned() })?;
    let written = sealed.write(path, existing);
    written.map_err(|source| SecretFileError::KeyFile { path: path.to_owned(), source })
}

/// A fresh secret, on the disk under its name before this returns.
fn create(path: &Path) -> Result<Secret, SecretFileError> {
    let failed = |source| SecretFileError::Io { path: path.to_owned(), source };
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice()).map_err(|error| failed(io::Error::other(error)))?;
    write(path, &secret, Existing::Keep)?;
    Ok(secret)
}

/// Writes a secret; it is on the disk under its name before this returns.
pub(super) fn write(path: &Path, secret: &[u8; 32], existing: Existing) -> Result<(), SecretFileError> {
    let mut text = Zeroizing::new([b'\n'; 65]);
    hex::encode_to_slice(secret, &mut text[..64]).expect("two digits a byte");
    atomic_file::write(path, &*text, Access::Private, existing)
        .map_err(|source| SecretFileError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        let (first, fresh) = read_or_create(&path).unwrap();
        assert!(fresh);
        let (second, fresh) = read_or_create(&path).unwrap();
        assert!(!fresh);
        assert_eq!(*first, *second);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_secret_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        std::fs::write(&path, "not a secret\n").unwrap();
        assert!(matches!(read_or_create(&path), Err(SecretFileError::Malformed { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "not a secret\n");
    }
}
