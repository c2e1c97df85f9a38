//! The life of our signing keys towards an EHR that checks every assertion against our JWKS, and who fetches that.

use std::time::Duration;

use chartgate::clock::Timestamp;
use chartgate::control::{Command, KeysCommand, execute};
use chartgate::crypto::{Algorithm, KeyPair, KeyType, Random, base64};
use chartgate::secret::Secret;
use chartgate::smart::keys::{KeyStage, RotationError, SigningKeys};
use serde_json::{Value, json};

use crate::support::{Setup, TestApp, head, send};

const DAY: Duration = Duration::from_hours(24);
const ASSERTION: Duration = Duration::from_mins(4);

fn keys(app: &TestApp) -> SigningKeys {
    app.app().parts().signing_keys.clone()
}

fn at(app: &TestApp, stage: KeyStage) -> Vec<String> {
    let found = keys(app).list().into_iter().filter(|key| key.stage == stage);
    found.map(|key| key.kid).collect()
}

async fn published(app: &TestApp) -> Vec<String> {
    let set = send("GET", &format!("{}/.well-known/jwks.json", app.origin), &[], "").await.ok();
    let kids = set["keys"].as_array().expect("a list").iter();
    kids.map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}

async fn fetch(app: &TestApp, agent: &str) {
    let url = format!("{}/api/auth/.well-known/jwks", app.origin);
    send("GET", &url, &[("user-agent", agent)], "").await.ok();
}

async fn connects(app: &TestApp, patient: &str) {
    let user = app.hospital.users()[0].username.clone();
    app.connected(patient, &user).await;
    assert_eq!(app.connection(patient).await["status"], "active");
}

async fn told(app: &TestApp, command: KeysCommand) -> Result<Value, String> {
    execute(app.app().parts(), Command::Keys(command)).await.map_err(|refused| refused.0)
}

/// Moves the clock to a second before a time.
fn just_before(app: &TestApp, time: Timestamp) {
    app.clock.advance(time.before(Duration::from_secs(1)).since(app.clock.now()));
}

