//! The outbox: events are written in the transaction of the change they tell of, one for each endpoint that wants them,
//! and delivered from there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::crypto::Random;
use crate::events::{DELAYS, EventKind, WebhookEndpoint, lock};
use crate::id::{EventId, Id as _, PatientKey, WebhookEndpointId, WorkspaceId};
use crate::store::{Change, Range, Reader, StoreError, Table, Value, json_value};

/// Events by their id, which begins with the time they were written at.
pub(super) const EVENTS: Table<Event> = Table::new("events.v1");
/// What an event tells, apart from its bookkeeping: written once, read for each attempt.
const EVENT_DATA: Table<Data> = Table::new("event_data.v1");
/// Under endpoint, whether delivered, and event: lists of either kind, or of both merged, need no search.
const EVENTS_BY_ENDPOINT: Table<()> = Table::new("events_by_endpoint.v1");
/// Under patient and event, for the patient's erasure.
const EVENTS_BY_PATIENT: Table<()> = Table::new("events_by_patient.v1");
/// What is still to be tried, under endpoint, time in milliseconds and event; how often the schedule has tried it.
const EVENTS_DUE: Table<[u8; 1]> = Table::new("events_due.v1");

/// One event for one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its id, the same in every attempt.
    pub id: EventId,
    /// Where it goes.
    pub endpoint: WebhookEndpointId,
    /// Whose event.
    pub workspace: WorkspaceId,
    /// Whom it is about.
    pub patient: PatientKey,
    /// The kind's spelling on the wire.
    pub kind: String,
    /// The version of the contract it is written in.
    pub api_version: String,
    /// When it happened.
    pub created_at: Timestamp,
    /// How often it was sent, by the schedule and by hand.
    pub attempts: u32,
    /// How often the schedule has sent it.
    pub scheduled: u8,
    /// When the schedule sends it next; nothing when it was delivered or given up.
    pub next_attempt_at: Option<Timestamp>,
    /// When a receiver first took it.
    pub delivered_at: Option<Timestamp>,
    /// The receiver's last status, if it answered.
    pub last_status: Option<u16>,
    /// The beginning of the receiver's last answer.
    pub last_body: Option<String>,
    /// Why there was no answer the last time, for staff.
    #[serde(default)]
    pub last_error: Option<String>,
    /// When it was last sent by hand.
    pub last_redelivered_at: Option<Timestamp>,
}
json_value!(Event);

/// `data.object` of an event, as JSON text: the keys keep the order they were written in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Data(pub(super) String);

impl Value for Data {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok().map(Self)
    }
}

/// What has happened.
#[derive(Debug, Clone, Copy)]
pub struct Fact {
    /// In which workspace.
    pub workspace: WorkspaceId,
    /// To whom.
    pub patient: PatientKey,
    /// What.
    pub kind: EventKind,
    /// When.
    pub at: Timestamp,
}

/// Takes events in, and knows which endpoints to look at. Clones share it.
#[derive(Debug, Clone)]
pub struct Outbox {
    random: Random,
    touched: Arc<Touched>,
}

/// Endpoints whose due events changed since they were last looked at: at most as many as there are.
#[derive(Debug, Default)]
struct Touched {
    endpoints: Mutex<BTreeSet<WebhookEndpointId>>,
    bell: Notify,
}

impl Outbox {
    /// An outbox; events get their ids from `random`.
    pub fn new(random: Random) -> Self {
        Self { random, touched: Arc::default() }
    }

