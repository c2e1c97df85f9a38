//! The sandbox hospital does what a strict SMART server does, refuses what one refuses, and fails when told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chartgate::clock::{Clock, Timestamp};
use chartgate::crypto::{
    Algorithm, Jwks, Jws, KeyPair, KeyType, Random, base64, base64url, sha256, sign_jws,
};
use chartgate::sandbox::population::Population;
use chartgate::sandbox::{
    FetchedJwks, Personality, RegisteredClient, Sandbox, SandboxOptions, SandboxUser, SmartVersion,
};
use chartgate::secret::Secret;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, StatusCode, header};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

const ORIGIN: &str = "http://localhost:3001";
const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
const REDIRECT_URI: &str = "https://app.example/callback";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const SCOPE: &str = "openid fhirUser offline_access patient/Patient.read patient/Observation.read \
                     patient/CarePlan.read patient/DocumentReference.read patient/Binary.read";

/// The client's key set as its JWKS URL answers it now.
type Served = Arc<Mutex<(Value, Option<Duration>)>>;

struct Bench {
    hospital: Arc<Sandbox>,
    clock: Clock,
    key: KeyPair,
    served: Served,
    random: Random,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("JSON, not {:?}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A parameter of the redirect.
    fn sent_back(&self, name: &str) -> Option<String> {
        let url = Url::parse(self.header("location")).ok()?;
        url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
    }
}

fn client_key(kind: KeyType, seed: u64) -> KeyPair {
    KeyPair::from_pkcs8(&KeyPair::generate(kind, &Random::seeded(seed)).expect("a key")).expect("usable")
}

fn key_set(keys: &[&KeyPair]) -> Value {
    json!({"keys": keys.iter().map(|key| key.public_jwk()).collect::<Vec<_>>()})
}

fn registered() -> RegisteredClient {
    let mut client = RegisteredClient::new(CLIENT, REDIRECT_URI);
    client.jwks_uri = Url::parse("https://app.example/jwks").ok();
    client
}

impl Bench {
    fn new() -> Self {
        Self::with(Personality::CernerPatient, registered())
    }

    fn with(personality: Personality, client: RegisteredClient) -> Self {
        Self::built(personality, client, client_key(KeyType::EcP384, 1))
    }

    fn built(personality: Personality, client: RegisteredClient, key: KeyPair) -> Self {
        let clock = Clock::manual(Timestamp::from_seconds(1_800_000_000));
        let random = Random::seeded(7);
        let served: Served = Arc::new(Mutex::new((key_set(&[&key]), None)));
        let at_url = Arc::clone(&served);
        let hospital = Sandbox::new(SandboxOptions {
            origin: ORIGIN.to_owned(),
            clock: clock.clone(),
            random: random.clone(),
            population: Arc::new(Population::synthetic(&Random::seeded(1), None)),
            personality,
            clients: vec![client],
            fetch_jwks: Arc::new(move |_| {
                let (set, max_age) = at_url.lock().expect("not poisoned").clone();
                Box::pin(async move { Ok(FetchedJwks { body: set.to_string().into(), max_age }) })
            }),
        })
        .expect("a hospital");
        Self { hospital, clock, key, served, random }
    }

    fn user(&self, number: usize) -> SandboxUser {
        self.hospital.users().into_iter().nth(number).expect("enough people")
    }

    async fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let response = self.hospital.handle(SocketAddr::from(([127, 0, 0, 1], 9)), request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, url: &str) -> Answer {
        self.send("GET", url, &[], String::new()).await
    }

    async fn post(&self, url: &str, form: &[(&str, &str)]) -> Answer {
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", url, &kind, encoded(form)).await
    }

