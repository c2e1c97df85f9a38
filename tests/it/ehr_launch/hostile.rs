//! What strangers do with an address that anybody can open.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{context, handle, launch, opened, setup};
use crate::support::{Browser, Setup, TestApp, logged};

#[tokio::test]
async fn an_iss_that_is_no_source_gets_a_page_and_nothing_else() {
    let app = TestApp::with(setup()).await;
    let evil = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let evil_port = evil.local_addr().expect("an address").port();
    let base = app.hospital.base.clone();
    let (origin, path) = base.split_at(base.find("/r4/").expect("a path"));
    let host = origin.strip_prefix("http://").expect("http");
    let port = host.rsplit(':').next().expect("a port");
    for iss in [
        format!("http://127.0.0.1:{evil_port}{path}"),
        format!("http://127.0.0.1:{evil_port}/{base}"),
        format!("http://{host}@127.0.0.1:{evil_port}{path}"),
        format!("http://user:MARKER@{host}{path}"),
        format!("https://{host}{path}"),
        format!("http://localhost:{port}{path}"),
        format!("http://127.0.0.1{path}"),
        format!("http://127.1:{port}{path}"),
        format!("http://0x7f000001:{port}{path}"),
        format!("http://127.0.0.1.:{port}{path}"),
        format!("{base}//"),
        format!("{base}/metadata"),
        format!("{base}/Patient"),
        format!("{base}?x=1"),
        format!("{base}#x"),
        format!("{base}/../x"),
        format!("{base}%2f"),
        base.to_uppercase(),
        base.replacen("/r4/", "/%724/", 1),
        base.replacen("/r4/", "\\r4\\", 1),
        base[..base.len() - 1].to_owned(),
        format!("{base}\u{200b}"),
        format!("\t{base}"),
        format!("javascript:alert(1)//{base}"),
        "//127.0.0.1/none".to_owned(),
        "no-address-at-all".to_owned(),
    ] {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("iss", &iss)
            .append_pair("launch", "abc")
            .finish();
        let page = Browser::default().get(&format!("{}/launch/hospital?{query}", app.origin)).await;
        assert_eq!(page.status, 403, "{iss}: {}", page.text);
        assert!(page.header("location").is_none() && page.header("set-cookie").is_none(), "{iss}");
        assert!(page.text.contains("do not know this hospital") && page.text.contains("clinic"), "{iss}");
        assert!(!page.text.contains(&iss) && !page.text.contains("MARKER"), "{iss}");
        page.reference();
    }
    assert_eq!(app.hospital.count("discovery.").await, 0);
    let came = tokio::time::timeout(Duration::ZERO, evil.accept()).await;
    assert!(came.is_err(), "nobody came to the stranger's server");
    assert!(!logged().contains("user:MARKER"));

    // The few spellings that do name the source; the hospital gets its own one back.
    let spellings = [base.clone(), base.replacen("http://", "HTTP://", 1), format!("{base}/")];
    for (iss, works) in spellings.iter().zip([true, false, false]) {
        let address = opened(&app, "clinician-1", &app.hospital.users()[0].patient.clone()).await;
        let address = url::Url::parse(&address).expect("an address");
        let value = address.query_pairs().find(|(name, _)| name == "launch").expect("a value").1.into_owned();
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("iss", iss)
            .append_pair("launch", &value)
            .finish();
        let mut browser = Browser::default();
        let page = browser.get(&format!("{}/launch/hospital?{query}", app.origin)).await;
        assert_eq!(page.status, 303, "{iss}: {}", page.text);
        let asked = browser.location().expect("a redirect");
        assert!(asked.starts_with(origin), "{asked}");
        let asked = url::Url::parse(&asked).expect("an address");
        assert!(asked.query_pairs().any(|(name, value)| name == "aud" && value == *iss), "{asked}");
        // This hospital is strict about its own spelling, as real ones are.
        let back = browser.until("smart/callback").await;
        assert_eq!(back.contains("code="), works, "{iss}");
    }
}

