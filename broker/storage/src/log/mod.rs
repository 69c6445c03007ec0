//! A log as its owner has it: appends, truncations and the plans of reads. Nothing in here waits.

mod compaction;
mod cut;
mod open;
mod read;
mod time;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use bytes::Bytes;
use weir_protocol::fact::{BatchName, Fact};
use weir_protocol::partition::producers::{ProducerId, Producers};
use weir_protocol::types::{LeaderEpoch, LogId, Offset};
use weir_runtime::simulation;
use weir_wire::records;

use crate::append::AppendInfo;
use crate::catalog::SlotId;
use crate::config::{Flush, LogConfig};
use crate::error::StorageError;
use crate::event::{AppendFailed, Cut, Durable};
use crate::inbox::{Append, Command};
use crate::journal::Compacted;
use crate::segment::{IndexData, Noted, SegmentIndex};
use crate::store::{Lease, Shared};
use weir_protocol::partition::epochs::EpochHistory;

pub use compaction::{Cleaned, CompactionFigures, CompactionLimits, CompactionPlan};
pub(crate) use open::{Opening, open};
pub use read::ReadPlan;
pub use time::{TimePlan, TimestampOffset};

/// One log. It has one owner; its methods never wait and take no part in I/O.
pub struct Log {
    id: LogId,
    slot: SlotId,
    shared: Arc<Shared>,
    _lease: Arc<Lease>,
    handle: Arc<LogHandle>,
    config: LogConfig,
    /// Invariant: `start <= durable_end <= end`, and `segments[0].base <= start` unless the log has no segment before it.
    start: Offset,
    end: Offset,
    durable_end: Offset,
    epochs: Arc<EpochHistory>,
    /// Invariant: rising bases, never empty; the last one is the active one.
    segments: Vec<Segment>,
    active: Arc<SegmentIndex>,
    /// What is not known to be written yet, oldest first. Reads get it from here.
    unwritten: VecDeque<Unwritten>,
    /// Counts cuts. What the store reports about earlier ones no longer describes this log.
    generation: u32,
    /// Cuts that are not durable yet: their generation and the end that they left.
    pending_cuts: Vec<(u32, Offset)>,
    /// How far it is compacted.
    compacted: Compacted,
    /// Counts replacements of segments, as far as the log knows of them.
    layout: u32,
    /// Segments whose compacted form is on its way: what is known of places in them will not be true.
    replacing: Vec<Offset>,
    damaged: Vec<Range<Offset>>,
    /// As they were when the log was opened, until the owner takes them.
    producers: Producers,
}

/// What a log shares with the plans that it made, and with the committer.
#[derive(Debug)]
pub(crate) struct LogHandle {
    /// See [`Log`]'s field.
    generation: AtomicU32,
    start: AtomicI64,
    /// Counts replacements of segments.
    layout: AtomicU32,
    /// The journal has nothing that replay would write to segments below.
    settled: AtomicI64,
}

/// A segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) base: Offset,
    /// Bytes that belong to the log. Of a sealed segment that was cut: at least those.
    pub(crate) bytes: u64,
}

struct Unwritten {
    base_offset: Offset,
    next_offset: Offset,
    segment_base: Offset,
    position: u64,
    data: Vec<Bytes>,
}

impl Log {
    /// The log's name.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// Offset of the first record that is retained.
    pub fn start(&self) -> Offset {
        self.start
    }

    /// The offset that the next record gets.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Up to here records are durable as the log's flush policy has it, as far as the store has reported.
    pub fn durable_end(&self) -> Offset {
        self.durable_end
    }

    /// Which leader epoch began where.
    pub fn epochs(&self) -> &EpochHistory {
        &self.epochs
    }

    /// The log's settings.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Ranges of offsets that were found damaged when the log was opened (contract 7). Damage that comes to light later is told by
    /// reads.
    pub fn damaged(&self) -> &[Range<Offset>] {
        &self.damaged
    }

    /// The producers of the log's batches as they were when it was opened, once: the owner keeps them from there on.
    pub fn take_producers(&mut self) -> Producers {
        std::mem::take(&mut self.producers)
    }

    /// Forgets producers: the next checkpoint is without them.
    pub fn forget_producers(&mut self, producers: Vec<ProducerId>) {
        self.shared.inbox.push(Command::ForgetProducers { slot: self.slot, producers });
    }

    /// Whether recovery knew the log's end for certain (contract 5).
    pub fn is_certain(&self) -> bool {
        self.config.flush == Flush::Sync && self.shared.is_certain()
    }

