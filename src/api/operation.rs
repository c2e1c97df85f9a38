//! The operations of the API, each in one row: what a key must be allowed, and what the description says of it. A route
//! and a method lead to one operation, or to none.

use hyper::Method;

use crate::http::Route;
use crate::workspaces::KeyScope;

/// One operation of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `GET /health`
    Health,
    /// `POST /patients`
    CreatePatient,
    /// `GET /patients`
    ListPatients,
    /// `GET /patients/{id}`
    GetPatient,
    /// `PUT /patients/{id}`
    UpdatePatient,
    /// `DELETE /patients/{id}`
    DeletePatient,
    /// `DELETE /patients/{id}/connections/{connection_id}`
    DisconnectPatientConnection,
    /// `GET /patients/{id}/patient-sessions`
    ListPatientSessionsForPatient,
    /// `GET /patients/{id}/records`
    GetPatientRecords,
    /// `GET /patients/{id}/records/export`
    ExportPatientRecords,
    /// `GET /connections`
    ListFhirSources,
    /// `GET /connections/{id}`
    GetFhirSource,
    /// `POST /patient-sessions`
    InitPatientSession,
    /// `GET /patient-sessions/{id}`
    RetrievePatientSession,
    /// `GET /launch-contexts/{id}`
    RetrieveLaunchContext,
    /// `GET /fhir/{connection_id}/…`
    ReadLive,
    /// `POST /fhir/{connection_id}/{type}/_search`
    SearchLive,
    /// `POST /webhooks`
    CreateWebhook,
    /// `GET /webhooks`
    ListWebhooks,
    /// `GET /webhooks/{id}`
    GetWebhook,
    /// `PATCH /webhooks/{id}`
    UpdateWebhook,
    /// `DELETE /webhooks/{id}`
    DeleteWebhook,
    /// `POST /webhooks/{id}/rotate-secret`
    RotateWebhookSecret,
    /// `GET /webhooks/{id}/events`
    ListWebhookEvents,
    /// `POST /events/{id}/redeliver`
    RedeliverWebhookEvent,
    /// `GET /patients/{id}/auth-events`, beyond the contract
    ListAuthEvents,
}

/// An operation's row.
#[derive(Debug)]
pub struct Row {
    /// Which one.
    pub operation: Operation,
    /// `operationId` in the description.
    pub id: &'static str,
    /// `GET` stands for `HEAD`, too.
    pub method: Method,
    /// The path with its parameters in braces.
    pub path: &'static str,
    /// What the key must be allowed; `None` for what needs no key.
    pub scope: Option<KeyScope>,
}

const fn row(
    operation: Operation,
    id: &'static str,
    method: Method,
    path: &'static str,
    scope: Option<KeyScope>,
) -> Row {
    Row { operation, id, method, path, scope }
}

/// All operations, in the order of the contract.
///
/// Health records need `fhir:read` whichever way they are read: a key that manages patients opens no chart.
pub const OPERATIONS: &[Row] = {
    use KeyScope::{
        ConnectionsRead, FhirRead, PatientSessionsRead, PatientSessionsWrite, PatientsRead, PatientsWrite,
        WebhooksRead, WebhooksWrite,
    };
    use Operation as Op;
    const SESSIONS_OF: &str = "/patients/{id}/patient-sessions";
    const LIVE: &str = "/fhir/{connection_id}/{path}";
    const CONNECTION_OF: &str = "/patients/{id}/connections/{connection_id}";
    &[
        row(Op::Health, "api.health", Method::GET, "/health", None),
        row(Op::CreatePatient, "api.createPatient", Method::POST, "/patients", Some(PatientsWrite)),
        row(Op::ListPatients, "api.listPatients", Method::GET, "/patients", Some(PatientsRead)),
        row(Op::GetPatient, "api.getPatient", Method::GET, "/patients/{id}", Some(PatientsRead)),
        row(Op::UpdatePatient, "api.updatePatient", Method::PUT, "/patients/{id}", Some(PatientsWrite)),
        row(Op::DeletePatient, "api.deletePatient", Method::DELETE, "/patients/{id}", Some(PatientsWrite)),
        row(
            Op::DisconnectPatientConnection,
            "api.disconnectPatientConnection",
            Method::DELETE,
            CONNECTION_OF,
            Some(PatientsWrite),
        ),
        row(
            Op::ListPatientSessionsForPatient,
            "api.listPatientSessionsForPatient",
            Method::GET,
            SESSIONS_OF,
            Some(PatientSessionsRead),
        ),
        row(
            Op::GetPatientRecords,
            "api.getPatientRecords",
            Method::GET,
            "/patients/{id}/records",
            Some(FhirRead),
        ),
        row(
            Op::ExportPatientRecords,
            "api.exportPatientRecords",
            Method::GET,
            "/patients/{id}/records/export",
            Some(FhirRead),
        ),
        row(Op::ListFhirSources, "api.listFhirSources", Method::GET, "/connections", Some(ConnectionsRead)),
        row(Op::GetFhirSource, "api.getFhirSource", Method::GET, "/connections/{id}", Some(ConnectionsRead)),
        row(
            Op::InitPatientSession,
            "api.initPatientSession",
            Method::POST,
            "/patient-sessions",
            Some(PatientSessionsWrite),
        ),
        row(
            Op::RetrievePatientSession,
            "api.retrievePatientSession",
            Method::GET,
            "/patient-sessions/{id}",
            Some(PatientSessionsRead),
        ),
        row(
            Op::RetrieveLaunchContext,
            "api.retrieveLaunchContext",
            Method::GET,
            "/launch-contexts/{id}",
            Some(PatientSessionsRead),
        ),
        row(Op::ReadLive, "fhir.read", Method::GET, LIVE, Some(FhirRead)),
        row(Op::SearchLive, "fhir.search", Method::POST, LIVE, Some(FhirRead)),
        row(Op::CreateWebhook, "api.createWebhook", Method::POST, "/webhooks", Some(WebhooksWrite)),
        row(Op::ListWebhooks, "api.listWebhooks", Method::GET, "/webhooks", Some(WebhooksRead)),
        row(Op::GetWebhook, "api.getWebhook", Method::GET, "/webhooks/{id}", Some(WebhooksRead)),
        row(Op::UpdateWebhook, "api.updateWebhook", Method::PATCH, "/webhooks/{id}", Some(WebhooksWrite)),
        row(Op::DeleteWebhook, "api.deleteWebhook", Method::DELETE, "/webhooks/{id}", Some(WebhooksWrite)),
        row(
            Op::RotateWebhookSecret,
            "api.rotateWebhookSecret",
            Method::POST,
            "/webhooks/{id}/rotate-secret",
            Some(WebhooksWrite),
        ),
        row(
            Op::ListWebhookEvents,
            "api.listWebhookEvents",
            Method::GET,
            "/webhooks/{id}/events",
            Some(WebhooksRead),
        ),
        row(
            Op::RedeliverWebhookEvent,
            "api.redeliverWebhookEvent",
            Method::POST,
            "/events/{id}/redeliver",
            Some(WebhooksWrite),
        ),
        row(
            Op::ListAuthEvents,
            "api.listAuthEvents",
            Method::GET,
            "/patients/{id}/auth-events",
            Some(PatientsRead),
        ),
    ]
};

