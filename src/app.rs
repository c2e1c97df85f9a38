//! Builds every part once, starts and stops them, and leads each request to its handler. The only file that knows all
//! parts, and the details of none.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::header::{ACCEPT, ALLOW, HeaderMap, HeaderValue, IF_NONE_MATCH, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tracing::Instrument as _;

use crate::api::{self, Api, ApiLimits, ApiRequest, Guarded, Operation, Query};
use crate::body::Body;
use crate::clock::Clock;
use crate::config::{Config, Environment};
use crate::crypto::{Algorithm, Random};
use crate::directory::{
    Directory, DirectoryError, FreshList, LaunchTarget, NewEhrClient, NewSource, SourceRequests,
};
use crate::events::{Accesses, Outbox, WebhookSettings, Webhooks};
use crate::exports::Exports;
use crate::fhir::{LiveRequest, Proxy, ProxySettings, Refusal};
use crate::grants::{Announcements, Grants};
use crate::http::{
    Answer, ConnectPage, Guard, HeaderPolicy, Method405, Miss, Problem, ProblemKind, RequestId, Route,
    client_address,
};
use crate::outbound::{Outbound, OutboundSettings, OutboundSetupError};
use crate::records::{PullSettings, Records};
use crate::server::{self, Peer, ReadError, RequestBody, Transport};
use crate::shutdown::Shutdown;
use crate::smart::keys::{JWKS_LIFE, JwksFetches, RotationError, SigningError};
use crate::smart::server::Overrides;
use crate::smart::vendors::VendorProfile;
use crate::smart::{Discoverer, FhirBaseUrl, Launcher, Lifetimes, SigningKeys, TokenClient};
use crate::store::{BackupSchedule, Backups, DataKeyRotation, Store, StoreError};
use crate::web::assets;
use crate::web::connect::handlers::{Connect, PageRequest, PageTrouble};
use crate::web::connect::words::Trouble;
use crate::web::docs::docs_page;
use crate::web::home::{HomePage, home_page};
use crate::workspaces::{ApiKeys, Caller, Patients, Sessions, Workspaces};

/// How long caches may keep the description of the API, in seconds: it changes with the program only.
const DOCS_LIFE: u32 = 300;
/// Pages name their assets with a digest in the query, so an asset never changes under its address.
const ASSET_LIFE: u32 = 31_536_000;

/// How long an old data key is kept at least, for what it sealed outside the store and for reads that are under way.
const SEALED_OUTSIDE: Duration = Duration::from_hours(1);

