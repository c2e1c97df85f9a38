//! The imported lists in the store. A new state of a list is written beside the old one, block by block, and becomes
//! the list's state in one small write; until then, and if it never comes to that, the old one stands.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::Environment;
use crate::crypto::{Digester, base64url};
use crate::directory::entries::{BLOCK, Block, DirectoryEntry, each};
use crate::directory::import::{Form, ImportError, ImportLimits, ReadList, Refusal, read_list};
use crate::directory::pieces::{ImportProgress, ImportStage};
use crate::directory::{Directory, DirectoryError};
use crate::store::{Change, Range, Reader, StoreError, Table, json_value};

/// Lists by a digest of environment and name.
pub(super) const LISTS: Table<DirectoryList> = Table::new("directory_lists.v1");
/// Blocks of entries by list, state and number.
pub(super) const BLOCKS: Table<Block> = Table::new("directory_blocks.v1");

/// Blocks in one write: what waits behind it waits a few milliseconds.
const BLOCKS_A_WRITE: usize = 8;
/// A list that had at least so many entries is not replaced by one with less than four fifths of them.
const WORTH_GUARDING: usize = 20;
/// Entries that are gone for so long are forgotten.
const REMEMBERED: Duration = Duration::from_hours(24 * 400);
/// Names in a report.
const MOST_NAMED: usize = 20;

/// A list that was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryList {
    /// The operator's name for it.
    pub name: String,
    /// Whose sources it names.
    pub environment: Environment,
    /// Where it was fetched from, if it was.
    #[serde(default)]
    pub url: Option<String>,
    /// The server's mark for what was fetched.
    #[serde(default)]
    pub etag: Option<String>,
    /// Its form.
    pub form: Form,
    /// SHA-256 of the unpacked list.
    content: String,
    /// SHA-256 of its blocks.
    digest: String,
    /// Which of its states in the store counts.
    state: u64,
    /// Rows that were read.
    pub rows: usize,
    /// Entries it has now.
    pub entries: usize,
    /// Entries it had once.
    pub gone: usize,
    /// Servers its entries lead to.
    pub sources: usize,
    /// Rows that were not taken, by reason.
    pub refused: BTreeMap<Refusal, usize>,
    /// When its entries last changed.
    pub imported_at: Timestamp,
    /// When it was last read or asked for.
    pub checked_at: Timestamp,
    /// Why the last try changed nothing.
    #[serde(default)]
    pub trouble: Option<String>,
}
json_value!(DirectoryList);

impl DirectoryList {
    /// How far it is believed when lists differ: a vendor's own bundle before flat lists, newer before older.
    pub(super) fn rank(&self) -> i64 {
        let own = if self.form == Form::Bundle { 1_i64 << 50 } else { 0 };
        own + self.imported_at.seconds()
    }
}

/// What to import.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// The list it is a state of.
    pub list: String,
    /// Whose sources it names.
    pub environment: Environment,
    /// Where it comes from, if fetched.
    pub url: Option<String>,
    /// The server's mark.
    pub etag: Option<String>,
    /// Whether an empty or much shorter list is meant.
    pub yes: bool,
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// The list.
    pub list: String,
    /// Its form.
    pub form: Form,
    /// Whether it said the same as before; nothing was written then but the time.
    pub unchanged: bool,
    /// Rows that were read.
    pub rows: usize,
    /// Entries taken.
    pub entries: usize,
    /// Servers they lead to.
    pub sources: usize,
    /// Rows that repeat others.
    pub doubled: usize,
    /// Rows not taken, by reason.
    pub refused: BTreeMap<&'static str, usize>,
    /// Entries for tests or inside networks, not shown to patients.
    pub hidden: usize,
    /// Entries without a name of their own.
    pub unnamed: usize,
    /// New since the last time.
    pub added: usize,
    /// No longer listed since this time.
    pub gone: usize,
    /// Listed under another address than before; connections keep the old one.
    pub moved: usize,
    /// Some of those, by name.
    pub moved_names: Vec<String>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

