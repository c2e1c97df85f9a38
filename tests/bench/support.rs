//! An appliance and a sandbox hospital on real sockets, a browser that keeps its connections, a stopwatch and a table.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chartgate::app::{App, Ground};
use chartgate::clock::{Clock, Timestamp};
use chartgate::config::{AuthMethod, Config, Environment, Layers, SmartVersion};
use chartgate::crypto::{Algorithm, KeyPair, Random};
use chartgate::directory::{NewEhrClient, NewSource};
use chartgate::grants::{Connection, ConnectionStatus, Grant};
use chartgate::id::{ConnectionId, EhrClientId, Id as _, SourceId};
use chartgate::records::PullSettings;
use chartgate::server::Transport;
use chartgate::shutdown::Shutdown;
use chartgate::smart::server::Overrides;
use chartgate::smart::{EhrPatientId, FhirBaseUrl};
use chartgate::store::{MasterKey, Opening, Store, StoreError, Table as StoreTable};
use chartgate::telemetry::{self, LogFormat};
use chartgate::workspaces::{NewPatient, NewSession, SessionMode};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

/// The program, built with the same profile.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_chartgate");
pub const CLIENT_ID: &str = "11111111-2222-3333-4444-555555555555";

/// Time that has passed.
pub struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// The middle one; of an even number, the upper of the two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub fn cores() -> f64 {
    float(std::thread::available_parallelism().map_or(1, usize::from) as u64)
}

/// Prints a line.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Lines are formatted as in production, and go nowhere.
pub fn log_to_nowhere() {
    let subscriber = telemetry::subscriber("info", LogFormat::Text, std::io::sink).expect("a filter");
    tracing::subscriber::set_global_default(subscriber).expect("the first");
}

/// Seconds that the threads of this process have computed; a thread that has ended no longer counts.
pub fn computed() -> f64 {
    computed_by(|_| true)
}

/// Of these, the seconds of the threads that commit.
pub fn committed() -> f64 {
    computed_by(|name| name == "committer")
}

fn computed_by(counts: impl Fn(&str) -> bool) -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = |file: &str| std::fs::read_to_string(thread.path().join(file)).ok();
        if !counts(text("comm")?.trim_end()) {
            return None;
        }
        text("schedstat")?.split(' ').next()?.parse::<u64>().ok()
    });
    float(nanoseconds.sum()) / 1e9
}

/// A folder on the disk that the build is on, not on a temporary file system in memory.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

/// A new store with the cache of the shipped configuration.
pub fn new_store(folder: &Path) -> Store {
    let opening = Opening {
        path: folder.join("chartgate.redb"),
        master_key: MasterKey::generate(&Random::system()),
        cache_bytes: 64 << 20,
        create: true,
    };
    Store::open(&opening, Random::system()).expect("a store")
}

/// What a connection and its grant look like to whoever fills a store with many.
#[derive(Clone, Copy)]
pub struct Stored {
    pub source: SourceId,
    pub ehr_client: EhrClientId,
    /// When the access tokens end.
    pub expires_at: Timestamp,
    /// When the grants are due.
    pub due_at: Timestamp,
    /// Where they are renewed; Oracle Health's when nothing is said.
    pub token_endpoint: Option<&'static str>,
}

const GRANTS: StoreTable<Grant> = StoreTable::new("grants.v1");
const GRANTS_DUE: StoreTable<()> = StoreTable::new("grants_due.v1");

