//! Addresses as types: the FHIR base URL we read from, and the endpoints its discovery document names.
//! What may carry an access token is decided here and nowhere else (invariant: a token is sent below its base only).

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// Longer addresses are mistakes or attacks.
const MAX_LENGTH: usize = 2048;

/// What people paste along with a base: these endings are cut off.
const DOCUMENT_PATHS: [&str; 2] = ["/metadata", "/.well-known/smart-configuration"];

/// Why a text is not an address we use. The text itself is left out: it may carry a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Not an absolute URL of at most 2048 characters.
    #[error("not an absolute URL")]
    Malformed,
    /// Plain HTTP to another machine, or another scheme.
    #[error("the address must begin with `https://`")]
    NotHttps,
    /// `user:password@host`.
    #[error("the address must not contain a user name or password")]
    Credentials,
    /// A base or endpoint has no fragment, and a base has no query.
    #[error("the address must end before `?` or `#`")]
    QueryOrFragment,
    /// Dot segments, backslashes, blanks, or characters that ought to be percent-encoded.
    #[error("the path has characters or segments that servers read in different ways")]
    Path,
    /// A relative reference that leaves the base.
    #[error("the address leaves the FHIR base URL")]
    Outside,
    /// A Millennium tenant id has other characters than letters, digits, `-` and `_`.
    #[error("not a tenant id")]
    Tenant,
}

/// The server we read from: `iss` of an EHR launch, `aud` we send. Scheme and host are lower case, a default port,
/// trailing slashes and a pasted `/metadata` are gone; the path is kept as written, because tenant ids are
/// case-sensitive.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FhirBaseUrl {
    origin: String,
    path: String,
}

impl FhirBaseUrl {
    /// Reads what a person pasted or a directory lists.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let text = text.trim();
        let url = parse_strict(text)?;
        if text.contains(['?', '#']) {
            return Err(BadUrl::QueryOrFragment);
        }
        let raw = raw_path(text).ok_or(BadUrl::Malformed)?;
        // The URL parser resolves dot segments, encoded ones too, and encodes what must be encoded: a path that it
        // changes is one on which two servers can disagree.
        if !raw.is_empty() && raw != url.path() || has_dot_segment(raw) {
            return Err(BadUrl::Path);
        }
        let mut path = raw.trim_end_matches('/');
        for document in DOCUMENT_PATHS {
            path = path.strip_suffix(document).unwrap_or(path).trim_end_matches('/');
        }
        Ok(Self { origin: url.origin().ascii_serialization(), path: path.to_owned() })
    }

    /// `https://host` or `https://host:port`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The path below the origin, without trailing slash; empty for a base at the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The host name, without port.
    pub fn host(&self) -> &str {
        let authority = self.origin.split_once("://").map_or("", |(_, rest)| rest);
        match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        }
    }

    /// Whether the `iss` of an EHR launch names this base. It may be in capitals where case does not count, name the
    /// default port, and end with one slash; any other spelling, however a server would read it, is another address.
    pub fn is_named_by(&self, iss: &str) -> bool {
        let Some((scheme, rest)) = iss.split_once("://") else { return false };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (scheme, mut authority) = (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase());
        let default_port = if scheme == "https" { ":443" } else { ":80" };
        if let Some(host) = authority.strip_suffix(default_port) {
            authority.truncate(host.len());
        }
        format!("{scheme}://{authority}") == self.origin
            && path.strip_suffix('/').unwrap_or(path) == self.path
    }

    /// An address below this base, made by text: `base/` and then `relative` as it is, so that an opaque query keeps
    /// its spelling. A `relative` that begins with `?` asks the base itself. Refuses what would leave the base.
    pub fn join(&self, relative: &str) -> Result<Url, BadUrl> {
        let relative = relative.trim_start_matches('/');
        let glue = if relative.is_empty() || relative.starts_with('?') { "" } else { "/" };
        let path = relative.split(['?', '#']).next().unwrap_or_default();
        if has_dot_segment(path) || path.contains('\\') {
            return Err(BadUrl::Outside);
        }
        let url = Url::parse(&format!("{self}{glue}{relative}")).map_err(|_| BadUrl::Malformed)?;
        if self.covers(&url) { Ok(url) } else { Err(BadUrl::Outside) }
    }

    /// True when an access token of this base may be sent to `url`: same scheme, host and port, no credentials, and a
    /// path below the base, or the bare base (HAPI's page links). Encoded and doubly encoded dot segments do not pass.
    pub fn covers(&self, url: &Url) -> bool {
        if !url.username().is_empty() || url.password().is_some() {
            return false;
        }
        if url.origin().ascii_serialization() != self.origin || has_dot_segment(url.path()) {
            return false;
        }
        match url.path().strip_prefix(self.path.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    /// Resolves a reference of this base's discovery document. A slash is added to the base for this only, so that the
    /// last segment (a tenant) stays: RFC 3986 section 5.2.3 would drop it.
    pub fn resolve(&self, reference: &str) -> Result<Url, BadUrl> {
        let base = Url::parse(&format!("{self}/")).map_err(|_| BadUrl::Malformed)?;
        base.join(reference).map_err(|_| BadUrl::Malformed)
    }
}

impl fmt::Display for FhirBaseUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.origin, self.path)
    }
}

