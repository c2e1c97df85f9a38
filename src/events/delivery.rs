//! One attempt to deliver one event, and what becomes of the event then.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use hyper::header::HeaderName;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use url::Url;

use crate::clock::Timestamp;
use crate::events::signature::sign;
use crate::events::webhooks::reach;
use crate::events::{EndpointStatus, Event, EventRecord, Incident, WebhookEndpoint, Webhooks, lock};
use crate::id::{EventId, ReferenceCode, WebhookEndpointId, WorkspaceId};
use crate::outbound::Call;
use crate::store::{Change, StoreError};

/// The waits before each attempt of the contract: nine attempts over a little more than three and a half days.
pub const DELAYS: [Duration; 9] = [
    Duration::ZERO,
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(12),
    Duration::from_hours(24),
    Duration::from_hours(24),
    Duration::from_hours(24),
];

/// A receiver has this long to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// As much of an answer is kept.
const ANSWER: usize = 4 * 1024;
/// An event is sent again by hand at most once in this time.
const BETWEEN_REDELIVERIES: Duration = Duration::from_mins(1);

/// Attempts at once: to receivers whose last attempt went well, to the others, and by hand. Receivers that do not answer
/// wait among themselves, so that no number of them keeps the others from their events.
#[derive(Debug)]
pub(super) struct Pools {
    well: Semaphore,
    ailing: Semaphore,
    by_hand: Semaphore,
    /// Endpoints whose last attempt failed: at most as many as there are.
    sick: Mutex<HashSet<WebhookEndpointId>>,
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            well: Semaphore::new(64),
            ailing: Semaphore::new(32),
            by_hand: Semaphore::new(16),
            sick: Mutex::default(),
        }
    }
}

impl Pools {
    /// A place for an attempt, first come, first served.
    async fn place(&self, endpoint: WebhookEndpointId) -> Option<SemaphorePermit<'_>> {
        let sick = lock(&self.sick).contains(&endpoint);
        let pool = if sick { &self.ailing } else { &self.well };
        pool.acquire().await.ok()
    }

    fn note(&self, endpoint: WebhookEndpointId, well: bool) {
        let mut sick = lock(&self.sick);
        if well {
            sick.remove(&endpoint)
        } else {
            sick.insert(endpoint)
        };
    }

    /// Forgets an endpoint that nothing is sent to any more.
    pub(super) fn forget(&self, endpoint: WebhookEndpointId) {
        lock(&self.sick).remove(&endpoint);
    }
}

/// What came of an attempt.
#[derive(Debug)]
enum Outcome {
    /// The receiver answered.
    Answered { status: u16, body: String },
    /// It did not, and why.
    Silent(String),
}

impl Outcome {
    fn is_success(&self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. })
    }
}

/// What is done with a record in the transaction that writes an attempt by hand down.
pub type Keep = Box<dyn FnOnce(&mut Change<'_>, &EventRecord) -> Result<(), StoreError> + Send>;

/// Who had an event sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Schedule,
    Hand,
}

/// Why an event was not sent again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedeliverError {
    /// There is no such event in this workspace.
    #[error("no such event in this workspace")]
    Missing,
    /// Its endpoint is disabled.
    #[error("the webhook endpoint is disabled")]
    Disabled,
    /// It was sent by hand a moment ago, or many are being sent just now; again in so many seconds.
    #[error("too soon")]
    TooSoon(u32),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The body of a delivery, in the contract's order.
#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    object: &'static str,
    r#type: &'a str,
    api_version: &'a str,
    created_at: String,
    data: BodyData<'a>,
}

#[derive(Serialize)]
struct BodyData<'a> {
    object: &'a RawValue,
}

impl Webhooks {
    /// Sends an event that the schedule has found due, and writes down what came of it; says whether it was sent.
    pub(super) async fn attempt(&self, endpoint: WebhookEndpointId, id: EventId) -> Result<bool, StoreError> {
        let Some(_place) = self.0.pools.place(endpoint).await else { return Ok(false) };
        // Read only now: while it waited for its place, its patient may have been erased or its endpoint changed.
        let found = self.0.store.read(move |view| both(view, id)).await?;
        let Some((endpoint, record)) = found else { return Ok(false) };
        if endpoint.status != EndpointStatus::Active || record.event.next_attempt_at.is_none() {
            return Ok(false);
        }
        let outcome = self.send(&endpoint, &record).await;
        self.note_outcome(endpoint, id, outcome, By::Schedule, |_, _| Ok(())).await?;
        Ok(true)
    }

