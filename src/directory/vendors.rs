//! What a base URL and the words of patients tell about the vendor behind a place.

use crate::smart::FhirBaseUrl;
use crate::smart::vendors::{guess_vendor, is_vendors_host};

/// Marks in base URLs of vendors without a profile of ours, or on customers' own hosts.
const MARKS: [(&str, &str); 9] = [
    ("/uscore/R4", "meditech"),
    ("/argonaut/v1", "meditech"),
    (".greenwayhealth.com", "greenway"),
    (".patientfusion.com", "practice-fusion"),
    (".practicefusion.com", "practice-fusion"),
    (".meldrx.com", "meldrx"),
    (".azaleahealth.com", "azalea"),
    (".yourcareuniverse.net", "medhost"),
    (".netsmartcloud.com", "netsmart"),
];

/// What patients call the portals of a vendor: folded words, then how it is written, then the vendor.
const PORTALS: [(&[&str], &str, &str); 27] = [
    (&["mychart"], "MyChart", "epic"),
    (&["my", "chart"], "MyChart", "epic"),
    (&["epic"], "Epic", "epic"),
    (&["healow"], "healow", "eclinicalworks"),
    (&["eclinicalworks"], "eClinicalWorks", "eclinicalworks"),
    (&["ecw"], "eClinicalWorks", "eclinicalworks"),
    (&["followmyhealth"], "FollowMyHealth", "veradigm"),
    (&["follow", "my", "health"], "FollowMyHealth", "veradigm"),
    (&["veradigm"], "Veradigm", "veradigm"),
    (&["allscripts"], "Allscripts", "veradigm"),
    (&["athena", "patient", "portal"], "athena patient portal", "athenahealth"),
    (&["athenahealth"], "athenahealth", "athenahealth"),
    (&["athena"], "athenahealth", "athenahealth"),
    (&["healthelife"], "HealtheLife", "cerner"),
    (&["healthe", "life"], "HealtheLife", "cerner"),
    (&["cerner"], "Cerner", "cerner"),
    (&["oracle", "health"], "Oracle Health", "cerner"),
    (&["patient", "fusion"], "Patient Fusion", "practice-fusion"),
    (&["patientfusion"], "Patient Fusion", "practice-fusion"),
    (&["practice", "fusion"], "Practice Fusion", "practice-fusion"),
    (&["practicefusion"], "Practice Fusion", "practice-fusion"),
    (&["mhealth"], "MHealth", "meditech"),
    (&["meditech"], "MEDITECH", "meditech"),
    (&["nextgen"], "NextGen", "nextgen"),
    (&["nextmd"], "NextMD", "nextgen"),
    (&["greenway"], "Greenway", "greenway"),
    (&["meldrx"], "MeldRx", "meldrx"),
];

/// The vendor a base URL belongs to: a profile's name, or a word for vendors we only know to search for.
pub(super) fn vendor_of(base: &FhirBaseUrl) -> &'static str {
    let guessed = guess_vendor(base);
    if guessed != "generic" {
        return guessed;
    }
    let text = base.to_string();
    // A mark that begins with a dot is part of a host name.
    let found = MARKS.iter().find(|(mark, _)| {
        if mark.starts_with('.') {
            base.host().ends_with(mark) || base.host() == &mark[1..]
        } else {
            text.contains(mark)
        }
    });
    found.map_or(guessed, |(_, vendor)| vendor)
}

/// How the patient portal of a vendor's customers is usually called.
pub fn usual_portal(vendor: &str) -> Option<&'static str> {
    match vendor {
        "epic" => Some("MyChart"),
        "eclinicalworks" => Some("healow"),
        "veradigm" => Some("FollowMyHealth"),
        "cerner" => Some("HealtheLife"),
        "practice-fusion" => Some("Patient Fusion"),
        _ => None,
    }
}

/// Hosts that many customers of a vendor, or of a cloud, share.
const SHARED: [&str; 6] = [
    "epichosted.com",
    "amazonaws.com",
    "azure-api.net",
    "azurewebsites.net",
    "cloudapp.net",
    "googleapis.com",
];

/// The web site that a server belongs to, where it is the place's own: what tells two places of one name apart when
/// their towns are not known. Near enough the registered name: the last two labels of the host.
pub fn own_site(base: &FhirBaseUrl) -> Option<&str> {
    let host = base.host();
    let below =
        |site: &str| host.strip_suffix(site).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let shared = is_vendors_host(host)
        || SHARED.iter().any(|site| below(site))
        || MARKS.iter().any(|(mark, _)| mark.strip_prefix('.').is_some_and(below));
    let plain = host.bytes().any(|byte| byte.is_ascii_alphabetic()) && !host.starts_with('[');
    let mut dots = host.rmatch_indices('.').skip(1);
    let site = dots.next().map_or(host, |(at, _)| &host[at + 1..]);
    (!shared && plain && site.contains('.')).then_some(site)
}

