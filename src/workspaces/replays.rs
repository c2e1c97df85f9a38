//! Answers kept for a day, so that a request that is sent twice under one `Idempotency-Key` is carried out once.
//!
//! The answer is written in the transaction that does the work, so neither is there without the other, and of two at once
//! the second finds the first: the committer takes one write after the other.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{Id as _, PatientKey, WorkspaceId};
use crate::store::{Change, Range, Reader, StoreError, Table, Vault, json_value};

const REPLAYS: Table<Replay> = Table::new("replays.v1");
/// The same by their end, so that old ones can be cleared away.
const REPLAYS_BY_TIME: Table<()> = Table::new("replays_by_time.v1");
/// Those that tell of a patient, so that an erasure finds them.
const REPLAYS_BY_PATIENT: Table<[u8; 16]> = Table::new("replays_by_patient.v1");
/// How many a workspace has.
const REPLAY_COUNTS: Table<[u8; 8]> = Table::new("replay_counts.v1");

/// How long an answer is kept.
pub const REPLAY_LIFE: Duration = Duration::from_hours(24);
/// The most that are kept for one workspace; a larger import can do without keys, or wait.
const MOST: u64 = 1_000_000;
/// Old ones that are cleared away with each new one.
const CLEARED: usize = 8;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Replay {
    request: String,
    /// `None` once the patient it told of was erased.
    answer: Option<String>,
    patient: Option<PatientKey>,
    expires_at: Timestamp,
}
json_value!(Replay);

/// A request that asks to be carried out once.
#[derive(Debug, Clone)]
pub struct OnceOnly {
    workspace: WorkspaceId,
    row: [u8; 32],
    request: String,
    now: Timestamp,
    most: u64,
}

/// Why a request that asks to be carried out once is not.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OnceError {
    /// The same key came with another request.
    #[error("the idempotency key was used for another request")]
    OtherRequest,
    /// What the first request made has been erased.
    #[error("what was made under this idempotency key has been erased")]
    Erased,
    /// The workspace has as many as are kept.
    #[error("too many idempotency keys are kept for this workspace")]
    TooMany,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OnceOnly {
    /// `request` is everything that makes two requests the same one.
    pub fn new(vault: &Vault, workspace: WorkspaceId, key: &str, request: &[&[u8]], now: Timestamp) -> Self {
        let mut row = [0; 32];
        row[..16].copy_from_slice(&workspace.to_bytes());
        row[16..].copy_from_slice(&vault.digest(&[b"idempotency-key", key.as_bytes()]));
        let request = crate::crypto::base64url(&vault.long_digest(request));
        Self { workspace, row, request, now, most: MOST }
    }

    /// The answer that was given before, if this is a repetition.
    pub fn before(&self, reader: &impl Reader) -> Result<Option<String>, OnceError> {
        match reader.get(REPLAYS, &self.row)?.filter(|replay| replay.expires_at > self.now) {
            None => Ok(None),
            Some(replay) if replay.request != self.request => Err(OnceError::OtherRequest),
            Some(replay) => replay.answer.map(Some).ok_or(OnceError::Erased),
        }
    }

    /// Keeps the answer, as part of the write that did the work.
    pub fn keep(
        &self,
        change: &mut Change<'_>,
        answer: String,
        patient: Option<PatientKey>,
    ) -> Result<(), OnceError> {
        remove(change, &self.row)?;
        clear_old(change, self.now)?;
        let count = count_of(change, self.workspace)?;
        if count >= self.most {
            return Err(OnceError::TooMany);
        }
        change.put(REPLAY_COUNTS, &self.workspace.to_bytes(), &(count + 1).to_be_bytes());
        let expires_at = self.now.after(REPLAY_LIFE);
        change.put(REPLAYS_BY_TIME, &time_key(expires_at, &self.row), &());
        if let Some(patient) = patient {
            let mut workspace = [0; 16];
            workspace.copy_from_slice(&self.row[..16]);
            change.put(REPLAYS_BY_PATIENT, &patient_key(patient, &self.row), &workspace);
        }
        let replay = Replay { request: self.request.clone(), answer: Some(answer), patient, expires_at };
        change.put(REPLAYS, &self.row, &replay);
        Ok(())
    }
}

/// Takes out what answers tell of a patient, as part of the patient's erasure. That the requests were carried out stays
/// known: a late repetition must not make the patient again.
pub fn forget_patient(change: &mut Change<'_>, patient: PatientKey) -> Result<(), StoreError> {
    let prefix = patient.to_bytes();
    for (key, workspace) in change.rows(REPLAYS_BY_PATIENT, &Range::of(&prefix))? {
        let row = [&workspace[..], &key[16..]].concat();
        if let Some(replay) = change.get(REPLAYS, &row)? {
            change.put(REPLAYS, &row, &Replay { answer: None, patient: None, ..replay });
        }
        change.remove(REPLAYS_BY_PATIENT, &key);
    }
    Ok(())
}

