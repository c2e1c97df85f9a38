//! Taking bundles apart, and rewriting references inside JSON text without parsing its values.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// What of a Bundle matters here; the resources stay text.
#[derive(Deserialize)]
pub(super) struct Bundle<'a> {
    #[serde(default, borrow)]
    pub(super) entry: Vec<BundleEntry<'a>>,
}

/// One entry; a delete or an answer's status has no resource.
#[derive(Deserialize)]
pub(super) struct BundleEntry<'a> {
    #[serde(default, borrow, rename = "fullUrl")]
    pub(super) full_url: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(super) resource: Option<&'a RawValue>,
}

/// The id that a `urn:uuid:` URL can lend to a resource without one.
pub(super) fn id_of_urn(full_url: &str) -> Option<&str> {
    full_url.strip_prefix("urn:uuid:").filter(|id| !id.is_empty())
}

/// Puts a JSON text on one line, character by character the same otherwise, except that each `reference` found in
/// `renamed` takes its new value. `id`, when given, is added as the first member of the (outermost) object.
pub(super) fn one_line(text: &str, id: Option<&str>, renamed: &HashMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.trim_start();
    if let (Some(id), Some(members)) = (id, rest.strip_prefix('{')) {
        // A resource has at least a `resourceType`, so a comma follows.
        out.push_str("{\"id\":");
        out.push_str(&super::json::quoted(id));
        out.push(',');
        rest = members;
    }
    // Whether the text is just behind `"reference":`.
    let mut key_seen = false;
    while let Some(next) = rest.find(|letter: char| letter == '"' || letter.is_ascii_whitespace()) {
        let (plain, from) = rest.split_at(next);
        out.push_str(plain);
        key_seen &= plain.is_empty() || plain == ":";
        if !from.starts_with('"') {
            rest = from.trim_start_matches(|letter: char| letter.is_ascii_whitespace());
            continue;
        }
        let (string, after) = from.split_at(string_length(from));
        let target = if key_seen { renamed.get(string.trim_matches('"')) } else { None };
        match target {
            Some(target) => out.push_str(&super::json::quoted(target)),
            None => out.push_str(string),
        }
        key_seen = string == "\"reference\"" && after.trim_start().starts_with(':');
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The length in bytes of the JSON string that `text` begins with, both quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().enumerate().skip(1).find(|(_, byte)| {
        let closing = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closing
    });
    end.map_or(text.len(), |(position, _)| position + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, id: Option<&str>, expected: &str) {
        let renamed = HashMap::from([("urn:uuid:1".to_owned(), "Patient/p".to_owned())]);
        assert_eq!(one_line(text, id, &renamed), expected);
    }

    #[test]
    fn only_references_are_rewritten_and_numbers_and_texts_keep_their_characters() {
        check(
            "{ \"a\" : 7.0,\r\n \"subject\": {\n  \"reference\" : \"urn:uuid:1\" },\n \"note\": \"urn:uuid:1\" }",
            None,
            r#"{"a":7.0,"subject":{"reference":"Patient/p"},"note":"urn:uuid:1"}"#,
        );
        check(
            r#"{"t":"a \"reference\" : \\", "reference":"urn:uuid:2", "x":["urn:uuid:1"] }"#,
            None,
            r#"{"t":"a \"reference\" : \\","reference":"urn:uuid:2","x":["urn:uuid:1"]}"#,
        );
        // A key that is called `reference` but holds an object (as in Provenance.entity) passes nothing on.
        check(
            r#"{"reference": {"a": "urn:uuid:1"}, "list":["reference", "urn:uuid:1"]}"#,
            None,
            r#"{"reference":{"a":"urn:uuid:1"},"list":["reference","urn:uuid:1"]}"#,
        );
    }

    #[test]
    fn an_id_is_put_first() {
        check("{\n \"resourceType\": \"Basic\" }", Some("x"), r#"{"id":"x","resourceType":"Basic"}"#);
    }
}
