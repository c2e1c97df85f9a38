//! What a server says about itself: `smart-configuration`, or the security part of its CapabilityStatement
//! (SMART App Launch 2.2 "Conformance"; the fallback is that of SMART 1.0).
//!
//! Vendors' documents differ in everything but the two endpoints. A field of the wrong type counts as absent and leaves
//! a warning for staff; only a document without a usable authorization or token endpoint fails.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::AuthMethod;
use crate::crypto::Algorithm;
use crate::smart::url::{
    AuthorizationEndpoint, BadUrl, FhirBaseUrl, IntrospectionEndpoint, JwksUri, ManagementEndpoint,
    RegistrationEndpoint, RevocationEndpoint, TokenEndpoint,
};

/// Below a FHIR base URL (not at its origin, unlike RFC 8414).
pub const SMART_CONFIGURATION_PATH: &str = ".well-known/smart-configuration";
/// Below a FHIR base URL.
pub const METADATA_PATH: &str = "metadata";
/// Non-standard, below a FHIR base or at its origin (Epic, Blue Button).
pub const OPENID_CONFIGURATION_PATH: &str = ".well-known/openid-configuration";

/// The largest `smart-configuration` read; 566 scopes take 30 KB.
pub const MAX_SMART_CONFIGURATION: usize = 1024 * 1024;
/// The largest CapabilityStatement read; real ones reach 1 MB.
pub const MAX_CAPABILITY_STATEMENT: usize = 8 * 1024 * 1024;

const MAX_LIST: usize = 4096;
const MAX_ITEM: usize = 1024;
const MAX_WARNINGS: usize = 32;

const OAUTH_URIS: &str = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris";
const CAPABILITIES: &str = "http://fhir-registry.smarthealthit.org/StructureDefinition/capabilities";

/// Which document the facts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscoveredFrom {
    /// `smart-configuration`, or an OpenID configuration, which has the same fields.
    SmartConfiguration,
    /// `metadata`: says nothing about PKCE and authentication methods; the vendor profile does.
    CapabilityStatement,
}

/// What a launch needs to know about an authorization server. Serialized for the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmartConfiguration {
    /// Which document this is.
    pub from: DiscoveredFrom,
    /// Issuer as written: a trailing slash matters (MEDITECH). May be on another host (athenahealth), may be missing.
    #[serde(default)]
    pub issuer: Option<String>,
    /// The server's keys, for id tokens.
    #[serde(default)]
    pub jwks_uri: Option<JwksUri>,
    /// Where the browser goes.
    pub authorization_endpoint: AuthorizationEndpoint,
    /// Where codes and refresh tokens go.
    pub token_endpoint: TokenEndpoint,
    /// `token_endpoint_auth_methods_supported` as written, unknown ones included; `None` when not said.
    #[serde(default)]
    pub auth_methods: Option<Vec<String>>,
    /// `token_endpoint_auth_signing_alg_values_supported` as written; `None` when not said.
    #[serde(default)]
    pub assertion_algorithms: Option<Vec<String>>,
    /// `scopes_supported`; `None` when not said. Servers may support more.
    #[serde(default)]
    pub scopes_supported: Option<Vec<String>>,
    /// Capabilities, unknown ones included.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Whether S256 is listed; `None` when the field is missing (a fifth of Oracle Health's documents). PKCE is sent
    /// always.
    #[serde(default)]
    pub pkce: Option<bool>,
    /// RFC 7009. Epic has none.
    #[serde(default)]
    pub revocation_endpoint: Option<RevocationEndpoint>,
    /// RFC 7662.
    #[serde(default)]
    pub introspection_endpoint: Option<IntrospectionEndpoint>,
    /// A page for the patient.
    #[serde(default)]
    pub management_endpoint: Option<ManagementEndpoint>,
    /// RFC 7591.
    #[serde(default)]
    pub registration_endpoint: Option<RegistrationEndpoint>,
    /// RFC 9207: the callback must carry `iss`.
    #[serde(default)]
    pub iss_parameter_supported: bool,
    /// Oddities of the document, for staff.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Why a document is no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// More bytes than any real document has.
    #[error("the document is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// HTML, an empty body, or JSON that is not an object.
    #[error("the document is not a JSON object")]
    NotJson,
    /// JSON, but another resource than a CapabilityStatement.
    #[error("the document is not a CapabilityStatement")]
    NotCapabilityStatement,
    /// A field that a launch cannot do without.
    #[error("the document has no usable `{0}`")]
    Missing(&'static str),
    /// An endpoint that we will not send anything to.
    #[error("`{field}` in the document is not usable: {reason}")]
    BadUrl {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: BadUrl,
    },
}

