//! Every page with likely content, and every page with hostile content, and what must hold for all of them.
//! With `CHARTGATE_RENDER_TO` set to a folder, the likely ones are written there to be looked at.

use super::not_listed::*;
use super::pages::*;
use super::results::*;
use super::words::*;
use crate::directory::PlaceField;
use crate::smart::ehr_error::PatientText;
use crate::web::colour::Colour;
use crate::web::errors::{ErrorPage, WayOn, error_page};
use crate::web::home::{HomePage, home_page};
use crate::web::look::Branding;

const PATH: &str = "/c/Zk3v9";

/// A page's name and its HTML.
type Rendered = (String, String);

fn clinic() -> Branding {
    Branding {
        privacy_url: Some("https://riverside.example/privacy".into()),
        terms_url: Some("https://riverside.example/terms".into()),
        ..Branding::new("Riverside Family Clinic", &ENGLISH)
    }
}

fn card(name: &str, place: &str, portal: Option<&str>, from: Option<&str>) -> SourceCard {
    SourceCard {
        source_id: "fhirsrc_01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
        name: name.into(),
        place: Some(place.into()),
        portal: portal.map(Into::into),
        records_from: from.map(Into::into),
        logo: None,
        connected: false,
        test: false,
        not_yet: None,
    }
}

fn found() -> Vec<SourceCard> {
    vec![
        card("Mercy Hospital", "Kansas City, MO", Some("Mercy MyHealth"), None),
        card("Mercy Clinic Family Medicine", "Overland Park, KS", None, Some("Mercy Hospital")),
        SourceCard {
            not_yet: Some(NotYet::NotSwitchedOn),
            ..card("Mercy Medical Center North Iowa", "Mason City, IA", Some("MyChart"), None)
        },
        SourceCard { test: true, ..card("Mercy Practice Hospital", "Nowhere, KS", None, None) },
        SourceCard {
            not_yet: Some(NotYet::Silent),
            ..card("Mercy Springfield", "Springfield, MO", None, None)
        },
    ]
}

fn start(finder: Finder) -> StartPage {
    StartPage {
        token_path: PATH.into(),
        branding: clinic(),
        finder,
        connected: Vec::new(),
        can_finish: false,
        done_label: "Finish".into(),
    }
}

fn suggested() -> Finder {
    Finder {
        recommended: vec![
            card("Lakeside Regional Medical Center", "Lake Charles, LA", Some("HealtheLife"), None),
            card("Mercy Hospital", "Kansas City, MO", Some("Mercy MyHealth"), None),
            card("The University of Kansas Health System", "Kansas City, KS", Some("MyChart"), None),
        ],
        ..Finder::default()
    }
}

fn leaving(retry: Option<Retry>) -> LeavingPage {
    LeavingPage {
        token_path: PATH.into(),
        source_id: "fhirsrc_01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
        name: "Mercy Hospital".into(),
        logo: None,
        sign_in_host: "authorization.cerner.com".into(),
        branding: clinic(),
        retry,
    }
}

fn missing_place(typed: &[&str; 4], wrong: Vec<PlaceField>, refused: Option<NotTaken>) -> NotListedPage {
    NotListedPage {
        token_path: PATH.into(),
        branding: clinic(),
        typed: typed.map(str::to_owned),
        wrong,
        refused,
    }
}

fn arrival(finished: bool, lines: &[(&str, u64)]) -> Arrival {
    let named = |(kind, count): &(&str, u64)| (ENGLISH.record_kind(kind).to_owned(), *count);
    Arrival {
        connection_id: "conn_01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
        patient_name: Some("Maria Luisa Example".into()),
        progress: Progress { lines: lines.iter().map(named).collect(), finished, unread: Vec::new() },
    }
}

fn result(outcome: Outcome) -> ResultPage {
    ResultPage {
        token_path: PATH.into(),
        branding: clinic(),
        source_id: "fhirsrc_01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
        hospital: "Mercy Hospital".into(),
        done_label: "Finish".into(),
        outcome,
    }
}

