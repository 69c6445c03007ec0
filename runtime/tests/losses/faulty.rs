//! A file system that loses what was not synced.
//!
//! It lives in memory and behind FUSE, so that the real disk's real system calls reach it. Every change of a file or folder
//! is pending until that file or folder is synced; when the power fails, any subset of the pending changes is lost, in any
//! order across files. That is what POSIX allows, and more than most file systems do.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;

/// The kernel caches nothing.
const NO_CACHE: Duration = Duration::ZERO;
const ROOT: u64 = 1;

type Reply<T> = Result<T, Errno>;

/// The file system and its faults; a mount shows it until the power fails.
#[derive(Clone, Default)]
pub(crate) struct Faulty(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    nodes: BTreeMap<u64, Node>,
    /// Everything fails.
    off: bool,
    /// The power fails after this many changes.
    changes_left: Option<u64>,
    /// How many changes there were.
    changes: u64,
    /// Syncs fail.
    fail_syncs: bool,
    /// Writes that make a file longer fail.
    full: bool,
    /// O_DIRECT is refused.
    refuse_direct: bool,
}

enum Node {
    File(Versions<Vec<u8>, FileChange>),
    Folder(Versions<BTreeMap<OsString, u64>, FolderChange>),
}

/// What everybody sees, what is safe, and the difference.
struct Versions<T, C> {
    seen: T,
    durable: T,
    /// Invariant: applied to `durable`, they give `seen`.
    pending: Vec<C>,
}

enum FileChange {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

/// Names and what they mean from now on; one change is lost or kept whole.
type FolderChange = Vec<(OsString, Option<u64>)>;

trait Change<T> {
    fn apply(&self, to: &mut T);
}

impl Change<Vec<u8>> for FileChange {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            FileChange::SetLen(len) => to.resize(*len, 0),
            FileChange::Write { offset, data } => {
                let end = offset + data.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(data);
            }
        }
    }
}

impl Change<BTreeMap<OsString, u64>> for FolderChange {
    fn apply(&self, to: &mut BTreeMap<OsString, u64>) {
        for (name, node) in self {
            match node {
                Some(node) => to.insert(name.clone(), *node),
                None => to.remove(name),
            };
        }
    }
}

impl<T: Default + Clone, C: Change<T>> Versions<T, C> {
    fn new() -> Self {
        Versions { seen: T::default(), durable: T::default(), pending: Vec::new() }
    }

    fn change(&mut self, change: C) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        self.durable = self.seen.clone();
        self.pending.clear();
    }

    fn lose(&mut self, keep: &mut dyn FnMut() -> bool) {
        for change in self.pending.drain(..) {
            if keep() {
                change.apply(&mut self.durable);
            }
        }
        self.seen = self.durable.clone();
    }
}

/// Ends what `mount` began. The kernel tells the thread that serves the file system that it is gone by ENODEV, or now and
/// then by ECONNABORTED, which `fuser` hands on.
pub(crate) fn unmount(mounted: BackgroundSession) {
    match mounted.umount_and_join() {
        Err(error) if error.kind() != io::ErrorKind::ConnectionAborted => panic!("cannot unmount: {error}"),
        Ok(()) | Err(_) => {}
    }
}

