//! Backups: everything in the store as of one moment, in one file, while the store goes on being used.
//!
//! The rows are copied as they are, sealed, with the key ring that the master key wraps. So a backup tells as little as the
//! store itself, and needs the master key that was in force when it was made. Layout: a line that names the format, the
//! time in milliseconds (8 bytes), then for each table `T`, length of its name (4), name, and for each row `R`, length of
//! the key (4), key, length of the value (4), value; `E`, number of rows (8); last an HMAC-SHA-256 of a digest of all that,
//! under the store's digest key. Numbers are big-endian. The unsealed table with the key ring comes first.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::{
    Database, Durability, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableHandle as _,
};

use crate::clock::Timestamp;
use crate::crypto::{Digester, Random, constant_time_eq};
use crate::store::keyring::{Keyring, UnwrapError};
use crate::store::migrate::{KEYRING_KEY, SCHEMA, SCHEMA_KEY};
use crate::store::tables::{META_NAME, definition};
use crate::store::{MasterKey, OpenError, Opening, Store, StoreError, Vault};

const FORMAT: &[u8] = b"chartgate backup 1\n";
const AUTHENTICATED: &[u8] = b"chartgate backup v1";
/// Written and read at a time.
const BUFFER: usize = 1 << 20;
/// Longer names, keys and values are in no store.
const LONGEST_NAME: usize = 1 << 10;
const LONGEST_KEY: usize = 64 << 10;
const LONGEST_VALUE: usize = 256 << 20;
/// Rows, and their bytes, that a restore commits at a time.
const BATCH_ROWS: usize = 10_000;
const BATCH_BYTES: usize = 32 << 20;
/// Rows between two looks at whether to go on.
const LOOK_EVERY: u64 = 1_000;

/// Why there is no backup, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file system refused.
    #[error("`{}` cannot be {what}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// `written`, `read`.
        what: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// A backup is never written over anything.
    #[error("there is a file at `{}` already; it was left as it is", .0.display())]
    Exists(PathBuf),
    /// The file is no backup, or not a whole one.
    #[error("`{}` is no usable backup: {what}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
    /// It needs another master key.
    #[error(
        "the master key does not open the backup `{}`; use the one that was in force when it was made: look for a kept \
         `master.key.old-…` beside the key, or for your own copy",
        .0.display()
    )]
    WrongMasterKey(PathBuf),
    /// A later version made it.
    #[error(
        "the backup was made by a newer chartgate (format {0}, this program knows up to {SCHEMA}); use that one"
    )]
    Newer(u32),
    /// Somebody asked to stop.
    #[error("it was stopped before it was whole, and nothing was kept of it")]
    Stopped,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was restored does not open.
    #[error("what was restored cannot be opened: {0}")]
    Opening(#[from] OpenError),
}

/// How far the making of a backup is, for whoever watches; and the wish to stop it.
#[derive(Debug, Default)]
pub struct BackupProgress {
    rows: AtomicU64,
    total: AtomicU64,
    bytes: AtomicU64,
    checking: AtomicBool,
    stopped: AtomicBool,
}

impl BackupProgress {
    /// Rows done, rows in all, and bytes so far; whether what was written is being read again.
    pub fn seen(&self) -> (u64, u64, u64, bool) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.rows), of(&self.total), of(&self.bytes), self.checking.load(Ordering::Relaxed))
    }

    /// Asks it to stop.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn row(&self, bytes: u64) -> Result<(), BackupError> {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let rows = self.rows.fetch_add(1, Ordering::Relaxed);
        let stopped = rows.is_multiple_of(LOOK_EVERY) && self.stopped.load(Ordering::Relaxed);
        if stopped { Err(BackupError::Stopped) } else { Ok(()) }
    }

    fn begin(&self, checking: bool, total: u64) {
        self.rows.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.checking.store(checking, Ordering::Relaxed);
    }
}

/// What is in a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupReport {
    /// As of when.
    pub made_at: Timestamp,
    /// Rows.
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
}

impl Store {
    /// Writes a backup as of now, and reads it again to be sure: every value in it opens. Writes go on meanwhile, and wait
    /// for nothing; but pages that they free are not used again before the end, so the store's file may grow. For a
    /// blocking thread. The file appears when it is whole.
    pub fn back_up(
        &self,
        to: &Path,
        now: Timestamp,
        progress: &BackupProgress,
    ) -> Result<BackupReport, BackupError> {
        if to.exists() {
            return Err(BackupError::Exists(to.to_owned()));
        }
        let partial = beside(to, "partial");
        let made = self.write_to(&partial, now, progress).and_then(|rows| {
            progress.begin(true, rows);
            check(&partial, &Unlock::With(self.vault()), progress)
        });
        let named = made.and_then(|report| {
            put_in_place(&partial, to).map_err(file_error(to, "written"))?;
            Ok(report)
        });
        if named.is_err() {
            // Whatever is left of it is of no use.
            let _ = std::fs::remove_file(&partial);
        }
        named
    }

