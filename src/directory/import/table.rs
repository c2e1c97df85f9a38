//! CSV with a header line, as payers and states publish it.

use std::io::Read;

use csv::{ErrorKind, ReaderBuilder, StringRecord};

use super::collect::Collector;
use super::flat::{Column, FlatRow};
use super::read::Watch;
use super::{Form, ImportError};

/// Reads a CSV whose header names a column of addresses.
pub(super) fn read(
    reader: impl Read,
    watch: &Watch,
    collector: &mut Collector,
) -> Result<(Form, Option<u64>), ImportError> {
    let mut reader = ReaderBuilder::new().flexible(true).has_headers(false).from_reader(reader);
    let mut record = StringRecord::new();
    if !next(&mut reader, &mut record)? {
        return Err(ImportError::Empty);
    }
    let columns: Vec<Option<Column>> = record.iter().map(Column::named).collect();
    if !columns.contains(&Some(Column::Address)) {
        return Err(ImportError::NotAList(
            "it is text without a header line that names a column of FHIR base URLs, such as `name,fhir_base_url`",
        ));
    }
    while next(&mut reader, &mut record)? {
        watch.row();
        let mut row = FlatRow::default();
        for (column, text) in columns.iter().zip(record.iter()) {
            if let Some(column) = column {
                row.set(*column, text.trim());
            }
        }
        if row != FlatRow::default() {
            collector.take(&row.draft())?;
        }
    }
    Ok((Form::Csv, None))
}

fn next<R: Read>(reader: &mut csv::Reader<R>, record: &mut StringRecord) -> Result<bool, ImportError> {
    reader.read_record(record).map_err(|error| {
        let line = error.position().map_or(0, |position| usize::try_from(position.line()).unwrap_or(0));
        if let ErrorKind::Io(error) = error.into_kind() {
            ImportError::Unreadable(error.to_string())
        } else {
            ImportError::Damaged(line)
        }
    })
}
