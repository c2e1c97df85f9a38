use super::migrate::{SCHEMA, Step};
use super::open::open_with;
use super::*;
use crate::crypto::Random;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    text: String,
}
json_value!(Note);

const NOTES: Table<Note> = Table::new("notes.v1");
const OTHERS: Table<Note> = Table::new("others.v1");

fn note(text: &str) -> Note {
    Note { text: text.to_owned() }
}

fn opening(folder: &tempfile::TempDir) -> Opening {
    Opening {
        path: folder.path().join("store.redb"),
        master_key: MasterKey::generate(&Random::seeded(1)),
        cache_bytes: 1 << 20,
        create: true,
    }
}

fn open(opening: &Opening) -> Store {
    Store::open(opening, Random::seeded(2)).expect("the store opens")
}

async fn put(store: &Store, key: &'static [u8], text: &'static str) {
    store
        .write(move |change| {
            change.put(NOTES, key, &note(text));
            Ok::<_, StoreError>(())
        })
        .await
        .expect("written");
}

fn texts(store: &Store, range: &Range<'_>) -> Vec<String> {
    let rows = store.read_now(|view| view.rows(NOTES, range)).expect("read");
    rows.into_iter().map(|(_, note)| note.text).collect()
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let opening = opening(&folder);
    {
        let store = open(&opening);
        put(&store, b"a", "hello").await;
    }
    let store = open(&opening);
    assert_eq!(texts(&store, &Range::of(b"")), ["hello"]);
}

#[tokio::test]
async fn a_failed_write_leaves_no_trace_and_spoils_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&opening(&folder));
    let failing = store.write(|change| {
        change.put(NOTES, b"bad", &note("bad"));
        Err::<(), _>(StoreError::Storage("no".to_owned()))
    });
    let panicking = store.write(|change| {
        change.put(NOTES, b"worse", &note("worse"));
        assert_eq!(1, 2, "a bug in a write");
        Ok::<_, StoreError>(())
    });
    let (bad, worse, ()) = tokio::join!(failing, panicking, put(&store, b"good", "good"));
    assert!(bad.is_err() && worse.is_err());
    assert_eq!(texts(&store, &Range::of(b"")), ["good"]);
}

#[tokio::test]
async fn a_write_sees_its_own_changes_in_every_kind_of_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&opening(&folder));
    for (key, text) in [(&b"p1"[..], "one"), (b"p3", "three"), (b"q1", "other")] {
        put(&store, key, text).await;
    }
    let seen = store
        .write(|change| {
            change.put(NOTES, b"p2", &note("two"));
            change.remove(NOTES, b"p3");
            let mut seen = Vec::new();
            for range in [Range::of(b"p"), Range::of(b"p").descending(), Range::of(b"p").limit(1)] {
                seen.push(
                    change.rows(NOTES, &range)?.into_iter().map(|(_, note)| note.text).collect::<Vec<_>>(),
                );
            }
            assert_eq!(change.get(NOTES, b"p3")?, None);
            assert!(change.has(NOTES, b"p2")?);
            assert_eq!(change.remove_all(NOTES, b"q")?, 1);
            Ok::<_, StoreError>(seen)
        })
        .await
        .expect("written");
    assert_eq!(seen, [vec!["one", "two"], vec!["two", "one"], vec!["one"]]);
    assert_eq!(texts(&store, &Range::of(b"")), ["one", "two"]);
}

#[tokio::test]
async fn ranges_go_both_ways_and_beyond_a_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&opening(&folder));
    for (key, text) in [(&b"a"[..], "a"), (b"k1", "1"), (b"k2", "2"), (b"k3", "3"), (b"\xff", "last")] {
        put(&store, key, text).await;
    }
    let check =
        |range: Range<'_>, expected: &[&str]| assert_eq!(texts(&store, &range), expected, "{range:?}");
    check(Range::of(b"k"), &["1", "2", "3"]);
    check(Range::of(b"k").descending().limit(2), &["3", "2"]);
    check(Range::of(b"k").beyond(Some(b"k1".to_vec())), &["2", "3"]);
    check(Range::of(b"k").descending().beyond(Some(b"k2".to_vec())), &["1"]);
    check(Range::of(b"k").beyond(Some(b"z".to_vec())), &[]);
    check(Range::of(b"k").beyond(Some(b"k3".to_vec())), &[]);
    check(Range::of(b"\xff"), &["last"]);
    check(Range::of(b"none"), &[]);
}

#[tokio::test]
async fn the_file_alone_gives_nothing_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let opening = opening(&folder);
    let store = open(&opening);
    put(&store, b"key", "MARKER-OF-A-PATIENT").await;
    drop(store);
    let bytes = std::fs::read(&opening.path).expect("the file");
    let find = |marker: &[u8]| bytes.windows(marker.len()).any(|window| window == marker);
    assert!(!find(b"MARKER-OF-A-PATIENT"));
    assert!(!find(opening.master_key.to_text().as_bytes()));
    assert!(find(b"notes.v1"), "the search above would have found it");
}

#[tokio::test]
async fn a_value_moved_to_another_row_or_table_does_not_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&opening(&folder));
    let sealed = store.vault().seal(NOTES, b"a", &note("mine"));
    let moved = sealed.clone();
    store
        .write(move |change| {
            change.put_sealed(NOTES, b"b", sealed);
            change.put_sealed(OTHERS, b"a", moved);
            Ok::<_, StoreError>(())
        })
        .await
        .expect("written");
    let row = store.read_now(|view| view.get(NOTES, b"b"));
    assert!(matches!(row, Err(StoreError::Damaged("notes.v1"))), "{row:?}");
    let table = store.read_now(|view| view.get(OTHERS, b"a"));
    assert!(matches!(table, Err(StoreError::Damaged("others.v1"))), "{table:?}");
}

