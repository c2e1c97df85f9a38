//! Changing keys under a store that is in use, and after a crash at every step of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::vault::key_id;
use super::*;
use crate::clock::{Clock, Timestamp};
use crate::crypto::Random;
use crate::shutdown::Shutdown;

const NUMBERS: Table<[u8; 8]> = Table::new("numbers.v1");
const OTHERS: Table<[u8; 8]> = Table::new("others.v1");
/// A few of these are more than one piece of the work.
const LARGE: Table<[u8; LARGE_SIZE]> = Table::new("large.v1");
const LARGE_SIZE: usize = 16_000;
const COOKIE: Table<[u8; 8]> = Table::new("cookie");
const ROWS: u64 = 1_500;
const HOUR: Duration = Duration::from_hours(1);

struct Place {
    folder: tempfile::TempDir,
    opening: Opening,
    clock: Clock,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let opening = Opening {
            path: folder.path().join("store.redb"),
            master_key: MasterKey::generate(&Random::seeded(1)),
            cache_bytes: 4 << 20,
            create: true,
        };
        Self { folder, opening, clock: Clock::manual(Timestamp::from_seconds(1_000_000)) }
    }

    async fn filled(&self) -> Store {
        let store = open(&self.opening);
        let written = store.write(|change| {
            for number in 0..ROWS {
                change.put(NUMBERS, &number.to_be_bytes(), &number.to_be_bytes());
                change.put(OTHERS, &number.to_be_bytes(), &(number * 2).to_be_bytes());
            }
            for number in 0..100_u8 {
                change.put(LARGE, &[number], &[number; LARGE_SIZE]);
            }
            // A row with an empty key is a row, too.
            change.put(OTHERS, b"", &7_u64.to_be_bytes());
            Ok::<_, StoreError>(())
        });
        written.await.expect("written");
        store
    }

    fn rotation(&self, store: &Store) -> DataKeyRotation {
        DataKeyRotation::new(store.clone(), self.clock.clone(), Shutdown::default(), HOUR)
    }

    /// What a crash at this moment would leave: every commit is on disk, and nothing else.
    fn crashed(&self, name: &str) -> Opening {
        let path = self.folder.path().join(name);
        std::fs::copy(&self.opening.path, &path).expect("copied");
        Opening { path, ..self.opening.clone() }
    }
}

fn open(opening: &Opening) -> Store {
    Store::open(opening, Random::system()).expect("the store opens")
}

/// Every value is there and right.
fn all_there(store: &Store, when: &str) {
    store
        .read_now(|view| {
            for number in 0..ROWS {
                let key = number.to_be_bytes();
                assert_eq!(view.get(NUMBERS, &key)?, Some(number.to_be_bytes()), "{when}: {number}");
                assert_eq!(view.get(OTHERS, &key)?, Some((number * 2).to_be_bytes()), "{when}: {number}");
            }
            for number in 0..100_u8 {
                assert_eq!(view.get(LARGE, &[number])?, Some([number; LARGE_SIZE]), "{when}: large {number}");
            }
            assert_eq!(view.get(OTHERS, b"")?, Some(7_u64.to_be_bytes()), "{when}: the empty key");
            Ok::<_, StoreError>(())
        })
        .unwrap_or_else(|error| panic!("{when}: {error}"));
}

/// Under which data keys rows are sealed.
fn keys_in_use(store: &Store) -> Vec<u32> {
    let mut ids = store
        .read_now(|view| {
            let mut ids = Vec::new();
            for table in view.tables()? {
                view.scan(&table, None, &mut |_, sealed| {
                    ids.push(key_id(sealed).expect("a sealed value"));
                    Ok(true)
                })?;
            }
            Ok::<_, StoreError>(ids)
        })
        .expect("read");
    ids.sort_unstable();
    ids.dedup();
    ids
}

