//! A data folder.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::{mpsc, oneshot};
use weir_protocol::types::{FolderId, Incarnation, LogId};
use weir_runtime::disk::{Disk, File};
use weir_runtime::task;

use crate::cache::{Cache, lock};
use crate::catalog::{Catalog, LogState, SlotId};
use crate::committer::{self, Committer, CommitterStart};
use crate::config::{LogConfig, StoreConfig};
use crate::error::StorageError;
use crate::event::StoreEvent;
use crate::inbox::{Command, Inbox};
use crate::layout;
use crate::log::{self, Log};
use crate::recovery::{self, RecoveryReport};
use crate::segment::SegmentIndex;

/// One data folder, open. A cheap handle; the folder is closed by [`Store::close`], and its tasks end when the last handle, port and log
/// are gone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    lease: Arc<Lease>,
}

/// Where a shard hears of its logs. Logs that are opened through a port report to it.
pub struct Port {
    number: u32,
    _lease: Arc<Lease>,
}

/// Held by stores, ports and logs: when the last is gone, the store's tasks end, as if the process had.
pub(crate) struct Lease {
    shared: Arc<Shared>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.inbox.push(Command::Abandon);
    }
}

/// Figures of a store, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Journal rounds written.
    pub rounds: u64,
    /// Appends in complete rounds.
    pub appends: u64,
    /// Bytes of these appends.
    pub append_bytes: u64,
    /// Bytes that wait for their round.
    pub backlog_bytes: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Times that a round had to wait for a checkpoint, because the journal was full.
    pub journal_full: u64,
    /// Appends that were cut because the disk was full.
    pub appends_failed: u64,
    /// Segment files that are open.
    pub open_files: u64,
}

/// What the store's tasks, ports, logs and plans share.
pub(crate) struct Shared {
    pub(crate) disk: Disk,
    pub(crate) config: StoreConfig,
    pub(crate) folder: FolderId,
    pub(crate) incarnation: Incarnation,
    pub(crate) inbox: Inbox,
    pub(crate) catalog: Mutex<Catalog>,
    pub(crate) files: Cache<File>,
    pub(crate) indexes: Cache<Arc<SegmentIndex>>,
    pub(crate) ports: Mutex<Vec<mpsc::UnboundedSender<StoreEvent>>>,
    /// Most bytes of one append: what fits into a journal round.
    pub(crate) append_bytes_max: usize,
    pub(crate) counters: Counters,
    failure: OnceLock<Arc<StorageError>>,
    closed: AtomicBool,
    uncertain: AtomicBool,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) rounds: AtomicU64,
    pub(crate) appends: AtomicU64,
    pub(crate) append_bytes: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) journal_full: AtomicU64,
    pub(crate) appends_failed: AtomicU64,
}

impl Store {
    /// Opens a data folder: counts the start, reads the checkpoint and replays the journal. The time it takes depends on what the
    /// journal holds beyond the checkpoint, and not on the data. Must run inside of a [`weir_runtime`] task.
    ///
    /// # Errors
    /// `NewerFormat`, `Damaged` (the folder's identity), `NoSpace`, `Disk`.
    pub async fn open(disk: Disk, config: StoreConfig) -> Result<(Store, RecoveryReport), StorageError> {
        let recovered = recovery::recover(&disk, &config).await?;
        let shared = Arc::new(Shared {
            disk,
            folder: recovered.folder,
            incarnation: recovered.incarnation,
            inbox: Inbox::new(),
            catalog: Mutex::new(recovered.catalog),
            files: Cache::new(config.open_files_max),
            indexes: Cache::new(config.index_cache_bytes),
            ports: Mutex::default(),
            append_bytes_max: committer::append_bytes_max(&recovered.journal),
            counters: Counters::default(),
            failure: OnceLock::new(),
            closed: AtomicBool::new(false),
            uncertain: AtomicBool::new(!recovered.report.is_certain),
            config,
        });
        let start = CommitterStart {
            journal: recovered.journal,
            dirty: recovered.dirty,
            leftovers: recovered.leftovers,
            late_clean_mark: recovered.late_clean_mark,
        };
        task::spawn("storage-committer", Committer::new(shared.clone(), start).run());
        let lease = Arc::new(Lease { shared: shared.clone() });
        Ok((Store { shared, lease }, recovered.report))
    }