/// A portal or vendor that the words from `at` on name: how many words, how it is written, the vendor.
pub(super) fn portal_at(words: &[&str], at: usize) -> Option<(usize, &'static str, &'static str)> {
    let rest = words.get(at..)?;
    let longest = PORTALS.iter().filter(|(name, ..)| rest.starts_with(name));
    longest.max_by_key(|(name, ..)| name.len()).map(|(name, written, vendor)| (name.len(), *written, *vendor))
}

/// What stays the same of a place that a vendor publishes under several addresses, and how good this address is for a
/// patient (smaller is better). Most addresses are their own place.
pub(super) fn place_of(vendor: &str, base: &FhirBaseUrl) -> (String, u8) {
    let last = base.path().rsplit('/').next().unwrap_or_default();
    match vendor {
        "cerner" | "cerner-provider" if !last.is_empty() => {
            let rank = match base.host() {
                host if host.starts_with("fhir-myrecord") => 0,
                host if host.starts_with("fhir-open") => 2,
                _ => 3,
            };
            (format!("cerner {last}"), rank)
        }
        "eclinicalworks" if last.len() == 6 => {
            let rank = match base.host() {
                "fhir4.healow.com" => 0,
                host if host.ends_with("eclinicalworks.com") => 1,
                _ => 2,
            };
            (format!("ecw {last}"), rank)
        }
        "practice-fusion" if !last.is_empty() => {
            (format!("pf {last}"), u8::from(!base.host().ends_with("patientfusion.com")))
        }
        "veradigm" if base.path().contains("/fhirroute/") && !last.is_empty() => {
            (format!("veradigm {last}"), u8::from(base.path().contains("/open/")))
        }
        _ => (base.to_string(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> FhirBaseUrl {
        FhirBaseUrl::parse(text).expect("a base")
    }

    #[test]
    fn customers_on_their_own_hosts_are_recognised_by_their_path() {
        assert_eq!(vendor_of(&base("https://api.hospital.example/v1/uscore/R4")), "meditech");
        assert_eq!(vendor_of(&base("https://fhir.aws.greenwayhealth.com/fhir/R4/2.16")), "greenway");
        assert_eq!(vendor_of(&base("https://notgreenwayhealth.com/fhir/R4/2.16")), "generic");
        assert_eq!(vendor_of(&base("https://h.example/x/api/FHIR/R4")), "epic");
    }

    #[test]
    fn one_practice_under_two_hosts_is_one_place_and_the_patients_host_is_better() {
        let patient = place_of("eclinicalworks", &base("https://fhir4.healow.com/fhir/r4/AACJCD"));
        let other = place_of("eclinicalworks", &base("https://fhir4.eclinicalworks.com/fhir/r4/AACJCD"));
        assert_eq!(patient.0, other.0);
        assert!(patient.1 < other.1);
        let record = place_of("cerner", &base("https://fhir-myrecord.cerner.com/r4/T_a"));
        let staff = place_of("cerner-provider", &base("https://fhir-ehr.cerner.com/r4/T_a"));
        assert_eq!(record.0, staff.0);
        assert!(record.1 < staff.1);
        assert_ne!(place_of("cerner", &base("https://fhir-myrecord.cerner.com/r4/t_a")).0, record.0);
    }

    #[test]
    fn a_place_is_told_by_its_own_site_and_not_by_its_vendors() {
        let site = |text: &str| own_site(&base(text)).map(str::to_owned);
        assert_eq!(site("https://fhir.prod.mercy.example/api/FHIR/R4").as_deref(), Some("mercy.example"));
        for shared in [
            "https://fhir-myrecord.cerner.com/r4/x",
            "https://epicproxy.et1089.epichosted.com/api/FHIR/R4",
            "https://api.patientfusion.com/fhir/r4/v1/x",
            "https://10.1.2.3/r4",
        ] {
            assert_eq!(site(shared), None, "{shared}");
        }
    }

    #[test]
    fn portal_words_name_their_vendor() {
        assert_eq!(portal_at(&["mychart", "mercy"], 0).map(|found| found.2), Some("epic"));
        assert_eq!(
            portal_at(&["mercy", "follow", "my", "health"], 1),
            Some((3, "FollowMyHealth", "veradigm"))
        );
        assert_eq!(portal_at(&["mercy"], 0), None);
    }
}
