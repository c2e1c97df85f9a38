//! Writing JSON as text. Numbers are never parsed, so `7.0` stays `7.0`.

/// A JSON object being written, member by member.
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self(String::from("{"))
    }

    /// A member whose value is JSON already.
    #[must_use]
    pub(super) fn raw(mut self, key: &str, json: impl AsRef<str>) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(key);
        self.0.push_str("\":");
        self.0.push_str(json.as_ref());
        self
    }

    /// A text member.
    #[must_use]
    pub(super) fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, quoted(value))
    }

    /// An array member; an empty one is left out, as FHIR forbids empty arrays.
    #[must_use]
    pub(super) fn list(self, key: &str, items: &[String]) -> Self {
        if items.is_empty() { self } else { self.raw(key, format!("[{}]", items.join(","))) }
    }

    /// The finished object.
    pub(super) fn done(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// `text` as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `text` inside XHTML.
pub(super) fn markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A FHIR Coding. The vendor marks what the user picked, its own code as a rule.
pub(super) fn coding(system: &str, code: &str, display: &str, user_selected: bool) -> String {
    let coding = Object::new().text("system", system).text("code", code).text("display", display);
    coding.raw("userSelected", if user_selected { "true" } else { "false" }).done()
}

/// A `CodeableConcept`.
pub(super) fn concept(codings: &[String], text: &str) -> String {
    Object::new().list("coding", codings).text("text", text).done()
}

/// A `CodeableConcept` of one code from the FHIR terminology, as status and category elements have it.
pub(super) fn hl7(system: &str, code: &str, display: &str) -> String {
    let system = format!("http://terminology.hl7.org/CodeSystem/{system}");
    concept(&[coding(&system, code, display, false)], display)
}

/// A Reference; without `display` when that is empty.
pub(super) fn reference(resource_type: &str, id: &str, display: &str) -> String {
    let target = Object::new().text("reference", &format!("{resource_type}/{id}"));
    if display.is_empty() { target.done() } else { target.text("display", display).done() }
}

/// A Quantity in UCUM units.
pub(super) fn quantity(value: &str, unit: &str) -> String {
    let value = Object::new().raw("value", value).text("unit", unit);
    value.text("system", "http://unitsofmeasure.org").text("code", unit).done()
}

/// `scaled` / 10^`decimals`, with all its decimals: 70 with one decimal is `7.0`.
pub(super) fn decimal(scaled: u64, decimals: usize) -> String {
    let mut digits = format!("{scaled:0width$}", width = decimals + 1);
    if decimals > 0 {
        digits.insert(digits.len() - decimals, '.');
    }
    digits
}

/// What stands in for a value the source does not have: an element's extension.
pub(super) fn absent(reason: &str) -> String {
    let extension = Object::new()
        .text("url", "http://hl7.org/fhir/StructureDefinition/data-absent-reason")
        .text("valueCode", reason);
    Object::new().list("extension", &[extension.done()]).done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_keeps_its_zeros() {
        for (scaled, decimals, text) in [
            (70, 1, "7.0"),
            (110, 2, "1.10"),
            (5, 2, "0.05"),
            (50, 2, "0.50"),
            (12_000, 2, "120.00"),
            (7, 0, "7"),
        ] {
            assert_eq!(decimal(scaled, decimals), text);
        }
    }

    #[test]
    fn text_is_escaped_and_empty_lists_are_left_out() {
        let object = Object::new().text("a", "x \"y\"\n").list("b", &[]).raw("c", "[1.0]");
        assert_eq!(object.done(), r#"{"a":"x \"y\"\n","c":[1.0]}"#);
    }
}
