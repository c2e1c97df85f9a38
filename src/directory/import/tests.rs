use std::io::Write as _;

use super::*;
use crate::directory::entries::EntryKind;

fn read(text: &str) -> Result<ReadList, ImportError> {
    read_list(text.as_bytes(), ImportLimits::default())
}

fn list(text: &str) -> ReadList {
    read(text).expect("a list")
}

fn only(text: &str) -> DirectoryEntry {
    let mut list = list(text);
    assert_eq!(list.entries.len(), 1, "{list:?}");
    list.entries.remove(0)
}

fn bundle(entries: &[&str]) -> String {
    let entries: Vec<String> =
        entries.iter().map(|resource| format!(r#"{{"resource":{resource}}}"#)).collect();
    format!(r#"{{"resourceType":"Bundle","entry":[{}]}}"#, entries.join(","))
}

#[test]
fn an_organization_names_its_endpoint_and_a_facility_its_parent() {
    let text = r#"{"resourceType":"Bundle","entry":[
      {"fullUrl":"urn:uuid:f","resource":{"resourceType":"Organization","id":"f","name":"RANSOM CLINIC",
        "address":[{"line":["1 Rd"],"city":"Ransom","state":"Kansas","postalCode":"67572-1234"}],
        "partOf":{"reference":"urn:uuid:b"}}},
      {"fullUrl":"urn:uuid:b","resource":{"resourceType":"Organization","id":"b","name":"Big Brand",
        "endpoint":[{"reference":"urn:uuid:e"},{"reference":"urn:uuid:e2"}]}},
      {"fullUrl":"urn:uuid:lost","resource":{"resourceType":"Organization","id":"lost","name":"Lost",
        "partOf":{"reference":"urn:uuid:nobody"}}},
      {"fullUrl":"urn:uuid:e","resource":{"resourceType":"Endpoint","id":"e","status":"active",
        "connectionType":{"code":"hl7-fhir-rest"},"address":"https://h.example/api/FHIR/R4/"}},
      {"fullUrl":"urn:uuid:e2","resource":{"resourceType":"Endpoint","id":"e2","status":"active",
        "address":"https://h.example/api/FHIR/R4"}}]}"#;
    let list = list(text);
    let [brand, facility] = list.entries.as_slice() else { panic!("{:?}", list.entries) };
    assert_eq!((brand.kind, brand.name.as_str()), (EntryKind::Brand, "Big Brand"));
    assert_eq!((facility.kind, facility.name.as_str()), (EntryKind::Facility, "RANSOM CLINIC"));
    assert_eq!(facility.brand, "Big Brand");
    assert_eq!((facility.state.as_str(), facility.postal_code.as_str()), ("KS", "67572"));
    assert_eq!(facility.base, "https://h.example/api/FHIR/R4");
    assert_eq!(facility.external_id, "f");
    assert_eq!(list.refused, BTreeMap::from([(Refusal::NoEndpoint, 1)]));
}

#[test]
fn broken_links_between_endpoint_and_organization_are_followed_anyway() {
    for link in
        [r#""reference":"id+/=""#, r##""id":"#id+/=""##, r##""reference":"#id+/=""##, r#""display":"OCHIN""#]
    {
        let entry = only(&bundle(&[&format!(
            r#"{{"resourceType":"Endpoint","id":"e1","status":"active","address":"https://h.example/r4",
               "contained":[{{"resourceType":"Organization","id":"id+/=","name":"Inside",
                 "address":[{{"city":"Newport","state":"California","postalCode":"92663"}}]}}],
               "name":"Endpoint","period":{{"start":"9/12/2018 1:01:03 PM"}},"managingOrganization":{{{link}}}}}"#
        )]));
        assert_eq!((entry.name.as_str(), entry.state.as_str()), ("Inside", "CA"), "{link}");
        assert_eq!(entry.external_id, "e1", "contained ids repeat");
    }
    let draft = r#"{"resourceType":"Bundle","total":2,"entry":[
      {"fullUrl":"urn:uuid:e","resource":{"resourceType":"Endpoint","id":"e","status":"active","name":"x",
        "address":"https://h.example/r4","managingOrganization":{"reference":"Organization/o"}}},
      {"fullUrl":"o","resource":{"resourceType":"Organization","id":"o","name":"Draft","alias":["Also"],
        "extension":[{"url":"http://x/patient-access-name","valueString":"MyDraft"},
          {"url":"http://x/patient-access-url","valueUrl":"https://my.draft.example/MyChart/"},
          {"url":"http://x/brand-logo","valueUrl":"data:image/svg+xml;base64,PHN2Zz4="}],
        "address":[{"text":"all over","state":"WI","postalCode":"54956"}]}}]}"#;
    let entry = only(draft);
    assert_eq!((entry.name.as_str(), entry.aliases.as_slice()), ("Draft", &["Also".to_owned()][..]));
    assert_eq!(
        (entry.portals[0].name.as_str(), entry.portals[0].url.as_str()),
        ("MyDraft", "https://my.draft.example/MyChart/")
    );
    assert_eq!(entry.logo, "", "SVG is not taken inline");
}

