//! To the hospital and back: a patient leaves with a sealed attempt in a cookie, and comes back to the redirect URI.

use url::Url;

use super::{Connect, Journey, PageRequest, PageTrouble, result_path, see_other};
use crate::grants::Connection;
use crate::http::{Answer, ConnectPage, Route};
use crate::id::{Id as _, SourceId};
use crate::smart::ehr_error::FailureCode;
use crate::smart::token_response::{AuthorizationCode, OAuthError, State};
use crate::smart::{CallbackQuery, StaleReturn};
use crate::web::connect::words::{ENGLISH, Trouble};
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

pub(super) fn picker_return(session: &PatientSession) -> String {
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
