//! What happens before a folder can be used: its identity, the checkpoint, and the replay of the journal.

mod replay;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use weir_defect::defect;
use weir_protocol::types::{FolderId, Incarnation, LogId, Offset};
use weir_runtime::disk::{Disk, OpenMode};
use weir_runtime::time;

use crate::blob::BlobError;
use crate::catalog::{Catalog, Tail};
use crate::checkpoint::{self, Checkpoint};
use crate::committer::Dirty;
use crate::config::StoreConfig;
use crate::error::StorageError;
use crate::identity::{self, Identity};
use crate::journal::{Journal, JournalConfig, JournalError};
use crate::layout;

/// What recovery has found and done, for the log of the start, for tests and for the cluster (contract 5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveryReport {
    /// Whether the folder is new.
    pub is_new: bool,
    /// Whether the folder was closed in order: then nothing was to be recovered.
    pub was_clean: bool,
    /// Whether the ends of all `sync` logs are known for certain.
    pub is_certain: bool,
    /// Whether the checkpoint was missing or damaged, so that logs are rebuilt from their segments.
    pub is_rebuilt: bool,
    /// Journal rounds that were replayed.
    pub rounds_replayed: u64,
    /// Bytes of appends in them.
    pub bytes_replayed: u64,
    /// Logs that they touched.
    pub logs_touched: usize,
    /// Records that the journal held and that do not read. They may still be in their segments.
    pub damaged: Vec<DamagedRange>,
    /// All of this, and what else is worth knowing, in words.
    pub notes: Vec<String>,
}

/// A part of a log that was in a damaged round of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRange {
    /// The log.
    pub log: LogId,
    /// The offsets, as far as they are known.
    pub offsets: Range<Offset>,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.notes.join("; "))
    }
}

/// A folder that is ready.
pub(crate) struct Recovered {
    pub(crate) folder: FolderId,
    pub(crate) incarnation: Incarnation,
    pub(crate) catalog: Catalog,
    pub(crate) journal: Journal,
    pub(crate) dirty: Dirty,
    pub(crate) report: RecoveryReport,
    /// Folders of deleted logs that are still there.
    pub(crate) leftovers: Vec<PathBuf>,
    pub(crate) late_clean_mark: bool,
}

/// Readies a folder. A crash at any moment of it leaves the folder as good as it was.
pub(crate) async fn recover(disk: &Disk, config: &StoreConfig) -> Result<Recovered, StorageError> {
    let mut report = RecoveryReport::default();
    let (identity, is_new) = identity::begin_incarnation(disk).await?;
    report.is_new = is_new;
    let was_clean = identity::is_clean(disk).await?;
    let loaded = load_checkpoint(disk, identity.folder, &mut report).await?;
    // Whatever happens from here on, the next start must not take the folder for one that was left in order.
    let late_clean_mark = was_clean && defect!(clear_clean_marker_late);
    if was_clean && !late_clean_mark {
        identity::clear_clean_mark(disk).await?;
    }
    report.was_clean = was_clean && loaded.is_some();
    let mut catalog = Catalog::default();
    let mut uncertain = false;
    let from_sequence = loaded.as_ref().map(|checkpoint| checkpoint.replay_from);
    match loaded {
        Some(checkpoint) => {
            uncertain = checkpoint.uncertain;
            fill(&mut catalog, checkpoint, report.was_clean);
        }
        None => find_logs(disk, &mut catalog).await?,
    }
    let journal_config = JournalConfig {
        folder: layout::JOURNAL.into(),
        total_bytes: config.journal_bytes,
        file_bytes: (config.journal_bytes / u64::from(config.journal_files.max(2))).max(1),
        incarnation: identity.incarnation.0,
        from_sequence,
        was_clean: report.was_clean,
    };
    let (journal, replayed) = Journal::open(disk, journal_config).await.map_err(journal_error)?;
    sync_journal(disk).await?;
    let mut dirty = Dirty::default();
    if report.was_clean {
        report.notes.push(format!("clean start, {} logs", catalog.len()));
    } else {
        replay::replay(disk, replayed, &mut catalog, &mut dirty, &mut report).await?;
    }
    report.is_certain = !uncertain && report.damaged.is_empty() && !report.is_rebuilt && report.is_certain;
    let leftovers = list_deleted(disk).await?;
    for note in &report.notes {
        tracing::info!(folder = %identity.folder, "recovery: {note}");
    }
    let Identity { folder, incarnation } = identity;
    Ok(Recovered { folder, incarnation, catalog, journal, dirty, report, leftovers, late_clean_mark })
}

