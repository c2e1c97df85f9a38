//! The values that fault switches take.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// See [`super::Faults::refresh_rotation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotation {
    /// A new refresh token each time; using the old one ends the grant.
    Rotate,
    /// The answer has no `refresh_token`; the old one stays good.
    Keep,
}

/// See [`super::Faults::expires_in`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ExpiresIn {
    /// This number instead.
    Number(serde_json::Number),
    /// The right number in a wrong form.
    Form(ExpiresInForm),
}

/// See [`super::Faults::expires_in`].
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

/// See [`super::Faults::token_endpoint`].
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

/// See [`super::Faults::token_error`] and [`super::Faults::suspended`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenError {
    /// The OAuth code.
    pub error: String,
    /// What stands behind `urn:cerner:error:authorization-server:`, or a whole urn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urn: Option<String>,
    /// 400, 401 or 403; absent: 401 for `invalid_client`, 400 for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<RefusalStatus>,
}

/// The status of a refusal at the token endpoint: 400, 401 or 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct RefusalStatus(u16);

impl TryFrom<u16> for RefusalStatus {
    type Error = &'static str;

    fn try_from(status: u16) -> Result<Self, &'static str> {
        if matches!(status, 400 | 401 | 403) {
            Ok(Self(status))
        } else {
            Err("status must be 400, 401 or 403")
        }
    }
}

impl From<RefusalStatus> for u16 {
    fn from(status: RefusalStatus) -> Self {
        status.0
    }
}

/// See [`super::Faults::superseded_grace_answer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GraceAnswer {
    /// Tokens made anew.
    New,
    /// The answer of the first use, word for word.
    Same,
}

/// See [`super::Faults::retry_after`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryAfter {
    /// From now.
    pub seconds: u64,
    /// How it is written (RFC 9110 section 10.2.3).
    #[serde(default)]
    pub form: RetryAfterForm,
}

/// See [`RetryAfter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetryAfterForm {
    /// `120`.
    #[default]
    Seconds,
    /// `Mon, 02 Nov 2026 08:02:00 GMT`.
    Date,
}

/// See [`super::Faults::revocation_endpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationFault {
    /// No document names it, and its address answers 404 (Epic has none).
    Absent,
    /// 503, empty.
    #[serde(rename = "503")]
    Unavailable,
    /// 400 `unsupported_token_type` (RFC 7009 section 2.2.1).
    UnsupportedTokenType,
    /// No answer for ten minutes, and nothing done.
    Hang,
}

/// See [`super::Faults::authorize_iss`].
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

/// See [`super::Faults::smart_configuration`].
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
