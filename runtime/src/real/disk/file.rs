//! Files of the operating system.

use std::fmt;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};

use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::absolute;
use super::queue::{Queue, Work};
use crate::disk::{AlignedBuf, BLOCK_BYTES, File, OpenMode};

/// Most chunks that Linux takes in one call (IOV_MAX).
const CHUNKS_MAX: usize = 1024;
/// Most bytes that are read without a thread of the disk's, which takes a tenth of a millisecond.
#[cfg(target_os = "linux")]
const CACHED_READ_BYTES: usize = 1 << 20;
/// Bytes of one step of a direct read.
const STEP_BYTES: usize = 1 << 20;
/// Bytes after which a file begins to be written back, so that a later sync does not fill the device's queue with all of them at
/// once: the journal's next write would wait behind them.
const WRITE_BEHIND_BYTES: u64 = 1 << 20;
/// Bytes of one step of an allocation: small, because the journal's next write waits for it in the device's queue.
const ALLOCATE_STEP_BYTES: usize = 256 << 10;

/// An open file, which a thread of the pool closes in the end.
pub(crate) struct Handle {
    /// `None` only while it is dropped.
    file: Option<fs::File>,
    closer: Arc<Queue>,
    /// Bytes written since write-back was begun.
    unflushed: AtomicU64,
}

impl Handle {
    pub(super) fn file(&self) -> io::Result<&fs::File> {
        self.file.as_ref().ok_or_else(|| Errno::BADF.into())
    }

    /// Notes bytes that were written. Returns whether it is time to begin to write them back.
    pub(super) fn is_write_back_due(&self, written: u64) -> bool {
        let is_due = self.unflushed.fetch_add(written, Ordering::Relaxed) + written >= WRITE_BEHIND_BYTES;
        if is_due {
            self.unflushed.store(0, Ordering::Relaxed);
        }
        is_due
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            self.closer.push(Work::Close(file));
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.file).finish()
    }
}

pub(super) fn open(root: &Path, closer: &Arc<Queue>, path: &Path, mode: OpenMode) -> io::Result<(File, u64)> {
    let full = absolute(root, path);
    let mut options = fs::OpenOptions::new();
    options.read(true);
    match mode {
        OpenMode::Read => {}
        OpenMode::ReadWrite => {
            options.write(true);
        }
        OpenMode::Create | OpenMode::Direct => {
            options.write(true).create(true);
        }
        OpenMode::CreateNew => {
            options.write(true).create_new(true);
        }
    }
    let (file, direct) = match mode {
        OpenMode::Direct => open_direct(&full, &options)?,
        _ => (options.open(&full)?, false),
    };
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(Errno::ISDIR.into());
    }
    let handle = Handle { file: Some(file), closer: closer.clone(), unflushed: AtomicU64::new(0) };
    Ok((File::new(path.to_path_buf(), mode, direct, handle), metadata.len()))
}

/// Opens a file for durable writes that bypass the page cache, or, where the file system refuses that, for buffered ones.
fn open_direct(path: &Path, options: &fs::OpenOptions) -> io::Result<(fs::File, bool)> {
    let flags = OFlags::DIRECT | OFlags::DSYNC;
    let opened = options.clone().custom_flags(flags.bits() as i32).open(path).and_then(|file| {
        // Some file systems take the flag and refuse the first transfer. A bad block is not for this place to report.
        let mut probe = AlignedBuf::zeroed(BLOCK_BYTES);
        match file.read_at(probe.as_mut_slice(), 0) {
            Err(error) if refuses_direct(&error) => Err(error),
            Err(_) | Ok(_) => Ok(file),
        }
    });
    match opened {
        Ok(file) => Ok((file, true)),
        Err(error) if refuses_direct(&error) => {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                let path = path.display();
                tracing::warn!(%path, %error, "no O_DIRECT here: buffered writes and fdatasync instead");
            });
            Ok((options.open(path)?, false))
        }
        Err(error) => Err(error),
    }
}

fn refuses_direct(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::OPNOTSUPP].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

