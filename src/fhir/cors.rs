//! Which web pages may ask from a browser. None, unless the operator lists their origins.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::{Response, StatusCode};

use crate::body::{Body, empty};

/// Origins such as `https://app.example`.
#[derive(Debug, Clone, Default)]
pub(super) struct Cors(Vec<String>);

impl Cors {
    pub(super) fn new(origins: Vec<String>) -> Self {
        Self(origins)
    }

    pub(super) fn is_open(&self) -> bool {
        !self.0.is_empty()
    }

    /// The request's origin, if it is listed.
    pub(super) fn listed(&self, asked: &HeaderMap) -> Option<HeaderValue> {
        let origin = asked.get(ORIGIN)?;
        self.0.iter().any(|known| known.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }

    /// Lets the page of a listed origin read an answer.
    pub(super) fn decorate(&self, origin: Option<HeaderValue>, answer: &mut HeaderMap) {
        if !self.is_open() {
            return;
        }
        answer.append(VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = origin else { return };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let exposed = "ETag, Last-Modified, Location, Content-Location, Retry-After, X-Request-Id";
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
    }

    /// The answer to a browser that asks first. It carries no credential, so it tells nothing.
    pub(super) fn preflight(&self, asked: &HeaderMap) -> Response<Body> {
        let mut answer = Response::new(empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let origin = self.listed(asked);
        let headers = answer.headers_mut();
        if origin.is_some() {
            let allowed = "Authorization, Accept, Accept-Language, Content-Type, If-None-Match, If-Modified-Since, \
                           Prefer, Chartgate-Links, Version";
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST"));
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
        self.decorate(origin, headers);
        answer
    }
}
