//! The hospital, nginx and the appliance, each a process of its own behind TLS, and a patient who has connected.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use super::{GIGABYTE, SIZES, wire};
use crate::support::{PROGRAM, float};

const NGINX: &str = "/usr/sbin/nginx";

pub struct Peers {
    pub hospital: SocketAddr,
    pub key: wire::Key,
    nginx: SocketAddr,
    ours: SocketAddr,
    connection: String,
    /// The master process, whose children work.
    nginx_process: Running,
    our_process: Running,
    _hospital_process: Running,
}

impl Peers {
    /// `None` where there is no nginx.
    pub async fn start(folder: &Path) -> Option<Self> {
        if !Path::new(NGINX).exists() {
            return None;
        }
        certificates(folder);
        bodies(folder);
        let [hospital, nginx, ours] = [free_address(), free_address(), free_address()];
        let hospital_process = start_nginx(folder, "hospital", &hospital_site(folder, hospital));
        let nginx_process = start_nginx(folder, "peer", &peer_site(hospital, nginx));
        let roots = wire::trusting(&fs::read(folder.join("ca.pem")).expect("written above"));
        let (our_process, key) = start_ours(folder, hospital, ours, &roots).await;
        let key = wire::Key { text: key, roots };
        wire::wait_for(nginx, "/fhir/Basic/2048", &key).await;
        let connection = connect(&key, ours).await;
        Some(Self {
            hospital,
            key,
            nginx,
            ours,
            connection,
            nginx_process,
            our_process,
            _hospital_process: hospital_process,
        })
    }

    /// Address, path and process of one of the two proxies.
    pub fn target(&self, nginx: bool, what: &str) -> (SocketAddr, String, u32) {
        if nginx {
            (self.nginx, format!("/fhir/{what}"), self.nginx_process.0.id())
        } else {
            (self.ours, format!("/fhir/{}/{what}", self.connection), self.our_process.0.id())
        }
    }
}

/// A process that ends with this one.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // nginx's workers end with their master only when it is asked.
        let _ = Command::new("kill").arg("-TERM").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// CPU of a process and its children, in seconds; the kernel counts in hundredths.
pub fn cpu_seconds(process: u32) -> f64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ticks = processes.filter_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let parent: u32 = fields.get(1)?.parse().ok()?;
        if id != process && parent != process {
            return None;
        }
        let of = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok());
        Some(of(11)? + of(12)?)
    });
    float(ticks.sum()) / 100.0
}

/// The most memory a process has held, in MB.
pub fn peak_megabytes(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or_default();
    float(kilobytes) / 1024.0
}

