//! What each command does.

use std::path::PathBuf;

use serde_json::Value as Json;

use crate::app::{App, Ground};
use crate::cli::arguments::{
    ApiKeyTask, Arguments, EhrClientTask, PullsArguments, PullsTask, SourceTask, StoreTask, Task,
};
use crate::cli::certificate::Certificate;
use crate::cli::{Failure, backup, demo, directory, export, init, keys, manual, output, service};
use crate::clock::Clock;
use crate::config::{Config, Layers};
use crate::control::directory::DirectoryCommand;
use crate::control::{self, AccessesOf, Command, PullsCommand, Refused};
use crate::crypto::Random;
use crate::records::PullSettings;
use crate::secret::Secret;
use crate::server::{self, Transport};
use crate::shutdown::Shutdown;
use crate::store::{HeldKeyFile, KeyFileError, MasterKey, MasterKeyFile, OpenError, Opening, Store};
use crate::telemetry;

const USUAL_CONFIG: &str = "/etc/chartgate/config.toml";
const STORE_FILE: &str = "chartgate.redb";

/// Runs a command to its end.
pub fn run(arguments: Arguments, environment: Vec<(String, String)>) -> Result<(), Failure> {
    let layers = layers(&arguments, environment)?;
    let json = arguments.json;
    match arguments.command {
        Task::Demo(demo) => on_threads(demo::demo(demo, json, layers.environment)),
        Task::Sandbox(sandbox) => on_threads(demo::sandbox(sandbox, json)),
        Task::CheckConfig => check_config(&layers, json),
        Task::Init(arguments) => {
            let path = layers.file.clone().unwrap_or_else(|| PathBuf::from(USUAL_CONFIG));
            init::write_files(&arguments, &path, &Random::system())?;
            on_threads(finish_init(Layers { file: Some(path), file_required: true, ..layers }, json))
        }
        Task::Serve => on_threads(serve(layers)),
        Task::ApiKey(task) => on_threads(command(layers, api_key(task), json)),
        Task::Source(SourceTask::Packet { source, html, text: _, contact, out }) => {
            on_threads(directory::packet(layers, source, contact, html, out, json))
        }
        Task::Source(SourceTask::Activation { source, state, note }) => {
            on_threads(directory::activation(layers, source, state, note, json))
        }
        Task::Source(task) => on_threads(command(layers, source(task), json)),
        Task::EhrClient(task) => on_threads(command(layers, ehr_client(task)?, json)),
        Task::Keys(task) => on_threads(keys::run(layers, task, json)),
        Task::Store(StoreTask::Compact) => compact(&layers, json),
        Task::Calendar { days } => on_threads(command(layers, Command::Calendar { days }, json)),
        Task::Ledger { connection } => on_threads(ledger(layers, connection, json)),
        Task::Pulls(arguments) => on_threads(pulls(layers, arguments, json)),
        Task::Accesses { whose, workspace, last } => {
            let subject = match workspace {
                Some(workspace) => AccessesOf::Patient { workspace, patient_id: whose },
                None => AccessesOf::Connection(whose),
            };
            on_threads(command(layers, Command::Accesses { subject, most: last }, json))
        }
        Task::Export(task) => on_threads(export::run(layers, task, json)),
        Task::Directory(task) => on_threads(directory::run(layers, task, json)),
        Task::Backup(arguments) => on_threads(backup::back_up(layers, arguments, json)),
        Task::Restore(arguments) => on_threads(backup::restore(layers, arguments, json)),
        Task::Man { out } => manual::pages(out.as_deref()),
        Task::Completions { shell } => manual::completions(shell),
        Task::Incident { reference } => on_threads(command(layers, Command::Incident { reference }, json)),
    }
}

fn layers(arguments: &Arguments, environment: Vec<(String, String)>) -> Result<Layers, Failure> {
    let named = environment.iter().find(|(name, value)| name == "CHARTGATE_CONFIG" && !value.is_empty());
    let named = arguments.config.clone().or_else(|| named.map(|(_, value)| PathBuf::from(value)));
    let file_required = named.is_some();
    let mut set = Vec::new();
    for pair in &arguments.set {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            Failure::Configuration(format!(
                "`--set {}` is not KEY=VALUE",
                pair.split('=').next().unwrap_or_default()
            ))
        })?;
        set.push((key.to_owned(), value.to_owned()));
    }
    Ok(Layers {
        file: Some(named.unwrap_or_else(|| PathBuf::from(USUAL_CONFIG))),
        file_required,
        environment,
        arguments: set,
    })
}

