//! Who fetches our JWKS, and which keys they have seen: what an operator must know before switching to a new key.
//!
//! Fetches are added up in memory and written together, at most once a minute, so that nobody makes the disk busy by
//! fetching. What a crash loses is a fetch of the last minute: the answer is then "has not fetched", which is safe.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Timestamp};
use crate::shutdown::Shutdown;
use crate::store::{Range, Reader, Store, StoreError, Table, json_value};

/// Fetchers by keyed digest of network and program.
const JWKS_FETCHES: Table<Fetcher> = Table::new("jwks_fetches.v1");

/// How many fetchers are kept; and of one network, so that one caller with many names does not push the others out.
const MOST: usize = 64;
const MOST_OF_A_NETWORK: usize = 8;
/// The longest name of a program that is kept.
const LONGEST_AGENT: usize = 120;
/// Between two writes.
const PAUSE: Duration = Duration::from_mins(1);

type Row = [u8; 16];

/// Somebody who fetches our JWKS: a program in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetcher {
    /// Large EHRs fetch from several addresses of one network: a /24, or a /48 of IPv6.
    pub network: String,
    /// The address of the newest fetch.
    pub address: IpAddr,
    /// The name that we call this address by, when we have called it.
    #[serde(default)]
    pub host: Option<String>,
    /// What it calls itself (`User-Agent`), cut and cleaned.
    pub agent: String,
    /// Its first fetch.
    pub first: Timestamp,
    /// Its newest fetch.
    pub last: Timestamp,
    /// How many fetches in all.
    pub count: u64,
    /// The keys in the newest set it got.
    pub kids: Vec<String>,
}
json_value!(Fetcher);

/// Notes who fetches our JWKS. Clones share the notes.
#[derive(Debug, Clone)]
pub struct JwksFetches {
    store: Store,
    clock: Clock,
    shutdown: Shutdown,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    fetchers: BTreeMap<Row, Fetcher>,
    /// Rows that differ from what is on disk.
    changed: BTreeSet<Row>,
    /// Whether a write is to come.
    planned: bool,
    written_at: Option<Timestamp>,
}

impl JwksFetches {
    /// Reads what is known.
    pub fn load(store: Store, clock: Clock, shutdown: Shutdown) -> Result<Self, StoreError> {
        let rows = store.read_now(|view| view.rows(JWKS_FETCHES, &Range::of(b"")))?;
        let fetchers = rows.into_iter().filter_map(|(key, row)| Some((key.try_into().ok()?, row))).collect();
        let notes = Notes { fetchers, ..Notes::default() };
        Ok(Self { store, clock, shutdown, notes: Arc::new(Mutex::new(notes)) })
    }

    /// Notes a fetch. `host` is the name we know the address by, `kids` what was in the answer.
    pub fn note(&self, address: IpAddr, host: Option<String>, agent: &str, kids: &[String]) {
        let (address, agent) = (address.to_canonical(), cleaned(agent));
        let network = network_of(address);
        let row = self.store.vault().digest(&[b"jwks-fetch", network.as_bytes(), agent.as_bytes()]);
        let now = self.clock.now();
        let mut notes = self.lock();
        if let Some(known) = notes.fetchers.get_mut(&row) {
            known.address = address;
            known.host = host.or(known.host.take());
            known.last = now;
            known.count = known.count.saturating_add(1);
            if known.kids != kids {
                known.kids = kids.to_vec();
            }
        } else {
            notes.make_room(&network);
            let kids = kids.to_vec();
            let new = Fetcher { network, address, host, agent, first: now, last: now, count: 1, kids };
            notes.fetchers.insert(row, new);
        }
        notes.changed.insert(row);
        if !notes.planned {
            notes.planned = true;
            let due = notes.written_at.map_or(now, |at| at.after(PAUSE));
            drop(notes);
            self.write_at(due);
        }
    }

    /// Everybody who fetched, the newest first.
    pub fn list(&self) -> Vec<Fetcher> {
        let mut all: Vec<Fetcher> = self.lock().fetchers.values().cloned().collect();
        all.sort_by(|one, other| other.last.cmp(&one.last).then_with(|| one.network.cmp(&other.network)));
        all
    }

    fn write_at(&self, due: Timestamp) {
        let this = self.clone();
        self.shutdown.spawn(async move {
            tokio::select! {
                () = this.clock.reached(due) => {}
                () = this.shutdown.triggered() => {}
            }
            if let Err(error) = this.write().await {
                // The next fetch tries again; until then what is known is in memory.
                tracing::warn!(%error, "who fetched the JWKS could not be written");
            }
        });
    }

