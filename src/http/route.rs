//! Every URL of ours, taken apart and put together in one place.

use hyper::Method;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::id::{ConnectionId, Id as _, SourceId};
use crate::workspaces::SessionToken;

/// What may not stand bare in a path segment (RFC 3986 section 3.3).
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Where the live proxy begins.
const FHIR: &str = "/fhir/";

/// One address of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// What this box is.
    Home,
    /// For probes and SDKs.
    Health,
    /// The description of the API for programs.
    OpenApi,
    /// The same for people.
    Docs,
    /// A file that pages use.
    Asset(String),
    /// Our public keys.
    Jwks,
    /// Where EHRs send patients back to: the redirect URI.
    Callback,
    /// Where EHRs open apps: of this registration.
    EhrLaunch(String),
    /// The hosted connect page.
    Connect(SessionToken, ConnectPage),
    /// Platform API: all patients.
    Patients,
    /// Platform API: one patient, by the caller's id.
    Patient(String),
    /// Platform API: one connection of a patient.
    PatientConnection(String, String),
    /// Platform API: a patient's sessions.
    SessionsOfPatient(String),
    /// Platform API: a patient's records.
    Records(String),
    /// Platform API: all of a patient's records in one answer.
    RecordsExport(String),
    /// What happened to a patient's connections: beyond the contract.
    AuthEvents(String),
    /// Platform API: all sources (`/connections` on the wire).
    Sources,
    /// Platform API: one source, by id or base URL.
    Source(String),
    /// Platform API: all sessions.
    Sessions,
    /// Platform API: one session.
    Session(String),
    /// Platform API: the context of an EHR launch.
    LaunchContext(String),
    /// The live FHIR proxy: a connection's id, and what follows it, undecoded.
    Fhir(String, String),
    /// Platform API: all webhook endpoints.
    Webhooks,
    /// Platform API: one webhook endpoint.
    Webhook(String),
    /// Platform API: a webhook endpoint's next secret.
    WebhookSecret(String),
    /// Platform API: the events of a webhook endpoint.
    WebhookEvents(String),
    /// Platform API: an event is sent again.
    Redeliver(String),
}

/// The pages behind a session's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectPage {
    /// Search and choose.
    Start,
    /// What happens next, before leaving for this source.
    Leaving(SourceId),
    /// Go to the hospital.
    Launch,
    /// How it went.
    Result(ConnectionId),
    /// How far the records are.
    Progress(ConnectionId),
    /// A place is missing: tell staff.
    NotListed,
    /// The patient is done.
    Done,
}

/// Who may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Anybody: what patients' browsers, EHRs and probes need, or what carries its own unguessable token.
    Public,
    /// An API key.
    ApiKey,
}

/// The methods an address knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method405(pub &'static [Method]);

/// Why a request has no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// No such address.
    NotFound,
    /// The address is there, the method is not; these are.
    Method(Method405),
}

const READ: &[Method] = &[Method::GET, Method::HEAD];
/// A HEAD would use an attempt up, or begin one.
const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
const COLLECTION: &[Method] = &[Method::GET, Method::HEAD, Method::POST];
const OBJECT: &[Method] = &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE];
/// FHIR's reading, searches by form, and a browser's question beforehand.
const LIVE: &[Method] = &[Method::GET, Method::HEAD, Method::POST, Method::OPTIONS];
const DELETE: &[Method] = &[Method::DELETE];
const PATCHED: &[Method] = &[Method::GET, Method::HEAD, Method::PATCH, Method::DELETE];

