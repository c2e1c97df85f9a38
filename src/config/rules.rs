//! What a single setting must be: its key, the sentence for the error, an example and the check.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::value::{Dict, Value};

use super::address::{BadAddress, PublicUrl};
use super::network::{BadNetwork, Network};
use super::quantity::{ByteSize, format_duration, parse_duration};
use super::types::Keyword;
use crate::secret::Secret;

/// The kind of what was found, never the value.
pub(super) type Found = Cow<'static, str>;

type Parse<T> = Box<dyn Fn(&Raw<'_>) -> Result<T, Found>>;

/// How one setting is read.
pub(super) struct Rule<T> {
    pub(super) key: &'static str,
    pub(super) must: Cow<'static, str>,
    /// In TOML spelling.
    pub(super) example: Cow<'static, str>,
    pub(super) parse: Parse<T>,
}

/// A value as it stands in the tree.
pub(super) struct Raw<'v> {
    pub(super) value: &'v Value,
    /// From a place that knows text only: numbers, lists and truth values are read from it.
    pub(super) textual: bool,
    /// What a relative path in a file is relative to.
    pub(super) folder: Option<&'v Path>,
}

impl Raw<'_> {
    /// The kind of a value in the words of the configuration.
    pub(super) fn kind_of(value: &Value) -> &'static str {
        match value {
            Value::String(_, text) if text.is_empty() => "empty text",
            Value::String(..) | Value::Char(..) => "text",
            Value::Bool(..) => "a truth value",
            Value::Num(_, number) if number.to_f64().is_some() => "a number with a fraction",
            Value::Num(..) => "a whole number",
            Value::Dict(_, dict) if Self::is_date(dict) => "a date",
            Value::Dict(..) => "a table",
            Value::Array(..) => "a list",
            Value::Empty(..) => "nothing",
        }
    }

    /// figment hands a TOML date over as a table with one reserved key.
    pub(super) fn is_date(values: &Dict) -> bool {
        values.keys().any(|key| key.starts_with("$__toml"))
    }

    fn kind(&self) -> Found {
        Self::kind_of(self.value).into()
    }

    fn text(&self) -> Result<&str, Found> {
        self.value.as_str().filter(|text| !text.is_empty()).ok_or_else(|| self.kind())
    }

    fn whole(&self) -> Result<u64, Found> {
        if self.textual {
            return self.text()?.parse().map_err(|_| "text that is not a whole number".into());
        }
        let number =
            self.value.to_num().filter(|number| number.to_f64().is_none()).ok_or_else(|| self.kind())?;
        // TOML's integers are signed; one below zero is too small for every setting.
        let magnitude = number.to_i128().map(|signed| u128::try_from(signed).unwrap_or_default());
        let magnitude = number.to_u128().or(magnitude).unwrap_or_default();
        Ok(u64::try_from(magnitude).unwrap_or(u64::MAX))
    }

    fn list(&self) -> Result<Vec<&str>, Found> {
        if self.textual {
            return Ok(self.text()?.split([',', ' ']).filter(|item| !item.is_empty()).collect());
        }
        let items = self.value.as_array().ok_or_else(|| self.kind())?;
        items
            .iter()
            .map(|item| item.as_str().ok_or_else(|| format!("a list with {}", Self::kind_of(item)).into()))
            .collect()
    }
}

