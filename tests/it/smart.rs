//! The protocol against documents captured from real servers. They are not in this repository: `CHARTGATE_TEST_DATA`
//! names their folder (`cerner/`, `smart/`); without it these tests say so and pass.

use chartgate::config::{AuthMethod, SmartVersion};
use chartgate::crypto::{Algorithm, Jwks};
use chartgate::smart::discovery::{DiscoveredFrom, SmartConfiguration};
use chartgate::smart::ehr_error::{EhrError, FailureCode, Stage, WhoActs, explain};
use chartgate::smart::patient::EhrPatientId;
use chartgate::smart::scopes::{LaunchMode, RESOURCE_TYPES, Scope, ScopeSet, choose, compare};
use chartgate::smart::token_response::{ErrorBody, OAuthError, parse_error_body, parse_token_response};
use chartgate::smart::url::FhirBaseUrl;
use chartgate::smart::vendors::{VendorProfile, cerner_base_url, guess_vendor};
use serde_json::Value;

use crate::support::test_data;

const TENANT: &str = "ec2458f2-1e24-41c8-b71b-0e701af7583d";

/// A captured document; the wrapper that some captures have is taken off.
fn capture(path: &str) -> Option<Vec<u8>> {
    let folder = test_data()?;
    let bytes = std::fs::read(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let wrapped =
        serde_json::from_slice::<Value>(&bytes).ok().filter(|value| value.get("_request").is_some());
    Some(
        wrapped
            .and_then(|value| value.get("body").map(|body| body.to_string().into_bytes()))
            .unwrap_or(bytes),
    )
}

fn base(text: &str) -> FhirBaseUrl {
    FhirBaseUrl::parse(text).expect("a base")
}

fn profile(name: &str) -> &'static VendorProfile {
    VendorProfile::named(name).expect("a profile")
}

fn cerner() -> Option<SmartConfiguration> {
    let body = capture("cerner/smart-configuration-patient-host.json")?;
    let base = cerner_base_url(TENANT).expect("a tenant");
    Some(SmartConfiguration::parse(&body, &base).expect("usable"))
}

fn chosen(found: &SmartConfiguration, version: SmartVersion, vendor: &str) -> ScopeSet {
    let supported = found.scopes_supported.as_deref();
    choose(&RESOURCE_TYPES, version, supported, LaunchMode::Standalone, profile(vendor))
}

#[test]
fn the_patient_host_of_oracle_health_is_read_whole() {
    let Some(found) = cerner() else { return };
    assert_eq!(found.warnings, Vec::<String>::new());
    assert_eq!(found.pkce, Some(true));
    for algorithm in [Algorithm::Rs384, Algorithm::Es384] {
        assert_eq!(found.accepts_assertion_algorithm(algorithm), Some(true));
    }
    assert_eq!(found.accepts_auth(AuthMethod::PrivateKeyJwt), Some(true));
    assert_eq!(found.accepts_auth(AuthMethod::ClientSecretPost), Some(false));
    assert!(found.has_capability("context-standalone-patient") && !found.iss_parameter_supported);
    assert!(found.revocation_endpoint.is_some() && found.management_endpoint.is_some());
    assert!(
        found
            .token_endpoint
            .as_str()
            .ends_with("/hosts/fhir-myrecord.cerner.com/protocols/oauth2/profiles/smart-v1/token")
    );
}

#[test]
fn a_v1_registration_asks_oracle_health_for_every_type_and_its_attachments() {
    let Some(found) = cerner() else { return };
    let set = chosen(&found, SmartVersion::V1, "cerner");
    for scope in ["openid", "fhirUser", "offline_access"] {
        assert!(set.contains(scope), "{scope}");
    }
    for name in RESOURCE_TYPES.into_iter().chain(["Binary", "Provenance"]) {
        assert!(set.contains(&format!("patient/{name}.read")), "{name}");
    }
    assert_eq!(set.resources().count(), 19);
}

#[test]
fn a_v2_registration_asks_oracle_health_for_what_it_lists_letter_by_letter() {
    let Some(found) = cerner() else { return };
    let set = chosen(&found, SmartVersion::V2, "cerner");
    assert!(set.contains("patient/Observation.s") && set.contains("patient/Binary.r"));
    assert!(set.contains("patient/Patient.rs") && set.contains("patient/Provenance.rs"));
    assert_eq!(set.resources().count(), 19);
    let supported = found.scopes_supported.expect("a list");
    for scope in set.iter() {
        assert!(supported.iter().any(|known| known == scope.as_str()), "{} is not listed", scope.as_str());
    }
    assert!(compare(&set, Some(&set)).is_complete());
}

