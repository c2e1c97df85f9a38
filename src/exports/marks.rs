//! How far each patient's records have been exported. A mark holds two places, because a run that has lost its file begins
//! anew: where the patient stood before the run, and where after it.

use crate::exports::ExportRun;
use crate::id::{Id as _, PatientKey};
use crate::store::{Change, Reader, StoreError, Table, Value};

/// Under the export and the patient.
pub(super) const MARKS: Table<Mark> = Table::new("export_marks.v1");

/// The place of one patient in one export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    run: u64,
    attempt: u32,
    before: u64,
    after: u64,
}

impl Value for Mark {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.run.to_be_bytes());
        out.extend_from_slice(&self.attempt.to_be_bytes());
        out.extend_from_slice(&self.before.to_be_bytes());
        out.extend_from_slice(&self.after.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 28] = bytes.try_into().ok()?;
        let number = |at: usize| bytes[at..at + 8].try_into().ok().map(u64::from_be_bytes);
        let attempt = u32::from_be_bytes(bytes[8..12].try_into().ok()?);
        Some(Self { run: number(0)?, attempt, before: number(12)?, after: number(20)? })
    }
}

impl Mark {
    /// Where a run goes on with a patient who has this mark.
    fn start(mark: Option<Self>, run: &ExportRun) -> u64 {
        match mark {
            Some(mark) if mark.run == run.number && mark.attempt == run.attempt => mark.after,
            _ => Self::base(mark, run),
        }
    }

    /// Where the run found the patient.
    fn base(mark: Option<Self>, run: &ExportRun) -> u64 {
        match mark {
            _ if run.full => 0,
            Some(mark) if mark.run < run.number => mark.after,
            Some(mark) => mark.before,
            None => 0,
        }
    }
}

/// Where a run goes on with a patient.
pub(super) fn start(
    reader: &impl Reader,
    export: [u8; 16],
    patient: PatientKey,
    run: &ExportRun,
) -> Result<u64, StoreError> {
    Ok(Mark::start(reader.get(MARKS, &key(export, patient))?, run))
}

/// Notes that a run has a patient's records up to a place.
pub(super) fn put(
    change: &mut Change<'_>,
    export: [u8; 16],
    patient: PatientKey,
    run: &ExportRun,
    after: u64,
) -> Result<(), StoreError> {
    let key = key(export, patient);
    let before = Mark::base(change.get(MARKS, &key)?, run);
    change.put(MARKS, &key, &Mark { run: run.number, attempt: run.attempt, before, after });
    Ok(())
}

fn key(export: [u8; 16], patient: PatientKey) -> Vec<u8> {
    [export, patient.to_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::exports::RunState;

    fn run(number: u64, attempt: u32, full: bool) -> ExportRun {
        ExportRun {
            number,
            full,
            state: RunState::Running,
            started_at: Timestamp::from_seconds(1),
            finished_at: None,
            expected: 0,
            patients: 0,
            records: 0,
            bytes: 0,
            file: String::new(),
            failures: 0,
            trouble: None,
            attempt,
            cursor: None,
        }
    }

    #[test]
    fn a_run_goes_on_where_it_was_and_a_new_one_where_the_last_one_ended() {
        let mark = Mark { run: 3, attempt: 1, before: 10, after: 25 };
        let check = |mark: Option<Mark>, run: ExportRun, expected: u64| {
            assert_eq!(Mark::start(mark, &run), expected, "{run:?}");
        };
        check(None, run(1, 0, true), 0);
        check(None, run(7, 0, false), 0);
        check(Some(mark), run(3, 1, false), 25);
        check(Some(mark), run(3, 2, false), 10);
        check(Some(mark), run(4, 0, false), 25);
        check(Some(mark), run(4, 0, true), 0);
        check(Some(mark), run(3, 1, true), 25);
        check(Some(mark), run(3, 2, true), 0);
        let mut bytes = Vec::new();
        mark.encode(&mut bytes);
        assert_eq!((Mark::decode(&bytes), Mark::decode(&bytes[1..])), (Some(mark), None));
    }
}