#[tokio::test]
async fn a_launch_that_is_not_whole_says_so_and_goes_nowhere() {
    let app = TestApp::with(setup()).await;
    let iss: String = url::form_urlencoded::byte_serialize(app.hospital.base.as_bytes()).collect();
    let long = "a".repeat(4_097);
    for (query, status) in [
        (String::new(), 400),
        (format!("iss={iss}"), 400),
        ("launch=abc".to_owned(), 400),
        (format!("iss={iss}&launch="), 400),
        (format!("iss={iss}&launch=a&launch=b"), 400),
        (format!("iss={iss}&iss={iss}&launch=a"), 400),
        (format!("iss={iss}&launch={long}"), 400),
        (format!("iss={iss}{long}&launch=a"), 400),
        (format!("iss={iss}&launch=a%0d%0ab"), 400),
    ] {
        let page = Browser::default().get(&format!("{}/launch/hospital?{query}", app.origin)).await;
        assert_eq!(page.status, status, "{query}: {}", page.text);
        assert!(
            page.text.contains("Open the app from a chart") && page.header("location").is_none(),
            "{query}"
        );
    }
    let query = format!("iss={iss}&launch=a");
    for (name, status) in [("nobody", 404), ("HOSPITAL", 404), ("..", 404), ("%00", 404)] {
        let page = Browser::default().get(&format!("{}/launch/{name}?{query}", app.origin)).await;
        assert_eq!(page.status, status, "{name}: {}", page.text);
    }
    for method in ["HEAD", "POST", "PUT"] {
        let page =
            crate::support::send(method, &format!("{}/launch/hospital?{query}", app.origin), &[], "").await;
        assert_eq!(page.status, 405, "{method}");
    }
    assert_eq!(app.hospital.count("discovery.").await, 0);
    // A value of any other kind is the hospital's business, and comes back to it as it was.
    let odd = "a b+c/d=&é;%2F\"<script>";
    let encoded: String = url::form_urlencoded::byte_serialize(odd.as_bytes()).collect();
    let mut browser = Browser::default();
    browser.get(&format!("{}/launch/hospital?iss={iss}&launch={encoded}", app.origin)).await;
    let asked = url::Url::parse(&browser.location().expect("a redirect")).expect("an address");
    assert!(asked.query_pairs().any(|(name, value)| name == "launch" && value == odd), "{asked}");
}

#[tokio::test]
async fn a_registration_that_opens_no_app_opens_none() {
    let app = TestApp::start().await;
    let iss: String = url::form_urlencoded::byte_serialize(app.hospital.base.as_bytes()).collect();
    let page = Browser::default().get(&format!("{}/launch/hospital?iss={iss}&launch=a", app.origin)).await;
    assert_eq!(page.status, 403, "{}", page.text);
    assert!(page.text.contains("set-up") && page.text.contains("clinic"), "{}", page.text);
    assert!(page.header("location").is_none());
    let reference = page.reference();
    let log = logged();
    let line = log.lines().find(|line| line.contains(&reference)).expect("a line in the log");
    assert!(line.contains("launch_url"), "{line}");
}

#[tokio::test]
async fn a_callback_is_good_once_and_leads_to_the_same_context_again() {
    let app = TestApp::with(setup()).await;
    let mut browser = Browser::default();
    browser.get(&opened(&app, "clinician-1", &app.hospital.users()[0].patient.clone()).await).await;
    let callback = browser.until("/api/auth/smart/callback").await;
    let mut twin = browser.clone();
    let (first, second) = tokio::join!(browser.get(&callback), twin.get(&callback));
    assert_eq!((first.status, second.status), (303, 303), "{} {}", first.text, second.text);
    assert_eq!(first.header("location"), second.header("location"));
    assert_eq!(twin.get(&callback).await.header("location"), first.header("location"));
    assert_eq!(app.hospital.count("token.authorization_code.").await, 1, "the code was sent once");
    context(&app, &handle(first.header("location").expect("on to the app"))).await;
    // Once the context is gone, the address leads to a page.
    app.clock.advance(Duration::from_mins(59));
    assert_eq!(twin.get(&callback).await.status, 303);
    app.clock.advance(Duration::from_mins(2));
    let late = twin.get(&callback).await;
    assert!(late.status == 400 && late.text.contains("open the app again"), "{}", late.text);
}

#[tokio::test]
async fn a_callback_in_another_browser_sends_nothing_anywhere() {
    let app = TestApp::with(setup()).await;
    let mut browser = Browser::default();
    browser.get(&opened(&app, "clinician-1", &app.hospital.users()[0].patient.clone()).await).await;
    let callback = browser.until("/api/auth/smart/callback").await;
    let stranger = Browser::default().get(&callback).await;
    assert_eq!(stranger.status, 400, "{}", stranger.text);
    assert_eq!(stranger.header("x-frame-options"), Some("DENY"));
    // In a frame whose cookies the browser does not keep, the page can be read and says what to do.
    let headers = [("accept", "text/html"), ("sec-fetch-dest", "iframe")];
    let framed = crate::support::send("GET", &callback, &headers, "").await;
    assert_eq!(framed.status, 400);
    assert!(framed.text.contains("inside this page") && framed.text.contains("IT team"), "{}", framed.text);
    assert_eq!(framed.header("x-frame-options"), None);
    assert!(!framed.text.contains("<form") && !framed.text.contains("class=\"actions\""), "{}", framed.text);
    assert_eq!(app.hospital.count("token.").await, 0);
    browser.get(&callback).await;
    context(&app, &handle(&browser.location().expect("on to the app"))).await;
}