async fn to_the_end(rotation: &DataKeyRotation, clock: &Clock) {
    loop {
        match rotation.step().await.expect("a step") {
            Step::More => {}
            Step::Wait(until) => clock.advance(until.since(clock.now())),
            Step::Idle => return,
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_change_of_the_data_key_loses_nothing_and_the_work_goes_on() {
    let place = Place::new();
    let store = place.filled().await;
    let rotation = place.rotation(&store);
    let crash_and_go_on = async |name: String| {
        let image = place.crashed(&name);
        let store = open(&image);
        all_there(&store, &name);
        let clock = Clock::manual(place.clock.now());
        let rotation = DataKeyRotation::new(store.clone(), clock.clone(), Shutdown::default(), HOUR);
        to_the_end(&rotation, &clock).await;
        all_there(&store, &format!("{name}, to the end"));
        assert_eq!(keys_in_use(&store).len(), 1, "{name}");
        assert!(!store.vault().has_old_keys(), "{name}");
        drop((store, rotation));
        all_there(&open(&image), &format!("{name}, to the end and opened again"));
    };
    crash_and_go_on("before".to_owned()).await;
    rotation.begin(&place.opening.master_key).await.expect("begun");
    crash_and_go_on("begun".to_owned()).await;
    let mut steps = 0;
    let mut stages = Vec::new();
    loop {
        let step = rotation.step().await.expect("a step");
        steps += 1;
        stages.push(rotation.progress().await.expect("progress").stage);
        all_there(&store, &format!("running, step {steps}"));
        crash_and_go_on(format!("step {steps}")).await;
        match step {
            Step::More => {}
            Step::Wait(until) => place.clock.advance(until.since(place.clock.now())),
            Step::Idle => break,
        }
    }
    stages.dedup();
    let expected =
        [RotationStage::Renewing, RotationStage::Checking, RotationStage::KeepingOldKey, RotationStage::Idle];
    assert_eq!(stages, expected, "{steps} steps");
    assert!(steps > 15, "in small pieces: {steps}");
    let done = rotation.progress().await.expect("progress");
    assert_eq!((done.renewed, done.total), (ROWS * 2 + 101, ROWS * 2 + 101));
    assert_eq!(keys_in_use(&store), [2]);
}

#[tokio::test]
async fn an_old_key_is_kept_until_nothing_that_it_sealed_outside_can_be_valid() {
    let place = Place::new();
    let store = place.filled().await;
    let rotation = place.rotation(&store);
    let sealed = store.vault().seal(COOKIE, b"state", &[1; 8]);
    let opens = |store: &Store| store.vault().open_detached(COOKIE, b"state", sealed.as_bytes()).is_ok();
    rotation.begin(&place.opening.master_key).await.expect("begun");
    let until = loop {
        match rotation.step().await.expect("a step") {
            Step::More => {}
            Step::Wait(until) => break until,
            Step::Idle => panic!("the old key was dropped at once"),
        }
    };
    assert_eq!(until, place.clock.now().after(HOUR));
    assert_eq!(rotation.progress().await.expect("progress").old_key_until, Some(until));
    assert!(opens(&store));
    place.clock.advance(until.before(Duration::from_millis(1)).since(place.clock.now()));
    assert_eq!(rotation.step().await.expect("a step"), Step::Wait(until));
    drop((store, rotation));
    let store = open(&place.opening);
    assert!(opens(&store), "also after a restart");
    place.clock.advance(Duration::from_millis(1));
    let rotation = place.rotation(&store);
    assert_eq!(rotation.step().await.expect("a step"), Step::Idle);
    assert!(!opens(&store));
    all_there(&store, "at the end");
    drop((store, rotation));
    assert!(!opens(&open(&place.opening)));
}

#[tokio::test]
async fn writes_that_race_with_the_work_are_kept_and_never_put_back() {
    let place = Place::new();
    let store = place.filled().await;
    let rotation = place.rotation(&store);
    let start = store.read_now(|view| view.keys(NUMBERS, &Range::of(b""))).expect("keys");
    for round in 1..=3_u64 {
        rotation.begin(&place.opening.master_key).await.expect("begun");
        // Every row is changed once more while the pass goes over it, some more than once, and some are removed.
        let writers = futures_util::future::join_all(start.iter().enumerate().map(|(place, key)| {
            let (store, key) = (store.clone(), key.clone());
            async move {
                for again in 0..=(place as u64 % 3) {
                    let key = key.clone();
                    let written = store.write(move |change| {
                        let old = change.get(NUMBERS, &key)?.map_or(0, u64::from_be_bytes);
                        change.put(NUMBERS, &key, &(old + 1).to_be_bytes());
                        change.remove(OTHERS, &key);
                        Ok::<_, StoreError>(())
                    });
                    written.await.unwrap_or_else(|error| panic!("{again}: {error}"));
                }
            }
        }));
        let work = to_the_end(&rotation, &place.clock);
        tokio::join!(writers, work);
        assert_eq!(keys_in_use(&store), [u32::try_from(round).expect("small") + 1]);
        let counts = store.read_now(|view| view.rows(NUMBERS, &Range::of(b""))).expect("rows");
        for (number, (_, value)) in counts.into_iter().enumerate() {
            let number = number as u64;
            assert_eq!(u64::from_be_bytes(value), number + round * (number % 3 + 1), "row {number}");
        }
        let left = store.read_now(|view| view.keys(OTHERS, &Range::of(b""))).expect("keys");
        assert_eq!(left, [b"".to_vec()], "what was removed stays removed");
    }
}

#[tokio::test]
async fn a_value_sealed_before_the_change_and_written_after_it_does_not_bring_the_old_key_back() {
    let place = Place::new();
    let store = place.filled().await;
    let rotation = place.rotation(&store);
    let seal = |number: u64| store.vault().seal(NUMBERS, &number.to_be_bytes(), &(number + 5).to_be_bytes());
    let (first, late) = (seal(0), seal(1));
    rotation.begin(&place.opening.master_key).await.expect("begun");
    while rotation.step().await.expect("a step") == Step::More {}
    let put = |number: u64, sealed: Sealed| {
        store.write(move |change| {
            change.put_sealed(NUMBERS, &number.to_be_bytes(), sealed);
            change.put(OTHERS, &number.to_be_bytes(), &[9; 8]);
            Ok::<_, StoreError>(())
        })
    };
    put(0, first).await.expect("written");
    assert_eq!(keys_in_use(&store), [2]);
    to_the_end(&rotation, &place.clock).await;
    let read = |number: u64| store.read_now(|view| view.get(NUMBERS, &number.to_be_bytes()));
    assert_eq!(read(0).expect("read"), Some(5_u64.to_be_bytes()));
    // One that comes after the key is gone fails alone, and wholly.
    let other = store.write(|change| {
        change.put(OTHERS, b"x", &[1; 8]);
        Ok::<_, StoreError>(())
    });
    let (late, other) = tokio::join!(put(1, late), other);
    assert!(late.is_err_and(|error| error.to_string().contains("data key")));
    other.expect("written");
    assert!(store.is_writable());
    assert_eq!(read(1).expect("read"), Some(1_u64.to_be_bytes()));
    let half = store.read_now(|view| view.get(OTHERS, &1_u64.to_be_bytes())).expect("read");
    assert_eq!(half, Some(2_u64.to_be_bytes()), "nothing of the failed write");
}

#[tokio::test]
async fn a_row_that_no_key_opens_keeps_the_old_key_and_stops_nothing_else() {
    let place = Place::new();
    let store = place.filled().await;
    let moved = store.vault().seal(NUMBERS, &1_u64.to_be_bytes(), &[1; 8]);
    let written = store.write(move |change| {
        change.put_sealed(NUMBERS, b"elsewhere", moved);
        Ok::<_, StoreError>(())
    });
    written.await.expect("written");
    let rotation = place.rotation(&store);
    rotation.begin(&place.opening.master_key).await.expect("begun");
    for _ in 0..2 {
        while rotation.step().await.expect("a step") == Step::More {}
        let progress = rotation.progress().await.expect("progress");
        assert_eq!((progress.stage, progress.unreadable), (RotationStage::Stuck, 1));
        assert!(store.vault().has_old_keys());
    }
    all_there(&store, "stuck");
    let removed = store.write(|change| {
        change.remove(NUMBERS, b"elsewhere");
        Ok::<_, StoreError>(())
    });
    removed.await.expect("removed");
    to_the_end(&rotation, &place.clock).await;
    assert_eq!(keys_in_use(&store), [2]);
}

#[tokio::test]
async fn the_background_work_goes_to_its_end_by_itself() {
    let place = Place::new();
    let store = place.filled().await;
    let shutdown = Shutdown::default();
    let rotation = DataKeyRotation::new(store.clone(), place.clock.clone(), shutdown.clone(), HOUR);
    rotation.start();
    rotation.start();
    assert_eq!(shutdown.running(), 1);
    rotation.begin(&place.opening.master_key).await.expect("begun");
    let reached = async |stage: RotationStage| {
        while rotation.progress().await.expect("progress").stage != stage {
            tokio::task::yield_now().await;
        }
    };
    reached(RotationStage::KeepingOldKey).await;
    place.clock.advance(HOUR);
    reached(RotationStage::Idle).await;
    assert_eq!(keys_in_use(&store), [2]);
    shutdown.trigger();
    assert!(shutdown.drained(Duration::from_secs(20)).await);
}

#[tokio::test]
async fn a_wrong_master_key_changes_nothing_and_a_second_change_waits_for_the_first() {
    let place = Place::new();
    let store = place.filled().await;
    let rotation = place.rotation(&store);
    let wrong = MasterKey::generate(&Random::seeded(99));
    let before = store.commits();
    let note = || MasterChange { at: place.clock.now(), written_to: "/keys/new".to_owned() };
    let refused = rotation.begin(&wrong).await.expect_err("refused");
    assert!(
        matches!(refused, KeyChangeError::WrongMasterKey)
            && refused.to_string().contains("nothing was changed")
    );
    let refused =
        store.change_master_key(&wrong, &place.opening.master_key, note()).await.expect_err("refused");
    assert!(matches!(refused, KeyChangeError::WrongMasterKey), "{refused}");
    let same = &place.opening.master_key;
    let refused = store.change_master_key(same, same, note()).await.expect_err("refused");
    assert!(matches!(refused, KeyChangeError::SameKey), "{refused}");
    assert_eq!(store.commits(), before);
    assert!(!store.vault().has_old_keys());
    assert_eq!(rotation.survey().await.expect("counted").0, ROWS * 2 + 101);

    rotation.begin(same).await.expect("begun");
    let refused = rotation.begin(same).await.expect_err("refused");
    assert!(matches!(refused, KeyChangeError::UnderWay), "{refused}");
    to_the_end(&rotation, &place.clock).await;
    rotation.begin(same).await.expect("begun again");
}

#[tokio::test]
async fn a_new_master_key_opens_everything_and_the_old_one_nothing() {
    let place = Place::new();
    let store = place.filled().await;
    let rotation = place.rotation(&store);
    let digest = store.vault().long_digest(&[b"a"]);
    let (old, new) = (place.opening.master_key.clone(), MasterKey::generate(&Random::seeded(7)));
    // In the middle of a change of the data key, so that both old and new ones are wrapped.
    rotation.begin(&old).await.expect("begun");
    rotation.step().await.expect("a step");
    let note = MasterChange { at: place.clock.now(), written_to: "/keys/new".to_owned() };
    let wrapped = store.change_master_key(&old, &new, note).await.expect("changed");
    assert_eq!(wrapped, 3, "two data keys and the digest key");
    assert!(store.opens_with(&new).await.expect("read") && !store.opens_with(&old).await.expect("read"));
    all_there(&store, "running on");
    let with_new = Opening { master_key: new.clone(), ..place.crashed("crashed") };
    all_there(&open(&with_new), "crashed right after");
    to_the_end(&rotation, &place.clock).await;
    drop((store, rotation));

    let refused = Store::open(&place.opening, Random::system()).expect_err("the old key");
    let text = refused.to_string();
    for word in
        ["nothing was changed", "/keys/new", "1970-01-12", "backup", "nothing in the store can be read"]
    {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
    let store = open(&Opening { master_key: new, ..place.opening.clone() });
    all_there(&store, "opened with the new key");
    assert_eq!(store.vault().long_digest(&[b"a"]), digest, "rows are found as before");
}

/// The files beside a master key.
fn beside(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_master_key_file_is_replaced_with_a_usable_key_at_every_moment() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("master.key");
    let file = MasterKeyFile::at(path.clone());
    let random = Random::seeded(3);
    let (old, new) = (MasterKey::generate(&random), MasterKey::generate(&random));
    assert!(matches!(file.read(), Err(KeyFileError::Unreadable { .. })));
    old.write_new(&path).expect("written");
    assert!(old.write_new(&path).is_err(), "nothing is overwritten");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("changed");

    // A leftover of a change that never reached the store gives way.
    std::fs::write(folder.path().join("master.key.new"), "half a k").expect("written");
    assert!(file.waiting().is_empty());
    let held = file.hold().expect("held");
    let waiting = held.stage(&new).expect("staged");
    assert_eq!(waiting, file.waiting_path(&new));
    assert!(file.read().expect("read") == old && file.waiting() == [new.clone()]);
    let mode = std::fs::metadata(waiting).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o640, "readable for those who could read the old one");
    assert!(matches!(held.clear(&new), Err(KeyFileError::Changed(_))), "not before it is in its place");

    let kept = held.promote(&new, Timestamp::from_seconds(1_793_607_165)).expect("in place").expect("kept");
    held.clear(&new).expect("cleared");
    assert!(file.read().expect("read") == new && file.waiting().is_empty());
    assert!(MasterKeyFile::at(kept).read().expect("kept") == old);
    assert_eq!(beside(folder.path()), ["master.key", "master.key.until-20261102T081245"]);
    // Twice within a second, and once more after a first attempt that kept the old one and got no further.
    let third = MasterKey::generate(&random);
    held.stage(&third).expect("staged");
    let now = Timestamp::from_seconds(1_793_607_165);
    std::fs::hard_link(&path, folder.path().join("master.key.until-20261102T081245-2")).expect("linked");
    let kept = held.promote(&third, now).expect("in place").expect("kept");
    assert!(file.read().expect("read") == third && MasterKeyFile::at(kept).read().expect("kept") == new);
    let all = ["master.key", "master.key.until-20261102T081245", "master.key.until-20261102T081245-2"];
    assert_eq!(beside(folder.path()), all);
    // When somebody else has finished it, the new key is not taken for the old one.
    assert_eq!(held.promote(&third, now).expect("in place"), None);
    assert_eq!(beside(folder.path()), all);
    for (text, good) in [("", false), ("short", false), (&*new.to_text(), true)] {
        std::fs::write(&path, text).expect("written");
        assert_eq!(file.read().is_ok(), good, "{text}");
    }
}

#[tokio::test]
async fn two_changes_of_the_master_key_leave_the_one_that_the_store_took_on_disk() {
    let place = Place::new();
    let store = place.filled().await;
    let file = MasterKeyFile::at(place.folder.path().join("master.key"));
    let old = place.opening.master_key.clone();
    old.write_new(file.path()).expect("written");
    let random = Random::seeded(5);
    let (first, second) = (MasterKey::generate(&random), MasterKey::generate(&random));
    let note = || MasterChange { at: place.clock.now(), written_to: "beside".to_owned() };

    let held = file.hold().expect("held");
    assert!(matches!(file.hold(), Err(KeyFileError::Busy(_))), "one at a time");
    held.stage(&first).expect("staged");
    // Its caller gives up while the change waits for the disk; the next one finds the old key still opening the store.
    {
        let mut changing = std::pin::pin!(store.change_master_key(&old, &first, note()));
        assert!(is_pending(changing.as_mut()));
    }
    drop(held);
    let held = file.hold().expect("held");
    held.stage(&second).expect("staged");
    let refused = store.change_master_key(&old, &second, note()).await.expect_err("refused");
    assert!(matches!(refused, KeyChangeError::WrongMasterKey), "{refused}");
    drop(store);
    // Whichever of them the store has is still there, and only that one takes the place.
    let opening = |key: &MasterKey| Opening { master_key: key.clone(), ..place.opening.clone() };
    let waiting = file.waiting();
    let right: Vec<&MasterKey> =
        waiting.iter().filter(|key| Store::open(&opening(key), Random::system()).is_ok()).collect();
    assert!(right == [&first], "{} wait", waiting.len());
    held.promote(right[0], place.clock.now()).expect("in place");
    let there = file.read().expect("read");
    all_there(&open(&opening(&there)), "with what is in the place");
    assert!(file.waiting() == [second]);
    held.clear(&there).expect("cleared");
    assert!(file.waiting().is_empty());
}

#[test]
fn a_key_that_is_in_its_place_nowhere_is_not_overwritten_and_not_mixed_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = MasterKeyFile::at(folder.path().join("master.key"));
    let random = Random::seeded(6);
    let keys: Vec<MasterKey> = (0..3).map(|_| MasterKey::generate(&random)).collect();
    keys[0].write_new(file.path()).expect("written");
    let held = file.hold().expect("held");
    // An older change reached the store but not its place: its key is in the waiting file alone.
    held.stage(&keys[1]).expect("staged");
    held.stage(&keys[2]).expect("staged");
    assert!(file.waiting().contains(&keys[1]) && file.waiting().contains(&keys[2]));
    // Somebody puts another key under the name of the one that the store was given.
    std::fs::write(file.waiting_path(&keys[2]), &*keys[0].to_text()).expect("written");
    held.promote(&keys[2], Timestamp::from_seconds(1)).expect("in place");
    assert!(file.read().expect("read") == keys[2], "the key of the store, and no other");
    assert!(file.waiting().contains(&keys[1]));
}

#[tokio::test]
async fn a_damaged_key_ring_is_not_taken_for_a_wrong_master_key() {
    let place = Place::new();
    let store = place.filled().await;
    place.rotation(&store).begin(&place.opening.master_key).await.expect("begun");
    let right = store.read_now(|view| view.raw("meta.v1", b"keyring")).expect("read").expect("a ring");
    let right: serde_json::Value = serde_json::from_slice(&right).expect("a ring");
    let damaged = |what: &str| {
        let mut ring = right.clone();
        match what {
            "a key of another place" => ring["keys"]["1"] = ring["keys"]["2"].clone(),
            "no text of a key" => ring["digests"] = "?".into(),
            _ => ring["current"] = 9.into(),
        }
        serde_json::to_vec(&ring).expect("plain")
    };
    for what in ["a key of another place", "no text of a key", "no current key"] {
        let bytes = damaged(what);
        let written = store.write(move |change| {
            change.put_meta(b"keyring", bytes);
            Ok::<_, StoreError>(())
        });
        written.await.expect("written");
        let looked = store.opens_with(&place.opening.master_key).await;
        assert!(matches!(looked, Err(StoreError::Damaged(_))), "{what}: {looked:?}");
        let refused = Store::open(&place.crashed(what), Random::system()).expect_err("refused");
        assert!(matches!(refused, OpenError::Damaged { .. }), "{what}: {refused}");
    }
}

#[tokio::test]
async fn a_read_that_began_before_the_last_row_was_sealed_anew_still_opens_it_after_a_long_pass() {
    let place = Place::new();
    let store = place.filled().await;
    let rotation = place.rotation(&store);
    let (tell, started) = std::sync::mpsc::channel();
    let (go_on, going_on) = std::sync::mpsc::channel::<()>();
    let reading = {
        let store = store.clone();
        std::thread::spawn(move || {
            store.read_now(|view| {
                let _ = tell.send(());
                let _ = going_on.recv();
                view.get(NUMBERS, &7_u64.to_be_bytes())
            })
        })
    };
    started.recv().expect("a snapshot");
    rotation.begin(&place.opening.master_key).await.expect("begun");
    // The pass takes longer than anything outside the store is kept for.
    place.clock.advance(HOUR * 3);
    while rotation.step().await.expect("a step") == Step::More {}
    let until = rotation.progress().await.expect("progress").old_key_until;
    go_on.send(()).expect("it waits");
    let found = reading.join().expect("read").expect("it opens");
    assert_eq!(found, Some(7_u64.to_be_bytes()));
    assert!(until >= Some(place.clock.now().after(Duration::from_mins(5))), "{until:?}");
}

/// Lets a future go on once.
fn is_pending<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending()
}

#[tokio::test]
async fn a_change_of_the_data_key_whose_caller_goes_away_begins_and_proves_its_own_pass() {
    let place = Place::new();
    let store = place.filled().await;
    let shutdown = Shutdown::default();
    let rotation = DataKeyRotation::new(store.clone(), place.clock.clone(), shutdown.clone(), HOUR);
    rotation.start();
    let reached = async |stage: RotationStage| {
        let reached = async {
            while rotation.progress().await.expect("progress").stage != stage {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), reached).await.expect("it goes on by itself");
    };
    let to_its_end = async || {
        reached(RotationStage::KeepingOldKey).await;
        all_there(&store, "every row is sealed anew");
        place.clock.advance(HOUR);
        reached(RotationStage::Idle).await;
        all_there(&store, "the old key is gone");
    };
    let mut cut = false;
    while !cut {
        // What is proven of this change must not count for the next.
        rotation.begin(&place.opening.master_key).await.expect("begun");
        to_its_end().await;
        let before = store.vault().current_key();
        let mut begin = Box::pin(rotation.begin(&place.opening.master_key));
        while !cut && is_pending(begin.as_mut()) {
            tokio::task::yield_now().await;
            cut = store.vault().current_key() != before;
        }
        // It is on disk; when its caller was told so before it was cut off, this was no test yet.
        drop(begin);
        to_its_end().await;
    }
    assert_eq!(keys_in_use(&store), [store.vault().current_key()]);
    shutdown.trigger();
    assert!(shutdown.drained(Duration::from_secs(20)).await);
}

#[tokio::test]
async fn a_change_that_is_stuck_is_not_repeated_at_each_start_but_when_asked_for() {
    let place = Place::new();
    let store = place.filled().await;
    let moved = store.vault().seal(NUMBERS, &1_u64.to_be_bytes(), &[1; 8]);
    let written = store.write(move |change| {
        change.put_sealed(NUMBERS, b"elsewhere", moved);
        // More than one look goes over, so that a pass that begins can be told from one that does not.
        for number in 0..5_000_u64 {
            change.put(OTHERS, &(ROWS + number).to_be_bytes(), &[3; 8]);
        }
        Ok::<_, StoreError>(())
    });
    written.await.expect("written");
    let rotation = place.rotation(&store);
    rotation.begin(&place.opening.master_key).await.expect("begun");
    while rotation.step().await.expect("a step") == Step::More {}
    drop((store, rotation));

    let store = open(&place.opening);
    let rotation = place.rotation(&store);
    assert_eq!(rotation.step().await.expect("a step"), Step::Idle, "nothing is gone over again");
    let progress = rotation.progress().await.expect("progress");
    assert_eq!((progress.stage, progress.unreadable), (RotationStage::Stuck, 1));
    let removed = store.write(|change| {
        change.remove(NUMBERS, b"elsewhere");
        Ok::<_, StoreError>(())
    });
    removed.await.expect("removed");
    let asked = rotation.begin(&place.opening.master_key).await;
    assert!(matches!(asked, Err(KeyChangeError::UnderWay)));
    let stage = rotation.progress().await.expect("progress").stage;
    assert_eq!(stage, RotationStage::Checking, "whoever asked waits for its end");
    to_the_end(&rotation, &place.clock).await;
    assert_eq!(keys_in_use(&store), [2]);
}

#[tokio::test]
async fn sealing_and_opening_go_on_while_keys_change() {
    let place = Place::new();
    let store = place.filled().await;
    let rotation = place.rotation(&store);
    let vault = Arc::clone(store.vault());
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let sealing = std::thread::spawn(move || {
        let mut count = 0_u64;
        while stopped.try_recv().is_err() {
            let sealed = vault.seal(COOKIE, b"k", &count.to_be_bytes());
            let opened = vault.open_detached(COOKIE, b"k", sealed.as_bytes()).expect("opens");
            assert_eq!(opened, count.to_be_bytes());
            count += 1;
        }
        count
    });
    for _ in 0..3 {
        rotation.begin(&place.opening.master_key).await.expect("begun");
        to_the_end(&rotation, &place.clock).await;
    }
    stop.send(()).expect("it is still at work");
    assert!(sealing.join().expect("no value was lost") > 0);
}
