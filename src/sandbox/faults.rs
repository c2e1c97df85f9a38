//! The fault switches: each makes the hospital misbehave in one way that a real server was seen to, or might.
//!
//! All are off by default. They are set with `POST {control}/faults`, whose JSON object is merged over the present
//! switches (`null` turns one off), and all turned off with `DELETE {control}/faults`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The switches. Names and values are those of the JSON object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, not states")]
pub struct Faults {
    /// Seconds an authorization code lives, instead of 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_life_seconds: Option<u64>,
    /// Whether a refresh replaces the refresh token; the personality decides when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_rotation: Option<Rotation>,
    /// No token response carries a refresh token; one given out before stays good.
    #[serde(skip_serializing_if = "is_off")]
    pub no_refresh_token: bool,
    /// Only these resource types are granted, whatever the patient agreed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub narrow_scopes: Option<Vec<String>>,
    /// Token responses carry no `patient`.
    #[serde(skip_serializing_if = "is_off")]
    pub drop_patient: bool,
    /// Id tokens carry neither `fhirUser` nor `profile`.
    #[serde(skip_serializing_if = "is_off")]
    pub drop_fhir_user: bool,
    /// Id tokens come from an issuer of another tenant.
    #[serde(skip_serializing_if = "is_off")]
    pub wrong_id_token_issuer: bool,
    /// Id tokens are meant for another client.
    #[serde(skip_serializing_if = "is_off")]
    pub wrong_id_token_audience: bool,
    /// Id tokens carry another `nonce` than was sent.
    #[serde(skip_serializing_if = "is_off")]
    pub wrong_nonce: bool,
    /// Id tokens are signed with a `kid` that the next so many fetches of `/jwk` do not show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_token_unpublished_kid: Option<u32>,
    /// `expires_in` as another number (fractions too), as `"string"`, `"float"` or `"missing"`. A number is also the
    /// real life of the access token, give or take the usual 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<ExpiresIn>,
    /// What the token endpoint does instead of answering.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<TokenEndpointFault>,
    /// A refusal at the token endpoint, before anything is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_error: Option<TokenError>,
    /// An OAuth error code that authorize redirects with, or `page` for an error page without a redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorize_error: Option<String>,
    /// RFC 9207: the authorization response carries `iss`, and the metadata announces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorize_iss: Option<RightOrWrong>,
    /// The authorization response carries another `state` than was sent.
    #[serde(skip_serializing_if = "is_off")]
    pub wrong_state: bool,
    /// What happens to FHIR requests, by resource type; `*` is every type.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fhir: BTreeMap<String, FhirFault>,
    /// `next` links lead to another origin.
    #[serde(skip_serializing_if = "is_off")]
    pub next_elsewhere: bool,
    /// `next` links lead to the page they stand on.
    #[serde(skip_serializing_if = "is_off")]
    pub next_loop: bool,
    /// Each later page begins with the last entry of the page before it.
    #[serde(skip_serializing_if = "is_off")]
    pub repeated_ids: bool,
    /// Search results carry an OperationOutcome entry with code `suppressed`.
    #[serde(skip_serializing_if = "is_off")]
    pub suppressed_outcome_entry: bool,
    /// The first page of a search is empty but has a `next` link.
    #[serde(skip_serializing_if = "is_off")]
    pub empty_page_with_next: bool,
    /// What becomes of `smart-configuration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smart_configuration: Option<SmartConfigurationFault>,
    /// `smart-configuration` is missing; the CapabilityStatement still names the endpoints.
    #[serde(skip_serializing_if = "is_off")]
    pub capability_statement_only: bool,
    /// A cached client JWKS is kept until it ends, also when an assertion names a key that is not in it.
    #[serde(skip_serializing_if = "is_off")]
    pub no_jwks_refetch: bool,
    /// How many requests are spoilt before all switches turn themselves off; absent: no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references to `skip_serializing_if`")]
fn is_off(switch: &bool) -> bool {
    !switch
}

/// See [`Faults::refresh_rotation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotation {
    /// A new refresh token each time; using the old one ends the grant.
    Rotate,
    /// The answer has no `refresh_token`; the old one stays good.
    Keep,
}

/// See [`Faults::expires_in`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ExpiresIn {
    /// This number instead.
    Number(serde_json::Number),
    /// The right number in a wrong form.
    Form(ExpiresInForm),
}

/// See [`Faults::expires_in`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpiresInForm {
    /// `"570"`.
    String,
    /// `570.52`.
    Float,
    /// Not there.
    Missing,
}

/// See [`Faults::token_endpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenEndpointFault {
    /// 429, empty.
    #[serde(rename = "429")]
    TooMany,
    /// 503, empty.
    #[serde(rename = "503")]
    Unavailable,
    /// 403 with a page of a web firewall.
    Html,
    /// No answer for ten minutes, and nothing done.
    Hang,
    /// The request is carried out, a refresh token replaced, and then no answer comes.
    TimeoutAfterRotation,
    /// 307 to another origin.
    Redirect,
    /// 200 with an empty body.
    Empty,
}

/// See [`Faults::token_error`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenError {
    /// The OAuth code. `invalid_client` answers 401, others 400.
    pub error: String,
    /// What stands behind `urn:cerner:error:authorization-server:`, or a whole urn.
    #[serde(default)]
    pub urn: Option<String>,
}

/// See [`Faults::authorize_iss`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RightOrWrong {
    /// The issuer of the metadata.
    Right,
    /// Another one.
    Wrong,
}

