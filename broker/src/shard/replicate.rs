//! Replicas of one shard: those that follow another broker's, and those that are followed.

use std::ops::Bound;
use std::sync::Arc;

use weir_protocol::fact::Fact;
use weir_protocol::metadata::{ClusterCommand, IsrMember};
use weir_protocol::partition::Input;
use weir_protocol::partition::replication::{FetchPosition, FetchRefusal, FetchVerdict};
use weir_protocol::types::{BrokerId, LeaderEpoch, LogId, Offset};
use weir_runtime::{simulation, time};

use super::entry::{Entry, Open};
use super::owner::Owner;
use super::repair::Repair;
use super::{FetchedPart, Judged, PositionsCall, ProgressCall, ReplicaReadCall, owner_of};
use crate::controller::{ChangeOutcome, Changed};
use crate::replica::lane::{Lane, Standing};
use crate::replica::mailbox::Mailbox;

/// Leaders that are reminded of the time per wake.
const TICKS_PER_WAKE: usize = 256;
/// How often each is (`partition::Input::Tick`).
const TICK: std::time::Duration = std::time::Duration::from_millis(500);

/// A position as it was posted last, and where.
pub(super) struct Posted {
    mailbox: Arc<Mailbox>,
    position: FetchPosition,
    start: Offset,
}

/// What a followed replica shows to others: once it differs, they must be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    end: Offset,
    start: Offset,
    epoch: LeaderEpoch,
    leads: bool,
}

impl Shown {
    pub(super) fn of(core: &weir_protocol::partition::Partition) -> Shown {
        Shown { end: core.end(), start: core.start(), epoch: core.epoch(), leads: core.is_leader() }
    }
}

impl Owner {
    /// Opens the replicas of this shard that have others.
    pub(super) fn open_all_replicated(&mut self) {
        let view = self.image.current();
        let mine = |log: &LogId| owner_of(*log, self.shards) == self.number;
        let logs: Vec<LogId> = view.image.replicas_on(self.me).map(|(log, _)| log).filter(mine).collect();
        self.open_replicated(logs);
    }

    /// Opens the replicas that must not wait until somebody asks for them: those that have others.
    pub(super) fn open_replicated(&mut self, logs: impl IntoIterator<Item = LogId>) {
        for log in logs {
            let mine = self.image.decided(log).is_some_and(|(partition, _)| {
                partition.replicas.len() > 1 && partition.replicas.contains(&self.me)
            });
            if mine {
                // One that cannot be opened is tried again when its partition changes.
                let _ = self.entry(log);
            }
        }
    }

    /// A log could not be opened. Nobody may ever ask for a replica that follows: the next tick tries again.
    pub(super) fn open_again(&mut self, log: LogId) {
        self.failed.insert(log);
        if self.tick_alarm.at().is_none() {
            self.tick_alarm.set(Some(time::now() + TICK));
        }
    }