    async fn control(&self, path: &str, body: Value) -> Value {
        let url = format!("{}/{path}", self.hospital.control_url());
        let answer = self.send("POST", &url, &[], body.to_string()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()
    }

    async fn fault(&self, faults: Value) {
        self.control("faults", faults).await;
    }

    async fn discovery(&self) -> Value {
        self.get(&format!("{}/.well-known/smart-configuration", self.hospital.fhir_base_url())).await.json()
    }

    async fn token_url(&self) -> String {
        self.discovery().await["token_endpoint"].as_str().expect("a token endpoint").to_owned()
    }

    async fn approve_as(&self, number: usize) {
        self.control("auto-approve", json!({"username": self.user(number).username})).await;
    }

    /// The authorization request with some parameters changed; an empty value leaves one out.
    async fn authorize(&self, changes: &[(&str, &str)]) -> Answer {
        let base = self.hospital.fhir_base_url();
        let challenge = base64url(&sha256(VERIFIER.as_bytes()));
        let mut query = vec![
            ("response_type", "code"),
            ("client_id", CLIENT),
            ("redirect_uri", REDIRECT_URI),
            ("scope", SCOPE),
            ("state", "a-state-of-the-client"),
            ("aud", &base),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("nonce", "a-nonce"),
        ];
        for (name, value) in changes {
            query.retain(|(known, _)| known != name);
            query.push((name, value));
        }
        query.retain(|(_, value)| !value.is_empty());
        let endpoint = self.discovery().await["authorization_endpoint"].as_str().expect("a URL").to_owned();
        self.get(&format!("{endpoint}?{}", encoded(&query))).await
    }

    async fn code(&self) -> String {
        self.approve_as(0).await;
        let answer = self.authorize(&[]).await;
        answer.sent_back("code").unwrap_or_else(|| panic!("a code: {}", answer.header("location")))
    }

    fn claims(&self, audience: &str) -> Value {
        json!({"iss": CLIENT, "sub": CLIENT, "aud": audience, "jti": self.random.uuid(),
            "exp": self.clock.now().seconds() + 300})
    }

    fn assertion(&self, audience: &str) -> String {
        sign_jws(&self.key, self.key.algorithm(), &self.claims(audience)).expect("signed")
    }

    async fn token(&self, form: &[(&str, &str)]) -> Answer {
        let url = self.token_url().await;
        let assertion = self.assertion(&url);
        self.token_with(&assertion, form).await
    }

    async fn token_with(&self, assertion: &str, form: &[(&str, &str)]) -> Answer {
        let mut whole = form.to_vec();
        whole.push(("client_id", CLIENT));
        whole.push(("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"));
        whole.push(("client_assertion", assertion));
        self.post(&self.token_url().await, &whole).await
    }

    async fn exchange(&self, code: &str, changes: &[(&str, &str)]) -> Answer {
        self.token(&exchange_form(code, changes)).await
    }

    /// A connection to the record with a care plan and the most laboratory results.
    async fn connect_to_much(&self) -> Value {
        let population = Population::synthetic(&Random::seeded(1), None);
        let has = |patient: &str, kind: &str, code: &str| {
            let all = population.of(patient, kind).iter();
            all.filter(|resource| resource.category_codes.iter().any(|known| known == code)).count()
        };
        let people = self.hospital.users().into_iter();
        let most = people
            .filter(|user| has(&user.patient, "CarePlan", "assess-plan") > 0)
            .max_by_key(|user| has(&user.patient, "Observation", "laboratory"))
            .expect("someone with a care plan");
        self.control("auto-approve", json!({"username": most.username})).await;
        let code = self.authorize(&[]).await.sent_back("code").expect("a code");
        self.exchange(&code, &[]).await.json()
    }

    async fn connect(&self) -> Value {
        let code = self.code().await;
        let answer = self.exchange(&code, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()
    }

    async fn refresh(&self, token: &str) -> Answer {
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    async fn fhir(&self, tokens: &Value, path: &str) -> Answer {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}/{path}", self.hospital.fhir_base_url())
        };
        self.fhir_as(tokens, &url, "application/fhir+json").await
    }

    async fn fhir_as(&self, tokens: &Value, url: &str, accept: &str) -> Answer {
        let bearer = format!("Bearer {}", text(tokens, "access_token"));
        self.send("GET", url, &[("authorization", &bearer), ("accept", accept)], String::new()).await
    }

    async fn log(&self) -> Vec<Value> {
        let answer = self.get(&format!("{}/log", self.hospital.control_url())).await.json();
        answer.as_array().expect("a list").clone()
    }

    /// The reason of the newest log line of a kind.
    async fn last_reason(&self, kind: &str) -> String {
        let log = self.log().await;
        let line = log.iter().rev().find(|line| line["kind"] == kind).expect("a line");
        line["reason"].as_str().expect("a reason").to_owned()
    }

    async fn fetches(&self) -> usize {
        self.log().await.iter().filter(|line| line["kind"] == "jwks-fetch").count()
    }

    /// The claims of the id token, verified with the hospital's published keys.
    async fn id_claims(&self, tokens: &Value) -> Value {
        let jws = Jws::parse(text(tokens, "id_token")).expect("a JWS");
        assert_eq!(jws.algorithm, Algorithm::Rs256);
        let keys = Jwks::parse(&self.get("/jwk").await.body).expect("a JWKS");
        let kid = jws.kid.clone().expect("a kid");
        let key = keys.by_kid(&kid).next().expect("a published key");
        jws.verify(key).expect("a good signature")
    }
}

fn exchange_form<'f>(code: &'f str, changes: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
    ];
    for (name, value) in changes {
        form.retain(|(known, _)| known != name);
        form.push((name, value));
    }
    form.retain(|(_, value)| !value.is_empty());
    form
}

