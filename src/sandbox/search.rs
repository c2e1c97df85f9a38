//! Which searches this server takes, type by type, in the habits of Oracle Health's patient host: required parameters,
//! page sizes, and 400 for everything that leaves nothing valid.

use serde_json::{Value, json};

use super::population::Resource;
use super::web::Form;
use crate::clock::Timestamp;

/// Parameters that a type takes besides `_id`, `patient` and `_count`.
struct Rules {
    resource_type: &'static str,
    parameters: &'static [&'static str],
    /// Must come along with `patient`.
    required: Option<&'static str>,
    /// Entries on a page without `_count`, and the most with it; `None` for one bundle with everything.
    page: Option<(usize, usize)>,
}

const fn rules(
    resource_type: &'static str,
    parameters: &'static [&'static str],
    required: Option<&'static str>,
    page: Option<(usize, usize)>,
) -> Rules {
    Rules { resource_type, parameters, required, page }
}

const RULES: [Rules; 17] = [
    rules("AllergyIntolerance", &["clinical-status", "_lastUpdated"], None, None),
    rules("CarePlan", &["category", "date"], Some("category"), None),
    rules("CareTeam", &["status", "category", "encounter"], None, None),
    rules("Condition", &["category", "clinical-status", "encounter", "subject", "_lastUpdated"], None, None),
    rules("Coverage", &[], None, None),
    rules("Device", &[], None, None),
    rules(
        "DiagnosticReport",
        &["category", "code", "date", "encounter", "_lastUpdated"],
        None,
        Some((10, 100)),
    ),
    rules(
        "DocumentReference",
        &["category", "type", "encounter", "date", "period", "_lastUpdated"],
        None,
        Some((10, 100)),
    ),
    rules("Encounter", &["date", "status", "subject", "_lastUpdated"], None, Some((10, 100))),
    rules("Goal", &["target-date"], None, None),
    rules("Immunization", &["date", "target-disease", "_lastUpdated"], None, None),
    rules(
        "MedicationRequest",
        &["intent", "status", "_lastUpdated", "-timing-boundsPeriod"],
        None,
        Some((25, 100)),
    ),
    rules("Observation", &["category", "code", "date", "subject", "_lastUpdated"], None, Some((50, 200))),
    rules("Patient", &["identifier", "name", "family", "given", "birthdate"], None, None),
    rules("Procedure", &["date", "subject", "_lastUpdated"], None, None),
    rules("RelatedPerson", &["-relationship-level", "-encounter"], Some("-relationship-level"), None),
    rules(
        "ServiceRequest",
        &["category", "code", "authored", "subject", "_lastUpdated"],
        None,
        Some((50, 100)),
    ),
];

/// A search that can be carried out.
pub(super) struct Search {
    pub patient: Option<String>,
    id: Option<String>,
    categories: Vec<String>,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    /// Entries of one page; `None` for all.
    pub page: Option<usize>,
    /// Ask for the Provenance of each match too.
    pub with_provenance: bool,
}

/// Reads the parameters of a search; the error is the text of the OperationOutcome.
pub(super) fn read(resource_type: &str, query: &Form) -> Result<Search, String> {
    let Some(rules) = RULES.iter().find(|rules| rules.resource_type == resource_type) else {
        return Err(format!("{resource_type} cannot be searched"));
    };
    let common = ["_id", "patient", "_count", "_revinclude", "_format"];
    for (name, _) in query.pairs() {
        if !common.contains(&name) && !rules.parameters.contains(&name) {
            return Err(format!(
                "The parameter {name} is not supported. Acceptable: {}",
                rules.parameters.join(", ")
            ));
        }
    }
    let id = query.one("_id").map(str::to_owned);
    let patient = query.one("patient").or_else(|| query.one("subject"));
    let patient = patient.map(|text| text.strip_prefix("Patient/").unwrap_or(text).to_owned());
    if id.is_some() && patient.is_some() {
        return Err("_id stands alone".to_owned());
    }
    if id.is_none() && patient.is_none() {
        return Err("One of patient or _id is required".to_owned());
    }
    if let Some(required) = rules.required.filter(|required| id.is_none() && query.one(required).is_none()) {
        return Err(format!("{required} is required with patient"));
    }
    let mut search = Search {
        patient,
        id,
        categories: query
            .one("category")
            .map(|text| text.split(',').map(|one| one.rsplit('|').next().unwrap_or(one).to_owned()).collect())
            .unwrap_or_default(),
        from: None,
        until: None,
        page: rules.page.map(|(usual, _)| usual),
        with_provenance: query.one("_revinclude") == Some("Provenance:target"),
    };
    if let (Some((_, most)), Some(count)) = (rules.page, query.one("_count")) {
        let count: usize = count.parse().map_err(|_| "_count must be a number".to_owned())?;
        search.page = Some(count.clamp(1, most));
    }
    read_last_updated(query, &mut search)?;
    Ok(search)
}

/// One value is refused, two must form a closed range: so the live statement says.
fn read_last_updated(query: &Form, search: &mut Search) -> Result<(), String> {
    let values: Vec<&str> = query.all("_lastUpdated").collect();
    if values.is_empty() {
        return Ok(());
    }
    for value in &values {
        let (prefix, time) = value.split_at_checked(2).unwrap_or(("", value));
        let time = Timestamp::parse(time).ok_or("_lastUpdated must be a prefix and an instant")?;
        match prefix {
            "ge" | "gt" => search.from = Some(time),
            "le" | "lt" => search.until = Some(time),
            _ => return Err("_lastUpdated must begin with ge, gt, le or lt".to_owned()),
        }
    }
    if search.from.is_none() || search.until.is_none() {
        return Err("_lastUpdated must be a closed range".to_owned());
    }
    Ok(())
}

impl Search {
    /// Whether a resource is found.
    pub(super) fn finds(&self, resource: &Resource) -> bool {
        self.id.as_ref().is_none_or(|id| *id == resource.id)
            && (self.categories.is_empty()
                || self.categories.iter().any(|wanted| resource.category_codes.contains(wanted)))
            && self.from.is_none_or(|from| resource.last_updated >= from)
            && self.until.is_none_or(|until| resource.last_updated <= until)
    }
}

/// The `rest.resource` rows of the CapabilityStatement.
pub(super) fn capability_resources() -> Vec<Value> {
    let row = |rules: &Rules| {
        let names = ["_id", "patient"].iter().chain(rules.parameters);
        let parameters: Vec<Value> = names.map(|name| json!({"name": name, "type": "token"})).collect();
        json!({
            "type": rules.resource_type,
            "interaction": [{"code": "read"}, {"code": "search-type"}],
            "searchParam": parameters,
        })
    };
    RULES.iter().map(row).collect()
}
