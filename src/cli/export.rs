//! `chartgate export`: a run goes on in the appliance; this shows how far it is. Without a running appliance it goes on here.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Subcommand;
use serde_json::Value as Json;

use crate::cli::run::{Reached, load};
use crate::cli::{Failure, output};
use crate::config::Layers;
use crate::control::{Command, ExportsCommand};

/// How often it is asked how far a run is.
const LOOK: Duration = Duration::from_millis(300);

/// `export`
#[derive(Debug, Subcommand)]
pub enum ExportTask {
    /// Show the exports of the configuration and how far each is
    List,
    /// Export now what has changed since the last run, and wait for the end
    Run {
        /// The export's name
        name: String,
        /// Everything, not only what has changed
        #[arg(long)]
        full: bool,
    },
    /// Show the runs of an export, newest first
    Runs {
        /// The export's name
        name: String,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 20)]
        last: usize,
    },
}

/// Carries a task out.
pub async fn run(layers: Layers, task: ExportTask, json: bool) -> Result<(), Failure> {
    let mut reached = Reached::new(load(&layers)?);
    let done = carry_out(&mut reached, task, json).await;
    reached.close().await;
    done
}

async fn carry_out(reached: &mut Reached, task: ExportTask, json: bool) -> Result<(), Failure> {
    let command = match task {
        ExportTask::List => ExportsCommand::List,
        ExportTask::Runs { name, last } => ExportsCommand::Runs { name, most: last },
        ExportTask::Run { name, full } => return follow(reached, name, full, json).await,
    };
    let answer = reached.ask(Command::Exports(command)).await?;
    show(&answer, json);
    Ok(())
}

/// Has an export run, and stays until it ends or cannot go on.
async fn follow(reached: &mut Reached, name: String, full: bool, json: bool) -> Result<(), Failure> {
    let begun = reached.ask(Command::Exports(ExportsCommand::Run { name: name.clone(), full })).await?;
    if begun.is_null() {
        if json {
            output::json(&begun);
        } else {
            output::line("nothing has changed since the last run");
        }
        return Ok(());
    }
    let live = io::stderr().is_terminal();
    let earlier = begun["failures"].as_u64();
    loop {
        let asked = ExportsCommand::Runs { name: name.clone(), most: 1 };
        let runs = reached.ask(Command::Exports(asked)).await?;
        let run = &runs[0];
        // A later one means that this one has ended.
        if run["state"] == "succeeded" || run["run"] != begun["run"] {
            progress(run, live, true);
            show(run, json);
            return Ok(());
        }
        if run["failures"].as_u64() > earlier
            && let Some(trouble) = run["trouble"].as_str()
        {
            progress(run, live, true);
            return Err(Failure::Failed(format!(
                "the run could not go on and is tried again later: {trouble}"
            )));
        }
        progress(run, live, false);
        tokio::time::sleep(LOOK).await;
    }
}

/// How far it is, on a terminal only, over and over in one line.
fn progress(run: &Json, live: bool, last: bool) {
    if !live {
        return;
    }
    let count = |name: &str| run[name].as_u64().unwrap_or_default();
    let (patients, expected) = (count("patients"), count("expected"));
    let bar = output::bar(patients, expected);
    let (records, megabytes) = (count("records"), count("bytes") / 1_000_000);
    let mut err = io::stderr().lock();
    let _ = write!(
        err,
        "\rexporting {bar}: {patients} of {expected} patients, {records} records, {megabytes} MB"
    );
    if last {
        let _ = writeln!(err);
    }
    let _ = err.flush();
}

fn show(answer: &Json, json: bool) {
    if json {
        output::json(answer);
    } else {
        output::answer(answer);
    }
}