fn encoded(form: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {value}"))
}

fn next_link(bundle: &Value) -> Option<String> {
    let links = bundle["link"].as_array().expect("links");
    links.iter().find(|link| link["relation"] == "next").map(|link| text(link, "url").to_owned())
}

fn ids(bundle: &Value) -> Vec<String> {
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| text(&entry["resource"], "id").to_owned()).collect()
}

#[track_caller]
fn assert_refused(answer: &Answer, error: &str, urn: &str) {
    assert_eq!(answer.json()["error"], error, "{}", answer.text());
    let uri = percent_encoding::percent_decode_str(answer.json()["error_uri"].as_str().unwrap_or_default())
        .decode_utf8_lossy()
        .into_owned();
    assert!(uri.contains(&format!("authorization-server:{urn}/instances/")), "{uri} is not about {urn}");
    assert!(uri.contains(answer.header("cerner-correlation-id")));
    assert!(answer.json().get("error_description").is_none(), "Oracle Health has no error_description");
}

// ---- The path that works

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

fn ticket(page: &Answer) -> String {
    let text = page.text();
    let after = text.split("name=\"ticket\" value=\"").nth(1).expect("a ticket");
    after.split('"').next().expect("its end").to_owned()
}

fn form_action(page: &str) -> String {
    let after = page.split("action=\"").nth(1).expect("a form");
    after.split('"').next().expect("its end").to_owned()
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

// ---- Authorize refuses

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

// ---- Codes

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

// ---- Client authentication

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

// ---- Refresh

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
        let assertion = bench.assertion(&url);
        let form = [
            ("token", token),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.as_str()),
        ];
        let answer = bench.post(&url, &form).await;
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

// ---- Scopes

#[tokio::test]
async fn scopes_are_trimmed_to_what_is_registered_in_the_registered_syntax() {
    for (version, expected) in [
        (SmartVersion::V1, "openid patient/Patient.read"),
        (SmartVersion::V2, "openid patient/Patient.rs patient/Observation.s"),
    ] {
        let mut client = registered();
        client.smart_version = version;
        client.scopes.retain(|scope| scope != "patient/Goal.read");
        let bench = Bench::with(Personality::CernerPatient, client);
        bench.approve_as(0).await;
        let asked = "openid patient/Patient.read patient/Patient.rs patient/Observation.s patient/Goal.read \
                     patient/Goal.rs patient/*.read made/up";
        let code = bench.authorize(&[("scope", asked)]).await.sent_back("code").expect("a code");
        let tokens = bench.exchange(&code, &[]).await.json();
        assert_eq!(tokens["scope"], expected);
        assert!(tokens.get("refresh_token").is_none(), "offline_access was not asked");
    }
}

#[tokio::test]
async fn offline_access_vanishes_for_a_client_registered_as_online() {
    let mut client = registered();
    client.offline = false;
    let bench = Bench::with(Personality::CernerPatient, client);
    let tokens = bench.connect().await;
    assert!(!text(&tokens, "scope").contains("offline_access"));
    assert!(tokens.get("refresh_token").is_none());
}

