//! Who is in sync: what followers report, and what the leader asks of the controller.
//!
//! A change of the ISR is a command of the metadata quorum that names the *partition epoch* that it builds on, so of
//! several commands on one epoch at most one takes effect. The leader has one under way at a time. While the fate of
//! one is open, its additions count for the high watermark (the maximal ISR): they may be in the ISR already and be
//! elected. Nobody is discounted before the quorum has said so.

use weir_defect::defect;

use super::leader::{Leader, Reported};
use super::replication::{FetchPosition, FetchRefusal, FetchVerdict};
use super::{Effect, Limits, Partition, Role};
use crate::metadata::IsrMember;
use crate::types::{BrokerId, LeaderEpoch, Offset};

/// A change that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Proposal {
    /// With the broker epochs under which the members were found to be in sync: sent again, it means the same.
    members: Vec<(BrokerId, i64)>,
    sent_ms: i64,
}

impl Proposal {
    pub(super) fn contains(&self, broker: BrokerId) -> bool {
        self.members.iter().any(|(id, _)| *id == broker)
    }
}

impl Partition {
    /// What this replica says to a follower's position. The driver sends records from the position's offset to
    /// [`Partition::end`] with it if the logs match, as many as fit, and asks again when there is more to say.
    pub fn judge(&self, from: BrokerId, broker_epoch: i64, position: &FetchPosition) -> FetchVerdict {
        let Role::Leader(leader) = &self.role else { return FetchVerdict::Refused(FetchRefusal::NotLeader) };
        let refusal = if position.epoch < self.epoch {
            FetchRefusal::FencedLeaderEpoch
        } else if position.epoch > self.epoch {
            FetchRefusal::UnknownLeaderEpoch
        } else if let Err(refusal) = leader.check_follower(from, broker_epoch) {
            refusal
        } else if position.durable_end > position.offset || position.last_epoch > self.epoch {
            FetchRefusal::Senseless
        } else {
            return self.compare(position);
        };
        FetchVerdict::Refused(refusal)
    }

    fn compare(&self, position: &FetchPosition) -> FetchVerdict {
        let (offset, start, end) = (position.offset, self.start, self.end);
        if offset < start {
            return FetchVerdict::OutOfRange { start, end };
        }
        // Z2: two logs of one length need not be one log.
        // Z3: an epoch that is unknown here is of a leader that lost its reign before anybody followed it.
        if position.last_epoch >= 0
            && !defect!(ignore_leader_epoch)
            && let Some((epoch, epoch_end)) = self.epochs.end_of(position.last_epoch, end)
            && (epoch < position.last_epoch && !defect!(epoch_lookup_single_round) || epoch_end < offset)
        {
            return FetchVerdict::Diverges { epoch, end: epoch_end };
        }
        if offset > end {
            return FetchVerdict::OutOfRange { start, end };
        }
        FetchVerdict::Matches { high_watermark: self.high_watermark, start }
    }

    pub(super) fn on_replica_fetch(
        &mut self,
        (from, broker_epoch): (BrokerId, i64),
        position: &FetchPosition,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        let verdict = self.judge(from, broker_epoch, position);
        let (log_end, high_watermark, limits) = (self.end, self.high_watermark, self.limits);
        let Role::Leader(leader) = &mut self.role else { return };
        // Z8: a log that parts from ours has replicated nothing, whatever its length.
        let credited = match verdict {
            FetchVerdict::Matches { .. } => true,
            FetchVerdict::Diverges { .. } => defect!(credit_diverging_fetch),
            FetchVerdict::OutOfRange { .. } | FetchVerdict::Refused(_) => false,
        };
        if !credited {
            return;
        }
        let durable_end = position.durable_end.min(log_end);
        leader.note_fetch(from, &Reported { broker_epoch, durable_end, log_end, now_ms });
        leader.propose_due(high_watermark, log_end, (now_ms, false), &limits, effects);
        self.advance(effects);
    }

    pub(super) fn on_progress(
        &mut self,
        (from, broker_epoch): (BrokerId, i64),
        epoch: LeaderEpoch,
        durable_end: Offset,
        effects: &mut Vec<Effect>,
    ) {
        let durable_end = durable_end.min(self.end);
        if let Some(leader) = self.leader_of(epoch) {
            leader.note_progress(from, broker_epoch, durable_end);
            self.advance(effects);
        }
    }