    /// After each step of a replica: parked fetches, followers and the leader are told what concerns them.
    pub(super) fn show(&mut self, log: LogId, reported: bool) {
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return };
        let shown = Shown::of(&open.core);
        let before = std::mem::replace(&mut open.shown, shown);
        if (shown.epoch, shown.leads) != (before.epoch, before.leads) {
            open.watchers.wake();
            open.starts.forget();
        }
        open.starts.settle(&open.core, self.me);
        post(log, open, reported, &self.mailboxes);
        if shown.leads && shown != before {
            self.mark_lanes(log);
        }
    }

    fn mark_lanes(&mut self, log: LogId) {
        let Some(lanes) = self.lanes.get_mut(&log) else { return };
        lanes.retain(|lane| lane.mark(log));
        if lanes.is_empty() {
            self.lanes.remove(&log);
        }
    }

    fn note_lane(&mut self, log: LogId, lane: &Arc<Lane>) {
        let lanes = self.lanes.entry(log).or_default();
        match lanes.iter_mut().find(|known| known.follower() == lane.follower()) {
            Some(known) if Arc::ptr_eq(known, lane) => {}
            Some(known) => *known = Arc::clone(lane),
            None => lanes.push(Arc::clone(lane)),
        }
    }

    pub(super) fn on_positions(&mut self, call: PositionsCall) {
        let PositionsCall { lane, is_beat, parts } = call;
        for standing in parts {
            let log = standing.log;
            // The image may not have it yet: whoever opens it later finds the lane.
            self.note_lane(log, &lane);
            if self.entry(log).is_ok() {
                self.note_start(&lane, &standing);
                self.count(&lane, &standing);
                if self.has_news(&lane, &standing, is_beat) {
                    lane.mark(log);
                }
            }
        }
    }

    fn count(&mut self, lane: &Lane, standing: &Standing) {
        let (from, broker_epoch) = (lane.follower(), lane.broker_epoch());
        let now_ms = time::now().since_origin_ms();
        let (log, position) = (standing.log, standing.position);
        if !self.would_bring_back(log, from) {
            self.step(log, Input::ReplicaFetch { from, broker_epoch, position, now_ms }, None);
        }
    }

    /// Whether a follower that is not in sync has not heard yet which records are deleted. In sync it could lead, and show them again;
    /// what it has there need not even have been committed. It begins where this log does as soon as it is told.
    fn would_bring_back(&self, log: LogId, follower: BrokerId) -> bool {
        let Some(Entry::Open(open)) = self.entries.get(&log) else { return false };
        !open.core.isr().contains(&follower) && open.starts.of(follower) < open.core.start()
    }

    fn note_start(&mut self, lane: &Lane, standing: &Standing) {
        let Some(Entry::Open(open)) = self.entries.get_mut(&standing.log) else { return };
        if standing.position.epoch == open.core.epoch() {
            open.starts.note(lane.follower(), standing.start);
            open.starts.settle(&open.core, self.me);
        }
    }

    /// Whether there is something to say. News of the high watermark alone waits for a heartbeat.
    fn has_news(&self, lane: &Lane, standing: &Standing, is_beat: bool) -> bool {
        let Some(Entry::Open(open)) = self.entries.get(&standing.log) else { return false };
        match open.core.judge(lane.follower(), lane.broker_epoch(), &standing.position) {
            FetchVerdict::Refused(_) => false,
            FetchVerdict::Diverges { .. } | FetchVerdict::OutOfRange { .. } => true,
            FetchVerdict::Matches { high_watermark, start } => match standing.told {
                None => true,
                Some(told) => {
                    standing.position.offset < open.core.end() || (is_beat && told != (high_watermark, start))
                }
            },
        }
    }

    pub(super) fn on_progress(&mut self, call: ProgressCall) {
        let ProgressCall { from, broker_epoch, parts } = call;
        for progress in parts {
            let (epoch, durable_end) = (progress.epoch, progress.durable_end);
            let input = Input::ReplicaProgress { from, broker_epoch, epoch, durable_end };
            if !self.would_bring_back(progress.log, from) {
                self.step(progress.log, input, None);
            }
        }
    }

    pub(super) fn on_replica_read(&mut self, call: ReplicaReadCall) {
        let ReplicaReadCall { lane, bytes_max, parts, reply } = call;
        let mut judged = Vec::with_capacity(parts.len());
        for (number, standing) in parts {
            if standing.told.is_none() {
                // It may have come before this replica led, or was open.
                self.note_start(&lane, &standing);
                self.count(&lane, &standing);
            }
            judged.extend(self.judge(&lane, &standing, bytes_max).map(|judged| (number, judged)));
        }
        // The lane may be over.
        let _ = reply.send(judged);
    }

    fn judge(&mut self, lane: &Lane, standing: &Standing, bytes_max: usize) -> Option<Judged> {
        let Standing { log, position, told, .. } = *standing;
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return None };
        let verdict = open.core.judge(lane.follower(), lane.broker_epoch(), &position);
        let end = open.core.end();
        let deletions_forgotten_to = open.log.deletions_forgotten_to();
        match verdict {
            FetchVerdict::Matches { .. } if position.offset < end => {
                match open.log.read(position.offset, bytes_max, end, true) {
                    Ok(plan) => {
                        // Said before anything leaves; that less may fit does no harm.
                        self.step(log, Input::Shipped { end }, None);
                        Some(Judged { verdict, deletions_forgotten_to, plan: Some(plan) })
                    }
                    Err(error) => {
                        self.complain(|left_out| {
                            tracing::warn!(%log, %error, left_out, "a follower cannot be served");
                        });
                        None
                    }
                }
            }
            FetchVerdict::Matches { high_watermark, start } => {
                let is_news = told != Some((high_watermark, start));
                is_news.then_some(Judged { verdict, deletions_forgotten_to, plan: None })
            }
            FetchVerdict::Diverges { .. } | FetchVerdict::OutOfRange { .. } => {
                let (epoch, follower) = (position.epoch, lane.follower());
                simulation::observe(|| Fact::Parted { log, epoch, follower });
                Some(Judged { verdict, deletions_forgotten_to, plan: None })
            }
            FetchVerdict::Refused(refusal) => {
                if refusal == FetchRefusal::Senseless {
                    let follower = lane.follower().0;
                    self.complain(|left_out| {
                        tracing::warn!(%log, follower, ?position, left_out, "a follower makes no sense");
                    });
                }
                // It stays where it is until it, or this replica, hears of another epoch.
                None
            }
        }
    }

    pub(super) fn on_fetched(&mut self, parts: Vec<FetchedPart>) {
        for FetchedPart { log, checked, deletions_forgotten_to, spent } in parts {
            let answered = checked.fetched.position;
            if !self.behind_deletions(log, &answered, deletions_forgotten_to) {
                self.appends = checked.appends;
                self.step(log, Input::Fetched(Box::new(checked.fetched)), None);
                self.appends.clear();
            }
            // Nothing was taken of what was said: it must be said again.
            if spent
                && let Some(Entry::Open(open)) = self.entries.get(&log)
                && let Some(posted) = &open.posted
                && posted.position.is_same_log(&answered)
            {
                posted.mailbox.fetch_later(log, posted.position, posted.start);
            }
        }
    }

    /// Asks the controller for a change of the ISR, unless an answer about this partition is still to come: the core asks
    /// again.
    pub(super) fn propose_isr(
        &mut self,
        log: LogId,
        (leader_epoch, partition_epoch): (LeaderEpoch, i32),
        isr: Vec<IsrMember>,
    ) {
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return };
        // A broker that is not registered leads nothing.
        let Some(broker_epoch) = self.image.own_epoch().filter(|_| !open.asking) else { return };
        open.asking = true;
        self.metrics.isr_proposals.increment();
        let leader = IsrMember { broker: self.me, broker_epoch };
        let command = ClusterCommand::AlterIsr { log, leader, leader_epoch, partition_epoch, isr };
        self.changes.request(log, command, self.changed_to.clone());
    }

    /// The controller has answered, or there will be no answer. What was committed, the image says.
    pub(super) fn on_changed(&mut self, changed: Changed) {
        let Changed { log, command, outcome } = changed;
        if let Some(Entry::Open(open)) = self.entries.get_mut(&log) {
            open.asking = false;
        }
        if matches!(*command, ClusterCommand::LeaveIsr { .. }) {
            return self.on_left(log, &outcome);
        }
        let is_refused = match outcome {
            ChangeOutcome::Refused(_) | ChangeOutcome::NotDone => true,
            ChangeOutcome::Applied(_) | ChangeOutcome::Unknown => false,
        };
        if let ClusterCommand::AlterIsr { leader_epoch: epoch, partition_epoch, .. } = *command
            && is_refused
        {
            self.metrics.isr_refusals.increment();
            let now_ms = time::now().since_origin_ms();
            self.step(log, Input::IsrRefused { epoch, partition_epoch, now_ms }, None);
        }
    }

    /// Whether this replica has others decides whether it is reminded of the time.
    pub(super) fn note_replicated(&mut self, log: LogId, replicas: usize) {
        if replicas > 1 {
            self.replicated.insert(log);
            if self.tick_alarm.at().is_none() {
                self.tick_alarm.set(Some(time::now() + TICK));
            }
        } else {
            self.replicated.remove(&log);
        }
    }

    /// Reminds the next leaders of the time.
    pub(super) fn tick(&mut self) {
        let from = self.ticked.map_or(Bound::Unbounded, Bound::Excluded);
        let due: Vec<LogId> =
            self.replicated.range((from, Bound::Unbounded)).take(TICKS_PER_WAKE).copied().collect();
        let now = time::now();
        for log in &due {
            if matches!(self.entries.get(log), Some(Entry::Open(open)) if open.core.is_leader()) {
                self.step(*log, Input::Tick { now_ms: now.since_origin_ms() }, None);
            }
        }
        if self.ticked.is_none() {
            self.repair_all();
            let failed = std::mem::take(&mut self.failed);
            self.open_replicated(failed);
        }
        if due.len() == TICKS_PER_WAKE {
            self.ticked = due.last().copied();
            self.tick_alarm.set(Some(now));
        } else {
            self.ticked = None;
            let idle = self.replicated.is_empty() && self.failed.is_empty();
            self.tick_alarm.set((!idle).then(|| now + TICK));
        }
    }
}

