//! Authorization codes: once, for a minute, for their client.

use std::time::Duration;

use chartgate::crypto::base64;
use hyper::StatusCode;
use serde_json::json;

use super::support::{Bench, REDIRECT_URI, assert_refused, encoded, exchange_form, text};

#[tokio::test]
async fn a_code_needs_its_own_verifier_and_redirect_uri() {
    let bench = Bench::new();
    for (changes, urn) in [
        ([("code_verifier", "")], "oauth2:token:code-invalid-or-expired"),
        (
            [("code_verifier", "an-other-verifier-of-more-than-43-characters")],
            "oauth2:token:code-invalid-or-expired",
        ),
        ([("redirect_uri", "https://app.example/other")], "oauth2:token:invalid-redirect-uri"),
        ([("redirect_uri", "")], "oauth2:token:invalid-redirect-uri"),
    ] {
        let code = bench.code().await;
        let answer = bench.exchange(&code, &changes).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_refused(&answer, "invalid_grant", urn);
        let second = bench.exchange(&code, &[]).await;
        assert_eq!(second.status, StatusCode::BAD_REQUEST, "a code is good for one attempt");
    }
}

#[tokio::test]
async fn a_code_used_twice_is_refused_and_takes_its_tokens_along() {
    let bench = Bench::new();
    let code = bench.code().await;
    let tokens = bench.exchange(&code, &[]).await.json();
    let patient = format!("Patient/{}", text(&tokens, "patient"));
    assert_eq!(bench.fhir(&tokens, &patient).await.status, StatusCode::OK);
    assert_refused(
        &bench.exchange(&code, &[]).await,
        "invalid_grant",
        "oauth2:token:code-invalid-or-expired",
    );
    assert_eq!(bench.fhir(&tokens, &patient).await.status, StatusCode::UNAUTHORIZED);
    let refresh = bench.refresh(text(&tokens, "refresh_token")).await;
    assert_refused(&refresh, "invalid_grant", "oauth2:token:refresh-token:token-invalid");
}

#[tokio::test]
async fn a_code_lives_sixty_seconds() {
    let bench = Bench::new();
    let code = bench.code().await;
    bench.clock.advance(Duration::from_secs(59));
    assert_eq!(bench.exchange(&code, &[]).await.status, StatusCode::OK);
    let code = bench.code().await;
    bench.clock.advance(Duration::from_mins(1));
    assert_refused(
        &bench.exchange(&code, &[]).await,
        "invalid_grant",
        "oauth2:token:code-invalid-or-expired",
    );
    bench.fault(json!({"code_life_seconds": 5})).await;
    let code = bench.code().await;
    bench.clock.advance(Duration::from_secs(5));
    assert_eq!(bench.exchange(&code, &[]).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_code_is_for_the_client_it_was_given_to() {
    let bench = Bench::new();
    let other = json!({"client_id": "other", "redirect_uris": [REDIRECT_URI], "secret": "s3cret"});
    bench.control("clients", other).await;
    let code = bench.code().await;
    let basic = format!("Basic {}", base64(b"other:s3cret"));
    let headers = [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    let answer =
        bench.send("POST", &bench.token_url().await, &headers, encoded(&exchange_form(&code, &[]))).await;
    assert_refused(&answer, "invalid_grant", "oauth2:token:code:client:mismatch");
    assert_eq!(bench.exchange(&code, &[]).await.status, StatusCode::OK, "and it stays good for its owner");
}
