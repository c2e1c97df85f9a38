//! `demo` and `sandbox`: everything on this machine, nothing to configure.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use url::Url;

use crate::app::{App, Ground};
use crate::cli::arguments::{Demo, SandboxArguments};
use crate::cli::run::{listen_for_commands, raise_open_files, start_log, stop_on_signal};
use crate::cli::{Failure, init, output};
use crate::clock::Clock;
use crate::config::{AuthMethod, Config, Environment, Layers, PublicUrl, SmartVersion};
use crate::crypto::Random;
use crate::directory::{DirectoryError, LaunchTarget, NewEhrClient, NewSource};
use crate::http::{ConnectPage, Route};
use crate::outbound::{Call, Outbound, OutboundSettings, Reach};
use crate::records::PullSettings;
use crate::sandbox::population::Population;
use crate::sandbox::{FetchedJwks, JwksFetcher, Personality, RegisteredClient, Sandbox, SandboxOptions};
use crate::server::{self, Peer, RequestBody, TlsHandle, Transport};
use crate::shutdown::Shutdown;
use crate::smart::FhirBaseUrl;
use crate::smart::server::Overrides;
use crate::store::{MasterKey, Opening, Store};
use crate::telemetry::LogFormat;
use crate::workspaces::{NewApiKeyTerms, NewPatient, NewSession, SessionMode};

/// The port that the vendor guides use for local development, so that their redirect URI fits.
const USUAL_PORT: u16 = 3000;
/// The demo's registrations at its own hospital, for patients and for charts. Not secrets: a client id is in every
/// authorization URL.
const CLIENT_ID: &str = "4d0c5e1a-7b2f-4c7e-9a43-d3300c1a0b00";
const CHART_CLIENT_ID: &str = "4d0c5e1a-7b2f-4c7e-9a43-d3300c1a0b01";
/// The name of the second, which is in its launch address.
const CHART_CLIENT: &str = "sandbox-chart";
const HOSPITAL: &str = "Sandbox Hospital";
const HOSPITAL_CHARTS: &str = "Sandbox Hospital (charts)";

/// Runs the appliance and the sandbox hospital until the process is stopped.
pub async fn demo(arguments: Demo, json: bool, environment: Vec<(String, String)>) -> Result<(), Failure> {
    start_log("warn", LogFormat::Text)?;
    // Before the folder is made: a demo that is stopped at once removes it, too.
    let stop = Shutdown::default();
    stop_on_signal(&stop);
    raise_open_files(None);
    let folder = DataFolder::make(arguments.data_dir.as_deref())?;
    let (appliance, hospital) = listen_for_both(arguments.port)?;
    let scheme = if arguments.tls { "https" } else { "http" };
    let base_url = format!("{scheme}://localhost:{}", appliance.port);
    let hospital_origin = format!("http://localhost:{}", hospital.port);

    let mut transport = Transport::Plain;
    let mut authority = None;
    if arguments.tls {
        let made =
            server::self_signed(&["localhost", "127.0.0.1", "::1"], &Clock::machine()).map_err(failed)?;
        let config = server::tls_config(made.certificate_pem.as_bytes(), made.key_pem.expose().as_bytes());
        transport = Transport::Tls(TlsHandle::new(config.map_err(failed)?));
        authority = Some(made.authority_pem);
    }
    let preparing = async {
        let app = build(&folder, &base_url, authority.as_deref(), environment).await?;
        let population = population(arguments.patients.as_deref(), arguments.size).await?;
        let clients = registered_at_the_hospital(&app.parts().config.public_url)?;
        let fetch = fetch_jwks(app.parts().outbound.clone());
        let hospital_options = (hospital_origin, population, Personality::CernerPatient, clients);
        let sandbox = make_sandbox(hospital_options, fetch).await?;
        register(&app, &sandbox).await?;
        Ok::<_, Failure>((app, sandbox))
    };
    let (app, sandbox) = tokio::select! {
        () = stop.triggered() => return Ok(()),
        prepared = preparing => prepared?,
    };
    let parts = app.parts();
    // Before anything is announced: whoever reads the announcement may stop us at once.
    parts.shutdown.follow(&stop);
    let key = demo_key(&app, &folder).await?;
    listen_for_commands(&app)?;
    let link = first_link(&app).await?;
    let authority_file = match &authority {
        Some(pem) => Some(folder.write("authority.pem", pem.as_bytes())?),
        None => None,
    };
    announce(
        &app,
        &sandbox,
        &Announcement { base_url: &base_url, key: &key, link: &link, authority_file },
        json,
    );

    let hospital_shutdown = parts.shutdown.clone();
    let serving_hospital = serve_sandbox(sandbox, hospital.listeners, &hospital_shutdown);
    tokio::join!(app.serve(appliance.listeners, transport), serving_hospital);
    Ok(())
}

