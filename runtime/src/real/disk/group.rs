//! Many syncs at once.
//!
//! One file after the other, each sync is a commit of the file system's journal and a flush of the device, and whoever writes
//! meanwhile waits for each of them: 1,000 files held up the journal's rounds for half a second. Here the files are written back
//! first, a few at a time, so that the device's queue stays short; one syncfs then commits what is left.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;

use super::absolute;
use crate::disk::{BatchError, Done, File, Op};

/// Syncs in a batch from which on they are done together.
const TOGETHER_FROM: usize = 16;
/// Files that are written back at the same time.
const WRITTEN_BACK_AT_ONCE: usize = 8;

/// The magic numbers of file systems whose syncfs is known to do what fdatasync does for each file: ext2 to ext4, XFS, btrfs.
/// Others (FUSE among them) may do nothing at all in it.
const TRUSTED: [u64; 3] = [0xef53, 0x5846_5342, 0x9123_683e];

/// Syncs the files and folders of a batch, if it consists of many syncs and nothing else and the file system can do it. `None`: one
/// after the other, please.
pub(super) fn sync(root: &Path, ops: &[Op]) -> Option<Result<Vec<Done>, BatchError>> {
    let is_sync = |op: &Op| matches!(op, Op::Sync { .. } | Op::SyncDir { .. });
    if ops.len() < TOGETHER_FROM || !ops.iter().all(is_sync) {
        return None;
    }
    let folder = fs::File::open(root).ok()?;
    let file_system = rustix::fs::fstatfs(&folder).ok()?.f_type as u64;
    let device = folder.metadata().ok()?.dev();
    if !TRUSTED.contains(&file_system) {
        return None;
    }
    // The first operation that fails ends the batch; those before it are synced nevertheless.
    let mut failed = None;
    let mut files = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        match prepare(root, device, op) {
            Ok(file) => files.extend(file.map(|file| (at, file))),
            Err(error) => {
                failed = Some((at, error));
                break;
            }
        }
    }
    let (at, source) = match sync_together(&folder, &files).err().or(failed) {
        Some(failed) => failed,
        None => return Some(Ok(ops.iter().map(synced).collect())),
    };
    Some(Err(BatchError::new(at, ops[at].to_string(), source, ops[..at].iter().map(synced).collect())))
}

fn synced(op: &Op) -> Done {
    if matches!(op, Op::SyncDir { .. }) { Done::DirSynced } else { Done::Synced }
}

/// Looks at what is to be synced: what lies on another device is synced at once. Returns a file that is still to be written back.
fn prepare<'a>(root: &Path, device: u64, op: &'a Op) -> io::Result<Option<&'a File>> {
    op.check()?;
    match op {
        Op::Sync { file } => {
            let inner = file.handle().file()?;
            if inner.metadata()?.dev() == device {
                return Ok(Some(file));
            }
            inner.sync_data()?;
        }
        Op::SyncDir { path } => {
            let here = fs::metadata(absolute(root, path))?;
            if !here.is_dir() {
                return Err(Errno::NOTDIR.into());
            }
            if here.dev() != device {
                fs::File::open(absolute(root, path))?.sync_all()?;
            }
        }
        _ => return Err(io::Error::other("only syncs are done together")),
    }
    Ok(None)
}

/// Makes everything in the folder's file system durable, these files first. An error comes with the place of its file.
fn sync_together(folder: &fs::File, files: &[(usize, &File)]) -> Result<(), (usize, io::Error)> {
    for some in files.chunks(WRITTEN_BACK_AT_ONCE) {
        some.iter().try_for_each(|(at, file)| write_back(file, libc::SYNC_FILE_RANGE_WRITE, *at))?;
        some.iter().try_for_each(|(at, file)| write_back(file, WRITTEN, *at))?;
    }
    rustix::fs::syncfs(folder).map_err(|error| (0, error.into()))?;
    // Before Linux 5.8 syncfs does not tell that it could not write a file's data. The file does, once.
    files.iter().try_for_each(|(at, file)| write_back(file, WRITTEN, *at))
}

/// Everything that is dirty is written back, and waited for.
const WRITTEN: u32 =
    libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;

fn write_back(file: &File, flags: u32, at: usize) -> Result<(), (usize, io::Error)> {
    let inner = file.handle().file().map_err(|error| (at, error))?;
    #[allow(unsafe_code, reason = "no safe wrapper has it")]
    // SAFETY: a call with numbers; the descriptor is open as long as `inner` is borrowed.
    let result = unsafe { libc::sync_file_range(inner.as_raw_fd(), 0, 0, flags) };
    if result == 0 { Ok(()) } else { Err((at, io::Error::last_os_error())) }
}