/// Why an import changed nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImportRefused {
    /// It could not be read.
    #[error(transparent)]
    Unread(#[from] ImportError),
    /// No row of it can be used.
    #[error("none of its {rows} rows can be used{reasons}; nothing was changed")]
    Nothing {
        /// Rows that were read.
        rows: usize,
        /// In words.
        reasons: String,
    },
    /// It lost more than a fifth.
    #[error(
        "it has {now} entries and had {before}: it may have been cut short; nothing was changed, look at it and \
         import it with `--yes` if it is right"
    )]
    Shrunk {
        /// Entries before.
        before: usize,
        /// Entries in what was read.
        now: usize,
    },
    /// One at a time.
    #[error("another list is being imported; try again when it is done")]
    Busy,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ImportRefused> for DirectoryError {
    fn from(refused: ImportRefused) -> Self {
        Self::Import(Box::new(refused))
    }
}

/// A new state of a list, ready to be written.
struct Staged {
    list: DirectoryList,
    blocks: Vec<Block>,
    report: ImportReport,
}

impl Directory {
    /// Imports a state of a list, and makes it searchable. Search goes on with the old state until then.
    pub async fn import(
        &self,
        request: ImportRequest,
        reader: impl Read + Send + 'static,
        limits: ImportLimits,
    ) -> Result<ImportReport, ImportRefused> {
        self.import_watched(request, reader, limits, &ImportProgress::default()).await
    }

    /// [`Directory::import`], watched.
    pub async fn import_watched(
        &self,
        request: ImportRequest,
        reader: impl Read + Send + 'static,
        limits: ImportLimits,
        progress: &ImportProgress,
    ) -> Result<ImportReport, ImportRefused> {
        let _alone = self.importing.try_lock().map_err(|_| ImportRefused::Busy)?;
        let key = self.list_key(request.environment, &request.list);
        let read = tokio::task::spawn_blocking(move || read_list(reader, limits)).await;
        let read = read.map_err(|_| ImportRefused::Store(StoreError::Closed))??;
        progress.enter(ImportStage::Storing);
        let now = self.clock.now();
        let environment = request.environment;
        let staged = self
            .store
            .read(move |view| {
                let before = view.get(LISTS, &key)?;
                let old = match &before {
                    Some(list) => entries_of(view, &state_key(&key, list.state))?,
                    None => Vec::new(),
                };
                stage(request, read, before.as_ref(), old, now)
            })
            .await?;
        self.write_state(key, staged.list, staged.blocks).await?;
        if !staged.report.unchanged {
            progress.enter(ImportStage::Indexing);
            self.reindex(environment).await?;
        }
        progress.enter(ImportStage::Done);
        Ok(staged.report)
    }

    /// Writes the blocks of a new state, then makes it the list's state and removes what is no longer used.
    async fn write_state(
        &self,
        key: [u8; 16],
        list: DirectoryList,
        blocks: Vec<Block>,
    ) -> Result<(), StoreError> {
        let prefix = state_key(&key, list.state);
        if !blocks.is_empty() {
            // What an import that was stopped had written must not mix with this one.
            self.store.write(move |change| forget_others(change, &key)).await?;
        }
        let mut numbered = (0_u32..).zip(blocks).peekable();
        while numbered.peek().is_some() {
            let some: Vec<(u32, Block)> = numbered.by_ref().take(BLOCKS_A_WRITE).collect();
            let prefix = prefix.clone();
            self.store
                .write(move |change| {
                    for (number, block) in &some {
                        let mut row = prefix.clone();
                        row.extend_from_slice(&number.to_be_bytes());
                        change.put(BLOCKS, &row, block);
                    }
                    Ok::<_, StoreError>(())
                })
                .await?;
        }
        self.store
            .write(move |change| {
                change.put(LISTS, &key, &list);
                forget_others(change, &key)
            })
            .await
    }

    /// Every list, by name.
    pub async fn lists(&self) -> Result<Vec<DirectoryList>, StoreError> {
        let mut lists: Vec<DirectoryList> = self
            .store
            .read(|view| {
                let rows = view.rows(LISTS, &Range::of(b""))?;
                Ok::<_, StoreError>(rows.into_iter().map(|(_, list)| list).collect())
            })
            .await?;
        lists.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(lists)
    }

