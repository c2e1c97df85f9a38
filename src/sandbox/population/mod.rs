//! The people of the sandbox hospital: a small stand-in for the synthetic population.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::crypto::Random;

/// Everyone who has a record here, and their records.
#[derive(Debug)]
pub struct Population {
    /// Who can log in.
    pub people: Vec<Person>,
    resources: Vec<((String, String), Vec<Resource>)>,
}

/// Someone with a log-in and a record.
#[derive(Debug, Clone)]
pub struct Person {
    /// Log-in name.
    pub username: String,
    /// Password, no secret: it is printed on the log-in page.
    pub password: String,
    /// FHIR id of the Patient.
    pub patient_id: String,
    /// Name for people.
    pub display: String,
}

/// One resource of the record.
#[derive(Debug, Clone)]
pub struct Resource {
    /// `resourceType`.
    pub resource_type: String,
    /// FHIR id.
    pub id: String,
    /// Whose record it is in; `None` for shared things such as organizations.
    pub patient_id: Option<String>,
    /// The resource as JSON.
    pub json: Arc<str>,
    /// Codes of `category`, for searches.
    pub category_codes: Vec<String>,
    /// `meta.lastUpdated`.
    pub last_updated: Timestamp,
}

const TYPES: [&str; 15] = [
    "AllergyIntolerance",
    "CarePlan",
    "CareTeam",
    "Condition",
    "Coverage",
    "Device",
    "DiagnosticReport",
    "Encounter",
    "Goal",
    "Immunization",
    "MedicationRequest",
    "Procedure",
    "RelatedPerson",
    "ServiceRequest",
    "Provenance",
];

impl Population {
    /// Two people with a few resources each; `size` adds one with that many observations.
    pub fn synthetic(random: &Random, size: Option<usize>) -> Self {
        let mut population = Self { people: Vec::new(), resources: Vec::new() };
        for (number, name) in ["Nova Testperson", "Orla Testperson"].into_iter().enumerate() {
            population.add(number, name, 120, random);
        }
        if let Some(size) = size {
            population.add(10, "Max Testperson", size, random);
        }
        population
    }

    fn add(&mut self, number: usize, name: &str, observations: usize, random: &Random) {
        let patient_id = format!("1270000{number}");
        let username = name.split(' ').next().unwrap_or_default().to_lowercase();
        self.people.push(Person {
            password: format!("{username}-pass"),
            username,
            patient_id: patient_id.clone(),
            display: name.to_owned(),
        });
        self.push(
            "Patient",
            &patient_id,
            &patient_id,
            &[],
            json!({"name": [{"text": name}], "birthDate": "1980-01-02"}),
        );
        for resource_type in TYPES {
            let id = format!("{}{}", random.below(1_000_000), number);
            let (category, mut more): (&[&str], Value) = match resource_type {
                "CarePlan" => (&["assess-plan"], json!({"status": "active"})),
                "Condition" => (&["problem-list-item"], json!({})),
                "Provenance" => (&[], json!({"target": [{"reference": format!("Patient/{patient_id}")}]})),
                _ => (&[], json!({})),
            };
            if resource_type != "Provenance" {
                more["subject"] = json!({"reference": format!("Patient/{patient_id}")});
            }
            self.push(resource_type, &id, &patient_id, category, more);
        }
        let binary = format!("XR-{number}");
        self.push(
            "Binary",
            &binary,
            &patient_id,
            &[],
            json!({"contentType": "application/pdf", "data": "JVBERi0="}),
        );
        self.push("DocumentReference", &format!("9{number}"), &patient_id, &["clinical-note"],
            json!({"content": [{"attachment": {"contentType": "application/pdf", "url": format!("Binary/{binary}")}}]}));
        for index in 0..observations {
            let category = if index % 2 == 0 { "laboratory" } else { "vital-signs" };
            self.push(
                "Observation",
                &format!("L-{number}-{index}"),
                &patient_id,
                &[category],
                json!({"status": "final", "valueQuantity": {"value": index}}),
            );
        }
    }

    fn push(&mut self, resource_type: &str, id: &str, patient_id: &str, categories: &[&str], more: Value) {
        let last_updated = Timestamp::from_seconds(1_780_000_000);
        let mut json = json!({"resourceType": resource_type, "id": id,
            "meta": {"versionId": "1", "lastUpdated": last_updated.to_string()}});
        if !categories.is_empty() {
            json["category"] =
                json!([{"coding": categories.iter().map(|code| json!({"code": code})).collect::<Vec<_>>()}]);
        }
        if let (Value::Object(json), Value::Object(more)) = (&mut json, more) {
            json.extend(more);
        }
        let resource = Resource {
            resource_type: resource_type.to_owned(),
            id: id.to_owned(),
            patient_id: Some(patient_id.to_owned()),
            json: json.to_string().into(),
            category_codes: categories.iter().map(ToString::to_string).collect(),
            last_updated,
        };
        let key = (patient_id.to_owned(), resource_type.to_owned());
        match self.resources.iter_mut().find(|(known, _)| *known == key) {
            Some((_, list)) => list.push(resource),
            None => self.resources.push((key, vec![resource])),
        }
    }

    /// All resources of one type in one record, in stable order.
    pub fn of(&self, patient_id: &str, resource_type: &str) -> &[Resource] {
        self.resources
            .iter()
            .find(|((patient, kind), _)| patient == patient_id && kind == resource_type)
            .map_or(&[], |(_, list)| list.as_slice())
    }

    /// One resource.
    pub fn find(&self, resource_type: &str, id: &str) -> Option<&Resource> {
        self.resources
            .iter()
            .filter(|((_, kind), _)| kind == resource_type)
            .flat_map(|(_, list)| list)
            .find(|resource| resource.id == id)
    }
}

impl Population {
    /// stand-in
    pub fn load(_folder: &std::path::Path) -> Result<(Self, String), String> {
        Err("not yet".to_owned())
    }
}
