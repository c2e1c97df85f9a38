//! `keys rotate-master` and `keys rotate-data`: the keys that seal the store.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::cli::run::{Reached, finish_master_key};
use crate::cli::{Failure, output};
use crate::clock::Clock;
use crate::control::{Command, KeysCommand};
use crate::crypto::Random;
use crate::secret::Secret;
use crate::store::{HeldKeyFile, KeyFileError, MasterKey, MasterKeyFile};

/// How often progress is asked for.
const LOOK: Duration = Duration::from_millis(200);
/// How many looks lie between two lines of progress where nobody watches.
const LOOKS_A_LINE: u32 = 5;

/// Changes the master key. The steps are such that a key that opens the store is on disk, in the configured file or beside
/// it (or where `named` says), whenever this is interrupted. No other command touches the files meanwhile.
pub async fn rotate_master(
    reached: &mut Reached,
    named: Option<PathBuf>,
    dry_run: bool,
    json: bool,
) -> Result<(), Failure> {
    // systemd's credential is a copy that nobody can write; only a file of the configuration can be replaced here.
    let file = reached.config().master_key.file.clone().map(MasterKeyFile::at);
    let held = match &file {
        Some(file) if !dry_run => Some(file.hold().map_err(|error| {
            if matches!(error, KeyFileError::Busy(_)) {
                Failure::Failed(format!("{error}; nothing was changed"))
            } else {
                Failure::Configuration(error.to_string())
            }
        })?),
        _ => None,
    };
    let old = if let Some(file) = &file {
        Some(opening_key(reached, file, held.as_ref()).await?)
    } else {
        ask(reached, KeysCommand::DataKeyProgress).await?;
        None
    };
    let new = MasterKey::generate(&Random::system());
    let target = Target::of(named, file)?;
    if dry_run {
        let replaced = target.replaces().map(MasterKeyFile::path);
        let would_write = replaced.map_or_else(|| target.path(&new), PathBuf::from);
        say(
            &json!({ "state": "nothing was done", "would_write": would_write, "would_replace": replaced }),
            json,
        );
        return Ok(());
    }
    let written_to = target.write(held.as_ref(), &new).map_err(|error| {
        Failure::Failed(format!(
            "{error}; nothing was changed; run this as a user who may write there, or name another place with `--new-key FILE`"
        ))
    })?;
    let command = KeysCommand::ChangeMasterKey {
        old: old.as_ref().map(secret),
        new: secret(&new),
        written_to: written_to.display().to_string(),
    };
    let wrapped = match ask(reached, command).await {
        Ok(answer) => answer["wrapped"].clone(),
        // No answer is no proof that nothing happened.
        Err(error) => match opens(reached, &new).await {
            Ok(true) => Json::Null,
            opens => return Err(not_changed(&error, opens.is_ok(), &written_to)),
        },
    };
    let mut told = json!({ "state": "changed", "wrapped": wrapped });
    let advice = if let (Some(file), Some(held)) = (target.replaces(), &held) {
        let kept = put_in_place(reached, file, held, &new).await?;
        told["master_key"] = json!(file.path());
        told["old_key"] = json!(kept);
        let kept = kept.map_or_else(|| "the old one".to_owned(), |kept| format!("`{}`", kept.display()));
        format!(
            "make a copy of the new key, apart from the backups; {kept} opens backups made before now: destroy it with \
                 the last of them"
        )
    } else {
        told["new_key"] = json!(written_to);
        format!(
            "put `{}` in the place of the master key before the next start; keep the old one as long as you have backups \
                 made before now",
            written_to.display()
        )
    };
    say(&told, json);
    output::note(&advice);
    output::note(
        "the data keys are the same as before: if the old master key may be in wrong hands, run `chartgate keys rotate-data` \
         now, too",
    );
    Ok(())
}

