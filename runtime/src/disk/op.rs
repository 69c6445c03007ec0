//! Operations, their results and their errors.

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::{AlignedBuf, File};

/// The file in the data folder that is locked. No operation may name it.
pub(crate) const LOCK_FILE: &str = ".lock";

/// Who runs a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// One thread, batch after batch in the order of submission: the journal's.
    Journal,
    /// A few threads. Batches are unordered among each other, the operations of one batch run in order.
    Pool,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpenMode {
    /// It must exist; reading only.
    Read,
    /// It must exist.
    ReadWrite,
    /// It is created if it does not exist.
    Create,
    /// It must not exist.
    CreateNew,
    /// It is created if it does not exist. Each [`Op::WriteAligned`] is durable when it is done: O_DIRECT and O_DSYNC where
    /// the file system can, a buffered write and an fdatasync elsewhere.
    Direct,
}

/// One operation. Paths are relative to the data folder and must not leave it; "" is the folder itself.
#[derive(Debug)]
pub enum Op {
    /// Opens a file: [`Done::Opened`].
    Open {
        /// Which.
        path: PathBuf,
        /// How.
        mode: OpenMode,
    },
    /// Reads: [`Done::Read`], shorter at the end of the file.
    Read {
        /// From where.
        file: File,
        /// First byte.
        offset: u64,
        /// Most bytes.
        len: usize,
    },
    /// Writes all chunks one after the other: [`Done::Written`]. Writing beyond the end leaves zeros in between. Not for files
    /// opened with [`OpenMode::Direct`].
    Write {
        /// Where to.
        file: File,
        /// Of the first chunk.
        offset: u64,
        /// The chunks.
        data: Vec<Bytes>,
    },
    /// Writes whole blocks and gives the buffer back: [`Done::WrittenAligned`]. Durable when done if the file was opened with
    /// [`OpenMode::Direct`]. Offset and length must be multiples of [`super::BLOCK_BYTES`].
    WriteAligned {
        /// Where to.
        file: File,
        /// A multiple of the block size.
        offset: u64,
        /// Whole blocks.
        data: AlignedBuf,
    },
    /// fdatasync: [`Done::Synced`]. After an error the data is in doubt for ever.
    Sync {
        /// Which.
        file: File,
    },
    /// Sets the length, shorter or longer: [`Done::Truncated`].
    Truncate {
        /// Which.
        file: File,
        /// The new length in bytes.
        len: u64,
    },
    /// Writes zeros from the file's end to `len` and syncs, so that later writes in there change no metadata:
    /// [`Done::Allocated`]. Does nothing to a file that is as long already but sync it.
    Allocate {
        /// Which.
        file: File,
        /// The new length in bytes; of a [`OpenMode::Direct`] file a multiple of the block size.
        len: u64,
    },
    /// Renames a file or folder; a file of the new name is replaced: [`Done::Renamed`].
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new name.
        to: PathBuf,
    },
    /// Removes a file: [`Done::Removed`].
    Remove {
        /// Which.
        path: PathBuf,
    },
    /// Creates a folder and its parents, if they do not exist: [`Done::DirCreated`].
    CreateDir {
        /// Which.
        path: PathBuf,
    },
    /// Removes a folder and its content: [`Done::DirRemoved`].
    RemoveDir {
        /// Which.
        path: PathBuf,
    },
    /// Makes creations, renames and removals directly in a folder durable: [`Done::DirSynced`].
    SyncDir {
        /// Which; "" is the data folder itself.
        path: PathBuf,
    },
    /// Lists a folder, sorted by name, without the lock file: [`Done::Listed`].
    List {
        /// Which; "" is the data folder itself.
        path: PathBuf,
    },
    /// Asks how large the data folder's file system is: [`Done::Space`].
    Space,
}

/// What an operation left.
#[derive(Debug)]
pub enum Done {
    /// Of [`Op::Open`].
    Opened {
        /// The file.
        file: File,
        /// Its length in bytes.
        len: u64,
    },
    /// Of [`Op::Read`].
    Read(Bytes),
    /// Of [`Op::Write`]: all of it.
    Written,
    /// Of [`Op::WriteAligned`]: the buffer, unchanged.
    WrittenAligned(AlignedBuf),
    /// Of [`Op::Sync`].
    Synced,
    /// Of [`Op::Truncate`].
    Truncated,
    /// Of [`Op::Allocate`].
    Allocated,
    /// Of [`Op::Rename`].
    Renamed,
    /// Of [`Op::Remove`].
    Removed,
    /// Of [`Op::CreateDir`].
    DirCreated,
    /// Of [`Op::RemoveDir`].
    DirRemoved,
    /// Of [`Op::SyncDir`].
    DirSynced,
    /// Of [`Op::List`].
    Listed(Vec<DirEntry>),
    /// Of [`Op::Space`].
    Space(Space),
}

/// The room of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What can still be written.
    pub free_bytes: u64,
}

/// A file or folder in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name. Bytes that are no UTF-8 are replaced: no file of ours has such a name.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// Its length in bytes; 0 for a folder.
    pub len: u64,
}

