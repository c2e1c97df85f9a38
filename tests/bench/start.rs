//! The program itself: how soon it answers over a store with many connections, what memory it holds, how large it is.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chartgate::clock::Clock;
use chartgate::crypto::Random;
use chartgate::store::{MasterKey, Opening, Store};

use crate::support::{PROGRAM, Stopwatch, Stored, Table, fill, float, folder, median, resident, say};

const CONNECTIONS: u64 = 1_000_000;
const STARTS: usize = 7;

pub async fn measure(table: &mut Table) {
    let folder = folder();
    let address = free_address();
    let watch = Stopwatch::start();
    prepare(folder.path(), address).await;
    say(&format!("{CONNECTIONS} connections put into a store in {:.1} s", watch.seconds()));
    let server = |what: &str, after: fn(Child)| {
        let (mut first, mut memory) = (Vec::new(), 0.0);
        for _ in 0..STARTS {
            let (seconds, child) = start(folder.path(), address);
            first.push(seconds * 1000.0);
            memory = f64::max(memory, resident(&child.id().to_string()).0);
            after(child);
        }
        say(&format!("first answer {what}: {first:.1?} ms"));
        (median(first), memory)
    };
    // The first start finds the store as the loader left it.
    stop(start(folder.path(), address).1);
    let empty = median((0..STARTS).map(|_| version_seconds() * 1000.0).collect());
    for (what, after) in [("after a clean stop", stop as fn(Child)), ("after kill -9", kill)] {
        // The first of each kind starts over what the last of the kind before left, which is as good.
        let (first, memory) = server(what, after);
        table.row(
            &format!("first answer {what}, {CONNECTIONS} connections"),
            format!("{first:.1} ms (`--version` alone: {empty:.1} ms)"),
            "50 ms".to_owned(),
            format!("{:.2} (≤ 1)", first / 50.0),
            Some(first < 50.0),
        );
        if what == "after a clean stop" {
            table.row(
                "memory after one request",
                format!("{memory:.1} MB"),
                "30 MB".to_owned(),
                format!("{:.2} (≤ 1)", memory / 30.0),
                Some(memory < 30.0),
            );
        }
    }
    let size = float(std::fs::metadata(PROGRAM).expect("the program").len()) / 1e6;
    table.row(
        "the program's file",
        format!("{size:.1} MB"),
        "25 MB".to_owned(),
        format!("{:.2} (≤ 1)", size / 25.0),
        Some(size < 25.0),
    );
}

fn chartgate(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--config").arg(folder.join("config.toml")).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).env_clear();
    command
}

/// A store as `init` makes it, and connections in it.
async fn prepare(folder: &Path, address: SocketAddr) {
    let data = folder.join("data").to_string_lossy().into_owned();
    let url = format!("http://{address}");
    let arguments = ["init", "--public-url", &url, "--data-dir", &data];
    let made = chartgate(folder, &arguments).output().expect("the program");
    assert!(made.status.success(), "init ended with {}", made.status);
    let text = std::fs::read_to_string(folder.join("master.key")).expect("a key");
    let opening = Opening {
        path: folder.join("data/chartgate.redb"),
        master_key: MasterKey::parse(&text).expect("a key"),
        cache_bytes: 256 << 20,
        create: false,
    };
    let random = Random::system();
    let store = Store::open(&opening, random.clone()).expect("the store");
    let now = Clock::machine().now();
    let as_ = Stored {
        source: random.id(now),
        ehr_client: random.id(now),
        expires_at: now,
        due_at: now.after(Duration::from_hours(24)),
        token_endpoint: None,
    };
    fill(&store, CONNECTIONS, &random, as_).await;
}

/// Starts the server; seconds until `/health` answered.
fn start(folder: &Path, address: SocketAddr) -> (f64, Child) {
    let watch = Stopwatch::start();
    let listen = format!("listen.public.address={address}");
    let mut child = chartgate(folder, &["--set", &listen, "serve"]).spawn().expect("the program");
    while !is_healthy(address) {
        assert!(watch.seconds() < 60.0, "no answer within a minute");
        assert!(child.try_wait().expect("its state").is_none(), "the server ended at once");
        std::thread::sleep(Duration::from_micros(200));
    }
    (watch.seconds(), child)
}

fn is_healthy(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let asked = stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut answer = Vec::new();
    asked.and_then(|()| stream.read_to_end(&mut answer)).is_ok() && answer.starts_with(b"HTTP/1.1 200")
}

fn stop(mut child: Child) {
    // The standard library only knows how to kill.
    let asked = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status();
    assert!(asked.is_ok_and(|status| status.success()), "the server is asked to stop");
    child.wait().expect("stopped");
}

fn kill(mut child: Child) {
    child.kill().expect("killed");
    child.wait().expect("gone");
}

fn version_seconds() -> f64 {
    let watch = Stopwatch::start();
    let ran = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).status();
    assert!(ran.is_ok_and(|status| status.success()));
    watch.seconds()
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}
