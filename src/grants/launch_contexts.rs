//! What came of launches from inside an EHR: who opened the app on whose chart. The app asks for it with the handle that
//! the browser brought. Kept for some hours, then erased together with the access that came with it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::events::history;
use crate::grants::grant::{self, GRANTS, Grant};
use crate::grants::{Connection, FailureNote, Grants};
use crate::id::{ConnectionId, EhrClientId, Id as _, LaunchContextId, SourceId, WorkspaceId};
use crate::smart::patient::{FhirId, FhirUser};
use crate::smart::{EhrPatientId, FhirBaseUrl};
use crate::store::{Change, Range, Reader, StoreError, Table, json_value};

/// Launch contexts by workspace and handle.
const LAUNCH_CONTEXTS: Table<LaunchContext> = Table::new("launch_contexts.v1");
/// The same by the time they end, so that they can be erased.
const BY_END: Table<()> = Table::new("launch_contexts_by_end.v1");
/// This many are erased in one write.
const BATCH: usize = 64;
/// How often it is looked for what has to go.
const ERASE_EVERY: Duration = Duration::from_mins(1);

/// A launch from inside an EHR that has ended, well or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchContext {
    /// The handle, `mb_launch` on the wire.
    pub id: LaunchContextId,
    /// Whose API keys may read it.
    pub workspace: WorkspaceId,
    /// Where the EHR is.
    pub source: SourceId,
    /// Our registration that was used.
    pub ehr_client: EhrClientId,
    /// How it went.
    pub outcome: LaunchOutcome,
    /// When the browser came back.
    pub created_at: Timestamp,
    /// From when on it is not there any more.
    pub expires_at: Timestamp,
}
json_value!(LaunchContext);

/// How a launch from inside an EHR went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaunchOutcome {
    /// The app was opened.
    Opened(Box<Opened>),
    /// It was not. Kept so that a browser that comes twice is told the same.
    Failed(Box<FailureNote>),
}

/// What the EHR said when the app was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The EHR's FHIR base URL, also when the source is gone.
    pub base: FhirBaseUrl,
    /// Whose chart is open; none when the app was opened without a chart.
    pub patient: Option<EhrPatientId>,
    /// The visit.
    pub encounter: Option<FhirId>,
    /// Who opened it.
    pub user: Option<FhirUser>,
    /// What was granted.
    pub scope: String,
    /// Whether the app has to show whose record it shows.
    pub need_patient_banner: bool,
    /// What the user means to do.
    pub intent: Option<String>,
    /// The organization, as the EHR names it.
    pub tenant: Option<String>,
    /// How the EHR looks.
    pub smart_style_url: Option<String>,
    /// The access to the chart, for as long as this context lives.
    pub connection: Option<ConnectionId>,
}

impl LaunchContext {
    pub(super) fn put(&self, change: &mut Change<'_>) {
        change.put(LAUNCH_CONTEXTS, &key(self.workspace, self.id), self);
        change.put(BY_END, &end_key(self), &());
    }

    fn find(
        reader: &impl Reader,
        workspace: WorkspaceId,
        id: LaunchContextId,
    ) -> Result<Option<Self>, StoreError> {
        reader.get(LAUNCH_CONTEXTS, &key(workspace, id))
    }

    /// Forgets it with the connection and the grant that belong to it, which are returned.
    fn remove(&self, change: &mut Change<'_>) -> Result<Option<(Connection, Option<Grant>)>, StoreError> {
        change.remove(LAUNCH_CONTEXTS, &key(self.workspace, self.id));
        change.remove(BY_END, &end_key(self));
        let LaunchOutcome::Opened(opened) = &self.outcome else { return Ok(None) };
        let Some(id) = opened.connection else { return Ok(None) };
        let Some(connection) = Connection::find(change, id)? else { return Ok(None) };
        let grant = change.get(GRANTS, &id.to_bytes())?;
        grant::remove(change, id, grant.as_ref());
        connection.remove(change);
        history::remove(change, id)?;
        Ok(Some((connection, grant)))
    }
}

impl Grants {
    /// A launch context of this workspace, while it lives.
    pub async fn launch_context(
        &self,
        workspace: WorkspaceId,
        id: LaunchContextId,
    ) -> Result<Option<LaunchContext>, StoreError> {
        let now = self.0.clock.now();
        let found = self.0.store.read(move |view| LaunchContext::find(view, workspace, id)).await?;
        Ok(found.filter(|context| now < context.expires_at))
    }

    /// Erases them in the background, until the signal to stop.
    pub fn start_erasing(&self) {
        let grants = self.clone();
        self.0.shutdown.spawn(async move {
            while !grants.0.shutdown.is_triggered() {
                if let Err(cause) = grants.erase_old_contexts().await {
                    tracing::warn!(%cause, "old launch contexts could not be erased; trying again");
                }
                tokio::select! {
                    () = grants.0.shutdown.triggered() => {}
                    () = tokio::time::sleep(ERASE_EVERY) => {}
                }
            }
        });
    }

    /// Erases the launch contexts whose time is over, with the access that came with them.
    pub async fn erase_old_contexts(&self) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        loop {
            // Looking first keeps an idle box from writing.
            if self.0.store.read(move |view| due_keys(view, now)).await?.is_empty() {
                return Ok(());
            }
            let erased = self
                .0
                .store
                .write(move |change| {
                    let mut erased = Vec::new();
                    for end in due_keys(change, now)? {
                        change.remove(BY_END, &end);
                        if let Some(context) = change.get(LAUNCH_CONTEXTS, &end[8..])? {
                            erased.extend(context.remove(change)?);
                        }
                    }
                    Ok::<_, StoreError>(erased)
                })
                .await?;
            self.erased(erased);
        }
    }
}

/// The keys of the next contexts to be erased.
fn due_keys(reader: &impl Reader, now: Timestamp) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut keys = reader.keys(BY_END, &Range::of(b"").limit(BATCH))?;
    keys.retain(|key| key.get(..8).is_some_and(|end| *end <= time_bytes(now)[..]));
    Ok(keys)
}

fn key(workspace: WorkspaceId, id: LaunchContextId) -> Vec<u8> {
    [workspace.to_bytes(), id.to_bytes()].concat()
}

fn end_key(context: &LaunchContext) -> Vec<u8> {
    [&time_bytes(context.expires_at)[..], &key(context.workspace, context.id)].concat()
}

fn time_bytes(at: Timestamp) -> [u8; 8] {
    u64::try_from(at.millis()).unwrap_or(0).to_be_bytes()
}
