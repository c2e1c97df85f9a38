//! What a resource points at: other resources, and attachments. Addresses only come out of here as places below the FHIR
//! base that the token belongs to.

use std::collections::HashSet;

use memchr::memmem;
use serde::Deserialize;
use url::Url;

use crate::smart::FhirBaseUrl;

/// No resource refers to more than this in earnest.
const MOST: usize = 10_000;
/// The longest address that is looked at.
const LONGEST: usize = 2048;

/// A document's file, as the document names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Where it is, as it is written.
    pub url: String,
    /// Its media type.
    pub content_type: Option<String>,
}

/// Where an attachment can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This `Binary`, at this address below the base.
    Binary {
        /// Its id.
        id: String,
        /// Its address, to be joined to the base.
        address: String,
    },
    /// It is made when it is asked for (`$…`), anew each time: there is nothing to keep.
    OnDemand,
    /// On another server, or no `Binary`.
    Elsewhere,
}

/// The resources of these types that a resource refers to, as type and id.
pub fn references<'t>(json: &str, base: &FhirBaseUrl, types: &[&'t str]) -> Vec<(&'t str, String)> {
    let mut found: Vec<(&str, String)> = Vec::new();
    if types.is_empty() {
        return found;
    }
    let mut known = HashSet::new();
    for at in memmem::find_iter(json.as_bytes(), b"\"reference\"") {
        let Some(text) = string_after(&json[at + 11..]) else { continue };
        let Some((resource_type, id)) = below(&text, base) else { continue };
        let Some(kind) = types.iter().find(|known| **known == resource_type) else { continue };
        if found.len() < MOST && known.insert((*kind, id.clone())) {
            found.push((*kind, id));
        }
    }
    found
}

/// The text that is the value of the name just before.
fn string_after(rest: &str) -> Option<String> {
    let text = rest.trim_start().strip_prefix(':')?.trim_start();
    let inner = text.strip_prefix('"')?;
    let end = inner.bytes().take(LONGEST).position(|byte| byte == b'"' || byte == b'\\')?;
    if inner.as_bytes()[end] == b'"' {
        return Some(inner[..end].to_owned());
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    values.next()?.ok().filter(|text| text.len() <= LONGEST)
}

/// Type and id of a reference to a resource of this server.
fn below(reference: &str, base: &FhirBaseUrl) -> Option<(String, String)> {
    let path = if reference.contains("://") {
        let url = Url::parse(reference).ok().filter(|url| base.covers(url))?;
        url.path().strip_prefix(base.path())?.trim_start_matches('/').to_owned()
    } else {
        reference.to_owned()
    };
    let path = path.split("/_history").next()?;
    let (resource_type, id) = path.split_once('/')?;
    is_id(id).then(|| (resource_type.to_owned(), id.to_owned()))
}

/// Whether a text is an id that means nothing to a URL: the letters of FHIR's ids, and those that servers use besides.
fn is_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    !text.is_empty() && text.len() <= 256 && text.bytes().all(plain) && text.bytes().any(|byte| byte != b'.')
}

/// The attachments that a document or a report names by address; one that was entered in error has none to read.
pub fn attachments(resource_type: &str, json: &str) -> Vec<Attachment> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        status: Option<String>,
        #[serde(default)]
        content: Vec<Content>,
        #[serde(default)]
        presented_form: Vec<File>,
    }
    #[derive(Deserialize)]
    struct Content {
        attachment: Option<File>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct File {
        content_type: Option<String>,
        url: Option<String>,
    }
    let named = matches!(resource_type, "DocumentReference" | "DiagnosticReport");
    if !named || memmem::find(json.as_bytes(), b"\"url\"").is_none() {
        return Vec::new();
    }
    let Ok(document) = serde_json::from_str::<Document>(json) else { return Vec::new() };
    if document.status.as_deref() == Some("entered-in-error") {
        return Vec::new();
    }
    let files = document.content.into_iter().filter_map(|content| content.attachment);
    let files = files.chain(document.presented_form);
    let named = files.filter_map(|file| {
        let url = file.url.filter(|url| !url.is_empty() && url.len() <= LONGEST)?;
        Some(Attachment { url, content_type: file.content_type })
    });
    named.collect()
}

