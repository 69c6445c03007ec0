//! What must hold in every state.

use std::sync::Arc;

use super::super::{Bounds, LAWS};
use super::disk::Record;
use super::{Past, World};

const SURVIVES: &str = LAWS[0];
const NAMES: &str = LAWS[1];
const PREFIX: &str = LAWS[2];
const WATERMARK: &str = LAWS[3];
const HOMES: &str = LAWS[4];
pub(super) const INVARIANTS: &str = LAWS[5];

impl World {
    pub(super) fn break_law(&mut self, law: &'static str, how: String) {
        self.broken.get_or_insert((law, how));
    }

    /// A leader takes a record in.
    pub(super) fn check_name(&mut self, offset: usize, record: Record) {
        let other = Arc::make_mut(&mut self.past).names.insert((record.epoch, offset), record.value);
        if let Some(other) = other.filter(|other| *other != record.value) {
            let how = format!("{other} and {} are at {offset} in epoch {}", record.value, record.epoch);
            self.break_law(NAMES, how);
        }
    }

    /// A leader's high watermark has moved: consumers may see what lies below.
    pub(super) fn check_commit(&mut self, node: usize, end: usize) {
        let epoch = self.nodes[node].core.epoch();
        for offset in 0..end {
            let record = self.nodes[node].disk.log.get(offset).copied();
            let past = Arc::make_mut(&mut self.past);
            match (record, past.committed.get(offset)) {
                (Some(record), None) => past.committed.push((record, epoch)),
                (Some(record), Some((known, _))) if record == *known => {}
                (record, known) => {
                    let how = format!("{node} shows {record:?} at {offset}, where {known:?} was committed");
                    return self.break_law(PREFIX, how);
                }
            }
        }
    }

    /// A client is told that its record is safe.
    pub(super) fn check_acknowledged(&mut self, value: u8, offset: usize) {
        let committed = self.past.committed.get(offset).map(|(record, _)| record.value);
        if committed != Some(value) {
            let how = format!("{value} is acknowledged at {offset}, where {committed:?} is committed");
            self.break_law(SURVIVES, how);
        }
    }

    /// A leader has all that was ever committed.
    pub(super) fn check_leader(&mut self, node: usize) {
        let log = &self.nodes[node].disk.log;
        let lost = (0..)
            .zip(&self.past.committed)
            .find(|(offset, (record, _))| log.get(*offset as usize) != Some(record));
        if let Some((offset, (record, _))) = lost {
            let how = format!("{node} begins to lead without {record:?} at {offset}");
            self.break_law(SURVIVES, how);
        }
    }

    /// What holds between the steps.
    pub(super) fn check_all(&mut self, bounds: &Bounds) {
        let Past { committed, .. } = &*self.past;
        let members = self.register.isr.iter().chain(&self.register.elr);
        for node in members.copied() {
            let durable = self.nodes[node].disk.durable();
            let lacks =
                (0..).zip(committed).find(|(offset, (record, _))| durable.get(*offset) != Some(record));
            if let Some((offset, (record, _))) = lacks {
                let how = format!("{node} may be elected, and does not keep {record:?} at {offset}");
                return self.break_law(HOMES, how);
            }
        }
        for (number, node) in self.nodes.iter().enumerate() {
            let epoch = node.core.epoch();
            let before = committed.iter().filter(|(_, committed_in)| *committed_in < epoch).count();
            if let Some(latest) = node.core.latest_offset()
                && (latest as usize) < before
            {
                let how = format!("{number} says that {latest} are committed: {before} were before it led");
                return self.break_law(WATERMARK, how);
            }
        }
        if bounds.invariants
            && let Some(Err(law)) = self.nodes.iter().map(|node| node.core.invariants()).find(Result::is_err)
        {
            self.break_law(INVARIANTS, law);
        }
    }

    /// Within its reign a leader takes nothing back.
    pub(super) fn check_watermark(&mut self, node: usize, before: Option<(i32, i64)>) {
        let core = &self.nodes[node].core;
        if let Some((epoch, high_watermark)) = before
            && core.is_leader()
            && core.epoch() == epoch
            && core.high_watermark() < high_watermark
        {
            let how = format!("{node} takes its high watermark back from {high_watermark}");
            self.break_law(WATERMARK, how);
        }
    }
}