/// The appliance as the hospital knows it: an app for patients, and one that is opened in charts.
fn registered_at_the_hospital(url: &PublicUrl) -> Result<Vec<RegisteredClient>, Failure> {
    let jwks_uri = Url::parse(&url.jwks_uri()).map_err(failed)?;
    let registered = |client_id: &str| RegisteredClient {
        jwks_uri: Some(jwks_uri.clone()),
        ..RegisteredClient::new(client_id, url.redirect_uri())
    };
    let launch_path = Route::EhrLaunch(CHART_CLIENT.to_owned()).path();
    let for_charts = RegisteredClient {
        launch_url: Some(format!("{}{launch_path}", url.origin())),
        ..registered(CHART_CLIENT_ID)
    };
    Ok(vec![registered(CLIENT_ID), for_charts])
}

/// Runs the sandbox hospital alone. Clients are registered at its control address.
pub async fn sandbox(arguments: SandboxArguments, json: bool) -> Result<(), Failure> {
    start_log("warn", LogFormat::Text)?;
    let personality = Personality::parse(&arguments.personality).ok_or_else(|| {
        let known = Personality::ALL.map(Personality::name).join(", ");
        Failure::Configuration(format!(
            "there is no personality `{}`; known are {known}",
            arguments.personality
        ))
    })?;
    let hospital = listen_on(arguments.port)?;
    let population = population(arguments.patients.as_deref(), arguments.size).await?;
    let outbound = Outbound::new(&OutboundSettings::default()).map_err(failed)?;
    let origin = format!("http://localhost:{}", hospital.port);
    let sandbox = make_sandbox((origin, population, personality, Vec::new()), fetch_jwks(outbound)).await?;
    let document = sandbox_document(&sandbox);
    let shutdown = Shutdown::default();
    // Before anything is announced: whoever reads the announcement may stop us at once.
    stop_on_signal(&shutdown);
    if json {
        output::json(&document);
    } else {
        output::answer(&json!({
            "fhir_base_url": sandbox.fhir_base_url(),
            "control_url": sandbox.control_url(),
            "patients": sandbox.users().len(),
        }));
        output::line("register a client:");
        output::line(&format!(
            "  curl -s {}/clients -d '{{\"client_id\":\"my-app\",\"redirect_uris\":[\"http://localhost:3000/callback\"],\
             \"jwks_uri\":\"http://localhost:3000/jwks\"}}'",
            sandbox.control_url()
        ));
    }
    serve_sandbox(sandbox, hospital.listeners, &shutdown).await;
    Ok(())
}

fn failed(cause: impl std::fmt::Display) -> Failure {
    Failure::Failed(cause.to_string())
}

/// Both loopback addresses of one port, because `localhost` may mean either.
struct Listening {
    port: u16,
    listeners: Vec<TcpListener>,
}

fn listen_on(port: u16) -> Result<Listening, Failure> {
    let first = server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map_err(failed)?;
    let port = first.local_addr().map_err(failed)?.port();
    let mut listeners = vec![first];
    // A machine without IPv6 has only the first.
    listeners.extend(server::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).ok());
    Ok(Listening { port, listeners })
}

