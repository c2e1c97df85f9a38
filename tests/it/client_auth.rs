//! How we prove to a token endpoint who we are, where a source departs from discovery, and what a change of either does
//! to grants that exist.

use std::time::Duration;

use chartgate::config::{AuthMethod, Environment, SmartVersion};
use chartgate::control::{Command, execute};
use chartgate::crypto::Algorithm;
use chartgate::directory::{NewEhrClient, NewSource};
use chartgate::events::history::RefreshedBy;
use chartgate::grants::AccessError;
use chartgate::id::{ConnectionId, Id as _};
use chartgate::sandbox::{Personality, RegisteredClient};
use chartgate::secret::Secret;
use chartgate::smart::server::Overrides;
use serde_json::{Value, json};

use crate::support::{Browser, CLIENT_ID, Hospital, SYNTHETIC_SECRET, Setup, TestApp};

fn generic(auth: AuthMethod) -> Setup {
    Setup { personality: Personality::Generic, vendor: "generic", auth, ..Setup::default() }
}

async fn connect(app: &TestApp) -> ConnectionId {
    let user = app.hospital.users()[0].username.clone();
    ConnectionId::parse(&app.connected("amy-7", &user).await).expect("an id")
}

async fn refresh(app: &TestApp, id: ConnectionId) {
    app.clock.advance(Duration::from_hours(1));
    app.app()
        .parts()
        .grants
        .access(id, RefreshedBy::Proxy)
        .await
        .unwrap_or_else(|error| panic!("refreshed: {error}"));
}

/// The last page of a journey that is expected to fail, and what staff read about it.
async fn failing(app: &TestApp) -> (String, String) {
    app.hospital.agrees(&app.hospital.users()[0].username).await;
    let (link, _) = app.session("amy-7").await;
    let page = app.journey(&mut Browser::default(), &link).await;
    let command = Command::Incident { reference: page.reference() };
    let incident = execute(app.app().parts(), command).await.expect("kept");
    (page.text, incident["what_happened"].as_str().expect("text").to_owned())
}

/// Something about every answered token request.
async fn noted(app: &TestApp, name: &str) -> Vec<Value> {
    app.hospital.log("token").await.iter().map(|line| line["asked"][name].clone()).collect()
}

/// Writes the registration anew, as a changed configuration does at the next start.
async fn change_client(app: &TestApp, change: fn(&mut NewEhrClient)) {
    let mut client = NewEhrClient {
        name: "hospital".to_owned(),
        vendor: "generic".to_owned(),
        environment: Environment::Sandbox,
        client_id: CLIENT_ID.to_owned(),
        auth: AuthMethod::PrivateKeyJwt,
        client_secret: None,
        signing_algorithm: None,
        smart_version: SmartVersion::V1,
        scopes: None,
        launch: None,
    };
    change(&mut client);
    app.app().parts().directory.ensure_client(client).await.expect("written");
}

async fn change_overrides(app: &TestApp, overrides: Overrides) {
    let directory = &app.app().parts().directory;
    let source = directory.source(app.source).expect("there");
    let changed = NewSource {
        environment: source.environment,
        name: source.name.clone(),
        base: source.base.clone(),
        ehr_client: "hospital".to_owned(),
        city: None,
        state: None,
        logo_url: None,
        portal_url: None,
        overrides,
    };
    directory.ensure_source(changed).await.expect("written");
}

/// The address that Oracle Health's servers had before, and still answer at.
fn older_token_url(hospital: &Hospital) -> String {
    let (origin, tenant) = hospital.base.split_once("/r4/").expect("a base");
    format!("{origin}/tenants/{tenant}/protocols/oauth2/profiles/smart-v1/token")
}

#[tokio::test]
async fn every_way_of_authentication_connects_refreshes_and_revokes() {
    for (auth, name) in [
        (AuthMethod::PrivateKeyJwt, "private_key_jwt"),
        (AuthMethod::ClientSecretBasic, "client_secret_basic"),
        (AuthMethod::ClientSecretPost, "client_secret_post"),
        (AuthMethod::None, "none"),
    ] {
        let app = TestApp::with(generic(auth)).await;
        let id = connect(&app).await;
        refresh(&app, id).await;
        assert_eq!(noted(&app, "auth_method").await, [name, name]);
        let authorize = &app.hospital.log("authorize").await[0]["asked"];
        assert_eq!(authorize["code_challenge_method"], "S256", "{name}");
        app.api("DELETE", &format!("/patients/amy-7/connections/{id}"), Value::Null).await.ok();
        let revoked = async {
            while app.hospital.count("revoke.ok").await == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), revoked).await.expect("revoked");
        let grants = app.hospital.control("GET", "grants", &Value::Null).await;
        assert_eq!(grants[0]["ended"], "revoked by the client", "{name}");
    }
}

