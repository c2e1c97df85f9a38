//! The bytes of a list: unpacking, limits, digest, and the walk through its JSON, one row in memory at a time.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::bundle::Bundle;
use super::collect::Collector;
use super::{Form, ImportError, ImportLimits, Refusal, flat};
use crate::crypto::Digester;

/// A list's bytes, by what they begin like.
pub(super) enum Content<R: Read> {
    Json(BufReader<Watched<Unpacked<R>>>),
    Text(BufReader<Watched<Unpacked<R>>>),
}

/// Packed or not.
pub(super) enum Unpacked<R: Read> {
    Plain(BufReader<R>),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(into),
            Self::Gzip(reader) => reader.read(into),
        }
    }
}

/// Looks over a reader's shoulder.
#[derive(Clone)]
pub(super) struct Watch(Rc<RefCell<Seen>>);

struct Seen {
    limits: ImportLimits,
    bytes: u64,
    since_row: u64,
    digester: Digester,
    trouble: Option<ImportError>,
}

impl Watch {
    /// A row has ended: the next one may be as long again.
    pub(super) fn row(&self) {
        self.0.borrow_mut().since_row = 0;
    }

    pub(super) fn trouble(&self) -> Option<ImportError> {
        self.0.borrow().trouble.clone()
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        self.0.borrow().digester.clone().finish()
    }

    fn note(&self, trouble: ImportError) -> io::Error {
        self.0.borrow_mut().trouble.get_or_insert(trouble);
        io::Error::other("stopped")
    }
}

/// Counts and digests what passes, and stops at the limits.
pub(super) struct Watched<R> {
    inner: R,
    watch: Watch,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into).map_err(|error| {
            let damaged = [io::ErrorKind::InvalidInput, io::ErrorKind::InvalidData];
            self.watch.note(if error.kind() == io::ErrorKind::UnexpectedEof {
                ImportError::Truncated
            } else if damaged.contains(&error.kind()) {
                ImportError::Damaged(0)
            } else {
                ImportError::Unreadable(error.to_string())
            })
        })?;
        let over = {
            let mut seen = self.watch.0.borrow_mut();
            seen.bytes += count as u64;
            seen.since_row += count as u64;
            seen.digester.update(&into[..count]);
            if seen.bytes > seen.limits.bytes {
                Some("too many bytes")
            } else if seen.since_row > seen.limits.row_bytes {
                Some("too many bytes in one row")
            } else {
                None
            }
        };
        match over {
            Some(what) => Err(self.watch.note(ImportError::TooLarge(what))),
            None => Ok(count),
        }
    }
}

/// Unpacks, skips a byte order mark, and tells JSON from other text.
pub(super) fn open<R: Read>(reader: R, limits: ImportLimits) -> Result<(Content<R>, Watch), ImportError> {
    let unreadable = |error: io::Error| ImportError::Unreadable(error.to_string());
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    let packed = reader.fill_buf().map_err(unreadable)?.starts_with(&[0x1f, 0x8b]);
    let unpacked =
        if packed { Unpacked::Gzip(Box::new(MultiGzDecoder::new(reader))) } else { Unpacked::Plain(reader) };
    let watch = Watch(Rc::new(RefCell::new(Seen {
        limits,
        bytes: 0,
        since_row: 0,
        digester: Digester::default(),
        trouble: None,
    })));
    let watched = Watched { inner: unpacked, watch: watch.clone() };
    let mut reader = BufReader::with_capacity(64 << 10, watched);
    let failed = |error: io::Error| watch.trouble().unwrap_or_else(|| unreadable(error));
    if reader.fill_buf().map_err(failed)?.starts_with(&[0xef, 0xbb, 0xbf]) {
        reader.consume(3);
    }
    loop {
        let seen = reader.fill_buf().map_err(failed)?;
        if seen.is_empty() {
            return Err(ImportError::Empty);
        }
        let blank = seen.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let first = seen.get(blank).copied();
        let is_utf16 = seen.starts_with(&[0xff, 0xfe]) || seen.starts_with(&[0xfe, 0xff]);
        match first {
            None => reader.consume(blank),
            _ if is_utf16 => return Err(ImportError::NotAList("it is UTF-16; save it as UTF-8")),
            Some(b'{' | b'[') => return Ok((Content::Json(reader), watch)),
            Some(b'<') => return Err(ImportError::NotAList("it is a web page or XML")),
            Some(b'P') if seen[blank..].starts_with(b"PK\x03\x04") => {
                return Err(ImportError::NotAList(
                    "it is a zip archive or a spreadsheet; unpack it, or save it as CSV",
                ));
            }
            Some(_) => return Ok((Content::Text(reader), watch)),
        }
    }
}

