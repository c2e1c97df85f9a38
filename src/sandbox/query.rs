//! FHIR search rules of Oracle Health's patient persona: which parameters each type needs and knows, their limits, and
//! which resources they let through.

use serde_json::{Value, json};

use super::personality::Traits;
use super::population::Resource;
use super::scope::SEARCHABLE;
use super::web::Form;
use crate::clock::Timestamp;

/// What one resource type's search knows.
struct Rules {
    /// Search parameters beside `_id`, `patient` and `_revinclude`.
    parameters: &'static [&'static str],
    /// Default and largest `_count`; `None`: everything in one bundle.
    pages: Option<(usize, usize)>,
}

/// Page sizes and parameters as documented and captured; what has no number there got a plausible one.
fn rules(resource_type: &str) -> Rules {
    let (parameters, pages): (&'static [&'static str], _) = match resource_type {
        "AllergyIntolerance" => (&["clinical-status", "_lastUpdated"], None),
        "CarePlan" => (&["category", "date", "_count"], Some((50, 100))),
        "CareTeam" => (&["category", "status", "encounter"], None),
        "Condition" => (&["subject", "category", "clinical-status", "encounter", "_lastUpdated"], None),
        "DiagnosticReport" => {
            (&["category", "code", "date", "encounter", "_lastUpdated", "_count"], Some((10, 100)))
        }
        "DocumentReference" => {
            (&["category", "type", "date", "period", "encounter", "_lastUpdated", "_count"], Some((10, 100)))
        }
        "Encounter" => (&["subject", "status", "date", "_lastUpdated", "_count"], Some((10, 100))),
        "Goal" => (&["target-date"], None),
        "Immunization" => (&["date", "_lastUpdated"], None),
        "MedicationRequest" => (&["intent", "status", "_lastUpdated", "_count"], Some((25, 100))),
        "Observation" => {
            (&["subject", "category", "code", "date", "_lastUpdated", "_count"], Some((50, 200)))
        }
        "Patient" => {
            (&["identifier", "name", "family", "given", "birthdate", "gender", "_count"], Some((20, 100)))
        }
        "Procedure" => (&["subject", "date", "_lastUpdated"], None),
        "Provenance" => (&["target"], None),
        "RelatedPerson" => (&["-relationship-level"], None),
        "ServiceRequest" => (&["subject", "code", "_lastUpdated", "_count"], Some((50, 100))),
        // Coverage, Device and the types without a search of their own.
        _ => (&[], None),
    };
    Rules { parameters, pages }
}

/// The `rest.resource` part of the CapabilityStatement.
pub(super) fn capability_resources() -> Vec<Value> {
    SEARCHABLE
        .iter()
        .chain(&["Provenance"])
        .map(|resource_type| {
            let known = ["_id", "patient"].into_iter().chain(rules(resource_type).parameters.iter().copied());
            let parameters: Vec<Value> = known
                .filter(|name| !(matches!(*resource_type, "Patient" | "Provenance") && *name == "patient"))
                .map(|name| json!({"name": name}))
                .collect();
            let mut resource = json!({
                "type": resource_type,
                "interaction": [{"code": "read"}, {"code": "search-type"}],
                "searchParam": parameters,
            });
            if *resource_type != "Provenance" {
                resource["searchRevInclude"] = json!(["Provenance:target"]);
            }
            resource
        })
        .collect()
}

/// A search that was found valid.
pub(super) struct Query<'q> {
    form: &'q Form,
    id: Option<&'q str>,
    updated: Vec<Bound>,
    dates: Vec<Bound>,
    pub page_size: usize,
    pub with_provenance: bool,
}

/// One side of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bound {
    prefix: Prefix,
    at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    None,
    Ge,
    Gt,
    Le,
    Lt,
}

impl Bound {
    fn parse(text: &str) -> Option<Self> {
        let (prefix, rest) = match text.get(..2) {
            Some("ge") => (Prefix::Ge, &text[2..]),
            Some("gt") => (Prefix::Gt, &text[2..]),
            Some("le") => (Prefix::Le, &text[2..]),
            Some("lt") => (Prefix::Lt, &text[2..]),
            _ => (Prefix::None, text),
        };
        Some(Self { prefix, at: Timestamp::parse(rest)? })
    }