pub(super) fn read(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut content = Vec::new();
    if file.is_direct() {
        read_direct(file.handle().file()?, offset, len, &mut content)?;
    } else {
        content.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        while content.len() < len {
            let position = offset + content.len() as u64;
            let spare = rustix::buffer::spare_capacity(&mut content);
            match rustix::io::pread(file.handle().file()?, spare, position) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    content.truncate(len);
    if content.len() < len / 2 {
        content.shrink_to_fit();
    }
    Ok(Bytes::from(content))
}

/// Reads what is in the page cache, up to the end of the file; `None` if some of it would have to be waited for, or was refused:
/// then the usual way brings it, or the error.
#[cfg(target_os = "linux")]
pub(super) fn read_cached(file: &File, offset: u64, len: usize) -> Option<Bytes> {
    let end = offset.checked_add(len as u64)?;
    if file.is_direct() || len > CACHED_READ_BYTES || end > i64::MAX as u64 {
        return None;
    }
    let descriptor = file.handle().file().ok()?.as_raw_fd();
    let mut content: Vec<u8> = Vec::with_capacity(len);
    while content.len() < len {
        let (have, missing) = (content.len(), len - content.len());
        let spare = &mut content.spare_capacity_mut()[..missing];
        let vector = libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len() };
        let position = (offset + have as u64) as libc::off_t;
        #[allow(unsafe_code, reason = "the safe wrapper wants memory that was written before")]
        // SAFETY: the vector names memory of ours that lives until the call is over; the descriptor is open as long as `file` is.
        let read = unsafe { libc::preadv2(descriptor, &vector, 1, position, libc::RWF_NOWAIT) };
        match usize::try_from(read) {
            Ok(0) => break,
            #[allow(unsafe_code, reason = "see above")]
            // SAFETY: the kernel has written that many bytes behind those that were there.
            Ok(read) => unsafe { content.set_len(have + read) },
            Err(_) => return None,
        }
    }
    if content.len() < len / 2 {
        content.shrink_to_fit();
    }
    Some(Bytes::from(content))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn read_cached(_file: &File, _offset: u64, _len: usize) -> Option<Bytes> {
    None
}

/// Reads whole blocks around the range into aligned memory, and copies the range out.
fn read_direct(file: &fs::File, offset: u64, len: usize, content: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = AlignedBuf::new();
    while content.len() < len {
        let position = offset + content.len() as u64;
        let skipped = (position % BLOCK_BYTES as u64) as usize;
        let wanted = (skipped + len - content.len()).min(STEP_BYTES);
        buffer.resize(wanted.next_multiple_of(BLOCK_BYTES));
        let read = match file.read_at(buffer.as_mut_slice(), position - skipped as u64) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if read <= skipped {
            break;
        }
        content.extend_from_slice(&buffer.as_slice()[skipped..read.min(wanted)]);
    }
    Ok(())
}

pub(super) fn write(file: &File, offset: u64, chunks: &[Bytes]) -> io::Result<()> {
    let mut position = offset;
    for group in chunks.chunks(CHUNKS_MAX) {
        let mut slices: Vec<IoSlice<'_>> = group.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let mut rest = slices.as_mut_slice();
        // Takes empty chunks off the front, so that a write of nothing is not tried.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match rustix::io::pwritev(file.handle().file()?, rest, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

pub(super) fn write_aligned(file: &File, offset: u64, blocks: &[u8]) -> io::Result<()> {
    let inner = file.handle().file()?;
    inner.write_all_at(blocks, offset)?;
    if file.mode() == OpenMode::Direct && !file.is_direct() {
        inner.sync_data()?;
    }
    Ok(())
}

/// Writes zeros, so that the file has its blocks and later writes change no metadata, and syncs all of it once.
///
/// Through a descriptor of its own: the file's own may be one that syncs each write, and as the file grows each of these
/// would be a commit of the file system's journal, for which everybody else's writes wait.
pub(super) fn allocate(root: &Path, file: &File, len: u64) -> io::Result<()> {
    let inner = file.handle().file()?;
    let mut position = inner.metadata()?.len();
    if file.is_direct() && position < len {
        position = position.next_multiple_of(BLOCK_BYTES as u64);
        inner.set_len(position)?;
    }
    let reopened = reopen_unsynced(root, file, inner)?;
    let writer = reopened.as_ref().unwrap_or(inner);
    let zeros = AlignedBuf::zeroed(ALLOCATE_STEP_BYTES);
    while position < len {
        let step = (len - position).min(ALLOCATE_STEP_BYTES as u64) as usize;
        writer.write_all_at(&zeros.as_slice()[..step], position)?;
        position += step as u64;
    }
    writer.sync_all()
}

/// The same file by another descriptor, whose writes are not synced one by one; `None` if its path names it no longer.
fn reopen_unsynced(root: &Path, file: &File, inner: &fs::File) -> io::Result<Option<fs::File>> {
    let mut options = fs::OpenOptions::new();
    options.write(true);
    if file.is_direct() {
        options.custom_flags(OFlags::DIRECT.bits() as i32);
    }
    // Whatever stands there now: the file itself can always be written through its own descriptor.
    let Ok(reopened) = options.open(absolute(root, file.path())) else { return Ok(None) };
    let (this, that) = (inner.metadata()?, reopened.metadata()?);
    Ok(((this.dev(), this.ino()) == (that.dev(), that.ino())).then_some(reopened))
}

/// Begins to write back what is dirty in these files, so that the syncs that follow share the commits of the file system's
/// journal. Whether it worked is theirs to tell.
pub(super) fn begin_write_back<'a>(files: impl Iterator<Item = &'a File>) {
    for file in files {
        let Ok(inner) = file.handle().file() else { continue };
        #[cfg(target_os = "linux")]
        #[allow(unsafe_code, reason = "no safe wrapper has it")]
        // SAFETY: a call with numbers; the descriptor is open as long as `inner` is borrowed.
        let _ = unsafe { libc::sync_file_range(inner.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    }
}
