//! The commands about the keys that seal the store. Files of master keys are for whoever gives the command: the running
//! appliance may have no right to write where they are.

use serde_json::{Value as Json, json};

use crate::app::Parts;
use crate::control::Refused;
use crate::secret::Secret;
use crate::store::{KeyChangeError, MasterChange, MasterKey, MasterKeyFile, Progress, StoreError};

/// Whether a master key opens the store as it is now.
pub(super) async fn opens(parts: &Parts, key: &Secret) -> Result<Json, Refused> {
    Ok(json!({ "opens": parts.store.opens_with(&parse(key)?).await? }))
}

/// Wraps the key ring with another master key.
pub(super) async fn change_master_key(
    parts: &Parts,
    old: Option<Secret>,
    new: &Secret,
    written_to: String,
) -> Result<Json, Refused> {
    let (old, new) = (opening_key(parts, old).await?, parse(new)?);
    let change = MasterChange { at: parts.clock.now(), written_to };
    let wrapped = parts.store.change_master_key(&old, &new, change).await.map_err(refused)?;
    tracing::info!(keys = wrapped, "the master key was changed");
    Ok(json!({ "wrapped": wrapped }))
}

/// Makes a new data key, and lets the background seal everything anew. One that is under way goes on.
pub(super) async fn change_data_key(parts: &Parts, key: Option<Secret>) -> Result<Json, Refused> {
    let key = opening_key(parts, key).await?;
    match parts.data_keys.begin(&key).await {
        Ok(()) => tracing::info!("a new data key seals from now on; everything else is sealed anew"),
        Err(KeyChangeError::UnderWay) => {}
        Err(error) => return Err(refused(error)),
    }
    parts.data_keys.start();
    progress(parts).await
}

/// How far that is.
pub(super) async fn progress(parts: &Parts) -> Result<Json, Refused> {
    let Progress { stage, passed, total, renewed, bytes, unreadable, started_at, finished_at, old_key_until } =
        parts.data_keys.progress().await?;
    Ok(json!({
        "stage": stage, "passed": passed, "total": total, "renewed": renewed, "bytes": bytes,
        "unreadable": unreadable,
        "started_at": started_at.map(|at| at.to_string()),
        "finished_at": finished_at.map(|at| at.to_string()),
        "old_key_until": old_key_until.map(|at| at.to_string()),
    }))
}

/// What a change of the data key would have to do.
pub(super) async fn survey(parts: &Parts) -> Result<Json, Refused> {
    opening_key(parts, None).await?;
    let (rows, bytes) = parts.data_keys.survey().await?;
    Ok(json!({ "rows": rows, "bytes": bytes }))
}

/// The key that opens the store: the given one, else that of the configuration, or one beside it that waits to take
/// its place.
async fn opening_key(parts: &Parts, given: Option<Secret>) -> Result<MasterKey, Refused> {
    let candidates = if let Some(key) = given {
        vec![parse(&key)?]
    } else {
        let path = parts.config.master_key_path();
        let path = path.ok_or_else(|| Refused("no file of the master key is configured".to_owned()))?;
        let file = MasterKeyFile::at(path);
        let read = file.read().map_err(|error| Refused(error.to_string()))?;
        std::iter::once(read).chain(file.waiting()).collect()
    };
    for key in candidates {
        if parts.store.opens_with(&key).await? {
            return Ok(key);
        }
    }
    Err(refused(KeyChangeError::WrongMasterKey))
}

fn parse(key: &Secret) -> Result<MasterKey, Refused> {
    MasterKey::parse(key.expose()).ok_or_else(|| Refused("that is no master key".to_owned()))
}

fn refused(error: KeyChangeError) -> Refused {
    match error {
        KeyChangeError::Store(error) => StoreError::into(error),
        error @ (KeyChangeError::WrongMasterKey | KeyChangeError::SameKey | KeyChangeError::UnderWay) => {
            Refused(error.to_string())
        }
    }
}
