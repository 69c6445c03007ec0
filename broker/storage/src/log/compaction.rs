//! Compaction (`cleanup.policy=compact`): of the records of a key the last one stays, and a tombstone goes when whoever reads the log
//! has had time to see it (KIP-534).
//!
//! Planned by the log's owner, run elsewhere, and handed back to the owner. What is left of a segment is written beside it, and takes
//! its place when the committer gets there, oldest first: what a tombstone has deleted is gone before the tombstone is. Only sealed
//! segments are compacted that replay of the journal would not write to. Offsets, leader epochs and the borders of batches stay; the
//! last batch stays too, if need be without records, so that a log that is copied ends where the original does.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use weir_protocol::fact::Fact;
use weir_protocol::types::{LogId, Offset};
use weir_runtime::disk::{Disk, File, OpenMode};
use weir_runtime::{simulation, task};
use weir_wire::records::{Batch, BatchHeader, Records, Retained};

use super::read::{Planned, PlannedSegment};
use super::{Log, LogHandle};
use crate::error::ReadError;
use crate::event::Replaced;
use crate::inbox::{Command, Replace, Replacement};
use crate::journal::Compacted;
use crate::layout;
use crate::segment::{Cursor, Step};

/// Most bytes that the records of one batch may decompress to.
const BATCH_BYTES_MAX: usize = 256 << 20;
/// Bytes that are written at a time.
const WRITE_BYTES: usize = 1 << 20;
/// Batches after which others get their turn.
const YIELD_BATCHES: u32 = 64;

/// What a compaction may do.
#[derive(Debug, Clone)]
pub struct CompactionLimits {
    /// Records from here on are left alone: they are not committed.
    pub below: Offset,
    /// The wall clock.
    pub now_ms: i64,
    /// `delete.retention.ms`: how long a tombstone stays after it was first compacted.
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`: records younger than this are left alone.
    pub min_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`: how much of what could be compacted must be new.
    pub dirty_ratio_min: f64,
    /// Compacts whatever the ratio is, and even if nothing is new: tombstones may go.
    pub is_due: bool,
    /// Most keys that are held in memory.
    pub keys_max: usize,
    /// The first offsets of the last batches of producers that are remembered: they stay, if need be without records.
    pub last_batches: BTreeSet<Offset>,
}

/// A compaction, ready to run.
pub struct CompactionPlan {
    planned: Planned,
    /// Oldest first.
    segments: Vec<PlannedSegment>,
    compacted: Compacted,
    limits: CompactionLimits,
}

/// What a compaction has left, to be handed to [`Log::adopt`].
pub struct Cleaned {
    handle: Arc<LogHandle>,
    generation: u32,
    log: LogId,
    segments: Vec<Replacement>,
    compacted: Compacted,
    figures: CompactionFigures,
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionFigures {
    /// Bytes before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
    /// Records that are gone.
    pub records_dropped: u64,
    /// Of those, tombstones that have had their time.
    pub tombstones_dropped: u64,
    /// When the next tombstones may go, by the wall clock in ms.
    pub next_horizon_ms: Option<i64>,
}

impl Log {
    /// Below this offset tombstones may be gone together with what they have deleted: a replica that ends below, and holds records,
    /// would bring back what was deleted.
    pub fn deletions_forgotten_to(&self) -> Offset {
        self.compacted.deletions_forgotten_to
    }

    /// The log is copied from one that has forgotten deletions up to here.
    pub fn forget_deletions_to(&mut self, to: Offset) {
        if to > self.compacted.deletions_forgotten_to {
            self.compacted.deletions_forgotten_to = to;
            let (slot, compacted) = (self.slot, self.compacted);
            self.shared.inbox.push(Command::Compacted { slot, compacted });
        }
    }

    /// The segment to which records are appended, by its base offset, unless it is empty.
    pub fn active_segment(&self) -> Option<Offset> {
        self.segments.last().filter(|last| last.bytes > 0).map(|last| last.base)
    }