/// Puts active connections with grants into a store, each due at some time of its own; the ids of the last batch.
pub async fn fill(store: &Store, count: u64, random: &Random, as_: Stored) -> Vec<ConnectionId> {
    let started = Clock::machine().now();
    let mut last = Vec::new();
    let each = count.clamp(1, 20_000);
    for batch in 0..count / each {
        let random = random.clone();
        let written = store.write(move |change| {
            let mut ids = Vec::new();
            for place in batch * each..(batch + 1) * each {
                let at = started.after(Duration::from_millis(place));
                let connection = stored_connection(&random, at, as_);
                let due = as_.due_at.after(Duration::from_millis(place));
                connection.put(change);
                change.put(GRANTS, &connection.id.to_bytes(), &stored_grant(&random, as_, due));
                let millis = u64::try_from(due.millis()).expect("after 1970");
                let key = [&millis.to_be_bytes()[..], &connection.id.to_bytes()].concat();
                change.put(GRANTS_DUE, &key, &());
                ids.push(connection.id);
            }
            Ok::<_, StoreError>(ids)
        });
        last = written.await.expect("written");
    }
    last
}

fn stored_connection(random: &Random, at: Timestamp, as_: Stored) -> Connection {
    let scope = |name: &&str| format!("patient/{name}.read");
    let scopes: Vec<String> = chartgate::smart::RESOURCE_TYPES.iter().map(scope).collect();
    Connection {
        id: random.id(at),
        workspace: random.id(at),
        patient: random.id(at),
        source: as_.source,
        ehr_client: as_.ehr_client,
        session: None,
        launch_context: None,
        status: ConnectionStatus::Active,
        ehr_patient: EhrPatientId::parse("12724066").ok(),
        requested_scopes: scopes.clone(),
        scopes,
        failure: None,
        created_at: at,
        updated_at: at,
    }
}

/// With tokens as long as Oracle Health's.
fn stored_grant(random: &Random, as_: Stored, due_at: Timestamp) -> Grant {
    let endpoint = as_.token_endpoint.unwrap_or(
        "https://authorization.cerner.com/tenants/t/hosts/h/protocols/oauth2/profiles/smart-v1/token",
    );
    let grant = json!({
        "access_token": random.token::<600>(), "received_at": as_.expires_at.before(Duration::from_hours(24 * 300)),
        "expires_at": as_.expires_at, "refresh_token": random.token::<200>(), "superseded": random.token::<200>(),
        "token_server": {
            "endpoint": endpoint, "audience": endpoint, "algorithm": "RS384", "send_client_id": true, "revocation": null,
        },
        "due_at": due_at,
    });
    serde_json::from_value(grant).expect("a grant")
}

/// How fast one core signs.
pub struct Signs {
    pub rate: f64,
    /// Microseconds each.
    pub cpu: f64,
}

/// Signs for a while with a key.
pub fn sign(key: &KeyPair) -> Signs {
    let (cpu, watch, mut count) = (computed(), Stopwatch::start(), 0);
    while watch.seconds() < 0.4 {
        key.sign(Algorithm::Rs384, b"header.claims").expect("signed");
        count += 1;
    }
    Signs { rate: float(count) / watch.seconds(), cpu: (computed() - cpu) / float(count) * 1e6 }
}

/// Megabytes that a process holds in memory: now, and at most since it began.
pub fn resident(process: &str) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1000.0
    };
    (value("VmRSS:"), value("VmHWM:"))
}

/// `what | measured | limit | ratio`
#[derive(Default)]
pub struct Table(Vec<[String; 5]>);

impl Table {
    /// `good` says whether the ratio is what was promised; `None` where nothing is.
    pub fn row(&mut self, what: &str, measured: String, limit: String, ratio: String, good: Option<bool>) {
        let verdict = match good {
            Some(true) => "ok",
            Some(false) => "MISSED",
            None => "",
        };
        let row = [what.to_owned(), measured, limit, ratio, verdict.to_owned()];
        say(&row.join(" | "));
        self.0.push(row);
    }

    pub fn print(&self) {
        let head = ["what", "measured", "limit or budget", "ratio", ""].map(str::to_owned);
        let rows: Vec<&[String; 5]> = std::iter::once(&head).chain(&self.0).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [0, 1, 2, 3, 4].map(width);
        say("");
        for row in rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            say(cells.collect::<Vec<_>>().join(" | ").trim_end());
        }
    }
}

