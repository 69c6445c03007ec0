//! A round while it is gathered.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use weir_protocol::partition::producers::ProducerBatch;
use weir_protocol::types::{LeaderEpoch, LogId, Offset};

use crate::StorageError;
use crate::catalog::SlotId;
use crate::inbox::{Append, CutPlace, Replace};
use crate::journal::Entry;
use crate::segment::IndexData;

/// What becomes durable together.
#[derive(Default)]
pub(super) struct Round {
    /// For the journal, in order.
    pub(super) entries: Vec<Entry>,
    /// For the segments, in order.
    pub(super) writes: Vec<SegmentWrite>,
    /// The logs with appends, each once, in the order of their first.
    pub(super) touched: Vec<Touched>,
    /// Leader epochs that begin.
    pub(super) epochs: Vec<(SlotId, LeaderEpoch, Offset)>,
    /// Batches that have a producer, in the order of their offsets for each log.
    pub(super) producers: Vec<(SlotId, ProducerBatch)>,
    pub(super) cuts: Vec<RoundCut>,
    pub(super) starts: Vec<RoundStart>,
    pub(super) deletions: Vec<Deletion>,
    /// Logs that go on in a new segment to which nothing is appended yet, and its base offset.
    pub(super) rolls: Vec<(SlotId, Offset)>,
    pub(super) replaces: Vec<Replace>,
    /// Indexes of segments that were sealed, to be written in the background.
    pub(super) sealed: Vec<(LogId, IndexData)>,
    pub(super) barriers: Vec<oneshot::Sender<()>>,
    /// Of `entries` as the journal takes them, nearly.
    pub(super) journal_bytes: usize,
    /// Of appends.
    pub(super) append_bytes: usize,
    pub(super) appends: u64,
}

/// Contiguous bytes for one segment.
pub(super) struct SegmentWrite {
    pub(super) slot: SlotId,
    pub(super) log: LogId,
    pub(super) segment_base: Offset,
    pub(super) position: u64,
    pub(super) bytes: u64,
    /// The first offset in them.
    pub(super) from: Offset,
    pub(super) data: Vec<Bytes>,
}

/// A log with appends in the round, and where it ends after them.
pub(super) struct Touched {
    pub(super) slot: SlotId,
    pub(super) port: u32,
    pub(super) generation: u32,
    pub(super) end: Offset,
    pub(super) segment_base: Offset,
    pub(super) position: u64,
    /// There is a gap below this offset; 0 if there is none.
    pub(super) gaps_below: Offset,
    /// The place of the log's latest write in [`Round::writes`].
    pub(super) last_write: usize,
}

/// A log that is cut.
pub(super) struct RoundCut {
    pub(super) slot: SlotId,
    pub(super) log: LogId,
    pub(super) port: u32,
    pub(super) os: bool,
    pub(super) generation: u32,
    pub(super) end: Offset,
    pub(super) segment_base: Offset,
    pub(super) place: CutPlace,
    pub(super) removed: Vec<Offset>,
    /// Its place in [`Round::entries`], if it is journalled.
    pub(super) entry: Option<usize>,
    /// What was cut because it could not be written, and why.
    pub(super) failed: Option<Arc<StorageError>>,
}

/// A log that begins later.
pub(super) struct RoundStart {
    pub(super) slot: SlotId,
    pub(super) log: LogId,
    pub(super) port: u32,
    pub(super) generation: u32,
    pub(super) start: Offset,
    pub(super) removed: Vec<Offset>,
}

/// A log that goes.
pub(super) struct Deletion {
    pub(super) slot: Option<SlotId>,
    pub(super) log: LogId,
    pub(super) reply: oneshot::Sender<Result<(), StorageError>>,
}

/// Bytes that the journal takes for an entry besides its data, at most.
pub(super) const ENTRY_BYTES: usize = 96;