impl Route {
    /// The only place where a path is taken apart; [`Route::path`] is its inverse. Segments are decoded once, so `%2F`
    /// stays inside its segment.
    pub fn parse(method: &Method, path: &str) -> Result<Self, Miss> {
        if let Some(live) = path.strip_prefix(FHIR) {
            if !LIVE.contains(method) {
                return Err(Miss::Method(Method405(LIVE)));
            }
            // The rest is FHIR's own address; it is read by a grammar, and must come to it as it was sent.
            let (connection, rest) = live.split_at(live.find('/').unwrap_or(live.len()));
            return Ok(Self::Fhir(connection.to_owned(), rest.to_owned()));
        }
        let mut segments = Vec::new();
        for raw in path.split('/').skip(1) {
            let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| Miss::NotFound)?;
            segments.push(decoded.into_owned());
        }
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        if segments.len() > 1 && segments.contains(&"") {
            return Err(Miss::NotFound);
        }
        let (allowed, route) = match segments.as_slice() {
            [""] => (READ, Self::Home),
            ["health"] => (READ, Self::Health),
            ["openapi.json"] => (READ, Self::OpenApi),
            ["docs"] => (READ, Self::Docs),
            ["assets", name] => (READ, Self::Asset((*name).to_owned())),
            ["api", "auth", ".well-known", "jwks"] | [".well-known", "jwks.json"] => (READ, Self::Jwks),
            ["api", "auth", "smart", "callback"] => (GET, Self::Callback),
            ["launch", client] => (GET, Self::EhrLaunch((*client).to_owned())),
            ["c", token, page @ ..] => {
                let (allowed, page) = ConnectPage::parse(page)?;
                (allowed, Self::Connect(SessionToken::new(*token), page))
            }
            ["patients"] => (COLLECTION, Self::Patients),
            ["patients", id] => (OBJECT, Self::Patient((*id).to_owned())),
            ["patients", id, "patient-sessions"] => (READ, Self::SessionsOfPatient((*id).to_owned())),
            ["patients", id, "records"] => (READ, Self::Records((*id).to_owned())),
            ["patients", id, "records", "export"] => (READ, Self::RecordsExport((*id).to_owned())),
            ["patients", id, "auth-events"] => (READ, Self::AuthEvents((*id).to_owned())),
            ["patients", id, "connections", connection] => {
                (DELETE, Self::PatientConnection((*id).to_owned(), (*connection).to_owned()))
            }
            ["connections"] => (READ, Self::Sources),
            ["connections", id] => (READ, Self::Source((*id).to_owned())),
            ["patient-sessions"] => (POST, Self::Sessions),
            ["patient-sessions", id] => (READ, Self::Session((*id).to_owned())),
            ["launch-contexts", id] => (READ, Self::LaunchContext((*id).to_owned())),
            ["webhooks"] => (COLLECTION, Self::Webhooks),
            ["webhooks", id] => (PATCHED, Self::Webhook((*id).to_owned())),
            ["webhooks", id, "rotate-secret"] => (POST, Self::WebhookSecret((*id).to_owned())),
            ["webhooks", id, "events"] => (READ, Self::WebhookEvents((*id).to_owned())),
            ["events", id, "redeliver"] => (POST, Self::Redeliver((*id).to_owned())),
            _ => return Err(Miss::NotFound),
        };
        if allowed.contains(method) { Ok(route) } else { Err(Miss::Method(Method405(allowed))) }
    }

    /// Whether a path belongs to the live proxy, whose errors are FHIR's.
    pub fn is_fhir(path: &str) -> bool {
        path.starts_with(FHIR)
    }

    /// The path of a route, encoded; the inverse of [`Route::parse`].
    pub fn path(&self) -> String {
        let segment = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
        match self {
            Self::Home => "/".to_owned(),
            Self::Health => "/health".to_owned(),
            Self::OpenApi => "/openapi.json".to_owned(),
            Self::Docs => "/docs".to_owned(),
            Self::Asset(name) => format!("/assets/{}", segment(name)),
            Self::Jwks => "/api/auth/.well-known/jwks".to_owned(),
            Self::Callback => "/api/auth/smart/callback".to_owned(),
            Self::EhrLaunch(client) => format!("/launch/{}", segment(client)),
            Self::Connect(token, page) => format!("/c/{}{}", segment(token.expose()), page.path()),
            Self::Patients => "/patients".to_owned(),
            Self::Patient(id) => format!("/patients/{}", segment(id)),
            Self::SessionsOfPatient(id) => format!("/patients/{}/patient-sessions", segment(id)),
            Self::Records(id) => format!("/patients/{}/records", segment(id)),
            Self::RecordsExport(id) => format!("/patients/{}/records/export", segment(id)),
            Self::AuthEvents(id) => format!("/patients/{}/auth-events", segment(id)),
            Self::PatientConnection(id, connection) => {
                format!("/patients/{}/connections/{}", segment(id), segment(connection))
            }
            Self::Sources => "/connections".to_owned(),
            Self::Source(id) => format!("/connections/{}", segment(id)),
            Self::Sessions => "/patient-sessions".to_owned(),
            Self::Session(id) => format!("/patient-sessions/{}", segment(id)),
            Self::LaunchContext(id) => format!("/launch-contexts/{}", segment(id)),
            Self::Fhir(connection, rest) => format!("/fhir/{connection}{rest}"),
            Self::Webhooks => "/webhooks".to_owned(),
            Self::Webhook(id) => format!("/webhooks/{}", segment(id)),
            Self::WebhookSecret(id) => format!("/webhooks/{}/rotate-secret", segment(id)),
            Self::WebhookEvents(id) => format!("/webhooks/{}/events", segment(id)),
            Self::Redeliver(id) => format!("/events/{}/redeliver", segment(id)),
        }
    }

    /// Who may come in. The public routes are named one by one; whatever is added needs a key until it says otherwise.
    pub fn guard(&self) -> Guard {
        match self {
            Self::Home
            | Self::Health
            | Self::OpenApi
            | Self::Docs
            | Self::Asset(_)
            | Self::Jwks
            | Self::Callback
            | Self::EhrLaunch(_)
            | Self::Connect(..) => Guard::Public,
            Self::Patients
            | Self::Patient(_)
            | Self::PatientConnection(..)
            | Self::SessionsOfPatient(_)
            | Self::Records(_)
            | Self::RecordsExport(_)
            | Self::AuthEvents(_)
            | Self::Sources
            | Self::Source(_)
            | Self::Sessions
            | Self::Session(_)
            | Self::LaunchContext(_)
            | Self::Fhir(..)
            | Self::Webhooks
            | Self::Webhook(_)
            | Self::WebhookSecret(_)
            | Self::WebhookEvents(_)
            | Self::Redeliver(_) => Guard::ApiKey,
        }
    }

    /// The name in log lines and metrics; never the path, which holds ids and tokens.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Health => "health",
            Self::OpenApi => "openapi",
            Self::Docs => "docs",
            Self::Asset(_) => "asset",
            Self::Jwks => "jwks",
            Self::Callback => "callback",
            Self::EhrLaunch(_) => "ehr-launch",
            Self::Connect(_, page) => page.name(),
            Self::Patients => "patients",
            Self::Patient(_) => "patient",
            Self::PatientConnection(..) => "patient-connection",
            Self::SessionsOfPatient(_) => "sessions-of-patient",
            Self::Records(_) => "records",
            Self::RecordsExport(_) => "records-export",
            Self::AuthEvents(_) => "auth-events",
            Self::Sources => "sources",
            Self::Source(_) => "source",
            Self::Sessions => "sessions",
            Self::Session(_) => "session",
            Self::LaunchContext(_) => "launch-context",
            Self::Fhir(..) => "fhir",
            Self::Webhooks => "webhooks",
            Self::Webhook(_) => "webhook",
            Self::WebhookSecret(_) => "webhook-secret",
            Self::WebhookEvents(_) => "webhook-events",
            Self::Redeliver(_) => "redeliver",
        }
    }
}

