//! Operating a box: the commands that change or show its state, and the local socket through which they reach a running
//! appliance, since only one process can hold the store.

mod accesses;
mod backup;
mod calendar;
pub mod directory;
mod exports;
mod keys;
mod pulls;
mod storage_keys;

use std::io::Read;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use directory::DirectoryCommand;

use crate::app::{App, Parts};
use crate::config::{AuthMethod, Environment, SmartVersion, check_endpoint};
use crate::crypto::Algorithm;
use crate::directory::{LaunchTarget, NewEhrClient, NewSource, Source, reach_of};
use crate::events::INCIDENTS;
use crate::http::Route;
use crate::id::{ApiKeyId, Id as _, ReferenceCode, SourceId};
use crate::secret::Secret;
use crate::smart::server::{Overrides, doubts};
use crate::smart::vendors::{VendorProfile, cerner_base_url};
use crate::smart::{EhrServer, FhirBaseUrl, Registration};
use crate::store::{Reader as _, StoreError};
use crate::workspaces::{ApiKey, KeyScope, NewApiKeyTerms, ResourceType};

pub use accesses::AccessesOf;
pub use exports::ExportsCommand;
pub use keys::KeysCommand;
pub use pulls::PullsCommand;

/// The socket's name in the data directory.
const SOCKET: &str = "control.sock";
/// The longest command or answer, in bytes.
const MOST_BYTES: u64 = 1 << 20;
/// The longest a command may take; discovery of a slow EHR is the slowest of them.
const MOST_TIME: Duration = Duration::from_secs(90);
/// Bytes that are sent at a time.
const PIECE: usize = 64 << 10;
/// The longest that fetching or reading a list may take.
pub(crate) const MOST_LIST_TIME: Duration = Duration::from_mins(45);

/// What can be asked of a box.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Makes an API key.
    ApiKeyCreate {
        /// Of this workspace.
        workspace: String,
        /// Called so.
        name: String,
        /// Ends after so many days.
        expires_in_days: Option<u32>,
        /// May do only this; an empty list means everything.
        #[serde(default)]
        scopes: Vec<String>,
        /// May read only these resource types live; an empty list means all.
        #[serde(default)]
        fhir_types: Vec<String>,
    },
    /// Lists the API keys of a workspace.
    ApiKeyList {
        /// The workspace.
        workspace: String,
    },
    /// Revokes an API key.
    ApiKeyRevoke {
        /// Of this workspace.
        workspace: String,
        /// `key_…`
        id: String,
    },
    /// Adds a source after reading its discovery.
    SourceAdd {
        /// The FHIR base URL.
        url: Option<String>,
        /// Or an Oracle Health tenant id.
        tenant: Option<String>,
        /// What patients call the place.
        name: String,
        /// Our registration there.
        ehr_client: String,
        /// Town.
        city: Option<String>,
        /// State.
        state: Option<String>,
        /// Where it departs from discovery and its vendor's profile.
        #[serde(default)]
        overrides: Overrides,
        /// Add it although it does not answer now.
        unchecked: bool,
    },
    /// Lists sources.
    SourceList,
    /// Reads a source's discovery anew.
    SourceCheck {
        /// `fhirsrc_…` or the base URL.
        source: String,
    },
    /// Adds a registration.
    EhrClientAdd {
        /// Our name for it.
        name: String,
        /// The vendor profile.
        vendor: String,
        /// Live or sandbox.
        environment: Environment,
        /// The vendor's id for us.
        client_id: String,
        /// How we prove who we are.
        auth: AuthMethod,
        /// For the methods that need one.
        client_secret: Option<Secret>,
        /// Instead of choosing from discovery.
        signing_algorithm: Option<Algorithm>,
        /// Scope syntax of the registration; else the one that is usual at the vendor.
        smart_version: Option<SmartVersion>,
        /// Instead of choosing from discovery.
        scopes: Option<Vec<String>>,
        /// The app that the EHR opens with it.
        launch_url: Option<String>,
        /// The workspace that launches belong to.
        launch_workspace: Option<String>,
    },
    /// Lists registrations.
    EhrClientList,
    /// Whatever concerns keys.
    Keys(KeysCommand),
    /// Begins a backup.
    BackUp {
        /// This file; else one in the usual folder.
        to: Option<PathBuf>,
    },
    /// Tells how far the latest backup is.
    BackupState,
    /// Tells what lapses next.
    Calendar {
        /// Within so many days.
        days: u32,
    },
    /// Tells what became of a connection's grant.
    Ledger {
        /// `conn_…`
        connection: String,
    },
    /// About pulls.
    Pulls(PullsCommand),
    /// Tells who read whose records.
    Accesses {
        /// `conn_…`, or the app's own patient id with its workspace.
        subject: AccessesOf,
        /// At most so many, the latest.
        most: usize,
    },
    /// About exports.
    Exports(ExportsCommand),
    /// About the directory.
    Directory(DirectoryCommand),
    /// Tells what happened under a reference code.
    Incident {
        /// `K7QF-2M9D`
        reference: String,
    },
}

