//! The data folder of a real process: a lock, two queues and the threads that work them off.

mod file;
#[cfg(target_os = "linux")]
mod group;
mod queue;
mod run;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rustix::fs::{FlockOperation, flock};
use tokio::sync::oneshot;

use crate::disk::{BatchError, DiskOptions, Done, LOCK_FILE, Lane, Op, OpenError};
pub(crate) use file::Handle;
use queue::{Job, Queue, Queues, Work};

/// The lock on the folder: an flock that ends when the last holder drops the file. The queues hold it, and so does each batch
/// until it has ended.
#[derive(Clone)]
struct Lock {
    _file: Arc<fs::File>,
}

#[derive(Clone)]
pub(crate) struct Folder {
    queues: Arc<Queues>,
    lock: Lock,
}

impl Folder {
    pub(crate) async fn open(root: &Path, options: &DiskOptions) -> Result<Folder, OpenError> {
        let (reply, opened) = oneshot::channel();
        let (path, threads) = (root.to_path_buf(), options.pool_threads);
        // Opening is file I/O, too: it gets a thread of its own for as long as it takes.
        let opener = thread::Builder::new().name("weir-disk-open".to_owned());
        let io = |source| OpenError::Io { path: root.to_path_buf(), source };
        opener
            .spawn(move || {
                // A failing send means that nobody waits any more: the folder is then closed again by dropping it.
                let _ = reply.send(open(&path, threads));
            })
            .map_err(io)?;
        opened.await.unwrap_or_else(|_| Err(io(io::Error::other("the opening thread ended early"))))
    }

    /// The range, if all of it is in the page cache.
    pub(crate) fn read_cached(
        &self,
        file: &crate::disk::File,
        offset: u64,
        len: usize,
    ) -> Option<bytes::Bytes> {
        file::read_cached(file, offset, len)
    }

    pub(crate) fn submit(
        &self,
        lane: Lane,
        ops: Vec<Op>,
        reply: oneshot::Sender<Result<Vec<Done>, BatchError>>,
    ) {
        let queue = match lane {
            Lane::Journal => &self.queues.journal,
            Lane::Pool => &self.queues.pool,
        };
        queue.push(Work::Batch(Job { ops, reply, lock: self.lock.clone() }));
    }
}

/// Creates and locks the folder and starts its threads.
fn open(path: &Path, pool_threads: usize) -> Result<Folder, OpenError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::NotWritable { path: path.to_path_buf(), source }
        }
        _ => OpenError::Io { path: path.to_path_buf(), source },
    };
    fs::create_dir_all(path).map_err(failed)?;
    let root: Arc<Path> = path.canonicalize().map_err(failed)?.into();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(rustix::fs::OFlags::CLOEXEC.bits() as i32)
        .open(root.join(LOCK_FILE))
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::Locked { path: path.to_path_buf() }),
        Err(error) => return Err(failed(error.into())),
    }

    let queues = Arc::new(Queues { journal: Queue::new(), pool: Queue::new() });
    start("weir-journal".to_owned(), &queues.journal, &queues.pool, &root).map_err(failed)?;
    for number in 0..pool_threads.max(1) {
        start(format!("weir-disk-{number}"), &queues.pool, &queues.pool, &root).map_err(failed)?;
    }
    Ok(Folder { queues, lock: Lock { _file: Arc::new(file) } })
}

/// Starts a thread for a queue; the files that it opens are closed by the threads of `closer`.
fn start(name: String, queue: &Arc<Queue>, closer: &Arc<Queue>, root: &Arc<Path>) -> io::Result<()> {
    let (queue, closer, root) = (queue.clone(), closer.clone(), root.clone());
    thread::Builder::new().name(name).spawn(move || queue.work(&root, &closer)).map(drop)
}

/// A path of an operation, as the operating system wants it.
fn absolute(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_path_buf() } else { root.join(path) }
}
