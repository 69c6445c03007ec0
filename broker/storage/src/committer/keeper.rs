//! The committer's helper: what takes long and nobody waits for, one job after the other.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use weir_defect::defect;
use weir_protocol::types::{LogId, Offset};
use weir_runtime::disk::{Disk, Done, File, Lane, Op, OpenMode};

use super::{CheckpointEnd, Dirty};
use crate::StorageError;
use crate::cache::SegmentKey;
use crate::identity;
use crate::inbox::Command;
use crate::journal::Grow;
use crate::layout;
use crate::segment::{self, IndexData};
use crate::store::Shared;

/// Segments, or folders, that are synced in one batch: they share a commit of the file system. Their files are open together.
const SYNC_BATCH: usize = 1024;

/// A job.
pub(super) enum Job {
    /// Write the index of a sealed segment.
    StoreIndex {
        log: LogId,
        data: IndexData,
    },
    /// Remove segments below a log's start.
    RemoveSegments {
        log: LogId,
        bases: Vec<Offset>,
    },
    /// Remove what is left of a deleted log.
    RemoveFolder(PathBuf),
    /// Add a file to the journal.
    Grow(Grow),
    Checkpoint(CheckpointJob),
    /// Answer when all before it is done.
    Barrier(oneshot::Sender<()>),
}

/// A checkpoint: sync all these, then replace the file.
pub(super) struct CheckpointJob {
    pub(super) replay_from: u64,
    pub(super) content: Bytes,
    /// What `files` and `folders` were made of, to be given back if there is no room.
    pub(super) dirty: Dirty,
    pub(super) files: Vec<(SegmentKey, LogId)>,
    pub(super) folders: Vec<LogId>,
    /// Of active segments.
    pub(super) indexes: Vec<(LogId, IndexData)>,
    pub(super) clear_clean_mark: bool,
}

/// Works until the committer is gone.
pub(super) async fn run(shared: Arc<Shared>, mut jobs: mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = jobs.recv().await {
        match job {
            Job::StoreIndex { log, data } => store_index(&shared.disk, log, &data).await,
            Job::RemoveSegments { log, bases } => remove_segments(&shared.disk, log, &bases).await,
            Job::RemoveFolder(path) => match shared.disk.remove_dir(path).await {
                Err(error) if !error.is_not_found() => {
                    tracing::warn!(%error, "a deleted log cannot be removed: the next start tries again");
                }
                _ => {}
            },
            Job::Grow(grow) => {
                let grown = grow.run(&shared.disk).await;
                if let Err(error) = &grown {
                    tracing::warn!(%error, "the journal cannot have another file now");
                }
                shared.inbox.push(Command::Grown(grown.ok()));
            }
            Job::Checkpoint(job) => {
                let command = match checkpoint(&shared, &job).await {
                    Ok(()) => Command::Checkpointed(CheckpointEnd::Done { replay_from: job.replay_from }),
                    Err(error) if error.is_no_space() => {
                        Command::Checkpointed(CheckpointEnd::NoSpace { dirty: job.dirty, error })
                    }
                    Err(error) => Command::Failed(error),
                };
                shared.inbox.push(command);
            }
            Job::Barrier(reply) => {
                let _ = reply.send(());
            }
        }
    }
}

/// Without its file an index is rebuilt: a failure costs time, and no more.
async fn store_index(disk: &Disk, log: LogId, data: &IndexData) {
    match segment::store(disk, log, data).await {
        Ok(()) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => tracing::warn!(%log, segment = data.base, %error, "an index cannot be written"),
    }
}

async fn remove_segments(disk: &Disk, log: LogId, bases: &[Offset]) {
    for base in bases {
        for path in [layout::segment_file(log, *base), layout::index_file(log, *base)] {
            match disk.remove(path).await {
                Err(error) if !error.is_not_found() => {
                    tracing::warn!(%log, segment = base, %error, "a segment cannot be removed: it goes when the log is opened next");
                }
                _ => {}
            }
        }
    }
}