#[test]
fn every_vendors_document_is_usable() {
    for (path, at, vendor) in [
        (
            "cerner/smart-configuration-provider-host.json",
            "https://fhir-ehr-code.cerner.com/r4/x",
            "cerner-provider",
        ),
        (
            "smart/epic-sandbox-smart-configuration.json",
            "https://fhir.epic.com/interconnect-fhir-oauth/api/FHIR/R4",
            "epic",
        ),
        (
            "smart/epic-sandbox-openid-configuration.json",
            "https://fhir.epic.com/interconnect-fhir-oauth/api/FHIR/R4",
            "epic",
        ),
        (
            "smart/athenahealth-smart-configuration.json",
            "https://api.platform.athenahealth.com/fhir/r4",
            "athenahealth",
        ),
        (
            "smart/eclinicalworks-smart-configuration-trimmed.json",
            "https://fhir4.healow.com/fhir/r4/ABC",
            "eclinicalworks",
        ),
        (
            "smart/meditech-smart-configuration-greenfield-STU6-2026-04-27.json",
            "https://greenfield-prod-apis.meditech.com/v2/uscore/STU6",
            "meditech",
        ),
        (
            "smart/meditech-smart-configuration-atchhosp-2026-04-27.json",
            "https://mtrestapis-live01.atchhosp.org/v2/uscore/STU6",
            "meditech",
        ),
        (
            "smart/nextgen-enterprise-smart-configuration.json",
            "https://fhir.nextgen.com/nge/prod/fhir-api-r4/fhir/R4",
            "nextgen",
        ),
    ] {
        let Some(body) = capture(path) else { return };
        let base = base(at);
        assert_eq!(guess_vendor(&base), vendor, "{path}");
        let found = SmartConfiguration::parse(&body, &base).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_ne!(found.pkce, Some(false), "{path}");
        let set = chosen(&found, profile(vendor).smart_version, vendor);
        assert!(set.contains("openid") && set.resources().count() > 0, "{path}: {set}");
        // What is usual at the vendor is what its own document allows.
        assert_ne!(found.accepts_auth(profile(vendor).auth), Some(false), "{path}");
        let listed = profile(vendor).assertion_algorithms.iter();
        for algorithm in listed {
            assert_ne!(found.accepts_assertion_algorithm(*algorithm), Some(false), "{path}: {algorithm:?}");
        }
        if profile(vendor).wildcard {
            assert!(set.contains("patient/*.read"), "{path}: {set}");
            continue;
        }
        let asked = profile(vendor).smart_version;
        for name in RESOURCE_TYPES {
            let letters = if asked == SmartVersion::V1 { "read" } else { "rs" };
            assert!(set.contains(&format!("patient/{name}.{letters}")), "{path}: {name}: {set}");
        }
        let listed = found.scopes_supported.as_deref().unwrap_or_default();
        let has_wildcard = listed.iter().any(|scope| scope.starts_with("patient/*"));
        if listed.iter().any(|scope| scope.starts_with("patient/")) && !has_wildcard {
            for scope in set.iter().filter(|scope| scope.resource().is_some()) {
                assert!(listed.iter().any(|known| known == scope.as_str()), "{path}: {}", scope.as_str());
            }
        }
        let cached = serde_json::to_vec(&found).expect("json");
        assert_eq!(serde_json::from_slice::<SmartConfiguration>(&cached).expect("readable"), found);
        for scope in found.scopes_supported.iter().flatten() {
            assert!(Scope::parse(scope).is_ok(), "{path}: {scope}");
        }
    }
}

#[test]
fn the_oddities_of_each_vendor_are_seen() {
    let read = |path: &str, at: &str| {
        capture(path).map(|body| SmartConfiguration::parse(&body, &base(at)).expect("usable"))
    };
    let Some(ecw) =
        read("smart/eclinicalworks-smart-configuration-trimmed.json", "https://fhir4.healow.com/fhir/r4/A")
    else {
        return;
    };
    assert!(
        ecw.issuer.is_none() && ecw.warnings.iter().any(|text| text.contains("issuer")),
        "{:?}",
        ecw.warnings
    );
    let set = chosen(&ecw, SmartVersion::V2, "eclinicalworks");
    assert!(set.contains("patient/Coverage.r") && set.contains("patient/Observation.rs"), "{set}");

    let epic = read("smart/epic-sandbox-smart-configuration.json", "https://fhir.epic.com/x/api/FHIR/R4")
        .expect("set");
    assert!(epic.revocation_endpoint.is_none());
    assert_eq!(chosen(&epic, SmartVersion::V2, "epic").resources().count(), 19);

    let nextgen = read("smart/nextgen-enterprise-smart-configuration.json", "https://fhir.nextgen.com/nge/x")
        .expect("set");
    assert_eq!(nextgen.accepts_auth(AuthMethod::ClientSecretBasic), None);
    assert!(chosen(&nextgen, SmartVersion::V1, "nextgen").contains("patient/*.read"));

    let meditech = read(
        "smart/meditech-smart-configuration-greenfield-STU6-2026-04-27.json",
        "https://greenfield-prod-apis.meditech.com/v2/uscore/STU6",
    )
    .expect("set");
    assert_eq!(meditech.issuer.as_deref(), Some("https://greenfield-prod-apis.meditech.com/"));
    assert!(meditech.registration_endpoint.is_some());
}