    fn is_lower(self) -> bool {
        matches!(self.prefix, Prefix::Ge | Prefix::Gt)
    }

    fn is_upper(self) -> bool {
        matches!(self.prefix, Prefix::Le | Prefix::Lt)
    }

    fn admits(self, time: Timestamp) -> bool {
        match self.prefix {
            // A bare value means its whole day.
            Prefix::None => time.seconds().div_euclid(86_400) == self.at.seconds().div_euclid(86_400),
            Prefix::Ge => time >= self.at,
            Prefix::Gt => time > self.at,
            Prefix::Le => time <= self.at,
            Prefix::Lt => time < self.at,
        }
    }
}

/// Why a search is refused.
pub(super) enum Rejected {
    Text(String),
    OtherPatient,
}

impl From<&str> for Rejected {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Checks the parameters of a search of one type, made with a token for `patient`.
pub(super) fn check<'q>(
    resource_type: &str,
    form: &'q Form,
    patient: &str,
    traits: &Traits,
) -> Result<Query<'q>, Rejected> {
    let rules = rules(resource_type);
    for (name, _) in form.pairs() {
        if !traits.strict_searches {
            break;
        }
        let common = match name {
            "_id" => true,
            "patient" => !matches!(resource_type, "Patient" | "Provenance"),
            "_revinclude" => resource_type != "Provenance",
            _ => false,
        };
        if !common && !rules.parameters.contains(&name) {
            let known = rules.parameters.join(", ");
            let text =
                format!("`{name}` is not supported; acceptable are _id, patient, _revinclude, {known}");
            return Err(Rejected::Text(text));
        }
        let ranged = matches!(name, "_lastUpdated" | "date" | "period" | "target-date");
        if form.all(name).count() > if ranged { 2 } else { 1 } {
            return Err(Rejected::Text(format!("`{name}` may not be repeated")));
        }
    }
    let id = form.one("_id");
    if id.is_some() && form.pairs().any(|(name, _)| !matches!(name, "_id" | "_revinclude" | "_count")) {
        return Err("_id stands alone".into());
    }
    let own = traits.finds_own_patient && resource_type == "Patient";
    if id.is_none() && !own {
        check_required(resource_type, form, patient, traits)?;
    }
    let with_provenance = match form.one("_revinclude") {
        None => false,
        Some("Provenance:target") => true,
        Some(_) => return Err("_revinclude supports Provenance:target only".into()),
    };
    let count = match form.one("_count") {
        None => None,
        Some(text) => Some(text.parse::<usize>().ok().filter(|n| *n > 0).ok_or("_count is not a number")?),
    };
    let page_size = match (rules.pages, id) {
        (Some((default, most)), None) => count.unwrap_or(default).min(most),
        (_, Some(_)) | (None, None) => usize::MAX,
    };
    if form.one("date").is_some() && form.one("_lastUpdated").is_some() {
        return Err("date and _lastUpdated exclude each other".into());
    }
    let updated = bounds(form, "_lastUpdated")?;
    check_last_updated(resource_type, form, &updated)?;
    let mut dates = bounds(form, "date")?;
    dates.extend(bounds(form, "period")?);
    if resource_type == "CarePlan" && !dates.is_empty() && !is_closed(&dates) {
        return Err("date must be a closed range of ge and le".into());
    }
    Ok(Query { form, id, updated, dates, page_size, with_provenance })
}

/// The parameters without which a type's search is refused.
fn check_required(resource_type: &str, form: &Form, patient: &str, traits: &Traits) -> Result<(), Rejected> {
    if resource_type == "Patient" {
        let enough = ["identifier", "name", "family", "given", "birthdate"];
        return if enough.iter().any(|name| form.one(name).is_some()) {
            Ok(())
        } else {
            Err("at least one of _id, identifier, name, family, given, birthdate, phone, email, \
                 address-postalcode, or -pageContext must be provided"
                .into())
        };
    }
    if resource_type == "Provenance" {
        return form.one("target").map(|_| ()).ok_or_else(|| "_id or target must be provided".into());
    }
    let beneficiary = form.one("beneficiary").filter(|_| resource_type == "Coverage");
    let named = match (form.one("patient").or(beneficiary), form.one("subject")) {
        (Some(one), None) | (None, Some(one)) => one,
        (Some(_), Some(_)) => return Err("patient and subject exclude each other".into()),
        (None, None) => return Err("at least one of _id or patient must be provided".into()),
    };
    if named.strip_prefix("Patient/").unwrap_or(named) != patient {
        return Err(Rejected::OtherPatient);
    }
    let broad = form.one("category").or(form.one("code")).is_none();
    if traits.observations_by_category && resource_type == "Observation" && broad {
        return Err("Observation needs category or code (59108)".into());
    }
    match resource_type {
        _ if !traits.strict_searches => Ok(()),
        "CarePlan" if form.one("category").is_none() => Err("category must be provided with patient".into()),
        "RelatedPerson" => match form.one("-relationship-level") {
            Some(
                "http://hl7.org/fhir/resource-types|Patient" | "http://hl7.org/fhir/resource-types|Encounter",
            ) => Ok(()),
            Some(_) => Err("-relationship-level must be Patient or Encounter with its system".into()),
            None => Err("-relationship-level must be provided with patient".into()),
        },
        _ => Ok(()),
    }
}

