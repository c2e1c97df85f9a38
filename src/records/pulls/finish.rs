//! The end of a pull: the last word on each type, what the server no longer shows, and what is told of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::clock::Timestamp;
use crate::grants::{Connection, ConnectionStatus, PULLS_WANTED};
use crate::id::{ConnectionId, Id as _, PatientKey};
use crate::records::pulls::progress::{self, Begun, Known, TypeProgress};
use crate::records::pulls::report::{Pull, TypeReport, TypeState};
use crate::records::pulls::run::Run;
use crate::records::pulls::{PULLS, announce, copy, schedule};
use crate::records::stored::{RECORD_ORDER, RECORDS_GONE};
use crate::smart::RESOURCE_TYPES;
use crate::store::{Change, Range, Reader, StoreError};

/// Pulls of a connection that are remembered.
const MOST_PULLS: usize = 30;

/// The latest pull of a connection that has ended.
pub(super) fn latest(reader: &impl Reader, connection: ConnectionId) -> Result<Option<Pull>, StoreError> {
    let rows = reader.rows(PULLS, &Range::of(&connection.to_bytes()).descending().limit(1))?;
    Ok(rows.into_iter().next().map(|(_, pull)| pull))
}

/// Keeps a pull that has ended, as part of a write.
pub(super) fn put(change: &mut Change<'_>, pull: &Pull) {
    change.put(PULLS, &[pull.connection.to_bytes(), pull.id.to_bytes()].concat(), pull);
}

/// What the store has of a connection, looked at when a pull ends.
#[derive(Debug, Default)]
struct Held {
    /// Records by type, less those that are marked as gone.
    counts: BTreeMap<String, usize>,
    /// Those of types that were read in full, and did not come.
    absent: Vec<([u8; 32], String)>,
}

impl Run {
    /// Writes the end. `ending`: why the rest was not read.
    pub(super) async fn finish(&self, ending: Option<String>) -> Result<(), StoreError> {
        let (id, patient) = (self.connection.id, self.connection.patient);
        let now = self.pulls.0.clock.now();
        let found = self
            .pulls
            .0
            .store
            .read(move |view| {
                let (pending, _) = progress::wanted(view, id, None, usize::MAX)?;
                let known = (progress::begun(view, id)?, progress::known(view, id)?);
                Ok::<_, StoreError>((known, pending, latest(view, id)?))
            })
            .await?;
        let ((begun, mut known), pending, earlier) = found;
        for (_, reference) in pending {
            note_unread(&mut known, &reference.resource_type, ending.as_deref());
        }
        let mut pull = copy(&self.pull);
        let begun = begun.unwrap_or(Begun { pull: pull.id, at: pull.started_at, full: true, stored: 0 });
        settle(&mut pull, &begun, &known, ending.as_deref());
        let before = earlier.as_ref().and_then(|earlier| earlier.compared_at);
        pull.compared_at = if begun.full { Some(begun.at) } else { before };
        let mut gone = Vec::new();
        if let Some(earlier) = &earlier {
            let complete: HashSet<String> = pull
                .types
                .iter()
                .filter(|report| is_complete(report) && report.changed_since.is_none())
                .filter(|report| RESOURCE_TYPES.contains(&report.resource_type.as_str()))
                .map(|report| report.resource_type.clone())
                .collect();
            let seen: HashSet<[u8; 16]> =
                known.pages.iter().flat_map(|(_, note)| note.matches.iter().copied()).collect();
            let held = self.pulls.0.store.read(move |view| look(view, patient, id, &complete, &seen)).await?;
            for report in &mut pull.types {
                // What was not read in full is as much as is kept of it.
                let in_full = RESOURCE_TYPES.contains(&report.resource_type.as_str());
                if report.changed_since.is_some() || !in_full {
                    report.count = held.counts.get(&report.resource_type).copied().unwrap_or(0);
                } else {
                    let absent = held.absent.iter().filter(|(_, name)| *name == report.resource_type);
                    report.vanished = absent.count();
                }
            }
            gone = held.absent;
            pull.compare_with(earlier);
        }
        pull.state = pull.verdict();
        pull.finished_at = Some(now);
        pull.next_at = schedule::next(self.pulls.0.settings.every, id, now);
        self.change(|shown| *shown = pull.clone());
        tracing::info!(connection = %pull.connection, state = ?pull.state, stored = pull.stored, "pull ended");
        self.write_end(pull, earlier, begun, gone, now).await?;
        self.pulls.look_at_schedule();
        Ok(())
    }

