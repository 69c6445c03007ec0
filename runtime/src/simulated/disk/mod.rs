//! The simulated disk of one node: a page cache over a medium, with everything that can go wrong between the two.
//!
//! A state machine: [`SimulatedDisk::submit`] takes a batch, [`SimulatedDisk::next_completion`] says when something is due,
//! [`SimulatedDisk::take_due`] does the work and hands out what is complete. An operation takes effect at the end of its
//! latency; before that it is in flight.
//!
//! | | process killed | power lost |
//! |---|---|---|
//! | written, not synced | stays | any subset of sectors, a prefix, all or nothing |
//! | created, renamed, removed, folder not synced | stays | any subset of the changes, a prefix, all or nothing |
//! | operation in flight | happens, or not, or a part of it | the same, then lost like the rest |
//! | direct write in flight | any subset of sectors | any subset of sectors, one may be torn |
//! | handles, locks | gone | gone |

mod apply;
mod content;
mod crash;
pub(crate) mod errno;
mod faults;
mod tree;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::draw::Draw;
use super::events::Events;
use crate::disk::{DirEntry, Lane, OpenMode, Space};
use crate::time::{Instant, TimerQueue};

pub use content::{PAGE_BYTES, SECTOR_BYTES};
pub use crash::{Damage, Keep};
pub use faults::{FaultKind, FaultRule};

use faults::Faults;
use tree::{InodeId, Tree};

/// An open file of the simulated disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(u64);

/// A batch on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(u64);

/// An open and locked data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FolderId(u64);

/// One operation of a batch, as [`crate::disk::Op`] but with the simulated disk's own handles.
#[derive(Debug)]
#[allow(missing_docs, reason = "each is the Op of the same name")]
pub enum Request {
    Open {
        path: PathBuf,
        mode: OpenMode,
    },
    Read {
        file: HandleId,
        offset: u64,
        len: usize,
    },
    Write {
        file: HandleId,
        offset: u64,
        data: Vec<Bytes>,
    },
    WriteAligned {
        file: HandleId,
        offset: u64,
        data: Bytes,
    },
    Sync {
        file: HandleId,
    },
    Truncate {
        file: HandleId,
        len: u64,
    },
    Allocate {
        file: HandleId,
        len: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    CreateDir {
        path: PathBuf,
    },
    RemoveDir {
        path: PathBuf,
    },
    SyncDir {
        path: PathBuf,
    },
    List {
        path: PathBuf,
    },
    Space,
    /// An operation that must not even be tried: fails with this when its turn comes.
    Refused(io::Error),
}

/// What an operation left.
#[derive(Debug)]
pub enum Reply {
    /// A file was opened.
    Opened {
        /// Its handle, open until [`SimulatedDisk::close`].
        file: HandleId,
        /// Its length in bytes.
        len: u64,
        /// Whether its writes bypass the page cache.
        direct: bool,
    },
    /// What was read.
    Read(Bytes),
    /// What is in a folder, sorted by name.
    Listed(Vec<DirEntry>),
    /// How large the disk is.
    Space(Space),
    /// Anything else that succeeded.
    Done,
}

/// A batch that stopped at its first failing operation.
#[derive(Debug)]
pub struct Failure {
    /// The failing operation's place in the batch.
    pub index: usize,
    /// What went wrong.
    pub error: io::Error,
    /// What the operations before it left.
    pub done: Vec<Reply>,
}

/// The end of a batch.
#[derive(Debug)]
pub struct Completion {
    /// Which batch.
    pub batch: BatchId,
    /// What came of it.
    pub result: Result<Vec<Reply>, Failure>,
}

/// How fast a simulated disk is, and how large.
#[derive(Debug, Clone)]
pub struct DiskProfile {
    /// Shortest and longest time of a direct (durable) write.
    pub journal_latency: (Duration, Duration),
    /// Shortest and longest time of an operation in the page cache.
    pub pool_latency: (Duration, Duration),
    /// Shortest and longest time of a sync.
    pub sync_latency: (Duration, Duration),
    /// What the time grows by with the size.
    pub bytes_per_second: u64,
    /// The probability that an operation takes ten times as long.
    pub hiccups: f64,
    /// Whether files can be opened past the page cache.
    pub direct: bool,
    /// Room for the content of files, in bytes; `None`: endless.
    pub capacity_bytes: Option<u64>,
}

impl Default for DiskProfile {
    fn default() -> Self {
        let micros = Duration::from_micros;
        Self {
            journal_latency: (micros(100), micros(600)),
            pool_latency: (micros(20), micros(200)),
            sync_latency: (micros(100), micros(1500)),
            bytes_per_second: 1_000_000_000,
            hiccups: 0.002,
            direct: true,
            capacity_bytes: None,
        }
    }
}

#[derive(Debug)]
struct Handle {
    inode: InodeId,
    /// As it was opened, with the folder in front: what fault rules and traces see.
    path: String,
    mode: OpenMode,
    direct: bool,
}

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    inode: InodeId,
    journal: Queue,
    pool: Queue,
    /// Nobody uses it any more: it goes, with its lock, after its last batch.
    closing: bool,
}

