//! Opening: finding out whether this file is ours, undamaged, not newer than we are, and ours to unlock.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError};
use zeroize::Zeroizing;

use crate::crypto::{Random, SealingKey, from_base64url, hmac_sha256};
use crate::store::Vault;
use crate::store::keyring::{Keyring, MasterChange, UnwrapError};
use crate::store::migrate::{self, Meta, SCHEMA, STEPS, Step};
use crate::store::{Store, StoreError};

/// The key that unlocks a store: 32 bytes, kept outside the data directory.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        crate::crypto::constant_time_eq(&*self.0, &*other.0)
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("MasterKey(«secret»)")
    }
}

impl MasterKey {
    /// A new key.
    pub fn generate(random: &Random) -> Self {
        Self(Zeroizing::new(random.bytes()))
    }

    /// Reads the text form: 43 characters of base64url, blanks around it ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(from_base64url(text.trim())?);
        bytes.as_slice().try_into().ok().map(|bytes| Self(Zeroizing::new(bytes)))
    }

    pub(super) fn sealing_key(&self) -> SealingKey {
        SealingKey::new(&self.0)
    }

    /// A name by which a file of this key can be told from those of others; it tells nothing of the key.
    pub(super) fn name(&self) -> String {
        let digest = hmac_sha256(&*self.0, b"chartgate master key name v1");
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        format!("{:016x}", u64::from_be_bytes(first))
    }

    /// The text form, for the file that `init` writes.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(crate::crypto::base64url(&*self.0))
    }
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The file.
    pub path: PathBuf,
    /// The key that unlocks it.
    pub master_key: MasterKey,
    /// Bytes of cache; redb's own default of 1 GiB would break every promise about memory.
    pub cache_bytes: usize,
    /// Make the file when there is none.
    pub create: bool,
}

/// Why a store was not opened. Nothing in the file has been changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no file, and none was to be made.
    #[error("there is no store at `{}`; run `chartgate init`, or check `data_dir`", .0.display())]
    Missing(PathBuf),
    /// The file system refused.
    #[error("the store `{}` cannot be opened ({cause}); check that the directory exists and who owns it", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::ErrorKind,
    },
    /// Another process has it.
    #[error("another chartgate process is using the store `{}`; stop it first, or talk to it", .0.display())]
    InUse(PathBuf),
    /// Not a store, or a broken one.
    #[error(
        "the file `{}` is not a readable store ({what}); nothing was changed; restore a backup, or move the file away",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What did not fit.
        what: String,
    },
    /// Written by a later version.
    #[error(
        "the store was written by a newer chartgate (format {found}, this program knows up to {SCHEMA}); \
         nothing was changed; run the newer program"
    )]
    Newer {
        /// The format of the file.
        found: u32,
    },
    /// Another master key.
    #[error("{}", wrong_master_key(.0.as_ref()))]
    WrongMasterKey(Option<MasterChange>),
    /// Reading or writing failed on the way.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What to do when the master key is the wrong one, and what is lost without the right one.
fn wrong_master_key(change: Option<&MasterChange>) -> String {
    let hint = match change {
        Some(change) => {
            format!(
                "it was changed last at {}, and the new one was written to `{}`",
                change.at, change.written_to
            )
        }
        None => {
            "it was never changed, so the right one is the file that `chartgate init` made for this store"
                .to_owned()
        }
    };
    format!(
        "the master key does not open this store; nothing was changed; check `master_key`: {hint}; without the right key \
         nothing in the store can be read by anybody: if no copy of it is left, restore a backup together with the key \
         that belongs to it, or begin anew with an empty `data_dir`, new signing keys and patients who connect again"
    )
}

impl Store {
    /// Opens the store, or makes it when `create` is set.
    pub fn open(opening: &Opening, random: Random) -> Result<Self, OpenError> {
        open_with(opening, random, SCHEMA, STEPS)
    }
}

