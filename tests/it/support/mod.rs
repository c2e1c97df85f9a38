//! An appliance and a sandbox hospital on real sockets, with one manual clock, and a browser that does what it is told.

mod browser;
mod list_server;
mod log;
mod receiver;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chartgate::body::Body;

use chartgate::app::{App, Ground};
use chartgate::clock::{Clock, Timestamp};
use chartgate::config::{AuthMethod, Config, Environment, Layers, SmartVersion};
use chartgate::crypto::Random;
use chartgate::directory::{LaunchTarget, NewEhrClient, NewSource};
use chartgate::id::SourceId;
use chartgate::outbound::{Outbound, OutboundSettings};
use chartgate::records::PullSettings;
use chartgate::sandbox::population::Population;
use chartgate::sandbox::{Personality, RegisteredClient, Sandbox, SandboxOptions};
use chartgate::server::{self, Peer, RequestBody, Transport};
use chartgate::shutdown::Shutdown;
use chartgate::smart::FhirBaseUrl;
use chartgate::smart::server::Overrides;
use chartgate::store::{MasterKey, OpenError, Opening, Store};
use chartgate::workspaces::NewApiKeyTerms;
use http_body_util::{BodyExt as _, Full};
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub use browser::{Browser, Page, head, send, send_for_bytes};
pub use list_server::ListServer;
pub use log::logged;
pub use receiver::{Delivery, Reaction, Receiver};

pub const CLIENT_ID: &str = "11111111-2222-3333-4444-555555555555";
pub const SYNTHETIC_SECRET: &str = "a secret of no importance";

/// Answers to be given as they are, by what stands behind the FHIR base and before the query.
pub type Answers = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// The synthetic hospital of a test.
pub struct Hospital {
    pub sandbox: Arc<Sandbox>,
    pub answers: Answers,
    pub base: String,
    control: String,
    shutdown: Shutdown,
}

impl Hospital {
    pub async fn start(clock: &Clock, personality: Personality, population: Arc<Population>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = format!("http://127.0.0.1:{}", listener.local_addr().expect("an address").port());
        let outbound = Outbound::new(&OutboundSettings::default()).expect("a client");
        let sandbox = Sandbox::new(SandboxOptions {
            origin,
            clock: clock.clone(),
            random: Random::system(),
            population,
            personality,
            clients: Vec::new(),
            fetch_jwks: chartgate::cli::fetch_jwks(outbound),
        })
        .expect("a hospital");
        let shutdown = Shutdown::default();
        let (served, stop) = (Arc::clone(&sandbox), shutdown.clone());
        let answers = Answers::default();
        let prepared = Arc::clone(&answers);
        let below = url::Url::parse(&sandbox.fhir_base_url()).expect("a url").path().to_owned();
        let handler = move |peer: Peer, request: Request<RequestBody>| {
            let path = request.uri().path().strip_prefix(&below).unwrap_or_default();
            let answer = prepared.lock().expect("no panic inside").get(path.trim_start_matches('/')).cloned();
            let sandbox = Arc::clone(&served);
            async move {
                match answer {
                    Some(bytes) => fhir_answer(bytes),
                    None => sandbox.handle(peer.address, request).await,
                }
            }
        };
        let drain = Duration::from_secs(2);
        shutdown.spawn(async move {
            let limits = server::Limits::default();
            server::serve(vec![listener], Transport::Plain, limits, handler, &stop, drain).await;
        });
        Self { base: sandbox.fhir_base_url(), control: sandbox.control_url(), sandbox, answers, shutdown }
    }

    /// From now on the FHIR server answers to `what` (`Observation`, `Binary/7`) with these bytes.
    pub fn answers(&self, what: &str, bytes: impl Into<Vec<u8>>) {
        self.answers.lock().expect("no panic inside").insert(what.to_owned(), bytes.into());
    }

    /// Turns fault switches on.
    pub async fn faults(&self, switches: Value) {
        self.control("POST", "faults", &switches).await;
    }

    /// Turns all of them off.
    pub async fn well(&self) {
        self.control("DELETE", "faults", &Value::Null).await;
    }

    /// Lets a person agree without pages.
    pub async fn agrees(&self, username: &str) {
        self.control("POST", "auto-approve", &json!({ "username": username })).await;
    }

