//! How the text of a record is packed before it is sealed: zstd with a dictionary of what FHIR resources have in common,
//! because a record is short and read by itself. What comes out is what went in, byte for byte.
//!
//! The dictionary was trained (`zstd --train`, 16 KiB) with the sandbox's synthetic records and with made-up ones in the
//! shapes of several vendors; it holds nobody's data. Records on disk can be read with the dictionary they were packed with
//! only: this one never changes, another one is another format.

use std::io;
use std::sync::{LazyLock, Mutex, PoisonError};

use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};

const DICTIONARY: &[u8] = include_bytes!("dictionary-1.zdict");
/// The fastest one: higher levels save two or three percent of such short texts.
const LEVEL: i32 = 1;
/// What claims to be longer is damaged: no page is.
const MOST: usize = 1 << 28;
/// Working memory, some 100 KB each, that is kept for the next record.
const SPARE: usize = 8;

/// Made of constants only, once, because making them takes longer than packing a hundred records.
static PACKING: LazyLock<EncoderDictionary<'static>> =
    LazyLock::new(|| EncoderDictionary::copy(DICTIONARY, LEVEL));
static UNPACKING: LazyLock<DecoderDictionary<'static>> =
    LazyLock::new(|| DecoderDictionary::copy(DICTIONARY));

static PACKERS: Mutex<Vec<Compressor<'static>>> = Mutex::new(Vec::new());
static UNPACKERS: Mutex<Vec<Decompressor<'static>>> = Mutex::new(Vec::new());

/// The packed form; `None` when it would not be shorter.
pub(super) fn pack(text: &[u8]) -> Option<Vec<u8>> {
    let make = || Compressor::with_prepared_dictionary(&PACKING);
    let packed = with(&PACKERS, make, |packer| packer.compress(text)).ok()?;
    (packed.len() < text.len()).then_some(packed)
}

/// What was packed; `None` when this is not it.
pub(super) fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let length = Decompressor::upper_bound(packed).filter(|length| *length <= MOST)?;
    let make = || Decompressor::with_prepared_dictionary(&UNPACKING);
    with(&UNPACKERS, make, |unpacker| unpacker.decompress(packed, length)).ok()
}

/// Works with something that was made before, or makes one.
fn with<T, R>(
    spare: &Mutex<Vec<T>>,
    make: impl FnOnce() -> io::Result<T>,
    work: impl FnOnce(&mut T) -> io::Result<R>,
) -> io::Result<R> {
    let kept = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut tool = kept.map_or_else(make, Ok)?;
    let result = work(&mut tool);
    let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
    // One that failed may be in any state.
    if result.is_ok() && spare.len() < SPARE {
        spare.push(tool);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Random, base64url, sha256};
    use proptest::prelude::*;

    #[test]
    fn the_dictionary_is_the_one_that_records_on_disk_were_packed_with() {
        let digest = base64url(&sha256(DICTIONARY));
        assert_eq!(digest, "998AYRjS9wg07d5krLL0QhTkJ5uHle7dLhGdmmA04E0");
    }

    #[test]
    fn a_short_record_becomes_a_third_and_noise_stays() {
        let record = r#"{"resourceType":"Observation","id":"o-7","meta":{"profile":["http://hl7.org/fhir/us/core/StructureDefinition/us-core-observation-lab"]},"status":"final","category":[{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"laboratory","display":"Laboratory"}]}],"code":{"coding":[{"system":"http://loinc.org","code":"2339-0","display":"Glucose [Mass/volume] in Blood"}],"text":"Glucose"},"subject":{"reference":"Patient/7300101"},"effectiveDateTime":"2026-03-04T08:30:00Z","valueQuantity":{"value":99.10,"unit":"mg/dL","system":"http://unitsofmeasure.org","code":"mg/dL"}}"#;
        let packed = pack(record.as_bytes()).expect("shorter");
        assert!(packed.len() * 3 < record.len(), "{} of {}", packed.len(), record.len());
        assert_eq!(unpack(&packed).as_deref(), Some(record.as_bytes()));
        assert_eq!(pack(&Random::seeded(1).bytes::<400>()), None);
    }

    #[test]
    fn what_claims_to_be_huge_is_not_believed() {
        // A frame of 2^40 bytes, by its own word.
        let head = [0x28, 0xB5, 0x2F, 0xFD, 0b1100_0000, 0, 0, 0, 0, 0, 0, 1, 0, 0];
        assert_eq!(unpack(&head), None);
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out_and_damage_is_never_a_panic(text: Vec<u8>, repeat in 0_usize..50, at: u16) {
            let text = text.repeat(repeat);
            if let Some(mut packed) = pack(&text) {
                prop_assert_eq!(unpack(&packed), Some(text));
                let at = usize::from(at) % packed.len();
                packed[at] ^= 1;
                let _ = unpack(&packed);
                let _ = unpack(&packed[..at]);
            }
        }
    }
}