const TROUBLES: [Trouble; 18] = [
    Trouble::SessionExpired,
    Trouble::SessionNotFound,
    Trouble::SessionFinished,
    Trouble::StaleReturn,
    Trouble::OtherBrowser,
    Trouble::HospitalSilent,
    Trouble::TooLarge,
    Trouble::TooSlow,
    Trouble::Busy,
    Trouble::NotFound,
    Trouble::WrongMethod,
    Trouble::OurFault,
    Trouble::Launch(LaunchTrouble::Unknown),
    Trouble::Launch(LaunchTrouble::NotReady),
    Trouble::Launch(LaunchTrouble::Incomplete),
    Trouble::Launch(LaunchTrouble::Elsewhere),
    Trouble::Launch(LaunchTrouble::Stale),
    Trouble::Launch(LaunchTrouble::Lost),
];

const FAILURES: [PatientText; 15] = PatientText::ALL;

/// What a patient may see, filled as it will be.
fn patient_pages() -> Vec<Rendered> {
    let none = Finder { query: "Mrecy".into(), results: Some(Vec::new()), ..Finder::default() };
    let many = Finder { query: "Mercy".into(), results: Some(found()), more: true, ..Finder::default() };
    let mut connected = start(suggested());
    connected.finder.recommended[1].connected = true;
    connected.can_finish = true;
    connected.branding.environment_badge = Some("Test".into());
    connected.branding.accent = Colour::parse("#7b2d8e");
    connected.connected = vec![
        ConnectedRow {
            source_id: "fhirsrc_01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
            name: "Mercy Hospital".into(),
            logo: None,
            state_sentence: "Connected. Records are arriving.".into(),
            needs_attention: false,
        },
        ConnectedRow {
            source_id: "fhirsrc_01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
            name: "Lakeside Regional Medical Center".into(),
            logo: None,
            state_sentence: "Connected, but lab results were left out.".into(),
            needs_attention: true,
        },
    ];
    let some = [("laboratory", 412), ("vital-signs", 1_127), ("MedicationRequest", 38), ("Encounter", 54)];
    let missing = vec!["Lab results".to_owned(), "Documents and notes".to_owned()];
    let done = |connected: Vec<String>, return_url| DonePage {
        return_url,
        return_label: "Back to Riverside".into(),
        branding: clinic(),
        connected,
    };
    let both = vec!["Mercy Hospital".to_owned(), "Lakeside Regional Medical Center".to_owned()];
    let mut pages = vec![
        ("start".to_owned(), start_page(&start(suggested()))),
        ("start-none".into(), start_page(&start(none))),
        ("start-many".into(), start_page(&start(many))),
        ("start-connected".into(), start_page(&connected)),
        ("leaving".into(), leaving_page(&leaving(None))),
        ("leaving-gaps".into(), leaving_page(&leaving(Some(Retry::Gaps(missing.clone()))))),
        ("leaving-no".into(), leaving_page(&leaving(Some(Retry::SaidNo)))),
        ("leaving-failed".into(), leaving_page(&leaving(Some(Retry::Failed)))),
        ("leaving-ended".into(), leaving_page(&leaving(Some(Retry::AccessEnded)))),
        ("connected-early".into(), result_page(&result(Outcome::Connected(arrival(false, &[]))))),
        ("connected".into(), result_page(&result(Outcome::Connected(arrival(false, &some))))),
        ("connected-all".into(), result_page(&result(Outcome::Connected(arrival(true, &some))))),
        ("connected-empty".into(), result_page(&result(Outcome::Connected(arrival(true, &[]))))),
        (
            "gaps".into(),
            result_page(&result(Outcome::ConnectedWithGaps { arrival: arrival(false, &some[1..]), missing })),
        ),
        ("declined".into(), result_page(&result(Outcome::Declined))),
        ("not-listed".into(), not_listed_page(&missing_place(&["", "", "", ""], Vec::new(), None))),
        (
            "not-listed-wrong".into(),
            not_listed_page(&missing_place(
                &["", "Fort Smith, AR", "my clinic", "maria"],
                vec![PlaceField::Name, PlaceField::Website, PlaceField::Email],
                None,
            )),
        ),
        (
            "not-listed-enough".into(),
            not_listed_page(&missing_place(&["Mercy", "", "", ""], Vec::new(), Some(NotTaken::Enough))),
        ),
        (
            "not-listed-busy".into(),
            not_listed_page(&missing_place(&["Mercy", "", "", ""], Vec::new(), Some(NotTaken::Busy))),
        ),
        ("not-listed-told".into(), told_page(PATH, &clinic())),
        ("done".into(), done_page(&done(both, Some("https://app.riverside.example/back".into())))),
        ("done-none".into(), done_page(&done(Vec::new(), None))),
    ];
    for failure in FAILURES {
        let outcome = Outcome::Failed {
            text: ENGLISH.failure(failure, "Mercy Hospital", "Riverside Family Clinic"),
            reference: "K7QF-2M9D".into(),
            more_info_url: Some("https://authorization.cerner.com/errors/k7".into()),
        };
        pages.push((format!("failed-{failure:?}"), result_page(&result(outcome))));
    }
    for trouble in TROUBLES {
        let mut page = ErrorPage::of(trouble, &ENGLISH);
        page.reference = Some("K7QF-2M9D".into());
        if trouble == Trouble::StaleReturn {
            page.branding = Some(clinic());
            page.next = Some(WayOn::start_again(PATH, &ENGLISH));
        }
        pages.push((format!("error-{trouble:?}"), error_page(&page)));
    }
    for text in FAILURES {
        let told = ENGLISH.launch_failure(text, "Mercy Hospital", "Riverside Clinic");
        let page = ErrorPage {
            branding: Some(clinic()),
            words: &ENGLISH,
            title: told.headline,
            what: told.what,
            why: told.next_step,
            who: Some(told.who),
            next: None,
            reference: Some("K7QF-2M9D".into()),
        };
        pages.push((format!("launch-{text:?}"), error_page(&page)));
    }
    pages.into_iter().map(|(name, page)| (name, page.into_string())).collect()
}

