//! What a request asks for, below the FHIR base. The path is read by a grammar, decoded once, and written anew from what
//! was read, so nothing that another server might read in another way can be in it (invariant: an access token is sent
//! below its base only).

use std::borrow::Cow;

use hyper::Uri;
use percent_encoding::percent_decode_str;

use crate::events::Interaction;
use crate::smart::FhirBaseUrl;
use crate::workspaces::ResourceType;

/// Segments of one address at most: `Patient/1/_history/2` has four.
const MOST_SEGMENTS: usize = 6;
/// Letters of one segment at most. FHIR's ids end at 64; some vendors' do not.
const LONGEST_SEGMENT: usize = 256;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// The CapabilityStatement.
    Metadata,
    /// The SMART configuration.
    SmartConfiguration,
    /// The base itself, which some servers' page links ask.
    Base,
    /// Something that begins with a resource type.
    Resource(Resource),
}

/// An address below a type, written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    /// The type at its beginning.
    pub(super) resource_type: ResourceType,
    path: String,
}

impl Target {
    /// Reads what follows the connection's id in a path, as it came: empty, or beginning with a slash.
    pub(super) fn parse(path: &str) -> Option<Self> {
        match path {
            "" | "/" => return Some(Self::Base),
            "/metadata" => return Some(Self::Metadata),
            "/.well-known/smart-configuration" => return Some(Self::SmartConfiguration),
            _ => {}
        }
        let mut written = String::with_capacity(path.len());
        let mut first = None;
        for (index, raw) in path.strip_prefix('/')?.split('/').enumerate() {
            let segment = decoded(raw)?;
            if index == 0 {
                first = Some(ResourceType::parse(&segment)?);
            } else if index >= MOST_SEGMENTS || !is_segment(&segment) {
                return None;
            } else {
                written.push('/');
            }
            written.push_str(&segment);
        }
        Some(Self::Resource(Resource { resource_type: first?, path: written }))
    }

    /// The name for the log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::SmartConfiguration => "smart-configuration",
            Self::Base => "base",
            Self::Resource(resource) => resource.resource_type.name(),
        }
    }

    /// What it does, for the record of accesses.
    pub(super) fn interaction(&self) -> Interaction {
        let Self::Resource(resource) = self else {
            return if *self == Self::Base { Interaction::Search } else { Interaction::Capabilities };
        };
        let mut rest = resource.path.split('/').skip(1);
        if rest.clone().any(|segment| segment.starts_with('$')) {
            return Interaction::Operation;
        }
        match (rest.next(), rest.next(), rest.next()) {
            (Some("_history"), ..) | (_, Some("_history"), None) => Interaction::History,
            (None | Some("_search"), ..) => Interaction::Search,
            (Some(_), None | Some("_history"), _) => Interaction::Read,
            // A compartment.
            (Some(_), Some(_), _) => Interaction::Search,
        }
    }

    /// The address at the EHR. The query is passed on byte for byte: page contexts are opaque.
    pub(super) fn uri(&self, base: &FhirBaseUrl, query: Option<&str>) -> Option<Uri> {
        let path = match self {
            Self::Metadata => "metadata",
            Self::SmartConfiguration => ".well-known/smart-configuration",
            Self::Base => "",
            Self::Resource(resource) => &resource.path,
        };
        let (origin, root) = (base.origin(), base.path());
        let mut text =
            String::with_capacity(origin.len() + root.len() + path.len() + query.map_or(0, str::len) + 2);
        text.extend([origin, root]);
        if !path.is_empty() {
            text.extend(["/", path]);
        }
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            text.extend(["?", query]);
        }
        text.parse().ok()
    }
}

impl Resource {
    /// The path without the `_search` at its end, if this is a search by form.
    pub(super) fn searched(&self) -> Option<Self> {
        let path = self.path.strip_suffix("/_search")?.to_owned();
        Some(Self { resource_type: self.resource_type, path })
    }

    /// Whether more than resources of the first type may come back: a compartment, or an operation.
    pub(super) fn reaches_further(&self) -> bool {
        let mut rest = self.path.split('/').skip(1);
        rest.any(|segment| {
            segment.starts_with('$') || ResourceType::parse(segment).is_some() || segment == "*"
        })
    }
}

fn decoded(raw: &str) -> Option<Cow<'_, str>> {
    if raw.contains('%') { percent_decode_str(raw).decode_utf8().ok() } else { Some(Cow::Borrowed(raw)) }
}

