//! Truncation, a new start, and what is left after a failed append.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_defect::defect;
use weir_protocol::fact::Fact;
use weir_protocol::types::Offset;
use weir_runtime::simulation;

use super::{Log, Segment};
use crate::inbox::{Command, CutPlace, SetStart, Truncate};
use crate::segment::{IndexData, SegmentIndex, select};

impl Log {
    /// Cuts the log: everything from `to` on is gone at once, and durably once [`crate::StoreEvent::Cut`] says so. `to` is where a batch
    /// begins; it is taken as the start or end if it lies outside. A cut at the end still forgets epochs that began there (KAFKA-10706).
    pub fn truncate(&mut self, to: Offset) {
        let to = to.clamp(self.start, self.end);
        if defect!(truncate_early_return) && to == self.end {
            return;
        }
        if to == self.start && to < self.end {
            return self.empty();
        }
        let (segment_base, place) = self.place_of(to);
        self.cut_at(to, segment_base, place);
    }

    /// Cuts everything off, deleted records included: the start may lie within a batch, and what is appended next begins with it.
    pub(super) fn empty(&mut self) {
        let first = self.segments.first().map_or(self.start, |segment| segment.base);
        self.cut_at(self.start, first, CutPlace::At(0));
        self.unwritten.clear();
        self.damaged.clear();
    }

    fn cut_at(&mut self, to: Offset, segment_base: Offset, place: CutPlace) {
        let removed = self.cut_segments(to, segment_base, place);
        let generation = self.next_generation(to);
        self.shared.inbox.push(Command::Truncate(Truncate {
            slot: self.slot,
            generation,
            end: to,
            segment_base,
            place,
            removed,
            active: self.active.clone(),
        }));
    }

    /// Appends from `from` on were cut by the store. Nothing is left to do on disk.
    pub(super) fn cut_failed(&mut self, from: Offset) {
        let from = from.clamp(self.start, self.end);
        let (segment_base, place) = self.place_of(from);
        self.cut_segments(from, segment_base, place);
        self.pending_cuts.retain(|(_, end)| *end <= from);
        let generation = self.next_generation(from);
        self.shared.inbox.push(Command::Resume { slot: self.slot, generation, active: self.active.clone() });
    }

    /// Moves the log's start: records below `to` are gone. Segments wholly below are removed once this is durable, which
    /// [`crate::StoreEvent::Cut`] says. A start beyond the end leaves an empty log there. A start that is not above the present one
    /// changes nothing.
    pub fn set_start(&mut self, to: Offset) {
        if to <= self.start {
            return;
        }
        let mut removed = Vec::new();
        if to > self.end {
            removed.extend(self.segments.drain(..).map(|segment| segment.base));
            self.segments.push(Segment { base: to, bytes: 0 });
            self.active = Arc::new(SegmentIndex::new(IndexData::empty(to)));
            self.unwritten.clear();
            (self.end, self.durable_end) = (to, to);
            self.next_generation(to);
        } else {
            let below = self.segments.partition_point(|segment| segment.base <= to).saturating_sub(1);
            removed.extend(self.segments.drain(..below).map(|segment| segment.base));
            self.durable_end = self.durable_end.max(to);
        }
        simulation::observe(|| Fact::Starts { log: self.id, start: to });
        self.start = to;
        self.handle.start.store(to, Ordering::Release);
        Arc::make_mut(&mut self.epochs).trim(to);
        self.damaged.retain(|range| range.end > to);
        self.shared.inbox.push(Command::SetStart(SetStart {
            slot: self.slot,
            generation: self.generation,
            start: to,
            removed,
            active: self.active.clone(),
        }));
    }

    fn next_generation(&mut self, end: Offset) -> u32 {
        self.generation += 1;
        self.handle.generation.store(self.generation, Ordering::Release);
        self.pending_cuts.push((self.generation, end));
        self.generation
    }