fn clear_old(change: &mut Change<'_>, now: Timestamp) -> Result<(), StoreError> {
    let ended = millis(now);
    for key in change.keys(REPLAYS_BY_TIME, &Range::of(b"").limit(CLEARED))? {
        let Some((time, row)) = key.split_first_chunk::<8>() else { continue };
        if u64::from_be_bytes(*time) > ended {
            break;
        }
        remove(change, row)?;
        change.remove(REPLAYS_BY_TIME, &key);
    }
    Ok(())
}

fn remove(change: &mut Change<'_>, row: &[u8]) -> Result<(), StoreError> {
    let Some(replay) = change.get(REPLAYS, row)? else { return Ok(()) };
    change.remove(REPLAYS, row);
    change.remove(REPLAYS_BY_TIME, &time_key(replay.expires_at, row));
    if let Some(patient) = replay.patient {
        change.remove(REPLAYS_BY_PATIENT, &patient_key(patient, row));
    }
    let Some((workspace, _)) = row.split_first_chunk::<16>() else { return Ok(()) };
    let workspace = WorkspaceId::from_bytes(*workspace);
    let count = count_of(change, workspace)?.saturating_sub(1);
    change.put(REPLAY_COUNTS, &workspace.to_bytes(), &count.to_be_bytes());
    Ok(())
}

fn count_of(reader: &impl Reader, workspace: WorkspaceId) -> Result<u64, StoreError> {
    Ok(reader.get(REPLAY_COUNTS, &workspace.to_bytes())?.map_or(0, u64::from_be_bytes))
}

fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.millis()).unwrap_or(0)
}

fn time_key(at: Timestamp, row: &[u8]) -> Vec<u8> {
    [&millis(at).to_be_bytes()[..], row].concat()
}

fn patient_key(patient: PatientKey, row: &[u8]) -> Vec<u8> {
    [&patient.to_bytes()[..], &row[16..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Random;
    use crate::store::{MasterKey, Opening, Store};

    fn store(folder: &tempfile::TempDir) -> Store {
        let random = Random::seeded(1);
        let opening = Opening {
            path: folder.path().join("replays.redb"),
            master_key: MasterKey::generate(&random),
            cache_bytes: 1 << 20,
            create: true,
        };
        Store::open(&opening, random).expect("a store")
    }

    #[tokio::test]
    async fn what_is_kept_ends_is_counted_and_has_a_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(&folder);
        let start = Timestamp::from_seconds(1_000);
        let workspace: WorkspaceId = Random::seeded(2).id(start);
        let patient: PatientKey = Random::seeded(3).id(start);
        let once = |key: &str, request: &str, now: Timestamp| OnceOnly {
            most: 3,
            ..OnceOnly::new(store.vault(), workspace, key, &[request.as_bytes()], now)
        };
        let keep = async |key: &str, now: Timestamp| {
            let once = once(key, "r", now);
            store.write(move |change| once.keep(change, "made".to_owned(), Some(patient))).await
        };
        let before = |key: &str, request: &str, now: Timestamp| {
            let once = once(key, request, now);
            store.read_now(|view| once.before(view))
        };
        for key in ["a", "b", "c"] {
            keep(key, start).await.expect("kept");
        }
        assert!(matches!(keep("d", start).await, Err(OnceError::TooMany)));
        assert!(matches!(before("a", "r", start), Ok(Some(answer)) if answer == "made"));
        assert!(matches!(before("a", "other", start), Err(OnceError::OtherRequest)));
        assert!(matches!(before("d", "r", start), Ok(None)));
        let last = start.after(REPLAY_LIFE).before(Duration::from_millis(1));
        assert!(matches!(before("a", "r", last), Ok(Some(_))));
        let end = start.after(REPLAY_LIFE);
        assert!(matches!(before("a", "other", end), Ok(None)), "the key is free again");
        keep("a", end).await.expect("the old ones have made room");
        let counts = store.read_now(|view| count_of(view, workspace));
        assert_eq!(counts.expect("read"), 1);

        store.write(move |change| forget_patient(change, patient)).await.expect("written");
        assert!(matches!(before("a", "r", end), Err(OnceError::Erased)));
        let later = end.after(REPLAY_LIFE);
        keep("z", later).await.expect("kept");
        let left = store.read_now(|view| {
            let all = Range::of(b"");
            let rows = (view.keys(REPLAYS, &all)?, view.keys(REPLAYS_BY_TIME, &all)?);
            Ok::<_, StoreError>((rows.0.len(), rows.1.len(), view.keys(REPLAYS_BY_PATIENT, &all)?.len()))
        });
        assert_eq!(left.expect("read"), (1, 1, 1), "what has ended is gone from every table");
    }
}
