//! Exports against power cuts: a run is ended at each of its steps and goes on afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::*;
use crate::config::Environment;
use crate::crypto::Random;
use crate::id::ConnectionId;
use crate::records::put_at;
use crate::store::{MasterKey, Opening};
use crate::workspaces::{NewPatient, Patient, Patients};

const NOON: Timestamp = Timestamp::from_seconds(1_793_607_165);
const NAMES: [&str; 3] = ["amy-7", "ben-3", "cid \"9\""];

struct World {
    folder: tempfile::TempDir,
    store: Store,
    patients: Vec<Patient>,
    connection: ConnectionId,
    gzip: bool,
}

impl World {
    /// Three patients with four records each.
    async fn new(gzip: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("out")).expect("a folder");
        let random = Random::seeded(1);
        let opening = Opening {
            path: folder.path().join("x.redb"),
            master_key: MasterKey::generate(&random),
            cache_bytes: 1 << 20,
            create: true,
        };
        let store = Store::open(&opening, random.clone()).expect("a store");
        let clock = Clock::manual(NOON);
        let workspaces = Workspaces::new(store.clone(), clock.clone(), random.clone());
        let workspace = workspaces.ensure("live", Environment::Live).await.expect("made");
        let of = Patients::new(store.clone(), clock, random.clone());
        let mut patients = Vec::new();
        for name in NAMES {
            let new = NewPatient { patient_id: name.to_owned(), ..NewPatient::default() };
            patients.push(of.create(workspace.id, new).await.expect("made"));
        }
        let world = Self { folder, store, patients, connection: random.id(NOON), gzip };
        for patient in 0..NAMES.len() {
            for record in 0..4 {
                world.put(patient, record, 1).await;
            }
        }
        world
    }

    async fn put(&self, patient: usize, record: usize, version: usize) {
        let (key, connection) = (self.patients[patient].key, self.connection);
        let id = format!("{patient}-{record}");
        let json = format!("{{\"resourceType\":\"Goal\",\"id\":\"{id}\",\"version\":{version}.0}}");
        let position = (version * 100 + record) as u64;
        let written = self.store.write(move |change| {
            put_at(change, key, connection, position, ("Goal", &id, &json));
            Ok::<_, StoreError>(())
        });
        written.await.expect("written");
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// As a start of the program makes them.
    fn exports(&self) -> Exports {
        let clock = Clock::manual(NOON);
        let settings = ExportSettings {
            name: "warehouse".to_owned(),
            workspace: "live".to_owned(),
            directory: self.out(),
            gzip: self.gzip,
            every: Duration::from_hours(1),
        };
        let workspaces = Workspaces::new(self.store.clone(), clock.clone(), Random::seeded(9));
        Exports::new(self.store.clone(), clock, workspaces, vec![settings], Shutdown::default())
    }

    async fn look(&self) -> Result<(), run::Trouble> {
        let exports = self.exports();
        exports.look(&exports.0.exports[0]).await
    }

    /// What whole files say: how often each version of each record is there.
    fn exported(&self) -> BTreeMap<(String, String), usize> {
        let mut found = BTreeMap::new();
        for name in whole_files(&self.out()) {
            let bytes = fs::read(self.out().join(&name)).expect("a file");
            let mut text = String::new();
            if self.gzip {
                MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).expect("gzip");
            } else {
                text = String::from_utf8(bytes).expect("text");
            }
            for line in text.lines() {
                let row: Value = serde_json::from_str(line).expect("json");
                let number: usize = row["resource"]["id"].as_str().expect("an id")[..1].parse().expect("one");
                assert_eq!(row["patient_id"], NAMES[number]);
                let word = |name: &str| row["resource"][name].to_string();
                *found.entry((word("id"), word("version"))).or_default() += 1;
            }
        }
        found
    }
}

/// The first version of every record, and these of patient, record and version, once each.
fn all_once(versions: &[(usize, usize, usize)]) -> BTreeMap<(String, String), usize> {
    let first = (0..NAMES.len()).flat_map(|patient| (0..4).map(move |record| (patient, record, 1)));
    let all = first.chain(versions.iter().copied());
    all.map(|(patient, record, version)| ((format!("\"{patient}-{record}\""), format!("{version}.0")), 1))
        .collect()
}

fn whole_files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// A future that is dropped instead of being polled for the nth time, as in a power cut.
struct Cut<F>(Pin<Box<F>>, usize);

impl<F: Future> Future for Cut<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.1 == 0 {
            return Poll::Ready(None);
        }
        self.1 -= 1;
        self.0.as_mut().poll(context).map(Some)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