    /// Sends an event again, at once and whatever became of it before: at most once a minute for each event. The record
    /// says what came of it, and `keep` gets it before anybody; when it failed, the schedule goes on as if nothing had been.
    pub async fn redeliver(
        &self,
        workspace: WorkspaceId,
        id: EventId,
        keep: Keep,
    ) -> Result<EventRecord, RedeliverError> {
        let webhooks = self.clone();
        let (tell, told) = oneshot::channel();
        // An attempt that was made is written down, whether or not its caller waits for it.
        self.0.shutdown.spawn(async move {
            let _ = tell.send(webhooks.redeliver_now(workspace, id, keep).await);
        });
        told.await.unwrap_or(Err(RedeliverError::Store(StoreError::Closed)))
    }

    async fn redeliver_now(
        &self,
        workspace: WorkspaceId,
        id: EventId,
        keep: Keep,
    ) -> Result<EventRecord, RedeliverError> {
        let Ok(_place) = self.0.pools.by_hand.try_acquire() else { return Err(RedeliverError::TooSoon(1)) };
        let now = self.0.clock.now();
        let found = self
            .0
            .store
            .write(move |change| {
                let found = both(change, id)?;
                let (endpoint, mut record) = found
                    .filter(|(endpoint, _)| endpoint.workspace == workspace)
                    .ok_or(RedeliverError::Missing)?;
                if endpoint.status != EndpointStatus::Active {
                    return Err(RedeliverError::Disabled);
                }
                if let Some(left) = left_to_wait(record.event.last_redelivered_at, now) {
                    return Err(RedeliverError::TooSoon(left));
                }
                record.event.last_redelivered_at = Some(now);
                record.event.put(change);
                Ok((endpoint, record))
            })
            .await?;
        let (endpoint, record) = found;
        let outcome = self.send(&endpoint, &record).await;
        let data = record.data.clone();
        let noted = self.note_outcome(endpoint, id, outcome, By::Hand, move |change, event| {
            keep(change, &EventRecord { event: event.clone(), data })
        });
        let event = noted.await?.ok_or(RedeliverError::Missing)?;
        Ok(EventRecord { event, data: record.data })
    }

    async fn send(&self, endpoint: &WebhookEndpoint, record: &EventRecord) -> Outcome {
        let event = &record.event;
        let id = event.id.to_string();
        let Ok(url) = Url::parse(&endpoint.url) else {
            return Outcome::Silent("the endpoint's address is no URL".to_owned());
        };
        let Some(body) = body_of(record, &id) else {
            return Outcome::Silent("the event's data cannot be read".to_owned());
        };
        let signed = sign(endpoint, &id, self.0.clock.now(), &body);
        let header = HeaderName::from_static;
        let call = Call::json(url, body)
            .header(header("medblocks-signature"), &signed.platform)
            .header(header("webhook-id"), &id)
            .header(header("webhook-timestamp"), &signed.timestamp)
            .header(header("webhook-signature"), &signed.standard)
            .first(ANSWER)
            .within(PATIENCE);
        match self.0.outbound.send(call, reach(endpoint.environment)).await {
            Ok(reply) => {
                let mut body = String::from_utf8_lossy(&reply.body).into_owned();
                // Replaced bytes are longer than what they replace.
                let end = (0..=ANSWER.min(body.len())).rev().find(|end| body.is_char_boundary(*end));
                body.truncate(end.unwrap_or(0));
                Outcome::Answered { status: reply.status.as_u16(), body }
            }
            Err(cause) => Outcome::Silent(cause.to_string()),
        }
    }

