//! How records are kept: the newest version of each resource, and one index that is both the order of changes and the
//! answer to "changed since".

use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::crypto::sha256;
use crate::id::{ConnectionId, Id as _, PatientKey};
use crate::records::bundle::Incoming;
use crate::records::packing;
use crate::store::{Change, Range, Reader, StoreError, Table, Value, Vault};

/// Records under connection id and a digest of type and id.
pub(super) const RECORDS: Table<StoredRecord> = Table::new("records.v1");
/// Under patient and position: what changed, in the order in which the store noticed.
pub(super) const RECORD_ORDER: Table<OrderEntry> = Table::new("record_order.v1");

/// Records that their source showed earlier and no longer does, and since when; they are kept. Under the record's key.
pub(super) const RECORDS_GONE: Table<Timestamp> = Table::new("records_gone.v1");

/// One FHIR resource as last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// `resourceType`
    pub resource_type: String,
    /// The source's own id.
    pub id: String,
    /// When the store noticed this version: microseconds since 1970, unique and rising within a patient.
    pub position: u64,
    /// The first half of the SHA-256 of the text, to tell a change from a repetition.
    pub digest: [u8; 16],
    /// The resource's text.
    pub json: String,
}

/// The first byte of a record on disk. Those of the first format have none: they begin with the position, whose first
/// byte is nought for the next two thousand years.
const UNMARKED: u8 = 0;
const PLAIN: u8 = 1;
/// Packed with the first dictionary.
const PACKED: u8 = 2;

impl Value for StoredRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        let packed = packing::pack(self.json.as_bytes());
        out.push(if packed.is_some() { PACKED } else { PLAIN });
        out.extend_from_slice(&self.position.to_be_bytes());
        out.extend_from_slice(&self.digest);
        put_text(out, &self.resource_type);
        put_text(out, &self.id);
        out.extend_from_slice(packed.as_deref().unwrap_or(self.json.as_bytes()));
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let format = *bytes.first()?;
        let bytes = if format == UNMARKED { bytes } else { &bytes[1..] };
        let (position, rest) = bytes.split_at_checked(8)?;
        let (digest, rest) = rest.split_at_checked(16)?;
        let (resource_type, rest) = take_text(rest)?;
        let (id, rest) = take_text(rest)?;
        Some(Self {
            resource_type,
            id,
            position: u64::from_be_bytes(position.try_into().ok()?),
            digest: digest.try_into().ok()?,
            json: String::from_utf8(body(format, rest)?).ok()?,
        })
    }
}

fn body(format: u8, rest: &[u8]) -> Option<Vec<u8>> {
    match format {
        UNMARKED | PLAIN => Some(rest.to_vec()),
        PACKED => packing::unpack(rest),
        _ => None,
    }
}

/// Where a position's record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OrderEntry {
    pub(super) record: [u8; 32],
    pub(super) resource_type: String,
}

impl Value for OrderEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.record);
        out.extend_from_slice(self.resource_type.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (record, kind) = bytes.split_at_checked(32)?;
        Some(Self { record: record.try_into().ok()?, resource_type: String::from_utf8(kind.to_vec()).ok()? })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Types and ids were bounded when they were read.
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take_text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_at_checked(2)?;
    let length = u16::from_be_bytes(length.try_into().ok()?);
    let (text, rest) = rest.split_at_checked(usize::from(length))?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

/// What became of a resource that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// It was not there before.
    New,
    /// It has other text than before.
    Changed,
    /// It is there, word for word.
    Same,
}

/// Keeps a page of resources, each with the digest of its name, as part of a write. An unchanged one is left as it is; a
/// changed one gets a new position. Says what became of each. `marked`: some records of the connection are marked as gone,
/// and what has come back is so no longer.
pub(super) fn keep(
    change: &mut Change<'_>,
    patient: PatientKey,
    connection: ConnectionId,
    now: Timestamp,
    incoming: Vec<([u8; 16], Incoming)>,
    marked: bool,
) -> Result<Vec<Kept>, StoreError> {
    let prefix = patient.to_bytes();
    let last = change.keys(RECORD_ORDER, &Range::of(&prefix).descending().limit(1))?;
    let last = last.first().and_then(|key| position_of(key)).unwrap_or(0);
    // Positions are times, so that "since" is a range; two in one microsecond, or a clock set back, just count on.
    let mut next = u64::try_from(now.millis()).unwrap_or(0).saturating_mul(1000).max(last + 1);
    let mut kept = Vec::with_capacity(incoming.len());
    for (name, resource) in incoming {
        let key = record_key(connection, name);
        let json = String::from(Box::<str>::from(resource.json));
        let mut digest = [0; 16];
        digest.copy_from_slice(&sha256(json.as_bytes())[..16]);
        if marked {
            change.remove(RECORDS_GONE, &key);
        }
        let old = change.get(RECORDS, &key)?;
        if let Some(old) = &old {
            if old.digest == digest {
                kept.push(Kept::Same);
                continue;
            }
            change.remove(RECORD_ORDER, &order_key(patient, old.position));
        }
        let entry = OrderEntry { record: key, resource_type: resource.resource_type.clone() };
        change.put(RECORD_ORDER, &order_key(patient, next), &entry);
        let record = StoredRecord {
            resource_type: resource.resource_type,
            id: resource.id,
            position: next,
            digest,
            json,
        };
        change.put(RECORDS, &key, &record);
        next += 1;
        kept.push(if old.is_some() { Kept::Changed } else { Kept::New });
    }
    Ok(kept)
}

