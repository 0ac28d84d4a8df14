//! Whom TLS trusts: the system's certificates and an operator's own authority, read once in a process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

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
    /// It holds no certificate, or a damaged one.
    #[error("{path}: expected certificates in PEM")]
    Pem {
        /// The file.
        path: PathBuf,
    },
}

struct Trusted {
    /// Besides the system's.
    also: Vec<CertificateDer<'static>>,
    /// What follows from both, once it was asked for.
    config: Option<ClientConfig>,
}

static TRUSTED: Mutex<Trusted> = Mutex::new(Trusted { also: Vec::new(), config: None });

/// Trusts the certificates in a PEM file besides the system's, in this process, for clients made from now on.
pub fn trust(path: &Path) -> Result<(), TrustError> {
    let pem = std::fs::read(path).map_err(|source| TrustError::Io { path: path.to_owned(), source })?;
    let bad = || TrustError::Pem { path: path.to_owned() };
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| bad())?;
    let mut roots = RootCertStore::empty();
    let usable = certificates.iter().all(|certificate| roots.add(certificate.clone()).is_ok());
    if certificates.is_empty() || !usable {
        return Err(bad());
    }
    let mut trusted = TRUSTED.lock().unwrap_or_else(PoisonError::into_inner);
    trusted.also.extend(certificates);
    trusted.config = None;
    Ok(())
}

/// TLS as every HTTP client has it. A system may have no certificates: then no server is trusted, and plain HTTP works all the same.
pub(super) fn tls() -> ClientConfig {
    let mut trusted = TRUSTED.lock().unwrap_or_else(PoisonError::into_inner);
    let Trusted { also, config } = &mut *trusted;
    config.get_or_insert_with(|| configure(also)).clone()
}

fn configure(also: &[CertificateDer<'static>]) -> ClientConfig {
    // The first to come installs it; that another was installed before is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = ClientConfig::builder();
    let verifier = Verifier::new_with_extra_roots(also.iter().cloned(), builder.crypto_provider().clone());
    let mut config = match verifier {
        Ok(verifier) => builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)),
        Err(error) => {
            tracing::debug!(%error, "no certificates");
            builder.with_root_certificates(RootCertStore::empty())
        }
    }
    .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_hold_no_certificate_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        assert!(matches!(trust(&path), Err(TrustError::Io { .. })));
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "no certificate\n", nonsense] {
            std::fs::write(&path, text).unwrap();
            let refused = trust(&path).unwrap_err();
            assert_eq!(refused.to_string(), format!("{}: expected certificates in PEM", path.display()));
        }
    }
}
