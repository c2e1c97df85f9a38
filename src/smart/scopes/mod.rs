//! Scopes of SMART App Launch: reading both syntaxes, choosing what to ask, comparing what came back.
//! SMART App Launch 2.2, "Scopes and Launch Context".

mod choice;
mod report;

pub use choice::{LaunchMode, choose, listed};
pub use report::{Access, ScopeReport, TypeAccess, compare};

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::SmartVersion;

/// The types of a patient's record that we read: the one list of them.
pub const RESOURCE_TYPES: [&str; 17] = [
    "Patient",
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
    "Procedure",
    "RelatedPerson",
    "ServiceRequest",
];

/// What a patient calls the records of a type, in the plural and in the middle of a sentence.
pub fn patient_words(resource_type: &str) -> &'static str {
    match resource_type {
        "Patient" => "your name and contact details",
        "AllergyIntolerance" => "allergies",
        "CarePlan" => "care plans",
        "CareTeam" => "your care team",
        "Condition" => "health problems and diagnoses",
        "Coverage" => "insurance coverage",
        "Device" => "implants and medical devices",
        "DiagnosticReport" => "test and imaging reports",
        "DocumentReference" => "letters and notes",
        "Encounter" => "visits",
        "Goal" => "health goals",
        "Immunization" => "vaccinations",
        "MedicationRequest" => "medicines",
        "Observation" => "lab results and vital signs",
        "Procedure" => "procedures and operations",
        "RelatedPerson" => "family and contact persons",
        "ServiceRequest" => "ordered tests and services",
        "Binary" => "attached files",
        "Provenance" => "who entered each record",
        "ExplanationOfBenefit" => "insurance claims",
        _ => "other records",
    }
}

/// More scopes than any server grants; the rest of a longer answer is not read.
const MAX_SCOPES: usize = 4096;

/// Whose data a resource scope opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// The patient in context.
    Patient,
    /// Whatever the person signed in may see.
    User,
    /// Whatever the client may see; no person.
    System,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Patient => "patient",
            Self::User => "user",
            Self::System => "system",
        }
    }
}

/// A set of the letters c r u d s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Permissions(u8);

impl Permissions {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Read by id.
    pub const READ: Self = Self(0b0_0010);
    /// Search.
    pub const SEARCH: Self = Self(0b1_0000);
    /// Read and search: v1's `.read`.
    pub const READ_SEARCH: Self = Self(0b1_0010);
    const WRITE: Self = Self(0b0_1101);
    const ALL: Self = Self(0b1_1111);
    const LETTERS: &'static str = "cruds";

    /// True when every permission of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True for no permission at all.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// v2 letters. Their order is prescribed, but a server that mixes it up still says what it means.
    fn from_letters(letters: &str) -> Option<Self> {
        let mut set = 0;
        for letter in letters.chars() {
            set |= 1 << Self::LETTERS.find(letter)?;
        }
        (set != 0).then_some(Self(set))
    }

