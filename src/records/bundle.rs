//! Taking a search result apart without touching the text of its resources.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A resource on its way to the store: what it is, and its own text.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// `resourceType`
    pub resource_type: String,
    /// `id`
    pub id: String,
    /// The resource as it came.
    pub json: Box<RawValue>,
    /// It came along with a match (`search.mode` = `include`), and is not counted as one.
    pub companion: bool,
    /// Whose record it says it belongs to: the id of the Patient that `subject`, `patient` or `beneficiary` names.
    pub owner: Option<String>,
}

/// One page of a search.
#[derive(Debug, Default)]
pub struct SearchPage {
    /// What is to be stored.
    pub resources: Vec<Incoming>,
    /// The address of the next page, as it came.
    pub next: Option<String>,
    /// Entries that say that something was held back (`suppressed`), or that were no usable resource.
    pub withheld: usize,
    /// Entries that could not be read.
    pub unreadable: usize,
}

/// Why an answer is not a page or a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotFhir {
    /// Not JSON, or cut off.
    #[error("the answer is not complete JSON")]
    NotJson,
    /// JSON of another kind.
    #[error("the answer is not the FHIR resource that was asked for")]
    OtherResource,
}

#[derive(Deserialize)]
struct Bundle<'b> {
    #[serde(rename = "resourceType")]
    resource_type: String,
    #[serde(default)]
    link: Option<Vec<Link>>,
    #[serde(borrow, default)]
    entry: Option<Vec<&'b RawValue>>,
}

#[derive(Deserialize)]
struct Link {
    relation: Option<String>,
    url: Option<String>,
}

#[derive(Deserialize)]
struct Entry<'b> {
    #[serde(borrow)]
    resource: Option<&'b RawValue>,
    search: Option<Search>,
}

#[derive(Deserialize)]
struct Search {
    mode: Option<String>,
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "resourceType")]
    resource_type: Option<String>,
    id: Option<String>,
}

/// Reads a search result. `total` is ignored: servers disagree about what it counts.
pub fn read_page(body: &[u8]) -> Result<SearchPage, NotFhir> {
    let bundle: Bundle<'_> = serde_json::from_slice(body).map_err(|error| kind_of(&error))?;
    if bundle.resource_type != "Bundle" {
        return Err(NotFhir::OtherResource);
    }
    let mut page = SearchPage::default();
    for entry in bundle.entry.unwrap_or_default() {
        // One bad record must not cost the others of its page.
        let Ok(entry) = serde_json::from_str::<Entry<'_>>(entry.get()) else {
            page.unreadable += 1;
            continue;
        };
        let mode = entry.search.and_then(|search| search.mode);
        let Some(resource) = entry.resource else { continue };
        match read_head(resource) {
            Some((kind, _)) if kind == "OperationOutcome" => page.withheld += 1,
            _ if mode.as_deref() == Some("outcome") => page.withheld += 1,
            Some((resource_type, id)) => page.resources.push(Incoming {
                resource_type,
                id,
                json: resource.to_owned(),
                companion: mode.as_deref() == Some("include"),
                owner: read_owner(resource),
            }),
            None => page.unreadable += 1,
        }
    }
    let links = bundle.link.unwrap_or_default().into_iter();
    page.next = links.filter(|link| link.relation.as_deref() == Some("next")).find_map(|link| link.url);
    Ok(page)
}

/// Reads one resource of the wanted type.
pub fn read_resource(body: &[u8], wanted: &str) -> Result<Incoming, NotFhir> {
    let json: &RawValue = serde_json::from_slice(body).map_err(|_| NotFhir::NotJson)?;
    match read_head(json) {
        Some((resource_type, id)) if resource_type == wanted => {
            let owner = Some(id.clone()).filter(|_| resource_type == "Patient").or_else(|| read_owner(json));
            Ok(Incoming { resource_type, id, json: json.to_owned(), companion: false, owner })
        }
        _ => Err(NotFhir::OtherResource),
    }
}

fn read_head(resource: &RawValue) -> Option<(String, String)> {
    let head: Head = serde_json::from_str(resource.get()).ok()?;
    let resource_type = head.resource_type.filter(|kind| is_name(kind, 64))?;
    let id = match (resource_type.as_str(), head.id) {
        ("OperationOutcome", id) => id.unwrap_or_default(),
        (_, id) => id.filter(|id| !id.is_empty() && id.len() <= 256)?,
    };
    Some((resource_type, id))
}

/// The Patient that a resource names as its own, when it names one of this server. A Patient is its own.
fn read_owner(resource: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Names<'n> {
        #[serde(rename = "resourceType")]
        resource_type: Option<String>,
        id: Option<String>,
        #[serde(borrow)]
        subject: Option<&'n RawValue>,
        #[serde(borrow)]
        patient: Option<&'n RawValue>,
        #[serde(borrow)]
        beneficiary: Option<&'n RawValue>,
    }
    #[derive(Deserialize)]
    struct Reference {
        reference: Option<String>,
    }
    let names: Names<'_> = serde_json::from_str(resource.get()).ok()?;
    if names.resource_type.as_deref() == Some("Patient") {
        return names.id;
    }
    let mut references = [names.subject, names.patient, names.beneficiary].into_iter().flatten();
    references.find_map(|value| {
        let reference = serde_json::from_str::<Reference>(value.get()).ok()?.reference?;
        let path = reference.split(['?', '#']).next()?.split("/_history").next()?.to_owned();
        let (rest, id) = path.rsplit_once('/')?;
        (rest == "Patient" || rest.ends_with("/Patient")).then(|| id.to_owned())
    })
}

fn is_name(text: &str, most: usize) -> bool {
    !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn kind_of(error: &serde_json::Error) -> NotFhir {
    if error.is_data() { NotFhir::OtherResource } else { NotFhir::NotJson }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_the_text_of_its_resources_and_loses_what_is_none() {
        let body = br#"{"resourceType":"Bundle","total":9,"link":[{"relation":"self","url":"a"},{"relation":"next","url":"b?x=%3D%3D"}],
            "entry":[{"resource":{"resourceType":"Observation","id":"L-1","valueQuantity":{"value":1.10}},"search":{"mode":"match"}},
            {"resource":{"resourceType":"Provenance","id":"9"},"search":{"mode":"include"}},
            {"resource":{"resourceType":"OperationOutcome"},"search":{"mode":"outcome"}},
            {"resource":{"resourceType":"Observation"}},{"resource":7},{}]}"#;
        let page = read_page(body).expect("a page");
        let kinds: Vec<_> = page.resources.iter().map(|it| (it.id.as_str(), it.companion)).collect();
        assert_eq!(kinds, [("L-1", false), ("9", true)]);
        assert!(page.resources[0].json.get().contains("1.10"));
        assert_eq!((page.next.as_deref(), page.withheld, page.unreadable), (Some("b?x=%3D%3D"), 1, 2));
    }

    #[test]
    fn what_is_no_bundle_is_told_apart() {
        let check =
            |body: &[u8], expected| assert_eq!(read_page(body).map(|_| ()).expect_err("refused"), expected);
        check(b"<html>", NotFhir::NotJson);
        check(b"", NotFhir::NotJson);
        check(br#"{"resourceType":"Bundle","entry":[{"#, NotFhir::NotJson);
        check(br#"{"resourceType":"OperationOutcome"}"#, NotFhir::OtherResource);
        check(b"[]", NotFhir::OtherResource);
        assert!(read_page(br#"{"resourceType":"Bundle"}"#).is_ok_and(|page| page.resources.is_empty()));
    }
}
