//! Who read whose records: an entry for each access, live or of what is kept, that outlives the access, the connection and
//! the patient. It names keys and ids of ours and FHIR types; no id of a record, no query, no content.
//!
//! Entries are written in blocks beside the requests, which wait for a place when too many entries wait for the disk: no
//! access goes unrecorded because there are many. Nothing here changes or removes a block, and blocks are numbered without
//! gaps, so that they can be the source of a chained trail. What a power cut can take is the last tenth of a second.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::clock::Timestamp;
use crate::events::lock;
use crate::id::{ApiKeyId, ConnectionId, Id as _, PatientKey, WorkspaceId};
use crate::shutdown::Shutdown;
use crate::store::{Change, Range, Reader as _, Store, StoreError, Table, Value};

/// Blocks of entries under their number, the first is 1.
const ACCESSES: Table<Block> = Table::new("accesses.v1");
/// Which blocks tell of whom: under subject and block number.
const ACCESSES_BY_SUBJECT: Table<()> = Table::new("accesses_by_subject.v1");

/// Entries that may wait for the disk, those of requests under way included.
const MOST_WAITING: usize = 8192;
/// So many entries do not wait for more.
const ENOUGH: usize = MOST_WAITING / 4;
/// Entries of one block at most.
const BLOCK: usize = 1024;
/// How long an entry waits for others, so that a busy box writes ten times a second and not a thousand times.
const LINGER: Duration = Duration::from_millis(100);
/// After a write that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest a request waits for its place.
const PATIENCE: Duration = Duration::from_secs(10);
/// The format of a block.
const FORMAT: u8 = 1;
/// The longest name of what was asked for.
const LONGEST_KIND: usize = u8::MAX as usize;

/// Whose records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Those of one connection, read at the EHR.
    Connection(ConnectionId),
    /// Those kept of one patient.
    Patient(PatientKey),
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Connection(id) => id.serialize(serializer),
            Self::Patient(key) => key.serialize(serializer),
        }
    }
}

/// What was done with them. The number is the one on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Interaction {
    /// One resource, or one version of it.
    Read = 1,
    /// A search.
    Search = 2,
    /// The versions of something.
    History = 3,
    /// An operation.
    Operation = 4,
    /// What the server says of itself.
    Capabilities = 5,
    /// A page of what is kept.
    Page = 6,
    /// All of what is kept.
    Export = 7,
    /// What is no address of FHIR.
    Other = 8,
}

impl Interaction {
    const ALL: [Self; 8] = [
        Self::Read,
        Self::Search,
        Self::History,
        Self::Operation,
        Self::Capabilities,
        Self::Page,
        Self::Export,
        Self::Other,
    ];

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|one| *one as u8 == number)
    }
}

/// One access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccessEntry {
    /// When it was asked for.
    pub at: Timestamp,
    /// By whom.
    pub key: ApiKeyId,
    /// Whose key that is.
    pub workspace: WorkspaceId,
    /// Whose records.
    pub subject: Subject,
    /// What was done.
    pub interaction: Interaction,
    /// The FHIR type, or types with commas; `*` for all.
    pub kind: Cow<'static, str>,
    /// The status of the answer.
    pub status: u16,
}

/// Entries in the order in which they were noted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block(Vec<AccessEntry>);

impl Value for Block {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        for entry in &self.0 {
            out.extend_from_slice(&entry.at.millis().to_be_bytes());
            out.extend_from_slice(&entry.key.to_bytes());
            out.extend_from_slice(&entry.workspace.to_bytes());
            out.extend_from_slice(&entry.subject.to_bytes());
            out.push(entry.interaction as u8);
            out.extend_from_slice(&entry.status.to_be_bytes());
            let kind = shortened(&entry.kind).as_bytes();
            out.push(u8::try_from(kind.len()).unwrap_or(0));
            out.extend_from_slice(kind);
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (format, mut rest) = bytes.split_first()?;
        let mut entries = Vec::new();
        while *format == FORMAT && !rest.is_empty() {
            let (head, behind) = rest.split_first_chunk::<61>()?;
            let (kind, behind) = behind.split_at_checked(usize::from(head[60]))?;
            let id = |at: usize| head[at..at + 16].try_into().ok();
            entries.push(AccessEntry {
                at: Timestamp::from_millis(i64::from_be_bytes(head[..8].try_into().ok()?)),
                key: ApiKeyId::from_bytes(id(8)?),
                workspace: WorkspaceId::from_bytes(id(24)?),
                subject: Subject::of(head[40], id(41)?)?,
                interaction: Interaction::of(head[57])?,
                kind: String::from_utf8(kind.to_vec()).ok()?.into(),
                status: u16::from_be_bytes([head[58], head[59]]),
            });
            rest = behind;
        }
        (*format == FORMAT).then_some(Self(entries))
    }
}

