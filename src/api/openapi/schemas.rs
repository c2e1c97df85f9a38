//! The shapes of the contract as JSON schemas.

use serde_json::{Map, Value as Json, json};

use crate::api::openapi::reference;
use crate::events::{EventKind, Wanted};
use crate::smart::FailureCode;

/// Ids that look like ours are refused, since the two would be mixed up.
const PATIENT_ID: &str = "^(?!ps_|conn_|fhirsrc_|wh_|evt_)[^\\u0000-\\u001f\\u007f-\\u009f]+$";

const FAILURES: [FailureCode; 7] = [
    FailureCode::UserDenied,
    FailureCode::OauthCallbackFailed,
    FailureCode::OauthStateExpired,
    FailureCode::TokenExchangeFailed,
    FailureCode::MissingPatientContext,
    FailureCode::SourceUnavailable,
    FailureCode::SessionExpired,
];

/// An object with exactly these members, all of them always there.
fn whole(members: &Json) -> Json {
    let names: Vec<&String> = members.as_object().into_iter().flat_map(Map::keys).collect();
    json!({ "type": "object", "required": names, "properties": members })
}

fn text() -> Json {
    json!({ "type": "string" })
}

fn time() -> Json {
    json!({ "type": "string", "format": "date-time", "examples": ["2026-11-02T08:12:45.000Z"] })
}

/// What may be null.
fn nullable(mut schema: Json) -> Json {
    schema["type"] = json!([schema["type"].clone(), "null"]);
    if let Some(values) = schema.get_mut("enum").and_then(Json::as_array_mut) {
        values.push(Json::Null);
    }
    schema
}

fn named(value: &str) -> Json {
    json!({ "type": "string", "const": value })
}

fn id(prefix: &str) -> Json {
    json!({ "type": "string", "pattern": format!("^{prefix}[0-9A-HJKMNP-TV-Z]{{26}}$") })
}

fn list_of(items: &Json) -> Json {
    json!({ "type": "array", "items": items })
}

fn page_of(schema: &str) -> Json {
    whole(&json!({
        "resource_type": named("list"),
        "data": list_of(&reference("schemas", schema)),
        "has_more": { "type": "boolean" },
        "next_cursor": nullable(text()),
    }))
}

fn tombstone(id: &Json, kind: &str, what: &str) -> Json {
    whole(&json!({ "id": id, "resource_type": named(kind), what: { "type": "boolean", "const": true } }))
}

/// The error envelope.
pub(super) fn error() -> Json {
    whole(&json!({ "error": whole(&json!({
        "type": text(),
        "code": text(),
        "message": { "type": "string", "description": "For people: what happened, and what to do." },
        "param": nullable(json!({ "type": "string", "description": "The field or parameter it is about." })),
        "doc_url": { "type": "string", "format": "uri" },
        "request_id": { "type": "string", "format": "uuid" },
    })) }))
}

