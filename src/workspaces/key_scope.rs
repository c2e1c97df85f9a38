//! What an API key may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One permission of an API key. A key without a list has all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyScope {
    /// Patients and their connections.
    #[serde(rename = "patients:read")]
    PatientsRead,
    /// Making, changing and erasing patients; disconnecting their sources.
    #[serde(rename = "patients:write")]
    PatientsWrite,
    /// Patient sessions and launch contexts.
    #[serde(rename = "patient_sessions:read")]
    PatientSessionsRead,
    /// Starting patient sessions, which also makes or updates their patient.
    #[serde(rename = "patient_sessions:write")]
    PatientSessionsWrite,
    /// The catalogue of sources.
    #[serde(rename = "connections:read")]
    ConnectionsRead,
    /// Health records: those kept here and those read live.
    #[serde(rename = "fhir:read")]
    FhirRead,
    /// Webhook endpoints and their events. The contract names no scope for webhooks; this one and the next are ours.
    #[serde(rename = "webhooks:read")]
    WebhooksRead,
    /// Making, changing and removing webhook endpoints; sending events again.
    #[serde(rename = "webhooks:write")]
    WebhooksWrite,
}

impl KeyScope {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::PatientsRead,
        Self::PatientsWrite,
        Self::PatientSessionsRead,
        Self::PatientSessionsWrite,
        Self::ConnectionsRead,
        Self::FhirRead,
        Self::WebhooksRead,
        Self::WebhooksWrite,
    ];

    /// Its name in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PatientsRead => "patients:read",
            Self::PatientsWrite => "patients:write",
            Self::PatientSessionsRead => "patient_sessions:read",
            Self::PatientSessionsWrite => "patient_sessions:write",
            Self::ConnectionsRead => "connections:read",
            Self::FhirRead => "fhir:read",
            Self::WebhooksRead => "webhooks:read",
            Self::WebhooksWrite => "webhooks:write",
        }
    }
}

impl fmt::Display for KeyScope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// A text that names no permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a scope of an API key")]
pub struct UnknownKeyScope;

impl FromStr for KeyScope {
    type Err = UnknownKeyScope;

    fn from_str(text: &str) -> Result<Self, UnknownKeyScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(UnknownKeyScope)
    }
}

/// What one key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyScopes(u16);

impl KeyScopes {
    /// From the list of a key; none means everything, an empty one nothing.
    pub fn of(list: Option<&[KeyScope]>) -> Self {
        Self(list.map_or(u16::MAX, |list| list.iter().fold(0, |bits, scope| bits | bit(*scope))))
    }

    /// Whether this is among them.
    pub fn include(self, scope: KeyScope) -> bool {
        self.0 & bit(scope) != 0
    }
}

fn bit(scope: KeyScope) -> u16 {
    1 << (scope as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_and_stored_under_the_contracts_names() {
        for scope in KeyScope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
            assert_eq!(serde_json::to_value(scope).ok(), Some(scope.as_str().into()));
        }
        assert_eq!("patients".parse::<KeyScope>(), Err(UnknownKeyScope));
    }

    #[test]
    fn a_list_gives_what_it_names_and_no_list_gives_all() {
        let some = KeyScopes::of(Some(&[KeyScope::FhirRead, KeyScope::PatientsRead]));
        for scope in KeyScope::ALL {
            let named = matches!(scope, KeyScope::FhirRead | KeyScope::PatientsRead);
            assert_eq!(some.include(scope), named, "{scope}");
            assert!(KeyScopes::of(None).include(scope));
            assert!(!KeyScopes::of(Some(&[])).include(scope));
        }
    }
}
