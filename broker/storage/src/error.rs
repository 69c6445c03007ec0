//! What can go wrong.

use std::sync::Arc;

use weir_protocol::types::{LogId, Offset};
use weir_runtime::disk::BatchError;

/// Why the store refuses something, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// An operation on the disk failed.
    #[error("{doing}: {source}")]
    Disk {
        /// What the store was about to do.
        doing: &'static str,
        /// The operation and the operating system's reason.
        source: BatchError,
    },
    /// There is no room. Reads go on; appends succeed again when there is room.
    #[error("no space left in the data folder: {source}")]
    NoSpace {
        /// The operation and the operating system's reason.
        source: Arc<BatchError>,
    },
    /// A file was written by a later version of Weir.
    #[error(
        "{file} has format version {found}, this version of Weir reads up to {known}: start the newer version"
    )]
    NewerFormat {
        /// Relative to the data folder.
        file: String,
        /// The file's version.
        found: u16,
        /// The newest version that is known here.
        known: u16,
    },
    /// A file that cannot be rebuilt from others is damaged.
    #[error("{file} is damaged: {reason}")]
    Damaged {
        /// Relative to the data folder.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A sync or a journal write has failed: the folder neither reads nor acknowledges until the next start (contract 8).
    #[error("the data folder has failed: {0}")]
    FolderFailed(Arc<StorageError>),
    /// More bytes wait for their round than [`crate::StoreConfig::backlog_bytes_max`].
    #[error("{backlog_bytes} bytes wait to be written already")]
    Backlog {
        /// Waiting.
        backlog_bytes: usize,
    },
    /// The caller's append does not fit the log's end, its epochs, or a segment.
    #[error("append to {log} at {base_offset} refused: {reason}")]
    Misplaced {
        /// The log.
        log: LogId,
        /// Of the append.
        base_offset: Offset,
        /// What does not fit.
        reason: String,
    },
    /// The log is open already: it has one owner.
    #[error("log {0} is open already")]
    AlreadyOpen(LogId),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl StorageError {
    pub(crate) fn disk(doing: &'static str) -> impl FnOnce(BatchError) -> StorageError {
        move |source| {
            if source.is_no_space() {
                StorageError::NoSpace { source: Arc::new(source) }
            } else {
                StorageError::Disk { doing, source }
            }
        }
    }

    /// Whether an append was refused before anything of it was written.
    pub fn is_refusal(&self) -> bool {
        matches!(self, StorageError::Misplaced { .. } | StorageError::Backlog { .. })
    }

    /// Whether there was no room: the one error of the disk after which appends may succeed again.
    pub fn is_no_space(&self) -> bool {
        matches!(self, StorageError::NoSpace { .. })
    }
}

/// Why a read gives no batches.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is below the log's start or above its end.
    #[error("offset {offset} is not within {start} and {end}")]
    OutOfRange {
        /// Asked for.
        offset: Offset,
        /// The log's start.
        start: Offset,
        /// The log's end.
        end: Offset,
    },
    /// The records from `from` up to `to`, exclusive, are damaged and not served (contract 7). What lies before and after is.
    #[error("{log} is damaged from offset {from} to {to}")]
    Corrupt {
        /// The log.
        log: LogId,
        /// First damaged offset, as far as is known.
        from: Offset,
        /// Where good records begin again: the next valid batch, or the log's end.
        to: Offset,
    },
    /// The log was truncated or deleted while the read was on its way: plan it again.
    #[error("{0} was cut while it was read")]
    Changed(LogId),
    /// An operation on the disk failed.
    #[error("reading a log: {0}")]
    Io(#[from] BatchError),
    /// The folder has failed (contract 8).
    #[error("the data folder has failed")]
    Failed,
}
