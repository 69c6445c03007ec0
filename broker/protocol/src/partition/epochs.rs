//! Which leader epoch began where (KIP-101, KIP-279). Storage keeps a history with each log; the replica's core keeps its own copy of
//! it, so that it can tell where two logs part.

use std::cmp::Ordering;

use crate::types::{LeaderEpoch, Offset};

/// A leader epoch and the offset of its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The log's end when it began.
    pub start: Offset,
}

/// The leader epochs of a log.
///
/// Invariant: both epochs and start offsets rise from entry to entry; epochs strictly. An epoch without records shares its start
/// with its successor until the log is cut there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct EpochHistory {
    entries: Vec<EpochEntry>,
}

impl EpochHistory {
    /// No epochs.
    pub fn new() -> EpochHistory {
        EpochHistory::default()
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The latest epoch.
    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// Records that `epoch` begins at `start`, or, if it is known, that it goes on there. Entries that contradict this, which can
    /// only be left over from what was cut, give way. Returns whether anything has changed.
    pub fn begin(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if let Some(latest) = self.entries.last() {
            if latest.epoch == epoch && latest.start <= start {
                return false;
            }
            if latest.epoch >= epoch || latest.start > start {
                return self.begin_before_others(epoch, start);
            }
        }
        self.entries.push(EpochEntry { epoch, start });
        true
    }

    fn begin_before_others(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        let before = self.entries.len();
        let is_known = self.entries.iter().any(|entry| entry.epoch == epoch && entry.start <= start);
        self.entries.retain(|entry| match entry.epoch.cmp(&epoch) {
            Ordering::Less => entry.start <= start,
            Ordering::Equal => is_known,
            Ordering::Greater => entry.start > start,
        });
        if !is_known {
            let place = self.entries.partition_point(|entry| entry.epoch < epoch);
            self.entries.insert(place, EpochEntry { epoch, start });
        }
        !is_known || self.entries.len() != before
    }

    /// Forgets what begins above the log's end.
    pub fn bound(&mut self, log_end: Offset) {
        self.entries.retain(|entry| entry.start <= log_end);
    }

    /// Where `epoch` ended, in a log that ends at `log_end`: the largest known epoch that is not above it, and the start of the
    /// next one (KIP-279). `None` if the log knows no epoch at or above it, so that nobody can tell.
    pub fn end_of(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let latest = self.entries.last()?;
        if latest.epoch == epoch {
            return Some((epoch, log_end));
        }
        let after = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let next = self.entries.get(after)?;
        let floor = after.checked_sub(1).map_or(epoch, |at| self.entries[at].epoch);
        Some((floor, next.start))
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start <= offset);
        after.checked_sub(1).map(|at| self.entries[at].epoch)
    }

    /// Forgets what began at or above `end`: the log was cut there.
    pub fn truncate(&mut self, end: Offset) {
        self.entries.retain(|entry| entry.start < end);
    }

    /// Forgets epochs that ended at or below `start`: the log begins there now. The epoch in which `start` lies begins at it.
    pub fn trim(&mut self, start: Offset) {
        let after = self.entries.partition_point(|entry| entry.start <= start);
        if let Some(last_below) = after.checked_sub(1) {
            self.entries.drain(..last_below);
            self.entries[0].start = self.entries[0].start.max(start);
        }
    }
}

#[cfg(test)]
#[path = "epochs_tests.rs"]
mod tests;