/// Where an attachment is. `aliases` are hosts under which the vendor's records name what is served below the base: such
/// an address is written anew on the base, and nothing is ever sent to the host it names.
pub fn place(url: &str, base: &FhirBaseUrl, aliases: &[&str]) -> Place {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let mut segments = path.rsplit('/');
    let (id, kind) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    if kind != "Binary" {
        return Place::Elsewhere;
    }
    let rewritten = || Place::Binary { id: id.to_owned(), address: format!("Binary/{id}") };
    let place = match Url::parse(url) {
        Ok(absolute) if base.covers(&absolute) => {
            Place::Binary { id: id.to_owned(), address: absolute.to_string() }
        }
        Ok(absolute) => {
            let host = absolute.host_str().unwrap_or_default();
            let known = |alias: &str| {
                host == alias || host.strip_suffix(alias).is_some_and(|rest| rest.ends_with('.'))
            };
            if aliases.iter().any(|alias| known(alias)) { rewritten() } else { Place::Elsewhere }
        }
        Err(_) if path == format!("Binary/{id}") => rewritten(),
        Err(_) => match base.resolve(url) {
            Ok(resolved) if url.starts_with('/') && base.covers(&resolved) => {
                Place::Binary { id: id.to_owned(), address: resolved.to_string() }
            }
            _ => Place::Elsewhere,
        },
    };
    match place {
        Place::Binary { .. } if id.starts_with('$') => Place::OnDemand,
        Place::Binary { .. } if !is_id(id) => Place::Elsewhere,
        Place::Binary { .. } | Place::OnDemand | Place::Elsewhere => place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> FhirBaseUrl {
        FhirBaseUrl::parse("https://ehr.example/r4/T-1").expect("a base")
    }

    #[test]
    fn references_to_this_server_are_found_once_each() {
        let json = r##"{"performer":[{"reference":"Practitioner/1"},{"reference" : "Practitioner/1"}],
            "a":{"reference":"https://ehr.example/r4/T-1/Organization/o.2/_history/3"},
            "b":{"reference":"https://other.example/r4/T-1/Organization/9"},"c":{"reference":"Practitioner\/a-7"},
            "d":{"reference":"#Practitioner/5"},"e":{"reference":"Location/../7"},"f":{"reference":7},
            "g":{"reference":"urn:uuid:1"},"h":{"reference":"Patient/p"}}"##;
        let found = references(json, &base(), &["Practitioner", "Organization", "Location"]);
        let expected = [("Practitioner", "1"), ("Organization", "o.2"), ("Practitioner", "a-7")];
        assert_eq!(found.iter().map(|(kind, id)| (*kind, id.as_str())).collect::<Vec<_>>(), expected);
        assert!(references(json, &base(), &[]).is_empty());
    }

    #[test]
    fn attachments_are_read_from_documents_and_reports_that_are_not_mistakes() {
        let document = r#"{"resourceType":"DocumentReference","content":[{"attachment":{"contentType":"application/pdf","url":"Binary/1"}},
            {"attachment":{"data":"aGk=","contentType":"text/plain"}},{}]}"#;
        let found = attachments("DocumentReference", document);
        assert_eq!(
            found,
            [Attachment { url: "Binary/1".into(), content_type: Some("application/pdf".into()) }]
        );
        let report = r#"{"presentedForm":[{"url":"Binary/2"}]}"#;
        assert_eq!(attachments("DiagnosticReport", report).len(), 1);
        assert!(attachments("Observation", report).is_empty());
        let mistake = r#"{"status":"entered-in-error","presentedForm":[{"url":"Binary/2"}]}"#;
        assert!(attachments("DiagnosticReport", mistake).is_empty());
    }

    #[test]
    fn an_attachment_is_below_the_base_or_it_is_not_read() {
        let at = |id: &str, address: &str| Place::Binary { id: id.into(), address: address.into() };
        let check = |url: &str, aliases: &[&str], expected: Place| {
            assert_eq!(place(url, &base(), aliases), expected, "{url}");
        };
        check("Binary/XR-1", &[], at("XR-1", "Binary/XR-1"));
        check(
            "https://ehr.example/r4/T-1/Binary/XR-1?a=b",
            &[],
            at("XR-1", "https://ehr.example/r4/T-1/Binary/XR-1?a=b"),
        );
        check("/r4/T-1/Binary/2", &[], at("2", "https://ehr.example/r4/T-1/Binary/2"));
        check("https://fhir.vendor.example/T/Binary/XR-1", &["vendor.example"], at("XR-1", "Binary/XR-1"));
        check("https://fhir.vendor.example/T/Binary/XR-1", &[], Place::Elsewhere);
        check("https://evilvendor.example/T/Binary/XR-1", &["vendor.example"], Place::Elsewhere);
        check("https://ehr.example/r4/T-2/Binary/XR-1", &[], Place::Elsewhere);
        check("https://ehr.example/r4/T-1/../T-2/Binary/XR-1", &[], Place::Elsewhere);
        check("https://user:word@ehr.example/r4/T-1/Binary/1", &[], Place::Elsewhere);
        check("/r4/T-2/Binary/2", &[], Place::Elsewhere);
        check("../Binary/2", &[], Place::Elsewhere);
        check("Binary/..", &[], Place::Elsewhere);
        check("Binary/a%2F..", &[], Place::Elsewhere);
        check("https://pictures.example/scan.pdf", &["vendor.example"], Place::Elsewhere);
        let on_demand = "https://fhir.vendor.example/T/Binary/$autogen-ccd-if?patient=p";
        check(on_demand, &["vendor.example"], Place::OnDemand);
        check(on_demand, &[], Place::Elsewhere);
    }
}
