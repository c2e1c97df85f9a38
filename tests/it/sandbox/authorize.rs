//! What the authorization endpoint refuses.

use hyper::StatusCode;
use serde_json::json;

use super::support::Bench;

#[tokio::test]
async fn nothing_is_redirected_to_an_address_that_is_not_registered() {
    let bench = Bench::new();
    bench.approve_as(0).await;
    for (changes, urn) in [
        ([("client_id", "someone")], "unknown-client"),
        ([("redirect_uri", "https://app.example/callback/")], "invalid-redirect-uri-trailing-slash"),
        ([("redirect_uri", "https://evil.example/callback")], "redirect-uri-not-registered"),
        ([("redirect_uri", "")], "invalid-redirect-uri"),
    ] {
        let answer = bench.authorize(&changes).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{changes:?}");
        assert_eq!(answer.header("location"), "", "{changes:?}");
        assert!(answer.text().contains(urn), "{changes:?}");
    }
}

#[tokio::test]
async fn a_flawed_authorization_request_goes_back_with_its_error_and_state() {
    let bench = Bench::new();
    bench.approve_as(0).await;
    let slash = format!("{}/", bench.hospital.fhir_base_url());
    for (changes, error, urn) in [
        ([("aud", "")], "invalid_request", "audience-required"),
        ([("aud", slash.as_str())], "invalid_request", "unknown-resource-server"),
        ([("response_type", "token")], "unsupported_response_type", "unsupported-response-type"),
        ([("code_challenge", "")], "invalid_request", "invalid-request"),
        ([("code_challenge", "short")], "invalid_request", "invalid-request"),
        ([("code_challenge_method", "plain")], "invalid_request", "invalid-request"),
        ([("code_challenge_method", "")], "invalid_request", "invalid-request"),
        ([("scope", "patient/Patient.write")], "invalid_scope", "empty-scopes"),
    ] {
        let answer = bench.authorize(&changes).await;
        assert_eq!(answer.sent_back("error").as_deref(), Some(error), "{changes:?}");
        assert_eq!(answer.sent_back("state").as_deref(), Some("a-state-of-the-client"), "{changes:?}");
        assert!(answer.sent_back("error_uri").is_some_and(|uri| uri.contains(urn)), "{changes:?}");
        assert_eq!(answer.sent_back("code"), None);
    }
    let stateless = bench.authorize(&[("state", "")]).await;
    assert_eq!(stateless.sent_back("error").as_deref(), Some("invalid_request"));
}

#[tokio::test]
async fn who_presses_deny_sends_access_denied_back() {
    let bench = Bench::new();
    bench.control("auto-approve", json!({"username": bench.user(0).username, "deny": true})).await;
    let answer = bench.authorize(&[]).await;
    assert_eq!(answer.sent_back("error").as_deref(), Some("access_denied"));
    assert!(answer.sent_back("error_uri").is_some_and(|uri| uri.contains("denied-by-user")));
}
