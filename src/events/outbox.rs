//! The outbox: events are written in the transaction of the change they tell of, one for each endpoint that wants them,
//! and delivered from there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::crypto::Random;
use crate::events::{EventKind, WebhookEndpoint};
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
                last_redelivered_at: None,
            };
            change.put(EVENT_DATA, &event.id.to_bytes(), &data);
            change.put(EVENTS_BY_PATIENT, &[event.patient.to_bytes(), event.id.to_bytes()].concat(), &());
            event.put(change);
            self.wake_after(change, endpoint.id);
        }
        Ok(())
    }

    /// Has delivery look at an endpoint once a write is on disk.
    pub(super) fn wake_after(&self, change: &mut Change<'_>, endpoint: WebhookEndpointId) {
        let touched = Arc::clone(&self.touched);
        change.after_commit(move || touched.touch(endpoint));
    }
}

impl Touched {
    fn touch(&self, endpoint: WebhookEndpointId) {
        self.endpoints.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(endpoint);
        self.bell.notify_one();
    }
}

impl Event {
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