    pub async fn control(&self, method: &str, what: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let page = send(method, &format!("{}/{what}", self.control), &[], &body).await;
        assert_eq!(page.status, 200, "{method} {what}: {}", page.text);
        page.json()
    }

    /// How often something happened, such as `token.refresh_token.ok`; `token.` adds up everything that begins so.
    pub async fn count(&self, name: &str) -> u64 {
        let counters = self.control("GET", "counters", &Value::Null).await;
        let counters = counters.as_object().cloned().unwrap_or_default();
        counters
            .iter()
            .filter(|(known, _)| *known == name || (name.ends_with('.') && known.starts_with(name)))
            .filter_map(|(_, count)| count.as_u64())
            .sum()
    }

    /// What the hospital noted of requests of a kind, in their order.
    pub async fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.control("GET", "log", &Value::Null).await;
        let lines = log.as_array().expect("a list").iter();
        lines.filter(|line| line["kind"] == kind).cloned().collect()
    }

    pub fn users(&self) -> Vec<chartgate::sandbox::SandboxUser> {
        self.sandbox.users()
    }
}

fn fhir_answer(bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(bytes)).map_err(Into::into).boxed_unsync());
    let json = HeaderValue::from_static("application/fhir+json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    response
}

impl Drop for Hospital {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

/// The appliance of a test, registered at its hospital.
pub struct TestApp {
    running: Option<App>,
    pub hospital: Hospital,
    pub clock: Clock,
    pub origin: String,
    pub key: String,
    pub source: SourceId,
    pub folder: Arc<tempfile::TempDir>,
    pub master_key: MasterKey,
}

/// How a test's appliance differs from the usual one.
pub struct Setup {
    pub personality: Personality,
    pub vendor: &'static str,
    pub auth: AuthMethod,
    pub secret: &'static str,
    pub overrides: fn(&Hospital) -> Overrides,
    pub client: fn(RegisteredClient) -> RegisteredClient,
    pub smart_version: SmartVersion,
    pub scopes: Option<Vec<String>>,
    pub settings: Vec<(&'static str, &'static str)>,
    /// The app that the hospital opens.
    pub launch: Option<LaunchTarget>,
    pub pulls: PullSettings,
    pub size: Option<usize>,
    pub population: Option<Arc<Population>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            personality: Personality::CernerPatient,
            vendor: "cerner",
            auth: AuthMethod::PrivateKeyJwt,
            secret: SYNTHETIC_SECRET,
            overrides: |_| Overrides::default(),
            client: |client| client,
            smart_version: SmartVersion::V1,
            scopes: None,
            settings: Vec::new(),
            launch: None,
            pulls: PullSettings {
                backoff: Duration::from_millis(1),
                longest_backoff: Duration::from_millis(5),
                longest_rest: Duration::from_millis(20),
                rate: 1_000_000,
                burst: 1_000_000,
                // Tests move the clock by days.
                every: Duration::ZERO,
                page_bytes: 4 << 20,
                ..PullSettings::default()
            },
            size: None,
            population: None,
        }
    }
}

