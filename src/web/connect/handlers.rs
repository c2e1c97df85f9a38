//! The handlers of the patient's pages: what a link shows, where a patient is sent, how a patient comes back.
//!
//! A GET changes nothing, so link previews, mail scanners and second devices use nothing up. In direct mode a GET goes
//! on to the hospital, which stores nothing either: the attempt waits in the browser's cookie.

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderValue, ORIGIN};
use hyper::{Method, StatusCode};
use url::Url;

use crate::clock::Clock;
use crate::config::{Environment, PublicUrl};
use crate::crypto::Random;
use crate::directory::{Directory, Source};
use crate::grants::{Connection, ConnectionStatus, Grants};
use crate::http::{Answer, ConnectPage, Route};
use crate::id::{ConnectionId, Id as _, SourceId};
use crate::records::{Pull, Records, TypeState};
use crate::smart::ehr_error::{FailureCode, PatientText};
use crate::smart::launch::ATTEMPT_COOKIE;
use crate::smart::scopes::{Access, RESOURCE_TYPES, ScopeSet, compare};
use crate::smart::token_response::{AuthorizationCode, OAuthError, State};
use crate::smart::{CallbackQuery, StaleReturn};
use crate::store::{Store, StoreError};
use crate::web::connect::pages::{
    ConnectedRow, DonePage, Finder, LeavingPage, Retry, SourceCard, StartPage, done_page, leaving_page,
    results_fragment, start_page,
};
use crate::web::connect::results::{Arrival, Outcome, Progress, ResultPage, progress_fragment, result_page};
use crate::web::connect::words::{ENGLISH, Trouble};
use crate::web::errors::{ErrorPage, WayOn, error_page};
use crate::web::look::Branding;
use crate::workspaces::{PatientSession, SessionMode, SessionStatus, SessionToken, Sessions, Workspaces};

/// At most this many cards on a page; who types a letter more sees fewer.
const MOST_CARDS: usize = 25;
/// At most this many attempts wait in one browser; the oldest gives way.
const MOST_ATTEMPTS: usize = 4;

/// What the handlers use.
#[derive(Debug, Clone)]
pub struct Connect {
    /// The store, for reads that span rooms.
    pub store: Store,
    /// Now.
    pub clock: Clock,
    /// Reference codes.
    pub random: Random,
    /// Which environment a session belongs to.
    pub workspaces: Workspaces,
    /// Journeys.
    pub sessions: Sessions,
    /// Where to connect.
    pub directory: Directory,
    /// Departures and arrivals.
    pub grants: Grants,
    /// What is arriving.
    pub records: Records,
    /// Our own address.
    pub public_url: PublicUrl,
    /// Who sent the link, as the patient knows them.
    pub clinic: String,
}

/// A browser's request, as far as pages need it.
#[derive(Debug)]
pub struct PageRequest {
    /// The method.
    pub method: Method,
    /// The query, without its `?`.
    pub query: Option<String>,
    /// Cookies, `Sec-Fetch-Site` and `Origin`.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl PageRequest {
    fn field(&self, name: &str) -> Option<String> {
        let pairs = url::form_urlencoded::parse(self.query.as_deref().unwrap_or_default().as_bytes());
        pairs.filter(|(known, _)| known == name).map(|(_, value)| value.into_owned()).last()
    }

    fn form_field(&self, name: &str) -> Option<String> {
        let pairs = url::form_urlencoded::parse(&self.body);
        pairs.filter(|(known, _)| known == name).map(|(_, value)| value.into_owned()).last()
    }