    fn from_v1(word: &str) -> Option<Self> {
        match word {
            "read" => Some(Self::READ_SEARCH),
            "write" => Some(Self::WRITE),
            "*" => Some(Self::ALL),
            _ => None,
        }
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, letter) in Self::LETTERS.chars().enumerate() {
            if self.0 & (1 << at) != 0 {
                write!(out, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// A scope on FHIR resources.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourceScope {
    /// Whose data.
    pub level: Level,
    /// The type, or `*`.
    pub resource_type: String,
    /// What may be done.
    pub permissions: Permissions,
    /// Search parameters that narrow it, as written; servers write them behind v1 scopes too.
    pub query: Option<String>,
    /// The syntax it is written in.
    pub version: SmartVersion,
}

impl ResourceScope {
    /// True for the type itself and for the wildcard.
    pub fn covers(&self, resource_type: &str) -> bool {
        self.is_wildcard() || self.resource_type == resource_type
    }

    /// True for `*`.
    pub fn is_wildcard(&self) -> bool {
        self.resource_type == "*"
    }

    fn parse(text: &str) -> Option<Self> {
        let (level, rest) = text.split_once('/')?;
        let level =
            [Level::Patient, Level::User, Level::System].into_iter().find(|known| known.name() == level)?;
        let (scope, query) = match rest.split_once('?') {
            Some((scope, query)) => (scope, Some(query.to_owned())),
            None => (rest, None),
        };
        let (resource_type, wish) = scope.split_once('.')?;
        let named = resource_type.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && resource_type.starts_with(|first: char| first.is_ascii_uppercase());
        if !named && resource_type != "*" {
            return None;
        }
        let (permissions, version) = match Permissions::from_v1(wish) {
            Some(permissions) => (permissions, SmartVersion::V1),
            None => (Permissions::from_letters(wish)?, SmartVersion::V2),
        };
        Some(Self { level, resource_type: resource_type.to_owned(), permissions, query, version })
    }
}

/// One scope, with the spelling it came in: what is sent is never rewritten.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    text: String,
    resource: Option<ResourceScope>,
}

/// Not a scope of RFC 6749 section 3.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a scope is made of 1 to 1024 printable characters without blank, quote and backslash")]
pub struct BadScope;

impl Scope {
    /// Reads one scope. What is not a resource scope (`openid`, `launch/patient`, a vendor's own) is kept as text.
    pub fn parse(text: &str) -> Result<Self, BadScope> {
        let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if text.is_empty() || text.len() > 1024 || !text.bytes().all(allowed) {
            return Err(BadScope);
        }
        Ok(Self { text: text.to_owned(), resource: ResourceScope::parse(text) })
    }

    /// A scope on one type, in the wanted syntax; v1 has no letters, so it always asks for reading and searching.
    fn on(resource_type: &str, permissions: Permissions, version: SmartVersion) -> Self {
        let text = match version {
            SmartVersion::V1 => format!("patient/{resource_type}.read"),
            SmartVersion::V2 => format!("patient/{resource_type}.{permissions}"),
        };
        let resource = ResourceScope::parse(&text);
        Self { text, resource }
    }

    /// The scope as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its parts, when it is a scope on resources.
    pub fn resource(&self) -> Option<&ResourceScope> {
        self.resource.as_ref()
    }
}

/// Scopes in their order, each once. On the wire: separated by blanks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScopeSet(Vec<Scope>);

impl ScopeSet {
    /// Reads a list separated by blanks. What cannot be a scope is left out: a grant is never lost for one odd word.
    pub fn parse(text: &str) -> Self {
        text.split_ascii_whitespace().take(MAX_SCOPES).filter_map(|word| Scope::parse(word).ok()).collect()
    }

    /// The scopes.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True for none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when this very spelling is in the set.
    pub fn contains(&self, text: &str) -> bool {
        self.0.iter().any(|scope| scope.text == text)
    }

    /// The scopes on resources.
    pub fn resources(&self) -> impl Iterator<Item = &ResourceScope> {
        self.0.iter().filter_map(Scope::resource)
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let mut seen = std::collections::HashSet::new();
        Self(scopes.into_iter().filter(|scope| seen.insert(scope.text.clone())).collect())
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, scope) in self.0.iter().enumerate() {
            let glue = if at == 0 { "" } else { " " };
            write!(out, "{glue}{}", scope.text)?;
        }
        Ok(())
    }
}

impl Serialize for ScopeSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ScopeSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::parse(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(text: &str) -> ResourceScope {
        Scope::parse(text).expect("a scope").resource().expect("on resources").clone()
    }

    #[test]
    fn both_syntaxes_are_read_with_and_without_a_query() {
        let check = |text: &str, letters: &str, version: SmartVersion, query: Option<&str>| {
            let scope = resource(text);
            assert_eq!(scope.permissions.to_string(), letters, "{text}");
            assert_eq!((scope.version, scope.query.as_deref()), (version, query), "{text}");
        };
        check("patient/Observation.read", "rs", SmartVersion::V1, None);
        check("patient/Observation.write", "cud", SmartVersion::V1, None);
        check("patient/*.*", "cruds", SmartVersion::V1, None);
        check("user/Observation.s", "s", SmartVersion::V2, None);
        check("system/Observation.sr", "rs", SmartVersion::V2, None);
        check("patient/Condition.read?category=a|b", "rs", SmartVersion::V1, Some("category=a|b"));
        check(
            "patient/Observation.rs?category=http://x.y/z|a",
            "rs",
            SmartVersion::V2,
            Some("category=http://x.y/z|a"),
        );
    }

    #[test]
    fn what_is_no_resource_scope_is_kept_as_it_is() {
        for text in [
            "openid",
            "launch/patient",
            "infr-api/*",
            "iops-ccda/*.*",
            "patient/x.read",
            "patient/Patient.xyz",
            "patient/Patient.",
        ] {
            let scope = Scope::parse(text).expect("a scope");
            assert_eq!((scope.as_str(), scope.resource()), (text, None));
        }
        for bad in ["", "a b", "a\"b", "a\\b", "ä"] {
            assert_eq!(Scope::parse(bad), Err(BadScope), "{bad}");
        }
    }

    #[test]
    fn a_set_keeps_order_and_spelling_and_drops_repetitions() {
        let set = ScopeSet::parse("  openid patient/Patient.sr  openid\nä offline_access ");
        assert_eq!(set.to_string(), "openid patient/Patient.sr offline_access");
        let json = serde_json::to_string(&set).expect("json");
        assert_eq!(serde_json::from_str::<ScopeSet>(&json).expect("a set"), set);
        assert!(ScopeSet::parse("").is_empty());
    }

    #[test]
    fn every_type_has_words_for_patients_and_no_jargon() {
        for name in RESOURCE_TYPES.into_iter().chain(["Binary", "Provenance"]) {
            assert_ne!(patient_words(name), patient_words("Unheard"), "{name}");
            assert!(!patient_words(name).contains("esource"));
        }
    }
}