/// A command that could not be carried out, in words for whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
pub struct Refused(pub String);

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

/// Carries a command out.
pub async fn execute(parts: &Parts, command: Command) -> Result<Json, Refused> {
    match command {
        Command::ApiKeyCreate { workspace, name, expires_in_days, scopes, fhir_types } => {
            let workspace = workspace_named(parts, &workspace).await?;
            let day = Duration::from_hours(24);
            let expires_at = expires_in_days.map(|days| parts.clock.now().after(day * days));
            let (scopes, fhir_types) = (key_scopes(&scopes)?, key_types(&fhir_types)?);
            let terms = NewApiKeyTerms { expires_at, scopes, fhir_types };
            let new = parts.api_keys.create(&workspace, &name, terms).await?;
            Ok(json!({
                "id": new.key.id,
                "workspace": workspace.name,
                "name": new.key.name,
                "api_key": new.text.expose(),
                "scopes": scopes_text(&new.key),
                "fhir_types": types_text(&new.key),
                "expires_at": new.key.expires_at.map(|at| at.to_string()),
            }))
        }
        Command::ApiKeyList { workspace } => {
            let workspace = workspace_named(parts, &workspace).await?;
            let now = parts.clock.now();
            let keys = parts.api_keys.list(workspace.id).await?;
            let rows = keys.into_iter().map(|(key, used)| {
                json!({
                    "id": key.id, "name": key.name, "hint": key.hint, "state": key.state(now),
                    "scopes": scopes_text(&key), "fhir_types": types_text(&key), "api_version": key.api_version,
                    "created_at": key.created_at.to_string(),
                    "last_used_at": used.map(|at| at.to_string()),
                    "expires_at": key.expires_at.map(|at| at.to_string()),
                })
            });
            Ok(Json::Array(rows.collect()))
        }
        Command::ApiKeyRevoke { workspace, id } => {
            let workspace = workspace_named(parts, &workspace).await?;
            let none = || {
                Refused(format!(
                    "the workspace `{}` has no API key `{id}`; see `chartgate api-key list`",
                    workspace.name
                ))
            };
            let key = ApiKeyId::parse(&id).map_err(|_| none())?;
            if !parts.api_keys.revoke(workspace.id, key).await? {
                return Err(none());
            }
            Ok(json!({ "id": id, "state": "revoked" }))
        }
        Command::SourceAdd { url, tenant, name, ehr_client, city, state, overrides, unchecked } => {
            add_source(parts, (url, tenant), (name, ehr_client), (city, state), overrides, unchecked).await
        }
        Command::SourceList => {
            let mut rows = Vec::new();
            for environment in [Environment::Live, Environment::Sandbox] {
                for source in parts.directory.sources(environment) {
                    rows.push(source_row(parts, &source));
                }
            }
            Ok(Json::Array(rows))
        }
        Command::SourceCheck { source } => check_source(parts, &source).await,
        Command::EhrClientAdd {
            name,
            vendor,
            environment,
            client_id,
            auth,
            client_secret,
            signing_algorithm,
            smart_version,
            scopes,
            launch_url,
            launch_workspace,
        } => {
            let profile = VendorProfile::named(&vendor).ok_or_else(|| {
                let known: Vec<&str> = VendorProfile::all().map(|profile| profile.name).collect();
                Refused(format!("there is no vendor profile `{vendor}`; known are {}", known.join(", ")))
            })?;
            if auth.needs_secret() != client_secret.is_some() {
                return Err(Refused(format!(
                    "`{auth}` {} a client secret",
                    if auth.needs_secret() { "needs" } else { "takes no" }
                )));
            }
            let launch = launch_target(parts, environment, launch_url, launch_workspace).await?;
            let new = NewEhrClient {
                name,
                vendor,
                environment,
                client_id,
                auth,
                client_secret,
                signing_algorithm,
                smart_version: smart_version.unwrap_or(profile.smart_version),
                scopes,
                launch,
            };
            let client = parts.directory.add_client(new).await.map_err(|error| Refused(error.to_string()))?;
            Ok(json!({
                "id": client.id, "name": client.name, "notes": profile.notes(&client.registration()),
                "launch_uri": client.launch.is_some().then(|| launch_uri(parts, &client.name)),
                "redirect_uri": parts.config.public_url.redirect_uri(),
                "jwks_uri": parts.config.public_url.jwks_uri(),
            }))
        }
        Command::EhrClientList => {
            let rows = parts.directory.clients().into_iter().map(|client| {
                json!({
                    "id": client.id, "name": client.name, "vendor": client.vendor, "environment": client.environment,
                    "client_id": client.client_id, "auth": client.auth, "smart_version": client.smart_version,
                    "launch_uri": client.launch.is_some().then(|| launch_uri(parts, &client.name)),
                    "launch_url": client.launch.as_ref().map(|launch| &launch.url),
                    "launch_workspace": client.launch.as_ref().and_then(|launch| launch.workspace.as_ref()),
                })
            });
            Ok(Json::Array(rows.collect()))
        }
        Command::Keys(command) => keys::execute(parts, command).await,
        Command::BackUp { to } => backup::begin(parts, to),
        Command::BackupState => Ok(backup::state(parts)),
        Command::Calendar { days } => calendar::calendar(parts, days).await,
        Command::Ledger { connection } => calendar::ledger(parts, &connection).await,
        Command::Pulls(command) => Box::pin(pulls::execute(parts, command)).await,
        Command::Accesses { subject, most } => Box::pin(accesses::accesses(parts, subject, most)).await,
        Command::Exports(command) => Box::pin(exports::execute(parts, command)).await,
        Command::Directory(command) => Box::pin(directory::execute(parts, command)).await,
        Command::Incident { reference } => {
            let code = ReferenceCode::parse(&reference)
                .map_err(|_| Refused("a reference code looks like K7QF-2M9D".to_owned()))?;
            let found = parts.store.read(move |view| view.get(INCIDENTS, code.as_bytes())).await?;
            let incident = found.ok_or_else(|| {
                let advice = "look for it in the log: a page that no attempt belongs to is noted there only";
                Refused(format!("nothing is kept under the reference {code}; {advice}"))
            })?;
            Ok(json!({
                "reference": incident.reference, "at": incident.at.to_string(), "code": incident.code,
                "what_happened": incident.staff, "who_acts": incident.who_acts,
                "source": incident.source, "correlation_id": incident.correlation_id,
            }))
        }
    }
}

