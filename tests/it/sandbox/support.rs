//! A hospital without a socket, and a client of it that says exactly what it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chartgate::clock::{Clock, Timestamp};
use chartgate::crypto::{Algorithm, Jwks, Jws, KeyPair, KeyType, Random, base64url, sha256, sign_jws};
use chartgate::sandbox::population::Population;
use chartgate::sandbox::{FetchedJwks, Personality, RegisteredClient, Sandbox, SandboxOptions, SandboxUser};
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

pub const ORIGIN: &str = "http://localhost:3001";
pub const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
pub const REDIRECT_URI: &str = "https://app.example/callback";
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub const SCOPE: &str = "openid fhirUser offline_access patient/Patient.read patient/Observation.read \
                     patient/CarePlan.read patient/DocumentReference.read patient/Binary.read";

/// The client's key set as its JWKS URL answers it now.
pub type Served = Arc<Mutex<(Value, Option<Duration>)>>;

pub struct Bench {
    pub hospital: Arc<Sandbox>,
    pub clock: Clock,
    pub key: KeyPair,
    pub served: Served,
    pub random: Random,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("JSON, not {:?}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A parameter of the redirect.
    pub fn sent_back(&self, name: &str) -> Option<String> {
        let url = Url::parse(self.header("location")).ok()?;
        url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
    }
}

pub fn client_key(kind: KeyType, seed: u64) -> KeyPair {
    KeyPair::from_pkcs8(&KeyPair::generate(kind, &Random::seeded(seed)).expect("a key")).expect("usable")
}

pub fn key_set(keys: &[&KeyPair]) -> Value {
    json!({"keys": keys.iter().map(|key| key.public_jwk()).collect::<Vec<_>>()})
}

pub fn registered() -> RegisteredClient {
    let mut client = RegisteredClient::new(CLIENT, REDIRECT_URI);
    client.jwks_uri = Url::parse("https://app.example/jwks").ok();
    client
}

impl Bench {
    pub fn new() -> Self {
        Self::with(Personality::CernerPatient, registered())
    }

    pub fn with(personality: Personality, client: RegisteredClient) -> Self {
        Self::built(personality, client, client_key(KeyType::EcP384, 1))
    }