fn bounds(form: &Form, name: &str) -> Result<Vec<Bound>, Rejected> {
    form.all(name)
        .map(|text| Bound::parse(text).ok_or_else(|| Rejected::Text(format!("`{name}` is not a date"))))
        .collect()
}

fn is_closed(range: &[Bound]) -> bool {
    matches!(range, [one, other]
        if (one.is_lower() && other.is_upper()) || (one.is_upper() && other.is_lower()))
}

/// Oracle Health: once without a prefix, or twice as a closed range; two types want `ge` and `le` with a time.
fn check_last_updated(resource_type: &str, form: &Form, range: &[Bound]) -> Result<(), Rejected> {
    let fine = match (resource_type, range) {
        (_, []) => true,
        ("MedicationRequest" | "ServiceRequest", range) => {
            let timed = form
                .all("_lastUpdated")
                .all(|text| text.contains('T') && (text.starts_with("ge") || text.starts_with("le")));
            timed && (range.len() == 1 || is_closed(range))
        }
        ("Immunization", [one]) => one.is_lower() || one.prefix == Prefix::None,
        (_, [one]) => one.prefix == Prefix::None,
        (_, range) => is_closed(range),
    };
    if fine { Ok(()) } else { Err("_lastUpdated must be one value, or a closed range".into()) }
}

impl Query<'_> {
    /// Whether a resource is among the results.
    pub(super) fn admits(&self, resource: &Resource) -> bool {
        if self.id.is_some_and(|wanted| !wanted.split(',').any(|one| one == resource.id)) {
            return false;
        }
        if !self.updated.iter().all(|bound| bound.admits(resource.last_updated)) {
            return false;
        }
        // Oracle Health knows one category of CarePlan, so whatever a record has is filed under it.
        let category = self.form.one("category").filter(|_| resource.resource_type != "CarePlan");
        if let Some(category) = category {
            let wanted = |code: &String| category.split(',').any(|one| code_of(one) == code);
            if !resource.category_codes.iter().any(wanted) {
                return false;
            }
        }
        let names = [
            "status",
            "intent",
            "clinical-status",
            "code",
            "type",
            "encounter",
            "target",
            "identifier",
            "name",
            "family",
            "given",
            "birthdate",
            "gender",
        ];
        let filters: Vec<(&str, &str)> =
            names.iter().filter_map(|name| self.form.one(name).map(|value| (*name, value))).collect();
        if filters.is_empty() && self.dates.is_empty() {
            return true;
        }
        let json: Value = serde_json::from_str(&resource.json).unwrap_or_default();
        filters.iter().all(|(name, value)| value.split(',').any(|one| holds(&json, name, one)))
            && (self.dates.is_empty()
                || date_of(&json).is_some_and(|date| self.dates.iter().all(|bound| bound.admits(date))))
    }
}

/// The code of `system|code` or `code`.
fn code_of(token: &str) -> &str {
    token.rsplit('|').next().unwrap_or(token)
}