    /// The most bytes that a log takes in one append: they fit into one file of the journal.
    pub fn append_bytes_max(&self) -> usize {
        self.shared.append_bytes_max
    }

    /// The folder's id, drawn when it was made.
    pub fn folder_id(&self) -> FolderId {
        self.shared.folder
    }

    /// Which start of this folder this is.
    pub fn incarnation(&self) -> Incarnation {
        self.shared.incarnation
    }

    /// The disk that the folder is on.
    pub fn disk(&self) -> &Disk {
        &self.shared.disk
    }

    /// The logs in the folder, sorted.
    pub fn logs(&self) -> Vec<LogId> {
        lock(&self.shared.catalog).iter().map(|slot| slot.log).collect()
    }

    /// Whether recovery knew the ends of all `sync` logs for certain, this time and each time since [`Store::settle`] (contract 5).
    pub fn is_certain(&self) -> bool {
        self.shared.is_certain()
    }

    /// The cluster has settled what these logs are to hold: they count as certain from the next checkpoint on.
    pub fn settle(&self) {
        self.shared.uncertain.store(false, Ordering::Release);
    }

    /// A new port, one per shard, and its events. Events wait in the channel until they are taken; there are at most a few per round.
    pub fn port(&self) -> (Port, mpsc::UnboundedReceiver<StoreEvent>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        if let Some(error) = self.shared.failure() {
            let _ = sender.send(StoreEvent::FolderFailed(error));
        }
        let mut ports = lock(&self.shared.ports);
        ports.push(sender);
        let number = (ports.len() - 1) as u32;
        (Port { number, _lease: self.lease.clone() }, receiver)
    }

    /// Opens a log, which has one owner at a time. Creates it if it does not exist.
    ///
    /// # Errors
    /// `AlreadyOpen`, `FolderFailed`, `Closed`, `Disk`.
    pub async fn open_log(&self, id: LogId, config: LogConfig, port: &Port) -> Result<Log, StorageError> {
        self.shared.check_running()?;
        let (slot, is_new, was_used) = self.shared.claim(id)?;
        let claim = Claim { shared: &self.shared, slot, kept: false };
        if was_used {
            self.barrier().await?;
        }
        let Some(state) = self.shared.state(slot) else { return Err(StorageError::Closed) };
        let opening =
            log::Opening { lease: self.lease.clone(), slot, port: port.number, id, config, announce: is_new };
        let log = log::open(self.shared.clone(), opening, state).await?;
        claim.keep();
        Ok(log)
    }

    /// Bytes of a log's segment files; 0 if it has none. For logs that are not open: of one that is,
    /// [`Log::size_bytes`] counts what is on its way to the disk as well.
    ///
    /// # Errors
    /// `Disk`.
    pub async fn size_on_disk(&self, log: LogId) -> Result<u64, StorageError> {
        // A log that was never opened has no folder to be looked for.
        if lock(&self.shared.catalog).find(log).is_none() {
            return Ok(0);
        }
        match self.shared.disk.list(layout::log_dir(log)).await {
            Ok(files) => {
                let segments = files.iter().filter(|file| layout::parse_segment_file(&file.name).is_some());
                Ok(segments.map(|file| file.len).sum())
            }
            Err(error) if error.is_not_found() => Ok(0),
            Err(source) => Err(StorageError::Disk { doing: "look for the size of a log", source }),
        }
    }

    /// Deletes a log for good. Its [`Log`] must have been dropped. Returns when no crash can bring it back; its files go in the
    /// background. A log that does not exist is deleted already.
    ///
    /// # Errors
    /// `FolderFailed`, `Closed`, `Disk`.
    pub async fn delete_log(&self, log: LogId) -> Result<(), StorageError> {
        self.shared.check_running()?;
        let (reply, done) = oneshot::channel();
        self.shared.inbox.push(Command::Delete { log, reply });
        done.await.map_err(|_| self.shared.stopped())?
    }

    /// Waits until all that was asked of the store so far is done.
    async fn barrier(&self) -> Result<(), StorageError> {
        let (reply, done) = oneshot::channel();
        self.shared.inbox.push(Command::Barrier { reply });
        done.await.map_err(|_| self.shared.stopped())
    }