    fn write_to(&self, path: &Path, now: Timestamp, progress: &BackupProgress) -> Result<u64, BackupError> {
        let failed = |cause| file_error(path, "written")(cause);
        let file = new_file(path).map_err(failed)?;
        let mut out =
            Digested { inner: BufWriter::with_capacity(BUFFER, file), digester: Digester::default() };
        let transaction = self.0.database.begin_read().map_err(|error| StoreError::storage(&error))?;
        let tables = transaction.list_tables().map_err(|error| StoreError::storage(&error))?;
        let mut names: Vec<String> = tables.map(|table| table.name().to_owned()).collect();
        // The key ring first: it opens all the others.
        names.sort_by_key(|name| (name != META_NAME, name.clone()));
        let mut total = 0;
        for name in &names {
            let table =
                transaction.open_table(definition(name)).map_err(|error| StoreError::storage(&error))?;
            total += table.len().map_err(|error| StoreError::storage(&error))?;
        }
        progress.begin(false, total);
        let mut count = 0_u64;
        let write = |out: &mut Digested<BufWriter<File>>, parts: &[&[u8]]| -> Result<u64, BackupError> {
            let mut bytes = 0;
            for part in parts {
                out.write_all(part).map_err(failed)?;
                bytes += part.len() as u64;
            }
            Ok(bytes)
        };
        let millis = u64::try_from(now.millis()).unwrap_or_default();
        write(&mut out, &[FORMAT, &millis.to_be_bytes()])?;
        for name in &names {
            write(&mut out, &[b"T", &length(name.as_bytes()), name.as_bytes()])?;
            let table =
                transaction.open_table(definition(name)).map_err(|error| StoreError::storage(&error))?;
            for row in table.iter().map_err(|error| StoreError::storage(&error))? {
                let (key, value) = row.map_err(|error| StoreError::storage(&error))?;
                let (key, value) = (key.value(), value.value());
                let bytes = write(&mut out, &[b"R", &length(key), key, &length(value), value])?;
                count += 1;
                progress.row(bytes)?;
            }
        }
        write(&mut out, &[b"E", &count.to_be_bytes()])?;
        let Digested { mut inner, digester } = out;
        inner.write_all(&self.vault().long_digest(&[AUTHENTICATED, &digester.finish()])).map_err(failed)?;
        let file = inner.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        Ok(count)
    }

    /// Reads a backup from its beginning to its end, and opens every value in it.
    pub fn check_backup(
        path: &Path,
        master_key: &MasterKey,
        progress: &BackupProgress,
    ) -> Result<BackupReport, BackupError> {
        progress.begin(true, 0);
        check(path, &Unlock::By(master_key), progress)
    }

    /// Makes a store of a backup, at a place where there is none, and opens it. For a blocking thread. The store appears when
    /// it is whole.
    pub fn restore(
        from: &Path,
        opening: &Opening,
        random: Random,
        progress: &BackupProgress,
    ) -> Result<(Self, BackupReport), BackupError> {
        if opening.path.exists() {
            return Err(BackupError::Exists(opening.path.clone()));
        }
        // Before anything is made of it.
        let report = Self::check_backup(from, &opening.master_key, progress)?;
        let partial = beside(&opening.path, "restoring");
        progress.begin(false, report.rows);
        let loaded = load(from, &partial, opening.cache_bytes, progress).and_then(|()| {
            put_in_place(&partial, &opening.path).map_err(file_error(&opening.path, "written"))
        });
        if let Err(error) = loaded {
            let _ = std::fs::remove_file(&partial);
            return Err(error);
        }
        Ok((Self::open(opening, random)?, report))
    }
}