fn holds(json: &Value, name: &str, wanted: &str) -> bool {
    let coded = |element: &Value| {
        let codings = element["coding"].as_array();
        codings.into_iter().flatten().any(|coding| coding["code"] == code_of(wanted))
    };
    let named = |parts: &[&str]| {
        let wanted = wanted.to_lowercase();
        json["name"].as_array().into_iter().flatten().any(|name| {
            parts.iter().any(|part| {
                let text = name[*part].to_string().to_lowercase();
                text.contains(&wanted)
            })
        })
    };
    match name {
        "status" | "intent" | "gender" => json[name] == wanted,
        "birthdate" => json["birthDate"] == wanted,
        "clinical-status" => coded(&json["clinicalStatus"]),
        "code" | "type" => {
            json[name].as_array().map_or_else(|| coded(&json[name]), |list| list.iter().any(coded))
        }
        "encounter" => {
            let references = [&json["encounter"]["reference"], &json["context"]["encounter"][0]["reference"]];
            let id = wanted.strip_prefix("Encounter/").unwrap_or(wanted);
            references.iter().any(|reference| {
                reference.as_str().is_some_and(|text| last_two(text) == format!("Encounter/{id}"))
            })
        }
        "target" => {
            let list = json["target"].as_array();
            list.into_iter().flatten().any(|target| {
                target["reference"].as_str().is_some_and(|text| last_two(text) == last_two(wanted))
            })
        }
        "identifier" => {
            let list = json["identifier"].as_array();
            list.into_iter().flatten().any(|identifier| identifier["value"] == code_of(wanted))
        }
        "name" => named(&["text", "family", "given"]),
        "family" | "given" => named(&[name]),
        _ => false,
    }
}

/// The date a `date` search means, whichever element holds it.
fn date_of(json: &Value) -> Option<Timestamp> {
    let places = [
        &json["effectiveDateTime"],
        &json["effectivePeriod"]["start"],
        &json["occurrenceDateTime"],
        &json["performedDateTime"],
        &json["performedPeriod"]["start"],
        &json["period"]["start"],
        &json["date"],
        &json["context"]["period"]["start"],
        &json["created"],
        &json["issued"],
    ];
    places.into_iter().filter_map(Value::as_str).find_map(Timestamp::parse)
}

/// `Type/id` of a reference, relative or absolute.
pub(super) fn last_two(reference: &str) -> String {
    let mut parts = reference.rsplit('/');
    let id = parts.next().unwrap_or_default();
    format!("{}/{id}", parts.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Personality;

    #[track_caller]
    fn check_query(resource_type: &str, query: &str, allowed: bool) {
        let form = Form::parse(query.as_bytes());
        assert_eq!(
            check(resource_type, &form, "1", Personality::CernerPatient.traits()).is_ok(),
            allowed,
            "{resource_type}?{query}"
        );
    }

    #[test]
    fn each_type_has_its_required_parameters() {
        check_query("Observation", "patient=1", true);
        check_query("Observation", "patient=Patient/1", true);
        check_query("Observation", "subject=1", true);
        check_query("Observation", "category=laboratory", false);
        check_query("Observation", "patient=2", false);
        check_query("CarePlan", "patient=1", false);
        check_query("CarePlan", "patient=1&category=assess-plan", true);
        check_query("RelatedPerson", "patient=1", false);
        let level = "-relationship-level=http%3A%2F%2Fhl7.org%2Ffhir%2Fresource-types%7CPatient";
        check_query("RelatedPerson", &format!("patient=1&{level}"), true);
        check_query("Patient", "", false);
        check_query("Patient", "_id=1", true);
        check_query("Condition", "patient=1&_count=5", false);
        check_query("Goal", "_id=1&patient=1", false);
        check_query("Goal", "patient=1&patient=1", false);
    }

    #[test]
    fn last_updated_is_one_bare_value_or_a_closed_range() {
        let base = "patient=1&_lastUpdated=";
        for (resource_type, value, allowed) in [
            ("Observation", "2026-01-01", true),
            ("Observation", "ge2026-01-01T00:00:00Z&_lastUpdated=le2026-02-01T00:00:00Z", true),
            ("Observation", "ge2026-01-01", false),
            ("Observation", "ge2026-01-01&_lastUpdated=ge2026-02-01", false),
            ("Observation", "2026-01-01&date=2026-01-01", false),
            ("Immunization", "gt2026-01-01", true),
            ("MedicationRequest", "ge2026-01-01", false),
            ("MedicationRequest", "ge2026-01-01T00:00:00Z&_lastUpdated=le2026-02-01T00:00:00Z", true),
        ] {
            check_query(resource_type, &format!("{base}{value}"), allowed);
        }
    }
}
