//! Which scopes are left.

use chartgate::sandbox::{Personality, SmartVersion};
use serde_json::json;

use super::support::{Bench, registered, text};

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
