//! Does a process that is killed lose a patient's access? Thousands of refreshes against a hospital that rotates refresh
//! tokens and ends the grant when an old one is used, by a process that is killed with SIGKILL again and again: at each
//! named step of a refresh, and at random. Afterwards every connection must still work, but for those whose answer never
//! came to be on disk, and those must be the ones that the ledger names.
//!
//! `cargo test --test crash` runs it with a few dozen kills, `cargo test --test crash -- 400` with four hundred. The
//! program starts itself for the process that is killed.

#[expect(dead_code, unused_imports, reason = "shared with the other integration tests, which use more of it")]
#[path = "../it/support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chartgate::clock::{Clock, Timestamp};
use chartgate::config::AuthMethod;
use chartgate::crypto::Random;
use chartgate::events::history::RefreshedBy;
use chartgate::grants::{AccessError, ConnectionStatus, RefreshStep};
use chartgate::id::{ConnectionId, Id as _};
use chartgate::records::PullSettings;
use chartgate::store::MasterKey;
use futures_util::StreamExt as _;
use serde_json::json;
use support::{Browser, Setup, TestApp};

const CONNECTIONS: usize = 160;
/// Refreshes under way at once: what one kill can cost at most.
const AT_ONCE: usize = 4;
const KILLS: u64 = 32;
/// After how many steps a process is killed at random, at most.
const MOST_STEPS: u64 = 600;
/// The file that tells the process which connections there are.
const LIST: &str = "connections";
const STEPS: [RefreshStep; 3] = [RefreshStep::Asking, RefreshStep::Answered, RefreshStep::Kept];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    if let [word, rest @ ..] = arguments.as_slice()
        && word == "refresh-for-ever"
    {
        return runtime.block_on(Victim::from(rest).refresh());
    }
    let kills = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(KILLS);
    runtime.block_on(strict(kills));
    runtime.block_on(lenient(kills / 4));
    say("test result: ok. 2 passed; 0 failed");
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A hospital that ends the grant when a replaced refresh token comes.
async fn strict(kills: u64) {
    let mut world = World::start(json!({})).await;
    world.kill_again_and_again(kills).await;
    let found = world.look().await;
    let doubtful: BTreeSet<ConnectionId> = world.unanswered.union(&world.unwritten).copied().collect();
    say(&format!(
        "strict hospital: {} refreshes, {kills} kills; {} of {CONNECTIONS} connections work; {} ended. Cut off while \
         the answer was on its way: {}; with the answer in memory and not yet on disk: {}",
        found.refreshes,
        found.alive.len(),
        found.ended.len(),
        world.unanswered.len(),
        world.unwritten.len(),
    ));
    assert!(found.refreshes > 20 * kills, "too few refreshes to mean anything");
    assert!(!found.ended.is_empty(), "no kill hit a refresh under way; that cannot be");
    let unexplained: Vec<_> = found.ended.difference(&doubtful).collect();
    assert!(unexplained.is_empty(), "lost although the answer was on disk: {unexplained:?}");
    assert_eq!(found.ended, found.named_by_ledger, "the ledger names exactly those that are lost");
    assert_eq!(
        found.ended.len() as u64,
        found.reused,
        "each is one whose replaced token the hospital saw again"
    );
}

/// A hospital that lets a replaced refresh token pass once, as those do that reckon with lost answers.
async fn lenient(kills: u64) {
    let mut world = World::start(json!({"superseded_grace_seconds": 8_640_000})).await;
    world.kill_again_and_again(kills.max(8)).await;
    let found = world.look().await;
    say(&format!(
        "lenient hospital: {} refreshes, {} kills; {} of {CONNECTIONS} connections work",
        found.refreshes,
        kills.max(8),
        found.alive.len()
    ));
    assert_eq!(
        found.alive.len(),
        CONNECTIONS,
        "the one retry with the token before saves all: {:?}",
        found.ended
    );
    assert!(found.graced > 0, "no retry was needed; that cannot be");
}

struct World {
    app: TestApp,
    connections: Vec<ConnectionId>,
    random: Random,
    /// Connections that were cut off between asking and an answer, ever.
    unanswered: BTreeSet<ConnectionId>,
    /// Connections that were cut off between the answer and the disk, ever.
    unwritten: BTreeSet<ConnectionId>,
}

