//! To the hospital and back: a patient leaves with a sealed attempt in a cookie, and comes back to the redirect URI.

use url::Url;

use super::{Connect, Journey, PageRequest, PageTrouble, result_path, see_other};
use crate::http::{Answer, ConnectPage, Route};
use crate::id::{Id as _, SourceId};
use crate::smart::ehr_error::FailureCode;
use crate::smart::launch::EHR_ATTEMPT_COOKIE;
use crate::smart::token_response::{AuthorizationCode, OAuthError, State};
use crate::smart::{CallbackQuery, Departure, Landing, Origin, StaleReturn};
use crate::web::connect::words::{ENGLISH, LaunchTrouble, Trouble};
use crate::web::errors::WayOn;
use crate::workspaces::{PatientSession, SessionMode};

/// At most this many attempts wait in one browser; the oldest gives way.
const MOST_ATTEMPTS: usize = 4;

impl Connect {
    pub(super) async fn launch(
        &self,
        journey: &Journey,
        request: &PageRequest,
    ) -> Result<Answer, PageTrouble> {
        self.must_be_same_origin(request)?;
        self.must_be_open(journey)?;
        let source = request.form_field("source").and_then(|text| SourceId::parse(&text).ok());
        let source = self.allowed(journey, source.ok_or(Trouble::NotFound)?)?;
        self.depart(journey, source.id, request).await
    }

    pub(super) async fn depart(
        &self,
        journey: &Journey,
        source: SourceId,
        request: &PageRequest,
    ) -> Result<Answer, PageTrouble> {
        // A place of a list becomes a source of ours when the first patient goes there.
        let chosen = self.directory.choose(journey.environment, source).await;
        chosen.map_err(|cause| PageTrouble { cause: Some(cause.to_string()), ..Trouble::OurFault.into() })?;
        match self.grants.begin(&journey.session, source).await? {
            Err(failed) => see_other(&result_path(&journey.path, failed)),
            Ok(departure) => self.send_off(&departure, request),
        }
    }

    /// The browser leaves with its attempt; when it has many, the oldest gives way.
    pub(in crate::web) fn send_off(
        &self,
        departure: &Departure,
        request: &PageRequest,
    ) -> Result<Answer, PageTrouble> {
        let mut answer = see_other(&departure.location)?;
        let waiting = request.attempts(self.cookie_prefix());
        for (name, _) in waiting.iter().take((waiting.len() + 1).saturating_sub(MOST_ATTEMPTS)) {
            answer = answer.with_cookie(&self.cookie(name, "", 0));
        }
        let (name, value) = &departure.cookie;
        let seconds = self.grants.attempt_lifetime().as_secs();
        Ok(answer.with_cookie(&self.cookie(name, value, seconds)))
    }

    /// The redirect URI: a hospital sends the patient's browser back.
    pub async fn callback(&self, request: &PageRequest) -> Result<Answer, PageTrouble> {
        let query = callback_query(request.query.as_deref());
        let cookies = request.attempts(self.cookie_prefix());
        let landed = match self.grants.callback(query, &cookies).await {
            Ok(landed) => landed,
            Err(stale) => {
                let trouble = self.stale(stale).await;
                // An EHR that frames the app, in a browser that keeps no cookies for frames.
                if matches!(trouble.trouble, Trouble::OtherBrowser) && request.is_in_frame() {
                    return Err(PageTrouble { cause: trouble.cause, ..LaunchTrouble::Lost.into() });
                }
                return Err(trouble);
            }
        };
        let (session, landed) = match landed {
            Landing::Session { session, connection } => (session, connection),
            Landing::Context { workspace, context } => return self.opened(workspace, context).await,
        };
        let session = self.sessions.by_id(session).await?.ok_or(Trouble::SessionNotFound)?;
        let connection = self.grants.connection(landed).await?;
        let path = Route::Connect(session.token.clone(), ConnectPage::Start).path();
        let location = match (&session.mode, &connection) {
            (SessionMode::Direct(source), Some(connection)) => {
                let failure = connection.failure.as_ref().map(|failure| failure.code);
                direct_return(&session, failure.map_or(Ok(*source), Err))
            }
            _ => result_path(&path, landed),
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
            StaleReturn::TooOld(Origin::Ehr { .. }) | StaleReturn::Repeated(Landing::Context { .. }) => {
                PageTrouble { cause, ..LaunchTrouble::Stale.into() }
            }
            StaleReturn::TooOld(Origin::ConnectPage { session })
            | StaleReturn::Repeated(Landing::Session { session, .. }) => {
                let session = self.sessions.by_id(session).await.ok().flatten();
                let environment = match &session {
                    Some(session) => self.workspaces.find(session.workspace).await.ok().flatten(),
                    None => None,
                }
                .map(|workspace| workspace.environment);
                let next = session.map(start_again);
                PageTrouble { next, cause, environment, ..Trouble::StaleReturn.into() }
            }
            StaleReturn::Store(error) => error.into(),
        }
    }

