//! Walks the merged tree: hands out checked values, notes every error and every key nobody asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use figment::value::{Dict, Value};

use super::error::{ConfigError, ConfigErrors, Place, nearest, variable};
use super::layers::{LISTS, Merged, Origins, slug};
use super::rules::{Raw, Rule};

/// What the sections report to while they are read.
pub(super) struct Report {
    origins: Origins,
    /// Where a key is missing that nobody gave.
    home: Place,
    /// What paths in the file are relative to.
    folder: Option<PathBuf>,
    entries: RefCell<Dict>,
    errors: RefCell<Vec<ConfigError>>,
    warnings: RefCell<Vec<String>>,
    known: RefCell<BTreeSet<String>>,
    unknown: RefCell<Vec<Unknown>>,
}

struct Unknown {
    section: String,
    key: String,
    place: Place,
}

impl Report {
    /// Takes the merged layers apart into the report and the root section's values.
    pub(super) fn new(merged: Merged, file: Option<&Path>) -> (Self, Dict) {
        let report = Self {
            origins: merged.origins,
            home: file.map_or(Place::Nowhere, |path| Place::File(path.display().to_string())),
            folder: file.and_then(Path::parent).map(Path::to_owned),
            entries: RefCell::new(merged.entries),
            errors: RefCell::new(merged.errors),
            warnings: RefCell::default(),
            known: RefCell::default(),
            unknown: RefCell::default(),
        };
        (report, merged.root)
    }

    /// Reads the top of the tree, everything below it, and reports what nobody asked for.
    pub(super) fn root<T>(
        &self,
        values: Dict,
        read: impl FnOnce(&mut Section<'_>) -> Option<T>,
    ) -> Option<T> {
        let mut root = Section::new(self, String::new(), values, self.home.clone());
        let result = read(&mut root);
        for (list, values) in self.entries.take() {
            root.leftover(&list, &values);
        }
        root.close();
        result
    }

    /// Everything wrong, or the warnings.
    pub(super) fn finish(self) -> Result<Vec<String>, ConfigErrors> {
        let known = self.known.into_inner();
        let mut errors = self.errors.into_inner();
        errors.extend(self.unknown.into_inner().into_iter().map(|unknown| unknown.explain(&known)));
        ConfigErrors::from_list(errors).map_or(Ok(self.warnings.into_inner()), Err)
    }
}

impl Unknown {
    fn explain(self, known: &BTreeSet<String>) -> ConfigError {
        let full = join(&self.section, &self.key);
        let pattern = pattern(&self.section);
        let siblings: Vec<&str> = known
            .iter()
            .filter_map(|key| {
                if pattern.is_empty() {
                    Some(key.as_str())
                } else {
                    key.strip_prefix(&pattern)?.strip_prefix('.')
                }
            })
            .filter(|leaf| !leaf.contains('.'))
            .collect();
        let looks_like = |key: &&String| flat(key) == flat(&full);
        let elsewhere = |key: &&String| key.rsplit('.').next() == Some(self.key.as_str());
        // The separators are the commonest mistake in a variable, so they are looked at first.
        let twin = known.iter().find(looks_like);
        let hint = if let (None, Some(sibling)) = (twin, nearest(&self.key, siblings.iter().copied())) {
            format!("did you mean {}?", self.spelled_sibling(sibling))
        } else if let Some(key) = twin.or_else(|| known.iter().find(elsewhere)) {
            match (key.contains('.'), &self.place) {
                (false, Place::File(_)) => {
                    format!("`{key}` belongs at the top of the file, above the first [section]")
                }
                _ => format!("did you mean {}?", self.spelled(key)),
            }
        } else {
            format!("known keys here: {}", siblings.join(", "))
        };
        ConfigError {
            must: format!("`{full}` is not a setting"),
            place: self.place,
            key: format!("key `{full}`"),
            found: "an unknown key".into(),
            hint,
        }
    }