/// Why the appliance could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The signing keys.
    #[error(transparent)]
    Keys(#[from] SigningError),
    /// The first signing keys.
    #[error(transparent)]
    FirstKeys(#[from] RotationError),
    /// The HTTP client.
    #[error(transparent)]
    Outbound(#[from] OutboundSetupError),
    /// What the configuration lists cannot be added.
    #[error("`{name}` of the configuration cannot be used: {cause}")]
    Listed {
        /// Of the entry.
        name: String,
        /// Why.
        cause: String,
    },
}

/// What the appliance is built from, besides its configuration.
#[derive(Debug)]
pub struct Ground {
    /// The opened store.
    pub store: Store,
    /// Now.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// More certificate authorities to trust, in PEM.
    pub authorities: Option<Vec<u8>>,
    /// How patiently records are pulled.
    pub pulls: PullSettings,
}

/// The appliance: its parts, each built once. Clones share them.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

/// The parts that commands use, too.
#[derive(Debug)]
pub struct Parts {
    /// Its configuration.
    pub config: Config,
    /// The store.
    pub store: Store,
    /// Now.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Calls to the outside.
    pub outbound: Outbound,
    /// Owners.
    pub workspaces: Workspaces,
    /// Their keys.
    pub api_keys: ApiKeys,
    /// Patients.
    pub patients: Patients,
    /// Journeys.
    pub sessions: Sessions,
    /// Where to connect.
    pub directory: Directory,
    /// What patients miss there.
    pub source_requests: SourceRequests,
    /// What EHRs say about themselves.
    pub discoverer: Discoverer,
    /// Our signing keys.
    pub signing_keys: SigningKeys,
    /// Who fetches them.
    pub jwks_fetches: JwksFetches,
    /// A change of the key that seals the store.
    pub data_keys: DataKeyRotation,
    /// Copies of the store.
    pub backups: Backups,
    /// Connections.
    pub grants: Grants,
    /// Records.
    pub records: Records,
    /// Bringing records elsewhere.
    pub exports: Exports,
    /// Reading live.
    pub proxy: Proxy,
    /// Who read what.
    pub accesses: Accesses,
    /// Who is told of events.
    pub webhooks: Webhooks,
    /// The signal to stop.
    pub shutdown: Shutdown,
    api: Api,
    connect: Connect,
    /// The description of the API, made once: for programs, and the page for people.
    openapi: Bytes,
    docs: Bytes,
}

impl App {
    /// Builds the parts, makes the workspaces, keys and entries that the configuration asks for.
    pub async fn build(config: Config, ground: Ground) -> Result<Self, StartError> {
        let Ground { store, clock, random, authorities, pulls } = ground;
        let shutdown = Shutdown::default();
        let outbound = Outbound::new(&OutboundSettings {
            timeout: config.outbound.timeout,
            connect_timeout: config.outbound.connect_timeout,
            allowed_networks: config.outbound.allow_private.clone(),
            extra_authorities: authorities.clone(),
        })?;
        // Receivers are named by apps, and EHRs by the operator: a network open to one is not open to the other.
        let to_receivers = Outbound::new(&OutboundSettings {
            timeout: config.outbound.timeout,
            connect_timeout: config.outbound.connect_timeout,
            allowed_networks: config.webhook.allow_private.clone(),
            extra_authorities: authorities,
        })?;
        // Launch attempts are sealed into cookies, and nothing else stays outside the store for longer.
        let outside = config.launch.attempt_lifetime.max(SEALED_OUTSIDE);
        let backups = Backups::new(
            store.clone(),
            clock.clone(),
            shutdown.clone(),
            config.backup.folder.clone().unwrap_or_else(|| config.data_dir.join("backups")),
            BackupSchedule { every: config.backup.every, keep: config.backup.keep as usize },
        );
        let data_keys = DataKeyRotation::new(store.clone(), clock.clone(), shutdown.clone(), outside);
        let discoverer = Discoverer::new(outbound.clone(), clock.clone());
        let overlap = config.signing.overlap;
        let signing_keys =
            SigningKeys::load(store.clone(), clock.clone(), random.clone(), shutdown.clone(), overlap)?;
        signing_keys.ensure().await?;
        let jwks_fetches = JwksFetches::load(store.clone(), clock.clone(), shutdown.clone())?;
        let tokens = TokenClient::new(
            outbound.clone(),
            signing_keys.clone(),
            clock.clone(),
            random.clone(),
            discoverer.skews().clone(),
        );
        let launcher = Launcher::new(
            store.clone(),
            discoverer.clone(),
            tokens.clone(),
            clock.clone(),
            random.clone(),
            config.public_url.redirect_uri(),
            Lifetimes { attempt: config.launch.attempt_lifetime, context: config.launch.context_lifetime },
        );
        let directory = Directory::load(store.clone(), clock.clone(), random.clone())?;
        let origin = config.public_url.origin().to_owned();
        let outbox = Outbox::new(random.clone());
        let source_requests =
            SourceRequests::new(store.clone(), clock.clone(), random.clone(), outbox.clone());
        let announcements = Announcements::new(outbox.clone(), move |token| {
            format!("{origin}{}", Route::Connect(token.clone(), ConnectPage::Start).path())
        });
        let grants = Grants::new(
            store.clone(),
            clock.clone(),
            random.clone(),
            directory.clone(),
            launcher,
            tokens,
            announcements,
            shutdown.clone(),
            config.grants.keep_alive,
        );
        let records = Records::new(
            store.clone(),
            clock.clone(),
            random.clone(),
            outbound.clone(),
            grants.clone(),
            pulls,
            shutdown.clone(),
        );
        let live = &config.fhir;
        let settings = ProxySettings {
            origin: config.public_url.origin().to_owned(),
            timeout: live.timeout,
            response_body: live.response_body.as_bytes(),
            parallel_per_source: live.parallel_per_source as usize,
            waiting_per_source: live.waiting_per_source as usize,
            cors_origins: live.cors_origins.clone(),
        };
        let accesses = Accesses::new(store.clone(), shutdown.clone());
        let proxy = Proxy::new(settings, outbound.clone(), grants.clone(), accesses.clone(), clock.clone());
        let webhooks = Webhooks::new(
            store.clone(),
            clock.clone(),
            random.clone(),
            to_receivers,
            outbox,
            WebhookSettings { overlap: config.webhook.secret_overlap, retention: config.webhook.retention },
            shutdown.clone(),
        );
        let workspaces = Workspaces::new(store.clone(), clock.clone(), random.clone());
        let exports = Exports::new(
            store.clone(),
            clock.clone(),
            workspaces.clone(),
            config.exports.clone(),
            shutdown.clone(),
        );
        let api_keys = ApiKeys::new(store.clone(), clock.clone(), random.clone(), shutdown.clone());
        let patients = Patients::new(store.clone(), clock.clone(), random.clone());
        let sessions = Sessions::new(store.clone(), clock.clone(), random.clone());
        let api = Api {
            store: store.clone(),
            clock: clock.clone(),
            api_keys: api_keys.clone(),
            limits: ApiLimits::new(&config.api),
            patients: patients.clone(),
            sessions: sessions.clone(),
            directory: directory.clone(),
            grants: grants.clone(),
            records: records.clone(),
            accesses: accesses.clone(),
            webhooks: webhooks.clone(),
            public_url: config.public_url.clone(),
            session_lifetime: config.launch.session_lifetime,
        };
        let connect = Connect {
            store: store.clone(),
            clock: clock.clone(),
            random: random.clone(),
            workspaces: workspaces.clone(),
            sessions: sessions.clone(),
            directory: directory.clone(),
            requests: source_requests.clone(),
            grants: grants.clone(),
            records: records.clone(),
            public_url: config.public_url.clone(),
            clinic: config.clinic_name.clone(),
        };
        let description = api::description(config.public_url.origin());
        let openapi = Bytes::from(description.to_string());
        let docs = Bytes::from(docs_page(&description, &Route::OpenApi.path()).into_string());
        let parts = Parts {
            config,
            store,
            clock,
            random,
            outbound,
            workspaces,
            api_keys,
            patients,
            sessions,
            directory,
            source_requests,
            discoverer,
            signing_keys,
            jwks_fetches,
            data_keys,
            backups,
            grants,
            records,
            exports,
            proxy,
            accesses,
            webhooks,
            shutdown,
            api,
            connect,
            openapi,
            docs,
        };
        parts.apply_config().await?;
        Ok(Self(Arc::new(parts)))
    }

    /// The parts.
    pub fn parts(&self) -> &Parts {
        &self.0
    }

    /// Serves until the signal to stop, then lets open requests and background work finish within their time.
    pub async fn serve(&self, listeners: Vec<TcpListener>, transport: Transport) {
        let parts = self.parts();
        parts.records.pulls().start();
        parts.grants.start_erasing();
        parts.webhooks.start();
        parts.exports.start();
        if let Some(keep) = parts.config.records.keep_after_end {
            parts.records.start_retention(keep, &parts.shutdown);
        }
        parts.grants.start_schedule();
        parts.data_keys.start();
        parts.backups.start();
        parts.directory.start(parts.outbound.clone(), fresh_lists(&parts.config), &parts.shutdown);
        let app = self.clone();
        let limits = server_limits(&parts.config);
        let handler = move |peer: Peer, request: Request<RequestBody>| {
            let app = app.clone();
            async move { app.answer(peer, request).await }
        };
        let drain = parts.config.limits.shutdown;
        server::serve(listeners, transport, limits, handler, &parts.shutdown, drain).await;
        // An exchange that is under way holds a patient's tokens: it may take its whole time.
        let patience = drain.max(parts.config.outbound.timeout + Duration::from_secs(2));
        if !parts.shutdown.drained(patience).await {
            tracing::warn!(
                tasks = parts.shutdown.running(),
                "stopped with background work unfinished; it goes on at the next start"
            );
        }
    }

    /// Answers one request: the only place that logs requests.
    async fn answer(&self, peer: Peer, request: Request<RequestBody>) -> Response<Body> {
        let parts = self.parts();
        let request_id = RequestId::new(parts.random.uuid());
        let route = Route::parse(request.method(), request.uri().path());
        let name = route.as_ref().map_or("none", Route::name);
        if matches!(route, Ok(Route::Jwks)) && request.method() == Method::GET {
            self.note_fetch(&peer, request.headers());
        }
        // A live read that succeeds has a line of its own when its body has ended, with the same id.
        let live = matches!(route, Ok(Route::Fhir(..)));
        let span = if live {
            tracing::debug_span!("request", id = request_id.as_str(), route = name)
        } else {
            tracing::info_span!("request", id = request_id.as_str(), route = name)
        };
        let started = parts.clock.now();
        let routed = AssertUnwindSafe(self.route(peer, route, request, &request_id)).catch_unwind();
        let answer = routed.instrument(span.clone()).await.unwrap_or_else(|_| {
            // A bug in one request is that request's own; its text went to standard error with the panic.
            let problem = Problem::new(
                ProblemKind::Internal,
                "Something went wrong here. The operator has been told in the log.",
            );
            span.in_scope(|| problem.into_answer(&request_id, &self.doc_url()))
        });
        let status = answer.status().as_u16();
        let took = parts.clock.now().since(started).as_millis();
        if live && status < 400 {
            tracing::debug!(status, ms = took, encrypted = peer.encrypted, "answered");
        } else if live {
            let request = request_id.as_str();
            tracing::info!(request, route = name, status, ms = took, encrypted = peer.encrypted, "answered");
        } else {
            span.in_scope(|| tracing::info!(status, ms = took, encrypted = peer.encrypted, "answered"));
        }
        let secure = parts.config.public_url.is_secure();
        answer.finish(&request_id, if secure { HeaderPolicy::Secure } else { HeaderPolicy::Loopback })
    }

    /// Who is about to get our public keys.
    fn note_fetch(&self, peer: &Peer, headers: &HeaderMap) {
        let parts = self.parts();
        let proxies = &parts.config.listen.public.trusted_proxies;
        let address = client_address(peer.address.ip(), headers, proxies);
        let agent = headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()));
        let host = parts.outbound.name_at(address);
        let kids = parts.signing_keys.published();
        parts.jwks_fetches.note(address, host, agent.as_deref().unwrap_or_default(), &kids);
    }

    async fn route(
        &self,
        peer: Peer,
        route: Result<Route, Miss>,
        request: Request<RequestBody>,
        request_id: &RequestId,
    ) -> Answer {
        let wants_page = wants_page(request.headers());
        match route {
            Ok(Route::Fhir(connection, path)) => self.live(peer, connection, path, request, request_id).await,
            Err(Miss::Method(_)) if Route::is_fhir(request.uri().path()) => {
                Answer::made(Refusal::Method.into_response(request_id.as_str()))
            }
            Ok(route) if route.guard() == Guard::ApiKey => self.api(peer, route, request, request_id).await,
            Ok(route) => self.public(route, request).await,
            Err(Miss::NotFound) if wants_page => self.trouble(Trouble::NotFound.into()),
            Err(Miss::NotFound) => Problem::new(ProblemKind::NotFound, "There is nothing at this address.")
                .into_answer(request_id, &self.doc_url()),
            Err(Miss::Method(Method405(allowed))) => {
                let mut answer = if wants_page {
                    self.trouble(Trouble::WrongMethod.into())
                } else {
                    Problem::new(ProblemKind::MethodNotAllowed, "This address does not know that method.")
                        .into_answer(request_id, &self.doc_url())
                };
                let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
                if let Ok(value) = HeaderValue::from_str(&allowed) {
                    answer.headers_mut().insert(ALLOW, value);
                }
                answer
            }
        }
    }

    /// The live FHIR proxy: whatever happens, a FHIR client gets an answer that it understands.
    async fn live(
        &self,
        peer: Peer,
        connection: String,
        path: String,
        request: Request<RequestBody>,
        request_id: &RequestId,
    ) -> Answer {
        let parts = self.parts();
        let proxy = &parts.proxy;
        if request.method() == Method::OPTIONS {
            return Answer::made(proxy.preflight(request.headers()));
        }
        let origin = proxy.listed_origin(request.headers());
        let address = self.address(peer, request.headers());
        let Guarded { caller, allowance } =
            parts.api.guard(Operation::ReadLive, request.headers(), address).await;
        let answered = match caller {
            Ok(caller) => self.admitted_live(caller, connection, path, request, request_id).await,
            Err(problem) => Err(problem),
        };
        let mut answer = answered.unwrap_or_else(|problem| problem.into_outcome(request_id));
        allowance.write(answer.headers_mut());
        proxy.open_to(origin, answer.headers_mut());
        answer
    }

    async fn admitted_live(
        &self,
        caller: Caller,
        connection: String,
        path: String,
        request: Request<RequestBody>,
        request_id: &RequestId,
    ) -> Result<Answer, Problem> {
        let parts = self.parts();
        let (head, body) = request.into_parts();
        let form = if head.method == Method::POST { self.read_for_api(body).await? } else { Bytes::new() };
        let query = head.uri.query().map(str::to_owned);
        let request_id = request_id.as_str().to_owned();
        let (method, headers) = (head.method, head.headers);
        let id = request_id.clone();
        let request = LiveRequest { caller, connection, path, query, method, headers, form, request_id };
        let answer = parts.proxy.answer(request).await;
        Ok(Answer::made(answer.unwrap_or_else(|refusal| refusal.into_response(&id))))
    }

    async fn read_for_api(&self, body: RequestBody) -> Result<Bytes, Problem> {
        self.read(body).await.map_err(|error| match error {
            ReadError::TooLarge => Problem::new(ProblemKind::PayloadTooLarge, "The body is too large."),
            ReadError::TooSlow | ReadError::Broken => {
                Problem::new(ProblemKind::BadRequest, "The body did not arrive completely, or not in time.")
            }
        })
    }

    /// The caller's own address, not that of a proxy in front.
    fn address(&self, peer: Peer, headers: &HeaderMap) -> IpAddr {
        client_address(peer.address.ip(), headers, &self.parts().config.listen.public.trusted_proxies)
    }

    async fn api(
        &self,
        peer: Peer,
        route: Route,
        request: Request<RequestBody>,
        request_id: &RequestId,
    ) -> Answer {
        let parts = self.parts();
        let refuse = |problem: Problem| problem.into_answer(request_id, &self.doc_url());
        let Some(operation) = Operation::of(&route, request.method()) else {
            return refuse(Problem::not_found("This address"));
        };
        let address = self.address(peer, request.headers());
        // 401 before anything of the body is read.
        let Guarded { caller, allowance } = parts.api.guard(operation, request.headers(), address).await;
        let answered = match caller {
            Ok(caller) => self.admitted(route, caller, request).await,
            Err(problem) => Err(problem),
        };
        let mut answer = answered.unwrap_or_else(refuse);
        allowance.write(answer.headers_mut());
        answer
    }

    async fn admitted(
        &self,
        route: Route,
        caller: Caller,
        request: Request<RequestBody>,
    ) -> Result<Answer, Problem> {
        let (head, body) = request.into_parts();
        let body = self.read_for_api(body).await?;
        let query = Query::parse(head.uri.query());
        let request = ApiRequest { caller, method: head.method, headers: head.headers, query, body };
        self.parts().api.handle(route, request).await
    }

    async fn public(&self, route: Route, request: Request<RequestBody>) -> Answer {
        let parts = self.parts();
        let (head, body) = request.into_parts();
        let body = match self.read(body).await {
            Ok(body) => body,
            Err(ReadError::TooLarge) => return self.trouble(Trouble::TooLarge.into()),
            Err(ReadError::TooSlow | ReadError::Broken) => return self.trouble(Trouble::TooSlow.into()),
        };
        let request = PageRequest {
            method: head.method,
            query: head.uri.query().map(str::to_owned),
            headers: head.headers,
            body,
        };
        let answered = match route {
            Route::Home => Ok(self.home()),
            Route::Health => Ok(parts.api.health()),
            Route::OpenApi => {
                Ok(Answer::new(StatusCode::OK, "application/json", parts.openapi.clone()).cached(DOCS_LIFE))
            }
            Route::Docs => Ok(Answer::page(StatusCode::OK, parts.docs.clone()).cached(DOCS_LIFE)),
            Route::Jwks => {
                Ok(Answer::new(StatusCode::OK, "application/json", parts.signing_keys.jwks())
                    .cached(JWKS_LIFE))
            }
            Route::Asset(name) => asset(&name, &request.headers),
            // Its address holds a code.
            Route::Callback => {
                let answered = parts.connect.callback(&request).await;
                return answered.unwrap_or_else(|trouble| self.trouble(trouble)).without_referrer();
            }
            // Its address holds the launch value.
            Route::EhrLaunch(client) => {
                let answered = parts.connect.ehr_launch(&client, &request).await;
                return answered.unwrap_or_else(|trouble| self.trouble(trouble)).without_referrer();
            }
            Route::Connect(token, page) => parts.connect.handle(token, page, &request).await,
            Route::Patients
            | Route::Patient(_)
            | Route::PatientConnection(..)
            | Route::SessionsOfPatient(_)
            | Route::Records(_)
            | Route::RecordsExport(_)
            | Route::Sources
            | Route::Source(_)
            | Route::Sessions
            | Route::Session(_)
            | Route::LaunchContext(_)
            | Route::AuthEvents(_)
            | Route::Webhooks
            | Route::Webhook(_)
            | Route::WebhookSecret(_)
            | Route::WebhookEvents(_)
            | Route::Redeliver(_)
            | Route::Fhir(..) => Err(Trouble::NotFound.into()),
        };
        answered.unwrap_or_else(|trouble| self.trouble(trouble))
    }

    async fn read(&self, body: RequestBody) -> Result<Bytes, ReadError> {
        body.read_all(self.parts().config.limits.body.as_len()).await
    }

    fn trouble(&self, trouble: PageTrouble) -> Answer {
        self.parts().connect.trouble_page(trouble)
    }

    fn doc_url(&self) -> String {
        format!("{}{}#errors", self.parts().config.public_url.origin(), Route::Docs.path())
    }

    fn home(&self) -> Answer {
        let url = &self.parts().config.public_url;
        let page = HomePage {
            public_url: url.origin().to_owned(),
            version: None,
            admin: None,
            docs: Some(Route::Docs.path()),
            health: Route::Health.path(),
            jwks_uri: url.jwks_uri(),
            redirect_uri: url.redirect_uri(),
            hints: Vec::new(),
        };
        Answer::page(StatusCode::OK, home_page(&page).into_string())
    }
}

