//! The platform API: wire structs and handlers. Knows no HTML.
//!
//! Success is always status 200, creates and deletes included; errors always have the six-key envelope; another
//! workspace's objects are 404.

mod auth_events;
mod cursor;
mod etag;
mod export;
mod guard;
mod idempotency;
mod input;
mod launch_contexts;
mod openapi;
mod operation;
mod patients;
mod records;
mod sessions;
mod sources;
mod throttle;
mod webhook_events;
mod webhooks;
mod wire;

use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::clock::Clock;
use crate::config::PublicUrl;
use crate::directory::Directory;
use crate::events::{Accesses, Webhooks};
use crate::grants::Grants;
use crate::http::{Answer, Problem, Route};
use crate::records::Records;
use crate::store::Store;
use crate::workspaces::{ApiKeys, Caller, Patients, Sessions};

pub use guard::{ApiLimits, Guarded};
pub use input::Query;
pub use openapi::description;
pub use operation::{OPERATIONS, Operation, Row};
pub use wire::API_VERSION;

/// What the handlers use.
#[derive(Debug, Clone)]
pub struct Api {
    /// The store, for reads that span rooms.
    pub store: Store,
    /// Now.
    pub clock: Clock,
    /// Who may call.
    pub api_keys: ApiKeys,
    /// How often.
    pub limits: ApiLimits,
    /// Patients.
    pub patients: Patients,
    /// Their journeys.
    pub sessions: Sessions,
    /// Where to connect.
    pub directory: Directory,
    /// Connections.
    pub grants: Grants,
    /// What was read.
    pub records: Records,
    /// Who read what.
    pub accesses: Accesses,
    /// Who is told of events.
    pub webhooks: Webhooks,
    /// Our own address, for links.
    pub public_url: PublicUrl,
    /// How long a session lives when the caller does not say.
    pub session_lifetime: std::time::Duration,
}

/// A request that passed the guard.
#[derive(Debug)]
pub struct ApiRequest {
    /// Who calls.
    pub caller: Caller,
    /// The method.
    pub method: Method,
    /// Its headers.
    pub headers: HeaderMap,
    /// The query's parameters.
    pub query: Query,
    /// The whole body.
    pub body: Bytes,
}

impl Api {
    /// Answers one of the API's routes.
    pub async fn handle(&self, route: Route, request: ApiRequest) -> Result<Answer, Problem> {
        match (route, &request.method) {
            (Route::Patients, &Method::POST) => patients::create(self, &request).await,
            (Route::Patients, _) => patients::list(self, &request).await,
            (Route::Patient(id), &Method::PUT) => patients::replace(self, &request, &id).await,
            (Route::Patient(id), &Method::DELETE) => patients::delete(self, &request, &id).await,
            (Route::Patient(id), _) => patients::retrieve(self, &request, &id).await,
            (Route::PatientConnection(id, connection), _) => {
                patients::disconnect(self, &request, &id, &connection).await
            }
            (Route::SessionsOfPatient(id), _) => sessions::list(self, &request, &id).await,
            (Route::Records(id), _) => records::page(self, &request, &id).await,
            (Route::RecordsExport(id), _) => export::export(self, &request, &id).await,
            (Route::Sources, _) => sources::list(self, &request),
            (Route::Source(id), _) => sources::retrieve(self, &request, &id),
            (Route::Sessions, _) => sessions::create(self, &request).await,
            (Route::Session(id), _) => sessions::retrieve(self, &request, &id).await,
            (Route::LaunchContext(id), _) => launch_contexts::retrieve(self, &request, &id).await,
            (Route::AuthEvents(id), _) => auth_events::list(self, &request, &id).await,
            (Route::Webhooks, &Method::POST) => webhooks::create(self, &request).await,
            (Route::Webhooks, _) => webhooks::list(self, &request).await,
            (Route::Webhook(id), &Method::PATCH) => webhooks::update(self, &request, &id).await,
            (Route::Webhook(id), &Method::DELETE) => webhooks::delete(self, &request, &id).await,
            (Route::Webhook(id), _) => webhooks::retrieve(self, &request, &id).await,
            (Route::WebhookSecret(id), _) => webhooks::rotate_secret(self, &request, &id).await,
            (Route::WebhookEvents(id), _) => webhook_events::list(self, &request, &id).await,
            (Route::Redeliver(id), _) => webhook_events::redeliver(self, &request, &id).await,
            (
                Route::Home
                | Route::Health
                | Route::OpenApi
                | Route::Docs
                | Route::Asset(_)
                | Route::Jwks
                | Route::Callback
                | Route::EhrLaunch(_)
                | Route::Connect(..)
                | Route::Fhir(..),
                _,
            ) => Err(Problem::not_found("This address")),
        }
    }

    /// `GET /health`: the process answers and its store takes writes.
    pub fn health(&self) -> Answer {
        let ok = self.store.is_writable();
        let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Answer::json(status, &json!({ "ok": ok, "server_time": self.clock.now().to_string() }))
    }
}

fn ok(value: &impl Serialize) -> Answer {
    Answer::json(StatusCode::OK, value)
}
