//! `backup` and `restore`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use crate::cli::run::{Reached, load, store_file};
use crate::cli::{Failure, init, output};
use crate::clock::Clock;
use crate::config::{Config, Layers};
use crate::control::Command;
use crate::crypto::Random;
use crate::store::{BackupError, BackupProgress, BackupReport, MasterKeyFile, OpenError, Opening, Store};

const LOOK: Duration = Duration::from_millis(200);

/// `backup`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Backup {
    #[command(subcommand)]
    task: Option<BackupTask>,
    /// Write it here [default: a name with the time, in the folder of the configuration]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Say how far the latest one is, and make none
    #[arg(long, conflicts_with = "out")]
    status: bool,
}

/// What else can be done with backups.
#[derive(Debug, Subcommand)]
pub enum BackupTask {
    /// Read a backup from beginning to end and open every value in it; needs no running appliance
    Verify {
        /// The backup
        file: PathBuf,
    },
}

/// `restore`
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup
    file: PathBuf,
    /// Move a database that is there aside
    #[arg(long)]
    yes: bool,
}

/// Makes a backup of the running appliance, or of a store that nobody uses; or checks one.
pub async fn back_up(layers: Layers, arguments: Backup, json: bool) -> Result<(), Failure> {
    let config = load(&layers)?;
    if let Some(BackupTask::Verify { file }) = arguments.task {
        return verify(&config, &file, json).await;
    }
    let mut reached = Reached::new(config);
    let done = make(&mut reached, arguments, json).await;
    reached.close().await;
    done
}

async fn make(reached: &mut Reached, arguments: Backup, json: bool) -> Result<(), Failure> {
    let mut state = if arguments.status {
        reached.ask(Command::BackupState).await?
    } else {
        let to = arguments.out.map(std::path::absolute).transpose().map_err(|cause| {
            Failure::Configuration(format!("the file of the backup is no usable path: {cause}"))
        })?;
        reached.ask(Command::BackUp { to }).await?
    };
    let terminal = std::io::stderr().is_terminal();
    while !arguments.status && matches!(state["state"].as_str(), Some("writing" | "checking")) {
        if terminal {
            let count = |name: &str| state[name].as_u64().unwrap_or(0);
            show(&bar(count("rows"), count("total"), state["state"].as_str().unwrap_or_default()));
        }
        tokio::time::sleep(LOOK).await;
        state = reached.ask(Command::BackupState).await?;
    }
    if terminal && !arguments.status {
        output::note("");
    }
    if state["state"] == "failed" && !arguments.status {
        let (file, why) = (state["file"].as_str(), state["why"].as_str());
        return Err(Failure::Failed(format!(
            "the backup `{}` was not made: {}",
            file.unwrap_or_default(),
            why.unwrap_or_default()
        )));
    }
    say(&state, json);
    if !arguments.status {
        output::note(
            "it needs the master key of today to be of any use: keep a copy of that key apart from it",
        );
    }
    Ok(())
}

async fn verify(config: &Config, file: &Path, json: bool) -> Result<(), Failure> {
    let opening = opening(config)?;
    let path = file.to_owned();
    let report =
        watched("checking", move |progress| Store::check_backup(&path, &opening.master_key, progress))
            .await?;
    say(&told("whole", file, &report), json);
    Ok(())
}

