//! The disk: batches of operations on the files of one data folder.
//!
//! A folder is owned by one [`Disk`] at a time. Work is handed over in batches, whose operations run in order and whose
//! result comes back in one piece, so that a write and its sync cost one hand-off and not two. No operation runs on the
//! thread of an async task.

mod aligned;
mod op;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;
use weir_defect::defect;

pub use aligned::{AlignedBuf, BLOCK_BYTES};
#[allow(unused_imports, reason = "the implementations use it")]
pub(crate) use op::LOCK_FILE;
pub use op::{BatchError, DirEntry, Done, Lane, Op, OpenMode, Space};

use crate::imp;

/// How a data folder is opened.
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// Threads of [`Lane::Pool`], at least one. [`Lane::Journal`] has one of its own.
    pub pool_threads: usize,
}

impl Default for DiskOptions {
    fn default() -> Self {
        DiskOptions { pool_threads: 4 }
    }
}

/// Why a data folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another [`Disk`] of this one, owns it.
    #[error("the data folder {} is locked: another process uses it", path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// It cannot be created or written.
    #[error("the data folder {} is not writable: {source}", path.display())]
    NotWritable {
        /// The data folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Anything else.
    #[error("the data folder {} cannot be opened: {source}", path.display())]
    Io {
        /// The data folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// One data folder, locked exclusively while any clone lives.
#[derive(Clone)]
pub struct Disk {
    root: Arc<Path>,
    folder: imp::disk::Folder,
}

impl Disk {
    /// Opens a data folder and locks it. Creates it, and its parents, if it does not exist.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(root: &Path, options: DiskOptions) -> Result<Disk, OpenError> {
        let folder = imp::disk::Folder::open(root, &options).await?;
        Ok(Disk { root: root.into(), folder })
    }

    /// The folder, as it was given to [`Disk::open`]. For messages: all paths of operations are relative to it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Starts a batch at once. It runs to its end, or to its first failing operation, even when the returned future is
    /// dropped. An empty batch succeeds.
    pub fn submit(&self, lane: Lane, ops: Vec<Op>) -> Submission {
        let (reply, result) = oneshot::channel();
        self.folder.submit(lane, ops, reply);
        Submission { result }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound` (and the mode does not create), `AlreadyExists` ([`OpenMode::CreateNew`]), what the file system says.
    pub async fn open_file(
        &self,
        path: impl Into<PathBuf>,
        mode: OpenMode,
    ) -> Result<(File, u64), BatchError> {
        match self.one(Op::Open { path: path.into(), mode }).await? {
            Done::Opened { file, len } => Ok((file, len)),
            other => Err(unexpected("open", &other)),
        }
    }

    /// Reads up to `len` bytes at `offset`; less at the end of the file. What the operating system has in memory is read at
    /// once, without a thread in between.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn read(&self, file: &File, offset: u64, len: usize) -> Result<Bytes, BatchError> {
        if let Some(bytes) = self.folder.read_cached(file, offset, len) {
            return Ok(bytes);
        }
        match self.one(Op::Read { file: file.clone(), offset, len }).await? {
            Done::Read(bytes) => Ok(bytes),
            other => Err(unexpected("read", &other)),
        }
    }

    /// Writes all of `data` at `offset`. Not durable before a [`Disk::sync`].
    ///
    /// # Errors
    /// What the file system says; part of the data may have been written.
    pub async fn write(&self, file: &File, offset: u64, data: Vec<Bytes>) -> Result<(), BatchError> {
        self.one(Op::Write { file: file.clone(), offset, data }).await.map(drop)
    }

    /// Makes what was written to the file durable, and its length.
    ///
    /// # Errors
    /// What the file system says. The data is then in doubt for ever: a second sync that succeeds says nothing.
    pub async fn sync(&self, file: &File) -> Result<(), BatchError> {
        self.one(Op::Sync { file: file.clone() }).await.map(drop)
    }

    /// Sets a file's length. Durable after a sync.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn truncate(&self, file: &File, len: u64) -> Result<(), BatchError> {
        self.one(Op::Truncate { file: file.clone(), len }).await.map(drop)
    }

    /// Renames a file or folder, replacing a file of that name. Durable after a [`Disk::sync_dir`].
    ///
    /// # Errors
    /// `NotFound`, what the file system says.
    pub async fn rename(&self, from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Result<(), BatchError> {
        self.one(Op::Rename { from: from.into(), to: to.into() }).await.map(drop)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`, what the file system says.
    pub async fn remove(&self, path: impl Into<PathBuf>) -> Result<(), BatchError> {
        self.one(Op::Remove { path: path.into() }).await.map(drop)
    }

    /// Creates a folder and its parents; succeeds if it exists.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn create_dir(&self, path: impl Into<PathBuf>) -> Result<(), BatchError> {
        self.one(Op::CreateDir { path: path.into() }).await.map(drop)
    }

    /// Removes a folder and what is in it.
    ///
    /// # Errors
    /// `NotFound`, what the file system says; part of the content may be gone.
    pub async fn remove_dir(&self, path: impl Into<PathBuf>) -> Result<(), BatchError> {
        self.one(Op::RemoveDir { path: path.into() }).await.map(drop)
    }

    /// Makes creations, renames and removals directly in this folder durable.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn sync_dir(&self, path: impl Into<PathBuf>) -> Result<(), BatchError> {
        self.one(Op::SyncDir { path: path.into() }).await.map(drop)
    }

    /// What is in a folder, sorted by name; the root's lock file is left out.
    ///
    /// # Errors
    /// `NotFound`, what the file system says.
    pub async fn list(&self, path: impl Into<PathBuf>) -> Result<Vec<DirEntry>, BatchError> {
        match self.one(Op::List { path: path.into() }).await? {
            Done::Listed(entries) => Ok(entries),
            other => Err(unexpected("list", &other)),
        }
    }

    /// How large the data folder's file system is, and how much of it is free.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn space(&self) -> Result<Space, BatchError> {
        match self.one(Op::Space).await? {
            Done::Space(space) => Ok(space),
            other => Err(unexpected("space", &other)),
        }
    }

    /// Reads a small file whole; `None` if there is none. Files above `len_max` bytes are an error (`InvalidData`).
    ///
    /// # Errors
    /// What the file system says.
    pub async fn read_file(
        &self,
        path: impl Into<PathBuf>,
        len_max: usize,
    ) -> Result<Option<Bytes>, BatchError> {
        let path = path.into();
        let (file, len) = match self.open_file(path.clone(), OpenMode::Read).await {
            Ok(opened) => opened,
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= len_max) else {
            let reason = format!("{len} bytes, at most {len_max} are expected");
            let source = io::Error::new(io::ErrorKind::InvalidData, reason);
            return Err(BatchError::new(0, format!("read {}", path.display()), source, Vec::new()));
        };
        self.read(&file, 0, len).await.map(Some)
    }

    /// Replaces a file's content: after a crash or power loss at any moment it holds the old content or the new one, and the
    /// new one once this has succeeded. Writes `<path>.tmp` beside it, syncs that, renames it, syncs the folder. Only one
    /// replacement of a path may run at a time.
    ///
    /// # Errors
    /// What the file system says; the old content is then still there, or the new one is.
    pub async fn replace_atomically(
        &self,
        path: impl Into<PathBuf>,
        content: Vec<Bytes>,
    ) -> Result<(), BatchError> {
        let path = path.into();
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let parent = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let unsynced = defect!(rename_without_fsync);

        let (file, _) = self.open_file(temporary.clone(), OpenMode::Create).await?;
        let mut batch = vec![
            Op::Truncate { file: file.clone(), len: 0 },
            Op::Write { file: file.clone(), offset: 0, data: content },
        ];
        if !unsynced {
            batch.push(Op::Sync { file });
        }
        batch.push(Op::Rename { from: temporary, to: path });
        if !unsynced {
            batch.push(Op::SyncDir { path: parent });
        }
        self.submit(Lane::Pool, batch).await.map(drop)
    }

    /// A batch of one operation.
    async fn one(&self, op: Op) -> Result<Done, BatchError> {
        let mut done = self.submit(Lane::Pool, vec![op]).await?;
        done.pop()
            .ok_or_else(|| BatchError::new(0, "submit".to_owned(), io::Error::other("no result"), Vec::new()))
    }
}