impl Parts {
    /// Makes the two default workspaces and brings what the configuration lists into the store.
    async fn apply_config(&self) -> Result<(), StartError> {
        for workspace in &self.config.workspaces {
            self.workspaces.ensure(&workspace.name, workspace.environment).await?;
        }
        for client in &self.config.ehr_clients {
            let listed = |cause: DirectoryError| StartError::Listed {
                name: client.name.clone(),
                cause: cause.to_string(),
            };
            let profile = VendorProfile::named(client.vendor.as_str()).unwrap_or_else(VendorProfile::generic);
            self.directory
                .ensure_client(NewEhrClient {
                    name: client.name.clone(),
                    vendor: client.vendor.as_str().to_owned(),
                    environment: client.environment,
                    client_id: client.client_id.clone(),
                    auth: client.auth,
                    client_secret: client.client_secret.clone(),
                    signing_algorithm: client
                        .signing_algorithm
                        .and_then(|name| Algorithm::from_name(name.as_str())),
                    smart_version: client.smart_version.unwrap_or(profile.smart_version),
                    scopes: client.scopes.clone(),
                    launch: client
                        .launch_url
                        .clone()
                        .map(|url| LaunchTarget { url, workspace: client.launch_workspace.clone() }),
                })
                .await
                .map_err(listed)?;
        }
        for source in &self.config.sources {
            let name = source.name.clone();
            let base = FhirBaseUrl::parse(&source.fhir_base_url)
                .map_err(|cause| StartError::Listed { name: name.clone(), cause: cause.to_string() })?;
            let listed =
                |cause: DirectoryError| StartError::Listed { name: name.clone(), cause: cause.to_string() };
            self.directory
                .ensure_source(NewSource {
                    environment: source.environment,
                    name: source.name.clone(),
                    base,
                    ehr_client: source.ehr_client.clone(),
                    city: source.city.clone(),
                    state: source.state.clone(),
                    logo_url: source.logo_url.clone(),
                    portal_url: source.portal_url.clone(),
                    overrides: Overrides {
                        authorize_url: source.authorize_url.clone(),
                        token_url: source.token_url.clone(),
                        assertion_audience: source.assertion_audience.clone(),
                        send_client_id: source.send_client_id,
                        send_aud: source.send_aud,
                        unlisted_auth: source.unlisted_auth,
                    },
                })
                .await
                .map_err(listed)?;
        }
        Ok(())
    }