/// Batches of one lane: at most `workers` run, the others wait.
#[derive(Debug)]
struct Queue {
    workers: usize,
    running: usize,
    waiting: VecDeque<BatchId>,
}

#[derive(Debug)]
struct Batch {
    folder: FolderId,
    lane: Lane,
    requests: VecDeque<Request>,
    done: Vec<Reply>,
    /// Whether its first operation is in flight.
    started: bool,
}

/// The disk of one node. It outlives the node's processes.
#[derive(Debug)]
pub struct SimulatedDisk {
    node: u32,
    draw: Draw,
    events: Events,
    profile: DiskProfile,
    tree: Tree,
    faults: Faults,
    handles: BTreeMap<HandleId, Handle>,
    folders: BTreeMap<FolderId, Folder>,
    batches: BTreeMap<BatchId, Batch>,
    in_flight: TimerQueue<BatchId>,
    next_id: u64,
    /// The place of the next change in the order of all changes.
    sequence: u64,
    latency_factor: f64,
    stuck: bool,
    /// What lost space may show after a power loss; empty unless switched on.
    stale: Option<VecDeque<[u8; SECTOR_BYTES as usize]>>,
}

impl SimulatedDisk {
    /// An empty disk of this node.
    pub fn new(node: u32, draw: Draw, events: Events, profile: DiskProfile) -> Self {
        Self {
            node,
            draw,
            events,
            profile,
            tree: Tree::new(),
            faults: Faults::default(),
            handles: BTreeMap::new(),
            folders: BTreeMap::new(),
            batches: BTreeMap::new(),
            in_flight: TimerQueue::new(),
            next_id: 0,
            sequence: 1,
            latency_factor: 1.0,
            stuck: false,
            stale: None,
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn note(&self, now: Instant, kind: &'static str, facts: &[u64], text: impl FnOnce() -> String) {
        self.events.note(now, Some(self.node), kind, facts, text);
    }

    /// Opens a data folder, creates it if it does not exist (durably), and locks it. `None`: it is locked already.
    ///
    /// # Errors
    /// `NotADirectory` when a file stands in the way.
    pub fn open_folder(&mut self, root: &Path, pool_threads: usize) -> io::Result<Option<FolderId>> {
        let inode = self.create_folders(tree::TOP, root)?;
        self.tree.sync_ancestors(root);
        if self.folders.values().any(|folder| folder.inode == inode) {
            return Ok(None);
        }
        let id = FolderId(self.id());
        let queue = |workers| Queue { workers, running: 0, waiting: VecDeque::new() };
        let (journal, pool) = (queue(1), queue(pool_threads.max(1)));
        let root = root.to_path_buf();
        self.folders.insert(id, Folder { root, inode, journal, pool, closing: false });
        Ok(Some(id))
    }

    /// Closes a folder and gives up its lock, after the last of its batches. Its open files stay open.
    pub fn close_folder(&mut self, id: FolderId) {
        if self.batches.values().any(|batch| batch.folder == id) {
            if let Some(folder) = self.folders.get_mut(&id) {
                folder.closing = true;
            }
        } else {
            self.folders.remove(&id);
        }
    }

    /// Closes a file. A handle that is dead already is ignored.
    pub fn close(&mut self, file: HandleId) {
        if let Some(handle) = self.handles.remove(&file) {
            self.tree.close(handle.inode);
        }
    }

    /// Starts a batch. An empty one is complete at once, too, but not before the next [`SimulatedDisk::take_due`].
    pub fn submit(&mut self, folder: FolderId, lane: Lane, requests: Vec<Request>, now: Instant) -> BatchId {
        let id = BatchId(self.id());
        let batch = Batch { folder, lane, requests: requests.into(), done: Vec::new(), started: false };
        self.batches.insert(id, batch);
        match self.queue(folder, lane) {
            Some(queue) if queue.running >= queue.workers => queue.waiting.push_back(id),
            Some(queue) => {
                queue.running += 1;
                self.start_next_op(id, now);
            }
            // The folder belongs to a dead process: the batch fails when it is due.
            None => self.start_next_op(id, now),
        }
        id
    }

    fn queue(&mut self, folder: FolderId, lane: Lane) -> Option<&mut Queue> {
        let folder = self.folders.get_mut(&folder)?;
        Some(match lane {
            Lane::Journal => &mut folder.journal,
            Lane::Pool => &mut folder.pool,
        })
    }

    fn start_next_op(&mut self, id: BatchId, now: Instant) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        batch.started = true;
        let latency = match batch.requests.front() {
            None => Duration::ZERO,
            Some(request) => {
                let (range, bytes) = cost(request, &self.profile);
                let transfer = bytes.saturating_mul(1_000_000_000) / self.profile.bytes_per_second.max(1);
                let mut latency = self.draw.duration(range.0, range.1) + Duration::from_nanos(transfer);
                if self.draw.chance(self.profile.hiccups) {
                    latency *= 10;
                }
                latency.mul_f64(self.latency_factor)
            }
        };
        self.in_flight.insert(now + latency, id);
    }

    /// When the next operation ends; `None` when nothing is in flight, or the disk is stuck.
    pub fn next_completion(&self) -> Option<Instant> {
        if self.stuck { None } else { self.in_flight.next() }
    }

    /// Ends all operations that are due, and returns the batches that are complete, in the order of their ends.
    pub fn take_due(&mut self, now: Instant) -> Vec<Completion> {
        let mut completions = Vec::new();
        if self.stuck {
            return completions;
        }
        while let Some(at) = self.in_flight.next().filter(|at| *at <= now) {
            let Some(id) = self.in_flight.pop_due(now) else { break };
            if let Some(result) = self.end_op(id, at) {
                let Some(batch) = self.batches.remove(&id) else { continue };
                completions.push(Completion { batch: id, result });
                self.free_worker(batch.folder, batch.lane, at);
                if self.folders.get(&batch.folder).is_some_and(|folder| folder.closing) {
                    self.close_folder(batch.folder);
                }
            }
        }
        completions
    }

    /// Ends a batch's operation in flight. `None`: the next one is in flight now.
    fn end_op(&mut self, id: BatchId, at: Instant) -> Option<Result<Vec<Reply>, Failure>> {
        let batch = self.batches.get_mut(&id)?;
        let folder = batch.folder;
        if let Some(request) = batch.requests.pop_front() {
            match self.apply(folder, request, at) {
                Ok(reply) => self.batches.get_mut(&id)?.done.push(reply),
                Err(error) => {
                    let done = std::mem::take(&mut self.batches.get_mut(&id)?.done);
                    return Some(Err(Failure { index: done.len(), error, done }));
                }
            }
        }
        let batch = self.batches.get_mut(&id)?;
        if batch.requests.is_empty() {
            return Some(Ok(std::mem::take(&mut batch.done)));
        }
        self.start_next_op(id, at);
        None
    }

    fn free_worker(&mut self, folder: FolderId, lane: Lane, now: Instant) {
        let Some(queue) = self.queue(folder, lane) else { return };
        match queue.waiting.pop_front() {
            Some(next) => self.start_next_op(next, now),
            None => queue.running -= 1,
        }
    }
}

/// The range of an operation's latency, and the bytes that it moves.
fn cost(request: &Request, profile: &DiskProfile) -> ((Duration, Duration), u64) {
    match request {
        Request::Read { len, .. } => (profile.pool_latency, *len as u64),
        Request::Write { data, .. } => {
            (profile.pool_latency, data.iter().map(|chunk| chunk.len() as u64).sum())
        }
        Request::WriteAligned { data, .. } => (profile.journal_latency, data.len() as u64),
        Request::Sync { .. } | Request::Allocate { .. } | Request::SyncDir { .. } => {
            (profile.sync_latency, 0)
        }
        _ => (profile.pool_latency, 0),
    }
}

/// What a person or a plan does to the disk.
impl SimulatedDisk {
    /// Puts a rule in force.
    pub fn add_fault(&mut self, rule: FaultRule) {
        self.faults.add(rule);
    }

