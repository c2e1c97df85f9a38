//! What patients miss: places they looked for and did not find, kept for staff until somebody has dealt with them.
//!
//! All of it was typed by somebody who has a link: bounded, cleaned, sealed, never logged, and erased with its patient.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Timestamp};
use crate::crypto::Random;
use crate::directory::index::web_host;
use crate::directory::text::{clean, fold};
use crate::events::{EventKind, Fact, Outbox};
use crate::id::{Id as _, PatientKey, PatientSessionId, SourceRequestId, WorkspaceId};
use crate::store::{Change, Range, Reader as _, Store, StoreError, Table, json_value};
use crate::workspaces::{Patient, PatientSession, sessions};

/// Requests by workspace and own id, which begins with the time.
const SOURCE_REQUESTS: Table<SourceRequest> = Table::new("source_requests.v1");
/// The session of each, under patient and own id.
const SOURCE_REQUESTS_BY_PATIENT: Table<[u8; 16]> = Table::new("source_requests_by_patient.v1");

/// Requests of one session.
const MOST_OF_SESSION: usize = 5;
/// Requests of one patient, over all sessions.
const MOST_OF_PATIENT: usize = 40;
/// New requests of one workspace within [`WINDOW`]: people read them.
const MOST_AT_ONCE: usize = 60;
const WINDOW: Duration = Duration::from_hours(1);
/// Requests that are kept of one workspace; the oldest gives way.
const MOST_KEPT: usize = 2_000;

/// The longest name, and the longest city with its state.
pub const LONGEST_NAME: usize = 120;
/// The longest web address.
pub const LONGEST_WEBSITE: usize = 200;
/// The longest e-mail address.
pub const LONGEST_EMAIL: usize = 254;

/// A place that somebody misses, as it was typed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingPlace {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub city: Option<String>,
    /// Where its patients see their results.
    pub website: Option<String>,
    /// Where the patient wants to hear about it.
    pub email: Option<String>,
}

/// What strangers type is not for the log.
impl fmt::Debug for MissingPlace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("MissingPlace").finish_non_exhaustive()
    }
}

/// A field that cannot be taken as it was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceField {
    /// Empty, or too long.
    Name,
    /// Too long.
    City,
    /// No web address.
    Website,
    /// No e-mail address.
    Email,
}

impl MissingPlace {
    /// Takes what was typed: name, city, website and e-mail address, of which only the name must be there.
    pub fn read([name, city, website, email]: [&str; 4]) -> Result<Self, Vec<PlaceField>> {
        let mut wrong = Vec::new();
        let mut take = |field, text: &str, most: usize, good: &dyn Fn(&str) -> bool| {
            // Counted before anything is done with it.
            let short = text.chars().take(most + 1).count() <= most;
            let text = if short { clean(text) } else { String::new() };
            if !short || (!text.is_empty() && !good(&text)) {
                wrong.push(field);
            }
            (!text.is_empty()).then_some(text)
        };
        let any = |_: &str| true;
        let name = take(PlaceField::Name, name, LONGEST_NAME, &any);
        let city = take(PlaceField::City, city, LONGEST_NAME, &any);
        let website = take(PlaceField::Website, website, LONGEST_WEBSITE, &|text| web_host(text).is_some());
        let email = take(PlaceField::Email, email, LONGEST_EMAIL, &is_email);
        if name.is_none() && !wrong.contains(&PlaceField::Name) {
            wrong.insert(0, PlaceField::Name);
        }
        match name {
            Some(name) if wrong.is_empty() => Ok(Self { name, city, website, email }),
            _ => Err(wrong),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let key = |place: &Self| (fold(&place.name), fold(place.city.as_deref().unwrap_or_default()));
        key(self) == key(other)
    }
}

fn is_email(text: &str) -> bool {
    let plain = |letter: char| !letter.is_whitespace() && !matches!(letter, '<' | '>' | '"' | ',' | ';');
    text.chars().all(plain)
        && text.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty()
                && domain.contains('.')
                && !domain.starts_with('.')
                && !domain.ends_with('.')
                && !domain.contains('@')
        })
}

/// One patient's wish for one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRequest {
    /// Its id.
    pub id: SourceRequestId,
    /// Whose patient asks.
    pub workspace: WorkspaceId,
    /// The patient.
    pub patient: PatientKey,
    /// The caller's id of the patient.
    pub patient_id: String,
    /// The journey it was written in.
    pub session: PatientSessionId,
    /// The place.
    pub place: MissingPlace,
    /// When it was written.
    pub created_at: Timestamp,
    /// What staff did about it.
    #[serde(default)]
    pub closed: Option<Closed>,
}
json_value!(SourceRequest);

