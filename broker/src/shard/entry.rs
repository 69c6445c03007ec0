//! What a shard holds of each of its partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_defect::defect;
use weir_protocol::controller::Tail;
use weir_protocol::partition::producers::Producers;
use weir_protocol::partition::{self, FailReason, Input, Leadership, Limits, LogState};
use weir_protocol::types::{BrokerId, LeaderEpoch, LogId, Offset};
use weir_storage::{Log, StorageError};

use super::compact;
use super::repair::Repair;
use super::replicate::{Posted, Shown};
use super::starts::Starts;
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
    /// The position that its leader was told, if it follows one.
    pub(super) posted: Option<Posted>,
    /// Whether the next position may wait.
    pub(super) later: bool,
    /// What its followers were shown.
    pub(super) shown: Shown,
    /// Whether the controller was asked for a change and has not answered yet.
    pub(super) asking: bool,
    /// What is known of damage in the log, until it is repaired.
    pub(super) repair: Option<Repair>,
    pub(super) starts: Starts,
    pub(super) compaction: compact::Progress,
}

impl Open {
    pub(super) fn new(id: LogId, me: BrokerId, mut log: Log, limits: Limits) -> Open {
        let state = LogState {
            start: log.start(),
            end: log.end(),
            durable_end: log.durable_end(),
            high_watermark: log.start(),
        };
        // Z23: the new leader does not know what the old one has seen.
        let producers = match defect!(drop_producer_state_on_failover) {
            true => Producers::default(),
            false => log.take_producers(),
        };
        let core = partition::Partition::new(id, me, state, limits)
            .with_epochs(log.epochs().clone())
            .with_producers(producers);
        let shown = Shown::of(&core);
        let starts = Starts::new(core.start());
        Open {
            core,
            log,
            watchers: Watchers::default(),
            posted: None,
            later: false,
            shown,
            asking: false,
            repair: None,
            starts,
            compaction: compact::Progress::default(),
        }
    }

    /// The input that brings the core in line with what the quorum has decided.
    pub(super) fn input_for(&self, me: BrokerId, decided: Option<&Decided>) -> Option<Input> {
        let Some(decided) = decided else {
            return (self.core.role_name() != "Idle").then(|| Input::Resign { epoch: self.core.epoch() });
        };
        let epoch = decided.leader_epoch;
        match decided.leader {
            Some(leader) if leader == me => {}
            // A broker that holds no replica any more follows nobody.
            Some(leader) if decided.replicas.contains(&me) => {
                return Some(Input::BecomeFollower { epoch, leader });
            }
            _ => return Some(Input::Resign { epoch }),
        }
        Some(Input::BecomeLeader(Leadership {
            epoch: decided.leader_epoch,
            partition_epoch: decided.partition_epoch,
            replicas: decided.replicas.clone(),
            isr: decided.isr.clone(),
            min_insync: decided.min_insync,
            broker_epochs: decided.broker_epochs.clone(),
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
        // Z15: whoever does not ask for the end of the epoch that it knows crosses a cut without seeing it.
        let known = part.last_fetched_epoch.filter(|_| !defect!(no_fetch_epoch_check));
        let diverging = known.and_then(|epoch| self.diverging(epoch, part.offset));
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

    /// The start that DeleteRecords asks for: only what is committed can be deleted, and a start never goes back.
    pub(super) fn new_start(&self, before: Option<Offset>) -> Result<Offset, ShardError> {
        self.core.check_epoch(None)?;
        let (start, end) = (self.core.start(), self.core.high_watermark());
        match before {
            None => Ok(end),
            Some(offset) if (0..=end).contains(&offset) => Ok(offset.max(start)),
            Some(offset) => {
                let error = weir_storage::ReadError::OutOfRange { offset, start, end };
                Err(ShardError::Read(Arc::new(error)))
            }
        }
    }

    /// Who has appended and is remembered.
    pub(super) fn producers(&self) -> Result<Producers, ShardError> {
        self.core.check_epoch(None)?;
        Ok(self.core.producers().clone())
    }

    /// How far this replica reaches, everything below durable and not known to be damaged.
    pub(super) fn tail(&self) -> Tail {
        let whole_end = self.log.damaged().iter().map(|range| range.start).min();
        let end = whole_end.map_or(self.log.durable_end(), |end| end.min(self.log.durable_end()));
        let epochs = self.log.epochs();
        // Of a log whose records are all deleted, the last epoch that began is known.
        let last = || epochs.entries().iter().rev().find(|entry| entry.start <= end).map(|entry| entry.epoch);
        let epoch = (end > 0).then(|| epochs.epoch_at(end - 1).or_else(last)).flatten().unwrap_or(-1);
        Tail { epoch, end }
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
            OffsetQuery::Latest => {
                let offset = self.core.latest_offset().ok_or(ShardError::OffsetNotAvailable)?;
                return Ok(OffsetsFound::Offset { offset, leader_epoch });
            }
            OffsetQuery::EndOfEpoch(epoch) => {
                let known = self.log.epochs().end_of(epoch, self.core.end());
                let (leader_epoch, offset) = known.unwrap_or((-1, -1));
                return Ok(OffsetsFound::Offset { offset, leader_epoch });
            }
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
    pub(super) partition_epoch: i32,
    pub(super) replicas: Vec<BrokerId>,
    pub(super) isr: Vec<BrokerId>,
    pub(super) min_insync: usize,
    /// Of the replicas that are registered.
    pub(super) broker_epochs: BTreeMap<BrokerId, i64>,
}

/// The error of a waiter: the store's own where the core only knows that storage failed.
pub(super) fn failure(reason: FailReason, cause: Option<&Arc<StorageError>>) -> ShardError {
    match (reason, cause) {
        (FailReason::StorageFailed, Some(error)) => ShardError::Storage(Arc::clone(error)),
        _ => ShardError::Refused(reason),
    }
}
