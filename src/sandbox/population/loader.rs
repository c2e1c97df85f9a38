//! Reads people and records from a folder: bundles, single resources, or one resource a line; plain or gzip.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::bundle::{Bundle, id_of_urn, one_line};
use super::{Person, Population, RECORD_TYPES, Resource, person};
use crate::clock::Timestamp;

/// The `meta.lastUpdated` of a resource that has none: 2020-01-01.
const UNDATED: Timestamp = Timestamp::from_seconds(1_577_836_800);

/// Why nothing was loaded. The texts name files and lines, never their contents.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The folder is missing or may not be read.
    #[error("the folder `{}` cannot be read", folder.display())]
    Folder {
        /// As it was given.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No file has one of the endings that are read.
    #[error("the folder `{}` holds no `*.json`, `*.ndjson`, `*.json.gz` or `*.ndjson.gz`", folder.display())]
    NoFile {
        /// As it was given.
        folder: PathBuf,
    },
    /// A file cannot be read, is not UTF-8, or its gzip is broken or cut short.
    #[error("the file `{}` cannot be read, or is not whole", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A file is not the JSON its name promises.
    #[error("the file `{}` is not JSON at line {line}, column {column}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// Nobody could sign in.
    #[error("the folder `{}` holds no Patient", folder.display())]
    NoPatient {
        /// As it was given.
        folder: PathBuf,
    },
}

/// What was found, file by file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// In the order of reading.
    pub files: Vec<FileReport>,
    /// Resources of patients whose Patient resource is not in the folder: kept, but nobody signs in to see them.
    pub orphans: usize,
}

/// What was found in one file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// The file's name without its folder.
    pub name: String,
    /// How many resources were taken, by type.
    pub taken: BTreeMap<String, usize>,
    /// What was left out.
    pub not_taken: Vec<NotTaken>,
}

/// Something that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTaken {
    /// The line of an NDJSON file, or the entry of a bundle; counted from 1.
    pub place: usize,
    /// Why.
    pub reason: Reason,
}

/// Why something was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// JSON, but no object with a `resourceType`.
    NotAResource,
    /// Neither an `id` nor a `urn:uuid:` URL to take one from.
    NoId,
    /// The same type and id came before in the same record.
    Repeated,
    /// A bundle entry without a resource.
    EmptyEntry,
    /// A Bundle inside a Bundle.
    NestedBundle,
}

impl LoadReport {
    /// How many resources were taken, of any type.
    pub fn taken(&self) -> usize {
        self.files.iter().map(FileReport::total).sum()
    }
}

impl FileReport {
    /// How many resources were taken, of any type.
    pub fn total(&self) -> usize {
        self.taken.values().sum()
    }

    /// How many resources of the 17 types were taken.
    pub fn records(&self) -> usize {
        RECORD_TYPES.iter().filter_map(|resource_type| self.taken.get(*resource_type)).sum()
    }
}

/// As [`Population::load_with`].
pub(super) fn load(
    folder: &Path,
    mut progress: impl FnMut(&FileReport),
) -> Result<(Population, LoadReport), LoadError> {
    let files = files_of(folder).map_err(|source| LoadError::Folder { folder: folder.to_owned(), source })?;
    if files.is_empty() {
        return Err(LoadError::NoFile { folder: folder.to_owned() });
    }
    let mut reader = Reader::default();
    let mut report = LoadReport::default();
    for (file, form) in files {
        let text = text_of(&file, form).map_err(|source| LoadError::File { file: file.clone(), source })?;
        reader.file = FileReport { name: name_of(&file), ..FileReport::default() };
        reader.read(&text, form).map_err(|(line, column)| LoadError::Json { file, line, column })?;
        progress(&reader.file);
        report.files.push(std::mem::take(&mut reader.file));
    }
    if reader.people.is_empty() {
        return Err(LoadError::NoPatient { folder: folder.to_owned() });
    }
    let known: HashSet<&str> = reader.people.iter().map(|person| person.patient_id.as_str()).collect();
    let owners = reader.resources.iter().filter_map(|resource| resource.patient_id.as_deref());
    report.orphans = owners.filter(|owner| !known.contains(owner)).count();
    Ok((Population::assemble(reader.people, reader.resources), report))
}

