//! The description of the API in `OpenAPI` 3.1, made from the table of operations, the list of errors and the shapes of the
//! contract. The page for people is drawn from the same document, and tests hold the handlers against it.

mod operations;
mod schemas;

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::{Map, Value as Json, json};

use crate::api::idempotency::IDEMPOTENCY_KEY;
use crate::api::{API_VERSION, OPERATIONS, Operation, Row};
use crate::http::ProblemKind;
use crate::workspaces::KeyScope;

use operations::{Answered, Described, describe};

/// The description, for an appliance at this address.
pub fn description(origin: &str) -> Json {
    let mut paths: BTreeMap<&str, Map<String, Json>> = BTreeMap::new();
    for row in OPERATIONS {
        let method = row.method.as_str().to_ascii_lowercase();
        paths.entry(row.path).or_default().insert(method, operation(row));
    }
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Chartgate platform API",
            "version": API_VERSION,
            "summary": "Patients, their journeys to their hospitals, their connections and their health records.",
            "description": INTRODUCTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": origin, "description": "This appliance" }],
        "security": [{ "apiKey": [] }],
        "tags": [
            { "name": "Patients", "description": "Your patients, under the ids you give them." },
            { "name": "Patient sessions", "description": "One browser journey of one patient to their hospitals." },
            { "name": "Connections", "description": "The catalogue of FHIR sources that patients can connect." },
            { "name": "Records", "description": "Health records, as the source has them." },
            { "name": "Webhooks", "description": "Who is told what happened, and what was delivered." },
            { "name": "EHR launch", "description": "Apps that are opened from inside an EHR." },
            { "name": "Service", "description": "Whether it works." },
        ],
        "paths": paths,
        "components": {
            "securitySchemes": { "apiKey": {
                "type": "http", "scheme": "bearer",
                "description": format!("`Authorization: Bearer mb_sk_…`. A key may be limited to scopes: {}.", scopes()),
            } },
            "parameters": parameters(),
            "headers": headers(),
            "responses": refusals(),
            "schemas": schemas::all(),
        },
    })
}

const INTRODUCTION: &str = "\
Every request but `GET /health` carries an API key of one workspace and sees that workspace's data only; what belongs to \
another is not found. The API is for servers: browsers must not hold a key.\n\n\
Success is always status 200, creations and deletions included. Errors have one envelope with six members; branch on \
`code`. Every answer carries `X-Request-Id`.\n\n\
Times are UTC with milliseconds. Members that can be null are always there. New members may be added; ignore those you do \
not know.\n\n\
Lists are newest first and stay stable while they grow. Pass `next_cursor` back as `starting_after`, with the same \
filters, for as long as `has_more` is true.\n\n\
A field called `connection_id` in bodies holds the id of a FHIR source (`fhirsrc_…`); only the path of the disconnect \
operation takes the id of a connection (`conn_…`).";

fn scopes() -> String {
    KeyScope::ALL.map(|scope| format!("`{scope}`")).join(", ")
}

fn operation(row: &Row) -> Json {
    let Described { tag, summary, about, parameters, body, answered, refused } = describe(row.operation);
    let keyed = row.scope.is_some();
    let mut all = Vec::new();
    if keyed {
        all.push(reference("parameters", "Version"));
    }
    all.extend(parameters);
    let mut responses = Map::new();
    let (mut success, more) = success(&answered, keyed);
    let links = links(row.operation);
    if !links.is_empty() {
        success["links"] = Json::Object(links);
    }
    responses.insert("200".to_owned(), success);
    for (status, answer) in more {
        responses.insert(status.to_owned(), answer);
    }
    let refusals = if matches!(answered, Answered::Fhir) { Vec::new() } else { statuses(keyed, &refused) };
    for status in refusals {
        responses.insert(status.as_str().to_owned(), reference("responses", &refusal_name(status)));
    }
    let mut operation = json!({
        "operationId": row.id,
        "tags": [tag],
        "summary": summary,
        "description": match row.scope {
            Some(scope) => format!("{about}\n\nNeeds the scope `{scope}`."),
            None => about.to_owned(),
        },
        "parameters": all,
        "responses": responses,
    });
    if let Some((schema, required)) = body {
        operation["requestBody"] = json!({
            "required": required,
            "content": { "application/json": { "schema": reference("schemas", schema) } },
        });
    }
    if let Some(scope) = row.scope {
        operation["x-required-scope"] = json!(scope.as_str());
    } else {
        operation["security"] = json!([]);
    }
    operation
}

