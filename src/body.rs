//! The body of every answer: bytes at hand, or a stream that is passed on as it arrives.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};

/// What can break a body while it is being sent; the other side sees a cut connection.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// An answer's body.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body of bytes at hand.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    full(Bytes::new())
}
