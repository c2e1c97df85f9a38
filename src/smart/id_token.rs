//! Checking an id token: OpenID Connect Core section 3.1.3.7, with the issuer rules that vendors make necessary.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use crate::clock::Timestamp;
use crate::crypto::{Algorithm, Jwk, Jwks, Jws, JwsError, constant_time_eq};
use crate::secret::secret_type;
use crate::smart::patient::FhirUser;
use crate::smart::token_response::Nonce;
use crate::smart::url::FhirBaseUrl;

/// How far the EHR's clock and ours may differ where `exp` is read.
pub const DEFAULT_SKEW: Duration = Duration::from_mins(1);

/// An `iat` further ahead than this is absurd rather than a clock that is off.
const MAX_AHEAD: Duration = Duration::from_mins(10);
/// 2010: before there was OpenID Connect. Catches milliseconds-for-seconds the wrong way round, and zero.
const EARLIEST: Timestamp = Timestamp::from_seconds(1_262_304_000);

secret_type!(
    /// `sub`: who signed in, in the EHR's own words; often a user name.
    Subject);

/// Which `iss` is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedIssuer {
    /// This one, letter by letter: a trailing slash belongs to it (MEDITECH).
    Equals(String),
    /// Oracle Health: `{this}/oidc/idsps/{idsp}`, with or without a slash at the end. The tenant's issuer itself is
    /// right too, for the day they follow the specification.
    TenantIdsp(String),
    /// The issuer of discovery, or an https one on one of these hosts (and their subdomains).
    AnyOf {
        /// From discovery.
        issuer: Option<String>,
        /// Hosts.
        hosts: Vec<String>,
    },
    /// The server announces none: any https URL, because the keys alone tell who signed.
    AnyHttps,
}

impl ExpectedIssuer {
    /// True when `iss` is right.
    pub fn accepts(&self, iss: &str) -> bool {
        match self {
            Self::Equals(issuer) => iss == issuer,
            Self::TenantIdsp(issuer) => {
                let idsp = iss
                    .strip_prefix(issuer.trim_end_matches('/'))
                    .and_then(|rest| rest.strip_prefix("/oidc/idsps/"))
                    .map(|rest| rest.strip_suffix('/').unwrap_or(rest));
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                iss == issuer || idsp.is_some_and(|idsp| !idsp.is_empty() && idsp.bytes().all(plain))
            }
            Self::AnyOf { issuer, hosts } => {
                issuer.as_deref() == Some(iss)
                    || https_host(iss).is_some_and(|host| hosts.iter().any(|known| is_below(&host, known)))
            }
            Self::AnyHttps => https_host(iss).is_some(),
        }
    }
}

fn https_host(iss: &str) -> Option<String> {
    let url = Url::parse(iss).ok()?;
    let clean = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    (url.scheme() == "https" && clean).then(|| url.host_str().map(str::to_owned)).flatten()
}

fn is_below(host: &str, known: &str) -> bool {
    host.strip_suffix(known).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// What the token has to agree with.
#[derive(Debug, Clone)]
pub struct IdTokenExpectations<'e> {
    /// Ours at this EHR.
    pub client_id: &'e str,
    /// From the vendor profile and discovery.
    pub issuer: &'e ExpectedIssuer,
    /// The one sent, if one was.
    pub nonce: Option<&'e Nonce>,
    /// Refuse a token without a nonce too (vendor profile); many servers do not echo it.
    pub nonce_required: bool,
    /// The base `fhirUser` is compared with.
    pub fhir_base: &'e FhirBaseUrl,
    /// Now.
    pub now: Timestamp,
    /// How far clocks may differ; [`DEFAULT_SKEW`].
    pub skew: Duration,
}

/// What a checked id token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdClaims {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: Subject,
    /// `exp`.
    pub expires_at: Timestamp,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `fhirUser`, or `profile` where a server still calls it so.
    pub fhir_user: Option<FhirUser>,
}