/// Where in an answer an id is, and the operations it can be handed to: clients are generated with it, and tests find
/// their way by it.
const LINKS: &[(Operation, &str, &[Operation])] = {
    use Operation as Op;
    const ID: &str = "$response.body#/id";
    const FIRST: &str = "$response.body#/data/0/id";
    &[
        (
            Op::CreatePatient,
            ID,
            &[
                Op::GetPatient,
                Op::UpdatePatient,
                Op::ListPatientSessionsForPatient,
                Op::GetPatientRecords,
                Op::ExportPatientRecords,
                Op::ListAuthEvents,
                Op::DeletePatient,
            ],
        ),
        (Op::InitPatientSession, ID, &[Op::RetrievePatientSession]),
        (
            Op::CreateWebhook,
            ID,
            &[
                Op::GetWebhook,
                Op::UpdateWebhook,
                Op::RotateWebhookSecret,
                Op::ListWebhookEvents,
                Op::DeleteWebhook,
            ],
        ),
        (Op::ListFhirSources, FIRST, &[Op::GetFhirSource]),
        (Op::ListWebhookEvents, FIRST, &[Op::RedeliverWebhookEvent]),
    ]
};

fn links(operation: Operation) -> Map<String, Json> {
    let of_this = LINKS.iter().filter(|(from, ..)| *from == operation);
    let links = of_this.flat_map(|(_, place, targets)| {
        targets.iter().map(move |target| {
            let id = target.row().id;
            let link = json!({ "operationId": id, "parameters": { "id": place } });
            (id.trim_start_matches("api.").to_owned(), link)
        })
    });
    links.collect()
}

/// The answer of a success, and further ones that are no errors.
fn success(answered: &Answered, keyed: bool) -> (Json, Vec<(&'static str, Json)>) {
    let mut headers = Map::new();
    headers.insert("X-Request-Id".to_owned(), reference("headers", "X-Request-Id"));
    if keyed {
        for name in ["RateLimit", "RateLimit-Policy"] {
            headers.insert(name.to_owned(), reference("headers", name));
        }
    }
    let media = |media: &str, schema: Json| json!({ media: { "schema": schema } });
    let answer = |about: &str, headers: &Map<String, Json>, content: Json| json!({ "description": about, "headers": headers, "content": content });
    match answered {
        Answered::Json(schema) => {
            (answer("Done.", &headers, media("application/json", reference("schemas", schema))), Vec::new())
        }
        Answered::Object(schema) => {
            headers.insert("ETag".to_owned(), reference("headers", "ETag"));
            let found = answer("Found.", &headers, media("application/json", reference("schemas", schema)));
            let same = json!({ "description": "Not modified: `If-None-Match` names what there is.", "headers": headers });
            (found, vec![("304", same)])
        }
        Answered::Once(schema) => {
            headers.insert("Idempotency-Replayed".to_owned(), reference("headers", "Idempotency-Replayed"));
            (answer("Done.", &headers, media("application/json", reference("schemas", schema))), Vec::new())
        }
        Answered::Health => {
            let content = || media("application/json", reference("schemas", "Health"));
            let broken = answer("The store takes no more writes; an operator must act.", &headers, content());
            (answer("It works.", &headers, content()), vec![("503", broken)])
        }
        Answered::Fhir => {
            let content = || media("application/fhir+json", reference("schemas", "FhirResource"));
            let about = "Not read: an OperationOutcome says why, the hospital's own or ours.";
            let refused = answer(about, &headers, content());
            let found = answer("As the hospital has it: a resource, or a Bundle.", &headers, content());
            (found, vec![("default", refused)])
        }
        Answered::Lines => {
            let content = json!({
                "application/x-ndjson": { "schema": { "type": "string" } },
                "application/gzip": { "schema": { "type": "string", "contentMediaType": "application/gzip" } },
            });
            (answer("Every line is a `Record`.", &headers, content), Vec::new())
        }
    }
}

/// The statuses an operation may refuse with.
fn statuses(keyed: bool, refused: &[ProblemKind]) -> Vec<StatusCode> {
    let everywhere: &[ProblemKind] = if keyed {
        &[
            ProblemKind::BadRequest,
            ProblemKind::MissingApiKey,
            ProblemKind::InsufficientScope,
            ProblemKind::PayloadTooLarge,
            ProblemKind::Throttled(1),
            ProblemKind::Internal,
        ]
    } else {
        &[ProblemKind::Internal]
    };
    let mut all: Vec<StatusCode> = everywhere.iter().chain(refused).map(|kind| kind.parts().0).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// One answer for each status that an error has, with the codes it can carry.
fn refusals() -> Json {
    let mut by_status: BTreeMap<StatusCode, Vec<ProblemKind>> = BTreeMap::new();
    for kind in ProblemKind::ALL {
        by_status.entry(kind.parts().0).or_default().push(kind);
    }
    let mut all = Map::new();
    for (status, kinds) in by_status {
        let mut types: Vec<&str> = kinds.iter().map(|kind| kind.parts().1).collect();
        types.dedup();
        let codes: Vec<&str> = kinds.iter().map(|kind| kind.parts().2).collect();
        let mut headers = json!({ "X-Request-Id": reference("headers", "X-Request-Id") });
        if status == StatusCode::TOO_MANY_REQUESTS {
            headers["Retry-After"] = reference("headers", "Retry-After");
        }
        let mut schema = schemas::error();
        schema["properties"]["error"]["properties"]["type"] = json!({ "type": "string", "enum": types });
        schema["properties"]["error"]["properties"]["code"] = json!({ "type": "string", "enum": codes });
        let about: Vec<String> =
            kinds.iter().map(|kind| format!("- `{}`: {}", kind.parts().2, kind.about())).collect();
        let answer = json!({
            "description": about.join("\n"),
            "headers": headers,
            "content": { "application/json": { "schema": schema } },
        });
        all.insert(refusal_name(status), answer);
    }
    Json::Object(all)
}

fn refusal_name(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or("Error").replace(' ', "")
}

fn parameters() -> Json {
    let query = |name: &str, schema: Json, about: &str| json!({ "name": name, "in": "query", "description": about, "schema": schema });
    let header = |name: &str, schema: Json, about: &str| json!({ "name": name, "in": "header", "description": about, "schema": schema });
    json!({
        "Version": header("Version", json!({ "type": "string", "enum": [API_VERSION] }),
            "The version of the API; without it, the one pinned on the key."),
        "IfNoneMatch": header("If-None-Match", json!({ "type": "string" }),
            "The `ETag` you have; when it is still right, the answer is 304 without a body."),
        "IdempotencyKey": header(IDEMPOTENCY_KEY,
            json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$" }),
            "Any text of your own. The same request under the same key within 24 hours is carried out once and answered \
             alike; another request under the same key is 409."),
        "Limit": query("limit", json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 10 }), "Rows of a page."),
        "StartingAfter": query("starting_after", json!({ "type": "string" }),
            "The `next_cursor` of the page before, with the same filters."),
    })
}