impl TestApp {
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        log::start();
        let clock = Clock::manual(Timestamp::parse("2026-11-02T08:00:00Z").expect("a time"));
        let population = setup.population.clone();
        let population =
            population.unwrap_or_else(|| Arc::new(Population::synthetic(&Random::seeded(1), setup.size)));
        let hospital = Hospital::start(&clock, setup.personality, population).await;
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let master_key = MasterKey::generate(&Random::system());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = format!("http://127.0.0.1:{}", listener.local_addr().expect("an address").port());
        let app = build(folder.path(), &master_key, &origin, &clock, &setup).await;
        let registered = RegisteredClient {
            jwks_uri: Some(format!("{origin}/api/auth/.well-known/jwks").parse().expect("a url")),
            secret: setup.auth.needs_secret().then(|| chartgate::secret::Secret::new(setup.secret)),
            confidential: setup.auth != AuthMethod::None,
            ..RegisteredClient::new(CLIENT_ID, format!("{origin}/api/auth/smart/callback"))
        };
        let registered = RegisteredClient {
            launch_url: setup.launch.is_some().then(|| format!("{origin}/launch/hospital")),
            ..registered
        };
        let registered = (setup.client)(registered);
        hospital.control("POST", "clients", &as_json(&registered)).await;
        let source = register(&app, &hospital, &setup).await;
        let workspace = app.parts().workspaces.named("sandbox").await.expect("read").expect("there");
        let key =
            app.parts().api_keys.create(&workspace, "test", NewApiKeyTerms::default()).await.expect("a key");
        let key = key.text.expose().to_owned();
        serve(&app, listener);
        Self { running: Some(app), hospital, clock, origin, key, source, folder, master_key }
    }

    /// The running appliance.
    pub fn app(&self) -> &App {
        self.running.as_ref().expect("running")
    }

    /// Stops the appliance.
    pub async fn stop(&mut self) {
        let Some(app) = self.running.take() else { return };
        app.parts().shutdown.trigger();
        assert!(app.parts().shutdown.drained(Duration::from_secs(20)).await, "the old appliance stops");
    }

    /// Stops the appliance and starts another on what is on disk, at the same address.
    pub async fn restart(&mut self) {
        self.restart_with("").await;
    }

    /// The same, with a configuration file that says this.
    pub async fn restart_with(&mut self, file: &str) {
        self.stop().await;
        let folder = self.folder.path();
        std::fs::write(folder.join("config.toml"), file).expect("written");
        let app = build(folder, &self.master_key, &self.origin, &self.clock, &Setup::default()).await;
        let address = self.origin.strip_prefix("http://").expect("http").to_owned();
        serve(&app, TcpListener::bind(address).await.expect("the same port"));
        self.running = Some(app);
    }

    /// Calls the API.
    pub async fn api(&self, method: &str, path: &str, body: Value) -> Page {
        self.api_as(&self.key, method, path, body).await
    }

    pub async fn api_as(&self, key: &str, method: &str, path: &str, body: Value) -> Page {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let authorization = format!("Bearer {key}");
        send(method, &format!("{}{path}", self.origin), &[("authorization", &authorization)], &body).await
    }

    /// Starts a picker session and returns its link and id.
    pub async fn session(&self, patient: &str) -> (String, String) {
        // Two things of one millisecond have no order.
        self.clock.advance(Duration::from_secs(1));
        let body = json!({ "patient_id": patient, "return_url": "https://shop.example/back?cart=1" });
        let session = self.api("POST", "/patient-sessions", body).await.ok();
        let text = |name: &str| session[name].as_str().expect("text").to_owned();
        (text("url"), text("id"))
    }

    /// Starts a direct session and returns its link and id.
    pub async fn direct(&self, patient: &str) -> (String, String) {
        let body = json!({
            "patient_id": patient, "return_url": "https://shop.example/back?cart=1",
            "connection_id": self.source.to_string(),
        });
        let session = self.api("POST", "/patient-sessions", body).await.ok();
        let text = |name: &str| session[name].as_str().expect("text").to_owned();
        (text("url"), text("id"))
    }

    /// Takes a patient through the picker to the hospital and back; the last page.
    pub async fn journey(&self, browser: &mut Browser, link: &str) -> Page {
        let source = self.source.to_string();
        browser.post(&format!("{link}/launch"), &[("source", &source)]).await;
        browser.follow().await
    }

    /// A connected patient, with all records read.
    pub async fn connected(&self, patient: &str, username: &str) -> String {
        self.hospital.agrees(username).await;
        let (link, _) = self.session(patient).await;
        let page = self.journey(&mut Browser::default(), &link).await;
        assert_eq!(page.status, 200, "{}", page.text);
        self.pulls_done().await;
        self.connection(patient).await["id"].as_str().expect("an id").to_owned()
    }

    /// The patient's newest connection.
    pub async fn connection(&self, patient: &str) -> Value {
        let detail = self.api("GET", &format!("/patients/{patient}"), Value::Null).await.ok();
        detail["connections"][0].clone()
    }

    /// Waits until nothing is being pulled.
    pub async fn pulls_done(&self) {
        let wait = async {
            loop {
                let wanted = self.app().parts().store.read(|view| {
                    use chartgate::store::{Range, Reader as _, StoreError};
                    view.keys(chartgate::grants::PULLS_WANTED, &Range::of(b""))
                        .map_err(|error: StoreError| error)
                });
                if wanted.await.expect("read").is_empty() && self.app().parts().records.pulls().is_idle() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), wait).await.expect("pulls end");
    }

    /// All records of a patient, over all pages.
    pub async fn records(&self, patient: &str, query: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self
                .api("GET", &format!("/patients/{patient}/records?{query}{cursor}"), Value::Null)
                .await
                .ok();
            all.extend(page["data"].as_array().expect("a list").iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&starting_after={next}"),
                None => return all,
            }
        }
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if let Some(app) = &self.running {
            app.parts().shutdown.trigger();
        }
    }
}