fn load(from: &Path, to: &Path, cache: usize, progress: &BackupProgress) -> Result<(), BackupError> {
    let file = new_file(to).map_err(file_error(to, "written"))?;
    let backend = redb::backends::FileBackend::new(file).map_err(|error| StoreError::storage(&error))?;
    let mut builder = Database::builder();
    builder.set_cache_size(cache);
    let database = builder.create_with_backend(backend).map_err(|error| StoreError::storage(&error))?;
    let mut reader = Frames::open(from)?;
    let mut batch: Vec<(String, Vec<u8>, Vec<u8>)> = Vec::new();
    let mut bytes = 0;
    let mut table = String::new();
    loop {
        let frame = reader.next()?;
        let end = matches!(frame, Frame::End(_));
        match frame {
            Frame::Table(name) => table = name,
            Frame::Row(key, value) => {
                let size = key.len() + value.len();
                bytes += size;
                batch.push((table.clone(), key, value));
                progress.row(size as u64)?;
            }
            Frame::End(_) => {}
        }
        if end || batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
            commit(&database, &batch)?;
            batch.clear();
            bytes = 0;
        }
        if end {
            return Ok(());
        }
    }
}

fn commit(database: &Database, rows: &[(String, Vec<u8>, Vec<u8>)]) -> Result<(), StoreError> {
    let mut transaction = database.begin_write().map_err(|error| StoreError::storage(&error))?;
    transaction.set_durability(Durability::Immediate).map_err(|error| StoreError::storage(&error))?;
    transaction.set_quick_repair(true);
    for of_table in rows.chunk_by(|left, right| left.0 == right.0) {
        let name = &of_table[0].0;
        let mut table =
            transaction.open_table(definition(name)).map_err(|error| StoreError::storage(&error))?;
        for (_, key, value) in of_table {
            table.insert(key.as_slice(), value.as_slice()).map_err(|error| StoreError::storage(&error))?;
        }
    }
    transaction.commit().map_err(|error| StoreError::storage(&error))
}