    /// Seals the segment to which records are appended, if it has any.
    pub fn seal_segment(&mut self) {
        if self.active_segment().is_some() {
            self.roll(self.end, Some(self.end));
        }
    }

    /// Plans to compact what can be. `None`: nothing, or not now; then what it takes is asked for.
    pub fn compaction(&self, limits: CompactionLimits) -> Option<CompactionPlan> {
        let idle = self.shared.failure().is_none() && self.replacing.is_empty() && self.damaged.is_empty();
        let below = limits.below.min(self.durable_end);
        let sealed = || {
            let ends = self.segments.iter().skip(1).map(|next| next.base);
            self.segments.iter().zip(ends).take_while(|(_, end)| *end <= below)
        };
        let settled = self.handle.settled();
        let is_worth_it = |bound: Offset| {
            let bytes = |is_dirty: bool| -> u64 {
                let within = sealed().filter(|(segment, _)| segment.base < bound);
                within.filter(|(_, end)| (*end > self.compacted.to) == is_dirty).map(|(s, _)| s.bytes).sum()
            };
            let (clean, dirty) = (bytes(false), bytes(true));
            let is_dirty = dirty > 0 && dirty as f64 >= limits.dirty_ratio_min * (clean + dirty) as f64;
            is_dirty || limits.is_due && clean + dirty > 0
        };
        if !idle || !is_worth_it(Offset::MAX) {
            return None;
        }
        if !is_worth_it(settled) {
            self.shared.inbox.push(Command::Settle);
            return None;
        }
        let settled = sealed().filter(|(segment, _)| segment.base < settled && segment.bytes > 0);
        let segments = settled.map(|(segment, end)| PlannedSegment {
            base: segment.base,
            limit: segment.bytes,
            end,
            index: None,
            is_whole: true,
        });
        let segments = segments.collect();
        Some(CompactionPlan { planned: self.planned(), segments, compacted: self.compacted, limits })
    }

    /// Takes what a compaction has left, unless the log was cut meanwhile. The segments change when the committer gets there.
    ///
    /// # Errors
    /// Gives back what does not fit any more.
    pub fn adopt(&mut self, cleaned: Box<Cleaned>) -> Result<(), Box<Cleaned>> {
        if !Arc::ptr_eq(&cleaned.handle, &self.handle) || cleaned.generation != self.generation {
            return Err(cleaned);
        }
        let Cleaned { compacted, mut segments, .. } = *cleaned;
        segments.retain(|segment| self.segments.iter().any(|known| known.base == segment.base));
        let before = Compacted { to: self.compacted.to, ..compacted };
        self.compacted.raise(compacted);
        let (log, below) = (self.id, self.compacted.to);
        simulation::observe(|| Fact::Compacted { log, below });
        self.replacing = segments.iter().map(|segment| segment.base).collect();
        let (slot, after) = (self.slot, self.compacted);
        self.shared.inbox.push(Command::Replace(Replace { slot, segments, before, after }));
        Ok(())
    }

    /// Whether what a compaction has left is still on its way into its place.
    pub fn is_being_replaced(&self) -> bool {
        !self.replacing.is_empty()
    }

    /// A segment was replaced.
    pub fn on_replaced(&mut self, replaced: &Replaced) {
        let Replacement { base, bytes } = replaced.segment;
        self.layout = replaced.layout;
        // One that was cut away meanwhile may have a namesake.
        let Some(at) = self.replacing.iter().position(|other| *other == base) else { return };
        self.replacing.remove(at);
        match self.segments.iter().position(|segment| segment.base == base) {
            Some(at) if bytes > 0 => self.segments[at].bytes = bytes,
            Some(at) => drop(self.segments.remove(at)),
            None => {}
        }
    }
}

impl CompactionPlan {
    /// Compacts. What is left lies beside the segments then.
    ///
    /// # Errors
    /// See [`ReadError`]; `Io` also if there is no room for what is left.
    pub async fn run(self, disk: &Disk) -> Result<Box<Cleaned>, ReadError> {
        let mut keys = self.read_keys(disk).await?;
        let mut cleaned = Box::new(Cleaned {
            handle: self.planned.handle.clone(),
            generation: self.planned.generation,
            log: self.planned.log,
            segments: Vec::new(),
            compacted: self.compacted_to(keys.to),
            figures: CompactionFigures::default(),
        });
        let count = self.segments.iter().take_while(|segment| segment.base < cleaned.compacted.to).count();
        for (at, segment) in self.segments.iter().take(count).enumerate() {
            let is_last = at + 1 == count;
            if let Err(error) = self.clean(disk, segment, &mut keys, is_last, &mut cleaned).await {
                cleaned.discard(disk, segment.base).await;
                return Err(error);
            }
        }
        match self.planned.check_current(self.planned.handle.start()) {
            Ok(()) => Ok(cleaned),
            Err(error) => {
                cleaned.give_up(disk).await;
                Err(error)
            }
        }
    }

