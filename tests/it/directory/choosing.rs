//! From a place of a list to a source: what is offered, what the API lists, and what a patient's choice makes.

use chartgate::config::Environment;
use chartgate::directory::import::ImportLimits;
use chartgate::directory::{ActivationState, ImportRequest, Offer};
use serde_json::Value;

use crate::support::{Browser, TestApp};

/// A list for the sandbox environment, where tests live: two Epic brands, a Cerner tenant, and a server of nobody known.
const LIST: &str = r#"{"Endpoints":[
    {"URL":"https://one.example/api/FHIR/R4/","OrganizationName":"Lakeside Health","OrganizationZipCode":"70601"},
    {"URL":"https://two.example/api/FHIR/R4/","OrganizationName":"Hillside Health","OrganizationZipCode":""},
    {"URL":"https://fhir-myrecord.cerner.com/r4/Tenant_1/","OrganizationName":"Riverside Hospital","OrganizationZipCode":""},
    {"URL":"https://fhir.unknown.example/r4","OrganizationName":"Seaside Clinic","OrganizationZipCode":""}]}"#;

async fn app_with_list() -> TestApp {
    let app = TestApp::start().await;
    import(&app).await;
    app
}

async fn import(app: &TestApp) {
    let request = ImportRequest {
        list: "list".to_owned(),
        environment: Environment::Sandbox,
        url: None,
        etag: None,
        yes: false,
    };
    let directory = &app.app().parts().directory;
    directory.import(request, LIST.as_bytes(), ImportLimits::default()).await.expect("imported");
}

fn offer(app: &TestApp, name: &str) -> Option<Offer> {
    let found = app.app().parts().directory.find(Environment::Sandbox, name, 10);
    found.places.into_iter().find(|place| place.name == name).map(|place| place.offer)
}

