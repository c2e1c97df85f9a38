//! How far a pull is, so that after any kind of end it goes on at the page where it was. Every row here is written in the
//! transaction of the page that it tells of, and all go with the end of the pull.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{ConnectionId, Id as _, PullId};
use crate::records::pulls::report::TypeReport;
use crate::store::{Change, Range, Reader, StoreError, Table, Value, Vault, json_value};

/// Pulls under way, by connection.
const RUNNING: Table<Begun> = Table::new("pulls_running.v1");
/// How far each type is, by connection and a digest of the type: row keys are visible.
const TYPES: Table<TypeProgress> = Table::new("pull_types.v1");
/// What each page brought, by connection, that digest and a number.
const PAGES: Table<PageNote> = Table::new("pull_pages.v1");
/// What is to be read by reference, by connection and a digest of type and id.
const REFERENCES: Table<Reference> = Table::new("pull_references.v1");

/// The beginning of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub pull: PullId,
    pub at: Timestamp,
    /// Everything is read, and compared with what is kept; else only what has changed, where the server can tell.
    pub full: bool,
    /// New or changed resources so far.
    #[serde(default)]
    pub stored: usize,
}
json_value!(Begun);

/// A search of a type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Search {
    /// The query, less the window.
    pub query: String,
    /// Only what was updated within: from and to.
    pub window: Option<(Timestamp, Timestamp)>,
    /// How often the window was halved to get around something that the server fails at.
    #[serde(default)]
    pub halved: u32,
}

/// How far a type is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TypeProgress {
    /// Which of the plan's ways is being taken.
    pub way: usize,
    /// What is still to be searched, the present one first.
    pub todo: VecDeque<Search>,
    /// The next page of the present search, as the server gave it.
    pub next: Option<String>,
    /// Pages read.
    pub pages: u32,
    /// The present search was begun anew, because its pages had lapsed.
    pub again: bool,
    /// Searches that stand for others which the server failed at.
    pub halves: u32,
    /// One of the first two halves failed.
    pub half_failed: bool,
    /// Entries about another patient, which were not kept.
    pub strange: usize,
    /// What is known so far; once `done`, all there is.
    pub report: TypeReport,
    /// Nothing is left to do.
    pub done: bool,
}
json_value!(TypeProgress);

impl TypeProgress {
    pub(super) fn new(report: TypeReport) -> Self {
        Self {
            way: 0,
            todo: VecDeque::new(),
            next: None,
            pages: 0,
            again: false,
            halves: 0,
            half_failed: false,
            strange: 0,
            report,
            done: false,
        }
    }
}

/// What a page brought: the records of the type itself and those that came along, by the digests of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PageNote {
    /// A digest of the link that led to it.
    pub link: [u8; 16],
    pub matches: Vec<[u8; 16]>,
    pub companions: Vec<[u8; 16]>,
}

impl Value for PageNote {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.link);
        let count = u32::try_from(self.matches.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for digest in self.matches.iter().chain(&self.companions) {
            out.extend_from_slice(digest);
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (link, rest) = bytes.split_first_chunk::<16>()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
        let (digests, left) = rest.as_chunks::<16>();
        let matches = digests.get(..count)?.to_vec();
        left.is_empty().then(|| Self { link: *link, matches, companions: digests[count..].to_vec() })
    }
}

/// Something that a record named, to be read once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reference {
    pub resource_type: String,
    pub id: String,
    /// The address of an attachment, and its media type.
    pub attachment: Option<(String, Option<String>)>,
    /// It was read, or cannot be.
    pub done: bool,
}
json_value!(Reference);

/// Things to be read, each with its digest, and the last digest that was looked at.
type Wanted = (Vec<([u8; 16], Reference)>, Option<[u8; 16]>);

/// All that is known of a pull under way.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub types: Vec<TypeProgress>,
    /// Each with the digest of its type.
    pub pages: Vec<([u8; 16], PageNote)>,
}

pub(super) fn begun(reader: &impl Reader, connection: ConnectionId) -> Result<Option<Begun>, StoreError> {
    reader.get(RUNNING, &connection.to_bytes())
}

pub(super) fn begin(change: &mut Change<'_>, connection: ConnectionId, begun: &Begun) {
    change.put(RUNNING, &connection.to_bytes(), begun);
}

/// Counts what a page brought, as part of its write: several types' pages come at the same time.
pub(super) fn count_stored(
    change: &mut Change<'_>,
    connection: ConnectionId,
    kept: usize,
) -> Result<(), StoreError> {
    if kept > 0
        && let Some(begun) = begun(change, connection)?
    {
        begin(change, connection, &Begun { stored: begun.stored + kept, ..begun });
    }
    Ok(())
}

