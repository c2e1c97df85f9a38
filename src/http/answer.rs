//! Answers and the headers that all of them carry.

use bytes::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION,
    REFERRER_POLICY, SET_COOKIE, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::body::{Body, full};

/// A UUID that names one request in the answer's header, in errors and in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// From the text of a UUID.
    pub fn new(uuid: String) -> Self {
        Self(uuid)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An answer before its common headers.
#[derive(Debug)]
pub struct Answer(Response<Body>);

impl Answer {
    /// Any body with its media type. Not to be cached, unless [`Answer::cached`] says so.
    pub fn new(status: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(full(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Self(response)
    }

    /// A body that is made while it is sent.
    pub fn stream(media: &'static str, body: Body) -> Self {
        let mut answer = Self::new(StatusCode::OK, media, Bytes::new());
        *answer.0.body_mut() = body;
        answer
    }

    /// An answer that another room has put together.
    pub fn made(response: Response<Body>) -> Self {
        Self(response)
    }

    /// A JSON body.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("our own wire structs have string keys");
        Self::new(status, "application/json", body)
    }

    /// A page.
    pub fn page(status: StatusCode, html: impl Into<Bytes>) -> Self {
        Self::new(status, "text/html; charset=utf-8", html)
    }

    /// "See other": the browser comes to `location` by GET. `None` when the address can be no header.
    pub fn see_other(location: &str) -> Option<Self> {
        let location = HeaderValue::from_str(location).ok()?;
        let mut answer = Self::new(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", Bytes::new());
        answer.headers_mut().insert(LOCATION, location);
        Some(answer)
    }

    /// May be kept by caches for this long, in seconds.
    #[must_use]
    pub fn cached(mut self, seconds: u32) -> Self {
        if let Ok(value) = HeaderValue::from_str(&format!("public, max-age={seconds}")) {
            self.headers_mut().insert(CACHE_CONTROL, value);
        }
        self
    }

    /// Sets a cookie.
    #[must_use]
    pub fn with_cookie(mut self, cookie: &str) -> Self {
        if let Ok(mut value) = HeaderValue::from_str(cookie) {
            value.set_sensitive(true);
            self.headers_mut().append(SET_COOKIE, value);
        }
        self
    }

    /// No page that follows learns this one's address.
    #[must_use]
    pub fn without_referrer(mut self) -> Self {
        self.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        self
    }

    /// May be shown inside another page: only for pages on which nothing can be decided and nothing learned.
    #[must_use]
    pub fn framable(mut self) -> Self {
        self.0.extensions_mut().insert(Framable);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }

    /// The headers.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.0.headers_mut()
    }

    /// The answer with the headers that every answer of ours has.
    pub fn finish(mut self, request_id: &RequestId, policy: HeaderPolicy) -> Response<Body> {
        let framable = self.0.extensions().get::<Framable>().is_some();
        let headers = self.0.headers_mut();
        if let Ok(id) = HeaderValue::from_str(request_id.as_str()) {
            headers.insert(HeaderName::from_static("x-request-id"), id);
        }
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // Not `no-referrer` everywhere: it makes browsers send `Origin: null` with our own forms.
        headers.entry(REFERRER_POLICY).or_insert(HeaderValue::from_static("same-origin"));
        headers.insert(
            HeaderName::from_static("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        );
        if framable {
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy.framable()));
        } else {
            headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy.content_security()));
        }
        if policy == HeaderPolicy::Secure {
            headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
        }
        self.0
    }
}

/// Marks an answer that may be shown inside another page.
#[derive(Debug, Clone, Copy)]
struct Framable;

/// How strict the common headers can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderPolicy {
    /// The box is reached over TLS.
    Secure,
    /// Plain HTTP on this machine: demo and development.
    Loopback,
}

impl HeaderPolicy {
    fn framable(self) -> &'static str {
        match self {
            Self::Secure => {
                "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; frame-ancestors https:"
            }
            Self::Loopback => {
                "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; frame-ancestors https: http:"
            }
        }
    }

    // `form-action` also governs where a form's answer may redirect to, and a launch redirects to any hospital.
    fn content_security(self) -> &'static str {
        match self {
            Self::Secure => {
                "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' https:; \
                 form-action 'self' https:; base-uri 'none'; frame-ancestors 'none'"
            }
            Self::Loopback => {
                "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                 img-src 'self' https: http:; form-action 'self' https: http:; base-uri 'none'; frame-ancestors 'none'"
            }
        }
    }
}