    /// Writes one event for each endpoint of the workspace that wants this kind, as part of the write that makes the fact
    /// one. `data` is asked for `data.object`, and only when somebody wants it. Delivery is woken after the commit.
    pub fn emit<T: Serialize>(
        &self,
        change: &mut Change<'_>,
        fact: Fact,
        data: impl FnOnce(&mut Change<'_>) -> Result<T, StoreError>,
    ) -> Result<(), StoreError> {
        let mut endpoints = WebhookEndpoint::of_workspace(change, fact.workspace, None)?;
        endpoints.retain(|endpoint| endpoint.wants(fact.kind));
        if endpoints.is_empty() {
            return Ok(());
        }
        let data = data(change)?;
        let data = serde_json::to_string(&data)
            .map(Data)
            .map_err(|error| StoreError::Storage(format!("an event could not be written down: {error}")))?;
        for endpoint in endpoints {
            let event = Event {
                id: self.random.id(fact.at),
                endpoint: endpoint.id,
                workspace: fact.workspace,
                patient: fact.patient,
                kind: fact.kind.as_str().to_owned(),
                api_version: endpoint.api_version,
                created_at: fact.at,
                attempts: 0,
                scheduled: 0,
                next_attempt_at: Some(fact.at),
                delivered_at: None,
                last_status: None,
                last_body: None,
                last_error: None,
                last_redelivered_at: None,
            };
            change.put(EVENT_DATA, &event.id.to_bytes(), &data);
            change.put(EVENTS_BY_PATIENT, &[event.patient.to_bytes(), event.id.to_bytes()].concat(), &());
            event.put(change);
            self.wake_after(change, endpoint.id);
        }
        Ok(())
    }

    /// The endpoints to look at since the last call; waits until somebody rings when there is none.
    pub(super) async fn touched(&self) -> BTreeSet<WebhookEndpointId> {
        let touched = std::mem::take(&mut *lock(&self.touched.endpoints));
        if !touched.is_empty() {
            return touched;
        }
        self.touched.bell.notified().await;
        std::mem::take(&mut *lock(&self.touched.endpoints))
    }

    /// Has [`Outbox::touched`] return, if only with nothing.
    pub(super) fn ring(&self) {
        self.touched.bell.notify_one();
    }

    /// Has delivery look at an endpoint once a write is on disk.
    pub(super) fn wake_after(&self, change: &mut Change<'_>, endpoint: WebhookEndpointId) {
        let touched = Arc::clone(&self.touched);
        change.after_commit(move || touched.touch(endpoint));
    }
}

impl Touched {
    fn touch(&self, endpoint: WebhookEndpointId) {
        lock(&self.endpoints).insert(endpoint);
        self.bell.notify_one();
    }
}

/// What is due of one endpoint, as [`due`] finds it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// These, the longest due first.
    Now(Vec<EventId>),
    /// Nothing before this time.
    At(Timestamp),
    /// Nothing at all.
    Never,
}

/// The next events to try of an endpoint, a few at a time.
pub(super) fn due(
    reader: &impl Reader,
    endpoint: WebhookEndpointId,
    now: Timestamp,
    limit: usize,
) -> Result<Due, StoreError> {
    let mut found = Vec::new();
    let mut later = None;
    reader.each(EVENTS_DUE, &Range::of(&endpoint.to_bytes()).limit(limit), |key, [tries]| {
        let Some((at, event)) = due_of(key) else { return Ok(true) };
        // What lies further ahead than any delay of its own was put there by a clock that was wrong then.
        let ahead = DELAYS.get(usize::from(tries)).copied().unwrap_or_default() + CLOCK_SLACK;
        if at <= now || at.since(now) > ahead {
            found.push(event);
        } else {
            later.get_or_insert(at);
        }
        Ok(later.is_none())
    })?;
    Ok(match (found.is_empty(), later) {
        (false, _) => Due::Now(found),
        (true, Some(at)) => Due::At(at),
        (true, None) => Due::Never,
    })
}

/// A clock that is corrected by less than this moves nothing.
const CLOCK_SLACK: Duration = Duration::from_mins(1);

fn due_of(key: &[u8]) -> Option<(Timestamp, EventId)> {
    let millis = u64::from_be_bytes(key.get(16..24)?.try_into().ok()?);
    let event: [u8; 16] = key.get(24..)?.try_into().ok()?;
    Some((Timestamp::from_millis(i64::try_from(millis).ok()?), EventId::from_bytes(event)))
}

/// The endpoints that have something to be tried, now or later: one step for each, however much that is.
pub(super) fn endpoints_with_due(reader: &impl Reader) -> Result<Vec<WebhookEndpointId>, StoreError> {
    let mut found = Vec::new();
    let mut beyond = None;
    while let Some(key) = reader.keys(EVENTS_DUE, &Range::of(b"").beyond(beyond).limit(1))?.pop() {
        let Some(endpoint) = key.get(..16).and_then(|bytes| bytes.try_into().ok()) else { break };
        found.push(WebhookEndpointId::from_bytes(endpoint));
        beyond = Some([endpoint.as_slice(), &[255; 24]].concat());
    }
    Ok(found)
}