/// How a file is to be read; its name says so.
#[derive(Clone, Copy)]
struct Form {
    lines: bool,
    gzip: bool,
}

impl Form {
    fn of(name: &str) -> Option<Self> {
        let (stem, gzip) = name.strip_suffix(".gz").map_or((name, false), |stem| (stem, true));
        match stem.rsplit_once('.') {
            Some((_, "ndjson")) => Some(Self { lines: true, gzip }),
            Some((_, "json")) => Some(Self { lines: false, gzip }),
            _ => None,
        }
    }
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The readable files of a folder, by name, so that a population is the same in every run.
fn files_of(folder: &Path) -> io::Result<Vec<(PathBuf, Form)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if let Some(form) = Form::of(&name_of(&path)).filter(|_| path.is_file()) {
            files.push((path, form));
        }
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(files)
}

fn text_of(file: &Path, form: Form) -> io::Result<String> {
    let bytes = fs::read(file)?;
    let mut text = String::new();
    if form.gzip {
        MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text)?;
    } else {
        bytes.as_slice().read_to_string(&mut text)?;
    }
    // Some Windows programs begin a text with a mark of its encoding.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The line and column where a text stops being JSON.
type Broken = (usize, usize);

/// What is looked at in a resource; nothing here refuses a resource for an odd element.
#[derive(Deserialize)]
struct Head {
    #[serde(default, rename = "resourceType")]
    resource_type: Value,
    #[serde(default)]
    id: Value,
    #[serde(default)]
    meta: Value,
    #[serde(default)]
    category: Value,
    #[serde(default)]
    subject: Value,
    #[serde(default)]
    patient: Value,
    #[serde(default)]
    beneficiary: Value,
    #[serde(default, rename = "for")]
    task_for: Value,
    #[serde(default, rename = "securityContext")]
    security_context: Value,
    #[serde(default)]
    target: Value,
    #[serde(default)]
    name: Value,
}

impl Head {
    /// `Ok(None)` for JSON that is no resource.
    fn read(text: &str) -> Result<Option<Self>, Broken> {
        match serde_json::from_str::<Self>(text) {
            Ok(head) if head.resource_type.is_string() => Ok(Some(head)),
            Ok(_) => Ok(None),
            Err(error) if error.is_data() => Ok(None),
            Err(error) => Err((error.line(), error.column())),
        }
    }

    fn resource_type(&self) -> &str {
        self.resource_type.as_str().unwrap_or_default()
    }

    /// Whose record it belongs to: the first element that refers to a Patient.
    fn owner(&self) -> Option<String> {
        let elements =
            [&self.subject, &self.patient, &self.beneficiary, &self.task_for, &self.security_context];
        // A Provenance names whatever it is about, the patient among the rest.
        elements.into_iter().chain(self.target.as_array().into_iter().flatten()).find_map(|element| {
            let mut segments =
                element["reference"].as_str()?.split('/').skip_while(|part| *part != "Patient");
            segments.nth(1).filter(|id| !id.is_empty()).map(str::to_owned)
        })
    }