impl SmartConfiguration {
    /// Whether the server says that it gives refresh tokens for as long as its user is there.
    pub fn knows_online_access(&self) -> bool {
        let listed = self.scopes_supported.iter().flatten().any(|scope| scope == "online_access");
        listed || self.capabilities.iter().any(|capability| capability == "permission-online")
    }

    /// Reads a `smart-configuration` (or OpenID configuration) of `base`.
    pub fn parse(body: &[u8], base: &FhirBaseUrl) -> Result<Self, DiscoveryError> {
        let document = json_object(body, MAX_SMART_CONFIGURATION)?;
        let mut reader = Reader { document: &document, base, warnings: Vec::new() };
        let authorization_endpoint = reader.endpoint("authorization_endpoint")?;
        let token_endpoint = reader.endpoint("token_endpoint")?;
        let challenge_methods = reader.list("code_challenge_methods_supported");
        let capabilities = reader.list("capabilities").unwrap_or_default();
        let mut found = Self {
            issuer: reader.text("issuer"),
            jwks_uri: reader.optional("jwks_uri", JwksUri::parse),
            authorization_endpoint: AuthorizationEndpoint::parse(&authorization_endpoint)
                .map_err(|reason| DiscoveryError::BadUrl { field: "authorization_endpoint", reason })?,
            token_endpoint: TokenEndpoint::parse(&token_endpoint)
                .map_err(|reason| DiscoveryError::BadUrl { field: "token_endpoint", reason })?,
            auth_methods: reader.list("token_endpoint_auth_methods_supported"),
            assertion_algorithms: reader.list("token_endpoint_auth_signing_alg_values_supported"),
            scopes_supported: reader.list("scopes_supported"),
            capabilities,
            pkce: challenge_methods.map(|methods| methods.iter().any(|method| method == "S256")),
            revocation_endpoint: reader.optional("revocation_endpoint", RevocationEndpoint::parse),
            introspection_endpoint: reader.optional("introspection_endpoint", IntrospectionEndpoint::parse),
            management_endpoint: reader.optional("management_endpoint", ManagementEndpoint::parse),
            registration_endpoint: reader.optional("registration_endpoint", RegistrationEndpoint::parse),
            iss_parameter_supported: reader.flag("authorization_response_iss_parameter_supported"),
            from: DiscoveredFrom::SmartConfiguration,
            warnings: Vec::new(),
        };
        if found.has_capability("sso-openid-connect") && found.issuer.is_none() {
            // eClinicalWorks announces it so.
            reader.warn("`sso-openid-connect` is announced without `issuer`".to_owned());
        }
        if found.pkce == Some(false) {
            reader.warn("`code_challenge_methods_supported` does not list `S256`".to_owned());
        }
        found.warnings = reader.warnings;
        Ok(found)
    }

    /// Reads the OAuth part of a CapabilityStatement of `base`.
    pub fn parse_capability_statement(body: &[u8], base: &FhirBaseUrl) -> Result<Self, DiscoveryError> {
        let document = json_object(body, MAX_CAPABILITY_STATEMENT)?;
        if document.get("resourceType").and_then(Value::as_str) != Some("CapabilityStatement") {
            return Err(DiscoveryError::NotCapabilityStatement);
        }
        let extensions: Vec<&Value> = items(document.get("rest"))
            .filter(|rest| rest.get("mode").and_then(Value::as_str) != Some("client"))
            .flat_map(|rest| items(rest.pointer("/security/extension")))
            .collect();
        let of_kind = |url: &'static str| {
            extensions.iter().copied().filter(move |it| it.get("url").and_then(Value::as_str) == Some(url))
        };
        // The extension is turned into the fields of a smart-configuration, and read by the same rules.
        let mut fields = Map::new();
        for part in of_kind(OAUTH_URIS).flat_map(|uris| items(uris.get("extension"))) {
            let field = match part.get("url").and_then(Value::as_str) {
                Some("authorize") => "authorization_endpoint",
                Some("token") => "token_endpoint",
                Some("register") => "registration_endpoint",
                Some("manage") => "management_endpoint",
                Some("introspect") => "introspection_endpoint",
                Some("revoke") => "revocation_endpoint",
                _ => continue,
            };
            if let Some(value) = part.get("valueUri").or_else(|| part.get("valueUrl")) {
                fields.entry(field).or_insert_with(|| value.clone());
            }
        }
        let capabilities: Vec<Value> =
            of_kind(CAPABILITIES).filter_map(|it| it.get("valueCode")).cloned().collect();
        fields.insert("capabilities".to_owned(), Value::Array(capabilities));
        let text = Value::Object(fields).to_string();
        let found = Self::parse(text.as_bytes(), base)?;
        Ok(Self { from: DiscoveredFrom::CapabilityStatement, ..found })
    }

    /// True when the document announces this capability.
    pub fn has_capability(&self, name: &str) -> bool {
        self.capabilities.iter().any(|known| known == name)
    }

    /// Whether the token endpoint takes this authentication; `None` when the document does not say. Absent does not
    /// mean Basic here, whatever RFC 8414 section 2 says: vendors leave the field out and want other methods.
    pub fn accepts_auth(&self, method: AuthMethod) -> Option<bool> {
        let name = match method {
            AuthMethod::PrivateKeyJwt => "private_key_jwt",
            AuthMethod::ClientSecretBasic => "client_secret_basic",
            AuthMethod::ClientSecretPost => "client_secret_post",
            AuthMethod::None => "none",
        };
        self.auth_methods.as_ref().map(|methods| methods.iter().any(|known| known == name))
    }

    /// Whether assertions may be signed so; `None` when the document does not say (then RS384 is the safe choice).
    pub fn accepts_assertion_algorithm(&self, algorithm: Algorithm) -> Option<bool> {
        self.assertion_algorithms.as_ref().map(|names| names.iter().any(|known| known == algorithm.name()))
    }
}