impl Subject {
    fn to_bytes(self) -> [u8; 17] {
        let (kind, id) = match self {
            Self::Connection(id) => (1, id.to_bytes()),
            Self::Patient(key) => (2, key.to_bytes()),
        };
        let mut bytes = [kind; 17];
        bytes[1..].copy_from_slice(&id);
        bytes
    }

    fn of(kind: u8, id: [u8; 16]) -> Option<Self> {
        match kind {
            1 => Some(Self::Connection(ConnectionId::from_bytes(id))),
            2 => Some(Self::Patient(PatientKey::from_bytes(id))),
            _ => None,
        }
    }
}

fn shortened(kind: &str) -> &str {
    let mut end = kind.len().min(LONGEST_KIND);
    while !kind.is_char_boundary(end) {
        end -= 1;
    }
    &kind[..end]
}

/// Too many accesses wait to be recorded, because the disk is slow or the store cannot write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many accesses wait to be recorded")]
pub struct TrailFull;

/// The record of accesses. Clones share it.
#[derive(Debug, Clone)]
pub struct Accesses(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    shutdown: Shutdown,
    places: Arc<Semaphore>,
    enough: Notify,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: Vec<AccessEntry>,
    /// Somebody is writing, or about to.
    writing: bool,
}

/// A place for one entry: whoever has it can note an access without waiting.
#[derive(Debug)]
pub struct Place {
    accesses: Accesses,
    place: OwnedSemaphorePermit,
}

impl Place {
    /// Notes the access. It is on disk soon.
    pub fn note(self, entry: AccessEntry) {
        // The place is free again when the entry is on disk.
        self.place.forget();
        self.accesses.push(entry);
    }
}

impl Accesses {
    /// Over a store; a stop waits until what was noted is written.
    pub fn new(store: Store, shutdown: Shutdown) -> Self {
        Self(Arc::new(Inner {
            store,
            shutdown,
            places: Arc::new(Semaphore::new(MOST_WAITING)),
            enough: Notify::new(),
            waiting: Mutex::default(),
        }))
    }

    /// A place for an entry, taken before anything is read.
    pub async fn place(&self) -> Result<Place, TrailFull> {
        let places = &self.0.places;
        let place = if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            place
        } else {
            let waiting = tokio::time::timeout(PATIENCE, Arc::clone(places).acquire_owned()).await;
            waiting.map_err(|_| TrailFull)?.map_err(|_| TrailFull)?
        };
        Ok(Place { accesses: self.clone(), place })
    }

    fn push(&self, entry: AccessEntry) {
        let mut waiting = lock(&self.0.waiting);
        waiting.entries.push(entry);
        if waiting.entries.len() >= ENOUGH {
            self.0.enough.notify_one();
        }
        if !waiting.writing {
            waiting.writing = true;
            drop(waiting);
            self.0.shutdown.spawn(self.clone().write());
        }
    }

    /// Writes until nothing waits.
    async fn write(self) {
        let inner = &self.0;
        let mut told = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LINGER) => {}
                () = inner.enough.notified() => {}
                () = inner.shutdown.triggered() => {}
            }
            let batch = {
                let mut waiting = lock(&inner.waiting);
                waiting.writing = !waiting.entries.is_empty();
                std::mem::take(&mut waiting.entries)
            };
            if batch.is_empty() {
                return;
            }
            let batch = Arc::new(batch);
            let rows = Arc::clone(&batch);
            let Err(error) = inner.store.write(move |change| put(change, &rows)).await else {
                inner.places.add_permits(batch.len());
                told = false;
                continue;
            };
            if !told {
                tracing::error!(%error, "accesses cannot be recorded; when too many wait, reading is refused");
                told = true;
            }
            if self.put_back(&batch, !inner.shutdown.is_triggered()) {
                tokio::time::sleep(AGAIN).await;
            } else {
                return tracing::error!(lost = batch.len(), "accesses were not recorded");
            }
        }
    }

    /// Lets entries that could not be written wait again, before newer ones.
    fn put_back(&self, batch: &[AccessEntry], again: bool) -> bool {
        let mut waiting = lock(&self.0.waiting);
        let newer = std::mem::replace(&mut waiting.entries, batch.to_vec());
        waiting.entries.extend(newer);
        waiting.writing = again;
        again
    }

    /// The latest accesses to somebody's records, newest first.
    pub async fn of(&self, subject: Subject, most: usize) -> Result<Vec<AccessEntry>, StoreError> {
        self.0
            .store
            .read(move |view| {
                let subject_key = subject.to_bytes();
                let mut found = Vec::new();
                // One block has one entry at least.
                let range = Range::of(&subject_key).descending().limit(most);
                for key in view.keys(ACCESSES_BY_SUBJECT, &range)? {
                    let number = key.get(subject_key.len()..).unwrap_or_default();
                    let block = view.get(ACCESSES, number)?.ok_or(StoreError::Damaged("accesses.v1"))?;
                    let entries = block.0.into_iter().rev().filter(|entry| entry.subject == subject);
                    found.extend(entries.take(most - found.len()));
                    if found.len() == most {
                        break;
                    }
                }
                Ok(found)
            })
            .await
    }
}

