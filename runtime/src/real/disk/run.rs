//! Runs the operations of a batch, one after the other.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;

#[cfg(target_os = "linux")]
use super::group;
use super::queue::Queue;
use super::{absolute, file};
use crate::disk::{BatchError, DirEntry, Done, File, LOCK_FILE, Op, Space};

/// Runs a batch. Files that are to be written back afterwards are added to `behind`.
pub(super) fn batch(
    root: &Path,
    closer: &Arc<Queue>,
    ops: Vec<Op>,
    behind: &mut Vec<File>,
) -> Result<Vec<Done>, BatchError> {
    #[cfg(target_os = "linux")]
    if let Some(result) = group::sync(root, &ops) {
        return result;
    }
    let synced = || ops.iter().filter_map(|op| if let Op::Sync { file } = op { Some(file) } else { None });
    if synced().nth(1).is_some() {
        file::begin_write_back(synced());
    }
    let mut done = Vec::with_capacity(ops.len());
    for (index, op) in ops.into_iter().enumerate() {
        if let Op::Write { file, data, .. } = &op {
            let bytes: usize = data.iter().map(Bytes::len).sum();
            if file.handle().is_write_back_due(bytes as u64) {
                behind.push(file.clone());
            }
        }
        match operation(root, closer, op) {
            Ok(result) => done.push(result),
            Err((op, source)) => return Err(BatchError::new(index, op, source, done)),
        }
    }
    Ok(done)
}

/// An operation and its result, or its description and the error. It is described only when it fails.
fn operation(root: &Path, closer: &Arc<Queue>, op: Op) -> Result<Done, (String, io::Error)> {
    if let Err(error) = op.check() {
        return Err((op.to_string(), error));
    }
    if let Op::WriteAligned { file, offset, data } = op {
        // Taken apart, because the buffer moves into the result.
        return match file::write_aligned(&file, offset, data.as_slice()) {
            Ok(()) => Ok(Done::WrittenAligned(data)),
            Err(error) => Err((Op::WriteAligned { file, offset, data }.to_string(), error)),
        };
    }
    borrowed(root, closer, &op).map_err(|error| (op.to_string(), error))
}

fn borrowed(root: &Path, closer: &Arc<Queue>, op: &Op) -> io::Result<Done> {
    match op {
        Op::Open { path, mode } => {
            file::open(root, closer, path, *mode).map(|(file, len)| Done::Opened { file, len })
        }
        Op::Read { file, offset, len } => file::read(file, *offset, *len).map(Done::Read),
        Op::Write { file, offset, data } => file::write(file, *offset, data).map(|()| Done::Written),
        Op::WriteAligned { .. } => Err(io::Error::other("an aligned write is run by its owner")),
        Op::Sync { file } => file.handle().file()?.sync_data().map(|()| Done::Synced),
        Op::Truncate { file, len } => file.handle().file()?.set_len(*len).map(|()| Done::Truncated),
        Op::Allocate { file, len } => file::allocate(root, file, *len).map(|()| Done::Allocated),
        Op::Rename { from, to } => {
            fs::rename(absolute(root, from), absolute(root, to)).map(|()| Done::Renamed)
        }
        Op::Remove { path } => fs::remove_file(absolute(root, path)).map(|()| Done::Removed),
        Op::CreateDir { path } => fs::create_dir_all(absolute(root, path)).map(|()| Done::DirCreated),
        Op::RemoveDir { path } => fs::remove_dir_all(absolute(root, path)).map(|()| Done::DirRemoved),
        Op::SyncDir { path } => {
            let folder = fs::File::open(absolute(root, path))?;
            if !folder.metadata()?.is_dir() {
                return Err(Errno::NOTDIR.into());
            }
            folder.sync_all().map(|()| Done::DirSynced)
        }
        Op::List { path } => list(root, path).map(Done::Listed),
        Op::Space => space(root).map(Done::Space),
    }
}

fn space(root: &Path) -> io::Result<Space> {
    let found = rustix::fs::statvfs(root)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Space { total_bytes: bytes(found.f_blocks), free_bytes: bytes(found.f_bavail) })
}

fn list(root: &Path, path: &Path) -> io::Result<Vec<DirEntry>> {
    let is_root = path.as_os_str().is_empty();
    let mut entries = Vec::new();
    for entry in fs::read_dir(absolute(root, path))? {
        let entry = entry?;
        if is_root && entry.file_name() == LOCK_FILE {
            continue;
        }
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed since: it is not in the folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let is_dir = metadata.is_dir();
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push(DirEntry { name, is_dir, len: if is_dir { 0 } else { metadata.len() } });
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}