    fn compacted_to(&self, to: Offset) -> Compacted {
        let mut compacted = self.compacted;
        compacted.to = compacted.to.max(to);
        compacted.gap_before(to);
        compacted
    }

    /// The last offset of each key in what was not compacted yet.
    async fn read_keys(&self, disk: &Disk) -> Result<Keys, ReadError> {
        let from = self.compacted.to;
        let mut keys = Keys { last: HashMap::new(), to: from };
        let too_young_ms = self.limits.now_ms.saturating_sub(self.limits.min_lag_ms);
        for segment in self.segments.iter().filter(|segment| segment.end > from) {
            let mut walk = Walk::begin(&self.planned, disk, segment, from).await?;
            while let Some(batch) = walk.next().await? {
                let header = &batch.header;
                if header.next_offset() <= from || header.is_control() {
                    continue;
                }
                let is_young = self.limits.min_lag_ms > 0 && header.max_timestamp_ms > too_young_ms;
                if is_young || keys.last.len() >= self.limits.keys_max {
                    keys.to = header.base_offset.max(from);
                    return Ok(keys);
                }
                let records = walk.records(&batch)?;
                for record in &records {
                    let record = record.map_err(|_| walk.corrupt(header))?;
                    if let Some(key) = record.key {
                        keys.last.insert(digest(key), record.offset);
                    }
                }
            }
            keys.to = segment.end;
        }
        Ok(keys)
    }

    /// Writes what is left of a segment, if that is less than all.
    async fn clean(
        &self,
        disk: &Disk,
        segment: &PlannedSegment,
        keys: &mut Keys,
        is_last: bool,
        cleaned: &mut Cleaned,
    ) -> Result<(), ReadError> {
        let mut walk = Walk::begin(&self.planned, disk, segment, segment.base).await?;
        let mut output = Output::new(disk, self.planned.log, segment.base, walk.file.clone());
        // The last batch so far, if it is left without records: it goes when another follows.
        let mut emptied = None;
        while let Some(batch) = walk.next().await? {
            if emptied.take().is_some() {
                output.begin().await?;
            }
            match self.judge(&walk, &batch, keys, cleaned)? {
                Retained::Whole => output.keep(batch.bytes).await?,
                Retained::Part(bytes) => output.replace(bytes).await?,
                Retained::Nothing if self.limits.last_batches.contains(&batch.header.base_offset) => {
                    output.put_emptied(&batch).await?;
                }
                Retained::Nothing => emptied = Some(batch),
            }
        }
        match emptied {
            Some(batch) if is_last => output.put_emptied(&batch).await?,
            Some(_) => output.begin().await?,
            None => {}
        }
        cleaned.figures.bytes_before += segment.limit;
        let bytes = output.finish().await?;
        cleaned.figures.bytes_after += bytes.unwrap_or(segment.limit);
        cleaned.segments.extend(bytes.map(|bytes| Replacement { base: segment.base, bytes }));
        Ok(())
    }