fn home() -> Rendered {
    let page = HomePage {
        public_url: "https://connect.clinic.example".into(),
        version: Some("0.1.0".into()),
        admin: Some("/admin".into()),
        docs: Some("/docs".into()),
        health: "/health".into(),
        jwks_uri: "https://connect.clinic.example/api/auth/.well-known/jwks".into(),
        redirect_uri: "https://connect.clinic.example/api/auth/smart/callback".into(),
        hints: vec!["This machine runs with practice data only.".into()],
    };
    ("home".into(), home_page(&page).into_string())
}

fn branding_full_of(evil: &str) -> Branding {
    Branding {
        logo: Some(evil.into()),
        privacy_url: Some(evil.into()),
        terms_url: Some(evil.into()),
        environment_badge: Some(evil.into()),
        ..Branding::new(evil, &ENGLISH)
    }
}

fn card_full_of(evil: &str, not_yet: Option<NotYet>) -> SourceCard {
    SourceCard {
        source_id: evil.into(),
        logo: Some(evil.into()),
        test: true,
        not_yet,
        ..card(evil, evil, Some(evil), Some(evil))
    }
}

/// Every field of every page filled with one text.
fn pages_full_of(evil: &str) -> Vec<Rendered> {
    let text = || evil.to_owned();
    let maybe = || Some(evil.to_owned());
    let branding = || branding_full_of(evil);
    let cards = || vec![card_full_of(evil, None), card_full_of(evil, Some(NotYet::NotChecked))];
    let start = |results| StartPage {
        token_path: text(),
        branding: branding(),
        finder: Finder { query: text(), results, recommended: cards(), ..Finder::default() },
        connected: vec![ConnectedRow {
            source_id: text(),
            name: text(),
            logo: maybe(),
            state_sentence: text(),
            needs_attention: true,
        }],
        can_finish: true,
        done_label: text(),
    };
    let arrival = || Arrival {
        connection_id: text(),
        patient_name: maybe(),
        progress: Progress { lines: vec![(text(), 1)], finished: true, unread: vec![text()] },
    };
    let result = |outcome| {
        result_page(&ResultPage {
            token_path: text(),
            branding: branding(),
            source_id: text(),
            hospital: text(),
            done_label: text(),
            outcome,
        })
    };
    let mut pages = vec![
        start_page(&start(None)),
        start_page(&start(Some(Vec::new()))),
        start_page(&start(Some(cards()))),
        leaving_page(&LeavingPage {
            token_path: text(),
            source_id: text(),
            name: text(),
            logo: maybe(),
            sign_in_host: text(),
            branding: branding(),
            retry: Some(Retry::Gaps(vec![text(), text()])),
        }),
        not_listed_page(&NotListedPage {
            token_path: text(),
            branding: branding(),
            typed: [text(), text(), text(), text()],
            wrong: vec![PlaceField::Name, PlaceField::City, PlaceField::Website, PlaceField::Email],
            refused: Some(NotTaken::Busy),
        }),
        told_page(evil, &branding()),
        result(Outcome::Connected(arrival())),
        result(Outcome::ConnectedWithGaps { arrival: arrival(), missing: vec![text()] }),
        result(Outcome::Declined),
        result(Outcome::Failed {
            text: FailureText {
                headline: text(),
                what: text(),
                who: WhoActs::Us,
                next_step: text(),
                retry_helps: true,
            },
            reference: text(),
            more_info_url: maybe(),
        }),
        done_page(&DonePage {
            return_url: maybe(),
            return_label: text(),
            branding: branding(),
            connected: vec![text()],
        }),
        error_page(&ErrorPage {
            branding: Some(branding()),
            words: &ENGLISH,
            title: text(),
            what: text(),
            why: text(),
            who: Some(WhoActs::Clinic),
            next: Some(WayOn { label: text(), href: text() }),
            reference: maybe(),
        }),
        home_page(&HomePage {
            public_url: text(),
            version: maybe(),
            admin: maybe(),
            docs: maybe(),
            health: text(),
            jwks_uri: text(),
            redirect_uri: text(),
            hints: vec![text()],
        }),
        progress_fragment(&arrival().progress, Some(evil), &ENGLISH),
    ];
    pages.extend(FAILURES.map(|failure| {
        let text = ENGLISH.failure(failure, evil, evil);
        result(Outcome::Failed { text, reference: evil.into(), more_info_url: None })
    }));
    pages.into_iter().enumerate().map(|(index, page)| (format!("page {index}"), page.into_string())).collect()
}