fn listen_for_both(wanted: Option<u16>) -> Result<(Listening, Listening), Failure> {
    match wanted {
        Some(0) => Ok((listen_on(0)?, listen_on(0)?)),
        Some(port) => Ok((listen_on(port)?, listen_on(port.saturating_add(1))?)),
        None => match (listen_on(USUAL_PORT), listen_on(USUAL_PORT + 1)) {
            (Ok(appliance), Ok(hospital)) => Ok((appliance, hospital)),
            (appliance, hospital) => {
                drop((appliance, hospital));
                output::note(&format!("port {USUAL_PORT} or {} is taken; using free ones", USUAL_PORT + 1));
                Ok((listen_on(0)?, listen_on(0)?))
            }
        },
    }
}

/// Where the demo keeps its things. A temporary one goes with the demo, also when that could not start.
struct DataFolder {
    path: PathBuf,
    temporary: bool,
}

impl DataFolder {
    fn make(wanted: Option<&Path>) -> Result<Self, Failure> {
        let temporary = wanted.is_none();
        let path = match wanted {
            Some(path) => std::path::absolute(path).map_err(failed)?,
            None => std::env::temp_dir().join(format!("chartgate-demo-{}", Random::system().hex::<4>())),
        };
        init::make_folder(&path)?;
        Ok(Self { path, temporary })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        let _ = std::fs::remove_file(&path);
        init::write_new(&path, bytes, 0o600)?;
        Ok(path)
    }