    /// What stays of a batch.
    fn judge(
        &self,
        walk: &Walk<'_>,
        batch: &Batch,
        keys: &Keys,
        cleaned: &mut Cleaned,
    ) -> Result<Retained, ReadError> {
        let header = &batch.header;
        if header.is_control() || header.base_offset >= keys.to {
            return Ok(Retained::Whole);
        }
        if header.count == 0 {
            return Ok(Retained::Nothing);
        }
        let now_ms = self.limits.now_ms;
        // One that was not below a compaction before may have something to delete yet.
        let was_compacted = header.next_offset() <= self.compacted.to;
        let horizon_ms = header.has_delete_horizon().then_some(header.base_timestamp_ms);
        let is_over = was_compacted && horizon_ms.is_some_and(|horizon_ms| horizon_ms <= now_ms);
        let records = walk.records(batch)?;
        let mut has_tombstone = false;
        let mut keep = Vec::with_capacity(header.count as usize);
        for record in &records {
            let record = record.map_err(|_| walk.corrupt(header))?;
            let is_latest = record.key.is_some_and(|key| keys.is_latest(key, record.offset));
            let is_forgotten = is_latest && record.value.is_none() && is_over;
            if is_forgotten {
                cleaned.figures.tombstones_dropped += 1;
                let forgotten = &mut cleaned.compacted.deletions_forgotten_to;
                *forgotten = (*forgotten).max(record.offset + 1);
            }
            let stays = is_latest && !is_forgotten;
            has_tombstone |= stays && record.value.is_none();
            cleaned.figures.records_dropped += u64::from(!stays);
            keep.push(stays);
        }
        let horizon_ms = has_tombstone
            .then(|| horizon_ms.unwrap_or_else(|| now_ms.saturating_add(self.limits.delete_retention_ms)));
        let next = &mut cleaned.figures.next_horizon_ms;
        *next = [*next, horizon_ms].into_iter().flatten().min();
        batch.retain(&records, &keep, horizon_ms).map_err(|_| walk.corrupt(header))
    }
}

impl Cleaned {
    /// What was done.
    pub fn figures(&self) -> CompactionFigures {
        self.figures
    }

    /// Removes what was written for nothing; what cannot be removed goes when the log is opened next.
    async fn discard(&self, disk: &Disk, last: Offset) {
        for base in self.segments.iter().map(|segment| segment.base).chain([last]) {
            let _ = disk.remove(layout::cleaned_file(self.log, base)).await;
        }
    }

    /// Removes it: the log was cut, or closed. Nothing else may compact the log meanwhile, it would write to the same files.
    pub async fn give_up(self, disk: &Disk) {
        if let Some(last) = self.segments.last() {
            self.discard(disk, last.base).await;
        }
    }
}

/// What is known of keys.
struct Keys {
    /// By a digest of 128 bits, so that keys of any length take the same room. Never iterated.
    last: HashMap<u128, Offset>,
    /// Records below were looked at.
    to: Offset,
}

impl Keys {
    fn is_latest(&self, key: &[u8], offset: Offset) -> bool {
        self.last.get(&digest(key)).is_none_or(|last| *last <= offset)
    }
}

fn digest(key: &[u8]) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        hasher.write(key);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

/// A walk over the batches of a segment. Damage ends it.
struct Walk<'a> {
    planned: &'a Planned,
    file: File,
    cursor: Cursor<'a>,
    batches: u32,
}

