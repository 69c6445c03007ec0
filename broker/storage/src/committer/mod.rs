//! The committer of a folder: one task that makes durable what all shards ask for, round by round.
//!
//! A round is one write to the journal and one batch of writes to segments, at the same time; it is complete when both have succeeded,
//! and then each shard hears once. While a round is on its way, the next one gathers in the inbox. Truncations, new starts and
//! deletions are acknowledged when the round with their journal entries is complete and they were carried out; what follows on one of
//! them in the same log is part of a later round.

mod commit;
mod gather;
mod keeper;
mod replace;
mod round;

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use weir_defect::defect;
use weir_protocol::types::{LeaderEpoch, LogId, Offset};
use weir_runtime::disk::{BatchError, Done, Lane};
use weir_runtime::task;
use weir_runtime::time::{self, Alarm};

use crate::StorageError;
use crate::cache::{SegmentKey, lock};
use crate::catalog::SlotId;
use crate::checkpoint;
use crate::identity;
use crate::inbox::Command;
use crate::journal::{BeginError, Entry, Journal, RoundWrite};
use crate::log::LogHandle;
use crate::segment::SegmentIndex;
use crate::store::Shared;

use keeper::{CheckpointJob, Job};
use round::RoundCut;

/// How long the journal is idle before it is sealed.
const SEAL_AFTER: Duration = Duration::from_millis(5);
/// How often idle files are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How long a checkpoint waits that found no room.
const RETRY_CHECKPOINT_AFTER: Duration = Duration::from_secs(1);

/// How a checkpoint has ended.
pub(crate) enum CheckpointEnd {
    /// It is durable and covers the journal up to this round, exclusive.
    Done { replay_from: u64 },
    /// There was no room for it. These segments and folders are still to be synced.
    NoSpace { dirty: Dirty, error: StorageError },
}

/// What was written and not synced.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// Segments.
    pub(crate) segments: BTreeSet<SegmentKey>,
    /// Logs in whose folders files were created or removed.
    pub(crate) folders: BTreeSet<SlotId>,
}

/// Most bytes of an append, so that it fits into a round of its own.
pub(crate) fn append_bytes_max(journal: &Journal) -> usize {
    journal.max_round_bytes().saturating_sub(2 * round::ENTRY_BYTES)
}

/// What the committer knows of a log.
struct LogSlot {
    log: LogId,
    port: u32,
    os: bool,
    is_open: bool,
    generation: u32,
    latest_epoch: Option<LeaderEpoch>,
    active: Arc<SegmentIndex>,
    handle: Arc<LogHandle>,
    /// The segment in which the log ended at the last checkpoint that was begun: replay from that one on writes to none below.
    checkpointed: Offset,
    /// Everything from here on was cut, and the owner does not know yet: what it appends is dropped.
    failing: Option<Offset>,
    /// The round in which the log was touched last, and its place in there.
    touched: (u64, usize),
    /// The round that last held a truncation, a new start or the like.
    controlled: u64,
    /// The segment that was marked as dirty last, for which checkpoint.
    dirty: (u64, Offset),
    /// Whether its folder was marked as dirty: an earlier process may have made files whose names were never synced.
    is_named: bool,
}

/// The committer's state.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    journal: Journal,
    queue: VecDeque<Command>,
    slots: Vec<Option<LogSlot>>,
    /// Counts rounds, journalled or not.
    round_number: u64,
    /// Cuts of what could not be written, for the next round.
    failed_cuts: Vec<RoundCut>,
    jobs: mpsc::UnboundedSender<Job>,
    dirty: Dirty,
    /// Counts checkpoints that were begun.
    checkpoint_number: u64,
    checkpoint_running: bool,
    checkpoint_retry: Alarm,
    /// A checkpoint is wanted before the journal is full: compaction waits for it.
    settle: bool,
    idle: Alarm,
    /// Set when the store is to be closed.
    stopping: Option<oneshot::Sender<Result<(), StorageError>>>,
    abandoned: bool,
    /// The marker of a clean stop is still there (defect `clear_clean_marker_late`).
    late_clean_mark: bool,
}

/// What recovery hands over.
pub(crate) struct CommitterStart {
    pub(crate) journal: Journal,
    pub(crate) dirty: Dirty,
    pub(crate) leftovers: Vec<PathBuf>,
    pub(crate) late_clean_mark: bool,
}

impl Committer {
    /// A committer that goes on where recovery has ended.
    pub(crate) fn new(shared: Arc<Shared>, start: CommitterStart) -> Committer {
        let CommitterStart { journal, dirty, leftovers, late_clean_mark } = start;
        let (jobs, receiver) = mpsc::unbounded_channel();
        task::spawn("storage-keeper", keeper::run(shared.clone(), receiver));
        for leftover in leftovers {
            let _ = jobs.send(Job::RemoveFolder(leftover));
        }
        Committer {
            shared,
            journal,
            queue: VecDeque::new(),
            slots: Vec::new(),
            round_number: 1,
            failed_cuts: Vec::new(),
            jobs,
            dirty,
            checkpoint_number: 1,
            checkpoint_running: false,
            checkpoint_retry: Alarm::new(),
            settle: false,
            idle: Alarm::new(),
            stopping: None,
            abandoned: false,
            late_clean_mark,
        }
    }