#[test]
fn capability_statements_name_the_same_endpoints() {
    let at = base(&format!("https://fhir-ehr-code.cerner.com/r4/{TENANT}"));
    let (Some(statement), Some(document)) = (
        capture("cerner/capabilitystatement-r4-secure.json"),
        capture("cerner/smart-configuration-provider-host.json"),
    ) else {
        return;
    };
    let fallback = SmartConfiguration::parse_capability_statement(&statement, &at).expect("usable");
    let direct = SmartConfiguration::parse(&document, &at).expect("usable");
    assert_eq!(fallback.from, DiscoveredFrom::CapabilityStatement);
    assert_eq!(fallback.token_endpoint, direct.token_endpoint);
    assert_eq!(fallback.authorization_endpoint, direct.authorization_endpoint);
    assert_eq!(fallback.revocation_endpoint, direct.revocation_endpoint);

    let epic = capture("smart/epic-sandbox-capabilitystatement-r4.json").expect("set");
    let at = base("https://fhir.epic.com/interconnect-fhir-oauth/api/FHIR/R4");
    assert!(SmartConfiguration::parse_capability_statement(&epic, &at).is_ok());
}

#[test]
fn a_real_token_response_and_a_real_refusal_are_read() {
    let Some(success) = capture("cerner/token-response-provider-ehr-launch.json") else { return };
    let found = parse_token_response(&success).expect("a success");
    assert_eq!(found.expires_in.as_secs(), 570);
    assert_eq!(found.patient.as_ref().map(EhrPatientId::as_str), Some("12724070"));
    assert!(found.refresh_token.is_none() && found.ignored.is_empty());
    let asked = ScopeSet::parse("openid fhirUser launch patient/Patient.read");
    assert!(compare(&asked, found.scope.as_ref()).nothing_granted());

    let refusal = capture("cerner/errors/error-token-empty-scopes-v1-syntax-2026-05-02.json").expect("set");
    let refusal: Value = serde_json::from_slice(&refusal).expect("json");
    let body = refusal["response"]["body_text"].as_str().expect("a body");
    let ErrorBody::OAuth(error) = parse_error_body(body.as_bytes()) else { panic!("{body}") };
    let error = EhrError::from_oauth(&error);
    assert_eq!(error.urn_suffix.as_deref(), Some("oauth2:token:empty-scopes"));
    let header = refusal["response"]["headers"]["Cerner-Correlation-ID"].as_str();
    assert_eq!(error.correlation_id.as_deref(), header);
    assert_eq!(explain(&error, Stage::Token).who, WhoActs::Clinic);
}

#[test]
fn every_observed_refusal_has_an_explanation_of_its_own() {
    let Some(observed) = capture("cerner/errors/observed-error-shapes.json") else { return };
    let observed: Vec<Value> = serde_json::from_slice(&observed).expect("a list");
    let mut explained = 0;
    for shape in &observed {
        let stage = if shape["where"].as_str().is_some_and(|at| at.starts_with("token")) {
            Stage::Token
        } else {
            Stage::Authorize
        };
        let error = if let Some(urn) = shape["error_uri_urn"].as_str() {
            let uri =
                format!("https://authorization.cerner.com/errors/{}/instances/1-2", urn.replace(':', "%3A"));
            let code = shape["error"].as_str().unwrap_or("invalid_request");
            EhrError::from_oauth(&OAuthError::new(code, None, Some(&uri)).expect("an error"))
        } else if shape["body"]["error"].is_string() || shape["body"]["message"].is_string() {
            EhrError::from_body(&parse_error_body(shape["body"].to_string().as_bytes()))
        } else {
            continue;
        };
        let text = explain(&error, stage);
        assert!(error.urn_suffix.is_some(), "{shape}");
        assert!(!text.staff.contains("not in our tables"), "{}", text.staff);
        explained += 1;
    }
    assert!(explained >= 10, "only {explained} shapes were recognised");
    let denied = EhrError::from_oauth(&OAuthError::new("access_denied", None, None).expect("an error"));
    assert_eq!(explain(&denied, Stage::Authorize).code, FailureCode::UserDenied);
}

#[test]
fn the_key_set_of_oracle_health_is_read() {
    let Some(body) = capture("cerner/authorization-server-jwks.json") else { return };
    let set = Jwks::parse(&body).expect("a key set");
    assert_eq!(set.keys.len(), 9);
    assert!(set.keys.iter().all(|key| key.alg.is_none() && key.kid.is_some()));
}

#[test]
fn every_listed_tenant_makes_its_own_base() {
    let Some(body) = capture("cerner/oracle-patient-r4-endpoints-compact.json") else { return };
    let listed: Value = serde_json::from_slice(&body).expect("json");
    let rows = listed.as_array().or_else(|| listed["tenants"].as_array()).expect("a list");
    let mut bases = std::collections::HashSet::new();
    for row in rows {
        let written = row["fhir"].as_str().expect("an address");
        let base = base(written);
        // Not `Endpoint.id`, in which the vendor writes `-` for every `_`.
        let tenant = base.path().rsplit('/').next().expect("a segment");
        assert_eq!(guess_vendor(&base), "cerner", "{written}");
        assert_eq!(cerner_base_url(tenant), Ok(base.clone()), "{written}");
        bases.insert(base);
    }
    assert_eq!(bases.len(), rows.len());
}
