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
    /// When it was, as far as its own date says: `2026`, `2026-11` or `2026-11-02`.
    pub date: Option<String>,
}

/// One page of a search.
#[derive(Debug, Default)]
pub struct SearchPage {
    /// What is to be stored.
    pub resources: Vec<Incoming>,
    /// The address of the next page, as it came.
    pub next: Option<String>,
    /// Entries that say that something was held back (`suppressed`), or that are outcomes and no OperationOutcome.
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
struct Bundle<E> {
    #[serde(rename = "resourceType")]
    resource_type: String,
    #[serde(default = "none")]
    link: Option<Vec<Link>>,
    #[serde(default = "none")]
    entry: Option<Vec<E>>,
}

fn none<T>() -> Option<T> {
    None
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

/// Reads a search result. `total` is ignored: servers disagree about what it counts.
pub fn read_page(body: &[u8]) -> Result<SearchPage, NotFhir> {
    let mut page = SearchPage::default();
    // Pages are large, so their text is read once; an entry that is none costs another reading, not the others of its page.
    let bundle = match serde_json::from_slice::<Bundle<Entry<'_>>>(body) {
        Ok(bundle) => bundle,
        Err(error) if error.is_data() => apart(body, &mut page)?,
        Err(_) => return Err(NotFhir::NotJson),
    };
    if bundle.resource_type != "Bundle" {
        return Err(NotFhir::OtherResource);
    }
    for entry in bundle.entry.unwrap_or_default() {
        let mode = entry.search.and_then(|search| search.mode);
        let Some(resource) = entry.resource else { continue };
        match Incoming::read(resource) {
            Some(incoming) if incoming.resource_type == "OperationOutcome" => {
                page.withheld += usize::from(is_withholding(resource.get()));
            }
            _ if mode.as_deref() == Some("outcome") => page.withheld += 1,
            Some(incoming) => {
                page.resources.push(Incoming { companion: mode.as_deref() == Some("include"), ..incoming });
            }
            None => page.unreadable += 1,
        }
    }
    let links = bundle.link.unwrap_or_default().into_iter();
    page.next = links.filter(|link| link.relation.as_deref() == Some("next")).find_map(|link| link.url);
    Ok(page)
}

/// Whether an OperationOutcome among results says that some are not there, or may not be. Epic puts one beside most answers:
/// that nothing was found (4101), or what the user may see (4119). One that says nothing at all is taken for the worse.
fn is_withholding(outcome: &str) -> bool {
    #[derive(Deserialize)]
    struct Outcome {
        #[serde(default)]
        issue: Vec<Issue>,
    }
    #[derive(Deserialize)]
    struct Issue {
        severity: Option<String>,
        code: Option<String>,
    }
    /// Of <http://hl7.org/fhir/R4/valueset-issue-type.html>: what a mere warning of these means is missing results.
    const MISSING: [&str; 8] = [
        "suppressed",
        "incomplete",
        "security",
        "forbidden",
        "too-costly",
        "throttled",
        "timeout",
        "exception",
    ];
    let Ok(outcome) = serde_json::from_str::<Outcome>(outcome) else { return true };
    let withholds = |issue: &Issue| {
        let mild = matches!(issue.severity.as_deref(), Some("warning" | "information"));
        !mild || issue.code.as_deref().is_none_or(|code| MISSING.contains(&code))
    };
    outcome.issue.is_empty() || outcome.issue.iter().any(withholds)
}

/// The same bundle entry by entry; what is no entry is counted.
fn apart<'b>(body: &'b [u8], page: &mut SearchPage) -> Result<Bundle<Entry<'b>>, NotFhir> {
    let bundle: Bundle<&'b RawValue> = serde_json::from_slice(body).map_err(|error| kind_of(&error))?;
    let mut entries = Vec::new();
    for entry in bundle.entry.unwrap_or_default() {
        match serde_json::from_str(entry.get()) {
            Ok(entry) => entries.push(entry),
            Err(_) => page.unreadable += 1,
        }
    }
    Ok(Bundle { resource_type: bundle.resource_type, link: bundle.link, entry: Some(entries) })
}

/// Reads one resource of the wanted type.
pub fn read_resource(body: &[u8], wanted: &str) -> Result<Incoming, NotFhir> {
    let json: &RawValue = serde_json::from_slice(body).map_err(|_| NotFhir::NotJson)?;
    match Incoming::read(json) {
        Some(incoming) if incoming.resource_type == wanted => Ok(incoming),
        _ => Err(NotFhir::OtherResource),
    }
}

/// What is looked at in a resource, all in one reading of its text. Whatever may have an odd form stays text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'r> {
    resource_type: Option<String>,
    id: Option<String>,
    #[serde(borrow)]
    subject: Option<&'r RawValue>,
    #[serde(borrow)]
    patient: Option<&'r RawValue>,
    #[serde(borrow)]
    beneficiary: Option<&'r RawValue>,
    #[serde(borrow)]
    recorded_date: Option<&'r RawValue>,
    #[serde(borrow)]
    onset_date_time: Option<&'r RawValue>,
    #[serde(borrow)]
    effective_date_time: Option<&'r RawValue>,
    #[serde(borrow)]
    effective_period: Option<&'r RawValue>,
    #[serde(borrow)]
    occurrence_date_time: Option<&'r RawValue>,
    #[serde(borrow)]
    performed_date_time: Option<&'r RawValue>,
    #[serde(borrow)]
    performed_period: Option<&'r RawValue>,
    #[serde(borrow)]
    authored_on: Option<&'r RawValue>,
    #[serde(borrow)]
    date: Option<&'r RawValue>,
    #[serde(borrow)]
    start_date: Option<&'r RawValue>,
    #[serde(borrow)]
    status_date: Option<&'r RawValue>,
    #[serde(borrow)]
    period: Option<&'r RawValue>,
    #[serde(borrow)]
    created: Option<&'r RawValue>,
    #[serde(borrow)]
    issued: Option<&'r RawValue>,
}