/// The sandbox hospital, in a process of its own, so that what it computes is not counted as ours.
pub struct Hospital {
    process: Child,
    pub fhir_base_url: String,
    control_url: String,
}

impl Hospital {
    pub fn start(size: Option<usize>) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["--json", "sandbox", "--port", "0"]).stdout(Stdio::piped()).stderr(Stdio::null());
        if let Some(size) = size {
            command.args(["--size", &size.to_string()]);
        }
        let mut process = command.spawn().expect("the program");
        let output = process.stdout.take().expect("piped");
        let document = serde_json::Deserializer::from_reader(output).into_iter::<Value>().next();
        let document = document.expect("a document").expect("JSON");
        let text = |name: &str| document[name].as_str().expect("a text").to_owned();
        Self { fhir_base_url: text("fhir_base_url"), control_url: text("control_url"), process }
    }

    pub fn origin(&self) -> &str {
        self.control_url.strip_suffix("/control").expect("the control's address")
    }

    pub async fn tell(&self, what: &str, body: &Value) {
        let mut client = Client::connect(self.origin()).await;
        let address = format!("{}/{what}", self.control_url);
        let answer = client.send("POST", &address, &[], body.to_string()).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }
}

impl Drop for Hospital {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An appliance in this process, registered at a sandbox hospital.
pub struct Bench {
    pub app: App,
    pub source: SourceId,
    origin: String,
    hospital: Hospital,
    _folder: TempDir,
}

impl Bench {
    /// With a patient of `size` resources, and as many pulls at once as `pulls` says; 0 lets all of them wait.
    pub async fn start(size: Option<usize>, pulls: usize) -> Self {
        Self::trusting(size, pulls, None).await
    }

    /// The same, with a certificate authority more.
    pub async fn trusting(size: Option<usize>, pulls: usize, authorities: Option<Vec<u8>>) -> Self {
        let clock = Clock::machine();
        let hospital = Hospital::start(size);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = format!("http://127.0.0.1:{}", listener.local_addr().expect("an address").port());
        let client = json!({
            "client_id": CLIENT_ID,
            "redirect_uris": [format!("{origin}/api/auth/smart/callback")],
            "jwks_uri": format!("{origin}/api/auth/.well-known/jwks"),
        });
        hospital.tell("clients", &client).await;

        let folder = folder();
        let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let layers = Layers {
            file: None,
            file_required: false,
            environment: Vec::new(),
            arguments: vec![set("public_url", &origin), set("data_dir", &folder.path().to_string_lossy())],
        };
        let ground = Ground {
            store: new_store(folder.path()),
            clock,
            random: Random::system(),
            authorities,
            // What a pull costs is measured, not how polite it is.
            pulls: PullSettings { at_once: pulls, rate: 100_000, burst: 100_000, ..PullSettings::default() },
        };
        let config = Config::load(&layers).unwrap_or_else(|errors| panic!("{errors}"));
        let app = App::build(config, ground).await.expect("the appliance is built");
        let source = register(&app, &hospital.fhir_base_url).await;
        let serving = app.clone();
        // Not counted by its own `Shutdown`, which `serve` itself waits for.
        Shutdown::default().spawn(async move { serving.serve(vec![listener], Transport::Plain).await });
        Self { app, source, origin, hospital, _folder: folder }
    }

    /// Lets a person agree without pages.
    pub async fn agrees(&self, username: &str) {
        self.hospital.tell("auto-approve", &json!({ "username": username })).await;
    }

    /// Addresses for [`Browser::open`].
    pub fn origins(&self) -> [String; 2] {
        [self.origin.clone(), self.hospital.origin().to_owned()]
    }

