//! The sparse index of one segment, in memory: offsets and timestamps to positions.

use std::sync::Mutex;

use weir_protocol::types::{LeaderEpoch, Offset};

use crate::cache::lock;
use weir_protocol::partition::epochs::EpochHistory;

/// A place in a segment where a batch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Offset of the batch, less the segment's base.
    pub(crate) relative_offset: u32,
    /// Where it begins.
    pub(crate) position: u32,
    /// Not below any timestamp of the batches before it in the segment; `i64::MIN` at the beginning.
    pub(crate) max_timestamp_before: i64,
}

/// What an index says of its segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexData {
    pub(crate) base: Offset,
    /// Invariant: offsets and positions rise strictly, timestamps do not fall.
    pub(crate) entries: Vec<IndexEntry>,
    /// Bytes of the segment that the index knows.
    pub(crate) covered: u64,
    /// The offset after the last record below `covered`.
    pub(crate) next_offset: Offset,
    /// Not below any timestamp in the segment; `i64::MIN` without records.
    pub(crate) timestamp_bound: i64,
    /// Where the append with the largest timestamp begins; `None` after a cut, when only the bound is known.
    pub(crate) largest_at: Option<u64>,
    /// In a file: the leader epoch of the last record below `next_offset`. (Epoch, offset) names one record for ever, so an index
    /// from before a cut, of a segment that has grown again, gives itself away.
    pub(crate) last_epoch: Option<LeaderEpoch>,
}

impl IndexData {
    /// The index of an empty segment.
    pub(crate) fn empty(base: Offset) -> IndexData {
        IndexData {
            base,
            entries: Vec::new(),
            covered: 0,
            next_offset: base,
            timestamp_bound: i64::MIN,
            largest_at: Some(0),
            last_epoch: None,
        }
    }

    /// Says under which history it was made, before it is written to a file.
    pub(crate) fn stamp(&mut self, epochs: &EpochHistory) {
        self.last_epoch = epochs.epoch_at(self.next_offset - 1);
    }

    /// Whether an index from a file describes a segment of a log with these epochs.
    pub(crate) fn is_of(&self, epochs: &EpochHistory) -> bool {
        self.covered == 0 || self.last_epoch == epochs.epoch_at(self.next_offset - 1)
    }

    /// Takes note of batches that begin at `position`.
    pub(crate) fn note(&mut self, noted: Noted, interval_bytes: u32) {
        let Noted { base_offset, next_offset, position, bytes, max_timestamp_ms } = noted;
        let due = match self.entries.last() {
            Some(last) => position - u64::from(last.position) >= u64::from(interval_bytes),
            None => true,
        };
        // A gap always has an entry: within the range of one entry, each batch begins where the last one ended.
        if due || base_offset != self.next_offset {
            self.entries.push(IndexEntry {
                relative_offset: (base_offset - self.base) as u32,
                position: position as u32,
                max_timestamp_before: self.timestamp_bound,
            });
        }
        if max_timestamp_ms > self.timestamp_bound {
            self.timestamp_bound = max_timestamp_ms;
            self.largest_at = Some(position);
        }
        self.covered = position + bytes;
        self.next_offset = next_offset;
    }

    /// The last known batch that begins at or below `offset`: its position and offset.
    pub(crate) fn floor(&self, offset: Offset) -> (u64, Offset) {
        let after = self.entries.partition_point(|entry| self.offset_of(entry) <= offset);
        self.place(after)
    }

    /// Where to begin a search for the first record with a timestamp of at least `timestamp_ms`.
    pub(crate) fn floor_by_time(&self, timestamp_ms: i64) -> (u64, Offset) {
        let after = self.entries.partition_point(|entry| entry.max_timestamp_before < timestamp_ms);
        self.place(after)
    }

    /// The first known batch that begins above `position`, with its offset.
    pub(crate) fn above(&self, position: u64) -> Option<(u64, Offset)> {
        let after = self.entries.partition_point(|entry| u64::from(entry.position) <= position);
        self.entries.get(after).map(|entry| (u64::from(entry.position), self.offset_of(entry)))
    }

    /// Forgets what begins at or behind `position`, where `next_offset` comes next.
    pub(crate) fn cut(&mut self, position: u64, next_offset: Offset) {
        let keep = self.entries.partition_point(|entry| u64::from(entry.position) < position);
        if let Some(first_cut) = self.entries.get(keep) {
            // What lay before the first forgotten entry is a bound for what lies before the cut.
            self.timestamp_bound = first_cut.max_timestamp_before;
        }
        self.entries.truncate(keep);
        if self.largest_at.is_none_or(|at| at >= position) {
            self.largest_at = None;
        }
        self.covered = self.covered.min(position);
        self.next_offset = next_offset;
        if position == 0 {
            *self = IndexData::empty(self.base);
        }
    }

    fn offset_of(&self, entry: &IndexEntry) -> Offset {
        self.base + Offset::from(entry.relative_offset)
    }

    fn place(&self, after: usize) -> (u64, Offset) {
        match after.checked_sub(1).and_then(|at| self.entries.get(at)) {
            Some(entry) => (u64::from(entry.position), self.offset_of(entry)),
            None => (0, self.base),
        }
    }
}

/// Batches for the index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noted {
    pub(crate) base_offset: Offset,
    pub(crate) next_offset: Offset,
    pub(crate) position: u64,
    pub(crate) bytes: u64,
    pub(crate) max_timestamp_ms: i64,
}

/// An index that its log extends and others read: the log's shard, plans that run elsewhere, and whoever writes its file. Locked for a
/// few instructions at a time.
#[derive(Debug)]
pub(crate) struct SegmentIndex {
    data: Mutex<IndexData>,
}

impl SegmentIndex {
    pub(crate) fn new(data: IndexData) -> SegmentIndex {
        SegmentIndex { data: Mutex::new(data) }
    }

    /// Runs `f` on the content.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut IndexData) -> T) -> T {
        f(&mut lock(&self.data))
    }

    /// Memory that it takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.with(|data| size_of::<SegmentIndex>() + data.entries.capacity() * size_of::<IndexEntry>())
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
