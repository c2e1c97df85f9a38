//! The description of the API is true: what it says of every operation is what the server answers.

use chartgate::api::{OPERATIONS, Operation, Row};
use serde_json::{Value, json};

use super::{common, raw, refused, segment};
use crate::support::{Browser, Page, Setup, TestApp, send};

/// Asserts that an answer is one that the description allows for this operation.
fn conforms(document: &Value, row: &Row, page: &Page) {
    common(page);
    let method = row.method.as_str().to_ascii_lowercase();
    let answers = &document["paths"][row.path][method]["responses"];
    let answer = answers.get(page.status.to_string()).unwrap_or(&answers["default"]);
    let answer = resolve(document, answer);
    assert!(answer.is_object(), "{} answered {}, which is not described: {}", row.id, page.status, page.text);
    for (name, header) in answer["headers"].as_object().into_iter().flatten() {
        let header = resolve(document, header);
        assert!(header["required"] != true || page.header(name).is_some(), "{} {name}", row.id);
    }
    for name in ["ratelimit", "retry-after", "etag", "idempotency-replayed"] {
        let described = answer["headers"].as_object().into_iter().flatten();
        let described = described.into_iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        // Every answer to a key has the allowance; on errors it is not worth a line for each. A hospital has its own.
        assert!(
            described || page.header(name).is_none() || page.status >= 400 || row.path.starts_with("/fhir/"),
            "{} {name} is not described",
            row.id
        );
    }
    let Some(content) = answer["content"].as_object() else {
        assert!(page.text.is_empty(), "{} {}", row.id, page.text);
        return;
    };
    let media = page.header("content-type").expect("a content type");
    let schema = &content.get(media).unwrap_or_else(|| panic!("{} answered {media}", row.id))["schema"];
    if media == "application/json" || media == "application/fhir+json" {
        fits(document, schema, &page.json(), row.id);
    } else if media == "application/x-ndjson" {
        for line in page.text.lines() {
            let record = json!({ "$ref": "#/components/schemas/Record" });
            fits(document, &record, &serde_json::from_str(line).expect("a line of JSON"), row.id);
        }
    }
}

fn resolve<'d>(document: &'d Value, part: &'d Value) -> &'d Value {
    let pointer = part["$ref"].as_str().and_then(|target| target.strip_prefix('#'));
    pointer.map_or(part, |pointer| {
        document.pointer(pointer).unwrap_or_else(|| panic!("{pointer} leads nowhere"))
    })
}

/// Asserts that a value fits a schema, and that it has no member that the schema does not name.
fn fits(document: &Value, schema: &Value, value: &Value, place: &str) {
    let schema = resolve(document, schema);
    let alone = schema["type"].as_str().into_iter();
    let among = schema["type"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let kinds: Vec<&str> = alone.chain(among).collect();
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(kinds.contains(&kind), "{place}: {value} is no {kinds:?}");
    if !schema["const"].is_null() {
        assert_eq!(value, &schema["const"], "{place}");
    }
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{place}: {value} is not among {allowed:?}");
    }
    if let (Some(most), Some(text)) = (schema["maxLength"].as_u64(), value.as_str()) {
        assert!(text.chars().count() as u64 <= most, "{place}: {text} is too long");
    }
    for item in value.as_array().into_iter().flatten() {
        fits(document, &schema["items"], item, &format!("{place}[]"));
    }
    let Some(members) = value.as_object() else { return };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        assert!(members.contains_key(name), "{place}: no {name} in {value}");
    }
    for (name, value) in members {
        match schema["properties"].get(name) {
            Some(schema) => fits(document, schema, value, &format!("{place}.{name}")),
            // Metadata is the caller's, and a resource is the hospital's.
            None => assert!(
                schema["properties"].is_null() || schema["required"] == json!(["resourceType"]),
                "{place}: {name} is not described"
            ),
        }
    }
}

async fn document(app: &TestApp) -> Value {
    let page = send("GET", &format!("{}/openapi.json", app.origin), &[], "").await;
    common(&page);
    assert_eq!(page.header("content-type"), Some("application/json"));
    page.ok()
}

fn row(operation: Operation) -> &'static Row {
    operation.row()
}

