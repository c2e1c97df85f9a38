//! Personalities, the control address, pages for people.

use std::net::SocketAddr;

use bytes::Bytes;
use chartgate::crypto::{base64url, sha256};
use http_body_util::Full;
use hyper::{Request, StatusCode};
use serde_json::json;

use super::support::{Bench, CLIENT, ORIGIN, REDIRECT_URI, SCOPE, VERIFIER, assert_refused, ids, text};

#[tokio::test]
async fn the_log_tells_what_was_asked_and_why_it_failed_without_any_secret() {
    let bench = Bench::new();
    let code = bench.code().await;
    let tokens = bench.exchange(&code, &[]).await.json();
    let refreshed = bench.refresh(text(&tokens, "refresh_token")).await.json();
    bench.fhir(&refreshed, &format!("Patient/{}", text(&tokens, "patient"))).await;
    bench.exchange(&code, &[]).await;
    let answer = bench.get(&format!("{}/log", bench.hospital.control_url())).await;
    let whole = answer.text();
    for secret in [
        code.as_str(),
        VERIFIER,
        "a-state-of-the-client",
        "a-nonce",
        text(&tokens, "access_token"),
        text(&tokens, "refresh_token"),
        text(&tokens, "id_token"),
        text(&refreshed, "access_token"),
    ] {
        assert!(!whole.contains(secret));
    }
    let log = bench.log().await;
    let kinds: Vec<&str> = log.iter().map(|line| text(line, "kind")).collect();
    for kind in ["discovery", "authorize", "jwks-fetch", "token", "fhir"] {
        assert!(kinds.contains(&kind), "{kind}");
    }
    assert_eq!(bench.last_reason("token").await, "invalid_grant: the code was used before");
    let counters = bench.get(&format!("{}/counters", bench.hospital.control_url())).await.json();
    assert_eq!(counters["token.authorization_code.ok"], 1);
    assert_eq!(counters["token.authorization_code.refused"], 1);
    assert_eq!(counters["token.refresh_token.ok"], 1);
    assert_eq!(counters["fhir.Patient.ok"], 1);
}

#[tokio::test]
async fn the_control_address_refuses_what_it_does_not_know_and_moves_only_its_own_clock() {
    let bench = Bench::new();
    for (path, body) in [
        ("faults", json!({"drop_patients": true})),
        ("faults", json!([1])),
        ("auto-approve", json!({"username": "nobody"})),
        ("advance-clock", json!({"seconds": -1})),
        ("clients", json!({"client_id": "x"})),
        ("revoke", json!({"person": "x"})),
    ] {
        let url = format!("{}/{path}", bench.hospital.control_url());
        let answer = bench.send("POST", &url, &[], body.to_string()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {body}");
        assert!(answer.json()["error"].is_string());
    }
    let tokens = bench.connect().await;
    let before = bench.clock.now();
    bench.control("advance-clock", json!({"seconds": 600})).await;
    assert_eq!(bench.clock.now(), before);
    let read = bench.fhir(&tokens, &format!("Patient/{}", text(&tokens, "patient"))).await;
    assert_eq!(read.status, StatusCode::UNAUTHORIZED, "the hospital's time has passed");
}

#[tokio::test]
async fn a_body_over_a_mebibyte_is_refused() {
    let bench = Bench::new();
    let answer = bench.send("POST", &bench.token_url().await, &[], "x".repeat(1024 * 1024 + 1)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn authorize_takes_a_form_too_and_only_at_the_patient_persona_of_this_tenant() {
    let bench = Bench::new();
    bench.approve_as(0).await;
    let endpoint = bench.discovery().await["authorization_endpoint"].as_str().expect("a URL").to_owned();
    let base = bench.hospital.fhir_base_url();
    let challenge = base64url(&sha256(VERIFIER.as_bytes()));
    let form = [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", REDIRECT_URI),
        ("scope", SCOPE),
        ("state", "s"),
        ("aud", base.as_str()),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
    ];
    assert!(bench.post(&endpoint, &form).await.sent_back("code").is_some());
    let provider = bench.post(&endpoint.replace("personas/patient", "personas/provider"), &form).await;
    assert_eq!(provider.sent_back("error").as_deref(), Some("unauthorized_client"));
    let mut twice = form.to_vec();
    twice.push(("aud", base.as_str()));
    assert_eq!(bench.post(&endpoint, &twice).await.header("location"), "", "a parameter came twice");

    let other = "99999999-0000-4000-8000-000000000000";
    let tenant = endpoint.split('/').nth(4).expect("a tenant").to_owned();
    let page = bench.post(&endpoint.replace(&tenant, other), &form).await;
    assert!(page.text().contains("unknown-tenant"));
    let token = bench.post(&bench.token_url().await.replace(&tenant, other), &[]).await;
    assert_refused(&token, "invalid_grant", "oauth2:token:invalid-tenant");
    let fhir = bench.get(&format!("{ORIGIN}/r4/{other}/metadata")).await;
    assert_eq!(fhir.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn people_find_pages_that_explain_and_a_place_to_withdraw() {
    let bench = Bench::new();
    let front = bench.get("/").await.text();
    for user in bench.hospital.users() {
        assert!(front.contains(&user.username) && front.contains(&user.password));
    }
    assert_eq!(bench.get("/sandbox.css").await.header("content-type"), "text/css; charset=utf-8");
    let refused = bench.refresh("unknown").await.json();
    let explanation = bench.get(text(&refused, "error_uri")).await;
    assert_eq!(explanation.status, StatusCode::OK);
    assert!(explanation.text().contains("urn:cerner:error:authorization-server:oauth2:token:refresh-token"));

    let tokens = bench.connect().await;
    let manage = bench.discovery().await["management_endpoint"].as_str().expect("a URL").to_owned();
    assert!(bench.get(&manage).await.text().contains("value=\"1\""));
    assert_eq!(bench.post(&manage, &[("grant", "1")]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(bench.refresh(text(&tokens, "refresh_token")).await.json()["error"], "invalid_grant");
    let hostile = bench.get("/errors/%3Cscript%3E/instances/x").await.text();
    assert!(!hostile.contains("<script>"));
}

#[tokio::test]
async fn provenance_comes_along_only_with_its_scope() {
    let bench = Bench::new();
    let tokens = bench.connect().await;
    let patient = text(&tokens, "patient").to_owned();
    let path = format!("Patient?_id={patient}&_revinclude=Provenance:target");
    assert_eq!(bench.fhir(&tokens, &path).await.status, StatusCode::FORBIDDEN);
    let scope = "patient/Patient.read patient/Provenance.read";
    let code = bench.authorize(&[("scope", scope)]).await.sent_back("code").expect("a code");
    let tokens = bench.exchange(&code, &[]).await.json();
    let found = bench.fhir(&tokens, &path).await.json();
    assert_eq!(ids(&found)[0], patient);
}

#[test]
fn the_answer_can_be_made_on_any_thread() {
    fn is_send<T: Send>(_: &T) {}
    let bench = Bench::new();
    let request = Request::get("/").body(Full::new(Bytes::new())).expect("a request");
    is_send(&bench.hospital.handle(SocketAddr::from(([127, 0, 0, 1], 9)), request));
}