impl Round {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
            && self.writes.is_empty()
            && self.cuts.is_empty()
            && self.starts.is_empty()
            && self.deletions.is_empty()
            && self.sealed.is_empty()
            && self.rolls.is_empty()
            && self.replaces.is_empty()
            && self.barriers.is_empty()
    }

    /// Whether another entry with so many bytes finds room. The first always does.
    pub(super) fn has_room(&self, data_bytes: usize, round_max: usize) -> bool {
        self.is_empty() || self.journal_bytes.max(self.append_bytes) + data_bytes + ENTRY_BYTES <= round_max
    }

    pub(super) fn push_entry(&mut self, entry: Entry, data_bytes: usize) {
        self.journal_bytes += ENTRY_BYTES + data_bytes;
        self.entries.push(entry);
    }

    /// Adds an append. `touched` is the log's place in [`Round::touched`], if it is there.
    pub(super) fn push_append(&mut self, append: Append, by: By, touched: Option<usize>) -> usize {
        let Append { slot, base_offset, next_offset, segment_base, position, bytes, .. } = append;
        let end_position = position + u64::from(bytes);
        let gaps_below = if append.gap { base_offset } else { 0 };
        self.append_bytes += bytes as usize;
        self.appends += 1;
        let place = touched.unwrap_or(self.touched.len());
        let last_write = self.write_for(&append, by.log, touched.map(|place| self.touched[place].last_write));
        match self.touched.get_mut(place) {
            Some(touched) => {
                (touched.end, touched.segment_base, touched.position) =
                    (next_offset, segment_base, end_position);
                touched.last_write = last_write;
                touched.gaps_below = touched.gaps_below.max(gaps_below);
            }
            None => self.touched.push(Touched {
                slot,
                port: by.port,
                generation: by.generation,
                end: next_offset,
                segment_base,
                position: end_position,
                gaps_below,
                last_write,
            }),
        }
        self.producers.extend(append.producers.iter().map(|batch| (slot, *batch)));
        let data = append.data;
        if !by.os {
            let write = &mut self.writes[last_write];
            write.data.extend(data.iter().cloned());
            let entry = Entry::Append {
                log: by.log,
                leader_epoch: append.leader_epoch,
                base_offset,
                next_offset,
                segment_base,
                position,
                max_timestamp_ms: append.max_timestamp_ms,
                data,
            };
            self.push_entry(entry, bytes as usize);
        } else {
            self.writes[last_write].data.extend(data);
        }
        place
    }

    /// The write that takes the append's bytes: the log's last one if they follow on it.
    fn write_for(&mut self, append: &Append, log: LogId, last: Option<usize>) -> usize {
        if let Some(last) = last {
            let write = &mut self.writes[last];
            if write.segment_base == append.segment_base && write.position + write.bytes == append.position {
                write.bytes += u64::from(append.bytes);
                return last;
            }
        }
        self.writes.push(SegmentWrite {
            slot: append.slot,
            log,
            segment_base: append.segment_base,
            position: append.position,
            bytes: u64::from(append.bytes),
            from: append.base_offset,
            data: Vec::new(),
        });
        self.writes.len() - 1
    }
}

/// For traces: where each log's bytes go, and what else happens to it.
impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for write in &self.writes {
            let SegmentWrite { log, segment_base, position, bytes, from, .. } = write;
            write!(f, "[{log} {from}.. at {segment_base}:{position}+{bytes}]")?;
        }
        for cut in &self.cuts {
            let failed = if cut.failed.is_some() { " failed" } else { "" };
            let RoundCut { log, end, segment_base, place, removed, .. } = cut;
            write!(f, "[{log} cut to {end} at {segment_base}:{place:?}, without {removed:?}{failed}]")?;
        }
        for start in &self.starts {
            write!(f, "[{} starts at {}]", start.log, start.start)?;
        }
        for deletion in &self.deletions {
            write!(f, "[{} deleted]", deletion.log)?;
        }
        Ok(())
    }
}

/// Whose append it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct By {
    pub(super) log: LogId,
    pub(super) port: u32,
    pub(super) os: bool,
    pub(super) generation: u32,
}