/// A batch stopped at its first failing operation. The operations before it were done, those after it never started.
#[derive(Debug, thiserror::Error)]
#[error("{op}: {source}")]
pub struct BatchError {
    /// The failing operation's place in the batch.
    pub index: usize,
    /// The failing operation, such as "write data/x.log at 4096".
    pub op: String,
    /// What went wrong.
    pub source: io::Error,
    /// The results of the operations before it.
    pub done: Vec<Done>,
}

impl BatchError {
    pub(crate) fn new(index: usize, op: String, source: io::Error, done: Vec<Done>) -> BatchError {
        BatchError { index, op, source, done }
    }

    /// Whether a file or folder was missing.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether there was no room (ENOSPC, EDQUOT): the one error after which writing may go on later.
    pub fn is_no_space(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl From<BatchError> for io::Error {
    fn from(error: BatchError) -> io::Error {
        io::Error::new(error.source.kind(), error.to_string())
    }
}

impl Op {
    /// Refuses what neither implementation may try: paths that leave the folder, writes to files opened for reading, unaligned
    /// direct writes, offsets beyond what a file can have.
    #[allow(dead_code, reason = "the implementations check")]
    pub(crate) fn check(&self) -> io::Result<()> {
        match self {
            Op::Write { file, .. }
            | Op::WriteAligned { file, .. }
            | Op::Truncate { file, .. }
            | Op::Allocate { file, .. }
                if file.mode() == OpenMode::Read =>
            {
                Err(invalid("the file was opened for reading only"))
            }
            Op::Open { path, .. } | Op::Remove { path } | Op::RemoveDir { path } => check_path(path, false),
            Op::CreateDir { path } | Op::SyncDir { path } | Op::List { path } => check_path(path, true),
            Op::Rename { from, to } => check_path(from, false).and_then(|()| check_path(to, false)),
            Op::Read { offset, len, .. } => check_range(*offset, *len),
            Op::Write { file, .. } if file.mode() == OpenMode::Direct => {
                Err(invalid("a file that was opened as direct takes aligned writes only"))
            }
            Op::Write { offset, data, .. } => check_range(*offset, data.iter().map(Bytes::len).sum()),
            Op::WriteAligned { offset, data, .. } => {
                check_blocks(*offset)?;
                check_blocks(data.len() as u64)?;
                check_range(*offset, data.len())
            }
            Op::Allocate { file, len } if file.mode() == OpenMode::Direct => {
                check_blocks(*len)?;
                check_range(*len, 0)
            }
            Op::Truncate { len, .. } | Op::Allocate { len, .. } => check_range(*len, 0),
            Op::Sync { .. } | Op::Space => Ok(()),
        }
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned())
}

fn check_path(path: &Path, root_too: bool) -> io::Result<()> {
    if !path.components().all(|component| matches!(component, Component::Normal(_))) {
        return Err(invalid("the path leaves the data folder"));
    }
    if path.as_os_str().is_empty() && !root_too {
        return Err(invalid("the path is empty"));
    }
    if path == Path::new(LOCK_FILE) {
        return Err(invalid("the lock file is not yours"));
    }
    Ok(())
}

fn check_range(offset: u64, len: usize) -> io::Result<()> {
    let end = offset.checked_add(len as u64).ok_or_else(|| invalid("the offset is too large"))?;
    if end > i64::MAX as u64 { Err(invalid("the offset is too large")) } else { Ok(()) }
}

fn check_blocks(position: u64) -> io::Result<()> {
    if position.is_multiple_of(super::BLOCK_BYTES as u64) {
        Ok(())
    } else {
        Err(invalid("not a whole block"))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Open { path, mode } => write!(f, "open {} ({mode:?})", path.display()),
            Op::Read { file, offset, len } => {
                write!(f, "read {len} bytes of {} at {offset}", file.path().display())
            }
            Op::Write { file, offset, .. } | Op::WriteAligned { file, offset, .. } => {
                write!(f, "write {} at {offset}", file.path().display())
            }
            Op::Sync { file } => write!(f, "sync {}", file.path().display()),
            Op::Truncate { file, len } => write!(f, "truncate {} to {len}", file.path().display()),
            Op::Allocate { file, len } => write!(f, "allocate {} to {len}", file.path().display()),
            Op::Rename { from, to } => write!(f, "rename {} to {}", from.display(), to.display()),
            Op::Remove { path } => write!(f, "remove {}", path.display()),
            Op::CreateDir { path } => write!(f, "create folder {}", path.display()),
            Op::RemoveDir { path } => write!(f, "remove folder {}", path.display()),
            Op::SyncDir { path } => write!(f, "sync folder {}", shown(path)),
            Op::List { path } => write!(f, "list folder {}", shown(path)),
            Op::Space => write!(f, "ask for the space of the data folder"),
        }
    }
}

fn shown(path: &Path) -> std::path::Display<'_> {
    if path.as_os_str().is_empty() { Path::new(".").display() } else { path.display() }
}