/// No scope given means a key that may do everything.
fn key_scopes(names: &[String]) -> Result<Option<Vec<KeyScope>>, Refused> {
    if names.is_empty() {
        return Ok(None);
    }
    let read = |name: &String| {
        name.parse::<KeyScope>().map_err(|_| {
            let known: Vec<&str> = KeyScope::ALL.into_iter().map(KeyScope::as_str).collect();
            Refused(format!("there is no scope `{name}`; there are {}", known.join(", ")))
        })
    };
    names.iter().map(read).collect::<Result<_, _>>().map(Some)
}

fn scopes_text(key: &ApiKey) -> String {
    let names =
        |scopes: &Vec<KeyScope>| scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" ");
    key.scopes.as_ref().map_or_else(|| "all".to_owned(), names)
}

/// The address that an EHR opens.
fn launch_uri(parts: &Parts, client: &str) -> String {
    format!("{}{}", parts.config.public_url.origin(), Route::EhrLaunch(client.to_owned()).path())
}

/// Checks the app that an EHR is to open, and whose it is.
async fn launch_target(
    parts: &Parts,
    environment: Environment,
    url: Option<String>,
    workspace: Option<String>,
) -> Result<Option<LaunchTarget>, Refused> {
    let Some(url) = url else {
        return match workspace {
            None => Ok(None),
            Some(_) => Err(Refused("`--launch-workspace` belongs to `--launch-url`".to_owned())),
        };
    };
    check_endpoint(&url, environment).map_err(|_| {
        Refused("`--launch-url` must be an https address (http only on this machine, in sandbox)".to_owned())
    })?;
    if parts.workspaces.owner_of_launches(environment, workspace.as_deref()).await?.is_some() {
        return Ok(Some(LaunchTarget { url, workspace }));
    }
    let fitting = parts.workspaces.all().await?;
    let fitting = fitting.into_iter().filter(|known| known.environment == environment);
    let names: Vec<String> = fitting.map(|known| known.name).collect();
    Err(Refused(format!(
        "say whose API keys may read the launches: `--launch-workspace` with one of {}",
        names.join(", ")
    )))
}