#[tokio::test]
async fn what_the_patient_unticks_is_not_granted() {
    let bench = Bench::new();
    let choice = json!({"username": bench.user(0).username, "deny_scopes": ["Observation"]});
    bench.control("auto-approve", choice).await;
    let code = bench.authorize(&[]).await.sent_back("code").expect("a code");
    let tokens = bench.exchange(&code, &[]).await.json();
    assert!(!text(&tokens, "scope").contains("Observation"));
    assert!(text(&tokens, "scope").contains("CarePlan"));
}

// ---- FHIR

#[tokio::test]
async fn a_token_opens_one_record_only() {
    let bench = Bench::new();
    let tokens = bench.connect().await;
    let other = bench.user(1).patient;
    for path in [format!("Patient/{other}"), format!("Observation?patient={other}")] {
        let answer = bench.fhir(&tokens, &path).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(answer.json()["issue"][0]["code"], "forbidden");
    }
}

#[tokio::test]
async fn a_caregiver_reads_another_record_and_stays_who_she_is() {
    let bench = Bench::new();
    let (own, other) = (bench.user(0), bench.user(1));
    let choice = json!({"username": own.username, "patient": other.patient});
    bench.control("auto-approve", choice).await;
    let code = bench.authorize(&[]).await.sent_back("code").expect("a code");
    let tokens = bench.exchange(&code, &[]).await.json();
    assert_eq!(tokens["patient"], other.patient);
    assert!(text(&bench.id_claims(&tokens).await, "fhirUser").ends_with(&own.patient));
    let read = bench.fhir(&tokens, &format!("Patient/{}", other.patient)).await;
    assert_eq!(read.status, StatusCode::OK);
}

