//! The people of the sandbox hospital and their FHIR R4 records: generated (always the same for a seed), or loaded
//! from a folder. Nobody here is real. Does not know HTTP, searches or tokens.
//!
//! A resource is kept as its exact JSON text, so that a decimal keeps the zeros it was written with (`7.0`, `1.10`).

mod bulk;
mod bundle;
mod care;
mod chart;
mod codes;
mod json;
mod loader;
mod measures;
mod results;
mod staff;
mod stories;
mod stories_chronic;
mod visits;

pub(in crate::sandbox) use staff::{Clinician, clinicians};

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::crypto::Random;

pub use loader::{FileReport, LoadError, LoadReport, NotTaken, Reason};

/// The resource types a patient's record is made of; everything else (Binary, Practitioner, Claim, …) is kept for
/// [`Population::find`] only.
pub const RECORD_TYPES: [&str; 17] = [
    "AllergyIntolerance",
    "CarePlan",
    "CareTeam",
    "Condition",
    "Coverage",
    "Device",
    "DiagnosticReport",
    "DocumentReference",
    "Encounter",
    "Goal",
    "Immunization",
    "MedicationRequest",
    "Observation",
    "Patient",
    "Procedure",
    "RelatedPerson",
    "ServiceRequest",
];

/// The password of every synthetic or loaded person. It guards nothing.
const PASSWORD: &str = "sandbox";

/// Someone who can sign in at the sandbox hospital.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// `patient-1`, `patient-2`, … in the order of generation or reading.
    pub username: String,
    /// Always `sandbox`.
    pub password: String,
    /// The id of the person's Patient resource.
    pub patient_id: String,
    /// The name as a page shows it.
    pub display: String,
}

/// One resource as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `resourceType`.
    pub resource_type: String,
    /// `id`; unique within its type.
    pub id: String,
    /// Whose record it belongs to; `None` for a Practitioner and the like. A Binary belongs to its document's patient.
    pub patient_id: Option<String>,
    /// The whole resource, on one line.
    pub json: Arc<str>,
    /// The codes and texts of `category`, for the `category` search parameter.
    pub category_codes: Vec<String>,
    /// `meta.lastUpdated`, or a fixed date when the source has none.
    pub last_updated: Timestamp,
}

/// All people and resources, in a fixed order, with an index by patient and type and one by type and id.
#[derive(Debug)]
pub struct Population {
    /// Who can sign in.
    pub people: Vec<Person>,
    // Sorted by patient and type, in each group in the order of generation or reading (time order when generated).
    resources: Vec<Resource>,
    by_patient: HashMap<String, HashMap<String, Range<usize>>>,
    by_id: HashMap<String, HashMap<String, usize>>,
}

impl Population {
    /// Ten patients, always the same for the same seed (`patient-1` has all 17 types, `patient-7` almost nothing,
    /// `patient-10` replaces an older, merged record and has holes); with `size`, an eleventh patient with exactly that many
    /// resources of the 17 types (at least one: the Patient; all 17 types from 17 on).
    pub fn synthetic(random: &Random, size: Option<usize>) -> Self {
        let mut draft = chart::Register::new(random);
        staff::write(&mut draft);
        for profile in stories_chronic::PEOPLE.iter().chain(stories::PEOPLE) {
            draft.admit(profile).live_through(profile.story);
        }
        if let Some(size) = size {
            bulk::write(&mut draft, size);
        }
        Self::assemble(draft.people, draft.resources)
    }

    /// Reads every `*.json`, `*.ndjson`, `*.json.gz` and `*.ndjson.gz` of a folder (not of its subfolders): bundles,
    /// single resources, or one resource a line.
    pub fn load(folder: &Path) -> Result<(Self, LoadReport), LoadError> {
        Self::load_with(folder, |_| {})
    }

    /// As [`Population::load`], and calls `progress` after each file.
    pub fn load_with(
        folder: &Path,
        progress: impl FnMut(&FileReport),
    ) -> Result<(Self, LoadReport), LoadError> {
        loader::load(folder, progress)
    }

    /// One patient's resources of one type; empty when there are none.
    pub fn of(&self, patient_id: &str, resource_type: &str) -> &[Resource] {
        let range = self.by_patient.get(patient_id).and_then(|types| types.get(resource_type));
        range.map_or(&[], |range| &self.resources[range.clone()])
    }

    /// The resource with this type and id, whoever it belongs to.
    pub fn find(&self, resource_type: &str, id: &str) -> Option<&Resource> {
        let position = self.by_id.get(resource_type)?.get(id)?;
        self.resources.get(*position)
    }

    /// The resource with this type and id in one patient's record, else the one that belongs to nobody or to another.
    pub fn find_for(&self, patient_id: &str, resource_type: &str, id: &str) -> Option<&Resource> {
        let own = self.of(patient_id, resource_type).iter().find(|resource| resource.id == id);
        own.or_else(|| self.find(resource_type, id))
    }

    /// The patients who can sign in, in the order of [`Population::people`].
    pub fn patient_ids(&self) -> impl Iterator<Item = &str> {
        self.people.iter().map(|person| person.patient_id.as_str())
    }

    /// How many resources of the 17 types a patient has.
    pub fn count(&self, patient_id: &str) -> usize {
        RECORD_TYPES.iter().map(|resource_type| self.of(patient_id, resource_type).len()).sum()
    }

    /// Every resource of every type.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// Sorts and indexes. Of two resources with one type and id the index knows the first.
    fn assemble(people: Vec<Person>, mut resources: Vec<Resource>) -> Self {
        resources.sort_by(|a, b| (&a.patient_id, &a.resource_type).cmp(&(&b.patient_id, &b.resource_type)));
        let mut by_patient = HashMap::<String, HashMap<String, Range<usize>>>::new();
        let mut by_id = HashMap::<String, HashMap<String, usize>>::new();
        let mut start = 0;
        for group in
            resources.chunk_by(|a, b| (&a.patient_id, &a.resource_type) == (&b.patient_id, &b.resource_type))
        {
            let resource_type = &group[0].resource_type;
            if let Some(patient_id) = &group[0].patient_id {
                let types = by_patient.entry(patient_id.clone()).or_default();
                types.insert(resource_type.clone(), start..start + group.len());
            }
            let ids = by_id.entry(resource_type.clone()).or_default();
            for (offset, resource) in group.iter().enumerate() {
                ids.entry(resource.id.clone()).or_insert(start + offset);
            }
            start += group.len();
        }
        Self { people, resources, by_patient, by_id }
    }
}

/// A person who signs in with the usual password; `position` counts from 1.
fn person(position: usize, patient_id: String, display: String) -> Person {
    Person { username: format!("patient-{position}"), password: PASSWORD.to_owned(), patient_id, display }
}