/// What staff did about a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// When.
    pub at: Timestamp,
    /// What they wrote about it.
    pub note: Option<String>,
}

/// Why a request was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestRefused {
    /// The session, or the patient, has written enough of them.
    #[error("this patient has asked for enough places")]
    Enough,
    /// Too many come in at once.
    #[error("too many requests for places within an hour")]
    Busy,
    /// The session was erased meanwhile.
    #[error("the session is no longer there")]
    SessionGone,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an event tells of a request.
#[derive(Serialize)]
struct RequestShape {
    id: String,
    resource_type: &'static str,
    patient_id: String,
    patient_session_id: String,
    #[serde(flatten)]
    place: MissingPlace,
    created_at: String,
}

impl RequestShape {
    fn new(request: &SourceRequest) -> Self {
        Self {
            id: request.id.to_string(),
            resource_type: "source_request",
            patient_id: request.patient_id.clone(),
            patient_session_id: request.session.to_string(),
            place: request.place.clone(),
            created_at: request.created_at.to_string(),
        }
    }
}

/// The requests of all workspaces. Clones share them.
#[derive(Debug, Clone)]
pub struct SourceRequests {
    store: Store,
    clock: Clock,
    random: Random,
    outbox: Outbox,
}

impl SourceRequests {
    /// Over a store; `outbox` tells who wants to know.
    pub fn new(store: Store, clock: Clock, random: Random, outbox: Outbox) -> Self {
        Self { store, clock, random, outbox }
    }

    /// Keeps what a patient misses, and tells of it. The same place once more in one session is kept once.
    pub async fn tell(&self, session: &PatientSession, place: MissingPlace) -> Result<(), RequestRefused> {
        let now = self.clock.now();
        let request = SourceRequest {
            id: self.random.id(now),
            workspace: session.workspace,
            patient: session.patient,
            patient_id: session.patient_id.clone(),
            session: session.id,
            place,
            created_at: now,
            closed: None,
        };
        let outbox = self.outbox.clone();
        self.store.write(move |change| keep(change, &outbox, &request)).await
    }

    /// Whether a session has told of anything.
    pub async fn has_told(&self, session: &PatientSession) -> Result<bool, StoreError> {
        let (patient, session) = (session.patient.to_bytes(), session.id.to_bytes());
        self.store
            .read(move |view| {
                let rows = view.rows(SOURCE_REQUESTS_BY_PATIENT, &Range::of(&patient))?;
                Ok(rows.into_iter().any(|(_, of)| of == session))
            })
            .await
    }

    /// A workspace's requests, newest first, older than `after`: the open ones, or all of them.
    pub async fn list(
        &self,
        workspace: WorkspaceId,
        closed_too: bool,
        after: Option<SourceRequestId>,
        limit: usize,
    ) -> Result<Vec<SourceRequest>, StoreError> {
        self.store
            .read(move |view| {
                let prefix = workspace.to_bytes();
                let beyond = after.map(|after| [prefix, after.to_bytes()].concat());
                let mut found: Vec<SourceRequest> = Vec::new();
                view.each(SOURCE_REQUESTS, &Range::of(&prefix).descending().beyond(beyond), |_, request| {
                    if closed_too || request.closed.is_none() {
                        found.push(request);
                    }
                    Ok(found.len() < limit)
                })?;
                Ok(found)
            })
            .await
    }

    /// Notes that somebody has dealt with a request; `None` when the workspace has none of this id.
    pub async fn close(
        &self,
        workspace: WorkspaceId,
        id: SourceRequestId,
        note: Option<String>,
    ) -> Result<Option<SourceRequest>, StoreError> {
        let closed = Closed { at: self.clock.now(), note };
        let key = [workspace.to_bytes(), id.to_bytes()].concat();
        self.store
            .write(move |change| {
                let Some(request) = change.get(SOURCE_REQUESTS, &key)? else { return Ok(None) };
                let request = SourceRequest { closed: Some(closed), ..request };
                change.put(SOURCE_REQUESTS, &key, &request);
                Ok(Some(request))
            })
            .await
    }
}