    /// Writes an attempt down; the event as it is then, unless it was erased meanwhile.
    async fn note_outcome(
        &self,
        endpoint: WebhookEndpoint,
        id: EventId,
        outcome: Outcome,
        by: By,
        keep: impl FnOnce(&mut Change<'_>, &Event) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<Option<Event>, StoreError> {
        let (now, reference) = (self.0.clock.now(), self.0.random.reference());
        let (endpoint_id, success) = (endpoint.id, outcome.is_success());
        self.0.pools.note(endpoint_id, success);
        let noted = self
            .0
            .store
            .write(move |change| {
                let Some(before) = Event::find(change, id)? else { return Ok(None) };
                let event = after(&before, outcome, by, now);
                before.unlist(change);
                event.put(change);
                let given_up = by == By::Schedule
                    && before.next_attempt_at.is_some()
                    && event.next_attempt_at.is_none()
                    && event.delivered_at.is_none();
                let disabled = given_up && disable(change, &endpoint, &event, reference, now)?;
                keep(change, &event)?;
                Ok::<_, StoreError>(Some((event, disabled)))
            })
            .await?;
        let Some((event, disabled)) = noted else { return Ok(None) };
        let (status, cause) = (event.last_status, event.last_error.as_deref());
        if disabled {
            tracing::warn!(reference = %reference, endpoint = %endpoint_id, event = %id, status, cause,
                "a delivery failed for good; the webhook endpoint was disabled");
        } else if !success {
            tracing::info!(endpoint = %endpoint_id, event = %id, attempts = event.attempts, status, cause,
                "a delivery failed");
        }
        Ok(Some(event))
    }
}

/// An event with its endpoint, unless one of them is gone.
fn both(
    reader: &impl crate::store::Reader,
    id: EventId,
) -> Result<Option<(WebhookEndpoint, EventRecord)>, StoreError> {
    let Some(event) = Event::find(reader, id)? else { return Ok(None) };
    let Some(endpoint) = WebhookEndpoint::find(reader, event.endpoint)? else { return Ok(None) };
    let data = event.data(reader)?;
    Ok(Some((endpoint, EventRecord { event, data })))
}

fn body_of(record: &EventRecord, id: &str) -> Option<String> {
    let event = &record.event;
    let body = Body {
        id,
        object: "event",
        r#type: &event.kind,
        api_version: &event.api_version,
        created_at: event.created_at.to_string(),
        data: BodyData { object: serde_json::from_str(&record.data).ok()? },
    };
    serde_json::to_string(&body).ok()
}

/// What an event is after an attempt.
fn after(before: &Event, outcome: Outcome, by: By, now: Timestamp) -> Event {
    let mut event = Event { attempts: before.attempts.saturating_add(1), ..before.clone() };
    let success = outcome.is_success();
    (event.last_status, event.last_body, event.last_error) = match outcome {
        Outcome::Answered { status, body } => (Some(status), Some(body), None),
        Outcome::Silent(cause) => (None, None, Some(cause)),
    };
    if success {
        event.delivered_at.get_or_insert(now);
        event.next_attempt_at = None;
    } else if by == By::Schedule && before.next_attempt_at.is_some() {
        event.scheduled = before.scheduled.saturating_add(1);
        event.next_attempt_at = DELAYS.get(usize::from(event.scheduled)).map(|delay| now.after(*delay));
    }
    event
}

/// Disables an endpoint whose event failed for good, with a note for staff; says whether it did. One that was given
/// another address meanwhile has not failed.
fn disable(
    change: &mut Change<'_>,
    tried: &WebhookEndpoint,
    event: &Event,
    reference: ReferenceCode,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Some(endpoint) = WebhookEndpoint::find(change, tried.id)? else { return Ok(false) };
    if endpoint.status != EndpointStatus::Active || endpoint.url != tried.url {
        return Ok(false);
    }
    let why = match (event.last_status, &event.last_error) {
        (Some(status), _) => format!("the receiver answered with status {status}"),
        (None, Some(cause)) => cause.clone(),
        (None, None) => "the receiver did not answer".to_owned(),
    };
    let incident = Incident {
        reference,
        at: now,
        workspace: Some(endpoint.workspace),
        source: None,
        code: "webhook_disabled".to_owned(),
        staff: format!(
            "The webhook endpoint {} was disabled, because the event {} could not be delivered in nine attempts over \
             three and a half days; the last time {why}. Nothing is sent to it now, and its events wait. Who acts: the \
             app's developers: repair the receiver, then enable the endpoint again \
             (PATCH /webhooks/{} with {{\"status\":\"active\"}}).",
            endpoint.id, event.id, endpoint.id
        ),
        who_acts: "the app's developers".to_owned(),
        correlation_id: None,
    };
    incident.put(change);
    WebhookEndpoint { status: EndpointStatus::Disabled, updated_at: now, ..endpoint }.put(change);
    Ok(true)
}

/// Whole seconds until an event may be sent by hand again.
fn left_to_wait(last: Option<Timestamp>, now: Timestamp) -> Option<u32> {
    // A time that is still to come was noted by a clock that was wrong then.
    let last = last.filter(|last| *last <= now)?;
    let left = BETWEEN_REDELIVERIES.checked_sub(now.since(last)).filter(|left| !left.is_zero())?;
    Some(u32::try_from(left.as_millis().div_ceil(1_000)).unwrap_or(60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Id as _, PatientKey};

    fn event() -> Event {
        Event {
            id: EventId::from_bytes([1; 16]),
            endpoint: WebhookEndpointId::from_bytes([2; 16]),
            workspace: WorkspaceId::from_bytes([3; 16]),
            patient: PatientKey::from_bytes([4; 16]),
            kind: "records.sync.completed".to_owned(),
            api_version: "2026-04-25".to_owned(),
            created_at: Timestamp::from_seconds(0),
            attempts: 0,
            scheduled: 0,
            next_attempt_at: Some(Timestamp::from_seconds(0)),
            delivered_at: None,
            last_status: None,
            last_body: None,
            last_error: None,
            last_redelivered_at: None,
        }
    }

    fn refused() -> Outcome {
        Outcome::Answered { status: 500, body: String::new() }
    }

    fn taken() -> Outcome {
        Outcome::Answered { status: 204, body: String::new() }
    }

    #[test]
    fn nine_attempts_have_the_contracts_waits_between_them() {
        let mut event = event();
        let mut now = Timestamp::from_seconds(1_000);
        let mut waits = Vec::new();
        while event.next_attempt_at.is_some() {
            event = after(&event, refused(), By::Schedule, now);
            waits.extend(event.next_attempt_at.map(|next| next.since(now).as_secs()));
            now = event.next_attempt_at.unwrap_or(now);
        }
        assert_eq!(waits, [60, 300, 1_800, 7_200, 43_200, 86_400, 86_400, 86_400]);
        assert_eq!((event.attempts, event.delivered_at), (9, None));
    }

    #[test]
    fn an_attempt_by_hand_does_not_use_up_one_of_the_schedule() {
        let now = Timestamp::from_seconds(10);
        let failed = after(&event(), refused(), By::Hand, now);
        assert_eq!(
            (failed.attempts, failed.scheduled, failed.next_attempt_at),
            (1, 0, event().next_attempt_at)
        );
        let delivered = after(&failed, taken(), By::Hand, now);
        assert_eq!((delivered.delivered_at, delivered.next_attempt_at), (Some(now), None));
        let again = after(&delivered, refused(), By::Hand, now.after(Duration::from_mins(2)));
        assert_eq!((again.delivered_at, again.next_attempt_at), (Some(now), None), "delivered it stays");
        assert_eq!(again.attempts, 3);
    }

    #[test]
    fn only_an_answer_of_the_two_hundreds_is_a_delivery() {
        for (status, good) in
            [(199, false), (200, true), (299, true), (301, false), (302, false), (410, false)]
        {
            let outcome = Outcome::Answered { status, body: String::new() };
            assert_eq!(outcome.is_success(), good, "{status}");
        }
    }

    #[test]
    fn an_event_is_sent_by_hand_once_a_minute() {
        let check = |last: Option<i64>, now: i64, expected: Option<u32>| {
            let left = left_to_wait(last.map(Timestamp::from_millis), Timestamp::from_millis(now));
            assert_eq!(left, expected, "{last:?} {now}");
        };
        check(None, 0, None);
        check(Some(0), 0, Some(60));
        check(Some(0), 59_001, Some(1));
        check(Some(0), 60_000, None);
        check(Some(1_000_000), 0, None);
    }
}
