//! Certificates that are trusted besides the system's: an operator's own authority.

use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError, RwLock};

use reqwest::Certificate;

/// Why a file of certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no certificate in it.
    #[error("{path}: expected certificates in PEM")]
    Pem {
        /// The file.
        path: PathBuf,
    },
}

fn trusted() -> &'static RwLock<Vec<Certificate>> {
    static TRUSTED: OnceLock<RwLock<Vec<Certificate>>> = OnceLock::new();
    TRUSTED.get_or_init(RwLock::default)
}

/// Trusts the certificates in a PEM file besides the system's, in this process, for clients made from now on.
pub fn trust(path: &Path) -> Result<(), TrustError> {
    let pem = std::fs::read(path).map_err(|source| TrustError::Io { path: path.to_owned(), source })?;
    let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if certificates.is_empty() {
        return Err(TrustError::Pem { path: path.to_owned() });
    }
    trusted().write().unwrap_or_else(PoisonError::into_inner).extend(certificates);
    Ok(())
}

/// Those that are trusted besides the system's.
pub(super) fn also() -> Vec<Certificate> {
    trusted().read().unwrap_or_else(PoisonError::into_inner).clone()
}