    /// The key of the demo's store. It lies beside the store because everything in a demo is synthetic.
    fn master_key(&self) -> Result<MasterKey, Failure> {
        let path = self.path.join("master.key");
        if let Ok(text) = std::fs::read_to_string(&path) {
            return MasterKey::parse(&text)
                .ok_or_else(|| Failure::Failed(format!("`{}` holds no master key", path.display())));
        }
        let key = MasterKey::generate(&Random::system());
        self.write("master.key", key.to_text().as_bytes())?;
        Ok(key)
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

async fn build(
    folder: &DataFolder,
    base_url: &str,
    authority: Option<&str>,
    environment: Vec<(String, String)>,
) -> Result<App, Failure> {
    // The machine's own configuration has no place in a demo; only limits and the like may come from the environment.
    let layers = Layers {
        file: None,
        file_required: false,
        environment,
        arguments: vec![
            ("public_url".to_owned(), base_url.to_owned()),
            ("clinic_name".to_owned(), "Demo Clinic".to_owned()),
            ("data_dir".to_owned(), folder.path.to_string_lossy().into_owned()),
            // The demo brings its own listeners; this only keeps the check of public address against listener quiet.
            ("listen.public.trusted_proxies".to_owned(), "127.0.0.1".to_owned()),
        ],
    };
    let config = Config::load(&layers).map_err(|errors| Failure::Configuration(errors.to_string()))?;
    let opening = Opening {
        path: folder.path.join("chartgate.redb"),
        master_key: folder.master_key()?,
        cache_bytes: config.store.cache.as_len(),
        create: true,
    };
    let store = Store::open(&opening, Random::system()).map_err(failed)?;
    let ground = Ground {
        store,
        clock: Clock::machine(),
        random: Random::system(),
        authorities: authority.map(|pem| pem.as_bytes().to_vec()),
        pulls: PullSettings { page_bytes: config.outbound.response_body.as_len(), ..PullSettings::default() },
    };
    App::build(config, ground).await.map_err(failed)
}

async fn population(folder: Option<&Path>, size: Option<usize>) -> Result<Arc<Population>, Failure> {
    let folder = folder.map(Path::to_owned);
    let made = tokio::task::spawn_blocking(move || match folder {
        None => Ok(Population::synthetic(&Random::seeded(1), size)),
        Some(folder) => {
            let (population, _) = Population::load_with(&folder, |file| {
                let refused = file.not_taken.len();
                output::note(&format!(
                    "read  {}: {} resources, {refused} not taken",
                    file.name,
                    file.total()
                ));
            })
            .map_err(failed)?;
            Ok(population)
        }
    });
    made.await.map_err(failed)?.map(Arc::new)
}

type HospitalOptions = (String, Arc<Population>, Personality, Vec<RegisteredClient>);

async fn make_sandbox(options: HospitalOptions, fetch_jwks: JwksFetcher) -> Result<Arc<Sandbox>, Failure> {
    let (origin, population, personality, clients) = options;
    let options = SandboxOptions {
        origin,
        clock: Clock::machine(),
        random: Random::system(),
        population,
        personality,
        clients,
        fetch_jwks,
    };
    // It makes an RSA key.
    tokio::task::spawn_blocking(move || Sandbox::new(options)).await.map_err(failed)?.map_err(failed)
}

/// How the hospital fetches a client's keys: over the network, as a real one does.
pub fn fetch_jwks(outbound: Outbound) -> JwksFetcher {
    Arc::new(move |url| {
        let outbound = outbound.clone();
        Box::pin(async move {
            let call = Call::get(url).accept("application/json").within(Duration::from_secs(10));
            let reply = outbound.send(call, Reach::Loopback).await.map_err(|error| error.to_string())?;
            let max_age = reply.header("cache-control").and_then(|control| {
                control.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.parse().ok())
            });
            match reply.status.as_u16() {
                200 => Ok(FetchedJwks { body: reply.body, max_age: max_age.map(Duration::from_secs) }),
                status => Err(format!("the client's key set answered with status {status}")),
            }
        })
    })
}

/// Serves a sandbox hospital until the signal to stop.
pub async fn serve_sandbox(sandbox: Arc<Sandbox>, listeners: Vec<TcpListener>, shutdown: &Shutdown) {
    let handler = move |peer: Peer, request: Request<RequestBody>| {
        let sandbox = Arc::clone(&sandbox);
        async move { sandbox.handle(peer.address, request).await }
    };
    let drain = Duration::from_secs(2);
    server::serve(listeners, Transport::Plain, server::Limits::default(), handler, shutdown, drain).await;
}

/// Makes the hospital known to the appliance, as an operator would: once for patients, once for charts.
async fn register(app: &App, sandbox: &Sandbox) -> Result<(), Failure> {
    let directory = &app.parts().directory;
    let opened = LaunchTarget { url: sandbox.app_url(), workspace: Some("sandbox".to_owned()) };
    for (name, vendor, client_id, launch, hospital) in [
        ("sandbox", "cerner", CLIENT_ID, None, HOSPITAL),
        (CHART_CLIENT, "cerner-provider", CHART_CLIENT_ID, Some(opened), HOSPITAL_CHARTS),
    ] {
        let client = NewEhrClient {
            name: name.to_owned(),
            vendor: vendor.to_owned(),
            environment: Environment::Sandbox,
            client_id: client_id.to_owned(),
            auth: AuthMethod::PrivateKeyJwt,
            client_secret: None,
            signing_algorithm: None,
            smart_version: SmartVersion::V1,
            scopes: None,
            launch,
        };
        directory.ensure_client(client).await.map_err(failed)?;
        let source = NewSource {
            environment: Environment::Sandbox,
            name: hospital.to_owned(),
            base: FhirBaseUrl::parse(&sandbox.fhir_base_url()).map_err(failed)?,
            ehr_client: name.to_owned(),
            city: Some("Loopback".to_owned()),
            state: Some("KS".to_owned()),
            logo_url: None,
            portal_url: None,
            overrides: Overrides::default(),
        };
        let added: Result<_, DirectoryError> = directory.ensure_source(source).await;
        added.map_err(failed)?;
    }
    Ok(())
}

/// A key of the sandbox workspace: the one of an earlier run in the same folder, else a new one.
async fn demo_key(app: &App, folder: &DataFolder) -> Result<String, Failure> {
    let parts = app.parts();
    let kept = std::fs::read_to_string(folder.path.join("api.key")).unwrap_or_default();
    if parts.api_keys.authenticate(&kept).await.is_ok() {
        return Ok(kept);
    }
    let workspace = parts.workspaces.named("sandbox").await.map_err(failed)?;
    let workspace = workspace.ok_or_else(|| Failure::Failed("there is no workspace `sandbox`".to_owned()))?;
    let new = parts.api_keys.create(&workspace, "demo", NewApiKeyTerms::default()).await.map_err(failed)?;
    let text = new.text.expose().to_owned();
    folder.write("api.key", text.as_bytes())?;
    Ok(text)
}

/// A session to begin with, so that the first thing to do is to open a link.
async fn first_link(app: &App) -> Result<String, Failure> {
    let parts = app.parts();
    let workspace = parts.workspaces.named("sandbox").await.map_err(failed)?;
    let workspace = workspace.ok_or_else(|| Failure::Failed("there is no workspace `sandbox`".to_owned()))?;
    let origin = parts.config.public_url.origin().to_owned();
    let session = NewSession {
        patient: NewPatient { patient_id: "demo-patient".to_owned(), ..NewPatient::default() },
        mode: SessionMode::Picker(Vec::new()),
        return_url: format!("{origin}/"),
        return_button_label: None,
        metadata: serde_json::Map::new(),
        lifetime: Duration::from_hours(24),
    };
    let session = parts.sessions.create(workspace.id, session).await.map_err(failed)?;
    Ok(format!("{origin}{}", Route::Connect(session.token, ConnectPage::Start).path()))
}

fn sandbox_document(sandbox: &Sandbox) -> Json {
    json!({
        "fhir_base_url": sandbox.fhir_base_url(),
        "control_url": sandbox.control_url(),
        "chart_url": sandbox.front_page(),
        "users": sandbox.users(),
    })
}

struct Announcement<'a> {
    base_url: &'a str,
    key: &'a str,
    link: &'a str,
    authority_file: Option<PathBuf>,
}

