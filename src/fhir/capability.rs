//! The EHR's CapabilityStatement, as it is true of the proxy: reading only, by API key, the types the key may read.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// What the proxy lets through (FHIR's `TypeRestfulInteraction`).
const READS: [&str; 5] = ["read", "vread", "search-type", "history-instance", "history-type"];

const SECURITY: &str = "Send an API key of the workspace as a bearer token. There is no SMART launch at this address: the \
                        patient has signed in at the hospital already.";

/// The statement for the proxy at `own`; `None` when it is none. Whatever is not about access stays as it came.
pub(super) fn rewrite(
    statement: &[u8],
    own: &str,
    cors: bool,
    may_read: impl Fn(&str) -> bool,
) -> Option<Vec<u8>> {
    let mut statement: Object = serde_json::from_slice(statement).ok()?;
    if statement.text("resourceType")? != "CapabilityStatement" {
        return None;
    }
    let about = serde_json::json!({ "description": "Live reading through Chartgate", "url": own });
    statement.set("implementation", &about)?;
    if let Some(rest) = statement.get("rest") {
        let mut rest: Vec<Object> = serde_json::from_str(rest.get()).ok()?;
        for one in &mut rest {
            one.set("security", &serde_json::json!({ "cors": cors, "description": SECURITY }))?;
            // What concerns the whole server: transactions, batches, searches over all types.
            one.remove(&["interaction", "operation", "compartment"]);
            let Some(resources) = one.get("resource") else { continue };
            let mut resources: Vec<Object> = serde_json::from_str(resources.get()).ok()?;
            resources.retain(|resource| resource.text("type").is_some_and(|name| may_read(&name)));
            for resource in &mut resources {
                resource.remove(&[
                    "conditionalCreate",
                    "conditionalUpdate",
                    "conditionalDelete",
                    "updateCreate",
                ]);
                let Some(interactions) = resource.get("interaction") else { continue };
                let mut interactions: Vec<Value> = serde_json::from_str(interactions.get()).ok()?;
                interactions.retain(|one| one["code"].as_str().is_some_and(|code| READS.contains(&code)));
                resource.set("interaction", &interactions)?;
            }
            one.set("resource", &resources)?;
        }
        statement.set("rest", &rest)?;
    }
    serde_json::to_vec(&statement).ok()
}

/// A JSON object with its members in their order and their texts as they came.
struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    fn set(&mut self, name: &str, value: &impl Serialize) -> Option<()> {
        let value = to_raw_value(value).ok()?;
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
        Some(())
    }

    fn remove(&mut self, names: &[&str]) {
        self.0.retain(|(known, _)| !names.contains(&known.as_str()));
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_statement_tells_of_the_proxy_and_keeps_the_rest() {
        let theirs = json!({
            "resourceType": "CapabilityStatement", "status": "active", "kind": "instance", "fhirVersion": "4.0.1",
            "implementation": {"description": "EHR", "url": "https://ehr.example/r4"},
            "rest": [{
                "mode": "server",
                "security": {"service": [{"coding": [{"code": "SMART-on-FHIR"}]}], "extension": [{"url": "oauth-uris"}]},
                "resource": [
                    {"type": "Observation", "conditionalCreate": true, "interaction": [
                        {"code": "read"}, {"code": "create"}, {"code": "search-type"}, {"code": "delete"}],
                     "searchParam": [{"name": "code"}]},
                    {"type": "Condition", "interaction": [{"code": "read"}]},
                ],
                "interaction": [{"code": "transaction"}],
            }],
        });
        let text = theirs.to_string().replace("\"4.0.1\"", "\"4.0.1\", \"_fhirVersion\": {\"x\": 1.10}");
        let ours =
            rewrite(text.as_bytes(), "https://box.example/fhir/conn_1", false, |name| name == "Observation");
        let text = String::from_utf8(ours.expect("a statement")).expect("text");
        let ours: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(ours["implementation"]["url"], "https://box.example/fhir/conn_1");
        assert!(
            !text.contains("SMART-on-FHIR") && !text.contains("oauth-uris") && !text.contains("ehr.example")
        );
        assert_eq!(ours["rest"][0]["security"]["cors"], false);
        assert_eq!(
            ours["rest"][0]["resource"],
            json!([{
                "type": "Observation", "interaction": [{"code": "read"}, {"code": "search-type"}], "searchParam": [{"name": "code"}],
            }])
        );
        assert_eq!(ours["rest"][0].get("interaction"), None);
        assert!(text.contains("1.10"), "what is not about access is not touched");
    }

    #[test]
    fn what_is_no_statement_is_not_passed_off_as_one() {
        for text in [
            "",
            "[]",
            "{}",
            "<html>",
            r#"{"resourceType":"Patient"}"#,
            r#"{"resourceType":"CapabilityStatement","rest":7}"#,
        ] {
            assert_eq!(rewrite(text.as_bytes(), "x", false, |_| true), None, "{text}");
        }
    }
}
