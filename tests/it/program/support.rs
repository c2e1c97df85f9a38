//! The real program as a child process: read through its pipes, waited for by what it says, killed when let go.

use std::io::{ErrorKind, Read};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Browser, Page, send};

/// Far more than any step takes on a busy machine; what exceeds it hangs.
const PATIENCE: Duration = Duration::from_mins(2);
/// What systems give out for port 0 and for outgoing connections lies above.
const HIGHEST_PORT: u16 = 32_000;
/// Where the ports of this test run begin is decided by its process, so that two runs do not meet.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// The first of two neighbouring ports that nobody has, below those that the system gives to others meanwhile.
pub fn free_ports() -> u16 {
    let start = u16::try_from(std::process::id() % 1_000).expect("small") * 16;
    loop {
        let offset = start.wrapping_add(NEXT_PORT.fetch_add(2, Ordering::Relaxed)) % 16_000;
        let port = HIGHEST_PORT - 2 - offset;
        let free = |port: u16| {
            TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("::1", port)).is_ok()
        };
        if free(port) && free(port + 1) {
            return port;
        }
    }
}

/// The program with these arguments and nothing of this process's environment.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chartgate"));
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How the program ended and everything it said.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Standard output, which must be exactly one JSON document.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The answer of a command that must have succeeded.
    pub fn ok(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.json()
    }

    /// The exit code; all of `words` must stand on standard error, and nothing on standard output.
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "`{word}` is missing: {self:?}");
        }
        assert_eq!(self.out, "", "an error is no answer");
        assert!(!self.err.contains("panicked"), "{self:?}");
    }
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Ended {
    Program::start(arguments).ended()
}

/// Runs the program to its end as another user; `None` when that one cannot reach it.
pub fn run_as(user: Option<u32>, arguments: &[&str]) -> Option<Ended> {
    let mut command = command(arguments);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    match command.spawn() {
        Ok(child) => Some(Program::of(child).ended()),
        Err(error) if user.is_some() && error.kind() == ErrorKind::PermissionDenied => None,
        Err(error) => panic!("the program starts: {error}"),
    }
}

/// What one pipe has said so far, and whether it is at its end.
#[derive(Default)]
struct Heard {
    text: Mutex<(Vec<u8>, bool)>,
    more: Condvar,
}

impl Heard {
    fn listen(mut pipe: impl Read + Send + 'static) -> Arc<Self> {
        let heard = Arc::new(Self::default());
        let listening = Arc::clone(&heard);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let count = pipe.read(&mut bytes).unwrap_or(0);
                let mut text = listening.text.lock().expect("no panic inside");
                text.0.extend_from_slice(&bytes[..count]);
                text.1 = count == 0;
                listening.more.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        heard
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("no panic inside").0).into_owned()
    }

    /// Waits until the pipe ended or has said something that `found` takes.
    fn until<T>(&self, found: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut answer = None;
        let text = self.text.lock().expect("no panic inside");
        let waited = self.more.wait_timeout_while(text, PATIENCE, |(text, ended)| {
            answer = found(&String::from_utf8_lossy(text));
            answer.is_none() && !*ended
        });
        drop(waited.expect("no panic inside"));
        answer
    }

    fn ended(&self) -> bool {
        let text = self.text.lock().expect("no panic inside");
        let waited = self.more.wait_timeout_while(text, PATIENCE, |(_, ended)| !*ended);
        waited.expect("no panic inside").0.1
    }
}

/// A running program.
pub struct Program {
    child: Child,
    out: Arc<Heard>,
    err: Arc<Heard>,
}

impl Program {
    pub fn start(arguments: &[&str]) -> Self {
        Self::spawn(command(arguments))
    }

    /// Starts it with `folder` as the place for temporary files.
    pub fn start_in(folder: &TempDir, arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        command.env("TMPDIR", folder.path());
        Self::spawn(command)
    }

    /// Starts it with one variable of the environment.
    pub fn start_with(variable: (&str, &str), arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        command.env(variable.0, variable.1);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        Self::of(command.spawn().expect("the program starts"))
    }