/// The checkpoint, if there is one that can be used.
async fn load_checkpoint(
    disk: &Disk,
    folder: FolderId,
    report: &mut RecoveryReport,
) -> Result<Option<Checkpoint>, StorageError> {
    report.is_certain = true;
    let read = disk.read_file(layout::CHECKPOINT, checkpoint::LEN_MAX).await;
    let problem = match read.map_err(StorageError::disk("read the checkpoint"))? {
        None => "it is missing".to_owned(),
        Some(bytes) => match checkpoint::decode(&bytes, time::now().since_origin_ms()) {
            Ok(checkpoint) if checkpoint.folder == folder => return Ok(Some(checkpoint)),
            Ok(checkpoint) => format!("it belongs to folder {}", checkpoint.folder),
            Err(error @ BlobError::Newer { .. }) => {
                return Err(identity::blob_error(layout::CHECKPOINT, checkpoint::KIND, error));
            }
            Err(BlobError::Damaged(reason)) => reason,
        },
    };
    report.is_rebuilt = true;
    report.notes.push(format!(
        "there is no usable checkpoint ({problem}): logs are rebuilt from their segments and the journal"
    ));
    Ok(None)
}

fn fill(catalog: &mut Catalog, checkpoint: Checkpoint, was_clean: bool) {
    for (log, mut state) in checkpoint.logs {
        // What was appended to these since is nowhere but in their segments.
        if state.os && !was_clean && state.tail == Tail::Known {
            state.tail = Tail::AtLeast;
        }
        let slot = catalog.ensure(log);
        if let Some(entry) = catalog.get_mut(slot) {
            entry.state = state;
            entry.announced = true;
        }
    }
}

/// Without a checkpoint, the logs are those that have a folder.
async fn find_logs(disk: &Disk, catalog: &mut Catalog) -> Result<(), StorageError> {
    let entries = disk.list("").await.map_err(StorageError::disk("list the data folder"))?;
    for entry in entries.iter().filter(|entry| entry.is_dir) {
        let Some(log) = layout::parse_log_dir(&entry.name) else { continue };
        let slot = catalog.ensure(log);
        if let Some(entry) = catalog.get_mut(slot) {
            entry.state.tail = Tail::Unknown;
            entry.state.rebuild = true;
            entry.announced = true;
        }
    }
    Ok(())
}

/// Makes durable what is about to be replayed. A round that was in flight when the process ended may be in the page cache alone: were
/// it replayed now and lost with the machine's power later, it would look like damage.
async fn sync_journal(disk: &Disk) -> Result<(), StorageError> {
    let doing = "sync the journal";
    for entry in disk.list(layout::JOURNAL).await.map_err(StorageError::disk(doing))? {
        let path = Path::new(layout::JOURNAL).join(&entry.name);
        let (file, _) = disk.open_file(path, OpenMode::ReadWrite).await.map_err(StorageError::disk(doing))?;
        disk.sync(&file).await.map_err(StorageError::disk(doing))?;
    }
    // The file's name may never have been synced either.
    disk.sync_dir(layout::JOURNAL).await.map_err(StorageError::disk(doing))
}

/// What deleted logs have left.
async fn list_deleted(disk: &Disk) -> Result<Vec<PathBuf>, StorageError> {
    match disk.list(layout::DELETED).await {
        Ok(entries) => Ok(entries.iter().map(|entry| Path::new(layout::DELETED).join(&entry.name)).collect()),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(StorageError::disk("list deleted logs")(error)),
    }
}

pub(crate) fn journal_error(error: JournalError) -> StorageError {
    match error {
        JournalError::NewerFormat { path, found, known } => StorageError::NewerFormat {
            file: path.display().to_string(),
            found: u16::from(found),
            known: u16::from(known),
        },
        JournalError::Disk(source) => StorageError::disk("open the journal")(source),
        changed @ JournalError::Changed { .. } => {
            StorageError::Damaged { file: layout::JOURNAL.to_owned(), reason: changed.to_string() }
        }
    }
}
