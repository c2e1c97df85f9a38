//! Our side of TLS: a certificate and key from PEM, and a handle through which they can be replaced while we serve.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::clock::Timestamp;

/// What ALPN calls HTTP/2 (RFC 9113 section 3.2).
pub(super) const ALPN_H2: &[u8] = b"h2";
/// What ALPN calls HTTP/1.1 (RFC 7301 section 6).
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Why a certificate and key cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file has no certificate in it; perhaps it is DER, or it is the key's file.
    #[error("there is no `-----BEGIN CERTIFICATE-----` in the certificate file; it must be PEM")]
    NoCertificate,
    /// The certificate file is cut off or damaged.
    #[error("the certificate file is damaged or holds a certificate that cannot be read")]
    CertificateUnreadable,
    /// The key file has no private key in it.
    #[error(
        "there is no private key in the key file; it must be PEM with `PRIVATE KEY`, `RSA PRIVATE KEY` or \
         `EC PRIVATE KEY`"
    )]
    NoKey,
    /// The key is protected by a passphrase, which a service that starts by itself cannot type.
    #[error("the private key is protected by a passphrase; write it without one, e.g. with `openssl pkey`")]
    KeyEncrypted,
    /// The key file is damaged, or of a kind that ring cannot use: RSA below 2048 bits, curves but P-256, P-384 and
    /// Ed25519.
    #[error(
        "the private key is damaged or of an unsupported kind (RSA 2048 to 8192, P-256, P-384 and Ed25519 are)"
    )]
    KeyUnusable,
    /// The key belongs to another certificate, or the chain does not start with ours.
    #[error("the private key does not belong to the first certificate in the certificate file")]
    KeyMismatch,
    /// A throw-away certificate was asked for with a name that is neither a DNS name nor an address.
    #[error("`{0}` cannot be a name in a certificate")]
    BadName(String),
    /// The TLS library failed in a way that no file explains.
    #[error("TLS cannot be set up")]
    Library(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Builds what a listener serves: TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1, resumption by tickets.
///
/// `certificate_pem` is the chain, our own certificate first; `key_pem` is PKCS#8, PKCS#1 or SEC1. One file may be
/// given for both.
pub fn tls_config(certificate_pem: &[u8], key_pem: &[u8]) -> Result<ServerConfig, TlsError> {
    let chain = CertificateDer::pem_slice_iter(certificate_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| TlsError::CertificateUnreadable)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(library)?
        .with_no_client_auth()
        .with_single_cert(chain, private_key(key_pem)?)
        .map_err(certificate_error)?;
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
    config.ticketer = Ticketer::new().map_err(library)?;
    Ok(config)
}

/// When the first certificate of a PEM file ends; `None` when it cannot be read.
pub fn certificate_ends_at(certificate_pem: &[u8]) -> Option<Timestamp> {
    let first = CertificateDer::pem_slice_iter(certificate_pem).next()?.ok()?;
    let certificate = Certificate::from_der(&first).ok()?;
    let end = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    Some(Timestamp::from_seconds(i64::try_from(end.as_secs()).ok()?))
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    // PKCS#8 says it in its label; the older form in a header of RFC 1421, which the PEM reader takes for base64.
    if contains(pem, b"BEGIN ENCRYPTED PRIVATE KEY") || contains(pem, b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::KeyEncrypted);
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        if matches!(error, rustls::pki_types::pem::Error::NoItemsFound) {
            TlsError::NoKey
        } else {
            TlsError::KeyUnusable
        }
    })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are many and only these four are the user's"
)]
fn certificate_error(error: rustls::Error) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::KeyMismatch,
        rustls::Error::InvalidCertificate(_) => TlsError::CertificateUnreadable,
        rustls::Error::NoCertificatesPresented => TlsError::NoCertificate,
        // ring's reason names no part of the key, but it would not tell an admin more either.
        rustls::Error::General(_) => TlsError::KeyUnusable,
        other => library(other),
    }
}

fn library(error: impl std::error::Error + Send + Sync + 'static) -> TlsError {
    TlsError::Library(Box::new(error))
}

/// The TLS settings that new connections get. Clones share them, so one clone can replace what another serves.
#[derive(Debug, Clone)]
pub struct TlsHandle(Arc<RwLock<Arc<ServerConfig>>>);

impl TlsHandle {
    /// Starts with `config`.
    pub fn new(config: ServerConfig) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    /// What a connection accepted now gets.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what later connections get; those that are open keep theirs.
    pub fn replace(&self, config: ServerConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::server::self_signed;

    fn check(certificate: &str, key: &str, wanted: &str) {
        let refused = tls_config(certificate.as_bytes(), key.as_bytes()).err();
        assert_eq!(refused.map(|error| format!("{error:?}")).as_deref(), Some(wanted));
    }

    #[test]
    fn each_mistake_with_files_has_its_own_answer() {
        let mine = self_signed(&["localhost"], &Clock::machine()).expect("a certificate");
        let other = self_signed(&["localhost"], &Clock::machine()).expect("a certificate");
        let (certificate, key) = (mine.certificate_pem.as_str(), mine.key_pem.expose());

        assert!(tls_config(certificate.as_bytes(), key.as_bytes()).is_ok());
        let both = format!("{key}{certificate}");
        assert!(tls_config(both.as_bytes(), both.as_bytes()).is_ok(), "one file may hold both");

        check("", key, "NoCertificate");
        check(key, key, "NoCertificate");
        check(&certificate[..certificate.len() / 2], key, "CertificateUnreadable");
        check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key, "CertificateUnreadable");
        check(certificate, "", "NoKey");
        check(certificate, certificate, "NoKey");
        check(certificate, other.key_pem.expose(), "KeyMismatch");
        check(certificate, &key[..key.len() / 2], "KeyUnusable");
        check(certificate, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "KeyUnusable");
        check(certificate, &key.replace("PRIVATE", "ENCRYPTED PRIVATE"), "KeyEncrypted");
        let old =
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n";
        check(certificate, old, "KeyEncrypted");
    }

    #[test]
    fn a_replaced_certificate_is_what_the_next_connection_gets() {
        let config = || {
            let made = self_signed(&["localhost"], &Clock::machine()).expect("a certificate");
            tls_config(made.certificate_pem.as_bytes(), made.key_pem.expose().as_bytes()).expect("a config")
        };
        let handle = TlsHandle::new(config());
        let before = handle.current();
        handle.clone().replace(config());
        assert!(!Arc::ptr_eq(&before, &handle.current()));
    }
}
