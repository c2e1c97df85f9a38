//! How each vendor wants to be asked for each type: data, and the only vendor-specific thing of a pull.
//!
//! US Core obliges a server to a few combinations only, so a plan asks widest first and falls back to the combinations
//! when the server refuses with 400 or 422. What a vendor is known to refuse is not asked for there.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::smart::vendors::VendorProfile;

/// What to ask for one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How it is asked for.
    pub ask: Ask,
    /// Whether searches of it can be narrowed by `_lastUpdated`, as a closed pair with times: to read what has changed only,
    /// and to get around a record that the server cannot give.
    pub by_update: bool,
}

/// How one type is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// `GET {Type}/{patient}`
    ReadPatient,
    /// Searches, all of them; their results are one set.
    Search {
        /// Queries to send.
        first: &'static [&'static str],
        /// Queries to send instead when the server refuses the first one as a bad query.
        otherwise: &'static [&'static str],
    },
}

/// One way to search for a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// All of them are sent.
    pub queries: &'static [&'static str],
    /// With the Provenance of what they find.
    pub provenance: bool,
}

/// Types that are read by reference, once each: they belong to no patient, and records without them name strangers.
pub const REFERENCED: [&str; 4] = ["Medication", "Practitioner", "Organization", "Location"];

/// What is added to a search for the Provenance of what it finds.
pub const WITH_PROVENANCE: &str = "&_revinclude=Provenance%3Atarget";

const fn search(first: &'static [&'static str], otherwise: &'static [&'static str]) -> Plan {
    Plan { ask: Ask::Search { first, otherwise }, by_update: false }
}

const BY_PATIENT: &[&str] = &["patient={p}"];
const BY_PATIENT_50: &[&str] = &["patient={p}&_count=50"];
const BY_PATIENT_100: &[&str] = &["patient={p}&_count=100"];
const BY_PATIENT_200: &[&str] = &["patient={p}&_count=200"];
const ASSESS_PLAN: &[&str] = &["patient={p}&category=assess-plan"];
/// Those of HL7 and of US Core's versions.
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
    "patient={p}&category=disability-status&_count=200",
    "patient={p}&category=functional-status&_count=200",
    "patient={p}&category=cognitive-status&_count=200",
    "patient={p}&category=clinical-test&_count=200",
    "patient={p}&category=treatment-intervention-preference&_count=200",
    "patient={p}&category=care-experience-preference&_count=200",
    "patient={p}&category=observation-adi-documentation&_count=200",
];
/// Epic's own kinds besides.
const EPIC_OBSERVATION_CATEGORIES: &[&str] = &[
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
    "patient={p}&category=disability-status&_count=200",
    "patient={p}&category=functional-status&_count=200",
    "patient={p}&category=cognitive-status&_count=200",
    "patient={p}&category=clinical-test&_count=200",
    "patient={p}&category=treatment-intervention-preference&_count=200",
    "patient={p}&category=care-experience-preference&_count=200",
    "patient={p}&category=observation-adi-documentation&_count=200",
    "patient={p}&category=core-characteristics&_count=200",
    "patient={p}&category=smartdata&_count=200",
];
const CONDITION_CATEGORIES: &[&str] = &[
    "patient={p}&category=problem-list-item",
    "patient={p}&category=encounter-diagnosis",
    "patient={p}&category=health-concern",
];
/// All intents, for servers that refuse a search without one (US Core makes only `patient+intent` an obligation). A filter
/// by one intent would lose the home medicines, which are `plan`.
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

/// Hosts under which a vendor's records name attachments that are served below the FHIR base.
pub fn attachment_hosts(profile: &VendorProfile) -> &'static [&'static str] {
    match profile.name {
        "cerner" | "cerner-provider" => &["cerner.com"],
        _ => &[],
    }
}

impl Plan {
    /// The ways to search, best first. With `provenance` each is tried with it before any without.
    pub fn ways(&self, provenance: bool) -> Vec<Way> {
        let Ask::Search { first, otherwise } = self.ask else { return Vec::new() };
        let sets = [first, otherwise].into_iter().filter(|queries| !queries.is_empty());
        let with = sets.clone().filter(|_| provenance).map(|queries| Way { queries, provenance: true });
        with.chain(sets.map(|queries| Way { queries, provenance: false })).collect()
    }
}

