//! Reading records back: pages in the order of change, both ways, by type and since a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::crypto::{base64url, from_base64url};
use crate::grants::Connection;
use crate::id::{ConnectionId, Id as _, PatientKey, SourceId};
use crate::records::Records;
use crate::records::stored::{RECORD_ORDER, RECORDS, order_key, position_of, raw};
use crate::records::text::with_patient_id;
use crate::store::{Change, Range, Reader, StoreError, Table, Value as _, View, json_value};
use crate::workspaces::Patient;

/// Cursors by their own nine bytes: the contract's cursors have twelve characters, too few to carry a position.
const CURSORS: Table<CursorRow> = Table::new("record_cursors.v1");
/// The same by the time they end, so that old ones can be cleared away.
const CURSORS_BY_TIME: Table<()> = Table::new("record_cursors_by_time.v1");
/// How long a cursor is good, and a day more so that a repeated one need not be written again each time.
const CURSOR_LIFE: Duration = Duration::from_hours(168);
const CURSOR_SPARE: Duration = Duration::from_hours(24);
/// A page ends early when its records come to this many bytes: charts hold scanned documents.
const MOST_PAGE_BYTES: usize = 8 << 20;
/// Old cursors that are cleared away with each new one.
const CLEARED: usize = 8;
/// The most order entries looked at for one page of a filtered list; the next page goes on from there.
const MOST_LOOKED_AT: usize = 200_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct CursorRow {
    patient: PatientKey,
    filter: String,
    position: u64,
    expires_at: Timestamp,
}
json_value!(CursorRow);

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// At the beginning.
    First,
    /// After this cursor.
    After(String),
    /// Before this cursor.
    Before(String),
}

/// Which records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    /// Only these types; empty means all.
    pub types: Vec<String>,
    /// Only what the store noticed after this instant.
    pub since: Option<Timestamp>,
    /// Where to go on.
    pub position: Position,
    /// At most this many.
    pub count: usize,
}

impl PageQuery {
    fn filter(&self) -> String {
        format!("{}|{:?}", self.types.join(","), self.since.map(Timestamp::millis))
    }

    fn wants(&self, resource_type: &str) -> bool {
        wants(&self.types, resource_type)
    }
}

/// Whether a list of types lets one through; an empty list lets all.
pub(super) fn wants(types: &[String], resource_type: &str) -> bool {
    types.is_empty() || types.iter().any(|wanted| wanted == resource_type)
}

/// The last position that is not after an instant: positions count microseconds, of which the instant has a thousand.
pub(super) fn floor_of(since: Timestamp) -> u64 {
    millis(since).saturating_mul(1000).saturating_add(999)
}

/// One record of a page.
#[derive(Debug)]
pub struct PageRecord {
    /// Where it came from.
    pub source: Option<SourceId>,
    /// Its text.
    pub resource: Box<RawValue>,
}

/// A page of records, with the cursors in both directions where there is something.
#[derive(Debug)]
pub struct Page {
    /// The records, in the order of change.
    pub records: Vec<PageRecord>,
    /// Goes on after this page.
    pub next: Option<String>,
    /// Goes back before this page.
    pub previous: Option<String>,
}

/// Why a page could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CursorError {
    /// Unknown, older than seven days, another patient's, or with other filters.
    #[error("the cursor is unknown, older than seven days, or was given with other filters")]
    Unknown,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Found {
    records: Vec<PageRecord>,
    first: Option<u64>,
    last: Option<u64>,
    more_after: bool,
    more_before: bool,
}

impl Records {
    /// A page of a patient's records.
    pub async fn page(&self, patient: &Patient, query: PageQuery) -> Result<Page, CursorError> {
        let (key, now) = (patient.key, self.clock.now());
        let patient_id = patient.patient_id.clone();
        let filter = query.filter();
        let (records, named) = self
            .store
            .read(move |view| {
                let found = read_page(view, key, &patient_id, &query, now, MOST_LOOKED_AT)?;
                let edges =
                    [found.last.filter(|_| found.more_after), found.first.filter(|_| found.more_before)];
                let mut named = [None, None];
                for (named, edge) in named.iter_mut().zip(edges) {
                    *named = edge.map(|position| Named::of(view, key, &filter, position, now)).transpose()?;
                }
                Ok::<_, CursorError>((found.records, named))
            })
            .await?;
        let [next, previous] = named.each_ref().map(|named| named.as_ref().map(|named| base64url(&named.id)));
        let unwritten: Vec<Named> = named.into_iter().flatten().filter(|named| !named.written).collect();
        if !unwritten.is_empty() {
            self.store
                .write(move |change| {
                    clear_old(change, now)?;
                    for Named { id, row, .. } in &unwritten {
                        change.put(CURSORS_BY_TIME, &time_key(row.expires_at, id), &());
                        change.put(CURSORS, id, row);
                    }
                    Ok::<_, StoreError>(())
                })
                .await?;
        }
        Ok(Page { records, next, previous })
    }
}

