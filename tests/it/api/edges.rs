//! Keys, versions, methods, sizes, headers, and whatever strangers send.

use std::time::Duration;

use chartgate::api::OPERATIONS;
use chartgate::crypto::Random;
use chartgate::workspaces::NewApiKeyTerms;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};

use super::{common, has_exactly, raw, refused, segment};
use crate::support::{Page, TestApp, send};

/// Every operation that needs a key, with something in the place of its path's parameters.
fn behind_a_key() -> impl Iterator<Item = (&'static str, String)> {
    // The live proxy speaks FHIR, refusals included; its own tests read those.
    let keyed = OPERATIONS.iter().filter(|row| row.scope.is_some() && !row.path.starts_with("/fhir/"));
    keyed.map(|row| {
        let parts = row.path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
        (row.method.as_str(), parts.collect::<Vec<_>>().join("/"))
    })
}

async fn with(app: &TestApp, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Page {
    send(method, &format!("{}{path}", app.origin), headers, body).await
}

#[tokio::test]
async fn without_a_good_key_nothing_is_answered_not_even_what_is_wrong() {
    let app = TestApp::start().await;
    let parts = app.app().parts();
    let workspace = parts.workspaces.named("sandbox").await.expect("read").expect("there");
    let end = app.clock.now().after(Duration::from_mins(1));
    let terms = NewApiKeyTerms { expires_at: Some(end), ..NewApiKeyTerms::default() };
    let ending = parts.api_keys.create(&workspace, "ending", terms).await.expect("a key");
    let revoked =
        parts.api_keys.create(&workspace, "revoked", NewApiKeyTerms::default()).await.expect("a key");
    let bearer = |key: &str| format!("Bearer {key}");
    let (ending, id) = (bearer(ending.text.expose()), revoked.key.id);
    let revoked = bearer(revoked.text.expose());
    for good in [&ending, &revoked, &format!("bearer   {}", app.key)] {
        assert_eq!(with(&app, "GET", "/patients", &[("authorization", good)], "").await.status, 200);
    }
    assert!(parts.api_keys.revoke(workspace.id, id).await.expect("written"), "{id}");
    app.clock.advance(Duration::from_mins(1));

    for (method, path) in behind_a_key() {
        let path = path.as_str();
        refused(&with(&app, method, path, &[], "{").await, 401, "missing_api_key", None);
        let unknown = format!("Bearer mb_sk_sbx_{}", "0".repeat(48));
        let basic = format!("Basic {}", app.key);
        for wrong in ["", "Bearer", "Bearer ", &app.key, "Bearer  ", &basic, &unknown, &revoked, "Bearer ü"]
        {
            let page =
                with(&app, method, path, &[("authorization", wrong), ("version", "1999-01-01")], "{").await;
            refused(&page, 401, "invalid_api_key", None);
            assert!(page.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
        }
        let page = with(&app, method, path, &[("authorization", &ending)], "{").await;
        refused(&page, 401, "expired_api_key", None);
    }
    // Nor is a body too large for a caller who is nobody.
    let large =
        with(&app, "POST", "/patients", &[("authorization", "Bearer x")], &"x".repeat((1 << 20) + 1)).await;
    refused(&large, 401, "invalid_api_key", None);
}

#[tokio::test]
async fn one_version_is_spoken_and_none_need_be_named() {
    let app = TestApp::start().await;
    let authorization = format!("Bearer {}", app.key);
    let call = async |version: &str| {
        with(&app, "GET", "/patients", &[("authorization", &authorization), ("version", version)], "").await
    };
    assert_eq!(call("2026-04-25").await.status, 200);
    assert_eq!(app.api("GET", "/patients", Value::Null).await.status, 200);
    for wrong in ["2026-04-26", "2025-04-25", "1", "", "latest", "2026-04-25, 2026-04-25"] {
        refused(&call(wrong).await, 400, "unsupported_api_version", Some("Version"));
    }
    let headers = [("authorization", authorization.as_str()), ("version", "1")];
    let page = with(&app, "POST", "/patients", &headers, "{").await;
    refused(&page, 400, "unsupported_api_version", Some("Version"));
}

#[tokio::test]
async fn wrong_methods_name_the_right_ones() {
    let app = TestApp::start().await;
    for (path, allowed, wrong) in [
        ("/health", "GET, HEAD", "POST"),
        ("/patients", "GET, HEAD, POST", "DELETE"),
        ("/patients/amy-7", "GET, HEAD, PUT, DELETE", "PATCH"),
        ("/patients/amy-7/records", "GET, HEAD", "POST"),
        ("/patients/amy-7/patient-sessions", "GET, HEAD", "POST"),
        ("/patients/amy-7/connections/conn_1", "DELETE", "GET"),
        ("/connections", "GET, HEAD", "POST"),
        ("/connections/x", "GET, HEAD", "DELETE"),
        ("/patient-sessions", "POST", "GET"),
        ("/patient-sessions/ps_1", "GET, HEAD", "PUT"),
        ("/launch-contexts/x", "GET, HEAD", "OPTIONS"),
    ] {
        let page = app.api(wrong, path, Value::Null).await;
        refused(&page, 405, "bad_request", None);
        assert_eq!(page.header("allow"), Some(allowed), "{path}");
        let page = with(&app, wrong, path, &[("accept", "text/html")], "").await;
        assert_eq!((page.status, page.header("allow")), (405, Some(allowed)), "{path}");
        assert!(page.text.starts_with("<!DOCTYPE html>"), "{}", page.text);
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let app = TestApp::start().await;
    let (_, session) = app.session("amy-7").await;
    for path in [
        "/".to_owned(),
        "/health".to_owned(),
        "/.well-known/jwks.json".to_owned(),
        "/patients".to_owned(),
        "/patients/amy-7".to_owned(),
        "/patients/amy-7/records".to_owned(),
        "/patients/amy-7/patient-sessions".to_owned(),
        "/connections".to_owned(),
        format!("/connections/{}", segment(&app.hospital.base)),
        format!("/patient-sessions/{session}"),
        "/patients/nobody".to_owned(),
        "/nothing".to_owned(),
    ] {
        let (get, head) = (raw(&app, "GET", &path, "").await, raw(&app, "HEAD", &path, "").await);
        common(&head);
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
        for name in ["content-type", "cache-control", "content-length"] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
    }
}

#[tokio::test]
async fn unknown_addresses_answer_programs_and_people_each_in_their_way() {
    let app = TestApp::start().await;
    for path in [
        "/nothing",
        "/api/v1/patients",
        "/patients/",
        "/patients//records",
        "/%ff",
        "/patients/a/b/c/d",
        "/PATIENTS",
    ] {
        for headers in [&[][..], &[("accept", "application/json")], &[("accept", "*/*")]] {
            refused(&with(&app, "GET", path, headers, "").await, 404, "resource_not_found", None);
        }
        let page =
            with(&app, "GET", path, &[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")], "").await;
        common(&page);
        assert_eq!(
            (page.status, page.header("content-type")),
            (404, Some("text/html; charset=utf-8")),
            "{path}"
        );
        assert!(page.text.starts_with("<!DOCTYPE html>"), "{}", page.text);
    }
}

#[tokio::test]
async fn a_body_has_at_most_a_mebibyte() {
    let app = TestApp::start().await;
    let padded = |id: &str, length: usize| {
        let start = format!("{{\"patient_id\":\"{id}\",\"metadata\":{{\"x\":\"");
        format!("{start}{}\"}}}}", "y".repeat(length - start.len() - 3))
    };
    let fits = padded("fits", 1 << 20);
    assert_eq!(fits.len(), 1 << 20);
    let page = raw(&app, "POST", "/patients", &fits).await;
    assert_eq!(page.status, 200, "{}", &page.text[..200.min(page.text.len())]);
    for (method, path) in [("POST", "/patients"), ("PUT", "/patients/fits"), ("POST", "/patient-sessions")] {
        let page = raw(&app, method, path, &padded("over", (1 << 20) + 1)).await;
        refused(&page, 413, "payload_too_large", None);
    }
    assert_eq!(raw(&app, "GET", "/patients/over", "").await.status, 404);
}

#[tokio::test]
async fn pages_carry_the_headers_that_protect_them() {
    let app = TestApp::start().await;
    let (link, _) = app.session("amy-7").await;
    let browser = [("accept", "text/html")];
    for url in [
        link,
        format!("{}/", app.origin),
        format!("{}/c/unknown", app.origin),
        format!("{}/nothing", app.origin),
        format!("{}/api/auth/smart/callback?code=a&state=b", app.origin),
    ] {
        let page = send("GET", &url, &browser, "").await;
        common(&page);
        assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{url}");
        assert_eq!(page.header("cache-control"), Some("no-store"), "{url}");
        assert!(
            page.header("referrer-policy").is_some_and(|it| ["same-origin", "no-referrer"].contains(&it)),
            "{url}"
        );
        let policy = page.header("content-security-policy").expect("there");
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "script-src 'self'"] {
            assert!(policy.contains(part), "{url} {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("strict-transport-security"), None, "not over plain HTTP");
    }
    for path in ["/patients", "/health"] {
        assert_eq!(raw(&app, "GET", path, "").await.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn the_key_set_is_public_and_nothing_but() {
    let app = TestApp::start().await;
    let mut texts = Vec::new();
    for path in ["/api/auth/.well-known/jwks", "/.well-known/jwks.json"] {
        let page = with(&app, "GET", path, &[("accept", "text/html")], "").await;
        common(&page);
        assert_eq!(page.header("content-type"), Some("application/json"));
        assert_eq!(page.header("cache-control"), Some("public, max-age=900"));
        let set = page.ok();
        has_exactly(&set, &["keys"]);
        let keys = set["keys"].as_array().expect("a list");
        assert!(!keys.is_empty());
        for key in keys {
            let public = ["kty", "kid", "use", "alg", "key_ops", "n", "e", "crv", "x", "y"];
            let members = key.as_object().expect("an object").keys();
            assert!(members.into_iter().all(|name| public.contains(&name.as_str())), "{key}");
            assert!(key["kid"].as_str().is_some_and(|kid| !kid.is_empty()), "{key}");
        }
        texts.push(page.text);
    }
    assert_eq!(texts[0], texts[1]);
}

#[tokio::test]
async fn every_request_has_its_own_id() {
    let app = TestApp::start().await;
    let mut seen = std::collections::HashSet::new();
    for path in ["/health", "/patients", "/nothing", "/", "/patients/nobody", "/c/unknown"] {
        // An id that the caller made up is not taken over.
        let made_up = "00000000-0000-4000-8000-000000000000";
        let page = with(&app, "GET", path, &[("x-request-id", made_up)], "").await;
        let id = common(&page);
        assert!(id != made_up && seen.insert(id), "{path}");
    }
}

/// A thing to put into a request, from what breaks parsers and from noise.
fn odd(random: &Random) -> String {
    const POOL: [&str; 34] = [
        "",
        "amy-7",
        "patients",
        "connections",
        "patient-sessions",
        "records",
        "c",
        "health",
        "launch-contexts",
        "..",
        ".",
        "%",
        "%2",
        "%zz",
        "%00",
        "%ff%fe",
        "%2F",
        "%252F",
        "é",
        "null",
        "-1",
        "0",
        "1e999",
        "18446744073709551616",
        "ps_01KB2V6YQ4D8N3ZT5W7R9E1HXM",
        "conn_01KB2V0A7M5P9C3Q6T8X2Z4WBD",
        "fhirsrc_ZZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "https%3A%2F%2Fh.example%2Fr4",
        "2026-11-02",
        "+262142-12-31T23:59:59Z",
        "-009999-01-01T00:00:00Z",
        "AAAAAAAAAAAA",
        "open",
        "{}",
    ];
    match random.below(4) {
        0 => segment(&String::from_utf8_lossy(&random.bytes::<9>())),
        1 => percent_encode(&random.bytes::<6>(), NON_ALPHANUMERIC).to_string(),
        _ => {
            let index = usize::try_from(random.below(POOL.len() as u64)).expect("small");
            POOL[index].replace('é', "%C3%A9").replace(['{', '}'], "%7B")
        }
    }
}

fn one<'p>(random: &Random, pool: &[&'p str]) -> &'p str {
    pool[usize::try_from(random.below(pool.len() as u64)).expect("small")]
}

/// A body: a good one with some bytes changed, cut or doubled.
fn mangled(random: &Random, app: &TestApp) -> String {
    let good = json!({
        "patient_id": "amy-7", "return_url": "https://a.example/", "connection_id": app.source.to_string(),
        "metadata": {"a": [1, -2.5e3, "\u{1F600}", null, {"b": true}]}, "expires_in": 600, "email": "a@b.example",
    });
    let mut bytes = good.to_string().into_bytes();
    for _ in 0..random.below(4) {
        let at = usize::try_from(random.below(bytes.len().max(1) as u64)).expect("small");
        match random.below(3) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] = random.bytes::<1>()[0],
            _ => bytes.extend_from_within(at..),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn whatever_is_sent_is_never_our_fault() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].username.clone();
    app.connected("amy-7", &user).await;
    let random = Random::seeded(20_261_102);
    let parameters = [
        "limit",
        "count",
        "starting_after",
        "ending_before",
        "since",
        "type",
        "status",
        "q",
        "email",
        "patient_id",
        "code",
        "state",
        "error",
    ];
    let mut statuses = std::collections::BTreeMap::new();
    for round in 0..1500 {
        let method = one(
            &random,
            &["GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "X-ODD"],
        );
        let known = one(
            &random,
            &[
                "/patients",
                "/patients/amy-7",
                "/patients/amy-7/records",
                "/patients/amy-7/patient-sessions",
                "/patient-sessions",
                "/connections",
                "/api/auth/smart/callback",
                "/c",
                "",
                "/assets",
                "/launch-contexts",
            ],
        );
        // The patient must stay for the other rounds.
        let method = if method == "DELETE" && known == "/patients/amy-7" { "GET" } else { method };
        let mut path = known.to_owned();
        for _ in 0..random.below(3) {
            path = format!("{path}/{}", odd(&random));
        }
        if method == "DELETE" && path.contains("amy-7") || path.is_empty() {
            path = "/patients".to_owned();
        }
        for number in 0..random.below(4) {
            let glue = if number == 0 { '?' } else { '&' };
            path = format!("{path}{glue}{}={}", one(&random, &parameters), odd(&random));
        }
        let body = if random.below(2) == 0 { mangled(&random, &app) } else { String::new() };
        let authorization = format!("Bearer {}", app.key);
        let accept = one(&random, &["text/html", "application/json", "*/*", "q=;;,"]);
        let page =
            with(&app, method, &path, &[("authorization", &authorization), ("accept", accept)], &body).await;
        assert!(page.status < 500, "round {round}: {method} {path} {body}: {}", page.text);
        let id = common(&page);
        let json = page.header("content-type") == Some("application/json");
        if page.status >= 400 && json && method != "HEAD" {
            assert_eq!(page.json()["error"]["request_id"], json!(id), "{method} {path}");
        }
        *statuses.entry(page.status).or_insert(0) += 1;
    }
    for expected in [200, 400, 404, 405] {
        assert!(
            statuses.get(&expected).copied().unwrap_or(0) > 20,
            "every kind of answer was met: {statuses:?}"
        );
    }
    assert_eq!(raw(&app, "GET", "/health", "").await.status, 200);
}
