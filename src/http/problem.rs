//! The error a caller of the API receives, in the contract's six-key envelope.

use std::error::Error;

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json;

use crate::events::TrailFull;
use crate::fhir;
use crate::http::{Answer, RequestId};
use crate::store::StoreError;

/// Every error of the platform contract that can happen here: its type, code and status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// No `Authorization` header.
    MissingApiKey,
    /// Unknown or revoked key.
    InvalidApiKey,
    /// Key past its end.
    ExpiredApiKey,
    /// The key may not do this.
    InsufficientScope,
    /// Unparsable, or a required field is missing.
    BadRequest,
    /// A value is not acceptable.
    InvalidData,
    /// `Version` names no version we speak.
    UnsupportedApiVersion,
    /// Body over its limit.
    PayloadTooLarge,
    /// Nothing of that name in this workspace.
    NotFound,
    /// The address does not know the method.
    MethodNotAllowed,
    /// A patient of that id exists.
    ExternalIdExists,
    /// The state of things does not allow it.
    Conflict,
    /// Too many requests; the number is `Retry-After` in seconds.
    Throttled(u32),
    /// Too much is kept for this workspace already; the number is `Retry-After` in seconds.
    QuotaExceeded(u32),
    /// Our own fault.
    Internal,
    /// The store does not work.
    Database,
}

impl ProblemKind {
    /// Every kind, for the description of the API.
    pub const ALL: [Self; 16] = [
        Self::MissingApiKey,
        Self::InvalidApiKey,
        Self::ExpiredApiKey,
        Self::InsufficientScope,
        Self::BadRequest,
        Self::InvalidData,
        Self::UnsupportedApiVersion,
        Self::PayloadTooLarge,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::ExternalIdExists,
        Self::Conflict,
        Self::Throttled(1),
        Self::QuotaExceeded(1),
        Self::Internal,
        Self::Database,
    ];

    /// What it means and what to do about it, for the description of the API.
    pub fn about(self) -> &'static str {
        match self {
            Self::MissingApiKey => "There is no `Authorization` header. Send your API key as a bearer token.",
            Self::InvalidApiKey => "The key is unknown here or was revoked. Ask the operator for a new one.",
            Self::ExpiredApiKey => "The key is past its end. Ask the operator for a new one.",
            Self::InsufficientScope => "The key lacks the scope that the message names.",
            Self::BadRequest => {
                "The body is missing, not JSON, or lacks a required field; or the address does not know the method."
            }
            Self::InvalidData => "A value is not acceptable; `param` names it and the message says what is.",
            Self::UnsupportedApiVersion => "The `Version` header names a version that is not spoken here.",
            Self::PayloadTooLarge => "The body is larger than this server reads.",
            Self::NotFound => "There is nothing of that name in your workspace, or nothing at this address.",
            Self::MethodNotAllowed => "The address does not know the method; `Allow` names those it does.",
            Self::ExternalIdExists => {
                "A patient with this `patient_id` exists already. Use it, or replace it with PUT."
            }
            Self::Conflict => {
                "The state of things does not allow it; the message says why. An `Idempotency-Key` that was used for \
                 another request is one reason."
            }
            Self::Throttled(_) => "Too many requests. Wait as many seconds as `Retry-After` says.",
            Self::QuotaExceeded(_) => {
                "Too much is kept for your workspace; the message says what, and what to do."
            }
            Self::Internal => "Our fault. Tell the operator the `request_id`, under which the log says more.",
            Self::Database => "The store could not be read or written. Tell the operator the `request_id`.",
        }
    }

    /// Status, type and code.
    pub fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::MissingApiKey => (StatusCode::UNAUTHORIZED, "authentication_error", "missing_api_key"),
            Self::InvalidApiKey => (StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key"),
            Self::ExpiredApiKey => (StatusCode::UNAUTHORIZED, "authentication_error", "expired_api_key"),
            Self::InsufficientScope => (StatusCode::FORBIDDEN, "permission_error", "insufficient_scope"),
            Self::BadRequest => (StatusCode::BAD_REQUEST, "invalid_request_error", "bad_request"),
            Self::InvalidData => (StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_data"),
            Self::UnsupportedApiVersion => {
                (StatusCode::BAD_REQUEST, "invalid_request_error", "unsupported_api_version")
            }
            Self::PayloadTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "payload_too_large")
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found_error", "resource_not_found"),
            // The contract has no code for it; a wrong method is a malformed request.
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "bad_request")
            }
            Self::ExternalIdExists => (StatusCode::CONFLICT, "conflict_error", "external_id_already_exists"),
            Self::Conflict => (StatusCode::CONFLICT, "conflict_error", "resource_conflict"),
            Self::Throttled(_) => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "throttled"),
            Self::QuotaExceeded(_) => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "quota_exceeded"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "api_error", "internal_error"),
            Self::Database => (StatusCode::INTERNAL_SERVER_ERROR, "api_error", "db_error"),
        }
    }
}