/// What opens the values of a backup.
enum Unlock<'k> {
    With(&'k Vault),
    By(&'k MasterKey),
}

fn check(path: &Path, unlock: &Unlock<'_>, progress: &BackupProgress) -> Result<BackupReport, BackupError> {
    let unusable = |what| BackupError::Unusable { path: path.to_owned(), what };
    let mut reader = Frames::open(path)?;
    let (mut schema, mut keyring) = (None, None);
    let mut own: Option<Vault> = None;
    let mut table = String::new();
    let mut rows = 0_u64;
    loop {
        match reader.next()? {
            Frame::Table(name) => {
                if name != META_NAME
                    && own.is_none()
                    && let Unlock::By(master) = unlock
                {
                    own = Some(unlocked(path, master, schema.as_deref(), keyring.as_deref())?);
                }
                table = name;
            }
            Frame::Row(key, value) => {
                rows += 1;
                progress.row((key.len() + value.len()) as u64)?;
                if table == META_NAME {
                    match key.as_slice() {
                        SCHEMA_KEY => schema = Some(value),
                        KEYRING_KEY => keyring = Some(value),
                        _ => {}
                    }
                    continue;
                }
                let vault = match (unlock, &own) {
                    (Unlock::With(vault), _) => *vault,
                    (Unlock::By(_), Some(own)) => own,
                    (Unlock::By(_), None) => return Err(unusable("a value comes before the keys")),
                };
                if !vault.opens(&table, &key, &value) {
                    return Err(unusable(
                        "a value in it does not open; the store it was made of may be damaged",
                    ));
                }
            }
            Frame::End(count) => {
                if count != rows {
                    return Err(unusable("rows are missing"));
                }
                if own.is_none()
                    && let Unlock::By(master) = unlock
                {
                    own = Some(unlocked(path, master, schema.as_deref(), keyring.as_deref())?);
                }
                let vault = match (unlock, &own) {
                    (Unlock::With(vault), _) => *vault,
                    (Unlock::By(_), Some(own)) => own,
                    (Unlock::By(_), None) => return Err(unusable("it holds no keys")),
                };
                let (made_at, bytes) = reader.end(vault)?;
                return Ok(BackupReport { made_at, rows, bytes });
            }
        }
    }
}

/// The keys of a backup.
fn unlocked(
    path: &Path,
    master: &MasterKey,
    schema: Option<&[u8]>,
    keyring: Option<&[u8]>,
) -> Result<Vault, BackupError> {
    let unusable = |what| BackupError::Unusable { path: path.to_owned(), what };
    let schema: u32 = schema
        .and_then(|text| serde_json::from_slice(text).ok())
        .ok_or_else(|| unusable("it does not say of which format its store was"))?;
    if schema > SCHEMA {
        return Err(BackupError::Newer(schema));
    }
    let keyring: Keyring = keyring
        .and_then(|text| serde_json::from_slice(text).ok())
        .ok_or_else(|| unusable("its key ring cannot be read"))?;
    let keys = keyring.unwrap(&master.sealing_key()).map_err(|error| match error {
        UnwrapError::WrongMasterKey => BackupError::WrongMasterKey(path.to_owned()),
        UnwrapError::Damaged => unusable("its key ring is damaged"),
    })?;
    Ok(Vault::new(&keys, keyring.current, Random::system()))
}

enum Frame {
    Table(String),
    Row(Vec<u8>, Vec<u8>),
    End(u64),
}

/// Reads a backup piece by piece.
struct Frames {
    path: PathBuf,
    input: Digested<BufReader<File>>,
    made_at: Timestamp,
    bytes: u64,
}

impl Frames {
    fn open(path: &Path) -> Result<Self, BackupError> {
        let file = File::open(path).map_err(file_error(path, "read"))?;
        let bytes = file.metadata().map_err(file_error(path, "read"))?.len();
        let input = Digested { inner: BufReader::with_capacity(BUFFER, file), digester: Digester::default() };
        let mut frames = Self { path: path.to_owned(), input, made_at: Timestamp::from_millis(0), bytes };
        let mut format = [0; FORMAT.len()];
        frames.read(&mut format)?;
        if format != FORMAT {
            return Err(frames.unusable("it does not begin like one"));
        }
        let millis = i64::try_from(u64::from_be_bytes(frames.array()?));
        frames.made_at = Timestamp::from_millis(millis.unwrap_or_default());
        Ok(frames)
    }

    fn next(&mut self) -> Result<Frame, BackupError> {
        match self.array::<1>()? {
            [b'T'] => {
                let name = self.part(LONGEST_NAME)?;
                let name = String::from_utf8(name);
                name.map(Frame::Table).map_err(|_| self.unusable("the name of a table is no text"))
            }
            [b'R'] => Ok(Frame::Row(self.part(LONGEST_KEY)?, self.part(LONGEST_VALUE)?)),
            [b'E'] => Ok(Frame::End(u64::from_be_bytes(self.array()?))),
            _ => Err(self.unusable("it is damaged")),
        }
    }

    /// What comes last proves all that came before.
    fn end(mut self, vault: &Vault) -> Result<(Timestamp, u64), BackupError> {
        let expected = vault.long_digest(&[AUTHENTICATED, &self.input.digester.clone().finish()]);
        let mut proof = [0; 32];
        self.read(&mut proof)?;
        if !constant_time_eq(&proof, &expected) {
            return Err(self.unusable("it was changed after it was made"));
        }
        match self.input.inner.read(&mut [0]) {
            Ok(0) => Ok((self.made_at, self.bytes)),
            Ok(_) => Err(self.unusable("something follows its end")),
            Err(cause) => Err(file_error(&self.path, "read")(cause)),
        }
    }

    fn part(&mut self, most: usize) -> Result<Vec<u8>, BackupError> {
        let length = u32::from_be_bytes(self.array()?) as usize;
        if length > most {
            return Err(self.unusable("it is damaged"));
        }
        // Not believed before the bytes are there: a damaged length must not take memory.
        let mut part = Vec::with_capacity(length.min(BUFFER));
        while part.len() < length {
            let from = part.len();
            part.resize(length.min(from + BUFFER), 0);
            self.read_into(&mut part, from)?;
        }
        Ok(part)
    }

    fn read_into(&mut self, part: &mut [u8], from: usize) -> Result<(), BackupError> {
        self.read(&mut part[from..])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut out = [0; N];
        self.read(&mut out)?;
        Ok(out)
    }

    fn read(&mut self, out: &mut [u8]) -> Result<(), BackupError> {
        self.input.read_exact(out).map_err(|cause| {
            if cause.kind() == io::ErrorKind::UnexpectedEof {
                self.unusable("it is cut off")
            } else {
                file_error(&self.path, "read")(cause)
            }
        })
    }

    fn unusable(&self, what: &'static str) -> BackupError {
        BackupError::Unusable { path: self.path.clone(), what }
    }
}

/// Digests what passes.
struct Digested<T> {
    inner: T,
    digester: Digester,
}

impl<T: Write> Digested<T> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digester.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl<T: Read> Digested<T> {
    fn read_exact(&mut self, out: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(out)?;
        self.digester.update(out);
        Ok(())
    }
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// A name in the same folder, so that renaming is one step.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

/// A new file that only its owner can read, whatever an earlier try has left there, or a link that leads elsewhere.
fn new_file(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Nothing is replaced that has come there meanwhile.
fn put_in_place(partial: &Path, path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    std::fs::rename(partial, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn file_error(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |cause| BackupError::File { path, what, cause }
}