/// What is left after all kills.
struct Found {
    alive: BTreeSet<ConnectionId>,
    ended: BTreeSet<ConnectionId>,
    named_by_ledger: BTreeSet<ConnectionId>,
    refreshes: u64,
    /// Grants of which the hospital saw a replaced token.
    reused: u64,
    graced: u64,
}

impl World {
    async fn start(faults: serde_json::Value) -> Self {
        let setup = Setup { auth: AuthMethod::ClientSecretBasic, pulls: no_pulls(), ..Setup::default() };
        let mut app = TestApp::with(setup).await;
        let user = app.hospital.users()[0].username.clone();
        app.hospital.agrees(&user).await;
        let mut browser = Browser::default();
        for number in 0..CONNECTIONS {
            let (link, _) = app.session(&format!("patient {number}")).await;
            let page = app.journey(&mut browser, &link).await;
            assert_eq!(page.status, 200, "{}", page.text);
        }
        let connections = connections(&app, CONNECTIONS).await;
        app.hospital.faults(faults).await;
        app.stop().await;
        let list: Vec<String> = connections.iter().map(ToString::to_string).collect();
        std::fs::write(app.folder.path().join(LIST), list.join("\n")).expect("written");
        Self {
            app,
            connections,
            random: Random::seeded(7),
            unanswered: BTreeSet::new(),
            unwritten: BTreeSet::new(),
        }
    }

    async fn kill_again_and_again(&mut self, kills: u64) {
        for kill in 0..kills {
            // Every other kill is at a named step, the rest at random.
            let place = usize::try_from(kill / 2).expect("small") % STEPS.len();
            let hold = kill.is_multiple_of(2).then(|| STEPS[place]);
            let after = 30 + self.random.below(if hold.is_some() { 120 } else { MOST_STEPS });
            let clock = self.app.clock.now();
            let victim = Victim {
                folder: self.app.folder.path().to_owned(),
                master_key: self.app.master_key.to_text().to_string(),
                origin: self.app.origin.clone(),
                start: clock,
                hold,
                after,
            };
            let last =
                tokio::task::spawn_blocking(move || victim.run_and_kill()).await.expect("it was killed");
            self.app.clock.advance(Duration::from_hours(24));
            for (connection, step) in last {
                match step {
                    RefreshStep::Asking => drop(self.unanswered.insert(connection)),
                    RefreshStep::Answered => drop(self.unwritten.insert(connection)),
                    RefreshStep::Kept => {}
                }
            }
        }
    }

    async fn look(&mut self) -> Found {
        self.app.restart().await;
        let grants = self.app.app().parts().grants.clone();
        let (mut alive, mut ended, mut named) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for id in &self.connections {
            match grants.access(*id, RefreshedBy::Operator).await {
                Ok(_) => drop(alive.insert(*id)),
                Err(AccessError::NotActive(ConnectionStatus::RefreshFailed)) => drop(ended.insert(*id)),
                Err(other) => panic!("{id}: {other}"),
            }
            let ledger = grants.ledger(*id).await.expect("read").expect("there");
            let ledger = serde_json::to_value(&ledger.entries[0]).expect("json");
            if ledger["kind"] == "ended" && ledger["code"] == "invalid_grant" && ledger["why"] == "refused" {
                named.insert(*id);
            }
        }
        let told = self.app.hospital.control("GET", "grants", &serde_json::Value::Null).await;
        let each = |name: &str| -> Vec<u64> {
            let rows = told.as_array().or_else(|| told["grants"].as_array()).expect("a list").iter();
            rows.map(|grant| grant[name].as_u64().unwrap_or_else(|| panic!("no `{name}` in {grant}")))
                .collect()
        };
        Found {
            alive,
            ended,
            named_by_ledger: named,
            refreshes: each("refreshes").into_iter().sum(),
            reused: each("reuses").into_iter().filter(|reuses| *reuses > 0).count() as u64,
            graced: each("graced").into_iter().sum(),
        }
    }
}

fn no_pulls() -> PullSettings {
    PullSettings { at_once: 0, ..PullSettings::default() }
}

async fn connections(app: &TestApp, count: usize) -> Vec<ConnectionId> {
    let mut found = Vec::new();
    for number in 0..count {
        let connection = app.connection(&format!("patient {number}").replace(' ', "%20")).await;
        assert_eq!(connection["status"], "active", "{connection}");
        found.push(ConnectionId::parse(connection["id"].as_str().expect("an id")).expect("an id"));
    }
    found
}

