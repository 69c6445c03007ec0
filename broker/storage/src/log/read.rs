//! Reading: planned by the log's owner, run elsewhere.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use weir_protocol::types::{LogId, Offset};
use weir_runtime::disk::{BatchError, Disk, File, OpenMode};

use super::{Log, LogHandle};
use crate::catalog::SlotId;
use crate::error::ReadError;
use crate::journal::Compacted;
use crate::layout;
use crate::segment::{
    Cursor, IndexData, READ_BYTES, ScanRange, SegmentIndex, Span, Step, load, scan, select, store,
};
use crate::store::Shared;
use weir_protocol::partition::epochs::EpochHistory;

/// Most segments that one read goes through.
const SEGMENTS_MAX: usize = 16;

/// Which log a plan is about, and as what its owner had it then.
#[derive(Clone)]
pub(super) struct Planned {
    pub(super) shared: Arc<Shared>,
    pub(super) handle: Arc<LogHandle>,
    pub(super) log: LogId,
    pub(super) slot: SlotId,
    pub(super) generation: u32,
    pub(super) layout: u32,
    pub(super) gaps_below: Offset,
    pub(super) epochs: Arc<EpochHistory>,
    pub(super) interval_bytes: u32,
}

/// A segment that a plan goes through.
#[derive(Clone)]
pub(super) struct PlannedSegment {
    pub(super) base: Offset,
    /// Bytes that are written.
    pub(super) limit: u64,
    /// The offset after the last record in them.
    pub(super) end: Offset,
    /// Of the active segment. Others' are loaded.
    pub(super) index: Option<Arc<SegmentIndex>>,
    /// Whether all of a sealed segment is written: then its index can be kept.
    pub(super) is_whole: bool,
}

/// A read, ready to run.
pub struct ReadPlan {
    planned: Planned,
    offset: Offset,
    below: Offset,
    max_bytes: usize,
    at_least_one: bool,
    segments: Vec<PlannedSegment>,
    /// Appends that may not be written yet.
    unwritten: Vec<(Offset, Vec<Bytes>)>,
}

impl Log {
    /// Plans to read the batches from the one with `offset` on, up to `below`, exclusive, and up to `max_bytes`. With `at_least_one` the
    /// first batch comes even if it is larger.
    ///
    /// # Errors
    /// `OutOfRange` if the offset is below the start or above the end; `Failed` if the folder has failed.
    pub fn read(
        &self,
        offset: Offset,
        max_bytes: usize,
        below: Offset,
        at_least_one: bool,
    ) -> Result<ReadPlan, ReadError> {
        if self.shared.failure().is_some() {
            return Err(ReadError::Failed);
        }
        if offset < self.start || offset > self.end {
            return Err(ReadError::OutOfRange { offset, start: self.start, end: self.end });
        }
        let below = below.min(self.end);
        let mut plan = ReadPlan {
            planned: self.planned(),
            offset,
            below,
            max_bytes,
            at_least_one,
            segments: Vec::new(),
            unwritten: Vec::new(),
        };
        if offset < below {
            plan.segments = self.written_segments(offset, below, max_bytes);
            plan.unwritten = self.unwritten_chunks(offset, below, max_bytes);
        }
        Ok(plan)
    }

    pub(super) fn planned(&self) -> Planned {
        Planned {
            shared: self.shared.clone(),
            handle: self.handle.clone(),
            log: self.id,
            slot: self.slot,
            generation: self.generation,
            layout: self.layout,
            gaps_below: self.compacted.gaps_below,
            epochs: self.epochs.clone(),
            interval_bytes: self.config.index_interval_bytes,
        }
    }

    /// The segments, as far as they are written, that hold `max_bytes` from `offset` on.
    fn written_segments(&self, offset: Offset, below: Offset, max_bytes: usize) -> Vec<PlannedSegment> {
        self.planned_segments(offset, below, max_bytes, SEGMENTS_MAX)
    }

    /// All of them.
    pub(super) fn all_written_segments(&self, offset: Offset, below: Offset) -> Vec<PlannedSegment> {
        self.planned_segments(offset, below, usize::MAX, usize::MAX)
    }