impl fmt::Debug for FhirBaseUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "FhirBaseUrl({self})")
    }
}

impl Serialize for FhirBaseUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FhirBaseUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

macro_rules! endpoint_type {
    ($(#[$about:meta])* $name:ident) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            text: String,
            url: Url,
        }

        impl $name {
            /// Reads an absolute URL: https, or http to this machine; no credentials, no fragment.
            pub fn parse(text: &str) -> Result<Self, BadUrl> {
                let text = text.trim();
                let url = parse_strict(text)?;
                if url.fragment().is_some() {
                    return Err(BadUrl::QueryOrFragment);
                }
                Ok(Self { text: text.to_owned(), url })
            }

            /// The spelling of the document: servers compare `aud` letter by letter.
            pub fn as_str(&self) -> &str {
                &self.text
            }

            /// The address to send to.
            pub fn url(&self) -> &Url {
                &self.url
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

endpoint_type!(
    /// Where the patient's browser is sent.
    AuthorizationEndpoint);
endpoint_type!(
    /// Where codes and refresh tokens are exchanged; also the `aud` of our client assertion.
    TokenEndpoint);
endpoint_type!(
    /// Where a refresh token is given back (RFC 7009).
    RevocationEndpoint);
endpoint_type!(
    /// Where a token's state can be asked (RFC 7662).
    IntrospectionEndpoint);
endpoint_type!(
    /// The page where a patient sees and withdraws what was agreed to.
    ManagementEndpoint);
endpoint_type!(
    /// Where clients register themselves (RFC 7591).
    RegistrationEndpoint);
endpoint_type!(
    /// The EHR's own keys, with which its id tokens are checked.
    JwksUri);

/// Parses, and refuses what a URL parser silently repairs.
fn parse_strict(text: &str) -> Result<Url, BadUrl> {
    let odd = |letter: char| !letter.is_ascii_graphic() || letter == '\\';
    if text.len() > MAX_LENGTH || text.contains(odd) {
        return Err(BadUrl::Malformed);
    }
    let (_, rest) = text.split_once("://").ok_or(BadUrl::Malformed)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(BadUrl::Credentials);
    }
    let url = Url::parse(text).map_err(|_| BadUrl::Malformed)?;
    if authority.is_empty() || url.host().is_none() {
        return Err(BadUrl::Malformed);
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err(BadUrl::NotHttps),
    }
}

/// This machine: plain HTTP is allowed to it only (sandbox, demo, tests).
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn raw_path(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    let start = rest.find('/').unwrap_or(rest.len());
    Some(&rest[start..])
}

/// True when some server might read a segment as `.` or `..`: encoded, twice encoded, with a backslash, or with a path
/// parameter behind it (`..;x`).
fn has_dot_segment(path: &str) -> bool {
    let mut text: Cow<'_, str> = Cow::Borrowed(path);
    for _ in 0..4 {
        let dotted = text
            .split(['/', '\\'])
            .map(|segment| segment.split(';').next().unwrap_or_default().trim())
            .any(|segment| segment == "." || segment == "..");
        if dotted {
            return true;
        }
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if decoded == *text {
            return false;
        }
        text = Cow::Owned(decoded);
    }
    // Encoded more than four times: nobody honest does that.
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> FhirBaseUrl {
        FhirBaseUrl::parse(text).expect("a base")
    }

    #[test]
    fn what_people_paste_becomes_one_spelling() {
        let check = |pasted: &str, expected: &str| assert_eq!(base(pasted).to_string(), expected, "{pasted}");
        check("  HTTPS://Fhir.Example:443/r4/AbC_-1/ ", "https://fhir.example/r4/AbC_-1");
        check("https://h.example/r4/t/metadata", "https://h.example/r4/t");
        check("https://h.example/r4/t//.well-known/smart-configuration/", "https://h.example/r4/t");
        check("https://h.example", "https://h.example");
        check("https://h.example:8443/", "https://h.example:8443");
        check("http://127.0.0.1:8080/fhir", "http://127.0.0.1:8080/fhir");
        check("http://[::1]:80/fhir", "http://[::1]/fhir");
        check("https://h.example/my-metadata", "https://h.example/my-metadata");
        assert_eq!(base("https://h.example:8443/x").host(), "h.example");
        assert_eq!(base("http://[::1]/x").host(), "[::1]");
    }

    #[test]
    fn what_is_no_base_is_refused_with_its_reason() {
        let check = |text: &str, reason: BadUrl| assert_eq!(FhirBaseUrl::parse(text), Err(reason), "{text}");
        check("", BadUrl::Malformed);
        check("h.example/r4", BadUrl::Malformed);
        check("https:/h.example/r4", BadUrl::Malformed);
        check("https:///r4", BadUrl::Malformed);
        check("https://h.example/a b", BadUrl::Malformed);
        check("https://h.example\\@evil.example/", BadUrl::Malformed);
        check("http://h.example/r4", BadUrl::NotHttps);
        check("http://localhost.evil.example/r4", BadUrl::NotHttps);
        check("ftp://h.example/r4", BadUrl::NotHttps);
        check("https://me:pw@h.example/r4", BadUrl::Credentials);
        check("https://@h.example/r4", BadUrl::Credentials);
        check("https://h.example/r4?x=1", BadUrl::QueryOrFragment);
        check("https://h.example/r4#x", BadUrl::QueryOrFragment);
        check("https://h.example/r4/../admin", BadUrl::Path);
        check("https://h.example/r4/%2e%2E/admin", BadUrl::Path);
        check("https://h.example/r4/%252e%252e/admin", BadUrl::Path);
        check(&format!("https://h.example/{}", "a".repeat(MAX_LENGTH)), BadUrl::Malformed);
    }

    #[test]
    fn a_base_reads_back_what_it_wrote() {
        let base = base("https://fhir-myrecord.cerner.com/r4/-c6Xwd-UlrvkHnaNj_A8a/");
        assert_eq!(FhirBaseUrl::parse(&base.to_string()), Ok(base.clone()));
        let json = serde_json::to_string(&base).expect("json");
        assert_eq!(json, "\"https://fhir-myrecord.cerner.com/r4/-c6Xwd-UlrvkHnaNj_A8a\"");
        assert_eq!(serde_json::from_str::<FhirBaseUrl>(&json).expect("a base"), base);
    }

    #[test]
    fn an_iss_names_a_base_in_few_spellings_and_no_look_alike_does() {
        let tenant = base("https://h.example/r4/AbC");
        for same in [
            "https://h.example/r4/AbC",
            "https://h.example/r4/AbC/",
            "HTTPS://H.Example/r4/AbC",
            "https://h.example:443/r4/AbC",
        ] {
            assert!(tenant.is_named_by(same), "{same}");
        }
        for other in [
            "",
            "https://h.example",
            "https://h.example/r4/abc",
            "https://h.example/r4/AbC//",
            "https://h.example/r4/AbC/metadata",
            "https://h.example/r4/AbC?x=1",
            "https://h.example/r4/AbC#x",
            "https://h.example/r4/%41bC",
            "https://h%2Eexample/r4/AbC",
            "https://h.example/r4/./AbC",
            "https://h.example/r4/x/../AbC",
            "https://h.example/r4/AbC/..",
            "https://h.example\\r4\\AbC",
            "http://h.example/r4/AbC",
            "http://h.example:443/r4/AbC",
            "https://h.example:8443/r4/AbC",
            "https://h.example:0443/r4/AbC",
            "https://h.example:/r4/AbC",
            "https://h.example./r4/AbC",
            "https://user@h.example/r4/AbC",
            "https://h.example@evil.example/r4/AbC",
            "https://evil.example/https://h.example/r4/AbC",
            "https://h.example.evil.example/r4/AbC",
            "https://h.\u{435}xample/r4/AbC",
            " https://h.example/r4/AbC",
            "//h.example/r4/AbC",
        ] {
            assert!(!tenant.is_named_by(other), "{other}");
        }
        let here = base("http://127.0.0.1:8080/fhir");
        assert!(
            here.is_named_by("http://127.0.0.1:8080/fhir/") && !here.is_named_by("http://127.0.0.1/fhir")
        );
        assert!(base("https://h.example").is_named_by("https://h.example/"));
    }

    #[test]
    fn a_token_may_go_below_its_base_and_to_the_bare_base() {
        let base = base("https://h.example/r4/abc");
        for inside in [
            "https://h.example/r4/abc/Patient/1",
            "https://H.EXAMPLE:443/r4/abc/Observation?patient=1&-pageContext=a%3D%3D",
            "https://h.example/r4/abc?_getpages=1",
            "https://h.example/r4/abc/",
            "https://h.example/r4/abc/Binary/$autogen-ccd-if?patient=1",
            "https://h.example/r4/abc/Observation?code=..%2F..",
        ] {
            assert!(base.covers(&Url::parse(inside).expect("a URL")), "{inside}");
        }
    }

    #[test]
    fn a_token_never_leaves_its_base() {
        let base = base("https://h.example/r4/abc");
        for outside in [
            "https://h.example/r4/abcd/Patient/1",
            "https://h.example/r4/ab",
            "https://h.example/r4/ABC/Patient/1",
            "https://h.example/",
            "http://h.example/r4/abc/Patient/1",
            "https://h.example:8443/r4/abc/Patient/1",
            "https://evil.example/r4/abc/Patient/1",
            "https://h.example.evil.example/r4/abc/Patient/1",
            "https://h.example@evil.example/r4/abc/Patient/1",
            "https://user@h.example/r4/abc/Patient/1",
            "https://:pw@h.example/r4/abc/Patient/1",
            "https://h.example/r4/abc/../other",
            "https://h.example/r4/abc/%2e%2e/other",
            "https://h.example/r4/abc/.%2E/other",
            "https://h.example/r4/abc/%252e%252e/other",
            "https://h.example/r4/abc/..%2fother",
            "https://h.example/r4/abc/x%2f..%2f..%2fother",
            "https://h.example/r4/abc/..%5cother",
            "https://h.example/r4/abc/..;x=1/other",
            "https://h.example/r4/abc%2f..",
        ] {
            assert!(!base.covers(&Url::parse(outside).expect("a URL")), "{outside}");
        }
    }

    #[test]
    fn every_sibling_made_by_changing_one_letter_is_outside() {
        let text = "https://h.example/r4/abc";
        let base = base(text);
        for at in "https://".len()..text.len() {
            let mut changed = text.to_owned().into_bytes();
            changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
            let changed = String::from_utf8(changed).expect("ASCII") + "/Patient/1";
            let Ok(url) = Url::parse(&changed) else { continue };
            assert!(!base.covers(&url), "{changed}");
        }
    }

    #[test]
    fn joining_keeps_the_spelling_and_the_base() {
        let base = base("https://h.example/r4/abc");
        let join = |relative: &str| base.join(relative).map(String::from);
        assert_eq!(join("Patient/1?x"), Ok("https://h.example/r4/abc/Patient/1?x".to_owned()));
        assert_eq!(join("/Patient/1"), Ok("https://h.example/r4/abc/Patient/1".to_owned()));
        assert_eq!(join("?_getpages=1"), Ok("https://h.example/r4/abc?_getpages=1".to_owned()));
        assert_eq!(
            join("Observation?c=a%3D%3D|b"),
            Ok("https://h.example/r4/abc/Observation?c=a%3D%3D|b".to_owned())
        );
        for escaping in ["../other", "Patient/..", "Patient/%2e%2e/%2e%2e/other", "..\\other", "x/..;/y"] {
            assert_eq!(join(escaping), Err(BadUrl::Outside), "{escaping}");
        }
        // A second address cannot be smuggled in: it is only a path below the base.
        assert_eq!(
            join("https://evil.example/"),
            Ok("https://h.example/r4/abc/https://evil.example/".to_owned())
        );
    }

    #[test]
    fn endpoints_keep_their_spelling_and_must_be_https() {
        let token = TokenEndpoint::parse("https://A.example/o/token/").expect("an endpoint");
        assert_eq!(token.as_str(), "https://A.example/o/token/");
        assert_eq!(token.url().as_str(), "https://a.example/o/token/");
        assert_eq!(TokenEndpoint::parse("http://a.example/token"), Err(BadUrl::NotHttps));
        assert_eq!(TokenEndpoint::parse("javascript://a.example/%0aalert(1)"), Err(BadUrl::NotHttps));
        assert_eq!(TokenEndpoint::parse("https://x@a.example/token"), Err(BadUrl::Credentials));
        assert!(TokenEndpoint::parse("http://localhost:9000/token").is_ok());
    }
}