async fn names(app: &TestApp, query: &str) -> Vec<String> {
    let page = app.api("GET", &format!("/connections{query}"), Value::Null).await.ok();
    let rows = page["data"].as_array().expect("rows").clone();
    rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn a_place_is_offered_where_we_are_registered_and_the_hospital_need_not_act() {
    let app = app_with_list().await;
    // The test's own registration is at Cerner, whose hospitals each switch an app on.
    assert_eq!(offer(&app, "Riverside Hospital"), Some(Offer::NotActivated));
    assert_eq!(offer(&app, "Lakeside Health"), Some(Offer::NoRegistration));
    assert_eq!(offer(&app, "Seaside Clinic"), Some(Offer::NoRegistration));
    assert_eq!(names(&app, "?q=side").await, Vec::<String>::new());
    assert!(names(&app, "?q=lakeside").await.is_empty());
    let client = chartgate::directory::NewEhrClient {
        name: "epic".to_owned(),
        vendor: "epic".to_owned(),
        environment: Environment::Sandbox,
        client_id: "22222222-2222-3333-4444-555555555555".to_owned(),
        auth: chartgate::config::AuthMethod::PrivateKeyJwt,
        client_secret: None,
        signing_algorithm: None,
        smart_version: chartgate::config::SmartVersion::V2,
        scopes: None,
        launch: None,
    };
    app.app().parts().directory.add_client(client).await.expect("added");
    assert_eq!(offer(&app, "Lakeside Health"), Some(Offer::Open));
    assert_eq!(names(&app, "?q=lakeside").await, ["Lakeside Health"]);
    assert_eq!(names(&app, "?type=epic&limit=100").await.len(), 2, "all that can be connected are listed");
}

#[tokio::test]
async fn a_places_id_is_the_same_before_and_after_it_is_chosen_and_after_a_restart() {
    let mut app = app_with_list().await;
    let directory = &app.app().parts().directory;
    let found = directory.find(Environment::Sandbox, "riverside", 10);
    let id = found.places[0].source;
    let before = app.api("GET", &format!("/connections/{id}"), Value::Null).await.ok();
    assert_eq!(before["fhir_base_url"], "https://fhir-myrecord.cerner.com/r4/Tenant_1");
    let encoded = "https%3A%2F%2Ffhir-myrecord.cerner.com%2Fr4%2FTenant_1";
    let by_url = app.api("GET", &format!("/connections/{encoded}"), Value::Null).await.ok();
    assert_eq!(by_url, before);
    let steps = [(ActivationState::Asked, Some("wrote to IT".to_owned())), (ActivationState::Active, None)];
    for (state, note) in steps {
        directory.activate(Environment::Sandbox, id, Some(state), note).await.expect("noted");
    }
    assert_eq!(offer(&app, "Riverside Hospital"), Some(Offer::Open));
    assert_eq!(names(&app, "?q=riverside").await, ["Riverside Hospital"]);
    app.restart().await;
    let directory = &app.app().parts().directory;
    let source = directory.source(id).expect("kept although the list is not read yet");
    let states: Vec<ActivationState> = source.activation.steps.iter().map(|step| step.state).collect();
    assert_eq!(states, [ActivationState::Asked, ActivationState::Active]);
    assert_eq!(source.activation.steps[0].note.as_deref(), Some("wrote to IT"));
    // The list goes; the source stays.
    directory.remove_list(Environment::Sandbox, "list").await.expect("removed");
    let after = app.api("GET", &format!("/connections/{id}"), Value::Null).await.ok();
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_patient_sees_what_cannot_be_chosen_yet_and_cannot_choose_it() {
    let app = app_with_list().await;
    let (link, _) = app.session("patient-1").await;
    let page = Browser::default().get(&format!("{link}?q=riverside")).await.text;
    assert!(page.contains("Riverside Hospital") && page.contains("card-off"), "{page}");
    let id = app.app().parts().directory.find(Environment::Sandbox, "riverside", 1).places[0].source;
    assert!(!page.contains(&format!("/to/{id}")), "it is no link");
    assert_eq!(Browser::default().get(&format!("{link}/to/{id}")).await.status, 404);
    let portal = Browser::default().get(&format!("{link}?q=mychart")).await.text;
    assert!(portal.contains("Many hospitals use MyChart"), "{portal}");
}

#[tokio::test]
async fn names_of_a_list_are_text_on_every_page() {
    let app = TestApp::start().await;
    let evil =
        r#"[{"name":"<script>alert(1)</script> Evil \" onload=x","url":"https://evil.example/api/FHIR/R4"}]"#;
    let request = ImportRequest {
        list: "evil".to_owned(),
        environment: Environment::Sandbox,
        url: None,
        etag: None,
        yes: false,
    };
    let directory = &app.app().parts().directory;
    directory.import(request, evil.as_bytes(), ImportLimits::default()).await.expect("imported");
    let (link, _) = app.session("patient-1").await;
    let page = Browser::default().get(&format!("{link}?q=evil")).await.text;
    assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
    assert!(!page.contains("<script>alert"));
}

#[tokio::test]
async fn a_card_tells_places_of_one_name_apart_and_a_pasted_address_finds_its_own() {
    let app = TestApp::start().await;
    let list = serde_json::json!({ "resourceType": "Bundle", "entry": [
        { "fullUrl": "urn:uuid:e", "resource": { "resourceType": "Endpoint", "status": "active",
            "connectionType": { "code": "hl7-fhir-rest" }, "address": "https://fhir.examplehospital.org/api/FHIR/R4" } },
        { "fullUrl": "urn:uuid:b", "resource": { "resourceType": "Organization", "id": "b", "name": "Example Health",
            "endpoint": [{ "reference": "urn:uuid:e" }] } },
        { "fullUrl": "urn:uuid:f", "resource": { "resourceType": "Organization", "id": "f", "name": "Family Medical Center",
            "partOf": { "reference": "urn:uuid:b" }, "address": [{ "city": "Tulsa", "state": "OK" }] } },
        { "fullUrl": "urn:uuid:o", "resource": { "resourceType": "Endpoint", "status": "active", "name": "Family Medical Center",
            "connectionType": { "code": "hl7-fhir-rest" }, "address": "https://fhir.other.org/api/FHIR/R4" } },
        { "fullUrl": "urn:uuid:h", "resource": { "resourceType": "Endpoint", "status": "active", "name": "Mercy",
            "connectionType": { "code": "hl7-fhir-rest" }, "address": "https://epicproxy.et1.epichosted.com/api/FHIR/R4" } },
    ]});
    let request = ImportRequest {
        list: "brands".to_owned(),
        environment: Environment::Sandbox,
        url: None,
        etag: None,
        yes: false,
    };
    let bytes = std::io::Cursor::new(list.to_string().into_bytes());
    let directory = &app.app().parts().directory;
    directory.import(request, bytes, ImportLimits::default()).await.expect("imported");
    let (link, _) = app.session("patient-1").await;
    let search = async |query: &str| {
        let query = url::form_urlencoded::byte_serialize(query.as_bytes()).collect::<String>();
        Browser::default().get(&format!("{link}?q={query}")).await.text
    };
    let page = search("family medical center").await;
    for shown in [
        "Tulsa, OK",
        "Records come from Example Health",
        "Records come from other.org",
        "Sign in with MyChart",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    for pasted in [
        "https://mychart.examplehospital.org/MyChart",
        "mychart.examplehospital.org",
        "examplehospital.org/login",
    ] {
        let page = search(pasted).await;
        assert!(page.contains("Example Health") && !page.contains("other.org"), "{pasted}: {page}");
    }
    // Nothing is at that host, but a place has the name in it.
    assert!(search("https://mychart.mercy.net/MyChart").await.contains("1 place found"));
    assert!(
        search("https://www.followmyhealth.com/Login").await.contains("Many hospitals use FollowMyHealth")
    );
}
