//! The commands about keys.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::app::Parts;
use crate::config::format_duration;
use crate::control::{Refused, storage_keys};
use crate::crypto::{Algorithm, KeyType};
use crate::secret::Secret;
use crate::smart::keys::{Fetcher, KeyStage, RotationError, SigningKey};

/// What can be asked about keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum KeysCommand {
    /// Lists the signing keys, and who fetched them.
    List,
    /// Publishes new signing keys as the next ones.
    Rotate {
        /// For this algorithm; else for both.
        algorithm: Option<Algorithm>,
        /// Size of an RSA key; else that of the current one.
        bits: Option<u32>,
    },
    /// Lets next keys sign.
    Activate {
        /// This one; else all next ones.
        kid: Option<String>,
        /// Although EHRs may not know it yet.
        force: bool,
    },
    /// Ends keys.
    Retire {
        /// This one; else all retiring ones whose time has come.
        kid: Option<String>,
        /// Although signatures of it may still be checked.
        force: bool,
    },
    /// Takes a key that was made elsewhere.
    Import {
        /// The private key.
        pem: Secret,
        /// The name that EHRs know it by.
        kid: Option<String>,
        /// EHRs have it already, so that it may sign at once.
        known: bool,
    },
    /// Shows the public keys as EHRs get them.
    ExportJwks,
    /// Tells whether a master key opens the store.
    MasterKeyOpens {
        /// The key.
        key: Secret,
    },
    /// Wraps the keys of the store with another master key.
    ChangeMasterKey {
        /// The one until now; else that of the configuration.
        old: Option<Secret>,
        /// The one from now on; it must be on disk.
        new: Secret,
        /// Where it is.
        written_to: String,
    },
    /// Makes a new data key, and seals everything anew in the background.
    ChangeDataKey {
        /// The master key; else that of the configuration.
        key: Option<Secret>,
    },
    /// Tells how far that is.
    DataKeyProgress,
    /// Tells how much there would be to seal anew.
    DataKeySurvey,
}

pub(super) async fn execute(parts: &Parts, command: KeysCommand) -> Result<Json, Refused> {
    let keys = &parts.signing_keys;
    match command {
        KeysCommand::List => Ok(json!({
            "overlap": format_duration(keys.overlap()),
            "keys": rows(parts, keys.list()),
            "fetchers": parts.jwks_fetches.list().iter().map(fetcher_row).collect::<Json>(),
        })),
        KeysCommand::Rotate { algorithm, bits } => {
            let kinds = kinds(parts, algorithm, bits)?;
            told(parts, keys.rotate(&kinds).await)
        }
        KeysCommand::Activate { kid, force } => told(parts, keys.activate(kid, force).await),
        KeysCommand::Retire { kid, force } => told(parts, keys.retire(kid, force).await),
        KeysCommand::Import { pem, kid, known } => {
            told(parts, keys.import(pem, kid, known).await.map(|key| vec![key]))
        }
        KeysCommand::MasterKeyOpens { key } => storage_keys::opens(parts, &key).await,
        KeysCommand::ChangeMasterKey { old, new, written_to } => {
            storage_keys::change_master_key(parts, old, &new, written_to).await
        }
        KeysCommand::ChangeDataKey { key } => storage_keys::change_data_key(parts, key).await,
        KeysCommand::DataKeyProgress => storage_keys::progress(parts).await,
        KeysCommand::DataKeySurvey => storage_keys::survey(parts).await,
        KeysCommand::ExportJwks => serde_json::from_slice(&keys.jwks())
            .map_err(|_| Refused("the JWKS cannot be read; see the log".to_owned())),
    }
}

