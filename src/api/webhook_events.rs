//! Events of webhook endpoints: list, and send again.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::cursor::{cursor_after, read_cursor};
use crate::api::idempotency::Once;
use crate::api::webhooks::{endpoint_id, missing};
use crate::api::wire::ListPage;
use crate::api::{Api, ApiRequest, ok};
use crate::events::{EventRecord, Keep, RedeliverError};
use crate::http::{Answer, Problem, ProblemKind};
use crate::id::{EventId, Id as _};

/// `event`: the record of a delivery. What is delivered itself has another shape.
#[derive(Debug, Serialize)]
pub struct WireEvent {
    id: String,
    resource_type: &'static str,
    webhook_endpoint_id: String,
    r#type: String,
    data: WireEventData,
    api_version: String,
    attempts: u32,
    next_attempt_at: Option<String>,
    delivered_at: Option<String>,
    last_status_code: Option<u16>,
    last_response_body: Option<String>,
    last_redelivered_at: Option<String>,
    created_at: String,
}

#[derive(Debug, Serialize)]
struct WireEventData {
    object: Box<RawValue>,
}

impl WireEvent {
    fn new(record: EventRecord) -> Result<Self, Problem> {
        let EventRecord { event, data } = record;
        let object = RawValue::from_string(data).map_err(|error| {
            Problem::new(ProblemKind::Internal, "An event's data cannot be read.").caused_by(error)
        })?;
        Ok(Self {
            id: event.id.to_string(),
            resource_type: "event",
            webhook_endpoint_id: event.endpoint.to_string(),
            r#type: event.kind,
            data: WireEventData { object },
            api_version: event.api_version,
            attempts: event.attempts,
            next_attempt_at: event.next_attempt_at.map(|at| at.to_string()),
            delivered_at: event.delivered_at.map(|at| at.to_string()),
            last_status_code: event.last_status,
            last_response_body: event.last_body,
            last_redelivered_at: event.last_redelivered_at.map(|at| at.to_string()),
            created_at: event.created_at.to_string(),
        })
    }
}

/// `GET /webhooks/{id}/events`
pub async fn list(api: &Api, request: &ApiRequest, id: &str) -> Result<Answer, Problem> {
    let id = endpoint_id(id)?;
    let limit = request.query.page_size("limit", 10)?;
    let delivered = match request.query.get("delivered") {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(Problem::invalid("delivered", "`delivered` must be true or false.")),
    };
    let filter = format!("{delivered:?}");
    let scope: [&[u8]; 3] = [b"webhook-events", &id.to_bytes(), filter.as_bytes()];
    let vault = api.store.vault();
    let after: Option<EventId> = read_cursor(vault, &scope, request.query.get("starting_after"))?;
    let found = api.webhooks.events(request.caller.workspace, id, delivered, after, limit + 1).await?;
    let mut found = found.ok_or_else(missing)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| cursor_after(vault, &scope, last.event.id));
    let data = found.into_iter().map(WireEvent::new).collect::<Result<Vec<_>, _>>()?;
    Ok(ok(&ListPage::new(data, next)))
}

/// `POST /events/{id}/redeliver`
pub async fn redeliver(api: &Api, request: &ApiRequest, id: &str) -> Result<Answer, Problem> {
    let missing = || Problem::not_found("This event");
    let id = EventId::parse(id).map_err(|_| missing())?;
    let once = Once::asked(api, request, &[b"redeliver-webhook-event", &id.to_bytes()])?;
    if let Some(answer) = once.answered(api).await? {
        return Ok(answer);
    }
    // One that repeats a request which is still being carried out comes too soon, like any other.
    let keep: Keep = Box::new(move |change, record| {
        let answer = WireEvent::new(record.clone());
        answer.map_or(Ok(()), |answer| once.keep_done(change, &answer, record.event.patient))
    });
    let sent = api.webhooks.redeliver(request.caller.workspace, id, keep).await;
    let sent = sent.map_err(|error| match error {
        RedeliverError::Missing => missing(),
        RedeliverError::Disabled => Problem::new(
            ProblemKind::Conflict,
            "The webhook endpoint of this event is disabled; enable it first (PATCH with status active).",
        ),
        RedeliverError::TooSoon(seconds) => Problem::new(
            ProblemKind::Throttled(seconds),
            "An event is sent again at most once a minute; wait as long as Retry-After says.",
        ),
        RedeliverError::Store(error) => error.into(),
    })?;
    Ok(ok(&WireEvent::new(sent)?))
}