/// Why an id token is not believed. Without an id token that is believed, its claims do not exist for us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    /// Signature, algorithm or key.
    #[error("the id token is not validly signed")]
    Signature(#[source] JwsError),
    /// A claim that every id token has is missing or of the wrong type.
    #[error("the id token has no usable `{0}`")]
    Claim(&'static str),
    /// Another issuer; the text is for staff.
    #[error("the id token comes from another issuer: `{0}`")]
    Issuer(String),
    /// Made for another client.
    #[error("the id token was made for another client")]
    Audience,
    /// Over.
    #[error("the id token has expired")]
    Expired,
    /// From the far future or past, or issued after it expires.
    #[error("the id token's `iat` is absurd; compare the clocks")]
    IssuedAt,
    /// Not the one of this launch.
    #[error("the id token belongs to another launch")]
    Nonce,
}

/// Checks `jws` with `key` (see [`select_key`]) and against what is expected.
pub fn validate(jws: &Jws, key: &Jwk, expected: &IdTokenExpectations<'_>) -> Result<IdClaims, IdTokenError> {
    // `Algorithm` has no `none` and no HMAC, and `verify` refuses a key of another type.
    let claims: Map<String, Value> = jws.verify(key).map_err(IdTokenError::Signature)?;
    let text = |name: &'static str| claims.get(name).and_then(Value::as_str);

    let issuer = text("iss").ok_or(IdTokenError::Claim("iss"))?;
    if !expected.issuer.accepts(issuer) {
        return Err(IdTokenError::Issuer(printable(issuer)));
    }
    check_audience(&claims, expected.client_id)?;

    let expires_at = instant(&claims, "exp").ok_or(IdTokenError::Claim("exp"))?;
    let issued_at = instant(&claims, "iat").ok_or(IdTokenError::Claim("iat"))?;
    if expires_at.after(expected.skew) <= expected.now {
        return Err(IdTokenError::Expired);
    }
    if issued_at < EARLIEST || issued_at > expected.now.after(MAX_AHEAD) || issued_at > expires_at {
        return Err(IdTokenError::IssuedAt);
    }
    match (expected.nonce, text("nonce")) {
        (Some(sent), Some(echoed)) if !constant_time_eq(sent.expose().as_bytes(), echoed.as_bytes()) => {
            return Err(IdTokenError::Nonce);
        }
        (Some(_), None) if expected.nonce_required => return Err(IdTokenError::Nonce),
        (Some(_) | None, Some(_) | None) => {}
    }
    let subject = text("sub").filter(|sub| !sub.is_empty()).ok_or(IdTokenError::Claim("sub"))?;
    let fhir_user = ["fhirUser", "profile"]
        .into_iter()
        .filter_map(text)
        .find_map(|claim| FhirUser::parse(claim, expected.fhir_base));
    Ok(IdClaims {
        issuer: issuer.to_owned(),
        subject: Subject::new(subject),
        expires_at,
        issued_at,
        fhir_user,
    })
}

fn check_audience(claims: &Map<String, Value>, client_id: &str) -> Result<(), IdTokenError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    let audience = claims.get("aud").ok_or(IdTokenError::Claim("aud"))?;
    let several = match Audience::deserialize(audience).map_err(|_| IdTokenError::Claim("aud"))? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    };
    if !several.iter().any(|one| one == client_id) {
        return Err(IdTokenError::Audience);
    }
    if several.len() > 1 && claims.get("azp").and_then(Value::as_str) != Some(client_id) {
        return Err(IdTokenError::Audience);
    }
    Ok(())
}

/// A `NumericDate` (RFC 7519 section 2): seconds, perhaps with a fraction.
fn instant(claims: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    let value = claims.get(name)?;
    if let Some(seconds) = value.as_i64() {
        return Some(Timestamp::from_seconds(seconds));
    }
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite())?;
    #[expect(clippy::cast_possible_truncation, reason = "a float-to-integer cast saturates")]
    let whole = seconds as i64;
    Some(Timestamp::from_seconds(whole))
}

fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(200).collect()
}

/// Why no key could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyChoice {
    /// Read the key set again, once: servers publish a key a moment after they first sign with it.
    #[error("the key that signed the id token is not in the server's key set")]
    UnknownKid,
    /// The key of that name is of another type or for another use. Reading again does not help.
    #[error("the key that the id token names cannot have signed it")]
    Unfit,
    /// Several keys fit and nothing tells which.
    #[error("several keys of the server fit the id token")]
    Ambiguous,
}

impl KeyChoice {
    /// True when a newer key set may have the key.
    pub const fn is_worth_refetching(self) -> bool {
        matches!(self, Self::UnknownKid)
    }
}

/// Chooses the key by `kid`, checked by type and curve, because Oracle Health's keys say neither `alg` nor `use`. A
/// token without `kid` is checked with the only key that fits.
pub fn select_key<'k>(set: &'k Jwks, jws: &Jws) -> Result<&'k Jwk, KeyChoice> {
    let named: Vec<&Jwk> = match jws.kid.as_deref() {
        Some(kid) => set.keys.iter().filter(|key| key.kid.as_deref() == Some(kid)).collect(),
        None => set.keys.iter().collect(),
    };
    let mut fitting = named.iter().copied().filter(|key| fits(key, jws.algorithm));
    match (fitting.next(), named.is_empty()) {
        // One key published twice is still one key.
        (Some(key), _) if fitting.all(|other| other.thumbprint() == key.thumbprint()) => Ok(key),
        (Some(_), _) => Err(KeyChoice::Ambiguous),
        (None, true) => Err(KeyChoice::UnknownKid),
        (None, false) if jws.kid.is_none() => Err(KeyChoice::UnknownKid),
        (None, false) => Err(KeyChoice::Unfit),
    }
}

fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let kind = match algorithm {
        Algorithm::Rs256 | Algorithm::Rs384 => key.kty == "RSA",
        Algorithm::Es256 => key.kty == "EC" && key.crv.as_deref() == Some("P-256"),
        Algorithm::Es384 => key.kty == "EC" && key.crv.as_deref() == Some("P-384"),
    };
    kind && key.use_.as_deref().is_none_or(|usage| usage == "sig")
        && key.alg.as_deref().is_none_or(|name| name == algorithm.name())
}

