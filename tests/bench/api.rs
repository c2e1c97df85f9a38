//! The platform API of the program itself: reads against the same server answering `/health`, creations against durable
//! commits of the same disk, and the export's bytes for a second of our CPU. Client and server share the cores, so every
//! row is a ratio of two measurements in turns.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chartgate::id::{Id as _, SourceId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::commits::write_rate;
use crate::proxy::peers::{Running, chartgate, cpu_seconds, free_address, told};
use crate::support::{
    Browser, CLIENT_ID, Client, Hospital, Stopwatch, Table, float, folder, median, new_store,
};

/// Resources of the patient whose records are read.
const SIZE: usize = 8_000;
/// Requests open at once while reading.
const READERS: usize = 32;
const ROUNDS: usize = 5;
/// How long each turn takes, in seconds.
const TURN: f64 = 0.6;
const EXPORTS: usize = 6;

pub async fn measure(table: &mut Table) {
    let folder = folder();
    let server = Server::start(folder.path()).await;
    reads(table, &server).await;
    export(table, &server).await;
    creations(table, &server, folder.path()).await;
}

async fn reads(table: &mut Table, server: &Server) {
    for (what, path, least) in [
        ("GET /patients/{id}", "/patients/bench", Some(0.5)),
        ("GET /patients, a page of 10", "/patients", None),
        ("GET /patients/{id}/records, 50 of them", "/patients/bench/records?count=50", None),
    ] {
        let asked = |path: &str| {
            let request = server.caller.request("GET", path, "");
            move || request.clone()
        };
        let (mut health, mut ours) = (Turns::default(), Turns::default());
        for _ in 0..ROUNDS {
            health.add(server.load(READERS, asked("/health")).await);
            ours.add(server.load(READERS, asked(path)).await);
        }
        let (rate, late) = (ours.rate() / health.rate(), ours.late() / health.late());
        table.row(
            what,
            ours.text(),
            format!("/health {}", health.text()),
            format!(
                "{rate:.2}{}, p99 {late:.2}",
                least.map_or(String::new(), |least| format!(" (≥ {least})"))
            ),
            least.map(|least| rate >= least),
        );
    }
}

/// Creations leave their marks, so they come last.
async fn creations(table: &mut Table, server: &Server, folder: &Path) {
    let raw = folder.join("raw");
    std::fs::create_dir(&raw).expect("a folder");
    let store = new_store(&raw);
    let number = Arc::new(AtomicU64::new(0));
    for (what, path) in [("POST /patients", "/patients"), ("POST /patient-sessions", "/patient-sessions")] {
        for clients in [1, 64] {
            let (mut limit, mut ours) = (Vec::new(), Turns::default());
            for _ in 0..ROUNDS {
                limit.push(write_rate(&store, clients).await);
                let (number, caller) = (Arc::clone(&number), server.caller.clone());
                let next = move || {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    let body = if path == "/patients" {
                        json!({ "patient_id": format!("new-{number}"), "email": format!("{number}@app.example") })
                    } else {
                        json!({ "patient_id": "bench", "return_url": "https://shop.example/back" })
                    };
                    caller.request("POST", path, &body.to_string())
                };
                ours.add(server.load(usize::try_from(clients).expect("small"), next).await);
            }
            let limit = median(limit);
            let rate = ours.rate() / limit;
            let least = (clients > 1).then_some(0.6);
            table.row(
                &format!("{what}, {clients} at once"),
                ours.text(),
                format!("durable writes {limit:.0}/s"),
                format!("{rate:.2}{}", least.map_or(String::new(), |least| format!(" (≥ {least})"))),
                least.map(|least| rate >= least),
            );
        }
    }
}