    /// The segment and the place in it where `to` stands.
    fn place_of(&self, to: Offset) -> (Offset, CutPlace) {
        let Some(last) = self.segments.last() else { return (to, CutPlace::At(0)) };
        if to == self.end {
            return (last.base, CutPlace::At(last.bytes));
        }
        if let Some(append) = self.unwritten.iter().rev().find(|append| append.base_offset == to) {
            return (append.segment_base, CutPlace::At(append.position));
        }
        let at = self.segments.partition_point(|segment| segment.base <= to).saturating_sub(1);
        let segment = self.segments[at];
        if segment.base >= to {
            return (segment.base, CutPlace::At(0));
        }
        if self.replacing.contains(&segment.base) {
            let place = CutPlace::Behind { position: 0, offset: segment.base, limit: u64::MAX };
            return (segment.base, place);
        }
        let (mut position, mut offset) = (0, segment.base);
        if at + 1 == self.segments.len() {
            (position, offset) = self.active.with(|index| index.floor(to));
        } else if let Ok(index) = self.shared.indexes.get((self.slot, segment.base)) {
            (position, offset) = index.with(|index| index.floor(to));
        }
        let place = if offset == to {
            CutPlace::At(position)
        } else {
            CutPlace::Behind { position, offset, limit: segment.bytes }
        };
        (segment.base, place)
    }

    /// Cuts what is in memory. Returns the segments that are gone.
    ///
    /// Where the new end is not known to the byte, or the index of its segment is not at hand, the log goes on in a new segment: the
    /// place is then found out, and the old segment cut, before the cut becomes durable.
    fn cut_segments(&mut self, to: Offset, segment_base: Offset, place: CutPlace) -> Vec<Offset> {
        let was_active = self.segments.last().map(|segment| segment.base);
        let keep = self.segments.partition_point(|segment| segment.base <= segment_base);
        let removed: Vec<Offset> = self.segments.drain(keep..).map(|segment| segment.base).collect();
        for base in &removed {
            self.shared.indexes.remove((self.slot, *base));
        }
        self.shared.indexes.remove((self.slot, segment_base));
        self.replacing.retain(|base| !removed.contains(base));
        match place {
            CutPlace::At(0) => {
                self.replacing.retain(|base| *base != segment_base);
                self.segments.pop();
                self.begin_segment(segment_base);
            }
            CutPlace::At(position) if was_active == Some(segment_base) => {
                // Another one: until the cut is durable, the segment is what the old one says.
                let mut index = self.active.with(|index| index.clone());
                index.cut(position, to);
                self.active = Arc::new(SegmentIndex::new(index));
                if let Some(last) = self.segments.last_mut() {
                    last.bytes = position;
                }
            }
            CutPlace::At(position) => {
                if let Some(last) = self.segments.last_mut() {
                    last.bytes = position;
                }
                self.begin_segment(to);
            }
            CutPlace::Behind { .. } => self.begin_segment(to),
        }
        while self.unwritten.back().is_some_and(|append| append.base_offset >= to) {
            self.unwritten.pop_back();
        }
        if let Some(append) = self.unwritten.back_mut().filter(|append| append.next_offset > to) {
            let mut kept = Vec::new();
            let mut budget = usize::MAX;
            select(&append.data, (append.base_offset, to), &mut budget, false, &mut kept);
            (append.data, append.next_offset) = (kept, to);
        }
        simulation::observe(|| Fact::Cut { log: self.id, end: to });
        self.end = to;
        self.durable_end = self.durable_end.min(to);
        Arc::make_mut(&mut self.epochs).truncate(to);
        self.compacted.cut(to);
        // What was damaged up there is no part of the log any more.
        self.damaged.retain(|range| range.start < to);
        removed
    }

    fn begin_segment(&mut self, base: Offset) {
        self.segments.push(Segment { base, bytes: 0 });
        self.active = Arc::new(SegmentIndex::new(IndexData::empty(base)));
    }
}