fn announce(app: &App, sandbox: &Sandbox, about: &Announcement<'_>, json: bool) {
    let Announcement { base_url, key, link, authority_file } = about;
    if json {
        output::json(&json!({
            "base_url": base_url,
            // There is no admin panel yet; the field is part of the document's form.
            "admin_url": Json::Null,
            "connect_url": link,
            "api_key": key,
            "jwks_url": app.parts().config.public_url.jwks_uri(),
            "ca_file": authority_file,
            "sandbox": sandbox_document(sandbox),
        }));
        return;
    }
    let trust =
        authority_file.as_ref().map(|file| format!(" --cacert {}", file.display())).unwrap_or_default();
    let curl = format!("curl -s{trust} -H 'Authorization: Bearer {key}'");
    let user = sandbox.users().into_iter().next();
    let user = user.map(|user| format!("{} / {}", user.username, user.password)).unwrap_or_default();
    for text in [
        String::new(),
        "Chartgate demo: an appliance and a sandbox hospital, on this machine only. Ctrl-C stops it.".to_owned(),
        String::new(),
        format!("  Connect page      {link}"),
        format!("  API               {base_url}     key {key}"),
        format!("  Public keys       {}", app.parts().config.public_url.jwks_uri()),
        format!("  Sandbox hospital  {}     sign in as {user}", sandbox.fhir_base_url()),
        format!("  Its control       {}", sandbox.control_url()),
        format!("  Charts            {}     open the app of `{CHART_CLIENT}` as a clinician", sandbox.front_page()),
        String::new(),
        "1. Open the connect page in a browser, choose the hospital, sign in, allow.".to_owned(),
        "   Or start a journey of your own, and open the `url` of the answer:".to_owned(),
        format!("   {curl} {base_url}/patient-sessions -d '{{\"patient_id\":\"amy-7\",\"return_url\":\"{base_url}/\"}}'"),
        "2. See the connection:".to_owned(),
        format!("   {curl} {base_url}/patients/demo-patient"),
        "3. Read the records:".to_owned(),
        format!("   {curl} '{base_url}/patients/demo-patient/records?type=Observation,Condition&count=5'"),
        "   Without a browser: let the hospital agree by itself, then follow the redirects of a direct session:".to_owned(),
        format!("   curl -s {}/auto-approve -d '{{\"username\":\"{}\"}}'", sandbox.control_url(), user.split(' ').next().unwrap_or_default()),
        format!(
            "   {curl} {base_url}/patient-sessions -d '{{\"patient_id\":\"ben-3\",\"connection_id\":\"{}\",\"return_url\":\"{base_url}/\"}}'",
            sandbox.fhir_base_url()
        ),
        format!("   curl -sL -c jar -b jar{trust} -o /dev/null -w '%{{url_effective}}\\n' URL_OF_THE_ANSWER"),
        String::new(),
    ] {
        output::line(&text);
    }
}