/// All schemas, by name.
pub(super) fn all() -> Json {
    let metadata = json!({ "type": "object", "description": "Whatever you want back; `{}` when unset." });
    let patient_id = json!({
        "type": "string", "minLength": 1, "maxLength": 200, "pattern": PATIENT_ID,
        "description": "Your own id of the patient: free text that does not begin like an id of ours.",
        "examples": ["amy-7"],
    });
    let email = json!({ "type": "string", "format": "email", "maxLength": 254 });
    let name = json!({ "type": "string", "maxLength": 200 });
    let patient = json!({
        "id": { "type": "string", "description": "Your `patient_id`." },
        "resource_type": named("patient"),
        "email": nullable(text()),
        "name": nullable(text()),
        "metadata": metadata,
        "created_at": time(),
    });
    let mut detail = patient.clone();
    detail["connections"] = list_of(&reference("schemas", "Connection"));
    let statuses = ["active", "failed", "expired", "refresh_failed", "disconnected"];
    let status = json!({ "type": "string", "enum": statuses });
    let known = FAILURES.map(|code| format!("`{}`", code.as_str())).join(", ");
    let about = format!("Why it failed: {known}; more may be added.");
    let failure = nullable(json!({ "type": "string", "description": about }));
    let mut all = json!({
        "Health": whole(&json!({ "ok": { "type": "boolean" }, "server_time": time() })),
        "Error": error(),
        "Patient": whole(&patient),
        "PatientDetail": whole(&detail),
        "PatientList": page_of("Patient"),
        "NewPatient": {
            "type": "object", "required": ["patient_id"],
            "properties": { "patient_id": patient_id, "email": email, "name": name, "metadata": metadata },
        },
        "PatientReplacement": {
            "type": "object", "required": ["patient_id"],
            "properties": {
                "patient_id": patient_id, "email": nullable(email.clone()), "name": nullable(name.clone()),
                "metadata": metadata,
            },
        },
        "DeletedPatient": tombstone(&text(), "patient", "deleted"),
        "Connection": whole(&json!({
            "id": id("conn_"),
            "resource_type": named("connection"),
            "patient_session_id": nullable(id("ps_")),
            "connection_id": id("fhirsrc_"),
            "status": status,
            "scopes": list_of(&text()),
            "failure_code": failure,
            "failure_at": nullable(time()),
            "created_at": time(),
            "updated_at": time(),
        })),
        "DisconnectedConnection": tombstone(&id("conn_"), "connection", "disconnected"),
        "NewPatientSession": new_session(&patient_id, &email, &name, &metadata),
        "PatientSession": whole(&json!({
            "id": id("ps_"),
            "resource_type": named("patient_session"),
            "status": { "type": "string", "enum": ["open", "complete", "expired"] },
            "url": { "type": "string", "format": "uri", "description": "Send the patient's browser here." },
            "patient_id": text(),
            "connection_id": nullable(id("fhirsrc_")),
            "recommended_connection_ids": nullable(list_of(&id("fhirsrc_"))),
            "return_url": text(),
            "return_button_label": nullable(text()),
            "connections": list_of(&reference("schemas", "SessionConnection")),
            "expires_at": time(),
            "created_at": time(),
            "metadata": metadata,
        })),
        "SessionConnection": whole(&json!({
            "id": nullable(id("conn_")),
            "connection_id": id("fhirsrc_"),
            "status": status,
            "failure_code": failure,
            "failure_at": nullable(time()),
            "created_at": time(),
        })),
        "PatientSessionList": page_of("PatientSession"),
        "Record": whole(&json!({
            "source": nullable(id("fhirsrc_")),
            "resource": {
                "type": "object", "required": ["resourceType"],
                "properties": { "resourceType": text() },
                "description": "A FHIR R4 resource under the source's own id. A `Patient` also carries your id, under \
                                `urn:medblocks:patient-id`.",
            },
        })),
        "FhirResource": {
            "type": "object", "required": ["resourceType"],
            "properties": { "resourceType": text() },
            "description": "Any FHIR R4 resource.",
        },
        "PatientRecords": whole(&json!({
            "resource_type": named("list"),
            "patient_id": text(),
            "data": list_of(&reference("schemas", "Record")),
            "has_more": { "type": "boolean" },
            "next_cursor": nullable(cursor()),
            "previous_cursor": nullable(cursor()),
        })),
        "FhirSource": whole(&json!({
            "id": id("fhirsrc_"),
            "resource_type": named("fhir_source"),
            "name": text(),
            "type": nullable(json!({ "type": "string", "description": "The vendor; null when it is not known." })),
            "fhir_base_url": { "type": "string", "format": "uri" },
            "logo_url": nullable(text()),
            "portal_url": nullable(text()),
        })),
        "FhirSourceList": page_of("FhirSource"),
        "LaunchContext": whole(&json!({
            "id": { "type": "string", "format": "uuid" },
            "resource_type": named("launch_context"),
            "status": { "type": "string", "enum": ["ready", "pending"] },
            "patient": nullable(text()),
            "encounter": nullable(text()),
            "fhir_user": nullable(text()),
            "scope": nullable(text()),
            "fhir_source": nullable(id("fhirsrc_")),
            "fhir_base_url": { "type": "string", "format": "uri" },
            "created_at": time(),
            "expires_at": time(),
            "need_patient_banner": { "type": "boolean" },
            "intent": nullable(text()),
            "tenant": nullable(text()),
            "smart_style_url": nullable(text()),
            "fhir_proxy_url": nullable(text()),
        })),
    });
    if let (Some(all), Json::Object(more)) = (all.as_object_mut(), webhooks(&metadata)) {
        all.extend(more);
    }
    all
}

