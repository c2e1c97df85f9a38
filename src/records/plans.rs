//! How each vendor wants to be asked for each type: data, and the only vendor-specific thing of a pull.
//!
//! US Core obliges a server to a few combinations only, so a plan asks widest first and falls back to the combinations
//! when the server refuses with 400 or 422. Oracle Health and Epic refuse in ways that are known beforehand.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::smart::vendors::VendorProfile;

/// What to ask for one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// `GET {Type}/{patient}`
    ReadPatient,
    /// Searches, all of them; their results are one set.
    Search {
        /// Queries to send.
        first: &'static [&'static str],
        /// Queries to send instead when the server refuses one of them as a bad query.
        otherwise: &'static [&'static str],
    },
}

const fn search(first: &'static [&'static str], otherwise: &'static [&'static str]) -> Plan {
    Plan::Search { first, otherwise }
}

const BY_PATIENT: &[&str] = &["patient={p}"];
const BY_PATIENT_100: &[&str] = &["patient={p}&_count=100"];
const OBSERVATION_CATEGORIES: &[&str] = &[
    "patient={p}&category=laboratory&_count=200",
    "patient={p}&category=vital-signs&_count=200",
    "patient={p}&category=social-history&_count=200",
    "patient={p}&category=survey&_count=200",
    "patient={p}&category=sdoh&_count=200",
    "patient={p}&category=exam&_count=200",
    "patient={p}&category=imaging&_count=200",
    "patient={p}&category=procedure&_count=200",
    "patient={p}&category=therapy&_count=200",
    "patient={p}&category=activity&_count=200",
];
const CONDITION_CATEGORIES: &[&str] = &[
    "patient={p}&category=problem-list-item",
    "patient={p}&category=encounter-diagnosis",
    "patient={p}&category=health-concern",
];
/// All intents, for servers that refuse a search without one (US Core makes only `patient+intent` an obligation).
const ALL_INTENTS: &[&str] = &[
    "patient={p}&intent=order,plan,proposal,reflex-order,original-order,filler-order,instance-order,option",
];

/// The plan for a type at a vendor; `None` for a type that no plan asks for.
pub fn plan(profile: &VendorProfile, resource_type: &str) -> Option<Plan> {
    let special = match profile.name {
        "cerner" | "cerner-provider" => oracle_health(resource_type),
        "epic" => epic(resource_type),
        "bluebutton" if resource_type == "Coverage" => Some(search(&["beneficiary={p}"], &[])),
        _ => None,
    };
    special.or_else(|| us_core(resource_type))
}

fn us_core(resource_type: &str) -> Option<Plan> {
    Some(match resource_type {
        "Patient" => Plan::ReadPatient,
        "Observation" => search(&["patient={p}&_count=200"], OBSERVATION_CATEGORIES),
        "CarePlan" => search(BY_PATIENT_100, &["patient={p}&category=assess-plan"]),
        "CareTeam" => search(BY_PATIENT_100, &["patient={p}&status=active"]),
        "Condition" => search(BY_PATIENT_100, CONDITION_CATEGORIES),
        "MedicationRequest" => search(BY_PATIENT_100, ALL_INTENTS),
        "DocumentReference" => search(BY_PATIENT_100, &["patient={p}&category=clinical-note"]),
        "DiagnosticReport" => {
            search(BY_PATIENT_100, &["patient={p}&category=LAB", "patient={p}&category=LP29684-5"])
        }
        "Coverage" => search(BY_PATIENT_100, &["beneficiary={p}"]),
        "AllergyIntolerance" | "Device" | "Encounter" | "Goal" | "Immunization" | "Procedure"
        | "ServiceRequest" | "RelatedPerson" => search(BY_PATIENT_100, BY_PATIENT),
        _ => return None,
    })
}

/// Oracle Health: `CarePlan` wants a category, RelatedPerson a level, Observations come per category and once without;
/// a filter by intent would lose the home medicines, which are `plan`.
fn oracle_health(resource_type: &str) -> Option<Plan> {
    Some(match resource_type {
        "CarePlan" => search(&["patient={p}&category=assess-plan"], &[]),
        "RelatedPerson" => search(
            &["patient={p}&-relationship-level=http%3A%2F%2Fhl7.org%2Ffhir%2Fresource-types%7CPatient"],
            &[],
        ),
        "Observation" => search(
            &[
                "patient={p}&category=laboratory&_count=200",
                "patient={p}&category=vital-signs&_count=200",
                "patient={p}&category=social-history&_count=200",
                "patient={p}&category=survey&_count=200",
                "patient={p}&category=sdoh&_count=200",
                "patient={p}&_count=200",
            ],
            &[],
        ),
        "DiagnosticReport" | "DocumentReference" | "MedicationRequest" | "ServiceRequest" => {
            search(BY_PATIENT_100, BY_PATIENT)
        }
        "Encounter" => search(&["patient={p}&_count=50"], BY_PATIENT),
        // Unpaged there: `_count` would be refused or ignored.
        "AllergyIntolerance" | "CareTeam" | "Condition" | "Coverage" | "Device" | "Goal" | "Immunization"
        | "Procedure" => search(BY_PATIENT, &[]),
        _ => return None,
    })
}

/// Epic: Observation needs a category or code (its error 59108), and so do the others listed here.
fn epic(resource_type: &str) -> Option<Plan> {
    Some(match resource_type {
        "Observation" => search(OBSERVATION_CATEGORIES, &[]),
        "Condition" => search(CONDITION_CATEGORIES, BY_PATIENT),
        "DocumentReference" => search(&["patient={p}&category=clinical-note"], BY_PATIENT),
        // Longitudinal, encounter-level and oncology plans by their SNOMED codes.
        "CarePlan" => search(
            &[
                "patient={p}&category=38717003",
                "patient={p}&category=734163000",
                "patient={p}&category=736378000",
            ],
            BY_PATIENT,
        ),
        _ => return None,
    })
}

/// What RFC 3986 §2.3 leaves as it is: escaping the hyphens of a UUID is legal, and some servers do not undo it.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A query with the patient's id in it.
pub fn fill(query: &str, patient: &str) -> String {
    query.replace("{p}", &utf8_percent_encode(patient, ESCAPED).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smart::RESOURCE_TYPES;

    #[test]
    fn every_vendor_has_a_plan_for_every_type() {
        for profile in VendorProfile::all() {
            for resource_type in RESOURCE_TYPES {
                assert!(plan(profile, resource_type).is_some(), "{} {resource_type}", profile.name);
            }
        }
        assert_eq!(plan(VendorProfile::generic(), "Claim"), None);
    }

    #[test]
    fn a_patient_id_cannot_add_to_a_query() {
        assert_eq!(fill("patient={p}&_count=9", "a&b=c"), "patient=a%26b%3Dc&_count=9");
        assert_eq!(fill("Patient/{p}", "1ae5-f8.64"), "Patient/1ae5-f8.64");
    }
}
