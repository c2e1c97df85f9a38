//! `keys rotate-master` and `keys rotate-data`, with power cuts in the middle.

use std::fs;
use std::path::Path;

use chartgate::clock::Timestamp;
use chartgate::crypto::Random;
use chartgate::store::{
    MasterChange, MasterKey, MasterKeyFile, Opening, Range, Reader as _, Store, StoreError, Table,
};
use serde_json::Value;

use super::running::text;
use super::support::{Ended, Place, Program};
use crate::support::send;

const NUMBERS: Table<[u8; 8]> = Table::new("test_numbers.v1");
const ROWS: u64 = 60_000;

fn key_file(place: &Place) -> String {
    place.path("etc/master.key")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn names(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.path("etc")).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The store opens with what is configured, and has what was in it.
fn opens(place: &Place) -> Ended {
    let listed = place.ask(&["api-key", "list", "--workspace", "live"]);
    assert_eq!(listed.ok()[0]["name"], "probe", "{listed:?}");
    listed
}

fn place_with_a_key() -> Place {
    let place = Place::make();
    place.ask(&["api-key", "create", "--workspace", "live", "--name", "probe"]).ok();
    place
}

fn store_of(place: &Place) -> Store {
    let opening = Opening {
        path: place.store().into(),
        master_key: MasterKey::parse(&read(&key_file(place))).expect("a key"),
        cache_bytes: 16 << 20,
        create: false,
    };
    Store::open(&opening, Random::system()).expect("the store opens")
}

async fn fill(place: &Place) {
    let store = store_of(place);
    let written = store.write(|change| {
        for number in 0..ROWS {
            change.put(NUMBERS, &number.to_be_bytes(), &(number * 3).to_be_bytes());
        }
        Ok::<_, StoreError>(())
    });
    written.await.expect("written");
}

fn all_there(place: &Place) {
    let rows = store_of(place).read_now(|view| view.rows(NUMBERS, &Range::of(b""))).expect("every row opens");
    assert_eq!(rows.len() as u64, ROWS);
    for (number, (key, value)) in (0..ROWS).zip(rows) {
        assert_eq!((key.as_slice(), value), (&number.to_be_bytes()[..], (number * 3).to_be_bytes()));
    }
}

#[tokio::test]
async fn the_master_key_is_changed_with_and_without_a_running_appliance() {
    let place = place_with_a_key();
    let path = key_file(&place);
    let mut seen = vec![read(&path)];
    for running in [false, true] {
        let serving = running.then(|| place.serve());
        let planned = place.ask(&["keys", "rotate-master", "--dry-run"]).ok();
        assert_eq!(text(&planned, "would_replace"), path);
        assert_eq!(&read(&path), seen.last().expect("one"), "a dry run changes nothing");
        let changed = place.ask(&["keys", "rotate-master"]);
        let document = changed.ok();
        assert_eq!((text(&document, "state"), text(&document, "master_key")), ("changed", &*path));
        assert_eq!(&read(text(&document, "old_key")), seen.last().expect("one"), "kept for older backups");
        seen.push(read(&path));
        for key in &seen {
            assert!(!changed.out.contains(key.trim()) && !changed.err.contains(key.trim()), "a key was said");
        }
        opens(&place);
        if let Some(serving) = serving {
            assert_eq!(send("GET", &place.url("/health"), &[], "").await.status, 200);
            let ended = serving.stop();
            assert!(seen.iter().all(|key| !ended.err.contains(key.trim())), "a key was said");
        }
        opens(&place);
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2]);
    // The old key opens nothing any more, and whoever has only that is told where the new one is.
    fs::write(&path, &seen[1]).expect("written");
    for command in [&["serve"][..], &["keys", "rotate-master"], &["keys", "rotate-data"]] {
        place.run(command).refused(2, &["master key", "nothing was changed", &format!("{path}.new")]);
    }
    assert_eq!(read(&path), seen[1]);
    fs::write(&path, &seen[2]).expect("written");
    opens(&place);
}