fn json_object(body: &[u8], limit: usize) -> Result<Map<String, Value>, DiscoveryError> {
    if body.len() > limit {
        return Err(DiscoveryError::TooLarge { limit });
    }
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) | Err(_) => Err(DiscoveryError::NotJson),
    }
}

fn items(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

struct Reader<'d> {
    document: &'d Map<String, Value>,
    base: &'d FhirBaseUrl,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn warn(&mut self, text: String) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(text);
        }
    }

    fn text(&mut self, field: &'static str) -> Option<String> {
        let value = self.document.get(field).filter(|value| !value.is_null())?;
        let text = value.as_str().map(str::trim).filter(|text| (1..=2 * MAX_ITEM).contains(&text.len()));
        if text.is_none() {
            self.warn(format!("`{field}` is not a text of reasonable length and is ignored"));
        }
        text.map(str::to_owned)
    }

    /// An endpoint's text, made absolute (SMART wants absolute URLs, some servers write relative ones).
    fn url_text(&mut self, field: &'static str) -> Option<Result<String, BadUrl>> {
        let text = self.text(field)?;
        if text.contains("://") {
            return Some(Ok(text));
        }
        self.warn(format!("`{field}` is a relative URL; it was resolved against the FHIR base URL"));
        Some(self.base.resolve(&text).map(String::from))
    }

    fn endpoint(&mut self, field: &'static str) -> Result<String, DiscoveryError> {
        self.url_text(field)
            .ok_or(DiscoveryError::Missing(field))?
            .map_err(|reason| DiscoveryError::BadUrl { field, reason })
    }

    fn optional<T>(&mut self, field: &'static str, parse: fn(&str) -> Result<T, BadUrl>) -> Option<T> {
        match self.url_text(field)?.and_then(|text| parse(&text)) {
            Ok(endpoint) => Some(endpoint),
            Err(reason) => {
                self.warn(format!("`{field}` is ignored: {reason}"));
                None
            }
        }
    }

    fn list(&mut self, field: &'static str) -> Option<Vec<String>> {
        let value = self.document.get(field).filter(|value| !value.is_null())?;
        let Some(values) = value.as_array() else {
            self.warn(format!("`{field}` is not a list and is ignored"));
            return None;
        };
        let texts: Vec<String> = values
            .iter()
            .take(MAX_LIST)
            .filter_map(Value::as_str)
            .filter(|text| text.len() <= MAX_ITEM)
            .map(str::to_owned)
            .collect();
        if texts.len() < values.len() {
            self.warn(format!("`{field}` has {} unusable items", values.len() - texts.len()));
        }
        Some(texts)
    }

    fn flag(&mut self, field: &'static str) -> bool {
        match self.document.get(field) {
            Some(Value::Bool(flag)) => *flag,
            None | Some(Value::Null) => false,
            Some(_) => {
                self.warn(format!("`{field}` is neither true nor false and is ignored"));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> FhirBaseUrl {
        FhirBaseUrl::parse("https://ehr.example/r4/t1").expect("a base")
    }

    fn parse(document: &Value) -> Result<SmartConfiguration, DiscoveryError> {
        SmartConfiguration::parse(document.to_string().as_bytes(), &base())
    }

    #[test]
    fn two_endpoints_are_enough() {
        let found = parse(&json!({
            "authorization_endpoint": "https://as.example/authorize", "token_endpoint": "https://as.example/token",
        }))
        .expect("usable");
        assert_eq!(found.token_endpoint.as_str(), "https://as.example/token");
        assert_eq!((found.pkce, found.accepts_auth(AuthMethod::PrivateKeyJwt)), (None, None));
        assert_eq!(found.warnings, Vec::<String>::new());
    }

    #[test]
    fn oddly_typed_fields_count_as_absent_and_are_reported() {
        let found = parse(&json!({
            "authorization_endpoint": "https://as.example/authorize", "token_endpoint": "https://as.example/token",
            "issuer": 7, "capabilities": "launch-standalone", "scopes_supported": ["openid", 5, null],
            "code_challenge_methods_supported": {"S256": true}, "revocation_endpoint": "http://as.example/revoke",
            "jwks_uri": ["https://as.example/jwks"], "authorization_response_iss_parameter_supported": "yes",
            "token_endpoint_auth_methods_supported": null, "brand new": {"deep": []},
        }))
        .expect("usable");
        assert_eq!(found.scopes_supported, Some(vec!["openid".to_owned()]));
        assert_eq!((found.issuer, found.jwks_uri, found.revocation_endpoint), (None, None, None));
        assert_eq!((found.pkce, found.iss_parameter_supported), (None, false));
        assert_eq!(found.warnings.len(), 7, "{:?}", found.warnings);
    }

    #[test]
    fn relative_urls_keep_the_tenant() {
        let found = parse(&json!({"authorization_endpoint": "auth/authorize", "token_endpoint": "/token"}))
            .expect("usable");
        assert_eq!(found.authorization_endpoint.as_str(), "https://ehr.example/r4/t1/auth/authorize");
        assert_eq!(found.token_endpoint.as_str(), "https://ehr.example/token");
    }

    #[test]
    fn a_document_without_a_usable_endpoint_is_refused() {
        let missing = parse(&json!({"authorization_endpoint": "https://as.example/authorize"}));
        assert_eq!(missing, Err(DiscoveryError::Missing("token_endpoint")));
        let plain = parse(&json!({
            "authorization_endpoint": "https://as.example/a", "token_endpoint": "http://as.example/token",
        }));
        let expected = DiscoveryError::BadUrl { field: "token_endpoint", reason: BadUrl::NotHttps };
        assert_eq!(plain, Err(expected));
        for body in [&b"<html>"[..], b"", b"[]", b"\"x\""] {
            assert_eq!(SmartConfiguration::parse(body, &base()), Err(DiscoveryError::NotJson));
        }
        let huge = vec![b' '; MAX_SMART_CONFIGURATION + 1];
        assert!(matches!(SmartConfiguration::parse(&huge, &base()), Err(DiscoveryError::TooLarge { .. })));
    }

    #[test]
    fn the_capability_statement_names_endpoints_and_capabilities() {
        let document = json!({"resourceType": "CapabilityStatement", "rest": [{"mode": "server", "security": {"extension": [
            {"url": OAUTH_URIS, "extension": [
                {"url": "authorize", "valueUri": "https://as.example/a"}, {"url": "token", "valueUri": "https://as.example/t"},
                {"url": "revoke", "valueUri": "https://as.example/r"}, {"url": "new", "valueUri": "x"}]},
            {"url": CAPABILITIES, "valueCode": "launch-standalone"}]}}]});
        let body = document.to_string();
        let found = SmartConfiguration::parse_capability_statement(body.as_bytes(), &base()).expect("usable");
        assert_eq!(found.from, DiscoveredFrom::CapabilityStatement);
        assert_eq!(found.token_endpoint.as_str(), "https://as.example/t");
        assert_eq!(
            found.revocation_endpoint.as_ref().map(RevocationEndpoint::as_str),
            Some("https://as.example/r")
        );
        assert!(found.has_capability("launch-standalone"));
        let bare = br#"{"resourceType":"CapabilityStatement","rest":[{"mode":"server"}]}"#;
        assert_eq!(
            SmartConfiguration::parse_capability_statement(bare, &base()),
            Err(DiscoveryError::Missing("authorization_endpoint"))
        );
        assert_eq!(
            SmartConfiguration::parse_capability_statement(br#"{"resourceType":"Patient"}"#, &base()),
            Err(DiscoveryError::NotCapabilityStatement)
        );
    }

    #[test]
    fn what_was_cached_reads_back() {
        let found = parse(&json!({
            "authorization_endpoint": "https://as.example/authorize", "token_endpoint": "https://as.example/token",
            "issuer": "https://as.example/", "code_challenge_methods_supported": ["S256"],
        }))
        .expect("usable");
        let cached = serde_json::to_vec(&found).expect("json");
        assert_eq!(serde_json::from_slice::<SmartConfiguration>(&cached).expect("readable"), found);
    }
}
