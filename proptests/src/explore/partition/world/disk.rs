//! A disk that forgets what was not synced.

use weir_protocol::partition::epochs::EpochHistory;
use weir_protocol::types::{LeaderEpoch, Offset};

/// What is produced: no two are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub(super) epoch: LeaderEpoch,
    pub(super) value: u8,
}

/// What a node's disk holds of the partition, and what of it would survive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Disk {
    pub(super) log: Vec<Record>,
    pub(super) durable_end: usize,
    /// A cut that is not durable: the durable records that it takes.
    pub(super) cut: Option<Vec<Record>>,
}

impl Disk {
    pub(super) fn durable(&self) -> &[Record] {
        &self.log[..self.durable_end]
    }

    pub(super) fn is_synced(&self) -> bool {
        self.cut.is_none() && self.durable_end == self.log.len()
    }

    pub(super) fn truncate(&mut self, to: usize) {
        // A second cut before the first is durable: what comes back, if anything, is what was durable before both.
        let mut tail = self.log[to.min(self.durable_end)..self.durable_end].to_vec();
        tail.extend(self.cut.take().unwrap_or_default());
        self.cut = Some(tail);
        self.log.truncate(to);
        self.durable_end = self.durable_end.min(to);
    }

    pub(super) fn lose_power(&mut self, tail_back: bool) {
        self.log.truncate(self.durable_end);
        let tail = self.cut.take().unwrap_or_default();
        if tail_back {
            self.log.extend(tail);
        }
        self.durable_end = self.log.len();
    }

    /// As recovery finds it: of an epoch without records nothing is left.
    pub(super) fn epochs(&self) -> EpochHistory {
        let mut epochs = EpochHistory::new();
        for (offset, record) in (0..).zip(&self.log) {
            epochs.begin(record.epoch, offset);
        }
        epochs
    }

    pub(super) fn last_epoch(&self) -> LeaderEpoch {
        self.log.last().map_or(-1, |record| record.epoch)
    }

    pub(super) fn end(&self) -> Offset {
        self.log.len() as Offset
    }
}