/// The cursor for a position: the same one each time it is asked for, written only when it is new or ageing.
struct Named {
    id: [u8; 9],
    row: CursorRow,
    written: bool,
}

impl Named {
    fn of(
        view: &View<'_>,
        patient: PatientKey,
        filter: &str,
        position: u64,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let digest = view.vault().digest(&[
            b"record-cursor",
            &patient.to_bytes(),
            filter.as_bytes(),
            &position.to_be_bytes(),
        ]);
        let id: [u8; 9] = digest[..9].try_into().expect("sixteen bytes have nine");
        let known: Option<CursorRow> = view.get(CURSORS, &id)?;
        let written = known.is_some_and(|row| row.expires_at >= now.after(CURSOR_LIFE));
        let expires_at = now.after(CURSOR_LIFE + CURSOR_SPARE);
        let row = CursorRow { patient, filter: filter.to_owned(), position, expires_at };
        Ok(Self { id, row, written })
    }
}

/// Clears a few cursors that have ended, so that the table does not grow for ever. One that was renewed meanwhile stays.
fn clear_old(change: &mut Change<'_>, now: Timestamp) -> Result<(), StoreError> {
    for key in change.keys(CURSORS_BY_TIME, &Range::of(b"").limit(CLEARED))? {
        let Some((time, id)) = key.split_at_checked(8) else { continue };
        if <[u8; 8]>::decode(time).map_or(0, u64::from_be_bytes) >= millis(now) {
            break;
        }
        if change.get(CURSORS, id)?.is_some_and(|row| row.expires_at < now) {
            change.remove(CURSORS, id);
        }
        change.remove(CURSORS_BY_TIME, &key);
    }
    Ok(())
}

fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.millis()).unwrap_or(0)
}

fn time_key(at: Timestamp, id: &[u8; 9]) -> Vec<u8> {
    [&millis(at).to_be_bytes()[..], id].concat()
}

fn read_page(
    view: &View<'_>,
    patient: PatientKey,
    patient_id: &str,
    query: &PageQuery,
    now: Timestamp,
    most: usize,
) -> Result<Found, CursorError> {
    let floor = query.since.map(floor_of);
    let (backwards, at) = match &query.position {
        Position::First => (false, None),
        Position::After(cursor) => (false, Some(resolve(view, patient, query, cursor, now)?)),
        Position::Before(cursor) => (true, Some(resolve(view, patient, query, cursor, now)?)),
    };
    let prefix = patient.to_bytes();
    let start = if backwards { at } else { at.max(floor) };
    let beyond = start.map(|position| order_key(patient, position));
    let range = Range::of(&prefix).beyond(beyond).limit(most);
    let range = if backwards { range.descending() } else { range };

    let mut hits = Vec::new();
    let mut more = false;
    let (mut looked_at, mut edge) = (0, None);
    view.each(RECORD_ORDER, &range, |key, entry| {
        looked_at += 1;
        let Some(position) = position_of(key) else { return Ok(true) };
        edge = Some(position);
        if backwards && floor.is_some_and(|floor| position <= floor) {
            edge = None;
            return Ok(false);
        }
        if query.wants(&entry.resource_type) {
            if hits.len() == query.count {
                more = true;
                return Ok(false);
            }
            hits.push((position, entry.record));
        }
        Ok(true)
    })?;
    // Not the end, only as far as one page looks: a short or even empty page that says where to go on. Taking it for the
    // end would silently leave records out.
    let mut edge = edge.filter(|_| looked_at == most && !more);
    more |= edge.is_some();
    let mut sources = Sources::default();
    let mut records = Vec::with_capacity(hits.len());
    let mut bytes = 0;
    let mut read = 0;
    for (_, key) in &hits {
        if bytes > MOST_PAGE_BYTES {
            (more, edge) = (true, None);
            break;
        }
        read += 1;
        let Some(record) = view.get(RECORDS, key)? else { continue };
        bytes += record.json.len();
        let source = sources.of(view, key)?;
        let is_patient = record.resource_type == "Patient";
        let Some(text) = raw(record.json) else { return Err(StoreError::Damaged("records.v1").into()) };
        let resource = if is_patient { with_patient_id(&text, patient_id).unwrap_or(text) } else { text };
        records.push(PageRecord { source, resource });
    }
    hits.truncate(read);
    if backwards {
        hits.reverse();
        records.reverse();
    }
    let (mut first, mut last) = (hits.first().map(|hit| hit.0), hits.last().map(|hit| hit.0));
    if edge.is_some() && backwards {
        (first, last) = (edge, last.or(edge));
    } else if edge.is_some() {
        (first, last) = (first.or(edge), edge);
    }
    Ok(Found {
        records,
        first,
        last,
        more_after: if backwards { first.is_some() } else { more },
        more_before: if backwards { more } else { at.is_some() && first.is_some() },
    })
}