impl ConnectPage {
    fn parse(segments: &[&str]) -> Result<(&'static [Method], Self), Miss> {
        let bad = |_| Miss::NotFound;
        Ok(match segments {
            [] => (READ, Self::Start),
            ["to", source] => (READ, Self::Leaving(SourceId::parse(source).map_err(bad)?)),
            ["launch"] => (POST, Self::Launch),
            ["result", connection] => (READ, Self::Result(ConnectionId::parse(connection).map_err(bad)?)),
            ["progress", connection] => (READ, Self::Progress(ConnectionId::parse(connection).map_err(bad)?)),
            ["not-listed"] => (COLLECTION, Self::NotListed),
            ["done"] => (COLLECTION, Self::Done),
            _ => return Err(Miss::NotFound),
        })
    }

    fn path(self) -> String {
        match self {
            Self::Start => String::new(),
            Self::Leaving(source) => format!("/to/{source}"),
            Self::Launch => "/launch".to_owned(),
            Self::Result(connection) => format!("/result/{connection}"),
            Self::Progress(connection) => format!("/progress/{connection}"),
            Self::NotListed => "/not-listed".to_owned(),
            Self::Done => "/done".to_owned(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Start => "connect",
            Self::Leaving(_) => "connect-leaving",
            Self::Launch => "connect-launch",
            Self::Result(_) => "connect-result",
            Self::Progress(_) => "connect-progress",
            Self::NotListed => "connect-not-listed",
            Self::Done => "connect-done",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn every_route() -> Vec<Route> {
        let source = SourceId::from_parts(Timestamp::from_seconds(1), [1; 10]);
        let connection = ConnectionId::from_parts(Timestamp::from_seconds(1), [2; 10]);
        let odd = "a/b %2F@ü?#".to_owned();
        let connect = |page| Route::Connect(SessionToken::new("0b9f6c2d"), page);
        vec![
            Route::Home,
            Route::Health,
            Route::OpenApi,
            Route::Docs,
            Route::Asset("chartgate.css".to_owned()),
            Route::Jwks,
            Route::Callback,
            Route::EhrLaunch("cerner".to_owned()),
            connect(ConnectPage::Start),
            connect(ConnectPage::Leaving(source)),
            connect(ConnectPage::Launch),
            connect(ConnectPage::Result(connection)),
            connect(ConnectPage::Progress(connection)),
            connect(ConnectPage::NotListed),
            connect(ConnectPage::Done),
            Route::Patients,
            Route::Patient(odd.clone()),
            Route::PatientConnection(odd.clone(), "conn_1".to_owned()),
            Route::SessionsOfPatient(odd.clone()),
            Route::Records(odd.clone()),
            Route::RecordsExport(odd.clone()),
            Route::AuthEvents(odd),
            Route::Sources,
            Route::Source("https://h.example/r4/t".to_owned()),
            Route::Sessions,
            Route::Session("ps_1".to_owned()),
            Route::LaunchContext("0-0".to_owned()),
            Route::Fhir("conn_1".to_owned(), String::new()),
            Route::Fhir("conn_1".to_owned(), "/Patient/%2e%2e//1".to_owned()),
            Route::Webhooks,
            Route::Webhook("wh_1".to_owned()),
            Route::WebhookSecret("wh_1".to_owned()),
            Route::WebhookEvents("wh_1".to_owned()),
            Route::Redeliver("evt_1".to_owned()),
        ]
    }

    #[test]
    fn every_route_reads_back_its_own_path() {
        for route in every_route() {
            let methods = [Method::GET, Method::POST, Method::DELETE];
            let found = methods.iter().find_map(|method| Route::parse(method, &route.path()).ok());
            assert_eq!(found.as_ref(), Some(&route), "{}", route.path());
        }
    }

    #[test]
    fn both_addresses_of_the_key_set_and_nothing_unknown() {
        assert_eq!(Route::parse(&Method::GET, "/.well-known/jwks.json"), Ok(Route::Jwks));
        for path in ["", "/nothing", "/patients/", "/patients/a/b", "/c", "/c/t/else", "/health/", "/%ff"] {
            assert!(Route::parse(&Method::GET, path).is_err(), "{path}");
        }
        assert!(
            matches!(Route::parse(&Method::GET, "/c/t/launch"), Err(Miss::Method(_))),
            "a launch needs a POST"
        );
    }

    #[test]
    fn only_the_named_routes_are_public() {
        let public: Vec<&str> =
            every_route().iter().filter(|route| route.guard() == Guard::Public).map(Route::name).collect();
        let expected = [
            "home",
            "health",
            "openapi",
            "docs",
            "asset",
            "jwks",
            "callback",
            "ehr-launch",
            "connect",
            "connect-leaving",
            "connect-launch",
            "connect-result",
            "connect-progress",
            "connect-not-listed",
            "connect-done",
        ];
        assert_eq!(public, expected);
    }
}