/// A digest of a record's name within its connection.
pub(super) fn name_digest(vault: &Vault, resource_type: &str, id: &str) -> [u8; 16] {
    vault.digest(&[b"record", resource_type.as_bytes(), id.as_bytes()])
}

/// Whether a record of this name is kept.
pub(super) fn is_kept(
    reader: &impl Reader,
    connection: ConnectionId,
    name: [u8; 16],
) -> Result<bool, StoreError> {
    reader.has(RECORDS, &record_key(connection, name))
}

/// One record by its own id.
pub(super) fn find(
    reader: &impl Reader,
    connection: ConnectionId,
    resource_type: &str,
    id: &str,
) -> Result<Option<StoredRecord>, StoreError> {
    reader.get(RECORDS, &record_key(connection, name_digest(reader.vault(), resource_type, id)))
}

/// Removes all records of a patient, as part of the patient's erasure.
pub(super) fn erase(change: &mut Change<'_>, patient: PatientKey) -> Result<(), StoreError> {
    let prefix = patient.to_bytes();
    for (key, entry) in change.rows(RECORD_ORDER, &Range::of(&prefix))? {
        change.remove(RECORDS, &entry.record);
        change.remove(RECORDS_GONE, &entry.record);
        change.remove(RECORD_ORDER, &key);
    }
    Ok(())
}

/// Whether anything of a connection is kept.
pub(super) fn has_any(reader: &impl Reader, connection: ConnectionId) -> Result<bool, StoreError> {
    let prefix = connection.to_bytes();
    Ok(!reader.keys(RECORDS, &Range::of(&prefix).limit(1))?.is_empty())
}

/// Removes some records of a connection; says how many.
pub(super) fn erase_some(
    change: &mut Change<'_>,
    patient: PatientKey,
    connection: ConnectionId,
    most: usize,
) -> Result<usize, StoreError> {
    let prefix = connection.to_bytes();
    let rows = change.rows(RECORDS, &Range::of(&prefix).limit(most))?;
    for (key, record) in &rows {
        change.remove(RECORD_ORDER, &order_key(patient, record.position));
        change.remove(RECORDS_GONE, key);
        change.remove(RECORDS, key);
    }
    Ok(rows.len())
}

pub(super) fn order_key(patient: PatientKey, position: u64) -> Vec<u8> {
    [patient.to_bytes().as_slice(), &position.to_be_bytes()].concat()
}

pub(super) fn position_of(order_key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(order_key.get(16..)?.try_into().ok()?))
}

pub(super) fn record_key(connection: ConnectionId, name: [u8; 16]) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&connection.to_bytes());
    key[16..].copy_from_slice(&name);
    key
}

/// A record's text, ready to be put into an answer.
pub(super) fn raw(json: String) -> Option<Box<RawValue>> {
    RawValue::from_string(json).ok()
}

/// Puts a record at a position, for tests of the rooms below.
#[cfg(test)]
pub(crate) fn put_at(
    change: &mut Change<'_>,
    patient: PatientKey,
    connection: ConnectionId,
    position: u64,
    (resource_type, id, json): (&str, &str, &str),
) {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&connection.to_bytes());
    key[16..].copy_from_slice(&change.vault().digest(&[resource_type.as_bytes(), id.as_bytes()]));
    let (resource_type, id, json) = (resource_type.to_owned(), id.to_owned(), json.to_owned());
    let entry = OrderEntry { record: key, resource_type: resource_type.clone() };
    if let Ok(Some(old)) = change.get(RECORDS, &key) {
        change.remove(RECORD_ORDER, &order_key(patient, old.position));
    }
    change.put(RECORD_ORDER, &order_key(patient, position), &entry);
    change.put(RECORDS, &key, &StoredRecord { resource_type, id, position, digest: [0; 16], json });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(json: &str) -> StoredRecord {
        StoredRecord {
            resource_type: "Observation".to_owned(),
            id: "o-7".to_owned(),
            position: 1_793_607_165_000_000,
            digest: [7; 16],
            json: json.to_owned(),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_packed_or_not() {
        for (json, format) in
            [("{\"a\":1.10}".to_owned(), PLAIN), (format!("[{}]", "1.10,".repeat(99)), PACKED)]
        {
            let record = record(&json);
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            assert_eq!((bytes[0], StoredRecord::decode(&bytes)), (format, Some(record)));
            bytes[0] = 3;
            assert_eq!(StoredRecord::decode(&bytes), None, "a format of a later program");
        }
    }

    #[test]
    fn a_record_of_the_first_format_is_still_read() {
        let record = record("{\"a\":1.10}");
        let mut bytes = record.position.to_be_bytes().to_vec();
        bytes.extend_from_slice(&record.digest);
        bytes.extend_from_slice(b"\x00\x0bObservation\x00\x03o-7{\"a\":1.10}");
        assert_eq!(StoredRecord::decode(&bytes), Some(record));
        assert_eq!(StoredRecord::decode(&[]), None);
    }
}