    /// Whether a base URL may be used in an environment: plain HTTP and this machine only in the sandbox.
    pub fn base_fits(base: &FhirBaseUrl, environment: Environment) -> bool {
        environment == Environment::Sandbox || base.origin().starts_with("https://")
    }
}

fn fresh_lists(config: &Config) -> Vec<FreshList> {
    let lists = config.directory_lists.iter().map(|list| FreshList {
        name: list.name.clone(),
        environment: list.environment,
        url: list.url.clone(),
        every: list.every,
    });
    lists.collect()
}

fn server_limits(config: &Config) -> server::Limits {
    let limits = &config.limits;
    server::Limits {
        tls_handshake: limits.tls_handshake,
        request_head: limits.request_head,
        request_body_idle: limits.request_body_idle,
        request_body_total: limits.request_body_total,
        idle: limits.idle,
        write_stall: limits.write_stall,
        connections: limits.connections as usize,
        connections_per_address: limits.connections_per_address as usize,
        ..server::Limits::default()
    }
}

fn asset(name: &str, headers: &HeaderMap) -> Result<Answer, PageTrouble> {
    let asset = assets::asset(name).ok_or(Trouble::NotFound)?;
    let known = headers.get(IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == asset.etag.as_bytes());
    let mut answer = if known {
        Answer::new(StatusCode::NOT_MODIFIED, asset.content_type, Bytes::new())
    } else {
        Answer::new(StatusCode::OK, asset.content_type, asset.body)
    }
    .cached(ASSET_LIFE);
    answer.headers_mut().insert(hyper::header::ETAG, HeaderValue::from_static(asset.etag));
    Ok(answer)
}

fn wants_page(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}
