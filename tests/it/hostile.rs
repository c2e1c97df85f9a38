//! A hospital that answers late, twice, or about somebody else, held back at the very moment that hurts: grants, pulls
//! and callbacks against everything that can happen meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chartgate::app::{App, Ground};
use chartgate::clock::Clock;
use chartgate::config::{AuthMethod, Config, Environment, Layers, SmartVersion};
use chartgate::crypto::Random;
use chartgate::directory::{NewEhrClient, NewSource};
use chartgate::events::history::RefreshedBy;
use chartgate::grants::{AccessError, ConnectionStatus};
use chartgate::id::{ConnectionId, SourceId};
use chartgate::records::{PageQuery, Position, PullSettings};
use chartgate::smart::server::Overrides;
use chartgate::smart::token_response::{AuthorizationCode, State};
use chartgate::smart::{CallbackQuery, FhirBaseUrl};
use chartgate::store::{MasterKey, Opening, Store};
use chartgate::workspaces::{NewPatient, NewSession, PatientSession, Patients, SessionMode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

#[expect(clippy::disallowed_methods, reason = "these tests abort what they spawned")]
fn spawn<F: Future<Output: Send> + Send + 'static>(task: F) -> tokio::task::JoinHandle<F::Output> {
    tokio::spawn(task)
}

#[derive(Default)]
struct Hospital {
    /// Bodies of refresh requests as they came.
    refreshes: Mutex<Vec<String>>,
    in_flight: Mutex<(usize, usize)>,
    /// (hold?, status, body)
    answers: Mutex<VecDeque<(bool, u16, String)>>,
    release: Notify,
    codes: Mutex<usize>,
    revoked: Mutex<Vec<String>>,
    fhir: Mutex<Option<String>>,
}

async fn hospital() -> (String, Arc<Hospital>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("it works");
    let base = format!("http://127.0.0.1:{}", listener.local_addr().expect("it works").port());
    let shared = Arc::new(Hospital::default());
    let (b, s) = (base.clone(), shared.clone());
    spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("it works");
            let (base, s) = (b.clone(), s.clone());
            spawn(async move {
                let mut bytes = Vec::new();
                let mut buffer = [0; 8192];
                let (head, body) = loop {
                    let n = stream.read(&mut buffer).await.unwrap_or(0);
                    if n == 0 {
                        return;
                    }
                    bytes.extend_from_slice(&buffer[..n]);
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    if let Some((head, body)) = text.split_once("\r\n\r\n") {
                        let length = head
                            .lines()
                            .find_map(|l| {
                                l.to_ascii_lowercase()
                                    .strip_prefix("content-length: ")
                                    .map(|v| v.parse::<usize>().expect("it works"))
                            })
                            .unwrap_or(0);
                        if body.len() >= length {
                            break (head.to_owned(), body.to_owned());
                        }
                    }
                };
                let path = head.split(' ').nth(1).expect("it works").to_owned();
                let (status, answer) = if path.contains("smart-configuration") {
                    (
                        200,
                        format!(
                            r#"{{"authorization_endpoint":"{base}/authorize","token_endpoint":"{base}/token","revocation_endpoint":"{base}/revoke","code_challenge_methods_supported":["S256"],"capabilities":["client-public"]}}"#
                        ),
                    )
                } else if path == "/revoke" {
                    s.revoked.lock().expect("it works").push(body);
                    (200, "{}".to_owned())
                } else if path == "/token" && body.contains("authorization_code") {
                    let n = {
                        let mut c = s.codes.lock().expect("it works");
                        *c += 1;
                        *c
                    };
                    (
                        200,
                        format!(
                            r#"{{"access_token":"at-code{n}","token_type":"Bearer","expires_in":600,"scope":"patient/Patient.read patient/Observation.read","refresh_token":"rt-code{n}","patient":"p1"}}"#
                        ),
                    )
                } else if path == "/token" {
                    s.refreshes.lock().expect("it works").push(body);
                    {
                        let mut f = s.in_flight.lock().expect("it works");
                        f.0 += 1;
                        f.1 = f.1.max(f.0);
                    }
                    let answer = s.answers.lock().expect("it works").pop_front();
                    let (hold, status, answer) = answer.unwrap_or((false, 503, String::new()));
                    if hold {
                        s.release.notified().await;
                    }
                    s.in_flight.lock().expect("it works").0 -= 1;
                    (status, answer)
                } else {
                    let fixed = s.fhir.lock().expect("it works").clone();
                    match fixed {
                        Some(text) if path.contains("Patient/") => (200, format!(r#"{{"resourceType":"Patient","id":"SOMEBODY-ELSE","x":"{text}"}}"#)),
                        Some(_) => (200, r#"{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Observation","id":"o9","subject":{"reference":"Patient/SOMEBODY-ELSE"}}}]}"#.to_owned()),
                        None => (404, String::new()),
                    }
                };
                let reply = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                    answer.len()
                );
                let _ = stream.write_all(reply.as_bytes()).await;
            });
        }
    });
    (base, shared)
}

