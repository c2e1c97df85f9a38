//! The file of the master key, and how it is replaced so that a power cut at any moment leaves a key that opens the store
//! in a known place.
//!
//! The new key is written beside the old one, to a name made from the key itself (`master.key.new-…`), and is on disk before
//! the store is told about it. Then the key ring is wrapped anew, which is one transaction. Then the old file is kept under
//! another name, for backups made before, and the new one takes its place. Whoever finds that `master.key` does not open the
//! store and a key that waits beside it does, finishes that.
//!
//! Only one process at a time changes these files. No waiting key is removed before the store is known to open with the one
//! at `master.key`: a change that its caller has given up may still reach the store.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::store::MasterKey;

/// How many waiting keys are looked at.
const MOST_WAITING: usize = 64;

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
    /// Another process changes it at this moment.
    #[error("the master key `{}` is being changed by another command at this moment; wait for its end", .0.display())]
    Busy(PathBuf),
    /// Somebody else has changed it meanwhile.
    #[error("`{}` does not hold the key that was written to it; somebody else has changed it", .0.display())]
    Changed(PathBuf),
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

    /// Where this key waits until the store is wrapped with it.
    pub fn waiting_path(&self, key: &MasterKey) -> PathBuf {
        self.beside(&format!("new-{}", key.name()))
    }

    /// The key.
    pub fn read(&self) -> Result<MasterKey, KeyFileError> {
        read(&self.0)
    }

    /// The keys of changes that were interrupted.
    pub fn waiting(&self) -> Vec<MasterKey> {
        self.waiting_files().iter().filter_map(|path| read(path).ok()).collect()
    }

    /// Claims the right to change the files; refused while another process has it. It ends with the process at the latest.
    pub fn hold(&self) -> Result<HeldKeyFile, KeyFileError> {
        // The lock is on the folder, which whoever can replace a file in it can open, so no file is left over.
        let folder = folder_of(&self.0);
        let unreadable = |cause| KeyFileError::Unreadable { path: folder.to_owned(), cause };
        let lock = File::open(folder).map_err(unreadable)?;
        match lock.try_lock() {
            Ok(()) => Ok(HeldKeyFile { file: self.clone(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(KeyFileError::Busy(self.0.clone())),
            Err(TryLockError::Error(cause)) => Err(unreadable(cause)),
        }
    }

    fn waiting_files(&self) -> Vec<PathBuf> {
        let plain = self.beside("new");
        let Some(name) = plain.file_name().map(OsStr::to_owned) else { return Vec::new() };
        // A folder that cannot be listed may still let its files be read.
        let Ok(entries) = std::fs::read_dir(folder_of(&self.0)) else { return vec![plain] };
        let ours = |other: &OsStr| match other.as_bytes().strip_prefix(name.as_bytes()) {
            Some(rest) => rest.is_empty() || rest.starts_with(b"-"),
            None => false,
        };
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name())).filter(|other| ours(other));
        let mut files: Vec<PathBuf> =
            names.take(MOST_WAITING).map(|other| plain.with_file_name(other)).collect();
        files.sort();
        files
    }

    fn waiting_file(&self, key: &MasterKey) -> Option<PathBuf> {
        self.waiting_files().into_iter().find(|path| holds(path, key))
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(".");
        path.push(ending);
        path.into()
    }
}

/// The file of the master key in the hands of the one process that may change it now.
#[derive(Debug)]
pub struct HeldKeyFile {
    file: MasterKeyFile,
    _lock: File,
}

