//! The tracker's certificate: read from PEM files, and read again while connections go on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// HTTP/2 where the client can.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It is no PEM file, or has nothing of what is expected.
    #[error("{path}: expected {expected} in PEM: {reason}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What is wrong; no part of the file.
        reason: String,
    },
    /// Certificate and key do not go together, or are of no kind that TLS knows.
    #[error("{certificate}: {source}")]
    Refused {
        /// The certificate's file.
        certificate: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate in use.
pub(super) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads both files.
    pub(super) fn open(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(read(certificate, key)?));
        Ok(Tls { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// Reads both files again, for connections from now on. Errors: what was in use stays in use.
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        let fresh = Arc::new(read(&self.certificate, &self.key)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// What a new connection uses.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(certificate: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let pem = |path: &Path, expected| {
        let path = path.to_owned();
        move |error: rustls::pki_types::pem::Error| TlsError::Pem {
            path,
            expected,
            reason: error.to_string(),
        }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(pem(certificate, "certificates"))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(pem(key, "a private key"))?;
    let refused = |source| TlsError::Refused { certificate: certificate.to_owned(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(refused)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.ticketer = ring::Ticketer::new().map_err(refused)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(directory: &Path, name: &str) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(directory.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_certificate_is_replaced_and_a_bad_one_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        assert!(matches!(Tls::open(&certificate, &key), Err(TlsError::Pem { .. })));
        made(directory.path(), "one.test");
        let tls = Tls::open(&certificate, &key).unwrap();
        let first = tls.current();
        made(directory.path(), "two.test");
        tls.reload().unwrap();
        let second = tls.current();
        assert!(!Arc::ptr_eq(&first, &second));

        // Another's key; no key at all, and what is in the file is not repeated.
        let other = rcgen::generate_simple_self_signed(["three.test".to_owned()]).unwrap();
        std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
        assert!(matches!(tls.reload(), Err(TlsError::Refused { .. })));
        std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n").unwrap();
        let error = tls.reload().unwrap_err();
        assert!(error.to_string().contains("key.pem") && !error.to_string().contains("c2VjcmV0"), "{error}");
        assert!(Arc::ptr_eq(&tls.current(), &second));
    }
}