/// An endpoint's events with what they tell, newest first, older than `after`: all, or only delivered or undelivered ones.
pub(super) fn of_endpoint(
    reader: &impl Reader,
    endpoint: WebhookEndpointId,
    delivered: Option<bool>,
    after: Option<EventId>,
    limit: usize,
) -> Result<Vec<EventRecord>, StoreError> {
    let mut ids = Vec::new();
    for state in [false, true] {
        if delivered.is_some_and(|wanted| wanted != state) {
            continue;
        }
        let prefix = [endpoint.to_bytes().as_slice(), &[u8::from(state)]].concat();
        let beyond = after.map(|after| [prefix.as_slice(), &after.to_bytes()].concat());
        let range = Range::of(&prefix).descending().beyond(beyond).limit(limit);
        ids.extend(reader.keys(EVENTS_BY_ENDPOINT, &range)?.into_iter().map(|key| key[17..].to_vec()));
    }
    ids.sort_unstable_by(|left, right| right.cmp(left));
    ids.truncate(limit);
    let mut found = Vec::new();
    for id in ids {
        if let Some(event) = reader.get(EVENTS, &id)? {
            let data = event.data(reader)?;
            found.push(EventRecord { event, data });
        }
    }
    Ok(found)
}

/// The ids of some events of an endpoint, delivered or not.
pub(super) fn some_of_endpoint(
    reader: &impl Reader,
    endpoint: WebhookEndpointId,
    limit: usize,
) -> Result<Vec<EventId>, StoreError> {
    let keys = reader.keys(EVENTS_BY_ENDPOINT, &Range::of(&endpoint.to_bytes()).limit(limit))?;
    let ids = keys.iter().filter_map(|key| key.get(17..)?.try_into().ok());
    Ok(ids.map(EventId::from_bytes).collect())
}

/// An event with what it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// The event.
    pub event: Event,
    /// `data.object` as JSON text.
    pub data: String,
}

impl Event {
    /// The event of this id.
    pub(super) fn find(reader: &impl Reader, id: EventId) -> Result<Option<Self>, StoreError> {
        reader.get(EVENTS, &id.to_bytes())
    }

    /// What it tells.
    pub(super) fn data(&self, reader: &impl Reader) -> Result<String, StoreError> {
        let data = reader.get(EVENT_DATA, &self.id.to_bytes())?;
        data.map(|data| data.0).ok_or(StoreError::Damaged(EVENT_DATA.name()))
    }

    /// Keeps the event and the rows it is found by; `self` is new, or what it was before has been taken out with
    /// [`Event::unlist`].
    pub(super) fn put(&self, change: &mut Change<'_>) {
        change.put(EVENTS, &self.id.to_bytes(), self);
        change.put(EVENTS_BY_ENDPOINT, &self.listed_as(), &());
        if let Some(due) = self.due_key() {
            change.put(EVENTS_DUE, &due, &[self.scheduled]);
        }
    }

    /// Takes out the rows it is found by.
    pub(super) fn unlist(&self, change: &mut Change<'_>) {
        change.remove(EVENTS_BY_ENDPOINT, &self.listed_as());
        if let Some(due) = self.due_key() {
            change.remove(EVENTS_DUE, &due);
        }
    }

    /// Forgets the event, as part of a write.
    pub(super) fn remove(&self, change: &mut Change<'_>) {
        self.unlist(change);
        change.remove(EVENTS, &self.id.to_bytes());
        change.remove(EVENT_DATA, &self.id.to_bytes());
        change.remove(EVENTS_BY_PATIENT, &[self.patient.to_bytes(), self.id.to_bytes()].concat());
    }

    fn listed_as(&self) -> Vec<u8> {
        let delivered = u8::from(self.delivered_at.is_some());
        [self.endpoint.to_bytes().as_slice(), &[delivered], &self.id.to_bytes()].concat()
    }

    fn due_key(&self) -> Option<Vec<u8>> {
        let at = u64::try_from(self.next_attempt_at?.millis()).unwrap_or(0);
        Some([self.endpoint.to_bytes().as_slice(), &at.to_be_bytes(), &self.id.to_bytes()].concat())
    }
}

/// Forgets the events about a patient, as part of the patient's erasure: what they tell is the patient's.
pub fn forget_patient(change: &mut Change<'_>, patient: PatientKey) -> Result<(), StoreError> {
    let prefix = patient.to_bytes();
    for key in change.keys(EVENTS_BY_PATIENT, &Range::of(&prefix))? {
        change.remove(EVENTS_BY_PATIENT, &key);
        if let Some(event) = change.get(EVENTS, &key[16..])? {
            event.remove(change);
        }
    }
    Ok(())
}