impl Faulty {
    pub(crate) fn new() -> Faulty {
        let faulty = Faulty::default();
        faulty.state().nodes.insert(ROOT, Node::Folder(Versions::new()));
        faulty
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Shows the file system in this folder until the result is dropped.
    pub(crate) fn mount(&self, folder: &Path) -> io::Result<BackgroundSession> {
        self.mount_with(folder, None)
    }

    pub(crate) fn mount_with(
        &self,
        folder: &Path,
        option: Option<MountOption>,
    ) -> io::Result<BackgroundSession> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("weir-faulty".to_owned())];
        config.mount_options.extend(option);
        fuser::spawn_mount(self.clone(), folder, &config)
    }

    /// Lets the power fail after so many more changes.
    pub(crate) fn power_off_after(&self, changes: u64) {
        self.state().changes_left = Some(changes);
    }

    /// How many changes there have been.
    pub(crate) fn changes(&self) -> u64 {
        self.state().changes
    }

    /// From now on everything fails.
    pub(crate) fn power_off(&self) {
        self.state().off = true;
    }

    /// The power comes back; what was not synced is lost unless `keep` says otherwise.
    pub(crate) fn power_on(&self, mut keep: impl FnMut() -> bool) {
        let mut state = self.state();
        for node in state.nodes.values_mut() {
            match node {
                Node::File(file) => file.lose(&mut keep),
                Node::Folder(folder) => folder.lose(&mut keep),
            }
        }
        state.off = false;
        state.changes_left = None;
    }

    pub(crate) fn set_fail_syncs(&self, fail: bool) {
        self.state().fail_syncs = fail;
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    pub(crate) fn refuse_direct(&self) {
        self.state().refuse_direct = true;
    }
}

impl State {
    /// Called by every request.
    fn powered(&mut self) -> Reply<&mut State> {
        if self.off { Err(Errno::EIO) } else { Ok(self) }
    }