    /// Bytes of all segments together.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The segments, oldest first: base offset and bytes. For retention, which moves the log's start to a base.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = (Offset, u64)> {
        self.segments.iter().map(|segment| (segment.base, segment.bytes))
    }

    /// Takes new settings; they count from the next append on. A changed flush policy counts when the log is opened next.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = LogConfig { flush: self.config.flush, ..config };
    }

    /// Appends batches. They are in the log at once; [`crate::StoreEvent::Durable`] says when they are durable.
    ///
    /// `data` are the batches' bytes in any number of chunks, with base offsets and leader epoch filled in.
    ///
    /// # Errors
    /// `Misplaced` if offsets, epoch or size do not fit; `Backlog` if too much waits already; `FolderFailed`, `Closed`. Nothing is
    /// appended then.
    pub fn append(&mut self, data: Vec<Bytes>, info: AppendInfo) -> Result<(), StorageError> {
        self.shared.check_running()?;
        self.check(&data, &info)?;
        let backlog_bytes = self.shared.inbox.backlog_bytes();
        if backlog_bytes > self.shared.config.backlog_bytes_max {
            return Err(StorageError::Backlog { backlog_bytes });
        }
        let bytes = u64::from(info.bytes);
        if info.base_offset < self.end && self.segments.iter().any(|segment| segment.bytes > 0) {
            self.empty();
        }
        if self.must_roll(&info) {
            self.roll(info.base_offset, None);
        }
        let Some(segment) = self.segments.last_mut() else { return Err(self.misplaced(&info, "no segment")) };
        let (segment_base, position) = (segment.base, segment.bytes);
        segment.bytes += bytes;
        let (base_offset, next_offset) = (info.base_offset, info.next_offset());
        let max_timestamp_ms = info.max_timestamp_ms;
        let noted = Noted { base_offset, next_offset, position, bytes, max_timestamp_ms };
        self.active.with(|index| index.note(noted, self.config.index_interval_bytes));
        if self.epochs.latest().is_none_or(|latest| latest.epoch != info.leader_epoch) {
            Arc::make_mut(&mut self.epochs).begin(info.leader_epoch, base_offset.max(self.start));
        }
        let gap = base_offset > self.end;
        if gap {
            self.note_gap(base_offset);
        }
        self.end = next_offset;
        self.unwritten.push_back(Unwritten {
            base_offset,
            next_offset,
            segment_base,
            position,
            data: data.clone(),
        });
        simulation::observe(|| Fact::Appended { log: self.id, batches: names(&data) });
        self.shared.inbox.add_backlog(info.bytes as usize);
        self.shared.inbox.push(Command::Append(Append {
            slot: self.slot,
            leader_epoch: info.leader_epoch,
            base_offset,
            next_offset,
            segment_base,
            position,
            max_timestamp_ms,
            bytes: info.bytes,
            gap,
            data,
            producers: info.producers,
        }));
        Ok(())
    }

    /// The leader's log has a gap. Recovery must tell it from records that are lost.
    fn note_gap(&mut self, before: Offset) {
        self.compacted.gap_before(before);
        let (slot, compacted) = (self.slot, self.compacted);
        self.shared.inbox.push(Command::Compacted { slot, compacted });
    }

    fn check(&self, data: &[Bytes], info: &AppendInfo) -> Result<(), StorageError> {
        let bytes: usize = data.iter().map(Bytes::len).sum();
        let latest_epoch = self.epochs.latest().map_or(-1, |latest| latest.epoch);
        let problem = if info.base_offset < self.end && !self.begins_within(info) {
            format!("the log ends at {}", self.end)
        } else if info.last_offset < info.base_offset {
            format!("it ends at {}", info.last_offset)
        } else if bytes != info.bytes as usize || bytes == 0 {
            format!("{bytes} bytes were announced as {}", info.bytes)
        } else if bytes > self.shared.append_bytes_max {
            format!("{bytes} bytes are more than {}", self.shared.append_bytes_max)
        } else if info.leader_epoch < latest_epoch {
            format!("epoch {} is below {latest_epoch}", info.leader_epoch)
        } else {
            return Ok(());
        };
        Err(self.misplaced(info, problem))
    }

    /// Whether these are the first records of a log whose start lies within a batch: deleted records are no batch's end.
    fn begins_within(&self, info: &AppendInfo) -> bool {
        self.start == self.end && info.last_offset >= self.start
    }

    fn misplaced(&self, info: &AppendInfo, reason: impl Into<String>) -> StorageError {
        StorageError::Misplaced { log: self.id, base_offset: info.base_offset, reason: reason.into() }
    }

    fn must_roll(&self, info: &AppendInfo) -> bool {
        let Some(segment) = self.segments.last() else { return false };
        let bytes = segment.bytes + u64::from(info.bytes);
        let too_large = segment.bytes > 0 && bytes > u64::from(self.config.segment_bytes);
        let too_long = info.last_offset - segment.base > Offset::from(i32::MAX);
        // An empty log whose leader's begins later.
        let moved = segment.bytes == 0 && segment.base != info.base_offset;
        too_large || too_long || moved
    }

    /// Goes on in a new segment. `empty_at`: nothing is appended to it yet.
    fn roll(&mut self, base: Offset, empty_at: Option<Offset>) {
        let active = Arc::new(SegmentIndex::new(IndexData::empty(base)));
        let sealed = std::mem::replace(&mut self.active, active.clone());
        sealed.with(|index| index.stamp(&self.epochs));
        if self.segments.last().is_some_and(|segment| segment.bytes == 0) {
            self.segments.pop();
        } else if let Some(last) = self.segments.last() {
            let weight = sealed.memory_bytes();
            self.shared.indexes.replace((self.slot, last.base), sealed.clone(), weight);
        }
        self.segments.push(Segment { base, bytes: 0 });
        self.shared.inbox.push(Command::Roll { slot: self.slot, sealed, active, empty_at });
    }

    /// Records that a leader epoch begins at the log's end (KAFKA-7415: also if nothing is ever written in it). Journalled with the
    /// next round; an epoch that is not above the latest one changes nothing.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) {
        let is_news = self.epochs.latest().is_none_or(|latest| latest.epoch < epoch);
        if is_news && Arc::make_mut(&mut self.epochs).begin(epoch, self.end) {
            self.shared.inbox.push(Command::Epoch { slot: self.slot, epoch, start: self.end });
        }
    }

    /// A round is complete. Returns the durable end if it has moved; `None` if it has not, or if the log was cut since.
    pub fn on_durable(&mut self, durable: &Durable) -> Option<Offset> {
        if durable.generation != self.generation || durable.end <= self.durable_end {
            return None;
        }
        self.set_durable(durable.end);
        Some(self.durable_end)
    }

    /// A cut is durable. Returns the durable end if it has moved.
    pub fn on_cut(&mut self, cut: &Cut) -> Option<Offset> {
        self.pending_cuts.retain(|(generation, _)| *generation > cut.generation);
        if cut.generation != self.generation {
            return None;
        }
        if cut.end <= self.durable_end {
            // A start beyond the end counts at once; that it is kept as well is news.
            simulation::observe(|| Fact::Kept { log: self.id, end: self.durable_end });
            return None;
        }
        self.set_durable(cut.end);
        Some(self.durable_end)
    }

    fn set_durable(&mut self, end: Offset) {
        self.durable_end = end.min(self.end);
        simulation::observe(|| Fact::Kept { log: self.id, end: self.durable_end });
        while self.unwritten.front().is_some_and(|append| append.next_offset <= self.durable_end) {
            self.unwritten.pop_front();
        }
    }

    /// Appends failed and were cut. Returns the log's new end, from which on everything is gone; `None` if a truncation had removed all
    /// that failed before. After this the log accepts appends again.
    ///
    /// The leader epoch must not go on: (epoch, offset) names one record for ever (contract 4), and what was cut may have been read by
    /// followers.
    pub fn on_append_failed(&mut self, failed: &AppendFailed) -> Option<Offset> {
        let overtaken =
            |(generation, end): &(u32, Offset)| *generation > failed.generation && *end <= failed.from;
        if self.pending_cuts.iter().any(overtaken) || failed.generation > self.generation {
            return None;
        }
        self.cut_failed(failed.from);
        Some(self.end)
    }
}

