//! What does not start, or does not answer: said in plain words, with an exit code, and with nothing changed on disk.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};

use chartgate::clock::Clock;
use chartgate::server::self_signed;

use super::support::{Place, Program, run, run_as};

/// A store's bytes.
fn bytes(place: &Place) -> Vec<u8> {
    fs::read(place.store()).expect("a store")
}

fn write(path: &str, content: impl AsRef<[u8]>) {
    fs::write(path, content).expect("written");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for (arguments, word) in [
        (&["no-such-command"][..], "no-such-command"),
        (&[], "Usage"),
        (&["serve", "--no-such-option"], "--no-such-option"),
        (&["api-key", "create", "--workspace", "sandbox"], "--name"),
        (&["source", "add", "--name", "x", "--ehr-client", "y"], "--url"),
        (&["source", "add", "--name", "x", "--ehr-client", "y", "--url", "u", "--tenant", "t"], "--tenant"),
        (&["sandbox", "--port", "70000"], "70000"),
        (&["sandbox", "--port", "0", "--personality", "friendly"], "friendly"),
        (&["sandbox", "--port", "0", "--personality", "friendly"], "eclinicalworks"),
        (&["check-config", "--set", "nonsense"], "KEY=VALUE"),
        (&["serve", "--config", "/no/such/file.toml"], "/no/such/file.toml"),
    ] {
        run(arguments).refused(2, &[word]);
    }
}

#[test]
fn check_config_shows_everything_wrong_at_once_and_no_value() {
    let place = Place::make();
    let good = place.ask(&["check-config"]).ok();
    assert_eq!(good["ok"], true);
    assert_eq!(good["errors"].as_array().map(Vec::len), Some(0));

    let text = fs::read_to_string(place.config()).expect("a file");
    let text = text
        .replace("timeout = \"30s\"", "timeout = 41424344\ntimeuot = \"hidden-one\"")
        .replace("filter = \"info\"", "filter = \"hidden-two=what?\"")
        .replace("parallel_per_source = 4", "parallel_per_source = 98989898");
    write(&place.config(), text);
    let keys = ["`outbound.timeout`", "timeuot", "`log.filter`", "`pull.parallel_per_source`"];
    let refused = place.run(&["check-config"]);
    refused.refused(2, &keys);
    assert!(refused.err.contains(&place.config()), "the file is named: {refused:?}");
    place.run(&["serve"]).refused(2, &keys);

    let told = place.ask(&["check-config"]);
    assert_eq!(told.code, Some(2), "{told:?}");
    let document = told.json();
    assert_eq!(document["ok"], false);
    assert_eq!(document["errors"].as_array().map(Vec::len), Some(keys.len()), "{document}");
    for value in ["41424344", "hidden-one", "hidden-two", "98989898"] {
        assert!(!format!("{refused:?}{told:?}").contains(value), "{value} was shown: {refused:?} {told:?}");
    }
    write(&place.config(), "public_url = [unfinished");
    place.run(&["check-config"]).refused(2, &["config.toml"]);
}