/// The process that is killed.
struct Victim {
    folder: PathBuf,
    master_key: String,
    origin: String,
    start: Timestamp,
    /// At which step it stands still, to be killed there.
    hold: Option<RefreshStep>,
    /// After how many steps.
    after: u64,
}

impl Victim {
    fn from(arguments: &[String]) -> Self {
        let [folder, master_key, origin, start, hold, after] = arguments else {
            panic!("six arguments are wanted")
        };
        Self {
            folder: PathBuf::from(folder),
            master_key: master_key.clone(),
            origin: origin.clone(),
            start: Timestamp::from_millis(start.parse().expect("a time")),
            hold: STEPS.into_iter().find(|step| format!("{step:?}") == *hold),
            after: after.parse().expect("a number"),
        }
    }

    /// Starts the process, kills it when it has come far enough; the last step of each refresh that it told of.
    fn run_and_kill(&self) -> BTreeMap<ConnectionId, RefreshStep> {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg("refresh-for-ever")
            .arg(&self.folder)
            .args([&self.master_key, &self.origin, &self.start.millis().to_string()])
            .args([
                self.hold.map_or_else(|| "none".to_owned(), |step| format!("{step:?}")),
                self.after.to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the process");
        let mut last = BTreeMap::new();
        let mut steps = 0;
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        for line in lines.by_ref() {
            let line = line.expect("text");
            if line == "held" {
                break;
            }
            note(&line, &mut last);
            steps += 1;
            if self.hold.is_none() && steps >= self.after {
                break;
            }
        }
        kill(&mut child);
        // What it had told before it died counts, too.
        for line in lines.map_while(Result::ok) {
            note(&line, &mut last);
        }
        assert!(steps >= 1, "it told nothing");
        last
    }

    /// Refreshes all connections again and again, and tells of each step before it is taken further.
    async fn refresh(self) {
        let clock = Clock::manual(self.start);
        let key = MasterKey::parse(&self.master_key).expect("a key");
        let setup = Setup { pulls: no_pulls(), ..Setup::default() };
        let app = support::build(&self.folder, &key, &self.origin, &clock, &setup).await;
        let grants = app.parts().grants.clone();
        let (steps, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
        let (hold, after) = (self.hold, self.after);
        grants.watch_steps(Arc::new(move |step, connection| {
            tell(&format!("{step:?} {connection}"));
            let come = steps.fetch_add(1, Ordering::Relaxed) >= after && hold == Some(step);
            // One stands still; the others go on until they are killed.
            if come && !stopped.swap(true, Ordering::Relaxed) {
                tell("held");
                loop {
                    std::thread::park();
                }
            }
        }));
        let listed = std::fs::read_to_string(self.folder.join(LIST)).expect("a list");
        let mut connections: Vec<ConnectionId> =
            listed.lines().map(|id| ConnectionId::parse(id).expect("an id")).collect();
        loop {
            clock.advance(Duration::from_mins(10));
            let refreshes = connections.iter().map(|id| {
                let grants = grants.clone();
                async move { (*id, grants.access(*id, RefreshedBy::Schedule).await) }
            });
            let outcomes: Vec<_> =
                futures_util::stream::iter(refreshes).buffer_unordered(AT_ONCE).collect().await;
            for (id, outcome) in outcomes {
                match outcome {
                    Ok(_) => {}
                    Err(AccessError::NotActive(_)) => connections.retain(|other| *other != id),
                    Err(other) => panic!("{id}: {other}"),
                }
            }
            assert!(!connections.is_empty(), "nothing is left to refresh");
        }
    }
}

fn note(line: &str, last: &mut BTreeMap<ConnectionId, RefreshStep>) {
    let Some((step, connection)) = line.split_once(' ') else { return };
    let step = STEPS.into_iter().find(|known| format!("{known:?}") == step);
    if let (Some(step), Ok(connection)) = (step, ConnectionId::parse(connection)) {
        last.insert(connection, step);
    }
}

/// One line in one write, so that a kill does not cut it.
fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

fn kill(child: &mut Child) {
    child.kill().expect("killed");
    child.wait().expect("gone");
}