pub fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// An authority and a P-256 certificate for this machine.
fn certificates(folder: &Path) {
    let key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("no names");
    // The same name on both would make the second one look self-signed.
    authority.distinguished_name.push(DnType::CommonName, "bench authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&key).expect("a certificate");
    let issuer = Issuer::new(authority, key);
    let leaf_key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("names");
    let leaf = leaf.signed_by(&leaf_key, &issuer).expect("a certificate");
    fs::write(folder.join("ca.pem"), certificate.pem()).expect("written");
    fs::write(folder.join("tls.pem"), leaf.pem()).expect("written");
    fs::write(folder.join("tls.key"), leaf_key.serialize_pem()).expect("written");
}

/// Bundles as hospitals write them: a link about every two kilobytes. `BASE` is put in when the port is known.
fn bodies(folder: &Path) {
    fs::create_dir_all(folder.join("fhir/Basic")).expect("a folder");
    let file = fs::File::create(folder.join("fhir/Basic/gigabyte")).expect("a file");
    file.set_len(GIGABYTE).expect("a sparse file");
    file.write_at(b"{\"x\":\"", 0).expect("written");
}

fn bundle(base: &str, bytes: usize) -> String {
    let mut text = format!(
        "{{\"resourceType\":\"Bundle\",\"link\":[{{\"relation\":\"self\",\"url\":\"{base}/x\"}}],\"entry\":["
    );
    let mut number = 0;
    while text.len() + 200 < bytes {
        let filler = "y".repeat((bytes - text.len() - 200).min(1800));
        let _ = write!(
            text,
            "{{\"fullUrl\":\"{base}/Basic/{number}\",\"resource\":{{\"id\":\"{number}\",\"x\":\"{filler}\"}}}},"
        );
        number += 1;
    }
    let rest = bytes.saturating_sub(text.len() + 13);
    let _ = write!(text, "{{\"x\":\"{}\"}}]}}", "z".repeat(rest));
    text
}

fn hospital_site(folder: &Path, address: SocketAddr) -> String {
    let base = format!("https://{address}/fhir");
    for (_, bytes) in SIZES {
        fs::write(folder.join(format!("fhir/Basic/{bytes}")), bundle(&base, bytes)).expect("written");
    }
    let origin = format!("https://{address}");
    let discovery = json!({
        "authorization_endpoint": format!("{origin}/authorize"), "token_endpoint": format!("{origin}/token"),
        "capabilities": ["client-public"], "code_challenge_methods_supported": ["S256"],
    });
    let token = json!({
        "access_token": "a".repeat(900), "token_type": "Bearer", "expires_in": 36000, "patient": "p1",
        "scope": "patient/Patient.read", "refresh_token": "r",
    });
    format!(
        "server {{ listen {address} ssl; root {}; default_type application/fhir+json; open_file_cache max=100; \
         location = /fhir/.well-known/smart-configuration {{ default_type application/json; return 200 '{discovery}'; }} \
         location = /token {{ default_type application/json; return 200 '{token}'; }} }}",
        folder.display()
    )
}

fn peer_site(hospital: SocketAddr, address: SocketAddr) -> String {
    format!(
        "upstream hospital {{ server {hospital}; keepalive 256; keepalive_requests 1000000000; }} \
         server {{ listen {address} ssl http2; location / {{ proxy_pass https://hospital; proxy_http_version 1.1; \
         proxy_set_header Connection ''; proxy_set_header Host {hospital}; proxy_set_header Authorization 'Bearer {}'; \
         proxy_ssl_trusted_certificate ca.pem; proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_session_reuse on; proxy_ssl_protocols TLSv1.3; \
         proxy_buffers 64 16k; proxy_buffer_size 16k; proxy_busy_buffers_size 64k; proxy_max_temp_file_size 0; }} }}",
        "a".repeat(900)
    )
}

fn start_nginx(folder: &Path, name: &str, site: &str) -> Running {
    // Workers of a root's nginx would be somebody who cannot read the folder.
    let owner = fs::metadata(folder).map_or(0, |about| about.uid());
    let user = if owner == 0 { "user root; " } else { "" };
    let text = format!(
        "{user}daemon off; worker_processes 2; pid {name}.pid; error_log {name}.log; events {{ worker_connections 4096; }}\n\
         http {{ access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000000; client_body_temp_path {name}.1; \
         proxy_temp_path {name}.2; fastcgi_temp_path {name}.3; uwsgi_temp_path {name}.4; scgi_temp_path {name}.5; \
         ssl_certificate tls.pem; ssl_certificate_key tls.key; ssl_protocols TLSv1.3;\n{site} }}"
    );
    let file = folder.join(format!("{name}.conf"));
    fs::write(&file, text).expect("written");
    let mut command = Command::new(NGINX);
    command.arg("-p").arg(folder).arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().expect("nginx"))
}

pub fn chartgate(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().arg("--json").arg("--config").arg(folder.join("config.toml")).args(arguments);
    command.stderr(Stdio::null());
    command
}

