//! The path that works, from log-in to record.

use chartgate::crypto::KeyType;
use chartgate::sandbox::Personality;
use hyper::StatusCode;
use serde_json::json;
use url::Url;

use super::support::{Bench, CLIENT, ORIGIN, client_key, form_action, registered, text, ticket};

#[tokio::test]
async fn a_patient_signs_in_agrees_and_the_client_reads_the_record() {
    let bench = Bench::new();
    let user = bench.user(0);
    let log_in = bench.authorize(&[]).await;
    assert_eq!(log_in.status, StatusCode::OK);
    assert!(log_in.text().contains("Sandbox hospital – synthetic data"));
    assert!(log_in.header("content-security-policy").starts_with("default-src 'none'"));
    let base = format!("{ORIGIN}{}", form_action(&log_in.text()));

    let first = ticket(&log_in);
    let guess = [("ticket", first.as_str()), ("username", &user.username), ("password", "x")];
    let wrong = bench.post(&base, &guess).await;
    assert!(wrong.text().contains("wrong"));
    let right = [("ticket", ticket(&wrong)), ("username", user.username), ("password", user.password)];
    let right: Vec<(&str, &str)> = right.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let consent = bench.post(&base, &right).await;
    assert!(consent.text().contains("Whose record"), "{}", consent.text());
    let again = bench.post(&base, &right).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST, "a ticket is good once");

    let action = format!("{ORIGIN}{}", form_action(&consent.text()));
    let decision = [
        ("ticket", ticket(&consent)),
        ("patient", user.patient.clone()),
        ("type", "Patient".to_owned()),
        ("decision", "allow".to_owned()),
    ];
    let decision: Vec<(&str, &str)> = decision.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let back = bench.post(&action, &decision).await;
    assert_eq!(back.sent_back("state").as_deref(), Some("a-state-of-the-client"));
    let answer = bench.exchange(&back.sent_back("code").expect("a code"), &[]).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let tokens = answer.json();
    assert_eq!(tokens["token_type"], "Bearer");
    assert_eq!(tokens["expires_in"], 570);
    assert_eq!(tokens["patient"], user.patient);
    assert_eq!(tokens["scope"], "openid fhirUser offline_access patient/Patient.read");

    let claims = bench.id_claims(&tokens).await;
    let document = bench.discovery().await;
    assert_ne!(claims["iss"], document["issuer"], "Oracle Health's id tokens come from another address");
    assert!(text(&claims, "iss").starts_with(&format!("{}/oidc/idsps/", text(&document, "issuer"))));
    assert_eq!(claims["aud"], CLIENT);
    assert_eq!(claims["nonce"], "a-nonce");
    let fhir_user = format!("{}/Patient/{}", bench.hospital.fhir_base_url(), user.patient);
    assert_eq!(claims["fhirUser"], fhir_user);
    let configuration =
        bench.get(&format!("{}.well-known/openid-configuration", text(&claims, "iss"))).await.json();
    assert_eq!(configuration["issuer"], claims["iss"]);

    let patient = bench.fhir(&tokens, &format!("Patient/{}", user.patient)).await;
    assert_eq!(patient.status, StatusCode::OK);
    assert!(patient.header("etag").starts_with("W/\""));
    assert!(!patient.header("opc-request-id").is_empty());
    assert_eq!(patient.json()["id"], user.patient);
    let unticked = bench.fhir(&tokens, &format!("Observation?patient={}", user.patient)).await;
    assert_eq!(unticked.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_rsa_key_signs_assertions_too() {
    let bench = Bench::built(Personality::CernerPatient, registered(), client_key(KeyType::Rsa2048, 3));
    assert!(bench.connect().await["access_token"].is_string());
}

#[tokio::test]
async fn the_metadata_says_the_same_in_both_documents_and_the_keys_have_no_alg() {
    let bench = Bench::new();
    let document = bench.discovery().await;
    let statement = bench.get(&format!("{}/metadata", bench.hospital.fhir_base_url())).await.json();
    let uris = &statement["rest"][0]["security"]["extension"][0]["extension"];
    let named = |name: &str| {
        let list = uris.as_array().expect("the extension");
        list.iter().find(|one| one["url"] == name).map(|one| one["valueUri"].clone())
    };
    assert_eq!(named("authorize").as_ref(), Some(&document["authorization_endpoint"]));
    assert_eq!(named("token").as_ref(), Some(&document["token_endpoint"]));
    assert_eq!(document["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(
        document["token_endpoint_auth_methods_supported"],
        json!(["client_secret_basic", "private_key_jwt"])
    );
    let keys = bench.get("/jwk").await.json();
    for key in keys["keys"].as_array().expect("keys") {
        assert!(key.get("alg").is_none() && key.get("use").is_none() && key.get("d").is_none(), "{key}");
    }
}

#[tokio::test]
async fn an_ehr_launch_is_for_one_client_and_one_use() {
    let mut client = registered();
    client.launch_url = Some("https://app.example/launch".to_owned());
    let bench = Bench::with(Personality::CernerPatient, client);
    let wanted = json!({"client_id": CLIENT, "username": bench.user(0).username});
    let url = bench.control("launch", wanted).await;
    let url = Url::parse(text(&url, "url")).expect("a URL");
    let given: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    assert_eq!(given[0], ("iss".to_owned(), bench.hospital.fhir_base_url()));
    let scope = "launch openid fhirUser patient/Patient.read";
    let changes = [("launch", given[1].1.as_str()), ("scope", scope)];
    let consent = bench.authorize(&changes).await;
    assert!(consent.text().contains("Whose record"), "no second log-in: {}", consent.text());
    let again = bench.authorize(&changes).await;
    assert_eq!(again.sent_back("error").as_deref(), Some("invalid_request"));
    let without = bench.authorize(&[("scope", scope)]).await;
    assert!(without.sent_back("error_uri").expect("a uri").contains("launch-code-required"));
}
