//! The sandbox hospital: a strict SMART App Launch and FHIR R4 server in the habits of Oracle Health (Cerner), with
//! synthetic patients and switches for the faults that real servers have. The demo, our tests and other people's tests
//! use it. It shares no protocol code with the client it tests.
//!
//! Addresses, under one origin `{o}` with one tenant `{T}`:
//!
//! | address | is |
//! |---|---|
//! | `{o}/` | a page for people: users with their passwords, EHR launches, links |
//! | `{o}/r4/{T}` | FHIR base: `/.well-known/smart-configuration`, `/metadata`, search, read, `Binary` |
//! | `{o}/tenants/{T}/protocols/oauth2/profiles/smart-v1/personas/patient/authorize` | GET and POST |
//! | `{o}/tenants/{T}/hosts/{host}/protocols/oauth2/profiles/smart-v1/token` | token; also without `hosts/{host}` |
//! | `{o}/tenants/{T}/protocols/oauth2/profiles/smart-v1/token/revoke` | RFC 7009 |
//! | `{o}/tokeninfo`, `{o}/jwk` | introspection, the hospital's keys |
//! | `{o}/tenants/{T}/oidc/idsps/{T}/` | `iss` of id tokens, with its OpenID configuration below |
//! | `{o}/tenants/{T}/personas/patient/my-authorizations` | where people withdraw what they agreed to |
//! | `{o}/app` | a small app, as the end of an EHR launch |
//! | `{o}/control` | for tests, see below |
//!
//! # Control address
//!
//! No authentication: run it on loopback. Bodies and answers are JSON; a wrong body answers 400 with `{"error": …}`.
//!
//! | request | does |
//! |---|---|
//! | `POST /control/faults` | merges the switches of [`Faults`] over the present ones and answers with all of them |
//! | `GET`, `DELETE /control/faults` | shows the switches; turns all off |
//! | `POST /control/auto-approve` | `{"username": "…" or null, "patient": …, "deny_scopes": ["Observation"], "deny": false}`: authorize redirects at once, as that person would |
//! | `POST /control/revoke` | `{"patient": "…"}` or `{}`: ends the grants of one patient or all; answers `{"revoked": n}` |
//! | `GET /control/grants` | every grant, or those of `?patient=…`: how often it was refreshed, which refresh token is the current one, how often a superseded one came; tokens as base64url of their SHA-256 |
//! | `POST /control/advance-clock` | `{"seconds": n}`: moves this hospital's clock only; answers `{"now": …}` |
//! | `POST /control/clients` | a [`RegisteredClient`] as JSON: registers or replaces it |
//! | `POST /control/launch` | `{"client_id": …, "username": …}` for the portal, or `{"client_id": …, "clinician": "clinician-1", "patient": …, "encounter": …}` for a chart (the last two may be left out): answers `{"url": …}`, the EHR launch that would be opened |
//! | `GET /control/log` | every request to discovery, authorize, token, revocation, FHIR and every fetch of a client's keys: what was asked, status, result (`ok`, `refused`, `fault`), reason. No token, code, state or assertion |
//! | `DELETE /control/log` | forgets log and counters |
//! | `GET /control/counters` | how often what happened, such as `token.refresh_token.ok` or `fhir.Observation.ok` |
//!
//! The log-in of an EHR launch, log-in page and consent page are plain HTML without JavaScript.

mod assertion;
mod authorize;
mod chart;
mod control;
mod discovery;
mod faults;
mod fhir;
mod id_token;
mod keys;
mod pages;
mod personality;
pub mod population;
mod query;
mod refresh;
mod revoke;
mod scope;
mod search;
mod state;
mod token;
mod urls;
mod web;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use self::keys::ServerKeys;
use self::personality::Document;
use self::population::{Person, Population};
use self::state::{LogEntry, State};
use self::urls::{TENANT, Urls};
use self::web::{Incoming, Reply};
use crate::body::{Body, BodyError};
use crate::clock::{Clock, Timestamp};
use crate::crypto::{KeyError, Random};
use crate::secret::Secret;