impl Operation {
    /// The operation behind a route and a method. Every route is named here, so that a new one is not forgotten.
    pub fn of(route: &Route, method: &Method) -> Option<Self> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match route {
            Route::Health => Some(Self::Health),
            Route::Patients if *method == Method::POST => Some(Self::CreatePatient),
            Route::Patients => Some(Self::ListPatients),
            Route::Patient(_) if reads => Some(Self::GetPatient),
            Route::Patient(_) if *method == Method::PUT => Some(Self::UpdatePatient),
            Route::Patient(_) => Some(Self::DeletePatient),
            Route::PatientConnection(..) => Some(Self::DisconnectPatientConnection),
            Route::SessionsOfPatient(_) => Some(Self::ListPatientSessionsForPatient),
            Route::Records(_) => Some(Self::GetPatientRecords),
            Route::RecordsExport(_) => Some(Self::ExportPatientRecords),
            Route::Sources => Some(Self::ListFhirSources),
            Route::Source(_) => Some(Self::GetFhirSource),
            Route::Sessions => Some(Self::InitPatientSession),
            Route::Session(_) => Some(Self::RetrievePatientSession),
            Route::LaunchContext(_) => Some(Self::RetrieveLaunchContext),
            Route::Fhir(..) if *method == Method::POST => Some(Self::SearchLive),
            Route::Fhir(..) => Some(Self::ReadLive),
            Route::Webhooks if *method == Method::POST => Some(Self::CreateWebhook),
            Route::Webhooks => Some(Self::ListWebhooks),
            Route::Webhook(_) if reads => Some(Self::GetWebhook),
            Route::Webhook(_) if *method == Method::PATCH => Some(Self::UpdateWebhook),
            Route::Webhook(_) => Some(Self::DeleteWebhook),
            Route::WebhookSecret(_) => Some(Self::RotateWebhookSecret),
            Route::WebhookEvents(_) => Some(Self::ListWebhookEvents),
            Route::Redeliver(_) => Some(Self::RedeliverWebhookEvent),
            Route::AuthEvents(_) => Some(Self::ListAuthEvents),
            Route::Home
            | Route::OpenApi
            | Route::Docs
            | Route::Asset(_)
            | Route::Jwks
            | Route::Callback
            | Route::EhrLaunch(_)
            | Route::Connect(..) => None,
        }
    }

    /// Its row.
    pub fn row(self) -> &'static Row {
        OPERATIONS.iter().find(|row| row.operation == self).expect("every operation has a row, says a test")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Guard;

    /// A path of the table with something in the place of its parameters.
    fn filled(path: &str) -> String {
        path.split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect::<Vec<_>>()
            .join("/")
    }

    #[test]
    fn every_row_is_what_its_route_leads_to() {
        for row in OPERATIONS {
            let route = Route::parse(&row.method, &filled(row.path)).expect(row.path);
            assert_eq!(Operation::of(&route, &row.method), Some(row.operation), "{}", row.id);
            assert_eq!(route.guard() == Guard::ApiKey, row.scope.is_some(), "{}", row.id);
            assert_eq!(row.operation.row().id, row.id, "one row each");
        }
    }

    #[test]
    fn every_method_of_a_route_behind_a_key_is_an_operation() {
        let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let mut reached = 0;
        for row in OPERATIONS {
            for method in &methods {
                let Ok(route) = Route::parse(method, &filled(row.path)) else { continue };
                let found = Operation::of(&route, method).expect(row.path).row();
                let read = if *method == Method::HEAD { &Method::GET } else { method };
                assert_eq!((found.path, &found.method), (row.path, read));
                reached += 1;
            }
        }
        assert!(reached > OPERATIONS.len());
    }
}
