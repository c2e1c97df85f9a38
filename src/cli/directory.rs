//! `chartgate directory`: a list goes to the running appliance byte by byte, or into the store when none is running.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use serde_json::Value as Json;

use crate::cli::arguments::EnvironmentName;
use crate::cli::run::{Reached, build, command, load, open_store};
use crate::cli::{Failure, output};
use crate::config::{Environment, Layers};
use crate::control::directory::{DirectoryCommand, import};
use crate::control::{self, Command};
use crate::directory::{ActivationState, ImportRequest};

/// `directory`
#[derive(Debug, Subcommand)]
pub enum DirectoryTask {
    /// Import a list: a SMART brands bundle, a vendor's endpoint bundle, Lantern's or another flat JSON list, or CSV
    Import {
        /// A file (gzip is fine), or an https address to fetch it from
        #[arg(value_name = "FILE|URL")]
        from: String,
        /// Your name for the list; importing under it again replaces what it had [default: from the file's name]
        #[arg(long)]
        list: Option<String>,
        /// Whose sources it names
        #[arg(long, default_value = "live")]
        environment: EnvironmentName,
        /// Import it even if it is empty or lost more than a fifth of its entries
        #[arg(long)]
        yes: bool,
    },
    /// Search as a patient does
    Search {
        /// What a patient types
        #[arg(required = true)]
        words: Vec<String>,
        /// live or sandbox
        #[arg(long, default_value = "live")]
        environment: EnvironmentName,
    },
    /// Show the imported lists
    Lists,
    /// Show the places that patients looked for and did not find
    Requests {
        /// Only those of this workspace
        #[arg(long)]
        workspace: Option<String>,
        /// Those that were dealt with, too
        #[arg(long)]
        all: bool,
    },
    /// Note that a place that patients miss was dealt with
    Close {
        /// The request's id, `srcreq_…`
        request: String,
        /// What was done about it
        #[arg(long)]
        note: Option<String>,
    },
    /// Remove a list; connections and sources in use stay
    Remove {
        /// The list's name
        list: String,
        /// live or sandbox
        #[arg(long, default_value = "live")]
        environment: EnvironmentName,
    },
}

/// An activation state on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ActivationName {
    /// Nobody has asked the hospital yet.
    NotAsked,
    /// Asked, and waiting.
    Asked,
    /// The hospital says it is on.
    Active,
    /// Somebody has got through.
    Verified,
    /// The hospital said no.
    Refused,
}

impl From<ActivationName> for ActivationState {
    fn from(name: ActivationName) -> Self {
        match name {
            ActivationName::NotAsked => Self::NotAsked,
            ActivationName::Asked => Self::Asked,
            ActivationName::Active => Self::Active,
            ActivationName::Verified => Self::Verified,
            ActivationName::Refused => Self::Refused,
        }
    }
}

/// Carries a task out.
pub async fn run(layers: Layers, task: DirectoryTask, json: bool) -> Result<(), Failure> {
    let asked = match task {
        DirectoryTask::Import { from, list, environment, yes } => {
            let list = list.unwrap_or_else(|| list_name(&from));
            check_name(&list)?;
            let environment = environment.into();
            let report = if from.starts_with("https://") || from.starts_with("http://") {
                fetch(&layers, DirectoryCommand::Fetch { list, environment, url: from, yes }).await?
            } else {
                Box::pin(import_file(&layers, Path::new(&from), list, environment, yes)).await?
            };
            show(&report, json);
            return Ok(());
        }
        DirectoryTask::Search { words, environment } => {
            DirectoryCommand::Search { environment: environment.into(), words: words.join(" ") }
        }
        DirectoryTask::Lists => DirectoryCommand::Lists,
        DirectoryTask::Requests { workspace, all } => DirectoryCommand::Requests { workspace, all },
        DirectoryTask::Close { request, note } => DirectoryCommand::Close { request, note },
        DirectoryTask::Remove { list, environment } => {
            DirectoryCommand::Remove { list, environment: environment.into() }
        }
    };
    Box::pin(command(layers, Command::Directory(asked), json)).await
}

/// `source packet`: the page itself, not a table around it.
pub async fn packet(
    layers: Layers,
    source: String,
    contact: Option<String>,
    html: bool,
    out: Option<PathBuf>,
    json: bool,
) -> Result<(), Failure> {
    let asked = DirectoryCommand::Packet { source, contact };
    let answer = Reached::new(load(&layers)?).ask(Command::Directory(asked)).await?;
    let page = answer[if html { "html" } else { "text" }].as_str().unwrap_or_default();
    if let Some(path) = &out {
        std::fs::write(path, page)
            .map_err(|cause| Failure::Failed(format!("`{}` cannot be written: {cause}", path.display())))?;
    }
    if json {
        output::json(&answer);
    } else if out.is_none() {
        output::line(page.trim_end());
    }
    let id = answer["id"].as_str().unwrap_or_default();
    output::note(&format!("when it is sent: chartgate source activation {id} asked --note \"to whom\""));
    Ok(())
}

/// `source activation`: the state, and below it how it came to that.
pub async fn activation(
    layers: Layers,
    source: String,
    state: Option<ActivationName>,
    note: Option<String>,
    json: bool,
) -> Result<(), Failure> {
    let asked = DirectoryCommand::Activate { source, state: state.map(Into::into), note };
    let mut answer = Reached::new(load(&layers)?).ask(Command::Directory(asked)).await?;
    if json {
        output::json(&answer);
        return Ok(());
    }
    let steps = answer["steps"].take();
    if let Some(members) = answer.as_object_mut() {
        members.remove("steps");
    }
    output::answer(&answer);
    output::line("");
    output::table(steps.as_array().map_or(&[], Vec::as_slice), &["at", "state", "note"]);
    Ok(())
}