    pub fn built(personality: Personality, client: RegisteredClient, key: KeyPair) -> Self {
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

    pub fn user(&self, number: usize) -> SandboxUser {
        self.hospital.users().into_iter().nth(number).expect("enough people")
    }

    pub async fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: String) -> Answer {
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

    pub async fn get(&self, url: &str) -> Answer {
        self.send("GET", url, &[], String::new()).await
    }

    pub async fn post(&self, url: &str, form: &[(&str, &str)]) -> Answer {
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", url, &kind, encoded(form)).await
    }

    pub async fn control(&self, path: &str, body: Value) -> Value {
        let url = format!("{}/{path}", self.hospital.control_url());
        let answer = self.send("POST", &url, &[], body.to_string()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()
    }

    pub async fn fault(&self, faults: Value) {
        self.control("faults", faults).await;
    }

    pub async fn discovery(&self) -> Value {
        let url = format!("{}/.well-known/smart-configuration", self.hospital.fhir_base_url());
        let answer = self.get(&url).await;
        if answer.status == StatusCode::NOT_FOUND {
            return self.get("/.well-known/openid-configuration").await.json();
        }
        answer.json()
    }

    pub async fn token_url(&self) -> String {
        self.discovery().await["token_endpoint"].as_str().expect("a token endpoint").to_owned()
    }

    pub async fn approve_as(&self, number: usize) {
        self.control("auto-approve", json!({"username": self.user(number).username})).await;
    }

    /// The authorization request with some parameters changed; an empty value leaves one out.
    pub async fn authorize(&self, changes: &[(&str, &str)]) -> Answer {
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

    pub async fn code(&self) -> String {
        self.approve_as(0).await;
        let answer = self.authorize(&[]).await;
        answer.sent_back("code").unwrap_or_else(|| panic!("a code: {}", answer.header("location")))
    }

    pub fn claims(&self, audience: &str) -> Value {
        json!({"iss": CLIENT, "sub": CLIENT, "aud": audience, "jti": self.random.uuid(),
            "exp": self.clock.now().seconds() + 300})
    }

    pub fn assertion(&self, audience: &str) -> String {
        sign_jws(&self.key, self.key.algorithm(), &self.claims(audience)).expect("signed")
    }

    pub async fn token(&self, form: &[(&str, &str)]) -> Answer {
        let url = self.token_url().await;
        let assertion = self.assertion(&url);
        self.token_with(&assertion, form).await
    }

    pub async fn token_with(&self, assertion: &str, form: &[(&str, &str)]) -> Answer {
        let mut whole = form.to_vec();
        whole.push(("client_id", CLIENT));
        whole.push(("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"));
        whole.push(("client_assertion", assertion));
        self.post(&self.token_url().await, &whole).await
    }

    pub async fn exchange(&self, code: &str, changes: &[(&str, &str)]) -> Answer {
        self.token(&exchange_form(code, changes)).await
    }

    /// A connection to the record with a care plan and the most laboratory results.
    pub async fn connect_to_much(&self) -> Value {
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

    pub async fn connect(&self) -> Value {
        let code = self.code().await;
        let answer = self.exchange(&code, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()
    }

    pub async fn refresh(&self, token: &str) -> Answer {
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    /// Asks the revocation endpoint to end a refresh token's grant.
    pub async fn revoke(&self, url: &str, token: &str) -> Answer {
        let assertion = self.assertion(url);
        let form = [
            ("token", token),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.as_str()),
        ];
        self.post(url, &form).await
    }

    /// What the control address tells about the grants.
    pub async fn grants(&self, query: &str) -> Vec<Value> {
        let told = self.get(&format!("{}/grants{query}", self.hospital.control_url())).await.json();
        told.as_array().expect("a list").clone()
    }

    pub async fn fhir(&self, tokens: &Value, path: &str) -> Answer {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}/{path}", self.hospital.fhir_base_url())
        };
        self.fhir_as(tokens, &url, "application/fhir+json").await
    }

    pub async fn fhir_as(&self, tokens: &Value, url: &str, accept: &str) -> Answer {
        let bearer = format!("Bearer {}", text(tokens, "access_token"));
        self.send("GET", url, &[("authorization", &bearer), ("accept", accept)], String::new()).await
    }

    pub async fn log(&self) -> Vec<Value> {
        let answer = self.get(&format!("{}/log", self.hospital.control_url())).await.json();
        answer.as_array().expect("a list").clone()
    }

    /// The reason of the newest log line of a kind.
    pub async fn last_reason(&self, kind: &str) -> String {
        let log = self.log().await;
        let line = log.iter().rev().find(|line| line["kind"] == kind).expect("a line");
        line["reason"].as_str().expect("a reason").to_owned()
    }

    pub async fn fetches(&self) -> usize {
        self.log().await.iter().filter(|line| line["kind"] == "jwks-fetch").count()
    }

    /// The claims of the id token, verified with the hospital's published keys.
    pub async fn id_claims(&self, tokens: &Value) -> Value {
        let jws = Jws::parse(text(tokens, "id_token")).expect("a JWS");
        assert_eq!(jws.algorithm, Algorithm::Rs256);
        let keys = Jwks::parse(&self.get("/jwk").await.body).expect("a JWKS");
        let kid = jws.kid.clone().expect("a kid");
        let key = keys.by_kid(&kid).next().expect("a published key");
        jws.verify(key).expect("a good signature")
    }
}

pub fn exchange_form<'f>(code: &'f str, changes: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
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

pub fn encoded(form: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

pub fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {value}"))
}

pub fn next_link(bundle: &Value) -> Option<String> {
    let links = bundle["link"].as_array().expect("links");
    links.iter().find(|link| link["relation"] == "next").map(|link| text(link, "url").to_owned())
}

pub fn ids(bundle: &Value) -> Vec<String> {
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| text(&entry["resource"], "id").to_owned()).collect()
}

#[track_caller]
pub fn assert_refused(answer: &Answer, error: &str, urn: &str) {
    assert_eq!(answer.json()["error"], error, "{}", answer.text());
    let uri = percent_encoding::percent_decode_str(answer.json()["error_uri"].as_str().unwrap_or_default())
        .decode_utf8_lossy()
        .into_owned();
    assert!(uri.contains(&format!("authorization-server:{urn}/instances/")), "{uri} is not about {urn}");
    assert!(uri.contains(answer.header("cerner-correlation-id")));
    assert!(answer.json().get("error_description").is_none(), "Oracle Health has no error_description");
}

pub fn ticket(page: &Answer) -> String {
    let text = page.text();
    let after = text.split("name=\"ticket\" value=\"").nth(1).expect("a ticket");
    after.split('"').next().expect("its end").to_owned()
}

pub fn form_action(page: &str) -> String {
    let after = page.split("action=\"").nth(1).expect("a form");
    after.split('"').next().expect("its end").to_owned()
}