/// The parts of a page between `before` and `after`.
fn between<'a>(page: &'a str, before: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
    page.split(before).skip(1).filter_map(move |rest| rest.split(after).next())
}

/// What stands on the page for people: no tags, and not the host's name, which is the hospital's and not our word.
fn visible_text(page: &str) -> String {
    let page = page.replace("authorization.cerner.com", "");
    let texts: Vec<&str> =
        page.split('<').filter_map(|piece| piece.split_once('>')).map(|(_, text)| text).collect();
    let spoken: Vec<&str> =
        ["aria-label=\"", "placeholder=\""].iter().flat_map(|name| between(&page, name, "\"")).collect();
    format!("{} {}", texts.join(" "), spoken.join(" "))
}

#[test]
fn patients_never_read_jargon() {
    for (name, page) in patient_pages() {
        let text = visible_text(&page).to_lowercase();
        assert!(text.len() > 100, "{name} says nothing");
        for word in ["oauth", "token", "scope", "fhir", "endpoint", "authorization", "smart", "jwt"] {
            assert!(!text.contains(word), "{name} says `{word}`");
        }
    }
}

#[test]
fn every_text_has_all_its_values() {
    for (name, page) in patient_pages() {
        assert!(!visible_text(&page).contains(['{', '}']), "{name} has an empty slot");
    }
}

#[test]
fn every_page_has_one_heading_one_main_a_title_and_a_language() {
    for (name, page) in patient_pages().into_iter().chain([home()]) {
        for once in ["<h1>", "<main ", "<title>", "<html lang=\"en\">", "href=\"#main\""] {
            assert_eq!(page.matches(once).count(), 1, "{once} on {name}");
        }
        let ids: Vec<&str> = between(&page, " id=\"", "\"").collect();
        let distinct: std::collections::BTreeSet<&&str> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len(), "an id stands twice on {name}");
        let named =
            between(&page, "aria-labelledby=\"", "\"").chain(between(&page, "aria-describedby=\"", "\""));
        for target in named.flat_map(|ids| ids.split(' ')) {
            assert!(ids.contains(&target), "nothing on {name} has the id {target}");
        }
    }
}

#[test]
fn every_page_has_at_most_one_first_button() {
    for (name, page) in patient_pages().into_iter().chain([home()]) {
        assert!(page.matches("button-first").count() <= 1, "{name}");
    }
}

