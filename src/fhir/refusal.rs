//! What the proxy itself has to say, as an OperationOutcome: what happened, and what to do. What the EHR says is passed
//! on as it is.

use bytes::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::body::{Body, full};
use crate::events::TrailFull;
use crate::fhir::FHIR_JSON;
use crate::grants::{AccessError, ConnectionStatus};
use crate::outbound::OutboundError;
use crate::store::StoreError;

/// Why the proxy did not pass a request on, or not its answer.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such connection in the key's workspace.
    #[error("no such connection")]
    UnknownConnection,
    /// The path is none of FHIR R4.
    #[error("not an address of FHIR R4")]
    NotFhir,
    /// Only reading is let through.
    #[error("not a reading method")]
    Method,
    /// `_search` wants a form.
    #[error("not a form")]
    NotForm,
    /// The parameters cannot be passed on.
    #[error("the parameters cannot be passed on")]
    BadQuery,
    /// The EHR takes searches in the address only, and this one is too long for that.
    #[error("the search is too long")]
    TooLong,
    /// The key may not read this type.
    #[error("the key may not read this type")]
    TypeNotAllowed,
    /// A key for some types asked for more than one type.
    #[error("the key may read some types only")]
    TooWide,
    /// There is no SMART launch here.
    #[error("there is no SMART launch here")]
    NoSmart,
    /// The connection is over.
    #[error("the connection is not active")]
    Ended(ConnectionStatus),
    /// No access token this time.
    #[error("the hospital did not renew the access: {0}")]
    NotNow(String),
    /// The EHR rejects a token that it gave a moment ago.
    #[error("the hospital rejects a fresh access token")]
    Rejected,
    /// Too many requests at this source.
    #[error("too many requests at this source")]
    Busy,
    /// No answer.
    #[error(transparent)]
    Outbound(OutboundError),
    /// A redirect away from the base.
    #[error("the hospital redirected elsewhere")]
    Redirected,
    /// The CapabilityStatement is none.
    #[error("the hospital's CapabilityStatement cannot be read")]
    BadCapability,
    /// Nothing is read that cannot be recorded.
    #[error(transparent)]
    Unrecorded(#[from] TrailFull),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AccessError> for Refusal {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Missing => Self::UnknownConnection,
            AccessError::NotActive(status) => Self::Ended(status),
            AccessError::NotNow(failure) => Self::NotNow(failure.to_string()),
            suspended @ AccessError::Suspended { .. } => Self::NotNow(suspended.to_string()),
            AccessError::Rejected => Self::Rejected,
            AccessError::Store(error) => Self::Store(error),
        }
    }
}

/// How a refusal looks: status, FHIR's issue type, our own code, the text, and seconds to wait.
type Look = (StatusCode, &'static str, &'static str, String, Option<u32>);

