//! Webhook endpoints: create, list, retrieve, change, delete, new secret.

use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use url::Url;

use crate::api::cursor::{cursor_after, read_cursor};
use crate::api::etag::object;
use crate::api::idempotency::Once;
use crate::api::input::{Fields, Null};
use crate::api::wire::{API_VERSION, ListPage};
use crate::api::{Api, ApiRequest, ok};
use crate::config::Environment;
use crate::events::{
    EndpointPatch, EndpointStatus, EventKind, NewEndpoint, Wanted, WebhookEndpoint, WebhookError,
};
use crate::http::{Answer, Problem, ProblemKind};
use crate::id::{Id as _, WebhookEndpointId};
use crate::outbound::is_loopback_host;

/// Kinds of events of the contract in one list: `*` and the four.
const MOST_OF_THE_CONTRACT: usize = 5;
/// Members of `metadata`.
const MOST_METADATA: usize = 50;
const LONGEST_URL: usize = 2048;
const LONGEST_DESCRIPTION: usize = 500;

/// `webhook_endpoint`
#[derive(Debug, Serialize)]
pub struct WireEndpoint {
    id: String,
    resource_type: &'static str,
    url: String,
    events: Vec<String>,
    status: EndpointStatus,
    description: Option<String>,
    metadata: Map<String, Json>,
    api_version: String,
    created_at: String,
    updated_at: String,
    /// In the answers to create and rotate only.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl WireEndpoint {
    fn new(endpoint: WebhookEndpoint) -> Self {
        Self {
            id: endpoint.id.to_string(),
            resource_type: "webhook_endpoint",
            url: endpoint.url,
            events: endpoint.events,
            status: endpoint.status,
            description: endpoint.description,
            metadata: endpoint.metadata,
            api_version: endpoint.api_version,
            created_at: endpoint.created_at.to_string(),
            updated_at: endpoint.updated_at.to_string(),
            secret: None,
        }
    }

    fn with_secret(endpoint: WebhookEndpoint) -> Self {
        let secret = Some(endpoint.secret.expose().to_owned());
        Self { secret, ..Self::new(endpoint) }
    }
}

/// `POST /webhooks`
pub async fn create(api: &Api, request: &ApiRequest) -> Result<Answer, Problem> {
    let once = Once::asked(api, request, &[b"create-webhook"])?;
    if let Some(answer) = once.answered(api).await? {
        return Ok(answer);
    }
    let fields = Fields::parse(&request.body, None)?;
    let environment = request.caller.environment;
    let new = NewEndpoint {
        url: url(api, environment, &fields)?.ok_or_else(|| Problem::missing("url"))?,
        events: events(&fields)?.ok_or_else(|| Problem::missing("events"))?,
        description: fields.text_or_empty("description", LONGEST_DESCRIPTION, Null::Refused)?,
        metadata: metadata(&fields)?.unwrap_or_default(),
        api_version: API_VERSION.to_owned(),
    };
    let (webhooks, workspace) = (api.webhooks.clone(), request.caller.workspace);
    once.carry_out(api, move |change| {
        let endpoint = webhooks.create_in(change, workspace, environment, new)?;
        Ok((WireEndpoint::with_secret(endpoint), None))
    })
    .await
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::TooMany => Self::new(
                ProblemKind::Conflict,
                "This workspace has as many webhook endpoints as it may have; delete one that is not needed.",
            ),
            WebhookError::Store(error) => error.into(),
        }
    }
}

/// `GET /webhooks`
pub async fn list(api: &Api, request: &ApiRequest) -> Result<Answer, Problem> {
    let limit = request.query.page_size("limit", 10)?;
    let status = request.query.get("status").map(status).transpose()?;
    let workspace = request.caller.workspace.to_bytes();
    let filter = format!("{status:?}");
    let scope: [&[u8]; 3] = [b"webhooks", &workspace, filter.as_bytes()];
    let vault = api.store.vault();
    let after: Option<WebhookEndpointId> = read_cursor(vault, &scope, request.query.get("starting_after"))?;
    let mut found = api.webhooks.list(request.caller.workspace, status, after, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| cursor_after(vault, &scope, last.id));
    Ok(ok(&ListPage::new(found.into_iter().map(WireEndpoint::new).collect(), next)))
}

/// `GET /webhooks/{id}`
pub async fn retrieve(api: &Api, request: &ApiRequest, id: &str) -> Result<Answer, Problem> {
    let found = api.webhooks.find(request.caller.workspace, endpoint_id(id)?).await?;
    Ok(object(request, &WireEndpoint::new(found.ok_or_else(missing)?)))
}

/// `PATCH /webhooks/{id}`: what is left out stays; an empty body changes nothing.
pub async fn update(api: &Api, request: &ApiRequest, id: &str) -> Result<Answer, Problem> {
    let id = endpoint_id(id)?;
    let workspace = request.caller.workspace;
    // Whose endpoint it is comes before what is wrong with the body.
    if api.webhooks.find(workspace, id).await?.is_none() {
        return Err(missing());
    }
    let patch = if request.body.is_empty() {
        EndpointPatch::default()
    } else {
        patch(api, request.caller.environment, &Fields::parse(&request.body, None)?)?
    };
    let changed = api.webhooks.update(workspace, id, patch).await?;
    Ok(ok(&WireEndpoint::new(changed.ok_or_else(missing)?)))
}