/// Endpoints, their events, and what happened to connections.
fn webhooks(metadata: &Json) -> Json {
    let spellings = std::iter::once(Wanted::Everything).chain(EventKind::ALL.map(Wanted::Kind));
    let spellings: Vec<&str> = spellings.map(Wanted::as_str).collect();
    let kinds = json!({
        "type": "array", "minItems": 1, "items": { "type": "string", "enum": spellings },
        "description": "`*` stands for `patient_session.completed`, `connection.token_refresh_failed`, \
                        `records.sync.completed` and `records.sync.failed`, of which there may be five items at most. What \
                        begins with `chartgate.` is sent only where it is asked for by name.",
    });
    let url = json!({
        "type": "string", "format": "uri", "maxLength": 2048,
        "description": "https; in a sandbox workspace also http://localhost.",
        "examples": ["https://app.example/hooks"],
    });
    let description = json!({ "type": "string", "maxLength": 500 });
    let bounded =
        json!({ "type": "object", "maxProperties": 50, "description": "Up to 50 members of your own." });
    let status = json!({ "type": "string", "enum": ["active", "disabled"] });
    let endpoint = json!({
        "id": id("wh_"),
        "resource_type": named("webhook_endpoint"),
        "url": text(),
        "events": list_of(&text()),
        "status": status,
        "description": nullable(text()),
        "metadata": metadata,
        "api_version": text(),
        "created_at": time(),
        "updated_at": time(),
    });
    let mut with_secret = endpoint.clone();
    with_secret["secret"] =
        json!({ "type": "string", "description": "`whsec_…`; the whole text is the key." });
    let object = json!({ "type": "object", "description": "What the event is about." });
    json!({
        "WebhookEndpoint": whole(&endpoint),
        "WebhookEndpointWithSecret": whole(&with_secret),
        "WebhookEndpointList": page_of("WebhookEndpoint"),
        "NewWebhookEndpoint": {
            "type": "object", "required": ["url", "events"],
            "properties": { "url": url, "events": kinds, "description": description, "metadata": bounded },
        },
        "WebhookEndpointChange": {
            "type": "object",
            "properties": {
                "url": url, "events": kinds, "description": nullable(description.clone()), "metadata": bounded,
                "status": status,
            },
        },
        "DeletedWebhookEndpoint": tombstone(&id("wh_"), "webhook_endpoint", "deleted"),
        "Event": whole(&json!({
            "id": id("evt_"),
            "resource_type": named("event"),
            "webhook_endpoint_id": id("wh_"),
            "type": text(),
            "data": whole(&json!({ "object": object })),
            "api_version": text(),
            "attempts": { "type": "integer", "minimum": 0 },
            "next_attempt_at": nullable(time()),
            "delivered_at": nullable(time()),
            "last_status_code": nullable(json!({ "type": "integer" })),
            "last_response_body": nullable(text()),
            "last_redelivered_at": nullable(time()),
            "created_at": time(),
        })),
        "EventList": page_of("Event"),
        "AuthEvent": whole(&json!({
            "resource_type": named("auth_event"),
            "connection": id("conn_"),
            "source": id("fhirsrc_"),
            "source_name": nullable(text()),
            "event": text(),
            "at": time(),
            "code": nullable(text()),
            "correlation_id": nullable(text()),
            "description": nullable(text()),
            "reference": nullable(json!({ "type": "string", "description": "For `chartgate incident`." })),
            "details": { "type": "object" },
        })),
        "AuthEventList": page_of("AuthEvent"),
    })
}

/// Cursors of records have twelve characters and live for seven days.
fn cursor() -> Json {
    json!({ "type": "string", "minLength": 12, "maxLength": 12 })
}

fn new_session(patient_id: &Json, email: &Json, name: &Json, metadata: &Json) -> Json {
    let source = json!({
        "type": "string", "minLength": 1, "maxLength": 2048,
        "description": "`fhirsrc_…`, or the FHIR base URL of a source.",
    });
    json!({
        "type": "object",
        "required": ["patient_id", "return_url"],
        "additionalProperties": false,
        "not": { "required": ["connection_id", "recommended_connection_ids"] },
        "properties": {
            "patient_id": patient_id,
            "return_url": {
                "type": "string", "format": "uri", "maxLength": 2048,
                "description": "Where the browser goes afterwards: http, https, or a scheme of your own app.",
                "examples": ["https://app.example/back"],
            },
            "patient_email": email,
            "patient_name": name,
            "connection_id": source,
            "recommended_connection_ids": { "type": "array", "maxItems": 100, "items": source },
            "return_button_label": { "type": "string", "minLength": 1, "maxLength": 60 },
            "expires_in": { "type": "integer", "minimum": 60, "maximum": 86400, "default": 1800 },
            "metadata": metadata,
        },
    })
}
