//! Reading the lists of FHIR servers that vendors publish, whatever their form: the form is told by the content, never by
//! a file's name or address. Knows nothing of the store, and never calls an address that a list names.
//!
//! A list is read as a stream and what is kept of it is bounded: bytes in all and in one row, rows, and text. A row that
//! cannot be used is counted with its reason and ends nothing.

mod bundle;
mod collect;
mod flat;
mod read;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::directory::entries::DirectoryEntry;

use collect::Collector;
use read::{Content, open};

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A FHIR Bundle of Endpoints and Organizations, in any of its ways to link them.
    Bundle,
    /// Rows of names and addresses in JSON.
    Rows,
    /// Rows of names and addresses with a header line.
    Csv,
}

impl fmt::Display for Form {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Bundle => "FHIR bundle",
            Self::Rows => "JSON rows",
            Self::Csv => "CSV",
        })
    }
}

/// Why a row was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Another version of FHIR, as the row or its address says.
    NotR4,
    /// Plain HTTP, or another scheme.
    NotHttps,
    /// Relative, empty, or no URL at all.
    NoUrl,
    /// A query in the address: requests cannot be built below it.
    Query,
    /// A user name, or a path that servers read in different ways.
    UnsafeUrl,
    /// Off, in error, entered in error, or for tests.
    NotActive,
    /// No FHIR REST endpoint.
    OtherConnection,
    /// An organization without an endpoint of its own or of a parent.
    NoEndpoint,
    /// Not an object, or one without any known member.
    NotUnderstood,
}

impl Refusal {
    /// In words for the operator.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotR4 => "not FHIR R4",
            Self::NotHttps => "not https",
            Self::NoUrl => "no absolute address",
            Self::Query => "a query in the address",
            Self::UnsafeUrl => "an unsafe address",
            Self::NotActive => "not active",
            Self::OtherConnection => "not a FHIR REST endpoint",
            Self::NoEndpoint => "an organization without endpoint or parent",
            Self::NotUnderstood => "not understood",
        }
    }
}

/// Why a list was not read. Nothing of it is used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Nothing in it at all.
    #[error("the list is empty (0 bytes)")]
    Empty,
    /// Something else than a list.
    #[error("this is not a list of FHIR servers: {0}")]
    NotAList(&'static str),
    /// It ends in the middle.
    #[error("the list ends in the middle: it was cut short on its way")]
    Truncated,
    /// Not the JSON, gzip or CSV that it began as.
    #[error("the list is damaged near line {0}")]
    Damaged(usize),
    /// More than is taken.
    #[error("the list is too large: {0}")]
    TooLarge(&'static str),
    /// The file or the network.
    #[error("the list could not be read: {0}")]
    Unreadable(String),
}

/// What is taken at most.
#[derive(Debug, Clone, Copy)]
pub struct ImportLimits {
    /// Bytes after unpacking.
    pub bytes: u64,
    /// Bytes of one row.
    pub row_bytes: u64,
    /// Rows.
    pub rows: usize,
    /// Bytes of text that are kept.
    pub text: usize,
}

impl Default for ImportLimits {
    /// Epic's list has 95 MB and 97,000 rows.
    fn default() -> Self {
        Self { bytes: 1 << 30, row_bytes: 4 << 20, rows: 1_000_000, text: 256 << 20 }
    }
}

/// A list as it was read.
#[derive(Debug)]
pub struct ReadList {
    /// Its form.
    pub form: Form,
    /// Rows, or resources of a bundle that could have become entries.
    pub rows: usize,
    /// The entries, each key once.
    pub entries: Vec<DirectoryEntry>,
    /// Rows that say the same as one before them.
    pub doubled: usize,
    /// Rows that were not taken.
    pub refused: BTreeMap<Refusal, usize>,
    /// How many entries the list says it has, where that is not so.
    pub announced: Option<u64>,
    /// SHA-256 of what was read, unpacked.
    pub content: [u8; 32],
}

/// Reads a list to its end.
pub fn read_list(reader: impl Read, limits: ImportLimits) -> Result<ReadList, ImportError> {
    let (content, watch) = open(reader, limits)?;
    let mut collector = Collector::new(limits);
    let read = match content {
        Content::Json(reader) => read::json(reader, &watch, &mut collector),
        Content::Text(reader) => table::read(reader, &watch, &mut collector),
    };
    // What the watch over the bytes noticed explains whatever the parser made of it.
    let (form, announced) = read.map_err(|error| watch.trouble().unwrap_or(error))?;
    let content = watch.digest();
    Ok(collector.finish(form, announced, content))
}

#[cfg(test)]
mod tests;
