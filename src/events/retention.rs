//! What is no longer kept: events of long ago, and those of deleted endpoints. In small steps, so that no write waits for
//! a long one.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::events::endpoints::REMOVED;
use crate::events::outbox::{EVENTS, some_of_endpoint};
use crate::events::{EndpointStatus, Event, WebhookEndpoint, Webhooks};
use crate::id::{EventId, Id as _, WebhookEndpointId};
use crate::store::{Range, Reader as _, StoreError};

/// How often old events are looked for.
const EVERY: Duration = Duration::from_hours(1);
/// Events that one write removes.
const STEP: usize = 200;

impl Webhooks {
    pub(super) fn start_tidying(&self) {
        let webhooks = self.clone();
        self.0.shutdown.spawn(async move {
            tokio::select! {
                () = webhooks.0.shutdown.triggered() => {}
                () = webhooks.tidy_for_ever() => {}
            }
        });
    }

    async fn tidy_for_ever(&self) {
        loop {
            if let Err(cause) = self.tidy().await {
                tracing::error!(%cause, "old events could not be removed; the next try is in an hour");
            }
            let next = self.0.clock.now().after(EVERY);
            tokio::select! {
                () = self.0.clock.reached(next) => {}
                () = self.0.removals.notified() => {}
            }
        }
    }

    /// Removes what need not be kept any longer; says how many events that were.
    pub async fn tidy(&self) -> Result<usize, StoreError> {
        Ok(self.remove_orphans().await? + self.remove_old().await?)
    }

    async fn remove_orphans(&self) -> Result<usize, StoreError> {
        let mut removed = 0;
        while let Some(key) =
            self.0.store.read(|view| view.keys(REMOVED, &Range::of(b"").limit(1))).await?.pop()
        {
            let Ok(endpoint) = <[u8; 16]>::try_from(key.as_slice()) else { break };
            let endpoint = WebhookEndpointId::from_bytes(endpoint);
            removed += self
                .0
                .store
                .write(move |change| {
                    let events = some_of_endpoint(change, endpoint, STEP)?;
                    for id in &events {
                        if let Some(event) = Event::find(change, *id)? {
                            event.remove(change);
                        }
                    }
                    if events.is_empty() {
                        change.remove(REMOVED, &endpoint.to_bytes());
                    }
                    Ok::<_, StoreError>(events.len())
                })
                .await?;
        }
        Ok(removed)
    }

    async fn remove_old(&self) -> Result<usize, StoreError> {
        let before = self.0.clock.now().before(self.0.settings.retention);
        let (mut beyond, mut removed) = (None, 0);
        loop {
            let from = beyond.clone();
            let keys: Vec<Vec<u8>> = self
                .0
                .store
                .read(move |view| view.keys(EVENTS, &Range::of(b"").beyond(from).limit(STEP)))
                .await?;
            let old: Vec<EventId> = keys
                .iter()
                .filter_map(|key| key.as_slice().try_into().ok().map(EventId::from_bytes))
                .take_while(|id| made_at(*id) < before)
                .collect();
            let more = old.len() == STEP;
            beyond = keys.last().cloned();
            removed += self.remove_if_over(old).await?;
            if !more {
                return Ok(removed);
            }
        }
    }

    /// Removes those of some events that are over. What is still to be tried stays, however old: a clock that was wrong
    /// for a while must lose nothing. At a disabled endpoint it goes, or it would wait for ever.
    async fn remove_if_over(&self, events: Vec<EventId>) -> Result<usize, StoreError> {
        if events.is_empty() {
            return Ok(0);
        }
        self.0
            .store
            .write(move |change| {
                let mut removed = 0;
                for id in events {
                    let Some(event) = Event::find(change, id)? else { continue };
                    let waits = event.next_attempt_at.is_some()
                        && WebhookEndpoint::find(change, event.endpoint)?
                            .is_some_and(|endpoint| endpoint.status == EndpointStatus::Active);
                    if !waits {
                        event.remove(change);
                        removed += 1;
                    }
                }
                Ok::<_, StoreError>(removed)
            })
            .await
    }
}

/// The time an id was made at: its first six bytes.
fn made_at(id: EventId) -> Timestamp {
    let mut millis = [0; 8];
    millis[2..].copy_from_slice(&id.to_bytes()[..6]);
    Timestamp::from_millis(i64::from_be_bytes(millis))
}