    pub(super) fn on_tick(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let (end, high_watermark, limits) = (self.end, self.high_watermark, self.limits);
        if let Role::Leader(leader) = &mut self.role {
            leader.start_clocks(now_ms);
            leader.propose_due(high_watermark, end, (now_ms, true), &limits, effects);
        }
    }

    pub(super) fn on_isr_refused(&mut self, epoch: LeaderEpoch, partition_epoch: i32, now_ms: i64) {
        if let Some(leader) = self.leader_of(epoch)
            && leader.partition_epoch == partition_epoch
        {
            leader.refuse_proposal(now_ms);
        }
    }
}

impl Leader {
    /// Sends the open proposal again, or a new one if the ISR should change. `may_shrink`: followers that lag go too.
    fn propose_due(
        &mut self,
        high_watermark: Offset,
        log_end: Offset,
        (now_ms, may_shrink): (i64, bool),
        limits: &Limits,
        effects: &mut Vec<Effect>,
    ) {
        let is_due = |since_ms: i64| now_ms.saturating_sub(since_ms) >= limits.isr_retry_ms;
        let resent = match &mut self.proposal {
            Some(open) if may_shrink && is_due(open.sent_ms) => {
                open.sent_ms = now_ms;
                true
            }
            Some(_) => return,
            None => false,
        };
        if !resent {
            let waits = self.maybe_added.is_empty() && self.refused_ms.is_some_and(|at_ms| !is_due(at_ms));
            if waits {
                return;
            }
            let lag = may_shrink.then_some(limits.replica_lag_ms_max);
            let Some(isr) = self.due_isr(high_watermark, log_end, now_ms, lag) else { return };
            let members = isr.into_iter().map(|id| (id, self.broker_epoch(id))).collect();
            self.proposal = Some(Proposal { members, sent_ms: now_ms });
        }
        effects.extend(self.proposal_effect());
    }

    fn proposal_effect(&self) -> Option<Effect> {
        let members = self.proposal.as_ref()?.members.iter();
        let isr =
            members.map(|(broker, broker_epoch)| IsrMember { broker: *broker, broker_epoch: *broker_epoch });
        Some(Effect::ProposeIsr {
            epoch: self.epoch,
            partition_epoch: self.partition_epoch,
            isr: isr.collect(),
        })
    }

    /// The ISR as it should be, if that is another than the committed one.
    fn due_isr(
        &self,
        high_watermark: Offset,
        log_end: Offset,
        now_ms: i64,
        lag_ms_max: Option<i64>,
    ) -> Option<Vec<BrokerId>> {
        // Z55: what lies below this epoch's start may be acknowledged, even if our high watermark is not there yet.
        let floor =
            if defect!(isr_join_at_hw) { high_watermark } else { high_watermark.max(self.epoch_start) };
        let belongs = |id: BrokerId| {
            let Some(follower) = self.follower(id) else { return id == self.me };
            if !self.is_in_isr(id) {
                return follower.has_arrived(floor) && self.maybe_added.is_empty();
            }
            !follower.has_lost(high_watermark)
                && lag_ms_max.is_none_or(|lag_ms_max| !follower.lags(log_end, now_ms, lag_ms_max))
        };
        let isr: Vec<BrokerId> = self.replicas().into_iter().filter(|id| belongs(*id)).collect();
        let same = isr.len() == self.isr.len() && isr.iter().all(|id| self.isr.contains(id));
        // One whose addition may still be carried out holds the high watermark: committing what is there already on
        // the same partition epoch settles it.
        let unsettled = lag_ms_max.is_some() && !self.maybe_added.is_empty();
        (!same || unsettled).then_some(isr)
    }

    /// The open proposal was refused. That may have been a second copy of a request whose first was carried out, or will
    /// be: what it adds counts until the partition epoch moves, and the next tick sees to that.
    fn refuse_proposal(&mut self, now_ms: i64) {
        let Some(refused) = self.proposal.take() else { return };
        self.refused_ms = Some(now_ms);
        for (id, _) in refused.members {
            if !self.isr.contains(&id) && !self.maybe_added.contains(&id) {
                self.maybe_added.push(id);
            }
        }
    }
}
