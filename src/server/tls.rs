//! TLS: certificates from files, or made for one run.

use std::sync::{Arc, RwLock};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair as GeneratedKey, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate in the file.
    #[error("the certificate file holds no certificate in PEM form")]
    NoCertificate,
    /// No key in the file, or an encrypted one.
    #[error("the key file holds no unencrypted private key in PEM form (PKCS#8, PKCS#1 or SEC1)")]
    NoKey,
    /// The two do not belong together, or are of a kind that cannot be used.
    #[error("certificate and key cannot be used together: {0}")]
    Unusable(String),
}

/// How connections are made.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Plain HTTP/1.1.
    Plain,
    /// TLS, with HTTP/2 or HTTP/1.1.
    Tls(TlsHandle),
}

impl Transport {
    /// TLS with this configuration.
    pub fn tls(config: ServerConfig) -> Self {
        Self::Tls(TlsHandle(Arc::new(RwLock::new(Arc::new(config)))))
    }
}

/// The TLS configuration that new connections use; clones share it.
#[derive(Debug, Clone)]
pub struct TlsHandle(Arc<RwLock<Arc<ServerConfig>>>);

impl TlsHandle {
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Reads a certificate chain and its key.
pub fn tls_config(certificate_pem: &[u8], key_pem: &[u8]) -> Result<ServerConfig, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate_pem).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(TlsError::NoCertificate)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| TlsError::NoKey)?;
    let unusable = |error: rustls::Error| TlsError::Unusable(error.to_string());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new().map_err(unusable)?;
    Ok(config)
}

/// A certificate for one run, with the authority that signed it: clients refuse a certificate that is its own authority.
#[derive(Debug)]
pub struct SelfSigned {
    /// The certificate.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: String,
    /// What clients have to trust.
    pub authority_pem: String,
}

/// Makes a certificate for these names.
pub fn self_signed(names: &[&str]) -> Result<SelfSigned, TlsError> {
    let unusable = |error: rcgen::Error| TlsError::Unusable(error.to_string());
    let authority_key = GeneratedKey::generate().map_err(unusable)?;
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(rcgen::DnType::CommonName, "Chartgate, for this run only");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_certificate = authority.self_signed(&authority_key).map_err(unusable)?;
    let key = GeneratedKey::generate().map_err(unusable)?;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = CertificateParams::new(names).map_err(unusable)?;
    let issuer = Issuer::new(authority, authority_key);
    let certificate = leaf.signed_by(&key, &issuer).map_err(unusable)?;
    Ok(SelfSigned {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
        authority_pem: authority_certificate.pem(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_certificate_can_be_served_and_wrong_files_are_told_apart() {
        let made = self_signed(&["localhost", "127.0.0.1"]).expect("made");
        assert!(tls_config(made.certificate_pem.as_bytes(), made.key_pem.as_bytes()).is_ok());
        let other = self_signed(&["localhost"]).expect("made");
        let check = |certificate: &str, key: &str, expected: &str| {
            let error = tls_config(certificate.as_bytes(), key.as_bytes()).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("", &made.key_pem, "no certificate");
        check(&made.key_pem, &made.key_pem, "no certificate");
        check(&made.certificate_pem, "nothing", "no unencrypted private key");
        check(&made.certificate_pem, &other.key_pem, "cannot be used together");
    }
}
