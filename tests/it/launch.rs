//! The launch, from the patient's click to the records.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Browser, TestApp};

#[tokio::test]
async fn a_patient_connects_and_the_app_reads_the_records() {
    let app = TestApp::start().await;
    let user = app.hospital.users()[0].clone();
    let (link, session) = app.session("amy-7").await;
    let mut browser = Browser::default();

    let start = browser.get(&format!("{link}?q=mercy")).await;
    assert_eq!(start.status, 200);
    assert!(start.text.contains("Mercy Hospital") && start.text.contains("Springfield"), "{}", start.text);
    let leaving = browser.get(&format!("{link}/to/{}", app.source)).await;
    assert!(leaving.text.contains("127.0.0.1"), "the sign-in host is named: {}", leaving.text);

    app.hospital.agrees(&user.username).await;
    let page = app.journey(&mut browser, &link).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(
        page.url.contains("/result/conn_") && page.text.contains("Connected to Mercy Hospital"),
        "{}",
        page.text
    );
    app.pulls_done().await;

    let connection = app.connection("amy-7").await;
    assert_eq!(connection["status"], "active");
    assert_eq!(connection["patient_session_id"], session.as_str());
    assert_eq!(connection["connection_id"], app.source.to_string());
    let records = app.records("amy-7", "").await;
    assert!(records.len() > 15, "{}", records.len());
    let patient =
        records.iter().find(|record| record["resource"]["resourceType"] == "Patient").expect("a Patient");
    assert_eq!(patient["source"], app.source.to_string());
    assert_eq!(patient["resource"]["id"], user.patient.as_str());
    let identifiers = patient["resource"]["identifier"].as_array().expect("a list").clone();
    assert!(identifiers.contains(&json!({"system": "urn:medblocks:patient-id", "value": "amy-7"})));

    // The patient is done: the journey ends, and the app's own query survives on the way back.
    let done = browser.post(&format!("{link}/done"), &[]).await;
    assert_eq!(done.status, 303);
    let done = browser.follow().await;
    let back =
        format!("https://shop.example/back?cart=1&amp;patient_id=amy-7&amp;patient_session_id={session}");
    assert!(done.text.contains(&back), "{}", done.text);
    let stored = app.api("GET", &format!("/patient-sessions/{session}"), Value::Null).await.ok();
    assert_eq!(stored["status"], "complete");
    assert_eq!(stored["connections"][0]["status"], "active");
}

#[tokio::test]
async fn a_direct_session_goes_straight_there_and_back_to_the_app() {
    let app = TestApp::start().await;
    app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
    let (link, session) = app.direct("amy-7").await;
    let mut browser = Browser::default();
    let first = browser.get(&link).await;
    assert_eq!(first.status, 303, "no page of ours in between");
    let back = browser.until("shop.example").await;
    let expected = format!(
        "https://shop.example/back?cart=1&patient_id=amy-7&patient_session_id={session}&success=true&connection_id={}",
        app.source
    );
    assert_eq!(back, expected);
    let stored = app.api("GET", &format!("/patient-sessions/{session}"), Value::Null).await.ok();
    assert_eq!(stored["status"], "complete");

    app.hospital
        .control("POST", "auto-approve", &json!({"username": app.hospital.users()[0].username, "deny": true}))
        .await;
    let (link, session) = app.direct("ben-3").await;
    let mut browser = Browser::default();
    browser.get(&link).await;
    let back = browser.until("shop.example").await;
    assert!(
        back.ends_with(&format!("patient_session_id={session}&success=false&error=user_denied")),
        "{back}"
    );
    let stored = app.api("GET", &format!("/patient-sessions/{session}"), Value::Null).await.ok();
    assert_eq!((&stored["status"], &stored["connections"][0]["id"]), (&json!("complete"), &Value::Null));
    assert_eq!(stored["connections"][0]["failure_code"], "user_denied");
}

#[tokio::test]
async fn the_authorization_request_has_everything_and_each_one_is_new() {
    let app = TestApp::start().await;
    let (link, _) = app.session("amy-7").await;
    let source = app.source.to_string();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut browser = Browser::default();
        browser.post(&format!("{link}/launch"), &[("source", &source)]).await;
        let location = url::Url::parse(&browser.location().expect("a redirect")).expect("a url");
        let query: std::collections::HashMap<String, String> = location.query_pairs().into_owned().collect();
        assert_eq!(query["response_type"], "code");
        assert_eq!(query["client_id"], crate::support::CLIENT_ID);
        assert_eq!(query["redirect_uri"], format!("{}/api/auth/smart/callback", app.origin));
        assert_eq!(query["aud"], app.hospital.base);
        assert_eq!(query["code_challenge_method"], "S256");
        assert_eq!(query["code_challenge"].len(), 43);
        assert_eq!(query["state"].len(), 43);
        assert!(
            query["scope"].contains("patient/Observation.read") && query["scope"].contains("offline_access")
        );
        assert!(!query["scope"].contains('*'), "explicit scopes only");
        seen.push((query["state"].clone(), query["nonce"].clone(), query["code_challenge"].clone()));
    }
    assert!(seen[0].0 != seen[1].0 && seen[0].1 != seen[1].1 && seen[0].2 != seen[1].2);
}