    /// Runs until the store is closed, fails, or has no users left.
    pub(crate) async fn run(mut self) {
        match self.serve().await {
            Ok(()) => {
                if let Some(reply) = self.stopping.take() {
                    let _ = reply.send(Ok(()));
                }
            }
            Err(error) => {
                self.journal.round_failed();
                let error = self.shared.fail(error);
                if let Some(reply) = self.stopping.take() {
                    let _ = reply.send(Err(StorageError::FolderFailed(error)));
                }
            }
        }
        // Whoever still asks gets no answer, which tells that the store has stopped.
        while !self.abandoned {
            self.drain();
            self.abandoned |= self.queue.drain(..).any(|command| matches!(command, Command::Abandon));
            if !self.abandoned {
                self.shared.inbox.wait().await;
            }
        }
    }

    fn drain(&mut self) {
        self.shared.inbox.drain(&mut self.queue);
    }

    async fn serve(&mut self) -> Result<(), StorageError> {
        self.grow();
        self.idle.set(Some(time::now() + SEAL_AFTER));
        loop {
            self.drain();
            let round = self.gather()?;
            if self.settle && !self.checkpoint_running {
                self.settle = false;
                self.start_checkpoint();
            }
            if !round.is_empty() {
                self.commit(round).await?;
                self.idle.set(Some(time::now() + SEAL_AFTER));
                self.grow();
                if self.journal.needs_checkpoint() {
                    self.start_checkpoint();
                }
            } else if self.abandoned {
                return Ok(());
            } else if self.stopping.is_some() {
                return self.stop().await;
            } else if self.queue.is_empty() {
                self.wait().await?;
            }
        }
    }

    /// Nothing to do.
    async fn wait(&mut self) -> Result<(), StorageError> {
        weir_runtime::select! {
            () = self.shared.inbox.wait() => {}
            () = self.idle.wait() => self.on_idle().await?,
            () = self.checkpoint_retry.wait() => self.start_checkpoint(),
        }
        Ok(())
    }

    /// Seals the journal; later closes files that nobody uses.
    async fn on_idle(&mut self) -> Result<(), StorageError> {
        self.idle.set(None);
        if let Some(write) = self.journal.seal() {
            self.write_journal(write).await?;
            self.idle.set(Some(time::now() + SWEEP_EVERY));
        } else if self.shared.files.sweep() > 0 {
            self.idle.set(Some(time::now() + SWEEP_EVERY));
        }
        Ok(())
    }

    /// Asks for the journal's next file, if it may have one.
    fn grow(&mut self) {
        if let Some(grow) = self.journal.grow() {
            let _ = self.jobs.send(Job::Grow(grow));
        }
    }

    /// Lays out a round, once there is room for it.
    async fn begin_journal(&mut self, entries: &[Entry]) -> Result<RoundWrite, StorageError> {
        let mut counted = false;
        loop {
            match self.journal.begin_round(entries) {
                Ok(write) => return Ok(write),
                Err(BeginError::Full) => {
                    if !counted {
                        self.shared.counters.journal_full.fetch_add(1, Ordering::Relaxed);
                        counted = true;
                    }
                    self.wait_for_room().await?;
                }
                Err(error) => {
                    let reason = error.to_string();
                    return Err(StorageError::Damaged { file: crate::layout::JOURNAL.to_owned(), reason });
                }
            }
        }
    }

    /// The journal is full: waits until a checkpoint has ended or a file was added. Everything else waits, too.
    async fn wait_for_room(&mut self) -> Result<(), StorageError> {
        if !self.checkpoint_running && self.checkpoint_retry.at().is_none() {
            self.start_checkpoint();
        }
        while !self.hear_keeper()? {
            weir_runtime::select! {
                () = self.shared.inbox.wait() => {}
                () = self.checkpoint_retry.wait() => self.start_checkpoint(),
            }
        }
        Ok(())
    }

    /// Takes in what the keeper has said so far. Whether that was anything.
    fn hear_keeper(&mut self) -> Result<bool, StorageError> {
        self.drain();
        let mut others = VecDeque::with_capacity(self.queue.len());
        let mut changed = false;
        for command in std::mem::take(&mut self.queue) {
            match command {
                Command::Checkpointed(_) | Command::Grown(_) | Command::Failed(_) => {
                    changed = true;
                    self.on_background(command)?;
                }
                other => others.push_back(other),
            }
        }
        self.queue = others;
        Ok(changed)
    }

    /// Word from the keeper.
    fn on_background(&mut self, command: Command) -> Result<(), StorageError> {
        match command {
            Command::Checkpointed(CheckpointEnd::Done { replay_from }) => {
                self.checkpoint_running = false;
                self.slots.iter().flatten().for_each(|slot| slot.handle.settle(slot.checkpointed));
                self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
                if let Some(covered) = replay_from.checked_sub(1) {
                    self.journal.release_up_to(covered);
                }
            }
            Command::Checkpointed(CheckpointEnd::NoSpace { dirty, error }) => {
                tracing::warn!(%error, "no room for a checkpoint: it is tried again");
                self.checkpoint_running = false;
                self.dirty.segments.extend(dirty.segments);
                self.dirty.folders.extend(dirty.folders);
                self.checkpoint_retry.set(Some(time::now() + RETRY_CHECKPOINT_AFTER));
            }
            Command::Grown(file) => self.journal.grown(file),
            Command::Failed(error) => return Err(error),
            _ => {}
        }
        Ok(())
    }