pub use self::faults::{
    ExpiresIn, ExpiresInForm, Faults, FhirFault, FhirFaultKind, GraceAnswer, RefusalStatus, RetryAfter,
    RetryAfterForm, RevocationFault, RightOrWrong, Rotation, SmartConfigurationFault, TokenEndpointFault,
    TokenError,
};
pub use self::personality::Personality;

/// Longest request body that is read.
const BODY_LIMIT: usize = 1024 * 1024;

/// How long a held-back answer is held back: longer than any client should wait.
const HANG: Duration = Duration::from_mins(10);

/// A client's key set as fetched.
#[derive(Debug, Clone)]
pub struct FetchedJwks {
    /// The body of the answer.
    pub body: Bytes,
    /// `max-age` of its `Cache-Control`, if any.
    pub max_age: Option<Duration>,
}

/// Fetches a client's JWKS; the error is a reason for the log. The network is the caller's business.
pub type JwksFetcher =
    Arc<dyn Fn(Url) -> Pin<Box<dyn Future<Output = Result<FetchedJwks, String>> + Send>> + Send + Sync>;

/// The SMART version an app was registered with at Oracle Health; it fixes the scope syntax that is honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmartVersion {
    /// `patient/Observation.read`.
    #[default]
    V1,
    /// `patient/Observation.rs`.
    V2,
}

/// An app as registered in the vendor's console.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisteredClient {
    /// Its id.
    pub client_id: String,
    /// Where codes may be sent; compared character by character.
    pub redirect_uris: Vec<String>,
    /// Where an EHR launch begins.
    #[serde(default)]
    pub launch_url: Option<String>,
    /// Where its keys are, for `private_key_jwt`.
    #[serde(default, deserialize_with = "optional_url")]
    pub jwks_uri: Option<Url>,
    /// Its secret, for `client_secret_basic` and `client_secret_post`.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// Which scope syntax is honoured.
    #[serde(default)]
    pub smart_version: SmartVersion,
    /// The registered scopes, in either syntax: only level, type and letters count. Left out in JSON: everything.
    #[serde(default = "scope::registrable")]
    pub scopes: Vec<String>,
    /// "Type of Access: Offline": without it `offline_access` vanishes.
    #[serde(default = "yes")]
    pub offline: bool,
    /// Whether it must authenticate at the token endpoint.
    #[serde(default = "yes")]
    pub confidential: bool,
}

impl RegisteredClient {
    /// A confidential offline client of SMART version 1 with every scope, still without a key or a secret.
    pub fn new(client_id: impl Into<String>, redirect_uri: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            redirect_uris: vec![redirect_uri.into()],
            launch_url: None,
            jwks_uri: None,
            secret: None,
            smart_version: SmartVersion::V1,
            scopes: scope::registrable(),
            offline: true,
            confidential: true,
        }
    }
}

const fn yes() -> bool {
    true
}

fn optional_url<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| Url::parse(&text).map_err(serde::de::Error::custom)).transpose()
}

/// What a sandbox hospital is made of.
pub struct SandboxOptions {
    /// `http://localhost:3001`: how clients reach it, without a path.
    pub origin: String,
    /// Time. `/control/advance-clock` does not move this clock but the hospital's distance from it.
    pub clock: Clock,
    /// Randomness of tokens and keys.
    pub random: Random,
    /// Who can log in, and their records.
    pub population: Arc<Population>,
    /// Which vendor's habits it has.
    pub personality: Personality,
    /// The apps registered from the start.
    pub clients: Vec<RegisteredClient>,
    /// How client key sets are fetched.
    pub fetch_jwks: JwksFetcher,
}

/// Why a sandbox hospital cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The origin is not one.
    #[error("`{0}` is not an origin like `http://localhost:3001`")]
    Origin(String),
    /// The signing keys could not be made.
    #[error("cannot make the sandbox's signing keys")]
    Keys(#[from] KeyError),
}

