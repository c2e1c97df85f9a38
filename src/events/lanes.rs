//! When what is delivered: one lane for each endpoint with something due, which sends two events at a time. Lanes know
//! nothing of each other; what they share is the places for attempts.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt as _;

use crate::clock::Timestamp;
use crate::events::outbox::{Due, due, endpoints_with_due};
use crate::events::{EndpointStatus, WebhookEndpoint, Webhooks, lock};
use crate::id::WebhookEndpointId;
use crate::store::StoreError;

/// Events of one endpoint that are sent at the same time.
const ABREAST: usize = 2;
/// Events of one endpoint that are looked up at a time: ids only, so a long queue costs no memory.
const BATCH: usize = 32;
/// What cannot be read or written now is tried again after this time.
const AFTER_A_FAULT: Duration = Duration::from_mins(1);
/// How often everything that waits is looked at, one row for each endpoint.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// The lanes that are busy, and when the others have something to do: at most one entry for each endpoint.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<HashMap<WebhookEndpointId, Lane>>);

#[derive(Debug)]
enum Lane {
    /// Sending; `again` when something changed after it looked.
    Busy { again: bool },
    /// Nothing to do before this time.
    Until(Timestamp),
}

/// What a lane found when it had nothing more to send.
enum Rest {
    Until(Timestamp),
    ForGood,
}

impl Lanes {
    /// The endpoints whose time has come, and the next time one will.
    fn awake(&self, now: Timestamp) -> (Vec<WebhookEndpointId>, Option<Timestamp>) {
        let (mut awake, mut next) = (Vec::new(), None::<Timestamp>);
        for (endpoint, lane) in lock(&self.0).iter() {
            match lane {
                Lane::Until(at) if *at <= now => awake.push(*endpoint),
                Lane::Until(at) => next = Some(next.map_or(*at, |next| next.min(*at))),
                Lane::Busy { .. } => {}
            }
        }
        (awake, next)
    }

    /// Whether a lane is to be started; a busy one will look again by itself.
    fn enter(&self, endpoint: WebhookEndpointId) -> bool {
        let mut lanes = lock(&self.0);
        if let Some(Lane::Busy { again }) = lanes.get_mut(&endpoint) {
            *again = true;
            return false;
        }
        lanes.insert(endpoint, Lane::Busy { again: false });
        true
    }

    /// Ends a lane, unless something changed after it looked; says whether it ended.
    fn leave(&self, endpoint: WebhookEndpointId, rest: &Rest) -> bool {
        let mut lanes = lock(&self.0);
        if let Some(Lane::Busy { again }) = lanes.get_mut(&endpoint)
            && *again
        {
            *again = false;
            return false;
        }
        match rest {
            Rest::Until(at) => lanes.insert(endpoint, Lane::Until(*at)),
            Rest::ForGood => lanes.remove(&endpoint),
        };
        true
    }
}

impl Webhooks {
    /// Starts delivering: first what has waited since before a restart.
    pub fn start(&self) {
        let webhooks = self.clone();
        self.0.shutdown.spawn(async move {
            tokio::select! {
                () = webhooks.0.shutdown.triggered() => {}
                () = webhooks.deliver() => {}
            }
        });
        self.start_tidying();
    }

    async fn deliver(&self) {
        loop {
            // All that wait are looked at: at the start, and now and then, because a clock may have been set back.
            match self.0.store.read(|view| endpoints_with_due(view)).await {
                Ok(endpoints) => self.run_lanes(endpoints),
                Err(cause) => tracing::error!(%cause, "the outbox could not be read"),
            }
            let look_again = tokio::time::sleep(LOOK_AGAIN);
            tokio::pin!(look_again);
            loop {
                let (awake, next) = self.0.lanes.awake(self.0.clock.now());
                self.run_lanes(awake);
                let timer = async {
                    match next {
                        Some(next) => self.0.clock.reached(next).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    touched = self.0.outbox.touched() => self.run_lanes(touched),
                    () = timer => {}
                    () = &mut look_again => break,
                }
            }
        }
    }

    fn run_lanes(&self, endpoints: impl IntoIterator<Item = WebhookEndpointId>) {
        for endpoint in endpoints {
            self.run_lane(endpoint);
        }
    }

    fn run_lane(&self, endpoint: WebhookEndpointId) {
        if !self.0.lanes.enter(endpoint) {
            return;
        }
        let webhooks = self.clone();
        self.0.shutdown.spawn(async move {
            loop {
                let rest = webhooks.send_due(endpoint).await.unwrap_or_else(|cause| {
                    tracing::error!(%endpoint, %cause, "deliveries stopped for a minute");
                    Rest::Until(webhooks.0.clock.now().after(AFTER_A_FAULT))
                });
                if webhooks.0.lanes.leave(endpoint, &rest) || webhooks.0.shutdown.is_triggered() {
                    // The timer is set anew for the time this lane wakes at.
                    webhooks.0.outbox.ring();
                    return;
                }
            }
        });
    }

    /// Sends what is due of an endpoint until nothing is.
    async fn send_due(&self, endpoint: WebhookEndpointId) -> Result<Rest, StoreError> {
        loop {
            let now = self.0.clock.now();
            let found = self
                .0
                .store
                .read(move |view| {
                    let known = WebhookEndpoint::find(view, endpoint)?;
                    match known.filter(|known| known.status == EndpointStatus::Active) {
                        Some(_) => due(view, endpoint, now, BATCH),
                        // Enabled again, it is looked at again.
                        None => Ok(Due::Never),
                    }
                })
                .await?;
            let events = match found {
                Due::Now(events) => events,
                Due::At(at) => return Ok(Rest::Until(at)),
                Due::Never => {
                    self.0.pools.forget(endpoint);
                    return Ok(Rest::ForGood);
                }
            };
            let attempts = events.into_iter().map(|event| async move {
                if self.0.shutdown.is_triggered() { Ok(false) } else { self.attempt(endpoint, event).await }
            });
            let mut attempts = futures_util::stream::iter(attempts).buffer_unordered(ABREAST);
            let (mut sent, mut fault) = (false, None);
            while let Some(attempted) = attempts.next().await {
                match attempted {
                    Ok(attempted) => sent |= attempted,
                    Err(cause) => fault = Some(cause),
                }
            }
            if let Some(cause) = fault {
                return Err(cause);
            }
            if self.0.shutdown.is_triggered() {
                return Ok(Rest::ForGood);
            }
            if !sent {
                // Whatever stands in the way, it is not asked about again and again.
                return Ok(Rest::Until(self.0.clock.now().after(AFTER_A_FAULT)));
            }
        }
    }
}