/// A name made of a file's: `millennium_patient_r4_endpoints.json.gz` is `millennium-patient-r4-endpoints`.
fn list_name(from: &str) -> String {
    let last = from.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let stem = last.split(['.', '?']).next().unwrap_or_default().to_lowercase();
    let plain: String =
        stem.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    plain.trim_matches('-').chars().take(64).collect()
}

fn check_name(name: &str) -> Result<(), Failure> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if plain && (1..=64).contains(&name.len()) {
        return Ok(());
    }
    Err(Failure::Configuration(
        "a list's name is of a-z, 0-9 and -, 64 at most: give one with `--list`".to_owned(),
    ))
}

async fn fetch(layers: &Layers, asked: DirectoryCommand) -> Result<Json, Failure> {
    let config = load(layers)?;
    output::note("fetching the list; large ones take minutes");
    let asked = Command::Directory(asked);
    let asked_for = control::ask_for(&config.data_dir, &asked, control::MOST_LIST_TIME).await;
    let answer = if let Some(answer) = asked_for {
        answer
    } else {
        let store = open_store(&config, false)?;
        let app = build(config, store, None).await?;
        control::execute(app.parts(), asked).await
    };
    answer.map_err(|refused| Failure::Failed(refused.to_string()))
}

async fn import_file(
    layers: &Layers,
    path: &Path,
    list: String,
    environment: Environment,
    yes: bool,
) -> Result<Json, Failure> {
    let config = load(layers)?;
    let unreadable =
        |cause: io::Error| Failure::Failed(format!("the list `{}` cannot be read: {cause}", path.display()));
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(Failure::Failed(format!("`{}` is not a file", path.display())));
    }
    let bytes = about.len();
    let reader = Shown { inner: file, progress: Progress::new(bytes) };
    let asked = DirectoryCommand::Import { list: list.clone(), environment, bytes, yes };
    let sent = control::send_with(&config.data_dir, &Command::Directory(asked), reader).await;
    let answer = match sent {
        Ok(answer) => answer,
        Err(reader) => {
            let store = open_store(&config, false)?;
            let app = build(config, store, None).await?;
            let request = ImportRequest { list, environment, url: None, etag: None, yes };
            import(app.parts(), request, reader).await.map(|report| serde_json::json!(report))
        }
    };
    answer.map_err(|refused| Failure::Failed(refused.to_string()))
}

/// A table for people: what was taken, what not and why, and what to look at.
fn show(report: &Json, json: bool) {
    if json {
        return output::json(report);
    }
    let unchanged = report["unchanged"] == Json::Bool(true);
    if unchanged {
        output::line(&format!("{}: nothing has changed", report["list"].as_str().unwrap_or_default()));
    }
    let count = |name: &str| report[name].as_u64();
    let rows = [
        ("rows read", "rows"),
        ("entries", "entries"),
        ("  at so many servers", "sources"),
        ("  not shown to patients", "hidden"),
        ("  without a name", "unnamed"),
        ("rows that repeat others", "doubled"),
        ("new", "added"),
        ("no longer listed", "gone"),
        ("at another address", "moved"),
    ];
    for (label, name) in rows {
        if let Some(number) = count(name).filter(|number| *number > 0 || matches!(name, "rows" | "entries")) {
            output::line(&format!("{label:<28}{number:>9}"));
        }
    }
    for (reason, number) in report["refused"].as_object().into_iter().flatten() {
        let label = format!("not taken: {reason}");
        output::line(&format!("{label:<28}{:>9}", number.as_u64().unwrap_or_default()));
    }
    for name in report["moved_names"].as_array().into_iter().flatten().filter_map(Json::as_str) {
        output::line(&format!("moved: {name}"));
    }
    for warning in report["warnings"].as_array().into_iter().flatten().filter_map(Json::as_str) {
        output::note(&format!("warning: {warning}"));
    }
}

/// Shows how much of a file was read, on a terminal only.
struct Progress {
    total: u64,
    done: u64,
    shown: u64,
    live: bool,
}

impl Progress {
    fn new(total: u64) -> Self {
        Self { total, done: 0, shown: 0, live: io::stderr().is_terminal() }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let step = (self.total / 100).max(1);
        let ended = bytes == 0 || self.done >= self.total;
        if !self.live || (self.done - self.shown < step && !ended) {
            return;
        }
        self.shown = self.done;
        let mut err = io::stderr().lock();
        let _ = if ended {
            self.live = false;
            writeln!(err, "\rreading {}, now sorting and storing", output::bar(1, 1))
        } else {
            write!(err, "\rreading {}", output::bar(self.done, self.total))
        };
        let _ = err.flush();
    }
}

/// A reader whose progress is shown.
pub struct Shown<R> {
    inner: R,
    progress: Progress,
}

impl<R: Read> Read for Shown<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.progress.add(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_named_after_its_file() {
        let check = |from: &str, name: &str| assert_eq!(list_name(from), name);
        check("/tmp/millennium_patient_r4_endpoints.json.gz", "millennium-patient-r4-endpoints");
        check("https://open.epic.com/Endpoints/Brands", "brands");
        check("https://h.example/list.json?x=1", "list");
        assert!(check_name("").is_err());
        assert!(check_name(&list_name("/tmp/ä.json")).is_err());
    }
}
