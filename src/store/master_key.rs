//! The file of the master key, and how it is replaced so that a power cut at any moment leaves a key that opens the store
//! in a known place.
//!
//! The new key is written beside the old one (`master.key.new`) and is on disk before the store is told about it. Then the
//! key ring is wrapped anew, which is one transaction. Then the old file is kept under another name, for backups made
//! before, and the new one takes its place. Whoever finds that `master.key` does not open the store and `master.key.new`
//! does, finishes that.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::store::MasterKey;

/// A master key file that cannot be read or written. No text holds a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file system refused to read it.
    #[error("the master key `{}` cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Something else is in it.
    #[error("`{}` holds no master key: wanted are 43 characters as `chartgate init` writes them", .0.display())]
    NoKey(PathBuf),
    /// The file system refused to write it.
    #[error("the master key `{}` cannot be written: {cause}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// Where a master key is.
#[derive(Debug, Clone)]
pub struct MasterKeyFile(PathBuf);

impl MasterKeyFile {
    /// The key at this path.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where a new key waits until the store is wrapped with it.
    pub fn waiting_path(&self) -> PathBuf {
        self.beside("new")
    }

    /// The key.
    pub fn read(&self) -> Result<MasterKey, KeyFileError> {
        read(&self.0)
    }

    /// The key of a change that was interrupted, if there is one.
    pub fn waiting(&self) -> Option<MasterKey> {
        read(&self.waiting_path()).ok()
    }

    /// Writes a new key beside this one, durably. A leftover there is of a change that did not reach the store.
    pub fn stage(&self, key: &MasterKey) -> Result<(), KeyFileError> {
        let path = self.waiting_path();
        match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => {
                return Err(KeyFileError::Unwritable { path, cause });
            }
            _ => {}
        }
        // Whoever may read the old one must be able to read the new one, and nobody else.
        write_new(&path, key, Some(&self.0))
    }

    /// Lets the waiting key take this one's place, and keeps this one beside it; the path it is kept at.
    pub fn promote(&self, now: Timestamp) -> Result<PathBuf, KeyFileError> {
        let stamp: String = now.to_string().chars().filter(char::is_ascii_alphanumeric).take(15).collect();
        let failed = |path: &Path, cause| KeyFileError::Unwritable { path: path.to_owned(), cause };
        let mut kept = self.beside(&format!("until-{stamp}"));
        let mut again = 1;
        while let Err(cause) = std::fs::hard_link(&self.0, &kept) {
            if cause.kind() != ErrorKind::AlreadyExists {
                return Err(failed(&kept, cause));
            }
            // An attempt that was interrupted has kept it, or another change of the same second has kept another.
            if same_file(&self.0, &kept).map_err(|cause| failed(&kept, cause))? {
                break;
            }
            again += 1;
            kept = self.beside(&format!("until-{stamp}-{again}"));
        }
        sync_folder(&self.0).map_err(|cause| failed(&kept, cause))?;
        std::fs::rename(self.waiting_path(), &self.0).map_err(|cause| failed(&self.0, cause))?;
        sync_folder(&self.0).map_err(|cause| failed(&self.0, cause))?;
        Ok(kept)
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(".");
        path.push(ending);
        path.into()
    }
}

impl MasterKey {
    /// Writes the key to a file that is not there yet, readable for its owner only, durably.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyFileError> {
        write_new(path, self, None)
    }
}

fn read(path: &Path) -> Result<MasterKey, KeyFileError> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|cause| KeyFileError::Unreadable { path: path.to_owned(), cause })?;
    MasterKey::parse(&text).ok_or_else(|| KeyFileError::NoKey(path.to_owned()))
}

fn write_new(path: &Path, key: &MasterKey, like: Option<&Path>) -> Result<(), KeyFileError> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        if let Some(like) = like {
            let old = std::fs::metadata(like)?;
            let own = file.metadata()?;
            if (old.uid(), old.gid()) != (own.uid(), own.gid()) {
                chown(path, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o770))?;
        }
        let text = Zeroizing::new(format!("{}\n", *key.to_text()));
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        sync_folder(path)
    };
    write().map_err(|cause| KeyFileError::Unwritable { path: path.to_owned(), cause })
}

fn same_file(one: &Path, other: &Path) -> std::io::Result<bool> {
    let (one, other) = (std::fs::metadata(one)?, std::fs::metadata(other)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// A new name in a folder is on disk when the folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
