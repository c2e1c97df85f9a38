//! Whose record a grant opens.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::smart::url::FhirBaseUrl;

/// Not usable as a FHIR id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a FHIR id")]
pub struct BadFhirId;

macro_rules! fhir_id_type {
    ($(#[$about:meta])* $name:ident, $shown:literal) => {
        $(#[$about])*
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub struct $name(String);

        impl $name {
            /// Reads a bare id. FHIR allows 64 of `A-Z a-z 0-9 - .`; Epic has longer ones, so up to 256 are taken, with
            /// every character that stands for itself in a URL's path.
            pub fn parse(text: &str) -> Result<Self, BadFhirId> {
                if is_fhir_id(text) { Ok(Self(text.to_owned())) } else { Err(BadFhirId) }
            }

            /// The id, for a request's path and for the store.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str($shown)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

fhir_id_type!(
    /// The EHR's id of a patient: opaque and case-sensitive (digits, a UUID, Epic's `e…`, a negative number in Blue
    /// Button's sandbox). `Debug` hides it, because it names a person.
    EhrPatientId, "«patient id»");
fhir_id_type!(
    /// The EHR's id of something else that belongs to a patient: who signed in, or a visit. Hidden like the patient's.
    FhirId, "«FHIR id»");

impl EhrPatientId {
    /// Reads `patient` of a token response: a bare id, or what some servers send instead, `Patient/id` or its URL.
    pub fn from_reference(text: &str) -> Result<Self, BadFhirId> {
        let text = text.trim();
        if !text.contains('/') {
            return Self::parse(text);
        }
        match split_reference(text) {
            Some(("Patient", id)) => Self::parse(id),
            _ => Err(BadFhirId),
        }
    }
}

/// Who signed in, from the claim `fhirUser` (or `profile`, its older name).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FhirUser {
    /// `Patient`, `RelatedPerson`, `Person`, `Practitioner` or `PractitionerRole`.
    pub resource_type: UserType,
    /// The id at the server that the claim names.
    pub id: FhirId,
    /// The claim is an absolute URL that is not below our FHIR base: identity only, no token goes there.
    pub elsewhere: bool,
}

/// The types that `fhirUser` can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserType {
    /// The patient.
    Patient,
    /// A parent or caregiver; `RelatedPerson.patient` names the patient.
    RelatedPerson,
    /// A person with several roles; `Person.link` names them.
    Person,
    /// A clinician.
    Practitioner,
    /// A clinician in one role.
    PractitionerRole,
}

impl UserType {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "Patient" => Some(Self::Patient),
            "RelatedPerson" => Some(Self::RelatedPerson),
            "Person" => Some(Self::Person),
            "Practitioner" => Some(Self::Practitioner),
            "PractitionerRole" => Some(Self::PractitionerRole),
            _ => None,
        }
    }

    /// The name of the FHIR type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Patient => "Patient",
            Self::RelatedPerson => "RelatedPerson",
            Self::Person => "Person",
            Self::Practitioner => "Practitioner",
            Self::PractitionerRole => "PractitionerRole",
        }
    }
}

impl FhirUser {
    /// Reads an absolute or relative URL; the last two segments count, because old claims point to a DSTU2 base.
    pub fn parse(claim: &str, base: &FhirBaseUrl) -> Option<Self> {
        let (name, id) = split_reference(claim.trim())?;
        let resource_type = UserType::from_name(name)?;
        let id = FhirId::parse(id).ok()?;
        let elsewhere =
            claim.contains("://") && !url::Url::parse(claim.trim()).is_ok_and(|url| base.covers(&url));
        Some(Self { resource_type, id, elsewhere })
    }
}

/// Where the patient's id came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatientSource {
    /// `patient` of the token response.
    TokenResponse,
    /// `fhirUser` of the id token.
    FhirUser,
}

/// Whose record it is, as far as the token response and the id token tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatientResolution {
    /// This patient's.
    Known {
        /// The record.
        id: EhrPatientId,
        /// Which of the two said so.
        source: PatientSource,
        /// Somebody else signed in for the patient: a parent, a caregiver.
        proxy: bool,
    },
    /// The server has to be asked.
    AskServer(PatientQuestion),
    /// Nobody can say; staff must look at the registration (`fhirUser`, `launch/patient`).
    Missing,
}

/// What to ask the FHIR server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatientQuestion {
    /// `GET RelatedPerson/{id}`, then `patient`.
    RelatedPerson(FhirId),
    /// `GET Person/{id}`, then the one `link` to a Patient.
    Person(FhirId),
    /// `GET Patient`: servers that return the one permitted record.
    OnlyPatient,
}