#[test]
fn portals_belong_to_their_own_endpoint_and_other_versions_are_left_out() {
    let text = r#"{"resourceType":"Bundle","entry":[
      {"fullUrl":"https://b.example/Organization/o","resource":{"resourceType":"Organization","id":"o","name":"Two EHRs",
        "extension":[
          {"url":"http://hl7.org/fhir/StructureDefinition/organization-brand",
           "extension":[{"url":"brandLogo","valueUrl":"https://b.example/logo.svg"}]},
          {"url":"http://hl7.org/fhir/StructureDefinition/organization-portal","extension":[
            {"url":"portalName","valueString":"Adults"},{"url":"portalUrl","valueUrl":"javascript:alert(1)"},
            {"url":"portalEndpoint","valueReference":{"reference":"https://one.example/Endpoint/one"}}]},
          {"url":"http://hl7.org/fhir/StructureDefinition/organization-portal","extension":[
            {"url":"portalName","valueString":"Children"},
            {"url":"portalEndpoint","valueReference":{"reference":"Endpoint/two"}}]}],
        "endpoint":[{"reference":"https://one.example/Endpoint/one"},{"reference":"Endpoint/two"},
          {"reference":"Endpoint/old"},{"reference":"Endpoint/direct"}]}},
      {"fullUrl":"https://one.example/Endpoint/one","resource":{"resourceType":"Endpoint","id":"one","status":"active",
        "extension":[{"url":"x/endpoint-fhir-version","valueCode":"4.0.1"}],"address":"https://one.example/fhir"}},
      {"fullUrl":"https://two.example/Endpoint/two","resource":{"resourceType":"Endpoint","id":"two","status":"active",
        "address":"https://two.example/fhir"}},
      {"resource":{"resourceType":"Endpoint","id":"old","status":"active",
        "extension":[{"url":"x/endpoint-fhir-version","valueCode":"1.0.2"}],"address":"https://old.example/fhir"}},
      {"resource":{"resourceType":"Endpoint","id":"direct","status":"active",
        "connectionType":{"code":"direct-project"},"address":"https://direct.example/fhir"}}]}"#;
    let list = list(text);
    let portals: Vec<(&str, &str, &str)> = list
        .entries
        .iter()
        .map(|entry| (entry.base.as_str(), entry.portals[0].name.as_str(), entry.portals[0].url.as_str()))
        .collect();
    assert_eq!(
        portals,
        [("https://one.example/fhir", "Adults", ""), ("https://two.example/fhir", "Children", "")]
    );
    assert_eq!(list.entries[0].logo, "https://b.example/logo.svg");
}

#[test]
fn statuses_and_schemes_are_told_apart() {
    let endpoint = |status: &str, address: &str| {
        let text = format!(
            r#"{{"resourceType":"Endpoint","id":"e","status":"{status}","name":"N","address":"{address}"}}"#
        );
        list(&bundle(&[&text])).refused.into_keys().next()
    };
    assert_eq!(endpoint("active", "https://h.example/r4"), None);
    assert_eq!(endpoint("off", "https://h.example/r4"), Some(Refusal::NotActive));
    assert_eq!(endpoint("active", "http://h.example/r4"), Some(Refusal::NotHttps));
    assert_eq!(endpoint("active", "http://localhost/r4"), Some(Refusal::NotHttps));
    assert_eq!(endpoint("active", "api/x/R4"), Some(Refusal::NoUrl));
    assert_eq!(endpoint("active", ""), Some(Refusal::NoUrl));
    assert_eq!(endpoint("active", "https://h.example/fhir?cust=5"), Some(Refusal::Query));
    assert_eq!(endpoint("active", "https://me:x@h.example/r4"), Some(Refusal::UnsafeUrl));
    assert_eq!(endpoint("active", "https://h.example/dstu2/x"), Some(Refusal::NotR4));
}

