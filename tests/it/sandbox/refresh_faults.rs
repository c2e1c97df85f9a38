//! Switches for what custody of tokens must survive: late uses, suspensions, limits, clocks, deaf revocation endpoints.

use std::time::Duration;

use chartgate::clock::Timestamp;
use chartgate::crypto::{base64url, sha256, sign_jws};
use hyper::StatusCode;
use serde_json::{Value, json};

use super::support::{Bench, assert_refused, text};

const BAD_TOKEN: &str = "oauth2:token:refresh-token:token-invalid";

fn digest(token: &str) -> String {
    base64url(&sha256(token.as_bytes()))
}

async fn one_grant(bench: &Bench) -> Value {
    let grants = bench.grants("").await;
    assert_eq!(grants.len(), 1);
    grants[0].clone()
}

#[tokio::test]
async fn within_its_grace_a_superseded_token_gets_new_tokens_once() {
    let bench = Bench::new();
    bench.fault(json!({"superseded_grace_seconds": 30})).await;
    let first = bench.connect().await;
    let second = bench.refresh(text(&first, "refresh_token")).await.json();
    bench.clock.advance(Duration::from_secs(29));
    let late = bench.refresh(text(&first, "refresh_token")).await.json();
    assert_ne!(late["refresh_token"], second["refresh_token"]);
    let third = bench.refresh(text(&late, "refresh_token")).await;
    assert_eq!(third.status, StatusCode::OK, "what the late use got is current");
    let grant = one_grant(&bench).await;
    assert_eq!((&grant["refreshes"], &grant["reuses"], &grant["graced"]), (&json!(3), &json!(1), &json!(1)));
    let again = bench.refresh(text(&first, "refresh_token")).await;
    assert_refused(&again, "invalid_grant", BAD_TOKEN);
    assert_eq!(bench.refresh(text(&third.json(), "refresh_token")).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn after_its_grace_a_superseded_token_ends_the_grant() {
    let bench = Bench::new();
    bench.fault(json!({"superseded_grace_seconds": 30})).await;
    let first = bench.connect().await;
    let second = bench.refresh(text(&first, "refresh_token")).await.json();
    bench.clock.advance(Duration::from_secs(30));
    assert_refused(&bench.refresh(text(&first, "refresh_token")).await, "invalid_grant", BAD_TOKEN);
    assert_refused(&bench.refresh(text(&second, "refresh_token")).await, "invalid_grant", BAD_TOKEN);
    let grant = one_grant(&bench).await;
    assert_eq!((&grant["reuses"], &grant["graced"]), (&json!(1), &json!(0)));
    assert_eq!(grant["ended"], "a replaced refresh token was used");
}

#[tokio::test]
async fn a_grace_may_repeat_the_first_answer_also_a_lost_one() {
    let bench = Bench::new();
    bench.fault(json!({"superseded_grace_seconds": 30, "superseded_grace_answer": "same"})).await;
    let first = bench.connect().await;
    let second = bench.refresh(text(&first, "refresh_token")).await;
    let again = bench.refresh(text(&first, "refresh_token")).await;
    assert_eq!(again.text(), second.text());
    let third = bench.refresh(text(&second.json(), "refresh_token")).await;
    assert_eq!(third.status, StatusCode::OK);
    assert_eq!(one_grant(&bench).await["generation"], 3, "the repeated answer held no token of its own");
}

#[tokio::test]
async fn a_suspension_refuses_as_told_for_whom_it_is_told_and_ends_without_a_trace() {
    let bench = Bench::new();
    let tokens = bench.connect().await;
    let (patient, refresh_token) = (text(&tokens, "patient"), text(&tokens, "refresh_token"));
    let read = format!("Patient/{patient}");
    for place in ["*", patient, "grant-1"] {
        for (refusal, status) in [
            (json!({"error": "invalid_grant", "status": 403}), 403),
            (json!({"error": "invalid_grant", "urn": BAD_TOKEN}), 400),
            (json!({"error": "invalid_request"}), 400),
            (json!({"error": "invalid_client"}), 401),
        ] {
            bench.fault(json!({"suspended": {place: refusal}})).await;
            for _ in 0..2 {
                let refused = bench.refresh(refresh_token).await;
                assert_eq!(refused.status.as_u16(), status, "{place} {refusal}");
                assert_refused(&refused, text(&refusal, "error"), BAD_TOKEN);
            }
            assert_eq!(bench.fhir(&tokens, &read).await.status, StatusCode::OK, "access tokens stay good");
        }
    }
    bench
        .fault(
            json!({"suspended": {"another patient": {"error": "invalid_grant"}, "grant-2": {"error": "x"}}}),
        )
        .await;
    let spared = bench.refresh(refresh_token).await.json();
    bench.fault(json!({"suspended": null})).await;
    assert_eq!(bench.refresh(text(&spared, "refresh_token")).await.status, StatusCode::OK);
    let grant = one_grant(&bench).await;
    assert_eq!(
        (&grant["refreshes"], &grant["reuses"], &grant["ended"]),
        (&json!(2), &json!(0), &Value::Null)
    );
}

#[tokio::test]
async fn a_grant_is_refreshed_once_an_interval() {
    let bench = Bench::new();
    bench.fault(json!({"refresh_interval_seconds": 60, "retry_after": {"seconds": 60}})).await;
    let tokens = bench.connect().await;
    let first = bench.refresh(text(&tokens, "refresh_token")).await.json();
    let other = bench.connect().await;
    assert_eq!(bench.refresh(text(&other, "refresh_token")).await.status, StatusCode::OK, "each for itself");
    bench.clock.advance(Duration::from_secs(59));
    let early = bench.refresh(text(&first, "refresh_token")).await;
    assert_eq!((early.status, early.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "60"));
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(
        bench.refresh(text(&first, "refresh_token")).await.status,
        StatusCode::OK,
        "nothing was used up"
    );
}

#[tokio::test]
async fn retry_after_stands_on_every_429_and_503_in_the_form_asked_for() {
    let bench = Bench::new();
    let tokens = bench.connect().await;
    let revocation = text(&bench.discovery().await, "revocation_endpoint").to_owned();
    let date = bench.clock.now().after(Duration::from_mins(2)).http_date();
    for (form, expected) in [("seconds", "120"), ("date", date.as_str())] {
        bench.fault(json!({"retry_after": {"seconds": 120, "form": form}})).await;
        for status in [429, 503] {
            bench
                .fault(json!({"token_endpoint": status.to_string(), "fhir": {"*": {"status": status}}}))
                .await;
            let token = bench.refresh("any").await;
            assert_eq!((token.status.as_u16(), token.header("retry-after")), (status, expected));
            let fhir = bench.fhir(&tokens, "Patient/1").await;
            assert_eq!((fhir.status.as_u16(), fhir.header("retry-after")), (status, expected));
        }
        bench.fault(json!({"token_endpoint": null, "fhir": null, "revocation_endpoint": "503"})).await;
        let revoked = bench.revoke(&revocation, "any").await;
        assert_eq!((revoked.status.as_u16(), revoked.header("retry-after")), (503, expected));
    }
    bench.fault(json!({"retry_after": null})).await;
    assert_eq!(bench.revoke(&revocation, "any").await.header("retry-after"), "");
}

#[tokio::test]
async fn a_wrong_wall_clock_shows_in_dates_and_in_what_assertions_pass() {
    let bench = Bench::new();
    let date = |header: &str| Timestamp::parse_http_date(header).expect("a date").seconds();
    let now = bench.clock.now().seconds();
    let tokens = bench.connect().await;
    assert_eq!(date(bench.get("/jwk").await.header("date")), now);
    let url = bench.token_url().await;
    // Our assertions end 300 s from now; 30 s are let pass.
    for (skew, passes) in [(299, true), (300, false), (-30, true), (-31, false)] {
        bench.fault(json!({"clock_skew_seconds": skew})).await;
        assert_eq!(date(bench.get("/jwk").await.header("date")), now + skew);
        let assertion = sign_jws(&bench.key, bench.key.algorithm(), &bench.claims(&url)).expect("signed");
        let form = [("grant_type", "refresh_token"), ("refresh_token", "unknown")];
        let answer = bench.token_with(&assertion, &form).await;
        let error = if passes { "invalid_grant" } else { "invalid_client" };
        assert_eq!(answer.json()["error"], error, "{skew}");
        let read = bench.fhir(&tokens, &format!("Patient/{}", text(&tokens, "patient"))).await;
        assert_eq!(read.status, StatusCode::OK, "a token lives no longer and no shorter");
    }
    bench.fault(json!({"clock_skew_seconds": 120})).await;
    let tokens = bench.connect().await;
    assert_eq!(bench.id_claims(&tokens).await["iat"], now + 120);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_endpoint_may_be_missing_deaf_or_choosy() {
    let bench = Bench::new();
    let tokens = bench.connect().await;
    let url = text(&bench.discovery().await, "revocation_endpoint").to_owned();
    let token = text(&tokens, "refresh_token");
    let metadata = format!("{}/metadata", bench.hospital.fhir_base_url());
    for (fault, status) in [("absent", 404), ("503", 503), ("unsupported_token_type", 400)] {
        bench.fault(json!({"revocation_endpoint": fault})).await;
        let named = fault != "absent";
        assert_eq!(bench.discovery().await.get("revocation_endpoint").is_some(), named);
        assert_eq!(bench.get(&metadata).await.text().contains(&url), named);
        let answer = bench.revoke(&url, token).await;
        assert_eq!(answer.status.as_u16(), status, "{fault}");
        if status == 400 {
            assert_eq!(answer.json()["error"], "unsupported_token_type");
        }
    }
    bench.fault(json!({"revocation_endpoint": "hang"})).await;
    assert!(tokio::time::timeout(Duration::from_mins(1), bench.revoke(&url, token)).await.is_err());
    bench.fault(json!({"revocation_endpoint": null})).await;
    assert_eq!(one_grant(&bench).await["ended"], Value::Null, "none of them revoked");
    bench.revoke(&url, token).await;
    assert_eq!(one_grant(&bench).await["ended"], "revoked by the client");
}

#[tokio::test(start_paused = true)]
async fn the_control_address_tells_which_refresh_token_is_the_current_one() {
    let bench = Bench::new();
    let first = bench.connect().await;
    let patient = text(&first, "patient");
    let second = bench.refresh(text(&first, "refresh_token")).await.json();
    let told = one_grant(&bench).await;
    assert_eq!(
        (&told["patient"], &told["refreshes"], &told["generation"]),
        (&first["patient"], &json!(1), &json!(2))
    );
    let expected = json!([
        {"generation": 1, "sha256": digest(text(&first, "refresh_token")), "current": false},
        {"generation": 2, "sha256": digest(text(&second, "refresh_token")), "current": true},
    ]);
    assert_eq!(told["refresh_tokens"], expected);
    // A rotation whose answer is lost is seen here, and only here.
    bench.fault(json!({"token_endpoint": "timeout-after-rotation", "times": 1})).await;
    let lost = bench.refresh(text(&second, "refresh_token"));
    assert!(tokio::time::timeout(Duration::from_secs(1), lost).await.is_err());
    let told = one_grant(&bench).await;
    assert_eq!((&told["generation"], &told["reuses"]), (&json!(3), &json!(0)));
    bench.refresh(text(&second, "refresh_token")).await;
    assert_eq!(one_grant(&bench).await["reuses"], 1);
    assert!(bench.grants("?patient=someone-else").await.is_empty());
    assert_eq!(bench.grants(&format!("?patient={patient}")).await.len(), 1);
    for tokens in [&first, &second] {
        let whole = json!(bench.grants("").await).to_string();
        assert!(
            !whole.contains(text(tokens, "refresh_token")) && !whole.contains(text(tokens, "access_token"))
        );
    }
}