#[tokio::test]
async fn a_callback_is_good_once_and_shows_the_same_result_again() {
    let app = TestApp::start().await;
    app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
    let (link, _) = app.session("amy-7").await;
    let mut browser = Browser::default();
    browser.post(&format!("{link}/launch"), &[("source", &app.source.to_string())]).await;
    let callback = browser.until("/api/auth/smart/callback").await;
    let mut twin = browser.clone();

    // Two at once, as a nervous double click sends them; then the back button.
    let (first, second) = tokio::join!(browser.get(&callback), twin.get(&callback));
    assert_eq!((first.status, second.status), (303, 303));
    assert_eq!(first.header("location"), second.header("location"));
    let again = twin.get(&callback).await;
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(app.hospital.count("token.authorization_code.").await, 1, "the code was sent once");
    assert_eq!(browser.follow().await.status, 200);
}

#[tokio::test]
async fn a_callback_in_another_browser_or_with_another_state_sends_nothing_anywhere() {
    let app = TestApp::start().await;
    app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
    let (link, _) = app.session("amy-7").await;
    let mut browser = Browser::default();
    browser.post(&format!("{link}/launch"), &[("source", &app.source.to_string())]).await;
    let callback = browser.until("/api/auth/smart/callback").await;

    let stranger = Browser::default().get(&callback).await;
    assert_eq!(stranger.status, 400, "{}", stranger.text);
    assert!(stranger.text.contains("start again"), "{}", stranger.text);
    for forged in ["?code=x", "?code=x&state=", "?code=x&state=AAAA", "?state=a&state=b&code=x", ""] {
        let page = browser.get(&format!("{}/api/auth/smart/callback{forged}", app.origin)).await;
        assert_eq!(page.status, 400, "{forged}");
    }
    assert_eq!(app.hospital.count("token.").await, 0);
    // The right browser is not harmed by any of that.
    browser.get(&callback).await;
    assert_eq!(browser.follow().await.status, 200);
}

#[tokio::test]
async fn an_attempt_ends_after_an_hour_and_not_before() {
    let app = TestApp::start().await;
    app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
    let (link, _) = app.session("amy-7").await;
    let mut browser = Browser::default();
    browser.post(&format!("{link}/launch"), &[("source", &app.source.to_string())]).await;
    app.clock.advance(Duration::from_mins(61));
    let late = browser.until("/api/auth/smart/callback").await;
    let page = browser.get(&late).await;
    assert_eq!(page.status, 400, "{}", page.text);
    assert_eq!(app.hospital.count("token.").await, 0);

    // A slow log-in of 59 minutes is fine, although the link itself has expired meanwhile.
    let (link, _) = app.session("amy-7").await;
    let mut browser = Browser::default();
    browser.post(&format!("{link}/launch"), &[("source", &app.source.to_string())]).await;
    app.clock.advance(Duration::from_mins(59));
    let callback = browser.until("/api/auth/smart/callback").await;
    browser.get(&callback).await;
    assert_eq!(app.connection("amy-7").await["status"], "active");
}

#[tokio::test]
async fn an_expired_direct_link_leads_back_to_the_app_with_the_reason() {
    let app = TestApp::start().await;
    let hook = json!({"url": "http://localhost:9/hooks", "events": ["*", "chartgate.connection.failed"]});
    let hook = app.api("POST", "/webhooks", hook).await.ok()["id"].as_str().expect("an id").to_owned();
    let (link, session) = app.direct("amy-7").await;
    app.clock.advance(Duration::from_mins(30));
    let mut browser = Browser::default();
    assert_eq!(browser.get(&link).await.status, 303);
    let location = browser.location().expect("a way back");
    let expected = format!(
        "https://shop.example/back?cart=1&patient_id=amy-7&patient_session_id={session}&success=false&error=session_expired"
    );
    assert_eq!(location, expected);
    // Nothing has happened: the session is over by its time alone, and no journey was finished.
    let shown = app.api("GET", &format!("/patient-sessions/{session}"), Value::Null).await.ok();
    assert_eq!((&shown["status"], &shown["connections"]), (&json!("expired"), &json!([])));
    let events = app.api("GET", &format!("/webhooks/{hook}/events"), Value::Null).await.ok();
    assert_eq!(events["data"], json!([]));
    assert_eq!(app.hospital.count("authorize.").await, 0);
}

#[tokio::test]
async fn who_comes_back_after_the_session_ended_is_connected_all_the_same() {
    let app = TestApp::start().await;
    app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
    let (link, session) = app.direct("amy-7").await;
    let mut browser = Browser::default();
    browser.get(&link).await;
    app.clock.advance(Duration::from_mins(31));
    let back = browser.until("shop.example").await;
    assert!(back.contains("&success=true&connection_id=fhirsrc_"), "{back}");
    let shown = app.api("GET", &format!("/patient-sessions/{session}"), Value::Null).await.ok();
    assert_eq!(
        (&shown["status"], &shown["connections"][0]["status"]),
        (&json!("expired"), &json!("active")),
        "its time is over, and what was begun in time counts"
    );
}