    /// Takes all rules back, lets a stuck disk go on, restores speed and room. Damage that was done stays.
    pub fn heal(&mut self, now: Instant) {
        self.faults.clear();
        self.latency_factor = 1.0;
        self.profile.capacity_bytes = None;
        self.release(now);
    }

    /// Limits the room to this many bytes, or lifts the limit. What exceeds it already stays.
    pub fn set_capacity_bytes(&mut self, capacity: Option<u64>) {
        self.profile.capacity_bytes = capacity;
    }

    /// Bytes that files take up.
    pub fn used_bytes(&self) -> u64 {
        self.tree.used_bytes()
    }

    /// Makes operations that start from now on take this many times as long.
    pub fn slow_down(&mut self, now: Instant, factor: f64) {
        self.note(now, "fault.disk.slow", &[factor.to_bits()], || format!("{factor} times slower"));
        self.latency_factor = factor;
    }

    /// Lets no operation end until [`SimulatedDisk::release`].
    pub fn stick(&mut self, now: Instant) {
        self.note(now, "fault.disk.stuck", &[], String::new);
        self.stuck = true;
    }

    /// Lets a stuck disk go on: what was due meanwhile ends now.
    pub fn release(&mut self, now: Instant) {
        if !std::mem::take(&mut self.stuck) {
            return;
        }
        let mut due = Vec::new();
        while let Some(id) = self.in_flight.pop_due(now) {
            due.push(id);
        }
        for id in due {
            self.in_flight.insert(now, id);
        }
    }

    /// Lets a power loss show old blocks, instead of zeros, where a file's new length was kept and its data was not.
    pub fn show_stale_blocks(&mut self, shown: bool) {
        self.stale = shown.then(VecDeque::new);
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