pub(super) fn put_type(change: &mut Change<'_>, connection: ConnectionId, progress: &TypeProgress) {
    let key = type_key(change.vault(), connection, &progress.report.resource_type);
    change.put(TYPES, &key, progress);
}

pub(super) fn type_progress(
    reader: &impl Reader,
    connection: ConnectionId,
    resource_type: &str,
) -> Result<Option<TypeProgress>, StoreError> {
    reader.get(TYPES, &type_key(reader.vault(), connection, resource_type))
}

pub(super) fn put_page(
    change: &mut Change<'_>,
    connection: ConnectionId,
    resource_type: &str,
    number: u32,
    note: &PageNote,
) {
    let mut key = type_key(change.vault(), connection, resource_type);
    key.extend_from_slice(&number.to_be_bytes());
    change.put(PAGES, &key, note);
}

/// Everything that is on disk of a pull under way.
pub(super) fn known(reader: &impl Reader, connection: ConnectionId) -> Result<Known, StoreError> {
    let prefix = connection.to_bytes();
    let types = reader.rows(TYPES, &Range::of(&prefix))?.into_iter().map(|(_, progress)| progress);
    let mut pages = Vec::new();
    for (key, note) in reader.rows(PAGES, &Range::of(&prefix))? {
        let digest = key.get(16..32).and_then(|digest| digest.try_into().ok()).unwrap_or_default();
        pages.push((digest, note));
    }
    Ok(Known { types: types.collect(), pages })
}

/// Notes that something is to be read, unless it is noted already.
pub(super) fn want(
    change: &mut Change<'_>,
    connection: ConnectionId,
    digest: [u8; 16],
    reference: &Reference,
) -> Result<bool, StoreError> {
    let key = reference_key(connection, digest);
    if change.has(REFERENCES, &key)? {
        return Ok(false);
    }
    change.put(REFERENCES, &key, reference);
    Ok(true)
}

/// Notes that it needs not be asked for any more.
pub(super) fn done_with(
    change: &mut Change<'_>,
    connection: ConnectionId,
    digest: [u8; 16],
    reference: &Reference,
) {
    let done = Reference { done: true, ..reference.clone() };
    change.put(REFERENCES, &reference_key(connection, digest), &done);
}

/// What is to be read beyond a digest, at most so much, and the last digest that was looked at.
pub(super) fn wanted(
    reader: &impl Reader,
    connection: ConnectionId,
    beyond: Option<[u8; 16]>,
    most: usize,
) -> Result<Wanted, StoreError> {
    let prefix = connection.to_bytes();
    let beyond = beyond.map(|digest| reference_key(connection, digest));
    let (mut found, mut last) = (Vec::new(), None);
    reader.each(REFERENCES, &Range::of(&prefix).beyond(beyond), |key, reference: Reference| {
        let digest: [u8; 16] = key.get(16..).and_then(|rest| rest.try_into().ok()).unwrap_or_default();
        last = Some(digest);
        if !reference.done {
            found.push((digest, reference));
        }
        Ok(found.len() < most)
    })?;
    Ok((found, last))
}

/// How many things were named to be read.
pub(super) fn wanted_count(reader: &impl Reader, connection: ConnectionId) -> Result<usize, StoreError> {
    reader.keys(REFERENCES, &Range::of(&connection.to_bytes())).map(|keys| keys.len())
}

/// Removes all that is known of a pull under way.
pub(super) fn clear(change: &mut Change<'_>, connection: ConnectionId) -> Result<(), StoreError> {
    let prefix = connection.to_bytes();
    change.remove_all(RUNNING, &prefix)?;
    change.remove_all(TYPES, &prefix)?;
    change.remove_all(PAGES, &prefix)?;
    change.remove_all(REFERENCES, &prefix).map(drop)
}

/// What stands for a type in row keys.
pub(super) fn type_digest(vault: &Vault, resource_type: &str) -> [u8; 16] {
    vault.digest(&[b"pull-type", resource_type.as_bytes()])
}

fn type_key(vault: &Vault, connection: ConnectionId, resource_type: &str) -> Vec<u8> {
    [connection.to_bytes(), type_digest(vault, resource_type)].concat()
}

fn reference_key(connection: ConnectionId, digest: [u8; 16]) -> Vec<u8> {
    [connection.to_bytes(), digest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_note_reads_back_and_a_cut_one_does_not() {
        let note = PageNote { link: [7; 16], matches: vec![[1; 16], [2; 16]], companions: vec![[3; 16]] };
        let mut bytes = Vec::new();
        note.encode(&mut bytes);
        assert_eq!(PageNote::decode(&bytes), Some(note));
        assert_eq!(PageNote::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(PageNote::decode(&bytes[..40]), None);
    }
}