#[tokio::test]
async fn looking_at_a_link_uses_nothing_up() {
    let app = TestApp::start().await;
    app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
    for (link, session) in [app.session("amy-7").await, app.direct("ben-3").await] {
        // A mail scanner, a link preview, a second device: each without cookies, some with HEAD.
        for _ in 0..5 {
            Browser::default().get(&link).await;
            let looked = crate::support::head(&link).await;
            assert!(looked < 400, "{looked}");
        }
        let stored = app.api("GET", &format!("/patient-sessions/{session}"), Value::Null).await.ok();
        assert_eq!((&stored["status"], &stored["connections"]), (&json!("open"), &json!([])));
    }
    let (link, _) = app.session("amy-7").await;
    let page = app.journey(&mut Browser::default(), &link).await;
    assert!(page.text.contains("Connected to"), "{}", page.text);
}

#[tokio::test]
async fn several_attempts_and_a_restart_in_between_work_in_one_session() {
    let mut app = TestApp::start().await;
    let user = app.hospital.users()[0].username.clone();
    let (link, session) = app.session("amy-7").await;
    let mut browser = Browser::default();
    app.hospital.control("POST", "auto-approve", &json!({"username": user, "deny": true})).await;
    let page = app.journey(&mut browser, &link).await;
    assert!(page.text.contains("Nothing was shared"), "{}", page.text);

    // The patient is at the hospital while the appliance restarts.
    app.clock.advance(Duration::from_secs(30));
    browser.post(&format!("{link}/launch"), &[("source", &app.source.to_string())]).await;
    app.restart().await;
    app.hospital.agrees(&user).await;
    let page = browser.follow().await;
    assert!(page.text.contains("Connected to"), "{}", page.text);
    let stored = app.api("GET", &format!("/patient-sessions/{session}"), Value::Null).await.ok();
    let states: Vec<&str> = stored["connections"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|it| it["status"].as_str())
        .collect();
    assert_eq!(states, ["failed", "active"]);
}

#[tokio::test]
async fn many_attempts_do_not_fill_the_browser() {
    let app = TestApp::start().await;
    app.hospital.agrees(&app.hospital.users()[0].username.clone()).await;
    let (link, _) = app.session("amy-7").await;
    let mut browser = Browser::default();
    for _ in 0..12 {
        app.clock.advance(Duration::from_secs(1));
        let page = browser.post(&format!("{link}/launch"), &[("source", &app.source.to_string())]).await;
        assert_eq!(page.status, 303);
    }
    assert!(browser.cookie_count() <= 4, "{}", browser.cookie_count());
    let page = browser.follow().await;
    assert!(page.text.contains("Connected to"), "the latest attempt works: {}", page.text);
}

#[tokio::test]
async fn a_form_from_another_origin_starts_nothing() {
    let app = TestApp::start().await;
    let (link, _) = app.session("amy-7").await;
    let form = format!("source={}", app.source);
    for header in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("origin", "null")] {
        let headers = [("content-type", "application/x-www-form-urlencoded"), header];
        let page = crate::support::send("POST", &format!("{link}/launch"), &headers, &form).await;
        assert_eq!(page.status, 404, "{header:?}");
        assert!(page.header("location").is_none());
    }
}

#[tokio::test]
async fn who_comes_back_as_somebody_else_is_stopped() {
    let app = TestApp::start().await;
    let users = app.hospital.users();
    app.connected("amy-7", &users[0].username).await;
    let before = app.records("amy-7", "").await.len();
    app.hospital.agrees(&users[1].username).await;
    let (link, _) = app.session("amy-7").await;
    let page = app.journey(&mut Browser::default(), &link).await;
    assert!(page.text.contains("another person"), "{}", page.text);
    app.pulls_done().await;
    assert_eq!(app.records("amy-7", "").await.len(), before, "nothing of the other record was read");
    let detail = app.api("GET", "/patients/amy-7", Value::Null).await.ok();
    let states: Vec<&str> = detail["connections"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|it| it["status"].as_str())
        .collect();
    assert_eq!(states, ["failed", "active"]);

    // The same person again keeps the connection.
    app.hospital.agrees(&users[0].username).await;
    let first = app.connection("amy-7").await;
    let (link, _) = app.session("amy-7").await;
    app.journey(&mut Browser::default(), &link).await;
    let detail = app.api("GET", "/patients/amy-7", Value::Null).await.ok();
    let ids: Vec<&Value> =
        detail["connections"].as_array().expect("a list").iter().map(|it| &it["id"]).collect();
    assert_eq!(ids.len(), 2, "no third connection: {ids:?} {first}");
}
