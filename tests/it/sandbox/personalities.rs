//! Personalities behave as the vendors' servers were seen to, and say of themselves what those say.

use std::collections::BTreeSet;

use chartgate::crypto::base64;
use chartgate::sandbox::{Personality, RegisteredClient};
use chartgate::secret::Secret;
use serde_json::{Value, json};

use super::support::{Answer, Bench, CLIENT, encoded, exchange_form, registered, text};
use crate::support::test_data;

/// Without letters that a form would encode.
const SECRET: &str = "synthetic-secret";

/// What one vendor's answers look like.
struct Habits {
    personality: Personality,
    expires_in: Value,
    names_patient: bool,
    /// Part of the granted scopes, when these were asked for.
    scope: &'static str,
    issuer: &'static str,
    fhir_user: &'static str,
    member: Option<&'static str>,
    dead_refresh_token: (u16, &'static str),
    used_code: (u16, &'static str),
    explains: &'static str,
    refused_token: &'static str,
}

fn habits() -> Vec<Habits> {
    use Personality as P;
    let usual = |personality| Habits {
        personality,
        expires_in: json!(3600),
        names_patient: true,
        scope: "openid fhirUser offline_access patient/Patient.read",
        issuer: "http://localhost:3001/tenants/",
        fhir_user: "http://localhost:3001/r4/",
        member: None,
        dead_refresh_token: (400, "invalid_grant"),
        used_code: (400, "invalid_grant"),
        explains: "error_description",
        refused_token: "OperationOutcome",
    };
    let cerner = |personality| Habits {
        expires_in: json!(570),
        member: Some("tenant"),
        explains: "error_uri",
        ..usual(personality)
    };
    vec![
        cerner(P::CernerPatient),
        cerner(P::CernerProvider),
        Habits {
            scope: "patient/Patient.r patient/Patient.s",
            member: Some("__epic.dstu2.patient"),
            refused_token: "\"\"",
            ..usual(P::Epic)
        },
        Habits { issuer: "https://athena.okta.com/", ..usual(P::Athenahealth) },
        Habits {
            issuer: "https://oauthserver.eclinicalworks.com/",
            names_patient: false,
            ..usual(P::Eclinicalworks)
        },
        Habits {
            issuer: "http://localhost:3001/",
            refused_token: "\"detail\":\"Unauthorized\"",
            ..usual(P::Meditech)
        },
        usual(P::Nextgen),
        Habits {
            issuer: "https://identity.allscripts.com/",
            names_patient: false,
            fhir_user: "",
            ..usual(P::Veradigm)
        },
        Habits { issuer: "https://deptva-eval.okta.com/", fhir_user: "", ..usual(P::Va) },
        Habits {
            expires_in: json!(16768.52),
            names_patient: false,
            scope: "openid patient/Patient.read",
            fhir_user: "",
            member: Some("access_grant_expiration"),
            ..usual(P::Bluebutton)
        },
        Habits {
            fhir_user: "Patient/",
            dead_refresh_token: (403, "invalid_grant"),
            used_code: (401, "invalid_client"),
            refused_token: "Unauthorized",
            ..usual(P::SmartHealthIt)
        },
        usual(P::Generic),
    ]
}

async fn by_secret(bench: &Bench, form: &[(&str, &str)]) -> Answer {
    let basic = format!("Basic {}", base64(format!("{CLIENT}:{SECRET}").as_bytes()));
    let headers = [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    bench.send("POST", &bench.token_url().await, &headers, encoded(form)).await
}

async fn code(bench: &Bench, personality: Personality) -> String {
    bench.approve_as(0).await;
    let without: &[(&str, &str)] = if personality == Personality::Meditech { &[("aud", "")] } else { &[] };
    let answer = bench.authorize(without).await;
    answer
        .sent_back("code")
        .unwrap_or_else(|| panic!("{}: {}", personality.name(), answer.header("location")))
}

#[tokio::test]
async fn each_personality_answers_as_its_vendor_does() {
    for wanted in habits() {
        let name = wanted.personality.name();
        let client = RegisteredClient { secret: Some(Secret::new(SECRET)), ..registered() };
        let bench = Bench::with(wanted.personality, client);
        let used = code(&bench, wanted.personality).await;
        let answer = by_secret(&bench, &exchange_form(&used, &[])).await;
        assert_eq!(answer.status.as_u16(), 200, "{name}: {}", answer.text());
        let tokens = answer.json();
        assert_eq!(tokens["expires_in"], wanted.expires_in, "{name}");
        assert_eq!(tokens.get("patient").is_some(), wanted.names_patient, "{name}");
        assert!(text(&tokens, "scope").contains(wanted.scope), "{name}: {tokens}");
        assert!(tokens["refresh_token"].is_string(), "{name}");
        if let Some(member) = wanted.member {
            assert!(tokens.get(member).is_some(), "{name}: {tokens}");
        }
        let claims = bench.id_claims(&tokens).await;
        assert!(text(&claims, "iss").starts_with(wanted.issuer), "{name}: {claims}");
        let fhir_user = claims["fhirUser"].as_str().unwrap_or_default();
        assert!(fhir_user.starts_with(wanted.fhir_user), "{name}: {claims}");
        assert_eq!(fhir_user.is_empty(), wanted.fhir_user.is_empty(), "{name}");

        let unknown = [("grant_type", "refresh_token"), ("refresh_token", "unknown")];
        for (refused, (status, error)) in [
            (by_secret(&bench, &unknown).await, wanted.dead_refresh_token),
            (by_secret(&bench, &exchange_form(&used, &[])).await, wanted.used_code),
        ] {
            assert_eq!((refused.status.as_u16(), text(&refused.json(), "error")), (status, error), "{name}");
            assert!(refused.json().get(wanted.explains).is_some(), "{name}: {}", refused.text());
        }
        let refused = bench.fhir(&json!({"access_token": "bad"}), "Patient/1").await;
        assert_eq!(refused.status.as_u16(), 401, "{name}");
        assert!(refused.text().contains(wanted.refused_token), "{name}: {}", refused.text());
    }
    assert_eq!(habits().len(), Personality::ALL.len());
}

#[tokio::test]
async fn documents_are_where_the_vendor_has_them() {
    for (personality, at_base, openid_at_base, openid_at_origin, statement) in [
        (Personality::Generic, true, false, false, true),
        (Personality::Epic, true, true, false, true),
        (Personality::Bluebutton, false, false, true, false),
    ] {
        let bench = Bench::with(personality, registered());
        let base = bench.hospital.fhir_base_url();
        let there = async |url: &str| bench.get(url).await.status.as_u16() == 200;
        let name = personality.name();
        assert_eq!(there(&format!("{base}/.well-known/smart-configuration")).await, at_base, "{name}");
        assert_eq!(
            there(&format!("{base}/.well-known/openid-configuration")).await,
            openid_at_base,
            "{name}"
        );
        assert_eq!(there("/.well-known/openid-configuration").await, openid_at_origin, "{name}");
        let metadata = bench.get(&format!("{base}/metadata")).await.json();
        assert_eq!(metadata["rest"][0]["security"].get("extension").is_some(), statement, "{name}");
    }
}

#[tokio::test]
async fn a_hospital_says_of_itself_what_its_vendors_servers_say() {
    let Some(folder) = test_data() else { return };
    for (personality, path) in [
        (Personality::CernerPatient, "cerner/smart-configuration-patient-host.json"),
        (Personality::CernerProvider, "cerner/smart-configuration-provider-host.json"),
        (Personality::Epic, "smart/epic-sandbox-smart-configuration.json"),
        (Personality::Athenahealth, "smart/athenahealth-smart-configuration.json"),
        (Personality::Eclinicalworks, "smart/eclinicalworks-smart-configuration-trimmed.json"),
        (Personality::Meditech, "smart/meditech-smart-configuration-greenfield-STU6-2026-04-27.json"),
        (Personality::Nextgen, "smart/nextgen-enterprise-smart-configuration.json"),
    ] {
        let captured = std::fs::read(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let captured: Value = serde_json::from_slice(&captured).expect("json");
        let captured = captured.get("body").unwrap_or(&captured);
        let ours = Bench::with(personality, registered()).discovery().await;
        for field in [
            "issuer",
            "jwks_uri",
            "token_endpoint_auth_methods_supported",
            "token_endpoint_auth_signing_alg_values_supported",
            "scopes_supported",
            "code_challenge_methods_supported",
            "revocation_endpoint",
            "introspection_endpoint",
            "management_endpoint",
        ] {
            assert_eq!(ours.get(field).is_some(), captured.get(field).is_some(), "{path}: {field}");
        }
        let set = |document: &Value, field: &str| -> BTreeSet<String> {
            let values = document[field].as_array().cloned().unwrap_or_default();
            values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let same = |field: &str, without: &[&str]| {
            let mut theirs = set(captured, field);
            theirs.retain(|value| !without.contains(&value.as_str()));
            assert_eq!(set(&ours, field), theirs, "{path}: {field}");
        };
        // A method that SMART does not have and that we would never use.
        same("token_endpoint_auth_methods_supported", &["client_secret_jwt"]);
        same("token_endpoint_auth_signing_alg_values_supported", &[]);
        same("code_challenge_methods_supported", &[]);
        let has = |document: &Value, field: &str, value: &str| set(document, field).contains(value);
        for (field, value) in [
            ("grant_types_supported", "refresh_token"),
            ("capabilities", "context-standalone-patient"),
            ("scopes_supported", "launch/patient"),
            ("scopes_supported", "patient/*.*"),
        ] {
            if personality != Personality::Eclinicalworks || value != "patient/*.*" {
                assert_eq!(has(&ours, field, value), has(captured, field, value), "{path}: {field} {value}");
            }
        }
        // Each type by name, or none.
        let by_name = |document: &Value| {
            set(document, "scopes_supported").iter().any(|s| s.starts_with("patient/Observation."))
        };
        assert_eq!(by_name(&ours), by_name(captured), "{path}");
    }
}
