//! The lists that vendors really publish. They are not in this repository: `CHARTGATE_TEST_DATA` names their folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use chartgate::config::Environment;
use chartgate::directory::import::{ImportError, ImportLimits, ReadList, Refusal, read_list};
use chartgate::directory::{Directory, fold};

use super::lists::{directory, import_file};
use crate::support::test_data;

type Counts = (&'static str, usize, usize, usize, &'static [(Refusal, usize)]);

/// File, rows, entries, servers, and how many rows were refused for which reason. Rows and servers were counted from the
/// files by another program; 1,359 Oracle tenants and 816 Epic endpoints are what the vendors themselves say.
const LISTS: &[Counts] = &[
    ("aggregators/1UpEndpointSources.json.gz", 6810, 5300, 5296, &[(Refusal::NotR4, 1510)]),
    ("aggregators/Darena_Solutions_LLC_EndpointSources.json.gz", 2376, 2376, 2376, &[]),
    ("athenahealth/athenahealth_Inc_1_EndpointSources.json", 22, 22, 22, &[]),
    ("athenahealth/athenahealth_Inc_EndpointSources.json.gz", 17136, 17011, 1, &[]),
    ("eclinicalworks-healow/eClinicalWorks_LLC_EndpointSources.json.gz", 2541, 2541, 2541, &[]),
    ("eclinicalworks-healow/healow_r4_endpoints_flat.json.gz", 6919, 6919, 6918, &[]),
    ("epic/Epic_Systems_Corporation_EndpointSources.json", 957, 477, 450, &[(Refusal::NotR4, 480)]),
    ("epic/epic_brands_draft_2022.json.gz", 235, 235, 235, &[]),
    ("epic/epic_brands_sandbox_example.json", 1, 1, 1, &[]),
    ("epic/epic_brands_scale_synthetic.json.gz", 96667, 96667, 756, &[]),
    ("epic/epic_dstu2_endpoint_bundle_raw.json.gz", 416, 0, 0, &[(Refusal::NotR4, 416)]),
    ("epic/epic_r4_endpoint_bundle_2021.json.gz", 265, 265, 254, &[]),
    ("epic/epic_r4_endpoints_flat_2026.json.gz", 807, 807, 757, &[]),
    ("greenway/Greenway_Health_LLC_EndpointSources.json", 632, 632, 632, &[]),
    ("meditech/MEDITECH_1_EndpointSources.json", 930, 460, 452, &[(Refusal::NotR4, 465)]),
    ("oracle-health/legacy-2023_millennium_patient_r4_endpoints.json.gz", 1652, 1652, 1652, &[]),
    ("oracle-health/legacy_dstu2-patient-endpoints_flat.json", 1194, 0, 0, &[(Refusal::NotR4, 1194)]),
    ("oracle-health/millennium_patient_r4_endpoints.json.gz", 1359, 1359, 1359, &[]),
    ("oracle-health/millennium_provider_r4_endpoints.json.gz", 1451, 1451, 1451, &[]),
    ("oracle-health/soarian_patient_r4_endpoints.json", 7, 7, 7, &[]),
    ("payers-medicaid/MedicaidState_EndpointSources.json", 25, 25, 25, &[]),
    ("payers-medicaid/Medicare_ElevanceHealth_EndpointSources.json", 58, 58, 58, &[]),
    ("payers-medicaid/medicaid-state-endpoints.csv", 36, 35, 35, &[(Refusal::Query, 1)]),
    ("small-vendors/Azalea_Health_EndpointSources.json", 100, 100, 100, &[]),
    ("small-vendors/Drchrono_Inc_EndpointSources.json", 213, 213, 213, &[]),
    ("small-vendors/First_Insight_Corporation_EndpointSources.json", 527, 506, 462, &[(Refusal::NoUrl, 20)]),
    ("small-vendors/MEDHOST_EndpointSources.json", 140, 140, 140, &[]),
    ("small-vendors/Netsmart_Technologies_EndpointSources.json", 110, 110, 1, &[]),
    ("small-vendors/Office_Practicum_EndpointSources.json", 298, 298, 298, &[]),
    ("smart-brands-examples/Bundle-example1.json", 1, 1, 1, &[]),
    ("smart-brands-examples/Bundle-example2.json", 3, 3, 1, &[]),
    ("smart-brands-examples/Bundle-example3.json", 2, 2, 2, &[]),
    ("veradigm/Veradigm_EndpointSources.json.gz", 3344, 3342, 3340, &[(Refusal::Query, 2)]),
    ("veradigm/veradigm_dstu2_endpoint_bundle_raw.json.gz", 96, 94, 94, &[(Refusal::NoUrl, 2)]),
];

/// Not lists, though some look like one.
const NO_LISTS: &[&str] = &[
    "README.md",
    "endpoint-source-lists/CHPLEndpointResourcesList.json",
    "endpoint-source-lists/EndpointResourcesList.json",
    "payers-medicaid/SMAEndpointDirectory.csv",
    "payers-medicaid/payer-patient-access.csv",
];

