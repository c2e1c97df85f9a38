//! Commands, told to a running appliance through its socket, and without one carried out on the store.

use serde_json::Value;

use super::running::{text, with_hospital};
use super::support::{Caller, Place, control};
use crate::support::Browser;

/// Whether the key opens the running appliance.
async fn status_with(place: &Place, key: &str) -> u16 {
    let caller = Caller { base: place.url(""), key: key.to_owned() };
    caller.api("GET", "/patients", Value::Null).await.status
}

#[tokio::test]
async fn a_key_works_at_once_and_a_revoked_one_is_refused_at_once_on_the_running_appliance() {
    let place = Place::make();
    let serving = place.serve();
    let create = ["api-key", "create", "--workspace", "sandbox", "--name", "shop"];
    let made = place.ask(&create).ok();
    let (id, key) = (text(&made, "id"), text(&made, "api_key"));
    assert_eq!(status_with(&place, key).await, 200);

    for list in [
        place.run(&["api-key", "list", "--workspace", "sandbox"]),
        place.ask(&["api-key", "list", "--workspace", "sandbox"]),
    ] {
        assert!(
            list.out.contains(id) && list.out.contains("shop") && list.out.contains("active"),
            "{list:?}"
        );
        assert!(!list.out.contains(key) && !list.err.contains(key), "a key is shown once");
    }
    let revoke = ["api-key", "revoke", "--workspace", "sandbox", id];
    assert_eq!(place.ask(&revoke).ok()["state"], "revoked");
    assert_eq!(status_with(&place, key).await, 401);
    let listed = place.ask(&["api-key", "list", "--workspace", "sandbox"]).ok();
    assert_eq!(listed[0]["state"], "revoked");

    // The key of another workspace is not found, however right its id.
    place.ask(&["api-key", "revoke", "--workspace", "live", id]).refused(1, &["`live`", id]);
    place.ask(&["api-key", "revoke", "--workspace", "sandbox", "key_nonsense"]).refused(1, &["key_nonsense"]);
    assert_eq!(serving.stop().code, Some(0));
}

#[tokio::test]
async fn a_key_made_while_nothing_runs_opens_the_appliance_later() {
    let place = Place::make();
    let create = ["api-key", "create", "--workspace", "live", "--name", "early", "--expires-in", "30"];
    let people = place.run(&create);
    assert_eq!(people.code, Some(0), "{people:?}");
    let key =
        people.out.split_whitespace().find(|word| word.starts_with("mb_sk_")).expect("a key").to_owned();
    assert_eq!(people.out.matches(&key).count(), 1, "printed once");
    let gone = place.ask(&create[..6]).ok();
    let revoke = ["api-key", "revoke", "--workspace", "live", text(&gone, "id")];
    place.ask(&revoke).ok();
    assert!(!place.run(&["api-key", "list", "--workspace", "live"]).out.contains(&key));

    let serving = place.serve();
    assert_eq!(status_with(&place, &key).await, 200);
    assert_eq!(status_with(&place, text(&gone, "api_key")).await, 401);
    drop(serving);
    // A socket that a power cut left behind does not keep commands from the store.
    let listed = place.ask(&["api-key", "list", "--workspace", "live"]).ok();
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
}

#[test]
fn an_unknown_workspace_is_answered_with_those_that_there_are() {
    let place = Place::make();
    for running in [false, true] {
        let serving = running.then(|| place.serve());
        for task in [&["create", "--name", "x"][..], &["list"]] {
            let arguments = [&["api-key"], task, &["--workspace", "nowhere"]].concat();
            place.run(&arguments).refused(1, &["`nowhere`", "live", "sandbox"]);
        }
        drop(serving);
    }
}

#[tokio::test]
async fn registrations_and_sources_can_be_added_listed_and_checked() {
    let (_hospital, document, place, _) = with_hospital().await;
    let base = text(&document, "fhir_base_url");
    for running in [false, true] {
        let serving = running.then(|| place.serve());
        let name = if running { "second" } else { "first" };
        let add = ["ehr-client", "add", "--vendor", "epic", "--environment", "sandbox", "--client-id", "abc"];
        let added = place.ask(&[&add[..], &["--name", name]].concat()).ok();
        assert_eq!(text(&added, "redirect_uri"), place.url("/api/auth/smart/callback"));
        assert_eq!(text(&added, "jwks_uri"), place.url("/api/auth/.well-known/jwks"));
        assert!(added["notes"].to_string().contains("one client id for sandboxes"), "{added}");
        place.ask(&[&add[..], &["--name", name]].concat()).refused(1, &[name]);
        let listed = place.ask(&["ehr-client", "list"]).ok();
        let names: Vec<&str> =
            listed.as_array().expect("a list").iter().map(|row| text(row, "name")).collect();
        assert!(names.contains(&"hospital") && names.contains(&name), "{names:?}");

        let sources = place.ask(&["source", "list"]).ok();
        assert_eq!(sources[0]["name"], "Mercy Hospital");
        assert_eq!(sources[0]["fhir_base_url"], base);
        for one in [base, text(&sources[0], "id")] {
            let checked = place.ask(&["source", "check", one]).ok();
            let token = text(&checked["discovery"], "token_endpoint");
            assert!(token.starts_with("http://localhost:"), "{checked}");
        }
        let people = place.run(&["source", "list"]);
        assert!(people.out.contains("Mercy Hospital") && people.out.contains(base), "{people:?}");
        place
            .ask(&["source", "check", "https://unknown.example/r4"])
            .refused(1, &["https://unknown.example/r4"]);
        drop(serving);
    }
}

