//! The catalogue of sources, `/connections` on the wire.

use std::sync::Arc;

use crate::api::cursor::{cursor_after, read_cursor};
use crate::api::etag::object;
use crate::api::wire::{ListPage, WireSource, wire_vendor};
use crate::api::{Api, ApiRequest, ok};
use crate::config::Environment;
use crate::directory::Source;
use crate::http::{Answer, Problem};
use crate::id::{Id as _, SourceId};
use crate::smart::FhirBaseUrl;

/// `GET /connections`
pub fn list(api: &Api, request: &ApiRequest) -> Result<Answer, Problem> {
    let limit = request.query.page_size("limit", 10)?;
    let words = request.query.get("q").unwrap_or_default();
    let kind = request.query.get("type").unwrap_or_default();
    let workspace = request.caller.workspace.to_bytes();
    let scope: [&[u8]; 4] = [b"sources", &workspace, words.as_bytes(), kind.as_bytes()];
    let vault = api.store.vault();
    let after: Option<SourceId> = read_cursor(vault, &scope, request.query.get("starting_after"))?;
    let environment = request.caller.environment;
    let fits = |vendor: &str| kind.is_empty() || wire_vendor(vendor) == Some(kind);
    let mut rest = api.directory.catalogue(environment, words, &fits);
    if let Some(after) = after {
        match rest.iter().position(|id| *id == after) {
            Some(place) => drop(rest.drain(..=place)),
            // Gone meanwhile. Without words the end of the list is in the order of ids, and goes on behind its place.
            None if words.trim().is_empty() => rest.retain(|id| *id < after),
            None => rest.clear(),
        }
    }
    let more = rest.len() > limit;
    rest.truncate(limit);
    let next = rest.last().filter(|_| more).map(|last| cursor_after(vault, &scope, *last));
    let sources = rest.iter().filter_map(|id| api.directory.source_in(environment, *id));
    Ok(ok(&ListPage::new(sources.map(|source| WireSource::from(&*source)).collect(), next)))
}

/// `GET /connections/{id}`: a source's id, or its base URL as one encoded segment.
pub fn retrieve(api: &Api, request: &ApiRequest, id: &str) -> Result<Answer, Problem> {
    let source =
        find(api, request.caller.environment, id).ok_or_else(|| Problem::not_found("This connection"))?;
    Ok(object(request, &WireSource::from(&*source)))
}

/// A source by what the wire accepts for one: its id or its base URL.
pub fn find(api: &Api, environment: Environment, text: &str) -> Option<Arc<Source>> {
    match SourceId::parse(text) {
        Ok(id) => api.directory.source_in(environment, id),
        Err(_) => api.directory.source_at(environment, &FhirBaseUrl::parse(text).ok()?),
    }
}