    /// Writes a round of the journal.
    async fn write_journal(&mut self, write: RoundWrite) -> Result<(), StorageError> {
        let written = self.shared.disk.submit(Lane::Journal, vec![write.into_op()]).await;
        self.on_journal_written(written)
    }

    fn on_journal_written(&mut self, written: Result<Vec<Done>, BatchError>) -> Result<(), StorageError> {
        match written.map(|mut done| done.pop()) {
            Ok(Some(Done::WrittenAligned(buffer))) => {
                self.journal.round_done(buffer);
                self.shared.counters.rounds.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Ok(_) => {
                let reason = "its write had no result".to_owned();
                Err(StorageError::Damaged { file: crate::layout::JOURNAL.to_owned(), reason })
            }
            // The kernel has marked the pages as clean: asked again, it says that all is well.
            Err(_) if defect!(retry_fsync) => {
                self.journal.round_done(Default::default());
                Ok(())
            }
            Err(source) => Err(StorageError::Disk { doing: "write the journal", source }),
        }
    }

    /// Begins a checkpoint of the present state: all complete rounds are in the catalog.
    fn start_checkpoint(&mut self) {
        self.checkpoint_retry.set(None);
        if self.checkpoint_running {
            return;
        }
        self.checkpoint_running = true;
        let job = self.checkpoint_job();
        let _ = self.jobs.send(Job::Checkpoint(job));
    }

    fn checkpoint_job(&mut self) -> CheckpointJob {
        self.checkpoint_number += 1;
        let shared = self.shared.clone();
        let replay_from = self.journal.synced_end();
        let catalog = lock(&shared.catalog);
        let now_ms = time::now().since_origin_ms();
        let content = checkpoint::encode(shared.folder, replay_from, !shared.is_certain(), &catalog, now_ms);
        for (slot, entry) in self.slots.iter_mut().enumerate() {
            if let (Some(entry), Some(known)) = (entry, catalog.get(slot as SlotId)) {
                entry.checkpointed = known.state.segment_base;
            }
        }
        let dirty = std::mem::take(&mut self.dirty);
        let mut indexes = Vec::new();
        let mut files = Vec::with_capacity(dirty.segments.len());
        for key in &dirty.segments {
            let Some(entry) = catalog.get(key.0) else { continue };
            files.push((*key, entry.log));
            let state = &entry.state;
            let slot = self.slots.get(key.0 as usize).and_then(Option::as_ref);
            if let Some(slot) = slot.filter(|_| state.segment_base == key.1) {
                // What is not durable yet may be cut by recovery, and must not be in the file.
                let index = slot.active.with(|index| (index.base == key.1).then(|| index.clone()));
                indexes.extend(index.map(|mut index| {
                    if index.covered > state.position {
                        index.cut(state.position, state.end);
                    }
                    index.stamp(&state.epochs);
                    (entry.log, index)
                }));
            }
        }
        let folders =
            dirty.folders.iter().filter_map(|slot| catalog.get(*slot)).map(|entry| entry.log).collect();
        drop(catalog);
        let clear_clean_mark = std::mem::take(&mut self.late_clean_mark);
        CheckpointJob { replay_from, content, dirty, files, folders, indexes, clear_clean_mark }
    }

    /// The end of a store that is closed in order.
    async fn stop(&mut self) -> Result<(), StorageError> {
        while self.checkpoint_running {
            self.wait_for_room().await?;
        }
        if let Some(write) = self.journal.seal() {
            self.write_journal(write).await?;
        }
        self.start_checkpoint();
        while self.checkpoint_running {
            self.wait_for_room().await?;
        }
        if self.checkpoint_retry.at().is_some() {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            tracing::warn!(error = %full, "no room for a checkpoint: the next start recovers");
            return Ok(());
        }
        let (reply, done) = oneshot::channel();
        let _ = self.jobs.send(Job::Barrier(reply));
        let _ = done.await;
        // The marker says that nothing has failed, up to here.
        self.hear_keeper()?;
        identity::mark_clean(&self.shared.disk).await
    }

    fn slot(&mut self, slot: SlotId) -> Option<&mut LogSlot> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Marks a segment as written. Constant time for a log that goes on in its segment.
    fn mark_dirty(&mut self, slot: SlotId, base: Offset) {
        let number = self.checkpoint_number;
        if let Some(entry) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) {
            if entry.dirty == (number, base) {
                return;
            }
            entry.dirty = (number, base);
            if !std::mem::replace(&mut entry.is_named, true) {
                self.dirty.folders.insert(slot);
            }
        }
        self.dirty.segments.insert((slot, base));
    }
}
