//! Every address of the sandbox hospital, in the shapes of Oracle Health, on one origin.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::personality::Persona;

/// The one tenant of this hospital. Shaped like a UUID, as most tenants are.
pub(super) const TENANT: &str = "5a0db0c5-1e5a-4d05-9c4a-c0ffee00ba5e";

/// What must be encoded in a path segment or a query value of ours.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes one component of a URL.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, COMPONENT).to_string()
}

/// The addresses built from the origin.
#[derive(Debug, Clone)]
pub(super) struct Urls {
    pub origin: String,
    /// `host:port`, as it stands in the token URL and in `realm`.
    pub host: String,
    /// A second origin of the same machine, for links and redirects that a client must not follow with a token.
    pub elsewhere: String,
}

impl Urls {
    /// `None` when `origin` is not an `http(s)://host[:port]` without a path.
    pub(super) fn new(origin: &str) -> Option<Self> {
        let origin = origin.strip_suffix('/').unwrap_or(origin).to_owned();
        let url = Url::parse(&origin).ok()?;
        if !matches!(url.scheme(), "http" | "https") || url.path() != "/" || url.query().is_some() {
            return None;
        }
        let host = origin.split_once("://")?.1.to_owned();
        // The other spelling of loopback is another origin that still reaches us, so a visit can be logged.
        let other = match url.host_str()? {
            "localhost" => host.replacen("localhost", "127.0.0.1", 1),
            "127.0.0.1" => host.replacen("127.0.0.1", "localhost", 1),
            _ => "elsewhere.invalid".to_owned(),
        };
        let elsewhere = format!("{}://{other}/elsewhere", url.scheme());
        Some(Self { origin, host, elsewhere })
    }

    pub(super) fn fhir_base(&self) -> String {
        format!("{}/r4/{TENANT}", self.origin)
    }

    /// `issuer` of the metadata; not the `iss` of id tokens.
    pub(super) fn issuer(&self) -> String {
        format!("{}/tenants/{TENANT}", self.origin)
    }

    /// `iss` of id tokens (Oracle Health: another address than the metadata's `issuer`, with a final slash).
    pub(super) fn id_token_issuer(&self) -> String {
        format!("{}/oidc/idsps/{TENANT}/", self.issuer())
    }

    pub(super) fn authorize(&self, persona: Persona) -> String {
        format!("{}/protocols/oauth2/profiles/smart-v1/personas/{}/authorize", self.issuer(), persona.word())
    }

    /// The advertised token URL.
    pub(super) fn token(&self) -> String {
        format!("{}/hosts/{}/protocols/oauth2/profiles/smart-v1/token", self.issuer(), self.host)
    }

    /// The older token URL, which still answers.
    pub(super) fn token_without_host(&self) -> String {
        format!("{}/protocols/oauth2/profiles/smart-v1/token", self.issuer())
    }

    pub(super) fn revoke(&self) -> String {
        format!("{}/revoke", self.token_without_host())
    }

    pub(super) fn manage(&self, persona: Persona) -> String {
        format!("{}/personas/{}/my-authorizations", self.issuer(), persona.word())
    }

    pub(super) fn introspect(&self) -> String {
        format!("{}/tokeninfo", self.origin)
    }

    pub(super) fn keys(&self) -> String {
        format!("{}/jwk", self.origin)
    }

    pub(super) fn control(&self) -> String {
        format!("{}/control", self.origin)
    }

    /// Where an error is explained: the urn is the real diagnosis, the instance the correlation id.
    pub(super) fn error(&self, urn: &str, instance: &str, client: &str) -> String {
        format!(
            "{}/errors/{}/instances/{instance}?client={}&tenant={TENANT}",
            self.origin,
            encode(urn),
            encode(client)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_origin_is_never_the_first() {
        for (origin, elsewhere) in [
            ("http://localhost:3001", "http://127.0.0.1:3001/elsewhere"),
            ("http://127.0.0.1:9/", "http://localhost:9/elsewhere"),
            ("https://hospital.example", "https://elsewhere.invalid/elsewhere"),
        ] {
            assert_eq!(Urls::new(origin).map(|urls| urls.elsewhere).as_deref(), Some(elsewhere));
        }
        assert!(Urls::new("http://localhost/path").is_none());
        assert!(Urls::new("ftp://localhost").is_none());
    }
}