/// Decides in the order of SMART: `patient` of the token response, then `fhirUser` when it is a Patient, then the
/// persons who act for one, then (`ask_for_patient` of the vendor profile) the server's only patient.
pub fn resolve_patient(
    token_patient: Option<&EhrPatientId>,
    user: Option<&FhirUser>,
    ask_for_patient: bool,
) -> PatientResolution {
    if let Some(id) = token_patient {
        let proxy = user.is_some_and(|user| match user.resource_type {
            UserType::Patient => user.id.as_str() != id.as_str(),
            UserType::RelatedPerson => true,
            UserType::Person | UserType::Practitioner | UserType::PractitionerRole => false,
        });
        return PatientResolution::Known { id: id.clone(), source: PatientSource::TokenResponse, proxy };
    }
    let otherwise = if ask_for_patient {
        PatientResolution::AskServer(PatientQuestion::OnlyPatient)
    } else {
        PatientResolution::Missing
    };
    let Some(user) = user else { return otherwise };
    match user.resource_type {
        UserType::Patient => match EhrPatientId::parse(user.id.as_str()) {
            Ok(id) => PatientResolution::Known { id, source: PatientSource::FhirUser, proxy: false },
            Err(BadFhirId) => otherwise,
        },
        // An id of another server means nothing to ours.
        UserType::RelatedPerson | UserType::Person if user.elsewhere => otherwise,
        UserType::RelatedPerson => {
            PatientResolution::AskServer(PatientQuestion::RelatedPerson(user.id.clone()))
        }
        UserType::Person => PatientResolution::AskServer(PatientQuestion::Person(user.id.clone())),
        UserType::Practitioner | UserType::PractitionerRole => otherwise,
    }
}

fn is_fhir_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':');
    (1..=256).contains(&text.len()) && text.bytes().all(allowed) && text.bytes().any(|byte| byte != b'.')
}

/// `…/Type/id`, with or without a version behind it.
fn split_reference(text: &str) -> Option<(&str, &str)> {
    let path = text.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let path = path.split("/_history").next().unwrap_or_default();
    let (rest, id) = path.rsplit_once('/')?;
    Some((rest.rsplit('/').next().unwrap_or_default(), id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> FhirBaseUrl {
        FhirBaseUrl::parse("https://h.example/r4/t").expect("a base")
    }

    fn user(claim: &str) -> FhirUser {
        FhirUser::parse(claim, &base()).expect("a user")
    }

    fn id(text: &str) -> EhrPatientId {
        EhrPatientId::parse(text).expect("an id")
    }

    #[test]
    fn patient_ids_are_taken_as_servers_write_them() {
        for (written, expected) in [
            ("12724066", "12724066"),
            ("Patient/12724066", "12724066"),
            ("https://h.example/r4/t/Patient/e.Ab-9", "e.Ab-9"),
            ("Patient/1/_history/3", "1"),
            (" -20140000010000 ", "-20140000010000"),
        ] {
            assert_eq!(EhrPatientId::from_reference(written), Ok(id(expected)), "{written}");
        }
        let long = "e".repeat(257);
        for bad in
            ["", ".", "..", "a b", "a?b", "Practitioner/1", "Patient/..", "Patient/", "a%2Fb", long.as_str()]
        {
            assert_eq!(EhrPatientId::from_reference(bad), Err(BadFhirId), "{bad}");
        }
        assert!(!format!("{:?}", id("12724066")).contains("12724066"));
    }

    #[test]
    fn fhir_user_is_read_from_its_last_two_segments() {
        let here = user("https://h.example/r4/t/Patient/1");
        assert_eq!((here.resource_type, here.id.as_str(), here.elsewhere), (UserType::Patient, "1", false));
        assert!(!user("Person/2").elsewhere);
        assert!(user("https://h.example/dstu2/t/Patient/1").elsewhere);
        assert!(user("https://evil.example/r4/t/Patient/1/").elsewhere);
        for bad in ["1", "", "Group/1", "https://h.example/r4/t/Patient/..", "Patient/a b"] {
            assert_eq!(FhirUser::parse(bad, &base()), None, "{bad}");
        }
    }

    #[test]
    fn the_token_response_decides_and_shows_who_acts_for_the_patient() {
        let known =
            |proxy| PatientResolution::Known { id: id("1"), source: PatientSource::TokenResponse, proxy };
        assert_eq!(resolve_patient(Some(&id("1")), None, false), known(false));
        assert_eq!(resolve_patient(Some(&id("1")), Some(&user("Patient/1")), false), known(false));
        assert_eq!(resolve_patient(Some(&id("1")), Some(&user("Patient/2")), false), known(true));
        assert_eq!(resolve_patient(Some(&id("1")), Some(&user("RelatedPerson/2")), false), known(true));
    }

    #[test]
    fn without_it_the_person_signed_in_decides_then_the_server() {
        let known = PatientResolution::Known { id: id("1"), source: PatientSource::FhirUser, proxy: false };
        assert_eq!(resolve_patient(None, Some(&user("https://old.example/dstu2/Patient/1")), false), known);
        let ask = PatientResolution::AskServer;
        assert_eq!(
            resolve_patient(None, Some(&user("RelatedPerson/2")), false),
            ask(PatientQuestion::RelatedPerson(FhirId::parse("2").expect("an id")))
        );
        assert_eq!(
            resolve_patient(None, Some(&user("Person/2")), false),
            ask(PatientQuestion::Person(FhirId::parse("2").expect("an id")))
        );
        assert_eq!(
            resolve_patient(None, Some(&user("https://evil.example/Person/2")), false),
            PatientResolution::Missing
        );
        assert_eq!(resolve_patient(None, Some(&user("Practitioner/2")), false), PatientResolution::Missing);
        assert_eq!(resolve_patient(None, None, false), PatientResolution::Missing);
        assert_eq!(resolve_patient(None, None, true), ask(PatientQuestion::OnlyPatient));
    }
}