    /// A list by its name.
    pub async fn list(
        &self,
        environment: Environment,
        name: &str,
    ) -> Result<Option<DirectoryList>, StoreError> {
        let key = self.list_key(environment, name);
        self.store.read(move |view| view.get(LISTS, &key)).await
    }

    /// Removes a list with its entries. Sources that were chosen stay.
    pub async fn remove_list(&self, environment: Environment, name: &str) -> Result<bool, ImportRefused> {
        let _alone = self.importing.try_lock().map_err(|_| ImportRefused::Busy)?;
        let key = self.list_key(environment, name);
        let was = self
            .store
            .write(move |change| {
                let was = change.has(LISTS, &key)?;
                change.remove(LISTS, &key);
                change.remove_all(BLOCKS, &key)?;
                Ok::<_, StoreError>(was)
            })
            .await?;
        self.reindex(environment).await?;
        Ok(was)
    }

    /// Notes that a list was asked for and brought nothing new.
    pub(super) async fn note_check(
        &self,
        environment: Environment,
        name: &str,
        trouble: Option<String>,
    ) -> Result<(), StoreError> {
        let key = self.list_key(environment, name);
        let now = self.clock.now();
        self.store
            .write(move |change| {
                if let Some(list) = change.get(LISTS, &key)? {
                    change.put(LISTS, &key, &DirectoryList { checked_at: now, trouble, ..list });
                }
                Ok(())
            })
            .await
    }

    fn list_key(&self, environment: Environment, name: &str) -> [u8; 16] {
        let environment: &[u8] = match environment {
            Environment::Live => b"live",
            Environment::Sandbox => b"sandbox",
        };
        self.store.vault().digest(&[b"directory list", environment, name.as_bytes()])
    }
}

/// Removes the blocks of every state but the one that counts.
fn forget_others(change: &mut Change<'_>, key: &[u8; 16]) -> Result<(), StoreError> {
    let counts = change.get(LISTS, key)?.map(|list| list.blocks_prefix(key));
    for row in change.keys(BLOCKS, &Range::of(key))? {
        if !counts.as_ref().is_some_and(|prefix| row.starts_with(prefix)) {
            change.remove(BLOCKS, &row);
        }
    }
    Ok(())
}

/// Where the blocks of one state of a list are.
fn state_key(list: &[u8], state: u64) -> Vec<u8> {
    [list, &state.to_be_bytes()].concat()
}

impl DirectoryList {
    /// Where its blocks are.
    pub(super) fn blocks_prefix(&self, key: &[u8]) -> Vec<u8> {
        state_key(key, self.state)
    }
}

fn entries_of(view: &impl Reader, prefix: &[u8]) -> Result<Vec<DirectoryEntry>, StoreError> {
    let mut entries = Vec::new();
    view.each(BLOCKS, &Range::of(prefix), |_, block| {
        let plain = block.unpack().ok_or(StoreError::Damaged(BLOCKS.name()))?;
        each(&plain, |entry| entries.push(entry.to_entry())).ok_or(StoreError::Damaged(BLOCKS.name()))?;
        Ok(true)
    })?;
    Ok(entries)
}

