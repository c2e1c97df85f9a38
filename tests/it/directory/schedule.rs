//! Lists with an address are kept fresh on a schedule, and cost nothing when they have not changed.

use std::time::Duration;

use chartgate::config::Environment;
use chartgate::directory::DirectoryList;

use crate::support::{ListServer, TestApp};

fn rows(count: usize) -> String {
    let rows: Vec<String> = (0..count)
        .map(|number| format!(r#"{{"name":"Practice {number}","url":"https://h{number}.example/r4"}}"#))
        .collect();
    format!("[{}]", rows.join(","))
}

async fn list(app: &TestApp) -> Option<DirectoryList> {
    app.app().parts().directory.list(Environment::Sandbox, "vendor").await.expect("read")
}

/// Waits until the list is as it should be.
async fn until(app: &TestApp, good: impl Fn(&DirectoryList) -> bool) -> DirectoryList {
    let wait = async {
        loop {
            if let Some(found) = list(app).await.filter(|found| good(found)) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    let found = tokio::time::timeout(Duration::from_mins(1), wait).await.ok();
    let seen = list(app).await;
    found.unwrap_or_else(|| panic!("it does not come to this: {seen:?}"))
}

async fn start(server: &ListServer) -> TestApp {
    let mut app = TestApp::start().await;
    let file = format!(
        "[[directory_list]]\nname = \"vendor\"\nurl = \"{}\"\nevery = \"1d\"\nenvironment = \"sandbox\"\n",
        server.url
    );
    app.restart_with(&file).await;
    app
}

#[tokio::test]
async fn a_list_is_asked_for_when_its_time_has_come_and_not_before() {
    let server = ListServer::start(&rows(30), Some("\"v1\"")).await;
    let app = start(&server).await;
    let first = until(&app, |list| list.entries == 30).await;
    assert_eq!((server.asked(), server.sent()), (1, 1));
    app.clock.advance(Duration::from_hours(23));
    server.serve(&rows(40), Some("\"v1\""));
    // The mark says that nothing has changed, and it is believed.
    app.clock.advance(Duration::from_hours(1));
    let same = until(&app, |list| list.checked_at > first.checked_at).await;
    assert_eq!((server.asked(), server.sent()), (2, 1), "nothing was sent again");
    assert_eq!((same.entries, same.imported_at), (30, first.imported_at));
    server.serve(&rows(40), Some("\"v2\""));
    app.clock.advance(Duration::from_hours(24));
    let fresh = until(&app, |list| list.entries == 40).await;
    assert!(fresh.imported_at > first.imported_at);
    assert_eq!((server.asked(), server.sent()), (3, 2));
    // It is searchable a moment after it is kept.
    let searched = async {
        let find = || app.app().parts().directory.find(Environment::Sandbox, "practice 39", 5).places;
        while find().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), searched).await.expect("searchable");
}

#[tokio::test]
async fn without_a_mark_the_content_decides_and_trouble_keeps_what_was_there() {
    let server = ListServer::start(&rows(30), None).await;
    let app = start(&server).await;
    let first = until(&app, |list| list.entries == 30).await;
    app.clock.advance(Duration::from_hours(24));
    let same = until(&app, |list| list.checked_at > first.checked_at).await;
    assert_eq!((server.asked(), server.sent()), (2, 2));
    assert_eq!((same.imported_at, same.trouble), (first.imported_at, None));
    server.serve("<html>maintenance</html>", None);
    app.clock.advance(Duration::from_hours(24));
    let kept = until(&app, |list| list.trouble.is_some()).await;
    assert_eq!(kept.entries, 30);
    server.serve(&rows(20), None);
    app.clock.advance(Duration::from_hours(24));
    let kept = until(&app, |list| list.checked_at > kept.checked_at).await;
    assert!(kept.trouble.is_some_and(|trouble| trouble.contains("cut short")));
    assert_eq!(kept.entries, 30);
    server.serve(&rows(31), None);
    app.clock.advance(Duration::from_hours(24));
    let good = until(&app, |list| list.entries == 31).await;
    assert_eq!(good.trouble, None);
}