#[test]
fn every_wrong_file_is_refused_in_words_and_left_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let right = opening(&folder);
    drop(open(&right));
    let refuse = |opening: &Opening| Store::open(opening, Random::seeded(4)).expect_err("refused");

    let stranger = Opening { master_key: MasterKey::generate(&Random::seeded(99)), ..right.clone() };
    let wrong = refuse(&stranger);
    assert!(matches!(wrong, OpenError::WrongMasterKey(None)), "{wrong}");

    for (name, bytes) in
        [("empty", &b""[..]), ("text", b"this is a shopping list, not a store"), ("zeros", &[0; 9000])]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        let error = refuse(&Opening { path: path.clone(), ..right.clone() });
        assert!(matches!(error, OpenError::Damaged { .. }), "{name}: {error}");
    }
    let text = folder.path().join("text");
    assert_eq!(std::fs::read(text).expect("still there"), b"this is a shopping list, not a store");

    let missing = Opening { path: folder.path().join("none"), create: false, ..right.clone() };
    assert!(matches!(refuse(&missing), OpenError::Missing(_)));
    let nowhere = Opening { path: folder.path().join("no/such/folder/x"), ..right.clone() };
    assert!(matches!(refuse(&nowhere), OpenError::Refused { .. }));

    let held = open(&right);
    assert!(matches!(refuse(&right), OpenError::InUse(_)));
    drop(held);
}

#[tokio::test]
async fn an_older_store_is_copied_then_migrated_and_a_newer_one_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let opening = opening(&folder);
    let store = open(&opening);
    put(&store, b"a", "old").await;
    drop(store);
    let step: Step = |transaction, _| {
        let mut table = transaction
            .open_table(tables::definition("added.v2"))
            .map_err(|error| StoreError::storage(&error))?;
        table.insert(&b"k"[..], &b"v"[..]).map(drop).map_err(|error| StoreError::storage(&error))
    };
    // `STEPS` as a later version would have them: the real ones and one more.
    let steps: Vec<Step> = migrate::STEPS.iter().copied().chain([step]).collect();
    let store = open_with(&opening, Random::seeded(5), SCHEMA + 1, &steps).expect("migrated");
    assert_eq!(texts(&store, &Range::of(b"")), ["old"]);
    let copy = opening.path.with_extension(format!("before-format-{}.redb", SCHEMA + 1));
    assert!(copy.exists(), "the old file was copied first");
    drop(store);
    let error = Store::open(&opening, Random::seeded(6)).expect_err("refused");
    assert!(matches!(error, OpenError::Newer { found } if found == SCHEMA + 1), "{error}");
    let old = open(&Opening { path: copy, ..opening });
    assert_eq!(texts(&old, &Range::of(b"")), ["old"], "the copy opens in the old program");
}

#[tokio::test]
async fn writes_that_wait_together_share_a_commit() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&opening(&folder));
    let before = store.commits();
    // The first write holds the committer until all the others wait.
    let (open_gate, gate) = std::sync::mpsc::channel::<()>();
    let first = store.write(move |change| {
        let _ = gate.recv();
        change.put(NOTES, b"first", &note("first"));
        Ok::<_, StoreError>(())
    });
    let rest = futures_util::future::join_all((0..50_u8).map(|number| {
        store.write(move |change| {
            change.put(NOTES, &[number], &note("n"));
            Ok::<_, StoreError>(())
        })
    }));
    let release = async {
        tokio::task::yield_now().await;
        drop(open_gate);
    };
    let (first, rest, ()) = tokio::join!(first, rest, release);
    assert!(first.is_ok() && rest.iter().all(Result::is_ok));
    assert!(store.commits() - before <= 3, "{} commits for 51 writes", store.commits() - before);
}

#[tokio::test]
async fn what_follows_a_write_runs_after_its_commit_and_not_after_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&opening(&folder));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for good in [true, false] {
        let (tell, seen) = (tell.clone(), store.clone());
        let written = store.write(move |change| {
            change.put(NOTES, b"a", &note("hello"));
            change.after_commit(move || {
                let there = seen.read_now(|view| view.has(NOTES, b"a")).expect("read");
                let _ = tell.send((good, there));
            });
            if good { Ok(()) } else { Err(StoreError::Closed) }
        });
        assert_eq!(written.await.is_ok(), good);
    }
    assert_eq!(told.try_recv(), Ok((true, true)), "it sees what was written");
    assert!(told.try_recv().is_err(), "a failed write is followed by nothing");
}

#[tokio::test]
async fn what_was_removed_leaves_the_file_when_it_is_compacted_and_the_rest_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let opening = opening(&folder);
    let store = open(&opening);
    put(&store, b"kept", "kept").await;
    for row in 0..200_u32 {
        let text = "long ".repeat(4000);
        let written = store.write(move |change| {
            change.put(OTHERS, &row.to_be_bytes(), &note(&text));
            Ok::<_, StoreError>(())
        });
        written.await.expect("written");
    }
    let removed = store.write(|change| change.remove_all(OTHERS, b""));
    assert_eq!(removed.await.expect("written"), 200);
    let handle = store.clone();
    assert!(store.compact().is_err(), "somebody else uses it");
    let compacted = handle.compact().expect("compacted");
    assert!(compacted.before > 4_000_000 && compacted.after * 3 < compacted.before, "{compacted:?}");
    assert_eq!(std::fs::metadata(&opening.path).expect("a file").len(), compacted.after);
    assert_eq!(texts(&open(&opening), &Range::of(b"")), ["kept"]);
}
