use super::*;
use crate::directory::entries::{DirectoryEntry, EntryKind, Portal, each, plain};

fn entry(name: &str, base: &str) -> DirectoryEntry {
    let mut key = [0; 16];
    for (at, byte) in name.bytes().chain(base.bytes()).enumerate() {
        key[at % 16] ^= byte;
    }
    DirectoryEntry {
        key,
        kind: EntryKind::Practice,
        name: name.to_owned(),
        unnamed: false,
        hidden: false,
        aliases: Vec::new(),
        portals: Vec::new(),
        city: String::new(),
        state: String::new(),
        postal_code: String::new(),
        logo: String::new(),
        external_id: String::new(),
        brand: String::new(),
        base: format!("https://{base}"),
        gone_since: None,
    }
}

fn at(entry: DirectoryEntry, city: &str, state: &str, zip: &str) -> DirectoryEntry {
    DirectoryEntry { city: city.to_owned(), state: state.to_owned(), postal_code: zip.to_owned(), ..entry }
}

fn brand(name: &str, base: &str) -> DirectoryEntry {
    DirectoryEntry { kind: EntryKind::Brand, ..entry(name, base) }
}

fn facility(name: &str, of: &str, base: &str) -> DirectoryEntry {
    DirectoryEntry { kind: EntryKind::Facility, brand: of.to_owned(), ..entry(name, base) }
}

fn index(entries: &[DirectoryEntry]) -> Index {
    let mut builder = Builder::new();
    builder.list("one", 1);
    each(&plain(entries), |entry| builder.add(&entry)).expect("entries");
    builder.finish()
}

fn names(index: &Index, query: &str) -> Vec<String> {
    let shown = |doc: u32| index.flags(doc) & HIDDEN_FROM_PATIENTS == 0;
    let hits = index.search(&Query::parse(query), 10, &shown, &|_| false);
    hits.iter().map(|hit| index.shown(hit.doc).name.to_owned()).collect()
}

fn directory() -> Index {
    index(&[
        brand("Mercy Health", "a.example/api/FHIR/R4"),
        at(
            facility("Mercy Clinic Fort Smith", "Mercy Health", "a.example/api/FHIR/R4"),
            "Fort Smith",
            "AR",
            "72901",
        ),
        at(facility("Mercy Hospital Tulsa", "Mercy Health", "a.example/api/FHIR/R4"), "Tulsa", "OK", "74104"),
        at(
            facility("Reading Hospital", "Tower Health", "t.example/api/FHIR/R4"),
            "West Reading",
            "PA",
            "19611",
        ),
        brand("Tower Health", "t.example/api/FHIR/R4"),
        at(entry("Mercy", "m.example/r4"), "Boston", "MA", "02118"),
        at(entry("Family Medical Center", "f1.example/r4"), "Springfield", "IL", "62701"),
        at(entry("Family Medical Center", "f2.example/r4"), "Springfield", "MO", "65801"),
        entry("El Centro de Corazón", "c.example/r4"),
        entry("St. Mary's Healthcare & Rehab, LLC", "s.example/r4"),
        DirectoryEntry {
            aliases: vec!["Old Name Hospital".to_owned()],
            ..entry("New Name Hospital", "n.example/r4")
        },
        DirectoryEntry {
            portals: vec![Portal {
                name: "MyValley".to_owned(),
                url: "https://my.valley.example/login".to_owned(),
            }],
            ..entry("Valley Clinic", "v.example/r4")
        },
        DirectoryEntry { hidden: true, ..entry("Mercy Test Practice", "x.example/r4") },
        entry("20/20 Eye Specialists", "fhir4.healow.com/fhir/r4/AAAAAA"),
    ])
}

#[test]
fn every_word_must_match_somewhere_and_names_come_before_places() {
    let index = directory();
    let first = |query: &str| names(&index, query).first().cloned().unwrap_or_default();
    assert_eq!(first("mercy fort smith"), "Mercy Clinic Fort Smith");
    assert_eq!(first("mercy tulsa"), "Mercy Hospital Tulsa");
    assert_eq!(first("tower health reading pa"), "Reading Hospital");
    assert_eq!(first("mercy"), "Mercy", "the exact name");
    assert_eq!(first("mercy he"), "Mercy Health");
    assert_eq!(first("family medical center missouri"), "Family Medical Center");
    assert_eq!(names(&index, "family medical center mo").len(), 1);
    assert_eq!(names(&index, "family medical center").len(), 2);
    assert!(names(&index, "mercy xylophone").is_empty());
}