    fn planned_segments(
        &self,
        offset: Offset,
        below: Offset,
        max_bytes: usize,
        segments_max: usize,
    ) -> Vec<PlannedSegment> {
        let written = match self.unwritten.front() {
            Some(append) => (append.segment_base, append.position, append.base_offset),
            None => match self.segments.last() {
                Some(last) => (last.base, last.bytes, self.end),
                None => return Vec::new(),
            },
        };
        let first = self.segments.partition_point(|segment| segment.base <= offset).saturating_sub(1);
        let mut planned = Vec::new();
        let mut bytes = 0;
        for (at, segment) in self.segments.iter().enumerate().skip(first) {
            if segment.base > written.0 || segment.base >= below || planned.len() == segments_max {
                break;
            }
            let (limit, end) = match self.segments.get(at + 1) {
                _ if segment.base == written.0 => (written.1, written.2),
                Some(next) => (segment.bytes, next.base),
                None => (segment.bytes, self.end),
            };
            let is_active = at + 1 == self.segments.len();
            if end > offset && end > segment.base {
                let index = is_active.then(|| self.active.clone());
                let is_whole = segment.base != written.0;
                planned.push(PlannedSegment { base: segment.base, limit, end, index, is_whole });
                // Where in the first one the read begins is not known yet.
                bytes += if planned.len() > 1 { limit } else { 0 };
            }
            if bytes >= max_bytes as u64 {
                break;
            }
        }
        planned
    }

    fn unwritten_chunks(&self, offset: Offset, below: Offset, max_bytes: usize) -> Vec<(Offset, Vec<Bytes>)> {
        let first = self.unwritten.partition_point(|append| append.next_offset <= offset);
        let mut chunks = Vec::new();
        let mut bytes = 0;
        for append in self.unwritten.range(first..) {
            if append.base_offset >= below || bytes >= max_bytes.max(1) {
                break;
            }
            bytes += append.data.iter().map(Bytes::len).sum::<usize>();
            chunks.push((append.base_offset, append.data.clone()));
        }
        chunks
    }
}

impl ReadPlan {
    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.unwritten.is_empty()
    }

    /// Lowers the bound, when other parts of the same answer have used up some of it; `at_least_one` as in [`Log::read`].
    pub fn limit(&mut self, max_bytes: usize, at_least_one: bool) {
        self.max_bytes = self.max_bytes.min(max_bytes);
        self.at_least_one &= at_least_one;
    }

    /// About how many bytes there are to read, as far as that is known without reading; at most the bound.
    pub fn bytes_estimate(&self) -> usize {
        let skipped = |segment: &PlannedSegment| match &segment.index {
            Some(index) if segment.base <= self.offset => index.with(|index| index.floor(self.offset).0),
            _ => 0,
        };
        let written: u64 =
            self.segments.iter().map(|segment| segment.limit.saturating_sub(skipped(segment))).sum();
        let unwritten: usize = self.unwritten.iter().flat_map(|(_, chunks)| chunks).map(Bytes::len).sum();
        usize::try_from(written).unwrap_or(usize::MAX).saturating_add(unwritten).min(self.max_bytes)
    }

    /// Reads: whole batches, one after the other, in any number of chunks. Each batch from disk was checked. Before damage the read
    /// ends; a read that begins at it fails.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn run(self, disk: &Disk) -> Result<Vec<Bytes>, ReadError> {
        let planned = self.planned.clone();
        let batches = self.gather(disk).await?;
        planned.check_layout()?;
        Ok(batches)
    }

    async fn gather(self, disk: &Disk) -> Result<Vec<Bytes>, ReadError> {
        let ReadPlan { planned, offset, below, max_bytes, at_least_one, segments, unwritten } = self;
        let mut out =
            Taken { chunks: Vec::new(), budget: max_bytes, at_least_one, pending: None, next: offset };
        for segment in &segments {
            match read_segment(disk, &planned, segment, offset, below, &mut out).await? {
                Ended::Segment => {}
                Ended::Enough => return Ok(out.finish()),
            }
        }
        out.flush();
        let unwritten_from = unwritten.first().map(|(from, _)| *from);
        if let Some(from) = unwritten_from.filter(|from| !planned.allows_gap(out.next, *from)) {
            planned.corrupt(out.next..from, out.is_empty())?;
            return Ok(out.finish());
        }
        for (_, append) in &unwritten {
            if !select(append, (offset, below), &mut out.budget, at_least_one, &mut out.chunks) {
                break;
            }
        }
        Ok(out.finish())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Segment,
    Enough,
}

