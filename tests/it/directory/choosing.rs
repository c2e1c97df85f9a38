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