/// The store did not take the new key, or did not say that it has.
fn not_changed(error: &Failure, known: bool, written_to: &Path) -> Failure {
    let state = if known {
        "the store opened with the old key just now, but the change may still be under way"
    } else {
        "whether the master key was changed is not known"
    };
    Failure::Failed(format!(
        "{error}; {state}: keep both the old key and `{}`; the next `keys rotate-master` or start finds out which of them opens \
         the store",
        written_to.display()
    ))
}

/// Lets the new key take the place of the old one, and makes sure that it opens the store from there.
async fn put_in_place(
    reached: &mut Reached,
    file: &MasterKeyFile,
    held: &HeldKeyFile,
    new: &MasterKey,
) -> Result<Option<PathBuf>, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::Failed(format!(
            "the master key was changed, and the store opens with `{}` now, but that could not take the place of `{}`: \
             {error}; keep both; it is tried again whenever the store is opened",
            file.waiting_path(new).display(),
            file.path().display()
        ))
    };
    let kept = held.promote(new, Clock::machine().now()).map_err(|error| failed(&error))?;
    let there = file.read().map_err(|error| failed(&error))?;
    if !opens(reached, &there).await? {
        return Err(Failure::Failed(format!(
            "`{}` does not open the store, although it holds the key that the store was given: somebody else has changed the \
             master key meanwhile; do not stop the appliance before you have the key that opens its store",
            file.path().display()
        )));
    }
    if let Err(error) = held.clear(&there) {
        output::note(&format!("warning: keys that were never used are left over: {error}"));
    }
    Ok(kept)
}

/// Where a new master key goes.
enum Target {
    /// Into the place of the old one.
    Replace(MasterKeyFile),
    /// Where the operator says.
    Named(PathBuf),
}

impl Target {
    fn of(named: Option<PathBuf>, file: Option<MasterKeyFile>) -> Result<Self, Failure> {
        match (named, file) {
            (Some(path), _) => std::path::absolute(&path).map(Self::Named).map_err(|cause| {
                Failure::Configuration(format!("`{}` is no usable path: {cause}", path.display()))
            }),
            (None, Some(file)) => Ok(Self::Replace(file)),
            (None, None) => Err(Failure::Configuration(
                "the master key is no file of the configuration but a credential, which cannot be replaced from here; name \
                 a file for the new key with `--new-key FILE`, then make that the credential"
                    .to_owned(),
            )),
        }
    }

    /// Where this key is written to first.
    fn path(&self, key: &MasterKey) -> PathBuf {
        match self {
            Self::Replace(file) => file.waiting_path(key),
            Self::Named(path) => path.clone(),
        }
    }

    fn replaces(&self) -> Option<&MasterKeyFile> {
        match self {
            Self::Replace(file) => Some(file),
            Self::Named(_) => None,
        }
    }

    fn write(&self, held: Option<&HeldKeyFile>, key: &MasterKey) -> Result<PathBuf, KeyFileError> {
        match (self, held) {
            (Self::Replace(_), Some(held)) => held.stage(key),
            (Self::Replace(file), None) => Err(KeyFileError::Busy(file.path().to_owned())),
            (Self::Named(path), _) => key.write_new(path).map(|()| path.clone()),
        }
    }
}

/// The key of the configuration, after it was found to open the store. A change that was interrupted is finished first, by
/// whoever holds the files; as long as that fails there is no other change, because its key is nowhere else.
async fn opening_key(
    reached: &mut Reached,
    file: &MasterKeyFile,
    held: Option<&HeldKeyFile>,
) -> Result<MasterKey, Failure> {
    let unreadable = |error: KeyFileError| Failure::Configuration(error.to_string());
    let key = file.read().map_err(unreadable)?;
    if opens(reached, &key).await? {
        return Ok(key);
    }
    for waiting in file.waiting() {
        if !opens(reached, &waiting).await? {
            continue;
        }
        match held {
            Some(held) => finish_master_key(file, held, &waiting).map_err(|error| {
                Failure::Failed(format!(
                    "an earlier change of the master key is not finished: the store opens with a key beside `{}` that could \
                     not take its place: {error}; nothing was changed now",
                    file.path().display()
                ))
            })?,
            None => output::note("an earlier change of the master key was interrupted; it would be finished first"),
        }
        return Ok(waiting);
    }
    Err(Failure::Configuration(format!(
        "the master key `{}` does not open the store as it is now; nothing was changed; put the right key there: it was \
         changed before, or replaced by mistake. The running appliance holds what it needs in memory: do not stop it \
         before you have the key that opens its store",
        file.path().display()
    )))
}

