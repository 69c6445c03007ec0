//! What each operation does when its time has come.

use std::io;
use std::path::Path;

use bytes::{Bytes, BytesMut};

use super::content::{Content, PAGE_BYTES, SECTOR_BYTES};
use super::tree::{Edit, InodeId, Kind, Names};
use super::{FaultKind, FolderId, Handle, HandleId, Reply, Request, SimulatedDisk, errno};
use crate::disk::{DirEntry, LOCK_FILE, OpenMode, Space};
use crate::simulated::events::digest;
use crate::time::Instant;

/// The size that a disk without a bound says it has.
const BOUNDLESS_BYTES: u64 = 1 << 40;

/// How likely the kernel brought everything to the medium on its own before data that was not synced is overwritten.
const WRITE_BACK_PROBABILITY: f64 = 0.02;

impl SimulatedDisk {
    pub(super) fn apply(&mut self, folder: FolderId, request: Request, now: Instant) -> io::Result<Reply> {
        let folder = self.folders.get(&folder).ok_or_else(errno::bad_handle)?;
        let (base, root) = (folder.inode, folder.root.display().to_string());
        match request {
            Request::Refused(error) => Err(error),
            Request::Open { path, mode } => self.apply_open(base, &root, &path, mode, now),
            Request::Read { file, offset, len } => self.apply_read(file, offset, len as u64, now),
            Request::Write { file, offset, data } => self.apply_write(file, offset, &joined(data), now),
            Request::WriteAligned { file, offset, data } => {
                self.apply_write_aligned(file, offset, &data, now)
            }
            Request::Sync { file } => self.apply_sync(file, now),
            Request::Truncate { file, len } => self.apply_truncate(file, len, now),
            Request::Allocate { file, len } => self.apply_allocate(file, len, now),
            Request::Rename { from, to } => self.apply_rename(base, &from, &to, now),
            Request::Remove { path } => self.apply_remove(base, &path, now),
            Request::CreateDir { path } => {
                self.note(now, "disk.create_dir", &[base], || path.display().to_string());
                self.create_folders(base, &path).map(|_| Reply::Done)
            }
            Request::RemoveDir { path } => self.apply_remove_dir(base, &path, now),
            Request::SyncDir { path } => {
                let folder = self.tree.resolve(base, &path)?;
                self.tree.names(folder)?;
                let shown = format!("{root}/{}", path.display());
                if self.strike(&[FaultKind::SyncError], &shown, now).is_some() {
                    return Err(errno::input_output());
                }
                self.tree.sync_folder(folder);
                self.note(now, "disk.sync_dir", &[folder], || path.display().to_string());
                Ok(Reply::Done)
            }
            Request::List { path } => self.apply_list(base, &path),
            Request::Space => Ok(Reply::Space(self.space())),
        }
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn handle(&self, file: HandleId) -> io::Result<&Handle> {
        self.handles.get(&file).ok_or_else(errno::bad_handle)
    }

    fn writable(&self, file: HandleId) -> io::Result<(InodeId, String)> {
        let handle = self.handle(file)?;
        if handle.mode == OpenMode::Read {
            Err(errno::bad_handle())
        } else {
            Ok((handle.inode, handle.path.clone()))
        }
    }

    fn strike(&mut self, kinds: &[FaultKind], path: &str, now: Instant) -> Option<FaultKind> {
        let struck = self.faults.strike(kinds, path, &mut self.draw)?;
        self.note(now, struck.name(), &[], || path.to_owned());
        Some(struck)
    }

    fn apply_open(
        &mut self,
        base: InodeId,
        root: &str,
        path: &Path,
        mode: OpenMode,
        now: Instant,
    ) -> io::Result<Reply> {
        let (folder, name) = self.tree.parent(base, path)?;
        let inode = match (self.tree.entry(folder, &name)?, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(errno::exists()),
            (Some(inode), _) => inode,
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(errno::not_found()),
            (None, _) => {
                let inode = self.tree.create(Kind::File(Content::default()));
                let sequence = self.next_sequence();
                self.tree.change(sequence, vec![Edit { folder, name, to: Some(inode) }]);
                inode
            }
        };
        let len = self.tree.content(inode)?.len();
        self.tree.open(inode);
        let file = HandleId(self.id());
        let direct = mode == OpenMode::Direct && self.profile.direct;
        let path = format!("{root}/{}", path.display());
        self.note(now, "disk.open", &[inode, len], || format!("{path} ({mode:?}), {len} bytes"));
        self.handles.insert(file, Handle { inode, path, mode, direct });
        Ok(Reply::Opened { file, len, direct })
    }

    fn apply_read(&mut self, file: HandleId, offset: u64, len: u64, now: Instant) -> io::Result<Reply> {
        let (inode, path) = self.handle(file).map(|handle| (handle.inode, handle.path.clone()))?;
        let struck = self.strike(&[FaultKind::ReadError, FaultKind::MisdirectedRead], &path, now);
        if struck == Some(FaultKind::ReadError) {
            return Err(errno::input_output());
        }
        let mut bytes = self.tree.content(inode)?.read(offset, len);
        if struck == Some(FaultKind::MisdirectedRead) {
            let elsewhere = self.elsewhere(inode, offset)?;
            let mut other = BytesMut::from(&self.tree.content(inode)?.read(elsewhere, len)[..]);
            other.resize(bytes.len(), 0);
            bytes = other.freeze();
        }
        self.note(now, "disk.read", &[inode, offset, bytes.len() as u64], || {
            format!("{path} at {offset}: {} bytes", bytes.len())
        });
        Ok(Reply::Read(bytes))
    }

    /// Another place in the same file, in whole sectors from `offset`.
    fn elsewhere(&mut self, inode: InodeId, offset: u64) -> io::Result<u64> {
        let sectors = self.tree.content(inode)?.len().div_ceil(SECTOR_BYTES).max(2);
        let shift = self.draw.between(1, sectors - 1);
        let here = offset / SECTOR_BYTES;
        Ok((here + shift) % sectors * SECTOR_BYTES + offset % SECTOR_BYTES)
    }

    fn apply_write(&mut self, file: HandleId, offset: u64, data: &[u8], now: Instant) -> io::Result<Reply> {
        let (inode, path) = self.writable(file)?;
        self.write_with_faults(inode, &path, offset, data, now)?;
        Ok(Reply::Done)
    }

    fn apply_write_aligned(
        &mut self,
        file: HandleId,
        offset: u64,
        data: &[u8],
        now: Instant,
    ) -> io::Result<Reply> {
        let (inode, path) = self.writable(file)?;
        let (direct, mode) = self.handle(file).map(|handle| (handle.direct, handle.mode))?;
        let result = self.write_with_faults(inode, &path, offset, data, now);
        if direct {
            // Also of a failed write: what was written is on the medium.
            self.tree.content_mut(inode)?.sync_range(offset, data.len() as u64);
        } else if mode == OpenMode::Direct && result.is_ok() {
            return self.apply_sync(file, now);
        }
        result.map(|()| Reply::Done)
    }

    fn write_with_faults(
        &mut self,
        inode: InodeId,
        path: &str,
        offset: u64,
        data: &[u8],
        now: Instant,
    ) -> io::Result<()> {
        self.note(now, "disk.write", &[inode, offset, digest(data)], || {
            format!("{path} at {offset}: {} bytes", data.len())
        });
        let kinds = [FaultKind::WriteError, FaultKind::LostWrite, FaultKind::MisdirectedWrite];
        match self.strike(&kinds, path, now) {
            Some(FaultKind::WriteError) => {
                let part = self.draw.below(data.len() as u64 + 1) / SECTOR_BYTES * SECTOR_BYTES;
                self.write_cache(inode, offset, &data[..part as usize], now).and(Err(errno::input_output()))
            }
            Some(FaultKind::LostWrite) => {
                // The file is as long as it should be, only the data is old.
                let end = offset + data.len() as u64;
                if end > self.tree.content(inode)?.len() {
                    let sequence = self.next_sequence();
                    self.tree.content_mut(inode)?.resize(end, sequence);
                }
                Ok(())
            }
            Some(FaultKind::MisdirectedWrite) => {
                let elsewhere = self.elsewhere(inode, offset)?;
                let end = offset + data.len() as u64;
                let sequence = self.next_sequence();
                let content = self.tree.content_mut(inode)?;
                if end > content.len() {
                    content.resize(end, sequence);
                }
                content.overwrite_everywhere(elsewhere, data);
                Ok(())
            }
            _ => self.write_cache(inode, offset, data, now),
        }
    }

    /// Writes into the page cache as far as there is room.
    pub(super) fn write_cache(
        &mut self,
        inode: InodeId,
        offset: u64,
        data: &[u8],
        now: Instant,
    ) -> io::Result<()> {
        let room = self.room(inode, offset, data.len() as u64)?;
        let sequence = self.next_sequence();
        let overwrites = self.tree.content(inode)?.is_dirty(offset, data.len() as u64);
        if overwrites && self.draw.chance(WRITE_BACK_PROBABILITY) {
            self.tree.sync_all();
        }
        self.tree.content_mut(inode)?.write(offset, &data[..room as usize], sequence);
        if room < data.len() as u64 {
            self.note(now, "fault.disk.no_space", &[inode, offset, room], String::new);
            return Err(errno::no_space());
        }
        Ok(())
    }

    /// How many of `len` bytes at `offset` can be written before the disk is full.
    fn room(&self, inode: InodeId, offset: u64, len: u64) -> io::Result<u64> {
        let Some(capacity) = self.profile.capacity_bytes else { return Ok(len) };
        let content = self.tree.content(inode)?;
        if content.pages_missing(offset, len) == 0 {
            return Ok(len);
        }
        let mut free = capacity.saturating_sub(self.tree.used_bytes()) / PAGE_BYTES;
        let mut end = offset;
        while end < offset + len {
            let next = ((end / PAGE_BYTES + 1) * PAGE_BYTES).min(offset + len);
            if content.pages_missing(end, next - end) > 0 {
                if free == 0 {
                    break;
                }
                free -= 1;
            }
            end = next;
        }
        Ok(end - offset)
    }

    fn space(&self) -> Space {
        let total_bytes = self.profile.capacity_bytes.unwrap_or(BOUNDLESS_BYTES);
        Space { total_bytes, free_bytes: total_bytes.saturating_sub(self.tree.used_bytes()) }
    }

    fn apply_sync(&mut self, file: HandleId, now: Instant) -> io::Result<Reply> {
        let (inode, path) = self.handle(file).map(|handle| (handle.inode, handle.path.clone()))?;
        match self.strike(&[FaultKind::SyncError, FaultKind::SyncLost], &path, now) {
            Some(FaultKind::SyncLost) => {
                let draw = &mut self.draw;
                self.tree.content_mut(inode)?.sync_losing(|| draw.chance(0.3));
                return Err(errno::input_output());
            }
            Some(_) => return Err(errno::input_output()),
            None => {}
        }
        let content = self.tree.content_mut(inode)?;
        content.sync();
        let len = content.durable_len();
        self.note(now, "disk.sync", &[inode, len], || path);
        Ok(Reply::Done)
    }

    fn apply_truncate(&mut self, file: HandleId, len: u64, now: Instant) -> io::Result<Reply> {
        let (inode, path) = self.writable(file)?;
        let sequence = self.next_sequence();
        self.tree.content_mut(inode)?.resize(len, sequence);
        self.note(now, "disk.truncate", &[inode, len], || format!("{path} to {len}"));
        Ok(Reply::Done)
    }

    fn apply_allocate(&mut self, file: HandleId, len: u64, now: Instant) -> io::Result<Reply> {
        let (inode, path) = self.writable(file)?;
        let from = self.tree.content(inode)?.len();
        let wanted = len.saturating_sub(from);
        let room = self.room(inode, from, wanted)?;
        let sequence = self.next_sequence();
        self.tree.content_mut(inode)?.allocate(from + room, sequence);
        self.note(now, "disk.allocate", &[inode, len], || format!("{path} to {len}"));
        if room < wanted {
            self.note(now, "fault.disk.no_space", &[inode, from, room], || path);
            return Err(errno::no_space());
        }
        self.apply_sync(file, now)
    }

    fn apply_rename(&mut self, base: InodeId, from: &Path, to: &Path, now: Instant) -> io::Result<Reply> {
        let (old_folder, old_name) = self.tree.parent(base, from)?;
        let (folder, name) = self.tree.parent(base, to)?;
        let inode = self.tree.entry(old_folder, &old_name)?.ok_or_else(errno::not_found)?;
        if to != from && to.starts_with(from) {
            return Err(errno::invalid());
        }
        if to != from && from.starts_with(to) {
            return Err(errno::not_empty());
        }
        if let Some(target) = self.tree.entry(folder, &name)? {
            if target == inode {
                return Ok(Reply::Done);
            }
            match (self.tree.is_folder(inode), self.tree.is_folder(target)) {
                (true, false) => return Err(errno::not_a_directory()),
                (false, true) => return Err(errno::is_a_directory()),
                (true, true) if !self.tree.names(target)?.cache.is_empty() => return Err(errno::not_empty()),
                _ => {}
            }
        }
        let sequence = self.next_sequence();
        let gone = Edit { folder: old_folder, name: old_name, to: None };
        self.tree.change(sequence, vec![gone, Edit { folder, name, to: Some(inode) }]);
        self.note(now, "disk.rename", &[inode], || format!("{} to {}", from.display(), to.display()));
        Ok(Reply::Done)
    }

    fn apply_remove(&mut self, base: InodeId, path: &Path, now: Instant) -> io::Result<Reply> {
        let (folder, name) = self.tree.parent(base, path)?;
        let inode = self.tree.entry(folder, &name)?.ok_or_else(errno::not_found)?;
        if self.tree.is_folder(inode) {
            return Err(errno::is_a_directory());
        }
        self.remember_stale(inode);
        let sequence = self.next_sequence();
        self.tree.change(sequence, vec![Edit { folder, name, to: None }]);
        self.note(now, "disk.remove", &[inode], || path.display().to_string());
        Ok(Reply::Done)
    }

    /// Creates a folder and its parents, each durable once its own parent is synced.
    pub(super) fn create_folders(&mut self, base: InodeId, path: &Path) -> io::Result<InodeId> {
        let mut at = base;
        let mut components = path.components().peekable();
        while let Some(component) = components.next() {
            let std::path::Component::Normal(name) = component else { continue };
            let name = name.to_string_lossy().into_owned();
            at = match self.tree.entry(at, &name)? {
                Some(inode) if self.tree.is_folder(inode) => inode,
                Some(_) if components.peek().is_some() => return Err(errno::not_a_directory()),
                Some(_) => return Err(errno::exists()),
                None => {
                    let inode = self.tree.create(Kind::Folder(Names::default()));
                    let sequence = self.next_sequence();
                    self.tree.change(sequence, vec![Edit { folder: at, name, to: Some(inode) }]);
                    inode
                }
            };
        }
        Ok(at)
    }

    fn apply_remove_dir(&mut self, base: InodeId, path: &Path, now: Instant) -> io::Result<Reply> {
        let (folder, name) = self.tree.parent(base, path)?;
        let inode = self.tree.entry(folder, &name)?.ok_or_else(errno::not_found)?;
        self.remove_content(inode)?;
        let sequence = self.next_sequence();
        self.tree.change(sequence, vec![Edit { folder, name, to: None }]);
        self.note(now, "disk.remove_dir", &[inode], || path.display().to_string());
        Ok(Reply::Done)
    }

    fn remove_content(&mut self, folder: InodeId) -> io::Result<()> {
        let names: Vec<_> =
            self.tree.names(folder)?.cache.iter().map(|(name, id)| (name.clone(), *id)).collect();
        for (name, inode) in names {
            if self.tree.is_folder(inode) {
                self.remove_content(inode)?;
            } else {
                self.remember_stale(inode);
            }
            let sequence = self.next_sequence();
            self.tree.change(sequence, vec![Edit { folder, name, to: None }]);
        }
        Ok(())
    }

    fn apply_list(&self, base: InodeId, path: &Path) -> io::Result<Reply> {
        let folder = self.tree.resolve(base, path)?;
        let mut entries = Vec::new();
        for (name, inode) in &self.tree.names(folder)?.cache {
            if folder == base && name == LOCK_FILE {
                continue;
            }
            let is_dir = self.tree.is_folder(*inode);
            let len = if is_dir { 0 } else { self.tree.content(*inode)?.len() };
            entries.push(DirEntry { name: name.clone(), is_dir, len });
        }
        Ok(Reply::Listed(entries))
    }
}

fn joined(chunks: Vec<Bytes>) -> Bytes {
    match <[Bytes; 1]>::try_from(chunks) {
        Ok([chunk]) => chunk,
        Err(chunks) => chunks.concat().into(),
    }
}
