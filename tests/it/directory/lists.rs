//! What becomes of a list in the store, over its life.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use chartgate::clock::{Clock, Timestamp};
use chartgate::config::Environment;
use chartgate::crypto::Random;
use chartgate::directory::import::ImportLimits;
use chartgate::directory::{Directory, ImportRefused, ImportReport, ImportRequest};
use chartgate::store::{MasterKey, Opening, Store};
use tempfile::TempDir;

/// A directory over an empty store.
pub fn directory() -> (Directory, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let key = MasterKey::generate(&Random::system());
    let clock = Clock::manual(Timestamp::from_seconds(1_793_607_165));
    (open(&folder, key, clock), folder)
}

fn open(folder: &TempDir, master_key: MasterKey, clock: Clock) -> Directory {
    let path = folder.path().join("chartgate.redb");
    let opening = Opening { path, master_key, cache_bytes: 4 << 20, create: true };
    let store = Store::open(&opening, Random::system()).expect("a store");
    Directory::load(store, clock, Random::system()).expect("a directory")
}

fn request(list: &str) -> ImportRequest {
    ImportRequest { list: list.to_owned(), environment: Environment::Live, url: None, etag: None, yes: false }
}

/// Imports a file under its own name.
pub async fn import_file(directory: &Directory, path: &Path) -> ImportReport {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let file = File::open(path).expect("a file");
    directory.import(request(&name), file, ImportLimits::default()).await.expect("imported")
}

async fn import(directory: &Directory, list: &str, text: &str) -> Result<ImportReport, ImportRefused> {
    let bytes = std::io::Cursor::new(text.as_bytes().to_vec());
    directory.import(request(list), bytes, ImportLimits::default()).await
}

/// A list of this many practices, from a number on.
fn rows(from: usize, count: usize) -> String {
    let rows: Vec<String> = (from..from + count)
        .map(|number| {
            format!(
                r#"{{"id":"id-{number}","name":"Practice {number}","url":"https://h{number}.example/r4"}}"#
            )
        })
        .collect();
    format!("[{}]", rows.join(","))
}

fn found(directory: &Directory, text: &str) -> Vec<String> {
    directory.find(Environment::Live, text, 30).places.into_iter().map(|place| place.name).collect()
}

#[tokio::test]
async fn an_unchanged_list_changes_nothing_and_a_new_one_is_found_at_once() {
    let (directory, _folder) = directory();
    let first = import(&directory, "one", &rows(0, 30)).await.expect("imported");
    assert_eq!((first.entries, first.added, first.unchanged), (30, 30, false));
    assert_eq!(found(&directory, "practice 7")[0], "Practice 7");
    let again = import(&directory, "one", &rows(0, 30)).await.expect("imported");
    assert!(again.unchanged && again.added == 0 && again.gone == 0, "{again:?}");
    // The same rows in another order, written in another way.
    let mut values: Vec<serde_json::Value> = serde_json::from_str(&rows(0, 30)).expect("JSON");
    values.reverse();
    let reversed = serde_json::to_string_pretty(&values).expect("JSON");
    assert!(import(&directory, "one", &reversed).await.expect("imported").unchanged);
    let lists = directory.lists().await.expect("lists");
    assert_eq!((lists.len(), lists[0].entries, lists[0].gone), (1, 30, 0));
}