    /// A clean stop: writes and syncs everything, leaves a checkpoint, and the marker that lets the next start skip recovery. Logs
    /// should have been dropped: what they append from now on is refused.
    ///
    /// # Errors
    /// `FolderFailed`, `Closed` if it was closed before, what the disk says. The next start recovers then.
    pub async fn close(&self) -> Result<(), StorageError> {
        self.shared.check_running()?;
        let (reply, done) = oneshot::channel();
        self.shared.inbox.push(Command::Stop { reply });
        self.shared.closed.store(true, Ordering::Release);
        done.await.map_err(|_| self.shared.stopped())?
    }

    /// Figures for metrics.
    pub fn stats(&self) -> StoreStats {
        let counters = &self.shared.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            rounds: load(&counters.rounds),
            appends: load(&counters.appends),
            append_bytes: load(&counters.append_bytes),
            backlog_bytes: self.shared.inbox.backlog_bytes() as u64,
            checkpoints: load(&counters.checkpoints),
            journal_full: load(&counters.journal_full),
            appends_failed: load(&counters.appends_failed),
            open_files: self.shared.files.len() as u64,
        }
    }
}

/// A slot that is being opened: closed again unless that succeeds.
struct Claim<'a> {
    shared: &'a Shared,
    slot: SlotId,
    kept: bool,
}

impl Claim<'_> {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.shared.release(self.slot);
        }
    }
}

impl Shared {
    /// Marks a log as open. Returns its slot, whether journal and checkpoint do not know it, and whether it was open before.
    fn claim(&self, id: LogId) -> Result<(SlotId, bool, bool), StorageError> {
        let mut catalog = lock(&self.catalog);
        let slot = catalog.ensure(id);
        let Some(entry) = catalog.get_mut(slot) else { return Err(StorageError::Closed) };
        if entry.open {
            return Err(StorageError::AlreadyOpen(id));
        }
        let was_used = entry.used;
        (entry.open, entry.used) = (true, true);
        Ok((slot, !entry.announced, was_used))
    }

    /// Marks a log as not open.
    pub(crate) fn release(&self, slot: SlotId) {
        if let Some(entry) = lock(&self.catalog).get_mut(slot) {
            entry.open = false;
        }
    }

    fn state(&self, slot: SlotId) -> Option<LogState> {
        lock(&self.catalog).get(slot).map(|entry| entry.state.clone())
    }

    pub(crate) fn has_log(&self, slot: SlotId) -> bool {
        lock(&self.catalog).get(slot).is_some()
    }

    pub(crate) fn is_certain(&self) -> bool {
        !self.uncertain.load(Ordering::Acquire)
    }

    /// Why the folder has failed, if it has.
    pub(crate) fn failure(&self) -> Option<Arc<StorageError>> {
        self.failure.get().cloned()
    }

    /// The folder has failed, for good: tells every port, once.
    pub(crate) fn fail(&self, error: StorageError) -> Arc<StorageError> {
        let error = Arc::new(error);
        if self.failure.set(error.clone()).is_ok() {
            tracing::error!(%error, "the data folder has failed: no reads and no acknowledgements until the next start");
            for port in lock(&self.ports).iter() {
                let _ = port.send(StoreEvent::FolderFailed(error.clone()));
            }
        }
        self.failure().unwrap_or(error)
    }

    pub(crate) fn check_running(&self) -> Result<(), StorageError> {
        if let Some(error) = self.failure.get() {
            return Err(StorageError::FolderFailed(error.clone()));
        }
        if self.closed.load(Ordering::Acquire) { Err(StorageError::Closed) } else { Ok(()) }
    }

    /// Why the committer does not answer.
    pub(crate) fn stopped(&self) -> StorageError {
        self.failure().map_or(StorageError::Closed, StorageError::FolderFailed)
    }

    /// Tells a port. A port whose owner has gone hears nothing.
    pub(crate) fn send(&self, port: u32, event: StoreEvent) {
        if let Some(port) = lock(&self.ports).get(port as usize) {
            let _ = port.send(event);
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("folder", &self.shared.folder).finish_non_exhaustive()
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Port").field(&self.number).finish()
    }
}