/// Which keys a rotation makes.
fn kinds(parts: &Parts, algorithm: Option<Algorithm>, bits: Option<u32>) -> Result<Vec<KeyType>, Refused> {
    let rsa = match bits {
        Some(2048) => KeyType::Rsa2048,
        Some(3072) => KeyType::Rsa3072,
        Some(4096) => KeyType::Rsa4096,
        Some(_) => return Err(Refused("an RSA key has 2048, 3072 or 4096 bits".to_owned())),
        None => {
            let now = parts.signing_keys.list().into_iter();
            let mut now =
                now.filter(|key| key.stage == KeyStage::Current && key.algorithm() == Algorithm::Rs384);
            now.next().map_or(KeyType::Rsa2048, |key| key.kind)
        }
    };
    match algorithm {
        Some(Algorithm::Es384) if bits.is_some() => {
            Err(Refused("`--bits` is for RS384; a key for ES384 has one size only".to_owned()))
        }
        Some(Algorithm::Es384) => Ok(vec![KeyType::EcP384]),
        Some(Algorithm::Rs384) => Ok(vec![rsa]),
        None => Ok(vec![rsa, KeyType::EcP384]),
        Some(Algorithm::Rs256 | Algorithm::Es256) => {
            Err(Refused("SMART knows RS384 and ES384 only".to_owned()))
        }
    }
}

fn told(parts: &Parts, done: Result<Vec<SigningKey>, RotationError>) -> Result<Json, Refused> {
    match done {
        Ok(keys) => Ok(json!({ "keys": rows(parts, keys) })),
        Err(RotationError::TooEarly { kid, stage, since, possible_at }) => {
            let overlap = format_duration(parts.signing_keys.overlap());
            let mut text = if stage == KeyStage::Next {
                format!(
                    "`{kid}` cannot sign before {possible_at}: it has been published since {since}, and EHRs may keep the \
                     JWKS they have for {overlap} (`signing.overlap`)"
                )
            } else {
                format!(
                    "`{kid}` cannot be retired before {possible_at}: it signed until {since}, and what it signed may be \
                     checked for the life of an assertion and {overlap} (`signing.overlap`)"
                )
            };
            if stage == KeyStage::Next {
                let (seen, unseen): (Vec<_>, Vec<_>) =
                    parts.jwks_fetches.list().into_iter().partition(|fetcher| fetcher.kids.contains(&kid));
                text += &named("\n  have fetched it since:", &seen);
                text += &named("\n  have not:", &unseen);
            }
            text += "\n  `--force` does it now all the same; where an EHR does not know the key, it refuses us until it does";
            Err(Refused(text))
        }
        Err(error) => Err(Refused(error.to_string())),
    }
}

/// The fetchers in a text for people.
fn named(heading: &str, fetchers: &[Fetcher]) -> String {
    if fetchers.is_empty() {
        return format!("{heading} nobody that is known");
    }
    let lines = fetchers.iter().map(|fetcher| {
        let place = match &fetcher.host {
            Some(host) => format!("{host} ({})", fetcher.address),
            None => fetcher.address.to_string(),
        };
        format!("\n    {place}, {}, last at {}", fetcher.agent, fetcher.last)
    });
    std::iter::once(heading.to_owned()).chain(lines).collect()
}

fn fetcher_row(fetcher: &Fetcher) -> Json {
    json!({
        "network": fetcher.network, "address": fetcher.address, "host": fetcher.host, "agent": fetcher.agent,
        "first": fetcher.first.to_string(), "last": fetcher.last.to_string(), "count": fetcher.count,
        "kids": fetcher.kids,
    })
}

fn rows(parts: &Parts, keys: Vec<SigningKey>) -> Json {
    let (now, overlap) = (parts.clock.now(), parts.signing_keys.overlap());
    let fetchers = parts.jwks_fetches.list();
    let rows = keys.into_iter().map(|key| {
        json!({
            "kid": key.kid,
            "algorithm": key.algorithm(),
            "key": match key.kind {
                KeyType::Rsa2048 => "RSA 2048",
                KeyType::Rsa3072 => "RSA 3072",
                KeyType::Rsa4096 => "RSA 4096",
                KeyType::EcP384 => "P-384",
                KeyType::EcP256 => "P-256",
            },
            "stage": key.stage,
            "since": key.stage_since().to_string(),
            "next_step_at": key.next_step_at(overlap).map(|at| at.to_string()),
            "seen_by": fetchers.iter().filter(|fetcher| fetcher.kids.contains(&key.kid)).count(),
            "age_days": now.since(key.created_at).as_secs() / 86_400,
            "created_at": key.created_at.to_string(),
            "current_since": key.current_since.map(|at| at.to_string()),
            "retiring_since": key.retiring_since.map(|at| at.to_string()),
            "retired_at": key.retired_at.map(|at| at.to_string()),
            "thumbprint": key.thumbprint(),
            "imported": key.imported,
        })
    });
    rows.collect()
}