fn headers() -> Json {
    let text = |about: &str| json!({ "description": about, "schema": { "type": "string" } });
    json!({
        "X-Request-Id": { "description": "Names this request in the log.", "required": true,
            "schema": { "type": "string", "format": "uuid" } },
        "Retry-After": { "description": "Whole seconds to wait, at least one.", "required": true,
            "schema": { "type": "integer", "minimum": 1 } },
        "RateLimit": text("What is left: `\"key\";r=` requests now, `t=` seconds until all are back."),
        "RateLimit-Policy": text("What is promised: `\"key\";q=` requests at once, coming back within `w=` seconds."),
        "ETag": text("The tag of this state of the object."),
        "Idempotency-Replayed": { "description": "There when this answer was given before.",
            "schema": { "type": "string", "enum": ["true"] } },
    })
}

/// A reference to a component.
fn reference(kind: &str, name: &str) -> Json {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_described_and_every_reference_leads_somewhere() {
        let document = description("https://connect.clinic.example");
        for row in OPERATIONS {
            let method = row.method.as_str().to_ascii_lowercase();
            let found = &document["paths"][row.path][&method];
            assert_eq!(found["operationId"], row.id);
            let named: Vec<&str> = found["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "path")
                .filter_map(|parameter| parameter["name"].as_str())
                .collect();
            let wanted: Vec<&str> =
                row.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            assert_eq!(named, wanted, "{}: its path's parameters", row.id);
            for (name, link) in found["responses"]["200"]["links"].as_object().into_iter().flatten() {
                let known = OPERATIONS.iter().find(|known| link["operationId"] == known.id).expect(name);
                assert!(known.path.contains("{id}"), "{name}");
            }
        }
        let mut seen = 0;
        check_references(&document, &document, &mut seen);
        assert!(seen > 100, "{seen}");
    }

    fn check_references(document: &Json, part: &Json, seen: &mut usize) {
        match part {
            Json::Object(members) => {
                if let Some(target) = members.get("$ref").and_then(Json::as_str) {
                    let pointer = target.strip_prefix('#').expect("a reference inside");
                    assert!(document.pointer(pointer).is_some(), "{target}");
                    *seen += 1;
                }
                members.values().for_each(|part| check_references(document, part, seen));
            }
            Json::Array(parts) => parts.iter().for_each(|part| check_references(document, part, seen)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }
}