/// Runs a task on the runtime's threads; the rest of the program has none.
fn on_threads(task: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|cause| Failure::Failed(format!("no threads could be started: {cause}")))?;
    let done = runtime.block_on(task);
    // A blocking call that hangs, such as a slow name look-up, must not keep the process alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    done
}

pub fn load(layers: &Layers) -> Result<Config, Failure> {
    let config = Config::load(layers).map_err(|errors| Failure::Configuration(errors.to_string()))?;
    for warning in &config.warnings {
        output::note(&format!("warning: {warning}"));
    }
    Ok(config)
}

fn check_config(layers: &Layers, json: bool) -> Result<(), Failure> {
    let loaded = Config::load(layers);
    if json {
        let errors: Vec<String> =
            loaded.as_ref().err().into_iter().flat_map(|e| e.iter()).map(ToString::to_string).collect();
        let warnings = loaded.as_ref().map(|config| config.warnings.clone()).unwrap_or_default();
        output::json(&serde_json::json!({ "ok": errors.is_empty(), "errors": errors, "warnings": warnings }));
        return if errors.is_empty() {
            Ok(())
        } else {
            Err(Failure::Configuration("the configuration is not usable".to_owned()))
        };
    }
    let config = load(layers)?;
    output::line("the configuration is good");
    output::line(&format!("  redirect URI  {}", config.public_url.redirect_uri()));
    output::line(&format!("  JWKS URI      {}", config.public_url.jwks_uri()));
    Ok(())
}

/// Starts the log. Does nothing the second time, so that commands in one process can share it.
pub fn start_log(filter: &str, format: telemetry::LogFormat) -> Result<(), Failure> {
    let subscriber = telemetry::subscriber(filter, format, std::io::stderr)
        .map_err(|cause| Failure::Configuration(format!("`log.filter` is {cause}")))?;
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// What to do about a change of the master key that was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interrupted {
    Finish,
    /// For who only looks, and for who finishes it himself.
    Leave,
}

/// Where the store of a configuration is.
pub fn store_file(config: &Config) -> PathBuf {
    config.data_dir.join(STORE_FILE)
}

/// Opens the store of a configuration.
pub fn open_store(config: &Config, create: bool) -> Result<Store, Failure> {
    open_store_and(config, create, Interrupted::Finish)
}

fn open_store_and(config: &Config, create: bool, interrupted: Interrupted) -> Result<Store, Failure> {
    let path = config.master_key_path().ok_or_else(|| {
        Failure::Configuration(
            "there is no master key: set `master_key.file`, or give systemd's credential `master.key`; \
             `chartgate init` makes one"
                .to_owned(),
        )
    })?;
    let file = MasterKeyFile::at(path);
    let master_key = file.read().map_err(|error| Failure::Configuration(error.to_string()))?;
    let opening =
        Opening { path: store_file(config), master_key, cache_bytes: config.store.cache.as_len(), create };
    let mut opened = Store::open(&opening, Random::system());
    if matches!(opened, Err(OpenError::WrongMasterKey(_))) {
        // A change of the master key may have been interrupted after the store had heard of it.
        for master_key in file.waiting() {
            let second =
                Store::open(&Opening { master_key: master_key.clone(), ..opening.clone() }, Random::system());
            if matches!(second, Err(OpenError::WrongMasterKey(_))) {
                continue;
            }
            if second.is_ok() && interrupted == Interrupted::Finish {
                // The waiting keys are looked at again every time, so nothing is at stake.
                let finished = file.hold().and_then(|held| {
                    finish_master_key(&file, &held, &master_key)?;
                    held.clear(&master_key)
                });
                if let Err(cause) = finished {
                    output::note(&format!(
                        "warning: the store opens with a key beside `{}` that should take its place: {cause}",
                        file.path().display()
                    ));
                }
            }
            opened = second;
            break;
        }
    }
    opened.map_err(|error| match error {
        OpenError::InUse(_) => Failure::Server(error.to_string()),
        OpenError::WrongMasterKey(_) | OpenError::Missing(_) => Failure::Configuration(error.to_string()),
        OpenError::Refused { .. }
        | OpenError::Damaged { .. }
        | OpenError::Newer { .. }
        | OpenError::Store(_) => Failure::Failed(error.to_string()),
    })
}

