//! `keys`: the signing keys that EHRs know, and the keys that seal the store.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value as Json, json};
use zeroize::Zeroizing;

use crate::cli::arguments::AlgorithmName;
use crate::cli::run::{Reached, load};
use crate::cli::{Failure, output, storage_keys};
use crate::config::Layers;
use crate::control::{Command, KeysCommand};
use crate::secret::Secret;

/// The longest PEM file that is read.
const MOST_PEM: u64 = 64 * 1024;

/// `keys`
#[derive(Debug, Subcommand)]
pub enum KeysTask {
    /// List the signing keys with their stages, and who fetched the JWKS
    List,
    /// Make new signing keys and publish them; they sign after `keys activate`
    Rotate {
        /// RS384 or ES384 [default: one of each]
        #[arg(long)]
        algorithm: Option<AlgorithmName>,
        /// Size of the RSA key: 2048, 3072 or 4096 [default: that of the current one]
        #[arg(long, value_name = "N")]
        bits: Option<u32>,
    },
    /// Sign with the next keys from now on; refused until EHRs can know them
    Activate {
        /// The key's id [default: all next ones]
        kid: Option<String>,
        /// Switch although EHRs may not know the key yet
        #[arg(long)]
        force: bool,
    },
    /// Take keys out of the JWKS and erase them; refused while EHRs may still check what they signed
    Retire {
        /// The key's id [default: all retiring ones whose time has come]
        kid: Option<String>,
        /// Retire it at once, for a key that is in the wrong hands
        #[arg(long)]
        force: bool,
    },
    /// Bring a signing key along that was made elsewhere; it becomes the next one
    Import {
        /// A PEM file with one private key, PKCS#1, PKCS#8 or SEC1; `-` reads standard input
        file: PathBuf,
        /// The id that EHRs know it by [default: its thumbprint]
        #[arg(long)]
        kid: Option<String>,
        /// EHRs know it already: sign with it at once
        #[arg(long)]
        known: bool,
    },
    /// Print the JWKS as EHRs get it, for a registration that wants a file
    ExportJwks {
        /// Write it here instead
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Change the master key; nothing else changes, and a running appliance does not notice
    RotateMaster {
        /// Write the new key here and leave it to you to put it in place, as for a systemd credential
        #[arg(long, value_name = "FILE")]
        new_key: Option<PathBuf>,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Change the key that seals the data, and seal everything anew; an interrupted change goes on
    RotateData {
        /// Say how much there is to seal anew, and do nothing
        #[arg(long, conflicts_with = "no_wait")]
        dry_run: bool,
        /// Do not wait for the end; the running appliance goes on by itself
        #[arg(long)]
        no_wait: bool,
        /// Say how far a change is, and do nothing
        #[arg(long, conflicts_with_all = ["dry_run", "no_wait"])]
        status: bool,
    },
}

/// Carries a task out.
pub async fn run(layers: Layers, task: KeysTask, json: bool) -> Result<(), Failure> {
    let mut reached = Reached::new(load(&layers)?);
    if matches!(task, KeysTask::RotateMaster { .. } | KeysTask::RotateData { dry_run: true, .. }) {
        // A dry run changes nothing at all, and a change of the master key finishes an earlier one itself.
        reached = reached.leaving_key_files();
    }
    let done = carry_out(&mut reached, task, json).await;
    reached.close().await;
    done
}

async fn carry_out(reached: &mut Reached, task: KeysTask, json: bool) -> Result<(), Failure> {
    match task {
        KeysTask::RotateMaster { new_key, dry_run } => {
            storage_keys::rotate_master(reached, new_key, dry_run, json).await
        }
        KeysTask::RotateData { status: true, .. } => storage_keys::data_progress(reached, json).await,
        KeysTask::RotateData { dry_run, no_wait, status: false } => {
            storage_keys::rotate_data(reached, dry_run, !no_wait, json).await
        }
        KeysTask::List => {
            let answer = reached.ask(Command::Keys(KeysCommand::List)).await?;
            if json {
                output::json(&answer);
            } else {
                show_keys(&answer);
                output::line("");
                show_fetchers(&answer);
            }
            Ok(())
        }
        KeysTask::Rotate { algorithm, bits } => {
            let command = KeysCommand::Rotate { algorithm: algorithm.map(Into::into), bits };
            changed(reached, command, json, "published; `keys activate` lets it sign").await
        }
        KeysTask::Activate { kid, force } => {
            let advice = "in use; `keys retire` ends the ones before";
            changed(reached, KeysCommand::Activate { kid, force }, json, advice).await
        }
        KeysTask::Retire { kid, force } => {
            changed(reached, KeysCommand::Retire { kid, force }, json, "erased").await
        }
        KeysTask::Import { file, kid, known } => {
            let command = KeysCommand::Import { pem: read_pem(&file)?, kid, known };
            let advice = if known { "in use" } else { "published; `keys activate` lets it sign" };
            changed(reached, command, json, advice).await?;
            output::note(&format!(
                "the key is in the store now; destroy `{}` when no other program uses it",
                file.display()
            ));
            Ok(())
        }
        KeysTask::ExportJwks { out } => {
            let jwks = reached.ask(Command::Keys(KeysCommand::ExportJwks)).await?;
            let Some(out) = out else {
                output::json(&jwks);
                return Ok(());
            };
            write_public(&out, format!("{jwks:#}\n").as_bytes())?;
            let answer = json!({ "file": out, "keys": jwks["keys"].as_array().map(Vec::len) });
            if json {
                output::json(&answer);
            } else {
                output::answer(&answer);
            }
            Ok(())
        }
    }
}

async fn changed(
    reached: &mut Reached,
    command: KeysCommand,
    json: bool,
    advice: &str,
) -> Result<(), Failure> {
    let answer = reached.ask(Command::Keys(command)).await?;
    if json {
        output::json(&answer);
    } else {
        show_keys(&answer);
        output::note(advice);
    }
    Ok(())
}

fn show_keys(answer: &Json) {
    let names = ["kid", "algorithm", "key", "stage", "since", "next_step_at", "seen_by"];
    output::table(answer["keys"].as_array().map_or(&[], Vec::as_slice), &names);
}

fn show_fetchers(answer: &Json) {
    output::line("who fetched the JWKS:");
    let names = ["address", "host", "agent", "count", "first", "last"];
    output::table(answer["fetchers"].as_array().map_or(&[], Vec::as_slice), &names);
}

/// Reads the private key here, so that the appliance needs no right to the file and learns no path.
fn read_pem(path: &Path) -> Result<Secret, Failure> {
    let failed = |cause: &dyn std::fmt::Display| {
        Failure::Configuration(format!("`{}` cannot be read: {cause}", path.display()))
    };
    let mut text = Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        std::io::stdin().take(MOST_PEM + 1).read_to_string(&mut text)
    } else {
        let file = File::open(path).map_err(|cause| failed(&cause))?;
        file.take(MOST_PEM + 1).read_to_string(&mut text)
    };
    // The system's own words for what is no text would not repeat any of it, but say too little.
    read.map_err(|cause| {
        let not_text = cause.kind() == std::io::ErrorKind::InvalidData;
        if not_text { failed(&"it is no text; a key in PEM form is wanted") } else { failed(&cause) }
    })?;
    if text.len() as u64 > MOST_PEM {
        return Err(failed(&"it is far too long for one private key"));
    }
    Ok(Secret::new(text.as_str()))
}

/// Writes a file that everybody may read, whole or not at all.
fn write_public(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|cause| Failure::Failed(format!("`{}` cannot be written: {cause}", path.display())))
}
