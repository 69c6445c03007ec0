//! What a leader knows about its reign: the replicas, the ISR, how far each has come, and who waits.

use weir_defect::defect;

use super::Leadership;
use super::waiters::{WaiterId, WaiterQueue};
use crate::types::{BrokerId, LeaderEpoch, Offset};

/// The appends of one reign that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// acks=1: until the leader's durable end passes.
    pub(super) durable: WaiterQueue,
    /// acks=all: until the high watermark passes.
    pub(super) committed: WaiterQueue,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.durable.len() + self.committed.len()
    }

    /// Takes out everyone with records at `end` or above.
    pub(super) fn cut(&mut self, end: Offset) -> impl Iterator<Item = WaiterId> + '_ {
        self.durable.cut(end).chain(self.committed.cut(end))
    }

    pub(super) fn into_ids(self) -> impl Iterator<Item = WaiterId> {
        self.durable.into_ids().chain(self.committed.into_ids())
    }
}

#[derive(Debug)]
struct Follower {
    id: BrokerId,
    /// `None` until the follower has reported in this epoch: what it had before may have been truncated.
    durable_end: Option<Offset>,
}

/// One reign.
#[derive(Debug)]
pub(super) struct Leader {
    me: BrokerId,
    /// Invariant: the partition's epoch.
    pub(super) epoch: LeaderEpoch,
    /// m of contract 1. Invariant: `1 <= min_isr <=` number of replicas.
    min_isr: usize,
    /// The committed ISR. Invariant: contains the leader.
    isr: Vec<BrokerId>,
    /// What was asked of the controller and is not decided yet.
    pub(super) proposed_isr: Option<Vec<BrokerId>>,
    /// The other replicas.
    followers: Vec<Follower>,
    /// Followers may hold records below this offset under this epoch. Invariant: `<=` log end.
    pub(super) shipped_end: Offset,
    /// Who waits. Invariant: all were appended in this epoch.
    pub(super) waiters: Waiting,
}

impl Leader {
    pub(super) fn new(me: BrokerId, leadership: Leadership, log_end: Offset) -> Leader {
        let followers = leadership.replicas.iter().copied().filter(|id| *id != me);
        let followers: Vec<_> = followers.map(|id| Follower { id, durable_end: None }).collect();
        Leader {
            me,
            epoch: leadership.epoch,
            min_isr: leadership.min_insync.clamp(1, followers.len() + 1),
            isr: leadership.isr,
            proposed_isr: None,
            followers,
            shipped_end: log_end,
            waiters: Waiting::default(),
        }
    }

    pub(super) fn note_progress(&mut self, from: BrokerId, durable_end: Offset) {
        if let Some(follower) = self.followers.iter_mut().find(|follower| follower.id == from) {
            follower.durable_end = Some(durable_end);
        }
    }

    /// A committed change ends the proposal: either it was this one, or the proposal's base is gone.
    pub(super) fn commit_isr(&mut self, isr: Vec<BrokerId>) {
        if isr.contains(&self.me) {
            self.isr = isr;
            self.proposed_isr = None;
        }
    }

    /// Whether the committed ISR is too small to commit anything.
    ///
    /// The committed ISR counts here, not the maximal one: a proposed member cannot be elected yet, so it is no
    /// second home for the records.
    pub(super) fn under_min_isr(&self) -> bool {
        self.isr.len() < self.min_isr
    }

    pub(super) fn is_in_isr(&self, broker: BrokerId) -> bool {
        self.isr.contains(&broker)
    }

    /// The committed members and the proposed additions; a proposed removal still counts until it is committed.
    fn is_in_maximal_isr(&self, broker: BrokerId) -> bool {
        let proposed = self.proposed_isr.as_ref().is_some_and(|isr| isr.contains(&broker));
        self.is_in_isr(broker) || proposed
    }

    /// Up to where everything is durable on every member of the maximal ISR, or `None` when a member has not
    /// reported in this epoch or the ISR is too small: then the high watermark stands.
    pub(super) fn committed_end(&self, own_durable_end: Offset) -> Option<Offset> {
        // Z61: below min ISR an acknowledged record could have too few homes.
        if self.under_min_isr() && !defect!(hw_below_min_isr) {
            return None;
        }
        let mut committed = own_durable_end;
        for follower in &self.followers {
            // Z62: the controller may have committed the proposal already and elect the new member.
            let counts = if defect!(hw_committed_isr_only) {
                self.is_in_isr(follower.id)
            } else {
                self.is_in_maximal_isr(follower.id)
            };
            if counts {
                committed = committed.min(follower.durable_end?);
            }
        }
        Some(committed)
    }

    /// For the invariant: the lowest durable end in the maximal ISR among those that have reported in this epoch.
    pub(super) fn lowest_known_durable_end(&self, own_durable_end: Offset) -> Offset {
        let members = self.followers.iter().filter(|follower| self.is_in_maximal_isr(follower.id));
        members.filter_map(|follower| follower.durable_end).fold(own_durable_end, Offset::min)
    }
}