/// No type given means a key that may read all of them.
fn key_types(names: &[String]) -> Result<Option<Vec<ResourceType>>, Refused> {
    let read = |name: &String| {
        ResourceType::parse(name).ok_or_else(|| {
            Refused(format!("FHIR R4 has no resource type `{name}`; write it as in `AllergyIntolerance`"))
        })
    };
    let types = names.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok((!types.is_empty()).then_some(types))
}

fn types_text(key: &ApiKey) -> String {
    let names = |types: &Vec<ResourceType>| types.iter().map(|one| one.name()).collect::<Vec<_>>().join(" ");
    key.fhir_types.as_ref().map_or_else(|| "all".to_owned(), names)
}

async fn workspace_named(parts: &Parts, name: &str) -> Result<crate::workspaces::Workspace, Refused> {
    let found = parts.workspaces.named(name).await?;
    let known =
        || parts.config.workspaces.iter().map(|known| known.name.clone()).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| Refused(format!("there is no workspace `{name}`; there are {}", known())))
}

async fn add_source(
    parts: &Parts,
    (url, tenant): (Option<String>, Option<String>),
    (name, ehr_client): (String, String),
    (city, state): (Option<String>, Option<String>),
    overrides: Overrides,
    unchecked: bool,
) -> Result<Json, Refused> {
    let client = parts.directory.client_named(&ehr_client).ok_or_else(|| {
        Refused(format!(
            "there is no EHR client named `{ehr_client}`; add it with `chartgate ehr-client add`"
        ))
    })?;
    let base = match (url, tenant) {
        (Some(url), None) => FhirBaseUrl::parse(&url),
        (None, Some(tenant)) => cerner_base_url(&tenant),
        _ => {
            return Err(Refused(
                "give either the FHIR base URL (`--url`) or the tenant id (`--tenant`)".to_owned(),
            ));
        }
    }
    .map_err(|cause| Refused(format!("not a usable FHIR base URL: {cause}")))?;
    if !Parts::base_fits(&base, client.environment) {
        return Err(Refused("a live source must be reached over https".to_owned()));
    }
    overrides.check().map_err(|(name, cause)| Refused(format!("`--{name}` is not usable: {cause}")))?;
    let server = EhrServer {
        base: base.clone(),
        profile: VendorProfile::named(&client.vendor).unwrap_or_else(VendorProfile::generic),
        overrides: overrides.clone(),
        reach: reach_of(client.environment, &base),
    };
    let new = NewSource {
        environment: client.environment,
        name,
        base,
        ehr_client,
        city,
        state,
        logo_url: None,
        portal_url: None,
        overrides,
    };
    let discovered = discover(parts, &server, Some(&client.registration())).await;
    let discovery = match discovered {
        Ok(found) => found,
        Err(cause) if unchecked => json!({ "warning": cause.0 }),
        Err(cause) => {
            return Err(Refused(format!(
                "{cause}; check the address, or add it all the same with `--unchecked`"
            )));
        }
    };
    let source = parts.directory.add_source(new).await.map_err(|error| Refused(error.to_string()))?;
    let mut row = source_row(parts, &source);
    row["discovery"] = discovery;
    Ok(row)
}