#[test]
fn flat_rows_of_every_dialect_are_read() {
    let lantern = r#"{"Endpoints":[{"URL":"https://h.example/r4/A/","OrganizationName":"Tom &amp; Co","NPIID":"1",
        "OrganizationZipCode":2139},{"URL":"https://h.example/r4/A","OrganizationName":"TOM &amp; CO",
        "OrganizationZipCode":"02139"}]}"#;
    let list_read = list(lantern);
    assert_eq!((list_read.entries.len(), list_read.doubled, list_read.rows), (1, 1, 2));
    assert_eq!(
        (list_read.entries[0].name.as_str(), list_read.entries[0].postal_code.as_str()),
        ("Tom & Co", "02139")
    );
    let array =
        r#"[{"id":"AAAAAA","name":"P","url":"https://fhir4.healow.com/fhir/r4/AAAAAA","token":"https://x"}]"#;
    assert_eq!(only(array).external_id, "AAAAAA");
    let old = r#"{"endpoints":[{"name":"P","baseUrl":"https://h.example/dstu2/x/","type":"prod"}]}"#;
    assert_eq!(list(old).refused, BTreeMap::from([(Refusal::NotR4, 1)]));
    let athena = r#"{"Endpoints":[{"URL":"https://api.platform.athenahealth.com/fhir/r4","OrganizationName":"TX - Tyler"},
        {"URL":"https://api.platform.athenahealth.com/fhir/r4","OrganizationName":"OK - Tyler"}]}"#;
    let states: Vec<String> =
        list(athena).entries.iter().map(|entry| format!("{} {}", entry.name, entry.state)).collect();
    assert_eq!(states.len(), 2);
    assert!(states.contains(&"Tyler TX".to_owned()) && states.contains(&"Tyler OK".to_owned()), "{states:?}");
    let csv = "\u{feff}State,endpoint,developer_name,,\r\nAlaska,https://api.alaska.example/r4,\"A, B\",,\r\n,,,,\r\n";
    let entry = only(csv);
    assert_eq!(
        (entry.state.as_str(), entry.unnamed, entry.name.as_str()),
        ("AK", true, "api.alaska.example")
    );
}

