//! Client authentication at the token endpoint. SMART App Launch 2.2 "Client Authentication: Asymmetric", RFC 7523
//! section 3, RFC 6749 section 2.3.

use std::time::Duration;

use base64::Engine as _;
use hyper::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::faults::TokenError;
use super::personality::AuthMethod;
use super::state::{CachedJwks, LogEntry};
use super::web::{Form, Incoming};
use super::{RegisteredClient, Sandbox};
use crate::clock::Timestamp;
use crate::crypto::{Jwk, Jwks, Jws, JwsError, constant_time_eq};

/// SMART: an assertion ends at most five minutes from now …
const LONGEST_LIFE: Duration = Duration::from_mins(5);
/// … give or take how far clocks may be apart.
const SKEW: Duration = Duration::from_secs(30);
/// A key set is kept at least this long, whatever its headers say, and at most a day.
const SHORTEST_CACHE: Duration = Duration::from_mins(1);
const LONGEST_CACHE: Duration = Duration::from_hours(24);
/// How long the fetch of a key set may take.
const FETCH_LIMIT: Duration = Duration::from_secs(10);
const LONGEST_JWKS: usize = 1024 * 1024;

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

const BAD_ASSERTION: &str = "client-assertion:jwt-bearer:invalid-signature";
const BAD_HEADER: &str = "oauth2:token:invalid-authorization-header";
const BAD_CREDENTIALS: &str = "oauth2:token:invalid-client-credentials";

/// Why the token endpoint refuses.
#[derive(Debug)]
pub(super) struct Refusal {
    /// OAuth code.
    pub error: String,
    /// What stands behind `urn:cerner:error:authorization-server:`.
    pub urn: String,
    /// For the log, more exact than anything the client is told.
    pub reason: String,
    /// Whom it was said to, when known.
    pub client_id: Option<String>,
    /// Usually 401 for `invalid_client` and 400 for all others.
    pub status: StatusCode,
    /// A fault switch made it.
    pub switched: bool,
}

impl Refusal {
    pub(super) fn new(error: &str, urn: &str, reason: impl Into<String>) -> Self {
        let status = if error == "invalid_client" { 401 } else { 400 };
        Self::with_status(status, error, urn, reason)
    }

    pub(super) fn with_status(status: u16, error: &str, urn: &str, reason: impl Into<String>) -> Self {
        Self {
            error: error.to_owned(),
            urn: urn.to_owned(),
            reason: reason.into(),
            client_id: None,
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
            switched: false,
        }
    }

    /// What a switch says instead of what is right.
    pub(super) fn switched(error: &TokenError, urn: &str, reason: &str) -> Self {
        let urn = error.urn.as_deref().unwrap_or(urn);
        let refusal = match error.status {
            Some(status) => Self::with_status(status.into(), &error.error, urn, reason),
            None => Self::new(&error.error, urn, reason),
        };
        Self { switched: true, ..refusal }
    }

    fn client(urn: &str, reason: impl Into<String>) -> Self {
        Self::new("invalid_client", urn, reason)
    }
}

#[derive(Deserialize)]
struct AssertionClaims {
    iss: Option<String>,
    sub: Option<String>,
    /// A string; a list is refused, because the guide names one value.
    aud: Option<Value>,
    exp: Option<Value>,
    nbf: Option<i64>,
    iat: Option<i64>,
    jti: Option<String>,
}

impl Sandbox {
    /// Finds out which client is speaking. `own_url` is the URL it posted to, which an assertion must name.
    pub(super) async fn authenticate(
        &self,
        incoming: &Incoming,
        form: &Form,
        own_url: &str,
        now: Timestamp,
    ) -> Result<(RegisteredClient, &'static str), Refusal> {
        let header = incoming.header(&header::AUTHORIZATION);
        let secret = form.one("client_secret");
        let assertion = form.one("client_assertion").or(form.one("client_assertion_type"));
        let ways = [header.is_some(), secret.is_some(), assertion.is_some()];
        if ways.into_iter().filter(|used| *used).count() > 1 {
            return Err(Refusal::new(
                "invalid_request",
                BAD_HEADER,
                "two ways of client authentication at once",
            ));
        }
        let (client, method) = if let Some(header) = header {
            (self.check_basic(header, form)?, AuthMethod::SecretBasic)
        } else if let Some(secret) = secret {
            let client_id = form.one("client_id").unwrap_or_default();
            (self.check_secret(client_id, secret)?, AuthMethod::SecretPost)
        } else if assertion.is_some() {
            (self.check_assertion(form, own_url, now).await?, AuthMethod::PrivateKeyJwt)
        } else {
            let client = self.client(form.one("client_id").unwrap_or_default())?;
            if client.confidential {
                return Err(Refusal::client(BAD_CREDENTIALS, "a confidential client did not authenticate"));
            }
            return Ok((client, "none"));
        };
        if !self.personality.traits().auth_methods.all().contains(&method) {
            return Err(Refusal::client(BAD_CREDENTIALS, format!("{} is not supported", method.name())));
        }
        Ok((client, method.name()))
    }