async fn checkpoint(shared: &Shared, job: &CheckpointJob) -> Result<(), StorageError> {
    tracing::trace!(job.replay_from, files = ?job.files, folders = ?job.folders, "checkpoint");
    for (log, data) in &job.indexes {
        store_index(&shared.disk, *log, data).await;
    }
    if !defect!(no_fsync_checkpoint) {
        sync_segments(shared, job).await?;
        sync_folders(&shared.disk, job).await?;
    }
    let doing = "write the checkpoint";
    if defect!(no_fsync_checkpoint) {
        let temporary = PathBuf::from("checkpoint.unsynced");
        let opened = shared.disk.open_file(temporary.clone(), OpenMode::Create).await;
        let (file, _) = opened.map_err(StorageError::disk(doing))?;
        let batch = vec![
            Op::Truncate { file: file.clone(), len: 0 },
            Op::Write { file, offset: 0, data: vec![job.content.clone()] },
            Op::Rename { from: temporary, to: layout::CHECKPOINT.into() },
        ];
        shared.disk.submit(Lane::Pool, batch).await.map_err(StorageError::disk(doing))?;
    } else {
        let content = vec![job.content.clone()];
        shared
            .disk
            .replace_atomically(layout::CHECKPOINT, content)
            .await
            .map_err(StorageError::disk(doing))?;
    }
    if job.clear_clean_mark {
        identity::clear_clean_mark(&shared.disk).await?;
    }
    Ok(())
}

/// Syncs the segments.
async fn sync_segments(shared: &Shared, job: &CheckpointJob) -> Result<(), StorageError> {
    for group in job.files.chunks(SYNC_BATCH) {
        let mut files = Vec::with_capacity(group.len());
        for (key, log) in group {
            files.extend(open(shared, *key, *log).await?);
        }
        let batch = files.iter().map(|file| Op::Sync { file: file.clone() }).collect();
        match shared.disk.submit(Lane::Pool, batch).await {
            Ok(_) => {}
            Err(_) if defect!(retry_fsync) => {
                // The kernel has marked the pages as clean, and the second sync says that all is well.
                for file in files {
                    let _ = shared.disk.sync(&file).await;
                }
            }
            // A sync that finds no room has lost data like any other that fails (contract 8).
            Err(source) => return Err(StorageError::Disk { doing: "sync a segment", source }),
        }
    }
    Ok(())
}

/// A segment's file. `None` if it was removed since.
async fn open(shared: &Shared, key: SegmentKey, log: LogId) -> Result<Option<File>, StorageError> {
    let moment = match shared.files.get(key) {
        Ok(file) => return Ok(Some(file)),
        Err(moment) => moment,
    };
    let op = Op::Open { path: layout::segment_file(log, key.1), mode: OpenMode::ReadWrite };
    match shared.disk.submit(Lane::Pool, vec![op]).await {
        Ok(mut done) => {
            let Some(Done::Opened { file, .. }) = done.pop() else { return Ok(None) };
            shared.files.insert(key, file.clone(), 1, moment);
            Ok(Some(file))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(StorageError::disk("open a segment")(error)),
    }
}

/// Syncs the folders in which files or folders came or went.
async fn sync_folders(disk: &Disk, job: &CheckpointJob) -> Result<(), StorageError> {
    let mut folders: Vec<PathBuf> = job.folders.iter().map(|log| layout::log_dir(*log)).collect();
    // Logs' folders that were created or removed, by this process or by one before it.
    folders.push(PathBuf::new());
    let mut rest = folders.as_slice();
    while !rest.is_empty() {
        let some = &rest[..rest.len().min(SYNC_BATCH)];
        let batch = some.iter().map(|path| Op::SyncDir { path: path.clone() }).collect();
        let finished = match disk.submit(Lane::Pool, batch).await {
            Ok(_) => some.len(),
            // It was removed since.
            Err(error) if error.is_not_found() => error.index + 1,
            Err(error) if defect!(retry_fsync) => error.index + 1,
            Err(source) => return Err(StorageError::Disk { doing: "sync a folder", source }),
        };
        rest = &rest[finished..];
    }
    Ok(())
}