#[tokio::test]
async fn a_secret_may_have_any_letters() {
    for secret in
        ["with:colon", "100% + 1", "a b  c", "%41%2B+&=#", "gr\u{fc}\u{df}e \u{1f511} \u{2713}", "\"quoted\\"]
    {
        for auth in [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost] {
            let app = TestApp::with(Setup { secret, ..generic(auth) }).await;
            let id = connect(&app).await;
            refresh(&app, id).await;
            assert_eq!(app.hospital.count("token.refresh_token.ok").await, 1, "{auth} {secret}");
        }
    }
}

#[tokio::test]
async fn a_method_that_the_server_does_not_list_is_told_before_anybody_signs_in() {
    let setup = || Setup { auth: AuthMethod::ClientSecretPost, ..Setup::default() };
    let app = TestApp::with(setup()).await;
    let (page, staff) = failing(&app).await;
    assert!(!page.contains(SYNTHETIC_SECRET) && !staff.contains(SYNTHETIC_SECRET));
    for part in
        ["client_secret_post", "`client_secret_basic`, `private_key_jwt`", "unlisted_auth", "Who acts"]
    {
        assert!(staff.contains(part), "{staff}");
    }
    assert_eq!(app.hospital.count("authorize.").await, 0, "nobody was sent to the hospital");

    let check = Command::SourceCheck { source: app.source.to_string() };
    let checked = execute(app.app().parts(), check).await.expect("it answers");
    assert!(checked["discovery"]["warnings"].to_string().contains("client_secret_post"), "{checked}");

    // An operator who knows better is believed; this server meant what it said.
    let insists = |_: &Hospital| Overrides { unlisted_auth: Some(true), ..Overrides::default() };
    let app = TestApp::with(Setup { overrides: insists, ..setup() }).await;
    let (_, staff) = failing(&app).await;
    assert!(staff.contains("invalid_client"), "{staff}");
    assert_eq!(app.hospital.count("token.authorization_code.refused").await, 1);
}

#[tokio::test]
async fn a_source_may_have_its_own_addresses() {
    let overrides = |hospital: &Hospital| Overrides {
        token_url: Some(older_token_url(hospital)),
        ..Overrides::default()
    };
    let app = TestApp::with(Setup { overrides, ..Setup::default() }).await;
    let id = connect(&app).await;
    refresh(&app, id).await;
    let older = older_token_url(&app.hospital);
    for line in app.hospital.log("token").await {
        assert!(older.ends_with(line["path"].as_str().expect("a path")), "{line}");
        assert_eq!(line["result"], "ok", "the assertion names that address: {line}");
    }

    let overrides = |hospital: &Hospital| {
        let provider = "protocols/oauth2/profiles/smart-v1/personas/provider/authorize";
        let (origin, tenant) = hospital.base.split_once("/r4/").expect("a base");
        let authorize_url = Some(format!("{origin}/tenants/{tenant}/{provider}"));
        Overrides { authorize_url, ..Overrides::default() }
    };
    let app = TestApp::with(Setup { overrides, ..Setup::default() }).await;
    failing(&app).await;
    assert_eq!(app.hospital.log("authorize").await[0]["asked"]["persona"], "provider");
}

#[tokio::test]
async fn a_source_may_want_another_audience_and_more_or_less_in_its_requests() {
    let overrides = |_: &Hospital| Overrides {
        assertion_audience: Some("https://elsewhere.example/token".to_owned()),
        ..Overrides::default()
    };
    let app = TestApp::with(Setup { overrides, ..Setup::default() }).await;
    failing(&app).await;
    assert_eq!(app.hospital.log("token").await[0]["reason"], "invalid_client: assertion: wrong aud");

    for (sends, expected) in [(None, true), (Some(true), true), (Some(false), false)] {
        let app = TestApp::with(Setup {
            overrides: match sends {
                None => |_| Overrides::default(),
                Some(true) => |_| Overrides { send_client_id: Some(true), ..Overrides::default() },
                Some(false) => |_| Overrides { send_client_id: Some(false), ..Overrides::default() },
            },
            ..Setup::default()
        })
        .await;
        let id = connect(&app).await;
        refresh(&app, id).await;
        assert_eq!(noted(&app, "client_id_in_body").await, [expected, expected], "{sends:?}");
    }

    let overrides = |_: &Hospital| Overrides { send_aud: Some(false), ..Overrides::default() };
    let app = TestApp::with(Setup { overrides, ..Setup::default() }).await;
    let (_, staff) = failing(&app).await;
    assert!(staff.contains("audience-required"), "{staff}");
    assert_eq!(app.hospital.log("authorize").await[0]["asked"]["aud"], Value::Null);
}