#[tokio::test]
async fn a_source_that_does_not_answer_is_added_only_when_that_is_wanted() {
    let (_hospital, document, place, _) = with_hospital().await;
    let serving = place.serve();
    // Somebody's server, but no FHIR server.
    let base = place.url("/fhir");
    let add = ["source", "add", "--url", &base, "--name", "Silent", "--ehr-client", "hospital"];
    place.ask(&add).refused(1, &["SMART configuration", "--unchecked"]);
    place.ask(&["source", "check", &base]).refused(1, &["no source"]);
    let added = place.ask(&[&add[..], &["--unchecked"]].concat()).ok();
    assert!(!text(&added["discovery"], "warning").is_empty(), "{added}");

    let again = ["source", "add", "--url", text(&document, "fhir_base_url"), "--name", "Again"];
    place.ask(&[&again[..], &["--ehr-client", "hospital"]].concat()).refused(1, &["fhirsrc_"]);
    place
        .ask(&[&again[..], &["--ehr-client", "nobody"]].concat())
        .refused(1, &["`nobody`", "ehr-client add"]);
    let live = ["source", "add", "--url", "not a url", "--name", "Bad", "--ehr-client", "hospital"];
    place.ask(&live).refused(1, &["FHIR base URL"]);
    assert_eq!(place.ask(&["source", "list"]).ok().as_array().map(Vec::len), Some(2));
    drop(serving);
}

#[tokio::test]
async fn a_source_may_be_added_with_departures_and_they_are_used() {
    let (_hospital, document, place, _) = with_hospital().await;
    let base = text(&document, "fhir_base_url").replace("localhost", "127.0.0.1");
    let add = ["source", "add", "--url", &base, "--name", "Again", "--ehr-client", "hospital"];
    let with = |more: &[&str]| place.ask(&[&add[..], more].concat());
    with(&["--token-url", "http://as.example/token"]).refused(1, &["--token-url"]);
    with(&["--authorize-url", "nonsense"]).refused(1, &["--authorize-url"]);
    with(&["--send-aud", "perhaps"]).refused(2, &["--send-aud"]);
    let token_url = format!("{}/older/token", base.split("/r4/").next().expect("an origin"));
    let added =
        with(&["--token-url", &token_url, "--assertion-audience", "x", "--send-client-id", "false"]).ok();
    assert_eq!(added["discovery"]["token_endpoint"], token_url.as_str());
    let checked = place.ask(&["source", "check", text(&added, "id")]).ok();
    assert_eq!(checked["discovery"]["token_endpoint"], token_url.as_str());
}

#[tokio::test]
async fn the_code_that_a_patient_reads_out_tells_staff_what_happened() {
    let (_hospital, document, place, caller) = with_hospital().await;
    let serving = place.serve();
    let refusal = serde_json::json!({
        "token_error": {"error": "unauthorized_client", "urn": "oauth2:grant:unauthorized-client-for-tenant"},
    });
    control(&document, "POST", "faults", &refusal).await;
    let body = serde_json::json!({"patient_id": "amy-7", "return_url": "https://shop.example/back"});
    let session = caller.api("POST", "/patient-sessions", body).await.ok();
    let sources = caller.api("GET", "/connections", Value::Null).await.ok();
    let source = text(&sources["data"][0], "id").to_owned();
    let mut browser = Browser::default();
    browser.post(&format!("{}/launch", text(&session, "url")), &[("source", &source)]).await;
    let callback = browser.until("/api/auth/smart/callback").await;
    browser.get(&callback).await;
    let page = browser.follow().await;
    let code = page.reference();

    let told = place.ask(&["incident", &code]).ok();
    assert_eq!(text(&told, "reference"), code);
    assert!(text(&told, "what_happened").contains("unauthorized-client-for-tenant"), "{told}");
    let people = place.run(&["incident", &code.to_lowercase()]);
    assert!(people.code == Some(0) && people.out.contains("unauthorized-client-for-tenant"), "{people:?}");
    place.ask(&["incident", "AAAA-AAAA"]).refused(1, &["AAAA-AAAA"]);
    place.ask(&["incident", "what?"]).refused(1, &["K7QF-2M9D"]);
    assert_eq!(serving.stop().code, Some(0));
    assert_eq!(place.ask(&["incident", &code]).ok(), told, "also when nothing runs");
}

#[tokio::test]
async fn the_store_is_compacted_only_while_nothing_uses_it() {
    let place = Place::make();
    let serving = place.serve();
    place.ask(&["store", "compact"]).refused(3, &["another chartgate process"]);
    assert_eq!(serving.stop().code, Some(0));
    let done = place.ask(&["store", "compact"]).ok();
    let bytes = |name: &str| done[name].as_u64().expect("a number");
    assert!(bytes("bytes_after") > 0 && bytes("bytes_after") <= bytes("bytes_before"), "{done}");
    let serving = place.serve();
    assert_eq!(serving.stop().code, Some(0));
}
