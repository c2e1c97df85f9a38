//! The wire contract of the platform API, version 2026-04-25: what an app that was written for it relies on.

mod beyond;
mod description;
mod edges;
mod keys;
mod lists;
mod patients;
mod records;
mod sessions;
mod shapes;

use chartgate::workspaces::NewApiKeyTerms;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::support::{Page, TestApp, send};

/// Asserts that an object has these members, no more and no fewer.
fn has_exactly(object: &Value, keys: &[&str]) {
    let mut found: Vec<&str> = object
        .as_object()
        .unwrap_or_else(|| panic!("no object: {object}"))
        .keys()
        .map(String::as_str)
        .collect();
    let mut wanted = keys.to_vec();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted, "{object}");
}

/// Asserts the one form of all times: UTC, milliseconds, `Z`.
fn is_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("no text: {value}"));
    assert!(has_form(text, "0000-00-00T00:00:00.000Z"), "{text}");
}

/// Asserts a prefixed ULID.
fn is_id(value: &Value, prefix: &str) {
    let text = value.as_str().unwrap_or_else(|| panic!("no text: {value}"));
    let rest = text.strip_prefix(prefix).unwrap_or_else(|| panic!("{text} is no {prefix}"));
    let crockford = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase() && !b"ILOU".contains(&byte);
    assert!(rest.len() == 26 && rest.bytes().all(crockford), "{text}");
}

/// Whether a text looks like the pattern, in which `0` is a digit and `x` one in lower-case hexadecimal.
fn has_form(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(byte, wanted)| match wanted {
            b'0' => byte.is_ascii_digit(),
            b'x' => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            _ => byte == wanted,
        })
}

/// What every answer has, whatever it says; the request's id.
fn common(page: &Page) -> String {
    let id =
        page.header("x-request-id").unwrap_or_else(|| panic!("{} has no request id", page.url)).to_owned();
    assert!(has_form(&id, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"), "{id}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"), "{}", page.url);
    assert_eq!(page.header("x-frame-options"), Some("DENY"), "{}", page.url);
    assert!(page.header("content-security-policy").is_some(), "{}", page.url);
    assert_eq!(page.header("access-control-allow-origin"), None, "no browser calls the API");
    id
}

/// Asserts an error with its whole envelope.
fn refused(page: &Page, status: u16, code: &str, param: Option<&str>) {
    let id = common(page);
    assert_eq!(page.header("content-type"), Some("application/json"), "{}", page.text);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let body = page.json();
    has_exactly(&body, &["error"]);
    let error = &body["error"];
    has_exactly(error, &["type", "code", "message", "param", "doc_url", "request_id"]);
    assert_eq!((page.status, error["code"].as_str()), (status, Some(code)), "{} {error}", page.url);
    assert_eq!(error["param"].as_str(), param, "{} {error}", page.url);
    assert!(error["param"].is_string() || error["param"].is_null(), "{error}");
    assert_eq!(error["request_id"], json!(id));
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        429 => "rate_limit_error",
        _ => "invalid_request_error",
    };
    assert_eq!(error["type"], kind, "{error}");
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    let origin = page.url.split('/').take(3).collect::<Vec<_>>().join("/");
    assert_eq!(error["doc_url"], json!(format!("{origin}/docs#errors")), "one page for all codes");
}

/// One path segment with everything in it encoded.
fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Calls with the test's key and a body that need not be JSON.
async fn raw(app: &TestApp, method: &str, path: &str, body: &str) -> Page {
    let authorization = format!("Bearer {}", app.key);
    send(method, &format!("{}{path}", app.origin), &[("authorization", &authorization)], body).await
}

/// A GET that must succeed, checked for what all answers have.
async fn get(app: &TestApp, path: &str) -> Value {
    let page = app.api("GET", path, Value::Null).await;
    common(&page);
    assert_eq!(page.header("content-type"), Some("application/json"), "{path}");
    page.ok()
}

/// Another workspace's key.
async fn key_of_a_stranger(app: &TestApp) -> String {
    let parts = app.app().parts();
    let workspace =
        parts.workspaces.ensure("stranger", chartgate::config::Environment::Sandbox).await.expect("made");
    parts
        .api_keys
        .create(&workspace, "test", NewApiKeyTerms::default())
        .await
        .expect("a key")
        .text
        .expose()
        .to_owned()
}
