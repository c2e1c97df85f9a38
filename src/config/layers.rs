//! The four layers, lowest first: compiled-in defaults, the administrator's file, environment, command line. figment
//! merges them and remembers where each value came from; its error texts print values, so none of them is used.

use std::io;
use std::path::{Path, PathBuf};

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};

use super::DEFAULTS;
use super::error::{ConfigError, ConfigErrors, Place};

const PREFIX: &str = "CHARTGATE_";

/// Tables that stand in a list. Environment and command line address an entry by its name.
pub(super) const LISTS: [&str; 5] = ["workspace", "ehr_client", "source", "directory_list", "export"];

/// Where the settings are taken from.
#[derive(Clone, Default)]
pub struct Layers {
    /// The administrator's file.
    pub file: Option<PathBuf>,
    /// Whether it is an error when that file does not exist; true when somebody named it.
    pub file_required: bool,
    /// The environment, whole. Read are `CHARTGATE_…` (`__` between section and key; an empty one counts as not set)
    /// and `CREDENTIALS_DIRECTORY`. An entry of a list is addressed by its name:
    /// `CHARTGATE_EHR_CLIENT__CERNER__CLIENT_SECRET_FILE`.
    pub environment: Vec<(String, String)>,
    /// Settings from the command line as dotted key and value, such as `listen.public.address`; a later one wins.
    pub arguments: Vec<(String, String)>,
}

/// The layers as one tree, before any value was checked.
pub(super) struct Merged {
    pub(super) root: Dict,
    /// What environment and command line say about entries of lists: list, then name, then key.
    pub(super) entries: Dict,
    pub(super) origins: Origins,
    pub(super) errors: Vec<ConfigError>,
}

/// Answers where a value came from.
pub(super) struct Origins {
    root: Figment,
    entries: Figment,
}

impl Origins {
    pub(super) fn of(&self, tag: Tag) -> Place {
        let known = self.root.get_metadata(tag).or_else(|| self.entries.get_metadata(tag));
        match known.and_then(|metadata| metadata.source.as_ref()) {
            Some(Source::File(path)) => Place::File(path.display().to_string()),
            Some(Source::Custom(variable)) => Place::Variable(variable.clone()),
            None if known.is_some_and(|metadata| metadata.name == ARGUMENTS) => Place::Arguments,
            _ => Place::Defaults,
        }
    }
}

const ARGUMENTS: &str = "arguments";

