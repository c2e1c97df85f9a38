//! Why a launch came to nothing.

use crate::smart::discoverer::DiscoverFailure;
use crate::smart::ehr_error::{EhrError, FailureCode, PatientText, Stage, WhoActs, explain};
use crate::smart::tokens::TokenFailure;

/// Why a launch came to nothing, three ways: for the patient, for staff, and (its code) for the app.
#[derive(Debug, Clone)]
pub struct LaunchFailure {
    /// The wire contract's code.
    pub code: FailureCode,
    /// What the patient reads.
    pub patient: PatientText,
    /// Who can do something.
    pub who: WhoActs,
    /// What staff read.
    pub staff: String,
    /// The EHR's number for it.
    pub correlation_id: Option<String>,
    /// The EHR's own page about it.
    pub more_information: Option<String>,
}

impl LaunchFailure {
    /// A failure that the EHR named.
    pub fn from_ehr(error: &EhrError, stage: Stage) -> Self {
        let explanation = explain(error, stage);
        Self {
            code: explanation.code,
            patient: explanation.patient,
            who: explanation.who,
            staff: explanation.staff,
            correlation_id: error.correlation_id.clone(),
            more_information: error.error_uri.clone(),
        }
    }

    /// A failure that we name.
    pub fn ours(code: FailureCode, who: WhoActs, staff: String) -> Self {
        Self { code, patient: code.patient_text(), who, staff, correlation_id: None, more_information: None }
    }

    /// An operator took away what the launch needs.
    pub fn source_gone() -> Self {
        let staff = "The source or its EHR client is no longer there. Who acts: you (the clinic).";
        Self::ours(FailureCode::SourceUnavailable, WhoActs::Clinic, staff.to_owned())
    }

    /// Access was given, but to whose record is not known.
    pub fn no_patient(warnings: &[String]) -> Self {
        let mut staff = "The hospital gave access but did not say to whose record: no `patient` in the token response and no \
                         usable `fhirUser`. Who acts: you (the clinic): add `fhirUser` (and `openid`) to the app's scopes at \
                         the vendor."
            .to_owned();
        for warning in warnings {
            staff.push_str(" Also: ");
            staff.push_str(warning);
            staff.push('.');
        }
        Self::ours(FailureCode::MissingPatientContext, WhoActs::Clinic, staff)
    }

    pub(super) fn from_exchange(failure: &TokenFailure) -> Self {
        match failure {
            TokenFailure::Refused { error, .. } => Self::from_ehr(error, Stage::Token),
            TokenFailure::NoAnswer(_) | TokenFailure::NotOAuth { .. } => {
                let staff = format!(
                    "The hospital's token endpoint did not do its part: {failure}. The code may have been used up. \
                     Who acts: nobody at first, the patient can try again; hospital IT when it stays so."
                );
                Self::ours(FailureCode::SourceUnavailable, WhoActs::Nobody, staff)
            }
            TokenFailure::Unusable(_) => {
                let staff = format!("{failure}. Who acts: hospital IT.");
                Self::ours(FailureCode::TokenExchangeFailed, WhoActs::HospitalIt, staff)
            }
            TokenFailure::Signing(_) => {
                let staff = format!(
                    "This box could not sign its client assertion: {failure}. Who acts: you (the clinic)."
                );
                Self {
                    patient: PatientText::SetupProblem,
                    ..Self::ours(FailureCode::TokenExchangeFailed, WhoActs::Clinic, staff)
                }
            }
        }
    }
}

pub(super) fn cannot_discover(failure: &DiscoverFailure) -> LaunchFailure {
    match failure {
        DiscoverFailure::NoAnswer(_) | DiscoverFailure::Status(500..) => {
            let staff = format!(
                "The source's SMART configuration could not be read: {failure}. Who acts: hospital IT when it stays so; \
                 check the base URL and this box's way to the internet."
            );
            LaunchFailure::ours(FailureCode::SourceUnavailable, WhoActs::HospitalIt, staff)
        }
        DiscoverFailure::Status(_) | DiscoverFailure::NotSmart(_) => setup_failure(format!(
            "The source's base URL leads to no usable SMART description: {failure}. Who acts: you (the clinic): \
             check the FHIR base URL."
        )),
    }
}

pub(super) fn setup_failure(staff: String) -> LaunchFailure {
    LaunchFailure {
        patient: PatientText::SetupProblem,
        ..LaunchFailure::ours(FailureCode::SourceUnavailable, WhoActs::Clinic, staff)
    }
}