    fn spelled_sibling(&self, sibling: &str) -> String {
        match &self.place {
            // An entry of the file has a number here and a name in its variables.
            Place::Variable(name) if self.section.ends_with(']') => {
                let entry = name.rsplit_once("__").map_or(name.as_str(), |(entry, _)| entry);
                format!("{entry}__{}", sibling.to_ascii_uppercase())
            }
            Place::Variable(_) | Place::Defaults | Place::File(_) | Place::Arguments | Place::Nowhere => {
                self.spelled(&join(&self.section, sibling))
            }
        }
    }

    fn spelled(&self, key: &str) -> String {
        match self.place {
            Place::Variable(_) => variable(key),
            Place::Defaults | Place::File(_) | Place::Arguments | Place::Nowhere => format!("`{key}`"),
        }
    }
}

/// A key without its separators, since `CHARTGATE_LOG_FILTER` is a natural mistake for `CHARTGATE_LOG__FILTER`.
fn flat(key: &str) -> String {
    key.chars().filter(char::is_ascii_alphanumeric).collect()
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// A section's path without the number or name of the entry: all entries of a list know the same keys.
fn pattern(section: &str) -> String {
    let list = section.split(['[', '.']).next().unwrap_or_default();
    if LISTS.contains(&list) { list.to_owned() } else { section.to_owned() }
}

/// One table while it is read.
pub(super) struct Section<'r> {
    report: &'r Report,
    path: String,
    values: Dict,
    places: BTreeMap<&'static str, Place>,
    /// Where a missing key should be written.
    home: Place,
    /// The table is not a table: that is reported, and nothing is missing in it.
    broken: bool,
}

impl<'r> Section<'r> {
    fn new(report: &'r Report, path: String, values: Dict, home: Place) -> Self {
        Self { report, path, values, places: BTreeMap::new(), home, broken: false }
    }

    /// The dotted key of one of this section's settings.
    pub(super) fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Takes a setting that may be left out. `None` also when it is wrong; then the error is noted.
    pub(super) fn optional<T>(&mut self, rule: &Rule<T>) -> Option<T> {
        let value = self.take(rule.key)?;
        let place = self.place(rule.key);
        let raw = Raw {
            value: &value,
            textual: matches!(place, Place::Variable(_) | Place::Arguments),
            folder: if matches!(place, Place::File(_)) { self.report.folder.as_deref() } else { None },
        };
        match (rule.parse)(&raw) {
            Ok(checked) => Some(checked),
            Err(found) => {
                let hint = place.advice(&self.key(rule.key), &rule.example);
                self.blame(rule.key, format!("must be {}", rule.must), found, hint);
                None
            }
        }
    }

    /// Takes a setting that must be there.
    pub(super) fn required<T>(&mut self, rule: &Rule<T>) -> Option<T> {
        if !self.broken && !self.values.contains_key(rule.key) {
            let key = self.key(rule.key);
            let home = match &self.home {
                Place::Variable(_) => Place::Variable(variable(&key)),
                Place::Defaults | Place::File(_) | Place::Arguments | Place::Nowhere => self.home.clone(),
            };
            let hint = home.advice(&key, &rule.example);
            self.places.insert(rule.key, home);
            self.know(rule.key);
            self.blame(rule.key, format!("must be given: {}", rule.must), "nothing", hint);
            return None;
        }
        self.optional(rule)
    }

    /// Whether a setting is there to be taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Whether somebody gave this setting; asked after it was taken.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.places.get(key).is_some_and(|place| *place != Place::Defaults)
    }

    /// Where a taken setting came from, or where it should be written.
    pub(super) fn place(&self, key: &str) -> Place {
        self.places.get(key).unwrap_or(&self.home).clone()
    }

    /// The layer a taken setting came from, higher wins.
    pub(super) fn rank(&self, key: &str) -> u8 {
        match self.place(key) {
            Place::Defaults | Place::Nowhere => 0,
            Place::File(_) => 1,
            Place::Variable(_) => 2,
            Place::Arguments => 3,
        }
    }