    fn client(&self, client_id: &str) -> Result<RegisteredClient, Refusal> {
        let known = self.state().clients.get(client_id).cloned();
        known.ok_or_else(|| Refusal::client(BAD_CREDENTIALS, "unknown client"))
    }

    fn check_basic(&self, header: &str, form: &Form) -> Result<RegisteredClient, Refusal> {
        let bad = |reason: &str| Refusal::client(BAD_HEADER, reason);
        let encoded = header.strip_prefix("Basic ").ok_or_else(|| bad("not a Basic header"))?;
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| bad("Basic without base64"))?;
        let (id, secret) = decoded.split_once(':').ok_or_else(|| bad("Basic without a colon"))?;
        // RFC 6749 section 2.3.1: both parts are form-encoded before base64.
        let (id, secret) = (form_decoded(id), form_decoded(secret));
        if form.one("client_id").is_some_and(|other| other != id) {
            return Err(bad("another `client_id` in the body"));
        }
        self.check_secret(&id, &secret)
    }

    fn check_secret(&self, client_id: &str, secret: &str) -> Result<RegisteredClient, Refusal> {
        let client = self.client(client_id)?;
        let right = client
            .secret
            .as_ref()
            .is_some_and(|known| constant_time_eq(known.expose().as_bytes(), secret.as_bytes()));
        if right { Ok(client) } else { Err(Refusal::client(BAD_CREDENTIALS, "wrong secret")) }
    }

    async fn check_assertion(
        &self,
        form: &Form,
        own_url: &str,
        now: Timestamp,
    ) -> Result<RegisteredClient, Refusal> {
        let bad = |reason: String| Refusal::client(BAD_ASSERTION, format!("assertion: {reason}"));
        if form.one("client_assertion_type") != Some(JWT_BEARER) {
            return Err(bad("`client_assertion_type` is missing or wrong".to_owned()));
        }
        let compact = form.one("client_assertion").ok_or_else(|| bad("missing".to_owned()))?;
        let jws = Jws::parse(compact).map_err(|error| bad(error.to_string()))?;
        if !self.personality.traits().assertion_algorithms.all().contains(&jws.algorithm) {
            return Err(bad(format!("wrong alg {}", jws.algorithm.name())));
        }
        if jws.typ.as_deref() != Some("JWT") {
            return Err(bad("`typ` is not JWT".to_owned()));
        }
        let kid = jws.kid.as_deref().ok_or_else(|| bad("no `kid`".to_owned()))?;
        let claimed: AssertionClaims = jws.unverified_claims().map_err(|error| bad(error.to_string()))?;
        let issuer = claimed.iss.unwrap_or_default();
        if claimed.sub.as_deref() != Some(issuer.as_str()) {
            return Err(bad("`iss` and `sub` differ".to_owned()));
        }
        if form.one("client_id").is_some_and(|other| other != issuer) {
            return Err(bad("`client_id` of the body is not the `sub`".to_owned()));
        }
        let client = self.client(&issuer).map_err(|_| bad("unknown client".to_owned()))?;
        let uri = client.jwks_uri.clone().ok_or_else(|| bad("the client has no JWKS URL".to_owned()))?;
        if jws.jku.as_deref().is_some_and(|jku| jku != uri.as_str()) {
            return Err(bad("`jku` is not the registered JWKS URL".to_owned()));
        }
        let key = self.client_key(&uri, kid, now).await.map_err(bad)?;
        let claims: AssertionClaims = jws.verify(&key).map_err(|error: JwsError| bad(error.to_string()))?;
        self.check_claims(&issuer, claims, own_url, now).map_err(bad)?;
        Ok(client)
    }

    fn check_claims(
        &self,
        issuer: &str,
        claims: AssertionClaims,
        own_url: &str,
        now: Timestamp,
    ) -> Result<(), String> {
        if claims.aud.as_ref().and_then(Value::as_str) != Some(own_url) {
            return Err("wrong aud".to_owned());
        }
        // Dates are compared with the clock on this hospital's own wall.
        let now = self.state().faults.wall_clock(now);
        let expires = claims.exp.as_ref().and_then(Value::as_i64).ok_or("`exp` is not a whole number")?;
        let expires = Timestamp::from_seconds(expires);
        if expires <= now {
            return Err("expired".to_owned());
        }
        if expires > now.after(LONGEST_LIFE + SKEW) {
            return Err("exp too far ahead".to_owned());
        }
        let latest = now.after(SKEW).seconds();
        if claims.nbf.is_some_and(|nbf| nbf > latest) || claims.iat.is_some_and(|iat| iat > latest) {
            return Err("`nbf` or `iat` lies ahead".to_owned());
        }
        let jti = claims.jti.filter(|jti| !jti.is_empty()).ok_or("no `jti`")?;
        if jti.len() > 255 {
            return Err("`jti` is longer than 255".to_owned());
        }
        let mut state = self.state();
        let name = (issuer.to_owned(), jti);
        if state.seen_jti.get(&name).is_some_and(|until| *until > now) {
            return Err("jti replayed".to_owned());
        }
        state.seen_jti.insert(name, expires);
        Ok(())
    }

    /// The one key of this name; the key set is fetched when the cached one is too old or lacks it.
    async fn client_key(&self, uri: &Url, kid: &str, now: Timestamp) -> Result<Jwk, String> {
        let (cached, refetch) = {
            let state = self.state();
            let cached = state.jwks.get(uri.as_str()).filter(|set| set.fresh_until > now).cloned();
            (cached, !state.faults.no_jwks_refetch)
        };
        if let Some(set) = cached {
            let unknown = set.keys.by_kid(kid).next().is_none();
            if !(unknown && refetch) {
                return only_key(&set.keys, kid);
            }
        }
        only_key(&self.fetch_client_keys(uri, now).await?, kid)
    }

    async fn fetch_client_keys(&self, uri: &Url, now: Timestamp) -> Result<Jwks, String> {
        let fetch = (self.fetch_jwks)(uri.clone());
        let outcome = match tokio::time::timeout(FETCH_LIMIT, fetch).await {
            Err(_) => Err("the JWKS did not come in time".to_owned()),
            Ok(Err(reason)) => Err(format!("the JWKS could not be fetched: {reason}")),
            Ok(Ok(fetched)) if fetched.body.len() > LONGEST_JWKS => Err("the JWKS is too long".to_owned()),
            Ok(Ok(fetched)) => Jwks::parse(&fetched.body)
                .map(|keys| (keys, fetched.max_age))
                .ok_or_else(|| "what was fetched is not a JWKS".to_owned()),
        };
        let mut state = self.state();
        let reason = match &outcome {
            Ok((keys, _)) => format!("{} keys", keys.keys.len()),
            Err(reason) => reason.clone(),
        };
        state.count(if outcome.is_ok() { "jwks-fetch.ok" } else { "jwks-fetch.refused" });
        state.note(LogEntry {
            at: now.to_string(),
            kind: "jwks-fetch",
            method: "GET".to_owned(),
            path: uri.path().to_owned(),
            peer: uri.host_str().unwrap_or_default().to_owned(),
            asked: json!({"url": uri.as_str()}),
            status: if outcome.is_ok() { 200 } else { 502 },
            result: if outcome.is_ok() { "ok" } else { "refused" },
            reason,
        });
        let (keys, max_age) = outcome?;
        let life = max_age.unwrap_or(SHORTEST_CACHE).clamp(SHORTEST_CACHE, LONGEST_CACHE);
        let cached = CachedJwks { keys: keys.clone(), fresh_until: now.after(life) };
        state.jwks.insert(uri.to_string(), cached);
        Ok(keys)
    }
}

/// SMART: exactly one key with that `kid`, and no trying of others.
fn only_key(keys: &Jwks, kid: &str) -> Result<Jwk, String> {
    let mut named = keys.by_kid(kid);
    match (named.next(), named.next()) {
        (Some(key), None) => Ok(key.clone()),
        (Some(_), Some(_)) => Err("several keys with this kid".to_owned()),
        (None, _) => Err("unknown kid".to_owned()),
    }
}

fn form_decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}