#[tokio::test]
async fn a_patients_attempt_and_a_clinicians_are_not_taken_for_each_other() {
    let app = TestApp::with(setup()).await;
    let user = app.hospital.users()[0].clone();
    let mut browser = Browser::default();
    app.hospital.agrees(&user.username).await;
    let (link, _) = app.session("amy-7").await;
    browser.post(&format!("{link}/launch"), &[("source", &app.source.to_string())]).await;
    let patients_way = browser.until("/api/auth/smart/callback").await;
    let handle = launch(&app, &mut browser, &app.hospital.users()[3].patient.clone()).await;
    assert_eq!(
        context(&app, &handle).await["patient"],
        format!("Patient/{}", app.hospital.users()[3].patient)
    );
    browser.get(&patients_way).await;
    let page = browser.follow().await;
    assert!(page.text.contains("Connected to"), "{}", page.text);
    app.pulls_done().await;
    let records = app.records("amy-7", "type=Patient").await;
    assert_eq!(records[0]["resource"]["id"], user.patient.as_str(), "the chart's patient is not amy-7");
}

#[tokio::test]
async fn many_launches_fill_neither_the_browser_nor_the_store() {
    let app = TestApp::with(setup()).await;
    let iss: String = url::form_urlencoded::byte_serialize(app.hospital.base.as_bytes()).collect();
    let address = format!("{}/launch/hospital?iss={iss}&launch=x", app.origin);
    let mut browser = Browser::default();
    for _ in 0..12 {
        app.clock.advance(Duration::from_secs(1));
        assert_eq!(browser.get(&address).await.status, 303);
    }
    assert!(browser.cookie_count() <= 4, "{}", browser.cookie_count());
    let mut busy = None;
    for _ in 0..400 {
        let page = Browser::default().get(&address).await;
        if page.status == 429 {
            busy = Some(page);
            break;
        }
    }
    let busy = busy.expect("a flood is stopped");
    assert!(busy.text.contains("wait a moment"), "{}", busy.text);
    // It is over when the flood is.
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(Browser::default().get(&address).await.status, 303);
}

#[tokio::test]
async fn over_tls_the_cookie_of_a_launch_works_in_the_ehrs_frame_and_a_patients_does_not() {
    let settings = vec![
        ("public_url", "https://connect.clinic.example"),
        ("listen.public.trusted_proxies", "127.0.0.1"),
    ];
    let app = TestApp::with(Setup { settings, ..setup() }).await;
    let iss: String = url::form_urlencoded::byte_serialize(app.hospital.base.as_bytes()).collect();
    let page = Browser::default().get(&format!("{}/launch/hospital?iss={iss}&launch=x", app.origin)).await;
    assert_eq!(page.status, 303, "{}", page.text);
    let cookie = page.header("set-cookie").expect("a cookie");
    assert!(cookie.starts_with("__Host-cg_ehr_launch_"), "{cookie}");
    for part in ["Path=/", "HttpOnly", "SameSite=None", "Secure", "Partitioned"] {
        assert!(cookie.split("; ").any(|known| known == part), "{part}: {cookie}");
    }
    let body = json!({"patient_id": "amy-7", "return_url": "https://a.example/", "connection_id": app.source.to_string()});
    let session = app.api("POST", "/patient-sessions", body).await.ok();
    let link =
        session["url"].as_str().expect("a link").replace("https://connect.clinic.example", &app.origin);
    let page = Browser::default().get(&link).await;
    let cookie = page.header("set-cookie").expect("a cookie");
    assert!(cookie.starts_with("__Host-cg_launch_") && cookie.contains("SameSite=Lax"), "{cookie}");
    // A page of a launch may be framed over TLS only; nothing on it can be pressed.
    let page = Browser::default().get(&format!("{}/launch/hospital", app.origin)).await;
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.ends_with("frame-ancestors https:") && policy.starts_with("default-src 'none'"),
        "{policy}"
    );
    assert_eq!(page.header("x-frame-options"), None);
    let _: Value = app.api("GET", "/patients", Value::Null).await.ok();
}
