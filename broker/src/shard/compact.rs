//! Compaction of a shard's logs (`cleanup.policy=compact`): which is due, one at a time.
//!
//! Every replica compacts for itself, whether it leads or follows. What differs between replicas is only what was superseded; a
//! replica that has missed deletions which its leader has forgotten meanwhile is fetched anew (see `behind_deletions`).

use std::collections::BTreeSet;
use std::time::Duration;

use weir_defect::defect;
use weir_protocol::partition::replication::FetchPosition;
use weir_protocol::types::{LogId, Offset};
use weir_runtime::time::Instant;
use weir_runtime::{simulation, task, time};
use weir_storage::{Cleaned, CompactionLimits, ReadError, Replaced};

use super::entry::{Entry, Open};
use super::owner::Owner;
use super::repair::Repair;
use crate::metadata::Compaction;

/// Keys that one compaction holds in memory: about 50 MiB. More are compacted in several passes.
const KEYS_MAX: usize = 1 << 20;

/// What came of a compaction.
pub(super) type Compacted = (LogId, Result<Box<Cleaned>, ReadError>);

/// What a shard remembers of a log that is compacted.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The segment to which records are appended, and since when that is seen.
    active: Option<(Offset, Instant)>,
    /// When it was compacted last, or first looked at.
    last: Option<Instant>,
    /// When tombstones may go, by the wall clock.
    next_horizon_ms: Option<i64>,
}

impl Progress {
    /// How long the log has been appending to the same segment.
    fn active_for(&mut self, active: Option<Offset>, now: Instant) -> Option<Duration> {
        match (self.active, active) {
            (Some((known, since)), Some(base)) if known == base => return Some(now - since),
            (_, active) => self.active = active.map(|base| (base, now)),
        }
        None
    }
}

impl Owner {
    /// Looks for logs to compact.
    pub(super) fn compact(&mut self) {
        self.compact_alarm.set(self.compact_every.map(|every| time::now() + every));
        let now = time::now();
        for (log, entry) in &mut self.entries {
            let Entry::Open(open) = entry else { continue };
            let Some(settings) = self.image.compaction(*log) else { continue };
            let age = open.compaction.active_for(open.log.active_segment(), now);
            if age.is_some_and(|age| age >= settings.segment_age_max) {
                open.log.seal_segment();
            }
        }
        self.compact_next();
    }

    /// Begins with the next log that is due, unless one is under way.
    fn compact_next(&mut self) {
        if self.compacting {
            return;
        }
        let after = self.compacted_last;
        let behind = self.entries.keys().filter(|log| after.is_none_or(|after| **log > after));
        let logs: Vec<LogId> = behind.copied().collect();
        for log in logs {
            self.compacted_last = Some(log);
            if self.begin_compaction(log) {
                return;
            }
        }
        // The next look begins with the first.
        self.compacted_last = None;
    }