/// [`Store::open`] with other steps than the real ones, so that tests can age a store.
pub(super) fn open_with(
    opening: &Opening,
    random: Random,
    schema: u32,
    steps: &[Step],
) -> Result<Store, OpenError> {
    let path = &opening.path;
    let (file, fresh) = open_file(opening)?;
    let master = opening.master_key.sealing_key();
    let unlock = |meta: &Meta| {
        if meta.schema > schema {
            return Err(OpenError::Newer { found: meta.schema });
        }
        let keys = meta.keyring.unwrap(&master);
        let keys = keys.map_err(|error| match error {
            UnwrapError::WrongMasterKey => OpenError::WrongMasterKey(meta.keyring.master.clone()),
            UnwrapError::Damaged => damaged(path, "its key ring is damaged"),
        })?;
        Ok(Vault::new(&keys, meta.keyring.current, random.clone()))
    };
    if !fresh && let Some(meta) = look(opening)? {
        unlock(&meta)?;
    }
    let mut database = open_database(opening, file)?;
    let vault = match migrate::read_meta(&database)? {
        Some(meta) => {
            let vault = unlock(&meta)?;
            if meta.schema < schema {
                // redb must not have the file open while it is copied.
                drop(database);
                copy_before_migration(path, meta.schema)?;
                let (file, _) = open_file(opening)?;
                database = open_database(opening, file)?;
                migrate::migrate(&database, &vault, meta.schema, steps)?;
            }
            vault
        }
        // A file that we did not just make but that holds nothing is a lost store, not a new one.
        None if !fresh => return Err(damaged(path, "it is empty")),
        None => {
            let (keyring, keys) = Keyring::create(&master, &random);
            migrate::write_meta(&database, schema, &keyring)?;
            Vault::new(&keys, keyring.current, random)
        }
    };
    Ok(Store::new(database, vault, path.clone())?)
}

fn open_file(opening: &Opening) -> Result<(File, bool), OpenError> {
    let path = &opening.path;
    let refused = |error: &std::io::Error| OpenError::Refused { path: path.clone(), cause: error.kind() };
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok((file, false)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if !opening.create {
                return Err(OpenError::Missing(path.clone()));
            }
            let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
            made.map(|file| (file, true)).map_err(|error| refused(&error))
        }
        Err(error) => Err(refused(&error)),
    }
}

/// What an existing file says of itself, read without a write: redb writes whenever it opens a file in full, and makes a
/// database of an empty one, but a store that is refused must stay as it is, byte by byte. `None` when only opening it in
/// full can tell, as after a power cut.
fn look(opening: &Opening) -> Result<Option<Meta>, OpenError> {
    let path = &opening.path;
    let refused = |error: std::io::Error| OpenError::Refused { path: path.clone(), cause: error.kind() };
    let file = File::open(path).map_err(refused)?;
    if file.metadata().map_err(refused)?.len() == 0 {
        return Err(damaged(path, "it is empty"));
    }
    let opened = guarded(opening, |builder| builder.open_read_only_with_backend(FileBackend::new(file)?))?;
    match opened {
        Some(database) => Ok(migrate::read_meta(&database)?),
        None => Ok(None),
    }
}

fn open_database(opening: &Opening, file: File) -> Result<Database, OpenError> {
    let opened = guarded(opening, |builder| builder.create_with_backend(FileBackend::new(file)?))?;
    opened.ok_or_else(|| damaged(&opening.path, "it cannot be repaired"))
}

/// Opens with redb; `None` for a file that must be repaired first.
fn guarded<D>(
    opening: &Opening,
    open: impl FnOnce(&mut Builder) -> Result<D, DatabaseError>,
) -> Result<Option<D>, OpenError> {
    let path = &opening.path;
    // redb checks what it reads, but a hostile file may still trip an assertion inside it: that is damage, not a crash.
    let opened =
        catch_unwind(AssertUnwindSafe(|| open(Database::builder().set_cache_size(opening.cache_bytes))));
    match opened {
        Ok(Ok(database)) => Ok(Some(database)),
        Ok(Err(DatabaseError::RepairAborted)) => Ok(None),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => Err(OpenError::InUse(path.clone())),
        Ok(Err(error)) => Err(damaged(path, &error.to_string())),
        Err(_) => Err(damaged(path, "its structure does not hold together")),
    }
}

fn damaged(path: &Path, what: &str) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), what: what.to_owned() }
}

fn copy_before_migration(path: &Path, from: u32) -> Result<(), OpenError> {
    let copy = path.with_extension(format!("before-format-{}.redb", from + 1));
    let partial = path.with_extension("copying");
    let copied = std::fs::copy(path, &partial)
        .and_then(|_| File::open(&partial)?.sync_all())
        .and_then(|()| std::fs::rename(&partial, &copy));
    copied.map_err(|error| OpenError::Refused { path: copy, cause: error.kind() })
}