fn folder() -> Option<PathBuf> {
    test_data().map(|folder| folder.join("directory"))
}

fn read(path: &Path) -> Result<ReadList, ImportError> {
    read_list(File::open(path).expect("a file"), ImportLimits::default())
}

#[test]
fn every_published_list_is_read_with_its_counts() {
    let Some(folder) = folder() else { return };
    for (file, rows, entries, sources, refused) in LISTS {
        let list = read(&folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let bases: std::collections::HashSet<&str> =
            list.entries.iter().map(|entry| entry.base.as_str()).collect();
        let refused: BTreeMap<Refusal, usize> = refused.iter().copied().collect();
        assert_eq!(
            (list.rows, list.entries.len(), bases.len(), &list.refused),
            (*rows, *entries, *sources, &refused),
            "{file}"
        );
        let all = list.entries.len() + list.doubled + list.refused.values().sum::<usize>();
        assert_eq!(list.rows, all, "{file}: every row is accounted for");
        let keys: std::collections::HashSet<[u8; 16]> = list.entries.iter().map(|entry| entry.key).collect();
        assert_eq!(keys.len(), list.entries.len(), "{file}: keys are unique");
    }
    for file in NO_LISTS {
        assert!(read(&folder.join(file)).is_err(), "{file}");
    }
}

#[test]
fn what_is_known_to_be_odd_is_handled() {
    let Some(folder) = folder() else { return };
    let list = |file: &str| read(&folder.join(file)).expect(file);
    let oracle = list("oracle-health/millennium_patient_r4_endpoints.json.gz");
    let tenants =
        oracle.entries.iter().filter(|entry| entry.base.ends_with(&format!("/{}", entry.external_id)));
    assert_eq!(tenants.count(), 1359, "the tenant is what the address ends with");
    assert!(oracle.entries.iter().any(|entry| entry.external_id.contains('_')));
    let athena = list("athenahealth/athenahealth_Inc_EndpointSources.json.gz");
    let with_state = athena.entries.iter().filter(|entry| entry.state.len() == 2).count();
    assert!(with_state > 11_900, "{with_state}");
    assert!(!athena.entries.iter().any(|entry| entry.name.starts_with("TX - ")));
    let veradigm = list("veradigm/veradigm_dstu2_endpoint_bundle_raw.json.gz");
    assert_eq!(veradigm.announced, Some(3326));
    let drchrono = list("small-vendors/Drchrono_Inc_EndpointSources.json");
    assert!(drchrono.entries.iter().all(|entry| entry.unnamed && !entry.name.is_empty()));
    let draft = list("epic/epic_brands_draft_2022.json.gz");
    let portals =
        draft.entries.iter().filter(|entry| entry.portals.iter().any(|portal| !portal.name.is_empty()));
    assert!(portals.count() >= 228);
    let provider = list("oracle-health/millennium_provider_r4_endpoints.json.gz");
    assert!(provider.entries.iter().all(|entry| entry.hidden), "clinicians' servers are not for patients");
    for list in [&oracle, &athena, &veradigm, &draft] {
        for entry in &list.entries {
            assert!(!entry.name.contains(char::is_control) && entry.name.trim() == entry.name);
            assert!(entry.logo.is_empty() || entry.logo.starts_with("https://"), "{}", entry.logo);
        }
    }
}

/// What a patient types, and the name that must be among the first three. All from the lists above.
const QUERIES: &str = include_str!("queries.txt");

/// Everything that is published, in one directory.
async fn everything(folder: &Path) -> (Directory, tempfile::TempDir) {
    let (directory, kept) = directory();
    let mut lists: Vec<&Counts> =
        LISTS.iter().filter(|(file, _, entries, ..)| *entries > 0 && !file.contains("synthetic")).collect();
    // Each import indexes what there is: the small ones first.
    lists.sort_by_key(|(_, _, entries, ..)| *entries);
    for (file, ..) in lists {
        import_file(&directory, &folder.join(file)).await;
    }
    (directory, kept)
}

#[tokio::test]
async fn a_hundred_real_queries_find_their_place_among_the_first_three() {
    let Some(folder) = folder() else { return };
    let (directory, _kept) = everything(&folder).await;
    let mut missed = Vec::new();
    let mut asked = 0;
    for line in QUERIES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (query, expected) = line.split_once(" => ").expect("query => name");
        asked += 1;
        let found = directory.find(Environment::Live, query, 10);
        // Lists write one name in several ways; which of them is shown is another matter.
        let names: Vec<String> = found.places.iter().take(3).map(|place| fold(&place.name)).collect();
        if !names.contains(&fold(expected)) {
            missed.push(format!("{query} => {expected}; found {names:?}"));
        }
    }
    assert!(asked >= 100, "{asked}");
    assert!(missed.is_empty(), "{} of {asked} missed:\n{}", missed.len(), missed.join("\n"));
}