    /// Notes an error about one setting. `must` continues the sentence that begins with the key.
    pub(super) fn blame(
        &self,
        key: &str,
        must: impl AsRef<str>,
        found: impl Into<std::borrow::Cow<'static, str>>,
        hint: impl Into<String>,
    ) {
        let full = self.key(key);
        self.report.errors.borrow_mut().push(ConfigError {
            must: format!("`{full}` {}", must.as_ref()),
            place: self.place(key),
            key: format!("key `{full}`"),
            found: found.into(),
            hint: hint.into(),
        });
    }

    /// Notes something that works but should be changed.
    pub(super) fn warn(&self, text: String) {
        self.report.warnings.borrow_mut().push(text);
    }

    /// Reads a table inside this one; a table that is not there reads as empty.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> Option<T>,
    ) -> Option<T> {
        let taken = self.take(key);
        let mut inner = Section::new(self.report, self.key(key), Dict::new(), self.home.clone());
        inner.broken = self.broken;
        match taken {
            Some(Value::Dict(_, values)) if !Raw::is_date(&values) => inner.values = values,
            Some(other) => {
                inner.broken = true;
                let hint = format!("write [{}] on a line of its own, then its keys", inner.path);
                self.blame(key, "must be a section", Raw::kind_of(&other), hint);
            }
            None => {}
        }
        let result = read(&mut inner);
        inner.close();
        result
    }

    /// Reads every entry of a list of tables, with what environment and command line say about it by name.
    pub(super) fn entries<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        let overlay =
            self.report.entries.borrow_mut().remove(key).and_then(Value::into_dict).unwrap_or_default();
        let mut sections = Vec::new();
        match self.take(key) {
            Some(Value::Array(_, entries)) => {
                for (index, entry) in entries.into_iter().enumerate() {
                    let path = format!("{key}[{}]", index + 1);
                    let kind = Raw::kind_of(&entry);
                    if let Some(values) = entry.into_dict().filter(|values| !Raw::is_date(values)) {
                        sections.push(Section::new(self.report, path, values, self.home.clone()));
                    } else {
                        let hint =
                            format!("write [[{key}]] on a line of its own, then the keys of one entry");
                        self.blame(key, "must be a list of tables", format!("a list with {kind}"), hint);
                    }
                }
            }
            Some(other) => {
                let hint = format!("write [[{key}]], with two pairs of brackets");
                self.blame(key, "must be a list of tables", Raw::kind_of(&other), hint);
            }
            None => {}
        }
        for (name, settings) in overlay {
            let own = settings.tag();
            let settings = settings.into_dict().unwrap_or_default();
            let same = |section: &&mut Section<'_>| {
                section.values.get("name").and_then(Value::as_str).is_some_and(|given| slug(given) == name)
            };
            if let Some(section) = sections.iter_mut().find(same) {
                section.values.extend(settings);
            } else {
                let home = self.report.origins.of(own);
                let mut section = Section::new(self.report, format!("{key}.{name}"), settings, home);
                section.values.entry("name".to_owned()).or_insert_with(|| Value::from(name));
                sections.push(section);
            }
        }
        let mut results = Vec::new();
        for mut section in sections {
            results.extend(read(&mut section));
            section.close();
        }
        results
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.know(key);
        let value = self.values.remove(key)?;
        self.places.insert(key, self.report.origins.of(value.tag()));
        Some(value)
    }

    fn know(&self, key: &str) {
        self.report.known.borrow_mut().insert(join(&pattern(&self.path), key));
    }

    fn leftover(&self, key: &str, value: &Value) {
        let place = self.report.origins.of(innermost(value).tag());
        let unknown = Unknown { section: self.path.clone(), key: key.to_owned(), place };
        self.report.unknown.borrow_mut().push(unknown);
    }

    fn close(self) {
        for (key, value) in &self.values {
            self.leftover(key, value);
        }
    }
}

/// A table several layers wrote to has the tag of the last; a setting in it tells who brought the unknown name.
fn innermost(value: &Value) -> &Value {
    match value.as_dict().and_then(|dict| dict.values().next()) {
        Some(inner) => innermost(inner),
        None => value,
    }
}