fn resolve(
    view: &View<'_>,
    patient: PatientKey,
    query: &PageQuery,
    cursor: &str,
    now: Timestamp,
) -> Result<u64, CursorError> {
    let id: [u8; 9] =
        from_base64url(cursor).and_then(|bytes| bytes.try_into().ok()).ok_or(CursorError::Unknown)?;
    let row = view.get(CURSORS, &id)?.ok_or(CursorError::Unknown)?;
    let good = row.patient == patient && row.filter == query.filter() && row.expires_at > now;
    if good { Ok(row.position) } else { Err(CursorError::Unknown) }
}

/// Which source each connection of a page belongs to, looked up once.
#[derive(Default)]
pub(super) struct Sources(Vec<(ConnectionId, Option<SourceId>)>);

impl Sources {
    pub(super) fn of(
        &mut self,
        view: &View<'_>,
        record_key: &[u8; 32],
    ) -> Result<Option<SourceId>, StoreError> {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&record_key[..16]);
        let connection = ConnectionId::from_bytes(bytes);
        if let Some((_, source)) = self.0.iter().find(|(known, _)| *known == connection) {
            return Ok(*source);
        }
        let source = Connection::find(view, connection)?.map(|found| found.source);
        self.0.push((connection, source));
        Ok(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Random;
    use crate::records::stored::OrderEntry;
    use crate::store::{MasterKey, Opening, Store};

    fn store(folder: &tempfile::TempDir) -> Store {
        let random = Random::seeded(1);
        let opening = Opening {
            path: folder.path().join("records.redb"),
            master_key: MasterKey::generate(&random),
            cache_bytes: 1 << 20,
            create: true,
        };
        Store::open(&opening, random).expect("a store")
    }

    #[tokio::test]
    async fn a_page_that_looked_far_enough_says_where_to_go_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(&folder);
        let now = Timestamp::from_seconds(1_000);
        let patient: PatientKey = Random::seeded(2).id(now);
        let cursor = |position: u64| CursorRow {
            patient,
            filter: query(Position::First).filter(),
            position,
            expires_at: now.after(CURSOR_LIFE),
        };
        let rows = [cursor(4), cursor(7)];
        store
            .write(move |change| {
                for position in 1..=10_u64 {
                    let resource_type = if position == 10 { "Goal" } else { "Device" }.to_owned();
                    let entry = OrderEntry { record: [0; 32], resource_type };
                    change.put(RECORD_ORDER, &order_key(patient, position), &entry);
                }
                for row in &rows {
                    let name = [u8::try_from(row.position).unwrap_or(0); 9];
                    change.put(CURSORS, &name, row);
                }
                Ok::<_, StoreError>(())
            })
            .await
            .expect("written");
        let named = |position: u8| base64url(&[position; 9]);
        let check = |position: Position, most: usize, expected: (Option<u64>, Option<u64>, bool, bool)| {
            let found =
                store.read_now(|view| read_page(view, patient, "amy-7", &query(position.clone()), now, most));
            let found = found.expect("a page");
            let seen = (found.first, found.last, found.more_before, found.more_after);
            assert_eq!(seen, expected, "{position:?} {most}");
        };
        check(Position::First, 4, (Some(4), Some(4), false, true));
        check(Position::After(named(4)), 4, (Some(8), Some(8), true, true));
        check(Position::After(named(7)), 4, (Some(10), Some(10), true, false));
        check(Position::Before(named(7)), 4, (Some(3), Some(3), true, true));
        check(Position::Before(named(4)), 4, (None, None, false, false));
    }

    fn query(position: Position) -> PageQuery {
        PageQuery { types: vec!["Goal".to_owned()], since: None, position, count: 5 }
    }
}