    /// `__Host-` binds a cookie to this very origin; browsers accept it over TLS only.
    fn cookie_prefix(&self) -> &'static str {
        if self.public_url.is_secure() { "__Host-" } else { "" }
    }

    /// Lax, because the way back from the hospital is a top-level navigation from another site. A launch from inside an
    /// EHR may happen in a frame of the EHR: its cookie goes to frames too, and is kept apart for each site around them,
    /// which is how browsers without third-party cookies still keep it. They take such cookies over TLS only.
    fn cookie(&self, name: &str, value: &str, seconds: u64) -> String {
        let prefix = self.cookie_prefix();
        let attributes = match (self.public_url.is_secure(), name.starts_with(EHR_ATTEMPT_COOKIE)) {
            (true, true) => "SameSite=None; Secure; Partitioned",
            (true, false) => "SameSite=Lax; Secure",
            (false, _) => "SameSite=Lax",
        };
        format!("{prefix}{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; {attributes}")
    }
}

/// Reads a callback's query. A parameter that comes twice is no parameter (RFC 6749 section 3.1).
fn callback_query(query: Option<&str>) -> CallbackQuery {
    let field = |name: &str| once(query, name);
    CallbackQuery {
        state: field("state").map(State::new),
        code: field("code").map(AuthorizationCode::new),
        error: field("error").and_then(|error| {
            OAuthError::new(&error, field("error_description").as_deref(), field("error_uri").as_deref())
        }),
        iss: field("iss"),
    }
}

/// The value of a parameter that is there exactly once, and not empty.
pub(in crate::web) fn once(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let mut values = pairs.filter(|(known, _)| known == name).map(|(_, value)| value);
    let first = values.next().filter(|value| !value.is_empty())?;
    values.next().is_none().then(|| first.into_owned())
}

/// The app's address with the contract's parameters added to whatever query it has.
pub(in crate::web) fn with_parameters(return_url: &str, parameters: &[(&str, &str)]) -> String {
    match Url::parse(return_url) {
        Ok(mut url) => {
            url.query_pairs_mut().extend_pairs(parameters);
            url.into()
        }
        // It was checked when it was given.
        Err(_) => return_url.to_owned(),
    }
}

pub(super) fn picker_return(session: &PatientSession) -> String {
    let id = session.id.to_string();
    with_parameters(&session.return_url, &[("patient_id", &session.patient_id), ("patient_session_id", &id)])
}

/// Back to the app, with the source that was connected or the code of what went wrong.
pub(super) fn direct_return(session: &PatientSession, outcome: Result<SourceId, FailureCode>) -> String {
    let id = session.id.to_string();
    let connected = outcome.as_ref().map(ToString::to_string);
    let mut parameters =
        vec![("patient_id", session.patient_id.as_str()), ("patient_session_id", id.as_str())];
    match &connected {
        Ok(source) => parameters.extend([("success", "true"), ("connection_id", source.as_str())]),
        Err(code) => parameters.extend([("success", "false"), ("error", code.as_str())]),
    }
    with_parameters(&session.return_url, &parameters)
}
