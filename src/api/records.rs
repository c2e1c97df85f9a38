//! A patient's records.

use crate::api::wire::{WireRecord, WireRecords};
use crate::api::{Api, ApiRequest, ok, patients};
use crate::clock::Timestamp;
use crate::events::{AccessEntry, Interaction, Place, Subject};
use crate::http::{Answer, Problem, ProblemKind};
use crate::records::{CursorError, PageQuery, Position};
use crate::workspaces::{Caller, Patient, ResourceType};

/// `GET /patients/{id}/records`: its page size is `count`, and it has cursors both ways.
pub async fn page(api: &Api, request: &ApiRequest, id: &str) -> Result<Answer, Problem> {
    let query = &request.query;
    let count = query.page_size("count", 100)?;
    let types = allowed(&request.caller, types(query.get("type"))?)?;
    let since = since(query.get("since"))?;
    let (param, position) = match (query.get("starting_after"), query.get("ending_before")) {
        (Some(_), Some(_)) => {
            return Err(Problem::invalid(
                "ending_before",
                "`starting_after` and `ending_before` exclude each other.",
            ));
        }
        (Some(cursor), None) => ("starting_after", Position::After(cursor.to_owned())),
        (None, Some(cursor)) => ("ending_before", Position::Before(cursor.to_owned())),
        (None, None) => ("starting_after", Position::First),
    };
    let patient = patients::known(api, request, id).await?;
    let place = api.accesses.place().await?;
    let kind = kind(&types);
    let found = api.records.page(&patient, PageQuery { types, since, position, count }).await;
    let page = found.map_err(|error| match error {
        CursorError::Unknown => Problem::invalid(
            param,
            format!("`{param}` is no cursor of this list, is older than seven days, or was given with other filters."),
        ),
        CursorError::Store(error) => error.into(),
    })?;
    note(api, request, &patient, Interaction::Page, kind, place);
    let data = page.records.into_iter().map(|record| WireRecord {
        source: record.source.map(|source| source.to_string()),
        resource: record.resource,
    });
    Ok(ok(&WireRecords::new(patient.patient_id, data.collect(), page.next, page.previous)))
}

/// Types as the record of accesses has them.
pub fn kind(types: &[String]) -> String {
    if types.is_empty() { "*".to_owned() } else { types.join(",") }
}

/// Records that what is kept of a patient is handed out.
pub fn note(
    api: &Api,
    request: &ApiRequest,
    patient: &Patient,
    interaction: Interaction,
    kind: String,
    place: Place,
) {
    place.note(AccessEntry {
        at: api.clock.now(),
        key: request.caller.key,
        workspace: request.caller.workspace,
        subject: Subject::Patient(patient.key),
        interaction,
        kind: kind.into(),
        status: 200,
    });
}

/// A date, or a date and time with its offset.
pub fn since(text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let wrong =
        || Problem::invalid("since", "`since` must be a date or a date-time, such as 2026-11-02T08:00:00Z.");
    Timestamp::parse(text).map(Some).ok_or_else(wrong)
}

/// What a key for some types only gets to see: what it asks for, if it may, and without a question all it may.
pub fn allowed(caller: &Caller, asked: Vec<String>) -> Result<Vec<String>, Problem> {
    let may = |name: &String| ResourceType::parse(name).is_some_and(|one| caller.fhir_types.include(one));
    let refuse = |message: &str| Err(Problem::new(ProblemKind::InsufficientScope, message));
    if caller.fhir_types.is_all() {
        return Ok(asked);
    }
    if !asked.iter().all(may) {
        return refuse("This API key may read some resource types only, and `type` names another one.");
    }
    if !asked.is_empty() {
        return Ok(asked);
    }
    let mut all: Vec<String> = ResourceType::all().map(|one| one.name().to_owned()).collect();
    all.retain(may);
    // An empty list would mean all types.
    if all.is_empty() { refuse("This API key may read no resource type.") } else { Ok(all) }
}

/// Comma-separated FHIR resource types, in one order, so that the same list spelled differently is the same filter.
pub fn types(text: Option<&str>) -> Result<Vec<String>, Problem> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let mut types: Vec<String> = text.split(',').map(str::trim).map(str::to_owned).collect();
    let good = |name: &String| {
        name.starts_with(|first: char| first.is_ascii_uppercase())
            && name.len() <= 64
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if !types.iter().all(good) {
        return Err(Problem::invalid(
            "type",
            "`type` must be FHIR resource types, such as Observation,Condition.",
        ));
    }
    types.sort();
    types.dedup();
    Ok(types)
}