/// The source of this id or base URL.
fn find_source(parts: &Parts, text: &str) -> Result<Arc<Source>, Refused> {
    let by_url = || {
        let base = FhirBaseUrl::parse(text).ok()?;
        let both = [Environment::Live, Environment::Sandbox];
        both.into_iter().find_map(|environment| parts.directory.source_at(environment, &base))
    };
    let source = SourceId::parse(text).ok().and_then(|id| parts.directory.source(id)).or_else(by_url);
    source.ok_or_else(|| Refused(format!("there is no source `{text}`; see `chartgate source list`")))
}

async fn check_source(parts: &Parts, text: &str) -> Result<Json, Refused> {
    let source = find_source(parts, text)?;
    let mut row = source_row(parts, &source);
    let registration = parts.directory.client(source.ehr_client).map(|client| client.registration());
    row["discovery"] = discover(parts, &source.server(), registration.as_ref()).await?;
    Ok(row)
}

/// What the server says about itself, and where that does not fit our registration.
async fn discover(
    parts: &Parts,
    server: &EhrServer,
    registration: Option<&Registration>,
) -> Result<Json, Refused> {
    let found = parts.discoverer.discover_now(server).await;
    let found = found
        .map_err(|cause| Refused(format!("the source's SMART configuration could not be read: {cause}")))?;
    let mut warnings = found.warnings.clone();
    if let Some(registration) = registration {
        warnings.extend(doubts(server, &found, registration));
    }
    // How far the server's clock is from ours; assertions carry its time, but somebody should know.
    let skew = |url: &url::Url| parts.discoverer.skews().of(url).map(|skew| skew.ahead_millis / 1000);
    Ok(json!({
        "authorization_endpoint": found.authorization_endpoint,
        "token_endpoint": found.token_endpoint,
        "auth_methods": found.auth_methods,
        "assertion_algorithms": found.assertion_algorithms,
        "scopes": found.scopes_supported.as_ref().map(Vec::len),
        "pkce": found.pkce,
        "warnings": warnings,
        "clock_ahead_seconds": skew(found.token_endpoint.url()).or_else(|| skew(&server.base.join("metadata").ok()?)),
    }))
}

fn source_row(parts: &Parts, source: &Source) -> Json {
    json!({
        "id": source.id, "name": source.name, "fhir_base_url": source.base, "environment": source.environment,
        "vendor": source.vendor, "city": source.city, "state": source.state,
        "ehr_client": parts.directory.client(source.ehr_client).map(|client| client.name.clone()),
        "activation": source.activation.state.word(),
    })
}

/// Where the socket of a data directory is.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET)
}

/// Listens for commands on the local socket, which only the box's own user may open.
pub fn listen(app: &App) -> std::io::Result<()> {
    let path = socket_path(&app.parts().config.data_dir);
    let listener = bind(&path)?;
    let app = app.clone();
    let shutdown = app.parts().shutdown.clone();
    app.parts().shutdown.clone().spawn(async move {
        loop {
            tokio::select! {
                () = shutdown.triggered() => break,
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        let app = app.clone();
                        shutdown.spawn(async move {
                            let _ = converse(&app, stream).await;
                        });
                    }
                }
            }
        }
        let _ = std::fs::remove_file(&path);
    });
    Ok(())
}

