//! The steps a launch and a request are made of, by criterion.

use std::hint::black_box;
use std::time::Duration;

use chartgate::clock::Timestamp;
use chartgate::crypto::{Algorithm, Jwk, Jws, KeyPair, KeyType, Random, SealingKey, sign_jws};
use chartgate::smart::FhirBaseUrl;
use chartgate::smart::id_token::{DEFAULT_SKEW, ExpectedIssuer, IdTokenExpectations, validate};
use chartgate::smart::scopes::ScopeSet;
use criterion::Criterion;
use serde_json::json;

const NOW: i64 = 1_793_607_165;

pub fn measure() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots();
    let rsa = key(KeyType::Rsa2048);
    let ec = key(KeyType::EcP384);
    criterion.bench_function("sign RS384-2048", |it| {
        it.iter(|| rsa.sign(Algorithm::Rs384, black_box(b"header.claims")));
    });
    criterion.bench_function("sign ES384", |it| {
        it.iter(|| ec.sign(Algorithm::Es384, black_box(b"header.claims")));
    });
    let random = Random::system();
    let sealing = SealingKey::new(&random.bytes());
    let plain = random.bytes::<2048>();
    let sealed = sealing.seal(b"place", &plain, &random);
    criterion.bench_function("seal 2 KiB", |it| {
        it.iter(|| sealing.seal(b"place", black_box(&plain), &random));
    });
    criterion.bench_function("open 2 KiB", |it| it.iter(|| sealing.open(b"place", black_box(&sealed))));
    id_token(&mut criterion, &rsa);
    let scopes = "launch/patient openid fhirUser offline_access patient/Patient.read patient/Observation.read \
                  patient/Condition.rs patient/Encounter.rs?status=finished user/*.read";
    criterion.bench_function("parse scopes", |it| it.iter(|| ScopeSet::parse(black_box(scopes))));
}

fn id_token(criterion: &mut Criterion, rsa: &KeyPair) {
    let claims = json!({
        "iss": "https://h.example", "sub": "nancy", "aud": "client-1", "iat": NOW - 5, "exp": NOW + 300,
        "fhirUser": "https://h.example/r4/t1/Patient/12724066",
    });
    let compact = sign_jws(rsa, Algorithm::Rs384, &claims).expect("signed");
    let (issuer, public): (_, Jwk) = (ExpectedIssuer::AnyHttps, rsa.public_jwk());
    let base = FhirBaseUrl::parse("https://h.example/r4/t1").expect("a base");
    let expected = IdTokenExpectations {
        client_id: "client-1",
        issuer: &issuer,
        nonce: None,
        nonce_required: false,
        fhir_base: &base,
        now: Timestamp::from_seconds(NOW),
        skew: DEFAULT_SKEW,
    };
    criterion.bench_function("check an id token", |it| {
        it.iter(|| {
            let jws = Jws::parse(black_box(&compact)).expect("a JWS");
            validate(&jws, &public, &expected).expect("believed")
        });
    });
}

fn key(kind: KeyType) -> KeyPair {
    KeyPair::from_pkcs8(&KeyPair::generate(kind, &Random::system()).expect("a key")).expect("usable")
}