fn pem(kind: KeyType) -> Secret {
    let der = KeyPair::generate(kind, &Random::system()).expect("a key");
    let body = base64(&der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("text")).collect();
    Secret::new(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")))
}

#[tokio::test]
async fn a_key_goes_from_next_to_retired_and_the_hospital_accepts_every_signature_on_the_way() {
    let mut app = TestApp::start().await;
    let old = at(&app, KeyStage::Current);
    assert_eq!(old.len(), 2, "one for each algorithm");
    let new: Vec<String> = keys(&app)
        .rotate(&[KeyType::Rsa2048, KeyType::EcP384])
        .await
        .expect("published")
        .into_iter()
        .map(|key| key.kid)
        .collect();
    assert_eq!(published(&app).await.len(), 4);
    assert_eq!(at(&app, KeyStage::Current), old, "published, not used");
    connects(&app, "before").await;

    let published_at = keys(&app).list().iter().find(|key| key.kid == new[0]).expect("there").created_at;
    just_before(&app, published_at.after(DAY));
    let early = keys(&app).activate(None, false).await.expect_err("too early");
    let RotationError::TooEarly { possible_at, .. } = early else { panic!("{early}") };
    assert_eq!(possible_at, app.clock.now().after(Duration::from_secs(1)));
    assert_eq!(at(&app, KeyStage::Current), old);
    app.restart().await;
    app.clock.advance(Duration::from_secs(1));
    keys(&app).activate(None, false).await.expect("in time");
    let sorted = |mut kids: Vec<String>| {
        kids.sort();
        kids
    };
    assert_eq!(sorted(at(&app, KeyStage::Current)), sorted(new.clone()));
    assert_eq!(sorted(at(&app, KeyStage::Retiring)), sorted(old.clone()));
    let signing = keys(&app).current(Algorithm::Rs384).expect("a key");
    assert!(new.iter().any(|kid| kid == signing.kid()), "at once, without a restart");
    assert_eq!(published(&app).await.len(), 4, "the old ones are still published");
    connects(&app, "between").await;

    let switched_at =
        keys(&app).list().iter().find(|key| key.kid == old[0]).and_then(|key| key.retiring_since);
    let switched_at = switched_at.expect("it signed");
    just_before(&app, switched_at.after(DAY).after(ASSERTION));
    let early = keys(&app).retire(None, false).await.expect_err("too early");
    assert!(matches!(early, RotationError::TooEarly { .. }), "{early}");
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(keys(&app).retire(None, false).await.expect("in time").len(), 2);
    assert_eq!(sorted(published(&app).await), sorted(new.clone()));
    // The hospital keeps what it fetched for a quarter of an hour; after that it knows the new keys only.
    app.clock.advance(Duration::from_mins(16));
    connects(&app, "after").await;

    app.restart().await;
    assert_eq!(sorted(at(&app, KeyStage::Retired)), sorted(old));
    let history = keys(&app).list();
    for key in history.iter().filter(|key| key.stage == KeyStage::Retired) {
        assert!(key.retiring_since.is_some() && key.retired_at > key.retiring_since, "{key:?}");
        assert_eq!(key.thumbprint(), key.kid);
    }
    connects(&app, "after-a-restart").await;
}

#[tokio::test]
async fn a_private_half_is_nowhere_in_the_store_after_its_key_was_retired() {
    let app = TestApp::start().await;
    let made = keys(&app).rotate(&[KeyType::EcP384]).await.expect("published");
    let row = |app: &TestApp| {
        use chartgate::store::{Range, Reader as _, StoreError, Table};
        // The row as text, without knowing its type.
        struct Text(String);
        impl chartgate::store::Value for Text {
            fn encode(&self, _: &mut Vec<u8>) {}
            fn decode(bytes: &[u8]) -> Option<Self> {
                String::from_utf8(bytes.to_vec()).ok().map(Self)
            }
        }
        let table: Table<Text> = Table::new("signing_keys.v1");
        let rows = app.app().parts().store.read_now(|view| view.rows(table, &Range::of(b"")));
        let rows: Vec<String> =
            rows.map_err(|error: StoreError| error).expect("read").into_iter().map(|row| row.1.0).collect();
        rows.into_iter().find(|text| text.contains(&made[0].kid)).expect("the row")
    };
    let before: Value = serde_json::from_str(&row(&app)).expect("JSON");
    assert!(before["private_key"].as_str().is_some_and(|text| text.len() > 100), "the search would find it");
    // A key that never signed may go at any time.
    keys(&app).retire(Some(made[0].kid.clone()), false).await.expect("retired");
    let after: Value = serde_json::from_str(&row(&app)).expect("JSON");
    assert_eq!((&after["private_key"], &after["stage"]), (&Value::Null, &json!("retired")));
    assert!(!format!("{:?}", keys(&app).list()).contains(before["private_key"].as_str().expect("text")));
}

#[tokio::test]
async fn a_refused_switch_says_when_it_can_be_and_who_has_fetched_the_key() {
    let mut app = TestApp::start().await;
    fetch(&app, "Old-EHR/1.0").await;
    app.clock.advance(Duration::from_hours(1));
    let made = told(&app, KeysCommand::Rotate { algorithm: Some(Algorithm::Rs384), bits: Some(3072) }).await;
    let made = made.expect("published");
    assert_eq!((&made["keys"][0]["key"], &made["keys"][0]["stage"]), (&json!("RSA 3072"), &json!("next")));
    fetch(&app, "New-EHR/2.0").await;
    fetch(&app, "New-EHR/2.0").await;
    for restarted in [false, true] {
        if restarted {
            app.restart().await;
        }
        let refused =
            told(&app, KeysCommand::Activate { kid: None, force: false }).await.expect_err("too early");
        let (have, have_not) = refused.split_once("have not:").expect("both kinds");
        assert!(have.contains("2026-11-03T09:00:00.000Z") && have.contains("New-EHR/2.0"), "{refused}");
        assert!(have_not.contains("Old-EHR/1.0") && have_not.contains("--force"), "{refused}");
        let listed = told(&app, KeysCommand::List).await.expect("a list");
        let fetchers = listed["fetchers"].as_array().expect("a list");
        let new = fetchers.iter().find(|row| row["agent"] == "New-EHR/2.0").expect("noted");
        assert_eq!((&new["count"], &new["network"]), (&json!(2), &json!("127.0.0.0/24")));
        let next = listed["keys"].as_array().expect("a list").iter().find(|key| key["stage"] == "next");
        assert_eq!(next.expect("a next key")["seen_by"], 1, "{listed}");
    }
    told(&app, KeysCommand::Activate { kid: None, force: true }).await.expect("forced");
    let refused = told(&app, KeysCommand::Retire { kid: None, force: false }).await.expect_err("too early");
    assert!(refused.contains("signature") || refused.contains("signed"), "{refused}");
    told(&app, KeysCommand::Retire { kid: None, force: true }).await.expect("forced");
}

#[tokio::test]
async fn many_fetches_are_one_write_a_minute_and_only_real_fetches_count() {
    let app = TestApp::start().await;
    let count =
        |app: &TestApp| app.app().parts().jwks_fetches.list().iter().map(|row| row.count).sum::<u64>();
    fetch(&app, "EHR/1.0").await;
    let store = app.app().parts().store.clone();
    let before = store.commits();
    for number in 0..200 {
        fetch(&app, &format!("EHR/1.0 node {}", number % 5)).await;
    }
    assert!(store.commits() - before <= 1, "{} commits", store.commits() - before);
    assert_eq!(count(&app), 201);
    head(&format!("{}/.well-known/jwks.json", app.origin)).await;
    send("GET", &format!("{}/.well-known/jwks.jsonx", app.origin), &[], "").await;
    assert_eq!(count(&app), 201);
    app.clock.advance(Duration::from_mins(1));
    fetch(&app, "EHR/1.0").await;
    assert_eq!(count(&app), 202);
}

#[tokio::test]
async fn a_key_that_an_ehr_knows_already_is_brought_along_with_its_name_and_signs() {
    let app = TestApp::start().await;
    let text = pem(KeyType::Rsa2048);
    let name = "2024-03-01T00:00:00.rsa";
    let import = |pem: &Secret, kid: Option<&str>, known| KeysCommand::Import {
        pem: pem.clone(),
        kid: kid.map(str::to_owned),
        known,
    };
    let brought = told(&app, import(&text, Some(name), true)).await.expect("imported");
    assert_eq!((&brought["keys"][0]["kid"], &brought["keys"][0]["stage"]), (&json!(name), &json!("current")));
    assert_ne!(brought["keys"][0]["thumbprint"], name);
    assert!(published(&app).await.iter().any(|kid| kid == name));
    assert_eq!(keys(&app).current(Algorithm::Rs384).expect("a key").kid(), name);
    // Only the key with this name can have signed: the other one is no longer published.
    told(&app, KeysCommand::Retire { kid: None, force: true }).await.expect("retired");
    app.clock.advance(Duration::from_mins(16));
    connects(&app, "amy-7").await;

    for (again, kid) in [(&text, None), (&text, Some("another")), (&pem(KeyType::Rsa2048), Some(name))] {
        let refused = told(&app, import(again, kid, false)).await.expect_err("a duplicate");
        assert!(refused.contains("already") && refused.contains(name), "{refused}");
    }
    for kid in ["", "with blank", "quote\"", "ümlaut", &"x".repeat(129)] {
        let refused =
            told(&app, import(&pem(KeyType::EcP384), Some(kid), false)).await.expect_err("a bad name");
        assert!(refused.contains("key id"), "{refused}");
    }
    let brought = told(&app, import(&pem(KeyType::EcP384), None, false)).await.expect("imported");
    assert_eq!(
        (&brought["keys"][0]["stage"], &brought["keys"][0]["imported"]),
        (&json!("next"), &json!(true))
    );
    assert_eq!(brought["keys"][0]["kid"], brought["keys"][0]["thumbprint"]);
    let refused = told(&app, import(&pem(KeyType::EcP256), None, false)).await.expect_err("not for SMART");
    assert!(refused.contains("P-384"), "{refused}");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let app = TestApp::start().await;
    let before = keys(&app).list();
    let current = at(&app, KeyStage::Current)[0].clone();
    let named = |kid: &str| Some(kid.to_owned());
    for (command, word) in [
        (KeysCommand::Activate { kid: None, force: true }, "keys rotate"),
        (KeysCommand::Activate { kid: named("nobody"), force: true }, "`nobody`"),
        (KeysCommand::Activate { kid: named(&current), force: true }, "is current"),
        (KeysCommand::Retire { kid: None, force: true }, "no key is retiring"),
        (KeysCommand::Retire { kid: named(&current), force: true }, "is current"),
        (KeysCommand::Rotate { algorithm: Some(Algorithm::Es384), bits: Some(2048) }, "ES384"),
        (KeysCommand::Rotate { algorithm: None, bits: Some(1024) }, "2048"),
        (KeysCommand::Rotate { algorithm: Some(Algorithm::Rs256), bits: None }, "RS384"),
    ] {
        let refused = told(&app, command).await.expect_err("refused");
        assert!(refused.contains(word), "`{word}` is missing in {refused}");
    }
    assert_eq!(keys(&app).list(), before);
    keys(&app).rotate(&[KeyType::EcP384]).await.expect("published");
    // One of two is there already, so neither is made.
    let refused = keys(&app).rotate(&[KeyType::Rsa2048, KeyType::EcP384]).await.expect_err("refused");
    assert!(matches!(refused, RotationError::NextExists(..)), "{refused}");
    assert_eq!(at(&app, KeyStage::Next).len(), 1);
    for _ in 0..2 {
        keys(&app).activate(None, true).await.expect("switched");
        keys(&app).rotate(&[KeyType::EcP384]).await.expect("published");
    }
    keys(&app).activate(None, true).await.expect("switched");
    let refused = keys(&app).rotate(&[KeyType::EcP384]).await.expect_err("the set stays small");
    assert!(matches!(refused, RotationError::TooMany(_)), "{refused}");
}

#[tokio::test]
async fn a_fetch_through_a_proxy_of_ours_is_noted_with_the_address_before_it() {
    let settings = vec![("listen.public.trusted_proxies", "127.0.0.1")];
    let app = TestApp::with(Setup { settings, ..Setup::default() }).await;
    let url = format!("{}/.well-known/jwks.json", app.origin);
    send("GET", &url, &[("x-forwarded-for", "198.51.100.7"), ("user-agent", "EHR")], "").await.ok();
    let fetchers = app.app().parts().jwks_fetches.list();
    assert!(
        fetchers.iter().any(|row| row.network == "198.51.100.0/24" && row.agent == "EHR"),
        "{fetchers:?}"
    );
}