#[test]
fn spelling_is_forgiven() {
    let index = directory();
    for (query, name) in [
        ("saint marys", "St. Mary's Healthcare & Rehab, LLC"),
        ("st mary’s health care and rehab llc", "St. Mary's Healthcare & Rehab, LLC"),
        ("EL CENTRO DE CORAZON", "El Centro de Corazón"),
        ("corozon", "El Centro de Corazón"),
        ("famly medcal center il", "Family Medical Center"),
        ("72901", "Mercy Clinic Fort Smith"),
        ("mercy 72903", "Mercy Clinic Fort Smith"),
        ("old name", "New Name Hospital"),
        ("myvalley", "Valley Clinic"),
        ("my valley", "Valley Clinic"),
        ("20/20 eye", "20/20 Eye Specialists"),
        ("readnig hospital", "Reading Hospital"),
    ] {
        assert_eq!(names(&index, query).first().map(String::as_str), Some(name), "{query}");
    }
}

#[test]
fn a_portals_name_finds_the_places_of_its_vendor() {
    let index = directory();
    assert_eq!(names(&index, "mychart tower")[0], "Tower Health");
    assert!(names(&index, "mychart").contains(&"Mercy Health".to_owned()));
    assert_eq!(names(&index, "healow eye"), ["20/20 Eye Specialists"]);
    assert!(!names(&index, "mychart mercy").contains(&"Mercy".to_owned()), "not at that vendor");
}

#[test]
fn a_pasted_address_finds_its_place() {
    let index = directory();
    assert_eq!(names(&index, "https://my.valley.example/login?x=1"), ["Valley Clinic"]);
    assert_eq!(names(&index, "m.example/r4")[0], "Mercy");
}

#[test]
fn test_entries_stay_hidden_and_facilities_do_not_flood() {
    assert!(!names(&directory(), "mercy test").contains(&"Mercy Test Practice".to_owned()));
    let many: Vec<DirectoryEntry> = (0..40)
        .map(|number| facility(&format!("Lakes Clinic {number}"), "Lakes", "l.example/r4"))
        .chain([brand("Lakes", "l.example/r4"), entry("Lakes Dental", "d.example/r4")])
        .collect();
    let lakes = index(&many);
    let found = names(&lakes, "lakes");
    assert_eq!(found[0], "Lakes");
    assert!(found.contains(&"Lakes Dental".to_owned()));
    assert!(found.iter().filter(|name| name.starts_with("Lakes Clinic")).count() <= 3, "{found:?}");
}

#[test]
fn one_place_in_several_lists_or_under_two_hosts_is_shown_once() {
    let mut builder = Builder::new();
    builder.list("aggregator", 1);
    let old = [
        at(entry("Lake Practice", "fhir4.eclinicalworks.com/fhir/r4/ABCDEF"), "", "OH", ""),
        entry("Hill Practice", "h.example/r4"),
        entry("Hill Practice", "other.example/r4"),
    ];
    each(&plain(&old), |entry| builder.add(&entry)).expect("entries");
    builder.list("vendor", 2);
    let new = [
        entry("LAKE PRACTICE", "fhir4.healow.com/fhir/r4/ABCDEF"),
        at(entry("Hill Practice", "h.example/r4"), "Salem", "", ""),
    ];
    each(&plain(&new), |entry| builder.add(&entry)).expect("entries");
    let index = builder.finish();
    let hits = index.search(&Query::parse("lake practice"), 10, &|_| true, &|_| false);
    let bases: Vec<&str> = hits.iter().map(|hit| index.shown(hit.doc).base).collect();
    assert_eq!(bases, ["https://fhir4.healow.com/fhir/r4/ABCDEF"]);
    let hits = index.search(&Query::parse("hill practice"), 10, &|_| true, &|_| false);
    assert_eq!(hits.len(), 2, "a name alone never makes two places one");
    assert!(hits.iter().any(|hit| index.shown(hit.doc).city == "Salem"), "the vendor's word counts");
}

#[test]
fn nothing_and_nonsense_are_answered() {
    let empty = index(&[]);
    for query in ["", "a", "the", "mercy", "https://x.example", "\u{0}\u{202e}", "72901", &"x ".repeat(500)] {
        assert!(names(&empty, query).is_empty(), "{query}");
        names(&directory(), query);
    }
}
