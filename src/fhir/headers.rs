//! Which headers pass, in both directions. Named one by one: what is not named, such as a cookie, a credential, a hop's
//! own header or what tells of somebody's network, stays where it is.

use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION,
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION, RETRY_AFTER, VARY,
};

use crate::fhir::FHIR_JSON;
use crate::fhir::links::LinkMap;
use crate::smart::token_response::AccessToken;

/// `Prefer`, as in `Prefer: handling=strict`.
pub(super) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// With the value `unchanged`, links lead to the EHR as it wrote them, and the body passes byte for byte.
pub(super) const LINKS: HeaderName = HeaderName::from_static("chartgate-links");

const TO_EHR: [HeaderName; 5] = [ACCEPT, ACCEPT_LANGUAGE, IF_NONE_MATCH, IF_MODIFIED_SINCE, PREFER];
const TO_APP: [HeaderName; 9] = [
    CONTENT_TYPE,
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_DISPOSITION,
    ETAG,
    LAST_MODIFIED,
    RETRY_AFTER,
    VARY,
];

/// How an answer's body is to be treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    /// Links are turned to the proxy.
    pub(super) links: bool,
    /// The caller can unpack gzip.
    pub(super) gzip: bool,
}

/// The headers of the request to the EHR, without the credential.
pub(super) fn to_ehr(asked: &HeaderMap, attachment: bool, request_id: &str) -> (HeaderMap, Wish) {
    let mut headers = HeaderMap::with_capacity(12);
    for name in TO_EHR {
        if let Some(value) = asked.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    // Some servers answer XML to whoever does not say; an attachment has its own type.
    let anything = headers.get(ACCEPT).is_none_or(|accept| accept.as_bytes().trim_ascii() == b"*/*");
    if anything && !attachment {
        headers.insert(ACCEPT, HeaderValue::from_static(FHIR_JSON));
    }
    let links = asked.get(LINKS).is_none_or(|value| value.as_bytes() != b"unchanged");
    let encodings = asked.get(ACCEPT_ENCODING);
    let wish = Wish { links, gzip: encodings.is_some_and(takes_gzip) };
    let encodings = if links && !attachment {
        // Records are text that shrinks to a tenth, and the way to the hospital is the long one. They are unpacked here.
        HeaderValue::from_static("gzip")
    } else {
        encodings.cloned().unwrap_or(HeaderValue::from_static("identity"))
    };
    headers.insert(ACCEPT_ENCODING, encodings);
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    (headers, wish)
}

/// Adds the access token. One that is no legal header value cannot be sent; the EHR will say 401, which is handled.
pub(super) fn authorize(headers: &mut HeaderMap, token: &AccessToken) {
    let token = token.expose();
    let mut text = String::with_capacity("Bearer ".len() + token.len());
    text.extend(["Bearer ", token]);
    if let Ok(mut value) = HeaderValue::try_from(text) {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
}

/// The headers of the answer to the app. A location below the base leads to the proxy; another is left out.
pub(super) fn to_app(answered: &HeaderMap, links: &LinkMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    for name in TO_APP {
        if let Some(value) = answered.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    for name in [LOCATION, CONTENT_LOCATION] {
        let ours = answered.get(&name).and_then(|value| value.to_str().ok());
        let ours = ours.and_then(|link| links.translate(link)).and_then(|link| link.parse().ok());
        if let Some(value) = ours {
            headers.insert(name, value);
        }
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
}

/// Whether an answer is FHIR in JSON, under any of its names.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    ["application/fhir+json", "application/json", "application/json+fhir"]
        .iter()
        .any(|known| kind.eq_ignore_ascii_case(known))
}

/// How an answer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    /// Something that is not unpacked here.
    Other,
}

pub(super) fn packing(headers: &HeaderMap) -> Packing {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Packing::None };
    match value.as_bytes().trim_ascii() {
        b"" | b"identity" => Packing::None,
        known if known.eq_ignore_ascii_case(b"gzip") || known.eq_ignore_ascii_case(b"x-gzip") => {
            Packing::Gzip
        }
        _ => Packing::Other,
    }
}

/// `gzip` or `*` in an `Accept-Encoding`, unless its weight is nought.
fn takes_gzip(value: &HeaderValue) -> bool {
    let text = value.to_str().unwrap_or_default();
    text.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|weight| {
            weight.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()).is_some_and(|q| q <= 0.0)
        });
        !refused && (name.eq_ignore_ascii_case("gzip") || name == "*")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_headers_reach_the_ehr() {
        let mut asked = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer mb_sk_sbx_x"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("connection", "x-secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("proxy-authorization", "Basic x"),
            ("origin", "https://app.example"),
            ("referer", "https://app.example/amy"),
            ("user-agent", "app/1"),
            ("host", "box.example"),
            ("accept", "application/fhir+json"),
            ("if-none-match", "W/\"1\""),
            ("if-modified-since", "Mon, 01 Jan 2024 00:00:00 GMT"),
            ("prefer", "handling=strict"),
            ("accept-encoding", "br, gzip"),
        ] {
            asked.insert(name, HeaderValue::from_static(value));
        }
        let (sent, wish) = to_ehr(&asked, false, "id-1");
        let mut names: Vec<&str> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected =
            ["accept", "accept-encoding", "if-modified-since", "if-none-match", "prefer", "x-request-id"];
        assert_eq!(names, expected);
        assert_eq!(
            (wish, &sent[ACCEPT_ENCODING]),
            (Wish { links: true, gzip: true }, &HeaderValue::from_static("gzip"))
        );
        let (sent, _) = to_ehr(&asked, true, "id-1");
        assert_eq!(sent[ACCEPT_ENCODING], "br, gzip", "an attachment's packing is the caller's own choice");
        asked.insert(LINKS, HeaderValue::from_static("unchanged"));
        let (sent, wish) = to_ehr(&asked, false, "id-1");
        assert_eq!((wish.links, &sent[ACCEPT_ENCODING]), (false, &HeaderValue::from_static("br, gzip")));
    }

    #[test]
    fn who_does_not_say_gets_json_and_an_attachment_its_own_type() {
        let check = |accept: Option<&'static str>, attachment: bool, expected: Option<&str>| {
            let mut asked = HeaderMap::new();
            if let Some(accept) = accept {
                asked.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            let (sent, _) = to_ehr(&asked, attachment, "id-1");
            assert_eq!(sent.get(ACCEPT).and_then(|value| value.to_str().ok()), expected);
        };
        check(None, false, Some(FHIR_JSON));
        check(Some("*/*"), false, Some(FHIR_JSON));
        check(Some("application/fhir+xml"), false, Some("application/fhir+xml"));
        check(None, true, None);
        check(Some("application/pdf"), true, Some("application/pdf"));
    }

    #[test]
    fn only_named_headers_reach_the_app() {
        let base = crate::smart::FhirBaseUrl::parse("https://h.example/r4").expect("a base");
        let links = LinkMap::new(&base, "https://box.example/fhir/conn_1");
        let mut answered = HeaderMap::new();
        for (name, value) in [
            ("set-cookie", "session=1"),
            ("server", "nginx/1"),
            ("www-authenticate", "Bearer"),
            ("authorization", "Bearer x"),
            ("access-control-allow-origin", "*"),
            ("strict-transport-security", "max-age=1"),
            ("content-security-policy", "default-src *"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("alt-svc", "h3=\":443\""),
            ("x-powered-by", "x"),
            ("content-type", "application/fhir+json"),
            ("etag", "W/\"1\""),
            ("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT"),
            ("location", "https://h.example/r4/Patient/1"),
            ("content-location", "https://evil.example/r4/Patient/1"),
            ("cache-control", "public, max-age=99"),
        ] {
            answered.insert(name, HeaderValue::from_static(value));
        }
        let passed = to_app(&answered, &links);
        let mut names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["cache-control", "content-type", "etag", "last-modified", "location"]);
        assert_eq!(passed[LOCATION], "https://box.example/fhir/conn_1/Patient/1");
        assert_eq!(passed[CACHE_CONTROL], "no-store");
    }

    #[test]
    fn gzip_is_taken_by_whoever_says_so() {
        let check = |text: &'static str, expected: bool| {
            assert_eq!(takes_gzip(&HeaderValue::from_static(text)), expected, "{text}");
        };
        check("gzip, deflate, br", true);
        check("br;q=1, *;q=0.1", true);
        check("gzip;q=0", false);
        check("gzip; q=0.0, br", false);
        check("identity", false);
        check("", false);
    }
}
