//! What a workspace does with its webhook endpoints: make, list, change, rotate, delete.

use std::time::Duration;

use serde_json::{Map, Value as Json};

use crate::clock::Clock;
use crate::config::Environment;
use crate::crypto::{Random, base64};
use crate::events::{EarlierSecret, EndpointStatus, Outbox, SigningSecret, WebhookEndpoint};
use crate::id::{WebhookEndpointId, WorkspaceId};
use crate::store::{Change, Store, StoreError};

/// Endpoints of one workspace: each costs a row for every event it wants.
const MOST_ENDPOINTS: usize = 50;

/// Webhook endpoints and their events. Clones share the store.
#[derive(Debug, Clone)]
pub struct Webhooks {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) outbox: Outbox,
    /// How long the secret before a rotation still counts.
    overlap: Duration,
}

/// What an app says of a new endpoint; checked by who reads it.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    /// The receiver.
    pub url: String,
    /// Kinds of events, or `*`.
    pub events: Vec<String>,
    /// Its owner's words.
    pub description: Option<String>,
    /// Whatever the app wants to remember.
    pub metadata: Map<String, Json>,
    /// The version of the contract.
    pub api_version: String,
}

/// What an app changes about an endpoint; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct EndpointPatch {
    /// The receiver.
    pub url: Option<String>,
    /// Kinds of events, or `*`.
    pub events: Option<Vec<String>>,
    /// Its owner's words; `Some(None)` takes them away.
    pub description: Option<Option<String>>,
    /// Replaces all of it.
    pub metadata: Option<Map<String, Json>>,
    /// Pauses or goes on.
    pub status: Option<EndpointStatus>,
}

/// Why an endpoint was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WebhookError {
    /// The workspace has as many as it may have.
    #[error("a workspace has at most {MOST_ENDPOINTS} webhook endpoints")]
    TooMany,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Webhooks {
    /// Over a store; `overlap` is how long the secret before a rotation still counts.
    pub fn new(store: Store, clock: Clock, random: Random, outbox: Outbox, overlap: Duration) -> Self {
        Self { store, clock, random, outbox, overlap }
    }

    /// Makes an endpoint.
    pub async fn create(
        &self,
        workspace: WorkspaceId,
        environment: Environment,
        new: NewEndpoint,
    ) -> Result<WebhookEndpoint, WebhookError> {
        let now = self.clock.now();
        let endpoint = WebhookEndpoint {
            id: self.random.id(now),
            workspace,
            environment,
            url: new.url,
            events: new.events,
            status: EndpointStatus::Active,
            description: new.description,
            metadata: new.metadata,
            api_version: new.api_version,
            created_at: now,
            updated_at: now,
            secret: self.new_secret(),
            earlier_secret: None,
        };
        self.store
            .write(move |change| {
                if WebhookEndpoint::of_workspace(change, workspace, None)?.len() >= MOST_ENDPOINTS {
                    return Err(WebhookError::TooMany);
                }
                endpoint.put(change);
                Ok(endpoint)
            })
            .await
    }

    /// The endpoints of a workspace, newest first, after the one with the id `after`.
    pub async fn list(
        &self,
        workspace: WorkspaceId,
        status: Option<EndpointStatus>,
        after: Option<WebhookEndpointId>,
        limit: usize,
    ) -> Result<Vec<WebhookEndpoint>, StoreError> {
        self.store
            .read(move |view| {
                let mut found = WebhookEndpoint::of_workspace(view, workspace, after)?;
                found.retain(|endpoint| status.is_none_or(|wanted| endpoint.status == wanted));
                found.truncate(limit);
                Ok(found)
            })
            .await
    }

    /// The endpoint of this id, if it is the workspace's.
    pub async fn find(
        &self,
        workspace: WorkspaceId,
        id: WebhookEndpointId,
    ) -> Result<Option<WebhookEndpoint>, StoreError> {
        let found = self.store.read(move |view| WebhookEndpoint::find(view, id)).await?;
        Ok(found.filter(|endpoint| endpoint.workspace == workspace))
    }

    /// Changes an endpoint. One that becomes active goes on with what has waited.
    pub async fn update(
        &self,
        workspace: WorkspaceId,
        id: WebhookEndpointId,
        patch: EndpointPatch,
    ) -> Result<Option<WebhookEndpoint>, StoreError> {
        let (now, outbox) = (self.clock.now(), self.outbox.clone());
        self.change(workspace, id, move |change, old| {
            let new = WebhookEndpoint {
                url: patch.url.unwrap_or_else(|| old.url.clone()),
                events: patch.events.unwrap_or_else(|| old.events.clone()),
                description: patch.description.unwrap_or_else(|| old.description.clone()),
                metadata: patch.metadata.unwrap_or_else(|| old.metadata.clone()),
                status: patch.status.unwrap_or(old.status),
                ..old.clone()
            };
            if new == old {
                return old;
            }
            outbox.wake_after(change, id);
            WebhookEndpoint { updated_at: now, ..new }
        })
        .await
    }

    /// Gives an endpoint a new secret. The old one counts for a while yet, for who verifies Standard Webhooks.
    pub async fn rotate(
        &self,
        workspace: WorkspaceId,
        id: WebhookEndpointId,
    ) -> Result<Option<WebhookEndpoint>, StoreError> {
        let (now, secret, overlap) = (self.clock.now(), self.new_secret(), self.overlap);
        self.change(workspace, id, move |_, old| WebhookEndpoint {
            updated_at: now,
            secret,
            earlier_secret: Some(EarlierSecret { secret: old.secret.clone(), until: now.after(overlap) }),
            ..old
        })
        .await
    }

    /// Deletes an endpoint; says whether there was one.
    pub async fn delete(&self, workspace: WorkspaceId, id: WebhookEndpointId) -> Result<bool, StoreError> {
        self.store
            .write(move |change| {
                let found = WebhookEndpoint::find(change, id)?;
                let Some(endpoint) = found.filter(|endpoint| endpoint.workspace == workspace) else {
                    return Ok(false);
                };
                endpoint.remove(change);
                Ok(true)
            })
            .await
    }

    async fn change(
        &self,
        workspace: WorkspaceId,
        id: WebhookEndpointId,
        with: impl FnOnce(&mut Change<'_>, WebhookEndpoint) -> WebhookEndpoint + Send + 'static,
    ) -> Result<Option<WebhookEndpoint>, StoreError> {
        self.store
            .write(move |change| {
                let found = WebhookEndpoint::find(change, id)?;
                let Some(old) = found.filter(|endpoint| endpoint.workspace == workspace) else {
                    return Ok(None);
                };
                let before = old.clone();
                let new = with(change, old);
                if new != before {
                    new.put(change);
                }
                Ok(Some(new))
            })
            .await
    }

    fn new_secret(&self) -> SigningSecret {
        SigningSecret::new(format!("whsec_{}", base64(&self.random.bytes::<32>())))
    }
}