#[tokio::test]
async fn every_operation_answers_as_it_is_described() {
    let app = TestApp::start().await;
    let document = document(&app).await;
    assert_eq!(document["servers"][0]["url"], json!(app.origin));
    // Nobody listens there: deliveries fail, and there is something to tell of them.
    let receiver =
        json!({"url": "http://localhost:9/hooks", "events": ["*"], "metadata": {"a": 1}}).to_string();
    let endpoint =
        raw(&app, "POST", "/webhooks", &receiver).await.ok()["id"].as_str().expect("an id").to_owned();
    let user = app.hospital.users()[0].username.clone();
    app.connected("amy-7", &user).await;
    let events = raw(&app, "GET", &format!("/webhooks/{endpoint}/events"), "").await.ok();
    let event = events["data"][0]["id"].as_str().expect("an event").to_owned();
    let (_, session) = app.session("amy-7").await;
    // A failed attempt has other members that are null.
    let mut browser = Browser::default();
    let (link, failed) = app.session("ben").await;
    browser.post(&format!("{link}/launch"), &[("source", &app.source.to_string())]).await;
    let attempt = browser.location().expect("away");
    let state =
        attempt.split("state=").nth(1).and_then(|rest| rest.split('&').next()).expect("a state").to_owned();
    browser.get(&format!("{}/api/auth/smart/callback?error=access_denied&state={state}", app.origin)).await;
    let connection = app.connection("amy-7").await["id"].as_str().expect("an id").to_owned();
    let person = app.hospital.users()[0].patient.clone();
    let form = format!("patient={person}&category=vital-signs");
    let (source, base) = (app.source.to_string(), segment(&app.hospital.base));

    let patient =
        json!({"patient_id": "cleo", "email": "c@x.example", "metadata": {"a": [1.5, null]}}).to_string();
    let journey = json!({"patient_id": "cleo", "return_url": "https://a.example/", "connection_id": source})
        .to_string();
    let calls: Vec<(Operation, String, &str)> = vec![
        (Operation::CreatePatient, "/patients".into(), &patient),
        (Operation::CreatePatient, "/patients".into(), &patient),
        (Operation::CreatePatient, "/patients".into(), "{"),
        (Operation::ListPatients, "/patients?limit=1".into(), ""),
        (Operation::ListPatients, "/patients?limit=0".into(), ""),
        (Operation::GetPatient, "/patients/amy-7".into(), ""),
        (Operation::GetPatient, "/patients/ben".into(), ""),
        (Operation::GetPatient, "/patients/nobody".into(), ""),
        (Operation::UpdatePatient, "/patients/cleo".into(), r#"{"patient_id":"cleo"}"#),
        (Operation::UpdatePatient, "/patients/nobody".into(), r#"{"patient_id":"nobody"}"#),
        (Operation::UpdatePatient, "/patients/cleo".into(), r#"{"patient_id":"dora"}"#),
        (Operation::ListPatientSessionsForPatient, "/patients/ben/patient-sessions".into(), ""),
        (Operation::ListPatientSessionsForPatient, "/patients/amy-7/patient-sessions?limit=1".into(), ""),
        (Operation::ListPatientSessionsForPatient, "/patients/nobody/patient-sessions".into(), ""),
        (Operation::GetPatientRecords, "/patients/amy-7/records?count=3".into(), ""),
        (Operation::GetPatientRecords, "/patients/amy-7/records?starting_after=x".into(), ""),
        (Operation::ExportPatientRecords, "/patients/amy-7/records/export".into(), ""),
        (Operation::ExportPatientRecords, "/patients/nobody/records/export".into(), ""),
        (Operation::ListFhirSources, "/connections?q=mercy".into(), ""),
        (Operation::GetFhirSource, format!("/connections/{source}"), ""),
        (Operation::GetFhirSource, format!("/connections/{base}"), ""),
        (Operation::GetFhirSource, "/connections/nothing".into(), ""),
        (Operation::InitPatientSession, "/patient-sessions".into(), &journey),
        (Operation::InitPatientSession, "/patient-sessions".into(), r#"{"patient_id":"x"}"#),
        (Operation::RetrievePatientSession, format!("/patient-sessions/{session}"), ""),
        (Operation::RetrievePatientSession, format!("/patient-sessions/{failed}"), ""),
        (Operation::RetrievePatientSession, "/patient-sessions/ps_x".into(), ""),
        (
            Operation::RetrieveLaunchContext,
            "/launch-contexts/7f2c1e9a-0000-4000-8000-000000000000".into(),
            "",
        ),
        (Operation::ReadLive, format!("/fhir/{connection}/Patient/{person}"), ""),
        (Operation::ReadLive, format!("/fhir/{connection}/metadata"), ""),
        (Operation::ReadLive, "/fhir/conn_x/Patient".into(), ""),
        (Operation::SearchLive, format!("/fhir/{connection}/Observation/_search"), &form),
        (Operation::DisconnectPatientConnection, format!("/patients/amy-7/connections/{connection}"), ""),
        (Operation::DisconnectPatientConnection, "/patients/amy-7/connections/conn_x".into(), ""),
        (Operation::ListAuthEvents, "/patients/amy-7/auth-events?limit=2".into(), ""),
        (Operation::ListAuthEvents, "/patients/ben/auth-events".into(), ""),
        (Operation::CreateWebhook, "/webhooks".into(), &receiver),
        (Operation::CreateWebhook, "/webhooks".into(), "{}"),
        (Operation::ListWebhooks, "/webhooks?limit=1".into(), ""),
        (Operation::GetWebhook, format!("/webhooks/{endpoint}"), ""),
        (Operation::GetWebhook, "/webhooks/wh_x".into(), ""),
        (Operation::UpdateWebhook, format!("/webhooks/{endpoint}"), r#"{"description":null}"#),
        (Operation::UpdateWebhook, format!("/webhooks/{endpoint}"), ""),
        (Operation::UpdateWebhook, format!("/webhooks/{endpoint}"), r#"{"url":"x"}"#),
        (Operation::RotateWebhookSecret, format!("/webhooks/{endpoint}/rotate-secret"), ""),
        (Operation::RotateWebhookSecret, "/webhooks/wh_x/rotate-secret".into(), ""),
        (Operation::ListWebhookEvents, format!("/webhooks/{endpoint}/events"), ""),
        (Operation::ListWebhookEvents, "/webhooks/wh_x/events".into(), ""),
        (Operation::RedeliverWebhookEvent, format!("/events/{event}/redeliver"), ""),
        (Operation::RedeliverWebhookEvent, format!("/events/{event}/redeliver"), ""),
        (Operation::RedeliverWebhookEvent, "/events/evt_x/redeliver".into(), ""),
        (Operation::DeleteWebhook, format!("/webhooks/{endpoint}"), ""),
        (Operation::DeleteWebhook, format!("/webhooks/{endpoint}"), ""),
        (Operation::DeletePatient, "/patients/amy-7".into(), ""),
        (Operation::DeletePatient, "/patients/amy-7".into(), ""),
    ];
    let mut succeeded: Vec<&str> = vec!["api.health", "api.retrieveLaunchContext"];
    for (operation, path, body) in calls {
        let row = row(operation);
        let authorization = format!("Bearer {}", app.key);
        let form = if operation == Operation::SearchLive {
            "application/x-www-form-urlencoded"
        } else {
            "application/json"
        };
        let headers = [("authorization", authorization.as_str()), ("content-type", form)];
        let page = send(row.method.as_str(), &format!("{}{path}", app.origin), &headers, body).await;
        conforms(&document, row, &page);
        if page.status == 200 {
            succeeded.push(row.id);
        }
    }
    let health = send("GET", &format!("{}/health", app.origin), &[], "").await;
    conforms(&document, row(Operation::Health), &health);
    for row in OPERATIONS {
        assert!(succeeded.contains(&row.id), "{} was never seen to succeed here: add a call", row.id);
    }
}

#[tokio::test]
async fn every_operation_refuses_as_it_is_described() {
    let settings = vec![("api.rate", "1"), ("api.burst", "40"), ("limits.body", "1 KiB")];
    let app = TestApp::with(Setup { settings, ..Setup::default() }).await;
    let document = document(&app).await;
    // The live proxy speaks FHIR, refusals included; its own tests read those.
    let keyed = OPERATIONS.iter().filter(|row| row.scope.is_some() && !row.path.starts_with("/fhir/"));
    for row in keyed.clone() {
        let path = row.path.replace("{id}", "x").replace("{connection_id}", "x");
        let url = format!("{}{path}", app.origin);
        let authorization = format!("Bearer {}", app.key);
        let call = async |headers: &[(&str, &str)], body: &str| {
            let page = send(row.method.as_str(), &url, headers, body).await;
            conforms(&document, row, &page);
            page.status
        };
        app.clock.advance(std::time::Duration::from_mins(1));
        assert_eq!(call(&[], "").await, 401);
        assert_eq!(call(&[("authorization", "Bearer x")], "").await, 401);
        assert_eq!(call(&[("authorization", &authorization), ("version", "1")], "").await, 400);
        let long = "x".repeat(1025);
        assert_eq!(call(&[("authorization", &authorization)], &long).await, 413);
    }
    // Nothing comes back while the clock stands still.
    for _ in 0..40 {
        raw(&app, "GET", "/patients", "").await;
    }
    for row in keyed {
        let path = row.path.replace("{id}", "x").replace("{connection_id}", "x");
        let page = raw(&app, row.method.as_str(), &path, "").await;
        assert_eq!(page.status, 429, "{}", row.id);
        conforms(&document, row, &page);
    }
}

#[tokio::test]
async fn every_post_takes_an_idempotency_key() {
    let app = TestApp::start().await;
    let document = document(&app).await;
    // A search only reads, and repeating it changes nothing.
    let posts =
        OPERATIONS.iter().filter(|row| row.method == "POST" && row.operation != Operation::SearchLive);
    let mut seen = 0;
    for row in posts {
        let described = &document["paths"][row.path]["post"];
        let key = json!({ "$ref": "#/components/parameters/IdempotencyKey" });
        assert!(described["parameters"].as_array().is_some_and(|all| all.contains(&key)), "{}", row.id);
        assert!(described["responses"]["200"]["headers"]["Idempotency-Replayed"].is_object(), "{}", row.id);
        assert!(described["responses"]["409"].is_object(), "{}: another request under the same key", row.id);
        // It is read, whatever else is asked for: one that cannot be a key is refused.
        let path = row.path.replace("{id}", "evt_01KB2VD3M6R8T0V2X4Z6B8D1FG");
        let path = if row.path.starts_with("/webhooks/") { path.replace("evt_", "wh_") } else { path };
        let authorization = format!("Bearer {}", app.key);
        let headers = [("authorization", authorization.as_str()), ("idempotency-key", "\u{e9}")];
        let page = send("POST", &format!("{}{path}", app.origin), &headers, "{}").await;
        refused(&page, 400, "invalid_data", Some("Idempotency-Key"));
        seen += 1;
    }
    assert!(seen >= 5, "{seen}");
}

#[tokio::test]
async fn a_launch_context_is_as_it_is_described() {
    let app = TestApp::with(crate::ehr_launch::setup()).await;
    let document = document(&app).await;
    let patient = app.hospital.users()[2].patient.clone();
    let handle = crate::ehr_launch::launch(&app, &mut Browser::default(), &patient).await;
    let path = format!("/launch-contexts/{handle}");
    let page = raw(&app, "GET", &path, "").await;
    assert_eq!(page.status, 200, "{}", page.text);
    conforms(&document, row(Operation::RetrieveLaunchContext), &page);
    let authorization = format!("Bearer {}", app.key);
    let tag = page.header("etag").expect("a tag");
    let headers = [("authorization", authorization.as_str()), ("if-none-match", tag)];
    let page = send("GET", &format!("{}{path}", app.origin), &headers, "").await;
    assert_eq!(page.status, 304);
    conforms(&document, row(Operation::RetrieveLaunchContext), &page);
}

#[tokio::test]
async fn the_page_for_people_is_public_and_is_where_errors_point_to() {
    let app = TestApp::start().await;
    let page = send("GET", &format!("{}/docs", app.origin), &[("accept", "text/html")], "").await;
    common(&page);
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let error = app.api("GET", "/patients/nobody", Value::Null).await.json();
    let target = error["error"]["doc_url"].as_str().expect("a url");
    assert_eq!(target, format!("{}/docs#errors", app.origin));
    assert!(page.text.contains("id=\"errors\"") && page.text.contains("resource_not_found"));
    let home = send("GET", &format!("{}/", app.origin), &[("accept", "text/html")], "").await;
    assert!(home.text.contains("href=\"/docs\""), "the start page leads there");
}