impl<'a> Walk<'a> {
    async fn begin(
        planned: &'a Planned,
        disk: &'a Disk,
        segment: &PlannedSegment,
        from: Offset,
    ) -> Result<Walk<'a>, ReadError> {
        let Some(file) = planned.open(disk, segment).await? else {
            planned.check_current(segment.base)?;
            return Err(ReadError::Corrupt { log: planned.log, from: segment.base, to: segment.end });
        };
        let (mut position, mut offset) = (0, segment.base);
        if from > segment.base {
            let index = planned.index(disk, segment, &file).await?;
            (position, offset) = index.with(|index| index.floor(from));
        }
        let cursor = Cursor::new(disk, file.clone(), planned.span(segment, position, offset));
        Ok(Walk { planned, file, cursor, batches: 0 })
    }

    async fn next(&mut self) -> Result<Option<Batch>, ReadError> {
        self.batches += 1;
        if self.batches.is_multiple_of(YIELD_BATCHES) {
            task::yield_now().await;
        }
        match self.cursor.step().await? {
            Step::Batch { header, at, .. } => {
                Ok(Some(Batch { header, bytes: self.cursor.window().0.slice(at) }))
            }
            Step::Damage(range) => {
                self.planned.check_current(range.start)?;
                Err(ReadError::Corrupt { log: self.planned.log, from: range.start, to: range.end })
            }
            Step::End => Ok(None),
        }
    }

    fn records(&self, batch: &Batch) -> Result<Records, ReadError> {
        batch.records(BATCH_BYTES_MAX).map_err(|_| self.corrupt(&batch.header))
    }

    /// Its checksum is right, and yet it cannot be read.
    fn corrupt(&self, header: &BatchHeader) -> ReadError {
        ReadError::Corrupt { log: self.planned.log, from: header.base_offset, to: header.next_offset() }
    }
}

/// What is left of a segment. Nothing is written as long as that is all.
struct Output<'a> {
    disk: &'a Disk,
    log: LogId,
    base: Offset,
    source: File,
    /// Bytes at the segment's beginning that stay, while nothing was written.
    unchanged: u64,
    /// Where it is written to, once something is.
    file: Option<File>,
    written: u64,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
}

impl<'a> Output<'a> {
    fn new(disk: &'a Disk, log: LogId, base: Offset, source: File) -> Output<'a> {
        Output {
            disk,
            log,
            base,
            source,
            unchanged: 0,
            file: None,
            written: 0,
            waiting: Vec::new(),
            waiting_bytes: 0,
        }
    }

    async fn keep(&mut self, bytes: Bytes) -> Result<(), ReadError> {
        match self.file {
            Some(_) => self.push(bytes).await,
            None => {
                self.unchanged += bytes.len() as u64;
                Ok(())
            }
        }
    }

    async fn replace(&mut self, bytes: Bytes) -> Result<(), ReadError> {
        self.begin().await?;
        self.push(bytes).await
    }

    async fn put_emptied(&mut self, batch: &Batch) -> Result<(), ReadError> {
        if batch.header.count == 0 {
            self.keep(batch.bytes.clone()).await
        } else {
            self.replace(batch.emptied()).await
        }
    }

    /// Something changes: what came before it is copied.
    async fn begin(&mut self) -> Result<(), ReadError> {
        if self.file.is_some() {
            return Ok(());
        }
        let path = layout::cleaned_file(self.log, self.base);
        let (file, _) = self.disk.open_file(path, OpenMode::Create).await?;
        self.disk.truncate(&file, 0).await?;
        self.file = Some(file);
        let mut position = 0;
        while position < self.unchanged {
            let len = usize::try_from(self.unchanged - position).unwrap_or(usize::MAX).min(WRITE_BYTES);
            let bytes = self.disk.read(&self.source, position, len).await?;
            if bytes.is_empty() {
                return Err(ReadError::Changed(self.log));
            }
            position += bytes.len() as u64;
            self.push(bytes).await?;
        }
        Ok(())
    }

    async fn push(&mut self, bytes: Bytes) -> Result<(), ReadError> {
        self.waiting_bytes += bytes.len();
        self.waiting.push(bytes);
        if self.waiting_bytes >= WRITE_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), ReadError> {
        let Some(file) = self.file.as_ref().filter(|_| self.waiting_bytes > 0) else { return Ok(()) };
        self.disk.write(file, self.written, std::mem::take(&mut self.waiting)).await?;
        self.written += std::mem::take(&mut self.waiting_bytes) as u64;
        Ok(())
    }

    /// Makes it durable. Returns its size, if it is not the whole segment.
    async fn finish(mut self) -> Result<Option<u64>, ReadError> {
        self.flush().await?;
        let Some(file) = self.file else { return Ok(None) };
        self.disk.sync(&file).await?;
        Ok(Some(self.written))
    }
}