    /// The path of a new patient's connect page.
    pub async fn link(&self, patient: &str) -> String {
        let parts = self.app.parts();
        let workspace = parts.workspaces.named("sandbox").await.expect("read").expect("there");
        let session = NewSession {
            patient: NewPatient { patient_id: patient.to_owned(), ..NewPatient::default() },
            mode: SessionMode::Picker(Vec::new()),
            return_url: "https://shop.example/back".to_owned(),
            return_button_label: None,
            metadata: serde_json::Map::new(),
            lifetime: Duration::from_hours(1),
        };
        let session = parts.sessions.create(workspace.id, session).await.expect("a session");
        format!("/c/{}", session.token.expose())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.app.parts().shutdown.trigger();
    }
}

async fn register(app: &App, base: &str) -> SourceId {
    let directory = &app.parts().directory;
    let client = NewEhrClient {
        name: "hospital".to_owned(),
        vendor: "cerner".to_owned(),
        environment: Environment::Sandbox,
        client_id: CLIENT_ID.to_owned(),
        auth: AuthMethod::PrivateKeyJwt,
        client_secret: None,
        signing_algorithm: None,
        smart_version: SmartVersion::V1,
        scopes: None,
        launch: None,
    };
    directory.ensure_client(client).await.expect("a registration");
    let source = NewSource {
        environment: Environment::Sandbox,
        name: "Mercy Hospital".to_owned(),
        base: FhirBaseUrl::parse(base).expect("a base"),
        ehr_client: "hospital".to_owned(),
        city: None,
        state: None,
        logo_url: None,
        portal_url: None,
        overrides: Overrides::default(),
    };
    directory.ensure_source(source).await.expect("a source").id
}

/// One kept-alive connection to one server.
pub struct Client {
    authority: String,
    sender: SendRequest<Full<Bytes>>,
}

/// What a browser looks at.
pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    /// `name=value`
    pub cookies: Vec<String>,
    pub body: Bytes,
}

impl Client {
    pub async fn connect(origin: &str) -> Self {
        let authority = origin.strip_prefix("http://").expect("http").to_owned();
        let stream = TcpStream::connect(&authority).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        Shutdown::default().spawn(async move {
            let _ = connection.await;
        });
        Self { authority, sender }
    }

    /// `address` is a path, or a URL of this server.
    pub async fn send(
        &mut self,
        method: &str,
        address: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Answer {
        let path = address.strip_prefix("http://").map_or(address, |rest| {
            rest.strip_prefix(self.authority.as_str()).expect("an address of this server")
        });
        let mut request = Request::builder().method(method).uri(path).header("host", &self.authority);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        self.sender.ready().await.expect("an open connection");
        let (head, body) = self.sender.send_request(request).await.expect("an answer").into_parts();
        let text = |name: &str| {
            let values = head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.map(str::to_owned).collect::<Vec<_>>()
        };
        let cookies = text("set-cookie").into_iter();
        Answer {
            status: head.status.as_u16(),
            location: text("location").pop(),
            cookies: cookies.filter_map(|cookie| cookie.split(';').next().map(str::to_owned)).collect(),
            body: body.collect().await.expect("a body").to_bytes(),
        }
    }
}

/// A patient's browser, connected to the appliance and to the hospital.
pub struct Browser {
    appliance: Client,
    hospital: Client,
}

impl Browser {
    pub async fn open([appliance, hospital]: &[String; 2]) -> Self {
        Self { appliance: Client::connect(appliance).await, hospital: Client::connect(hospital).await }
    }

    /// From the click to the answer of the callback, which is after the connection is on disk; where it leads.
    pub async fn launch(&mut self, link: &str, source: SourceId) -> String {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let left =
            self.appliance.send("POST", &format!("{link}/launch"), &form, format!("source={source}")).await;
        assert_eq!(left.status, 303, "{:?}", left.body);
        let away = left.location.expect("a way to the hospital");
        let agreed = self.hospital.send("GET", &away, &[], String::new()).await;
        let back = agreed.location.expect("a way back");
        let cookie = left.cookies.join("; ");
        let landed = self.appliance.send("GET", &back, &[("cookie", &cookie)], String::new()).await;
        landed.location.expect("a result")
    }
}