/// Someone who can log in; for `chartgate demo --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SandboxUser {
    /// Log-in name.
    pub username: String,
    /// Password; synthetic, so shown freely.
    pub password: String,
    /// FHIR id of the Patient.
    pub patient: String,
}

/// The hospital.
pub struct Sandbox {
    urls: Urls,
    clock: Clock,
    ahead_millis: AtomicU64,
    random: Random,
    population: Arc<Population>,
    personality: Personality,
    fetch_jwks: JwksFetcher,
    keys: ServerKeys,
    /// Guards page contexts against change.
    page_key: [u8; 32],
    state: Mutex<State>,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Sandbox({}, {})", self.urls.origin, self.personality.name())
    }
}

impl Sandbox {
    /// Builds the hospital. Makes an RSA key, which takes some tenths of a second.
    pub fn new(options: SandboxOptions) -> Result<Arc<Self>, SandboxError> {
        let urls = Urls::new(&options.origin).ok_or(SandboxError::Origin(options.origin))?;
        let mut state = State::default();
        for client in options.clients {
            state.clients.insert(client.client_id.clone(), client);
        }
        Ok(Arc::new(Self {
            keys: ServerKeys::generate(&options.random, options.clock.now())?,
            page_key: options.random.bytes(),
            urls,
            clock: options.clock,
            ahead_millis: AtomicU64::new(0),
            random: options.random,
            population: options.population,
            personality: options.personality,
            fetch_jwks: options.fetch_jwks,
            state: Mutex::new(state),
        }))
    }

    /// The FHIR base URL, which is also the only accepted `aud`.
    pub fn fhir_base_url(&self) -> String {
        self.urls.fhir_base()
    }

    /// The control address.
    pub fn control_url(&self) -> String {
        self.urls.control()
    }

    /// Everyone who has a record here, and the records.
    pub fn population(&self) -> &Population {
        &self.population
    }

    /// Everyone who can log in.
    pub fn users(&self) -> Vec<SandboxUser> {
        let people = self.population.people.iter();
        people
            .map(|person| SandboxUser {
                username: person.username.clone(),
                password: person.password.clone(),
                patient: person.patient_id.clone(),
            })
            .collect()
    }

    /// The front page, where apps are opened.
    pub fn front_page(&self) -> String {
        format!("{}/", self.urls.origin)
    }

    /// The address of the small app that shows the end of an EHR launch.
    pub fn app_url(&self) -> String {
        format!("{}/app", self.urls.origin)
    }

    /// Answers one request. Paths only are looked at, so it does not matter under which host name it came.
    pub async fn handle<B>(&self, peer: SocketAddr, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body + Send,
        B::Data: Send,
        B::Error: Into<BodyError>,
    {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
            return Reply::status(StatusCode::PAYLOAD_TOO_LARGE, "body too large").response;
        };
        let incoming = Incoming {
            peer,
            method: if parts.method == Method::HEAD { Method::GET } else { parts.method },
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body: body.to_bytes(),
        };
        let now = self.now();
        self.state().tidy(now);
        let (kind, mut reply) = self.dispatch(&incoming, now).await;
        self.settle(kind, &incoming, &mut reply, now);
        if reply.hangs {
            tokio::time::sleep(HANG).await;
        }
        reply.response
    }