async fn opens(reached: &mut Reached, key: &MasterKey) -> Result<bool, Failure> {
    Ok(ask(reached, KeysCommand::MasterKeyOpens { key: secret(key) }).await?["opens"] == true)
}

/// Changes the data key, and shows how everything is sealed anew.
pub async fn rotate_data(
    reached: &mut Reached,
    dry_run: bool,
    wait: bool,
    json: bool,
) -> Result<(), Failure> {
    if dry_run {
        let answer = ask(reached, KeysCommand::DataKeySurvey).await?;
        say(&json!({ "state": "nothing was done", "rows": answer["rows"], "bytes": answer["bytes"] }), json);
        return Ok(());
    }
    let mut progress = ask(reached, KeysCommand::ChangeDataKey { key: None }).await?;
    let mut shown = Shown { terminal: std::io::stderr().is_terminal(), looks: 0, last: Json::Null };
    while wait && matches!(progress["stage"].as_str(), Some("renewing" | "checking")) {
        shown.show(&progress);
        tokio::time::sleep(LOOK).await;
        progress = ask(reached, KeysCommand::DataKeyProgress).await?;
    }
    if wait {
        shown.end(&progress);
    }
    if progress["stage"] == "stuck" {
        return Err(Failure::Failed(format!(
            "{} rows are opened by no key, so the old data key is kept; they were damaged before this, and the log names no \
             more; restore a backup, or go on without them: everything else is sealed by the new key",
            progress["unreadable"]
        )));
    }
    say(&progress, json);
    if let Some(until) = progress["old_key_until"].as_str() {
        output::note(&format!(
            "every row is sealed by the new key; the old one is kept until {until} for sign-ins that are under way, and \
             dropped by the running appliance after that"
        ));
    }
    Ok(())
}

/// Progress for people who watch, or line by line for whoever reads later.
struct Shown {
    terminal: bool,
    looks: u32,
    last: Json,
}

impl Shown {
    fn show(&mut self, progress: &Json) {
        if self.terminal {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r{}", bar(progress));
            let _ = err.flush();
        } else if self.looks.is_multiple_of(LOOKS_A_LINE) && self.last != *progress {
            output::note(&progress.to_string());
            self.last = progress.clone();
        }
        self.looks += 1;
    }

    fn end(&mut self, progress: &Json) {
        if self.terminal {
            output::note(&format!("\r{}", bar(progress)));
        } else if self.last != *progress {
            output::note(&progress.to_string());
        }
    }
}

fn bar(progress: &Json) -> String {
    let count = |name: &str| progress[name].as_u64().unwrap_or(0);
    let (total, stage) = (count("total").max(1), progress["stage"].as_str().unwrap_or_default());
    let passed = if matches!(stage, "renewing" | "checking") { count("passed").min(total) } else { total };
    format!("{}  {} rows sealed anew, {stage}      ", output::bar(passed, total), count("renewed"))
}

/// Says how far a change of the data key is.
pub async fn data_progress(reached: &mut Reached, json: bool) -> Result<(), Failure> {
    say(&ask(reached, KeysCommand::DataKeyProgress).await?, json);
    Ok(())
}

fn say(answer: &Json, json: bool) {
    if json {
        output::json(answer);
    } else {
        output::answer(answer);
    }
}

fn secret(key: &MasterKey) -> Secret {
    Secret::new(key.to_text().as_str())
}

async fn ask(reached: &mut Reached, command: KeysCommand) -> Result<Json, Failure> {
    reached.ask(Command::Keys(command)).await
}