/// Puts a waiting master key in its place, because the store is wrapped with it.
pub fn finish_master_key(
    file: &MasterKeyFile,
    held: &HeldKeyFile,
    key: &MasterKey,
) -> Result<(), KeyFileError> {
    if let Some(kept) = held.promote(key, Clock::machine().now())? {
        output::note(&format!(
            "a change of the master key was interrupted; it is finished now: `{}` is the new key, `{}` the old one",
            file.path().display(),
            kept.display()
        ));
    }
    Ok(())
}

/// Builds the appliance of a configuration over its store.
pub async fn build(config: Config, store: Store, authorities: Option<Vec<u8>>) -> Result<App, Failure> {
    let authorities = match (&config.outbound.ca_file, authorities) {
        (Some(file), None) => Some(std::fs::read(file).map_err(|cause| {
            Failure::Configuration(format!("`outbound.ca_file` `{}` cannot be read: {cause}", file.display()))
        })?),
        (_, authorities) => authorities,
    };
    let pulls = PullSettings {
        parallel_per_source: config.pull.parallel_per_source as usize,
        page_bytes: config.outbound.response_body.as_len(),
        every: config.pull.every,
        ..PullSettings::default()
    };
    let ground = Ground { store, clock: Clock::machine(), random: Random::system(), authorities, pulls };
    App::build(config, ground).await.map_err(|error| Failure::Failed(error.to_string()))
}

async fn finish_init(layers: Layers, json: bool) -> Result<(), Failure> {
    let config = load(&layers)?;
    init::make_folder(&config.data_dir)?;
    let store = open_store(&config, true)?;
    let app = build(config, store, None).await?;
    let parts = app.parts();
    let answer = serde_json::json!({
        "data_dir": parts.config.data_dir,
        "redirect_uri": parts.config.public_url.redirect_uri(),
        "jwks_uri": parts.config.public_url.jwks_uri(),
    });
    if json {
        output::json(&answer);
    } else {
        output::answer(&answer);
        output::note(
            "next: register the app at your EHR vendor with these two addresses, then `chartgate serve`",
        );
    }
    Ok(())
}

async fn serve(layers: Layers) -> Result<(), Failure> {
    let config = load(&layers)?;
    start_log(&config.log.filter, config.log.format)?;
    raise_open_files(Some(config.limits.connections as usize));
    // Certificate and port first: what is wrong with them is said before the store is touched.
    let certificate = config.listen.public.tls.as_ref().map(Certificate::load).transpose()?;
    let transport = match &certificate {
        None => Transport::Plain,
        Some(certificate) => Transport::Tls(certificate.handle()),
    };
    let listener =
        server::bind(config.listen.public.address).map_err(|cause| Failure::Failed(cause.to_string()))?;
    let store = open_store(&config, false)?;
    let app = build(config, store, None).await?;
    listen_for_commands(&app)?;
    // Before it is said that we serve: whoever waits for that may stop us at once, or have us reload.
    stop_on_signal(&app.parts().shutdown);
    service::reload_on_hangup(app.parts(), certificate);
    tracing::info!(
        address = %app.parts().config.listen.public.address,
        public_url = app.parts().config.public_url.origin(),
        "chartgate is serving"
    );
    service::ready(app.parts().config.listen.public.address);
    service::keep_alive(app.parts());
    app.serve(vec![listener], transport).await;
    tracing::info!("chartgate has stopped");
    Ok(())
}

/// Makes the local socket through which commands reach the running appliance.
pub fn listen_for_commands(app: &App) -> Result<(), Failure> {
    control::listen(app).map_err(|cause| {
        let path = control::socket_path(&app.parts().config.data_dir);
        Failure::Failed(format!("the control socket `{}` cannot be made: {cause}", path.display()))
    })
}