/// One layer, or one variable of a layer, for figment.
struct Layer {
    metadata: Metadata,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// Reads the file and lays everything over one another.
pub(super) fn merge(layers: &Layers) -> Result<Merged, ConfigErrors> {
    let defaults = parse_toml(DEFAULTS, &Place::Defaults)?;
    let mut merging = Merging {
        root: Figment::from(Layer { metadata: Metadata::named("defaults"), dict: defaults.clone() }),
        entries: Figment::new(),
        defaults: Value::from(defaults),
        errors: Vec::new(),
    };
    if let Some(path) = &layers.file
        && let Some(text) = read_file(path, layers.file_required)?
    {
        let dict = parse_toml(&text, &Place::File(path.display().to_string()))?;
        let metadata = Metadata::from("file", path.as_path());
        merging.root = merging.root.merge(Layer { metadata, dict });
    }
    let mut variables: Vec<_> = layers.environment.iter().filter_map(ours).collect();
    // The order of an environment is an accident; errors must not depend on it.
    variables.sort_unstable();
    for (name, value) in variables {
        let key = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
        merging.lay(&key, value, Place::Variable(name.to_owned()));
    }
    for (key, value) in &layers.arguments {
        merging.lay(key, value, Place::Arguments);
    }
    // Neither can fail: a `Layer` always gives its dictionary.
    let whole =
        |figment: &Figment| figment.find_value("").ok().and_then(Value::into_dict).unwrap_or_default();
    Ok(Merged {
        root: whole(&merging.root),
        entries: whole(&merging.entries),
        origins: Origins { root: merging.root, entries: merging.entries },
        errors: merging.errors,
    })
}

/// The variables meant for us. `CHARTGATE_CONFIG` names the file itself. Kubernetes adds variables of its own for a
/// service called `chartgate`; they are no reason to refuse to start.
fn ours((name, value): &(String, String)) -> Option<(&str, &str)> {
    let rest = name.strip_prefix(PREFIX)?;
    let numbered_port =
        rest.strip_prefix("PORT_").is_some_and(|port| port.starts_with(|c: char| c.is_ascii_digit()));
    let foreign = matches!(rest, "CONFIG" | "SERVICE_HOST" | "PORT")
        || rest.starts_with("SERVICE_PORT")
        || numbered_port;
    (!foreign && !value.is_empty()).then_some((name.as_str(), value.as_str()))
}

struct Merging {
    root: Figment,
    entries: Figment,
    defaults: Value,
    errors: Vec<ConfigError>,
}

impl Merging {
    /// Lays one text over what is there.
    fn lay(&mut self, key: &str, value: &str, place: Place) {
        let mut segments: Vec<String> = key.split('.').map(str::to_owned).collect();
        let in_list = segments.first().is_some_and(|first| LISTS.contains(&first.as_str()));
        if in_list && segments.len() < 3 {
            let example = segments.first().map_or("", String::as_str);
            return self.errors.push(ConfigError {
                hint: format!(
                    "name the entry and the key: {}",
                    match place {
                        Place::Variable(_) =>
                            format!("{PREFIX}{}__MY_NAME__KEY", example.to_ascii_uppercase()),
                        Place::Arguments | Place::Defaults | Place::File(_) | Place::Nowhere => {
                            format!("{example}.my-name.key")
                        }
                    }
                ),
                ..misplaced(key, place)
            });
        }
        if self.defaults.find_ref(key).is_some_and(|found| found.as_dict().is_some()) {
            return self
                .errors
                .push(ConfigError { hint: "set one of its keys".into(), ..misplaced(key, place) });
        }
        if in_list {
            segments[1] = slug(&segments[1]);
        }
        // An environment variable may end in a line break, from a file; no setting has blanks at its ends.
        let leaf = Value::from(value.trim());
        let whole = segments
            .into_iter()
            .rev()
            .fold(leaf, |inner, segment| Value::from(Dict::from([(segment, inner)])));
        let metadata = match place {
            Place::Variable(name) => Metadata::from("variable", Source::Custom(name)),
            Place::Arguments | Place::Defaults | Place::File(_) | Place::Nowhere => {
                Metadata::named(ARGUMENTS)
            }
        };
        let layer = Layer { metadata, dict: whole.into_dict().unwrap_or_default() };
        let figment = if in_list { &mut self.entries } else { &mut self.root };
        *figment = std::mem::take(figment).merge(layer);
    }
}

fn misplaced(key: &str, place: Place) -> ConfigError {
    ConfigError {
        must: format!("`{key}` is a section, not a setting"),
        place,
        key: format!("key `{key}`"),
        found: "text".into(),
        hint: String::new(),
    }
}

/// A name as it can stand in a variable: `Mercy Hospital` and `MERCY_HOSPITAL` are both `mercy-hospital`.
pub(super) fn slug(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

fn read_file(path: &Path, required: bool) -> Result<Option<String>, ConfigErrors> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => Ok(None),
        Err(error) => Err(ConfigErrors::from(ConfigError {
            must: "the configuration file must be readable".into(),
            place: Place::File(path.display().to_string()),
            key: "whole file".into(),
            found: unreadable(&error).into(),
            hint: "check the path and its permissions, or make a file with `chartgate init`".into(),
        })),
    }
}

/// What stands in the way of reading a file.
pub(super) fn unreadable(error: &io::Error) -> &'static str {
    const KINDS: [(io::ErrorKind, &str); 6] = [
        (io::ErrorKind::NotFound, "no such file"),
        (io::ErrorKind::NotADirectory, "no such file"),
        (io::ErrorKind::InvalidFilename, "no such file"),
        (io::ErrorKind::PermissionDenied, "a file this user may not read"),
        (io::ErrorKind::IsADirectory, "a folder"),
        (io::ErrorKind::InvalidData, "a file that is not UTF-8 text"),
    ];
    let known = KINDS.iter().find(|(kind, _)| *kind == error.kind());
    known.map_or("a file that cannot be read", |(_, meaning)| meaning)
}