    fn now(&self) -> Timestamp {
        self.clock.now().after(Duration::from_millis(self.ahead_millis.load(Ordering::Relaxed)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves at worst one half-made grant of a synthetic patient.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn person(&self, username: &str) -> Option<&Person> {
        self.population.people.iter().find(|person| person.username == username)
    }

    /// The records a person may open: the own one, and for the first person the second's too, as a caregiver.
    fn records_of(&self, username: &str) -> Vec<&Person> {
        let people = &self.population.people;
        let mut records: Vec<&Person> = people.iter().filter(|one| one.username == username).collect();
        if people.first().is_some_and(|first| first.username == username) {
            records.extend(people.get(1));
        }
        records
    }

    async fn dispatch(&self, incoming: &Incoming, now: Timestamp) -> (Kind, Reply) {
        if incoming.method == Method::OPTIONS {
            return (Kind::Page, Self::preflight());
        }
        let get = incoming.method == Method::GET;
        let post = incoming.method == Method::POST;
        let segments: Vec<&str> = incoming.path.split('/').skip(1).collect();
        match segments.as_slice() {
            [""] if get => (Kind::Page, self.index_page()),
            ["sandbox.css"] if get => (Kind::Page, pages::stylesheet()),
            [".well-known", "openid-configuration"] if get => {
                (Kind::Discovery, self.openid_document(Document::OpenIdAtOrigin))
            }
            ["jwk"] if get => (Kind::Keys, self.published_keys()),
            ["tokeninfo"] if post => (Kind::Introspect, self.introspect(incoming, now).await),
            ["errors", urn, "instances", instance] if get => (Kind::Page, pages::explanation(urn, instance)),
            ["app"] if get => (Kind::Page, pages::app(incoming)),
            ["portal", "launch"] if post => (Kind::Page, self.portal_launch(incoming, now)),
            ["control", rest @ ..] => (Kind::Control, self.control(rest, incoming, now)),
            ["r4", tenant, rest @ ..] => self.fhir_base(tenant, rest, incoming, now),
            ["tenants", tenant, rest @ ..] => self.tenant(tenant, rest, incoming, now).await,
            ["elsewhere", ..] => (Kind::Elsewhere, elsewhere(incoming)),
            _ => (Kind::Page, pages::not_found()),
        }
    }

    async fn tenant(
        &self,
        tenant: &str,
        rest: &[&str],
        incoming: &Incoming,
        now: Timestamp,
    ) -> (Kind, Reply) {
        const PROFILE: [&str; 4] = ["protocols", "oauth2", "profiles", "smart-v1"];
        let get = incoming.method == Method::GET;
        let post = incoming.method == Method::POST;
        // `hosts/{host}` stands before the profile in the advertised token URL only.
        let (host, rest) = match rest {
            ["hosts", host, rest @ ..] => (Some(*host), rest),
            _ => (None, rest),
        };
        if let Some(rest) = rest.strip_prefix(&PROFILE) {
            match rest {
                ["personas", persona, "authorize"] if (get || post) && host.is_none() => {
                    return (Kind::Authorize, self.authorize(tenant, persona, incoming, now));
                }
                ["token"] if post => {
                    let own = if host.is_some() { self.urls.token() } else { self.urls.token_without_host() };
                    let known = tenant == TENANT && host.is_none_or(|host| host == self.urls.host);
                    return (Kind::Token, self.token(known.then_some(&own), incoming, now).await);
                }
                ["token", "revoke"] if post => return (Kind::Revoke, self.revoke(incoming, now).await),
                _ => return (Kind::Page, pages::not_found()),
            }
        }
        if tenant != TENANT {
            return (Kind::Page, pages::not_found());
        }
        let reply = match rest {
            ["log-in"] if post => self.log_in(incoming, now),
            ["consent"] if post => self.consent(incoming, now),
            ["personas", "patient" | "provider", "my-authorizations"] if get => self.grants_page(),
            ["personas", "patient" | "provider", "my-authorizations"] if post => self.withdraw(incoming),
            ["oidc", "idsps", idsp, ".well-known", "openid-configuration"] if get && *idsp == TENANT => {
                self.openid_configuration()
            }
            _ => pages::not_found(),
        };
        (Kind::Page, reply)
    }

    fn preflight() -> Reply {
        Reply::status(StatusCode::NO_CONTENT, "preflight")
            .with(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")
            .with(header::ACCESS_CONTROL_ALLOW_METHODS, "OPTIONS, GET, POST")
            .with(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "Content-Type, Authorization, Accept, Cerner-Correlation-Id, X-Request-Id",
            )
    }

    /// Headers that every answer of a kind has, the log line, the counters, the end of counted faults.
    fn settle(&self, kind: Kind, incoming: &Incoming, reply: &mut Reply, now: Timestamp) {
        let request_id = self.random.uuid();
        let date = self.state().faults.wall_clock(now).http_date();
        let headers = reply.response.headers_mut();
        let mut add = |name: &'static str, value: &str| {
            if let (false, Ok(value)) = (headers.contains_key(name), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        };
        add("date", &date);
        if let Kind::Token | Kind::Revoke | Kind::Introspect | Kind::Authorize = kind {
            add("cerner-correlation-id", &request_id);
            add("cache-control", "no-store");
            add("pragma", "no-cache");
        }
        if let Kind::Token | Kind::Revoke | Kind::Keys | Kind::Fhir | Kind::Discovery = kind {
            add("access-control-allow-origin", "*");
        }
        if let Kind::Fhir | Kind::Discovery = kind {
            add("vary", "Origin");
            let asked = incoming.headers.get("x-request-id").and_then(|value| value.to_str().ok());
            add("x-request-id", asked.unwrap_or(&request_id));
            let hex = self.random.hex::<32>().to_uppercase();
            add("opc-request-id", &format!("/{}/{}", &hex[..32], &hex[32..]));
        }
        let status = reply.response.status().as_u16();
        let result = match (reply.faulty, status) {
            (true, _) => "fault",
            (false, 0..400) => "ok",
            (false, _) => "refused",
        };
        let mut state = self.state();
        if reply.faulty {
            state.faults.spend(reply.faulty_type.as_deref());
        }
        let Some(name) = kind.logged() else { return };
        let detail = match kind {
            Kind::Token => reply.asked["grant_type"].as_str(),
            Kind::Fhir => incoming.path.split('/').nth(3),
            Kind::Page
            | Kind::Control
            | Kind::Discovery
            | Kind::Keys
            | Kind::Authorize
            | Kind::Revoke
            | Kind::Introspect
            | Kind::Elsewhere => None,
        };
        match detail {
            Some(detail) => state.count(&format!("{name}.{detail}.{result}")),
            None => state.count(&format!("{name}.{result}")),
        }
        state.note(LogEntry {
            at: now.to_string(),
            kind: name,
            method: incoming.method.to_string(),
            path: incoming.path.clone(),
            peer: incoming.peer.ip().to_string(),
            asked: std::mem::take(&mut reply.asked),
            status,
            result,
            reason: std::mem::take(&mut reply.reason),
        });
    }
}

/// What a request was about, for headers and the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Page,
    Control,
    Discovery,
    Keys,
    Authorize,
    Token,
    Revoke,
    Introspect,
    Fhir,
    Elsewhere,
}

impl Kind {
    /// The name in the log; `None` when it is not logged.
    const fn logged(self) -> Option<&'static str> {
        match self {
            Self::Page | Self::Control => None,
            Self::Discovery => Some("discovery"),
            Self::Keys => Some("keys"),
            Self::Authorize => Some("authorize"),
            Self::Token => Some("token"),
            Self::Revoke => Some("revoke"),
            Self::Introspect => Some("introspect"),
            Self::Fhir => Some("fhir"),
            Self::Elsewhere => Some("elsewhere"),
        }
    }
}

/// Where false links and redirects lead. The log says whether a token came along, which it never should.
fn elsewhere(incoming: &Incoming) -> Reply {
    let token_came = incoming.headers.contains_key(header::AUTHORIZATION);
    let secret_came = incoming.form().is_some_and(|form| {
        ["client_assertion", "client_secret", "refresh_token", "code"]
            .iter()
            .any(|name| form.one(name).is_some())
    });
    Reply::json(StatusCode::OK, &Value::Object(serde_json::Map::new()))
        .asked(serde_json::json!({"authorization": token_came, "secrets_in_body": secret_came}))
        .because(if token_came || secret_came { "a secret was sent to another origin" } else { "visited" })
}