/// What a read has gathered.
struct Taken {
    chunks: Vec<Bytes>,
    budget: usize,
    at_least_one: bool,
    /// Batches that lie together in one window.
    pending: Option<Run>,
    /// The offset that comes next.
    next: Offset,
}

struct Run {
    window: Bytes,
    number: u64,
    at: Range<usize>,
}

impl Run {
    fn slice(&self) -> Bytes {
        self.window.slice(self.at.clone())
    }
}

impl Taken {
    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.pending.is_none()
    }

    /// Takes a batch, unless it does not fit.
    fn take(&mut self, (window, number): (&Bytes, u64), at: Range<usize>) -> bool {
        if at.len() > self.budget && !(self.at_least_one && self.is_empty()) {
            return false;
        }
        self.budget = self.budget.saturating_sub(at.len());
        match &mut self.pending {
            Some(run) if run.number == number && run.at.end == at.start => run.at.end = at.end,
            pending => {
                let done = pending.replace(Run { window: window.clone(), number, at });
                self.chunks.extend(done.map(|run| run.slice()));
            }
        }
        true
    }

    fn flush(&mut self) {
        self.chunks.extend(self.pending.take().map(|run| run.slice()));
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.flush();
        self.chunks
    }
}

async fn read_segment(
    disk: &Disk,
    planned: &Planned,
    segment: &PlannedSegment,
    offset: Offset,
    below: Offset,
    out: &mut Taken,
) -> Result<Ended, ReadError> {
    // Windows of different segments are numbered alike.
    out.flush();
    let Some(file) = planned.open(disk, segment).await? else {
        return planned.corrupt(offset.max(segment.base)..segment.end, out.is_empty());
    };
    let index = planned.index(disk, segment, &file).await?;
    let (position, first) = index.with(|index| index.floor(offset));
    let read_bytes = if out.budget < READ_BYTES { out.budget + 8192 } else { READ_BYTES };
    let span = planned.span(segment, position, first);
    let mut cursor = Cursor::new(disk, file, span).with_index(index).with_read_bytes(read_bytes);
    loop {
        match cursor.step().await? {
            Step::Batch { header, at, .. } => {
                if header.next_offset() > below {
                    return Ok(Ended::Enough);
                }
                if header.next_offset() <= offset {
                    continue;
                }
                if !planned.allows_gap(out.next, header.base_offset) {
                    return planned.corrupt(out.next..header.base_offset, out.is_empty());
                }
                if !out.take(cursor.window(), at) {
                    return Ok(Ended::Enough);
                }
                out.next = header.next_offset();
            }
            Step::Damage(range) if range.end <= offset => {}
            Step::Damage(range) if range.start >= below => return Ok(Ended::Enough),
            Step::Damage(range) => {
                return planned.corrupt(range.start.max(offset)..range.end, out.is_empty());
            }
            Step::End => return Ok(Ended::Segment),
        }
    }
}

impl Planned {
    pub(super) fn span(&self, segment: &PlannedSegment, position: u64, offset: Offset) -> Span {
        Span {
            position,
            offset,
            limit: segment.limit,
            end: Some(segment.end),
            gaps_below: self.gaps_below,
            epochs: Some(self.epochs.clone()),
        }
    }

    /// What to answer when the walk meets damage: an error, unless there is something to return first, or the log is not any more what
    /// it was when the read was planned.
    fn corrupt(&self, range: Range<Offset>, is_first: bool) -> Result<Ended, ReadError> {
        self.check_current(range.start)?;
        if !is_first {
            return Ok(Ended::Enough);
        }
        tracing::error!(log = %self.log, from = range.start, to = range.end, "records are damaged");
        Err(ReadError::Corrupt { log: self.log, from: range.start, to: range.end })
    }

