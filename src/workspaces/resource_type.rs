//! The resource types of FHIR R4, and which of them an API key may read.

use serde::{Deserialize, Serialize};

/// The types' names, sorted. `Parameters` is missing: it only comes from operations.
#[rustfmt::skip]
const TYPES: &[&str] = &[
    "Account", "ActivityDefinition", "AdverseEvent", "AllergyIntolerance", "Appointment", "AppointmentResponse",
    "AuditEvent", "Basic", "Binary", "BiologicallyDerivedProduct", "BodyStructure", "Bundle", "CapabilityStatement",
    "CarePlan", "CareTeam", "CatalogEntry", "ChargeItem", "ChargeItemDefinition", "Claim", "ClaimResponse",
    "ClinicalImpression", "CodeSystem", "Communication", "CommunicationRequest", "CompartmentDefinition", "Composition",
    "ConceptMap", "Condition", "Consent", "Contract", "Coverage", "CoverageEligibilityRequest",
    "CoverageEligibilityResponse", "DetectedIssue", "Device", "DeviceDefinition", "DeviceMetric", "DeviceRequest",
    "DeviceUseStatement", "DiagnosticReport", "DocumentManifest", "DocumentReference", "EffectEvidenceSynthesis",
    "Encounter", "Endpoint", "EnrollmentRequest", "EnrollmentResponse", "EpisodeOfCare", "EventDefinition", "Evidence",
    "EvidenceVariable", "ExampleScenario", "ExplanationOfBenefit", "FamilyMemberHistory", "Flag", "Goal",
    "GraphDefinition", "Group", "GuidanceResponse", "HealthcareService", "ImagingStudy", "Immunization",
    "ImmunizationEvaluation", "ImmunizationRecommendation", "ImplementationGuide", "InsurancePlan", "Invoice", "Library",
    "Linkage", "List", "Location", "Measure", "MeasureReport", "Media", "Medication", "MedicationAdministration",
    "MedicationDispense", "MedicationKnowledge", "MedicationRequest", "MedicationStatement", "MedicinalProduct",
    "MedicinalProductAuthorization", "MedicinalProductContraindication", "MedicinalProductIndication",
    "MedicinalProductIngredient", "MedicinalProductInteraction", "MedicinalProductManufactured",
    "MedicinalProductPackaged", "MedicinalProductPharmaceutical", "MedicinalProductUndesirableEffect",
    "MessageDefinition", "MessageHeader", "MolecularSequence", "NamingSystem", "NutritionOrder", "Observation",
    "ObservationDefinition", "OperationDefinition", "OperationOutcome", "Organization", "OrganizationAffiliation",
    "Patient", "PaymentNotice", "PaymentReconciliation", "Person", "PlanDefinition", "Practitioner", "PractitionerRole",
    "Procedure", "Provenance", "Questionnaire", "QuestionnaireResponse", "RelatedPerson", "RequestGroup",
    "ResearchDefinition", "ResearchElementDefinition", "ResearchStudy", "ResearchSubject", "RiskAssessment",
    "RiskEvidenceSynthesis", "Schedule", "SearchParameter", "ServiceRequest", "Slot", "Specimen", "SpecimenDefinition",
    "StructureDefinition", "StructureMap", "Subscription", "Substance", "SubstanceNucleicAcid", "SubstancePolymer",
    "SubstanceProtein", "SubstanceReferenceInformation", "SubstanceSourceMaterial", "SubstanceSpecification",
    "SupplyDelivery", "SupplyRequest", "Task", "TerminologyCapabilities", "TestReport", "TestScript", "ValueSet",
    "VerificationResult", "VisionPrescription",
];

/// A resource type of FHIR R4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub struct ResourceType(u8);

/// A text that names no resource type of FHIR R4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a resource type of FHIR R4")]
pub struct UnknownResourceType;

impl ResourceType {
    /// The type of this name.
    pub fn parse(name: &str) -> Option<Self> {
        u8::try_from(TYPES.binary_search(&name).ok()?).ok().map(Self)
    }

    /// All of them, by name.
    pub fn all() -> impl Iterator<Item = Self> {
        (0_u8..).take(TYPES.len()).map(Self)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        TYPES.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}

impl TryFrom<String> for ResourceType {
    type Error = UnknownResourceType;

    fn try_from(name: String) -> Result<Self, UnknownResourceType> {
        Self::parse(&name).ok_or(UnknownResourceType)
    }
}

impl From<ResourceType> for &'static str {
    fn from(one: ResourceType) -> Self {
        one.name()
    }
}

/// The types that one key may read, live or stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTypes(Option<[u64; 3]>);

impl KeyTypes {
    /// From the list of a key; none means all, an empty one none.
    pub fn of(list: Option<&[ResourceType]>) -> Self {
        Self(list.map(|list| {
            list.iter().fold([0; 3], |mut bits, one| {
                let (word, bit) = place(*one);
                bits[word] |= bit;
                bits
            })
        }))
    }

    /// Whether it may read this one.
    pub fn include(self, one: ResourceType) -> bool {
        let (word, bit) = place(one);
        self.0.is_none_or(|bits| bits[word] & bit != 0)
    }

    /// Whether it may read all.
    pub fn is_all(self) -> bool {
        self.0.is_none()
    }
}

fn place(one: ResourceType) -> (usize, u64) {
    (usize::from(one.0 / 64), 1 << (one.0 % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_their_exact_names_and_stored_by_them() {
        assert!(TYPES.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(TYPES.len() <= 192, "there are bits for so many");
        for name in TYPES {
            let one = ResourceType::parse(name).expect("known");
            let text = serde_json::to_string(&one).expect("json");
            assert_eq!((one.name(), text.as_str()), (*name, &*format!("\"{name}\"")));
            assert_eq!(serde_json::from_str::<ResourceType>(&text).ok(), Some(one));
        }
        for name in ["", "observation", "Observations", "Parameters", "Zzz"] {
            assert_eq!(ResourceType::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_list_gives_what_it_names_and_no_list_gives_all() {
        let [first, last] =
            [TYPES[0], TYPES[TYPES.len() - 1]].map(|name| ResourceType::parse(name).expect("known"));
        let some = KeyTypes::of(Some(&[first, last]));
        for name in TYPES {
            let one = ResourceType::parse(name).expect("known");
            assert_eq!(some.include(one), one == first || one == last, "{name}");
            assert!(KeyTypes::of(None).include(one) && !KeyTypes::of(Some(&[])).include(one));
        }
        assert!(KeyTypes::of(None).is_all() && !some.is_all());
    }
}
