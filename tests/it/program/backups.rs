//! Backups of a running appliance, and a new one made of them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::support::Place;

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("`{name}` is missing in {value}"))
}

fn api_keys(place: &Place) -> String {
    place.ask(&["api-key", "list", "--workspace", "live"]).ok().to_string()
}

#[test]
fn a_backup_of_a_running_appliance_restores_on_another_machine() {
    let place = Place::make();
    let serving = place.serve();
    place.ask(&["api-key", "create", "--workspace", "live", "--name", "before"]).ok();
    assert_eq!(text(&place.ask(&["backup", "--status"]).ok(), "state"), "none");
    let made = place.ask(&["backup"]).ok();
    assert_eq!(text(&made, "state"), "made");
    let file = text(&made, "file").to_owned();
    assert!(file.starts_with(&place.path("data/backups/chartgate-")), "{file}");
    let before = api_keys(&place);
    place.ask(&["api-key", "create", "--workspace", "live", "--name", "after"]).ok();
    let again = place.path("again.backup");
    place.ask(&["backup", "--out", &again]).ok();
    place.ask(&["backup", "--out", &again]).refused(1, &[&again, "already"]);
    let bytes = fs::read(&again).expect("a file");
    assert!(!bytes.windows(6).any(|part| part == b"before"), "a backup tells nothing");
    assert_eq!(text(&place.ask(&["backup", "verify", &file]).ok(), "state"), "whole");
    place.run(&["restore", &file]).refused(3, &["stop it first"]);
    drop(serving);

    // Another machine has the configuration, the master key and the backup.
    let other = Place::make();
    fs::remove_file(other.store()).expect("removed");
    other.run(&["restore", &file]).refused(2, &["master key does not open", &file]);
    assert!(!Path::new(&other.store()).exists());
    fs::copy(place.path("etc/master.key"), other.path("etc/master.key")).expect("copied");
    let restored = other.ask(&["restore", &file]).ok();
    assert_eq!((text(&restored, "state"), &restored["rows"]), ("restored", &made["rows"]));
    assert_eq!(api_keys(&other), before);
    let serving = other.serve();
    assert_eq!(api_keys(&other), before, "and it serves");
    drop(serving);

    // What is there is moved aside, and only when that is wanted; a cut backup moves nothing.
    other.run(&["restore", &again]).refused(1, &["already", "--yes"]);
    let cut = place.path("cut.backup");
    fs::write(&cut, &bytes[..bytes.len() - 1]).expect("written");
    other.run(&["restore", &cut, "--yes"]).refused(1, &["cut off"]);
    other.run(&["backup", "verify", &cut]).refused(1, &["cut off"]);
    assert_eq!(api_keys(&other), before);
    let moved = other.ask(&["restore", &again, "--yes"]).ok();
    assert!(Path::new(text(&moved, "moved_aside")).exists(), "{moved}");
    assert!(api_keys(&other).contains("after"));
}

#[test]
fn a_store_that_nobody_uses_is_backed_up_too() {
    let place = Place::make();
    let file = place.path("cold.backup");
    assert_eq!(text(&place.ask(&["backup", "--out", &file]).ok(), "state"), "made");
    let nowhere = place.path("no/such/folder/x.backup");
    place.ask(&["backup", "--out", &nowhere]).refused(1, &[&nowhere, "was not made"]);
    place.run(&["backup", "verify", &place.config()]).refused(1, &["no usable backup"]);
}
