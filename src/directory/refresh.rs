//! Lists by their address: fetched when somebody asks, or on a schedule, through the guard like every call.
//! The address of a *list* is called, never one that a list names.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{ETAG, IF_NONE_MATCH};
use url::Url;

use crate::clock::Timestamp;
use crate::config::Environment;
use crate::directory::import::ImportLimits;
use crate::directory::{
    Directory, DirectoryList, ImportProgress, ImportRefused, ImportReport, ImportRequest, Upload,
};
use crate::outbound::{Call, Outbound, OutboundError, Reach};
use crate::shutdown::Shutdown;
use crate::store::StoreError;

/// Epic's list takes five minutes to come.
const MOST_TIME: Duration = Duration::from_mins(30);
/// A schedule is looked at again at least this often, so that a moved clock is noticed.
const LOOK: Duration = Duration::from_mins(10);
/// After a failed try the next one is not before this.
const PATIENCE: Duration = Duration::from_hours(1);

/// A list to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// Its name.
    pub list: String,
    /// Whose sources it names.
    pub environment: Environment,
    /// Where it is.
    pub url: String,
    /// An empty or much shorter list is meant.
    pub yes: bool,
}

/// Why a list was not fetched and imported.
#[derive(Debug, thiserror::Error)]
pub enum FetchRefused {
    /// The address.
    #[error("the address of the list is not a URL")]
    BadUrl,
    /// No answer.
    #[error("the list could not be fetched: {0}")]
    Outbound(#[from] OutboundError),
    /// Another answer than the list.
    #[error("the list's server answered with status {0}")]
    Status(u16),
    /// The list is somewhere else.
    #[error("the list has moved to `{0}`; give that address if you trust it")]
    Moved(String),
    /// What came was not imported.
    #[error(transparent)]
    Import(#[from] ImportRefused),
}

/// What fetching did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Fetched {
    /// Something came and was read.
    Read(ImportReport),
    /// The server said that nothing has changed.
    NotModified {
        /// The list.
        list: String,
        /// True.
        unchanged: bool,
    },
}

/// A list that is kept fresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreshList {
    /// Its name.
    pub name: String,
    /// Whose sources it names.
    pub environment: Environment,
    /// Where it is.
    pub url: String,
    /// How often it is asked for.
    pub every: Duration,
}

impl Directory {
    /// Fetches a list and imports it; asks only for what is new, if the server can tell.
    pub async fn fetch(&self, outbound: &Outbound, request: FetchRequest) -> Result<Fetched, FetchRefused> {
        let url = Url::parse(&request.url).map_err(|_| FetchRefused::BadUrl)?;
        let known = self.list(request.environment, &request.list).await.map_err(ImportRefused::from)?;
        let known = known.filter(|list| list.url.as_deref() == Some(request.url.as_str()));
        let mut call =
            Call::get(url).accept("application/fhir+json, application/json, text/csv, */*").within(MOST_TIME);
        if let Some(etag) = known.as_ref().and_then(|list| list.etag.as_deref()) {
            call = call.header(IF_NONE_MATCH, etag);
        }
        // A sandbox's lists may be on this machine, like its hospitals.
        let reach = match request.environment {
            Environment::Live => Reach::Public,
            Environment::Sandbox => Reach::Loopback,
        };
        let incoming = outbound.open(call, reach).await?;
        let header =
            |name| incoming.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        match incoming.status {
            StatusCode::NOT_MODIFIED => {
                self.note_check(request.environment, &request.list, None)
                    .await
                    .map_err(ImportRefused::from)?;
                return Ok(Fetched::NotModified { list: request.list, unchanged: true });
            }
            status if status.is_redirection() => {
                let to: String = header("location").unwrap_or_default().chars().take(500).collect();
                return Err(FetchRefused::Moved(to));
            }
            status if status != StatusCode::OK => return Err(FetchRefused::Status(status.as_u16())),
            _ => {}
        }
        let etag = header(ETAG.as_str()).filter(|etag| etag.len() <= 200);
        let import = ImportRequest {
            list: request.list,
            environment: request.environment,
            url: Some(request.url),
            etag,
            yes: request.yes,
        };
        let upload = Upload { pieces: incoming.pieces, announced: None, progress: ImportProgress::default() };
        let report = self.import_upload(import, upload, ImportLimits::default()).await;
        Ok(Fetched::Read(report?))
    }

    /// Makes the lists searchable, and keeps those with a schedule fresh, until the signal to stop.
    pub fn start(&self, outbound: Outbound, lists: Vec<FreshList>, shutdown: &Shutdown) {
        let directory = self.clone();
        let stopping = shutdown.clone();
        shutdown.spawn(async move {
            let work = async {
                for environment in [Environment::Live, Environment::Sandbox] {
                    directory.show(environment).await;
                }
                directory.keep_fresh(&outbound, &lists).await;
            };
            tokio::select! {
                () = stopping.triggered() => {}
                () = work => {}
            }
        });
    }

    async fn show(&self, environment: Environment) {
        match self.reindex(environment).await {
            Ok(report) if report.entries > 0 => {
                tracing::info!(%environment, entries = report.entries, bytes = report.bytes, "directory is searchable");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%environment, %error, "the imported lists cannot be read"),
        }
    }

    async fn keep_fresh(&self, outbound: &Outbound, lists: &[FreshList]) {
        let mut not_before = vec![Timestamp::default(); lists.len()];
        loop {
            // A clock that is moved while a list is fetched must not go unnoticed.
            let looked_at = self.clock.now();
            let mut next = LOOK;
            for (list, not_before) in lists.iter().zip(&mut not_before) {
                let wait = match self.due_in(list).await {
                    Ok(wait) => wait.max(not_before.since(self.clock.now())),
                    Err(error) => {
                        tracing::error!(%error, "the directory's lists cannot be read");
                        PATIENCE
                    }
                };
                if wait.is_zero() {
                    let tried_at = self.clock.now();
                    if !self.refresh(outbound, list).await {
                        *not_before = tried_at.after(PATIENCE.min(list.every));
                    }
                } else {
                    next = next.min(wait);
                }
            }
            if lists.is_empty() {
                return;
            }
            let next = next.max(Duration::from_secs(1));
            self.clock.reached(looked_at.after(next)).await;
        }
    }

    async fn due_in(&self, list: &FreshList) -> Result<Duration, StoreError> {
        let known: Option<DirectoryList> = self.list(list.environment, &list.name).await?;
        let due = known.map_or_else(Timestamp::default, |known| known.checked_at.after(list.every));
        Ok(due.since(self.clock.now()))
    }

    /// Asks for a list once; says whether that worked.
    async fn refresh(&self, outbound: &Outbound, list: &FreshList) -> bool {
        let request = FetchRequest {
            list: list.name.clone(),
            environment: list.environment,
            url: list.url.clone(),
            yes: false,
        };
        let fetched = self.fetch(outbound, request).await;
        match fetched {
            Ok(Fetched::Read(report)) => {
                tracing::info!(
                    list = list.name,
                    entries = report.entries,
                    unchanged = report.unchanged,
                    "list refreshed"
                );
                true
            }
            Ok(Fetched::NotModified { .. }) => true,
            Err(refused) => {
                let text = refused.to_string();
                tracing::warn!(
                    list = list.name,
                    cause = text,
                    "list not refreshed; what was imported before stays"
                );
                if let Err(error) = self.note_check(list.environment, &list.name, Some(text)).await {
                    tracing::error!(%error, "the trouble with a list could not be noted");
                }
                false
            }
        }
    }
}