#[tokio::test]
async fn a_change_of_the_master_key_that_was_cut_off_is_finished_by_whoever_comes_next() {
    let place = place_with_a_key();
    let path = key_file(&place);
    let waiting = format!("{path}.new");
    // Cut off before the store had heard of the new key: the old one is the right one.
    let old = read(&path);
    let unused = MasterKey::generate(&Random::system());
    fs::write(&waiting, &*unused.to_text()).expect("written");
    opens(&place);
    assert_eq!(read(&path), old);
    place.ask(&["keys", "rotate-master"]).ok();
    assert!(!Path::new(&waiting).exists());
    let new = read(&path);

    // Cut off after that, before the files had changed places.
    let cut_off = || {
        fs::write(&waiting, &new).expect("written");
        fs::write(&path, &old).expect("written");
    };
    cut_off();
    let told = opens(&place);
    assert!(told.err.contains("interrupted") && told.err.contains(&path), "{told:?}");
    assert_eq!(read(&path), new);
    cut_off();
    let serving = place.serve();
    assert_eq!(read(&path), new);
    // The same beside an appliance that runs on: the next change finishes it first.
    cut_off();
    let changed = place.ask(&["keys", "rotate-master"]);
    changed.ok();
    assert!(changed.err.contains("interrupted"), "{changed:?}");
    assert!(read(&path) != new && read(&path) != old);
    assert_eq!(serving.kill().code, None);
    opens(&place);
}

#[tokio::test]
async fn a_power_cut_while_the_master_key_is_changed_leaves_a_key_that_opens_the_store() {
    let place = place_with_a_key();
    let (config, etc) = (place.config(), place.path("etc"));
    for round in 0..6 {
        let before = names(&place);
        let serving = (round % 2 == 1).then(|| place.serve());
        let change = Program::start(&["keys", "rotate-master", "--config", &config]);
        // As soon as anything is to be seen of it beside the key, once at the first and once at a later sign of it.
        let signs = 1 + round / 2;
        let mut changes = 0;
        let mut last = before.clone();
        while changes < signs && !change.said().contains("backups") {
            let now = names(&place);
            changes += usize::from(now != last);
            last = now;
        }
        change.kill();
        opens(&place);
        drop(serving);
        opens(&place);
        assert!(read(&key_file(&place)).trim().len() == 43, "{etc}: {:?}", names(&place));
    }
    place.ask(&["keys", "rotate-master"]).ok();
    opens(&place);
}

#[tokio::test]
async fn a_master_key_that_is_a_credential_is_written_where_the_operator_says() {
    let place = place_with_a_key();
    let (path, folder) = (key_file(&place), place.path("credentials"));
    fs::create_dir(&folder).expect("a folder");
    let credential = format!("{folder}/master.key");
    fs::rename(&path, &credential).expect("moved");
    let config = read(&place.config()).replace(&format!("file = \"{path}\""), "");
    fs::write(place.config(), config).expect("written");
    let config = place.config();
    let serve = || {
        let program =
            Program::start_with(("CREDENTIALS_DIRECTORY", &folder), &["serve", "--config", &config]);
        program.says("chartgate is serving");
        program
    };
    let serving = serve();
    place.run(&["keys", "rotate-master"]).refused(2, &["credential", "--new-key"]);
    let new = place.path("new.key");
    fs::write(&new, "something of somebody").expect("written");
    place.run(&["keys", "rotate-master", "--new-key", &new]).refused(1, &[&new, "nothing was changed"]);
    assert_eq!(read(&new), "something of somebody");
    fs::remove_file(&new).expect("removed");
    let changed = place.ask(&["keys", "rotate-master", "--new-key", &new]);
    assert_eq!(text(&changed.ok(), "new_key"), new);
    assert!(changed.err.contains("before the next start"), "{changed:?}");
    // The appliance still has the old credential, and says so before it touches anything.
    place.run(&["keys", "rotate-data"]).refused(1, &["does not open this store", "nothing was changed"]);
    serving.stop();
    let refused = Program::start_with(("CREDENTIALS_DIRECTORY", &folder), &["serve", "--config", &config]);
    refused.ended().refused(2, &["master key", &new]);
    fs::copy(&new, &credential).expect("copied");
    let serving = serve();
    opens(&place);
    place.ask(&["keys", "rotate-data"]).ok();
    assert_eq!(serving.stop().code, Some(0));
}

#[tokio::test]
async fn a_second_change_of_the_master_key_is_refused_while_one_is_under_way() {
    let place = place_with_a_key();
    let (path, before) = (key_file(&place), names(&place));
    let old = read(&path);
    // What a first command does as long as it runs.
    let held = MasterKeyFile::at(path.clone().into()).hold().expect("nobody else has it");
    let serving = place.serve();
    place.run(&["keys", "rotate-master"]).refused(1, &[&path, "by another command", "nothing was changed"]);
    assert_eq!((read(&path), names(&place)), (old, before));
    // A start in the middle of a change leaves the files to the command that is at it, and serves.
    assert_eq!(serving.stop().code, Some(0));
    let new = MasterKey::generate(&Random::system());
    let changed = MasterChange { at: Timestamp::from_seconds(1), written_to: "beside".to_owned() };
    held.stage(&new).expect("staged");
    let old = MasterKey::parse(&read(&path)).expect("a key");
    let store = store_of(&place);
    store.change_master_key(&old, &new, changed).await.expect("changed");
    drop(store);
    let before = names(&place);
    let serving = place.serve();
    assert_eq!(names(&place), before);
    opens(&place);
    let kept = held.promote(&new, Timestamp::from_seconds(1)).expect("in place").expect("kept");
    assert_eq!(read(&kept.display().to_string()).trim(), &**old.to_text(), "the old key, not the new one");
    drop(held);
    assert_eq!(serving.stop().code, Some(0));
    opens(&place);
}

