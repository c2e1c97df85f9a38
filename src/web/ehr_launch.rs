//! Launches from inside an EHR: the address that an EHR opens, and the way on to the app.
//!
//! Anybody can open this address, with anything in it. So nothing is sent anywhere before `iss` is known to be a source of
//! this registration, and the browser never goes anywhere but to that source and to the app of the registration.

use hyper::StatusCode;

use crate::directory::{EhrClient, Source};
use crate::grants::{EhrDeparture, FailureNote, LaunchOutcome};
use crate::http::Answer;
use crate::id::{LaunchContextId, WorkspaceId};
use crate::smart::ehr_error::FailureCode;
use crate::smart::token_response::LaunchHandle;
use crate::smart::{EhrLaunch, FhirBaseUrl};
use crate::web::connect::handlers::{Connect, PageRequest, PageTrouble, once, see_other, with_parameters};
use crate::web::connect::words::{ENGLISH, LaunchTrouble, Trouble};
use crate::web::errors::{ErrorPage, error_page};
use crate::workspaces::Workspace;

/// No real address is longer.
const MOST_ISS: usize = 2_048;
/// Launch values are opaque, some of them signed statements; together with ours they must fit into one address.
const MOST_LAUNCH: usize = 4_096;

impl Connect {
    /// `GET /launch/{ehr_client}?iss=…&launch=…`
    pub async fn ehr_launch(&self, name: &str, request: &PageRequest) -> Result<Answer, PageTrouble> {
        let client = self.directory.client_named(name);
        let client = client.ok_or_else(|| PageTrouble {
            cause: Some("an EHR launch names no EHR client of this box".to_owned()),
            ..LaunchTrouble::Unknown.into()
        })?;
        let trouble = |trouble: Trouble, cause: String| PageTrouble {
            trouble,
            next: None,
            cause: Some(format!("EHR client `{}`: {cause}", client.name)),
            environment: Some(client.environment),
            in_frame: true,
        };
        let (iss, launch) = launch_parameters(request.query.as_deref())
            .map_err(|cause| trouble(LaunchTrouble::Incomplete.into(), cause.to_owned()))?;
        let source = self
            .named_source(&client, &iss)
            .map_err(|cause| trouble(LaunchTrouble::Elsewhere.into(), cause))?;
        let owner = self.owner(&client).await?;
        let owner = owner.map_err(|cause| trouble(LaunchTrouble::NotReady.into(), cause.to_owned()))?;
        let launch = EhrLaunch { iss, launch: LaunchHandle::new(launch) };
        match self.grants.begin_in_ehr(owner.id, &source, launch).await? {
            EhrDeparture::Ready(departure) => self.send_off(&departure, request),
            EhrDeparture::Busy => Err(trouble(Trouble::Busy, "too many launches at once".to_owned())),
            EhrDeparture::Failed(note) => Ok(self.failure_page(&note, Some(&source))),
        }
    }

    /// The source of this registration that `iss` names, else why there is none. What came is not repeated, except the
    /// host of a well-formed address.
    fn named_source(&self, client: &EhrClient, iss: &str) -> Result<std::sync::Arc<Source>, String> {
        let base = FhirBaseUrl::parse(iss).map_err(|cause| format!("`iss` is no FHIR base URL: {cause}"))?;
        let found = self.directory.source_of(client, &base);
        found.filter(|source| source.base.is_named_by(iss)).ok_or_else(|| {
            format!(
                "`iss` is at `{}`, and no source of this EHR client has that address; add it, if you trust it, with \
                 `chartgate source add`",
                base.host()
            )
        })
    }

    /// Whose API keys may read this launch.
    async fn owner(&self, client: &EhrClient) -> Result<Result<Workspace, &'static str>, PageTrouble> {
        let Some(target) = &client.launch else {
            return Ok(Err("it has no `launch_url`, so there is no app to open"));
        };
        let owner =
            self.workspaces.owner_of_launches(client.environment, target.workspace.as_deref()).await?;
        Ok(owner.ok_or("its `launch_workspace` is missing or no workspace of its environment"))
    }

    /// The browser is back from the EHR: on to the app, or to the reason why not.
    pub(in crate::web) async fn opened(
        &self,
        workspace: WorkspaceId,
        id: LaunchContextId,
    ) -> Result<Answer, PageTrouble> {
        let stale = || PageTrouble::from(LaunchTrouble::Stale);
        let context = self.grants.launch_context(workspace, id).await?.ok_or_else(stale)?;
        if let LaunchOutcome::Failed(note) = &context.outcome {
            return Ok(self.failure_page(note, self.directory.source(context.source).as_deref()));
        }
        let client = self.directory.client(context.ehr_client);
        let target = client.as_ref().and_then(|client| client.launch.as_ref());
        let target = target.ok_or_else(|| PageTrouble {
            cause: Some("the EHR client lost its `launch_url` while somebody was on the way".to_owned()),
            ..LaunchTrouble::NotReady.into()
        })?;
        see_other(&with_parameters(&target.url, &[("mb_launch", &id.to_string())]))
    }

    fn failure_page(&self, note: &FailureNote, source: Option<&Source>) -> Answer {
        let hospital = source.map_or(ENGLISH.unnamed_hospital, |source| source.name.as_str());
        let text = ENGLISH.launch_failure(note.patient, hospital, &self.clinic);
        let page = ErrorPage {
            branding: source.map(|source| self.branding(source.environment)),
            words: &ENGLISH,
            title: text.headline,
            what: text.what,
            why: text.next_step,
            who: Some(text.who),
            next: None,
            reference: Some(note.reference.to_string()),
        };
        let status = match note.code {
            FailureCode::SourceUnavailable => StatusCode::BAD_GATEWAY,
            FailureCode::UserDenied
            | FailureCode::OauthCallbackFailed
            | FailureCode::OauthStateExpired
            | FailureCode::TokenExchangeFailed
            | FailureCode::MissingPatientContext
            | FailureCode::SessionExpired => StatusCode::FORBIDDEN,
        };
        Answer::page(status, error_page(&page).into_string()).framable()
    }
}

/// `iss` and `launch`, each there once and of a sane size.
fn launch_parameters(query: Option<&str>) -> Result<(String, String), &'static str> {
    let iss = once(query, "iss").ok_or("the launch has not exactly one `iss`")?;
    let launch = once(query, "launch").ok_or("the launch has not exactly one `launch`")?;
    if iss.len() > MOST_ISS || launch.len() > MOST_LAUNCH {
        return Err("`iss` or `launch` is too long");
    }
    if launch.chars().any(char::is_control) {
        return Err("`launch` has control characters");
    }
    Ok((iss, launch))
}