/// An id, `_history`, `_search`, an operation, or a type of a compartment. None of these letters means anything to a URL.
fn is_segment(segment: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'$');
    let dots = segment.bytes().all(|byte| byte == b'.');
    !segment.is_empty() && !dots && segment.len() <= LONGEST_SEGMENT && segment.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Random;
    use url::Url;

    fn base() -> FhirBaseUrl {
        FhirBaseUrl::parse("https://h.example/r4/t").expect("a base")
    }

    #[test]
    fn what_fhir_clients_ask_reaches_the_same_address_below_the_base() {
        let check = |path: &str, query: Option<&str>, expected: &str| {
            let target = Target::parse(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(target.uri(&base(), query).expect("a uri").to_string(), expected, "{path}");
        };
        check("/Patient/1", None, "https://h.example/r4/t/Patient/1");
        check(
            "/Observation",
            Some("patient=1&-pageContext=a%3D%3D"),
            "https://h.example/r4/t/Observation?patient=1&-pageContext=a%3D%3D",
        );
        check(
            "/Binary/$autogen-ccd-if",
            Some("patient=1"),
            "https://h.example/r4/t/Binary/$autogen-ccd-if?patient=1",
        );
        check("/Patient/1/%24everything", None, "https://h.example/r4/t/Patient/1/$everything");
        check("/Patient/a.b-c_d~e/_history/2", None, "https://h.example/r4/t/Patient/a.b-c_d~e/_history/2");
        check("/metadata", Some("mode=full"), "https://h.example/r4/t/metadata?mode=full");
        check("", Some("_getpages=x"), "https://h.example/r4/t?_getpages=x");
        check("/", None, "https://h.example/r4/t");
        check(
            "/Observation",
            Some("code=..%2F..&x=/../"),
            "https://h.example/r4/t/Observation?code=..%2F..&x=/../",
        );
    }

    #[test]
    fn each_address_has_its_interaction() {
        let check = |path: &str, expected: Interaction| {
            let target = Target::parse(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(target.interaction(), expected, "{path}");
        };
        check("/metadata", Interaction::Capabilities);
        check("/", Interaction::Search);
        check("/Observation", Interaction::Search);
        check("/Observation/_search", Interaction::Search);
        check("/Patient/1/Observation", Interaction::Search);
        check("/Patient/1/Observation/_search", Interaction::Search);
        check("/Patient/1", Interaction::Read);
        check("/Patient/1/_history/2", Interaction::Read);
        check("/Patient/1/_history", Interaction::History);
        check("/Patient/_history", Interaction::History);
        check("/Patient/1/$everything", Interaction::Operation);
        check("/Observation/$lastn", Interaction::Operation);
    }

    #[test]
    fn nothing_else_is_an_address() {
        for path in [
            "/..",
            "/../admin",
            "/Patient/..",
            "/Patient/../../x",
            "/Patient/%2e%2e/x",
            "/Patient/.%2E",
            "/%2e%2e/x",
            "/Patient/%252e%252e/x",
            "/Patient/..;x/y",
            "/Patient/..%5c..",
            "/Patient\\..\\x",
            "/Patient/a\\b",
            "//evil.example/x",
            "//Patient/1",
            "/Patient//1",
            "/Patient/",
            "/Patient/1/",
            "/https://evil.example/",
            "/https:%2f%2fevil.example",
            "/Patient/@evil.example",
            "/Patient/a%40b",
            "/@evil.example/Patient",
            "/Patient/1%2F2",
            "/Patient/1%3Fx=1",
            "/Patient/1%23x",
            "/Patient/%00",
            "/Patient/%0d%0aHost:x",
            "/Patient/a b",
            "/Patient/%ff",
            "/patient/1",
            "/Nothing",
            "/$export",
            "/_history",
            "/_search",
            "/.well-known/openid-configuration",
            "/metadata/",
            "/metadata/x",
            "/Patient/ä",
            "Patient/1",
            "/Patient;x=1",
            "/Patient/1/_history/2/a/b/c",
        ] {
            assert_eq!(Target::parse(path), None, "{path}");
        }
        assert_eq!(Target::parse(&format!("/Patient/{}", "a".repeat(LONGEST_SEGMENT + 1))), None);
    }

    #[test]
    fn whatever_is_sent_the_address_is_below_the_base() {
        let (base, random) = (base(), Random::seeded(3));
        let pieces = [
            "/",
            "//",
            ".",
            "..",
            "%2e",
            "%2E%2e",
            "%252e",
            "\\",
            "%5c",
            "@",
            ":",
            "https://",
            "evil.example",
            "Patient",
            "Observation",
            "1",
            "$x",
            "?",
            "#",
            ";",
            "%2f",
            "%00",
            "_search",
            "~",
            "&",
            "=",
            "[",
            "]",
            "metadata",
        ];
        let (mut read, mut paths) = (0, 0);
        for _ in 0..50_000 {
            let mut path = if random.below(2) == 0 { "/Patient".to_owned() } else { String::new() };
            for _ in 0..random.below(5) {
                path.push_str(pieces[usize::try_from(random.below(pieces.len() as u64)).expect("small")]);
            }
            let query = pieces[usize::try_from(random.below(pieces.len() as u64)).expect("small")];
            paths += 1;
            let Some(uri) = Target::parse(&path).and_then(|target| target.uri(&base, Some(query))) else {
                continue;
            };
            read += 1;
            let url = Url::parse(&uri.to_string()).expect("a URL");
            assert!(base.covers(&url), "{path} became {uri}");
            assert_eq!((uri.host(), uri.scheme_str()), (Some("h.example"), Some("https")), "{path}");
        }
        assert!(read > 100 && read < paths, "{read} of {paths}");
    }

    #[test]
    fn what_reaches_beyond_one_type_is_seen() {
        let check = |path: &str, further: bool| {
            let Some(Target::Resource(resource)) = Target::parse(path) else { panic!("{path}") };
            assert_eq!(resource.reaches_further(), further, "{path}");
        };
        check("/Observation", false);
        check("/Observation/1", false);
        check("/Patient/1/_history", false);
        check("/Patient/1/Observation", true);
        check("/Patient/1/$everything", true);
    }
}
