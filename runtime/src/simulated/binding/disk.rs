//! Data folders on the simulated disks.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::shared::Shared;
use crate::disk::{BatchError, DiskOptions, Done, File, Lane, Op, OpenError};
use crate::simulated::disk::{Completion, Failure, FolderId, HandleId, Reply, Request};

type Sender = oneshot::Sender<Result<Vec<Done>, BatchError>>;

/// An open file; closes when dropped, unless its process died before.
pub(crate) struct Handle {
    shared: Arc<Shared>,
    node: u32,
    id: HandleId,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.node).field(&self.id).finish()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(disk) = self.shared.machines().disks.get_mut(self.node as usize) {
            disk.close(self.id);
        }
    }
}

struct Opened {
    shared: Arc<Shared>,
    node: u32,
    id: FolderId,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(disk) = self.shared.machines().disks.get_mut(self.node as usize) {
            disk.close_folder(self.id);
        }
    }
}

/// An open data folder; its lock goes with the last clone, or with the process.
#[derive(Clone)]
pub(crate) struct Folder(Arc<Opened>);

impl Folder {
    /// Nothing is: every read takes its time.
    pub(crate) fn read_cached(&self, _file: &File, _offset: u64, _len: usize) -> Option<Bytes> {
        None
    }

    pub(crate) async fn open(root: &Path, options: &DiskOptions) -> Result<Folder, OpenError> {
        crate::time::sleep(Duration::from_micros(50)).await;
        let shared = Shared::current();
        let node = shared.node();
        let path = root.to_path_buf();
        let opened = match shared.machines().disks.get_mut(node as usize) {
            Some(disk) => disk.open_folder(root, options.pool_threads),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        match opened {
            Ok(Some(id)) => Ok(Folder(Arc::new(Opened { shared, node, id }))),
            Ok(None) => Err(OpenError::Locked { path }),
            Err(source) => Err(OpenError::Io { path, source }),
        }
    }

    pub(crate) fn submit(&self, lane: Lane, ops: Vec<Op>, reply: Sender) {
        let Opened { shared, node, id } = &*self.0;
        let requests = ops.iter().map(request).collect();
        let now = shared.now();
        let batch = {
            let mut machines = shared.machines();
            machines.disks.get_mut(*node as usize).map(|disk| disk.submit(*id, lane, requests, now))
        };
        if let Some(batch) = batch {
            shared.await_batch(*node, batch, Pending { ops, reply });
            shared.settle();
        }
    }
}

/// What the simulated disk is asked to do. The operation itself waits for the result, and keeps its files open.
fn request(op: &Op) -> Request {
    if let Err(error) = op.check() {
        return Request::Refused(error);
    }
    let id = |file: &File| file.handle().id;
    match op {
        Op::Open { path, mode } => Request::Open { path: path.clone(), mode: *mode },
        Op::Read { file, offset, len } => Request::Read { file: id(file), offset: *offset, len: *len },
        Op::Write { file, offset, data } => {
            Request::Write { file: id(file), offset: *offset, data: data.clone() }
        }
        Op::WriteAligned { file, offset, data } => {
            let data = Bytes::copy_from_slice(data.as_slice());
            Request::WriteAligned { file: id(file), offset: *offset, data }
        }
        Op::Sync { file } => Request::Sync { file: id(file) },
        Op::Truncate { file, len } => Request::Truncate { file: id(file), len: *len },
        Op::Allocate { file, len } => Request::Allocate { file: id(file), len: *len },
        Op::Rename { from, to } => Request::Rename { from: from.clone(), to: to.clone() },
        Op::Remove { path } => Request::Remove { path: path.clone() },
        Op::CreateDir { path } => Request::CreateDir { path: path.clone() },
        Op::RemoveDir { path } => Request::RemoveDir { path: path.clone() },
        Op::SyncDir { path } => Request::SyncDir { path: path.clone() },
        Op::List { path } => Request::List { path: path.clone() },
        Op::Space => Request::Space,
    }
}

/// A batch whose end somebody may wait for.
pub(super) struct Pending {
    ops: Vec<Op>,
    reply: Sender,
}

impl Pending {
    pub(super) fn complete(self, shared: &Arc<Shared>, node: u32, completion: Completion) {
        let mut ops = self.ops.into_iter();
        let mut results = |replies: Vec<Reply>| -> Vec<Done> {
            let file = |id| Handle { shared: Arc::clone(shared), node, id };
            replies.into_iter().zip(&mut ops).map(|(reply, op)| done(reply, op, file)).collect()
        };
        let result = match completion.result {
            Ok(replies) => Ok(results(replies)),
            Err(Failure { index, error, done }) => {
                let done = results(done);
                let op = ops.next().map(|op| op.to_string()).unwrap_or_default();
                Err(BatchError::new(index, op, error, done))
            }
        };
        // Nobody has to wait for it.
        drop(self.reply.send(result));
    }
}

fn done(reply: Reply, op: Op, handle: impl Fn(HandleId) -> Handle) -> Done {
    match (reply, op) {
        (Reply::Opened { file, len, direct }, Op::Open { path, mode }) => {
            Done::Opened { file: File::new(path, mode, direct, handle(file)), len }
        }
        (Reply::Read(bytes), _) => Done::Read(bytes),
        (Reply::Listed(entries), _) => Done::Listed(entries),
        (Reply::Space(space), _) => Done::Space(space),
        (_, Op::WriteAligned { data, .. }) => Done::WrittenAligned(data),
        (_, Op::Sync { .. }) => Done::Synced,
        (_, Op::Truncate { .. }) => Done::Truncated,
        (_, Op::Allocate { .. }) => Done::Allocated,
        (_, Op::Rename { .. }) => Done::Renamed,
        (_, Op::Remove { .. }) => Done::Removed,
        (_, Op::CreateDir { .. }) => Done::DirCreated,
        (_, Op::RemoveDir { .. }) => Done::DirRemoved,
        (_, Op::SyncDir { .. }) => Done::DirSynced,
        (_, _) => Done::Written,
    }
}