fn us_core(resource_type: &str) -> Option<Plan> {
    Some(match resource_type {
        "Patient" => Plan { ask: Ask::ReadPatient, by_update: false },
        "Observation" => search(BY_PATIENT_200, OBSERVATION_CATEGORIES),
        "CarePlan" => search(BY_PATIENT_100, ASSESS_PLAN),
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

/// Oracle Health: `CarePlan` wants a category and RelatedPerson a level. Observation needs none, so that one search brings all
/// categories, and what has none.
fn oracle_health(resource_type: &str) -> Option<Plan> {
    let updated = |first, otherwise| Plan { by_update: true, ..search(first, otherwise) };
    Some(match resource_type {
        "CarePlan" => search(ASSESS_PLAN, &[]),
        "RelatedPerson" => search(
            &["patient={p}&-relationship-level=http%3A%2F%2Fhl7.org%2Ffhir%2Fresource-types%7CPatient"],
            &[],
        ),
        "Observation" => updated(BY_PATIENT_200, OBSERVATION_CATEGORIES),
        "DiagnosticReport" | "DocumentReference" | "MedicationRequest" | "ServiceRequest" => {
            updated(BY_PATIENT_100, BY_PATIENT)
        }
        "Encounter" => updated(BY_PATIENT_50, BY_PATIENT),
        // Unpaged there: `_count` would be refused or ignored.
        "AllergyIntolerance" | "Condition" | "Immunization" | "Procedure" => updated(BY_PATIENT, &[]),
        "CareTeam" | "Coverage" | "Device" | "Goal" => search(BY_PATIENT, &[]),
        _ => return None,
    })
}

/// Epic: Observation needs a category or code (its error 59108). Of the others listed here a search without one may bring
/// the usual kind only, so the kinds are asked for besides; there are few of each.
fn epic(resource_type: &str) -> Option<Plan> {
    Some(match resource_type {
        "Observation" => search(EPIC_OBSERVATION_CATEGORIES, &[]),
        "Condition" => search(
            &[
                "patient={p}",
                "patient={p}&category=problem-list-item",
                "patient={p}&category=encounter-diagnosis",
                "patient={p}&category=health-concern",
            ],
            CONDITION_CATEGORIES,
        ),
        "DocumentReference" => search(
            &["patient={p}", "patient={p}&category=clinical-note"],
            &["patient={p}&category=clinical-note"],
        ),
        // Longitudinal, encounter-level and oncology plans by their SNOMED codes.
        "CarePlan" => search(
            &[
                "patient={p}",
                "patient={p}&category=38717003",
                "patient={p}&category=734163000",
                "patient={p}&category=736378000",
            ],
            &[
                "patient={p}&category=38717003",
                "patient={p}&category=734163000",
                "patient={p}&category=736378000",
            ],
        ),
        _ => return None,
    })
}

/// What RFC 3986 §2.3 leaves as it is: escaping the hyphens of a UUID is legal, and some servers do not undo it.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A query with the patient's id in it.
pub fn fill(query: &str, patient: &str) -> String {
    query.replace("{p}", &escaped(patient))
}

/// A text as it stands in a path or a query.
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
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
    fn nothing_is_asked_for_twice_but_where_one_search_may_not_bring_all() {
        for profile in VendorProfile::all().filter(|profile| profile.name != "epic") {
            for resource_type in RESOURCE_TYPES {
                for way in plan(profile, resource_type).expect("a plan").ways(false) {
                    let bare = |query: &&str| !query.contains("category=");
                    let wide = way.queries.iter().filter(|query| bare(query)).count();
                    let mixed = wide > 0 && wide < way.queries.len();
                    assert!(!mixed && wide <= 1, "{} {resource_type}: {way:?}", profile.name);
                }
            }
        }
    }

    #[test]
    fn ways_with_provenance_come_first_and_widest_first() {
        let observation = plan(VendorProfile::generic(), "Observation").expect("a plan");
        let shape = |provenance| {
            let ways = observation.ways(provenance).into_iter();
            ways.map(|way| (way.queries.len(), way.provenance)).collect::<Vec<_>>()
        };
        let categories = OBSERVATION_CATEGORIES.len();
        assert_eq!(shape(false), [(1, false), (categories, false)]);
        assert_eq!(shape(true), [(1, true), (categories, true), (1, false), (categories, false)]);
        assert!(plan(VendorProfile::generic(), "Patient").expect("a plan").ways(true).is_empty());
    }

    #[test]
    fn no_intent_is_filtered_out() {
        for profile in VendorProfile::all() {
            for way in plan(profile, "MedicationRequest").expect("a plan").ways(false) {
                for query in way.queries {
                    assert!(!query.contains("intent=") || query.contains("plan"), "{}", profile.name);
                }
            }
        }
    }

    #[test]
    fn a_patient_id_cannot_add_to_a_query() {
        assert_eq!(fill("patient={p}&_count=9", "a&b=c"), "patient=a%26b%3Dc&_count=9");
        assert_eq!(fill("Patient/{p}", "1ae5-f8.64"), "Patient/1ae5-f8.64");
    }
}
