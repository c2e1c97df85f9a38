//! A throw-away authority and one certificate of it, for the demo and for tests.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::clock::Clock;
use crate::secret::Secret;
use crate::server::TlsError;

/// Browsers refuse certificates that are valid for longer than 398 days.
const LIFE: Duration = Duration::from_hours(90 * 24);
/// A client's clock may be behind ours.
const HEAD_START: Duration = Duration::from_hours(24);

/// A certificate that nobody trusts until told to.
#[derive(Debug)]
pub struct SelfSigned {
    /// The server's own certificate, to be served with `key_pem`.
    pub certificate_pem: String,
    /// Its key, PKCS#8.
    pub key_pem: Secret,
    /// The authority's certificate, which a client is told to trust. Its key is gone: it can sign nothing more.
    pub authority_pem: String,
}

/// Makes a certificate for `names` (DNS names and IP addresses), valid for 90 days.
///
/// It is signed by an authority of its own, because certificate checkers built on webpki refuse an authority's
/// certificate as a server's.
pub fn self_signed(names: &[&str], clock: &Clock) -> Result<SelfSigned, TlsError> {
    let since_epoch = Duration::from_millis(u64::try_from(clock.now().millis()).unwrap_or(0));
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_epoch;
    let params = |names: &[&str], name: &str| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = now - HEAD_START;
        params.not_after = now + LIFE;
        Ok::<_, rcgen::Error>(params)
    };

    let mut authority = params(&[], "Chartgate demo authority").map_err(library)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate().map_err(library)?;
    let authority_certificate = authority.self_signed(&authority_key).map_err(library)?;

    let mut leaf = params(names, "Chartgate demo").map_err(|_| TlsError::BadName(names.join(", ")))?;
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf_key = KeyPair::generate().map_err(library)?;
    let leaf_certificate =
        leaf.signed_by(&leaf_key, &Issuer::new(authority, authority_key)).map_err(library)?;

    Ok(SelfSigned {
        certificate_pem: leaf_certificate.pem(),
        key_pem: Secret::new(leaf_key.serialize_pem()),
        authority_pem: authority_certificate.pem(),
    })
}

fn library(error: rcgen::Error) -> TlsError {
    TlsError::Library(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_certificate_can_hold_is_refused() {
        let refused = self_signed(&["localhost", "bücher"], &Clock::machine());
        assert!(matches!(refused, Err(TlsError::BadName(names)) if names.contains("bücher")));
    }
}
