//! What a shard holds of each of its partitions.

use std::sync::Arc;

use weir_protocol::partition::{self, FailReason, Input, Leadership, Limits, LogState};
use weir_protocol::types::{BrokerId, LeaderEpoch, LogId, Offset};
use weir_storage::{Log, StorageError};

use super::watch::Watchers;
use super::{
    FetchDone, FetchPart, FetchWatch, OffsetQuery, OffsetsDone, OffsetsFound, OffsetsPart, Readable,
    ShardError,
};

/// Requests that may wait until a partition is open; more are refused.
pub(super) const OPENING_QUEUE_MAX: usize = 1024;

/// Something that waits until a partition is open.
#[derive(Debug, Clone, Copy)]
pub(super) enum Queued {
    /// A part of a produce request.
    Produce { call: u64, part: usize },
    /// A parked question.
    Question(u32),
}

/// A partition of this shard.
pub(super) enum Entry {
    /// Its log is being opened. `doomed`: its topic was deleted meanwhile.
    Opening { queue: Vec<Queued>, doomed: bool },
    /// Open.
    Open(Box<Open>),
    /// The log could not be opened; the next request tries again.
    Failed(Arc<StorageError>),
}

/// An open partition.
pub(super) struct Open {
    pub(super) core: partition::Partition,
    pub(super) log: Log,
    pub(super) watchers: Watchers,
}

impl Open {
    pub(super) fn new(id: LogId, me: BrokerId, log: Log) -> Open {
        let state = LogState {
            start: log.start(),
            end: log.end(),
            durable_end: log.durable_end(),
            high_watermark: log.start(),
        };
        let core = partition::Partition::new(id, me, state, Limits::default());
        Open { core, log, watchers: Watchers::default() }
    }

    /// The input that brings the core in line with what the quorum has decided.
    pub(super) fn input_for(&self, me: BrokerId, decided: Option<&Decided>) -> Option<Input> {
        let Some(decided) = decided else {
            return self.core.is_leader().then(|| Input::Resign { epoch: self.core.epoch() });
        };
        if decided.leader != Some(me) {
            return Some(Input::Resign { epoch: decided.leader_epoch });
        }
        if self.core.is_leader() && decided.leader_epoch == self.core.epoch() {
            return Some(Input::IsrCommitted { epoch: decided.leader_epoch, isr: decided.isr.clone() });
        }
        Some(Input::BecomeLeader(Leadership {
            epoch: decided.leader_epoch,
            replicas: decided.replicas.clone(),
            isr: decided.isr.clone(),
            min_insync: decided.min_insync,
        }))
    }

    pub(super) fn fetch(&mut self, part: &FetchPart, watch: Option<&Arc<FetchWatch>>) -> FetchDone {
        FetchDone { index: part.index, result: self.readable(part, watch) }
    }

    fn readable(
        &mut self,
        part: &FetchPart,
        watch: Option<&Arc<FetchWatch>>,
    ) -> Result<Readable, ShardError> {
        self.core.check_epoch(part.epoch)?;
        let (start, high_watermark) = (self.core.start(), self.core.high_watermark());
        let diverging = part.last_fetched_epoch.and_then(|epoch| self.diverging(epoch, part.offset));
        if diverging.is_some() {
            return Ok(Readable { high_watermark, log_start: start, plan: None, diverging });
        }
        if part.offset < start || part.offset > self.core.end() {
            let error =
                weir_storage::ReadError::OutOfRange { offset: part.offset, start, end: self.core.end() };
            return Err(ShardError::Read(Arc::new(error)));
        }
        // A fetch above the high watermark waits: what it asks for may become committed.
        let plan = if part.offset < high_watermark {
            let plan = self.log.read(part.offset, part.bytes_max, high_watermark, true);
            Some(plan.map_err(|error| ShardError::Read(Arc::new(error)))?)
        } else {
            None
        };
        if let Some(watch) = watch {
            self.watchers.add(watch);
        }
        Ok(Readable { high_watermark, log_start: start, plan, diverging: None })
    }

    /// Where a client whose last record is of `epoch` and ends at `offset` departs from this log (KIP-595).
    fn diverging(&self, epoch: LeaderEpoch, offset: Offset) -> Option<(LeaderEpoch, Offset)> {
        match self.log.epochs().end_of(epoch, self.core.end()) {
            Some((known, end)) if known < epoch || end < offset => Some((known, end)),
            _ => None,
        }
    }

    pub(super) fn offsets(&self, part: &OffsetsPart) -> OffsetsDone {
        OffsetsDone { index: part.index, result: self.find(part) }
    }

    fn find(&self, part: &OffsetsPart) -> Result<OffsetsFound, ShardError> {
        let leader_epoch = self.core.check_epoch(part.epoch)?;
        let high_watermark = self.core.high_watermark();
        let plan = match part.query {
            OffsetQuery::Earliest => {
                let offset = self.core.start();
                let leader_epoch = self.log.epochs().epoch_at(offset).unwrap_or(leader_epoch);
                return Ok(OffsetsFound::Offset { offset, leader_epoch });
            }
            OffsetQuery::Latest => return Ok(OffsetsFound::Offset { offset: high_watermark, leader_epoch }),
            OffsetQuery::MaxTimestamp => self.log.max_timestamp(high_watermark),
            OffsetQuery::AtTime(timestamp_ms) => self.log.offset_for_time(timestamp_ms, high_watermark),
        };
        Ok(OffsetsFound::Search(Box::new(plan)))
    }
}

/// What the quorum has decided about a partition, as far as its replica must know.
#[derive(Debug, Clone)]
pub(super) struct Decided {
    pub(super) leader: Option<BrokerId>,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) replicas: Vec<BrokerId>,
    pub(super) isr: Vec<BrokerId>,
    pub(super) min_insync: usize,
}

/// The error of a waiter: the store's own where the core only knows that storage failed.
pub(super) fn failure(reason: FailReason, cause: Option<&Arc<StorageError>>) -> ShardError {
    match (reason, cause) {
        (FailReason::StorageFailed, Some(error)) => ShardError::Storage(Arc::clone(error)),
        _ => ShardError::Refused(reason),
    }
}
