//! Whatever the bytes: reading a list ends, keeps its limits, and says the same twice; and any text can be searched.

use std::io::Read;

use chartgate::config::Environment;
use chartgate::directory::import::{ImportLimits, ReadList, read_list};
use chartgate::directory::{ImportRequest, MissingPlace};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::lists::directory;

const LIMITS: ImportLimits = ImportLimits { bytes: 1 << 20, row_bytes: 128 << 10, rows: 500, text: 64 << 10 };

/// Checks what must be true of anything that was read.
fn check(list: &ReadList) {
    let refused: usize = list.refused.values().sum();
    assert_eq!(list.rows, list.entries.len() + list.doubled + refused, "every row is accounted for");
    assert!(list.rows <= LIMITS.rows * 5, "{}", list.rows);
    let mut text = 0;
    for entry in &list.entries {
        assert!(entry.base.starts_with("https://"), "{}", entry.base);
        assert!(!entry.name.is_empty() && entry.name.chars().count() <= 200);
        assert!(!entry.name.chars().any(char::is_control), "{:?}", entry.name);
        let safe = entry.logo.is_empty()
            || entry.logo.starts_with("https://")
            || (entry.logo.starts_with("data:image/") && !entry.logo.contains("svg"));
        assert!(safe, "{}", entry.logo);
        assert!(
            entry.portals.iter().all(|portal| portal.url.is_empty() || portal.url.starts_with("https://"))
        );
        text += entry.name.len();
    }
    assert!(text <= LIMITS.text);
}

fn read(bytes: &[u8]) -> Option<ReadList> {
    let list = read_list(bytes, LIMITS).ok()?;
    check(&list);
    Some(list)
}

/// A reader that hands out a few bytes at a time.
struct Drops<'b>(&'b [u8], usize);

impl Read for Drops<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.len().min(self.1).min(into.len());
        into[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,40}",
        "\\PC{0,20}",
        Just("https://h.example/r4".to_owned()),
        Just("https://h.example/r4/../x".to_owned()),
        Just("javascript:alert(1)".to_owned()),
        Just("data:image/svg+xml;base64,AAAA".to_owned()),
        Just("Organization/a".to_owned()),
        Just("urn:uuid:a".to_owned()),
        Just("active".to_owned()),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((member(), inner), 0..6).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// Names that lists use, mostly.
fn member() -> impl Strategy<Value = String> {
    let known = [
        "resourceType",
        "entry",
        "resource",
        "fullUrl",
        "id",
        "name",
        "address",
        "endpoint",
        "partOf",
        "reference",
        "managingOrganization",
        "contained",
        "extension",
        "url",
        "valueUrl",
        "alias",
        "status",
        "total",
        "URL",
        "OrganizationName",
        "Endpoints",
        "city",
        "state",
        "postalCode",
    ];
    prop_oneof![4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "[a-zA-Z]{1,8}"]
}

fn resource() -> impl Strategy<Value = Value> {
    let kind = prop_oneof![Just("Organization"), Just("Endpoint"), Just("Patient")];
    (kind, prop::collection::vec((member(), any_json()), 0..8)).prop_map(|(kind, members)| {
        let mut resource: serde_json::Map<String, Value> = members.into_iter().collect();
        resource.insert("resourceType".to_owned(), json!(kind));
        json!({ "fullUrl": "urn:uuid:a", "resource": resource })
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        read(&bytes);
    }

    #[test]
    fn any_text_with_a_header_is_read_or_refused(rest in "(\\PC|[\"\\n,]){0,400}") {
        read(format!("name,url,state,zip\n{rest}").as_bytes());
    }

    #[test]
    fn any_json_is_read_or_refused(value in any_json()) {
        read(value.to_string().as_bytes());
        read(json!({ "Endpoints": value }).to_string().as_bytes());
        read(json!({ "resourceType": "Bundle", "entry": [value] }).to_string().as_bytes());
    }

    #[test]
    fn any_bundle_is_read_the_same_in_any_pieces(entries in prop::collection::vec(resource(), 0..12), piece in 1_usize..50) {
        let text = json!({ "resourceType": "Bundle", "entry": entries }).to_string();
        let whole = read(text.as_bytes()).map(|list| (list.entries, list.content, list.refused));
        let pieces = read_list(Drops(text.as_bytes(), piece), LIMITS).ok();
        prop_assert_eq!(whole, pieces.map(|list| (list.entries, list.content, list.refused)));
    }

    #[test]
    fn a_list_that_is_cut_anywhere_is_never_taken_for_a_whole_one(cut in 1_usize..400) {
        let text = json!({ "resourceType": "Bundle", "entry": (0..4).map(|number| json!({ "resource": {
            "resourceType": "Endpoint", "status": "active", "name": format!("N{number}"),
            "address": format!("https://h{number}.example/r4") } })).collect::<Vec<_>>() }).to_string();
        let end = text.len() - cut.min(text.len() - 1);
        prop_assert!(read_list(&text.as_bytes()[..end], LIMITS).is_err());
    }
}

#[test]
fn any_text_can_be_searched() {
    let (directory, _folder) = directory();
    let list = r#"[{"name":"Mercy Hospital","url":"https://fhir.mercy.example/api/FHIR/R4","city":"Fort Smith"},
        {"name":"St. Mary\u2019s Clinic","url":"https://h.example/r4","state":"AR"}]"#;
    let request = ImportRequest {
        list: "list".to_owned(),
        environment: Environment::Live,
        url: None,
        etag: None,
        yes: false,
    };
    let imported = directory.import(request, list.as_bytes(), ImportLimits::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(imported).expect("imported");
    let typed = prop_oneof![
        "\\PC{0,60}",
        "[ -~]{0,300}",
        "(https?://)?[a-z.:/%@?#-]{0,40}",
        "(mercy|st|mychart|[.,&' -]){0,12}"
    ];
    proptest!(|(text in typed)| {
        let found = directory.find(Environment::Live, &text, 5);
        prop_assert!(found.places.len() <= 5);
        // Also what somebody would be told apart by, and what a form takes of it.
        let _ = MissingPlace::read([&text, &text, &text, &text]);
    });
}