#[tokio::test]
async fn fhir_refuses_without_a_good_token_scope_or_format() {
    let bench = Bench::new();
    let tokens = bench.connect().await;
    let url = format!("{}/Patient/{}", bench.hospital.fhir_base_url(), text(&tokens, "patient"));
    let without = bench.get(&url).await;
    assert_eq!(without.status, StatusCode::UNAUTHORIZED);
    assert!(without.header("www-authenticate").starts_with("Bearer realm=\"localhost:3001\""));
    assert!(text(&without.json(), "message").contains("token-required"), "the gateway's own shape");
    let unknown = bench.fhir(&json!({"access_token": "made-up"}), &url).await;
    assert!(unknown.header("www-authenticate").contains("error=\"invalid_token\""));
    let xml = bench.fhir_as(&tokens, &url, "application/fhir+xml").await;
    assert_eq!((xml.status, xml.body.len()), (StatusCode::NOT_ACCEPTABLE, 0));
    let forbidden = bench.fhir(&tokens, &format!("Goal?patient={}", text(&tokens, "patient"))).await;
    assert_eq!(forbidden.status, StatusCode::FORBIDDEN);
    assert!(forbidden.header("www-authenticate").contains("insufficient_scope"));
    for path in ["Patient/none", "Nonsense?patient=1"] {
        assert_eq!(bench.fhir(&tokens, path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    bench.clock.advance(Duration::from_secs(599));
    assert_eq!(bench.fhir(&tokens, &url).await.status, StatusCode::OK);
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.fhir(&tokens, &url).await.status, StatusCode::UNAUTHORIZED, "570 s and 30 s in hand");
}

#[tokio::test]
async fn searches_need_their_parameters_and_refuse_unknown_ones() {
    let bench = Bench::new();
    let tokens = bench.connect_to_much().await;
    let patient = text(&tokens, "patient");
    for (path, status) in [
        (format!("CarePlan?patient={patient}"), 400),
        (format!("CarePlan?patient={patient}&category=assess-plan"), 200),
        ("Observation?category=laboratory".to_owned(), 400),
        (format!("Observation?patient={patient}&colour=red"), 400),
        (format!("Observation?patient={patient}&category=laboratory"), 200),
    ] {
        let answer = bench.fhir(&tokens, &path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
        if status == 400 {
            assert_eq!(answer.json()["issue"][0]["code"], "invalid");
            assert!(answer.json()["issue"][0]["details"]["text"].is_string());
        } else {
            assert_eq!(answer.json()["type"], "searchset");
            assert_eq!(answer.json()["entry"][0]["search"]["mode"], "match");
        }
    }
    let none = bench.fhir(&tokens, &format!("Observation?patient={patient}&category=nothing")).await.json();
    assert_eq!(none["total"], 0);
    assert!(none.get("entry").is_none());
}

#[tokio::test]
async fn pages_follow_each_other_and_links_must_come_back_byte_for_byte() {
    let bench = Bench::new();
    let tokens = bench.connect_to_much().await;
    let first = format!("Observation?patient={}&category=laboratory&_count=4", text(&tokens, "patient"));
    let all = bench.fhir(&tokens, &first.replace("_count=4", "_count=200")).await.json();
    let mut seen = Vec::new();
    let mut url = first;
    let mut pages = 0;
    loop {
        let page = bench.fhir(&tokens, &url).await.json();
        assert!(ids(&page).len() <= 4);
        assert!(page.get("total").is_none(), "no total when paged");
        seen.extend(ids(&page));
        pages += 1;
        match next_link(&page) {
            Some(next) if seen.len() < ids(&all).len() => url = next,
            _ => break,
        }
    }
    assert!(pages > 1, "enough laboratory results to need pages");
    assert_eq!(seen, ids(&all)[..seen.len()]);
    assert!(url.contains("%3D%3D&-pageDirection=NEXT"), "{url}");
    for spoilt in [
        url.replace("%3D", "="),
        url.replace("%3D", "%3d"),
        url.replace("category=laboratory", "category=vital-signs"),
        url.replace("_count=4", "_count=5"),
    ] {
        assert_eq!(bench.fhir(&tokens, &spoilt).await.status, StatusCode::BAD_REQUEST, "{spoilt}");
    }
    assert_eq!(bench.fhir(&tokens, &url).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_attachment_comes_raw_or_as_a_binary_and_in_no_other_format() {
    let bench = Bench::new();
    let tokens = bench.connect().await;
    let search = format!("DocumentReference?patient={}&_count=100", text(&tokens, "patient"));
    let found = bench.fhir(&tokens, &search).await.json();
    let attachment = &found["entry"][0]["resource"]["content"][0]["attachment"];
    let url = text(attachment, "url");
    assert!(url.starts_with(&format!("{}/Binary/", bench.hospital.fhir_base_url())), "{url}");
    let kind = text(attachment, "contentType");
    let raw = bench.fhir_as(&tokens, url, kind).await;
    assert_eq!((raw.status, raw.header(header::CONTENT_TYPE.as_str())), (StatusCode::OK, kind));
    let wrapped = bench.fhir_as(&tokens, url, "application/fhir+json").await.json();
    assert_eq!(wrapped["resourceType"], "Binary");
    assert_eq!(wrapped["data"], base64(&raw.body));
    let neither = bench.fhir_as(&tokens, url, "image/x-unheard-of").await;
    assert_eq!((neither.status, neither.body.len()), (StatusCode::NOT_ACCEPTABLE, 0));
}

// ---- Faults

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

// ---- Personalities, control

#[tokio::test]
async fn personalities_differ_where_real_servers_do() {
    let bench = Bench::with(Personality::Epic, registered());
    let tokens = bench.connect().await;
    assert_eq!(tokens["expires_in"], 3600);
    assert!(!text(&tokens, "scope").contains("offline_access"), "Epic does not echo it");
    assert!(tokens["refresh_token"].is_string(), "and gives a refresh token all the same");
    assert!(text(&tokens, "scope").contains("patient/Patient.r patient/Patient.s"));
    assert_eq!(bench.id_claims(&tokens).await["iss"], bench.discovery().await["issuer"]);

    let bench = Bench::with(Personality::SmartHealthIt, registered());
    let tokens = bench.connect().await;
    let fhir_user = bench.id_claims(&tokens).await["fhirUser"].clone();
    assert_eq!(fhir_user, format!("Patient/{}", text(&tokens, "patient")));
    let refused = bench.refresh("unknown").await.json();
    assert!(refused["error_description"].is_string() && refused.get("error_uri").is_none());
}

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