fn a_power_cut_at_any_step_of_a_run_leaves_nothing_out_and_nothing_twice() {
    for gzip in [false, true] {
        let mut steps = 0;
        for step in 0.. {
            let world = runtime().block_on(World::new(gzip));
            // What is on its way to the disk gets there: a runtime ends after its blocking work.
            let cut = runtime().block_on(Cut(Box::pin(world.look()), step));
            assert!(whole_files(&world.out()).len() <= 1);
            // More comes before the program is back: it is in the same run or in the next one.
            runtime().block_on(world.put(1, 2, 2));
            runtime().block_on(world.look()).expect("a run");
            runtime().block_on(world.look()).expect("what is left");
            let mut exported = world.exported();
            if cut.is_none() {
                // The first version may have been on its way already, or not.
                let old = ("\"1-2\"".to_owned(), "1.0".to_owned());
                assert!(exported.insert(old, 1).is_none_or(|count| count == 1), "step {step}");
            }
            assert_eq!(exported, all_once(&[(1, 2, 2)]), "step {step}, gzip {gzip}");
            let names = fs::read_dir(world.out()).expect("a folder").count();
            assert_eq!(names, whole_files(&world.out()).len(), "nothing unfinished is left");
            if cut.is_some() {
                steps = step;
                break;
            }
        }
        assert!(steps > 10, "{steps}");
    }
}

#[tokio::test]
async fn everything_first_and_then_what_has_changed() {
    let world = World::new(false).await;
    world.look().await.expect("a run");
    world.look().await.expect("nothing to do");
    assert_eq!(whole_files(&world.out()), ["warehouse-000001-full.ndjson"]);
    world.put(0, 0, 2).await;
    world.put(2, 3, 2).await;
    world.look().await.expect("a run");
    assert_eq!(whole_files(&world.out()), ["warehouse-000001-full.ndjson", "warehouse-000002-delta.ndjson"]);
    assert_eq!(world.exported(), all_once(&[(0, 0, 2), (2, 3, 2)]));
    let runs = world.exports().runs("warehouse", 10).await.expect("runs");
    let told: Vec<_> = runs.iter().map(|run| (run.number, run.full, run.patients, run.records)).collect();
    assert_eq!(told, [(2, false, 2, 2), (1, true, 3, 12)]);
    assert_eq!(runs[1].bytes, fs::metadata(world.out().join(&runs[1].file)).expect("a file").len());

    let exports = world.exports();
    let begun = exports.run("warehouse", true).await.expect("begun").expect("a run");
    assert_eq!((begun.number, begun.full, begun.expected), (3, true, 3));
    while !exports.runs("warehouse", 1).await.expect("runs")[0].is_over() {
        tokio::task::yield_now().await;
    }
    let text = fs::read_to_string(world.out().join("warehouse-000003-full.ndjson")).expect("a file");
    assert_eq!(text.lines().count(), 12, "each record as it is now");
    assert!(exports.run("none", false).await.is_err());
}

#[test]
fn a_run_whose_unfinished_file_is_gone_begins_anew() {
    let world = runtime().block_on(World::new(false));
    let latest = || {
        let exports = world.exports();
        let runs = runtime().block_on(async { exports.runs("warehouse", 1).await.expect("runs") });
        runs.into_iter().next()
    };
    // Until what is written is noted. It is asked before the run hears of that, so its file is not yet in its place.
    runtime().block_on(async {
        let mut look = std::pin::pin!(world.look());
        std::future::poll_fn(|context| {
            let noted = std::thread::scope(|scope| scope.spawn(latest).join().expect("read"));
            if noted.is_some_and(|run| run.bytes > 0) {
                return Poll::Ready(());
            }
            assert!(look.as_mut().poll(context).is_pending(), "it is not over before that");
            Poll::Pending
        })
        .await;
    });
    let partial =
        fs::read_dir(world.out()).expect("a folder").next().expect("a file").expect("an entry").path();
    assert!(partial.to_string_lossy().ends_with(".partial"), "{partial:?}");
    fs::remove_file(partial).expect("removed");
    runtime().block_on(world.look()).expect("a run");
    assert_eq!(world.exported(), all_once(&[]));
    let run = latest().expect("a run");
    assert_eq!((run.number, run.patients, run.records, run.is_over()), (1, 3, 12, true));
}

#[tokio::test]
async fn a_run_without_a_folder_says_so_and_goes_on_when_it_is_there() {
    let world = World::new(false).await;
    fs::remove_dir(world.out()).expect("removed");
    assert!(matches!(world.look().await, Err(run::Trouble::File(_))));
    let runs = world.exports().runs("warehouse", 1).await.expect("runs");
    assert_eq!((runs[0].failures, runs[0].is_over()), (1, false));
    assert!(runs[0].trouble.as_ref().is_some_and(|text| text.contains("check that it exists")), "{runs:?}");
    fs::create_dir(world.out()).expect("a folder");
    world.look().await.expect("a run");
    assert_eq!(world.exported(), all_once(&[]));
}

#[tokio::test]
async fn nothing_of_a_patient_who_is_erased_meanwhile_is_added() {
    let world = World::new(true).await;
    let gone = world.patients[1].clone();
    let erased = world.store.write(move |change| {
        Patients::remove(change, &gone);
        Ok::<_, StoreError>(())
    });
    erased.await.expect("erased");
    world.look().await.expect("a run");
    let patients: Vec<_> = world.exported().into_keys().map(|(id, _)| id[1..2].to_owned()).collect();
    assert!(!patients.contains(&"1".to_owned()) && patients.len() == 8, "{patients:?}");
}
