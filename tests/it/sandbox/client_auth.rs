//! How clients prove who they are.

use std::time::Duration;

use chartgate::crypto::{Algorithm, KeyPair, KeyType, base64, sign_jws};
use chartgate::sandbox::Personality;
use chartgate::secret::Secret;
use hyper::StatusCode;
use serde_json::json;

use super::support::{
    Bench, CLIENT, assert_refused, client_key, encoded, exchange_form, key_set, registered, text,
};

#[tokio::test]
async fn an_assertion_with_any_flaw_is_refused() {
    let bench = Bench::new();
    let url = bench.token_url().await;
    let code = bench.code().await;
    let form = exchange_form(&code, &[]);
    let now = bench.clock.now().seconds();
    let flaws = [
        (json!({"aud": "https://elsewhere.example/token"}), "wrong aud"),
        (json!({"aud": bench.hospital.fhir_base_url()}), "wrong aud"),
        (json!({"aud": [url]}), "wrong aud"),
        (json!({"exp": now + 331}), "exp too far ahead"),
        (json!({"exp": now}), "expired"),
        (json!({"exp": null}), "`exp` is not a whole number"),
        (json!({"exp": 1.5}), "`exp` is not a whole number"),
        (json!({"jti": null}), "no `jti`"),
        (json!({"jti": "j".repeat(256)}), "`jti` is longer than 255"),
        (json!({"nbf": now + 60}), "`nbf` or `iat` lies ahead"),
        (json!({"sub": "someone"}), "`iss` and `sub` differ"),
        (json!({"iss": "other", "sub": "other"}), "`client_id` of the body is not the `sub`"),
    ];
    for (flaw, reason) in flaws {
        let mut claims = bench.claims(&url);
        for (name, value) in flaw.as_object().expect("members") {
            claims[name] = value.clone();
        }
        let assertion = sign_jws(&bench.key, Algorithm::Es384, &claims).expect("signed");
        let answer = bench.token_with(&assertion, &form).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{reason}");
        assert_refused(&answer, "invalid_client", "client-assertion:jwt-bearer:invalid-signature");
        let told = bench.last_reason("token").await;
        assert_eq!(told, format!("invalid_client: assertion: {reason}"));
    }
    let good = bench.token(&form).await;
    assert_eq!(good.status, StatusCode::OK, "a refused client does not spend the code: {}", good.text());
}

#[tokio::test]
async fn an_assertion_is_good_once() {
    let bench = Bench::new();
    let url = bench.token_url().await;
    let assertion = bench.assertion(&url);
    let code = bench.code().await;
    assert_eq!(bench.token_with(&assertion, &exchange_form(&code, &[])).await.status, StatusCode::OK);
    let code = bench.code().await;
    let replayed = bench.token_with(&assertion, &exchange_form(&code, &[])).await;
    assert_refused(&replayed, "invalid_client", "client-assertion:jwt-bearer:invalid-signature");
    assert!(bench.last_reason("token").await.contains("jti replayed"));
}