#[test]
fn rows_for_tests_and_inside_networks_are_kept_from_patients() {
    for (name, url) in [
        ("Sandbox Practice", "https://h.example/r4/1"),
        ("ZZ Test Clinic", "https://h.example/r4/2"),
        ("Clinic", "https://10.1.2.3/r4"),
        ("Clinic", "https://fhirserver/r4"),
        ("Clinic", "https://fhir-ehr.cerner.com/r4/abc"),
    ] {
        let entry = only(&format!(r#"[{{"name":"{name}","url":"{url}"}}]"#));
        assert!(entry.hidden, "{name} {url}");
    }
    assert!(!only(r#"[{"name":"Contest Clinic","url":"https://h.example/r4"}]"#).hidden);
}

#[test]
fn what_is_no_list_is_refused_plainly() {
    let check = |text: &str, expected: &str| {
        let error = read(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    };
    check("", "empty");
    check("  \n ", "empty");
    check("<!DOCTYPE html><p>not here", "web page");
    check(r#"{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Endp"#, "cut short");
    check(r#"{"resourceType":"Patient","id":"x"}"#, "not a Bundle");
    check(r#"{"some":"thing"}"#, "neither");
    check(r#"{"Endpoints":[{"URL":"https://h.example/r4"}]} trailing"#, "damaged");
    check(r#"{"Endpoints":7}"#, "damaged");
    check("just words\nand more\n", "header line");
    check("developer,source\nAetna,https://x.example/\n", "header line");
    check(
        r#"[{"FormatType":"Lantern","URL":"https://x.example/","EndpointName":"X","FileName":"x.json"}]"#,
        "list of such lists",
    );
    check("PK\u{3}\u{4}rest", "zip");
}

#[test]
fn nothing_but_name_and_address_can_cost_a_row() {
    let odd = bundle(&[
        r#"{"resourceType":"Endpoint","id":7,"status":["active"],"address":"https://h.example/r4","name":"Kept",
            "extension":"none","period":3,"managingOrganization":[],"contained":{"a":1},"connectionType":7}"#,
        r#""a text""#,
        "7",
        r#"{"resourceType":"Practitioner"}"#,
    ]);
    let list_read = list(&odd);
    assert_eq!(list_read.entries.len(), 1, "{list_read:?}");
    assert_eq!(list_read.refused, BTreeMap::from([(Refusal::NotUnderstood, 3)]));
    let flat = list(r#"[7,"x",[],{},{"url":"https://h.example/r4","name":["?"]}]"#);
    assert_eq!((flat.entries.len(), flat.refused[&Refusal::NotUnderstood]), (1, 4));
    assert!(flat.entries[0].unnamed);
}

#[test]
fn organizations_in_a_circle_end() {
    let circle = bundle(&[
        r#"{"resourceType":"Organization","id":"a","name":"A","partOf":{"reference":"Organization/b"}}"#,
        r#"{"resourceType":"Organization","id":"b","name":"B","partOf":{"reference":"Organization/a"}}"#,
        r#"{"resourceType":"Organization","id":"c","name":"C","partOf":{"reference":"Organization/c"}}"#,
    ]);
    assert_eq!(list(&circle).refused, BTreeMap::from([(Refusal::NoEndpoint, 3)]));
}

#[test]
fn packed_lists_are_unpacked_and_damaged_ones_noticed() {
    let text = r#"[{"name":"P","url":"https://h.example/r4"}]"#;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory");
    let packed = encoder.finish().expect("memory");
    let unpacked = read_list(packed.as_slice(), ImportLimits::default()).expect("a list");
    assert_eq!(unpacked.content, list(text).content, "packing changes nothing");
    let cut = &packed[..packed.len() - 4];
    assert_eq!(read_list(cut, ImportLimits::default()).expect_err("cut"), ImportError::Truncated);
}

#[test]
fn limits_hold_whatever_the_form() {
    let limits = ImportLimits { bytes: 4 << 20, row_bytes: 300 << 10, rows: 1_000, text: 1 << 20 };
    let check = |text: String| {
        let error = read_list(text.as_bytes(), limits).expect_err("too large");
        assert!(matches!(error, ImportError::TooLarge(_)), "{error}");
    };
    let row =
        |number: usize, name: &str| format!(r#"{{"name":"{name}","url":"https://h.example/{number}/r4"}}"#);
    check(format!("[{}]", row(0, &"x".repeat(1 << 20))));
    check(format!(r#"{{"junk":"{}"}}"#, "x".repeat(1 << 20)));
    let many: Vec<String> = (0..1_500).map(|number| row(number, "n")).collect();
    check(format!("[{}]", many.join(",")));
    let organizations: Vec<String> = (0..1_500)
        .map(|number| format!(r#"{{"resourceType":"Organization","id":"{number}","name":"n"}}"#))
        .collect();
    let organizations: Vec<&str> = organizations.iter().map(String::as_str).collect();
    check(bundle(&organizations));
    let lines: Vec<String> = (0..1_500).map(|number| format!("n,https://h.example/{number}/r4")).collect();
    check(format!("name,url\n{}", lines.join("\n")));
    // Deeper than a parser should follow.
    let deep = format!("{}{}", r#"[{"name":"#, "[".repeat(100_000));
    assert!(read_list(deep.as_bytes(), limits).is_err());
}

#[test]
fn the_order_of_a_list_changes_nothing() {
    let one = r#"[{"name":"A","url":"https://a.example/r4"},{"name":"B","url":"https://b.example/r4"}]"#;
    let two = r#"[{"name":"B","url":"https://b.example/r4"},{"name":"A","url":"https://a.example/r4"}]"#;
    assert_eq!(list(one).entries, list(two).entries);
}
