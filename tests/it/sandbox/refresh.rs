//! Refresh, revocation, introspection.

use std::time::Duration;

use chartgate::sandbox::Personality;
use chartgate::secret::Secret;
use hyper::StatusCode;
use serde_json::json;

use super::support::{Bench, CLIENT, assert_refused, registered, text};

#[tokio::test]
async fn refresh_tokens_rotate_and_the_reuse_of_an_old_one_ends_the_grant() {
    let bench = Bench::new();
    let first = bench.connect().await;
    let second = bench.refresh(text(&first, "refresh_token")).await.json();
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    assert_eq!(second["scope"], first["scope"]);
    let third = bench.refresh(text(&second, "refresh_token")).await.json();
    let reused = bench.refresh(text(&second, "refresh_token")).await;
    assert_refused(&reused, "invalid_grant", "oauth2:token:refresh-token:token-invalid");
    let newest = bench.refresh(text(&third, "refresh_token")).await;
    assert_refused(&newest, "invalid_grant", "oauth2:token:refresh-token:token-invalid");
    let read = bench.fhir(&third, &format!("Patient/{}", text(&first, "patient"))).await;
    assert_eq!(read.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn without_rotation_the_answer_has_no_refresh_token_and_the_old_one_stays_good() {
    let bench = Bench::new();
    bench.fault(json!({"refresh_rotation": "keep"})).await;
    let first = bench.connect().await;
    for _ in 0..2 {
        let again = bench.refresh(text(&first, "refresh_token")).await;
        assert_eq!(again.status, StatusCode::OK);
        assert!(again.json().get("refresh_token").is_none());
    }
}

#[tokio::test]
async fn a_refresh_token_dies_after_three_months_without_use() {
    let bench = Bench::new();
    let tokens = bench.connect().await;
    let nearly = json!({"seconds": 89 * 24 * 3600});
    bench.control("advance-clock", nearly.clone()).await;
    bench.clock.advance(Duration::from_hours(24 * 89));
    // Both clocks count: the hospital's own distance comes on top of the clock it was given.
    let dead = bench.refresh(text(&tokens, "refresh_token")).await;
    assert_eq!(dead.status, StatusCode::UNAUTHORIZED, "our assertion is 89 days too old for the hospital");
    let bench = Bench::new();
    let tokens = bench.connect().await;
    bench.clock.advance(Duration::from_hours(24 * 89));
    let tokens = bench.refresh(text(&tokens, "refresh_token")).await.json();
    bench.clock.advance(Duration::from_hours(24 * 90));
    let dead = bench.refresh(text(&tokens, "refresh_token")).await;
    assert_refused(&dead, "invalid_grant", "oauth2:token:refresh-token:token-invalid");
}

#[tokio::test]
async fn a_refresh_may_ask_for_less_but_not_for_more() {
    let bench = Bench::new();
    let tokens = bench.connect().await;
    let form = |scope| {
        [("grant_type", "refresh_token"), ("refresh_token", text(&tokens, "refresh_token")), ("scope", scope)]
    };
    let more = bench.token(&form("patient/Goal.read")).await;
    assert_eq!(more.json()["error"], "invalid_scope");
    let less = bench.token(&form("patient/Patient.read")).await.json();
    assert_eq!(less["scope"], "patient/Patient.read");
    let patient = text(&tokens, "patient");
    let search = bench.fhir(&less, &format!("Observation?patient={patient}")).await;
    assert_eq!(search.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn revocation_by_client_or_patient_ends_the_grant() {
    let bench = Bench::new();
    let tokens = bench.connect().await;
    let url = bench.discovery().await["revocation_endpoint"].as_str().expect("a URL").to_owned();
    for token in [text(&tokens, "refresh_token"), "unknown"] {
        let answer = bench.revoke(&url, token).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
    }
    assert_eq!(bench.refresh(text(&tokens, "refresh_token")).await.json()["error"], "invalid_grant");

    let tokens = bench.connect().await;
    assert_eq!(bench.control("revoke", json!({"patient": "someone else"})).await["revoked"], 0);
    assert_eq!(bench.control("revoke", json!({})).await["revoked"], 1);
    assert_eq!(bench.refresh(text(&tokens, "refresh_token")).await.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn introspection_tells_the_client_about_its_own_token() {
    let mut client = registered();
    client.secret = Some(Secret::new("s"));
    let bench = Bench::with(Personality::Generic, client);
    let tokens = bench.connect().await;
    let ask = async |token: &str| {
        let form = [("token", token), ("client_id", CLIENT), ("client_secret", "s")];
        bench.post("/tokeninfo", &form).await.json()
    };
    let told = ask(text(&tokens, "access_token")).await;
    assert_eq!((&told["active"], &told["patient"]), (&json!(true), &tokens["patient"]));
    assert_eq!(ask("unknown").await, json!({"active": false}));
}
