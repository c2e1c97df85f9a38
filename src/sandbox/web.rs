//! What a request looks like after reading, and what an answer carries for the log beside the response.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde_json::Value;

use crate::body::{Body, BodyError, empty, full};

/// A request with its body at hand.
pub(super) struct Incoming {
    pub peer: SocketAddr,
    pub method: Method,
    pub path: String,
    /// The query as it came, undecoded: page contexts must come back byte for byte.
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Incoming {
    /// A header's text; `None` when absent or not ASCII.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as a form, when it says it is one.
    pub(super) fn form(&self) -> Option<Form> {
        let kind = self.header(&header::CONTENT_TYPE)?;
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/x-www-form-urlencoded").then(|| Form::parse(&self.body))
    }
}

/// Parameters of a query or a form, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn parse(encoded: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(encoded).into_owned().collect())
    }

    /// The value of a parameter; one without a value counts as absent (RFC 6749 section 3.1).
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.pairs()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub(super) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All parameters.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A parameter that came twice, which RFC 6749 section 3.1 forbids.
    pub(super) fn repeated(&self) -> Option<&str> {
        self.pairs().map(|(name, _)| name).find(|name| self.all(name).nth(1).is_some())
    }
}

/// An answer, and what the log says about it.
pub(super) struct Reply {
    pub response: Response<Body>,
    /// Hold the answer back for ten minutes.
    pub hangs: bool,
    /// A fault switch shaped this answer.
    pub faulty: bool,
    /// The resource type whose fault switch it was.
    pub faulty_type: Option<String>,
    /// Why, in words, for `GET /control/log`. Never a token or a code.
    pub reason: String,
    /// What was asked, for the log.
    pub asked: Value,
}

impl Reply {
    pub(super) fn new(response: Response<Body>) -> Self {
        let reason = "ok".to_owned();
        Self { response, hangs: false, faulty: false, faulty_type: None, reason, asked: Value::Null }
    }

    pub(super) fn status(status: StatusCode, reason: impl Into<String>) -> Self {
        Self::bytes(status, "", Bytes::new()).because(reason)
    }

    pub(super) fn json(status: StatusCode, value: &Value) -> Self {
        Self::bytes(status, "application/json", value.to_string())
    }

    pub(super) fn fhir(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::bytes(status, "application/fhir+json", body)
    }

    /// A body with its type; without a type there is no `Content-Type`.
    pub(super) fn bytes(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Self {
        let body: Bytes = body.into();
        let mut response = Response::new(if body.is_empty() { empty() } else { full(body) });
        *response.status_mut() = status;
        let reply = Self::new(response);
        if kind.is_empty() { reply } else { reply.with(header::CONTENT_TYPE, kind) }
    }

    pub(super) fn redirect(status: StatusCode, to: &str) -> Self {
        Self::status(status, "ok").with(header::LOCATION, to)
    }

    /// Five gigabytes beginning with `start`, made as they are read.
    pub(super) fn endless(kind: &str, start: &'static str) -> Self {
        const CHUNK: usize = 64 * 1024;
        const CHUNKS: usize = 5 * 1024 * 1024 * 1024 / CHUNK;
        let filler = Bytes::from(vec![b'x'; CHUNK]);
        let chunks = std::iter::once(Bytes::from_static(start.as_bytes()))
            .chain(std::iter::repeat_n(filler, CHUNKS))
            .map(|chunk| Ok::<_, BodyError>(Frame::data(chunk)));
        let body = StreamBody::new(stream::iter(chunks)).boxed_unsync();
        Self::new(Response::new(body)).with(header::CONTENT_TYPE, kind)
    }

    pub(super) fn hanging(reason: impl Into<String>) -> Self {
        let mut reply = Self::status(StatusCode::GATEWAY_TIMEOUT, reason);
        reply.hangs = true;
        reply
    }

    /// Adds a header; a value that cannot stand in one is left out.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.response.headers_mut().insert(name, value);
        }
        self
    }

    /// Adds `Retry-After`, when there is one to add.
    pub(super) fn retry_after(self, value: Option<String>) -> Self {
        match value {
            Some(value) => self.with(header::RETRY_AFTER, &value),
            None => self,
        }
    }

    pub(super) fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    pub(super) fn asked(mut self, asked: Value) -> Self {
        self.asked = asked;
        self
    }

    pub(super) fn faulty(mut self) -> Self {
        self.faulty = true;
        self
    }

    pub(super) fn faulty_if(mut self, faulty: bool) -> Self {
        self.faulty |= faulty;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_parameter_is_seen_and_an_empty_one_is_absent() {
        let form = Form::parse(b"a=1&b=&a=2&c=x+y%26");
        assert_eq!(form.repeated(), Some("a"));
        assert_eq!(form.one("b"), None);
        assert_eq!(form.one("c"), Some("x y&"));
    }
}