    fn begin_compaction(&mut self, log: LogId) -> bool {
        let Some(settings) = self.image.compaction(log) else { return false };
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return false };
        if open.repair.is_some() {
            return false;
        }
        let limits = limits(open, &settings);
        let Some(plan) = open.log.compaction(limits) else { return false };
        self.compacting = true;
        let (disk, done) = (self.store.disk().clone(), self.compacted_to.clone());
        task::spawn("compact", async move {
            let result = plan.run(&disk).await;
            // A shard that has ended adopts nothing; what was written goes when the log is opened next.
            let _ = done.send((log, result)).await;
        });
        true
    }

    /// A compaction has ended.
    pub(super) fn on_compacted(&mut self, (log, result): Compacted) {
        self.compacting = false;
        match result {
            Ok(cleaned) => self.adopt(log, cleaned),
            Err(ReadError::Changed(_) | ReadError::Failed) => {}
            Err(ReadError::Corrupt { from, .. }) => {
                self.metrics.reads_damaged.increment();
                self.on_damage(log, from);
            }
            Err(error) => {
                self.complain(|left_out| {
                    tracing::warn!(%log, %error, left_out, "a log cannot be compacted now");
                });
            }
        }
        self.compact_next();
    }

    fn adopt(&mut self, log: LogId, cleaned: Box<Cleaned>) {
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return self.give_up(log, cleaned) };
        let figures = cleaned.figures();
        if let Err(cleaned) = open.log.adopt(cleaned) {
            return self.give_up(log, cleaned);
        }
        open.compaction.last = Some(time::now());
        open.compaction.next_horizon_ms = figures.next_horizon_ms;
        self.metrics.compactions.increment();
        self.metrics.compacted_records_dropped.add(figures.records_dropped);
        self.metrics.compacted_tombstones_dropped.add(figures.tombstones_dropped);
        if figures.records_dropped > 0 {
            simulation::situation("log compacted");
        }
        if figures.tombstones_dropped > 0 {
            simulation::situation("tombstone dropped");
        }
        tracing::debug!(%log, ?figures, "compacted");
    }

    /// The log was cut, or closed, and what is left of it does not fit any more. Until that is gone nothing is compacted.
    fn give_up(&mut self, log: LogId, cleaned: Box<Cleaned>) {
        self.compacting = true;
        let (disk, done) = (self.store.disk().clone(), self.compacted_to.clone());
        task::spawn("give-up-compaction", async move {
            cleaned.give_up(&disk).await;
            // A shard that has ended compacts nothing more.
            let _ = done.send((log, Err(ReadError::Changed(log)))).await;
        });
    }

    /// A segment was replaced by what compaction left of it.
    pub(super) fn on_replaced(&mut self, replaced: &Replaced) {
        if let Some(Entry::Open(open)) = self.entries.get_mut(&replaced.log) {
            open.log.on_replaced(replaced);
            open.watchers.wake();
        }
    }

    /// Whether a replica holds records that its leader has deleted, and may never hear of it: the leader has forgotten deletions below
    /// `forgotten_to`, and this log ends before, with something in it. Then it is fetched anew (contract 7).
    pub(super) fn behind_deletions(
        &mut self,
        log: LogId,
        position: &FetchPosition,
        forgotten_to: Offset,
    ) -> bool {
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return false };
        if open.repair.is_some() {
            return true;
        }
        let (start, end) = (open.log.start(), open.log.end());
        let is_current =
            position.epoch == open.core.epoch() && position.offset == end && !open.core.is_leader();
        if !is_current || end >= forgotten_to || open.log.deletions_forgotten_to() >= forgotten_to {
            return false;
        }
        // Z59: what it has is taken for whole, and only what is missing is fetched.
        if start == end || defect!(range_repair_of_compacted) {
            open.log.forget_deletions_to(forgotten_to);
            return false;
        }
        tracing::info!(%log, end, forgotten_to, "this replica has missed deletions that its leader has forgotten: it is fetched again");
        simulation::situation("replica refetched because of tombstones");
        open.repair = Some(Repair::Known { from: start });
        self.damaged.insert(log);
        self.repair(log);
        true
    }
}

fn limits(open: &mut Open, settings: &Compaction) -> CompactionLimits {
    let now_ms = time::wall_ms();
    let progress = &mut open.compaction;
    let last = *progress.last.get_or_insert(time::now());
    let is_late = settings.lag_max.is_some_and(|lag_max| time::now() - last >= lag_max);
    let newest =
        |kept: &Vec<weir_protocol::partition::producers::Kept>| kept.last().map(|kept| kept.base_offset);
    let producers = open.core.producers();
    let last_batches: BTreeSet<Offset> =
        producers.iter().filter_map(|(_, producer)| newest(&producer.kept)).collect();
    CompactionLimits {
        below: open.core.high_watermark(),
        now_ms,
        delete_retention_ms: settings.delete_retention_ms,
        min_lag_ms: settings.min_lag_ms,
        dirty_ratio_min: if is_late { 0.0 } else { settings.dirty_ratio_min },
        is_due: progress.next_horizon_ms.is_some_and(|horizon_ms| horizon_ms <= now_ms),
        keys_max: KEYS_MAX,
        last_batches,
    }
}