#[tokio::test]
async fn two_changes_of_the_master_key_at_once_leave_the_key_of_the_store_in_its_place() {
    let place = place_with_a_key();
    let config = place.config();
    let serving = place.serve();
    for _ in 0..3 {
        let change = || Program::start(&["keys", "rotate-master", "--config", &config]);
        for ended in [change(), change()].map(Program::ended) {
            assert!(ended.code == Some(0) || ended.err.contains("by another command"), "{ended:?}");
        }
        place.ask(&["keys", "rotate-master", "--dry-run"]).ok();
    }
    assert_eq!(serving.kill().code, None);
    opens(&place);
}

#[tokio::test]
async fn a_dry_run_leaves_the_files_of_an_interrupted_change_as_they_are() {
    let place = place_with_a_key();
    let path = key_file(&place);
    let old = read(&path);
    place.ask(&["keys", "rotate-master"]).ok();
    let waiting = format!("{path}.new");
    fs::rename(&path, &waiting).expect("moved");
    fs::write(&path, &old).expect("written");
    let before = names(&place);
    for task in ["rotate-master", "rotate-data"] {
        place.ask(&["keys", task, "--dry-run"]).ok();
        assert_eq!((read(&path), names(&place)), (old.clone(), before.clone()), "{task}");
    }
    let serving = place.serve();
    assert!(read(&path) != old, "a start finishes it");
    assert_eq!(serving.stop().code, Some(0));
}

fn progress(place: &Place) -> Value {
    place.ask(&["keys", "rotate-data", "--status"]).ok()
}

#[tokio::test]
async fn a_change_of_the_data_key_goes_on_after_a_power_cut_of_the_appliance() {
    let place = place_with_a_key();
    fill(&place).await;
    let counted = place.ask(&["keys", "rotate-data", "--dry-run"]).ok();
    assert!(
        counted["rows"].as_u64() > Some(ROWS) && counted["bytes"].as_u64() > Some(ROWS * 41),
        "{counted}"
    );
    assert_eq!(progress(&place)["stage"], "idle");
    let serving = place.serve();
    let begun = place.ask(&["keys", "rotate-data", "--no-wait"]).ok();
    assert_eq!(begun["stage"], "renewing");
    let seen = loop {
        let now = progress(&place);
        assert_eq!(now["stage"], "renewing", "too fast for this test: {now}");
        if now["renewed"].as_u64() > Some(0) {
            break now;
        }
    };
    assert_eq!(serving.kill().code, None);
    let serving = place.serve();
    // It goes on by itself; asking for it again only waits for it.
    let done = place.ask(&["keys", "rotate-data"]);
    let document = done.ok();
    assert_eq!(document["stage"], "keeping-old-key", "{done:?}");
    assert_eq!(document["started_at"], begun["started_at"], "the same change, not another");
    assert!(document["renewed"].as_u64() >= seen["renewed"].as_u64(), "{seen} {document}");
    assert!(document["total"].as_u64() > Some(ROWS));
    opens(&place);
    assert_eq!(serving.stop().code, Some(0));
    all_there(&place);
}

#[tokio::test]
async fn a_change_of_the_data_key_without_an_appliance_goes_on_after_a_power_cut() {
    let place = place_with_a_key();
    fill(&place).await;
    let config = place.config();
    for _ in 0..2 {
        let change = Program::start(&["keys", "rotate-data", "--config", &config]);
        change.says("\"stage\":\"renewing\"");
        change.kill();
        all_there(&place);
    }
    let done = place.ask(&["keys", "rotate-data"]);
    assert_eq!(done.ok()["stage"], "keeping-old-key", "{done:?}");
    assert!(done.err.contains("sign-ins"), "{done:?}");
    all_there(&place);
    let serving = place.serve();
    opens(&place);
    assert_eq!(progress(&place)["stage"], "keeping-old-key");
    assert_eq!(serving.stop().code, Some(0));
}