struct World {
    app: App,
    hospital: Arc<Hospital>,
    clock: Clock,
    session: PatientSession,
    source: SourceId,
    _dir: tempfile::TempDir,
}

fn connection_of(landing: chartgate::smart::Landing) -> ConnectionId {
    match landing {
        chartgate::smart::Landing::Session { connection, .. } => connection,
        chartgate::smart::Landing::Context { .. } => panic!("a patient's journey lands in a session"),
    }
}

async fn world() -> World {
    let (base, hospital) = hospital().await;
    let dir = tempfile::tempdir().expect("it works");
    let config = Config::load(&Layers {
        file: None,
        file_required: false,
        environment: vec![],
        arguments: vec![
            ("public_url".into(), "http://localhost:9".into()),
            ("data_dir".into(), dir.path().to_string_lossy().into_owned()),
            ("listen.public.trusted_proxies".into(), "127.0.0.1".into()),
        ],
    })
    .map_err(|e| e.to_string())
    .expect("it works");
    let random = Random::system();
    let store = Store::open(
        &Opening {
            path: dir.path().join("s.redb"),
            master_key: MasterKey::generate(&random),
            cache_bytes: 1 << 20,
            create: true,
        },
        random.clone(),
    )
    .expect("it works");
    let clock = Clock::manual(chartgate::clock::Timestamp::from_seconds(1_795_000_000));
    let app = App::build(
        config,
        Ground { store, clock: clock.clone(), random, authorities: None, pulls: PullSettings::default() },
    )
    .await
    .expect("it works");
    let parts = app.parts();
    parts
        .directory
        .ensure_client(NewEhrClient {
            name: "c".into(),
            vendor: "generic".into(),
            environment: Environment::Sandbox,
            client_id: "id".into(),
            auth: AuthMethod::None,
            client_secret: None,
            signing_algorithm: None,
            smart_version: SmartVersion::V1,
            scopes: None,
            launch: None,
        })
        .await
        .expect("it works");
    let source = parts
        .directory
        .ensure_source(NewSource {
            environment: Environment::Sandbox,
            name: "h".into(),
            base: FhirBaseUrl::parse(&format!("{base}/fhir")).expect("it works"),
            ehr_client: "c".into(),
            city: None,
            state: None,
            logo_url: None,
            portal_url: None,
            overrides: Overrides::default(),
        })
        .await
        .expect("it works");
    let ws = parts.workspaces.named("sandbox").await.expect("it works").expect("it works");
    let session = parts
        .sessions
        .create(
            ws.id,
            NewSession {
                patient: NewPatient { patient_id: "amy".into(), ..NewPatient::default() },
                mode: SessionMode::Picker(vec![]),
                return_url: "http://localhost/".into(),
                return_button_label: None,
                metadata: serde_json::Map::default(),
                lifetime: Duration::from_hours(1),
            },
        )
        .await
        .expect("it works");
    let source = source.id;
    World { app, hospital, clock, session, source, _dir: dir }
}

