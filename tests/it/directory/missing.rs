//! A place that is not in the directory: what a patient writes about it, and who reads that.

use std::time::Duration;

use chartgate::directory::SourceRequest;
use chartgate::store::{Range, Reader as _, StoreError, Table};
use serde_json::{Value, json};

use crate::support::{Browser, Page, Receiver, TestApp, logged, send};

async fn requests(app: &TestApp) -> Vec<SourceRequest> {
    let parts = app.app().parts();
    let workspace = parts.workspaces.named("sandbox").await.expect("read").expect("there");
    parts.source_requests.list(workspace.id, true, None, 1_000).await.expect("read")
}

async fn tell(link: &str, name: &str) -> Page {
    Browser::default().post(&format!("{link}/not-listed"), &[("name", name)]).await
}

async fn endpoint(app: &TestApp, url: &str, events: &[&str]) {
    app.api("POST", "/webhooks", json!({ "url": url, "events": events })).await.ok();
}

#[tokio::test]
async fn what_a_patient_misses_reaches_staff_and_the_app_that_asked_for_it() {
    let app = TestApp::start().await;
    let (asked, everything) = (Receiver::start().await, Receiver::start().await);
    endpoint(&app, &asked.url, &["chartgate.source.requested"]).await;
    endpoint(&app, &everything.url, &["*"]).await;
    let (link, session) = app.session("amy-7").await;
    let nothing = Browser::default().get(&format!("{link}?q=Zzyzx+Springs")).await.text;
    let form = format!("{}/not-listed?q=Zzyzx+Springs", link.strip_prefix(&app.origin).expect("ours"));
    assert!(nothing.contains(&format!("href=\"{form}\"")), "{nothing}");
    let page = Browser::default().get(&format!("{}{form}", app.origin)).await;
    assert!(page.status == 200 && page.text.contains("value=\"Zzyzx Springs\""), "{}", page.text);
    let pasted = Browser::default().get(&format!("{link}/not-listed?q=https://my.zzyzx.example/x")).await;
    assert!(pasted.text.contains("value=\"https://my.zzyzx.example/x\""), "{}", pasted.text);

    let mut browser = Browser::default();
    let fields = [
        ("name", "Zzyzx Springs Clinic"),
        ("city", "Baker, CA"),
        ("website", "my.zzyzx.example"),
        ("email", "amy@home.example"),
    ];
    browser.post(&format!("{link}/not-listed"), &fields).await;
    let thanks = browser.follow().await;
    assert!(thanks.status == 200 && thanks.text.contains("Thank you"), "{}", thanks.text);
    let kept = requests(&app).await;
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].patient_id.as_str(), kept[0].session.to_string()), ("amy-7", session.clone()));
    assert_eq!(kept[0].place.city.as_deref(), Some("Baker, CA"));

    let told = asked.next().await;
    assert_eq!(told.kind(), "chartgate.source.requested");
    let object = told.json()["data"]["object"].clone();
    let expected = json!({
        "id": kept[0].id.to_string(), "resource_type": "source_request", "patient_id": "amy-7",
        "patient_session_id": session, "name": "Zzyzx Springs Clinic", "city": "Baker, CA",
        "website": "my.zzyzx.example", "email": "amy@home.example",
        "created_at": kept[0].created_at.to_string(),
    });
    assert_eq!(object, expected);
    Browser::default().post(&format!("{link}/done"), &[]).await;
    assert_eq!(everything.next().await.kind(), "patient_session.completed", "a star does not mean it");
    let log = logged();
    assert!(!log.contains("Zzyzx") && !log.contains("amy@home.example"), "what was typed is in the log");
}

#[tokio::test]
async fn a_form_that_cannot_be_taken_comes_back_as_it_was_typed() {
    let app = TestApp::start().await;
    let (link, _) = app.session("amy-7").await;
    let fields =
        [("name", "\"><script>alert(1)</script>"), ("website", "javascript:alert(1)"), ("email", "nobody")];
    let page = Browser::default().post(&format!("{link}/not-listed"), &fields).await;
    assert_eq!(page.status, 422);
    assert!(page.text.contains("Nothing was sent yet"), "{}", page.text);
    assert_eq!(page.text.matches("aria-invalid=\"true\"").count(), 2, "{}", page.text);
    assert!(page.text.contains("value=\"&quot;&gt;&lt;script&gt;alert(1)"), "{}", page.text);
    assert!(!page.text.contains("<script>alert") && !page.text.contains("href=\"javascript"));
    let empty = tell(&link, " \u{200b} ").await;
    assert!(empty.status == 422 && empty.text.contains("Write its name"), "{}", empty.text);
    let huge = tell(&link, &"x".repeat(400_000)).await;
    assert!(huge.status == 422 && huge.text.len() < 20_000, "{} {}", huge.status, huge.text.len());
    assert!(requests(&app).await.is_empty());
    let thanks = Browser::default().get(&format!("{link}/not-listed?sent=1")).await;
    assert!(!thanks.text.contains("Thank you"), "nobody is thanked for nothing");
}