/// Makes the store of a configuration from a backup.
pub async fn restore(layers: Layers, arguments: Restore, json: bool) -> Result<(), Failure> {
    let config = load(&layers)?;
    let Restore { file, yes } = arguments;
    let opening = opening(&config)?;
    let aside = if opening.path.exists() {
        drop(unused(&opening)?);
        if !yes {
            return Err(Failure::Failed(format!(
                "there is a database at `{}` already, and nothing was changed; with `--yes` it is moved aside, not removed",
                opening.path.display()
            )));
        }
        // First, so that a backup that is of no use moves nothing.
        let (path, key) = (file.clone(), opening.master_key.clone());
        watched("checking", move |progress| Store::check_backup(&path, &key, progress)).await?;
        // Held until it has been moved: a server that started meanwhile would go on writing into it.
        let held = unused(&opening)?;
        let plain = Clock::machine().now().to_string().replace([':', '-'], "");
        let aside = opening.path.with_extension(format!("before-restore-{plain}.redb"));
        std::fs::rename(&opening.path, &aside).map_err(|cause| {
            Failure::Failed(format!("`{}` cannot be moved aside: {cause}", opening.path.display()))
        })?;
        drop(held);
        Some(aside)
    } else {
        init::make_folder(&config.data_dir)?;
        None
    };
    let (path, wanted) = (file.clone(), opening.clone());
    let restored = watched("restoring", move |progress| {
        Store::restore(&path, &wanted, Random::system(), progress).map(|(_, report)| report)
    })
    .await;
    let report = match (restored, &aside) {
        (Ok(report), _) => report,
        (Err(error), None) => return Err(error),
        (Err(error), Some(aside)) => {
            // What was there is better than nothing.
            let back = !opening.path.exists() && std::fs::rename(aside, &opening.path).is_ok();
            let what = if back {
                "the database that was there is in its place again"
            } else {
                "the database that was there is kept beside it"
            };
            return Err(Failure::Failed(format!("{error}; {what}")));
        }
    };
    let mut answer = told("restored", &file, &report);
    answer["database"] = json!(opening.path);
    answer["moved_aside"] = json!(aside);
    say(&answer, json);
    output::note(
        "`chartgate serve` goes on from there. Grants that were refreshed after the backup was made may have been replaced at their \
         hospitals: those patients are asked to connect again",
    );
    Ok(())
}

/// Makes sure that nobody uses a store, as long as what is returned lives. What does not open may be the reason for all
/// this, and is held by nobody.
fn unused(opening: &Opening) -> Result<Option<Store>, Failure> {
    match Store::open(opening, Random::system()) {
        Ok(store) => Ok(Some(store)),
        Err(error @ OpenError::InUse(_)) => Err(Failure::Server(error.to_string())),
        Err(_) => Ok(None),
    }
}

/// How the store of a configuration is opened.
fn opening(config: &Config) -> Result<Opening, Failure> {
    let key = config.master_key_path().ok_or_else(|| {
        Failure::Configuration(
            "there is no master key: set `master_key.file`, or give systemd's credential `master.key`"
                .to_owned(),
        )
    })?;
    let master_key =
        MasterKeyFile::at(key).read().map_err(|error| Failure::Configuration(error.to_string()))?;
    Ok(Opening {
        path: store_file(config),
        master_key,
        cache_bytes: config.store.cache.as_len(),
        create: false,
    })
}

/// Runs long work off the async threads, and shows how far it is where somebody watches.
async fn watched(
    what: &str,
    work: impl FnOnce(&BackupProgress) -> Result<BackupReport, BackupError> + Send + 'static,
) -> Result<BackupReport, Failure> {
    let progress = Arc::new(BackupProgress::default());
    let shared = Arc::clone(&progress);
    let mut done = tokio::task::spawn_blocking(move || work(&shared));
    let terminal = std::io::stderr().is_terminal();
    let done = loop {
        tokio::select! {
            done = &mut done => break done,
            () = tokio::time::sleep(LOOK), if terminal => {
                let (rows, total, _, _) = progress.seen();
                show(&bar(rows, total, what));
            }
        }
    };
    if terminal {
        output::note("");
    }
    let done = done.map_err(|_| Failure::Failed("it broke off".to_owned()))?;
    done.map_err(|error| match error {
        BackupError::WrongMasterKey(_) => Failure::Configuration(error.to_string()),
        BackupError::Opening(OpenError::InUse(_)) => Failure::Server(error.to_string()),
        BackupError::File { .. }
        | BackupError::Exists(_)
        | BackupError::Unusable { .. }
        | BackupError::Newer(_)
        | BackupError::Stopped
        | BackupError::Store(_)
        | BackupError::Opening(_) => Failure::Failed(error.to_string()),
    })
}

fn told(state: &str, file: &Path, report: &BackupReport) -> Json {
    json!({
        "state": state, "file": file, "made_at": report.made_at.to_string(), "rows": report.rows, "bytes": report.bytes,
    })
}

fn show(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "\r{text}");
    let _ = err.flush();
}

/// Without a total, only the count.
fn bar(rows: u64, total: u64, what: &str) -> String {
    if total == 0 {
        return format!("{what}: {rows} rows      ");
    }
    format!("{}  {what}      ", output::bar(rows, total))
}

fn say(answer: &Json, json: bool) {
    if json {
        output::json(answer);
    } else {
        output::answer(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_total_there_is_only_a_count() {
        assert_eq!(bar(5, 10, "writing").trim(), format!("{}  writing", output::bar(5, 10)));
        assert_eq!(bar(3, 0, "checking").trim(), "checking: 3 rows");
    }
}
