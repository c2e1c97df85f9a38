use std::fs;

use super::*;
use crate::clock::Timestamp;
use crate::crypto::Random;

struct Text(String);

impl Value for Text {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok().map(Self)
    }
}

const TEXTS: Table<Text> = Table::new("texts.v1");
const MORE: Table<Text> = Table::new("more.v1");

fn opening(folder: &tempfile::TempDir, name: &str, key: u64) -> Opening {
    Opening {
        path: folder.path().join(name),
        master_key: MasterKey::generate(&Random::seeded(key)),
        cache_bytes: 1 << 20,
        create: name == "store.redb",
    }
}

fn now() -> Timestamp {
    Timestamp::parse("2026-11-27T08:00:00Z").expect("a time")
}

async fn put(store: &Store, table: Table<Text>, from: usize, to: usize) {
    store
        .write(move |change| {
            for number in from..to {
                let text = Text(format!("text {number} {}", "x".repeat(number % 700)));
                change.put(table, &number.to_be_bytes(), &text);
            }
            Ok::<_, StoreError>(())
        })
        .await
        .expect("written");
}

fn texts(store: &Store, table: Table<Text>) -> Vec<String> {
    let rows = store.read_now(|view| view.rows(table, &Range::of(b""))).expect("read");
    rows.into_iter().map(|(_, text)| text.0).collect()
}

#[tokio::test]
async fn a_backup_is_the_store_as_of_one_moment_and_restores_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let original = opening(&folder, "store.redb", 1);
    let store = Store::open(&original, Random::seeded(2)).expect("a store");
    put(&store, TEXTS, 0, 25_000).await;
    put(&store, MORE, 0, 10).await;
    let before = (texts(&store, TEXTS), texts(&store, MORE));

    let to = folder.path().join("one.backup");
    let progress = BackupProgress::default();
    let report = store.back_up(&to, now(), &progress).expect("a backup");
    assert_eq!(report.made_at, now());
    assert_eq!(report.bytes, fs::metadata(&to).expect("a file").len());
    assert_eq!(progress.seen().0, report.rows, "all rows were read again");
    put(&store, TEXTS, 25_000, 26_000).await;
    assert!(
        matches!(store.back_up(&to, now(), &progress), Err(BackupError::Exists(_))),
        "never over anything"
    );
    drop(store);

    let checked = Store::check_backup(&to, &original.master_key, &progress).expect("whole");
    assert_eq!(checked, report);
    let elsewhere = Opening { create: false, ..opening(&folder, "restored.redb", 1) };
    let (restored, again) = Store::restore(&to, &elsewhere, Random::seeded(3), &progress).expect("restored");
    assert_eq!(again, report);
    assert_eq!((texts(&restored, TEXTS), texts(&restored, MORE)), before);
    put(&restored, TEXTS, 30_000, 30_001).await;
    assert_eq!(texts(&restored, TEXTS).len(), 25_001, "it goes on from there");
    assert!(matches!(
        Store::restore(&to, &elsewhere, Random::seeded(3), &progress),
        Err(BackupError::Exists(_))
    ));
}

#[tokio::test]
async fn a_backup_that_is_cut_changed_or_of_another_key_is_refused_and_nothing_is_made_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let original = opening(&folder, "store.redb", 1);
    let store = Store::open(&original, Random::seeded(2)).expect("a store");
    put(&store, TEXTS, 0, 5).await;
    let to = folder.path().join("good.backup");
    let progress = BackupProgress::default();
    store.back_up(&to, now(), &progress).expect("a backup");
    let good = fs::read(&to).expect("a file");
    let bad = folder.path().join("bad.backup");
    let elsewhere = Opening { create: false, ..opening(&folder, "restored.redb", 1) };
    let refused = |bytes: &[u8]| {
        fs::write(&bad, bytes).expect("written");
        let error = Store::restore(&bad, &elsewhere, Random::seeded(3), &progress).map(drop);
        let error = error.expect_err("refused");
        assert!(!elsewhere.path.exists() && !folder.path().join("restored.redb.restoring").exists());
        error
    };
    for length in 0..good.len() {
        let error = refused(&good[..length]);
        assert!(matches!(error, BackupError::Unusable { .. }), "{length}: {error}");
    }
    for place in 0..good.len() {
        let mut changed = good.clone();
        changed[place] ^= 1;
        let error = refused(&changed);
        let told = matches!(
            error,
            BackupError::Unusable { .. } | BackupError::WrongMasterKey(_) | BackupError::Newer(_)
        );
        assert!(told, "{place}: {error}");
    }
    let longer = [&good[..], b"x"].concat();
    assert!(refused(&longer).to_string().contains("follows"));

    let other = Opening { create: false, ..opening(&folder, "restored.redb", 9) };
    let wrong = Store::restore(&to, &other, Random::seeded(3), &progress).map(drop).expect_err("refused");
    assert!(matches!(wrong, BackupError::WrongMasterKey(_)), "{wrong}");
    assert!(!other.path.exists());
}

#[tokio::test]
async fn one_that_is_stopped_or_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&opening(&folder, "store.redb", 1), Random::seeded(2)).expect("a store");
    put(&store, TEXTS, 0, 3_000).await;
    let progress = BackupProgress::default();
    progress.stop();
    let to = folder.path().join("one.backup");
    assert!(matches!(store.back_up(&to, now(), &progress), Err(BackupError::Stopped)));
    let nowhere = folder.path().join("no/such/folder/one.backup");
    let error = store.back_up(&nowhere, now(), &BackupProgress::default()).expect_err("refused");
    assert!(matches!(error, BackupError::File { .. }), "{error}");
    let names: Vec<String> = fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names, ["store.redb"]);
}