    fn of(mut child: Child) -> Self {
        let out = Heard::listen(child.stdout.take().expect("a pipe"));
        let err = Heard::listen(child.stderr.take().expect("a pipe"));
        Self { child, out, err }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is gone already.
    pub fn has_ended(&self) -> bool {
        self.out.text.lock().expect("no panic inside").1
    }

    /// The JSON document it prints when it is ready.
    pub fn document(&self) -> Value {
        let whole = |text: &str| serde_json::from_str(text).ok();
        self.out.until(whole).unwrap_or_else(|| panic!("no document: {} {}", self.out.so_far(), self.said()))
    }

    /// Waits until it has said `text` on standard error.
    pub fn says(&self, text: &str) {
        let said = self.err.until(|said| said.contains(text).then_some(()));
        assert!(said.is_some(), "`{text}` was not said: {}", self.said());
    }

    /// Everything on standard error so far.
    pub fn said(&self) -> String {
        self.err.so_far()
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Ended {
        // Both pipes end with the process, which has no children that could hold them.
        assert!(self.out.ended() && self.err.ended(), "it hangs: {} {}", self.out.so_far(), self.said());
        let code = self.child.wait().expect("an end").code();
        Ended { code, out: self.out.so_far(), err: self.err.so_far() }
    }

    /// Asks it to stop, and waits for its end.
    pub fn stop(self) -> Ended {
        let id = self.child.id().to_string();
        let sent = Command::new("/bin/sh").args(["-c", "kill -TERM \"$0\"", &id]).status().expect("a shell");
        assert!(sent.success());
        self.ended()
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(mut self) -> Ended {
        self.child.kill().expect("it runs");
        self.ended()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `init` made: a configuration, a master key and a store, and a port to serve at.
pub struct Place {
    pub folder: TempDir,
    pub port: u16,
}

impl Place {
    pub fn make() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder"), port: free_ports() };
        let made = place.init();
        assert_eq!(made.code, Some(0), "{made:?}");
        let (config, port) = (place.config(), place.port);
        let text = std::fs::read_to_string(&config).expect("a file");
        let text = text.replace("address = \"127.0.0.1:8080\"", &format!("address = \"127.0.0.1:{port}\""));
        std::fs::write(&config, text).expect("written");
        place
    }

    pub fn init(&self) -> Ended {
        let (config, data) = (self.config(), self.path("data"));
        run(&["init", "--json", "--config", &config, "--public-url", &self.url(""), "--data-dir", &data])
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("text").to_owned()
    }

    pub fn config(&self) -> String {
        self.path("etc/config.toml")
    }

    pub fn store(&self) -> String {
        self.path("data/chartgate.redb")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Runs a command with this configuration.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        run(&[arguments, &["--config", &self.config()]].concat())
    }

    /// Runs a command with `--json`.
    pub fn ask(&self, arguments: &[&str]) -> Ended {
        self.run(&[arguments, &["--json"]].concat())
    }

    /// Serves with a low soft limit of open files, and `hard` as the hard one.
    pub fn serve_with_open_files(&self, hard: u32) -> Program {
        let program = env!("CARGO_BIN_EXE_chartgate");
        let script = format!("ulimit -Sn 100; ulimit -Hn {hard}; exec \"$0\" \"$@\"");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, program, "serve", "--config", &self.config()]);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Program::spawn(command)
    }

    /// Serves with some variables of the environment.
    pub fn serve_with(&self, variables: &[(&str, &str)]) -> Program {
        let mut command = command(&["serve", "--config", &self.config()]);
        command.envs(variables.iter().copied());
        Program::spawn(command)
    }

    /// Serves, and answers already.
    pub fn serve(&self) -> Program {
        let config = self.config();
        let program =
            Program::start(&["serve", "--config", &config, "--set", "log.filter=debug,chartgate=trace"]);
        program.says("chartgate is serving");
        program
    }
}

/// Somebody with an API key.
pub struct Caller {
    pub base: String,
    pub key: String,
}

impl Caller {
    pub async fn api(&self, method: &str, path: &str, body: Value) -> Page {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let authorization = format!("Bearer {}", self.key);
        send(method, &format!("{}{path}", self.base), &[("authorization", &authorization)], &body).await
    }

    /// The link of a session that leads a patient straight to `source`, an id or a base URL.
    pub async fn direct(&self, patient: &str, source: &str) -> String {
        let body = json!({
            "patient_id": patient, "return_url": "https://shop.example/back", "connection_id": source,
        });
        let session = self.api("POST", "/patient-sessions", body).await.ok();
        session["url"].as_str().expect("a link").to_owned()
    }

    /// Takes a patient to the hospital, which agrees by itself, and back; the address of the app, not visited, and the
    /// session's link.
    pub async fn journey(&self, patient: &str, source: &str) -> (String, String) {
        let link = self.direct(patient, source).await;
        let mut browser = Browser::default();
        browser.get(&link).await;
        (browser.until("shop.example").await, link)
    }

    /// The patient's newest connection.
    pub async fn connection(&self, patient: &str) -> Value {
        self.api("GET", &format!("/patients/{patient}"), Value::Null).await.ok()["connections"][0].clone()
    }

    /// The patient's records so far, as type and id, in order.
    pub async fn records(&self, patient: &str) -> Vec<String> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/patients/{patient}/records?count=100{cursor}");
            let page = self.api("GET", &path, Value::Null).await.ok();
            let name = |record: &Value| {
                let text = |key: &str| record["resource"][key].as_str().unwrap_or_default().to_owned();
                format!("{}/{}", text("resourceType"), text("id"))
            };
            all.extend(page["data"].as_array().expect("a list").iter().map(name));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&starting_after={next}"),
                None => break,
            }
        }
        all.sort_unstable();
        all
    }

    /// Waits until all is read that the session's connection leads to; the records.
    pub async fn complete(&self, patient: &str, link: &str) -> Vec<String> {
        let id = self.connection(patient).await["id"].as_str().expect("an id").to_owned();
        let progress = format!("{link}/progress/{id}");
        let over = async {
            while !send("GET", &progress, &[("accept", "text/html")], "").await.text.contains("data-finished")
            {
            }
        };
        let over = tokio::time::timeout(PATIENCE, over).await;
        assert!(over.is_ok(), "{patient} has only {:?}", self.records(patient).await);
        self.records(patient).await
    }
}

/// Controls a sandbox hospital by the document that it printed.
pub async fn control(hospital: &Value, method: &str, what: &str, body: &Value) -> Value {
    let url = format!("{}/{what}", hospital["control_url"].as_str().expect("a url"));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let page = send(method, &url, &[], &body).await;
    assert_eq!(page.status, 200, "{what}: {}", page.text);
    page.json()
}

/// Lets the hospital's first person agree without pages.
pub async fn agrees(hospital: &Value) {
    let username = &hospital["users"][0]["username"];
    control(hospital, "POST", "auto-approve", &json!({ "username": username })).await;
}
