//! What shards ask of the committer, in order.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use weir_protocol::partition::producers::{ProducerBatch, ProducerId};
use weir_protocol::types::{LeaderEpoch, LogId, Offset};

use crate::StorageError;
use crate::cache::lock;
use crate::catalog::{LogState, SlotId};
use crate::committer::CheckpointEnd;
use crate::journal::{Compacted, GrownFile};
use crate::log::LogHandle;
use crate::segment::SegmentIndex;

/// One request.
pub(crate) enum Command {
    /// A log was opened: who is to be told, and what it is about.
    Open(Opened),
    /// Batches, with their place.
    Append(Append),
    /// The log goes on in a new segment. The old one's index can be written.
    Roll {
        slot: SlotId,
        sealed: Arc<SegmentIndex>,
        active: Arc<SegmentIndex>,
        /// Where the new one begins, if nothing is appended to it yet.
        empty_at: Option<Offset>,
    },
    Replace(Replace),
    /// How far a log is compacted.
    Compacted {
        slot: SlotId,
        compacted: Compacted,
    },
    /// Sealed segments are to be compacted as soon as replay would not write to them: that takes a checkpoint.
    Settle,
    Truncate(Truncate),
    SetStart(SetStart),
    /// A leader epoch begins.
    Epoch {
        slot: SlotId,
        epoch: LeaderEpoch,
        start: Offset,
    },
    /// These producers are forgotten.
    ForgetProducers {
        slot: SlotId,
        producers: Vec<ProducerId>,
    },
    /// The log's owner knows that appends failed: the next append follows on what is left.
    Resume {
        slot: SlotId,
        generation: u32,
        active: Arc<SegmentIndex>,
    },
    /// The log's owner is gone.
    Close {
        slot: SlotId,
    },
    Delete {
        log: LogId,
        reply: oneshot::Sender<Result<(), StorageError>>,
    },
    /// Answered when all before it is done.
    Barrier {
        reply: oneshot::Sender<()>,
    },
    /// Nobody is left who could ask for anything.
    Abandon,
    /// The last one.
    Stop {
        reply: oneshot::Sender<Result<(), StorageError>>,
    },
    /// From the background: a checkpoint has ended.
    Checkpointed(CheckpointEnd),
    /// From the background: the journal's next file, if it could be made.
    Grown(Option<GrownFile>),
    /// From the background: something there failed for good.
    Failed(StorageError),
}

/// See [`Command::Open`].
pub(crate) struct Opened {
    pub(crate) slot: SlotId,
    pub(crate) port: u32,
    /// Whether the folder's journal and checkpoint do not know the log yet, or know it with another flush policy.
    pub(crate) announce: bool,
    /// What opening has found out. It is in the catalog from the moment that `dirty` counts, so that no checkpoint takes one
    /// without the other.
    pub(crate) state: Box<LogState>,
    pub(crate) active: Arc<SegmentIndex>,
    pub(crate) handle: Arc<LogHandle>,
    /// Segments that opening has changed, or found with data of which nobody knows whether it is synced.
    pub(crate) dirty: Vec<Offset>,
}

/// See [`Command::Append`].
pub(crate) struct Append {
    pub(crate) slot: SlotId,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) base_offset: Offset,
    pub(crate) next_offset: Offset,
    pub(crate) segment_base: Offset,
    pub(crate) position: u64,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) bytes: u32,
    /// Whether it leaves a gap behind the log's end.
    pub(crate) gap: bool,
    pub(crate) data: Vec<Bytes>,
    pub(crate) producers: Vec<ProducerBatch>,
}

/// The log ends at `end` now.
pub(crate) struct Truncate {
    pub(crate) slot: SlotId,
    pub(crate) generation: u32,
    pub(crate) end: Offset,
    /// The segment that is cut.
    pub(crate) segment_base: Offset,
    pub(crate) place: CutPlace,
    /// Later segments, which go.
    pub(crate) removed: Vec<Offset>,
    /// The index of the segment in which the log goes on, which may be a new one.
    pub(crate) active: Arc<SegmentIndex>,
}

/// Where a segment is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutPlace {
    /// Here.
    At(u64),
    /// Where `end` stands: behind this batch boundary, at this offset. The segment has `limit` bytes.
    Behind { position: u64, offset: Offset, limit: u64 },
}

/// The log begins at `start` now.
pub(crate) struct SetStart {
    pub(crate) slot: SlotId,
    pub(crate) generation: u32,
    pub(crate) start: Offset,
    /// Segments wholly below, which go.
    pub(crate) removed: Vec<Offset>,
    pub(crate) active: Arc<SegmentIndex>,
}

/// Compacted segments take the place of sealed ones.
pub(crate) struct Replace {
    pub(crate) slot: SlotId,
    /// Oldest first.
    pub(crate) segments: Vec<Replacement>,
    /// What is said of the log before any of them changes.
    pub(crate) before: Compacted,
    /// And when all have.
    pub(crate) after: Compacted,
}

/// A segment whose compacted form lies beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replacement {
    pub(crate) base: Offset,
    /// How large it will be; at 0 the segment goes.
    pub(crate) bytes: u64,
}

/// The queue. Pushing takes a short lock and wakes the committer only if the queue was empty.
pub(crate) struct Inbox {
    queue: Mutex<Vec<Command>>,
    wake: Notify,
    /// Bytes of appends that were pushed and whose round is not complete.
    backlog_bytes: AtomicUsize,
}

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Inbox { queue: Mutex::default(), wake: Notify::new(), backlog_bytes: AtomicUsize::new(0) }
    }

    pub(crate) fn push(&self, command: Command) {
        let was_empty = {
            let mut queue = lock(&self.queue);
            queue.push(command);
            queue.len() == 1
        };
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Moves all that is there to the end of `into`.
    pub(crate) fn drain(&self, into: &mut impl Extend<Command>) {
        let taken = std::mem::take(&mut *lock(&self.queue));
        into.extend(taken);
    }

    /// Waits until something was pushed since the last wait; may return without.
    pub(crate) async fn wait(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn backlog_bytes(&self) -> usize {
        self.backlog_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_backlog(&self, bytes: usize) {
        self.backlog_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn release_backlog(&self, bytes: usize) {
        self.backlog_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
