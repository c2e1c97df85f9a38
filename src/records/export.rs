//! All records of a patient as lines of JSON, read piece by piece: the store is looked into for one piece at a time, so a
//! slow reader holds no snapshot open, which would make the file grow.

use crate::clock::Timestamp;
use crate::id::{Id as _, PatientKey, WorkspaceId};
use crate::records::Records;
use crate::records::queries::{Sources, floor_of, wants};
use crate::records::stored::{RECORD_ORDER, RECORDS, order_key, position_of, raw};
use crate::records::text::with_patient_id;
use crate::store::{Range, Reader, Store, StoreError, View};
use crate::workspaces::{Patient, Patients};

/// A piece is complete when it has as many bytes, or when so many entries were looked at.
const PIECE_BYTES: usize = 512 << 10;
const PIECE_ENTRIES: usize = 4096;

/// Which records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExportQuery {
    /// Only these types; empty means all.
    pub types: Vec<String>,
    /// Only what the store noticed after this instant.
    pub since: Option<Timestamp>,
}

/// Why an export ends before its end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExportError {
    /// The patient is no longer there.
    #[error("the patient was erased while the records were read")]
    Erased,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An export under way.
///
/// Pieces are read in the order of change, and a record that changes meanwhile moves to the end of it. So whatever was
/// there at the start is in the export; what changed while it was read may be in it twice, the newer one later.
#[derive(Debug)]
pub struct Export {
    store: Store,
    reading: Option<Reading>,
    position: Option<u64>,
}

#[derive(Debug)]
struct Reading {
    workspace: WorkspaceId,
    patient: PatientKey,
    patient_id: String,
    /// Whether each line names the patient.
    named: bool,
    types: Vec<String>,
    after: Option<u64>,
}

impl Records {
    /// Begins an export.
    pub fn export(&self, patient: Patient, query: ExportQuery) -> Export {
        let reading = Reading {
            workspace: patient.workspace,
            patient: patient.key,
            patient_id: patient.patient_id,
            named: false,
            types: query.types,
            after: query.since.map(floor_of),
        };
        Export { store: self.store.clone(), reading: Some(reading), position: None }
    }
}

/// Whether anything of a patient has changed after a position.
pub fn changed_after(reader: &impl Reader, patient: PatientKey, position: u64) -> Result<bool, StoreError> {
    let prefix = patient.to_bytes();
    let range = Range::of(&prefix).beyond(Some(order_key(patient, position))).limit(1);
    Ok(!reader.keys(RECORD_ORDER, &range)?.is_empty())
}

impl Export {
    /// Begins an export of what has changed after a position, of which each line names the patient:
    /// `{"patient_id":…,"source":…,"resource":…}`.
    pub fn after(store: Store, patient: Patient, position: u64) -> Self {
        let reading = Reading {
            workspace: patient.workspace,
            patient: patient.key,
            patient_id: patient.patient_id,
            named: true,
            types: Vec::new(),
            after: Some(position),
        };
        Self { store, reading: Some(reading), position: None }
    }

    /// The position of the last line so far.
    pub fn position(&self) -> Option<u64> {
        self.position
    }

    /// The next lines, each `{"source":…,"resource":…}`; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ExportError> {
        while let Some(mut reading) = self.reading.take() {
            let (piece, rest, position) = self
                .store
                .read(move |view| {
                    let (piece, more) = reading.piece(view)?;
                    let position = reading.after;
                    Ok::<_, ExportError>((piece, more.then_some(reading), position))
                })
                .await?;
            (self.reading, self.position) = (rest, position);
            // A piece may be empty because of its filter; an empty chunk would be no line and no end.
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

impl Reading {
    /// Lines from here on, and whether there may be more.
    fn piece(&mut self, view: &View<'_>) -> Result<(Vec<u8>, bool), ExportError> {
        if Patients::by_key(view, self.workspace, self.patient)?.is_none() {
            return Err(ExportError::Erased);
        }
        let prefix = self.patient.to_bytes();
        let beyond = self.after.map(|position| order_key(self.patient, position));
        let range = Range::of(&prefix).beyond(beyond).limit(PIECE_ENTRIES);
        let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        let mut sources = Sources::default();
        let mut more = false;
        view.each(RECORD_ORDER, &range, |key, entry| {
            let Some(position) = position_of(key) else { return Ok(true) };
            (self.after, more) = (Some(position), true);
            if wants(&self.types, &entry.resource_type) {
                self.put_line(&mut piece, view, &entry.record, &mut sources)?;
            }
            Ok(piece.len() < PIECE_BYTES)
        })?;
        Ok((piece, more))
    }

    fn put_line(
        &self,
        piece: &mut Vec<u8>,
        view: &View<'_>,
        key: &[u8; 32],
        sources: &mut Sources,
    ) -> Result<(), StoreError> {
        let Some(record) = view.get(RECORDS, key)? else { return Ok(()) };
        piece.push(b'{');
        if self.named {
            piece.extend_from_slice(b"\"patient_id\":");
            serde_json::to_writer(&mut *piece, &self.patient_id).expect("text, written to memory");
            piece.push(b',');
        }
        match sources.of(view, key)? {
            Some(source) => {
                piece.extend_from_slice(b"\"source\":\"");
                piece.extend_from_slice(source.to_string().as_bytes());
                piece.extend_from_slice(b"\",\"resource\":");
            }
            None => piece.extend_from_slice(b"\"source\":null,\"resource\":"),
        }
        if record.resource_type == "Patient" {
            let text = raw(record.json).ok_or(StoreError::Damaged("records.v1"))?;
            let marked = with_patient_id(&text, &self.patient_id).unwrap_or(text);
            put_on_one_line(piece, marked.get().as_bytes());
        } else {
            put_on_one_line(piece, record.json.as_bytes());
        }
        piece.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// Inside a JSON text a line break can only stand between its parts, so a blank says the same.
fn put_on_one_line(out: &mut Vec<u8>, json: &[u8]) {
    let start = out.len();
    out.extend_from_slice(json);
    // Without leaving early the search is one the compiler can do for many bytes at a time.
    if json.iter().filter(|byte| **byte < b' ').count() > 0 {
        for byte in &mut out[start..] {
            if *byte < b' ' {
                *byte = b' ';
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_however_it_was_written() {
        let mut line = b">".to_vec();
        put_on_one_line(&mut line, b"{\r\n\t\"a\": \"b\\n\"\n}");
        assert_eq!(String::from_utf8_lossy(&line), ">{   \"a\": \"b\\n\" }");
    }
}