async fn export(table: &mut Table, server: &Server) {
    let path = "/patients/bench/records/export";
    let mut client = Client::connect(&server.origin()).await;
    let authorization = format!("Bearer {}", server.caller.key);
    let headers = [("authorization", authorization.as_str())];
    let whole = client.send("GET", path, &headers, String::new()).await;
    assert_eq!(whole.status, 200);
    let before = cpu_seconds(server.process.0.id());
    let (watch, mut bytes) = (Stopwatch::start(), 0);
    for _ in 0..EXPORTS {
        bytes += client.send("GET", path, &headers, String::new()).await.body.len() as u64;
    }
    let (seconds, cpu) = (watch.seconds(), cpu_seconds(server.process.0.id()) - before);
    let megabytes = float(bytes) / 1e6;
    table.row(
        &format!("export of {:.1} MB", float(whole.body.len() as u64) / 1e6),
        format!("{:.0} MB for a second of our CPU, {:.0} MB/s", megabytes / cpu, megabytes / seconds),
        "200 MB".to_owned(),
        format!("{:.2} (≥ 1)", megabytes / cpu / 200.0),
        Some(megabytes / cpu >= 200.0),
    );
}

/// What came of one turn.
struct Turn {
    count: u64,
    seconds: f64,
    /// Of the server.
    cpu: f64,
    /// Microseconds.
    late: f64,
}

#[derive(Default)]
struct Turns(Vec<Turn>);

impl Turns {
    fn add(&mut self, turn: Turn) {
        self.0.push(turn);
    }

    fn rate(&self) -> f64 {
        median(self.0.iter().map(|turn| float(turn.count) / turn.seconds).collect())
    }

    fn late(&self) -> f64 {
        median(self.0.iter().map(|turn| turn.late).collect())
    }

    fn text(&self) -> String {
        let cpu: f64 = self.0.iter().map(|turn| turn.cpu).sum();
        let count: u64 = self.0.iter().map(|turn| turn.count).sum();
        let late = self.late();
        format!("{:.0}/s, p99 {late:.0} µs, {:.0} µs CPU each", self.rate(), cpu / float(count) * 1e6)
    }
}

/// The program, with one patient who has records.
struct Server {
    caller: Caller,
    process: Running,
}

#[derive(Clone)]
struct Caller {
    address: SocketAddr,
    key: String,
}

impl Caller {
    fn request(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
            self.address,
            self.key,
            body.len()
        );
        [head.as_bytes(), body.as_bytes()].concat()
    }
}

impl Server {
    async fn start(folder: &Path) -> Self {
        let hospital = Hospital::start(Some(SIZE));
        let address = free_address();
        let origin = format!("http://{address}");
        let registered = json!({
            "client_id": CLIENT_ID,
            "redirect_uris": [format!("{origin}/api/auth/smart/callback")],
            "jwks_uri": format!("{origin}/api/auth/.well-known/jwks"),
        });
        hospital.tell("clients", &registered).await;
        hospital.tell("auto-approve", &json!({ "username": "patient-11" })).await;

        let listen = format!("listen.public.address={address}");
        let data = format!("data_dir={}", folder.join("data").to_string_lossy());
        std::fs::create_dir(folder.join("data")).expect("a folder");
        let settings =
            ["--set", &listen, "--set", &data, "--set", "api.rate=100000", "--set", "api.burst=100000"];
        let run = |arguments: &[&str]| told(folder, &[&settings[..], arguments].concat());
        run(&["init", "--public-url", &origin]);
        let client = ["--vendor", "cerner", "--environment", "sandbox", "--client-id", CLIENT_ID];
        run(&[&["ehr-client", "add", "--name", "bench", "--auth", "private_key_jwt"], &client[..]].concat());
        run(&["source", "add", "--name", "Bench", "--url", &hospital.fhir_base_url, "--ehr-client", "bench"]);
        let key = run(&["api-key", "create", "--workspace", "sandbox", "--name", "bench"]);
        let key = key["api_key"].as_str().expect("a key").to_owned();
        let mut command = chartgate(folder, &[&settings[..], &["serve"]].concat());
        let process = Running(command.stdout(std::process::Stdio::null()).spawn().expect("the program"));
        let server = Self { caller: Caller { address, key }, process };
        server.connect(&hospital).await;
        server
    }

    fn origin(&self) -> String {
        format!("http://{}", self.caller.address)
    }