#[tokio::test]
async fn only_rs384_and_es384_and_only_the_one_key_of_that_name_are_accepted() {
    let bench = Bench::new();
    let url = bench.token_url().await;
    let code = bench.code().await;
    let form = exchange_form(&code, &[]);
    let check = async |key: &KeyPair, algorithm: Algorithm, reason: &str| {
        let assertion = sign_jws(key, algorithm, &bench.claims(&url)).expect("signed");
        let answer = bench.token_with(&assertion, &form).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{reason}");
        let told = bench.last_reason("token").await;
        assert!(told.contains(reason), "{told}");
    };
    let rsa = client_key(KeyType::Rsa2048, 5);
    let p256 = client_key(KeyType::EcP256, 6);
    bench.served.lock().expect("not poisoned").0 = key_set(&[&bench.key, &rsa, &p256]);
    check(&rsa, Algorithm::Rs256, "wrong alg RS256").await;
    check(&p256, Algorithm::Es256, "wrong alg ES256").await;
    check(&client_key(KeyType::EcP384, 8), Algorithm::Es384, "unknown kid").await;
    bench.served.lock().expect("not poisoned").0 = key_set(&[&bench.key, &bench.key]);
    bench.clock.advance(Duration::from_mins(2));
    check(&bench.key, Algorithm::Es384, "several keys with this kid").await;
    // A key of the right name that did not sign.
    let mut forged = client_key(KeyType::EcP384, 9).public_jwk();
    forged.kid = Some(bench.key.kid().to_owned());
    bench.served.lock().expect("not poisoned").0 = json!({"keys": [forged]});
    bench.clock.advance(Duration::from_mins(2));
    check(&bench.key, Algorithm::Es384, "signature does not verify").await;
    for compact in ["", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        assert_eq!(bench.token_with(compact, &form).await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn client_keys_are_cached_as_told_at_least_a_minute_and_refetched_for_an_unknown_kid() {
    let bench = Bench::new();
    bench.served.lock().expect("not poisoned").1 = Some(Duration::from_mins(5));
    let tokens = bench.connect().await;
    bench.clock.advance(Duration::from_secs(299));
    let refreshed = bench.refresh(text(&tokens, "refresh_token")).await.json();
    assert_eq!(bench.fetches().await, 1, "max-age is obeyed");
    bench.clock.advance(Duration::from_secs(2));
    bench.served.lock().expect("not poisoned").1 = Some(Duration::ZERO);
    let refreshed = bench.refresh(text(&refreshed, "refresh_token")).await.json();
    let refreshed = bench.refresh(text(&refreshed, "refresh_token")).await.json();
    assert_eq!(bench.fetches().await, 2, "a minute at least, whatever the header says");

    let next = client_key(KeyType::EcP384, 12);
    let rotated = Bench { key: next, ..bench };
    rotated.served.lock().expect("not poisoned").0 = key_set(&[&rotated.key]);
    rotated.fault(json!({"no_jwks_refetch": true})).await;
    let early = rotated.refresh(text(&refreshed, "refresh_token")).await;
    assert_eq!(early.status, StatusCode::UNAUTHORIZED, "a strict server does not look again");
    assert_eq!(rotated.fetches().await, 2);
    rotated.fault(json!({"no_jwks_refetch": null})).await;
    assert_eq!(rotated.refresh(text(&refreshed, "refresh_token")).await.status, StatusCode::OK);
    assert_eq!(rotated.fetches().await, 3);
}

#[tokio::test]
async fn secrets_are_checked_and_two_methods_at_once_refused() {
    let mut client = registered();
    client.secret = Some(Secret::new("a secret+"));
    let bench = Bench::with(Personality::CernerPatient, client);
    let url = bench.token_url().await;
    let send = async |bench: &Bench, credentials: &str, extra: &[(&str, &str)]| {
        let code = bench.code().await;
        let basic = format!("Basic {}", base64(credentials.as_bytes()));
        let headers =
            [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded")];
        bench.send("POST", &url, &headers, encoded(&exchange_form(&code, extra))).await
    };
    let right = format!("{CLIENT}:a+secret%2B");
    assert_eq!(send(&bench, &right, &[]).await.status, StatusCode::OK);
    let wrong = send(&bench, &format!("{CLIENT}:guess"), &[]).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert_refused(&wrong, "invalid_client", "oauth2:token:invalid-client-credentials");
    let both = send(&bench, &right, &[("client_assertion", &bench.assertion(&url))]).await;
    assert_eq!(both.json()["error"], "invalid_request");
    let code = bench.code().await;
    let posted = [("client_id", CLIENT), ("client_secret", "a secret+")];
    let answer = bench.post(&url, &exchange_form(&code, &posted)).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "Oracle Health has no client_secret_post");
    let none = bench.post(&url, &exchange_form(&code, &posted[..1])).await;
    assert_eq!(none.json()["error"], "invalid_client", "a confidential client must authenticate");
}