#[tokio::test]
async fn only_a_page_of_an_open_search_takes_it() {
    let app = TestApp::start().await;
    let (link, _) = app.session("amy-7").await;
    let address = format!("{link}/not-listed");
    let form = [("content-type", "application/x-www-form-urlencoded"), ("accept", "text/html")];
    for foreign in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let headers = [&form[..], &[foreign]].concat();
        assert_eq!(send("POST", &address, &headers, "name=Mercy").await.status, 404);
    }
    let (direct, _) = app.direct("ben-3").await;
    assert_eq!(tell(&direct, "Mercy").await.status, 404, "who was sent to one hospital does not search");
    let unknown = format!("{}/c/{}", app.origin, "0".repeat(32));
    assert_eq!(tell(&unknown, "Mercy").await.status, 404);
    app.clock.advance(Duration::from_hours(2));
    assert_eq!(tell(&link, "Mercy").await.status, 410);
    assert!(requests(&app).await.is_empty());
}

#[tokio::test]
async fn who_writes_again_and_again_is_kept_within_bounds() {
    let app = TestApp::start().await;
    let (link, _) = app.session("amy-7").await;
    for name in ["Mercy", " mercy ", "MERCY", "One", "Two", "Three", "Four"] {
        assert_eq!(tell(&link, name).await.status, 303, "{name}");
    }
    assert_eq!(requests(&app).await.len(), 5, "the same place once more is the same");
    let enough = tell(&link, "Five").await;
    assert!(enough.status == 429 && enough.text.contains("several places already"), "{}", enough.text);
    assert_eq!(tell(&link, "Two").await.status, 303, "what was taken stays taken");
    // Over all patients: sixty within an hour.
    for patient in 0..11 {
        let (link, _) = app.session(&format!("p-{patient}")).await;
        for name in ["a", "b", "c", "d", "e"] {
            assert_eq!(tell(&link, name).await.status, 303, "{patient} {name}");
        }
    }
    let (late, _) = app.session("late").await;
    let busy = tell(&late, "Mercy").await;
    assert!(busy.status == 429 && busy.text.contains("in an hour"), "{}", busy.text);
    assert_eq!(requests(&app).await.len(), 60);
    app.clock.advance(Duration::from_mins(61));
    let (later, _) = app.session("later").await;
    assert_eq!(tell(&later, "Mercy").await.status, 303);
}

async fn rows(app: &TestApp) -> usize {
    const NAMES: [Table<()>; 3] = [
        Table::new("source_requests.v1"),
        Table::new("source_requests_by_patient.v1"),
        Table::new("event_data.v1"),
    ];
    let store = &app.app().parts().store;
    let counted = store.read(|view| {
        let mut count = 0;
        for table in NAMES {
            count += view.keys(table, &Range::of(b""))?.len();
        }
        Ok::<_, StoreError>(count)
    });
    counted.await.expect("read")
}

#[tokio::test]
async fn it_is_erased_with_its_patient_and_stays_others() {
    let app = TestApp::start().await;
    endpoint(&app, "https://app.example/", &["chartgate.source.requested"]).await;
    let (amy, _) = app.session("amy-7").await;
    let (ben, _) = app.session("ben-3").await;
    tell(&amy, "Mercy").await;
    tell(&amy, "Lakeside").await;
    tell(&ben, "Mercy").await;
    assert_eq!(rows(&app).await, 9);
    app.api("DELETE", "/patients/amy-7", Value::Null).await.ok();
    assert_eq!(rows(&app).await, 3);
    assert_eq!(requests(&app).await[0].patient_id, "ben-3");
    assert_eq!(tell(&amy, "Late").await.status, 404, "a form that was still open leaves nothing behind");
    assert_eq!(rows(&app).await, 3);
}