/// Makes the socket where nobody else can reach it, and moves it into its place when it is closed to others. Whoever holds
/// the store owns the place: a socket that is left over belongs to a process that is gone.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    let closed = path.with_extension("new");
    let _ = std::fs::remove_dir_all(&closed);
    std::fs::DirBuilder::new().mode(0o700).create(&closed)?;
    let first = closed.join("s");
    let bound = UnixListener::bind(&first).and_then(|listener| {
        std::fs::set_permissions(&first, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&first, path)?;
        Ok(listener)
    });
    let _ = std::fs::remove_dir_all(&closed);
    bound
}

async fn converse(app: &App, stream: UnixStream) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let mut line = String::new();
    let mut first = (&mut reader).take(MOST_BYTES);
    tokio::time::timeout(MOST_TIME, first.read_line(&mut line)).await??;
    let answer: Result<Json, Refused> = match serde_json::from_str(&line) {
        Ok(Command::Directory(command)) => {
            let done = tokio::time::timeout(MOST_LIST_TIME, directory::receive(app.parts(), command, reader));
            done.await
                .unwrap_or_else(|_| Err(Refused("the list took too long; nothing was changed".to_owned())))
        }
        Ok(command) => {
            let done = tokio::time::timeout(MOST_TIME, execute(app.parts(), command));
            done.await.unwrap_or_else(|_| Err(Refused("the command took too long".to_owned())))
        }
        Err(_) => {
            Err(Refused("the command is of another version of chartgate; restart the service".to_owned()))
        }
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    tokio::time::timeout(MOST_TIME, write.write_all(&text)).await?
}

/// Asks the running appliance of a data directory; `None` when none is running.
pub async fn ask(data_dir: &Path, command: &Command) -> Option<Result<Json, Refused>> {
    ask_for(data_dir, command, MOST_TIME).await
}

/// [`ask`] for what may take longer.
pub async fn ask_for(data_dir: &Path, command: &Command, most: Duration) -> Option<Result<Json, Refused>> {
    send_within(data_dir, command, std::io::empty(), most).await.ok()
}

/// Asks the running appliance, and sends bytes behind the command. Without an appliance the reader comes back.
pub async fn send_with<R: Read + Send + 'static>(
    data_dir: &Path,
    command: &Command,
    bytes: R,
) -> Result<Result<Json, Refused>, R> {
    send_within(data_dir, command, bytes, MOST_LIST_TIME).await
}

async fn send_within<R: Read + Send + 'static>(
    data_dir: &Path,
    command: &Command,
    bytes: R,
    most: Duration,
) -> Result<Result<Json, Refused>, R> {
    let Ok(stream) = UnixStream::connect(socket_path(data_dir)).await else { return Err(bytes) };
    let (read, write) = stream.into_split();
    let conversation = async {
        let mut line = serde_json::to_vec(command).ok()?;
        line.push(b'\n');
        let answered = async {
            let mut answer = String::new();
            BufReader::new(read).take(MOST_BYTES).read_line(&mut answer).await.ok()?;
            serde_json::from_str(&answer).ok()
        };
        // An answer may come before everything was sent: a list that is none is refused at its first bytes.
        let mut sending = std::pin::pin!(send(write, line, bytes));
        let mut answered = std::pin::pin!(answered);
        let mut sent = false;
        loop {
            tokio::select! {
                _ = &mut sending, if !sent => sent = true,
                answer = &mut answered => break answer,
            }
        }
    };
    let answered = tokio::time::timeout(most, conversation).await.ok().flatten();
    Ok(answered
        .unwrap_or_else(|| Err(Refused("the running appliance did not answer; see its log".to_owned()))))
}

/// Sends the command's line and what follows it. The bytes are read on a thread of their own: a disk may be slow.
async fn send(
    mut write: tokio::net::unix::OwnedWriteHalf,
    line: Vec<u8>,
    mut bytes: impl Read + Send + 'static,
) -> std::io::Result<()> {
    write.write_all(&line).await?;
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(2);
    let reading = tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let count = bytes.read(&mut piece)?;
            piece.truncate(count);
            if count == 0 || sender.blocking_send(piece).is_err() {
                return Ok::<_, std::io::Error>(());
            }
        }
    });
    while let Some(piece) = receiver.recv().await {
        write.write_all(&piece).await?;
    }
    reading.await.map_err(std::io::Error::other)?
}
