//! How it went: the result page, the records as they arrive, and the end of the journey.

use hyper::{Method, StatusCode};

use super::travel::picker_return;
use super::{Connect, Journey, PageRequest, PageTrouble, see_other};
use crate::grants::{Connection, ConnectionStatus};
use crate::http::Answer;
use crate::id::ConnectionId;
use crate::records::{Pull, TypeState};
use crate::smart::ehr_error::PatientText;
use crate::smart::scopes::{Access, RESOURCE_TYPES, ScopeSet, compare};
use crate::web::connect::pages::{DonePage, done_page};
use crate::web::connect::results::{Arrival, Outcome, Progress, ResultPage, progress_fragment, result_page};
use crate::web::connect::words::{ENGLISH, Trouble};
use crate::workspaces::{PatientSession, SessionStatus, Sessions};

impl Connect {
    pub(super) async fn result(&self, journey: &Journey, id: ConnectionId) -> Result<Answer, PageTrouble> {
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

    pub(super) async fn progress(&self, journey: &Journey, id: ConnectionId) -> Result<Answer, PageTrouble> {
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

    pub(super) async fn done(&self, journey: &Journey, request: &PageRequest) -> Result<Answer, PageTrouble> {
        if request.method == Method::POST {
            self.must_be_same_origin(request)?;
            self.grants.done(journey.session.id).await?;
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
}

pub(super) fn done_label(session: &PatientSession) -> String {
    session.return_button_label.clone().unwrap_or_else(|| ENGLISH.done_label.to_owned())
}

pub(super) fn declined(connection: &Connection) -> bool {
    let failure = connection.failure.as_ref();
    failure
        .is_some_and(|failure| matches!(failure.patient, PatientText::SaidNo | PatientText::SignInCancelled))
}

/// What was asked for and not shared, in the patient's words; with a pull, also what the server refused after all.
pub(super) fn gaps(connection: &Connection, pull: Option<&Pull>) -> Vec<String> {
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
    // What is missing of documents' files is no kind of its own to a patient whose documents are there.
    let lacking = pull.types.iter().filter(|report| RESOURCE_TYPES.contains(&report.resource_type.as_str()));
    let lacking = lacking.filter(|report| matches!(report.state, TypeState::Failed | TypeState::Partial));
    let mut unread: Vec<String> =
        lacking.map(|report| ENGLISH.record_kind(&report.resource_type).to_owned()).collect();
    unread.dedup();
    Progress { lines: lines.collect(), finished: pull.state.is_over(), unread }
}
