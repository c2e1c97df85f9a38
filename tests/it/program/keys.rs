//! `keys`: on a running appliance and on its store, and that no private key is ever said.

use std::fs;

use chartgate::crypto::{KeyPair, KeyType, Random, base64};
use serde_json::Value;

use super::running::text;
use super::support::Place;
use crate::support::send;

async fn jwks(place: &Place) -> Value {
    send("GET", &place.url("/api/auth/.well-known/jwks"), &[], "").await.ok()
}

fn kids(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|key| text(key, "kid").to_owned()).collect()
}

/// A new key as a PEM file, and the lines of its body.
fn pem_file(place: &Place, name: &str, kind: KeyType) -> (String, Vec<String>) {
    let body = base64(&KeyPair::generate(kind, &Random::system()).expect("a key"));
    let lines: Vec<String> =
        body.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let path = place.path(name);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    fs::write(&path, pem).expect("written");
    (path, lines)
}

#[tokio::test]
async fn signing_keys_can_be_turned_over_with_and_without_a_running_appliance() {
    let place = Place::make();
    for running in [false, true] {
        let serving = running.then(|| place.serve());
        let listed = place.ask(&["keys", "list"]).ok();
        assert_eq!(text(&listed, "overlap"), "1d");
        let current: Vec<&Value> = listed["keys"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|key| key["stage"] == "current")
            .collect();
        assert_eq!(current.len(), 2, "{listed}");

        let made = place.ask(&["keys", "rotate", "--algorithm", "ES384"]).ok();
        let new = kids(&made["keys"]);
        assert_eq!((new.len(), text(&made["keys"][0], "stage")), (1, "next"));
        place.ask(&["keys", "rotate", "--algorithm", "ES384"]).refused(1, &[&new[0], "keys activate"]);
        place.ask(&["keys", "activate"]).refused(1, &[&new[0], "cannot sign before", "--force"]);
        let switched = place.ask(&["keys", "activate", &new[0], "--force"]).ok();
        assert_eq!(text(&switched["keys"][0], "stage"), "current");
        place.ask(&["keys", "retire"]).refused(1, &["cannot be retired before", "--force"]);
        if running {
            assert!(kids(&jwks(&place).await["keys"]).contains(&new[0]), "without a restart");
            assert_eq!(jwks(&place).await["keys"].as_array().map(Vec::len), Some(3));
        }
        place.ask(&["keys", "retire", "--force"]).ok();

        let shown = place.ask(&["keys", "export-jwks"]).ok();
        assert_eq!(shown["keys"].as_array().map(Vec::len), Some(2));
        if running {
            assert_eq!(shown, jwks(&place).await);
        }
        let file = place.path("jwks.json");
        let written = place.ask(&["keys", "export-jwks", "--out", &file]).ok();
        assert_eq!(written["keys"], 2);
        let content: Value = serde_json::from_str(&fs::read_to_string(&file).expect("a file")).expect("JSON");
        assert_eq!(content, shown);
        let nowhere = place.path("no/such/folder/jwks.json");
        place.ask(&["keys", "export-jwks", "--out", &nowhere]).refused(1, &[&nowhere]);

        let people = place.run(&["keys", "list"]);
        assert!(people.out.contains(&new[0]) && people.out.contains("P-384"), "{people:?}");
        drop(serving);
    }
}

#[test]
fn a_key_can_be_named_and_an_rsa_key_can_have_another_size() {
    let place = Place::make();
    place
        .ask(&["keys", "rotate", "--algorithm", "RS384", "--bits", "1024"])
        .refused(1, &["2048, 3072 or 4096"]);
    place.ask(&["keys", "rotate", "--algorithm", "ES384", "--bits", "3072"]).refused(1, &["--bits", "RS384"]);
    let made = place.ask(&["keys", "rotate", "--algorithm", "RS384", "--bits", "3072"]).ok();
    let new = kids(&made["keys"]);
    assert!(made["keys"][0].to_string().contains("3072"), "{made}");
    place.ask(&["keys", "retire", "no-such-key"]).refused(1, &["no-such-key"]);
    place.ask(&["keys", "activate", "no-such-key"]).refused(1, &["no-such-key"]);
    // One that never signed may go at once.
    let retired = place.ask(&["keys", "retire", &new[0], "--force"]).ok();
    assert_eq!((kids(&retired["keys"]), text(&retired["keys"][0], "stage")), (new, "retired"));
    let progress = place.ask(&["keys", "rotate-data", "--no-wait"]);
    assert_eq!(progress.code, Some(0), "{progress:?}");
    assert!(place.ask(&["keys", "rotate-data", "--status"]).ok().is_object());
}

#[tokio::test]
async fn a_private_key_is_taken_and_never_said() {
    let place = Place::make();
    let (good, lines) = pem_file(&place, "good.pem", KeyType::EcP384);
    let (wrong, wrong_lines) = pem_file(&place, "wrong.pem", KeyType::EcP256);
    let (second, second_lines) = pem_file(&place, "second.pem", KeyType::Rsa2048);
    let broken = place.path("broken.pem");
    fs::write(&broken, fs::read_to_string(&good).expect("a file").replacen(&lines[0][..8], "AAAAAAAA", 1))
        .expect("written");
    let mut said = String::new();
    let mut hear = |ended: &super::support::Ended| said.extend([ended.out.as_str(), ended.err.as_str()]);

    let offline = place.ask(&["keys", "import", &good, "--kid", "ours-2024"]);
    assert_eq!(text(&offline.ok()["keys"][0], "kid"), "ours-2024");
    assert!(offline.err.contains(&good), "what to do with the file: {offline:?}");
    hear(&offline);
    let serving = place.serve();
    let online = place.ask(&["keys", "import", &second, "--known"]);
    let kid = text(&online.ok()["keys"][0], "kid").to_owned();
    hear(&online);
    let set = kids(&jwks(&place).await["keys"]);
    assert!(set.contains(&kid) && set.iter().any(|known| known == "ours-2024"), "{set:?}");
    for (file, words) in [
        (&good, &["already", "ours-2024"][..]),
        (&wrong, &["P-384"]),
        (&broken, &["private key"]),
        (&place.config(), &["BEGIN PRIVATE KEY"]),
    ] {
        let refused = place.ask(&["keys", "import", file]);
        refused.refused(1, words);
        hear(&refused);
    }
    let missing = place.path("none.pem");
    place.run(&["keys", "import", &missing]).refused(2, &[&missing, "cannot be read"]);
    let binary = place.path("binary.pem");
    fs::write(&binary, [0x30, 0x82, 0xff, 0xfe]).expect("written");
    place.run(&["keys", "import", &binary]).refused(2, &[&binary, "PEM"]);
    fs::write(&binary, "x".repeat(70_000)).expect("written");
    place.run(&["keys", "import", &binary]).refused(2, &[&binary, "too long"]);

    hear(&place.run(&["keys", "list"]));
    hear(&serving.stop());
    let store = fs::read(place.store()).expect("a store");
    for line in lines.iter().chain(&wrong_lines).chain(&second_lines) {
        assert!(!said.contains(&line[..12.min(line.len())]), "a part of a private key was said");
        let found = store.windows(line.len()).any(|window| window == line.as_bytes());
        assert!(!found, "a private key is in the store in clear");
    }
    let listed = place.ask(&["keys", "list"]).ok();
    assert!(kids(&listed["keys"]).contains(&kid), "kept over the stop");
}