    /// Takes the patient through the launch, and waits for the records.
    async fn connect(&self, hospital: &Hospital) {
        while TcpStream::connect(self.caller.address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut client = Client::connect(&self.origin()).await;
        let sources = self.ask(&mut client, "GET", "/connections", "").await;
        let source = sources["data"][0]["id"].as_str().expect("a source");
        let source = SourceId::parse(source).expect("an id");
        let body = json!({ "patient_id": "bench", "return_url": "https://shop.example/back" });
        let session = self.ask(&mut client, "POST", "/patient-sessions", &body.to_string()).await;
        let link = session["url"].as_str().and_then(|url| url.strip_prefix(&self.origin())).expect("a link");
        let mut browser = Browser::open(&[self.origin(), hospital.origin().to_owned()]).await;
        browser.launch(link, source).await;
        // The list of patients has a page to show.
        for number in 0..20 {
            let body = json!({ "patient_id": format!("other-{number}"), "name": "Amy Example" });
            self.ask(&mut client, "POST", "/patients", &body.to_string()).await;
        }
        self.settled(&mut client).await;
    }

    /// Waits until the number of records no longer grows.
    async fn settled(&self, client: &mut Client) {
        let authorization = format!("Bearer {}", self.caller.key);
        let headers = [("authorization", authorization.as_str())];
        let mut before = 0;
        loop {
            let path = "/patients/bench/records/export";
            let now = client.send("GET", path, &headers, String::new()).await.body.len();
            if now > 0 && now == before {
                return;
            }
            before = now;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    /// So many clients, each with a connection of its own, ask again and again for one turn.
    async fn load(&self, clients: usize, next: impl Fn() -> Vec<u8> + Clone + Send + 'static) -> Turn {
        let mut tasks = JoinSet::new();
        let before = cpu_seconds(self.process.0.id());
        let watch = Stopwatch::start();
        for _ in 0..clients {
            let (address, next) = (self.caller.address, next.clone());
            tasks.spawn(async move {
                let mut line = Line::open(address).await;
                let (watch, mut times) = (Stopwatch::start(), Vec::new());
                while watch.seconds() < TURN {
                    let (request, one) = (next(), Stopwatch::start());
                    line.ask(&request).await;
                    times.push(one.seconds() * 1e6);
                }
                times
            });
        }
        let mut times = tasks.join_all().await.concat();
        let (seconds, cpu) = (watch.seconds(), cpu_seconds(self.process.0.id()) - before);
        times.sort_by(f64::total_cmp);
        Turn { count: times.len() as u64, seconds, cpu, late: times[times.len() * 99 / 100] }
    }

    async fn ask(&self, client: &mut Client, method: &str, path: &str, body: &str) -> Value {
        let authorization = format!("Bearer {}", self.caller.key);
        let headers = [("authorization", authorization.as_str())];
        let answer = client.send(method, path, &headers, body.to_owned()).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        serde_json::from_slice(&answer.body).expect("JSON")
    }
}

/// One kept connection that costs its own side little: the answers are those of one known server.
struct Line {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Line {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, read: vec![0; 256 << 10] }
    }

    /// Sends a request and reads the answer, which must be a success of a length that is told before.
    async fn ask(&mut self, request: &[u8]) {
        self.stream.write_all(request).await.expect("sent");
        let (mut end, mut whole) = (0, None);
        while whole.is_none_or(|whole| end < whole) {
            let more = self.stream.read(&mut self.read[end..]).await.expect("an answer");
            assert!(
                more > 0,
                "cut, or longer than expected: {}",
                String::from_utf8_lossy(&self.read[..end.min(400)])
            );
            end += more;
            whole = whole.or_else(|| length(&self.read[..end]));
        }
        assert!(self.read.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.read[..end]));
    }
}

/// Bytes of head and body together, once the head is there.
fn length(read: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(read, b"\r\n\r\n")?;
    let named = memchr::memmem::find(&read[..head], b"content-length: ").expect("a length");
    let digits = read[named + 16..].iter().take_while(|byte| byte.is_ascii_digit());
    let body = digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    Some(head + 4 + body)
}
