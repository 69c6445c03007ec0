//! What is known of every log in the folder: the content of the checkpoint, kept up to date round by round.

use std::collections::BTreeMap;

use weir_protocol::partition::producers::Producers;
use weir_protocol::types::{LogId, Offset};

use crate::journal::Compacted;

use weir_protocol::partition::epochs::EpochHistory;

/// The place of a log in the catalog. Never reused while the store is open.
pub(crate) type SlotId = u32;

/// How far a log's end is known without looking at its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// `end` is the durable end: what lies beyond was never acknowledged.
    Known,
    /// At least up to `end`; what follows on it in valid batches belongs to the log too, and the rest is a torn tail (`os` logs
    /// after an unclean stop; all logs if the journal's tail is uncertain).
    AtLeast,
    /// At least up to `end`; no round of the journal tells of what followed, or it is damaged, so that all valid batches beyond belong to
    /// the log, and what is missing between them is damage.
    Damaged,
    /// Nothing is known but the log's existence: the checkpoint was lost.
    Unknown,
}

/// The durable state of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogState {
    /// Whether its appends bypass the journal.
    pub(crate) os: bool,
    pub(crate) start: Offset,
    /// Invariant: `start <= end` if the tail is known.
    pub(crate) end: Offset,
    /// The segment in which the log ends.
    pub(crate) segment_base: Offset,
    /// Bytes of that segment that belong to the log.
    pub(crate) position: u64,
    /// A damaged round of the journal is known to have moved the end here: if the log turns out shorter, records are missing.
    pub(crate) end_at_least: Offset,
    pub(crate) epochs: EpochHistory,
    /// Whoever appended the batches below the end, as far as it counts.
    pub(crate) producers: Producers,
    pub(crate) compacted: Compacted,
    pub(crate) tail: Tail,
    /// Whether start and epochs must be read from the segments: the checkpoint was lost.
    pub(crate) rebuild: bool,
}

impl LogState {
    /// A log without records.
    pub(crate) fn empty() -> LogState {
        LogState {
            os: false,
            start: 0,
            end: 0,
            segment_base: 0,
            position: 0,
            end_at_least: 0,
            epochs: EpochHistory::new(),
            producers: Producers::default(),
            compacted: Compacted::default(),
            tail: Tail::Known,
            rebuild: false,
        }
    }

    /// Whether batches that begin here are what comes next. Otherwise there are others before them, of which no round of the journal
    /// tells: an earlier start has found them in the segments, or their round is damaged.
    pub(crate) fn follows(&mut self, base_offset: Offset, segment_base: Offset, position: u64) -> bool {
        if segment_base == self.segment_base && position == self.position && base_offset > self.end {
            self.compacted.gap_before(base_offset);
        }
        self.tail == Tail::Unknown || Compacted::allows_gap(self.compacted.gaps_below, self.end, base_offset)
    }

    /// The log is known to reach this end, and not what lies before: opening it reads that.
    pub(crate) fn know_end(&mut self, end: Offset) {
        self.end_at_least = self.end_at_least.max(end);
        self.tail = Tail::Damaged;
    }

    /// The log ends at `end` now, at `position` of segment `segment_base`.
    pub(crate) fn cut(&mut self, end: Offset, segment_base: Offset, position: u64) {
        (self.end, self.segment_base, self.position) = (end, segment_base, position);
        self.epochs.truncate(end);
        self.producers.cut(end);
        self.compacted.cut(end);
    }

    /// The log begins at `start` now. A start beyond the end makes it an empty log there, if the end is known.
    pub(crate) fn set_start(&mut self, start: Offset) {
        self.start = self.start.max(start);
        if self.tail == Tail::Known && self.end < self.start {
            (self.end, self.segment_base, self.position) = (self.start, self.start, 0);
        }
        self.epochs.trim(self.start);
    }
}

/// A log's entry.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) log: LogId,
    pub(crate) state: LogState,
    /// Whether a [`crate::Log`] lives.
    pub(crate) open: bool,
    /// Whether one was opened since the store was: its commands may still be on their way.
    pub(crate) used: bool,
    /// Whether journal or checkpoint know the log, or will with the next round.
    pub(crate) announced: bool,
}

/// All logs.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    by_id: BTreeMap<LogId, SlotId>,
    /// Deleted logs leave a hole.
    slots: Vec<Option<Box<Slot>>>,
}

impl Catalog {
    /// The log's place.
    pub(crate) fn find(&self, log: LogId) -> Option<SlotId> {
        self.by_id.get(&log).copied()
    }

    /// Adds a log, unless it is there.
    pub(crate) fn ensure(&mut self, log: LogId) -> SlotId {
        let slots = &mut self.slots;
        *self.by_id.entry(log).or_insert_with(|| {
            let state = LogState::empty();
            slots.push(Some(Box::new(Slot { log, state, open: false, used: false, announced: false })));
            (slots.len() - 1) as SlotId
        })
    }

    /// Removes a log.
    pub(crate) fn remove(&mut self, slot: SlotId) {
        if let Some(entry) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            self.by_id.remove(&entry.log);
        }
    }

    /// The entry of a log that was not deleted.
    pub(crate) fn get(&self, slot: SlotId) -> Option<&Slot> {
        self.slots.get(slot as usize)?.as_deref()
    }

    /// The entry of a log that was not deleted.
    pub(crate) fn get_mut(&mut self, slot: SlotId) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// All logs, sorted by their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.by_id.values().filter_map(|slot| self.get(*slot))
    }

    /// How many logs there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}
