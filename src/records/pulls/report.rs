//! What a pull brought and what it could not get: the completeness report.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{ConnectionId, PullId, SourceId};
use crate::store::json_value;

/// How a pull went so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullState {
    /// Waiting for its turn.
    Queued,
    /// Reading.
    Running,
    /// All that was shared has been read.
    Succeeded,
    /// Some of it could not be read; the types say what.
    Partial,
    /// Nothing could be read.
    Failed,
}

impl PullState {
    /// Whether anything is still to come.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Partial | Self::Failed)
    }
}

/// How one type went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TypeState {
    /// Not read to its end yet.
    Waiting,
    /// Read to the end.
    Ok,
    /// Read, but not all of it.
    Partial,
    /// The patient, or the hospital, did not share it.
    NotShared,
    /// The server refused it although it was shared.
    Forbidden,
    /// The server does not have it.
    Unsupported,
    /// It could not be read.
    Failed,
}

impl TypeState {
    /// Whether something that was shared could not be read.
    pub fn is_trouble(self) -> bool {
        matches!(self, Self::Partial | Self::Forbidden | Self::Failed)
    }
}

/// One type of a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeReport {
    /// The FHIR type.
    pub resource_type: String,
    /// How it went.
    pub state: TypeState,
    /// Different resources of the type that the server has, as far as it showed them.
    pub count: usize,
    /// Entries by which the server said that it held something back.
    pub withheld: usize,
    /// Entries that could not be read.
    pub unreadable: usize,
    /// Why it is not `Ok`, for staff. No clinical content.
    pub note: Option<String>,
    /// Attachments and resources named by others that could not be had.
    #[serde(default)]
    pub missing: usize,
    /// Records that the server had at an earlier pull and no longer shows. They are kept, and marked.
    #[serde(default)]
    pub vanished: usize,
    /// The count of the pull before, if there was one that read the type.
    #[serde(default)]
    pub before: Option<usize>,
    /// The earliest day that one of them names as its own: a year, a month or a day.
    #[serde(default)]
    pub oldest: Option<String>,
    /// The latest.
    #[serde(default)]
    pub newest: Option<String>,
    /// Only what was changed after this time was read, and the rest is known from before.
    #[serde(default)]
    pub changed_since: Option<Timestamp>,
    /// The server refused the widest search, and narrower ones were sent instead: what is not among their results may be there
    /// all the same.
    #[serde(default)]
    pub narrowed: bool,
    /// The type is known in full as it was at this time; later pulls may read only what has changed since.
    #[serde(default)]
    pub known_as_of: Option<Timestamp>,
}

impl TypeReport {
    pub(super) fn new(resource_type: &str, state: TypeState) -> Self {
        Self {
            resource_type: resource_type.to_owned(),
            state,
            count: 0,
            withheld: 0,
            unreadable: 0,
            note: None,
            missing: 0,
            vanished: 0,
            before: None,
            oldest: None,
            newest: None,
            changed_since: None,
            narrowed: false,
            known_as_of: None,
        }
    }

    /// Whether there were some at the pull before and there are none now, although the server answered.
    pub fn fell_to_none(&self) -> bool {
        self.count == 0 && self.state == TypeState::Ok && self.before.is_some_and(|before| before > 0)
    }

    /// Notes the day of a record.
    pub(super) fn note_day(&mut self, day: Option<&str>) {
        let Some(day) = day else { return };
        if self.oldest.as_deref().is_none_or(|oldest| day < oldest) {
            self.oldest = Some(day.to_owned());
        }
        if self.newest.as_deref().is_none_or(|newest| day > newest) {
            self.newest = Some(day.to_owned());
        }
    }

    /// Says why it is not complete, once.
    pub(super) fn because(&mut self, why: impl Into<String>) {
        self.note.get_or_insert_with(|| why.into());
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Its id.
    pub id: PullId,
    /// What it reads.
    pub connection: ConnectionId,
    /// Where from.
    pub source: SourceId,
    /// How it goes.
    pub state: PullState,
    /// Since when it runs.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// New or changed resources so far, companions included.
    pub stored: usize,
    /// The types, in the order of the product's list; then those that came with them.
    pub types: Vec<TypeReport>,
    /// When everything was last read and compared, instead of only what had changed.
    #[serde(default)]
    pub compared_at: Option<Timestamp>,
    /// When the next one is due, if one is.
    #[serde(default)]
    pub next_at: Option<Timestamp>,
}
json_value!(Pull);

impl Pull {
    /// The report of a type.
    pub fn report(&self, resource_type: &str) -> Option<&TypeReport> {
        self.types.iter().find(|report| report.resource_type == resource_type)
    }

    pub(super) fn put_report(&mut self, report: TypeReport) {
        match self.types.iter_mut().find(|known| known.resource_type == report.resource_type) {
            Some(known) => *known = report,
            None => self.types.push(report),
        }
    }

    /// Sets beside each type what the pull before knew of it.
    pub(super) fn compare_with(&mut self, earlier: &Self) {
        let known: HashMap<&str, &TypeReport> =
            earlier.types.iter().map(|report| (report.resource_type.as_str(), report)).collect();
        for report in &mut self.types {
            let Some(old) = known.get(report.resource_type.as_str()) else { continue };
            let read = matches!(old.state, TypeState::Ok | TypeState::Partial);
            report.before = if read { Some(old.count) } else { old.before };
        }
    }

    /// What came of it in all.
    pub(super) fn verdict(&self) -> PullState {
        let asked = || self.types.iter().filter(|report| report.state != TypeState::NotShared);
        let good = |report: &TypeReport| matches!(report.state, TypeState::Ok | TypeState::Unsupported);
        if asked().all(good) && asked().any(|report| report.state == TypeState::Ok) {
            PullState::Succeeded
        } else if asked().any(|report| matches!(report.state, TypeState::Ok | TypeState::Partial)) {
            PullState::Partial
        } else {
            PullState::Failed
        }
    }

    /// The types that are not all there, in the order of the report.
    pub fn incomplete(&self) -> impl Iterator<Item = &TypeReport> {
        self.types.iter().filter(|report| report.state.is_trouble())
    }

    /// Why it brought nothing: what the first type that was asked for met.
    pub(super) fn reason(&self) -> String {
        let mut notes = self.types.iter().filter(|report| report.state.is_trouble()).filter_map(|report| {
            let note = report.note.as_deref()?;
            Some(format!("{}: {note}", report.resource_type))
        });
        notes.next().unwrap_or_else(|| "nothing that could be read was shared".to_owned())
    }
}
