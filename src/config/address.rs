//! Addresses on the web: our own public one and the checks for those of others.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::config::Environment;

/// The address patients and EHRs know us by: scheme, host and port. Everything registered at an EHR is built from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicUrl {
    origin: String,
    secure: bool,
}

/// Why a text is not an acceptable address; the texts are kinds, the address itself is never in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Not an absolute URL with a host.
    #[error("text that is not a web address")]
    Unreadable,
    /// Neither `https` nor `http`.
    #[error("an address that is not https")]
    Scheme,
    /// `http` to another machine.
    #[error("an http address that is not on this machine")]
    Insecure,
    /// `http` on this machine, but with real patients.
    #[error("an http address in the live environment")]
    InsecureLive,
    /// A user name or a password.
    #[error("an address with a user name or password")]
    Credentials,
    /// More than a host.
    #[error("an address with a path")]
    Path,
    /// A part after `?`.
    #[error("an address with a query")]
    Query,
    /// A part after `#`.
    #[error("an address with a fragment")]
    Fragment,
}

impl PublicUrl {
    /// Accepts an `https` origin; `http` only on `localhost`, `127.0.0.1` and `[::1]`, where browsers too treat it as
    /// secure. A trailing slash is dropped.
    pub fn parse(text: &str) -> Result<Self, BadAddress> {
        let url = parse_web(text)?;
        if url.path() != "/" {
            return Err(BadAddress::Path);
        }
        if url.query().is_some() {
            return Err(BadAddress::Query);
        }
        let secure = url.scheme() == "https";
        if !secure && !matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            return Err(BadAddress::Insecure);
        }
        Ok(Self { origin: url.origin().ascii_serialization(), secure })
    }

    /// Scheme, host and port when it is not the scheme's own, without a slash at the end.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether browsers reach us by TLS, so that cookies can be `Secure`.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The redirect URI to register at every EHR, compared there character by character.
    pub fn redirect_uri(&self) -> String {
        format!("{}/api/auth/smart/callback", self.origin)
    }

    /// The address of our key set, to register at every EHR.
    pub fn jwks_uri(&self) -> String {
        format!("{}/api/auth/.well-known/jwks", self.origin)
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.origin)
    }
}

impl TryFrom<String> for PublicUrl {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, BadAddress> {
        Self::parse(&text)
    }
}

impl From<PublicUrl> for String {
    fn from(url: PublicUrl) -> Self {
        url.origin
    }
}

/// Checks an address tokens are sent to: `https`, or `http` on this machine with synthetic patients; no user name, no
/// fragment.
pub fn check_endpoint(text: &str, environment: Environment) -> Result<(), BadAddress> {
    let url = parse_web(text)?;
    if url.scheme() == "https" {
        return Ok(());
    }
    match (is_loopback(&url), environment) {
        (true, Environment::Sandbox) => Ok(()),
        (true, Environment::Live) => Err(BadAddress::InsecureLive),
        (false, _) => Err(BadAddress::Insecure),
    }
}

/// Checks a FHIR base URL: as [`check_endpoint`], and no query, because resource paths are appended to it.
pub fn check_fhir_base(text: &str, environment: Environment) -> Result<(), BadAddress> {
    // The URL parser keeps an empty query and drops nothing else we look for.
    if text.contains('?') {
        return Err(BadAddress::Query);
    }
    check_endpoint(text, environment)
}

fn parse_web(text: &str) -> Result<Url, BadAddress> {
    // The parser silently drops tabs and line ends and trims blanks; what is registered must be what is written.
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(BadAddress::Unreadable);
    }
    let url = Url::parse(text).map_err(|_| BadAddress::Unreadable)?;
    // Before the scheme, so that `https:host` is not taken for `https://host`.
    if !text.contains("://") {
        return Err(BadAddress::Unreadable);
    }
    if !matches!(url.scheme(), "https" | "http") {
        return Err(BadAddress::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(BadAddress::Credentials);
    }
    if url.fragment().is_some() {
        return Err(BadAddress::Fragment);
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_address_is_an_origin() {
        for (text, origin) in [
            ("https://connect.clinic.example", "https://connect.clinic.example"),
            ("https://connect.clinic.example/", "https://connect.clinic.example"),
            ("https://Connect.Clinic.Example:443", "https://connect.clinic.example"),
            ("https://connect.clinic.example:8443", "https://connect.clinic.example:8443"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(PublicUrl::parse(text).map(|url| url.origin().to_owned()), Ok(origin.to_owned()));
        }
        for (text, fault) in [
            ("", BadAddress::Unreadable),
            ("connect.clinic.example", BadAddress::Unreadable),
            ("https:connect.clinic.example", BadAddress::Unreadable),
            (" https://connect.clinic.example", BadAddress::Unreadable),
            ("ftp://connect.clinic.example", BadAddress::Scheme),
            ("http://connect.clinic.example", BadAddress::Insecure),
            ("http://localhost.evil.example", BadAddress::Insecure),
            ("https://a:b@connect.clinic.example", BadAddress::Credentials),
            ("https://connect.clinic.example/app", BadAddress::Path),
            ("https://connect.clinic.example/?a=b", BadAddress::Query),
            ("https://connect.clinic.example/#a", BadAddress::Fragment),
        ] {
            assert_eq!(PublicUrl::parse(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn what_is_registered_is_built_from_the_public_address() {
        let url = PublicUrl::parse("https://connect.clinic.example/").expect("a public address");
        assert_eq!(url.redirect_uri(), "https://connect.clinic.example/api/auth/smart/callback");
        assert_eq!(url.jwks_uri(), "https://connect.clinic.example/api/auth/.well-known/jwks");
        assert!(url.is_secure());
    }

    #[test]
    fn plain_http_leads_to_this_machine_and_to_synthetic_patients_only() {
        use Environment::{Live, Sandbox};
        for (text, environment, expected) in [
            ("https://fhir.example/r4", Live, Ok(())),
            ("http://127.0.0.1:9000/r4", Sandbox, Ok(())),
            ("http://localhost:9000/r4", Live, Err(BadAddress::InsecureLive)),
            ("http://fhir.example/r4", Sandbox, Err(BadAddress::Insecure)),
            ("https://fhir.example/r4?", Live, Err(BadAddress::Query)),
            ("https://fhir.example/r4#a", Live, Err(BadAddress::Fragment)),
            ("https://me@fhir.example/r4", Live, Err(BadAddress::Credentials)),
        ] {
            assert_eq!(check_fhir_base(text, environment), expected, "{text}");
        }
    }
}