/// As many open files as the system lets us have: each connection is one, and the usual soft limit of 1,024 is from
/// another time. Says so when that is less than the configuration asks for.
pub fn raise_open_files(connections: Option<usize>) {
    // What the store, the listeners and calls to hospitals need besides.
    const OTHERS: u64 = 256;
    let limit = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => limit,
        Err(cause) => {
            tracing::warn!(%cause, "the limit of open files cannot be raised");
            return;
        }
    };
    let wanted = connections.map_or(0, |count| u64::try_from(count).unwrap_or(u64::MAX)) + OTHERS;
    if limit < wanted {
        tracing::warn!(
            limit,
            wanted,
            "fewer open files are allowed than `limits.connections` needs; raise LimitNOFILE of the service"
        );
    }
}

/// SIGTERM, SIGINT: stop in order. A second one is the operating system's business again.
pub fn stop_on_signal(shutdown: &Shutdown) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be received; stop the process by force");
        return;
    };
    let stopping = shutdown.clone();
    shutdown.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stopping.triggered() => {}
        }
        service::stopping();
        stopping.trigger();
    });
}

pub async fn command(layers: Layers, command: Command, json: bool) -> Result<(), Failure> {
    let answer = Reached::new(load(&layers)?).ask(command).await?;
    if json {
        output::json(&answer);
    } else {
        output::answer(&answer);
    }
    Ok(())
}

/// Gives the space of what was removed back.
fn compact(layers: &Layers, json: bool) -> Result<(), Failure> {
    let store = open_store(&load(layers)?, false)?;
    output::note("compacting; it takes a minute for each few gigabytes");
    let done = store.compact().map_err(|error| Failure::Failed(error.to_string()))?;
    let answer = serde_json::json!({ "bytes_before": done.before, "bytes_after": done.after });
    if json {
        output::json(&answer);
    } else {
        output::answer(&answer);
    }
    Ok(())
}

/// The ledger is an object with a list in it: for people, the one after the other.
async fn ledger(layers: Layers, connection: String, json: bool) -> Result<(), Failure> {
    let mut answer = Reached::new(load(&layers)?).ask(Command::Ledger { connection }).await?;
    if json {
        output::json(&answer);
        return Ok(());
    }
    let entries = answer["entries"].take();
    let grant = answer["grant"].take();
    if let Some(members) = answer.as_object_mut() {
        members.remove("entries");
        members.remove("grant");
    }
    output::answer(&answer);
    if grant.is_object() {
        output::answer(&grant);
    }
    output::line("");
    let told = |entry: &Json| {
        let mut rest = entry.as_object().cloned().unwrap_or_default();
        let (at, kind) = (rest.remove("at"), rest.remove("kind"));
        rest.retain(|_, value| !value.is_null());
        let details: Vec<String> =
            rest.iter().map(|(name, value)| format!("{name}={}", output::plain(value))).collect();
        serde_json::json!({ "at": at, "what": kind, "details": details.join(" ") })
    };
    output::answer(&Json::Array(entries.as_array().into_iter().flatten().map(told).collect()));
    Ok(())
}

/// The report is an object with two lists in it: for people, the one after the other.
async fn pulls(layers: Layers, arguments: PullsArguments, json: bool) -> Result<(), Failure> {
    let asked = match (arguments.task, arguments.connection) {
        (Some(PullsTask::Now { connection }), _) => PullsCommand::Now { connection },
        (Some(PullsTask::Pause { source }), _) => PullsCommand::Pause { source },
        (Some(PullsTask::Resume { source }), _) => PullsCommand::Resume { source },
        (None, connection) => PullsCommand::Report { connection: connection.unwrap_or_default() },
    };
    let mut answer = Reached::new(load(&layers)?).ask(Command::Pulls(asked)).await?;
    if json {
        output::json(&answer);
        return Ok(());
    }
    let lists =
        ["types", "earlier"].map(|name| answer.as_object_mut().and_then(|members| members.remove(name)));
    output::answer(&answer);
    for list in
        lists.into_iter().flatten().filter(|list| list.as_array().is_some_and(|rows| !rows.is_empty()))
    {
        output::line("");
        output::answer(&list);
    }
    Ok(())
}

/// The box that commands are for: the running appliance, or, when there is none, its store, opened by ourselves.
pub struct Reached {
    config: Config,
    by: Option<By>,
    interrupted: Interrupted,
}