impl HeldKeyFile {
    /// Writes a new key beside this one, durably. Other keys that wait there stay.
    pub fn stage(&self, key: &MasterKey) -> Result<PathBuf, KeyFileError> {
        let path = self.file.waiting_path(key);
        match std::fs::symlink_metadata(&path) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => {}
            Ok(_) if holds(&path, key) => return Ok(path),
            _ => {
                let aside = self.file.beside(&format!("new-{}-other", key.name()));
                std::fs::rename(&path, aside).map_err(|cause| unwritable(&path, cause))?;
            }
        }
        // Whoever may read the old one must be able to read the new one, and nobody else.
        write_new(&path, key, Some(&self.file.0))?;
        Ok(path)
    }

    /// Lets the key with which the store is wrapped now take its place, and keeps the one before beside it; the path it is
    /// kept at, or `None` when nothing had to be kept.
    pub fn promote(&self, key: &MasterKey, now: Timestamp) -> Result<Option<PathBuf>, KeyFileError> {
        self.promote_with(key, now, |from, to| std::fs::hard_link(from, to))
    }

    /// Removes the keys that still wait, when the key at the path is the given one, with which the store was seen to open:
    /// then no other can be, or become, the key of the store.
    pub fn clear(&self, proven: &MasterKey) -> Result<(), KeyFileError> {
        let path = &self.file.0;
        if !holds(path, proven) {
            return Err(KeyFileError::Changed(path.clone()));
        }
        for waiting in self.file.waiting_files() {
            std::fs::remove_file(&waiting).map_err(|cause| unwritable(&waiting, cause))?;
        }
        sync_folder(path).map_err(|cause| unwritable(path, cause))
    }

    fn promote_with(
        &self,
        key: &MasterKey,
        now: Timestamp,
        link: impl Fn(&Path, &Path) -> std::io::Result<()>,
    ) -> Result<Option<PathBuf>, KeyFileError> {
        let path = &self.file.0;
        if holds(path, key) {
            return Ok(None);
        }
        // What is moved into the place is the very key that the store has, whatever else waits; should it be gone, it is
        // still known here.
        let waiting = match self.file.waiting_file(key) {
            Some(waiting) => waiting,
            None => self.stage(key)?,
        };
        let kept = self.keep(now, link)?;
        std::fs::rename(&waiting, path).map_err(|cause| unwritable(path, cause))?;
        sync_folder(path).map_err(|cause| unwritable(path, cause))?;
        if !holds(path, key) {
            return Err(KeyFileError::Changed(path.clone()));
        }
        Ok(kept)
    }

    /// Gives what is at the path a second name, durably.
    fn keep(
        &self,
        now: Timestamp,
        link: impl Fn(&Path, &Path) -> std::io::Result<()>,
    ) -> Result<Option<PathBuf>, KeyFileError> {
        let path = &self.file.0;
        let old = match std::fs::read(path).map(Zeroizing::new) {
            Ok(old) => old,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(KeyFileError::Unreadable { path: path.clone(), cause }),
        };
        let stamp: String = now.to_string().chars().filter(char::is_ascii_alphanumeric).take(15).collect();
        let (mut kept, mut again) = (self.file.beside(&format!("until-{stamp}")), 1);
        loop {
            match std::fs::read(&kept).map(Zeroizing::new) {
                // An attempt that was interrupted has kept it.
                Ok(there) if there == old => break,
                // Another change of the same second has kept another.
                Ok(_) => {
                    again += 1;
                    kept = self.file.beside(&format!("until-{stamp}-{again}"));
                    continue;
                }
                Err(cause) if cause.kind() == ErrorKind::NotFound => {}
                Err(cause) => return Err(unwritable(&kept, cause)),
            }
            // Not every file system has hard links, and not everybody may make one to a file of somebody else.
            if link(path, &kept).is_err() {
                self.copy(&old, &kept).map_err(|cause| unwritable(&kept, cause))?;
            }
            break;
        }
        sync_folder(path).map_err(|cause| unwritable(&kept, cause))?;
        Ok(Some(kept))
    }

    /// Under its name there is a whole copy or none.
    fn copy(&self, old: &[u8], kept: &Path) -> std::io::Result<()> {
        let partial = self.file.beside("copying");
        match std::fs::remove_file(&partial) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
        write_bytes(&partial, old, Some(&self.file.0))?;
        std::fs::rename(&partial, kept)
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

fn holds(path: &Path, key: &MasterKey) -> bool {
    read(path).is_ok_and(|there| there == *key)
}

fn write_new(path: &Path, key: &MasterKey, like: Option<&Path>) -> Result<(), KeyFileError> {
    let text = Zeroizing::new(format!("{}\n", *key.to_text()));
    write_bytes(path, text.as_bytes(), like).map_err(|cause| unwritable(path, cause))
}

/// Writes a file that is not there yet, durably, for its owner only or for whoever may read `like`.
fn write_bytes(path: &Path, bytes: &[u8], like: Option<&Path>) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if let Some(like) = like {
        let old = std::fs::metadata(like)?;
        let own = file.metadata()?;
        if (old.uid(), old.gid()) != (own.uid(), own.gid()) {
            chown(path, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o770))?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_folder(path)
}

fn unwritable(path: &Path, cause: std::io::Error) -> KeyFileError {
    KeyFileError::Unwritable { path: path.to_owned(), cause }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new name in a folder is on disk when the folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Random;

    #[test]
    fn without_hard_links_the_old_key_is_kept_as_a_copy() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = MasterKeyFile::at(folder.path().join("master.key"));
        let random = Random::seeded(4);
        let (old, new) = (MasterKey::generate(&random), MasterKey::generate(&random));
        old.write_new(file.path()).expect("written");
        std::fs::write(file.beside("copying"), "half a k").expect("what a power cut left");
        let held = file.hold().expect("held");
        held.stage(&new).expect("staged");
        let refuse = |_: &Path, _: &Path| Err(std::io::Error::from(ErrorKind::PermissionDenied));
        let kept = held.promote_with(&new, Timestamp::from_seconds(1), refuse).expect("in place");
        assert!(holds(file.path(), &new) && holds(&kept.expect("kept"), &old));
        assert!(file.waiting().is_empty() && !file.beside("copying").exists());
    }
}