#[test]
fn a_master_key_that_is_missing_wrong_or_no_key_stops_the_start_and_leaves_the_store_as_it_was() {
    let place = Place::make();
    let (key, before) = (place.path("etc/master.key"), bytes(&place));
    let right = fs::read_to_string(&key).expect("a key");
    let other =
        if right.starts_with('A') { right.replacen('A', "B", 1) } else { format!("A{}", &right[1..]) };
    let check = |words: &[&str]| {
        for command in [&["serve"][..], &["source", "list"]] {
            let refused = place.run(command);
            refused.refused(2, words);
            assert!(
                !refused.err.contains(right.trim()) && !refused.err.contains(other.trim()),
                "{refused:?}"
            );
            assert!(bytes(&place) == before, "the store was changed by {command:?}: {refused:?}");
        }
    };
    write(&key, &other);
    check(&["master key", "nothing was changed"]);
    write(&key, "too short");
    check(&["master key", &key]);
    fs::remove_file(&key).expect("removed");
    check(&["master key", &key]);
    let config = fs::read_to_string(place.config()).expect("a file");
    write(&place.config(), config.replace(&format!("file = \"{key}\""), ""));
    check(&["master key", "master_key.file", "init"]);

    write(&place.config(), config);
    write(&key, &right);
    assert_eq!(place.serve().kill().code, None);
    write(&key, &other);
    place.run(&["serve"]).refused(2, &["master key", "nothing was changed"]);
    write(&key, &right);
    assert_eq!(place.serve().stop().code, Some(0), "with the right key all is well, also after a power cut");
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_serve() {
    let place = Place::make();
    fs::remove_file(place.store()).expect("removed");
    for command in [&["serve"][..], &["source", "list"]] {
        place.run(command).refused(2, &[&place.store(), "init"]);
        assert!(!fs::exists(place.store()).expect("looked"), "{command:?}");
    }
}

#[test]
fn a_damaged_store_is_refused_and_not_touched() {
    let place = Place::make();
    let whole = bytes(&place);
    let mut scratched = whole.clone();
    scratched[..512].fill(0xa5);
    for damaged in [b"this is a letter\n".to_vec(), whole[..whole.len() / 2].to_vec(), Vec::new(), scratched]
    {
        write(&place.store(), &damaged);
        for command in [&["serve"][..], &["api-key", "list", "--workspace", "live"]] {
            let refused = place.run(command);
            refused.refused(1, &[&place.store(), "nothing was changed", "backup"]);
            assert!(bytes(&place) == damaged, "{} bytes were changed: {refused:?}", damaged.len());
        }
        // `init` makes what is missing, and a damaged store is not missing.
        assert_eq!(place.init().code, Some(1));
        assert!(bytes(&place) == damaged, "{} bytes were changed by init", damaged.len());
    }
    write(&place.store(), &whole);
    assert_eq!(place.serve().stop().code, Some(0));
}

#[test]
fn a_store_of_a_newer_program_is_refused_and_not_touched() {
    let place = Place::make();
    let description = redb::TableDefinition::<&[u8], &[u8]>::new("meta.v1");
    let store = redb::Database::open(place.store()).expect("a store");
    let change = store.begin_write().expect("a change");
    let mut table = change.open_table(description).expect("the store's description");
    let known = table.insert(&b"schema"[..], &b"999"[..]).expect("written").map(|old| old.value().to_vec());
    assert!(known.is_some(), "this is where the format stands");
    drop(table);
    change.commit().expect("written");
    drop(store);
    let newer = bytes(&place);
    for command in [&["serve"][..], &["source", "list"]] {
        place.run(command).refused(1, &["newer", "format 999", "nothing was changed"]);
        assert!(bytes(&place) == newer, "{command:?}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let place = Place::make();
    let before = bytes(&place);
    let holder = TcpListener::bind(("127.0.0.1", place.port)).expect("the port");
    place.run(&["serve"]).refused(1, &[&place.port.to_string(), "in use"]);
    assert!(bytes(&place) == before, "the port is looked at before the store");
    let port = place.port.to_string();
    run(&["sandbox", "--port", &port]).refused(1, &[&port, "in use"]);
    drop(holder);
}

#[test]
fn a_certificate_that_cannot_be_served_stops_the_start_before_the_store_is_touched() {
    let place = Place::make();
    let before = bytes(&place);
    let made = || self_signed(&["localhost"], &Clock::machine()).expect("a certificate");
    let (mine, other) = (made(), made());
    let (certificate, key) = (place.path("tls.pem"), place.path("tls.key"));
    let settings = [
        format!("listen.public.tls.certificate={certificate}"),
        format!("listen.public.tls.key={key}"),
        format!("public_url=https://localhost:{}", place.port),
    ];
    let serve: Vec<&str> = ["serve"]
        .into_iter()
        .chain(settings.iter().flat_map(|setting| ["--set", setting.as_str()]))
        .collect();
    let refused = |words: &[&str]| {
        let refused = place.run(&serve);
        refused.refused(2, words);
        assert!(bytes(&place) == before, "the store was touched: {refused:?}");
    };
    refused(&[&certificate, "cannot be read"]);
    write(&certificate, &mine.certificate_pem);
    refused(&[&key, "cannot be read"]);
    write(&key, "not a key");
    refused(&["private key"]);
    write(&key, other.key_pem.expose());
    refused(&["does not belong"]);
    write(&key, mine.key_pem.expose());
    write(&certificate, "not a certificate");
    refused(&["BEGIN CERTIFICATE"]);

    write(&certificate, &mine.certificate_pem);
    let config = place.config();
    let serving = Program::start(&[&serve[..], &["--config", &config]].concat());
    serving.says("chartgate is serving");
    assert_eq!(serving.stop().code, Some(0));
}

#[test]
fn two_processes_never_share_a_data_folder() {
    let place = Place::make();
    let serving = place.serve();
    let address = format!("listen.public.address=127.0.0.1:{}", super::support::free_ports());
    place.run(&["serve", "--set", &address]).refused(3, &["another chartgate process", &place.store()]);
    let again = place.init();
    assert_eq!(again.code, Some(3), "{again:?}");
    let listed = place.ask(&["source", "list"]).ok();
    assert_eq!(listed.as_array().map(Vec::len), Some(0), "the first one answers as before: {listed}");
    assert_eq!(serving.stop().code, Some(0));
    assert_eq!(place.serve().stop().code, Some(0), "and leaves a folder that the next one can use");
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    write(&path("file"), "a file where a folder should be");
    // No user, not even root, can make a folder inside of a file or of /proc.
    let (config, url) = (path("etc/config.toml"), ["--public-url", "http://127.0.0.1:1"]);
    for data in [path("file/data"), "/proc/chartgate".to_owned()] {
        let init = ["init", "--config", &config, "--data-dir", &data];
        run(&[&init[..], &url].concat()).refused(1, &[&data]);
        fs::remove_dir_all(folder.path().join("etc")).expect("made for this data folder");
    }
    for config in [path("file/config.toml"), "/proc/config.toml".to_owned()] {
        let init = ["init", "--config", &config, "--data-dir", &path("data")];
        run(&[&init[..], &url].concat()).refused(1, &[config.rsplit_once('/').expect("a path").0]);
        assert!(!fs::exists(path("data")).expect("looked"), "no store without a configuration");
    }
    run(&["demo", "--port", "0", "--data-dir", &path("file/demo")]).refused(1, &[&path("file/demo")]);
}

/// Root may write everywhere, so a test that runs as root hands everything to this user and runs the program as it.
const NOBODY: u32 = 65_534;

#[test]
fn a_folder_that_is_read_only_for_the_service_user_is_named() {
    let place = Place::make();
    let probe = place.path("probe");
    fs::create_dir(&probe).expect("a folder");
    let set = |path: &str, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
    };
    set(&probe, 0o500);
    let root = fs::write(place.path("probe/file"), "").is_ok();
    if root {
        for name in ["", "etc", "etc/config.toml", "etc/master.key", "data", "data/chartgate.redb", "probe"] {
            chown(place.path(name), Some(NOBODY), Some(NOBODY)).expect("root may");
        }
    }
    let (config, data) = (place.config(), place.path("data"));
    let check = |arguments: &[&str], words: &[&str]| {
        let refused = run_as(root.then_some(NOBODY), arguments);
        // A build folder that only root can enter cannot be tested with.
        if let Some(refused) = refused {
            refused.refused(1, words);
        }
    };
    set(&data, 0o500);
    check(&["serve", "--config", &config], &["control socket", &data, "denied"]);
    set(&place.store(), 0o400);
    check(&["serve", "--config", &config], &[&place.store(), "denied"]);
    set(&data, 0o700);
    check(&["serve", "--config", &config], &[&place.store(), "denied"]);

    let init = ["init", "--public-url", "http://127.0.0.1:1"];
    let new = place.path("probe/config.toml");
    check(&[&init[..], &["--config", &new, "--data-dir", &data]].concat(), &[&new, "denied"]);
    let (new, inside) = (place.path("new/config.toml"), place.path("probe/data"));
    check(&[&init[..], &["--config", &new, "--data-dir", &inside]].concat(), &[&inside, "denied"]);
    set(&probe, 0o700);
}