impl World {
    async fn connect(&self) -> ConnectionId {
        let grants = &self.app.parts().grants;
        let departure = grants.begin(&self.session, self.source).await.expect("it works").expect("it works");
        let state = departure
            .location
            .split("state=")
            .nth(1)
            .expect("it works")
            .split('&')
            .next()
            .expect("it works")
            .to_owned();
        let query = CallbackQuery {
            state: Some(State::new(state)),
            code: Some(AuthorizationCode::new("c")),
            error: None,
            iss: None,
        };
        connection_of(grants.callback(query, &[departure.cookie]).await.expect("it works"))
    }
    fn next(&self, hold: bool, status: u16, body: &str) {
        self.hospital.answers.lock().expect("it works").push_back((hold, status, body.to_owned()));
    }
    fn good(n: &str) -> String {
        format!(
            r#"{{"access_token":"at-{n}","token_type":"Bearer","expires_in":600,"refresh_token":"rt-{n}"}}"#
        )
    }
    async fn refreshes(&self, n: usize) {
        let come = async {
            while self.hospital.refreshes.lock().expect("it works").len() < n {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_mins(1), come).await;
        let count = self.hospital.refreshes.lock().expect("it works").len();
        assert!(in_time.is_ok(), "no {n} refreshes: {count}");
    }
    async fn status(&self, id: ConnectionId) -> Option<ConnectionStatus> {
        self.app.parts().grants.connection(id).await.expect("it works").map(|c| c.status)
    }
}

const REFUSED: &str = r#"{"error":"invalid_grant"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_does_not_let_a_second_refresh_start() {
    let w = world().await;
    let id = w.connect().await;
    w.clock.advance(Duration::from_secs(599));
    w.next(true, 200, &World::good("a"));
    w.next(true, 200, &World::good("b"));
    let grants = w.app.parts().grants.clone();
    let first = spawn(async move { grants.access(id, RefreshedBy::Proxy).await.map(drop) });
    w.refreshes(1).await;
    first.abort();
    let grants = w.app.parts().grants.clone();
    let _second = spawn(async move { grants.access(id, RefreshedBy::Proxy).await.map(drop) });
    // Long enough for a request to come, if one were made.
    for _ in 0..20_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        w.hospital.in_flight.lock().expect("it works").1,
        1,
        "invariant 2: refreshes in flight at once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_patient_does_not_come_back_by_a_refused_refresh() {
    let w = world().await;
    let id = w.connect().await;
    w.clock.advance(Duration::from_secs(599));
    w.next(true, 400, REFUSED);
    let grants = w.app.parts().grants.clone();
    let first = spawn(async move { grants.access(id, RefreshedBy::Proxy).await.map(drop) });
    w.refreshes(1).await;
    let parts = w.app.parts();
    let patient = Patients::new(parts.store.clone(), parts.clock.clone(), parts.random.clone())
        .find(w.session.workspace, "amy")
        .await
        .expect("it works")
        .expect("it works");
    parts.records.erase_patient(patient).await.expect("it works");
    assert_eq!(w.status(id).await, None);
    w.hospital.release.notify_one();
    let _ = first.await;
    assert_eq!(w.status(id).await, None, "the erased connection is back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnected_connection_stays_disconnected() {
    let w = world().await;
    let id = w.connect().await;
    w.clock.advance(Duration::from_secs(599));
    w.next(true, 400, REFUSED);
    let grants = w.app.parts().grants.clone();
    let first = spawn(async move { grants.access(id, RefreshedBy::Proxy).await.map(drop) });
    w.refreshes(1).await;
    w.app.parts().grants.disconnect(w.session.patient, id).await.expect("it works");
    w.hospital.release.notify_one();
    let _ = first.await;
    assert_eq!(w.status(id).await, Some(ConnectionStatus::Disconnected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_old_token_does_not_destroy_a_new_grant() {
    let w = world().await;
    let id = w.connect().await;
    w.clock.advance(Duration::from_secs(599));
    w.next(true, 400, REFUSED);
    let grants = w.app.parts().grants.clone();
    let first = spawn(async move { grants.access(id, RefreshedBy::Proxy).await.map(drop) });
    w.refreshes(1).await;
    assert_eq!(w.connect().await, id, "the patient signs in again meanwhile");
    w.hospital.release.notify_one();
    let _ = first.await;
    let access = w.app.parts().grants.access(id, RefreshedBy::Proxy).await;
    assert!(access.is_ok(), "invariant 1 and 3: the new grant is gone: {:?}", access.err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_refresh_does_not_overwrite_a_new_grant() {
    let w = world().await;
    let id = w.connect().await;
    w.clock.advance(Duration::from_secs(599));
    w.next(true, 200, &World::good("old"));
    let grants = w.app.parts().grants.clone();
    let first = spawn(async move { grants.access(id, RefreshedBy::Proxy).await.map(drop) });
    w.refreshes(1).await;
    w.connect().await;
    w.hospital.release.notify_one();
    let _ = first.await;
    w.clock.advance(Duration::from_secs(599));
    w.next(false, 200, &World::good("z"));
    let _ = w.app.parts().grants.access(id, RefreshedBy::Proxy).await;
    let sent = w.hospital.refreshes.lock().expect("it works")[1].clone();
    assert!(sent.contains("rt-code2"), "invariant 1: the newest refresh token was lost; sent {sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_cause_one_request_also_when_it_fails() {
    let w = world().await;
    let id = w.connect().await;
    w.clock.advance(Duration::from_secs(599));
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let g = w.app.parts().grants.clone();
            spawn(
                async move { matches!(g.access(id, RefreshedBy::Proxy).await, Err(AccessError::NotNow(_))) },
            )
        })
        .collect();
    for caller in callers {
        assert!(caller.await.expect("it works"));
    }
    assert_eq!(
        w.hospital.refreshes.lock().expect("it works").len(),
        1,
        "invariant 2: requests for 20 callers"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_persons_resources_are_not_kept() {
    let w = world().await;
    *w.hospital.fhir.lock().expect("it works") = Some("x".into());
    let id = w.connect().await;
    let parts = w.app.parts();
    parts.records.pulls().start();
    let pulled = async {
        while !parts
            .records
            .pulls()
            .latest(id)
            .await
            .expect("it works")
            .is_some_and(|pull| pull.state.is_over())
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), pulled).await.expect("the pull ends");
    let patient = Patients::new(parts.store.clone(), parts.clock.clone(), parts.random.clone())
        .find(w.session.workspace, "amy")
        .await
        .expect("it works")
        .expect("it works");
    let page = parts
        .records
        .page(&patient, PageQuery { types: vec![], since: None, position: Position::First, count: 50 })
        .await
        .expect("it works");
    let texts: Vec<_> = page.records.iter().map(|r| r.resource.get().to_owned()).collect();
    assert!(!texts.iter().any(|t| t.contains("SOMEBODY-ELSE")), "invariant 11: {texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_callback_waits_for_the_first_even_when_the_first_browser_left() {
    let w = world().await;
    let grants = w.app.parts().grants.clone();
    let mut lost = 0;
    for round in 0..40_u64 {
        let departure = grants.begin(&w.session, w.source).await.expect("it works").expect("it works");
        let state = departure
            .location
            .split("state=")
            .nth(1)
            .expect("it works")
            .split('&')
            .next()
            .expect("it works")
            .to_owned();
        let query = || CallbackQuery {
            state: Some(State::new(state.clone())),
            code: Some(AuthorizationCode::new("c")),
            error: None,
            iss: None,
        };
        let (g, q, c) = (grants.clone(), query(), departure.cookie.clone());
        let first = spawn(async move { g.callback(q, &[c]).await.map(drop) });
        // Another number of turns each time, so that the browser leaves at every step of the way.
        for _ in 0..round * 4 {
            tokio::task::yield_now().await;
        }
        first.abort();
        let _ = first.await;
        let landed = grants.callback(query(), &[departure.cookie]).await.expect("it works");
        if w.status(connection_of(landed)).await.is_none() {
            lost += 1;
        }
    }
    assert_eq!(lost, 0, "of 40 journeys whose browser asked twice, so many ended with nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_registration_does_not_receive_or_end_an_old_grant() {
    let w = world().await;
    let id = w.connect().await;
    let parts = w.app.parts();
    parts
        .directory
        .ensure_client(NewEhrClient {
            name: "other".into(),
            vendor: "generic".into(),
            environment: Environment::Sandbox,
            client_id: "OTHER-CLIENT".into(),
            auth: AuthMethod::ClientSecretPost,
            client_secret: Some(chartgate::secret::Secret::new("OTHER-SECRET")),
            signing_algorithm: None,
            smart_version: SmartVersion::V1,
            scopes: None,
            launch: None,
        })
        .await
        .expect("it works");
    let s = parts.directory.source(w.source).expect("it works");
    parts
        .directory
        .ensure_source(NewSource {
            environment: Environment::Sandbox,
            name: "h".into(),
            base: s.base.clone(),
            ehr_client: "other".into(),
            city: None,
            state: None,
            logo_url: None,
            portal_url: None,
            overrides: Overrides::default(),
        })
        .await
        .expect("it works");
    w.clock.advance(Duration::from_secs(599));
    w.next(false, 400, REFUSED);
    let _ = parts.grants.access(id, RefreshedBy::Proxy).await;
    let sent = w.hospital.refreshes.lock().expect("it works")[0].clone();
    assert!(
        !sent.contains("OTHER-SECRET"),
        "a grant of client `id` is refreshed as another client: {sent}; status {:?}",
        w.status(id).await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_come_after_a_disconnect_are_given_back() {
    let w = world().await;
    let id = w.connect().await;
    w.clock.advance(Duration::from_secs(599));
    // A refresh that is answered after the disconnect: are its new tokens given back?
    w.next(true, 200, &World::good("late"));
    let grants = w.app.parts().grants.clone();
    let first = spawn(async move { grants.access(id, RefreshedBy::Proxy).await.map(drop) });
    w.refreshes(1).await;
    w.app.parts().grants.disconnect(w.session.patient, id).await.expect("it works");
    w.hospital.release.notify_one();
    let _ = first.await;
    let given_back = async {
        while !w.hospital.revoked.lock().expect("it works").iter().any(|body| body.contains("rt-late")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), given_back).await.expect("the rotated token is given back");
}

/// What was sent to the token endpoint at the refresh of this number, from 1.
fn sent(w: &World, number: usize) -> String {
    w.hospital.refreshes.lock().expect("it works")[number - 1].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hospital_that_forgot_its_newest_token_is_offered_the_one_before_once() {
    let w = world().await;
    let id = w.connect().await;
    let grants = w.app.parts().grants.clone();
    w.clock.advance(Duration::from_secs(599));
    w.next(false, 200, &World::good("second"));
    grants.access(id, RefreshedBy::Proxy).await.expect("a token");
    // The hospital has lost the exchange in a crash of its own: it knows the token before, not the one it gave.
    w.clock.advance(Duration::from_secs(599));
    w.next(false, 400, REFUSED);
    w.next(false, 200, &World::good("third"));
    grants.access(id, RefreshedBy::Proxy).await.expect("a token all the same");
    assert!(sent(&w, 2).contains("rt-second") && sent(&w, 3).contains("rt-code1"), "{}", sent(&w, 3));
    // Refused with both, it is over, and the hospital's first word is what is told.
    w.clock.advance(Duration::from_secs(599));
    w.next(false, 400, REFUSED);
    w.next(false, 401, r#"{"error":"invalid_client"}"#);
    let refused = grants.access(id, RefreshedBy::Proxy).await;
    assert!(
        matches!(refused, Err(AccessError::NotActive(ConnectionStatus::RefreshFailed))),
        "{:?}",
        refused.err()
    );
    assert!(sent(&w, 4).contains("rt-third") && sent(&w, 5).contains("rt-code1"), "{}", sent(&w, 5));
    assert_eq!(w.hospital.refreshes.lock().expect("it works").len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_worked_makes_the_one_before_forgotten() {
    let w = world().await;
    let id = w.connect().await;
    let grants = w.app.parts().grants.clone();
    w.clock.advance(Duration::from_secs(599));
    w.next(false, 200, &World::good("second"));
    grants.access(id, RefreshedBy::Proxy).await.expect("a token");
    w.clock.advance(Duration::from_secs(599));
    w.next(false, 200, r#"{"access_token":"at-kept","token_type":"Bearer","expires_in":600}"#);
    grants.access(id, RefreshedBy::Proxy).await.expect("a token");
    w.clock.advance(Duration::from_secs(599));
    w.next(false, 400, REFUSED);
    assert!(grants.access(id, RefreshedBy::Proxy).await.is_err());
    assert_eq!(w.hospital.refreshes.lock().expect("it works").len(), 3, "no older token was offered");
    assert_eq!(w.status(id).await, Some(ConnectionStatus::RefreshFailed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_for_another_patients_record_ends_the_connection_and_hands_out_nothing() {
    let w = world().await;
    let id = w.connect().await;
    w.clock.advance(Duration::from_secs(599));
    let other = r#"{"access_token":"at-other","token_type":"Bearer","expires_in":600,"refresh_token":"rt-other","patient":"somebody-else"}"#;
    w.next(false, 200, other);
    let refused = w.app.parts().grants.access(id, RefreshedBy::Proxy).await;
    assert!(
        matches!(refused, Err(AccessError::NotActive(ConnectionStatus::RefreshFailed))),
        "{:?}",
        refused.err()
    );
    let given_back = async {
        while !w.hospital.revoked.lock().expect("it works").iter().any(|body| body.contains("rt-other")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), given_back).await.expect("the other's token is given back");
}
