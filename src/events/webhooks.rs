//! What a workspace does with its webhook endpoints: make, list, change, rotate, delete.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json};
use tokio::sync::Notify;
use url::Url;

use crate::clock::Clock;
use crate::config::Environment;
use crate::crypto::{Random, base64};
use crate::events::delivery::Pools;
use crate::events::endpoints::REMOVED;
use crate::events::lanes::Lanes;
use crate::events::outbox::of_endpoint;
use crate::events::signature::PREFIX;
use crate::events::{EarlierSecret, EndpointStatus, EventRecord, Outbox, SigningSecret, WebhookEndpoint};
use crate::id::{EventId, Id as _, WebhookEndpointId, WorkspaceId};
use crate::outbound::{Outbound, OutboundError, Reach};
use crate::shutdown::Shutdown;
use crate::store::{Change, Store, StoreError};

/// Endpoints of one workspace: each costs a row for every event it wants.
const MOST_ENDPOINTS: usize = 50;

/// Webhook endpoints, their events, and the delivery of these. Clones share them.
#[derive(Clone)]
pub struct Webhooks(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) outbound: Outbound,
    pub(super) outbox: Outbox,
    pub(super) settings: WebhookSettings,
    pub(super) shutdown: Shutdown,
    pub(super) pools: Pools,
    pub(super) lanes: Lanes,
    /// Rings when an endpoint was deleted.
    pub(super) removals: Arc<Notify>,
}