#[test]
fn no_page_needs_an_inline_style_or_script_or_an_outside_file() {
    for (name, page) in patient_pages().into_iter().chain([home()]) {
        assert!(!page.contains(" style=") && !page.contains("<style"), "style on {name}");
        assert!(!page.contains(" onclick") && !page.contains(" onsubmit"), "handler on {name}");
        for source in
            between(&page, " src=\"", "\"").chain(between(&page, "<link rel=\"stylesheet\" href=\"", "\""))
        {
            assert!(source.starts_with("/assets/"), "{source} on {name}");
        }
        assert_eq!(page.matches("<script").count(), page.matches("<script src=").count(), "{name}");
    }
}

#[test]
fn whatever_a_name_contains_it_stays_text() {
    let evil = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&lt;{hospital}";
    for (name, page) in pages_full_of(evil) {
        assert!(page.contains("&lt;script&gt;"), "{name} leaves the text out");
        for broken in ["<script>", "<img src=x", "\"'>", "\"&#39;>", "onerror=alert(2)>"] {
            assert!(!page.contains(broken), "`{broken}` on {name}");
        }
    }
}

#[test]
fn no_link_runs_a_script_or_leaves_unasked() {
    for evil in [
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "data:text/html,hi",
        "//evil.example/x",
        "/\\evil.example",
    ] {
        for (name, page) in pages_full_of(evil) {
            for attribute in [" href=\"", " action=\"", " src=\"", " data-poll=\""] {
                for target in between(&page, attribute, "\"") {
                    let allowed = target.is_empty() || target.starts_with('#') || target.starts_with('/');
                    let away = target.starts_with("//") || target.starts_with("/\\");
                    assert!(allowed && !away, "`{target}` on {name}");
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_chosen_is_no_link() {
    let many = Finder { query: "Mercy".into(), results: Some(found()), ..Finder::default() };
    let page = results_fragment(PATH, &many, &clinic()).into_string();
    assert_eq!(page.matches("<a class=\"card\"").count(), 3);
    assert_eq!(page.matches("card-off").count(), 2);
    assert!(page.contains("5 places found."));
    assert!(page.contains(ENGLISH.not_listed));
}

#[test]
fn what_is_connected_is_marked_and_can_still_be_chosen() {
    let mut finder = suggested();
    finder.recommended[1].connected = true;
    let page = results_fragment(PATH, &finder, &clinic()).into_string();
    assert_eq!(page.matches("<a class=\"card\"").count(), 3);
    assert_eq!(page.matches(ENGLISH.row_connected).count(), 1);
}

#[test]
fn finished_progress_tells_the_script_to_stop() {
    let fragment = |finished| {
        progress_fragment(
            &Progress { lines: vec![("Visits".into(), 1_200)], finished, unread: Vec::new() },
            None,
            &ENGLISH,
        )
    };
    let (going, over) = (fragment(false), fragment(true));
    assert!(!going.0.contains("data-finished") && going.0.contains("1,200 so far"));
    assert!(over.0.contains("data-finished") && over.0.contains("1,200 records"));
}

#[test]
fn the_name_has_its_place_before_it_is_known() {
    let page = |finished, patient_name| {
        let arrival = Arrival { patient_name, ..arrival(finished, &[]) };
        result_page(&result(Outcome::Connected(arrival))).into_string()
    };
    assert!(page(false, None).contains(ENGLISH.patient_pending));
    assert!(page(false, Some("Maria Example".into())).contains("data-patient=\"Maria Example\""));
    assert!(page(true, None).contains(ENGLISH.patient_unnamed));
}

#[test]
fn sample_pages_can_be_looked_at() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a switch for people at work on the pages, not configuration"
    )]
    let folder = std::env::var("CHARTGATE_RENDER_TO");
    let pages: Vec<Rendered> = patient_pages().into_iter().chain([home()]).collect();
    assert!(pages.iter().all(|(_, page)| page.starts_with("<!DOCTYPE html>")));
    let Ok(folder) = folder else { return };
    for (name, page) in pages {
        std::fs::write(format!("{folder}/{name}.html"), page).expect("the folder can be written to");
    }
}