impl Refusal {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.look().0
    }

    /// The answer.
    pub fn into_response(self, request_id: &str) -> Response<Body> {
        let (status, issue, code, text, wait) = self.look();
        if status.is_server_error() {
            tracing::warn!(request = request_id, code, cause = %self, "live read failed");
        } else {
            tracing::debug!(code, "live read refused");
        }
        let mut response = outcome(status, issue, code, &text, request_id);
        if let Some(seconds) = wait {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
        }
        response
    }

    fn look(&self) -> Look {
        let plain = |status, issue, code, text: &str| (status, issue, code, text.to_owned(), None);
        match self {
            Self::UnknownConnection => plain(
                StatusCode::NOT_FOUND,
                "not-found",
                "unknown-connection",
                "There is no such connection in the workspace of this API key. `GET /patients/{id}` lists a patient's \
                 connections.",
            ),
            Self::NotFhir => plain(
                StatusCode::NOT_FOUND,
                "not-found",
                "not-fhir",
                "This is no address of a FHIR R4 server: after the connection's id comes a resource type, such as \
                 `Patient`, and then an id or a query.",
            ),
            Self::Method => plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "not-supported",
                "read-only",
                "This address only reads: use GET or HEAD, or POST to `{type}/_search`.",
            ),
            Self::NotForm => plain(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not-supported",
                "not-a-form",
                "A search by POST carries its parameters as `application/x-www-form-urlencoded`.",
            ),
            Self::BadQuery => plain(
                StatusCode::BAD_REQUEST,
                "invalid",
                "bad-parameters",
                "The parameters hold characters that must be percent-encoded.",
            ),
            Self::TooLong => plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-long",
                "search-too-long",
                "The hospital takes searches in the address only, and this one is too long for that: ask for less at a \
                 time.",
            ),
            Self::TypeNotAllowed => plain(
                StatusCode::FORBIDDEN,
                "forbidden",
                "type-not-allowed",
                "This API key may not read this resource type. Ask the operator for a key that may.",
            ),
            Self::TooWide => plain(
                StatusCode::FORBIDDEN,
                "forbidden",
                "types-not-allowed",
                "This API key may read some resource types only, and what is asked for can bring others: ask for each \
                 type by itself, without `_include`, `_revinclude`, compartments and operations.",
            ),
            Self::NoSmart => plain(
                StatusCode::NOT_FOUND,
                "not-supported",
                "no-smart-launch",
                "There is no SMART launch at this address: the patient has signed in already. Send your API key as a \
                 bearer token.",
            ),
            Self::Ended(status) => (
                StatusCode::FORBIDDEN,
                "login",
                "connection-not-active",
                format!(
                    "The connection is {}. Start a patient session (`POST /patient-sessions`), so that the patient signs \
                     in at the hospital again; the connection then goes on under the same id unless it was disconnected.",
                    status_words(*status)
                ),
                None,
            ),
            Self::NotNow(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "transient",
                "access-not-renewed",
                "The hospital did not renew the access this time; the connection still stands. Try again in a while."
                    .to_owned(),
                Some(10),
            ),
            Self::Rejected => plain(
                StatusCode::BAD_GATEWAY,
                "security",
                "access-rejected",
                "The hospital rejects an access token that it gave a moment ago. Try again in a few minutes; if it stays \
                 so, the patient must sign in again.",
            ),
            Self::Busy => (
                StatusCode::TOO_MANY_REQUESTS,
                "throttled",
                "too-many-at-source",
                "Too many live requests are at this hospital. Try again later, with fewer at once.".to_owned(),
                Some(2),
            ),
            Self::Outbound(OutboundError::TimedOut(_)) => plain(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                "source-silent",
                "The hospital did not answer in time. Try again, or ask for less at a time.",
            ),
            Self::Outbound(OutboundError::Untrusted(_)) => plain(
                StatusCode::BAD_GATEWAY,
                "security",
                "source-untrusted",
                "The hospital's TLS certificate is not acceptable, so nothing was sent to it. The operator can see why in \
                 the log.",
            ),
            Self::Outbound(OutboundError::AddressRefused(_) | OutboundError::BadUrl(_)) => plain(
                StatusCode::BAD_GATEWAY,
                "security",
                "source-refused",
                "The hospital's address is one this server does not call. The operator can allow it.",
            ),
            Self::Outbound(
                OutboundError::UnknownHost(_)
                | OutboundError::Unreachable(_)
                | OutboundError::TooLarge(..)
                | OutboundError::Broken(_),
            ) => plain(
                StatusCode::BAD_GATEWAY,
                "transient",
                "source-unreachable",
                "The hospital's FHIR server could not be reached, or broke off. Try again.",
            ),
            Self::Redirected => plain(
                StatusCode::BAD_GATEWAY,
                "security",
                "source-redirected",
                "The hospital redirected to another place than its FHIR server. That was not followed: the patient's \
                 access belongs to that server only.",
            ),
            Self::BadCapability => plain(
                StatusCode::BAD_GATEWAY,
                "exception",
                "bad-capability-statement",
                "The hospital's CapabilityStatement could not be read. Reading resources may work all the same.",
            ),
            Self::Unrecorded(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "transient",
                "not-recorded",
                "Each access is recorded, and too many wait for the disk. Try again in a while.".to_owned(),
                Some(10),
            ),
            Self::Store(_) => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "exception",
                "store",
                "The store could not be read. The operator has been told in the log.",
            ),
        }
    }
}

fn status_words(status: ConnectionStatus) -> &'static str {
    match status {
        ConnectionStatus::Active => "active",
        ConnectionStatus::Failed => "one that never came about",
        ConnectionStatus::Expired => "expired: the hospital gave access for a limited time",
        ConnectionStatus::RefreshFailed => "over: the hospital or the patient has ended the access",
        ConnectionStatus::Disconnected => "disconnected",
    }
}

/// An OperationOutcome of one issue.
pub fn outcome(status: StatusCode, issue: &str, code: &str, text: &str, request_id: &str) -> Response<Body> {
    let body = json!({
        "resourceType": "OperationOutcome",
        "issue": [{
            "severity": "error",
            "code": issue,
            "details": { "coding": [{ "system": "urn:chartgate:problem", "code": code }], "text": text },
            "diagnostics": format!("{text} (request {request_id})"),
        }],
    });
    fhir_json(status, body.to_string())
}

/// An answer made here.
pub(super) fn fhir_json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(FHIR_JSON));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
