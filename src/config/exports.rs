//! `[[export]]`: where the records of a workspace are brought to.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Section;
use super::registrations::WorkspaceSettings;
use super::rules;

/// One export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSettings {
    /// Unique; files are named after it.
    pub name: String,
    /// Whose records.
    pub workspace: String,
    /// The folder that gets the files.
    pub directory: PathBuf,
    /// Whether files are packed.
    pub gzip: bool,
    /// How often it is looked whether something has changed.
    pub every: Duration,
}

const EVERY: Duration = Duration::from_mins(5);

pub(super) fn read(root: &mut Section<'_>, workspaces: &[WorkspaceSettings]) -> Vec<ExportSettings> {
    let mut written: Vec<String> = Vec::new();
    root.entries("export", |section| {
        let name = section.required(&rules::name("name", "\"warehouse\""));
        let workspace = section.required(&rules::name("workspace", "\"live\""));
        let directory = section.required(&rules::path("directory", "\"/srv/records\""));
        let gzip = section.optional(&rules::flag("gzip"));
        let span = Duration::from_secs(10)..=Duration::from_hours(24 * 7);
        let every = section.optional(&rules::duration("every", span, "\"5m\""));
        let unreadable =
            gzip.is_none() && section.is_given("gzip") || every.is_none() && section.is_given("every");
        let export = ExportSettings {
            name: name?,
            workspace: workspace?,
            directory: directory?,
            gzip: gzip.unwrap_or(false),
            every: every.unwrap_or(EVERY),
        };
        if unreadable {
            return None;
        }
        if written.contains(&export.name) {
            section.blame("name", "must be unique", "a name that is listed before", "choose another name");
            return None;
        }
        if !workspaces.iter().any(|known| known.name == export.workspace) {
            let hint = "write workspace = \"live\", or list the workspace as [[workspace]]";
            section.blame("workspace", "must be one of the workspaces", "another name", hint);
            return None;
        }
        written.push(export.name.clone());
        Some(export)
    })
}