fn as_json(client: &RegisteredClient) -> Value {
    json!({
        "client_id": client.client_id,
        "redirect_uris": client.redirect_uris,
        "launch_url": client.launch_url,
        "jwks_uri": client.jwks_uri.as_ref().map(ToString::to_string),
        "secret": client.secret.as_ref().map(chartgate::secret::Secret::expose),
        "smart_version": client.smart_version,
        "scopes": client.scopes,
        "offline": client.offline,
        "confidential": client.confidential,
    })
}

/// An appliance over the store in a folder, which is made when there is none.
pub async fn build(
    folder: &std::path::Path,
    master_key: &MasterKey,
    origin: &str,
    clock: &Clock,
    setup: &Setup,
) -> App {
    let mut arguments: Vec<(String, String)> = vec![
        ("public_url".to_owned(), origin.to_owned()),
        ("clinic_name".to_owned(), "North Clinic".to_owned()),
        ("data_dir".to_owned(), folder.to_string_lossy().into_owned()),
        // The clock stands still, so no allowance would ever come back.
        ("api.burst".to_owned(), "1000000".to_owned()),
    ];
    arguments.extend(setup.settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let file = Some(folder.join("config.toml"));
    let layers = Layers { file, file_required: false, environment: Vec::new(), arguments };
    let config = Config::load(&layers).unwrap_or_else(|errors| panic!("{errors}"));
    let opening = Opening {
        path: folder.join("chartgate.redb"),
        master_key: master_key.clone(),
        cache_bytes: 4 << 20,
        create: true,
    };
    let random = Random::system();
    // The last task of an appliance that was just stopped may hold the store for a moment longer.
    let store = loop {
        match Store::open(&opening, random.clone()) {
            Ok(store) => break store,
            Err(OpenError::InUse(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    let ground =
        Ground { store, clock: clock.clone(), random, authorities: None, pulls: setup.pulls.clone() };
    App::build(config, ground).await.expect("the appliance is built")
}

async fn register(app: &App, hospital: &Hospital, setup: &Setup) -> SourceId {
    let directory = &app.parts().directory;
    directory
        .ensure_client(NewEhrClient {
            name: "hospital".to_owned(),
            vendor: setup.vendor.to_owned(),
            environment: Environment::Sandbox,
            client_id: CLIENT_ID.to_owned(),
            auth: setup.auth,
            client_secret: setup.auth.needs_secret().then(|| chartgate::secret::Secret::new(setup.secret)),
            signing_algorithm: None,
            smart_version: setup.smart_version,
            scopes: setup.scopes.clone(),
            launch: setup.launch.clone(),
        })
        .await
        .expect("a registration");
    let source = NewSource {
        environment: Environment::Sandbox,
        name: "Mercy Hospital".to_owned(),
        base: FhirBaseUrl::parse(&hospital.base).expect("a base"),
        ehr_client: "hospital".to_owned(),
        city: Some("Springfield".to_owned()),
        state: Some("IL".to_owned()),
        logo_url: None,
        portal_url: None,
        overrides: (setup.overrides)(hospital),
    };
    directory.ensure_source(source).await.expect("a source").id
}

fn serve(app: &App, listener: TcpListener) {
    let serving = app.clone();
    // Not counted by its own `Shutdown`, which `serve` itself waits for.
    let starter = Shutdown::default();
    starter.spawn(async move { serving.serve(vec![listener], Transport::Plain).await });
}

/// The folder of captured documents and published synthetic patients, when this machine has one; else it says so.
#[expect(clippy::disallowed_methods, reason = "the folder belongs to the machine, not to the program")]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub fn test_data() -> Option<std::path::PathBuf> {
    let folder = std::env::var_os("CHARTGATE_TEST_DATA").map(std::path::PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: CHARTGATE_TEST_DATA is not set");
    }
    folder
}