fn parse_toml(text: &str, place: &Place) -> Result<Dict, ConfigErrors> {
    Toml::from_str::<Dict>(text).map_err(|error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        let (found, hint) = explain(error.message());
        ConfigErrors::from(ConfigError {
            must: "the configuration file must be valid TOML".into(),
            place: place.clone(),
            key: format!("line {line}, column {column}"),
            found: found.into(),
            hint: hint.into(),
        })
    })
}

/// The parser's own message may quote the file, so only its kind is passed on.
fn explain(message: &str) -> (&'static str, &'static str) {
    const KINDS: [(&str, &str, &str); 9] = [
        // First, because this message contains a key, which may contain any of the others.
        (
            "duplicate key",
            "a key or a section that was there before",
            "keep one of the two; a list entry has two pairs of brackets: [[source]]",
        ),
        ("attempted to extend", "a key below a key that has a value", "keep one of the two"),
        ("expected `\"`", "text without quotes", "put text in quotes: key = \"value\""),
        (
            "invalid table header",
            "a broken section header",
            "write [section], or [[section]] for a list entry",
        ),
        (
            "invalid escape",
            "a backslash that means nothing",
            "write each backslash twice, or the text in single quotes",
        ),
        ("string", "text that does not end", "put a quote at its end: key = \"value\""),
        ("invalid array", "a list that does not end", "write key = [\"one\", \"two\"]"),
        ("expected newline", "something after the value", "write one setting a line, and remarks after #"),
        ("expected `.`, `=`", "a key without a value", "write key = \"value\""),
    ];
    let known = KINDS.iter().find(|(part, ..)| message.contains(part));
    known.map_or(
        ("something that is not TOML", "write key = \"value\", one setting a line"),
        |(_, found, hint)| (found, hint),
    )
}

/// Line and column of a byte, both from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        let place = Place::File("config.toml".into());
        parse_toml(text, &place).expect_err("not TOML").to_string()
    }

    #[test]
    fn a_syntax_error_has_line_and_column_and_no_text() {
        for (text, place, found) in [
            ("a = 1\nb = MARKER\n", "line 2, column 5", "text without quotes"),
            ("a = \"MARKER\n", "line 1, column 12", "text that does not end"),
            ("a = \"MARKER\\y\"\n", "line 1, column 14", "a backslash that means nothing"),
            ("a = 1 MARKER\n", "line 1, column 7", "something after the value"),
            ("a = [1,\nMARKER", "line 2, column 1", "a list that does not end"),
            ("MARKER\n", "line 1, column 7", "a key without a value"),
            ("é = 1\n", "line 1, column 1", "something that is not TOML"),
            ("MARKER = 1\nMARKER = 2\n", "line 2, column 1", "a key or a section that was there before"),
            ("[MARKER]\n[MARKER]\n", "line 2, column 1", "a key or a section that was there before"),
            ("MARKER = 1\nMARKER.b = 1\n", "line 2, column 1", "a key below a key that has a value"),
            ("[MARKER\n", "line 1, column 8", "a broken section header"),
        ] {
            let shown = fault(text);
            assert!(shown.contains(&format!("config.toml, {place}, found {found}\n")), "{text}{shown}");
            assert!(!shown.contains("MARKER"), "{shown}");
        }
    }

    #[test]
    fn variables_of_others_are_left_alone() {
        let is_ours = |name: &str| ours(&(name.into(), "x".into())).is_some();
        for name in [
            "CHARTGATE_PUBLIC_URL",
            "CHARTGATE_LISTEN__PUBLIC__ADDRESS",
            "CHARTGATE_PORTS",
            "CHARTGATE_SERVICES",
        ] {
            assert!(is_ours(name), "{name}");
        }
        for name in [
            "PATH",
            "CHARTGATE_CONFIG",
            "CHARTGATE_PORT",
            "CHARTGATE_PORT_8443_TCP",
            "CHARTGATE_SERVICE_PORT_HTTPS",
        ] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
