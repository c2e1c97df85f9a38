//! Webhook endpoints: where a workspace wants its events posted to.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::clock::Timestamp;
use crate::config::Environment;
use crate::events::{EventKind, Wanted};
use crate::id::{Id as _, WebhookEndpointId, WorkspaceId};
use crate::secret::secret_type;
use crate::store::{Change, Range, Reader, StoreError, Table, json_value};

const ENDPOINTS: Table<WebhookEndpoint> = Table::new("webhook_endpoints.v1");
const ENDPOINTS_BY_WORKSPACE: Table<()> = Table::new("webhook_endpoints_by_workspace.v1");

/// Endpoints that were deleted and still have events.
pub(super) const REMOVED: Table<()> = Table::new("webhook_endpoints_removed.v1");

secret_type!(
    /// What deliveries are signed with. `whsec_` and then base64, so that the whole text is the key of the platform's own
    /// signature, and the decoded rest the key of Standard Webhooks.
    SigningSecret
);

/// Whether deliveries are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointStatus {
    /// Events are delivered.
    Active,
    /// Nothing is sent: at the app's wish, or because a delivery failed for good. What happens meanwhile waits.
    Disabled,
}

/// Where a workspace wants events posted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookEndpoint {
    /// Its id.
    pub id: WebhookEndpointId,
    /// Whose events.
    pub workspace: WorkspaceId,
    /// The workspace's environment, which decides whether this machine may be called.
    pub environment: Environment,
    /// The receiver.
    pub url: String,
    /// The kinds of events asked for, as they were sent. Kept as text: an older program must not stumble over a kind that a
    /// newer one knew.
    pub events: Vec<String>,
    /// Whether deliveries are made.
    pub status: EndpointStatus,
    /// What its owner wrote about it.
    pub description: Option<String>,
    /// Whatever the app wants to remember.
    pub metadata: Map<String, Json>,
    /// The version of the contract its events are written in, for ever.
    pub api_version: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// What its deliveries are signed with.
    pub secret: SigningSecret,
    /// The secret before the last rotation, while it still counts.
    pub earlier_secret: Option<EarlierSecret>,
}
json_value!(WebhookEndpoint);

/// A secret that was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierSecret {
    /// The secret.
    pub secret: SigningSecret,
    /// Until when receivers may still count on it.
    pub until: Timestamp,
}

impl WebhookEndpoint {
    /// Whether it asks for events of this kind.
    pub fn wants(&self, kind: EventKind) -> bool {
        self.events.iter().filter_map(|text| Wanted::parse(text)).any(|wanted| wanted.covers(kind))
    }

    /// Keeps the endpoint, as part of a write.
    pub(super) fn put(&self, change: &mut Change<'_>) {
        change.put(ENDPOINTS, &self.id.to_bytes(), self);
        change.put(ENDPOINTS_BY_WORKSPACE, &by_workspace(self.workspace, self.id), &());
    }

    /// The endpoint of this id.
    pub(super) fn find(reader: &impl Reader, id: WebhookEndpointId) -> Result<Option<Self>, StoreError> {
        reader.get(ENDPOINTS, &id.to_bytes())
    }

    /// The endpoints of a workspace, newest first, after the one with the id `after`.
    pub(super) fn of_workspace(
        reader: &impl Reader,
        workspace: WorkspaceId,
        after: Option<WebhookEndpointId>,
    ) -> Result<Vec<Self>, StoreError> {
        let prefix = workspace.to_bytes();
        let beyond = after.map(|after| by_workspace(workspace, after));
        let mut found = Vec::new();
        for key in reader.keys(ENDPOINTS_BY_WORKSPACE, &Range::of(&prefix).descending().beyond(beyond))? {
            found.extend(reader.get(ENDPOINTS, &key[16..])?);
        }
        Ok(found)
    }

    /// Forgets the endpoint, as part of a write.
    pub(super) fn remove(&self, change: &mut Change<'_>) {
        change.remove(ENDPOINTS, &self.id.to_bytes());
        change.remove(ENDPOINTS_BY_WORKSPACE, &by_workspace(self.workspace, self.id));
    }
}

fn by_workspace(workspace: WorkspaceId, id: WebhookEndpointId) -> Vec<u8> {
    [workspace.to_bytes(), id.to_bytes()].concat()
}
