//! What is wrong with a configuration: all of it at once, each with its place, the kind of what was found and a hint.
//! A value is never part of an error: it may be a secret that landed in the wrong place.

use std::borrow::Cow;
use std::fmt;

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The settings compiled into the program.
    Defaults,
    /// The administrator's file, under the name it was given.
    File(String),
    /// An environment variable, by its name.
    Variable(String),
    /// The command line.
    Arguments,
    /// Nowhere: there is no file, and nothing else gave it.
    Nowhere,
}

/// One thing that must be changed before the program can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// What must be so.
    pub must: String,
    /// Where it is not so.
    pub place: Place,
    /// The dotted key, or the line and column of a file that is not TOML.
    pub key: String,
    /// The kind of what was found, never the value.
    pub found: Cow<'static, str>,
    /// What to write instead.
    pub hint: String,
}

/// Everything that must be changed before the program can start; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "error: {}", self.must)?;
        match &self.place {
            Place::Defaults => write!(out, "  --> built-in defaults, {}", self.key)?,
            Place::File(name) => write!(out, "  --> {name}, {}", self.key)?,
            Place::Variable(name) => write!(out, "  --> environment variable {name}")?,
            Place::Arguments => write!(out, "  --> command line, {}", self.key)?,
            Place::Nowhere => write!(out, "  --> no configuration file, {}", self.key)?,
        }
        write!(out, ", found {}\n  hint: {}", self.found, self.hint)
    }
}

impl ConfigErrors {
    /// `None` when there is nothing to change.
    pub(super) fn from_list(errors: Vec<ConfigError>) -> Option<Self> {
        if errors.is_empty() { None } else { Some(Self(errors)) }
    }

    /// Each of them, in the order of the sections.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl<'e> IntoIterator for &'e ConfigErrors {
    type Item = &'e ConfigError;
    type IntoIter = std::slice::Iter<'e, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                out.write_str("\n\n")?;
            }
            error.fmt(out)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl Place {
    /// How to give `key` the value `example` (in TOML spelling) at this place.
    pub(super) fn advice(&self, key: &str, example: &str) -> String {
        match self {
            Self::Variable(name) => format!("set {name}={}", bare(example)),
            Self::Arguments => format!("give `{key}` as {}", bare(example)),
            // Without a file, in a container, variables are the nearest way.
            Self::Nowhere => format!("set {}={}", variable(key), bare(example)),
            Self::Defaults | Self::File(_) => {
                let leaf = key.rsplit_once('.').map_or(key, |(_, leaf)| leaf);
                format!("write {leaf} = {example}")
            }
        }
    }
}

/// The variable that sets a dotted key.
pub(super) fn variable(key: &str) -> String {
    format!("CHARTGATE_{}", key.to_ascii_uppercase().replace('-', "_").replace('.', "__"))
}

/// A TOML value as a shell would take it.
fn bare(example: &str) -> String {
    example.replace(['"', '[', ']'], "")
}

/// The known word nearest to a mistyped one, if one is near.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be changed, added or dropped (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        for (cell, wanted) in row.iter_mut().skip(1).zip(&other) {
            let changed = diagonal + usize::from(letter != *wanted);
            diagonal = *cell;
            left = changed.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_changes() {
        for (one, other, expected) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "", 3),
            ("timout", "timeout", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_far_word_has_no_neighbour() {
        assert_eq!(nearest("timout", ["timeout", "filter"]), Some("timeout"));
        assert_eq!(nearest("colour", ["timeout", "filter"]), None);
        assert_eq!(nearest("ab", ["xy"]), None);
    }

    #[test]
    fn an_error_is_three_lines() {
        let error = ConfigError {
            must: "`outbound.timeout` must be a duration".into(),
            place: Place::File("config.toml".into()),
            key: "key `outbound.timeout`".into(),
            found: "a whole number".into(),
            hint: "write timeout = \"10s\"".into(),
        };
        let expected = "error: `outbound.timeout` must be a duration\n  --> config.toml, key `outbound.timeout`, \
                        found a whole number\n  hint: write timeout = \"10s\"";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn advice_fits_the_place() {
        let example = "[\"10.0.0.0/8\"]";
        assert_eq!(Place::File(String::new()).advice("a.b", example), "write b = [\"10.0.0.0/8\"]");
        assert_eq!(Place::Nowhere.advice("a.b-c", example), "set CHARTGATE_A__B_C=10.0.0.0/8");
        assert_eq!(
            Place::Variable("CHARTGATE_A__B".into()).advice("a.b", example),
            "set CHARTGATE_A__B=10.0.0.0/8"
        );
    }
}