/// Compares what was read with what is there, and decides.
fn stage(
    request: ImportRequest,
    read: ReadList,
    before: Option<&DirectoryList>,
    old: Vec<DirectoryEntry>,
    now: Timestamp,
) -> Result<Staged, ImportRefused> {
    let content = base64url(&read.content);
    let mut report = first_report(&request.list, &read);
    if let Some(list) = before.filter(|list| list.content == content) {
        report.unchanged = true;
        let list = DirectoryList {
            url: request.url.or_else(|| list.url.clone()),
            etag: request.etag,
            checked_at: now,
            trouble: None,
            ..list.clone()
        };
        return Ok(Staged { list, blocks: Vec::new(), report }.keeping());
    }
    if read.entries.is_empty() && !request.yes {
        let reasons = reasons(&read.refused);
        return Err(ImportRefused::Nothing { rows: read.rows, reasons });
    }
    let listed_before = old.iter().filter(|entry| entry.gone_since.is_none()).count();
    let now_listed = read.entries.len();
    if listed_before >= WORTH_GUARDING && now_listed * 5 < listed_before * 4 && !request.yes {
        return Err(ImportRefused::Shrunk { before: listed_before, now: now_listed });
    }
    let mut entries = read.entries;
    compare(&mut entries, old, now, &mut report);
    let blocks: Vec<Block> = entries.chunks(BLOCK).map(Block::pack).collect();
    let mut digester = Digester::default();
    for block in &blocks {
        digester.update(block.bytes());
    }
    let digest = base64url(&digester.finish());
    let same = before.is_some_and(|list| list.digest == digest);
    let list = DirectoryList {
        name: request.list,
        environment: request.environment,
        url: request.url,
        etag: request.etag,
        form: read.form,
        content,
        digest,
        state: before.map_or(1, |list| if same { list.state } else { list.state + 1 }),
        rows: read.rows,
        entries: now_listed,
        gone: entries.len() - now_listed,
        sources: report.sources,
        refused: read.refused,
        imported_at: before.filter(|_| same).map_or(now, |list| list.imported_at),
        checked_at: now,
        trouble: None,
    };
    report.unchanged = same;
    Ok(Staged { list, blocks: if same { Vec::new() } else { blocks }, report })
}

impl Staged {
    /// Nothing new: the blocks that are there stay.
    fn keeping(self) -> Self {
        Self { blocks: Vec::new(), ..self }
    }
}

/// Marks what is no longer listed, keeps it in the list, and notes what is new or has moved.
fn compare(
    entries: &mut Vec<DirectoryEntry>,
    old: Vec<DirectoryEntry>,
    now: Timestamp,
    report: &mut ImportReport,
) {
    let listed: HashSet<[u8; 16]> = entries.iter().map(|entry| entry.key).collect();
    let known: HashSet<[u8; 16]> = old.iter().map(|entry| entry.key).collect();
    let first = old.is_empty();
    let by_id: HashMap<&str, &DirectoryEntry> = entries
        .iter()
        .filter(|entry| !entry.external_id.is_empty() && !known.contains(&entry.key))
        .map(|entry| (entry.external_id.as_str(), entry))
        .collect();
    let mut kept = Vec::new();
    for mut entry in old {
        if listed.contains(&entry.key) {
            continue;
        }
        if entry.gone_since.is_none() {
            entry.gone_since = Some(now);
            report.gone += 1;
            if let Some(new) = by_id.get(entry.external_id.as_str()).filter(|new| new.base != entry.base) {
                report.moved += 1;
                if report.moved_names.len() < MOST_NAMED {
                    report.moved_names.push(new.name.clone());
                }
            }
        }
        if entry.gone_since.is_some_and(|since| now.since(since) < REMEMBERED) {
            kept.push(entry);
        }
    }
    report.added =
        if first { entries.len() } else { listed.iter().filter(|key| !known.contains(*key)).count() };
    if report.moved > 0 {
        report.warnings.push(format!(
            "{} entries have another address than before; connections that exist keep the old one",
            report.moved
        ));
    }
    entries.extend(kept);
}

fn first_report(list: &str, read: &ReadList) -> ImportReport {
    let bases: HashSet<&str> = read.entries.iter().map(|entry| entry.base.as_str()).collect();
    let mut warnings = Vec::new();
    if let Some(total) = read.announced {
        warnings
            .push(format!("the bundle says it has {total} entries, which is not so: it may have been cut"));
    }
    ImportReport {
        list: list.to_owned(),
        form: read.form,
        unchanged: false,
        rows: read.rows,
        entries: read.entries.len(),
        sources: bases.len(),
        doubled: read.doubled,
        refused: read.refused.iter().map(|(refusal, count)| (refusal.reason(), *count)).collect(),
        hidden: read.entries.iter().filter(|entry| entry.hidden).count(),
        unnamed: read.entries.iter().filter(|entry| entry.unnamed).count(),
        added: 0,
        gone: 0,
        moved: 0,
        moved_names: Vec::new(),
        warnings,
    }
}

fn reasons(refused: &BTreeMap<Refusal, usize>) -> String {
    let parts: Vec<String> =
        refused.iter().map(|(refusal, count)| format!("{count} {}", refusal.reason())).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}