    /// Codes and texts of `category`, which is one concept, a list of them, or a list of bare codes.
    fn category_codes(&self) -> Vec<String> {
        fn collect(value: &Value, codes: &mut Vec<String>) {
            match value {
                Value::Array(items) => items.iter().for_each(|item| collect(item, codes)),
                Value::String(code) => codes.push(code.clone()),
                Value::Object(concept) => {
                    let codings = concept.get("coding").and_then(Value::as_array).into_iter().flatten();
                    let found = codings.map(|coding| &coding["code"]).chain(concept.get("text"));
                    codes.extend(found.filter_map(Value::as_str).map(str::to_owned));
                }
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        let mut codes = Vec::new();
        collect(&self.category, &mut codes);
        codes
    }

    /// The first name of a Patient, as a page shows it.
    fn display(&self) -> Option<String> {
        let name = &self.name[0];
        let given = name["given"].as_array().into_iter().flatten();
        let parts: Vec<&str> = given.chain([&name["family"]]).filter_map(Value::as_str).collect();
        if parts.is_empty() { name["text"].as_str().map(str::to_owned) } else { Some(parts.join(" ")) }
    }
}

#[derive(Default)]
struct Reader {
    people: Vec<Person>,
    resources: Vec<Resource>,
    seen: HashSet<(String, String, Option<String>)>,
    file: FileReport,
}

impl Reader {
    fn read(&mut self, text: &str, form: Form) -> Result<(), Broken> {
        if !form.lines {
            return self.document(text, 1, true);
        }
        for (position, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            // The line counts within the file, not within itself.
            self.document(line, position + 1, false).map_err(|(_, column)| (position + 1, column))?;
        }
        Ok(())
    }

    /// A resource, or a bundle of them. A resource on a line of its own keeps its exact text.
    fn document(&mut self, text: &str, place: usize, rewrite: bool) -> Result<(), Broken> {
        match Head::read(text)? {
            None => self.leave(place, Reason::NotAResource),
            Some(head) if head.resource_type() == "Bundle" => self.bundle(text)?,
            Some(head) if rewrite => self.take(&head, None, one_line(text, None, &HashMap::new()), place),
            Some(head) => self.take(&head, None, text.to_owned(), place),
        }
        Ok(())
    }

    fn bundle(&mut self, text: &str) -> Result<(), Broken> {
        let bundle: Bundle = serde_json::from_str(text).map_err(|error| (error.line(), error.column()))?;
        let mut heads = Vec::new();
        let mut renamed = HashMap::new();
        for entry in &bundle.entry {
            // It was parsed as a part of the bundle, so it is JSON.
            let head = entry.resource.and_then(|resource| Head::read(resource.get()).ok().flatten());
            let lent = entry.full_url.as_deref().and_then(id_of_urn);
            if let (Some(head), Some(full_url)) = (&head, &entry.full_url)
                && let Some(id) = head.id.as_str().or(lent)
            {
                renamed.insert(full_url.to_string(), format!("{}/{id}", head.resource_type()));
            }
            heads.push((head, lent, entry.resource));
        }
        for (position, (head, lent, resource)) in heads.into_iter().enumerate() {
            let place = position + 1;
            match (head, resource) {
                (_, None) => self.leave(place, Reason::EmptyEntry),
                (None, _) => self.leave(place, Reason::NotAResource),
                (Some(head), _) if head.resource_type() == "Bundle" => {
                    self.leave(place, Reason::NestedBundle);
                }
                (Some(head), Some(resource)) => {
                    let added = if head.id.is_string() { None } else { lent };
                    let json = one_line(resource.get(), added, &renamed);
                    // Read again, because its references have changed.
                    match Head::read(&json) {
                        Ok(Some(head)) => self.take(&head, added, json, place),
                        Ok(None) | Err(_) => self.leave(place, Reason::NotAResource),
                    }
                }
            }
        }
        Ok(())
    }

    fn leave(&mut self, place: usize, reason: Reason) {
        self.file.not_taken.push(NotTaken { place, reason });
    }

    fn take(&mut self, head: &Head, id: Option<&str>, json: String, place: usize) {
        let resource_type = head.resource_type().to_owned();
        let Some(id) = id.or(head.id.as_str()).filter(|id| !id.is_empty()).map(str::to_owned) else {
            return self.leave(place, Reason::NoId);
        };
        let patient_id = if resource_type == "Patient" { Some(id.clone()) } else { head.owner() };
        // Files of different patients may use one id twice; each record keeps its own.
        if !self.seen.insert((resource_type.clone(), id.clone(), patient_id.clone())) {
            return self.leave(place, Reason::Repeated);
        }
        if resource_type == "Patient" {
            let display = head.display().unwrap_or_else(|| format!("Patient {id}"));
            self.people.push(person(self.people.len() + 1, id.clone(), display));
        }
        *self.file.taken.entry(resource_type.clone()).or_default() += 1;
        let last_updated = head.meta["lastUpdated"].as_str().and_then(Timestamp::parse).unwrap_or(UNDATED);
        let category_codes = head.category_codes();
        self.resources.push(Resource {
            resource_type,
            id,
            patient_id,
            json: json.into(),
            category_codes,
            last_updated,
        });
    }
}