/// `DELETE /webhooks/{id}`
pub async fn delete(api: &Api, request: &ApiRequest, id: &str) -> Result<Answer, Problem> {
    if api.webhooks.delete(request.caller.workspace, endpoint_id(id)?).await? {
        Ok(ok(&json!({ "id": id, "resource_type": "webhook_endpoint", "deleted": true })))
    } else {
        Err(missing())
    }
}

/// `POST /webhooks/{id}/rotate-secret`
pub async fn rotate_secret(api: &Api, request: &ApiRequest, id: &str) -> Result<Answer, Problem> {
    let id = endpoint_id(id)?;
    let once = Once::asked(api, request, &[b"rotate-webhook-secret", &id.to_bytes()])?;
    if let Some(answer) = once.answered(api).await? {
        return Ok(answer);
    }
    let (webhooks, workspace) = (api.webhooks.clone(), request.caller.workspace);
    once.carry_out(api, move |change| {
        let rotated = webhooks.rotate_in(change, workspace, id)?;
        Ok((WireEndpoint::with_secret(rotated.ok_or_else(missing)?), None))
    })
    .await
}

/// An id that is no id of an endpoint is an endpoint that is not there.
pub(super) fn endpoint_id(text: &str) -> Result<WebhookEndpointId, Problem> {
    WebhookEndpointId::parse(text).map_err(|_| missing())
}

pub(super) fn missing() -> Problem {
    Problem::not_found("This webhook endpoint")
}

fn patch(api: &Api, environment: Environment, fields: &Fields) -> Result<EndpointPatch, Problem> {
    let description = if fields.has("description") {
        Some(fields.text_or_empty("description", LONGEST_DESCRIPTION, Null::MeansNone)?)
    } else {
        None
    };
    Ok(EndpointPatch {
        url: url(api, environment, fields)?,
        events: events(fields)?,
        description,
        metadata: metadata(fields)?,
        status: fields.text("status", 20, Null::Refused)?.map(|text| status(&text)).transpose()?,
    })
}

fn status(text: &str) -> Result<EndpointStatus, Problem> {
    match text {
        "active" => Ok(EndpointStatus::Active),
        "disabled" => Ok(EndpointStatus::Disabled),
        _ => Err(Problem::invalid("status", "`status` must be active or disabled.")),
    }
}

/// A receiver's address: https, or on this machine http, and only in a sandbox workspace.
fn url(api: &Api, environment: Environment, fields: &Fields) -> Result<Option<String>, Problem> {
    let Some(text) = fields.text("url", LONGEST_URL, Null::Refused)? else { return Ok(None) };
    let refuse = |message: &str| Err(Problem::invalid("url", message));
    let Ok(url) = Url::parse(&text) else { return refuse("`url` must be an absolute URL.") };
    let local = url.host().is_some_and(|host| is_loopback_host(&host));
    match url.scheme() {
        "https" => {}
        "http" if local && environment == Environment::Sandbox => {}
        "http" if local => return refuse("`url` may be http://localhost in a sandbox workspace only."),
        _ => return refuse("`url` must begin with https:// (or http://localhost, in a sandbox workspace)."),
    }
    match api.webhooks.may_call(&url, environment) {
        Ok(()) if local && environment == Environment::Live && url.domain().is_some() => refuse(
            "`url` leads to the server itself; a live workspace needs a receiver's own name or address.",
        ),
        Ok(()) => Ok(Some(text)),
        Err(_) => refuse(
            "`url` is not an address that may be called: it carries a user name, or it is private and not among the \
             networks that the operator allows (webhook.allow_private).",
        ),
    }
}

fn events(fields: &Fields) -> Result<Option<Vec<String>>, Problem> {
    let Some(kinds) = fields.texts("events")? else { return Ok(None) };
    if kinds.is_empty() {
        return Err(Problem::invalid("events", "`events` must have at least one item."));
    }
    let mut of_the_contract = 0;
    for kind in &kinds {
        let Some(wanted) = Wanted::parse(kind) else {
            let kinds = EventKind::ALL.map(EventKind::as_str).join(", ");
            return Err(Problem::invalid("events", format!("`events` may hold \"*\" and any of {kinds}.")));
        };
        of_the_contract += usize::from(wanted.is_of_the_contract());
    }
    // Kinds of our own are counted apart, so that the contract's bound stays the contract's.
    if of_the_contract > MOST_OF_THE_CONTRACT || kinds.len() - of_the_contract > MOST_OF_OUR_OWN {
        return Err(Problem::invalid("events", "`events` must have at most 5 items."));
    }
    Ok(Some(kinds))
}

/// Kinds of events that the contract does not know.
const MOST_OF_OUR_OWN: usize = 10;

fn metadata(fields: &Fields) -> Result<Option<Map<String, Json>>, Problem> {
    let metadata = fields.object("metadata")?;
    match metadata {
        Some(members) if members.len() > MOST_METADATA => {
            Err(Problem::invalid("metadata", "`metadata` must have at most 50 members."))
        }
        metadata => Ok(metadata),
    }
}
