//! Every fault switch does what it says.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use chartgate::crypto::Jws;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use super::support::{Bench, assert_refused, ids, next_link, text};

#[tokio::test]
async fn faults_of_the_token_answer() {
    let bench = Bench::new();
    for (fault, check) in [
        (json!({"no_refresh_token": true}), (|t| t.get("refresh_token").is_none()) as fn(&Value) -> bool),
        (json!({"drop_patient": true}), |t| t.get("patient").is_none()),
        (json!({"narrow_scopes": ["Patient"]}), |t| {
            t["scope"] == "openid fhirUser offline_access patient/Patient.read"
        }),
        (json!({"expires_in": 20}), |t| t["expires_in"] == 20),
        (json!({"expires_in": "string"}), |t| t["expires_in"] == "570"),
        (json!({"expires_in": "float"}), |t| t["expires_in"] == 570.52),
        (json!({"expires_in": "missing"}), |t| t.get("expires_in").is_none()),
    ] {
        let mut once = fault.clone();
        once["times"] = json!(1);
        bench.fault(once).await;
        let tokens = bench.connect().await;
        assert!(check(&tokens), "{fault}: {tokens}");
        let usual = bench.connect().await;
        assert!(!check(&usual), "{fault} lasts one request");
    }
}

#[tokio::test]
async fn faults_of_the_id_token() {
    let bench = Bench::new();
    let usual = bench.connect().await;
    let usual = bench.id_claims(&usual).await;
    for (fault, claim) in [
        ("drop_fhir_user", "fhirUser"),
        ("wrong_id_token_issuer", "iss"),
        ("wrong_id_token_audience", "aud"),
        ("wrong_nonce", "nonce"),
    ] {
        bench.fault(json!({fault: true, "times": 1})).await;
        let tokens = bench.connect().await;
        assert_ne!(bench.id_claims(&tokens).await[claim], usual[claim], "{fault}");
    }
    bench.fault(json!({"id_token_unpublished_kid": 2, "times": 1})).await;
    let tokens = bench.connect().await;
    let kid = Jws::parse(text(&tokens, "id_token")).expect("a JWS").kid.expect("a kid");
    for published in [false, false, true] {
        let keys = bench.get("/jwk").await.text();
        assert_eq!(keys.contains(&kid), published);
    }
    bench.id_claims(&tokens).await;
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_token_endpoint() {
    let bench = Bench::new();
    for (fault, status, body) in [
        ("429", 429, ""),
        ("503", 503, ""),
        ("html", 403, "<html>"),
        ("redirect", 307, ""),
        ("empty", 200, ""),
    ] {
        let code = bench.code().await;
        bench.fault(json!({"token_endpoint": fault, "times": 1})).await;
        let answer = bench.exchange(&code, &[]).await;
        assert_eq!(answer.status.as_u16(), status, "{fault}");
        assert!(answer.text().starts_with(body) && (answer.text().is_empty() == body.is_empty()), "{fault}");
        assert_eq!(
            bench.exchange(&code, &[]).await.status,
            StatusCode::OK,
            "{fault} does not spend the code"
        );
    }
    bench
        .fault(json!({"token_error": {"error": "invalid_grant", "urn": "oauth2:token:made-up"}, "times": 1}))
        .await;
    assert_refused(&bench.refresh("any").await, "invalid_grant", "oauth2:token:made-up");

    let tokens = bench.connect().await;
    let old = text(&tokens, "refresh_token");
    let limit = Duration::from_mins(1);
    bench.fault(json!({"token_endpoint": "hang", "times": 1})).await;
    assert!(tokio::time::timeout(limit, bench.refresh(old)).await.is_err(), "no answer");
    let tokens = bench.refresh(old).await.json();
    let old = text(&tokens, "refresh_token");
    bench.fault(json!({"token_endpoint": "timeout-after-rotation", "times": 1})).await;
    assert!(tokio::time::timeout(limit, bench.refresh(old)).await.is_err(), "no answer");
    assert_eq!(bench.refresh(old).await.json()["error"], "invalid_grant", "but it was carried out");
}

#[tokio::test]
async fn faults_of_authorize() {
    let bench = Bench::new();
    bench.approve_as(0).await;
    bench.fault(json!({"authorize_error": "temporarily_unavailable", "times": 1})).await;
    let answer = bench.authorize(&[]).await;
    assert_eq!(answer.sent_back("error").as_deref(), Some("temporarily_unavailable"));
    bench.fault(json!({"authorize_error": "page", "times": 1})).await;
    assert_eq!(bench.authorize(&[]).await.status, StatusCode::BAD_REQUEST);
    bench.fault(json!({"wrong_state": true, "times": 1})).await;
    assert_ne!(bench.authorize(&[]).await.sent_back("state").as_deref(), Some("a-state-of-the-client"));

    assert_eq!(bench.authorize(&[]).await.sent_back("iss"), None);
    for (value, right) in [("right", true), ("wrong", false)] {
        bench.fault(json!({"authorize_iss": value})).await;
        let document = bench.discovery().await;
        assert_eq!(document["authorization_response_iss_parameter_supported"], true);
        let issuer = bench.authorize(&[]).await.sent_back("iss");
        assert_eq!(issuer.as_deref() == document["issuer"].as_str(), right);
    }
}

#[tokio::test(start_paused = true)]
async fn faults_of_fhir_requests() {
    let bench = Bench::new();
    let tokens = bench.connect().await;
    let path = format!("Observation?patient={}", text(&tokens, "patient"));
    for (fault, status) in [
        (json!(401), 401),
        (json!(403), 403),
        (json!(429), 429),
        (json!(500), 500),
        (json!(503), 503),
        (json!("html"), 504),
        (json!("empty"), 200),
        (json!("half-json"), 200),
        (json!("redirect"), 302),
    ] {
        bench.fault(json!({"fhir": {"Observation": {"status": fault, "times": 1}}})).await;
        let other = bench.fhir(&tokens, &format!("Patient/{}", text(&tokens, "patient"))).await;
        assert_eq!(other.status, StatusCode::OK, "another type is spared");
        let answer = bench.fhir(&tokens, &path).await;
        assert_eq!(answer.status.as_u16(), status, "{fault}");
        if status == 200 {
            assert!(serde_json::from_slice::<Value>(&answer.body).is_err(), "{fault}");
        }
        assert_eq!(bench.fhir(&tokens, &path).await.status, StatusCode::OK, "{fault} lasts one request");
    }
    bench.fault(json!({"fhir": {"*": {"status": "redirect", "times": 1}}})).await;
    let redirect = bench.fhir(&tokens, &path).await;
    let elsewhere = redirect.header("location").to_owned();
    assert!(elsewhere.starts_with("http://127.0.0.1:3001/"), "{elsewhere}");
    bench.fhir(&tokens, &elsewhere).await;
    let told = bench.last_reason("elsewhere").await;
    assert_eq!(told, "a secret was sent to another origin", "a visit with a token is noticed");
    bench.fault(json!({"fhir": {"*": {"status": "hang"}}})).await;
    assert!(tokio::time::timeout(Duration::from_mins(1), bench.fhir(&tokens, &path)).await.is_err());
}

#[tokio::test]
async fn a_huge_body_is_streamed_without_being_held() {
    let bench = Bench::new();
    bench.fault(json!({"fhir": {"*": {"status": "huge"}}, "smart_configuration": "huge"})).await;
    for url in ["Patient/1", ".well-known/smart-configuration"] {
        let url = format!("{}/{url}", bench.hospital.fhir_base_url());
        let request = Request::get(url).body(Full::new(Bytes::new())).expect("a request");
        let response = bench.hospital.handle(SocketAddr::from(([127, 0, 0, 1], 9)), request).await;
        let mut body = response.into_body();
        let mut read = 0;
        for _ in 0..100 {
            let frame = body.frame().await.expect("more").expect("whole");
            read += frame.data_ref().map_or(0, Bytes::len);
        }
        assert!(read > 6_000_000);
    }
}

#[tokio::test]
async fn faults_of_bundles() {
    let bench = Bench::new();
    let tokens = bench.connect_to_much().await;
    let path = format!("Observation?patient={}&category=laboratory&_count=3", text(&tokens, "patient"));
    let first = bench.fhir(&tokens, &path).await.json();
    let set = async |fault: &str| {
        let url = format!("{}/faults", bench.hospital.control_url());
        bench.send("DELETE", &url, &[], String::new()).await;
        bench.fault(json!({fault: true})).await;
        bench.fhir(&tokens, &path).await.json()
    };
    let next = next_link(&set("next_elsewhere").await).expect("a link");
    assert!(next.starts_with("http://127.0.0.1:3001/elsewhere/"), "{next}");
    let next = next_link(&set("next_loop").await).expect("a link");
    assert_eq!(next, format!("{}/{path}", bench.hospital.fhir_base_url()));
    let page = set("suppressed_outcome_entry").await;
    let last = page["entry"].as_array().and_then(|list| list.last()).expect("entries");
    assert_eq!(last["search"]["mode"], "outcome");
    assert_eq!(last["resource"]["issue"][0]["code"], "suppressed");
    let empty = set("empty_page_with_next").await;
    assert!(empty.get("entry").is_none());
    let filled = bench.fhir(&tokens, &next_link(&empty).expect("a link")).await.json();
    assert_eq!(ids(&filled), ids(&first));
    set("repeated_ids").await;
    let second = bench.fhir(&tokens, &next_link(&first).expect("a link")).await.json();
    assert_eq!(ids(&second)[0], *ids(&first).last().expect("ids"));
    assert_eq!(ids(&second).len(), 4, "the repeated entry comes on top");
}

#[tokio::test]
async fn faults_of_discovery() {
    let bench = Bench::new();
    let url = format!("{}/.well-known/smart-configuration", bench.hospital.fhir_base_url());
    let metadata = format!("{}/metadata", bench.hospital.fhir_base_url());
    let at = async |fault: Value| {
        bench.fault(fault).await;
        bench.get(&url).await
    };
    let extension =
        async || bench.get(&metadata).await.json()["rest"][0]["security"].get("extension").is_some();
    assert_eq!(at(json!({"smart_configuration": "missing"})).await.status, StatusCode::NOT_FOUND);
    assert!(!extension().await, "no endpoints anywhere");
    let html = at(json!({"smart_configuration": "html"})).await;
    assert_eq!((html.status, html.header("content-type")), (StatusCode::OK, "text/html"));
    let half = at(json!({"smart_configuration": "half-json"})).await;
    assert!(serde_json::from_slice::<Value>(&half.body).is_err() && !half.body.is_empty());
    let relative = at(json!({"smart_configuration": "relative-urls"})).await.json();
    assert!(text(&relative, "token_endpoint").starts_with('/'));
    let document = at(json!({"smart_configuration": "no-pkce"})).await.json();
    assert!(document.get("code_challenge_methods_supported").is_none());
    let only = at(json!({"smart_configuration": null, "capability_statement_only": true})).await;
    assert_eq!(only.status, StatusCode::NOT_FOUND);
    assert!(extension().await);
    assert_eq!(at(json!({"capability_statement_only": null})).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn discovery_can_hang() {
    let bench = Bench::new();
    bench.fault(json!({"smart_configuration": "hang"})).await;
    assert!(tokio::time::timeout(Duration::from_mins(1), bench.discovery()).await.is_err());
}
