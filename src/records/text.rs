//! JSON whose text matters: FHIR decimals keep their digits (`1.10` stays `1.10`), so resources are never parsed into
//! numbers and written out again.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// An object's members in their order, each value as its own text.
#[derive(Debug)]
pub struct Members<'j>(pub Vec<(String, &'j RawValue)>);

impl<'de: 'j, 'j> Deserialize<'de> for Members<'j> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// The system under which the caller's id stands in `Patient.identifier`.
const PATIENT_ID_SYSTEM: &str = "urn:medblocks:patient-id";

/// A `Patient` with the caller's id appended to its identifiers; everything else keeps its text. `None` when the
/// resource cannot be taken apart.
pub fn with_patient_id(resource: &RawValue, patient_id: &str) -> Option<Box<RawValue>> {
    #[derive(Serialize)]
    struct Identifier<'i> {
        system: &'static str,
        value: &'i str,
    }
    let own =
        serde_json::value::to_raw_value(&Identifier { system: PATIENT_ID_SYSTEM, value: patient_id }).ok()?;
    let members: Members<'_> = serde_json::from_str(resource.get()).ok()?;
    let mut identifiers: Vec<&RawValue> = Vec::new();
    let mut others = Vec::new();
    for (name, value) in &members.0 {
        if name == "identifier" {
            identifiers.extend(serde_json::from_str::<Vec<&RawValue>>(value.get()).ok()?);
        } else {
            others.push((name.as_str(), *value));
        }
    }
    identifiers.push(&own);
    let identifiers = serde_json::value::to_raw_value(&identifiers).ok()?;
    others.push(("identifier", &identifiers));
    serde_json::value::to_raw_value(&Object(others)).ok()
}

/// A name to greet a patient with: the text, else given and family names, of the first name that is not an old one.
pub fn patient_name(json: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Patient {
        #[serde(default)]
        name: Vec<Name>,
    }
    #[derive(Deserialize)]
    struct Name {
        r#use: Option<String>,
        text: Option<String>,
        #[serde(default)]
        given: Vec<Option<String>>,
        family: Option<String>,
    }
    let patient: Patient = serde_json::from_str(json).ok()?;
    let name = patient.name.iter().find(|name| name.r#use.as_deref() != Some("old"))?;
    let joined = || {
        let parts = name.given.iter().flatten().chain(&name.family);
        parts.map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    let text = name.text.clone().unwrap_or_else(joined);
    (!text.trim().is_empty()).then(|| text.chars().take(200).collect())
}

/// Writes members in their order.
struct Object<'j>(Vec<(&'j str, &'j RawValue)>);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_id_is_appended_and_nothing_else_changes() {
        let check = |before: &str, after: &str| {
            let raw: &RawValue = serde_json::from_str(before).expect("json");
            assert_eq!(
                with_patient_id(raw, "amy \"7\"").map(|raw| raw.get().to_owned()).as_deref(),
                Some(after)
            );
        };
        check(
            r#"{"resourceType":"Patient","x":1.10,"identifier":[{"value":"a","n":7.0}],"id":"p"}"#,
            r#"{"resourceType":"Patient","x":1.10,"id":"p","identifier":[{"value":"a","n":7.0},{"system":"urn:medblocks:patient-id","value":"amy \"7\""}]}"#,
        );
        check(
            r#"{"resourceType":"Patient"}"#,
            r#"{"resourceType":"Patient","identifier":[{"system":"urn:medblocks:patient-id","value":"amy \"7\""}]}"#,
        );
    }
}
