//! How long records are kept.

use std::time::Duration;

use serde_json::Value;

use crate::support::TestApp;

#[tokio::test]
async fn records_go_when_their_time_after_the_end_of_access_is_over_and_no_others() {
    const MINUTES: u64 = 30 * 24 * 60;
    const KEEP: Duration = Duration::from_mins(MINUTES);
    let app = TestApp::start().await;
    let users = app.hospital.users();
    let ended = app.connected("amy-7", &users[0].username).await;
    app.connected("ben-3", &users[1].username).await;
    app.pulls_done().await;
    let kept = async |patient: &str| app.records(patient, "").await.len();
    let (of_amy, of_ben) = (kept("amy-7").await, kept("ben-3").await);
    assert!(of_amy > 15 && of_ben > 15, "{of_amy} {of_ben}");

    let erased = async || app.app().parts().records.erase_ended(KEEP).await.expect("looked");
    app.clock.advance(KEEP * 2);
    assert_eq!(erased().await, 0, "access goes on");
    app.api("DELETE", &format!("/patients/amy-7/connections/{ended}"), Value::Null).await.ok();
    app.clock.advance(Duration::from_mins(MINUTES - 1));
    assert_eq!((erased().await, kept("amy-7").await), (0, of_amy));
    app.clock.advance(Duration::from_mins(2));
    assert_eq!((erased().await, kept("amy-7").await), (of_amy, 0));
    assert_eq!((erased().await, kept("ben-3").await), (0, of_ben));
}