    /// The cookies of launch attempts, without the prefix of a secure origin, oldest first.
    fn attempts(&self, prefix: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for header in self.headers.get_all(hyper::header::COOKIE) {
            for cookie in header.to_str().unwrap_or_default().split(';') {
                let Some((name, value)) = cookie.trim().split_once('=') else { continue };
                if let Some(name) = name.strip_prefix(prefix).filter(|name| name.starts_with(ATTEMPT_COOKIE))
                {
                    found.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        // The name begins with the time, in hexadecimal of one length.
        found.sort();
        found
    }
}

/// What stands in the way of a page.
#[derive(Debug)]
pub struct PageTrouble {
    /// Which.
    pub trouble: Trouble,
    /// A link on.
    pub next: Option<WayOn>,
    /// What the log should say, under the reference code on the page.
    pub cause: Option<String>,
    /// Of the session, when that is known.
    pub environment: Option<Environment>,
}

impl From<Trouble> for PageTrouble {
    fn from(trouble: Trouble) -> Self {
        Self { trouble, next: None, cause: None, environment: None }
    }
}

impl From<StoreError> for PageTrouble {
    fn from(error: StoreError) -> Self {
        Self { cause: Some(error.to_string()), ..Trouble::OurFault.into() }
    }
}

impl PageTrouble {
    fn status(&self) -> StatusCode {
        match self.trouble {
            Trouble::SessionExpired | Trouble::SessionFinished => StatusCode::GONE,
            Trouble::SessionNotFound | Trouble::NotFound => StatusCode::NOT_FOUND,
            Trouble::StaleReturn | Trouble::OtherBrowser => StatusCode::BAD_REQUEST,
            Trouble::HospitalSilent => StatusCode::BAD_GATEWAY,
            Trouble::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Trouble::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Trouble::Busy => StatusCode::TOO_MANY_REQUESTS,
            Trouble::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Trouble::OurFault => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The page, with the branding that [`Connect::trouble_page`] gives it. What has a cause gets a reference code,
    /// which the log line with the cause carries too.
    fn into_answer(self, branding: Branding, random: &Random) -> Answer {
        let mut page = ErrorPage::of(self.trouble, &ENGLISH);
        let status = self.status();
        if let Some(cause) = self.cause {
            let reference = random.reference();
            tracing::warn!(%reference, cause, trouble = ?self.trouble, "page refused");
            page.reference = Some(reference.to_string());
        }
        page.branding = Some(branding);
        page.next = self.next;
        Answer::page(status, error_page(&page).into_string())
    }
}

/// A session with what its pages need.
struct Journey {
    session: PatientSession,
    environment: Environment,
    path: String,
}

impl Connect {
    /// Answers one of the pages behind a session's link.
    pub async fn handle(
        &self,
        token: SessionToken,
        page: ConnectPage,
        request: &PageRequest,
    ) -> Result<Answer, PageTrouble> {
        let journey = self.journey(token).await?;
        let answered = match page {
            ConnectPage::Start => self.start(&journey, request).await,
            ConnectPage::Leaving(source) => self.leaving(&journey, source).await,
            ConnectPage::Launch => self.launch(&journey, request).await,
            ConnectPage::Result(connection) => self.result(&journey, connection).await,
            ConnectPage::Progress(connection) => self.progress(&journey, connection).await,
            ConnectPage::Done => self.done(&journey, request).await,
        };
        answered.map_err(|trouble| PageTrouble { environment: Some(journey.environment), ..trouble })
    }

    /// The page for what stands in the way. Without a session, what can be connected here tells whether it is practice.
    pub fn trouble_page(&self, trouble: PageTrouble) -> Answer {
        let practice =
            || if self.directory.only_practice() { Environment::Sandbox } else { Environment::Live };
        let branding = self.branding(trouble.environment.unwrap_or_else(practice));
        trouble.into_answer(branding, &self.random)
    }

    async fn journey(&self, token: SessionToken) -> Result<Journey, PageTrouble> {
        let session = self.sessions.by_token(token.clone()).await?.ok_or(Trouble::SessionNotFound)?;
        let workspace = self.workspaces.find(session.workspace).await?.ok_or(Trouble::SessionNotFound)?;
        let path = Route::Connect(token, ConnectPage::Start).path();
        Ok(Journey { session, environment: workspace.environment, path })
    }

    /// Only an open session starts anything; a finished one says so.
    fn must_be_open(&self, journey: &Journey) -> Result<(), PageTrouble> {
        match journey.session.status(self.clock.now()) {
            SessionStatus::Open => Ok(()),
            SessionStatus::Complete => Err(Trouble::SessionFinished.into()),
            SessionStatus::Expired => Err(Trouble::SessionExpired.into()),
        }
    }

    async fn start(&self, journey: &Journey, request: &PageRequest) -> Result<Answer, PageTrouble> {
        if journey.session.status(self.clock.now()) == SessionStatus::Complete {
            return see_other(&format!("{}/done", journey.path));
        }
        self.must_be_open(journey)?;
        if let SessionMode::Direct(source) = journey.session.mode {
            // A HEAD only looks.
            if request.method == Method::HEAD {
                return Ok(Answer::page(StatusCode::OK, Bytes::new()));
            }
            return self.depart(journey, source, request).await;
        }
        let query = request.field("q").unwrap_or_default();
        let connected = self.connected(journey).await?;
        let finder = self.finder(journey, &query, &connected);
        let branding = self.branding(journey.environment);
        if request.field("fragment").is_some() {
            let fragment = results_fragment(&journey.path, &finder, &branding);
            return Ok(Answer::page(StatusCode::OK, fragment.into_string()));
        }
        let page = StartPage {
            token_path: journey.path.clone(),
            can_finish: !connected.is_empty(),
            done_label: done_label(&journey.session),
            branding,
            finder,
            connected,
        };
        Ok(Answer::page(StatusCode::OK, start_page(&page).into_string()))
    }

    fn finder(&self, journey: &Journey, query: &str, connected: &[ConnectedRow]) -> Finder {
        let query: String = query.chars().take(200).collect();
        let asked = !query.trim().is_empty();
        let mut found = self.directory.search(journey.environment, &query);
        let more = found.len() > MOST_CARDS;
        found.truncate(MOST_CARDS);
        let recommended = match &journey.session.mode {
            SessionMode::Picker(ids) => ids.iter().filter_map(|id| self.directory.source(*id)).collect(),
            SessionMode::Direct(_) => Vec::new(),
        };
        let cards = |sources: &[std::sync::Arc<Source>]| {
            let mut cards: Vec<SourceCard> = sources.iter().map(|source| card(source)).collect();
            for card in &mut cards {
                card.connected = connected.iter().any(|row| row.source_id == card.source_id);
            }
            cards
        };
        // Without a question: what the app recommends, else everything there is.
        let shown = if recommended.is_empty() { found.clone() } else { recommended };
        Finder {
            query,
            results: asked.then(|| cards(&found)),
            more: more && asked,
            recommended: cards(&shown),
        }
    }

    /// What this session has connected so far, each source once.
    async fn connected(&self, journey: &Journey) -> Result<Vec<ConnectedRow>, PageTrouble> {
        let id = journey.session.id;
        let connections = self
            .store
            .read(move |view| {
                let mut found = Vec::new();
                for (connection, _) in Sessions::attempts(view, id)? {
                    found.extend(Connection::find(view, connection)?);
                }
                Ok::<_, StoreError>(found)
            })
            .await?;
        let active =
            connections.into_iter().filter(|connection| connection.status == ConnectionStatus::Active);
        let rows = active.filter_map(|connection| {
            let source = self.directory.source(connection.source)?;
            let gaps = !gaps(&connection, None).is_empty();
            let sentence = if gaps { ENGLISH.row_gaps } else { ENGLISH.row_connected };
            Some(ConnectedRow {
                source_id: source.id.to_string(),
                name: source.name.clone(),
                logo: None,
                state_sentence: sentence.to_owned(),
                needs_attention: gaps,
            })
        });
        Ok(rows.collect())
    }

    async fn leaving(&self, journey: &Journey, source: SourceId) -> Result<Answer, PageTrouble> {
        self.must_be_open(journey)?;
        let source = self.allowed(journey, source)?;
        let page = LeavingPage {
            token_path: journey.path.clone(),
            source_id: source.id.to_string(),
            name: source.name.clone(),
            logo: None,
            sign_in_host: self.grants.sign_in_host(&source).await,
            branding: self.branding(journey.environment),
            retry: self.retry(journey, source.id).await?,
        };
        Ok(Answer::page(StatusCode::OK, leaving_page(&page).into_string()))
    }

    /// Why the patient is here again, if so.
    async fn retry(&self, journey: &Journey, source: SourceId) -> Result<Option<Retry>, PageTrouble> {
        let id = journey.session.id;
        let last = self
            .store
            .read(move |view| {
                let mut last = None;
                for (connection, at) in Sessions::attempts(view, id)? {
                    let found = Connection::find(view, connection)?.filter(|found| found.source == source);
                    if let Some(found) = found
                        && last.as_ref().is_none_or(|(latest, _)| *latest <= at)
                    {
                        last = Some((at, found));
                    }
                }
                Ok::<_, StoreError>(last.map(|(_, connection)| connection))
            })
            .await?;
        Ok(last.and_then(|connection| match connection.status {
            ConnectionStatus::Active => {
                let missing = gaps(&connection, None);
                (!missing.is_empty()).then_some(Retry::Gaps(missing))
            }
            ConnectionStatus::Failed if declined(&connection) => Some(Retry::SaidNo),
            ConnectionStatus::Failed => Some(Retry::Failed),
            ConnectionStatus::Expired | ConnectionStatus::RefreshFailed => Some(Retry::AccessEnded),
            ConnectionStatus::Disconnected => None,
        }))
    }

    async fn launch(&self, journey: &Journey, request: &PageRequest) -> Result<Answer, PageTrouble> {
        self.must_be_same_origin(request)?;
        self.must_be_open(journey)?;
        let source = request.form_field("source").and_then(|text| SourceId::parse(&text).ok());
        let source = self.allowed(journey, source.ok_or(Trouble::NotFound)?)?;
        self.depart(journey, source.id, request).await
    }

    /// A source of the session's environment, and in direct mode only the chosen one.
    fn allowed(&self, journey: &Journey, source: SourceId) -> Result<std::sync::Arc<Source>, PageTrouble> {
        let fits = match journey.session.mode {
            SessionMode::Direct(only) => only == source,
            SessionMode::Picker(_) => true,
        };
        let found = self.directory.source_in(journey.environment, source).filter(|_| fits);
        found.ok_or_else(|| Trouble::NotFound.into())
    }

    async fn depart(
        &self,
        journey: &Journey,
        source: SourceId,
        request: &PageRequest,
    ) -> Result<Answer, PageTrouble> {
        match self.grants.begin(&journey.session, source).await? {
            Err(failed) => see_other(&result_path(&journey.path, failed)),
            Ok(departure) => {
                let mut answer = see_other(&departure.location)?;
                let waiting = request.attempts(self.cookie_prefix());
                for (name, _) in waiting.iter().take((waiting.len() + 1).saturating_sub(MOST_ATTEMPTS)) {
                    answer = answer.with_cookie(&self.cookie(name, "", 0));
                }
                let (name, value) = &departure.cookie;
                let seconds = self.grants.attempt_lifetime().as_secs();
                Ok(answer.with_cookie(&self.cookie(name, value, seconds)))
            }
        }
    }

    /// The redirect URI: a hospital sends the patient's browser back.
    pub async fn callback(&self, request: &PageRequest) -> Result<Answer, PageTrouble> {
        let query = callback_query(request.query.as_deref());
        let cookies = request.attempts(self.cookie_prefix());
        let landed = match self.grants.callback(query, &cookies).await {
            Ok(landed) => landed,
            Err(stale) => return Err(self.stale(stale).await),
        };
        let session = self.sessions.by_id(landed.session).await?.ok_or(Trouble::SessionNotFound)?;
        let connection = self.grants.connection(landed.connection).await?;
        let path = Route::Connect(session.token.clone(), ConnectPage::Start).path();
        let location = match (&session.mode, &connection) {
            (SessionMode::Direct(source), Some(connection)) => direct_return(&session, *source, connection),
            _ => result_path(&path, landed.connection),
        };
        // The attempt's cookie stays until it ends by itself: with it, the back button finds the result again.
        see_other(&location)
    }

    async fn stale(&self, stale: StaleReturn) -> PageTrouble {
        let cause = Some(stale.to_string());
        let start_again = |session: PatientSession| WayOn {
            label: ENGLISH.start_again.to_owned(),
            href: Route::Connect(session.token, ConnectPage::Start).path(),
        };
        match stale {
            StaleReturn::Unknown => PageTrouble { cause, ..Trouble::OtherBrowser.into() },
            StaleReturn::TooOld(session) | StaleReturn::Repeated { session, .. } => {
                let session = self.sessions.by_id(session).await.ok().flatten();
                let environment = match &session {
                    Some(session) => self.workspaces.find(session.workspace).await.ok().flatten(),
                    None => None,
                }
                .map(|workspace| workspace.environment);
                let next = session.map(start_again);
                PageTrouble { trouble: Trouble::StaleReturn, next, cause, environment }
            }
            StaleReturn::Store(error) => error.into(),
        }
    }

    async fn result(&self, journey: &Journey, id: ConnectionId) -> Result<Answer, PageTrouble> {
        let connection = self.of_session(journey, id).await?;
        let source = self.directory.source(connection.source);
        let hospital =
            source.map_or_else(|| ENGLISH.unnamed_hospital.to_owned(), |source| source.name.clone());
        let pull = self.records.pulls().latest(id).await?;
        let outcome = match (&connection.failure, connection.status) {
            (Some(_), ConnectionStatus::Failed) if declined(&connection) => Outcome::Declined,
            (Some(failure), _) => Outcome::Failed {
                text: ENGLISH.failure(failure.patient, &hospital, &self.clinic),
                reference: failure.reference.to_string(),
                more_info_url: failure.more_information.clone(),
            },
            (None, _) => {
                let arrival = Arrival {
                    connection_id: id.to_string(),
                    patient_name: self.records.patient_name(&connection).await?,
                    progress: progress(pull.as_ref()),
                };
                let missing = gaps(&connection, pull.as_ref());
                if missing.is_empty() {
                    Outcome::Connected(arrival)
                } else {
                    Outcome::ConnectedWithGaps { arrival, missing }
                }
            }
        };
        let page = ResultPage {
            token_path: journey.path.clone(),
            branding: self.branding(journey.environment),
            source_id: connection.source.to_string(),
            hospital,
            done_label: done_label(&journey.session),
            outcome,
        };
        Ok(Answer::page(StatusCode::OK, result_page(&page).into_string()))
    }

    async fn progress(&self, journey: &Journey, id: ConnectionId) -> Result<Answer, PageTrouble> {
        let connection = self.of_session(journey, id).await?;
        // The pull first: when it is over, the name it brought is in the store.
        let pull = self.records.pulls().latest(id).await?;
        let name = self.records.patient_name(&connection).await?;
        let fragment = progress_fragment(&progress(pull.as_ref()), name.as_deref(), &ENGLISH);
        Ok(Answer::page(StatusCode::OK, fragment.into_string()))
    }

    /// A connection that was tried in this session.
    async fn of_session(&self, journey: &Journey, id: ConnectionId) -> Result<Connection, PageTrouble> {
        let session = journey.session.id;
        let found = self
            .store
            .read(move |view| {
                let tried =
                    Sessions::attempts(view, session)?.iter().any(|(connection, _)| *connection == id);
                if tried { Connection::find(view, id) } else { Ok(None) }
            })
            .await?;
        found.ok_or_else(|| Trouble::NotFound.into())
    }

    async fn done(&self, journey: &Journey, request: &PageRequest) -> Result<Answer, PageTrouble> {
        if request.method == Method::POST {
            self.must_be_same_origin(request)?;
            self.sessions.complete(journey.session.id).await?;
            return see_other(&format!("{}/done", journey.path));
        }
        if journey.session.status(self.clock.now()) == SessionStatus::Open {
            return see_other(&journey.path);
        }
        let connected = self.connected(journey).await?;
        let page = DonePage {
            return_url: Some(picker_return(&journey.session)),
            return_label: journey
                .session
                .return_button_label
                .clone()
                .unwrap_or_else(|| ENGLISH.return_label.to_owned()),
            branding: self.branding(journey.environment),
            connected: connected.into_iter().map(|row| row.name).collect(),
        };
        Ok(Answer::page(StatusCode::OK, done_page(&page).into_string()))
    }

    /// A form of ours comes from a page of ours.
    fn must_be_same_origin(&self, request: &PageRequest) -> Result<(), PageTrouble> {
        let text = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        let origin = request.headers.get(ORIGIN).map(HeaderValue::as_bytes);
        let fits = match (text("sec-fetch-site"), origin) {
            // The browser's own word; a page cannot forge it.
            (Some(site), _) => site == "same-origin",
            (None, Some(origin)) => origin == self.public_url.origin().as_bytes(),
            // Neither a browser of these years nor a page that could have sent this for somebody.
            (None, None) => true,
        };
        if fits {
            return Ok(());
        }
        Err(PageTrouble {
            cause: Some("a form was sent from another origin".to_owned()),
            ..Trouble::NotFound.into()
        })
    }

    fn branding(&self, environment: Environment) -> Branding {
        let mut branding = Branding::new(self.clinic.clone(), &ENGLISH);
        if environment == Environment::Sandbox {
            branding.environment_badge = Some(ENGLISH.practice_badge.to_owned());
        }
        branding
    }

    /// `__Host-` binds a cookie to this very origin; browsers accept it over TLS only.
    fn cookie_prefix(&self) -> &'static str {
        if self.public_url.is_secure() { "__Host-" } else { "" }
    }

    /// Lax, because the way back from the hospital is a top-level navigation from another site.
    fn cookie(&self, name: &str, value: &str, seconds: u64) -> String {
        let secure = if self.public_url.is_secure() { "; Secure" } else { "" };
        let prefix = self.cookie_prefix();
        format!("{prefix}{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
    }
}

fn see_other(location: &str) -> Result<Answer, PageTrouble> {
    Answer::see_other(location).ok_or_else(|| PageTrouble {
        cause: Some("an address cannot be put into a header".to_owned()),
        ..Trouble::OurFault.into()
    })
}

fn result_path(journey_path: &str, connection: ConnectionId) -> String {
    format!("{journey_path}/result/{connection}")
}

/// Reads a callback's query. A parameter that comes twice is no parameter (RFC 6749 section 3.1).
fn callback_query(query: Option<&str>) -> CallbackQuery {
    let pairs: Vec<(String, String)> =
        url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
    let once = |name: &str| {
        let mut values = pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        values.next().filter(|value| !value.is_empty() && values.next().is_none())
    };
    CallbackQuery {
        state: once("state").map(State::new),
        code: once("code").map(AuthorizationCode::new),
        error: once("error")
            .and_then(|error| OAuthError::new(error, once("error_description"), once("error_uri"))),
        iss: once("iss").map(str::to_owned),
    }
}

fn card(source: &Source) -> SourceCard {
    let place = [source.city.as_deref(), source.state.as_deref()];
    let place: Vec<&str> = place.into_iter().flatten().collect();
    SourceCard {
        source_id: source.id.to_string(),
        name: source.name.clone(),
        place: (!place.is_empty()).then(|| place.join(", ")),
        portal: None,
        records_from: None,
        logo: None,
        connected: false,
        test: false,
        not_yet: None,
    }
}

fn done_label(session: &PatientSession) -> String {
    session.return_button_label.clone().unwrap_or_else(|| ENGLISH.done_label.to_owned())
}

fn declined(connection: &Connection) -> bool {
    let failure = connection.failure.as_ref();
    failure
        .is_some_and(|failure| matches!(failure.patient, PatientText::SaidNo | PatientText::SignInCancelled))
}

/// What was asked for and not shared, in the patient's words; with a pull, also what the server refused after all.
fn gaps(connection: &Connection, pull: Option<&Pull>) -> Vec<String> {
    let requested = ScopeSet::parse(&connection.requested_scopes.join(" "));
    let granted = ScopeSet::parse(&connection.scopes.join(" "));
    let report = compare(&requested, Some(&granted));
    let refused = |name: &str| {
        let mut reports = pull.into_iter().flat_map(|pull| &pull.types);
        reports.any(|report| report.resource_type == name && report.state == TypeState::Forbidden)
    };
    let missing = |name: &str| {
        let mut entries = report.types.iter().filter(|entry| entry.access != Access::Granted);
        entries.any(|entry| entry.resource_type == name || entry.resource_type == "*")
    };
    let names = RESOURCE_TYPES.iter().filter(|name| missing(name) || refused(name));
    names.map(|name| ENGLISH.record_kind(name).to_owned()).collect()
}

fn progress(pull: Option<&Pull>) -> Progress {
    let Some(pull) = pull else { return Progress::default() };
    let read = pull.types.iter().filter(|report| report.count > 0);
    let lines = read.map(|report| {
        let count = u64::try_from(report.count).unwrap_or(u64::MAX);
        (ENGLISH.record_kind(&report.resource_type).to_owned(), count)
    });
    Progress { lines: lines.collect(), finished: pull.state.is_over() }
}

/// The app's address with the contract's parameters added to whatever query it has.
fn with_parameters(return_url: &str, parameters: &[(&str, &str)]) -> String {
    match Url::parse(return_url) {
        Ok(mut url) => {
            url.query_pairs_mut().extend_pairs(parameters);
            url.into()
        }
        // It was checked when the session was made.
        Err(_) => return_url.to_owned(),
    }
}

fn picker_return(session: &PatientSession) -> String {
    let id = session.id.to_string();
    with_parameters(&session.return_url, &[("patient_id", &session.patient_id), ("patient_session_id", &id)])
}

fn direct_return(session: &PatientSession, source: SourceId, connection: &Connection) -> String {
    let id = session.id.to_string();
    let source = source.to_string();
    let mut parameters =
        vec![("patient_id", session.patient_id.as_str()), ("patient_session_id", id.as_str())];
    match &connection.failure {
        None => parameters.extend([("success", "true"), ("connection_id", source.as_str())]),
        Some(failure) => {
            let code: FailureCode = failure.code;
            parameters.extend([("success", "false"), ("error", code.as_str())]);
        }
    }
    with_parameters(&session.return_url, &parameters)
}