fn keep(change: &mut Change<'_>, outbox: &Outbox, request: &SourceRequest) -> Result<(), RequestRefused> {
    // What comes after an erasure must not leave anything behind.
    if sessions::by_id(change, request.session)?.is_none() {
        return Err(RequestRefused::SessionGone);
    }
    let workspace = request.workspace.to_bytes();
    let own = change.rows(SOURCE_REQUESTS_BY_PATIENT, &Range::of(&request.patient.to_bytes()))?;
    let of_session: Vec<&[u8]> = own
        .iter()
        .filter(|(_, session)| *session == request.session.to_bytes())
        .map(|(key, _)| &key[16..])
        .collect();
    for id in &of_session {
        let known = change.get(SOURCE_REQUESTS, &[&workspace, *id].concat())?;
        if known.is_some_and(|known| known.place.is_same(&request.place)) {
            return Ok(());
        }
    }
    if of_session.len() >= MOST_OF_SESSION || own.len() >= MOST_OF_PATIENT {
        return Err(RequestRefused::Enough);
    }
    let newest = change.keys(SOURCE_REQUESTS, &Range::of(&workspace).descending().limit(MOST_AT_ONCE))?;
    let now = request.created_at;
    let recent = newest.iter().filter_map(|key| made_at(key)).filter(|at| {
        // What a clock that was wrong has dated ahead keeps nobody out.
        now.since(*at) < WINDOW && at.since(now) < WINDOW
    });
    if recent.count() >= MOST_AT_ONCE {
        return Err(RequestRefused::Busy);
    }
    let kept = change.keys(SOURCE_REQUESTS, &Range::of(&workspace))?;
    for oldest in kept.iter().take((kept.len() + 1).saturating_sub(MOST_KEPT)) {
        if let Some(old) = change.get(SOURCE_REQUESTS, oldest)? {
            change.remove(SOURCE_REQUESTS_BY_PATIENT, &[old.patient.to_bytes(), old.id.to_bytes()].concat());
        }
        change.remove(SOURCE_REQUESTS, oldest);
    }
    let id = request.id.to_bytes();
    change.put(SOURCE_REQUESTS, &[workspace, id].concat(), request);
    let by_patient = [request.patient.to_bytes(), id].concat();
    change.put(SOURCE_REQUESTS_BY_PATIENT, &by_patient, &request.session.to_bytes());
    let fact = Fact {
        workspace: request.workspace,
        patient: request.patient,
        kind: EventKind::SourceRequested,
        at: request.created_at,
    };
    outbox.emit(change, fact, |_| Ok(RequestShape::new(request)))?;
    Ok(())
}

/// When a request was made, as its key says.
fn made_at(key: &[u8]) -> Option<Timestamp> {
    let mut millis = [0_u8; 8];
    millis[2..].copy_from_slice(key.get(16..22)?);
    i64::try_from(u64::from_be_bytes(millis)).ok().map(Timestamp::from_millis)
}

/// Forgets what a patient has asked for, as part of the patient's erasure.
pub fn forget_patient(change: &mut Change<'_>, patient: &Patient) -> Result<(), StoreError> {
    let workspace = patient.workspace.to_bytes();
    for key in change.keys(SOURCE_REQUESTS_BY_PATIENT, &Range::of(&patient.key.to_bytes()))? {
        change.remove(SOURCE_REQUESTS_BY_PATIENT, &key);
        change.remove(SOURCE_REQUESTS, &[&workspace, &key[16..]].concat());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, city: &str, website: &str, email: &str) -> Result<MissingPlace, Vec<PlaceField>> {
        MissingPlace::read([name, city, website, email])
    }

    #[test]
    fn what_is_typed_is_cleaned_and_stays_text() {
        let place = read(" <b>Mercy</b>\n\u{202e} Clinic ", "", "https://my.mercy.example/x", "a@b.example");
        let place = place.expect("taken");
        assert_eq!(place.name, "<b>Mercy</b> Clinic");
        assert_eq!((place.city, place.email.as_deref()), (None, Some("a@b.example")));
        assert!(!format!("{:?}", read("Mercy", "", "", "")).contains("Mercy"), "not for the log");
    }

    #[test]
    fn what_cannot_be_taken_is_named_field_by_field() {
        let long = "x".repeat(LONGEST_NAME + 1);
        assert_eq!(read("", "", "", ""), Err(vec![PlaceField::Name]));
        assert_eq!(read("\u{200b} \t", "", "", ""), Err(vec![PlaceField::Name]));
        assert_eq!(read(&long, &long, "", ""), Err(vec![PlaceField::Name, PlaceField::City]));
        for bad in ["javascript:alert(1)", "data:text/html,x", "mercy", "ftp://x.example/", "a b.example"] {
            assert_eq!(read("Mercy", "", bad, ""), Err(vec![PlaceField::Website]), "{bad}");
        }
        for bad in ["a", "a@b", "@b.example", "a@.example", "a@b.example, c@d.example", "<a@b.example>"] {
            assert_eq!(read("Mercy", "", "", bad), Err(vec![PlaceField::Email]), "{bad}");
        }
        let huge = "ä".repeat(1 << 20);
        assert_eq!(read(&huge, &huge, &huge, &huge).expect_err("refused").len(), 4);
    }
}
