//! Names of things: prefixed ULIDs of the wire contract, and reference codes that people read to each other.

use std::fmt;

use serde::{Deserialize, Serialize};
use ulid::Ulid;
use uuid::Uuid;

use crate::clock::Timestamp;

/// A text that is not an id of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid id")]
pub struct BadId;

/// A kind of id: sixteen bytes whose first six are the time it was made, so that byte order is order of creation.
pub trait Id: Copy + fmt::Display + Sized {
    /// Makes an id from the time and ten random bytes.
    fn from_parts(now: Timestamp, random: [u8; 10]) -> Self;
    /// The sixteen bytes, used as keys in the store.
    fn to_bytes(self) -> [u8; 16];
    /// The inverse of [`Id::to_bytes`].
    fn from_bytes(bytes: [u8; 16]) -> Self;
    /// Reads the text form, prefix included.
    fn parse(text: &str) -> Result<Self, BadId>;
}

macro_rules! id_type {
    ($(#[$about:meta])* $name:ident, $prefix:literal) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl Id for $name {
            fn from_parts(now: Timestamp, random: [u8; 10]) -> Self {
                let mut wide = [0_u8; 16];
                wide[6..].copy_from_slice(&random);
                let millis = u64::try_from(now.millis()).unwrap_or(0);
                Self(Ulid::from_parts(millis, u128::from_be_bytes(wide)))
            }

            fn to_bytes(self) -> [u8; 16] {
                self.0.0.to_be_bytes()
            }

            fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Ulid(u128::from_be_bytes(bytes)))
            }

            fn parse(text: &str) -> Result<Self, BadId> {
                let rest = text.strip_prefix($prefix).ok_or(BadId)?;
                // Crockford's alphabet is case-insensitive; an id of ours has one spelling only.
                if rest.bytes().any(|byte| byte.is_ascii_lowercase()) {
                    return Err(BadId);
                }
                Ulid::from_string(rest).map(Self).map_err(|_| BadId)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, concat!($prefix, "{}"), self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id_type!(
    /// A FHIR base URL we can connect to. The wire contract calls it `connection_id`.
    SourceId, "fhirsrc_");
id_type!(
    /// One registration of ours at a vendor.
    EhrClientId, "ehrc_");
id_type!(
    /// One browser journey of one patient.
    PatientSessionId, "ps_");
id_type!(
    /// One patient's link to one source.
    ConnectionId, "conn_");
id_type!(
    /// One run that reads a connection's records.
    PullId, "pull_");
id_type!(
    /// Where a workspace wants its events posted to.
    WebhookEndpointId, "wh_");
id_type!(
    /// One event for one webhook endpoint.
    EventId, "evt_");
id_type!(
    /// What a patient said is missing in the directory.
    SourceRequestId, "srcreq_");
id_type!(
    /// An owner of patients, keys and records.
    WorkspaceId, "ws_");
id_type!(
    /// An API key's name for people; the key itself is a secret.
    ApiKeyId, "key_");
id_type!(
    /// Our own number for a patient, never shown: the caller's `patient_id` stays out of keys on disk.
    PatientKey, "pat_");

/// The context of one launch from inside an EHR: on the wire a bare UUID, the value of `mb_launch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaunchContextId(Uuid);

impl LaunchContextId {
    /// Makes an id of sixteen random bytes.
    pub fn from_random(random: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(random).into_uuid())
    }

    /// Reads the usual spelling, in either case; the others that a UUID can have are not ours.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        let id = Uuid::try_parse(text).map(Self).map_err(|_| BadId)?;
        if id.to_string().eq_ignore_ascii_case(text) { Ok(id) } else { Err(BadId) }
    }

    /// The sixteen bytes, used in keys of the store.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }
}

impl fmt::Display for LaunchContextId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

impl Serialize for LaunchContextId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LaunchContextId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A code that a patient can read out over a phone, such as `K7QF-2M9D`; the same code is on the staff's text and in
/// the log line. The alphabet has no 0/O and no 1/I.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReferenceCode([u8; 8]);

const REFERENCE_ALPHABET: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";

impl ReferenceCode {
    /// Makes a code of eight random bytes.
    pub fn from_random(random: [u8; 8]) -> Self {
        Self(random.map(|byte| REFERENCE_ALPHABET[usize::from(byte & 31)]))
    }

    /// Reads a code as people type it: any case, dash and blanks optional.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        let letters: Vec<u8> = text
            .bytes()
            .filter(|byte| !matches!(byte, b'-' | b' '))
            .map(|byte| byte.to_ascii_uppercase())
            .collect();
        if letters.iter().any(|letter| !REFERENCE_ALPHABET.contains(letter)) {
            return Err(BadId);
        }
        letters.try_into().map(Self).map_err(|_| BadId)
    }

    /// The eight characters, without the dash: the key under which an incident is stored.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for ReferenceCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.0);
        write!(out, "{}-{}", &text[..4], &text[4..])
    }
}

impl Serialize for ReferenceCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReferenceCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_keep_their_kind_apart() {
        let id = SourceId::from_parts(Timestamp::from_seconds(1_793_607_165), [7; 10]);
        let text = id.to_string();
        assert_eq!(text.len(), "fhirsrc_".len() + 26);
        assert_eq!(SourceId::parse(&text), Ok(id));
        assert_eq!(SourceId::from_bytes(id.to_bytes()), id);
        assert_eq!(ConnectionId::parse(&text), Err(BadId));
        assert_eq!(SourceId::parse(&text.to_lowercase()), Err(BadId));
    }

    #[test]
    fn ids_sort_by_the_time_they_were_made() {
        let early = ConnectionId::from_parts(Timestamp::from_millis(1_000), [255; 10]);
        let late = ConnectionId::from_parts(Timestamp::from_millis(1_001), [0; 10]);
        assert!(early.to_bytes() < late.to_bytes());
    }

    #[test]
    fn a_launch_context_id_has_one_spelling() {
        let id = LaunchContextId::from_random([9; 16]);
        let text = id.to_string();
        assert_eq!(LaunchContextId::parse(&text), Ok(id));
        assert_eq!(LaunchContextId::parse(&text.to_uppercase()), Ok(id));
        for other in ["", "1", &text.replace('-', ""), &format!("{{{text}}}"), &format!("urn:uuid:{text}")] {
            assert_eq!(LaunchContextId::parse(other), Err(BadId), "{other}");
        }
    }

    #[test]
    fn a_reference_code_survives_being_read_out() {
        let code = ReferenceCode::from_random([1, 2, 3, 4, 5, 6, 7, 250]);
        let text = code.to_string();
        assert_eq!(text.len(), 9);
        assert_eq!(ReferenceCode::parse(&text.to_lowercase().replace('-', " ")), Ok(code));
        assert_eq!(ReferenceCode::parse("K7QF-2M90"), Err(BadId));
    }
}
