//! Entity tags of single objects: whoever has one already is told so in a few bytes. RFC 9110 section 13.1.2.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use serde::Serialize;

use crate::api::ApiRequest;
use crate::crypto::{base64url, sha256};
use crate::http::Answer;

/// An object with its tag, or "not modified" when the caller names that tag.
pub fn object(request: &ApiRequest, value: &impl Serialize) -> Answer {
    // The wire structs hold no maps whose order varies, so equal objects have equal text.
    let text = serde_json::to_vec(value).expect("our own wire structs have string keys");
    let tag = format!("\"{}\"", base64url(&sha256(&text)[..12]));
    let lines = request.headers.get_all(IF_NONE_MATCH);
    let known = lines.iter().filter_map(|line| line.to_str().ok()).any(|line| names(line, &tag));
    let mut answer = if known {
        Answer::new(StatusCode::NOT_MODIFIED, "application/json", Bytes::new())
    } else {
        Answer::new(StatusCode::OK, "application/json", text)
    };
    if known {
        answer.headers_mut().remove(CONTENT_TYPE);
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer
}

/// Weak comparison: `W/` makes no difference. Our tags hold no comma, so a list may be cut at each.
fn names(line: &str, tag: &str) -> bool {
    line.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_named_alone_in_a_list_weakly_or_by_a_star() {
        for line in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "*", "\"b\",W/\"a\""] {
            assert!(names(line, "\"a\""), "{line}");
        }
        for line in ["", "a", "\"b\"", "\"A\"", "w/\"a\""] {
            assert!(!names(line, "\"a\""), "{line}");
        }
    }
}