/// What the batches are known by, for whoever watches a simulation.
fn names(data: &[Bytes]) -> Vec<BatchName> {
    let batches = records::batches(Bytes::from(data.concat())).flatten();
    let name = |batch: records::Batch| {
        let header = batch.header;
        let (base, next) = (header.base_offset, header.next_offset());
        BatchName { base, next, epoch: header.leader_epoch, checksum: header.crc }
    };
    batches.map(name).collect()
}

impl LogHandle {
    fn new(start: Offset) -> LogHandle {
        LogHandle {
            generation: AtomicU32::new(0),
            start: AtomicI64::new(start),
            layout: AtomicU32::new(0),
            settled: AtomicI64::new(Offset::MIN),
        }
    }

    fn layout(&self) -> u32 {
        self.layout.load(Ordering::Acquire)
    }

    /// A segment is about to be replaced: reads that were planned before prove nothing any more. Returns how many were.
    pub(crate) fn begin_layout(&self) -> u32 {
        self.layout.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn settled(&self) -> Offset {
        self.settled.load(Ordering::Acquire)
    }

    /// A checkpoint is durable.
    pub(crate) fn settle(&self, base: Offset) {
        self.settled.store(base, Ordering::Release);
    }

    /// The journal may write to this segment again.
    pub(crate) fn unsettle(&self, base: Offset) {
        self.settled.fetch_min(base, Ordering::AcqRel);
    }

    fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    fn start(&self) -> Offset {
        self.start.load(Ordering::Acquire)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.release(self.slot);
        self.shared.inbox.push(Command::Close { slot: self.slot });
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("id", &self.id)
            .field("start", &self.start)
            .field("durable_end", &self.durable_end)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