pub fn told(folder: &Path, arguments: &[&str]) -> Value {
    let output = chartgate(folder, arguments).output().expect("the program");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

async fn start_ours(
    folder: &Path,
    hospital: SocketAddr,
    ours: SocketAddr,
    roots: &Arc<rustls::ClientConfig>,
) -> (Running, String) {
    let (data, url) = (folder.join("data"), format!("https://{ours}"));
    fs::create_dir_all(&data).expect("a folder");
    let set = |key: &str, value: &str| format!("{key}={value}");
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let settings = [
        set("data_dir", &data.to_string_lossy()),
        set("listen.public.address", &ours.to_string()),
        set("listen.public.tls.certificate", &path("tls.pem")),
        set("listen.public.tls.key", &path("tls.key")),
        set("outbound.ca_file", &path("ca.pem")),
        set("api.rate", "100000"),
        set("api.burst", "100000"),
        set("fhir.parallel_per_source", "1024"),
        set("limits.connections_per_address", "5000"),
    ];
    let with = |arguments: &[&str]| {
        let set = settings.iter().flat_map(|one| ["--set".to_owned(), one.clone()]);
        set.chain(arguments.iter().map(|one| (*one).to_owned())).collect::<Vec<String>>()
    };
    let run = |arguments: &[&str]| {
        let all = with(arguments);
        told(folder, &all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    run(&["init", "--public-url", &url]);
    let client = ["--vendor", "generic", "--environment", "sandbox", "--client-id", "x", "--auth", "none"];
    run(&[&["ehr-client", "add", "--name", "bench"], client.as_slice()].concat());
    let base = format!("https://{hospital}/fhir");
    run(&["source", "add", "--name", "Bench", "--url", &base, "--ehr-client", "bench"]);
    let key = run(&["api-key", "create", "--workspace", "sandbox", "--name", "bench"]);
    let key = key["api_key"].as_str().expect("a key").to_owned();
    let all = with(&["serve"]);
    let mut command = chartgate(folder, &all.iter().map(String::as_str).collect::<Vec<_>>());
    let child = Running(command.stdout(Stdio::null()).spawn().expect("the program"));
    wire::wait_for(ours, "/health", &wire::Key { text: String::new(), roots: Arc::clone(roots) }).await;
    (child, key)
}

/// Takes a patient through the launch; the hospital has no pages, so the way back is made up.
async fn connect(key: &wire::Key, ours: SocketAddr) -> String {
    let body = json!({"patient_id": "bench", "return_url": "https://app.example/"});
    let session = wire::ask(ours, "POST", "/patient-sessions", key, &[], &body.to_string()).await;
    let session: Value = serde_json::from_slice(&session.body).expect("json");
    let link = session["url"].as_str().expect("a link");
    let link = &link[link.find("/c/").expect("a path")..];
    let sources = wire::ask(ours, "GET", "/connections", key, &[], "").await;
    let sources: Value = serde_json::from_slice(&sources.body).expect("json");
    let form = format!("source={}", sources["data"][0]["id"].as_str().expect("a source"));
    let kind = [("content-type", "application/x-www-form-urlencoded"), ("accept", "text/html")];
    let left = wire::ask(ours, "POST", &format!("{link}/launch"), key, &kind, &form).await;
    let away = left.header("location").expect("a way to the hospital");
    let state = away.split("state=").nth(1).and_then(|rest| rest.split('&').next()).expect("a state");
    let cookie = left.header("set-cookie").expect("a cookie");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    let back = format!("/api/auth/smart/callback?code=c&state={state}");
    wire::ask(ours, "GET", &back, key, &[("cookie", &cookie), ("accept", "text/html")], "").await;
    let patient = wire::ask(ours, "GET", "/patients/bench", key, &[], "").await;
    let patient: Value = serde_json::from_slice(&patient.body).expect("json");
    assert_eq!(patient["connections"][0]["status"], "active", "{patient}");
    // The records' pull is over before anything is measured.
    tokio::time::sleep(Duration::from_secs(2)).await;
    patient["connections"][0]["id"].as_str().expect("an id").to_owned()
}