/// The implementation answered an operation with another operation's result: an error of ours, but no reason to panic.
fn unexpected(op: &str, done: &Done) -> BatchError {
    let source = io::Error::other(format!("unexpected result {done:?}"));
    BatchError::new(0, op.to_owned(), source, Vec::new())
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("root", &self.root).finish_non_exhaustive()
    }
}

/// A batch on its way: a future of its result. Dropping it changes nothing for the batch.
#[derive(Debug)]
#[must_use = "a batch's errors must not be lost"]
pub struct Submission {
    result: oneshot::Receiver<Result<Vec<Done>, BatchError>>,
}

impl Future for Submission {
    type Output = Result<Vec<Done>, BatchError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(cx).map(|received| {
            received.unwrap_or_else(|_| {
                let source = io::Error::new(io::ErrorKind::BrokenPipe, "the disk has stopped");
                Err(BatchError::new(0, "submit".to_owned(), source, Vec::new()))
            })
        })
    }
}

/// An open file: a cheap handle. The file closes with the last clone.
#[derive(Clone)]
pub struct File(Arc<Opened>);

struct Opened {
    path: PathBuf,
    mode: OpenMode,
    direct: bool,
    handle: imp::disk::Handle,
}

impl File {
    #[allow(dead_code, reason = "the implementations make files")]
    pub(crate) fn new(path: PathBuf, mode: OpenMode, direct: bool, handle: imp::disk::Handle) -> File {
        File(Arc::new(Opened { path, mode, direct, handle }))
    }

    #[allow(dead_code, reason = "the implementations read and write files")]
    pub(crate) fn handle(&self) -> &imp::disk::Handle {
        &self.0.handle
    }

    /// The path under which it was opened, relative to the data folder. It may have been renamed since.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// How it was opened.
    pub fn mode(&self) -> OpenMode {
        self.0.mode
    }

    /// Whether writes bypass the page cache: opened as [`OpenMode::Direct`] on a file system that can.
    pub fn is_direct(&self) -> bool {
        self.0.direct
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("File").field(&self.0.path).field(&self.0.mode).finish()
    }
}
