//! Sizes and durations as people write them: `64 MiB`, `10s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Text that is not a size or not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a whole number followed by a unit")]
pub struct BadQuantity;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many bytes.
    pub const fn bytes(count: u64) -> Self {
        Self(count)
    }

    /// So many times 1024 bytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// So many times 1024 KiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// The number of bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; the largest length when it does not fit.
    pub fn as_len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = BadQuantity;

    /// A whole number and a unit (`B`, `KiB`, `MiB`, `GiB`, or the decimal `KB`, `MB`, `GB`), any case, with or
    /// without a space.
    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        parse(text, &SIZE_UNITS).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = &SIZE_UNITS[..3];
        match binary.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(out, "{} {unit}", self.0 / factor),
            None => write!(out, "{} B", self.0),
        }
    }
}

/// Reads a whole number and a unit: `250ms`, `10s`, `5m`, `1h`, `30d`.
pub fn parse_duration(text: &str) -> Result<Duration, BadQuantity> {
    parse(text, &DURATION_UNITS).map(Duration::from_millis)
}

/// Writes a duration in the largest unit that keeps it whole; finer than a millisecond is dropped.
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let unit =
        DURATION_UNITS.iter().rev().find(|(_, factor)| millis >= *factor && millis.is_multiple_of(*factor));
    match unit {
        Some((unit, factor)) => format!("{}{unit}", millis / factor),
        None => "0s".to_owned(),
    }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, BadQuantity> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let number: u64 = number.parse().map_err(|_| BadQuantity)?;
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(BadQuantity)?;
    number.checked_mul(*factor).ok_or(BadQuantity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_and_a_unit() {
        for (text, bytes) in [
            ("1 MiB", 1 << 20),
            ("64MiB", 64 << 20),
            ("2 kib", 2048),
            ("10 B", 10),
            ("5 MB", 5_000_000),
            ("0 B", 0),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in [
            "",
            "10",
            "MiB",
            "1.5 MiB",
            "-1 B",
            "1 Mi",
            "1 MiBs",
            "99999999999999999999 B",
            "9999999999999 GiB",
        ] {
            assert_eq!(text.parse::<ByteSize>(), Err(BadQuantity), "{text}");
        }
    }

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        for (text, millis) in
            [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("30 d", 2_592_000_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "1.5s", "-1s", "10 sec", "1h30m", "99999999999999999d"] {
            assert_eq!(parse_duration(text), Err(BadQuantity), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["64 MiB", "1 GiB", "3 KiB", "1000 B"] {
            assert_eq!(text.parse::<ByteSize>().expect(text).to_string(), text);
        }
        for text in ["250ms", "75s", "5m", "1h", "30d", "90s", "0s"] {
            assert_eq!(format_duration(parse_duration(text).expect(text)), text);
        }
    }
}