/// Reads a JSON document row by row.
pub(super) fn json(
    reader: impl BufRead,
    watch: &Watch,
    collector: &mut Collector,
) -> Result<(Form, Option<u64>), ImportError> {
    let mut document = Document { watch, collector, bundle: Bundle::default(), failed: None };
    let mut parser = serde_json::Deserializer::from_reader(reader);
    let head = Top(&mut document).deserialize(&mut parser).and_then(|head| parser.end().map(|()| head));
    let Document { bundle, failed, .. } = document;
    if let Some(failed) = failed {
        return Err(failed);
    }
    let head = head.map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => ImportError::Truncated,
        serde_json::error::Category::Io => ImportError::Unreadable(error.to_string()),
        serde_json::error::Category::Syntax | serde_json::error::Category::Data => {
            ImportError::Damaged(error.line())
        }
    })?;
    match (head.entries, head.rows, head.resource) {
        (Some(entries), None, Some(true)) => {
            bundle.finish(collector)?;
            Ok((Form::Bundle, head.total.filter(|total| *total != entries)))
        }
        (None, Some(_), None | Some(true)) => Ok((Form::Rows, None)),
        (_, _, Some(false)) => Err(ImportError::NotAList("it is a FHIR resource, but not a Bundle")),
        (None, None, _) => Err(ImportError::NotAList("it has neither `entry` nor `Endpoints`")),
        (Some(_), ..) => Err(ImportError::NotAList("it has an `entry`, but is not a FHIR Bundle")),
    }
}

struct Document<'d> {
    watch: &'d Watch,
    collector: &'d mut Collector,
    bundle: Bundle,
    failed: Option<ImportError>,
}

impl Document<'_> {
    fn fail<E: serde::de::Error>(&mut self, error: ImportError) -> E {
        self.failed.get_or_insert(error);
        E::custom("stopped")
    }
}

/// What the outermost object said.
#[derive(Default)]
struct Head {
    /// Whether it is a Bundle, if it says what it is.
    resource: Option<bool>,
    total: Option<u64>,
    entries: Option<u64>,
    rows: Option<u64>,
}

struct Top<'t, 'd>(&'t mut Document<'d>);

impl<'de> DeserializeSeed<'de> for Top<'_, '_> {
    type Value = Head;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Head, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Top<'_, '_> {
    type Value = Head;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object or an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Head, A::Error> {
        let rows = take_rows(self.0, &mut rows)?;
        Ok(Head { rows: Some(rows), ..Head::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Head, A::Error> {
        let mut head = Head::default();
        while let Some(name) = members.next_key::<String>()? {
            match name.as_str() {
                "resourceType" => {
                    let kind: Loose<String> = members.next_value()?;
                    head.resource = Some(kind.0 == "Bundle");
                }
                "total" => head.total = members.next_value::<Loose<Option<u64>>>()?.0,
                "entry" => head.entries = Some(members.next_value_seed(Rows(self.0, true))?),
                "Endpoints" | "endpoints" | "Entries" | "entries" => {
                    head.rows = Some(members.next_value_seed(Rows(self.0, false))?);
                }
                _ => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(head)
    }
}

/// An array of rows, or of a bundle's entries.
struct Rows<'t, 'd>(&'t mut Document<'d>, bool);

impl<'de> DeserializeSeed<'de> for Rows<'_, '_> {
    type Value = u64;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = u64;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<u64, A::Error> {
        if !self.1 {
            return take_rows(self.0, &mut rows);
        }
        let mut count = 0;
        while let Some(row) = rows.next_element::<Box<RawValue>>()? {
            count += 1;
            self.0.watch.row();
            if let Err(error) = self.0.bundle.take(row.get(), self.0.collector) {
                return Err(self.0.fail(error));
            }
        }
        Ok(count)
    }
}

fn take_rows<'de, A: SeqAccess<'de>>(document: &mut Document<'_>, rows: &mut A) -> Result<u64, A::Error> {
    let mut count = 0;
    while let Some(row) = rows.next_element::<Box<RawValue>>()? {
        count += 1;
        document.watch.row();
        let taken = match flat::row(row.get()) {
            Ok(Some(row)) => document.collector.take(&row.draft()),
            Ok(None) => {
                document.collector.refuse(Refusal::NotUnderstood);
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            return Err(document.fail(error));
        }
    }
    Ok(count)
}

/// A member that is taken when it has the expected shape and is as if absent when not: no member but the few that make
/// an entry may cost a row.
#[derive(Debug, Clone, Default)]
pub(super) struct Loose<T>(pub T);

impl<'de, T: serde::de::DeserializeOwned + Default> serde::Deserialize<'de> for Loose<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer).map_err(D::Error::custom)?;
        Ok(Self(serde_json::from_str(raw.get()).unwrap_or_default()))
    }
}