fn rule<T>(
    key: &'static str,
    must: impl Into<Cow<'static, str>>,
    example: impl Into<Cow<'static, str>>,
    parse: impl Fn(&Raw<'_>) -> Result<T, Found> + 'static,
) -> Rule<T> {
    Rule { key, must: must.into(), example: example.into(), parse: Box::new(parse) }
}

/// Text of another shape: the check says whether it is right and what kind of wrong it is.
pub(super) fn text_that(
    key: &'static str,
    must: &'static str,
    example: &'static str,
    check: impl Fn(&str) -> Result<(), &'static str> + 'static,
) -> Rule<String> {
    rule(key, must, example, move |raw| {
        let text = raw.text()?;
        check(text)?;
        Ok(text.to_owned())
    })
}

/// Any text for people.
pub(super) fn text(key: &'static str, example: &'static str) -> Rule<String> {
    text_that(key, "text", example, |text| {
        if text.chars().any(char::is_control) { Err("text with control characters") } else { Ok(()) }
    })
}

/// A short name that can stand in an address.
pub(super) fn name(key: &'static str, example: &'static str) -> Rule<String> {
    text_that(key, "a name of a-z, 0-9 and -, 64 at most", example, |text| {
        let plain =
            text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if plain && text.len() <= 64 { Ok(()) } else { Err("text with other characters or too long") }
    })
}

/// A secret, given in place.
pub(super) fn secret(key: &'static str) -> Rule<Secret> {
    rule(key, "text", "\"the secret\"", |raw| raw.text().map(Secret::new))
}

/// A file's or folder's path; a relative one counts from the configuration file's folder.
pub(super) fn path(key: &'static str, example: &'static str) -> Rule<PathBuf> {
    rule(key, "a path", example, read_path)
}

/// `true` or `false`.
pub(super) fn flag(key: &'static str) -> Rule<bool> {
    rule(key, "true or false", "true", read_flag)
}

/// One of a set of words; the first is the example.
pub(super) fn keyword<K: Keyword>(key: &'static str) -> Rule<K> {
    let words: Vec<String> = K::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    let example = words.first().cloned().unwrap_or_default();
    rule(key, format!("one of {}", words.join(", ")), example, |raw| {
        let text = raw.text()?;
        let known = K::WORDS.iter().find(|(word, _)| *word == text);
        known.map(|(_, value)| *value).ok_or_else(|| "another text".into())
    })
}

/// A whole number in a range.
pub(super) fn count(key: &'static str, range: RangeInclusive<u32>, example: &'static str) -> Rule<u32> {
    let must = format!("a whole number from {} to {}", range.start(), range.end());
    rule(key, must, example, move |raw| {
        let number = u32::try_from(raw.whole()?).unwrap_or(u32::MAX);
        within(number, &range, "a smaller number", "a larger number")
    })
}

/// A duration in a range.
pub(super) fn duration(
    key: &'static str,
    range: RangeInclusive<Duration>,
    example: &'static str,
) -> Rule<Duration> {
    let must =
        format!("a duration from {} to {}", format_duration(*range.start()), format_duration(*range.end()));
    rule(key, must, example, move |raw| {
        let length = parse_duration(raw.text()?).map_err(|_| "text that is not a duration")?;
        within(length, &range, "a shorter duration", "a longer duration")
    })
}

/// A size in a range.
pub(super) fn size(
    key: &'static str,
    range: RangeInclusive<ByteSize>,
    example: &'static str,
) -> Rule<ByteSize> {
    let must = format!("a size from {} to {}", range.start(), range.end());
    rule(key, must, example, move |raw| {
        let size = raw.text()?.parse().map_err(|_| "text that is not a size")?;
        within(size, &range, "a smaller size", "a larger size")
    })
}

fn within<T: PartialOrd>(
    value: T,
    range: &RangeInclusive<T>,
    below: &'static str,
    above: &'static str,
) -> Result<T, Found> {
    if value < *range.start() {
        Err(below.into())
    } else if value > *range.end() {
        Err(above.into())
    } else {
        Ok(value)
    }
}

/// An IP address and a port to listen on.
pub(super) fn socket_address(key: &'static str, example: &'static str) -> Rule<SocketAddr> {
    rule(key, "an IP address and a port", example, |raw| {
        raw.text()?.parse().map_err(|_| "text that is not an IP address and a port".into())
    })
}

/// A list of networks. All addresses at once are refused: such a list protects nothing.
pub(super) fn networks(key: &'static str, example: &'static str) -> Rule<Vec<Network>> {
    rule(key, "a list of networks", example, |raw| {
        let items = raw.list()?;
        let parsed = items.into_iter().map(|item| match item.parse::<Network>() {
            Ok(network) if network.is_everything() => Err("a network of all addresses".into()),
            Ok(network) => Ok(network),
            Err(BadNetwork::HostBits) => {
                Err("an address with bits beyond its prefix, such as 10.0.0.1/8".into())
            }
            Err(BadNetwork::Unreadable) => Err("a list with text that is not a network".into()),
        });
        parsed.collect()
    })
}

/// A list of origins of web pages, spelt as browsers send them.
pub(super) fn origins(key: &'static str, example: &'static str) -> Rule<Vec<String>> {
    rule(key, "a list of origins, each https:// and a host", example, |raw| {
        let origin = |item: &str| match PublicUrl::parse(item) {
            Ok(url) if url.origin() == item => Ok(item.to_owned()),
            Ok(_) => Err("an origin that browsers write in another way".into()),
            Err(bad) => Err(bad.to_string().into()),
        };
        raw.list()?.into_iter().map(origin).collect()
    })
}

/// A list of OAuth scopes (RFC 6749 3.3: visible characters without quote and backslash).
pub(super) fn scopes(key: &'static str, example: &'static str) -> Rule<Vec<String>> {
    rule(key, "a list of scopes", example, |raw| {
        let items = raw.list()?;
        let visible =
            |item: &&str| item.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
        if items.is_empty() {
            Err("an empty list".into())
        } else if items.iter().all(|item| !item.is_empty() && visible(item)) {
            Ok(items.into_iter().map(str::to_owned).collect())
        } else {
            Err("a list with text that is not one scope".into())
        }
    })
}

/// The address patients and EHRs know us by.
pub(super) fn public_url(key: &'static str) -> Rule<PublicUrl> {
    let must = "the https address patients and EHRs reach this program at, without a path";
    rule(key, must, "\"https://connect.clinic.example\"", |raw| {
        PublicUrl::parse(raw.text()?).map_err(|fault| fault.to_string().into())
    })
}

/// Another server's address.
pub(super) fn web_address(
    key: &'static str,
    must: &'static str,
    example: &'static str,
    check: impl Fn(&str) -> Result<(), BadAddress> + 'static,
) -> Rule<String> {
    rule(key, must, example, move |raw| {
        let text = raw.text()?;
        check(text).map_err(|fault| fault.to_string())?;
        Ok(text.to_owned())
    })
}

fn read_flag(raw: &Raw<'_>) -> Result<bool, Found> {
    match (raw.value, raw.textual) {
        (Value::Bool(_, flag), _) => Ok(*flag),
        (Value::String(_, text), true) => {
            text.parse().map_err(|_| "text that is neither true nor false".into())
        }
        _ => Err(raw.kind()),
    }
}

fn read_path(raw: &Raw<'_>) -> Result<PathBuf, Found> {
    let text = raw.text()?;
    // A key pasted where its file's name belongs must not travel on as a path.
    if text.contains(['\n', '\0']) || text.starts_with("-----BEGIN") {
        return Err("the content of a file, not its path".into());
    }
    Ok(raw.folder.map_or_else(|| PathBuf::from(text), |folder| folder.join(text)))
}