#[tokio::test]
async fn what_a_list_no_longer_has_is_marked_and_comes_back() {
    let (directory, _folder) = directory();
    import(&directory, "one", &rows(0, 30)).await.expect("imported");
    let moved = rows(0, 30).replace("https://h3.example", "https://moved.example");
    let moved = moved.replace(r#"{"id":"id-4","name":"Practice 4","url":"https://h4.example/r4"},"#, "");
    let report = import(&directory, "one", &moved).await.expect("imported");
    assert_eq!((report.entries, report.added, report.gone, report.moved), (29, 1, 2, 1));
    assert_eq!(report.moved_names, ["Practice 3"]);
    assert!(!found(&directory, "practice 4").contains(&"Practice 4".to_owned()));
    let lists = directory.lists().await.expect("lists");
    assert_eq!((lists[0].entries, lists[0].gone), (29, 2));
    let back = import(&directory, "one", &rows(0, 30)).await.expect("imported");
    assert_eq!((back.entries, back.gone), (30, 1), "the moved one's new address is gone again");
    assert!(found(&directory, "practice 4").contains(&"Practice 4".to_owned()));
}

#[tokio::test]
async fn a_list_that_may_be_cut_changes_nothing_without_a_yes() {
    let (directory, _folder) = directory();
    import(&directory, "one", &rows(0, 100)).await.expect("imported");
    let cut = &rows(0, 100)[..4_000];
    for (text, error) in [
        (rows(0, 79), "it may have been cut short"),
        ("[]".to_owned(), "none of its 0 rows"),
        (r#"[{"name":"Old","url":"https://h.example/dstu2/x"}]"#.to_owned(), "1 not FHIR R4"),
        (String::new(), "empty"),
        (cut.to_owned(), "cut short on its way"),
        ("<html>maintenance</html>".to_owned(), "web page"),
    ] {
        let refused = import(&directory, "one", &text).await.expect_err("refused").to_string();
        assert!(refused.contains(error), "{refused}");
        assert_eq!(directory.lists().await.expect("lists")[0].entries, 100);
        assert!(found(&directory, "practice 99").contains(&"Practice 99".to_owned()));
    }
    assert_eq!(import(&directory, "one", &rows(0, 80)).await.expect("imported").gone, 20);
    let yes = ImportRequest { yes: true, ..request("one") };
    let few = std::io::Cursor::new(rows(0, 3).into_bytes());
    let report = directory.import(yes, few, ImportLimits::default()).await.expect("imported");
    assert_eq!((report.entries, report.gone), (3, 77));
}

#[tokio::test]
async fn lists_are_kept_over_a_restart_and_apart_from_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = MasterKey::generate(&Random::system());
    let clock = Clock::manual(Timestamp::from_seconds(1_793_607_165));
    {
        let directory = open(&folder, key.clone(), clock.clone());
        import(&directory, "one", &rows(0, 40)).await.expect("imported");
        import(&directory, "two", &rows(1_000, 9_000)).await.expect("imported");
    }
    // The committer's thread lets go of the file a moment after the last handle.
    let directory = loop {
        let path = folder.path().join("chartgate.redb");
        let opening = Opening { path, master_key: key.clone(), cache_bytes: 4 << 20, create: false };
        match Store::open(&opening, Random::system()) {
            Ok(store) => break Directory::load(store, clock.clone(), Random::system()).expect("a directory"),
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert!(found(&directory, "practice 9999").is_empty(), "not before it is read");
    let report = directory.reindex(Environment::Live).await.expect("read");
    assert_eq!((report.entries, report.sources), (9_040, 9_040));
    assert_eq!(found(&directory, "practice 9999")[0], "Practice 9999");
    assert!(directory.remove_list(Environment::Live, "two").await.expect("removed"));
    assert!(!directory.remove_list(Environment::Live, "two").await.expect("asked"));
    assert!(!found(&directory, "practice 9999").contains(&"Practice 9999".to_owned()));
    assert_eq!(found(&directory, "practice 39")[0], "Practice 39");
    assert!(directory.find(Environment::Sandbox, "practice", 5).places.is_empty(), "the other environment");
}

#[tokio::test]
async fn search_goes_on_while_a_list_is_imported_and_only_one_is() {
    let (directory, _folder) = directory();
    import(&directory, "one", &rows(0, 50)).await.expect("imported");
    let (sender, receiver) = std::sync::mpsc::channel::<Vec<u8>>();
    let slow = Slow { receiver, piece: Vec::new() };
    let importing = directory.import(request("one"), slow, ImportLimits::default());
    let meanwhile = async {
        // The import has begun when it asks for its first bytes; it gets them one list later.
        tokio::task::yield_now().await;
        assert_eq!(found(&directory, "practice 49")[0], "Practice 49");
        let refused = import(&directory, "two", &rows(0, 5)).await.expect_err("one at a time");
        assert!(matches!(refused, ImportRefused::Busy), "{refused}");
        sender.send(rows(0, 60).into_bytes()).expect("read");
        drop(sender);
    };
    let (report, ()) = tokio::join!(importing, meanwhile);
    assert_eq!(report.expect("imported").added, 10);
    assert_eq!(found(&directory, "practice 59")[0], "Practice 59");
}

/// Bytes that come when they come.
struct Slow {
    receiver: std::sync::mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
}

impl std::io::Read for Slow {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.piece.is_empty() {
            self.piece = self.receiver.recv_timeout(Duration::from_mins(1)).unwrap_or_default();
        }
        let count = into.len().min(self.piece.len());
        into[..count].copy_from_slice(&self.piece[..count]);
        self.piece.drain(..count);
        Ok(count)
    }
}