/// An error on its way to a caller: what the caller reads, and apart from it the cause for the log.
#[derive(Debug)]
pub struct Problem {
    /// Which of the contract's errors.
    pub kind: ProblemKind,
    message: String,
    param: Option<String>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Problem {
    /// With the sentence for the caller. It must hold nothing that the caller did not send.
    pub fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, cause: None }
    }

    /// Nothing of that name.
    pub fn not_found(what: &str) -> Self {
        Self::new(ProblemKind::NotFound, format!("{what} was not found in your workspace."))
    }

    /// A value that is not acceptable, named.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(ProblemKind::InvalidData, message) }
    }

    /// A required field that is missing, named.
    pub fn missing(param: &str) -> Self {
        let message = format!("`{param}` is required.");
        Self { param: Some(param.to_owned()), ..Self::new(ProblemKind::BadRequest, message) }
    }

    /// Names the field or parameter it is about.
    #[must_use]
    pub fn about(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    /// Adds the cause, which only the log will hold.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The cause's text for the log line, and the code.
    pub fn log(&self) {
        let (status, _, code) = self.kind.parts();
        let cause = self.cause.as_ref().map(ToString::to_string);
        if status.is_server_error() {
            tracing::error!(code, cause, "request failed");
        } else {
            // Without `param`: the name of an unknown field is the caller's text, and may be anything.
            tracing::debug!(code, cause, "request refused");
        }
    }

    /// The answer as the contract has it.
    pub fn into_answer(self, request_id: &RequestId, doc_url: &str) -> Answer {
        self.log();
        let (status, kind, code) = self.kind.parts();
        let body = json!({ "error": {
            "type": kind,
            "code": code,
            "message": self.message,
            "param": self.param,
            "doc_url": doc_url,
            "request_id": request_id.as_str(),
        }});
        self.with_headers(status, Answer::json(status, &body))
    }

    /// The answer as FHIR has it, for clients of the live proxy.
    pub fn into_outcome(self, request_id: &RequestId) -> Answer {
        self.log();
        let (status, _, code) = self.kind.parts();
        let issue = match status {
            StatusCode::UNAUTHORIZED => "login",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::NOT_FOUND => "not-found",
            StatusCode::TOO_MANY_REQUESTS => "throttled",
            status if status.is_server_error() => "exception",
            _ => "invalid",
        };
        let outcome = fhir::outcome(status, issue, code, &self.message, request_id.as_str());
        self.with_headers(status, Answer::made(outcome))
    }

    fn with_headers(&self, status: StatusCode, mut answer: Answer) -> Answer {
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 15.5.2: a 401 names the scheme that is asked for.
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let ProblemKind::Throttled(seconds) | ProblemKind::QuotaExceeded(seconds) = self.kind {
            // Whole seconds, at least one: the SDK reads an integer only.
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        answer
    }
}

impl From<TrailFull> for Problem {
    fn from(error: TrailFull) -> Self {
        let message = "Each access is recorded, and too many wait for the disk. Try again in a while.";
        Self::new(ProblemKind::Database, message).caused_by(error)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(
            ProblemKind::Database,
            "The store could not be read or written. The operator has been told in the log.",
        )
        .caused_by(error)
    }
}