impl Incoming {
    /// Takes a resource's own words for what it is. `None` when it does not say it.
    pub fn read(resource: &RawValue) -> Option<Self> {
        let head: Head<'_> = serde_json::from_str(resource.get()).ok()?;
        let (owner, date) = (head.owner(), head.date());
        let resource_type = head.resource_type.filter(|kind| is_name(kind, 64))?;
        let id = match (resource_type.as_str(), head.id) {
            ("OperationOutcome", id) => id.unwrap_or_default(),
            (_, id) => id.filter(|id| !id.is_empty() && id.len() <= 256)?,
        };
        Some(Self { resource_type, id, json: resource.to_owned(), companion: false, owner, date })
    }
}

impl Head<'_> {
    /// The Patient that the resource names as its own, when it names one of this server. A Patient is its own.
    fn owner(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Reference {
            reference: Option<String>,
        }
        if self.resource_type.as_deref() == Some("Patient") {
            return self.id.clone();
        }
        let mut references = [self.subject, self.patient, self.beneficiary].into_iter().flatten();
        references.find_map(|value| {
            let reference = serde_json::from_str::<Reference>(value.get()).ok()?.reference?;
            let path = reference.split(['?', '#']).next()?.split("/_history").next()?.to_owned();
            let (rest, id) = path.rsplit_once('/')?;
            (rest == "Patient" || rest.ends_with("/Patient")).then(|| id.to_owned())
        })
    }

    /// The first date that is there, in the order in which they say when something was.
    fn date(&self) -> Option<String> {
        let places = [
            self.recorded_date,
            self.onset_date_time,
            self.effective_date_time,
            self.effective_period,
            self.occurrence_date_time,
            self.performed_date_time,
            self.performed_period,
            self.authored_on,
            self.date,
            self.start_date,
            self.status_date,
            self.period,
            self.created,
            self.issued,
        ];
        places.into_iter().flatten().find_map(day)
    }
}

/// The day of a FHIR date, or of the start of a period; less than a day when the text says less.
fn day(value: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Period {
        start: Option<String>,
    }
    let text = value.get();
    let text = if text.starts_with('{') {
        serde_json::from_str::<Period>(text).ok()?.start?
    } else {
        text.strip_prefix('"')?.strip_suffix('"')?.to_owned()
    };
    let day = text.get(..text.len().min(10))?;
    let parts: Vec<&str> = day.split('-').collect();
    let plain = parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    (plain && parts[0].len() == 4 && matches!(day.len(), 4 | 7 | 10)).then(|| day.to_owned())
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
    fn a_remark_beside_the_results_is_not_taken_for_missing_ones() {
        let check = |issues: &str, expected: usize| {
            let body = format!(
                r#"{{"resourceType":"Bundle","entry":[{{"search":{{"mode":"outcome"}},
                "resource":{{"resourceType":"OperationOutcome","issue":{issues}}}}}]}}"#
            );
            let page = read_page(body.as_bytes()).expect("a page");
            assert_eq!((page.withheld, page.resources.len()), (expected, 0), "{issues}");
        };
        let nothing_found =
            r#"[{"severity":"warning","code":"not-found","details":{"coding":[{"code":"4101"}]}}]"#;
        check(nothing_found, 0);
        check(
            r#"[{"severity":"information","code":"informational"},{"severity":"warning","code":"processing"}]"#,
            0,
        );
        check(r#"[{"severity":"warning","code":"suppressed"}]"#, 1);
        check(
            r#"[{"severity":"information","code":"informational"},{"severity":"warning","code":"incomplete"}]"#,
            1,
        );
        check(r#"[{"severity":"error","code":"processing"}]"#, 1);
        check(r#"[{"severity":"warning"}]"#, 1);
        check("[]", 1);
    }

    #[test]
    fn a_resource_says_whose_it_is_and_when_it_was() {
        let check = |json: &str, owner: Option<&str>, date: Option<&str>| {
            let raw: &RawValue = serde_json::from_str(json).expect("json");
            let read = Incoming::read(raw).expect("a resource");
            assert_eq!((read.owner.as_deref(), read.date.as_deref()), (owner, date), "{json}");
        };
        check(r#"{"resourceType":"Patient","id":"p","birthDate":"1990-01-01"}"#, Some("p"), None);
        check(
            r#"{"resourceType":"Goal","id":"1","subject":{"reference":"https://ehr.example/r4/Patient/p/_history/2"},"startDate":"2026"}"#,
            Some("p"),
            Some("2026"),
        );
        check(
            r#"{"resourceType":"Encounter","id":"1","period":{"start":"2026-11-02T08:00:00Z"}}"#,
            None,
            Some("2026-11-02"),
        );
        check(r#"{"resourceType":"Encounter","id":"1","period":7,"subject":[],"issued":"soon"}"#, None, None);
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