#[tokio::test]
async fn a_grant_stays_with_the_token_server_that_gave_it() {
    let app = TestApp::with(generic(AuthMethod::PrivateKeyJwt)).await;
    let id = connect(&app).await;
    let (path, older) = (app.hospital.log("token").await[0]["path"].clone(), older_token_url(&app.hospital));
    let moved = Overrides {
        token_url: Some(older.clone()),
        assertion_audience: Some(older.clone()),
        ..Overrides::default()
    };
    change_overrides(&app, moved).await;
    refresh(&app, id).await;
    assert_eq!(app.hospital.log("token").await[1]["path"], path, "what worked goes on working");
    let again = connect(&app).await;
    refresh(&app, again).await;
    for line in &app.hospital.log("token").await[2..] {
        assert!(
            older.ends_with(line["path"].as_str().expect("a path")),
            "a new grant is of the new one: {line}"
        );
        assert_eq!(line["result"], "ok");
    }
}

#[tokio::test]
async fn a_grant_stays_with_the_client_id_it_was_given_to() {
    let app = TestApp::with(generic(AuthMethod::PrivateKeyJwt)).await;
    let id = connect(&app).await;
    change_client(&app, |client| client.client_id = "the-id-for-production".to_owned()).await;
    refresh(&app, id).await;
    let ids = noted(&app, "client_id").await;
    assert_eq!(ids, [CLIENT_ID, CLIENT_ID], "the refresh token belongs to the old id");
    // That id is unknown there, which the hospital says on a page of its own.
    let (link, _) = app.session("amy-7").await;
    app.journey(&mut Browser::default(), &link).await;
    let authorize = app.hospital.log("authorize").await;
    assert_eq!(authorize[1]["asked"]["client_id"], "the-id-for-production", "new launches use the new one");
    refresh(&app, id).await;
}

#[tokio::test]
async fn a_new_signing_algorithm_or_method_counts_for_grants_that_exist() {
    let app = TestApp::with(Setup {
        client: |client| RegisteredClient { secret: Some(Secret::new(SYNTHETIC_SECRET)), ..client },
        ..generic(AuthMethod::PrivateKeyJwt)
    })
    .await;
    let id = connect(&app).await;
    change_client(&app, |client| client.signing_algorithm = Some(Algorithm::Es384)).await;
    refresh(&app, id).await;
    assert_eq!(noted(&app, "assertion_alg").await, ["RS384", "ES384"]);
    change_client(&app, |client| {
        client.auth = AuthMethod::ClientSecretBasic;
        client.client_secret = Some(Secret::new(SYNTHETIC_SECRET));
    })
    .await;
    refresh(&app, id).await;
    assert_eq!(noted(&app, "auth_method").await[2], "client_secret_basic");
}

#[tokio::test]
async fn a_secret_changed_in_its_file_counts_from_the_next_start_for_grants_that_exist() {
    let mut app = TestApp::with(generic(AuthMethod::ClientSecretBasic)).await;
    let id = connect(&app).await;
    let path = app.folder.path().join("hospital.secret");
    let config = format!(
        "[[ehr_client]]\nname = \"hospital\"\nvendor = \"generic\"\nenvironment = \"sandbox\"\n\
         client_id = \"{CLIENT_ID}\"\nauth = \"client_secret_basic\"\nsmart_version = \"v1\"\n\
         client_secret_file = \"{}\"\n",
        path.display()
    );
    std::fs::write(&path, "the next secret\n").expect("written");
    app.restart_with(&config).await;
    app.clock.advance(Duration::from_hours(1));
    let early = app.app().parts().grants.access(id, RefreshedBy::Proxy).await;
    assert!(matches!(early, Err(AccessError::NotNow(_))), "the vendor has the old one still: {early:?}");
    assert_eq!(app.connection("amy-7").await["status"], "active", "a wrong secret of ours ends no grant");

    let registered = json!({
        "client_id": CLIENT_ID, "redirect_uris": [format!("{}/api/auth/smart/callback", app.origin)],
        "secret": "the next secret",
    });
    app.hospital.control("POST", "clients", &registered).await;
    app.clock.advance(Duration::from_mins(2));
    app.app().parts().grants.access(id, RefreshedBy::Proxy).await.expect("refreshed with the new secret");
}