    /// Called by every request that changes something.
    fn changing(&mut self) -> Reply<&mut State> {
        if let Some(left) = &mut self.changes_left {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => self.off = true,
            }
        }
        self.changes += 1;
        self.powered()
    }

    fn file(&mut self, node: u64) -> Reply<&mut Versions<Vec<u8>, FileChange>> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Folder(_)) => Err(Errno::EISDIR),
            None => Err(Errno::ESTALE),
        }
    }

    fn folder(&mut self, node: u64) -> Reply<&mut Versions<BTreeMap<OsString, u64>, FolderChange>> {
        match self.nodes.get_mut(&node) {
            Some(Node::Folder(folder)) => Ok(folder),
            Some(Node::File(_)) => Err(Errno::ENOTDIR),
            None => Err(Errno::ESTALE),
        }
    }

    fn find(&mut self, parent: u64, name: &OsStr) -> Reply<u64> {
        self.folder(parent)?.seen.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn add(&mut self, parent: u64, name: &OsStr, node: Node) -> Reply<FileAttr> {
        let number = self.nodes.keys().next_back().copied().unwrap_or(ROOT) + 1;
        self.folder(parent)?.change(vec![(name.to_owned(), Some(number))]);
        self.nodes.insert(number, node);
        self.attributes(number)
    }

    fn is_empty_folder(&self, node: u64) -> bool {
        matches!(self.nodes.get(&node), Some(Node::Folder(folder)) if folder.seen.is_empty())
    }

    fn attributes(&self, node: u64) -> Reply<FileAttr> {
        let (kind, size) = match self.nodes.get(&node).ok_or(Errno::ESTALE)? {
            Node::File(file) => (FileType::RegularFile, file.seen.len() as u64),
            Node::Folder(_) => (FileType::Directory, 0),
        };
        Ok(FileAttr {
            ino: INodeNo(node),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn check_open(&self, flags: i32) -> Reply<()> {
        let direct = flags & OFlags::DIRECT.bits() as i32 != 0;
        if direct && self.refuse_direct { Err(Errno::EINVAL) } else { Ok(()) }
    }

    fn write(&mut self, node: u64, offset: u64, data: &[u8], flags: i32) -> Reply<u32> {
        let full = self.full;
        let file = self.file(node)?;
        if full && offset as usize + data.len() > file.seen.len() {
            return Err(Errno::ENOSPC);
        }
        file.change(FileChange::Write { offset: offset as usize, data: data.to_vec() });
        if flags & OFlags::DSYNC.bits() as i32 != 0 {
            file.sync();
        }
        Ok(data.len() as u32)
    }

    fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Reply<()> {
        let node = self.find(from.0, from.1)?;
        if let Ok(target) = self.find(to.0, to.1)
            && matches!(self.nodes.get(&target), Some(Node::Folder(_)))
            && !self.is_empty_folder(target)
        {
            return Err(Errno::ENOTEMPTY);
        }
        let (gone, come) = ((from.1.to_owned(), None), (to.1.to_owned(), Some(node)));
        if from.0 == to.0 {
            self.folder(to.0)?.change(vec![gone, come]);
        } else {
            self.folder(to.0)?.change(vec![come]);
            self.folder(from.0)?.change(vec![gone]);
        }
        Ok(())
    }
}

impl Filesystem for Faulty {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.state();
        let node = state.powered().and_then(|state| state.find(parent.0, name));
        match node.and_then(|node| state.attributes(node)) {
            Ok(attributes) => reply.entry(&NO_CACHE, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.state().powered().and_then(|state| state.attributes(node.0)) {
            Ok(attributes) => reply.attr(&NO_CACHE, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        let resized = match size {
            Some(size) => state
                .changing()
                .and_then(|state| state.file(node.0))
                .map(|file| file.change(FileChange::SetLen(size as usize))),
            None => state.powered().map(drop),
        };
        match resized.and_then(|()| state.attributes(node.0)) {
            Ok(attributes) => reply.attr(&NO_CACHE, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        let folder = Node::Folder(Versions::new());
        match self.state().changing().and_then(|state| state.add(parent.0, name, folder)) {
            Ok(attributes) => reply.entry(&NO_CACHE, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let mut state = self.state();
        let created = state.check_open(flags).and_then(|()| {
            let state = state.changing()?;
            state.add(parent.0, name, Node::File(Versions::new()))
        });
        match created {
            Ok(attributes) => {
                let handle = (FileHandle(0), FopenFlags::empty());
                reply.created(&NO_CACHE, &attributes, Generation(0), handle.0, handle.1);
            }
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, _node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.state().powered().and_then(|state| state.check_open(flags.0)) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.state().powered().and_then(|state| state.file(node.0)) {
            Ok(file) => {
                let start = (offset as usize).min(file.seen.len());
                let end = (start + size as usize).min(file.seen.len());
                reply.data(&file.seen[start..end]);
            }
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.state().changing().and_then(|state| state.write(node.0, offset, data, flags.0)) {
            Ok(written) => reply.written(written),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _node: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let mut state = self.state();
        let fails = state.fail_syncs;
        match state.changing().and_then(|state| if fails { Err(Errno::EIO) } else { state.file(node.0) }) {
            Ok(file) => {
                file.sync();
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let mut state = self.state();
        let fails = state.fail_syncs;
        match state.changing().and_then(|state| if fails { Err(Errno::EIO) } else { state.folder(node.0) }) {
            Ok(folder) => {
                folder.sync();
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, node: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut state = self.state();
        let names = match state.powered().and_then(|state| state.folder(node.0)) {
            Ok(folder) => folder.seen.clone(),
            Err(error) => return reply.error(error),
        };
        let dots = [(OsString::from("."), node.0), (OsString::from(".."), node.0)];
        for (index, (name, number)) in dots.into_iter().chain(names).enumerate().skip(offset as usize) {
            let kind = match state.nodes.get(&number) {
                Some(Node::Folder(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(number), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match self.state().changing().and_then(|state| state.folder(parent.0)) {
            Ok(folder) => {
                folder.change(vec![(name.to_owned(), None)]);
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.state();
        let removed = state.changing().and_then(|state| {
            let node = state.find(parent.0, name)?;
            if !state.is_empty_folder(node) {
                return Err(Errno::ENOTEMPTY);
            }
            state.folder(parent.0)?.change(vec![(name.to_owned(), None)]);
            Ok(())
        });
        match removed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut state = self.state();
        match state.changing().and_then(|state| state.rename((parent.0, name), (new_parent.0, new_name))) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn access(&self, _: &Request, _node: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }
}