impl fmt::Display for ExpectedIssuer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals(issuer) => write!(out, "exactly `{issuer}`"),
            Self::TenantIdsp(issuer) => write!(out, "an identity provider below `{issuer}/oidc/idsps/`"),
            Self::AnyOf { issuer: Some(issuer), hosts } => {
                write!(out, "`{issuer}` or one on {}", hosts.join(", "))
            }
            Self::AnyOf { issuer: None, hosts } => write!(out, "one on {}", hosts.join(", ")),
            Self::AnyHttps => out.write_str("any https issuer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{KeyPair, KeyType, Random, sign_jws};
    use crate::smart::patient::UserType;
    use serde_json::json;

    const NOW: i64 = 1_793_607_165;
    const TENANT: &str = "https://authorization.example/tenants/t1";

    fn pair(kind: KeyType, seed: u64) -> KeyPair {
        KeyPair::from_pkcs8(&KeyPair::generate(kind, &Random::seeded(seed)).expect("a key")).expect("usable")
    }

    fn claims(changes: &Value) -> Value {
        let mut claims = json!({
            "iss": format!("{TENANT}/oidc/idsps/t1/"), "sub": "nancy", "aud": "client-1", "iat": NOW - 5,
            "exp": NOW + 300, "nonce": "n-1", "fhirUser": "https://h.example/r4/t1/Patient/12724066",
        });
        for (name, value) in changes.as_object().expect("an object") {
            if value.is_null() {
                claims.as_object_mut().expect("an object").remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    }

    fn check(key: &KeyPair, changes: &Value, nonce_required: bool) -> Result<IdClaims, IdTokenError> {
        let compact = sign_jws(key, key.algorithm(), &claims(changes)).expect("signed");
        let nonce = Nonce::new("n-1");
        let expected = IdTokenExpectations {
            client_id: "client-1",
            issuer: &ExpectedIssuer::TenantIdsp(TENANT.to_owned()),
            nonce: Some(&nonce),
            nonce_required,
            fhir_base: &FhirBaseUrl::parse("https://h.example/r4/t1").expect("a base"),
            now: Timestamp::from_seconds(NOW),
            skew: DEFAULT_SKEW,
        };
        validate(&Jws::parse(&compact).expect("a JWS"), &key.public_jwk(), &expected)
    }

    #[test]
    fn a_right_token_tells_who_signed_in() {
        let key = pair(KeyType::EcP256, 1);
        let found = check(&key, &json!({}), true).expect("believed");
        assert_eq!(found.subject.expose(), "nancy");
        let user = found.fhir_user.expect("a user");
        assert_eq!(
            (user.resource_type, user.id.as_str(), user.elsewhere),
            (UserType::Patient, "12724066", false)
        );
        assert!(!format!("{:?}", found.subject).contains("nancy"));
    }

    #[test]
    fn small_differences_between_servers_are_accepted() {
        let key = pair(KeyType::EcP256, 1);
        for changes in [
            json!({"iss": format!("{TENANT}/oidc/idsps/t1")}),
            json!({"aud": ["client-1"]}),
            json!({"aud": ["client-1", "other"], "azp": "client-1"}),
            json!({"iat": NOW - 300, "exp": NOW - 59}),
            json!({"exp": 1_793_607_465.5}),
            json!({"iat": NOW + 120}),
            json!({"nonce": null}),
            json!({"fhirUser": null}),
            json!({"fhirUser": null, "profile": "https://h.example/dstu2/t1/Patient/1"}),
        ] {
            assert!(check(&key, &changes, false).is_ok(), "{changes}");
        }
    }

    #[test]
    fn a_wrong_token_is_refused_for_its_reason() {
        let key = pair(KeyType::EcP256, 1);
        let refuse = |changes: &Value| check(&key, changes, true).expect_err(&changes.to_string());
        for iss in [
            "https://authorization.example/tenants/t2/oidc/idsps/t1/",
            "https://authorization.example/tenants/t1/oidc/idsps/",
            "https://authorization.example/tenants/t1/oidc/idsps/../x",
            "https://authorization.example/tenants/t1.evil.example/oidc/idsps/x",
            "https://evil.example/tenants/t1/oidc/idsps/t1/",
        ] {
            assert!(matches!(refuse(&json!({"iss": iss})), IdTokenError::Issuer(_)), "{iss}");
        }
        assert_eq!(refuse(&json!({"iss": null})), IdTokenError::Claim("iss"));
        assert_eq!(refuse(&json!({"aud": "client-2"})), IdTokenError::Audience);
        assert_eq!(refuse(&json!({"aud": []})), IdTokenError::Audience);
        assert_eq!(refuse(&json!({"aud": ["client-1", "other"]})), IdTokenError::Audience);
        assert_eq!(refuse(&json!({"aud": ["client-1", "other"], "azp": "other"})), IdTokenError::Audience);
        assert_eq!(refuse(&json!({"aud": 7})), IdTokenError::Claim("aud"));
        assert_eq!(refuse(&json!({"exp": NOW - 60})), IdTokenError::Expired);
        assert_eq!(refuse(&json!({"exp": "tomorrow"})), IdTokenError::Claim("exp"));
        for iat in [0, NOW + 900, NOW + 301, NOW * 1000] {
            assert_eq!(refuse(&json!({"iat": iat})), IdTokenError::IssuedAt, "{iat}");
        }
        assert_eq!(refuse(&json!({"nonce": "n-2"})), IdTokenError::Nonce);
        assert_eq!(refuse(&json!({"nonce": null})), IdTokenError::Nonce);
        assert_eq!(refuse(&json!({"sub": ""})), IdTokenError::Claim("sub"));
    }

    #[test]
    fn another_key_does_not_pass() {
        let (key, other) = (pair(KeyType::EcP256, 1), pair(KeyType::EcP256, 2));
        let compact = sign_jws(&key, key.algorithm(), &claims(&json!({}))).expect("signed");
        let expected = IdTokenExpectations {
            client_id: "client-1",
            issuer: &ExpectedIssuer::AnyHttps,
            nonce: None,
            nonce_required: false,
            fhir_base: &FhirBaseUrl::parse("https://h.example/r4/t1").expect("a base"),
            now: Timestamp::from_seconds(NOW),
            skew: DEFAULT_SKEW,
        };
        let jws = Jws::parse(&compact).expect("a JWS");
        assert_eq!(
            validate(&jws, &other.public_jwk(), &expected),
            Err(IdTokenError::Signature(JwsError::Signature))
        );
    }

    #[test]
    fn issuers_are_compared_by_the_rule_of_the_vendor() {
        let equals = ExpectedIssuer::Equals("https://h.example/".to_owned());
        assert!(equals.accepts("https://h.example/") && !equals.accepts("https://h.example"));
        let any = ExpectedIssuer::AnyOf {
            issuer: Some("https://x.example/i".to_owned()),
            hosts: vec!["okta.example".to_owned()],
        };
        assert!(any.accepts("https://x.example/i") && any.accepts("https://athena.okta.example/oauth2/a"));
        for bad in [
            "https://evilokta.example/",
            "http://okta.example/",
            "https://okta.example@evil.example/",
            "okta.example",
        ] {
            assert!(!any.accepts(bad), "{bad}");
        }
        assert!(!ExpectedIssuer::AnyHttps.accepts("http://x.example/"));
    }

    #[test]
    fn keys_are_chosen_by_name_and_checked_by_type() {
        let (rsa, ec) = (pair(KeyType::Rsa2048, 1), pair(KeyType::EcP256, 1));
        let bare = |key: &KeyPair, kid: &str| Jwk {
            kid: Some(kid.to_owned()),
            alg: None,
            use_: None,
            key_ops: None,
            ..key.public_jwk()
        };
        let jws = Jws::parse(&sign_jws(&ec, Algorithm::Es256, &json!({})).expect("signed")).expect("a JWS");
        let choose = |keys: Vec<Jwk>, kid: Option<&str>| {
            let mut jws = jws.clone();
            jws.kid = kid.map(str::to_owned);
            let set = Jwks { keys };
            select_key(&set, &jws).cloned()
        };
        let both = || vec![bare(&rsa, "a"), bare(&ec, "b")];
        assert_eq!(choose(both(), Some("b")), Ok(bare(&ec, "b")));
        assert_eq!(choose(both(), Some("c")), Err(KeyChoice::UnknownKid));
        assert_eq!(choose(both(), Some("a")), Err(KeyChoice::Unfit));
        assert_eq!(choose(both(), None), Ok(bare(&ec, "b")));
        assert_eq!(choose(vec![bare(&rsa, "b"), bare(&ec, "b")], Some("b")), Ok(bare(&ec, "b")));
        assert_eq!(choose(vec![bare(&ec, "b"), bare(&ec, "b")], Some("b")), Ok(bare(&ec, "b")));
        let second = pair(KeyType::EcP256, 2);
        assert_eq!(choose(vec![bare(&ec, "b"), bare(&second, "b")], Some("b")), Err(KeyChoice::Ambiguous));
        let encryption = Jwk { use_: Some("enc".to_owned()), ..bare(&ec, "b") };
        assert_eq!(choose(vec![encryption], Some("b")), Err(KeyChoice::Unfit));
        assert!(KeyChoice::UnknownKid.is_worth_refetching() && !KeyChoice::Unfit.is_worth_refetching());
    }
}