    async fn write_end(
        &self,
        mut pull: Pull,
        earlier: Option<Pull>,
        begun: Begun,
        gone: Vec<([u8; 32], String)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let id = self.connection.id;
        let announcements = self.pulls.0.grants.announcements().clone();
        self.pulls
            .0
            .store
            .write(move |change| {
                progress::clear(change, id)?;
                if let Some(earlier) = &earlier {
                    schedule::clear(change, earlier);
                }
                // An erased connection keeps no pulls.
                if let Some(connection) = Connection::find(change, id)? {
                    announce::ended(change, &announcements, &connection, &pull, earlier.as_ref(), now)?;
                    if connection.status != ConnectionStatus::Active {
                        pull.next_at = None;
                    }
                    schedule::set(change, &pull);
                    for (key, _) in &gone {
                        // Since when it is gone, not since when it was last missed.
                        if !change.has(RECORDS_GONE, key)? {
                            change.put(RECORDS_GONE, key, &now);
                        }
                    }
                    put(change, &pull);
                    let all = change.keys(PULLS, &Range::of(&id.to_bytes()))?;
                    for old in all.iter().take(all.len().saturating_sub(MOST_PULLS)) {
                        change.remove(PULLS, old);
                    }
                }
                // A wish of after the beginning is another pull's: the patient has shared more meanwhile.
                if change.get(PULLS_WANTED, &id.to_bytes())?.is_some_and(|wish| wish.since <= begun.at) {
                    change.remove(PULLS_WANTED, &id.to_bytes());
                }
                Ok::<_, StoreError>(())
            })
            .await
    }
}

/// Puts together what is known of each type. What was not read to its end has a reason.
fn settle(pull: &mut Pull, begun: &Begun, known: &Known, ending: Option<&str>) {
    pull.stored = begun.stored;
    for progress in &known.types {
        let mut report = progress.report.clone();
        if !progress.done {
            conclude_companions(&mut report);
        }
        pull.put_report(report);
    }
    let came: HashSet<[u8; 16]> =
        known.pages.iter().flat_map(|(_, note)| note.companions.iter().copied()).collect();
    if !came.is_empty() {
        let mut report = TypeReport::new("Provenance", TypeState::Ok);
        report.count = came.len();
        pull.put_report(report);
    }
    for report in &mut pull.types {
        if report.state != TypeState::Waiting {
            continue;
        }
        report.state = if report.count > 0 { TypeState::Partial } else { TypeState::Failed };
        report.note = Some(ending.unwrap_or("it was not read to its end").to_owned());
    }
    for report in pull.types.iter_mut().filter(|report| is_complete(report)) {
        report.known_as_of = Some(begun.at);
    }
}

/// Counts something that was named and not read any more.
fn note_unread(known: &mut Known, resource_type: &str, ending: Option<&str>) {
    let at = known.types.iter().position(|progress| progress.report.resource_type == resource_type);
    let at = at.unwrap_or_else(|| {
        known.types.push(TypeProgress::new(TypeReport::new(resource_type, TypeState::Waiting)));
        known.types.len() - 1
    });
    let report = &mut known.types[at].report;
    report.missing += 1;
    report.unreadable += 1;
    report.because(ending.unwrap_or("it was not read to its end"));
}

/// The last word on a type that is read by reference.
fn conclude_companions(report: &mut TypeReport) {
    let of_patients = RESOURCE_TYPES.contains(&report.resource_type.as_str());
    if of_patients || report.state != TypeState::Waiting {
        return;
    }
    let is_file = report.resource_type == "Binary";
    report.state = match (report.count, report.unreadable, report.missing) {
        // A person who is no longer there is no gap in the patient's record; a document is.
        (_, 0, missing) if missing == 0 || !is_file => TypeState::Ok,
        (0, unreadable, _) if unreadable > 0 => TypeState::Failed,
        _ => TypeState::Partial,
    };
}

/// Whether everything that the server has of a type is known: nothing was held back, and no search was refused.
fn is_complete(report: &TypeReport) -> bool {
    report.state == TypeState::Ok && report.note.is_none() && !report.narrowed
}

/// Looks at everything that is kept of a connection.
fn look(
    reader: &impl Reader,
    patient: PatientKey,
    connection: ConnectionId,
    complete: &HashSet<String>,
    seen: &HashSet<[u8; 16]>,
) -> Result<Held, StoreError> {
    let own = connection.to_bytes();
    let marked: HashSet<Vec<u8>> = reader.keys(RECORDS_GONE, &Range::of(&own))?.into_iter().collect();
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut absent = Vec::new();
    reader.each(RECORD_ORDER, &Range::of(&patient.to_bytes()), |_, entry| {
        let Some((place, name)) = entry.record.split_first_chunk::<16>() else { return Ok(true) };
        if *place != own {
            return Ok(true);
        }
        if !marked.contains(&entry.record[..]) {
            *counts.entry(entry.resource_type.clone()).or_default() += 1;
        }
        let came = <[u8; 16]>::try_from(name).is_ok_and(|name| seen.contains(&name));
        if !came && complete.contains(&entry.resource_type) {
            absent.push((entry.record, entry.resource_type));
        }
        Ok(true)
    })?;
    Ok(Held { counts: counts.into_iter().collect(), absent })
}