fn put(change: &mut Change<'_>, entries: &[AccessEntry]) -> Result<(), StoreError> {
    let last = change.keys(ACCESSES, &Range::of(b"").descending().limit(1))?;
    let last = last.first().and_then(|key| key.as_slice().try_into().ok()).map_or(0, u64::from_be_bytes);
    for (number, block) in (last + 1..).zip(entries.chunks(BLOCK)) {
        let number = number.to_be_bytes();
        change.put(ACCESSES, &number, &Block(block.to_vec()));
        let subjects: BTreeSet<Subject> = block.iter().map(|entry| entry.subject).collect();
        for subject in subjects {
            change.put(ACCESSES_BY_SUBJECT, &[&subject.to_bytes()[..], &number].concat(), &());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Random;
    use crate::store::{MasterKey, Opening};

    const NOON: Timestamp = Timestamp::from_seconds(1_793_607_165);

    fn open(folder: &tempfile::TempDir) -> Store {
        let random = Random::seeded(1);
        let opening = Opening {
            path: folder.path().join("accesses.redb"),
            master_key: MasterKey::generate(&Random::seeded(2)),
            cache_bytes: 1 << 20,
            create: true,
        };
        Store::open(&opening, random).expect("a store")
    }

    fn entry(subject: Subject, status: u16) -> AccessEntry {
        let random = Random::seeded(3);
        AccessEntry {
            at: NOON,
            key: random.id(NOON),
            workspace: random.id(NOON),
            subject,
            interaction: Interaction::Search,
            kind: "Observation".into(),
            status,
        }
    }

    #[test]
    fn a_block_says_what_was_put_into_it_and_nothing_else_is_one() {
        let random = Random::seeded(4);
        let (connection, patient) = (random.id(NOON), random.id(NOON));
        let mut entries: Vec<AccessEntry> = Interaction::ALL
            .into_iter()
            .map(|interaction| AccessEntry { interaction, ..entry(Subject::Connection(connection), 404) })
            .collect();
        entries.push(AccessEntry { kind: "".into(), ..entry(Subject::Patient(patient), 200) });
        let mut bytes = Vec::new();
        Block(entries.clone()).encode(&mut bytes);
        assert_eq!(Block::decode(&bytes), Some(Block(entries)));
        assert_eq!(Block::decode(&bytes[..bytes.len() - 1]), None);
        bytes[0] = 2;
        assert_eq!(Block::decode(&bytes), None, "a format of a later program");
        let long = AccessEntry { kind: "ä".repeat(200).into(), ..entry(Subject::Patient(patient), 200) };
        let mut bytes = Vec::new();
        Block(vec![long]).encode(&mut bytes);
        assert_eq!(Block::decode(&bytes).expect("a block").0[0].kind.len(), 254);
    }

    #[tokio::test]
    async fn what_was_noted_is_there_after_a_stop_for_each_by_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        let shutdown = Shutdown::default();
        let accesses = Accesses::new(store.clone(), shutdown.clone());
        let random = Random::seeded(4);
        let (amy, bob) = (Subject::Connection(random.id(NOON)), Subject::Patient(random.id(NOON)));
        for number in 0..3000 {
            let subject = if number % 3 == 0 { bob } else { amy };
            accesses.place().await.expect("a place").note(entry(subject, number));
        }
        shutdown.trigger();
        assert!(shutdown.drained(Duration::from_secs(30)).await);
        drop((accesses, store));
        let accesses = Accesses::new(open(&folder), Shutdown::default());
        let all = accesses.of(amy, 10_000).await.expect("read");
        let numbers: Vec<u16> = all.iter().map(|entry| entry.status).collect();
        let expected: Vec<u16> = (0..3000).rev().filter(|number| number % 3 != 0).collect();
        assert_eq!(numbers, expected);
        let latest = accesses.of(bob, 2).await.expect("read");
        assert_eq!(latest.iter().map(|entry| entry.status).collect::<Vec<_>>(), [2997, 2994]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_place_waits_and_is_then_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let accesses = Accesses::new(open(&folder), Shutdown::default());
        let mut places = Vec::new();
        for _ in 0..MOST_WAITING {
            places.push(accesses.place().await.expect("a place"));
        }
        let (waits, ()) = tokio::join!(accesses.place(), async {
            tokio::time::sleep(PATIENCE / 2).await;
            places.pop();
        });
        let waited = waits.expect("the place that became free");
        assert_eq!(accesses.place().await.err(), Some(TrailFull));
        drop(waited);
        assert!(accesses.place().await.is_ok(), "a place that was not used is free again");
    }
}
