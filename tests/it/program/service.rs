//! The program under a service manager.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use chartgate::clock::Clock;
use chartgate::server::self_signed;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::support::{Place, Program, run};

/// systemd's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    fn hears(&self) -> String {
        let mut bytes = [0; 1024];
        let length = self.0.recv(&mut bytes).expect("the program says how it is");
        String::from_utf8(bytes[..length].to_vec()).expect("text")
    }
}

fn hang_up(program: &Program) {
    let id = program.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &id]).status().expect("kill").success());
}

/// Whether new connections are shown a certificate of this authority.
async fn shown(port: u16, authority: &str) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM"))
        .expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.is_ok()
}

#[tokio::test]
async fn a_certificate_is_renewed_by_a_signal_and_a_bad_one_changes_nothing() {
    let place = Place::make();
    let socket = place.path("notify");
    let manager = Manager(UnixDatagram::bind(&socket).expect("a socket"));
    manager.0.set_read_timeout(Some(Duration::from_mins(1))).expect("a limit");
    let pair = || self_signed(&["localhost"], &Clock::machine()).expect("a certificate");
    let (first, second) = (pair(), pair());
    let (certificate, key) = (place.path("tls.pem"), place.path("tls.key"));
    let write = |path: &str, text: &str| std::fs::write(path, text).expect("written");
    write(&certificate, &first.certificate_pem);
    write(&key, first.key_pem.expose());
    let settings = [
        format!("listen.public.tls.certificate={certificate}"),
        format!("listen.public.tls.key={key}"),
        format!("public_url=https://localhost:{}", place.port),
    ];
    let config = place.config();
    let serve: Vec<&str> = ["serve", "--config", &config]
        .into_iter()
        .chain(settings.iter().flat_map(|setting| ["--set", setting.as_str()]))
        .collect();
    let program = Program::start_with(("NOTIFY_SOCKET", &socket), &serve);
    let ready = manager.hears();
    assert!(ready.contains("READY=1") && ready.contains("STATUS=serving at 127.0.0.1"), "{ready}");
    assert!(shown(place.port, &first.authority_pem).await, "it is served when that is said");

    write(&certificate, &second.certificate_pem);
    hang_up(&program);
    let (reloading, again) = (manager.hears(), manager.hears());
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert!(again.contains("READY=1"), "{again}");
    program.says("the new certificate is not used");
    assert!(shown(place.port, &first.authority_pem).await, "half a renewal changes nothing");

    write(&key, second.key_pem.expose());
    hang_up(&program);
    assert!(manager.hears().contains("RELOADING=1") && manager.hears().contains("READY=1"));
    assert!(shown(place.port, &second.authority_pem).await);
    assert!(!shown(place.port, &first.authority_pem).await);

    let ended = program.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(manager.hears().contains("STOPPING=1"));
}

#[test]
fn a_watchdog_hears_that_the_program_lives() {
    let place = Place::make();
    let socket = place.path("notify");
    let manager = Manager(UnixDatagram::bind(&socket).expect("a socket"));
    manager.0.set_read_timeout(Some(Duration::from_mins(1))).expect("a limit");
    let program = place.serve_with(&[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "200000")]);
    assert!(manager.hears().contains("READY=1"));
    for _ in 0..3 {
        assert!(manager.hears().contains("WATCHDOG=1"));
    }
    program.stop();
}

#[test]
fn the_manual_and_completions_come_from_the_program_itself() {
    let page = run(&["man"]);
    assert!(page.code == Some(0) && page.out.contains(".TH") && page.out.contains("SIGHUP"), "{page:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        assert!(script.code == Some(0) && script.out.contains("rotate-master"), "{shell}: {script:?}");
    }
    run(&["completions", "cmd"]).refused(2, &["cmd", "bash"]);
}