    async fn write(&self) -> Result<(), StoreError> {
        let rows: Vec<(Row, Option<Fetcher>)> = {
            let mut notes = self.lock();
            notes.planned = false;
            notes.written_at = Some(self.clock.now());
            let changed = std::mem::take(&mut notes.changed);
            changed.into_iter().map(|row| (row, notes.fetchers.get(&row).cloned())).collect()
        };
        let keys: Vec<Row> = rows.iter().map(|(row, _)| *row).collect();
        let written = self.store.write(move |change| {
            for (row, fetcher) in &rows {
                match fetcher {
                    Some(fetcher) => change.put(JWKS_FETCHES, row, fetcher),
                    None => change.remove(JWKS_FETCHES, row),
                }
            }
            Ok::<_, StoreError>(())
        });
        let written = written.await;
        if written.is_err() {
            self.lock().changed.extend(keys);
        }
        written
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    /// Lets the weakest go where a newcomer finds no place. A name that we know ourselves counts most, then how long
    /// somebody has been coming: strangers who come once make room for each other, not in place of an EHR.
    fn make_room(&mut self, network: &str) {
        let crowded =
            self.fetchers.values().filter(|known| known.network == network).count() >= MOST_OF_A_NETWORK;
        if !crowded && self.fetchers.len() < MOST {
            return;
        }
        let candidates = self.fetchers.iter().filter(|(_, known)| !crowded || known.network == network);
        let weakest = candidates
            .min_by_key(|(_, known)| (known.host.is_some(), known.last.since(known.first), known.last))
            .map(|(row, _)| *row);
        if let Some(row) = weakest {
            self.fetchers.remove(&row);
            self.changed.insert(row);
        }
    }
}

/// What a program calls itself, fit for a screen: visible ASCII and blanks, cut.
fn cleaned(agent: &str) -> String {
    let fit = |letter: char| if letter == ' ' || letter.is_ascii_graphic() { letter } else { '?' };
    let text: String = agent.trim().chars().take(LONGEST_AGENT).map(fit).collect();
    if text.is_empty() { "(no name)".to_owned() } else { text }
}

fn network_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(narrow) => {
            let [a, b, c, _] = narrow.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(wide) => {
            let [a, b, c, ..] = wide.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Random;
    use crate::store::{MasterKey, Opening};

    fn fetches(folder: &tempfile::TempDir, clock: &Clock) -> JwksFetches {
        let opening = Opening {
            path: folder.path().join("store.redb"),
            master_key: MasterKey::generate(&Random::seeded(1)),
            cache_bytes: 1 << 20,
            create: true,
        };
        let store = Store::open(&opening, Random::seeded(2)).expect("a store");
        JwksFetches::load(store, clock.clone(), Shutdown::default()).expect("read")
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[tokio::test]
    async fn strangers_do_not_push_out_who_has_come_for_long() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::manual(Timestamp::from_seconds(1_000));
        let fetches = fetches(&folder, &clock);
        let kids = ["a".to_owned()];
        for _ in 0..2 {
            fetches.note(address("198.51.100.7"), None, "EHR", &kids);
            fetches.note(address("203.0.113.9"), Some("ehr.example".to_owned()), "Other", &kids);
            clock.advance(Duration::from_hours(1));
        }
        for number in 0..1_000_u32 {
            clock.advance(Duration::from_secs(1));
            // One network with many names, and many networks.
            fetches.note(address("192.0.2.1"), None, &format!("noise {number}"), &kids);
            fetches.note(IpAddr::from((number << 12).to_be_bytes()), None, "scanner", &kids);
        }
        let known = fetches.list();
        assert_eq!(known.len(), MOST);
        assert!(known.iter().filter(|row| row.network == "192.0.2.0/24").count() <= MOST_OF_A_NETWORK);
        for agent in ["EHR", "Other"] {
            assert_eq!(known.iter().find(|row| row.agent == agent).map(|row| row.count), Some(2), "{agent}");
        }
    }

    #[tokio::test]
    async fn what_a_program_calls_itself_is_cut_and_cleaned() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::manual(Timestamp::from_seconds(1_000));
        let fetches = fetches(&folder, &clock);
        for (agent, expected) in [
            ("", "(no name)".to_owned()),
            ("Java/17\u{1b}[2J\nü", "Java/17?[2J??".to_owned()),
            (&"x".repeat(4_000), "x".repeat(LONGEST_AGENT)),
        ] {
            fetches.note(address("::ffff:192.0.2.1"), None, agent, &[]);
            let known = fetches.list();
            let row = known.iter().find(|row| row.agent == expected).unwrap_or_else(|| panic!("{known:?}"));
            assert_eq!((row.network.as_str(), row.address), ("192.0.2.0/24", address("192.0.2.1")));
        }
        fetches.note(address("2001:db8:1:2::3"), None, "six", &[]);
        assert!(fetches.list().iter().any(|row| row.network == "2001:db8:1::/48"));
    }
}
