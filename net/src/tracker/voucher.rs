//! The voucher key: codes are derived from it, and the store knows codes by MACs under it. It lies in a file of its own and in no backup: as
//! one line of hexadecimal or, under the passphrase of the master keys, as a [`SealedVoucherKey`].

use std::io;
use std::path::Path;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use zeroize::Zeroizing;

use super::secret_files::{self, Secret, SecretFileError};
use crate::atomic_file::Existing;
use crate::wire::keyfile::{Passphrase, SealedVoucherKey};
use crate::wire::voucher::VoucherKey;

/// Reads the voucher key, or makes one where there is no file; it is on the disk when this returns. With a passphrase, a key that lies
/// there in clear is sealed. Blocks. Errors: [`SecretFileError::Sealed`] where it is under a passphrase and there is none,
/// [`SecretFileError::OtherPassphrase`].
pub(super) fn open_key(path: &Path, passphrase: Option<&Passphrase>) -> Result<VoucherKey, SecretFileError> {
    let found = secret_files::read_sealed(path, SealedVoucherKey::KIND, passphrase, |file, passphrase| {
        Ok(SealedVoucherKey::from_key_file(file)?.open(passphrase))
    })?;
    let secret = match found {
        None => {
            let fresh = fresh(path)?;
            write(path, &fresh, passphrase, Existing::Keep)?;
            fresh
        }
        Some((clear, false)) if passphrase.is_some() => {
            write(path, &clear, passphrase, Existing::Replace)?;
            tracing::warn!(key = %path.display(), "the voucher key was sealed");
            clear
        }
        Some((secret, _)) => secret,
    };
    Ok(VoucherKey::from_bytes(&secret))
}

fn fresh(path: &Path) -> Result<Secret, SecretFileError> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice())
        .map_err(|error| SecretFileError::Io { path: path.to_owned(), source: io::Error::other(error) })?;
    Ok(secret)
}

fn write(
    path: &Path,
    secret: &Secret,
    passphrase: Option<&Passphrase>,
    existing: Existing,
) -> Result<(), SecretFileError> {
    let Some(passphrase) = passphrase else { return secret_files::write(path, secret, existing) };
    let sealed = SealedVoucherKey::seal(secret, passphrase, &mut UnwrapErr(SysRng));
    secret_files::write_sealed(path, sealed.as_ref().map(SealedVoucherKey::to_key_file), existing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_a_passphrase_seals_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("voucher.key");
        let text = || std::fs::read_to_string(&path).unwrap();
        let passphrase = |text: &str| Passphrase::new(Zeroizing::new(text.to_owned()));
        let key = *open_key(&path, None).unwrap().as_bytes();
        assert_eq!(text(), format!("{}\n", hex::encode(key)));
        assert_eq!(open_key(&path, None).unwrap().as_bytes(), &key);
        for _ in 0..2 {
            assert_eq!(open_key(&path, passphrase("a b c").as_ref()).unwrap().as_bytes(), &key);
            assert!(text().starts_with("swarmseal key file v1: sealed voucher key\n"), "{}", text());
            assert!(!text().contains(&hex::encode(key)), "{}", text());
        }
        assert!(matches!(open_key(&path, None), Err(SecretFileError::Sealed { .. })));
        let other = open_key(&path, passphrase("a b d").as_ref());
        assert!(matches!(other, Err(SecretFileError::OtherPassphrase { .. })));
    }

    #[test]
    fn a_fresh_key_is_sealed_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("voucher.key");
        let passphrase = Passphrase::new(Zeroizing::new("a b c".to_owned()));
        let key = *open_key(&path, passphrase.as_ref()).unwrap().as_bytes();
        assert!(!std::fs::read_to_string(&path).unwrap().contains(&hex::encode(key)));
        assert_eq!(open_key(&path, passphrase.as_ref()).unwrap().as_bytes(), &key);
    }
}