    /// Fails if the log was cut since the plan was made: then what the plan meets proves nothing.
    pub(super) fn check_current(&self, offset: Offset) -> Result<(), ReadError> {
        if self.shared.failure().is_some() {
            return Err(ReadError::Failed);
        }
        let was_cut = self.handle.generation() != self.generation || offset < self.handle.start();
        if was_cut || !self.shared.has_log(self.slot) {
            return Err(ReadError::Changed(self.log));
        }
        self.check_layout()
    }

    /// Whether nothing may stand between these offsets.
    fn allows_gap(&self, from: Offset, to: Offset) -> bool {
        Compacted::allows_gap(self.gaps_below, from, to)
    }

    /// Fails if a segment was replaced since the plan was made: index and bytes may be those of different forms of it.
    fn check_layout(&self) -> Result<(), ReadError> {
        if self.handle.layout() == self.layout { Ok(()) } else { Err(ReadError::Changed(self.log)) }
    }

    /// The segment's file; `None` if it is missing.
    pub(super) async fn open(
        &self,
        disk: &Disk,
        segment: &PlannedSegment,
    ) -> Result<Option<File>, ReadError> {
        let key = (self.slot, segment.base);
        let moment = match self.shared.files.get(key) {
            Ok(file) => return Ok(Some(file)),
            Err(moment) => moment,
        };
        match disk.open_file(layout::segment_file(self.log, segment.base), OpenMode::ReadWrite).await {
            Ok((file, _)) => {
                self.shared.files.insert(key, file.clone(), 1, moment);
                Ok(Some(file))
            }
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The segment's index: at hand, from its file, or rebuilt.
    pub(super) async fn index(
        &self,
        disk: &Disk,
        segment: &PlannedSegment,
        file: &File,
    ) -> Result<Arc<SegmentIndex>, BatchError> {
        if let Some(index) = &segment.index {
            return Ok(index.clone());
        }
        let key = (self.slot, segment.base);
        let moment = match self.shared.indexes.get(key) {
            Ok(index) => return Ok(index),
            Err(moment) => moment,
        };
        let loaded = load(disk, self.log, segment.base, &self.epochs).await?;
        // Of a segment that may be compacted, a part of an index may be that of what was there before.
        let has_gaps = segment.base < self.gaps_below;
        let fits = |covered| covered == segment.limit || covered < segment.limit && !has_gaps;
        let usable = loaded.filter(|data| fits(data.covered) && data.next_offset <= segment.end);
        let is_whole = usable.as_ref().is_some_and(|data| has_gaps || data.next_offset == segment.end);
        let data = match usable {
            Some(data) if is_whole => data,
            partial => self.rebuild(disk, segment, file, partial).await?,
        };
        let index = Arc::new(SegmentIndex::new(data));
        if segment.is_whole {
            self.shared.indexes.insert(key, index.clone(), index.memory_bytes(), moment);
        }
        Ok(index)
    }

    async fn rebuild(
        &self,
        disk: &Disk,
        segment: &PlannedSegment,
        file: &File,
        partial: Option<IndexData>,
    ) -> Result<IndexData, BatchError> {
        if segment.base < self.gaps_below {
            // Compaction leaves none.
            tracing::debug!(log = %self.log, segment = segment.base, "the index of a compacted segment is built");
        } else {
            tracing::info!(log = %self.log, segment = segment.base, "the index is missing or wrong: rebuilding it");
        }
        let known = partial.unwrap_or_else(|| IndexData::empty(segment.base));
        let range = ScanRange {
            known,
            limit: segment.limit,
            end: Some(segment.end),
            gaps_below: self.gaps_below,
            epochs: Some(self.epochs.clone()),
            epoch_min: None,
            interval_bytes: self.interval_bytes,
            may_be_torn: false,
        };
        let mut scanned = scan(disk, file.clone(), range).await?;
        scanned.index.stamp(&self.epochs);
        let is_current =
            || self.handle.generation() == self.generation && self.handle.layout() == self.layout;
        if segment.is_whole && is_current() {
            // Whoever comes next finds it. If it cannot be written, it is rebuilt once more.
            if let Err(error) = store(disk, self.log, &scanned.index).await {
                tracing::warn!(log = %self.log, segment = segment.base, %error, "the rebuilt index cannot be written");
            }
            if !is_current() {
                // It may be that of a segment that is no more.
                match disk.remove(layout::index_file(self.log, segment.base)).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(scanned.index)
    }
}
