//! A token endpoint that does no more than answer: over TLS, with a new refresh token each time, and without looking at the
//! assertion. A hospital's own work on the same cores would be measured as ours. It is a process of its own, started by
//! the bench from its own program.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chartgate::shutdown::Shutdown;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::say;

/// The argument that makes this program the endpoint.
pub const ARGUMENT: &str = "--token-endpoint";
/// As long as Oracle Health's.
const ACCESS_TOKEN: usize = 800;
const REFRESH_TOKEN: usize = 260;

/// A running one.
pub struct TokenEndpoint {
    process: Child,
    pub url: String,
    /// Who signed its certificate, in PEM.
    pub authority: Vec<u8>,
}

impl TokenEndpoint {
    pub fn start() -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut process =
            Command::new(program).arg(ARGUMENT).stdout(Stdio::piped()).spawn().expect("the endpoint");
        let output = process.stdout.take().expect("piped");
        let said = serde_json::Deserializer::from_reader(output).into_iter::<Value>().next();
        let said = said.expect("a document").expect("JSON");
        let text = |name: &str| said[name].as_str().expect("a text").to_owned();
        Self { process, url: text("endpoint"), authority: text("authority").into_bytes() }
    }
}

impl Drop for TokenEndpoint {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves until it is killed.
pub async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("no names");
    authority.distinguished_name.push(DnType::CommonName, "bench authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&key).expect("a certificate").pem();
    let leaf_key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(authority, key)).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the usual versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into())
        .expect("a certificate of this key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    say(&json!({ "endpoint": format!("https://127.0.0.1:{port}/token"), "authority": pem }).to_string());
    let count = Arc::new(AtomicU64::new(0));
    let tasks = Shutdown::default();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
        tasks.spawn(async move {
            // A client that goes away ends its connection only.
            let _ = answer_all(stream, &acceptor, &count).await;
        });
    }
}

async fn answer_all(stream: TcpStream, acceptor: &TlsAcceptor, count: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let mut read = Vec::with_capacity(16 << 10);
    loop {
        let Some(length) = request_length(&read) else {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
            continue;
        };
        read.drain(..length);
        let number = count.fetch_add(1, Ordering::Relaxed);
        let body = format!(
            r#"{{"access_token":"{number:ACCESS_TOKEN$}","token_type":"Bearer","expires_in":570,"refresh_token":"{number:REFRESH_TOKEN$}"}}"#
        )
        .replace(' ', "x");
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: no-store\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        stream.flush().await?;
    }
}

/// How long the first request is, when it is there whole.
fn request_length(read: &[u8]) -> Option<usize> {
    let head = read.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&read[..head]).expect("a head").to_ascii_lowercase();
    let (_, rest) = text.split_once("content-length:").expect("a length");
    let body: usize = rest.split("\r\n").next().expect("a line").trim().parse().expect("a length");
    (read.len() >= head + body).then_some(head + body)
}