/// How long things are kept.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// How long the secret before a rotation still counts.
    pub overlap: Duration,
    /// How long events can be listed and sent again.
    pub retention: Duration,
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Webhooks")
    }
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
    /// Over a store. `outbound` is for receivers alone: which private networks they may live in is a question of its own.
    pub fn new(
        store: Store,
        clock: Clock,
        random: Random,
        outbound: Outbound,
        outbox: Outbox,
        settings: WebhookSettings,
        shutdown: Shutdown,
    ) -> Self {
        let (pools, lanes) = (Pools::default(), Lanes::default());
        let removals = Arc::default();
        Self(Arc::new(Inner {
            store,
            clock,
            random,
            outbound,
            outbox,
            settings,
            shutdown,
            pools,
            lanes,
            removals,
        }))
    }

    /// Whether a receiver's address may be called, as far as that can be told without asking the network.
    pub fn may_call(&self, url: &Url, environment: Environment) -> Result<(), OutboundError> {
        self.0.outbound.may_call(url, reach(environment))
    }

    /// Makes an endpoint.
    pub async fn create(
        &self,
        workspace: WorkspaceId,
        environment: Environment,
        new: NewEndpoint,
    ) -> Result<WebhookEndpoint, WebhookError> {
        let webhooks = self.clone();
        self.0.store.write(move |change| webhooks.create_in(change, workspace, environment, new)).await
    }

    /// [`Webhooks::create`] as part of another write.
    pub fn create_in(
        &self,
        change: &mut Change<'_>,
        workspace: WorkspaceId,
        environment: Environment,
        new: NewEndpoint,
    ) -> Result<WebhookEndpoint, WebhookError> {
        let now = self.0.clock.now();
        let endpoint = WebhookEndpoint {
            id: self.0.random.id(now),
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
        if WebhookEndpoint::of_workspace(change, workspace, None)?.len() >= MOST_ENDPOINTS {
            return Err(WebhookError::TooMany);
        }
        endpoint.put(change);
        Ok(endpoint)
    }

    /// The endpoints of a workspace, newest first, after the one with the id `after`.
    pub async fn list(
        &self,
        workspace: WorkspaceId,
        status: Option<EndpointStatus>,
        after: Option<WebhookEndpointId>,
        limit: usize,
    ) -> Result<Vec<WebhookEndpoint>, StoreError> {
        self.0
            .store
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
        let found = self.0.store.read(move |view| WebhookEndpoint::find(view, id)).await?;
        Ok(found.filter(|endpoint| endpoint.workspace == workspace))
    }

    /// Changes an endpoint. One that becomes active goes on with what has waited.
    pub async fn update(
        &self,
        workspace: WorkspaceId,
        id: WebhookEndpointId,
        patch: EndpointPatch,
    ) -> Result<Option<WebhookEndpoint>, StoreError> {
        let (now, outbox) = (self.0.clock.now(), self.0.outbox.clone());
        let change_one = move |change: &mut Change<'_>, old: WebhookEndpoint| {
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
        };
        self.0.store.write(move |change| change_in(change, workspace, id, change_one)).await
    }

    /// Gives an endpoint a new secret, as part of another write; `None` when it is not the workspace's. The old one counts
    /// for a while yet, for who verifies Standard Webhooks.
    pub fn rotate_in(
        &self,
        change: &mut Change<'_>,
        workspace: WorkspaceId,
        id: WebhookEndpointId,
    ) -> Result<Option<WebhookEndpoint>, StoreError> {
        let (now, secret, overlap) = (self.0.clock.now(), self.new_secret(), self.0.settings.overlap);
        change_in(change, workspace, id, |_, old| WebhookEndpoint {
            updated_at: now,
            secret,
            earlier_secret: Some(EarlierSecret { secret: old.secret.clone(), until: now.after(overlap) }),
            ..old
        })
    }

    /// Deletes an endpoint; says whether there was one.
    pub async fn delete(&self, workspace: WorkspaceId, id: WebhookEndpointId) -> Result<bool, StoreError> {
        let removals = Arc::clone(&self.0.removals);
        self.0
            .store
            .write(move |change| {
                let found = WebhookEndpoint::find(change, id)?;
                let Some(endpoint) = found.filter(|endpoint| endpoint.workspace == workspace) else {
                    return Ok(false);
                };
                endpoint.remove(change);
                // Its events may be many; they go in small steps, and nobody finds them meanwhile.
                change.put(REMOVED, &id.to_bytes(), &());
                change.after_commit(move || removals.notify_one());
                Ok(true)
            })
            .await
    }

    /// The events of an endpoint, newest first, after the one with the id `after`: all, or only delivered or undelivered
    /// ones. `None` when the endpoint is not the workspace's.
    pub async fn events(
        &self,
        workspace: WorkspaceId,
        id: WebhookEndpointId,
        delivered: Option<bool>,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Option<Vec<EventRecord>>, StoreError> {
        self.0
            .store
            .read(move |view| {
                let found = WebhookEndpoint::find(view, id)?;
                match found.filter(|endpoint| endpoint.workspace == workspace) {
                    Some(_) => of_endpoint(view, id, delivered, after, limit).map(Some),
                    None => Ok(None),
                }
            })
            .await
    }

    fn new_secret(&self) -> SigningSecret {
        SigningSecret::new(format!("{PREFIX}{}", base64(&self.0.random.bytes::<32>())))
    }
}

/// Changes an endpoint of a workspace; `None` when there is none.
fn change_in(
    change: &mut Change<'_>,
    workspace: WorkspaceId,
    id: WebhookEndpointId,
    with: impl FnOnce(&mut Change<'_>, WebhookEndpoint) -> WebhookEndpoint,
) -> Result<Option<WebhookEndpoint>, StoreError> {
    let found = WebhookEndpoint::find(change, id)?;
    let Some(old) = found.filter(|endpoint| endpoint.workspace == workspace) else { return Ok(None) };
    let before = old.clone();
    let new = with(change, old);
    if new != before {
        new.put(change);
    }
    Ok(Some(new))
}

/// How far deliveries of an environment may go.
pub(super) fn reach(environment: Environment) -> Reach {
    match environment {
        Environment::Live => Reach::Public,
        Environment::Sandbox => Reach::Loopback,
    }
}