enum By {
    Socket,
    Store(App),
}

impl Reached {
    /// The box of this configuration; the first command finds out how to reach it.
    pub fn new(config: Config) -> Self {
        Self { config, by: None, interrupted: Interrupted::Finish }
    }

    /// Leaves the files of a change of the master key that was interrupted as they are.
    pub fn leaving_key_files(self) -> Self {
        Self { interrupted: Interrupted::Leave, ..self }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Lets background work of a store that was opened here end in order. It goes on when the store is opened again.
    pub async fn close(self) {
        if let Some(By::Store(app)) = self.by {
            let shutdown = app.parts().shutdown.clone();
            shutdown.trigger();
            shutdown.drained(std::time::Duration::from_secs(10)).await;
        }
    }

    /// Gives a command, and returns its answer.
    pub async fn ask(&mut self, command: Command) -> Result<Json, Failure> {
        let refused = |refused: Refused| Failure::Failed(refused.to_string());
        if !matches!(self.by, Some(By::Store(_))) {
            if let Some(answer) = control::ask(&self.config.data_dir, &command).await {
                self.by = Some(By::Socket);
                return answer.map_err(refused);
            }
            if self.by.is_some() {
                // It may be about to start again, and must then find its store.
                let what = "the appliance has stopped meanwhile; what it was doing goes on at its next start";
                return Err(Failure::Failed(what.to_owned()));
            }
        }
        if self.by.is_none() {
            let store = open_store_and(&self.config, false, self.interrupted)?;
            let built = Box::pin(build(self.config.clone(), store, None)).await?;
            self.by = Some(By::Store(built));
        }
        let Some(By::Store(app)) = &self.by else {
            return Err(Failure::Failed("the appliance cannot be reached".to_owned()));
        };
        control::execute(app.parts(), command).await.map_err(refused)
    }
}

fn api_key(task: ApiKeyTask) -> Command {
    match task {
        ApiKeyTask::Create { workspace, name, scopes, fhir_types, expires_in_days } => {
            Command::ApiKeyCreate { workspace, name, expires_in_days, scopes, fhir_types }
        }
        ApiKeyTask::List { workspace } => Command::ApiKeyList { workspace },
        ApiKeyTask::Revoke { workspace, id } => Command::ApiKeyRevoke { workspace, id },
    }
}

fn source(task: SourceTask) -> Command {
    match task {
        SourceTask::Add { url, tenant, name, ehr_client, city, state, departures, unchecked } => {
            let overrides = (*departures).into();
            Command::SourceAdd { url, tenant, name, ehr_client, city, state, overrides, unchecked }
        }
        SourceTask::List => Command::SourceList,
        SourceTask::Probe { source } => Command::Directory(DirectoryCommand::Probe { source }),
        SourceTask::Activation { source, state, note } => {
            Command::Directory(DirectoryCommand::Activate { source, state: state.map(Into::into), note })
        }
        SourceTask::Packet { source, contact, .. } => {
            Command::Directory(DirectoryCommand::Packet { source, contact })
        }
        SourceTask::Check { source } => Command::SourceCheck { source },
    }
}

fn ehr_client(task: EhrClientTask) -> Result<Command, Failure> {
    let EhrClientTask::Add {
        name,
        vendor,
        environment,
        client_id,
        auth,
        client_secret_file,
        signing_algorithm,
        smart_version,
        scopes,
        launch_url,
        launch_workspace,
    } = task
    else {
        return Ok(Command::EhrClientList);
    };
    let client_secret = match client_secret_file {
        None => None,
        Some(path) => Some(
            std::fs::read_to_string(&path).map(|text| Secret::new(text.trim_end_matches('\n'))).map_err(
                |cause| Failure::Configuration(format!("`{}` cannot be read: {cause}", path.display())),
            )?,
        ),
    };
    Ok(Command::EhrClientAdd {
        name,
        vendor,
        environment: environment.into(),
        client_id,
        auth: auth.into(),
        client_secret,
        signing_algorithm: signing_algorithm.map(Into::into),
        smart_version: smart_version.map(Into::into),
        scopes: scopes.map(|text| text.split_whitespace().map(str::to_owned).collect()),
        launch_url,
        launch_workspace,
    })
}