/// What happens to the requests for one resource type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FhirFault {
    /// The kind.
    pub status: FhirFaultKind,
    /// How many requests it lasts; absent: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

/// See [`FhirFault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum FhirFaultKind {
    /// A refusal with an OperationOutcome: 401, 403, 429, 500 or 503.
    Status(u16),
    /// `"html"`: 504 with a gateway's page.
    Html,
    /// `"empty"`: 200 without a body.
    Empty,
    /// `"half-json"`: 200 with the first half of an answer.
    HalfJson,
    /// `"hang"`: no answer for ten minutes.
    Hang,
    /// `"huge"`: 200 with 5 GB, streamed.
    Huge,
    /// `"redirect"`: 302 to another origin.
    Redirect,
}

const FHIR_FAULT_WORDS: [(&str, FhirFaultKind); 6] = [
    ("html", FhirFaultKind::Html),
    ("empty", FhirFaultKind::Empty),
    ("half-json", FhirFaultKind::HalfJson),
    ("hang", FhirFaultKind::Hang),
    ("huge", FhirFaultKind::Huge),
    ("redirect", FhirFaultKind::Redirect),
];

impl TryFrom<Value> for FhirFaultKind {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        let known = match number {
            Some(status @ (401 | 403 | 429 | 500 | 503)) => u16::try_from(status).ok().map(Self::Status),
            Some(_) => None,
            None => FHIR_FAULT_WORDS.into_iter().find(|(word, _)| value == *word).map(|(_, kind)| kind),
        };
        known.ok_or_else(|| {
            "status must be 401, 403, 429, 500, 503, html, empty, half-json, hang, huge or redirect"
                .to_owned()
        })
    }
}

impl From<FhirFaultKind> for Value {
    fn from(kind: FhirFaultKind) -> Self {
        if let FhirFaultKind::Status(status) = kind {
            return status.into();
        }
        let word = FHIR_FAULT_WORDS.into_iter().find(|(_, known)| *known == kind).map(|(word, _)| word);
        word.unwrap_or_default().into()
    }
}

/// See [`Faults::smart_configuration`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmartConfigurationFault {
    /// 404, and the CapabilityStatement names no endpoints either.
    Missing,
    /// 200 with a page.
    Html,
    /// 200 with 5 GB, streamed.
    Huge,
    /// No answer for ten minutes.
    Hang,
    /// The first half.
    HalfJson,
    /// Endpoints as references relative to the origin.
    RelativeUrls,
    /// No `code_challenge_methods_supported`, as in a fifth of one vendor's production documents.
    NoPkce,
}

impl Faults {
    /// Lays the members of `patch` over the present switches. The error names what is wrong.
    pub(super) fn merged(&self, patch: &Value) -> Result<Self, String> {
        let Value::Object(patch) = patch else {
            return Err("a JSON object of switches is needed".to_owned());
        };
        let mut whole = serde_json::to_value(self).map_err(|error| error.to_string())?;
        if let Value::Object(present) = &mut whole {
            for (name, value) in patch {
                if value.is_null() {
                    present.remove(name);
                } else {
                    present.insert(name.clone(), value.clone());
                }
            }
        }
        serde_json::from_value(whole).map_err(|error| error.to_string())
    }

    /// The fault for one resource type, if any.
    pub(super) fn for_type(&self, resource_type: &str) -> Option<FhirFaultKind> {
        self.fhir.get(resource_type).or_else(|| self.fhir.get("*")).map(|fault| fault.status)
    }

    /// Counts one spoilt request; `resource_type` says whose own counter runs down too.
    pub(super) fn spend(&mut self, resource_type: Option<&str>) {
        if let Some(wanted) = resource_type {
            let name = if self.fhir.contains_key(wanted) { wanted } else { "*" };
            let left = self.fhir.get_mut(name).and_then(|fault| fault.times.as_mut());
            if let Some(left) = left {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.fhir.remove(name);
                }
            }
        }
        if let Some(left) = &mut self.times {
            *left = left.saturating_sub(1);
            if *left == 0 {
                *self = Self::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn switches_are_merged_and_unknown_ones_refused() {
        let faults = Faults::default()
            .merged(&json!({"drop_patient": true, "fhir": {"Observation": {"status": 429, "times": 2}}}))
            .expect("known switches");
        let faults = faults.merged(&json!({"expires_in": "float", "drop_patient": null})).expect("known");
        assert!(!faults.drop_patient);
        assert_eq!(faults.for_type("Observation"), Some(FhirFaultKind::Status(429)));
        assert_eq!(faults.for_type("Goal"), None);
        let text = serde_json::to_value(&faults).expect("json");
        assert_eq!(
            text,
            json!({"expires_in": "float", "fhir": {"Observation": {"status": 429, "times": 2}}})
        );
        assert!(Faults::default().merged(&json!({"drop_patients": true})).is_err());
        assert!(Faults::default().merged(&json!({"fhir": {"Goal": {"status": 418}}})).is_err());
    }

    #[test]
    fn a_counted_fault_ends_by_itself() {
        let mut faults = Faults::default().merged(&json!({"drop_patient": true, "times": 2})).expect("known");
        faults.spend(None);
        assert!(faults.drop_patient);
        faults.spend(None);
        assert_eq!(faults, Faults::default());

        let mut faults =
            Faults::default().merged(&json!({"fhir": {"*": {"status": "html", "times": 1}}})).expect("known");
        faults.spend(Some("Goal"));
        assert_eq!(faults, Faults::default());
    }
}