/// Posts the replica's position if it has changed. `reported`: the leader hears of the durable end in any case.
pub(super) fn post(
    log: LogId,
    open: &mut Open,
    reported: bool,
    mailboxes: &crate::replica::mailbox::Mailboxes,
) {
    // Of a replica that leaves the ISR because it is damaged nothing may count any more.
    let leaving = open.repair.as_ref().is_some_and(Repair::is_leaving);
    let position = open.core.fetch_position().filter(|_| !leaving);
    if position.is_none() && open.posted.is_none() {
        return;
    }
    let left =
        open.posted.take_if(|posted| position.is_none_or(|(leader, _)| leader != posted.mailbox.leader()));
    if let Some(posted) = left {
        posted.mailbox.leave(log);
    }
    let Some((leader, position)) = position else { return };
    let start = open.starts.own;
    let Some(posted) = &mut open.posted else {
        let mailbox = mailboxes.of(leader);
        mailbox.fetch(log, position, start);
        open.posted = Some(Posted { mailbox, position, start });
        return;
    };
    let before = std::mem::replace(&mut posted.position, position);
    let start_before = std::mem::replace(&mut posted.start, start);
    let later = std::mem::take(&mut open.later);
    if !before.is_same_log(&position) || start_before != start {
        if later {
            posted.mailbox.fetch_later(log, position, start);
        } else {
            posted.mailbox.fetch(log, position, start);
        }
    } else if before.durable_end != position.durable_end {
        if reported {
            posted.mailbox.report(log, position.epoch, position.durable_end);
        } else {
            posted.mailbox.fetch_later(log, position, start);
        }
    }
}
